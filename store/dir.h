/*
 * dir - the folder of a store: made, checked and locked.
 *
 * The folder belongs to the user who runs the program and is closed to everybody else (0700). A
 * missing one is made, with its parents. One that others may write, or that belongs to somebody
 * else, is refused; one that others may merely read is closed to them.
 *
 * The lock is flock() on a file inside that names the process that holds it; the kernel drops it
 * when the process ends in whatever way. A stamp tells the next start that the data file is as the
 * last one left it after an orderly end; it is taken away while the store is open for writing.
 *
 * Several processes may share a folder when all of them say so (dir_lock_shared()): the first one has it
 * alone until it calls dir_share(), which is when the data file has been looked at. A small file mapped
 * by all of them says who writes just now and what the common budget is. Within one process a folder is
 * opened once only.
 *
 * Errors: ERR_UNSAFE, ERR_BUSY (with *pid), system errors. One thread.
 *
 *     struct dir d;
 *     rc = dir_open(&d, path, true);
 *     if (rc == 0) rc = dir_lock(&d, &pid);
 *     dir_close(&d);
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

/* Mapped by all processes that share a folder. */
struct dir_common {
    atomic_int writer; /* process in a write transaction, 0 = none */
    _Atomic uint64_t budget_bytes;
};

struct dir {
    int fd, lock_fd;           /* -1 = none */
    struct dir_common *common; /* NULL: not shared */
};

/* Open the folder, making it when `create`. *d is defined in any case, for dir_close(). */
int dir_open(struct dir *d, const char *path, bool create) __attribute__((warn_unused_result));
/* Gives up the lock too. */
void dir_close(struct dir *d);

/* ERR_BUSY when another process (or another store of this one) has it: *pid says which, 0 if
 * unknown. */
int dir_lock(struct dir *d, pid_t *pid) __attribute__((warn_unused_result));

/* The same for a process that shares the folder with others who do so. *alone: nobody else has it, and
 * nobody gets it before dir_share(). Waits a moment for one that is just opening it. */
int dir_lock_shared(struct dir *d, bool *alone, pid_t *pid) __attribute__((warn_unused_result));
int dir_share(struct dir *d) __attribute__((warn_unused_result));
/* Has nobody else the shared folder now? */
bool dir_is_last(struct dir *d);

/* Does the stamp fit the data file and its last transaction? */
bool dir_is_clean(const struct dir *d, const struct stat *data, uint64_t txn_id);
void dir_mark_clean(const struct dir *d, const struct stat *data, uint64_t txn_id);
/* 0 or a system error: a stamp that stays would lie after the first write. */
int dir_unmark(const struct dir *d) __attribute__((warn_unused_result));
