/* The LMDB store when the disk, the file or the process fails. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "store/row.h"
#include "tests/unit/prop.h"
#include "tests/unit/store/faulty_disk.h"
#include "tests/unit/store/stores.h"

static const char *dir;
static struct store *s;

static int setup(void **state)
{
    (void)state;
    disk_set(DISK_GOOD);
    dir = stores_dir();
    s = NULL;
    return 0;
}

static int teardown(void **state)
{
    struct rlimit limit;

    (void)state;
    disk_set(DISK_GOOD);
    /* A test that failed may have left it. */
    if (getrlimit(RLIMIT_FSIZE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_FSIZE, &limit);
    }
    if (s != NULL)
        S(s)->close(s);
    stores_remove();
    return 0;
}

static int open_with(const struct store_lmdb_cfg *cfg, char why[STORE_WHY_BYTES])
{
    why[0] = '\0';
    int rc = store_lmdb_open(&s, cfg, why, STORE_WHY_BYTES);

    /* One line that names the folder, or nothing. */
    if (rc != 0) {
        assert_non_null(strstr(why, dir));
        assert_null(strchr(why, '\n'));
    }
    return rc;
}

static void open_cfg(const struct store_lmdb_cfg *cfg)
{
    char why[STORE_WHY_BYTES];

    if (open_with(cfg, why) != 0)
        fail_msg("%s", why);
}

static void close_store(void)
{
    S(s)->close(s);
    s = NULL;
}

static struct store_stat stat_of(void)
{
    struct store_stat st;

    S(s)->stat(s, &st);
    return st;
}

static void sleep_ms(unsigned ms)
{
    usleep(ms * 1000);
}

/* Wait, up to a minute, for the writer to report something. */
#define WAIT_FOR(condition)                                                                        \
    do {                                                                                           \
        unsigned turns_ = 0;                                                                       \
        while (!(condition)) {                                                                     \
            assert_true(turns_++ < 60000);                                                         \
            sleep_ms(1);                                                                           \
        }                                                                                          \
    } while (0)

/* Record i of a sequence, with a value that only it has. */
static struct store_rec numbered(unsigned i, uint64_t seq)
{
    static char v[4][600];
    static unsigned turn;
    char *text = v[turn++ % 4];

    memset(text, 'a' + (int)(i % 26), 599);
    snprintf(text, 40, "%u %llu ", i, (unsigned long long)seq);
    text[strlen(text)] = '-';
    text[i % 500 + 50] = '\0';
    return record_of(i, i % 2 == 0 ? "dmsg" : "tp", seq, text);
}

struct visit {
    size_t n;
    uint64_t last_seq;
};

static bool count_record(void *arg, const struct store_rec *rec)
{
    struct visit *v = arg;

    v->n++;
    v->last_seq = rec->item.seq;
    return true;
}

/* All ways through the store agree on the number of records. */
static void assert_consistent(void)
{
    struct visit scan = {0}, list = {0}, salted = {0};
    struct store_page page = {.limit = 1000};
    bool more = true;

    assert_int_equal(S(s)->scan(s, NULL, count_record, &scan), 0);
    for (; more; page.since_seq = list.last_seq)
        assert_int_equal(S(s)->list(s, &page, count_record, &list, &more), 0);
    static const char *const salts[] = {"dmsg", "tp"};
    for (size_t i = 0; i < 2; i++) {
        page = (struct store_page){
            .salt = (const uint8_t *)salts[i], .salt_len = strlen(salts[i]), .limit = 1000000};
        assert_int_equal(S(s)->list(s, &page, count_record, &salted, &more), 0);
        assert_false(more);
    }
    assert_int_equal(scan.n, stat_of().items);
    assert_int_equal(list.n, stat_of().items);
    assert_int_equal(salted.n, stat_of().items);
    assert_int_equal(stat_of().corrupt, 0);
}

/* ---- kill -9 ---- */

