/* json: both dialects byte by byte, grammar, types, truncation at every byte, random documents and
 * random damage. */
#include "base/json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/err.h"

#define LEN(a) (sizeof(a) / sizeof((a)[0]))

static void assert_text(const struct json_out *o, const char *want)
{
    assert_int_equal(o->err, 0);
    assert_int_equal(o->len, strlen(want));
    assert_memory_equal(o->p, want, o->len);
}

/* One whole value and nothing behind it. */
static int check(const char *text, size_t n)
{
    struct json_in j = json_in_init(text, n);

    json_in_skip(&j);
    return json_in_end_input(&j);
}

/* ---- writer ---- */

/* What the two Go writers put for one byte, written down from their output. */
static void want_byte(char out[16], unsigned b, enum json_dialect dialect)
{
    static const char *const control[32] = {
        "\\u0000", "\\u0001", "\\u0002", "\\u0003", "\\u0004", "\\u0005", "\\u0006", "\\u0007",
        "\\u0008", "\\t",     "\\n",     "\\u000b", "\\u000c", "\\r",     "\\u000e", "\\u000f",
        "\\u0010", "\\u0011", "\\u0012", "\\u0013", "\\u0014", "\\u0015", "\\u0016", "\\u0017",
        "\\u0018", "\\u0019", "\\u001a", "\\u001b", "\\u001c", "\\u001d", "\\u001e", "\\u001f"};
    bool std = dialect == JSON_STD;

    if (b < 32)
        strcpy(out, std && b == 8 ? "\\b" : std && b == 12 ? "\\f" : control[b]);
    else if (b == '"' || b == '\\')
        sprintf(out, "\\%c", b);
    else if (std && (b == '<' || b == '>' || b == '&'))
        strcpy(out, b == '<' ? "\\u003c" : b == '>' ? "\\u003e" : "\\u0026");
    else if (std && b >= 0x80)
        strcpy(out, "\\ufffd");
    else
        sprintf(out, "%c", (char)b);
}

static void test_every_byte(void **state)
{
    (void)state;
    for (int d = JSON_FAST; d <= JSON_STD; d++) {
        for (unsigned b = 0; b < 256; b++) {
            char byte = (char)b, want[24] = "\"", buf[64];
            struct json_out o;

            want_byte(want + 1, b, (enum json_dialect)d);
            strcat(want, "\"");
            json_out_fixed(&o, (enum json_dialect)d, buf, sizeof buf);
            json_out_string(&o, &byte, 1);
            assert_text(&o, want);
        }
    }
}

static void test_wide_characters(void **state)
{
    static const struct {
        const char *in, *std;
    } cases[] = {
        {"\xc3\xa9", "\xc3\xa9"},
        {"a\xe2\x80\xa8z\xe2\x80\xa9", "a\\u2028z\\u2029"},
        {"\xe2\x80\xaa", "\xe2\x80\xaa"},
        {"\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80"},
        {"\xf4\x8f\xbf\xbf", "\xf4\x8f\xbf\xbf"},
        {"\xf4\x90\x80\x80", "\\ufffd\\ufffd\\ufffd\\ufffd"}, /* above U+10FFFF */
        {"\xed\xa0\x80", "\\ufffd\\ufffd\\ufffd"},            /* surrogate */
        {"\xed\x9f\xbf", "\xed\x9f\xbf"},
        {"\xc0\xaf", "\\ufffd\\ufffd"}, /* overlong */
        {"\xe0\x9f\xbf", "\\ufffd\\ufffd\\ufffd"},
        {"\xf0\x8f\xbf\xbf", "\\ufffd\\ufffd\\ufffd\\ufffd"},
        {"\xe2\x82", "\\ufffd\\ufffd"}, /* cut off */
        {"x\xe2\x28\xa1y", "x\\ufffd(\\ufffdy"},
        {"\xef\xbf\xbd", "\xef\xbf\xbd"}, /* a real U+FFFD stays */
    };

    (void)state;
    for (size_t i = 0; i < LEN(cases); i++) {
        char buf[64], want[64];
        struct json_out o;

        json_out_fixed(&o, JSON_STD, buf, sizeof buf);
        json_out_str(&o, cases[i].in);
        snprintf(want, sizeof want, "\"%s\"", cases[i].std);
        assert_text(&o, want);
        json_out_fixed(&o, JSON_FAST, buf, sizeof buf);
        json_out_str(&o, cases[i].in);
        snprintf(want, sizeof want, "\"%s\"", cases[i].in);
        assert_text(&o, want);
    }
}

