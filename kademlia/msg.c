#include "kademlia/msg.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"

void kad_msg_init(struct kad_msg *m, enum kad_method method, bool response)
{
    memset(m, 0, sizeof *m);
    m->method = method;
    m->response = response;
}

void kad_msg_clear(struct kad_msg *m)
{
    for (size_t i = 0; i < m->n_items; i++)
        item_ref_put(m->items[i].item);
    free(m->items);
    free(m->closest);
    free(m->targets);
    free(m->ranges);
    for (size_t i = 0; i < m->n_answers; i++)
        recon_answer_clear(&m->answers[i]);
    free(m->answers);
    free((char *)(uintptr_t)m->salt);
    memset(m, 0, sizeof *m);
}

/* Arrays have the next power of two as capacity, so none has to be kept. */
static bool is_full(size_t n)
{
    return (n & (n - 1)) == 0;
}

int kad_msg_add_item(struct kad_msg *m, struct item_ref *item, const struct kad_id *target)
{
    if (m->n_items >= KAD_MSG_MAX_ITEMS)
        return ERR_LIMIT;
    if (is_full(m->n_items)) {
        size_t cap = m->n_items > 0 ? 2 * m->n_items : 1;
        struct kad_msg_item *items = realloc(m->items, cap * sizeof *items);
        if (items == NULL)
            return ERR_NOMEM;
        m->items = items;
    }
    struct kad_msg_item *mi = &m->items[m->n_items++];
    memset(mi, 0, sizeof *mi);
    mi->item = item != NULL ? item_ref_get(item) : NULL;
    mi->has_target = target != NULL;
    if (target != NULL)
        mi->target = *target;
    return 0;
}

int kad_msg_set_closest(struct kad_msg *m, const struct pubkey *pks, size_t n)
{
    struct pubkey *copy = NULL;

    assert(n <= KAD_K);
    if (n > 0) {
        copy = malloc(n * sizeof *copy);
        if (copy == NULL)
            return ERR_NOMEM;
        memcpy(copy, pks, n * sizeof *copy);
    }
    free(m->closest);
    m->closest = copy;
    m->n_closest = n;
    return 0;
}

int kad_msg_set_targets(struct kad_msg *m, const struct kad_id *targets, size_t n)
{
    struct kad_id *copy = NULL;

    assert(n <= KAD_MSG_MAX_TARGETS);
    if (n > 0) {
        copy = malloc(n * sizeof *copy);
        if (copy == NULL)
            return ERR_NOMEM;
        memcpy(copy, targets, n * sizeof *copy);
    }
    free(m->targets);
    m->targets = copy;
    m->n_targets = n;
    return 0;
}
