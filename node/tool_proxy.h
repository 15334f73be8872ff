/*
 * tool_proxy - what the proxy commands (socks, web) have in common: flags, the network with its hub (apps/hub.h), the ready line, the environment files of upstream.
 */
#pragma once

#include "apps/hub.h"
#include "apps/whitelist.h"
#include "node/tool.h"
#include "node/tool_compat.h"

struct tool_proxy {
    struct tool_opts conn;
    struct tool_compat compat;
    uint64_t max_conns, idle, stall; /* ns */
    const char *bind;
    bool ready;
};

extern const struct cmd_opt tool_proxy_flags[];

/* The groups of a command whose options begin with a struct tool_proxy. */
#define TOOL_PROXY_GROUPS(compat_)                                                                 \
    {                                                                                              \
        {"Limits", tool_proxy_flags, 0},                                                           \
            {"Connection flags", tool_flags, offsetof(struct tool_proxy, conn)},                   \
            {TOOL_COMPAT_TITLE, compat_, offsetof(struct tool_proxy, compat)},                     \
        {                                                                                          \
            0                                                                                      \
        }                                                                                          \
    }

struct tool_hub {
    struct app_net *net;
    struct hub *hub;
};

/* Returns the exit code, 0 = fine; a failure was printed. sk_env as in tool_compat_apply(). */
int tool_hub_open(struct tool_hub *t, struct cmdline *cl, struct tool_proxy *o, const char *sk_env,
                  enum tool_needs needs);
/* Runs until a signal; the exit code. */
int tool_hub_run(struct tool_hub *t);
void tool_hub_close(struct tool_hub *t);

/* With --ready: the line, with members (taken over) added. */
void tool_hub_ready(const struct tool_hub *t, const struct tool_proxy *o, json_t *members);

/* Lists of keys with commas, or repeated. 0, or the exit code. */
int tool_whitelist(struct cmdline *cl, const struct cmd_strs *texts, struct whitelist *out);

/* Variables of the file that the environment variable `env` names become flags that were not given. */
struct tool_env {
    const char *variable, *flag;
};
int tool_env_apply(struct cmdline *cl, const char *env, const struct tool_env *table);

/* Lists of ports with commas, or repeated; none: def. Twice the same is wrong (but for 0, any free one). 0, or the exit code. */
int tool_ports(struct cmdline *cl, const char *flag, const struct cmd_strs *texts, uint16_t def,
               unsigned addr_flags, uint16_t *out, size_t max, size_t *n);
