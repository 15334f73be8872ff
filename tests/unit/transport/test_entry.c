/* entry: recorded canonical bytes and signatures, what the Go discovery accepted and refused,
 * members of a newer generation, damage. */
#include "transport/entry.h"

#include <stdio.h>

#include "base/err.h"
#include "tests/unit/vectors.h"

static json_t *root;

static struct entry *parse(const char *text)
{
    struct entry *e = NULL;
    int rc = entry_parse(&e, text, strlen(text));

    if (rc != 0)
        fail_msg("%s: %s", err_str(rc), text);
    return e;
}

static int parse_rc(const char *text, size_t n)
{
    char *copy = malloc(n > 0 ? n : 1);
    struct entry *e = NULL;
    int rc;

    memcpy(copy, text, n);
    rc = entry_parse(&e, copy, n);
    free(copy);
    if (rc == 0)
        entry_free(e);
    else
        assert_null(e);
    return rc;
}

static void sign(struct entry *e, const struct seckey *sk)
{
    struct hash digest;
    struct sig sig;

    assert_int_equal(entry_digest(&digest, e), 0);
    assert_int_equal(crypto_sign_digest(&sig, sk, &digest), 0);
    assert_int_equal(entry_set_signature(e, &sig), 0);
}

static void keys_of(const char *name, struct seckey *sk, struct pubkey *pk)
{
    const json_t *k = vec_get(vec_get(root, "keys"), name);

    vec_hex(k, "sk", sk, sizeof *sk);
    vec_hex(k, "pk", pk, sizeof *pk);
}

/* ---- recorded entries ---- */

static void test_signed_entries(void **state)
{
    const json_t *v, *list = vec_get(root, "signed_entries");
    size_t i;

    (void)state;
    assert_int_equal(json_array_size(list), 11);
    json_array_foreach(list, i, v)
    {
        struct entry *e = parse(vec_str(v, "entry_json"));
        struct hash digest[2], want;
        struct seckey sk;
        struct pubkey pk;
        struct sig sig;
        char *canon;
        size_t n, canon_len;
        uint8_t *canon_want = vec_hex_dup(v, "canonical_hex", &n);

        assert_int_equal(entry_canonical(&canon, &canon_len, e, false), 0);
        assert_int_equal(canon_len, n);
        assert_memory_equal(canon, canon_want, n);
        assert_int_equal(strlen(vec_str(v, "canonical_text")), n);
        assert_memory_equal(vec_str(v, "canonical_text"), canon, n);
        vec_hex(v, "sha256", &want, sizeof want);
        assert_int_equal(entry_check_begin(digest, e), 1);
        assert_memory_equal(&digest[0], &want, sizeof want);
        vec_hex(v, "signature", &sig, sizeof sig);
        assert_memory_equal(&e->signature, &sig, sizeof sig);
        vec_hex(v, "pk", &pk, sizeof pk);
        assert_true(pubkey_equal(&e->static_pk, &pk));
        assert_int_equal(entry_verify(e), 0);
        assert_false(e->unknown_members);
        assert_string_equal(e->text, vec_str(v, "entry_json"));

        /* The text that we make of it is the recorded one, and our own signature verifies too. */
        assert_int_equal(entry_set_signature(e, &sig), 0);
        assert_string_equal(e->text, vec_str(v, "entry_json"));
        assert_int_equal(e->text_len, strlen(e->text));
        vec_hex(v, "sk", &sk, sizeof sk);
        sign(e, &sk);
        assert_int_equal(entry_verify(e), 0);
        free(canon);
        free(canon_want);
        entry_free(e);
    }
}

/* Does it verify and yet mean something else than the recorded entry? */
static bool forged(const struct entry *e, const json_t *v)
{
    struct hash digest, want;

    vec_hex(v, "sha256", &want, sizeof want);
    assert_int_equal(entry_digest(&digest, e), 0);
    return entry_verify(e) == 0 && memcmp(&digest, &want, sizeof want) != 0;
}

/* Changing any byte of a signed text makes it no entry, or one whose signature fails, or one that
 * means the same: an unknown member instead of a null list. */
