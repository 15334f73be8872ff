/*
 * faulty_disk - a disk that fails when told: replaces the system calls that LMDB writes with.
 *
 * Linked into a test program, pwrite(), writev() and fdatasync() of the whole process go through
 * here, to the kernel as long as nothing was set. Settings are atomic and may change while the
 * writer thread runs.
 */
#pragma once

#include <stdbool.h>

enum disk_fault {
    DISK_GOOD,
    DISK_FULL,  /* ENOSPC for every write */
    DISK_META,  /* EIO for writes to the first two pages: LMDB gives its environment up */
    DISK_SYNC,  /* EIO from fdatasync */
    DISK_STUCK, /* fdatasync does not return until the setting changes */
};

void disk_set(enum disk_fault fault);

/* Kill this process with SIGKILL at its n-th write or sync from now (1 = the next one); torn: when
 * it is a write, after half of the bytes. */
void disk_kill_at(int n, bool torn);
