/* stream: data between two clients through a relay. */
#include "tests/unit/transport/client_world.h"

#define MIB (1024u * 1024u)

struct fixture {
    struct world w;
    struct app a;  /* the dialled end, of client 0 */
    struct app *b; /* the accepted end, of client 1 */
};

static bool accepted(void *arg)
{
    struct fixture *f = arg;
    return f->w.client[1].n_in > 0;
}

static void start(struct fixture *f, bool echo)
{
    memset(f, 0, sizeof *f);
    world_init(&f->w);
    world_relay_start(&f->w, 0);
    world_join(&f->w, 0, 0);
    world_join(&f->w, 1, 0);
    f->w.client[1].echo = echo;
    world_up(&f->w, 0, 1);
    world_up(&f->w, 1, 1);
    app_init(&f->a, &f->w);
}

static void open_stream(struct fixture *f)
{
    app_dial(&f->a, 0, &f->w.client[1].key.pk, 80, 20000);
    assert_int_equal(app_wait_open(&f->a), 0);
    world_until(&f->w, accepted, f);
    f->b = &f->w.client[1].in[0];
}

static void gauges_are_zero(struct fixture *f)
{
    for (int i = 0; i < 2; i++) {
        struct client_stat s;
        client_stat(f->w.client[i].c, &s);
        assert_int_equal(s.streams, 0);
        assert_int_equal(s.ports, s.listeners);
    }
}

static void stop(struct fixture *f)
{
    app_close(&f->a);
    app_free(&f->a);
    for (size_t i = 0; i < f->w.client[1].n_in; i++)
        app_close(&f->w.client[1].in[i]);
    world_run(&f->w, 60 * NS_PER_S);
    gauges_are_zero(f);
    struct relay_stat s;
    relay_stat(f->w.relay[0], &s);
    assert_int_equal(s.bridges + s.setups, 0);
    world_free(&f->w);
}

static uint8_t *some_bytes(size_t n)
{
    struct prop r = prop_init("stream");
    uint8_t *p = malloc(n + 1);

    assert_non_null(p);
    prop_bytes(&r, p, n);
    return p;
}

/* ---- sizes (incident 25) ---- */

static void echo_once(struct fixture *f, const uint8_t *data, size_t n, size_t chunk)
{
    app_free(&f->a);
    app_init(&f->a, &f->w);
    f->w.client[1].n_in = 0;
    f->a.chunk = chunk;
    open_stream(f);
    f->a.shut = true;
    f->b->chunk = chunk;
    app_send(&f->a, data, n);
    world_until(&f->w, app_is_over, &f->a);
    assert_true(f->a.eof);
    assert_int_equal(f->a.got_n, n);
    assert_memory_equal(f->a.got, data, n);
    assert_int_equal(stream_bytes_out(f->a.st), n);
    assert_int_equal(stream_bytes_in(f->a.st), n);
    app_close(&f->a);
    app_close(f->b);
    app_free(f->b);
    f->w.client[1].n_in = 0;
}

static void test_sizes(void **state)
{
    static const size_t sizes[] = {0,    1,     4069,  4070,  4071,   4095,   4096,
                                   8140, 65519, 65535, 65536, 262144, 3 * MIB};
    uint8_t *data = some_bytes(3 * MIB);
    struct fixture f;

    (void)state;
    start(&f, true);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        echo_once(&f, data, sizes[i], 0);
        echo_once(&f, data, sizes[i], sizes[i] > MIB ? 65536 : 1);
        if (sizes[i] <= 65536)
            echo_once(&f, data, sizes[i], 65536);
    }
    stop(&f);
    free(data);
}

