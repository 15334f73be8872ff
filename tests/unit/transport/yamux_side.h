/*
 * yamux_side - one mux in a test: what it sent is kept as bytes, what came is fed in pieces, and what its
 * events said is noted. Each test has a pool of its own, which must be empty again at its end.
 *
 *     cmocka_unit_test_setup_teardown(test_x, ys_setup, ys_teardown)
 *
 *     struct yamux_side s;
 *     ys_init(&s, ys_pool(state), (struct yamux_cfg){0});
 *     struct yamux_stream *st = ys_open_accepted(&s, 1);
 *     …
 *     ys_close(&s);
 */
#pragma once

#include "transport/yamux.h"

#define MAX_BODY 65536

struct yamux_side {
    struct bufpool *pool;
    struct yamux *y;
    uint64_t now_ns;
    uint8_t *out; /* everything it sent and nobody has looked at */
    size_t out_len, out_cap;
    struct yamux_stream *last; /* of the latest event with a stream */
    unsigned what;             /* union of the events since the last ys_pump() */
    struct yamux_stream *opened;
};

struct yamux_frame {
    unsigned type, flags;
    uint32_t id, len;
    const uint8_t *body;
};

struct yamux_pool {
    struct buf_budget budget;
    struct bufpool *pool;
};

int ys_setup(void **state);
int ys_teardown(void **state);
struct bufpool *ys_pool(void **state);

void ys_init(struct yamux_side *s, struct bufpool *pool, struct yamux_cfg cfg);
void ys_close(struct yamux_side *s);
/* Take up to max bytes of output, as a socket would. */
size_t ys_take(struct yamux_side *s, size_t max);
void ys_take_all(struct yamux_side *s);
/* Note all events. */
void ys_pump(struct yamux_side *s);
/* Feed n bytes in pieces of at most chunk, each in a buffer of its own as from a socket. */
int ys_feed(struct yamux_side *s, const void *p, size_t n, size_t chunk);
/* A frame with a body of zeros. */
int ys_feed_frame(struct yamux_side *s, unsigned type, unsigned flags, uint32_t id, uint32_t len);
/* Parse the next frame of what was taken; false at the end. */
bool ys_next_frame(const struct yamux_side *s, size_t *at, struct yamux_frame *f);
/* Takes all output; how many frames of this type have all of these flags. */
unsigned ys_sent_frames(struct yamux_side *s, unsigned type, unsigned flags);
struct yamux_stat ys_stat(const struct yamux_side *s);
/* Nothing is held, waits, or has a time; no error. */
void ys_assert_idle(const struct yamux_side *s);
/* The peer opens a stream, and we accept it. */
struct yamux_stream *ys_open_accepted(struct yamux_side *s, uint32_t id);
