/* Blocks and pattern of a measured stream: what is sent is checked byte by byte, whatever way the carrier cuts it. */
#include "apps/iperf_flow.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/err.h"
#include "tests/unit/prop.h"
#include "tests/unit/vectors.h"

static void make_pair(int fds[2])
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
}

static void test_head(void **state)
{
    struct iperf_head h = {IPERF_DOWN, 65536, 10, UINT64_C(0x123456789abcdef0)}, back;
    uint8_t bytes[IPERF_HEAD], bad[IPERF_HEAD];
    (void)state;
    iperf_head_put(bytes, &h);
    assert_int_equal(iperf_head_get(&back, bytes), 0);
    iperf_head_put(bad, &back);
    assert_memory_equal(bad, bytes, sizeof bad);
    assert_int_equal(back.mode, IPERF_DOWN);
    assert_int_equal(back.block, 65536);
    const struct {
        size_t at;
        uint8_t value;
    } wrong[] = {{0, 'x'}, {7, 0}, {8, 0}, {8, 4}, {9, 0x20}, {12, 1}, {14, 0x40}};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        memcpy(bad, bytes, sizeof bad);
        bad[wrong[i].at] = wrong[i].value;
        assert_int_equal(iperf_head_get(&back, bad), ERR_FORMAT);
    }
    h.block = 0;
    iperf_head_put(bad, &h);
    assert_int_equal(iperf_head_get(&back, bad), ERR_FORMAT);
}

/* In one piece or in many: the same bytes; and one that differs is counted. */
static void test_pattern(void **state)
{
    struct prop r = prop_init("iperf");
    uint8_t whole[1000], parts[1000];
    (void)state;
    for (int round = 0; round < 200; round++) {
        uint64_t seed = prop_u64(&r);
        struct iperf_pattern a = {seed, 0}, b = {seed, 0}, c = {seed, 0};
        iperf_pattern_fill(&a, whole, sizeof whole);
        for (size_t at = 0; at < sizeof parts;) {
            size_t n = 1 + prop_below(&r, 30);
            n = n < sizeof parts - at ? n : sizeof parts - at;
            iperf_pattern_fill(&b, parts + at, n);
            assert_int_equal(iperf_pattern_check(&c, parts + at, n), 0);
            at += n;
        }
        assert_memory_equal(whole, parts, sizeof whole);
        whole[prop_below(&r, sizeof whole)] ^= (uint8_t)(1 + prop_below(&r, 255));
        c.at = 0;
        assert_int_equal(iperf_pattern_check(&c, whole, sizeof whole), 1);
        memmove(whole, parts + 1, sizeof whole - 1); /* a byte is lost: nearly all are wrong */
        c.at = 0;
        assert_true(iperf_pattern_check(&c, whole, sizeof whole - 1) > 900);
    }
}

/* Source and sink over a socket that is small, and read in pieces. */
static void test_flow(void **state)
{
    struct prop r = prop_init("iperf-flow");
    (void)state;
    for (int round = 0; round < 30; round++) {
        uint64_t seed = prop_u64(&r), target = prop_below(&r, 3000000), now = 5;
        uint32_t block = 1 + (uint32_t)prop_below(&r, round % 2 == 0 ? 70000 : 50);
        struct iperf_source src;
        struct iperf_sink sink;
        int fds[2];
        make_pair(fds);
        assert_int_equal(iperf_source_init(&src, seed, block), 0);
        iperf_sink_init(&sink, seed);
        target = block < 100 ? target / 100 : target;
        while (!sink.done) {
            assert_int_equal(iperf_source_step(&src, fds[0], src.bytes >= target), 0);
            if (prop_below(&r, 3) > 0)
                assert_int_equal(iperf_sink_step(&sink, fds[1], now), 0);
            now += 10;
        }
        assert_true(src.done && src.bytes >= target);
        assert_int_equal(sink.result.bytes, src.bytes);
        assert_int_equal(sink.result.wrong, 0);
        assert_int_equal(sink.result.ns % 10, 0);
        iperf_source_free(&src);
        close(fds[0]);
        close(fds[1]);
    }
}

static int feed(struct iperf_sink *s, const void *p, size_t n)
{
    int fds[2], rc;
    make_pair(fds);
    assert_int_equal(write(fds[0], p, n), (ssize_t)n);
    close(fds[0]);
    rc = iperf_sink_step(s, fds[1], 1);
    close(fds[1]);
    return rc;
}

static void test_sink_and_what_is_wrong(void **state)
{
    struct iperf_sink s;
    struct iperf_pattern p = {7, 0};
    uint8_t block[4 + 8] = {0, 0, 0, 8};
    (void)state;
    iperf_pattern_fill(&p, block + 4, 8);
    iperf_sink_init(&s, 7);
    assert_int_equal(feed(&s, block, sizeof block), ERR_EOF); /* without its end */
    assert_int_equal(s.result.bytes, 8);
    assert_int_equal(s.result.wrong, 0);
    block[6] ^= 1;
    iperf_sink_init(&s, 7);
    assert_int_equal(feed(&s, block, sizeof block), ERR_EOF);
    assert_int_equal(s.result.wrong, 1);
    iperf_sink_init(&s, 7);
    assert_int_equal(feed(&s, "\x00\x10\x00\x01", 4), ERR_FORMAT);
    iperf_sink_init(&s, 7);
    assert_int_equal(feed(&s, "\x00\x00\x00\x00rest", 8), 0); /* what follows the end is not read */
    assert_true(s.done);
}

static void test_result(void **state)
{
    struct iperf_result a = {1, 2, UINT64_C(0xffeeddccbbaa9988)}, b;
    uint8_t bytes[IPERF_RESULT];
    (void)state;
    iperf_result_put(bytes, &a);
    iperf_result_get(&b, bytes);
    assert_memory_equal(&a, &b, sizeof a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_head),   cmocka_unit_test(test_pattern),
        cmocka_unit_test(test_flow),   cmocka_unit_test(test_sink_and_what_is_wrong),
        cmocka_unit_test(test_result),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
