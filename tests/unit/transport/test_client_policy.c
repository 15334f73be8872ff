/*
 * client: which sessions there are, how they are kept alive, and how fast it is back after anything
 * that happens to them; hours pass in virtual time.
 */
#include "tests/unit/transport/client_world.h"

#include "tests/unit/transport/raw_server.h"
#include "transport/session.h"

static void add_addrs(struct world *w, int relay, const char *a, const char *b)
{
    const char *addrs[] = {a, b};

    assert_int_equal(
        client_add_server_addrs(w->client[0].c, &w->relay_key[relay].pk, addrs, b != NULL ? 2 : 1),
        0);
}

/* Client 0, which holds `want` sessions of the first `relays` relays. */
static void start(struct world *w, unsigned want, int relays)
{
    world_init(w);
    struct client_cfg cfg = world_cfg(w, 0);
    cfg.want = want;
    world_client_start(w, 0, &cfg);
    for (int i = 0; i < relays; i++) {
        world_relay_start(w, i);
        world_add(w, 0, i);
    }
}

/* Milliseconds until client 0 has n sessions, at most limit_ms. */
static uint64_t ms_until_up(struct world *w, size_t n, uint64_t limit_ms)
{
    uint64_t began = pipe_now(&w->net);

    while (world_sessions(w, 0) != n && pipe_now(&w->net) - began < limit_ms * NS_PER_MS)
        world_run(w, 10 * NS_PER_MS);
    assert_int_equal(world_sessions(w, 0), n);
    return (pipe_now(&w->net) - began) / NS_PER_MS;
}

/* Both directions of all pipes that there are now to or from this address; of accepted ones, all. */
static void freeze(struct world *w, const char *addr, bool frozen)
{
    for (struct pipe_conn *c = w->net.conns; c != NULL; c = c->next) {
        if (strcmp(c->conn.peer, addr) != 0 || c->other == NULL)
            continue;
        c->out.frozen = c->other->out.frozen = frozen;
        pipe_wake(c);
    }
}

static void delay_all(struct world *w, uint64_t ns)
{
    for (struct pipe_conn *c = w->net.conns; c != NULL; c = c->next)
        c->out.delay_ns = ns;
}

static const char *letters(struct app *a)
{
    static const char phases[] = "RECMB";
    static char text[64];
    size_t n;
    const struct client_step *s = stream_dial_steps(a->st, &n);

    for (size_t i = 0; i < n; i++) {
        char c = phases[s[i].phase];
        text[i] = (char)(s[i].err == 0 ? c : c + 'a' - 'A');
    }
    text[n] = '\0';
    return text;
}

/* Dials client 1 and closes the stream again; how long it took in ms. */
static uint64_t dial(struct world *w, struct app *a)
{
    uint64_t began = pipe_now(&w->net);

    app_init(a, w);
    app_dial(a, 0, &w->client[1].key.pk, 80, 20000);
    assert_int_equal(app_wait_open(a), 0);
    return (pipe_now(&w->net) - began) / NS_PER_MS;
}

static void hang_up(struct app *a)
{
    app_close(a);
    app_free(a);
}

/* ---- back within 10 s ---- */

/* A relay that is restarted again and again does not make its clients patient. */
static void test_back_after_restarts(void **state)
{
    struct world w;

    (void)state;
    start(&w, 1, 1);
    world_up(&w, 0, 1);
    for (int i = 0; i < 12; i++) {
        world_run(&w, 3 * NS_PER_S);
        world_relay_stop(&w, 0);
        world_run(&w, (uint64_t)(1 + i % 5) * NS_PER_S);
        world_relay_start(&w, 0);
        assert_true(ms_until_up(&w, 1, 10000) < 10000);
    }
    world_run(&w, 60 * NS_PER_S);
    world_relay_stop(&w, 0); /* away for minutes */
    world_run(&w, 300 * NS_PER_S);
    uint64_t dials = w.net.dials;
    world_run(&w, 60 * NS_PER_S);
    assert_true(w.net.dials - dials >= 6 && w.net.dials - dials <= 15); /* every 4 … 8 s */
    world_relay_start(&w, 0);
    assert_true(ms_until_up(&w, 1, 10000) < 10000);
    world_free(&w);
}

