/*
 * mpscan - look over MessagePack bytes before a decoder that trusts them sees them.
 *
 * msgpack-c allocates for the counts that it reads: an array header of five bytes can make it ask
 * for gigabytes. This walk allocates nothing and checks every length and count against the bytes
 * that are left (each element takes at least one), the nesting and the number of objects. What
 * passes can be given to msgpack-c: it then needs at most MPSCAN_OBJECT_BYTES per object.
 *
 * Pure function, any thread. Errors: ERR_SHORT (the object goes on behind the end), ERR_FORMAT (the
 * byte c1, which begins nothing), ERR_LIMIT (nesting or number of objects).
 *
 *     size_t used;
 *     if (mpscan(p, n, 4, 64, &used) == 0 && used == n)
 *         msgpack_unpack(...);
 */
#pragma once

#include <stddef.h>

#define MPSCAN_DEPTH_MAX    32
#define MPSCAN_OBJECT_BYTES 48 /* what msgpack-c holds for one, a map's pair counted as two */

/* Check the first object of n bytes: scalars have depth 0, an array of scalars 1 (max_depth <=
 * MPSCAN_DEPTH_MAX). max_objects counts containers too. *used (may be NULL) gets its size. */
int mpscan(const void *p, size_t n, unsigned max_depth, size_t max_objects, size_t *used)
    __attribute__((warn_unused_result));
