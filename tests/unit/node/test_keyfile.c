#include "node/keyfile.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/hex.h"
#include "base/log.h"
#include "tests/unit/node/tmpdir.h"
#include "tests/unit/vectors.h"

static struct tmpdir dir;
static struct seckey sk;
static struct pubkey pk;
static char sk_hex[2 * SECKEY_BYTES + 1], pk_hex[PUBKEY_HEX + 1];

static int setup(void **state)
{
    (void)state;
    tmpdir_make(&dir);
    assert_int_equal(crypto_init(), 0);
    assert_int_equal(crypto_keypair_from_seed(&sk, &pk, (const uint8_t *)"file", 4), 0);
    hex_encode(sk_hex, sk.b, SECKEY_BYTES);
    pubkey_hex(pk_hex, &pk);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    tmpdir_remove(&dir);
    return 0;
}

static int read_text(const char *text)
{
    struct seckey got;
    struct pubkey got_pk;
    tmpdir_write(&dir, "key", text, 0600);
    int rc = keyfile_read(&got, &got_pk, tmpdir_file(&dir, "key"));
    if (rc == 0) {
        assert_memory_equal(got.b, sk.b, SECKEY_BYTES);
        assert_true(pubkey_equal(&got_pk, &pk));
    } else {
        static const struct seckey zero;
        assert_memory_equal(got.b, zero.b, SECKEY_BYTES); /* nothing of it is left */
    }
    return rc;
}

static void test_forms(void **state)
{
    /* P the public key, S the secret one */
    static const char *const good[] = {
        "S\n", "S", "S\r\n", "P\nS\n", "P\r\nS", "P  \nS \n\n \n", "S  \t\n\n", "P\nS\n\t\n"};
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        char text[1024] = "";
        for (const char *p = good[i]; *p != '\0'; p++) {
            char one[] = {*p, '\0'};
            strcat(text, *p == 'P' ? pk_hex : *p == 'S' ? sk_hex : one);
        }
        assert_int_equal(read_text(text), 0);
    }
}

