/*
 * iperf_flow - one direction of a measured stream: bytes that can be checked, in blocks.
 *
 * A test stream begins with a head of IPERF_HEAD bytes that the client writes:
 *
 *     "kiperf1\n" (8) | mode (1) | block (u24 BE) | seconds (u32 BE) | seed (u64 BE)
 *
 * mode IPERF_UP: the client sends, the server checks; IPERF_DOWN: the server sends for that many seconds; IPERF_ECHO: what comes goes back. Data are blocks: u32 BE length,
 * that many bytes of the pattern; length 0 ends them. Up: the server then writes a result, IPERF_RESULT bytes: bytes, wrong bytes, nanoseconds between its first and its
 * last byte (u64 BE each), and the client closes. Nothing depends on a half-close: relays of upstream have none.
 *
 * The pattern is a function of seed and position, so that a byte that is lost, moved or changed is found.
 *
 * Functions here read and write non-blocking descriptors and never wait. A source or sink is a value of known size; iperf_source_free() releases its block. One thread.
 *
 *     iperf_source_init(&src, seed, 65536);
 *     rc = iperf_source_step(&src, fd, now_ns);     // until src.done
 *     rc = iperf_sink_step(&sink, fd, now_ns);      // until sink.done
 *
 * Errors: -errno, ERR_EOF (it ended before its end), ERR_FORMAT (a block longer than IPERF_BLOCK_MAX), ERR_NOMEM.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define IPERF_HEAD      24
#define IPERF_RESULT    24
#define IPERF_BLOCK_MAX (1u << 20)
#define IPERF_TIME_MAX  3600 /* seconds */

enum iperf_mode { IPERF_UP = 1, IPERF_DOWN, IPERF_ECHO };

struct iperf_head {
    enum iperf_mode mode;
    uint32_t block, seconds;
    uint64_t seed;
};

void iperf_head_put(uint8_t out[IPERF_HEAD], const struct iperf_head *h);
/* ERR_FORMAT: another program, an unknown mode, a block of 0 or too long, more than IPERF_TIME_MAX. */
int iperf_head_get(struct iperf_head *out, const uint8_t in[IPERF_HEAD])
    __attribute__((warn_unused_result));

struct iperf_result {
    uint64_t bytes, wrong, ns;
};

void iperf_result_put(uint8_t out[IPERF_RESULT], const struct iperf_result *r);
void iperf_result_get(struct iperf_result *out, const uint8_t in[IPERF_RESULT]);

/* The pattern from a position on; the position advances. */
struct iperf_pattern {
    uint64_t seed, at;
};
void iperf_pattern_fill(struct iperf_pattern *p, uint8_t *out, size_t n);
/* How many of these bytes are wrong. */
size_t iperf_pattern_check(struct iperf_pattern *p, const uint8_t *in, size_t n);

struct iperf_source {
    struct iperf_pattern pattern;
    uint8_t *buf; /* a block with its length in front */
    size_t block, have, at;
    uint64_t bytes;  /* of the pattern, written */
    bool last, done; /* the end was made, was written */
};

int iperf_source_init(struct iperf_source *s, uint64_t seed, uint32_t block)
    __attribute__((warn_unused_result));
/* Write as much as there is room for. stop: the block under way is the last one. 0 (more room is waited for, or s->done), or an error. */
int iperf_source_step(struct iperf_source *s, int fd, bool stop)
    __attribute__((warn_unused_result));
void iperf_source_free(struct iperf_source *s);

struct iperf_sink {
    struct iperf_pattern pattern;
    uint8_t head[4];
    size_t head_n;
    uint32_t left; /* of the block under way */
    struct iperf_result result;
    uint64_t first_ns;
    bool done;
};

void iperf_sink_init(struct iperf_sink *s, uint64_t seed);
/* Read what is there, but no byte behind the end. 0 (no more for now, or s->done), or an error. */
int iperf_sink_step(struct iperf_sink *s, int fd, uint64_t now_ns)
    __attribute__((warn_unused_result));
