#include "apps/web.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "apps/http_req.h"
#include "apps/socks_talk.h"
#include "base/err.h"

#define TALK_MS 10000

struct web_door {
    struct web *web;
    struct tcp_door *tcp;
    bool older; /* the key is in the Host header */
};

struct web {
    struct hub *hub;
    const struct web_cfg *cfg;
    struct web_door doors[1 + WEB_PORTS];
    size_t n_doors;
    char status_name[7 + DMSG_SUFFIX_MAX], home_name[7 + DMSG_SUFFIX_MAX];
};

enum web_kind { WEB_NEW, WEB_SOCKS, WEB_HTTP, WEB_TUNNEL, WEB_STATUS };

struct web_guest {
    struct guest guest; /* first; its service is the door */
    enum web_kind kind;
    struct socks_dest dest;
    struct socks_talk talk;
    bool rewrites; /* relay is in use */
    bool home;     /* WEB_STATUS: the start page */
    struct http_relay relay;
};

static struct web_guest *of(struct guest *g)
{
    return (struct web_guest *)g;
}

static struct web *web_of(const struct guest *g)
{
    const struct web_door *door = g->service;
    return door->web;
}

/* ---- failures ---- */

static unsigned status_of(int err)
{
    switch (socks_code_of(err)) {
    case SOCKS_TTL:
        return 504;
    case SOCKS_FAILURE:
        return 503;
    case SOCKS_NOT_ALLOWED:
        return 403;
    default:
        return err == ERR_FORMAT || err == ERR_KEY ? 400 : err == ERR_TOO_LONG ? 431 : 502;
    }
}

static const char *phrase_of(unsigned status)
{
    switch (status) {
    case 400:
        return "Bad Request";
    case 403:
        return "Forbidden";
    case 431:
        return "Request Header Fields Too Large";
    case 503:
        return "Service Unavailable";
    case 504:
        return "Gateway Timeout";
    }
    return "Bad Gateway";
}

/* A destination that cannot be reached now may be there in a moment. */
static bool is_transient(int err)
{
    switch (err) {
    case ERR_TIMEOUT:
    case ERR_NO_ROUTE:
    case ERR_RESET:
    case ERR_BUSY:
    case ERR_DMSG_CANNOT_CONNECT:
    case ERR_DMSG_NO_LISTENER:
        return true;
    default:
        return false;
    }
}

/* A browser that shows a page: GET, and HTML is welcome. */
static bool wants_page(struct guest *g)
{
    struct http_req r;
    const char *p = (const char *)evbuffer_pullup(g->in, -1);
    long head = http_req_parse(&r, p, evbuffer_get_length(g->in));
    return head > 0 && r.method.n == 3 && memcmp(r.method.p, "GET", 3) == 0 &&
           memmem(p, (size_t)head, "text/html", 9) != NULL;
}

static void http_fail(struct guest *g, int err, const char *text)
{
    unsigned status = status_of(err);
    const char *phrase = phrase_of(status);
    if (is_transient(err) && wants_page(g) &&
        web_wait_answer(g->out, status, phrase, of(g)->dest.host, text) == 0) {
        guest_bye(g);
        return;
    }
    evbuffer_add_printf(g->out,
                        "HTTP/1.1 %u %s\r\nContent-Type: text/plain; charset=utf-8\r\n"
                        "X-Content-Type-Options: nosniff\r\nContent-Length: %zu\r\n"
                        "Cache-Control: no-store\r\nConnection: close\r\n\r\n%s\n",
                        status, phrase, strlen(text) + 1, text);
    guest_bye(g);
}

/* The cause reaches who asked, and the notes. */
static void fail(struct guest *g, int err, const char *text)
{
    struct web_guest *x = of(g);
    if (x->kind == WEB_SOCKS) {
        socks_talk_refuse(g, &x->talk, socks_code_of(err), text);
        return;
    }
    if (x->dest.host[0] != '\0')
        hub_note(g->hub, "%s:%u: %s", x->dest.host, x->dest.port, text);
    else
        g->hub->stat.bad_input++;
    http_fail(g, err, text);
}

/* ---- the status page ---- */

static void status_send(struct guest *g, const struct app_net_session *v, size_t n)
{
    struct http_req r;
    const char *p = (const char *)evbuffer_pullup(g->in, -1);
    long head = http_req_parse(&r, p, evbuffer_get_length(g->in));
    bool json = head > 0 && r.target.n >= 5 && memcmp(r.target.p + r.target.n - 5, "/json", 5) == 0;
    (void)web_status_answer(g->out, g->hub, json, v, n);
    guest_bye(g);
}

static void on_sessions(void *arg, const struct app_net_session *v, size_t n,
                        const struct app_net_failure *failure)
{
    struct guest *g = arg;
    g->handle = 0;
    status_send(g, failure == NULL ? v : NULL, n);
}

