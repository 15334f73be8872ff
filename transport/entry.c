#include "transport/entry.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/hex.h"
#include "base/json.h"

/* Members in canonical order (docs/protocol/services.md §2.1). protocol stands behind signature. */
enum top {
    TOP_VERSION,
    TOP_SEQUENCE,
    TOP_TIMESTAMP,
    TOP_STATIC,
    TOP_CLIENT,
    TOP_CLIENT_TYPE,
    TOP_SERVER,
    TOP_SIGNATURE,
    TOP_PROTOCOL,
    TOP__COUNT
};
static const char *const top_names[TOP__COUNT] = {
    "version",     "sequence", "timestamp", "static",   "client",
    "client_type", "server",   "signature", "protocol",
};

/* The place of the two WebTransport members is a guess (§2.1): the second canon covers another one.
 */
enum server {
    SERVER_ADDRESS,
    SERVER_ADDRESS_V6,
    SERVER_ADDRESS_UDP,
    SERVER_ADDRESS_UDP_V6,
    SERVER_ADDRESS_WS,
    SERVER_ADDRESS_WT,
    SERVER_CERT_HASH_WT,
    SERVER_SESSIONS,
    SERVER_TYPE,
    SERVER_DHT,
    SERVER__COUNT
};
static const char *const server_names[SERVER__COUNT] = {
    "address",    "address_v6",   "address_udp",       "address_udp_v6", "address_ws",
    "address_wt", "cert_hash_wt", "availableSessions", "serverType",     "dht_bootstrap",
};

#define CLIENT__COUNT 1
static const char *const client_names[CLIENT__COUNT] = {"delegated_servers"};

/* An escaped byte takes at most six, and the text is bounded. */
#define CANON_MAX (8u * ENTRY_MAX_TEXT)

/* ---- memory -----------------------------------------------------------------------------------
 */

#define CHUNK_MIN 1024u

/* Everything an entry points to lies in its chunks; the entry itself in the first. */
struct chunk {
    struct chunk *next;
    size_t used, cap;
    _Alignas(max_align_t) char data[];
};

static void *arena_get(struct chunk **head, size_t n)
{
    struct chunk *c = *head;
    size_t need = (n + sizeof(max_align_t) - 1) / sizeof(max_align_t) * sizeof(max_align_t);
    void *p;

    if (c == NULL || c->cap - c->used < need) {
        size_t cap = need > CHUNK_MIN ? need : CHUNK_MIN;
        c = malloc(sizeof *c + cap);
        if (c == NULL)
            return NULL;
        *c = (struct chunk){.next = *head, .cap = cap};
        *head = c;
    }
    p = c->data + c->used;
    c->used += need;
    return p;
}

static void arena_free(struct chunk *c)
{
    while (c != NULL) {
        struct chunk *next = c->next;
        free(c);
        c = next;
    }
}

static void *entry_get(struct entry *e, size_t n)
{
    struct chunk *head = e->arena;
    void *p = arena_get(&head, n);

    e->arena = head;
    return p;
}

/* NUL-terminated copy. */
static char *entry_dup(struct entry *e, const char *p, size_t n)
{
    char *copy = entry_get(e, n + 1);

    if (copy != NULL) {
        memcpy(copy, p, n);
        copy[n] = '\0';
    }
    return copy;
}

static struct entry *entry_new(void)
{
    struct chunk *head = NULL;
    struct entry *e = arena_get(&head, sizeof *e);

    if (e == NULL)
        return NULL;
    *e =
        (struct entry){.version = "", .client_type = "", .protocol = "", .text = "", .arena = head};
    e->server = (struct entry_server){.address = "",
                                      .address_v6 = "",
                                      .address_udp = "",
                                      .address_udp_v6 = "",
                                      .address_ws = "",
                                      .address_wt = "",
                                      .cert_hash_wt = "",
                                      .server_type = ""};
    return e;
}

void entry_free(struct entry *e)
{
    if (e != NULL)
        arena_free(e->arena);
}

