/* Range digests: two sets against a simple model, what it costs, and peers that lie. */
#include "kademlia/reconcile.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/err.h"
#include "tests/unit/prop.h"

/* A store: entries in the order of targets. */
struct set {
    struct digest_entry *e;
    size_t n, cap;
    struct digest *digest;
    struct recon_source source;
};

static int cmp_entries(const void *a, const void *b)
{
    return memcmp(((const struct digest_entry *)a)->target.b,
                  ((const struct digest_entry *)b)->target.b, KAD_ID_BYTES);
}

static int list(void *arg, const struct recon_range *r, struct digest_entry *out, size_t max,
                size_t *n, bool *more)
{
    struct set *s = arg;
    size_t lo = 0, hi = s->n;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        unsigned prefix = r->bits == 0 ? 0 : digest_prefix(&s->e[mid].target, r->bits);
        bool before =
            prefix < r->prefix || (prefix == r->prefix && r->goes_on &&
                                   memcmp(s->e[mid].target.b, r->after.b, KAD_ID_BYTES) <= 0);
        if (before)
            lo = mid + 1;
        else
            hi = mid;
    }
    for (*n = 0; lo < s->n && *n < max && recon_range_has(r, &s->e[lo].target); lo++)
        out[(*n)++] = s->e[lo];
    *more = lo < s->n && recon_range_has(r, &s->e[lo].target);
    return 0;
}

static void set_init(struct set *s)
{
    memset(s, 0, sizeof *s);
    s->digest = digest_new();
    assert_non_null(s->digest);
    s->source = (struct recon_source){s, list};
}

static void set_add(struct set *s, const struct digest_entry *e)
{
    if (s->n == s->cap) {
        s->cap = s->cap > 0 ? 2 * s->cap : 64;
        s->e = realloc(s->e, s->cap * sizeof *s->e);
        assert_non_null(s->e);
    }
    s->e[s->n++] = *e;
    digest_add(s->digest, e);
}

static void set_sort(struct set *s)
{
    if (s->n > 0)
        qsort(s->e, s->n, sizeof *s->e, cmp_entries);
}

static void set_free(struct set *s)
{
    free(s->e);
    digest_free(s->digest);
}

static struct digest_entry draw(struct prop *r)
{
    struct digest_entry e = {.kind = ITEM_OWNER, .rank = {0, 1 + prop_below(r, 5)}};

    prop_bytes(r, &e.target, sizeof e.target);
    return e;
}

/* Bytes on the wire, about as the binary codec has them. */
static size_t size_of(const struct recon_answer *a)
{
    return a->is_list ? 8 + a->n * 52 : 8 + RECON_PARTS * (5 + 2 + DIGEST_BYTES);
}

struct result {
    struct kad_id *want, *give;
    size_t n_want, n_give, bytes, requests;
};

static void append(struct kad_id **to, size_t *n, const struct kad_id *from, size_t count)
{
    if (count == 0)
        return;
    *to = realloc(*to, (*n + count) * sizeof **to);
    assert_non_null(*to);
    memcpy(*to + *n, from, count * sizeof *from);
    *n += count;
}

static int cmp_id(const void *a, const void *b)
{
    return memcmp(a, b, KAD_ID_BYTES);
}

static struct result run(const struct set *asks, const struct set *answers)
{
    static struct recon r;
    struct recon_range ranges[RECON_RANGES];
    struct recon_answer out[RECON_RANGES];
    struct result res = {.requests = 0};
    size_t n, done;

    recon_begin(&r, asks->digest, &asks->source);
    while ((n = recon_next(&r, ranges, RECON_RANGES)) > 0) {
        assert_int_equal(recon_serve(out, &done, ranges, n, answers->digest, &answers->source), 0);
        assert_in_range(done, 1, n);
        assert_int_equal(recon_take(&r, out, done), 0);
        res.requests++;
        res.bytes += n * 40;
        for (size_t i = 0; i < done; i++) {
            res.bytes += size_of(&out[i]);
            recon_answer_clear(&out[i]);
        }
        append(&res.want, &res.n_want, r.want, r.n_want);
        append(&res.give, &res.n_give, r.give, r.n_give);
        recon_clear(&r);
    }
    recon_end(&r);
    if (res.n_want > 0)
        qsort(res.want, res.n_want, sizeof *res.want, cmp_id);
    if (res.n_give > 0)
        qsort(res.give, res.n_give, sizeof *res.give, cmp_id);
    return res;
}

static void result_free(struct result *res)
{
    free(res->want);
    free(res->give);
}

