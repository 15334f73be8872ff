#include "transport/record.h"

#include "base/cursor.h"
#include "base/err.h"
#include "tests/unit/prop.h"
#include "tests/unit/vectors.h"

static json_t *root;

/* A writer and a reader with one key, and their queues. */
struct pipe {
    struct buf_budget budget;
    struct bufpool *pool;
    struct cipher tx;
    struct record_reader rx;
    struct bufq wire, in, plain;
};

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

static void pipe_open(struct pipe *p)
{
    memset(p, 0, sizeof *p);
    p->pool = bufpool_new(&p->budget);
    assert_non_null(p->pool);
    vec_hex(vec_get(root, "noise_kk"), "initiator_encrypt_key", p->tx.key, 32);
    p->rx.rx = p->tx;
    bufq_init(&p->wire, p->pool);
    bufq_init(&p->in, p->pool);
    bufq_init(&p->plain, p->pool);
}

static void pipe_close(struct pipe *p)
{
    bufq_clear(&p->wire);
    bufq_clear(&p->in);
    bufq_clear(&p->plain);
    assert_int_equal(bufpool_in_use(p->pool), 0);
    bufpool_free(p->pool);
}

static void put(struct pipe *p, const void *bytes, size_t n)
{
    size_t taken;

    assert_int_equal(record_write(&p->tx, &p->wire, bytes, n, &taken), 0);
    assert_int_equal(taken, n);
}

/* Bytes of the wire as one block of exactly their size. */
static uint8_t *wire_dup(struct pipe *p, size_t *n)
{
    *n = bufq_len(&p->wire);
    uint8_t *out = malloc(*n > 0 ? *n : 1);
    assert_int_equal(bufq_peek(&p->wire, 0, out, *n), *n);
    return out;
}

static void feed(struct pipe *p, const void *bytes, size_t n)
{
    assert_int_equal(bufq_append_copy(&p->in, bytes, n), 0);
}

static void check_plain(struct pipe *p, const void *want, size_t n)
{
    uint8_t *got = malloc(n + 1);

    assert_int_equal(bufq_read(&p->plain, got, n + 1), n);
    assert_memory_equal(got, want, n);
    free(got);
}

/* One write of 9000 bytes, byte i = 7 i mod 256. */
static void test_framing_vector(void **state)
{
    const json_t *v = vec_get(root, "noise_stream_framing"), *prefix;
    struct pipe p;
    uint8_t plain[9000], first[64];
    struct hash want, got;
    size_t i, n, at = 0;

    (void)state;
    assert_int_equal(vec_int(v, "write_len"), sizeof plain);
    for (i = 0; i < sizeof plain; i++)
        plain[i] = (uint8_t)(7 * i);
    pipe_open(&p);
    put(&p, plain, sizeof plain);
    uint8_t *wire = wire_dup(&p, &n);
    assert_int_equal(n, vec_int(v, "wire_len"));
    assert_int_equal(n, record_wire_len(sizeof plain));
    vec_hex(v, "first_64_wire_bytes", first, sizeof first);
    assert_memory_equal(wire, first, sizeof first);
    vec_hex(v, "wire_sha256", &want, sizeof want);
    crypto_sha256(&got, wire, n);
    assert_memory_equal(&got, &want, sizeof want);
    json_array_foreach(vec_get(v, "frame_prefix_values"), i, prefix)
    {
        assert_int_equal(get_be16(wire + at), json_integer_value(prefix));
        at += RECORD_PREFIX_BYTES + get_be16(wire + at);
    }
    assert_int_equal(at, n);
    feed(&p, wire, n);
    assert_int_equal(record_read(&p.rx, &p.in, &p.plain, SIZE_MAX), 0);
    check_plain(&p, plain, sizeof plain);
    assert_int_equal(record_eof(&p.rx, &p.in), ERR_EOF);
    free(wire);
    pipe_close(&p);
}

