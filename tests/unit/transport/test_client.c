/* client: sessions to servers, ping and IP look-up. */
#include "tests/unit/transport/client_world.h"

#include "base/log.h"
#include "transport/session.h"

/* ---- reconnecting ---- */

static void test_reconnect(void **state)
{
    struct world w;

    (void)state;
    world_init(&w);
    world_relay_start(&w, 0);
    world_join(&w, 0, 0);
    world_up(&w, 0, 1);
    for (int i = 0; i < 50; i++) { /* the first two also right after the start */
        world_run(&w, (uint64_t)(i < 2 ? 0 : 30 + i) * NS_PER_S);
        world_relay_stop(&w, 0);
        world_run(&w, NS_PER_S);
        assert_int_equal(world_sessions(&w, 0), 0);
        world_relay_start(&w, 0);
        world_run(&w, 10 * NS_PER_S);
        assert_int_equal(world_sessions(&w, 0), 1);
    }
    assert_int_equal(world_stat(&w, 0).twin_evictions, 0);
    assert_int_equal(world_stat(&w, 0).session_lost, 50);
    world_free(&w);
}

/* A server that is away for an hour: dialled less and less often, found again within a minute. */
static void test_back_off(void **state)
{
    struct world w;
    uint64_t last, now = 0, in_first_minute = 0;

    (void)state;
    world_init(&w);
    world_client_start(&w, 0, NULL);
    world_add(&w, 0, 0);
    for (int s = 0; s < 3600; s++) {
        world_run(&w, NS_PER_S);
        if (s == 59)
            in_first_minute = w.net.dials;
    }
    last = w.net.dials;
    assert_true(in_first_minute >= 4 && in_first_minute <= 30);
    assert_true(last - in_first_minute >= 59 && last - in_first_minute <= 250);
    struct client_session_info s = world_info(&w, 0, 0);
    assert_false(s.up);
    assert_int_equal(s.last_err, ERR_REFUSED);
    assert_true(s.failures > 10);
    assert_true(s.next_dial_ns > 0);
    world_relay_start(&w, 0);
    while (world_sessions(&w, 0) == 0 && now < 61 * NS_PER_S) {
        world_run(&w, NS_PER_S);
        now += NS_PER_S;
    }
    assert_int_equal(world_sessions(&w, 0), 1);
    world_free(&w);
}

/* ---- one dial at a time ---- */

struct silent_server {
    struct conn *conn[64];
    size_t n;
};

static void quiet_up(void *arg)
{
    (void)arg;
}
static void quiet_input(void *arg, struct slice in, uint64_t now_ns)
{
    (void)arg, (void)in, (void)now_ns;
}
static int quiet_output(void *arg, struct iovec *iov, int max, uint64_t now_ns)
{
    (void)arg, (void)iov, (void)max, (void)now_ns;
    return 0;
}
static void quiet_sent(void *arg, size_t n, uint64_t now_ns)
{
    (void)arg, (void)n, (void)now_ns;
}
static void quiet_down(void *arg, int err)
{
    (void)arg, (void)err;
}
static const struct conn_user quiet = {quiet_up, quiet_input, quiet_output, quiet_sent, quiet_down};

static void silent_accept(void *arg, struct conn *conn)
{
    struct silent_server *s = arg;

    assert_true(s->n < 64);
    s->conn[s->n++] = conn;
    conn_set_user(conn, &quiet, s);
}

static void silent_free(struct silent_server *s)
{
    for (size_t i = 0; i < s->n; i++)
        conn_close(s->conn[i]);
}

static void test_silent_server(void **state)
{
    struct silent_server silent = {.n = 0};
    struct world w;

    (void)state;
    world_init(&w);
    pipe_listen(&w.net, world_addr(0), silent_accept, &silent);
    world_client_start(&w, 0, NULL);
    world_add(&w, 0, 0);
    world_add(&w, 0, 0);
    world_run(&w, 4900 * NS_PER_MS);
    assert_int_equal(w.net.dials, 1);
    world_add(&w, 0, 0);
    world_run(&w, 200 * NS_PER_MS); /* the handshake has 5 s */
    assert_int_equal(world_info(&w, 0, 0).last_err, ERR_TIMEOUT);
    world_run(&w, 60 * NS_PER_S);
    assert_true(w.net.dials >= 4 && w.net.dials <= 13);
    silent_free(&silent);
    world_free(&w);
}