static void put_sample(struct json_out *o)
{
    static const uint8_t bytes[] = {0x00, 0x9f, 0xff};
    char *room;

    json_out_object(o);
    json_out_name(o, "u");
    json_out_u64(o, UINT64_MAX);
    json_out_name(o, "i");
    json_out_array(o);
    json_out_i64(o, INT64_MIN);
    json_out_i64(o, INT64_MAX);
    json_out_i64(o, -1);
    json_out_u64(o, 0);
    json_out_array_end(o);
    json_out_name(o, "e");
    json_out_object(o);
    json_out_object_end(o);
    json_out_name(o, "n\n");
    json_out_null(o);
    json_out_name(o, "b");
    json_out_array(o);
    json_out_bool(o, true);
    json_out_bool(o, false);
    json_out_array(o);
    json_out_array_end(o);
    json_out_hex(o, bytes, sizeof bytes);
    room = json_out_plain(o, 4);
    if (room != NULL)
        memcpy(room, "QQ==", 4);
    json_out_raw(o, "[1, 2]", 6);
    json_out_array_end(o);
    json_out_object_end(o);
}

static const char sample[] =
    "{\"u\":18446744073709551615,\"i\":[-9223372036854775808,9223372036854775807,-1,0],"
    "\"e\":{},\"n\\n\":null,\"b\":[true,false,[],\"009fff\",\"QQ==\",[1, 2]]}";

static void test_writer_values(void **state)
{
    struct json_out o;

    (void)state;
    json_out_grow(&o, JSON_STD, 1 << 16);
    put_sample(&o);
    assert_text(&o, sample);
    json_out_free(&o);
}

/* Every size below the need fails with a sticky error and stays inside of the buffer; the exact
 * size fits. */
static void test_writer_caps(void **state)
{
    (void)state;
    for (size_t cap = 0; cap <= strlen(sample); cap++) {
        char *buf = malloc(cap + 1);
        struct json_out fixed, grown;

        memset(buf, 0x5a, cap + 1);
        json_out_fixed(&fixed, JSON_FAST, buf, cap);
        put_sample(&fixed);
        json_out_grow(&grown, JSON_FAST, cap);
        put_sample(&grown);
        assert_int_equal(buf[cap], 0x5a);
        if (cap == strlen(sample)) {
            assert_text(&fixed, sample);
            assert_text(&grown, sample);
        } else {
            assert_int_equal(fixed.err, ERR_TOO_LONG);
            assert_int_equal(grown.err, ERR_TOO_LONG);
            assert_null(json_out_plain(&grown, 1));
            assert_true(grown.len <= cap);
        }
        json_out_free(&grown);
        free(buf);
    }
}

/* ---- parser: grammar ---- */

