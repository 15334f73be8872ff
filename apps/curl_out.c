#include "apps/curl_out.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int fail(int code, const char *path, const char *why)
{
    fprintf(stderr, "kadmsg: %s: %s\n", path, why);
    return code;
}

/* The last segment of "/a/b?x", or NULL when there is none that could be a file's name. */
static char *last_segment(const char *url_path)
{
    size_t end = strcspn(url_path, "?#"), start = end;
    while (start > 0 && url_path[start - 1] != '/')
        start--;
    char *name = strndup(url_path + start, end - start);
    if (name != NULL && (*name == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)) {
        free(name);
        return NULL;
    }
    return name;
}

static bool is_dir(const char *path)
{
    struct stat st;
    size_t n = strlen(path);
    return (n > 0 && path[n - 1] == '/') || (stat(path, &st) == 0 && S_ISDIR(st.st_mode));
}

static int choose_path(struct curl_out *o, const char *out, const char *url_path)
{
    if (out != NULL && !is_dir(out)) {
        o->path = strdup(out);
        return o->path != NULL ? 0 : fail(CURL_EXIT_FAILED, out, strerror(ENOMEM));
    }
    char *name = last_segment(url_path);
    if (name == NULL)
        return fail(CURL_EXIT_HTTP, url_path, "the URL has no file name");
    size_t n = out != NULL ? strlen(out) : 0;
    if (asprintf(&o->path, "%s%s%s", out != NULL ? out : "", n > 0 && out[n - 1] != '/' ? "/" : "",
                 name) < 0)
        o->path = NULL;
    free(name);
    return o->path != NULL ? 0 : fail(CURL_EXIT_FAILED, url_path, strerror(ENOMEM));
}

int curl_out_open(struct curl_out *o, const struct curl_cfg *cfg, size_t i, const char *url_path)
{
    struct stat st;
    const char *out = i < cfg->n_outs ? cfg->outs[i] : NULL;
    *o = (struct curl_out){.fd = -1, .replace = cfg->replace, .keep = cfg->resume_auto};
    if ((out == NULL && !cfg->remote_name) || (out != NULL && strcmp(out, "-") == 0)) {
        o->fd = STDOUT_FILENO;
        o->at = cfg->resume_at;
        o->append_only = true;
        return 0;
    }
    int rc = choose_path(o, out, url_path);
    if (rc != 0)
        return rc;
    bool there = stat(o->path, &st) == 0;
    bool resume = cfg->resume_auto || cfg->resume_at > 0;
    if (there && !S_ISREG(st.st_mode)) /* a device or a pipe loses nothing */
        o->replace = true;
    if (there && !resume && !o->replace)
        return fail(CURL_EXIT_HTTP, o->path, "file already exists (-r replaces it, -C - goes on)");
    if (there && resume && !S_ISREG(st.st_mode))
        return fail(CURL_EXIT_HTTP, o->path, "not a regular file");
    if (there && cfg->resume_auto)
        o->at = (uint64_t)st.st_size;
    if (cfg->resume_at > 0)
        o->at = cfg->resume_at;
    return 0;
}

static void make_parents(char *path)
{
    for (char *p = path + 1; *p != '\0'; p++) {
        if (*p != '/')
            continue;
        *p = '\0';
        (void)mkdir(path, 0777); /* opening the file tells what is wrong */
        *p = '/';
    }
}

static bool open_file(struct curl_out *o)
{
    make_parents(o->path);
    o->fd = open(o->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    o->made = o->fd >= 0;
    if (o->fd < 0 && errno == EEXIST && (o->replace || o->at > 0 || o->keep))
        o->fd = open(o->path, O_WRONLY | O_CLOEXEC);
    if (o->fd < 0)
        (void)fail(CURL_EXIT_HTTP, o->path, strerror(errno));
    return o->fd >= 0;
}

bool curl_out_start(struct curl_out *o, uint64_t at)
{
    if (o->append_only)
        return at == o->at;
    if (o->fd < 0 && !open_file(o))
        return false;
    struct stat st;
    bool regular = fstat(o->fd, &st) == 0 && S_ISREG(st.st_mode);
    o->at = at;
    /* Only where it cuts something: after a truncation to 0 ext4 writes the whole file out at its close. */
    bool cut = regular && st.st_size != (off_t)at;
    if (!regular ||
        ((!cut || ftruncate(o->fd, (off_t)at) == 0) && lseek(o->fd, (off_t)at, SEEK_SET) >= 0))
        return true;
    (void)fail(CURL_EXIT_WRITE, o->path, strerror(errno));
    return false;
}

bool curl_out_write(struct curl_out *o, const void *p, size_t n)
{
    const char *at = p;
    while (n > 0) {
        ssize_t done = write(o->fd, at, n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0) {
            (void)fail(CURL_EXIT_WRITE, o->path != NULL ? o->path : "standard output",
                       strerror(errno));
            return false;
        }
        at += done;
        n -= (size_t)done;
        o->at += (uint64_t)done;
    }
    return true;
}

int curl_out_finish(struct curl_out *o, bool ok)
{
    int rc = 0;
    if (o->path != NULL) {
        if (ok && o->fd < 0 && !curl_out_start(o, o->at))
            rc = CURL_EXIT_HTTP;
        if (o->fd >= 0 && close(o->fd) < 0 && ok)
            rc = fail(CURL_EXIT_WRITE, o->path, strerror(errno));
        if (o->made && (!ok || rc != 0) && !o->keep)
            (void)unlink(o->path);
    }
    free(o->path);
    o->path = NULL;
    o->fd = -1;
    return rc;
}
