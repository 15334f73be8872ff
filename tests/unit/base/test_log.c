#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/err.h"
#include "base/log.h"
#include "tests/unit/prop.h"

static char last[8192];
static size_t last_len;
static enum log_level last_level;
static unsigned lines;

static void keep(void *ctx, enum log_level level, const char *line, size_t n)
{
    assert_ptr_equal(ctx, &lines);
    assert_true(n < sizeof last);
    memcpy(last, line, n);
    last[n] = '\0';
    last_len = n;
    last_level = level;
    lines++;
}

static int64_t now_ns;

static int64_t test_clock(void *ctx)
{
    (void)ctx;
    return now_ns;
}

static int setup(void **state)
{
    (void)state;
    char why[100];
    now_ns = INT64_C(1779283010123456789); /* 2026-05-20T13:16:50.123 */
    lines = 0;
    last[0] = '\0';
    log_set_sink(keep, &lines);
    log_set_clock(test_clock, NULL);
    log_set_format(LOG_FORMAT_TEXT);
    return log_set_levels("info", why, sizeof why);
}

static const struct pubkey key = {{0x02, 0xab, 0x19, 0xc4, 0xff}};

static void test_text_line(void **state)
{
    (void)state;
    errno = 7;
    log_info(LOG_RELAY, "session closed peer=%s n=%d reason=\"%s\"", LOG_PK(&key), 7,
             err_str(ERR_RESET));
    assert_int_equal(errno, 7);
    assert_string_equal(last, "2026-05-20T13:16:50.123Z info relay session closed peer=02ab19c4 "
                              "n=7 reason=\"reset by the peer\"\n");
    assert_int_equal(last_len, strlen(last));
    assert_int_equal(last_level, LOG_LEVEL_INFO);
    log_set_format(LOG_FORMAT_JOURNAL);
    log_error(LOG_STORE, "disk full");
    assert_string_equal(last, "<3>store disk full\n");
    log_warn(LOG_STORE, "w");
    assert_string_equal(last, "<4>store w\n");
}

static void test_off_levels_do_not_evaluate(void **state)
{
    (void)state;
    char why[100];
    int evaluated = 0;
    log_debug(LOG_DHT, "n=%d", ++evaluated);
    assert_int_equal(lines + (unsigned)evaluated, 0);
    assert_int_equal(log_set_levels("warn,dht=debug", why, sizeof why), 0);
    log_debug(LOG_DHT, "n=%d", ++evaluated);
    log_trace(LOG_DHT, "n=%d", ++evaluated);
    log_info(LOG_NODE, "n=%d", ++evaluated);
    log_warn(LOG_NODE, "n=%d", ++evaluated);
    assert_int_equal(lines, 2);
    assert_int_equal(evaluated, 2);
    assert_int_equal(log_set_levels("off", why, sizeof why), 0);
    log_error(LOG_NODE, "n=%d", ++evaluated);
    assert_int_equal(lines, 2);
}