static void test_grammar(void **state)
{
    static const struct {
        const char *text;
        int rc;
    } cases[] = {
        {"{}", 0},
        {" \t\r\n{ \"a\" : [ 1 , 2 ] , \"b\" : null } \n", 0},
        {"[]", 0},
        {"\"\"", 0},
        {"0", 0},
        {"-0", 0},
        {"-0.0e-0", 0},
        {"1E+05", 0},
        {"12.50", 0},
        {"true", 0},
        {"null ", 0},
        {"", ERR_SHORT},
        {"  ", ERR_SHORT},
        {"\xef\xbb\xbf{}", ERR_FORMAT}, /* byte-order mark */
        {"01", ERR_FORMAT},
        {"-", ERR_SHORT},
        {"-a", ERR_FORMAT},
        {"+1", ERR_FORMAT},
        {".5", ERR_FORMAT},
        {"1.", ERR_SHORT},
        {"1.e1", ERR_FORMAT},
        {"1e", ERR_SHORT},
        {"1e+", ERR_SHORT},
        {"1ea", ERR_FORMAT},
        {"0x10", ERR_FORMAT},
        {"Infinity", ERR_FORMAT},
        {"NaN", ERR_FORMAT},
        {"True", ERR_FORMAT},
        {"nul", ERR_SHORT},
        {"nulL", ERR_FORMAT},
        {"nullx", ERR_FORMAT},
        {"{} {}", ERR_FORMAT},
        {"{}x", ERR_FORMAT},
        {"[1,]", ERR_FORMAT},
        {"[,1]", ERR_FORMAT},
        {"[1 2]", ERR_FORMAT},
        {"[1}", ERR_FORMAT},
        {"{1:2}", ERR_FORMAT},
        {"{\"a\"}", ERR_FORMAT},
        {"{\"a\",1}", ERR_FORMAT},
        {"{\"a\":}", ERR_FORMAT},
        {"{\"a\":1,}", ERR_FORMAT},
        {"{\"a\":1]", ERR_FORMAT},
        {"{,}", ERR_FORMAT},
        {"{\"a\"::1}", ERR_FORMAT},
        {"]", ERR_FORMAT},
        {"}", ERR_FORMAT},
        {":", ERR_FORMAT},
        {",", ERR_FORMAT},
        {"'a'", ERR_FORMAT},
        {"\"a", ERR_SHORT},
        {"\"\t\"", ERR_FORMAT},
        {"\"\x1f\"", ERR_FORMAT},
        {"\"\x7f\"", 0},
        {"\"\\\"", ERR_SHORT},
        {"\"\\a\"", ERR_FORMAT},
        {"\"\\'\"", ERR_FORMAT},
        {"\"\\u12\"", ERR_FORMAT},
        {"\"\\u12g4\"", ERR_FORMAT},
        {"\"\\U1234\"", ERR_FORMAT},
        {"\"\\ud800\"", 0},
        {"\"\xff\xfe\"", 0},
        {"/* */1", ERR_FORMAT},
        {"\f1", ERR_FORMAT},
        {"\xc2\xa0"
         "1",
         ERR_FORMAT},
    };

    (void)state;
    for (size_t i = 0; i < LEN(cases); i++) {
        int rc = check(cases[i].text, strlen(cases[i].text));
        if (rc != cases[i].rc)
            fail_msg("%s: %d instead of %d", cases[i].text, rc, cases[i].rc);
    }
    assert_int_equal(check("\0", 1), ERR_FORMAT);
    assert_int_equal(check("\"\\\0\"", 4), ERR_FORMAT);
    assert_int_equal(check("1\0", 2), ERR_FORMAT);
    assert_int_equal(check(NULL, 0), ERR_SHORT);
}

static void test_two_end_modes(void **state)
{
    struct json_in j = json_in_init("{\"a\":1} trailing", 16);

    (void)state;
    assert_int_equal(json_in_end_value(&j), ERR_SHORT);
    json_in_skip(&j);
    assert_int_equal(json_in_end_value(&j), 0);
    assert_int_equal(json_in_next(&j), JSON_TOK_END);
    assert_int_equal(json_in_next(&j), JSON_TOK_END);
    assert_int_equal(json_in_end_value(&j), 0);
    assert_int_equal(json_in_end_input(&j), ERR_FORMAT);

    j = json_in_init("7", 1);
    assert_int_equal(json_in_peek(&j), JSON_TOK_NUMBER);
    assert_int_equal(json_in_end_value(&j), ERR_SHORT);
    assert_int_equal(json_in_next(&j), JSON_TOK_NUMBER);
    assert_int_equal(json_in_peek(&j), JSON_TOK_END);
    assert_int_equal(json_in_end_value(&j), 0);
}

static void test_tokens(void **state)
{
    static const enum json_tok want[] = {
        JSON_TOK_OBJECT, JSON_TOK_NAME,       JSON_TOK_ARRAY,      JSON_TOK_NUMBER,
        JSON_TOK_STRING, JSON_TOK_TRUE,       JSON_TOK_FALSE,      JSON_TOK_NULL,
        JSON_TOK_OBJECT, JSON_TOK_OBJECT_END, JSON_TOK_ARRAY_END,  JSON_TOK_NAME,
        JSON_TOK_ARRAY,  JSON_TOK_ARRAY_END,  JSON_TOK_OBJECT_END, JSON_TOK_END};
    static const char text[] = "{\"a\":[1,\"x\",true,false,null,{}],\"b\":[]}";
    struct json_in j = json_in_init(text, sizeof text - 1);

    (void)state;
    for (size_t i = 0; i < LEN(want); i++) {
        if (i % 2 == 0)
            assert_int_equal(json_in_peek(&j), want[i]);
        assert_int_equal(json_in_next(&j), want[i]);
    }
}

