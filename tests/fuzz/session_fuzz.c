/* A whole session fed by a hostile peer. Keys and ephemeral secrets are those of a recorded run, so
 * that recorded bytes pass the handshake and what follows them is reached. First byte: bit 0 our
 * role (1 = initiator), bits 1-2 size of the pieces, bit 3 public-key work is answered later, bit 4
 * time passes quickly. */
#include <stdlib.h>
#include <string.h>

#include "base/env_test.h"
#include "base/loop.h"
#include "transport/session.h"

static const uint8_t server_sk[32] = {
    0xc9, 0x6a, 0xf8, 0x59, 0x94, 0x94, 0x29, 0x42, 0x3b, 0x34, 0x9f, 0xaf, 0xda, 0xf8, 0xf0, 0x06,
    0x25, 0x21, 0x96, 0x8a, 0x48, 0xa2, 0x6e, 0xab, 0xf0, 0x37, 0x0d, 0x09, 0xe8, 0xa9, 0x5c, 0x61};
static const uint8_t client_sk[32] = {
    0xaf, 0x75, 0xfd, 0xd5, 0xc8, 0xc8, 0x12, 0x76, 0x1f, 0x0c, 0xda, 0xc1, 0x6b, 0x0d, 0xf4, 0x0c,
    0x51, 0x3b, 0xfe, 0x77, 0xad, 0x18, 0xdc, 0xd2, 0xb7, 0x4f, 0xc0, 0xa7, 0xfb, 0xe4, 0x46, 0xc2};
static const uint8_t server_ephemeral[32] = {
    0xbd, 0x8a, 0x16, 0xe8, 0x4b, 0xab, 0xe1, 0xea, 0x5f, 0x07, 0x02, 0x96, 0x2e, 0x12, 0xec, 0x60,
    0xeb, 0xbd, 0x7d, 0x80, 0x85, 0xb9, 0xae, 0x3d, 0x52, 0x35, 0x41, 0x25, 0x5a, 0xca, 0xef, 0x05};
static const uint8_t client_ephemeral[32] = {
    0xd7, 0x4d, 0x7c, 0xff, 0xbd, 0x8f, 0xc9, 0x7e, 0x1b, 0x8e, 0x82, 0x67, 0x3c, 0x2e, 0x6f, 0x2e,
    0x7d, 0xb0, 0x10, 0xa6, 0xb2, 0xa9, 0x60, 0x58, 0xdc, 0x0d, 0x36, 0x6a, 0x45, 0x1d, 0x8f, 0xb8};
static const struct pubkey server_pk = {{0x03, 0x2c, 0x79, 0x8a, 0x05, 0x01, 0xba, 0xd0, 0x12,
                                         0xcd, 0x80, 0xec, 0x58, 0x9e, 0x40, 0xed, 0x8f, 0x9b,
                                         0x96, 0x20, 0xd2, 0xfd, 0xcb, 0xcb, 0xf7, 0x4f, 0x73,
                                         0xfa, 0x5f, 0x7d, 0x9e, 0x2d, 0xc5}};
static const struct pubkey client_pk = {{0x02, 0x1b, 0x62, 0xd3, 0x77, 0xc7, 0xd6, 0x38, 0xb0,
                                         0x81, 0xd1, 0xdc, 0x68, 0x8d, 0xad, 0x7e, 0x25, 0x75,
                                         0x8b, 0xba, 0x94, 0xcd, 0x32, 0xae, 0x55, 0xe0, 0x4a,
                                         0x0e, 0x63, 0xbc, 0xc5, 0xa4, 0xfe}};

static void check(bool ok)
{
    if (!ok)
        abort();
}

static void read_object(struct session *s, struct yamux_stream *st)
{
    static uint8_t obj[SESSION_OBJECT_MAX];
    enum session_read what;
    size_t n = 0;
    if (session_read_object(s, st, &what, obj, sizeof obj, &n) != 0)
        return;
    check(n <= sizeof obj - SESSION_SEAL_OVERHEAD);
    if (what == SESSION_READ_OBJECT)
        (void)!session_write_object(s, st, obj, n);
    else
        (void)yamux_write(st, "\0\0", 2);
}

static void react(struct session *s)
{
    struct yamux_event ev;
    struct yamux_stream *own;
    if (session_next(s) == SESSION_EV_UP && session_initiator(s)) {
        for (int i = 0; i < 2; i++)
            (void)!yamux_open(session_mux(s), NULL, session_up_ns(s), &own);
    }
    while (session_mux(s) != NULL && yamux_next(session_mux(s), &ev)) {
        if (ev.stream == NULL)
            continue;
        if (ev.what & YAMUX_RESET) {
            yamux_release(ev.stream, false);
            continue;
        }
        if (ev.what & YAMUX_OPENED)
            (void)yamux_accept(ev.stream);
        read_object(s, ev.stream);
        if (ev.what & YAMUX_EOF)
            yamux_release(ev.stream, true);
    }
}

static void take(struct session *s, uint64_t now_ns)
{
    struct iovec iov[4];
    int cnt;
    while ((cnt = session_output(s, iov, 4, now_ns)) > 0) {
        size_t n = 0;
        for (int i = 0; i < cnt; i++)
            n += iov[i].iov_len;
        session_sent(s, n, now_ns);
    }
}

static void run(struct session *s, struct env_test *env, struct bufpool *pool, const uint8_t *data,
                size_t size)
{
    static const size_t pieces[4] = {1, 13, 700, 65536};
    unsigned how = data[0];
    uint64_t now_ns = NS_PER_S;
    for (size_t at = 1; at < size && session_error(s) == 0;) {
        size_t n = pieces[how >> 1 & 3];
        n = n < size - at ? n : size - at;
        struct buf *b = buf_get(pool, n);
        check(b != NULL);
        memcpy(buf_room(b), data + at, n);
        struct slice in = buf_take(b, n);
        buf_put(b);
        (void)!session_input(s, in, now_ns);
        slice_release(&in);
        at += n;
        (void)env_test_run(env, 1);
        now_ns += how & 16 ? NS_PER_S / 3 : NS_PER_MS;
        if (session_deadline(s) <= now_ns)
            (void)!session_tick(s, now_ns);
        react(s);
        take(s, now_ns);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    bool initiator = (data[0] & 1) != 0;
    struct env_test env;
    struct seckey sk;
    struct bufpool *pool = bufpool_new(NULL);
    check(pool != NULL);
    env_test_init(&env, 1);
    env.deferred = (data[0] & 8) != 0;
    memcpy(sk.b, initiator ? client_sk : server_sk, sizeof sk.b);
    env_test_script(&env, initiator ? client_ephemeral : server_ephemeral, 32);
    struct session_cfg cfg = {
        .env = &env.env,
        .pool = pool,
        .initiator = initiator,
        .self = initiator ? client_pk : server_pk,
        .sk = &sk,
        .keepalive_ms = 30000,
        .mux = {.max_streams = 30},
    };
    if (initiator)
        cfg.remote = server_pk;
    struct session *s = session_new(&cfg, NS_PER_S);
    check(s != NULL);
    run(s, &env, pool, data, size);
    session_free(s);
    check(bufpool_in_use(pool) == 0);
    bufpool_free(pool);
    env_test_close(&env);
    return 0;
}
