#include "tests/unit/transport/client_world.h"

#include "base/log.h"

static void key_make(struct world_key *k, const char *what, int i)
{
    char seed[32];

    snprintf(seed, sizeof seed, "%s %d", what, i);
    assert_int_equal(crypto_keypair_from_seed(&k->sk, &k->pk, (const uint8_t *)seed, strlen(seed)),
                     0);
}

void world_init(struct world *w)
{
    char why[64];

    memset(w, 0, sizeof *w);
    assert_int_equal(log_set_levels("error", why, sizeof why), 0);
    env_test_init(&w->env, 1);
    w->pool = bufpool_new(NULL);
    pipe_net_init(&w->net, w->pool, &w->env);
    for (int i = 0; i < WORLD_RELAYS; i++)
        key_make(&w->relay_key[i], "relay", i);
    for (int i = 0; i < WORLD_CLIENTS; i++)
        key_make(&w->client[i].key, "client", i);
}

void world_free(struct world *w)
{
    for (int i = 0; i < WORLD_CLIENTS; i++)
        world_client_stop(w, i);
    for (int i = 0; i < WORLD_RELAYS; i++)
        world_relay_stop(w, i);
    pipe_net_free(&w->net);
    assert_int_equal(bufpool_in_use(w->pool), 0);
    bufpool_free(w->pool);
    env_test_close(&w->env);
}

/* ---- relays ---- */

const char *world_addr(int relay)
{
    static const char *const addr[WORLD_RELAYS] = {"r0:1", "r1:1", "r2:1", "r3:1",
                                                   "r4:1", "r5:1", "r6:1", "r7:1"};
    return addr[relay];
}

void client_world_accept(void *arg, struct conn *conn)
{
    relay_accept(arg, conn, false);
}

void world_relay_start(struct world *w, int i)
{
    struct relay_cfg cfg = {.env = &w->env.env,
                            .loop = &w->net.loop,
                            .pool = w->pool,
                            .self = w->relay_key[i].pk,
                            .sk = w->relay_key[i].sk};

    assert_int_equal(relay_new(&w->relay[i], &cfg), 0);
    pipe_listen(&w->net, world_addr(i), client_world_accept, w->relay[i]);
}

void world_relay_stop(struct world *w, int i)
{
    if (w->relay[i] == NULL)
        return;
    pipe_unlisten(&w->net, world_addr(i));
    relay_free(w->relay[i]);
    w->relay[i] = NULL;
}

/* ---- clients ---- */

static void on_changed(void *arg)
{
    struct world_client *c = arg;
    c->changed++;
}

struct client_cfg world_cfg(struct world *w, int i)
{
    struct world_client *c = &w->client[i];

    return (struct client_cfg){.env = &w->env.env,
                               .loop = &w->net.loop,
                               .pool = w->pool,
                               .carrier = &w->net.carrier,
                               .self = c->key.pk,
                               .sk = c->key.sk,
                               .hold_ms = 60,
                               .hooks = {.arg = c, .sessions_changed = on_changed}};
}

void world_client_start(struct world *w, int i, const struct client_cfg *cfg)
{
    struct client_cfg own = world_cfg(w, i);

    assert_int_equal(client_new(&w->client[i].c, cfg != NULL ? cfg : &own), 0);
}

void world_client_stop(struct world *w, int i)
{
    struct world_client *c = &w->client[i];

    for (size_t k = 0; k < c->n_in; k++) {
        app_close(&c->in[k]);
        app_free(&c->in[k]);
    }
    c->n_in = 0;
    client_free(c->c);
    c->c = NULL;
    world_run(w, 0);
}

void client_accepts(void *world_client, struct stream *st)
{
    struct world_client *c = world_client;

    if (c->refuse_accept || c->n_in == sizeof c->in / sizeof c->in[0]) {
        stream_close(st);
        return;
    }
    struct app *a = &c->in[c->n_in++];
    app_init(a, NULL);
    a->echo = a->shut_at_eof = c->echo;
    a->log[0] = 'A';
    app_take(a, st);
}

struct client_stat world_stat(struct world *w, int i)
{
    struct client_stat s;

    client_stat(w->client[i].c, &s);
    return s;
}

size_t world_sessions(struct world *w, int i)
{
    return world_stat(w, i).sessions_up;
}

void world_add(struct world *w, int i, int relay)
{
    assert_int_equal(client_add_server(w->client[i].c, &w->relay_key[relay].pk, world_addr(relay)),
                     0);
}

struct client_session_info world_info(struct world *w, int i, int relay)
{
    struct client_session_info all[16];
    size_t n = client_sessions(w->client[i].c, all, 16);

    for (size_t k = 0; k < n; k++) {
        if (pubkey_equal(&all[k].server, &w->relay_key[relay].pk))
            return all[k];
    }
    fail_msg("server %d is not known", relay);
    return all[0];
}

