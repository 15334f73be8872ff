/*
 * ctl_dht - commands about the DHT and the entries in it.
 *
 * Operations of the engine end in a report; struct waiting connects it with the request. The
 * waiting is the operation's user pointer; when the request goes first it is only marked, and freed
 * by the report.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/base64.h"
#include "base/err.h"
#include "node/node_int.h"

struct waiting {
    struct list_node node;
    struct ctl_req *req; /* NULL: the connection is gone */
    uint32_t op;
    void (*done)(struct waiting *w, const struct kad_report *r);
};

static struct node *node_of(const struct ctl_req *req)
{
    return req->node_arg;
}

static bool watch_report(struct node *n, const struct kad_report *r);

/* ---- operations of the engine ---- */

static void op_gone(struct ctl_req *req)
{
    ((struct waiting *)req->user)->req = NULL;
}

bool ctl_report(struct node *n, const struct kad_report *r)
{
    struct list_node *pos, *tmp;
    if (r->type == KAD_OP_WATCH)
        return watch_report(n, r);
    list_for_each(pos, tmp, &n->operations)
    {
        struct waiting *w = container_of(pos, struct waiting, node);
        if (w->op != r->op || (void *)w != r->user)
            continue;
        list_remove(&w->node);
        if (w->req != NULL)
            w->done(w, r);
        free(w);
        return true;
    }
    return false;
}

static struct waiting *op_new(struct ctl_req *req,
                              void (*done)(struct waiting *w, const struct kad_report *r))
{
    unsigned ms;
    if (ctl_arg_timeout(req, &ms) < 0)
        return NULL;
    ctl_set_timeout(req, ms);
    struct waiting *w = calloc(1, sizeof(*w));
    if (w == NULL) {
        ctl_fail(req, ERR_NOMEM, NULL);
        return NULL;
    }
    w->req = req;
    w->done = done;
    return w;
}

static void op_started(struct waiting *w, uint32_t op)
{
    struct node *n = node_of(w->req);
    if (op == 0) {
        struct ctl_req *req = w->req;
        free(w);
        ctl_fail(req, ERR_BUSY, "too many DHT operations are running");
        return;
    }
    w->op = op;
    w->req->user = w;
    w->req->gone = op_gone;
    list_push_back(&n->operations, &w->node);
    host_kick(n->host);
}

void ctl_operations_free(struct node *n)
{
    struct waiting *w;
    while ((w = list_pop_front_as(&n->operations, struct waiting, node)) != NULL)
        free(w);
}

/* ---- values ---- */

static bool is_text(const uint8_t *p, size_t n)
{
    if (n == 0)
        return true;
    json_t *s = memchr(p, 0, n) == NULL ? json_stringn((const char *)p, n) : NULL;
    bool text = s != NULL;
    json_decref(s);
    return text;
}

/* Control characters take six bytes in JSON; what might not fit into a packet goes as base64. */
static bool fits(const uint8_t *p, size_t n)
{
    size_t len = 0;
    for (size_t i = 0; i < n; i++)
        len += p[i] < 0x20 ? 6 : p[i] == '"' || p[i] == '\\' ? 2 : 1;
    return len < CONTROL_PACKET / 2;
}

/* value as text when it is UTF-8, value_base64 otherwise. */
static void value_set(json_t *o, const char *name, const uint8_t *p, size_t n)
{
    char key[64];
    if (is_text(p, n) && fits(p, n)) {
        json_object_set_new(o, name, json_stringn(n > 0 ? (const char *)p : "", n));
        return;
    }
    char *b64 = malloc(BASE64_LEN(n) + 1);
    if (b64 == NULL)
        return;
    size_t len = base64_encode(b64, p, n);
    snprintf(key, sizeof(key), "%s_base64", name);
    json_object_set_new(o, key, json_stringn(b64, len));
    free(b64);
}

/* A JSON number of the library ends at 2^63-1; what is above it, nobody's clock gives, and it is
 * shown as text. */
static json_t *seq_of(uint64_t seq)
{
    char text[24];
    if (seq <= INT64_MAX)
        return json_integer((json_int_t)seq);
    snprintf(text, sizeof(text), "%llu", (unsigned long long)seq);
    return json_string(text);
}

