#include "compat-http/tpd_table.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"

void tpd_table_init(struct tpd_table *t, const uint8_t hash_key[16], size_t max)
{
    memset(t, 0, sizeof(*t));
    map_init(&t->ids, MAP_KEY(struct tpd_tp, e.id), hash_key, max != 0 ? max : TPD_TABLE_MAX);
    map_init(&t->edges, MAP_KEY(struct tpd_edge, pk), hash_key, 0);
    list_init(&t->all);
    list_init(&t->life);
    list_init(&t->changed);
}

struct tpd_tp *tpd_table_get(const struct tpd_table *t, const struct tp_id *id)
{
    return map_get(&t->ids, id);
}

struct tpd_edge *tpd_table_edge(const struct tpd_table *t, const struct pubkey *pk)
{
    return map_get(&t->edges, pk);
}

bool tpd_table_room(struct tpd_table *t, const struct pubkey *pk, size_t n)
{
    const struct tpd_edge *e = tpd_table_edge(t, pk);
    size_t has = e != NULL ? e->n : 0;
    if (n <= TPD_EDGE_MAX - has && n <= t->ids.max - tpd_table_len(t))
        return true;
    t->refused++;
    return false;
}

/* ---- changes ---- */

static void note(struct tpd_table *t, struct tpd_edge *e)
{
    t->version++;
    if (!list_node_is_linked(&e->changed))
        list_push_back(&t->changed, &e->changed);
}

/* An edge without transports stays until its change was taken out. */
static void drop_edge_when_bare(struct tpd_table *t, struct tpd_edge *e)
{
    if (e->n > 0 || list_node_is_linked(&e->changed))
        return;
    (void)map_del(&t->edges, &e->pk);
    free(e);
}

bool tpd_table_changed(struct tpd_table *t, struct pubkey *out)
{
    struct tpd_edge *e = list_pop_front_as(&t->changed, struct tpd_edge, changed);
    if (e == NULL)
        return false;
    *out = e->pk;
    drop_edge_when_bare(t, e);
    return true;
}

void tpd_table_forget_changes(struct tpd_table *t)
{
    struct pubkey pk;
    while (tpd_table_changed(t, &pk))
        ;
}

/* ---- edges ---- */

static struct tpd_edge *edge_make(struct tpd_table *t, const struct pubkey *pk)
{
    struct tpd_edge *e = tpd_table_edge(t, pk);
    if (e != NULL || (e = calloc(1, sizeof(*e))) == NULL)
        return e;
    e->pk = *pk;
    list_init(&e->list);
    if (map_put(&t->edges, e) == 0)
        return e;
    free(e);
    return NULL;
}

static void link_edge(struct tpd_table *t, struct tpd_tp *tp, int i, struct tpd_edge *e)
{
    tp->link[i].tp = tp;
    tp->link[i].edge = e;
    list_push_back(&e->list, &tp->link[i].node);
    e->n++;
    note(t, e);
}

static void unlink_edges(struct tpd_table *t, struct tpd_tp *tp)
{
    for (int i = 0; i < 2; i++) {
        struct tpd_edge *e = tp->link[i].edge;
        if (e == NULL)
            continue;
        list_remove(&tp->link[i].node);
        tp->link[i].edge = NULL;
        e->n--;
        note(t, e);
    }
}

struct tpd_at tpd_edge_first(const struct tpd_edge *e)
{
    return (struct tpd_at){e, list_first(&e->list)};
}

struct tpd_tp *tpd_edge_next(struct tpd_at *at)
{
    if (at->next == NULL)
        return NULL;
    struct tpd_tp *tp = container_of(at->next, struct tpd_link, node)->tp;
    at->next = list_next(&at->edge->list, at->next);
    return tp;
}

/* ---- transports ---- */

/* Renewals come in order, so the place is nearly always the end. */
void tpd_table_renew(struct tpd_table *t, struct tpd_tp *tp, uint64_t until_ns)
{
    list_remove(&tp->life);
    struct list_node *at = t->life.head.prev;
    tp->until_ns = until_ns;
    while (at != &t->life.head && container_of(at, struct tpd_tp, life)->until_ns > until_ns)
        at = at->prev;
    list_insert_before(at->next, &tp->life);
}

bool tpd_same(const struct tp_entry *a, const struct tp_entry *b)
{
    return pubkey_equal(&a->edges[0], &b->edges[0]) && pubkey_equal(&a->edges[1], &b->edges[1]) &&
           strcmp(a->type, b->type) == 0 && strcmp(a->label, b->label) == 0;
}

/* Both keys have room for one more that is not theirs already. */
static bool edges_make(struct tpd_table *t, const struct tpd_tp *old, const struct tp_entry *e,
                       struct tpd_edge *edge[2], int *err)
{
    for (int i = 0; i < 2; i++) {
        edge[i] = edge_make(t, &e->edges[i]);
        bool has = old != NULL && edge[i] != NULL &&
                   (old->link[0].edge == edge[i] || old->link[1].edge == edge[i]);
        *err = edge[i] == NULL ? ERR_NOMEM : edge[i]->n >= TPD_EDGE_MAX && !has ? ERR_LIMIT : 0;
        if (*err == 0)
            continue;
        t->refused += *err == ERR_LIMIT;
        for (int k = 0; k <= i; k++)
            if (edge[k] != NULL && (k == 0 || edge[k] != edge[0]))
                drop_edge_when_bare(t, edge[k]);
        return false;
    }
    return true;
}

