/*
 * Every mux over every carrier: open, ping, half-close, reset, idle, back-pressure, the end
 * (incident 7). What there is to test is in the tables of conformance.h.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "tests/unit/transport/conformance.h"
#include "tests/unit/vectors.h"

#define LONG_NS (60 * NS_PER_S)
#define PING_MS 30000u
#define DEAD_MS 10000u
#define WINDOW  262144u

/* ---- the bed ---- */

static bool bed_begin(struct bed *b)
{
    env_test_init(&b->env, 1);
    b->pool = bufpool_new(NULL);
    assert_non_null(b->pool);
    b->own = NULL;
    return b->carrier->begin(b);
}

static void sides_end(struct bed *b)
{
    for (int i = 0; i < 2; i++)
        if (b->side[i] != NULL)
            b->mux->end(b->side[i]);
    b->side[0] = b->side[1] = NULL;
}

/* Whatever a case did, nothing is left of it. */
static void bed_end(struct bed *b)
{
    sides_end(b);
    b->carrier->end(b);
    assert_int_equal(bufpool_in_use(b->pool), 0);
    bufpool_free(b->pool);
    env_test_close(&b->env);
}

/* A condition that is looked at, and may do its part, every millisecond. */
struct poll {
    struct loop_timer timer;
    struct bed *b;
    bool (*done)(void *arg);
    void *arg;
    bool stop;
};

static void on_poll(struct loop_timer *t)
{
    struct poll *p = container_of(t, struct poll, timer);
    p->stop = p->done(p->arg);
    if (!p->stop)
        loop_timer_set(p->b->loop, t, p->b->loop->now_ns + NS_PER_MS);
}

static bool until(struct bed *b, uint64_t ns, bool (*done)(void *arg), void *arg)
{
    struct poll p = {.timer.fn = on_poll, .b = b, .done = done, .arg = arg};
    loop_timer_set(b->loop, &p.timer, b->loop->now_ns);
    b->carrier->run(b, &p.stop, ns);
    loop_timer_cancel(b->loop, &p.timer);
    return p.stop;
}

static void pass(struct bed *b, uint64_t ns)
{
    bool no = false;
    b->carrier->run(b, &no, ns);
}

static bool both_up(void *arg)
{
    struct bed *b = arg;
    return b->mux->up(b->side[0]) && b->mux->up(b->side[1]);
}

static void sessions(struct bed *b)
{
    struct conn *c[2];
    b->carrier->pair(b, &c[0], &c[1]);
    for (int i = 0; i < 2; i++)
        b->side[i] = b->mux->begin(b, c[i], i == 0, PING_MS, DEAD_MS);
    assert_true(until(b, LONG_NS, both_up, b));
}

/* ---- streams that send and receive a pattern ---- */

struct flow {
    struct bed *b;
    struct mux_stream *x;
    uint64_t to_send, sent, got;
    uint8_t seed;
    bool shut_behind, wrong, keep;
    bool shut;
};

static uint8_t pattern(uint8_t seed, uint64_t at)
{
    return (uint8_t)(at * 7 + at / 251 + seed);
}

static void flow_send(struct flow *f)
{
    uint8_t buf[4096];
    size_t took = 1;
    while (took > 0 && f->sent < f->to_send) {
        size_t n = f->to_send - f->sent < sizeof(buf) ? f->to_send - f->sent : sizeof(buf);
        for (size_t i = 0; i < n; i++)
            buf[i] = pattern(f->seed, f->sent + i);
        took = f->b->mux->write(f->x, buf, n);
        f->sent += took;
    }
    if (f->shut_behind && !f->shut && f->sent == f->to_send) {
        f->b->mux->shut(f->x);
        f->shut = true;
    }
}

static void flow_take(struct flow *f, uint8_t seed)
{
    uint8_t buf[4096];
    size_t n;
    while (!f->keep && (n = f->b->mux->read(f->x, buf, sizeof(buf))) > 0)
        for (size_t i = 0; i < n; i++)
            f->wrong = f->wrong || buf[i] != pattern(seed, f->got++);
}

struct exchange { /* of both ends of one stream */
    struct flow end[2];
};

static void exchange_step(struct exchange *e)
{
    for (int i = 0; i < 2; i++)
        if (!e->end[i].b->mux->dead(e->end[i].x)) {
            flow_send(&e->end[i]);
            flow_take(&e->end[i], e->end[1 - i].seed);
        }
}

static bool exchanged(void *arg)
{
    struct exchange *e = arg;
    exchange_step(e);
    return e->end[0].got == e->end[1].to_send && e->end[1].got == e->end[0].to_send;
}

static bool ended(void *arg)
{
    struct exchange *e = arg;
    exchange_step(e);
    return e->end[0].b->mux->eof(e->end[0].x) && e->end[1].b->mux->eof(e->end[1].x);
}

struct accepting {
    struct bed *b;
    int side;
    struct mux_stream *x;
};

static bool accepted(void *arg)
{
    struct accepting *a = arg;
    a->x = a->b->mux->accept(a->b->side[a->side]);
    return a->x != NULL;
}

