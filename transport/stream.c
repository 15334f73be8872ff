#include "transport/stream.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "transport/client_int.h"

#define PLAIN_HIGH (64u * 1024u) /* opened ahead of the reader; the rest stays in the mux */
#define WIRE_HIGH  (64u * 1024u) /* taken from the mux and not yet opened */
#define REST_NS    (20 * NS_PER_MS)
#define CLOSING_NS (30 * NS_PER_S) /* for what was written before stream_close() */

/* ---- life ---- */

static void deliver(struct loop_task *t);
static void on_timer(struct loop_timer *t);
static void on_event(struct endpoint *e, unsigned what, int err);

struct stream *stream_new(struct client *c, enum stream_state state)
{
    struct stream *st =
        c->stat.streams < c->cfg.max_streams && !c->freeing ? calloc(1, sizeof *st) : NULL;

    if (st == NULL)
        return NULL;
    st->client = c;
    st->state = state;
    st->end.event = on_event;
    st->task.fn = deliver;
    st->timer.fn = on_timer;
    bufq_init(&st->wire, c->cfg.pool);
    bufq_init(&st->plain, c->cfg.pool);
    bufq_init(&st->out, c->cfg.pool);
    list_push_back(&c->streams, &st->node);
    c->stat.streams++;
    return st;
}

void stream_free(struct stream *st)
{
    free(st->steps);
    free(st);
}

/* Everything but the memory, what was read already, and the steps. */
static void quiet(struct stream *st, bool linger)
{
    struct client *c = st->client;

    endpoint_release(&st->end, linger);
    dial_free(st);
    setup_free(st);
    loop_timer_cancel(c->cfg.loop, &st->timer);
    bufq_clear(&st->wire);
    bufq_clear(&st->out);
    cipher_wipe(&st->tx);
    record_reader_wipe(&st->rx);
    if (st->port_owned)
        client_port_give(c, st->local_port);
    st->port_owned = false;
}

void stream_drop(struct stream *st, bool linger)
{
    struct client *c = st->client;

    quiet(st, linger);
    bufq_clear(&st->plain);
    loop_task_cancel(c->cfg.loop, &st->task);
    st->state = STREAM_FREE;
    st->news = 0;
    list_remove(&st->node);
    list_push_back(&c->dead_streams, &st->node);
    c->stat.streams--;
    client_reap(c);
}

static void news(struct stream *st, unsigned what)
{
    st->news = (uint8_t)(st->news | what);
    loop_task_post(st->client->cfg.loop, &st->task);
}

void stream_fail(struct stream *st, int err)
{
    if (st->state == STREAM_ACCEPTING || st->state == STREAM_CLOSING) {
        stream_drop(st, false); /* nobody knows it */
        return;
    }
    if (st->state == STREAM_DEAD || st->state == STREAM_FREE)
        return;
    log_limited_here(LOG_STREAM, LOG_LEVEL_DEBUG, "stream ended peer=%s port=%u reason=\"%s\"",
                     LOG_PK(&st->remote), st->remote_port, err_str(err));
    quiet(st, false);
    st->state = STREAM_DEAD;
    st->err = err;
    news(st, STREAM_NEWS_ENDED);
}

/* ---- news for the user ---- */

static void deliver_accepted(struct stream *st)
{
    struct listener *l = client_listener(st->client, st->local_port);

    if (l != NULL)
        l->fn(l->arg, st);
    else
        stream_drop(st, false);
}

static void deliver_one(struct stream *st, unsigned what)
{
    if (what == STREAM_NEWS_ACCEPTED) {
        deliver_accepted(st);
    } else if (what == STREAM_NEWS_OPENED) {
        if (st->cb.opened != NULL)
            st->cb.opened(st, st->arg);
    } else if (what == STREAM_NEWS_READABLE) {
        if (st->cb.readable != NULL && (bufq_len(&st->plain) > 0 || st->eof))
            st->cb.readable(st, st->arg);
    } else if (what == STREAM_NEWS_WRITABLE) {
        if (stream_writable(st) == 0)
            stream_want_write(st); /* others took the room meanwhile: the user still waits */
        else if (st->cb.writable != NULL)
            st->cb.writable(st, st->arg);
    } else if (st->cb.ended != NULL) {
        st->cb.ended(st, st->arg, st->err);
    }
}

