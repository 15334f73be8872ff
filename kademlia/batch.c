/* Signed items given to one peer, as many as fit a PUT_BATCH: what a mirror does for full nodes (docs/protocol/dht.md §5.4). */
#include "base/err.h"
#include "kademlia/codec_json.h"
#include "kademlia/engine.h"

/* What the peer says it did with each of them. */
static void answered(struct kad_call *c, struct kad_msg *rsp, enum kad_fail why)
{
    struct kad_op *op = c->op;

    if (rsp == NULL) {
        op->rep.failed++;
        kad_op_finish(op, kad_fail_err(why), KAD_END_TIMEOUT);
        return;
    }
    op->rep.answered++;
    op->rep.bytes += rsp->wire_bytes;
    for (size_t i = 0; i < rsp->n_items; i++) {
        if (rsp->items[i].result == 0)
            op->rep.pushed++;
        else
            op->rep.refused++;
    }
    kad_op_finish(op, 0, KAD_END_CLOSEST);
}

/* How many of them fit one frame; at least one. */
static size_t fill(struct kad_msg *m, const struct kad_batch_item *items, size_t n)
{
    size_t bytes = 0, i = 0;

    for (; i < n && i < KAD_BATCH_ITEMS; i++) {
        bytes += kad_json_item_size(&items[i].item->item);
        if ((i > 0 && bytes > KAD_BATCH_BYTES) ||
            kad_msg_add_item(m, items[i].item, &items[i].target) != 0)
            break;
    }
    return i;
}

uint32_t kad_put_batch(struct kad *k, kad_peer peer, const struct kad_batch_item *items, size_t n,
                       size_t *taken, void *user, uint64_t now_ns)
{
    struct kad_msg m;
    uint32_t number = 0;

    kad_enter(k, now_ns);
    kad_msg_init(&m, KAD_PUT_BATCH, false);
    *taken = fill(&m, items, n);
    struct kad_op *op = *taken > 0 ? kad_op_new(k, KAD_OP_BATCH, false, user) : NULL;
    if (op == NULL) {
        kad_msg_clear(&m);
    } else {
        op->rep.asked = 1;
        number = op->rep.op;
        kad_op_set_deadline(op, 3 * k->lim.rpc_timeout_ms);
        if (kad_call_start(k, op, peer, &m, answered) == NULL) {
            kad_op_free(op);
            number = 0;
        }
    }
    kad_leave(k);
    return number;
}
