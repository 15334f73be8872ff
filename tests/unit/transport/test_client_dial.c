/* client: the ladder of a dial. */
#include "tests/unit/transport/client_world.h"

#include "base/list.h"

/* ---- a resolver ---- */

struct fixture {
    struct world w;
    struct app a;
    /* what the resolver answers; err ERR_PENDING: never */
    int err, fresh_err;
    struct client_route route, fresh_route;
    uint64_t ticket;
    unsigned asked, cancelled, distrusted, flags;
    bool later; /* the test answers */
};

static void route_to(struct client_route *r, const struct fixture *f, int relay)
{
    r->servers[r->n_servers++] = f->w.relay_key[relay].pk;
}

static void answer(struct fixture *f, unsigned flags)
{
    bool fresh = (flags & CLIENT_RESOLVE_FRESH) != 0;
    int err = fresh ? f->fresh_err : f->err;

    if (err != ERR_PENDING)
        client_resolved(f->w.client[0].c, f->ticket, err, fresh ? &f->fresh_route : &f->route);
}

static void on_resolve(void *arg, uint64_t ticket, const struct pubkey *pk, unsigned flags)
{
    struct fixture *f = arg;

    assert_false(pubkey_is_null(pk));
    f->ticket = ticket;
    f->flags = flags;
    f->asked++;
    if (!f->later)
        answer(f, flags);
}

static void on_cancel(void *arg, uint64_t ticket)
{
    struct fixture *f = arg;

    assert_true(ticket <= f->ticket);
    f->cancelled++;
}

static void on_distrust(void *arg, const struct pubkey *pk)
{
    struct fixture *f = arg;

    assert_true(pubkey_equal(pk, &f->w.client[1].key.pk));
    f->distrusted++;
}

/* Client 0 asks the resolver, client 1 is at relay `at` (-1: nowhere). Relays 0 … n-1 run; client 0
 * knows all addresses and holds a session to relay 0. */
static void start(struct fixture *f, int relays, int at)
{
    memset(f, 0, sizeof *f);
    world_init(&f->w);
    for (int i = 0; i < relays; i++)
        world_relay_start(&f->w, i);
    struct client_cfg cfg = world_cfg(&f->w, 0);
    cfg.want = 1;
    cfg.hooks = (struct client_hooks){
        .arg = f, .resolve = on_resolve, .resolve_cancel = on_cancel, .distrust = on_distrust};
    world_client_start(&f->w, 0, &cfg);
    for (int i = 0; i < WORLD_RELAYS; i++)
        assert_int_equal(client_add_server(f->w.client[0].c, &f->w.relay_key[i].pk, world_addr(i)),
                         0);
    if (at >= 0) {
        world_join(&f->w, 1, at);
        world_up(&f->w, 1, 1);
    }
    world_up(&f->w, 0, 1);
    app_init(&f->a, &f->w);
}

static void check_gauges(struct fixture *f, size_t streams)
{
    struct client_stat s;

    client_stat(f->w.client[0].c, &s);
    assert_int_equal(s.streams, streams);
    assert_int_equal(s.ports, streams);
}

static void stop(struct fixture *f)
{
    app_close(&f->a);
    app_free(&f->a);
    if (f->w.client[0].c != NULL) {
        world_run(&f->w, NS_PER_S);
        check_gauges(f, 0);
    }
    world_free(&f->w);
}

static int dial(struct fixture *f, uint16_t port)
{
    app_close(&f->a);
    app_free(&f->a);
    app_init(&f->a, &f->w);
    app_dial(&f->a, 0, &f->w.client[1].key.pk, port, 20000);
    return app_wait_open(&f->a);
}

static const char *steps_text(struct fixture *f)
{
    static char text[4096];
    size_t n;
    const struct client_step *s = stream_dial_steps(f->a.st, &n);

    client_steps_text(s, n, text, sizeof text);
    return text;
}

