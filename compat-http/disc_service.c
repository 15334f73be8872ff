/*
 * Life of a registration:
 *
 *     parse, validate -> signature (ticket) -> the key's turn -> what is stored -> write -> answer, next of the key
 *
 * A job exists as long as the store, the signature or its turn may call back; its request may be dropped before (job.q NULL).
 */
#include "compat-http/disc_service.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/map.h"
#include "base/version.h"
#include "compat-http/disc_text.h"
#include "compat-http/httpauth.h"

#define SERVER_TTL_MS  120000
#define SHORT_TTL_MS   180000 /* ?timeout=true */
#define SERVERS_LISTED 512
#define BATCH_MAX      1000
#define PAST_NS        (INT64_C(60) * 1000000000)
#define FUTURE_NS      (INT64_C(5) * 1000000000)
#define LIST_NS        NS_PER_S
#define SNAPSHOT_NS    (15 * NS_PER_S)
#define SWEEP_NS       (10 * NS_PER_S)
#define UPTIME_MS      (UINT64_C(8) * 86400000)
#define ANSWER_MAX     ((size_t)256 << 20)
#define WAITING_MAX    4096

static const struct kv_str servers_set = {"servers", 7}, clients_set = {"clients", 7},
                           visors_set = {"visorClients", 12};

enum job_kind {
    JOB_SET,
    JOB_DELETE,
    JOB_GET,
    JOB_KEYS,
    JOB_LIST, /* servers */
    JOB_BATCH,
    JOB_DEREGISTER,
    JOB_SNAPSHOT,
    JOB_SWEEP,
};

struct job {
    struct list_node node; /* in service->jobs */
    struct list_node turn; /* in turn->queue while it waits for its key */
    struct disc_service *d;
    enum job_kind kind;
    struct service_req *q; /* NULL: nobody waits for the answer */
    struct entry *entry;
    char *text; /* what is stored */
    size_t text_len;
    struct hash digest[2];
    int n_digest, at;
    struct pk_wait wait;
    bool has_turn, existed, all, clients;
    struct pubkey pk;
    char hex[PUBKEY_HEX + 1];
    char *keys;   /* lists of keys: n of PUBKEY_HEX each */
    char **names; /* batch: as they were sent */
    size_t n;
};

struct turn { /* a key that is being written */
    struct pubkey pk;
    struct list queue;
};

struct made { /* a list that is kept for a moment */
    char *text;
    size_t n, count;
    uint64_t until_ns;
};

struct pair {
    struct pubkey server, client;
};

struct disc_service {
    struct disc_service_cfg cfg;
    struct list jobs;
    struct map turns;
    struct made available, all;
    struct pair *pair; /* sorted */
    size_t n_pairs;
    uint64_t pairs_ns;
    bool snapshot_under_way, sweep_under_way;
    struct list waiting; /* jobs that wait for the snapshot */
    struct loop_timer sweep;
    char started[64];
    struct disc_service_stat stat;
};

/* ---- jobs ---- */

static struct job *job_new(struct disc_service *d, enum job_kind kind, struct service_req *q)
{
    struct job *j = calloc(1, sizeof(*j));
    if (j == NULL)
        return NULL;
    j->d = d;
    j->kind = kind;
    j->q = q;
    if (q != NULL)
        q->user = j;
    list_push_back(&d->jobs, &j->node);
    d->stat.waiting++;
    return j;
}

static void turn_start(struct job *j);

static void turn_end(struct job *j)
{
    struct turn *t = map_get(&j->d->turns, &j->pk);
    struct job *next;
    if (!j->has_turn || t == NULL)
        return;
    j->has_turn = false;
    if ((next = list_pop_front_as(&t->queue, struct job, turn)) != NULL) {
        next->has_turn = true;
        turn_start(next);
        return;
    }
    (void)map_del(&j->d->turns, &j->pk);
    free(t);
}

static void job_free(struct job *j)
{
    env_pk_cancel(j->d->cfg.env, &j->wait);
    if (j->q != NULL)
        j->q->user = NULL;
    list_remove(&j->turn);
    turn_end(j);
    list_remove(&j->node);
    j->d->stat.waiting--;
    entry_free(j->entry);
    for (size_t i = 0; j->names != NULL && i < j->n; i++)
        free(j->names[i]);
    free(j->names);
    free(j->keys);
    free(j->text);
    free(j);
}

void disc_service_dropped(struct service_req *q)
{
    struct job *j = q->user;
    if (j != NULL)
        j->q = NULL; /* what it does to the store goes on */
}

/* ---- answers ---- */

static void say(struct service_req *q, enum disc_text t)
{
    char text[200];
    int n = snprintf(text, sizeof(text), "{\"message\":\"%s\",\"code\":%u}", disc_text_message(t),
                     disc_text_status(t));
    service_answer(q, disc_text_status(t), SERVICE_JSON, text, (size_t)n);
}

static void finish(struct job *j, enum disc_text t)
{
    j->d->stat.refused += disc_text_err(t) != 0 && (j->kind == JOB_SET || j->kind == JOB_DELETE);
    if (j->q != NULL)
        say(j->q, t);
    j->q = NULL;
    job_free(j);
}

static void finish_body(struct job *j, struct json_out *o)
{
    if (o->err != 0) {
        json_out_free(o);
        finish(j, DISC_UNEXPECTED);
        return;
    }
    if (j->q != NULL)
        service_answer_owned(j->q, 200, SERVICE_JSON, o->p, o->len);
    else
        json_out_free(o);
    j->q = NULL;
    job_free(j);
}