/* Slow, chopped pipes: frames arrive split anywhere. */
static void test_bad_pipes(void **state)
{
    static const struct pipe_fault faults[] = {
        {.chunk = 1}, {.chunk = 13, .window = 700}, {.delay_ns = 80 * NS_PER_MS, .chunk = 1000}};
    uint8_t *data = some_bytes(30000);

    (void)state;
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        struct fixture f;
        memset(&f, 0, sizeof f);
        world_init(&f.w);
        f.w.net.fault = faults[i];
        world_relay_start(&f.w, 0);
        world_join(&f.w, 0, 0);
        world_join(&f.w, 1, 0);
        f.w.client[1].echo = true;
        world_up(&f.w, 0, 1);
        world_up(&f.w, 1, 1);
        app_init(&f.a, &f.w);
        echo_once(&f, data, 30000, 0);
        stop(&f);
    }
    free(data);
}

/* ---- both directions ---- */

static bool both_over(void *arg)
{
    struct fixture *f = arg;
    return f->a.eof && f->b->eof;
}

static void test_both_at_once(void **state)
{
    uint8_t *data = some_bytes(2 * MIB);
    struct fixture f;

    (void)state;
    start(&f, false);
    open_stream(&f);
    f.a.shut = f.b->shut = true;
    app_send(&f.a, data, MIB + 17);
    app_send(f.b, data + 5, 2 * MIB - 5);
    world_until(&f.w, both_over, &f);
    assert_int_equal(f.b->got_n, MIB + 17);
    assert_memory_equal(f.b->got, data, MIB + 17);
    assert_int_equal(f.a.got_n, 2 * MIB - 5);
    assert_memory_equal(f.a.got, data + 5, 2 * MIB - 5);
    assert_false(app_saw(&f.a, 'E') || app_saw(f.b, 'E'));
    stop(&f);
    free(data);
}

/* FIN of one direction leaves the other one open (incident 24). */
static void test_half_close(void **state)
{
    struct fixture f;

    (void)state;
    start(&f, false);
    open_stream(&f);
    f.a.shut = true;
    app_send(&f.a, "question", 8);
    assert_true(stream_shut(f.a.st));
    assert_int_equal(stream_write(f.a.st, "x", 1), ERR_CLOSED);
    assert_int_equal(stream_shutdown(f.a.st), 0);
    world_run(&f.w, 100 * NS_PER_MS);
    assert_true(f.b->eof);
    assert_int_equal(f.b->got_n, 8);
    assert_false(f.a.eof);
    world_run(&f.w, 10 * NS_PER_S);
    app_send(f.b, "answer", 6);
    world_run(&f.w, NS_PER_S);
    assert_int_equal(f.a.got_n, 6);
    assert_false(f.a.eof);
    assert_int_equal(stream_shutdown(f.b->st), 0);
    world_until(&f.w, app_is_over, &f.a);
    assert_true(f.a.eof && stream_eof(f.a.st));
    assert_false(app_saw(&f.a, 'E') || app_saw(f.b, 'E'));
    stop(&f);
}

/* The accepting side may write before the dialer does, right behind its response. */
static void greet(struct app *a, char what)
{
    if (what == 'A')
        app_send(a, "hello", 5);
}

static void accept_and_greet(void *arg, struct stream *st)
{
    struct fixture *f = arg;
    struct app *a = &f->w.client[1].in[f->w.client[1].n_in++];

    app_init(a, &f->w);
    app_take(a, st);
    greet(a, 'A');
}

static void test_responder_speaks_first(void **state)
{
    struct fixture f;

    (void)state;
    start(&f, false);
    assert_int_equal(client_listen(f.w.client[1].c, 81, accept_and_greet, &f), 81);
    app_dial(&f.a, 0, &f.w.client[1].key.pk, 81, 20000);
    assert_int_equal(app_wait_open(&f.a), 0);
    world_run(&f.w, NS_PER_S);
    assert_int_equal(f.a.got_n, 5);
    assert_memory_equal(f.a.got, "hello", 5);
    assert_string_equal(f.a.log, "OR");
    stop(&f);
}

/* ---- back-pressure ---- */

/* A reader that does not read: the writer stops after what windows and queues hold, nothing else
 * is affected, and all of it arrives later. */
