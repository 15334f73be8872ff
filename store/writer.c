#include "store/writer.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "base/err.h"
#include "base/log.h"

#define MS              1000000ull
#define RETRY_NS        (1000 * MS)
#define READER_CHECK_NS (3600 * 1000 * MS)
#define RESERVE_MIN     32u    /* pages */
#define RESERVE_MAX     16384u /* pages */

struct writer {
    struct db *db;
    struct writer_cfg cfg;
    pthread_t thread;
    uint8_t *scratch;

    pthread_mutex_t lock;
    pthread_cond_t wake, progress;
    /* under lock */
    struct list queue, batch, finished;
    size_t n_queue, n_batch;
    uint64_t queue_ns, batch_ns; /* when the oldest was enqueued */
    uint64_t enqueued, batch_ticket, durable;
    uint64_t attempts, retry_ns;
    bool flush, stop;
    /* written under lock, read by the owner without */
    atomic_int error;
    atomic_bool map_full, parked, has_finished;
    atomic_ullong room, room_epoch;
    atomic_ullong commits, corrupt, refused_seq; /* counters of the thread */
    /* the thread's own */
    uint64_t reader_check_ns;
    size_t limit; /* writes per transaction while space is short */
};

static uint64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000 * MS + (uint64_t)ts.tv_nsec;
}

static void wait_until(pthread_cond_t *cond, pthread_mutex_t *lock, uint64_t at_ns)
{
    struct timespec ts = {.tv_sec = (time_t)(at_ns / (1000 * MS)),
                          .tv_nsec = (long)(at_ns % (1000 * MS))};

    pthread_cond_timedwait(cond, lock, &ts);
}

/* ---- writing, without the lock ---- */

static struct pend *next_todo(const struct writer *w, const struct pend *p, bool dels_only)
{
    const struct list_node *n = p == NULL ? list_first(&w->batch) : list_next(&w->batch, &p->link);

    for (; n != NULL; n = list_next(&w->batch, n)) {
        struct pend *q = container_of(n, struct pend, link);
        if (!q->done && !q->skip && (!dels_only || q->type == PEND_DEL))
            return q;
    }
    return NULL;
}

static int apply(struct writer *w, struct row_txn *t, const struct pend *p)
{
    enum row_rule rule = p->type == PEND_TOUCH ? ROW_NEWER_OR_SAME : ROW_NEWER;
    int rc = 0;

    if (p->after_del)
        rule = ROW_ANY;
    switch (p->type) {
    case PEND_PUT:
    case PEND_TOUCH:
        rc = row_put(t, &p->rec, rule);
        break;
    case PEND_DEL:
        rc = row_del(t, p->key);
        break;
    case PEND_META:
        rc = row_meta_put(t, p->key, p->key_len, p->data, p->value_len);
        break;
    }
    /* The owner compared already, so that this only happens to a damaged store. */
    if (rc == ERR_SEQ)
        w->refused_seq++;
    return rc == ERR_SEQ || rc == ERR_NOT_FOUND ? 0 : rc;
}

/* One transaction with at most `limit` writes; *n says how many it held or was to hold. */
static int try_chunk(struct writer *w, size_t limit, bool dels_only, size_t *n)
{
    struct row_txn t = {.scratch = w->scratch};
    struct pend *p;

    *n = 0;
    if (next_todo(w, NULL, dels_only) == NULL)
        return 0;
    int rc = row_begin(&t, w->db);
    if (rc != 0)
        return rc;
    for (p = NULL; rc == 0 && *n < limit && (p = next_todo(w, p, dels_only)) != NULL; ++*n)
        rc = apply(w, &t, p);
    if (rc != 0) {
        row_abort(&t);
        return rc;
    }
    rc = row_commit(&t);
    if (rc != 0)
        return rc;
    w->corrupt += t.corrupt;
    w->commits++;
    size_t left = *n;
    for (p = NULL; left > 0 && (p = next_todo(w, p, dels_only)) != NULL; left--)
        p->done = true;
    return 0;
}

static int write_chunk(struct writer *w, size_t limit, bool dels_only, size_t *n)
{
    int rc = try_chunk(w, limit, dels_only, n);

    return rc == -EIO && db_disk_is_full(w->db) ? ERR_NO_SPACE : rc;
}

static bool is_space(int rc)
{
    return rc == ERR_NO_SPACE || rc == ERR_LIMIT;
}

static int write_batch(struct writer *w)
{
    bool dels_only = w->error != 0; /* they may make the room that the others need */
    size_t limit = dels_only ? w->limit : SIZE_MAX;

    for (;;) {
        size_t n;
        int rc = write_chunk(w, limit, dels_only, &n);
        if (rc == 0 && n == 0 && !dels_only)
            return 0;
        if (rc == 0 && n == 0) {
            dels_only = false;
        } else if (rc == 0) {
            limit = limit > SIZE_MAX / 2 ? SIZE_MAX : limit * 2;
        } else if (!is_space(rc) || n <= 1) {
            w->limit = is_space(rc) ? 1 : SIZE_MAX;
            return rc;
        } else {
            limit = n / 2;
        }
    }
}