/* The store did not do it. */
static void store_failed(struct job *j, int err)
{
    j->d->stat.store_errors++;
    log_limited_here(LOG_HTTP, LOG_LEVEL_WARN, "store of the discovery reason=\"%s\"",
                     err_str(err));
    finish(j, DISC_UNEXPECTED);
}

/* For calls into the store: when it refuses at once. */
static void try_call(struct job *j, int rc)
{
    if (rc < 0)
        store_failed(j, rc);
}

static struct kv_str hex_key(const char *hex)
{
    return (struct kv_str){hex, PUBKEY_HEX};
}

/* ---- checks of a registration (§3.2) ---- */

/* Only the first JSON value of the body counts. */
static int parse(struct entry **out, const char *body, size_t n)
{
    struct json_in j = json_in_init(body, n);
    const char *p;
    size_t len;
    json_in_skip_text(&j, &p, &len);
    return j.err != 0 ? ERR_FORMAT : entry_parse(out, p, len);
}

/* Does a host:port that can be split say this host? As upstream's standard library splits it. */
static bool is_local(const char *address)
{
    char host[64] = "";
    struct in_addr four;
    struct in6_addr six;
    size_t n;
    if (address[0] == '[') {
        const char *end = strchr(address, ']');
        if (end == NULL || end[1] != ':' || strchr(end + 2, ':') != NULL)
            return false;
        address++;
        n = (size_t)(end - address);
    } else {
        const char *colon = strchr(address, ':');
        if (colon == NULL || strchr(colon + 1, ':') != NULL || strpbrk(address, "[]") != NULL)
            return false;
        n = (size_t)(colon - address);
    }
    if (n >= sizeof(host))
        return false;
    memcpy(host, address, n);
    if (n == 0)
        return true;
    if (inet_pton(AF_INET, host, &four) == 1)
        return ntohl(four.s_addr) >> 24 == 127;
    return inet_pton(AF_INET6, host, &six) == 1 &&
           (IN6_IS_ADDR_LOOPBACK(&six) || (IN6_IS_ADDR_V4MAPPED(&six) && six.s6_addr[12] == 127));
}

static enum disc_text validate(const struct disc_service *d, const struct entry *e, bool setting)
{
    if (setting && e->has_server && !d->cfg.test_mode && is_local(e->server.address))
        return DISC_LOOPBACK;
    if (e->version[0] == '\0')
        return DISC_NO_VERSION;
    if (!e->has_signature)
        return DISC_NO_SIGNATURE;
    if (pubkey_is_null(&e->static_pk))
        return DISC_NO_KEY;
    if (!e->has_client && !e->has_server)
        return DISC_NO_HALF;
    if (e->has_server && e->server.address[0] == '\0')
        return DISC_NO_ADDRESS;
    if (!e->has_client && !d->cfg.load_testing) {
        int64_t now = env_wall_ns(d->cfg.env);
        if (e->timestamp_ns < now - PAST_NS || e->timestamp_ns > now + FUTURE_NS)
            return DISC_OUTDATED;
    }
    return DISC_WROTE_NEW;
}

/* The signature text as it was sent: it is stored so. */
static bool sent_signature(const struct entry *e, const char **p, size_t *n)
{
    struct json_in j = json_in_init(e->text, e->text_len);
    bool found = false;
    if (json_in_object(&j))
        while (json_in_member(&j)) {
            if (json_in_name_is(&j, "signature")) {
                json_in_skip_text(&j, p, n);
                found = true;
            } else {
                json_in_skip(&j);
            }
        }
    return found && j.err == 0;
}

/* What is stored: the known members in canonical order with the signature as it was sent; when the signature covers more than those, the text as it came. */
static int make_text(struct job *j)
{
    const struct entry *e = j->entry;
    char *canon;
    const char *sig, *at;
    size_t n, sig_len;
    if (j->at == 1) {
        j->text = strndup(e->text, e->text_len);
        j->text_len = e->text_len;
        return j->text != NULL ? 0 : ERR_NOMEM;
    }
    int rc = entry_canonical(&canon, &n, e, false);
    if (rc < 0)
        return rc;
    /* It stands before "protocol", which is the last member, or at the end. */
    at = canon + n - 1;
    if (e->protocol[0] != '\0')
        for (const char *p = canon;
             (p = memmem(p, (size_t)(canon + n - p), ",\"protocol\":", 12)) != NULL; p++)
            at = p;
    if (!sent_signature(e, &sig, &sig_len) || (j->text = malloc(n + sig_len + 16)) == NULL) {
        free(canon);
        return ERR_NOMEM;
    }
    int len = sprintf(j->text, "%.*s,\"signature\":%.*s%.*s", (int)(at - canon), canon,
                      (int)sig_len, sig, (int)(canon + n - at), at);
    j->text_len = (size_t)len;
    free(canon);
    return 0;
}

/* ---- the key's turn ---- */

static void on_old(void *arg, const struct kv_answer *a);
static void on_deleted(void *arg, const struct kv_answer *a);

static int write_delete(struct disc_service *d, const char *hex, size_t n, kv_done_fn *fn,
                        void *arg)
{
    struct kv_op *op = calloc(4 * n + 1, sizeof(*op));
    size_t k = 0;
    if (op == NULL)
        return ERR_NOMEM;
    for (size_t i = 0; i < n; i++) {
        struct kv_str key = hex_key(hex + i * PUBKEY_HEX);
        op[k++] = (struct kv_op){.cmd = KV_DEL, .key = key};
        op[k++] = (struct kv_op){.cmd = KV_SREM, .key = servers_set, .member = key};
        op[k++] = (struct kv_op){.cmd = KV_SREM, .key = clients_set, .member = key};
        if (d->cfg.generation >= DISC_2024)
            op[k++] = (struct kv_op){.cmd = KV_SREM, .key = visors_set, .member = key};
    }
    int rc = kv_write(d->cfg.kv, op, k, fn, arg);
    free(op);
    return rc;
}

