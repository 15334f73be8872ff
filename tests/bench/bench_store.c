/*
 * bench_store - the LMDB store: one JSON line a measurement.
 *
 *     store_get      a local look-up; ceiling: the same slot and record through LMDB alone
 *     store_accept   items a second and core, from the JSON of PutValue to the committed record:
 *                    decode, verify, put, indexes, group commit; ceiling: verification alone
 *     store_put      the same without decoding and verifying; ceiling: one LMDB database
 *     store_list     a page of 1000 records, in records a second; ceiling: scan in the order of targets
 *     store_overhead bytes on disk per record beside value and salt; ceiling: encoded record
 *     store_open     opening with the page check of an unclean start; ceiling: reading the file
 *     store_million_open      opening a store of a million records after an orderly end; ceiling: 1 s
 *     store_million_get_p99   99 % of the look-ups in it take less; ceiling: 20 us
 *     store_million_page      a page of 1000 records anywhere in it; ceiling: 5 ms
 *     store_million_page_first   the same right after opening: the file is in the page cache, not yet in the map
 *
 * With an argument only a part: accept, small (100 000 records) or million.
 *
 * CPU time of all threads counts, not wall time: the writer is part of the cost. Median of REPEATS.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cursor.h"
#include "base/err.h"
#include "kademlia/codec_json.h"
#include "store/lmdb.h"
#include "store/row.h"
#include "tests/bench/figures.h"

#define REPEATS   5
#define N_SIGNED  8000u
#define N_STORED  100000u
#define N_GETS    300000u
#define VALUE_LEN 420u
#define VALUE_MAX 1500u
#define KEYS      100u

static char dir[512], why[STORE_WHY_BYTES];

/* ---- the folder ---- */

static void remove_files(void)
{
    static const char *const names[] = {"data.mdb", "lock.mdb", "kadmsg.lock", "clean"};
    char file[600];

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        snprintf(file, sizeof file, "%s/%s", dir, names[i]);
        unlink(file);
    }
}

static void remove_dir(void)
{
    remove_files();
    rmdir(dir);
}

static struct store *open_store(void)
{
    struct store *s;
    struct store_lmdb_cfg cfg = {.path = dir, .own_pk = {{2, 1}}};

    if (store_lmdb_open(&s, &cfg, why, sizeof why) != 0)
        bench_die(why);
    return s;
}

static void sync_store(struct store *s)
{
    if (s->ops->sync(s, 60000) != 0)
        bench_die("sync");
}

static void put(struct store *s, const struct store_rec *rec)
{
    int rc = s->ops->put(s, rec);

    if (rc == ERR_BUSY) {
        sync_store(s);
        rc = s->ops->put(s, rec);
    }
    if (rc != 0)
        bench_die(err_str(rc));
}

/* ---- accepting signed items ---- */

struct frame {
    uint8_t *p;
    size_t n;
};

static struct frame frames[N_SIGNED];
static uint8_t value[VALUE_MAX];
static size_t value_len = VALUE_LEN; /* of the records of numbered() */

static void make_frames(void)
{
    struct seckey sk[KEYS];
    struct pubkey pk;

    for (unsigned i = 0; i < KEYS; i++) {
        if (crypto_keypair_from_seed(&sk[i], &pk, (const uint8_t *)&i, sizeof i) != 0)
            bench_die("key");
    }
    for (unsigned i = 0; i < N_SIGNED; i++) {
        char salt[16];
        int salt_len = snprintf(salt, sizeof salt, "tp:%u", i / KEYS);
        struct item it = {.seq = 1700000000000000000u + i,
                          .v = value,
                          .v_len = VALUE_LEN,
                          .salt = (uint8_t *)salt,
                          .salt_len = (size_t)salt_len};
        if (item_sign(&it, &sk[i % KEYS]) != 0)
            bench_die("sign");
        struct kad_msg_item one = {.item = item_ref_new(&it)};
        struct kad_msg m = {.method = KAD_PUT_VALUE, .sender = it.k, .items = &one, .n_items = 1};
        if (one.item == NULL || kad_json_encode(&frames[i].p, &frames[i].n, &m) != 0)
            bench_die("encode");
        item_ref_put(one.item);
    }
}

static struct store_rec accept_rec(struct item_ref *r, int64_t now_ns)
{
    return (struct store_rec){.target = item_target(&r->item),
                              .item = r->item,
                              .stored_ns = now_ns,
                              .expires_ns = now_ns + 7200000000000,
                              .origin = STORE_REPLICA,
                              .charged = r->item.k,
                              .ref = r};
}