/* ---- canonical bytes --------------------------------------------------------------------------
 */

static void put_text(struct json_out *o, const char *name, const char *s, bool always)
{
    if (always || s[0] != '\0') {
        json_out_name(o, name);
        json_out_str(o, s);
    }
}

static void put_int(struct json_out *o, const char *name, int64_t v)
{
    json_out_name(o, name);
    json_out_i64(o, v);
}

static void put_client_member(struct json_out *o, const struct entry *e, size_t which)
{
    const struct entry_client *c = &e->client;

    json_out_name(o, client_names[which]);
    if (c->delegated_null) {
        json_out_null(o);
        return;
    }
    json_out_array(o);
    for (size_t i = 0; i < c->n_delegated; i++)
        json_out_hex(o, c->delegated[i].b, PUBKEY_BYTES);
    json_out_array_end(o);
}

static void put_server_member(struct json_out *o, const struct entry *e, size_t which)
{
    const struct entry_server *s = &e->server;
    const char *name = server_names[which];

    switch ((enum server)which) {
    case SERVER_ADDRESS:
        put_text(o, name, s->address, true);
        break;
    case SERVER_ADDRESS_V6:
        put_text(o, name, s->address_v6, false);
        break;
    case SERVER_ADDRESS_UDP:
        put_text(o, name, s->address_udp, false);
        break;
    case SERVER_ADDRESS_UDP_V6:
        put_text(o, name, s->address_udp_v6, false);
        break;
    case SERVER_ADDRESS_WS:
        put_text(o, name, s->address_ws, false);
        break;
    case SERVER_ADDRESS_WT:
        put_text(o, name, s->address_wt, false);
        break;
    case SERVER_CERT_HASH_WT:
        put_text(o, name, s->cert_hash_wt, false);
        break;
    case SERVER_SESSIONS:
        put_int(o, name, s->available_sessions);
        break;
    case SERVER_TYPE:
        put_text(o, name, s->server_type, false);
        break;
    case SERVER_DHT:
        if (s->dht_bootstrap) {
            json_out_name(o, name);
            json_out_bool(o, true);
        }
        break;
    case SERVER__COUNT:
        break;
    }
}

typedef void put_member_fn(struct json_out *o, const struct entry *e, size_t which);

static void put_half(struct json_out *o, const struct entry *e, const char *name,
                     put_member_fn *put, size_t count)
{
    json_out_name(o, name);
    json_out_object(o);
    for (size_t i = 0; i < count; i++)
        put(o, e, i);
    json_out_object_end(o);
}

static void put_top_member(struct json_out *o, const struct entry *e, size_t which)
{
    const char *name = top_names[which];

    switch ((enum top)which) {
    case TOP_VERSION:
        put_text(o, name, e->version, true);
        break;
    case TOP_SEQUENCE:
        json_out_name(o, name);
        json_out_u64(o, e->sequence);
        break;
    case TOP_TIMESTAMP:
        put_int(o, name, e->timestamp_ns);
        break;
    case TOP_STATIC:
        json_out_name(o, name);
        json_out_hex(o, e->static_pk.b, PUBKEY_BYTES);
        break;
    case TOP_CLIENT:
        if (e->has_client)
            put_half(o, e, name, put_client_member, CLIENT__COUNT);
        break;
    case TOP_CLIENT_TYPE:
        put_text(o, name, e->client_type, false);
        break;
    case TOP_SERVER:
        if (e->has_server)
            put_half(o, e, name, put_server_member, SERVER__COUNT);
        break;
    case TOP_SIGNATURE: /* never part of what is signed; put_entry() adds it to the text */
        break;
    case TOP_PROTOCOL:
        put_text(o, name, e->protocol, false);
        break;
    case TOP__COUNT:
        break;
    }
}