static void turn_start(struct job *j)
{
    struct kv_str key = hex_key(j->hex);
    if (j->kind == JOB_SET)
        try_call(j, kv_get(j->d->cfg.kv, &key, 1, on_old, j));
    else
        try_call(j, write_delete(j->d, j->hex, 1, on_deleted, j));
}

static void turn_wait(struct job *j)
{
    struct turn *t = map_get(&j->d->turns, &j->pk);
    if (t != NULL) {
        list_push_back(&t->queue, &j->turn);
        return;
    }
    if ((t = calloc(1, sizeof(*t))) == NULL) {
        finish(j, DISC_UNEXPECTED);
        return;
    }
    t->pk = j->pk;
    list_init(&t->queue);
    if (map_put(&j->d->turns, t) < 0) {
        free(t);
        finish(j, DISC_UNEXPECTED);
        return;
    }
    j->has_turn = true;
    turn_start(j);
}

/* ---- signature ---- */

static bool equal(const char *a, const char *b)
{
    return strcmp(a, b) == 0;
}

/* §3.5: what is stored of a server's type is our judgement. */
static void judge_server(struct disc_service *d, struct entry *e)
{
    bool official = equal(e->server.server_type, d->cfg.auth != NULL ? d->cfg.auth : "");
    for (size_t i = 0; i < d->cfg.n_official; i++)
        official = official || pubkey_equal(&e->static_pk, &d->cfg.official[i]);
    e->server.server_type = official ? "official" : "community";
}

static void checked(struct job *j)
{
    struct disc_service *d = j->d;
    struct entry *e = j->entry;
    if (j->kind == JOB_SET) {
        if (e->has_server && d->cfg.generation >= DISC_2024)
            judge_server(d, e);
        if (make_text(j) < 0) {
            finish(j, DISC_UNEXPECTED);
            return;
        }
    }
    turn_wait(j);
}

static void check_signature(struct job *j);

static void on_verified(struct pk_wait *w)
{
    struct job *j = container_of(w, struct job, wait);
    if (w->res.err == 0) {
        checked(j);
    } else if (++j->at < j->n_digest) {
        check_signature(j);
    } else {
        finish(j, DISC_BAD_SIGNATURE);
    }
}

static void check_signature(struct job *j)
{
    struct pk_req req = {.op = PK_VERIFY,
                         .cls = PK_CLASS_ITEM,
                         .pk = j->entry->static_pk,
                         .digest = j->digest[j->at],
                         .sig = j->entry->signature};
    j->wait.done = on_verified;
    int rc = env_pk(j->d->cfg.env, &j->wait, &req);
    if (rc == 0)
        on_verified(&j->wait);
    else if (rc != ERR_PENDING)
        finish(j, DISC_UNEXPECTED);
}

static void receive(struct service_req *q, enum job_kind kind)
{
    struct disc_service *d = q->app;
    struct job *j = d->stat.waiting < WAITING_MAX ? job_new(d, kind, q) : NULL;
    if (j == NULL) {
        say(q, DISC_UNEXPECTED);
        return;
    }
    d->stat.posts += kind == JOB_SET;
    d->stat.deletes += kind == JOB_DELETE;
    int rc = parse(&j->entry, q->body, q->body_len);
    const char *first = q->body + strspn(q->body, " \t\r\n");
    if (rc == ERR_NOT_FOUND || (rc < 0 && strncmp(first, "null", 4) == 0)) {
        finish(j, DISC_NO_VERSION); /* an empty object, or null: every member is at its zero */
        return;
    }
    if (rc < 0) {
        finish(j, rc == ERR_TOO_LONG ? DISC_TOO_LARGE : DISC_UNEXPECTED);
        return;
    }
    enum disc_text t = validate(d, j->entry, kind == JOB_SET);
    if (disc_text_err(t) != 0) {
        finish(j, t);
        return;
    }
    j->pk = j->entry->static_pk;
    pubkey_hex(j->hex, &j->pk);
    if (d->cfg.load_testing) {
        checked(j);
        return;
    }
    j->n_digest = entry_check_begin(j->digest, j->entry);
    if (j->n_digest > 0)
        check_signature(j);
    else
        finish(j, DISC_BAD_SIGNATURE);
}

/* ---- writing ---- */

static void forget_lists(struct disc_service *d)
{
    d->available.until_ns = d->all.until_ns = 0;
}

static void on_stored(void *arg, const struct kv_answer *a)
{
    struct job *j = arg;
    struct disc_service *d = j->d;
    if (a->err != 0) {
        store_failed(j, a->err);
        return;
    }
    forget_lists(d);
    if (d->cfg.stored != NULL)
        d->cfg.stored(d->cfg.arg, j->entry, j->text, j->text_len);
    finish(j, j->existed ? DISC_WROTE_NEXT : DISC_WROTE_NEW);
}

/* A client that registers is there: §3.4, dmsgd:uptime. */
static size_t add_uptime(const struct job *j, struct kv_op *op, char keys[3][160], char seen[24])
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
    op[n++] = (struct kv_op){.cmd = KV_SADD, .key = online, .member = hex_key(j->hex)};
    op[n++] = (struct kv_op){.cmd = KV_EXPIRE, .key = online, .ttl_ms = UPTIME_MS};
    op[n++] = (struct kv_op){
        .cmd = KV_SETBIT, .key = line, .number = (uint64_t)(tm.tm_hour * 12 + tm.tm_min / 5)};
    op[n++] = (struct kv_op){.cmd = KV_EXPIRE, .key = line, .ttl_ms = UPTIME_MS};
    return n;
}

