#include "transport/noise.h"

#include "base/env_test.h"
#include "base/err.h"
#include "tests/unit/prop.h"
#include "tests/unit/vectors.h"
#include "transport/noise_cache.h"

static json_t *root;

/* One end of a handshake. n is first, so that on_ready finds the rest. */
struct side {
    struct noise n;
    struct env_test env;
    struct seckey sk;
    struct pubkey pk;
    int ready_calls, ready_rc;
    bool in_call; /* on_ready must never come from inside a call */
};

static void on_ready(struct noise *n, int rc)
{
    struct side *s = (struct side *)n;
    assert_false(s->in_call);
    s->ready_calls++;
    s->ready_rc = rc;
}

static int side_init(struct side *s, enum noise_pattern pattern, bool initiator,
                     const struct pubkey *remote, struct noise_cache *cache)
{
    struct noise_cfg cfg = {.env = &s->env.env,
                            .pattern = pattern,
                            .initiator = initiator,
                            .cls = pattern == NOISE_XK ? PK_CLASS_SESSION : PK_CLASS_STREAM,
                            .sk = &s->sk,
                            .pk = &s->pk,
                            .remote = remote,
                            .cache = cache,
                            .on_ready = on_ready};
    return noise_init(&s->n, &cfg);
}

/* Two ends with fresh keys of a seed. */
static void pair_init(struct side s[2], enum noise_pattern pattern, uint64_t seed)
{
    memset(s, 0, 2 * sizeof *s);
    for (int i = 0; i < 2; i++) {
        env_test_init(&s[i].env, 2 * seed + (uint64_t)i);
        env_keypair(&s[i].env.env, &s[i].sk, &s[i].pk);
    }
    assert_int_equal(side_init(&s[0], pattern, true, &s[1].pk, NULL), 0);
    assert_int_equal(side_init(&s[1], pattern, false, pattern == NOISE_KK ? &s[0].pk : NULL, NULL),
                     0);
}

static void pair_close(struct side s[2])
{
    for (int i = 0; i < 2; i++) {
        noise_wipe(&s[i].n);
        env_test_close(&s[i].env);
    }
}

/* noise_write() through to the end, also when it is pending. */
static int do_write(struct side *s, uint8_t *out, size_t *len)
{
    s->ready_calls = 0;
    s->in_call = true;
    int rc = noise_write(&s->n, out, NOISE_OUT_MAX, len);
    s->in_call = false;
    if (rc != ERR_PENDING)
        return rc;
    assert_false(noise_wants_write(&s->n) || noise_wants_read(&s->n));
    while (s->ready_calls == 0) {
        assert_int_equal(noise_write(&s->n, out, NOISE_OUT_MAX, len), ERR_PENDING);
        assert_int_equal(noise_read(&s->n, out, 49), ERR_STATE);
        assert_int_equal(env_test_run(&s->env, 1), 1);
    }
    assert_int_equal(s->ready_calls, 1);
    return s->ready_rc != 0 ? s->ready_rc : noise_write(&s->n, out, NOISE_OUT_MAX, len);
}

static int do_read(struct side *s, const uint8_t *msg, size_t len)
{
    uint8_t *copy = malloc(len > 0 ? len : 1), out[NOISE_OUT_MAX];
    size_t out_len;

    memcpy(copy, msg, len);
    s->ready_calls = 0;
    s->in_call = true;
    int rc = noise_read(&s->n, copy, len);
    s->in_call = false;
    explicit_bzero(copy, len); /* whatever is needed later has to be copied */
    free(copy);
    if (rc != ERR_PENDING)
        return rc;
    assert_false(noise_wants_write(&s->n) || noise_wants_read(&s->n));
    while (s->ready_calls == 0) {
        assert_int_equal(noise_read(&s->n, msg, len), ERR_STATE);
        assert_int_equal(noise_write(&s->n, out, sizeof out, &out_len), ERR_STATE);
        assert_int_equal(env_test_run(&s->env, 1), 1);
    }
    assert_int_equal(s->ready_calls, 1);
    return s->ready_rc;
}

static int messages(enum noise_pattern pattern)
{
    return pattern == NOISE_XK ? 3 : 2;
}

/* Message m from one end to the other. */
static void pass(struct side s[2], int m)
{
    uint8_t msg[NOISE_OUT_MAX];
    size_t len = 0;

    assert_true(noise_wants_write(&s[m % 2].n) && noise_wants_read(&s[1 - m % 2].n));
    assert_int_equal(do_write(&s[m % 2], msg, &len), 0);
    assert_int_equal(len, m == 2 ? 65 : 49);
    assert_int_equal(do_read(&s[1 - m % 2], msg, len), 0);
}

