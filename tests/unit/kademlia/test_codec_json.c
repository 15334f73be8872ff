#include "kademlia/codec_json.h"

#include "base/err.h"
#include "tests/unit/kademlia/dht_items.h"
#include "tests/unit/prop.h"

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

/* Put `by` for every `from` and what follows it up to the next `to`. */
static void replace_all(char *text, const char *from, const char *to, const char *by)
{
    for (char *p = text; (p = strstr(p, from)) != NULL; p += strlen(by)) {
        char *end = strstr(p + strlen(from), to), *rest;
        assert_non_null(end);
        rest = strdup(end + strlen(to));
        assert_non_null(rest);
        strcpy(p, by);
        strcpy(p + strlen(by), rest);
        free(rest);
    }
}

/* What we write otherwise than the recorded encoder: no time of last contact, and no mirror_target
 * that says nothing. */
static char *our_form(const char *json)
{
    char *text = malloc(strlen(json) * 2 + 64);

    assert_non_null(text);
    strcpy(text, json);
    replace_all(
        text, ",\"mirror_target\":[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0",
        "]", "");
    replace_all(text, "\"last_seen\":\"", "\"", "\"last_seen\":\"0001-01-01T00:00:00Z\"");
    return text;
}

static void assert_body(struct kad_msg *m, const char *want)
{
    uint8_t *frame;
    size_t n;

    assert_int_equal(kad_json_encode(&frame, &n, m), 0);
    if (n - KAD_FRAME_HEAD != strlen(want) ||
        memcmp(frame + KAD_FRAME_HEAD, want, strlen(want)) != 0)
        fail_msg("wrote %.*s\nnot   %s", (int)(n - 5), frame + 5, want);
    assert_int_equal(m->wire_bytes, n);
    assert_int_equal(frame[0] << 24 | frame[1] << 16 | frame[2] << 8 | frame[3], n - 4);
    assert_int_equal(frame[4], m->method);
    free(frame);
}

static void test_frames(void **state)
{
    size_t i, n, used;
    const json_t *v;

    (void)state;
    json_array_foreach(vec_get(root, "frames"), i, v)
    {
        uint8_t *bytes = vec_hex_dup(v, "frame_hex", &n);
        bool response = strcmp(vec_str(v, "direction"), "response") == 0;
        struct kad_frame f;
        struct kad_msg m;

        kad_frame_init(&f, KAD_FRAME_MAX);
        assert_int_equal(kad_frame_feed(&f, bytes, n, &used), 0);
        assert_int_equal(used, n);
        assert_int_equal(f.method, vec_int(v, "method"));
        assert_int_equal(f.body_len, vec_int(v, "length_field") - 1);
        assert_memory_equal(f.body, vec_str(v, "json"), f.body_len);
        if (kad_json_decode(&m, f.method, response, f.body, f.body_len) != 0)
            fail_msg("%s", vec_str(v, "name"));
        assert_int_equal(m.wire_bytes, n);
        assert_int_equal(m.bad_contacts, 0);
        if (m.method == KAD_PING && !response) /* its body is not looked at */
            dht_key(root, "key0", NULL, &m.sender);
        char *want = our_form(vec_str(v, "json"));
        assert_body(&m, want);
        free(want);
        kad_msg_clear(&m);
        kad_frame_clear(&f);
        free(bytes);
    }
    assert_int_equal(i, 27);
}

/* What a few of them mean. */
static void test_meaning(void **state)
{
    const json_t *frames = vec_get(root, "frames");
    struct kad_msg m;
    struct pubkey pk;
    struct kad_id id;
    const char *json;

    (void)state;
    json = vec_str(json_array_get(frames, 6), "json"); /* get_value, found */
    assert_int_equal(kad_json_decode(&m, KAD_GET_VALUE, true, json, strlen(json)), 0);
    assert_int_equal(m.n_items, 1);
    assert_true(m.items[0].item->item.seq == UINT64_C(1777551386053786094));
    assert_true(item_salt_is(&m.items[0].item->item, "dmsg"));
    assert_int_equal(item_verify(&m.items[0].item->item), 0);
    assert_int_equal(m.n_closest, 1);
    dht_key(root, "key1", NULL, &pk);
    assert_true(pubkey_equal(&m.closest[0], &pk));
    kad_msg_clear(&m);

    json = vec_str(json_array_get(frames, 12), "json"); /* put_value with mirror_target */
    assert_int_equal(kad_json_decode(&m, KAD_PUT_VALUE, false, json, strlen(json)), 0);
    dht_key(root, "key0", NULL, &pk);
    assert_true(pubkey_equal(&m.sender, &pk));
    dht_key(root, "key3", NULL, &pk);
    id = kad_target(&pk, "dmsg", 4);
    assert_true(m.items[0].has_target);
    assert_true(kad_id_equal(&m.items[0].target, &id));
    kad_msg_clear(&m);

    json = vec_str(json_array_get(frames, 20), "json"); /* get_items, filtered */
    assert_int_equal(kad_json_decode(&m, KAD_GET_ITEMS, false, json, strlen(json)), 0);
    assert_int_equal(m.salt_len, 4);
    assert_string_equal(m.salt, "dmsg");
    assert_int_equal(m.since_seq, 7);
    assert_int_equal(m.limit, 10);
    kad_msg_clear(&m);

    json = vec_str(json_array_get(frames, 23), "json"); /* put_batch, one mirrored and one own */
    assert_int_equal(kad_json_decode(&m, KAD_PUT_BATCH, false, json, strlen(json)), 0);
    assert_int_equal(m.n_items, 2);
    assert_true(m.items[0].has_target);
    assert_false(m.items[1].has_target);
    kad_msg_clear(&m);

    json = vec_str(json_array_get(frames, 25), "json"); /* put_batch, second refused */
    assert_int_equal(kad_json_decode(&m, KAD_PUT_BATCH, true, json, strlen(json)), 0);
    assert_int_equal(m.n_items, 2);
    assert_int_equal(m.items[0].result, 0);
    assert_int_equal(m.items[1].result, ERR_SEQ);
    kad_msg_clear(&m);
}