static void write_entry(struct job *j)
{
    struct disc_service *d = j->d;
    const struct entry *e = j->entry;
    char keys[3][160], seen[24], timeout[8];
    struct kv_op op[16];
    struct kv_str key = hex_key(j->hex);
    bool brief = j->q != NULL && service_query(j->q, "timeout", timeout, sizeof(timeout)) > 0 &&
                 equal(timeout, "true");
    uint64_t ttl = e->has_server ? SERVER_TTL_MS : brief ? SHORT_TTL_MS : d->cfg.client_ttl_ms;
    size_t n = 0;
    op[n++] =
        (struct kv_op){.cmd = KV_SET, .key = key, .value = {j->text, j->text_len}, .ttl_ms = ttl};
    if (e->has_server)
        op[n++] = (struct kv_op){.cmd = KV_SADD, .key = servers_set, .member = key};
    if (e->has_client)
        op[n++] = (struct kv_op){.cmd = KV_SADD, .key = clients_set, .member = key};
    if (d->cfg.generation >= DISC_2024 && equal(e->client_type, "visor"))
        op[n++] = (struct kv_op){.cmd = KV_SADD, .key = visors_set, .member = key};
    if (d->cfg.generation >= DISC_2026 && e->has_client)
        n += add_uptime(j, op + n, keys, seen);
    try_call(j, kv_write(d->cfg.kv, op, n, on_stored, j));
}

static void on_old(void *arg, const struct kv_answer *a)
{
    struct job *j = arg;
    struct entry *old = NULL;
    if (a->err != 0) {
        store_failed(j, a->err);
        return;
    }
    j->existed = a->n > 0 && a->v[0].p != NULL;
    if (j->existed && !j->d->cfg.load_testing) {
        enum disc_text t = DISC_WROTE_NEXT;
        if (entry_parse(&old, a->v[0].p, a->v[0].n) < 0)
            t = DISC_UNEXPECTED; /* something else has this key; upstream refuses too */
        else if (j->entry->sequence <= old->sequence)
            t = DISC_SEQUENCE;
        else if (j->entry->timestamp_ns < old->timestamp_ns)
            t = DISC_TIMESTAMP;
        entry_free(old);
        if (t != DISC_WROTE_NEXT) {
            finish(j, t);
            return;
        }
    }
    write_entry(j);
}

static void on_deleted(void *arg, const struct kv_answer *a)
{
    struct job *j = arg;
    struct disc_service *d = j->d;
    if (a->err != 0) {
        store_failed(j, a->err);
        return;
    }
    forget_lists(d);
    if (d->cfg.deleted != NULL)
        d->cfg.deleted(d->cfg.arg, &j->pk);
    if (d->cfg.taken_back != NULL)
        d->cfg.taken_back(d->cfg.arg, j->entry);
    finish(j, DISC_DELETED);
}

static void handle_set(struct service_req *q)
{
    receive(q, JOB_SET);
}

static void handle_delete(struct service_req *q)
{
    receive(q, JOB_DELETE);
}

/* ---- one entry ---- */

static bool is_object(struct kv_str v)
{
    const char *p = v.p;
    return v.n >= 2 && p[0] == '{' && p[v.n - 1] == '}';
}

static void on_entry(void *arg, const struct kv_answer *a)
{
    struct job *j = arg;
    j->d->stat.gets++;
    if (a->err != 0) {
        store_failed(j, a->err);
        return;
    }
    if (a->n == 0 || a->v[0].p == NULL) {
        j->d->stat.misses++;
        finish(j, DISC_NO_ENTRY);
        return;
    }
    struct kv_str v = is_object(a->v[0]) ? a->v[0] : KV_STR("null");
    if (j->q != NULL)
        service_answer(j->q, 200, SERVICE_JSON, v.p, v.n);
    j->q = NULL;
    job_free(j);
}

static void handle_get(struct service_req *q)
{
    struct disc_service *d = q->app;
    struct pubkey pk;
    if (pubkey_from_json_text(&pk, q->param[0], strlen(q->param[0])) < 0) {
        say(q, DISC_BAD_INPUT);
        return;
    }
    struct job *j = job_new(d, JOB_GET, q);
    if (j == NULL) {
        say(q, DISC_UNEXPECTED);
        return;
    }
    pubkey_hex(j->hex, &pk);
    struct kv_str key = hex_key(j->hex);
    try_call(j, kv_get(d->cfg.kv, &key, 1, on_entry, j));
}

/* ---- keys ---- */

static void on_keys(void *arg, const struct kv_answer *a)
{
    struct job *j = arg;
    struct json_out o;
    if (a->err != 0) {
        store_failed(j, a->err);
        return;
    }
    json_out_grow(&o, JSON_FAST, ANSWER_MAX);
    json_out_array(&o);
    for (size_t i = 0; i < a->n; i++)
        json_out_string(&o, a->v[i].p, a->v[i].n);
    json_out_array_end(&o);
    finish_body(j, &o);
}

static void list_keys(struct service_req *q, struct kv_str set)
{
    struct disc_service *d = q->app;
    struct job *j = job_new(d, JOB_KEYS, q);
    d->stat.lists++;
    if (j == NULL)
        say(q, DISC_UNEXPECTED);
    else
        try_call(j, kv_members(d->cfg.kv, set, on_keys, j));
}

static void handle_entries(struct service_req *q)
{
    list_keys(q, clients_set);
}

static void handle_visors(struct service_req *q)
{
    list_keys(q, visors_set);
}

/* ---- servers ---- */