/* The framed transport messages, among them one without plaintext. */
static void test_transport_vector(void **state)
{
    const json_t *v;
    struct pipe p;
    size_t i, n, len;

    (void)state;
    pipe_open(&p);
    json_array_foreach(vec_get(vec_get(root, "noise_kk"), "transport"), i, v)
    {
        if (strcmp(vec_str(v, "from"), "initiator") != 0)
            continue;
        uint8_t *framed = vec_hex_dup(v, "framed", &len), *plain = vec_hex_dup(v, "plaintext", &n);
        if (n > 0) {
            put(&p, plain, n);
            uint8_t *wire = wire_dup(&p, &n);
            assert_int_equal(n, len);
            assert_memory_equal(wire, framed, len);
            free(wire);
            bufq_clear(&p.wire);
        } else {
            p.tx.counter++; /* the writer here never makes empty frames */
        }
        feed(&p, framed, len);
        assert_int_equal(record_read(&p.rx, &p.in, &p.plain, SIZE_MAX), 0);
        check_plain(&p, plain, len - RECORD_OVERHEAD);
        free(framed);
        free(plain);
    }
    assert_int_equal(p.rx.rx.counter, 3);
    pipe_close(&p);
}

static void test_nothing_written(void **state)
{
    struct pipe p;

    (void)state;
    pipe_open(&p);
    put(&p, NULL, 0);
    assert_int_equal(bufq_len(&p.wire), 0);
    assert_int_equal(record_eof(&p.rx, &p.in), ERR_EOF);
    pipe_close(&p);
}

static void test_lengths(void **state)
{
    static const struct {
        size_t plain, wire;
    } t[] = {{0, 0},       {1, 27},      {4070, 4096}, {4071, 4096 + 27},
             {8140, 8192}, {8139, 8191}, {9000, 9078}, {16 * 4070, 65536}};

    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        assert_int_equal(record_wire_len(t[i].plain), t[i].wire);
        assert_int_equal(record_plain_fit(t[i].wire), t[i].plain);
    }
    /* What is said to fit does, and one byte more does not. */
    for (size_t room = 0; room < 3 * RECORD_FRAME_MAX; room++) {
        size_t n = record_plain_fit(room);
        assert_true(record_wire_len(n) <= room);
        assert_true(record_wire_len(n + 1) > room);
    }
}

/* A sealed frame whose length field says n, of the next counter. */
static size_t frame_of(struct pipe *p, uint8_t *out, size_t n)
{
    static const uint8_t zeros[RECORD_FRAME_MAX + 100];
    assert_int_equal(cipher_seal(&p->tx, out + 2, zeros, n - CIPHER_OVERHEAD), 0);
    put_be16(out, (uint16_t)n);
    return 2 + n;
}

/* A bad frame behind a good one: the good one is delivered, the error stays, also for good frames
 * later. */
static void check_sticky(const uint8_t *bad, size_t n, int want)
{
    struct pipe p;
    uint8_t good[RECORD_FRAME_MAX];
    size_t len;

    pipe_open(&p);
    len = frame_of(&p, good, 30);
    feed(&p, good, len);
    feed(&p, bad, n);
    assert_int_equal(record_read(&p.rx, &p.in, &p.plain, SIZE_MAX), want);
    check_plain(&p, (uint8_t[6]){0}, 6);
    bufq_clear(&p.in);
    p.tx.counter = 100;
    len = frame_of(&p, good, 30);
    feed(&p, good, len);
    assert_int_equal(record_read(&p.rx, &p.in, &p.plain, SIZE_MAX), want);
    assert_int_equal(bufq_len(&p.plain), 0);
    assert_int_equal(record_eof(&p.rx, &p.in), want);
    pipe_close(&p);
}

static void test_bad_frames(void **state)
{
    struct pipe p;
    uint8_t frame[RECORD_FRAME_MAX + 100];
    size_t n;

    (void)state;
    pipe_open(&p);
    /* Lengths are refused before the bytes are there. */
    for (uint16_t len = 0; len < CIPHER_OVERHEAD; len++) {
        put_be16(frame, len);
        check_sticky(frame, 2, ERR_SHORT);
    }
    put_be16(frame, RECORD_LENGTH_MAX + 1);
    check_sticky(frame, 2, ERR_TOO_LONG);
    put_be16(frame, 0xffff);
    check_sticky(frame, 2, ERR_TOO_LONG);
    /* A correctly sealed one that is a byte too long. */
    p.tx.counter = 1;
    n = frame_of(&p, frame, RECORD_LENGTH_MAX + 1);
    check_sticky(frame, n, ERR_TOO_LONG);
    /* Counter 1 was used by the good frame. */
    p.tx.counter = 0;
    n = frame_of(&p, frame, 100);
    check_sticky(frame, n, ERR_NONCE);
    static const size_t sizes[] = {24, 100, 600,
                                   RECORD_LENGTH_MAX}; /* in small and large buffers */
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        p.tx.counter = 5;
        n = frame_of(&p, frame, sizes[i]);
        frame[n - 1] ^= 1;
        check_sticky(frame, n, ERR_TAG);
    }
    pipe_close(&p);
}

