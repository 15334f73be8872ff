#include "simulator/report.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/base64.h"
#include "base/err.h"
#include "simulator/plot.h"

#define COLUMNS_MAX 32

struct table {   /* a CSV file of numbers; the first column may be a name */
    char **name; /* of columns */
    size_t columns, rows;
    char **label; /* first column of each row, when labelled */
    double *cell; /* rows × columns */
};

struct report_run {
    char *dir;
    json_t *summary;
    struct table series, histograms;
};

/* ---- reading ---- */

static int bad(char *why, size_t why_cap, const char *path, const char *reason)
{
    snprintf(why, why_cap, "%s: %s", path, reason);
    return ERR_FORMAT;
}

static int slurp(char **out, const char *path, char *why, size_t why_cap)
{
    FILE *f = fopen(path, "r");
    struct stat st;
    char *text = NULL;
    int rc = 0;

    if (f == NULL || fstat(fileno(f), &st) != 0) {
        rc = err_sys();
        snprintf(why, why_cap, "%s: %s", path, strerror(errno));
    } else if (st.st_size > (off_t)REPORT_FILE_MAX) {
        rc = bad(why, why_cap, path, "too long for a result");
    } else if ((text = calloc(1, (size_t)st.st_size + 1)) == NULL) {
        rc = ERR_NOMEM;
        snprintf(why, why_cap, "%s: %s", path, err_str(rc));
    } else {
        size_t n = fread(text, 1, (size_t)st.st_size, f);
        text[n] = '\0';
    }
    if (f != NULL)
        (void)fclose(f);
    *out = text;
    return rc;
}

static void table_free(struct table *t)
{
    for (size_t i = 0; t->name != NULL && i < t->columns; i++)
        free(t->name[i]);
    for (size_t i = 0; t->label != NULL && i < t->rows; i++)
        free(t->label[i]);
    free(t->name);
    free(t->label);
    free(t->cell);
}

static size_t count_lines(const char *s)
{
    size_t n = 0;

    for (; *s != '\0'; s++)
        n += *s == '\n';
    return n;
}

static int read_names(struct table *t, char *line)
{
    char *rest = NULL;

    t->name = calloc(COLUMNS_MAX, sizeof *t->name);
    if (t->name == NULL)
        return ERR_NOMEM;
    for (char *word = strtok_r(line, ",", &rest); word != NULL; word = strtok_r(NULL, ",", &rest)) {
        if (t->columns == COLUMNS_MAX)
            return ERR_FORMAT;
        if ((t->name[t->columns] = strdup(word)) == NULL)
            return ERR_NOMEM;
        t->columns++;
    }
    return t->columns > 0 ? 0 : ERR_FORMAT;
}

static int read_row(struct table *t, char *line, bool labelled)
{
    double *cell = t->cell + t->rows * t->columns;
    char *rest = NULL, *word = strtok_r(line, ",", &rest);

    for (size_t i = 0; i < t->columns; i++, word = strtok_r(NULL, ",", &rest)) {
        char *end = word;
        if (word == NULL)
            return ERR_FORMAT;
        if (labelled && i == 0) {
            if ((t->label[t->rows] = strdup(word)) == NULL)
                return ERR_NOMEM;
            continue;
        }
        cell[i] = strtod(word, &end);
        if (end == word || *end != '\0')
            return ERR_FORMAT;
    }
    if (word != NULL)
        return ERR_FORMAT;
    t->rows++;
    return 0;
}

static int table_parse(struct table *t, char *text, bool labelled)
{
    size_t lines = count_lines(text);
    char *rest = NULL, *line = strtok_r(text, "\n", &rest);
    int rc = line != NULL ? read_names(t, line) : ERR_FORMAT;

    if (rc != 0)
        return rc;
    t->cell = calloc(lines * t->columns, sizeof *t->cell);
    t->label = labelled ? calloc(lines, sizeof *t->label) : NULL;
    if (t->cell == NULL || (labelled && t->label == NULL))
        return ERR_NOMEM;
    while (rc == 0 && (line = strtok_r(NULL, "\n", &rest)) != NULL)
        rc = t->rows + 1 < lines ? read_row(t, line, labelled) : ERR_FORMAT;
    return rc;
}

