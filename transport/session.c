#include "transport/session.h"

#include <assert.h>
#include <sodium.h>
#include <stdlib.h>

#include "base/cursor.h"
#include "base/err.h"
#include "base/loop.h"
#include "transport/cipher.h"
#include "transport/noise.h"

#define PREFIX_BYTES      2u
#define INPUT_MAX         (64u * 1024u) /* kept while public-key work is under way */
#define WRITE_STALL_NS    (10 * NS_PER_S)
#define KEEPALIVE_PERCENT 20 /* jitter */

_Static_assert(SESSION_SEAL_OVERHEAD == CIPHER_OVERHEAD, "one frame format");

/* What is needed until the session is up. */
struct handshake {
    struct session *session;
    struct noise noise;
    struct bufq in; /* bytes not yet read, copied: the read buffers must not wait for slow peers */
    struct yamux_cfg mux;
    uint64_t deadline_ns;
    int ready_rc; /* of the public-key work that has ended */
    bool ready;
};

struct session {
    struct env *env;
    struct bufpool *pool;
    struct handshake *hs; /* NULL once up, and after an error */
    struct yamux *mux;    /* NULL before up */
    struct bufq hello;    /* handshake messages on their way out */
    struct cipher tx, rx;
    struct nonce_window seen;
    struct pubkey remote;
    bool initiator, up_event;
    bool wait_at_up, waiting; /* waiting: the handshake is done, the mux not begun */
    bool patient;
    int err;
    uint32_t hold_ms, keepalive_ms, dead_ms;
    void (*ready)(void *arg);
    void *arg;
    uint64_t now_ns, heard_ns, up_ns;
    uint64_t hold_until_ns; /* initiator: when the multiplexer may begin; LOOP_NEVER until message 3
                               is out */
    uint64_t quiet_ns;      /* silence after which the peer is asked, jittered */
    uint64_t probe_ns;      /* when it was asked, 0 = not since the last byte came */
    uint64_t stall_ns;      /* since when output waits without progress, 0 = nothing waits */
};

/* With its mux and its link an idle session is about 1 KiB. */
_Static_assert(sizeof(struct session) < 512, "an idle session");

/* ---- the end ---- */

static void handshake_free(struct session *s)
{
    if (s->hs == NULL)
        return;
    noise_wipe(&s->hs->noise);
    bufq_clear(&s->hs->in);
    free(s->hs);
    s->hs = NULL;
}

/* Streams of the mux stay for their users to release; nothing moves any more. */
static int fail(struct session *s, int err)
{
    assert(err < 0);
    if (s->err == 0) {
        s->err = err;
        handshake_free(s);
        bufq_clear(&s->hello);
        cipher_wipe(&s->tx);
        cipher_wipe(&s->rx);
    }
    return s->err;
}

/* Errors that the mux met in calls of its users. */
static int check_mux(struct session *s)
{
    int rc = s->mux != NULL ? yamux_error(s->mux) : 0;
    return rc < 0 ? fail(s, rc) : s->err;
}

/* ---- handshake (docs/protocol/dmsg.md §2.3, §2.7, §3.1) ---- */

static int write_message(struct session *s)
{
    uint8_t frame[PREFIX_BYTES + NOISE_OUT_MAX];
    size_t len;
    int rc = noise_write(&s->hs->noise, frame + PREFIX_BYTES, NOISE_OUT_MAX, &len);
    if (rc < 0)
        return rc;
    put_be16(frame, (uint16_t)len);
    return bufq_append_copy(&s->hello, frame, PREFIX_BYTES + len);
}

/* ERR_AGAIN: not all of it has come. */
static int read_message(struct session *s)
{
    struct handshake *hs = s->hs;
    uint8_t prefix[PREFIX_BYTES], msg[NOISE_MESSAGE_MAX];
    if (bufq_peek(&hs->in, 0, prefix, sizeof prefix) < sizeof prefix)
        return ERR_AGAIN;
    size_t len = get_be16(prefix);
    if (len > sizeof msg)
        return ERR_TOO_LONG;
    if (bufq_len(&hs->in) - sizeof prefix < len)
        return ERR_AGAIN;
    bufq_consume(&hs->in, sizeof prefix);
    (void)bufq_read(&hs->in, msg, len);
    return noise_read(&hs->noise, msg, len);
}

