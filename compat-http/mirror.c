/*
 * A slot's present value is a struct change, which all slots that were given it together share, so that it is signed once. It is signed when the first of
 * them is about to be written: what is overwritten before costs nothing.
 *
 *     slot.change   what has to be written; NULL when every sink has it
 *     sink.queue    slots that this sink has to be told of, each once
 *     sink.in       the batch under way: slots with the changes they had then
 *
 * A slot is kept as long as its hash saves work, while a sink still needs it, and while it has chunks that a shorter list would have to end.
 */
#include "compat-http/mirror.h"

#include <assert.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/log.h"
#include "base/map.h"
#include "kademlia/records/ns.h"

#define RETRY_NS     NS_PER_S
#define RETRY_MAX_NS (60 * NS_PER_S)
#define SWEEP_SLOTS  64 /* looked at for each one that is written */

struct change {
    unsigned refs;
    struct mirror *m;
    bool has_seq, gone, failed;
    uint64_t seq;
    struct pk_wait sign;
    bool signing;
    struct item_ref *item; /* NULL: not signed yet */
    char salt[MIRROR_SALT_MAX + 1];
    size_t n;
    uint8_t v[];
};

struct slot {
    struct kad_id target;
    struct list_node age;
    struct queued {
        struct slot *slot;
        struct list_node node;
    } queued[MIRROR_SINKS];
    struct change *change;
    uint64_t hash, set_ns;
    uint8_t writing; /* batches that it is in */
    uint8_t chunks;  /* values of the list that begins here */
    bool gone;
};

struct sink {
    const char *name;
    mirror_write_fn *write;
    void *arg;
    struct list queue;
    size_t n_queued;
    struct {
        struct slot *slot;
        struct change *change;
    } in[MIRROR_BATCH];
    struct mirror_write w[MIRROR_BATCH];
    size_t n_in; /* 0: no batch is under way */
    unsigned failures;
    uint64_t retry_ns;
    struct mirror_sink_stat stat;
};

struct mirror {
    struct mirror_cfg cfg;
    struct map slots;
    struct list ages; /* set longest ago first */
    struct sink sink[MIRROR_SINKS];
    unsigned n_sinks;
    struct change *tombstone; /* not signed yet, for all that are deleted meanwhile */
    uint64_t seq;             /* used last */
    struct loop_timer timer, again;
    uint64_t lost_ns; /* when everything was forgotten last, 0 = never */
    struct mirror_stat stat;
};

static uint64_t now_of(const struct mirror *m)
{
    return m->cfg.loop->now_ns;
}

uint64_t mirror_hash(const void *p, size_t n)
{
    const uint8_t *b = p;
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < n; i++)
        h = (h ^ b[i]) * UINT64_C(0x100000001b3);
    return h;
}

/* ---- changes ---- */

static void change_unref(struct change *c)
{
    if (c == NULL || --c->refs > 0)
        return;
    struct mirror *m = c->m;
    if (m->tombstone == c)
        m->tombstone = NULL;
    m->stat.bytes_waiting -= c->n;
    env_pk_cancel(m->cfg.env, &c->sign);
    item_ref_put(c->item);
    free(c);
}

/* With one reference. NULL: too much waits already. */
static struct change *change_new(struct mirror *m, const char *salt, const void *v, size_t n)
{
    struct change *c = m->stat.bytes_waiting + n <= MIRROR_BYTES ? calloc(1, sizeof(*c) + n) : NULL;
    if (c == NULL)
        return NULL;
    c->refs = 1;
    c->m = m;
    c->n = n;
    memcpy(c->salt, salt, strlen(salt));
    if (n > 0)
        memcpy(c->v, v, n);
    m->stat.bytes_waiting += n;
    return c;
}

static void pump(struct mirror *m);

static void change_signed(struct change *c)
{
    struct mirror *m = c->m;
    struct item it = {.k = m->cfg.pk,
                      .seq = c->seq,
                      .v = c->v,
                      .v_len = c->n,
                      .salt = (const uint8_t *)c->salt,
                      .salt_len = strlen(c->salt),
                      .sig = c->sign.res.sig};
    c->signing = false;
    if (c->sign.res.err == 0)
        c->item = item_ref_new(&it);
    c->failed = c->item == NULL;
    m->stat.signatures += c->item != NULL;
    m->stat.sign_failed += c->item == NULL;
    pk_wait_wipe(&c->sign);
}

