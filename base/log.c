#include "base/log.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"
#include "base/hex.h"
#include "base/json.h"

#define NS_PER_MS        INT64_C(1000000)
#define NS_PER_S         INT64_C(1000000000)
#define STAMP_LEN        25
#define BURST_DEFAULT    10
#define INTERVAL_DEFAULT 1000 /* ms */
/* Escaping makes a byte six at most; stamp, level and names come on top. */
#define OUT_MAX (6 * LOG_LINE_MAX + 512)

static const char *const sub_names[LOG__SUBS] = {
    [LOG_NODE] = "node",       [LOG_RELAY] = "relay",   [LOG_CLIENT] = "client",
    [LOG_SESSION] = "session", [LOG_STREAM] = "stream", [LOG_DHT] = "dht",
    [LOG_STORE] = "store",     [LOG_HTTP] = "http",     [LOG_CTL] = "ctl",
    [LOG_APP] = "app",         [LOG_SIM] = "sim",
};

static const char *const level_names[LOG__LEVELS] = {"off",  "error", "warn",
                                                     "info", "debug", "trace"};

/* sd-daemon(3): the levels of syslog */
static const char journal_level[LOG__LEVELS] = {'7', '3', '4', '6', '7', '7'};

atomic_uchar log_levels[LOG__SUBS] = {[0 ... LOG__SUBS - 1] = LOG_LEVEL_INFO};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static log_sink_fn *sink_fn;
static void *sink_ctx;
static log_clock_fn *clock_fn;
static void *clock_ctx;
static atomic_int format_now = LOG_FORMAT_TEXT;
static atomic_ullong lost;

/* ---- values ---- */

const char *log_pk(char out[PUBKEY_HEX + 1], const struct pubkey *pk)
{
    return atomic_load(&format_now) == LOG_FORMAT_JSON ? pubkey_hex(out, pk)
                                                       : pubkey_short(out, pk);
}

/* Escaped form of one byte in out; returns its length (1, 2 or 4). */
static size_t escape(char out[5], uint8_t c)
{
    static const char digits[] = "0123456789abcdef";
    const char *two = c == '"'    ? "\\\""
                      : c == '\\' ? "\\\\"
                      : c == '\n' ? "\\n"
                      : c == '\r' ? "\\r"
                      : c == '\t' ? "\\t"
                                  : NULL;
    if (two != NULL) {
        memcpy(out, two, 2);
        return 2;
    }
    if (c >= 0x20 && c < 0x7f) {
        out[0] = (char)c;
        return 1;
    }
    out[0] = '\\';
    out[1] = 'x';
    out[2] = digits[c >> 4];
    out[3] = digits[c & 15];
    return 4;
}

const char *log_text(char *out, size_t cap, const void *p, size_t n)
{
    const uint8_t *src = p;
    size_t len = 0, room = cap - 3; /* two quotes and the NUL */
    size_t safe = 0;                /* longest prefix that leaves room for "..." */
    assert(cap >= 8);
    out[0] = '"';
    char *text = out + 1;
    for (size_t i = 0; i < n; i++) {
        char e[5];
        size_t k = escape(e, src[i]);
        if (room - len < k) {
            memcpy(text + safe, "...", 3);
            len = safe + 3;
            break;
        }
        memcpy(text + len, e, k);
        len += k;
        if (len + 3 <= room)
            safe = len;
    }
    memcpy(text + len, "\"", 2);
    return out;
}

/* Undo escape() for the n bytes of a quoted value; out has room for n. Returns the length. */
static size_t unescape(char *out, const char *p, size_t n)
{
    size_t len = 0;
    for (size_t i = 0; i < n; i++) {
        char c = p[i];
        if (c == '\\' && i + 1 < n) {
            c = p[++i];
            if (c == 'x' && n - i > 2 && hex_decode(&c, 1, p + i + 1, 2) == 0)
                i += 2;
            else
                c = c == 'n' ? '\n' : c == 'r' ? '\r' : c == 't' ? '\t' : p[i];
        }
        out[len++] = c;
    }
    return len;
}