/* The longest and the empty frame are legal; counters may jump. */
static void test_legal_extremes(void **state)
{
    struct pipe p;
    uint8_t frame[RECORD_FRAME_MAX], zeros[RECORD_PLAIN_MAX] = {0};
    size_t n;

    (void)state;
    pipe_open(&p);
    n = frame_of(&p, frame, CIPHER_OVERHEAD);
    feed(&p, frame, n);
    p.tx.counter += 1000;
    n = frame_of(&p, frame, RECORD_LENGTH_MAX);
    assert_int_equal(n, RECORD_FRAME_MAX);
    feed(&p, frame, n);
    n = frame_of(&p, frame, CIPHER_OVERHEAD);
    feed(&p, frame, n);
    assert_int_equal(record_read(&p.rx, &p.in, &p.plain, SIZE_MAX), 0);
    check_plain(&p, zeros, sizeof zeros);
    assert_int_equal(record_eof(&p.rx, &p.in), ERR_EOF);
    pipe_close(&p);
}

static void test_eof(void **state)
{
    struct pipe p;
    uint8_t frame[200];
    size_t n;

    (void)state;
    for (size_t cut = 0; cut <= 126; cut++) {
        pipe_open(&p);
        n = frame_of(&p, frame, 124);
        assert_int_equal(n, 126);
        feed(&p, frame, cut);
        if (cut == n) /* not read yet: no end */
            assert_int_equal(record_eof(&p.rx, &p.in), 0);
        assert_int_equal(record_read(&p.rx, &p.in, &p.plain, SIZE_MAX), 0);
        assert_int_equal(bufq_len(&p.plain), cut == n ? 100 : 0);
        assert_int_equal(record_eof(&p.rx, &p.in), cut == 0 || cut == n ? ERR_EOF : ERR_SHORT);
        if (cut != 0 && cut != n)
            assert_int_equal(record_read(&p.rx, &p.in, &p.plain, SIZE_MAX), ERR_SHORT);
        pipe_close(&p);
    }
    pipe_open(&p);
    feed(&p, "\xff\xff", 2);
    assert_int_equal(record_eof(&p.rx, &p.in), ERR_TOO_LONG);
    pipe_close(&p);
}

static void test_wipe(void **state)
{
    struct pipe p;
    uint8_t frame[200];

    (void)state;
    pipe_open(&p);
    feed(&p, frame, frame_of(&p, frame, 100));
    record_reader_wipe(&p.rx);
    assert_int_equal(record_read(&p.rx, &p.in, &p.plain, SIZE_MAX), ERR_CLOSED);
    assert_int_equal(p.rx.rx.key[0], 0);
    pipe_close(&p);
}

static void test_counter_ends(void **state)
{
    struct pipe p;
    uint8_t plain[3 * RECORD_PLAIN_MAX] = {0};
    size_t taken;

    (void)state;
    pipe_open(&p);
    p.tx.counter = UINT64_MAX - 2;
    assert_int_equal(record_write(&p.tx, &p.wire, plain, sizeof plain, &taken), ERR_NONCE);
    assert_int_equal(taken, 2 * RECORD_PLAIN_MAX);
    assert_int_equal(record_write(&p.tx, &p.wire, plain, 5, &taken), ERR_NONCE);
    assert_int_equal(taken, 0);
    pipe_close(&p);
}

/* Whole frames fill the buffers that they are sealed into. */
static void test_buffers_are_full(void **state)
{
    static const size_t frames[] = {1, 2, 4, 5, 16, 33};
    uint8_t *plain = calloc(33, RECORD_PLAIN_MAX);
    struct pipe p;

    (void)state;
    for (size_t i = 0; i < sizeof frames / sizeof frames[0]; i++) {
        pipe_open(&p);
        put(&p, plain, frames[i] * RECORD_PLAIN_MAX);
        assert_int_equal(bufq_len(&p.wire), frames[i] * RECORD_FRAME_MAX);
        assert_int_equal(p.wire.pinned, frames[i] * RECORD_FRAME_MAX);
        pipe_close(&p);
    }
    /* Small frames share one. */
    pipe_open(&p);
    for (int i = 0; i < 10; i++)
        put(&p, plain, 10);
    assert_int_equal(p.wire.pinned, 512);
    pipe_close(&p);
    free(plain);
}

