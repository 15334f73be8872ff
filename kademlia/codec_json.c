#include "kademlia/codec_json.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base64.h"
#include "base/cursor.h"
#include "base/err.h"
#include "base/hex.h"
#include "base/json.h"
#include "kademlia/codec.h"
#include "kademlia/json_read.h"

#define NAME_LEN(s) (sizeof(s) - 1)

/* ---- texts of refusals ---- */

static const char prefix_sig[] = "dht: invalid signature: ";

static const struct {
    const char *text;
    int err;
} refusals[] = {
    {"dht: value exceeds max size", ERR_TOO_LONG},
    {"dht: salt exceeds max size", ERR_TOO_LONG},
    {"dht: sequence number must increase", ERR_SEQ},
    {"dht: rate limit exceeded for public key", ERR_QUOTA},
};

/* Refusals that only we know; their text is "dht: " and err_str(). */
static const int own_refusals[] = {ERR_REFUSED, ERR_BUSY,     ERR_NO_SPACE,
                                   ERR_LIMIT,   ERR_SHUTDOWN, ERR_QUOTA_GROUP};

const char *kad_json_error_text(int err, const struct item *it, char buf[static 64])
{
    if (it != NULL && item_error_text(err, it) != NULL)
        return item_error_text(err, it);
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
        if (refusals[i].err == err)
            return refusals[i].text;
    }
    snprintf(buf, 64, "dht: %s", err_str(err));
    return buf;
}

int kad_json_error_from_text(const char *text, size_t n)
{
    char buf[64];

    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
        if (n == strlen(refusals[i].text) && memcmp(text, refusals[i].text, n) == 0)
            return refusals[i].err;
    }
    if (n >= NAME_LEN(prefix_sig) && memcmp(text, prefix_sig, NAME_LEN(prefix_sig)) == 0)
        return ERR_SIG;
    for (size_t i = 0; i < sizeof own_refusals / sizeof own_refusals[0]; i++) {
        const char *own = kad_json_error_text(own_refusals[i], NULL, buf);
        if (n == strlen(own) && memcmp(text, own, n) == 0)
            return own_refusals[i];
    }
    return ERR_REFUSED;
}

/* ---- reading: values ---- */

struct bytes { /* grows, and is used again for the next value */
    uint8_t *p;
    size_t n, cap;
};

struct targets {
    struct kad_id *ids;
    size_t n;
};

struct decoder {
    struct json_in in;
    struct kad_msg *m;
    struct json_scratch text;
    struct bytes v, salt;
    struct item item; /* v and salt point into the two above */
    bool has_item;
    struct kad_id mirror;
    struct targets targets;
    int *results; /* PUT_BATCH response: by `errors` */
    size_t n_results;
};

static bool reserve(struct decoder *d, struct bytes *b, size_t n)
{
    b->n = 0;
    if (n <= b->cap && b->p != NULL)
        return true;
    uint8_t *p = realloc(b->p, n > 64 ? n : 64);
    if (p == NULL) {
        json_in_fail(&d->in, ERR_NOMEM);
        return false;
    }
    b->p = p;
    b->cap = n > 64 ? n : 64;
    return true;
}

static bool read_text(struct decoder *d, const char **text, size_t *n)
{
    return json_read_text(&d->in, &d->text, text, n);
}

static void read_key(struct decoder *d, struct pubkey *pk)
{
    json_read_pubkey(&d->in, &d->text, pk);
}

static void read_sig(struct decoder *d, struct sig *sig)
{
    const char *text;
    size_t n;

    if (read_text(d, &text, &n) && hex_decode(sig->b, sizeof sig->b, text, n) != 0)
        json_in_fail(&d->in, ERR_FORMAT);
}

/* A byte string in base64; null gives *p NULL. */
static void read_bytes(struct decoder *d, struct bytes *b, const uint8_t **p, size_t *n)
{
    const char *text;
    size_t len;

    *p = NULL;
    *n = 0;
    if (!read_text(d, &text, &len) || !reserve(d, b, BASE64_MAX_RAW(len)))
        return;
    if (base64_decode(b->p, b->cap, &b->n, text, len) != 0) {
        json_in_fail(&d->in, ERR_FORMAT);
        return;
    }
    *p = b->p;
    *n = b->n;
}

