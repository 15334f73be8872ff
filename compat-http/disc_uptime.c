#include <stdio.h>
#include <string.h>
#include <time.h>

#include "compat-http/disc_int.h"

#define UPTIME_MS (UINT64_C(8) * 86400000)

/* A client that registers is there: §3.4, dmsgd:uptime. */
size_t disc_uptime_add(const struct disc_job *j, struct kv_op *op, char keys[3][160], char seen[24])
{
    struct tm tm;
    time_t now = (time_t)(env_wall_ns(j->d->cfg.env) / 1000000000);
    char day[16];
    gmtime_r(&now, &tm);
    strftime(day, sizeof(day), "%Y-%m-%d", &tm);
    snprintf(keys[0], 160, "dmsgd:uptime:%s:%s", j->hex, day);
    snprintf(keys[1], 160, "dmsgd:uptime:online:%s", day);
    snprintf(keys[2], 160, "dmsgd:uptime:%s:%s:timeline", j->hex, day);
    snprintf(seen, 24, "%lld", (long long)now);
    struct kv_str hash = {keys[0], strlen(keys[0])}, online = {keys[1], strlen(keys[1])},
                  line = {keys[2], strlen(keys[2])};
    const char *type = j->entry->client_type;
    size_t n = 0;
    op[n++] = (struct kv_op){.cmd = KV_HINCR, .key = hash, .member = KV_STR("count"), .number = 1};
    op[n++] = (struct kv_op){
        .cmd = KV_HSET, .key = hash, .member = KV_STR("version"), .value = {type, strlen(type)}};
    op[n++] = (struct kv_op){
        .cmd = KV_HSET, .key = hash, .member = KV_STR("last_seen"), .value = {seen, strlen(seen)}};
    op[n++] = (struct kv_op){.cmd = KV_EXPIRE, .key = hash, .ttl_ms = UPTIME_MS};
    op[n++] = (struct kv_op){.cmd = KV_SADD, .key = online, .member = disc_key(j->hex)};
    op[n++] = (struct kv_op){.cmd = KV_EXPIRE, .key = online, .ttl_ms = UPTIME_MS};
    op[n++] = (struct kv_op){
        .cmd = KV_SETBIT, .key = line, .number = (uint64_t)(tm.tm_hour * 12 + tm.tm_min / 5)};
    op[n++] = (struct kv_op){.cmd = KV_EXPIRE, .key = line, .ttl_ms = UPTIME_MS};
    return n;
}