/* handler_cases: what the recorded node closes on without an answer, we refuse to decode, and the
 * other way round. */
static void test_handler_requests(void **state)
{
    size_t i, n, used, closed = 0;
    const json_t *v;

    (void)state;
    json_array_foreach(vec_get(vec_get(root, "handler_cases"), "cases"), i, v)
    {
        uint8_t *bytes = vec_hex_dup(v, "request_hex", &n);
        struct kad_frame f;
        struct kad_msg m = {.method = KAD_PING};

        kad_frame_init(&f, KAD_FRAME_MAX);
        int rc = kad_frame_feed(&f, bytes, n, &used);
        assert_int_not_equal(rc, ERR_AGAIN);
        if (rc == 0)
            rc = kad_json_decode(&m, f.method, false, f.body, f.body_len);
        if ((rc != 0) != json_is_null(vec_get(v, "answer")))
            fail_msg("%s: %s", vec_str(v, "name"), err_str(rc));
        closed += rc != 0;
        kad_msg_clear(&m);
        kad_frame_clear(&f);
        free(bytes);
    }
    assert_int_equal(i, 49);
    assert_true(closed >= 15);
}

/* ---- frames (dht.md §8.2, 2) ---- */

static void test_frame_every_split(void **state)
{
    size_t n, used;
    uint8_t *bytes = vec_hex_dup(json_array_get(vec_get(root, "frames"), 2), "frame_hex", &n);

    (void)state;
    for (size_t cut = 0; cut <= n; cut++) {
        for (size_t second = cut; second <= n; second += 37) {
            const size_t ends[] = {cut, second, n};
            struct kad_frame f;
            size_t at = 0;
            kad_frame_init(&f, KAD_FRAME_MAX);
            for (size_t i = 0; i < 3; i++) {
                int rc = kad_frame_feed(&f, bytes + at, ends[i] - at, &used);
                assert_int_equal(used, ends[i] - at);
                at = ends[i];
                assert_int_equal(rc, at == n ? 0 : ERR_AGAIN);
            }
            assert_int_equal(f.method, KAD_FIND_NODE);
            assert_memory_equal(f.body, bytes + 5, n - 5);
            kad_frame_clear(&f);
        }
    }
    free(bytes);
}

static void test_frame_from_queue(void **state)
{
    size_t n;
    uint8_t *bytes = vec_hex_dup(json_array_get(vec_get(root, "frames"), 21), "frame_hex", &n);
    struct bufpool *pool = bufpool_new(NULL);
    struct bufq q;
    struct kad_frame f;

    (void)state;
    assert_non_null(pool);
    bufq_init(&q, pool);
    kad_frame_init(&f, KAD_FRAME_MAX);
    assert_int_equal(kad_frame_feed_queue(&f, &q), ERR_AGAIN);
    /* A slice of its own for every byte, and bytes that follow the frame. */
    for (size_t i = 0; i < n; i++) {
        struct slice s = {.p = bytes + i, .n = 1};
        assert_int_equal(bufq_append_slice(&q, s), 0);
        if (i % 100 == 99)
            assert_int_equal(kad_frame_feed_queue(&f, &q), ERR_AGAIN);
    }
    assert_int_equal(bufq_append_copy(&q, "more", 4), 0);
    assert_int_equal(kad_frame_feed_queue(&f, &q), 0);
    assert_int_equal(bufq_len(&q), 4);
    assert_int_equal(f.body_len, n - 5);
    assert_memory_equal(f.body, bytes + 5, n - 5);
    kad_frame_clear(&f);
    bufq_clear(&q);
    bufpool_free(pool);
    free(bytes);
}

static int feed_length(uint32_t length, size_t max)
{
    uint8_t head[5] = {(uint8_t)(length >> 24), (uint8_t)(length >> 16), (uint8_t)(length >> 8),
                       (uint8_t)length, 1};
    struct kad_frame f;
    size_t used;

    kad_frame_init(&f, max);
    int rc = kad_frame_feed(&f, head, sizeof head, &used);
    if (rc == ERR_AGAIN)
        assert_null(f.body); /* nothing is allocated for a promise */
    kad_frame_clear(&f);
    return rc;
}