/* Clients of a relay that restarts do not come back at one moment. */
static void test_restart_is_no_storm(void **state)
{
    struct world w;
    uint64_t at[3];

    (void)state;
    start(&w, 1, 1);
    for (int i = 1; i < 3; i++) {
        world_client_start(&w, i, NULL);
        world_add(&w, i, 0);
        world_up(&w, i, 1);
    }
    world_run(&w, 100 * NS_PER_S);
    world_relay_stop(&w, 0);
    world_run(&w, 60 * NS_PER_S);
    for (int i = 0; i < 3; i++)
        at[i] = world_info(&w, i, 0).next_dial_ns;
    assert_true(at[0] != at[1] && at[1] != at[2] && at[0] != at[2]);
    world_free(&w);
}

static void test_back_after_new_address(void **state)
{
    struct world w;

    (void)state;
    start(&w, 1, 1);
    world_up(&w, 0, 1);
    world_run(&w, 100 * NS_PER_S);
    pipe_unlisten(&w.net, world_addr(0));
    relay_free(w.relay[0]);
    w.relay[0] = NULL;
    world_run(&w, 1000 * NS_PER_S);
    world_relay_start(&w, 0);
    pipe_unlisten(&w.net, world_addr(0)); /* it is not there any more … */
    world_run(&w, 1000 * NS_PER_S);
    add_addrs(&w, 0, "elsewhere:1", NULL); /* … and then found at another one */
    add_addrs(&w, 0, world_addr(1), NULL);
    pipe_listen(&w.net, world_addr(1), client_world_accept, w.relay[0]);
    assert_true(ms_until_up(&w, 1, 10000) < 10000);
    pipe_unlisten(&w.net, world_addr(1));
    world_free(&w);
}

/* After a suspend, a clock jump or a change of the network (incidents 89, 90): what is dead is
 * noticed within 7 s, what waits for its next dial does it at once, what lives stays. */
static void test_reprobe(void **state)
{
    struct world w;

    (void)state;
    start(&w, 0, 3);
    world_up(&w, 0, 3);
    world_run(&w, 100 * NS_PER_S);
    freeze(&w, world_addr(0), true);
    world_relay_stop(&w, 2);
    world_run(&w, 2000 * NS_PER_S);
    world_relay_start(&w, 2);
    world_relay_stop(&w, 0);
    world_relay_start(&w, 0);
    freeze(&w, world_addr(0), true); /* frozen again */
    client_reprobe(w.client[0].c);
    client_reprobe(w.client[0].c);
    world_run(&w, NS_PER_S);
    assert_true(world_info(&w, 0, 2).up);
    assert_true(ms_until_up(&w, 3, 10000) < 10000);
    assert_int_equal(world_info(&w, 0, 1).failures, 0);
    assert_true(pipe_now(&w.net) - world_info(&w, 0, 1).up_ns > 2000 * NS_PER_S);

    world_run(&w, 50 * NS_PER_S); /* a frozen session, no keep-alive due */
    freeze(&w, world_addr(1), true);
    client_reprobe(w.client[0].c);
    world_run(&w, 6900 * NS_PER_MS);
    assert_true(world_info(&w, 0, 1).up);
    world_run(&w, 200 * NS_PER_MS);
    assert_int_equal(world_stat(&w, 0).sessions_up, 2);
    assert_int_equal(world_info(&w, 0, 1).last_err, ERR_TIMEOUT);
    assert_true(ms_until_up(&w, 3, 10000) < 10000);
    world_free(&w);
}

/* ---- addresses ---- */

static void test_addresses(void **state)
{
    struct world w;

    (void)state;
    start(&w, 1, 0);
    world_relay_start(&w, 0);
    world_relay_start(&w, 1);
    add_addrs(&w, 0, "nobody:1", world_addr(0)); /* refused */
    assert_true(ms_until_up(&w, 1, 1000) < 100);
    client_remove_server(w.client[0].c, &w.relay_key[0].pk);
    world_run(&w, 301 * NS_PER_S);

    add_addrs(&w, 0, "hole:1", world_addr(0)); /* silent */
    assert_true(ms_until_up(&w, 1, 1000) < 400);
    client_remove_server(w.client[0].c, &w.relay_key[0].pk);
    world_run(&w, 301 * NS_PER_S);

    add_addrs(&w, 0, world_addr(1), world_addr(0)); /* somebody else's */
    assert_true(ms_until_up(&w, 1, 1000) < 100);
    assert_string_equal(world_info(&w, 0, 0).addr, world_addr(0));
    assert_int_equal(world_stat(&w, 0).session_lost, 0);

    world_relay_stop(&w, 0); /* what worked is tried first from now on */
    world_run(&w, 30 * NS_PER_S);
    world_relay_start(&w, 0);
    uint64_t refused = w.net.refused;
    assert_true(ms_until_up(&w, 1, 10000) < 10000);
    assert_int_equal(w.net.refused, refused);
    world_free(&w);
}