struct listed {
    int64_t sessions;
    struct kv_str text;
};

static int by_sessions(const void *a, const void *b)
{
    const struct listed *x = a, *y = b;
    return x->sessions < y->sessions ? 1 : x->sessions > y->sessions ? -1 : 0;
}

static void answer_list(struct job *j, const struct made *m)
{
    if (m->count == 0) {
        finish(j, DISC_NO_SERVERS);
        return;
    }
    if (j->q != NULL)
        service_answer(j->q, 200, SERVICE_JSON, m->text, m->n);
    j->q = NULL;
    job_free(j);
}

static size_t pick_listed(struct listed *l, const struct kv_answer *a, bool all)
{
    size_t n = 0;
    for (size_t i = 0; i < a->n; i++) {
        struct entry *e;
        if (a->v[i].p == NULL || !is_object(a->v[i]))
            continue;
        l[n] = (struct listed){0, a->v[i]};
        if (all) {
            n++;
            continue;
        }
        if (entry_parse(&e, a->v[i].p, a->v[i].n) < 0)
            continue;
        l[n].sessions = e->server.available_sessions;
        n += e->has_server && e->server.available_sessions > 0;
        entry_free(e);
    }
    if (!all)
        qsort(l, n, sizeof(*l), by_sessions);
    return n;
}

static void on_servers(void *arg, const struct kv_answer *a)
{
    struct job *j = arg;
    struct disc_service *d = j->d;
    struct made *m = j->all ? &d->all : &d->available;
    struct listed *l = calloc(a->n + 1, sizeof(*l));
    struct json_out o;
    if (a->err != 0 || l == NULL) {
        free(l);
        store_failed(j, a->err != 0 ? a->err : ERR_NOMEM);
        return;
    }
    size_t n = pick_listed(l, a, j->all);
    json_out_grow(&o, JSON_FAST, ANSWER_MAX);
    json_out_array(&o);
    for (size_t i = 0; i < n; i++)
        json_out_raw(&o, l[i].text.p, l[i].text.n);
    json_out_array_end(&o);
    free(l);
    if (o.err != 0) {
        json_out_free(&o);
        finish(j, DISC_UNEXPECTED);
        return;
    }
    free(m->text);
    *m = (struct made){o.p, o.len, n, d->cfg.loop->now_ns + LIST_NS};
    answer_list(j, m);
}

/* In an order of chance; of the available ones at most 512, taken before it is looked at them. */
static void on_server_keys(void *arg, const struct kv_answer *a)
{
    struct job *j = arg;
    struct disc_service *d = j->d;
    struct kv_str *keys = calloc(a->n + 1, sizeof(*keys));
    size_t n = a->n;
    if (a->err != 0 || keys == NULL) {
        free(keys);
        store_failed(j, a->err != 0 ? a->err : ERR_NOMEM);
        return;
    }
    /* They point into the answer: the next call copies them, or is over before this one. */
    if (n > 0)
        memcpy(keys, a->v, n * sizeof(*keys));
    for (size_t i = n; i > 1; i--) {
        size_t k = (size_t)env_random_below(d->cfg.env, i);
        struct kv_str t = keys[i - 1];
        keys[i - 1] = keys[k];
        keys[k] = t;
    }
    if (!j->all && n > SERVERS_LISTED)
        n = SERVERS_LISTED;
    try_call(j, kv_get(d->cfg.kv, keys, n, on_servers, j));
    free(keys);
}

static void list_servers(struct service_req *q, bool all)
{
    struct disc_service *d = q->app;
    struct job *j = job_new(d, JOB_LIST, q);
    const struct made *m = all ? &d->all : &d->available;
    d->stat.lists++;
    if (j == NULL) {
        say(q, DISC_UNEXPECTED);
        return;
    }
    j->all = all;
    if (m->until_ns > d->cfg.loop->now_ns)
        answer_list(j, m);
    else
        try_call(j, kv_members(d->cfg.kv, servers_set, on_server_keys, j));
}

static void handle_available(struct service_req *q)
{
    list_servers(q, false);
}

static void handle_all(struct service_req *q)
{
    list_servers(q, true);
}

/* ---- lists of keys in a body ---- */

/* A JSON list of texts, at most max; the caller frees both. ERR_FORMAT, ERR_LIMIT. */
static int read_texts(const struct service_req *q, char ***out, size_t *n, size_t max)
{
    struct json_in j = json_in_init(q->body, q->body_len);
    char text[256];
    size_t len, cap = 0;
    *out = NULL;
    *n = 0;
    int rc = 0;
    if (json_in_peek(&j) != JSON_TOK_ARRAY)
        return ERR_FORMAT;
    (void)json_in_array(&j);
    while (rc == 0 && json_in_element(&j)) {
        if (json_in_peek(&j) != JSON_TOK_STRING)
            rc = ERR_FORMAT;
        else if (*n == max)
            rc = ERR_LIMIT;
        else if (json_in_string(&j, text, sizeof(text), &len)) {
            if (*n == cap) {
                cap = cap != 0 ? 2 * cap : 16;
                char **more = realloc(*out, cap * sizeof(char *));
                if (more == NULL)
                    return ERR_NOMEM;
                *out = more;
            }
            if (((*out)[*n] = strndup(text, len)) == NULL)
                return ERR_NOMEM;
            (*n)++;
        }
    }
    return rc != 0 ? rc : j.err != 0 ? ERR_FORMAT : 0;
}