static void test_level_texts(void **state)
{
    (void)state;
    char why[100], text[160];
    assert_int_equal(log_set_levels("info,dht=debug,relay=trace", why, sizeof why), 0);
    assert_string_equal(log_levels_text(text, sizeof text), "info,relay=trace,dht=debug");
    assert_int_equal(log_set_levels("dht=info", why, sizeof why), 0);
    assert_string_equal(log_levels_text(text, sizeof text), "info,relay=trace");
    assert_int_equal(log_set_levels("dht=debug,error", why, sizeof why), 0); /* later ones win */
    assert_string_equal(log_levels_text(text, sizeof text), "error");
    assert_string_equal(log_levels_text(text, 4), "err");

    static const struct {
        const char *spec, *why;
    } bad[] = {
        {"", "no such log level: \"\""},
        {"loud", "no such log level: \"loud\""},
        {"debug,", "no such log level: \"\""},
        {"debug,,info", "no such log level: \"\""},
        {"debug,dht=", "no such log level: \"\""},
        {"debug,dht=info ", "no such log level: \"info \""},
        {"debug,tht=info", "no such log subsystem: \"tht\""},
        {"=info", "no such log subsystem: \"\""},
        {"INFO\n", "no such log level: \"INFO\\n\""},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(log_set_levels(bad[i].spec, why, sizeof why), ERR_USAGE);
        assert_string_equal(why, bad[i].why);
        assert_string_equal(log_levels_text(text, sizeof text), "error");
    }
    /* The longest text fits what the header promises. */
    char all[400] = "";
    for (int s = 0; s < LOG__SUBS; s++) {
        assert_non_null(log_sub_name((enum log_sub)s));
        snprintf(all + strlen(all), sizeof all - strlen(all), "%s%s=%s", s ? "," : "",
                 log_sub_name((enum log_sub)s), s % 2 ? "trace" : "error");
    }
    assert_int_equal(log_set_levels(all, why, sizeof why), 0);
    assert_true(strlen(log_levels_text(all, sizeof all)) < sizeof text);
    assert_null(log_sub_name(LOG__SUBS));
    assert_null(log_level_name(LOG__LEVELS));
    assert_string_equal(log_level_name(LOG_LEVEL_TRACE), "trace");
}

static void test_peer_text(void **state)
{
    (void)state;
    char out[64];
    assert_string_equal(log_text(out, sizeof out, "abc d", 5), "\"abc d\"");
    assert_string_equal(log_text(out, sizeof out, "a\"b\\c\n\r\t\0\x1b\x7f\xff", 12),
                        "\"a\\\"b\\\\c\\n\\r\\t\\x00\\x1b\\x7f\\xff\"");
    assert_string_equal(log_text(out, sizeof out, NULL, 0), "\"\"");
    assert_string_equal(log_text(out, 8, "12345", 5), "\"12345\"");
    assert_string_equal(log_text(out, 8, "123456", 6), "\"12...\"");
    assert_string_equal(log_text(out, 8, "12\xff", 3), "\"12...\"");
    assert_string_equal(log_text(out, 8, "\xff\xff", 2), "\"...\"");
}

static void test_lines_stay_one_line(void **state)
{
    (void)state;
    log_set_format(LOG_FORMAT_JOURNAL);
    log_info(LOG_APP, "path=%s", "a\nb\x1b[31m\x7f");
    assert_string_equal(last, "<6>app path=a?b?[31m?\n");

    char big[3 * LOG_LINE_MAX];
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    log_info(LOG_APP, "%s", big);
    assert_int_equal(last_len, strlen("<6>app ") + LOG_LINE_MAX - 1 + 1);
    assert_string_equal(last + last_len - 5, "x...\n");
}

static void expect_json(const char *want)
{
    json_error_t e;
    json_t *a = json_loads(last, JSON_REJECT_DUPLICATES, &e), *b = json_loads(want, 0, &e);
    assert_non_null(a);
    assert_non_null(b);
    if (!json_equal(a, b))
        fail_msg("%s is not %s", last, want);
    json_decref(a);
    json_decref(b);
}

#define HEAD "{\"time\":\"2026-05-20T13:16:50.123Z\",\"level\":\"info\",\"sub\":\"dht\","

