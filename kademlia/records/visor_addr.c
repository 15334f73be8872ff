#include "kademlia/records/visor_addr.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "kademlia/json_read.h"

static void read_addresses(struct json_in *j, struct json_scratch *s, struct visor_addr *out)
{
    out->n_addresses = 0; /* of a duplicate */
    out->addresses_null = !json_in_array(j);
    if (out->addresses_null)
        return;
    while (json_in_element(j)) {
        if (out->n_addresses == VISOR_ADDR_MAX_ADDRESSES) {
            json_in_fail(j, ERR_TOO_LONG);
            return;
        }
        out->addresses[out->n_addresses][0] = '\0';
        json_read_short(j, s, out->addresses[out->n_addresses++], VISOR_ADDR_TEXT + 1);
    }
}

static void read_members(struct json_in *j, struct json_scratch *s, void *rec)
{
    struct visor_addr *out = rec;
    out->addresses_null = true;
    static const char *const names[] = {"remote_addr",  "remote_addr_v6", "is_local",
                                        "port",         "addresses",      "public_ip",
                                        "public_ip_v6", "cert_hash"};

    while (json_in_member(j)) {
        switch (json_in_name_find(j, names, 8)) {
        case 0:
            json_read_short(j, s, out->remote_addr, sizeof out->remote_addr);
            break;
        case 1:
            json_read_short(j, s, out->remote_addr_v6, sizeof out->remote_addr_v6);
            break;
        case 2:
            json_in_bool(j, &out->is_local);
            break;
        case 3:
            json_read_short(j, s, out->port, sizeof out->port);
            break;
        case 4:
            read_addresses(j, s, out);
            break;
        case 5:
            json_read_short(j, s, out->public_ip, sizeof out->public_ip);
            break;
        case 6:
            json_read_short(j, s, out->public_ip_v6, sizeof out->public_ip_v6);
            break;
        case 7:
            json_read_short(j, s, out->cert_hash, sizeof out->cert_hash);
            break;
        default:
            json_in_skip(j);
        }
    }
}

int visor_addr_decode(struct visor_addr *out, const void *v, size_t n)
{
    return json_read_record(out, sizeof *out, v, n, read_members);
}

static void write_text(struct json_out *o, const char *name, const char *text)
{
    if (text[0] == '\0')
        return;
    json_out_name(o, name);
    json_out_str(o, text);
}

static void write_addresses(struct json_out *o, const struct visor_addr *a)
{
    json_out_name(o, "addresses");
    if (a->addresses_null) {
        json_out_null(o);
        return;
    }
    json_out_array(o);
    for (size_t i = 0; i < a->n_addresses; i++)
        json_out_str(o, a->addresses[i]);
    json_out_array_end(o);
}

int visor_addr_encode(char *out, size_t cap, size_t *n, const struct visor_addr *a)
{
    struct json_out o;

    json_out_fixed(&o, JSON_STD, out, cap);
    json_out_object(&o);
    json_out_name(&o, "remote_addr");
    json_out_str(&o, a->remote_addr);
    write_text(&o, "remote_addr_v6", a->remote_addr_v6);
    if (a->is_local) {
        json_out_name(&o, "is_local");
        json_out_bool(&o, true);
    }
    json_out_name(&o, "port");
    json_out_str(&o, a->port);
    write_addresses(&o, a);
    write_text(&o, "public_ip", a->public_ip);
    write_text(&o, "public_ip_v6", a->public_ip_v6);
    write_text(&o, "cert_hash", a->cert_hash);
    json_out_object_end(&o);
    *n = o.err == 0 ? o.len : 0;
    return o.err;
}

static bool is_port(const char *text)
{
    char *end = NULL;
    unsigned long port = strtoul(text, &end, 10);

    return text[0] >= '1' && text[0] <= '9' && *end == '\0' && port <= UINT16_MAX;
}

int visor_addr_check(const struct visor_addr *a)
{
    bool any = a->remote_addr[0] != '\0' || a->n_addresses > 0;

    if (!any && a->port[0] == '\0')
        return ERR_NOT_FOUND;
    return any && is_port(a->port) ? 0 : ERR_FORMAT;
}
