#include "tests/unit/compat-http/http_peer.h"

#include <arpa/inet.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "tests/unit/vectors.h"

struct body {
    char *p;
    size_t len;
};

static enum MHD_Result answer(struct MHD_Connection *mc, unsigned status, const char *text,
                              size_t n, bool close_after)
{
    struct MHD_Response *r =
        MHD_create_response_from_buffer(n, (void *)(uintptr_t)text, MHD_RESPMEM_MUST_COPY);
    if (close_after)
        MHD_add_response_header(r, "Connection", "close");
    enum MHD_Result ok = MHD_queue_response(mc, status, r);
    MHD_destroy_response(r);
    return ok;
}

static enum MHD_Result respond(struct http_peer *p, struct MHD_Connection *mc, const char *path,
                               const char *method, const struct body *b)
{
    static char out[1 << 20];
    unsigned n = atomic_fetch_add(&p->requests, 1);
    if (strcmp(path, "/ok") == 0)
        return answer(mc, 200, "fine", 4, false);
    if (strcmp(path, "/old") == 0)
        return answer(mc, 200, "old", 3, true);
    if (strcmp(path, "/close") == 0)
        return MHD_NO;
    if (strcmp(path, "/slow") == 0) {
        if (p->stopping)
            return MHD_NO;
        pthread_mutex_lock(&p->lock);
        assert_true(p->n_held < sizeof(p->held) / sizeof(p->held[0]));
        p->held[p->n_held++] = mc;
        MHD_suspend_connection(mc);
        pthread_mutex_unlock(&p->lock);
        return MHD_YES;
    }
    if (strncmp(path, "/busy/", 6) == 0)
        return n < (unsigned)atoi(path + 6) ? answer(mc, 503, "busy", 4, false)
                                            : answer(mc, 200, "late", 4, false);
    if (strncmp(path, "/big/", 5) == 0) {
        memset(out, 'x', sizeof(out));
        return answer(mc, 200, out, (size_t)atoi(path + 5), false);
    }
    if (strcmp(path, "/echo") == 0) {
        int len =
            snprintf(out, sizeof(out), "%s %.*s", method, (int)b->len, b->p != NULL ? b->p : "");
        return answer(mc, 200, out, (size_t)len, false);
    }
    out[0] = '\0';
    unsigned status = p->script != NULL ? p->script(p->arg, method, path, b->p != NULL ? b->p : "",
                                                    b->len, out, sizeof(out))
                                        : 404;
    return answer(mc, status, out, strlen(out), false);
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *mc, const char *url,
                                  const char *method, const char *version, const char *data,
                                  size_t *n, void **state)
{
    struct body *b = *state;
    (void)version;
    if (b == NULL) {
        *state = calloc(1, sizeof(*b));
        return *state != NULL ? MHD_YES : MHD_NO;
    }
    if (*n == 0)
        return respond(arg, mc, url, method, b);
    b->p = realloc(b->p, b->len + *n + 1);
    assert_non_null(b->p);
    memcpy(b->p + b->len, data, *n);
    b->len += *n;
    b->p[b->len] = '\0';
    *n = 0;
    return MHD_YES;
}

static void on_completed(void *arg, struct MHD_Connection *mc, void **state,
                         enum MHD_RequestTerminationCode code)
{
    struct body *b = *state;
    (void)arg, (void)mc, (void)code;
    if (b != NULL)
        free(b->p);
    free(b);
}

static void on_connection(void *arg, struct MHD_Connection *mc, void **context,
                          enum MHD_ConnectionNotificationCode code)
{
    struct http_peer *p = arg;
    (void)mc, (void)context;
    if (code == MHD_CONNECTION_NOTIFY_STARTED)
        atomic_fetch_add(&p->connections, 1);
}

void http_peer_start(struct http_peer *p)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    pthread_mutex_init(&p->lock, NULL);
    p->daemon = MHD_start_daemon(
        MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_EPOLL | MHD_USE_ITC | MHD_ALLOW_SUSPEND_RESUME, 0,
        NULL, NULL, on_request, p, MHD_OPTION_SOCK_ADDR, &at, MHD_OPTION_NOTIFY_COMPLETED,
        on_completed, p, MHD_OPTION_NOTIFY_CONNECTION, on_connection, p, MHD_OPTION_END);
    assert_non_null(p->daemon);
    snprintf(p->url, sizeof(p->url), "http://127.0.0.1:%u",
             MHD_get_daemon_info(p->daemon, MHD_DAEMON_INFO_BIND_PORT)->port);
}

void http_peer_stop(struct http_peer *p)
{
    if (p->daemon == NULL)
        return;
    p->stopping = true;
    pthread_mutex_lock(&p->lock);
    while (p->n_held > 0)
        MHD_resume_connection(p->held[--p->n_held]);
    pthread_mutex_unlock(&p->lock);
    MHD_stop_daemon(p->daemon);
    p->daemon = NULL;
}