static void on_batch(void *arg, const struct kv_answer *a)
{
    struct job *j = arg;
    struct json_out o;
    if (a->err != 0) {
        store_failed(j, a->err);
        return;
    }
    json_out_grow(&o, JSON_FAST, ANSWER_MAX);
    json_out_object(&o);
    for (size_t i = 0; i < a->n && i < j->n; i++) {
        if (a->v[i].p == NULL || !is_object(a->v[i]))
            continue;
        json_out_name(&o, j->names[i]);
        json_out_raw(&o, a->v[i].p, a->v[i].n);
    }
    json_out_object_end(&o);
    finish_body(j, &o);
}

/* The job's texts as keys of the store; those that are no keys leave the list. False when there was one. */
static bool names_to_keys(struct job *j)
{
    size_t n = 0;
    bool good = true;
    j->keys = malloc(j->n * PUBKEY_HEX + 1);
    if (j->keys == NULL)
        return false;
    for (size_t i = 0; i < j->n; i++) {
        struct pubkey pk;
        char hex[PUBKEY_HEX + 1];
        if (pubkey_from_json_text(&pk, j->names[i], strlen(j->names[i])) < 0) {
            free(j->names[i]);
            good = false;
            continue;
        }
        memcpy(j->keys + n * PUBKEY_HEX, pubkey_hex(hex, &pk), PUBKEY_HEX);
        j->names[n++] = j->names[i];
    }
    j->n = n;
    return good;
}

static void handle_batch(struct service_req *q)
{
    struct disc_service *d = q->app;
    struct job *j = job_new(d, JOB_BATCH, q);
    if (j == NULL) {
        say(q, DISC_UNEXPECTED);
        return;
    }
    if (read_texts(q, &j->names, &j->n, BATCH_MAX) < 0) {
        finish(j, DISC_BAD_INPUT);
        return;
    }
    (void)names_to_keys(j);
    struct kv_str *keys = calloc(j->n + 1, sizeof(*keys));
    if (keys == NULL || j->keys == NULL) {
        free(keys);
        finish(j, DISC_UNEXPECTED);
        return;
    }
    for (size_t i = 0; i < j->n; i++)
        keys[i] = hex_key(j->keys + i * PUBKEY_HEX);
    try_call(j, kv_get(d->cfg.kv, keys, j->n, on_batch, j));
    free(keys);
}

static void on_deregistered(void *arg, const struct kv_answer *a)
{
    struct job *j = arg;
    struct disc_service *d = j->d;
    struct pubkey pk;
    if (a->err != 0) {
        store_failed(j, a->err);
        return;
    }
    forget_lists(d);
    for (size_t i = 0; d->cfg.deleted != NULL && i < j->n; i++)
        if (pubkey_from_hex(&pk, j->keys + i * PUBKEY_HEX, PUBKEY_HEX) == 0)
            d->cfg.deleted(d->cfg.arg, &pk);
    if (j->q != NULL)
        service_answer_text(j->q, 200, SERVICE_JSON, "null");
    j->q = NULL;
    job_free(j);
}

static void handle_deregister(struct service_req *q)
{
    struct disc_service *d = q->app;
    unsigned status = httpauth_monitor(q, d->cfg.monitors, d->cfg.n_monitors);
    struct job *j = status == 0 ? job_new(d, JOB_DEREGISTER, q) : NULL;
    if (j == NULL) {
        service_answer(q, status != 0 ? status : 500, NULL, "", 0);
        return;
    }
    if (read_texts(q, &j->names, &j->n, KV_OPS_MAX / 4) < 0) {
        service_answer(q, 400, NULL, "", 0);
        j->q = NULL;
        job_free(j);
        return;
    }
    if (!names_to_keys(j)) {
        finish(j, DISC_BAD_INPUT);
        return;
    }
    try_call(j, write_delete(d, j->keys, j->n, on_deregistered, j));
}

/* ---- clients by server ---- */

static int by_server(const void *a, const void *b)
{
    const struct pair *x = a, *y = b;
    int c = pubkey_cmp(&x->server, &y->server);
    return c != 0 ? c : pubkey_cmp(&x->client, &y->client);
}

static void write_clients(struct json_out *o, const struct pair *p, size_t n)
{
    json_out_array(o);
    for (size_t i = 0; i < n; i++)
        json_out_hex(o, p[i].client.b, PUBKEY_BYTES);
    json_out_array_end(o);
}

/* Pairs of the server at i: how many. */
static size_t run_of(const struct disc_service *d, size_t i)
{
    size_t n = 1;
    while (i + n < d->n_pairs && pubkey_equal(&d->pair[i].server, &d->pair[i + n].server))
        n++;
    return n;
}

static void answer_clients(struct job *j)
{
    struct disc_service *d = j->d;
    struct json_out o;
    size_t i = 0, n;
    json_out_grow(&o, JSON_FAST, ANSWER_MAX);
    if (j->all)
        json_out_object(&o);
    bool found = false;
    for (; i < d->n_pairs; i += n) {
        n = run_of(d, i);
        char hex[PUBKEY_HEX + 1];
        if (j->all)
            json_out_name(&o, pubkey_hex(hex, &d->pair[i].server));
        else if (!pubkey_equal(&d->pair[i].server, &j->pk))
            continue;
        found = true;
        write_clients(&o, &d->pair[i], n);
    }
    if (j->all)
        json_out_object_end(&o);
    else if (!found)
        json_out_null(&o);
    finish_body(j, &o);
}

static void snapshot_over(struct job *s, int err)
{
    struct disc_service *d = s->d;
    struct list waiting;
    struct job *j;
    list_init(&waiting);
    list_splice(&waiting, &d->waiting);
    d->snapshot_under_way = false;
    job_free(s);
    while ((j = list_pop_front_as(&waiting, struct job, turn)) != NULL) {
        if (err != 0)
            store_failed(j, err);
        else
            answer_clients(j);
    }
}

