/*
 * The full nodes that this node knows of. Whatever is put goes to some of them as well, beside the k
 * closest to its slot: in a network larger than k they would hear of it by chance only, and "the complete
 * data set" be an empty word.
 *
 * A full node says that it is one in its native PINGs and in its answers to them (docs/protocol/dht-native.md);
 * it pings each new contact once to say so. Bootstrap keys come first: whoever else claims to be full
 * may be anybody. Others are chosen by the distance of their IDs to the slot, so that they share the load.
 * What peers put that speak JSON only, and so cannot know, is passed on by the closest holders.
 */
#include <stdlib.h>

#include "base/err.h"
#include "kademlia/engine.h"

#define TELLERS 3 /* of an item whose publisher knows no full node */

static void forget(struct kad *k, size_t i)
{
    kad_unref(k, k->fulls[i].peer);
    k->fulls[i] = k->fulls[--k->n_fulls];
}

static bool is_bootstrap(const struct kad *k, kad_peer p)
{
    return kad_keyset_has(&k->bootstrap, kad_pk(k, p));
}

/* Where there is no room: the one that was not heard of for longest, but no bootstrap key for another one. Most
 * nodes of a network never hear of any, so the list is made at the first. */
static size_t place(struct kad *k, kad_peer p)
{
    size_t oldest = KAD_FULLS;

    if (k->fulls == NULL)
        k->fulls = calloc(KAD_FULLS, sizeof *k->fulls);
    if (k->fulls == NULL)
        return KAD_FULLS;
    if (k->n_fulls < KAD_FULLS) {
        k->n_fulls++;
        return k->n_fulls - 1;
    }
    for (size_t i = 0; i < KAD_FULLS; i++) {
        if (is_bootstrap(k, k->fulls[i].peer) && !is_bootstrap(k, p))
            continue;
        if (oldest == KAD_FULLS || k->fulls[i].heard_ns < k->fulls[oldest].heard_ns)
            oldest = i;
    }
    if (oldest < KAD_FULLS)
        kad_unref(k, k->fulls[oldest].peer);
    return oldest;
}

void kad_full_said(struct kad *k, kad_peer p)
{
    size_t i = 0;

    while (i < k->n_fulls && k->fulls[i].peer != p)
        i++;
    if (i == k->n_fulls) {
        i = place(k, p);
        if (i == KAD_FULLS)
            return;
        k->peers.ref(k->peers.arg, p);
    }
    k->fulls[i] = (struct kad_full){.peer = p, .heard_ns = k->now_ns};
}

void kad_full_lost(struct kad *k, kad_peer p)
{
    for (size_t i = 0; i < k->n_fulls; i++) {
        if (k->fulls[i].peer == p) {
            forget(k, i);
            return;
        }
    }
}

static bool is_among(kad_peer p, const kad_peer *peers, size_t n)
{
    size_t i = 0;

    while (i < n && peers[i] != p)
        i++;
    return i < n;
}

/* Bootstrap keys before others, then the closest. */
static bool is_better(const struct kad *k, const struct kad_id *target, kad_peer a, kad_peer b)
{
    if (b == KAD_PEER_NONE || is_bootstrap(k, a) != is_bootstrap(k, b))
        return b == KAD_PEER_NONE || is_bootstrap(k, a);
    return kad_id_closer(target, k->peers.id(k->peers.arg, a), k->peers.id(k->peers.arg, b)) < 0;
}

size_t kad_fulls_add(const struct kad *k, const struct kad_id *target, kad_peer *peers, size_t n)
{
    for (unsigned more = 0; more < KAD_PUT_FULLS; more++) {
        kad_peer best = KAD_PEER_NONE;
        for (size_t i = 0; i < k->n_fulls; i++) {
            kad_peer p = k->fulls[i].peer;
            if (!is_among(p, peers, n) && !kad_note_is_shunned(k, p) &&
                is_better(k, target, p, best))
                best = p;
        }
        if (best == KAD_PEER_NONE)
            break;
        peers[n++] = best;
    }
    return n;
}

/* How many of our kind are closer than we are; they would pass it on, too. */
static unsigned closer_natives(const struct kad *k, const struct kad_id *target)
{
    kad_peer peers[TABLE_MAX_K];
    size_t n = table_closest(&k->table, target, peers, k->lim.k);
    unsigned natives = 0;

    for (size_t i = 0; i < n; i++) {
        if (kad_id_closer(target, &k->table.self, k->peers.id(k->peers.arg, peers[i])) < 0)
            break;
        natives += kad_is_native(k, peers[i]);
    }
    return natives;
}

void kad_fulls_tell(struct kad *k, kad_peer from, const struct kad_msg_item *mi)
{
    struct kad_id target = mi->has_target ? mi->target : item_target(&mi->item->item);
    kad_peer peers[KAD_PUT_FULLS];

    if (k->full || k->n_fulls == 0 || kad_is_native(k, from) ||
        closer_natives(k, &target) >= TELLERS)
        return;
    size_t n = kad_fulls_add(k, &target, peers, 0);
    for (size_t i = 0; i < n; i++) {
        struct kad_msg m;
        kad_msg_init(&m, KAD_PUT_VALUE, false);
        if (kad_msg_add_item(&m, mi->item, mi->has_target ? &target : NULL) == 0)
            (void)kad_call_start(k, NULL, peers[i], &m, NULL);
        else
            kad_msg_clear(&m);
    }
}

void kad_fulls_ping(struct kad *k, uint64_t older_ns)
{
    for (size_t i = 0; i < k->n_fulls; i++) {
        if (k->now_ns - k->fulls[i].heard_ns < older_ns)
            continue;
        if (k->now_ns - k->fulls[i].heard_ns >= 4 * older_ns) { /* it is none any more */
            forget(k, i--);
            continue;
        }
        kad_ping_contact(k, k->fulls[i].peer);
    }
}

void kad_fulls_free(struct kad *k)
{
    while (k->n_fulls > 0)
        forget(k, k->n_fulls - 1);
    free(k->fulls);
    k->fulls = NULL;
}
