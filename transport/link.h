/*
 * link - a session running over a conn on a loop: the piece that relay and client share.
 *
 * It feeds bytes to the session, pulls output, keeps the session's one timer, stops and resumes
 * reading, and tells its owner what happened:
 *
 *     up(link)          the handshake is done; link_remote() is known
 *     event(link, ev)   news of a stream (or PONG / GOAWAY) of the session's mux; pulled until
 *                       there are none
 *     down(link, err)   it ended (handshake failed, peer gone, time-out, protocol error); called
 *                       once, unless the owner closed it; the owner must still call link_close()
 *
 * Owners' functions are called from the loop only, never from inside a link_* call. link_close()
 * may be called anywhere, also from inside these functions; no owner function is called after it;
 * streams of the mux die with it (the owner drops its pointers or releases them first); memory goes
 * at the end of the turn, or in the next turn when it is called outside of one: run one before the
 * loop, the pool or the env are closed. Writing inside an owner function of this link is sent by
 * itself; after any writing to its streams elsewhere call link_kick().
 *
 * Limits: 256 events a round, then other links come first. One thread, the loop's.
 *
 *     struct link *l = link_new(loop, conn, &cfg, &owner, me);
 *     static void event(struct link *l, const struct yamux_event *ev) { ... }
 *     link_close(l);
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/loop.h"
#include "transport/conn.h"
#include "transport/session.h"

struct link;

struct link_owner {
    void (*up)(struct link *l);
    void (*event)(struct link *l, const struct yamux_event *ev);
    void (*down)(struct link *l, int err);
};

/* Session over an accepted or dialled conn (takes it over; for a dialled one call it from
 * user->up). cfg->ready and cfg->arg are the link's own. NULL: out of memory, conn closed. */
struct link *link_new(struct loop *loop, struct conn *conn, const struct session_cfg *cfg,
                      const struct link_owner *owner, void *arg);
/* The same over a state that link_export() gave; up() is called again. The state is wiped in every
 * case. */
struct link *link_import(struct loop *loop, struct conn *conn, const struct session_cfg *cfg,
                         struct session_state *st, const struct link_owner *owner, void *arg);
/* From inside up(), with cfg.wait_at_up: the session goes to another thread. As link_close(), but the
 * conn stays open, and belongs to the caller. ERR_NOMEM: nothing happened. */
int link_export(struct link *l, struct session_state *out, struct conn **conn)
    __attribute__((warn_unused_result));
void link_close(struct link *l);
/* Output or events may be waiting: handle them at the end of this turn. */
void link_kick(struct link *l);
void *link_arg(const struct link *l);
struct session *link_session(const struct link *l);
struct yamux *link_mux(const struct link *l);
const struct pubkey *link_remote(const struct link *l);
const struct conn *link_conn(const struct link *l);
/* Stop or resume reading from the carrier (byte budget of the relay). */
void link_pause(struct link *l, bool paused);
