#include "base/cmdvalue.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "base/err.h"

#define NS_PER_S UINT64_C(1000000000)

__attribute__((format(printf, 3, 4))) static int refuse(char *why, size_t cap, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(why, cap, fmt, ap);
    va_end(ap);
    return ERR_USAGE;
}

size_t cmd_value_size(enum cmd_type type)
{
    switch (type) {
    case CMD_FLAG:
        return sizeof(bool);
    case CMD_STR:
        return sizeof(const char *);
    case CMD_U64:
    case CMD_BYTES:
    case CMD_SECONDS:
        return sizeof(uint64_t);
    case CMD_PORT:
        return sizeof(uint16_t);
    case CMD_CHOICE:
        return sizeof(int);
    case CMD_PUBKEY:
        return sizeof(struct pubkey);
    case CMD_SECKEY:
        return sizeof(struct seckey);
    case CMD_HOSTPORT:
    case CMD_LISTEN:
        return sizeof(struct addr_hostport);
    case CMD_PEER:
        return sizeof(struct addr_peer);
    case CMD_DMSG:
        return sizeof(struct addr_dmsg);
    }
    assert(false);
    return 0;
}

/* ---- numbers ---- */

struct unit {
    const char *name;
    uint64_t factor;
};

static const struct unit no_units[] = {{"", 1}, {NULL, 0}};
static const struct unit byte_units[] = {{"", 1},
                                         {"k", UINT64_C(1) << 10},
                                         {"K", UINT64_C(1) << 10},
                                         {"M", UINT64_C(1) << 20},
                                         {"G", UINT64_C(1) << 30},
                                         {"T", UINT64_C(1) << 40},
                                         {NULL, 0}};
static const struct unit time_units[] = {
    {"", NS_PER_S},         {"ms", NS_PER_S / 1000}, {"s", NS_PER_S}, {"m", 60 * NS_PER_S},
    {"h", 3600 * NS_PER_S}, {"d", 86400 * NS_PER_S}, {NULL, 0}};

/* Leading digits as a number; NULL when there are none or it overflows, else where they end. */
static const char *digits(uint64_t *out, const char *p)
{
    const char *start = p;
    uint64_t v = 0;
    for (; *p >= '0' && *p <= '9'; p++) {
        if (__builtin_mul_overflow(v, UINT64_C(10), &v) ||
            __builtin_add_overflow(v, (uint64_t)(*p - '0'), &v))
            return NULL;
    }
    *out = v;
    return p > start ? p : NULL;
}

/* DIGITS[.DIGITS]UNIT; a fraction (at most nine digits) only when the unit has room for it. False
 * when it is no such text or too large. */
static bool number_with_unit(uint64_t *out, const char *text, const struct unit *units)
{
    uint64_t whole, fraction = 0, scale = 1, part;
    const char *p = digits(&whole, text);
    if (p == NULL)
        return false;
    if (*p == '.') {
        const char *start = p + 1;
        p = digits(&fraction, start);
        if (p == NULL || p - start > 9)
            return false;
        for (; start < p; start++)
            scale *= 10;
    }
    for (; units->name != NULL; units++) {
        if (strcmp(units->name, p) == 0)
            break;
    }
    if (units->name == NULL || (scale > 1 && units->factor == 1))
        return false;
    /* The factor is below 2^47 and the fraction below 10^9, so split it to stay exact. */
    part = units->factor / scale * fraction + units->factor % scale * fraction / scale;
    return !__builtin_mul_overflow(whole, units->factor, out) &&
           !__builtin_add_overflow(*out, part, out);
}

static bool in_range(const struct cmd_opt *o, uint64_t v)
{
    return v >= o->min && (o->max == 0 || v <= o->max);
}

static int parse_u64(const struct cmd_opt *o, const char *text, void *out, char *why, size_t cap)
{
    uint64_t v;
    if (!number_with_unit(&v, text, no_units) || !in_range(o, v))
        return refuse(why, cap, "not a whole number from %" PRIu64 " to %" PRIu64, o->min,
                      o->max != 0 ? o->max : UINT64_MAX);
    memcpy(out, &v, sizeof v);
    return 0;
}

static int parse_bytes(const struct cmd_opt *o, const char *text, void *out, char *why, size_t cap)
{
    uint64_t v;
    if (!number_with_unit(&v, text, byte_units))
        return refuse(why, cap, "not a size such as 65536, 64k, 10M or 2G");
    if (!in_range(o, v))
        return refuse(why, cap, "not from %" PRIu64 " to %" PRIu64 " bytes", o->min,
                      o->max != 0 ? o->max : UINT64_MAX);
    memcpy(out, &v, sizeof v);
    return 0;
}

