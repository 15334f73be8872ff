/*
 * The table of transports against a plain model of it, by random changes.
 */
#include "compat-http/tpd_table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/err.h"
#include "tests/unit/prop.h"

enum { IDS = 60, KEYS = 6, STEPS = 20000 };

static struct {
    bool there;
    struct tp_entry e;
    uint64_t until_ns;
} model[IDS];

static struct tp_entry entry_of(size_t id, uint64_t r)
{
    struct tp_entry e = {0};
    e.id.b[0] = (uint8_t)id;
    e.edges[0].b[0] = (uint8_t)(r % KEYS);
    e.edges[1].b[0] = (uint8_t)(r / KEYS % KEYS);
    snprintf(e.type, sizeof(e.type), "%u", (unsigned)(r / 64 % 2));
    return e;
}

static bool has(const struct tp_entry *e, const struct pubkey *pk)
{
    return pubkey_equal(&e->edges[0], pk) || pubkey_equal(&e->edges[1], pk);
}

static void check(const struct tpd_table *t)
{
    struct tpd_tp *tp = NULL;
    size_t n = 0, seen = 0;
    uint64_t last = 0;
    for (size_t i = 0; i < IDS; i++) {
        const struct tp_id id = {.b = {(uint8_t)i}};
        tp = tpd_table_get(t, &id);
        assert_true((tp != NULL) == model[i].there);
        n += model[i].there;
        assert_true(tp == NULL ||
                    (tpd_same(&tp->e, &model[i].e) && tp->until_ns == model[i].until_ns));
    }
    assert_int_equal(tpd_table_len(t), n);
    for (tp = NULL; (tp = tpd_table_next(t, tp)) != NULL;)
        seen++;
    assert_int_equal(seen, n);
    struct list_node *at, *tmp;
    list_for_each(at, tmp, &t->life)
    {
        tp = container_of(at, struct tpd_tp, life);
        assert_true(tp->until_ns >= last);
        last = tp->until_ns;
    }
    for (uint8_t k = 0; k < KEYS; k++) {
        const struct pubkey pk = {.b = {k}};
        const struct tpd_edge *e = tpd_table_edge(t, &pk);
        struct tpd_at it = {0};
        size_t want = 0, found = 0;
        for (size_t i = 0; i < IDS; i++)
            want += model[i].there && has(&model[i].e, &pk);
        if (e != NULL)
            it = tpd_edge_first(e);
        while (e != NULL && (tp = tpd_edge_next(&it)) != NULL) {
            assert_true(has(&tp->e, &pk));
            found++;
        }
        assert_int_equal(found, want);
        assert_true(e == NULL || e->n == want);
    }
}

static void test_model(void **state)
{
    (void)state;
    static const uint8_t hash_key[16] = {1};
    struct tpd_table t;
    struct tpd_tp *tp;
    struct pubkey pk;
    struct prop p = prop_init("tpd_table");
    memset(model, 0, sizeof(model));
    tpd_table_init(&t, hash_key, 0);
    for (int step = 0; step < STEPS; step++) {
        uint64_t r = prop_u64(&p);
        size_t id = r % IDS;
        const struct tp_id key = {.b = {(uint8_t)id}};
        switch (r >> 32 & 7) {
        case 0:
        case 1:
        case 2: { /* renewed in order, or not */
            struct tp_entry e = entry_of(id, r >> 8);
            uint64_t until = (r >> 40 & 1) != 0 ? (uint64_t)step + 1000 : r >> 44;
            assert_int_equal(tpd_table_put(&t, &e, until, &tp), 0);
            model[id].there = true;
            model[id].e = e;
            model[id].until_ns = until;
            break;
        }
        case 3:
            if ((tp = tpd_table_get(&t, &key)) != NULL)
                tpd_table_remove(&t, tp);
            model[id].there = false;
            break;
        case 4:
            (void)tpd_table_changed(&t, &pk);
            break;
        case 5:
            if ((tp = tpd_table_ended(&t, (uint64_t)step)) == NULL)
                break;
            model[tp->e.id.b[0]].there = false;
            tpd_table_remove(&t, tp);
            break;
        case 6:
            tpd_walk_start(&t, (enum tpd_walk)(r >> 36 & 1));
            break;
        default: /* gives only what is there */
            tp = list_node_is_linked(&t.mark[r >> 36 & 1])
                     ? tpd_walk_next(&t, (enum tpd_walk)(r >> 36 & 1))
                     : NULL;
            assert_true(tp == NULL || model[tp->e.id.b[0]].there);
        }
        if (step % 20 == 0)
            check(&t);
    }
    tpd_table_forget_changes(&t);
    check(&t);
    tpd_table_free(&t);
}

/* A walk gives each transport once that was there all the time. */
static void test_walk(void **state)
{
    (void)state;
    static const uint8_t hash_key[16] = {1};
    struct tpd_table t;
    struct tpd_tp *tp;
    size_t n = 0;
    tpd_table_init(&t, hash_key, 0);
    for (size_t i = 0; i < IDS; i++) {
        struct tp_entry e = entry_of(i, i);
        assert_int_equal(tpd_table_put(&t, &e, i, &tp), 0);
    }
    tpd_walk_start(&t, TPD_WALK_LIST);
    tpd_walk_start(&t, TPD_WALK_RESTORE);
    while ((tp = tpd_walk_next(&t, TPD_WALK_LIST)) != NULL) {
        assert_int_equal(tp->e.id.b[0], n);
        if (n++ % 2 == 0)
            tpd_table_remove(&t, tp);
        if (n % 3 == 0)
            (void)tpd_walk_next(&t, TPD_WALK_RESTORE);
    }
    assert_int_equal(n, IDS);
    assert_int_equal(tpd_table_len(&t), IDS / 2);
    tpd_table_free(&t);
}

static void test_limits(void **state)
{
    (void)state;
    static const uint8_t hash_key[16] = {1};
    struct tpd_table t;
    struct tpd_tp *tp;
    struct tp_entry e = {.edges = {{.b = {1}}, {.b = {2}}}};
    tpd_table_init(&t, hash_key, TPD_EDGE_MAX + 10);
    for (int i = 0; i < TPD_EDGE_MAX; i++) {
        e.id.b[0] = (uint8_t)i;
        e.id.b[1] = (uint8_t)(i >> 8);
        assert_int_equal(tpd_table_put(&t, &e, 1, &tp), 0);
    }
    assert_false(tpd_table_room(&t, &e.edges[0], 1));
    e.id.b[2] = 1;
    assert_int_equal(tpd_table_put(&t, &e, 1, &tp), ERR_LIMIT);
    assert_int_equal(tpd_table_len(&t), TPD_EDGE_MAX);
    e.edges[1].b[0] = 3; /* a new key, which must not stay behind */
    assert_int_equal(tpd_table_put(&t, &e, 1, &tp), ERR_LIMIT);
    assert_null(tpd_table_edge(&t, &e.edges[1]));
    assert_true(t.refused >= 3);
    e.id.b[2] = 0; /* what is there may still change its label */
    e.edges[1].b[0] = 2;
    snprintf(e.label, sizeof(e.label), "other");
    assert_int_equal(tpd_table_put(&t, &e, 1, &tp), 0);
    tpd_table_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model),
        cmocka_unit_test(test_walk),
        cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