void world_join(struct world *w, int i, int relay)
{
    struct world_client *c = &w->client[i];

    if (c->c == NULL)
        world_client_start(w, i, NULL);
    assert_int_equal(client_add_server(c->c, &w->relay_key[relay].pk, world_addr(relay)), 0);
    int port = client_listen(c->c, 80, client_accepts, c);
    assert_true(port == 80 || port == ERR_DMSG_PORT_OCCUPIED);
}

void world_run(struct world *w, uint64_t ns)
{
    pipe_net_run(&w->net, ns);
}

struct up_wait {
    struct client *c;
    size_t n;
};

static bool is_up(void *arg)
{
    struct up_wait *u = arg;
    struct client_stat s;
    client_stat(u->c, &s);
    return s.sessions_up == u->n;
}

void world_up(struct world *w, int i, size_t n)
{
    struct up_wait u = {w->client[i].c, n};
    world_until(w, is_up, &u);
}

void world_until(struct world *w, bool (*done)(void *arg), void *arg)
{
    assert_true(pipe_net_until(&w->net, 60 * NS_PER_S, done, arg));
}

/* ---- applications ---- */

static void note(struct app *a, char what)
{
    size_t n = strlen(a->log);

    if (n + 1 < sizeof a->log && (n == 0 || a->log[n - 1] != what))
        a->log[n] = what;
    if (a->hook != NULL)
        a->hook(a, what);
}

bool app_saw(const struct app *a, char what)
{
    return strchr(a->log, what) != NULL;
}

void app_init(struct app *a, struct world *w)
{
    memset(a, 0, sizeof *a);
    a->w = w;
}

void app_free(struct app *a)
{
    assert_null(a->st);
    free(a->got);
    a->got = NULL;
}

void app_close(struct app *a)
{
    if (a->st != NULL)
        stream_close(a->st);
    a->st = NULL;
}

static size_t pending(const struct app *a)
{
    return (a->echo ? a->got_n : a->send_n) - a->sent;
}

void app_push(struct app *a)
{
    while (a->st != NULL && pending(a) > 0) {
        const uint8_t *p = a->echo ? a->got : a->send;
        size_t want = pending(a);
        if (a->piece > 0 && a->piece < want)
            want = a->piece;
        long n = stream_write(a->st, p + a->sent, want);
        if (n <= 0)
            return;
        a->sent += (size_t)n;
    }
    if (a->st != NULL && pending(a) == 0 && (a->shut || (a->shut_at_eof && a->eof)))
        (void)stream_shutdown(a->st);
}

void app_send(struct app *a, const void *p, size_t n)
{
    a->send = p;
    a->send_n = n;
    a->sent = 0;
    app_push(a);
}

void app_read(struct app *a)
{
    while (a->st != NULL && stream_readable(a->st) > 0) {
        size_t n = a->chunk > 0 ? a->chunk : stream_readable(a->st);
        if (a->got_room - a->got_n < n) {
            a->got_room = 2 * a->got_room + n;
            a->got = realloc(a->got, a->got_room);
            assert_non_null(a->got);
        }
        size_t got = stream_read(a->st, a->got + a->got_n, n);
        assert_true(got > 0 && got <= n);
        a->got_n += got;
    }
    if (a->st != NULL && stream_eof(a->st))
        a->eof = true;
    app_push(a);
}

static void on_opened(struct stream *st, void *arg)
{
    struct app *a = arg;
    assert_true(a->st == st);
    note(a, 'O');
    app_push(a);
}

static void on_readable(struct stream *st, void *arg)
{
    struct app *a = arg;
    assert_true(a->st == st);
    note(a, 'R');
    if (!a->keep)
        app_read(a);
}

static void on_writable(struct stream *st, void *arg)
{
    struct app *a = arg;
    assert_true(a->st == st && stream_writable(st) > 0);
    note(a, 'W');
    app_push(a);
}

static void on_ended(struct stream *st, void *arg, int err)
{
    struct app *a = arg;
    assert_true(a->st == st && err != 0);
    assert_false(app_saw(a, 'E'));
    a->err = err;
    note(a, 'E');
    if (a->close_at_end)
        app_close(a);
}

const struct stream_cb app_cb = {on_opened, on_readable, on_writable, on_ended};

void app_take(struct app *a, struct stream *st)
{
    a->st = st;
    stream_set_cb(st, &app_cb, a);
}

void app_dial(struct app *a, int client, const struct pubkey *pk, uint16_t port, unsigned ms)
{
    assert_int_equal(client_dial(a->w->client[client].c, pk, port, ms, 0, &app_cb, a, &a->st), 0);
}

static bool is_decided(void *app)
{
    return app_saw(app, 'O') || app_saw(app, 'E');
}

int app_wait_open(struct app *a)
{
    world_until(a->w, is_decided, a);
    return a->err;
}

bool app_is_over(void *app)
{
    struct app *a = app;
    return a->eof || app_saw(a, 'E');
}