/* Room in the map. The free list is only walked when the end of the map is near. */
static uint64_t measure_room(const struct db *db)
{
    MDB_envinfo info;
    MDB_stat stat;
    MDB_txn *txn;

    if (mdb_env_info(db->env, &info) != 0 || mdb_env_stat(db->env, &stat) != 0)
        return UINT64_MAX;
    uint64_t total = info.me_mapsize / stat.ms_psize, used = info.me_last_pgno + 1;
    uint64_t reserve = total / 8, left = total > used ? total - used : 0;
    reserve = reserve < RESERVE_MIN ? RESERVE_MIN : reserve > RESERVE_MAX ? RESERVE_MAX : reserve;
    if (left > 4u * RESERVE_MAX)
        return UINT64_MAX;
    if (mdb_txn_begin(db->env, NULL, MDB_RDONLY, &txn) == 0) {
        left += db_free_pages(txn);
        mdb_txn_abort(txn);
    }
    return left > reserve ? (left - reserve) * stat.ms_psize : 0;
}

/* ---- the thread ---- */

static void take(struct writer *w)
{
    const struct list_node *n;

    for (n = list_first(&w->queue); n != NULL; n = list_next(&w->queue, n))
        container_of(n, struct pend, link)->taken = true;
    if (w->n_batch == 0)
        w->batch_ns = w->queue_ns;
    list_splice(&w->batch, &w->queue);
    w->n_batch += w->n_queue;
    w->n_queue = 0;
    w->batch_ticket = w->enqueued;
    w->flush = false;
    /* Whatever superseded a pend of the batch is in the batch too now. */
    for (n = list_first(&w->batch); n != NULL; n = list_next(&w->batch, n)) {
        struct pend *p = container_of(n, struct pend, link);
        p->skip = p->superseded;
    }
}

static void log_change(const struct writer *w, int error)
{
    if (error != 0 && error != w->error)
        log_error(LOG_STORE, "commit failed reason=\"%s\" pending=%zu", err_str(error),
                  w->n_batch + w->n_queue);
    else if (error == 0 && w->error != 0)
        log_info(LOG_STORE, "commits work again pending=%zu", w->n_queue);
}

static void finish(struct writer *w, int rc, uint64_t room)
{
    int error = rc == ERR_LIMIT ? ERR_NO_SPACE : rc;

    w->attempts++;
    w->map_full = rc == ERR_LIMIT;
    log_change(w, error);
    w->error = error;
    if (rc == ERR_STATE)
        w->parked = true;
    if (rc == 0) {
        w->durable = w->batch_ticket;
        list_splice(&w->finished, &w->batch);
        w->n_batch = 0;
        w->has_finished = true;
        w->room = room;
        w->room_epoch++;
        w->flush = w->flush && w->n_queue > 0;
    }
    w->retry_ns = now_ns() + RETRY_NS;
    pthread_cond_broadcast(&w->progress);
}

/* When there is something to do next; 0 = now. */
static uint64_t due_ns(const struct writer *w)
{
    if (w->parked)
        return w->stop ? 0 : now_ns() + RETRY_NS;
    if (w->n_queue + w->n_batch == 0)
        return w->stop ? 0 : w->reader_check_ns;
    if (w->flush || w->stop)
        return 0;
    if (w->error != 0)
        return w->retry_ns;
    return w->n_queue >= w->cfg.commit_count ? 0 : w->queue_ns + w->cfg.commit_ms * MS;
}

static void check_readers(struct writer *w)
{
    int dead;

    w->reader_check_ns = now_ns() + READER_CHECK_NS;
    pthread_mutex_unlock(&w->lock);
    mdb_reader_check(w->db->env, &dead);
    pthread_mutex_lock(&w->lock);
}

static void commit_round(struct writer *w)
{
    take(w);
    pthread_mutex_unlock(&w->lock);
    int rc = write_batch(w);
    uint64_t room = rc == 0 ? measure_room(w->db) : 0;
    pthread_mutex_lock(&w->lock);
    finish(w, rc, room);
}

