/* relay: sessions and their limits (docs/protocol/dmsg.md §3, §6.1, the rows of §8.3 that concern a
 * server). */
#include "transport/relay.h"

#include "base/cursor.h"
#include "tests/unit/transport/relay_world.h"
#include "tests/unit/vectors.h"

/* ---- handshakes ---- */

static void silent_conns(void)
{
    struct rw_world w;
    rw_init(&w, NULL);
    struct rw_key k = rw_key_of(1);
    struct rw_raw *idle = rw_raw_start(&w, &k), *slow = rw_raw_start(&w, &k);
    uint8_t msg[128];
    size_t n = rw_raw_message(slow, msg);
    assert_int_equal(rw_stat(&w).handshakes, 2);
    for (size_t i = 0; i < 4; i++) { /* one byte per second */
        rw_raw_send(slow, msg + i, 1);
        rw_run(&w, NS_PER_S);
    }
    assert_true(n > 4 && !idle->down && !slow->down);
    rw_run(&w, 999 * NS_PER_MS);
    assert_true(!idle->down && !slow->down);
    rw_run(&w, 2 * NS_PER_MS);
    assert_true(idle->down && slow->down);
    assert_int_equal(idle->in_n + slow->in_n, 0); /* without a byte */
    assert_int_equal(rw_stat(&w).handshakes, 0);
    assert_int_equal(rw_stat(&w).handshake_failed, 2);
    rw_free(&w);
}

static void test_silent_conns(void **state)
{
    (void)state;
    rw_twice(silent_conns);
}

/* Message 1 with 33 bytes that are no point; prefixes above the limit; a flipped bit. */
static void bad_messages(void)
{
    struct rw_world w;
    rw_init(&w, NULL);
    struct rw_peer *other = rw_peer_new(&w, 1);
    struct rw_key k = rw_key_of(2);
    uint8_t msg[128];
    for (int kind = 0; kind < 6; kind++) {
        struct rw_raw *r = rw_raw_start(&w, &k);
        size_t n = rw_raw_message(r, msg);
        if (kind == 0) { /* x = 5 */
            memset(msg + 2, 0, 33);
            msg[2] = 2;
            msg[34] = 5;
        } else if (kind == 1) { /* x >= p */
            memset(msg + 3, 0xff, 32);
        } else if (kind == 2) {
            memset(msg + 2, 0, 33);
        } else if (kind == 3) {
            put_be16(msg, 4095);
        } else if (kind == 4) {
            put_be16(msg, 65535);
        } else {
            msg[50] ^= 1;
        }
        rw_raw_send(r, msg, n);
        rw_run(&w, NS_PER_MS);
        assert_true(r->down);
        assert_int_equal(r->in_n, 0);
        assert_int_equal(rw_stat(&w).handshake_failed, kind + 1);
    }
    /* Message 3 with a flipped bit. */
    struct rw_raw *r = rw_raw_start(&w, &k);
    rw_raw_send(r, msg, rw_raw_message(r, msg));
    rw_run(&w, NS_PER_MS);
    rw_raw_message_2(r);
    size_t n = rw_raw_message(r, msg);
    msg[20] ^= 4;
    rw_raw_send(r, msg, n);
    rw_run(&w, NS_PER_MS);
    assert_true(r->down);
    assert_int_equal(rw_stat(&w).handshakes, 0);
    assert_int_equal(rw_stat(&w).sessions, 1);
    struct rw_stream *s = rw_dial(other, &other->key.pk); /* nobody else is touched */
    assert_int_equal(rw_verdict(s), 0);
    rw_free(&w);
}

static void test_bad_messages(void **state)
{
    (void)state;
    rw_twice(bad_messages);
}

