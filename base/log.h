/*
 * log - one line an event, on stderr.
 *
 * A line is a short message followed by key=value pairs:
 *
 *     log_info(LOG_RELAY, "session closed peer=%s age_s=%" PRIu64 " reason=\"%s\"", LOG_PK(&pk),
 * age_s, err_str(rc));
 *
 * Values with blanks go into double quotes. What a peer sent goes through LOG_TEXT(), which quotes
 * and escapes it; secrets go nowhere. Public keys go through LOG_PK(): abbreviated in text, whole
 * in JSON.
 *
 * Formats
 *     text     2026-11-20T13:16:50.123Z info relay session closed peer=02ab19c4 age_s=7
 * reason="reset by the peer" journal  <6>relay session closed …      (systemd: level as prefix, it
 * has the time itself) JSON     {"time":"…","level":"info","sub":"relay","msg":"session
 * closed","peer":"02ab…","age_s":7,"reason":"reset by the peer"} Members are the pairs of the line:
 * a bare decimal integer is a number, everything else a string. So text that may look like a number
 * must be quoted.
 *
 * Levels are per subsystem and may be changed at any time by any thread
 * (log_set_levels("info,dht=debug")); a call whose level is off costs one load and a branch, its
 * arguments are not evaluated. Default: info, text, stderr.
 *
 * Lines that a peer can trigger are limited (log_limited(), log_limited_here()): a token bucket a
 * place in the code; the next line that passes carries suppressed=N.
 *
 * Threads: everything may be called from any thread, except log_set_sink() and log_set_clock(),
 * which belong before threads start. Each line is one write() under one lock. errno is kept.
 * Limits: LOG_LINE_MAX bytes of message, then it ends with "..."; control characters that slipped
 * in become '?'. Errors: none reach the caller; lines that stderr did not take are counted
 * (log_lost()).
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/crypto.h"

#define LOG_LINE_MAX 1024
#define LOG_TEXT_MAX 192 /* LOG_TEXT(): quotes, escapes and NUL included */

enum log_sub {
    LOG_NODE,    /* start, stop, configuration, roles */
    LOG_RELAY,   /* relay server and bridges */
    LOG_CLIENT,  /* dialling, reconciling servers */
    LOG_SESSION, /* handshakes and mux */
    LOG_STREAM,
    LOG_DHT,
    LOG_STORE,
    LOG_HTTP, /* façade, mirrors, discovery client */
    LOG_CTL,  /* control socket */
    LOG_APP,  /* curl, web, socks, pty … */
    LOG_SIM,
    LOG__SUBS
};

enum log_level {
    LOG_LEVEL_OFF,
    LOG_LEVEL_ERROR, /* the operator has to act */
    LOG_LEVEL_WARN,  /* something is wrong and was coped with */
    LOG_LEVEL_INFO,  /* what the node does, a few lines a minute */
    LOG_LEVEL_DEBUG, /* state transitions */
    LOG_LEVEL_TRACE, /* single frames and messages */
    LOG__LEVELS
};

enum log_format {
    LOG_FORMAT_TEXT,
    LOG_FORMAT_JOURNAL,
    LOG_FORMAT_JSON,
};

/* Token bucket of one place in the code. Zeroed: bursts of 10, then one line a second. */
struct log_limit {
    uint32_t burst;       /* lines at once */
    uint32_t interval_ms; /* one more after that time */
    atomic_ullong until_ns;
    atomic_uint suppressed;
};

extern atomic_uchar log_levels[LOG__SUBS]; /* for log_enabled() only */

static inline bool log_enabled(enum log_sub sub, enum log_level level)
{
    return __builtin_expect(
        atomic_load_explicit(&log_levels[sub], memory_order_relaxed) >= (unsigned char)level, 0);
}

#define log_at(sub, level, ...)                                                                    \
    do {                                                                                           \
        if (log_enabled(sub, level))                                                               \
            log_write(sub, level, __VA_ARGS__);                                                    \
    } while (0)

#define log_error(sub, ...) log_at(sub, LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(sub, ...)  log_at(sub, LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(sub, ...)  log_at(sub, LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(sub, ...) log_at(sub, LOG_LEVEL_DEBUG, __VA_ARGS__)
#define log_trace(sub, ...) log_at(sub, LOG_LEVEL_TRACE, __VA_ARGS__)

/* The same under the caller's limit (struct log_limit *), for instance one per session … */
#define log_limited(limit, sub, level, ...)                                                        \
    do {                                                                                           \
        if (log_enabled(sub, level))                                                               \
            log_write_limited(limit, sub, level, __VA_ARGS__);                                     \
    } while (0)

/* … or under a limit of this very place. */
#define log_limited_here(sub, level, ...)                                                          \
    do {                                                                                           \
        static struct log_limit log_limit_here_;                                                   \
        log_limited(&log_limit_here_, sub, level, __VA_ARGS__);                                    \
    } while (0)

/* Arguments for %s, valid until the end of the enclosing block. */
#define LOG_PK(pk)     log_pk((char[PUBKEY_HEX + 1]){0}, (pk))
#define LOG_TEXT(p, n) log_text((char[LOG_TEXT_MAX]){0}, LOG_TEXT_MAX, (p), (n))

/* Write the line without looking at the level; normally reached through the macros. */
void log_write(enum log_sub sub, enum log_level level, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void log_write_limited(struct log_limit *limit, enum log_sub sub, enum log_level level,
                       const char *fmt, ...) __attribute__((format(printf, 4, 5)));

/* The key as the present format shows it. Returns out. */
const char *log_pk(char out[PUBKEY_HEX + 1], const struct pubkey *pk);

/* n bytes of a peer's text (p may be NULL when n is 0) as "…" with escapes \" \\ \n \r \t \xNN, so
 * that it is one printable ASCII value; ends with ... inside the quotes when it does not fit cap
 * (>= 8) bytes. Returns out. */
const char *log_text(char *out, size_t cap, const void *p, size_t n);

/* Levels from text: LEVEL or SUB=LEVEL, separated by commas, later ones win: "info,dht=debug". 0,
 * or ERR_USAGE with nothing changed and the reason in why (why_cap > 0). */
int log_set_levels(const char *spec, char *why, size_t why_cap) __attribute__((warn_unused_result));

/* The present levels in the same form. Returns out, cut to cap (160 is always enough). */
char *log_levels_text(char *out, size_t cap);

/* Names, for help texts and control commands; NULL beyond the end. */
const char *log_sub_name(enum log_sub sub);
const char *log_level_name(enum log_level level);

void log_set_format(enum log_format format);

/* Journal when stderr is the journal (JOURNAL_STREAM names the file behind it), else text. */
enum log_format log_format_for_stderr(void);

/* Where finished lines go; n counts the '\n' at their end. NULL = stderr. The sink is called under
 * the log's lock and may not log. */
typedef void log_sink_fn(void *ctx, enum log_level level, const char *line, size_t n);
void log_set_sink(log_sink_fn *sink, void *ctx);

/* Where the time comes from, for stamps and limits: ns since 1970. NULL = the system's clock. */
typedef int64_t log_clock_fn(void *ctx);
void log_set_clock(log_clock_fn *clock, void *ctx);

/* Counter: lines that could not be written to stderr. */
uint64_t log_lost(void);