/* A stream that side `from` opens. */
static struct exchange stream(struct bed *b, int from)
{
    struct accepting a = {.b = b, .side = 1 - from};
    struct exchange e = {{{.b = b, .seed = 1}, {.b = b, .seed = 99}}};
    e.end[from].x = b->mux->open(b->side[from]);
    assert_true(until(b, LONG_NS, accepted, &a));
    e.end[1 - from].x = a.x;
    return e;
}

static void release(struct exchange *e)
{
    for (int i = 0; i < 2; i++)
        e->end[i].b->mux->release(e->end[i].x);
}

static bool no_streams(void *arg)
{
    struct bed *b = arg;
    return b->mux->streams(b->side[0]) == 0 && b->mux->streams(b->side[1]) == 0;
}

/* ---- the cases ---- */

static void case_open(struct bed *b)
{
    struct exchange e[20];
    sessions(b);
    for (int i = 0; i < 20; i++) {
        e[i] = stream(b, i % 2);
        for (int k = 0; k < 2; k++)
            e[i].end[k].to_send = (uint64_t)(i * 997);
    }
    assert_int_equal(b->mux->streams(b->side[0]), 20);
    assert_int_equal(b->mux->streams(b->side[1]), 20);
    for (int i = 0; i < 20; i++)
        assert_true(until(b, LONG_NS, exchanged, &e[i]));
    for (int i = 0; i < 20; i++) {
        assert_true(!e[i].end[0].wrong && !e[i].end[1].wrong);
        for (int k = 0; k < 2; k++) { /* and its end is heard on both sides */
            e[i].end[k].shut_behind = true;
            exchange_step(&e[i]);
        }
        assert_true(until(b, LONG_NS, ended, &e[i]));
        release(&e[i]);
    }
    assert_true(until(b, LONG_NS, no_streams, b));
}

struct pinging {
    struct bed *b;
    int side;
    unsigned want;
};

static bool ponged(void *arg)
{
    struct pinging *p = arg;
    return p->b->mux->pongs(p->b->side[p->side]) >= p->want;
}

static void case_ping(struct bed *b)
{
    sessions(b);
    for (int side = 0; side < 2; side++)
        for (unsigned i = 1; i <= 3; i++) {
            struct pinging p = {b, side, i};
            assert_int_equal(b->mux->ping(b->side[side]), 0);
            assert_int_equal(b->mux->ping(b->side[side]), ERR_BUSY); /* one at a time */
            assert_true(until(b, LONG_NS, ponged, &p));
        }
    assert_true(both_up(b));
}

static void case_half_close(struct bed *b)
{
    sessions(b);
    for (int from = 0; from < 2; from++) {
        struct exchange e = stream(b, from);
        struct flow *asks = &e.end[from], *answers = &e.end[1 - from];
        asks->to_send = 300000;
        asks->shut_behind = true;
        assert_true(until(b, LONG_NS, exchanged, &e));
        exchange_step(&e);
        assert_false(b->mux->dead(answers->x));
        answers->to_send = 400000; /* only now, the other way still goes */
        answers->shut_behind = true;
        assert_true(until(b, LONG_NS, ended, &e));
        assert_true(asks->got == 400000 && answers->got == 300000);
        assert_true(!asks->wrong && !answers->wrong);
        release(&e);
        assert_true(until(b, LONG_NS, no_streams, b));
    }
}

static bool both_dead(void *arg)
{
    struct exchange *e = arg;
    exchange_step(e);
    return e->end[0].b->mux->dead(e->end[0].x) && e->end[1].b->mux->dead(e->end[1].x);
}

static void case_reset(struct bed *b)
{
    sessions(b);
    struct exchange other = stream(b, 0);
    for (int side = 0; side < 2; side++) {
        struct exchange e = stream(b, 0);
        for (int k = 0; k < 2; k++)
            e.end[k].to_send = 1 << 20;
        for (int i = 0; i < 20; i++) { /* in the midst of it */
            exchange_step(&e);
            pass(b, NS_PER_MS);
        }
        b->mux->reset(e.end[side].x);
        assert_true(until(b, LONG_NS, both_dead, &e));
        release(&e);
    }
    for (int k = 0; k < 2; k++)
        other.end[k].to_send = 100000;
    assert_true(until(b, LONG_NS, exchanged, &other)); /* the session lives on */
    assert_true(!other.end[0].wrong && !other.end[1].wrong);
    release(&other);
    assert_true(until(b, LONG_NS, no_streams, b));
}

static bool first_down(void *arg)
{
    struct bed *b = arg;
    return b->mux->down(b->side[0]) != 0;
}

/* A quiet session lives by its pings; one whose peer answers nothing ends, with its streams. */
static void case_idle(struct bed *b)
{
    struct conn *c[2];
    b->carrier->pair(b, &c[0], &c[1]);
    b->side[0] = b->mux->begin(b, c[0], true, 200, 2000);
    b->side[1] = b->mux->begin(b, c[1], false, 0, 2000); /* only answers */
    assert_true(until(b, LONG_NS, both_up, b));
    struct exchange e = stream(b, 0);
    pass(b, 700 * NS_PER_MS);
    assert_true(both_up(b));
    assert_true(b->mux->pongs(b->side[0]) > 0);
    b->mux->deaf(b->side[1]);
    assert_true(until(b, LONG_NS, first_down, b));
    assert_int_equal(b->mux->down(b->side[0]), ERR_TIMEOUT);
    assert_true(b->mux->dead(e.end[0].x));
}

