#include "compat-http/kv_redis.h"

#include <hiredis/async.h>
#include <hiredis/hiredis.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

/* the adapter calls a function that event2 declares in this one */
#include <event2/event.h>
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wshadow"
#include <hiredis/adapters/libevent.h>
#pragma GCC diagnostic pop

#include "base/err.h"
#include "base/list.h"
#include "base/log.h"
#include "compat-http/name_lookup.h"

#define RETRY_NS     (100 * NS_PER_MS)
#define RETRY_MAX_NS (5 * NS_PER_S)
#define CONNECT_NS   (3 * NS_PER_S)
#define HUNG_NS      (5 * NS_PER_S)
#define LOOK_NS      (50 * NS_PER_MS)
#define ARGS_MAX     4

struct command {
    int argc;
    const char **argv; /* bytes lie behind the call */
    size_t *len;
};

struct call {
    struct list_node node; /* in redis->waiting or redis->sent */
    struct redis *redis;
    kv_done_fn *fn;
    void *arg;
    uint64_t deadline_ns;
    bool transaction; /* the reply is EXEC's */
    bool once;        /* not to be done twice */
    bool told;        /* its deadline has passed; the reply is for nobody */
    unsigned replies; /* still to come on this connection */
    size_t n;
    struct command *cmd;
    const char **argv;
    size_t *len;
    size_t n_args;
    char *bytes;
};

enum redis_state { REDIS_DOWN, REDIS_RESOLVING, REDIS_CONNECTING, REDIS_GREETING, REDIS_READY };

struct redis {
    struct kv kv;
    struct kv_redis_cfg cfg;
    struct loop *loop;
    char host[256], path[256], *password;
    int port, database;
    enum redis_state state;
    struct name_lookup *names; /* made for the first name */
    redisAsyncContext *ac;
    unsigned greetings, failures;
    uint64_t dialled_ns;
    struct list waiting, sent; /* calls, oldest first */
    size_t pending;
    struct loop_timer retry, deadline;
    bool closing;
    struct kv_stat stat;
};

static struct redis *self_of(const struct kv *kv)
{
    return container_of((struct kv *)(uintptr_t)kv, struct redis, kv);
}

/* ---- calls ---- */

static void call_free(struct call *c)
{
    list_remove(&c->node);
    c->redis->pending--;
    free(c->cmd);
    free(c->argv);
    free(c->len);
    free(c->bytes);
    free(c);
}

static void call_tell(struct call *c, const struct kv_answer *a)
{
    c->redis->stat.failed += a->err != 0;
    if (!c->told && c->fn != NULL && !c->redis->closing)
        c->fn(c->arg, a);
    c->told = true;
}

static void call_fail(struct call *c, int err)
{
    struct kv_answer a = {.err = err};
    call_tell(c, &a);
}

static int err_of(const redisReply *r)
{
    if (r->type != REDIS_REPLY_ERROR)
        return 0;
    if (strncmp(r->str, "OOM", 3) == 0 || strstr(r->str, "maxmemory") != NULL)
        return ERR_NO_SPACE;
    if (strncmp(r->str, "WRONGTYPE", 9) == 0)
        return ERR_FORMAT;
    if (strncmp(r->str, "NOAUTH", 6) == 0 || strncmp(r->str, "WRONGPASS", 9) == 0)
        return ERR_REFUSED;
    return strncmp(r->str, "LOADING", 7) == 0 ? ERR_RESET : ERR_PROTOCOL;
}

/* What came back, as an answer; v and ttl have room for the elements. */
static int read_reply(const redisReply *r, struct kv_str *v, int64_t *ttl, struct kv_answer *a)
{
    int err = err_of(r);
    if (err != 0 || r->type != REDIS_REPLY_ARRAY)
        return err != 0 ? err : r->type == REDIS_REPLY_NIL ? ERR_RESET : 0;
    for (size_t i = 0; i < r->elements && err == 0; i++) {
        const redisReply *e = r->element[i];
        err = err_of(e);
        v[i] = e->type == REDIS_REPLY_STRING ? (struct kv_str){e->str, e->len}
                                             : (struct kv_str){NULL, 0};
        ttl[i] = e->type == REDIS_REPLY_INTEGER ? e->integer : -2;
    }
    a->v = v;
    a->ttl_ms = ttl;
    a->n = r->elements;
    return err;
}

