/*
 * kadmsg - the program: picks the command and runs it.
 */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/crypto.h"
#include "base/log.h"
#include "node/cmds.h"

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

int main(int argc, char **argv)
{
    open_standard();
    if (crypto_init() < 0) {
        fputs("kadmsg: out of memory\n", stderr);
        return 1;
    }
    log_set_format(log_format_for_stderr());
    return cmdline_main(cmds_root(), argc, argv);
}
