/* Digests that are kept leaf by leaf say what a walk over the whole store says, whatever was written, deleted, evicted or has
 * expired meanwhile, in memory and in LMDB, and cost what was changed. */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "kademlia/engine.h"
#include "store/memory.h"
#include "tests/unit/kademlia/lone.h"
#include "tests/unit/prop.h"
#include "tests/unit/store/stores.h"

#define KEYS      6
#define SALTS     8
#define LEAVES    7
#define MAX_ITEMS 60
#define STEPS     1500
#define S_NS      ((int64_t)NS_PER_S)

static struct lone l;
static struct pubkey pks[KEYS];

/* The store counts what scans give out. */
static const struct store_ops *real;
static size_t visited;

struct visit {
    store_visit_fn *fn;
    void *arg;
};

static bool count_visit(void *arg, const struct store_rec *r)
{
    const struct visit *v = arg;

    visited++;
    return v->fn(v->arg, r);
}

static int count_scan(struct store *s, const struct kad_id *after, store_visit_fn *fn, void *arg)
{
    struct visit v = {fn, arg};

    return real->scan(s, after, count_visit, &v);
}

static void begin_on(struct store *s)
{
    static struct store_ops counting;

    real = s->ops;
    counting = *real;
    counting.scan = count_scan;
    s->ops = &counting;
    lone_start(&l, s);
}

static void begin(uint64_t seed, unsigned max_items)
{
    lone_init(&l, seed);
    for (unsigned i = 0; i < KEYS; i++)
        pks[i] = lone_key(i, NULL);
    l.cfg.full = true;
    l.cfg.mirrors = &pks[1];
    l.cfg.n_mirrors = 1;
    l.cfg.limits.max_items = max_items;
    l.cfg.limits.slots_per_key = 100000;
}

/* ---- the model: all records, read at once ---- */

struct best_of {
    struct digest *d;
    bool any;
    struct kad_id last;
};

static bool add_best(void *arg, const struct store_rec *r)
{
    struct best_of *b = arg;
    bool cert = r->kind == ITEM_CERT;
    struct digest_entry e = {
        r->target, r->kind, {cert ? (uint64_t)r->rank_time : 0, cert ? r->rank_seq : r->item.seq}};

    if (r->origin == STORE_CACHE || !kad_rec_is_live(l.kad, r) ||
        (b->any && kad_id_equal(&b->last, &r->target)))
        return true;
    b->any = true;
    b->last = r->target;
    digest_add(b->d, &e);
    return true;
}

static void assert_true_to_store(void)
{
    struct best_of b = {.d = digest_new()};
    const struct digest *own;

    while ((own = kad_inventory(l.kad)) == NULL)
        lone_pass(&l, (int64_t)NS_PER_MS);
    assert_int_equal(l.store->ops->scan(l.store, NULL, add_best, &b), 0);
    assert_true(digest_items(own) == digest_items(b.d));
    for (unsigned i = 0; i < DIGEST_LEAVES; i++) {
        struct digest_part x = digest_range(own, DIGEST_BITS, i),
                           y = digest_range(b.d, DIGEST_BITS, i);
        if (!digest_part_equal(&x, &y))
            fail_msg("leaf %04x: %u items, the store has %u", i, x.count, y.count);
    }
    digest_free(b.d);
}

/* ---- random operations ---- */

static const char *const salts[SALTS] = {"", "dmsg", "tp", "svc", "a", "b", "c", "fullnode"};

static uint64_t draw_seq(struct prop *r)
{
    if (prop_chance(r, 20))
        return prop_below(r, 50); /* no clock */
    return (uint64_t)(l.env.wall_ns - (int64_t)prop_below(r, 10800) * S_NS);
}

static void accepted(struct kad_accept *a, int err)
{
    (void)a;
    (void)err;
}

/* Through the engine, as if the signature were right. */
static void let_in(struct prop *r)
{
    const char *salt = salts[prop_below(r, SALTS)];
    struct item it = {.k = pks[1 + prop_below(r, KEYS - 1)],
                      .seq = draw_seq(r),
                      .v = (const uint8_t *)"value",
                      .v_len = prop_below(r, 6),
                      .salt = (const uint8_t *)salt,
                      .salt_len = strlen(salt)};
    const struct pubkey *from = &pks[prop_below(r, KEYS)];
    struct kad_id elsewhere = kad_target(&pks[prop_below(r, KEYS)], salt, strlen(salt));
    struct store_rec old;
    struct item_ref *item;

    struct kad_id own = item_target(&it);
    if (prop_chance(r, 30) && l.store->ops->get(l.store, &own, ITEM_OWNER, &old) == 0)
        item = item_ref_new(&old.item); /* the same bytes again */
    else
        item = item_ref_new(&it);
    assert_non_null(item);
    if (prop_chance(r, 50))
        from = &item->item.k;
    struct kad_accept a = {
        .via = (enum kad_via)prop_below(r, KAD_VIA_LOCAL), .verified = true, .done = accepted};
    (void)kad_accept_begin(&a, l.kad, item, prop_chance(r, 20) ? &elsewhere : NULL, from);
    kad_accept_clear(&a);
    item_ref_put(item);
}

