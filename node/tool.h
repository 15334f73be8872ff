/*
 * tool - how a command reaches the network: through the node that runs on this machine, or through
 * a small node of its own in this process.
 *
 * tool_open() picks, in this order: the socket of --control; the node that holds the lock of
 * --sk-file's key; with --bootstrap or --discovery, a node of its own (memory store, no relay, on a thread of its
 * own); the default control socket. Either way the command then speaks the control protocol
 * (control.h) over a descriptor, in plain blocking calls.
 *
 * Every function prints its failure on stderr, one line "kadmsg: what: reason", and returns the
 * exit code of the command-line contract (0 = fine).
 *
 *     struct tool *t;
 *     int rc = tool_open(&t, &opts->conn, TOOL_DHT);
 *     if (rc == 0)
 *         rc = tool_call(t, json_pack("{s:s, s:s}", "cmd", "dht.get", "pk", pk), NULL, NULL,
 *                        &answer, NULL);
 *     tool_close(t);
 */
#pragma once

#include <jansson.h>

#include "base/cmdline.h"

struct tool_opts { /* the connection flags, tool_flags */
    const char *control;
    struct cmd_peers bootstrap;
    const char *discovery; /* URL; NULL = none */
    const char *sk_file;
    uint64_t timeout;    /* ns */
    const char *network; /* name of the DHT; NULL = the default one */
    bool json;
    /* no flags of their own: tool_compat.h */
    const struct seckey *sk; /* in place of sk_file */
    unsigned sessions;       /* of a node of its own; 0 = 2 */
    bool direct; /* a node of its own without DHT; dials try the sessions, and nothing else */
    const struct pubkey *via; /* dials go through this relay only; NULL = any way */
    const char *proxy;        /* "host:port" of a SOCKS5 proxy, for a node of its own only */
    const char *log_level;    /* of a node of its own; NULL = warn */
};

extern const struct cmd_opt tool_flags[];

enum tool_needs {
    TOOL_NODE,      /* any running node will do; nothing to wait for */
    TOOL_SESSION,   /* a session to a relay */
    TOOL_DHT,       /* and a DHT peer */
    TOOL_REACHABLE, /* a session, and be found by others: an own node publishes its entry */
};

struct tool;

int tool_open(struct tool **out, const struct tool_opts *opts, enum tool_needs needs);
/* NULL is allowed. */
void tool_close(struct tool *t);
/* True when it is a node of this process: it is gone when the command ends. */
bool tool_is_own(const struct tool *t);

/* A row of the answer; borrowed. */
typedef void tool_row_fn(void *arg, json_t *row);

/* Send req (taken over) and wait for the answer; rows go to fn. *answer (may be NULL) is the
 * final object, to be released; *fd (may be NULL) the descriptor that came with it, or -1. */
int tool_call(struct tool *t, json_t *req, tool_row_fn *fn, void *arg, json_t **answer, int *fd);
/* The same without waiting, for commands that answer with events; then the next event:
 * timeout_ms < 0 = for ever. */
int tool_send(struct tool *t, json_t *req);
int tool_event(struct tool *t, int timeout_ms, json_t **event, int *fd);
/* Add to a request that dials (dial, forward, ping, dht.why) what the flags said about the way. */
void tool_route(const struct tool *t, json_t *req);
/* One packet either way, silent: for those who keep several requests apart by their ids. 0;
 * ERR_TOO_LONG, -errno; ERR_TIMEOUT, ERR_CANCELLED (a signal), ERR_RESET (the node is gone),
 * ERR_FORMAT. */
int tool_post(struct tool *t, json_t *req, json_int_t *id);
int tool_take(struct tool *t, int timeout_ms, json_t **packet, int *fd);
/* For poll(). */
int tool_fd(const struct tool *t);
unsigned tool_timeout_ms(const struct tool *t);

/* "kadmsg: …" on stderr; returns the exit code of err. */
int tool_fail(int err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A member of an answer; "" and 0 when it is not there or of another type. */
const char *tool_str(const json_t *o, const char *name);
long long tool_num(const json_t *o, const char *name);
/* Control characters in texts below v become '?': salts and addresses are what strangers chose, and
 * a terminal obeys them. For output that people read; JSON escapes them anyway. */
void tool_plain(json_t *v);
/* One JSON object and a line end on stdout (taken over). */
void tool_print(json_t *o);
