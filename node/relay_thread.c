#include "node/relay_thread.h"

#include <assert.h>
#include <malloc.h>
#include <pthread.h>
#include <semaphore.h>
#include <sodium.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/err.h"
#include "base/log.h"
#include "transport/drive_tcp.h"
#include "transport/drive_wire.h"

#define STAT_EVERY_NS  NS_PER_S
#define ACCEPT_LOOK_NS (50 * NS_PER_MS)
#define BUSY_BYTES     (UINT64_C(64) << 20) /* so much relayed leaves memory worth giving back … */
#define QUIET_BYTES    (UINT64_C(1) << 20)  /* … in a second with less than this */

struct worker {
    struct relay_thread *t;
    unsigned index;
    pthread_t thread;
    bool running;
    struct drive_loop *drive;
    struct bufpool *pool;
    struct env *env;
    struct drive_tcp *tcp;
    struct drive_listener *listener; /* NULL: another worker accepts for it */
    struct relay *relay;
    uint64_t rests;
    struct drive_msg stop, quit;
    struct loop_timer stat_timer, accept_timer;
    pthread_mutex_t lock;
    struct relay_stat stat; /* under lock, with the next two */
    struct relay_peer_info peers[RELAY_THREAD_PEERS];
    size_t n_peers;
    uint64_t trimmed_bytes, last_bytes; /* stat.bytes at the last trim, and a second ago */
};

struct relay_thread {
    struct guard *guard;
    struct crew *crew;
    char addr[CONN_ADDR_MAX];
    void (*changed)(void *arg);
    void *arg;
    struct pubkey self;
    sem_t stopped; /* relays that are gone */
    unsigned n;
    struct worker worker[];
};

struct found_msg {
    struct drive_msg msg;
    struct worker *w;
    size_t n;
    struct relay_server list[];
};

struct recheck_msg {
    struct drive_msg msg;
    struct worker *w;
};

struct pair_msg {
    struct drive_msg msg;
    struct worker *w;
    int fd;
};

/* A session on its way to the home of its key. */
struct move_msg {
    struct drive_msg msg;
    struct worker *to;
    struct drive_tcp_parcel parcel;
    struct relay_move move;
};

static void publish_stat(struct worker *w)
{
    pthread_mutex_lock(&w->lock);
    relay_stat(w->relay, &w->stat);
    struct drive_tcp_stat tcp;
    drive_tcp_stat(w->tcp, &tcp);
    w->stat.loop_max_ns = drive_loop_max_turn_ns(w->drive);
    w->stat.fd_exhausted = tcp.fd_exhausted;
    w->stat.no_buffer = tcp.no_buffer;
    w->stat.accept_rests = w->rests;
    w->n_peers = relay_peers(w->relay, w->peers, RELAY_THREAD_PEERS);
    pthread_mutex_unlock(&w->lock);
}

/* A burst leaves the heap full of free buffers between small things that live on: measured 35 MiB
 * where 2.4 are in use. Give them back to the system when it is over. */
static void give_back(struct worker *w)
{
    uint64_t bytes = w->stat.bytes, moved = bytes - w->last_bytes;
    w->last_bytes = bytes;
    if (moved > QUIET_BYTES || bytes - w->trimmed_bytes < BUSY_BYTES)
        return;
    w->trimmed_bytes = bytes;
    malloc_trim(0);
}

static void on_stat_timer(struct loop_timer *timer)
{
    struct worker *w = container_of(timer, struct worker, stat_timer);
    struct loop *loop = drive_loop_loop(w->drive);
    publish_stat(w);
    give_back(w);
    loop_timer_set(loop, timer, loop->now_ns + STAT_EVERY_NS);
}

static void on_changed(void *arg)
{
    struct worker *w = arg;
    publish_stat(w);
    if (w->t->changed != NULL)
        w->t->changed(w->t->arg);
}

/* With all the handshakes there may be under way nothing is accepted: who comes waits in the system's
 * queue instead of being turned away. */
static void accept_look_later(struct worker *w)
{
    struct loop *loop = drive_loop_loop(w->drive);
    loop_timer_set(loop, &w->accept_timer, loop->now_ns + ACCEPT_LOOK_NS);
}

static void on_accept_timer(struct loop_timer *timer)
{
    struct worker *w = container_of(timer, struct worker, accept_timer);
    if (guard_is_full(w->t->guard))
        accept_look_later(w);
    else
        drive_listener_pause(w->listener, false);
}