/* Both ends agree on everything and can talk. */
static void check_done(struct side s[2])
{
    static const uint8_t zero[32];
    struct cipher tx[2], rx[2];
    uint8_t sealed[3 + CIPHER_OVERHEAD], out[3];

    for (int i = 0; i < 2; i++) {
        struct noise *n = &s[i].n;
        assert_true(noise_done(n));
        assert_false(noise_wants_write(n) || noise_wants_read(n));
        assert_memory_equal(&n->s, zero, sizeof n->s); /* secrets go as early as they can */
        assert_memory_equal(&n->e, zero, sizeof n->e);
        assert_memory_equal(n->ss, zero, sizeof n->ss);
        noise_split(n, &tx[i], &rx[i]);
        assert_memory_equal(n->ck, zero, sizeof n->ck);
        assert_memory_equal(n->k, zero, sizeof n->k);
        assert_false(noise_done(&s[i].n));
        assert_true(pubkey_equal(noise_remote(&s[i].n), &s[1 - i].pk));
    }
    assert_memory_equal(noise_hash(&s[0].n), noise_hash(&s[1].n), 32);
    for (int i = 0; i < 2; i++) {
        assert_memory_equal(tx[i].key, rx[1 - i].key, 32);
        assert_int_equal(cipher_seal(&tx[i], sealed, (const uint8_t *)"abc", 3), 0);
        assert_int_equal(cipher_open(&rx[1 - i], out, sealed, sizeof sealed), 0);
        assert_memory_equal(out, "abc", 3);
    }
    assert_memory_not_equal(tx[0].key, tx[1].key, 32);
}

static void check_failed(struct side *s)
{
    uint8_t out[NOISE_OUT_MAX];
    struct noise zero;
    size_t len;

    assert_int_equal(env_test_queued(&s->env), 0);
    memset(&zero, 0, sizeof zero);
    zero.state = NOISE_FAILED;
    assert_memory_equal(&s->n, &zero, sizeof zero); /* wiped */
    assert_int_equal(noise_write(&s->n, out, sizeof out, &len), ERR_STATE);
    assert_int_equal(noise_read(&s->n, out, 49), ERR_STATE);
    assert_false(noise_done(&s->n) || noise_wants_read(&s->n) || noise_wants_write(&s->n));
}

/* ---- vectors ---- */

static void check_state(const struct noise *n, const json_t *want)
{
    uint8_t b[32];

    vec_hex(want, "ck", b, sizeof b);
    assert_memory_equal(n->ck, b, sizeof b);
    vec_hex(want, "h", b, sizeof b);
    assert_memory_equal(n->h, b, sizeof b);
    if (json_object_get(want, "k") == NULL)
        return;
    vec_hex(want, "k", b, sizeof b);
    assert_memory_equal(n->k, b, sizeof b);
}

static void side_load(struct side *s, const json_t *v, const char *who)
{
    char name[64];
    struct seckey e;

    memset(s, 0, sizeof *s);
    env_test_init(&s->env, 0);
    snprintf(name, sizeof name, "%s_static_sk", who);
    vec_hex(v, name, &s->sk, sizeof s->sk);
    assert_int_equal(seckey_pubkey(&s->pk, &s->sk), 0);
    snprintf(name, sizeof name, "%s_ephemeral_sk", who);
    vec_hex(v, name, &e, sizeof e);
    env_test_script(&s->env, &e, sizeof e);
}

static void pair_load(struct side s[2], const json_t *v, enum noise_pattern pattern)
{
    side_load(&s[0], v, "initiator");
    side_load(&s[1], v, "responder");
    assert_int_equal(side_init(&s[0], pattern, true, &s[1].pk, NULL), 0);
    assert_int_equal(side_init(&s[1], pattern, false, pattern == NOISE_KK ? &s[0].pk : NULL, NULL),
                     0);
}

static void check_vector(const char *name, enum noise_pattern pattern, bool deferred)
{
    const json_t *v = vec_get(root, name), *m;
    struct side s[2];
    struct cipher tx, rx;
    uint8_t want[NOISE_OUT_MAX], got[NOISE_OUT_MAX], key[32];
    size_t i, len;

    pair_load(s, v, pattern);
    s[0].env.deferred = s[1].env.deferred = deferred;
    check_state(&s[0].n, vec_get(v, "initial"));
    check_state(&s[1].n, vec_get(v, "initial"));
    json_array_foreach(vec_get(v, "messages"), i, m)
    {
        struct side *w = &s[i % 2], *r = &s[1 - i % 2];
        size_t want_len = (size_t)vec_int(m, "length");

        assert_string_equal(vec_str(m, "from"), i % 2 == 0 ? "initiator" : "responder");
        vec_hex(m, "message", want, want_len);
        assert_int_equal(do_write(w, got, &len), 0);
        assert_int_equal(len, want_len);
        assert_memory_equal(got, want, len);
        check_state(&w->n, vec_get(m, "state_after"));
        assert_int_equal(do_read(r, want, want_len), 0);
        check_state(&r->n, vec_get(m, "state_after"));
    }
    assert_int_equal(i, messages(pattern));
    for (i = 0; i < 2; i++) {
        vec_hex(v, "handshake_hash", key, sizeof key);
        assert_memory_equal(noise_hash(&s[i].n), key, sizeof key);
        assert_true(pubkey_equal(noise_remote(&s[i].n), &s[1 - i].pk));
        noise_split(&s[i].n, &tx, &rx);
        vec_hex(v, "initiator_encrypt_key", key, sizeof key);
        assert_memory_equal(i == 0 ? tx.key : rx.key, key, sizeof key);
        vec_hex(v, "initiator_decrypt_key", key, sizeof key);
        assert_memory_equal(i == 0 ? rx.key : tx.key, key, sizeof key);
        assert_true(tx.counter == 0 && rx.counter == 0);
    }
    pair_close(s);
}