static void set_item(json_t *o, const struct item *it, const struct kad_id *target)
{
    json_object_set_new(o, "k", ctl_key_json(&it->k));
    json_object_set_new(o, "target", ctl_id_json(target));
    json_object_set_new(o, "seq", seq_of(it->seq));
    value_set(o, "salt", it->salt, it->salt_len);
    value_set(o, "value", it->v, it->v_len);
}

/* ---- get ---- */

/* The salt of a request: 0, or the request was failed. */
static int arg_salt(struct ctl_req *req, const char **salt)
{
    *salt = ctl_arg_str(req, "salt", "");
    if (strlen(*salt) <= ITEM_MAX_SALT)
        return 0;
    ctl_fail(req, ERR_USAGE, "salt: longer than %d bytes", ITEM_MAX_SALT);
    return ERR_USAGE;
}

static const char *source_name(enum kad_source s)
{
    switch (s) {
    case KAD_SRC_LOCAL:
        return "local";
    case KAD_SRC_DHT:
        return "dht";
    case KAD_SRC_NONE:
        break;
    }
    return "none";
}

static unsigned ms_of(const struct kad_report *r)
{
    return (unsigned)((r->ended_ns - r->started_ns) / NS_PER_MS);
}

static void lookup_failed(struct ctl_req *req, const struct kad_report *r, const char *what)
{
    const char *pk = ctl_arg_str(req, "pk", "");
    char slot[ITEM_MAX_SALT + PUBKEY_HEX + 16];
    snprintf(slot, sizeof(slot), "\"%s\"%s%s", ctl_arg_str(req, "salt", ""),
             pk[0] != '\0' ? " of " : "", pk);
    if (r->err == ERR_NO_ROUTE && r->asked == 0)
        ctl_fail(req, r->err, "%s %s: no DHT peer is known", what, slot);
    else
        ctl_fail(req, r->err,
                 "%s %s: %s (asked %u peers, %u answered, %u failed, %u hops, %u ms%s)", what, slot,
                 err_str(r->err), r->asked, r->answered, r->failed, r->hops, ms_of(r),
                 r->rejected_items > 0 ? "; items that do not verify were refused" : "");
}

const char *ctl_end_name(enum kad_end end)
{
    switch (end) {
    case KAD_END_CLOSEST:
        return "the closest have answered";
    case KAD_END_FOUND:
        return "found";
    case KAD_END_LOCAL:
        return "local";
    case KAD_END_NO_PEERS:
        return "no DHT peer is known";
    case KAD_END_TIMEOUT:
        return "timed out";
    case KAD_END_CANCELLED:
        break;
    }
    return "cancelled";
}

/* What every look-up tells of itself. */
static json_t *report_of(const struct kad_report *r)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s}", "hops", (json_int_t)r->hops,
                     "asked", (json_int_t)r->asked, "answered", (json_int_t)r->answered, "failed",
                     (json_int_t)r->failed, "rejected", (json_int_t)r->rejected_items, "bytes",
                     (json_int_t)r->bytes, "ms", (json_int_t)ms_of(r), "end", ctl_end_name(r->end));
}

static void get_done(struct waiting *w, const struct kad_report *r)
{
    if (r->err != 0 || r->item == NULL) {
        struct kad_report copy = *r;
        copy.err = r->err != 0 ? r->err : ERR_NOT_FOUND;
        lookup_failed(w->req, &copy, "get");
        return;
    }
    json_t *o = report_of(r);
    json_object_set_new(o, "source", json_string(source_name(r->source)));
    set_item(o, &r->item->item, &r->target);
    ctl_ok(w->req, o, -1);
}

void ctl_dht_get(struct ctl_req *req)
{
    struct node *n = node_of(req);
    struct pubkey pk;
    const char *salt;
    if (ctl_arg_pubkey(req, "pk", &pk) < 0 || arg_salt(req, &salt) < 0)
        return;
    struct waiting *w = op_new(req, get_done);
    if (w != NULL)
        op_started(w,
                   kad_get(node_kad(n), &pk, salt, strlen(salt),
                           ctl_arg_bool(req, "network") ? KAD_GET_NETWORK : 0, w, n->loop->now_ns));
}

