/*
 * drive_wire - a conn between two loops of one process, without system calls for its bytes and without
 * locks: what the workers of a relay are connected by.
 *
 * Each direction is a ring of buffers with one writer and one reader. The writer fills a buffer of its
 * own pool and puts it into the next slot; the reader takes it over into its pool, and leaves an empty
 * one in the slot for the way back, so that in the long run no pool runs dry and nothing is allocated.
 * An eventfd wakes a side only when it has said that it waits: the reader for bytes, the writer for
 * room.
 *
 *     writer: slot[tail] = full,  tail++        reader: full = slot[head], slot[head] = empty, head++
 *
 * Limits: WIRE_SLOTS buffers of at most BUF_READ_SIZE under way in each direction; WIRE_TURN_BYTES
 * read in one call from the loop, then others come first. The buffers under way count for the budget
 * of the pools, which both must share.
 *
 * Threads: each end belongs to its loop; both are made by one thread before the loops run. When an end
 * is closed the other one reads what was written before, then hears ERR_EOF; who is last frees the
 * wire.
 *
 *     drive_wire_pair(loop_a, pool_a, loop_b, pool_b, budget, &a, &b);
 */
#pragma once

#include "transport/conn.h"
#include "transport/drive_loop.h"

#define WIRE_SLOTS      32u /* a power of two */
#define WIRE_TURN_BYTES (512u * 1024u)

/* budget: of both pools, or NULL. 0, ERR_NOMEM or -errno (descriptors). */
int drive_wire_pair(struct drive_loop *loop_a, struct bufpool *pool_a, struct drive_loop *loop_b,
                    struct bufpool *pool_b, struct buf_budget *budget, struct conn **a,
                    struct conn **b) __attribute__((warn_unused_result));