static void test_frame_lengths(void **state)
{
    (void)state;
    assert_int_equal(vec_int(vec_get(root, "constants"), "max_frame_length_field"), KAD_FRAME_MAX);
    assert_int_equal(feed_length(0, KAD_FRAME_MAX), ERR_FORMAT);
    assert_int_equal(feed_length(1, KAD_FRAME_MAX), 0);
    assert_int_equal(feed_length(2, KAD_FRAME_MAX), ERR_AGAIN);
    assert_int_equal(feed_length(KAD_FRAME_MAX, KAD_FRAME_MAX), ERR_AGAIN);
    assert_int_equal(feed_length(KAD_FRAME_MAX + 1, KAD_FRAME_MAX), ERR_TOO_LONG);
    assert_int_equal(feed_length(UINT32_MAX, KAD_FRAME_MAX), ERR_TOO_LONG);
    assert_int_equal(feed_length(1001, 1000), ERR_TOO_LONG);
    assert_int_equal(feed_length(1000, 1000), ERR_AGAIN);
}

/* The largest frame arrives whole; memory follows what has arrived. */
static void test_frame_largest(void **state)
{
    const size_t body = KAD_FRAME_MAX - 1;
    uint8_t head[5] = {0, 0x40, 0, 0, 3}, piece[4096];
    struct kad_frame f;
    size_t used;

    (void)state;
    memset(piece, 'x', sizeof piece);
    kad_frame_init(&f, KAD_FRAME_MAX);
    assert_int_equal(kad_frame_feed(&f, head, 5, &used), ERR_AGAIN);
    for (size_t got = 0; got < body;) {
        int rc = kad_frame_feed(&f, piece, sizeof piece, &used);
        got += used;
        assert_int_equal(rc, got == body ? 0 : ERR_AGAIN);
        assert_true(f.cap <= 2 * got + 4096);
    }
    assert_int_equal(f.body_len, body);
    kad_frame_clear(&f);
    assert_null(f.body);
}

/* ---- bodies ---- */

static int decode(struct kad_msg *m, unsigned method, bool response, const char *json)
{
    return kad_json_decode(m, method, response, json, strlen(json));
}

