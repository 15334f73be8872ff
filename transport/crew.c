#include "transport/crew.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/lock.h"
#include "base/map.h"

#define HEARD 1024u

struct share {
    struct pubkey pk;
    uint32_t used;
};

struct crew {
    unsigned members;
    uint8_t hash_key[16];
    struct lock lock;
    struct map shares; /* struct share by pk; under lock, with the next */
    uint32_t slots;
    atomic_size_t links[CREW_MAX], links_all, buffered;
    atomic_uint_fast64_t ways, heard_ns[HEARD];
};

int crew_new(struct crew **out, unsigned members, const uint8_t hash_key[16])
{
    assert(members > 0 && members <= CREW_MAX);
    struct crew *c = calloc(1, sizeof(*c));
    if (c == NULL)
        return ERR_NOMEM;
    c->members = members;
    memcpy(c->hash_key, hash_key, sizeof(c->hash_key));
    lock_init(&c->lock);
    map_init(&c->shares, MAP_KEY(struct share, pk), hash_key, 0);
    *out = c;
    return 0;
}

void crew_free(struct crew *c)
{
    if (c == NULL)
        return;
    assert(c->slots == 0);
    map_free(&c->shares);
    lock_destroy(&c->lock);
    free(c);
}

unsigned crew_size(const struct crew *c)
{
    return c->members;
}

unsigned crew_home(const struct crew *c, const struct pubkey *pk)
{
    if (c->members == 1)
        return 0;
    return (unsigned)(crypto_siphash(c->hash_key, pk->b, sizeof(pk->b)) % c->members);
}

/* ---- slots ---- */

static struct share *slot_take(struct crew *c, const struct pubkey *pk, uint32_t max)
{
    struct share *s = map_get(&c->shares, pk);
    uint32_t most = max / 4 > 0 ? max / 4 : 1;
    if (c->slots >= max || (s != NULL && s->used >= most))
        return NULL;
    if (s == NULL) {
        if ((s = calloc(1, sizeof(*s))) == NULL)
            return NULL;
        s->pk = *pk;
        if (map_put(&c->shares, s) < 0) {
            free(s);
            return NULL;
        }
    }
    s->used++;
    c->slots++;
    return s;
}

struct share *crew_slot_take(struct crew *c, const struct pubkey *pk, uint32_t max)
{
    lock_take(&c->lock);
    struct share *s = slot_take(c, pk, max);
    lock_give(&c->lock);
    return s;
}

void crew_slot_give(struct crew *c, struct share *s)
{
    lock_take(&c->lock);
    c->slots--;
    if (--s->used == 0) {
        map_del(&c->shares, &s->pk);
        free(s);
    }
    lock_give(&c->lock);
}

/* ---- numbers ---- */

void crew_links_set(struct crew *c, unsigned member, size_t n)
{
    size_t was = atomic_exchange(&c->links[member], n);
    atomic_fetch_add(&c->links_all, n - was); /* modulo 2^64, as unsigned numbers are */
}

size_t crew_links(const struct crew *c, unsigned member)
{
    return atomic_load(&c->links[member]);
}

size_t crew_links_all(const struct crew *c)
{
    return atomic_load(&c->links_all);
}

void crew_ways_changed(struct crew *c)
{
    atomic_fetch_add(&c->ways, 1);
}

uint64_t crew_ways(const struct crew *c)
{
    return atomic_load(&c->ways);
}

static unsigned heard_place(const struct crew *c, const struct pubkey *pk)
{
    return (unsigned)(crypto_siphash(c->hash_key, pk->b, sizeof(pk->b)) >> 32) % HEARD;
}

void crew_heard(struct crew *c, const struct pubkey *pk, uint64_t now_ns)
{
    atomic_store_explicit(&c->heard_ns[heard_place(c, pk)], now_ns, memory_order_relaxed);
}

uint64_t crew_heard_ns(const struct crew *c, const struct pubkey *pk)
{
    return atomic_load_explicit(&c->heard_ns[heard_place(c, pk)], memory_order_relaxed);
}

void crew_buffered_add(struct crew *c, size_t more, size_t less)
{
    atomic_fetch_add_explicit(&c->buffered, more - less, memory_order_relaxed);
}

size_t crew_buffered(const struct crew *c)
{
    return atomic_load_explicit(&c->buffered, memory_order_relaxed);
}
