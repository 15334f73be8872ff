/* The recorded cases of a Go-derived node through frame, codec and engine (tests/vectors/dht.json):
 * handler_cases, store_sequences, get_items_pages, constants. Where the design departs from the peers
 * the case is kept with our outcome and the reason. */
#include "base/err.h"
#include "kademlia/codec_json.h"
#include "kademlia/engine.h"
#include "tests/unit/kademlia/dht_items.h"
#include "tests/unit/kademlia/net.h"

static json_t *root;
static struct net n;

static int setup_all(void **state)
{
    (void)state;
    root = vectors_load("dht");
    return 0;
}

static int teardown_all(void **state)
{
    (void)state;
    json_decref(root);
    return 0;
}

static int setup(void **state)
{
    struct prop r = prop_init("cases");

    (void)state;
    net_init(&n, prop_u64(&r));
    n.no_bootstrap = true;
    n.json = false;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    net_close(&n);
    return 0;
}

static struct net_node *add_named(const char *name, const struct kad_cfg *cfg)
{
    struct seckey sk;
    struct pubkey pk;

    dht_key(root, name, &sk, &pk);
    return net_add_key(&n, cfg, &sk);
}

static uint64_t items_of(const struct net_node *node)
{
    struct store_stat st;

    node->store->ops->stat(node->store, &st);
    return st.items;
}

/* ---- handler_cases ---- */

#define TELLS                                                                                      \
    "we say what became of an item with a target; the peers always say \"stored\" (rule 2)"
#define BODY "the sender in the body is not believed (rule 5, incident 61)"

static const struct departure {
    const char *name;
    const char *answer; /* NULL: the same as theirs */
    long long table;    /* contacts afterwards; -1: the same as theirs */
    const char *why;
} departures[] = {
    {"put_value, mirror_target and a bad signature: nothing stored, yet answered as stored",
     "{\"stored\":false,\"error\":\"dht: invalid signature: Failed to recover pubkey from "
     "signature\"}",
     -1, TELLS},
    {"get_items all; absent sender fields put a zero-id peer into the table", NULL, 1, BODY},
    {"get_items with limit 1 (both items share one seq: both come)", NULL, 1, BODY},
    {"get_items, negative limit", NULL, 1, BODY},
    {"get_items, since_seq negative: closed", NULL, 1, BODY},
    {"put_batch, empty", NULL, 1, BODY},
    {"put_batch, items null", NULL, 1, BODY},
    {"put_batch, bad item with a target: answered as stored, not stored",
     "{\"stored\":[false],\"errors\":[\"dht: invalid signature: Recovered pubkey does not match "
     "pubkey\"]}",
     -1, TELLS},
};

static const struct departure *departure_of(const char *name)
{
    for (size_t i = 0; i < sizeof departures / sizeof departures[0]; i++) {
        if (strcmp(departures[i].name, name) == 0)
            return &departures[i];
    }
    return NULL;
}

/* One request of the stream as bytes; the answer's frame, or NULL when the stream is closed. *called:
 * the request reached the engine. */
static uint8_t *serve(struct net_node *node, struct net_node *caller, const uint8_t *p, size_t len,
                      size_t *out_len, bool *called)
{
    struct kad_frame f;
    struct kad_msg req, rsp;
    uint8_t *out = NULL;
    size_t used;

    *called = false;
    kad_frame_init(&f, KAD_FRAME_MAX);
    int rc = kad_frame_feed(&f, p, len, &used);
    if (rc == 0)
        rc = kad_json_decode(&req, f.method, false, f.body, f.body_len);
    kad_frame_clear(&f);
    if (rc != 0)
        return NULL;
    *called = true;
    if (!net_ask(node, caller, &req, &rsp))
        return NULL;
    assert_int_equal(kad_json_encode(&out, out_len, &rsp), 0);
    kad_msg_clear(&rsp);
    return out;
}

/* Copy with what stands in last_seen taken out: the peers' clock is in it. */
static char *without_last_seen(const char *text, size_t len)
{
    char *out = calloc(1, len + 1), *q = out;
    static const char key[] = "\"last_seen\":\"";
    size_t i = 0;

    assert_non_null(out);
    while (i < len) {
        bool hit = len - i >= sizeof key - 1 && memcmp(text + i, key, sizeof key - 1) == 0;
        size_t skip = 0;
        if (hit) {
            memcpy(q, key, sizeof key - 1);
            q += sizeof key - 1;
            skip = sizeof key - 1;
            while (i + skip < len && text[i + skip] != '"')
                skip++;
            i += skip;
            continue;
        }
        *q++ = text[i++];
    }
    return out;
}

