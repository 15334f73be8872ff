#include "node/server_conf.h"

#include <jansson.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/err.h"
#include "base/hex.h"

#define MAX_SESSIONS 2048
#define LIST_MAX     4096u

struct reader {
    struct server_conf *c;
    server_conf_warn_fn *warn;
    void *arg;
    char *why;
    size_t cap;
};

/* ---- memory that is wiped when it is given back ---- */

static void *wiping_malloc(size_t n)
{
    size_t *p = n <= SIZE_MAX - 16 ? malloc(n + 16) : NULL;
    if (p == NULL)
        return NULL;
    *p = n;
    return (char *)p + 16;
}

static void wiping_free(void *at)
{
    if (at == NULL)
        return;
    size_t *p = (void *)((char *)at - 16);
    sodium_memzero(p, *p + 16);
    free(p);
}

/* ---- values ---- */

static int bad(struct reader *r, const char *name, const char *what)
{
    snprintf(r->why, r->cap, "\"%s\": %s", name, what);
    return ERR_FORMAT;
}

static int take_text(struct reader *r, const char *name, const json_t *v,
                     char out[SERVER_CONF_TEXT])
{
    const char *text = json_string_value(v);
    if (text == NULL)
        return bad(r, name, "not a text");
    if (strlen(text) >= SERVER_CONF_TEXT)
        return bad(r, name, "too long");
    snprintf(out, SERVER_CONF_TEXT, "%s", text);
    return 0;
}

static int take_key(struct reader *r, const char *name, const json_t *v, struct pubkey *out)
{
    const char *text = json_string_value(v);
    return text != NULL && pubkey_from_hex(out, text, strlen(text)) == 0
               ? 0
               : bad(r, name, "not a public key");
}

static int take_number(struct reader *r, const char *name, const json_t *v, json_int_t *out)
{
    if (!json_is_integer(v))
        return bad(r, name, "not a whole number");
    *out = json_integer_value(v);
    return 0;
}

/* Member of an object, in any case; the last one of doubles that differ in case. */
static const json_t *member(const json_t *o, const char *name)
{
    const char *key;
    json_t *v, *found = NULL;
    json_object_foreach((json_t *)(uintptr_t)o, key, v)
    {
        if (strcasecmp(key, name) == 0)
            found = v;
    }
    return found;
}

static int add_peer(struct reader *r, const char *name, struct addr_peer **list, size_t *n,
                    const json_t *pk, const json_t *address)
{
    struct addr_peer peer;
    const char *text = json_string_value(address), *reason = NULL;
    int rc = take_key(r, name, pk, &peer.pk);
    if (rc < 0)
        return rc;
    if (text == NULL || addr_hostport_parse(&peer.at, text, strlen(text), ADDR_STRICT, &reason) < 0)
        return bad(r, name, "an address in it is not HOST:PORT");
    struct addr_peer *more = *n < LIST_MAX ? realloc(*list, (*n + 1) * sizeof(**list)) : NULL;
    if (more == NULL)
        return bad(r, name, "too many");
    *list = more;
    more[(*n)++] = peer;
    return 0;
}

static int take_peers(struct reader *r, const char *name, const json_t *v)
{
    size_t i;
    json_t *p;
    int rc = json_is_array(v) ? 0 : bad(r, name, "not a list");
    json_array_foreach((json_t *)(uintptr_t)v, i, p)
    {
        if (rc == 0)
            rc = add_peer(r, name, &r->c->peers, &r->c->n_peers, member(p, "public_key"),
                          member(p, "address"));
    }
    return rc;
}