static void link_both(struct tpd_table *t, struct tpd_tp *tp, struct tpd_edge *edge[2])
{
    link_edge(t, tp, 0, edge[0]);
    if (edge[1] != edge[0])
        link_edge(t, tp, 1, edge[1]);
}

static int add(struct tpd_table *t, const struct tp_entry *e, struct tpd_tp **out)
{
    struct tpd_edge *edge[2];
    struct tpd_tp *tp = calloc(1, sizeof(*tp));
    int rc = ERR_NOMEM;
    if (tp == NULL)
        return rc;
    tp->e = *e;
    if ((rc = map_put(&t->ids, tp)) < 0) {
        t->refused += rc == ERR_LIMIT;
        free(tp);
        return rc;
    }
    if (!edges_make(t, NULL, e, edge, &rc)) {
        (void)map_del(&t->ids, &tp->e.id);
        free(tp);
        return rc;
    }
    list_push_back(&t->all, &tp->all);
    link_both(t, tp, edge);
    *out = tp;
    return 0;
}

static int change(struct tpd_table *t, struct tpd_tp *tp, const struct tp_entry *e)
{
    struct tpd_edge *edge[2], *old[2] = {tp->link[0].edge, tp->link[1].edge};
    int rc;
    if (!edges_make(t, tp, e, edge, &rc))
        return rc;
    unlink_edges(t, tp);
    tp->e = *e;
    link_both(t, tp, edge);
    for (int i = 0; i < 2; i++)
        if (old[i] != NULL)
            drop_edge_when_bare(t, old[i]);
    return 0;
}

int tpd_table_put(struct tpd_table *t, const struct tp_entry *e, uint64_t until_ns,
                  struct tpd_tp **out)
{
    struct tpd_tp *tp = tpd_table_get(t, &e->id);
    int rc = 0;
    if (tp == NULL)
        rc = add(t, e, &tp);
    else if (!tpd_same(&tp->e, e))
        rc = change(t, tp, e);
    if (rc < 0)
        return rc;
    tpd_table_renew(t, tp, until_ns);
    *out = tp;
    return 0;
}

void tpd_table_remove(struct tpd_table *t, struct tpd_tp *tp)
{
    unlink_edges(t, tp); /* noted, so that the edges stay */
    list_remove(&tp->all);
    list_remove(&tp->life);
    list_remove(&tp->seen);
    (void)map_del(&t->ids, &tp->e.id);
    free(tp);
}

struct tpd_tp *tpd_table_ended(const struct tpd_table *t, uint64_t now_ns)
{
    struct tpd_tp *tp = list_first_as(&t->life, struct tpd_tp, life);
    return tp != NULL && tp->until_ns <= now_ns ? tp : NULL;
}

void tpd_table_free(struct tpd_table *t)
{
    struct tpd_tp *tp;
    struct tpd_edge *e;
    for (int w = 0; w < TPD_WALKS; w++)
        tpd_walk_end(t, (enum tpd_walk)w);
    while ((tp = list_first_as(&t->all, struct tpd_tp, all)) != NULL)
        tpd_table_remove(t, tp);
    while ((e = list_pop_front_as(&t->changed, struct tpd_edge, changed)) != NULL)
        drop_edge_when_bare(t, e);
    map_free(&t->ids);
    map_free(&t->edges);
}

/* ---- all of them ---- */

_Static_assert(TPD_WALKS == sizeof(((struct tpd_table *)NULL)->mark) / sizeof(struct list_node),
               "");

static bool is_mark(const struct tpd_table *t, const struct list_node *n)
{
    return n == &t->mark[0] || n == &t->mark[1];
}

static struct tpd_tp *at_node(const struct tpd_table *t, struct list_node *n)
{
    while (n != NULL && is_mark(t, n))
        n = list_next(&t->all, n);
    return n != NULL ? container_of(n, struct tpd_tp, all) : NULL;
}

struct tpd_tp *tpd_table_next(const struct tpd_table *t, const struct tpd_tp *tp)
{
    return at_node(t, tp != NULL ? list_next(&t->all, &tp->all) : list_first(&t->all));
}

void tpd_walk_start(struct tpd_table *t, enum tpd_walk w)
{
    list_remove(&t->mark[w]);
    list_push_front(&t->all, &t->mark[w]);
}

struct tpd_tp *tpd_walk_next(struct tpd_table *t, enum tpd_walk w)
{
    struct tpd_tp *tp = at_node(t, list_next(&t->all, &t->mark[w]));
    if (tp == NULL)
        return NULL;
    list_remove(&t->mark[w]);
    list_insert_before(tp->all.next, &t->mark[w]);
    return tp;
}

void tpd_walk_end(struct tpd_table *t, enum tpd_walk w)
{
    list_remove(&t->mark[w]);
}