static void on_signed(struct pk_wait *w)
{
    struct change *c = container_of(w, struct change, sign);
    struct mirror *m = c->m;
    change_signed(c);
    pump(m);
}

static uint64_t next_seq(struct mirror *m)
{
    uint64_t wall = (uint64_t)env_wall_ns(m->cfg.env);
    m->seq = wall > m->seq ? wall : m->seq + 1;
    return m->seq;
}

/* False: the answer comes later. */
static bool change_sign(struct mirror *m, struct change *c)
{
    if (c->item != NULL || c->failed)
        return true;
    if (c->signing)
        return false;
    if (m->tombstone == c)
        m->tombstone = NULL; /* its number is fixed from now on */
    if (!c->has_seq)
        c->seq = next_seq(m);
    struct item it = {.seq = c->seq,
                      .v = c->v,
                      .v_len = c->n,
                      .salt = (const uint8_t *)c->salt,
                      .salt_len = strlen(c->salt)};
    struct pk_req req = {.op = PK_SIGN, .cls = PK_CLASS_OWN, .sk = m->cfg.sk};
    item_digest(&req.digest, &it);
    c->sign.done = on_signed;
    int rc = env_pk(m->cfg.env, &c->sign, &req);
    sodium_memzero(&req, sizeof(req));
    c->signing = rc == ERR_PENDING;
    if (rc != 0 && rc != ERR_PENDING)
        c->sign.res.err = rc;
    if (rc != ERR_PENDING)
        change_signed(c);
    return rc != ERR_PENDING;
}

/* ---- slots ---- */

static bool is_idle(const struct slot *s)
{
    for (int i = 0; i < MIRROR_SINKS; i++)
        if (list_node_is_linked(&s->queued[i].node))
            return false;
    return s->writing == 0;
}

static void slot_free(struct mirror *m, struct slot *s)
{
    for (int i = 0; i < MIRROR_SINKS; i++)
        list_remove(&s->queued[i].node);
    change_unref(s->change);
    list_remove(&s->age);
    (void)map_del(&m->slots, &s->target);
    free(s);
}

/* Slots whose hash is too old to save anything leave; all: also younger ones, for room. */
static void sweep(struct mirror *m, bool all)
{
    struct list_node *pos, *tmp;
    unsigned looked = 0;
    list_for_each(pos, tmp, &m->ages)
    {
        struct slot *s = container_of(pos, struct slot, age);
        if (looked++ >= SWEEP_SLOTS || (!all && now_of(m) - s->set_ns < MIRROR_REFRESH_NS))
            return;
        if (is_idle(s) && s->chunks <= 1) {
            slot_free(m, s);
        } else { /* out of the way of those behind it */
            list_remove(pos);
            list_push_back(&m->ages, pos);
        }
    }
}

static struct slot *slot_get(struct mirror *m, const char *salt, const struct pubkey *subject)
{
    struct kad_id target = kad_target(subject, salt, strlen(salt));
    struct slot *s = map_get(&m->slots, &target);
    if (s != NULL)
        return s;
    sweep(m, map_len(&m->slots) >= MIRROR_SLOTS);
    if (map_len(&m->slots) >= MIRROR_SLOTS || (s = calloc(1, sizeof(*s))) == NULL)
        return NULL;
    s->target = target;
    for (int i = 0; i < MIRROR_SINKS; i++)
        s->queued[i].slot = s;
    if (map_put(&m->slots, s) < 0) {
        free(s);
        return NULL;
    }
    list_push_back(&m->ages, &s->age);
    return s;
}

static bool is_unchanged(const struct mirror *m, const struct slot *s, uint64_t hash, bool gone)
{
    return s != NULL && s->set_ns != 0 && s->hash == hash && s->gone == gone &&
           now_of(m) - s->set_ns < MIRROR_REFRESH_NS;
}

static void enqueue(struct mirror *m, unsigned i, struct slot *s)
{
    if (list_node_is_linked(&s->queued[i].node))
        return;
    list_push_back(&m->sink[i].queue, &s->queued[i].node);
    m->sink[i].n_queued++;
}

static void arm(struct mirror *m, uint64_t at_ns)
{
    if (!loop_timer_armed(&m->timer) || at_ns < m->timer.at_ns)
        loop_timer_set(m->cfg.loop, &m->timer, at_ns);
}

