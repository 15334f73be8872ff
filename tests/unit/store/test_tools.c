#include "store/tools.h"

#include <stdio.h>
#include <unistd.h>

#include "store/row.h"
#include "tests/unit/kademlia/dht_items.h"
#include "tests/unit/store/stores.h"
#include "transport/entry.h"

static struct store *s;
static struct seckey sk[2];
static struct pubkey pk[2];

static int setup_all(void **state)
{
    (void)state;
    if (crypto_init() != 0)
        return -1;
    return crypto_keypair_from_seed(&sk[0], &pk[0], (const uint8_t *)"one", 3) |
           crypto_keypair_from_seed(&sk[1], &pk[1], (const uint8_t *)"two", 3);
}

static int setup(void **state)
{
    (void)state;
    stores_dir();
    s = stores_open();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    S(s)->close(s);
    stores_remove();
    return 0;
}

static struct store_rec rec_of(const struct item_ref *r)
{
    return (struct store_rec){.target = item_target(&r->item),
                              .item = r->item,
                              .stored_ns = 1700000000000000000,
                              .expires_ns = 1700000007200000000,
                              .origin = STORE_REPLICA,
                              .charged = r->item.k};
}

static void put_signed(unsigned key, const char *salt, uint64_t seq, const char *v)
{
    struct item_ref *r = dht_item(&sk[key], seq, salt, v);
    struct store_rec rec = rec_of(r);

    assert_int_equal(S(s)->put(s, &rec), 0);
    item_ref_put(r);
}

/* The entry of key 0, carried by key 1. */
static struct item_ref *make_cert(struct store_rec *rec)
{
    struct entry *e;
    struct hash digest;
    struct sig sig;

    assert_int_equal(entry_new_client(&e, &pk[0], 3, 1700000000123456789, &pk[1], 1, ""), 0);
    assert_int_equal(entry_digest(&digest, e), 0);
    assert_int_equal(crypto_sign_digest(&sig, &sk[0], &digest), 0);
    assert_int_equal(entry_set_signature(e, &sig), 0);
    struct item it = {.seq = 3,
                      .salt = (const uint8_t *)"dmsg",
                      .salt_len = 4,
                      .v = (const uint8_t *)e->text,
                      .v_len = e->text_len};
    assert_int_equal(item_sign(&it, &sk[1]), 0);
    struct item_ref *r = item_ref_new(&it);
    *rec = rec_of(r);
    rec->target = kad_target(&pk[0], "dmsg", 4);
    rec->kind = ITEM_CERT;
    rec->charged = pk[0];
    rec->rank_time = e->timestamp_ns;
    rec->rank_seq = e->sequence;
    entry_free(e);
    return r;
}

/* One record of every sort. */
static void fill(void)
{
    struct store_rec rec;
    struct item_ref *r;

    put_signed(0, "", 0, "");
    put_signed(0, "dmsg", UINT64_MAX, "{\"a\":\"<&>\"}");
    put_signed(1, "tp", 5, NULL);
    r = dht_item(&sk[1], 7, "\x01\xff\n\"", "\xff\xfe binary");
    rec = rec_of(r);
    rec.expires_ns = INT64_MAX;
    rec.tier = ITEM_TIER_WHITELISTED;
    rec.origin = STORE_OWN;
    assert_int_equal(S(s)->put(s, &rec), 0);
    rec.kind = ITEM_MIRROR;
    rec.target = kad_target(&pk[0], "svc", 3);
    rec.origin = STORE_CACHE;
    rec.tier = ITEM_TIER_TRUSTED;
    rec.stored_ns = -5;
    assert_int_equal(S(s)->put(s, &rec), 0);
    item_ref_put(r);
    r = make_cert(&rec);
    assert_int_equal(S(s)->put(s, &rec), 0);
    item_ref_put(r);
    assert_int_equal(S(s)->meta_put(s, "seq", "12345678", 8), 0);
    assert_int_equal(S(s)->sync(s, 60000), 0);
}

static char *dump(size_t *n)
{
    char *text;
    struct store_dump_report report;
    FILE *f = open_memstream(&text, n);

    assert_int_equal(store_tool_dump(s, f, &report), 0);
    fclose(f);
    assert_int_equal(report.damaged, 0);
    return text;
}

