#include "compat-http/mirror_tpd.h"

#include <stdlib.h>

#include "base/err.h"
#include "base/log.h"

#define PAUSE_NS (2 * NS_PER_MS)

struct mirror_tpd {
    struct mirror *mirror;
    struct tpd_service *tpd;
    struct loop *loop;
    struct loop_timer timer;
    struct pubkey *keys; /* of the walk under way; NULL = none */
    size_t n, cap, at;
    struct mirror_tpd_stat stat;
};

static void leave_out_own(struct tp_list *l)
{
    size_t n = 0;
    for (size_t i = 0; i < l->n; i++)
        if (!pubkey_equal(&l->e[i].edges[0], &l->e[i].edges[1]))
            l->e[n++] = l->e[i];
    l->n = n;
}

void mirror_tpd_changed(struct mirror_tpd *w, const struct pubkey *pk)
{
    struct tp_list l;
    if (tpd_service_list(w->tpd, pk, &l) < 0)
        return; /* the next walk has it */
    leave_out_own(&l);
    mirror_transports(w->mirror, pk, &l);
    tp_list_free(&l);
}

/* ---- everything ---- */

static void add_key(void *arg, const struct pubkey *pk)
{
    struct mirror_tpd *w = arg;
    if (w->n == w->cap) {
        size_t cap = w->cap != 0 ? 2 * w->cap : 256;
        struct pubkey *more = realloc(w->keys, cap * sizeof(*more));
        if (more == NULL)
            return;
        w->keys = more;
        w->cap = cap;
    }
    w->keys[w->n++] = *pk;
}

static void walk_over(struct mirror_tpd *w)
{
    log_info(LOG_HTTP, "transports offered to the DHT keys=%zu", w->n);
    w->stat.walks++;
    w->stat.keys = w->n;
    free(w->keys);
    w->keys = NULL;
    w->n = w->cap = w->at = 0;
    loop_timer_set(w->loop, &w->timer, w->loop->now_ns + MIRROR_TPD_EVERY_NS);
}

static void on_timer(struct loop_timer *t)
{
    struct mirror_tpd *w = container_of(t, struct mirror_tpd, timer);
    if (w->keys == NULL)
        tpd_service_each(w->tpd, add_key, w);
    for (size_t i = 0; i < MIRROR_TPD_STEP && w->at < w->n; i++)
        mirror_tpd_changed(w, &w->keys[w->at++]);
    if (w->at < w->n)
        loop_timer_set(w->loop, &w->timer, w->loop->now_ns + PAUSE_NS);
    else
        walk_over(w);
}

void mirror_tpd_all(struct mirror_tpd *w)
{
    w->at = 0; /* what comes meanwhile is told by changes */
    loop_timer_set(w->loop, &w->timer, w->loop->now_ns);
}

/* ---- from the DHT ---- */

static bool is_edge(const struct tp_entry *e, const struct pubkey *pk)
{
    return pubkey_equal(&e->edges[0], pk) || pubkey_equal(&e->edges[1], pk);
}

size_t mirror_tpd_take(struct mirror_tpd *w, const struct pubkey *subject, const void *v, size_t n)
{
    static const struct pubkey nobody;
    struct tp_list l;
    size_t taken = 0;
    if (tp_decode(&l, subject != NULL ? subject : &nobody, v, n) < 0)
        return 0;
    for (size_t i = 0; i < l.n; i++)
        if (subject == NULL || is_edge(&l.e[i], subject))
            taken += tpd_service_take(w->tpd, &l.e[i]);
    tp_list_free(&l);
    w->stat.taken += taken;
    return taken;
}

/* ---- life ---- */

struct mirror_tpd *mirror_tpd_new(struct mirror *m, struct tpd_service *t, struct loop *loop)
{
    struct mirror_tpd *w = calloc(1, sizeof(*w));
    if (w == NULL)
        return NULL;
    w->mirror = m;
    w->tpd = t;
    w->loop = loop;
    w->timer.fn = on_timer;
    return w;
}

void mirror_tpd_free(struct mirror_tpd *w)
{
    if (w == NULL)
        return;
    loop_timer_cancel(w->loop, &w->timer);
    free(w->keys);
    free(w);
}

void mirror_tpd_stat(const struct mirror_tpd *w, struct mirror_tpd_stat *out)
{
    *out = w->stat;
}