static void test_every_byte_counts(void **state)
{
    const json_t *v, *list = vec_get(root, "signed_entries");
    size_t i, k, verified = 0;

    (void)state;
    json_array_foreach(list, i, v)
    {
        char *text = strdup(vec_str(v, "entry_json"));

        for (k = 0; text[k] != '\0'; k++) {
            char old = text[k];
            struct entry *e;

            text[k] = old == 'x' ? 'y' : 'x';
            if (entry_parse(&e, text, strlen(text)) == 0) {
                assert_false(forged(e, v));
                verified += entry_verify(e) == 0;
                entry_free(e);
            }
            text[k] = old;
        }
        for (k = 0; text[k] != '\0'; k++)
            assert_true(parse_rc(text, k) < 0);
        free(text);
    }
    /* The names of members that have their zero value: a null list, no sessions, three times
     * sequence 0. */
    assert_int_equal(verified, strlen("delegated_servers") + strlen("availableSessions") +
                                   3 * strlen("sequence"));
}

/* ---- what the Go discovery said to the same bodies ---- */

enum verdict { ACCEPTED, BAD_SIGNATURE, NO_ENTRY, NO_SIGNATURE, NO_KEY, OTHER };

static enum verdict recorded_verdict(const json_t *rsp)
{
    const char *body = vec_str(rsp, "body");

    switch (vec_int(rsp, "status")) {
    case 200:
        return ACCEPTED;
    case 401:
        return BAD_SIGNATURE;
    case 500:
        return body[0] != '\0' ? NO_ENTRY : OTHER; /* empty: the store failed */
    case 422:
        if (strstr(body, "no signature") != NULL)
            return NO_SIGNATURE;
        if (strstr(body, "Keys is nil") != NULL)
            return NO_KEY;
        return OTHER;
    default:
        return OTHER;
    }
}

static enum verdict our_verdict(const char *body)
{
    struct entry *e;
    enum verdict v;
    int rc = entry_parse(&e, body, strlen(body));

    if (rc < 0)
        return NO_ENTRY;
    rc = entry_verify(e);
    v = rc == 0            ? ACCEPTED
        : rc == ERR_KEY    ? NO_KEY
        : e->has_signature ? BAD_SIGNATURE
                           : NO_SIGNATURE;
    entry_free(e);
    return v;
}

/* Bodies where we mean to differ from the 2023 service. */
static bool differs(const char *name)
{
    static const char *const names[] = {
        "set: 2026 client entry with client_type and protocol sent to the 2023 service", /* we know
                                                                                            the
                                                                                            members
                                                                                          */
        "set: json followed by garbage (accepted: only the first value is read)", /* a body is the
                                                                                     handler's
                                                                                     matter */
        "2 MiB version, wrong signature", /* over our limit */
    };

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return false;
}

static size_t compare_section(const char *section)
{
    const json_t *t, *list = vec_get(root, section);
    size_t i, compared = 0;

    json_array_foreach(list, i, t)
    {
        const json_t *req = json_object_get(t, "request");
        const char *body = req != NULL ? vec_str(req, "body") : "";
        enum verdict want;

        /* Bodies in parentheses are descriptions of large ones. */
        if (body[0] == '\0' || body[0] == '(' ||
            strncmp(vec_str(req, "path"), "/dmsg-discovery/entry", 21) != 0)
            continue;
        want = recorded_verdict(vec_get(t, "response"));
        if (want == OTHER || differs(vec_str(t, "name")))
            continue;
        if (our_verdict(body) != want)
            fail_msg("%s: %d instead of %d", vec_str(t, "name"), our_verdict(body), want);
        compared++;
    }
    return compared;
}

static void test_discovery_transcripts(void **state)
{
    (void)state;
    assert_true(compare_section("transcripts_production_mode") >= 40);
    assert_true(compare_section("transcripts_corner_cases") >= 22);
    assert_int_equal(compare_section("transcripts_test_mode"), 3);
}

/* ---- forms of one entry ---- */

