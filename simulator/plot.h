/*
 * plot - one picture drawn by gnuplot, as SVG.
 *
 * A plot is written as a gnuplot script into a temporary file; plot_draw() runs gnuplot on it and
 * gives its output. Owner: the caller, who frees with plot_free(); the SVG is the caller's (free()).
 * One thread; the child is waited for, for at most a minute. Errors: ERR_NOT_FOUND (no gnuplot on the
 * PATH), ERR_FORMAT (gnuplot refused the script: why has its first words), system errors.
 *
 *     rc = plot_new(&p, "virtual time (h)", "look-ups/s", PLOT_LINES);
 *     plot_curve(p, "run 1");                      // then its points
 *     plot_point(p, 0.5, 12);
 *     rc = plot_draw(p, &svg, &len, why, sizeof why);
 *     plot_free(p);
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#define PLOT_CURVES_MAX 8

struct plot;

enum plot_style { PLOT_LINES, PLOT_STEPS, PLOT_BOXES };

int plot_new(struct plot **out, const char *xlabel, const char *ylabel, enum plot_style style)
    __attribute__((warn_unused_result));
void plot_log_x(struct plot *p);
/* Begins the next of at most PLOT_CURVES_MAX curves. Quotes and control characters of the title are
 * left out. */
void plot_curve(struct plot *p, const char *title);
void plot_point(struct plot *p, double x, double y);
/* Ends the script and runs gnuplot. *svg has *len bytes and a NUL. */
int plot_draw(struct plot *p, char **svg, size_t *len, char *why, size_t why_cap)
    __attribute__((warn_unused_result));
void plot_free(struct plot *p);
