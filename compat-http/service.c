#include "compat-http/service.h"

#include <arpa/inet.h>
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "compat-http/disc_text.h"
#include "compat-http/host_plain.h"
#include "compat-http/service_int.h"

#define MAX_CONNS      16384
#define CONNS_SLACK    512 /* evicted ones that are still being closed */
#define HEADER_MS      3000
#define BODY_MS        3000
#define IDLE_MS        30000
#define STREAM_IDLE_MS 150000
#define BODY_TOTAL     ((size_t)64 << 20)
#define CONN_MEMORY    ((size_t)8192)
#define RATE_KEYS      65536
#define TICK_NS        (250 * NS_PER_MS)
#define BODY_FIRST     1024

static const char *const method_names[] = {[SERVICE_GET] = "GET",
                                           [SERVICE_POST] = "POST",
                                           [SERVICE_DELETE] = "DELETE",
                                           [SERVICE_PUT] = "PUT",
                                           [SERVICE_OPTIONS] = "OPTIONS"};

/* ---- the daemon and the loop ---- */

static void run_daemon(struct service *s)
{
    MHD_UNSIGNED_LONG_LONG ms;
    (void)MHD_run(s->daemon);
    /* Its descriptors are watched for edges: what it has seen and not done yet is told only here. */
    if (MHD_get_timeout(s->daemon, &ms) == MHD_YES)
        loop_timer_set(s->loop, &s->again, s->loop->now_ns + ms * NS_PER_MS);
    else
        loop_timer_cancel(s->loop, &s->again);
}

static void on_ready(evutil_socket_t fd, short what, void *arg)
{
    struct service *s = arg;
    (void)fd, (void)what;
    drive_loop_now(s->cfg.drive);
    run_daemon(s);
}

static void on_run(struct loop_task *t)
{
    run_daemon(container_of(t, struct service, run));
}

static void on_again(struct loop_timer *t)
{
    run_daemon(container_of(t, struct service, again));
}

void service_run_soon(struct service *s)
{
    loop_task_post(s->loop, &s->run);
}

/* Whoever is too slow is judged after what has arrived was read. */
static void on_tick(struct loop_timer *t)
{
    struct service *s = container_of(t, struct service, tick);
    run_daemon(s);
    sconn_sweep(s);
    loop_timer_set(s->loop, t, s->loop->now_ns + TICK_NS);
}

/* ---- routes ---- */

/* Cut what {} stands for out of path into *room. */
static bool match(const char *pattern, const char *path, char *room, const char **param, size_t *n)
{
    *n = 0;
    while (*pattern != '\0') {
        if (strncmp(pattern, "{}", 2) != 0) {
            if (*pattern++ != *path++)
                return false;
            continue;
        }
        pattern += 2;
        size_t len = strcspn(path, "/");
        if (len == 0 || len > SERVICE_PARAM_MAX || *n == SERVICE_PARAMS)
            return false;
        memcpy(room, path, len);
        room[len] = '\0';
        param[(*n)++] = room;
        room += len + 1;
        path += len;
    }
    return *path == '\0';
}

static int method_of(const char *name)
{
    for (size_t i = 0; i < sizeof(method_names) / sizeof(method_names[0]); i++)
        if (strcmp(name, method_names[i]) == 0)
            return (int)i;
    return -1;
}

/* Sets the route, or the status that says why there is none. */
static void find_route(struct request *r, const char *method_name, char *room)
{
    const struct service_cfg *cfg = &r->service->cfg;
    int method = method_of(method_name);
    size_t n = 0;
    r->early = MHD_HTTP_NOT_FOUND;
    for (size_t i = 0; i < cfg->n_routes && r->route == NULL; i++) {
        const struct service_route *route = &cfg->routes[i];
        if (!match(route->pattern, r->q.path, room, r->q.param, &n))
            continue;
        r->early = MHD_HTTP_METHOD_NOT_ALLOWED;
        if ((int)route->method != method)
            continue;
        r->route = route;
        r->q.method = route->method;
        r->early = 0;
        r->max = route->max_body != 0 ? route->max_body : SERVICE_MAX_BODY;
    }
}

/* ---- who calls ---- */

