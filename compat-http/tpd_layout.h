/*
 * tpd_layout - what a transport discovery keeps where (docs/protocol/services.md §5.4, the Redis of 2026): keys, values, the operations of a change.
 *
 * Also on LMDB, where nobody else reads and the sets of edges are left out; there also for the generation of 2024, without lives (ttl_ms 0). Texts of keys live in the batch. Pure but for the batch; any thread.
 *
 *     tpd_layout_set(&batch, true, &tp->e, &tp->quality, ttl_ms, now_s);
 *     rc = tpd_layout_read(&stored, value.p, value.n);
 */
#pragma once

#include "compat-http/kv_batch.h"
#include "compat-http/tpd_table.h"

#define TPD_SERVICE "transport-discovery"
#define TPD_KEY_MAX (sizeof(TPD_SERVICE) + 4 + PUBKEY_HEX + 16)
#define TPD_VALUE   1024
#define TPD_DAY     10 /* "2026-11-20" */
#define TPD_INDEX   KV_STR(TPD_SERVICE ":tp:_index")

struct tpd_stored {
    struct tp_entry e;
    struct tpd_quality quality;
    int64_t last_update_s;
};

/* "…:tp:<id>"; returns its length. */
size_t tpd_layout_key(char out[TPD_KEY_MAX], const struct tp_id *id);

/* The value of a transport. Returns its length. */
size_t tpd_layout_value(char out[TPD_VALUE], const struct tp_entry *e,
                        const struct tpd_quality *quality, int64_t now_s);
/* Read one. ERR_FORMAT. */
int tpd_layout_read(struct tpd_stored *out, const void *p, size_t n)
    __attribute__((warn_unused_result));

/* A transport is registered, or renewed; it is gone. shared: with the sets of edges, which only others read. */
void tpd_layout_set(struct kv_batch *b, bool shared, const struct tp_entry *e,
                    const struct tpd_quality *quality, uint64_t ttl_ms, int64_t now_s);
void tpd_layout_del(struct kv_batch *b, bool shared, const struct tp_entry *e);
/* It was seen up in these five minutes (now_s); not kept of type dmsg. */
void tpd_layout_seen(struct kv_batch *b, const struct tp_entry *e, int64_t now_s);
/* Part of every write with some of them: the life of the day's set. */
void tpd_layout_seen_end(struct kv_batch *b, int64_t now_s);
/* The day (UTC) and a NUL. Returns out. */
char *tpd_layout_day(char out[TPD_DAY + 1], int64_t now_s);