static void test_json(void **state)
{
    (void)state;
    log_set_format(LOG_FORMAT_JSON);
    log_info(LOG_DHT, "look-up done pk=%s hops=%d why=\"%s\" ratio=0.5 n=007 neg=-3 empty= q=\"\"",
             LOG_PK(&key), 3, "all asked");
    expect_json(HEAD
                "\"msg\":\"look-up done\",\"pk\":"
                "\"02ab19c4ff00000000000000000000000000000000000000000000000000000000\",\"hops\":"
                "3,\"why\":\"all asked\",\"ratio\":\"0.5\",\"n\":\"007\",\"neg\":-3,"
                "\"empty\":\"\",\"q\":\"\"}");
    assert_int_equal(last[last_len - 1], '\n');
    log_info(LOG_DHT, "plain");
    expect_json(HEAD "\"msg\":\"plain\"}");
    log_info(LOG_DHT, "a=1");
    expect_json(HEAD "\"msg\":\"\",\"a\":1}");
    log_info(LOG_DHT, "x y=some more words z=1 ");
    expect_json(HEAD "\"msg\":\"x\",\"y\":\"some more words\",\"z\":1}");
    log_info(LOG_DHT, "x y=\"cut");
    expect_json(HEAD "\"msg\":\"x\",\"y\":\"cut\"}");
    log_info(LOG_DHT, "x y=\"a\"b c=1");
    expect_json(HEAD "\"msg\":\"x\",\"y\":\"a\",\"c\":1}");
    log_info(LOG_DHT, "x y=123456789012345678");
    expect_json(HEAD "\"msg\":\"x\",\"y\":\"123456789012345678\"}");
    log_info(LOG_DHT, "got text=%s", LOG_TEXT("a\"\\ \xc3\xa9 k=v\n\x01", 12));
    expect_json(HEAD "\"msg\":\"got\",\"text\":\"a\\\"\\\\ é k=v\\n\\u0001\"}");
    log_info(LOG_DHT, "raw=%s", "\xff<");
    expect_json(HEAD "\"msg\":\"\",\"raw\":\"\\ufffd<\"}");
}

static void test_json_survives_anything(void **state)
{
    (void)state;
    struct prop r = prop_init("log lines as JSON");
    static const char frequent[] = "  ==\"\"\\\\nx0aab_<\xc3\xa9\n";
    for (int i = 0; i < 3000; i++) {
        char text[2 * LOG_LINE_MAX];
        size_t n = prop_size(&r, sizeof text - 1);
        for (size_t k = 0; k < n; k++) {
            text[k] = prop_chance(&r, 90) ? frequent[prop_below(&r, sizeof frequent - 1)]
                                          : (char)(1 + prop_below(&r, 255));
        }
        text[n] = '\0';
        log_set_format(LOG_FORMAT_JSON);
        log_info(LOG_DHT, "%s", text);
        json_t *j = json_loadb(last, last_len, JSON_ALLOW_NUL, NULL);
        assert_non_null(j);
        json_decref(j);
        assert_ptr_equal(strchr(last, '\n'), last + last_len - 1);
        log_info(LOG_DHT, "got it text=%s", LOG_TEXT(text, n));
        j = json_loadb(last, last_len, JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, NULL);
        assert_non_null(j);
        assert_int_equal(json_object_size(j), 5); /* a peer cannot forge a pair */
        json_decref(j);
    }
}

static void test_limit(void **state)
{
    (void)state;
    struct log_limit limit = {.burst = 3, .interval_ms = 1000};
    log_set_format(LOG_FORMAT_JOURNAL);
    for (int i = 0; i < 10; i++)
        log_limited(&limit, LOG_RELAY, LOG_LEVEL_WARN, "bad frame i=%d", i);
    assert_int_equal(lines, 3);
    assert_string_equal(last, "<4>relay bad frame i=2\n");
    now_ns += 999000000;
    log_limited(&limit, LOG_RELAY, LOG_LEVEL_WARN, "bad frame");
    assert_int_equal(lines, 3);
    now_ns += 1000000;
    log_limited(&limit, LOG_RELAY, LOG_LEVEL_WARN, "bad frame");
    assert_int_equal(lines, 4);
    assert_string_equal(last, "<4>relay bad frame suppressed=8\n");
    now_ns += INT64_C(100000000000); /* the bucket fills, but not beyond its depth */
    for (int i = 0; i < 10; i++)
        log_limited(&limit, LOG_RELAY, LOG_LEVEL_WARN, "bad frame");
    assert_int_equal(lines, 7);
    now_ns -= INT64_C(3600000000000); /* a clock that was set back does not silence it */
    log_limited(&limit, LOG_RELAY, LOG_LEVEL_WARN, "bad frame");
    assert_int_equal(lines, 8);

    for (int i = 0; i < 30; i++) {
        log_limited_here(LOG_RELAY, LOG_LEVEL_INFO, "one place");
        log_limited_here(LOG_RELAY, LOG_LEVEL_DEBUG, "off");
    }
    assert_int_equal(lines, 18);
    /* The cut message keeps its suffix. */
    struct log_limit one = {.burst = 1, .suppressed = 5};
    char big[2 * LOG_LINE_MAX];
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    log_limited(&one, LOG_RELAY, LOG_LEVEL_WARN, "%s", big);
    assert_string_equal(last + last_len - 17, "... suppressed=5\n");
}

