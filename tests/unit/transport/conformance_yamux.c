/* yamux in a session on a link, for the conformance tests. */
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "tests/unit/transport/conformance.h"
#include "tests/unit/vectors.h"
#include "transport/link.h"

struct side {
    struct bed *bed;
    struct link *link;
    struct seckey sk;
    bool up;
    int err;
    unsigned pongs;
    struct list streams; /* struct mux_stream */
};

struct mux_stream {
    struct side *side;
    struct yamux_stream *st; /* NULL: dead */
    struct list_node node;
    bool given;
};

static void keys_of(struct seckey *sk, struct pubkey *pk, bool dialled)
{
    *sk = (struct seckey){.b = {[31] = dialled ? 1 : 2}};
    assert_int_equal(seckey_pubkey(pk, sk), 0);
}

static void on_up(struct link *l)
{
    ((struct side *)link_arg(l))->up = true;
}

static void on_event(struct link *l, const struct yamux_event *ev)
{
    struct side *s = link_arg(l);
    if (ev->what & YAMUX_PONG)
        s->pongs++;
    if (ev->stream == NULL)
        return;
    if (ev->what & YAMUX_OPENED) {
        struct mux_stream *x = calloc(1, sizeof(*x));
        assert_non_null(x);
        x->side = s;
        x->st = ev->stream;
        ev->stream->user = x;
        list_push_back(&s->streams, &x->node);
        assert_int_equal(yamux_accept(ev->stream), 0);
    }
    struct mux_stream *x = ev->stream->user;
    if (ev->what & YAMUX_RESET) {
        yamux_release(ev->stream, false);
        x->st = NULL;
    }
}

/* Its streams die with the mux. */
static void streams_die(struct side *s)
{
    struct list_node *pos, *tmp;
    list_for_each(pos, tmp, &s->streams) container_of(pos, struct mux_stream, node)->st = NULL;
}

static void on_down(struct link *l, int err)
{
    struct side *s = link_arg(l);
    s->err = err;
    streams_die(s);
    link_close(s->link);
    s->link = NULL;
}

static struct side *begin(struct bed *b, struct conn *conn, bool dialled, unsigned ping_ms,
                          unsigned dead_ms)
{
    static const struct link_owner owner = {on_up, on_event, on_down};
    struct side *s = calloc(1, sizeof(*s));
    struct seckey other_sk;
    assert_non_null(s);
    s->bed = b;
    list_init(&s->streams);
    struct session_cfg cfg = {
        .env = &b->env.env,
        .pool = b->pool,
        .initiator = dialled,
        .sk = &s->sk,
        .keepalive_ms = ping_ms,
        .dead_ms = dead_ms,
    };
    keys_of(&s->sk, &cfg.self, dialled);
    if (dialled)
        keys_of(&other_sk, &cfg.remote, false);
    s->link = link_new(b->loop, conn, &cfg, &owner, s);
    assert_non_null(s->link);
    return s;
}

static void release(struct mux_stream *x)
{
    list_remove(&x->node);
    if (x->st != NULL) {
        yamux_release(x->st, true);
        link_kick(x->side->link);
    }
    free(x);
}

static void end(struct side *s)
{
    struct mux_stream *x;
    streams_die(s);
    while ((x = list_first_as(&s->streams, struct mux_stream, node)) != NULL)
        release(x);
    if (s->link != NULL)
        link_close(s->link);
    free(s);
}

static bool up(const struct side *s)
{
    return s->up && s->link != NULL;
}

static int down(const struct side *s)
{
    return s->err;
}

static struct mux_stream *open_stream(struct side *s)
{
    struct mux_stream *x = calloc(1, sizeof(*x));
    assert_non_null(x);
    x->side = s;
    x->given = true;
    assert_int_equal(yamux_open(link_mux(s->link), x, s->bed->loop->now_ns, &x->st), 0);
    list_push_back(&s->streams, &x->node);
    link_kick(s->link);
    return x;
}

static struct mux_stream *accept_stream(struct side *s)
{
    struct list_node *pos, *tmp;
    list_for_each(pos, tmp, &s->streams)
    {
        struct mux_stream *x = container_of(pos, struct mux_stream, node);
        if (!x->given) {
            x->given = true;
            return x;
        }
    }
    return NULL;
}

static size_t write_some(struct mux_stream *x, const void *p, size_t n)
{
    long took = x->st != NULL ? yamux_write(x->st, p, n) : 0;
    assert_true(took >= 0);
    if (took > 0)
        link_kick(x->side->link);
    return (size_t)took;
}

static size_t read_some(struct mux_stream *x, void *p, size_t n)
{
    size_t got = x->st != NULL ? yamux_read(x->st, p, n) : 0;
    if (got > 0)
        link_kick(x->side->link); /* credit */
    return got;
}

static size_t waiting(const struct mux_stream *x)
{
    return x->st != NULL ? yamux_readable(x->st) : 0;
}

static void shut(struct mux_stream *x)
{
    assert_int_equal(yamux_close_write(x->st), 0);
    link_kick(x->side->link);
}

static void reset(struct mux_stream *x)
{
    yamux_release(x->st, false);
    x->st = NULL;
    link_kick(x->side->link);
}

static bool eof(const struct mux_stream *x)
{
    return x->st != NULL && yamux_eof(x->st);
}

static bool dead(const struct mux_stream *x)
{
    return x->st == NULL;
}

static int ping(struct side *s)
{
    int rc = session_ping(link_session(s->link), s->bed->loop->now_ns);
    link_kick(s->link);
    return rc;
}

static unsigned pongs(const struct side *s)
{
    return s->pongs;
}

static size_t streams(const struct side *s)
{
    struct yamux_stat st;
    if (s->link == NULL || !s->up)
        return 0;
    yamux_stat(link_mux(s->link), &st);
    return st.streams;
}

static void deaf(struct side *s)
{
    link_pause(s->link, true);
}

static const struct mux_kind yamux = {
    "yamux", begin, end, up,   down,    open_stream, accept_stream, write_some, read_some, waiting,
    shut,    reset, eof, dead, release, ping,        pongs,         streams,    deaf,
};

const struct mux_kind *const muxes[] = {&yamux, NULL};
