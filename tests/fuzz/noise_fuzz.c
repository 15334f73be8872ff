/* The handshakes with hostile input. Keys and ephemerals are those of the vectors, so that recorded
 * messages are valid here.
 *
 * First byte: bit 0 pattern KK, bit 1 initiator, bit 2 curve work deferred, bit 3 both ends play.
 *   one end     the rest is messages to it, each behind a u16be length
 *   both ends   the rest is (message, position, xor) triples applied to what they send: any change
 * must fail the handshake, and none must not */
#include <stdlib.h>
#include <string.h>

#include "base/cursor.h"
#include "base/env_test.h"
#include "base/err.h"
#include "transport/noise.h"

#define MUST(x)                                                                                    \
    do {                                                                                           \
        if (!(x))                                                                                  \
            abort();                                                                               \
    } while (0)

struct side {
    struct noise n;
    struct env_test env;
    int rc;
    bool ready;
};

struct keys {
    struct seckey sk;
    struct pubkey pk;
};

static const uint8_t ephemerals[2][2][32] = {
    /* XK initiator, responder */
    {{0xe9, 0xb6, 0x75, 0xc0, 0xff, 0x44, 0x26, 0x70, 0x72, 0xbd, 0x0e,
      0xa7, 0x7d, 0xd8, 0x81, 0x13, 0x4d, 0x81, 0xc3, 0x81, 0x34, 0x4c,
      0xc0, 0xf6, 0x3f, 0x8e, 0xfb, 0xdd, 0x17, 0x1e, 0x5e, 0xec},
     {0xb5, 0x51, 0x17, 0xdc, 0xe4, 0xa7, 0x4a, 0x33, 0xa0, 0x57, 0x54,
      0x7e, 0x06, 0x89, 0xc7, 0x1b, 0xed, 0xd6, 0x14, 0x0f, 0xa7, 0x32,
      0x06, 0x8f, 0x29, 0xee, 0x3c, 0x3c, 0xf7, 0xa0, 0x61, 0x13}},
    /* KK */
    {{0xb5, 0x86, 0x4f, 0x8f, 0xd6, 0x1a, 0x74, 0x6e, 0xf4, 0x5c, 0xbe,
      0x48, 0xda, 0x08, 0x4f, 0x8c, 0x9f, 0x58, 0x93, 0x1d, 0xa9, 0x16,
      0x6a, 0x40, 0x0f, 0xfe, 0x8f, 0xe6, 0x16, 0xfb, 0xd5, 0x98},
     {0x7d, 0x21, 0xe6, 0xf8, 0xd9, 0x8b, 0x32, 0x00, 0x1a, 0x73, 0xa1,
      0x74, 0x49, 0xa9, 0x94, 0xed, 0xda, 0x04, 0xe0, 0x56, 0xd8, 0x78,
      0x34, 0xf4, 0xaa, 0xeb, 0xf7, 0x62, 0x0a, 0x38, 0x77, 0x9c}},
};

static struct keys client_a, client_b, server;

static void make_keys(struct keys *k, const char *seed)
{
    struct hash h;
    crypto_sha256(&h, seed, strlen(seed));
    MUST(crypto_keypair(&k->sk, &k->pk, h.b) == 0);
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    MUST(crypto_init() == 0);
    make_keys(&client_a, "dmsg-vector client A");
    make_keys(&client_b, "dmsg-vector client B");
    make_keys(&server, "dmsg-vector server");
    return 0;
}

static void on_ready(struct noise *n, int rc)
{
    struct side *s = (struct side *)n;
    MUST(!s->ready);
    s->ready = true;
    s->rc = rc;
}

static void side_open(struct side *s, bool kk, bool initiator, bool deferred)
{
    const struct keys *responder = kk ? &client_b : &server;
    const struct keys *own = initiator ? &client_a : responder;
    const struct keys *peer = initiator ? responder : &client_a;
    struct noise_cfg cfg = {.env = &s->env.env,
                            .pattern = kk ? NOISE_KK : NOISE_XK,
                            .initiator = initiator,
                            .sk = &own->sk,
                            .pk = &own->pk,
                            .remote = initiator || kk ? &peer->pk : NULL,
                            .on_ready = on_ready};

    env_test_init(&s->env, 1);
    s->env.deferred = deferred;
    env_test_script(&s->env, ephemerals[kk][!initiator], 32);
    MUST(noise_init(&s->n, &cfg) == 0);
}

