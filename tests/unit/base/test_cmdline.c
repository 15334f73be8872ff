#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cmdline.h"
#include "base/cmdvalue.h"
#include "base/err.h"

#define NS_PER_S UINT64_C(1000000000)
#define PK       "022e7922958aab1fb80e7a0a0e4cad0e385f6939dff6cd00321a93a3040490908f"
#define SK       "0000000000000000000000000000000000000000000000000000000000000001"

/* ---- a table with everything in it ---- */

struct conn_opts {
    const char *control;
    struct cmd_peers bootstrap;
    uint64_t timeout_ns;
};

struct put_opts {
    uint64_t seq;
    bool json, quiet;
    const char *out;
    int mode;
    struct seckey sk;
    struct pubkey pk;
    struct cmd_strs tags;
    const char *salt, *value;
    struct conn_opts conn;
};

struct nc_opts {
    struct addr_dmsg to;
    uint16_t listen;
    uint64_t limit;
    struct addr_hostport at;
    struct cmd_strs words;
};

static const struct cmd_opt conn_flags[] = {
    {.name = "control",
     CMD_STR_AT(struct conn_opts, control),
     .metavar = "PATH",
     .def_text = "the running node's",
     .help = "ask the node behind this socket"},
    {.name = "bootstrap", CMD_PEERS_AT(struct conn_opts, bootstrap), .help = "first peer"},
    {.name = "timeout",
     CMD_SECONDS_AT(struct conn_opts, timeout_ns),
     .min = NS_PER_S / 10,
     .max = 3600 * NS_PER_S,
     .def = "20",
     .help = "give up after that time"},
    {0},
};

static const struct cmd_opt put_args[] = {
    {.name = "SALT", CMD_STR_AT(struct put_opts, salt), .help = "name of the slot"},
    {.name = "VALUE",
     .optional = true,
     CMD_STR_AT(struct put_opts, value),
     .help = "the value; - reads standard input"},
    {0},
};

static const struct cmd_opt put_flags[] = {
    {.name = "seq", CMD_U64_AT(struct put_opts, seq), .help = "force this sequence number"},
    {.name = "json", .letter = 'j', CMD_FLAG_AT(struct put_opts, json), .help = "print JSON"},
    {.name = "quiet", .letter = 'q', CMD_FLAG_AT(struct put_opts, quiet), .help = "print nothing"},
    {.name = "out",
     .letter = 'o',
     CMD_STR_AT(struct put_opts, out),
     .metavar = "FILE",
     .help = "write the answer there; this help text is long enough to need a second line of "
             "the page"},
    {.name = "mode",
     CMD_CHOICE_AT(struct put_opts, mode),
     .choices = "dht|hybrid|http",
     .def = "hybrid",
     .help = "how to look up"},
    {.name = "sk", .letter = 's', CMD_SECKEY_AT(struct put_opts, sk), .help = "secret key"},
    {.name = "pk", CMD_PUBKEY_AT(struct put_opts, pk), .help = "public key"},
    {.name = "tag", .letter = 't', CMD_STRS_AT(struct put_opts, tags), .help = "a tag"},
    {0},
};

static const struct cmd_group put_groups[] = {
    {"Connection flags", conn_flags, offsetof(struct put_opts, conn)},
    {0},
};

static const struct cmd_opt nc_args[] = {
    {.name = "ADDR", .optional = true, CMD_DMSG_AT(struct nc_opts, to), .help = "where to"},
    {.name = "WORD", .optional = true, CMD_STRS_AT(struct nc_opts, words), .help = "the rest"},
    {0},
};

static const struct cmd_opt nc_flags[] = {
    {.name = "listen", .letter = 'l', CMD_PORT_AT(struct nc_opts, listen), .help = "a port"},
    {.name = "limit", CMD_BYTES_AT(struct nc_opts, limit), .min = 1, .help = "stop after that"},
    {.name = "at", CMD_LISTEN_AT(struct nc_opts, at), .help = "TCP side"},
    {0},
};

static int ran;

static int run_put(struct cmdline *cl)
{
    const struct put_opts *o = cl->opts;
    ran++;
    if (o->json && o->quiet)
        return cmdline_usage_error(cl, "--json and --quiet exclude each other");
    return 42;
}

