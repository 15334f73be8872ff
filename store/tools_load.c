#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/base64.h"
#include "base/err.h"
#include "base/hex.h"
#include "base/json.h"
#include "store/tools.h"
#include "store/tools_int.h"

#define LINE_CAP     (256u << 10)
#define ERRORS_SHOWN 20
#define SYNC_WAIT_MS 60000
#define BATCH        10000 /* puts between two waits for the disk */

struct load {
    struct store *s;
    FILE *errors;
    struct store_load_report *report;
    char line[LINE_CAP];
    uint8_t v[ITEM_MAX_VALUE], salt[ITEM_MAX_SALT];
    char text[BASE64_LEN(ITEM_MAX_VALUE) + 1];
};

/* ---- one line ---- */

enum member {
    M_TARGET,
    M_KIND,
    M_K,
    M_SEQ,
    M_SIG,
    M_V,
    M_SALT,
    M_STORED,
    M_EXPIRES,
    M_TIER,
    M_ORIGIN,
    M_CHARGED,
    M_RANK_TIME,
    M_RANK_SEQ,
    M__COUNT
};

static const char *const member_names[M__COUNT] = {
    "target",    "kind",       "k",    "seq",    "sig",     "v",         "salt",
    "stored_ns", "expires_ns", "tier", "origin", "charged", "rank_time", "rank_seq"};

#define REQUIRED (1u << M_TARGET | 1u << M_K | 1u << M_SEQ | 1u << M_SIG | 1u << M_V)

static void read_hex(struct load *l, struct json_in *j, void *out, size_t size)
{
    size_t n;

    if (!json_in_string(j, l->text, sizeof l->text, &n) || hex_decode(out, size, l->text, n) != 0)
        json_in_fail(j, ERR_FORMAT);
}

/* Null leaves *p at NULL. */
static void read_base64(struct load *l, struct json_in *j, uint8_t *buf, size_t cap,
                        const uint8_t **p, size_t *n)
{
    size_t len;

    if (!json_in_string(j, l->text, sizeof l->text, &len))
        return;
    if (base64_decode(buf, cap, n, l->text, len) != 0)
        json_in_fail(j, ERR_FORMAT);
    *p = buf;
}

static unsigned read_name(struct load *l, struct json_in *j, const char *const *names,
                          unsigned count)
{
    size_t n;

    if (!json_in_string(j, l->text, sizeof l->text, &n))
        return 0;
    for (unsigned i = 0; i < count; i++) {
        if (strcmp(l->text, names[i]) == 0)
            return i;
    }
    json_in_fail(j, ERR_FORMAT);
    return 0;
}

static void read_member(struct load *l, struct json_in *j, enum member m, struct store_rec *rec)
{
    struct item *it = &rec->item;

    switch (m) {
    case M_TARGET:
        read_hex(l, j, rec->target.b, sizeof rec->target.b);
        break;
    case M_KIND:
        rec->kind = (enum item_kind)read_name(l, j, store_kind_names, ITEM_KIND__COUNT);
        break;
    case M_K:
        read_hex(l, j, it->k.b, sizeof it->k.b);
        break;
    case M_SEQ:
        json_in_u64(j, &it->seq);
        break;
    case M_SIG:
        read_hex(l, j, it->sig.b, sizeof it->sig.b);
        break;
    case M_V:
        read_base64(l, j, l->v, sizeof l->v, &it->v, &it->v_len);
        break;
    case M_SALT:
        read_base64(l, j, l->salt, sizeof l->salt, &it->salt, &it->salt_len);
        break;
    case M_STORED:
        json_in_i64(j, &rec->stored_ns);
        break;
    case M_EXPIRES:
        json_in_i64(j, &rec->expires_ns);
        break;
    case M_TIER:
        rec->tier = (enum item_tier)read_name(l, j, store_tier_names, 3);
        break;
    case M_ORIGIN:
        rec->origin = (enum store_origin)read_name(l, j, store_origin_names, 3);
        break;
    case M_CHARGED:
        read_hex(l, j, rec->charged.b, sizeof rec->charged.b);
        break;
    case M_RANK_TIME:
        json_in_i64(j, &rec->rank_time);
        break;
    case M_RANK_SEQ:
        json_in_u64(j, &rec->rank_seq);
        break;
    case M__COUNT:
        break;
    }
}

