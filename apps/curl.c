#include "apps/curl.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "apps/curl_out.h"
#include "base/err.h"
#include "compat-http/stream_client.h"

#define DATA_MAX     (256u * 1024u * 1024u)
#define FORWARDS     32 /* that are kept for other URLs and redirects */
#define PROGRESS_NS  UINT64_C(200000000)
#define VALIDATOR    256
#define DEFAULT_TYPE "Content-Type: text/plain"

struct forward { /* a socket that leads to pk:port */
    struct pubkey pk;
    uint16_t port;
    uint64_t handle;
    char path[APP_NET_PATH];
};

struct tool_curl {
    struct app_net *net;
    const struct curl_cfg *cfg;
    CURL *easy;
    struct forward forwards[FORWARDS];
    size_t n_forwards;
    struct curl_slist *headers;
    char *data; /* body of a POST, in memory */
    size_t data_n;
    int upload_fd;    /* -1 = none */
    int64_t upload_n; /* -1 = not known */
    FILE *dump;
    bool show; /* progress */
};

struct transfer { /* of one URL */
    struct tool_curl *c;
    const char *text; /* the URL as given */
    struct stream_url url;
    struct curl_out out;
    char error[CURL_ERROR_SIZE];
    char validator[VALIDATOR]; /* of an earlier answer: its body may be continued */
    char seen[VALIDATOR];      /* of this one */
    bool post_dropped;         /* a redirect made it a GET */
    bool head_started;         /* -i: headers are in the output */
    bool head_done;            /* the empty line behind them has come */
    bool body_started;
    bool hide_body; /* a redirect that is followed, -f, or no continuation */
    bool other_key; /* a redirect led away from the first one */
    int broken;     /* exit code of a callback's failure */
    bool to_resume; /* a Range of ours was sent */
    uint64_t asked_from, content_first, content_size;
    bool has_content_range;
    long status;
    uint64_t started_ns, shown_ns, received;
    double total, moved; /* as last shown */
    bool up;
    unsigned redirects, attempts;
};

static uint64_t mono_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static bool stopped(const struct tool_curl *c)
{
    return c->cfg->stop != NULL && *c->cfg->stop != 0;
}

static int fail(int code, const char *what, const char *why)
{
    fprintf(stderr, "kadmsg: %s: %s\n", what, why);
    return code;
}

/* ---- forwards ---- */

static struct forward *forward_to(struct tool_curl *c, const struct stream_url *u)
{
    for (size_t i = 0; i < c->n_forwards; i++)
        if (c->forwards[i].port == u->port && pubkey_equal(&c->forwards[i].pk, &u->pk))
            return &c->forwards[i];
    if (c->n_forwards == FORWARDS) {
        app_net_cancel(c->net, c->forwards[0].handle);
        memmove(c->forwards, c->forwards + 1, sizeof(c->forwards) - sizeof(c->forwards[0]));
        c->n_forwards--;
    }
    struct forward *f = &c->forwards[c->n_forwards];
    if (app_net_forward(c->net, &u->pk, u->port, f->path, &f->handle) < 0)
        return NULL;
    f->pk = u->pk;
    f->port = u->port;
    c->n_forwards++;
    return f;
}

/* The contract's exit codes of a failed dial, as this tool numbers them. */
static int dial_exit(const struct app_net_failure *f)
{
    static const int codes[] = {
        [0] = CURL_EXIT_FAILED,    [1] = CURL_EXIT_REFUSED, [2] = CURL_EXIT_FAILED,
        [3] = CURL_EXIT_NOT_FOUND, [4] = CURL_EXIT_REFUSED, [5] = CURL_EXIT_TIMEOUT,
        [6] = CURL_EXIT_NOT_FOUND};
    return codes[f->exit >= 0 && f->exit <= 6 ? f->exit : 1];
}

/* ---- progress ---- */

static char *amount(char out[24], double n)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    int u = 0;
    for (; n >= 1024 && u < 4; u++)
        n /= 1024;
    snprintf(out, 24, u == 0 ? "%.0f %s" : "%.1f %s", n, units[u]);
    return out;
}