/* ---- which sessions are held ---- */

struct published {
    struct world *w;
    struct pubkey pk[8];
    size_t n;
    unsigned changes, calls;
};

/* What a node would publish: only when the set differs. */
static void publish(void *arg)
{
    struct published *p = arg;
    struct pubkey pk[8];
    size_t n = client_delegated(p->w->client[0].c, pk, 8);

    p->calls++;
    if (n == 0 || (n == p->n && memcmp(pk, p->pk, n * sizeof pk[0]) == 0))
        return;
    memcpy(p->pk, pk, sizeof pk);
    p->n = n;
    p->changes++;
}

static void hold(struct world *w, struct published *p, unsigned want, int servers)
{
    struct client_cfg cfg = world_cfg(w, 0);

    *p = (struct published){.w = w};
    cfg.want = want;
    cfg.hooks = (struct client_hooks){.arg = p, .sessions_changed = publish};
    world_client_start(w, 0, &cfg);
    for (int i = 0; i < servers; i++)
        world_add(w, 0, i);
}

static void test_want(void **state)
{
    struct published p;
    struct world w;

    (void)state;
    world_init(&w);
    for (int i = 0; i < 8; i++)
        world_relay_start(&w, i);
    hold(&w, &p, 2, 8);
    world_run(&w, 300 * NS_PER_S);
    assert_int_equal(world_sessions(&w, 0), 2);
    assert_int_equal(p.n, 2);
    assert_true(world_info(&w, 0, 0).up && world_info(&w, 0, 1).up); /* most wanted first */
    assert_int_equal(w.net.dials, 2);
    world_client_stop(&w, 0);

    hold(&w, &p, 0, 8); /* 0: all of them */
    world_run(&w, 300 * NS_PER_S);
    assert_int_equal(world_sessions(&w, 0), 8);
    assert_int_equal(p.n, 8);
    world_free(&w);
}

/* A server that flaps is dialled again, and what is published stays (incident 11). */
static void test_flapping_server(void **state)
{
    struct published p;
    struct world w;

    (void)state;
    world_init(&w);
    for (int i = 0; i < 4; i++)
        world_relay_start(&w, i);
    hold(&w, &p, 1, 4);
    world_up(&w, 0, 1);
    for (int i = 0; i < 20; i++) {
        world_run(&w, 100 * NS_PER_S);
        world_relay_stop(&w, 0);
        world_relay_start(&w, 0);
        world_run(&w, 10 * NS_PER_S);
        assert_int_equal(world_sessions(&w, 0), 1);
    }
    assert_true(p.changes <= 2);
    assert_true(world_info(&w, 0, 0).up);
    world_free(&w);
}

/* One that stays away is replaced, and its successor is kept when it comes back. */
static void test_lost_server(void **state)
{
    struct published p;
    struct world w;

    (void)state;
    world_init(&w);
    for (int i = 0; i < 4; i++)
        world_relay_start(&w, i);
    hold(&w, &p, 2, 4);
    world_up(&w, 0, 2);
    world_run(&w, 100 * NS_PER_S);
    world_relay_stop(&w, 1);
    world_run(&w, 30 * NS_PER_S);
    assert_int_equal(world_sessions(&w, 0), 2);
    assert_true(world_info(&w, 0, 0).up && world_info(&w, 0, 2).up);
    world_relay_start(&w, 1);
    world_run(&w, 1000 * NS_PER_S);
    assert_int_equal(world_sessions(&w, 0), 2);
    assert_false(world_info(&w, 0, 1).up);
    assert_int_equal(p.changes, 3); /* {0, 1}, {0}, {0, 2} */
    assert_true(p.calls <= 8);
    world_free(&w);
}

static void test_all_lost(void **state)
{
    struct published p;
    struct world w;

    (void)state;
    world_init(&w);
    hold(&w, &p, 1, 4); /* nobody is there */
    world_run(&w, 600 * NS_PER_S);
    assert_true(w.net.dials < 200);
    world_relay_start(&w, 3); /* the least wanted one comes */
    world_run(&w, 61 * NS_PER_S);
    assert_int_equal(world_sessions(&w, 0), 1);
    assert_true(world_info(&w, 0, 3).up);
    world_free(&w);
}

