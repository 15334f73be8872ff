/*
 * Random operations on a network of engines against a model that is a table: what was put last into each
 * slot. Everybody holds everything (fewer nodes than k), nobody lies, puts are waited for; so a look-up
 * in the network brings exactly that, one that a copy may answer nothing older than what was there when
 * the copy can have been made, and numbers only grow. Nodes restart, with their store or an empty one,
 * lose messages, sleep; full nodes and peers that speak JSON only are among them.
 */
#include <string.h>

#include "base/err.h"
#include "kademlia/table.h"
#include "tests/unit/kademlia/net.h"

#define NODES     9
#define SALTS     3
#define STEPS     400
#define MINUTE_MS UINT64_C(60000)
#define FRESH_NS  (5 * 60 * NS_PER_S)
#define TTL_NS    (120 * 60 * NS_PER_S)
#define HISTORY   16

static struct net n;
static const char *const salts[SALTS] = {"one", "dmsg", "svc"};

struct version {
    uint64_t at_ns, seq;
    unsigned number; /* 0: a tombstone */
};

static struct slot {
    struct version last[HISTORY]; /* the newest first; at_ns 0: none */
    unsigned numbers;
} slots[NODES][SALTS];

static uint64_t wiped_ns; /* when a store was emptied last */

static void remember(struct slot *s, struct version v)
{
    memmove(&s->last[1], &s->last[0], (HISTORY - 1) * sizeof s->last[0]);
    s->last[0] = v;
}

static const char *text_of(char out[64], unsigned owner, unsigned salt, unsigned number)
{
    snprintf(out, 64, "{\"n\":\"%u %u %u\"}", owner, salt, number);
    return out;
}

static bool is_tombstone(unsigned salt, const char *text)
{
    return salt != 0 && strcmp(text, "{}") == 0;
}

/* ---- operations ---- */

/* With a number of its own, or one that is too low, or just above the last one. */
static void step_put(unsigned owner, unsigned salt)
{
    struct net_node *node = net_node(&n, owner);
    struct slot *s = &slots[owner][salt];
    bool gone = salt != 0 && prop_chance(&n.rnd, 15), low = false, high = false;
    uint64_t seq = 0;
    char text[64];

    if (s->last[0].at_ns != 0 && prop_chance(&n.rnd, 20)) {
        low = prop_chance(&n.rnd, 50);
        high = !low;
        seq = s->last[0].seq - low * prop_below(&n.rnd, 3) + high * (1 + prop_below(&n.rnd, 3));
    }
    if (gone)
        strcpy(text, "{}");
    else
        text_of(text, owner, salt, s->numbers + 1);
    struct kad_report r = net_wait(node, kad_put(node->kad, salts[salt], strlen(salts[salt]), text,
                                                 strlen(text), low || high, seq, NULL, n.now_ns));
    /* Republishing may have taken a higher number meanwhile than the last one that the model knows. */
    if (r.err == ERR_SEQ) {
        assert_true(low || high);
        net_report_clear(&r);
        return;
    }
    assert_false(low);
    assert_int_equal(r.err, 0);
    assert_int_equal(r.item->item.v_len, strlen(text));
    assert_true(r.item->item.seq > s->last[0].seq);
    s->numbers += !gone;
    remember(s, (struct version){
                    .at_ns = n.now_ns, .seq = r.item->item.seq, .number = gone ? 0 : s->numbers});
    net_report_clear(&r);
}

/* What the model has of a slot at a time; NULL: nothing was put before. */
static const struct version *version_at(const struct slot *s, uint64_t at_ns)
{
    for (unsigned i = 0; i < HISTORY; i++) {
        if (s->last[i].at_ns != 0 && s->last[i].at_ns <= at_ns)
            return &s->last[i];
    }
    return NULL;
}

static bool is_value(const struct kad_report *r, unsigned owner, unsigned salt, unsigned number)
{
    char text[64];

    text_of(text, owner, salt, number);
    return r->item != NULL && r->item->item.v_len == strlen(text) &&
           memcmp(r->item->item.v, text, strlen(text)) == 0;
}

/* Not even a tombstone lives for ever. */
static void check_gone(const struct kad_report *r, unsigned salt)
{
    assert_int_equal(r->err, ERR_NOT_FOUND);
    if (r->item != NULL) {
        char text[8] = "";
        memcpy(text, r->item->item.v, r->item->item.v_len < 7 ? r->item->item.v_len : 7);
        assert_true(is_tombstone(salt, text));
    }
}

static void step_get(unsigned reader, unsigned owner, unsigned salt, bool network)
{
    const struct slot *s = &slots[owner][salt];
    uint64_t begin = n.now_ns, grace = network ? 0 : FRESH_NS;
    struct kad_report r = net_get(net_node(&n, reader), &net_node(&n, owner)->pk, salts[salt],
                                  network ? KAD_GET_NETWORK : 0);
    const struct version *now = version_at(s, begin);
    const struct version *then = version_at(s, begin > grace ? begin - grace : 0);

    if (now == NULL) {
        assert_true(r.err == ERR_NOT_FOUND || r.err == ERR_NO_ROUTE);
    } else if (r.source != KAD_SRC_LOCAL || then == now) {
        if (now->number == 0)
            check_gone(&r, salt);
        else if (!is_value(&r, owner, salt, now->number))
            fail_msg("slot %u/%u: %d, not version %u", owner, salt, r.err, now->number);
    } else { /* a copy: what was there then, or anything since */
        const struct version *oldest = then != NULL ? then : &s->last[HISTORY - 1];
        bool good = r.err == ERR_NOT_FOUND;
        for (const struct version *v = s->last; v <= oldest; v++)
            good |= v->number > 0 && is_value(&r, owner, salt, v->number);
        assert_true(good);
    }
    net_report_clear(&r);
}