static void test_malformed(void **state)
{
    static const struct {
        unsigned method;
        bool response;
        const char *json;
    } cases[] = {
        {KAD_FIND_NODE, false, ""},
        {KAD_FIND_NODE, false, "{"},
        {KAD_FIND_NODE, false, "{}{}"},
        {KAD_FIND_NODE, false, "[]"},
        {KAD_FIND_NODE, false, "7"},
        {KAD_FIND_NODE, false, "{\"target\":{}}"},
        {KAD_FIND_NODE, false, "{\"target\":[1e0]}"},
        {KAD_FIND_NODE, false, "{\"target\":[\"1\"]}"},
        {KAD_FIND_NODE, false, "{\"sender_id\":\"00\"}"},
        {KAD_FIND_NODE, false, "{\"sender_pk\":1}"},
        {KAD_FIND_NODE, false, "{\"sender_pk\":\"0\", \"sender_pk\":\"01\"}"},
        /* x = p and x = p + 1 crash the recorded decoder; x = 5 is not on the curve */
        {KAD_FIND_NODE, false,
         "{\"sender_pk\":\"02fffffffffffffffffffffffffffffffffffffffffffffffffffffffefffffc2f\"}"},
        {KAD_FIND_NODE, false,
         "{\"sender_pk\":\"03fffffffffffffffffffffffffffffffffffffffffffffffffffffffefffffc30\"}"},
        {KAD_FIND_NODE, true, "{\"closest\":{}}"},
        {KAD_FIND_NODE, true, "{\"closest\":[7]}"},
        {KAD_FIND_NODE, true, "{\"closest\":[{\"pk\":\"0x\"}]}"},
        {KAD_GET_VALUE, true, "{\"item\":[]}"},
        {KAD_GET_VALUE, true, "{\"item\":{\"k\":7}}"},
        {KAD_GET_VALUE, true, "{\"item\":{\"salt\":\"a\"}}"},
        {KAD_GET_VALUE, true, "{\"item\":{\"seq\":-1}}"},
        {KAD_GET_VALUE, true, "{\"item\":{\"v\":[1,2]}}"},
        {KAD_PUT_VALUE, true, "{\"stored\":1}"},
        {KAD_PUT_VALUE, true, "{\"error\":1}"},
        {KAD_GET_ITEMS, true, "{\"items\":{}}"},
        {KAD_GET_ITEMS, true, "{\"items\":[1]}"},
        {KAD_GET_ITEMS, true, "{\"targets\":[1]}"},
        {KAD_GET_ITEMS, true, "{\"has_more\":\"true\"}"},
        {KAD_GET_ITEMS, false, "{\"limit\":1.5}"},
        {KAD_GET_ITEMS, false, "{\"limit\":9223372036854775808}"},
        {KAD_GET_ITEMS, false, "{\"salt\":[]}"},
        {KAD_PUT_BATCH, true, "{\"stored\":true}"},
        {KAD_PUT_BATCH, true, "{\"stored\":[0]}"},
        {KAD_PUT_BATCH, true, "{\"errors\":[false]}"},
        {KAD_PING, true, "{\"responder_id\":7}"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct kad_msg m;
        int rc = decode(&m, cases[i].method, cases[i].response, cases[i].json);
        if (rc != ERR_FORMAT && rc != ERR_SHORT)
            fail_msg("%s: %s", cases[i].json, err_str(rc));
        assert_null(m.items);
        assert_null(m.closest);
    }
    struct kad_msg m;
    assert_int_equal(decode(&m, 0, false, "{}"), ERR_UNSUPPORTED);
    assert_int_equal(decode(&m, 7, true, "{}"), ERR_UNSUPPORTED);
    assert_int_equal(decode(&m, 260, true, "{}"), ERR_UNSUPPORTED);
}

static void test_lenient(void **state)
{
    struct kad_msg m;
    struct pubkey pk;

    (void)state;
    dht_key(root, "key0", NULL, &pk);
    /* case, unknown members, blanks, escapes in names and values, last duplicate */
    assert_int_equal(
        decode(&m, KAD_FIND_NODE, false,
               " {\"TARGET\":[1,2],\"x\":{\"target\":[9]},\"\\u0074arget\":[3] ,"
               "\"sender_PK\":\"\\u003034f355bdcb7cc0af728ef3cceb9615d90684bb5b2ca5f859ab0f0b704075"
               "871aa\"}\r\n"),
        0);
    assert_int_equal(m.target.b[0], 3);
    assert_int_equal(m.target.b[1], 0);
    assert_true(pubkey_equal(&m.sender, &pk));
    kad_msg_clear(&m);

    assert_int_equal(decode(&m, KAD_FIND_NODE, false, "null"), 0);
    kad_msg_clear(&m);
    assert_int_equal(decode(&m, KAD_FIND_NODE, false, "{\"target\":[null,7,null]}"), 0);
    assert_int_equal(m.target.b[1], 7);
    kad_msg_clear(&m);
    /* members of other messages are unknown */
    assert_int_equal(decode(&m, KAD_FIND_NODE, false, "{\"item\":7,\"closest\":7,\"limit\":{}}"),
                     0);
    kad_msg_clear(&m);
    /* CR and LF inside of base64 */
    assert_int_equal(
        decode(&m, KAD_GET_VALUE, true, "{\"item\":{\"v\":\"YW\\r\\nJj\\n\",\"salt\":\"Yg==\"}}"),
        0);
    assert_int_equal(m.items[0].item->item.v_len, 3);
    assert_memory_equal(m.items[0].item->item.v, "abc", 3);
    assert_true(item_salt_is(&m.items[0].item->item, "b"));
    kad_msg_clear(&m);
    /* "" and null of v stay apart */
    assert_int_equal(decode(&m, KAD_GET_VALUE, true, "{\"item\":{\"v\":\"\"}}"), 0);
    assert_non_null(m.items[0].item->item.v);
    kad_msg_clear(&m);
    assert_int_equal(decode(&m, KAD_GET_VALUE, true, "{\"item\":{\"v\":null}}"), 0);
    assert_null(m.items[0].item->item.v);
    kad_msg_clear(&m);
    /* item null, or taken back */
    assert_int_equal(decode(&m, KAD_GET_VALUE, true, "{\"item\":{\"seq\":1},\"item\":null}"), 0);
    assert_int_equal(m.n_items, 0);
    kad_msg_clear(&m);
    /* a list given twice */
    assert_int_equal(decode(&m, KAD_GET_ITEMS, true, "{\"items\":[{},{}],\"items\":[{\"seq\":5}]}"),
                     0);
    assert_int_equal(m.n_items, 1);
    assert_int_equal(m.items[0].item->item.seq, 5);
    kad_msg_clear(&m);
    /* salts given twice */
    assert_int_equal(
        decode(&m, KAD_GET_ITEMS, false, "{\"salt\":\"a\",\"salt\":\"b\\u0000c\",\"limit\":-3}"),
        0);
    assert_int_equal(m.salt_len, 3);
    assert_memory_equal(m.salt, "b\0c", 4);
    assert_int_equal(m.limit, -3);
    kad_msg_clear(&m);
}

/* dht.md §8.2, 11: peers of each version. */
static void test_versions(void **state)
{
    struct kad_msg m;
    const char *one = "{\"items\":[{\"seq\":1},{\"seq\":2}],\"has_more\":true}";

    (void)state;
    assert_int_equal(decode(&m, KAD_GET_ITEMS, true, one), 0);
    assert_int_equal(m.n_items, 2);
    assert_true(m.targets_missing);
    assert_true(m.has_more);
    assert_false(m.items[0].has_target);
    kad_msg_clear(&m);
    assert_int_equal(decode(&m, KAD_GET_ITEMS, true, "{\"items\":null,\"targets\":null}"), 0);
    assert_int_equal(m.n_items, 0);
    assert_false(m.targets_missing);
    kad_msg_clear(&m);
    /* targets may come first, may be too few or too many */
    assert_int_equal(
        decode(&m, KAD_GET_ITEMS, true, "{\"targets\":[[4]],\"items\":[{\"seq\":1},{\"seq\":2}]}"),
        0);
    assert_false(m.targets_missing);
    assert_int_equal(m.items[0].target.b[0], 4);
    assert_false(m.items[1].has_target);
    kad_msg_clear(&m);
    assert_int_equal(decode(&m, KAD_GET_ITEMS, true, "{\"targets\":[[4],[5]],\"items\":[{}]}"), 0);
    assert_int_equal(m.n_items, 1);
    kad_msg_clear(&m);

    assert_int_equal(decode(&m, KAD_FIND_NODE, true, "{\"closest\":null}"), 0);
    assert_int_equal(m.n_closest, 0);
    kad_msg_clear(&m);
    assert_int_equal(decode(&m, KAD_FIND_NODE, true, "{}"), 0);
    kad_msg_clear(&m);
    assert_int_equal(decode(&m, KAD_PUT_BATCH, true, "{\"stored\":null,\"errors\":null}"), 0);
    assert_int_equal(m.n_items, 0);
    kad_msg_clear(&m);
    /* refusals without a text, texts without a refusal */
    assert_int_equal(
        decode(&m, KAD_PUT_BATCH, true, "{\"errors\":[\"x\",\"\"],\"stored\":[true,false]}"), 0);
    assert_int_equal(m.items[0].result, 0);
    assert_int_equal(m.items[1].result, ERR_REFUSED);
    kad_msg_clear(&m);
    assert_int_equal(decode(&m, KAD_PUT_VALUE, true, "{}"), 0);
    assert_false(m.stored);
    assert_int_equal(m.error, ERR_REFUSED);
    kad_msg_clear(&m);
}

/* An item's text in a request: same decisions as the store's checks of the vectors. */
static void check_item_text(const json_t *v)
{
    char *body;
    struct kad_msg m;
    struct item_ref *want = dht_vec_item(v);

    assert_true(asprintf(&body, "{\"item\":%s}", vec_str(v, "json")) > 0);
    assert_int_equal(decode(&m, KAD_PUT_VALUE, false, body), 0);
    assert_int_equal(m.n_items, 1);
    assert_false(m.items[0].has_target);
    assert_true(item_equal(&m.items[0].item->item, &want->item));
    /* and written again */
    m.response = true;
    m.method = KAD_GET_VALUE;
    assert_body(&m, body);
    kad_msg_clear(&m);
    item_ref_put(want);
    free(body);
}

static void test_item_texts(void **state)
{
    size_t i, texts = 0;
    const json_t *v;

    (void)state;
    json_array_foreach(vec_get(root, "items_valid"), i, v)
    {
        texts += json_object_get(v, "json") != NULL;
        if (json_object_get(v, "json") != NULL && json_object_get(v, "v_hex") != NULL)
            check_item_text(v);
    }
    assert_int_equal(texts, 12);
    json_array_foreach(vec_get(root, "items_invalid"), i, v)
    {
        texts += json_object_get(v, "json") != NULL;
        if (json_object_get(v, "json") != NULL)
            check_item_text(v);
    }
    assert_int_equal(texts, 12 + 13);
}

/* ---- contacts ---- */

static void append_contact(char **text, const struct pubkey *pk, const struct kad_id *id)
{
    char hex[PUBKEY_HEX + 1], ids[256] = "", *old = *text;

    for (size_t i = 0; i < KAD_ID_BYTES; i++)
        sprintf(ids + strlen(ids), "%s%u", i > 0 ? "," : "", id->b[i]);
    assert_true(asprintf(text, "%s%s{\"id\":[%s],\"pk\":\"%s\",\"last_seen\":7}",
                         old != NULL ? old : "", old != NULL ? "," : "", ids,
                         pubkey_hex(hex, pk)) > 0);
    free(old);
}

static void decode_contacts(struct kad_msg *m, char *list)
{
    char *body;

    assert_true(asprintf(&body, "{\"closest\":[%s]}", list) > 0);
    assert_int_equal(decode(m, KAD_FIND_NODE, true, body), 0);
    free(body);
    free(list);
}

/* dht.md §8.2, 4: wrong IDs, null keys. */
static void test_contacts(void **state)
{
    struct pubkey pk[7], null = {{0}};
    char *list = NULL;
    struct kad_msg m;

    (void)state;
    for (int i = 0; i < 7; i++) {
        char name[8];
        snprintf(name, sizeof name, "key%d", i);
        dht_key(root, name, NULL, &pk[i]);
        struct kad_id id = kad_id_of(&pk[i]);
        if (i == 3)
            id.b[31] ^= 1;
        append_contact(&list, &pk[i], &id);
        if (i == 5) {
            struct kad_id of_null = kad_id_of(&null);
            append_contact(&list, &null, &of_null);
        }
    }
    decode_contacts(&m, list);
    assert_int_equal(m.n_closest, 6);
    assert_int_equal(m.bad_contacts, 2);
    assert_true(pubkey_equal(&m.closest[2], &pk[2]));
    assert_true(pubkey_equal(&m.closest[3], &pk[4]));
    kad_msg_clear(&m);
}

/* A key off the curve passes when its ID is right (dialling it fails); one that has no key's form
 * makes the answer malformed. */
static void test_contact_keys(void **state)
{
    struct pubkey pk = {{2}};
    struct kad_msg m;
    char *list = NULL;

    (void)state;
    pk.b[32] = 5;
    assert_int_equal(pubkey_check(&pk), ERR_KEY);
    struct kad_id id = kad_id_of(&pk);
    append_contact(&list, &pk, &id);
    decode_contacts(&m, list);
    assert_int_equal(m.n_closest, 1);
    kad_msg_clear(&m);

    for (int prefix = 0; prefix < 256; prefix += 51) { /* 0, 51, … 255: none is 2 or 3 */
        char *body;
        list = NULL;
        pk.b[0] = (uint8_t)prefix;
        id = kad_id_of(&pk);
        append_contact(&list, &pk, &id);
        assert_true(asprintf(&body, "{\"closest\":[%s]}", list) > 0);
        assert_int_equal(decode(&m, KAD_FIND_NODE, true, body), ERR_FORMAT);
        free(list);
        free(body);
    }
}

/* 10 000 good contacts: the first KAD_K count. 10 000 bad ones: only some are looked at. */
static void test_many_contacts(void **state)
{
    struct kad_msg m;
    struct pubkey pk;
    char *list = NULL, *one;

    (void)state;
    dht_key(root, "key2", NULL, &pk);
    struct kad_id id = kad_id_of(&pk);
    for (int bad = 0; bad < 2; bad++) {
        one = NULL;
        append_contact(&one, &pk, &id);
        size_t n = strlen(one);
        list = malloc((n + 1) * 10000);
        assert_non_null(list);
        for (size_t i = 0; i < 10000; i++) {
            memcpy(list + i * (n + 1), one, n);
            list[i * (n + 1) + n] = i < 9999 ? ',' : '\0';
        }
        free(one);
        decode_contacts(&m, list);
        assert_int_equal(m.n_closest, bad ? 0 : KAD_K);
        assert_int_equal(m.bad_contacts, 10000 - m.n_closest);
        kad_msg_clear(&m);
        id.b[0] ^= 1;
    }
}

static char *repeat(const char *head, const char *what, size_t count, const char *tail)
{
    size_t n = strlen(what), at = strlen(head);
    char *text = malloc(at + (n + 1) * count + strlen(tail) + 1);

    assert_non_null(text);
    memcpy(text, head, at);
    for (size_t i = 0; i < count; i++) {
        memcpy(text + at, what, n);
        at += n;
        if (i + 1 < count)
            text[at++] = ',';
    }
    strcpy(text + at, tail);
    return text;
}

static void test_too_many_items(void **state)
{
    static const struct {
        unsigned method;
        bool response;
        const char *head, *what, *tail;
    } cases[] = {
        {KAD_GET_ITEMS, true, "{\"items\":[", "{}", "]}"},
        {KAD_PUT_BATCH, false, "{\"items\":[", "{}", "]}"},
        {KAD_PUT_BATCH, false, "{\"targets\":[", "[]", "]}"},
        {KAD_PUT_BATCH, true, "{\"stored\":[", "true", "]}"},
        {KAD_PUT_BATCH, true, "{\"errors\":[", "\"\"", "]}"},
    };
    struct kad_msg m;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (size_t n = KAD_MSG_MAX_ITEMS - 1; n <= KAD_MSG_MAX_ITEMS + 1; n++) {
            char *text = repeat(cases[i].head, cases[i].what, n, cases[i].tail);
            assert_int_equal(decode(&m, cases[i].method, cases[i].response, text),
                             n <= KAD_MSG_MAX_ITEMS ? 0 : ERR_LIMIT);
            kad_msg_clear(&m);
            free(text);
        }
    }
}

