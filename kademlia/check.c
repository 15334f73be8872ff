#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "kademlia/engine.h"
#include "kademlia/records/ns.h"
#include "transport/entry.h"

/* Take over from an entry that may certify itself what is needed to verify and to rank it. */
static int class_from_entry(const struct entry *e, const struct kad_id *target,
                            struct kad_class *out)
{
    struct kad_id slot = kad_target(&e->static_pk, "dmsg", 4);

    if (!kad_id_equal(&slot, target))
        return ERR_REFUSED;
    int n = entry_check_begin(out->entry_digest, e);
    if (n <= 0)
        return ERR_REFUSED;
    out->kind = ITEM_CERT;
    out->charged = e->static_pk;
    out->rank_time = e->timestamp_ns;
    out->rank_seq = e->sequence;
    out->n_entry = (unsigned)n;
    out->entry_sig = e->signature;
    return 0;
}

static int classify_entry(const struct item *it, const struct kad_id *target, struct kad_class *out)
{
    struct entry *e;
    int rc = ERR_REFUSED;

    if (!item_salt_is(it, "dmsg") || entry_parse(&e, (const char *)it->v, it->v_len) != 0)
        return ERR_REFUSED;
    rc = class_from_entry(e, target, out);
    entry_free(e);
    return rc;
}

static int find_kind(const struct kad *k, const struct item *it, struct kad_class *out)
{
    struct kad_id own = item_target(it);

    out->charged = it->k;
    out->kind = ITEM_OWNER;
    if (kad_id_equal(&own, &out->target) || classify_entry(it, &out->target, out) == 0)
        return 0;
    if (!kad_keyset_has(&k->mirrors, &it->k))
        return ERR_REFUSED;
    out->kind = ITEM_MIRROR;
    return 0;
}

int kad_classify(struct kad *k, const struct item *it, const struct kad_id *target,
                 struct kad_class *out)
{
    memset(out, 0, sizeof *out);
    out->target = target != NULL ? *target : item_target(it);
    int rc = find_kind(k, it, out);
    if (rc == 0 && !kad_may_write(k, it, &out->charged)) {
        k->stat->refused_writer++;
        return ERR_REFUSED;
    }
    return rc;
}

bool kad_is_tombstone(const struct item *it)
{
    return ns_is_tombstone(it->salt, it->salt_len, it->v, it->v_len);
}

/* ---- verification: the item's signature, then one of those that the entry may have ---- */

static int submit(struct kad_check *c)
{
    struct pk_req req = {.op = PK_VERIFY, .cls = PK_CLASS_ITEM};

    if (c->step == 0) {
        req.pk = c->item->item.k;
        req.sig = c->item->item.sig;
        item_digest(&req.digest, &c->item->item);
    } else {
        req.pk = c->cls.charged;
        req.sig = c->cls.entry_sig;
        req.digest = c->cls.entry_digest[c->step - 1];
    }
    c->k->stat->verified++;
    return env_pk(c->k->env, &c->wait, &req);
}

/* Look at the result of this step: 0 or ERR_SIG at the end, ERR_AGAIN when there is a next one. */
static int step_done(struct kad_check *c)
{
    bool good = c->wait.res.err == 0;

    pk_wait_wipe(&c->wait);
    if (c->step == 0 && (!good || c->cls.n_entry == 0))
        return good ? 0 : ERR_SIG;
    if (c->step > 0 && good)
        return 0;
    if (c->step == c->cls.n_entry)
        return ERR_SIG;
    c->step++;
    return ERR_AGAIN;
}

static int run(struct kad_check *c)
{
    int rc;

    do {
        rc = submit(c);
        if (rc == 0)
            rc = step_done(c);
    } while (rc == ERR_AGAIN);
    return rc;
}

static void answered(struct pk_wait *w)
{
    struct kad_check *c = container_of(w, struct kad_check, wait);
    int rc = step_done(c);

    if (rc == ERR_AGAIN)
        rc = run(c);
    if (rc != ERR_PENDING)
        c->done(c, rc);
}

int kad_check_begin(struct kad_check *c)
{
    c->wait.done = answered;
    c->step = 0;
    return run(c);
}

void kad_check_clear(struct kad_check *c)
{
    if (c->k != NULL)
        env_pk_cancel(c->k->env, &c->wait);
    item_ref_put(c->item);
    c->item = NULL;
}
