#include "tests/unit/node/tmpdir.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/vectors.h"

void tmpdir_make(struct tmpdir *t)
{
    const char *base = getenv("TMPDIR");
    snprintf(t->path, sizeof t->path, "%s/kadmsg-unit-XXXXXX", base != NULL ? base : "/tmp");
    assert_non_null(mkdtemp(t->path));
    assert_int_equal(mkdir(tmpdir_file(t, "state"), 0700), 0);
    assert_int_equal(mkdir(tmpdir_file(t, "run"), 0700), 0);
    setenv("XDG_STATE_HOME", tmpdir_file(t, "state"), 1);
    setenv("XDG_RUNTIME_DIR", tmpdir_file(t, "run"), 1);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

void tmpdir_remove(struct tmpdir *t)
{
    assert_int_equal(nftw(t->path, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

const char *tmpdir_file(const struct tmpdir *t, const char *name)
{
    static char text[8][512];
    static unsigned next;
    char *p = text[next++ % 8];
    snprintf(p, sizeof text[0], "%s/%s", t->path, name);
    return p;
}

void tmpdir_write(const struct tmpdir *t, const char *name, const char *text, unsigned mode)
{
    int fd = open(tmpdir_file(t, name), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
}