/* ---- refusals ---- */

static void test_refusal_texts(void **state)
{
    static const int errs[] = {ERR_TOO_LONG, ERR_SEQ,      ERR_QUOTA, ERR_BUSY,
                               ERR_NO_SPACE, ERR_SHUTDOWN, ERR_LIMIT, ERR_REFUSED};
    struct seckey sk;
    struct pubkey pk;
    char buf[64];
    struct kad_msg m;

    (void)state;
    for (size_t i = 0; i < sizeof errs / sizeof errs[0]; i++) {
        const char *text = kad_json_error_text(errs[i], NULL, buf);
        assert_memory_equal(text, "dht: ", 5);
        assert_int_equal(kad_json_error_from_text(text, strlen(text)), errs[i]);
    }
    assert_int_equal(kad_json_error_from_text("dht: invalid signature: x", 25), ERR_SIG);
    assert_int_equal(kad_json_error_from_text("dht: invalid signatur", 21), ERR_REFUSED);
    assert_int_equal(kad_json_error_from_text("whatever", 8), ERR_REFUSED);
    assert_int_equal(kad_json_error_from_text("", 0), ERR_REFUSED);

    /* The item decides which of the size texts, and which of the signature texts. */
    dht_key(root, "key0", &sk, &pk);
    struct item_ref *r = dht_item(&sk, 1, "s", "v");
    r->item.seq = 2;
    kad_msg_init(&m, KAD_PUT_BATCH, true);
    assert_int_equal(kad_msg_add_item(&m, r, NULL), 0);
    m.items[0].result = ERR_SIG;
    assert_body(&m, "{\"stored\":[false],\"errors\":[\"dht: invalid signature: Recovered pubkey "
                    "does not match pubkey\"]}");
    m.items[0].result = ERR_BUSY;
    assert_int_equal(kad_msg_add_item(&m, r, NULL), 0);
    uint8_t *frame;
    size_t n;
    assert_int_equal(kad_json_encode(&frame, &n, &m), 0);
    kad_msg_clear(&m);
    assert_int_equal(kad_json_decode(&m, KAD_PUT_BATCH, true, frame + 5, n - 5), 0);
    assert_int_equal(m.items[0].result, ERR_BUSY);
    assert_int_equal(m.items[1].result, 0);
    kad_msg_clear(&m);
    free(frame);
    item_ref_put(r);

    /* A long text is cut, not refused. */
    char *text = repeat("{\"stored\":false,\"error\":\"", "dht: blah", 1000, "\"}");
    assert_int_equal(decode(&m, KAD_PUT_VALUE, true, text), 0);
    assert_int_equal(strlen(m.error_text), sizeof m.error_text - 1);
    assert_int_equal(m.error, ERR_REFUSED);
    kad_msg_clear(&m);
    free(text);
}