static void test_vectors(void **state)
{
    (void)state;
    check_vector("noise_xk", NOISE_XK, false);
    check_vector("noise_kk", NOISE_KK, false);
}

static void test_vectors_deferred(void **state)
{
    (void)state;
    check_vector("noise_xk", NOISE_XK, true);
    check_vector("noise_kk", NOISE_KK, true);
}

/* The offer of a 2026 initiator, §2.6: we are the responder that does not know it. */
static void check_offer_refused(const char *name, enum noise_pattern pattern, bool deferred)
{
    const json_t *v = vec_get(root, name), *m;
    struct side s[2];
    struct cipher tx, rx;
    uint8_t got[NOISE_OUT_MAX], key[32];
    size_t i, len, want_len;

    pair_load(s, v, pattern);
    s[1].env.deferred = deferred;
    json_array_foreach(vec_get(v, "messages"), i, m)
    {
        uint8_t *want = vec_hex_dup(m, "message", &want_len);
        if (i == 0)
            assert_int_equal(want_len, 1233);
        if (i % 2 == 0) {
            assert_int_equal(do_read(&s[1], want, want_len), 0);
        } else {
            assert_int_equal(do_write(&s[1], got, &len), 0);
            assert_int_equal(len, want_len);
            assert_memory_equal(got, want, len);
        }
        free(want);
    }
    assert_int_equal(i, messages(pattern));
    assert_true(noise_done(&s[1].n));
    assert_true(pubkey_equal(noise_remote(&s[1].n), &s[0].pk));
    vec_hex(v, "handshake_hash", key, sizeof key);
    assert_memory_equal(noise_hash(&s[1].n), key, sizeof key);
    noise_split(&s[1].n, &tx, &rx);
    vec_hex(v, "last_writer_encrypt_key", key, sizeof key);
    assert_memory_equal(pattern == NOISE_KK ? tx.key : rx.key, key, sizeof key);
    vec_hex(v, "last_writer_decrypt_key", key, sizeof key);
    assert_memory_equal(pattern == NOISE_KK ? rx.key : tx.key, key, sizeof key);
    pair_close(s);
}

static void test_hybrid_offer_refused(void **state)
{
    (void)state;
    for (int deferred = 0; deferred < 2; deferred++) {
        check_offer_refused("noise_2026_xk_hybrid_offer_refused", NOISE_XK, deferred);
        check_offer_refused("noise_2026_kk_hybrid_offer_refused", NOISE_KK, deferred);
    }
}

/* ---- the recorded run of two clients and a server ---- */

/* First random output with this role. */
static void recorded_secret(const char *role, struct seckey *out)
{
    const json_t *v;
    size_t i;

    json_array_foreach(vec_get(vec_get(root, "transcript"), "random_outputs"), i, v)
    {
        if (strcmp(vec_str(v, "role"), role) == 0) {
            vec_hex(v, "out", out, sizeof *out);
            return;
        }
    }
    fail_msg("no random output \"%s\"", role);
}

static void side_recorded(struct side *s, const char *sk, const char *ephemeral)
{
    struct seckey e;

    memset(s, 0, sizeof *s);
    env_test_init(&s->env, 0);
    vec_hex(vec_get(root, "transcript"), sk, &s->sk, sizeof s->sk);
    assert_int_equal(seckey_pubkey(&s->pk, &s->sk), 0);
    recorded_secret(ephemeral, &e);
    env_test_script(&s->env, &e, sizeof e);
}

