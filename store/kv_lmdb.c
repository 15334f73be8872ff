#include "store/kv_lmdb.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>

#include "base/err.h"
#include "base/list.h"
#include "store/db.h"

#define MAP_SIZE     (sizeof(void *) >= 8 ? UINT64_C(16) << 30 : UINT64_C(1) << 30)
#define COMMIT_MS    2
#define SWEEP_MS     1000
#define SWEEP_MAX    1000
#define UNMAP_S      1
#define MAX_READERS  126
#define EXPIRE_SLACK 100 /* a set may end a hundredth of its life too early */

struct batch { /* a write under way; operations and their bytes lie behind it */
    struct list_node node;
    kv_done_fn *fn;
    void *arg;
    int err;
    size_t n;
    struct kv_op op[];
};

struct kv_lmdb {
    struct kv kv;
    struct kv_lmdb_cfg cfg;
    struct dir dir;
    MDB_env *env;
    MDB_dbi dbi;
    void *map; /* NULL: not known */
    size_t map_size;
    time_t unmap_s; /* the writer's: when the pages of the map are let go */
    pthread_t thread;
    bool started;
    pthread_mutex_t lock; /* of all below */
    pthread_cond_t more;
    struct list queue, finished;
    size_t pending;
    bool stop;
    int last_err;
    uint64_t commits;
    /* the owner's */
    uint64_t reads, writes, failed;
};

static struct kv_lmdb *self_of(const struct kv *kv)
{
    return container_of((struct kv *)(uintptr_t)kv, struct kv_lmdb, kv);
}

