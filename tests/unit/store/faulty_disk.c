#include "tests/unit/store/faulty_disk.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define META_BYTES 8192
#define PUBLIC     __attribute__((visibility("default"), used))

static atomic_int setting, kill_in;
static atomic_bool kill_torn;

void disk_set(enum disk_fault fault)
{
    setting = (int)fault;
}

void disk_kill_at(int n, bool torn)
{
    kill_torn = torn;
    kill_in = n;
}

static bool is_last_call(void)
{
    return kill_in > 0 && --kill_in == 0;
}

static void die(void)
{
    kill(getpid(), SIGKILL);
}

static bool refuses(bool meta)
{
    if (setting == DISK_FULL)
        errno = ENOSPC;
    else if (setting == DISK_META && meta)
        errno = EIO;
    else
        return false;
    return true;
}

/* By their names in the library: headers may rename them (pwrite64). */
PUBLIC ssize_t disk_pwrite(int fd, const void *p, size_t n, off_t at) __asm__("pwrite");
PUBLIC ssize_t disk_writev(int fd, const struct iovec *iov, int count) __asm__("writev");
PUBLIC int disk_fdatasync(int fd) __asm__("fdatasync");

ssize_t disk_pwrite(int fd, const void *p, size_t n, off_t at)
{
    if (is_last_call()) {
        if (kill_torn)
            syscall(SYS_pwrite64, fd, p, n / 2, at);
        die();
    }
    return refuses(at < META_BYTES) ? -1 : syscall(SYS_pwrite64, fd, p, n, at);
}

ssize_t disk_writev(int fd, const struct iovec *iov, int count)
{
    if (is_last_call()) {
        if (kill_torn)
            syscall(SYS_writev, fd, iov, (count + 1) / 2);
        die();
    }
    return refuses(false) ? -1 : syscall(SYS_writev, fd, iov, count);
}

int disk_fdatasync(int fd)
{
    if (is_last_call())
        die();
    while (setting == DISK_STUCK)
        usleep(1000);
    if (setting == DISK_SYNC) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_fdatasync, fd);
}