/* All of them fail: one failure, not one for each. */
static void test_no_address_works(void **state)
{
    struct world w;

    (void)state;
    start(&w, 1, 0);
    add_addrs(&w, 0, "nobody:1", "hole:1");
    world_run(&w, 9 * NS_PER_S);
    assert_int_equal(world_info(&w, 0, 0).failures, 0); /* the silent one has 10 s */
    assert_int_equal(w.net.dials, 2);
    world_run(&w, 2 * NS_PER_S);
    assert_int_equal(world_info(&w, 0, 0).failures, 1);
    assert_int_equal(world_info(&w, 0, 0).last_err, ERR_TIMEOUT);
    assert_int_equal(client_add_server_addrs(w.client[0].c, &w.relay_key[0].pk, NULL, 0),
                     ERR_FORMAT);
    world_free(&w);
}

/* What a relay publishes (its private address) does not replace what works. */
static void test_published_address(void **state)
{
    struct world w;

    (void)state;
    start(&w, 1, 1);
    world_up(&w, 0, 1);
    add_addrs(&w, 0, "hole:1", world_addr(0));
    world_run(&w, 300 * NS_PER_S);
    assert_int_equal(world_stat(&w, 0).session_lost, 0); /* the session stays as it is */
    for (int i = 0; i < 3; i++) {
        world_relay_stop(&w, 0);
        world_relay_start(&w, 0);
        assert_true(ms_until_up(&w, 1, 2000) < 1000);
        assert_string_equal(world_info(&w, 0, 0).addr, world_addr(0));
    }
    world_free(&w);
}

/* The address is changed in the middle of everything. */
static void test_addresses_change_meanwhile(void **state)
{
    struct world w;

    (void)state;
    for (uint64_t ms = 0; ms < 900; ms += 50) {
        start(&w, 1, 0);
        world_relay_start(&w, 0);
        add_addrs(&w, 0, "hole:1", "hole:2");
        world_run(&w, ms * NS_PER_MS);
        add_addrs(&w, 0, "hole:2", world_addr(0));
        add_addrs(&w, 0, "hole:3", world_addr(0));
        assert_true(ms_until_up(&w, 1, 2000) < 700);
        add_addrs(&w, 0, "hole:3", NULL);
        assert_int_equal(world_sessions(&w, 0), 1);
        world_free(&w);
    }
}

/* The configuration names a dead port, somebody who knows better the right one (incident 41). */
static void test_stale_seed(void **state)
{
    struct world w;
    struct app a;

    (void)state;
    start(&w, 1, 0);
    world_relay_start(&w, 0);
    world_join(&w, 1, 0);
    add_addrs(&w, 0, "dead:1", NULL);
    world_run(&w, 100 * NS_PER_S);
    add_addrs(&w, 0, world_addr(0), "dead:1");
    assert_int_equal(client_add_route(w.client[0].c, &w.client[1].key.pk, &w.relay_key[0].pk), 0);
    assert_true(dial(&w, &a) < 2000);
    hang_up(&a);
    world_free(&w);
}

/* The better address comes back after 10 minutes: the session that works stays (incident 13). */
static void test_no_upgrade(void **state)
{
    struct world w;

    (void)state;
    start(&w, 1, 0);
    world_relay_start(&w, 0);
    add_addrs(&w, 0, "best:1", world_addr(0));
    world_up(&w, 0, 1);
    uint64_t dials = w.net.dials;
    world_run(&w, 600 * NS_PER_S);
    pipe_listen(&w.net, "best:1", client_world_accept, w.relay[0]);
    world_run(&w, 600 * NS_PER_S);
    add_addrs(&w, 0, "best:1", world_addr(0));
    world_run(&w, 600 * NS_PER_S);
    assert_int_equal(w.net.dials, dials);
    assert_int_equal(world_stat(&w, 0).session_lost, 0);
    pipe_unlisten(&w.net, "best:1");
    world_free(&w);
}