static void read_id(struct decoder *d, struct kad_id *id)
{
    struct json_in *j = &d->in;
    size_t n = 0;

    if (!json_in_array(j))
        return;
    memset(id, 0, sizeof *id);
    while (json_in_element(j)) {
        uint64_t byte = 0;
        if (n < sizeof id->b) {
            json_in_uint(j, 255, &byte);
            id->b[n++] = (uint8_t)byte;
        } else {
            json_in_skip(j);
        }
    }
}

static void read_item(struct decoder *d)
{
    static const char *const names[] = {"k", "seq", "sig", "v", "salt"};
    struct json_in *j = &d->in;
    struct item *it = &d->item;

    if (!json_in_object(j))
        return;
    d->has_item = true;
    while (json_in_member(j)) {
        switch (json_in_name_find(j, names, 5)) {
        case 0:
            read_key(d, &it->k);
            break;
        case 1:
            json_in_u64(j, &it->seq);
            break;
        case 2:
            read_sig(d, &it->sig);
            break;
        case 3:
            read_bytes(d, &d->v, &it->v, &it->v_len);
            break;
        case 4:
            read_bytes(d, &d->salt, &it->salt, &it->salt_len);
            break;
        default:
            json_in_skip(j);
        }
    }
}

/* d->item to the end of the message. */
static int add_item(struct decoder *d, const struct kad_id *target)
{
    struct item_ref *r = item_ref_new(&d->item);
    int rc = r != NULL ? kad_msg_add_item(d->m, r, target) : ERR_NOMEM;

    item_ref_put(r);
    return rc;
}

static void drop_items(struct kad_msg *m)
{
    while (m->n_items > 0)
        item_ref_put(m->items[--m->n_items].item);
}

static void read_items(struct decoder *d)
{
    drop_items(d->m); /* of a duplicate member */
    if (!json_in_array(&d->in))
        return;
    while (json_in_element(&d->in)) {
        memset(&d->item, 0, sizeof d->item);
        read_item(d);
        int rc = d->in.err == 0 ? add_item(d, NULL) : 0;
        if (rc != 0)
            json_in_fail(&d->in, rc);
    }
}

/* Room for one element more in an array that is full at every power of two. */
static void *grow(struct decoder *d, void *array, size_t n, size_t size)
{
    if (n >= KAD_MSG_MAX_ITEMS) {
        json_in_fail(&d->in, ERR_LIMIT);
        return NULL;
    }
    if (n > 0 && (n & (n - 1)) != 0)
        return array;
    array = realloc(array, (n > 0 ? 2 * n : 1) * size);
    if (array == NULL)
        json_in_fail(&d->in, ERR_NOMEM);
    return array;
}

static void read_targets(struct decoder *d)
{
    struct targets *t = &d->targets;

    t->n = 0;
    if (!json_in_array(&d->in))
        return;
    while (json_in_element(&d->in)) {
        struct kad_id *ids = grow(d, t->ids, t->n, sizeof *ids);
        if (ids == NULL)
            return;
        t->ids = ids;
        memset(&ids[t->n], 0, sizeof ids[t->n]);
        read_id(d, &ids[t->n++]);
    }
}

static void read_results(struct decoder *d)
{
    d->n_results = 0;
    if (!json_in_array(&d->in))
        return;
    while (json_in_element(&d->in)) {
        const char *text = "";
        size_t n = 0;
        int *results = grow(d, d->results, d->n_results, sizeof *results);
        if (results == NULL)
            return;
        d->results = results;
        read_text(d, &text, &n);
        results[d->n_results++] = n > 0 ? kad_json_error_from_text(text, n) : 0;
    }
}

static void read_stored_list(struct decoder *d)
{
    drop_items(d->m);
    if (!json_in_array(&d->in))
        return;
    while (json_in_element(&d->in)) {
        bool stored = false;
        json_in_bool(&d->in, &stored);
        int rc = kad_msg_add_item(d->m, NULL, NULL);
        if (rc != 0)
            json_in_fail(&d->in, rc);
        else
            d->m->items[d->m->n_items - 1].result = stored ? 0 : ERR_REFUSED;
    }
}

