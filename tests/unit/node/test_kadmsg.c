/*
 * The public library as its users see it, on one base of the test's: several members of a network,
 * whose relay is a whole node on a thread of its own.
 */
#include "node/kadmsg.h"

#include <event2/event.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crypto.h"
#include "node/keyfile.h"
#include "node/node.h"
#include "tests/unit/node/tmpdir.h"
#include "tests/unit/vectors.h"

static struct tmpdir dir;
static struct event_base *base;
static struct node *relay;
static pthread_t thread;
static char join[200];
static struct kadmsg *a, *b;

static void *serve(void *arg)
{
    (void)arg;
    return node_run(relay) == 0 ? NULL : relay;
}

static int setup(void **state)
{
    char why[NODE_WHY], pk[PUBKEY_HEX + 1];
    struct node_cfg cfg = {.pk_threads = 1, .full = true, .publish = true, .listen = "127.0.0.1:0"};
    (void)state;
    tmpdir_make(&dir);
    assert_int_equal(crypto_init(), 0);
    assert_int_equal(kadmsg_log("error"), 0);
    keyfile_fresh(&cfg.sk, &cfg.pk);
    assert_int_equal(node_new(&relay, &cfg, why), 0);
    snprintf(join, sizeof join, "%s@%s", pubkey_hex(pk, node_pk(relay)), node_relay_addr(relay));
    assert_int_equal(pthread_create(&thread, NULL, serve, NULL), 0);
    assert_non_null(base = event_base_new());
    return 0;
}

static int teardown(void **state)
{
    void *failed;
    (void)state;
    event_base_free(base);
    node_stop(relay);
    pthread_join(thread, &failed);
    node_free(relay);
    tmpdir_remove(&dir);
    return failed != NULL;
}

/* ---- steps: each callback leaves the loop, the test goes on ---- */

static int last_err;
static char last_value[64];

static void run(void)
{
    assert_int_equal(event_base_dispatch(base), 0);
}

static void on_state(void *arg, unsigned bits)
{
    if ((bits & *(unsigned *)arg) == *(unsigned *)arg)
        event_base_loopbreak(base);
}

static void up(struct kadmsg **k, unsigned bits, unsigned threads, const char *store)
{
    assert_int_equal(kadmsg_new(k, base), 0);
    assert_int_equal(kadmsg_add_bootstrap(*k, join), 0);
    assert_int_equal(kadmsg_set(*k, KADMSG_SET_PK_THREADS, threads), 0);
    if (store != NULL)
        assert_int_equal(kadmsg_set_store(*k, store), 0);
    kadmsg_on_state(*k, on_state, &bits);
    assert_int_equal(kadmsg_start(*k), 0);
    run();
    kadmsg_on_state(*k, NULL, NULL);
    assert_true((kadmsg_state(*k) & bits) == bits);
}

static void on_put(void *arg, int err, const struct kadmsg_put_result *r)
{
    *(unsigned *)arg = r->stored;
    last_err = err;
    event_base_loopbreak(base);
}

static void on_value(void *arg, int err, const struct kadmsg_value *v)
{
    (void)arg;
    last_err = err;
    snprintf(last_value, sizeof last_value, "%.*s", v != NULL ? (int)v->value_size : 0,
             v != NULL ? (const char *)v->value : "");
    event_base_loopbreak(base);
}

static void on_entry(void *arg, int err, const struct kadmsg_entry *e)
{
    *(size_t *)arg = e != NULL ? e->n_relays : 0;
    last_err = err;
    event_base_loopbreak(base);
}

static void never_value(void *arg, int err, const struct kadmsg_value *v)
{
    (void)arg;
    (void)err;
    (void)v;
    fail_msg("a cancelled operation called back");
}

static void never_entry(void *arg, int err, const struct kadmsg_entry *e)
{
    (void)arg;
    (void)err;
    (void)e;
    fail_msg("a cancelled operation called back");
}

static void on_stopped(void *arg)
{
    ++*(int *)arg;
    event_base_loopbreak(base);
}

/* ---- keys ---- */

static void test_keys(void **state)
{
    struct kadmsg_sk sk, zero = {{0}};
    struct kadmsg_pk pk, again;
    struct kadmsg_sig sig;
    char text[KADMSG_KEY_TEXT];
    (void)state;
    assert_int_equal(kadmsg_key_new(&sk, &pk), 0);
    assert_int_equal(kadmsg_sk_public(&again, &sk), 0);
    assert_memory_equal(&pk, &again, sizeof pk);
    assert_int_equal(kadmsg_pk_parse(&again, kadmsg_pk_text(text, &pk)), 0);
    assert_memory_equal(&pk, &again, sizeof pk);
    text[65] = 'x';
    assert_int_equal(kadmsg_pk_parse(&again, text), KADMSG_BAD_KEY);
    assert_int_equal(kadmsg_sk_parse(&sk, "12"), KADMSG_BAD_KEY);
    assert_int_equal(kadmsg_sign(&sig, &sk, "text", 4), 0);
    assert_int_equal(kadmsg_verify(&pk, &sig, "text", 4), 0);
    assert_int_equal(kadmsg_verify(&pk, &sig, "texT", 4), KADMSG_BAD_SIGNATURE);
    kadmsg_sk_wipe(&sk);
    assert_memory_equal(&sk, &zero, sizeof sk);
    assert_int_equal(kadmsg_sk_public(&again, &sk), KADMSG_BAD_KEY);
    assert_string_equal(kadmsg_error_text(KADMSG_NOT_FOUND), "not found");
    assert_int_equal(kadmsg_log("loud"), KADMSG_USAGE);
}

