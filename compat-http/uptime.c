#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/err.h"
#include "compat-http/uptime_int.h"

#define LIFE_MS     (UINT64_C(8) * 86400000)
#define CHUNK       256 /* keys of one write: registrations come in between */
#define OPS_OF_KEY  7
#define SLOT_S      300
#define DAY_NS      (INT64_C(86400) * 1000000000)
#define VERSION_MAX 256

struct note {
    struct pubkey pk;
    char hex[PUBKEY_HEX + 1];
    uint64_t count;
    int64_t seen_s;
    char *version;
    size_t version_len;
};

struct uptime_flush {
    struct uptime *u;
    struct note **note;
    size_t n, at;
    char day[UPTIME_DAY];
    unsigned slot;
};

/* ---- names ---- */

void uptime_day(char out[UPTIME_DAY], int64_t wall_ns, int days_ago)
{
    struct tm tm;
    time_t s = (time_t)((wall_ns - days_ago * DAY_NS) / 1000000000);
    gmtime_r(&s, &tm);
    strftime(out, UPTIME_DAY, "%Y-%m-%d", &tm);
}

struct kv_str uptime_key(const struct uptime *u, char out[UPTIME_KEY], const char *hex,
                         const char *day, const char *tail)
{
    int n = snprintf(out, UPTIME_KEY, "%s:uptime:%s:%s%s", u->cfg.prefix, hex, day, tail);
    return (struct kv_str){out, (size_t)n};
}

struct kv_str uptime_online_key(const struct uptime *u, char out[UPTIME_KEY], const char *day)
{
    return uptime_key(u, out, "online", day, "");
}

/* ---- writing ---- */

static void note_free(struct note *n)
{
    free(n->version);
    free(n);
}

static void flush_free(struct uptime_flush *f)
{
    for (size_t i = 0; i < f->n; i++)
        note_free(f->note[i]);
    free(f->note);
    free(f);
}

static int by_key(const void *a, const void *b)
{
    return pubkey_cmp(&(*(struct note *const *)a)->pk, &(*(struct note *const *)b)->pk);
}

static size_t add_note(const struct uptime *u, const struct uptime_flush *f, const struct note *n,
                       struct kv_op *op, char key[3][UPTIME_KEY])
{
    struct kv_str hash = uptime_key(u, key[0], n->hex, f->day, ""),
                  line = uptime_key(u, key[1], n->hex, f->day, ":timeline");
    int seen = snprintf(key[2], UPTIME_KEY, "%lld", (long long)n->seen_s);
    size_t k = 0;
    op[k++] =
        (struct kv_op){.cmd = KV_HINCR, .key = hash, .member = KV_STR("count"), .number = n->count};
    op[k++] = (struct kv_op){.cmd = KV_HSET,
                             .key = hash,
                             .member = KV_STR("version"),
                             .value = {n->version, n->version_len}};
    op[k++] = (struct kv_op){.cmd = KV_HSET,
                             .key = hash,
                             .member = KV_STR("last_seen"),
                             .value = {key[2], (size_t)seen}};
    op[k++] = (struct kv_op){.cmd = KV_EXPIRE, .key = hash, .ttl_ms = LIFE_MS};
    op[k++] = (struct kv_op){.cmd = KV_SETBIT, .key = line, .number = f->slot};
    op[k++] = (struct kv_op){.cmd = KV_EXPIRE, .key = line, .ttl_ms = LIFE_MS};
    return k;
}

/* The next notes of a flush as one write. */
static int write_chunk(struct uptime *u, struct uptime_flush *f, kv_done_fn *fn)
{
    size_t n = f->n - f->at < CHUNK ? f->n - f->at : CHUNK, k = 0;
    struct kv_op *op = calloc(n * OPS_OF_KEY + 1, sizeof(*op));
    char(*key)[UPTIME_KEY] = calloc(3 * n, sizeof(*key)), online[UPTIME_KEY];
    struct kv_str set = uptime_online_key(u, online, f->day);
    int rc = op != NULL && key != NULL ? 0 : ERR_NOMEM;
    for (size_t i = 0; i < n && rc == 0; i++) {
        const struct note *note = f->note[f->at + i];
        k += add_note(u, f, note, op + k, &key[3 * i]);
        op[k++] = (struct kv_op){.cmd = KV_SADD, .key = set, .member = {note->hex, PUBKEY_HEX}};
    }
    if (rc == 0) {
        op[k++] = (struct kv_op){.cmd = KV_EXPIRE, .key = set, .ttl_ms = LIFE_MS};
        rc = kv_write(u->cfg.kv, op, k, fn, f);
    }
    f->at += n;
    u->stat.writes++;
    u->stat.failed += rc < 0;
    free(op);
    free(key);
    return rc;
}

static void on_chunk(void *arg, const struct kv_answer *a)
{
    struct uptime_flush *f = arg;
    struct uptime *u = f->u;
    u->stat.failed += a->err != 0;
    while (f->at < f->n)
        if (write_chunk(u, f, on_chunk) == 0)
            return;
    u->flush = NULL;
    flush_free(f);
    uptime_flushed(u);
}

