/*
 * The settings of `kadmsg node`: every one from the file, with the values of the flags; what is
 * wrong is refused with file and member named, and changes nothing.
 */
#include "node/config.h"

#include "node/node.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/log.h"
#include "tests/unit/node/tmpdir.h"
#include "tests/unit/vectors.h"

#define PK1 "02a49bc0aa1b5b78f638e9189be4ed095bac5d6839c828465a8350f80ac07629c0"

static struct tmpdir dir;
static struct cmdline cl;
static const struct node_opts *opts;
static char said[2048]; /* on standard error, by the last load() */

static int run(struct cmdline *c)
{
    (void)c;
    return 0;
}

static const struct cmd node = {.name = "node",
                                .help = "x",
                                .opts = config_flags,
                                .opts_size = sizeof(struct node_opts),
                                .run = run};

static int setup(void **state)
{
    (void)state;
    assert_int_equal(crypto_init(), 0);
    tmpdir_make(&dir);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    tmpdir_remove(&dir);
    return 0;
}

static void parse(const char *const *argv)
{
    char *words[16] = {(char *)(uintptr_t) "node"};
    int n = 1;
    for (; argv != NULL && *argv != NULL; argv++)
        words[n++] = (char *)(uintptr_t)*argv;
    assert_true(cmdline_parse(&cl, &node, n, words, stdout, stderr));
    opts = cl.opts;
}

/* Loads the file `c`, with standard error caught. */
static int load_file(const char *path)
{
    int fds[2], old = dup(STDERR_FILENO);
    assert_int_equal(pipe(fds), 0);
    fflush(stderr);
    dup2(fds[1], STDERR_FILENO);
    int rc = config_load(&cl, path);
    fflush(stderr);
    dup2(old, STDERR_FILENO);
    close(old);
    close(fds[1]);
    ssize_t n = read(fds[0], said, sizeof said - 1);
    said[n > 0 ? n : 0] = '\0';
    close(fds[0]);
    assert_true((rc == 0) == (said[0] == '\0'));
    return rc;
}

static int load(const char *text)
{
    tmpdir_write(&dir, "c", text, 0600);
    return load_file(tmpdir_file(&dir, "c"));
}

/* A text that must be refused; the line names the file and `names`. */
static void refused(const char *text, const char *names)
{
    parse(NULL);
    assert_int_equal(load(text), 1);
    assert_non_null(strstr(said, tmpdir_file(&dir, "c")));
    if (strstr(said, names) == NULL)
        fail_msg("\"%s\" is not in: %s", names, said);
    assert_ptr_equal(strchr(said, '\n') + 1, said + strlen(said)); /* one line */
    cmdline_free(&cl);
}