/* ---- watch ---- */

struct watching { /* a request that goes on until its connection ends */
    struct list_node node;
    struct ctl_req *req;
    struct node *n;
    uint32_t number;
};

static void watch_free(struct watching *w)
{
    kad_unwatch(node_kad(w->n), w->number);
    list_remove(&w->node);
    free(w);
}

static void watch_gone(struct ctl_req *req)
{
    watch_free(req->user);
}

static bool watch_report(struct node *n, const struct kad_report *r)
{
    struct list_node *pos, *tmp;
    list_for_each(pos, tmp, &n->watching)
    {
        struct watching *w = container_of(pos, struct watching, node);
        if ((void *)w != r->user || w->number != r->op)
            continue;
        json_t *o = json_pack("{s:s, s:b}", "event", "changed", "deleted", r->err != 0);
        set_item(o, &r->item->item, &r->target);
        ctl_event(w->req, o, -1);
        return true;
    }
    return false;
}

void ctl_dht_watch(struct ctl_req *req)
{
    struct node *n = node_of(req);
    struct pubkey pk;
    const char *salt;
    if (ctl_arg_pubkey(req, "pk", &pk) < 0 || arg_salt(req, &salt) < 0)
        return;
    struct watching *w = calloc(1, sizeof(*w));
    if (w != NULL)
        w->number = kad_watch(node_kad(n), &pk, salt, strlen(salt), w, n->loop->now_ns);
    if (w == NULL || w->number == 0) {
        free(w);
        ctl_fail(req, ERR_BUSY, "watch: too many slots are watched");
        return;
    }
    w->req = req;
    w->n = n;
    req->user = w;
    req->gone = watch_gone;
    list_push_back(&n->watching, &w->node);
    host_kick(n->host);
}

/* ---- look-ups with their report ---- */

static json_t *steps_of(const struct kad_report *r)
{
    static const char *const how[] = {"answered", "failed", "silent"};
    json_t *steps = json_array();
    for (size_t i = 0; i < r->n_steps; i++) {
        const struct kad_step *s = &r->steps[i];
        json_array_append_new(
            steps, json_pack("{s:o, s:I, s:s, s:I}", "public_key", ctl_key_json(&s->pk), "hop",
                             (json_int_t)s->hop, "result", how[s->how], "asked_ms",
                             (json_int_t)((s->asked_ns - r->started_ns) / NS_PER_MS)));
    }
    return steps;
}

/* A look-up that found nothing has a report all the same. */
static void lookup_done(struct waiting *w, const struct kad_report *r)
{
    json_t *closest = json_array();
    for (size_t i = 0; i < r->n_closest; i++)
        json_array_append_new(closest, ctl_key_json(&r->closest[i]));
    json_t *o = report_of(r);
    json_object_set_new(o, "target", ctl_id_json(&r->target));
    json_object_set_new(o, "result", json_string(r->err == 0 ? "ok" : err_str(r->err)));
    json_object_set_new(o, "exit", json_integer((json_int_t)err_exit_code(r->err)));
    json_object_set_new(o, "found", json_boolean(r->err == 0));
    json_object_set_new(o, "closest", closest);
    json_object_set_new(o, "steps", steps_of(r));
    if (r->item != NULL) {
        json_object_set_new(o, "k", ctl_key_json(&r->item->item.k));
        json_object_set_new(o, "seq", seq_of(r->item->item.seq));
        json_object_set_new(o, "size", json_integer((json_int_t)r->item->item.v_len));
    }
    ctl_ok(w->req, o, -1);
}