/* "P" a step of phase P that worked, "p" one that failed, oldest first. */
static const char *steps_letters(struct fixture *f)
{
    static const char letters[] = "RECMB";
    static char text[25];
    size_t n;
    const struct client_step *s = stream_dial_steps(f->a.st, &n);

    for (size_t i = 0; i < n; i++) {
        char c = letters[s[i].phase];
        text[i] = (char)(s[i].err == 0 ? c : c + 'a' - 'A');
    }
    text[n] = '\0';
    return text;
}

/* ---- what works ---- */

static void test_existing_session(void **state)
{
    struct fixture f;

    (void)state;
    start(&f, 2, 0);
    route_to(&f.route, &f, 1);
    route_to(&f.route, &f, 0);
    assert_int_equal(dial(&f, 80), 0);
    assert_string_equal(steps_letters(&f), "RE");
    assert_true(pubkey_equal(stream_via(f.a.st), &f.w.relay_key[0].pk));
    assert_int_equal(f.distrusted, 0);
    check_gauges(&f, 1);
    stop(&f);
}

static void test_new_session(void **state)
{
    struct fixture f;

    (void)state;
    start(&f, 2, 1);
    route_to(&f.route, &f, 1);
    assert_int_equal(dial(&f, 80), 0);
    assert_string_equal(steps_letters(&f), "RmC");
    assert_true(pubkey_equal(stream_via(f.a.st), &f.w.relay_key[1].pk));
    /* The session is not one to hold: it goes some minutes after its last stream, and is not in the
     * published list. */
    struct pubkey pk[4];
    assert_int_equal(client_delegated(f.w.client[0].c, pk, 4), 1);
    for (int i = 0; i < 6; i++) { /* in use: stays */
        assert_int_equal(stream_write(f.a.st, "x", 1), 1);
        world_run(&f.w, 100 * NS_PER_S);
    }
    struct client_stat s;
    client_stat(f.w.client[0].c, &s);
    assert_int_equal(s.sessions_up, 2);
    app_close(&f.a);
    world_run(&f.w, 240 * NS_PER_S);
    client_stat(f.w.client[0].c, &s);
    assert_int_equal(s.sessions_up, 1);
    assert_int_equal(s.session_lost, 0);
    stop(&f);
}

/* A stale entry names a server where the key is not; another session of ours leads there. */
static void test_other_session(void **state)
{
    struct fixture f;

    (void)state;
    start(&f, 2, 0);
    route_to(&f.route, &f, 1);
    assert_int_equal(dial(&f, 80), 0);
    assert_string_equal(steps_letters(&f), "RM");
    stop(&f);
}

/* Two servers listed that are down, the third is right. */
static void test_more_new_sessions(void **state)
{
    struct fixture f;

    (void)state;
    start(&f, 4, 3);
    route_to(&f.route, &f, 6);
    route_to(&f.route, &f, 5);
    route_to(&f.route, &f, 3);
    assert_int_equal(dial(&f, 80), 0);
    assert_string_equal(steps_letters(&f), "RmccC");
    stop(&f);
}

static void test_static_route_and_self(void **state)
{
    struct fixture f;

    (void)state;
    start(&f, 2, 1);
    assert_int_equal(client_add_route(f.w.client[0].c, &f.w.client[1].key.pk, &f.w.relay_key[1].pk),
                     0);
    assert_int_equal(dial(&f, 80), 0);
    assert_string_equal(steps_letters(&f), "C");
    assert_int_equal(f.asked, 0);
    /* The own key: loops back over the same session. */
    app_close(&f.a);
    app_free(&f.a);
    app_init(&f.a, &f.w);
    route_to(&f.route, &f, 0);
    assert_int_equal(client_listen(f.w.client[0].c, 80, client_accepts, &f.w.client[0]), 80);
    app_dial(&f.a, 0, &f.w.client[0].key.pk, 80, 20000);
    assert_int_equal(app_wait_open(&f.a), 0);
    app_send(&f.a, "me", 2);
    world_run(&f.w, NS_PER_S);
    assert_int_equal(f.w.client[0].in[0].got_n, 2);
    app_close(&f.a);
    app_close(&f.w.client[0].in[0]);
    client_unlisten(f.w.client[0].c, 80);
    stop(&f);
}