static void *run(void *arg)
{
    struct writer *w = arg;
    bool last = false;

    pthread_mutex_lock(&w->lock);
    while (!last) {
        uint64_t due = due_ns(w);
        if (due > now_ns()) {
            wait_until(&w->wake, &w->lock, due);
            continue;
        }
        last = w->stop; /* one attempt, then it ends in any case */
        if (w->n_queue + w->n_batch > 0 && !w->parked)
            commit_round(w);
        else if (!last)
            check_readers(w);
        last = last && (w->n_queue == 0 || w->error != 0);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

/* ---- the owner's side ---- */

static int start_thread(struct writer *w)
{
    sigset_t all, before;

    /* Signals are for the threads of the program; and a write over the file size limit is an
     * error here, not a SIGXFSZ. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&w->thread, NULL, run, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc == 0 ? 0 : err_from_errno(rc);
}

static void destroy(struct writer *w)
{
    pthread_cond_destroy(&w->wake);
    pthread_cond_destroy(&w->progress);
    pthread_mutex_destroy(&w->lock);
    free(w->scratch);
    free(w);
}

int writer_start(struct writer **out, struct db *db, const struct writer_cfg *cfg)
{
    struct writer *w = calloc(1, sizeof *w);
    pthread_condattr_t attr;

    *out = NULL;
    if (w == NULL)
        return ERR_NOMEM;
    w->db = db;
    w->cfg = *cfg;
    w->limit = SIZE_MAX;
    list_init(&w->queue);
    list_init(&w->batch);
    list_init(&w->finished);
    w->reader_check_ns = now_ns() + READER_CHECK_NS;
    w->room = measure_room(db);
    w->scratch = malloc(RECORD_MAX_BYTES);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->wake, &attr);
    pthread_cond_init(&w->progress, &attr);
    pthread_condattr_destroy(&attr);
    int rc = w->scratch == NULL ? ERR_NOMEM : start_thread(w);
    if (rc != 0) {
        destroy(w);
        return rc;
    }
    *out = w;
    return 0;
}

bool writer_enqueue(struct writer *w, struct pend *p, struct pend *replaced)
{
    bool mine = false;

    pthread_mutex_lock(&w->lock);
    if (w->n_queue == 0)
        w->queue_ns = now_ns();
    if (replaced != NULL && !replaced->taken) {
        list_remove(&replaced->link);
        w->n_queue--;
        mine = true;
    } else if (replaced != NULL) {
        replaced->superseded = true;
    }
    list_push_back(&w->queue, &p->link);
    w->n_queue++;
    w->enqueued++;
    /* A deletion may be what a failing batch waits for. */
    uint64_t soon = w->queue_ns + w->cfg.commit_ms * MS;
    bool hurry = w->error != 0 && p->type == PEND_DEL && soon < w->retry_ns;
    if (hurry)
        w->retry_ns = soon;
    if (hurry || w->n_queue == 1 || w->n_queue == w->cfg.commit_count)
        pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
    return mine;
}

void writer_reap(struct writer *w, struct list *out)
{
    if (!w->has_finished)
        return;
    pthread_mutex_lock(&w->lock);
    list_splice(out, &w->finished);
    w->has_finished = false;
    pthread_mutex_unlock(&w->lock);
}

int writer_error(const struct writer *w)
{
    return w->error;
}

bool writer_map_is_full(const struct writer *w)
{
    return w->map_full;
}

bool writer_is_parked(const struct writer *w)
{
    return w->parked;
}

uint64_t writer_room(const struct writer *w, uint64_t *epoch)
{
    *epoch = w->room_epoch;
    return w->room;
}

void writer_status(struct writer *w, struct writer_status *out)
{
    pthread_mutex_lock(&w->lock);
    uint64_t since = w->n_batch > 0 ? w->batch_ns : w->queue_ns;
    *out = (struct writer_status){
        .error = w->error,
        .parked = w->parked,
        .pending = w->n_queue + w->n_batch,
        .room = w->room,
        .commits = w->commits,
        .corrupt = w->corrupt,
        .refused_seq = w->refused_seq,
    };
    out->oldest_ns = out->pending > 0 ? now_ns() - since : 0;
    pthread_mutex_unlock(&w->lock);
}

int writer_sync(struct writer *w, unsigned timeout_ms)
{
    uint64_t end = now_ns() + timeout_ms * MS;
    int rc = ERR_TIMEOUT;

    pthread_mutex_lock(&w->lock);
    const uint64_t target = w->enqueued, attempts = w->attempts;
    w->flush = w->n_queue + w->n_batch > 0;
    pthread_cond_signal(&w->wake);
    for (;;) {
        if (w->durable >= target)
            rc = 0;
        else if (w->error != 0 && (w->parked || w->attempts > attempts))
            rc = w->error;
        else if (now_ns() < end) {
            wait_until(&w->progress, &w->lock, end);
            continue;
        }
        break;
    }
    pthread_mutex_unlock(&w->lock);
    return rc;
}

void writer_resume(struct writer *w)
{
    pthread_mutex_lock(&w->lock);
    w->parked = false;
    w->retry_ns = 0;
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
}

int writer_stop(struct writer *w, unsigned timeout_ms, struct list *out)
{
    struct timespec end;

    pthread_mutex_lock(&w->lock);
    w->stop = true;
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
    clock_gettime(CLOCK_REALTIME, &end); /* what pthread_timedjoin_np() counts in */
    end.tv_sec += timeout_ms / 1000;
    end.tv_nsec += (long)(timeout_ms % 1000 * MS);
    end.tv_sec += end.tv_nsec / 1000000000;
    end.tv_nsec %= 1000000000;
    if (pthread_timedjoin_np(w->thread, NULL, &end) != 0) {
        pthread_detach(w->thread);
        return ERR_TIMEOUT;
    }
    list_splice(out, &w->finished);
    list_splice(out, &w->batch);
    list_splice(out, &w->queue);
    destroy(w);
    return 0;
}
