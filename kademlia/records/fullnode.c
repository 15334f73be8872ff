#include "kademlia/records/fullnode.h"

#include <string.h>

#include "base/err.h"
#include "kademlia/json_read.h"

static void read_members(struct json_in *j, struct json_scratch *s, void *rec)
{
    struct fullnode_rec *out = rec;
    static const char *const names[] = {"pk", "stored_items", "full_node", "ts"};

    while (json_in_member(j)) {
        switch (json_in_name_find(j, names, 4)) {
        case 0:
            json_read_pubkey(j, s, &out->pk);
            break;
        case 1:
            json_in_u64(j, &out->stored_items);
            break;
        case 2:
            json_in_bool(j, &out->full_node);
            break;
        case 3:
            json_in_i64(j, &out->ts);
            break;
        default:
            json_in_skip(j);
        }
    }
}

int fullnode_decode(struct fullnode_rec *out, const void *v, size_t n)
{
    return json_read_record(out, sizeof *out, v, n, read_members);
}

int fullnode_encode(char *out, size_t cap, size_t *n, const struct fullnode_rec *rec)
{
    struct json_out o;

    json_out_fixed(&o, JSON_STD, out, cap);
    json_out_object(&o);
    json_out_name(&o, "pk");
    json_out_hex(&o, rec->pk.b, PUBKEY_BYTES);
    json_out_name(&o, "stored_items");
    json_out_u64(&o, rec->stored_items);
    json_out_name(&o, "full_node");
    json_out_bool(&o, rec->full_node);
    json_out_name(&o, "ts");
    json_out_i64(&o, rec->ts);
    json_out_object_end(&o);
    *n = o.err == 0 ? o.len : 0;
    return o.err;
}

int fullnode_check(const struct fullnode_rec *rec, const struct pubkey *subject, int64_t wall_ns)
{
    if (!rec->full_node)
        return ERR_NOT_FOUND;
    if (!pubkey_equal(&rec->pk, subject))
        return ERR_REFUSED;
    int64_t low = wall_ns - FULLNODE_FRESH_NS, high = wall_ns + FULLNODE_FRESH_NS;
    return rec->ts >= low && rec->ts <= high ? 0 : ERR_TIMEOUT;
}