static void on_reply(redisAsyncContext *ac, void *reply, void *arg)
{
    struct call *c = arg;
    redisReply *r = reply;
    (void)ac;
    if (r == NULL)
        return; /* the connection ended: went_down() sees to what is left, c may be gone */
    drive_loop_now(c->redis->cfg.drive);
    if (c->replies > 0 && --c->replies > 0) {
        /* MULTI and what is queued: EXEC tells of failures, but only of some why */
        if (err_of(r) == ERR_NO_SPACE)
            call_fail(c, ERR_NO_SPACE);
        return;
    }
    size_t n = r->type == REDIS_REPLY_ARRAY ? r->elements : 0;
    struct kv_str *v = calloc(n + 1, sizeof(*v));
    int64_t *ttl = calloc(n + 1, sizeof(*ttl));
    struct kv_answer a = {0};
    a.err = v != NULL && ttl != NULL ? read_reply(r, v, ttl, &a) : ERR_NOMEM;
    call_tell(c, &a);
    call_free(c);
    free(v);
    free(ttl);
}

static int send_one(struct redis *r, struct call *c, const struct command *cmd)
{
    return redisAsyncCommandArgv(r->ac, on_reply, c, cmd->argc, cmd->argv, cmd->len) == REDIS_OK
               ? 0
               : ERR_RESET;
}

static void call_send(struct call *c)
{
    struct redis *r = c->redis;
    static const char *multi[] = {"MULTI"}, *exec[] = {"EXEC"};
    static size_t multi_len[] = {5}, exec_len[] = {4};
    struct command first = {1, multi, multi_len}, last = {1, exec, exec_len};
    list_remove(&c->node);
    list_push_back(&r->sent, &c->node);
    c->replies = (unsigned)c->n + (c->transaction ? 2 : 0);
    int rc = c->transaction ? send_one(r, c, &first) : 0;
    for (size_t i = 0; i < c->n && rc == 0; i++)
        rc = send_one(r, c, &c->cmd[i]);
    if (rc == 0 && c->transaction)
        (void)send_one(r, c, &last);
}

static void went_down(struct redis *r, int err, const char *why);

/* One that does not come up, or does not answer, is given up. */
static void check_connection(struct redis *r)
{
    redisAsyncContext *ac = r->ac;
    uint64_t now = r->loop->now_ns;
    const struct call *c = list_first_as(&r->sent, struct call, node);
    bool late = r->state == REDIS_READY ? c != NULL && c->deadline_ns + HUNG_NS < now
                                        : now - r->dialled_ns > CONNECT_NS;
    if (r->state == REDIS_DOWN || !late)
        return;
    if (r->state == REDIS_RESOLVING)
        name_lookup_cancel(r->names);
    went_down(r, ERR_TIMEOUT, err_str(ERR_TIMEOUT));
    if (ac != NULL)
        redisAsyncFree(ac);
}

static void on_deadline(struct loop_timer *t)
{
    struct redis *r = container_of(t, struct redis, deadline);
    struct list_node *pos, *tmp;
    struct call *c;
    while ((c = list_first_as(&r->waiting, struct call, node)) != NULL &&
           c->deadline_ns <= r->loop->now_ns) {
        call_fail(c, ERR_TIMEOUT);
        call_free(c);
    }
    list_for_each(pos, tmp, &r->sent)
    {
        c = container_of(pos, struct call, node);
        if (c->deadline_ns > r->loop->now_ns)
            break;
        call_fail(c, ERR_TIMEOUT); /* its reply frees it */
    }
    check_connection(r);
    loop_timer_set(r->loop, t, r->loop->now_ns + LOOK_NS);
}

/* ---- connection ---- */

static void say_state(struct redis *r, int err, const char *why)
{
    r->stat.last_err = err;
    if (r->cfg.state != NULL && !r->closing)
        r->cfg.state(r->cfg.arg, err, why);
}