static void test_every_setting(void **state)
{
    (void)state;
    parse(NULL);
    assert_int_equal(
        load(
            "{\"sk-file\": \"k\", \"listen\": \"127.0.0.1:0\", \"public-address\": \"h.example:1\","
            "\"full\": true, \"bootstrap\": [\"" PK1 "@a:1\", \"" PK1 "@b:2\"],"
            "\"store\": \"s\", \"store-bytes\": \"2G\", \"commit\": \"75ms\", \"control\": \"x\","
            "\"sessions\": 3, \"max-sessions\": 77, \"whitelisted\": [\"" PK1 "\"],"
            "\"trusted\": [\"" PK1 "\", \"" PK1 "\"], \"mirror\": [\"" PK1 "\"],"
            "\"peers\": [\"" PK1 "@c:3\"], \"accepted-peer\": [\"" PK1 "\"],"
            "\"allow-writer\": [\"tp=" PK1 "\", \"*=" PK1 "\"], \"allow-reader\": [\"" PK1 "\"],"
            "\"accept-relayed\": true, \"pk-threads\": 2, \"workers\": 4, "
            "\"log-level\": \"warn,dht=debug\", "
            "\"log-json\": true, \"max-sessions-address\": 5, \"handshake-rate\": 6,"
            "\"max-streams\": 7, \"key-rate\": \"1M\", \"total-rate\": 100000,"
            "\"network\": \"ours\", \"dmsg-health\": true, \"health\": \":1\", \"metrics\": "
            "\"h:2\", \"allow-keys\": "
            "\"al\", \"deny-keys\": \"de\","
            "\"discovery\": \"http://d.example\", \"mode\": \"dht-first\", \"lookup\": \"dht\", "
            "\"register\": \"unseen\", \"push\": \"off\", \"http\": \":0\", "
            "\"publish-sk-file\": \"p\","
            "\"ready\": true}"),
        0);
    assert_string_equal(opts->sk_file, "k");
    assert_string_equal(opts->listen.host, "127.0.0.1");
    assert_int_equal(opts->listen.port, 0);
    assert_int_equal(opts->public_address.port, 1);
    assert_true(opts->full && opts->log_json && opts->ready);
    assert_int_equal(opts->bootstrap.n, 2);
    assert_int_equal(opts->bootstrap.v[1].at.port, 2);
    assert_int_equal(opts->peers.n, 1);
    assert_int_equal(opts->peers.v[0].at.port, 3);
    assert_int_equal(opts->accepted_peers.n, 1);
    assert_true(opts->accept_relayed);
    assert_string_equal(opts->store, "s");
    assert_int_equal(opts->store_bytes, UINT64_C(2) << 30);
    assert_int_equal(opts->commit, 75 * 1000000);
    assert_string_equal(opts->control, "x");
    assert_int_equal(opts->sessions, 3);
    assert_int_equal(opts->max_sessions, 77);
    assert_int_equal(opts->relay.max_sessions_addr, 5);
    assert_int_equal(opts->relay.handshake_rate, 6);
    assert_int_equal(opts->relay.max_streams, 7);
    assert_int_equal(opts->relay.key_rate, 1 << 20);
    assert_int_equal(opts->relay.total_rate, 100000);
    assert_true(opts->dmsg_health && opts->health.port == 1 && opts->metrics.port == 2);
    assert_string_equal(opts->relay.allow_keys, "al");
    assert_string_equal(opts->relay.deny_keys, "de");
    assert_int_equal(opts->whitelisted.n, 1);
    assert_int_equal(opts->trusted.n, 2);
    assert_int_equal(opts->mirrors.n, 1);
    assert_int_equal(opts->readers.n, 1);
    assert_string_equal(opts->network, "ours");
    struct kad_writer *w;
    size_t n_writers;
    char why[256];
    assert_int_equal(config_writers(&w, &n_writers, &opts->writers, why, sizeof(why)), 0);
    assert_int_equal(n_writers, 2);
    assert_int_equal(w[0].ns, NS_TP);
    assert_int_equal(w[1].ns, NS__COUNT);
    free(w);
    assert_int_equal(opts->pk_threads, 2);
    assert_string_equal(opts->discovery, "http://d.example");
    assert_int_equal(opts->mode, NODE_MODE_DHT_FIRST);
    assert_int_equal(opts->lookup, NODE_LOOKUP_DHT);
    assert_int_equal(opts->registration, NODE_REGISTER_UNSEEN);
    assert_int_equal(opts->push, NODE_PUSH_OFF);
    assert_int_equal(opts->http.port, 0);
    assert_string_equal(opts->publish_sk_file, "p");
    assert_int_equal(opts->relay.workers, 4);
    assert_string_equal(opts->log_level, "warn,dht=debug");
    for (const struct cmd_opt *o = config_flags; o->name != NULL; o++) /* none was forgotten here */
        assert_true(cmdline_given(&cl, o->name) == config_is_setting(o));
    cmdline_free(&cl);
}

static void test_flags_win(void **state)
{
    static const char *const argv[] = {"--full=false", "--store",     "flag",
                                       "--bootstrap",  PK1 "@flag:9", NULL};
    (void)state;
    parse(argv);
    assert_int_equal(load("{\"full\": true, \"store\": \"file\", \"control\": \"file\","
                          "\"bootstrap\": [\"" PK1 "@file:1\", \"" PK1 "@file:2\"]}"),
                     0);
    assert_false(opts->full);
    assert_string_equal(opts->store, "flag");
    assert_string_equal(opts->control, "file");
    assert_int_equal(opts->bootstrap.n, 1);
    assert_string_equal(opts->bootstrap.v[0].at.host, "flag");
    cmdline_free(&cl);
}