/* What b has that a lacks or has in an older version, by looking at everything. */
static struct kad_id *missing(const struct set *a, const struct set *b, size_t *n)
{
    struct kad_id *out = calloc(b->n + 1, sizeof *out);
    size_t j = 0;

    assert_non_null(out);
    *n = 0;
    for (size_t i = 0; i < b->n; i++) {
        while (j < a->n && cmp_entries(&a->e[j], &b->e[i]) < 0)
            j++;
        bool there = j < a->n && cmp_entries(&a->e[j], &b->e[i]) == 0;
        if (!there || digest_entry_cmp(&b->e[i], &a->e[j]) < 0)
            out[(*n)++] = b->e[i].target;
    }
    return out;
}

static void assert_ids(const struct kad_id *got, size_t n_got, const struct set *a,
                       const struct set *b)
{
    size_t n;
    struct kad_id *want = missing(a, b, &n);

    assert_int_equal(n_got, n);
    if (n > 0)
        assert_memory_equal(got, want, n * sizeof *want);
    free(want);
}

/* Exactly the differences, for any two sets: equal, empty, small, clustered below one prefix. */
static void test_against_model(void **state)
{
    struct prop r = prop_init("reconcile against a model");

    (void)state;
    for (int round = 0; round < 40; round++) {
        struct set a, b;
        size_t common = prop_below(&r, round % 4 == 0 ? 4000 : 200), only = prop_below(&r, 60);
        bool clustered = prop_chance(&r, 30);

        set_init(&a);
        set_init(&b);
        for (size_t i = 0; i < common + 2 * only; i++) {
            struct digest_entry e = draw(&r);
            if (clustered)
                memset(e.target.b, 0x42, 2);
            if (prop_chance(&r, 10))
                e.kind = ITEM_CERT;
            if (i < common + only)
                set_add(&a, &e);
            if (i < common && prop_chance(&r, 5))
                e.rank[1] += prop_below(&r, 3);
            if (i < common && prop_chance(&r, 2))
                e.kind = e.kind == ITEM_OWNER ? ITEM_CERT : ITEM_OWNER;
            if (i < common || i >= common + only)
                set_add(&b, &e);
        }
        set_sort(&a);
        set_sort(&b);
        struct result res = run(&a, &b);
        assert_ids(res.want, res.n_want, &a, &b);
        assert_ids(res.give, res.n_give, &b, &a);
        result_free(&res);
        set_free(&a);
        set_free(&b);
    }
}

/* The budget: 10 differences in 100 000 items cost less than 100 KB. */
static void test_cost(void **state)
{
    struct prop r = prop_init("reconcile cost");
    struct set a, b;

    (void)state;
    set_init(&a);
    set_init(&b);
    for (size_t i = 0; i < 100000; i++) {
        struct digest_entry e = draw(&r);
        if (i != 7)
            set_add(&a, &e);
        e.rank[1] += i % 11111 == 5; /* nine newer ones */
        if (i != 100)
            set_add(&b, &e);
    }
    set_sort(&a);
    set_sort(&b);
    struct result res = run(&a, &b);
    assert_int_equal(res.n_want, 10);
    assert_int_equal(res.n_give, 1);
    print_message("10 differences in 100 000: %zu bytes in %zu requests\n", res.bytes,
                  res.requests);
    assert_true(res.bytes < 50000);
    result_free(&res);
    res = run(&a, &a);
    assert_int_equal(res.requests, 1);
    assert_int_equal(res.n_want + res.n_give, 0);
    result_free(&res);
    set_free(&a);
    set_free(&b);
}

static void test_digest(void **state)
{
    struct prop r = prop_init("digest");
    struct digest *d = digest_new(), *e = digest_new();
    struct digest_entry x[50];

    (void)state;
    for (size_t i = 0; i < 50; i++) {
        x[i] = draw(&r);
        digest_add(d, &x[i]);
    }
    for (size_t i = 50; i > 0; i--)
        digest_add(e, &x[i - 1]);
    struct digest_part a = digest_range(d, 0, 0), b = digest_range(e, 0, 0), none = {0};
    assert_true(digest_part_equal(&a, &b));
    assert_int_equal(a.count, 50);
    digest_del(e, &x[7]);
    b = digest_range(e, 0, 0);
    assert_false(digest_part_equal(&a, &b));
    unsigned leaf = digest_prefix(&x[7].target, 16);
    b = digest_range(d, 16, leaf);
    assert_false(digest_part_equal(&none, &b));
    uint64_t sum = 0;
    for (unsigned bits = 4; bits <= 16; bits += 4, sum = 0) {
        for (unsigned i = 0; i < 1u << bits; i++)
            sum += digest_range(d, bits, i).count;
        assert_int_equal(sum, 50);
    }
    for (size_t i = 0; i < 50; i++)
        digest_del(d, &x[i]);
    a = digest_range(d, 0, 0);
    assert_true(digest_part_equal(&a, &none));
    digest_free(d);
    digest_free(e);
}

