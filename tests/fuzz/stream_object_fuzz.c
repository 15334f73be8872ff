/*
 * The set-up machines of the client's streams with hostile objects, inside a good session.
 *
 * First byte: bits 0-2 what happens, bit 3 public-key work deferred, bit 4 FIN behind it, bit 5 in
 * small pieces. The rest:
 *     0  bytes of a stream that the server opens
 *     1  a sealed object
 *     2  the gob of a sealed object that is signed by its source key
 *     3  a sealed object that answers a dial
 *     4  the gob of one that is signed by the destination
 *     5  fields of a right answer: accepted(1) err_code(2) noise_msg(rest)
 * Whatever comes, the session stays up, and after the time-outs no stream and no port is left.
 */
#include <stdlib.h>
#include <string.h>

#include "base/cursor.h"
#include "base/err.h"
#include "base/log.h"
#include "tests/unit/transport/pipe.h"
#include "transport/client.h"
#include "transport/objects.h"

#define MUST(x)                                                                                    \
    do {                                                                                           \
        if (!(x))                                                                                  \
            abort();                                                                               \
    } while (0)

struct keys {
    struct seckey sk;
    struct pubkey pk;
};

static struct {
    struct env_test env;
    struct bufpool *pool;
    struct pipe_net net;
    struct keys server, self, peer;
    struct client *client;
    struct link *link;
    struct yamux_stream *st; /* of the present input */
    bool up;
} w;

static void make_keys(struct keys *k, const char *seed)
{
    MUST(crypto_keypair_from_seed(&k->sk, &k->pk, (const uint8_t *)seed, strlen(seed)) == 0);
}

static void on_up(struct link *l)
{
    (void)l;
    w.up = true;
}

static void drop(void)
{
    if (w.st == NULL)
        return;
    yamux_release(w.st, false);
    w.st = NULL;
    link_kick(w.link);
}

static void on_event(struct link *l, const struct yamux_event *ev)
{
    (void)l;
    if (ev->stream == NULL)
        return;
    if (ev->what & YAMUX_OPENED) {
        drop();
        w.st = ev->stream;
        MUST(yamux_accept(w.st) == 0);
    }
    if (ev->stream == w.st && (ev->what & YAMUX_RESET))
        drop();
}

static void on_down(struct link *l, int err)
{
    (void)l, (void)err;
    abort();
}

static const struct link_owner owner = {on_up, on_event, on_down};

static void on_accept(void *arg, struct stream *st)
{
    (void)arg;
    stream_close(st);
}

static void start(void)
{
    struct pipe_conn *a, *b;
    char why[64];

    MUST(log_set_levels("off", why, sizeof why) == 0);
    env_test_init(&w.env, 7);
    w.pool = bufpool_new(NULL);
    pipe_net_init(&w.net, w.pool, &w.env);
    make_keys(&w.server, "server");
    make_keys(&w.self, "self");
    make_keys(&w.peer, "peer");
    struct client_cfg cfg = {.env = &w.env.env,
                             .loop = &w.net.loop,
                             .pool = w.pool,
                             .carrier = &w.net.carrier,
                             .self = w.self.pk,
                             .sk = w.self.sk};
    MUST(client_new(&w.client, &cfg) == 0);
    pipe_pair(&w.net, &a, &b);
    struct session_cfg scfg = {
        .env = &w.env.env, .pool = w.pool, .self = w.server.pk, .sk = &w.server.sk};
    w.link = link_new(&w.net.loop, &b->conn, &scfg, &owner, NULL);
    MUST(w.link != NULL);
    MUST(client_attach(w.client, &w.server.pk, &a->conn) == 0);
    MUST(client_listen(w.client, 80, on_accept, NULL) == 80);
    MUST(client_add_route(w.client, &w.peer.pk, &w.server.pk) == 0);
    pipe_net_run(&w.net, NS_PER_S);
    MUST(w.up);
}

/* ---- one input ---- */

