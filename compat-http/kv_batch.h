/*
 * kv_batch - a write of many operations whose keys and values are made on the way.
 *
 *     struct kv_batch b = {0};
 *     struct kv_str key = kv_batch_text(&b, "tp:%s", id);
 *     kv_batch_add(&b, (struct kv_op){.cmd = KV_SET, .key = key, .value = v});
 *     rc = kv_batch_write(&b, kv, on_written, arg);       // and frees it
 *
 * Texts live until the batch is freed. The first error sticks (ERR_NOMEM, ERR_LIMIT: KV_OPS_MAX operations) and is what kv_batch_write() returns. One thread.
 */
#pragma once

#include "store/kv.h"

struct kv_batch { /* all zero at first */
    struct kv_op *op;
    size_t n, cap;
    struct kv_batch_room *rooms; /* of texts, newest first */
    int err;
};

/* A formatted text of up to 2 KiB. Empty on errors. */
struct kv_str kv_batch_text(struct kv_batch *b, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* A copy. */
struct kv_str kv_batch_copy(struct kv_batch *b, const void *p, size_t n);
void kv_batch_add(struct kv_batch *b, struct kv_op op);
/* As kv_write(). An empty batch is ERR_STATE. The batch is freed in any case. */
int kv_batch_write(struct kv_batch *b, struct kv *kv, kv_done_fn *fn, void *arg);
void kv_batch_free(struct kv_batch *b);
