/* Files of a run, the page made of them, and two runs side by side. */
#include "simulator/report.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "simulator/results.h"
#include "tests/unit/vectors.h"

static char dir_a[] = "/tmp/kadmsg-report-XXXXXX", dir_b[] = "/tmp/kadmsg-report-XXXXXX";
static char why[512];

static void write_run(const char *dir, uint64_t lookups, const char *name)
{
    struct sim_result *r = calloc(1, sizeof *r);
    struct sim_cfg cfg;
    struct results_use use = {.wall_s = 2, .cpu_s = 1.5, .rss_mib = 9};

    sim_cfg_default(&cfg);
    snprintf(cfg.name, sizeof cfg.name, "%s", name);
    r->nodes = 100;
    r->sum.gets_ok = lookups;
    r->digest[0] = lookups;
    r->n_series = 300;
    for (size_t i = 0; i < r->n_series; i++) {
        r->series[i] = (struct sim_point){.at_ns = i * 60000000000u,
                                          .events = i * 100,
                                          .gets_ok = i * lookups / 299,
                                          .live = 100};
        hist_add(&r->get_us, 1000 * (i + 1));
        hist_add(&r->get_hops, 1 + i % 3);
    }
    json_t *j = results_summary(&cfg, r, &use);
    assert_non_null(j);
    assert_int_equal(results_write(dir, j, r, why, sizeof why), 0);
    json_decref(j);
    free(r);
}

static int set_up(void **state)
{
    (void)state;
    if (mkdtemp(dir_a) == NULL || mkdtemp(dir_b) == NULL)
        return -1;
    write_run(dir_a, 200, "one");
    write_run(dir_b, 300, "</two & 'a'>");
    return 0;
}

static void remove_run(const char *dir)
{
    static const char *const names[] = {"summary.json", "series.csv", "histograms.csv"};
    char path[256];

    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        (void)unlink(path);
    }
    (void)rmdir(dir);
}

static int tear_down(void **state)
{
    (void)state;
    remove_run(dir_a);
    remove_run(dir_b);
    return 0;
}

static struct report_run *load(const char *dir)
{
    struct report_run *run;

    why[0] = '\0';
    int rc = report_load(&run, dir, why, sizeof why);
    if (rc != 0)
        print_message("%s\n", why);
    assert_int_equal(rc, 0);
    return run;
}

static char *page(const struct report_run *const *runs, size_t n, int want)
{
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);

    assert_non_null(f);
    int rc = report_html(f, runs, n, why, sizeof why);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(rc, want);
    return text;
}

static size_t occurrences(const char *text, const char *word)
{
    size_t n = 0;

    for (; (text = strstr(text, word)) != NULL; text += strlen(word))
        n++;
    return n;
}

static void test_page_of_one(void **state)
{
    (void)state;
    struct report_run *run = load(dir_a);
    char *text = page((const struct report_run *[]){run}, 1, 0);

    assert_int_equal(report_pictures(dir_b, run, why, sizeof why), 0);
    static const char *const names[] = {"live", "events", "gets_ok", "get_us", "get_hops"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[256];
        snprintf(path, sizeof path, "%s/%s.svg", dir_b, names[i]);
        assert_int_equal(unlink(path), 0);
    }
    assert_true(report_pictures("/nowhere", run, why, sizeof why) < 0);
    assert_non_null(strstr(why, "/nowhere/live.svg"));

    /* live, events, failed look-ups, time and hops have points; no publication, nobody served. */
    assert_int_equal(occurrences(text, "<figure>"), 5);
    assert_int_equal(occurrences(text, "src=\"data:image/svg+xml;base64,"), 5);
    assert_int_equal(occurrences(text, "http://"), 0);
    assert_non_null(strstr(text, "<h1>one</h1>"));
    assert_non_null(strstr(text, "</html>"));
    free(text);
    report_free(run);
}

static void test_page_of_two(void **state)
{
    (void)state;
    struct report_run *a = load(dir_a), *b = load(dir_b);
    char *text = page((const struct report_run *[]){a, b}, 2, 0);

    assert_int_equal(occurrences(text, "<figure>"), 5);
    assert_non_null(strstr(text, "one and &lt;/two &amp; 'a'>"));
    assert_null(strstr(text, "</two"));
    free(text);
    report_free(a);
    report_free(b);
}