/* Incident 4: the last message and a stream in one segment; the whole handshake byte by byte. */
static void glued(void)
{
    struct rw_world w;
    rw_init(&w, NULL);
    struct rw_key k = rw_key_of(1);
    for (int bytewise = 0; bytewise < 2; bytewise++) {
        struct rw_raw *r = rw_raw_start(&w, &k);
        uint8_t msg[128];
        r->conn->out.chunk = bytewise ? 1 : 0;
        rw_raw_send(r, msg, rw_raw_message(r, msg));
        rw_run(&w, NS_PER_MS);
        rw_raw_message_2(r);
        rw_raw_send(r, msg, rw_raw_message(r, msg));
        rw_raw_split(r);
        rw_raw_header(r, YAMUX_T_WINDOW, YAMUX_F_SYN, 1, 0);
        rw_raw_data(r, 0, 1, (const uint8_t[2]){0, 0}, 2);
        rw_run(&w, NS_PER_MS);
        assert_false(r->down);
        struct rw_frame f;
        assert_true(rw_raw_frame(r, &f));
        assert_true(f.type == YAMUX_T_WINDOW && f.flags == YAMUX_F_ACK && f.id == 1);
        assert_true(rw_raw_frame(r, &f));
        assert_true(f.type == YAMUX_T_DATA && f.id == 1 && f.len == 2 && get_be16(f.body) == 0);
        assert_true(rw_raw_frame(r, &f));
        assert_true(f.type == YAMUX_T_WINDOW && f.flags == YAMUX_F_FIN && f.id == 1);
        assert_int_equal(rw_stat(&w).pings, bytewise + 1);
        assert_int_equal(rw_stat(&w).sessions, 1);
    }
    rw_free(&w);
}

static void test_glued(void **state)
{
    (void)state;
    rw_twice(glued);
}

/* Incident 1: message 1 with a post-quantum offer of 1184 bytes; the answer has 49. */
static void test_hybrid_offer(void **state)
{
    (void)state;
    json_t *root = vectors_load("dmsg");
    const json_t *v = vec_get(root, "noise_2026_xk_hybrid_offer_refused");
    const json_t *msgs = vec_get(v, "messages");
    struct relay_cfg cfg = {0};
    struct rw_world w;
    uint8_t e[32];
    vec_hex(v, "responder_static_sk", cfg.sk.b, 32);
    assert_int_equal(seckey_pubkey(&cfg.self, &cfg.sk), 0);
    vec_hex(v, "responder_ephemeral_sk", e, 32);
    rw_init(&w, &cfg);
    env_test_script(&w.env, e, 32);
    struct rw_key k = rw_key_of(1);
    struct rw_raw *r = rw_raw_start(&w, &k);
    size_t had = 0;
    for (size_t i = 0; i < json_array_size(msgs); i++) {
        uint8_t prefix[2];
        size_t n;
        uint8_t *m = vec_hex_dup(json_array_get(msgs, i), "message", &n);
        put_be16(prefix, (uint16_t)n);
        if (i == 1) {
            assert_int_equal(n, 49);
            assert_int_equal(r->in_n - had, n + 2);
            assert_memory_equal(r->in, prefix, 2);
            assert_memory_equal(r->in + 2, m, n);
        } else {
            rw_raw_send(r, prefix, 2);
            rw_raw_send(r, m, n);
            rw_run(&w, NS_PER_MS);
        }
        free(m);
    }
    assert_false(r->down);
    assert_int_equal(rw_stat(&w).sessions, 1);
    rw_free(&w);
    json_decref(root);
}