/* A proper prefix of an object or array is never complete, and reading it stays inside of it. */
static void test_truncation(void **state)
{
    static const char text[] = "{\"a\":[1,-2.5e+10,\"x\\u00e9\\n\\ud83d\\ude00\"],\"b\":{\"c\":"
                               "true,\"d\":false,\"e\":null}}";

    (void)state;
    for (size_t n = 0; n < sizeof text - 1; n++) {
        char *copy = malloc(n > 0 ? n : 1);

        memcpy(copy, text, n);
        assert_int_equal(check(copy, n), ERR_SHORT);
        free(copy);
    }
    assert_int_equal(check(text, sizeof text - 1), 0);
}

static void test_depth(void **state)
{
    char text[4 * JSON_DEPTH_MAX];

    (void)state;
    for (size_t depth = JSON_DEPTH_MAX - 1; depth <= JSON_DEPTH_MAX + 1; depth++) {
        memset(text, '[', depth);
        memset(text + depth, ']', depth);
        assert_int_equal(check(text, 2 * depth), depth <= JSON_DEPTH_MAX ? 0 : ERR_LIMIT);
    }
    /* Mixed levels: every closing bracket has to be of its own kind. */
    assert_int_equal(check("[{\"a\":[{\"b\":[[{}]]}]}]", 22), 0);
    assert_int_equal(check("[{\"a\":[{\"b\":[[{]}]}]}]", 22), ERR_FORMAT);
    assert_int_equal(check("[[[{\"a\":[}]]]]", 14), ERR_FORMAT);
}

/* ---- parser: values ---- */

static void test_integers(void **state)
{
    static const struct {
        const char *text;
        bool is_u, is_i;
    } cases[] = {
        {"0", true, true},
        {"-0", false, true},
        {"9223372036854775807", true, true},
        {"9223372036854775808", true, false},
        {"18446744073709551615", true, false},
        {"18446744073709551616", false, false},
        {"28446744073709551615", false, false},
        {"184467440737095516150", false, false},
        {"-1", false, true},
        {"-9223372036854775808", false, true},
        {"-9223372036854775809", false, false},
        {"1e0", false, false},
        {"1.0", false, false},
        {"\"1\"", false, false},
        {"true", false, false},
        {"[1]", false, false},
        {"{}", false, false},
    };

    (void)state;
    for (size_t i = 0; i < LEN(cases); i++) {
        size_t n = strlen(cases[i].text);
        struct json_in ju = json_in_init(cases[i].text, n), ji = ju;
        uint64_t u = 77;
        int64_t v = 77;

        assert_int_equal(json_in_u64(&ju, &u), cases[i].is_u);
        assert_int_equal(ju.err, cases[i].is_u ? 0 : ERR_FORMAT);
        assert_int_equal(json_in_i64(&ji, &v), cases[i].is_i);
        assert_int_equal(ji.err, cases[i].is_i ? 0 : ERR_FORMAT);
        if (cases[i].is_u)
            assert_true(u == strtoull(cases[i].text, NULL, 10));
        else
            assert_true(u == 77);
        if (cases[i].is_i)
            assert_true(v == strtoll(cases[i].text, NULL, 10));
        else
            assert_true(v == 77);
    }
    struct json_in j = json_in_init("[255,256]", 9);
    uint64_t u = 0;
    assert_true(json_in_array(&j) && json_in_element(&j) && json_in_uint(&j, 255, &u));
    assert_int_equal(u, 255);
    assert_true(json_in_element(&j));
    assert_false(json_in_uint(&j, 255, &u));
    assert_int_equal(j.err, ERR_FORMAT);
}

static void test_null_keeps_defaults(void **state)
{
    static const char text[] = "[null,null,null,null,null,null]";
    struct json_in j = json_in_init(text, sizeof text - 1);
    uint64_t u = 5;
    int64_t i = -5;
    bool b = true;
    char s[4] = "abc";
    size_t n = 3;

    (void)state;
    assert_true(json_in_array(&j));
    assert_true(json_in_element(&j) && !json_in_u64(&j, &u));
    assert_true(json_in_element(&j) && !json_in_i64(&j, &i));
    assert_true(json_in_element(&j) && !json_in_bool(&j, &b));
    assert_true(json_in_element(&j) && !json_in_string(&j, s, sizeof s, &n));
    assert_true(json_in_element(&j) && !json_in_object(&j));
    assert_true(json_in_element(&j) && !json_in_array(&j));
    assert_false(json_in_element(&j));
    assert_int_equal(json_in_end_input(&j), 0);
    assert_true(u == 5 && i == -5 && b && n == 3);
    assert_string_equal(s, "abc");
}