static int take_accepted(struct reader *r, const char *name, const json_t *v)
{
    struct server_conf *c = r->c;
    size_t i;
    json_t *p;
    int rc = json_is_array(v) && json_array_size(v) <= LIST_MAX ? 0 : bad(r, name, "not a list");
    if (rc == 0 && (c->accepted = calloc(json_array_size(v) + 1, sizeof(*c->accepted))) == NULL)
        return ERR_NOMEM;
    json_array_foreach((json_t *)(uintptr_t)v, i, p)
    {
        if (rc == 0 && (rc = take_key(r, name, p, &c->accepted[c->n_accepted])) == 0)
            c->n_accepted++;
    }
    return rc;
}

static int take_level(struct reader *r, const char *name, const json_t *v)
{
    static const char *const levels[][2] = {
        {"trace", "trace"}, {"debug", "debug"},  {"info", "info"},
        {"warn", "warn"},   {"warning", "warn"}, {"error", "error"},
        {"fatal", "error"}, {"panic", "error"},  {"", "info"},
    };
    const char *text = json_string_value(v);
    for (size_t i = 0; text != NULL && i < sizeof(levels) / sizeof(levels[0]); i++)
        if (strcasecmp(text, levels[i][0]) == 0) {
            r->c->log_level = levels[i][1];
            return 0;
        }
    return bad(r, name, "not a level");
}

/* ---- members ---- */

enum member {
    M_PUBLIC_KEY,
    M_SECRET_KEY,
    M_DISCOVERY,
    M_DISCOVERY_DMSG,
    M_PUBLIC_ADDRESS,
    M_LOCAL_ADDRESS,
    M_HEALTH,
    M_LOG_LEVEL,
    M_MAX_SESSIONS,
    M_PEERS,
    M_ACCEPTED,
    M_DMSG,
    M_DHT,
    M_ADVERTISED,
    M_SESSIONS,
    M_SERVERS,
    M_NOTHING, /* known, and nothing to do for us */
    M_CANNOT,  /* known, and we do not offer it */
};

struct known {
    const char *name;
    enum member m;
};

static const struct known top[] = {
    {"public_key", M_PUBLIC_KEY},
    {"secret_key", M_SECRET_KEY},
    {"discovery", M_DISCOVERY},
    {"discovery_dmsg", M_DISCOVERY_DMSG},
    {"public_address", M_PUBLIC_ADDRESS},
    {"local_address", M_LOCAL_ADDRESS},
    {"health_endpoint_address", M_HEALTH},
    {"log_level", M_LOG_LEVEL},
    {"update_interval", M_NOTHING},
    {"max_sessions", M_MAX_SESSIONS},
    {"peers", M_PEERS},
    {"accepted_peer_pks", M_ACCEPTED},
    {"announce_as_peer", M_NOTHING},
    {"accept_peer_announcements", M_NOTHING},
    {"dmsg", M_DMSG},
    {"enable_dht", M_DHT},
    {"enable_route_setup", M_CANNOT},
    {"public_address_v6", M_CANNOT},
    {"ws_address", M_CANNOT},
    {"public_address_ws", M_CANNOT},
    {NULL, M_NOTHING},
};

static const struct known in_dmsg[] = {
    {"discovery", M_DISCOVERY},
    {"discovery_dmsg", M_DISCOVERY_DMSG},
    {"sessions_count", M_SESSIONS},
    {"servers", M_SERVERS},
    {"advertised_address", M_ADVERTISED},
    {"advertised_address_v6", M_CANNOT},
    {NULL, M_NOTHING},
};

static bool says_something(const json_t *v)
{
    return !json_is_false(v) && !(json_is_string(v) && json_string_length(v) == 0);
}

static int take_object(struct reader *r, const struct known *known, const json_t *o);

/* One object or a list of them; the first one counts. */
static int take_dmsg(struct reader *r, const char *name, const json_t *v)
{
    const json_t *o = json_is_array(v) ? json_array_get(v, 0) : v;
    if (json_is_array(v) && json_array_size(v) > 1)
        r->warn(r->arg, "\"dmsg\": only the first of several deployments is used");
    if (json_is_array(v) && o == NULL)
        return 0;
    return json_is_object(o) ? take_object(r, in_dmsg, o) : bad(r, name, "not an object");
}