static void on_accept(void *arg, struct conn *conn)
{
    struct worker *w = arg;
    relay_accept(w->relay, conn, false);
    if (!guard_is_full(w->t->guard))
        return;
    w->rests++;
    drive_listener_pause(w->listener, true);
    accept_look_later(w);
}

/* ---- sessions between workers ---- */

static void on_arrival(struct drive_msg *msg)
{
    struct move_msg *m = (struct move_msg *)msg;
    struct worker *to = m->to;
    struct conn *conn = NULL;
    if (to->relay != NULL)
        conn = drive_tcp_unpack(to->tcp, &m->parcel);
    else
        close(m->parcel.fd);
    if (conn != NULL)
        relay_arrive(to->relay, conn, &m->move);
    else
        relay_move_drop(to->t->guard, &m->move);
    free(m);
}

static void on_move(void *arg, unsigned member, struct conn *conn, struct relay_move *move)
{
    struct worker *w = arg;
    struct move_msg *m = calloc(1, sizeof(*m));
    if (m == NULL) {
        relay_move_drop(w->t->guard, move);
        conn_close(conn);
        return;
    }
    m->msg.fn = on_arrival;
    m->to = &w->t->worker[member];
    m->move = *move;
    sodium_memzero(move, sizeof(*move));
    drive_tcp_pack(conn, &m->parcel);
    drive_post(m->to->drive, &m->msg);
}

/* ---- running ---- */

/* First all relays go, and with them everything that may still be on its way to another worker; then
 * the loops end. */
static void on_stop(struct drive_msg *m)
{
    struct worker *w = container_of(m, struct worker, stop);
    drive_listener_close(w->listener);
    w->listener = NULL;
    relay_free(w->relay);
    w->relay = NULL;
    loop_timer_cancel(drive_loop_loop(w->drive), &w->stat_timer);
    loop_timer_cancel(drive_loop_loop(w->drive), &w->accept_timer);
    sem_post(&w->t->stopped);
}

static void on_quit(struct drive_msg *m)
{
    struct worker *w = container_of(m, struct worker, quit);
    drive_loop_stop(w->drive);
}

static void *run(void *arg)
{
    struct worker *w = arg;
    (void)drive_loop_run(w->drive);
    return NULL;
}

static void pair_accept(struct drive_msg *m)
{
    struct pair_msg *p = (struct pair_msg *)m;
    struct conn *conn = p->w->relay != NULL ? drive_tcp_adopt(p->w->tcp, p->fd, "local") : NULL;
    if (conn != NULL)
        relay_accept(p->w->relay, conn, true);
    else if (p->w->relay == NULL)
        close(p->fd);
    free(p);
}

int relay_thread_pair(struct relay_thread *t)
{
    int fds[2];
    struct pair_msg *p = calloc(1, sizeof(*p));
    if (p == NULL)
        return ERR_NOMEM;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0) {
        free(p);
        return err_sys();
    }
    p->msg.fn = pair_accept;
    p->w = &t->worker[crew_home(t->crew, &t->self)];
    p->fd = fds[0];
    drive_post(p->w->drive, &p->msg);
    return fds[1];
}

static void on_found(struct drive_msg *m)
{
    struct found_msg *f = (struct found_msg *)m;
    if (f->w->relay != NULL)
        relay_mesh_found(f->w->relay, f->list, f->n);
    free(f);
}

static bool tell_found(struct worker *w, const struct relay_server *list, size_t n)
{
    struct found_msg *f = calloc(1, sizeof(*f) + n * sizeof(*list));
    if (f == NULL)
        return false;
    f->msg.fn = on_found;
    f->w = w;
    f->n = n;
    if (n > 0)
        memcpy(f->list, list, n * sizeof(*list));
    drive_post(w->drive, &f->msg);
    return true;
}

bool relay_thread_found(struct relay_thread *t, const struct relay_server *list, size_t n)
{
    bool all = true;
    for (unsigned i = 0; i < t->n; i++)
        all = tell_found(&t->worker[i], list, n) && all;
    return all;
}

static void on_recheck(struct drive_msg *m)
{
    struct recheck_msg *k = (struct recheck_msg *)m;
    if (k->w->relay != NULL)
        relay_recheck(k->w->relay);
    free(k);
}

bool relay_thread_recheck(struct relay_thread *t)
{
    bool all = true;
    for (unsigned i = 0; i < t->n; i++) {
        struct recheck_msg *k = calloc(1, sizeof(*k));
        if (k == NULL) {
            all = false;
            continue;
        }
        k->msg.fn = on_recheck;
        k->w = &t->worker[i];
        drive_post(k->w->drive, &k->msg);
    }
    return all;
}

