#include "compat-http/mirror_disc.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/log.h"

#define RETRY_NS (5 * NS_PER_S)
#define PAUSE_NS (2 * NS_PER_MS)

static const struct kv_str sets[] = {{"servers", 7}, {"clients", 7}};
#define SETS (sizeof(sets) / sizeof(sets[0]))

struct mirror_disc {
    struct mirror *mirror;
    struct kv *kv;
    struct loop *loop;
    struct loop_timer timer;
    size_t set;
    char *keys; /* of the set that is being read, PUBKEY_HEX each; NULL: it is not asked for yet */
    size_t n, at;
    uint64_t found;
    bool again; /* asked for while a walk was under way */
    struct mirror_disc_stat stat;
};

static void wait_for(struct mirror_disc *w, uint64_t ns)
{
    loop_timer_set(w->loop, &w->timer, w->loop->now_ns + ns);
}

static void failed(struct mirror_disc *w, int err)
{
    w->stat.failed++;
    w->stat.complete = false;
    log_limited_here(LOG_HTTP, LOG_LEVEL_WARN, "entries are not read for the mirror reason=\"%s\"",
                     err_str(err));
    wait_for(w, RETRY_NS);
}

static void offer(struct mirror_disc *w, struct kv_str text)
{
    struct entry *e;
    if (text.p == NULL || entry_parse(&e, text.p, text.n) < 0)
        return; /* its life has ended, or it is no entry */
    mirror_entry(w->mirror, e, text.p, text.n);
    entry_free(e);
    w->found++;
}

static void on_entries(void *arg, const struct kv_answer *a)
{
    struct mirror_disc *w = arg;
    if (a->err != 0) {
        failed(w, a->err);
        return;
    }
    for (size_t i = 0; i < a->n; i++)
        offer(w, a->v[i]);
    w->at += a->n;
    wait_for(w, PAUSE_NS);
}

static void ask_entries(struct mirror_disc *w)
{
    struct kv_str key[MIRROR_DISC_CHUNK];
    size_t n = 0;
    for (; n < MIRROR_DISC_CHUNK && w->at + n < w->n; n++)
        key[n] = (struct kv_str){w->keys + (w->at + n) * PUBKEY_HEX, PUBKEY_HEX};
    int rc = kv_get(w->kv, key, n, on_entries, w);
    if (rc < 0)
        failed(w, rc);
}

static void on_keys(void *arg, const struct kv_answer *a)
{
    struct mirror_disc *w = arg;
    char *keys = a->err == 0 ? malloc(a->n * PUBKEY_HEX + 1) : NULL;
    if (keys == NULL) {
        failed(w, a->err != 0 ? a->err : ERR_NOMEM);
        return;
    }
    w->keys = keys;
    w->n = w->at = 0;
    for (size_t i = 0; i < a->n; i++)
        if (a->v[i].n == PUBKEY_HEX)
            memcpy(keys + PUBKEY_HEX * w->n++, a->v[i].p, PUBKEY_HEX);
    wait_for(w, PAUSE_NS);
}

static void next_set(struct mirror_disc *w)
{
    free(w->keys);
    w->keys = NULL;
    if (++w->set < SETS) {
        wait_for(w, 0);
        return;
    }
    log_info(LOG_HTTP, "entries offered to the DHT n=%llu", (unsigned long long)w->found);
    w->stat.walks++;
    w->stat.entries = w->found;
    w->stat.complete = true;
    w->set = 0;
    w->found = 0;
    wait_for(w, w->again ? 0 : MIRROR_DISC_EVERY_NS);
    w->again = false;
}

void mirror_disc_again(struct mirror_disc *w)
{
    if (w->set == 0 && w->keys == NULL && loop_timer_armed(&w->timer))
        wait_for(w, 0);
    else
        w->again = true;
}

static void on_timer(struct loop_timer *t)
{
    struct mirror_disc *w = container_of(t, struct mirror_disc, timer);
    int rc = 0;
    if (w->keys == NULL)
        rc = kv_members(w->kv, sets[w->set], on_keys, w);
    else if (w->at < w->n)
        ask_entries(w);
    else
        next_set(w);
    if (rc < 0)
        failed(w, rc);
}

struct mirror_disc *mirror_disc_new(struct mirror *m, struct kv *kv, struct loop *loop)
{
    struct mirror_disc *w = calloc(1, sizeof(*w));
    if (w == NULL)
        return NULL;
    w->mirror = m;
    w->kv = kv;
    w->loop = loop;
    w->timer.fn = on_timer;
    wait_for(w, 0);
    return w;
}

void mirror_disc_free(struct mirror_disc *w)
{
    if (w == NULL)
        return;
    loop_timer_cancel(w->loop, &w->timer);
    free(w->keys);
    free(w);
}

void mirror_disc_stat(const struct mirror_disc *w, struct mirror_disc_stat *out)
{
    *out = w->stat;
}
