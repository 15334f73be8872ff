#include "apps/http.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "apps/http_rules.h"
#include "base/err.h"
#include "compat-http/stream_server.h"

#define PATH_CAP      4096
#define LIST_MAX      (4u * 1024u * 1024u)
#define TICK_MS       1000
#define DRAIN_MS      5000
#define DRAIN_TURN_MS 50

struct http {
    struct http_cfg cfg;
    int root;
    bool no_openat2;
    struct stream_server *server;
    bool ended; /* the listener */
};

struct request {
    unsigned status;
    uint64_t bytes; /* of the body that is sent */
    bool head;
    char method[16];
};

/* ---- files below the root ---- */

/* Without the kernel's help: segment by segment, and no symbolic links. */
static int open_walk(int root, const char *path)
{
    char segment[NAME_MAX + 1];
    int fd = openat(root, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    while (fd >= 0 && *path != '\0') {
        size_t n = strcspn(path, "/");
        bool last = path[n] == '\0' || path[n + 1] == '\0';
        if (n >= sizeof(segment)) {
            close(fd);
            errno = ENAMETOOLONG;
            return -1;
        }
        memcpy(segment, path, n);
        segment[n] = '\0';
        int flags = last ? O_RDONLY | O_NONBLOCK | O_NOCTTY : O_PATH | O_DIRECTORY;
        int next = openat(fd, segment, flags | O_NOFOLLOW | O_CLOEXEC);
        close(fd);
        fd = next;
        path += n + (path[n] == '/');
        if (last)
            return fd;
    }
    if (fd < 0)
        return -1;
    int dir = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    close(fd);
    return dir;
}

/* path: clean, without the leading '/'. Returns a descriptor or -1 with errno. */
static int open_below(struct http *h, const char *path)
{
    struct open_how how = {
        .flags = O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS,
    };
    long fd = -1;
    if (!h->no_openat2) {
        fd = syscall(SYS_openat2, h->root, *path != '\0' ? path : ".", &how, sizeof(how));
        if (fd >= 0 || (errno != ENOSYS && errno != EPERM))
            return (int)fd;
        h->no_openat2 = errno == ENOSYS;
    }
    return open_walk(h->root, path);
}

/* ---- answers ---- */

static void header(struct MHD_Response *res, const char *name, const char *value)
{
    (void)MHD_add_response_header(res, name, value);
}

/* Queue and forget; res may be NULL. */
static enum MHD_Result send_response(struct MHD_Connection *mc, struct request *r, unsigned status,
                                     struct MHD_Response *res, uint64_t bytes)
{
    if (res == NULL)
        return MHD_NO;
    r->status = status;
    r->bytes = r->head ? 0 : bytes;
    enum MHD_Result ok = MHD_queue_response(mc, status, res);
    MHD_destroy_response(res);
    return ok;
}

static enum MHD_Result send_text(struct MHD_Connection *mc, struct request *r, unsigned status,
                                 const char *text)
{
    struct MHD_Response *res = MHD_create_response_from_buffer(
        strlen(text), (void *)(uintptr_t)text, MHD_RESPMEM_PERSISTENT);
    if (res != NULL && *text != '\0') {
        header(res, "Content-Type", "text/plain; charset=utf-8");
        header(res, "X-Content-Type-Options", "nosniff");
    }
    return send_response(mc, r, status, res, strlen(text));
}

static enum MHD_Result send_options(struct MHD_Connection *mc, struct request *r)
{
    struct MHD_Response *res = MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
    if (res != NULL)
        header(res, "Allow", "GET, HEAD, OPTIONS, POST");
    return send_response(mc, r, MHD_HTTP_NO_CONTENT, res, 0);
}

static enum MHD_Result send_redirect(struct MHD_Connection *mc, struct request *r, const char *path)
{
    static const char text[] = "Moved Permanently\n";
    char where[PATH_CAP * 3];
    struct MHD_Response *res = NULL;
    if (http_path_encode(where, sizeof(where), path))
        res = MHD_create_response_from_buffer(sizeof(text) - 1, (void *)(uintptr_t)text,
                                              MHD_RESPMEM_PERSISTENT);
    if (res != NULL) {
        header(res, "Content-Type", "text/plain; charset=utf-8");
        header(res, "Location", where);
    }
    return send_response(mc, r, MHD_HTTP_MOVED_PERMANENTLY, res, sizeof(text) - 1);
}

static enum MHD_Result send_not_found(struct MHD_Connection *mc, struct request *r)
{
    return send_text(mc, r, MHD_HTTP_NOT_FOUND, "Not Found\n");
}

/* ---- a file ---- */

static const char *asked(struct MHD_Connection *mc, const char *name)
{
    return MHD_lookup_connection_value(mc, MHD_HEADER_KIND, name);
}

static enum MHD_Result send_bad_range(struct MHD_Connection *mc, struct request *r, uint64_t size)
{
    char value[40];
    struct MHD_Response *res = MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
    snprintf(value, sizeof(value), "bytes */%llu", (unsigned long long)size);
    if (res != NULL)
        header(res, "Content-Range", value);
    return send_response(mc, r, MHD_HTTP_RANGE_NOT_SATISFIABLE, res, 0);
}

struct file {
    int fd; /* taken over by who sends it */
    const char *name;
    uint64_t size;
    time_t mtime;
    char etag[HTTP_ETAG_MAX];
};

static void file_headers(struct MHD_Response *res, const struct file *f)
{
    char date[HTTP_DATE_MAX];
    header(res, "Accept-Ranges", "bytes");
    header(res, "Last-Modified", http_date(date, f->mtime));
    header(res, "ETag", f->etag);
}

static enum MHD_Result send_part(struct MHD_Connection *mc, struct request *r, const struct file *f,
                                 const struct http_range *range)
{
    char value[80];
    uint64_t first = range != NULL ? range->first : 0, n = range != NULL ? range->n : f->size;
    struct MHD_Response *res = MHD_create_response_from_fd_at_offset64(n, f->fd, first);
    if (res == NULL) {
        close(f->fd);
        return MHD_NO;
    }
    file_headers(res, f);
    header(res, "Content-Type", http_type_of(f->name));
    if (range == NULL)
        return send_response(mc, r, MHD_HTTP_OK, res, n);
    snprintf(value, sizeof(value), "bytes %llu-%llu/%llu", (unsigned long long)first,
             (unsigned long long)(first + n - 1), (unsigned long long)f->size);
    header(res, "Content-Range", value);
    return send_response(mc, r, MHD_HTTP_PARTIAL_CONTENT, res, n);
}

static enum MHD_Result send_condition(struct MHD_Connection *mc, struct request *r,
                                      const struct file *f, unsigned status)
{
    struct MHD_Response *res = MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
    if (res != NULL)
        file_headers(res, f);
    return send_response(mc, r, status, res, 0);
}

static enum MHD_Result send_file(struct MHD_Connection *mc, struct request *r, int fd,
                                 const struct stat *st, const char *name)
{
    struct file f = {
        .fd = fd, .name = name, .size = (uint64_t)st->st_size, .mtime = st->st_mtim.tv_sec};
    const struct http_conditions cond = {
        .if_match = asked(mc, "If-Match"),
        .if_none_match = asked(mc, "If-None-Match"),
        .if_modified_since = asked(mc, "If-Modified-Since"),
        .if_unmodified_since = asked(mc, "If-Unmodified-Since"),
        .if_range = asked(mc, "If-Range"),
    };
    const char *range_text = asked(mc, "Range");
    struct http_range range;
    http_etag(f.etag, f.size, &st->st_mtim);
    int status = http_conditions_check(&cond, f.etag, f.mtime), has = 0;
    if (status == 200 && range_text != NULL && http_if_range(&cond, f.etag, f.mtime))
        has = http_range(&range, range_text, f.size);
    if (status != 200 || has < 0)
        close(fd);
    if (status != 200)
        return send_condition(mc, r, &f, (unsigned)status);
    if (has < 0)
        return send_bad_range(mc, r, f.size);
    return send_part(mc, r, &f, has > 0 ? &range : NULL);
}

/* ---- a directory ---- */

struct listing {
    char *names[HTTP_ENTRIES];
    size_t n;
    bool more;
};

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Names, directories with a '/' behind. Takes fd over. */
static bool read_names(struct listing *l, int fd)
{
    DIR *dir = fdopendir(fd);
    if (dir == NULL) {
        close(fd);
        return false;
    }
    for (struct dirent *e; (e = readdir(dir)) != NULL;) {
        struct stat st;
        char *name;
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        l->more = l->n == HTTP_ENTRIES;
        if (l->more)
            break;
        bool is_dir = fstatat(dirfd(dir), e->d_name, &st, 0) == 0 && S_ISDIR(st.st_mode);
        if (asprintf(&name, "%s%s", e->d_name, is_dir ? "/" : "") < 0)
            break;
        l->names[l->n++] = name;
    }
    closedir(dir);
    qsort(l->names, l->n, sizeof(l->names[0]), by_name);
    return true;
}

static void print_entry(FILE *out, const char *name)
{
    char link[3 * (NAME_MAX + 2) + 1], text[6 * (NAME_MAX + 2) + 1];
    /* "./" in front: a name with a colon would be taken for a scheme */
    if (http_path_encode(link, sizeof(link), name) && http_html_escape(text, sizeof(text), name))
        fprintf(out, "<li><a href=\"./%s\">%s</a></li>\n", link, text);
}

static char *listing_html(const struct listing *l, const char *path, size_t *n)
{
    char title[6 * PATH_CAP] = "", *html = NULL;
    FILE *out = open_memstream(&html, n);
    if (out == NULL)
        return NULL;
    (void)http_html_escape(title, sizeof(title), path);
    fprintf(out,
            "<!DOCTYPE html>\n<html><head><meta charset=\"utf-8\"><title>%s</title></head>\n"
            "<body><h1>%s</h1>\n<ul>\n%s",
            title, title, strcmp(path, "/") != 0 ? "<li><a href=\"../\">../</a></li>\n" : "");
    for (size_t i = 0; i < l->n && ftell(out) < (long)LIST_MAX; i++)
        print_entry(out, l->names[i]);
    fprintf(out, "</ul>%s</body></html>\n", l->more ? "<p>There are more.</p>" : "");
    if (fclose(out) == 0)
        return html;
    free(html);
    return NULL;
}

static enum MHD_Result send_listing(struct MHD_Connection *mc, struct request *r, int fd,
                                    const char *path)
{
    struct listing *l = calloc(1, sizeof(*l));
    char *html = NULL;
    size_t n = 0;
    if (l == NULL)
        close(fd);
    else if (read_names(l, fd))
        html = listing_html(l, path, &n);
    for (size_t i = 0; l != NULL && i < l->n; i++)
        free(l->names[i]);
    free(l);
    if (html == NULL)
        return MHD_NO;
    struct MHD_Response *res = MHD_create_response_from_buffer(n, html, MHD_RESPMEM_MUST_FREE);
    if (res == NULL)
        free(html);
    else
        header(res, "Content-Type", "text/html; charset=utf-8");
    return send_response(mc, r, MHD_HTTP_OK, res, n);
}

static enum MHD_Result send_dir(struct http *h, struct MHD_Connection *mc, struct request *r,
                                int fd, const char *path)
{
    struct stat st;
    char name[PATH_CAP + 16];
    snprintf(name, sizeof(name), "%sindex.html", path + 1);
    int index = open_below(h, name);
    if (index >= 0 && fstat(index, &st) == 0 && S_ISREG(st.st_mode)) {
        close(fd);
        return send_file(mc, r, index, &st, "index.html");
    }
    if (index >= 0)
        close(index);
    if (!h->cfg.no_listing)
        return send_listing(mc, r, fd, path);
    close(fd);
    return send_not_found(mc, r);
}

/* ---- a request ---- */

static enum MHD_Result serve_path(struct http *h, struct MHD_Connection *mc, struct request *r,
                                  char *path)
{
    struct stat st;
    size_t n = strlen(path);
    bool slash = path[n - 1] == '/';
    int fd = open_below(h, path + 1);
    if (fd < 0 || fstat(fd, &st) < 0 || (S_ISREG(st.st_mode) ? slash : !S_ISDIR(st.st_mode))) {
        if (fd >= 0)
            close(fd);
        return fd < 0 && errno == EMFILE ? send_text(mc, r, 503, "Service Unavailable\n")
                                         : send_not_found(mc, r);
    }
    if (S_ISREG(st.st_mode))
        return send_file(mc, r, fd, &st, path);
    if (slash)
        return send_dir(h, mc, r, fd, path);
    close(fd);
    memcpy(path + n, "/", 2);
    return send_redirect(mc, r, path);
}

static bool allowed(const struct http *h, const struct pubkey *pk)
{
    return h->cfg.whitelist == NULL || whitelist_allows(h->cfg.whitelist, pk);
}

static enum MHD_Result answer(struct http *h, struct MHD_Connection *mc, struct request *r,
                              const char *url)
{
    char path[PATH_CAP + 2];
    if (!allowed(h, &stream_server_peer(mc)->pk))
        return send_text(mc, r, MHD_HTTP_FORBIDDEN, "Forbidden\n");
    if (strcmp(r->method, "OPTIONS") == 0)
        return send_options(mc, r);
    if (strcmp(r->method, "TRACE") == 0 || strcmp(r->method, "CONNECT") == 0)
        return send_text(mc, r, MHD_HTTP_METHOD_NOT_ALLOWED, "Method Not Allowed\n");
    int rc = http_path_clean(path, PATH_CAP, url);
    if (rc == ERR_TOO_LONG)
        return send_text(mc, r, MHD_HTTP_URI_TOO_LONG, "URI Too Long\n");
    if (rc < 0)
        return send_text(mc, r, MHD_HTTP_BAD_REQUEST, "Bad Request\n");
    return rc > 0 ? send_redirect(mc, r, path) : serve_path(h, mc, r, path);
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *mc, const char *url,
                                  const char *method, const char *version, const char *data,
                                  size_t *n, void **state)
{
    struct request *r = *state;
    (void)version, (void)data;
    if (r == NULL) { /* the headers are complete; a body may follow */
        r = calloc(1, sizeof(*r));
        if (r == NULL)
            return MHD_NO;
        snprintf(r->method, sizeof(r->method), "%s", method);
        r->head = strcmp(method, "HEAD") == 0;
        *state = r;
        return MHD_YES;
    }
    if (*n > 0) { /* nobody wants it */
        *n = 0;
        return MHD_YES;
    }
    return answer(arg, mc, r, url);
}

/* ---- log ---- */

static void log_text(char *out, size_t cap, const char *text)
{
    size_t n = 0;
    for (; *text != '\0' && n + 5 < cap; text++) {
        unsigned char c = (unsigned char)*text;
        if (c < 0x80 && isprint(c) && c != '"' && c != '\\')
            out[n++] = (char)c;
        else
            n += (size_t)snprintf(out + n, cap - n, "\\x%02x", c);
    }
    out[n] = '\0';
}

static void on_completed(void *arg, struct MHD_Connection *mc, void **state,
                         enum MHD_RequestTerminationCode code)
{
    struct http *h = arg;
    struct request *r = *state;
    char uri[1024], method[64], date[40] = "", pk[PUBKEY_HEX + 1];
    struct tm tm;
    time_t now = time(NULL);
    if (r == NULL)
        return;
    *state = NULL;
    if (h->cfg.log != NULL) {
        const struct stream_peer *peer = stream_server_peer(mc);
        log_text(uri, sizeof(uri), stream_server_uri(mc));
        log_text(method, sizeof(method), r->method);
        if (gmtime_r(&now, &tm) != NULL)
            (void)strftime(date, sizeof(date), "%d/%b/%Y:%H:%M:%S +0000", &tm);
        fprintf(h->cfg.log, "%s:%u - - [%s] \"%s %s HTTP/1.1\" %u %llu%s\n",
                pubkey_hex(pk, &peer->pk), peer->port, date, method, uri, r->status,
                (unsigned long long)r->bytes,
                code == MHD_REQUEST_TERMINATED_COMPLETED_OK ? "" : " (cut)");
        fflush(h->cfg.log);
    }
    free(r);
}

/* ---- life ---- */

int http_new(struct http **out, const struct http_cfg *cfg)
{
    struct http *h = calloc(1, sizeof(*h));
    *out = NULL;
    if (h == NULL)
        return ERR_NOMEM;
    h->cfg = *cfg;
    h->root = open(cfg->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = h->root < 0 ? err_sys() : 0;
    struct stream_server_cfg server = {
        .handler = on_request,
        .completed = on_completed,
        .arg = h,
        .max_conns = cfg->max_conns,
        .max_per_peer = cfg->max_per_peer,
    };
    if (rc == 0)
        rc = stream_server_new(&h->server, &server);
    if (rc < 0) {
        http_free(h);
        return rc;
    }
    *out = h;
    return 0;
}

void http_free(struct http *h)
{
    if (h == NULL)
        return;
    stream_server_free(h->server);
    if (h->root >= 0)
        close(h->root);
    free(h);
}

char *http_summary(struct http *h, char *out, size_t cap)
{
    struct stream_server_stat s;
    stream_server_stat(h->server, &s);
    snprintf(out, cap,
             "%llu requests on %llu connections; %llu connections refused by a limit, %llu cut "
             "for slow headers",
             (unsigned long long)s.served, (unsigned long long)s.accepted,
             (unsigned long long)s.refused_limit, (unsigned long long)s.slow_headers);
    return out;
}

int http_add(struct http *h, int fd, const struct pubkey *pk, uint16_t port)
{
    return stream_server_add(h->server, fd, pk, port);
}

static void on_stream(void *arg, int fd, const struct pubkey *pk, uint16_t port)
{
    (void)http_add(arg, fd, pk, port); /* refusals are counted there */
}

static void on_listen(void *arg, uint16_t port, const struct app_net_failure *failure)
{
    struct http *h = arg;
    h->ended = failure != NULL;
    h->cfg.port = failure == NULL ? port : h->cfg.port;
}

static uint64_t mono_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* No new streams; those that are being answered are finished. */
static void drain(struct http *h, struct app_net *net)
{
    struct stream_server_stat stat;
    uint64_t until = mono_ns() + DRAIN_MS * UINT64_C(1000000);
    for (;;) {
        stream_server_stat(h->server, &stat);
        if (stat.requests == 0 || *h->cfg.stop > 1 || mono_ns() > until ||
            app_net_dispatch(net, DRAIN_TURN_MS) < 0)
            return;
    }
}

int http_run(struct http *h, struct app_net *net)
{
    uint64_t handle = 0;
    uint16_t asked_port = h->cfg.port;
    bool told = false;
    h->cfg.port = 0;
    int rc = app_net_listen(net, asked_port, on_stream, on_listen, h, &handle);
    while (rc == 0 && !h->ended && *h->cfg.stop == 0) {
        rc = app_net_dispatch(net, TICK_MS);
        stream_server_tick(h->server, mono_ns());
        if (!told && h->cfg.port != 0) {
            told = true;
            if (h->cfg.ready != NULL)
                h->cfg.ready(h->cfg.arg, &net->self, h->cfg.port);
        }
    }
    app_net_cancel(net, handle);
    if (rc == 0 && !h->ended)
        drain(h, net);
    return rc < 0 ? rc : h->ended ? net->failure.err : 0;
}
