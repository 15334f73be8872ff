#include "simulator/plot.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"

#define DEADLINE_MS 60000
#define SVG_MAX     (16u << 20)

extern char **environ;

struct plot {
    FILE *script, *out, *err;
    enum plot_style style;
    size_t n;
    char title[PLOT_CURVES_MAX][80];
};

/* A text inside single quotes of gnuplot. */
static void clean(char *out, size_t cap, const char *s)
{
    size_t n = 0;

    for (; *s != '\0' && n + 1 < cap; s++) {
        if (*s != '\'' && (unsigned char)*s >= ' ')
            out[n++] = *s;
    }
    out[n] = '\0';
}

int plot_new(struct plot **out, const char *xlabel, const char *ylabel, enum plot_style style)
{
    struct plot *p = calloc(1, sizeof *p);
    char text[80];

    *out = NULL;
    if (p == NULL)
        return ERR_NOMEM;
    p->style = style;
    p->script = tmpfile();
    p->out = tmpfile();
    p->err = tmpfile();
    if (p->script == NULL || p->out == NULL || p->err == NULL) {
        int err = err_sys();
        plot_free(p);
        return err;
    }
    fputs("set terminal svg size 720,360 noenhanced background '#ffffff' font 'sans,12'\n"
          "set grid lc rgb '#dddddd'\nset border 3\nset tics nomirror\nset key top right\n"
          "set style fill solid 0.5 noborder\nset yrange [0:]\n",
          p->script);
    clean(text, sizeof text, xlabel);
    fprintf(p->script, "set xlabel '%s'\n", text);
    clean(text, sizeof text, ylabel);
    fprintf(p->script, "set ylabel '%s'\n", text);
    *out = p;
    return 0;
}

void plot_log_x(struct plot *p)
{
    fputs("set logscale x\n", p->script);
}

static void end_curve(struct plot *p)
{
    if (p->n > 0)
        fputs("EOD\n", p->script);
}

void plot_curve(struct plot *p, const char *title)
{
    assert(p->n < PLOT_CURVES_MAX);
    end_curve(p);
    clean(p->title[p->n], sizeof p->title[0], title);
    fprintf(p->script, "$c%zu << EOD\n", p->n);
    p->n++;
}

void plot_point(struct plot *p, double x, double y)
{
    fprintf(p->script, "%.9g %.9g\n", x, y);
}

static void end_script(struct plot *p)
{
    static const char *const with[] = {"lines lw 2", "steps lw 2", "boxes"};

    end_curve(p);
    for (size_t i = 0; i < p->n; i++)
        fprintf(p->script, "%s $c%zu using 1:2 with %s title '%s'%s", i == 0 ? "plot" : "", i,
                with[p->style], p->title[i], i + 1 < p->n ? ", " : "\n");
}

static int spawn(const struct plot *p, pid_t *pid)
{
    posix_spawn_file_actions_t fa;
    char *const argv[] = {(char *)(uintptr_t) "gnuplot", NULL};

    if (posix_spawn_file_actions_init(&fa) != 0)
        return ERR_NOMEM;
    int rc = posix_spawn_file_actions_adddup2(&fa, fileno(p->script), 0);
    if (rc == 0)
        rc = posix_spawn_file_actions_adddup2(&fa, fileno(p->out), 1);
    if (rc == 0)
        rc = posix_spawn_file_actions_adddup2(&fa, fileno(p->err), 2);
    if (rc == 0)
        rc = posix_spawnp(pid, argv[0], &fa, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&fa);
    return rc == ENOENT ? ERR_NOT_FOUND : -rc;
}

/* A gnuplot that hangs (a script waits for nothing, so it should not) is ended. */
static int wait_for(pid_t pid, int *status)
{
    const struct timespec nap = {.tv_nsec = 5000000};

    for (int ms = 0; ms < DEADLINE_MS; ms += 5) {
        pid_t got = waitpid(pid, status, WNOHANG);
        if (got == pid)
            return 0;
        if (got < 0 && errno != EINTR)
            return err_sys();
        (void)nanosleep(&nap, NULL);
    }
    (void)kill(pid, SIGKILL);
    (void)waitpid(pid, status, 0);
    return ERR_TIMEOUT;
}

static int read_all(FILE *f, char **text, size_t *len)
{
    long size = fseek(f, 0, SEEK_END) == 0 ? ftell(f) : -1;

    if (size < 0 || size > (long)SVG_MAX)
        return ERR_TOO_LONG;
    rewind(f);
    *text = malloc((size_t)size + 1);
    if (*text == NULL)
        return ERR_NOMEM;
    *len = fread(*text, 1, (size_t)size, f);
    (*text)[*len] = '\0';
    return 0;
}

/* The line that says what is wrong: the last one that is not empty. */
static void complaint(FILE *f, char *why, size_t why_cap)
{
    char line[256], last[256] = "no reason given";

    rewind(f);
    while (fgets(line, sizeof line, f) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        if (line[strspn(line, " ^")] != '\0')
            snprintf(last, sizeof last, "%s", line);
    }
    snprintf(why, why_cap, "gnuplot: %s", last);
}

int plot_draw(struct plot *p, char **svg, size_t *len, char *why, size_t why_cap)
{
    pid_t pid = -1;
    int status = 0;

    *svg = NULL;
    end_script(p);
    if (fflush(p->script) != 0 || lseek(fileno(p->script), 0, SEEK_SET) != 0) {
        snprintf(why, why_cap, "temporary file: %s", strerror(errno));
        return err_sys();
    }
    int rc = spawn(p, &pid);
    if (rc == 0)
        rc = wait_for(pid, &status);
    if (rc == 0 && status != 0) {
        complaint(p->err, why, why_cap);
        return ERR_FORMAT;
    }
    if (rc == 0)
        rc = read_all(p->out, svg, len);
    if (rc != 0)
        snprintf(why, why_cap, "gnuplot: %s",
                 rc == ERR_NOT_FOUND ? "not installed (package gnuplot-nox)" : err_str(rc));
    return rc;
}

void plot_free(struct plot *p)
{
    if (p == NULL)
        return;
    if (p->script != NULL)
        (void)fclose(p->script);
    if (p->out != NULL)
        (void)fclose(p->out);
    if (p->err != NULL)
        (void)fclose(p->err);
    free(p);
}
