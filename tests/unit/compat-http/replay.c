#include "tests/unit/compat-http/replay.h"

#include <stdio.h>

#include "tests/unit/compat-http/redis_rig.h"

/* Lists in any order are equal when they have the same elements. */
static bool same_set(const char *a, const char *b)
{
    json_t *x = json_loads(a, 0, NULL), *y = json_loads(b, 0, NULL), *v;
    size_t i, found = 0;
    if (!json_is_array(x) || !json_is_array(y)) {
        bool same = x != NULL && json_equal(x, y);
        json_decref(x);
        json_decref(y);
        return same;
    }
    json_array_foreach(x, i, v)
    {
        size_t k;
        json_t *w;
        json_array_foreach(y, k, w)
        {
            found += (size_t)json_equal(v, w);
        }
    }
    bool same = found == json_array_size(x) && found == json_array_size(y);
    json_decref(x);
    json_decref(y);
    return same;
}

static const char *content_type(const char *head)
{
    static char type[80];
    const char *at = strstr(head, "Content-Type: ");
    type[0] = '\0';
    if (at != NULL)
        snprintf(type, sizeof(type), "%.*s", (int)strcspn(at + 14, "\r"), at + 14);
    return type;
}

/* Members that are no text are recorded as hex. */
static bool is_member(const char *key, const char *member)
{
    static const char raw[] = "raw bytes, hex: ";
    uint8_t *bytes = NULL;
    size_t n = strlen(member);
    if (strncmp(member, raw, sizeof(raw) - 1) == 0)
        bytes = hex_dup(member + sizeof(raw) - 1, &n);
    redisReply *is = redisCommand(redis_rig.eyes, "SISMEMBER %s %b", key,
                                  bytes != NULL ? (const char *)bytes : member, n);
    bool found = is->integer == 1;
    freeReplyObject(is);
    free(bytes);
    return found;
}

static void compare_key(const char *key, const json_t *want)
{
    redisReply *t = redisCommand(redis_rig.eyes, "TYPE %s", key), *r,
               *ttl = redisCommand(redis_rig.eyes, "PTTL %s", key);
    assert_string_equal(t->str, vec_str(want, "type"));
    if (strcmp(t->str, "string") == 0) {
        r = redisCommand(redis_rig.eyes, "GET %s", key);
        assert_string_equal(r->str, vec_str(want, "value"));
    } else {
        const json_t *members = vec_get(want, "members");
        size_t i;
        json_t *m;
        r = redisCommand(redis_rig.eyes, "SMEMBERS %s", key);
        assert_int_equal(r->elements, json_array_size(members));
        json_array_foreach(members, i, m)
        {
            assert_true(is_member(key, json_string_value(m)));
        }
    }
    const json_t *life = vec_get(want, "ttl_ms");
    if (json_is_integer(life)) {
        long long most = json_integer_value(life) > 120000 ? 180000 : 120000;
        if (ttl->integer <= 0 || ttl->integer > most)
            fail_msg("%s lives for %lld ms, not %lld", key, ttl->integer, most);
    } else {
        assert_int_equal(ttl->integer, -1);
    }
    freeReplyObject(t);
    freeReplyObject(r);
    freeReplyObject(ttl);
}

static void compare_dump(const json_t *dump)
{
    const char *key;
    json_t *want;
    if (redis_rig.eyes == NULL || json_object_size(dump) == 0)
        return;
    redisReply *size = redisCommand(redis_rig.eyes, "DBSIZE");
    assert_int_equal(size->integer, json_object_size(dump));
    freeReplyObject(size);
    json_object_foreach((json_t *)(uintptr_t)dump, key, want)
    {
        compare_key(key, want);
    }
}

void replay_check(const json_t *v, const struct answer *a, bool as_set, bool dumps)
{
    const char *name = vec_str(v, "name");
    const json_t *res = vec_get(v, "response");
    const char *said = json_string_value(json_object_get(res, "body"));
    said = said != NULL ? said : "";
    const char *type =
        json_string_value(json_object_get(json_object_get(res, "headers"), "Content-Type"));
    if (a->status != vec_int(res, "status"))
        fail_msg("%s: %d %s", name, a->status, a->body);
    if (strcmp(content_type(a->head), type != NULL ? type : "") != 0)
        fail_msg("%s: %s", name, a->head);
    bool nosniff =
        json_object_get(json_object_get(res, "headers"), "X-Content-Type-Options") != NULL;
    assert_true(nosniff == (strstr(a->head, "X-Content-Type-Options: nosniff") != NULL));
    if (strcmp(vec_str(vec_get(v, "request"), "path"), "/health") == 0) {
        bool address = strstr(said, "dmsg_address") != NULL;
        assert_true(vec_int(res, "status") != 200 ||
                    (strncmp(a->body, "{\"build_info\":{\"version\":\"", 26) == 0 &&
                     address == (strstr(a->body, ",\"dmsg_address\":\"") != NULL)));
    } else if (as_set ? !same_set(a->body, said) : strcmp(a->body, said) != 0) {
        fail_msg("%s: %s\nnot %s", name, a->body, said);
    }
    if (dumps)
        compare_dump(json_object_get(v, "redis_after"));
}