static void test_numbers(void **state)
{
    (void)state;
    parse(NULL);
    assert_int_equal(load("{\"commit\": 0.25, \"store-bytes\": 1048576, \"sessions\": \"4\"}"), 0);
    assert_int_equal(opts->commit, 250000000);
    assert_int_equal(opts->store_bytes, 1048576);
    assert_int_equal(opts->sessions, 4);
    cmdline_free(&cl);
}

static void test_null_and_one_text_for_a_list(void **state)
{
    (void)state;
    parse(NULL);
    assert_int_equal(load("{\"store\": null, \"bootstrap\": \"" PK1 "@a:1\", \"mirror\": []}"), 0);
    assert_null(opts->store);
    assert_int_equal(opts->bootstrap.n, 1);
    assert_int_equal(opts->mirrors.n, 0);
    cmdline_free(&cl);
}

static void test_defaults_stay(void **state)
{
    (void)state;
    parse(NULL);
    assert_int_equal(load(" {}\n"), 0);
    assert_int_equal(opts->sessions, 2);
    assert_int_equal(opts->commit, 50000000);
    assert_string_equal(opts->log_level, "info");
    cmdline_free(&cl);
}

static void test_wrong_values(void **state)
{
    (void)state;
    refused("{\"listen\": 8081}", "\"listen\"");
    refused("{\"listen\": \"127.0.0.1:99999\"}", "127.0.0.1:99999");
    refused("{\"public-address\": \"x:0\"}", "\"public-address\"");
    refused("{\"full\": \"true\"}", "\"full\": not true or false");
    refused("{\"full\": 1}", "\"full\"");
    refused("{\"store\": true}", "\"store\"");
    refused("{\"store\": 5}", "\"store\"");
    refused("{\"store\": [\"a\"]}", "\"store\": only one value");
    refused("{\"store\": {}}", "\"store\"");
    refused("{\"bootstrap\": [\"nobody\"]}", "nobody");
    refused("{\"bootstrap\": [[\"" PK1 "@a:1\"]]}", "\"bootstrap\"");
    refused("{\"bootstrap\": [null]}", "\"bootstrap\"");
    refused("{\"bootstrap\": 7}", "\"bootstrap\"");
    refused("{\"mirror\": [\"" PK1 "00\"]}", "\"mirror\"");
    refused("{\"trusted\": [\"000000000000000000000000000000000000000000000000000000000000000000"
            "\"]}",
            "\"trusted\"");
    refused("{\"max-sessions\": -1}", "\"max-sessions\"");
    refused("{\"max-sessions\": 1e30}", "\"max-sessions\"");
    refused("{\"max-sessions\": 0}", "\"max-sessions\"");
    refused("{\"sessions\": 33}", "\"sessions\"");
    refused("{\"sessions\": 1.5}", "\"sessions\"");
    refused("{\"commit\": \"soon\"}", "soon");
    refused("{\"commit\": \"2h\"}", "\"commit\"");
    refused("{\"store-bytes\": \"1k\"}", "\"store-bytes\"");
    refused("{\"pk-threads\": 65}", "\"pk-threads\"");
}

static void test_unknown_members(void **state)
{
    (void)state;
    refused("{\"lisen\": \"127.0.0.1:0\"}", "no such setting: \"lisen\"");
    refused("{\"\": 1}", "no such setting: \"\"");
    refused("{\"config\": \"other\"}", "no such setting: \"config\"");
    refused("{\"sample-config\": true}", "no such setting: \"sample-config\"");
    refused("{\"lisen\": null}", "no such setting: \"lisen\"");
}

static void test_broken_files(void **state)
{
    (void)state;
    refused("", "line 1");
    refused("{", "line 1");
    refused("{\n\"full\": tru\n}", "line 2");
    refused("[]", "not a JSON object");
    refused("null", "");
    refused("{\"full\": true, \"full\": false}", "duplicate");
    refused("{} x", "line 1");
    refused("{\"store\": \"\\ud800\"}", "line 1");
    refused("{\"store\": \"a\\u0000b\"}", "line 1");
}