static void test_new_address(void **state)
{
    struct world w;

    (void)state;
    world_init(&w);
    world_relay_start(&w, 0);
    world_client_start(&w, 0, NULL);
    assert_int_equal(client_add_server(w.client[0].c, &w.relay_key[0].pk, "old:1"), 0);
    world_run(&w, 1000 * NS_PER_S);
    assert_int_equal(world_sessions(&w, 0), 0);
    world_add(&w, 0, 0);
    world_run(&w, NS_PER_S);
    assert_int_equal(world_sessions(&w, 0), 1);
    assert_string_equal(world_info(&w, 0, 0).addr, "r0:1");
    assert_int_equal(client_add_server(w.client[0].c, &w.relay_key[0].pk, ""), ERR_FORMAT);
    world_free(&w);
}

/* An intended close is not a loss (incident 9). */
static void test_remove_server(void **state)
{
    struct published p;
    struct world w;

    (void)state;
    world_init(&w);
    world_relay_start(&w, 0);
    hold(&w, &p, 0, 1);
    world_up(&w, 0, 1);
    client_remove_server(w.client[0].c, &w.relay_key[0].pk);
    world_run(&w, 1000 * NS_PER_S);
    assert_int_equal(world_sessions(&w, 0), 0);
    assert_int_equal(w.net.dials, 1);
    assert_int_equal(world_stat(&w, 0).session_lost, 0);
    assert_int_equal(client_sessions(w.client[0].c, NULL, 0), 0); /* forgotten in the end */
    client_remove_server(w.client[0].c, &w.relay_key[0].pk);
    world_free(&w);
}

static void test_session_limit(void **state)
{
    struct world w;

    (void)state;
    world_init(&w);
    for (int i = 0; i < 8; i++)
        world_relay_start(&w, i);
    struct client_cfg cfg = world_cfg(&w, 0);
    cfg.max_sessions = 3;
    world_client_start(&w, 0, &cfg);
    for (int i = 0; i < 8; i++)
        world_add(&w, 0, i);
    world_run(&w, 100 * NS_PER_S);
    assert_int_equal(world_sessions(&w, 0), 3);
    struct app a;
    app_init(&a, &w);
    assert_int_equal(client_add_route(w.client[0].c, &w.client[1].key.pk, &w.relay_key[7].pk), 0);
    app_dial(&a, 0, &w.client[1].key.pk, 80, 20000);
    assert_int_equal(app_wait_open(&a), ERR_DMSG_CANNOT_CONNECT);
    app_close(&a);
    app_free(&a);
    world_free(&w);
}

/* Sessions that are alive but cannot be used for new streams. */
static void test_draining_server(void **state)
{
    struct published p;
    struct world w;
    struct app a;

    (void)state;
    world_init(&w);
    world_relay_start(&w, 0);
    world_relay_start(&w, 1);
    hold(&w, &p, 1, 2);
    world_join(&w, 1, 0);
    world_up(&w, 0, 1);
    world_up(&w, 1, 1);
    app_init(&a, &w);
    w.client[1].echo = true;
    app_dial(&a, 0, &w.client[1].key.pk, 80, 20000);
    assert_int_equal(app_wait_open(&a), 0);
    relay_drain(w.relay[0]);
    world_run(&w, 5 * NS_PER_S);
    struct pubkey pk[4];
    assert_int_equal(client_delegated(w.client[0].c, pk, 4), 1);
    assert_true(pubkey_equal(&pk[0], &w.relay_key[1].pk)); /* another one took its place */
    app_send(&a, "still here", 10);
    world_run(&w, NS_PER_S);
    assert_int_equal(a.got_n, 10);
    app_close(&a);
    app_free(&a);
    world_free(&w);
}

/* ---- twins (incident 3) ---- */

static unsigned twin_lines;

static void count_twins(void *ctx, enum log_level level, const char *line, size_t n)
{
    (void)ctx;
    if (level == LOG_LEVEL_WARN && memmem(line, n, "another instance may use this key", 33) != NULL)
        twin_lines++;
}

