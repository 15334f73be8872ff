/* Several processes, one environment: what each sees of the others, the common budget, and one that
 * hangs or is killed. The others are made before this process opens the store: LMDB and fork do not go
 * together. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "store/db.h"
#include "store/lmdb.h"
#include "tests/unit/store/stores.h"

static char why[STORE_WHY_BYTES];

static int setup(void **state)
{
    (void)state;
    stores_dir();
    return crypto_init();
}

static int teardown(void **state)
{
    (void)state;
    stores_remove();
    return 0;
}

static int try_open(struct store **s, bool shared, uint64_t budget)
{
    struct store_lmdb_cfg cfg = stores_cfg();

    cfg.budget_bytes = budget;
    cfg.stuck_ms = 300;
    cfg.shared = shared;
    return store_lmdb_open(s, &cfg, why, sizeof why);
}

static struct store *open_shared(uint64_t budget)
{
    struct store *s;
    int rc = try_open(&s, true, budget);

    if (rc != 0)
        fail_msg("%s", why);
    return s;
}

static struct store_rec record(unsigned i, uint64_t seq)
{
    struct store_rec r = {.item = {.k = {{2}},
                                   .seq = seq,
                                   .v = (const uint8_t *)"value",
                                   .v_len = 5,
                                   .salt = (const uint8_t *)"s",
                                   .salt_len = 1},
                          .stored_ns = 1,
                          .expires_ns = INT64_MAX,
                          .origin = STORE_REPLICA};

    r.item.k.b[1] = (uint8_t)(i >> 8);
    r.item.k.b[2] = (uint8_t)i;
    r.charged = r.item.k;
    r.target = item_target(&r.item);
    return r;
}

static int put(struct store *s, unsigned i, uint64_t seq)
{
    struct store_rec r = record(i, seq);

    return s->ops->put(s, &r);
}

static uint64_t seq_at(struct store *s, unsigned i)
{
    struct store_rec r = record(i, 0), out;

    return s->ops->get(s, &r.target, ITEM_OWNER, &out) == 0 ? out.item.seq : 0;
}

static void sync_store(struct store *s)
{
    assert_int_equal(s->ops->sync(s, 20000), 0);
}

/* ---- the other process ---- */

struct other {
    pid_t pid;
    int to, from;
};

/* It waits for a byte, does its part, answers with one, and so on until it is told to end. */
typedef void part_fn(struct store **s, int step);

static void serve(int in, int out, part_fn *part)
{
    struct store *s = NULL;
    char c;

    for (int step = 0; read(in, &c, 1) == 1 && c == 'g'; step++) {
        part(&s, step);
        if (write(out, "d", 1) != 1)
            break;
    }
    if (s != NULL)
        s->ops->close(s);
    _exit(0);
}

static struct other start(part_fn *part)
{
    int down[2], up[2];
    struct other o;

    assert_int_equal(pipe(down), 0);
    assert_int_equal(pipe(up), 0);
    o.pid = fork();
    assert_true(o.pid >= 0);
    if (o.pid == 0) {
        close(down[1]);
        close(up[0]);
        serve(down[0], up[1], part);
    }
    close(down[0]);
    close(up[1]);
    o.to = down[1];
    o.from = up[0];
    return o;
}

static void go(const struct other *o)
{
    assert_int_equal(write(o->to, "g", 1), 1);
}

static void wait_done(const struct other *o)
{
    struct pollfd p = {.fd = o->from, .events = POLLIN};
    char c;

    assert_int_equal(poll(&p, 1, 60000), 1);
    assert_int_equal(read(o->from, &c, 1), 1);
}

static void step(const struct other *o)
{
    go(o);
    wait_done(o);
}

static void end(struct other *o, bool killed)
{
    int status;

    if (killed)
        kill(o->pid, SIGKILL);
    close(o->to);
    assert_int_equal(waitpid(o->pid, &status, 0), o->pid);
    assert_int_equal(killed ? WIFSIGNALED(status) : WIFEXITED(status) && WEXITSTATUS(status) == 0,
                     1);
    close(o->from);
}

/* ---- seeing each other ---- */

static void puts_a_hundred(struct store **s, int at)
{
    if (at == 0)
        *s = open_shared(0);
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(put(*s, i, 10 + (uint64_t)at), 0);
    sync_store(*s);
    if (at == 1) /* what the test has put is here */
        assert_int_equal(seq_at(*s, 777), 5);
}

struct seen {
    size_t n;
    bool all;
};

static void count_change(void *arg, const struct kad_id *target, enum item_kind kind)
{
    struct seen *seen = arg;

    assert_int_equal(kind, ITEM_OWNER);
    seen->all |= target == NULL;
    seen->n++;
}

