/* ctrl: questions and answers of one byte on port 7. */
#include "transport/ctrl.h"

#include <string.h>

#include "tests/unit/transport/client_world.h"

static struct ctrl_stat stat_of(const struct ctrl *c)
{
    struct ctrl_stat st;
    ctrl_stat(c, &st);
    return st;
}

static struct ctrl *begin(struct world *w)
{
    struct ctrl *c;
    world_init(w);
    world_relay_start(w, 0);
    world_join(w, 0, 0);
    world_join(w, 1, 0);
    world_up(w, 0, 1);
    world_up(w, 1, 1);
    assert_int_equal(ctrl_new(&c, w->client[1].c), 0);
    return c;
}

static void dial(struct app *a, struct world *w)
{
    app_init(a, w);
    app_dial(a, 0, &w->client[1].key.pk, CTRL_PORT, 20000);
    assert_int_equal(app_wait_open(a), 0);
}

static void test_ten_pings(void **state)
{
    (void)state;
    struct world w;
    struct app a;
    struct ctrl *c = begin(&w), *second;
    assert_int_equal(ctrl_new(&second, w.client[1].c), ERR_DMSG_PORT_OCCUPIED);
    dial(&a, &w);
    for (size_t i = 1; i <= 10; i++) {
        app_send(&a, "\x09", 1);
        world_run(&w, NS_PER_MS);
        assert_int_equal(a.got_n, i);
        assert_int_equal(a.got[i - 1], 10);
    }
    app_send(&a, "\x0a\x0a\x09", 3); /* answers need none */
    world_run(&w, NS_PER_MS);
    assert_int_equal(a.got_n, 11);
    assert_int_equal(stat_of(c).pings, 11);
    assert_int_equal(stat_of(c).streams, 1);
    app_close(&a);
    world_run(&w, NS_PER_S);
    assert_int_equal(stat_of(c).streams, 0);
    app_free(&a);
    ctrl_free(c);
    world_free(&w);
}

static void test_bad_packets_and_silence(void **state)
{
    (void)state;
    struct world w;
    struct app a, b;
    struct ctrl *c = begin(&w);
    dial(&a, &w);
    dial(&b, &w);
    app_send(&a, "\x09\x0b", 2);
    world_run(&w, NS_PER_S);
    assert_true(app_saw(&a, 'E'));
    assert_int_equal(stat_of(c).bad, 1);
    assert_int_equal(stat_of(c).streams, 1);
    world_run(&w, CTRL_IDLE_NS + 10 * NS_PER_S);
    assert_int_equal(stat_of(c).streams, 0);
    app_close(&a);
    app_close(&b);
    app_free(&a);
    app_free(&b);
    ctrl_free(c);
    world_free(&w);
}

static void test_limit_and_end(void **state)
{
    (void)state;
    struct world w;
    struct app *a = calloc(CTRL_STREAMS + 1, sizeof(*a));
    assert_non_null(a);
    struct ctrl *c = begin(&w);
    for (int i = 0; i < CTRL_STREAMS; i++)
        dial(&a[i], &w);
    app_init(&a[CTRL_STREAMS], &w);
    app_dial(&a[CTRL_STREAMS], 0, &w.client[1].key.pk, CTRL_PORT, 20000);
    world_run(&w, NS_PER_S);
    assert_int_equal(stat_of(c).streams, CTRL_STREAMS);
    assert_int_equal(stat_of(c).refused, 1);
    assert_true(app_saw(&a[CTRL_STREAMS], 'E'));
    ctrl_free(c); /* ends them */
    world_run(&w, NS_PER_S);
    for (int i = 0; i <= CTRL_STREAMS; i++) {
        assert_true(app_saw(&a[i], 'E'));
        app_close(&a[i]);
        app_free(&a[i]);
    }
    free(a);
    world_free(&w);
}

int main(void)
{
    if (crypto_init() != 0)
        return 1;
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_ten_pings),
                                       cmocka_unit_test(test_bad_packets_and_silence),
                                       cmocka_unit_test(test_limit_and_end)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
