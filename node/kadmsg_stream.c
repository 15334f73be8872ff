/* Streams of the public library. */
#include <stdlib.h>

#include "base/err.h"
#include "node/kadmsg_int.h"

#define DIAL_MS 20000

void kadmsg_stream_free(struct kadmsg_stream *s)
{
    list_remove(&s->node);
    free(s);
}

static void tell(struct kadmsg_stream *s, void (*fn)(struct kadmsg_stream *s, void *arg))
{
    struct kadmsg *k = s->k;
    if (fn == NULL || !kadmsg_enter_callback(k))
        return;
    fn(s, s->arg);
    kadmsg_leave_callback(k);
}

static void on_opened(struct stream *st, void *arg)
{
    struct kadmsg_stream *s = arg;
    (void)st;
    tell(s, s->cb.opened);
}

static void on_readable(struct stream *st, void *arg)
{
    struct kadmsg_stream *s = arg;
    (void)st;
    tell(s, s->cb.readable);
}

static void on_writable(struct stream *st, void *arg)
{
    struct kadmsg_stream *s = arg;
    (void)st;
    tell(s, s->cb.writable);
}

static void on_ended(struct stream *st, void *arg, int err)
{
    struct kadmsg_stream *s = arg;
    struct kadmsg *k = s->k;
    (void)st;
    if (s->cb.ended == NULL || !kadmsg_enter_callback(k))
        return;
    s->cb.ended(s, s->arg, err);
    kadmsg_leave_callback(k);
}

static const struct stream_cb stream_cb = {on_opened, on_readable, on_writable, on_ended};

static struct kadmsg_stream *stream_new_one(struct kadmsg *k)
{
    struct kadmsg_stream *s = calloc(1, sizeof(*s));
    if (s == NULL)
        return NULL;
    s->k = k;
    list_push_back(&k->streams, &s->node);
    return s;
}

int kadmsg_dial(struct kadmsg *k, const struct kadmsg_pk *pk, uint16_t port, unsigned timeout_ms,
                const struct kadmsg_stream_callbacks *cb, void *arg, struct kadmsg_stream **out)
{
    struct pubkey p = kadmsg_pk_of(pk);
    int rc = kadmsg_begin_call(k);
    if (rc == 0 && port == 0)
        rc = ERR_USAGE;
    if (rc < 0)
        return rc;
    struct kadmsg_stream *s = stream_new_one(k);
    if (s == NULL)
        return ERR_NOMEM;
    s->remote = *pk;
    kadmsg_stream_set_callbacks(s, cb, arg);
    rc = client_dial(k->node->client, &p, port, timeout_ms != 0 ? timeout_ms : DIAL_MS, 0,
                     &stream_cb, s, &s->st);
    if (rc < 0) {
        kadmsg_stream_free(s);
        return rc;
    }
    *out = s;
    return 0;
}

char *kadmsg_stream_steps(const struct kadmsg_stream *st, char *out, size_t cap)
{
    size_t n = 0;
    const struct client_step *steps = stream_dial_steps(st->st, &n);
    client_steps_text(steps, n, out, cap);
    return out;
}

static void on_accept(void *arg, struct stream *st)
{
    struct listener *l = arg;
    struct kadmsg *k = l->k;
    struct kadmsg_stream *s = k->dying ? NULL : stream_new_one(k);
    if (s == NULL) {
        stream_abort(st);
        return;
    }
    s->st = st;
    kadmsg_pk_set(&s->remote, stream_remote(st));
    stream_set_cb(st, &stream_cb, s);
    (void)kadmsg_enter_callback(k);
    l->fn(l->arg, s);
    kadmsg_leave_callback(k);
}

int kadmsg_listen(struct kadmsg *k, uint16_t port, kadmsg_accept_fn *fn, void *arg)
{
    int rc = kadmsg_begin_call(k);
    struct listener *l = rc == 0 ? calloc(1, sizeof(*l)) : NULL;
    if (l == NULL)
        return rc < 0 ? rc : ERR_NOMEM;
    *l = (struct listener){.k = k, .fn = fn, .arg = arg};
    rc = client_listen(k->node->client, port, on_accept, l);
    if (rc < 0) {
        free(l);
        return rc;
    }
    l->port = (uint16_t)rc;
    list_push_back(&k->listeners, &l->node);
    return rc;
}

void kadmsg_unlisten(struct kadmsg *k, uint16_t port)
{
    struct list_node *pos, *tmp;
    if (kadmsg_begin_call(k) < 0)
        return;
    list_for_each(pos, tmp, &k->listeners)
    {
        struct listener *l = container_of(pos, struct listener, node);
        if (l->port != port)
            continue;
        client_unlisten(k->node->client, port);
        list_remove(&l->node);
        free(l);
        return;
    }
}

void kadmsg_stream_set_callbacks(struct kadmsg_stream *st, const struct kadmsg_stream_callbacks *cb,
                                 void *arg)
{
    st->cb = *cb;
    st->arg = arg;
}

size_t kadmsg_stream_read(struct kadmsg_stream *st, void *out, size_t size)
{
    return kadmsg_begin_call(st->k) < 0 ? 0 : stream_read(st->st, out, size);
}

bool kadmsg_stream_eof(const struct kadmsg_stream *st)
{
    return stream_eof(st->st);
}

long kadmsg_stream_write(struct kadmsg_stream *st, const void *p, size_t size)
{
    int rc = kadmsg_begin_call(st->k);
    return rc < 0 ? rc : stream_write(st->st, p, size);
}

int kadmsg_stream_shutdown(struct kadmsg_stream *st)
{
    int rc = kadmsg_begin_call(st->k);
    return rc < 0 ? rc : stream_shutdown(st->st);
}

const struct kadmsg_pk *kadmsg_stream_remote(const struct kadmsg_stream *st)
{
    return &st->remote;
}

uint16_t kadmsg_stream_remote_port(const struct kadmsg_stream *st)
{
    return stream_remote_port(st->st);
}

uint16_t kadmsg_stream_local_port(const struct kadmsg_stream *st)
{
    return stream_local_port(st->st);
}

void kadmsg_stream_close(struct kadmsg_stream *st)
{
    (void)kadmsg_begin_call(st->k);
    stream_close(st->st);
    kadmsg_stream_free(st);
}

void kadmsg_stream_abort(struct kadmsg_stream *st)
{
    (void)kadmsg_begin_call(st->k);
    stream_abort(st->st);
    kadmsg_stream_free(st);
}
