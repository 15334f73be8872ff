#include "store/db.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"
#include "store/pages.h"
#include "store/row.h"

#define DATA_NAME    "data.mdb"
#define MAX_DBS      16
#define MAX_READERS  126
#define READ_RETRIES 5
#define DISK_SLACK   (1u << 20)
#define FREE_DBI     0 /* the handle of LMDB's free list … */
#define MAIN_DBI     1 /* … and of its list of databases */

const char *const db_index_names[IX__COUNT] = {
    [IX_EXPIRY] = "by_expiry",
    [IX_STORED] = "by_stored",
    [IX_SEQ] = "by_seq",
    [IX_SALT_SEQ] = "by_salt_seq",
};

int db_err(int rc)
{
    switch (rc) {
    case 0:
        return 0;
    case MDB_NOTFOUND:
        return ERR_NOT_FOUND;
    case MDB_MAP_FULL:
    case MDB_TXN_FULL: /* too many pages for one transaction: smaller ones may pass */
        return ERR_LIMIT;
    case EFBIG: /* the file size limit of the process or the file system */
        return ERR_NO_SPACE;
    case MDB_VERSION_MISMATCH:
        return ERR_VERSION;
    case MDB_READERS_FULL:
        return ERR_BUSY;
    case MDB_PANIC:
        return ERR_STATE;
    default:
        return rc > 0 ? err_from_errno(rc) : ERR_CORRUPT;
    }
}

uint64_t db_free_pages(MDB_txn *txn)
{
    MDB_cursor *cursor;
    MDB_val k, v;
    uint64_t sum = 0;
    size_t count;

    if (mdb_cursor_open(txn, FREE_DBI, &cursor) != 0)
        return 0;
    while (mdb_cursor_get(cursor, &k, &v, MDB_NEXT) == 0 && v.mv_size >= sizeof count) {
        memcpy(&count, v.mv_data, sizeof count);
        sum += count;
    }
    mdb_cursor_close(cursor);
    return sum;
}

bool db_disk_is_full(const struct db *db)
{
    struct statvfs fs;
    struct rlimit limit;
    struct stat st;

    if (fstatvfs(db->dir.fd, &fs) == 0 && (uint64_t)fs.f_bavail * fs.f_frsize < DISK_SLACK)
        return true;
    return getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY &&
           fstatat(db->dir.fd, DATA_NAME, &st, 0) == 0 &&
           (uint64_t)st.st_size + DISK_SLACK >= limit.rlim_cur;
}

/* ---- environment ---- */

static void close_env(struct db *db)
{
    if (db->env != NULL)
        mdb_env_close(db->env);
    db->env = NULL;
}

static int open_env(struct db *db)
{
    int dead, rc = mdb_env_create(&db->env);

    if (rc != 0) {
        db->env = NULL;
        return db_err(rc);
    }
    if ((rc = mdb_env_set_maxdbs(db->env, MAX_DBS)) == 0 &&
        (rc = mdb_env_set_maxreaders(db->env, MAX_READERS)) == 0 &&
        (rc = mdb_env_set_mapsize(db->env, (size_t)db->map_size)) == 0 &&
        (rc = mdb_env_open(db->env, db->path,
                           MDB_NOTLS | MDB_NORDAHEAD | (db->read_only ? MDB_RDONLY : 0u), 0600)) ==
            0)
        rc = mdb_reader_check(db->env, &dead);
    if (rc != 0)
        close_env(db);
    return db_err(rc);
}

static int open_tables(struct db *db, MDB_txn *txn, unsigned flags)
{
    int rc;

    if ((rc = mdb_dbi_open(txn, "meta", flags, &db->meta)) != 0 ||
        (rc = mdb_dbi_open(txn, "slots", flags, &db->slots)) != 0 ||
        (rc = mdb_dbi_open(txn, "records", flags, &db->records)) != 0 ||
        (rc = mdb_dbi_open(txn, "by_publisher", flags, &db->publisher)) != 0)
        return rc;
    for (unsigned ix = 0; ix < IX__COUNT && rc == 0; ix++)
        rc = mdb_dbi_open(txn, db_index_names[ix], flags, &db->index[ix]);
    return rc;
}

/* A new store: all tables in one transaction, so that there is never half of one. */
static int create_tables(struct db *db)
{
    MDB_txn *txn;
    int rc = mdb_txn_begin(db->env, NULL, 0, &txn);

    if (rc != 0)
        return db_err(rc);
    rc = db_err(open_tables(db, txn, MDB_CREATE));
    if (rc == 0)
        rc = row_schema_put(db, txn, DB_SCHEMA);
    if (rc != 0) {
        mdb_txn_abort(txn);
        return rc;
    }
    return db_err(mdb_txn_commit(txn));
}