/* A request for the page may still be under way. */
static void status_input(struct guest *g)
{
    struct http_req r;
    const char *p = (const char *)evbuffer_pullup(g->in, -1);
    long head = http_req_parse(&r, p, evbuffer_get_length(g->in));
    if (head == 0)
        return;
    if (head < 0) {
        http_fail(g, (int)head == ERR_TOO_LONG ? ERR_TOO_LONG : ERR_FORMAT, "not a request");
        return;
    }
    if (of(g)->home) {
        (void)web_home_answer(g->out, g->hub, web_of(g)->cfg);
        guest_bye(g);
        return;
    }
    guest_wait(g);
    if (app_net_sessions(g->hub->net, on_sessions, g, &g->handle) < 0)
        status_send(g, NULL, 0);
}

static void status_begin(struct guest *g)
{
    struct web_guest *x = of(g);
    if (x->kind == WEB_SOCKS)
        socks_talk_accept(g, &x->talk);
    else if (x->kind == WEB_TUNNEL)
        evbuffer_add_printf(g->out, "HTTP/1.1 200 Connection established\r\n\r\n");
    x->kind = WEB_STATUS;
    guest_flush(g);
    status_input(g);
}

/* ---- where it goes ---- */

static bool is_own_door(const struct web *w, const struct socks_dest *d)
{
    bool here = d->ip_n == 4 ? d->ip[0] == 127 : strcasecmp(d->host, "localhost") == 0;
    for (size_t i = 0; i < w->n_doors && here; i++) {
        if (tcp_door_port(w->doors[i].tcp) == d->port)
            return true;
    }
    return false;
}

static void go_outside(struct guest *g)
{
    struct web_guest *x = of(g);
    struct web *w = web_of(g);
    if (is_own_door(w, &x->dest))
        fail(g, -EACCES, "that is this proxy itself");
    else if (w->cfg->upstream != NULL)
        guest_dial_proxy(g, w->cfg->upstream, &x->dest);
    else
        guest_dial_tcp(g, &x->dest, NULL);
}

/* x->dest is where the guest wants to go. */
static void go(struct guest *g)
{
    struct web_guest *x = of(g);
    struct web *w = web_of(g);
    const struct web_door *door = g->service;
    struct dmsg_name name;
    const char *why;
    x->home = strcasecmp(x->dest.host, w->home_name) == 0;
    if (x->home || strcasecmp(x->dest.host, w->status_name) == 0) {
        status_begin(g);
        return;
    }
    int rc = dmsg_name_parse(&name, w->cfg->aliases, w->cfg->suffix, x->dest.host,
                             strlen(x->dest.host), &why);
    if (rc == ERR_NOT_FOUND && door->older) {
        fail(g, ERR_FORMAT, "the host name does not lead into the network");
    } else if (rc == ERR_NOT_FOUND) {
        go_outside(g);
    } else if (rc < 0) {
        fail(g, rc, why);
    } else {
        if (name.vhost[0] != '\0') {
            x->rewrites = true;
            snprintf(x->relay.host, sizeof(x->relay.host), "%s", name.vhost);
        }
        guest_dial_stream(g, name.has_via ? &name.via : NULL, &name.pk, x->dest.port);
    }
}

/* ---- HTTP ---- */

/* The destination of a request: by its target, or, on a port of the older form, by its Host. */
static int http_dest(struct guest *g, const struct http_req *r, const char **why)
{
    struct web_guest *x = of(g);
    const struct web_door *door = g->service;
    struct http_text host, rest, authority = {0};
    bool is_connect = r->method.n == 7 && memcmp(r->method.p, "CONNECT", 7) == 0;
    uint16_t port, own = tcp_door_port(door->tcp);
    int rc = http_target_split(r->target, is_connect, &host, &port, &rest);
    x->kind = is_connect ? WEB_TUNNEL : WEB_HTTP;
    x->relay.one = x->relay.proxy = x->rewrites = !is_connect;
    *why = "this port is a proxy: requests must name their destination";
    if (rc == 0 && !is_connect) {
        const char *start = r->target.p + 7; /* http:// */
        authority =
            (struct http_text){start, (size_t)(rest.p > start && rest.p <= r->target.p + r->target.n
                                                   ? rest.p - start
                                                   : r->target.p + r->target.n - start)};
    } else if (rc != 0 && door->older && !is_connect) {
        *why = "no Host header with a name of the network";
        rc = http_authority_split(r->host, &host, &port);
    }
    if (rc != 0 || host.n > DMSG_NAME_MAX)
        return ERR_FORMAT;
    if (authority.n > 0 && authority.n < sizeof(x->relay.host))
        memcpy(x->relay.host, authority.p, authority.n);
    if (port == 0 || (door->older && port == own))
        port = 80;
    return socks_dest_set(&x->dest, host.p, host.n, port);
}