/* Bytes behind the last message belong to the multiplexer (incident 4). */
static int feed_leftover(struct session *s, struct bufq *in)
{
    int rc = 0;
    while (bufq_len(in) > 0 && rc == 0) {
        struct slice part = bufq_pop(in, SIZE_MAX);
        rc = yamux_input(s->mux, part, s->now_ns);
        slice_release(&part);
    }
    return rc;
}

static int mux_begin(struct session *s, struct yamux_cfg *cfg, struct bufq *early)
{
    cfg->client = s->initiator;
    s->mux = yamux_new(cfg, s->pool, s->env->hash_key);
    return s->mux == NULL ? ERR_NOMEM : feed_leftover(s, early);
}

static int handshake_leave(struct session *s)
{
    s->waiting = false;
    int rc = mux_begin(s, &s->hs->mux, &s->hs->in);
    handshake_free(s);
    return rc;
}

static int handshake_finish(struct session *s)
{
    struct handshake *hs = s->hs;
    if (s->initiator && bufq_len(&hs->in) > 0)
        return ERR_DMSG_EXTRA_BYTES; /* no server speaks before it has read message 3 */
    noise_split(&hs->noise, &s->tx, &s->rx);
    s->remote = *noise_remote(&hs->noise);
    s->up_ns = s->heard_ns = s->now_ns;
    s->up_event = true;
    s->waiting = s->wait_at_up;
    return s->waiting ? 0 : handshake_leave(s);
}

/* As far as it goes: 0 when it waits for bytes or work, or when it is done. */
static int handshake_run(struct session *s)
{
    struct handshake *hs = s->hs;
    if (s->waiting)
        return 0;
    if (hs->ready) {
        hs->ready = false;
        if (hs->ready_rc < 0)
            return hs->ready_rc;
    }
    for (;;) {
        int rc;
        if (noise_wants_write(&hs->noise))
            rc = write_message(s);
        else if (noise_wants_read(&hs->noise))
            rc = read_message(s);
        else if (noise_done(&hs->noise))
            return handshake_finish(s);
        else
            rc = ERR_PENDING;
        if (rc == ERR_AGAIN || rc == ERR_PENDING)
            return 0;
        if (rc < 0)
            return rc;
    }
}

static void on_noise_ready(struct noise *n, int rc)
{
    struct handshake *hs = container_of(n, struct handshake, noise);
    hs->ready = true;
    hs->ready_rc = rc;
    if (hs->session->ready != NULL)
        hs->session->ready(hs->session->arg);
}

static int handshake_input(struct session *s, struct slice in)
{
    struct bufq *q = &s->hs->in;
    if (in.n > INPUT_MAX || bufq_len(q) > INPUT_MAX - in.n)
        return ERR_LIMIT;
    int rc = bufq_append_copy(q, in.p, in.n);
    return rc < 0 ? rc : handshake_run(s);
}

/* ---- life ---- */

static uint32_t or_default(uint32_t v, uint32_t def)
{
    return v != 0 ? v : def;
}

static int handshake_begin(struct session *s, const struct session_cfg *cfg)
{
    struct handshake *hs = calloc(1, sizeof *hs);
    if (hs == NULL)
        return ERR_NOMEM;
    s->hs = hs;
    hs->session = s;
    hs->mux = cfg->mux;
    hs->deadline_ns = s->now_ns + or_default(cfg->handshake_ms, 5000) * NS_PER_MS;
    bufq_init(&hs->in, cfg->pool);
    struct noise_cfg nc = {
        .env = cfg->env,
        .pattern = NOISE_XK,
        .initiator = cfg->initiator,
        .cls = PK_CLASS_SESSION,
        .sk = cfg->sk,
        .pk = &cfg->self,
        .remote = cfg->initiator ? &cfg->remote : NULL,
        .on_ready = on_noise_ready,
    };
    int rc = noise_init(&hs->noise, &nc);
    return rc < 0 ? rc : handshake_run(s);
}