struct report {       /* what the child says through the pipe */
    unsigned number;  /* record that put() has accepted */
    unsigned durable; /* records below this one were covered by a sync() */
    int64_t at_ns;
};

static int64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* The child: put records from `first` on and report each; sync after every sync_every of them. */
static void put_and_report(int fd, unsigned first, unsigned count, unsigned sync_every)
{
    struct report r = {.durable = first};
    struct store_lmdb_cfg cfg = stores_cfg();
    char why[STORE_WHY_BYTES];
    struct store *mine;

    if (store_lmdb_open(&mine, &cfg, why, sizeof why) != 0)
        _exit(9);
    for (r.number = first; r.number < first + count; r.number++) {
        struct store_rec rec = numbered(r.number, r.number + 1);
        if (S(mine)->put(mine, &rec) != 0)
            _exit(8);
        if (sync_every > 0 && r.number % sync_every == sync_every - 1) {
            if (S(mine)->sync(mine, 60000) != 0)
                _exit(7);
            r.durable = r.number + 1;
        }
        r.at_ns = now_ns();
        if (write(fd, &r, sizeof r) != sizeof r)
            _exit(6);
    }
    pause();
}

/* Read what is there of the child's reports; the last of each kind. */
static void drain(int fd, struct report *last, unsigned *old, int64_t older_than_ns)
{
    struct report r;

    while (read(fd, &r, sizeof r) == sizeof r) {
        *last = r;
        if (r.at_ns < older_than_ns)
            *old = r.number + 1;
    }
}

/* After the kill: records 0 … m-1 are there, whole, and no other; m >= must. Returns m. */
static unsigned assert_prefix(unsigned must)
{
    s = stores_open();
    unsigned m = (unsigned)stat_of().items;
    assert_true(m >= must);
    for (unsigned i = 0; i < m; i++) {
        struct store_rec rec = numbered(i, i + 1);
        assert_stored(s, &rec);
    }
    assert_consistent();
    close_store();
    return m;
}

static pid_t start_child(int fds[2], unsigned first, unsigned count, unsigned sync_every)
{
    assert_int_equal(pipe(fds), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        close(fds[0]);
        put_and_report(fds[1], first, count, sync_every);
        _exit(0);
    }
    close(fds[1]);
    return pid;
}