/* "pk" with "salt": the value of that slot; "pk" alone or "target": who is closest. */
void ctl_dht_lookup(struct ctl_req *req)
{
    struct node *n = node_of(req);
    const char *salt, *target = ctl_arg_str(req, "target", NULL);
    struct pubkey pk;
    struct kad_id id;
    bool value = ctl_arg_str(req, "salt", NULL) != NULL;
    if (target != NULL && kad_id_from_hex(&id, target, strlen(target)) < 0) {
        ctl_fail(req, ERR_USAGE, "target: not %d hex digits", KAD_ID_HEX);
        return;
    }
    if (arg_salt(req, &salt) < 0 || (target == NULL && ctl_arg_pubkey(req, "pk", &pk) < 0))
        return;
    struct waiting *w = op_new(req, lookup_done);
    if (w == NULL)
        return;
    if (target == NULL && !value)
        id = kad_id_of(&pk);
    uint32_t op = target == NULL && value ? kad_get(node_kad(n), &pk, salt, strlen(salt),
                                                    KAD_GET_NETWORK, w, n->loop->now_ns)
                                          : kad_find_node(node_kad(n), &id, w, n->loop->now_ns);
    if (ctl_arg_bool(req, "trace"))
        kad_trace(node_kad(n), op);
    op_started(w, op);
}

/* ---- sync ---- */

static void sync_done(struct waiting *w, const struct kad_report *r)
{
    if (r->err != 0) {
        ctl_fail(w->req, r->err, "sync: %s (%u pages asked, %u answered, %llu items pulled)",
                 err_str(r->err), r->asked, r->answered, (unsigned long long)r->pulled);
        return;
    }
    ctl_ok(w->req,
           json_pack("{s:I, s:I, s:I, s:I, s:I}", "pulled", (json_int_t)r->pulled, "pushed",
                     (json_int_t)r->pushed, "pages", (json_int_t)r->answered, "bytes",
                     (json_int_t)r->bytes, "ms", (json_int_t)ms_of(r)),
           -1);
}

/* With "pk", or a peer that may hold everything; with "salt" that namespace is pulled and nothing
 * is pushed. */
void ctl_dht_sync(struct ctl_req *req)
{
    struct node *n = node_of(req);
    struct pubkey pk;
    const char *salt;
    if (arg_salt(req, &salt) < 0)
        return;
    if (ctl_arg_str(req, "pk", NULL) == NULL && !servers_full_peer(n, &pk)) {
        ctl_fail(req, ERR_NO_ROUTE, "sync: no DHT peer is known");
        return;
    }
    if (ctl_arg_str(req, "pk", NULL) != NULL && ctl_arg_pubkey(req, "pk", &pk) < 0)
        return;
    if (pubkey_equal(&pk, &n->cfg.pk)) {
        ctl_fail(req, ERR_USAGE, "sync: that is this node's own key");
        return;
    }
    kad_peer p = host_peer(n->host, &pk);
    struct waiting *w = p != KAD_PEER_NONE ? op_new(req, sync_done) : NULL;
    if (p == KAD_PEER_NONE)
        ctl_fail(req, ERR_LIMIT, "sync: too many peers are known");
    if (w != NULL)
        op_started(w, salt[0] != '\0'
                          ? kad_pull(node_kad(n), p, salt, strlen(salt), w, n->loop->now_ns)
                          : kad_sync(node_kad(n), p, w, n->loop->now_ns));
    if (p != KAD_PEER_NONE)
        host_unref(n->host, p);
}

/* ---- put ---- */

/* JSON numbers of the library end at 2^63-1, so a sequence number comes as text. */
static bool seq_parse(uint64_t *out, const char *text)
{
    char *end;
    errno = 0;
    *out = strtoull(text, &end, 10);
    return text[0] >= '0' && text[0] <= '9' && *end == '\0' && errno == 0;
}

static void put_done(struct waiting *w, const struct kad_report *r)
{
    int err = node_put_err(node_of(w->req), r);
    if (err == ERR_NO_ROUTE) {
        ctl_fail(w->req, r->err,
                 "put \"%s\": no DHT peer answers; this node keeps it and publishes it when "
                 "one does",
                 ctl_arg_str(w->req, "salt", ""));
        return;
    }
    if (err != 0) {
        lookup_failed(w->req, r, "put");
        return;
    }
    json_t *o = report_of(r);
    json_object_set_new(o, "target", ctl_id_json(&r->target));
    json_object_set_new(o, "stored", json_integer((json_int_t)r->stored));
    json_object_set_new(o, "seq", seq_of(r->item != NULL ? r->item->item.seq : 0));
    ctl_ok(w->req, o, -1);
}

