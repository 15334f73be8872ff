/*
 * tp_chunks - a list of transports as the values of the salts "tp", "tp:1", … and back
 * (docs/protocol/dht.md §4).
 *
 * Writing: TP_CHUNK_SIZE bare entries to a chunk, fewer when their bytes would not fit a value; there
 * is always chunk 0, `[]` when there are no transports. A list that shrank leaves chunks of the last
 * publish behind: say how many there were, and tombstones (`[]`) come for the surplus. More than
 * TP_CHUNKS_MAX chunks are ERR_TOO_LONG: the caller knows what it failed to publish (incident 55).
 *
 * Reading: feed the values in order; tp_join_add() says whether the next chunk is to be asked for.
 * "Not found" ends a list too: do not add anything then. A list of signed entries, or in one of the
 * compact shapes, is never chunked.
 *
 * Owner: tp_chunks_free() frees what tp_split() gave, tp_join_free() what was added. Any thread.
 * Errors: ERR_FORMAT, ERR_TOO_LONG, ERR_NOMEM.
 *
 *     struct tp_chunks c;
 *     if (tp_split(&c, &list, chunks_before) == 0)
 *         for (size_t i = 0; i < c.n; i++)
 *             put(tp_salt(salt, i), c.v[i].text, c.v[i].n, now + i);
 *     chunks_before = c.used;
 *     tp_chunks_free(&c);
 */
#pragma once

#include <stdbool.h>

#include "kademlia/records/tp.h"

#define TP_CHUNKS_MAX 64
#define TP_SALT_MAX   8 /* "tp:63" and a NUL */

struct tp_chunk {
    char *text;
    size_t n;
};

struct tp_chunks {
    size_t used; /* chunks that hold transports, at least 1 */
    size_t n;    /* with tombstones */
    struct tp_chunk v[TP_CHUNKS_MAX];
};

/* The salt of a chunk and a NUL. Returns out. i < TP_CHUNKS_MAX. */
char *tp_salt(char out[TP_SALT_MAX], size_t i);
/* Number of the chunk that this salt is of, or -1. */
int tp_salt_chunk(const void *salt, size_t n);

/* before: what .used was at the last publish, 0 = none. On errors *out is empty. */
int tp_split(struct tp_chunks *out, const struct tp_list *l, size_t before)
    __attribute__((warn_unused_result));
void tp_chunks_free(struct tp_chunks *c);

struct tp_join { /* all zero at first */
    struct tp_list list;
    size_t next; /* chunk to be added next */
};

/* The value of chunk j->next. *more: ask for the next one. Entries that do not have the subject at
 * one of their edges are left out: a visor speaks for its own transports. On errors what was read
 * before stays. */
int tp_join_add(struct tp_join *j, const struct pubkey *subject, const void *v, size_t n,
                bool *more) __attribute__((warn_unused_result));
void tp_join_free(struct tp_join *j);
