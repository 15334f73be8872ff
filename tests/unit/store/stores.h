/*
 * stores - what the tests of the LMDB store share: a folder of its own, open, records, comparison.
 *
 * Records are unsigned where signatures are no matter; record_of() makes one from a key number, a
 * salt, a seq and a value. Every test starts with stores_dir() and ends with stores_remove().
 */
#pragma once

#include "base/err.h"
#include "store/lmdb.h"
#include "tests/unit/vectors.h"

#define S(store) ((store)->ops)

/* A fresh folder below TMPDIR; the path lives until stores_remove(). */
const char *stores_dir(void);
void stores_remove(void);

/* Configuration of that folder: short commits, owner's key 02 01 01…. */
struct store_lmdb_cfg stores_cfg(void);

/* Open with it; the test fails when that fails. */
struct store *stores_open(void);

/* Unsigned record of a publisher: owner kind, public, replica, never expires. salt and v are C
 * strings that stay the caller's. */
struct store_rec record_of(unsigned key, const char *salt, uint64_t seq, const char *v);

/* All members of two records are equal (except ref). */
bool record_same(const struct store_rec *a, const struct store_rec *b);

/* Fails the test unless get() gives exactly this record / no record. */
void assert_stored(struct store *s, const struct store_rec *want);
void assert_absent(struct store *s, const struct store_rec *rec);

/* Bytes of a file below the folder, and how to change some. */
size_t stores_file_size(const char *name);
void stores_file_write(const char *name, size_t offset, const void *p, size_t n);
void stores_file_copy(const char *from, const char *to);
