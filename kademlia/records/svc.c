#include "kademlia/records/svc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "kademlia/item.h"
#include "kademlia/json_read.h"

/* "KEY:PORT"; without a colon the port is 0. */
static void read_address(struct json_in *j, struct json_scratch *s, struct svc *e)
{
    const char *text;
    size_t n;

    if (!json_read_text(j, s, &text, &n))
        return;
    const char *colon = memchr(text, ':', n);
    size_t key = colon != NULL ? (size_t)(colon - text) : n;
    unsigned long port = 0;

    for (size_t i = key + 1; i < n; i++) {
        if (text[i] < '0' || text[i] > '9' || n - key > 6) {
            json_in_fail(j, ERR_FORMAT);
            return;
        }
        port = 10 * port + (unsigned long)(text[i] - '0');
    }
    if (port > UINT16_MAX || pubkey_from_hex(&e->pk, text, key) != 0)
        json_in_fail(j, ERR_FORMAT);
    e->port = (uint16_t)port;
}

/* A member that is handed through, of this type or null. */
static void read_raw(struct json_in *j, enum json_tok type, struct svc_raw *out)
{
    enum json_tok tok = json_in_peek(j);

    if (tok == JSON_TOK_NULL) {
        json_in_skip(j);
        *out = (struct svc_raw){.n = 0};
        return;
    }
    if (tok != type)
        json_in_fail(j, ERR_FORMAT);
    json_in_skip_text(j, &out->p, &out->n);
}

static void read_port(struct json_in *j, struct svc *e)
{
    uint64_t port = e->port;

    json_in_uint(j, UINT16_MAX, &port);
    e->port = (uint16_t)port;
}

static void read_member(struct json_in *j, struct json_scratch *s, struct svc *e)
{
    static const char *const names[] = {
        "address", "type", "geo", "display_node_ip", "version", "local_ips", "info", "pk", "port"};

    switch (json_in_name_find(j, names, 9)) {
    case 0:
        read_address(j, s, e);
        break;
    case 1:
        json_read_short(j, s, e->type, sizeof e->type);
        break;
    case 2:
        read_raw(j, JSON_TOK_OBJECT, &e->geo);
        break;
    case 3:
        json_in_bool(j, &e->display_node_ip);
        break;
    case 4:
        json_read_short(j, s, e->version, sizeof e->version);
        break;
    case 5:
        read_raw(j, JSON_TOK_ARRAY, &e->local_ips);
        break;
    case 6:
        read_raw(j, JSON_TOK_OBJECT, &e->info);
        break;
    case 7:
        json_read_pubkey(j, s, &e->pk);
        break;
    case 8:
        read_port(j, e);
        break;
    default:
        json_in_skip(j);
    }
}

/* One service; an empty object or null is none. */
static void read_service(struct json_in *j, struct json_scratch *s, struct svc_list *out)
{
    bool any = false;

    if (!json_in_object(j))
        return;
    if ((out->n & (out->n - 1)) == 0) { /* full at 0 and every power of two */
        struct svc *e = realloc(out->e, (out->n > 0 ? 2 * out->n : 1) * sizeof *e);
        if (e == NULL) {
            json_in_fail(j, ERR_NOMEM);
            return;
        }
        out->e = e;
    }
    struct svc *e = &out->e[out->n];
    memset(e, 0, sizeof *e);
    while (json_in_member(j)) {
        any = true;
        read_member(j, s, e);
    }
    out->n += any;
}

int svc_decode(struct svc_list *out, const void *v, size_t n)
{
    struct json_in j = json_in_init(v, n);
    struct json_scratch s = {0};

    *out = (struct svc_list){.n = 0};
    if (n > ITEM_MAX_VALUE)
        return ERR_TOO_LONG;
    if (json_in_peek(&j) == JSON_TOK_OBJECT)
        read_service(&j, &s, out);
    else if (json_in_array(&j))
        while (json_in_element(&j))
            read_service(&j, &s, out);
    int rc = json_in_end_input(&j);
    json_scratch_free(&s);
    if (rc == 0)
        return 0;
    svc_list_free(out);
    return rc == ERR_NOMEM ? rc : ERR_FORMAT;
}

void svc_list_free(struct svc_list *l)
{
    free(l->e);
    *l = (struct svc_list){.n = 0};
}

static void write_address(struct json_out *o, const struct svc *e)
{
    char text[PUBKEY_HEX + 8];

    pubkey_hex(text, &e->pk);
    int n = snprintf(text + PUBKEY_HEX, sizeof text - PUBKEY_HEX, ":%u", e->port);
    json_out_name(o, "address");
    json_out_string(o, text, PUBKEY_HEX + (size_t)n);
}

static void write_raw(struct json_out *o, const char *name, const struct svc_raw *raw)
{
    if (raw->n == 0)
        return;
    json_out_name(o, name);
    json_out_raw(o, raw->p, raw->n);
}

static void write_service(struct json_out *o, const struct svc *e)
{
    json_out_object(o);
    write_address(o, e);
    json_out_name(o, "type");
    json_out_str(o, e->type);
    write_raw(o, "geo", &e->geo);
    if (e->display_node_ip) {
        json_out_name(o, "display_node_ip");
        json_out_bool(o, true);
    }
    if (e->version[0] != '\0') {
        json_out_name(o, "version");
        json_out_str(o, e->version);
    }
    write_raw(o, "local_ips", &e->local_ips);
    write_raw(o, "info", &e->info);
    json_out_object_end(o);
}

int svc_encode(char **out, size_t *n, const struct svc *e, size_t count)
{
    struct json_out o;

    json_out_grow(&o, JSON_STD, ITEM_MAX_VALUE);
    json_out_array(&o);
    for (size_t i = 0; i < count; i++)
        write_service(&o, &e[i]);
    json_out_array_end(&o);
    if (o.err != 0) {
        int rc = o.err;
        json_out_free(&o);
        return rc;
    }
    *out = o.p;
    *n = o.len;
    return 0;
}

int svc_check(const struct svc_list *l, const struct pubkey *subject)
{
    for (size_t i = 0; i < l->n; i++) {
        if (!pubkey_equal(&l->e[i].pk, subject))
            return ERR_REFUSED;
        if (l->e[i].type[0] == '\0')
            return ERR_FORMAT;
    }
    return l->n > 0 ? 0 : ERR_NOT_FOUND;
}
