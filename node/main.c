/*
 * kadmsg - the program: picks the command and runs it.
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/crypto.h"
#include "base/log.h"
#include "node/cmds.h"

#define FILES_MAX (1u << 20)

/* A standard descriptor that was not given would be the number of the first socket or file that is
 * opened: what is printed would go there. */
static void open_standard(void)
{
    int fd;
    do {
        fd = open("/dev/null", O_RDWR);
    } while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0)
        close(fd);
}

/* Every stream of a tool and every session is a descriptor; 1024 are soon used up. Nothing here uses select(). */
static void raise_limit_of_files(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= FILES_MAX)
        return;
    limit.rlim_cur = limit.rlim_max < FILES_MAX ? limit.rlim_max : FILES_MAX;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
}

int main(int argc, char **argv)
{
    open_standard();
    if (crypto_init() < 0) {
        fputs("kadmsg: out of memory\n", stderr);
        return 1;
    }
    raise_limit_of_files();
    log_set_format(log_format_for_stderr());
    return cmdline_main(cmds_root(), argc, argv);
}
