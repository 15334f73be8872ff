/* One run spread over several processes gives what one process gives. */
#include "base/crypto.h"
#include "tests/unit/simulator/ranks.h"
#include "tests/unit/vectors.h"

static void test_same_on_any_ranks(void **state)
{
    struct sim_cfg c = nets_lively();

    (void)state;
    for (unsigned with_relays = 0; with_relays < 2; with_relays++) {
        c.relays.count = with_relays * 3;
        struct sim_result one = *nets_run(&c);
        assert_true(one.sum.gets_ok > 50 && one.sum.leaves > 5);
        for (unsigned n = 1; n <= RANKS; n++) {
            ranks_run(&c, n, n == 2 ? 2 : 1, NULL);
            assert_true(n == 1 || ranks_bytes() > 100000);
            for (unsigned i = 0; i < n; i++)
                nets_same(&ranks_all[i].result, &one);
        }
    }
}

static int tear_down(void **state)
{
    (void)state;
    ranks_free();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_same_on_any_ranks)};

    if (crypto_init() != 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, tear_down);
}