void ctl_dht_put(struct ctl_req *req)
{
    struct node *n = node_of(req);
    const char *salt, *b64 = ctl_arg_str(req, "value_base64", ""),
                      *seq_text = ctl_arg_str(req, "seq", NULL);
    uint64_t seq = 0;
    if (arg_salt(req, &salt) < 0)
        return;
    if (seq_text != NULL && !seq_parse(&seq, seq_text)) {
        ctl_fail(req, ERR_USAGE, "seq: not a number from 0 to 2^64-1");
        return;
    }
    uint8_t *v = malloc(ITEM_MAX_VALUE + 1);
    size_t v_n = 0;
    int rc = v == NULL ? ERR_NOMEM : base64_decode(v, ITEM_MAX_VALUE, &v_n, b64, strlen(b64));
    if (rc < 0) {
        free(v);
        ctl_fail(req, rc, "put: %s", rc == ERR_FORMAT ? "value_base64 is not base64" : err_str(rc));
        return;
    }
    struct waiting *w = op_new(req, put_done);
    if (w != NULL)
        op_started(w, kad_put(node_kad(n), salt, strlen(salt), v, v_n, seq_text != NULL, seq, w,
                              n->loop->now_ns));
    free(v);
}

/* ---- list: pages of the store, as fast as the connection takes them ---- */

struct listing {
    struct ctl_req *req;
    uint64_t since;
    char salt[ITEM_MAX_SALT + 1];
};

static bool list_row(void *arg, const struct store_rec *rec)
{
    static const char *const kinds[] = {"owner", "cert", "mirror"};
    struct listing *l = arg;
    json_t *o = json_pack("{s:o, s:o, s:I, s:s}", "target", ctl_id_json(&rec->target), "k",
                          ctl_key_json(&rec->item.k), "size", (json_int_t)rec->item.v_len, "kind",
                          kinds[rec->kind]);
    json_object_set_new(o, "seq", seq_of(rec->item.seq));
    value_set(o, "salt", rec->item.salt, rec->item.salt_len);
    ctl_row(l->req, o);
    l->since = rec->item.seq;
    return true;
}

static void list_more(struct ctl_req *req)
{
    struct node *n = node_of(req);
    struct listing *l = req->user;
    bool more = true;
    int rc = 0;
    while (rc == 0 && more && ctl_row_room(req)) {
        struct store_page page = {.since_seq = l->since, .limit = 64, .salt_len = strlen(l->salt)};
        page.salt = page.salt_len > 0 ? (const uint8_t *)l->salt : NULL;
        rc = n->store->ops->list(n->store, &page, list_row, l, &more);
    }
    if (rc == 0 && more)
        return; /* goes on when there is room */
    free(l);
    req->user = NULL;
    req->gone = req->room = NULL;
    if (rc < 0)
        ctl_fail(req, rc, "list: %s", err_str(rc));
    else
        ctl_ok(req, NULL, -1);
}

static void list_gone(struct ctl_req *req)
{
    free(req->user);
}

void ctl_dht_list(struct ctl_req *req)
{
    const char *salt;
    if (arg_salt(req, &salt) < 0)
        return;
    struct listing *l = calloc(1, sizeof(*l));
    if (l == NULL) {
        ctl_fail(req, ERR_NOMEM, NULL);
        return;
    }
    l->req = req;
    snprintf(l->salt, sizeof(l->salt), "%s", salt);
    req->user = l;
    req->gone = list_gone;
    req->room = list_more;
    list_more(req);
}

/* "on": true or false; without it the node only says what it is. */
void ctl_dht_full(struct ctl_req *req)
{
    struct node *n = node_of(req);
    int rc =
        json_object_get(req->args, "on") != NULL ? node_set_full(n, ctl_arg_bool(req, "on")) : 0;
    if (rc < 0) {
        ctl_fail(req, rc, "other full nodes share the store of this one: %s", err_str(rc));
        return;
    }
    ctl_ok(req, json_pack("{s:b}", "full_node", (int)n->cfg.full), -1);
}

/* ---- entries ---- */

struct entry_wait {
    struct ctl_req *req;
    uint64_t handle;
    struct node *node;
    struct pubkey pk;
};

static void entry_gone(struct ctl_req *req)
{
    struct entry_wait *w = req->user;
    resolve_cancel(w->node->resolve, w->handle);
    free(w);
}