static void test_back_pressure(void **state)
{
    uint8_t *data = some_bytes(8 * MIB);
    struct fixture f;
    struct app other;

    (void)state;
    start(&f, false);
    open_stream(&f);
    f.b->keep = true;
    app_send(&f.a, data, 8 * MIB);
    world_run(&f.w, 5 * NS_PER_S);
    size_t stuck = f.a.sent;
    assert_true(stuck > YAMUX_WINDOW);
    assert_true(stuck < 4 * YAMUX_WINDOW);
    assert_int_equal(stream_writable(f.a.st), 0);
    assert_true(stream_readable(f.b->st) >= 65536 && stream_readable(f.b->st) < 65536 + 4070);
    world_run(&f.w, 20 * NS_PER_S);
    assert_int_equal(f.a.sent, stuck);

    app_init(&other, &f.w); /* another stream on the same sessions */
    app_dial(&other, 0, &f.w.client[1].key.pk, 80, 20000);
    assert_int_equal(app_wait_open(&other), 0);
    app_send(&other, "free", 4);
    world_run(&f.w, NS_PER_S);
    assert_int_equal(f.w.client[1].in[1].got_n, 4);
    app_close(&other);
    app_free(&other);

    f.b->keep = false;
    f.a.shut = true;
    app_read(f.b);
    world_run(&f.w, NS_PER_S); /* at once, not with the next keep-alive */
    assert_true(f.b->eof);
    assert_int_equal(f.b->got_n, 8 * MIB);
    assert_memory_equal(f.b->got, data, 8 * MIB);
    assert_true(app_saw(&f.a, 'W'));
    stop(&f);
    free(data);
}

static const size_t pieces[] = {1, 3, 7, 13, 29, 57, 101, 4069};

/* Frames that leave a few bytes of the window over: those are used too, and the writer goes on. */
static void test_window_is_used_up(void **state)
{
    uint8_t *data = some_bytes(MIB);

    (void)state;
    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
        struct fixture f;
        start(&f, false);
        open_stream(&f);
        f.b->keep = true;
        f.a.piece = pieces[i];
        app_send(&f.a, data, MIB);
        world_run(&f.w, NS_PER_S);
        assert_true(f.a.sent < MIB);
        f.b->keep = false;
        app_read(f.b);
        world_run(&f.w, NS_PER_S);
        assert_int_equal(f.a.sent, MIB);
        assert_int_equal(f.b->got_n, MIB);
        assert_memory_equal(f.b->got, data, MIB);
        stop(&f);
    }
    free(data);
}

/* Without buffers nothing is lost: reading and writing go on when there are some. */
/* Ten streams share the room of one session, and their readers pause: a stream whose room was taken by
 * another one between the news and the call of its user asks again, and does not stand still for
 * ever. */
static void test_room_taken_by_others(void **state)
{
    enum { STREAMS = 10 };
    static struct app a[STREAMS];
    const size_t n = 2 * MIB;
    uint8_t *data = some_bytes(n);
    struct fixture f;
    bool done = false;

    (void)state;
    start(&f, false);
    for (struct pipe_conn *c = f.w.net.conns; c != NULL; c = c->next)
        c->out.window = 100000; /* of sockets */
    for (int i = 0; i < STREAMS; i++) {
        app_init(&a[i], &f.w);
        a[i].piece = 50000;
        app_dial(&a[i], 0, &f.w.client[1].key.pk, 80, 20000);
        assert_int_equal(app_wait_open(&a[i]), 0);
    }
    world_run(&f.w, NS_PER_S);
    assert_int_equal(f.w.client[1].n_in, STREAMS);
    for (int i = 0; i < STREAMS; i++) {
        f.w.client[1].in[i].keep = true;
        app_send(&a[i], data, n);
    }
    for (int turn = 0; turn < 5000 && !done; turn++) { /* each reads now and then */
        world_run(&f.w, 10 * NS_PER_MS);
        done = true;
        for (int i = 0; i < STREAMS; i++) {
            struct app *b = &f.w.client[1].in[i];
            if ((turn + i) % 5 == 0)
                app_read(b);
            done = done && b->got_n == n;
        }
    }
    assert_true(done);
    for (int i = 0; i < STREAMS; i++) {
        app_close(&a[i]);
        app_free(&a[i]);
        app_close(&f.w.client[1].in[i]);
        app_free(&f.w.client[1].in[i]);
    }
    f.w.client[1].n_in = 0;
    free(data);
    stop(&f);
}