/* What was under way waits for the next connection, in its order, before what waits already. */
static void keep_calls(struct redis *r)
{
    struct list keep;
    struct call *c;
    list_init(&keep);
    while ((c = list_first_as(&r->sent, struct call, node)) != NULL) {
        if (c->once)
            call_fail(c, ERR_RESET);
        if (c->told) {
            call_free(c);
            continue;
        }
        list_remove(&c->node);
        list_push_back(&keep, &c->node);
    }
    list_splice(&keep, &r->waiting);
    list_splice(&r->waiting, &keep);
}

static void went_down(struct redis *r, int err, const char *why)
{
    uint64_t pause = RETRY_NS << (r->failures < 6 ? r->failures : 6);
    r->ac = NULL;
    r->state = REDIS_DOWN;
    r->stat.ready = false;
    r->failures++;
    if (r->closing)
        return;
    log_limited_here(LOG_HTTP, LOG_LEVEL_WARN, "redis is away host=%s reason=\"%s\"", r->host, why);
    keep_calls(r);
    loop_timer_set(r->loop, &r->retry,
                   r->loop->now_ns +
                       env_jitter_ns(r->cfg.env, pause < RETRY_MAX_NS ? pause : RETRY_MAX_NS, 25));
    say_state(r, err, why);
}

static void on_down(const redisAsyncContext *ac, int status)
{
    struct redis *r = ac->data;
    (void)status;
    drive_loop_now(r->cfg.drive);
    if (r->ac == ac)
        went_down(r, ERR_RESET, ac->err != 0 ? ac->errstr : "connection ended");
}

static void ready(struct redis *r)
{
    struct list now;
    struct call *c;
    r->state = REDIS_READY;
    r->stat.ready = true;
    r->stat.reconnects++;
    r->failures = 0;
    list_init(&now);
    list_splice(&now, &r->waiting);
    while ((c = list_first_as(&now, struct call, node)) != NULL)
        call_send(c);
    say_state(r, 0, "");
}

static void on_greeting(redisAsyncContext *ac, void *reply, void *arg)
{
    struct redis *r = arg;
    redisReply *p = reply;
    drive_loop_now(r->cfg.drive);
    if (p == NULL || r->ac != ac || r->state != REDIS_GREETING)
        return;
    int err = err_of(p);
    if (err == 0) {
        if (--r->greetings == 0)
            ready(r);
        return;
    }
    char why[160];
    snprintf(why, sizeof(why), "%s", p->str);
    if (strncmp(why, "ERR", 3) == 0 && strstr(why, "AUTH") != NULL)
        err = ERR_REFUSED;
    went_down(r, err, why);
    redisAsyncFree(ac);
}

static void on_up(const redisAsyncContext *ac, int status)
{
    struct redis *r = ac->data;
    drive_loop_now(r->cfg.drive);
    if (r->ac != ac)
        return;
    if (status != REDIS_OK) { /* it is freed by the library */
        went_down(r, ERR_NO_ROUTE, ac->errstr);
        return;
    }
    r->state = REDIS_GREETING;
    r->greetings = 1;
    if (r->password != NULL && r->password[0] != '\0') {
        r->greetings++;
        redisAsyncCommand(r->ac, on_greeting, r, "AUTH %s", r->password);
    }
    if (r->database != 0) {
        r->greetings++;
        redisAsyncCommand(r->ac, on_greeting, r, "SELECT %d", r->database);
    }
    redisAsyncCommand(r->ac, on_greeting, r, "PING");
}

/* host: an address; hiredis would look a name up here and now. */
static void dial(struct redis *r, const char *host)
{
    r->state = REDIS_CONNECTING;
    r->ac = r->path[0] != '\0' ? redisAsyncConnectUnix(r->path) : redisAsyncConnect(host, r->port);
    if (r->ac == NULL || r->ac->err != 0) {
        redisAsyncContext *ac = r->ac;
        char why[160];
        snprintf(why, sizeof(why), "%s", ac != NULL ? ac->errstr : err_str(ERR_NOMEM));
        went_down(r, ERR_NO_ROUTE, why);
        if (ac != NULL)
            redisAsyncFree(ac);
        return;
    }
    r->ac->data = r;
    if (redisLibeventAttach(r->ac, drive_loop_base(r->cfg.drive)) != REDIS_OK) {
        redisAsyncContext *ac = r->ac;
        went_down(r, ERR_NOMEM, err_str(ERR_NOMEM));
        redisAsyncFree(ac);
        return;
    }
    redisAsyncSetConnectCallback(r->ac, on_up);
    redisAsyncSetDisconnectCallback(r->ac, on_down);
}