static void caps(void)
{
    struct rw_world w;
    struct rw_key k = rw_key_of(1);
    struct rw_raw *r[16];
    rw_init(&w, &(struct relay_cfg){.guard_cfg = {.max_handshakes = 6, .max_handshakes_addr = 4}});
    for (int i = 0; i < 5; i++)
        r[i] = rw_raw_start(&w, &k);
    rw_run(&w, NS_PER_MS);
    assert_true(!r[3]->down && r[4]->down); /* four of one address */
    assert_int_equal(rw_stat(&w).handshakes, 4);
    assert_int_equal(rw_stat(&w).refused_limit, 1);
    /* Those of other addresses are let in, up to the cap. */
    struct pipe_conn *a, *b;
    for (uint8_t i = 0; i < 3; i++) {
        pipe_pair(&w.net, &a, &b);
        b->conn.peer_ip[3] = (uint8_t)(2 + i);
        relay_accept(rw_acceptor(&w), &b->conn, false);
        conn_close(&a->conn);
    }
    assert_int_equal(rw_stat(&w).handshakes, 6);
    assert_int_equal(rw_stat(&w).refused_limit, 2);
    rw_run(&w, NS_PER_MS); /* those two are gone again */
    assert_int_equal(rw_stat(&w).handshakes, 4);
    for (int i = 0; i < 4; i++)
        rw_raw_close(r[i]);
    rw_run(&w, NS_PER_MS);
    assert_int_equal(rw_stat(&w).handshakes, 0);
    assert_int_equal(rw_stat(&w).handshake_failed, 6);
    assert_non_null(rw_peer_new(&w, 2)); /* and there is room again */
    rw_free(&w);
}

static void test_caps(void **state)
{
    (void)state;
    rw_twice(caps);
}

/* IPv6 counts by /64, and never together with an IPv4 address that looks alike. */
static void test_caps_ipv6(void **state)
{
    (void)state;
    struct rw_world w;
    struct pipe_conn *a[8], *b;
    static const uint8_t net[16] = {0x20, 1, 0xd, 0xb8};
    size_t n = 0;
    rw_init(&w, &(struct relay_cfg){.guard_cfg = {.max_handshakes_addr = 2}});
    for (uint8_t i = 0; i < 4; i++) {
        pipe_pair(&w.net, &a[n++], &b);
        memcpy(b->conn.peer_ip, net, 16);
        b->conn.peer_ip_len = 16;
        b->conn.peer_ip[15] = i;             /* one network … */
        b->conn.peer_ip[7] = i == 3 ? 1 : 0; /* … and another */
        relay_accept(rw_acceptor(&w), &b->conn, false);
    }
    assert_int_equal(rw_stat(&w).handshakes, 3);
    assert_int_equal(rw_stat(&w).refused_limit, 1);
    for (size_t i = 0; i < n; i++)
        conn_close(&a[i]->conn);
    rw_run(&w, NS_PER_MS);
    rw_free(&w);
}

static void test_max_sessions(void **state)
{
    (void)state;
    struct rw_world w;
    struct rw_key k = rw_key_of(9);
    rw_init(&w, &(struct relay_cfg){.guard_cfg = {.max_sessions = 3}});
    struct rw_peer *p[3];
    for (unsigned i = 0; i < 3; i++)
        p[i] = rw_peer_new(&w, i + 1);
    struct rw_raw *r = rw_raw_start(&w, &k);
    rw_run(&w, NS_PER_MS);
    assert_true(r->down);
    assert_int_equal(rw_stat(&w).refused_limit, 1);
    struct rw_peer *own = rw_peer_start(&w, &w.key, true); /* our own client is never shut out */
    rw_run(&w, NS_PER_MS);
    assert_true(own->up);
    assert_int_equal(rw_stat(&w).sessions, 4);
    rw_peer_close(p[0]);
    rw_run(&w, NS_PER_MS);
    assert_true(rw_peer_new(&w, 4)->up);
    rw_free(&w);
}

/* ---- one session per key ---- */

/* Incident 2: a frozen client comes again; the new session serves, the late end of the old one
 * takes nothing away. */
