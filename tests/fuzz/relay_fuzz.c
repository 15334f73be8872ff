/* The relay with two sessions that are up, fed with arbitrary yamux bytes from both sides.
 *
 * First byte: bit 0 public-key work deferred, bit 1 small budgets and limits, bit 2 bytes arrive in
 * small pieces. The rest is a program: one byte of operation (bit 7: whose turn, low bits: what),
 * then its operands; see run_op(). Raw bytes and frames come as they are given; requests, responses
 * and objects are sealed with the session's keys, so that set-ups succeed and bridges open.
 *
 * Checked: nothing aborts, the loop does not spin (the pipe aborts), buffered bytes never exceed
 * the budgets, and in the end every gauge is zero (rw_free). */
#include <string.h>

#include "base/cursor.h"
#include "tests/unit/transport/relay_world.h"

#define INCOMING_MAX 64
#define PROGRAM_MAX  4096
#define FILLER_MAX   (4u << 20) /* of one program: beyond it only takes time */

struct incoming { /* a request that the relay forwarded to a side, not yet answered */
    uint32_t id;
    struct hash hash;
};

struct side {
    struct rw_raw *raw;
    struct incoming in[INCOMING_MAX];
    size_t n_in;
    uint32_t fresh; /* ids of the relay that have begun */
};