static void on_name(void *arg, int err, const char (*addr)[INET6_ADDRSTRLEN], size_t n)
{
    struct redis *r = arg;
    if (err < 0)
        went_down(r, ERR_NO_ROUTE, "no address of this name");
    else
        dial(r, addr[r->failures % n]); /* another one next time */
}

static void on_retry(struct loop_timer *t)
{
    struct redis *r = container_of(t, struct redis, retry);
    r->dialled_ns = r->loop->now_ns;
    if (r->path[0] != '\0') {
        dial(r, NULL);
        return;
    }
    if (r->names == NULL)
        r->names = name_lookup_new(r->cfg.drive, r->cfg.name_server);
    r->state = REDIS_RESOLVING;
    if (r->names == NULL)
        went_down(r, ERR_NOMEM, err_str(ERR_NOMEM));
    else
        name_lookup_start(r->names, r->host, on_name, r);
}

/* ---- building calls ---- */

static struct call *call_new(struct redis *r, size_t commands, size_t args, size_t bytes,
                             kv_done_fn *fn, void *arg)
{
    if (r->pending >= KV_REDIS_PENDING)
        return NULL;
    struct call *c = calloc(1, sizeof(*c));
    if (c == NULL)
        return NULL;
    c->redis = r;
    c->fn = fn;
    c->arg = arg;
    c->deadline_ns = r->loop->now_ns +
                     (r->cfg.timeout_ms != 0 ? r->cfg.timeout_ms : KV_REDIS_TIMEOUT_MS) * NS_PER_MS;
    c->cmd = calloc(commands + 1, sizeof(*c->cmd));
    c->argv = calloc(args + 1, sizeof(*c->argv));
    c->len = calloc(args + 1, sizeof(*c->len));
    c->bytes = malloc(bytes + 1);
    r->pending++;
    if (c->cmd != NULL && c->argv != NULL && c->len != NULL && c->bytes != NULL)
        return c;
    call_free(c);
    return NULL;
}

/* Begin the next command of a call; then its arguments. */
static void command(struct call *c)
{
    c->cmd[c->n++] = (struct command){0, c->argv + c->n_args, c->len + c->n_args};
}

static void add(struct call *c, char **to, const void *p, size_t n)
{
    c->argv[c->n_args] = *to;
    c->len[c->n_args++] = n;
    c->cmd[c->n - 1].argc++;
    if (n > 0)
        memcpy(*to, p, n);
    *to += n;
}

static void add_text(struct call *c, char **to, const char *text)
{
    add(c, to, text, strlen(text));
}

static void add_str(struct call *c, char **to, struct kv_str s)
{
    add(c, to, s.p, s.n);
}

static void add_number(struct call *c, char **to, uint64_t v)
{
    char text[24];
    snprintf(text, sizeof(text), "%llu", (unsigned long long)v);
    add_text(c, to, text);
}

static int call_start(struct call *c)
{
    struct redis *r = c->redis;
    list_push_back(&r->waiting, &c->node);
    if (r->state == REDIS_READY)
        call_send(c);
    return 0;
}