/* The keys of a write are neighbours, so that it changes few pages, but come in an order of chance, or pages would stay half full. */
static void arrange(const struct uptime *u, struct uptime_flush *f)
{
    qsort(f->note, f->n, sizeof(struct note *), by_key);
    for (size_t from = 0; from < f->n; from += CHUNK) {
        size_t n = f->n - from < CHUNK ? f->n - from : CHUNK;
        for (size_t i = n; i > 1; i--) {
            size_t k = from + (size_t)env_random_below(u->cfg.env, i);
            struct note *t = f->note[from + i - 1];
            f->note[from + i - 1] = f->note[k];
            f->note[k] = t;
        }
    }
}

/* What was gathered. NULL: nothing, or no memory. */
static struct uptime_flush *take(struct uptime *u)
{
    struct uptime_flush *f = map_len(&u->notes) > 0 ? calloc(1, sizeof(*f)) : NULL;
    struct note *n;
    if (f == NULL || (f->note = calloc(map_len(&u->notes), sizeof(struct note *))) == NULL) {
        free(f);
        return NULL;
    }
    for (struct map_iter it = map_iter(&u->notes); (n = map_next(&it)) != NULL;) {
        f->note[f->n++] = n;
        map_iter_del(&it);
    }
    arrange(u, f);
    memcpy(f->day, u->day, sizeof(f->day));
    f->slot = u->slot;
    f->u = u;
    loop_timer_cancel(u->cfg.loop, &u->gather);
    return f;
}

bool uptime_flush(struct uptime *u)
{
    if (u->flush != NULL)
        return true;
    if ((u->flush = take(u)) == NULL)
        return false;
    struct kv_answer none = {0};
    on_chunk(u->flush, &none);
    return u->flush != NULL;
}

static void on_gather(struct loop_timer *t)
{
    struct uptime *u = container_of(t, struct uptime, gather);
    if (u->flush != NULL) /* the store is slow */
        loop_timer_set(u->cfg.loop, t, u->cfg.loop->now_ns + NS_PER_S);
    else
        (void)uptime_flush(u);
}

/* ---- notes ---- */

static struct note *note_new(struct uptime *u, const struct pubkey *pk)
{
    struct note *n = map_len(&u->notes) < UPTIME_GATHERED ? calloc(1, sizeof(*n)) : NULL;
    if (n == NULL)
        return NULL;
    n->pk = *pk;
    pubkey_hex(n->hex, pk);
    if (map_put(&u->notes, n) < 0) {
        free(n);
        return NULL;
    }
    if (!loop_timer_armed(&u->gather))
        loop_timer_set(u->cfg.loop, &u->gather, u->cfg.loop->now_ns + u->cfg.gather_ns);
    return n;
}

void uptime_note(struct uptime *u, const struct pubkey *pk, const char *version, size_t n)
{
    int64_t now = env_wall_ns(u->cfg.env);
    char day[UPTIME_DAY];
    unsigned slot = (unsigned)(now / 1000000000 % 86400 / SLOT_S);
    uptime_day(day, now, 0);
    u->stat.notes++;
    if (slot != u->slot || strcmp(day, u->day) != 0 || map_len(&u->notes) >= UPTIME_GATHERED)
        (void)uptime_flush(u); /* when one is under way, what has come since counts for this slot */
    memcpy(u->day, day, sizeof(u->day));
    u->slot = slot;
    struct note *note = map_get(&u->notes, pk);
    if (note == NULL && (note = note_new(u, pk)) == NULL) {
        u->stat.lost++;
        return;
    }
    n = n < VERSION_MAX ? n : VERSION_MAX;
    note->count++;
    note->seen_s = now / 1000000000;
    if (note->version == NULL || note->version_len != n || memcmp(note->version, version, n) != 0) {
        free(note->version);
        note->version = strndup(version, n);
        note->version_len = note->version != NULL ? n : 0;
    }
}

/* ---- life ---- */

int uptime_new(struct uptime **out, const struct uptime_cfg *cfg)
{
    struct uptime *u = calloc(1, sizeof(*u));
    assert(strlen(cfg->prefix) < 64);
    *out = u;
    if (u == NULL)
        return ERR_NOMEM;
    u->cfg = *cfg;
    u->gather.fn = on_gather;
    list_init(&u->waiting);
    map_init(&u->notes, MAP_KEY(struct note, pk), cfg->env->hash_key, 0);
    uptime_questions_init(u);
    return 0;
}

static void on_last(void *arg, const struct kv_answer *a)
{
    (void)arg, (void)a;
}

void uptime_free(struct uptime *u)
{
    struct uptime_flush *f;
    if (u == NULL)
        return;
    uptime_questions_free(u);
    while ((f = u->flush != NULL ? u->flush : take(u)) != NULL) {
        while (f->at < f->n)
            (void)write_chunk(u, f, on_last);
        /* The store does not tell any more when it is closed: nothing of a flush is used after its last write was accepted. */
        u->flush = NULL;
        flush_free(f);
    }
    loop_timer_cancel(u->cfg.loop, &u->gather);
    map_free(&u->notes);
    free(u);
}

void uptime_stat(const struct uptime *u, struct uptime_stat *out)
{
    *out = u->stat;
    out->gathered = map_len(&u->notes);
}