/* First canon, or with the signature at its place the text of the entry. */
static void put_entry(struct json_out *o, const struct entry *e, bool with_signature)
{
    json_out_object(o);
    for (size_t i = 0; i < TOP__COUNT; i++) {
        if (i == TOP_SIGNATURE && with_signature) {
            json_out_name(o, top_names[i]);
            json_out_hex(o, e->signature.b, SIG_BYTES);
        } else {
            put_top_member(o, e, i);
        }
    }
    json_out_object_end(o);
}

/* Second canon of one object: the members in the order of the text; unknown ones are copied, known
 * ones written once, by the rules of the first. j stands before the object's value. */
static void put_received(struct json_out *o, const struct entry *e, struct json_in *j,
                         const char *const *names, size_t count, put_member_fn *put)
{
    unsigned written = 0;

    json_out_object(o);
    if (json_in_object(j))
        while (json_in_member(j)) {
            int i = json_in_name_find(j, names, count);
            bool half = names == top_names && json_in_peek(j) == JSON_TOK_OBJECT;

            if (i < 0) {
                json_out_copy_name(o, j);
                json_out_copy_value(o, j);
                continue;
            }
            if (written & 1u << i) {
                json_in_skip(j);
                continue;
            }
            written |= 1u << i;
            if (half && i == TOP_CLIENT && e->has_client) {
                json_out_name(o, names[i]);
                put_received(o, e, j, client_names, CLIENT__COUNT, put_client_member);
            } else if (half && i == TOP_SERVER && e->has_server) {
                json_out_name(o, names[i]);
                put_received(o, e, j, server_names, SERVER__COUNT, put_server_member);
            } else {
                put(o, e, (size_t)i);
                json_in_skip(j);
            }
        }
    json_out_object_end(o);
}

static void put_canon(struct json_out *o, const struct entry *e, bool with_unknown)
{
    json_out_grow(o, JSON_FAST, CANON_MAX);
    if (with_unknown) {
        struct json_in j = json_in_init(e->text, e->text_len);
        put_received(o, e, &j, top_names, TOP__COUNT, put_top_member);
        if (json_in_end_value(&j) < 0 && o->err == 0)
            o->err = ERR_FORMAT;
    } else {
        put_entry(o, e, false);
    }
}

static int canon_digest(struct hash *out, const struct entry *e, bool with_unknown)
{
    struct json_out o;
    int rc;

    put_canon(&o, e, with_unknown);
    rc = o.err;
    if (rc == 0)
        crypto_sha256(out, o.p, o.len);
    json_out_free(&o);
    return rc;
}

int entry_canonical(char **out, size_t *n, const struct entry *e, bool with_unknown)
{
    struct json_out o;

    put_canon(&o, e, with_unknown);
    if (o.err < 0) {
        int rc = o.err;
        json_out_free(&o);
        return rc;
    }
    *out = o.p;
    *n = o.len;
    return 0;
}

int entry_digest(struct hash *out, const struct entry *e)
{
    return canon_digest(out, e, false);
}

/* ---- parsing ----------------------------------------------------------------------------------
 */

static void parse_text(struct json_in *j, struct entry *e, const char **out)
{
    char buf[ENTRY_MAX_STRING + 1];
    size_t n;

    if (!json_in_string(j, buf, sizeof buf, &n))
        return;
    /* Members are C strings; none of them has a reason to hold a NUL. */
    if (strlen(buf) != n) {
        json_in_fail(j, ERR_FORMAT);
        return;
    }
    *out = entry_dup(e, buf, n);
    if (*out == NULL) {
        *out = "";
        json_in_fail(j, ERR_NOMEM);
    }
}

static void parse_pubkey(struct json_in *j, struct pubkey *out)
{
    char buf[ENTRY_MAX_STRING + 1];
    size_t n;

    if (json_in_string(j, buf, sizeof buf, &n) && pubkey_from_json_text(out, buf, n) < 0)
        json_in_fail(j, ERR_KEY);
}

/* The text is judged when it is verified, as upstream does: one that is no signature is kept as one
 * that cannot verify. */