static void read_error(struct decoder *d)
{
    struct kad_msg *m = d->m;
    const char *text;
    size_t n;

    if (!read_text(d, &text, &n))
        return;
    m->error = n > 0 ? kad_json_error_from_text(text, n) : 0;
    n = n < sizeof m->error_text ? n : sizeof m->error_text - 1;
    memcpy(m->error_text, text, n);
    m->error_text[n] = '\0';
}

static void read_offer(struct decoder *d)
{
    uint64_t version = 0;

    json_in_uint(&d->in, UINT32_MAX, &version);
    d->m->offer = (unsigned)version;
}

static void read_network(struct decoder *d)
{
    uint8_t tag[8] = {0};
    const char *text;
    size_t n;

    if (!read_text(d, &text, &n))
        return;
    if (hex_decode(tag, sizeof tag, text, n) != 0)
        json_in_fail(&d->in, ERR_FORMAT);
    d->m->network = get_be64(tag);
}

static void read_salt(struct decoder *d)
{
    const char *text;
    size_t n;

    if (!read_text(d, &text, &n))
        return;
    char *copy = malloc(n + 1);
    if (copy == NULL) {
        json_in_fail(&d->in, ERR_NOMEM);
        return;
    }
    memcpy(copy, text, n);
    copy[n] = '\0';
    free((char *)(uintptr_t)d->m->salt);
    d->m->salt = copy;
    d->m->salt_len = n;
}

/* Form only: finding out whether it is a point costs more than the rest of the answer together, and
 * a contact counts for nothing before it has been dialled. */
static void read_contact_key(struct decoder *d, struct pubkey *pk)
{
    const char *text;
    size_t n;

    if (!read_text(d, &text, &n))
        return;
    if (hex_decode(pk->b, sizeof pk->b, text, n) == 0 && (pk->b[0] == 2 || pk->b[0] == 3))
        return;
    if (pubkey_from_json_text(pk, text, n) != 0)
        json_in_fail(&d->in, ERR_FORMAT);
}

static bool read_contact(struct decoder *d, struct pubkey *pk)
{
    static const char *const names[] = {"id", "pk"};
    struct kad_id id = {{0}};

    memset(pk, 0, sizeof *pk);
    if (!json_in_object(&d->in))
        return false;
    while (json_in_member(&d->in)) {
        switch (json_in_name_find(&d->in, names, 2)) {
        case 0:
            read_id(d, &id);
            break;
        case 1:
            read_contact_key(d, pk);
            break;
        default: /* last_seen too */
            json_in_skip(&d->in);
        }
    }
    struct kad_id want = kad_id_of(pk);
    return !pubkey_is_null(pk) && kad_id_equal(&id, &want);
}

static void read_closest(struct decoder *d)
{
    struct pubkey good[KAD_K];
    size_t n = 0, seen = 0;

    d->m->bad_contacts = 0;
    if (json_in_array(&d->in)) {
        for (; json_in_element(&d->in); seen++) {
            if (n == KAD_K || seen >= 2 * KAD_K)
                json_in_skip(&d->in);
            else
                n += read_contact(d, &good[n]);
        }
    }
    d->m->bad_contacts = seen - n;
    int rc = d->in.err == 0 ? kad_msg_set_closest(d->m, good, n) : 0;
    if (rc != 0)
        json_in_fail(&d->in, rc);
}

/* ---- reading: messages ---- */

enum field {
    F_SENDER_ID,
    F_SENDER_PK,
    F_RESPONDER_ID,
    F_RESPONDER_PK,
    F_TARGET,
    F_ITEM,
    F_MIRROR_TARGET,
    F_SALT,
    F_SINCE_SEQ,
    F_LIMIT,
    F_ITEMS,
    F_TARGETS,
    F_CLOSEST,
    F_STORED,
    F_ERROR,
    F_ERRORS,
    F_HAS_MORE,
    F_READ_ONLY,
    F_NATIVE,
    F_NETWORK,
    F__COUNT
};