static void test_no_gnuplot(void **state)
{
    (void)state;
    struct report_run *run = load(dir_a);
    char *path = strdup(getenv("PATH"));

    setenv("PATH", "/nonexistent", 1);
    free(page((const struct report_run *[]){run}, 1, ERR_NOT_FOUND));
    setenv("PATH", path, 1);
    assert_non_null(strstr(why, "gnuplot"));
    free(path);
    report_free(run);
}

static void test_compare(void **state)
{
    (void)state;
    struct report_run *a = load(dir_a), *b = load(dir_b);
    json_t *j = report_compare(a, b), *same = report_compare(a, a);
    const json_t *ok = json_object_get(j, "lookups.ok");

    assert_true(json_is_false(json_object_get(j, "same_digest")));
    assert_true(json_is_true(json_object_get(same, "same_digest")));
    assert_int_equal(json_integer_value(json_object_get(ok, "a")), 200);
    assert_int_equal(json_integer_value(json_object_get(ok, "b")), 300);
    assert_true(json_real_value(json_object_get(ok, "change")) == 0.5);
    assert_true(json_is_null(json_object_get(json_object_get(j, "puts.ok"), "change")));
    assert_null(json_object_get(j, "scenario"));
    json_decref(j);
    json_decref(same);
    report_free(a);
    report_free(b);
}

/* Overwrites a file of run b, loads it, and puts the run back. */
static void refused(const char *name, const char *text, const char *reason)
{
    char path[256];
    struct report_run *run;

    snprintf(path, sizeof path, "%s/%s", dir_b, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(report_load(&run, dir_b, why, sizeof why), ERR_FORMAT);
    assert_null(run);
    if (strstr(why, path) == NULL || strstr(why, reason) == NULL)
        fail_msg("%s: %s: %s", name, reason, why);
    write_run(dir_b, 300, "again");
}

static void test_bad_files(void **state)
{
    (void)state;
    struct report_run *run;

    assert_int_not_equal(report_load(&run, "/nonexistent", why, sizeof why), 0);
    assert_string_equal(why, "/nonexistent/summary.json: No such file or directory");
    refused("summary.json", "[1]", "not the summary");
    refused("summary.json", "{", "expected");
    refused("series.csv", "", "row 1");
    refused("series.csv", "virtual_s,live\n1,2\n1,x\n", "row 2");
    refused("series.csv", "virtual_s,live\n1\n", "row 1");
    refused("series.csv", "virtual_s,live\n1,2,3\n", "row 1");
    refused("series.csv", "live\n1\n", "not a table");
    refused("histograms.csv", "name,count\na,1\n", "not a table");
}

static void test_cannot_write(void **state)
{
    (void)state;
    struct sim_result *r = calloc(1, sizeof *r);
    json_t *j = json_object();

    assert_int_not_equal(results_write("/nonexistent/x", j, r, why, sizeof why), 0);
    assert_non_null(strstr(why, "/nonexistent/x/summary.json.part: No such file"));
    json_decref(j);
    free(r);
}

/* A disk that is full leaves what was there. */
static void test_full_disk(void **state)
{
    (void)state;
    char path[256], to[64];
    struct sim_result *r = calloc(1, sizeof *r);
    json_t *j = json_object();

    snprintf(path, sizeof path, "%s/summary.json.part", dir_a);
    assert_int_equal(symlink("/dev/full", path), 0);
    assert_int_not_equal(results_write(dir_a, j, r, why, sizeof why), 0);
    assert_non_null(strstr(why, "No space left"));
    assert_int_equal(readlink(path, to, sizeof to), -1);
    report_free(load(dir_a));
    json_decref(j);
    free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_page_of_one), cmocka_unit_test(test_page_of_two),
        cmocka_unit_test(test_no_gnuplot),  cmocka_unit_test(test_compare),
        cmocka_unit_test(test_bad_files),   cmocka_unit_test(test_cannot_write),
        cmocka_unit_test(test_full_disk),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