static const double *column(const struct table *t, size_t row, const char *name)
{
    for (size_t i = 0; i < t->columns; i++) {
        if (strcmp(t->name[i], name) == 0)
            return t->cell + row * t->columns + i;
    }
    return NULL;
}

static bool is_result(const struct table *t, bool labelled)
{
    if (!labelled)
        return column(t, 0, "virtual_s") != NULL;
    return column(t, 0, "upto") != NULL && column(t, 0, "count") != NULL;
}

static int load_table(struct table *t, const char *dir, const char *name, bool labelled, char *why,
                      size_t why_cap)
{
    char path[1024], *text = NULL;

    snprintf(path, sizeof path, "%s/%s", dir, name);
    int rc = slurp(&text, path, why, why_cap);
    if (rc == 0) {
        rc = table_parse(t, text, labelled);
        if (rc == 0 && !is_result(t, labelled))
            rc = ERR_FORMAT;
        if (rc != 0)
            snprintf(why, why_cap, "%s: row %zu: %s", path, t->rows + 1,
                     rc == ERR_FORMAT ? "not a table of this program" : err_str(rc));
    }
    free(text);
    return rc;
}

static int load_summary(struct report_run *run, char *why, size_t why_cap)
{
    char path[1024], *text = NULL;
    json_error_t err;

    snprintf(path, sizeof path, "%s/summary.json", run->dir);
    int rc = slurp(&text, path, why, why_cap);
    if (rc != 0)
        return rc;
    run->summary = json_loads(text, 0, &err);
    free(text);
    if (json_is_object(run->summary) && json_object_get(run->summary, "lookups") != NULL)
        return 0;
    return bad(why, why_cap, path, run->summary == NULL ? err.text : "not the summary of a run");
}

int report_load(struct report_run **out, const char *dir, char *why, size_t why_cap)
{
    struct report_run *run = calloc(1, sizeof *run);

    *out = NULL;
    if (run == NULL || (run->dir = strdup(dir)) == NULL) {
        report_free(run);
        snprintf(why, why_cap, "%s", err_str(ERR_NOMEM));
        return ERR_NOMEM;
    }
    int rc = load_summary(run, why, why_cap);
    if (rc == 0)
        rc = load_table(&run->series, dir, "series.csv", false, why, why_cap);
    if (rc == 0)
        rc = load_table(&run->histograms, dir, "histograms.csv", true, why, why_cap);
    if (rc != 0) {
        report_free(run);
        return rc;
    }
    *out = run;
    return 0;
}

void report_free(struct report_run *run)
{
    if (run == NULL)
        return;
    json_decref(run->summary);
    table_free(&run->series);
    table_free(&run->histograms);
    free(run->dir);
    free(run);
}

/* ---- curves ---- */

struct picture {
    const char *title, *xlabel, *ylabel;
    void (*curve)(struct plot *p, const struct report_run *run, const struct picture *pic);
    const char *what; /* column or histogram */
    const char *part; /* share_curve: the other column */
    double unit;      /* of x in a histogram: 1000 turns µs into ms */
    enum plot_style style;
    bool log_x;
};

static double hours(const struct report_run *run, size_t row)
{
    return *column(&run->series, row, "virtual_s") / 3600;
}

static void level_curve(struct plot *p, const struct report_run *run, const struct picture *pic)
{
    for (size_t i = 0; i < run->series.rows; i++) {
        const double *v = column(&run->series, i, pic->what);
        if (v != NULL)
            plot_point(p, hours(run, i), *v);
    }
}

/* The points of a rate: about a hundred, so that they can be read. The last row is one of them; behind
 * it comes `rows`. */
static size_t next_row(const struct table *t, size_t i)
{
    size_t step = t->rows / 100 + 1;

    return i + 1 >= t->rows ? t->rows : i + step < t->rows ? i + step : t->rows - 1;
}

static void rate_curve(struct plot *p, const struct report_run *run, const struct picture *pic)
{
    const struct table *t = &run->series;

    for (size_t i = next_row(t, 0), before = 0; i < t->rows; before = i, i = next_row(t, i)) {
        const double *a = column(t, before, pic->what), *b = column(t, i, pic->what);
        double dt = (hours(run, i) - hours(run, before)) * 3600;
        if (a != NULL && b != NULL && dt > 0)
            plot_point(p, hours(run, i), (*b - *a) / dt);
    }
}