static void parse_signature(struct json_in *j, struct entry *e)
{
    char buf[ENTRY_MAX_STRING + 1];
    size_t n;

    if (!json_in_string(j, buf, sizeof buf, &n))
        return;
    e->has_signature = n > 0;
    if (hex_decode(e->signature.b, SIG_BYTES, buf, n) < 0)
        memset(&e->signature, 0, sizeof e->signature);
}

static void parse_delegated(struct json_in *j, struct entry *e)
{
    struct entry_client *c = &e->client;
    struct pubkey keys[ENTRY_MAX_DELEGATED];
    size_t n = 0;

    if (json_in_peek(j) == JSON_TOK_NULL) {
        json_in_skip(j);
        *c = (struct entry_client){.delegated_null = true};
        return;
    }
    if (!json_in_array(j))
        return;
    while (json_in_element(j)) {
        if (n == ENTRY_MAX_DELEGATED) {
            json_in_fail(j, ERR_TOO_LONG);
            return;
        }
        keys[n] = (struct pubkey){0};
        parse_pubkey(j, &keys[n++]);
    }
    *c = (struct entry_client){.n_delegated = n};
    if (n == 0)
        return;
    c->delegated = entry_get(e, n * sizeof keys[0]);
    if (c->delegated == NULL) {
        c->n_delegated = 0;
        json_in_fail(j, ERR_NOMEM);
        return;
    }
    memcpy(c->delegated, keys, n * sizeof keys[0]);
}

static void parse_unknown(struct json_in *j, struct entry *e)
{
    e->unknown_members = true;
    json_in_skip(j);
}

static void parse_client(struct json_in *j, struct entry *e)
{
    e->has_client = json_in_object(j);
    if (!e->has_client)
        return;
    e->client = (struct entry_client){.delegated_null = true};
    while (json_in_member(j)) {
        if (json_in_name_is(j, client_names[0]))
            parse_delegated(j, e);
        else
            parse_unknown(j, e);
    }
}

static void parse_server_member(struct json_in *j, struct entry *e, int which)
{
    struct entry_server *s = &e->server;
    const char **const texts[SERVER__COUNT] = {
        [SERVER_ADDRESS] = &s->address,           [SERVER_ADDRESS_V6] = &s->address_v6,
        [SERVER_ADDRESS_UDP] = &s->address_udp,   [SERVER_ADDRESS_UDP_V6] = &s->address_udp_v6,
        [SERVER_ADDRESS_WS] = &s->address_ws,     [SERVER_ADDRESS_WT] = &s->address_wt,
        [SERVER_CERT_HASH_WT] = &s->cert_hash_wt, [SERVER_TYPE] = &s->server_type,
    };

    if (which < 0)
        parse_unknown(j, e);
    else if (which == SERVER_SESSIONS)
        json_in_i64(j, &s->available_sessions);
    else if (which == SERVER_DHT)
        json_in_bool(j, &s->dht_bootstrap);
    else
        parse_text(j, e, texts[which]);
}

static void parse_server(struct json_in *j, struct entry *e)
{
    e->has_server = json_in_object(j);
    if (!e->has_server)
        return;
    while (json_in_member(j))
        parse_server_member(j, e, json_in_name_find(j, server_names, SERVER__COUNT));
}

static void parse_top_member(struct json_in *j, struct entry *e)
{
    switch (json_in_name_find(j, top_names, TOP__COUNT)) {
    case TOP_VERSION:
        parse_text(j, e, &e->version);
        break;
    case TOP_SEQUENCE:
        json_in_u64(j, &e->sequence);
        break;
    case TOP_TIMESTAMP:
        json_in_i64(j, &e->timestamp_ns);
        break;
    case TOP_STATIC:
        parse_pubkey(j, &e->static_pk);
        break;
    case TOP_CLIENT:
        parse_client(j, e);
        break;
    case TOP_CLIENT_TYPE:
        parse_text(j, e, &e->client_type);
        break;
    case TOP_SERVER:
        parse_server(j, e);
        break;
    case TOP_SIGNATURE:
        parse_signature(j, e);
        break;
    case TOP_PROTOCOL:
        parse_text(j, e, &e->protocol);
        break;
    default:
        parse_unknown(j, e);
    }
}