static void test_changes_are_seen(void **state)
{
    struct other o = start(puts_a_hundred);
    struct seen seen = {0};
    struct store_stat st;

    (void)state;
    struct store *s = open_shared(1 << 20);
    assert_int_equal(put(s, 777, 5), 0);
    sync_store(s);
    assert_int_equal(s->ops->changes(s, count_change, &seen), 0);
    assert_int_equal(seen.n, 0); /* own changes are no news */
    step(&o);
    assert_int_equal(seq_at(s, 99), 10);
    assert_int_equal(s->ops->changes(s, count_change, &seen), 0);
    assert_int_equal(seen.n, 100);
    assert_false(seen.all);
    s->ops->stat(s, &st);
    assert_int_equal(st.items, 101);
    assert_true(st.shared);
    assert_int_equal(st.busy_pid, 0);
    assert_int_equal(put(s, 50, 9), ERR_SEQ); /* compared with what the other one wrote */
    step(&o);
    assert_int_equal(seq_at(s, 0), 11);
    seen.n = 0;
    assert_int_equal(s->ops->changes(s, count_change, &seen), 0);
    assert_int_equal(seen.n, 100);
    end(&o, false);
    s->ops->close(s);
}

/* More than the table holds: one call says that anything may have changed. */
static void puts_very_many(struct store **s, int at)
{
    (void)at;
    *s = open_shared(0);
    for (unsigned round = 0; round < DB_CHANGES_MAX / 1000 + 2; round++) {
        for (unsigned i = 0; i < 1000; i++)
            assert_int_equal(put(*s, i, 1 + round), 0);
        sync_store(*s);
    }
}

static void test_too_many_changes(void **state)
{
    struct other o = start(puts_very_many);
    struct seen seen = {0};

    (void)state;
    struct store *s = open_shared(0);
    assert_int_equal(s->ops->changes(s, count_change, &seen), 0);
    step(&o);
    assert_int_equal(s->ops->changes(s, count_change, &seen), 0);
    assert_true(seen.all);
    assert_true(seen.n <= DB_CHANGES_MAX + 1);
    end(&o, false);
    s->ops->close(s);
}

/* ---- one budget ---- */

static void fills_up(struct store **s, int at)
{
    struct store_stat st;
    int rc = 0;

    (void)at;
    *s = open_shared(1 << 30); /* the budget of the one that is there already holds */
    (*s)->ops->stat(*s, &st);
    assert_int_equal(st.budget_bytes, 100000);
    for (unsigned i = 1000; rc == 0 && i < 2000; i++) {
        rc = put(*s, i, 1);
        if (i % 20 == 0)
            sync_store(*s);
    }
    assert_int_equal(rc, ERR_NO_SPACE);
    sync_store(*s);
}

static void test_one_budget(void **state)
{
    struct other o = start(fills_up);
    struct store_stat st;

    (void)state;
    struct store *s = open_shared(100000);
    step(&o);
    s->ops->stat(s, &st);
    assert_in_range(st.bytes, 90000, 110000);
    assert_int_equal(put(s, 1, 1), ERR_NO_SPACE);
    struct store_rec gone = record(1001, 0);
    for (unsigned i = 1000; i < 1060; i++) {
        gone = record(i, 0);
        assert_int_equal(s->ops->del(s, &gone.target, ITEM_OWNER), 0);
    }
    sync_store(s);
    assert_int_equal(put(s, 1, 1), 0);
    end(&o, false);
    s->ops->close(s);
}

/* ---- who may open ---- */

static void opens_alone(struct store **s, int at)
{
    if (at == 0) {
        assert_int_equal(try_open(s, false, 0), 0);
    } else {
        (*s)->ops->close(*s);
        *s = NULL;
    }
}

static void test_who_may_open(void **state)
{
    struct other o = start(opens_alone);
    struct store *s, *again;
    char pid[32];

    (void)state;
    step(&o); /* alone: nobody else, shared or not */
    assert_int_equal(try_open(&s, true, 0), ERR_BUSY);
    snprintf(pid, sizeof pid, "%d", (int)o.pid);
    assert_non_null(strstr(why, pid));
    step(&o);
    s = open_shared(0); /* shared: not by one that wants it alone, nor twice by one process */
    assert_int_equal(try_open(&again, true, 0), ERR_BUSY);
    assert_int_equal(try_open(&again, false, 0), ERR_BUSY);
    s->ops->close(s);
    s = open_shared(0);
    s->ops->close(s);
    assert_int_equal(try_open(&s, false, 0), 0); /* and back */
    s->ops->close(s);
    end(&o, false);
}

/* ---- a writer that hangs ---- */

static void hangs_in_a_transaction(struct store **s, int at)
{
    MDB_txn *txn;

    (void)at;
    *s = open_shared(0);
    struct db *db = store_lmdb_db(*s);
    assert_int_equal(mdb_txn_begin(db->env, NULL, 0, &txn), 0);
    atomic_store(&db->dir.common->writer, getpid()); /* as the writer thread does */
}

