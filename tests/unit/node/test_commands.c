/*
 * The command table of the whole program: it is without mistakes, every command has help, and the
 * manual pages say what the table says.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/crypto.h"
#include "base/err.h"
#include "node/cmds.h"
#include "node/completion.h"
#include "node/manpage.h"
#include "tests/unit/node/tmpdir.h"
#include "tests/unit/vectors.h"

static void test_table(void **state)
{
    char why[256] = "";
    (void)state;
    if (cmdline_check(cmds_root(), why, sizeof why) != 0)
        fail_msg("%s", why);
}

/* "kadmsg a b --help" and "kadmsg help a b": exit 0, nothing on stderr, every flag named. */
static void check_help(const char *const *words, size_t n, const struct cmd *c)
{
    for (int form = 0; form < 2; form++) {
        char *argv[8] = {(char *)(uintptr_t) "kadmsg"}, *out = NULL, *err = NULL;
        size_t out_n = 0, err_n = 0;
        int argc = 1;
        struct cmdline cl;
        FILE *o = open_memstream(&out, &out_n), *e = open_memstream(&err, &err_n);
        if (form == 1)
            argv[argc++] = (char *)(uintptr_t) "help";
        for (size_t i = 0; i < n; i++)
            argv[argc++] = (char *)(uintptr_t)words[i];
        if (form == 0)
            argv[argc++] = (char *)(uintptr_t) "--help";
        assert_false(cmdline_parse(&cl, cmds_root(), argc, argv, o, e));
        assert_int_equal(cl.exit_code, 0);
        cmdline_free(&cl);
        fclose(o);
        fclose(e);
        assert_int_equal(err_n, 0);
        for (const struct cmd_opt *f = c->opts; f != NULL && f->name != NULL; f++)
            assert_non_null(strstr(out, f->name));
        for (const struct cmd *s = c->subs; s != NULL && s->name != NULL; s++) {
            char line[64];
            snprintf(line, sizeof line, "\n  %s ", s->name);
            assert_true((strstr(out, line) != NULL) == !s->hidden);
        }
        free(out);
        free(err);
    }
}

static unsigned walk(const char **words, size_t n, const struct cmd *c)
{
    unsigned count = 1;
    check_help(words, n, c);
    for (const struct cmd *s = c->subs; s != NULL && s->name != NULL; s++) {
        words[n] = s->name;
        count += walk(words, n + 1, s);
    }
    return count;
}

static void test_help_of_every_command(void **state)
{
    const char *words[6];
    (void)state;
    assert_true(walk(words, 0, cmds_root()) > 20);
}

static char *slurp(const char *path)
{
    char *text = calloc(1, 1 << 20);
    FILE *f = fopen(path, "r");
    if (f == NULL)
        fail_msg("%s is not there (manual pages: make man)", path);
    assert_true(fread(text, 1, (1 << 20) - 1, f) > 0);
    fclose(f);
    return text;
}

/* The unit's ExecStart is a command line that this program takes. */
static void test_service(void **state)
{
    char *text, *words[32], *save = NULL;
    struct cmdline cl;
    int n = 0;
    (void)state;
    text = slurp("node/kadmsg.service.in");
    char *line = strstr(text, "\nExecStart=@BINDIR@/kadmsg ");
    assert_non_null(line);
    for (char *w = strtok_r(line + 11, " \n", &save); w != NULL && n < 32;
         w = strtok_r(NULL, " ", &save)) {
        char *end = strchr(w, '\n');
        if (end != NULL)
            *end = '\0';
        words[n++] = w;
        if (end != NULL)
            break;
    }
    assert_true(cmdline_parse(&cl, cmds_root(), n, words, stdout, stderr));
    assert_string_equal(cl.cmd->name, "node");
    assert_true(cmdline_given(&cl, "config") && cmdline_given(&cl, "control"));
    cmdline_free(&cl);
    free(text);
}

/* ---- completion ---- */

static char *script(enum completion_shell shell)
{
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    completion_print(f, cmds_root(), shell);
    fclose(f);
    return text;
}