/* A server of "connect to all" moves to another port (incident 38). */
static void test_moved_server(void **state)
{
    struct world w;

    (void)state;
    start(&w, 0, 8);
    world_up(&w, 0, 8);
    world_run(&w, 1000 * NS_PER_S);
    pipe_unlisten(&w.net, world_addr(5));
    pipe_listen(&w.net, "moved:1", client_world_accept, w.relay[5]);
    freeze(&w, world_addr(5), true);
    world_run(&w, 3600 * NS_PER_S);
    add_addrs(&w, 5, "moved:1", world_addr(5));
    assert_true(ms_until_up(&w, 8, 30000) < 30000);
    pipe_unlisten(&w.net, "moved:1");
    world_free(&w);
}

/* ---- how many ---- */

/* 20 peers behind 8 servers are dialled: afterwards there are as many sessions as wanted, and nobody
 * dials what was closed (incidents 9, 10). */
static void count_returns(unsigned want, size_t floor)
{
    struct world w;
    struct app a[20];

    start(&w, want, want != 0 ? 2 : 3);
    for (int i = want != 0 ? 2 : 3; i < 8; i++)
        world_relay_start(&w, i);
    struct client *c = w.client[0].c;
    ms_until_up(&w, floor, 1000);
    for (int i = 0; i < 8; i++) /* their addresses are known, and they are not to be held */
        if (world_info(&w, 0, i % (int)floor).up && i >= (int)floor) {
            world_add(&w, 0, i);
            client_remove_server(c, &w.relay_key[i].pk);
        }
    for (int i = 0; i < 20; i++) {
        struct world_key k;
        char seed[24];
        snprintf(seed, sizeof seed, "peer %d", i);
        assert_int_equal(crypto_keypair_from_seed(&k.sk, &k.pk, (uint8_t *)seed, strlen(seed)), 0);
        assert_int_equal(client_add_route(c, &k.pk, &w.relay_key[i % 8].pk), 0);
        app_init(&a[i], &w);
        app_dial(&a[i], 0, &k.pk, 80, 20000);
    }
    world_run(&w, 30 * NS_PER_S);
    assert_int_equal(world_sessions(&w, 0), 8);
    for (int i = 0; i < 20; i++)
        hang_up(&a[i]);
    uint64_t dials = w.net.dials;
    world_run(&w, 600 * NS_PER_S);
    assert_int_equal(world_sessions(&w, 0), floor);
    assert_int_equal(w.net.dials, dials);
    assert_int_equal(world_stat(&w, 0).session_lost, 0);
    world_free(&w);
}

static void test_session_count(void **state)
{
    (void)state;
    count_returns(2, 2);
    count_returns(0, 3); /* all that are to be held, and no others */
}

/* A node serves for days: what it remembers is bounded (incident 74). */
static void test_churn(void **state)
{
    struct world w;

    (void)state;
    start(&w, 1, 1);
    world_up(&w, 0, 1);
    for (int i = 0; i < 3000; i++) {
        struct stream *st;
        struct pubkey pk;
        struct seckey sk;
        char seed[24];
        snprintf(seed, sizeof seed, "churn %d", i);
        assert_int_equal(crypto_keypair_from_seed(&sk, &pk, (uint8_t *)seed, strlen(seed)), 0);
        assert_int_equal(
            client_dial(w.client[0].c, &pk, 80, 20000, CLIENT_DIAL_NOW, NULL, NULL, &st), 0);
        world_run(&w, NS_PER_S);
        stream_close(st);
    }
    struct client_stat s = world_stat(&w, 0);
    assert_int_equal(s.streams, 0);
    assert_int_equal(s.ports, 0);
    assert_int_equal(s.sessions, 1);
    assert_true(s.destinations <= 1024);
    world_free(&w);
}

/* ---- liveness ---- */

/* A server that answers pings of the multiplexer and serves no streams any more (incident 5). */
static void test_zombie_server(void **state)
{
    struct raw_server s;

    (void)state;
    raw_start(&s);
    s.leaves = true;
    raw_run(&s, 600 * NS_PER_S); /* it accepts, and does not echo: one of 2023 lives */
    assert_int_equal(s.ends, 0);
    s.deaf = true;
    raw_run(&s, (18 + 75 + 2 * 18 + 1) * NS_PER_S); /* the next question, and two answers missing */
    assert_int_equal(s.ends, 1);
    struct client_session_info all[2];
    client_sessions(s.w.client[0].c, all, 2);
    assert_true(s.sessions >= 2 || all[0].last_err == ERR_TIMEOUT);
    s.deaf = false;
    raw_run(&s, 60 * NS_PER_S);
    assert_int_equal(world_sessions(&s.w, 0), 1); /* and it is dialled again */
    raw_stop(&s);
}