/* Each function of the user may close the stream. */
static void deliver(struct loop_task *t)
{
    struct stream *st = container_of(t, struct stream, task);

    for (unsigned what = STREAM_NEWS_ACCEPTED; what <= STREAM_NEWS_ENDED; what <<= 1) {
        if ((st->news & what) == 0)
            continue;
        st->news = (uint8_t)(st->news & ~what);
        deliver_one(st, what);
        if (st->state == STREAM_FREE || st->state == STREAM_CLOSING)
            return;
    }
    if (st->news != 0)
        loop_task_post(st->client->cfg.loop, &st->task);
}

/* ---- reading ---- */

static void rest(struct stream *st)
{
    st->rest_ns = client_now(st->client) + REST_NS;
    stream_idle_arm(st);
}

/* One helping from the mux and one pass of opening. 1: something moved, 0: nothing did, or an
 * error. */
static int pump_once(struct stream *st)
{
    size_t had = bufq_len(&st->plain), room = WIRE_HIGH - bufq_len(&st->wire), moved = 0;

    if (had >= PLAIN_HIGH)
        return 0;
    if (bufq_len(&st->wire) < WIRE_HIGH)
        moved = yamux_read_q(st->end.mux, &st->wire, room);
    int rc = record_read(&st->rx, &st->wire, &st->plain, PLAIN_HIGH);
    bool waits = moved == 0 && room > 0 && yamux_readable(st->end.mux) > 0;
    if (rc == ERR_NOMEM || (rc == 0 && waits)) {
        rest(st);
        return 0;
    }
    if (rc != 0)
        return rc;
    return moved > 0 || bufq_len(&st->plain) > had;
}

static int pump_eof(struct stream *st)
{
    if (st->eof || !yamux_eof(st->end.mux))
        return 0;
    int rc = record_eof(&st->rx, &st->wire);
    if (rc == ERR_EOF) {
        st->eof = true;
        news(st, STREAM_NEWS_READABLE);
        rc = 0;
    }
    return rc;
}

/* Open what has come, as far as the reader keeps up. */
static void pump(struct stream *st)
{
    size_t had = bufq_len(&st->plain);
    int rc;

    do {
        rc = pump_once(st);
    } while (rc > 0);
    if (bufq_len(&st->plain) > had) {
        st->moved_ns = client_now(st->client);
        news(st, STREAM_NEWS_READABLE);
    }
    if (rc == 0)
        rc = pump_eof(st);
    endpoint_kick(&st->end); /* credit */
    if (rc < 0)
        stream_fail(st, rc);
}

size_t stream_readable(const struct stream *st)
{
    return bufq_len(&st->plain);
}

static size_t consumed(struct stream *st, size_t n)
{
    st->bytes_in += n;
    if (n > 0 && st->state == STREAM_OPEN && bufq_len(&st->plain) < PLAIN_HIGH && !st->eof)
        pump(st);
    return n;
}

size_t stream_read(struct stream *st, void *out, size_t n)
{
    uint8_t *p = out;
    size_t done = 0, part;

    do {
        part = consumed(st, bufq_read(&st->plain, p + done, n - done));
        done += part;
    } while (part > 0 && done < n);
    return done;
}

size_t stream_read_q(struct stream *st, struct bufq *to, size_t max)
{
    size_t done = 0, part;

    do {
        part = bufq_len(&st->plain) < max - done ? bufq_len(&st->plain) : max - done;
        if (bufq_move(to, &st->plain, part) != 0)
            break;
        done += consumed(st, part);
    } while (part > 0 && done < max);
    return done;
}

bool stream_eof(const struct stream *st)
{
    return st->eof && bufq_len(&st->plain) == 0;
}

/* ---- writing ---- */

/* Sealed bytes that had no room go first. 0 or an error. */
static int push(struct stream *st)
{
    int rc = 0;
    size_t n;

    while (rc == 0 && (n = bufq_len(&st->out)) > 0) {
        size_t room = yamux_writable(st->end.mux);
        if (room == 0) {
            yamux_want_write(st->end.mux);
            break;
        }
        rc = yamux_write_q(st->end.mux, &st->out, n < room ? n : room);
    }
    if (rc == ERR_NOMEM) {
        rest(st);
        return 0;
    }
    if (rc == 0 && st->fin_wanted && bufq_len(&st->out) == 0)
        rc = yamux_close_write(st->end.mux);
    return rc;
}

