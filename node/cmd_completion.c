#include <stdio.h>

#include "node/cmds.h"
#include "node/completion.h"

struct completion_opts {
    int shell;
};

static int run(struct cmdline *cl)
{
    const struct completion_opts *o = cl->opts;
    completion_print(stdout, cmds_root(), (enum completion_shell)o->shell);
    return 0;
}

static const struct cmd_opt args[] = {{.name = "SHELL",
                                       CMD_CHOICE_AT(struct completion_opts, shell),
                                       .choices = COMPLETION_SHELLS,
                                       .help = "bash, zsh or fish"},
                                      {0}};

const struct cmd cmd_completion = {
    .name = "completion",
    .help = "print a completion script for a shell",
    .about = "The installation puts them where the shells look: share/bash-completion/completions, "
             "share/zsh/site-functions, share/fish/vendor_completions.d. Without that:\n\n"
             "source <(kadmsg completion bash), source <(kadmsg completion zsh), kadmsg completion "
             "fish | source.",
    .args = args,
    .opts_size = sizeof(struct completion_opts),
    .run = run,
};
