/*
 * fdbridge - a stream on one side, a file descriptor on the other.
 *
 * What comes from the stream is written to the descriptor and the other way round, each direction
 * with its own back-pressure and its own end: EOF of the descriptor becomes FIN behind the last
 * byte, FIN of the stream becomes shutdown() (or close(), when reading and writing are two
 * descriptors) behind the last byte. nc, socks, web, the HTTP glue and the control socket's `dial`
 * use it. Sockets, pipes, ttys, character devices and regular files work; they are made
 * non-blocking, which is undone for descriptors 0 … 2 when the bridge ends.
 *
 * Ends: both directions are done (0); the stream died (its error) or the descriptor did (-EPIPE …):
 * then the other side is ended at once, the stream by reset; nobody holds the other end of a
 * socket any more (0: seen at once, or within 5 s after a half-close). Who closes a unix socket without
 * having read everything is no failure: what it wrote before arrives, and the stream is closed in
 * order. stream_abort() and the like
 * may not be called on a bridged stream.
 *
 * Owner: a struct fdbridges is the set of all bridges of one loop, a value of its owner; it closes
 * what is left with fdbridges_close(), before client_free(). A bridge owns its stream and its
 * descriptors from the first call, also when that fails. done() is called once from the loop, and
 * the bridge is gone then but for its descriptors, which are closed behind it: who sees them closed
 * can find out why; fdbridge_close() ends it without. Threads: the loop's.
 *
 * Limits: 64 KiB wait for the descriptor, nothing for the stream; the rest stays where it is.
 *
 *     fdbridges_init(&set, drive);
 *     fdbridge_start(&set, st, fd);                            // fire and forget
 *     fdbridge_new(&set, st, 0, 1, on_done, arg, &bridge);     // nc
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/list.h"
#include "transport/drive_loop.h"
#include "transport/stream.h"

struct fdbridge;

struct fdbridges {
    struct drive_loop *drive;
    struct list all;
    size_t n; /* gauge */
};

void fdbridges_init(struct fdbridges *set, struct drive_loop *drive);
/* End all of them: streams are reset, nobody is told. */
void fdbridges_close(struct fdbridges *set);

typedef void fdbridge_done_fn(void *arg, int err);

/* Bridge an open stream, reading from in_fd and writing to out_fd (which may be the same). Takes
 * all of them over. done may be NULL. 0, ERR_NOMEM, or -errno of a descriptor that can't be used;
 * everything is closed then. */
int fdbridge_new(struct fdbridges *set, struct stream *st, int in_fd, int out_fd,
                 fdbridge_done_fn *done, void *arg, struct fdbridge **out)
    __attribute__((warn_unused_result));
/* done() of this bridge will not be called: its user goes, the bridge lives on. */
void fdbridge_forget(struct fdbridge *b);
/* The same for one descriptor, without a pointer to it. */
int fdbridge_start(struct fdbridges *set, struct stream *st, int fd)
    __attribute__((warn_unused_result));
void fdbridge_close(struct fdbridge *b);