static void show_progress(struct transfer *t, bool last)
{
    char a[24], b[24], s[24], eta[32] = "";
    double seconds = (double)(mono_ns() - t->started_ns) / 1e9;
    double base = t->up ? 0 : (double)t->asked_from, done = base + t->moved;
    double speed = seconds > 0 ? t->moved / seconds : 0, left = t->total - t->moved;
    if (t->total > 0 && speed > 0 && !last)
        snprintf(eta, sizeof(eta), "  %d:%02d left", (int)(left / speed) / 60,
                 (int)(left / speed) % 60);
    fprintf(stderr, "\r%s", amount(a, done));
    if (t->total > 0)
        fprintf(stderr, " / %s  %3.0f%%", amount(b, base + t->total),
                100 * done / (base + t->total));
    fprintf(stderr, "  %s/s%s\033[K%s", amount(s, speed), eta, last ? "\n" : "");
}

static int on_progress(void *arg, curl_off_t dl_total, curl_off_t dl, curl_off_t ul_total,
                       curl_off_t ul)
{
    struct transfer *t = arg;
    uint64_t now = mono_ns();
    if (stopped(t->c))
        return 1;
    if (!t->c->show || (dl == 0 && ul == 0))
        return 0;
    t->up = dl == 0;
    t->moved = (double)(t->up ? ul : dl);
    t->total = (double)(t->up ? ul_total : dl_total);
    if (now - t->shown_ns >= PROGRESS_NS) {
        t->shown_ns = now;
        show_progress(t, false);
    }
    return 0;
}

/* ---- what comes ---- */