/* Both ends again, and each has to write what was recorded. */
static void replay(struct side s[2], enum noise_pattern pattern, const json_t *const msgs[],
                   const char *const names[], struct cipher tx[2], struct cipher rx[2])
{
    assert_int_equal(side_init(&s[0], pattern, true, &s[1].pk, NULL), 0);
    assert_int_equal(side_init(&s[1], pattern, false, pattern == NOISE_KK ? &s[0].pk : NULL, NULL),
                     0);
    for (int m = 0; m < messages(pattern); m++) {
        uint8_t want[NOISE_OUT_MAX], got[NOISE_OUT_MAX];
        size_t len;

        assert_int_equal(do_write(&s[m % 2], got, &len), 0);
        vec_hex(msgs[m], names[m], want, len);
        assert_memory_equal(got, want, len);
        assert_int_equal(do_read(&s[1 - m % 2], want, len), 0);
    }
    for (int i = 0; i < 2; i++) {
        noise_split(&s[i].n, &tx[i], &rx[i]);
        assert_true(pubkey_equal(noise_remote(&s[i].n), &s[1 - i].pk));
    }
    assert_memory_equal(&tx[0], &rx[1], sizeof tx[0]);
    assert_memory_equal(&rx[0], &tx[1], sizeof tx[0]);
    pair_close(s);
}

static void test_recorded_sessions(void **state)
{
    static const char *const names[] = {"xk_msg1", "xk_msg2", "xk_msg3"};
    const json_t *conn, *stream;
    size_t i, k, len, n;

    (void)state;
    json_array_foreach(vec_get(vec_get(root, "transcript"), "decoded_by_independent_reader"), i,
                       conn)
    {
        bool is_a = strcmp(vec_str(conn, "conn"), "A") == 0;
        const json_t *const msgs[] = {conn, conn, conn};
        struct side s[2];
        struct cipher tx[2], rx[2];
        struct nonce_window windows[2] = {0};
        uint8_t key[32];

        side_recorded(&s[0], is_a ? "client_a_sk" : "client_b_sk",
                      is_a ? "XK ephemeral secret of client A" : "XK ephemeral secret of client B");
        side_recorded(&s[1], "server_sk",
                      is_a ? "XK ephemeral secret of the server for client A"
                           : "XK ephemeral secret of the server for client B");
        replay(s, NOISE_XK, msgs, names, tx, rx);
        vec_hex(conn, "client_to_server_key", key, sizeof key);
        assert_memory_equal(tx[0].key, key, sizeof key);
        vec_hex(conn, "server_to_client_key", key, sizeof key);
        assert_memory_equal(rx[0].key, key, sizeof key);
        /* the objects that travelled on it */
        json_array_foreach(vec_get(conn, "streams"), k, stream)
        {
            uint8_t *sealed = vec_hex_dup(stream, "object_sealed", &len), *out = malloc(len);
            uint8_t *want = vec_hex_dup(stream, "signed_object", &n);
            bool to_client = strcmp(vec_str(stream, "from"), "server") == 0;

            assert_int_equal(
                cipher_open_window(&rx[!to_client], &windows[to_client], out, sealed, len), 0);
            assert_int_equal(len, n + CIPHER_OVERHEAD);
            assert_memory_equal(out, want, n);
            free(sealed);
            free(out);
            free(want);
        }
        assert_true(k > 0);
    }
    assert_int_equal(i, 2);
}

static void test_recorded_stream(void **state)
{
    static const char *const names[] = {"NoiseMsg", "NoiseMsg"};
    const json_t *transcript = vec_get(root, "transcript"), *stream;
    const json_t *conn = json_array_get(vec_get(transcript, "decoded_by_independent_reader"), 0);
    const json_t *keys = vec_get(transcript, "kk_stream_1"), *msgs[2];
    struct side s[2];
    struct cipher tx[2], rx[2];
    uint8_t key[32];
    size_t len, n;

    (void)state;
    assert_string_equal(vec_str(conn, "conn"), "A");
    for (size_t i = 0; i < 2; i++)
        msgs[i] = vec_get(json_array_get(vec_get(conn, "streams"), i), "object");
    side_recorded(&s[0], "client_a_sk", "KK ephemeral secret, initiator A");
    side_recorded(&s[1], "client_b_sk", "KK ephemeral secret, responder B");
    replay(s, NOISE_KK, msgs, names, tx, rx);
    vec_hex(keys, "initiator_encrypt_key", key, sizeof key);
    assert_memory_equal(tx[0].key, key, sizeof key);
    vec_hex(keys, "initiator_decrypt_key", key, sizeof key);
    assert_memory_equal(rx[0].key, key, sizeof key);
    for (size_t i = 0; i < 2; i++) {
        stream = json_array_get(vec_get(conn, "streams"), i);
        uint8_t *frame = vec_hex_dup(stream, "after_object_hex", &len), *out = malloc(len);
        uint8_t *want = vec_hex_dup(json_array_get(vec_get(keys, i == 0 ? "a_to_b" : "b_to_a"), 0),
                                    "plaintext", &n);

        assert_int_equal(cipher_open(&rx[1 - i], out, frame + 2, len - 2), 0);
        assert_int_equal(len, 2 + n + CIPHER_OVERHEAD);
        assert_memory_equal(out, want, n);
        free(frame);
        free(out);
        free(want);
    }
}