/* The first answer is old: the resolver is told, and asked past its caches. */
static void test_fresh_entry(void **state)
{
    struct fixture f;

    (void)state;
    start(&f, 3, 2);
    route_to(&f.route, &f, 1);
    route_to(&f.fresh_route, &f, 2);
    assert_int_equal(dial(&f, 80), 0);
    assert_int_equal(f.asked, 2);
    assert_int_equal(f.distrusted, 1);
    assert_int_equal(f.flags, CLIENT_RESOLVE_FRESH);
    assert_string_equal(steps_letters(&f), "RmcRC");
    stop(&f);
}

static void test_local_look_up(void **state)
{
    struct fixture f;

    (void)state;
    start(&f, 1, 0);
    f.err = ERR_NOT_FOUND;
    assert_int_equal(client_dial(f.w.client[0].c, &f.w.client[1].key.pk, 80, 20000,
                                 CLIENT_DIAL_LOCAL, &app_cb, &f.a, &f.a.st),
                     0);
    assert_int_equal(app_wait_open(&f.a), 0);
    assert_int_equal(f.flags, CLIENT_DIAL_LOCAL);
    assert_string_equal(steps_letters(&f), "rM");
    stop(&f);
}

static bool all_open(void *arg)
{
    struct app *a = arg;
    for (int i = 0; i < 50; i++) {
        if (!app_saw(&a[i], 'O'))
            return false;
    }
    return true;
}

/* 50 dials at once, one new session (incident 12). */
static void test_single_flight(void **state)
{
    static struct app a[50];
    struct fixture f;

    (void)state;
    start(&f, 2, 1);
    route_to(&f.route, &f, 1);
    uint64_t before = f.w.net.dials;
    for (int i = 0; i < 50; i++) {
        app_init(&a[i], &f.w);
        app_dial(&a[i], 0, &f.w.client[1].key.pk, 80, 20000);
    }
    world_until(&f.w, all_open, a);
    assert_int_equal(f.w.net.dials - before, 1);
    check_gauges(&f, 50);
    for (int i = 0; i < 50; i++) {
        app_close(&a[i]);
        app_free(&a[i]);
    }
    stop(&f);
}

/* ---- what does not ---- */

static void test_refused_port(void **state)
{
    struct fixture f;

    (void)state;
    start(&f, 1, 0);
    route_to(&f.route, &f, 0);
    for (int i = 0; i < 3; i++) { /* no back-off: the destination answers */
        assert_int_equal(dial(&f, 81), ERR_DMSG_NO_LISTENER);
        assert_string_equal(steps_letters(&f), "Re");
    }
    assert_non_null(strstr(steps_text(&f), "r0:1: dmsg error 306"));
    assert_int_equal(f.distrusted, 0);
    assert_int_equal(dial(&f, 80), 0);
    stop(&f);
}

static void test_not_found(void **state)
{
    struct fixture f;

    (void)state;
    start(&f, 1, -1);
    f.err = ERR_NOT_FOUND;
    uint64_t before = pipe_now(&f.w.net);
    assert_int_equal(dial(&f, 80), ERR_NOT_FOUND);
    assert_true(pipe_now(&f.w.net) - before < NS_PER_S);
    assert_string_equal(steps_letters(&f), "rm");
    assert_int_equal(f.distrusted, 0);
    stop(&f);
}

static void test_no_way(void **state)
{
    struct fixture f;

    (void)state;
    start(&f, 1, -1);
    world_relay_stop(&f.w, 0);
    world_run(&f.w, NS_PER_S);
    assert_int_equal(dial(&f, 80), ERR_NO_ROUTE); /* an entry without servers */
    assert_string_equal(steps_letters(&f), "RR");
    stop(&f);
}

