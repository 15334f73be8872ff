#include "node/ready.h"

#include "kademlia/id.h"
#include "node/tool.h"

json_t *ready_json(const struct pubkey *pk)
{
    char id_hex[KAD_ID_HEX + 1], pk_hex[PUBKEY_HEX + 1];
    struct kad_id id = kad_id_of(pk);
    return json_pack("{s:s, s:s, s:s, s:n, s:n, s:n}", "event", "ready", "public_key",
                     pubkey_hex(pk_hex, pk), "node_id", kad_id_hex(id_hex, &id), "relay", "http",
                     "control");
}

void ready_print(const struct pubkey *pk, uint16_t port)
{
    json_t *line = ready_json(pk);
    json_object_set_new(line, "port", json_integer(port));
    tool_print(line);
}