/* ---- what is in the file ---- */

struct opening {
    struct db *db;
    char damage[128];
    bool fresh; /* nothing in it yet */
    uint32_t schema;
};

/* Before LMDB touches the file: its meta pages hold the page size that it divides by. */
static int check_file(struct opening *o)
{
    struct db *db = o->db;
    struct stat st;
    struct pages *pages;
    int fd = openat(db->dir.fd, DATA_NAME, O_RDONLY | O_CLOEXEC);

    if (fd < 0 && errno != ENOENT)
        return err_sys();
    o->fresh = fd < 0 || (fstat(fd, &st) == 0 && st.st_size == 0);
    int rc = 0;
    if (!o->fresh) {
        rc = pages_open(&pages, fd, o->damage, sizeof o->damage);
        pages_close(pages);
    } else if (db->read_only) {
        rc = ERR_NOT_FOUND;
    }
    if (fd >= 0)
        close(fd);
    return rc;
}

/* The schema comes first: another one may contain what the page check does not know. */
static int check_schema(struct opening *o, MDB_txn *txn, struct pages *pages)
{
    int rc = pages_check_tree(pages, "meta");

    if (rc != 0)
        return rc;
    rc = db_err(mdb_dbi_open(txn, "meta", 0, &o->db->meta));
    if (rc == 0)
        rc = row_schema_get(o->db, txn, &o->schema);
    if (rc == 0 && o->schema != DB_SCHEMA)
        rc = ERR_VERSION;
    return rc == ERR_NOT_FOUND ? ERR_FORMAT : rc;
}

/* With the snapshot of txn held, so that another process cannot reuse its pages meanwhile. */
static int check_snapshot(struct opening *o, MDB_txn *txn, bool whole)
{
    struct db *db = o->db;
    struct pages *pages = NULL;
    MDB_stat main_stat;
    struct stat st;
    int fd = openat(db->dir.fd, DATA_NAME, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || fstat(fd, &st) != 0) {
        int rc = err_sys();
        if (fd >= 0)
            close(fd);
        return rc;
    }
    int rc = pages_open(&pages, fd, o->damage, sizeof o->damage);
    if (rc == 0)
        rc = pages_select(pages, mdb_txn_id(txn));
    if (rc == 0) {
        rc = check_schema(o, txn, pages);
        if (rc == ERR_NOT_FOUND || rc == ERR_FORMAT) {
            /* Begun and left before the first transaction, or somebody else's environment. */
            o->fresh = mdb_stat(txn, MAIN_DBI, &main_stat) == 0 && main_stat.ms_entries == 0;
            rc = o->fresh && !db->read_only ? 0 : ERR_FORMAT;
        } else if (rc == 0 && (whole || !dir_is_clean(&db->dir, &st, mdb_txn_id(txn)))) {
            rc = pages_check_all(pages);
        }
    }
    pages_close(pages);
    close(fd);
    return rc;
}

static int open_existing(struct opening *o)
{
    MDB_txn *txn;
    int rc = mdb_txn_begin(o->db->env, NULL, MDB_RDONLY, &txn);

    if (rc != 0)
        return db_err(rc);
    rc = check_snapshot(o, txn, false);
    if (rc == 0 && !o->fresh) {
        rc = db_err(open_tables(o->db, txn, 0));
        if (rc == ERR_NOT_FOUND)
            rc = ERR_FORMAT;
    }
    if (rc != 0) {
        mdb_txn_abort(txn);
        return rc;
    }
    return db_err(mdb_txn_commit(txn)); /* a commit keeps the handles, an abort does not */
}

int db_check_pages(struct db *db, char *why, size_t why_size)
{
    struct opening o = {.db = db};
    MDB_txn *txn;
    int rc = mdb_txn_begin(db->env, NULL, MDB_RDONLY, &txn);

    if (rc != 0)
        return db_err(rc);
    rc = check_snapshot(&o, txn, true);
    mdb_txn_abort(txn);
    snprintf(why, why_size, "%s", o.damage);
    return rc;
}

/* ---- open, close ---- */