static void test_without_buffers(void **state)
{
    uint8_t *data = some_bytes(MIB);
    struct fixture f;
    struct buf_budget budget = {.cap = 0};

    (void)state;
    memset(&f, 0, sizeof f);
    world_init(&f.w);
    bufpool_free(f.w.pool);
    f.w.pool = f.w.net.pool = bufpool_new(&budget);
    world_relay_start(&f.w, 0);
    world_join(&f.w, 0, 0);
    world_join(&f.w, 1, 0);
    world_up(&f.w, 0, 1);
    world_up(&f.w, 1, 1);
    app_init(&f.a, &f.w);
    open_stream(&f);
    budget.cap = 1; /* nothing more */
    app_send(&f.a, data, MIB);
    assert_int_equal(f.a.sent, 0);
    world_run(&f.w, NS_PER_S);
    assert_int_equal(f.a.sent, 0);
    assert_false(app_saw(&f.a, 'E'));
    budget.cap = 0;
    world_run(&f.w, 5 * NS_PER_S);
    assert_int_equal(f.a.sent, MIB);
    assert_int_equal(f.b->got_n, MIB);
    assert_memory_equal(f.b->got, data, MIB);
    stop(&f);
    free(data);
}

/* ---- ends ---- */

static void test_abort_mid_transfer(void **state)
{
    uint8_t *data = some_bytes(4 * MIB);
    struct fixture f;

    (void)state;
    start(&f, false);
    open_stream(&f);
    f.b->keep = true;
    app_send(&f.a, data, 4 * MIB);
    world_run(&f.w, NS_PER_S);
    stream_abort(f.a.st);
    f.a.st = NULL;
    world_run(&f.w, NS_PER_S);
    assert_true(app_saw(f.b, 'E'));
    assert_int_equal(f.b->err, ERR_RESET);
    /* What was opened before can still be read, and is right. */
    f.b->keep = false;
    app_read(f.b);
    assert_true(f.b->got_n >= 65536);
    assert_memory_equal(f.b->got, data, f.b->got_n);
    assert_int_equal(stream_write(f.b->st, "x", 1), ERR_RESET);
    assert_int_equal(stream_shutdown(f.b->st), ERR_RESET);
    stop(&f);
    free(data);
}

/* Writes pieces until nothing more is taken, then closes. Returns whether a part of a frame had no
 * window and waits inside the stream. */
static bool close_when_full(struct fixture *f, const uint8_t *data, size_t piece)
{
    struct client_stat s;

    open_stream(f);
    f->b->keep = true;
    f->a.piece = piece;
    app_send(&f->a, data, MIB);
    world_run(&f->w, NS_PER_S);
    assert_true(f->a.sent < MIB);
    app_close(&f->a);
    client_stat(f->w.client[0].c, &s);
    assert_int_equal(s.ports, 1); /* the listener: the port went with the close */
    return s.streams == 1;
}

/* stream_close() right behind stream_write(): everything goes out, also what has no window yet. */
static void test_close_with_pending(void **state)
{
    uint8_t *data = some_bytes(MIB);
    unsigned pending = 0;

    (void)state;
    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
        struct fixture f;
        start(&f, false);
        pending += close_when_full(&f, data, pieces[i]);
        f.b->keep = false;
        app_read(f.b);
        world_run(&f.w, NS_PER_S);
        assert_true(f.b->eof);
        assert_int_equal(f.b->got_n, f.a.sent);
        assert_memory_equal(f.b->got, data, f.a.sent);
        stop(&f);
    }
    assert_true(pending > 0);
    free(data);
}