/* ---- size ---- */

static void test_frame_too_long(void **state)
{
    struct item it = {.v_len = ITEM_MAX_VALUE, .salt_len = 2, .salt = (const uint8_t *)"tp"};
    uint8_t *v = calloc(1, ITEM_MAX_VALUE), *frame;
    struct kad_msg m;
    size_t n, sum = 0;

    (void)state;
    it.v = v;
    it.seq = UINT64_MAX;
    struct item_ref *r = item_ref_new(&it);
    assert_non_null(r);
    kad_msg_init(&m, KAD_GET_ITEMS, true);
    while (sum + kad_json_item_size(&it) + 64 <= KAD_FRAME_MAX) {
        assert_int_equal(kad_msg_add_item(&m, r, NULL), 0);
        sum += kad_json_item_size(&it);
    }
    assert_true(m.n_items > 40);
    assert_int_equal(kad_json_encode(&frame, &n, &m), 0);
    assert_true(n <= sum + 64 && n <= KAD_FRAME_MAX + 4);
    free(frame);
    for (int i = 0; i < 2; i++)
        assert_int_equal(kad_msg_add_item(&m, r, NULL), 0);
    assert_int_equal(kad_json_encode(&frame, &n, &m), ERR_TOO_LONG);
    kad_msg_clear(&m);
    item_ref_put(r);
    free(v);
}