/* Keep the object as it stands in the input, without the blanks around it. */
static int keep_text(struct entry *e, const char *text, size_t n)
{
    e->text = entry_dup(e, text, n);
    e->text_len = n;
    return e->text != NULL ? 0 : ERR_NOMEM;
}

int entry_parse(struct entry **out, const char *text, size_t n)
{
    struct json_in j = json_in_init(text, n);
    struct entry *e;
    bool empty = true;
    const char *start;
    int rc;

    if (n > ENTRY_MAX_TEXT)
        return ERR_TOO_LONG;
    e = entry_new();
    if (e == NULL)
        return ERR_NOMEM;
    rc = ERR_FORMAT;
    if (!json_in_object(&j))
        goto fail;
    start = j.text;
    while (json_in_member(&j)) {
        empty = false;
        parse_top_member(&j, e);
    }
    rc = json_in_end_value(&j);
    if (rc < 0)
        goto fail;
    rc = keep_text(e, start, (size_t)(j.pos - start));
    if (rc == 0)
        rc = json_in_end_input(&j);
    if (rc == 0 && empty)
        rc = ERR_NOT_FOUND;
    if (rc < 0)
        goto fail;
    *out = e;
    return 0;
fail:
    if (j.err < 0)
        rc = j.err;
    entry_free(e);
    return rc == ERR_SHORT || rc == ERR_LIMIT ? ERR_FORMAT : rc;
}

/* ---- own entries ------------------------------------------------------------------------------
 */

static struct entry *entry_new_own(const struct pubkey *self, uint64_t sequence,
                                   int64_t timestamp_ns)
{
    struct entry *e = entry_new();

    if (e != NULL) {
        e->version = ENTRY_VERSION;
        e->sequence = sequence;
        e->timestamp_ns = timestamp_ns;
        e->static_pk = *self;
    }
    return e;
}

int entry_new_client(struct entry **out, const struct pubkey *self, uint64_t sequence,
                     int64_t timestamp_ns, const struct pubkey *delegated, size_t n,
                     const char *client_type)
{
    struct entry *e = entry_new_own(self, sequence, timestamp_ns);

    assert(n <= ENTRY_MAX_DELEGATED && strlen(client_type) <= ENTRY_MAX_STRING);
    if (e == NULL)
        return ERR_NOMEM;
    e->has_client = true;
    e->client_type = entry_dup(e, client_type, strlen(client_type));
    if (e->client_type == NULL)
        goto nomem;
    if (n > 0) {
        e->client.delegated = entry_get(e, n * sizeof delegated[0]);
        if (e->client.delegated == NULL)
            goto nomem;
        memcpy(e->client.delegated, delegated, n * sizeof delegated[0]);
        e->client.n_delegated = n;
    }
    *out = e;
    return 0;
nomem:
    entry_free(e);
    return ERR_NOMEM;
}

int entry_new_server(struct entry **out, const struct pubkey *self, uint64_t sequence,
                     int64_t timestamp_ns, const char *address, int64_t available_sessions)
{
    struct entry *e = entry_new_own(self, sequence, timestamp_ns);
    int rc = e != NULL ? entry_add_server(e, address, available_sessions) : ERR_NOMEM;

    if (rc < 0) {
        entry_free(e);
        return rc;
    }
    *out = e;
    return 0;
}

int entry_add_server(struct entry *e, const char *address, int64_t available_sessions)
{
    size_t n = strlen(address);
    char *copy;

    if (n > ENTRY_MAX_STRING)
        return ERR_TOO_LONG;
    copy = entry_dup(e, address, n);
    if (copy == NULL)
        return ERR_NOMEM;
    e->has_server = true;
    e->server.address = copy;
    e->server.available_sessions = available_sessions;
    return 0;
}

