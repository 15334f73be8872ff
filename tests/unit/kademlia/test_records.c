/* Values of the namespaces: recorded ones are read, written again byte by byte, and checked against
 * the key whose slot they are in. */
#include <stdio.h>

#include "base/err.h"
#include "base/hex.h"
#include "kademlia/item.h"
#include "kademlia/records/dmsg_server.h"
#include "kademlia/records/fullnode.h"
#include "kademlia/records/ns.h"
#include "kademlia/records/svc.h"
#include "kademlia/records/tp_chunks.h"
#include "kademlia/records/visor_addr.h"
#include "tests/unit/kademlia/dht_items.h"
#include "tests/unit/prop.h"

static json_t *root;
static const json_t *values;
static struct pubkey key0, key1, key3;

static int setup(void **state)
{
    (void)state;
    root = vectors_load("dht");
    values = vec_get(root, "values");
    dht_key(root, "key0", NULL, &key0);
    dht_key(root, "key1", NULL, &key1);
    dht_key(root, "key3", NULL, &key3);
    return crypto_init();
}

static int teardown(void **state)
{
    (void)state;
    json_decref(root);
    return 0;
}

static int check(const struct pubkey *subject, const char *salt, const char *v)
{
    return ns_check(subject, salt, strlen(salt), v, strlen(v), 0);
}

static void assert_text(const char *p, size_t n, const char *want)
{
    assert_int_equal(n, strlen(want));
    assert_memory_equal(p, want, n);
}

/* ---- which namespace ---- */