static const char *const field_names[F__COUNT] = {
    [F_SENDER_ID] = "sender_id",
    [F_SENDER_PK] = "sender_pk",
    [F_RESPONDER_ID] = "responder_id",
    [F_RESPONDER_PK] = "responder_pk",
    [F_TARGET] = "target",
    [F_ITEM] = "item",
    [F_MIRROR_TARGET] = "mirror_target",
    [F_SALT] = "salt",
    [F_SINCE_SEQ] = "since_seq",
    [F_LIMIT] = "limit",
    [F_ITEMS] = "items",
    [F_TARGETS] = "targets",
    [F_CLOSEST] = "closest",
    [F_STORED] = "stored",
    [F_ERROR] = "error",
    [F_ERRORS] = "errors",
    [F_HAS_MORE] = "has_more",
    [F_READ_ONLY] = "read_only",
    [F_NATIVE] = "native",
    [F_NETWORK] = "network",
};

#define BIT(f)    (UINT32_C(1) << (f))
#define BY_SENDER (BIT(F_SENDER_ID) | BIT(F_SENDER_PK) | BIT(F_READ_ONLY))

/* Members that mean something in a message; all others are unknown there. */
static const uint32_t fields[KAD_PUT_BATCH + 1][2] = {
    [KAD_PING] = {BIT(F_NATIVE) | BIT(F_READ_ONLY),
                  BIT(F_RESPONDER_ID) | BIT(F_RESPONDER_PK) | BIT(F_NATIVE)},
    [KAD_FIND_NODE] = {BY_SENDER | BIT(F_TARGET), BIT(F_CLOSEST)},
    [KAD_GET_VALUE] = {BY_SENDER | BIT(F_TARGET), BIT(F_ITEM) | BIT(F_CLOSEST)},
    [KAD_PUT_VALUE] = {BY_SENDER | BIT(F_ITEM) | BIT(F_MIRROR_TARGET),
                       BIT(F_STORED) | BIT(F_ERROR)},
    [KAD_GET_ITEMS] = {BY_SENDER | BIT(F_SALT) | BIT(F_SINCE_SEQ) | BIT(F_LIMIT),
                       BIT(F_ITEMS) | BIT(F_TARGETS) | BIT(F_HAS_MORE)},
    [KAD_PUT_BATCH] = {BY_SENDER | BIT(F_ITEMS) | BIT(F_TARGETS), BIT(F_STORED) | BIT(F_ERRORS)},
};

static void decode_member(struct decoder *d)
{
    struct json_in *j = &d->in;
    struct kad_msg *m = d->m;
    struct kad_id claimed; /* IDs of senders follow from their keys */
    int f = json_in_name_find(j, field_names, F__COUNT);

    if (f < 0 || ((fields[m->method][m->response] | BIT(F_NETWORK)) & BIT(f)) == 0) {
        json_in_skip(j);
        return;
    }
    switch ((enum field)f) {
    case F_SENDER_ID:
    case F_RESPONDER_ID:
        read_id(d, &claimed);
        break;
    case F_SENDER_PK:
    case F_RESPONDER_PK:
        read_key(d, &m->sender);
        break;
    case F_TARGET:
        read_id(d, &m->target);
        break;
    case F_ITEM:
        if (json_in_peek(j) == JSON_TOK_NULL) {
            memset(&d->item, 0, sizeof d->item);
            d->has_item = false;
        }
        read_item(d);
        break;
    case F_MIRROR_TARGET:
        read_id(d, &d->mirror);
        break;
    case F_SALT:
        read_salt(d);
        break;
    case F_SINCE_SEQ:
        json_in_u64(j, &m->since_seq);
        break;
    case F_LIMIT:
        json_in_i64(j, &m->limit);
        break;
    case F_ITEMS:
        read_items(d);
        break;
    case F_TARGETS:
        read_targets(d);
        break;
    case F_CLOSEST:
        read_closest(d);
        break;
    case F_STORED:
        if (m->method == KAD_PUT_BATCH)
            read_stored_list(d);
        else
            json_in_bool(j, &m->stored);
        break;
    case F_ERROR:
        read_error(d);
        break;
    case F_ERRORS:
        read_results(d);
        break;
    case F_HAS_MORE:
        json_in_bool(j, &m->has_more);
        break;
    case F_READ_ONLY:
        json_in_bool(j, &m->read_only);
        break;
    case F_NATIVE:
        read_offer(d);
        break;
    case F_NETWORK:
        read_network(d);
        break;
    case F__COUNT:
        break;
    }
}