static void check_answer(const char *name, const char *want, const uint8_t *got, size_t got_len,
                         unsigned method)
{
    if (want == NULL) {
        if (got != NULL)
            fail_msg("%s: answered", name);
        return;
    }
    if (got == NULL)
        fail_msg("%s: closed", name);
    assert_int_equal(got[4], method);
    char *w = without_last_seen(want, strlen(want));
    char *g = without_last_seen((const char *)got + KAD_FRAME_HEAD, got_len - KAD_FRAME_HEAD);
    if (strcmp(w, g) != 0)
        fail_msg("%s:\n want %s\n got  %s", name, w, g);
    free(w);
    free(g);
}

static void check_case(const json_t *c, struct net_node *node, struct net_node *caller)
{
    const char *name = vec_str(c, "name");
    const struct departure *d = departure_of(name);
    size_t len, out_len = 0;
    uint8_t *p = vec_hex_dup(c, "request_hex", &len);
    long long table = vec_int(c, "table_size_after");
    bool called;

    const char *answer = json_is_null(json_object_get(c, "answer")) ? NULL : vec_str(c, "answer");
    uint8_t *out = serve(node, caller, p, len, &out_len, &called);
    check_answer(name, d != NULL && d->answer != NULL ? d->answer : answer, out, out_len,
                 len > 4 ? p[4] : 0);
    assert_int_equal(items_of(node), vec_int(c, "items_after"));
    if (d != NULL && d->table >= 0)
        table = d->table;
    else if (!called) /* who sends what is no request does not become a contact of ours */
        table = vec_int(c, "table_size_before");
    if ((long long)net_contacts(node) != table)
        fail_msg("%s: %zu contacts, want %lld", name, net_contacts(node), table);
    free(out);
    free(p);
}

/* Cases follow each other on one node as long as its table is not empty before. The caller is a
 * configured mirror: else its item under another target would be refused (rule 2). */
static void test_handler_cases(void **state)
{
    struct pubkey mirror;
    struct net_node *node = NULL, *caller = NULL;
    size_t i, departed = 0;
    const json_t *c;

    (void)state;
    dht_key(root, "key0", NULL, &mirror);
    struct kad_cfg cfg = {.full = true, .mirrors = &mirror, .n_mirrors = 1};
    const json_t *cases = vec_get(vec_get(root, "handler_cases"), "cases");
    assert_int_equal(json_array_size(cases), 49);
    json_array_foreach(cases, i, c)
    {
        if (node == NULL || vec_int(c, "table_size_before") == 0) {
            net_close(&n);
            net_init(&n, i);
            n.no_bootstrap = true;
            n.json = false;
            node = add_named("key1", &cfg);
            caller = add_named("key0", NULL);
        }
        check_case(c, node, caller);
        departed += departure_of(vec_str(c, "name")) != NULL;
    }
    assert_int_equal(departed, sizeof departures / sizeof departures[0]);
}

/* ---- store_sequences ---- */

static const json_t *sequence(const char *prefix)
{
    size_t i;
    const json_t *s;

    json_array_foreach(vec_get(root, "store_sequences"), i, s)
    {
        if (strncmp(vec_str(s, "name"), prefix, strlen(prefix)) == 0)
            return vec_get(s, "ops");
    }
    fail_msg("no sequence \"%s\"", prefix);
    return NULL;
}

static int put_item(struct net_node *node, struct net_node *from, struct item_ref *item,
                    const struct kad_id *target)
{
    struct kad_msg req, rsp;

    kad_msg_init(&req, KAD_PUT_VALUE, false);
    assert_int_equal(kad_msg_add_item(&req, item, target), 0);
    assert_true(net_ask(node, from, &req, &rsp));
    int result = rsp.stored ? 0 : rsp.error;
    kad_msg_clear(&rsp);
    net_run(&n, 10); /* so that "oldest" means something */
    return result;
}

/* The item of an operation: its JSON where there is one, else freshly signed. */
static struct item_ref *item_of(const json_t *put, const char *key_member)
{
    struct seckey sk;
    struct pubkey pk;

    if (json_object_get(put, "json") != NULL) {
        struct kad_msg m;
        const char *text = vec_str(put, "json");
        char *body = malloc(strlen(text) + 32);
        assert_non_null(body);
        int len = sprintf(body, "{\"item\":%s}", text);
        assert_int_equal(kad_json_decode(&m, KAD_PUT_VALUE, false, body, (size_t)len), 0);
        struct item_ref *item = item_ref_get(m.items[0].item);
        kad_msg_clear(&m);
        free(body);
        return item;
    }
    dht_key(root, vec_str(put, key_member), &sk, &pk);
    const char *v = json_object_get(put, "v") != NULL ? vec_str(put, "v") : "v";
    return dht_item(&sk, dht_u64(put, "seq"), vec_str(put, "salt"), v);
}

