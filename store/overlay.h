/*
 * overlay - what has been put into the LMDB store and is not committed yet.
 *
 * The owner's calls see the committed snapshot with the overlay laid over it. A struct pend is one
 * pending write: a record, the deletion of one, or a meta value. It is immutable from the moment
 * the writer may look at it; a newer write of the same key is a new pend, and the older one leaves
 * the trees. The trees hold the current pend of each key: `by_key` all of them, deletions too, the
 * index trees (same keys as LMDB's indexes) only records.
 *
 * A key that is in by_key hides what the snapshot says about it. A key that is not there has no
 * write under way, so the snapshot is right about it, whichever commit it shows. The same holds for
 * counters: a publisher with a pending write has its figures in `usages`, as they will be.
 *
 * Owner: the store's thread, alone. The writer only follows `link`, under its lock, and reads pends
 * that it has taken.
 *
 *     struct pend *p = pend_new_record(PEND_PUT, &rec);
 *     overlay_link(&o, p);              // the previous pend of the key was unlinked
 *     …the writer is done with it…
 *     if (p->current) overlay_unlink(&o, p);
 *     overlay_free_pend(&o, p);
 */
#pragma once

#include "base/list.h"
#include "store/record.h"
#include "store/tree.h"

#define PEND_KEY_MAX (PUBKEY_BYTES + STORE_NAME_MAX)

enum pend_type {
    PEND_PUT,
    PEND_TOUCH, /* a whole record too; differs from PUT in the comparison of seq */
    PEND_DEL,
    PEND_META,
};

struct usage { /* what a publisher will use when all pending writes are done */
    struct tree_node node;
    struct pubkey charged;
    uint32_t refs; /* pends that change it */
    uint64_t slots, bytes;
};

struct pend {
    enum pend_type type;
    struct tree_node by_key, by_index[IX__COUNT]; /* nodes hold the keys; key NULL: not indexed */
    struct list_node link;                        /* the writer's queue or batch */
    bool taken, superseded; /* by the writer, by a newer pend; under the writer's lock */
    bool skip, done;        /* the writer's own notes */
    bool after_del;         /* stands for a deletion and what was put afterwards: any seq goes */
    bool current;           /* in the trees */
    struct usage *before, *after; /* counters it changes: of the record it replaces, its own */
    size_t size;                  /* of this allocation */
    struct store_rec rec;         /* PUT, TOUCH; v and salt stand behind */
    size_t value_len;             /* META */
    size_t key_len;
    uint8_t key[PEND_KEY_MAX];
    uint8_t data[]; /* index keys, salt, v; or the meta value */
};

struct overlay {
    struct tree by_key, by_index[IX__COUNT], metas, usages;
    size_t bytes; /* gauge: allocated by pends, linked or not */
    size_t count; /* gauge: pends */
};

/* seed: unknown to peers, see tree.h. */
void overlay_init(struct overlay *o, uint64_t seed);

/* New pends, in no tree; NULL when out of memory. */
struct pend *pend_new_record(struct overlay *o, enum pend_type type, const struct store_rec *rec);
struct pend *pend_new_del(struct overlay *o, const struct kad_id *target, enum item_kind kind);
struct pend *pend_new_meta(struct overlay *o, const struct pubkey *owner, const char *name,
                           const void *p, size_t n);

/* The current pend of a key, or NULL. */
struct pend *overlay_find(const struct overlay *o, const uint8_t key[RECORD_KEY_BYTES]);
struct pend *overlay_find_meta(const struct overlay *o, const void *key, size_t key_len);
/* Is there a pend for the record that an index entry refers to? */
bool overlay_hides(const struct overlay *o, const uint8_t ref[RECORD_REF_BYTES]);

/* Make p the current pend of its key; there is none (assert). */
void overlay_link(struct overlay *o, struct pend *p);
void overlay_unlink(struct overlay *o, struct pend *p);

/* Counters of a publisher, NULL when nothing is pending for it. */
struct usage *overlay_usage(const struct overlay *o, const struct pubkey *charged);
/* The same with a reference; a new one starts at the figures given. NULL when out of memory. */
struct usage *overlay_usage_ref(struct overlay *o, const struct pubkey *charged, uint64_t slots,
                                uint64_t bytes);
void overlay_usage_unref(struct overlay *o, struct usage *u); /* NULL is allowed */

/* Drop an unlinked pend with its references. */
void overlay_free_pend(struct overlay *o, struct pend *p);