/* Lives in whole seconds as the peers write them (EX), else in milliseconds. */
static void add_op(struct call *c, char **to, const struct kv_op *op)
{
    static const char *const names[] = {"SET",    "DEL",  "PEXPIRE", "SADD",  "SREM",
                                        "INCRBY", "HSET", "HINCRBY", "SETBIT"};
    command(c);
    add_text(c, to, names[op->cmd]);
    add_str(c, to, op->key);
    switch (op->cmd) {
    case KV_SET:
        add_str(c, to, op->value);
        if (op->ttl_ms == 0)
            break;
        bool whole = op->ttl_ms % 1000 == 0;
        add_text(c, to, whole ? "EX" : "PX");
        add_number(c, to, whole ? op->ttl_ms / 1000 : op->ttl_ms);
        break;
    case KV_DEL:
        break;
    case KV_EXPIRE:
        add_number(c, to, op->ttl_ms);
        break;
    case KV_SADD:
    case KV_SREM:
        add_str(c, to, op->member);
        break;
    case KV_INCR:
        add_number(c, to, op->number);
        c->once = true;
        break;
    case KV_HSET:
        add_str(c, to, op->member);
        add_str(c, to, op->value);
        break;
    case KV_HINCR:
        add_str(c, to, op->member);
        add_number(c, to, op->number);
        c->once = true;
        break;
    case KV_SETBIT:
        add_number(c, to, op->number);
        add_text(c, to, "1");
        break;
    }
}

static int op_write(struct kv *kv, const struct kv_op *op, size_t n, kv_done_fn *fn, void *arg)
{
    struct redis *r = self_of(kv);
    size_t bytes = 0;
    if (n > KV_OPS_MAX)
        return ERR_LIMIT;
    for (size_t i = 0; i < n; i++) {
        if (op[i].key.n > KV_KEY_MAX || op[i].member.n > KV_KEY_MAX - op[i].key.n)
            return ERR_TOO_LONG;
        bytes += op[i].key.n + op[i].member.n + op[i].value.n + 64;
    }
    struct call *c = call_new(r, n, n * (ARGS_MAX + 1), bytes, fn, arg);
    if (c == NULL)
        return ERR_BUSY;
    char *to = c->bytes;
    c->transaction = true;
    for (size_t i = 0; i < n; i++)
        add_op(c, &to, &op[i]);
    r->stat.writes++;
    return call_start(c);
}

static size_t total(const struct kv_str *s, size_t n)
{
    size_t bytes = 0;
    for (size_t i = 0; i < n; i++)
        bytes += s[i].n;
    return bytes;
}

static int op_get(struct kv *kv, const struct kv_str *keys, size_t n, kv_done_fn *fn, void *arg)
{
    struct call *c;
    if (n == 0) {
        fn(arg, &(struct kv_answer){0});
        return 0;
    }
    if ((c = call_new(self_of(kv), 1, n + 1, total(keys, n) + 8, fn, arg)) == NULL)
        return ERR_BUSY;
    char *to = c->bytes;
    command(c);
    add_text(c, &to, "MGET");
    for (size_t i = 0; i < n; i++)
        add_str(c, &to, keys[i]);
    c->redis->stat.reads++;
    return call_start(c);
}

static int op_hget(struct kv *kv, struct kv_str key, const struct kv_str *fields, size_t n,
                   kv_done_fn *fn, void *arg)
{
    struct call *c = call_new(self_of(kv), 1, n + 2, total(fields, n) + key.n + 8, fn, arg);
    if (c == NULL)
        return ERR_BUSY;
    char *to = c->bytes;
    command(c);
    add_text(c, &to, "HMGET");
    add_str(c, &to, key);
    for (size_t i = 0; i < n; i++)
        add_str(c, &to, fields[i]);
    c->redis->stat.reads++;
    return call_start(c);
}

static int op_members(struct kv *kv, struct kv_str set, kv_done_fn *fn, void *arg)
{
    struct call *c = call_new(self_of(kv), 1, 2, set.n + 16, fn, arg);
    if (c == NULL)
        return ERR_BUSY;
    char *to = c->bytes;
    command(c);
    add_text(c, &to, "SMEMBERS");
    add_str(c, &to, set);
    c->redis->stat.reads++;
    return call_start(c);
}

static int op_ttl(struct kv *kv, const struct kv_str *keys, size_t n, kv_done_fn *fn, void *arg)
{
    struct call *c = call_new(self_of(kv), n, 2 * n, total(keys, n) + 8 * n, fn, arg);
    if (c == NULL)
        return ERR_BUSY;
    char *to = c->bytes;
    c->transaction = true;
    for (size_t i = 0; i < n; i++) {
        command(c);
        add_text(c, &to, "PTTL");
        add_str(c, &to, keys[i]);
    }
    c->redis->stat.reads++;
    return call_start(c);
}

