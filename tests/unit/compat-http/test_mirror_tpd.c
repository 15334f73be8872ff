/*
 * The transport discovery and its mirror: sets of transports by visor, nothing for what has not changed, and back from the DHT.
 */
#include "compat-http/mirror_tpd.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/err.h"
#include "tests/unit/compat-http/tpd_rig.h"

static struct mirror *mirror;
static struct mirror_tpd *feed;
static struct signer service, a, b, c;
static struct loop_timer over;
static uint64_t written, gone;
static char last[4][ITEM_MAX_VALUE + 1]; /* of service, a, b, c: what was written under "tp" */

static struct loop *loop_of_rig(void)
{
    return drive_loop_loop(rig.drive);
}

static void on_over(struct loop_timer *t)
{
    (void)t;
    mirror_written(mirror, 0, 0);
}

static int take(void *arg, const struct mirror_write *w, size_t n, size_t *taken)
{
    const struct pubkey *of[] = {&service.pk, &a.pk, &b.pk, &c.pk};
    (void)arg;
    *taken = n;
    for (size_t i = 0; i < n; i++) {
        written++;
        gone += w[i].gone;
        for (size_t k = 0; k < 4; k++) {
            struct kad_id target = kad_target(of[k], "tp", 2);
            if (kad_id_equal(&target, &w[i].target))
                snprintf(last[k], sizeof(last[k]), "%.*s", (int)w[i].item->item.v_len,
                         (const char *)w[i].item->item.v);
        }
    }
    loop_timer_set(loop_of_rig(), &over, loop_of_rig()->now_ns);
    return 0;
}

static void on_changed(void *arg, const struct pubkey *pk)
{
    (void)arg;
    if (feed != NULL)
        mirror_tpd_changed(feed, pk);
}

static int setup(void **state)
{
    rig_setup(state);
    service = signer_new();
    a = signer_new();
    b = signer_new();
    c = signer_new();
    memset(last, 0, sizeof(last));
    written = gone = 0;
    tpd_start((struct tpd_service_cfg){.generation = TPD_2026, .changed = on_changed}, false);
    struct mirror_cfg cfg = {
        .env = &rig.env.env, .loop = loop_of_rig(), .pk = service.pk, .sk = service.sk};
    mirror = mirror_new(&cfg);
    assert_non_null(mirror);
    over.fn = on_over;
    (void)mirror_add_sink(mirror, "dht", take, NULL);
    feed = mirror_tpd_new(mirror, tpd_of_rig(), loop_of_rig());
    assert_non_null(feed);
    return 0;
}

static int teardown(void **state)
{
    loop_timer_cancel(loop_of_rig(), &over);
    mirror_tpd_free(feed);
    mirror_free(mirror);
    feed = NULL;
    mirror = NULL;
    return rig_teardown(state);
}

static bool all_written(void *arg)
{
    struct mirror_stat st;
    (void)arg;
    mirror_stat(mirror, &st);
    return st.waiting == 0;
}

static bool has_walked(void *arg)
{
    struct mirror_tpd_stat st;
    (void)arg;
    mirror_tpd_stat(feed, &st);
    return st.walks > 0 && all_written(NULL);
}

static void add(struct signer *s, struct signer *with, const char *type)
{
    assert_int_equal(tpd_call(s, "POST", "/v3/transports/", tpd_bare(s, with, type, "user")).status,
                     201);
}

struct want {
    size_t k, n;
};

static bool lists(void *arg)
{
    const struct want *w = arg;
    const struct pubkey *of[] = {&service.pk, &a.pk, &b.pk, &c.pk};
    struct tp_list l;
    if (last[w->k][0] == '\0' || tp_decode(&l, of[w->k], last[w->k], strlen(last[w->k])) < 0)
        return false;
    size_t n = l.n;
    tp_list_free(&l);
    return n == w->n && all_written(NULL);
}

static void wait_for(size_t k, size_t n)
{
    struct want w = {k, n};
    rig_wait(lists, &w);
}

static void test_sets_by_visor(void **state)
{
    (void)state;
    add(&a, &b, "stcpr");
    add(&a, &c, "sudph");
    wait_for(1, 2); /* the whole list, never an element */
    wait_for(2, 1);
    wait_for(3, 1);
    char path[120];
    snprintf(path, sizeof(path), "/transports/id:%s", tpd_id(&a, &c, "sudph"));
    assert_int_equal(tpd_call(&a, "DELETE", path, "").status, 200);
    wait_for(1, 1);
    wait_for(3, 0);
    assert_string_equal(last[3], "[]");
    assert_int_equal(gone, 1);
}

/* Batches that are registered anew and say nothing new: the mirror is not even asked. */
static void test_unchanged_costs_nothing(void **state)
{
    struct mirror_stat before, after;
    (void)state;
    add(&a, &b, "stcpr");
    wait_for(1, 1);
    wait_for(2, 1);
    mirror_stat(mirror, &before);
    uint64_t writes = written;
    for (int i = 0; i < 100; i++)
        add(i % 2 == 0 ? &a : &b, i % 2 == 0 ? &b : &a, "stcpr");
    mirror_stat(mirror, &after);
    assert_int_equal(after.signatures, before.signatures);
    assert_int_equal(after.offered, before.offered);
    assert_int_equal(written, writes);
    mirror_tpd_all(feed); /* everything, as at a start */
    rig_wait(has_walked, NULL);
    mirror_stat(mirror, &after);
    assert_int_equal(after.signatures, before.signatures);
    assert_true(after.unchanged >= 2);
}

/* From the DHT: what the visor says of itself, and what we said; nothing about others. */
static void test_incident_70_taken_from_the_dht(void **state)
{
    char text[2000];
    (void)state;
    snprintf(text, sizeof(text), "%s", tpd_bare(&a, &b, "stcpr", "user"));
    assert_int_equal(mirror_tpd_take(feed, &c.pk, text, strlen(text)), 0); /* of others */
    assert_int_equal(mirror_tpd_take(feed, &a.pk, text, strlen(text)), 1);
    assert_int_equal(mirror_tpd_take(feed, &a.pk, text, strlen(text)), 0); /* is there */
    snprintf(text, sizeof(text), "%s", tpd_bare(&b, &c, "sudph", "user"));
    assert_int_equal(mirror_tpd_take(feed, NULL, text, strlen(text)), 1);
    assert_int_equal(mirror_tpd_take(feed, NULL, "[1", 2), 0);
    assert_int_equal(mirror_tpd_take(feed, NULL, "[]", 2), 0);
    text[12] = text[12] == '0' ? '1' : '0'; /* an id that is not that of its edges */
    assert_int_equal(mirror_tpd_take(feed, NULL, text, strlen(text)), 0);
    snprintf(text, sizeof(text), "/v3/transports/edge:%s", b.hex);
    struct answer got = rig_get(text);
    assert_true(rig_says(got, 200, "stcpr") && rig_says(got, 200, "sudph"));
    struct mirror_tpd_stat st;
    mirror_tpd_stat(feed, &st);
    assert_int_equal(st.taken, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_sets_by_visor, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unchanged_costs_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_incident_70_taken_from_the_dht, setup, teardown),
    };
    return crypto_init() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