/* By somebody else who has the store too: any target, kind, origin and time. */
static void write_outside(struct prop *r)
{
    static const uint16_t leaf[LEAVES] = {0, 1, 2, 0x1234, 0x1236, 0xfffe, 0xffff};
    struct store_rec rec =
        record_of((unsigned)prop_below(r, 4), salts[prop_below(r, SALTS)], draw_seq(r), "x");
    uint16_t prefix = leaf[prop_below(r, LEAVES)];

    rec.target.b[0] = (uint8_t)(prefix >> 8);
    rec.target.b[1] = (uint8_t)prefix;
    rec.target.b[2] = (uint8_t)prop_below(r, 4);
    rec.kind = (enum item_kind)prop_below(r, ITEM_KIND__COUNT);
    rec.origin = (enum store_origin)prop_below(r, 3);
    rec.rank_time = (int64_t)prop_below(r, 5);
    rec.rank_seq = prop_below(r, 5);
    rec.stored_ns = l.env.wall_ns - (int64_t)prop_below(r, 3600) * S_NS;
    rec.expires_ns = prop_chance(r, 10)
                         ? INT64_MAX
                         : l.env.wall_ns + ((int64_t)prop_below(r, 20000) - 3600) * S_NS;
    if (prop_chance(r, 70))
        (void)l.store->ops->put(l.store, &rec);
    else
        (void)l.store->ops->del(l.store, &rec.target, rec.kind);
    kad_store_changed(l.kad, prop_chance(r, 95) ? &rec.target : NULL, rec.kind, l.now_ns);
}

static void step(struct prop *r)
{
    switch (prop_below(r, 12)) {
    case 0:
        lone_pass(&l, (int64_t)prop_below(r, 2400) * S_NS);
        break;
    case 1:
        lone_pass(&l, (int64_t)prop_below(r, 3) * S_NS + 1);
        break;
    case 2:
        kad_distrust(l.kad, &pks[prop_below(r, KEYS)], "tp", 2);
        break;
    case 3: /* a regular node for a while */
        if (prop_chance(r, 10)) {
            kad_set_full(l.kad, false);
            kad_set_full(l.kad, true);
        }
        break;
    case 4:
    case 5:
    case 6:
        write_outside(r);
        break;
    default:
        let_in(r);
        break;
    }
    lone_tick(&l);
}

static void run_steps(struct prop *r)
{
    assert_true_to_store();
    for (unsigned i = 0; i < STEPS; i++) {
        step(r);
        if (prop_chance(r, 20))
            assert_true_to_store();
    }
    assert_true_to_store();
}

static void test_memory(void **state)
{
    struct prop r = prop_init("inventory in memory");
    struct store *s;

    (void)state;
    begin(r.state, MAX_ITEMS);
    assert_int_equal(store_memory_new(&s, 0), 0);
    begin_on(s);
    run_steps(&r);
    lone_close(&l);
}

static void begin_lmdb(uint64_t seed)
{
    begin(seed, MAX_ITEMS);
    assert_non_null(stores_dir());
}

static void end_lmdb(void)
{
    lone_close(&l);
    stores_remove();
}

static void test_lmdb(void **state)
{
    struct prop r = prop_init("inventory in LMDB");

    (void)state;
    begin_lmdb(r.state);
    begin_on(stores_open());
    run_steps(&r);
    end_lmdb();
}

/* kill -9 with writes under way: the next process says what is there, and goes on. */
static void test_lmdb_after_a_kill(void **state)
{
    struct prop r = prop_init("inventory after a kill");
    unsigned steps = 50 + (unsigned)prop_below(&r, 400);
    int how;

    (void)state;
    begin_lmdb(r.state);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        begin_on(stores_open());
        for (unsigned i = 0; i < steps; i++) {
            step(&r);
            (void)kad_inventory(l.kad);
        }
        kill(getpid(), SIGKILL);
    }
    assert_true(waitpid(pid, &how, 0) == pid);
    assert_true(WIFSIGNALED(how) && WTERMSIG(how) == SIGKILL);
    begin_on(stores_open());
    run_steps(&r);
    end_lmdb();
}

/* ---- what it costs ---- */

static void put_plain(unsigned i, uint64_t seq)
{
    char salt[16];

    snprintf(salt, sizeof salt, "s%u", i);
    struct store_rec rec = record_of(1, salt, seq, "x");
    rec.stored_ns = l.env.wall_ns;
    rec.expires_ns = l.env.wall_ns + 3600 * S_NS;
    assert_int_equal(l.store->ops->put(l.store, &rec), 0);
    kad_store_changed(l.kad, &rec.target, ITEM_OWNER, l.now_ns);
}

static void test_cost_is_that_of_the_change(void **state)
{
    const unsigned count = 20000, changed = 10;
    struct store *s;

    (void)state;
    begin(1, 0);
    assert_int_equal(store_memory_new(&s, 0), 0);
    begin_on(s);
    for (unsigned i = 0; i < count; i++)
        put_plain(i, 1);
    visited = 0;
    while (kad_inventory(l.kad) == NULL)
        lone_pass(&l, (int64_t)NS_PER_MS);
    assert_in_range(visited, count, count + count / 100);
    visited = 0;
    assert_non_null(kad_inventory(l.kad));
    assert_int_equal(visited, 0);
    for (unsigned i = 0; i < changed; i++)
        put_plain(i * 1999, 2);
    assert_non_null(kad_inventory(l.kad)); /* in one turn */
    assert_in_range(visited, changed, changed * 10);
    lone_pass(&l, 3600 * S_NS); /* all of them end: read once more, and never again */
    while (kad_inventory(l.kad) == NULL)
        lone_pass(&l, (int64_t)NS_PER_MS);
    assert_true(digest_items(kad_inventory(l.kad)) <= 1); /* the node's own advert */
    visited = 0;
    assert_non_null(kad_inventory(l.kad));
    assert_int_equal(visited, 0);
    lone_close(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_lmdb),
        cmocka_unit_test(test_lmdb_after_a_kill),
        cmocka_unit_test(test_cost_is_that_of_the_change),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
