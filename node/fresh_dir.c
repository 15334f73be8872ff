#include "node/fresh_dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"

#define PREFIX "streams."
#define TRIES  4

static int open_dir(int at, const char *name)
{
    return openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

/* Only sockets are in it, and nothing below. Takes fd over. */
static void empty_dir(int fd)
{
    DIR *dir = fdopendir(fd);
    if (dir == NULL) {
        close(fd);
        return;
    }
    for (struct dirent *e; (e = readdir(dir)) != NULL;)
        (void)unlinkat(fd, e->d_name, 0);
    closedir(dir);
}

/* Whose lock can be had is nobody's any more. */
static void sweep(const char *run)
{
    DIR *dir = opendir(run);
    if (dir == NULL)
        return;
    for (struct dirent *e; (e = readdir(dir)) != NULL;) {
        if (strncmp(e->d_name, PREFIX, strlen(PREFIX)) != 0)
            continue;
        int fd = open_dir(dirfd(dir), e->d_name);
        if (fd < 0)
            continue;
        if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
            close(fd);
            continue;
        }
        int list = fcntl(fd, F_DUPFD_CLOEXEC, 0);
        if (list >= 0)
            empty_dir(list);
        (void)unlinkat(dirfd(dir), e->d_name, AT_REMOVEDIR);
        close(fd);
    }
    closedir(dir);
}

/* A sweep of another process may take it away between making and locking. */
static bool still_there(const struct fresh_dir *d)
{
    struct stat by_name, by_fd;
    return stat(d->path, &by_name) == 0 && fstat(d->fd, &by_fd) == 0 &&
           by_name.st_ino == by_fd.st_ino && by_name.st_dev == by_fd.st_dev;
}

static int make_one(struct fresh_dir *d, const char *run)
{
    int rc = paths_join(d->path, run, PREFIX "XXXXXX");
    if (rc < 0)
        return rc;
    if (mkdtemp(d->path) == NULL)
        return err_sys();
    d->fd = open_dir(AT_FDCWD, d->path);
    if (d->fd < 0)
        return errno == ENOENT ? ERR_AGAIN : err_sys();
    if (flock(d->fd, LOCK_EX | LOCK_NB) == 0 && still_there(d))
        return 0;
    close(d->fd);
    d->fd = -1;
    return ERR_AGAIN;
}

int fresh_dir_make(struct fresh_dir *d)
{
    char run[PATHS_MAX];
    if (d->fd >= 0)
        return 0;
    int rc = paths_run(run);
    if (rc == 0)
        rc = paths_make_dir(run);
    if (rc < 0)
        return rc;
    sweep(run);
    rc = ERR_AGAIN;
    for (int i = 0; i < TRIES && rc == ERR_AGAIN; i++)
        rc = make_one(d, run);
    return rc;
}

void fresh_dir_remove(struct fresh_dir *d)
{
    if (d->fd < 0)
        return;
    int fd = d->fd, list = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (list >= 0)
        empty_dir(list);
    (void)rmdir(d->path);
    close(fd);
    d->fd = -1;
}
