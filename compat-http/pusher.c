/*
 * A key is in `keys` from its first offer on:
 *
 *     WAITING  in `queue`, with the entry to be pushed
 *     SENDING  the same, under way; a newer entry meanwhile waits in its place
 *     KNOWN    in `known`, by the hash of the text; used last at the end
 *
 * Probes are GETs of keys from the front of `known`, which then go to its end: in time every key is looked for.
 */
#include "compat-http/pusher.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/log.h"
#include "base/map.h"
#include "compat-http/mirror.h"

#define RETRY_NS      NS_PER_S
#define RETRY_MAX_NS  (60 * NS_PER_S)
#define REFILL_NS     (60 * NS_PER_S) /* between the first two, then twice as long */
#define REFILL_MAX_NS (3600 * NS_PER_S)

enum key_state { KEY_WAITING, KEY_SENDING, KEY_KNOWN };

struct key {
    struct list_node node;
    struct pusher *p;
    struct pubkey pk;
    enum key_state state;
    bool refused;           /* for itself: it is not there, and need not be looked for */
    uint64_t hash;          /* of the text that the discovery has; 0 = none */
    struct entry *entry;    /* WAITING, SENDING */
    struct entry *newer;    /* SENDING: to be sent afterwards */
    uint64_t handle, probe; /* of the port */
};

struct pusher {
    struct pusher_cfg cfg;
    struct map keys;
    struct list queue, sending, known;
    size_t n_sending, n_known, n_queue;
    struct loop_timer timer, probe;
    uint64_t retry_ns;
    unsigned failures;
    unsigned probing, found, missed; /* of the round under way */
    uint64_t refill_ns,
        refill_wait_ns; /* not before then; one that takes entries and does not have them is not worth more */
    struct pusher_stat stat;
};

static uint64_t now_of(const struct pusher *p)
{
    return p->cfg.loop->now_ns;
}

static void arm(struct pusher *p, uint64_t at_ns)
{
    if (!loop_timer_armed(&p->timer) || at_ns < p->timer.at_ns)
        loop_timer_set(p->cfg.loop, &p->timer, at_ns);
}

/* ---- keys ---- */

static void key_unlink(struct pusher *p, struct key *k)
{
    if (!list_node_is_linked(&k->node))
        return;
    list_remove(&k->node);
    p->n_queue -= k->state == KEY_WAITING;
    p->n_sending -= k->state == KEY_SENDING;
    p->n_known -= k->state == KEY_KNOWN;
}

static void key_free(struct pusher *p, struct key *k)
{
    if (k->handle != 0)
        p->cfg.port.cancel(p->cfg.port.arg, k->handle);
    if (k->probe != 0) {
        p->cfg.port.cancel(p->cfg.port.arg, k->probe);
        p->probing--;
    }
    key_unlink(p, k);
    (void)map_del(&p->keys, &k->pk);
    entry_free(k->entry);
    entry_free(k->newer);
    free(k);
}

static void key_move(struct pusher *p, struct key *k, enum key_state state)
{
    key_unlink(p, k);
    k->state = state;
    if (state == KEY_WAITING) {
        list_push_back(&p->queue, &k->node);
        p->n_queue++;
    } else if (state == KEY_SENDING) {
        list_push_back(&p->sending, &k->node);
        p->n_sending++;
    } else {
        entry_free(k->entry);
        k->entry = NULL;
        list_push_back(&p->known, &k->node);
        p->n_known++;
    }
    while (p->n_known > PUSHER_KNOWN)
        key_free(p, list_first_as(&p->known, struct key, node));
}

static struct key *key_new(struct pusher *p, const struct pubkey *pk)
{
    struct key *k = p->n_queue < PUSHER_QUEUE ? calloc(1, sizeof(*k)) : NULL;
    if (k == NULL)
        return NULL;
    k->p = p;
    k->pk = *pk;
    if (map_put(&p->keys, k) < 0) {
        free(k);
        return NULL;
    }
    return k;
}

/* ---- sending ---- */

static void again(struct pusher *p, const struct pubkey *pk)
{
    p->stat.refills += pk == NULL;
    if (p->cfg.again != NULL)
        p->cfg.again(p->cfg.arg, pk);
}

static void probe_soon(struct pusher *p, uint64_t in_ns)
{
    uint64_t at = now_of(p) + in_ns;
    if (p->probing == 0 && (!loop_timer_armed(&p->probe) || at < p->probe.at_ns))
        loop_timer_set(p->cfg.loop, &p->probe, at);
}

