/*
 * tool_relays - commands that ask relays one by one (ip, self-ping, server dial): which ones, through
 * whom, and their sessions.
 *
 * Relays are named as PK or PK@HOST:PORT; with none named the command asks every relay that there is a
 * session to. A command goes through the node of this machine; when there is none, and nothing else was
 * said, a node of its own joins the relays whose addresses were named and looks nothing up.
 *
 *     struct tool_relays relays;
 *     rc = tool_relays_parse(cl, "srv", &o->srv, &relays);
 *     rc = tool_relays_apply(cl, &o->compat, &o->conn, "DMSGIP_SK", &relays, &opts);
 *     rc = tool_open(&t, &opts, TOOL_NODE);
 *     rc = tool_relays_fill(t, &opts, &relays);
 *     answer = tool_relays_session(t, &relays.v[i]);
 */
#pragma once

#include "node/tool_compat.h"

#define TOOL_RELAYS 64

struct tool_relay {
    struct pubkey pk;
    char addr[ADDR_HOSTPORT_MAX + 1]; /* "" = to be looked up */
};

struct tool_relays {
    struct tool_relay v[TOOL_RELAYS];
    size_t n;
    struct addr_peer join[TOOL_RELAYS]; /* for opts->bootstrap */
};

/* Texts with commas, or repeated. 0, or the exit code (a line was printed). */
int tool_relays_parse(struct cmdline *cl, const char *flag, const struct cmd_strs *texts,
                      struct tool_relays *out);
/* tool_compat_apply(), and a node of its own with the named relays when that is all there is. */
int tool_relays_apply(struct cmdline *cl, struct tool_compat *c, const struct tool_opts *given,
                      const char *sk_env, struct tool_relays *r, struct tool_opts *out);
/* With none named: those of the tool's own node, or those that the running node has sessions to. */
int tool_relays_fill(struct tool *t, const struct tool_opts *opts, struct tool_relays *r);
/* The answer of command "session" (ctl_session.c), whose "up" tells; a new reference. NULL: the node is gone
 * (a line was printed). */
json_t *tool_relays_session(struct tool *t, const struct tool_relay *relay);
/* One request, one answer, nothing printed when it is a refusal ("ok" is false); NULL as above. */
json_t *tool_ask(struct tool *t, json_t *req);