static struct store_lmdb_cfg of_network(uint64_t network)
{
    struct store_lmdb_cfg cfg = stores_cfg();

    cfg.shared = cfg.has_network = true;
    cfg.network = network;
    return cfg;
}

/* Which network a store belongs to is said by the first who opens it, for all that share it. */
static void test_two_networks(void **state)
{
    struct store_lmdb_cfg cfg = of_network(7);
    struct store *s, *other;

    (void)state;
    assert_int_equal(store_lmdb_open(&s, &cfg, why, sizeof why), 0);
    assert_int_equal(put(s, 1, 1), 0);
    s->ops->close(s);
    cfg.own_pk.b[0] = 2; /* another node of the host, of another network */
    const uint64_t others[] = {0, 8};
    for (size_t i = 0; i < 2; i++) {
        cfg.network = others[i];
        assert_int_equal(store_lmdb_open(&other, &cfg, why, sizeof why), ERR_NETWORK);
        assert_non_null(strstr(why, "another network"));
    }
    cfg.network = 7;
    assert_int_equal(store_lmdb_open(&s, &cfg, why, sizeof why), 0);
    assert_int_equal(seq_at(s, 1), 1);
    s->ops->close(s);
    s = open_shared(0); /* tools do not ask */
    s->ops->close(s);
}

/* Items that say nothing of a network are of the default one. */
static void test_items_without_a_network(void **state)
{
    struct store *s = open_shared(0);
    struct store_lmdb_cfg cfg = of_network(7);

    (void)state;
    assert_int_equal(put(s, 1, 1), 0);
    s->ops->close(s);
    assert_int_equal(store_lmdb_open(&s, &cfg, why, sizeof why), ERR_NETWORK);
    cfg.network = 0;
    assert_int_equal(store_lmdb_open(&s, &cfg, why, sizeof why), 0);
    s->ops->close(s);
}

static void test_stuck_writer_is_named(void **state)
{
    struct other o = start(hangs_in_a_transaction);
    struct store_stat st;
    int rc = 0;

    (void)state;
    struct store *s = open_shared(0);
    assert_int_equal(put(s, 1, 1), 0);
    sync_store(s);
    step(&o);
    assert_int_equal(put(s, 2, 1), 0); /* nobody knows yet */
    for (unsigned i = 3; rc == 0 && i < 2000; i++) {
        usleep(10000);
        rc = put(s, i, 1);
    }
    assert_int_equal(rc, ERR_BUSY);
    s->ops->stat(s, &st);
    assert_int_equal(st.busy_pid, o.pid);
    assert_int_equal(seq_at(s, 1), 1); /* reading goes on */
    end(&o, true);
    sync_store(s); /* the lock of the dead one is taken over */
    assert_int_equal(put(s, 5000, 1), 0);
    s->ops->stat(s, &st);
    assert_int_equal(st.busy_pid, 0);
    s->ops->close(s);
}

/* ---- kill -9 at any moment ---- */

static void writes_on(struct store **s, int at)
{
    *s = open_shared(0);
    for (unsigned i = 0;; i++) {
        (void)put(*s, i % 3000, 2 + i + (uint64_t)at);
        if (i == 200)
            return; /* the test hears that it is at work; the writer thread still is */
    }
}

static bool count_one(void *arg, const struct store_rec *r)
{
    (void)r;
    ++*(size_t *)arg;
    return true;
}

static void test_killed_beside_us(void **state)
{
    struct other o[6];
    struct store_stat st;
    size_t n = 0;

    (void)state;
    for (size_t i = 0; i < 6; i++)
        o[i] = start(writes_on);
    struct store *s = open_shared(0);
    for (size_t i = 0; i < 6; i++) {
        step(&o[i]);
        for (unsigned k = 0; k < 500; k++)
            assert_int_equal(put(s, 4000 + k, 1 + i), 0);
        end(&o[i], true);
        sync_store(s);
    }
    for (unsigned k = 0; k < 500; k++)
        assert_int_equal(seq_at(s, 4000 + k), 6);
    assert_int_equal(s->ops->scan(s, NULL, count_one, &n), 0);
    s->ops->stat(s, &st);
    assert_int_equal(st.items, n);
    assert_int_equal(st.corrupt, 0);
    assert_int_equal(db_check_pages(store_lmdb_db(s), why, sizeof why), 0);
    s->ops->close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_changes_are_seen, setup, teardown),
        cmocka_unit_test_setup_teardown(test_too_many_changes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_one_budget, setup, teardown),
        cmocka_unit_test_setup_teardown(test_who_may_open, setup, teardown),
        cmocka_unit_test_setup_teardown(test_two_networks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_items_without_a_network, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stuck_writer_is_named, setup, teardown),
        cmocka_unit_test_setup_teardown(test_killed_beside_us, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
