#include "compat-http/deploy_conf.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"

static const char *const service_names[DEPLOY_SERVICE__COUNT] = {
    [DEPLOY_CONF] = "conf",
    [DEPLOY_DMSG_DISCOVERY] = "dmsg_discovery",
    [DEPLOY_TRANSPORT_DISCOVERY] = "transport_discovery",
    [DEPLOY_ADDRESS_RESOLVER] = "address_resolver",
    [DEPLOY_ROUTE_FINDER] = "route_finder",
    [DEPLOY_UPTIME_TRACKER] = "uptime_tracker",
    [DEPLOY_SERVICE_DISCOVERY] = "service_discovery",
};

static const char *const list_names[DEPLOY_LIST__COUNT] = {
    [DEPLOY_ROUTE_SETUP_NODES] = "route_setup_nodes",
    [DEPLOY_TRANSPORT_SETUP] = "transport_setup",
    [DEPLOY_STUN_SERVERS] = "stun_servers",
    [DEPLOY_SURVEY_WHITELIST] = "survey_whitelist",
};

struct reading {
    struct deploy_conf *c;
    char *why;
    size_t why_size;
};

__attribute__((format(printf, 3, 4))) static int wrong(struct reading *r, int err, const char *fmt,
                                                       ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(r->why, r->why_size, fmt, ap);
    va_end(ap);
    return err;
}

/* ---- reading ---- */

static int set(char **to, const char *text)
{
    free(*to);
    *to = strdup(text);
    return *to != NULL ? 0 : ERR_NOMEM;
}

/* "dmsg://PK:PORT", "PK:PORT" or "PK". */
static int set_dmsg(struct reading *r, char **to, const char *name, const char *text)
{
    struct addr_dmsg at;
    char whole[ADDR_DMSG_MAX + 8] = "dmsg://";
    const char *p = strncmp(text, "dmsg://", 7) == 0 ? text + 7 : text;
    size_t n = strcspn(p, "/");
    if (addr_dmsg_from_text(&at, p, n) < 0 || pubkey_is_null(&at.pk))
        return wrong(r, ERR_KEY, "\"%s\": not PK:PORT", name);
    at.port = at.port != 0 ? at.port : 80;
    addr_dmsg_text(whole + 7, &at);
    return set(to, whole);
}

static int read_service(struct reading *r, const json_t *o, enum deploy_service s)
{
    char dmsg_name[64];
    snprintf(dmsg_name, sizeof(dmsg_name), "%s_dmsg", service_names[s]);
    const char *names[] = {service_names[s], dmsg_name};
    int rc = 0;
    for (int i = 0; i < 2 && rc == 0; i++) {
        const char *text = json_string_value(json_object_get(o, names[i]));
        if (text == NULL || *text == '\0')
            continue;
        bool http = strncmp(text, "http://", 7) == 0 || strncmp(text, "https://", 8) == 0;
        rc = http ? set(&r->c->url[s], text) : set_dmsg(r, &r->c->dmsg_url[s], names[i], text);
    }
    return rc;
}

static int read_list(struct reading *r, const json_t *o, enum deploy_list l)
{
    const json_t *a = json_object_get(o, list_names[l]), *v;
    struct deploy_texts *t = &r->c->list[l];
    size_t i, n = json_array_size(a);
    if (n > DEPLOY_CONF_LIST)
        return wrong(r, ERR_LIMIT, "\"%s\": more than %d", list_names[l], DEPLOY_CONF_LIST);
    if (n == 0)
        return 0;
    if ((t->v = calloc(n, sizeof(*t->v))) == NULL)
        return ERR_NOMEM;
    json_array_foreach(a, i, v)
    {
        if (!json_is_string(v))
            return wrong(r, ERR_FORMAT, "\"%s\": element %zu is no text", list_names[l], i);
        if ((t->v[t->n] = strdup(json_string_value(v))) == NULL)
            return ERR_NOMEM;
        t->n++;
    }
    return 0;
}

/* {"static": PK, "server": {"address": HOST:PORT}} */
static int read_servers(struct reading *r, const json_t *o)
{
    const json_t *a = json_object_get(o, "dmsg_servers"), *v;
    size_t i, n = json_array_size(a);
    if (n > DEPLOY_CONF_LIST)
        return wrong(r, ERR_LIMIT, "\"dmsg_servers\": more than %d", DEPLOY_CONF_LIST);
    if (n > 0 && (r->c->servers = calloc(n, sizeof(*r->c->servers))) == NULL)
        return ERR_NOMEM;
    json_array_foreach(a, i, v)
    {
        const char *pk = json_string_value(json_object_get(v, "static"));
        const char *at =
            json_string_value(json_object_get(json_object_get(v, "server"), "address"));
        const char *why = "not PK and HOST:PORT";
        struct addr_peer *p = &r->c->servers[r->c->n_servers];
        if (pk == NULL || at == NULL || pubkey_from_hex(&p->pk, pk, strlen(pk)) < 0 ||
            addr_hostport_parse(&p->at, at, strlen(at), ADDR_STRICT, &why) < 0)
            return wrong(r, ERR_FORMAT, "\"dmsg_servers\": server %zu: %s", i, why);
        r->c->n_servers++;
    }
    return 0;
}

static int read_object(struct reading *r, const json_t *o)
{
    int rc = 0;
    const char *dns = json_string_value(json_object_get(o, "dns_server"));
    for (unsigned s = 0; s < DEPLOY_SERVICE__COUNT && rc == 0; s++)
        rc = read_service(r, o, (enum deploy_service)s);
    for (unsigned l = 0; l < DEPLOY_LIST__COUNT && rc == 0; l++)
        rc = read_list(r, o, (enum deploy_list)l);
    if (rc == 0 && dns != NULL && *dns != '\0')
        rc = set(&r->c->dns_server, dns);
    return rc == 0 ? read_servers(r, o) : rc;
}