/* Signed entries of servers. */
static int take_servers(struct reader *r, const char *name, const json_t *v)
{
    size_t i;
    json_t *e;
    int rc = json_is_array(v) ? 0 : bad(r, name, "not a list");
    json_array_foreach((json_t *)(uintptr_t)v, i, e)
    {
        const json_t *server = member(e, "server");
        if (rc == 0 && server != NULL)
            rc = add_peer(r, name, &r->c->servers, &r->c->n_servers, member(e, "static"),
                          member(server, "address"));
    }
    return rc;
}

static int take_secret(struct reader *r, const char *name, const json_t *v)
{
    const char *text = json_string_value(v);
    return text != NULL && seckey_from_hex(&r->c->sk, text, strlen(text)) == 0
               ? 0
               : bad(r, name, "not a secret key");
}

static int take_max_sessions(struct reader *r, const char *name, const json_t *v)
{
    json_int_t n = 0;
    int rc = take_number(r, name, v, &n);
    if (rc == 0 && n > UINT32_MAX)
        rc = bad(r, name, "too many");
    if (rc == 0)
        r->c->max_sessions = n > 0 ? (uint32_t)n : MAX_SESSIONS;
    return rc;
}

static int take_sessions(struct reader *r, const char *name, const json_t *v)
{
    json_int_t n = 0;
    int rc = take_number(r, name, v, &n);
    if (rc == 0)
        r->c->sessions = n > 0 ? n < 32 ? (unsigned)n : 32 : 0;
    return rc;
}

static int take_dht(struct reader *r, const char *name, const json_t *v)
{
    if (!json_is_boolean(v))
        return bad(r, name, "not true or false");
    r->c->dht = json_is_true(v);
    r->c->dht_said = true;
    return 0;
}

/* What an empty text does not overwrite. */
static int take_better(struct reader *r, const char *name, const json_t *v,
                       char out[SERVER_CONF_TEXT])
{
    return json_is_string(v) && json_string_length(v) == 0 ? 0 : take_text(r, name, v, out);
}

static int take_member(struct reader *r, enum member m, const char *name, const json_t *v)
{
    struct server_conf *c = r->c;
    char text[160];
    switch (m) {
    case M_PUBLIC_KEY:
        return take_key(r, name, v, &c->pk);
    case M_SECRET_KEY:
        return take_secret(r, name, v);
    case M_DISCOVERY:
        return take_better(r, name, v, c->discovery);
    case M_DISCOVERY_DMSG:
        return c->discovery[0] != '\0' ? 0 : take_text(r, name, v, c->discovery);
    case M_PUBLIC_ADDRESS:
    case M_ADVERTISED:
        return take_better(r, name, v, c->public_address);
    case M_LOCAL_ADDRESS:
        return take_text(r, name, v, c->local_address);
    case M_HEALTH:
        return take_text(r, name, v, c->health);
    case M_LOG_LEVEL:
        return take_level(r, name, v);
    case M_MAX_SESSIONS:
        return take_max_sessions(r, name, v);
    case M_PEERS:
        return take_peers(r, name, v);
    case M_ACCEPTED:
        return take_accepted(r, name, v);
    case M_DMSG:
        return take_dmsg(r, name, v);
    case M_DHT:
        return take_dht(r, name, v);
    case M_SESSIONS:
        return take_sessions(r, name, v);
    case M_SERVERS:
        return take_servers(r, name, v);
    case M_NOTHING:
        return 0;
    case M_CANNOT:
        if (says_something(v)) {
            snprintf(text, sizeof(text), "\"%s\" is skipped: this relay does not offer that", name);
            r->warn(r->arg, text);
        }
        return 0;
    }
    return 0;
}