/* What depends on several members, which come in any order. */
static int decode_finish(struct decoder *d)
{
    struct kad_msg *m = d->m;

    if (m->method == KAD_PUT_VALUE && !m->response)
        return add_item(d, kad_id_is_zero(&d->mirror) ? NULL : &d->mirror);
    if (m->method == KAD_GET_VALUE && d->has_item)
        return add_item(d, NULL);
    if (m->method == KAD_PUT_VALUE && !m->stored && m->error == 0)
        m->error = ERR_REFUSED;
    for (size_t i = 0; i < m->n_items && i < d->targets.n; i++) {
        m->items[i].target = d->targets.ids[i];
        m->items[i].has_target = !kad_id_is_zero(&d->targets.ids[i]);
    }
    m->targets_missing = m->method == KAD_GET_ITEMS && m->n_items > 0 && d->targets.n == 0;
    for (size_t i = 0; i < m->n_items && i < d->n_results; i++) {
        if (m->items[i].result != 0 && d->results[i] != 0)
            m->items[i].result = d->results[i];
    }
    return 0;
}

int kad_json_decode(struct kad_msg *out, unsigned method, bool response, const void *body, size_t n)
{
    struct decoder d = {.in = json_in_init(body, n), .m = out};
    int rc = 0;

    kad_msg_init(out, (enum kad_method)method, response);
    if (method < KAD_PING || method > KAD_PUT_BATCH)
        return ERR_UNSUPPORTED;
    out->wire_bytes = KAD_FRAME_HEAD + n;
    if (json_in_object(&d.in)) {
        while (json_in_member(&d.in))
            decode_member(&d);
    }
    rc = json_in_end_input(&d.in);
    if (rc == 0)
        rc = decode_finish(&d);
    if (rc != 0)
        kad_msg_clear(out);
    if (rc != 0 && method == KAD_PING && !response) {
        kad_msg_init(out, KAD_PING, false); /* whatever it says, it is answered (dht.md §3.4) */
        out->wire_bytes = KAD_FRAME_HEAD + n;
        rc = 0;
    }
    json_scratch_free(&d.text);
    free(d.v.p);
    free(d.salt.p);
    free(d.targets.ids);
    free(d.results);
    return rc;
}

/* ---- writing ---- */

static void put_id(struct json_out *o, const struct kad_id *id)
{
    char text[2 + 4 * KAD_ID_BYTES], *p = text;

    for (size_t i = 0; i < sizeof id->b; i++) {
        unsigned b = id->b[i];
        *p++ = i == 0 ? '[' : ',';
        if (b >= 100)
            *p++ = (char)('0' + b / 100);
        if (b >= 10)
            *p++ = (char)('0' + b / 10 % 10);
        *p++ = (char)('0' + b % 10);
    }
    *p++ = ']';
    json_out_raw(o, text, (size_t)(p - text));
}

static void put_key(struct json_out *o, const char *id_name, const char *pk_name,
                    const struct pubkey *pk)
{
    struct kad_id id = kad_id_of(pk);

    json_out_name(o, id_name);
    put_id(o, &id);
    json_out_name(o, pk_name);
    json_out_hex(o, pk->b, sizeof pk->b);
}

static void put_base64(struct json_out *o, const uint8_t *p, size_t n)
{
    char *to = json_out_plain(o, BASE64_LEN(n));
    if (to != NULL)
        base64_encode(to, p, n);
}

