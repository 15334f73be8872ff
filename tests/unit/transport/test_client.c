/* client and stream: two clients through a relay. */
#include "tests/unit/transport/client_world.h"

static void test_echo_smoke(void **state)
{
    struct world w;
    struct app a;

    (void)state;
    world_init(&w);
    world_relay_start(&w, 0);
    world_join(&w, 0, 0);
    world_join(&w, 1, 0);
    w.client[1].echo = true;
    world_up(&w, 0, 1);
    world_up(&w, 1, 1);
    app_init(&a, &w);
    app_dial(&a, 0, &w.client[1].key.pk, 80, 20000);
    a.shut = true;
    app_send(&a, "hello", 5);
    assert_int_equal(app_wait_open(&a), 0);
    world_until(&w, app_is_over, &a);
    assert_int_equal(a.got_n, 5);
    assert_memory_equal(a.got, "hello", 5);
    app_close(&a);
    app_free(&a);
    world_free(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_echo_smoke),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