/* ---- pairs of a line, for JSON ---- */

/* Length of "key=" at p, 0 when there is none. */
static size_t key_len(const char *p)
{
    size_t n = 0;
    while ((p[n] >= 'a' && p[n] <= 'z') || (n > 0 && ((p[n] >= '0' && p[n] <= '9') || p[n] == '_')))
        n++;
    return n > 0 && p[n] == '=' ? n + 1 : 0;
}

/* End of a bare value: the next blank that is followed by a key, or the end of the line. */
static const char *bare_end(const char *p)
{
    while (*p != '\0' && !(*p == ' ' && (p[1] == '\0' || key_len(p + 1) > 0)))
        p++;
    return p;
}

/* The closing quote, or the end of a line that was cut. */
static const char *quoted_end(const char *p)
{
    while (*p != '\0' && *p != '"')
        p += *p == '\\' && p[1] != '\0' ? 2 : 1;
    return p;
}

/* A decimal integer that every JSON reader keeps exactly. */
static bool is_integer(const char *p, size_t n)
{
    size_t i = n > 0 && p[0] == '-';
    if (n - i == 0 || n - i > 15 || (p[i] == '0' && n - i > 1))
        return false;
    for (; i < n; i++) {
        if (p[i] < '0' || p[i] > '9')
            return false;
    }
    return true;
}

static const char *emit_value(struct json_out *o, const char *p)
{
    if (*p != '"') {
        const char *end = bare_end(p);
        if (is_integer(p, (size_t)(end - p)))
            json_out_raw(o, p, (size_t)(end - p));
        else
            json_out_string(o, p, (size_t)(end - p));
        return end;
    }
    const char *end = quoted_end(p + 1);
    char raw[LOG_LINE_MAX];
    json_out_string(o, raw, unescape(raw, p + 1, (size_t)(end - p - 1)));
    return *end == '"' ? end + 1 : end;
}

static void emit_message(struct json_out *o, const char *msg)
{
    const char *p = msg;
    while (*p != '\0' && !((p == msg || p[-1] == ' ') && key_len(p) > 0))
        p++;
    size_t n = (size_t)(p - msg);
    json_out_name(o, "msg");
    json_out_string(o, msg, n > 0 && msg[n - 1] == ' ' ? n - 1 : n);
    while (*p != '\0') {
        size_t k = key_len(p);
        if (*p == ' ') {
            p++;
        } else if (k == 0) { /* glued to a quoted value */
            p = bare_end(p);
        } else {
            json_out_name_n(o, p, k - 1);
            p = emit_value(o, p + k);
        }
    }
}

/* ---- lines ---- */

