/*
 * What a transport discovery is sent, and what it reads from its store. The first byte says what: 's' signed entries, 'b' bare ones, 'i' ids, 'k' keys, 'v' a stored value. What was read can be written, and
 * is then read as the same.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "compat-http/tpd_body.h"
#include "compat-http/tpd_layout.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    if (crypto_init() != 0)
        abort();
    return 0;
}

static void check_why(int rc, const struct tpd_why *why)
{
    assert(rc == 0 || why->status == 400 || why->status == 500);
    assert(strlen(why->text) < sizeof(why->text));
}

static void write_list(struct json_out *o, const struct tpd_body *b, bool bare)
{
    json_out_grow(o, JSON_STD, (size_t)1 << 26);
    json_out_array(o);
    for (size_t i = 0; i < b->n; i++) {
        if (bare)
            tp_entry_write(o, &b->e[i].e);
        else
            tpd_signed_write(o, &b->e[i]);
    }
    json_out_array_end(o);
    assert(o->err == 0);
}

/* Texts that are no UTF-8 are written as others: the second time is the same as the first. */
static void try_entries(const uint8_t *p, size_t n, bool bare)
{
    struct tpd_body a, b;
    struct tpd_why why;
    struct json_out x, y;
    int rc = bare ? tpd_body_bare(&a, p, n, &why) : tpd_body_signed(&a, p, n, &why);
    check_why(rc, &why);
    if (rc < 0)
        return;
    assert(a.n <= TPD_BATCH_MAX);
    write_list(&x, &a, bare);
    rc = bare ? tpd_body_bare(&b, x.p, x.len, &why) : tpd_body_signed(&b, x.p, x.len, &why);
    assert(rc == 0 && b.n == a.n);
    write_list(&y, &b, bare);
    assert(y.len == x.len && memcmp(x.p, y.p, x.len) == 0);
    json_out_free(&x);
    json_out_free(&y);
    tpd_body_free(&a);
    tpd_body_free(&b);
}

static void try_list(const uint8_t *p, size_t n, bool ids)
{
    struct tpd_body b;
    struct tpd_why why;
    int rc = ids ? tpd_body_ids(&b, p, n, &why) : tpd_body_keys(&b, p, n, &why);
    check_why(rc, &why);
    if (rc == 0)
        assert(b.n <= TPD_BATCH_MAX);
    tpd_body_free(&b);
}

static void try_value(const uint8_t *p, size_t n)
{
    struct tpd_stored a, b;
    char text[TPD_VALUE], again[TPD_VALUE];
    if (tpd_layout_read(&a, p, n) < 0)
        return;
    size_t len = tpd_layout_value(text, &a.e, &a.quality, a.last_update_s);
    if (len == 0)
        return; /* a number that is not finite */
    assert(tpd_layout_read(&b, text, len) == 0);
    assert(tpd_same(&a.e, &b.e) || strlen(a.e.type) + strlen(a.e.label) > 0);
    assert(tpd_layout_value(again, &b.e, &b.quality, b.last_update_s) == len);
    assert(memcmp(text, again, len) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    switch (data[0]) {
    case 's':
    case 'b':
        try_entries(data + 1, size - 1, data[0] == 'b');
        break;
    case 'i':
    case 'k':
        try_list(data + 1, size - 1, data[0] == 'i');
        break;
    default:
        try_value(data + 1, size - 1);
    }
    return 0;
}
