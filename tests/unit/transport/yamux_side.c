#include "tests/unit/transport/yamux_side.h"

#include "base/cursor.h"
#include "base/loop.h"
#include "tests/unit/vectors.h"

static const uint8_t hash_key[16] = "0123456789abcde";

void ys_init(struct yamux_side *s, struct bufpool *pool, struct yamux_cfg cfg)
{
    *s = (struct yamux_side){.pool = pool, .now_ns = NS_PER_S};
    s->y = yamux_new(&cfg, pool, hash_key);
    assert_non_null(s->y);
}

void ys_close(struct yamux_side *s)
{
    yamux_free(s->y);
    free(s->out);
}

/* Take up to max bytes of output, as a socket would. */
size_t ys_take(struct yamux_side *s, size_t max)
{
    struct iovec iov[5];
    int n = yamux_output(s->y, iov, 5);
    size_t done = 0;
    for (int i = 0; i < n && done < max; i++) {
        size_t part = iov[i].iov_len < max - done ? iov[i].iov_len : max - done;
        if (s->out_cap - s->out_len < part) {
            s->out_cap = (s->out_len + part) * 2;
            s->out = realloc(s->out, s->out_cap);
            assert_non_null(s->out);
        }
        memcpy(s->out + s->out_len, iov[i].iov_base, part);
        s->out_len += part;
        done += part;
    }
    if (done > 0)
        yamux_sent(s->y, done, s->now_ns);
    return done;
}

void ys_take_all(struct yamux_side *s)
{
    while (ys_take(s, SIZE_MAX) > 0)
        ;
    assert_int_equal(yamux_pending(s->y), 0);
}

void ys_pump(struct yamux_side *s)
{
    struct yamux_event ev;
    s->what = 0;
    s->last = s->opened = NULL;
    while (yamux_next(s->y, &ev)) {
        s->what |= ev.what;
        if (ev.stream != NULL)
            s->last = ev.stream;
        if (ev.what & YAMUX_OPENED)
            s->opened = ev.stream;
    }
}

/* Feed n bytes in pieces of at most chunk, each in a buffer of its own as from a socket. */
int ys_feed(struct yamux_side *s, const void *p, size_t n, size_t chunk)
{
    const uint8_t *src = p;
    int rc = 0;
    while (n > 0 && rc == 0) {
        size_t part = n < chunk ? n : chunk;
        struct buf *b = buf_get(s->pool, part);
        assert_non_null(b);
        memcpy(buf_room(b), src, part);
        struct slice in = buf_take(b, part);
        buf_put(b);
        rc = yamux_input(s->y, in, s->now_ns);
        slice_release(&in);
        src += part;
        n -= part;
    }
    return rc;
}

/* A frame with a body of zeros. */
int ys_feed_frame(struct yamux_side *s, unsigned type, unsigned flags, uint32_t id, uint32_t len)
{
    size_t n = YAMUX_HEADER_BYTES + (type == YAMUX_T_DATA ? len : 0);
    uint8_t *f = calloc(1, n);
    assert_non_null(f);
    f[1] = (uint8_t)type;
    put_be16(f + 2, (uint16_t)flags);
    put_be32(f + 4, id);
    put_be32(f + 8, len);
    int rc = ys_feed(s, f, n, MAX_BODY);
    free(f);
    return rc;
}

/* Parse the next frame of what was taken; false at the end. */
bool ys_next_frame(const struct yamux_side *s, size_t *at, struct yamux_frame *f)
{
    if (*at == s->out_len)
        return false;
    const uint8_t *p = s->out + *at;
    assert_true(s->out_len - *at >= YAMUX_HEADER_BYTES);
    assert_int_equal(p[0], 0);
    *f = (struct yamux_frame){p[1], get_be16(p + 2), get_be32(p + 4), get_be32(p + 8),
                              p + YAMUX_HEADER_BYTES};
    *at += YAMUX_HEADER_BYTES;
    if (f->type == YAMUX_T_DATA) {
        assert_true(s->out_len - *at >= f->len);
        *at += f->len;
    }
    return true;
}

/* Takes all output; how many frames of this type have all of these flags. */
unsigned ys_sent_frames(struct yamux_side *s, unsigned type, unsigned flags)
{
    struct yamux_frame f;
    unsigned n = 0;
    ys_take_all(s);
    for (size_t at = 0; ys_next_frame(s, &at, &f);)
        n += f.type == type && (f.flags & flags) == flags;
    s->out_len = 0;
    return n;
}

struct yamux_stat ys_stat(const struct yamux_side *s)
{
    struct yamux_stat st;
    yamux_stat(s->y, &st);
    return st;
}

void ys_assert_idle(const struct yamux_side *s)
{
    struct yamux_stat st = ys_stat(s);
    assert_int_equal(st.streams, 0);
    assert_int_equal(st.held, 0);
    assert_int_equal(st.unaccepted, 0);
    assert_int_equal(st.unacked, 0);
    assert_int_equal(st.rx_bytes, 0);
    assert_int_equal(st.out_bytes, 0);
    assert_int_equal(yamux_deadline(s->y), LOOP_NEVER);
    assert_int_equal(yamux_error(s->y), 0);
}

int ys_setup(void **state)
{
    struct yamux_pool *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->pool = bufpool_new(&f->budget);
    assert_non_null(f->pool);
    *state = f;
    return 0;
}

int ys_teardown(void **state)
{
    struct yamux_pool *f = *state;
    assert_int_equal(bufpool_in_use(f->pool), 0);
    bufpool_free(f->pool);
    free(f);
    return 0;
}

struct bufpool *ys_pool(void **state)
{
    return ((struct yamux_pool *)*state)->pool;
}

struct yamux_stream *ys_open_accepted(struct yamux_side *s, uint32_t id)
{
    assert_int_equal(ys_feed_frame(s, YAMUX_T_WINDOW, YAMUX_F_SYN, id, 0), 0);
    ys_pump(s);
    assert_non_null(s->opened);
    assert_int_equal(yamux_accept(s->opened), 0);
    return s->opened;
}