static void test_salts(void **state)
{
    static const struct {
        const char *salt;
        enum ns ns;
    } cases[] = {
        {"dmsg", NS_DMSG},
        {"tp", NS_TP},
        {"tp:1", NS_TP},
        {"tp:63", NS_TP},
        {"svc", NS_SVC},
        {"svc:vpn", NS_SVC},
        {"addr:stcpr", NS_ADDR_STCPR},
        {"addr:sudph", NS_ADDR_SUDPH},
        {"fullnode", NS_FULLNODE},
        {"dmsg-server", NS_DMSG_SERVER},
        {"", NS_OPAQUE},
        {"addr", NS_OPAQUE},
        {"svc:", NS_OPAQUE},
        {"tp:", NS_OPAQUE},
        {"tp:0", NS_OPAQUE},
        {"tp:01", NS_OPAQUE},
        {"tp:x", NS_OPAQUE},
        {"tp:1000", NS_OPAQUE},
        {"TP", NS_OPAQUE},
        {"dmsg ", NS_OPAQUE},
        {"d", NS_OPAQUE},
        {"chat", NS_OPAQUE},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(ns_of(cases[i].salt, strlen(cases[i].salt)), cases[i].ns);
    for (int i = NS_DMSG; i < NS__COUNT; i++) {
        const char *name = ns_name((enum ns)i);
        assert_int_equal(ns_of(name, strlen(name)), i);
        assert_int_equal(ns_by_name(name, strlen(name)), i);
        const char *dead = ns_tombstone(name, strlen(name));
        assert_int_equal(ns_is_tombstone(name, strlen(name), dead, strlen(dead)), i != NS_TP);
    }
    assert_int_equal(ns_by_name("opaque", 6), NS_OPAQUE);
    assert_int_equal(ns_by_name("nothing", 7), NS__COUNT);
    assert_int_equal(ns_of("dmsg\0", 5), NS_OPAQUE);
}

/* What deletes what: nothing else is a tombstone, and under an opaque salt nothing is. */
static void test_tombstones(void **state)
{
    static const struct {
        const char *salt, *v;
        bool dead;
    } cases[] = {
        {"dmsg", "{}", true},         {"dmsg", " { }\n", true}, {"dmsg", "[]", false},
        {"dmsg", "{\"a\":1}", false}, {"svc:vpn", "{}", true},  {"svc", "[]", true},
        {"svc", "null", true},        {"svc", "[{}]", false},   {"tp", "[]", false},
        {"tp:1", "[]", true},         {"tp:2", "null", true},   {"tp:1", "{}", false},
        {"addr:stcpr", "{}", true},   {"fullnode", "{}", true}, {"dmsg-server", "{}", true},
        {"x", "{}", false},           {"", "null", false},      {"dmsg", "", false},
        {"dmsg", "{}x", false},       {"svc", "[]]", false},    {"addr:sudph", "null", true},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *s = cases[i].salt, *v = cases[i].v;
        assert_int_equal(ns_is_tombstone(s, strlen(s), v, strlen(v)), cases[i].dead);
        if (cases[i].dead)
            assert_int_equal(check(&key0, s, v), ERR_NOT_FOUND);
    }
}

/* ---- dmsg ---- */

static void test_dmsg(void **state)
{
    const char *text = vec_str(values, "dmsg_client");
    char *bad = strdup(text);

    (void)state;
    assert_int_equal(check(&key1, "dmsg", text), 0);
    assert_int_equal(check(&key0, "dmsg", text), ERR_REFUSED);
    assert_int_equal(check(&key1, "dmsg", "[1]"), ERR_FORMAT);
    strstr(bad, "\"sequence\":0")[11] = '1';
    assert_int_equal(check(&key1, "dmsg", bad), ERR_SIG);
    free(bad);
}

/* ---- tp ---- */

static struct tp_list many(const struct pubkey *subject, size_t n, const char *label)
{
    struct tp_list l = {.e = calloc(n + 1, sizeof *l.e), .n = n};

    for (size_t i = 0; i < n; i++) {
        struct tp_entry *e = &l.e[i];
        struct pubkey other = key0;
        bool swap = pubkey_cmp(subject, &other) > 0;
        snprintf(e->type, sizeof e->type, "t%zu", i);
        snprintf(e->label, sizeof e->label, "%s", label);
        e->edges[0] = swap ? other : *subject;
        e->edges[1] = swap ? *subject : other;
        e->id = tp_id_of(subject, &other, e->type);
    }
    return l;
}

/* Read the chunks as a reader does: from the first one on until there is no more. */
static size_t join(struct tp_join *j, const struct tp_chunks *c, const struct pubkey *subject)
{
    bool more = true;
    size_t i = 0;

    *j = (struct tp_join){.next = 0};
    for (; more && i < c->n; i++)
        assert_int_equal(tp_join_add(j, subject, c->v[i].text, c->v[i].n, &more), 0);
    return i;
}

static void test_tp_bytes(void **state)
{
    const char *text = vec_str(values, "tp_bare");
    struct tp_list l;
    struct tp_chunks c;

    (void)state;
    assert_int_equal(tp_decode(&l, &key3, text, strlen(text)), 0);
    assert_int_equal(tp_split(&c, &l, 0), 0);
    assert_int_equal(c.n, 1);
    assert_text(c.v[0].text, c.v[0].n, text);
    assert_int_equal(check(&key3, "tp", text), 0);
    assert_int_equal(check(&key0, "tp", text), ERR_REFUSED);
    assert_int_equal(check(&key0, "tp", "[]"), 0); /* no transports at present */
    tp_chunks_free(&c);
    tp_list_free(&l);
}

/* Incident 55: 2000 transports are published completely, or the publisher is told. */
static void test_tp_chunks_incident_55(void **state)
{
    static const size_t sizes[] = {0, 1, 199, 200, 201, 400, 2000};

    (void)state;
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        struct tp_list l = many(&key3, sizes[s], "automatic");
        struct tp_chunks c;
        struct tp_join j;
        char salt[TP_SALT_MAX];

        assert_int_equal(tp_split(&c, &l, 0), 0);
        assert_int_equal(c.used, sizes[s] == 0 ? 1 : (sizes[s] + 199) / 200);
        assert_int_equal(c.n, c.used);
        for (size_t i = 0; i < c.n; i++) {
            assert_true(c.v[i].n <= ITEM_MAX_VALUE);
            assert_int_equal(tp_salt_chunk(salt, strlen(tp_salt(salt, i))), i);
        }
        join(&j, &c, &key3);
        assert_int_equal(j.list.n, sizes[s]);
        if (sizes[s] > 0)
            assert_memory_equal(j.list.e, l.e, sizes[s] * sizeof *l.e);
        tp_join_free(&j);
        tp_chunks_free(&c);
        tp_list_free(&l);
    }
    struct tp_list l = many(&key3, TP_CHUNKS_MAX * TP_CHUNK_SIZE + 1, "x");
    struct tp_chunks c;
    assert_int_equal(tp_split(&c, &l, 0), ERR_TOO_LONG);
    assert_int_equal(c.n, 0);
    tp_list_free(&l);
}