/* ---- payloads ---- */

/* Replace the empty payload of a message that was just written. All DH of a message come before its
 * payload, so the key is the writer's k with nonce 0, and h before the payload follows from the
 * bytes in front of it. */
static size_t add_payload(struct noise *w, const uint8_t h_before[32], uint8_t *msg, size_t len,
                          const uint8_t *payload, size_t n)
{
    struct hash h;
    size_t front = len - AEAD_TAG_BYTES;

    crypto_sha256_2(&h, h_before, 32, msg, front);
    crypto_aead_seal(msg + front, w->k, 0, h.b, sizeof h.b, payload, n);
    crypto_sha256_2(&h, h.b, sizeof h.b, msg + front, n + AEAD_TAG_BYTES);
    memcpy(w->h, h.b, sizeof w->h);
    return len + n;
}

static void check_payload(enum noise_pattern pattern, size_t size, bool deferred)
{
    struct side s[2];
    uint8_t msg[NOISE_MESSAGE_MAX], payload[NOISE_MESSAGE_MAX], h[32];
    size_t len;

    pair_init(s, pattern, size);
    s[0].env.deferred = s[1].env.deferred = deferred;
    memset(payload, 0xa5, sizeof payload);
    for (int m = 0; m < messages(pattern); m++) {
        struct side *w = &s[m % 2];
        memcpy(h, w->n.h, sizeof h);
        assert_int_equal(do_write(w, msg, &len), 0);
        size_t n = size < sizeof msg - len ? size : sizeof msg - len;
        len = add_payload(&w->n, h, msg, len, payload, n);
        assert_int_equal(do_read(&s[1 - m % 2], msg, len), 0);
    }
    check_done(s);
    pair_close(s);
}

static void test_payloads_are_ignored(void **state)
{
    static const size_t sizes[] = {0, 1, 16, 17, 1088, 1184, NOISE_MESSAGE_MAX};

    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        for (int k = 0; k < 4; k++)
            check_payload(k % 2 == 0 ? NOISE_XK : NOISE_KK, sizes[i], k / 2);
}

/* ---- bad input ---- */

/* Calls fn with both ends before message m was read, for all messages of both patterns. */
static void each_message(void (*fn)(struct side s[2], int m, const uint8_t *msg, size_t len))
{
    for (int p = 0; p < 2; p++) {
        enum noise_pattern pattern = p == 0 ? NOISE_XK : NOISE_KK;
        for (int m = 0; m < messages(pattern); m++) {
            struct side s[2];
            uint8_t msg[NOISE_OUT_MAX];
            size_t len;

            pair_init(s, pattern, 77);
            for (int before = 0; before < m; before++)
                pass(s, before);
            assert_int_equal(do_write(&s[m % 2], msg, &len), 0);
            fn(s, m, msg, len);
            pair_close(s);
        }
    }
}

/* Read into a copy of the reader, which stays as it is. Nothing is pending in it, so it can be
 * copied. */
static void must_fail(struct side *reader, const uint8_t *msg, size_t len, int want, int or_want)
{
    struct noise before = reader->n;

    int rc = do_read(reader, msg, len);
    if (rc != want && rc != or_want)
        fail_msg("%d, not %d or %d", rc, want, or_want);
    check_failed(reader);
    reader->n = before;
}

static void flip_all(struct side s[2], int m, const uint8_t *msg, size_t len)
{
    struct side *r = &s[1 - m % 2];
    uint8_t bad[NOISE_OUT_MAX];

    for (size_t bit = 0; bit < 8 * len; bit++) {
        memcpy(bad, msg, len);
        bad[bit / 8] ^= (uint8_t)(1u << bit % 8);
        must_fail(r, bad, len, ERR_TAG, bit < 8 * PUBKEY_BYTES && m < 2 ? ERR_KEY : ERR_TAG);
    }
    assert_int_equal(do_read(r, msg, len), 0); /* the reader was fine */
}

static void test_bit_flips(void **state)
{
    (void)state;
    each_message(flip_all);
}

static void wrong_lengths(struct side s[2], int m, const uint8_t *msg, size_t len)
{
    struct side *r = &s[1 - m % 2];
    uint8_t longer[NOISE_MESSAGE_MAX + 1] = {0};

    for (size_t n = 0; n < len; n++)
        must_fail(r, msg, n, ERR_SHORT, ERR_SHORT);
    memcpy(longer, msg, len);
    must_fail(r, longer, len + 1, ERR_TAG, ERR_TAG);
    must_fail(r, longer, NOISE_MESSAGE_MAX, ERR_TAG, ERR_TAG);
    must_fail(r, longer, NOISE_MESSAGE_MAX + 1, ERR_TOO_LONG, ERR_TOO_LONG);
    /* deferred too: the copy of a refused message is not leaked */
    r->env.deferred = true;
    must_fail(r, longer, 1000, ERR_TAG, ERR_TAG);
    assert_int_equal(do_read(r, msg, len), 0);
}