static void test_strings(void **state)
{
    static const struct {
        const char *text, *want;
        size_t n;
    } cases[] = {
        {"\"\"", "", 0},
        {"\"a\\\"\\\\\\/\\b\\f\\n\\r\\tz\"", "a\"\\/\b\f\n\r\tz", 10},
        {"\"\\u0041\\u00e9\\u20AC\"", "A\xc3\xa9\xe2\x82\xac", 6},
        {"\"\\u0000x\"", "\0x", 2},
        {"\"\\ud83d\\ude00\"", "\xf0\x9f\x98\x80", 4},
        {"\"\\uDBFF\\uDFFF\"", "\xf4\x8f\xbf\xbf", 4},
        {"\"\\ud83d\"", "\xef\xbf\xbd", 3},
        {"\"\\ude00\"", "\xef\xbf\xbd", 3},
        {"\"\\ud83dx\"", "\xef\xbf\xbdx", 4},
        {"\"\\ud83d\\u0041\"", "\xef\xbf\xbd\x41", 4},
        {"\"\\ud83d\\n\"", "\xef\xbf\xbd\n", 4},
        {"\"\\ud83d\\ud83d\\ude00\"", "\xef\xbf\xbd\xf0\x9f\x98\x80", 7},
        {"\"\\ude00\\ud83d\"", "\xef\xbf\xbd\xef\xbf\xbd", 6},
        {"\"\xff\"", "\xef\xbf\xbd", 3},
        {"\"\xe2\x82\"", "\xef\xbf\xbd\xef\xbf\xbd", 6},
        {"\"\xed\xa0\x80\"", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd", 9},
        {"\"\xf0\x9f\x98\x80\"", "\xf0\x9f\x98\x80", 4},
    };

    (void)state;
    for (size_t i = 0; i < LEN(cases); i++) {
        size_t len = strlen(cases[i].text), n = 99;

        /* Too small by one, exact, and larger than needed. */
        for (size_t cap = 0; cap <= cases[i].n + 8; cap++) {
            struct json_in j = json_in_init(cases[i].text, len);
            char out[32];
            bool fits = cap > cases[i].n;

            assert_int_equal(json_in_string(&j, out, cap, &n), fits);
            assert_int_equal(json_in_end_input(&j), fits ? 0 : ERR_TOO_LONG);
            if (!fits)
                continue;
            assert_int_equal(n, cases[i].n);
            assert_memory_equal(out, cases[i].want, n + 1);
        }
    }
}

static void test_plain_flag(void **state)
{
    static const char text[] = "[\"abc\",\"a\\u0062c\",\"\xc3\xa9\",\"\"]";
    static const bool want[] = {true, false, false, true};
    struct json_in j = json_in_init(text, sizeof text - 1);

    (void)state;
    assert_true(json_in_array(&j));
    for (size_t i = 0; json_in_element(&j); i++) {
        assert_int_equal(json_in_next(&j), JSON_TOK_STRING);
        assert_int_equal(j.plain, want[i]);
    }
    assert_int_equal(json_in_end_input(&j), 0);
}

static void test_names(void **state)
{
    static const struct {
        const char *text, *name;
        bool equal;
    } cases[] = {
        {"{\"sequence\":1}", "sequence", true},
        {"{\"SEQuence\":1}", "sequence", true},
        {"{\"sequence\":1}", "SEQUENCE", true},
        {"{\"sequence\":1}", "sequenc", false},
        {"{\"sequenc\":1}", "sequence", false},
        {"{\"\":1}", "", true},
        {"{\"\":1}", "a", false},
        {"{\"a\":1}", "", false},
        {"{\"s\\u0065q\":1}", "seq", true},
        {"{\"\\u0053EQ\":1}", "seq", true},
        {"{\"\xc5\xbf"
         "eq\":1}",
         "seq", true}, /* U+017F */
        {"{\"\\u017feq\":1}", "Seq", true},
        {"{\"\xe2\x84\xaa\":1}", "k", true}, /* U+212A */
        {"{\"\\u212a\":1}", "K", true},
        {"{\"\xc4\xb1"
         "d\":1}",
         "id", false}, /* U+0131 folds to itself */
        {"{\"se\xc3\xa9\":1}", "see", false},
        {"{\"seq \":1}", "seq", false},
        {"{\"seq\\u0000\":1}", "seq", false},
        {"{\"[\":1}", "{", false}, /* differ by 0x20 but are no letters */
        {"{\"@\":1}", "`", false},
    };

    (void)state;
    for (size_t i = 0; i < LEN(cases); i++) {
        struct json_in j = json_in_init(cases[i].text, strlen(cases[i].text));

        assert_true(json_in_object(&j));
        assert_true(json_in_member(&j));
        if (json_in_name_is(&j, cases[i].name) != cases[i].equal)
            fail_msg("%s / %s", cases[i].text, cases[i].name);
        json_in_skip(&j);
        assert_false(json_in_member(&j));
        assert_int_equal(json_in_end_input(&j), 0);
    }
    static const char *const names[] = {"k", "seq", "sig"};
    struct json_in j = json_in_init("{\"SIG\":1,\"x\":2}", 15);
    assert_true(json_in_object(&j) && json_in_member(&j));
    assert_int_equal(json_in_name_find(&j, names, 3), 2);
    json_in_skip(&j);
    assert_true(json_in_member(&j));
    assert_int_equal(json_in_name_find(&j, names, 3), -1);
}

static void test_last_duplicate_wins(void **state)
{
    static const char text[] = "{\"a\":1,\"A\":2,\"a\":null}";
    struct json_in j = json_in_init(text, sizeof text - 1);
    uint64_t a = 0;

    (void)state;
    if (json_in_object(&j))
        while (json_in_member(&j)) {
            if (json_in_name_is(&j, "a"))
                json_in_u64(&j, &a);
            else
                json_in_skip(&j);
        }
    assert_int_equal(json_in_end_input(&j), 0);
    assert_int_equal(a, 2);
}

static void test_skip_text(void **state)
{
    static const char text[] = "{ \"a\" : { \"x\" : [ 1, 2 ] } , \"b\" : \"s\\\"\" , \"c\":-1.5 }";
    static const char *const want[] = {"{ \"x\" : [ 1, 2 ] }", "\"s\\\"\"", "-1.5"};
    struct json_in j = json_in_init(text, sizeof text - 1);
    const char *p;
    size_t n;

    (void)state;
    assert_true(json_in_object(&j));
    for (size_t i = 0; json_in_member(&j); i++) {
        json_in_skip_text(&j, &p, &n);
        assert_int_equal(n, strlen(want[i]));
        assert_memory_equal(p, want[i], n);
    }
    assert_int_equal(json_in_end_input(&j), 0);
    assert_int_equal(check("]", 1), ERR_FORMAT);
}

/* Reading in the wrong place is an error, not a loop. */
static void test_misplaced_reads(void **state)
{
    struct json_in j = json_in_init("{\"a\":1}", 7);

    (void)state;
    assert_false(json_in_array(&j));
    assert_int_equal(j.err, ERR_FORMAT);
    assert_false(json_in_element(&j));
    assert_false(json_in_member(&j));
    assert_int_equal(json_in_next(&j), JSON_TOK_ERROR);
    assert_int_equal(json_in_peek(&j), JSON_TOK_ERROR);

    j = json_in_init("1", 1);
    json_in_skip(&j);
    assert_false(json_in_element(&j));
    assert_int_equal(j.err, ERR_FORMAT);
    j = json_in_init("1", 1);
    json_in_skip(&j);
    assert_false(json_in_member(&j));
    assert_int_equal(j.err, ERR_FORMAT);
    j = json_in_init("[]", 2);
    assert_true(json_in_array(&j));
    json_in_skip(&j);
    assert_int_equal(j.err, ERR_FORMAT);
    j = json_in_init("[1]", 3);
    json_in_fail(&j, ERR_KEY);
    json_in_fail(&j, ERR_SIG);
    assert_int_equal(json_in_end_value(&j), ERR_KEY);
}

/* ---- copies and random documents ---- */

static void test_copy_value(void **state)
{
    static const char in[] =
        " { \"a<\" : [ 1e5 , \"\\u003c\\/\\u0008\xff\" , { } ] , \"\\u0062\" : null } ";
    static const char fast[] = "{\"a<\":[1e5,\"</\\u0008\xef\xbf\xbd\",{}],\"b\":null}";
    static const char std[] = "{\"a\\u003c\":[1e5,\"\\u003c/\\b\xef\xbf\xbd\",{}],\"b\":null}";

    (void)state;
    for (int d = JSON_FAST; d <= JSON_STD; d++) {
        struct json_in j = json_in_init(in, sizeof in - 1);
        char buf[128];
        struct json_out o;

        json_out_fixed(&o, (enum json_dialect)d, buf, sizeof buf);
        json_out_copy_value(&o, &j);
        assert_int_equal(json_in_end_input(&j), 0);
        assert_text(&o, d == JSON_FAST ? fast : std);
    }
}

static uint64_t rng;

static unsigned rnd(unsigned bound)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return (unsigned)(rng >> 33) % bound;
}