static void set_prefix(struct kad_id *id, const struct recon_range *range)
{
    unsigned p = (unsigned)range->prefix << (16 - range->bits);

    id->b[0] = (uint8_t)(p >> 8);
    id->b[1] = (uint8_t)p;
}

/* Bytes of a liar: the walk ends, with an error or without, and never leaves its bounds. */
static void test_lies(void **state)
{
    struct prop r = prop_init("reconcile with a liar");

    (void)state;
    for (int round = 0; round < 30; round++) {
        static struct recon c;
        struct recon_range ranges[RECON_RANGES];
        struct set mine;
        int rc = 0, lists = (int)prop_below(&r, 3) * 40;
        size_t n, steps = 0;

        set_init(&mine);
        for (int i = 0; i < 300; i++) {
            struct digest_entry e = draw(&r);
            set_add(&mine, &e);
        }
        set_sort(&mine);
        recon_begin(&c, mine.digest, &mine.source);
        while (rc == 0 && (n = recon_next(&c, ranges, RECON_RANGES)) > 0 && steps++ < 3000) {
            struct recon_answer out[RECON_RANGES];
            for (size_t i = 0; i < n; i++) {
                out[i] = (struct recon_answer){.is_list = prop_chance(&r, (unsigned)lists) ||
                                                          ranges[i].bits == 16};
                prop_bytes(&r, out[i].part, sizeof out[i].part);
                if (!out[i].is_list)
                    continue;
                out[i].n = prop_below(&r, 3);
                out[i].entries = calloc(out[i].n + 1, sizeof *out[i].entries);
                for (size_t k = 0; k < out[i].n; k++) {
                    out[i].entries[k] = draw(&r);
                    if (ranges[i].bits > 0 && prop_chance(&r, 90))
                        set_prefix(&out[i].entries[k].target, &ranges[i]);
                }
                qsort(out[i].entries, out[i].n, sizeof *out[i].entries, cmp_entries);
                out[i].more = prop_chance(&r, 5);
            }
            rc = recon_take(&c, out, n);
            for (size_t i = 0; i < n; i++)
                recon_answer_clear(&out[i]);
            recon_clear(&c);
        }
        assert_true(rc == 0 || rc == ERR_PROTOCOL);
        assert_true(steps < 3000);
        recon_end(&c);
        set_free(&mine);
    }
}

/* Single lies, each refused. */
static void test_refused(void **state)
{
    static struct recon c;
    struct recon_range range[RECON_RANGES];
    struct digest_entry e[2] = {{.target = {{9}}}, {.target = {{9}}}};
    struct recon_answer a = {.is_list = true, .entries = e, .n = 2};
    struct set mine;

    (void)state;
    set_init(&mine);
    recon_begin(&c, mine.digest, &mine.source);
    assert_int_equal(recon_next(&c, range, 1), 1);
    assert_int_equal(recon_take(&c, &a, 0), ERR_PROTOCOL);
    assert_int_equal(recon_take(&c, &a, 2), ERR_PROTOCOL);
    assert_int_equal(recon_take(&c, &a, 1), ERR_PROTOCOL); /* twice the same */
    recon_end(&c);

    recon_begin(&c, mine.digest, &mine.source);
    assert_int_equal(recon_next(&c, range, 1), 1);
    e[0].kind = ITEM_KIND__COUNT;
    a.n = 1;
    assert_int_equal(recon_take(&c, &a, 1), ERR_PROTOCOL);
    a = (struct recon_answer){.is_list = true, .more = true}; /* goes on behind nothing */
    assert_int_equal(recon_take(&c, &a, 1), ERR_PROTOCOL);
    recon_end(&c);

    struct recon_range bad[] = {{.bits = 5},
                                {.bits = 20},
                                {.bits = 4, .prefix = 16},
                                {.bits = 8, .prefix = 1, .goes_on = true}};
    size_t done;
    struct recon_answer out;
    for (size_t i = 0; i < 4; i++) {
        assert_false(recon_range_is_valid(&bad[i]));
        assert_int_equal(recon_serve(&out, &done, &bad[i], 1, mine.digest, &mine.source),
                         ERR_FORMAT);
    }
    set_free(&mine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_digest),  cmocka_unit_test(test_against_model),
        cmocka_unit_test(test_cost),    cmocka_unit_test(test_lies),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