/* A list that shrank: tombstones over what the last one left, and a reader ends there. */
static void test_tp_shrinks(void **state)
{
    struct tp_list l = many(&key3, 250, "");
    struct tp_chunks c;
    struct tp_join j;

    (void)state;
    assert_int_equal(tp_split(&c, &l, 4), 0);
    assert_int_equal(c.used, 2);
    assert_int_equal(c.n, 4);
    assert_text(c.v[2].text, c.v[2].n, "[]");
    assert_text(c.v[3].text, c.v[3].n, "[]");
    assert_int_equal(join(&j, &c, &key3), 3);
    assert_int_equal(j.list.n, 250);
    tp_join_free(&j);
    tp_chunks_free(&c);
    tp_list_free(&l);
}

/* The longest texts, all of it escapes: chunks get smaller, nothing is lost. */
static void test_tp_long_texts(void **state)
{
    struct tp_list l = many(&key3, 500, "<<<<<<<<<<<<<<<<<<<<<<<<<<<<<<<");
    struct tp_chunks c;
    struct tp_join j;

    (void)state;
    assert_int_equal(tp_split(&c, &l, 0), 0);
    for (size_t i = 0; i < c.n; i++)
        assert_true(c.v[i].n <= ITEM_MAX_VALUE);
    join(&j, &c, &key3);
    assert_int_equal(j.list.n, 500);
    assert_string_equal(j.list.e[499].label, l.e[499].label);
    tp_join_free(&j);
    tp_chunks_free(&c);
    tp_list_free(&l);
}

/* Somebody else's transports in the list do not become the subject's. */
static void test_tp_strangers(void **state)
{
    struct tp_list l = many(&key1, 3, "x");
    struct tp_chunks c;
    struct tp_join j;

    (void)state;
    assert_int_equal(tp_split(&c, &l, 0), 0);
    join(&j, &c, &key3);
    assert_int_equal(j.list.n, 0);
    tp_join_free(&j);
    tp_chunks_free(&c);
    tp_list_free(&l);
}

/* ---- svc ---- */

static void test_svc(void **state)
{
    const char *text = vec_str(values, "svc_list");
    struct svc_list l;
    char *out = NULL;
    size_t n = 0;

    (void)state;
    assert_int_equal(svc_decode(&l, text, strlen(text)), 0);
    assert_int_equal(l.n, 2);
    assert_int_equal(l.e[0].port, 44);
    assert_string_equal(l.e[0].type, "vpn");
    assert_string_equal(l.e[1].version, "v1.3.50");
    assert_int_equal(svc_encode(&out, &n, l.e, l.n), 0);
    assert_text(out, n, text);
    free(out);
    assert_int_equal(svc_check(&l, &key3), 0);
    assert_int_equal(svc_check(&l, &key0), ERR_REFUSED);
    svc_list_free(&l);
    assert_int_equal(svc_encode(&out, &n, NULL, 0), 0);
    assert_text(out, n, "[]");
    free(out);

    text = vec_str(values, "svc_record");
    assert_int_equal(svc_decode(&l, text, strlen(text)), 0);
    assert_int_equal(l.n, 1);
    assert_int_equal(l.e[0].port, 44);
    assert_true(pubkey_equal(&l.e[0].pk, &key3));
    svc_list_free(&l);
    assert_int_equal(check(&key3, "svc:vpn", text), 0);
    assert_int_equal(check(&key1, "svc:vpn", text), ERR_REFUSED);
}