/* Who does not read stops its own stream, at a window's worth, and no other. */
static void case_back_pressure(struct bed *b)
{
    sessions(b);
    struct exchange slow = stream(b, 0), fast = stream(b, 0);
    slow.end[0].to_send = 2 << 20;
    slow.end[1].keep = true;
    for (int i = 0; i < 300; i++) {
        exchange_step(&slow);
        pass(b, 2 * NS_PER_MS);
        assert_in_range(b->mux->waiting(slow.end[1].x), 0, WINDOW);
        assert_in_range(slow.end[0].sent, 0, 2 * WINDOW);
    }
    fast.end[0].to_send = fast.end[1].to_send = 1 << 20;
    assert_true(until(b, LONG_NS, exchanged, &fast));
    assert_true(!fast.end[0].wrong && !fast.end[1].wrong);
    assert_in_range(b->mux->waiting(slow.end[1].x), 1, WINDOW);
    slow.end[1].keep = false;
    assert_true(until(b, LONG_NS, exchanged, &slow));
    assert_false(slow.end[1].wrong);
    release(&slow);
    release(&fast);
    assert_true(until(b, LONG_NS, no_streams, b));
}

/* One side ends with everything under way: the other hears of it, nothing is left of either. */
static void case_end(struct bed *b)
{
    sessions(b);
    struct exchange e[8];
    for (int i = 0; i < 8; i++) {
        e[i] = stream(b, i % 2);
        e[i].end[0].to_send = e[i].end[1].to_send = 1 << 20;
        exchange_step(&e[i]);
    }
    pass(b, 5 * NS_PER_MS);
    b->mux->end(b->side[1]);
    b->side[1] = NULL;
    assert_true(until(b, LONG_NS, first_down, b));
    for (int i = 0; i < 8; i++)
        assert_true(b->mux->dead(e[i].end[0].x));
}

/* Many streams, one after the other: ids go on, nothing piles up. */
static void case_churn(struct bed *b)
{
    sessions(b);
    for (int i = 0; i < 60; i++) {
        struct exchange e = stream(b, i % 2);
        e.end[0].to_send = e.end[1].to_send = 100;
        assert_true(until(b, LONG_NS, exchanged, &e));
        if (i % 3 == 0)
            b->mux->reset(e.end[i % 2].x);
        release(&e);
    }
    assert_true(until(b, LONG_NS, no_streams, b));
}

/* ---- cases × muxes × carriers ---- */

static const struct {
    const char *name;
    void (*run)(struct bed *b);
} cases[] = {
    {"open", case_open},   {"ping", case_ping},   {"half-close", case_half_close},
    {"reset", case_reset}, {"idle", case_idle},   {"back-pressure", case_back_pressure},
    {"end", case_end},     {"churn", case_churn},
};

struct combination {
    char name[120];
    void (*run)(struct bed *b);
    struct bed bed;
};

static void test_one(void **state)
{
    struct combination *c = *state;
    if (bed_begin(&c->bed))
        c->run(&c->bed);
    else
        assert_non_null(strstr(c->bed.carrier->name, "IPv6")); /* no machine lacks the others */
    bed_end(&c->bed);
}

/* A table of function pointers without a hole. */
static bool is_complete(const void *table, size_t size)
{
    void *p;
    for (size_t at = 0; at < size; at += sizeof(p)) {
        memcpy(&p, (const char *)table + at, sizeof(p));
        if (p == NULL)
            return false;
    }
    return true;
}

static bool tables_are_complete(void)
{
    for (size_t i = 0; carriers[i] != NULL; i++)
        if (!is_complete(carriers[i], sizeof(*carriers[i])))
            return false;
    for (size_t i = 0; muxes[i] != NULL; i++)
        if (!is_complete(muxes[i], sizeof(*muxes[i])))
            return false;
    return true;
}

int main(void)
{
    static struct combination all[256];
    static struct CMUnitTest tests[256];
    size_t n = 0;
    if (crypto_init() != 0 || !tables_are_complete())
        return 1;
    for (size_t m = 0; muxes[m] != NULL; m++)
        for (size_t c = 0; carriers[c] != NULL; c++)
            for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]) && n < 256; i++, n++) {
                struct combination *x = &all[n];
                snprintf(x->name, sizeof(x->name), "%s: %s over %s", cases[i].name, muxes[m]->name,
                         carriers[c]->name);
                x->run = cases[i].run;
                x->bed.mux = muxes[m];
                x->bed.carrier = carriers[c];
                tests[n] = (struct CMUnitTest){x->name, test_one, NULL, NULL, x};
            }
    return _cmocka_run_group_tests("conformance", tests, n, NULL, NULL);
}