static void accept_frame(struct store *s, const struct frame *f, int64_t now_ns)
{
    struct kad_msg m;

    if (kad_json_decode(&m, KAD_PUT_VALUE, false, f->p + 5, f->n - 5) != 0)
        bench_die("decode");
    if (item_verify(&m.items[0].item->item) != 0)
        bench_die("verify");
    struct store_rec rec = accept_rec(m.items[0].item, now_ns);
    put(s, &rec);
    kad_msg_clear(&m);
}

static double time_verify(void)
{
    struct kad_msg m;
    double start;

    if (kad_json_decode(&m, KAD_PUT_VALUE, false, frames[0].p + 5, frames[0].n - 5) != 0)
        bench_die("decode");
    start = bench_cpu_s();
    for (unsigned i = 0; i < 2000; i++) {
        if (item_verify(&m.items[0].item->item) != 0)
            bench_die("verify");
    }
    double rate = 2000 / (bench_cpu_s() - start);
    kad_msg_clear(&m);
    return rate;
}

static void bench_accept(void)
{
    double rate[REPEATS], ceiling[REPEATS], start, total = 0;
    char params[80];

    make_frames();
    for (unsigned round = 0; round < REPEATS; round++) {
        remove_files();
        struct store *s = open_store();
        start = bench_cpu_s();
        for (unsigned i = 0; i < N_SIGNED; i++)
            accept_frame(s, &frames[i], 1700000000000000000 + i);
        sync_store(s);
        double used = bench_cpu_s() - start;
        rate[round] = N_SIGNED / used;
        total += used;
        s->ops->close(s);
        ceiling[round] = time_verify();
    }
    snprintf(params, sizeof params, "{\"items\":%u,\"value_bytes\":%u}", N_SIGNED, VALUE_LEN);
    bench_report("store_accept", params, bench_median(rate, REPEATS), "items/s/core", total,
                 bench_median(ceiling, REPEATS));
    for (unsigned i = 0; i < N_SIGNED; i++)
        free(frames[i].p);
}

/* ---- plain puts, and the store that the others read ---- */

/* Five records a publisher, as a visor has them. */
static struct store_rec numbered(unsigned i)
{
    static const char *const salts[] = {"dmsg", "tp", "svc", "addr:stcpr", "addr:sudph"};
    const char *salt = salts[i % 5];
    struct store_rec rec = {.item = {.seq = 1700000000000000000u + i,
                                     .v = value,
                                     .v_len = value_len,
                                     .salt = (const uint8_t *)salt,
                                     .salt_len = strlen(salt)},
                            .stored_ns = 1700000000000000000 + i,
                            .expires_ns = 1700007200000000000 + i,
                            .origin = STORE_REPLICA};

    rec.item.k.b[0] = 2;
    put_be32(rec.item.k.b + 1, i / 5);
    rec.charged = rec.item.k;
    rec.target = item_target(&rec.item);
    return rec;
}

/* One database, the same keys and sizes, a transaction for each 1000. */
static double time_bare_put(void)
{
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi;
    uint8_t key[RECORD_KEY_BYTES], buf[RECORD_MAX_BYTES];

    remove_files();
    if (mdb_env_create(&env) != 0 || mdb_env_set_mapsize(env, 1u << 30) != 0 ||
        mdb_env_open(env, dir, 0, 0600) != 0)
        bench_die("bare LMDB");
    double start = bench_cpu_s();
    for (unsigned i = 0; i < N_STORED; i++) {
        struct store_rec rec = numbered(i);
        record_key(key, &rec.target, rec.kind);
        MDB_val k = db_val(key, sizeof key), v = db_val(buf, record_encode(buf, &rec));
        if (i % 1000 == 0 &&
            (mdb_txn_begin(env, NULL, 0, &txn) != 0 || mdb_dbi_open(txn, NULL, 0, &dbi) != 0))
            bench_die("bare transaction");
        if (mdb_put(txn, dbi, &k, &v, 0) != 0)
            bench_die("bare put");
        if (i % 1000 == 999 && mdb_txn_commit(txn) != 0)
            bench_die("bare commit");
    }
    double used = bench_cpu_s() - start;
    mdb_env_close(env);
    return N_STORED / used;
}

static struct store *bench_put(void)
{
    double bare = time_bare_put();
    char params[80];

    remove_files();
    struct store *s = open_store();
    double start = bench_cpu_s();
    for (unsigned i = 0; i < N_STORED; i++) {
        struct store_rec rec = numbered(i);
        put(s, &rec);
    }
    sync_store(s);
    double used = bench_cpu_s() - start;
    snprintf(params, sizeof params, "{\"items\":%u,\"value_bytes\":%u}", N_STORED, VALUE_LEN);
    bench_report("store_put", params, N_STORED / used, "items/s/core", used, bare);
    return s;
}