static void entry_answer(void *arg, const struct resolve_answer *a)
{
    struct entry_wait *w = arg;
    struct ctl_req *req = w->req;
    char pk[PUBKEY_HEX + 1];
    req->gone = NULL;
    if (a->err != 0) {
        pubkey_hex(pk, &w->pk);
        ctl_fail(req, a->err, "entry of %s: %s (asked %u peers)", pk,
                 a->err == ERR_NO_ROUTE && a->asked == 0 ? "no DHT peer is known" : err_str(a->err),
                 a->asked);
    } else {
        json_t *o =
            json_pack("{s:s, s:I, s:I, s:I}", "source", resolve_source_name(a->source), "hops",
                      (json_int_t)a->hops, "asked", (json_int_t)a->asked, "ms", (json_int_t)a->ms);
        json_object_set_new(o, "entry", json_loadb(a->entry->text, a->entry->text_len, 0, NULL));
        ctl_ok(req, o, -1);
    }
    free(w);
}

void ctl_entry_get(struct ctl_req *req)
{
    struct node *n = node_of(req);
    struct pubkey pk;
    unsigned ms;
    if (ctl_arg_pubkey(req, "pk", &pk) < 0 || ctl_arg_timeout(req, &ms) < 0)
        return;
    ctl_set_timeout(req, ms);
    struct entry_wait *w = calloc(1, sizeof(*w));
    if (w == NULL) {
        ctl_fail(req, ERR_NOMEM, NULL);
        return;
    }
    *w = (struct entry_wait){.req = req, .node = n, .pk = pk};
    req->user = w;
    req->gone = entry_gone;
    uint64_t handle = resolve_entry(
        n->resolve, &pk, ctl_arg_bool(req, "network") ? RESOLVE_FRESH : 0, entry_answer, w);
    if (handle != 0)
        w->handle = handle;
}

/* ---- publish: answered when the entry has been put once more ---- */

struct publish_wait {
    struct list_node node; /* in node->publishing */
    struct ctl_req *req;
    uint64_t before; /* publications when it was asked for */
};

static void publish_wait_free(struct publish_wait *w)
{
    list_remove(&w->node);
    free(w);
}

static void publish_gone(struct ctl_req *req)
{
    publish_wait_free(req->user);
}

void ctl_publish_check(struct node *n)
{
    struct list_node *pos, *tmp;
    struct publish_stat st;
    if (list_empty(&n->publishing))
        return;
    publish_stat(n->publish, &st);
    list_for_each(pos, tmp, &n->publishing)
    {
        struct publish_wait *w = container_of(pos, struct publish_wait, node);
        struct ctl_req *req = w->req;
        if (st.published == w->before)
            continue;
        publish_wait_free(w);
        if (st.last_err != 0 && st.last_err != ERR_NO_ROUTE)
            ctl_fail(req, st.last_err, "entry: %s", err_str(st.last_err));
        else
            ctl_ok(req,
                   json_pack("{s:I, s:I, s:I}", "times", (json_int_t)st.published, "stored",
                             (json_int_t)st.stored, "delegated", (json_int_t)st.delegated),
                   -1);
    }
}

void ctl_entry_publish(struct ctl_req *req)
{
    struct node *n = node_of(req);
    struct publish_stat st;
    struct client_stat client;
    unsigned ms;
    if (ctl_arg_timeout(req, &ms) < 0)
        return;
    client_stat(n->client, &client);
    if (n->publish == NULL || client.sessions_up == 0) {
        ctl_fail(req, n->publish == NULL ? ERR_STATE : ERR_NO_ROUTE, "entry: %s",
                 n->publish == NULL ? "this node does not publish one"
                                    : "there is no session to any relay that it could name");
        return;
    }
    struct publish_wait *w = calloc(1, sizeof(*w));
    if (w == NULL) {
        ctl_fail(req, ERR_NOMEM, NULL);
        return;
    }
    publish_stat(n->publish, &st);
    w->req = req;
    w->before = st.published;
    req->user = w;
    req->gone = publish_gone;
    list_push_back(&n->publishing, &w->node);
    ctl_set_timeout(req, ms);
    publish_kick(n->publish);
}