static void side_close(struct side *s)
{
    noise_wipe(&s->n);
    MUST(env_test_queued(&s->env) == 0);
    env_test_close(&s->env);
}

static int settle(struct side *s, int rc)
{
    if (rc == ERR_PENDING) {
        while (!s->ready)
            MUST(env_test_run(&s->env, 1) == 1);
        rc = s->rc;
    }
    MUST(rc == 0 || (s->n.state == NOISE_FAILED && env_test_queued(&s->env) == 0));
    return rc;
}

static int side_write(struct side *s, uint8_t out[NOISE_OUT_MAX], size_t *len)
{
    s->ready = false;
    int rc = noise_write(&s->n, out, NOISE_OUT_MAX, len);
    if (rc == ERR_PENDING && (rc = settle(s, rc)) == 0)
        rc = noise_write(&s->n, out, NOISE_OUT_MAX, len);
    MUST(rc == 0);
    return rc;
}

/* The message in a block of its own, which is gone while work is pending. */
static int side_read(struct side *s, const uint8_t *msg, size_t len)
{
    uint8_t *copy = malloc(len > 0 ? len : 1);
    MUST(copy != NULL);
    if (len > 0)
        memcpy(copy, msg, len);
    s->ready = false;
    int rc = noise_read(&s->n, copy, len);
    free(copy);
    return settle(s, rc);
}

static void one_end(bool kk, bool initiator, bool deferred, struct rd *in)
{
    static struct side s;
    uint8_t out[NOISE_OUT_MAX];
    size_t len;

    side_open(&s, kk, initiator, deferred);
    while (!noise_done(&s.n)) {
        if (noise_wants_write(&s.n)) {
            side_write(&s, out, &len);
            continue;
        }
        if (rd_left(in) < 2)
            break;
        len = rd_be16(in);
        len = len < rd_left(in) ? len : rd_left(in);
        if (side_read(&s, rd_bytes(in, len), len) != 0)
            break;
    }
    if (noise_done(&s.n)) {
        struct cipher tx, rx;
        noise_split(&s.n, &tx, &rx);
        MUST(memcmp(tx.key, rx.key, 32) != 0);
    }
    side_close(&s);
}

/* True when some byte changed. */
static bool tamper(uint8_t *msg, size_t len, uint8_t number, struct rd in)
{
    uint8_t before[NOISE_OUT_MAX];

    memcpy(before, msg, len);
    while (rd_left(&in) >= 3) {
        uint8_t m = rd_u8(&in), at = rd_u8(&in), x = rd_u8(&in);
        if (m % 3 == number)
            msg[at % len] ^= x;
    }
    return memcmp(before, msg, len) != 0;
}

static void both_ends(bool kk, bool deferred, struct rd in)
{
    static struct side s[2];
    uint8_t msg[NOISE_OUT_MAX];
    size_t len;
    bool changed = false;

    side_open(&s[0], kk, true, deferred);
    side_open(&s[1], kk, false, !deferred);
    for (uint8_t m = 0; m < (kk ? 2 : 3) && !changed; m++) {
        side_write(&s[m % 2], msg, &len);
        changed = tamper(msg, len, m, in);
        MUST((side_read(&s[1 - m % 2], msg, len) == 0) == !changed);
    }
    if (!changed) {
        struct cipher c[4];
        MUST(noise_done(&s[0].n) && noise_done(&s[1].n));
        noise_split(&s[0].n, &c[0], &c[1]);
        noise_split(&s[1].n, &c[2], &c[3]);
        MUST(memcmp(&c[0], &c[3], sizeof c[0]) == 0 && memcmp(&c[1], &c[2], sizeof c[1]) == 0);
    }
    side_close(&s[0]);
    side_close(&s[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rd in = rd_init(data, size);
    uint8_t flags = rd_u8(&in);
    bool kk = flags & 1, initiator = flags & 2, deferred = flags & 4;

    if (flags & 8)
        both_ends(kk, deferred, in);
    else
        one_end(kk, initiator, deferred, &in);
    return 0;
}
