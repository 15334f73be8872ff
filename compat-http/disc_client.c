#include "compat-http/disc_client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/err.h"
#include "base/json.h"

#define LIST_BODY ((size_t)64 << 20)
#define URL_MAX   1024

struct disc_op;
typedef void disc_take_fn(struct disc_op *op, const struct http_answer *h, struct disc_answer *a);

struct disc_op {
    struct list_node node; /* in client->ops */
    struct disc_client *client;
    uint64_t handle, http;
    disc_answer_fn *fn;
    void *arg;
    disc_take_fn *take;
    struct pubkey pk;
    struct disc_answer answer; /* while the signature is checked */
    struct entry *entry;
    struct hash digest[4];
    int n_digest, at;
    struct pk_wait wait;
};

struct disc_client {
    struct disc_client_cfg cfg;
    char *url;
    struct list ops;
    uint64_t next_handle;
};

/* ---- outcome ---- */

static void op_free(struct disc_op *op)
{
    env_pk_cancel(op->client->cfg.env, &op->wait);
    http_client_cancel(op->client->cfg.http, op->http);
    entry_free(op->entry);
    list_remove(&op->node);
    free(op);
}

/* The operation is over before its owner hears of it, so that he may do anything. */
static void op_answer(struct disc_op *op, const struct disc_answer *a)
{
    disc_answer_fn *fn = op->fn;
    void *arg = op->arg;
    struct entry *e = op->entry;
    op->entry = NULL;
    op->http = 0;
    op_free(op);
    fn(arg, a);
    entry_free(e);
}

/* {"message":"…","code":…} */
static enum disc_text message_of(const struct http_answer *h)
{
    struct json_in j = json_in_init(h->body, h->len);
    char text[256];
    size_t n;
    enum disc_text t = DISC_UNEXPECTED;
    if (json_in_object(&j))
        while (json_in_member(&j)) {
            if (!json_in_name_is(&j, "message"))
                json_in_skip(&j);
            else if (json_in_string(&j, text, sizeof(text), &n))
                t = disc_text_find(text, n);
        }
    return t;
}

static void on_answer(void *arg, const struct http_answer *h)
{
    struct disc_op *op = arg;
    struct disc_answer a = {.err = h->err, .text = DISC_UNEXPECTED, .why = h->why, .ms = h->ms};
    op->http = 0;
    if (h->err == 0 && h->status != 200) {
        a.text = message_of(h);
        a.err = disc_text_err(a.text) != 0 ? disc_text_err(a.text) : ERR_PROTOCOL;
        a.why = disc_text_message(a.text);
    }
    op->take(op, h, &a);
}

/* ---- an entry ---- */

static void check_next(struct disc_op *op);

static void checked(struct pk_wait *w)
{
    struct disc_op *op = container_of(w, struct disc_op, wait);
    bool good = w->res.err == 0;
    if (!good && ++op->at < op->n_digest) {
        check_next(op);
        return;
    }
    op->answer.verified = good;
    op->answer.entry = op->entry;
    if (!good && !op->entry->has_server) {
        op->answer.err = ERR_SIG;
        op->answer.text = DISC_BAD_SIGNATURE;
        op->answer.why = "the entry's signature does not verify";
    }
    struct disc_answer a = op->answer;
    op_answer(op, &a);
}

static void check_next(struct disc_op *op)
{
    struct pk_req req = {.op = PK_VERIFY,
                         .cls = PK_CLASS_ITEM,
                         .pk = op->entry->static_pk,
                         .digest = op->digest[op->at],
                         .sig = op->entry->signature};
    op->wait.done = checked;
    int rc = env_pk(op->client->cfg.env, &op->wait, &req);
    if (rc == ERR_PENDING)
        return;
    if (rc != 0)
        op->wait.res.err = rc;
    checked(&op->wait);
}

/* As it is, and as the server signed it: without the type that the service wrote over. */
static void collect_digests(struct disc_op *op)
{
    struct entry *e = op->entry;
    int n = entry_check_begin(op->digest, e);
    op->n_digest = n > 0 ? n : 0;
    if (!e->has_server || e->server.server_type[0] == '\0')
        return;
    const char *type = e->server.server_type;
    e->server.server_type = "";
    n = entry_check_begin(op->digest + op->n_digest, e);
    e->server.server_type = type;
    op->n_digest += n > 0 ? n : 0;
}