static bool add_pairs(struct disc_service *d, const struct entry *e, size_t *cap)
{
    size_t n = e->has_client ? e->client.n_delegated : 0;
    if (d->n_pairs + n > *cap) {
        size_t want = 2 * (d->n_pairs + n) + 64;
        struct pair *more = realloc(d->pair, want * sizeof(*more));
        if (more == NULL)
            return false;
        d->pair = more;
        *cap = want;
    }
    for (size_t i = 0; i < n; i++)
        d->pair[d->n_pairs++] = (struct pair){e->client.delegated[i], e->static_pk};
    return true;
}

static void on_client_entries(void *arg, const struct kv_answer *a)
{
    struct job *s = arg;
    struct disc_service *d = s->d;
    size_t cap = 0;
    bool ok = a->err == 0;
    free(d->pair);
    d->pair = NULL;
    d->n_pairs = 0;
    for (size_t i = 0; ok && i < a->n; i++) {
        struct entry *e;
        if (a->v[i].p == NULL || entry_parse(&e, a->v[i].p, a->v[i].n) < 0)
            continue;
        ok = add_pairs(d, e, &cap);
        entry_free(e);
    }
    if (d->n_pairs > 0)
        qsort(d->pair, d->n_pairs, sizeof(*d->pair), by_server);
    d->pairs_ns = ok ? d->cfg.loop->now_ns + SNAPSHOT_NS : 0;
    snapshot_over(s, a->err != 0 ? a->err : ok ? 0 : ERR_NOMEM);
}

static void on_client_keys(void *arg, const struct kv_answer *a)
{
    struct job *s = arg;
    int rc = a->err != 0 ? a->err : kv_get(s->d->cfg.kv, a->v, a->n, on_client_entries, s);
    if (rc < 0)
        snapshot_over(s, rc);
}

static void list_clients(struct service_req *q, const struct pubkey *of)
{
    struct disc_service *d = q->app;
    struct job *j = job_new(d, JOB_SNAPSHOT, q);
    d->stat.lists++;
    if (j == NULL) {
        say(q, DISC_UNEXPECTED);
        return;
    }
    j->all = of == NULL;
    if (of != NULL)
        j->pk = *of;
    if (d->pairs_ns > d->cfg.loop->now_ns) {
        answer_clients(j);
        return;
    }
    list_push_back(&d->waiting, &j->turn);
    if (d->snapshot_under_way)
        return;
    struct job *s = job_new(d, JOB_SNAPSHOT, NULL);
    if (s == NULL) {
        finish(j, DISC_UNEXPECTED);
        return;
    }
    d->snapshot_under_way = true;
    int rc = kv_members(d->cfg.kv, clients_set, on_client_keys, s);
    if (rc < 0)
        snapshot_over(s, rc);
}

static void handle_servers_clients(struct service_req *q)
{
    list_clients(q, NULL);
}

static void handle_server_clients(struct service_req *q)
{
    struct pubkey pk;
    if (pubkey_from_json_text(&pk, q->param[0], strlen(q->param[0])) < 0)
        say(q, DISC_BAD_INPUT);
    else
        list_clients(q, &pk);
}

/* ---- /health ---- */

static void handle_health(struct service_req *q)
{
    struct disc_service *d = q->app;
    char text[400], buf[512];
    struct json_out o;
    const char *address = d->cfg.dmsg_address;
    snprintf(text, sizeof(text), "%s", version_str());
    json_out_fixed(&o, JSON_FAST, buf, sizeof(buf));
    json_out_object(&o);
    json_out_name(&o, "build_info");
    json_out_object(&o);
    json_out_name(&o, "version");
    json_out_str(&o, text);
    json_out_name(&o, "commit");
    json_out_str(&o, "unknown");
    json_out_name(&o, "date");
    json_out_str(&o, "unknown");
    json_out_object_end(&o);
    json_out_name(&o, "started_at");
    json_out_str(&o, d->started);
    if (address != NULL) {
        json_out_name(&o, "dmsg_address");
        json_out_str(&o, address);
    }
    json_out_object_end(&o);
    service_answer(q, 200, SERVICE_JSON, o.p, o.err == 0 ? o.len : 0);
}

/* ---- what has expired leaves the sets ---- */

static void sweep_set(struct job *s);

static void sweep_over(struct job *s)
{
    struct disc_service *d = s->d;
    bool was_servers = !s->clients;
    job_free(s);
    d->sweep_under_way = false;
    if (!was_servers)
        return;
    struct job *next = job_new(d, JOB_SWEEP, NULL);
    if (next == NULL)
        return;
    next->clients = true;
    d->sweep_under_way = true;
    sweep_set(next);
}

static void on_swept(void *arg, const struct kv_answer *a)
{
    (void)a;
    sweep_over(arg);
}

static void on_lives(void *arg, const struct kv_answer *a)
{
    struct job *s = arg;
    struct disc_service *d = s->d;
    struct kv_op *op = a->err == 0 ? calloc(2 * a->n + 1, sizeof(*op)) : NULL;
    bool renew = s->clients && d->cfg.generation >= DISC_2026 && d->cfg.client_ttl_ms != 0;
    /* 2023 and 2024 keep the keys of clients for ever. */
    bool drop = !s->clients || d->cfg.generation >= DISC_2026;
    size_t n = 0, alive = 0;
    for (size_t i = 0; op != NULL && i < a->n && i < s->n; i++) {
        struct kv_str key = hex_key(s->keys + i * PUBKEY_HEX);
        alive += a->ttl_ms[i] != -2;
        if (a->ttl_ms[i] == -2 && drop) {
            op[n++] = (struct kv_op){
                .cmd = KV_SREM, .key = s->clients ? clients_set : servers_set, .member = key};
            if (s->clients)
                op[n++] = (struct kv_op){.cmd = KV_SREM, .key = visors_set, .member = key};
        } else if (a->ttl_ms[i] == -1 && renew) {
            op[n++] = (struct kv_op){.cmd = KV_EXPIRE, .key = key, .ttl_ms = d->cfg.client_ttl_ms};
        }
    }
    if (op != NULL && s->clients)
        d->stat.clients = alive;
    else if (op != NULL)
        d->stat.servers = alive;
    if (n == 0 || kv_write(d->cfg.kv, op, n, on_swept, s) < 0)
        sweep_over(s);
    free(op);
}