static void echo(struct raw_server *s, struct raw_stream *x)
{
    uint8_t two[2];

    if (x == NULL || x->st == NULL || yamux_readable(x->st) < 2)
        return;
    (void)yamux_read(x->st, two, 2);
    raw_write(s, x, "\0", 2);
    raw_fin(s, x);
}

/* It has echoed before: accepting streams is not enough then. The times between the questions
 * differ. */
static void test_echo_stops(void **state)
{
    struct raw_server s;
    uint64_t last = 0, least = UINT64_MAX, most = 0;
    struct raw_stream *seen;

    (void)state;
    raw_start(&s);
    s.leaves = true;
    seen = s.opened;
    for (int sec = 0; sec < 3600; sec++) {
        raw_run(&s, NS_PER_S);
        if (s.opened == seen)
            continue;
        seen = s.opened;
        uint64_t now = pipe_now(&s.w.net), gap = now - last;
        if (last != 0) {
            least = gap < least ? gap : least;
            most = gap > most ? gap : most;
        }
        last = now;
        echo(&s, seen);
    }
    assert_int_equal(s.ends, 0);
    assert_true(least >= 44 * NS_PER_S && most <= 76 * NS_PER_S);
    assert_true(most - least >= 12 * NS_PER_S);
    raw_run(&s, 120 * NS_PER_S);
    assert_int_equal(s.ends, 1);
    raw_stop(&s);
}

/* 10 s of delay for 5 minutes: slow, not dead; then silence: gone within three cycles (incident 6). */
static void test_slow_session(void **state)
{
    struct world w;

    (void)state;
    start(&w, 1, 1);
    world_up(&w, 0, 1);
    world_run(&w, 30 * NS_PER_S);
    delay_all(&w, 5 * NS_PER_S);
    world_run(&w, 300 * NS_PER_S);
    delay_all(&w, 0);
    world_run(&w, 60 * NS_PER_S);
    assert_int_equal(world_stat(&w, 0).session_lost, 0);
    freeze(&w, world_addr(0), true);
    pipe_unlisten(&w.net, world_addr(0));
    world_run(&w, 180 * NS_PER_S);
    assert_int_equal(world_stat(&w, 0).session_lost, 1);
    world_free(&w);
}

/* The relay that is published is blocked: soon the entry names another one (incident 14). */
static void test_blocked_relay(void **state)
{
    struct world w;
    struct pubkey pk[4];

    (void)state;
    start(&w, 1, 2);
    world_up(&w, 0, 1);
    world_run(&w, 100 * NS_PER_S);
    assert_int_equal(client_delegated(w.client[0].c, pk, 4), 1);
    assert_true(pubkey_equal(&pk[0], &w.relay_key[0].pk));
    freeze(&w, world_addr(0), true);
    pipe_unlisten(&w.net, world_addr(0));
    world_run(&w, 120 * NS_PER_S);
    assert_int_equal(client_delegated(w.client[0].c, pk, 4), 1);
    assert_true(pubkey_equal(&pk[0], &w.relay_key[1].pk));
    world_free(&w);
}

/* A frozen relay (SIGSTOP) costs the first dial a moment, and the next ones nothing. */
static void test_frozen_session(void **state)
{
    struct world w;
    struct app a;

    (void)state;
    start(&w, 2, 2);
    world_up(&w, 0, 2);
    world_join(&w, 1, 0);
    world_join(&w, 1, 1);
    world_up(&w, 1, 2);
    for (int i = 0; i < 2; i++)
        assert_int_equal(client_add_route(w.client[0].c, &w.client[1].key.pk, &w.relay_key[i].pk),
                         0);
    dial(&w, &a);
    int via = pubkey_equal(stream_via(a.st), &w.relay_key[0].pk) ? 0 : 1;
    hang_up(&a);
    freeze(&w, world_addr(via), true);
    assert_true(dial(&w, &a) <= 760);
    hang_up(&a);
    for (int i = 0; i < 3; i++) {
        assert_true(dial(&w, &a) < 10);
        hang_up(&a);
        world_run(&w, 2 * NS_PER_S);
    }
    assert_int_equal(world_sessions(&w, 0), 2);
    world_run(&w, 5 * NS_PER_S); /* 11 s after it went unanswered it is lost */
    assert_int_equal(world_stat(&w, 0).session_lost, 1);
    world_run(&w, 200 * NS_PER_S);
    world_free(&w);
}