/* ---- reading ---- */

static double time_gets(struct store *s)
{
    struct store_rec out;
    struct kad_id *ids = malloc(N_GETS * sizeof *ids);

    if (ids == NULL)
        bench_die("out of memory");
    for (unsigned i = 0; i < N_GETS; i++)
        ids[i] = numbered((unsigned)(bench_draw() % N_STORED)).target;
    double start = bench_cpu_s();
    for (unsigned i = 0; i < N_GETS; i++) {
        if (s->ops->get(s, &ids[i], ITEM_OWNER, &out) != 0 || out.item.v_len != VALUE_LEN)
            bench_die("get");
    }
    double used = bench_cpu_s() - start;
    free(ids);
    return used * 1e6 / N_GETS;
}

static double time_bare_gets(struct store *s)
{
    const struct db *db = store_lmdb_db(s);
    MDB_txn *txn;
    uint8_t(*keys)[RECORD_KEY_BYTES] = malloc(N_GETS * sizeof *keys), copy[1024];

    if (keys == NULL || mdb_txn_begin(db->env, NULL, MDB_RDONLY, &txn) != 0)
        bench_die("out of memory");
    for (unsigned i = 0; i < N_GETS; i++) {
        struct kad_id id = numbered((unsigned)(bench_draw() % N_STORED)).target;
        record_key(keys[i], &id, ITEM_OWNER);
    }
    double start = bench_cpu_s();
    for (unsigned i = 0; i < N_GETS; i++) {
        MDB_val k = db_val(keys[i], RECORD_KEY_BYTES), id, v;
        mdb_txn_reset(txn);
        if (mdb_txn_renew(txn) != 0 || mdb_get(txn, db->slots, &k, &id) != 0 ||
            mdb_get(txn, db->records, &id, &v) != 0)
            bench_die("bare get");
        memcpy(copy, v.mv_data, v.mv_size < sizeof copy ? v.mv_size : sizeof copy);
    }
    double used = bench_cpu_s() - start;
    mdb_txn_abort(txn);
    free(keys);
    return used * 1e6 / N_GETS;
}

static void bench_get(struct store *s)
{
    double own[REPEATS], bare[REPEATS], start = bench_cpu_s();
    char params[80];

    for (unsigned round = 0; round < REPEATS; round++) {
        own[round] = time_gets(s);
        bare[round] = time_bare_gets(s);
    }
    snprintf(params, sizeof params, "{\"items\":%u,\"value_bytes\":%u}", N_STORED, VALUE_LEN);
    bench_report("store_get", params, bench_median(own, REPEATS), "us", bench_cpu_s() - start,
                 bench_median(bare, REPEATS));
}

struct walk {
    uint64_t n, bytes, last_seq;
};

static bool count(void *arg, const struct store_rec *rec)
{
    struct walk *w = arg;

    w->n++;
    w->bytes += rec->item.v_len;
    w->last_seq = rec->item.seq;
    return true;
}

static double time_list(struct store *s)
{
    struct store_page page = {.limit = 1000, .max_bytes = 2 << 20};
    struct walk w = {0};
    bool more = true;
    double start = bench_cpu_s();

    for (; more; page.since_seq = w.last_seq) {
        if (s->ops->list(s, &page, count, &w, &more) != 0)
            bench_die("list");
    }
    if (w.n != N_STORED)
        bench_die("list is short");
    return N_STORED / (bench_cpu_s() - start);
}

static double time_scan(struct store *s)
{
    struct walk w = {0};
    double start = bench_cpu_s();

    if (s->ops->scan(s, NULL, count, &w) != 0 || w.n != N_STORED)
        bench_die("scan");
    return N_STORED / (bench_cpu_s() - start);
}

static void bench_list(struct store *s)
{
    double own[REPEATS], bare[REPEATS], start = bench_cpu_s();

    for (unsigned round = 0; round < REPEATS; round++) {
        own[round] = time_list(s);
        bare[round] = time_scan(s);
    }
    bench_report("store_list", "{\"page\":1000}", bench_median(own, REPEATS), "records/s",
                 bench_cpu_s() - start, bench_median(bare, REPEATS));
}

/* ---- size and opening ---- */