/* What the service adds is handed through as it stands. */
static void test_svc_raw(void **state)
{
    char text[512], hex[PUBKEY_HEX + 1];
    struct svc_list l;
    char *out = NULL;
    size_t n = 0;

    (void)state;
    snprintf(text, sizeof text,
             "[{\"address\":\"%s:65535\",\"type\":\"visor\",\"geo\":{\"lat\":1.5,\"country\":"
             "\"XX\"},\"display_node_ip\":true,\"version\":\"v1\",\"local_ips\":[\"10.0.0.1\"],"
             "\"info\":{\"latency\":3}}]",
             pubkey_hex(hex, &key0));
    assert_int_equal(svc_decode(&l, text, strlen(text)), 0);
    assert_int_equal(l.e[0].port, 65535);
    assert_int_equal(svc_encode(&out, &n, l.e, l.n), 0);
    assert_text(out, n, text);
    free(out);
    svc_list_free(&l);
}

static void test_svc_refused(void **state)
{
    static const char *const bad[] = {
        "7",
        "\"x\"",
        "[7]",
        "[{\"address\":\"x:1\"}]",
        "[{\"geo\":[]}]",
        "[{\"local_ips\":{}}]",
        "[{\"info\":7}]",
        "[{\"port\":65536}]",
        "[{\"type\":\"12345678901234567890123456789012\"}]",
        "[{}",
        "{} {}",
    };
    struct svc_list l;
    char hex[PUBKEY_HEX + 1], text[256];

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(svc_decode(&l, bad[i], strlen(bad[i])), ERR_FORMAT);
        assert_null(l.e);
    }
    static const char *const ports[] = {":65536", ":-1", ":1x", ":0000001"};
    for (size_t i = 0; i < 4; i++) {
        snprintf(text, sizeof text, "[{\"address\":\"%s%s\"}]", pubkey_hex(hex, &key0), ports[i]);
        assert_int_equal(svc_decode(&l, text, strlen(text)), ERR_FORMAT);
    }
    snprintf(text, sizeof text, "[{\"address\":\"%s\"}]", pubkey_hex(hex, &key0));
    assert_int_equal(svc_decode(&l, text, strlen(text)), 0); /* no port is port 0 */
    assert_int_equal(svc_check(&l, &key0), ERR_FORMAT);      /* and no type is no service */
    svc_list_free(&l);
}

/* ---- addr ---- */

static void test_addr(void **state)
{
    static const char *const texts[] = {
        "{\"remote_addr\":\"8.8.4.4\",\"port\":\"7777\",\"addresses\":[\"192.168.1.5\",\"8.8.4.4\"]"
        "}",
        "{\"remote_addr\":\"8.8.4.4:9\",\"remote_addr_v6\":\"2001:db8::1\",\"is_local\":true,"
        "\"port\":\"1\",\"addresses\":null,\"public_ip\":\"9.9.9.9\",\"public_ip_v6\":\"2001:db8::"
        "2\","
        "\"cert_hash\":\"ab\"}",
        "{\"remote_addr\":\"\",\"port\":\"65535\",\"addresses\":[\"x\"]}",
    };
    struct visor_addr a;
    char out[VISOR_ADDR_MAX_TEXT];
    size_t n = 0;

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(visor_addr_decode(&a, texts[i], strlen(texts[i])), 0);
        assert_int_equal(visor_addr_check(&a), 0);
        assert_int_equal(visor_addr_encode(out, sizeof out, &n, &a), 0);
        assert_text(out, n, texts[i]);
    }
    const char *text = vec_str(values, "addr_stcpr");
    assert_int_equal(visor_addr_decode(&a, text, strlen(text)), 0);
    assert_int_equal(a.n_addresses, 1);
    assert_int_equal(visor_addr_encode(out, sizeof out, &n, &a), 0);
    assert_text(out, n, text);
    assert_int_equal(visor_addr_encode(out, n - 1, &n, &a), ERR_TOO_LONG);
    assert_int_equal(check(&key0, "addr:stcpr", text), 0);
    assert_int_equal(check(&key0, "addr:sudph", "{\"port\":\"1\"}"), ERR_FORMAT);
    assert_int_equal(check(&key0, "addr:sudph", "{\"remote_addr\":\"a\",\"port\":\"0\"}"),
                     ERR_FORMAT);
    assert_int_equal(check(&key0, "addr:sudph", "{\"remote_addr\":\"a\",\"port\":\"65536\"}"),
                     ERR_FORMAT);
    assert_int_equal(check(&key0, "addr:sudph", "[]"), ERR_FORMAT);
}