static void put_random(struct json_out *o, unsigned depth)
{
    char s[24];
    unsigned n = rnd(sizeof s), kind = rnd(depth > 0 ? 7 : 5);

    for (unsigned i = 0; i < n; i++)
        s[i] = (char)(rnd(4) ? rnd(128) : rnd(256));
    switch (kind) {
    case 0:
        json_out_string(o, s, n);
        break;
    case 1:
        json_out_u64(o, rng);
        break;
    case 2:
        json_out_i64(o, (int64_t)rng);
        break;
    case 3:
        json_out_bool(o, n & 1);
        break;
    case 4:
        json_out_null(o);
        break;
    case 5:
        json_out_array(o);
        for (unsigned i = rnd(5); i > 0; i--)
            put_random(o, depth - 1);
        json_out_array_end(o);
        break;
    default:
        json_out_object(o);
        for (unsigned i = rnd(5); i > 0; i--) {
            json_out_name_n(o, s, n);
            put_random(o, depth - 1);
        }
        json_out_object_end(o);
    }
}

static void seed_rng(void)
{
    const char *seed = getenv("KADMSG_SEED");

    rng = seed != NULL ? strtoull(seed, NULL, 0) : 0x6a736f6e2e746573;
    rng |= 1;
    print_message("seed: KADMSG_SEED=0x%llx\n", (unsigned long long)rng);
}