static void newest_wins(void)
{
    struct rw_world w;
    rw_init(&w, NULL);
    struct rw_peer *a = rw_peer_new(&w, 1), *old = rw_peer_new(&w, 2);
    struct rw_stream *s = rw_dial(a, &old->key.pk);
    assert_int_equal(rw_verdict(s), 0);
    old->conn->out.frozen = old->inner->out.frozen = true; /* no FIN, ever */
    unsigned changed = w.changed;
    struct rw_peer *fresh = rw_peer_new(&w, 2);
    assert_int_equal(rw_stat(&w).replaced, 1);
    assert_int_equal(rw_stat(&w).sessions, 2);
    assert_int_equal(w.changed - changed, 1);
    rw_run(&w, NS_PER_MS);
    assert_true(s->reset); /* what went through the old one has ended */
    assert_int_equal(rw_verdict(rw_dial(a, &fresh->key.pk)), 0);
    assert_int_equal(fresh->incoming, 1);
    old->conn->out.frozen = false;
    rw_peer_close(old); /* its end arrives late */
    rw_run(&w, NS_PER_S);
    assert_int_equal(rw_verdict(rw_dial(a, &fresh->key.pk)), 0);
    assert_int_equal(fresh->incoming, 2);
    assert_int_equal(rw_stat(&w).sessions, 2);
    rw_free(&w);
}

static void test_newest_wins(void **state)
{
    (void)state;
    rw_twice(newest_wins);
}

/* The peer of a replaced session sees its end at once when it can. */
static void test_replaced_is_closed(void **state)
{
    (void)state;
    struct rw_world w;
    rw_init(&w, NULL);
    struct rw_peer *old = rw_peer_new(&w, 1), *fresh = rw_peer_new(&w, 1);
    rw_run(&w, NS_PER_MS);
    assert_true(old->down && !fresh->down);
    rw_free(&w);
}

/* A silent peer is asked after 30 s and dropped 10 s later (incident 5 is the client's part). */
static void test_silent_session(void **state)
{
    (void)state;
    struct rw_world w;
    rw_init(&w, NULL);
    struct rw_peer *a = rw_peer_new(&w, 1), *b = rw_peer_new(&w, 2);
    rw_run(&w, 600 * NS_PER_S);
    assert_true(!a->down && !b->down);
    a->conn->out.frozen = true;
    unsigned changed = w.changed;
    rw_run(&w, 50 * NS_PER_S); /* 30 s with 20 % of jitter, and 10 s */
    assert_int_equal(rw_stat(&w).sessions, 1);
    assert_int_equal(w.changed - changed, 1);
    assert_int_equal(rw_verdict(rw_dial(b, &a->key.pk)), -1);
    assert_int_equal(rw_code_count(&w, ERR_DMSG_NO_NEXT_SESSION), 1);
    a->conn->out.frozen = false;
    rw_free(&w);
}

/* ---- frames that end the session, and frames that do not ---- */

static void test_session_errors(void **state)
{
    (void)state;
    struct rw_world w;
    rw_init(&w, NULL);
    for (int kind = 0; kind < 7; kind++) {
        static const uint8_t zeros[65536];
        struct rw_raw *r = rw_raw_new(&w, 1);
        rw_raw_header(r, YAMUX_T_WINDOW, YAMUX_F_SYN, 1, 0);
        switch (kind) {
        case 0: /* window overrun: 5 x 64 KiB at once; what the relay reads gives no credit yet */
            rw_raw_data(r, 0, 1, (const uint8_t[2]){0xff, 0xff}, 2);
            rw_raw_header(r, YAMUX_T_DATA, 0, 1, YAMUX_WINDOW);
            break;
        case 1:
            rw_raw_header(r, YAMUX_T_WINDOW, YAMUX_F_FIN, 1, 0);
            rw_raw_header(r, YAMUX_T_WINDOW, YAMUX_F_FIN, 1, 0);
            break;
        case 2:
            rw_raw_header(r, YAMUX_T_WINDOW, YAMUX_F_SYN, 1, 0);
            break;
        case 3:
            rw_raw_header(r, 4, 0, 1, 0);
            break;
        case 4:
            rw_raw_send(r, (const uint8_t[12]){1, 1, 0, 1, 0, 0, 0, 3}, 12);
            break;
        case 5:
            rw_raw_header(r, YAMUX_T_GOAWAY, 0, 0, 1);
            break;
        case 6: /* credit beyond 32 bits */
            rw_raw_header(r, YAMUX_T_WINDOW, 0, 1, UINT32_MAX);
            break;
        }
        rw_raw_send(r, zeros, 12);
        rw_run(&w, NS_PER_MS);
        assert_true(r->down);
        assert_int_equal(rw_stat(&w).sessions, 0);
        assert_true(rw_all_zero(&w));
    }
    rw_free(&w);
}

