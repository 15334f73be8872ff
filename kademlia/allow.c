/*
 * Private networks (docs/private-networks.md): whose items may be in which namespace, and to whom
 * values are given. Both lists are empty in an open network and cost nothing then.
 */
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "kademlia/engine.h"

int kad_allow_set(struct kad *k, const struct kad_writer *w, size_t n)
{
    if (n == 0)
        return 0;
    k->writers = calloc(n, sizeof *k->writers);
    if (k->writers == NULL)
        return ERR_NOMEM;
    memcpy(k->writers, w, n * sizeof *w);
    k->n_writers = n;
    return 0;
}

/* A namespace without a list of its own is open, unless there is a list for all of them. */
bool kad_may_write(const struct kad *k, const struct item *it, const struct pubkey *charged)
{
    bool limited = false;

    if (k->n_writers == 0 || pubkey_equal(charged, &k->self))
        return true;
    enum ns ns = ns_of(it->salt, it->salt_len);
    for (size_t i = 0; i < k->n_writers; i++) {
        const struct kad_writer *w = &k->writers[i];
        if (w->ns != ns && w->ns != NS__COUNT)
            continue;
        if (pubkey_equal(&w->pk, charged))
            return true;
        limited = true;
    }
    return !limited;
}

bool kad_is_reader(const struct kad *k, kad_peer p)
{
    const struct pubkey *pk = kad_pk(k, p);

    return k->readers.n == 0 || kad_keyset_has(&k->readers, pk) ||
           kad_keyset_has(&k->bootstrap, pk) || kad_tier_of(k, pk) != ITEM_TIER_PUBLIC;
}