struct guard *relay_thread_guard(struct relay_thread *t)
{
    return t->guard;
}

/* ---- building ---- */

static void worker_close(struct worker *w)
{
    if (w->drive == NULL)
        return;
    if (w->relay != NULL)
        relay_free(w->relay);
    drive_listener_close(w->listener);
    loop_timer_cancel(drive_loop_loop(w->drive), &w->stat_timer);
    loop_timer_cancel(drive_loop_loop(w->drive), &w->accept_timer);
    loop_turn(drive_loop_loop(w->drive), drive_loop_now(w->drive)); /* deferred closes */
}

static void worker_free(struct worker *w)
{
    drive_tcp_free(w->tcp);
    drive_env_free(w->env);
    if (w->pool != NULL)
        bufpool_free(w->pool);
    drive_loop_free(w->drive);
    pthread_mutex_destroy(&w->lock);
}

static void thread_free(struct relay_thread *t)
{
    for (unsigned i = 0; i < t->n; i++)
        worker_close(&t->worker[i]);
    for (unsigned i = 0; i < t->n; i++)
        worker_free(&t->worker[i]);
    guard_free(t->guard);
    crew_free(t->crew);
    sem_destroy(&t->stopped);
    free(t);
}

static int worker_build(struct worker *w, const struct relay_thread_cfg *cfg)
{
    if ((w->drive = drive_loop_new(NULL)) == NULL || (w->pool = bufpool_new(cfg->budget)) == NULL ||
        (w->env = drive_env_new(cfg->pk_pool, w->drive)) == NULL ||
        (w->tcp = drive_tcp_new(w->drive, w->pool)) == NULL)
        return ERR_NOMEM;
    loop_timer_set(drive_loop_loop(w->drive), &w->stat_timer,
                   drive_loop_now(w->drive) + STAT_EVERY_NS);
    return 0;
}

static int worker_relay(struct worker *w, const struct relay_thread_cfg *cfg)
{
    struct relay_cfg rc = {.self = cfg->self,
                           .sk = cfg->sk,
                           .env = w->env,
                           .loop = drive_loop_loop(w->drive),
                           .pool = w->pool,
                           .guard = w->t->guard,
                           .crew = w->t->crew,
                           .index = w->index,
                           .move = on_move,
                           .key_bytes_per_s = cfg->key_bytes_per_s,
                           .carrier = drive_tcp_carrier(w->tcp),
                           .peers = cfg->peers,
                           .n_peers = cfg->n_peers,
                           .accepted = cfg->accepted,
                           .n_accepted = cfg->n_accepted,
                           .accept_relayed = cfg->accept_relayed,
                           .changed = on_changed,
                           .arg = w};
    int rc_new = relay_new(&w->relay, &rc);
    seckey_wipe(&rc.sk);
    return rc_new;
}

static int trunk(struct worker *a, struct worker *b, struct buf_budget *budget)
{
    struct session_state at_a, at_b;
    struct conn *ca, *cb;
    int rc = drive_wire_pair(a->drive, a->pool, b->drive, b->pool, budget, &ca, &cb);
    if (rc < 0)
        return rc;
    relay_trunk_keys(a->env, &at_a, &at_b);
    rc = relay_trunk(a->relay, b->index, ca, &at_a);
    int rc_b = relay_trunk(b->relay, a->index, cb, &at_b);
    return rc < 0 ? rc : rc_b;
}

/* Where the system does not let several sockets have one address, the first worker accepts for all. */
static int listen_all(struct relay_thread *t, const struct relay_thread_cfg *cfg)
{
    struct worker *first = &t->worker[0];
    int rc = drive_tcp_listen(first->tcp, cfg->listen, on_accept, first, &first->listener);
    if (rc < 0)
        return rc;
    snprintf(t->addr, sizeof(t->addr), "%s", drive_listener_addr(first->listener));
    for (unsigned i = 1; i < t->n; i++) {
        struct worker *w = &t->worker[i];
        rc = drive_tcp_listen_too(w->tcp, first->listener, on_accept, w, &w->listener);
        if (rc < 0) {
            log_warn(LOG_RELAY, "one worker accepts for all reason=\"%s\"", err_str(rc));
            break;
        }
    }
    return 0;
}