/* A client of 2026 that was told to speak smux, v2 or v1: its first frame ends its session, at once
 * and alone; the one after it, of a client that speaks yamux, is none the worse (incidents 7, 23). */
static void test_smux_session(void **state)
{
    (void)state;
    struct rw_world w;
    rw_init(&w, NULL);
    struct rw_peer *a = rw_peer_new(&w, 1), *b = rw_peer_new(&w, 2);
    for (uint8_t version = 1; version <= 2; version++) {
        const uint8_t syn[8] = {version, 0, 0, 0, 3, 0, 0, 0};
        for (size_t n = 1; n <= sizeof(syn); n += sizeof(syn) - 1) {
            struct rw_raw *r = rw_raw_new(&w, 3);
            rw_raw_send(r, syn, n);
            rw_run(&w, 10 * NS_PER_MS);
            assert_true(r->down);
            assert_int_equal(rw_stat(&w).sessions, 2);
        }
    }
    assert_int_equal(rw_verdict(rw_dial(a, &b->key.pk)), 0);
    assert_int_equal(rw_verdict(rw_dial(rw_peer_new(&w, 3), &b->key.pk)), 0);
    rw_free(&w);
}

static void test_session_survives(void **state)
{
    (void)state;
    struct rw_world w;
    rw_init(&w, NULL);
    struct rw_raw *r = rw_raw_new(&w, 1);
    rw_raw_data(r, 0, 77, "late", 4); /* unknown stream */
    rw_raw_header(r, YAMUX_T_WINDOW, YAMUX_F_FIN, 79, 0);
    rw_raw_header(r, YAMUX_T_WINDOW, YAMUX_F_RST, 81, 0);
    rw_raw_header(r, YAMUX_T_GOAWAY, 0, 0, 0);
    rw_raw_header(r, YAMUX_T_WINDOW, YAMUX_F_SYN, 2, 0); /* an even id of the dialer */
    rw_raw_data(r, 0, 2, (const uint8_t[2]){0, 0}, 2);
    rw_raw_data(r, YAMUX_F_SYN, 3, (const uint8_t[2]){0, 0}, 2); /* SYN on the data frame */
    rw_run(&w, NS_PER_MS);
    assert_false(r->down);
    assert_true(rw_raw_expect(r, 2, YAMUX_F_ACK));
    assert_true(rw_raw_expect(r, 2, YAMUX_F_FIN));
    assert_true(rw_raw_expect(r, 3, YAMUX_F_FIN));
    assert_int_equal(rw_stat(&w).pings, 2);
    rw_free(&w);
}

/* ---- going down ---- */

static void drain(void)
{
    struct rw_world w;
    rw_init(&w, NULL);
    struct rw_peer *a = rw_peer_new(&w, 1), *b = rw_peer_new(&w, 2);
    struct rw_key k = rw_key_of(3);
    struct rw_stream *s = rw_dial(a, &b->key.pk);
    struct rw_raw *pending = rw_raw_start(&w, &k);
    rw_drain(&w);
    rw_drain(&w);
    rw_run(&w, NS_PER_MS);
    assert_true(pending->down);
    struct rw_raw *late = rw_raw_start(&w, &k);
    rw_run(&w, NS_PER_MS);
    assert_true(late->down);
    struct yamux_stream *st;
    assert_int_equal(yamux_open(link_mux(a->link), NULL, pipe_now(&w.net), &st), ERR_CLOSED);
    rw_pattern(s, 100000, true); /* what is there goes on */
    rw_run(&w, NS_PER_S);
    struct rw_stream *in = rw_last_incoming(b);
    assert_true(in->eof && in->got == 100000);
    rw_free(&w);
}

static void test_drain(void **state)
{
    (void)state;
    rw_twice(drain);
}

