/*
 * kadmsg - the program: picks the command and runs it.
 */
#include <stdio.h>

#include "base/crypto.h"
#include "base/log.h"
#include "node/cmds.h"

int main(int argc, char **argv)
{
    if (crypto_init() < 0) {
        fputs("kadmsg: out of memory\n", stderr);
        return 1;
    }
    log_set_format(log_format_for_stderr());
    return cmdline_main(cmds_root(), argc, argv);
}