static void test_wrong_lengths(void **state)
{
    (void)state;
    each_message(wrong_lengths);
}

static void bad_points(struct side s[2], int m, const uint8_t *msg, size_t len)
{
    static const char *points[] = {
        "000000000000000000000000000000000000000000000000000000000000000000",
        "0479be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798",
        "020000000000000000000000000000000000000000000000000000000000000005",
        "02ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "02fffffffffffffffffffffffffffffffffffffffffffffffffffffffefffffc30",
    };
    uint8_t bad[NOISE_OUT_MAX];

    if (m == 2)
        return; /* carries no ephemeral key */
    for (size_t i = 0; i < sizeof points / sizeof points[0]; i++) {
        size_t n;
        uint8_t *point = hex_dup(points[i], &n);
        memcpy(bad, msg, len);
        memcpy(bad, point, n);
        must_fail(&s[1 - m % 2], bad, len, ERR_KEY, ERR_KEY);
        free(point);
    }
}

static void test_bad_points(void **state)
{
    (void)state;
    each_message(bad_points);
}

/* An initiator that names a key which is none, correctly encrypted. */
static void test_bad_static_in_xk(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct side s[2];
        uint8_t msg[NOISE_OUT_MAX];
        size_t len;

        pair_init(s, NOISE_XK, 5);
        memset(&s[0].n.s_pub, i == 0 ? 0 : 0xff, sizeof s[0].n.s_pub);
        pass(s, 0);
        pass(s, 1);
        assert_int_equal(do_write(&s[0], msg, &len), 0);
        assert_int_equal(do_read(&s[1], msg, len), ERR_KEY);
        check_failed(&s[1]);
        pair_close(s);
    }
}

static void test_wrong_static_keys(void **state)
{
    struct side s[2];
    uint8_t msg[NOISE_OUT_MAX];
    size_t len;

    (void)state;
    for (int p = 0; p < 2; p++) {
        enum noise_pattern pattern = p == 0 ? NOISE_XK : NOISE_KK;
        struct pubkey other;
        struct seckey unused;

        /* The initiator looks for somebody else. */
        pair_init(s, pattern, 6);
        env_keypair(&s[0].env.env, &unused, &other);
        assert_int_equal(side_init(&s[0], pattern, true, &other, NULL), 0);
        assert_int_equal(do_write(&s[0], msg, &len), 0);
        assert_int_equal(do_read(&s[1], msg, len), ERR_TAG);
        check_failed(&s[1]);
        pair_close(s);

        /* The initiator has not the secret of the key it names. */
        pair_init(s, pattern, 7);
        s[0].n.s = unused;
        int last = messages(pattern) == 3 ? 2 : 0;
        for (int m = 0; m < last; m++)
            pass(s, m);
        assert_int_equal(do_write(&s[0], msg, &len), 0);
        assert_int_equal(do_read(&s[1], msg, len), ERR_TAG);
        check_failed(&s[1]);
        pair_close(s);

        /* A remote key that is no point. */
        pair_init(s, pattern, 8);
        other.b[0] = 7;
        assert_int_equal(side_init(&s[0], pattern, true, &other, NULL), 0);
        assert_int_equal(do_write(&s[0], msg, &len), ERR_KEY);
        check_failed(&s[0]);
        pair_close(s);
    }
}

static void test_remote_is_needed(void **state)
{
    struct side s[2];
    struct pubkey null = {{0}};

    (void)state;
    pair_init(s, NOISE_KK, 9);
    for (int initiator = 0; initiator < 2; initiator++) {
        assert_int_equal(side_init(&s[0], NOISE_KK, initiator, NULL, NULL), ERR_KEY);
        assert_int_equal(side_init(&s[0], NOISE_KK, initiator, &null, NULL), ERR_KEY);
    }
    assert_int_equal(side_init(&s[0], NOISE_XK, true, &null, NULL), ERR_KEY);
    check_failed(&s[0]);
    pair_close(s);
}

static void test_turns(void **state)
{
    struct side s[2];
    uint8_t msg[NOISE_OUT_MAX] = {0};
    size_t len;

    (void)state;
    pair_init(s, NOISE_XK, 10);
    assert_int_equal(noise_read(&s[0].n, msg, 49), ERR_STATE);
    assert_int_equal(noise_write(&s[1].n, msg, sizeof msg, &len), ERR_STATE);
    pass(s, 0);
    assert_int_equal(noise_write(&s[0].n, msg, sizeof msg, &len), ERR_STATE);
    assert_int_equal(noise_read(&s[1].n, msg, 49), ERR_STATE);
    pass(s, 1);
    pass(s, 2);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(noise_write(&s[i].n, msg, sizeof msg, &len), ERR_STATE);
        assert_int_equal(noise_read(&s[i].n, msg, 49), ERR_STATE);
    }
    check_done(s); /* nothing of it did any harm */
    pair_close(s);
}