/* What share of what + part was part, since the point before. */
static void share_curve(struct plot *p, const struct report_run *run, const struct picture *pic)
{
    const struct table *t = &run->series;

    for (size_t i = next_row(t, 0), before = 0; i < t->rows; before = i, i = next_row(t, i)) {
        const double *a0 = column(t, before, pic->what), *a1 = column(t, i, pic->what);
        const double *b0 = column(t, before, pic->part), *b1 = column(t, i, pic->part);
        if (a0 == NULL || b0 == NULL)
            return;
        double n = *a1 - *a0 + *b1 - *b0;
        if (n > 0)
            plot_point(p, hours(run, i), 100 * (*b1 - *b0) / n);
    }
}

static double total(const struct table *t, const char *name)
{
    double n = 0;

    for (size_t i = 0; i < t->rows; i++)
        n += strcmp(t->label[i], name) == 0 ? *column(t, i, "count") : 0;
    return n;
}

static void histogram_curve(struct plot *p, const struct report_run *run, const struct picture *pic,
                            bool cumulative)
{
    const struct table *t = &run->histograms;
    double all = total(t, pic->what), seen = 0;

    for (size_t i = 0; i < t->rows && all > 0; i++) {
        if (strcmp(t->label[i], pic->what) != 0)
            continue;
        double n = *column(t, i, "count");
        seen = cumulative ? seen + n : n;
        plot_point(p, *column(t, i, "upto") / pic->unit, 100 * seen / all);
    }
}

static void cumulative_curve(struct plot *p, const struct report_run *run,
                             const struct picture *pic)
{
    histogram_curve(p, run, pic, true);
}

static void bars_curve(struct plot *p, const struct report_run *run, const struct picture *pic)
{
    histogram_curve(p, run, pic, false);
}

static const struct picture pictures[] = {
    {"Nodes that are up", "virtual time (h)", "nodes", level_curve, "live", NULL, 1, PLOT_LINES,
     false},
    {"Messages delivered", "virtual time (h)", "per virtual second", rate_curve, "events", NULL, 1,
     PLOT_LINES, false},
    {"Look-ups that failed", "virtual time (h)", "% of look-ups", share_curve, "gets_ok",
     "gets_failed", 1, PLOT_LINES, false},
    {"Publications that failed", "virtual time (h)", "% of publications", share_curve, "puts_ok",
     "puts_failed", 1, PLOT_LINES, false},
    {"HTTP requests to the services", "virtual time (h)", "per virtual second", rate_curve, "http",
     NULL, 1, PLOT_LINES, false},
    {"CPU of the HTTP services", "virtual time (h)", "ms per virtual second", rate_curve,
     "http_cpu_ms", NULL, 1, PLOT_LINES, false},
    {"Reads that the DHT answered", "virtual time (h)", "% of reads", share_curve, "reads_http",
     "reads_dht", 1, PLOT_LINES, false},
    {"Time of a look-up", "ms", "% done", cumulative_curve, "get_us", NULL, 1000, PLOT_STEPS, true},
    {"Time of a publication", "ms", "% done", cumulative_curve, "put_us", NULL, 1000, PLOT_STEPS,
     true},
    {"From a publication to the report of a watch", "ms", "% of reports", cumulative_curve,
     "watch_us", NULL, 1000, PLOT_STEPS, true},
    {"Hops of a look-up", "hops", "% of look-ups", bars_curve, "get_hops", NULL, 1, PLOT_BOXES,
     false},
    {"Nodes asked in a look-up", "nodes", "% of look-ups", bars_curve, "get_asked", NULL, 1,
     PLOT_BOXES, false},
    {"Requests that a node served", "requests", "% of nodes", cumulative_curve, "load", NULL, 1,
     PLOT_STEPS, true},
};

/* ---- the page ---- */

static void escaped(FILE *f, const char *s)
{
    for (; *s != '\0'; s++) {
        if (*s == '<')
            fputs("&lt;", f);
        else if (*s == '&')
            fputs("&amp;", f);
        else
            fputc(*s, f);
    }
}

static const char *name_of(const struct report_run *run)
{
    const char *name = json_string_value(json_object_get(run->summary, "scenario"));
    return name != NULL && *name != '\0' ? name : run->dir;
}

