/* Who is dialled again is watched, for a while, and within bounds. */
#include "node/follow.h"

#include "tests/unit/kademlia/host_world.h"

static struct host_world hw;
static struct follow *f;

static int setup(void **state)
{
    (void)state;
    host_world_init(&hw);
    world_relay_start(&hw.w, 0);
    hw_start(&hw, 0, NULL, NULL);
    world_up(&hw.w, 0, 1);
    f = follow_new(&hw.w.net.loop, hw.node[0].h, hw.w.env.env.hash_key);
    return f == NULL;
}

static int teardown(void **state)
{
    (void)state;
    follow_free(f);
    host_world_free(&hw);
    return 0;
}

static size_t watches(void)
{
    struct kad_watch_stat st;
    kad_watch_stat(hw_kad(&hw, 0), &st);
    return st.watches;
}

static struct pubkey key(unsigned i)
{
    struct pubkey pk = {{2, (uint8_t)(i >> 8), (uint8_t)i}};
    return pk;
}

static void use(unsigned i)
{
    struct pubkey pk = key(i);
    follow_used(f, &pk);
}

static void test_second_dial(void **state)
{
    (void)state;
    use(1);
    assert_int_equal(follow_watched(f), 0);
    use(1);
    use(1);
    assert_int_equal(follow_watched(f), 1);
    assert_int_equal(watches(), 1);
    world_run(&hw.w, FOLLOW_IDLE_NS - NS_PER_S);
    use(1);
    world_run(&hw.w, FOLLOW_IDLE_NS - NS_PER_S);
    assert_int_equal(follow_watched(f), 1);
    world_run(&hw.w, 2 * NS_PER_S);
    assert_int_equal(follow_watched(f), 0);
    assert_int_equal(watches(), 0);
    use(1); /* the first one again */
    assert_int_equal(follow_watched(f), 0);
}

static void test_bounded(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2 * FOLLOW_MAX; i++) {
        use(i);
        use(i);
    }
    assert_int_equal(follow_watched(f), FOLLOW_MAX);
    assert_int_equal(watches(), FOLLOW_MAX);
    use(0);
    assert_int_equal(follow_watched(f), FOLLOW_MAX - 1); /* it had been forgotten */
}

static void test_reports(void **state)
{
    struct kad_report r = {.type = KAD_OP_WATCH, .user = f};
    (void)state;
    assert_true(follow_report(f, &r));
    r.user = NULL;
    assert_false(follow_report(f, &r));
    r = (struct kad_report){.type = KAD_OP_GET, .user = f};
    assert_false(follow_report(f, &r));
    follow_free(NULL);
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_second_dial),
        TEST(test_bounded),
        TEST(test_reports),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
