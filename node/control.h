/*
 * control - the control socket of a node: how commands on this machine ask it for things.
 *
 * A unix socket of type SOCK_SEQPACKET; every packet is one JSON object. The socket lies in a
 * directory of mode 0700, has mode 0600, and the peer's user id is checked (our own or root). A
 * socket left behind by a dead process is taken over; a living one's is refused (ERR_BUSY).
 *
 *     request    {"id": 1, "cmd": "dht.get", …arguments}
 *     answer     any number of {"id": 1, "row": {…}}, then {"id": 1, "ok": true, …} or
 *                {"id": 1, "ok": false, "error": "text", "exit": 3, "code": -1981}
 *     event      {"id": 1, "event": "accepted", …} for commands that go on (listen), until the
 *                connection closes
 *
 * An answer may carry one descriptor (SCM_RIGHTS): the end of a stream, for dial and listen. With
 * "watch": true these tell how the stream ends, before its descriptor closes: dial by an event
 * "opened" with the descriptor and its last answer at the end, listen by a number "stream" beside
 * the descriptor and an event "ended" with the error, if there was one.
 * `error` is the whole line a person should see; `exit` is the exit code of the command-line
 * contract, `code` the number of base/err.h (of the node's version).
 *
 * Commands are a table (struct ctl_cmd); a handler gets a struct ctl_req that it answers now or
 * later. When the connection closes first, req->gone(req) is called and the request must not be
 * used any more. A connection ends when a packet is no JSON object or too long, and when an answer
 * could not be queued, so that nobody waits for it.
 *
 * Limits: CONTROL_CONNS connections, CONTROL_REQS requests each (one more is failed), packets of
 * CONTROL_PACKET bytes. A row source stops when ctl_row_room() says so, after CONTROL_QUEUE rows
 * waiting or CONTROL_TURN rows in one turn, and goes on with req->room. All drops are counted. One
 * thread.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "base/list.h"
#include "transport/drive_loop.h"

#define CONTROL_CONNS  256
#define CONTROL_REQS   1024 /* each dial under way, listener and forward of a tool is one */
#define CONTROL_PACKET (192u * 1024u)
#define CONTROL_QUEUE  256
#define CONTROL_TURN   512 /* rows of one connection before others get their turn */

struct control;
struct ctl_conn;

struct ctl_req {
    struct ctl_conn *conn;
    struct list_node node;
    json_int_t id;
    json_t *args;
    void (*gone)(struct ctl_req
                     *req); /* set by the handler when it answers later; frees its own state only */
    void (*room)(struct ctl_req *req); /* optional: rows may be sent again */
    struct loop_timer timer;           /* ctl_set_timeout() */
    unsigned timeout_ms;
    void *user;     /* the handler's */
    void *node_arg; /* what control_new() was given */
};

struct ctl_cmd {
    const char *name;
    void (*run)(struct ctl_req *req);
};

/* path NULL: no socket, only control_adopt(). cmds ends with a NULL name. 0, ERR_BUSY (a living
 * process has the socket), ERR_UNSAFE, -errno. */
int control_new(struct control **out, struct drive_loop *loop, const char *path,
                const struct ctl_cmd *cmds, void *node_arg);
/* Does a living process have this socket? */
bool control_is_taken(const char *path);
/* Closes all connections, removes the socket. */
void control_free(struct control *c);
/* Serve an already connected descriptor (a tool in this process). */
int control_adopt(struct control *c, int fd);

struct control_stat {
    size_t conns, requests; /* gauges */
    uint64_t refused_user, refused_limit, bad_packets, dropped, accept_failed;
};
void control_stat(const struct control *c, struct control_stat *out);

/* The last answer; frees the request. members (taken over, may be NULL) are merged into {"id",
 * "ok": true}. fd >= 0 is sent along and closed. */
void ctl_ok(struct ctl_req *req, json_t *members, int fd);
/* {"ok": false}; exit code from err; text by format, or err_str(err) when fmt is NULL. Frees the
 * request. */
void ctl_fail(struct ctl_req *req, int err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* One row or event (taken over). fd as above. */
void ctl_row(struct ctl_req *req, json_t *row);
void ctl_event(struct ctl_req *req, json_t *members, int fd);
/* False: enough for now, req->room is called when it may go on. */
bool ctl_row_room(const struct ctl_req *req);

/* Arguments: 0, or the request was failed with a usage error and must not be used any more. */
struct pubkey;
int ctl_arg_pubkey(struct ctl_req *req, const char *name, struct pubkey *out);
/* A whole number of min … max; def when it is absent. */
int ctl_arg_range(struct ctl_req *req, const char *name, json_int_t min, json_int_t max,
                  json_int_t def, json_int_t *out);
/* "timeout_ms", at most a day, 20 s when it is absent. */
int ctl_arg_timeout(struct ctl_req *req, unsigned *ms);
/* Fail the request when it is not answered by then; the handler hears of it by req->gone. For
 * those whose own operation may take longer. */
void ctl_set_timeout(struct ctl_req *req, unsigned ms);
const char *ctl_arg_str(const struct ctl_req *req, const char *name, const char *def);
bool ctl_arg_bool(const struct ctl_req *req, const char *name);

/* Command "cancel": ends the request of this connection whose id is "target", without an answer
 * to it; fine when there is none. */
void ctl_cancel(struct ctl_req *req);