static const struct cmd dht_cmds[] = {
    {.name = "put",
     .help = "sign a value and publish it",
     .about = "First paragraph.\n\nSecond one.",
     .args = put_args,
     .opts = put_flags,
     .groups = put_groups,
     .opts_size = sizeof(struct put_opts),
     .run = run_put},
    {.name = "peers", .help = "print the routing table", .run = run_put},
    {0},
};

static const struct cmd root_cmds[] = {
    {.name = "dht", .help = "look up and publish", .subs = dht_cmds},
    {.name = "nc",
     .alias = "netcat",
     .help = "stream to stdin and stdout",
     .args = nc_args,
     .opts = nc_flags,
     .opts_size = sizeof(struct nc_opts),
     .run = run_put},
    {.name = "secret", .help = "not listed", .run = run_put, .hidden = true},
    {0},
};

static const struct cmd root = {.name = "prog", .help = "a program", .subs = root_cmds};

/* ---- helpers ---- */

static struct cmdline cl;
static char *out_text, *err_text;
static char *words[32];
static int word_count;

static void clean(void)
{
    cmdline_free(&cl);
    free(out_text);
    free(err_text);
    out_text = err_text = NULL;
    for (int i = 0; i < word_count; i++)
        free(words[i]);
    word_count = 0;
}

/* Parse "prog" and the words given, up to a NULL. */
static bool parse(const char *first, ...)
{
    FILE *out, *err;
    size_t n;
    va_list ap;
    clean();
    out = open_memstream(&out_text, &n);
    err = open_memstream(&err_text, &n);
    words[word_count++] = strdup("prog");
    va_start(ap, first);
    for (const char *w = first; w != NULL; w = va_arg(ap, const char *))
        words[word_count++] = strdup(w);
    va_end(ap);
    bool ok = cmdline_parse(&cl, &root, word_count, words, out, err);
    fclose(out);
    fclose(err);
    return ok;
}

#define PARSE(...) parse(__VA_ARGS__, NULL)

static void expect_usage_(const char *want, int line)
{
    char full[512];
    if (cl.exit_code != CMD_EXIT_USAGE || out_text[0] != '\0')
        fail_msg("line %d: exit %d, stdout %s", line, cl.exit_code, out_text);
    snprintf(full, sizeof full, "%s\n", want);
    if (strncmp(err_text, full, strlen(full)) != 0 || strstr(err_text, "\nTry 'prog") == NULL)
        fail_msg("line %d: %s", line, err_text);
}

#define EXPECT_USAGE(want, ...)                                                                    \
    do {                                                                                           \
        assert_false(PARSE(__VA_ARGS__));                                                          \
        expect_usage_(want, __LINE__);                                                             \
    } while (0)

/* ---- tests ---- */

static void test_values_and_defaults(void **state)
{
    (void)state;
    assert_true(PARSE("dht", "put", "profile"));
    const struct put_opts *o = cl.opts;
    assert_string_equal(cl.cmd->name, "put");
    assert_string_equal(o->salt, "profile");
    assert_null(o->value);
    assert_true(o->conn.timeout_ns == 20 * NS_PER_S);
    assert_int_equal(o->mode, 1);
    assert_int_equal(o->conn.bootstrap.n, 0);
    assert_false(cmdline_given(&cl, "timeout"));
    assert_false(cmdline_given(&cl, "seq"));
    assert_true(cmdline_given(&cl, "SALT"));
    char name[64];
    assert_string_equal(cmdline_name(&cl, name, sizeof name), "prog dht put");
    assert_string_equal(cmdline_name(&cl, name, 6), "prog ");

    assert_true(PARSE("dht", "put", "--seq", "18446744073709551615", "a", "--json", "--mode=http",
                      "-", "--timeout=0.5", "--control=", "-o", "-x", "--pk", PK, "--bootstrap",
                      PK "@h:1", "--tag=a", "-tb", "--bootstrap=" PK "@[::1]:2", "-t", "c"));
    o = cl.opts;
    assert_true(o->seq == UINT64_MAX && o->json && !o->quiet);
    assert_string_equal(o->salt, "a");
    assert_string_equal(o->value, "-");
    assert_int_equal(o->mode, 2);
    assert_true(o->conn.timeout_ns == NS_PER_S / 2);
    assert_string_equal(o->conn.control, "");
    assert_string_equal(o->out, "-x");
    assert_int_equal(o->pk.b[0], 2);
    assert_int_equal(o->conn.bootstrap.n, 2);
    assert_string_equal(o->conn.bootstrap.v[0].at.host, "h");
    assert_int_equal(o->conn.bootstrap.v[1].at.port, 2);
    assert_int_equal(o->tags.n, 3);
    assert_string_equal(o->tags.v[0], "a");
    assert_string_equal(o->tags.v[1], "b");
    assert_string_equal(o->tags.v[2], "c");
    assert_string_equal(err_text, "");
}

