/* A run that goes on from a checkpoint ends as if it had never been interrupted, and a file that is not one of
 * ours is refused for what it is. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/crypto.h"
#include "base/err.h"
#include "tests/unit/simulator/ranks.h"
#include "tests/unit/vectors.h"

static char dir[] = "/tmp/kadmsg-checkpoint-XXXXXX";
static char path[128], why[512];
static struct sim_result whole, result;

/* The run of cfg that goes on from the file. */
static void resume(const struct sim_cfg *cfg)
{
    struct sim *s;

    if (sim_resume(&s, path, cfg, why, sizeof why) != 0)
        fail_msg("%s", why);
    assert_int_equal(sim_run(s), 0);
    sim_result(s, &result);
    sim_free(s);
}

static void refused(int rc, const char *reason)
{
    struct sim_cfg none;
    struct sim *s;

    sim_cfg_default(&none);
    assert_int_equal(sim_resume(&s, path, &none, why, sizeof why), rc);
    assert_null(s);
    if (strstr(why, reason) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", why, reason);
}

static struct sim_cfg with_checkpoints(void)
{
    struct sim_cfg c = nets_lively();

    snprintf(c.checkpoint, sizeof c.checkpoint, "%s", path);
    c.checkpoint_every_ns = 35 * S;
    return c;
}

/* ---- the same run ---- */

static void test_any_threads(void **state)
{
    static const unsigned threads[] = {1, 2, 4};
    struct sim_cfg c = nets_lively();

    (void)state;
    c.relays.count = 3;
    whole = *nets_run(&c);
    assert_int_equal(whole.checkpoints, 0);
    for (unsigned i = 0; i < 3; i++) {
        c = with_checkpoints();
        c.relays.count = 3;
        c.threads = threads[i];
        nets_same(nets_run(&c), &whole);
        assert_int_equal(nets_run(&c)->checkpoints, 3);
        struct sim_saved about;
        assert_int_equal(sim_saved(&about, path, NULL, why, sizeof why), 0);
        assert_int_equal(about.threads, threads[i]);
        assert_int_equal(about.nodes, 40);
        assert_true(about.virtual_ns >= 105 * S && about.virtual_ns < 106 * S);
        for (unsigned again = 0; again < 2; again++) { /* a file is good more than once */
            struct sim_cfg none;
            sim_cfg_default(&none);
            resume(&none);
            nets_same(&result, &whole);
        }
    }
}

static void test_any_ranks(void **state)
{
    struct sim_cfg c = nets_lively();

    (void)state;
    whole = *nets_run(&c);
    c = with_checkpoints();
    for (unsigned n = 1; n <= RANKS; n++) {
        ranks_run(&c, n, n == 2 ? 2 : 1, NULL);
        for (unsigned i = 0; i < n; i++)
            nets_same(&ranks_all[i].result, &whole);
        ranks_run(&c, n, 1, path);
        for (unsigned i = 0; i < n; i++) {
            assert_string_equal(ranks_all[i].why, "");
            nets_same(&ranks_all[i].result, &whole);
        }
    }
}

/* A run that is stopped saves itself, and so on until the end. */
static volatile sig_atomic_t stop;
static uint64_t stop_ns;

static void stop_at(void *arg, uint64_t virtual_ns, uint64_t events, uint32_t live)
{
    (void)arg;
    (void)events;
    (void)live;
    stop = virtual_ns >= stop_ns;
}

static void test_stopped(void **state)
{
    struct sim_cfg c = nets_lively();
    unsigned legs = 0;

    (void)state;
    whole = *nets_run(&c);
    c = with_checkpoints();
    c.checkpoint_every_ns = 0;
    c.stop = &stop;
    c.progress = stop_at;
    stop = 0;
    stop_ns = 30 * S;
    result = *nets_run(&c);
    for (; result.interrupted && legs < 10; legs++) {
        assert_int_equal(result.checkpoints, 1);
        stop = 0;
        stop_ns += 30 * S;
        resume(&c);
    }
    assert_int_equal(legs, 3);
    nets_same(&result, &whole);
}

/* Keys and signatures as they really are, and messages through the codec. */
static void test_real_signatures(void **state)
{
    struct sim_cfg c = nets_lively();

    (void)state;
    c.nodes = 12;
    c.attack.eclipse = 0;
    c.signatures = SIM_SIG_REAL;
    c.codec = SIM_CODEC_JSON;
    whole = *nets_run(&c);
    assert_true(whole.sum.gets_ok > 10);
    struct sim_cfg saved = c;
    snprintf(saved.checkpoint, sizeof saved.checkpoint, "%s", path);
    saved.checkpoint_every_ns = 70 * S;
    nets_same(nets_run(&saved), &whole);
    resume(&c);
    nets_same(&result, &whole);
}

/* ---- files that are no good ---- */

static size_t read_file(uint8_t **out)
{
    FILE *f = fopen(path, "r");
    size_t n = 0, got;

    *out = NULL;
    assert_non_null(f);
    do {
        *out = realloc(*out, n + 65536);
        got = fread(*out + n, 1, 65536, f);
        n += got;
    } while (got > 0);
    fclose(f);
    return n;
}

static void write_file(const uint8_t *v, size_t n)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    assert_int_equal(fwrite(v, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void with_byte(uint8_t *v, size_t n, size_t at, int rc, const char *reason)
{
    v[at] ^= 1;
    write_file(v, n);
    refused(rc, reason);
    v[at] ^= 1;
}

static void test_bad_files(void **state)
{
    struct sim_cfg c = with_checkpoints();
    uint8_t *v;

    (void)state;
    (void)nets_run(&c);
    size_t n = read_file(&v);
    write_file(v, 10);
    refused(ERR_FORMAT, "too short");
    write_file(v, n / 2);
    refused(ERR_CORRUPT, "cut off");
    write_file(v, n - 1);
    refused(ERR_CORRUPT, "cut off");
    with_byte(v, n, 3, ERR_FORMAT, "not a checkpoint");
    with_byte(v, n, 24, ERR_VERSION, "format 0, this program reads 1");
    with_byte(v, n, 48, ERR_VERSION, "another build");
    with_byte(v, n, 64, ERR_STATE, "of process 0 of 0, this is 0 of 1");
    with_byte(v, n, n / 2, ERR_CORRUPT, "damaged");
    with_byte(v, n, n - 1, ERR_CORRUPT, "damaged");
    write_file(v, n);
    resume(&c);
    free(v);
    assert_int_equal(unlink(path), 0);
    refused(-2, "No such file");
}

/* One process has the file of another run. */
static void test_mixed_runs(void **state)
{
    struct sim_cfg c = with_checkpoints();
    char one[160], kept[160];

    (void)state;
    snprintf(one, sizeof one, "%s.1", path);
    snprintf(kept, sizeof kept, "%s.kept", path);
    ranks_run(&c, 2, 1, NULL);
    assert_int_equal(rename(one, kept), 0);
    ranks_run(&c, 2, 1, NULL);
    assert_int_equal(rename(kept, one), 0);
    ranks_run(&c, 2, 1, path);
    for (unsigned i = 0; i < 2; i++)
        assert_non_null(strstr(ranks_all[i].why, "different runs"));
    assert_int_equal(unlink(one), 0);
    ranks_run(&c, 2, 1, path);
    assert_non_null(strstr(ranks_all[0].why, "another process cannot read its file"));
    assert_non_null(strstr(ranks_all[1].why, "No such file"));
}

/* What was there stays, and the run goes on. */
static void test_full_disk(void **state)
{
    struct sim_cfg c = with_checkpoints();
    char part[160], to[16];

    (void)state;
    whole = *nets_run(&c);
    snprintf(part, sizeof part, "%s.part", path);
    assert_int_equal(symlink("/dev/full", part), 0);
    c.duration_ns = 40 * S;
    result = *nets_run(&c);
    assert_int_equal(result.checkpoints, 0);
    assert_non_null(strstr(result.checkpoint_why, "no space left"));
    assert_int_equal(readlink(part, to, sizeof to), -1);
    resume(&c);
    nets_same(&result, &whole);
    snprintf(c.checkpoint, sizeof c.checkpoint, "%s/none/x", dir);
    assert_non_null(strstr(nets_run(&c)->checkpoint_why, "No such file"));
}

static int set_up(void **state)
{
    (void)state;
    if (crypto_init() != 0 || mkdtemp(dir) == NULL)
        return 1;
    snprintf(path, sizeof path, "%s/run", dir);
    return 0;
}

static int tear_down(void **state)
{
    char command[128];

    (void)state;
    ranks_free();
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_threads), cmocka_unit_test(test_any_ranks),
        cmocka_unit_test(test_stopped),     cmocka_unit_test(test_real_signatures),
        cmocka_unit_test(test_bad_files),   cmocka_unit_test(test_mixed_runs),
        cmocka_unit_test(test_full_disk),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
