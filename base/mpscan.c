#include "base/mpscan.h"

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/cursor.h"
#include "base/err.h"

struct head {
    uint64_t children; /* objects inside */
    size_t bytes;      /* payload that is no object */
    bool container;
    bool invalid;
};

static uint64_t read_length(struct rd *r, unsigned size)
{
    switch (size) {
    case 1:
        return rd_u8(r);
    case 2:
        return rd_be16(r);
    default:
        return rd_be32(r);
    }
}

/* Types c0 … df, in the order of their first bytes. */
static struct head read_typed(struct rd *r, uint8_t type)
{
    static const uint8_t fixed[] = {4, 8, 1, 2, 4, 8, 1, 2, 4, 8}; /* ca … d3 */
    struct head h = {0};

    if (type <= 0xc3) { /* nil, never used, false, true */
        h.invalid = type == 0xc1;
    } else if (type <= 0xc6) { /* bin 8, 16, 32 */
        h.bytes = (size_t)read_length(r, 1u << (type - 0xc4));
    } else if (type <= 0xc9) { /* ext 8, 16, 32: the length does not count the type byte */
        h.bytes = (size_t)read_length(r, 1u << (type - 0xc7));
        rd_skip(r, 1);
    } else if (type <= 0xd3) { /* floats and integers */
        h.bytes = fixed[type - 0xca];
    } else if (type <= 0xd8) { /* fixext 1 … 16 */
        h.bytes = ((size_t)1 << (type - 0xd4)) + 1;
    } else if (type <= 0xdb) { /* str 8, 16, 32 */
        h.bytes = (size_t)read_length(r, 1u << (type - 0xd9));
    } else { /* array 16, 32, map 16, 32 */
        h.container = true;
        h.children = read_length(r, (type & 1) != 0 ? 4 : 2) << (type >= 0xde);
    }
    return h;
}

static struct head read_head(struct rd *r)
{
    uint8_t type = rd_u8(r);

    if (type <= 0x7f || type >= 0xe0)
        return (struct head){0};
    if (type <= 0x8f)
        return (struct head){.container = true, .children = (type & 15u) * 2u};
    if (type <= 0x9f)
        return (struct head){.container = true, .children = type & 15u};
    if (type <= 0xbf)
        return (struct head){.bytes = type & 31u};
    return read_typed(r, type);
}

int mpscan(const void *p, size_t n, unsigned max_depth, size_t max_objects, size_t *used)
{
    uint64_t open[MPSCAN_DEPTH_MAX + 1]; /* objects still to come, per level */
    unsigned depth = 0;
    size_t objects = 0;
    struct rd r = rd_init(p, n);

    assert(max_depth <= MPSCAN_DEPTH_MAX);
    open[0] = 1;
    for (;;) {
        while (open[depth] == 0) {
            if (depth-- == 0) {
                if (used != NULL)
                    *used = n - rd_left(&r);
                return 0;
            }
        }
        open[depth]--;
        if (objects++ >= max_objects)
            return ERR_LIMIT;
        struct head h = read_head(&r);
        rd_skip(&r, h.bytes);
        if (rd_failed(&r) || h.children > rd_left(&r))
            return ERR_SHORT;
        if (h.invalid)
            return ERR_FORMAT;
        if (!h.container)
            continue;
        if (depth == max_depth)
            return ERR_LIMIT;
        open[++depth] = h.children;
    }
}