static void test_addr_many(void **state)
{
    char text[4096] = "{\"addresses\":[\"a\"";
    struct visor_addr a;

    (void)state;
    for (int i = 1; i < VISOR_ADDR_MAX_ADDRESSES; i++)
        strcat(text, ",\"a\"");
    size_t n = strlen(text);
    strcat(text, "]}");
    assert_int_equal(visor_addr_decode(&a, text, strlen(text)), 0);
    assert_int_equal(a.n_addresses, VISOR_ADDR_MAX_ADDRESSES);
    strcpy(text + n, ",\"a\"]}");
    assert_int_equal(visor_addr_decode(&a, text, strlen(text)), ERR_TOO_LONG);
    assert_int_equal(a.n_addresses, 0);
}

/* ---- fullnode, dmsg-server ---- */

static void test_fullnode(void **state)
{
    const char *text = vec_str(values, "fullnode");
    struct fullnode_rec r;
    char out[FULLNODE_MAX_TEXT];
    size_t n = 0;

    (void)state;
    assert_int_equal(fullnode_decode(&r, text, strlen(text)), 0);
    assert_int_equal(r.stored_items, 3562);
    assert_int_equal(fullnode_encode(out, sizeof out, &n, &r), 0);
    assert_text(out, n, text);
    assert_int_equal(fullnode_check(&r, &r.pk, r.ts), 0);
    assert_int_equal(fullnode_check(&r, &r.pk, r.ts + FULLNODE_FRESH_NS), 0);
    assert_int_equal(fullnode_check(&r, &r.pk, r.ts + FULLNODE_FRESH_NS + 1), ERR_TIMEOUT);
    assert_int_equal(fullnode_check(&r, &r.pk, r.ts - FULLNODE_FRESH_NS - 1), ERR_TIMEOUT);
    assert_int_equal(fullnode_check(&r, &key1, r.ts), ERR_REFUSED);
    r.full_node = false;
    assert_int_equal(fullnode_check(&r, &r.pk, r.ts), ERR_NOT_FOUND);
    assert_int_equal(fullnode_decode(&r, "{\"pk\":[1]}", 10), ERR_FORMAT);
    assert_int_equal(fullnode_decode(&r, "null", 4), ERR_FORMAT);
    struct fullnode_rec longest = {.stored_items = UINT64_MAX, .full_node = false, .ts = INT64_MIN};
    assert_int_equal(fullnode_encode(out, sizeof out, &n, &longest), 0);
}