/* Random writes, split anywhere, into queues of random limits: the same bytes come out. */
static void test_random_splits(void **state)
{
    struct prop r = prop_init("record");
    size_t total = 300000;
    uint8_t *plain = malloc(total), *got = malloc(total);

    (void)state;
    prop_bytes(&r, plain, total);
    for (int round = 0; round < 12; round++) {
        struct pipe p;
        size_t written = 0, fed = 0, received = 0, n;

        pipe_open(&p);
        while (written < total) {
            n = prop_size(&r, total - written);
            put(&p, plain + written, n);
            written += n;
        }
        uint8_t *wire = wire_dup(&p, &n);
        size_t chunk_max = round % 3 == 0 ? 70000 : round % 3 == 1 ? 5000 : 200;
        while (received < total) {
            size_t chunk = prop_size(&r, chunk_max < n - fed ? chunk_max : n - fed);
            feed(&p, wire + fed, chunk);
            fed += chunk;
            size_t max = prop_chance(&r, 30) ? 1 + prop_size(&r, 20000) : SIZE_MAX;
            size_t had = bufq_len(&p.plain);
            assert_int_equal(record_read(&p.rx, &p.in, &p.plain, max), 0);
            if (had >= max)
                assert_int_equal(bufq_len(&p.plain), had);
            else if (max < SIZE_MAX) /* passed by one frame at most */
                assert_true(bufq_len(&p.plain) < max + RECORD_PLAIN_MAX);
            else
                assert_true(bufq_len(&p.in) < RECORD_FRAME_MAX);
            if (prop_chance(&r, 80) || fed == n)
                received += bufq_read(&p.plain, got + received, prop_size(&r, total - received));
        }
        assert_int_equal(fed, n);
        assert_memory_equal(got, plain, total);
        assert_int_equal(record_eof(&p.rx, &p.in), ERR_EOF);
        free(wire);
        pipe_close(&p);
    }
    free(plain);
    free(got);
}

/* With too few buffers both sides stop and go on later; not a byte is lost or doubled. */
static void test_short_of_memory(void **state)
{
    struct prop r = prop_init("record without memory");
    size_t total = 200000, written = 0, received = 0, refused = 0, taken;
    uint8_t *plain = malloc(total), *got = malloc(total);
    struct pipe p;

    (void)state;
    prop_bytes(&r, plain, total);
    pipe_open(&p);
    while (received < total) {
        p.budget.cap = prop_chance(&r, 40) ? 1 : prop_size(&r, 100000);
        if (written < total) {
            size_t n = prop_size(&r, total - written);
            int rc = record_write(&p.tx, &p.wire, plain + written, n, &taken);
            assert_true(rc == ERR_NOMEM ? taken < n : rc == 0 && taken == n);
            written += taken;
            refused += rc != 0;
        }
        p.budget.cap = 0;
        assert_int_equal(bufq_move(&p.in, &p.wire, prop_below(&r, bufq_len(&p.wire) + 1)), 0);
        p.budget.cap = prop_chance(&r, 40) ? 1 : 0;
        int rc = record_read(&p.rx, &p.in, &p.plain, SIZE_MAX);
        assert_true(rc == 0 || rc == ERR_NOMEM);
        refused += rc != 0;
        received += bufq_read(&p.plain, got + received, total - received);
    }
    assert_memory_equal(got, plain, total);
    assert_true(refused > 0);
    free(plain);
    free(got);
    pipe_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_framing_vector),
        cmocka_unit_test(test_transport_vector),
        cmocka_unit_test(test_nothing_written),
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_bad_frames),
        cmocka_unit_test(test_legal_extremes),
        cmocka_unit_test(test_eof),
        cmocka_unit_test(test_wipe),
        cmocka_unit_test(test_counter_ends),
        cmocka_unit_test(test_buffers_are_full),
        cmocka_unit_test(test_random_splits),
        cmocka_unit_test(test_short_of_memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
