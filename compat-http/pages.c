#include "compat-http/pages.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/err.h"
#include "compat-http/host_plain.h"
#include "compat-http/stream_server.h"

#define CONNS      256
#define IDLE_S     10
#define HEADER_S   3
#define CHECK_HOST 0x8000u /* beside the bits of the pages, in stream_peer.port */

struct page {
    struct page_spec spec;
    char *text;
    size_t n;
};

struct pages {
    struct stream_server *server;
    pthread_mutex_t lock; /* of the texts */
    struct page page[PAGES_MAX];
    size_t n;
};

static enum MHD_Result answer(struct MHD_Connection *mc, unsigned status, struct MHD_Response *res,
                              const char *type)
{
    if (res == NULL)
        return MHD_NO;
    if (type != NULL)
        (void)MHD_add_response_header(res, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    (void)MHD_add_response_header(res, "X-Content-Type-Options", "nosniff");
    /* Nobody keeps a slot for longer than one answer (incident 94). */
    (void)MHD_add_response_header(res, MHD_HTTP_HEADER_CONNECTION, "close");
    enum MHD_Result ok = MHD_queue_response(mc, status, res);
    MHD_destroy_response(res);
    return ok;
}

static enum MHD_Result answer_text(struct MHD_Connection *mc, unsigned status, const char *text)
{
    return answer(mc, status,
                  MHD_create_response_from_buffer(strlen(text), (void *)(uintptr_t)text,
                                                  MHD_RESPMEM_PERSISTENT),
                  "text/plain; charset=utf-8");
}

static enum MHD_Result give_page(struct pages *p, struct MHD_Connection *mc, struct page *page)
{
    pthread_mutex_lock(&p->lock);
    struct MHD_Response *res = MHD_create_response_from_buffer(
        page->n, page->text != NULL ? page->text : (char *)(uintptr_t) "", MHD_RESPMEM_MUST_COPY);
    pthread_mutex_unlock(&p->lock);
    return answer(mc, MHD_HTTP_OK, res, page->spec.type);
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *mc, const char *url,
                                  const char *method, const char *version, const char *data,
                                  size_t *n, void **state)
{
    static int seen;
    struct pages *p = arg;
    unsigned which = stream_server_peer(mc)->port;
    (void)version;
    (void)data;
    if (*state == NULL || *n > 0) { /* a body means nothing here */
        *state = &seen;
        *n = 0;
        return MHD_YES;
    }
    const char *host = MHD_lookup_connection_value(mc, MHD_HEADER_KIND, MHD_HTTP_HEADER_HOST);
    if ((which & CHECK_HOST) && host != NULL && !host_is_plain(host))
        return answer_text(mc, MHD_HTTP_FORBIDDEN, "not by this name\n");
    for (size_t i = 0; i < p->n; i++) {
        if (!(which & 1u << i) || strcmp(url, p->page[i].spec.path) != 0)
            continue;
        if (strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0)
            return give_page(p, mc, &p->page[i]);
        return answer(mc, MHD_HTTP_METHOD_NOT_ALLOWED,
                      MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT), NULL);
    }
    return answer_text(mc, MHD_HTTP_NOT_FOUND, "404 page not found\n");
}

int pages_new(struct pages **out, const struct page_spec *specs, size_t n)
{
    struct pages *p = n <= PAGES_MAX ? calloc(1, sizeof(*p)) : NULL;
    if (p == NULL)
        return n <= PAGES_MAX ? ERR_NOMEM : ERR_LIMIT;
    struct stream_server_cfg cfg = {
        .handler = on_request,
        .arg = p,
        .max_conns = CONNS,
        .max_per_peer = CONNS,
        .idle_s = IDLE_S,
        .header_s = HEADER_S,
        .conn_memory = 8192,
    };
    for (size_t i = 0; i < n; i++)
        p->page[i].spec = specs[i];
    p->n = n;
    pthread_mutex_init(&p->lock, NULL);
    int rc = stream_server_new(&p->server, &cfg);
    if (rc < 0) {
        pages_free(p);
        return rc;
    }
    *out = p;
    return 0;
}

void pages_free(struct pages *p)
{
    if (p == NULL)
        return;
    stream_server_free(p->server);
    pthread_mutex_destroy(&p->lock);
    for (size_t i = 0; i < p->n; i++)
        free(p->page[i].text);
    free(p);
}

void pages_set(struct pages *p, size_t i, const char *text, size_t n)
{
    char *copy = malloc(n + 1);
    if (copy == NULL)
        return;
    memcpy(copy, text, n);
    pthread_mutex_lock(&p->lock);
    free(p->page[i].text);
    p->page[i].text = copy;
    p->page[i].n = n;
    pthread_mutex_unlock(&p->lock);
}

/* What is not known to be something else is taken for loopback, and its Host is checked. */
static bool is_loopback(int fd)
{
    union {
        struct sockaddr sa;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    } at;
    socklen_t len = sizeof(at);
    memset(&at, 0, sizeof(at));
    if (getsockname(fd, &at.sa, &len) < 0)
        return true;
    if (at.sa.sa_family == AF_INET)
        return ntohl(at.in.sin_addr.s_addr) >> 24 == 127;
    return at.sa.sa_family != AF_INET6 || IN6_IS_ADDR_LOOPBACK(&at.in6.sin6_addr) ||
           (IN6_IS_ADDR_V4MAPPED(&at.in6.sin6_addr) && at.in6.sin6_addr.s6_addr[12] == 127);
}

int pages_serve_tcp(struct pages *p, int fd, unsigned which)
{
    static const struct pubkey nobody;
    uint16_t bits = (uint16_t)((which & PAGES_ALL) | (is_loopback(fd) ? CHECK_HOST : 0u));
    return stream_server_add(p->server, fd, &nobody, bits);
}

int pages_serve_stream(struct pages *p, int fd, const struct pubkey *pk, unsigned which)
{
    return stream_server_add(p->server, fd, pk, (uint16_t)(which & PAGES_ALL));
}

void pages_tick(struct pages *p, uint64_t now_ns)
{
    stream_server_tick(p->server, now_ns);
}

void pages_stat(struct pages *p, struct pages_stat *out)
{
    struct stream_server_stat st;
    stream_server_stat(p->server, &st);
    *out = (struct pages_stat){st.conns, st.served, st.refused_limit, st.slow_headers};
}
