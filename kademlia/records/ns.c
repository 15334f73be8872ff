#include "kademlia/records/ns.h"

#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "kademlia/records/dmsg_server.h"
#include "kademlia/records/fullnode.h"
#include "kademlia/records/svc.h"
#include "kademlia/records/tp_chunks.h"
#include "kademlia/records/visor_addr.h"
#include "transport/entry.h"

static const char *const names[NS__COUNT] = {"",           "dmsg",       "tp",       "svc",
                                             "addr:stcpr", "addr:sudph", "fullnode", "dmsg-server"};

static bool is(const void *salt, size_t n, const char *name)
{
    return n == strlen(name) && (n == 0 || memcmp(salt, name, n) == 0);
}

enum ns ns_of(const void *salt, size_t n)
{
    if (tp_salt_chunk(salt, n) >= 0)
        return NS_TP;
    if (n > 4 && memcmp(salt, "svc:", 4) == 0)
        return NS_SVC;
    for (int i = NS_DMSG; i < NS__COUNT; i++) {
        if (is(salt, n, names[i]))
            return (enum ns)i;
    }
    return NS_OPAQUE;
}

const char *ns_name(enum ns ns)
{
    return names[ns];
}

enum ns ns_by_name(const char *name, size_t n)
{
    if (is(name, n, "opaque"))
        return NS_OPAQUE;
    for (int i = NS_DMSG; i < NS__COUNT; i++) {
        if (is(name, n, names[i]))
            return (enum ns)i;
    }
    return NS__COUNT;
}

/* An object or array with nothing in it, or null. */
static bool is_empty(const void *v, size_t n, enum json_tok type)
{
    struct json_in j = json_in_init(v, n);
    enum json_tok tok = json_in_peek(&j);

    if (tok != type && tok != JSON_TOK_NULL)
        return false;
    if (type == JSON_TOK_OBJECT && json_in_object(&j) && json_in_member(&j))
        return false;
    if (type == JSON_TOK_ARRAY && json_in_array(&j) && json_in_element(&j))
        return false;
    return json_in_end_input(&j) == 0;
}

bool ns_is_tombstone(const void *salt, size_t salt_len, const void *v, size_t n)
{
    switch (ns_of(salt, salt_len)) {
    case NS_OPAQUE:
        return false;
    case NS_TP:
        return salt_len > 2 && is_empty(v, n, JSON_TOK_ARRAY);
    case NS_SVC:
        return is_empty(v, n, JSON_TOK_ARRAY) || is_empty(v, n, JSON_TOK_OBJECT);
    case NS_DMSG:
    case NS_ADDR_STCPR:
    case NS_ADDR_SUDPH:
    case NS_FULLNODE:
    case NS_DMSG_SERVER:
    case NS__COUNT:
        break;
    }
    return is_empty(v, n, JSON_TOK_OBJECT);
}

const char *ns_tombstone(const void *salt, size_t salt_len)
{
    enum ns ns = ns_of(salt, salt_len);
    bool list = ns == NS_TP || (ns == NS_SVC && salt_len == 3);

    return ns == NS_OPAQUE ? "" : list ? "[]" : "{}";
}

static int check_entry(const struct pubkey *subject, const void *v, size_t n)
{
    struct entry *e;
    int rc = entry_parse(&e, v, n);

    if (rc != 0)
        return rc;
    if (!pubkey_equal(&e->static_pk, subject))
        rc = ERR_REFUSED;
    else
        rc = entry_verify(e);
    entry_free(e);
    return rc;
}

/* Every transport of a list has the subject at one of its edges, and the id that follows from edges
 * and type. */
static int check_tp(const struct pubkey *subject, const void *v, size_t n)
{
    struct tp_list l;
    int rc = tp_decode(&l, subject, v, n);

    for (size_t i = 0; rc == 0 && i < l.n; i++) {
        const struct tp_entry *e = &l.e[i];
        struct tp_id id = tp_id_of(&e->edges[0], &e->edges[1], e->type);
        if (!pubkey_equal(&e->edges[0], subject) && !pubkey_equal(&e->edges[1], subject))
            rc = ERR_REFUSED;
        else if (memcmp(&id, &e->id, sizeof id) != 0)
            rc = ERR_FORMAT;
    }
    tp_list_free(&l);
    return rc;
}

static int check_svc(const struct pubkey *subject, const void *v, size_t n)
{
    struct svc_list l;
    int rc = svc_decode(&l, v, n);

    if (rc == 0)
        rc = svc_check(&l, subject);
    svc_list_free(&l);
    return rc;
}

static int check_addr(const void *v, size_t n)
{
    struct visor_addr a;
    int rc = visor_addr_decode(&a, v, n);

    return rc != 0 ? rc : visor_addr_check(&a);
}

static int check_fullnode(const struct pubkey *subject, const void *v, size_t n, int64_t wall_ns)
{
    struct fullnode_rec rec;
    int rc = fullnode_decode(&rec, v, n);

    return rc != 0 ? rc : fullnode_check(&rec, subject, wall_ns);
}

static int check_dmsg_server(const struct pubkey *subject, const void *v, size_t n)
{
    struct dmsg_server_rec rec;
    int rc = dmsg_server_decode(&rec, v, n);

    return rc != 0 ? rc : dmsg_server_check(&rec, subject);
}

int ns_check(const struct pubkey *subject, const void *salt, size_t salt_len, const void *v,
             size_t n, int64_t wall_ns)
{
    if (ns_is_tombstone(salt, salt_len, v, n))
        return ERR_NOT_FOUND;
    switch (ns_of(salt, salt_len)) {
    case NS_DMSG:
        return check_entry(subject, v, n);
    case NS_TP:
        return check_tp(subject, v, n);
    case NS_SVC:
        return check_svc(subject, v, n);
    case NS_ADDR_STCPR:
    case NS_ADDR_SUDPH:
        return check_addr(v, n);
    case NS_FULLNODE:
        return check_fullnode(subject, v, n, wall_ns);
    case NS_DMSG_SERVER:
        return check_dmsg_server(subject, v, n);
    case NS_OPAQUE:
    case NS__COUNT:
        break;
    }
    return 0;
}