static void explain(const struct opening *o, const char *path, int rc, pid_t pid, char *why,
                    size_t n)
{
    if (rc == ERR_BUSY && pid > 0)
        snprintf(why, n, "store %s: in use by process %ld", path, (long)pid);
    else if (rc == ERR_BUSY)
        snprintf(why, n, "store %s: in use by another process", path);
    else if (rc == ERR_UNSAFE)
        snprintf(why, n, "store %s: others may write to it or own it", path);
    else if (rc == ERR_VERSION && o->schema > DB_SCHEMA)
        snprintf(why, n, "store %s: schema %u is newer than this program's %u", path, o->schema,
                 DB_SCHEMA);
    else if (rc == ERR_VERSION && o->schema != 0)
        snprintf(why, n,
                 "store %s: schema %u is older than this program's %u; dump it with the program "
                 "that wrote it",
                 path, o->schema, DB_SCHEMA);
    else if (rc == ERR_FORMAT)
        snprintf(why, n, "store %s: %s does not hold a store", path, DATA_NAME);
    else if (rc == ERR_NOT_FOUND)
        snprintf(why, n, "store %s: there is none", path);
    else if (rc == ERR_CORRUPT && o->damage[0] != '\0')
        snprintf(why, n, "store %s: damaged: %s", path, o->damage);
    else
        snprintf(why, n, "store %s: %s", path, err_str(rc));
}

static int open_data(struct opening *o)
{
    struct db *db = o->db;
    int rc = check_file(o);
    bool empty = o->fresh;

    if (rc == 0)
        rc = open_env(db);
    if (rc == 0 && !empty)
        rc = open_existing(o);
    if (rc == 0 && !db->read_only)
        rc = dir_unmark(&db->dir);
    if (rc == 0 && o->fresh)
        rc = create_tables(db);
    return rc == ERR_LIMIT ? ERR_NO_SPACE : rc;
}

/* Of a store that is shared now, perhaps for the first time. */
static int open_changes(struct db *db)
{
    MDB_txn *txn;
    int rc = mdb_txn_begin(db->env, NULL, 0, &txn);

    if (rc != 0)
        return db_err(rc);
    rc = mdb_dbi_open(txn, "changes", MDB_CREATE, &db->changes);
    if (rc != 0) {
        mdb_txn_abort(txn);
        return db_err(rc);
    }
    return db_err(mdb_txn_commit(txn));
}

static int lock(struct db *db, bool *alone, pid_t *pid)
{
    *alone = true;
    if (db->read_only)
        return 0;
    return db->shared ? dir_lock_shared(&db->dir, alone, pid) : dir_lock(&db->dir, pid);
}

static int open_locked(struct opening *o, bool alone)
{
    struct db *db = o->db;
    int rc = open_data(o);

    /* A writer at work may change a meta page while it is looked at. */
    for (int i = 0; i < READ_RETRIES && rc == ERR_CORRUPT && (db->read_only || !alone); i++) {
        close_env(db);
        rc = open_data(o);
    }
    if (rc == 0 && db->shared)
        rc = open_changes(db);
    if (rc == 0 && db->shared && alone)
        rc = dir_share(&db->dir);
    return rc;
}

static int open_any(struct db *db, const char *path, char *why, size_t why_size)
{
    struct opening o = {.db = db};
    bool alone = true;
    pid_t pid = 0;

    db->path = strdup(path);
    int rc = dir_open(&db->dir, path, !db->read_only);
    if (rc == 0 && db->path == NULL)
        rc = ERR_NOMEM;
    if (rc == 0)
        rc = lock(db, &alone, &pid);
    db->alone = alone;
    if (rc == 0)
        rc = open_locked(&o, alone);
    if (rc != 0) {
        explain(&o, path, rc, pid, why, why_size);
        db_close(db, false);
    }
    return rc;
}

int db_open(struct db *db, const char *path, uint64_t map_size, bool read_only, char *why,
            size_t why_size)
{
    *db = (struct db){.map_size = map_size, .read_only = read_only};
    return open_any(db, path, why, why_size);
}

int db_open_shared(struct db *db, const char *path, uint64_t map_size, char *why, size_t why_size)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    *db = (struct db){.map_size = map_size, .shared = true};
    db->process = (uint32_t)getpid() << 8 ^ (uint32_t)now.tv_nsec;
    return open_any(db, path, why, why_size);
}

static void mark_clean(struct db *db)
{
    struct stat st;
    MDB_envinfo info;

    if (mdb_env_info(db->env, &info) == 0 && fstatat(db->dir.fd, DATA_NAME, &st, 0) == 0)
        dir_mark_clean(&db->dir, &st, info.me_last_txnid);
}

void db_close(struct db *db, bool orderly)
{
    if (db->env != NULL && orderly && !db->read_only && (!db->shared || dir_is_last(&db->dir)))
        mark_clean(db);
    close_env(db);
    dir_close(&db->dir);
    free(db->path);
    db->path = NULL;
}

int db_reopen(struct db *db)
{
    struct opening o = {.db = db};

    close_env(db);
    int rc = open_data(&o);
    return rc == 0 && db->shared ? open_changes(db) : rc;
}