static void test_forms(void **state)
{
    (void)state;
    const struct put_opts *o;
    assert_true(PARSE("dht", "put", "-jqofile", "a", "--", "--seq"));
    o = cl.opts;
    assert_true(o->json && o->quiet);
    assert_string_equal(o->out, "file");
    assert_string_equal(o->value, "--seq");
    assert_true(
        PARSE("dht", "put", "-o=file", "-j=false", "--quiet=true", "a", "--seq=1", "--seq=2"));
    o = cl.opts;
    assert_string_equal(o->out, "file");
    assert_true(!o->json && o->quiet);
    assert_int_equal(o->seq, 2);

    assert_true(PARSE("nc", PK ":80", "-l", "1080", "one", "--limit=10k", "--", "-two", "--"));
    const struct nc_opts *n = cl.opts;
    assert_int_equal(n->to.port, 80);
    assert_int_equal(n->listen, 1080);
    assert_int_equal(n->limit, 10240);
    assert_int_equal(n->words.n, 3);
    assert_string_equal(n->words.v[1], "-two");
    assert_string_equal(n->words.v[2], "--");
    assert_true(PARSE("netcat"));
    assert_string_equal(cl.cmd->name, "nc");
    assert_true(PARSE("nc", "--at=:0"));
    assert_true(PARSE("secret"));
}

static void test_wrong_usage(void **state)
{
    (void)state;
    EXPECT_USAGE("prog: unknown command \"dhtt\"; did you mean dht?", "dhtt");
    EXPECT_USAGE("prog: unknown command \"x\\n\"", "x\n");
    EXPECT_USAGE("prog: unknown command \"secrt\"", "secrt");
    EXPECT_USAGE("prog: unknown command \"\"", "");
    EXPECT_USAGE("prog dht: unknown command \"ptu\"; did you mean put?", "dht", "ptu");
    EXPECT_USAGE("prog: flag \"--json\" stands before the command", "--json", "dht");
    EXPECT_USAGE("prog dht put: missing argument SALT: name of the slot", "dht", "put");
    EXPECT_USAGE("prog dht put: unexpected argument \"c\"", "dht", "put", "a", "b", "c");
    EXPECT_USAGE("prog dht put: unknown flag \"--sqe\"; did you mean --seq?", "dht", "put", "a",
                 "--sqe=5");
    EXPECT_USAGE("prog dht put: unknown flag \"--hlep\"; did you mean --help?", "dht", "put",
                 "--hlep");
    EXPECT_USAGE("prog dht put: unknown flag \"--nothing\"", "dht", "put", "a", "--nothing");
    EXPECT_USAGE("prog dht put: unknown flag \"--\"", "dht", "put", "a", "--=5");
    EXPECT_USAGE("prog dht put: unknown flag \"-x\"", "dht", "put", "a", "-jx");
    EXPECT_USAGE("prog dht put: unknown flag \"-1\"", "dht", "put", "a", "-1");
    EXPECT_USAGE("prog dht put: --seq needs a value: N", "dht", "put", "a", "--seq");
    EXPECT_USAGE("prog dht put: --out needs a value: FILE", "dht", "put", "a", "-o", "--json");
    EXPECT_USAGE("prog dht put: --out needs a value: FILE", "dht", "put", "a", "-o", "--seq=5");
    EXPECT_USAGE("prog dht put: --out needs a value: FILE", "dht", "put", "a", "-jo", "--");
    EXPECT_USAGE("prog dht put: --json \"maybe\": not true or false", "dht", "put", "a",
                 "--json=maybe");
    EXPECT_USAGE("prog dht put: --seq \"-1\": not a whole number from 0 to 18446744073709551615",
                 "dht", "put", "a", "--seq", "-1");
    EXPECT_USAGE("prog dht put: --mode \"dh\": not one of dht|hybrid|http", "dht", "put", "a",
                 "--mode", "dh");
    EXPECT_USAGE("prog dht put: --bootstrap \"x\": not PK@HOST:PORT", "dht", "put", "a",
                 "--bootstrap", "x");
    EXPECT_USAGE("prog nc: ADDR \"x\": not PK:PORT", "nc", "x");
    EXPECT_USAGE("prog dht peers: unexpected argument \"x\"", "dht", "peers", "x");
    EXPECT_USAGE("prog dht peers: unknown flag \"--json\"", "dht", "peers", "--json");
    EXPECT_USAGE("prog: unknown command \"nonsense\"", "help", "nonsense");
}

