#include "transport/drive_env.h"

#include <assert.h>
#include <pthread.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/err.h"
#include "base/list.h"

#define THREADS_MAX 64

struct drive_env {
    struct env env;
    struct pk_pool *pool;
    struct drive_loop *loop;
    struct env_pk_stats stats[PK_CLASS__COUNT]; /* this loop's thread only */
    uint64_t next_ticket;
    int64_t clock_offset_ns;
    size_t in_flight; /* jobs submitted and not yet delivered, of cancelled ones too */
};

struct job {
    struct drive_msg msg; /* first: comes back by drive_post() */
    struct list_node node;
    struct drive_env *owner;
    struct pk_wait *wait; /* NULL after cancel; touched by the owner's thread only */
    struct list_node owned_node;
    struct pk_req req;
    struct pk_res res;
};

struct pk_pool {
    pthread_mutex_t lock;
    pthread_cond_t work;
    struct list queue[PK_CLASS__COUNT]; /* under lock */
    unsigned next_class;                /* whose turn it is among the classes of peers */
    bool stop;
    size_t cap;
    unsigned n_threads;
    pthread_t threads[THREADS_MAX];
};

static struct job *next_job(struct pk_pool *p)
{
    struct list_node *n = list_pop_front(&p->queue[PK_CLASS_OWN]);
    for (unsigned i = 0; n == NULL && i < PK_CLASS_OWN; i++) {
        p->next_class = (p->next_class + 1) % PK_CLASS_OWN;
        n = list_pop_front(&p->queue[p->next_class]);
    }
    return n == NULL ? NULL : container_of(n, struct job, node);
}

static void *pool_thread(void *arg)
{
    struct pk_pool *p = arg;
    pthread_mutex_lock(&p->lock);
    while (!p->stop) {
        struct job *j = next_job(p);
        if (j == NULL) {
            pthread_cond_wait(&p->work, &p->lock);
            continue;
        }
        pthread_mutex_unlock(&p->lock);
        pk_work(&j->res, &j->req);
        drive_post(j->owner->loop, &j->msg);
        pthread_mutex_lock(&p->lock);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

struct pk_pool *pk_pool_new(unsigned threads, size_t queue_cap)
{
    struct pk_pool *p = calloc(1, sizeof(*p));
    if (p == NULL)
        return NULL;
    p->cap = queue_cap;
    for (unsigned i = 0; i < PK_CLASS__COUNT; i++)
        list_init(&p->queue[i]);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->work, NULL);
    for (unsigned i = 0; i < threads && i < THREADS_MAX; i++) {
        if (pthread_create(&p->threads[i], NULL, pool_thread, p) != 0)
            break;
        p->n_threads++;
    }
    if (p->n_threads == 0) {
        pk_pool_free(p);
        return NULL;
    }
    return p;
}

void pk_pool_free(struct pk_pool *p)
{
    if (p == NULL)
        return;
    pthread_mutex_lock(&p->lock);
    p->stop = true;
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->lock);
    for (unsigned i = 0; i < p->n_threads; i++)
        pthread_join(p->threads[i], NULL);
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->work);
    free(p);
}

/* ---- the env of one loop ---- */

static void job_free(struct job *j)
{
    j->owner->in_flight--;
    sodium_memzero(j, sizeof(*j));
    free(j);
}

static void on_done(struct drive_msg *m)
{
    struct job *j = (struct job *)m;
    struct pk_wait *w = j->wait;
    j->owner->stats[j->req.cls].queued--;
    if (w != NULL) {
        w->res = j->res;
        w->ticket = 0;
    }
    job_free(j);
    if (w != NULL)
        w->done(w);
}

static int64_t env_wall(struct env *env)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec +
           ((struct drive_env *)env)->clock_offset_ns;
}

static void env_rand(struct env *env, void *out, size_t n)
{
    (void)env;
    randombytes_buf(out, n);
}

static int env_submit(struct env *env, struct pk_wait *wait, const struct pk_req *req)
{
    struct drive_env *e = (struct drive_env *)env;
    struct env_pk_stats *st = &e->stats[req->cls];
    struct job *j = st->queued < e->pool->cap ? calloc(1, sizeof(*j)) : NULL;
    if (j == NULL) {
        st->dropped++;
        return ERR_BUSY;
    }
    j->msg.fn = on_done;
    j->owner = e;
    j->wait = wait;
    j->req = *req;
    st->submitted++;
    st->queued++;
    e->in_flight++;
    /* The job's address is the ticket: it is live exactly while the wait is busy. */
    wait->ticket = (uint64_t)(uintptr_t)j;
    pthread_mutex_lock(&e->pool->lock);
    list_push_back(&e->pool->queue[req->cls], &j->node);
    pthread_cond_signal(&e->pool->work);
    pthread_mutex_unlock(&e->pool->lock);
    return ERR_PENDING;
}

static void env_cancel(struct env *env, struct pk_wait *wait)
{
    (void)env;
    if (wait->ticket == 0)
        return;
    ((struct job *)(uintptr_t)wait->ticket)->wait = NULL;
    wait->ticket = 0;
}

static void env_stats(struct env *env, enum pk_class cls, struct env_pk_stats *out)
{
    *out = ((struct drive_env *)env)->stats[cls];
}

static const struct env_ops ops = {env_wall, env_rand, env_submit, env_cancel, env_stats};

struct env *drive_env_new(struct pk_pool *pool, struct drive_loop *loop)
{
    struct drive_env *e = calloc(1, sizeof(*e));
    if (e == NULL)
        return NULL;
    e->env.ops = &ops;
    randombytes_buf(e->env.hash_key, sizeof(e->env.hash_key));
    e->pool = pool;
    e->loop = loop;
    return &e->env;
}

void drive_env_free(struct env *env)
{
    struct drive_env *e = (struct drive_env *)env;
    if (e == NULL)
        return;
    /* Cancelled jobs may still be queued or worked on: they come back through the loop. */
    while (e->in_flight > 0)
        drive_loop_wait_message(e->loop);
    free(e);
}

void drive_env_set_clock_offset(struct env *env, int64_t offset_ns)
{
    ((struct drive_env *)env)->clock_offset_ns = offset_ns;
}
