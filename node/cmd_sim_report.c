#include "node/cmd_sim.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "node/tool.h"
#include "simulator/report.h"

#define WHY_CAP 512

/* ---- pages ---- */

/* The page gets its name when it is whole. */
static int write_page(const char *path, const struct report_run *const *runs, size_t n)
{
    char part[1040], why[WHY_CAP] = "";

    if (snprintf(part, sizeof part, "%s.part", path) >= (int)sizeof part) {
        (void)tool_fail(ERR_USAGE, "%.200s…: %s", path, strerror(ENAMETOOLONG));
        return CMD_EXIT_FAIL;
    }
    FILE *f = fopen(part, "w");
    if (f == NULL) {
        (void)tool_fail(err_sys(), "%s: %s", path, strerror(errno));
        return CMD_EXIT_FAIL;
    }
    int rc = report_html(f, runs, n, why, sizeof why);
    if (rc == 0 && ferror(f) != 0)
        rc = ERR_NO_SPACE;
    if ((fclose(f) != 0 || (rc == 0 && rename(part, path) != 0)) && rc == 0)
        rc = err_sys();
    if (rc == 0)
        return 0;
    (void)unlink(part);
    (void)tool_fail(rc, "%s: %s", path, why[0] != '\0' ? why : err_str(rc));
    return CMD_EXIT_FAIL;
}

static int load(struct report_run **run, const char *dir)
{
    char why[WHY_CAP];
    int rc = report_load(run, dir, why, sizeof why);

    if (rc != 0)
        (void)tool_fail(rc, "%s", why);
    return rc == 0 ? 0 : CMD_EXIT_FAIL;
}

/* ---- sim report ---- */

int sim_report_run(struct cmdline *cl)
{
    const struct sim_report_opts *o = cl->opts;
    struct report_run *run;
    char path[1024];

    if (o->out == NULL && snprintf(path, sizeof path, "%s/report.html", o->dir) >= (int)sizeof path)
        return cmdline_usage_error(cl, "the name of the folder is too long");
    int rc = load(&run, o->dir);
    if (rc != 0)
        return rc;
    char why[WHY_CAP];
    if (o->pictures != NULL && (rc = report_pictures(o->pictures, run, why, sizeof why)) != 0) {
        (void)tool_fail(rc, "%s", why);
        rc = CMD_EXIT_FAIL;
    }
    if (rc == 0)
        rc = write_page(o->out != NULL ? o->out : path, (const struct report_run *[]){run}, 1);
    report_free(run);
    if (rc == 0)
        puts(o->out != NULL ? o->out : path);
    return rc;
}

const struct cmd_opt sim_report_args[] = {{.name = "DIR",
                                           CMD_STR_AT(struct sim_report_opts, dir),
                                           .help = "what sim run --out was given"},
                                          {0}};

const struct cmd_opt sim_report_flags[] = {{.name = "out",
                                            .letter = 'o',
                                            CMD_STR_AT(struct sim_report_opts, out),
                                            .metavar = "FILE",
                                            .def_text = "DIR/report.html",
                                            .help = "where the page goes"},
                                           {.name = "pictures",
                                            CMD_STR_AT(struct sim_report_opts, pictures),
                                            .metavar = "FOLDER",
                                            .help = "the pictures as SVG files, too"},
                                           {0}};

/* ---- sim compare ---- */

static void print_number(const json_t *v)
{
    if (json_is_integer(v))
        printf(" %16lld", (long long)json_integer_value(v));
    else if (json_is_real(v))
        printf(" %16.6g", json_real_value(v));
    else
        printf(" %16s", "-");
}

static void print_table(const json_t *j, bool all)
{
    const char *key;
    json_t *v;

    printf("%-28s %16s %16s %9s\n", "", "A", "B", "change");
    json_object_foreach((json_t *)(uintptr_t)j, key, v)
    {
        const json_t *a = json_object_get(v, "a"), *b = json_object_get(v, "b"),
                     *change = json_object_get(v, "change");
        if (!json_is_object(v) || (!all && json_equal(a, b)))
            continue;
        printf("%-28s", key);
        print_number(a);
        print_number(b);
        if (json_is_real(change))
            printf(" %+8.1f%%", json_real_value(change) * 100);
        putchar('\n');
    }
    puts(json_is_true(json_object_get(j, "same_digest")) ? "The runs are the same: equal digests."
                                                         : "The digests differ.");
}

static int compare(const struct sim_compare_opts *o, const struct report_run *a,
                   const struct report_run *b)
{
    int rc = o->out != NULL ? write_page(o->out, (const struct report_run *[]){a, b}, 2) : 0;

    if (rc != 0)
        return rc;
    json_t *j = report_compare(a, b);
    if (j == NULL) {
        (void)tool_fail(ERR_NOMEM, "%s", err_str(ERR_NOMEM));
        return CMD_EXIT_FAIL;
    }
    if (o->json) {
        tool_print(j);
        return 0;
    }
    print_table(j, o->all);
    json_decref(j);
    return 0;
}

int sim_compare_run(struct cmdline *cl)
{
    const struct sim_compare_opts *o = cl->opts;
    struct report_run *a = NULL, *b = NULL;

    int rc = load(&a, o->a);
    if (rc == 0)
        rc = load(&b, o->b);
    if (rc == 0)
        rc = compare(o, a, b);
    report_free(a);
    report_free(b);
    return rc;
}

const struct cmd_opt sim_compare_args[] = {
    {.name = "A", CMD_STR_AT(struct sim_compare_opts, a), .help = "what sim run --out was given"},
    {.name = "B", CMD_STR_AT(struct sim_compare_opts, b), .help = "the same of another run"},
    {0}};

const struct cmd_opt sim_compare_flags[] = {
    {.name = "out",
     .letter = 'o',
     CMD_STR_AT(struct sim_compare_opts, out),
     .metavar = "FILE",
     .help = "write an HTML page with the curves of both there too"},
    {.name = "all", CMD_FLAG_AT(struct sim_compare_opts, all), .help = "also what is equal"},
    {.name = "json", CMD_FLAG_AT(struct sim_compare_opts, json), .help = "print JSON"},
    {0}};