int deploy_conf_parse(struct deploy_conf *c, const char *text, size_t n, const char *environment,
                      char *why, size_t why_size)
{
    struct reading r = {c, why, why_size};
    json_error_t je;
    memset(c, 0, sizeof(*c));
    snprintf(why, why_size, "%s", err_str(ERR_NOMEM));
    json_t *root = json_loadb(text, n, 0, &je);
    if (root == NULL)
        return wrong(&r, ERR_FORMAT, "line %d: %s", je.line, je.text);
    const json_t *o = json_object_get(root, environment);
    bool named = json_object_get(root, "prod") != NULL || json_object_get(root, "test") != NULL;
    int rc = !json_is_object(root) ? wrong(&r, ERR_FORMAT, "not a JSON object")
             : named && !json_is_object(o)
                 ? wrong(&r, ERR_NOT_FOUND, "no environment \"%s\"", environment)
                 : read_object(&r, named ? o : root);
    json_decref(root);
    return rc;
}

int deploy_conf_load(struct deploy_conf *c, const char *path, const char *environment, char *why,
                     size_t why_size)
{
    FILE *f = fopen(path, "re");
    char *text = f != NULL ? malloc(DEPLOY_CONF_FILE + 1) : NULL;
    size_t n = text != NULL ? fread(text, 1, DEPLOY_CONF_FILE + 1, f) : 0;
    memset(c, 0, sizeof(*c));
    int rc = f == NULL || (text != NULL && ferror(f)) ? err_sys()
             : text == NULL                           ? ERR_NOMEM
             : n > DEPLOY_CONF_FILE                   ? ERR_TOO_LONG
                                                      : 0;
    if (rc < 0)
        snprintf(why, why_size, "%s", err_str(rc));
    else
        rc = deploy_conf_parse(c, text, n, environment, why, why_size);
    if (f != NULL)
        fclose(f);
    free(text);
    return rc;
}

void deploy_conf_free(struct deploy_conf *c)
{
    for (unsigned s = 0; s < DEPLOY_SERVICE__COUNT; s++) {
        free(c->url[s]);
        free(c->dmsg_url[s]);
    }
    for (unsigned l = 0; l < DEPLOY_LIST__COUNT; l++) {
        for (size_t i = 0; i < c->list[l].n; i++)
            free(c->list[l].v[i]);
        free(c->list[l].v);
    }
    free(c->dns_server);
    free(c->servers);
    memset(c, 0, sizeof(*c));
}

/* ---- writing ---- */

static void put_text(struct json_out *o, const char *name, const char *text, bool always)
{
    if (text == NULL && !always)
        return;
    json_out_name(o, name);
    json_out_str(o, text != NULL ? text : "");
}

static void put_list(struct json_out *o, const struct deploy_conf *c, enum deploy_list l)
{
    const struct deploy_texts *t = &c->list[l];
    if (t->n == 0)
        return;
    json_out_name(o, list_names[l]);
    json_out_array(o);
    for (size_t i = 0; i < t->n; i++)
        json_out_str(o, t->v[i]);
    json_out_array_end(o);
}

static void put_servers(struct json_out *o, const struct deploy_conf *c, bool always)
{
    char at[ADDR_HOSTPORT_MAX + 1];
    if (c->n_servers == 0 && !always)
        return;
    json_out_name(o, "dmsg_servers");
    if (c->n_servers == 0) {
        json_out_null(o);
        return;
    }
    json_out_array(o);
    for (size_t i = 0; i < c->n_servers; i++) {
        json_out_object(o);
        json_out_name(o, "static");
        json_out_hex(o, c->servers[i].pk.b, PUBKEY_BYTES);
        json_out_name(o, "server");
        json_out_object(o);
        put_text(o, "address", addr_hostport_text(at, &c->servers[i].at), true);
        json_out_object_end(o);
        json_out_object_end(o);
    }
    json_out_array_end(o);
}

void deploy_conf_write_services(struct json_out *o, const struct deploy_conf *c, bool with_conf)
{
    json_out_object(o);
    for (unsigned s = with_conf ? DEPLOY_CONF : DEPLOY_DMSG_DISCOVERY; s <= DEPLOY_ROUTE_FINDER;
         s++)
        put_text(o, service_names[s], c->url[s], false);
    put_list(o, c, DEPLOY_ROUTE_SETUP_NODES);
    put_list(o, c, DEPLOY_TRANSPORT_SETUP);
    put_text(o, service_names[DEPLOY_UPTIME_TRACKER], c->url[DEPLOY_UPTIME_TRACKER], false);
    put_text(o, service_names[DEPLOY_SERVICE_DISCOVERY], c->url[DEPLOY_SERVICE_DISCOVERY], false);
    put_list(o, c, DEPLOY_STUN_SERVERS);
    put_text(o, "dns_server", c->dns_server, false);
    put_list(o, c, DEPLOY_SURVEY_WHITELIST);
    put_servers(o, c, false);
    for (unsigned s = DEPLOY_DMSG_DISCOVERY; s < DEPLOY_SERVICE__COUNT; s++) {
        char name[64];
        snprintf(name, sizeof(name), "%s_dmsg", service_names[s]);
        put_text(o, name, c->dmsg_url[s], false);
    }
    json_out_object_end(o);
}

void deploy_conf_write_dmsghttp(struct json_out *o, const struct deploy_conf *c)
{
    json_out_object(o);
    put_servers(o, c, true);
    for (unsigned s = DEPLOY_DMSG_DISCOVERY; s < DEPLOY_SERVICE__COUNT; s++)
        put_text(o, service_names[s], c->dmsg_url[s], true);
    json_out_object_end(o);
}
