/*
 * mpscan - look over MessagePack bytes before a decoder that trusts them sees them.
 *
 * msgpack-c allocates for the counts that it reads: an array header of five bytes can make it ask
 * for gigabytes. This walk allocates nothing and checks every length and count against the bytes
 * that are left (each element takes at least one), the nesting and the number of objects. What
 * passes can be given to msgpack-c: it then needs at most MPSCAN_OBJECT_BYTES per object.
 *
 * Bytes that come in pieces are walked once: struct mpscan keeps the place between them, so that a
 * peer that sends one byte at a time makes nobody start over.
 *
 * No state but the caller's, any thread. Errors: ERR_SHORT (the object goes on behind the end), ERR_FORMAT (the
 * byte c1, which begins nothing), ERR_LIMIT (nesting or number of objects).
 *
 *     size_t used;
 *     if (mpscan(p, n, 4, 64, &used) == 0 && used == n)
 *         msgpack_unpack(...);
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define MPSCAN_DEPTH_MAX    32
#define MPSCAN_OBJECT_BYTES 48 /* what msgpack-c holds for one, a map's pair counted as two */

/* Check the first object of n bytes: scalars have depth 0, an array of scalars 1 (max_depth <=
 * MPSCAN_DEPTH_MAX). max_objects counts containers too. *used (may be NULL) gets its size. */
int mpscan(const void *p, size_t n, unsigned max_depth, size_t max_objects, size_t *used)
    __attribute__((warn_unused_result));

struct mpscan {                          /* private */
    uint64_t open[MPSCAN_DEPTH_MAX + 1]; /* objects still to come, per level */
    size_t at, objects, max_objects, max_bytes;
    unsigned depth, max_depth;
};

/* Begin with one object of at most max_bytes. */
void mpscan_begin(struct mpscan *s, unsigned max_depth, size_t max_objects, size_t max_bytes);

/* Go on: p is the begin of the object, n all that has come of it so far. 0 = it is whole (*used is
 * its size), ERR_AGAIN = more is needed, or ERR_FORMAT, ERR_LIMIT, ERR_TOO_LONG (it cannot end
 * within max_bytes), all of them final. */
int mpscan_feed(struct mpscan *s, const void *p, size_t n, size_t *used)
    __attribute__((warn_unused_result));