static void write_object(const void *obj, size_t n)
{
    if (w.st != NULL && n + SESSION_SEAL_OVERHEAD <= SESSION_OBJECT_MAX)
        MUST(session_write_object(link_session(w.link), w.st, obj, n) == 0);
}

static void write_signed(const uint8_t *gob, size_t n)
{
    if (n == 0)
        return; /* nothing to sign */
    uint8_t *obj = malloc(SIG_BYTES + n);
    struct hash digest;
    struct sig sig;

    MUST(obj != NULL);
    memcpy(obj + SIG_BYTES, gob, n);
    object_digest(&digest, obj, SIG_BYTES + n);
    MUST(crypto_sign_digest(&sig, &w.peer.sk, &digest) == 0);
    object_set_sig(obj, &sig);
    write_object(obj, SIG_BYTES + n);
    free(obj);
}

static void write_answer(const struct hash *req_hash, const uint8_t *p, size_t n)
{
    uint8_t obj[OBJECT_ENCODED_MAX];
    size_t len;

    if (n < 3)
        return;
    struct object_response rsp = {.req_hash = *req_hash,
                                  .accepted = p[0] & 1,
                                  .err_code = get_be16(p + 1),
                                  .noise_msg = {p + 3, n - 3}};
    if (object_encode_response(obj, sizeof obj, &len, &rsp, OBJECT_2023) == 0)
        write_signed(obj + SIG_BYTES, len - SIG_BYTES);
}

static void read_request(struct hash *hash)
{
    static uint8_t obj[SESSION_OBJECT_MAX];
    enum session_read what;
    size_t n;

    MUST(w.st != NULL);
    MUST(session_read_object(link_session(w.link), w.st, &what, obj, sizeof obj, &n) == 0);
    object_hash(hash, obj, n);
}

static void as_server(unsigned what, const uint8_t *p, size_t n)
{
    MUST(yamux_open(link_mux(w.link), NULL, pipe_now(&w.net), &w.st) == 0);
    if (what == 0)
        MUST(yamux_write(w.st, p, n) == (long)n);
    else if (what == 1)
        write_object(p, n);
    else
        write_signed(p, n);
}

static void as_destination(unsigned what, struct stream *st, const uint8_t *p, size_t n)
{
    struct hash hash;

    (void)st;
    pipe_net_run(&w.net, 10 * NS_PER_MS);
    read_request(&hash);
    if (what == 3)
        write_object(p, n);
    else if (what == 4)
        write_signed(p, n);
    else
        write_answer(&hash, p, n);
}

static void set_chunk(size_t chunk)
{
    for (struct pipe_conn *c = w.net.conns; c != NULL; c = c->next)
        c->out.chunk = chunk;
}

static void run_input(uint8_t flags, const uint8_t *p, size_t n)
{
    unsigned what = flags & 7u;
    struct stream *st = NULL;
    struct client_stat stat;

    set_chunk(flags & 32 ? 3 : 0);
    if (what >= 3) {
        MUST(client_dial(w.client, &w.peer.pk, 80, 4000, 0, NULL, NULL, &st) == 0);
        as_destination(what, st, p, n);
    } else {
        as_server(what, p, n);
    }
    if ((flags & 16) && w.st != NULL)
        MUST(yamux_close_write(w.st) == 0);
    w.env.deferred = (flags & 8) != 0;
    link_kick(w.link);
    pipe_net_run(&w.net, 6 * NS_PER_S);
    w.env.deferred = false;
    if (st != NULL)
        stream_close(st);
    drop();
    pipe_net_run(&w.net, 70 * NS_PER_S); /* memory of failed destinations */
    client_stat(w.client, &stat);
    MUST(stat.sessions_up == 1 && stat.streams == 0 && stat.ports == 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (w.client == NULL)
        start();
    if (size < 1 || size > 60000 || (data[0] & 7u) > 5)
        return 0;
    run_input(data[0], data + 1, size - 1);
    return 0;
}