/* ---- settings and the order of calls ---- */

static void test_settings(void **state)
{
    static const struct {
        enum kadmsg_setting what;
        uint64_t value;
        int err;
    } cases[] = {
        {KADMSG_SET_FULL, 1, 0},
        {KADMSG_SET_FULL, 2, KADMSG_USAGE},
        {KADMSG_SET_PUBLISH, 0, 0},
        {KADMSG_SET_PUBLISH, 2, KADMSG_USAGE},
        {KADMSG_SET_SESSIONS, 64, 0},
        {KADMSG_SET_SESSIONS, 0, KADMSG_USAGE},
        {KADMSG_SET_PK_THREADS, 64, 0},
        {KADMSG_SET_PK_THREADS, 65, KADMSG_USAGE},
        {KADMSG_SET_SESSIONS, 65, KADMSG_USAGE},
        {KADMSG_SET_STORE_BYTES, 0, KADMSG_USAGE},
        {KADMSG_SET_LOCK, 2, KADMSG_USAGE},
        {(enum kadmsg_setting)99, 1, KADMSG_USAGE},
    };
    struct kadmsg *k;
    struct kadmsg_sk none = {{0}};
    int stopped = 0;
    (void)state;
    assert_int_equal(kadmsg_new(&k, base), 0);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(kadmsg_set(k, cases[i].what, cases[i].value), cases[i].err);
    assert_int_equal(kadmsg_set_key(k, &none), KADMSG_BAD_KEY);
    assert_int_equal(kadmsg_add_bootstrap(k, "nobody"), KADMSG_FORMAT);
    assert_true(strlen(kadmsg_why(k)) > 10);
    assert_int_equal(kadmsg_get(k, kadmsg_public_key(k), "a", 1, 0, on_value, NULL, NULL),
                     KADMSG_BAD_STATE);
    assert_int_equal(kadmsg_listen(k, 1, NULL, NULL), KADMSG_BAD_STATE);
    assert_int_equal(kadmsg_stop(k, on_stopped, &stopped), KADMSG_BAD_STATE);
    assert_int_equal(kadmsg_state(k), 0);
    kadmsg_cancel(k, 1);
    assert_int_equal(kadmsg_set_store(k, "/dev/null/nowhere"), 0);
    assert_true(kadmsg_start(k) < 0);
    assert_non_null(strstr(kadmsg_why(k), "/dev/null/nowhere"));
    assert_int_equal(kadmsg_start(k), KADMSG_BAD_STATE);
    kadmsg_free(k);
    kadmsg_free(NULL);
}

/* ---- a network ---- */

static void test_values(void **state)
{
    unsigned stored = 0;
    size_t relays = 0;
    uint64_t op;
    int stopped = 0;
    (void)state;
    up(&a, KADMSG_JOINED | KADMSG_FOUND, 0, NULL);
    up(&b, KADMSG_JOINED, 2, tmpdir_file(&dir, "b"));
    assert_int_equal(kadmsg_set(a, KADMSG_SET_FULL, 1), KADMSG_BAD_STATE);
    assert_int_equal(kadmsg_put(a, "note", 4, "value", 5, on_put, &stored, NULL), 0);
    run();
    assert_int_equal(last_err, 0);
    assert_true(stored >= 1);
    assert_int_equal(
        kadmsg_get(b, kadmsg_public_key(a), "note", 4, KADMSG_NETWORK, on_value, NULL, NULL), 0);
    run();
    assert_int_equal(last_err, 0);
    assert_string_equal(last_value, "value");
    assert_int_equal(kadmsg_get(b, kadmsg_public_key(b), "note", 4, 0, on_value, NULL, NULL), 0);
    run();
    assert_int_equal(last_err, KADMSG_NOT_FOUND);
    for (int i = 0; i < 2; i++) { /* the second time it is known at once */
        relays = 0;
        assert_int_equal(kadmsg_entry_get(b, kadmsg_public_key(a), 0, on_entry, &relays, NULL), 0);
        assert_int_equal(relays, 0);
        run();
        assert_int_equal(last_err, 0);
        assert_int_equal(relays, 1);
    }
    char salt[201] = {0};
    assert_int_equal(kadmsg_put(a, salt, sizeof salt, "", 0, NULL, NULL, NULL), KADMSG_TOO_LONG);
    assert_int_equal(kadmsg_get(a, kadmsg_public_key(b), "x", 1, 0, never_value, NULL, &op), 0);
    kadmsg_cancel(a, op);
    assert_int_equal(kadmsg_entry_get(a, kadmsg_public_key(b), 0, never_entry, NULL, &op), 0);
    kadmsg_cancel(a, op);
    kadmsg_cancel(a, op);
    assert_int_equal(kadmsg_put(a, "note", 4, "other", 5, NULL, NULL, NULL), 0);
    assert_int_equal(kadmsg_stop(a, on_stopped, &stopped), 0);
    run();
    assert_int_equal(stopped, 1);
    assert_true((kadmsg_state(a) & KADMSG_FOUND) == 0);
    kadmsg_free(a);
    /* With everything under way: nothing calls back, nothing leaks. */
    assert_int_equal(kadmsg_get(b, kadmsg_public_key(b), "x", 1, 0, never_value, NULL, NULL), 0);
    assert_int_equal(
        kadmsg_entry_get(b, kadmsg_public_key(b), KADMSG_NETWORK, never_entry, NULL, NULL), 0);
    assert_int_equal(kadmsg_stop(b, on_stopped, &stopped), 0);
    kadmsg_free(b);
    assert_int_equal(stopped, 1);
}

