#include "kademlia/frame.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/cursor.h"
#include "base/err.h"

#define FIRST_BYTES 512 /* most requests fit */

void kad_frame_init(struct kad_frame *f, size_t max)
{
    assert(max > 0 && max <= KAD_FRAME_MAX);
    memset(f, 0, sizeof *f);
    f->max = max;
}

void kad_frame_clear(struct kad_frame *f)
{
    free(f->body);
    kad_frame_init(f, f->max);
}

static int read_head(struct kad_frame *f, struct rd *r)
{
    size_t n = sizeof f->head - f->head_len;

    n = n < rd_left(r) ? n : rd_left(r);
    rd_copy(r, f->head + f->head_len, n);
    f->head_len += n;
    /* The length is judged before the method has arrived: a bad one never gets further. */
    if (f->head_len < 4)
        return ERR_AGAIN;
    size_t length = get_be32(f->head);
    if (length == 0)
        return ERR_FORMAT;
    if (length > f->max)
        return ERR_TOO_LONG;
    f->want = length - 1;
    f->method = f->head[4];
    return f->head_len == sizeof f->head ? 0 : ERR_AGAIN;
}

/* Room for n bytes more (n <= want - body_len); doubling, so the peer has sent half of it. */
static int reserve(struct kad_frame *f, size_t n)
{
    size_t cap = f->cap > 0 ? f->cap : FIRST_BYTES;

    if (n <= f->cap - f->body_len)
        return 0;
    while (cap - f->body_len < n)
        cap *= 2;
    cap = cap < f->want ? cap : f->want;
    uint8_t *body = realloc(f->body, cap);
    if (body == NULL)
        return ERR_NOMEM;
    f->body = body;
    f->cap = cap;
    return 0;
}

int kad_frame_feed(struct kad_frame *f, const void *p, size_t n, size_t *used)
{
    struct rd r = rd_init(p, n);
    int rc = read_head(f, &r);

    if (rc == 0) {
        size_t take = f->want - f->body_len;
        take = take < rd_left(&r) ? take : rd_left(&r);
        rc = reserve(f, take);
        if (rc == 0 && take > 0) {
            rd_copy(&r, f->body + f->body_len, take);
            f->body_len += take;
        }
        if (rc == 0 && f->body_len < f->want)
            rc = ERR_AGAIN;
    }
    *used = n - rd_left(&r);
    return rc;
}

int kad_frame_feed_queue(struct kad_frame *f, struct bufq *q)
{
    struct iovec iov[16];
    int rc = ERR_AGAIN;

    do {
        size_t used, taken = 0;
        int n = bufq_iov(q, iov, 16);
        for (int i = 0; i < n && rc == ERR_AGAIN; i++) {
            rc = kad_frame_feed(f, iov[i].iov_base, iov[i].iov_len, &used);
            taken += used;
        }
        bufq_consume(q, taken);
    } while (rc == ERR_AGAIN && bufq_len(q) > 0);
    return rc;
}