/* Dead, refusing and silent servers: the error text names each with phase, reason and time
 * (incident 34). */
static void silent(void *arg, struct conn *conn)
{
    *(struct conn **)arg = conn;
}

static void down_silently(void *arg, int err)
{
    (void)arg, (void)err;
}

static void input_silently(void *arg, struct slice in, uint64_t now_ns)
{
    (void)arg, (void)in, (void)now_ns;
}

static int output_nothing(void *arg, struct iovec *iov, int max, uint64_t now_ns)
{
    (void)arg, (void)iov, (void)max, (void)now_ns;
    return 0;
}

static void sent_nothing(void *arg, size_t n, uint64_t now_ns)
{
    (void)arg, (void)n, (void)now_ns;
}

static void up_silently(void *arg)
{
    (void)arg;
}

static const struct conn_user silent_user = {up_silently, input_silently, output_nothing,
                                             sent_nothing, down_silently};

static void accept_silently(void *arg, struct conn *conn)
{
    silent(arg, conn);
    conn_set_user(conn, &silent_user, NULL);
}

static void test_dead_servers(void **state)
{
    struct fixture f;
    struct conn *hung = NULL;

    (void)state;
    start(&f, 1, -1);
    pipe_listen(&f.w.net, world_addr(2), accept_silently, &hung);
    route_to(&f.route, &f, 1); /* nobody listens */
    route_to(&f.route, &f, 2); /* accepts and never answers */
    f.fresh_route = f.route;
    uint64_t before = pipe_now(&f.w.net);
    assert_int_equal(dial(&f, 80), ERR_DMSG_CANNOT_CONNECT);
    uint64_t took = pipe_now(&f.w.net) - before;
    assert_true(took >= 5 * NS_PER_S && took < 6 * NS_PER_S);
    assert_string_equal(steps_letters(&f), "RmccR");
    const char *text = steps_text(&f);
    assert_non_null(strstr(text, "look-up: worked"));
    assert_non_null(strstr(text, "r1:1: refused after "));
    assert_non_null(strstr(text, "r2:1: timed out after 5000 ms"));
    assert_non_null(strstr(text, "mesh "));
    assert_int_equal(f.distrusted, 1);
    conn_close(hung);
    stop(&f);
}

/* An entry naming 8 servers of which 7 hang (incident 34), with sessions to all, and with none. */
static void test_seven_of_eight_hang(void **state)
{
    struct fixture f;

    (void)state;
    start(&f, 8, 7);
    struct client_cfg cfg = world_cfg(&f.w, 2);
    world_client_start(&f.w, 2, &cfg);
    for (int i = 0; i < 8; i++) {
        assert_int_equal(client_add_server(f.w.client[2].c, &f.w.relay_key[i].pk, world_addr(i)),
                         0);
        assert_int_equal(
            client_add_route(f.w.client[2].c, &f.w.client[1].key.pk, &f.w.relay_key[i].pk), 0);
    }
    world_up(&f.w, 2, 8);
    int frozen = 0;
    for (struct pipe_conn *c = f.w.net.conns; c != NULL; c = c->next) {
        if (c->conn.peer[0] == 'r' && strcmp(c->conn.peer, world_addr(7)) != 0) {
            c->out.frozen = true;
            frozen++;
        }
    }
    assert_int_equal(frozen, 8); /* and the one of client 0 */
    uint64_t before = pipe_now(&f.w.net);
    app_dial(&f.a, 2, &f.w.client[1].key.pk, 80, 20000);
    assert_int_equal(app_wait_open(&f.a), 0);
    assert_true(pipe_now(&f.w.net) - before < 6 * NS_PER_S);
    app_close(&f.a);
    world_client_stop(&f.w, 2);
    stop(&f);
}

