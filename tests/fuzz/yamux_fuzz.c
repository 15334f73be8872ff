/* A mux fed by a hostile peer, with a user that reacts in a way the first byte chooses:
 * bit 0 our role, bits 1-2 size of the pieces, bits 3-4 what the user does with its streams,
 * bit 5 whether output is taken, bit 6 streams of our own. The rest is the peer's bytes. */
#include <stdlib.h>
#include <string.h>

#include "base/cursor.h"
#include "base/loop.h"
#include "transport/yamux.h"

static void check(bool ok)
{
    if (!ok)
        abort();
}

/* What we send must be frames, whatever the peer does. */
struct reader {
    uint8_t head[YAMUX_HEADER_BYTES];
    size_t have, body;
};

static void read_out(struct reader *r, const uint8_t *p, size_t n)
{
    while (n > 0) {
        if (r->body > 0) {
            size_t part = n < r->body ? n : r->body;
            r->body -= part;
            p += part;
            n -= part;
            continue;
        }
        r->head[r->have++] = *p++;
        n--;
        if (r->have < sizeof r->head)
            continue;
        r->have = 0;
        check(r->head[0] == 0 && r->head[1] <= YAMUX_T_GOAWAY);
        if (r->head[1] == YAMUX_T_DATA)
            r->body = get_be32(r->head + 8);
        check(r->body <= 65536);
    }
}

static void take(struct yamux *y, struct reader *r, uint64_t now_ns)
{
    struct iovec iov[4];
    int cnt;
    while ((cnt = yamux_output(y, iov, 4)) > 0) {
        size_t n = 0;
        for (int i = 0; i < cnt; i++) {
            read_out(r, iov[i].iov_base, iov[i].iov_len);
            n += iov[i].iov_len;
        }
        yamux_sent(y, n, now_ns);
    }
}

static void react(struct yamux *y, unsigned how)
{
    struct yamux_event ev;
    uint8_t buf[256];
    while (yamux_next(y, &ev)) {
        struct yamux_stream *st = ev.stream;
        if (st == NULL)
            continue;
        if (ev.what & YAMUX_RESET) {
            yamux_release(st, false);
            continue;
        }
        if ((ev.what & YAMUX_OPENED) && how == 3) {
            yamux_release(st, (st->id & 4) != 0);
            continue;
        }
        if ((ev.what & YAMUX_OPENED) && how != 2)
            (void)yamux_accept(st);
        if (how == 1)
            (void)yamux_splice(st, st);
        else if (how == 0)
            (void)yamux_write(st, buf, yamux_read(st, buf, sizeof buf));
        if (ev.what & YAMUX_EOF)
            yamux_release(st, how != 1);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t key[16];
    static const size_t pieces[4] = {1, 7, 300, 65536};
    if (size == 0)
        return 0;
    unsigned how = data[0];
    struct buf_budget budget = {.cap = 4u << 20};
    struct bufpool *pool = bufpool_new(&budget);
    struct yamux_cfg cfg = {.client = (how & 1) != 0, .max_streams = 20, .out_high = 100000};
    struct yamux *y = pool != NULL ? yamux_new(&cfg, pool, key) : NULL;
    struct reader reader = {.have = 0};
    struct yamux_stream *own = NULL;
    uint64_t now_ns = NS_PER_S;
    int rc = 0;
    check(y != NULL);
    if ((how & 64) && yamux_open(y, NULL, now_ns, &own) == 0)
        (void)yamux_write(own, "first", 5);
    for (size_t at = 1; at < size && rc == 0; now_ns += NS_PER_S / 8) {
        size_t n = pieces[how >> 1 & 3];
        n = n < size - at ? n : size - at;
        struct buf *b = buf_get(pool, n);
        check(b != NULL);
        memcpy(buf_room(b), data + at, n);
        struct slice in = buf_take(b, n);
        buf_put(b);
        rc = yamux_input(y, in, now_ns);
        slice_release(&in);
        at += n;
        react(y, how >> 3 & 3);
        if (how & 32)
            take(y, &reader, now_ns);
        yamux_compact(y);
        if (yamux_deadline(y) <= now_ns)
            yamux_tick(y, now_ns);
    }
    react(y, how >> 3 & 3);
    yamux_free(y);
    check(bufpool_in_use(pool) == 0 && budget.used == 0);
    bufpool_free(pool);
    return 0;
}
