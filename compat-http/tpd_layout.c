#include "compat-http/tpd_layout.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/err.h"
#include "base/json.h"
#include "kademlia/json_read.h"

size_t tpd_layout_key(char out[TPD_KEY_MAX], const struct tp_id *id)
{
    char text[TP_ID_TEXT + 1];
    return (size_t)snprintf(out, TPD_KEY_MAX, TPD_SERVICE ":tp:%s", tp_id_text(text, id));
}

size_t tpd_layout_value(char out[TPD_VALUE], const struct tp_entry *e,
                        const struct tpd_quality *quality, int64_t now_s)
{
    char id[TP_ID_TEXT + 1];
    struct json_out o;
    json_out_fixed(&o, JSON_STD, out, TPD_VALUE);
    json_out_object(&o);
    json_out_name(&o, "id");
    json_out_str(&o, tp_id_text(id, &e->id));
    json_out_name(&o, "edge_a");
    json_out_hex(&o, e->edges[0].b, PUBKEY_BYTES);
    json_out_name(&o, "edge_b");
    json_out_hex(&o, e->edges[1].b, PUBKEY_BYTES);
    json_out_name(&o, "type");
    json_out_str(&o, e->type);
    json_out_name(&o, "label");
    json_out_str(&o, e->label);
    json_out_name(&o, "lat_min");
    json_out_double(&o, quality->lat_min);
    json_out_name(&o, "lat_max");
    json_out_double(&o, quality->lat_max);
    json_out_name(&o, "lat_avg");
    json_out_double(&o, quality->lat_avg);
    json_out_name(&o, "bandwidth");
    json_out_double(&o, quality->bandwidth);
    json_out_name(&o, "last_update");
    json_out_i64(&o, now_s);
    json_out_object_end(&o);
    return o.err == 0 ? o.len : 0; /* texts are short: it fits */
}

static void read_number(struct json_in *j, double *out)
{
    char text[40];
    const char *p;
    size_t n;
    if (json_in_peek(j) != JSON_TOK_NUMBER) {
        json_in_skip(j);
        return;
    }
    json_in_skip_text(j, &p, &n);
    if (j->err != 0 || n >= sizeof(text))
        return;
    memcpy(text, p, n);
    text[n] = '\0';
    *out = strtod(text, NULL);
}

static void read_id(struct json_in *j, struct json_scratch *s, struct tp_id *id)
{
    const char *text;
    size_t n;
    if (json_read_text(j, s, &text, &n) && tp_id_from_text(id, text, n) < 0)
        json_in_fail(j, ERR_FORMAT);
}

int tpd_layout_read(struct tpd_stored *out, const void *p, size_t n)
{
    static const char *const names[] = {"id",        "edge_a",     "edge_b",  "type",
                                        "label",     "lat_min",    "lat_max", "lat_avg",
                                        "bandwidth", "last_update"};
    struct json_in j = json_in_init(p, n);
    struct json_scratch s = {0};
    bool has_id = false;
    memset(out, 0, sizeof(*out));
    if (!json_in_object(&j))
        return ERR_FORMAT;
    double *const numbers[] = {&out->quality.lat_min, &out->quality.lat_max, &out->quality.lat_avg,
                               &out->quality.bandwidth};
    while (json_in_member(&j)) {
        int i = json_in_name_find(&j, names, 10);
        if (i == 0) {
            read_id(&j, &s, &out->e.id);
            has_id = true;
        } else if (i == 1 || i == 2) {
            json_read_pubkey(&j, &s, &out->e.edges[i - 1]);
        } else if (i == 3 || i == 4) {
            json_read_short(&j, &s, i == 3 ? out->e.type : out->e.label, TP_TEXT_MAX + 1);
        } else if (i >= 5 && i <= 8) {
            read_number(&j, numbers[i - 5]);
        } else if (i == 9) {
            json_in_i64(&j, &out->last_update_s);
        } else {
            json_in_skip(&j);
        }
    }
    json_scratch_free(&s);
    return json_in_end_input(&j) == 0 && has_id ? 0 : ERR_FORMAT;
}

/* ---- changes ---- */

static struct kv_str edge_key(struct kv_batch *b, const struct pubkey *pk)
{
    char hex[PUBKEY_HEX + 1];
    return kv_batch_text(b, TPD_SERVICE ":edge:%s", pubkey_hex(hex, pk));
}

static struct kv_str id_text(struct kv_batch *b, const struct tp_id *id)
{
    char text[TP_ID_TEXT + 1];
    return kv_batch_copy(b, tp_id_text(text, id), TP_ID_TEXT);
}