static struct session *session_alloc(const struct session_cfg *cfg, uint64_t now_ns)
{
    struct session *s = calloc(1, sizeof *s);
    if (s == NULL)
        return NULL;
    s->env = cfg->env;
    s->pool = cfg->pool;
    s->keepalive_ms = cfg->keepalive_ms;
    s->dead_ms = or_default(cfg->dead_ms, 10000);
    s->patient = cfg->patient;
    s->ready = cfg->ready;
    s->arg = cfg->arg;
    s->now_ns = s->heard_ns = now_ns;
    s->quiet_ns = env_jitter_ns(cfg->env, cfg->keepalive_ms * NS_PER_MS, KEEPALIVE_PERCENT);
    bufq_init(&s->hello, cfg->pool);
    return s;
}

struct session *session_new(const struct session_cfg *cfg, uint64_t now_ns)
{
    struct session *s = session_alloc(cfg, now_ns);
    if (s == NULL)
        return NULL;
    s->initiator = cfg->initiator;
    s->wait_at_up = cfg->wait_at_up && !cfg->initiator;
    s->hold_ms = cfg->hold_ms == SESSION_NO_HOLD ? 0 : or_default(cfg->hold_ms, 60);
    s->hold_until_ns = cfg->initiator ? LOOP_NEVER : 0;
    int rc = handshake_begin(s, cfg);
    if (rc < 0)
        (void)fail(s, rc);
    return s;
}

void session_free(struct session *s)
{
    if (s == NULL)
        return;
    (void)fail(s, ERR_CLOSED);
    yamux_free(s->mux);
    free(s);
}

/* ---- from thread to thread ---- */

int session_go(struct session *s)
{
    assert(s->waiting || s->err < 0);
    if (s->err < 0)
        return s->err;
    int rc = handshake_leave(s);
    return rc < 0 ? fail(s, rc) : 0;
}

int session_export(struct session *s, struct session_state *out)
{
    assert(s->waiting && s->err == 0 && bufq_len(&s->hello) == 0);
    struct bufq *in = &s->hs->in;
    *out = (struct session_state){.remote = s->remote, .initiator = s->initiator};
    if (bufq_len(in) > 0 && (out->early = malloc(bufq_len(in))) == NULL)
        return ERR_NOMEM;
    out->early_n = bufq_read(in, out->early, bufq_len(in));
    out->tx = s->tx;
    out->rx = s->rx;
    (void)fail(s, ERR_CLOSED);
    return 0;
}

void session_state_wipe(struct session_state *st)
{
    free(st->early);
    sodium_memzero(st, sizeof *st);
}

static int import(struct session *s, const struct session_cfg *cfg, const struct session_state *st)
{
    struct yamux_cfg mux = cfg->mux;
    struct bufq early;
    bufq_init(&early, s->pool);
    int rc = st->early_n > 0 ? bufq_append_copy(&early, st->early, st->early_n) : 0;
    if (rc == 0)
        rc = mux_begin(s, &mux, &early);
    bufq_clear(&early);
    return rc;
}

struct session *session_import(const struct session_cfg *cfg, struct session_state *st,
                               uint64_t now_ns)
{
    struct session *s = session_alloc(cfg, now_ns);
    if (s != NULL) {
        s->remote = st->remote;
        s->tx = st->tx;
        s->rx = st->rx;
        s->initiator = st->initiator;
        s->up_ns = now_ns;
        s->up_event = true;
        int rc = import(s, cfg, st);
        if (rc < 0)
            (void)fail(s, rc);
    }
    session_state_wipe(st);
    return s;
}

/* ---- bytes ---- */

int session_input(struct session *s, struct slice in, uint64_t now_ns)
{
    if (s->err < 0)
        return s->err;
    s->now_ns = now_ns;
    if (in.n > 0) {
        s->heard_ns = now_ns;
        s->probe_ns = 0;
    }
    int rc = s->hs != NULL ? handshake_input(s, in) : yamux_input(s->mux, in, now_ns);
    return rc < 0 ? fail(s, rc) : 0;
}

bool session_stop_reading(const struct session *s)
{
    return s->hs != NULL && !noise_wants_read(&s->hs->noise) && bufq_len(&s->hs->in) > 0;
}