static void test_dmsg_server(void **state)
{
    const char *text = vec_str(values, "dmsg-server");
    struct dmsg_server_rec r;
    static char out[DMSG_SERVER_MAX_TEXT];
    size_t n = 0;

    (void)state;
    assert_int_equal(dmsg_server_decode(&r, text, strlen(text)), 0);
    assert_string_equal(r.address, "203.0.113.9:8081");
    assert_true(r.dht_bootstrap);
    assert_int_equal(r.max_sessions, 2048);
    assert_int_equal(dmsg_server_encode(out, sizeof out, &n, &r), 0);
    assert_text(out, n, text);
    assert_int_equal(dmsg_server_check(&r, &r.pk), 0);
    assert_int_equal(dmsg_server_check(&r, &key0), ERR_REFUSED);
    for (int i = 0; i < DMSG_SERVER_MAX_PEERS; i++) {
        r.peers[i].pk = key1;
        snprintf(r.peers[i].address, sizeof r.peers[i].address, "relay-%d.example:1", i);
    }
    r.n_peers = DMSG_SERVER_MAX_PEERS;
    assert_int_equal(dmsg_server_encode(out, sizeof out, &n, &r), 0);
    struct dmsg_server_rec again;
    assert_int_equal(dmsg_server_decode(&again, out, n), 0);
    assert_memory_equal(&again, &r, sizeof r);
    static const char *const bad[] = {"[]", "null", "{\"address\":5}", "{\"server_type\":[5]}",
                                      "{\"pk\":\"zz\"}"};
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(dmsg_server_decode(&r, bad[i], strlen(bad[i])), ERR_FORMAT);
    assert_int_equal(check(&key0, "dmsg-server", "{\"address\":\"x\"}"), ERR_FORMAT);
    assert_int_equal(check(&key0, "dmsg-server", "{\"address\":\"x:1\"}"), 0);
    assert_int_equal(
        check(&key0, "dmsg-server", "{\"address\":\"x:1\",\"server_type\":\"public\"}"), 0);
}

static void test_opaque(void **state)
{
    (void)state;
    assert_int_equal(check(&key0, "chat", "\xff\x00"), 0);
    assert_int_equal(check(&key0, "", ""), 0);
    assert_int_equal(check(&key0, "addr", "{}"), 0);
}

/* Any bytes under any salt: an answer, and what decodes writes and reads again as the same. */
static void test_random_bytes(void **state)
{
    static const char *const samples[] = {"svc_list",    "addr_stcpr", "fullnode",
                                          "dmsg-server", "tp_bare",    "dmsg_client"};
    static const char *const salts[] = {"svc",         "addr:stcpr", "fullnode",
                                        "dmsg-server", "tp",         "dmsg"};
    struct prop r = prop_init("values of the namespaces");

    (void)state;
    for (int i = 0; i < 3000; i++) {
        size_t which = prop_below(&r, 6);
        const char *text = vec_str(values, samples[which]);
        size_t n = strlen(text);
        char *copy = malloc(n + 1);
        memcpy(copy, text, n + 1);
        for (size_t k = prop_below(&r, 4); k > 0; k--)
            copy[prop_below(&r, n)] = (char)prop_below(&r, 256);
        n -= prop_below(&r, 4) == 0 ? prop_below(&r, n) : 0;
        int rc = ns_check(&key3, salts[which], strlen(salts[which]), copy, n, 0);
        if (ns_is_tombstone(salts[which], strlen(salts[which]), copy, n))
            assert_int_equal(rc, ERR_NOT_FOUND);
        free(copy);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_salts),
        cmocka_unit_test(test_tombstones),
        cmocka_unit_test(test_dmsg),
        cmocka_unit_test(test_tp_bytes),
        cmocka_unit_test(test_tp_chunks_incident_55),
        cmocka_unit_test(test_tp_shrinks),
        cmocka_unit_test(test_tp_long_texts),
        cmocka_unit_test(test_tp_strangers),
        cmocka_unit_test(test_svc),
        cmocka_unit_test(test_svc_raw),
        cmocka_unit_test(test_svc_refused),
        cmocka_unit_test(test_addr),
        cmocka_unit_test(test_addr_many),
        cmocka_unit_test(test_fullnode),
        cmocka_unit_test(test_dmsg_server),
        cmocka_unit_test(test_opaque),
        cmocka_unit_test(test_random_bytes),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