static void put_item(struct json_out *o, const struct item *it)
{
    json_out_object(o);
    json_out_name(o, "k");
    json_out_hex(o, it->k.b, sizeof it->k.b);
    json_out_name(o, "seq");
    json_out_u64(o, it->seq);
    json_out_name(o, "sig");
    json_out_hex(o, it->sig.b, sizeof it->sig.b);
    json_out_name(o, "v");
    if (it->v != NULL)
        put_base64(o, it->v, it->v_len);
    else
        json_out_null(o);
    if (it->salt_len > 0) {
        json_out_name(o, "salt");
        put_base64(o, it->salt, it->salt_len);
    }
    json_out_object_end(o);
}

int kad_json_item(char **out, size_t *n, const struct item *it)
{
    struct json_out o;

    json_out_grow(&o, JSON_FAST, kad_json_item_size(it));
    put_item(&o, it);
    *out = o.err == 0 ? (char *)o.p : NULL;
    *n = o.len;
    if (o.err == 0)
        return 0;
    json_out_free(&o);
    return ERR_NOMEM;
}

static void put_closest(struct json_out *o, const struct kad_msg *m)
{
    json_out_name(o, "closest");
    if (m->n_closest == 0) {
        json_out_null(o);
        return;
    }
    json_out_array(o);
    for (size_t i = 0; i < m->n_closest; i++) {
        json_out_object(o);
        put_key(o, "id", "pk", &m->closest[i]);
        json_out_name(o, "last_seen");
        json_out_str(o, "0001-01-01T00:00:00Z");
        json_out_object_end(o);
    }
    json_out_array_end(o);
}

/* Responses say every slot; requests say zero where the item goes to its own. */
static void put_items(struct json_out *o, const struct kad_msg *m)
{
    json_out_name(o, "items");
    json_out_array(o);
    for (size_t i = 0; i < m->n_items; i++)
        put_item(o, &m->items[i].item->item);
    json_out_array_end(o);
    json_out_name(o, "targets");
    json_out_array(o);
    for (size_t i = 0; i < m->n_items; i++) {
        struct kad_id target = m->items[i].target;
        if (!m->items[i].has_target && m->response)
            target = item_target(&m->items[i].item->item);
        put_id(o, &target);
    }
    json_out_array_end(o);
}

static void put_batch_results(struct json_out *o, const struct kad_msg *m)
{
    bool refused = false;
    char buf[64];

    json_out_name(o, "stored");
    json_out_array(o);
    for (size_t i = 0; i < m->n_items; i++) {
        json_out_bool(o, m->items[i].result == 0);
        refused |= m->items[i].result != 0;
    }
    json_out_array_end(o);
    if (!refused)
        return;
    json_out_name(o, "errors");
    json_out_array(o);
    for (size_t i = 0; i < m->n_items; i++) {
        const struct kad_msg_item *mi = &m->items[i];
        const struct item *it = mi->item != NULL ? &mi->item->item : NULL;
        json_out_str(o, mi->result != 0 ? kad_json_error_text(mi->result, it, buf) : "");
    }
    json_out_array_end(o);
}

static void put_request(struct json_out *o, const struct kad_msg *m)
{
    put_key(o, "sender_id", "sender_pk", &m->sender);
    if (m->read_only) {
        json_out_name(o, "read_only");
        json_out_bool(o, true);
    }
    switch (m->method) {
    case KAD_PING:
        break;
    case KAD_FIND_NODE:
    case KAD_GET_VALUE:
        json_out_name(o, "target");
        put_id(o, &m->target);
        break;
    case KAD_PUT_VALUE:
        assert(m->n_items == 1);
        json_out_name(o, "item");
        put_item(o, &m->items[0].item->item);
        if (m->items[0].has_target) {
            json_out_name(o, "mirror_target");
            put_id(o, &m->items[0].target);
        }
        break;
    case KAD_GET_ITEMS:
        if (m->salt_len > 0) {
            json_out_name(o, "salt");
            json_out_string(o, m->salt, m->salt_len);
        }
        if (m->since_seq != 0) {
            json_out_name(o, "since_seq");
            json_out_u64(o, m->since_seq);
        }
        if (m->limit != 0) {
            json_out_name(o, "limit");
            json_out_i64(o, m->limit);
        }
        break;
    case KAD_PUT_BATCH:
        put_items(o, m);
        break;
    case KAD_GET_BATCH:
    case KAD_WATCH:
    case KAD_CHANGED:
    case KAD_RECONCILE:
    case KAD_METHOD__END:
        break;
    }
}

