#include "store/dir.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/err.h"

#define LOCK_NAME  "kadmsg.lock"
#define STAMP_NAME "clean"
#define STAMP_TEMP "clean.new"
#define TEXT_MAX   96

/* Make the folder and what is missing above it. */
static int make(const char *path)
{
    char part[PATH_MAX];
    size_t n = strlen(path);

    if (n >= sizeof part)
        return err_from_errno(ENAMETOOLONG);
    memcpy(part, path, n + 1);
    for (char *slash = part; n > 0 && (slash = strchr(slash + 1, '/')) != NULL;) {
        *slash = '\0';
        if (mkdir(part, 0700) != 0 && errno != EEXIST)
            return err_sys();
        *slash = '/';
    }
    if (mkdir(path, 0700) != 0 && errno != EEXIST)
        return err_sys();
    return 0;
}

int dir_open(struct dir *d, const char *path, bool create)
{
    struct stat st;

    *d = (struct dir){.fd = -1, .lock_fd = -1};
    d->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (d->fd < 0 && errno == ENOENT && create) {
        int rc = make(path);
        if (rc != 0)
            return rc;
        d->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
    if (d->fd < 0 || fstat(d->fd, &st) != 0)
        return err_sys();
    if (st.st_uid != geteuid() || (st.st_mode & (S_IWGRP | S_IWOTH)) != 0)
        return ERR_UNSAFE;
    if (create && (st.st_mode & (S_IRWXG | S_IRWXO)) != 0 && fchmod(d->fd, 0700) != 0)
        return err_sys();
    return 0;
}

void dir_close(struct dir *d)
{
    if (d->lock_fd >= 0)
        close(d->lock_fd);
    if (d->fd >= 0)
        close(d->fd);
    d->fd = d->lock_fd = -1;
}

static size_t read_text(int fd, char text[TEXT_MAX])
{
    ssize_t n = pread(fd, text, TEXT_MAX - 1, 0);

    text[n > 0 ? n : 0] = '\0';
    return n > 0 ? (size_t)n : 0;
}

int dir_lock(struct dir *d, pid_t *pid)
{
    char text[TEXT_MAX];

    *pid = 0;
    d->lock_fd = openat(d->fd, LOCK_NAME, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (d->lock_fd < 0)
        return err_sys();
    if (flock(d->lock_fd, LOCK_EX | LOCK_NB) != 0) {
        int rc = errno == EWOULDBLOCK ? ERR_BUSY : err_sys();
        read_text(d->lock_fd, text);
        *pid = (pid_t)strtol(text, NULL, 10);
        close(d->lock_fd);
        d->lock_fd = -1;
        return rc;
    }
    /* The number is for messages only; a full disk must not keep the store shut. */
    int n = snprintf(text, sizeof text, "%ld\n", (long)getpid());
    if (ftruncate(d->lock_fd, 0) == 0 && pwrite(d->lock_fd, text, (size_t)n, 0) != n)
        errno = 0;
    return 0;
}

static int stamp_text(char text[TEXT_MAX], const struct stat *data, uint64_t txn_id)
{
    return snprintf(text, TEXT_MAX, "%llu %lld %lld.%09ld\n", (unsigned long long)txn_id,
                    (long long)data->st_size, (long long)data->st_mtim.tv_sec,
                    data->st_mtim.tv_nsec);
}

bool dir_is_clean(const struct dir *d, const struct stat *data, uint64_t txn_id)
{
    char have[TEXT_MAX], want[TEXT_MAX];
    int fd = openat(d->fd, STAMP_NAME, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

    if (fd < 0)
        return false;
    read_text(fd, have);
    close(fd);
    stamp_text(want, data, txn_id);
    return strcmp(have, want) == 0;
}

void dir_mark_clean(const struct dir *d, const struct stat *data, uint64_t txn_id)
{
    char text[TEXT_MAX];
    int n = stamp_text(text, data, txn_id);
    int fd = openat(d->fd, STAMP_TEMP, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd < 0)
        return;
    /* Without a stamp the next start only takes longer. */
    bool written = write(fd, text, (size_t)n) == n;
    close(fd);
    if (!written || renameat(d->fd, STAMP_TEMP, d->fd, STAMP_NAME) != 0)
        unlinkat(d->fd, STAMP_TEMP, 0);
}

int dir_unmark(const struct dir *d)
{
    return unlinkat(d->fd, STAMP_NAME, 0) == 0 || errno == ENOENT ? 0 : err_sys();
}
