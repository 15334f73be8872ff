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

void mpscan_begin(struct mpscan *s, unsigned max_depth, size_t max_objects, size_t max_bytes)
{
    assert(max_depth <= MPSCAN_DEPTH_MAX);
    s->open[0] = 1;
    s->at = s->objects = 0;
    s->depth = 0;
    s->max_depth = max_depth;
    s->max_objects = max_objects;
    s->max_bytes = max_bytes;
}

/* Is everything that was opened complete? Closes what is. */
static bool is_whole(struct mpscan *s)
{
    while (s->open[s->depth] == 0) {
        if (s->depth == 0)
            return true;
        s->depth--;
    }
    return false;
}

/* The object that begins at s->at, of whose bytes n have come. */
static int one_object(struct mpscan *s, const uint8_t *p, size_t n)
{
    struct rd r = rd_init(p + s->at, n - s->at);
    struct head h = read_head(&r);

    if (rd_failed(&r))
        return s->max_bytes - s->at <= n - s->at ? ERR_TOO_LONG : ERR_AGAIN;
    if (h.invalid)
        return ERR_FORMAT;
    if (s->objects >= s->max_objects)
        return ERR_LIMIT;
    size_t head = n - s->at - rd_left(&r), left = s->max_bytes - s->at - head;
    if (h.bytes > left || h.children > left - h.bytes)
        return ERR_TOO_LONG;
    if (h.container && s->depth == s->max_depth)
        return ERR_LIMIT;
    s->objects++;
    s->at += head + h.bytes;
    s->open[s->depth]--;
    if (h.container)
        s->open[++s->depth] = h.children;
    return 0;
}

int mpscan_feed(struct mpscan *s, const void *p, size_t n, size_t *used)
{
    while (!is_whole(s)) {
        if (s->at >= n)
            return s->at >= s->max_bytes ? ERR_TOO_LONG : ERR_AGAIN;
        int rc = one_object(s, p, n);
        if (rc != 0)
            return rc;
    }
    if (s->at > n)
        return ERR_AGAIN;
    *used = s->at;
    return 0;
}

int mpscan(const void *p, size_t n, unsigned max_depth, size_t max_objects, size_t *used)
{
    struct mpscan s;
    size_t size;

    mpscan_begin(&s, max_depth, max_objects, n);
    int rc = mpscan_feed(&s, p, n, used != NULL ? used : &size);
    return rc == ERR_AGAIN || rc == ERR_TOO_LONG ? ERR_SHORT : rc;
}