static void take_entry(struct disc_op *op, const struct http_answer *h, struct disc_answer *a)
{
    if (a->err == 0) {
        a->err = entry_parse(&op->entry, h->body, h->len);
        if (a->err == 0 && !pubkey_equal(&op->entry->static_pk, &op->pk))
            a->err = ERR_FORMAT;
        a->why = a->err != 0 ? "the answer is not an entry of this key" : a->why;
    }
    if (a->err != 0) {
        op_answer(op, a);
        return;
    }
    a->text = DISC_WROTE_NEXT;
    a->why = "";
    op->answer = *a;
    collect_digests(op);
    if (op->n_digest > 0) {
        check_next(op);
        return;
    }
    op->wait.res.err = ERR_SIG;
    checked(&op->wait);
}

/* ---- lists ---- */

static void empty_when_none(struct disc_answer *a)
{
    if (a->text != DISC_NO_SERVERS)
        return;
    a->err = 0;
    a->why = "";
}

static void not_a_list(struct disc_answer *a)
{
    a->err = ERR_FORMAT;
    a->why = "the answer is not a list";
}

static void take_servers(struct disc_op *op, const struct http_answer *h, struct disc_answer *a)
{
    struct entry **list = NULL;
    size_t n = 0, cap = 0, len;
    const char *text;
    struct json_in j = json_in_init(h->body, h->len);
    empty_when_none(a);
    bool read = a->err == 0 && a->text != DISC_NO_SERVERS && json_in_array(&j);
    while (read && n < DISC_CLIENT_SERVERS && json_in_element(&j)) {
        json_in_skip_text(&j, &text, &len);
        if (n == cap) {
            cap = cap != 0 ? 2 * cap : 16;
            struct entry **more = realloc(list, cap * sizeof(struct entry *));
            if (more == NULL)
                break;
            list = more;
        }
        if (j.err == 0 && entry_parse(&list[n], text, len) == 0) {
            if (list[n]->has_server)
                n++;
            else
                entry_free(list[n]);
        }
    }
    if (read && j.err != 0)
        not_a_list(a);
    a->servers = list;
    a->n = a->err == 0 ? n : 0;
    op_answer(op, a);
    for (size_t i = 0; i < n; i++)
        entry_free(list[i]);
    free(list);
}

static void take_keys(struct disc_op *op, const struct http_answer *h, struct disc_answer *a)
{
    struct pubkey *list = NULL;
    size_t n = 0, cap = 0, len;
    char text[PUBKEY_HEX + 2];
    struct json_in j = json_in_init(h->body, h->len);
    bool read = a->err == 0 && json_in_array(&j);
    while (read && n < DISC_CLIENT_KEYS && json_in_element(&j)) {
        if (n == cap) {
            cap = cap != 0 ? 2 * cap : 64;
            struct pubkey *more = realloc(list, cap * sizeof(*list));
            if (more == NULL)
                break;
            list = more;
        }
        if (json_in_string(&j, text, sizeof(text), &len) &&
            pubkey_from_hex(&list[n], text, len) == 0)
            n++;
    }
    if (read && j.err != 0)
        not_a_list(a);
    a->keys = list;
    a->n = a->err == 0 ? n : 0;
    op_answer(op, a);
    free(list);
}

static void take_message(struct disc_op *op, const struct http_answer *h, struct disc_answer *a)
{
    if (a->err == 0)
        a->text = message_of(h);
    op_answer(op, a);
}

/* ---- requests ---- */

static uint64_t start(struct disc_client *d, const char *method, const char *path,
                      const struct http_request *more, const struct pubkey *pk, disc_take_fn *take,
                      disc_answer_fn *fn, void *arg)
{
    char url[URL_MAX + 160];
    struct disc_op *op = calloc(1, sizeof(*op));
    if (op == NULL)
        return 0;
    snprintf(url, sizeof(url), "%s/dmsg-discovery/%s", d->url, path);
    struct http_request req = *more;
    req.method = method;
    req.url = url;
    req.timeout_ms = d->cfg.timeout_ms != 0 ? d->cfg.timeout_ms : DISC_CLIENT_TIMEOUT_MS;
    op->client = d;
    op->handle = ++d->next_handle;
    op->fn = fn;
    op->arg = arg;
    op->take = take;
    if (pk != NULL)
        op->pk = *pk;
    list_push_back(&d->ops, &op->node);
    op->http = http_client_start(d->cfg.http, &req, on_answer, op);
    if (op->http != 0)
        return op->handle;
    op_free(op);
    return 0;
}