/* The peer never reads: what was written before the close is given up after 30 s. */
static void test_close_is_bounded(void **state)
{
    uint8_t *data = some_bytes(MIB);
    unsigned pending = 0;

    (void)state;
    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
        struct fixture f;
        struct client_stat s;
        start(&f, false);
        pending += close_when_full(&f, data, pieces[i]);
        world_run(&f.w, 70 * NS_PER_S);
        client_stat(f.w.client[0].c, &s);
        assert_int_equal(s.streams, 0);
        assert_true(app_saw(f.b, 'E'));
        stop(&f);
    }
    assert_true(pending > 0);
    free(data);
}

static void test_session_lost(void **state)
{
    struct fixture f;

    (void)state;
    start(&f, false);
    open_stream(&f);
    world_relay_stop(&f.w, 0);
    world_run(&f.w, NS_PER_S);
    assert_int_equal(f.a.err, ERR_DMSG_SESSION_CLOSED);
    assert_int_equal(f.b->err, ERR_DMSG_SESSION_CLOSED);
    world_relay_start(&f.w, 0);
    world_up(&f.w, 0, 1);
    world_up(&f.w, 1, 1);
    stop(&f);
}

static void test_idle(void **state)
{
    struct fixture f;

    (void)state;
    start(&f, false);
    open_stream(&f);
    stream_set_idle(f.a.st, 100 * NS_PER_S);
    for (int i = 0; i < 5; i++) { /* traffic of either direction counts */
        world_run(&f.w, 60 * NS_PER_S);
        assert_false(app_saw(&f.a, 'E'));
        if (i % 2 == 0)
            assert_int_equal(stream_write(f.a.st, "x", 1), 1);
        else
            assert_int_equal(stream_write(f.b->st, "y", 1), 1);
    }
    world_run(&f.w, 99 * NS_PER_S);
    assert_false(app_saw(&f.a, 'E'));
    world_run(&f.w, 2 * NS_PER_S);
    assert_int_equal(f.a.err, ERR_TIMEOUT);
    assert_true(app_saw(f.b, 'E'));
    stop(&f);
}

/* ---- callbacks ---- */

static void close_here(struct app *a, char what)
{
    if (strchr(a->arg, what) != NULL)
        app_close(a);
}

/* The stream may be closed in each of its callbacks. */
static void test_close_in_callbacks(void **state)
{
    static const char *const where[] = {"O", "R", "W", "E"};
    uint8_t *data = some_bytes(MIB);

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        struct fixture f;
        start(&f, true);
        f.a.hook = close_here;
        f.a.arg = (void *)(uintptr_t)where[i];
        app_dial(&f.a, 0, &f.w.client[1].key.pk, where[i][0] == 'E' ? 81 : 80, 20000);
        world_run(&f.w, NS_PER_S / 2);
        if (f.a.st != NULL)
            app_send(&f.a, data, MIB);
        world_run(&f.w, 5 * NS_PER_S);
        assert_null(f.a.st);
        assert_true(app_saw(&f.a, where[i][0]));
        stop(&f);
    }
    free(data);
}

static void free_client(struct app *a, char what)
{
    if (strchr(a->arg, what) == NULL)
        return;
    app_close(a);
    client_free(a->w->client[0].c);
    a->w->client[0].c = NULL;
}

/* And so may the whole client. */
static void test_free_client_in_callbacks(void **state)
{
    static const char *const where[] = {"O", "R", "E"};

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct fixture f;
        start(&f, true);
        f.a.hook = free_client;
        f.a.arg = (void *)(uintptr_t)where[i];
        app_send(&f.a, "data", 4);
        app_dial(&f.a, 0, &f.w.client[1].key.pk, where[i][0] == 'E' ? 81 : 80, 20000);
        world_run(&f.w, 2 * NS_PER_S);
        assert_null(f.w.client[0].c);
        app_free(&f.a);
        world_free(&f.w);
    }
}