static void test_command_lists_without_a_command(void **state)
{
    (void)state;
    assert_false(parse(NULL));
    assert_int_equal(cl.exit_code, CMD_EXIT_USAGE);
    assert_string_equal(out_text, "");
    assert_non_null(strstr(err_text, "\nCommands:\n  dht   look up and publish\n  nc    stream"));
    assert_null(strstr(err_text, "secret"));
    assert_false(PARSE("dht"));
    assert_int_equal(cl.exit_code, CMD_EXIT_USAGE);
    assert_string_equal(out_text, "");
    assert_non_null(strstr(err_text, "Usage: prog dht COMMAND\n"));
}

static void test_help(void **state)
{
    (void)state;
    static const char want[] =
        "Usage: prog dht put [FLAGS] SALT [VALUE]\n"
        "\n"
        "sign a value and publish it\n"
        "\n"
        "First paragraph.\n"
        "\n"
        "Second one.\n"
        "\n"
        "Arguments:\n"
        "  SALT   name of the slot\n"
        "  VALUE  the value; - reads standard input\n"
        "\n"
        "Flags:\n"
        "      --seq N                 force this sequence number\n"
        "  -j, --json                  print JSON\n"
        "  -q, --quiet                 print nothing\n"
        "  -o, --out FILE              write the answer there; this help text is long\n"
        "                              enough to need a second line of the page\n"
        "      --mode dht|hybrid|http  how to look up (default: hybrid)\n"
        "  -s, --sk SK                 secret key\n"
        "      --pk PK                 public key\n"
        "  -t, --tag TEXT              a tag (may be repeated)\n"
        "\n"
        "Connection flags:\n"
        "      --control PATH     ask the node behind this socket (default: the running\n"
        "                         node's)\n"
        "      --bootstrap PK@HOST:PORT\n"
        "                         first peer (may be repeated)\n"
        "      --timeout SECONDS  give up after that time (default: 20)\n"
        "\n"
        "Help:\n"
        "  -h, --help  print this help\n";
    assert_false(PARSE("dht", "put", "--help"));
    assert_int_equal(cl.exit_code, CMD_EXIT_OK);
    assert_string_equal(out_text, want);
    assert_string_equal(err_text, "");
    assert_false(PARSE("help", "dht", "put"));
    assert_int_equal(cl.exit_code, CMD_EXIT_OK);
    assert_string_equal(out_text, want);
    assert_false(PARSE("dht", "put", "a", "-jh"));
    assert_string_equal(out_text, want);
    assert_false(PARSE("--help"));
    assert_int_equal(cl.exit_code, CMD_EXIT_OK);
    assert_non_null(strstr(out_text, "Usage: prog COMMAND\n"));
    assert_false(PARSE("help"));
    assert_int_equal(cl.exit_code, CMD_EXIT_OK);
    assert_false(PARSE("dht", "-h"));
    assert_int_equal(cl.exit_code, CMD_EXIT_OK);
    assert_true(PARSE("dht", "put", "a", "--", "--help"));
}