static void test_seven_of_eight_do_not_connect(void **state)
{
    struct fixture f;
    struct conn *hung[8] = {NULL};

    (void)state;
    start(&f, 1, -1);
    world_relay_start(&f.w, 7);
    world_join(&f.w, 1, 7);
    world_up(&f.w, 1, 1);
    for (int i = 1; i < 8; i++) {
        route_to(&f.route, &f, i);
        if (i < 7)
            pipe_listen(&f.w.net, world_addr(i), accept_silently, &hung[i]);
    }
    uint64_t before = pipe_now(&f.w.net);
    assert_int_equal(dial(&f, 80), 0);
    assert_true(pipe_now(&f.w.net) - before < 6 * NS_PER_S);
    for (int i = 1; i < 7; i++)
        conn_close(hung[i]);
    stop(&f);
}

/* The caller's time is over: everything is taken back, and nothing is remembered. */
static void test_timeout(void **state)
{
    struct fixture f;

    (void)state;
    start(&f, 1, 0);
    f.err = ERR_PENDING;
    uint64_t before = pipe_now(&f.w.net);
    app_dial(&f.a, 0, &f.w.client[1].key.pk, 80, 1500);
    assert_int_equal(app_wait_open(&f.a), ERR_TIMEOUT);
    assert_int_equal(pipe_now(&f.w.net) - before, 1500 * NS_PER_MS);
    assert_int_equal(f.cancelled, 1);
    assert_string_equal(steps_letters(&f), "r");
    f.err = 0;
    route_to(&f.route, &f, 0);
    assert_int_equal(dial(&f, 80), 0);
    /* A late answer to the old ticket finds nobody. */
    client_resolved(f.w.client[0].c, 1, 0, &f.route);
    stop(&f);
}

static void test_late_answer(void **state)
{
    struct fixture f;

    (void)state;
    start(&f, 1, 0);
    f.later = true;
    route_to(&f.route, &f, 0);
    app_dial(&f.a, 0, &f.w.client[1].key.pk, 80, 20000);
    world_run(&f.w, 3 * NS_PER_S);
    assert_int_equal(f.asked, 1);
    answer(&f, 0);
    assert_int_equal(app_wait_open(&f.a), 0);
    stop(&f);
}

static void test_immediate_errors(void **state)
{
    struct fixture f;
    struct pubkey null = {{0}};
    struct stream *st;

    (void)state;
    start(&f, 1, 0);
    struct client *c = f.w.client[0].c;
    assert_int_equal(client_dial(c, &f.w.client[1].key.pk, 0, 1000, 0, &app_cb, NULL, &st),
                     ERR_DMSG_REQ_DST_PORT);
    assert_int_equal(client_dial(c, &null, 80, 1000, 0, &app_cb, NULL, &st), ERR_KEY);
    assert_null(st);
    stop(&f);
}

/* ---- ports (incident 17) ---- */

static void test_cancelled_dials(void **state)
{
    struct fixture f;
    struct stream *st[20];

    (void)state;
    start(&f, 1, 0);
    f.w.net.fault.delay_ns = 5 * NS_PER_MS; /* cancelled at every stage */
    f.later = true;
    route_to(&f.route, &f, 0);
    for (int i = 0; i < 20000 / 20; i++) {
        for (int k = 0; k < 20; k++) {
            assert_int_equal(client_dial(f.w.client[0].c, &f.w.client[1].key.pk,
                                         (uint16_t)(80 + k % 2), 20000, 0, NULL, NULL, &st[k]),
                             0);
            world_run(&f.w, NS_PER_MS / 2);
            answer(&f, 0);
        }
        for (int k = 0; k < 20; k++)
            stream_close(st[k]);
        check_gauges(&f, 0);
    }
    world_run(&f.w, 60 * NS_PER_S);
    struct client_stat s;
    client_stat(f.w.client[1].c, &s);
    assert_int_equal(s.streams, f.w.client[1].n_in);
    assert_true(s.accepted > 0);
    stop(&f);
}