enum session_what session_next(struct session *s)
{
    if (!s->up_event || s->err < 0)
        return SESSION_EV_NONE;
    s->up_event = false;
    return SESSION_EV_UP;
}

/* Old servers drop a session whose first multiplexer bytes come with message 3. */
static bool mux_may_send(const struct session *s, uint64_t now_ns)
{
    return s->mux != NULL && now_ns >= s->hold_until_ns;
}

size_t session_pending(const struct session *s, uint64_t now_ns)
{
    if (s->err < 0)
        return 0;
    return bufq_len(&s->hello) + (mux_may_send(s, now_ns) ? yamux_pending(s->mux) : 0);
}

int session_output(struct session *s, struct iovec *iov, int max, uint64_t now_ns)
{
    if (s->err < 0)
        return 0;
    int n = bufq_iov(&s->hello, iov, max);
    if (mux_may_send(s, now_ns))
        n += yamux_output(s->mux, iov + n, max - n);
    if (n > 0 && s->stall_ns == 0 && !s->patient)
        s->stall_ns = now_ns;
    return n;
}

void session_sent(struct session *s, size_t n, uint64_t now_ns)
{
    if (s->err < 0 || n == 0)
        return;
    s->now_ns = now_ns;
    size_t part = n < bufq_len(&s->hello) ? n : bufq_len(&s->hello);
    bufq_consume(&s->hello, part);
    if (n > part)
        yamux_sent(s->mux, n - part, now_ns);
    if (s->hold_until_ns == LOOP_NEVER && s->mux != NULL && bufq_len(&s->hello) == 0)
        s->hold_until_ns = now_ns + s->hold_ms * NS_PER_MS;
    s->stall_ns = session_pending(s, now_ns) > 0 && !s->patient ? now_ns : 0;
}

/* ---- time ---- */

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* When the silence of the peer calls for the next step. While it takes our bytes, it is slow and
 * not dead. */
static uint64_t quiet_deadline(const struct session *s)
{
    if (s->keepalive_ms == 0)
        return LOOP_NEVER;
    if (s->probe_ns == 0)
        return s->heard_ns + s->quiet_ns;
    uint64_t since = s->stall_ns > s->probe_ns ? s->stall_ns : s->probe_ns;
    return since + s->dead_ms * NS_PER_MS;
}

uint64_t session_deadline(const struct session *s)
{
    if (s->err < 0)
        return LOOP_NEVER;
    uint64_t at = s->stall_ns != 0 ? s->stall_ns + WRITE_STALL_NS : LOOP_NEVER;
    if (s->hs != NULL)
        return s->hs->ready ? 0 : earlier(at, s->hs->deadline_ns);
    if (yamux_pending(s->mux) > 0 && s->now_ns < s->hold_until_ns)
        at = earlier(at, s->hold_until_ns);
    return earlier(at, earlier(quiet_deadline(s), yamux_deadline(s->mux)));
}

static void probe(struct session *s)
{
    (void)yamux_ping(s->mux, s->now_ns); /* one that is under way serves as well */
    s->probe_ns = s->now_ns;
    s->quiet_ns = env_jitter_ns(s->env, s->keepalive_ms * NS_PER_MS, KEEPALIVE_PERCENT);
}

int session_tick(struct session *s, uint64_t now_ns)
{
    int rc;
    if (s->err < 0)
        return s->err;
    s->now_ns = now_ns;
    if (s->stall_ns != 0 && now_ns - s->stall_ns >= WRITE_STALL_NS)
        return fail(s, ERR_TIMEOUT);
    if (s->hs != NULL) {
        if (now_ns >= s->hs->deadline_ns)
            return fail(s, ERR_TIMEOUT);
        rc = s->hs->ready ? handshake_run(s) : 0;
        return rc < 0 ? fail(s, rc) : 0;
    }
    yamux_tick(s->mux, now_ns);
    if (now_ns >= quiet_deadline(s)) {
        if (s->probe_ns != 0)
            return fail(s, ERR_TIMEOUT);
        probe(s);
    }
    return check_mux(s);
}