static int load(const char *text, struct store_load_report *report, char errors[4096])
{
    FILE *in = fmemopen((void *)text, strlen(text), "r");
    FILE *err = fmemopen(errors, 4096, "w");
    int rc = store_tool_load(s, in, err, report);

    fclose(in);
    fclose(err);
    return rc;
}

static void reopen_empty(void)
{
    S(s)->close(s);
    stores_remove();
    stores_dir();
    s = stores_open();
}

static void assert_sound(uint64_t records)
{
    struct store_verify_report report;

    assert_int_equal(store_tool_verify(s, stderr, &report), 0);
    assert_int_equal(report.records, records);
    assert_int_equal(report.damaged, 0);
}

static void test_dump_and_load(void **state)
{
    size_t n, m;
    char *first, *second, errors[4096] = "";
    struct store_load_report report;

    (void)state;
    fill();
    assert_sound(6);
    first = dump(&n);
    reopen_empty();
    assert_int_equal(load(first, &report, errors), 0);
    assert_int_equal(report.lines, 6);
    assert_int_equal(report.stored, 6);
    assert_string_equal(errors, "");
    assert_sound(6);
    second = dump(&m);
    assert_string_equal(first, second);
    free(second);
    /* Again: nothing is newer. */
    assert_int_equal(load(first, &report, errors), 0);
    assert_int_equal(report.older, 6);
    assert_int_equal(report.stored, 0);
    free(first);
}

/* Longer than a piece, with several kinds under one target where pieces end. */
static void test_long_dump(void **state)
{
    static char v[60000];
    size_t n, lines = 0;
    struct store_rec rec = {.origin = STORE_REPLICA};

    (void)state;
    memset(v, 'v', sizeof v);
    for (unsigned i = 0; i < 200; i++) {
        rec.item = (struct item){.k = pk[0], .seq = i, .v = (uint8_t *)v, .v_len = sizeof v};
        rec.target.b[0] = (uint8_t)(i / 3);
        rec.kind = (enum item_kind)(i % 3);
        rec.rank_seq = rec.kind == ITEM_CERT;
        rec.charged = pk[0];
        assert_int_equal(S(s)->put(s, &rec), 0);
    }
    char *text = dump(&n);
    for (char *at = text; (at = strchr(at, '\n')) != NULL; at++, lines++) {
        char want[40];
        if (at[1] == '\0')
            continue;
        snprintf(want, sizeof want, "\n{\"target\":\"%02zx00", (lines + 1) / 3);
        assert_memory_equal(at, want, strlen(want));
    }
    assert_int_equal(lines, 200);
    free(text);
}

/* Members and their order are a promise. */
static void test_dump_text(void **state)
{
    size_t n;
    char *text, want[1024], sig[SIG_HEX + 1], key[PUBKEY_HEX + 1], target[KAD_ID_HEX + 1];
    struct item_ref *r = dht_item(&sk[0], 5, "tp", "hi");
    struct store_rec rec = rec_of(r);

    (void)state;
    assert_int_equal(S(s)->put(s, &rec), 0);
    text = dump(&n);
    for (size_t i = 0; i < SIG_BYTES; i++)
        snprintf(sig + 2 * i, 3, "%02x", r->item.sig.b[i]);
    pubkey_hex(key, &pk[0]);
    snprintf(want, sizeof want,
             "{\"target\":\"%s\",\"kind\":\"owner\",\"k\":\"%s\",\"seq\":5,\"sig\":\"%s\","
             "\"v\":\"aGk=\",\"salt\":\"dHA=\",\"stored_ns\":1700000000000000000,"
             "\"expires_ns\":1700000007200000000,\"tier\":\"public\",\"origin\":\"replica\","
             "\"charged\":\"%s\",\"rank_time\":0,\"rank_seq\":0}\n",
             kad_id_hex(target, &rec.target), key, sig, key);
    assert_string_equal(text, want);
    free(text);
    item_ref_put(r);
}