/* ---- any message survives the way there and back ---- */

static struct pubkey real_keys[64];

static void random_items(struct prop *r, struct kad_msg *m, size_t n, bool targets)
{
    static uint8_t v[5000], salt[ITEM_MAX_SALT];

    for (size_t i = 0; i < n; i++) {
        struct item it = {.k = real_keys[prop_below(r, 64)],
                          .seq = prop_u64(r) >> prop_below(r, 64)};
        struct kad_id target;
        it.v_len = prop_size(r, sizeof v);
        it.salt_len = prop_size(r, sizeof salt);
        prop_bytes(r, v, it.v_len);
        prop_bytes(r, salt, it.salt_len);
        prop_bytes(r, &it.sig, sizeof it.sig);
        it.v = it.v_len == 0 && prop_chance(r, 50) ? NULL : v;
        it.salt = salt;
        prop_bytes(r, &target, sizeof target);
        struct item_ref *ref = item_ref_new(&it);
        assert_non_null(ref);
        assert_int_equal(kad_msg_add_item(m, ref, targets && prop_chance(r, 70) ? &target : NULL),
                         0);
        item_ref_put(ref);
    }
}

static void random_msg(struct prop *r, struct kad_msg *m)
{
    static const int refusals[] = {0, 0, ERR_SEQ, ERR_QUOTA, ERR_BUSY, ERR_NO_SPACE};
    enum kad_method method = (enum kad_method)(1 + prop_below(r, 6));

    kad_msg_init(m, method, prop_chance(r, 50));
    if (!m->response || method == KAD_PING)
        m->sender = real_keys[prop_below(r, 64)];
    if (!m->response && (method == KAD_FIND_NODE || method == KAD_GET_VALUE))
        prop_bytes(r, &m->target, sizeof m->target);
    if (m->response && (method == KAD_FIND_NODE || method == KAD_GET_VALUE))
        assert_int_equal(
            kad_msg_set_closest(m, &real_keys[prop_below(r, 40)], prop_below(r, KAD_K + 1)), 0);
    if (m->response && method == KAD_GET_VALUE)
        random_items(r, m, prop_below(r, 2), false);
    if (!m->response && method == KAD_PUT_VALUE)
        random_items(r, m, 1, true);
    if (m->response && method == KAD_PUT_VALUE) {
        m->error = refusals[prop_below(r, 6)];
        m->stored = m->error == 0;
    }
    if (!m->response && method == KAD_GET_ITEMS) {
        char *salt = calloc(1, 8);
        m->salt_len = prop_below(r, 8);
        for (size_t i = 0; i < m->salt_len; i++)
            salt[i] = "tp:<&\"\\\n"[prop_below(r, 8)];
        m->salt = salt;
        m->since_seq = prop_u64(r) >> prop_below(r, 64);
        m->limit = (int64_t)prop_u64(r);
    }
    if ((m->response && method == KAD_GET_ITEMS) || (!m->response && method == KAD_PUT_BATCH)) {
        random_items(r, m, prop_below(r, 10), true);
        m->has_more = m->response && prop_chance(r, 50);
    }
    if (m->response && method == KAD_PUT_BATCH) {
        for (size_t n = prop_below(r, 10); n > 0; n--) {
            assert_int_equal(kad_msg_add_item(m, NULL, NULL), 0);
            m->items[m->n_items - 1].result = refusals[prop_below(r, 6)];
        }
    }
}