static uint64_t wall_ms(const struct kv_lmdb *k)
{
    struct timespec t;
    if (k->cfg.wall_ms != NULL)
        return k->cfg.wall_ms(k->cfg.wall_arg);
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* ---- keys ---- */

struct raw {
    size_t n;
    uint8_t b[KV_KEY_MAX + 16];
};

static uint64_t get_u64(const void *p)
{
    uint64_t v = 0;
    for (int i = 0; i < 8; i++)
        v = v << 8 | ((const uint8_t *)p)[i];
    return v;
}

static void put_u64(uint8_t *p, uint64_t v)
{
    for (int i = 7; i >= 0; i--, v >>= 8)
        p[i] = (uint8_t)v;
}

static void raw_add(struct raw *r, const void *p, size_t n)
{
    assert(n <= sizeof(r->b) - r->n);
    if (n > 0)
        memcpy(r->b + r->n, p, n);
    r->n += n;
}

static struct raw raw_key(char type, struct kv_str key)
{
    struct raw r = {.n = 1};
    r.b[0] = (uint8_t)type;
    raw_add(&r, key.p, key.n);
    return r;
}

static struct raw raw_member(char type, struct kv_str key, struct kv_str member)
{
    struct raw r = raw_key(type, key);
    raw_add(&r, "", 1);
    raw_add(&r, member.p, member.n);
    return r;
}

static struct raw raw_expiry(uint64_t at_ms, struct kv_str key)
{
    uint8_t at[8];
    struct raw r = {.n = 1};
    r.b[0] = 'x';
    put_u64(at, at_ms);
    raw_add(&r, at, 8);
    raw_add(&r, key.p, key.n);
    return r;
}

static MDB_val val_of(const struct raw *r)
{
    return db_val(r->b, r->n);
}

/* ---- inside a transaction ---- */

struct tx {
    struct kv_lmdb *k;
    MDB_txn *txn;
    uint64_t now_ms;
};

static int tx_get(const struct tx *t, const struct raw *key, MDB_val *v)
{
    MDB_val k = val_of(key);
    return mdb_get(t->txn, t->k->dbi, &k, v);
}

static int tx_put(const struct tx *t, const struct raw *key, const void *p, size_t n)
{
    MDB_val k = val_of(key), v = db_val(n > 0 ? p : "", n);
    return mdb_put(t->txn, t->k->dbi, &k, &v, 0);
}

/* A row without a value; when it is there no page changes. */
static int tx_add(const struct tx *t, const struct raw *key)
{
    MDB_val k = val_of(key), v = db_val("", 0);
    int rc = mdb_put(t->txn, t->k->dbi, &k, &v, MDB_NOOVERWRITE);
    return rc == MDB_KEYEXIST ? 0 : rc;
}

static int tx_del(const struct tx *t, const struct raw *key)
{
    MDB_val k = val_of(key);
    int rc = mdb_del(t->txn, t->k->dbi, &k, NULL);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* The string that is there and alive: its value and expiry (0 = none). */
static bool string_of(const struct tx *t, struct kv_str key, struct kv_str *value, uint64_t *at_ms)
{
    struct raw r = raw_key('s', key);
    MDB_val v;
    if (tx_get(t, &r, &v) != 0 || v.mv_size < 8)
        return false;
    *at_ms = get_u64(v.mv_data);
    *value = (struct kv_str){(uint8_t *)v.mv_data + 8, v.mv_size - 8};
    return *at_ms == 0 || *at_ms > t->now_ms;
}

/* Is this a set or hash whose life is over? *at_ms: when, 0 = never. */
static bool group_is_dead(const struct tx *t, struct kv_str key, uint64_t *at_ms)
{
    struct raw r = raw_key('e', key);
    MDB_val v;
    *at_ms = tx_get(t, &r, &v) == 0 && v.mv_size == 8 ? get_u64(v.mv_data) : 0;
    return *at_ms != 0 && *at_ms <= t->now_ms;
}

/* Move a cursor to the first key that begins with the prefix, then on; false at its end. */
static bool next_with(MDB_cursor *c, const struct raw *prefix, MDB_val *k, MDB_val *v, bool first)
{
    *k = val_of(prefix);
    int rc = mdb_cursor_get(c, k, v, first ? MDB_SET_RANGE : MDB_NEXT);
    return rc == 0 && k->mv_size >= prefix->n && memcmp(k->mv_data, prefix->b, prefix->n) == 0;
}

static bool group_exists(const struct tx *t, struct kv_str key)
{
    MDB_cursor *c;
    MDB_val k, v;
    bool found = false;
    if (mdb_cursor_open(t->txn, t->k->dbi, &c) != 0)
        return false;
    for (const char *type = "mh"; *type != '\0' && !found; type++) {
        struct raw prefix = raw_member(*type, key, (struct kv_str){"", 0});
        found = next_with(c, &prefix, &k, &v, true);
    }
    mdb_cursor_close(c);
    return found;
}

static int group_del(const struct tx *t, struct kv_str key)
{
    MDB_cursor *c;
    MDB_val k, v;
    int rc = mdb_cursor_open(t->txn, t->k->dbi, &c);
    if (rc != 0)
        return rc;
    for (const char *type = "mh"; *type != '\0' && rc == 0; type++) {
        struct raw prefix = raw_member(*type, key, (struct kv_str){"", 0});
        while (rc == 0 && next_with(c, &prefix, &k, &v, true))
            rc = mdb_cursor_del(c, 0);
    }
    mdb_cursor_close(c);
    uint64_t at;
    (void)group_is_dead(t, key, &at);
    if (rc == 0 && at != 0) {
        struct raw e = raw_key('e', key), x = raw_expiry(at, key);
        if ((rc = tx_del(t, &e)) == 0)
            rc = tx_del(t, &x);
    }
    return rc;
}

static int string_put(const struct tx *t, struct kv_str key, const void *value, size_t n,
                      uint64_t at_ms)
{
    struct raw r = raw_key('s', key);
    struct kv_str old;
    uint64_t old_at = 0;
    MDB_val k = val_of(&r), v = {.mv_size = n + 8};
    (void)string_of(t, key, &old, &old_at);
    /* The value may lie in the page that is about to change. */
    uint8_t *copy = malloc(n + 8);
    if (copy == NULL)
        return ENOMEM;
    put_u64(copy, at_ms);
    if (n > 0)
        memcpy(copy + 8, value, n);
    v.mv_data = copy;
    int rc = mdb_put(t->txn, t->k->dbi, &k, &v, 0);
    free(copy);
    if (rc == 0 && old_at != 0 && old_at != at_ms) {
        struct raw x = raw_expiry(old_at, key);
        rc = tx_del(t, &x);
    }
    if (rc == 0 && at_ms != 0 && old_at != at_ms) {
        struct raw x = raw_expiry(at_ms, key);
        rc = tx_put(t, &x, "", 0);
    }
    return rc;
}

static int key_del(const struct tx *t, struct kv_str key)
{
    struct kv_str old;
    uint64_t at = 0;
    (void)string_of(t, key, &old, &at);
    struct raw r = raw_key('s', key), x = raw_expiry(at, key);
    int rc = tx_del(t, &r);
    if (rc == 0 && at != 0)
        rc = tx_del(t, &x);
    return rc == 0 ? group_del(t, key) : rc;
}

static int key_expire(const struct tx *t, struct kv_str key, uint64_t at_ms)
{
    struct kv_str value;
    uint64_t at;
    uint8_t b[8];
    if (string_of(t, key, &value, &at))
        return string_put(t, key, value.p, value.n, at_ms);
    if (group_is_dead(t, key, &at))
        return 0;
    /* One that is renewed all the time is written when it gained something. */
    if (at != 0 && at_ms > at && at_ms - at < (at_ms - t->now_ms) / EXPIRE_SLACK)
        return 0;
    if (at == 0 && !group_exists(t, key))
        return 0;
    struct raw e = raw_key('e', key), x = raw_expiry(at, key), y = raw_expiry(at_ms, key);
    put_u64(b, at_ms);
    int rc = at != 0 ? tx_del(t, &x) : 0;
    if (rc == 0)
        rc = tx_put(t, &e, b, 8);
    return rc == 0 ? tx_put(t, &y, "", 0) : rc;
}

static int64_t number_of(struct kv_str v)
{
    char text[24];
    size_t n = v.n < sizeof(text) - 1 ? v.n : 0;
    if (n > 0)
        memcpy(text, v.p, n);
    text[n] = '\0';
    return strtoll(text, NULL, 10);
}

static int do_incr(const struct tx *t, const struct kv_op *op)
{
    struct kv_str old = {"0", 1};
    uint64_t at = 0;
    char text[24];
    if (!string_of(t, op->key, &old, &at)) {
        old = KV_STR("0");
        at = 0;
    }
    int n = snprintf(text, sizeof(text), "%" PRId64, number_of(old) + (int64_t)op->number);
    return string_put(t, op->key, text, (size_t)n, at);
}

static int do_hincr(const struct tx *t, const struct kv_op *op)
{
    struct raw r = raw_member('h', op->key, op->member);
    MDB_val v = db_val("0", 1);
    char text[24];
    (void)tx_get(t, &r, &v);
    int n = snprintf(text, sizeof(text), "%" PRId64,
                     number_of((struct kv_str){v.mv_data, v.mv_size}) + (int64_t)op->number);
    return tx_put(t, &r, text, (size_t)n);
}

static int do_setbit(const struct tx *t, const struct kv_op *op)
{
    struct kv_str old;
    uint64_t at = 0;
    size_t byte = op->number / 8;
    if (!string_of(t, op->key, &old, &at)) {
        old = (struct kv_str){"", 0};
        at = 0;
    }
    size_t n = old.n > byte ? old.n : byte + 1;
    uint8_t *copy = calloc(1, n);
    if (copy == NULL)
        return ENOMEM;
    if (old.n > 0)
        memcpy(copy, old.p, old.n);
    copy[byte] |= (uint8_t)(0x80u >> op->number % 8);
    int rc = string_put(t, op->key, copy, n, at);
    free(copy);
    return rc;
}

static int do_op(const struct tx *t, const struct kv_op *op)
{
    uint64_t at;
    struct raw r;
    int rc = 0;
    if (op->cmd == KV_SADD || op->cmd == KV_HSET || op->cmd == KV_HINCR)
        rc = group_is_dead(t, op->key, &at) ? group_del(t, op->key) : 0;
    if (rc != 0)
        return rc;
    switch (op->cmd) {
    case KV_SET:
        return string_put(t, op->key, op->value.p, op->value.n,
                          op->ttl_ms != 0 ? t->now_ms + op->ttl_ms : 0);
    case KV_DEL:
        return key_del(t, op->key);
    case KV_EXPIRE:
        return key_expire(t, op->key, t->now_ms + op->ttl_ms);
    case KV_SADD:
        r = raw_member('m', op->key, op->member);
        return tx_add(t, &r);
    case KV_SREM:
        r = raw_member('m', op->key, op->member);
        return tx_del(t, &r);
    case KV_INCR:
        return do_incr(t, op);
    case KV_HSET:
        r = raw_member('h', op->key, op->member);
        return tx_put(t, &r, op->value.p, op->value.n);
    case KV_HINCR:
        return do_hincr(t, op);
    case KV_SETBIT:
        return do_setbit(t, op);
    }
    return EINVAL;
}

/* ---- the writer ---- */

static int do_batch(const struct tx *t, const struct batch *b)
{
    int rc = 0;
    for (size_t i = 0; i < b->n && rc == 0; i++)
        rc = do_op(t, &b->op[i]);
    return rc;
}

static int begin(struct tx *t, struct kv_lmdb *k)
{
    *t = (struct tx){.k = k, .now_ms = wall_ms(k)};
    return mdb_txn_begin(k->env, NULL, 0, &t->txn);
}

static int space_err(int rc)
{
    int err = db_err(rc);
    return err == ERR_LIMIT ? ERR_NO_SPACE : err;
}

/* All of them in one transaction; 0 or LMDB's error, and nothing was done. */
static int commit_all(struct kv_lmdb *k, struct list *l)
{
    struct tx t;
    int rc = begin(&t, k);
    if (rc != 0)
        return rc;
    for (struct list_node *n = list_first(l); n != NULL && rc == 0; n = list_next(l, n))
        rc = do_batch(&t, container_of(n, struct batch, node));
    if (rc == 0)
        return mdb_txn_commit(t.txn);
    mdb_txn_abort(t.txn);
    return rc;
}

/* One by one, so that what still fits is done. */
static void commit_each(struct kv_lmdb *k, struct list *l)
{
    struct list_node *pos, *tmp;
    list_for_each(pos, tmp, l)
    {
        struct batch *b = container_of(pos, struct batch, node);
        struct tx t;
        int rc = begin(&t, k);
        if (rc == 0) {
            rc = do_batch(&t, b);
            if (rc == 0)
                rc = mdb_txn_commit(t.txn);
            else
                mdb_txn_abort(t.txn);
        }
        b->err = space_err(rc);
    }
}

static void write_list(struct kv_lmdb *k, struct list *l)
{
    int rc = commit_all(k, l);
    if (rc != 0)
        commit_each(k, l);
    pthread_mutex_lock(&k->lock);
    k->last_err = space_err(rc);
    k->commits++;
    list_splice(&k->finished, l);
    pthread_mutex_unlock(&k->lock);
    if (k->cfg.wake != NULL)
        k->cfg.wake(k->cfg.wake_arg);
}

/* Delete what has expired. */
static void sweep(struct kv_lmdb *k)
{
    struct tx t;
    MDB_cursor *c;
    MDB_val key, v;
    struct raw prefix = {.n = 1, .b = {'x'}};
    int rc = begin(&t, k);
    size_t gone = 0;
    while (rc == 0 && gone < SWEEP_MAX) {
        if ((rc = mdb_cursor_open(t.txn, k->dbi, &c)) != 0)
            break;
        bool due = next_with(c, &prefix, &key, &v, true) && key.mv_size > 9 &&
                   get_u64((uint8_t *)key.mv_data + 1) <= t.now_ms;
        struct raw own = {.n = 0};
        if (due)
            raw_add(&own, key.mv_data, key.mv_size);
        mdb_cursor_close(c);
        if (!due)
            break;
        if ((rc = key_del(&t, (struct kv_str){own.b + 9, own.n - 9})) == 0)
            rc = tx_del(&t, &own);
        gone++;
    }
    if (t.txn != NULL && rc == 0 && gone > 0)
        (void)mdb_txn_commit(t.txn);
    else if (t.txn != NULL)
        mdb_txn_abort(t.txn);
}

/* ---- the map ---- */

/* Where the environment's file is mapped; LMDB does not say. */
static void find_map(struct kv_lmdb *k)
{
    char line[4096];
    struct stat st;
    int fd;
    FILE *f = fopen("/proc/self/maps", "re");
    bool found = f != NULL && mdb_env_get_fd(k->env, &fd) == 0 && fstat(fd, &st) == 0;
    k->map = NULL;
    while (found && k->map == NULL && fgets(line, sizeof(line), f) != NULL) {
        unsigned long from, to, inode;
        unsigned major_no, minor_no;
        if (sscanf(line, "%lx-%lx %*s %*s %x:%x %lu", &from, &to, &major_no, &minor_no, &inode) ==
                5 &&
            inode == st.st_ino && major_no == major(st.st_dev) && minor_no == minor(st.st_dev)) {
            k->map = (void *)from; // NOLINT(performance-no-int-to-ptr)
            k->map_size = to - from;
        }
    }
    if (f != NULL)
        fclose(f);
}

/* A page of the map that was looked at counts as the process's, though it is the kernel's cache of the file: now and then they are let go, so that its size says what it needs.
 * Whoever reads just now faults it in again. */
static void let_map_go(struct kv_lmdb *k, time_t now_s)
{
    if (k->map == NULL || now_s < k->unmap_s)
        return;
    k->unmap_s = now_s + UNMAP_S;
    (void)madvise(k->map, k->map_size, MADV_DONTNEED);
}

static void rest(unsigned ms)
{
    struct timespec t = {ms / 1000, (long)(ms % 1000) * 1000000};
    nanosleep(&t, NULL);
}

static void *run(void *arg)
{
    struct kv_lmdb *k = arg;
    struct timespec until;
    struct list l;
    bool stop = false;
    clock_gettime(CLOCK_MONOTONIC, &until);
    while (!stop) {
        int rc = 0;
        list_init(&l);
        pthread_mutex_lock(&k->lock);
        while (list_empty(&k->queue) && !k->stop && rc == 0)
            rc = pthread_cond_timedwait(&k->more, &k->lock, &until);
        stop = k->stop;
        bool work = !list_empty(&k->queue);
        pthread_mutex_unlock(&k->lock);
        if (work && !stop)
            rest(k->cfg.commit_ms); /* others come along */
        pthread_mutex_lock(&k->lock);
        list_splice(&l, &k->queue);
        pthread_mutex_unlock(&k->lock);
        if (!list_empty(&l))
            write_list(k, &l);
        if (rc == ETIMEDOUT) {
            sweep(k);
            clock_gettime(CLOCK_MONOTONIC, &until);
            let_map_go(k, until.tv_sec);
            until.tv_sec += SWEEP_MS / 1000;
        }
    }
    return NULL;
}

/* ---- the owner ---- */

static size_t bytes_of(const struct kv_op *op, size_t n)
{
    size_t bytes = 0;
    for (size_t i = 0; i < n; i++)
        bytes += op[i].key.n + op[i].member.n + op[i].value.n;
    return bytes;
}

static struct kv_str copy(char **to, struct kv_str s)
{
    struct kv_str c = {*to, s.n};
    if (s.n > 0)
        memcpy(*to, s.p, s.n);
    *to += s.n;
    return c;
}

static int op_write(struct kv *kv, const struct kv_op *op, size_t n, kv_done_fn *fn, void *arg)
{
    struct kv_lmdb *k = self_of(kv);
    if (n > KV_OPS_MAX)
        return ERR_LIMIT;
    for (size_t i = 0; i < n; i++)
        if (op[i].key.n > KV_KEY_MAX || op[i].member.n > KV_KEY_MAX - op[i].key.n)
            return ERR_TOO_LONG;
    struct batch *b = calloc(1, sizeof(*b) + n * sizeof(*op) + bytes_of(op, n));
    if (b == NULL)
        return ERR_NOMEM;
    char *to = (char *)&b->op[n];
    b->fn = fn;
    b->arg = arg;
    b->n = n;
    for (size_t i = 0; i < n; i++) {
        b->op[i] = op[i];
        b->op[i].key = copy(&to, op[i].key);
        b->op[i].member = copy(&to, op[i].member);
        b->op[i].value = copy(&to, op[i].value);
    }
    pthread_mutex_lock(&k->lock);
    bool full = k->pending >= KV_LMDB_PENDING;
    if (!full) {
        k->pending++;
        list_push_back(&k->queue, &b->node);
        pthread_cond_signal(&k->more);
    }
    pthread_mutex_unlock(&k->lock);
    k->writes += !full;
    if (full)
        free(b);
    return full ? ERR_BUSY : 0;
}

void kv_lmdb_reap(struct kv *kv)
{
    struct kv_lmdb *k = self_of(kv);
    struct list l;
    struct batch *b;
    list_init(&l);
    pthread_mutex_lock(&k->lock);
    list_splice(&l, &k->finished);
    pthread_mutex_unlock(&k->lock);
    while ((b = list_pop_front_as(&l, struct batch, node)) != NULL) {
        struct kv_answer a = {.err = b->err};
        k->failed += b->err != 0;
        pthread_mutex_lock(&k->lock);
        k->pending--;
        pthread_mutex_unlock(&k->lock);
        if (b->fn != NULL)
            b->fn(b->arg, &a);
        free(b);
    }
}

static int begin_read(struct tx *t, struct kv_lmdb *k)
{
    *t = (struct tx){.k = k, .now_ms = wall_ms(k)};
    k->reads++;
    return db_err(mdb_txn_begin(k->env, NULL, MDB_RDONLY, &t->txn));
}

/* The callback sees the transaction's own pages, and may call back into the store. */
static int answer(struct tx *t, int err, const struct kv_answer *a, kv_done_fn *fn, void *arg)
{
    if (err == 0)
        fn(arg, a);
    if (t->txn != NULL)
        mdb_txn_abort(t->txn);
    return err;
}

static int op_get(struct kv *kv, const struct kv_str *keys, size_t n, kv_done_fn *fn, void *arg)
{
    struct kv_str *v = calloc(n + 1, sizeof(*v));
    struct tx t = {0};
    int rc = v != NULL ? begin_read(&t, self_of(kv)) : ERR_NOMEM;
    for (size_t i = 0; i < n && rc == 0; i++) {
        uint64_t at;
        if (keys[i].n > KV_KEY_MAX || !string_of(&t, keys[i], &v[i], &at))
            v[i] = (struct kv_str){NULL, 0};
    }
    rc = answer(&t, rc, &(struct kv_answer){.v = v, .n = n}, fn, arg);
    free(v);
    return rc;
}

static int op_hget(struct kv *kv, struct kv_str key, const struct kv_str *fields, size_t n,
                   kv_done_fn *fn, void *arg)
{
    struct kv_str *v = calloc(n + 1, sizeof(*v));
    struct tx t = {0};
    uint64_t at;
    int rc = v != NULL ? begin_read(&t, self_of(kv)) : ERR_NOMEM;
    bool dead = rc == 0 && group_is_dead(&t, key, &at);
    for (size_t i = 0; i < n && rc == 0 && !dead; i++) {
        struct raw r = raw_member('h', key, fields[i]);
        MDB_val m;
        if (tx_get(&t, &r, &m) == 0)
            v[i] = (struct kv_str){m.mv_size > 0 ? m.mv_data : "", m.mv_size};
    }
    rc = answer(&t, rc, &(struct kv_answer){.v = v, .n = n}, fn, arg);
    free(v);
    return rc;
}

static int op_members(struct kv *kv, struct kv_str set, kv_done_fn *fn, void *arg)
{
    struct raw prefix = raw_member('m', set, (struct kv_str){"", 0});
    struct kv_str *v = NULL;
    struct tx t = {0};
    MDB_cursor *c = NULL;
    MDB_val key, m;
    uint64_t at;
    size_t n = 0, cap = 0;
    int rc = begin_read(&t, self_of(kv));
    if (rc == 0 && !group_is_dead(&t, set, &at))
        rc = db_err(mdb_cursor_open(t.txn, t.k->dbi, &c));
    for (bool first = true; rc == 0 && c != NULL && next_with(c, &prefix, &key, &m, first);
         first = false) {
        if (n == cap) {
            cap = cap != 0 ? 2 * cap : 64;
            struct kv_str *more = realloc(v, cap * sizeof(*v));
            if (more == NULL) {
                rc = ERR_NOMEM;
                break;
            }
            v = more;
        }
        v[n++] = (struct kv_str){(uint8_t *)key.mv_data + prefix.n, key.mv_size - prefix.n};
    }
    if (c != NULL)
        mdb_cursor_close(c);
    rc = answer(&t, rc, &(struct kv_answer){.v = v, .n = n}, fn, arg);
    free(v);
    return rc;
}

static int op_ttl(struct kv *kv, const struct kv_str *keys, size_t n, kv_done_fn *fn, void *arg)
{
    int64_t *ttl = calloc(n + 1, sizeof(*ttl));
    struct tx t = {0};
    int rc = ttl != NULL ? begin_read(&t, self_of(kv)) : ERR_NOMEM;
    for (size_t i = 0; i < n && rc == 0; i++) {
        struct kv_str v;
        uint64_t at = 0;
        bool there = string_of(&t, keys[i], &v, &at) ||
                     (!group_is_dead(&t, keys[i], &at) && group_exists(&t, keys[i]));
        ttl[i] = !there ? -2 : at == 0 ? -1 : (int64_t)(at - t.now_ms);
    }
    rc = answer(&t, rc, &(struct kv_answer){.ttl_ms = ttl, .n = n}, fn, arg);
    free(ttl);
    return rc;
}

static void op_stat(const struct kv *kv, struct kv_stat *out)
{
    struct kv_lmdb *k = self_of(kv);
    pthread_mutex_lock(&k->lock);
    *out = (struct kv_stat){.pending = k->pending,
                            .reads = k->reads,
                            .writes = k->writes,
                            .failed = k->failed,
                            .commits = k->commits,
                            .ready = true,
                            .last_err = k->last_err};
    pthread_mutex_unlock(&k->lock);
}

static void op_close(struct kv *kv)
{
    struct kv_lmdb *k = self_of(kv);
    struct batch *b;
    if (k->started) {
        pthread_mutex_lock(&k->lock);
        k->stop = true;
        pthread_cond_signal(&k->more);
        pthread_mutex_unlock(&k->lock);
        pthread_join(k->thread, NULL);
    }
    while ((b = list_pop_front_as(&k->finished, struct batch, node)) != NULL)
        free(b);
    if (k->env != NULL)
        mdb_env_close(k->env);
    dir_close(&k->dir);
    pthread_cond_destroy(&k->more);
    pthread_mutex_destroy(&k->lock);
    free(k);
}

static const struct kv_ops ops = {"lmdb",     op_write, op_get,  op_hget,
                                  op_members, op_ttl,   op_stat, op_close};

/* ---- opening ---- */

static int open_folder(struct kv_lmdb *k, char *why, size_t why_size)
{
    pid_t pid = 0;
    int rc = dir_open(&k->dir, k->cfg.path, true);
    if (rc == 0)
        rc = dir_lock(&k->dir, &pid);
    if (rc == ERR_BUSY)
        snprintf(why, why_size, "store %s: process %ld has it", k->cfg.path, (long)pid);
    else if (rc < 0)
        snprintf(why, why_size, "store %s: %s", k->cfg.path, err_str(rc));
    return rc;
}

static int open_env(struct kv_lmdb *k)
{
    MDB_txn *txn;
    int dead, rc = mdb_env_create(&k->env);
    if (rc != 0 || (rc = mdb_env_set_maxdbs(k->env, 4)) != 0 ||
        (rc = mdb_env_set_maxreaders(k->env, MAX_READERS)) != 0 ||
        (rc = mdb_env_set_mapsize(
             k->env, (size_t)(k->cfg.map_size != 0 ? k->cfg.map_size : MAP_SIZE))) != 0 ||
        (rc = mdb_env_open(k->env, k->cfg.path, MDB_NOTLS | MDB_NORDAHEAD, 0600)) != 0 ||
        (rc = mdb_reader_check(k->env, &dead)) != 0 ||
        (rc = mdb_txn_begin(k->env, NULL, 0, &txn)) != 0)
        return db_err(rc);
    if ((rc = mdb_dbi_open(txn, "kv", MDB_CREATE, &k->dbi)) != 0) {
        mdb_txn_abort(txn);
        return db_err(rc);
    }
    return db_err(mdb_txn_commit(txn));
}

static int start(struct kv_lmdb *k)
{
    sigset_t all, old;
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_destroy(&k->more);
    pthread_cond_init(&k->more, &attr);
    pthread_condattr_destroy(&attr);
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &old);
    int rc = pthread_create(&k->thread, NULL, run, k);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    k->started = rc == 0;
    return rc == 0 ? 0 : err_from_errno(rc);
}

int kv_lmdb_open(struct kv **out, const struct kv_lmdb_cfg *cfg, char *why, size_t why_size)
{
    struct kv_lmdb *k = calloc(1, sizeof(*k));
    *out = NULL;
    if (k == NULL)
        return ERR_NOMEM;
    k->kv.ops = &ops;
    k->cfg = *cfg;
    k->cfg.commit_ms = cfg->commit_ms != 0 ? cfg->commit_ms : COMMIT_MS;
    k->dir = (struct dir){.fd = -1, .lock_fd = -1};
    list_init(&k->queue);
    list_init(&k->finished);
    pthread_mutex_init(&k->lock, NULL);
    pthread_cond_init(&k->more, NULL);
    int rc = open_folder(k, why, why_size);
    if (rc == 0 && (rc = open_env(k)) < 0)
        snprintf(why, why_size, "store %s: %s", cfg->path, err_str(rc));
    if (rc == 0)
        find_map(k);
    if (rc == 0 && (rc = start(k)) < 0)
        snprintf(why, why_size, "store %s: %s", cfg->path, err_str(rc));
    if (rc < 0) {
        op_close(&k->kv);
        return rc;
    }
    *out = &k->kv;
    return 0;
}