static void slot_set(struct mirror *m, struct slot *s, struct change *c, uint64_t hash)
{
    c->refs++;
    change_unref(s->change);
    s->change = c;
    s->hash = hash;
    s->gone = c->gone;
    s->set_ns = now_of(m) != 0 ? now_of(m) : 1;
    list_remove(&s->age);
    list_push_back(&m->ages, &s->age);
    for (unsigned i = 0; i < m->n_sinks; i++)
        enqueue(m, i, s);
    arm(m, now_of(m) + MIRROR_GATHER_NS);
}

/* ---- writing ---- */

/* Signed slots at the front of the queue, into the batch; what could not be signed is dropped. */
static size_t collect(struct mirror *m, struct sink *k)
{
    struct list_node *pos, *tmp;
    size_t n = 0;
    list_for_each(pos, tmp, &k->queue)
    {
        struct slot *s = container_of(pos, struct queued, node)->slot;
        if (n == MIRROR_BATCH || !change_sign(m, s->change))
            break;
        if (s->change->failed) {
            list_remove(pos);
            k->n_queued--;
            s->set_ns = 0; /* the next registration tries again */
            m->stat.dropped++;
            continue;
        }
        k->in[n].slot = s;
        k->in[n].change = s->change;
        k->w[n++] = (struct mirror_write){s->target, s->change->item, s->change->gone};
    }
    return n;
}

static void failed(struct mirror *m, struct sink *k, int err)
{
    uint64_t wait = RETRY_NS << (k->failures < 6 ? k->failures : 6);
    wait = wait < RETRY_MAX_NS ? wait : RETRY_MAX_NS;
    if (k->failures++ == 0)
        log_limited_here(LOG_HTTP, LOG_LEVEL_WARN, "mirror does not write to=%s reason=\"%s\"",
                         k->name, err_str(err));
    k->stat.failed++;
    k->stat.last_err = err;
    k->retry_ns = now_of(m) + env_jitter_ns(m->cfg.env, wait, 50);
    arm(m, k->retry_ns);
}

static void write_batch(struct mirror *m, unsigned i)
{
    struct sink *k = &m->sink[i];
    size_t taken = 0, n = collect(m, k);
    assert(k->write != NULL);
    if (n == 0)
        return;
    k->n_in = n; /* a sink may call mirror_written() only from the loop */
    int rc = k->write(k->arg, k->w, n, &taken);
    if (rc < 0) {
        k->n_in = 0;
        failed(m, k, rc);
        return;
    }
    assert(taken > 0 && taken <= n);
    k->n_in = taken;
    k->stat.batches++;
    for (size_t j = 0; j < taken; j++) {
        list_remove(&k->in[j].slot->queued[i].node);
        k->n_queued--;
        k->in[j].slot->writing++;
        k->in[j].change->refs++;
    }
}

static void pump(struct mirror *m)
{
    for (unsigned i = 0; i < m->n_sinks; i++) {
        struct sink *k = &m->sink[i];
        if (k->n_in > 0 || k->n_queued == 0)
            continue;
        if (k->retry_ns > now_of(m))
            arm(m, k->retry_ns);
        else
            write_batch(m, i);
    }
}

static void on_timer(struct loop_timer *t)
{
    pump(container_of(t, struct mirror, timer));
}

void mirror_written(struct mirror *m, unsigned sink, int err)
{
    struct sink *k = &m->sink[sink];
    size_t n = k->n_in;
    k->n_in = 0;
    for (size_t j = 0; j < n; j++) {
        struct slot *s = k->in[j].slot;
        struct change *c = k->in[j].change;
        s->writing--;
        if (err != 0)
            enqueue(m, sink, s);
        if (is_idle(s) && s->change == c) {
            change_unref(s->change);
            s->change = NULL;
        }
        change_unref(c);
    }
    if (err != 0) {
        failed(m, k, err);
        return;
    }
    if (k->failures > 0)
        mirror_lost(m);
    if (k->failures > 0)
        log_limited_here(LOG_HTTP, LOG_LEVEL_INFO, "mirror writes again to=%s", k->name);
    k->failures = 0;
    k->retry_ns = 0;
    k->stat.written += n;
    k->stat.last_ns = now_of(m);
    k->stat.last_err = 0;
    if (k->n_queued > 0)
        arm(m, now_of(m));
}