static int copy_text(struct entry *e, const char **to, const char *from)
{
    *to = entry_dup(e, from, strlen(from));
    if (*to != NULL)
        return 0;
    *to = "";
    return ERR_NOMEM;
}

int entry_copy_server(struct entry *e, const struct entry *from)
{
    const struct entry_server *f = &from->server;
    struct entry_server *s = &e->server;

    if (copy_text(e, &s->address, f->address) < 0 ||
        copy_text(e, &s->address_v6, f->address_v6) < 0 ||
        copy_text(e, &s->address_udp, f->address_udp) < 0 ||
        copy_text(e, &s->address_udp_v6, f->address_udp_v6) < 0 ||
        copy_text(e, &s->address_ws, f->address_ws) < 0 ||
        copy_text(e, &s->address_wt, f->address_wt) < 0 ||
        copy_text(e, &s->cert_hash_wt, f->cert_hash_wt) < 0 ||
        copy_text(e, &s->server_type, f->server_type) < 0)
        return ERR_NOMEM;
    s->available_sessions = f->available_sessions;
    s->dht_bootstrap = f->dht_bootstrap;
    e->has_server = true;
    return 0;
}

int entry_copy_client(struct entry *e, const struct entry *from)
{
    size_t n = from->client.n_delegated;
    struct pubkey *keys = n > 0 ? entry_get(e, n * sizeof keys[0]) : NULL;

    if ((n > 0 && keys == NULL) || copy_text(e, &e->client_type, from->client_type) < 0 ||
        copy_text(e, &e->protocol, from->protocol) < 0)
        return ERR_NOMEM;
    if (n > 0)
        memcpy(keys, from->client.delegated, n * sizeof keys[0]);
    e->client = (struct entry_client){from->client.delegated_null, n, keys};
    e->has_client = true;
    return 0;
}

int entry_set_signature(struct entry *e, const struct sig *sig)
{
    struct json_out o;
    int rc;

    e->signature = *sig;
    e->has_signature = true;
    json_out_grow(&o, JSON_FAST, ENTRY_MAX_TEXT);
    put_entry(&o, e, true);
    rc = o.err;
    if (rc == 0)
        rc = keep_text(e, o.p, o.len);
    if (rc == 0)
        e->unknown_members = false;
    json_out_free(&o);
    return rc;
}

/* ---- verification -----------------------------------------------------------------------------
 */

int entry_check_begin(struct hash out[2], const struct entry *e)
{
    int rc;

    if (pubkey_is_null(&e->static_pk))
        return ERR_KEY;
    if (!e->has_signature)
        return ERR_SIG;
    rc = canon_digest(&out[0], e, false);
    if (rc < 0)
        return rc;
    if (!e->unknown_members && e->server.address_wt[0] == '\0' && e->server.cert_hash_wt[0] == '\0')
        return 1;
    rc = canon_digest(&out[1], e, true);
    if (rc < 0)
        return rc;
    return memcmp(&out[0], &out[1], sizeof out[0]) == 0 ? 1 : 2;
}

int entry_verify(const struct entry *e)
{
    struct hash digest[2];
    int n = entry_check_begin(digest, e);

    if (n < 0)
        return n;
    for (int i = 0; i < n; i++)
        if (crypto_verify_digest(&e->static_pk, &e->signature, &digest[i]) == 0)
            return 0;
    return ERR_SIG;
}

int entry_cmp(const struct entry *a, const struct entry *b)
{
    if (a->timestamp_ns != b->timestamp_ns)
        return a->timestamp_ns < b->timestamp_ns ? -1 : 1;
    if (a->sequence != b->sequence)
        return a->sequence < b->sequence ? -1 : 1;
    return 0;
}

bool entry_delegates_to(const struct entry *e, const struct pubkey *pk)
{
    for (size_t i = 0; e->has_client && i < e->client.n_delegated; i++)
        if (pubkey_equal(&e->client.delegated[i], pk))
            return true;
    return false;
}