static void test_twins(void **state)
{
    struct world w;
    char why[64];
    unsigned changes = 0;

    (void)state;
    world_init(&w);
    assert_int_equal(log_set_levels("warn", why, sizeof why), 0);
    log_set_sink(count_twins, NULL);
    twin_lines = 0;
    world_relay_start(&w, 0);
    w.client[1].key = w.client[0].key;
    for (int i = 0; i < 2; i++) {
        world_client_start(&w, i, NULL);
        world_add(&w, i, 0);
    }
    size_t was[2] = {0, 0};
    for (int ms = 0; ms < 60000; ms++) {
        world_run(&w, NS_PER_MS);
        for (int i = 0; i < 2; i++) {
            changes += world_sessions(&w, i) != was[i];
            was[i] = world_sessions(&w, i);
        }
    }
    assert_true(changes < 20);
    struct relay_stat s;
    relay_stat(w.relay[0], &s);
    assert_true(s.accepted < 10); /* session changes at the server, both clients together */
    world_run(&w, 600 * NS_PER_S);
    assert_true(twin_lines >= 2);
    assert_true(world_stat(&w, 0).twin_evictions > 0);
    assert_true(world_stat(&w, 1).twin_evictions > 0);
    relay_stat(w.relay[0], &s);
    assert_true(s.accepted < 20);
    /* One of them ends: the other one has the key for itself. */
    world_client_stop(&w, 1);
    world_run(&w, 800 * NS_PER_S);
    assert_int_equal(world_sessions(&w, 0), 1);
    log_set_sink(NULL, NULL);
    world_free(&w);
}

/* A relay that is killed and started again, again and again, faster than clients come back. */
static void test_restarts_are_no_twins(void **state)
{
    struct world w;

    (void)state;
    world_init(&w);
    world_relay_start(&w, 0);
    world_client_start(&w, 0, NULL);
    world_add(&w, 0, 0);
    world_up(&w, 0, 1);
    for (int i = 0; i < 20; i++) {
        world_run(&w, 2 * NS_PER_S);
        assert_int_equal(world_sessions(&w, 0), 1);
        world_relay_stop(&w, 0);
        world_run(&w, 30 * NS_PER_MS);
        world_relay_start(&w, 0);
        for (int s = 0; s < 61 && world_sessions(&w, 0) == 0; s++)
            world_run(&w, NS_PER_S);
        assert_int_equal(world_sessions(&w, 0), 1);
    }
    assert_int_equal(world_stat(&w, 0).twin_evictions, 0);
    world_free(&w);
}

/* ---- pipes inside the process ---- */

static void test_attach(void **state)
{
    struct pipe_conn *a, *b;
    struct world w;

    (void)state;
    world_init(&w);
    world_relay_start(&w, 0);
    struct client_cfg cfg = world_cfg(&w, 0);
    cfg.hold_ms = 1;
    world_client_start(&w, 0, &cfg);
    pipe_pair(&w.net, &a, &b);
    relay_accept(w.relay[0], &b->conn, true);
    assert_int_equal(client_attach(w.client[0].c, &w.relay_key[0].pk, &a->conn), 0);
    world_up(&w, 0, 1);
    struct pubkey pk[2];
    assert_int_equal(client_delegated(w.client[0].c, pk, 2), 1);
    pipe_pair(&w.net, &a, &b);
    conn_close(&b->conn);
    assert_int_equal(client_attach(w.client[0].c, &w.relay_key[0].pk, &a->conn), ERR_EXISTS);
    world_relay_stop(&w, 0); /* the pipe ends; there is no address */
    world_run(&w, 60 * NS_PER_S);
    assert_int_equal(w.net.dials, 0);
    assert_int_equal(world_sessions(&w, 0), 0);

    world_relay_start(&w, 0);
    pipe_pair(&w.net, &a, &b);
    relay_accept(w.relay[0], &b->conn, true);
    assert_int_equal(client_attach(w.client[0].c, &w.relay_key[0].pk, &a->conn), 0);
    world_up(&w, 0, 1);
    world_add(&w, 0, 0);
    world_run(&w, 60 * NS_PER_S);
    assert_int_equal(w.net.dials, 0);
    world_relay_stop(&w, 0);
    world_relay_start(&w, 0);
    world_run(&w, 5 * NS_PER_S);
    assert_int_equal(w.net.dials, 1);
    assert_int_equal(world_sessions(&w, 0), 1);
    world_free(&w);
}

/* ---- servers whose address has to be found ---- */

struct finder {
    struct world *w;
    unsigned asked;
    int err; /* ERR_PENDING: no answer */
};

static void find_server(void *arg, const struct pubkey *server)
{
    struct finder *f = arg;

    assert_true(pubkey_equal(server, &f->w->relay_key[3].pk));
    f->asked++;
    if (f->err != ERR_PENDING)
        client_server_found(f->w->client[0].c, server, f->err, world_addr(3));
}