/* ---- pending work ---- */

/* Curve operations and requests that a handshake costs each side. */
static void test_cost(void **state)
{
    struct side s[2];

    (void)state;
    for (int p = 0; p < 2; p++) {
        pair_init(s, p == 0 ? NOISE_XK : NOISE_KK, 11);
        for (int m = 0; m < messages(p == 0 ? NOISE_XK : NOISE_KK); m++)
            pass(s, m);
        for (int i = 0; i < 2; i++) {
            assert_int_equal(s[i].env.ecdh, p == 0 ? 3 : 4);
            assert_int_equal(s[i].env.keygen, 1);
            assert_int_equal(s[i].env.ops[PK_EPHEMERAL], 1);
        }
        /* joined with the key: es of the initiator, ee (XK) or ee and se (KK) of the responder */
        assert_int_equal(s[0].env.ops[PK_ECDH], p == 0 ? 2 : 3);
        assert_int_equal(s[1].env.ops[PK_ECDH], 2);
        check_done(s);
        pair_close(s);
    }
}

/* Run a handshake and refuse the k-th request: whoever asked fails, wiped. True when there was one.
 */
static bool refuse_at(enum noise_pattern pattern, unsigned k)
{
    struct side s[2];
    uint8_t msg[NOISE_OUT_MAX];
    size_t len;
    unsigned asked = 0;
    bool refused = false;

    pair_init(s, pattern, 12);
    for (int m = 0; m < messages(pattern) && !refused; m++) {
        for (int reading = 0; reading < 2 && !refused; reading++) {
            struct side *x = &s[(m + reading) % 2];
            x->env.deferred = true;
            x->ready_calls = 0;
            x->env.pk_cap = asked == k ? 0 : 1;
            int rc =
                reading ? noise_read(&x->n, msg, len) : noise_write(&x->n, msg, sizeof msg, &len);
            while (rc == ERR_PENDING && x->ready_calls == 0) {
                asked++;
                x->env.pk_cap = asked == k ? 0 : 1;
                assert_int_equal(env_test_run(&x->env, 1), 1);
            }
            rc = rc == ERR_PENDING ? x->ready_rc : rc;
            if (rc != 0) {
                assert_int_equal(rc, ERR_BUSY);
                check_failed(x);
                refused = true;
            } else if (!reading && x->n.state == NOISE_BUILT) {
                assert_int_equal(noise_write(&x->n, msg, sizeof msg, &len), 0);
            }
        }
    }
    pair_close(s);
    return refused;
}

static void test_busy(void **state)
{
    unsigned k;

    (void)state;
    for (k = 0; refuse_at(NOISE_XK, k); k++)
        ;
    assert_int_equal(k, 6); /* every request of both sides was refused once */
    for (k = 0; refuse_at(NOISE_KK, k); k++)
        ;
    assert_int_equal(k, 7);
}

/* Wipe while the k-th request is pending; nothing is called afterwards. */
static bool cancel_at(enum noise_pattern pattern, unsigned k)
{
    struct side s[2];
    uint8_t msg[NOISE_OUT_MAX];
    size_t len;
    bool cancelled = false;

    pair_init(s, pattern, 13);
    s[0].env.deferred = s[1].env.deferred = true;
    for (int m = 0; m < messages(pattern) && !cancelled; m++) {
        for (int reading = 0; reading < 2 && !cancelled; reading++) {
            struct side *x = &s[(m + reading) % 2];
            x->ready_calls = 0;
            int rc =
                reading ? noise_read(&x->n, msg, len) : noise_write(&x->n, msg, sizeof msg, &len);
            while (rc == ERR_PENDING && x->ready_calls == 0) {
                if (k-- == 0) {
                    noise_wipe(&x->n);
                    check_failed(x);
                    noise_wipe(&x->n);
                    assert_int_equal(env_test_run(&x->env, 10), 0);
                    assert_int_equal(x->ready_calls, 0);
                    cancelled = true;
                    break;
                }
                assert_int_equal(env_test_run(&x->env, 1), 1);
            }
            if (!reading && !cancelled)
                assert_int_equal(noise_write(&x->n, msg, sizeof msg, &len), 0);
        }
    }
    pair_close(s);
    return cancelled;
}

static void test_cancel(void **state)
{
    unsigned k;

    (void)state;
    for (k = 0; cancel_at(NOISE_XK, k); k++)
        ;
    assert_int_equal(k, 6);
    for (k = 0; cancel_at(NOISE_KK, k); k++)
        ;
    assert_int_equal(k, 7);
}

