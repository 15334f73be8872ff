/*
 * splice - two sockets, each one's bytes written to the other.
 *
 * Each direction has its own back-pressure (what the receiver does not take waits here, at most SPLICE_PIECE bytes and what a filter adds, and nothing more is read meanwhile)
 * and its own end: EOF of one becomes shutdown(SHUT_WR) of the other behind the last byte. A receiver that takes no more (EPIPE) ends its direction only; a read error, or
 * a sender that hung up altogether, ends both.
 *
 * Clocks: idle_ns without a byte either way; half_ns the same after one direction has ended; stall_ns with bytes waiting that the receiver does not take. splices_tick()
 * looks after them, to be called some times a second.
 *
 * Owner: a struct splices is the set of all splices of one event base, a value of its owner. A splice owns its descriptors and the evbuffers it was given. done() is called
 * once, from the loop, and the splice is gone then; splices_close() ends what is left without. Memory is held only for bytes that wait. SIGPIPE must be ignored. One
 * thread.
 *
 *     rc = splices_init(&set, base);
 *     rc = splice_new(&set, &(struct splice_cfg){.fd = {a, b}, .done = on_done, .arg = x});
 */
#pragma once

#include <event2/buffer.h>
#include <event2/event.h>
#include <stddef.h>
#include <stdint.h>

#include "base/list.h"

#define SPLICE_PIECE (64u * 1024u)

struct splices {
    struct event_base *base;
    struct list all;
    size_t n;          /* gauge */
    size_t waiting;    /* gauge, of the last tick: bytes that wait */
    uint64_t bytes[2]; /* written to fd[1], to fd[0] */
    uint64_t ended_clean, ended_idle, ended_stall, ended_error;
    uint64_t idle_ns, half_ns, stall_ns; /* may be changed at any time */
    uint8_t *piece;
};

/* Clocks: 1 h, 5 min, 5 min. ERR_NOMEM. */
int splices_init(struct splices *set, struct event_base *base);
void splices_close(struct splices *set);
void splices_tick(struct splices *set, uint64_t now_ns);

/* 0, or why it ended: ERR_TIMEOUT, -errno, what the filter said. */
typedef void splice_done_fn(void *arg, int err);
/* Bytes from fd[0]: append to out what fd[1] shall get. 0, or an error, which ends the splice. */
typedef int splice_filter_fn(void *arg, const uint8_t *p, size_t n, struct evbuffer *out);

struct splice_cfg {
    int fd[2];
    struct evbuffer *first[2]; /* to be written first to fd[1], to fd[0]; or NULL */
    splice_filter_fn *filter;  /* or NULL */
    splice_done_fn *done;      /* or NULL */
    void *arg;                 /* of both */
};

/* Takes descriptors and buffers over, also when it fails: ERR_NOMEM, -errno. */
int splice_new(struct splices *set, const struct splice_cfg *cfg)
    __attribute__((warn_unused_result));
