#include "tests/unit/vectors.h"

#include <stdio.h>

/* The largest 64-bit number, which jansson refuses, becomes the text that it is in the file: blanks
 * beside it become quotes. */
static void quote_largest(char *text)
{
    static const char largest[] = " 18446744073709551615";
    const size_t n = sizeof largest - 1;
    for (char *p = text; (p = strstr(p, largest)) != NULL; p += n) {
        if (p[n] != ',' || p[n + 1] != '\n')
            continue;
        p[0] = '"';
        p[n] = '"';
        p[n + 1] = ',';
    }
}

static char *read_all(const char *path)
{
    FILE *f = fopen(path, "re");
    if (f == NULL)
        fail_msg("%s cannot be read", path);
    size_t cap = 1 << 16, n = 0, got;
    char *text = malloc(cap);
    assert_non_null(text);
    while ((got = fread(text + n, 1, cap - 1 - n, f)) > 0)
        if ((n += got) == cap - 1) {
            text = realloc(text, cap *= 2);
            assert_non_null(text);
        }
    text[n] = '\0';
    fclose(f);
    return text;
}

json_t *vectors_load(const char *name)
{
    const char *root = getenv("KADMSG_SRC");
    char path[4096];
    json_error_t err;

    int n =
        snprintf(path, sizeof path, "%s/tests/vectors/%s.json", root != NULL ? root : ".", name);
    assert_true(n > 0 && (size_t)n < sizeof path);
    char *text = read_all(path);
    quote_largest(text);
    json_t *doc = json_loads(text, JSON_ALLOW_NUL, &err);
    free(text);
    if (doc == NULL)
        fail_msg("%s:%d: %s", path, err.line, err.text);
    return doc;
}

const json_t *vec_get(const json_t *obj, const char *key)
{
    const json_t *v = json_object_get(obj, key);
    if (v == NULL)
        fail_msg("no member \"%s\"", key);
    return v;
}

const char *vec_str(const json_t *obj, const char *key)
{
    const char *s = json_string_value(vec_get(obj, key));
    if (s == NULL)
        fail_msg("member \"%s\" is no string", key);
    return s;
}

long long vec_int(const json_t *obj, const char *key)
{
    const json_t *v = vec_get(obj, key);
    if (!json_is_integer(v))
        fail_msg("member \"%s\" is no integer", key);
    return json_integer_value(v);
}

bool vec_bool(const json_t *obj, const char *key)
{
    const json_t *v = vec_get(obj, key);
    if (!json_is_boolean(v))
        fail_msg("member \"%s\" is no boolean", key);
    return json_is_true(v);
}

static int digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

uint8_t *hex_dup(const char *text, size_t *n)
{
    size_t len = strlen(text) / 2;
    uint8_t *out = malloc(len > 0 ? len : 1);

    assert_non_null(out);
    if (strlen(text) % 2 != 0)
        fail_msg("odd number of hex digits: %s", text);
    for (size_t i = 0; i < len; i++) {
        int hi = digit(text[2 * i]), lo = digit(text[2 * i + 1]);
        if (hi < 0 || lo < 0)
            fail_msg("no hex: %s", text);
        out[i] = (uint8_t)(hi << 4 | lo);
    }
    *n = len;
    return out;
}

uint8_t *vec_hex_dup(const json_t *obj, const char *key, size_t *n)
{
    return hex_dup(vec_str(obj, key), n);
}

void vec_hex(const json_t *obj, const char *key, void *out, size_t n)
{
    size_t got;
    uint8_t *p = vec_hex_dup(obj, key, &got);

    if (got != n)
        fail_msg("member \"%s\" has %zu bytes, not %zu", key, got, n);
    memcpy(out, p, n);
    free(p);
}