static void test_other_writings_verify(void **state)
{
    /* Vector 2 (two delegated servers): reordered, spaced, names and keys in upper case, null
     * members, duplicates. */
    const json_t *v = json_array_get(vec_get(root, "signed_entries"), 2);
    char text[2048], upper[SIG_HEX + 1];
    struct entry *e;

    (void)state;
    snprintf(upper, sizeof upper, "%s", vec_str(v, "signature"));
    for (char *p = upper; *p != '\0'; p++)
        *p = (char)(*p >= 'a' && *p <= 'f' ? *p - 32 : *p);
    snprintf(
        text, sizeof text,
        "\t{ \"Signature\" : \"%s\", \"server\":null, \"client_type\":null, \"protocol\":\"\", "
        "\"SEQUENCE\":1, \"sequence\":7,\n"
        "\"client\":{\"Delegated_Servers\":["
        "\"03B5F60F093078A71D8EE6E883A7A21BA51BBA4AF7103C23C747FF2FD50681D1EF\",\n"
        "\"037b55bff8c65cc045e66dd3c0dc3c144430cf25ba20fac41c601e5d1b2ed40910\"]},\"timestamp\":"
        "1711987200123456789,\n"
        "\"\\u0073tatic\":\"02026f0997b675aa29e8b43a0365d887947b7724ea179c19931e14ee9be7e6b7dd\","
        "\"version\":\"0.0.1\" } \r\n",
        upper);
    e = parse(text);
    assert_int_equal(entry_verify(e), 0);
    assert_int_equal(e->sequence, 7);
    assert_false(e->has_server);
    /* Kept as received, without the blanks around it. */
    assert_int_equal(e->text_len, strlen(text) - 4);
    assert_memory_equal(e->text, text + 1, e->text_len);
    entry_free(e);
}

