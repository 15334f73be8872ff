/*
 * figures - what the benches in C share: clocks, medians, random numbers that are always the same, and the JSON line of a
 * measurement (scripts/run_bench.py). One thread.
 *
 *     double begin = bench_cpu_s();
 *     work();
 *     bench_report("name", "{}", 1e3 * (bench_cpu_s() - begin), "ms", bench_cpu_s() - begin, ceiling);
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Of this process, all its threads; and what passes on the wall. Seconds. */
double bench_cpu_s(void);
double bench_wall_s(void);

/* Sorts them; n > 0. */
double bench_median(double *v, size_t n);
/* The one that 99 of 100 do not pass. Sorts them. */
double bench_p99(double *v, size_t n);

/* The same sequence in every run. */
uint64_t bench_draw(void);

/* One line: params is a JSON object, cpu_s what the measurement took, ceiling what is compared with. */
void bench_report(const char *name, const char *params, double value, const char *unit,
                  double cpu_s, double ceiling);

/* "<program>: what" on stderr, and exit code 1. */
void bench_die(const char *what) __attribute__((noreturn));