/* ERR_FORMAT or 0; v and salt point into *l. */
static int parse_line(struct load *l, size_t n, struct store_rec *rec)
{
    struct json_in j = json_in_init(l->line, n);
    unsigned seen = 0;

    *rec = (struct store_rec){.origin = STORE_REPLICA, .expires_ns = INT64_MAX};
    if (!json_in_object(&j))
        return ERR_FORMAT;
    while (json_in_member(&j)) {
        int m = json_in_name_find(&j, member_names, M__COUNT);
        if (m < 0) {
            json_in_skip(&j);
            continue;
        }
        seen |= 1u << m;
        read_member(l, &j, (enum member)m, rec);
    }
    if (json_in_end_input(&j) != 0 || (seen & REQUIRED) != REQUIRED)
        return ERR_FORMAT;
    if ((seen & 1u << M_CHARGED) == 0)
        rec->charged = rec->item.k;
    return 0;
}

/* ---- all lines ---- */

static void __attribute__((format(printf, 2, 3))) refuse(struct load *l, const char *fmt, ...)
{
    va_list ap;

    if (l->report->refused++ >= ERRORS_SHOWN)
        return;
    fprintf(l->errors, "line %llu: ", (unsigned long long)l->report->lines);
    va_start(ap, fmt);
    vfprintf(l->errors, fmt, ap);
    va_end(ap);
    fputc('\n', l->errors);
}

/* The next line without its end. False at the end of the file. A line that is too long gives *n =
 * LINE_CAP and is skipped to its end. */
static bool next_line(struct load *l, FILE *in, size_t *n)
{
    int c = getc(in);

    *n = 0;
    if (c == EOF)
        return false;
    for (; c != EOF && c != '\n'; c = getc(in)) {
        if (*n < LINE_CAP)
            l->line[(*n)++] = (char)c;
    }
    return true;
}

static int put(struct load *l, const struct store_rec *rec)
{
    int rc = l->s->ops->put(l->s, rec);

    if (rc == ERR_BUSY) { /* faster than the disk */
        rc = l->s->ops->sync(l->s, SYNC_WAIT_MS);
        if (rc == 0)
            rc = l->s->ops->put(l->s, rec);
    }
    return rc;
}

/* 0 or an error that ends the loading. */
static int load_line(struct load *l, size_t n)
{
    struct store_rec rec;

    if (n == LINE_CAP || parse_line(l, n, &rec) != 0) {
        refuse(l, "not a record");
        return 0;
    }
    int rc = store_record_check(&rec);
    if (rc != 0) {
        refuse(l,
               rc == ERR_SIG ? "the signature does not verify" : "not the record of this target");
        return 0;
    }
    rc = put(l, &rec);
    l->report->stored += rc == 0;
    l->report->older += rc == ERR_SEQ;
    return rc == ERR_SEQ ? 0 : rc;
}

int store_tool_load(struct store *s, FILE *in, FILE *errors, struct store_load_report *report)
{
    struct load *l = malloc(sizeof *l);
    size_t n;
    int rc = 0;

    *report = (struct store_load_report){0};
    if (l == NULL)
        return ERR_NOMEM;
    l->s = s;
    l->errors = errors;
    l->report = report;
    while (rc == 0 && next_line(l, in, &n)) {
        report->lines++;
        if (n > 0)
            rc = load_line(l, n);
        if (rc == 0 && report->lines % BATCH == 0)
            rc = s->ops->sync(s, SYNC_WAIT_MS);
    }
    free(l);
    if (rc == 0 && ferror(in))
        rc = err_sys();
    int end = s->ops->sync(s, SYNC_WAIT_MS);
    if (rc == 0)
        rc = end;
    return rc == 0 && report->refused > 0 ? ERR_FORMAT : rc;
}