static void test_files_that_cannot_be_read(void **state)
{
    char *big = malloc(CONFIG_FILE_MAX + 2);
    (void)state;
    parse(NULL);
    assert_int_equal(load_file(tmpdir_file(&dir, "none")), 1);
    assert_non_null(strstr(said, "No such file"));
    assert_int_equal(load_file(dir.path), 1);
    assert_non_null(strstr(said, "directory"));
    memset(big, ' ', CONFIG_FILE_MAX + 1);
    big[CONFIG_FILE_MAX + 1] = '\0';
    memcpy(big, "{}", 2);
    assert_int_equal(load(big), 1);
    big[CONFIG_FILE_MAX] = '\0';
    assert_int_equal(load(big), 0);
    free(big);
    cmdline_free(&cl);
}

static void test_sample_loads_back(void **state)
{
    char text[8192];
    struct node_opts before;
    (void)state;
    FILE *f = fopen(tmpdir_file(&dir, "sample"), "w+");
    config_sample(f);
    rewind(f);
    text[fread(text, 1, sizeof text - 1, f)] = '\0';
    fclose(f);
    json_t *o = json_loads(text, 0, NULL);
    for (const struct cmd_opt *opt = config_flags; opt->name != NULL; opt++)
        assert_true((json_object_get(o, opt->name) != NULL) == config_is_setting(opt));
    json_decref(o);
    parse(NULL);
    before = *opts;
    assert_int_equal(load_file(tmpdir_file(&dir, "sample")), 0);
    assert_string_equal(opts->log_level, before.log_level);
    before.log_level = opts->log_level;
    assert_memory_equal(opts, &before, sizeof before); /* the defaults, all of them */
    cmdline_free(&cl);
}

static void test_reload(void **state)
{
    char why[256];
    (void)state;
    parse(NULL);
    assert_int_equal(load("{\"log-level\": \"warn\"}"), 0);
    tmpdir_write(&dir, "c", "{\"log-level\": \"error\", \"full\": true}", 0600);
    assert_int_equal(config_reload(&cl, tmpdir_file(&dir, "c"), why, sizeof why), 0);
    assert_string_equal(opts->log_level, "error");
    assert_false(opts->full); /* that one needs a restart */
    tmpdir_write(&dir, "c", "{\"log-level\": \"loud\"}", 0600);
    assert_true(config_reload(&cl, tmpdir_file(&dir, "c"), why, sizeof why) < 0);
    assert_non_null(strstr(why, "loud"));
    assert_string_equal(opts->log_level, "error");
    tmpdir_write(&dir, "c", "{\"log-level\": 3}", 0600);
    assert_true(config_reload(&cl, tmpdir_file(&dir, "c"), why, sizeof why) < 0);
    tmpdir_write(&dir, "c", "{", 0600);
    assert_true(config_reload(&cl, tmpdir_file(&dir, "c"), why, sizeof why) < 0);
    assert_true(config_reload(&cl, tmpdir_file(&dir, "none"), why, sizeof why) < 0);
    assert_string_equal(opts->log_level, "error");
    tmpdir_write(&dir, "c", "{}", 0600); /* the member is gone: its default */
    assert_int_equal(config_reload(&cl, tmpdir_file(&dir, "c"), why, sizeof why), 0);
    assert_string_equal(opts->log_level, "info");
    cmdline_free(&cl);
}

static void test_reload_does_not_beat_the_flag(void **state)
{
    static const char *const argv[] = {"--log-level", "error", NULL};
    char why[256];
    (void)state;
    parse(argv);
    tmpdir_write(&dir, "c", "{\"log-level\": \"debug\"}", 0600);
    assert_int_equal(config_reload(&cl, tmpdir_file(&dir, "c"), why, sizeof why), 0);
    assert_string_equal(opts->log_level, "error");
    cmdline_free(&cl);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_every_setting),
        TEST(test_flags_win),
        TEST(test_numbers),
        TEST(test_null_and_one_text_for_a_list),
        TEST(test_defaults_stay),
        TEST(test_wrong_values),
        TEST(test_unknown_members),
        TEST(test_broken_files),
        TEST(test_files_that_cannot_be_read),
        TEST(test_sample_loads_back),
        TEST(test_reload),
        TEST(test_reload_does_not_beat_the_flag),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