/* Somebody else's item in this slot, and one with a broken signature: refused. */
static void step_attack(unsigned owner, unsigned salt)
{
    struct net_node *to = net_node(&n, prop_below(&n.rnd, NODES));
    struct net_node *from = net_node(&n, prop_below(&n.rnd, NODES));
    struct kad_id slot = kad_target(&net_node(&n, owner)->pk, salts[salt], strlen(salts[salt]));
    struct item it = {.k = from->pk,
                      .seq = UINT64_C(1) << 61,
                      .v = (const uint8_t *)"{}x",
                      .v_len = 3,
                      .salt = (const uint8_t *)salts[salt],
                      .salt_len = strlen(salts[salt])};
    struct kad_msg req, rsp;

    if (from == to || from == net_node(&n, owner))
        return;
    net_sign(from, &it);
    if (prop_chance(&n.rnd, 50))
        it.k = net_node(&n, owner)->pk;
    kad_msg_init(&req, KAD_PUT_VALUE, false);
    struct item_ref *ref = item_ref_new(&it);
    assert_non_null(ref);
    assert_int_equal(kad_msg_add_item(&req, ref, &slot), 0);
    item_ref_put(ref);
    if (net_ask(to, from, &req, &rsp)) {
        assert_false(rsp.stored);
        kad_msg_clear(&rsp);
    }
}

/* The store of one node at a time is emptied: the others hold everything, and owners publish again
 * within half an hour. An owner whose own store is gone has nothing to publish again, though. */
static void step_restart(unsigned i)
{
    bool wipe = prop_chance(&n.rnd, 30) && n.now_ns - wiped_ns > 40 * 60 * NS_PER_S;

    for (unsigned salt = 0; salt < SALTS; salt++)
        wipe &= slots[i][salt].numbers == 0;
    wiped_ns = wipe ? n.now_ns : wiped_ns;
    static uint8_t table[TABLE_SAVE_MAX];
    size_t len = 0;
    struct net_node *node = net_node(&n, i);
    assert_int_equal(kad_save_routing(node->kad, table, sizeof table, &len), 0);
    net_restart(node, wipe);
    assert_int_equal(kad_load_routing(node->kad, table, len, n.now_ns), 0);
    net_run(&n, 5000);
}

static bool count_slot(void *arg, const struct store_rec *r)
{
    (void)r;
    ++*(size_t *)arg;
    return true;
}

/* Whatever happens: no store has more than what was put, nor anything expired for long. */
static void check_stores(void)
{
    size_t most = 0;

    for (unsigned i = 0; i < NODES * SALTS; i++)
        most += slots[i / SALTS][i % SALTS].numbers > 0 ||
                slots[i / SALTS][i % SALTS].last[0].at_ns != 0;
    for (unsigned i = 0; i < NODES; i++) {
        size_t have = 0;
        struct store *s = net_node(&n, i)->store;
        struct store_stat st;
        assert_int_equal(s->ops->scan(s, NULL, count_slot, &have), 0);
        s->ops->stat(s, &st);
        assert_int_equal(st.items, have);
        assert_true(have <= most + 2); /* and the adverts of two full nodes */
    }
}

static void step(void)
{
    unsigned owner = (unsigned)prop_below(&n.rnd, NODES);
    unsigned salt = (unsigned)prop_below(&n.rnd, SALTS);
    unsigned what = (unsigned)prop_below(&n.rnd, 100);

    if (what < 25)
        step_put(owner, salt);
    else if (what < 60)
        step_get((unsigned)prop_below(&n.rnd, NODES), owner, salt, true);
    else if (what < 80)
        step_get((unsigned)prop_below(&n.rnd, NODES), owner, salt, false);
    else if (what < 85)
        step_attack(owner, salt);
    else if (what < 90)
        step_restart(owner);
    else
        net_run(&n, prop_below(&n.rnd, what < 98 ? 30000 : 50 * MINUTE_MS));
}

static void run(bool native, unsigned loss_percent)
{
    struct prop seed = prop_init("model of the engine");

    net_init(&n, prop_u64(&seed));
    n.native = native;
    n.model = true;
    memset(slots, 0, sizeof slots);
    for (unsigned i = 0; i < NODES; i++) {
        struct kad_cfg cfg = {.full = i < 2};
        struct net_node *node = net_add(&n, &cfg);
        node->json_only = native && i == NODES - 1;
        net_run(&n, 1000);
    }
    net_run(&n, MINUTE_MS);
    n.loss_percent = loss_percent;
    wiped_ns = n.now_ns;
    for (unsigned i = 0; i < STEPS; i++) {
        step();
        if (i % 50 == 0)
            check_stores();
    }
    n.loss_percent = 0;
    net_close(&n);
}

static void test_native(void **state)
{
    (void)state;
    run(true, 0);
}

static void test_json(void **state)
{
    (void)state;
    run(false, 0);
}

static void test_lossy(void **state)
{
    (void)state;
    run(true, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_native),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_lossy),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
