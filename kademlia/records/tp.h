/*
 * tp - the transports of a visor, as found under the DHT salts "tp", "tp:1", … (docs/protocol/dht.md
 * §4).
 *
 * Writers of different age left four shapes; all are read into one list of struct tp_entry:
 *
 *     1  [{"t_id","edges":[pk,pk],"type","label"}, …]     entries
 *     2  [{"entry":{…},"signatures":[…]}, …]              signed entries; the signatures are zeros or
 *                                                          were checked by the service long ago
 *     3  {"s":pk,"ts":[{"r":pk,"t":type,"l":ms}, …]}      rows of a source
 *     4  [{"r","t","l"}, …]                                rows, the source is the slot's subject
 *
 * A shape is the right one when it yields a transport. `[]` and `null` are "no transports" (a list
 * that has shrunk), which the Go readers took for an error. Entries with a null edge and rows with
 * an empty type or a bad key are left out. Nothing here is proof that a transport exists: whoever
 * signed the item said so.
 *
 * Owner: tp_decode() allocates the list, tp_list_free() frees it. Pure; any thread. Limits: value
 * of ITEM_MAX_VALUE bytes, types and labels of TP_TEXT_MAX bytes. Errors: ERR_FORMAT, ERR_TOO_LONG,
 * ERR_NOMEM.
 *
 *     struct tp_list l;
 *     if (tp_decode(&l, &subject, it->v, it->v_len) == 0) {
 *         for (size_t i = 0; i < l.n; i++) use(&l.e[i]);
 *         tp_list_free(&l);
 *     }
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/crypto.h"
#include "base/json.h"

#define TP_TEXT_MAX   31
#define TP_ID_BYTES   16
#define TP_ID_TEXT    36
#define TP_CHUNK_SIZE 200 /* entries that writers put into one value */

struct tp_id {
    uint8_t b[TP_ID_BYTES];
};

struct tp_entry {
    struct tp_id id;
    struct pubkey edges[2];
    char type[TP_TEXT_MAX + 1];  /* "stcpr", "sudph", "dmsg", … */
    char label[TP_TEXT_MAX + 1]; /* "automatic", "user", …; "" when the shape has none */
};

struct tp_list {
    struct tp_entry *e;
    size_t n;
};

/* Transport id of two keys, in any order, and a type. */
struct tp_id tp_id_of(const struct pubkey *a, const struct pubkey *b, const char *type);

/* 8-4-4-4-12 lower-case digits and a NUL. Returns out. */
char *tp_id_text(char out[TP_ID_TEXT + 1], const struct tp_id *id);

/* The spellings that the peers' parser takes: with dashes, also in braces or behind urn:uuid:, or 32 bare digits. 0 or ERR_FORMAT. */
int tp_id_from_text(struct tp_id *out, const char *text, size_t n)
    __attribute__((warn_unused_result));

/* {"t_id","edges","type","label"}, the shape 1 of one entry. */
void tp_entry_write(struct json_out *o, const struct tp_entry *e);

/* Read a value. On errors *out is empty. */
int tp_decode(struct tp_list *out, const struct pubkey *subject, const void *v, size_t n)
    __attribute__((warn_unused_result));
void tp_list_free(struct tp_list *l);
