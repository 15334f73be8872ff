/*
 * push - what the local store accepts, to the discovery: the node's side of compat-http/pusher.h.
 *
 * An entry that the discovery's own mirror signed is there already; one of another key of --mirror too, as far as we know. When the discovery has lost
 * what it had, everything that is live in the store is offered, PAGE records at a time.
 */
#include <stdlib.h>
#include <string.h>

#include "compat-http/pusher.h"
#include "kademlia/records/ns.h"
#include "node/node_int.h"

#define PAGE     256
#define PAUSE_NS (10 * NS_PER_MS)
#define FIRST_NS (10 * NS_PER_S) /* what was in the store at the start */

static const char salt[] = "dmsg";

struct push {
    struct node *node;
    struct pusher *pusher;
    struct loop_timer pages;
    uint64_t since;
};

static bool is_mirror(const struct node *n, const struct pubkey *pk)
{
    for (size_t i = 0; i < n->cfg.n_mirrors; i++)
        if (pubkey_equal(&n->cfg.mirrors[i], pk))
            return true;
    return false;
}

static bool is_entry(const struct push *p, const struct store_rec *rec)
{
    return item_salt_is(&rec->item, salt) && rec->kind != ITEM_MIRROR &&
           rec->expires_ns > env_wall_ns(p->node->env) &&
           !pubkey_equal(&rec->charged, &p->node->cfg.pk);
}

static void offer(struct push *p, const struct store_rec *rec)
{
    if (is_entry(p, rec) && !ns_is_tombstone(salt, strlen(salt), rec->item.v, rec->item.v_len))
        pusher_offer(p->pusher, &rec->charged, (const char *)rec->item.v, rec->item.v_len);
}

static void push_stored(struct node *n, const struct store_rec *rec)
{
    struct push *p = n->push;
    if (p == NULL || !is_entry(p, rec))
        return;
    if (ns_is_tombstone(salt, strlen(salt), rec->item.v, rec->item.v_len))
        pusher_gone(p->pusher, &rec->charged);
    else if (is_mirror(n, &rec->item.k))
        pusher_seen(p->pusher, &rec->charged, (const char *)rec->item.v, rec->item.v_len);
    else
        offer(p, rec);
}

/* ---- from the store ---- */

static bool on_record(void *arg, const struct store_rec *rec)
{
    struct push *p = arg;
    offer(p, rec);
    p->since = rec->item.seq;
    return true;
}

static void on_pages(struct loop_timer *t)
{
    struct push *p = container_of(t, struct push, pages);
    struct store *s = p->node->store;
    struct store_page page = {.salt = (const uint8_t *)salt,
                              .salt_len = strlen(salt),
                              .since_seq = p->since,
                              .limit = PAGE};
    bool more = false;
    if (s->ops->list(s, &page, on_record, p, &more) == 0 && more)
        loop_timer_set(p->node->loop, t, p->node->loop->now_ns + PAUSE_NS);
}

static void offer_kind(struct push *p, const struct pubkey *pk, enum item_kind kind)
{
    struct kad_id target = kad_target(pk, salt, strlen(salt));
    struct store_rec rec;
    if (p->node->store->ops->get(p->node->store, &target, kind, &rec) == 0)
        offer(p, &rec);
}

static void on_again(void *arg, const struct pubkey *pk)
{
    struct push *p = arg;
    if (pk != NULL) {
        offer_kind(p, pk, ITEM_OWNER);
        offer_kind(p, pk, ITEM_CERT);
        return;
    }
    p->since = 0;
    loop_timer_set(p->node->loop, &p->pages, p->node->loop->now_ns);
}

void push_all(struct node *n)
{
    if (n->push != NULL)
        pusher_refill(n->push->pusher);
}

/* ---- life ---- */

static int push_open(struct node *n, char why[NODE_WHY])
{
    struct pusher_cfg cfg = {.env = n->env, .loop = n->loop, .port = n->disc, .again = on_again};
    (void)why;
    if (!n->policy.push || n->discovery == NULL)
        return 0;
    struct push *p = n->push = calloc(1, sizeof(*p));
    if (p == NULL)
        return ERR_NOMEM;
    p->node = n;
    p->pages.fn = on_pages;
    cfg.arg = p;
    p->pusher = pusher_new(&cfg);
    if (p->pusher == NULL)
        return ERR_NOMEM;
    loop_timer_set(n->loop, &p->pages, n->loop->now_ns + env_jitter_ns(n->env, FIRST_NS, 30));
    return 0;
}

static void push_close(struct node *n)
{
    struct push *p = n->push;
    if (p == NULL)
        return;
    n->push = NULL;
    loop_timer_cancel(n->loop, &p->pages);
    pusher_free(p->pusher);
    free(p);
}

bool push_stat(const struct node *n, struct pusher_stat *out)
{
    *out = (struct pusher_stat){0};
    if (n->push != NULL)
        pusher_stat(n->push->pusher, out);
    return n->push != NULL;
}

const struct node_part node_part_push = {
    .open = push_open, .close = push_close, .stored = push_stored};
