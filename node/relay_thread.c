#include "node/relay_thread.h"

#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/err.h"
#include "transport/drive_tcp.h"

#define STAT_EVERY_NS NS_PER_S
#define BUSY_BYTES    (UINT64_C(64) << 20) /* so much relayed leaves memory worth giving back … */
#define QUIET_BYTES   (UINT64_C(1) << 20)  /* … in a second with less than this */

struct relay_thread {
    pthread_t thread;
    struct drive_loop *drive;
    struct bufpool *pool;
    struct env *env;
    struct drive_tcp *tcp;
    struct drive_listener *listener;
    struct relay *relay;
    struct guard *guard;
    uint64_t rests;
    char addr[CONN_ADDR_MAX];
    struct drive_msg stop;
    struct loop_timer stat_timer;
    void (*changed)(void *arg);
    void *arg;
    pthread_mutex_t lock;
    struct relay_stat stat; /* under lock, with the next two */
    struct relay_peer_info peers[RELAY_THREAD_PEERS];
    size_t n_peers;
    uint64_t trimmed_bytes, last_bytes; /* stat.bytes at the last trim, and a second ago */
};

struct found_msg {
    struct drive_msg msg;
    struct relay_thread *t;
    size_t n;
    struct relay_server list[];
};

struct recheck_msg {
    struct drive_msg msg;
    struct relay_thread *t;
};

struct pair_msg {
    struct drive_msg msg;
    struct relay_thread *t;
    int fd;
};

static void publish_stat(struct relay_thread *t)
{
    pthread_mutex_lock(&t->lock);
    relay_stat(t->relay, &t->stat);
    struct drive_tcp_stat tcp;
    drive_tcp_stat(t->tcp, &tcp);
    t->stat.loop_max_ns = drive_loop_max_turn_ns(t->drive);
    t->stat.fd_exhausted = tcp.fd_exhausted;
    t->stat.no_buffer = tcp.no_buffer;
    t->stat.accept_rests = t->rests;
    t->n_peers = relay_peers(t->relay, t->peers, RELAY_THREAD_PEERS);
    pthread_mutex_unlock(&t->lock);
}

/* A burst leaves the heap full of free buffers between small things that live on: measured 35 MiB
 * where 2.4 are in use. Give them back to the system when it is over. */
static void give_back(struct relay_thread *t)
{
    uint64_t bytes = t->stat.bytes, moved = bytes - t->last_bytes;
    t->last_bytes = bytes;
    if (moved > QUIET_BYTES || bytes - t->trimmed_bytes < BUSY_BYTES)
        return;
    t->trimmed_bytes = bytes;
    malloc_trim(0);
}

static void on_stat_timer(struct loop_timer *timer)
{
    struct relay_thread *t = container_of(timer, struct relay_thread, stat_timer);
    struct loop *loop = drive_loop_loop(t->drive);
    publish_stat(t);
    give_back(t);
    loop_timer_set(loop, timer, loop->now_ns + STAT_EVERY_NS);
}

static void on_changed(void *arg)
{
    struct relay_thread *t = arg;
    publish_stat(t);
    if (t->changed != NULL)
        t->changed(t->arg);
}

static void on_accept(void *arg, struct conn *conn)
{
    struct relay_thread *t = arg;
    relay_accept(t->relay, conn, false);
    if (!guard_is_full(t->guard))
        return;
    t->rests++;
    drive_listener_rest(t->listener);
}

static void on_stop(struct drive_msg *m)
{
    struct relay_thread *t = container_of(m, struct relay_thread, stop);
    drive_listener_close(t->listener);
    t->listener = NULL;
    relay_free(t->relay);
    t->relay = NULL;
    loop_timer_cancel(drive_loop_loop(t->drive), &t->stat_timer);
    drive_loop_stop(t->drive);
}

static void *run(void *arg)
{
    struct relay_thread *t = arg;
    (void)drive_loop_run(t->drive);
    return NULL;
}

static void pair_accept(struct drive_msg *m)
{
    struct pair_msg *p = (struct pair_msg *)m;
    struct conn *conn = p->t->relay != NULL ? drive_tcp_adopt(p->t->tcp, p->fd, "local") : NULL;
    if (conn != NULL)
        relay_accept(p->t->relay, conn, true);
    else if (p->t->relay == NULL)
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
    p->t = t;
    p->fd = fds[0];
    drive_post(t->drive, &p->msg);
    return fds[1];
}

static void on_found(struct drive_msg *m)
{
    struct found_msg *f = (struct found_msg *)m;
    if (f->t->relay != NULL)
        relay_mesh_found(f->t->relay, f->list, f->n);
    free(f);
}

bool relay_thread_found(struct relay_thread *t, const struct relay_server *list, size_t n)
{
    struct found_msg *f = calloc(1, sizeof(*f) + n * sizeof(*list));
    if (f == NULL)
        return false;
    f->msg.fn = on_found;
    f->t = t;
    f->n = n;
    if (n > 0)
        memcpy(f->list, list, n * sizeof(*list));
    drive_post(t->drive, &f->msg);
    return true;
}

