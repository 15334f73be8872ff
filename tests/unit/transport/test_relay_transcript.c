/* relay: the recorded session of two clients and a server (vectors dmsg.json: transcript), with our
 * relay in the place of the server.
 *
 * The bytes of clients A and B are fed in the recorded order; the relay gets the server's keys and
 * ephemerals. Its output is compared byte for byte: each conn's whole, and after each recorded step
 * that what has come is what was recorded up to there. One difference of order is legitimate: the
 * recorded server closes both directions at A's FIN (docs/protocol/dmsg.md §4.8), ours passes each
 * FIN on when it comes (design §5), so its FIN to A follows B's FIN. On the conn it is the same
 * byte string. The last dial finds no listener; the recorded peers wait 20 s in silence, where we
 * end both streams after 5 s: that is checked behind the comparison. */
#include "transport/relay.h"

#include "tests/unit/transport/relay_world.h"
#include "tests/unit/vectors.h"

struct side {
    const char *name;
    struct rw_raw *raw;
    uint8_t *want; /* all that the server sent to it */
    size_t want_n;
    size_t seen_n; /* up to the present step */
};

static void script_ephemerals(struct env_test *env, const json_t *t)
{
    static const char *const roles[] = {"XK ephemeral secret of the server for client B",
                                        "XK ephemeral secret of the server for client A"};
    const json_t *v;
    size_t i;
    for (size_t k = 0; k < 2; k++)
        json_array_foreach(vec_get(t, "random_outputs"), i, v)
        {
            uint8_t out[32];
            if (strcmp(vec_str(v, "role"), roles[k]) != 0)
                continue;
            vec_hex(v, "out", out, sizeof out);
            env_test_script(env, out, sizeof out);
        }
}

static bool is_wire(const json_t *event)
{
    return json_object_get(event, "hex") != NULL;
}

static struct side *side_of(struct side *sides, const json_t *event)
{
    return strcmp(vec_str(event, "conn"), "A") == 0 ? &sides[0] : &sides[1];
}

static void gather(struct side *sides, const json_t *events)
{
    const json_t *v;
    size_t i;
    json_array_foreach(events, i, v)
    {
        size_t n;
        if (!is_wire(v) || strcmp(vec_str(v, "from"), "server") != 0)
            continue;
        struct side *s = side_of(sides, v);
        uint8_t *p = vec_hex_dup(v, "hex", &n);
        s->want = realloc(s->want, s->want_n + n);
        memcpy(s->want + s->want_n, p, n);
        s->want_n += n;
        free(p);
    }
}

static void check_so_far(const struct side *s, bool last)
{
    assert_true(s->raw->in_n <= s->want_n);
    assert_memory_equal(s->raw->in, s->want, s->raw->in_n);
    if (last)
        assert_int_equal(s->raw->in_n, s->want_n);
}

static void feed(struct rw_world *w, struct side *s, const json_t *event, size_t chunk)
{
    size_t n;
    uint8_t *p = vec_hex_dup(event, "hex", &n);
    if (s->raw == NULL) {
        struct rw_key any = rw_key_of(1); /* it plays no part: all bytes are given */
        s->raw = rw_raw_start(w, &any);
        s->raw->conn->out.chunk = chunk;
        s->raw->inner->out.chunk = chunk;
    }
    rw_raw_send(s->raw, p, n);
    rw_run(w, NS_PER_MS);
    free(p);
}

static void replay(bool deferred, size_t chunk)
{
    json_t *root = vectors_load("dmsg");
    const json_t *t = vec_get(root, "transcript"), *events = vec_get(t, "events"), *v;
    struct side sides[2] = {{.name = "A"}, {.name = "B"}};
    struct relay_cfg cfg = {0};
    struct rw_world w;
    size_t i, late = 0;

    vec_hex(t, "server_sk", cfg.sk.b, sizeof cfg.sk.b);
    vec_hex(t, "server_pk", cfg.self.b, sizeof cfg.self.b);
    rw_init(&w, &cfg);
    w.env.deferred = deferred;
    script_ephemerals(&w.env, t);
    gather(sides, events);
    json_array_foreach(events, i, v)
    {
        if (!is_wire(v))
            continue;
        struct side *s = side_of(sides, v);
        if (strcmp(vec_str(v, "from"), "server") != 0) {
            feed(&w, s, v, chunk);
        } else {
            size_t n;
            free(vec_hex_dup(v, "hex", &n));
            s->seen_n += n;
            if (s->raw->in_n < s->seen_n) /* the FIN to A, see above */
                late++;
        }
        for (size_t k = 0; k < 2; k++)
            if (sides[k].raw != NULL)
                check_so_far(&sides[k], false);
    }
    assert_int_equal(late, 1);
    for (size_t k = 0; k < 2; k++)
        check_so_far(&sides[k], true);
    assert_int_equal(rw_stat(&w).stream_ok, 1);
    assert_int_equal(rw_stat(&w).bridges, 0);
    assert_int_equal(rw_stat(&w).setups, 1);
    assert_int_equal(rw_stat(&w).bytes, 40 + 45);

    /* What the recorded server did not do: end the dial that nobody answers. */
    for (size_t k = 0; k < 2; k++)
        sides[k].raw->in_at = sides[k].want_n;
    rw_run(&w, 5 * NS_PER_S);
    assert_true(rw_raw_expect(sides[0].raw, 3, YAMUX_F_FIN));
    assert_true(rw_raw_expect(sides[1].raw, 4, YAMUX_F_RST));
    assert_int_equal(rw_stat(&w).setups, 0);
    for (size_t k = 0; k < 2; k++)
        free(sides[k].want);
    rw_free(&w);
    json_decref(root);
}