static void forget(struct mirror *m)
{
    struct list_node *pos, *tmp;
    list_for_each(pos, tmp, &m->ages)
    {
        struct slot *s = container_of(pos, struct slot, age);
        if (is_idle(s) && s->chunks <= 1)
            slot_free(m, s);
        else
            s->set_ns = 0;
    }
}

static void on_again(struct loop_timer *t)
{
    struct mirror *m = container_of(t, struct mirror, again);
    m->lost_ns = now_of(m);
    m->stat.lost++;
    forget(m);
    if (m->cfg.again != NULL)
        m->cfg.again(m->cfg.arg);
}

void mirror_lost(struct mirror *m)
{
    uint64_t at = m->lost_ns != 0 ? m->lost_ns + MIRROR_AGAIN_NS : now_of(m);
    if (!loop_timer_armed(&m->again))
        loop_timer_set(m->cfg.loop, &m->again, at);
}

void mirror_kick(struct mirror *m, unsigned sink)
{
    m->sink[sink].retry_ns = 0;
    arm(m, now_of(m));
}

/* ---- what the service says ---- */

static bool is_too_long(struct mirror *m, const char *salt, size_t n)
{
    assert(strlen(salt) <= MIRROR_SALT_MAX);
    if (n <= ITEM_MAX_VALUE)
        return false;
    m->stat.too_long++;
    log_limited_here(LOG_HTTP, LOG_LEVEL_WARN, "value is too long for the DHT salt=%s bytes=%zu",
                     salt, n);
    return true;
}

void mirror_set(struct mirror *m, const struct mirror_value *v, const struct pubkey *subjects,
                size_t n)
{
    uint64_t hash = v->hash != 0 ? v->hash : mirror_hash(v->v, v->n);
    struct change *c = NULL;
    m->stat.offered += n;
    if (m->n_sinks == 0 || is_too_long(m, v->salt, v->n))
        return;
    for (size_t i = 0; i < n; i++) {
        struct slot *s = slot_get(m, v->salt, &subjects[i]);
        if (is_unchanged(m, s, hash, false)) {
            m->stat.unchanged++;
            continue;
        }
        if (c == NULL && s != NULL && (c = change_new(m, v->salt, v->v, v->n)) != NULL) {
            c->has_seq = v->has_seq;
            c->seq = v->seq;
        }
        if (s == NULL || c == NULL) {
            m->stat.dropped++;
            continue;
        }
        slot_set(m, s, c, hash);
    }
    change_unref(c);
}

/* All that is deleted before the first of them is written is one signature. */
static struct change *tombstone(struct mirror *m, const char *salt)
{
    const char *text = ns_tombstone(salt, strlen(salt));
    struct change *c = m->tombstone;
    if (c != NULL && strcmp(c->salt, salt) == 0) {
        c->refs++;
        return c;
    }
    if ((c = change_new(m, salt, text, strlen(text))) == NULL)
        return NULL;
    c->gone = true;
    m->tombstone = c;
    return c;
}

void mirror_delete(struct mirror *m, const char *salt, const struct pubkey *subject)
{
    struct slot *s = m->n_sinks > 0 ? slot_get(m, salt, subject) : NULL;
    if (m->n_sinks == 0)
        return;
    if (is_unchanged(m, s, 0, true)) {
        m->stat.unchanged++;
        return;
    }
    struct change *c = s != NULL ? tombstone(m, salt) : NULL;
    if (c == NULL) {
        m->stat.dropped++;
        return;
    }
    m->stat.deleted++;
    slot_set(m, s, c, 0);
    change_unref(c);
}

/* What an entry says, whenever it was signed. */
static uint64_t content_hash(const struct entry *e)
{
    struct entry content = *e;
    uint64_t hash = 0;
    char *canon;
    size_t n;
    content.sequence = 0;
    content.timestamp_ns = 0;
    if (!e->unknown_members && entry_canonical(&canon, &n, &content, false) == 0) {
        hash = mirror_hash(canon, n);
        free(canon);
    }
    return hash;
}

/* A discovery puts its judgement of a server into the entry, which breaks the signature (services.md §2.2 rule 4): without it the entry certifies itself again. A
 * passphrase that stood there and was signed is nothing for the DHT. NULL: there is no such text. */