static int put_svg(FILE *f, const char *svg, size_t len)
{
    char *text = malloc(BASE64_LEN(len) + 1);

    if (text == NULL)
        return ERR_NOMEM;
    size_t n = base64_encode(text, svg, len);
    fputs("<img alt=\"\" src=\"data:image/svg+xml;base64,", f);
    (void)fwrite(text, 1, n, f);
    fputs("\">", f);
    free(text);
    return 0;
}

/* *svg is malloc'ed. */
static int draw(char **svg, size_t *len, const struct picture *pic,
                const struct report_run *const *runs, size_t n, char *why, size_t why_cap)
{
    struct plot *p;
    char title[64];

    int rc = plot_new(&p, pic->xlabel, pic->ylabel, pic->style);
    if (rc != 0) {
        snprintf(why, why_cap, "temporary file: %s", err_str(rc));
        return rc;
    }
    if (pic->log_x)
        plot_log_x(p);
    for (size_t i = 0; i < n; i++) {
        snprintf(title, sizeof title, "%s%.48s",
                 n == 1   ? ""
                 : i == 0 ? "A: "
                          : "B: ",
                 name_of(runs[i]));
        plot_curve(p, title);
        pic->curve(p, runs[i], pic);
    }
    rc = plot_draw(p, svg, len, why, why_cap);
    plot_free(p);
    return rc;
}

static int put_picture(FILE *f, const struct picture *pic, const struct report_run *const *runs,
                       size_t n, char *why, size_t why_cap)
{
    char *svg = NULL;
    size_t len = 0;
    int rc = draw(&svg, &len, pic, runs, n, why, why_cap);

    if (rc == 0) {
        fprintf(f, "<figure><figcaption>%s</figcaption>", pic->title);
        rc = put_svg(f, svg, len);
        fputs("</figure>\n", f);
    }
    free(svg);
    return rc;
}

/* Whether there is anything to draw: gnuplot refuses a plot without points. */
static bool has_points(const struct picture *pic, const struct report_run *run)
{
    if (pic->curve == cumulative_curve || pic->curve == bars_curve)
        return total(&run->histograms, pic->what) > 0;
    const struct table *t = &run->series;
    if (t->rows < 2 || column(t, 0, pic->what) == NULL)
        return false;
    if (pic->curve == rate_curve)
        return *column(t, t->rows - 1, pic->what) > *column(t, 0, pic->what);
    if (pic->curve != share_curve)
        return true;
    return column(t, 0, pic->part) != NULL &&
           *column(t, t->rows - 1, pic->what) + *column(t, t->rows - 1, pic->part) > 0;
}

static void put_value(FILE *f, const json_t *v)
{
    char *text = json_dumps(v, JSON_ENCODE_ANY | JSON_REAL_PRECISION(6));

    escaped(f, text != NULL ? text : "");
    free(text);
}

static void put_rows(FILE *f, const struct report_run *const *runs, size_t n)
{
    const char *key;
    json_t *v;

    json_object_foreach(runs[0]->summary, key, v)
    {
        fputs("<tr><th>", f);
        escaped(f, key);
        fputs("</th>", f);
        for (size_t i = 0; i < n; i++) {
            const json_t *w = json_object_get(runs[i]->summary, key), *x;
            const char *name;
            fputs("<td>", f);
            if (!json_is_object(w)) {
                put_value(f, w);
            } else {
                json_object_foreach((json_t *)(uintptr_t)w, name, x)
                {
                    escaped(f, name);
                    fputc(' ', f);
                    put_value(f, x);
                    fputs("<br>", f);
                }
            }
            fputs("</td>", f);
        }
        fputs("</tr>\n", f);
    }
}

static void put_head(FILE *f, const struct report_run *const *runs, size_t n)
{
    fputs("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>kadmsg sim: ",
          f);
    escaped(f, name_of(runs[0]));
    fputs(
        "</title>\n<style>body{font:15px/1.4 sans-serif;margin:2em auto;max-width:1500px;padding:0 "
        "1em}table{border-collapse:collapse}th,td{text-align:left;vertical-align:top;padding:.2em "
        ".8em;border-bottom:1px solid "
        "#ddd}figure{display:inline-block;width:47%;min-width:480px;margin:.5em}figcaption{"
        "font-weight:bold}img{max-width:100%}</style></head><body>\n<h1>",
        f);
    for (size_t i = 0; i < n; i++) {
        fputs(i > 0 ? " and " : "", f);
        escaped(f, name_of(runs[i]));
    }
    fputs("</h1>\n", f);
}