/* Events that came before set_cb are not lost, and are told once. */
static struct stream *parked;

static void park(void *arg, struct stream *st)
{
    (void)arg;
    parked = st;
}

static void test_late_callbacks(void **state)
{
    struct fixture f;
    struct app late;

    (void)state;
    start(&f, false);
    assert_int_equal(client_listen(f.w.client[1].c, 81, park, NULL), 81);
    app_dial(&f.a, 0, &f.w.client[1].key.pk, 81, 20000);
    assert_int_equal(app_wait_open(&f.a), 0);
    f.a.shut = true;
    app_send(&f.a, "early", 5);
    world_run(&f.w, NS_PER_S);
    app_init(&late, &f.w);
    app_take(&late, parked);
    assert_int_equal(late.got_n, 0); /* not from inside the call */
    world_run(&f.w, 0);
    assert_int_equal(late.got_n, 5);
    assert_true(late.eof);
    app_close(&late);
    app_free(&late);
    stop(&f);
}

/* ---- the property: any writes, any reads, any pipes ---- */

static void random_round(struct prop *r)
{
    struct fixture f;
    size_t n = prop_size(r, 400000), m = prop_size(r, 400000);
    uint8_t *data = malloc(n + m + 1);

    memset(&f, 0, sizeof f);
    world_init(&f.w);
    f.w.env.deferred = prop_chance(r, 50);
    f.w.env.shuffle = prop_chance(r, 50);
    f.w.net.fault =
        (struct pipe_fault){.delay_ns = prop_below(r, 50) * NS_PER_MS,
                            .chunk = prop_chance(r, 50) ? 1 + prop_size(r, 5000) : 0,
                            .window = prop_chance(r, 50) ? 4096 + prop_size(r, 90000) : 0};
    world_relay_start(&f.w, 0);
    world_join(&f.w, 0, 0);
    world_join(&f.w, 1, 0);
    world_up(&f.w, 0, 1);
    world_up(&f.w, 1, 1);
    app_init(&f.a, &f.w);
    open_stream(&f);
    prop_bytes(r, data, n + m);
    f.a.chunk = prop_chance(r, 50) ? 1 + prop_size(r, 9000) : 0;
    f.b->chunk = prop_chance(r, 50) ? 1 + prop_size(r, 9000) : 0;
    f.a.shut = f.b->shut = true;
    f.b->keep = prop_chance(r, 30);
    app_send(&f.a, data, n);
    app_send(f.b, data + n, m);
    world_run(&f.w, prop_below(r, 3000) * NS_PER_MS);
    f.b->keep = false;
    app_read(f.b);
    world_until(&f.w, both_over, &f);
    assert_int_equal(f.b->got_n, n);
    assert_int_equal(f.a.got_n, m);
    if (n > 0)
        assert_memory_equal(f.b->got, data, n);
    if (m > 0)
        assert_memory_equal(f.a.got, data + n, m);
    free(data);
    stop(&f);
}

static void test_random(void **state)
{
    struct prop r = prop_init("stream data");

    (void)state;
    for (int i = 0; i < 40; i++)
        random_round(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_bad_pipes),
        cmocka_unit_test(test_both_at_once),
        cmocka_unit_test(test_half_close),
        cmocka_unit_test(test_responder_speaks_first),
        cmocka_unit_test(test_back_pressure),
        cmocka_unit_test(test_window_is_used_up),
        cmocka_unit_test(test_room_taken_by_others),
        cmocka_unit_test(test_without_buffers),
        cmocka_unit_test(test_abort_mid_transfer),
        cmocka_unit_test(test_close_with_pending),
        cmocka_unit_test(test_close_is_bounded),
        cmocka_unit_test(test_session_lost),
        cmocka_unit_test(test_idle),
        cmocka_unit_test(test_close_in_callbacks),
        cmocka_unit_test(test_free_client_in_callbacks),
        cmocka_unit_test(test_late_callbacks),
        cmocka_unit_test(test_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