/* Plaintext that is taken at once. When the room is too small for a frame, one is sealed all the
 * same and its rest waits in out: otherwise the last bytes of a window could never be used, and
 * asking for room would be answered at once, for ever. */
static size_t write_room(const struct stream *st)
{
    if (st->state != STREAM_OPEN || st->fin_wanted || bufq_len(&st->out) > 0)
        return 0;
    size_t room = yamux_writable(st->end.mux), fit = record_plain_fit(room);
    return fit == 0 && room > 0 ? RECORD_PLAIN_MAX : fit;
}

size_t stream_writable(const struct stream *st)
{
    return write_room(st);
}

static int write_check(const struct stream *st)
{
    if (st->state == STREAM_OPEN)
        return st->fin_wanted ? ERR_CLOSED : 0;
    if (st->state == STREAM_DEAD)
        return st->err == ERR_CLOSED ? ERR_CLOSED : ERR_RESET;
    return ERR_AGAIN; /* dialling */
}

void stream_want_write(struct stream *st)
{
    if (st->state != STREAM_OPEN || st->fin_wanted)
        return;
    st->short_write = true;
    yamux_want_write(st->end.mux);
    endpoint_kick(&st->end);
}

long stream_write(struct stream *st, const void *p, size_t n)
{
    size_t taken = 0;
    int rc = write_check(st);

    if (rc == ERR_AGAIN)
        return 0; /* opened() follows */
    if (rc != 0)
        return rc;
    if ((rc = push(st)) != 0) {
        stream_fail(st, rc);
        return rc;
    }
    size_t room = write_room(st);
    rc = record_write(&st->tx, &st->out, p, n < room ? n : room, &taken);
    int sent = push(st);
    if (taken > 0)
        st->moved_ns = client_now(st->client);
    if (sent == 0 && rc == ERR_NOMEM) {
        st->short_write = true;
        rest(st); /* no buffers: looks again after a while */
    } else if (sent == 0 && taken < n) {
        stream_want_write(st);
    }
    endpoint_kick(&st->end);
    st->bytes_out += taken;
    if (sent == 0 && (rc == 0 || rc == ERR_NOMEM))
        return (long)taken;
    rc = sent != 0 ? sent : rc;
    stream_fail(st, rc);
    return rc;
}

int stream_shutdown(struct stream *st)
{
    int rc = write_check(st);

    if (rc == ERR_CLOSED && st->state == STREAM_OPEN)
        return 0;
    if (rc != 0)
        return rc == ERR_AGAIN ? ERR_STATE : rc;
    st->fin_wanted = true;
    rc = push(st);
    endpoint_kick(&st->end);
    if (rc != 0)
        stream_fail(st, rc);
    return rc;
}

bool stream_shut(const struct stream *st)
{
    return st->fin_wanted;
}

/* There is room again. */
static void writable(struct stream *st)
{
    int rc = push(st);

    endpoint_kick(&st->end);
    if (rc != 0) {
        stream_fail(st, rc);
        return;
    }
    if (bufq_len(&st->out) > 0)
        return;
    if (st->state == STREAM_CLOSING) {
        stream_drop(st, true);
    } else if (st->short_write && write_room(st) > 0) {
        st->short_write = false;
        news(st, STREAM_NEWS_WRITABLE);
    } else if (st->short_write) {
        stream_want_write(st); /* what had waited took all the room */
    }
}

/* ---- events ---- */

static void open_event(struct stream *st, unsigned what)
{
    if ((what & (YAMUX_READABLE | YAMUX_EOF)) && st->state == STREAM_OPEN)
        pump(st);
    if ((what & YAMUX_WRITABLE) && st->end.mux != NULL)
        writable(st);
}

static void on_event(struct endpoint *e, unsigned what, int err)
{
    struct stream *st = container_of(e, struct stream, end);

    if (what & YAMUX_RESET) {
        stream_fail(st, err);
        return;
    }
    switch (st->state) {
    case STREAM_ACCEPTING:
        setup_event(st, what);
        return;
    case STREAM_OPEN:
    case STREAM_CLOSING:
        open_event(st, what);
        return;
    case STREAM_DIALLING: /* the last message is being read; data waits in the mux */
    case STREAM_DEAD:
    case STREAM_FREE:
        return;
    }
}