static int dial_over_unknown(struct world *w, struct finder *f, int err)
{
    struct app a;

    f->err = err;
    app_init(&a, w);
    app_dial(&a, 0, &w->client[1].key.pk, 80, 20000);
    int rc = app_wait_open(&a);
    app_close(&a);
    app_free(&a);
    world_run(w, 70 * NS_PER_S); /* memory of failure */
    return rc;
}

static void test_find_server(void **state)
{
    struct world w;
    struct finder f = {.w = &w};

    (void)state;
    world_init(&w);
    world_relay_start(&w, 3);
    world_join(&w, 1, 3);
    world_up(&w, 1, 1);
    struct client_cfg cfg = world_cfg(&w, 0);
    cfg.hooks = (struct client_hooks){.arg = &f, .find_server = find_server};
    world_client_start(&w, 0, &cfg);
    assert_int_equal(client_add_route(w.client[0].c, &w.client[1].key.pk, &w.relay_key[3].pk), 0);
    assert_int_equal(dial_over_unknown(&w, &f, ERR_NOT_FOUND), ERR_DMSG_CANNOT_CONNECT);
    assert_int_equal(dial_over_unknown(&w, &f, ERR_PENDING), ERR_TIMEOUT); /* after 10 s */
    assert_int_equal(f.asked, 2);
    assert_int_equal(dial_over_unknown(&w, &f, 0), 0);
    assert_int_equal(f.asked, 3);
    assert_int_equal(dial_over_unknown(&w, &f, 0), 0); /* the address is known now */
    assert_int_equal(f.asked, 3);
    world_free(&w);
}

/* ---- ping ---- */

struct pinged {
    int calls, err;
    uint64_t rtt_ns;
};

static void on_ping(void *arg, int err, uint64_t rtt_ns)
{
    struct pinged *p = arg;

    p->calls++;
    p->err = err;
    p->rtt_ns = rtt_ns;
}

static void test_ping(void **state)
{
    struct pinged p = {0}, q = {0};
    struct world w;

    (void)state;
    world_init(&w);
    w.net.fault.delay_ns = 15 * NS_PER_MS;
    world_relay_start(&w, 0);
    world_join(&w, 0, 0);
    struct client *c = w.client[0].c;
    const struct pubkey *pk = &w.relay_key[0].pk;
    assert_int_equal(client_ping_server(c, pk, 1000, on_ping, &p), ERR_NOT_FOUND);
    world_up(&w, 0, 1);
    world_run(&w, NS_PER_S);
    assert_int_equal(client_ping_server(c, pk, 1000, on_ping, &p), 0);
    assert_int_equal(client_ping_server(c, pk, 1000, on_ping, &q), 0); /* shares it */
    assert_int_equal(p.calls, 0);
    world_run(&w, NS_PER_S);
    assert_int_equal(p.calls + q.calls, 2);
    assert_int_equal(p.err, 0);
    assert_int_equal(p.rtt_ns, 30 * NS_PER_MS);
    assert_int_equal(q.rtt_ns, p.rtt_ns);
    assert_int_equal(world_info(&w, 0, 0).rtt_ns, p.rtt_ns);
    assert_int_equal(client_ping_server(c, pk, 10, on_ping, &p), 0);
    world_run(&w, NS_PER_S);
    assert_int_equal(p.err, ERR_TIMEOUT);
    assert_int_equal(client_ping_server(c, pk, 5000, on_ping, &p), 0);
    world_relay_stop(&w, 0);
    world_run(&w, NS_PER_S);
    assert_int_equal(p.calls, 3);
    assert_int_equal(p.err, ERR_DMSG_SESSION_CLOSED);
    world_relay_start(&w, 0);
    world_up(&w, 0, 1);
    assert_int_equal(client_ping_server(c, pk, 5000, on_ping, &p), 0);
    world_client_stop(&w, 0); /* with one under way: nobody is called */
    assert_int_equal(p.calls, 3);
    world_free(&w);
}

/* ---- a session on demand ---- */

struct connected {
    int calls;
    struct client_connect_report r;
};

static void on_connect(void *arg, const struct client_connect_report *r)
{
    struct connected *x = arg;

    x->calls++;
    x->r = *r;
}

static struct client_connect_report connect_to(struct world *w, int relay, unsigned ms)
{
    struct connected x = {0};