static int put_op(struct net_node *node, struct net_node *from, const json_t *op)
{
    struct item_ref *item = item_of(vec_get(op, "put"), "key");
    int result = put_item(node, from, item, NULL);

    item_ref_put(item);
    return result;
}

/* Their text, or "ok", is what our result says on the wire. */
static void check_result(const json_t *op, int result)
{
    char buf[64];
    const char *want = vec_str(op, "result");
    const char *got = result == 0 ? "ok" : kad_json_error_text(result, NULL, buf);
    struct item none = {.seq = 0};

    if (item_error_text(result, &none) != NULL)
        got = item_error_text(result, &none);
    assert_string_equal(got, want);
}

static void test_sequence_rules(void **state)
{
    struct net_node *node = add_named("key6", NULL), *from = add_named("key0", NULL);
    size_t i;
    const json_t *op;

    (void)state;
    json_array_foreach(sequence("sequence rules"), i, op)
    {
        check_result(op, put_op(node, from, op));
        net_assert_value(net_get(node, &from->pk, "s", 0),
                         strcmp(vec_str(op, "stored_v_after"), "zero-other") == 0
                             ? "zero/other"
                             : vec_str(op, "stored_v_after"));
    }
}

static void test_sequence_quota(void **state)
{
    struct pubkey white, trusted;
    size_t i;
    const json_t *op;

    (void)state;
    dht_key(root, "key1", NULL, &white);
    dht_key(root, "key2", NULL, &trusted);
    struct kad_cfg cfg = {.whitelisted = &white,
                          .n_whitelisted = 1,
                          .trusted = &trusted,
                          .n_trusted = 1,
                          .limits = {.slots_per_key = 2}};
    struct net_node *node = add_named("key6", &cfg), *from = add_named("key5", NULL);
    json_array_foreach(sequence("per-key limit"), i, op)
    {
        check_result(op, put_op(node, from, op));
        assert_int_equal(items_of(node), vec_int(op, "count_after"));
    }
}

/* Their pool of 3 public items beside protected ones is our limit of 4 items in all. */
static void test_sequence_pool(void **state)
{
    struct pubkey white;
    size_t i, j;
    const json_t *op, *name;

    (void)state;
    dht_key(root, "key6", NULL, &white);
    struct kad_cfg cfg = {
        .full = true, .whitelisted = &white, .n_whitelisted = 1, .limits = {.max_items = 4}};
    struct net_node *node = net_add(&n, &cfg), *from = net_add(&n, NULL);
    json_array_foreach(sequence("public pool"), i, op)
    {
        check_result(op, put_op(node, from, op));
        const json_t *present = vec_get(op, "present_after");
        assert_int_equal(items_of(node), json_array_size(present));
        json_array_foreach(present, j, name)
        {
            struct pubkey pk;
            struct store_rec r;
            dht_key(root, json_string_value(name), NULL, &pk);
            struct kad_id slot = kad_target(&pk, "s", 1);
            assert_int_equal(node->store->ops->get(node->store, &slot, ITEM_OWNER, &r), 0);
        }
    }
}

/* Departure: a public item that would be evicted at once is refused, and the sender is told (a
 * publisher knows what it failed to publish, incident 55). */
static void test_sequence_max_items(void **state)
{
    struct pubkey white[3];
    size_t i;
    const json_t *op;

    (void)state;
    dht_key(root, "key4", NULL, &white[0]);
    dht_key(root, "key5", NULL, &white[1]);
    dht_key(root, "key6", NULL, &white[2]);
    struct kad_cfg cfg = {
        .full = true, .whitelisted = white, .n_whitelisted = 3, .limits = {.max_items = 2}};
    struct net_node *node = net_add(&n, &cfg), *from = net_add(&n, NULL);
    json_array_foreach(sequence("max_items 2"), i, op)
    {
        int result = put_op(node, from, op);
        if (vec_bool(op, "kept"))
            check_result(op, result);
        else
            assert_int_equal(result, ERR_NO_SPACE);
        assert_int_equal(items_of(node), vec_int(op, "count_after"));
    }
}

/* Departure (rule 2): owner's and mirrored items have slots of their own, so the mirror at seq 6 does
 * not block the owner's seq 6, and the mirror at seq 8 does not hide the owner's seq 7. Among the
 * mirrors of one slot seq decides as it does for the peers. */