void stream_open(struct stream *st, struct noise *noise, enum stream_news how)
{
    noise_split(noise, &st->tx, &st->rx.rx);
    st->state = STREAM_OPEN;
    dial_free(st);
    setup_free(st);
    st->moved_ns = client_now(st->client);
    stream_idle_arm(st);
    news(st, how);
    pump(st); /* bytes may have come right behind the object */
}

/* ---- time ---- */

/* The timer of an open stream: idle limit, or the end of a pause without buffers. */
void stream_idle_arm(struct stream *st)
{
    struct loop *loop = st->client->cfg.loop;
    uint64_t at = st->rest_ns != 0 ? st->rest_ns : LOOP_NEVER;

    if (st->state != STREAM_OPEN)
        return;
    if (st->idle_ns > 0 && st->moved_ns + st->idle_ns < at)
        at = st->moved_ns + st->idle_ns;
    if (at == LOOP_NEVER)
        loop_timer_cancel(loop, &st->timer);
    else
        loop_timer_set(loop, &st->timer, at);
}

static void open_timer(struct stream *st)
{
    uint64_t now = client_now(st->client);

    if (st->idle_ns > 0 && now - st->moved_ns >= st->idle_ns) {
        stream_fail(st, ERR_TIMEOUT);
        return;
    }
    if (st->rest_ns != 0 && now >= st->rest_ns) {
        st->rest_ns = 0;
        pump(st);
        if (st->state == STREAM_OPEN)
            writable(st);
    }
    if (st->state == STREAM_OPEN)
        stream_idle_arm(st);
}

static void on_timer(struct loop_timer *t)
{
    struct stream *st = container_of(t, struct stream, timer);

    switch (st->state) {
    case STREAM_DIALLING:
        dial_timeout(st);
        return;
    case STREAM_ACCEPTING:
        setup_timeout(st);
        return;
    case STREAM_OPEN:
        open_timer(st);
        return;
    case STREAM_CLOSING: /* the peer has not read in time */
        stream_drop(st, false);
        return;
    case STREAM_DEAD:
    case STREAM_FREE:
        return;
    }
}

void stream_set_idle(struct stream *st, uint64_t idle_ns)
{
    st->idle_ns = idle_ns;
    stream_idle_arm(st);
}

/* ---- what the user may do ---- */

void stream_set_cb(struct stream *st, const struct stream_cb *cb, void *arg)
{
    st->cb = *cb;
    st->arg = arg;
    if (bufq_len(&st->plain) > 0 || st->eof)
        news(st, STREAM_NEWS_READABLE); /* nobody may have listened before */
}

void *stream_arg(const struct stream *st)
{
    return st->arg;
}

const struct pubkey *stream_remote(const struct stream *st)
{
    return &st->remote;
}

uint16_t stream_remote_port(const struct stream *st)
{
    return st->remote_port;
}

uint16_t stream_local_port(const struct stream *st)
{
    return st->local_port;
}

const struct pubkey *stream_via(const struct stream *st)
{
    return &st->via;
}

struct bufpool *stream_pool(const struct stream *st)
{
    return st->client->cfg.pool;
}

uint64_t stream_bytes_in(const struct stream *st)
{
    return st->bytes_in;
}

uint64_t stream_bytes_out(const struct stream *st)
{
    return st->bytes_out;
}

void stream_close(struct stream *st)
{
    struct client *c = st->client;

    assert(st->state != STREAM_FREE && st->state != STREAM_CLOSING);
    if (st->state == STREAM_OPEN && bufq_len(&st->out) > 0) {
        memset(&st->cb, 0, sizeof st->cb);
        loop_task_cancel(c->cfg.loop, &st->task);
        if (st->port_owned)
            client_port_give(c, st->local_port);
        st->port_owned = false;
        st->news = 0;
        st->state = STREAM_CLOSING;
        bufq_clear(&st->plain);
        loop_timer_set(c->cfg.loop, &st->timer, client_now(c) + CLOSING_NS);
        return;
    }
    stream_drop(st, st->state == STREAM_OPEN);
}

void stream_abort(struct stream *st)
{
    assert(st->state != STREAM_FREE && st->state != STREAM_CLOSING);
    stream_drop(st, false);
}