    assert_int_equal(client_connect(w->client[0].c, &w->relay_key[relay].pk, ms, on_connect, &x),
                     0);
    assert_int_equal(x.calls, 0); /* never from inside */
    world_run(w, 20 * NS_PER_S);
    assert_int_equal(x.calls, 1);
    return x.r;
}

static void test_connect(void **state)
{
    struct world w;
    struct finder f = {.w = &w, .err = ERR_NOT_FOUND};
    struct connected left = {0};

    (void)state;
    world_init(&w);
    struct client_cfg cfg = world_cfg(&w, 0);
    cfg.hooks = (struct client_hooks){.arg = &f, .find_server = find_server};
    world_client_start(&w, 0, &cfg);
    /* The address is not found, or not in time; then nobody listens there. */
    struct client_connect_report r = connect_to(&w, 3, 5000);
    assert_int_equal(r.err, ERR_NOT_FOUND);
    assert_int_equal(r.phase, CLIENT_CONNECT_FIND);
    assert_string_equal(r.addr, "");
    f.err = ERR_PENDING;
    r = connect_to(&w, 3, 300);
    assert_int_equal(r.err, ERR_TIMEOUT);
    assert_int_equal(r.phase, CLIENT_CONNECT_FIND);
    assert_int_equal(r.total_ns, 300 * NS_PER_MS);
    assert_int_equal(r.find_ns, 300 * NS_PER_MS);
    f.err = 0;
    r = connect_to(&w, 3, 5000);
    assert_true(r.err != 0);
    assert_int_equal(r.phase, CLIENT_CONNECT_TCP);
    assert_string_equal(r.addr, world_addr(3));
    /* There it is: what failed a moment ago does not count. */
    world_relay_start(&w, 3);
    w.net.fault.delay_ns = 10 * NS_PER_MS;
    r = connect_to(&w, 3, 5000);
    assert_int_equal(r.err, 0);
    assert_int_equal(r.phase, CLIENT_CONNECT_UP);
    assert_false(r.existed);
    assert_true(r.handshake_ns >= 20 * NS_PER_MS);
    assert_int_equal(r.total_ns, r.find_ns + r.tcp_ns + r.handshake_ns);
    r = connect_to(&w, 3, 5000);
    assert_true(r.err == 0 && r.existed && r.total_ns == 0);
    /* Nobody holds it: it goes after a while. And a client that ends forgets who asks. */
    world_run(&w, 300 * NS_PER_S);
    assert_int_equal(world_sessions(&w, 0), 0);
    assert_int_equal(client_connect(w.client[0].c, &w.relay_key[3].pk, 5000, on_connect, &left), 0);
    world_run(&w, 5 * NS_PER_MS);
    world_client_stop(&w, 0);
    world_run(&w, NS_PER_S);
    assert_int_equal(left.calls, 0);
    world_free(&w);
}

/* Somebody else answers at the address: the handshake fails, and that is what is told. */
static void test_connect_to_another_key(void **state)
{
    struct world w;

    (void)state;
    world_init(&w);
    world_relay_start(&w, 1);
    struct client_cfg cfg = world_cfg(&w, 0);
    world_client_start(&w, 0, &cfg);
    assert_int_equal(client_add_server(w.client[0].c, &w.relay_key[2].pk, world_addr(1)), 0);
    struct client_connect_report r = connect_to(&w, 2, 9000);
    assert_true(r.err != 0);
    assert_int_equal(r.phase, CLIENT_CONNECT_HANDSHAKE);
    world_free(&w);
}

/* ---- IP look-up ---- */

struct looked_up {
    int calls, err;
    uint8_t ip[16];
    size_t n;
    struct pubkey server;
};

static void on_ip(void *arg, int err, const uint8_t *ip, size_t n, const struct pubkey *server)
{
    struct looked_up *l = arg;

    l->calls++;
    l->err = err;
    l->n = n;
    if (n > 0) {
        memcpy(l->ip, ip, n);
        l->server = *server;
    }
}

static void set_address(struct world *w, const char *peer, const uint8_t ip[4])
{
    for (struct pipe_conn *c = w->net.conns; c != NULL; c = c->next) {
        if (c->open && strcmp(c->conn.peer, peer) == 0)
            memcpy(c->other->conn.peer_ip, ip, 4);
    }
}