static void check_offered(char *const texts[3], const struct cmd *c)
{
    static const char *const shells[] = {"bash", "zsh", "fish"};
    for (const struct cmd_opt *f = c->opts; f != NULL && f->name != NULL; f++) {
        for (int i = 0; i < 3; i++) {
            char want[80];
            snprintf(want, sizeof want, i == 0 ? "--%s " : i == 1 ? "--%s" : "-l %s ", f->name);
            if (strstr(texts[i], want) == NULL)
                fail_msg("%s of %s is missing for %s", f->name, c->name, shells[i]);
        }
    }
    for (const struct cmd *s = c->subs; s != NULL && s->name != NULL; s++) {
        char bash[64], zsh[64], fish[64];
        if (s->hidden)
            continue;
        snprintf(bash, sizeof bash, "%s ", s->name);
        snprintf(zsh, sizeof zsh, "'%s:", s->name);
        snprintf(fish, sizeof fish, " -a %s -d", s->name);
        assert_non_null(strstr(texts[0], bash));
        assert_non_null(strstr(texts[1], zsh));
        assert_non_null(strstr(texts[2], fish));
        check_offered(texts, s);
    }
}

/* All commands and flags are in all three scripts, and the same table gives the same bytes. */
static void test_completion(void **state)
{
    char *texts[3], *again;
    (void)state;
    for (int i = 0; i < 3; i++) {
        texts[i] = script((enum completion_shell)i);
        again = script((enum completion_shell)i);
        assert_string_equal(texts[i], again);
        assert_null(strstr(texts[i], "kadmsg man")); /* hidden */
        free(again);
    }
    check_offered(texts, cmds_root());
    for (int i = 0; i < 3; i++)
        free(texts[i]);
}

/* ---- manual pages ---- */

/* docs/man is what the program writes; otherwise: make man. */
static void test_manual_pages_are_current(void **state)
{
    struct tmpdir dir;
    struct dirent *e;
    unsigned pages = 0, kept = 0;
    (void)state;
    tmpdir_make(&dir);
    assert_int_equal(mkdir(tmpdir_file(&dir, "man"), 0700), 0);
    assert_int_equal(manpage_write_all(cmds_root(), tmpdir_file(&dir, "man")), 0);
    DIR *d = opendir(tmpdir_file(&dir, "man"));
    while ((e = readdir(d)) != NULL) {
        char name[300], place[300];
        if (e->d_name[0] == '.')
            continue;
        snprintf(name, sizeof name, "man/%s", e->d_name);
        snprintf(place, sizeof place, "docs/man/%s", e->d_name);
        char *now = slurp(tmpdir_file(&dir, name)), *there = slurp(place);
        if (strcmp(now, there) != 0)
            fail_msg("%s is not what the program says: make man", place);
        free(now);
        free(there);
        pages++;
    }
    closedir(d);
    d = opendir("docs/man"); /* and no page of a command that there is no more */
    while ((e = readdir(d)) != NULL)
        kept += e->d_name[0] != '.';
    closedir(d);
    assert_int_equal(pages, kept);
    tmpdir_remove(&dir);
}

static void test_pages_that_are_none(void **state)
{
    char *out = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&out, &n);
    (void)state;
    assert_int_equal(manpage_print(f, cmds_root(), "kadmsg-nothing"), ERR_NOT_FOUND);
    assert_int_equal(manpage_print(f, cmds_root(), "kadmsg-man"), ERR_NOT_FOUND); /* hidden */
    assert_int_equal(manpage_print(f, cmds_root(), ""), ERR_NOT_FOUND);
    fclose(f);
    assert_int_equal(n, 0);
    free(out);
    assert_int_equal(manpage_write_all(cmds_root(), "/nowhere/at/all"), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_help_of_every_command),
        cmocka_unit_test(test_service),
        cmocka_unit_test(test_completion),
        cmocka_unit_test(test_manual_pages_are_current),
        cmocka_unit_test(test_pages_that_are_none),
    };
    if (crypto_init() != 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