static void test_sequence_mirrors(void **state)
{
    static const char *const shown[] = {"mirror5", "mirror5", "mirror5", "other6",
                                        "own6",    "own7",    "own7"};
    struct pubkey mirrors[2], subject;
    struct store_rec r;
    size_t i;
    const json_t *op;

    (void)state;
    dht_key(root, "key0", NULL, &mirrors[0]);
    dht_key(root, "key1", NULL, &mirrors[1]);
    dht_key(root, "key3", NULL, &subject);
    struct kad_cfg cfg = {.full = true, .mirrors = mirrors, .n_mirrors = 2};
    struct net_node *node = net_add(&n, &cfg), *from = net_add(&n, NULL);
    struct kad_id slot = kad_target(&subject, "tp", 2);
    const json_t *ops = sequence("mirror puts and own puts");
    assert_int_equal(json_array_size(ops), sizeof shown / sizeof shown[0]);
    json_array_foreach(ops, i, op)
    {
        if (json_object_get(op, "put") != NULL) {
            assert_int_equal(put_op(node, from, op), 0);
        } else {
            struct item_ref *item = item_of(vec_get(op, "put_mirror"), "signer");
            assert_int_equal(put_item(node, from, item, &slot), 0); /* also when it is older */
            item_ref_put(item);
            assert_int_equal(node->store->ops->get(node->store, &slot, ITEM_MIRROR, &r), 0);
            assert_int_equal(r.item.seq, dht_u64(op, "seq_after"));
        }
        net_assert_value(net_get(node, &subject, "tp", 0), shown[i]);
    }
}

/* ---- get_items_pages ---- */

/* "seq:key/salt" of an item. */
static char *label(char out[64], const struct item *it)
{
    for (int key = 0; key < 7; key++) {
        char name[16];
        struct pubkey pk;
        snprintf(name, sizeof name, "key%d", key);
        dht_key(root, name, NULL, &pk);
        if (pubkey_equal(&pk, &it->k)) {
            snprintf(out, 64, "%llu:%s/%.*s", (unsigned long long)it->seq, name, (int)it->salt_len,
                     (const char *)it->salt);
            return out;
        }
    }
    fail_msg("unknown key");
    return out;
}

static void test_get_items_pages(void **state)
{
    struct kad_cfg cfg = {.full = true};
    struct net_node *node = net_add(&n, &cfg), *from = net_add(&n, NULL);
    const json_t *pages = vec_get(root, "get_items_pages"), *v, *want;
    size_t i, j;
    char text[64];

    (void)state;
    n.json = true;
    json_array_foreach(vec_get(pages, "store"), i, v)
    {
        struct item_ref *item = item_of(v, "key");
        assert_int_equal(put_item(node, from, item, NULL), 0);
        item_ref_put(item);
    }
    json_array_foreach(vec_get(pages, "queries"), i, v)
    {
        struct kad_msg req, rsp;
        kad_msg_init(&req, KAD_GET_ITEMS, false);
        req.salt = strdup(vec_str(v, "salt"));
        req.salt_len = strlen(req.salt);
        req.since_seq = dht_u64(v, "since_seq");
        req.limit = vec_int(v, "limit");
        assert_true(net_ask(node, from, &req, &rsp));
        assert_int_equal(rsp.has_more, vec_bool(v, "has_more"));
        assert_int_equal(rsp.n_items, json_array_size(vec_get(v, "items")));
        json_array_foreach(vec_get(v, "items"), j, want)
        {
            const struct kad_msg_item *mi = &rsp.items[j];
            struct kad_id slot = item_target(&mi->item->item);
            assert_string_equal(label(text, &mi->item->item), json_string_value(want));
            assert_true(mi->has_target && kad_id_equal(&slot, &mi->target));
        }
        kad_msg_clear(&rsp);
    }
}

static void test_constants(void **state)
{
    const json_t *c = vec_get(root, "constants");
    struct net_node *a = net_add(&n, NULL);

    (void)state;
    assert_int_equal(a->kad->lim.k, vec_int(c, "k"));
    assert_int_equal(a->kad->lim.alpha, vec_int(c, "alpha"));
    assert_int_equal(a->kad->lim.rpc_timeout_ms, 1000 * vec_int(c, "rpc_timeout_s"));
    assert_int_equal(3 * a->kad->lim.rpc_timeout_ms, 1000 * vec_int(c, "get_items_timeout_s"));
    assert_int_equal(ITEM_MAX_VALUE, vec_int(c, "max_value"));
    assert_int_equal(ITEM_MAX_SALT, vec_int(c, "max_salt"));
    assert_int_equal(KAD_PORT, vec_int(c, "dmsg_port"));
    assert_int_equal(KAD_ID_BITS, vec_int(c, "id_bits"));
    assert_int_equal(KAD_FRAME_MAX, vec_int(c, "max_frame_length_field"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_handler_cases, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sequence_rules, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sequence_quota, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sequence_pool, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sequence_max_items, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sequence_mirrors, setup, teardown),
        cmocka_unit_test_setup_teardown(test_get_items_pages, setup, teardown),
        cmocka_unit_test_setup_teardown(test_constants, setup, teardown),
    };

    return cmocka_run_group_tests(tests, setup_all, teardown_all);
}