static void assert_same_msg(const struct kad_msg *a, const struct kad_msg *b)
{
    assert_true(pubkey_equal(&a->sender, &b->sender));
    assert_true(kad_id_equal(&a->target, &b->target));
    assert_int_equal(a->n_closest, b->n_closest);
    if (a->n_closest > 0)
        assert_memory_equal(a->closest, b->closest, a->n_closest * sizeof a->closest[0]);
    assert_int_equal(a->n_items, b->n_items);
    for (size_t i = 0; i < a->n_items; i++) {
        const struct kad_msg_item *x = &a->items[i], *y = &b->items[i];
        assert_int_equal(x->result, y->result);
        if (x->item == NULL)
            continue;
        assert_true(item_equal(&x->item->item, &y->item->item));
        assert_int_equal(x->item->item.v == NULL, y->item->item.v == NULL);
        /* A page names every slot, also the item's own. */
        struct kad_id own = item_target(&x->item->item);
        assert_int_equal(y->has_target, x->has_target || (a->method == KAD_GET_ITEMS));
        if (y->has_target)
            assert_true(kad_id_equal(x->has_target ? &x->target : &own, &y->target));
    }
    assert_int_equal(a->salt_len, b->salt_len);
    if (a->salt_len > 0)
        assert_memory_equal(a->salt, b->salt, a->salt_len);
    assert_true(a->since_seq == b->since_seq && a->limit == b->limit);
    assert_true(a->has_more == b->has_more && a->stored == b->stored && a->error == b->error);
}

static void test_property(void **state)
{
    struct prop r = prop_init("messages");

    (void)state;
    for (uint8_t i = 0; i < 64; i++) {
        struct seckey sk;
        assert_int_equal(crypto_keypair_from_seed(&sk, &real_keys[i], &i, 1), 0);
    }
    for (int round = 0; round < 3000; round++) {
        struct kad_msg m, back;
        uint8_t *frame;
        size_t n, used, at = 0;
        struct kad_frame f;

        random_msg(&r, &m);
        assert_int_equal(kad_json_encode(&frame, &n, &m), 0);
        size_t bound = KAD_FRAME_HEAD + 512;
        for (size_t i = 0; i < m.n_items; i++)
            bound += m.items[i].item != NULL ? kad_json_item_size(&m.items[i].item->item) : 64;
        if (m.n_closest == 0)
            assert_true(n <= bound);
        kad_frame_init(&f, KAD_FRAME_MAX);
        int rc = ERR_AGAIN;
        while (rc == ERR_AGAIN) {
            size_t part = 1 + prop_below(&r, n - at);
            rc = kad_frame_feed(&f, frame + at, part, &used);
            assert_int_equal(used, part);
            at += used;
        }
        assert_int_equal(rc, 0);
        assert_int_equal(kad_json_decode(&back, f.method, m.response, f.body, f.body_len), 0);
        if (m.method == KAD_PING && !m.response)
            back.sender = m.sender;
        assert_same_msg(&m, &back);
        kad_msg_clear(&m);
        kad_msg_clear(&back);
        kad_frame_clear(&f);
        free(frame);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frames),           cmocka_unit_test(test_meaning),
        cmocka_unit_test(test_handler_requests), cmocka_unit_test(test_frame_every_split),
        cmocka_unit_test(test_frame_from_queue), cmocka_unit_test(test_frame_lengths),
        cmocka_unit_test(test_frame_largest),    cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_lenient),          cmocka_unit_test(test_versions),
        cmocka_unit_test(test_item_texts),       cmocka_unit_test(test_contacts),
        cmocka_unit_test(test_contact_keys),     cmocka_unit_test(test_many_contacts),
        cmocka_unit_test(test_too_many_items),   cmocka_unit_test(test_refusal_texts),
        cmocka_unit_test(test_frame_too_long),   cmocka_unit_test(test_property),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