static void test_stderr(void **state)
{
    (void)state;
    int saved = dup(STDERR_FILENO), ends[2];
    assert_int_equal(pipe(ends), 0);
    log_set_sink(NULL, NULL);
    log_set_format(LOG_FORMAT_JOURNAL);
    dup2(ends[1], STDERR_FILENO);
    log_info(LOG_NODE, "hello");
    dup2(open("/dev/full", O_WRONLY), STDERR_FILENO);
    uint64_t before = log_lost();
    log_info(LOG_NODE, "nobody reads this");
    uint64_t after = log_lost();
    char line[100] = "";
    ssize_t n = read(ends[0], line, sizeof line - 1);

    /* Is stderr the journal? */
    struct stat st;
    char stream[100];
    unsetenv("JOURNAL_STREAM");
    enum log_format none = log_format_for_stderr();
    fstat(STDERR_FILENO, &st);
    snprintf(stream, sizeof stream, "%ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
    setenv("JOURNAL_STREAM", stream, 1);
    enum log_format same = log_format_for_stderr();
    setenv("JOURNAL_STREAM", "1:x", 1);
    enum log_format other = log_format_for_stderr();
    unsetenv("JOURNAL_STREAM");
    close(STDERR_FILENO);
    dup2(saved, STDERR_FILENO);
    close(saved);
    close(ends[0]);
    close(ends[1]);

    assert_int_equal(n, 14);
    assert_string_equal(line, "<6>node hello\n");
    assert_int_equal(after - before, 1);
    assert_int_equal(none, LOG_FORMAT_TEXT);
    assert_int_equal(same, LOG_FORMAT_JOURNAL);
    assert_int_equal(other, LOG_FORMAT_TEXT);
}

static struct log_limit shared_limit = {.burst = 100, .interval_ms = 1000000};

static void *many_lines(void *arg)
{
    char why[100];
    for (int i = 0; i < 1000; i++) {
        log_info(LOG_NODE, "thread=%s i=%d", (const char *)arg, i);
        log_limited(&shared_limit, LOG_NODE, LOG_LEVEL_WARN, "limited");
        if (log_set_levels(i % 2 ? "info" : "node=debug", why, sizeof why) != 0)
            return arg;
    }
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    pthread_t t[4];
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&t[i], NULL, many_lines, (void *)(uintptr_t) "x"), 0);
    for (size_t i = 0; i < 4; i++) {
        void *bad;
        pthread_join(t[i], &bad);
        assert_null(bad);
    }
    assert_int_equal(lines, 4000 + 100); /* under the log's lock: none is lost */
    assert_int_equal(shared_limit.suppressed, 3900);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_text_line, setup),
        cmocka_unit_test_setup(test_off_levels_do_not_evaluate, setup),
        cmocka_unit_test_setup(test_level_texts, setup),
        cmocka_unit_test_setup(test_peer_text, setup),
        cmocka_unit_test_setup(test_lines_stay_one_line, setup),
        cmocka_unit_test_setup(test_json, setup),
        cmocka_unit_test_setup(test_json_survives_anything, setup),
        cmocka_unit_test_setup(test_limit, setup),
        cmocka_unit_test_setup(test_stderr, setup),
        cmocka_unit_test_setup(test_threads, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
