#include "node/paths.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "tests/unit/node/tmpdir.h"
#include "tests/unit/vectors.h"

static struct tmpdir dir;
static struct pubkey pk;

static int setup(void **state)
{
    (void)state;
    struct seckey sk;
    tmpdir_make(&dir);
    assert_int_equal(crypto_init(), 0);
    return crypto_keypair_from_seed(&sk, &pk, (const uint8_t *)"paths", 5);
}

static int teardown(void **state)
{
    (void)state;
    tmpdir_remove(&dir);
    return 0;
}

static void test_places(void **state)
{
    char path[PATHS_MAX], short_pk[9];
    (void)state;
    assert_int_equal(paths_state(path), 0);
    assert_string_equal(path, tmpdir_file(&dir, "state/kadmsg"));
    assert_int_equal(paths_run(path), 0);
    assert_string_equal(path, tmpdir_file(&dir, "run/kadmsg"));
    assert_int_equal(paths_control(path), 0);
    assert_string_equal(path, tmpdir_file(&dir, "run/kadmsg/control"));
    assert_int_equal(paths_store(path, &pk), 0);
    assert_string_equal(strrchr(path, '/') + 1, pubkey_short(short_pk, &pk));
}

/* A relative path in the environment is none. */
static void test_environment_that_is_no_path(void **state)
{
    char path[PATHS_MAX];
    (void)state;
    setenv("XDG_STATE_HOME", "state", 1);
    setenv("XDG_RUNTIME_DIR", "", 1);
    assert_int_equal(paths_state(path), 0);
    assert_int_equal(path[0], '/');
    assert_null(strstr(path, dir.path));
    assert_int_equal(paths_run(path), 0);
    assert_int_equal(path[0], '/');
}

static void test_too_long(void **state)
{
    char name[PATHS_MAX + 1], path[PATHS_MAX];
    (void)state;
    memset(name, 'x', PATHS_MAX);
    name[PATHS_MAX] = '\0';
    assert_int_equal(paths_join(path, "/tmp", name), ERR_TOO_LONG);
    assert_int_equal(paths_make_dir(name), ERR_TOO_LONG);
}