static void take_address(struct service_caller *c, const char *value, size_t n)
{
    char text[INET6_ADDRSTRLEN];
    struct in6_addr any;
    while (n > 0 && (*value == ' ' || *value == '\t')) {
        value++;
        n--;
    }
    while (n > 0 && (value[n - 1] == ' ' || value[n - 1] == '\t'))
        n--;
    if (n == 0 || n >= sizeof(text))
        return;
    memcpy(text, value, n);
    text[n] = '\0';
    if (inet_pton(AF_INET, text, &any) != 1 && inet_pton(AF_INET6, text, &any) != 1)
        return;
    memcpy(c->ip, text, n + 1);
    c->port = 0;
}

static bool is_local(const struct service_caller *c)
{
    return !c->stream && (strncmp(c->ip, "127.", 4) == 0 || strcmp(c->ip, "::1") == 0);
}

static bool may_say(const struct request *r)
{
    const struct service_caller *c = &r->conn->caller;
    return is_local(c) || (r->service->cfg.trust_any_proxy && !c->stream);
}

static void find_caller(struct request *r)
{
    static const char *const names[] = {"True-Client-IP", "X-Real-IP", "X-Forwarded-For"};
    r->q.caller = r->conn->caller;
    if (!may_say(r))
        return;
    for (size_t i = 0; i < 3; i++) {
        const char *v = MHD_lookup_connection_value(r->mc, MHD_HEADER_KIND, names[i]);
        if (v == NULL)
            continue;
        take_address(&r->q.caller, v, i == 2 ? strcspn(v, ",") : strlen(v));
        return;
    }
}

/* ---- answers ---- */

static struct request *request_of(const struct service_req *q)
{
    return (struct request *)(uintptr_t)q;
}

const char *service_header(const struct service_req *q, const char *name)
{
    return MHD_lookup_connection_value(request_of(q)->mc, MHD_HEADER_KIND, name);
}

void service_answer_header(struct service_req *q, const char *name, const char *value)
{
    struct request *r = request_of(q);
    size_t i = r->n_headers;
    assert(i < sizeof(r->header) / sizeof(r->header[0]));
    r->header[i].name = strdup(name);
    r->header[i].value = strdup(value);
    r->n_headers++;
}

static void queue(struct request *r)
{
    if (r->response == NULL)
        return;
    (void)MHD_queue_response(r->mc, r->status, r->response);
}