/* Slow for a moment: in doubt, and then not any more. */
static void test_doubt_passes(void **state)
{
    struct world w;
    struct app a;

    (void)state;
    start(&w, 1, 1);
    world_join(&w, 1, 0);
    world_up(&w, 0, 1);
    world_up(&w, 1, 1);
    assert_int_equal(client_add_route(w.client[0].c, &w.client[1].key.pk, &w.relay_key[0].pk), 0);
    world_run(&w, 10 * NS_PER_S);
    freeze(&w, world_addr(0), true);
    app_init(&a, &w);
    app_dial(&a, 0, &w.client[1].key.pk, 80, 20000);
    world_run(&w, 4 * NS_PER_S);
    freeze(&w, world_addr(0), false);
    assert_int_equal(app_wait_open(&a), 0);
    hang_up(&a);
    world_run(&w, 100 * NS_PER_S);
    assert_int_equal(world_stat(&w, 0).session_lost, 0);
    world_free(&w);
}

/* ---- old servers under load ---- */

/* A server of 2023 that reads only load_ms after message 3 came: what came with it by then, ends the
 * session. */
struct old_server {
    struct world *w;
    uint64_t load_ns;
    struct conn *conn;
    struct session *session;
    uint8_t in[4096];
    size_t n;
    bool reading;
    struct loop_timer timer;
    struct loop_timer tick;
    unsigned sessions, dropped, streams;
};

static void old_close(struct old_server *o)
{
    if (o->conn == NULL)
        return;
    loop_timer_cancel(&o->w->net.loop, &o->timer);
    conn_close(o->conn);
    session_free(o->session);
    o->conn = NULL;
}

static void old_feed(struct old_server *o, struct slice in)
{
    struct yamux_event ev;

    assert_int_equal(session_input(o->session, in, pipe_now(&o->w->net)), 0);
    while (session_mux(o->session) != NULL && yamux_next(session_mux(o->session), &ev)) {
        if (ev.stream != NULL && (ev.what & YAMUX_OPENED)) {
            o->streams++;
            assert_int_equal(yamux_accept(ev.stream), 0);
        }
        if (ev.stream != NULL && (ev.what & YAMUX_RESET))
            yamux_release(ev.stream, false);
    }
    conn_flush(o->conn);
}

static void old_read(struct loop_timer *t)
{
    struct old_server *o = container_of(t, struct old_server, timer);

    if (o->n > 2 + 65) {
        o->dropped++;
        old_close(o);
        return;
    }
    struct buf *b = buf_get(o->w->pool, o->n);
    memcpy(buf_room(b), o->in, o->n);
    struct slice in = buf_take(b, o->n);
    buf_put(b);
    o->reading = true;
    old_feed(o, in);
    slice_release(&in);
}

static void old_input(void *arg, struct slice in, uint64_t now_ns)
{
    struct old_server *o = arg;

    if (o->reading || (o->n == 0 && in.n == 2 + 49)) { /* message 1 */
        old_feed(o, in);
        return;
    }
    assert_true(in.n <= sizeof o->in - o->n);
    memcpy(o->in + o->n, in.p, in.n);
    if (o->n == 0)
        loop_timer_set(&o->w->net.loop, &o->timer, now_ns + o->load_ns);
    o->n += in.n;
}

static int old_output(void *arg, struct iovec *iov, int max, uint64_t now_ns)
{
    struct old_server *o = arg;
    return session_output(o->session, iov, max, now_ns);
}

static void old_sent(void *arg, size_t n, uint64_t now_ns)
{
    struct old_server *o = arg;
    session_sent(o->session, n, now_ns);
}

static void old_up(void *arg)
{
    (void)arg;
}

static void old_down(void *arg, int err)
{
    (void)err;
    old_close(arg);
}

static const struct conn_user old_user = {old_up, old_input, old_output, old_sent, old_down};