static void test_ip_look_up(void **state)
{
    static const uint8_t public_ip[4] = {8, 9, 10, 11}, private_ip[4] = {192, 168, 1, 2};
    struct looked_up l = {0};
    struct world w;

    (void)state;
    world_init(&w);
    world_client_start(&w, 0, NULL);
    struct client *c = w.client[0].c;
    assert_int_equal(client_lookup_ip(c, 5000, on_ip, &l), 0);
    assert_int_equal(l.calls, 0);
    world_run(&w, 0);
    assert_int_equal(l.calls, 1);
    assert_int_equal(l.err, ERR_NO_ROUTE);

    for (int i = 0; i < 3; i++) {
        world_relay_start(&w, i);
        world_add(&w, 0, i);
    }
    world_up(&w, 0, 3);
    set_address(&w, "r0:1", private_ip);
    set_address(&w, "r1:1", public_ip);
    assert_int_equal(client_lookup_ip(c, 5000, on_ip, &l), 0);
    world_run(&w, NS_PER_S);
    assert_int_equal(l.calls, 2); /* the private one was not good enough */
    assert_int_equal(l.err, 0);
    assert_int_equal(l.n, 4);
    assert_memory_equal(l.ip, public_ip, 4);
    assert_true(pubkey_equal(&l.server, &w.relay_key[1].pk));

    set_address(&w, "r1:1", private_ip); /* nobody knows better */
    assert_int_equal(client_lookup_ip(c, 5000, on_ip, &l), 0);
    world_run(&w, NS_PER_S);
    assert_int_equal(l.err, 0);
    assert_int_equal(l.n, 4);

    world_run(&w, 40 * NS_PER_S);
    assert_int_equal(world_stat(&w, 0).ports, 0);
    assert_int_equal(client_lookup_ip(c, 5000, on_ip, &l), 0);
    for (int i = 0; i < 3; i++)
        world_relay_stop(&w, i);
    world_run(&w, NS_PER_S);
    assert_int_equal(l.calls, 4);
    assert_true(l.err < 0);
    assert_int_equal(client_lookup_ip(c, 5000, on_ip, &l), 0);
    world_client_stop(&w, 0);
    assert_int_equal(l.calls, 4);
    world_free(&w);
}

/* ---- work that is pending when everything ends ---- */

static void test_free_at_any_time(void **state)
{
    (void)state;
    for (size_t steps = 0; steps < 60; steps++) {
        struct looked_up l = {0};
        struct world w;
        struct app a, b;

        world_init(&w);
        world_relay_start(&w, 0);
        world_join(&w, 0, 0);
        world_join(&w, 1, 0);
        world_up(&w, 0, 1);
        world_up(&w, 1, 1);
        w.env.deferred = true;
        w.net.pk_per_turn = 1;
        w.net.fault.delay_ns = NS_PER_MS;
        app_init(&a, &w);
        app_init(&b, &w);
        app_dial(&a, 0, &w.client[1].key.pk, 80, 20000);
        app_dial(&b, 1, &w.client[1].key.pk, 81, 20000);
        assert_int_equal(client_lookup_ip(w.client[1].c, 5000, on_ip, &l), 0);
        world_run(&w, steps * NS_PER_MS / 4);
        /* Streams go without a callback. */
        a.st = b.st = NULL;
        for (size_t i = 0; i < w.client[1].n_in; i++)
            w.client[1].in[i].st = NULL;
        world_client_stop(&w, (int)(steps % 2));
        world_run(&w, NS_PER_MS);
        app_free(&a);
        app_free(&b);
        world_free(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reconnect),
        cmocka_unit_test(test_back_off),
        cmocka_unit_test(test_silent_server),
        cmocka_unit_test(test_want),
        cmocka_unit_test(test_flapping_server),
        cmocka_unit_test(test_lost_server),
        cmocka_unit_test(test_all_lost),
        cmocka_unit_test(test_new_address),
        cmocka_unit_test(test_remove_server),
        cmocka_unit_test(test_session_limit),
        cmocka_unit_test(test_draining_server),
        cmocka_unit_test(test_twins),
        cmocka_unit_test(test_restarts_are_no_twins),
        cmocka_unit_test(test_attach),
        cmocka_unit_test(test_find_server),
        cmocka_unit_test(test_ping),
        cmocka_unit_test(test_connect),
        cmocka_unit_test(test_connect_to_another_key),
        cmocka_unit_test(test_ip_look_up),
        cmocka_unit_test(test_free_at_any_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