static void reap_child(pid_t pid)
{
    int status;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void test_kill(void **state)
{
    struct prop r = prop_init("kill -9");
    unsigned there = 0;

    (void)state;
    for (unsigned round = 0; round < 12; round++) {
        int fds[2];
        struct report last = {.durable = there, .number = there};
        unsigned old = 0;
        pid_t pid = start_child(fds, there, 100000, round % 2 == 0 ? 0 : 50);
        sleep_ms(20 + (unsigned)prop_below(&r, 120));
        kill(pid, SIGKILL);
        const int64_t killed_ns = now_ns();
        reap_child(pid);
        /* A commit is due 5 ms after a put; a second leaves room for a slow machine. */
        drain(fds[0], &last, &old, killed_ns - 1000000000);
        close(fds[0]);
        there = assert_prefix(last.durable > old ? last.durable : old);
    }
    assert_true(there > 0);
}

/* Put, no sync, a pause longer than the interval, kill: all of it is there. */
static void test_kill_after_interval(void **state)
{
    int fds[2];
    struct report last = {0};
    unsigned old = 0;

    (void)state;
    pid_t pid = start_child(fds, 0, 300, 0);
    while (last.number < 299)
        assert_int_equal(read(fds[0], &last, sizeof last), (ssize_t)sizeof last);
    sleep_ms(1500);
    kill(pid, SIGKILL);
    reap_child(pid);
    drain(fds[0], &last, &old, INT64_MAX);
    close(fds[0]);
    assert_int_equal(assert_prefix(300), 300);
}

/* Killed at each write and sync of the first commits in turn, also in the middle of a write. */
static void test_kill_at_every_step(void **state)
{
    unsigned there = 0, survived = 0;

    (void)state;
    for (int step = 1; step <= 60; step++) {
        int fds[2];
        struct report last = {.durable = there};
        unsigned old = 0;

        disk_kill_at(step / 2 + 1, step % 2 == 0);
        pid_t pid = start_child(fds, there, 20, 1);
        disk_kill_at(0, false);
        /* More steps than twenty commits have: then it waits to be killed. */
        struct report r;
        while (read(fds[0], &r, sizeof r) == sizeof r) {
            last = r;
            if (r.number == there + 19) {
                survived++;
                kill(pid, SIGKILL);
            }
        }
        reap_child(pid);
        drain(fds[0], &last, &old, 0);
        close(fds[0]);
        there = assert_prefix(last.durable);
    }
    assert_true(there > 100);
    assert_true(survived < 30);
}

/* ---- damaged files ---- */

enum { DAMAGE_RECORDS = 400 };

static void make_store(void)
{
    s = stores_open();
    for (unsigned i = 0; i < DAMAGE_RECORDS; i++) {
        struct store_rec rec = numbered(i, i + 1);
        assert_int_equal(S(s)->put(s, &rec), 0);
        if (i % 100 == 99)
            assert_int_equal(S(s)->sync(s, 60000), 0);
    }
    static uint8_t v[20000]; /* overflow pages */
    struct store_rec big = record_of(9999, "dmsg", 9999, NULL);
    big.item.v = v;
    big.item.v_len = sizeof v;
    assert_int_equal(S(s)->put(s, &big), 0);
    for (unsigned i = 0; i < DAMAGE_RECORDS; i += 7) { /* something for the free list */
        struct store_rec rec = numbered(i, i + 1);
        assert_int_equal(S(s)->del(s, &rec.target, rec.kind), 0);
    }
    close_store();
}

/* Whatever is read is what was written: a damaged record is an error, never another record. */
static void use_store(struct prop *r)
{
    struct visit v = {0};
    struct store_page page = {.limit = 1000000};
    struct store_rec victim;
    bool more;

    for (unsigned i = 0; i < DAMAGE_RECORDS; i++) {
        struct store_rec want = numbered(i, i + 1), have;
        int rc = S(s)->get(s, &want.target, want.kind, &have);
        assert_true(rc == 0 || rc == ERR_NOT_FOUND || rc == ERR_CORRUPT);
        if (rc == 0)
            assert_true(record_same(&have, &want));
    }
    S(s)->scan(s, NULL, count_record, &v);
    S(s)->list(s, &page, count_record, &v, &more);
    S(s)->victim(s, &victim);
    for (unsigned i = 0; i < 60; i++) {
        struct store_rec rec = numbered((unsigned)prop_below(r, 2 * DAMAGE_RECORDS), 5000);
        if (i % 2 == 0)
            S(s)->put(s, &rec);
        else
            S(s)->del(s, &rec.target, rec.kind);
    }
    S(s)->expire(s, 5, 100);
    S(s)->sync(s, 60000);
}

static void damage(struct prop *r, size_t size)
{
    static const uint8_t zeros[4096];
    uint8_t bytes[64];

    switch (prop_below(r, 4)) {
    case 0: /* a page of zeros */
        stores_file_write("data.mdb", prop_below(r, size / 4096) * 4096, zeros, sizeof zeros);
        break;
    case 1: /* some random bytes */
        prop_bytes(r, bytes, sizeof bytes);
        stores_file_write("data.mdb", prop_below(r, size - sizeof bytes), bytes, sizeof bytes);
        break;
    case 2: /* a byte near the head of a page, where its structure is */
        prop_bytes(r, bytes, 1);
        stores_file_write("data.mdb", prop_below(r, size / 4096) * 4096 + prop_below(r, 64), bytes,
                          1);
        break;
    default: /* a few bytes anywhere */
        for (size_t i = 1 + prop_below(r, 4); i > 0; i--) {
            prop_bytes(r, bytes, 1);
            stores_file_write("data.mdb", prop_below(r, size), bytes, 1);
        }
    }
}

static void test_damage(void **state)
{
    struct prop r = prop_init("damaged data file");
    struct store_lmdb_cfg cfg = stores_cfg();
    char why[STORE_WHY_BYTES];
    unsigned refused = 0, opened = 0;

    (void)state;
    make_store();
    stores_file_copy("data.mdb", "good");
    const size_t size = stores_file_size("good");
    for (unsigned round = 0; round < 300; round++) {
        stores_file_copy("good", "data.mdb");
        damage(&r, size);
        int rc = open_with(&cfg, why);
        assert_true(rc == 0 || rc == ERR_CORRUPT || rc == ERR_VERSION || rc == ERR_FORMAT);
        refused += rc != 0;
        opened += rc == 0;
        if (rc == 0) {
            use_store(&r);
            close_store();
        }
    }
    print_message("refused %u, opened %u\n", refused, opened);
    assert_true(refused > 50);
    assert_true(opened > 20);
    stores_file_copy("good", "data.mdb");
    s = stores_open();
    assert_int_equal(stat_of().items, DAMAGE_RECORDS + 1 - (DAMAGE_RECORDS + 6) / 7);
    assert_consistent();
}

/* A flipped byte of a value: that record gives ERR_CORRUPT, is counted, and can be replaced. */
static void test_damaged_value(void **state)
{
    char file[4200], *bytes, *at;
    struct store_rec rec = record_of(1, "a", 1, "find this text and change it"), out;

    (void)state;
    s = stores_open();
    assert_int_equal(S(s)->put(s, &rec), 0);
    close_store();
    snprintf(file, sizeof file, "%s/data.mdb", dir);
    const size_t size = stores_file_size("data.mdb");
    bytes = malloc(size);
    int fd = open(file, O_RDONLY);
    assert_int_equal(read(fd, bytes, size), (ssize_t)size);
    close(fd);
    for (at = bytes; (at = memmem(at, size - (size_t)(at - bytes), "find this", 9)) != NULL; at++)
        stores_file_write("data.mdb", (size_t)(at - bytes), "F", 1);
    free(bytes);
    s = stores_open();
    assert_int_equal(S(s)->get(s, &rec.target, rec.kind, &out), ERR_CORRUPT);
    assert_int_equal(stat_of().corrupt, 1);
    rec = record_of(1, "a", 1, "again");
    assert_int_equal(S(s)->put(s, &rec), 0);
    assert_int_equal(S(s)->sync(s, 60000), 0);
    assert_stored(s, &rec);
    assert_int_equal(S(s)->del(s, &rec.target, rec.kind), 0);
    close_store();
    s = stores_open();
    assert_absent(s, &rec);
}

static void test_truncated(void **state)
{
    struct store_lmdb_cfg cfg = stores_cfg();
    char why[STORE_WHY_BYTES], file[4200];

    (void)state;
    make_store();
    stores_file_copy("data.mdb", "good");
    snprintf(file, sizeof file, "%s/data.mdb", dir);
    static const size_t lengths[] = {1, 100, 4095, 4096, 8191, 8192, 12288, 20000};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        stores_file_copy("good", "data.mdb");
        assert_int_equal(truncate(file, (off_t)lengths[i]), 0);
        assert_int_equal(open_with(&cfg, why), ERR_CORRUPT);
        assert_int_equal(stores_file_size("data.mdb"), lengths[i]); /* left as it is */
    }
}