static void respond(struct service_req *q, unsigned status, const char *type,
                    struct MHD_Response *res)
{
    struct request *r = request_of(q);
    struct service *s = r->service;
    assert(!r->answered);
    r->answered = true;
    r->status = status;
    r->response = res;
    if (res != NULL && type != NULL)
        (void)MHD_add_response_header(res, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    for (size_t i = 0; res != NULL && i < r->n_headers; i++)
        if (r->header[i].name != NULL && r->header[i].value != NULL)
            (void)MHD_add_response_header(res, r->header[i].name, r->header[i].value);
    s->stat.status[status / 100 < 6 ? status / 100 : 5]++;
    if (r->held) {
        list_remove(&r->node);
        s->stat.requests--;
        r->held = false;
    }
    if (r->suspended) {
        r->suspended = false;
        MHD_resume_connection(r->mc);
        service_run_soon(s);
    }
}

void service_answer(struct service_req *q, unsigned status, const char *type, const void *body,
                    size_t n)
{
    respond(
        q, status, type,
        MHD_create_response_from_buffer(n, (void *)(uintptr_t)body,
                                        n > 0 ? MHD_RESPMEM_MUST_COPY : MHD_RESPMEM_PERSISTENT));
}

void service_answer_owned(struct service_req *q, unsigned status, const char *type,
                          void *owned_body, size_t n)
{
    struct MHD_Response *res =
        MHD_create_response_from_buffer(n, owned_body, MHD_RESPMEM_MUST_FREE);
    if (res == NULL)
        free(owned_body);
    respond(q, status, type, res);
}

void service_answer_shared(struct service_req *q, unsigned status, const char *type,
                           const void *body, size_t n, void (*release)(void *arg), void *arg)
{
    struct MHD_Response *res = MHD_create_response_from_buffer_with_free_callback_cls(
        n, (void *)(uintptr_t)body, release, arg);
    if (res == NULL)
        release(arg);
    respond(q, status, type, res);
}

void service_answer_text(struct service_req *q, unsigned status, const char *type, const char *body)
{
    service_answer(q, status, type, body, strlen(body));
}

void service_answer_unknown(struct service_req *q)
{
    service_answer_header(q, "X-Content-Type-Options", "nosniff");
    service_answer_text(q, MHD_HTTP_NOT_FOUND, SERVICE_PLAIN, "404 page not found\n");
}

/* What the frame itself answers. */
static void answer_early(struct request *r)
{
    char text[80];
    switch (r->early) {
    case MHD_HTTP_NOT_FOUND:
        service_answer_unknown(&r->q);
        break;
    case MHD_HTTP_CONTENT_TOO_LARGE:
        snprintf(text, sizeof(text), "{\"message\":\"%s\",\"code\":413}",
                 disc_text_message(DISC_TOO_LARGE));
        service_answer_text(&r->q, r->early, SERVICE_JSON, text);
        break;
    case MHD_HTTP_FORBIDDEN:
        service_answer_text(&r->q, r->early, SERVICE_PLAIN, "not by this name\n");
        break;
    case MHD_HTTP_TOO_MANY_REQUESTS:
        service_answer_header(&r->q, "Retry-After", "1");
        service_answer_text(&r->q, r->early, SERVICE_PLAIN, "rate limit exceeded\n");
        break;
    default:
        service_answer(&r->q, r->early, NULL, "", 0);
    }
}

/* ---- requests; called by the daemon ---- */

static void request_free(struct request *r)
{
    struct service *s = r->service;
    if (r->held) {
        list_remove(&r->node);
        s->stat.requests--;
    }
    s->stat.body_bytes -= r->cap;
    if (r->response != NULL)
        MHD_destroy_response(r->response);
    for (size_t i = 0; i < r->n_headers; i++) {
        free(r->header[i].name);
        free(r->header[i].value);
    }
    free(r->body);
    free(r->text);
    free(r);
}

static void check_size(struct request *r)
{
    const char *len =
        MHD_lookup_connection_value(r->mc, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);
    if (r->early != 0 || len == NULL || strtoull(len, NULL, 10) <= r->max)
        return;
    r->early = MHD_HTTP_CONTENT_TOO_LARGE;
    r->service->stat.too_large++;
}

static void check_host(struct request *r)
{
    const char *host = MHD_lookup_connection_value(r->mc, MHD_HEADER_KIND, MHD_HTTP_HEADER_HOST);
    if (r->service->cfg.check_host && is_local(&r->conn->caller) && host != NULL &&
        !host_is_plain(host))
        r->early = MHD_HTTP_FORBIDDEN;
}

static void check_rate(struct request *r)
{
    struct service *s = r->service;
    if (s->cfg.stream_rate == 0 || !r->q.caller.stream ||
        rate_take(&s->stream_rate, &r->q.caller.pk, sizeof(r->q.caller.pk), s->loop->now_ns))
        return;
    s->stat.refused_rate++;
    r->early = MHD_HTTP_TOO_MANY_REQUESTS;
}

/* Headers are complete. */
static struct request *request_new(struct service *s, struct sconn *c, struct MHD_Connection *mc,
                                   const char *method)
{
    struct request *r = calloc(1, sizeof(*r));
    size_t n = c->uri != NULL ? strlen(c->uri) : 0;
    if (r == NULL)
        return NULL;
    r->service = s;
    r->conn = c;
    r->mc = mc;
    r->q.app = s->cfg.app;
    r->q.body = "";
    if ((r->text = malloc(2 * n + SERVICE_PARAMS + 2)) == NULL) {
        free(r);
        return NULL;
    }
    memcpy(r->text, n > 0 ? c->uri : "", n + 1);
    r->q.path = strsep(&(char *){r->text}, "?");
    size_t path = strlen(r->text);
    r->q.query = path < n ? r->text + path + 1 : r->text + n;
    find_route(r, method, r->text + n + 1);
    find_caller(r);
    check_size(r);
    check_host(r);
    if (r->early == 0)
        check_rate(r);
    return r;
}

static void add_body(struct request *r, const char *p, size_t n)
{
    struct service *s = r->service;
    if (r->early != 0)
        return;
    if (n > r->max - r->q.body_len) {
        r->early = MHD_HTTP_CONTENT_TOO_LARGE;
        s->stat.too_large++;
        return;
    }
    if (r->cap - r->q.body_len <= n) { /* with room for a NUL */
        size_t cap = r->cap != 0 ? r->cap : BODY_FIRST;
        while (cap <= r->q.body_len + n)
            cap *= 2;
        char *more =
            s->stat.body_bytes - r->cap + cap <= s->cfg.body_total ? realloc(r->body, cap) : NULL;
        if (more == NULL) {
            s->stat.refused_memory++;
            r->early = MHD_HTTP_SERVICE_UNAVAILABLE;
            return;
        }
        s->stat.body_bytes += cap - r->cap;
        r->body = more;
        r->cap = cap;
    }
    memcpy(r->body + r->q.body_len, p, n);
    r->q.body_len += n;
    r->body[r->q.body_len] = '\0';
    r->q.body = r->body;
}

/* The request is complete: to the application, which may answer at once or later. */
static void hand_over(struct request *r)
{
    struct service *s = r->service;
    sconn_set(r->conn, SCONN_BUSY);
    if (r->early != 0) {
        answer_early(r);
        return;
    }
    r->held = true;
    list_push_back(&s->requests, &r->node);
    s->stat.requests++;
    r->route->handler(&r->q);
    if (!r->answered) {
        r->suspended = true;
        MHD_suspend_connection(r->mc);
    }
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *mc, const char *url,
                                  const char *method, const char *version, const char *data,
                                  size_t *n, void **state)
{
    struct service *s = arg;
    struct sconn *c = sconn_of(mc);
    struct request *r = *state;
    (void)url, (void)version;
    if (c == NULL)
        return MHD_NO;
    if (r == NULL) {
        sconn_set(c, SCONN_BODY);
        *state = r = request_new(s, c, mc, method);
        /* A body that is too large is not waited for. */
        if (r != NULL && r->early == MHD_HTTP_CONTENT_TOO_LARGE) {
            answer_early(r);
            queue(r);
        }
        return r != NULL ? MHD_YES : MHD_NO;
    }
    if (*n > 0) {
        add_body(r, data, *n);
        *n = 0;
        return MHD_YES;
    }
    if (s->ending && !r->answered)
        return MHD_NO;
    if (!r->answered)
        hand_over(r);
    if (!r->answered)
        return MHD_YES; /* suspended */
    if (r->response == NULL)
        return MHD_NO; /* no memory to say anything */
    queue(r);
    return MHD_YES;
}

static void *on_uri(void *arg, const char *uri, struct MHD_Connection *mc)
{
    struct sconn *c = sconn_of(mc);
    (void)arg;
    if (c != NULL) {
        free(c->uri);
        c->uri = strdup(uri);
        c->begun = true;
        sconn_set(c, SCONN_HEADERS);
    }
    return NULL;
}

static void on_completed(void *arg, struct MHD_Connection *mc, void **state,
                         enum MHD_RequestTerminationCode code)
{
    struct service *s = arg;
    struct sconn *c = sconn_of(mc);
    struct request *r = *state;
    (void)code;
    *state = NULL;
    s->stat.served++;
    if (c != NULL) {
        c->begun = false;
        sconn_set(c, SCONN_IDLE);
    }
    if (r != NULL)
        request_free(r);
}

static size_t no_unescape(void *arg, struct MHD_Connection *mc, char *text)
{
    (void)arg, (void)mc;
    return strlen(text);
}

static void discard_log(void *arg, const char *fmt, va_list ap)
{
    (void)arg, (void)fmt, (void)ap; /* what peers do wrong is answered and counted */
}

/* ---- life ---- */

static void set_defaults(struct service_cfg *c)
{
    c->max_conns = c->max_conns != 0 ? c->max_conns : MAX_CONNS;
    c->header_ms = c->header_ms != 0 ? c->header_ms : HEADER_MS;
    c->body_ms = c->body_ms != 0 ? c->body_ms : BODY_MS;
    c->idle_ms = c->idle_ms != 0 ? c->idle_ms : IDLE_MS;
    c->stream_idle_ms = c->stream_idle_ms != 0 ? c->stream_idle_ms : STREAM_IDLE_MS;
    c->body_total = c->body_total != 0 ? c->body_total : BODY_TOTAL;
    c->stream_burst = c->stream_burst != 0 ? c->stream_burst : c->stream_rate;
}

static int open_daemon(struct service *s)
{
    s->daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0,
        NULL, NULL, on_request, s, MHD_OPTION_EXTERNAL_LOGGER, discard_log, NULL,
        MHD_OPTION_NOTIFY_CONNECTION, sconn_notify, s, MHD_OPTION_NOTIFY_COMPLETED, on_completed, s,
        MHD_OPTION_URI_LOG_CALLBACK, on_uri, s, MHD_OPTION_UNESCAPE_CALLBACK, no_unescape, NULL,
        MHD_OPTION_CONNECTION_LIMIT, s->cfg.max_conns + CONNS_SLACK,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, CONN_MEMORY, MHD_OPTION_STRICT_FOR_CLIENT, 1,
        MHD_OPTION_END);
    if (s->daemon == NULL)
        return ERR_STATE;
    const union MHD_DaemonInfo *i = MHD_get_daemon_info(s->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    if (i == NULL)
        return ERR_STATE;
    s->ready =
        event_new(drive_loop_base(s->cfg.drive), i->epoll_fd, EV_READ | EV_PERSIST, on_ready, s);
    return s->ready != NULL && event_add(s->ready, NULL) == 0 ? 0 : ERR_NOMEM;
}

int service_new(struct service **out, const struct service_cfg *cfg)
{
    struct service *s = calloc(1, sizeof(*s));
    *out = NULL;
    if (s == NULL)
        return ERR_NOMEM;
    s->cfg = *cfg;
    set_defaults(&s->cfg);
    s->loop = drive_loop_loop(cfg->drive);
    s->run.fn = on_run;
    s->again.fn = on_again;
    s->tick.fn = on_tick;
    for (size_t i = 0; i < SCONN__STATES; i++)
        list_init(&s->conns[i]);
    list_init(&s->stream_idle);
    list_init(&s->prefaces);
    list_init(&s->requests);
    rate_init(&s->stream_rate, (uint64_t)s->cfg.stream_rate * 1000 + 1, s->cfg.stream_burst,
              RATE_KEYS, cfg->env->hash_key);
    int rc = open_daemon(s);
    if (rc < 0) {
        service_free(s);
        return rc;
    }
    loop_timer_set(s->loop, &s->tick, s->loop->now_ns + TICK_NS);
    *out = s;
    return 0;
}

/* Nobody answers any more: the connections of those that wait are closed. */
static void drop_requests(struct service *s)
{
    struct list_node *pos, *tmp;
    s->ending = true;
    list_for_each(pos, tmp, &s->requests)
    {
        struct request *r = container_of(pos, struct request, node);
        if (s->cfg.dropped != NULL)
            s->cfg.dropped(&r->q);
        if (r->suspended) {
            r->suspended = false;
            MHD_resume_connection(r->mc);
        }
    }
    (void)MHD_run(s->daemon);
}

void service_free(struct service *s)
{
    if (s == NULL)
        return;
    service_listeners_free(s);
    if (s->daemon != NULL) {
        drop_requests(s);
        if (s->ready != NULL)
            event_free(s->ready);
        MHD_stop_daemon(s->daemon);
    }
    loop_task_cancel(s->loop, &s->run);
    loop_timer_cancel(s->loop, &s->again);
    loop_timer_cancel(s->loop, &s->tick);
    rate_free(&s->stream_rate);
    free(s);
}

void service_stat(const struct service *s, struct service_stat *out)
{
    *out = s->stat;
}

/* ---- query ---- */

static int digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* n bytes of a query decoded; their number, or an error. */
static int decode(char *out, size_t cap, const char *p, size_t n)
{
    size_t len = 0;
    for (size_t i = 0; i < n; i++) {
        char c = p[i] == '+' ? ' ' : p[i];
        if (p[i] == '%') {
            int high = n - i < 3 ? -1 : digit(p[i + 1]), low = high < 0 ? -1 : digit(p[i + 2]);
            if (high < 0 || low < 0)
                return ERR_FORMAT;
            c = (char)(high * 16 + low);
            i += 2;
        }
        if (c == '\0')
            return ERR_FORMAT;
        if (len + 1 >= cap)
            return ERR_TOO_LONG;
        out[len++] = c;
    }
    out[len] = '\0';
    return (int)len;
}

int service_query_find(const char *query, const char *name, char *out, size_t cap)
{
    size_t want = strlen(name);
    while (*query != '\0') {
        size_t n = strcspn(query, "&"), key = strcspn(query, "=&");
        if (key == want && memcmp(query, name, want) == 0)
            return key < n ? decode(out, cap, query + key + 1, n - key - 1)
                           : decode(out, cap, "", 0);
        query += n + (query[n] == '&');
    }
    return ERR_NOT_FOUND;
}

int service_query(const struct service_req *q, const char *name, char *out, size_t cap)
{
    return service_query_find(q->query, name, out, cap);
}