static bool is_redirect(long status)
{
    return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

static void header_value(char *out, size_t cap, const char *p, size_t n)
{
    while (n > 0 && (*p == ' ' || *p == '\t'))
        p++, n--;
    while (n > 0 && (p[n - 1] == '\r' || p[n - 1] == '\n' || p[n - 1] == ' '))
        n--;
    snprintf(out, cap, "%.*s", (int)(n < cap ? n : cap - 1), p);
}

/* "bytes 2-5/10", "bytes 2-5/" and a star, or star and "/10". */
static void read_content_range(struct transfer *t, const char *value)
{
    const char *slash = strchr(value, '/');
    char *end = NULL;
    if (strncasecmp(value, "bytes ", 6) != 0 || slash == NULL)
        return;
    bool none = value[6] == '*';
    t->content_first = none ? 0 : strtoull(value + 6, &end, 10);
    t->content_size = strtoull(slash + 1, NULL, 10);
    t->has_content_range = none || (end > value + 6 && *end == '-');
}

static void read_header(struct transfer *t, const char *p, size_t n)
{
    char value[VALIDATOR];
    if (n > 5 && strncasecmp(p, "ETag:", 5) == 0) {
        header_value(value, sizeof(value), p + 5, n - 5);
        if (value[0] == '"')
            memcpy(t->seen, value, sizeof(value));
    } else if (n > 14 && strncasecmp(p, "Last-Modified:", 14) == 0 && t->seen[0] == '\0') {
        header_value(t->seen, sizeof(t->seen), p + 14, n - 14);
    } else if (n > 14 && strncasecmp(p, "Content-Range:", 14) == 0) {
        header_value(value, sizeof(value), p + 14, n - 14);
        read_content_range(t, value);
    }
}

/* A new block of headers: an answer, or one more after 100 Continue. */
static void answer_begins(struct transfer *t)
{
    t->seen[0] = '\0';
    t->has_content_range = false;
    t->head_done = false;
    t->body_started = false;
}

/* -i */
static bool write_header(struct transfer *t, const char *p, size_t n)
{
    if (!t->head_started && !curl_out_start(&t->out, 0))
        t->broken = CURL_EXIT_HTTP;
    else if (!curl_out_write(&t->out, p, n))
        t->broken = CURL_EXIT_WRITE;
    t->head_started = true;
    return t->broken == 0;
}

static size_t on_header(char *p, size_t size, size_t n, void *arg)
{
    struct transfer *t = arg;
    (void)size;
    if (n > 5 && memcmp(p, "HTTP/", 5) == 0)
        answer_begins(t);
    t->head_done = t->head_done || *p == '\r' || *p == '\n'; /* trailers follow */
    read_header(t, p, n);
    if (t->c->dump != NULL && fwrite(p, 1, n, t->c->dump) != n) {
        t->broken = fail(CURL_EXIT_WRITE, t->c->cfg->dump_header, strerror(errno));
        return 0;
    }
    return !t->c->cfg->include || write_header(t, p, n) ? n : 0;
}

/* Where the body of this answer belongs. False: nowhere. */
static bool body_begins(struct transfer *t)
{
    uint64_t at = 0;
    t->body_started = true;
    (void)curl_easy_getinfo(t->c->easy, CURLINFO_RESPONSE_CODE, &t->status);
    t->hide_body = (t->c->cfg->follow && is_redirect(t->status)) ||
                   (t->status >= 400 && (t->c->cfg->fail || t->to_resume));
    if (t->hide_body || t->c->cfg->include)
        return true;
    if (t->to_resume && t->status == 206 && t->has_content_range)
        at = t->content_first;
    bool goes_on = at == t->asked_from;
    if (!goes_on && (t->validator[0] == '\0' || t->out.path == NULL)) {
        t->broken = fail(CURL_EXIT_RANGE, t->text, "the server cannot resume");
        return false;
    }
    if (!goes_on)
        t->received = 0; /* it has changed: all of it comes again */
    memcpy(t->validator, t->seen, sizeof(t->seen));
    if (!curl_out_start(&t->out, at))
        t->broken = CURL_EXIT_HTTP;
    return t->broken == 0;
}

static size_t on_body(char *p, size_t size, size_t n, void *arg)
{
    struct transfer *t = arg;
    (void)size;
    if (!t->body_started && !body_begins(t))
        return 0;
    if (t->hide_body)
        return n;
    t->received += n;
    if (t->c->cfg->max_size > 0 && t->received > t->c->cfg->max_size) {
        t->broken = fail(CURL_EXIT_SIZE, t->text, "the body is larger than --max-filesize");
        return 0;
    }
    if (curl_out_write(&t->out, p, n))
        return n;
    t->broken = CURL_EXIT_WRITE;
    return 0;
}

/* ---- what is sent ---- */

static size_t on_read(char *p, size_t size, size_t n, void *arg)
{
    struct tool_curl *c = arg;
    ssize_t got;
    do
        got = read(c->upload_fd, p, size * n);
    while (got < 0 && errno == EINTR);
    return got < 0 ? CURL_READFUNC_ABORT : (size_t)got;
}

static int on_seek(void *arg, curl_off_t offset, int origin)
{
    struct tool_curl *c = arg;
    return lseek(c->upload_fd, offset, origin) >= 0 ? CURL_SEEKFUNC_OK : CURL_SEEKFUNC_CANTSEEK;
}

static bool append_data(struct tool_curl *c, const void *p, size_t n)
{
    if (n > DATA_MAX - c->data_n)
        return false;
    char *more = realloc(c->data, c->data_n + n + 1);
    if (more == NULL)
        return false;
    memcpy(more + c->data_n, p, n);
    c->data = more;
    c->data_n += n;
    more[c->data_n] = '\0';
    return true;
}

static int append_file(struct tool_curl *c, const char *path)
{
    char buf[65536];
    int fd = strcmp(path, "-") == 0 ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = -1;
    bool room = true;
    while (fd >= 0 && room && (n = read(fd, buf, sizeof(buf))) > 0)
        room = append_data(c, buf, (size_t)n);
    int err = errno;
    if (fd >= 0)
        close(fd);
    if (!room)
        return fail(CURL_EXIT_READ, path, "too much for -d; -T FILE -X POST has no limit");
    return n < 0 ? fail(CURL_EXIT_READ, path, strerror(err)) : 0;
}

static int prepare_data(struct tool_curl *c)
{
    for (size_t i = 0; i < c->cfg->n_data; i++) {
        const char *d = c->cfg->data[i];
        if (!append_data(c, "&", i > 0))
            return fail(CURL_EXIT_FAILED, "--data", err_str(ERR_NOMEM));
        if (d[0] == '@') {
            int rc = append_file(c, d + 1);
            if (rc != 0)
                return rc;
        } else if (!append_data(c, d, strlen(d))) {
            return fail(CURL_EXIT_FAILED, "--data", err_str(ERR_TOO_LONG));
        }
    }
    return 0;
}

static int prepare_upload(struct tool_curl *c)
{
    struct stat st;
    const char *path = c->cfg->upload;
    if (path == NULL)
        return 0;
    c->upload_fd = strcmp(path, "-") == 0 ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC);
    if (c->upload_fd < 0 || fstat(c->upload_fd, &st) < 0)
        return fail(CURL_EXIT_READ, path, strerror(errno));
    c->upload_n = S_ISREG(st.st_mode) ? (int64_t)st.st_size : -1;
    return 0;
}

