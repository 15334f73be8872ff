#include "kademlia/records/dmsg_server.h"

#include <string.h>

#include "base/err.h"
#include "kademlia/json_read.h"

static void read_peer(struct json_in *j, struct json_scratch *s, struct dmsg_server_peer *p)
{
    static const char *const names[] = {"public_key", "address"};

    memset(p, 0, sizeof *p);
    if (!json_in_object(j))
        return;
    while (json_in_member(j)) {
        switch (json_in_name_find(j, names, 2)) {
        case 0:
            json_read_pubkey(j, s, &p->pk);
            break;
        case 1:
            json_read_short(j, s, p->address, sizeof p->address);
            break;
        default:
            json_in_skip(j);
        }
    }
}

static void read_peers(struct json_in *j, struct json_scratch *s, struct dmsg_server_rec *out)
{
    out->n_peers = 0; /* of a duplicate */
    if (json_in_peek(j) != JSON_TOK_ARRAY) {
        json_in_skip(j); /* null, or the text that the member's name promises */
        return;
    }
    json_in_array(j);
    while (json_in_element(j)) {
        struct dmsg_server_peer p;
        read_peer(j, s, &p);
        if (out->n_peers < DMSG_SERVER_MAX_PEERS && !pubkey_is_null(&p.pk))
            out->peers[out->n_peers++] = p;
    }
}

static void read_members(struct json_in *j, struct json_scratch *s, void *rec)
{
    struct dmsg_server_rec *out = rec;
    static const char *const names[] = {"address", "dht_bootstrap", "max_sessions", "pk",
                                        "server_type"};

    while (json_in_member(j)) {
        switch (json_in_name_find(j, names, 5)) {
        case 0:
            json_read_short(j, s, out->address, sizeof out->address);
            break;
        case 1:
            json_in_bool(j, &out->dht_bootstrap);
            break;
        case 2:
            json_in_u64(j, &out->max_sessions);
            break;
        case 3:
            json_read_pubkey(j, s, &out->pk);
            break;
        case 4:
            read_peers(j, s, out);
            break;
        default:
            json_in_skip(j);
        }
    }
}

int dmsg_server_decode(struct dmsg_server_rec *out, const void *v, size_t n)
{
    return json_read_record(out, sizeof *out, v, n, read_members);
}

static void write_peers(struct json_out *o, const struct dmsg_server_rec *rec)
{
    if (rec->n_peers == 0) {
        json_out_null(o);
        return;
    }
    json_out_array(o);
    for (size_t i = 0; i < rec->n_peers; i++) {
        json_out_object(o);
        json_out_name(o, "public_key");
        json_out_hex(o, rec->peers[i].pk.b, PUBKEY_BYTES);
        json_out_name(o, "address");
        json_out_str(o, rec->peers[i].address);
        json_out_object_end(o);
    }
    json_out_array_end(o);
}

int dmsg_server_encode(char *out, size_t cap, size_t *n, const struct dmsg_server_rec *rec)
{
    struct json_out o;

    json_out_fixed(&o, JSON_STD, out, cap);
    json_out_object(&o);
    json_out_name(&o, "address");
    json_out_str(&o, rec->address);
    json_out_name(&o, "dht_bootstrap");
    json_out_bool(&o, rec->dht_bootstrap);
    json_out_name(&o, "max_sessions");
    json_out_u64(&o, rec->max_sessions);
    json_out_name(&o, "pk");
    json_out_hex(&o, rec->pk.b, PUBKEY_BYTES);
    json_out_name(&o, "server_type");
    write_peers(&o, rec);
    json_out_object_end(&o);
    *n = o.err == 0 ? o.len : 0;
    return o.err;
}

int dmsg_server_check(const struct dmsg_server_rec *rec, const struct pubkey *subject)
{
    struct addr_hostport at;

    if (rec->address[0] == '\0')
        return ERR_NOT_FOUND;
    if (!pubkey_is_null(&rec->pk) && !pubkey_equal(&rec->pk, subject))
        return ERR_REFUSED;
    return addr_hostport_parse(&at, rec->address, strlen(rec->address), ADDR_STRICT, NULL) == 0
               ? 0
               : ERR_FORMAT;
}
