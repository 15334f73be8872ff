/* Events of chosen nodes: all of them, in order, the same on any number of threads. */
#include <stdlib.h>
#include <string.h>

#include "base/crypto.h"
#include "base/err.h"
#include "simulator/trace.h"
#include "tests/unit/simulator/ranks.h"
#include "tests/unit/vectors.h"

static struct text {
    char *v;
    size_t n, cap, lines;
    uint64_t last_ns;
    bool disorder;
} first, again;

static void collect(void *arg, const struct sim_traced *ev)
{
    struct text *t = arg;

    if (t->cap - t->n < TRACE_LINE_MAX) {
        t->cap = 2 * t->cap + TRACE_LINE_MAX;
        t->v = realloc(t->v, t->cap);
    }
    t->disorder = t->disorder || ev->at_ns < t->last_ns;
    t->last_ns = ev->at_ns;
    t->n += trace_line(t->v + t->n, ev);
    t->v[t->n++] = '\n';
    t->lines++;
}

static void clear(struct text *t)
{
    free(t->v);
    memset(t, 0, sizeof *t);
}

static void run(struct text *t, struct sim_cfg *c, const char *nodes)
{
    char why[256];

    clear(t);
    assert_int_equal(trace_nodes(c, nodes, why, sizeof why), 0);
    c->traced = collect;
    c->traced_arg = t;
    (void)nets_run(c);
    assert_false(t->disorder);
}

static void test_any_threads(void **state)
{
    static const unsigned threads[] = {2, 4};
    struct sim_cfg c = nets_lively();

    (void)state;
    struct sim_result untraced = *nets_run(&c);
    run(&first, &c, "all");
    nets_same(nets_run(&c), &untraced);
    clear(&first);
    run(&first, &c, "all");
    assert_true(first.lines > untraced.sum.delivered);
    for (unsigned i = 0; i < 2; i++) {
        c.threads = threads[i];
        run(&again, &c, "all");
        assert_int_equal(again.n, first.n);
        assert_memory_equal(again.v, first.v, first.n);
    }
    c.threads = 1;
    c.seed++;
    run(&again, &c, "all");
    assert_true(again.n != first.n || memcmp(again.v, first.v, first.n) != 0);
}

/* A part of the nodes has its part of the lines. */
static void test_some_nodes(void **state)
{
    struct sim_cfg c = nets_lively();

    (void)state;
    run(&first, &c, "all");
    run(&again, &c, "7,20-22");
    assert_true(again.lines > 100);
    const char *p = again.v, *q = first.v;
    size_t found = 0;
    for (; q < first.v + first.n; q = (const char *)memchr(q, '\n', first.n) + 1) {
        static const char *const wanted[] = {"\"node\":7,", "\"node\":20,", "\"node\":21,",
                                             "\"node\":22,"};
        size_t len = (size_t)((const char *)memchr(q, '\n', first.n) - q) + 1;
        for (unsigned i = 0; i < 4; i++) {
            if (memmem(q, len, wanted[i], strlen(wanted[i])) == NULL)
                continue;
            assert_memory_equal(p, q, len);
            p += len;
            found++;
        }
    }
    assert_int_equal(found, again.lines);
}

static void test_bad_nodes(void **state)
{
    static const struct {
        const char *text, *reason;
    } bad[] = {{"", "such as"},
               {"x", "such as"},
               {"1,", "such as"},
               {"5-3", "such as"},
               {"1-", "such as"},
               {"1;2", "such as"},
               {"-1", "such as"},
               {"40", "0 to 39"},
               {"0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16", "at most 16"},
               {"3-99", "0 to 39"},
               {"1 ", "such as"}};
    struct sim_cfg c = nets_lively();
    char why[256];

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(trace_nodes(&c, bad[i].text, why, sizeof why), ERR_USAGE);
        if (strstr(why, bad[i].reason) == NULL)
            fail_msg("\"%s\": %s", bad[i].text, why);
    }
    assert_int_equal(trace_nodes(&c, "0,39", why, sizeof why), 0);
    ranks_run(&c, 1, 1, NULL);
    assert_non_null(strstr(ranks_all[0].why, "one process"));
}

static int tear_down(void **state)
{
    (void)state;
    clear(&first);
    clear(&again);
    ranks_free();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_threads),
        cmocka_unit_test(test_some_nodes),
        cmocka_unit_test(test_bad_nodes),
    };
    if (crypto_init() != 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, tear_down);
}
