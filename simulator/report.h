/*
 * report - pages and tables of finished runs, from the files of results.h.
 *
 * A report is one HTML file that needs nothing else: figures in tables, curves as SVG drawn by
 * gnuplot (which must be on the PATH). With two runs every curve is drawn for both and every figure
 * stands beside the other's.
 *
 * Owner: report_load() gives a run to the caller, who frees it. One thread; gnuplot runs as a child
 * process and is waited for. Limits: files of REPORT_FILE_MAX bytes. Errors: a system error, or
 * ERR_FORMAT (a file that is not one of results.h), with the reason in why; ERR_NOT_FOUND when there
 * is no gnuplot.
 *
 *     rc = report_load(&run, "out", why, sizeof why);
 *     rc = report_html(f, (const struct report_run *[]){run}, 1, why, sizeof why);
 *     report_free(run);
 */
#pragma once

#include <jansson.h>
#include <stddef.h>
#include <stdio.h>

#define REPORT_FILE_MAX (64u << 20)
#define REPORT_RUNS_MAX 2

struct report_run;

/* dir: what `sim run --out` was given. */
int report_load(struct report_run **out, const char *dir, char *why, size_t why_cap)
    __attribute__((warn_unused_result));
void report_free(struct report_run *run);

/* Writes the page; n is 1 or 2. What was written when an error comes is not a page. */
int report_html(FILE *f, const struct report_run *const *runs, size_t n, char *why, size_t why_cap)
    __attribute__((warn_unused_result));

/* The pictures of the page, one SVG file each in a folder that is there: live.svg, get_us.svg … */
int report_pictures(const char *dir, const struct report_run *run, char *why, size_t why_cap)
    __attribute__((warn_unused_result));

/* {"lookups.ok": {"a": 1, "b": 2, "change": 1.0}, …}: every number of either summary; null where one
 * has it not; change is b / a - 1, null where a is 0. And "same_digest". NULL without memory. */
json_t *report_compare(const struct report_run *a, const struct report_run *b);