/* An orderly end saves the page check at the next start; any change of the file brings it back. */
static void test_stamp(void **state)
{
    struct store_lmdb_cfg cfg = stores_cfg();
    char why[STORE_WHY_BYTES], file[4200];

    (void)state;
    make_store();
    snprintf(file, sizeof file, "%s/clean", dir);
    assert_int_equal(access(file, F_OK), 0);
    s = stores_open();
    assert_int_equal(access(file, F_OK), -1);
    close_store();
    assert_int_equal(access(file, F_OK), 0);
    static const uint8_t zeros[4096];
    for (size_t page = 2; page < stores_file_size("data.mdb") / 4096; page++)
        stores_file_write("data.mdb", page * 4096, zeros, sizeof zeros);
    assert_int_equal(open_with(&cfg, why), ERR_CORRUPT);
}

/* Refused with both numbers and untouched, newer or older. */
static void check_other_schema(uint32_t schema, const char *is, const char *tail)
{
    struct store_lmdb_cfg cfg = stores_cfg();
    char why[STORE_WHY_BYTES], want[STORE_WHY_BYTES];
    struct db db;
    MDB_txn *txn;

    make_store();
    assert_int_equal(db_open(&db, dir, 1 << 30, false, why, sizeof why), 0);
    assert_int_equal(mdb_txn_begin(db.env, NULL, 0, &txn), 0);
    assert_int_equal(row_schema_put(&db, txn, schema), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
    db_close(&db, true);
    stores_file_copy("data.mdb", "before");
    const size_t size = stores_file_size("data.mdb");
    assert_int_equal(open_with(&cfg, why), ERR_VERSION);
    snprintf(want, sizeof want, "store %s: schema %u is %s than this program's %u%s", dir, schema,
             is, DB_SCHEMA, tail);
    assert_string_equal(why, want);
    cfg.read_only = true;
    assert_int_equal(open_with(&cfg, why), ERR_VERSION);
    assert_int_equal(stores_file_size("data.mdb"), size);
}

static void test_newer_schema(void **state)
{
    (void)state;
    check_other_schema(DB_SCHEMA + 1, "newer", "");
}

static void test_older_schema(void **state)
{
    (void)state;
    check_other_schema(1, "older", "; dump it with the program that wrote it");
}

/* An LMDB file of somebody else's. */
static void test_foreign_file(void **state)
{
    struct store_lmdb_cfg cfg = stores_cfg();
    char why[STORE_WHY_BYTES];
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi;

    (void)state;
    assert_int_equal(mdb_env_create(&env), 0);
    assert_int_equal(mdb_env_set_maxdbs(env, 2), 0);
    assert_int_equal(mdb_env_open(env, dir, 0, 0600), 0);
    assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
    assert_int_equal(mdb_dbi_open(txn, "theirs", MDB_CREATE, &dbi), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
    assert_int_equal(open_with(&cfg, why), ERR_FORMAT);
    stores_file_write("data.mdb", 0, "SQLite format 3", 16);
    assert_int_equal(open_with(&cfg, why), ERR_CORRUPT);
}

/* ---- space ---- */

static void evict(void)
{
    struct store_rec victim;

    assert_int_equal(S(s)->victim(s, &victim), 0);
    const struct kad_id target = victim.target;
    assert_int_equal(S(s)->del(s, &target, victim.kind), 0);
}

/* All is durable, if need be after some more evictions: how much fits depends on how the writes
 * fell into transactions. */
static void settle(void)
{
    int rc;

    for (unsigned turns = 0; (rc = S(s)->sync(s, 60000)) != 0; turns++) {
        assert_int_equal(rc, ERR_NO_SPACE);
        assert_true(turns < 100);
        for (unsigned i = 0; i < 20; i++)
            evict();
    }
}

/* Incident 72: at 4 MiB puts are refused, old records are evicted, service lives. */
static void test_map_full(void **state)
{
    struct store_lmdb_cfg cfg = stores_cfg();
    struct store_rec rec;
    unsigned i, evictions = 0;
    int rc = 0;

    (void)state;
    cfg.map_size = 4 << 20;
    open_cfg(&cfg);
    for (i = 0; i < 20000; i++) {
        rec = numbered(i, i + 1);
        if ((rc = S(s)->put(s, &rec)) != 0)
            break;
    }
    assert_int_equal(rc, ERR_NO_SPACE);
    assert_true(i > 500);
    assert_absent(s, &rec);
    assert_int_equal(stat_of().refused_space, 1);
    settle();
    for (unsigned n = 0; n < 3000; n++) {
        rec = numbered(i + n, i + n + 1);
        while ((rc = S(s)->put(s, &rec)) == ERR_NO_SPACE) {
            evict();
            evictions++;
        }
        assert_int_equal(rc, 0);
        if (n % 100 == 0)
            settle();
    }
    settle();
    print_message("%u items at first, %u evictions for 3000 puts, %llu at the end\n", i, evictions,
                  (unsigned long long)stat_of().items);
    assert_true(evictions < 9000);
    assert_stored(s, &rec);
    assert_consistent();
    close_store();
    open_cfg(&cfg);
    assert_stored(s, &rec);
    assert_consistent();
    assert_true(stores_file_size("data.mdb") <= 4 << 20);
}

/* The disk fills up while writes are pending, and has room again later. */
static void test_disk_full(void **state)
{
    struct store_rec old = numbered(1, 1), pending = numbered(2, 2), refused = numbered(3, 3);
    struct store_rec victim;
    struct store_lmdb_cfg cfg = stores_cfg();

    (void)state;
    open_cfg(&cfg);
    assert_int_equal(S(s)->put(s, &old), 0);
    assert_int_equal(S(s)->sync(s, 60000), 0);
    disk_set(DISK_FULL);
    assert_int_equal(S(s)->put(s, &pending), 0);
    assert_int_equal(S(s)->sync(s, 60000), ERR_NO_SPACE);
    assert_int_equal(stat_of().last_error, ERR_NO_SPACE);
    assert_int_equal(stat_of().pending, 1);
    assert_int_equal(S(s)->put(s, &refused), ERR_NO_SPACE);
    assert_int_equal(S(s)->meta_put(s, "seq", "1", 1), ERR_NO_SPACE);
    assert_int_equal(stat_of().refused_space, 1); /* of puts */
    /* Old data and what was accepted are there; deletions are taken, but make no room. */
    assert_stored(s, &old);
    assert_stored(s, &pending);
    assert_absent(s, &refused);
    assert_int_equal(S(s)->victim(s, &victim), ERR_NOT_FOUND);
    assert_int_equal(S(s)->del(s, &old.target, old.kind), 0);
    assert_absent(s, &old);
    assert_int_equal(S(s)->put(s, &refused), ERR_NO_SPACE);
    disk_set(DISK_GOOD);
    WAIT_FOR(stat_of().last_error == 0 && stat_of().pending == 0);
    assert_int_equal(S(s)->victim(s, &victim), 0);
    old = numbered(4, 4);
    assert_int_equal(S(s)->put(s, &old), 0);
    assert_int_equal(S(s)->sync(s, 60000), 0);
    close_store();
    open_cfg(&cfg);
    assert_int_equal(stat_of().items, 2);
    pending = numbered(2, 2);
    assert_stored(s, &pending);
    assert_consistent();
}

/* Closed while the disk is full: what was durable stays, the process ends. */
static void test_close_on_full_disk(void **state)
{
    struct store_rec old = numbered(1, 1), lost = numbered(2, 2);

    (void)state;
    s = stores_open();
    assert_int_equal(S(s)->put(s, &old), 0);
    assert_int_equal(S(s)->sync(s, 60000), 0);
    disk_set(DISK_FULL);
    assert_int_equal(S(s)->put(s, &lost), 0);
    close_store();
    disk_set(DISK_GOOD);
    s = stores_open();
    assert_stored(s, &old);
    assert_absent(s, &lost);
}

static void test_full_disk_at_start(void **state)
{
    struct store_lmdb_cfg cfg = stores_cfg();
    char why[STORE_WHY_BYTES];

    (void)state;
    disk_set(DISK_FULL);
    assert_int_equal(open_with(&cfg, why), ERR_NO_SPACE);
    disk_set(DISK_GOOD);
    assert_int_equal(open_with(&cfg, why), 0);
    assert_int_equal(stat_of().items, 0);
}

/* The file size limit of the process is a full disk too, not a signal. */
static void test_file_size_limit(void **state)
{
    struct rlimit before, limit;
    struct store_rec rec;
    unsigned i;
    int rc = 0;

    (void)state;
    s = stores_open();
    rec = numbered(0, 1);
    assert_int_equal(S(s)->put(s, &rec), 0);
    assert_int_equal(S(s)->sync(s, 60000), 0);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    limit = before;
    limit.rlim_cur = stores_file_size("data.mdb") + 65536;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    for (i = 1; rc == 0; i++) {
        rec = numbered(i, i + 1);
        rc = S(s)->put(s, &rec);
        if (rc == 0 && i % 10 == 0)
            rc = S(s)->sync(s, 60000);
    }
    assert_int_equal(rc, ERR_NO_SPACE);
    rec = numbered(0, 1);
    assert_stored(s, &rec);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    WAIT_FOR(stat_of().last_error == 0 && stat_of().pending == 0);
    assert_consistent();
}

/* ---- other failures of the disk ---- */

static void test_failing_disk(enum disk_fault fault)
{
    struct store_rec old = numbered(1, 1), pending = numbered(2, 2), refused = numbered(3, 3);

    s = stores_open();
    assert_int_equal(S(s)->put(s, &old), 0);
    assert_int_equal(S(s)->sync(s, 60000), 0);
    disk_set(fault);
    assert_int_equal(S(s)->put(s, &pending), 0);
    assert_true(S(s)->sync(s, 60000) < 0);
    assert_true(stat_of().last_error < 0);
    assert_true(S(s)->put(s, &refused) < 0);
    assert_int_equal(stat_of().pending, 1);
    disk_set(DISK_GOOD);
    /* Calls drive the reopening when LMDB has given up; each of them is an error until then. */
    struct store_rec out;
    WAIT_FOR(S(s)->get(s, &old.target, old.kind, &out) == 0 && stat_of().pending == 0);
    assert_stored(s, &old);
    assert_stored(s, &pending);
    assert_int_equal(S(s)->put(s, &refused), 0);
    close_store();
    s = stores_open();
    assert_int_equal(stat_of().items, 3);
    assert_stored(s, &pending);
    assert_consistent();
}

static void test_sync_fails(void **state)
{
    (void)state;
    test_failing_disk(DISK_SYNC);
}

static void test_meta_page_fails(void **state)
{
    (void)state;
    test_failing_disk(DISK_META);
}

/* The kernel does not come back from fdatasync: reads go on, puts are refused after stuck_ms. */
static void test_stuck(void **state)
{
    struct store_lmdb_cfg cfg = stores_cfg();
    struct store_rec first = numbered(1, 1), rec;
    int rc;

    (void)state;
    cfg.stuck_ms = 100;
    open_cfg(&cfg);
    disk_set(DISK_STUCK);
    assert_int_equal(S(s)->put(s, &first), 0);
    assert_int_equal(S(s)->sync(s, 30), ERR_TIMEOUT);
    for (unsigned i = 2;; i++) {
        rec = numbered(i, i);
        if ((rc = S(s)->put(s, &rec)) != 0)
            break;
        assert_true(i < 100000);
        sleep_ms(1);
    }
    assert_int_equal(rc, ERR_BUSY);
    assert_absent(s, &rec);
    first = numbered(1, 1);
    assert_stored(s, &first);
    assert_int_equal(stat_of().last_error, 0);
    assert_true(stat_of().oldest_pending_ns > 100000000);
    disk_set(DISK_GOOD);
    assert_int_equal(S(s)->sync(s, 60000), 0);
    rec = numbered(7000, 7000);
    assert_int_equal(S(s)->put(s, &rec), 0);
    assert_consistent();
}

static void test_overlay_full(void **state)
{
    struct store_lmdb_cfg cfg = stores_cfg();
    struct store_rec rec;
    unsigned i;
    int rc = 0;

    (void)state;
    cfg.overlay_bytes = 100000;
    open_cfg(&cfg);
    disk_set(DISK_STUCK);
    for (i = 0; rc == 0 && i < 1000; i++) {
        rec = numbered(i, i + 1);
        rc = S(s)->put(s, &rec);
    }
    assert_int_equal(rc, ERR_BUSY);
    assert_true(i > 30);
    /* The same few keys again and again do not fill it. */
    disk_set(DISK_GOOD);
    assert_int_equal(S(s)->sync(s, 60000), 0);
    disk_set(DISK_STUCK);
    for (i = 0; i < 1000; i++) {
        rec = numbered(i % 5, 10000 + i);
        assert_int_equal(S(s)->put(s, &rec), 0);
    }
    disk_set(DISK_GOOD);
    assert_int_equal(S(s)->sync(s, 60000), 0);
    assert_stored(s, &rec);
}

/* ---- incident 72: dead readers ---- */

static void test_dead_readers(void **state)
{
    struct store_rec rec;
    char why[STORE_WHY_BYTES];

    (void)state;
    make_store();
    for (unsigned i = 0; i < 200; i++) {
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            struct db db;
            MDB_txn *txn;
            if (db_open(&db, dir, 1 << 30, true, why, sizeof why) != 0 ||
                mdb_txn_begin(db.env, NULL, MDB_RDONLY, &txn) != 0)
                _exit(1);
            kill(getpid(), SIGKILL);
        }
        reap_child(pid);
    }
    s = stores_open();
    const size_t before = stores_file_size("data.mdb");
    /* Rewritten over and over: without pages that somebody seems to read, the file stays small. */
    for (uint64_t round = 0; round < 100; round++) {
        for (unsigned i = 0; i < 100; i++) {
            rec = numbered(i, 20000 + round);
            assert_int_equal(S(s)->put(s, &rec), 0);
        }
        assert_int_equal(S(s)->sync(s, 60000), 0);
    }
    assert_true(stores_file_size("data.mdb") < 4 * before);
}

/* A folder that this user may not write to. */
static void test_not_writable(void **state)
{
    char why[STORE_WHY_BYTES], path[4200];
    struct store_lmdb_cfg cfg = stores_cfg();

    (void)state;
    assert_int_equal(chmod(dir, 0555), 0);
    snprintf(path, sizeof path, "%s/sub", dir);
    cfg.path = path;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) { /* root may write anywhere */
        if (geteuid() == 0 && seteuid(65534) != 0)
            _exit(2);
        int rc = store_lmdb_open(&s, &cfg, why, sizeof why);
        _exit(rc == -EACCES && strstr(why, path) != NULL ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(chmod(dir, 0700), 0);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_kill),
        TEST(test_kill_after_interval),
        TEST(test_kill_at_every_step),
        TEST(test_damage),
        TEST(test_damaged_value),
        TEST(test_truncated),
        TEST(test_stamp),
        TEST(test_newer_schema),
        TEST(test_older_schema),
        TEST(test_foreign_file),
        TEST(test_map_full),
        TEST(test_disk_full),
        TEST(test_close_on_full_disk),
        TEST(test_full_disk_at_start),
        TEST(test_file_size_limit),
        TEST(test_sync_fails),
        TEST(test_meta_page_fails),
        TEST(test_stuck),
        TEST(test_overlay_full),
        TEST(test_dead_readers),
        TEST(test_not_writable),
    };

    if (crypto_init() != 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