static void put_response(struct json_out *o, const struct kad_msg *m)
{
    char buf[64];

    switch (m->method) {
    case KAD_PING:
        put_key(o, "responder_id", "responder_pk", &m->sender);
        break;
    case KAD_FIND_NODE:
        put_closest(o, m);
        break;
    case KAD_GET_VALUE:
        if (m->n_items > 0) {
            json_out_name(o, "item");
            put_item(o, &m->items[0].item->item);
        }
        if (m->n_closest > 0)
            put_closest(o, m);
        break;
    case KAD_PUT_VALUE:
        json_out_name(o, "stored");
        json_out_bool(o, m->stored);
        if (!m->stored && m->error_text[0] != '\0') {
            json_out_name(o, "error");
            json_out_str(o, m->error_text);
        } else if (!m->stored) {
            const struct item *it = m->n_items > 0 ? &m->items[0].item->item : NULL;
            json_out_name(o, "error");
            json_out_str(o, kad_json_error_text(m->error, it, buf));
        }
        break;
    case KAD_GET_ITEMS:
        put_items(o, m);
        json_out_name(o, "has_more");
        json_out_bool(o, m->has_more);
        break;
    case KAD_PUT_BATCH:
        put_batch_results(o, m);
        break;
    case KAD_GET_BATCH:
    case KAD_WATCH:
    case KAD_CHANGED:
    case KAD_RECONCILE:
    case KAD_METHOD__END:
        break;
    }
}

/* What the peers of the recorded builds skip. */
static void put_extensions(struct json_out *o, const struct kad_msg *m)
{
    uint8_t tag[8];

    if (m->offer != 0) {
        json_out_name(o, "native");
        json_out_u64(o, m->offer);
    }
    if (m->network != 0) {
        put_be64(tag, m->network);
        json_out_name(o, "network");
        json_out_hex(o, tag, sizeof tag);
    }
}

int kad_json_encode(uint8_t **out, size_t *n, struct kad_msg *m)
{
    static const char head[KAD_FRAME_HEAD];
    struct json_out o;

    if (m->method > KAD_PUT_BATCH)
        return ERR_UNSUPPORTED;
    /* The length field counts the method but not itself. */
    json_out_grow(&o, JSON_STD, KAD_FRAME_MAX + 4);
    json_out_raw(&o, head, sizeof head);
    o.comma = false;
    json_out_object(&o);
    if (m->response)
        put_response(&o, m);
    else
        put_request(&o, m);
    put_extensions(&o, m);
    json_out_object_end(&o);
    if (o.err != 0) {
        int rc = o.err;
        json_out_free(&o);
        return rc;
    }
    put_be32(o.p, (uint32_t)(o.len - 4));
    o.p[4] = (char)m->method;
    m->wire_bytes = o.len;
    *out = (uint8_t *)o.p;
    *n = o.len;
    return 0;
}

size_t kad_json_item_size(const struct item *it)
{
    /* {"k":"…","seq":20 digits,"sig":"…","v":"…","salt":"…"}, and [255,…] */
    const size_t names =
        NAME_LEN("{\"k\":\"\",\"seq\":,\"sig\":\"\",\"v\":\"\",\"salt\":\"\"},[],");

    return names + PUBKEY_HEX + 20 + SIG_HEX + BASE64_LEN(it->v_len) + BASE64_LEN(it->salt_len) +
           4 * KAD_ID_BYTES;
}

static int encode_frame(uint8_t **out, size_t *n, struct kad_msg *m, uint32_t id)
{
    (void)id; /* a stream carries one call */
    return kad_json_encode(out, n, m);
}

const struct kad_codec kad_codec_json = {
    .name = "json",
    .encode = encode_frame,
    .decode = kad_json_decode,
    .item_size = kad_json_item_size,
};
