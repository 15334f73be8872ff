#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/err.h"

static void test_every_local_code_has_its_own_text(void **state)
{
    (void)state;
    for (int e = ERR_FORMAT; e < ERR__END; e++) {
        assert_in_range(-e, 1000, 1999);
        assert_string_not_equal(err_str(e), "unknown error");
        for (int other = ERR_FORMAT; other < e; other++)
            assert_string_not_equal(err_str(e), err_str(other));
    }
    assert_string_equal(err_str(0), "success");
    assert_string_equal(err_str(ERR__END), "unknown error");
    assert_string_equal(err_str(ERR_FORMAT - 1), "unknown error");
    assert_string_equal(err_str(7), "unknown error");
    assert_string_equal(err_str(-100000), "unknown error");
    assert_string_equal(err_str(INT32_MIN), "unknown error");
}

static void test_errno(void **state)
{
    (void)state;
    assert_string_equal(err_str(-ENOENT), "No such file or directory");
    assert_string_equal(err_str(-998), "unknown error");
    assert_int_equal(err_from_errno(ENOENT), -ENOENT);
    assert_int_equal(err_from_errno(ENOMEM), ERR_NOMEM);
    assert_int_equal(err_from_errno(ENOSPC), ERR_NO_SPACE);
    assert_int_equal(err_from_errno(EDQUOT), ERR_NO_SPACE);
    errno = ECONNRESET;
    assert_int_equal(err_sys(), -ECONNRESET);
}

static void test_dmsg_codes(void **state)
{
    (void)state;
    static const unsigned codes[] = {100, 101, 102, 103, 200, 201, 202, 203, 300, 301, 302, 303,
                                     304, 305, 306, 307, 308, 350, 351, 352, 370, 400, 401};
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        int e = err_from_dmsg_code(codes[i]);
        assert_int_equal(e, ERR_DMSG_BASE - (int)codes[i]);
        assert_int_equal(err_dmsg_code(e), codes[i]);
        assert_ptr_equal(err_str(e), err_dmsg_text(e));
    }
    assert_string_equal(err_dmsg_text(ERR_DMSG_ENTRY_NOT_FOUND),
                        "dmsg error 100 - entry is not found in discovery");
    assert_string_equal(err_dmsg_text(ERR_DMSG_ACCEPT_FULL),
                        "dmsg error 401 - listener accept chan maxed");
    assert_int_equal(err_from_dmsg_code(0), ERR_DMSG_RSP_REJECTED);
    assert_int_equal(err_from_dmsg_code(999), ERR_DMSG_RSP_REJECTED);
    assert_int_equal(err_from_dmsg_code(UINT32_MAX), ERR_DMSG_RSP_REJECTED);
    assert_int_equal(err_dmsg_code(ERR_FORMAT), 0);
    assert_int_equal(err_dmsg_code(ERR_DMSG_BASE), 0);
    assert_int_equal(err_dmsg_code(-ENOENT), 0);
    assert_null(err_dmsg_text(0));
    assert_null(err_dmsg_text(ERR_TIMEOUT));
}

static void test_exit_codes(void **state)
{
    (void)state;
    assert_int_equal(err_exit_code(0), 0);
    assert_int_equal(err_exit_code(ERR_FORMAT), 1);
    assert_int_equal(err_exit_code(-ENOENT), 1);
    assert_int_equal(err_exit_code(ERR_USAGE), 2);
    assert_int_equal(err_exit_code(ERR_NOT_FOUND), 3);
    assert_int_equal(err_exit_code(ERR_DMSG_ENTRY_NOT_FOUND), 3);
    assert_int_equal(err_exit_code(ERR_REFUSED), 4);
    assert_int_equal(err_exit_code(ERR_DMSG_NO_LISTENER), 4);
    assert_int_equal(err_exit_code(ERR_TIMEOUT), 5);
    assert_int_equal(err_exit_code(-ETIMEDOUT), 5);
    assert_int_equal(err_exit_code(ERR_NO_ROUTE), 6);
    assert_int_equal(err_exit_code(ERR_DMSG_NO_DELEGATED), 6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_local_code_has_its_own_text),
        cmocka_unit_test(test_errno),
        cmocka_unit_test(test_dmsg_codes),
        cmocka_unit_test(test_exit_codes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