/* ---- streams, and kadmsg_free() from inside their callbacks ---- */

static struct kadmsg_stream *accepted;
static int ended;

static void on_bytes(struct kadmsg_stream *st, void *arg)
{
    char buf[16];
    (void)arg;
    size_t n = kadmsg_stream_read(st, buf, sizeof buf);
    assert_int_equal(n, 4);
    assert_memory_equal(buf, "text", 4);
    event_base_loopbreak(base);
}

static void on_ended(struct kadmsg_stream *st, void *arg, int err)
{
    char steps[200];
    (void)arg;
    ended++;
    last_err = err;
    kadmsg_stream_steps(st, steps, sizeof steps);
    kadmsg_stream_close(st);
    event_base_loopbreak(base);
}

static const struct kadmsg_stream_callbacks accepted_cb = {.readable = on_bytes, .ended = on_ended};

static void on_accept(void *arg, struct kadmsg_stream *st)
{
    *(int *)arg += 1;
    accepted = st;
    assert_memory_equal(kadmsg_stream_remote(st), kadmsg_public_key(b), sizeof(struct kadmsg_pk));
    assert_int_equal(kadmsg_stream_local_port(st), 77);
    kadmsg_stream_set_callbacks(st, &accepted_cb, NULL);
}

static void on_opened(struct kadmsg_stream *st, void *arg)
{
    (void)arg;
    assert_int_equal(kadmsg_stream_write(st, "text", 4), 4);
}

static void opened_and_freed(struct kadmsg_stream *st, void *arg)
{
    (void)st;
    kadmsg_free(arg);
    event_base_loopexit(base, NULL); /* after this turn and the next callbacks */
}

static void test_streams(void **state)
{
    static const struct kadmsg_stream_callbacks cb = {.opened = on_opened, .ended = on_ended};
    static const struct kadmsg_stream_callbacks freeing = {.opened = opened_and_freed};
    struct kadmsg_stream *st;
    int accepts = 0;
    (void)state;
    up(&a, KADMSG_JOINED | KADMSG_FOUND, 0, NULL);
    up(&b, KADMSG_JOINED, 1, NULL);
    assert_int_equal(kadmsg_listen(a, 77, on_accept, &accepts), 77);
    assert_true(kadmsg_listen(a, 77, on_accept, &accepts) < 0);
    assert_int_equal(kadmsg_dial(b, kadmsg_public_key(a), 0, 0, &cb, NULL, &st), KADMSG_USAGE);
    assert_int_equal(kadmsg_dial(b, kadmsg_public_key(a), 77, 0, &cb, NULL, &st), 0);
    run();
    assert_int_equal(accepts, 1);
    kadmsg_stream_abort(accepted);
    run();
    assert_int_equal(ended, 1);
    kadmsg_unlisten(a, 77);
    assert_int_equal(kadmsg_dial(b, kadmsg_public_key(a), 77, 0, &cb, NULL, &st), 0);
    run();
    assert_int_equal(last_err, KADMSG_NO_LISTENER);
    assert_int_equal(kadmsg_listen(a, 77, on_accept, &accepts), 77);
    assert_int_equal(kadmsg_dial(b, kadmsg_public_key(a), 77, 0, &freeing, b, &st), 0);
    run();
    event_base_loop(base, EVLOOP_NONBLOCK); /* the turn in which b goes */
    kadmsg_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_settings),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_streams),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