static void is_away(struct pusher *p, int err, const char *why)
{
    uint64_t wait = RETRY_NS << (p->failures < 6 ? p->failures : 6);
    wait = wait < RETRY_MAX_NS ? wait : RETRY_MAX_NS;
    if (p->failures++ == 0)
        log_limited_here(LOG_HTTP, LOG_LEVEL_WARN, "entries are not pushed reason=\"%s\"", why);
    p->stat.failed++;
    p->stat.last_err = err;
    p->stat.away = true;
    p->retry_ns = now_of(p) + env_jitter_ns(p->cfg.env, wait, 50);
    arm(p, p->retry_ns);
}

/* It answers. After a time away: does it still have what it had? */
static void is_there(struct pusher *p)
{
    bool was_away = p->failures > 0;
    p->failures = 0;
    p->retry_ns = 0;
    p->stat.away = false;
    p->stat.last_err = 0;
    p->stat.last_ns = now_of(p);
    if (was_away)
        probe_soon(p, 0);
}

/* Did the service say something about this entry, or is it not well itself? */
static bool is_refusal(const struct disc_answer *a)
{
    return a->text != DISC_UNEXPECTED && disc_text_err(a->text) != 0;
}

static bool is_old(const struct disc_answer *a)
{
    return a->text == DISC_SEQUENCE || a->text == DISC_TIMESTAMP;
}

static void pump(struct pusher *p);

static void on_sent(void *arg, const struct disc_answer *a)
{
    struct key *k = arg;
    struct pusher *p = k->p;
    k->handle = 0;
    if (a->err != 0 && !is_refusal(a)) {
        if (k->newer == NULL) {
            k->newer = k->entry;
            k->entry = NULL;
        }
        is_away(p, a->err, a->why != NULL ? a->why : err_str(a->err));
    } else {
        k->hash = mirror_hash(k->entry->text, k->entry->text_len);
        k->refused = a->err != 0 && !is_old(a);
        p->stat.pushed += a->err == 0;
        p->stat.refused_old += a->err != 0 && is_old(a);
        p->stat.refused += k->refused;
        is_there(p);
    }
    entry_free(k->entry);
    k->entry = k->newer;
    k->newer = NULL;
    key_move(p, k, k->entry != NULL ? KEY_WAITING : KEY_KNOWN);
    pump(p);
}

static void send_one(struct pusher *p, struct key *k)
{
    key_move(p, k, KEY_SENDING);
    k->handle =
        p->cfg.port.send(p->cfg.port.arg, false, k->entry->text, k->entry->text_len, on_sent, k);
    if (k->handle != 0)
        return;
    key_move(p, k, KEY_WAITING);
    is_away(p, ERR_NOMEM, err_str(ERR_NOMEM));
}

static void pump(struct pusher *p)
{
    struct key *k;
    size_t most = p->failures > 0 ? 1 : PUSHER_FLIGHT;
    while (p->n_sending < most && (k = list_first_as(&p->queue, struct key, node)) != NULL) {
        if (p->retry_ns > now_of(p)) {
            arm(p, p->retry_ns);
            return;
        }
        send_one(p, k);
    }
}

static void on_timer(struct loop_timer *t)
{
    struct pusher *p = container_of(t, struct pusher, timer);
    pump(p);
    if (p->failures > 0 && p->n_queue + p->n_sending == 0)
        probe_soon(p, 0); /* nothing to push: look whether it is back */
}

/* ---- what the discovery still has ---- */

static void forget_all(struct pusher *p)
{
    struct key *k;
    while ((k = list_first_as(&p->known, struct key, node)) != NULL)
        key_free(p, k);
}

void pusher_refill(struct pusher *p)
{
    forget_all(p);
    again(p, NULL);
}

static void refill(struct pusher *p)
{
    uint64_t wait = 2 * p->refill_wait_ns;
    if (p->refill_ns > now_of(p))
        return;
    p->refill_wait_ns = wait < REFILL_NS ? REFILL_NS : wait > REFILL_MAX_NS ? REFILL_MAX_NS : wait;
    p->refill_ns = now_of(p) + p->refill_wait_ns;
    log_info(LOG_HTTP, "the discovery has lost its entries, they are pushed anew");
    pusher_refill(p);
}

/* All that was looked for is missing: so is the rest, presumably. */
static void round_over(struct pusher *p)
{
    if (p->probing > 0)
        return;
    probe_soon(p, env_jitter_ns(p->cfg.env, PUSHER_PROBE_NS, 30));
    if (p->found > 0)
        p->refill_wait_ns = p->refill_ns = 0;
    else if (p->missed > 0)
        refill(p);
}