static bool has_header(const struct curl_cfg *cfg, const char *name)
{
    size_t n = strlen(name);
    for (size_t i = 0; i < cfg->n_headers; i++)
        if (strncasecmp(cfg->headers[i], name, n) == 0 && strchr(":;", cfg->headers[i][n]) != NULL)
            return true;
    return false;
}

static bool add_header(struct tool_curl *c, const char *text)
{
    struct curl_slist *l = curl_slist_append(c->headers, text);
    c->headers = l != NULL ? l : c->headers;
    return l != NULL;
}

/* Once for all URLs. */
static int prepare(struct tool_curl *c)
{
    const struct curl_cfg *cfg = c->cfg;
    bool ok = true;
    for (size_t i = 0; i < cfg->n_headers; i++)
        ok = ok && add_header(c, cfg->headers[i]);
    if (!has_header(cfg, "Expect")) /* no second of waiting where nobody answers it */
        ok = ok && add_header(c, "Expect:");
    if (cfg->n_data > 0 && !has_header(cfg, "Content-Type"))
        ok = ok && add_header(c, DEFAULT_TYPE);
    c->easy = curl_easy_init();
    if (!ok || c->easy == NULL)
        return fail(CURL_EXIT_FAILED, "curl", err_str(ERR_NOMEM));
    if (cfg->dump_header != NULL && (c->dump = fopen(cfg->dump_header, "we")) == NULL)
        return fail(CURL_EXIT_HTTP, cfg->dump_header, strerror(errno));
    int rc = prepare_data(c);
    return rc != 0 ? rc : prepare_upload(c);
}

/* ---- one request ---- */

static void set_method(struct transfer *t)
{
    CURL *e = t->c->easy;
    const struct curl_cfg *cfg = t->c->cfg;
    if (cfg->head)
        curl_easy_setopt(e, CURLOPT_NOBODY, 1L);
    if (!t->post_dropped && t->c->upload_fd >= 0) {
        curl_easy_setopt(e, CURLOPT_UPLOAD, 1L);
        curl_easy_setopt(e, CURLOPT_INFILESIZE_LARGE, (curl_off_t)t->c->upload_n);
        curl_easy_setopt(e, CURLOPT_READFUNCTION, on_read);
        curl_easy_setopt(e, CURLOPT_READDATA, t->c);
        curl_easy_setopt(e, CURLOPT_SEEKFUNCTION, on_seek);
        curl_easy_setopt(e, CURLOPT_SEEKDATA, t->c);
        (void)lseek(t->c->upload_fd, 0, SEEK_SET);
    } else if (!t->post_dropped && cfg->n_data > 0) {
        curl_easy_setopt(e, CURLOPT_POST, 1L);
        curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)t->c->data_n);
        curl_easy_setopt(e, CURLOPT_POSTFIELDS, t->c->data != NULL ? t->c->data : "");
    }
    if (cfg->method != NULL && !t->post_dropped)
        curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, cfg->method);
}

/* Headers that were meant for the first key only. */
static bool is_private(const char *h)
{
    return strncasecmp(h, "Authorization:", 14) == 0 || strncasecmp(h, "Cookie:", 7) == 0 ||
           strncasecmp(h, "Host:", 5) == 0;
}

/* Range and If-Range for what is there already. Returns the headers of this request, to be freed. */
static struct curl_slist *set_headers(struct transfer *t)
{
    struct curl_slist *l = NULL;
    char line[VALIDATOR + 32];
    for (const struct curl_slist *h = t->c->headers; h != NULL; h = h->next) {
        if ((t->post_dropped && strncasecmp(h->data, "Content-", 8) == 0) ||
            (t->other_key && is_private(h->data)))
            continue;
        l = curl_slist_append(l, h->data);
    }
    if (t->url.port == 80 && strchr(t->url.host, ':') != NULL && !has_header(t->c->cfg, "Host")) {
        snprintf(line, sizeof(line), "Host: %s", t->url.host); /* as typed: libcurl drops ":80" */
        l = curl_slist_append(l, line);
    }
    t->to_resume = t->out.at > 0 && !t->c->cfg->head;
    t->asked_from = t->to_resume ? t->out.at : 0;
    if (t->to_resume && t->validator[0] != '\0') {
        snprintf(line, sizeof(line), "If-Range: %s", t->validator);
        l = curl_slist_append(l, line);
    }
    if (t->to_resume) {
        snprintf(line, sizeof(line), "%llu-", (unsigned long long)t->asked_from);
        curl_easy_setopt(t->c->easy, CURLOPT_RANGE, line);
    } else if (t->c->cfg->range != NULL) {
        curl_easy_setopt(t->c->easy, CURLOPT_RANGE, t->c->cfg->range);
    }
    curl_easy_setopt(t->c->easy, CURLOPT_HTTPHEADER, l);
    return l;
}

