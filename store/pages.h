/*
 * pages - may LMDB be let loose on this data file?
 *
 * LMDB trusts its file: a flipped byte in a page makes it read, or later write, wherever the byte
 * points. This module walks the trees of one snapshot in the file with every offset checked, and
 * says whether they are trees: page headers, node bounds, key order, depth and counts, overflow
 * runs, no page used twice, and a free list that lists no page in use. What it accepts LMDB can
 * read and write without leaving the file; what a record means is the business of record.h.
 *
 * Layout: LMDB data format 1 in the machine's own byte order and word size, as LMDB 0.9 writes it,
 * without MDB_DUPSORT databases (we have none).
 *
 * The caller sees to it that the snapshot stays: it holds the store's lock, or a read transaction.
 * Reads the file through a private read-only mapping; costs one pass over all pages in use. Any
 * thread.
 *
 *     struct pages *p;
 *     rc = pages_open(&p, fd, why, sizeof why);
 *     if (rc == 0) rc = pages_check_tree(p, "meta"); // then look at its schema
 *     if (rc == 0) rc = pages_check_all(p);
 *     pages_close(p);
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct pages;

/* Map the file, check its two meta pages and choose the newest snapshot. why gets one line about
 * the damage then and later, and must live as long. ERR_CORRUPT (also for a file that is not
 * LMDB's), ERR_VERSION, ERR_NOMEM, system errors. */
int pages_open(struct pages **out, int fd, char *why, size_t why_size)
    __attribute__((warn_unused_result));
void pages_close(struct pages *p); /* NULL is allowed */

/* Choose the snapshot of a transaction; ERR_CORRUPT when neither meta page has it. */
int pages_select(struct pages *p, uint64_t txn_id) __attribute__((warn_unused_result));
uint64_t pages_txn_id(const struct pages *p); /* of the chosen snapshot */

/* Check the list of databases and, when name is one of them, that one. ERR_NOT_FOUND when it is
 * not there (an empty environment has none), ERR_CORRUPT. */
int pages_check_tree(struct pages *p, const char *name) __attribute__((warn_unused_result));

/* Check all databases and the free list. ERR_CORRUPT, ERR_NOMEM. */
int pages_check_all(struct pages *p) __attribute__((warn_unused_result));
