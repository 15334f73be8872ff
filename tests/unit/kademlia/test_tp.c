#include "kademlia/records/tp.h"

#include "base/err.h"
#include "kademlia/item.h"
#include "tests/unit/kademlia/dht_items.h"

static json_t *root;

static int setup(void **state)
{
    (void)state;
    root = vectors_load("dht");
    return crypto_init();
}

static int teardown(void **state)
{
    (void)state;
    json_decref(root);
    return 0;
}

static void test_transport_ids(void **state)
{
    size_t i;
    const json_t *v;

    (void)state;
    json_array_foreach(vec_get(root, "transport_ids"), i, v)
    {
        struct pubkey a, b;
        char text[TP_ID_TEXT + 1];

        vec_hex(v, "a", &a, sizeof a);
        vec_hex(v, "b", &b, sizeof b);
        struct tp_id id = tp_id_of(&a, &b, vec_str(v, "type"));
        struct tp_id other_way = tp_id_of(&b, &a, vec_str(v, "type"));
        assert_memory_equal(&id, &other_way, sizeof id);
        assert_string_equal(tp_id_text(text, &id), vec_str(v, "id"));
    }
    assert_int_equal(i, 4);
}

static int decode(struct tp_list *l, const char *value)
{
    struct pubkey subject;

    dht_key(root, "key3", NULL, &subject);
    return tp_decode(l, &subject, value, strlen(value));
}

static void assert_entry(const struct tp_entry *e, const json_t *want)
{
    const json_t *edges = json_array_get(want, 1);
    char text[TP_ID_TEXT + 1], hex[PUBKEY_HEX + 1];

    assert_string_equal(tp_id_text(text, &e->id), json_string_value(json_array_get(want, 0)));
    for (size_t i = 0; i < 2; i++)
        assert_string_equal(pubkey_hex(hex, &e->edges[i]),
                            json_string_value(json_array_get(edges, i)));
    assert_string_equal(e->type, json_string_value(json_array_get(want, 2)));
}

static void test_vectors(void **state)
{
    size_t i, j;
    const json_t *v, *want;

    (void)state;
    json_array_foreach(vec_get(root, "tp_decode"), i, v)
    {
        struct pubkey subject;
        struct tp_list l;
        const char *value = vec_str(v, "value");

        vec_hex(v, "subject", &subject, sizeof subject);
        assert_int_equal(tp_decode(&l, &subject, value, strlen(value)), 0);
        assert_int_equal(l.n, json_array_size(vec_get(v, "entries")));
        json_array_foreach(vec_get(v, "entries"), j, want) assert_entry(&l.e[j], want);
        if (strcmp(vec_str(v, "name"), "bare") == 0) {
            assert_string_equal(l.e[0].label, "automatic");
            assert_string_equal(l.e[1].label, "user");
        }
        tp_list_free(&l);
    }
    assert_int_equal(i, 4);
}

static void test_empty(void **state)
{
    size_t i;
    const json_t *v;
    struct tp_list l;

    (void)state;
    json_array_foreach(vec_get(vec_get(root, "values"), "tp_empty"), i, v)
    {
        assert_int_equal(decode(&l, json_string_value(v)), 0);
        assert_int_equal(l.n, 0);
    }
    assert_int_equal(i, 2);
    assert_int_equal(decode(&l, " [ ]\n"), 0);
    tp_list_free(&l);
}

#define KEY0      "034f355bdcb7cc0af728ef3cceb9615d90684bb5b2ca5f859ab0f0b704075871aa"
#define KEY1      "02466d7fcae563e5cb09a0d1870bb580344804617879a14949cf22285f1bae3f27"
#define NULL_KEY  "000000000000000000000000000000000000000000000000000000000000000000"
#define OFF_CURVE "020000000000000000000000000000000000000000000000000000000000000005"
#define EDGES     "\"edges\":[\"" KEY0 "\",\"" KEY1 "\"]"
#define UUID      "cdfb4673-668a-0375-aa39-f4be7b030722"