static void test_load_never_lowers(void **state)
{
    size_t n;
    char *old, errors[4096] = "";
    struct store_load_report report;
    struct store_rec out;
    const struct kad_id target = kad_target(&pk[0], "tp", 2);

    (void)state;
    put_signed(0, "tp", 5, "old");
    old = dump(&n);
    put_signed(0, "tp", 6, "new");
    assert_int_equal(load(old, &report, errors), 0);
    assert_int_equal(report.older, 1);
    assert_int_equal(S(s)->get(s, &target, ITEM_OWNER, &out), 0);
    assert_int_equal(out.item.seq, 6);
    free(old);
}

/* Change one character of a dump behind `after`. */
static void spoil(char *text, const char *after)
{
    char *at = strstr(text, after);

    assert_non_null(at);
    at += strlen(after) + 9;
    *at = *at == '1' ? '2' : '1';
}

static void test_load_refuses(void **state)
{
    static const char *const members[] = {"\"target\":", "\"sig\":", "\"k\":"};
    static const char *const lines[] = {
        "not json", "{}", "[1,2]", "{\"target\":\"zz\"}", "null", "{\"v\":\"####\"}", "\"x\"",
    };
    size_t n;
    char *good, errors[4096] = "";
    struct store_load_report report;

    (void)state;
    put_signed(0, "tp", 5, "the value that is signed");
    good = dump(&n);
    reopen_empty();
    for (size_t i = 0; i < 3; i++) {
        char *bad = strdup(good);
        spoil(bad, members[i]);
        assert_int_equal(load(bad, &report, errors), ERR_FORMAT);
        assert_int_equal(report.refused, 1);
        assert_int_equal(strncmp(errors, "line 1: ", 8), 0);
        free(bad);
    }
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        char both[4096];
        snprintf(both, sizeof both, "%s\n\n%s", lines[i], i == 6 ? good : "");
        assert_int_equal(load(both, &report, errors), ERR_FORMAT);
        assert_int_equal(report.refused, 1);
        assert_string_equal(errors, "line 1: not a record\n");
        assert_int_equal(report.stored, i == 6);
    }
    char *endless = malloc(400001);
    memset(endless, '[', 400000);
    endless[400000] = '\0';
    assert_int_equal(load(endless, &report, errors), ERR_FORMAT);
    assert_int_equal(report.refused, 1);
    free(endless);
    free(good);
    assert_sound(1);
}

/* A carried entry counts only in its subject's slot, with the rank that it states. */
static void test_cert_check(void **state)
{
    struct store_rec rec, bad;
    struct item_ref *r = make_cert(&rec);

    (void)state;
    assert_int_equal(store_record_check(&rec), 0);
    bad = rec;
    bad.target.b[0] ^= 1;
    assert_int_equal(store_record_check(&bad), ERR_REFUSED);
    bad = rec;
    bad.rank_time++;
    assert_int_equal(store_record_check(&bad), ERR_REFUSED);
    bad = rec;
    bad.rank_seq++;
    assert_int_equal(store_record_check(&bad), ERR_REFUSED);
    bad = rec;
    bad.charged = pk[1];
    assert_int_equal(store_record_check(&bad), ERR_REFUSED);
    bad = rec;
    bad.kind = ITEM_OWNER;
    assert_int_equal(store_record_check(&bad), ERR_REFUSED);
    bad.item.sig.b[3] ^= 1;
    assert_int_equal(store_record_check(&bad), ERR_SIG);
    item_ref_put(r);
    r = dht_item(&sk[1], 1, "dmsg", "{}");
    bad = rec;
    bad.item = r->item;
    assert_int_equal(store_record_check(&bad), ERR_REFUSED);
    item_ref_put(r);
}

static void test_stat(void **state)
{
    char *text;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    json_error_t err;

    (void)state;
    fill();
    assert_int_equal(store_tool_stat(s, f, true), 0);
    fflush(f);
    json_t *o = json_loadb(text, n, 0, &err);
    assert_non_null(o);
    assert_int_equal(vec_int(o, "items"), 6);
    assert_int_equal(vec_int(o, "schema"), DB_SCHEMA);
    assert_int_equal(vec_int(o, "publishers"), 2);
    assert_int_equal(vec_int(vec_get(o, "by_tier"), "public"), 4);
    assert_int_equal(vec_int(vec_get(o, "by_tier"), "whitelisted"), 1);
    assert_int_equal(vec_int(vec_get(o, "by_origin"), "cache"), 1);
    assert_int_equal(vec_int(o, "map_bytes"), 1 << 30);
    json_decref(o);
    fclose(f);
    free(text);
    f = open_memstream(&text, &n);
    assert_int_equal(store_tool_stat(s, f, false), 0);
    fclose(f);
    assert_non_null(strstr(text, "items         6 "));
    free(text);
}

