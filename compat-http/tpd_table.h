/*
 * tpd_table - the transports that a transport discovery knows, in memory: by id, by edge, in order of expiry.
 *
 * All reads of the service are answered from here; the store behind it (tpd_layout.h) is what survives the process. Whoever changes the table stores first and changes afterwards,
 * so that nothing is shown that was not acknowledged.
 *
 * Keys whose set of transports has changed (one came, went, or is another now; not: was renewed) are gathered, and taken out one by one with tpd_table_changed().
 *
 * Owner: the table owns its transports and edges; pointers are valid until the next call that changes it. One thread. Limits: `max` transports in all, TPD_EDGE_MAX of one key
 * (ERR_LIMIT, counted). Errors: ERR_LIMIT, ERR_NOMEM; then nothing has changed.
 *
 *     tpd_table_init(&t, env->hash_key, 0);
 *     rc = tpd_table_put(&t, &entry, until_ns, &tp);
 *     for (struct tpd_at it = tpd_edge_first(e); (tp = tpd_edge_next(&it)) != NULL;)
 *         …
 */
#pragma once

#include "base/list.h"
#include "base/map.h"
#include "kademlia/records/tp.h"

#define TPD_TABLE_MAX ((size_t)1 << 20)
#define TPD_EDGE_MAX  16384
#define TPD_FOR_EVER  UINT64_MAX

struct tpd_edge {
    struct pubkey pk;
    struct list list; /* of struct tpd_link */
    size_t n;
    struct list_node changed; /* in table->changed */
};

struct tpd_link {
    struct list_node node;
    struct tpd_tp *tp;
    struct tpd_edge *edge;
};

/* What others measured; kept as it was read. */
struct tpd_quality {
    double lat_min, lat_max, lat_avg, bandwidth; /* latencies in us */
};

struct tpd_tp {
    struct tp_entry e;
    struct tpd_quality quality;
    uint64_t until_ns;          /* of the loop's clock; TPD_FOR_EVER */
    uint64_t stored_ns;         /* when it was last written to the store */
    uint64_t stamp;             /* of the question it was the answer to last */
    int64_t slot;               /* five minutes in which it was last noted as up */
    struct tpd_link link[2];    /* the second one is not linked when both edges are one key */
    struct list_node all, life; /* in table->all, in table->life */
    struct list_node seen;      /* the owner's: waits for being noted as up */
};

struct tpd_table {
    struct map ids, edges;
    struct list all;          /* in the order they came, and marks */
    struct list life;         /* what ends first is first */
    struct list changed;      /* edges */
    struct list_node mark[2]; /* places of walks in all */
    uint64_t version;         /* of what the lists show */
    uint64_t stamp;           /* a question's */
    uint64_t refused;         /* counter: ERR_LIMIT */
};

void tpd_table_init(struct tpd_table *t, const uint8_t hash_key[16], size_t max);
void tpd_table_free(struct tpd_table *t);

struct tpd_tp *tpd_table_get(const struct tpd_table *t, const struct tp_id *id);
struct tpd_edge *tpd_table_edge(const struct tpd_table *t, const struct pubkey *pk);
static inline size_t tpd_table_len(const struct tpd_table *t)
{
    return map_len(&t->ids);
}
/* Is there room for n more transports with this key? Counted when not. */
bool tpd_table_room(struct tpd_table *t, const struct pubkey *pk, size_t n);
/* Another life of the same. Cheap when it ends after all others. */
void tpd_table_renew(struct tpd_table *t, struct tpd_tp *tp, uint64_t until_ns);
/* Add, or give the transport of this id these values and this life. */
int tpd_table_put(struct tpd_table *t, const struct tp_entry *e, uint64_t until_ns,
                  struct tpd_tp **out) __attribute__((warn_unused_result));
void tpd_table_remove(struct tpd_table *t, struct tpd_tp *tp);
/* The one that has ended by now, or NULL. */
struct tpd_tp *tpd_table_ended(const struct tpd_table *t, uint64_t now_ns);

bool tpd_same(const struct tp_entry *a, const struct tp_entry *b);

/* Take out a key whose set has changed. False: there is none. */
bool tpd_table_changed(struct tpd_table *t, struct pubkey *out);
void tpd_table_forget_changes(struct tpd_table *t);

/* All transports of an edge. */
struct tpd_at {
    const struct tpd_edge *edge;
    struct list_node *next;
};
struct tpd_at tpd_edge_first(const struct tpd_edge *e);
struct tpd_tp *tpd_edge_next(struct tpd_at *at);

/* All transports in the order they came, at once: NULL starts, NULL ends. The table must not change meanwhile. */
struct tpd_tp *tpd_table_next(const struct tpd_table *t, const struct tpd_tp *tp);
/* The same in pieces, while the table changes. What comes meanwhile is seen, what goes is not. */
enum tpd_walk { TPD_WALK_LIST, TPD_WALK_RESTORE, TPD_WALKS };
void tpd_walk_start(struct tpd_table *t, enum tpd_walk w);
struct tpd_tp *tpd_walk_next(struct tpd_table *t, enum tpd_walk w);
void tpd_walk_end(struct tpd_table *t, enum tpd_walk w);