int session_error(const struct session *s)
{
    return s->err == 0 && s->mux != NULL ? yamux_error(s->mux) : s->err;
}

/* ---- looking in ---- */

bool session_is_up(const struct session *s)
{
    return s->mux != NULL && session_error(s) == 0;
}

bool session_initiator(const struct session *s)
{
    return s->initiator;
}

const struct pubkey *session_remote(const struct session *s)
{
    return &s->remote;
}

struct yamux *session_mux(struct session *s)
{
    return s->mux;
}

uint64_t session_heard_ns(const struct session *s)
{
    return s->heard_ns;
}

uint64_t session_up_ns(const struct session *s)
{
    return s->up_ns;
}

uint64_t session_rtt_ns(const struct session *s)
{
    return s->mux != NULL ? yamux_rtt_ns(s->mux) : 0;
}

int session_ping(struct session *s, uint64_t now_ns)
{
    return session_is_up(s) ? yamux_ping(s->mux, now_ns) : ERR_STATE;
}

/* ---- objects of stream set-up (docs/protocol/dmsg.md §4.2) ---- */

/* u16be(len) | sealed, as one or two slices in q. */
static int seal(struct session *s, struct bufq *q, const void *obj, size_t n)
{
    size_t len = n + SESSION_SEAL_OVERHEAD;
    uint8_t prefix[PREFIX_BYTES];
    put_be16(prefix, (uint16_t)len);
    struct buf *b = buf_get(s->pool, len);
    if (b == NULL)
        return ERR_NOMEM;
    int rc = bufq_append_copy(q, prefix, sizeof prefix);
    if (rc == 0)
        rc = cipher_seal(&s->tx, buf_room(b), obj, n);
    if (rc == 0)
        rc = bufq_append_slice(q, buf_take(b, len));
    buf_put(b);
    return rc;
}

int session_write_object(struct session *s, struct yamux_stream *st, const void *obj, size_t n)
{
    if (!session_is_up(s))
        return s->err < 0 ? s->err : ERR_STATE;
    if (n > SESSION_OBJECT_MAX - SESSION_SEAL_OVERHEAD)
        return ERR_TOO_LONG;
    if (yamux_write_closed(st))
        return st->reset_err < 0 ? st->reset_err : ERR_CLOSED;
    size_t whole = PREFIX_BYTES + n + SESSION_SEAL_OVERHEAD;
    if (!yamux_write_fits(st, whole)) {
        yamux_want_room(st, whole);
        return ERR_AGAIN;
    }
    struct bufq q;
    bufq_init(&q, s->pool);
    int rc = seal(s, &q, obj, n);
    if (rc == 0)
        rc = yamux_write_q(st, &q, whole);
    bufq_clear(&q);
    return rc;
}

int session_read_object(struct session *s, struct yamux_stream *st, enum session_read *what,
                        uint8_t *out, size_t cap, size_t *n)
{
    uint8_t prefix[PREFIX_BYTES];
    size_t have = yamux_readable(st);
    if (s->err < 0 || st->reset_err < 0)
        return st->reset_err < 0 ? st->reset_err : s->err;
    bool whole = yamux_peek(st, 0, prefix, sizeof prefix) == sizeof prefix;
    size_t len = whole ? get_be16(prefix) : 0;
    if (!whole || have - sizeof prefix < len)
        return yamux_fin_received(st) ? ERR_EOF : ERR_AGAIN;
    (void)yamux_discard(st, sizeof prefix);
    *what = SESSION_READ_MARKER;
    *n = 0;
    if (len == 0)
        return 0;
    *what = SESSION_READ_OBJECT;
    if (len < SESSION_SEAL_OVERHEAD)
        return ERR_SHORT;
    if (len > cap)
        return ERR_TOO_LONG;
    (void)yamux_read(st, out, len);
    int rc = cipher_open_window(&s->rx, &s->seen, out + CIPHER_COUNTER_BYTES, out, len);
    if (rc < 0)
        return rc;
    *n = len - SESSION_SEAL_OVERHEAD;
    memmove(out, out + CIPHER_COUNTER_BYTES, *n);
    return 0;
}