/* ---- verify ---- */

static MDB_txn *begin(const struct db **db)
{
    MDB_txn *txn;

    *db = store_lmdb_db(s);
    assert_int_equal(mdb_txn_begin((*db)->env, NULL, 0, &txn), 0);
    return txn;
}

/* verify finds exactly this, and dump and stat survive it. */
static void assert_found(const char *what)
{
    char *text;
    size_t n;
    struct store_verify_report report;
    FILE *f = open_memstream(&text, &n);

    assert_int_equal(store_tool_verify(s, f, &report), ERR_CORRUPT);
    fclose(f);
    if (strstr(text, what) == NULL)
        fail_msg("%s", text);
    assert_int_equal(report.damaged, 1);
    assert_ptr_equal(strchr(text, '\n'), text + n - 1);
    free(text);
}

static void test_verify_index(void **state)
{
    (void)state;
    for (unsigned ix = 0; ix < IX__COUNT; ix++) {
        const struct db *db;
        uint8_t key[RECORD_INDEX_KEY_MAX] = {0};
        char want[64];

        reopen_empty();
        fill();
        MDB_txn *txn = begin(&db);
        MDB_cursor *cursor;
        MDB_val k, v;
        assert_int_equal(mdb_cursor_open(txn, db->index[ix], &cursor), 0);
        assert_int_equal(mdb_cursor_get(cursor, &k, &v, MDB_FIRST), 0);
        assert_int_equal(mdb_cursor_del(cursor, 0), 0);
        assert_int_equal(mdb_txn_commit(txn), 0);
        snprintf(want, sizeof want, "missing in %s", db_index_names[ix]);
        assert_found(want);

        reopen_empty();
        fill();
        txn = begin(&db);
        memset(key, 0x77, 33);
        k = db_val(key, 8 + RECORD_REF_BYTES);
        v = db_val(NULL, 0);
        assert_int_equal(mdb_put(txn, db->index[ix], &k, &v, 0), 0);
        assert_int_equal(mdb_txn_commit(txn), 0);
        snprintf(want, sizeof want, "%s: the entry for 7777", db_index_names[ix]);
        assert_found(want);
    }
}

static void test_verify_record(void **state)
{
    struct item_ref *r = dht_item(&sk[0], 5, "x", "y");
    struct store_rec rec = rec_of(r);

    (void)state;
    fill();
    rec.item.sig.b[0] ^= 1;
    assert_int_equal(S(s)->put(s, &rec), 0);
    assert_int_equal(S(s)->sync(s, 60000), 0);
    assert_found("the signature does not verify");
    reopen_empty();
    fill();
    rec = rec_of(r);
    rec.target.b[31] ^= 1;
    assert_int_equal(S(s)->put(s, &rec), 0);
    assert_int_equal(S(s)->sync(s, 60000), 0);
    assert_found("not the record of this target");
    item_ref_put(r);
}