static void old_accept(void *arg, struct conn *conn)
{
    struct old_server *o = arg;
    struct session_cfg cfg = {.env = &o->w->env.env,
                              .pool = o->w->pool,
                              .self = o->w->relay_key[0].pk,
                              .sk = &o->w->relay_key[0].sk};

    assert_null(o->conn);
    o->n = 0;
    o->reading = false;
    o->timer.fn = old_read;
    o->sessions++;
    o->conn = conn;
    o->session = session_new(&cfg, pipe_now(&o->w->net));
    conn_set_user(conn, &old_user, o);
}

static void loaded_server(uint64_t load_ms, unsigned dropped, bool works)
{
    struct world w;
    struct old_server o = {.w = &w, .load_ns = load_ms * NS_PER_MS};
    struct app a;

    start(&w, 1, 0);
    pipe_listen(&w.net, world_addr(0), old_accept, &o);
    world_add(&w, 0, 0);
    assert_int_equal(client_add_route(w.client[0].c, &w.client[1].key.pk, &w.relay_key[0].pk), 0);
    app_init(&a, &w);
    app_dial(&a, 0, &w.client[1].key.pk, 80, 4000);
    world_run(&w, 3 * NS_PER_S);
    assert_int_equal(o.dropped >= dropped, true);
    if (works) {
        assert_int_equal(o.dropped, dropped);
        assert_int_equal(o.sessions, dropped + 1);
        assert_true(o.streams >= 1); /* the request came again by itself */
        world_run(&w, 300 * NS_PER_S);
        assert_int_equal(world_sessions(&w, 0), 1);
        assert_int_equal(o.sessions, dropped + 1);
        assert_int_equal(world_info(&w, 0, 0).failures, 0);
        assert_int_equal(world_stat(&w, 0).twin_evictions, 0);
    } else {
        world_run(&w, 60 * NS_PER_S);
        assert_true(o.sessions >= 4 && o.sessions < 20);
    }
    hang_up(&a);
    world_client_stop(&w, 0);
    old_close(&o);
    pipe_unlisten(&w.net, world_addr(0));
    world_free(&w);
}

static void test_loaded_old_server(void **state)
{
    (void)state;
    loaded_server(20, 0, true);
    loaded_server(120, 1, true);  /* 60 ms were too short, 180 are not */
    loaded_server(300, 2, true);  /* 500 are not */
    loaded_server(800, 3, false); /* there is a limit to patience */
}

/* ---- what is remembered of destinations ---- */

struct finder {
    struct world *w;
    struct client_route route;
};

static void on_resolve(void *arg, uint64_t ticket, const struct pubkey *pk, unsigned flags)
{
    struct finder *f = arg;

    (void)pk, (void)flags;
    client_resolved(f->w->client[0].c, ticket, 0, &f->route);
}

/* Which server led there is remembered, and forgotten when it does not any more. */
static void test_way_is_remembered(void **state)
{
    struct world w;
    struct app a;
    struct finder f = {.w = &w};

    (void)state;
    world_init(&w);
    struct client_cfg cfg = world_cfg(&w, 0);
    cfg.want = 3;
    cfg.hooks = (struct client_hooks){.arg = &f, .resolve = on_resolve};
    world_client_start(&w, 0, &cfg);
    for (int i = 0; i < 3; i++) {
        world_relay_start(&w, i);
        world_add(&w, 0, i);
        f.route.servers[f.route.n_servers++] = w.relay_key[i].pk;
    }
    world_up(&w, 0, 3);
    world_join(&w, 1, 2);
    world_up(&w, 1, 1);
    dial(&w, &a); /* the entry names three, it is at the last one */
    size_t n = strlen(letters(&a));
    assert_true(n >= 2 && n <= 4);
    hang_up(&a);
    for (int i = 0; i < 5; i++) {
        dial(&w, &a);
        assert_string_equal(letters(&a), "RE");
        hang_up(&a);
    }
    world_client_stop(&w, 1); /* it moves */
    world_join(&w, 1, 0);
    world_up(&w, 1, 1);
    dial(&w, &a);
    assert_true(pubkey_equal(stream_via(a.st), &w.relay_key[0].pk));
    hang_up(&a);
    dial(&w, &a);
    assert_string_equal(letters(&a), "RE");
    hang_up(&a);
    world_free(&w);
}

/* A server without mesh (2023) says nothing when it is asked for others' destinations: that costs
 * one moment, not one for each dial (incident 28). */
