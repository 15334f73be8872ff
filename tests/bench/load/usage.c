#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"
#include "tests/bench/load/load.h"

/* Processor time of all threads of a process, also those that have ended: what
 * /proc/PID/stat has as utime + stime, but in ns instead of ticks of 10 ms. */
static int process_cpu_ns(uint64_t *out, pid_t pid)
{
    clockid_t clock;
    struct timespec ts;
    int rc = clock_getcpuclockid(pid, &clock);
    if (rc != 0)
        return err_from_errno(rc);
    if (clock_gettime(clock, &ts) < 0)
        return err_sys();
    *out = (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
    return 0;
}

static int process_memory(struct usage *out, uint64_t pid)
{
    char path[64], line[128];
    snprintf(path, sizeof path, "/proc/%" PRIu64 "/status", pid);
    FILE *f = fopen(path, "re");
    if (f == NULL)
        return err_sys();
    while (fgets(line, sizeof line, f) != NULL) {
        (void)sscanf(line, "VmRSS: %" SCNu64, &out->rss_kib);
        (void)sscanf(line, "RssAnon: %" SCNu64, &out->anon_kib);
    }
    fclose(f);
    return 0;
}

int usage_take(struct usage *out, uint64_t pid)
{
    *out = (struct usage){.wall_ns = env_sys_mono_ns()};
    int rc = process_cpu_ns(&out->driver_cpu_ns, getpid());
    if (rc == 0 && pid != 0)
        rc = process_cpu_ns(&out->server_cpu_ns, (pid_t)pid);
    if (rc == 0 && pid != 0)
        rc = process_memory(out, pid);
    return rc;
}
