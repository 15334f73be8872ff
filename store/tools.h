/*
 * tools - what `kadmsg store` does with a store: stat, dump, load, verify.
 *
 * Library functions over an open LMDB store (store_lmdb_open(), read-only except for load) and
 * stdio streams; they print data only. One thread, the store's owner; nothing is pending when they
 * start (call sync() on a store that was written to).
 *
 * Dump format: one JSON object a line and a record, in the order of targets, members always in the
 * same order, so that two dumps of the same contents are the same text:
 *
 *     {"target":"<64 hex>","kind":"owner|cert|mirror","k":"<66 hex>","seq":N,"sig":"<130 hex>",
 *      "v":"<base64>"|null,"salt":"<base64>","stored_ns":N,"expires_ns":N|null,
 *      "tier":"public|trusted|whitelisted","origin":"own|replica|cache","charged":"<66 hex>",
 *      "rank_time":N,"rank_seq":N}
 *
 *     Unknown members are skipped by load; salt, tier, origin, rank_* and times may be missing.
 *
 * Errors: those of the store; ERR_CORRUPT when something is damaged; system errors of the streams.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "kademlia/store_if.h"

/* One JSON object, or lines for people. */
int store_tool_stat(struct store *s, FILE *out, bool json) __attribute__((warn_unused_result));

struct store_dump_report {
    uint64_t records, damaged; /* damaged ones are left out: ERR_CORRUPT at the end */
};
int store_tool_dump(struct store *s, FILE *out, struct store_dump_report *report)
    __attribute__((warn_unused_result));

struct store_load_report {
    uint64_t lines, stored;
    uint64_t older;   /* the store has the same or a newer one: never lowered */
    uint64_t refused; /* not a record, or its signature or slot is wrong */
};
/* Read a dump. Each record's signature is checked, and that it belongs into its slot; the first
 * refused lines are named on errors. Goes on after a refused line (ERR_FORMAT at the end) and stops
 * at errors of the store. What was read is durable on return. */
int store_tool_load(struct store *s, FILE *in, FILE *errors, struct store_load_report *report)
    __attribute__((warn_unused_result));

struct store_verify_report {
    uint64_t records, damaged; /* damaged: number of findings, also beyond those that are printed */
};
/* Check pages, every record with its signature, every index entry against its record and the other
 * way round, counters, totals and meta values. One line a finding, the first STORE_VERIFY_LINES of
 * them. ERR_CORRUPT when there is any. */
#define STORE_VERIFY_LINES 100
int store_tool_verify(struct store *s, FILE *out, struct store_verify_report *report)
    __attribute__((warn_unused_result));

/* Does a record's signature verify, and does it belong where it stands (item.h kinds)? 0, ERR_SIG,
 * ERR_REFUSED (not its slot). Mirror keys are a matter of configuration and not looked at. */
int store_record_check(const struct store_rec *rec) __attribute__((warn_unused_result));
