#include "tests/bench/figures.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

static double clock_s(clockid_t clock)
{
    struct timespec ts;

    clock_gettime(clock, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

double bench_cpu_s(void)
{
    return clock_s(CLOCK_PROCESS_CPUTIME_ID);
}

double bench_wall_s(void)
{
    return clock_s(CLOCK_MONOTONIC);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

double bench_median(double *v, size_t n)
{
    qsort(v, n, sizeof v[0], by_value);
    return v[n / 2];
}

double bench_p99(double *v, size_t n)
{
    qsort(v, n, sizeof v[0], by_value);
    return v[n / 100 * 99];
}

uint64_t bench_draw(void)
{
    static uint64_t state = 88172645463325252u;

    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

void bench_report(const char *name, const char *params, double value, const char *unit,
                  double cpu_s, double ceiling)
{
    struct rusage ru;

    getrusage(RUSAGE_SELF, &ru);
    printf("{\"name\":\"%s\",\"params\":%s,\"value\":%.4g,\"unit\":\"%s\",\"cpu_s\":%.3f,"
           "\"peak_rss_kib\":%ld,\"ceiling\":%.4g,\"ratio\":%.4f}\n",
           name, params, value, unit, cpu_s, ru.ru_maxrss, ceiling, value / ceiling);
    fflush(stdout);
}

void bench_die(const char *what)
{
    fprintf(stderr, "%s: %s\n", program_invocation_short_name, what);
    exit(1);
}