static void test_verify_counters(void **state)
{
    const struct db *db;
    uint8_t value[16] = {0};

    (void)state;
    fill();
    MDB_txn *txn = begin(&db);
    MDB_val k = db_val(pk[0].b, sizeof pk[0].b), v = db_val(value, sizeof value);
    assert_int_equal(mdb_put(txn, db->publisher, &k, &v, 0), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
    assert_found("wrong counters");
    reopen_empty();
    fill();
    txn = begin(&db);
    assert_int_equal(mdb_del(txn, db->publisher, &k, NULL), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
    assert_found("no counters");
    reopen_empty();
    fill();
    struct row_txn t = {.scratch = malloc(RECORD_MAX_BYTES)};
    assert_int_equal(row_begin(&t, store_lmdb_db(s)), 0);
    t.totals.items++;
    assert_int_equal(row_commit(&t), 0);
    free(t.scratch);
    assert_found("totals: 7 items");
}

static void test_verify_meta(void **state)
{
    const struct db *db;
    uint8_t key[PUBKEY_BYTES + 3];
    struct store_lmdb_cfg cfg = stores_cfg();

    (void)state;
    fill();
    memcpy(key, cfg.own_pk.b, PUBKEY_BYTES);
    memcpy(key + PUBKEY_BYTES, "seq", 3);
    MDB_txn *txn = begin(&db);
    MDB_val k = db_val(key, sizeof key), v = db_val("a sum and a value", 16);
    assert_int_equal(mdb_put(txn, db->meta, &k, &v, 0), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
    assert_found("meta: a value of 16 bytes is damaged");
    char out[8];
    size_t n;
    assert_int_equal(S(s)->meta_get(s, "seq", out, sizeof out, &n), ERR_CORRUPT);
}

/* A damaged record: dump leaves it out and says so. */
static void test_damaged_record(void **state)
{
    const struct db *db;
    uint8_t key[RECORD_KEY_BYTES];
    struct store_dump_report report;
    char *text;
    size_t n;

    (void)state;
    fill();
    const struct kad_id target = kad_target(&pk[1], "tp", 2);
    record_key(key, &target, ITEM_OWNER);
    MDB_txn *txn = begin(&db);
    MDB_val k = db_val(key, sizeof key), id, v = db_val("no record at all", 16);
    assert_int_equal(mdb_get(txn, db->slots, &k, &id), 0);
    assert_int_equal(mdb_put(txn, db->records, &id, &v, 0), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
    FILE *f = open_memstream(&text, &n);
    assert_int_equal(store_tool_dump(s, f, &report), ERR_CORRUPT);
    assert_int_equal(report.records, 5);
    assert_int_equal(report.damaged, 1);
    struct store_verify_report verify;
    assert_int_equal(store_tool_verify(s, f, &verify), ERR_CORRUPT);
    fclose(f);
    assert_non_null(strstr(text, "the record is damaged"));
    free(text);
}

/* A slot without record, a record without slot: both are found, and the slot can be used again. */
static void test_slot_and_record(void **state)
{
    const struct db *db;
    uint8_t key[RECORD_KEY_BYTES], id[ROW_ID_BYTES] = {0, 0, 0, 0, 0, 0, 1, 0};
    struct store_verify_report report;
    struct store_rec out;
    const struct kad_id target = kad_target(&pk[1], "tp", 2);

    (void)state;
    fill();
    MDB_txn *txn = begin(&db);
    MDB_val k = db_val(id, sizeof id), v = db_val("left over", 9);
    assert_int_equal(mdb_put(txn, db->records, &k, &v, 0), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
    assert_found("records: 6 slots, but 7 records");

    reopen_empty();
    fill();
    record_key(key, &target, ITEM_OWNER);
    for (unsigned i = 0; i < 2; i++) {
        txn = begin(&db);
        k = db_val(key, sizeof key);
        v = db_val(id, i == 0 ? sizeof id : 3);
        assert_int_equal(mdb_put(txn, db->slots, &k, &v, 0), 0);
        assert_int_equal(mdb_txn_commit(txn), 0);
        assert_int_equal(store_tool_verify(s, stderr, &report), ERR_CORRUPT);
        assert_int_equal(S(s)->get(s, &target, ITEM_OWNER, &out), ERR_CORRUPT);
        put_signed(1, "tp", 6, "again");
        assert_int_equal(S(s)->sync(s, 60000), 0);
        assert_int_equal(S(s)->get(s, &target, ITEM_OWNER, &out), 0);
        assert_int_equal(S(s)->del(s, &target, ITEM_OWNER), 0);
        assert_int_equal(S(s)->sync(s, 60000), 0);
        assert_int_equal(S(s)->get(s, &target, ITEM_OWNER, &out), ERR_NOT_FOUND);
    }
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_dump_and_load),
        TEST(test_dump_text),
        TEST(test_long_dump),
        TEST(test_load_never_lowers),
        TEST(test_load_refuses),
        TEST(test_cert_check),
        TEST(test_stat),
        TEST(test_verify_index),
        TEST(test_verify_record),
        TEST(test_verify_counters),
        TEST(test_verify_meta),
        TEST(test_damaged_record),
        TEST(test_slot_and_record),
    };

    return cmocka_run_group_tests(tests, setup_all, NULL);
}