static void test_session_kills(void **state)
{
    struct fixture f;
    struct app a[10];

    (void)state;
    start(&f, 1, 0);
    route_to(&f.route, &f, 0);
    for (int i = 0; i < 200; i++) {
        for (int k = 0; k < 10; k++) {
            app_init(&a[k], &f.w);
            app_dial(&a[k], 0, &f.w.client[1].key.pk, 81, 20000);
        }
        world_run(&f.w, 0);
        world_relay_stop(&f.w, 0);
        world_run(&f.w, 10 * NS_PER_MS);
        world_relay_start(&f.w, 0);
        world_run(&f.w, 60 * NS_PER_S);
        for (int k = 0; k < 10; k++) {
            assert_true(app_saw(&a[k], 'E'));
            app_close(&a[k]);
            app_free(&a[k]);
        }
        check_gauges(&f, 0);
    }
    world_up(&f.w, 0, 1);
    stop(&f);
}

/* Ports come in order, skip those in use and come round. */
static void test_port_order(void **state)
{
    struct fixture f;
    struct stream *st;

    (void)state;
    start(&f, 1, -1);
    f.err = ERR_PENDING;
    struct client *c = f.w.client[0].c;
    assert_int_equal(client_listen(c, 49155, client_accepts, &f.w.client[0]), 49155);
    assert_int_equal(client_listen(c, 49155, client_accepts, &f.w.client[0]),
                     ERR_DMSG_PORT_OCCUPIED);
    static const uint16_t want[] = {49153, 49154, 49156};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(client_dial(c, &f.w.client[1].key.pk, 80, 1, 0, NULL, NULL, &st), 0);
        assert_int_equal(stream_local_port(st), want[i]);
        stream_close(st);
    }
    int any = client_listen(c, 0, client_accepts, &f.w.client[0]);
    assert_int_equal(any, 49157);
    uint16_t last = 0;
    for (int i = 0; i < 16384 - 2; i++) { /* all but the two listeners, once round */
        assert_int_equal(client_dial(c, &f.w.client[1].key.pk, 80, 1, 0, NULL, NULL, &st), 0);
        last = stream_local_port(st);
        stream_close(st);
        if (i % 100 == 0)
            world_run(&f.w, 0);
    }
    assert_int_equal(last, 49156);
    client_unlisten(c, 49155);
    client_unlisten(c, (uint16_t)any);
    client_unlisten(c, 1);
    stop(&f);
}

static void test_stream_limit(void **state)
{
    struct fixture f;
    struct stream *st[5], *more;

    (void)state;
    start(&f, 1, -1);
    world_client_stop(&f.w, 0);
    struct client_cfg cfg = world_cfg(&f.w, 0);
    cfg.max_streams = 5;
    world_client_start(&f.w, 0, &cfg);
    for (int i = 0; i < 5; i++)
        assert_int_equal(
            client_dial(f.w.client[0].c, &f.w.client[1].key.pk, 80, 1000, 0, NULL, NULL, &st[i]),
            0);
    assert_int_equal(
        client_dial(f.w.client[0].c, &f.w.client[1].key.pk, 80, 1000, 0, NULL, NULL, &more),
        ERR_LIMIT);
    check_gauges(&f, 5);
    for (int i = 0; i < 5; i++)
        stream_close(st[i]);
    stop(&f);
}

/* ---- memory of failure (incident 35) ---- */