static void test_wrong_texts(void **state)
{
    char text[1200], other[2 * SECKEY_BYTES + 1];
    struct seckey sk2;
    struct pubkey pk2;
    (void)state;
    static const char *const bad[] = {
        "",
        "\n",
        "no key",
        "0000000000000000000000000000000000000000000000000000000000000000\n",
        "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff\n",
        "000000000000000000000000000000000000000000000000000000000000000\n",
        "00000000000000000000000000000000000000000000000000000000000000000\n",
        "gg00000000000000000000000000000000000000000000000000000000000001\n"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(read_text(bad[i]), ERR_KEY);
    snprintf(text, sizeof text, "%s\n", pk_hex); /* a public key alone */
    assert_int_equal(read_text(text), ERR_KEY);
    snprintf(text, sizeof text, "%s\n%s\nmore\n", pk_hex, sk_hex);
    assert_int_equal(read_text(text), ERR_KEY);
    snprintf(text, sizeof text, "%s\n%s\n", sk_hex, pk_hex); /* the wrong way round */
    assert_int_equal(read_text(text), ERR_KEY);
    assert_int_equal(crypto_keypair_from_seed(&sk2, &pk2, (const uint8_t *)"other", 5), 0);
    snprintf(text, sizeof text, "%s\n%s\n", pk_hex, hex_encode(other, sk2.b, SECKEY_BYTES));
    assert_int_equal(read_text(text), ERR_KEY);
    snprintf(text, sizeof text, "%s\n%1000s", sk_hex, "x"); /* something far behind it */
    assert_int_equal(read_text(text), ERR_KEY);
}

static void test_nul_in_the_file(void **state)
{
    struct seckey got;
    struct pubkey got_pk;
    (void)state;
    int fd = open(tmpdir_file(&dir, "key"), O_WRONLY | O_CREAT, 0600);
    assert_int_equal(write(fd, sk_hex, 64), 64);
    assert_int_equal(write(fd, "\n\0and more", 10), 10);
    close(fd);
    assert_int_equal(keyfile_read(&got, &got_pk, tmpdir_file(&dir, "key")), ERR_KEY);
}

static void test_modes(void **state)
{
    struct seckey got;
    struct pubkey got_pk;
    static const unsigned safe[] = {0600, 0400, 0640, 0644, 0700, 0444},
                          unsafe[] = {0620, 0602, 0666, 0660};
    (void)state;
    for (size_t i = 0; i < sizeof safe / sizeof safe[0]; i++) {
        tmpdir_write(&dir, "key", sk_hex, safe[i]);
        assert_int_equal(keyfile_read(&got, &got_pk, tmpdir_file(&dir, "key")), 0);
        unlink(tmpdir_file(&dir, "key"));
    }
    for (size_t i = 0; i < sizeof unsafe / sizeof unsafe[0]; i++) {
        tmpdir_write(&dir, "key", sk_hex, unsafe[i]);
        assert_int_equal(keyfile_read(&got, &got_pk, tmpdir_file(&dir, "key")), ERR_UNSAFE);
        unlink(tmpdir_file(&dir, "key"));
    }
}

static unsigned warnings;
static void sink(void *arg, enum log_level level, const char *line, size_t n)
{
    (void)arg;
    (void)level;
    warnings += memmem(line, n, "can be read by others", 21) != NULL;
}

static void test_readable_by_others_is_said(void **state)
{
    struct seckey got;
    struct pubkey got_pk;
    (void)state;
    log_set_sink(sink, NULL);
    warnings = 0;
    tmpdir_write(&dir, "key", sk_hex, 0600);
    assert_int_equal(keyfile_read(&got, &got_pk, tmpdir_file(&dir, "key")), 0);
    assert_int_equal(warnings, 0);
    assert_int_equal(chmod(tmpdir_file(&dir, "key"), 0604), 0);
    assert_int_equal(keyfile_read(&got, &got_pk, tmpdir_file(&dir, "key")), 0);
    assert_int_equal(warnings, 1);
    log_set_sink(NULL, NULL);
}

static void test_another_users_file(void **state)
{
    struct seckey got;
    struct pubkey got_pk;
    (void)state;
    if (geteuid() != 0) /* a file of root's, whatever is in it */
        assert_int_equal(keyfile_read(&got, &got_pk, "/etc/passwd"), ERR_UNSAFE);
    else {
        tmpdir_write(&dir, "key", sk_hex, 0600);
        assert_int_equal(chown(tmpdir_file(&dir, "key"), 12345, 12345), 0);
        assert_int_equal(keyfile_read(&got, &got_pk, tmpdir_file(&dir, "key")), ERR_UNSAFE);
    }
}

static void test_not_a_file(void **state)
{
    struct seckey got;
    struct pubkey got_pk;
    (void)state;
    assert_int_equal(keyfile_read(&got, &got_pk, tmpdir_file(&dir, "none")), -ENOENT);
    assert_int_equal(keyfile_read(&got, &got_pk, dir.path), -EISDIR);
}

static void test_standard_input(void **state)
{
    struct seckey got;
    struct pubkey got_pk;
    int fds[2], old = dup(STDIN_FILENO);
    (void)state;
    assert_int_equal(pipe(fds), 0);
    assert_int_equal(write(fds[1], sk_hex, 64), 64);
    close(fds[1]);
    dup2(fds[0], STDIN_FILENO);
    assert_int_equal(keyfile_read(&got, &got_pk, "-"), 0);
    assert_memory_equal(got.b, sk.b, SECKEY_BYTES);
    dup2(old, STDIN_FILENO);
    close(old);
    close(fds[0]);
}

static void test_written_file(void **state)
{
    struct seckey got;
    struct pubkey got_pk;
    struct stat st;
    const char *path = tmpdir_file(&dir, "key");
    (void)state;
    mode_t old = umask(0);
    assert_int_equal(keyfile_write(path, &sk, &pk), 0);
    umask(old);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(keyfile_read(&got, &got_pk, path), 0);
    assert_memory_equal(got.b, sk.b, SECKEY_BYTES);
    assert_int_equal(keyfile_write(path, &sk, &pk), ERR_EXISTS);
    assert_int_equal(keyfile_write(tmpdir_file(&dir, "no/dir"), &sk, &pk), -ENOENT);
}

/* Half a key is none: a full disk leaves no file behind. */
static void test_full_disk(void **state)
{
    const char *path = tmpdir_file(&dir, "cut");
    struct rlimit old, small;

    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = (struct rlimit){50, old.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    int rc = keyfile_write(path, &sk, &pk);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(rc, ERR_NO_SPACE);
    assert_int_equal(access(path, F_OK), -1);
}

static void test_open_makes_one_once(void **state)
{
    struct seckey a, b;
    struct pubkey a_pk, b_pk;
    bool made;
    (void)state;
    assert_int_equal(keyfile_open(&a, &a_pk, tmpdir_file(&dir, "new"), &made), 0);
    assert_true(made);
    assert_int_equal(keyfile_open(&b, &b_pk, tmpdir_file(&dir, "new"), &made), 0);
    assert_false(made);
    assert_true(pubkey_equal(&a_pk, &b_pk));
    tmpdir_write(&dir, "bad", "x", 0600); /* never written over */
    assert_int_equal(keyfile_open(&b, &b_pk, tmpdir_file(&dir, "bad"), &made), ERR_KEY);
    assert_false(made);
    assert_true(keyfile_open(&b, &b_pk, tmpdir_file(&dir, "no/dir"), &made) < 0);
    assert_false(made);
}

static void test_fresh_keys_differ(void **state)
{
    struct seckey a, b;
    struct pubkey a_pk, b_pk, check;
    (void)state;
    keyfile_fresh(&a, &a_pk);
    keyfile_fresh(&b, &b_pk);
    assert_false(pubkey_equal(&a_pk, &b_pk));
    assert_int_equal(seckey_pubkey(&check, &a), 0);
    assert_true(pubkey_equal(&check, &a_pk));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_forms),
        TEST(test_wrong_texts),
        TEST(test_nul_in_the_file),
        TEST(test_modes),
        TEST(test_readable_by_others_is_said),
        TEST(test_another_users_file),
        TEST(test_not_a_file),
        TEST(test_standard_input),
        TEST(test_written_file),
        TEST(test_full_disk),
        TEST(test_open_makes_one_once),
        TEST(test_fresh_keys_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
