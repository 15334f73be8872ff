/*
 * writer - the one thread that writes to the LMDB environment: group commit with retries.
 *
 * The owner's thread enqueues pends (overlay.h); the writer takes all of them commit_ms after the
 * first one (or earlier: commit_count of them, writer_sync()), writes them in one transaction and
 * hands them back through writer_reap() once they are durable. Two fsyncs a commit, whatever the
 * number of writes.
 *
 *     owner                         writer
 *     writer_enqueue ──> queue ──take──> batch ──commit──> finished ──> writer_reap
 *                                         ^  | failed
 *                                         +--+ retry in a second, or when something is deleted
 *
 * Failure: nothing is given back until it is written. While a batch fails the error shows in
 * writer_status() and the owner accepts deletions only; each retry takes what was queued meanwhile
 * along, applies deletions first, and, when the map or disk is full, splits the rest into smaller
 * transactions. LMDB gives up on its environment when a meta page could not be written: then the
 * writer parks until the owner has reopened it.
 *
 * Once an hour, and at open, slots of dead readers are cleared (they would keep old pages alive).
 *
 * Locks: one mutex, held for list surgery only, never during I/O. The writer thread blocks all
 * signals.
 */
#pragma once

#include "store/overlay.h"
#include "store/row.h"

struct writer;

struct writer_cfg {
    unsigned commit_ms;
    size_t commit_count;
};

struct writer_status {
    int error;          /* of the last commit, 0 = healthy */
    bool parked;        /* waits for writer_resume() */
    size_t pending;     /* enqueued and not durable */
    uint64_t oldest_ns; /* age of the oldest of them */
    uint64_t room;      /* bytes that still fit into the map, less a reserve; UINT64_MAX: many */
    uint64_t commits, corrupt, refused_seq;
};

/* Start the thread. db must outlive it. ERR_NOMEM, system errors. */
int writer_start(struct writer **out, struct db *db, const struct writer_cfg *cfg)
    __attribute__((warn_unused_result));

/* Queue a pend. replaced (may be NULL) is the previous one of its key: true when the writer had
 * not taken it, then it left the queue and is the caller's again. */
bool writer_enqueue(struct writer *w, struct pend *p, struct pend *replaced);

/* Move pends that are durable to the end of *out. Cheap when there is none. */
void writer_reap(struct writer *w, struct list *out);

/* Cheap look at the error of the last commit; 0 = healthy. */
int writer_error(const struct writer *w);
/* The error is ERR_NO_SPACE because of the map, not of the disk: deletions help. */
bool writer_map_is_full(const struct writer *w);
bool writer_is_parked(const struct writer *w);
/* Room as in writer_status(); changes with *epoch. */
uint64_t writer_room(const struct writer *w, uint64_t *epoch);
void writer_status(struct writer *w, struct writer_status *out);

/* Commit now and wait until all that was enqueued is durable: 0, the error of an attempt made
 * since, or ERR_TIMEOUT. */
int writer_sync(struct writer *w, unsigned timeout_ms) __attribute__((warn_unused_result));

/* The environment was reopened. */
void writer_resume(struct writer *w);

/* One last commit, end the thread, move everything that was enqueued to *out, free. ERR_TIMEOUT:
 * the thread is stuck in the kernel; nothing was freed and nothing may be (env, db, pends). */
int writer_stop(struct writer *w, unsigned timeout_ms, struct list *out)
    __attribute__((warn_unused_result));