static void op_stat(const struct kv *kv, struct kv_stat *out)
{
    const struct redis *r = self_of(kv);
    *out = r->stat;
    out->pending = r->pending;
}

static void op_close(struct kv *kv)
{
    struct redis *r = self_of(kv);
    struct call *c;
    r->closing = true;
    name_lookup_free(r->names);
    loop_timer_cancel(r->loop, &r->retry);
    loop_timer_cancel(r->loop, &r->deadline);
    if (r->ac != NULL) {
        redisAsyncContext *ac = r->ac;
        r->ac = NULL;
        redisAsyncFree(ac);
    }
    while ((c = list_first_as(&r->waiting, struct call, node)) != NULL)
        call_free(c);
    while ((c = list_first_as(&r->sent, struct call, node)) != NULL)
        call_free(c);
    if (r->password != NULL)
        sodium_memzero(r->password, strlen(r->password));
    free(r->password);
    free(r);
}

static const struct kv_ops ops = {"redis",    op_write, op_get,  op_hget,
                                  op_members, op_ttl,   op_stat, op_close};

/* ---- opening ---- */

/* redis://[user][:password@]host[:port][/database], unix:///path */
static int read_url(struct redis *r, const char *url)
{
    char *end;
    r->port = 6379;
    if (strncmp(url, "unix://", 7) == 0) {
        size_t n = strcspn(url + 7, "?");
        if (n == 0 || n >= sizeof(r->path))
            return ERR_FORMAT;
        memcpy(r->path, url + 7, n);
        const char *db = strstr(url, "db=");
        r->database = db != NULL ? (int)strtol(db + 3, NULL, 10) : 0;
        snprintf(r->host, sizeof(r->host), "%s", r->path);
        return 0;
    }
    if (strncmp(url, "redis://", 8) != 0)
        return ERR_FORMAT;
    const char *p = url + 8, *at = strrchr(p, '@');
    if (at != NULL) {
        const char *colon = memchr(p, ':', (size_t)(at - p));
        if (colon != NULL && (r->password = strndup(colon + 1, (size_t)(at - colon - 1))) == NULL)
            return ERR_NOMEM;
        p = at + 1;
    }
    size_t n = strcspn(p, ":/?");
    if (n >= sizeof(r->host))
        return ERR_FORMAT;
    memcpy(r->host, p, n);
    if (n == 0)
        memcpy(r->host, "localhost", 10);
    p += n;
    if (*p == ':') {
        r->port = (int)strtol(p + 1, &end, 10);
        if (end == p + 1 || r->port < 1 || r->port > 65535)
            return ERR_FORMAT;
        p = end;
    }
    if (*p == '/' && p[1] != '\0') {
        r->database = (int)strtol(p + 1, &end, 10);
        p = end;
        if (r->database < 0 || (*p != '\0' && *p != '?'))
            return ERR_FORMAT;
    }
    return 0;
}

int kv_redis_open(struct kv **out, const struct kv_redis_cfg *cfg)
{
    struct redis *r = calloc(1, sizeof(*r));
    *out = NULL;
    if (r == NULL)
        return ERR_NOMEM;
    r->kv.ops = &ops;
    r->cfg = *cfg;
    r->loop = drive_loop_loop(cfg->drive);
    r->retry.fn = on_retry;
    r->deadline.fn = on_deadline;
    list_init(&r->waiting);
    list_init(&r->sent);
    int rc = read_url(r, cfg->url);
    if (rc == 0 && cfg->password != NULL && cfg->password[0] != '\0') {
        free(r->password);
        if ((r->password = strdup(cfg->password)) == NULL)
            rc = ERR_NOMEM;
    }
    if (rc < 0) {
        free(r->password);
        free(r);
        return rc;
    }
    loop_timer_set(r->loop, &r->deadline, r->loop->now_ns + LOOK_NS);
    loop_timer_set(r->loop, &r->retry, r->loop->now_ns);
    *out = &r->kv;
    return 0;
}