static void warn_unknown(struct reader *r, const char *name)
{
    char text[160];
    snprintf(text, sizeof(text), "\"%.64s\" is skipped: not known", name);
    for (char *p = text; *p != '\0'; p++)
        *p = (unsigned char)*p < ' ' ? '?' : *p;
    r->warn(r->arg, text);
}

/* In the order of the table, so that newer members come behind older ones. */
static int take_object(struct reader *r, const struct known *known, const json_t *o)
{
    const char *name;
    json_t *v;
    int rc = 0;
    json_object_foreach((json_t *)(uintptr_t)o, name, v)
    {
        const struct known *k = known;
        while (k->name != NULL && strcasecmp(k->name, name) != 0)
            k++;
        if (k->name == NULL)
            warn_unknown(r, name);
    }
    for (const struct known *k = known; k->name != NULL && rc == 0; k++) {
        const json_t *found = member(o, k->name);
        if (found != NULL && !json_is_null(found))
            rc = take_member(r, k->m, k->name, found);
    }
    return rc;
}

/* The pair must be one. */
static int check_keys(struct reader *r)
{
    struct pubkey pk;
    if (seckey_pubkey(&pk, &r->c->sk) < 0)
        return bad(r, "secret_key", "is missing");
    if (!pubkey_is_null(&r->c->pk) && !pubkey_equal(&pk, &r->c->pk))
        return bad(r, "public_key", "does not belong to the secret key");
    r->c->pk = pk;
    return 0;
}

int server_conf_parse(struct server_conf *c, const char *text, size_t n, server_conf_warn_fn *warn,
                      void *arg, char *why, size_t cap)
{
    struct reader r = {c, warn, arg, why, cap};
    json_malloc_t was_malloc;
    json_free_t was_free;
    json_error_t je;
    *c = (struct server_conf){
        .local_address = ":8081", .log_level = "info", .max_sessions = MAX_SESSIONS};
    snprintf(why, cap, "%s", err_str(ERR_NOMEM));
    json_get_alloc_funcs(&was_malloc, &was_free);
    json_set_alloc_funcs(wiping_malloc, wiping_free);
    json_t *root = json_loadb(text, n, 0, &je);
    int rc = 0;
    if (root == NULL)
        rc = (snprintf(why, cap, "line %d: no JSON", je.line), ERR_FORMAT); /* its text may quote */
    else if (!json_is_object(root))
        rc = (snprintf(why, cap, "not a JSON object"), ERR_FORMAT);
    else
        rc = take_object(&r, top, root);
    json_decref(root);
    json_set_alloc_funcs(was_malloc, was_free);
    sodium_memzero(&je, sizeof(je));
    return rc == 0 ? check_keys(&r) : rc;
}

void server_conf_free(struct server_conf *c)
{
    seckey_wipe(&c->sk);
    free(c->peers);
    free(c->servers);
    free(c->accepted);
    *c = (struct server_conf){0};
}

void server_conf_write(FILE *out, const struct seckey *sk, const struct pubkey *pk,
                       const char *discovery)
{
    char pk_hex[PUBKEY_HEX + 1], sk_hex[2 * SECKEY_BYTES + 1];
    hex_encode(sk_hex, sk->b, SECKEY_BYTES);
    fprintf(out,
            "{\n"
            "\t\"public_key\": \"%s\",\n"
            "\t\"secret_key\": \"%s\",\n"
            "\t\"discovery\": \"%s\",\n"
            "\t\"public_address\": \"127.0.0.1:8081\",\n"
            "\t\"local_address\": \":8081\",\n"
            "\t\"health_endpoint_address\": \":8082\",\n"
            "\t\"log_level\": \"info\",\n"
            "\t\"update_interval\": 0,\n"
            "\t\"max_sessions\": %d\n"
            "}\n",
            pubkey_hex(pk_hex, pk), sk_hex, discovery, MAX_SESSIONS);
    sodium_memzero(sk_hex, sizeof(sk_hex));
}