static void test_secret_keys_leave_argv(void **state)
{
    (void)state;
    assert_true(PARSE("dht", "put", "a", "--sk", SK));
    const struct put_opts *o = cl.opts;
    assert_int_equal(o->sk.b[31], 1);
    assert_string_equal(words[5], "");
    assert_string_equal(err_text, "prog dht put: warning: other users can read the secret key of "
                                  "--sk; use a file\n");
    assert_true(PARSE("dht", "put", "a", "--sk=" SK));
    assert_string_equal(words[4], "--sk=");
    assert_true(PARSE("dht", "put", "a", "-s" SK));
    assert_string_equal(words[4], "-s");
    assert_false(PARSE("dht", "put", "a", "--sk", SK "00"));
    assert_null(strstr(err_text, SK));
    assert_string_equal(words[5], "");
}

static void test_configuration_file(void **state)
{
    (void)state;
    char why[100];
    assert_true(PARSE("dht", "put", "a", "--seq=5", "--tag=user"));
    const struct put_opts *o = cl.opts;
    assert_int_equal(cmdline_set(&cl, "seq", "7", why, sizeof why), 0); /* flags win */
    assert_int_equal(cmdline_set(&cl, "tag", "file", why, sizeof why), 0);
    assert_int_equal(cmdline_set(&cl, "out", "file", why, sizeof why), 0);
    assert_int_equal(cmdline_set(&cl, "timeout", "1m", why, sizeof why), 0);
    assert_int_equal(cmdline_set(&cl, "bootstrap", PK "@a:1", why, sizeof why), 0);
    assert_int_equal(cmdline_set(&cl, "bootstrap", PK "@b:1", why, sizeof why), 0);
    assert_int_equal(cmdline_set(&cl, "json", "true", why, sizeof why), 0);
    assert_int_equal(o->seq, 5);
    assert_int_equal(o->tags.n, 1);
    assert_string_equal(o->out, "file");
    assert_true(o->conn.timeout_ns == 60 * NS_PER_S);
    assert_int_equal(o->conn.bootstrap.n, 2);
    assert_true(o->json && cmdline_given(&cl, "json"));
    assert_int_equal(cmdline_set(&cl, "mode", "x", why, sizeof why), ERR_USAGE);
    assert_string_equal(why, "not one of dht|hybrid|http");
    assert_int_equal(o->mode, 1);
    assert_int_equal(cmdline_set(&cl, "nothing", "x", why, sizeof why), ERR_NOT_FOUND);
    assert_int_equal(cmdline_set(&cl, "SALT", "x", why, sizeof why), ERR_NOT_FOUND);
    for (int i = 2; i < CMD_LIST_MAX; i++)
        assert_int_equal(cmdline_set(&cl, "bootstrap", PK "@b:1", why, sizeof why), 0);
    assert_int_equal(cmdline_set(&cl, "bootstrap", PK "@b:1", why, sizeof why), ERR_LIMIT);
    assert_int_equal(o->conn.bootstrap.n, CMD_LIST_MAX);
}

static void test_main(void **state)
{
    (void)state;
    char prog[] = "prog", dht[] = "dht", put[] = "put", arg[] = "a", both[] = "-jq", more[] = "b c";
    ran = 0;
    assert_int_equal(cmdline_main(&root, 4, (char *[]){prog, dht, put, arg, NULL}), 42);
    assert_int_equal(ran, 1);
    assert_int_equal(cmdline_main(&root, 5, (char *[]){prog, dht, put, arg, both, NULL}),
                     CMD_EXIT_USAGE);
    assert_int_equal(ran, 2);
    assert_int_equal(cmdline_main(&root, 6, (char *[]){prog, dht, put, arg, arg, more, NULL}),
                     CMD_EXIT_USAGE);
    assert_int_equal(ran, 2); /* refused before it ran */
}

/* ---- values ---- */

static void expect_number(enum cmd_type type, const char *text, bool ok, uint64_t want)
{
    const struct cmd_opt o = {.name = "x", .type = type};
    uint64_t v = 0;
    char why[100];
    int rc = cmd_value_parse(&o, text, &v, why, sizeof why);
    if (rc != (ok ? 0 : ERR_USAGE) || v != (ok ? want : 0))
        fail_msg("\"%s\" gives %d, %llu", text, rc, (unsigned long long)v);
}