static void test_directories(void **state)
{
    struct stat st;
    (void)state;
    assert_int_equal(paths_make_dir(tmpdir_file(&dir, "a/b/c")), 0);
    assert_int_equal(stat(tmpdir_file(&dir, "a/b"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    assert_int_equal(paths_make_dir(tmpdir_file(&dir, "a/b/c/")), 0); /* it is there */
    tmpdir_write(&dir, "file", "", 0600);
    assert_int_equal(paths_make_dir(tmpdir_file(&dir, "file")), -ENOTDIR);
    assert_int_equal(paths_make_dir(tmpdir_file(&dir, "file/below")), -ENOTDIR);
    assert_int_equal(chmod(tmpdir_file(&dir, "a"), 0720), 0);
    assert_int_equal(paths_make_dir(tmpdir_file(&dir, "a")), ERR_UNSAFE);
    assert_int_equal(chmod(tmpdir_file(&dir, "a"), 0702), 0);
    assert_int_equal(paths_make_dir(tmpdir_file(&dir, "a")), ERR_UNSAFE);
    assert_int_equal(chmod(tmpdir_file(&dir, "a"), 0755), 0);
    assert_int_equal(paths_make_dir(tmpdir_file(&dir, "a")), 0);
}

static void test_directory_of_another_user(void **state)
{
    (void)state;
    if (geteuid() != 0) /* only root can give a directory away; "/" is root's all the same */
        assert_int_equal(paths_make_dir("/usr"), ERR_UNSAFE);
    else {
        assert_int_equal(mkdir(tmpdir_file(&dir, "theirs"), 0700), 0);
        assert_int_equal(chown(tmpdir_file(&dir, "theirs"), 12345, 12345), 0);
        assert_int_equal(paths_make_dir(tmpdir_file(&dir, "theirs")), ERR_UNSAFE);
    }
}

/* ---- the lock of a key ---- */

static void test_lock(void **state)
{
    struct keylock l, second;
    struct keylock_owner owner;
    (void)state;
    assert_int_equal(keylock_owner(&owner, &pk), ERR_NOT_FOUND);
    assert_int_equal(keylock_take(&l, &pk, "/run/here", &owner), 0);
    assert_int_equal(keylock_owner(&owner, &pk), 0);
    assert_int_equal(owner.pid, getpid());
    assert_string_equal(owner.control, "/run/here");
    assert_int_equal(keylock_take(&second, &pk, NULL, &owner), ERR_BUSY);
    assert_int_equal(second.fd, -1);
    assert_int_equal(owner.pid, getpid());
    keylock_release(&second); /* nothing to release */
    keylock_release(&l);
    keylock_release(&l);
    assert_int_equal(keylock_owner(&owner, &pk), ERR_NOT_FOUND);
    assert_int_equal(keylock_take(&l, &pk, NULL, &owner), 0);
    assert_int_equal(keylock_owner(&owner, &pk), 0);
    assert_string_equal(owner.control, "");
    keylock_release(&l);
}

/* Somebody who only looks must never be the reason that a node does not start. */
static void test_looking_takes_nothing(void **state)
{
    struct keylock l;
    struct keylock_owner owner;
    (void)state;
    assert_int_equal(keylock_take(&l, &pk, NULL, &owner), 0);
    keylock_release(&l);
    pid_t child = fork();
    if (child == 0) {
        for (;;)
            (void)keylock_owner(&owner, &pk);
    }
    for (int i = 0; i < 3000; i++) {
        assert_int_equal(keylock_take(&l, &pk, NULL, &owner), 0);
        keylock_release(&l);
    }
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
}

/* kill -9 gives the lock back. */
static void test_lock_of_a_dead_process(void **state)
{
    struct keylock l;
    struct keylock_owner owner;
    int ready[2];
    char c;
    (void)state;
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) {
        if (keylock_take(&l, &pk, "/gone", &owner) == 0 && write(ready[1], "x", 1) == 1)
            pause();
        _exit(1);
    }
    assert_int_equal(read(ready[0], &c, 1), 1);
    assert_int_equal(keylock_take(&l, &pk, NULL, &owner), ERR_BUSY);
    assert_int_equal(owner.pid, child);
    assert_string_equal(owner.control, "/gone");
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    assert_int_equal(keylock_owner(&owner, &pk), ERR_NOT_FOUND);
    assert_int_equal(keylock_take(&l, &pk, NULL, &owner), 0);
    keylock_release(&l);
    close(ready[0]);
    close(ready[1]);
}

static void test_lock_file_that_is_a_link(void **state)
{
    struct keylock l;
    struct keylock_owner owner;
    char name[128], hex[PUBKEY_HEX + 1];
    (void)state;
    tmpdir_write(&dir, "victim", "data", 0600);
    assert_int_equal(paths_make_dir(tmpdir_file(&dir, "state/kadmsg/locks")), 0);
    snprintf(name, sizeof name, "state/kadmsg/locks/%s", pubkey_hex(hex, &pk));
    assert_int_equal(symlink(tmpdir_file(&dir, "victim"), tmpdir_file(&dir, name)), 0);
    assert_int_equal(keylock_take(&l, &pk, NULL, &owner), -ELOOP);
    assert_int_equal(keylock_owner(&owner, &pk), ERR_NOT_FOUND);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_places),
        TEST(test_environment_that_is_no_path),
        TEST(test_too_long),
        TEST(test_directories),
        TEST(test_directory_of_another_user),
        TEST(test_lock),
        TEST(test_looking_takes_nothing),
        TEST(test_lock_of_a_dead_process),
        TEST(test_lock_file_that_is_a_link),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