static void on_probed(void *arg, const struct disc_answer *a)
{
    struct key *k = arg;
    struct pusher *p = k->p;
    k->probe = 0;
    p->probing--;
    /* An entry that does not verify is no entry of the key: as good as missing. */
    bool missing = a->err == ERR_NOT_FOUND || a->err == ERR_SIG || a->err == ERR_FORMAT;
    if (a->err != 0 && !missing) {
        is_away(p, a->err, a->why != NULL ? a->why : err_str(a->err));
        round_over(p);
        return;
    }
    p->found += a->err == 0;
    p->missed += missing;
    p->stat.missing += missing;
    is_there(p);
    if (missing && k->state == KEY_KNOWN) {
        struct pubkey pk = k->pk;
        key_free(p, k);
        again(p, &pk);
    }
    round_over(p);
}

static void on_probe(struct loop_timer *t)
{
    struct pusher *p = container_of(t, struct pusher, probe);
    unsigned most = p->failures > 0 ? 1 : PUSHER_PROBES;
    if (p->retry_ns > now_of(p)) {
        probe_soon(p, p->retry_ns - now_of(p));
        return;
    }
    p->found = p->missed = 0;
    for (unsigned i = 0; i < most && i < p->n_known; i++) {
        struct key *k = list_first_as(&p->known, struct key, node);
        if (k->probe != 0)
            break;
        key_move(p, k, KEY_KNOWN); /* to the end */
        if (k->refused)
            continue;
        k->probe = p->cfg.port.get(p->cfg.port.arg, &k->pk, on_probed, k);
        p->probing += k->probe != 0;
        p->stat.probes += k->probe != 0;
    }
    if (p->probing == 0)
        probe_soon(p, PUSHER_PROBE_NS);
}

/* ---- what the DHT says ---- */

static struct entry *parse(const struct pubkey *pk, const char *text, size_t n)
{
    struct entry *e;
    if (entry_parse(&e, text, n) < 0)
        return NULL;
    if (pubkey_equal(&e->static_pk, pk) && e->has_signature)
        return e;
    entry_free(e);
    return NULL;
}

/* In place of an older one. */
static void replace(struct entry **slot, struct entry *e)
{
    if (*slot != NULL && entry_cmp(e, *slot) <= 0) {
        entry_free(e);
        return;
    }
    entry_free(*slot);
    *slot = e;
}

void pusher_offer(struct pusher *p, const struct pubkey *pk, const char *text, size_t n)
{
    struct key *k = map_get(&p->keys, pk);
    if (k != NULL && k->hash == mirror_hash(text, n)) {
        p->stat.skipped++;
        return;
    }
    struct entry *e = parse(pk, text, n);
    if (e == NULL || (k == NULL && (k = key_new(p, pk)) == NULL)) {
        p->stat.dropped++;
        entry_free(e);
        return;
    }
    if (k->state == KEY_SENDING) {
        if (entry_cmp(e, k->entry) > 0)
            replace(&k->newer, e);
        else
            entry_free(e);
        return;
    }
    replace(&k->entry, e);
    if (k->state != KEY_WAITING || !list_node_is_linked(&k->node))
        key_move(p, k, KEY_WAITING);
    arm(p, now_of(p));
}

void pusher_seen(struct pusher *p, const struct pubkey *pk, const char *text, size_t n)
{
    struct key *k = map_get(&p->keys, pk);
    if (k == NULL && (k = key_new(p, pk)) != NULL)
        key_move(p, k, KEY_KNOWN);
    if (k != NULL && k->state == KEY_KNOWN)
        k->hash = mirror_hash(text, n);
    probe_soon(p, PUSHER_PROBE_NS);
}

void pusher_gone(struct pusher *p, const struct pubkey *pk)
{
    struct key *k = map_get(&p->keys, pk);
    if (k != NULL)
        key_free(p, k);
}

/* ---- life ---- */

struct pusher *pusher_new(const struct pusher_cfg *cfg)
{
    struct pusher *p = calloc(1, sizeof(*p));
    if (p == NULL)
        return NULL;
    p->cfg = *cfg;
    list_init(&p->queue);
    list_init(&p->sending);
    list_init(&p->known);
    map_init(&p->keys, MAP_KEY(struct key, pk), cfg->env->hash_key, 0);
    p->timer.fn = on_timer;
    p->probe.fn = on_probe;
    probe_soon(p, env_jitter_ns(cfg->env, PUSHER_PROBE_NS, 30));
    return p;
}

void pusher_free(struct pusher *p)
{
    struct key *k;
    if (p == NULL)
        return;
    for (struct map_iter it = map_iter(&p->keys); (k = map_next(&it)) != NULL;
         it = map_iter(&p->keys))
        key_free(p, k);
    loop_timer_cancel(p->cfg.loop, &p->timer);
    loop_timer_cancel(p->cfg.loop, &p->probe);
    map_free(&p->keys);
    free(p);
}

void pusher_stat(const struct pusher *p, struct pusher_stat *out)
{
    *out = p->stat;
    out->waiting = p->n_queue + p->n_sending;
    out->known = p->n_known;
}