static void test_refused(void **state)
{
    static const char *const values[] = {
        "",
        "{}",
        "7",
        "\"tp\"",
        "[7]",
        "[{}]",
        "[] x",
        "[{" EDGES "}",
        "[{" EDGES "}]]",
        "[{\"edges\":[\"" KEY0 "\"]}]",
        "[{\"edges\":[\"" KEY0 "\",\"\"]}]",
        "[{\"edges\":[\"" KEY0 "\",\"" OFF_CURVE "\"]}]",
        "[{" EDGES ",\"t_id\":\"cdfb4673\"}]",
        "[{" EDGES ",\"t_id\":\"cdfb4673-668a-0375-aa39-f4be7b03072g\"}]",
        "[{" EDGES ",\"t_id\":\"cdfb4673x668a-0375-aa39-f4be7b030722\"}]",
        "[{" EDGES ",\"type\":7}]",
        "[{" EDGES ",\"type\":\"01234567890123456789012345678901\"}]",
        "[{" EDGES ",\"type\":\"a\\u0000b\"}]",
        "[{\"entry\":{\"edges\":[\"\",\"\"]}}]",
        "[{\"entry\":[]}]",
        "{\"s\":\"" KEY0 "\"}",
        "{\"ts\":[{\"r\":\"" KEY1 "\",\"t\":\"dmsg\"}]}",
        "{\"s\":\"" NULL_KEY "\",\"ts\":[{\"r\":\"" KEY1 "\",\"t\":\"dmsg\"}]}",
        "{\"s\":\"zz\",\"ts\":[{\"r\":\"" KEY1 "\",\"t\":\"dmsg\"}]}",
        "[{\"r\":\"" KEY1 "\",\"t\":\"\"}]",
        "[{\"r\":\"" OFF_CURVE "\",\"t\":\"dmsg\"}]",
        "[{\"r\":\"" KEY1 "\",\"t\":\"dmsg\",\"l\":\"12\"}]",
    };
    struct tp_list l;

    (void)state;
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        if (decode(&l, values[i]) != ERR_FORMAT)
            fail_msg("%s", values[i]);
        assert_null(l.e);
        assert_int_equal(l.n, 0);
    }
    char *big = malloc(ITEM_MAX_VALUE + 2);
    assert_non_null(big);
    memset(big, ' ', ITEM_MAX_VALUE + 1);
    big[ITEM_MAX_VALUE + 1] = '\0';
    memcpy(big, "[]", 2);
    assert_int_equal(decode(&l, big), ERR_TOO_LONG);
    big[ITEM_MAX_VALUE] = '\0';
    assert_int_equal(decode(&l, big), 0);
    free(big);
}

static void test_lenient(void **state)
{
    static const struct {
        const char *value;
        size_t n;
    } cases[] = {
        {"[{\"EDGES\":[\"" KEY0 "\",\"" KEY1 "\",7],\"latency\":{},\"bandwidth\":1}]", 1},
        {"[{" EDGES "},{\"edges\":null},null,{\"edges\":[]},{" EDGES "}]", 2},
        {"[{" EDGES ",\"t_id\":\"{" UUID "}\"}]", 1},
        {"[{" EDGES ",\"t_id\":\"URN:uuid:" UUID "\"}]", 1},
        {"[{" EDGES ",\"t_id\":\"CDFB4673668A0375AA39F4BE7B030722\"}]", 1},
        {"[{\"entry\":{" EDGES "}},{\"entry\":{}}]", 1},
        {"{\"ts\":[{\"r\":\"" KEY1 "\",\"t\":\"dmsg\",\"b\":9,\"l\":null}],\"s\":\"" KEY0 "\"}", 1},
        {"[{\"r\":\"" KEY1 "\",\"t\":\"dmsg\"},{\"r\":\"" KEY1 "\"},{\"r\":\"x\",\"t\":\"dmsg\"},"
         "{\"t\":\"dmsg\"},{}]",
         1},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct tp_list l;
        if (decode(&l, cases[i].value) != 0)
            fail_msg("%s", cases[i].value);
        assert_int_equal(l.n, cases[i].n);
        for (size_t j = 0; j < l.n; j++)
            assert_false(pubkey_is_null(&l.e[j].edges[0]) || pubkey_is_null(&l.e[j].edges[1]));
        tp_list_free(&l);
    }
    struct tp_list l;
    char text[TP_ID_TEXT + 1];
    for (size_t i = 2; i < 5; i++) {
        assert_int_equal(decode(&l, cases[i].value), 0);
        assert_string_equal(tp_id_text(text, &l.e[0].id), UUID);
        tp_list_free(&l);
    }
}

/* The largest list that fits a value: nothing is lost on the way. */
static void test_many(void **state)
{
    const char *row = "{\"r\":\"" KEY1 "\",\"t\":\"t\"}";
    size_t n = (ITEM_MAX_VALUE - 2) / (strlen(row) + 1);
    char *value = malloc(ITEM_MAX_VALUE + 1), *p = value;
    struct tp_list l;

    (void)state;
    assert_non_null(value);
    for (size_t i = 0; i < n; i++)
        p += sprintf(p, "%c%s", i == 0 ? '[' : ',', row);
    strcpy(p, "]");
    assert_int_equal(decode(&l, value), 0);
    assert_int_equal(l.n, n);
    assert_memory_equal(&l.e[0], &l.e[n - 1], sizeof l.e[0]);
    tp_list_free(&l);
    free(value);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_transport_ids), cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_empty),         cmocka_unit_test(test_refused),
        cmocka_unit_test(test_lenient),       cmocka_unit_test(test_many),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
