/*
 * reconcile - find the items in which two full nodes differ, with a transfer in proportion to the
 * difference (docs/protocol/dht-native.md, method RECONCILE).
 *
 * The side that asks walks down the other one's digests (digest.h):
 *
 *     asks     ranges: a prefix of 0 … 16 bits of the target; at first the one of 0 bits
 *     answer   for each range: the digests of its 16 parts, or, when it holds few items or cannot be
 *              divided further, the list of them
 *     then     parts that differ from its own are asked for in turn; a list is compared with its own
 *              one, which gives targets to get and targets to put
 *
 * The side that answers keeps nothing between two requests. 10 differences among 100 000 items cost
 * about 40 digests of 16 parts and 10 lists of some 24 entries.
 *
 * Sans-I/O: the caller sends requests and answers, gets and puts. Its own items come from a struct
 * recon_source. What a peer says is checked: lists are sorted, inside their range and behind where they
 * were to begin; what is false is ERR_PROTOCOL. A peer can make the walk visit every leaf, no more.
 *
 * Limits: RECON_RANGES ranges in a request, RECON_ENTRIES entries in an answer. Owner: recon_begin() to
 * recon_end(). One thread.
 *
 *     recon_begin(&r, own_digest, &source);
 *     while ((n = recon_next(&r, ranges, RECON_RANGES)) > 0) {
 *         … ask; the answers come …
 *         if (recon_take(&r, answers, n_answers) != 0) break;
 *         … get r.want[0 … n_want-1], put r.give[…]; recon_clear(&r);
 *     }
 *     recon_end(&r);
 */
#pragma once

#include "kademlia/digest.h"

#define RECON_RANGES    64
#define RECON_PARTS     16
#define RECON_ENTRIES   4096 /* of all lists of an answer */
#define RECON_LIST_MAX  32   /* a range of so many items is listed at once */
#define RECON_LIST_ITEM 512  /* entries of one list; the rest is asked for again */
#define RECON_STACK     (RECON_RANGES * RECON_PARTS * 5)

struct recon_range {
    uint8_t bits;
    uint16_t prefix;
    bool goes_on; /* a list that was cut: items behind `after` */
    struct kad_id after;
};

struct recon_answer {
    bool is_list;
    struct digest_part part[RECON_PARTS];
    struct digest_entry *entries; /* n of them in the order of targets; owned */
    size_t n;
    bool more; /* the list was cut */
};

/* Own items that others may have, one of each target: the one that readers prefer. */
struct recon_source {
    void *arg;
    /* At most max entries of the range behind its `after`, in the order of targets. *more: there are
     * others. 0 or an error. */
    int (*list)(void *arg, const struct recon_range *range, struct digest_entry *out, size_t max,
                size_t *n, bool *more);
};

struct recon {
    const struct digest *own;
    const struct recon_source *source;
    struct recon_range stack[RECON_STACK];
    size_t n_stack;
    struct recon_range asked[RECON_RANGES];
    size_t n_asked;
    struct kad_id *want, *give; /* found by the last recon_take() */
    size_t n_want, n_give, cap_want, cap_give;
    uint64_t ranges, entries; /* asked for, compared */
};

/* Targets below this prefix. */
bool recon_range_has(const struct recon_range *r, const struct kad_id *target);
/* Is the range one that may be asked for? */
bool recon_range_is_valid(const struct recon_range *r);

/* ---- the side that answers ---- */

/* Answers to the first *n_out of n ranges: as many as RECON_ENTRIES allow, at least one. out has room
 * for n; the caller clears each. Errors of the source, ERR_NOMEM, ERR_FORMAT (no such range). */
int recon_serve(struct recon_answer *out, size_t *n_out, const struct recon_range *ranges, size_t n,
                const struct digest *own, const struct recon_source *source)
    __attribute__((warn_unused_result));
void recon_answer_clear(struct recon_answer *a);

/* ---- the side that asks ---- */

void recon_begin(struct recon *r, const struct digest *own, const struct recon_source *source);
void recon_end(struct recon *r);
/* Ranges to ask for now, at most max <= RECON_RANGES; 0: done. */
size_t recon_next(struct recon *r, struct recon_range *out, size_t max);
/* Answers to the first n of them, n > 0; the others are asked for again. 0, ERR_PROTOCOL, ERR_NOMEM,
 * errors of the source. */
int recon_take(struct recon *r, const struct recon_answer *answers, size_t n)
    __attribute__((warn_unused_result));
/* Forget want and give. */
void recon_clear(struct recon *r);