static int64_t clock_now(void)
{
    if (clock_fn != NULL)
        return clock_fn(clock_ctx);
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

static void stamp(char out[STAMP_LEN], int64_t now_ns)
{
    time_t sec = (time_t)(now_ns / NS_PER_S);
    unsigned ms = (unsigned)(now_ns % NS_PER_S / NS_PER_MS) % 1000;
    struct tm tm;
    gmtime_r(&sec, &tm);
    size_t n = strftime(out, STAMP_LEN, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(out + n, STAMP_LEN - n, ".%03uZ", ms);
}

static size_t format_plain(char *out, enum log_sub sub, enum log_level level, const char *msg,
                           bool journal)
{
    int n;
    if (journal) {
        n = snprintf(out, OUT_MAX, "<%c>%s %s\n", journal_level[level], sub_names[sub], msg);
    } else {
        char at[STAMP_LEN];
        stamp(at, clock_now());
        n = snprintf(out, OUT_MAX, "%s %s %s %s\n", at, level_names[level], sub_names[sub], msg);
    }
    return (size_t)n;
}

static size_t format_json(char *out, enum log_sub sub, enum log_level level, const char *msg)
{
    char at[STAMP_LEN];
    struct json_out o;
    stamp(at, clock_now());
    json_out_fixed(&o, JSON_STD, out, OUT_MAX - 1);
    json_out_object(&o);
    json_out_name(&o, "time");
    json_out_str(&o, at);
    json_out_name(&o, "level");
    json_out_str(&o, level_names[level]);
    json_out_name(&o, "sub");
    json_out_str(&o, sub_names[sub]);
    emit_message(&o, msg);
    json_out_object_end(&o);
    assert(o.err == 0);
    out[o.len] = '\n';
    return o.len + 1;
}

static void write_stderr(const char *line, size_t n)
{
    while (n > 0) {
        ssize_t done = write(STDERR_FILENO, line, n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0) {
            atomic_fetch_add(&lost, 1);
            return;
        }
        line += done;
        n -= (size_t)done;
    }
}

static void emit(enum log_sub sub, enum log_level level, const char *msg)
{
    char line[OUT_MAX];
    int format = atomic_load(&format_now);
    size_t n = format == LOG_FORMAT_JSON
                   ? format_json(line, sub, level, msg)
                   : format_plain(line, sub, level, msg, format == LOG_FORMAT_JOURNAL);
    pthread_mutex_lock(&lock);
    if (sink_fn != NULL)
        sink_fn(sink_ctx, level, line, n);
    else
        write_stderr(line, n);
    pthread_mutex_unlock(&lock);
}

__attribute__((format(printf, 4, 0))) static void
write_line(enum log_sub sub, enum log_level level, unsigned suppressed, const char *fmt, va_list ap)
{
    int saved = errno;
    char msg[LOG_LINE_MAX], tail[32] = "";
    if (suppressed > 0)
        snprintf(tail, sizeof tail, " suppressed=%u", suppressed);
    size_t cap = sizeof msg - strlen(tail);
    int want = vsnprintf(msg, cap, fmt, ap);
    if (want < 0)
        snprintf(msg, cap, "unprintable message");
    else if ((size_t)want >= cap)
        memcpy(msg + cap - 4, "...", 4);
    for (char *p = msg; *p != '\0'; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = '?';
    }
    memcpy(msg + strlen(msg), tail, strlen(tail) + 1);
    emit(sub, level, msg);
    errno = saved;
}

void log_write(enum log_sub sub, enum log_level level, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    write_line(sub, level, 0, fmt, ap);
    va_end(ap);
}

/*
 * Token bucket as one number: until_ns is the time up to which the lines written so far have used
 * the rate; it may run ahead of the clock by `burst` intervals.
 */
static bool limit_pass(struct log_limit *limit)
{
    uint64_t interval =
        (uint64_t)(limit->interval_ms > 0 ? limit->interval_ms : INTERVAL_DEFAULT) * NS_PER_MS;
    uint64_t ahead = interval * (limit->burst > 0 ? limit->burst : BURST_DEFAULT);
    uint64_t now = (uint64_t)clock_now();
    unsigned long long until = atomic_load(&limit->until_ns);
    uint64_t next;
    do {
        /* Also when the clock was set back: nothing stays silent for longer than the bucket is
         * deep. */
        uint64_t from = until < now || until - now > ahead ? now : until;
        next = from + interval;
        if (next - now > ahead) {
            atomic_fetch_add(&limit->suppressed, 1);
            return false;
        }
    } while (!atomic_compare_exchange_weak(&limit->until_ns, &until, next));
    return true;
}

void log_write_limited(struct log_limit *limit, enum log_sub sub, enum log_level level,
                       const char *fmt, ...)
{
    if (!limit_pass(limit))
        return;
    va_list ap;
    va_start(ap, fmt);
    write_line(sub, level, atomic_exchange(&limit->suppressed, 0), fmt, ap);
    va_end(ap);
}

/* ---- settings ---- */

const char *log_sub_name(enum log_sub sub)
{
    return (unsigned)sub < LOG__SUBS ? sub_names[sub] : NULL;
}

const char *log_level_name(enum log_level level)
{
    return (unsigned)level < LOG__LEVELS ? level_names[level] : NULL;
}

/* Index of the n bytes in a list of names, -1 when absent. */
static int find_name(const char *const *names, int count, const char *p, size_t n)
{
    for (int i = 0; i < count; i++) {
        if (strlen(names[i]) == n && memcmp(names[i], p, n) == 0)
            return i;
    }
    return -1;
}

static int parse_item(unsigned char levels[LOG__SUBS], const char *p, size_t n, char *why,
                      size_t why_cap)
{
    const char *eq = memchr(p, '=', n);
    const char *level_text = eq != NULL ? eq + 1 : p;
    size_t level_len = n - (size_t)(level_text - p);
    char shown[64];
    int sub = -1;
    if (eq != NULL && (sub = find_name(sub_names, LOG__SUBS, p, (size_t)(eq - p))) < 0) {
        snprintf(why, why_cap, "no such log subsystem: %s",
                 log_text(shown, sizeof shown, p, (size_t)(eq - p)));
        return ERR_USAGE;
    }
    int level = find_name(level_names, LOG__LEVELS, level_text, level_len);
    if (level < 0) {
        snprintf(why, why_cap, "no such log level: %s",
                 log_text(shown, sizeof shown, level_text, level_len));
        return ERR_USAGE;
    }
    for (int i = 0; i < LOG__SUBS; i++) {
        if (sub < 0 || sub == i)
            levels[i] = (unsigned char)level;
    }
    return 0;
}

int log_set_levels(const char *spec, char *why, size_t why_cap)
{
    unsigned char levels[LOG__SUBS];
    for (int i = 0; i < LOG__SUBS; i++)
        levels[i] = atomic_load(&log_levels[i]);
    for (const char *p = spec;; p++) {
        size_t n = strcspn(p, ",");
        int rc = parse_item(levels, p, n, why, why_cap);
        if (rc != 0)
            return rc;
        p += n;
        if (*p == '\0')
            break;
    }
    for (int i = 0; i < LOG__SUBS; i++)
        atomic_store(&log_levels[i], levels[i]);
    return 0;
}

char *log_levels_text(char *out, size_t cap)
{
    unsigned count[LOG__LEVELS] = {0};
    int common = 0;
    for (int i = 0; i < LOG__SUBS; i++)
        count[atomic_load(&log_levels[i])]++;
    for (int l = 1; l < LOG__LEVELS; l++) {
        if (count[l] > count[common])
            common = l;
    }
    size_t len = (size_t)snprintf(out, cap, "%s", level_names[common]);
    for (int i = 0; i < LOG__SUBS && len < cap; i++) {
        int level = atomic_load(&log_levels[i]);
        if (level != common)
            len +=
                (size_t)snprintf(out + len, cap - len, ",%s=%s", sub_names[i], level_names[level]);
    }
    return out;
}

void log_set_format(enum log_format format)
{
    atomic_store(&format_now, format);
}

enum log_format log_format_for_stderr(void)
{
    const char *text = getenv("JOURNAL_STREAM");
    char want[64];
    struct stat st;
    if (text == NULL || fstat(STDERR_FILENO, &st) != 0)
        return LOG_FORMAT_TEXT;
    snprintf(want, sizeof want, "%ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
    return strcmp(text, want) == 0 ? LOG_FORMAT_JOURNAL : LOG_FORMAT_TEXT;
}

void log_set_sink(log_sink_fn *sink, void *ctx)
{
    pthread_mutex_lock(&lock);
    sink_fn = sink;
    sink_ctx = ctx;
    pthread_mutex_unlock(&lock);
}

void log_set_clock(log_clock_fn *clock, void *ctx)
{
    clock_fn = clock;
    clock_ctx = ctx;
}

uint64_t log_lost(void)
{
    return atomic_load(&lost);
}
