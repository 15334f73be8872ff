/*
 * evdns tells of a cancelled question later, and may not be freed before: a question outlives its look-up, and the last one takes the resolver with it.
 */
#include "compat-http/name_lookup.h"

#include <arpa/inet.h>
#include <event2/dns.h>
#include <event2/event.h>
#include <event2/util.h>
#include <stdlib.h>
#include <strings.h>

#include "base/err.h"

struct resolver {
    struct evdns_base *dns;
    size_t refs; /* the look-up's, and one for each question */
};

struct question {
    struct name_lookup *l; /* NULL: it was cancelled */
    struct resolver *resolver;
    struct evdns_getaddrinfo_request *rq;
    struct drive_loop *drive;
    bool inside; /* the call that asks */
};

struct name_lookup {
    struct drive_loop *drive;
    struct resolver *resolver;
    struct question *question;
    name_lookup_fn *fn;
    void *arg;
};

static void on_unused(evutil_socket_t fd, short what, void *arg)
{
    struct resolver *r = arg;
    (void)fd, (void)what;
    evdns_base_free(r->dns, 0);
    free(r);
}

/* Not from inside one of its callbacks. */
static void resolver_unref(struct drive_loop *drive, struct resolver *r, bool in_callback)
{
    struct timeval now = {0, 0};
    if (--r->refs > 0)
        return;
    if (!in_callback ||
        event_base_once(drive_loop_base(drive), -1, EV_TIMEOUT, on_unused, r, &now) < 0)
        on_unused(-1, 0, r);
}

static size_t texts_of(const struct evutil_addrinfo *res, char (*out)[INET6_ADDRSTRLEN])
{
    size_t n = 0;
    for (; res != NULL && n < NAME_LOOKUP_ADDRS; res = res->ai_next) {
        const void *addr =
            res->ai_family == AF_INET
                ? (const void *)&((const struct sockaddr_in *)(const void *)res->ai_addr)->sin_addr
                : (const void *)&((const struct sockaddr_in6 *)(const void *)res->ai_addr)
                      ->sin6_addr;
        n += inet_ntop(res->ai_family, addr, out[n], INET6_ADDRSTRLEN) != NULL;
    }
    return n;
}

static void on_answer(int result, struct evutil_addrinfo *res, void *arg)
{
    struct question *q = arg;
    struct name_lookup *l = q->l;
    char addr[NAME_LOOKUP_ADDRS][INET6_ADDRSTRLEN];
    size_t n = result == 0 ? texts_of(res, addr) : 0;
    bool inside = q->inside;
    if (res != NULL)
        evutil_freeaddrinfo(res);
    drive_loop_now(q->drive);
    if (l != NULL)
        l->question = NULL;
    resolver_unref(q->drive, q->resolver, true);
    q->resolver = NULL;
    if (!inside)
        free(q);
    if (l != NULL)
        l->fn(l->arg, n > 0 ? 0 : ERR_NOT_FOUND, (const char(*)[INET6_ADDRSTRLEN])addr, n);
}

void name_lookup_cancel(struct name_lookup *l)
{
    struct question *q = l->question;
    if (q == NULL)
        return;
    l->question = NULL;
    q->l = NULL;
    if (q->rq != NULL)
        evdns_getaddrinfo_cancel(q->rq);
}

void name_lookup_start(struct name_lookup *l, const char *host, name_lookup_fn *fn, void *arg)
{
    struct evutil_addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    static const char this_host[][INET6_ADDRSTRLEN] = {"127.0.0.1", "::1"};
    name_lookup_cancel(l);
    if (strcasecmp(host, "localhost") == 0) {
        fn(arg, 0, this_host, 2);
        return;
    }
    struct question *q = calloc(1, sizeof(*q));
    if (q == NULL) {
        fn(arg, ERR_NOMEM, NULL, 0);
        return;
    }
    l->fn = fn;
    l->arg = arg;
    l->question = q;
    *q = (struct question){.l = l, .resolver = l->resolver, .drive = l->drive, .inside = true};
    l->resolver->refs++;
    struct evdns_getaddrinfo_request *rq =
        evdns_getaddrinfo(l->resolver->dns, host, NULL, &hints, on_answer, q);
    q->inside = false;
    if (q->resolver == NULL) /* it was answered */
        free(q);
    else
        q->rq = rq;
}

struct name_lookup *name_lookup_new(struct drive_loop *drive, const char *server)
{
    struct name_lookup *l = calloc(1, sizeof(*l));
    struct resolver *r = calloc(1, sizeof(*r));
    int flags = EVDNS_BASE_DISABLE_WHEN_INACTIVE;
    if (l == NULL || r == NULL)
        goto fail;
    r->dns = evdns_base_new(drive_loop_base(drive),
                            flags | (server == NULL ? EVDNS_BASE_INITIALIZE_NAMESERVERS : 0));
    if (r->dns == NULL)
        goto fail;
    if (server != NULL && evdns_base_nameserver_ip_add(r->dns, server) != 0) {
        evdns_base_free(r->dns, 0);
        goto fail;
    }
    r->refs = 1;
    l->drive = drive;
    l->resolver = r;
    return l;
fail:
    free(l);
    free(r);
    return NULL;
}

void name_lookup_free(struct name_lookup *l)
{
    if (l == NULL)
        return;
    name_lookup_cancel(l);
    resolver_unref(l->drive, l->resolver, false);
    free(l);
}