/* Bytes on disk of each of `count` records beside value and salt, and of a record as it is encoded. */
static double overhead(struct store *s, unsigned count, double *encoded)
{
    const struct db *db = store_lmdb_db(s);
    uint8_t buf[RECORD_MAX_BYTES];
    double plain = 0;
    MDB_envinfo info;
    MDB_stat st;
    MDB_txn *txn;

    *encoded = 0;
    for (unsigned i = 0; i < 5; i++) {
        struct store_rec rec = numbered(i);
        plain += (double)(rec.item.v_len + rec.item.salt_len) / 5;
        *encoded += (double)record_encode(buf, &rec) / 5;
    }
    *encoded -= plain;
    if (mdb_env_info(db->env, &info) != 0 || mdb_env_stat(db->env, &st) != 0 ||
        mdb_txn_begin(db->env, NULL, MDB_RDONLY, &txn) != 0)
        bench_die("stat");
    double used = (double)(info.me_last_pgno + 1 - db_free_pages(txn)) * st.ms_psize;
    mdb_txn_abort(txn);
    return used / count - plain;
}

static void report_overhead(struct store *s, unsigned count)
{
    char params[80];
    double encoded, bytes = overhead(s, count, &encoded);

    snprintf(params, sizeof params, "{\"items\":%u,\"value_bytes\":%zu,\"per_publisher\":5}", count,
             value_len);
    bench_report("store_overhead", params, bytes, "bytes/item", 0, encoded);
}

/* Other sizes of values leave other gaps at the ends of pages. */
static void bench_other_sizes(void)
{
    static const size_t sizes[] = {100, 250, 600, 1000, 1500};
    const unsigned count = 20000;

    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        remove_files();
        value_len = sizes[i];
        struct store *s = open_store();
        for (unsigned k = 0; k < count; k++) {
            struct store_rec rec = numbered(k);
            put(s, &rec);
        }
        sync_store(s);
        report_overhead(s, count);
        s->ops->close(s);
    }
    value_len = VALUE_LEN;
}

static double time_read(size_t *size)
{
    static uint8_t buf[1 << 20];
    char file[600];

    snprintf(file, sizeof file, "%s/data.mdb", dir);
    int fd = open(file, O_RDONLY);
    double start = bench_cpu_s();
    *size = 0;
    for (ssize_t n; (n = read(fd, buf, sizeof buf)) > 0;)
        *size += (size_t)n;
    double used = bench_cpu_s() - start;
    close(fd);
    return used;
}

static void bench_open(void)
{
    double own[REPEATS], bare[REPEATS], start = bench_cpu_s();
    char file[600], params[80];
    size_t size;

    snprintf(file, sizeof file, "%s/clean", dir);
    for (unsigned round = 0; round < REPEATS; round++) {
        unlink(file);
        double begin = bench_cpu_s();
        struct store *s = open_store();
        own[round] = (bench_cpu_s() - begin) * 1e3;
        s->ops->close(s);
        bare[round] = time_read(&size) * 1e3;
    }
    snprintf(params, sizeof params, "{\"file_mib\":%zu,\"clean\":false}", size >> 20);
    bench_report("store_open", params, bench_median(own, REPEATS), "ms", bench_cpu_s() - start,
                 bench_median(bare, REPEATS));
}

/* ---- a million records ---- */

#define MILLION 1000000u

static bool count_visit(void *arg, const struct store_rec *rec)
{
    (void)rec;
    ++*(unsigned *)arg;
    return true;
}

static double gets_p99(struct store *s)
{
    static double us[100000];
    struct store_rec out;
    const size_t n = sizeof us / sizeof us[0];

    for (size_t i = 0; i < n; i++) {
        struct kad_id id = numbered((unsigned)(bench_draw() % MILLION)).target;
        double begin = bench_cpu_s();
        if (s->ops->get(s, &id, ITEM_OWNER, &out) != 0)
            bench_die("get of a million");
        us[i] = (bench_cpu_s() - begin) * 1e6;
    }
    return bench_p99(us, n);
}

struct took {
    double wall_ms, cpu_ms;
    struct rusage ru; /* of all of them: page faults, waits and preemptions */
};

/* Medians of pages anywhere in the store. */
static struct took time_pages(struct store *s)
{
    double wall[REPEATS], cpu[REPEATS];
    struct took t;
    struct rusage before;

