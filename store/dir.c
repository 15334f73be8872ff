#include "store/dir.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"

#define LOCK_NAME  "kadmsg.lock"
#define STAMP_NAME "clean"
#define STAMP_TEMP "clean.new"
#define TEXT_MAX   96

#define COMMON_NAME "shared"
#define WAIT_TRIES  40
#define WAIT_NS     50000000
#define OPEN_MAX    64 /* folders that one process has open */

/* Folders that this process has open: flock() knows no difference between two descriptors that share,
 * and LMDB must not open an environment twice. */
static struct {
    pthread_mutex_t lock;
    size_t n;
    struct {
        dev_t dev;
        ino_t ino;
    } at[OPEN_MAX];
} opened = {.lock = PTHREAD_MUTEX_INITIALIZER};

static size_t find_opened(const struct stat *st)
{
    size_t i = 0;

    while (i < opened.n && (opened.at[i].dev != st->st_dev || opened.at[i].ino != st->st_ino))
        i++;
    return i;
}

static int note_opened(int fd)
{
    struct stat st;
    int rc = 0;

    if (fstat(fd, &st) != 0)
        return err_sys();
    pthread_mutex_lock(&opened.lock);
    if (find_opened(&st) < opened.n)
        rc = ERR_BUSY;
    else if (opened.n == OPEN_MAX)
        rc = ERR_LIMIT;
    if (rc == 0) {
        opened.at[opened.n].dev = st.st_dev;
        opened.at[opened.n].ino = st.st_ino;
        opened.n++;
    }
    pthread_mutex_unlock(&opened.lock);
    return rc;
}

static void forget_opened(int fd)
{
    struct stat st;

    if (fstat(fd, &st) != 0)
        return;
    pthread_mutex_lock(&opened.lock);
    size_t i = find_opened(&st);
    if (i < opened.n)
        opened.at[i] = opened.at[--opened.n];
    pthread_mutex_unlock(&opened.lock);
}

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
    if (d->common != NULL)
        munmap(d->common, sizeof *d->common);
    d->common = NULL;
    if (d->lock_fd >= 0) {
        forget_opened(d->lock_fd);
        close(d->lock_fd);
    }
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

static int open_lock(struct dir *d)
{
    d->lock_fd = openat(d->fd, LOCK_NAME, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    return d->lock_fd < 0 ? err_sys() : 0;
}

/* Who has it, before it is given up. */
static int lock_failed(struct dir *d, int rc, pid_t *pid)
{
    char text[TEXT_MAX];

    read_text(d->lock_fd, text);
    *pid = (pid_t)strtol(text, NULL, 10);
    close(d->lock_fd);
    d->lock_fd = -1;
    return rc;
}

/* The number is for messages only; a full disk must not keep the store shut. */
static void write_pid(const struct dir *d)
{
    char text[TEXT_MAX];
    int n = snprintf(text, sizeof text, "%ld\n", (long)getpid());

    if (ftruncate(d->lock_fd, 0) == 0 && pwrite(d->lock_fd, text, (size_t)n, 0) != n)
        errno = 0;
}

static int try_flock(const struct dir *d, int how)
{
    if (flock(d->lock_fd, how | LOCK_NB) == 0)
        return 0;
    return errno == EWOULDBLOCK ? ERR_BUSY : err_sys();
}

int dir_lock(struct dir *d, pid_t *pid)
{
    *pid = 0;
    int rc = open_lock(d);
    if (rc != 0)
        return rc;
    rc = try_flock(d, LOCK_EX);
    if (rc == 0)
        rc = note_opened(d->lock_fd);
    if (rc != 0)
        return lock_failed(d, rc, pid);
    write_pid(d);
    return 0;
}

/* The mapped file; of the right size before anybody maps it, or a read would be a signal. */
static int map_common(struct dir *d)
{
    int fd = openat(d->fd, COMMON_NAME, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd < 0)
        return err_sys();
    int rc = posix_fallocate(fd, 0, sizeof *d->common);
    void *p = rc == 0 ? mmap(NULL, sizeof *d->common, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
                      : MAP_FAILED;
    if (p == MAP_FAILED)
        rc = rc != 0 ? err_from_errno(rc) : err_sys();
    else
        d->common = p;
    close(fd);
    return rc;
}

int dir_lock_shared(struct dir *d, bool *alone, pid_t *pid)
{
    const struct timespec pause = {.tv_nsec = WAIT_NS};

    *pid = 0;
    int rc = open_lock(d);
    if (rc != 0)
        return rc;
    if ((rc = note_opened(d->lock_fd)) != 0)
        return lock_failed(d, rc, pid);
    for (int i = 0; i < WAIT_TRIES; i++) {
        *alone = (rc = try_flock(d, LOCK_EX)) == 0;
        if (rc == ERR_BUSY)
            rc = try_flock(d, LOCK_SH);
        if (rc != ERR_BUSY)
            break;
        nanosleep(&pause, NULL); /* one that shares too keeps it for the moment of opening */
    }
    if (rc == 0)
        rc = map_common(d);
    if (rc != 0) {
        forget_opened(d->lock_fd);
        return lock_failed(d, rc, pid);
    }
    if (*alone)
        atomic_store(&d->common->writer, 0); /* of one that was killed */
    write_pid(d);
    return 0;
}

int dir_share(struct dir *d)
{
    return try_flock(d, LOCK_SH);
}

bool dir_is_last(struct dir *d)
{
    return d->lock_fd >= 0 && try_flock(d, LOCK_EX) == 0;
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