static void set_options(struct transfer *t)
{
    CURL *e = t->c->easy;
    const struct curl_cfg *cfg = t->c->cfg;
    curl_easy_setopt(e, CURLOPT_ERRORBUFFER, t->error);
    curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(e, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(e, CURLOPT_HEADERDATA, t);
    curl_easy_setopt(e, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(e, CURLOPT_XFERINFODATA, t);
    curl_easy_setopt(e, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(e, CURLOPT_USERAGENT, cfg->agent);
    curl_easy_setopt(e, CURLOPT_VERBOSE, cfg->verbose ? 1L : 0L);
    curl_easy_setopt(e, CURLOPT_PATH_AS_IS, cfg->path_as_is ? 1L : 0L);
    curl_easy_setopt(e, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(e, CURLOPT_LOW_SPEED_TIME, (long)cfg->stall_s);
    curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, (long)cfg->max_time_ms);
    if (cfg->max_size > 0)
        curl_easy_setopt(e, CURLOPT_MAXFILESIZE_LARGE, (curl_off_t)cfg->max_size);
    if (cfg->compressed)
        curl_easy_setopt(e, CURLOPT_ACCEPT_ENCODING, "");
    if (cfg->user != NULL && !t->other_key)
        curl_easy_setopt(e, CURLOPT_USERPWD, cfg->user);
}

static int answered(const struct transfer *t)
{
    char text[64];
    snprintf(text, sizeof(text), "the server answered %ld", t->status);
    return fail(CURL_EXIT_HTTP, t->text, text);
}

static int curl_failure(struct transfer *t, const struct forward *f, CURLcode code)
{
    if (t->broken != 0)
        return t->broken;
    if (stopped(t->c) || code == CURLE_ABORTED_BY_CALLBACK)
        return stopped(t->c) ? fail(CURL_EXIT_CANCELLED, t->text, "interrupted")
                             : fail(CURL_EXIT_READ, t->text, "the file to send cannot be read");
    const struct app_net_failure *why = app_net_forward_failure(t->c->net, f->handle);
    if (why->err != 0) {
        fprintf(stderr, "kadmsg: %s\n", why->text);
        return why->broken ? (int)code : dial_exit(why);
    }
    return fail((int)code, t->text, t->error[0] != '\0' ? t->error : curl_easy_strerror(code));
}

/* A body whose end is the end of the connection is complete only if that was in order. */
static bool ends_with_connection(const struct transfer *t)
{
    struct curl_header *h;
    curl_off_t length = 0;
    (void)curl_easy_getinfo(t->c->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
    return length < 0 && !t->c->cfg->head && t->status != 204 && t->status != 304 &&
           curl_easy_header(t->c->easy, "Transfer-Encoding", 0, CURLH_HEADER, -1, &h) != CURLHE_OK;
}

static int broken_off(struct transfer *t, const struct forward *f)
{
    const struct app_net_failure *why = app_net_forward_failure(t->c->net, f->handle);
    return why->err == 0 ? 0 : fail(CURL_EXIT_FAILED, t->text, why->text);
}

/* What was there stays. 416 may say that it is complete. */
static int not_resumed(const struct transfer *t)
{
    if (t->status == 416 && t->has_content_range && t->content_size == t->asked_from)
        return 0;
    if (t->status == 416)
        return fail(CURL_EXIT_RANGE, t->text, "the server cannot resume there");
    return answered(t);
}

/* One request to t->url: 0 when there was an answer, which is in t->status. */
static int request(struct transfer *t)
{
    struct tool_curl *c = t->c;
    struct forward *f = forward_to(c, &t->url);
    if (f == NULL)
        return fail(app_net_failure(c->net)->exit, t->text, app_net_failure(c->net)->text);
    curl_easy_reset(c->easy); /* connections stay */
    t->error[0] = '\0';
    t->broken = 0;
    answer_begins(t);
    if (stream_client_setup(c->easy, &t->url, f->path) < 0)
        return fail(CURL_EXIT_FAILED, t->text, err_str(ERR_NOMEM));
    set_options(t);
    set_method(t);
    struct curl_slist *headers = set_headers(t);
    (void)app_net_forward_failure(c->net, f->handle); /* an old one is of no interest */
    CURLcode code = curl_easy_perform(c->easy);
    curl_slist_free_all(headers);
    (void)curl_easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &t->status);
    if (code != CURLE_OK)
        return curl_failure(t, f, code);
    int rc = ends_with_connection(t) ? broken_off(t, f) : 0;
    if (rc != 0)
        return rc;
    if (!t->head_done) /* which libcurl takes for an answer without body */
        return fail(CURL_EXIT_PARTIAL, t->text, "the answer ended within its headers");
    if (t->to_resume && t->status >= 400)
        return not_resumed(t);
    if (!t->body_started && t->status < 400 && !is_redirect(t->status) && !body_begins(t))
        return t->broken; /* an empty body */
    return 0;
}

/* ---- redirects, attempts ---- */

/* Where the answer leads. 0 and t->url changed, or an exit code. */
static int redirect(struct transfer *t)
{
    struct curl_header *h;
    struct stream_url next;
    const char *why = NULL;
    if (curl_easy_header(t->c->easy, "Location", 0, CURLH_HEADER, -1, &h) != CURLHE_OK)
        return fail(CURL_EXIT_FAILED, t->text, "redirect without Location");
    if (++t->redirects > t->c->cfg->max_redirects)
        return fail(CURL_EXIT_REDIRECTS, t->text, "too many redirects");
    if (stream_url_join(&next, &t->url, h->value, &why) < 0) {
        fprintf(stderr, "kadmsg: %s: redirect to %s: %s\n", t->text, h->value, why);
        return CURL_EXIT_URL;
    }
    t->post_dropped = t->post_dropped || t->status == 303 ||
                      ((t->status == 301 || t->status == 302) && t->c->cfg->n_data > 0 &&
                       t->c->cfg->method == NULL);
    if (!t->post_dropped && t->c->upload_fd >= 0 && t->c->upload_n < 0) {
        stream_url_free(&next);
        return fail(CURL_EXIT_READ, t->text, "redirect: what was sent cannot be read again");
    }
    t->other_key = t->other_key || !pubkey_equal(&next.pk, &t->url.pk);
    stream_url_free(&t->url);
    t->url = next;
    return 0;
}

static int attempt(struct transfer *t)
{
    t->head_started = t->head_started && t->out.path == NULL;
    int rc = request(t);
    while (rc == 0 && t->c->cfg->follow && is_redirect(t->status)) {
        rc = redirect(t);
        if (rc == 0)
            rc = request(t);
    }
    return rc == 0 && t->c->cfg->fail && t->status >= 400 && !t->to_resume ? answered(t) : rc;
}

/* Would the same request have a chance? */
static bool worth_another(const struct transfer *t, int rc)
{
    if (stopped(t->c) || (t->c->upload_fd >= 0 && t->c->upload_n < 0))
        return false; /* what was read from a pipe is gone */
    switch (rc) {
    case 0:
        return t->status == 408 || t->status == 429 || t->status == 502 || t->status == 503 ||
               t->status == 504;
    case CURL_EXIT_HTTP:
        return t->broken == 0 && (t->status >= 500 || t->status == 408 || t->status == 429);
    case CURL_EXIT_URL:
    case CURL_EXIT_USAGE:
    case CURL_EXIT_WRITE:
    case CURL_EXIT_RANGE:
    case CURL_EXIT_REDIRECTS:
    case CURL_EXIT_SIZE:
    case CURL_EXIT_CANCELLED:
        return false;
    default:
        return true;
    }
}

static void wait_before_next(struct tool_curl *c)
{
    uint64_t until = mono_ns() + c->cfg->wait_ns;
    while (!stopped(c) && mono_ns() < until) {
        uint64_t left = until - mono_ns(), turn = left < 100000000 ? left : 100000000;
        nanosleep(&(struct timespec){0, (long)turn}, NULL);
    }
}

static void print_json(const struct transfer *t, int rc, const char *path)
{
    json_t *o = json_pack("{s:s, s:i, s:i, s:I, s:f, s:i}", "url", t->text, "exit", rc, "status",
                          (int)t->status, "bytes", (json_int_t)t->received, "ms",
                          (double)(mono_ns() - t->started_ns) / 1e6, "attempts", (int)t->attempts);
    json_object_set_new(o, "file", path != NULL ? json_string(path) : json_null());
    json_dumpf(o, stdout, JSON_COMPACT | JSON_REAL_PRECISION(12));
    putchar('\n');
    json_decref(o);
}

static int fetch(struct transfer *t)
{
    const struct curl_cfg *cfg = t->c->cfg;
    int rc;
    for (;;) {
        t->attempts++;
        rc = attempt(t);
        if (!worth_another(t, rc) || (cfg->tries != 0 && t->attempts >= cfg->tries))
            return rc;
        if (t->validator[0] == '\0' && t->out.path != NULL && !cfg->resume_auto)
            t->out.at = cfg->resume_at; /* nothing says that it is still the same */
        if (t->validator[0] == '\0' && t->out.path == NULL && t->received > 0)
            return rc; /* it is out already */
        wait_before_next(t->c);
    }
}

static int get(struct tool_curl *c, size_t i)
{
    const char *why = NULL;
    struct transfer *t = calloc(1, sizeof(*t));
    if (t == NULL)
        return fail(CURL_EXIT_FAILED, c->cfg->urls[i], err_str(ERR_NOMEM));
    t->c = c;
    t->text = c->cfg->urls[i];
    t->started_ns = mono_ns();
    t->out.fd = -1;
    int rc = stream_url_parse(&t->url, t->text, &why) < 0 ? fail(CURL_EXIT_URL, t->text, why) : 0;
    if (rc == 0)
        rc = curl_out_open(&t->out, c->cfg, i, t->url.http + t->url.path);
    if (rc == 0)
        rc = fetch(t);
    if (c->show && t->shown_ns != 0)
        show_progress(t, true);
    char *path = c->cfg->json && t->out.path != NULL ? strdup(t->out.path) : NULL;
    int finished = curl_out_finish(&t->out, rc == 0);
    rc = rc != 0 ? rc : finished;
    if (c->cfg->json)
        print_json(t, rc, path);
    free(path);
    stream_url_free(&t->url);
    free(t);
    return rc;
}

int curl_check_urls(const struct curl_cfg *cfg)
{
    for (size_t i = 0; i < cfg->n_urls; i++) {
        const char *why = NULL;
        struct stream_url u;
        int rc = stream_url_parse(&u, cfg->urls[i], &why);
        stream_url_free(&u);
        if (rc < 0)
            return fail(CURL_EXIT_URL, cfg->urls[i], why);
    }
    return 0;
}

int curl_run(struct app_net *net, const struct curl_cfg *cfg)
{
    struct tool_curl c = {.net = net, .cfg = cfg, .upload_fd = -1, .upload_n = -1};
    bool to_file = cfg->n_outs > 0 || cfg->remote_name;
    c.show = cfg->progress > 0 || (cfg->progress == 0 && isatty(STDERR_FILENO) != 0 &&
                                   (to_file || isatty(STDOUT_FILENO) == 0));
    int rc = prepare(&c);
    for (size_t i = 0; i < cfg->n_urls && rc != CURL_EXIT_CANCELLED; i++) {
        if (c.easy == NULL || (i == 0 && rc != 0))
            break;
        int one = get(&c, i);
        rc = rc != 0 && one != CURL_EXIT_CANCELLED ? rc : one;
    }
    curl_easy_cleanup(c.easy);
    curl_slist_free_all(c.headers);
    for (size_t i = 0; i < c.n_forwards; i++)
        app_net_cancel(net, c.forwards[i].handle);
    if (c.upload_fd >= 0)
        close(c.upload_fd);
    if (c.dump != NULL && fclose(c.dump) != 0 && rc == 0)
        rc = fail(CURL_EXIT_WRITE, cfg->dump_header, strerror(errno));
    free(c.data);
    return rc;
}