static void on_recheck(struct drive_msg *m)
{
    struct recheck_msg *k = (struct recheck_msg *)m;
    if (k->t->relay != NULL)
        relay_recheck(k->t->relay);
    free(k);
}

bool relay_thread_recheck(struct relay_thread *t)
{
    struct recheck_msg *k = calloc(1, sizeof(*k));
    if (k == NULL)
        return false;
    k->msg.fn = on_recheck;
    k->t = t;
    drive_post(t->drive, &k->msg);
    return true;
}

struct guard *relay_thread_guard(struct relay_thread *t)
{
    return t->guard;
}

static void thread_free(struct relay_thread *t)
{
    if (t->relay != NULL)
        relay_free(t->relay);
    drive_listener_close(t->listener);
    if (t->drive != NULL) /* deferred closes */
        loop_turn(drive_loop_loop(t->drive), drive_loop_now(t->drive));
    drive_tcp_free(t->tcp);
    drive_env_free(t->env);
    if (t->pool != NULL)
        bufpool_free(t->pool);
    guard_free(t->guard);
    drive_loop_free(t->drive);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

static int build(struct relay_thread *t, const struct relay_thread_cfg *cfg)
{
    struct relay_cfg rc = {.self = cfg->self,
                           .sk = cfg->sk,
                           .key_bytes_per_s = cfg->key_bytes_per_s,
                           .peers = cfg->peers,
                           .n_peers = cfg->n_peers,
                           .accepted = cfg->accepted,
                           .n_accepted = cfg->n_accepted,
                           .accept_relayed = cfg->accept_relayed,
                           .changed = on_changed,
                           .arg = t};
    if ((t->drive = drive_loop_new(NULL)) == NULL || (t->pool = bufpool_new(cfg->budget)) == NULL ||
        (t->env = drive_env_new(cfg->pk_pool, t->drive)) == NULL ||
        (t->tcp = drive_tcp_new(t->drive, t->pool)) == NULL)
        return ERR_NOMEM;
    struct guard_cfg gc = cfg->guard;
    memcpy(gc.hash_key, t->env->hash_key, sizeof(gc.hash_key));
    if (guard_new(&t->guard, &gc) < 0)
        return ERR_NOMEM;
    rc.guard = t->guard;
    rc.env = t->env;
    rc.loop = drive_loop_loop(t->drive);
    rc.pool = t->pool;
    rc.carrier = drive_tcp_carrier(t->tcp);
    int err = relay_new(&t->relay, &rc);
    seckey_wipe(&rc.sk);
    return err < 0 ? err : drive_tcp_listen(t->tcp, cfg->listen, on_accept, t, &t->listener);
}

int relay_thread_start(struct relay_thread **out, const struct relay_thread_cfg *cfg)
{
    struct relay_thread *t = calloc(1, sizeof(*t));
    if (t == NULL)
        return ERR_NOMEM;
    pthread_mutex_init(&t->lock, NULL);
    t->changed = cfg->changed;
    t->arg = cfg->arg;
    t->stop.fn = on_stop;
    t->stat_timer.fn = on_stat_timer;
    int rc = build(t, cfg);
    if (rc < 0) {
        thread_free(t);
        return rc;
    }
    snprintf(t->addr, sizeof(t->addr), "%s", drive_listener_addr(t->listener));
    loop_timer_set(drive_loop_loop(t->drive), &t->stat_timer,
                   drive_loop_now(t->drive) + STAT_EVERY_NS);
    if (pthread_create(&t->thread, NULL, run, t) != 0) {
        loop_timer_cancel(drive_loop_loop(t->drive), &t->stat_timer);
        thread_free(t);
        return ERR_NOMEM;
    }
    *out = t;
    return 0;
}

void relay_thread_stop(struct relay_thread *t)
{
    if (t == NULL)
        return;
    drive_post(t->drive, &t->stop);
    pthread_join(t->thread, NULL);
    thread_free(t);
}

const char *relay_thread_addr(const struct relay_thread *t)
{
    return t->addr;
}

void relay_thread_stat(struct relay_thread *t, struct relay_stat *out)
{
    pthread_mutex_lock(&t->lock);
    *out = t->stat;
    pthread_mutex_unlock(&t->lock);
}

size_t relay_thread_peers(struct relay_thread *t, struct relay_peer_info *out, size_t cap)
{
    pthread_mutex_lock(&t->lock);
    size_t have = t->n_peers < RELAY_THREAD_PEERS ? t->n_peers : RELAY_THREAD_PEERS;
    if (cap > have)
        cap = have;
    memcpy(out, t->peers, cap * sizeof(*out));
    size_t n = t->n_peers;
    pthread_mutex_unlock(&t->lock);
    return n;
}
