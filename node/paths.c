#include "node/paths.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"

int paths_join(char out[PATHS_MAX], const char *dir, const char *name)
{
    int n = snprintf(out, PATHS_MAX, "%s/%s", dir, name);
    return n < 0 || n >= PATHS_MAX ? ERR_TOO_LONG : 0;
}

static const char *set_env(const char *name)
{
    const char *v = getenv(name);
    return v != NULL && v[0] == '/' ? v : NULL;
}

int paths_state(char out[PATHS_MAX])
{
    const char *dir = set_env("XDG_STATE_HOME"), *home = set_env("HOME");
    if (dir != NULL)
        return paths_join(out, dir, "kadmsg");
    if (geteuid() == 0)
        return paths_join(out, "/var/lib", "kadmsg");
    return home != NULL ? paths_join(out, home, ".local/state/kadmsg") : ERR_NOT_FOUND;
}

int paths_run(char out[PATHS_MAX])
{
    const char *dir = set_env("XDG_RUNTIME_DIR");
    char state[PATHS_MAX];
    if (dir != NULL)
        return paths_join(out, dir, "kadmsg");
    if (geteuid() == 0)
        return paths_join(out, "/run", "kadmsg");
    int rc = paths_state(state);
    return rc < 0 ? rc : paths_join(out, state, "run");
}

int paths_store(char out[PATHS_MAX], const struct pubkey *pk)
{
    char state[PATHS_MAX], name[9];
    int rc = paths_state(state);
    return rc < 0 ? rc : paths_join(out, state, pubkey_short(name, pk));
}

int paths_control(char out[PATHS_MAX])
{
    char run[PATHS_MAX];
    int rc = paths_run(run);
    return rc < 0 ? rc : paths_join(out, run, "control");
}

static int make_one(const char *dir)
{
    return mkdir(dir, 0700) == 0 || errno == EEXIST ? 0 : err_sys();
}

int paths_make_dir(const char *dir)
{
    char part[PATHS_MAX];
    struct stat st;
    int n = snprintf(part, sizeof(part), "%s", dir);
    if (n < 0 || n >= PATHS_MAX)
        return ERR_TOO_LONG;
    for (char *p = part + 1; *p != '\0'; p++) {
        if (*p != '/')
            continue;
        *p = '\0';
        int rc = make_one(part);
        if (rc < 0)
            return rc;
        *p = '/';
    }
    int rc = make_one(part);
    if (rc < 0)
        return rc;
    if (stat(dir, &st) < 0)
        return err_sys();
    if (!S_ISDIR(st.st_mode))
        return -ENOTDIR;
    return st.st_uid != geteuid() || (st.st_mode & (S_IWGRP | S_IWOTH)) != 0 ? ERR_UNSAFE : 0;
}

/* ---- one lock per key ---- */

static int lock_path(char out[PATHS_MAX], const struct pubkey *pk, bool make)
{
    char state[PATHS_MAX], dir[PATHS_MAX], name[PUBKEY_HEX + 1];
    int rc = paths_state(state);
    if (rc == 0)
        rc = paths_join(dir, state, "locks");
    if (rc == 0 && make)
        rc = paths_make_dir(dir);
    return rc < 0 ? rc : paths_join(out, dir, pubkey_hex(name, pk));
}

static const struct flock whole_file = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

static void read_owner(int fd, struct keylock_owner *o)
{
    char text[PATHS_MAX + 32];
    memset(o, 0, sizeof(*o));
    ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
    if (n <= 0)
        return;
    text[n] = '\0';
    char *line = strchr(text, '\n');
    o->pid = (pid_t)strtol(text, NULL, 10);
    if (line == NULL)
        return;
    snprintf(o->control, sizeof(o->control), "%s", line + 1);
    o->control[strcspn(o->control, "\n")] = '\0';
}

int keylock_take(struct keylock *l, const struct pubkey *pk, const char *control,
                 struct keylock_owner *other)
{
    char path[PATHS_MAX], text[PATHS_MAX + 32];
    l->fd = -1;
    memset(other, 0, sizeof(*other));
    int rc = lock_path(path, pk, true);
    if (rc < 0)
        return rc;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return err_sys();
    struct flock lock = whole_file;
    if (fcntl(fd, F_OFD_SETLK, &lock) < 0) {
        rc = errno == EAGAIN || errno == EACCES ? ERR_BUSY : err_sys();
        if (rc == ERR_BUSY)
            read_owner(fd, other);
        close(fd);
        return rc;
    }
    int n =
        snprintf(text, sizeof(text), "%ld\n%s\n", (long)getpid(), control != NULL ? control : "");
    if (ftruncate(fd, 0) < 0 || pwrite(fd, text, (size_t)n, 0) != n) {
        rc = err_sys();
        close(fd);
        return rc;
    }
    l->fd = fd;
    return 0;
}

void keylock_release(struct keylock *l)
{
    if (l->fd < 0)
        return;
    /* Emptied, not removed: removing would race with somebody who has just opened it. */
    if (ftruncate(l->fd, 0) < 0)
        (void)errno;
    close(l->fd);
    l->fd = -1;
}

int keylock_owner(struct keylock_owner *owner, const struct pubkey *pk)
{
    char path[PATHS_MAX];
    int rc = lock_path(path, pk, false);
    if (rc < 0)
        return rc;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return ERR_NOT_FOUND;
    struct flock lock = whole_file;
    if (fcntl(fd, F_OFD_GETLK, &lock) < 0 || lock.l_type == F_UNLCK) {
        rc = ERR_NOT_FOUND;
    } else {
        read_owner(fd, owner);
        rc =
            owner->pid > 0 ? 0 : ERR_NOT_FOUND; /* 0: it has just taken it, and has no socket yet */
    }
    close(fd);
    return rc;
}
