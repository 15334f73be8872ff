#include "node/fresh_dir.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "tests/unit/node/tmpdir.h"
#include "tests/unit/vectors.h"

static struct tmpdir home;

static int setup(void **state)
{
    (void)state;
    tmpdir_make(&home);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    tmpdir_remove(&home);
    return 0;
}

static bool exists(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

static void touch(const char *dir, const char *name)
{
    char path[PATHS_MAX + 32];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    close(fd);
}

static void test_make_and_remove(void **state)
{
    (void)state;
    struct fresh_dir a = {.fd = -1}, b = {.fd = -1};
    struct stat st;
    assert_int_equal(fresh_dir_make(&a), 0);
    assert_int_equal(fresh_dir_make(&b), 0);
    assert_string_not_equal(a.path, b.path);
    assert_int_equal(stat(a.path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    int fd = a.fd;
    assert_int_equal(fresh_dir_make(&a), 0); /* it is there */
    assert_int_equal(a.fd, fd);
    touch(a.path, "1");
    touch(a.path, "2");
    fresh_dir_remove(&a);
    assert_false(exists(a.path));
    assert_true(exists(b.path));
    fresh_dir_remove(&a); /* once more does no harm */
    fresh_dir_remove(&b);
}

/* A process that was killed leaves its directory; the next one cleans up, and leaves the living alone. */
static void test_sweep(void **state)
{
    (void)state;
    struct fresh_dir living = {.fd = -1}, next = {.fd = -1}, dead = {.fd = -1};
    int fds[2];
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    assert_int_equal(fresh_dir_make(&living), 0);
    touch(living.path, "1");
    pid_t pid = fork();
    if (pid == 0) {
        struct fresh_dir d = {.fd = -1};
        if (fresh_dir_make(&d) == 0) {
            touch(d.path, "7");
            (void)!write(fds[1], d.path, sizeof(d.path));
        }
        for (;;)
            pause();
    }
    assert_int_equal(read(fds[0], dead.path, sizeof(dead.path)), sizeof(dead.path));
    assert_true(exists(dead.path));
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_true(exists(dead.path));
    assert_int_equal(fresh_dir_make(&next), 0);
    assert_false(exists(dead.path));
    assert_true(exists(living.path));
    fresh_dir_remove(&living);
    fresh_dir_remove(&next);
    close(fds[0]), close(fds[1]);
}

static void test_no_run_directory(void **state)
{
    (void)state;
    struct fresh_dir d = {.fd = -1};
    tmpdir_write(&home, "file", "", 0600);
    setenv("XDG_RUNTIME_DIR", tmpdir_file(&home, "file"), 1);
    assert_true(fresh_dir_make(&d) < 0);
    assert_int_equal(d.fd, -1);
    fresh_dir_remove(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_make_and_remove),
        cmocka_unit_test(test_sweep),
        cmocka_unit_test(test_no_run_directory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