static int build(struct relay_thread *t, const struct relay_thread_cfg *cfg)
{
    int rc = 0;
    struct guard_cfg gc = cfg->guard;
    for (unsigned i = 0; i < t->n && rc == 0; i++)
        rc = worker_build(&t->worker[i], cfg);
    if (rc < 0)
        return rc;
    const uint8_t *key = t->worker[0].env->hash_key;
    memcpy(gc.hash_key, key, sizeof(gc.hash_key));
    if ((rc = guard_new(&t->guard, &gc)) < 0 || (rc = crew_new(&t->crew, t->n, key)) < 0)
        return rc;
    for (unsigned i = 0; i < t->n && rc == 0; i++)
        rc = worker_relay(&t->worker[i], cfg);
    for (unsigned i = 0; i < t->n && rc == 0; i++)
        for (unsigned k = i + 1; k < t->n && rc == 0; k++)
            rc = trunk(&t->worker[i], &t->worker[k], cfg->budget);
    return rc < 0 ? rc : listen_all(t, cfg);
}

static struct relay_thread *thread_alloc(const struct relay_thread_cfg *cfg)
{
    unsigned n = cfg->workers > 0 ? cfg->workers : 1;
    assert(n <= CREW_MAX);
    struct relay_thread *t = calloc(1, sizeof(*t) + n * sizeof(t->worker[0]));
    if (t == NULL)
        return NULL;
    t->n = n;
    t->self = cfg->self;
    t->changed = cfg->changed;
    t->arg = cfg->arg;
    sem_init(&t->stopped, 0, 0);
    for (unsigned i = 0; i < n; i++) {
        struct worker *w = &t->worker[i];
        w->t = t;
        w->index = i;
        pthread_mutex_init(&w->lock, NULL);
        w->stop.fn = on_stop;
        w->quit.fn = on_quit;
        w->stat_timer.fn = on_stat_timer;
        w->accept_timer.fn = on_accept_timer;
    }
    return t;
}

int relay_thread_start(struct relay_thread **out, const struct relay_thread_cfg *cfg)
{
    struct relay_thread *t = thread_alloc(cfg);
    if (t == NULL)
        return ERR_NOMEM;
    int rc = build(t, cfg);
    if (rc < 0) {
        thread_free(t);
        return rc;
    }
    for (unsigned i = 0; i < t->n; i++) {
        struct worker *w = &t->worker[i];
        w->running = pthread_create(&w->thread, NULL, run, w) == 0;
        if (!w->running) {
            relay_thread_stop(t);
            return ERR_NOMEM;
        }
    }
    *out = t;
    return 0;
}

static void post_all(struct relay_thread *t, size_t msg)
{
    for (unsigned i = 0; i < t->n; i++)
        if (t->worker[i].running)
            drive_post(t->worker[i].drive, (struct drive_msg *)((char *)&t->worker[i] + msg));
}

void relay_thread_stop(struct relay_thread *t)
{
    if (t == NULL)
        return;
    post_all(t, offsetof(struct worker, stop));
    for (unsigned i = 0; i < t->n; i++)
        while (t->worker[i].running && sem_wait(&t->stopped) != 0)
            ; /* a signal */
    post_all(t, offsetof(struct worker, quit));
    for (unsigned i = 0; i < t->n; i++)
        if (t->worker[i].running)
            pthread_join(t->worker[i].thread, NULL);
    thread_free(t);
}

/* ---- looking in ---- */

const char *relay_thread_addr(const struct relay_thread *t)
{
    return t->addr;
}

unsigned relay_thread_workers(const struct relay_thread *t)
{
    return t->n;
}

void relay_thread_worker_stat(struct relay_thread *t, unsigned i, struct relay_stat *out)
{
    struct worker *w = &t->worker[i];
    pthread_mutex_lock(&w->lock);
    *out = w->stat;
    pthread_mutex_unlock(&w->lock);
}

void relay_thread_stat(struct relay_thread *t, struct relay_stat *out)
{
    struct relay_stat st;
    *out = (struct relay_stat){0};
    for (unsigned i = 0; i < t->n; i++) {
        relay_thread_worker_stat(t, i, &st);
        relay_stat_add(out, &st);
    }
}

size_t relay_thread_peers(struct relay_thread *t, struct relay_peer_info *out, size_t cap)
{
    size_t all = 0, told = 0;
    for (unsigned i = 0; i < t->n; i++) {
        struct worker *w = &t->worker[i];
        pthread_mutex_lock(&w->lock);
        size_t n = w->n_peers < RELAY_THREAD_PEERS ? w->n_peers : RELAY_THREAD_PEERS;
        if (n > cap - told)
            n = cap - told;
        memcpy(out + told, w->peers, n * sizeof(*out));
        told += n;
        all += w->n_peers;
        pthread_mutex_unlock(&w->lock);
    }
    return all;
}