static void test_numbers(void **state)
{
    (void)state;
    expect_number(CMD_U64, "0", true, 0);
    expect_number(CMD_U64, "007", true, 7);
    expect_number(CMD_U64, "18446744073709551615", true, UINT64_MAX);
    expect_number(CMD_BYTES, "64k", true, 65536);
    expect_number(CMD_BYTES, "1.5M", true, 3 << 19);
    expect_number(CMD_BYTES, "16777215T", true, UINT64_C(16777215) << 40);
    expect_number(CMD_BYTES, "1048576", true, 1048576);
    expect_number(CMD_SECONDS, "20", true, 20 * NS_PER_S);
    expect_number(CMD_SECONDS, "0.000000001", true, 1);
    expect_number(CMD_SECONDS, "0.1ms", true, 100000);
    expect_number(CMD_SECONDS, "1.5m", true, 90 * NS_PER_S);
    expect_number(CMD_SECONDS, "0.999999999d", true, UINT64_C(86399999913600));
    expect_number(CMD_SECONDS, "2h", true, 7200 * NS_PER_S);
    static const char *const bad[] = {"",
                                      " 1",
                                      "1 ",
                                      "-1",
                                      "+1",
                                      "x",
                                      "1x",
                                      "1.",
                                      ".5",
                                      "1e3",
                                      "0x1",
                                      "1,5",
                                      "1.1.1",
                                      "1.0k0",
                                      "ms",
                                      "1kk",
                                      "18446744073709551616",
                                      "99999999999999999999999d"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        expect_number(CMD_U64, bad[i], false, 0);
        expect_number(CMD_BYTES, bad[i], false, 0);
        expect_number(CMD_SECONDS, bad[i], false, 0);
    }
    expect_number(CMD_U64, "1.0", false, 0);
    expect_number(CMD_U64, "1k", false, 0);
    expect_number(CMD_BYTES, "1.5", false, 0);
    expect_number(CMD_BYTES, "16777216T", false, 0);
    expect_number(CMD_SECONDS, "0.0000000001", false, 0);
    expect_number(CMD_SECONDS, "18446744074", false, 0);
    expect_number(CMD_SECONDS, "1S", false, 0);
}

static void test_ranges(void **state)
{
    (void)state;
    char why[100];
    uint64_t v;
    struct cmd_opt o = {.name = "x", .type = CMD_U64, .min = 2, .max = 9};
    assert_int_equal(cmd_value_parse(&o, "2", &v, why, sizeof why), 0);
    assert_int_equal(cmd_value_parse(&o, "9", &v, why, sizeof why), 0);
    assert_int_equal(cmd_value_parse(&o, "1", &v, why, sizeof why), ERR_USAGE);
    assert_int_equal(cmd_value_parse(&o, "10", &v, why, sizeof why), ERR_USAGE);
    assert_string_equal(why, "not a whole number from 2 to 9");
    o = (struct cmd_opt){.type = CMD_SECONDS, .min = NS_PER_S / 10, .max = 60 * NS_PER_S};
    assert_int_equal(cmd_value_parse(&o, "0.1", &v, why, sizeof why), 0);
    assert_int_equal(cmd_value_parse(&o, "61", &v, why, sizeof why), ERR_USAGE);
    assert_string_equal(why, "not from 0.1 to 60 seconds");
    o = (struct cmd_opt){.type = CMD_BYTES, .min = 1024};
    assert_int_equal(cmd_value_parse(&o, "1k", &v, why, sizeof why), 0);
    assert_int_equal(cmd_value_parse(&o, "1023", &v, why, sizeof why), ERR_USAGE);
    assert_string_equal(why, "not from 1024 to 18446744073709551615 bytes");
}