static struct entry *server_certifying(const char *text, size_t n)
{
    struct entry *e;
    if (entry_parse(&e, text, n) < 0)
        return NULL;
    if (e->server.server_type[0] == '\0' && entry_verify(e) == 0)
        return e;
    struct sig sig = e->signature;
    e->server.server_type = "";
    if (e->has_signature && entry_set_signature(e, &sig) == 0 && entry_verify(e) == 0)
        return e;
    entry_free(e);
    return NULL;
}

void mirror_entry(struct mirror *m, const struct entry *e, const char *text, size_t n)
{
    struct entry *server = e->has_server ? server_certifying(text, n) : NULL;
    struct mirror_value v = {
        .salt = "dmsg",
        .v = server != NULL ? server->text : text,
        .n = server != NULL ? server->text_len : n,
        .has_seq = true,
        .seq = e->sequence != 0 ? e->sequence : 1, /* number 0 is in no listing (dht.md §2.3) */
        .hash = content_hash(server != NULL ? server : e),
    };
    if (e->has_server && server == NULL)
        m->stat.uncertified++;
    else
        mirror_set(m, &v, &e->static_pk, 1);
    entry_free(server);
}

/* Chunks of a longer list before this one. */
static void end_chunks(struct mirror *m, const struct pubkey *subject, size_t from, size_t to)
{
    char salt[TP_SALT_MAX];
    for (size_t i = from; i < to; i++)
        mirror_delete(m, tp_salt(salt, i), subject);
}

void mirror_transports(struct mirror *m, const struct pubkey *subject, const struct tp_list *l)
{
    struct slot *s = m->n_sinks > 0 ? slot_get(m, "tp", subject) : NULL;
    struct tp_chunks c = {0};
    char salt[TP_SALT_MAX];
    if (s == NULL) {
        m->stat.dropped += m->n_sinks > 0;
        return;
    }
    size_t before = s->chunks;
    int rc = l->n > 0 ? tp_split(&c, l, 0) : 0;
    if (rc < 0) {
        m->stat.too_long += rc == ERR_TOO_LONG;
        m->stat.dropped += rc != ERR_TOO_LONG;
        return;
    }
    s->chunks = (uint8_t)c.used;
    for (size_t i = 0; i < c.used; i++) {
        struct mirror_value v = {.salt = tp_salt(salt, i), .v = c.v[i].text, .n = c.v[i].n};
        mirror_set(m, &v, subject, 1);
    }
    end_chunks(m, subject, c.used, before > c.used ? before : c.used > 0 ? c.used : 1);
    tp_chunks_free(&c);
}

/* ---- life ---- */

struct mirror *mirror_new(const struct mirror_cfg *cfg)
{
    struct mirror *m = calloc(1, sizeof(*m));
    if (m == NULL)
        return NULL;
    m->cfg = *cfg;
    m->timer.fn = on_timer;
    m->again.fn = on_again;
    list_init(&m->ages);
    map_init(&m->slots, MAP_KEY(struct slot, target), cfg->env->hash_key, MIRROR_SLOTS);
    return m;
}

unsigned mirror_add_sink(struct mirror *m, const char *name, mirror_write_fn *fn, void *arg)
{
    assert(m->n_sinks < MIRROR_SINKS);
    struct sink *k = &m->sink[m->n_sinks];
    k->name = k->stat.name = name;
    k->write = fn;
    k->arg = arg;
    list_init(&k->queue);
    return m->n_sinks++;
}

void mirror_free(struct mirror *m)
{
    struct slot *s;
    if (m == NULL)
        return;
    loop_timer_cancel(m->cfg.loop, &m->timer);
    loop_timer_cancel(m->cfg.loop, &m->again);
    for (unsigned i = 0; i < m->n_sinks; i++)
        for (size_t j = 0; j < m->sink[i].n_in; j++)
            change_unref(m->sink[i].in[j].change);
    while ((s = list_first_as(&m->ages, struct slot, age)) != NULL)
        slot_free(m, s);
    map_free(&m->slots);
    seckey_wipe(&m->cfg.sk);
    free(m);
}

void mirror_stat(const struct mirror *m, struct mirror_stat *out)
{
    *out = m->stat;
    out->slots = map_len(&m->slots);
    out->n_sinks = m->n_sinks;
    for (unsigned i = 0; i < m->n_sinks; i++) {
        const struct sink *k = &m->sink[i];
        out->sink[i] = k->stat;
        if (k->n_queued + k->n_in > out->waiting)
            out->waiting = k->n_queued + k->n_in;
    }
}