static void test_server_without_mesh(void **state)
{
    struct raw_server s;
    struct finder f = {.w = &s.w};
    struct app a;

    (void)state;
    raw_start(&s);
    world_client_stop(&s.w, 0);
    raw_run(&s, NS_PER_S);
    s.leaves = s.down = false;
    struct client_cfg cfg = world_cfg(&s.w, 0);
    cfg.want = 1;
    cfg.hooks = (struct client_hooks){.arg = &f, .resolve = on_resolve};
    world_client_start(&s.w, 0, &cfg);
    world_add(&s.w, 0, 0);
    world_up(&s.w, 0, 1);
    world_relay_start(&s.w, 1);
    world_add(&s.w, 0, 1);
    world_join(&s.w, 1, 1);
    world_up(&s.w, 1, 1);
    f.route.servers[f.route.n_servers++] = s.w.relay_key[1].pk;
    uint64_t ms = dial(&s.w, &a);
    assert_true(ms >= 700 && ms < 1100);
    assert_string_equal(letters(&a), "RCm");
    hang_up(&a);
    raw_run(&s, 10 * NS_PER_S);
    for (int i = 0; i < 5; i++) { /* another destination, which is with another server, too */
        assert_true(dial(&s.w, &a) < 100);
        assert_string_equal(letters(&a), "RE");
        hang_up(&a);
    }
    raw_stop(&s);
}

/* ---- a discovery that is reached through the client itself (incident 37) ---- */

struct circular {
    struct world *w;
    struct client_route route;
    uint64_t ticket;
    struct stream *st;
};

static void asked_opened(struct stream *st, void *arg)
{
    struct circular *x = arg;

    stream_close(st);
    x->st = NULL;
    client_resolved(x->w->client[0].c, x->ticket, 0, &x->route);
}

static void asked_ended(struct stream *st, void *arg, int err)
{
    struct circular *x = arg;

    stream_close(st);
    x->st = NULL;
    client_resolved(x->w->client[0].c, x->ticket, err, NULL);
}

static void ask_through_client(void *arg, uint64_t ticket, const struct pubkey *pk, unsigned flags)
{
    static const struct stream_cb cb = {.opened = asked_opened, .ended = asked_ended};
    struct circular *x = arg;

    (void)pk;
    if (flags & CLIENT_DIAL_LOCAL) { /* of the discovery's own dials */
        client_resolved(x->w->client[0].c, ticket, ERR_NOT_FOUND, NULL);
        return;
    }
    x->ticket = ticket;
    assert_int_equal(client_dial(x->w->client[0].c, &x->w->client[2].key.pk, 80, 5000,
                                 CLIENT_DIAL_LOCAL, &cb, x, &x->st),
                     0);
}

static void test_discovery_through_client(void **state)
{
    struct world w;
    struct circular x = {.w = &w};
    struct app a;

    (void)state;
    world_init(&w);
    world_relay_start(&w, 0);
    world_join(&w, 1, 0);
    world_join(&w, 2, 0);
    world_up(&w, 1, 1);
    world_up(&w, 2, 1);
    struct client_cfg cfg = world_cfg(&w, 0);
    cfg.hooks = (struct client_hooks){.arg = &x, .resolve = ask_through_client};
    world_client_start(&w, 0, &cfg);
    world_add(&w, 0, 0);
    x.route.servers[x.route.n_servers++] = w.relay_key[0].pk;
    world_up(&w, 0, 1);
    assert_true(dial(&w, &a) < 10000);
    hang_up(&a);
    world_free(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_back_after_restarts),
        cmocka_unit_test(test_restart_is_no_storm),
        cmocka_unit_test(test_back_after_new_address),
        cmocka_unit_test(test_reprobe),
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_no_address_works),
        cmocka_unit_test(test_published_address),
        cmocka_unit_test(test_addresses_change_meanwhile),
        cmocka_unit_test(test_stale_seed),
        cmocka_unit_test(test_no_upgrade),
        cmocka_unit_test(test_moved_server),
        cmocka_unit_test(test_session_count),
        cmocka_unit_test(test_churn),
        cmocka_unit_test(test_zombie_server),
        cmocka_unit_test(test_echo_stops),
        cmocka_unit_test(test_slow_session),
        cmocka_unit_test(test_blocked_relay),
        cmocka_unit_test(test_frozen_session),
        cmocka_unit_test(test_doubt_passes),
        cmocka_unit_test(test_loaded_old_server),
        cmocka_unit_test(test_way_is_remembered),
        cmocka_unit_test(test_server_without_mesh),
        cmocka_unit_test(test_discovery_through_client),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
