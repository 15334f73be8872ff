/* The recorded example values of every salt: what the program decodes is decoded, the rest is read
 * as JSON to its end. */
#include "base/err.h"
#include "base/json.h"
#include "kademlia/records/tp.h"
#include "tests/unit/kademlia/dht_items.h"
#include "transport/entry.h"

static json_t *root;
static const json_t *values;

static int setup(void **state)
{
    (void)state;
    root = vectors_load("dht");
    values = vec_get(root, "values");
    return crypto_init();
}

static int teardown(void **state)
{
    (void)state;
    json_decref(root);
    return 0;
}

/* An entry that certifies itself: its own signature, and the slot that follows from its key. */
static void test_dmsg(void **state)
{
    const char *text = vec_str(values, "dmsg_client");
    struct pubkey key1;
    struct entry *e;

    (void)state;
    dht_key(root, "key1", NULL, &key1);
    assert_int_equal(entry_parse(&e, text, strlen(text)), 0);
    assert_int_equal(entry_verify(e), 0);
    assert_true(pubkey_equal(&e->static_pk, &key1));
    assert_true(e->has_client && !e->has_server);
    assert_int_equal(e->client.n_delegated, 1);
    entry_free(e);

    text = vec_str(values, "dmsg_server_entry");
    assert_int_equal(entry_parse(&e, text, strlen(text)), 0);
    assert_int_equal(entry_verify(e), 0);
    assert_true(e->has_server);
    assert_string_equal(e->server.address, "127.0.0.1:21081");
    assert_int_equal(e->sequence, 36);
    entry_free(e);

    text = vec_str(values, "dmsg_tombstone");
    assert_int_equal(entry_parse(&e, text, strlen(text)), ERR_NOT_FOUND);
}

static void test_tp(void **state)
{
    static const struct {
        const char *name;
        size_t n;
    } shapes[] = {
        {"tp_bare", 2}, {"tp_signed", 1}, {"tp_compact_array", 2}, {"tp_compact_envelope", 2}};
    struct pubkey subject;

    (void)state;
    dht_key(root, "key3", NULL, &subject);
    for (size_t i = 0; i < 4; i++) {
        const char *text = vec_str(values, shapes[i].name);
        struct tp_list l;
        assert_int_equal(tp_decode(&l, &subject, text, strlen(text)), 0);
        assert_int_equal(l.n, shapes[i].n);
        tp_list_free(&l);
    }
}

static void test_others_are_json(void **state)
{
    static const char *const names[] = {"svc_list",    "svc_record", "addr_stcpr",
                                        "addr_record", "fullnode",   "dmsg-server"};

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *text = vec_str(values, names[i]);
        struct json_in in = json_in_init(text, strlen(text));
        json_in_skip(&in);
        assert_int_equal(json_in_end_input(&in), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dmsg),
        cmocka_unit_test(test_tp),
        cmocka_unit_test(test_others_are_json),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