/* relay_free() in the middle of everything, with public-key work under way. */
static void test_free_midway(void **state)
{
    (void)state;
    for (unsigned turns = 0; turns < 30; turns++) {
        struct rw_world w;
        rw_init(&w, NULL);
        struct rw_peer *a = rw_peer_new(&w, 1), *b = rw_peer_new(&w, 2);
        struct rw_stream *s = rw_dial(a, &b->key.pk);
        rw_pattern(s, 200000, false);
        w.env.deferred = true;
        w.net.pk_per_turn = 1;
        w.net.fault.delay_ns = NS_PER_MS;
        struct rw_key k = rw_key_of(3);
        (void)rw_peer_start(&w, &k, false);
        struct rw_stream *t = rw_open(b);
        struct object_request req = rw_request(t, &a->key.pk);
        rw_send_request(t, &req, &b->key.sk);
        rw_run(&w, turns * NS_PER_MS / 4);
        for (unsigned i = 0; i < w.workers; i++)
            rw_worker_free(&w, i);
        while (env_test_run(&w.env, 1) > 0)
            ;
        rw_run(&w, NS_PER_S);
        assert_true(a->down && b->down);
        rw_free(&w);
    }
}

static void test_sessions_list(void **state)
{
    (void)state;
    struct rw_world w;
    struct relay_session_info info[2];
    rw_init(&w, NULL);
    struct rw_peer *p[5];
    for (unsigned i = 0; i < 5; i++)
        p[i] = rw_peer_new(&w, i + 1);
    struct rw_key k = rw_key_of(9);
    (void)rw_raw_start(&w, &k); /* not up: not listed */
    (void)rw_dial(p[0], &p[1]->key.pk);
    size_t n, all = 0;
    uint64_t cur = 0;
    do { /* page by page */
        cur = relay_sessions(w.relay, cur, info, 2, &n);
        for (size_t i = 0; i < n; i++, all++)
            assert_true(pubkey_equal(&info[i].pk, &p[all]->key.pk));
    } while (cur != 0);
    assert_int_equal(all, 5);
    cur = relay_sessions(w.relay, 0, info, 2, &n);
    assert_int_equal(n, 2);
    assert_true(pubkey_equal(&info[0].pk, &p[0]->key.pk) &&
                pubkey_equal(&info[1].pk, &p[1]->key.pk));
    assert_int_equal(info[0].streams, 1);
    assert_string_equal(info[0].addr, "a:0");
    assert_true(cur != 0);
    rw_peer_close(p[0]); /* removals before the cursor and at it move nothing */
    rw_peer_close(p[2]);
    rw_run(&w, NS_PER_MS);
    cur = relay_sessions(w.relay, cur, info, 2, &n);
    assert_int_equal(n, 2);
    assert_true(pubkey_equal(&info[0].pk, &p[3]->key.pk) &&
                pubkey_equal(&info[1].pk, &p[4]->key.pk));
    assert_int_equal(cur, 0);
    rw_free(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_silent_conns),
        cmocka_unit_test(test_bad_messages),
        cmocka_unit_test(test_glued),
        cmocka_unit_test(test_hybrid_offer),
        cmocka_unit_test(test_caps),
        cmocka_unit_test(test_caps_ipv6),
        cmocka_unit_test(test_max_sessions),
        cmocka_unit_test(test_newest_wins),
        cmocka_unit_test(test_replaced_is_closed),
        cmocka_unit_test(test_silent_session),
        cmocka_unit_test(test_session_errors),
        cmocka_unit_test(test_smux_session),
        cmocka_unit_test(test_session_survives),
        cmocka_unit_test(test_drain),
        cmocka_unit_test(test_free_midway),
    };
    const struct CMUnitTest alone[] = {cmocka_unit_test(test_sessions_list)};
    int failed = cmocka_run_group_tests(alone, NULL, NULL);
    for (rw_workers = 1; rw_workers <= 3; rw_workers += 2)
        failed +=
            cmocka_run_group_tests_name(rw_workers == 1 ? "alone" : "workers", tests, NULL, NULL);
    return failed;
}
