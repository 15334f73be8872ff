/* wake: sleep, stops, clock jumps and changes of the network (incidents 89, 90). */
#include "node/wake.h"

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <string.h>

#include "tests/unit/prop.h"
#include "tests/unit/vectors.h"

#define HOUR (3600 * (int64_t)NS_PER_S)

struct told {
    unsigned calls;
    char why[64];
    int64_t s;
};

static void on_woken(void *arg, const char *why, int64_t s)
{
    struct told *t = arg;

    t->calls++;
    t->s = s;
    snprintf(t->why, sizeof t->why, "%s", why);
}

struct clocks {
    struct wake w;
    struct told t;
    uint64_t mono, boot;
    int64_t wall;
};

static void start(struct clocks *c)
{
    memset(c, 0, sizeof *c);
    c->w = (struct wake){.woken = on_woken, .arg = &c->t, .fd = -1};
    c->mono = 1000 * NS_PER_S;
    c->boot = 5000 * NS_PER_S;
    c->wall = 1790000000 * (int64_t)NS_PER_S;
}

static void tick(struct clocks *c, int64_t mono, int64_t boot, int64_t wall)
{
    c->mono += (uint64_t)mono;
    c->boot += (uint64_t)boot;
    c->wall += wall;
    wake_tick_at(&c->w, c->mono, c->boot, c->wall);
}

static void seconds(struct clocks *c, int n)
{
    const int64_t s = (int64_t)NS_PER_S;

    for (int i = 0; i < n; i++)
        tick(c, s, s, s);
}

/* Ticks of a busy machine are late; that is nothing. */
static void test_nothing_happens(void **state)
{
    struct clocks c;
    const int64_t late = 4 * (int64_t)NS_PER_S;

    (void)state;
    start(&c);
    seconds(&c, 3600);
    for (int i = 0; i < 10; i++)
        tick(&c, late, late, late);
    for (int i = 0; i < 100; i++) /* NTP slews by a few ms */
        tick(&c, (int64_t)NS_PER_S, (int64_t)NS_PER_S,
             (int64_t)NS_PER_S + (i % 2 ? 20 : -20) * (int64_t)NS_PER_MS);
    assert_int_equal(c.t.calls, 0);
}

/* The clock goes by an hour or a day, in both directions: told once each (incident 89). */
static void test_clock_jumps(void **state)
{
    static const int64_t jumps[] = {HOUR, -HOUR, 24 * HOUR, -24 * HOUR, 87600 * HOUR};
    const int64_t s = (int64_t)NS_PER_S;
    struct clocks c;

    (void)state;
    start(&c);
    seconds(&c, 10);
    for (unsigned i = 0; i < sizeof jumps / sizeof jumps[0]; i++) {
        tick(&c, s, s, s + jumps[i]);
        assert_int_equal(c.t.calls, i + 1);
        assert_string_equal(c.t.why, "the clock jumped");
        assert_int_equal(c.t.s, jumps[i] / s);
        seconds(&c, 60);
        assert_int_equal(c.t.calls, i + 1);
    }
}

/* A stop of 5 minutes is one event, not 300 missed ones; so is a suspend. */
static void test_stop_and_suspend(void **state)
{
    const int64_t s = (int64_t)NS_PER_S;
    struct clocks c;

    (void)state;
    start(&c);
    seconds(&c, 10);
    tick(&c, 300 * s, 300 * s, 300 * s);
    assert_int_equal(c.t.calls, 1);
    assert_string_equal(c.t.why, "the process was stopped");
    seconds(&c, 60);
    tick(&c, s, 8 * HOUR, 8 * HOUR);
    assert_int_equal(c.t.calls, 2);
    assert_string_equal(c.t.why, "the machine was suspended");
    assert_int_equal(c.t.s, 8 * HOUR / s - 1);
    seconds(&c, 60);
    assert_int_equal(c.t.calls, 2);
}

/* ---- rtnetlink (incident 90) ---- */

static size_t message(uint8_t *out, unsigned type, size_t body)
{
    struct nlmsghdr h = {.nlmsg_len = (uint32_t)NLMSG_LENGTH(body), .nlmsg_type = (uint16_t)type};

    memset(out, 0, NLMSG_SPACE(body));
    memcpy(out, &h, sizeof h);
    return NLMSG_SPACE(body);
}

static void test_messages(void **state)
{
    uint8_t buf[512];

    (void)state;
    size_t n = message(buf, RTM_NEWLINK, 20);
    assert_false(wake_concerns(buf, n));
    n += message(buf + n, RTM_DELROUTE, 12);
    assert_true(wake_concerns(buf, n));
    assert_false(wake_concerns(buf, n - 13)); /* cut short */
    n = message(buf, RTM_NEWADDR, 8);
    assert_true(wake_concerns(buf, n));
    for (size_t i = 0; i < n; i++)
        assert_false(wake_concerns(buf, i));
    buf[0] = 3; /* shorter than its header */
    assert_false(wake_concerns(buf, n));
    memset(buf, 0, sizeof buf);
    assert_false(wake_concerns(buf, sizeof buf));
}

static void run(struct drive_loop *d, uint64_t *now, uint64_t ns)
{
    *now += ns;
    loop_turn(drive_loop_loop(d), *now);
}

/* Ten changes in a row are one; more come at most every 5 s. */
static void test_changes_settle(void **state)
{
    struct drive_loop *d = drive_loop_new(NULL);
    struct told t = {0};
    struct wake w;

    (void)state;
    assert_non_null(d);
    wake_init(&w, d, on_woken, &t);
    uint64_t now = drive_loop_now(d);
    wake_tick_at(&w, now, now, 0);
    for (int i = 0; i < 10; i++) {
        wake_network(&w);
        run(d, &now, 100 * NS_PER_MS);
    }
    assert_int_equal(t.calls, 0);
    run(d, &now, 500 * NS_PER_MS);
    assert_int_equal(t.calls, 1);
    assert_string_equal(t.why, "the network changed");
    for (int i = 0; i < 40; i++) { /* 4 s of unrest: too soon after the last time */
        wake_network(&w);
        run(d, &now, 100 * NS_PER_MS);
    }
    assert_int_equal(t.calls, 1);
    for (int i = 0; i < 6; i++) {
        run(d, &now, NS_PER_S);
        wake_tick_at(&w, now, now, (int64_t)now);
    }
    assert_int_equal(t.calls, 2);
    wake_close(&w);
    wake_close(&w);
    drive_loop_free(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_happens),  cmocka_unit_test(test_clock_jumps),
        cmocka_unit_test(test_stop_and_suspend), cmocka_unit_test(test_messages),
        cmocka_unit_test(test_changes_settle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