struct play {
    struct rw_world w;
    struct side side[2];
    struct rd in;
    size_t filler;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- what the relay sent ---- */

static void note_request(struct side *s, const struct rw_frame *f)
{
    uint8_t obj[RELAY_OBJECT_MAX + 64];
    if (f->id <= s->fresh || f->len < 2 + CIPHER_OVERHEAD || f->len > sizeof obj)
        return;
    s->fresh = f->id;
    size_t n = f->len - 2;
    /* Its counter rules are not the point: the relay seals in order. */
    if (cipher_open(&s->raw->rx, obj, f->body + 2, n) < 0 || s->n_in == INCOMING_MAX)
        return;
    n -= CIPHER_OVERHEAD;
    if (n <= SIG_BYTES)
        return;
    s->in[s->n_in].id = f->id;
    object_hash(&s->in[s->n_in].hash, obj, n);
    s->n_in++;
}

static void look(struct side *s)
{
    struct rw_frame f;
    while (rw_raw_frame(s->raw, &f))
        if (f.type == YAMUX_T_DATA && f.id % 2 == 0)
            note_request(s, &f);
}

static void settle(struct play *p, uint64_t ns)
{
    rw_run(&p->w, ns);
    for (int i = 0; i < 2; i++)
        look(&p->side[i]);
    RW_MUST(rw_stat(&p->w).buffered <= 4u << 20);
}

/* ---- operations ---- */

static void op_raw(struct play *p, struct side *s)
{
    size_t n = rd_u8(&p->in);
    if (n > rd_left(&p->in))
        n = rd_left(&p->in);
    const uint8_t *b = rd_bytes(&p->in, n);
    if (b != NULL)
        rw_raw_send(s->raw, b, n);
}

static void send_filler(struct side *s, uint32_t id, size_t n)
{
    static const uint8_t filler[65536] = {0, 0, 0xff};
    while (n > 0) {
        size_t part = n < sizeof filler ? n : sizeof filler;
        rw_raw_data(s->raw, 0, id, filler, part);
        n -= part;
    }
}

static void op_frame(struct play *p, struct side *s)
{
    static const uint8_t body[4096] = {0, 0};
    uint8_t what = rd_u8(&p->in);
    uint32_t id = rd_u8(&p->in);
    uint32_t len = rd_be16(&p->in);
    unsigned type = what & 3u, flags = (what >> 2) & 15u;
    if (type == YAMUX_T_DATA) {
        rw_raw_data(s->raw, flags, id, body, len % sizeof body);
        return;
    }
    rw_raw_header(s->raw, (what & 0x80) ? 5 : type, flags, id,
                  type == YAMUX_T_GOAWAY ? len % 4 : len);
}

static void op_request(struct play *p, struct side *s)
{
    static const uint8_t msg[49] = {2};
    uint8_t obj[OBJECT_ENCODED_MAX];
    uint8_t how = rd_u8(&p->in);
    uint32_t id = rd_u8(&p->in);
    struct object_request req = {.timestamp_ns = 1, .src = {s->raw->key.pk, 7}, .dst.port = 80};
    switch (how & 3) {
    case 0:
    case 1:
        req.dst.pk = p->side[how & 1].raw->key.pk;
        break;
    case 2:
        req.dst.pk = p->w.key.pk;
        break;
    default:
        req.dst.pk = rw_key_of(9).pk;
        break;
    }
    req.ip_info = (how & 4) != 0;
    if (!req.ip_info)
        req.noise_msg = (struct gob_bytes){msg, sizeof msg};
    if (how & 16)
        req.src.port = 0;
    struct rw_key source = (how & 64) ? rw_key_of(8) : s->raw->key;
    req.src.pk = source.pk;
    size_t n = rw_sign_request(obj, &req, &source.sk);
    if (how & 8)
        obj[3] ^= 1;
    if (how & 32)
        rw_raw_header(s->raw, YAMUX_T_WINDOW, YAMUX_F_SYN, id, 0);
    rw_raw_object(s->raw, id, obj, n);
}

static void op_response(struct play *p, struct side *s)
{
    static const uint8_t msg[49] = {2};
    uint8_t how = rd_u8(&p->in), obj[OBJECT_ENCODED_MAX];
    struct hash digest;
    struct sig sig;
    size_t n;
    if (s->n_in == 0)
        return;
    struct incoming in = s->in[0];
    memmove(s->in, s->in + 1, --s->n_in * sizeof *s->in);
    struct object_response rsp = {.req_hash = in.hash, .accepted = (how & 1) == 0};
    rsp.err_code = rsp.accepted ? 0 : (uint16_t)(300 + how / 2);
    if (rsp.accepted)
        rsp.noise_msg = (struct gob_bytes){msg, sizeof msg};
    if (how & 2)
        rsp.req_hash.b[0] ^= 1;
    RW_MUST(object_encode_response(obj, sizeof obj, &n, &rsp, OBJECT_2023) == 0);
    object_digest(&digest, obj, n);
    struct rw_key signer = (how & 32) ? rw_key_of(9) : s->raw->key;
    RW_MUST(crypto_sign_digest(&sig, &signer.sk, &digest) == 0);
    object_set_sig(obj, &sig);
    if (how & 4)
        obj[20] ^= 1;
    rw_raw_header(s->raw, YAMUX_T_WINDOW, YAMUX_F_ACK, in.id, 0);
    rw_raw_object(s->raw, in.id, obj, n);
    if (how & 8)
        send_filler(s, in.id, 5000);
    if (how & 16)
        rw_raw_header(s->raw, YAMUX_T_WINDOW, YAMUX_F_FIN, in.id, 0);
}

/* The side says that it is a relay: then it is asked for key 9. */
static void op_announce(struct play *p, struct side *s)
{
    uint8_t how = rd_u8(&p->in), obj[OBJECT_ENCODED_MAX];
    uint32_t id = rd_u8(&p->in);
    struct object_announce ann = {1, (how & 1) ? rw_key_of(8).pk : s->raw->key.pk};
    struct rw_key signer = (how & 2) ? rw_key_of(8) : s->raw->key;
    struct hash digest;
    struct sig sig;
    size_t n;
    RW_MUST(object_encode_announce(obj, sizeof obj, &n, &ann) == 0);
    object_digest(&digest, obj, n);
    RW_MUST(crypto_sign_digest(&sig, &signer.sk, &digest) == 0);
    object_set_sig(obj, &sig);
    if (how & 32)
        rw_raw_header(s->raw, YAMUX_T_WINDOW, YAMUX_F_SYN, id, 0);
    rw_raw_object(s->raw, id, obj, n);
}

static void op_object(struct play *p, struct side *s)
{
    uint32_t id = rd_u8(&p->in);
    size_t n = rd_u8(&p->in);
    if (n > rd_left(&p->in))
        n = rd_left(&p->in);
    const uint8_t *b = rd_bytes(&p->in, n);
    if (b != NULL)
        rw_raw_object(s->raw, id, b, n);
}

static void op_faults(struct play *p, struct side *s)
{
    uint8_t how = rd_u8(&p->in);
    struct pipe_conn *to = s->raw->inner;
    to->out.window = (how & 1) ? 1000 : 0;
    conn_pause(&s->raw->conn->conn, (how & 2) != 0);
    pipe_wake(to);
}

static void run_op(struct play *p)
{
    uint8_t op = rd_u8(&p->in);
    struct side *s = &p->side[op >> 7];
    uint64_t wait_ns = 0;
    if (s->raw->closed || s->raw->down)
        return;
    switch (op & 15) {
    case 0:
        op_raw(p, s);
        break;
    case 1:
        op_frame(p, s);
        break;
    case 2:
        op_request(p, s);
        break;
    case 3:
        op_response(p, s);
        break;
    case 4:
        op_object(p, s);
        break;
    case 5:
        wait_ns = (UINT64_C(1) << (rd_u8(&p->in) & 15)) * NS_PER_MS;
        break;
    case 6:
        op_faults(p, s);
        break;
    case 7:
        rw_raw_close(s->raw);
        break;
    case 8:
        rw_raw_data(s->raw, YAMUX_F_SYN, rd_u8(&p->in), (const uint8_t[2]){0, 0}, 2);
        break;
    case 9: {
        uint32_t id = rd_u8(&p->in);
        size_t n = (size_t)rd_u8(&p->in) * 1024;
        p->filler += n;
        if (p->filler <= FILLER_MAX)
            send_filler(s, id, n);
        break;
    }
    case 10:
        rw_drain(&p->w);
        break;
    case 12:
        op_announce(p, s);
        break;
    case 11:
        return; /* nothing yet: what follows goes out with what is there */
    default:
        break;
    }
    settle(p, wait_ns);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct play p;
    if (size == 0 || size > PROGRAM_MAX)
        return 0;
    memset(&p, 0, sizeof p);
    p.in = rd_init(data, size);
    uint8_t mode = rd_u8(&p.in);
    struct relay_cfg small = {.max_streams = 8,
                              .syn_per_s = 4,
                              .session_budget = 300000,
                              .total_budget = 500000,
                              .idle_ms = 20000,
                              .max_relayed = 4,
                              .accept_relayed = true};
    rw_workers = (mode & 8) ? 2 : 1;
    rw_init(&p.w, (mode & 2) ? &small : NULL);
    for (unsigned i = 0; i < 2; i++) {
        p.side[i].raw = rw_raw_new(&p.w, 1 + i);
        p.side[i].raw->conn->out.chunk = (mode & 4) ? 5 : 0;
    }
    p.w.env.deferred = p.w.env.shuffle = (mode & 1) != 0;
    p.w.net.pk_per_turn = 1;
    while (rd_left(&p.in) > 0)
        run_op(&p);
    for (int i = 0; i < 2; i++)
        conn_pause(&p.side[i].raw->conn->conn, false);
    settle(&p, NS_PER_S);
    rw_free(&p.w);
    return 0;
}
