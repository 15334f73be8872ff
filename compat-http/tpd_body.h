/*
 * tpd_body - bodies that a transport discovery is sent, and what it echoes (docs/protocol/services.md §5.1, §5.2): lists of signed entries, of bare entries, of ids, of keys.
 *
 * Read as the services read: the whole body is one JSON value, names in any case, unknown members skipped, null leaves a member at its zero. Errors carry the status and
 * the text of upstream's: 400 for a syntax error, 500 for a value of another kind; of its many texts about places those that were recorded are told exactly.
 *
 * Owner: the caller frees a body with tpd_body_free(). Limits: TPD_BATCH_MAX elements. Any thread.
 *
 *     struct tpd_why why;
 *     if (tpd_body_signed(&b, q->body, q->body_len, &why) < 0)
 *         …why.status, why.text ("" = answered without body)…
 */
#pragma once

#include "base/json.h"
#include "kademlia/records/tp.h"

#define TPD_BATCH_MAX 4096

struct tpd_signed {
    struct tp_entry e;
    struct sig sig[2];
    int64_t registered; /* 0 = absent */
    bool written;       /* the service's */
};

struct tpd_body {
    struct tpd_signed *e; /* signed and bare entries */
    struct tp_id *id;
    struct pubkey *pk;
    size_t n;
    size_t bad; /* ids and keys that were none, left out */
};

struct tpd_why {
    unsigned status;
    char text[160];
};

/* 0; ERR_FORMAT with *why; then nothing is allocated. */
int tpd_body_signed(struct tpd_body *out, const void *p, size_t n, struct tpd_why *why)
    __attribute__((warn_unused_result));
int tpd_body_bare(struct tpd_body *out, const void *p, size_t n, struct tpd_why *why)
    __attribute__((warn_unused_result));
int tpd_body_ids(struct tpd_body *out, const void *p, size_t n, struct tpd_why *why)
    __attribute__((warn_unused_result));
int tpd_body_keys(struct tpd_body *out, const void *p, size_t n, struct tpd_why *why)
    __attribute__((warn_unused_result));
void tpd_body_free(struct tpd_body *b);

/* {"entry","signatures","registered"} */
void tpd_signed_write(struct json_out *o, const struct tpd_signed *e);
/* What each edge signs: id, edges, type; not the label. */
void tpd_signed_digest(struct hash *out, const struct tp_entry *e);