/* What the writer made parses, and copying it gives the same bytes; damage of one byte never
 * crashes and is judged alike by skip and copy. */
static void test_random_documents(void **state)
{
    (void)state;
    seed_rng();
    for (int round = 0; round < 3000; round++) {
        struct json_out o, again;
        struct json_in j;

        json_out_grow(&o, JSON_STD, 1 << 20);
        put_random(&o, 5);
        assert_int_equal(o.err, 0);
        j = json_in_init(o.p, o.len);
        json_out_grow(&again, JSON_STD, 1 << 20);
        json_out_copy_value(&again, &j);
        assert_int_equal(json_in_end_input(&j), 0);
        /* Writer B turns invalid bytes into an escape, and reading the escape gives the character
         * itself. */
        if (memmem(o.p, o.len, "\\ufffd", 6) == NULL) {
            assert_int_equal(again.len, o.len);
            assert_memory_equal(again.p, o.p, o.len);
        }
        o.p[rnd((unsigned)o.len)] = (char)rnd(256);
        json_out_free(&again);
        json_out_grow(&again, JSON_FAST, 1 << 20);
        j = json_in_init(o.p, o.len);
        json_out_copy_value(&again, &j);
        assert_int_equal(check(o.p, o.len), json_in_end_input(&j));
        json_out_free(&again);
        json_out_free(&o);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_byte),
        cmocka_unit_test(test_wide_characters),
        cmocka_unit_test(test_writer_values),
        cmocka_unit_test(test_writer_caps),
        cmocka_unit_test(test_grammar),
        cmocka_unit_test(test_two_end_modes),
        cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_truncation),
        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_integers),
        cmocka_unit_test(test_null_keeps_defaults),
        cmocka_unit_test(test_strings),
        cmocka_unit_test(test_plain_flag),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_last_duplicate_wins),
        cmocka_unit_test(test_skip_text),
        cmocka_unit_test(test_misplaced_reads),
        cmocka_unit_test(test_copy_value),
        cmocka_unit_test(test_random_documents),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