static struct kv_str tp_key(struct kv_batch *b, const struct tp_id *id)
{
    char key[TPD_KEY_MAX];
    return kv_batch_copy(b, key, tpd_layout_key(key, id));
}

/* A transport of a key with itself has one edge. */
static int edges_of(const struct tp_entry *e)
{
    return pubkey_equal(&e->edges[0], &e->edges[1]) ? 1 : 2;
}

void tpd_layout_set(struct kv_batch *b, bool shared, const struct tp_entry *e,
                    const struct tpd_quality *quality, uint64_t ttl_ms, int64_t now_s)
{
    char value[TPD_VALUE];
    struct kv_str id = id_text(b, &e->id);
    struct kv_str v = kv_batch_copy(b, value, tpd_layout_value(value, e, quality, now_s));
    kv_batch_add(
        b, (struct kv_op){.cmd = KV_SET, .key = tp_key(b, &e->id), .value = v, .ttl_ms = ttl_ms});
    kv_batch_add(b, (struct kv_op){.cmd = KV_SADD, .key = TPD_INDEX, .member = id});
    for (int i = 0; shared && i < edges_of(e); i++) {
        struct kv_str edge = edge_key(b, &e->edges[i]);
        kv_batch_add(b, (struct kv_op){.cmd = KV_SADD, .key = edge, .member = id});
        if (ttl_ms != 0)
            kv_batch_add(b, (struct kv_op){.cmd = KV_EXPIRE, .key = edge, .ttl_ms = ttl_ms});
    }
}

void tpd_layout_del(struct kv_batch *b, bool shared, const struct tp_entry *e)
{
    struct kv_str id = id_text(b, &e->id);
    kv_batch_add(b, (struct kv_op){.cmd = KV_DEL, .key = tp_key(b, &e->id)});
    kv_batch_add(b, (struct kv_op){.cmd = KV_SREM, .key = TPD_INDEX, .member = id});
    for (int i = 0; shared && i < edges_of(e); i++)
        kv_batch_add(
            b, (struct kv_op){.cmd = KV_SREM, .key = edge_key(b, &e->edges[i]), .member = id});
}

/* ---- who was up when ---- */

#define SEEN_MS  (UINT64_C(36) * 3600000)
#define SLOTS_MS (UINT64_C(8) * 86400000)

char *tpd_layout_day(char out[TPD_DAY + 1], int64_t now_s)
{
    struct tm tm = {0};
    time_t t = (time_t)now_s;
    gmtime_r(&t, &tm);
    strftime(out, TPD_DAY + 1, "%Y-%m-%d", &tm);
    return out;
}

static void expire(struct kv_batch *b, struct kv_str key, uint64_t ms)
{
    kv_batch_add(b, (struct kv_op){.cmd = KV_EXPIRE, .key = key, .ttl_ms = ms});
}

void tpd_layout_seen(struct kv_batch *b, const struct tp_entry *e, int64_t now_s)
{
    char day[TPD_DAY + 1];
    struct kv_str id = id_text(b, &e->id);
    const char *text = id.p;
    if (strcmp(e->type, "dmsg") == 0)
        return;
    tpd_layout_day(day, now_s);
    struct kv_str hash = kv_batch_text(b, TPD_SERVICE ":tp-uptime:%.36s:%s", text, day);
    struct kv_str online = kv_batch_text(b, TPD_SERVICE ":tp-uptime:online:%s", day);
    struct kv_str line = kv_batch_text(b, TPD_SERVICE ":tp-uptime:%.36s:%s:timeline", text, day);
    kv_batch_add(b, (struct kv_op){.cmd = KV_HSET,
                                   .key = hash,
                                   .member = KV_STR("type"),
                                   .value = kv_batch_copy(b, e->type, strlen(e->type))});
    kv_batch_add(b, (struct kv_op){.cmd = KV_HSET,
                                   .key = hash,
                                   .member = KV_STR("last_seen"),
                                   .value = kv_batch_text(b, "%lld", (long long)now_s)});
    expire(b, hash, SEEN_MS);
    kv_batch_add(b, (struct kv_op){.cmd = KV_SADD, .key = online, .member = id});
    kv_batch_add(b, (struct kv_op){
                        .cmd = KV_SETBIT, .key = line, .number = (uint64_t)(now_s % 86400 / 300)});
    expire(b, line, SLOTS_MS);
}

void tpd_layout_seen_end(struct kv_batch *b, int64_t now_s)
{
    char day[TPD_DAY + 1];
    expire(b, kv_batch_text(b, TPD_SERVICE ":tp-uptime:online:%s", tpd_layout_day(day, now_s)),
           SEEN_MS);
}