/* The owner frees everything inside on_ready. */
static void free_it(struct noise *n, int rc)
{
    assert_int_equal(rc, ERR_TAG);
    noise_wipe(n);
    free(n);
}

static void test_freed_in_callback(void **state)
{
    struct side s[2];
    struct noise *n = calloc(1, sizeof *n);
    uint8_t msg[1000];
    size_t len;

    (void)state;
    pair_init(s, NOISE_XK, 14);
    assert_int_equal(do_write(&s[0], msg, &len), 0);
    memset(msg + len, 0, sizeof msg - len);
    *n = s[1].n;
    n->on_ready = free_it;
    s[1].env.deferred = true;
    assert_int_equal(noise_read(n, msg, sizeof msg), ERR_PENDING);
    assert_int_equal(env_test_run(&s[1].env, 1), 1);
    pair_close(s);
}

static void test_wipe_of_zero(void **state)
{
    struct noise n;

    (void)state;
    memset(&n, 0, sizeof n);
    noise_wipe(&n);
    noise_wipe(&n);
    assert_int_equal(n.state, NOISE_FAILED);
}

/* ---- cache of static-static secrets ---- */

static void test_cache(void **state)
{
    struct side s[2];
    struct noise_cache *caches[2];
    struct noise_cache_stats st;
    uint8_t msg[NOISE_OUT_MAX];
    size_t len;

    (void)state;
    pair_init(s, NOISE_KK, 15);
    for (int i = 0; i < 2; i++)
        caches[i] = noise_cache_new(4, s[i].env.env.hash_key);

    /* A forged message is not remembered. */
    assert_int_equal(side_init(&s[1], NOISE_KK, false, &s[0].pk, caches[1]), 0);
    assert_int_equal(do_write(&s[0], msg, &len), 0);
    msg[len - 1] ^= 1;
    assert_int_equal(do_read(&s[1], msg, len), ERR_TAG);
    noise_cache_stats(caches[1], &st);
    assert_int_equal(st.used, 0);

    /* The first time it is computed, then known; in the last two rounds by one end only, so that
     * what is remembered has to be right. */
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < 2; i++) {
            struct noise_cache *cache = round >= 3 && i == round - 3 ? NULL : caches[i];
            assert_int_equal(side_init(&s[i], NOISE_KK, i == 0, &s[1 - i].pk, cache), 0);
            s[i].env.ecdh = 0;
            s[i].env.deferred = round == 2;
        }
        pass(s, 0);
        pass(s, 1);
        for (int i = 0; i < 2; i++) {
            bool known = round > 0 && !(round >= 3 && i == round - 3);
            assert_int_equal(s[i].env.ecdh, known ? 3 : 4);
            noise_cache_stats(caches[i], &st);
            assert_int_equal(st.used, 1);
        }
        check_done(s);
    }
    noise_cache_stats(caches[0], &st);
    assert_int_equal(st.hits, 3);
    pair_close(s);
    noise_cache_free(caches[0]);
    noise_cache_free(caches[1]);
}

/* Random keys, patterns, pending work and payloads: always the same end. */
static void test_random_handshakes(void **state)
{
    struct prop r = prop_init("noise handshakes");

    (void)state;
    for (int i = 0; i < 40; i++) {
        enum noise_pattern pattern = prop_chance(&r, 50) ? NOISE_XK : NOISE_KK;
        struct side s[2];

        pair_init(s, pattern, prop_u64(&r));
        for (int m = 0; m < messages(pattern); m++) {
            s[0].env.deferred = prop_chance(&r, 50);
            s[1].env.deferred = prop_chance(&r, 50);
            pass(s, m);
        }
        check_done(s);
        pair_close(s);
    }
}

static int setup(void **state)
{
    (void)state;
    root = vectors_load("dmsg");
    return crypto_init();
}

static int teardown(void **state)
{
    (void)state;
    json_decref(root);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_vectors_deferred),
        cmocka_unit_test(test_hybrid_offer_refused),
        cmocka_unit_test(test_recorded_sessions),
        cmocka_unit_test(test_recorded_stream),
        cmocka_unit_test(test_payloads_are_ignored),
        cmocka_unit_test(test_bit_flips),
        cmocka_unit_test(test_wrong_lengths),
        cmocka_unit_test(test_bad_points),
        cmocka_unit_test(test_bad_static_in_xk),
        cmocka_unit_test(test_wrong_static_keys),
        cmocka_unit_test(test_remote_is_needed),
        cmocka_unit_test(test_turns),
        cmocka_unit_test(test_cost),
        cmocka_unit_test(test_busy),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_freed_in_callback),
        cmocka_unit_test(test_wipe_of_zero),
        cmocka_unit_test(test_cache),
        cmocka_unit_test(test_random_handshakes),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