/* Nanoseconds as seconds with as many decimals as needed. */
static const char *seconds_text(char out[40], uint64_t ns)
{
    int n = snprintf(out, 40, "%" PRIu64 ".%09" PRIu64, ns / NS_PER_S, ns % NS_PER_S);
    while (out[n - 1] == '0')
        n--;
    out[out[n - 1] == '.' ? n - 1 : n] = '\0';
    return out;
}

static int parse_seconds(const struct cmd_opt *o, const char *text, void *out, char *why,
                         size_t cap)
{
    uint64_t v;
    char min[40], max[40];
    if (!number_with_unit(&v, text, time_units))
        return refuse(why, cap, "not a duration such as 20, 0.5, 500ms, 1m or 2h");
    if (!in_range(o, v))
        return refuse(why, cap, "not from %s to %s seconds", seconds_text(min, o->min),
                      seconds_text(max, o->max != 0 ? o->max : UINT64_MAX));
    memcpy(out, &v, sizeof v);
    return 0;
}

static int parse_port(const char *text, void *out, char *why, size_t cap)
{
    uint16_t v;
    if (addr_port_parse(&v, text, strlen(text), ADDR_STRICT) != 0)
        return refuse(why, cap, "not a port from 1 to 65535");
    memcpy(out, &v, sizeof v);
    return 0;
}

/* ---- words and keys ---- */

static int parse_flag(const char *text, void *out, char *why, size_t cap)
{
    bool yes = strcmp(text, "true") == 0 || strcmp(text, "1") == 0;
    if (!yes && strcmp(text, "false") != 0 && strcmp(text, "0") != 0)
        return refuse(why, cap, "not true or false");
    memcpy(out, &yes, sizeof yes);
    return 0;
}

static int parse_choice(const struct cmd_opt *o, const char *text, void *out, char *why, size_t cap)
{
    int index = 0;
    for (const char *p = o->choices;; p++, index++) {
        size_t n = strcspn(p, "|");
        if (strlen(text) == n && memcmp(p, text, n) == 0) {
            memcpy(out, &index, sizeof index);
            return 0;
        }
        p += n;
        if (*p == '\0')
            break;
    }
    return refuse(why, cap, "not one of %s", o->choices);
}

static int parse_pubkey(const char *text, void *out, char *why, size_t cap)
{
    struct pubkey pk;
    if (strlen(text) != PUBKEY_HEX)
        return refuse(why, cap, "key does not have 66 hex digits");
    if (pubkey_from_hex(&pk, text, PUBKEY_HEX) != 0)
        return refuse(why, cap, "not a public key");
    memcpy(out, &pk, sizeof pk);
    return 0;
}

static int parse_seckey(const char *text, void *out, char *why, size_t cap)
{
    if (seckey_from_hex(out, text, strlen(text)) != 0)
        return refuse(why, cap, "not a secret key of 64 hex digits");
    return 0;
}

/* ---- addresses ---- */

static int parse_addr(enum cmd_type type, const char *text, void *out, char *why, size_t cap)
{
    size_t n = strlen(text);
    const char *reason = "";
    int rc;
    if (type == CMD_PEER)
        rc = addr_peer_parse(out, text, n, &reason);
    else if (type == CMD_DMSG)
        rc = addr_dmsg_parse(out, text, n, &reason);
    else
        rc = addr_hostport_parse(
            out, text, n, type == CMD_LISTEN ? ADDR_PORT_0 | ADDR_ANY_HOST : ADDR_STRICT, &reason);
    return rc == 0 ? 0 : refuse(why, cap, "%s", reason);
}

int cmd_value_parse(const struct cmd_opt *o, const char *text, void *out, char *why, size_t why_cap)
{
    switch (o->type) {
    case CMD_FLAG:
        return parse_flag(text, out, why, why_cap);
    case CMD_STR:
        memcpy(out, &text, sizeof text);
        return 0;
    case CMD_U64:
        return parse_u64(o, text, out, why, why_cap);
    case CMD_BYTES:
        return parse_bytes(o, text, out, why, why_cap);
    case CMD_SECONDS:
        return parse_seconds(o, text, out, why, why_cap);
    case CMD_PORT:
        return parse_port(text, out, why, why_cap);
    case CMD_CHOICE:
        return parse_choice(o, text, out, why, why_cap);
    case CMD_PUBKEY:
        return parse_pubkey(text, out, why, why_cap);
    case CMD_SECKEY:
        return parse_seckey(text, out, why, why_cap);
    case CMD_HOSTPORT:
    case CMD_LISTEN:
    case CMD_PEER:
    case CMD_DMSG:
        return parse_addr(o->type, text, out, why, why_cap);
    }
    assert(false);
    return ERR_USAGE;
}