static void test_replay(void **state)
{
    (void)state;
    replay(false, 0);
    replay(true, 0);
}

/* The same in small pieces: the relay passes bytes on as they come, so the payload's frames are
 * other ones; the streams inside are the same. Compared field by field. */
struct content {
    size_t n;
    uint8_t bytes[8192]; /* of all data frames of one stream */
    char flags[16];      /* S, A, F, R in their order */
    size_t n_flags;
};

static void add_flags(struct content *c, unsigned flags)
{
    static const char letters[] = "SAFR";
    for (unsigned bit = 0; bit < 4; bit++)
        if ((flags & (1u << bit)) != 0 && c->n_flags + 1 < sizeof c->flags)
            c->flags[c->n_flags++] = letters[bit];
}

static size_t after_handshake(const uint8_t *p)
{
    return 2 + ((size_t)p[0] << 8 | p[1]);
}

static void decode(struct content out[8], const uint8_t *p, size_t n)
{
    size_t at = after_handshake(p);
    memset(out, 0, 8 * sizeof *out);
    while (at < n) {
        assert_true(n - at >= YAMUX_HEADER_BYTES);
        uint32_t id = p[at + 7], len = (uint32_t)p[at + 10] << 8 | p[at + 11];
        bool data = p[at + 1] == YAMUX_T_DATA;
        assert_true(p[at] == 0 && p[at + 1] <= YAMUX_T_WINDOW && id < 8);
        if (!data)
            assert_int_equal(len, 0); /* no credit in so short a talk */
        add_flags(&out[id], p[at + 3]);
        at += YAMUX_HEADER_BYTES;
        if (!data)
            continue;
        assert_true(n - at >= len && out[id].n + len <= sizeof out[id].bytes);
        memcpy(out[id].bytes + out[id].n, p + at, len);
        out[id].n += len;
        at += len;
    }
}

static void replay_pieces(size_t chunk)
{
    json_t *root = vectors_load("dmsg");
    const json_t *t = vec_get(root, "transcript"), *events = vec_get(t, "events"), *v;
    struct side sides[2] = {{.name = "A"}, {.name = "B"}};
    struct relay_cfg cfg = {0};
    struct rw_world w;
    static struct content want[8], got[8];
    size_t i;

    vec_hex(t, "server_sk", cfg.sk.b, sizeof cfg.sk.b);
    vec_hex(t, "server_pk", cfg.self.b, sizeof cfg.self.b);
    rw_init(&w, &cfg);
    script_ephemerals(&w.env, t);
    gather(sides, events);
    json_array_foreach(events, i, v)
    {
        if (is_wire(v) && strcmp(vec_str(v, "from"), "server") != 0)
            feed(&w, side_of(sides, v), v, chunk);
    }
    for (size_t k = 0; k < 2; k++) {
        decode(want, sides[k].want, sides[k].want_n);
        decode(got, sides[k].raw->in, sides[k].raw->in_n);
        assert_memory_equal(sides[k].want, sides[k].raw->in, after_handshake(sides[k].want));
        for (size_t id = 0; id < 8; id++) {
            assert_string_equal(got[id].flags, want[id].flags);
            assert_int_equal(got[id].n, want[id].n);
            assert_memory_equal(got[id].bytes, want[id].bytes, want[id].n);
        }
        free(sides[k].want);
    }
    rw_free(&w);
    json_decref(root);
}

static void test_replay_pieces(void **state)
{
    (void)state;
    replay_pieces(1);
    replay_pieces(7);
    replay_pieces(64);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replay),
        cmocka_unit_test(test_replay_pieces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
