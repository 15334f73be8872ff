/*
 * db - the LMDB environment of a store: opened with suspicion, one schema, typed errors.
 *
 * Sub-databases
 *     slots         target | kind              -> id u64 (big-endian)
 *     records       id                         -> record (record.h)
 *     by_expiry, by_stored, by_seq, by_salt_seq   index keys of record.h -> nothing
 *     by_publisher  charged key 33             -> slots u64, bytes u64 (big-endian)
 *     changes       number u64 (big-endian)    -> target | kind | process u32; the last DB_CHANGES_MAX of a
 *                   shared store, in the same transaction as what they are about
 *     meta          owner's key 33 | name      -> sum u64 | value
 *                   33 zero bytes | "schema"   -> sum u64 | u32;   … | "totals" -> sum u64 | 8 u64;
 *                   … | "network" -> sum u64 | u64
 *
 * Opening: folder (dir.h), lock, page check (pages.h; skipped after an orderly end), schema. The
 * map is reserved once and never resized; LMDB's flags are those of docs/decisions/0003-store.md.
 * A read-only db takes no lock and may look at a store that another process writes.
 *
 * Threads: after db_open() LMDB's rules hold: one write transaction at a time, a read transaction
 * belongs to whoever began it (MDB_NOTLS). Never fork with an open db.
 *
 * Errors: ERR_UNSAFE, ERR_BUSY (another process; `why` names it), ERR_VERSION (another schema; `why` has both
 * numbers), ERR_CORRUPT, ERR_FORMAT (not a store of ours), ERR_NOT_FOUND (read-only, nothing there),
 * ERR_NO_SPACE, system errors; `why` gets one line.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <lmdb.h>

#include "store/dir.h"
#include "store/record.h"

/* 1 kept records under (target, kind), 2 keeps them under ids, 3 writes them shorter, 4 has another sum of a record.
 * No release wrote 1 to 3, so nothing converts them. */
#define DB_SCHEMA 4u

#define DB_CHANGES_MAX  65536u
#define DB_CHANGE_BYTES (RECORD_KEY_BYTES + 4)

struct db {
    MDB_env *env;
    MDB_dbi slots, records, index[IX__COUNT], publisher, meta, changes;
    struct dir dir;
    char *path;
    uint64_t map_size;
    bool read_only, shared;
    bool alone;       /* shared: nobody else had it when it was opened */
    uint32_t process; /* of this opening, in `changes` */
};

/* path is copied. *db is defined in any case, for db_close(). */
int db_open(struct db *db, const char *path, uint64_t map_size, bool read_only, char *why,
            size_t why_size) __attribute__((warn_unused_result));
/* The same, for several processes at once that all do so. */
int db_open_shared(struct db *db, const char *path, uint64_t map_size, char *why, size_t why_size)
    __attribute__((warn_unused_result));
/* All transactions have ended. An orderly end leaves a stamp, see dir.h. */
void db_close(struct db *db, bool orderly);

/* After LMDB gave up on its environment (MDB_PANIC): close it and open it anew, lock kept. */
int db_reopen(struct db *db) __attribute__((warn_unused_result));

/* Names of the index databases. */
extern const char *const db_index_names[IX__COUNT];

/* Pages on the free list, in a read transaction. */
uint64_t db_free_pages(MDB_txn *txn);

/* Does the file system or the process's file size limit leave no room? LMDB reports a write that was
 * cut short by either as EIO. */
bool db_disk_is_full(const struct db *db);

/* enum err of what LMDB returned. A full map is ERR_LIMIT here, so that it can be told from a full
 * disk; callers outside of the store get ERR_NO_SPACE for both. */
int db_err(int rc);

/* Check pages of the newest snapshot, for tools. ERR_CORRUPT with why. */
int db_check_pages(struct db *db, char *why, size_t why_size) __attribute__((warn_unused_result));

static inline MDB_val db_val(const void *p, size_t n)
{
    return (MDB_val){.mv_size = n, .mv_data = (void *)(uintptr_t)p};
}
