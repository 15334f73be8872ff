/* link: sessions over bad pipes. */
#include "transport/link.h"

#include "base/err.h"
#include "tests/unit/prop.h"
#include "tests/unit/transport/pipe.h"
#include "tests/unit/vectors.h"

/* ---- two links over a pair, with owners that write down what they hear ---- */

struct end {
    struct fixture *f;
    struct link *link;
    struct pipe_conn *conn;
    char log
        [64]; /* U up, O opened, A acked, R readable, E eof, W writable, X reset, P pong, G go away, D down */
    int err;
    struct yamux_stream *st; /* the last one opened by the peer */
    size_t got;              /* bytes read by the default owner */
    bool echo, keep;         /* write back what comes; do not read */
    char close_at;           /* close the link when this letter is written down */
    void (*hook)(struct end *e, const struct yamux_event *ev);
};

struct fixture {
    struct env_test env;
    struct bufpool *pool;
    struct pipe_net net;
    struct seckey sk[2];
    struct pubkey pk[2];
    struct end end[2]; /* 0 is the initiator */
};

static void note(struct end *e, char what)
{
    size_t n = strlen(e->log);
    if (n + 1 < sizeof e->log)
        e->log[n] = what;
    if (e->close_at == what && e->link != NULL) {
        link_close(e->link);
        e->link = NULL;
    }
}

static void on_up(struct link *l)
{
    note(link_arg(l), 'U');
}

static void on_down(struct link *l, int err)
{
    struct end *e = link_arg(l);
    e->err = err;
    note(e, 'D');
}

static void read_all(struct end *e, struct yamux_stream *st)
{
    uint8_t buf[4096];
    size_t n;
    while (!e->keep && (n = yamux_read(st, buf, sizeof buf)) > 0) {
        e->got += n;
        if (e->echo)
            assert_int_equal(yamux_write(st, buf, n), n);
    }
}

static void on_event(struct link *l, const struct yamux_event *ev)
{
    static const char letters[] = "OAREWXPG";
    struct end *e = link_arg(l);
    for (unsigned bit = 0; bit < 8; bit++) {
        if (ev->what & (1u << bit))
            note(e, letters[bit]);
        if (e->link == NULL)
            return;
    }
    if (e->hook != NULL) {
        e->hook(e, ev);
        return;
    }
    if (ev->what & YAMUX_OPENED) {
        e->st = ev->stream;
        assert_int_equal(yamux_accept(ev->stream), 0);
    }
    if (ev->what & YAMUX_READABLE)
        read_all(e, ev->stream);
    if (ev->what & YAMUX_RESET) {
        yamux_release(ev->stream, false);
        e->st = NULL;
    }
}

static const struct link_owner owner = {on_up, on_event, on_down};

static struct session_cfg cfg_of(struct fixture *f, int i)
{
    struct session_cfg cfg = {
        .env = &f->env.env,
        .pool = f->pool,
        .initiator = i == 0,
        .self = f->pk[i],
        .sk = &f->sk[i],
        .keepalive_ms = 30000,
    };
    if (i == 0)
        cfg.remote = f->pk[1];
    return cfg;
}

static void start(struct fixture *f)
{
    pipe_pair(&f->net, &f->end[0].conn, &f->end[1].conn);
    for (int i = 0; i < 2; i++) {
        struct session_cfg cfg = cfg_of(f, i);
        f->end[i].f = f;
        f->end[i].link = link_new(&f->net.loop, &f->end[i].conn->conn, &cfg, &owner, &f->end[i]);
        assert_non_null(f->end[i].link);
    }
}

static void start_up(struct fixture *f)
{
    start(f);
    pipe_net_run(&f->net, NS_PER_S);
    for (int i = 0; i < 2; i++) {
        assert_string_equal(f->end[i].log, "U");
        memset(f->end[i].log, 0, sizeof f->end[i].log);
    }
}

static struct yamux_stream *open_stream(struct end *e)
{
    struct yamux_stream *st;
    assert_int_equal(yamux_open(link_mux(e->link), NULL, pipe_now(&e->f->net), &st), 0);
    link_kick(e->link);
    return st;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    env_test_init(&f->env, 1);
    f->pool = bufpool_new(NULL);
    assert_non_null(f->pool);
    pipe_net_init(&f->net, f->pool, &f->env);
    for (int i = 0; i < 2; i++)
        env_keypair(&f->env.env, &f->sk[i], &f->pk[i]);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 2; i++)
        if (f->end[i].link != NULL)
            link_close(f->end[i].link);
    pipe_net_free(&f->net);
    assert_int_equal(bufpool_in_use(f->pool), 0);
    bufpool_free(f->pool);
    env_test_close(&f->env);
    free(f);
    return 0;
}

/* ---- tests ---- */

static void test_up_and_echo(void **state)
{
    struct fixture *f = *state;
    start_up(f);
    assert_true(pubkey_equal(link_remote(f->end[0].link), &f->pk[1]));
    assert_true(pubkey_equal(link_remote(f->end[1].link), &f->pk[0]));
    f->end[1].echo = true;
    struct yamux_stream *st = open_stream(&f->end[0]);
    assert_int_equal(yamux_write(st, "hello", 5), 5);
    pipe_net_run(&f->net, NS_PER_S);
    assert_int_equal(f->end[0].got, 5);
    assert_string_equal(f->end[1].log, "OR");
    assert_string_equal(f->end[0].log, "AR");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(test_up_and_echo),
#undef T
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