    getrusage(RUSAGE_SELF, &before);
    for (unsigned round = 0; round < REPEATS; round++) {
        struct store_page page = {
            .since_seq = numbered((unsigned)(bench_draw() % (MILLION - 2000))).item.seq,
            .limit = 1000};
        unsigned n = 0;
        bool more;
        double wall_begin = bench_wall_s(), begin = bench_cpu_s();
        if (s->ops->list(s, &page, count_visit, &n, &more) != 0 || n < 1000)
            bench_die("page of a million");
        cpu[round] = (bench_cpu_s() - begin) * 1e3;
        wall[round] = (bench_wall_s() - wall_begin) * 1e3;
    }
    getrusage(RUSAGE_SELF, &t.ru);
    t.ru.ru_minflt -= before.ru_minflt;
    t.ru.ru_majflt -= before.ru_majflt;
    t.ru.ru_nivcsw -= before.ru_nivcsw;
    t.cpu_ms = bench_median(cpu, REPEATS);
    t.wall_ms = bench_median(wall, REPEATS);
    return t;
}

static void report_pages(const char *name, struct took t)
{
    char params[160];

    snprintf(params, sizeof params,
             "{\"items\":%u,\"wall_ms\":%.2f,\"faults\":%ld,\"disk_reads\":%ld,\"preempted\":%ld}",
             MILLION, t.wall_ms, t.ru.ru_minflt / REPEATS, t.ru.ru_majflt / REPEATS,
             t.ru.ru_nivcsw / REPEATS);
    bench_report(name, params, t.cpu_ms, "ms", t.cpu_ms * REPEATS / 1e3, 5);
}

static void bench_million(void)
{
    double start = bench_cpu_s();
    const char *params = "{\"items\":1000000,\"value_bytes\":420}";

    remove_files();
    struct store *s = open_store();
    for (unsigned i = 0; i < MILLION; i++) {
        struct store_rec rec = numbered(i);
        put(s, &rec);
    }
    sync_store(s);
    s->ops->close(s);
    double begin = bench_wall_s();
    s = open_store();
    double open_s = bench_wall_s() - begin;
    bench_report("store_million_open", params, open_s, "s", bench_cpu_s() - start, 1);
    struct took first = time_pages(s);
    bench_report("store_million_get_p99", params, gets_p99(s), "us", bench_cpu_s() - start, 20);
    report_pages("store_million_page", time_pages(s));
    report_pages("store_million_page_first", first);
    s->ops->close(s);
}

/* 100 000 records. */
static void bench_small(void)
{
    struct store *s = bench_put();

    bench_get(s);
    bench_list(s);
    report_overhead(s, N_STORED);
    s->ops->close(s);
    bench_open();
    bench_other_sizes();
}

/* Items `first` … `first + count - 1` of a series of signed ones, 50 for each key, into a store: for
 * bench_sync.py. The same series for the same seq. */
static int fill(const char *path, unsigned first, unsigned count, uint64_t seq)
{
    snprintf(dir, sizeof dir, "%s", path);
    struct store *s = open_store();
    for (unsigned i = first; i < first + count; i++) {
        const unsigned number = i / 50;
        struct seckey sk;
        char salt[16];
        struct item it = {.seq = seq + i, .v = value, .v_len = VALUE_LEN};
        it.salt_len = (size_t)snprintf(salt, sizeof salt, "s%u", i % 50);
        it.salt = (const uint8_t *)salt;
        if (crypto_keypair_from_seed(&sk, &it.k, (const uint8_t *)&number, sizeof number) != 0 ||
            item_sign(&it, &sk) != 0)
            bench_die("sign");
        struct item_ref *r = item_ref_new(&it);
        if (r == NULL)
            bench_die("out of memory");
        struct store_rec rec = accept_rec(r, (int64_t)seq);
        put(s, &rec);
        item_ref_put(r);
    }
    sync_store(s);
    s->ops->close(s);
    return 0;
}

int main(int argc, char **argv)
{
    const char *tmp = getenv("TMPDIR");

    snprintf(dir, sizeof dir, "%s/bench-store-XXXXXX", tmp != NULL ? tmp : "/tmp");
    memset(value, 'x', sizeof value);
    if (crypto_init() != 0)
        bench_die("no crypto");
    if (argc == 6 && strcmp(argv[1], "fill") == 0)
        return fill(argv[2], (unsigned)strtoul(argv[3], NULL, 10),
                    (unsigned)strtoul(argv[4], NULL, 10), strtoull(argv[5], NULL, 10));
    if (mkdtemp(dir) == NULL)
        bench_die("no folder");
    atexit(remove_dir);
    const char *only = argc > 1 ? argv[1] : "";
    if (only[0] == '\0' || strcmp(only, "accept") == 0)
        bench_accept();
    if (only[0] == '\0' || strcmp(only, "small") == 0)
        bench_small();
    if (only[0] == '\0' || strcmp(only, "million") == 0)
        bench_million();
    return 0;
}
