#include "base/json.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/hex.h"
#include "base/json_double.h"

/* What may come next. */
enum {
    EXPECT_VALUE,
    EXPECT_VALUE_OR_END, /* behind [ */
    EXPECT_NAME,         /* behind , in an object */
    EXPECT_NAME_OR_END,  /* behind { */
    EXPECT_COLON,
    EXPECT_SEPARATOR, /* behind a value: , or end */
};

/* ---- UTF-8 ------------------------------------------------------------------------------------
 */

/* Length of the valid sequence at p, 0 when there is none (overlong, surrogate, above U+10FFFF, cut
 * off). */
static size_t utf8_len(const unsigned char *p, size_t left)
{
    unsigned char lo = 0x80, hi = 0xbf;
    size_t n;

    if (p[0] < 0x80)
        return 1;
    if (p[0] < 0xc2 || p[0] > 0xf4)
        return 0;
    n = p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
    if (left < n)
        return 0;
    if (p[0] == 0xe0)
        lo = 0xa0;
    else if (p[0] == 0xed)
        hi = 0x9f;
    else if (p[0] == 0xf0)
        lo = 0x90;
    else if (p[0] == 0xf4)
        hi = 0x8f;
    if (p[1] < lo || p[1] > hi)
        return 0;
    for (size_t i = 2; i < n; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    return n;
}

static size_t utf8_put(char out[4], uint32_t c)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3f));
        out[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3f));
    out[2] = (char)(0x80 | (c >> 6 & 0x3f));
    out[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

/* ---- strings ----------------------------------------------------------------------------------
 */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* Value of \uXXXX at p, or -1 when there is none. */
static int32_t escape_unit(const char *p, const char *end)
{
    int32_t v = 0;

    if (end - p < 6 || p[0] != '\\' || p[1] != 'u')
        return -1;
    for (int i = 2; i < 6; i++) {
        int d = hex_digit(p[i]);
        if (d < 0)
            return -1;
        v = v << 4 | d;
    }
    return v;
}

/* Code point of the \u escape at *p. Half a surrogate pair becomes U+FFFD, and what follows is read
 * by itself. */
static uint32_t escape_point(const char **p, const char *end)
{
    int32_t hi = escape_unit(*p, end), lo;

    *p += 6;
    if (hi < 0xd800 || hi > 0xdfff)
        return (uint32_t)hi;
    lo = escape_unit(*p, end);
    if (hi > 0xdbff || lo < 0xdc00 || lo > 0xdfff)
        return 0xfffd;
    *p += 6;
    return 0x10000u + ((uint32_t)(hi - 0xd800) << 10) + (uint32_t)(lo - 0xdc00);
}

/* Decode one character of a string that scan_string() has accepted; returns the bytes put into out.
 */
static size_t string_step(const char **p, const char *end, char out[4])
{
    char c = **p;
    size_t n;

    if (c == '\\') {
        if ((*p)[1] == 'u')
            return utf8_put(out, escape_point(p, end));
        switch ((*p)[1]) {
        case 'b':
            out[0] = '\b';
            break;
        case 'f':
            out[0] = '\f';
            break;
        case 'n':
            out[0] = '\n';
            break;
        case 'r':
            out[0] = '\r';
            break;
        case 't':
            out[0] = '\t';
            break;
        default: /* " \ / stand for themselves */
            out[0] = (*p)[1];
        }
        *p += 2;
        return 1;
    }
    n = utf8_len((const unsigned char *)*p, (size_t)(end - *p));
    if (n == 0) {
        (*p)++;
        return utf8_put(out, 0xfffd);
    }
    memcpy(out, *p, n);
    *p += n;
    return n;
}

/* ---- scanner ----------------------------------------------------------------------------------
 */

void json_in_fail(struct json_in *j, int err)
{
    assert(err < 0);
    if (j->err == 0)
        j->err = err;
    j->tok = JSON_TOK_ERROR;
    j->held = false;
}

static enum json_tok fail(struct json_in *j, int err)
{
    json_in_fail(j, err);
    return JSON_TOK_ERROR;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static void skip_blanks(struct json_in *j)
{
    while (j->pos < j->end && is_blank(*j->pos))
        j->pos++;
}

static int scan_escape(struct json_in *j)
{
    if (j->end - j->pos < 2)
        return ERR_SHORT;
    if (j->pos[1] == 'u') {
        for (int i = 2; i < 6; i++) {
            if (j->end - j->pos <= i)
                return ERR_SHORT;
            if (hex_digit(j->pos[i]) < 0)
                return ERR_FORMAT;
        }
        j->pos += 6;
        return 0;
    }
    if (j->pos[1] == '\0' || strchr("\"\\/bfnrt", j->pos[1]) == NULL)
        return ERR_FORMAT;
    j->pos += 2;
    return 0;
}

/* pos is behind the opening quote; leaves it behind the closing one. */
static int scan_string(struct json_in *j)
{
    j->text = j->pos;
    j->plain = true;
    while (j->pos < j->end) {
        unsigned char c = (unsigned char)*j->pos;
        if (c == '"') {
            j->text_len = (size_t)(j->pos - j->text);
            j->pos++;
            return 0;
        }
        if (c < 0x20)
            return ERR_FORMAT;
        if (c == '\\') {
            int rc = scan_escape(j);
            if (rc < 0)
                return rc;
            j->plain = false;
        } else {
            j->plain = j->plain && c < 0x80;
            j->pos++;
        }
    }
    return ERR_SHORT;
}

/* One or more digits. */
static int scan_digits(struct json_in *j)
{
    if (j->pos == j->end)
        return ERR_SHORT;
    if (*j->pos < '0' || *j->pos > '9')
        return ERR_FORMAT;
    while (j->pos < j->end && *j->pos >= '0' && *j->pos <= '9')
        j->pos++;
    return 0;
}

static int scan_number(struct json_in *j)
{
    int rc;

    j->text = j->pos;
    if (*j->pos == '-')
        j->pos++;
    if (j->pos < j->end && *j->pos == '0')
        j->pos++;
    else if ((rc = scan_digits(j)) < 0)
        return rc;
    if (j->pos < j->end && *j->pos == '.') {
        j->pos++;
        if ((rc = scan_digits(j)) < 0)
            return rc;
    }
    if (j->pos < j->end && (*j->pos == 'e' || *j->pos == 'E')) {
        j->pos++;
        if (j->pos < j->end && (*j->pos == '+' || *j->pos == '-'))
            j->pos++;
        if ((rc = scan_digits(j)) < 0)
            return rc;
    }
    j->text_len = (size_t)(j->pos - j->text);
    return 0;
}

static int scan_word(struct json_in *j, const char *word)
{
    j->text = j->pos;
    for (; *word != '\0'; word++, j->pos++) {
        if (j->pos == j->end)
            return ERR_SHORT;
        if (*j->pos != *word)
            return ERR_FORMAT;
    }
    j->text_len = (size_t)(j->pos - j->text);
    return 0;
}

static bool top_is_object(const struct json_in *j)
{
    unsigned i = j->depth - 1;

    return j->in_object[i / 64] >> (i % 64) & 1;
}

static enum json_tok enter(struct json_in *j, bool object)
{
    uint64_t bit = (uint64_t)1 << (j->depth % 64);

    if (j->depth == JSON_DEPTH_MAX)
        return fail(j, ERR_LIMIT);
    if (object)
        j->in_object[j->depth / 64] |= bit;
    else
        j->in_object[j->depth / 64] &= ~bit;
    j->depth++;
    j->text = j->pos++;
    j->text_len = 1;
    j->expect = object ? EXPECT_NAME_OR_END : EXPECT_VALUE_OR_END;
    return j->tok = object ? JSON_TOK_OBJECT : JSON_TOK_ARRAY;
}

static enum json_tok leave(struct json_in *j)
{
    j->tok = top_is_object(j) ? JSON_TOK_OBJECT_END : JSON_TOK_ARRAY_END;
    j->depth--;
    j->text = j->pos++;
    j->text_len = 1;
    j->expect = EXPECT_SEPARATOR;
    return j->tok;
}

static enum json_tok next_value(struct json_in *j)
{
    enum json_tok tok;
    int rc;

    switch (*j->pos) {
    case '{':
    case '[':
        return enter(j, *j->pos == '{');
    case '"':
        j->pos++;
        tok = JSON_TOK_STRING;
        rc = scan_string(j);
        break;
    case 't':
        tok = JSON_TOK_TRUE;
        rc = scan_word(j, "true");
        break;
    case 'f':
        tok = JSON_TOK_FALSE;
        rc = scan_word(j, "false");
        break;
    case 'n':
        tok = JSON_TOK_NULL;
        rc = scan_word(j, "null");
        break;
    default:
        tok = JSON_TOK_NUMBER;
        rc = *j->pos == '-' || (*j->pos >= '0' && *j->pos <= '9') ? scan_number(j) : ERR_FORMAT;
    }
    if (rc < 0)
        return fail(j, rc);
    j->expect = EXPECT_SEPARATOR;
    return j->tok = tok;
}

static enum json_tok next_name(struct json_in *j)
{
    int rc;

    if (*j->pos != '"')
        return fail(j, ERR_FORMAT);
    j->pos++;
    rc = scan_string(j);
    if (rc < 0)
        return fail(j, rc);
    j->name = j->text;
    j->name_len = j->text_len;
    j->name_plain = j->plain;
    j->expect = EXPECT_COLON;
    return j->tok = JSON_TOK_NAME;
}

struct json_in json_in_init(const void *p, size_t n)
{
    struct json_in j = {.tok = JSON_TOK_ERROR, .expect = EXPECT_VALUE, .name = ""};

    j.pos = n > 0 ? p : "";
    j.end = j.pos + n;
    return j;
}

enum json_tok json_in_next(struct json_in *j)
{
    if (j->held) {
        j->held = false;
        return j->tok;
    }
    if (j->err < 0)
        return JSON_TOK_ERROR;
    if (j->depth == 0 && j->expect == EXPECT_SEPARATOR)
        return j->tok = JSON_TOK_END;
    skip_blanks(j);
    if (j->pos < j->end && j->expect == EXPECT_COLON) {
        if (*j->pos != ':')
            return fail(j, ERR_FORMAT);
        j->pos++;
        j->expect = EXPECT_VALUE;
        skip_blanks(j);
    }
    if (j->pos < j->end && j->expect == EXPECT_SEPARATOR && *j->pos == ',') {
        j->pos++;
        j->expect = top_is_object(j) ? EXPECT_NAME : EXPECT_VALUE;
        skip_blanks(j);
    }
    if (j->pos == j->end)
        return fail(j, ERR_SHORT);
    switch (j->expect) {
    case EXPECT_VALUE_OR_END:
        return *j->pos == ']' ? leave(j) : next_value(j);
    case EXPECT_NAME_OR_END:
        return *j->pos == '}' ? leave(j) : next_name(j);
    case EXPECT_NAME:
        return next_name(j);
    case EXPECT_SEPARATOR:
        return *j->pos == (top_is_object(j) ? '}' : ']') ? leave(j) : fail(j, ERR_FORMAT);
    default:
        return next_value(j);
    }
}

enum json_tok json_in_peek(struct json_in *j)
{
    if (!j->held) {
        json_in_next(j);
        j->held = j->err == 0;
    }
    return j->err < 0 ? JSON_TOK_ERROR : j->tok;
}

int json_in_end_value(struct json_in *j)
{
    if (j->err < 0)
        return j->err;
    return j->depth == 0 && j->expect == EXPECT_SEPARATOR && (!j->held || j->tok == JSON_TOK_END)
               ? 0
               : ERR_SHORT;
}

int json_in_end_input(struct json_in *j)
{
    int rc = json_in_end_value(j);

    if (rc < 0)
        return rc;
    skip_blanks(j);
    return j->pos == j->end ? 0 : ERR_FORMAT;
}

/* ---- values -----------------------------------------------------------------------------------
 */

/* Consume the next token; false for null and, with the error set, for anything but want. */
static bool take(struct json_in *j, enum json_tok want)
{
    enum json_tok tok = json_in_next(j);

    if (tok == want)
        return true;
    if (tok != JSON_TOK_NULL)
        json_in_fail(j, ERR_FORMAT);
    return false;
}

bool json_in_object(struct json_in *j)
{
    return take(j, JSON_TOK_OBJECT);
}

bool json_in_array(struct json_in *j)
{
    return take(j, JSON_TOK_ARRAY);
}

bool json_in_member(struct json_in *j)
{
    enum json_tok tok = json_in_next(j);

    if (tok != JSON_TOK_NAME && tok != JSON_TOK_OBJECT_END)
        json_in_fail(j, ERR_FORMAT);
    return tok == JSON_TOK_NAME;
}

bool json_in_element(struct json_in *j)
{
    enum json_tok tok = json_in_peek(j);

    if (tok == JSON_TOK_ARRAY_END)
        json_in_next(j);
    else if (tok == JSON_TOK_OBJECT_END || tok == JSON_TOK_NAME || tok == JSON_TOK_END)
        json_in_fail(j, ERR_FORMAT);
    return j->err == 0 && tok != JSON_TOK_ARRAY_END;
}

/* Next character of a member name, folded; characters that fold to no ASCII one give a value above.
 */
static unsigned name_step(const char **p, const char *end)
{
    char c[4];
    size_t n = string_step(p, end, c);

    if (n == 1)
        return c[0] >= 'A' && c[0] <= 'Z' ? (unsigned)(c[0] - 'A' + 'a') : (unsigned)c[0];
    if (n == 2 && memcmp(c, "\xc5\xbf", 2) == 0)
        return 's';
    if (n == 3 && memcmp(c, "\xe2\x84\xaa", 3) == 0)
        return 'k';
    return 0x80;
}

bool json_in_name_is(const struct json_in *j, const char *name)
{
    const char *p = j->name_len > 0 ? j->name : "", *end = p + j->name_len;
    size_t n = strlen(name);

    if (j->name_plain && n != j->name_len)
        return false;
    for (const char *q = name; q < name + n;) {
        if (p == end || name_step(&p, end) != name_step(&q, name + n))
            return false;
    }
    return p == end;
}

int json_in_name_find(const struct json_in *j, const char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (json_in_name_is(j, names[i]))
            return (int)i;
    return -1;
}

/* Digits only, at most max. */
static bool parse_digits(const char *p, size_t n, uint64_t max, uint64_t *out)
{
    uint64_t v = 0;

    for (size_t i = 0; i < n; i++) {
        unsigned d = (unsigned)(unsigned char)p[i] - '0';
        if (d > 9 || v > max / 10 || v * 10 > max - d)
            return false;
        v = v * 10 + d;
    }
    *out = v;
    return n > 0;
}

bool json_in_uint(struct json_in *j, uint64_t max, uint64_t *out)
{
    if (!take(j, JSON_TOK_NUMBER))
        return false;
    if (parse_digits(j->text, j->text_len, max, out))
        return true;
    json_in_fail(j, ERR_FORMAT);
    return false;
}

bool json_in_u64(struct json_in *j, uint64_t *out)
{
    return json_in_uint(j, UINT64_MAX, out);
}

bool json_in_i64(struct json_in *j, int64_t *out)
{
    bool negative;
    uint64_t v;

    if (!take(j, JSON_TOK_NUMBER))
        return false;
    negative = j->text[0] == '-';
    if (!parse_digits(j->text + negative, j->text_len - negative, (uint64_t)INT64_MAX + negative,
                      &v)) {
        json_in_fail(j, ERR_FORMAT);
        return false;
    }
    *out = (int64_t)(negative ? 0 - v : v);
    return true;
}

bool json_in_bool(struct json_in *j, bool *out)
{
    enum json_tok tok = json_in_next(j);

    if (tok != JSON_TOK_TRUE && tok != JSON_TOK_FALSE) {
        if (tok != JSON_TOK_NULL)
            json_in_fail(j, ERR_FORMAT);
        return false;
    }
    *out = tok == JSON_TOK_TRUE;
    return true;
}

bool json_in_string(struct json_in *j, char *out, size_t cap, size_t *n)
{
    size_t len = 0;

    if (!take(j, JSON_TOK_STRING))
        return false;
    for (const char *p = j->text, *end = p + j->text_len; p < end;) {
        char c[4];
        size_t k = string_step(&p, end, c);
        if (len >= cap || cap - len <= k)
            goto too_long;
        memcpy(out + len, c, k);
        len += k;
    }
    if (cap == 0)
        goto too_long;
    out[len] = '\0';
    *n = len;
    return true;
too_long:
    json_in_fail(j, ERR_TOO_LONG);
    return false;
}

void json_in_skip_text(struct json_in *j, const char **p, size_t *n)
{
    enum json_tok tok = json_in_peek(j);
    const char *start = tok == JSON_TOK_STRING ? j->text - 1 : j->text;
    unsigned depth;

    if (tok == JSON_TOK_OBJECT_END || tok == JSON_TOK_ARRAY_END || tok == JSON_TOK_NAME ||
        tok == JSON_TOK_END)
        json_in_fail(j, ERR_FORMAT);
    json_in_next(j);
    if (tok == JSON_TOK_OBJECT || tok == JSON_TOK_ARRAY)
        for (depth = j->depth; j->err == 0 && j->depth >= depth;)
            json_in_next(j);
    if (j->err < 0)
        return;
    if (p != NULL)
        *p = start;
    if (n != NULL)
        *n = (size_t)(j->pos - start);
}

void json_in_skip(struct json_in *j)
{
    json_in_skip_text(j, NULL, NULL);
}

/* ---- writer -----------------------------------------------------------------------------------
 */

void json_out_fixed(struct json_out *o, enum json_dialect dialect, void *buf, size_t cap)
{
    *o = (struct json_out){.p = buf, .cap = cap, .max = cap, .dialect = dialect};
}

void json_out_grow(struct json_out *o, enum json_dialect dialect, size_t max)
{
    *o = (struct json_out){.max = max, .dialect = dialect, .grows = true};
}

void json_out_free(struct json_out *o)
{
    if (o->grows)
        free(o->p);
    o->p = NULL;
    o->len = o->cap = 0;
}

/* Room for n more bytes; NULL when there is none (the error is set then). */
static char *room(struct json_out *o, size_t n)
{
    size_t cap = o->cap;
    char *p;

    if (o->err < 0)
        return NULL;
    if (n <= o->cap - o->len)
        return o->p + o->len;
    if (n > o->max - o->len) {
        o->err = ERR_TOO_LONG;
        return NULL;
    }
    if (cap < 256)
        cap = 256;
    while (cap < o->len + n && cap <= o->max / 2)
        cap *= 2;
    if (cap < o->len + n || cap > o->max)
        cap = o->max;
    p = realloc(o->p, cap);
    if (p == NULL) {
        o->err = ERR_NOMEM;
        return NULL;
    }
    o->p = p;
    o->cap = cap;
    return p + o->len;
}

static void put(struct json_out *o, const char *p, size_t n)
{
    char *to = n > 0 ? room(o, n) : NULL;

    if (to != NULL) {
        memcpy(to, p, n);
        o->len += n;
    }
}

static void put_value(struct json_out *o, const char *p, size_t n)
{
    if (o->comma)
        put(o, ",", 1);
    put(o, p, n);
    o->comma = true;
}

void json_out_object(struct json_out *o)
{
    put_value(o, "{", 1);
    o->comma = false;
}

void json_out_array(struct json_out *o)
{
    put_value(o, "[", 1);
    o->comma = false;
}

void json_out_object_end(struct json_out *o)
{
    put(o, "}", 1);
    o->comma = true;
}

void json_out_array_end(struct json_out *o)
{
    put(o, "]", 1);
    o->comma = true;
}

/* Escape of an ASCII byte in this dialect; its length, 0 when it is written as it is. */
static size_t escape(char out[6], unsigned char c, enum json_dialect dialect)
{
    static const char digits[] = "0123456789abcdef";
    static const char shorts[] = "\"\"\\\\\nn\rr\tt\bb\ff"; /* pairs: byte, letter */

    for (size_t i = 0; i < (dialect == JSON_STD ? 14u : 10u); i += 2) {
        if (c == (unsigned char)shorts[i]) {
            out[0] = '\\';
            out[1] = shorts[i + 1];
            return 2;
        }
    }
    if (c >= 0x20 && !(dialect == JSON_STD && (c == '<' || c == '>' || c == '&')))
        return 0;
    memcpy(out, "\\u00", 4);
    out[4] = digits[c >> 4];
    out[5] = digits[c & 15];
    return 6;
}

/* Escape of the non-ASCII sequence at p of len bytes (0 = invalid) in writer B; NULL when it is
 * written as it is. */
static const char *escape_wide(const unsigned char *p, size_t len)
{
    if (len == 0)
        return "\\ufffd";
    if (len == 3 && p[0] == 0xe2 && p[1] == 0x80 && (p[2] == 0xa8 || p[2] == 0xa9))
        return p[2] == 0xa8 ? "\\u2028" : "\\u2029";
    return NULL;
}

/* The characters of a string, escaped; runs that need no escape are written in one go. */
static void put_chars(struct json_out *o, const unsigned char *p, size_t n)
{
    size_t run = 0, i = 0;

    while (i < n && o->err == 0) {
        char esc[6];
        const char *e = esc;
        size_t used = 1, e_len;

        if (p[i] < 0x80) {
            e_len = escape(esc, p[i], o->dialect);
        } else if (o->dialect == JSON_FAST) {
            e_len = 0;
        } else {
            used = utf8_len(p + i, n - i);
            e = escape_wide(p + i, used);
            e_len = e != NULL ? 6 : 0;
            used = used > 0 ? used : 1;
        }
        if (e_len > 0) {
            put(o, (const char *)p + run, i - run);
            put(o, e, e_len);
            run = i + used;
        }
        i += used;
    }
    put(o, (const char *)p + run, n - run);
}

void json_out_string(struct json_out *o, const void *p, size_t n)
{
    put_value(o, "\"", 1);
    if (n > 0)
        put_chars(o, p, n);
    put(o, "\"", 1);
}

void json_out_str(struct json_out *o, const char *s)
{
    json_out_string(o, s, strlen(s));
}

void json_out_name_n(struct json_out *o, const char *name, size_t n)
{
    json_out_string(o, name, n);
    put(o, ":", 1);
    o->comma = false;
}

void json_out_name(struct json_out *o, const char *name)
{
    json_out_name_n(o, name, strlen(name));
}

static void put_decimal(struct json_out *o, bool negative, uint64_t v)
{
    char text[21], *p = text + sizeof text;

    do
        *--p = (char)('0' + v % 10);
    while ((v /= 10) > 0);
    if (negative)
        *--p = '-';
    put_value(o, p, (size_t)(text + sizeof text - p));
}

void json_out_u64(struct json_out *o, uint64_t v)
{
    put_decimal(o, false, v);
}

void json_out_i64(struct json_out *o, int64_t v)
{
    put_decimal(o, v < 0, v < 0 ? 0 - (uint64_t)v : (uint64_t)v);
}

void json_out_double(struct json_out *o, double v)
{
    char text[JSON_DOUBLE_MAX + 1];
    size_t n = json_double_text(text, v, o->dialect);

    if (n == 0 && o->err == 0)
        o->err = ERR_FORMAT;
    if (n > 0)
        put_value(o, text, n);
}

void json_out_bool(struct json_out *o, bool v)
{
    put_value(o, v ? "true" : "false", v ? 4 : 5);
}

void json_out_null(struct json_out *o)
{
    put_value(o, "null", 4);
}

void json_out_raw(struct json_out *o, const void *p, size_t n)
{
    put_value(o, p, n);
}

char *json_out_plain(struct json_out *o, size_t n)
{
    char *p;

    put_value(o, "\"", 1);
    if (n > SIZE_MAX - 1 || room(o, n + 1) == NULL) {
        o->err = o->err < 0 ? o->err : ERR_TOO_LONG;
        return NULL;
    }
    p = o->p + o->len;
    p[n] = '"';
    o->len += n + 1;
    return p;
}

void json_out_hex(struct json_out *o, const uint8_t *p, size_t n)
{
    char *to = n <= SIZE_MAX / 4 ? json_out_plain(o, HEX_LEN(n)) : NULL;

    if (to != NULL) {
        hex_encode(to, p, n);
        to[HEX_LEN(n)] = '"'; /* the end of the string, where hex_encode() puts a NUL */
    }
}

/* A parsed string, decoded and escaped anew. */
static void put_parsed(struct json_out *o, const char *p, size_t n)
{
    const char *end = p + n;

    put_value(o, "\"", 1);
    while (p < end && o->err == 0) {
        char c[4];
        size_t k = string_step(&p, end, c);
        put_chars(o, (const unsigned char *)c, k);
    }
    put(o, "\"", 1);
}

void json_out_copy_name(struct json_out *o, const struct json_in *j)
{
    put_parsed(o, j->name, j->name_len);
    put(o, ":", 1);
    o->comma = false;
}

static void copy_token(struct json_out *o, struct json_in *j, enum json_tok tok)
{
    switch (tok) {
    case JSON_TOK_OBJECT:
        json_out_object(o);
        break;
    case JSON_TOK_OBJECT_END:
        json_out_object_end(o);
        break;
    case JSON_TOK_ARRAY:
        json_out_array(o);
        break;
    case JSON_TOK_ARRAY_END:
        json_out_array_end(o);
        break;
    case JSON_TOK_NAME:
        json_out_copy_name(o, j);
        break;
    case JSON_TOK_STRING:
        put_parsed(o, j->text, j->text_len);
        break;
    case JSON_TOK_NUMBER:
    case JSON_TOK_TRUE:
    case JSON_TOK_FALSE:
    case JSON_TOK_NULL:
        put_value(o, j->text, j->text_len);
        break;
    case JSON_TOK_ERROR:
    case JSON_TOK_END:
        break;
    }
}

void json_out_copy_value(struct json_out *o, struct json_in *j)
{
    enum json_tok tok = json_in_peek(j);
    unsigned depth;

    if (tok == JSON_TOK_OBJECT_END || tok == JSON_TOK_ARRAY_END || tok == JSON_TOK_NAME ||
        tok == JSON_TOK_END)
        json_in_fail(j, ERR_FORMAT);
    tok = json_in_next(j);
    copy_token(o, j, tok);
    if (tok == JSON_TOK_OBJECT || tok == JSON_TOK_ARRAY)
        for (depth = j->depth; j->err == 0 && j->depth >= depth;)
            copy_token(o, j, json_in_next(j));
}