static bool all_have_points(const struct picture *pic, const struct report_run *const *runs,
                            size_t n)
{
    bool all = true;

    for (size_t r = 0; r < n; r++)
        all = all && has_points(pic, runs[r]);
    return all;
}

static int save_picture(const char *dir, const struct picture *pic, const struct report_run *run,
                        char *why, size_t why_cap)
{
    char path[1024], *svg = NULL;
    size_t len = 0;
    int rc = draw(&svg, &len, pic, (const struct report_run *[]){run}, 1, why, why_cap);

    if (rc != 0)
        return rc;
    snprintf(path, sizeof path, "%s/%s.svg", dir, pic->what);
    FILE *f = fopen(path, "w");
    bool good = f != NULL && fwrite(svg, 1, len, f) == len;
    if ((f != NULL && fclose(f) != 0) || !good) {
        rc = err_sys();
        snprintf(why, why_cap, "%s: %s", path, strerror(errno));
    }
    free(svg);
    return rc;
}

int report_pictures(const char *dir, const struct report_run *run, char *why, size_t why_cap)
{
    int rc = 0;

    for (size_t i = 0; i < sizeof pictures / sizeof pictures[0] && rc == 0; i++) {
        if (has_points(&pictures[i], run))
            rc = save_picture(dir, &pictures[i], run, why, why_cap);
    }
    return rc;
}

int report_html(FILE *f, const struct report_run *const *runs, size_t n, char *why, size_t why_cap)
{
    put_head(f, runs, n);
    for (size_t i = 0; i < sizeof pictures / sizeof pictures[0]; i++) {
        int rc = all_have_points(&pictures[i], runs, n)
                     ? put_picture(f, &pictures[i], runs, n, why, why_cap)
                     : 0;
        if (rc != 0)
            return rc;
    }
    fputs("<h2>Summary</h2>\n<table>\n", f);
    if (n == 2) {
        fputs("<tr><th></th><th>A: ", f);
        escaped(f, runs[0]->dir);
        fputs("</th><th>B: ", f);
        escaped(f, runs[1]->dir);
        fputs("</th></tr>\n", f);
    }
    put_rows(f, runs, n);
    fputs("</table></body></html>\n", f);
    return 0;
}

/* ---- two runs ---- */

static json_t *number_or_null(const json_t *v)
{
    return json_is_number(v) ? json_incref((json_t *)(uintptr_t)v) : json_null();
}

static json_t *pair(const json_t *a, const json_t *b)
{
    double x = json_number_value(a), y = json_number_value(b);
    bool both = json_is_number(a) && json_is_number(b) && x != 0;

    return json_pack("{s:o, s:o, s:o}", "a", number_or_null(a), "b", number_or_null(b), "change",
                     both ? json_real(y / x - 1) : json_null());
}

/* Every number of a, and of b where a has none of that name. */
static void pair_numbers(json_t *out, const char *prefix, const json_t *a, const json_t *b)
{
    const char *key;
    char path[128];
    json_t *v;

    json_object_foreach((json_t *)(uintptr_t)a, key, v)
    {
        snprintf(path, sizeof path, "%s%s%s", prefix, *prefix != '\0' ? "." : "", key);
        if (json_is_object(v))
            pair_numbers(out, path, v, json_object_get(b, key));
        else if (json_is_number(v))
            json_object_set_new(out, path, pair(v, json_object_get(b, key)));
    }
    json_object_foreach((json_t *)(uintptr_t)b, key, v)
    {
        snprintf(path, sizeof path, "%s%s%s", prefix, *prefix != '\0' ? "." : "", key);
        if (json_is_number(v) && json_object_get(a, key) == NULL)
            json_object_set_new(out, path, pair(NULL, v));
    }
}

json_t *report_compare(const struct report_run *a, const struct report_run *b)
{
    json_t *out = json_object();
    const json_t *x = json_object_get(a->summary, "digest"),
                 *y = json_object_get(b->summary, "digest");

    if (out == NULL)
        return NULL;
    json_object_set_new(out, "same_digest", json_boolean(x != NULL && json_equal(x, y)));
    pair_numbers(out, "", a->summary, b->summary);
    return out;
}