static void test_dead_destination(void **state)
{
    struct fixture f;
    struct app a[10];
    bool reached = false;

    (void)state;
    start(&f, 2, -1);
    route_to(&f.route, &f, 0);
    f.fresh_route = f.route;
    assert_int_equal(dial(&f, 80), ERR_DMSG_CANNOT_CONNECT);
    for (int i = 0; i < 10; i++)
        app_init(&a[i], &f.w);
    for (int s = 0; s < 600; s++) { /* ten callers, once a second, for ten minutes */
        for (int i = 0; i < 10; i++)
            app_dial(&a[i], 0, &f.w.client[1].key.pk, 80, 20000);
        world_run(&f.w, NS_PER_S);
        for (int i = 0; i < 10; i++) {
            assert_int_equal(a[i].err, ERR_DMSG_CANNOT_CONNECT);
            app_close(&a[i]);
            app_free(&a[i]);
            app_init(&a[i], &f.w);
        }
    }
    assert_true(f.asked <= 2 * 14); /* a ladder asks twice */
    assert_int_equal(dial(&f, 80), ERR_DMSG_CANNOT_CONNECT);
    assert_string_equal(steps_letters(&f), "b");
    assert_non_null(strstr(steps_text(&f), "not tried again yet: dmsg error 202"));
    app_close(&f.a);
    app_free(&f.a);
    app_init(&f.a, &f.w);
    assert_int_equal(client_dial(f.w.client[0].c, &f.w.client[1].key.pk, 80, 20000, CLIENT_DIAL_NOW,
                                 &app_cb, &f.a, &f.a.st),
                     0);
    assert_int_equal(app_wait_open(&f.a), ERR_DMSG_CANNOT_CONNECT);
    assert_string_equal(steps_letters(&f), "ReR"); /* a whole ladder all the same */

    world_join(&f.w, 1, 0); /* it is back */
    for (int s = 0; s < 61 && !reached; s++) {
        reached = dial(&f, 81) == ERR_DMSG_NO_LISTENER;
        world_run(&f.w, NS_PER_S);
    }
    assert_true(reached);
    assert_int_equal(dial(&f, 80), 0); /* a refusal shows that it is there */
    stop(&f);
}

/* Our own network was away: what failed meanwhile is forgotten when it is back. */
static void test_failures_without_sessions(void **state)
{
    struct fixture f;

    (void)state;
    start(&f, 1, 0);
    route_to(&f.route, &f, 0);
    f.fresh_route = f.route;
    world_relay_stop(&f.w, 0);
    for (int i = 0; i < 60; i++) {
        assert_int_not_equal(dial(&f, 80), 0);
        world_run(&f.w, 10 * NS_PER_S);
    }
    world_relay_start(&f.w, 0);
    world_up(&f.w, 1, 1);
    world_up(&f.w, 0, 1);
    assert_int_equal(dial(&f, 80), 0);
    stop(&f);
}

/* A limit of two sessions: the one that is used for nothing gives way. */
static void test_room_for_a_session(void **state)
{
    struct fixture f;

    (void)state;
    start(&f, 3, 2);
    world_client_stop(&f.w, 0);
    struct client_cfg cfg = world_cfg(&f.w, 0);
    cfg.want = 1;
    cfg.max_sessions = 2;
    world_client_start(&f.w, 0, &cfg);
    struct client *c = f.w.client[0].c;
    for (int i = 0; i < 3; i++)
        assert_int_equal(client_add_server(c, &f.w.relay_key[i].pk, world_addr(i)), 0);
    world_up(&f.w, 0, 1);
    assert_int_equal(client_add_route(c, &f.w.client[3].key.pk, &f.w.relay_key[1].pk), 0);
    app_dial(&f.a, 0, &f.w.client[3].key.pk, 80, 20000); /* fails, and leaves a session */
    assert_int_equal(app_wait_open(&f.a), ERR_DMSG_CANNOT_CONNECT);
    world_up(&f.w, 0, 2);
    assert_int_equal(client_add_route(c, &f.w.client[1].key.pk, &f.w.relay_key[2].pk), 0);
    assert_int_equal(dial(&f, 80), 0);
    world_up(&f.w, 0, 2);
    stop(&f);
}

/* Whoever dials us can be reached again. */
static void test_accepted_stream_ends_back_off(void **state)
{
    struct fixture f;
    struct app a;

    (void)state;
    start(&f, 1, -1);
    route_to(&f.route, &f, 0);
    f.fresh_route = f.route;
    assert_int_equal(client_listen(f.w.client[0].c, 80, client_accepts, &f.w.client[0]), 80);
    assert_int_not_equal(dial(&f, 80), 0);
    world_join(&f.w, 1, 0);
    world_up(&f.w, 1, 1);
    assert_int_not_equal(dial(&f, 80), 0);
    assert_string_equal(steps_letters(&f), "b");
    app_init(&a, &f.w);
    app_dial(&a, 1, &f.w.client[0].key.pk, 80, 20000);
    assert_int_equal(app_wait_open(&a), 0);
    assert_int_equal(dial(&f, 80), 0);
    app_close(&a);
    app_free(&a);
    app_close(&f.w.client[0].in[0]);
    client_unlisten(f.w.client[0].c, 80);
    stop(&f);
}