static void test_null_and_empty_lists(void **state)
{
    static const struct {
        const char *client, *canon;
    } cases[] = {
        {"{}", "{\"delegated_servers\":null}"},
        {"{\"delegated_servers\":null}", "{\"delegated_servers\":null}"},
        {"{\"delegated_servers\":[]}", "{\"delegated_servers\":[]}"},
        {"{\"delegated_servers\":[],\"delegated_servers\":null}", "{\"delegated_servers\":null}"},
        {"{\"delegated_servers\":[null,\"\",\"000\"]}",
         "{\"delegated_servers\":["
         "\"000000000000000000000000000000000000000000000000000000000000000000\","
         "\"000000000000000000000000000000000000000000000000000000000000000000\","
         "\"000000000000000000000000000000000000000000000000000000000000000000\"]}"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[512], want[512], *canon;
        struct entry *e;
        size_t n;

        snprintf(text, sizeof text, "{\"client\":%s}", cases[i].client);
        snprintf(
            want, sizeof want,
            "{\"version\":\"\",\"sequence\":0,\"timestamp\":0,\"static\":\"%066d\",\"client\":%s}",
            0, cases[i].canon);
        e = parse(text);
        assert_int_equal(entry_canonical(&canon, &n, e, false), 0);
        assert_int_equal(n, strlen(want));
        assert_memory_equal(canon, want, n);
        free(canon);
        entry_free(e);
    }
}

static void test_refused(void **state)
{
    static const struct {
        const char *text;
        int rc;
    } cases[] = {
        {"{}", ERR_NOT_FOUND}, /* tombstone */
        {" {} ", ERR_NOT_FOUND},
        {"", ERR_FORMAT},
        {"null", ERR_FORMAT},
        {"[]", ERR_FORMAT},
        {"\"x\"", ERR_FORMAT},
        {"{\"version\":\"0.0.1\"} x", ERR_FORMAT},
        {"{\"version\":\"0.0.1\"", ERR_FORMAT},
        {"{\"version\":1}", ERR_FORMAT},
        {"{\"version\":\"a\\u0000b\"}", ERR_FORMAT},
        {"{\"sequence\":-1}", ERR_FORMAT},
        {"{\"sequence\":18446744073709551616}", ERR_FORMAT},
        {"{\"timestamp\":9223372036854775808}", ERR_FORMAT},
        {"{\"timestamp\":1.0}", ERR_FORMAT},
        {"{\"static\":\"02\"}", ERR_KEY},
        {"{\"static\":7}", ERR_FORMAT},
        {"{\"static\":\"020000000000000000000000000000000000000000000000000000000000000005\"}",
         ERR_KEY},
        {"{\"client\":[]}", ERR_FORMAT},
        {"{\"client\":{\"delegated_servers\":{}}}", ERR_FORMAT},
        {"{\"client\":{\"delegated_servers\":[\"zz\"]}}", ERR_KEY},
        {"{\"server\":\"x\"}", ERR_FORMAT},
        {"{\"server\":{\"availableSessions\":\"1\"}}", ERR_FORMAT},
        {"{\"server\":{\"dht_bootstrap\":1}}", ERR_FORMAT},
        {"{\"signature\":5}", ERR_FORMAT},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int rc = parse_rc(cases[i].text, strlen(cases[i].text));
        if (rc != cases[i].rc)
            fail_msg("%s: %d instead of %d", cases[i].text, rc, cases[i].rc);
    }
}

static void test_limits(void **state)
{
    static char text[2 * ENTRY_MAX_TEXT];
    size_t n;

    (void)state;
    for (int len = ENTRY_MAX_STRING; len <= ENTRY_MAX_STRING + 1; len++) {
        sprintf(text, "{\"version\":\"%0*d\"}", len, 0);
        assert_int_equal(parse_rc(text, strlen(text)), len <= ENTRY_MAX_STRING ? 0 : ERR_TOO_LONG);
    }
    for (int count = ENTRY_MAX_DELEGATED; count <= ENTRY_MAX_DELEGATED + 1; count++) {
        n = (size_t)sprintf(text, "{\"client\":{\"delegated_servers\":[");
        for (int i = 0; i < count; i++)
            n += (size_t)sprintf(text + n, "%s\"\"", i > 0 ? "," : "");
        n += (size_t)sprintf(text + n, "]}}");
        assert_int_equal(parse_rc(text, n), count <= ENTRY_MAX_DELEGATED ? 0 : ERR_TOO_LONG);
    }
    memset(text, ' ', sizeof text);
    memcpy(text, "{\"version\":\"1\"}", 15);
    assert_int_equal(parse_rc(text, ENTRY_MAX_TEXT), 0);
    assert_int_equal(parse_rc(text, ENTRY_MAX_TEXT + 1), ERR_TOO_LONG);
    memset(text, '[', ENTRY_MAX_TEXT);
    memcpy(text, "{\"x\":", 5);
    assert_int_equal(parse_rc(text, ENTRY_MAX_TEXT), ERR_FORMAT);
}

/* ---- members of a newer generation ---- */

/* Sign the given canonical text as somebody of a newer generation would; returns the text with the
 * signature put before the last brace. */
static char *signed_text(const char *canon, const struct seckey *sk)
{
    size_t n = strlen(canon);
    char *text = malloc(n + SIG_HEX + 32);
    struct sig sig;
    char *p = text;

    assert_int_equal(crypto_sign_msg(&sig, sk, canon, n), 0);
    p += sprintf(p, "%.*s,\"signature\":\"", (int)n - 1, canon);
    for (size_t i = 0; i < SIG_BYTES; i++)
        p += sprintf(p, "%02x", sig.b[i]);
    strcpy(p, "\"}");
    return text;
}

/* An entry of server-2, signed over canon; must verify, after a round through white space as well.
 */
static void check_newer(const char *canon, bool unknown, int digests)
{
    struct seckey sk;
    struct pubkey pk;
    char *text, *spaced, *p;
    struct hash digest[2];
    struct entry *e;

    keys_of("server-2", &sk, &pk);
    text = signed_text(canon, &sk);
    e = parse(text);
    assert_int_equal(e->unknown_members, unknown);
    assert_int_equal(entry_check_begin(digest, e), digests);
    assert_int_equal(entry_verify(e), 0);
    assert_string_equal(e->text, text);
    entry_free(e);

    /* Blanks do not count, other values do. */
    spaced = p = malloc(4 * strlen(text));
    for (const char *q = text; *q != '\0'; q++) {
        *p++ = *q;
        if (*q == ',' || *q == '{' || *q == '[')
            p += sprintf(p, "\n ");
    }
    *p = '\0';
    e = parse(spaced);
    assert_int_equal(entry_verify(e), 0);
    entry_free(e);
    p = strstr(spaced, "\"new");
    if (p != NULL) {
        p[4] = 'X';
        e = parse(spaced);
        assert_int_equal(entry_verify(e), ERR_SIG);
        entry_free(e);
    }
    free(spaced);
    free(text);
}

#define HEAD                                                                                       \
    "{\"version\":\"0.0.1\",\"sequence\":1,\"timestamp\":5,\"static\":"                            \
    "\"037b55bff8c65cc045e66dd3c0dc3c144430cf25ba20fac41c601e5d1b2ed40910\","

static void test_signed_unknown_members(void **state)
{
    (void)state;
    check_newer(HEAD "\"newer\":{\"a\":[1,\"<&>\",null,{}],\"b\":1e5},\"client\":"
                     "{\"delegated_servers\":[]}}",
                true, 2);
    check_newer(HEAD "\"client\":{\"delegated_servers\":null,\"newer\":true}}", true, 2);
    check_newer(HEAD "\"client\":{\"newer\":\"\\\\\",\"delegated_servers\":[]},"
                     "\"client_type\":\"visor\"}",
                true, 2);
    check_newer(HEAD "\"server\":{\"address\":\"a:1\",\"newer\":0,"
                     "\"availableSessions\":3,\"dht_bootstrap\":true}}",
                true, 2);
    /* WebTransport members at the place we suppose, and at another one. */
    check_newer(HEAD "\"server\":{\"address\":\"a:1\",\"address_wt\":\"https://"
                     "a:1/dmsg\",\"cert_hash_wt\":"
                     "\"00\",\"availableSessions\":3}}",
                false, 1);
    check_newer(HEAD "\"server\":{\"address\":\"a:1\",\"availableSessions\":3,"
                     "\"address_wt\":\"https://a:1/dmsg\","
                     "\"cert_hash_wt\":\"00\"}}",
                false, 2);
}

/* A member that was added after signing does no harm: the first canon does not have it. */
static void test_unsigned_unknown_members(void **state)
{
    const char *text = vec_str(json_array_get(vec_get(root, "signed_entries"), 3), "entry_json");
    char *more = malloc(strlen(text) + 64);
    struct entry *e;

    (void)state;
    sprintf(more, "{\"added\":[1,2],%s", text + 1);
    e = parse(more);
    assert_true(e->unknown_members);
    assert_int_equal(entry_verify(e), 0);
    entry_free(e);
    free(more);
}

/* A server of 2026 with every carrier there is: those that we have not are no reason to refuse it, and
 * what is dialled is TCP, of IPv6 when there is no other (docs/protocol/dmsg.md §3.2, §6.2). */
static void test_carriers_of_2026(void **state)
{
    static const char *const addresses[][2] = {{"192.0.2.1:8081", "192.0.2.1:8081"},
                                               {"", "[2001:db8::1]:8081"}};
    char text[1024];

    (void)state;
    for (int i = 0; i < 2; i++) {
        snprintf(
            text, sizeof(text),
            "{\"version\":\"v1.3.70\",\"sequence\":1,\"timestamp\":5,\"static\":"
            "\"02026f0997b675aa29e8b43a0365d887947b7724ea179c19931e14ee9be7e6b7dd\",\"server\":"
            "{\"address\":\"%s\",\"address_v6\":\"[2001:db8::1]:8081\","
            "\"address_udp\":\"192.0.2.1:8081\",\"address_ws\":\"wss://a.example/dmsg\","
            "\"address_wt\":\"https://a.example:8081/dmsg\",\"cert_hash_wt\":\"00ff\","
            "\"address_pigeon\":{\"loft\":[1,2,null]},\"availableSessions\":7},"
            "\"protocol\":\"quic\",\"mood\":\"good\"}",
            addresses[i][0]);
        struct entry *e = parse(text);
        assert_true(e->has_server && !e->has_client && e->unknown_members);
        assert_int_equal(e->server.available_sessions, 7);
        assert_string_equal(entry_server_address(e), addresses[i][1]);
        entry_free(e);
    }
}

/* ---- own entries ---- */

static void test_own_client(void **state)
{
    struct pubkey servers[2], pk;
    struct seckey sk;
    struct entry *e, *again;
    static const char want[] =
        "{\"version\":\"0.0.1\",\"sequence\":9,\"timestamp\":-2,\"static\":"
        "\"02026f0997b675aa29e8b43a0365d887947b7724ea179c19931e14ee9be7e6b7dd\",\"client\":{"
        "\"delegated_servers\":"
        "[\"03b5f60f093078a71d8ee6e883a7a21ba51bba4af7103c23c747ff2fd50681d1ef\","
        "\"037b55bff8c65cc045e66dd3c0dc3c144430cf25ba20fac41c601e5d1b2ed40910\"]},\"client_type\":"
        "\"visor\"}";
    char *canon;
    size_t n;

    (void)state;
    keys_of("server-1", &sk, &servers[0]);
    keys_of("server-2", &sk, &servers[1]);
    keys_of("client-1", &sk, &pk);
    assert_int_equal(entry_new_client(&e, &pk, 9, -2, servers, 2, "visor"), 0);
    assert_int_equal(entry_canonical(&canon, &n, e, false), 0);
    assert_int_equal(n, sizeof want - 1);
    assert_memory_equal(canon, want, n);
    free(canon);
    assert_int_equal(entry_verify(e), ERR_SIG);
    sign(e, &sk);
    assert_int_equal(entry_verify(e), 0);
    assert_true(entry_delegates_to(e, &servers[1]));
    assert_false(entry_delegates_to(e, &pk));

    again = parse(e->text);
    assert_int_equal(entry_verify(again), 0);
    assert_int_equal(again->client.n_delegated, 2);
    assert_int_equal(entry_cmp(e, again), 0);
    again->sequence++;
    assert_true(entry_cmp(e, again) < 0 && entry_cmp(again, e) > 0);
    again->timestamp_ns--;
    assert_true(entry_cmp(e, again) > 0 && entry_cmp(again, e) < 0);
    entry_free(again);
    entry_free(e);

    assert_int_equal(entry_new_client(&e, &pk, 0, 1, NULL, 0, ""), 0);
    sign(e, &sk);
    assert_non_null(strstr(e->text, "\"delegated_servers\":[]}"));
    assert_null(strstr(e->text, "client_type"));
    entry_free(e);
}

static void test_own_server_and_both(void **state)
{
    char address[ENTRY_MAX_STRING + 2];
    struct pubkey pk;
    struct seckey sk;
    struct entry *e;

    (void)state;
    keys_of("server-1", &sk, &pk);
    assert_int_equal(entry_new_server(&e, &pk, 1, 2, "203.0.113.50:8081", 2048), 0);
    sign(e, &sk);
    assert_int_equal(entry_verify(e), 0);
    assert_null(strstr(e->text, "client"));
    assert_non_null(strstr(
        e->text, "\"server\":{\"address\":\"203.0.113.50:8081\",\"availableSessions\":2048}"));
    entry_free(e);

    assert_int_equal(entry_new_client(&e, &pk, 1, 2, &pk, 1, ""), 0);
    memset(address, 'a', sizeof address);
    address[ENTRY_MAX_STRING + 1] = '\0';
    assert_int_equal(entry_add_server(e, address, 1), ERR_TOO_LONG);
    assert_int_equal(entry_add_server(e, "[2001:db8::1]:8081", -3), 0);
    e->server.dht_bootstrap = true;
    sign(e, &sk);
    assert_int_equal(entry_verify(e), 0);
    assert_non_null(strstr(e->text, "\"availableSessions\":-3,\"dht_bootstrap\":true}"));
    entry_free(e);
    assert_int_equal(entry_new_server(&e, &pk, 1, 2, address, 1), ERR_TOO_LONG);
}

static void test_null_static(void **state)
{
    struct hash digest[2];
    struct entry *e = parse("{\"static\":\"\",\"signature\":\"00\"}");

    (void)state;
    assert_int_equal(entry_check_begin(digest, e), ERR_KEY);
    assert_int_equal(entry_verify(e), ERR_KEY);
    entry_free(e);
    entry_free(NULL);
}

static int setup(void **state)
{
    (void)state;
    root = vectors_load("discovery");
    return crypto_init();
}

static int teardown(void **state)
{
    (void)state;
    json_decref(root);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_signed_entries),
        cmocka_unit_test(test_every_byte_counts),
        cmocka_unit_test(test_discovery_transcripts),
        cmocka_unit_test(test_other_writings_verify),
        cmocka_unit_test(test_null_and_empty_lists),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_signed_unknown_members),
        cmocka_unit_test(test_unsigned_unknown_members),
        cmocka_unit_test(test_carriers_of_2026),
        cmocka_unit_test(test_own_client),
        cmocka_unit_test(test_own_server_and_both),
        cmocka_unit_test(test_null_static),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