static void on_sweep_members(void *arg, const struct kv_answer *a)
{
    struct job *s = arg;
    struct kv_str *keys = a->err == 0 ? calloc(a->n + 1, sizeof(*keys)) : NULL;
    s->keys = a->err == 0 ? malloc(a->n * PUBKEY_HEX + 1) : NULL;
    if (keys == NULL || s->keys == NULL || a->n == 0) {
        if (a->err == 0 && s->clients)
            s->d->stat.clients = 0;
        else if (a->err == 0)
            s->d->stat.servers = 0;
        free(keys);
        sweep_over(s);
        return;
    }
    for (size_t i = 0; i < a->n; i++) {
        if (a->v[i].n != PUBKEY_HEX)
            continue;
        memcpy(s->keys + s->n * PUBKEY_HEX, a->v[i].p, PUBKEY_HEX);
        keys[s->n] = hex_key(s->keys + s->n * PUBKEY_HEX);
        s->n++;
    }
    if (kv_ttl(s->d->cfg.kv, keys, s->n, on_lives, s) < 0)
        sweep_over(s);
    free(keys);
}

static void sweep_set(struct job *s)
{
    if (kv_members(s->d->cfg.kv, s->clients ? clients_set : servers_set, on_sweep_members, s) < 0)
        sweep_over(s);
}

static void on_sweep(struct loop_timer *t)
{
    struct disc_service *d = container_of(t, struct disc_service, sweep);
    struct job *s = d->sweep_under_way ? NULL : job_new(d, JOB_SWEEP, NULL);
    loop_timer_set(d->cfg.loop, t, d->cfg.loop->now_ns + SWEEP_NS);
    if (s == NULL)
        return;
    d->sweep_under_way = true;
    sweep_set(s);
}

/* ---- life ---- */

const struct service_route disc_service_routes[] = {
    {SERVICE_GET, "/dmsg-discovery/entry/{}", handle_get, 0},
    {SERVICE_POST, "/dmsg-discovery/entry/", handle_set, 0},
    {SERVICE_POST, "/dmsg-discovery/entry/{}", handle_set, 0},
    {SERVICE_POST, "/dmsg-discovery/entries", handle_set, 0},
    {SERVICE_DELETE, "/dmsg-discovery/entry", handle_delete, 0},
    {SERVICE_GET, "/dmsg-discovery/entries", handle_entries, 0},
    {SERVICE_GET, "/dmsg-discovery/visorEntries", handle_visors, 0},
    {SERVICE_POST, "/dmsg-discovery/entries/batch", handle_batch, 0},
    {SERVICE_GET, "/dmsg-discovery/available_servers", handle_available, 0},
    {SERVICE_GET, "/dmsg-discovery/all_servers", handle_all, 0},
    {SERVICE_GET, "/dmsg-discovery/servers/clients", handle_servers_clients, 0},
    {SERVICE_GET, "/dmsg-discovery/server/{}/clients", handle_server_clients, 0},
    {SERVICE_DELETE, "/dmsg-discovery/deregister", handle_deregister, 0},
    {SERVICE_GET, "/health", handle_health, 0},
};
const size_t disc_service_n_routes = sizeof(disc_service_routes) / sizeof(disc_service_routes[0]);

static void time_text(char out[64], int64_t wall_ns)
{
    struct tm tm;
    char day[40];
    time_t s = (time_t)(wall_ns / 1000000000);
    gmtime_r(&s, &tm);
    strftime(day, sizeof(day), "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(out, 64, "%s.%09dZ", day, (int)(wall_ns % 1000000000));
}

int disc_service_new(struct disc_service **out, const struct disc_service_cfg *cfg)
{
    struct disc_service *d = calloc(1, sizeof(*d));
    *out = NULL;
    if (d == NULL)
        return ERR_NOMEM;
    d->cfg = *cfg;
    list_init(&d->jobs);
    list_init(&d->waiting);
    map_init(&d->turns, MAP_KEY(struct turn, pk), cfg->env->hash_key, 0);
    time_text(d->started, env_wall_ns(cfg->env));
    d->sweep.fn = on_sweep;
    loop_timer_set(cfg->loop, &d->sweep, cfg->loop->now_ns);
    *out = d;
    return 0;
}

void disc_service_free(struct disc_service *d)
{
    struct job *j;
    struct turn *t;
    if (d == NULL)
        return;
    loop_timer_cancel(d->cfg.loop, &d->sweep);
    for (struct map_iter it = map_iter(&d->turns); (t = map_next(&it)) != NULL;) {
        while (list_pop_front(&t->queue) != NULL)
            ;
        map_iter_del(&it);
        free(t);
    }
    while ((j = list_first_as(&d->jobs, struct job, node)) != NULL)
        job_free(j);
    map_free(&d->turns);
    free(d->available.text);
    free(d->all.text);
    free(d->pair);
    free(d);
}

void disc_service_stat(const struct disc_service *d, struct disc_service_stat *out)
{
    *out = d->stat;
}