static void test_keys_and_ports(void **state)
{
    (void)state;
    char why[100];
    struct pubkey pk;
    struct seckey sk;
    uint16_t port;
    struct addr_hostport at;
    struct cmd_opt o = {.type = CMD_PUBKEY};
    assert_int_equal(cmd_value_parse(&o, PK, &pk, why, sizeof why), 0);
    assert_int_equal(cmd_value_parse(&o, PK "0", &pk, why, sizeof why), ERR_USAGE);
    assert_string_equal(why, "key does not have 66 hex digits");
    assert_int_equal(cmd_value_parse(&o, "05" SK, &pk, why, sizeof why), ERR_USAGE);
    assert_string_equal(why, "not a public key");
    o.type = CMD_SECKEY;
    assert_int_equal(cmd_value_parse(&o, SK, &sk, why, sizeof why), 0);
    assert_int_equal(cmd_value_parse(&o, "00" SK, &sk, why, sizeof why), ERR_USAGE);
    o.type = CMD_PORT;
    assert_int_equal(cmd_value_parse(&o, "65535", &port, why, sizeof why), 0);
    assert_int_equal(cmd_value_parse(&o, "0", &port, why, sizeof why), ERR_USAGE);
    assert_int_equal(cmd_value_parse(&o, "65536", &port, why, sizeof why), ERR_USAGE);
    o.type = CMD_HOSTPORT;
    assert_int_equal(cmd_value_parse(&o, "h:1", &at, why, sizeof why), 0);
    assert_int_equal(cmd_value_parse(&o, "h:0", &at, why, sizeof why), ERR_USAGE);
    o.type = CMD_LISTEN;
    assert_int_equal(cmd_value_parse(&o, "h:0", &at, why, sizeof why), 0);
}

/* ---- mistakes in a table ---- */

static void expect_mistake(const struct cmd *c, const char *want)
{
    char why[200] = "";
    assert_int_equal(cmdline_check(c, why, sizeof why), ERR_STATE);
    assert_string_equal(why, want);
}

static void test_check(void **state)
{
    (void)state;
    char why[200];
    assert_int_equal(cmdline_check(&root, why, sizeof why), 0);

    struct cmd_opt o[3] = {
        {.name = "a", CMD_U64_AT(struct put_opts, seq), .help = "x"},
        {.name = "b", .letter = 'b', CMD_FLAG_AT(struct put_opts, json), .help = "x"},
    };
    struct cmd c = {
        .name = "c", .help = "x", .opts = o, .run = run_put, .opts_size = sizeof(struct put_opts)};
    assert_int_equal(cmdline_check(&c, why, sizeof why), 0);
    o[0].help = NULL;
    expect_mistake(&c, "c: a: no help");
    o[0].help = "x";
    o[0].def = "-1";
    expect_mistake(&c, "c: a: bad default");
    o[0].def = NULL;
    o[0].name = "b";
    expect_mistake(&c, "c: b: name twice");
    o[0].name = "a";
    o[0].letter = 'b';
    expect_mistake(&c, "c: b: letter twice");
    o[0].letter = 'h';
    expect_mistake(&c, "c: a: help is taken");
    o[0].letter = 0;
    o[0].choices = "x|y";
    expect_mistake(&c, "c: a: choices belong to CMD_CHOICE");
    o[0].choices = NULL;
    c.opts_size = 1;
    expect_mistake(&c, "c: a: outside of the options' struct");
    c.opts_size = sizeof(struct put_opts);
    c.opts = NULL;
    c.args = o;
    o[0].optional = true;
    expect_mistake(&c, "c: b: behind a list or an optional argument");
    o[0].optional = false;
    assert_int_equal(cmdline_check(&c, why, sizeof why), 0);
    c.run = NULL;
    expect_mistake(&c, "c: c: nothing to run");
    c.run = run_put;
    struct cmd subs[3] = {{.name = "s", .help = "x", .run = run_put},
                          {.name = "t", .alias = "s", .help = "x", .run = run_put}};
    c.subs = subs;
    expect_mistake(&c, "c: t: name twice");
}

static int teardown(void **state)
{
    (void)state;
    clean();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_values_and_defaults, teardown),
        cmocka_unit_test_teardown(test_forms, teardown),
        cmocka_unit_test_teardown(test_wrong_usage, teardown),
        cmocka_unit_test_teardown(test_command_lists_without_a_command, teardown),
        cmocka_unit_test_teardown(test_help, teardown),
        cmocka_unit_test_teardown(test_secret_keys_leave_argv, teardown),
        cmocka_unit_test_teardown(test_configuration_file, teardown),
        cmocka_unit_test(test_main),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_keys_and_ports),
        cmocka_unit_test(test_check),
    };
    if (crypto_init() != 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