uint64_t disc_client_get(struct disc_client *d, const struct pubkey *pk, disc_answer_fn *fn,
                         void *arg)
{
    char path[PUBKEY_HEX + 8] = "entry/";
    pubkey_hex(path + 6, pk);
    return start(d, "GET", path, &(struct http_request){.max_body = ENTRY_MAX_TEXT}, pk, take_entry,
                 fn, arg);
}

uint64_t disc_client_list(struct disc_client *d, enum disc_list what, disc_answer_fn *fn, void *arg)
{
    static const char *const paths[] = {
        [DISC_AVAILABLE_SERVERS] = "available_servers",
        [DISC_ALL_SERVERS] = "all_servers",
        [DISC_CLIENTS] = "entries",
        [DISC_VISOR_CLIENTS] = "visorEntries",
    };
    bool servers = what == DISC_AVAILABLE_SERVERS || what == DISC_ALL_SERVERS;
    return start(d, "GET", paths[what], &(struct http_request){.max_body = LIST_BODY}, NULL,
                 servers ? take_servers : take_keys, fn, arg);
}

uint64_t disc_client_send(struct disc_client *d, bool withdraw, const char *text, size_t n,
                          disc_answer_fn *fn, void *arg)
{
    static const char *const headers[] = {"Content-Type: application/json", "Expect:", NULL};
    struct http_request req = {
        .body = text, .body_len = n, .headers = headers, .max_body = ENTRY_MAX_TEXT};
    return start(d, withdraw ? "DELETE" : "POST", withdraw ? "entry" : "entry/", &req, NULL,
                 take_message, fn, arg);
}

void disc_client_cancel(struct disc_client *d, uint64_t handle)
{
    struct list_node *pos, *tmp;
    list_for_each(pos, tmp, &d->ops)
    {
        struct disc_op *op = container_of(pos, struct disc_op, node);
        if (op->handle == handle) {
            op_free(op);
            return;
        }
    }
}

/* ---- for those who do not care who answers ---- */

static uint64_t port_get(void *d, const struct pubkey *pk, disc_answer_fn *fn, void *arg)
{
    return disc_client_get(d, pk, fn, arg);
}

static uint64_t port_list(void *d, enum disc_list what, disc_answer_fn *fn, void *arg)
{
    return disc_client_list(d, what, fn, arg);
}

static uint64_t port_send(void *d, bool withdraw, const char *text, size_t n, disc_answer_fn *fn,
                          void *arg)
{
    return disc_client_send(d, withdraw, text, n, fn, arg);
}

static void port_cancel(void *d, uint64_t handle)
{
    disc_client_cancel(d, handle);
}

struct disc_port disc_client_port(struct disc_client *d)
{
    return (struct disc_port){d, port_get, port_list, port_send, port_cancel};
}

/* ---- life ---- */

int disc_client_new(struct disc_client **out, const struct disc_client_cfg *cfg)
{
    struct disc_client *d = calloc(1, sizeof(*d));
    size_t n = strlen(cfg->url);
    *out = NULL;
    if (d == NULL)
        return ERR_NOMEM;
    while (n > 0 && cfg->url[n - 1] == '/')
        n--;
    bool scheme = strncasecmp(cfg->url, "http://", 7) == 0 ||
                  strncasecmp(cfg->url, "https://", 8) == 0 ||
                  strncasecmp(cfg->url, "dmsg://", 7) == 0;
    d->url = scheme && n <= URL_MAX ? strndup(cfg->url, n) : NULL;
    if (d->url == NULL) {
        free(d);
        return scheme && n <= URL_MAX ? ERR_NOMEM : ERR_FORMAT;
    }
    d->cfg = *cfg;
    list_init(&d->ops);
    *out = d;
    return 0;
}

void disc_client_free(struct disc_client *d)
{
    struct disc_op *op;
    if (d == NULL)
        return;
    while ((op = list_first_as(&d->ops, struct disc_op, node)) != NULL)
        op_free(op);
    free(d->url);
    free(d);
}

const char *disc_client_url(const struct disc_client *d)
{
    return d->url;
}