static void http_input(struct guest *g)
{
    struct web_guest *x = of(g);
    struct http_req r;
    const char *why = "not a request of HTTP/1";
    const char *p = (const char *)evbuffer_pullup(g->in, -1);
    long head = http_req_parse(&r, p, evbuffer_get_length(g->in));
    int rc = head < 0 ? (int)head : 0;
    if (head == 0)
        return;
    if (rc == 0)
        rc = http_dest(g, &r, &why);
    if (rc != 0) {
        x->kind = WEB_HTTP;
        memset(&x->dest, 0, sizeof(x->dest));
        fail(g, rc == ERR_TOO_LONG ? rc : ERR_FORMAT, why);
        return;
    }
    if (x->kind == WEB_TUNNEL)
        evbuffer_drain(g->in, (size_t)head);
    go(g);
}

/* ---- the guest ---- */

static void on_input(struct guest *g)
{
    struct web_guest *x = of(g);
    const struct web_door *door = g->service;
    if (x->kind == WEB_NEW)
        x->kind = !door->older && *evbuffer_pullup(g->in, 1) == 5 ? WEB_SOCKS : WEB_HTTP;
    if (x->kind == WEB_STATUS) {
        status_input(g);
    } else if (x->kind == WEB_HTTP) {
        http_input(g);
    } else if (socks_talk_input(g, &x->talk) == SOCKS_WAIT) {
        x->dest = x->talk.socks.dest;
        go(g);
    }
}

/* When the one request is over, further bytes of the guest are not wanted; the end is not passed on: servers take it for a guest that left. */
static int on_filter(void *arg, const uint8_t *p, size_t n, struct evbuffer *out)
{
    struct web_guest *x = arg;
    int rc = http_relay_input(&x->relay, p, n, out);
    return rc == ERR_EOF ? 0 : rc;
}

/* What was read already goes through the same mill. */
static int rewrite_first(struct guest *g)
{
    struct evbuffer *raw = g->in;
    size_t n = evbuffer_get_length(raw);
    g->filter = on_filter;
    g->in = evbuffer_new();
    int rc = g->in != NULL ? on_filter(of(g), evbuffer_pullup(raw, -1), n, g->in) : ERR_NOMEM;
    evbuffer_free(raw);
    return rc;
}

static void on_led(struct guest *g, int err, const char *text)
{
    struct web_guest *x = of(g);
    if (x->kind == WEB_STATUS) {
        status_send(g, NULL, 0);
        return;
    }
    if (err != 0) {
        fail(g, err, text);
        return;
    }
    if (x->kind == WEB_SOCKS)
        socks_talk_accept(g, &x->talk);
    else if (x->kind == WEB_TUNNEL)
        evbuffer_add_printf(g->out, "HTTP/1.1 200 Connection established\r\n\r\n");
    if (x->rewrites && rewrite_first(g) != 0)
        guest_drop(g);
    else
        guest_join(g);
}

static void on_freed(struct guest *g)
{
    http_relay_free(&of(g)->relay);
}

static const struct guest_ops ops = {
    .size = sizeof(struct web_guest), .input = on_input, .led = on_led, .freed = on_freed};

static void on_conn(void *arg, int fd)
{
    struct web_door *door = arg;
    struct guest *g = guest_new(door->web->hub, &ops, door, fd, TALK_MS);
    if (g != NULL)
        guest_start(g);
}

/* ---- life ---- */

static int open_door(struct web *w, uint16_t port, bool older)
{
    struct web_door *door = &w->doors[w->n_doors];
    door->web = w;
    door->older = older;
    int rc = tcp_door_open(&door->tcp, w->hub, w->cfg->bind, port, on_conn, door);
    if (rc == 0)
        w->n_doors++;
    return rc;
}

int web_open(struct web **out, struct hub *hub, const struct web_cfg *cfg, uint16_t *bad_port)
{
    struct web *w = calloc(1, sizeof(*w));
    *out = NULL;
    *bad_port = 0;
    if (w == NULL)
        return ERR_NOMEM;
    w->hub = hub;
    w->cfg = cfg;
    snprintf(w->status_name, sizeof(w->status_name), "status%s", cfg->suffix);
    snprintf(w->home_name, sizeof(w->home_name), "home%s", cfg->suffix);
    *bad_port = cfg->socks_port;
    int rc = open_door(w, cfg->socks_port, false);
    for (size_t i = 0; i < cfg->n_http && rc == 0; i++) {
        *bad_port = cfg->http_port[i];
        rc = open_door(w, cfg->http_port[i], true);
    }
    if (rc == 0 && cfg->upstream != NULL && is_own_door(w, cfg->upstream)) {
        *bad_port = cfg->upstream->port;
        rc = ERR_EXISTS;
    }
    if (rc != 0) {
        web_close(w);
        return rc;
    }
    *out = w;
    return 0;
}

void web_close(struct web *w)
{
    if (w == NULL)
        return;
    for (size_t i = 0; i < w->n_doors; i++)
        tcp_door_close(w->doors[i].tcp);
    free(w);
}

uint16_t web_socks_port(const struct web *w)
{
    return tcp_door_port(w->doors[0].tcp);
}

uint16_t web_http_port(const struct web *w, size_t i)
{
    return tcp_door_port(w->doors[1 + i].tcp);
}