/* A dial that may not ask the network has found nothing; one that may is not held up by that. */
static void test_local_failure_does_not_hold_up_others(void **state)
{
    struct fixture f;

    (void)state;
    start(&f, 2, 1);
    f.err = ERR_NOT_FOUND;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(client_dial(f.w.client[0].c, &f.w.client[1].key.pk, 80, 20000,
                                     CLIENT_DIAL_LOCAL, &app_cb, &f.a, &f.a.st),
                         0);
        assert_int_not_equal(app_wait_open(&f.a), 0);
        assert_string_equal(steps_letters(&f), i == 0 ? "rm" : "b");
        app_close(&f.a);
        app_free(&f.a);
        app_init(&f.a, &f.w);
    }
    f.err = 0;
    route_to(&f.route, &f, 1);
    assert_int_equal(dial(&f, 80), 0);
    stop(&f);
}

/* Through one server only: nobody is asked, no other way is taken, and failing says nothing about the destination. */
static void test_through_one_server(void **state)
{
    static const struct {
        int relay, rc;
        const char *steps;
    } tries[] = {{0, 0, "E"}, {1, ERR_DMSG_CANNOT_CONNECT, "c"}, {5, ERR_DMSG_CANNOT_CONNECT, "c"}};
    struct fixture f;

    (void)state;
    start(&f, 2, 0);
    route_to(&f.route, &f, 0);
    for (size_t i = 0; i < sizeof tries / sizeof tries[0]; i++) {
        app_dial(&f.a, 0, &f.w.client[1].key.pk, 80, 20000);
        client_dial_through(f.a.st, &f.w.relay_key[tries[i].relay].pk);
        assert_int_equal(app_wait_open(&f.a), tries[i].rc);
        assert_string_equal(steps_letters(&f), tries[i].steps);
        app_close(&f.a);
        app_free(&f.a);
        app_init(&f.a, &f.w);
    }
    assert_int_equal(f.asked, 0);
    assert_int_equal(dial(&f, 80), 0);
    assert_string_equal(steps_letters(&f), "RE");
    stop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_through_one_server),
        cmocka_unit_test(test_existing_session),
        cmocka_unit_test(test_new_session),
        cmocka_unit_test(test_other_session),
        cmocka_unit_test(test_more_new_sessions),
        cmocka_unit_test(test_static_route_and_self),
        cmocka_unit_test(test_fresh_entry),
        cmocka_unit_test(test_local_look_up),
        cmocka_unit_test(test_single_flight),
        cmocka_unit_test(test_refused_port),
        cmocka_unit_test(test_not_found),
        cmocka_unit_test(test_no_way),
        cmocka_unit_test(test_dead_servers),
        cmocka_unit_test(test_seven_of_eight_hang),
        cmocka_unit_test(test_seven_of_eight_do_not_connect),
        cmocka_unit_test(test_timeout),
        cmocka_unit_test(test_late_answer),
        cmocka_unit_test(test_immediate_errors),
        cmocka_unit_test(test_cancelled_dials),
        cmocka_unit_test(test_session_kills),
        cmocka_unit_test(test_port_order),
        cmocka_unit_test(test_stream_limit),
        cmocka_unit_test(test_dead_destination),
        cmocka_unit_test(test_failures_without_sessions),
        cmocka_unit_test(test_accepted_stream_ends_back_off),
        cmocka_unit_test(test_local_failure_does_not_hold_up_others),
        cmocka_unit_test(test_room_for_a_session),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
