#include "node/ready.h"

#include "kademlia/id.h"
#include "node/tool.h"

void ready_print(const struct pubkey *pk, uint16_t port)
{
    char id_hex[KAD_ID_HEX + 1], pk_hex[PUBKEY_HEX + 1];
    struct kad_id id = kad_id_of(pk);
    tool_print(json_pack("{s:s, s:s, s:s, s:n, s:n, s:n, s:i}", "event", "ready", "public_key",
                         pubkey_hex(pk_hex, pk), "node_id", kad_id_hex(id_hex, &id), "relay",
                         "http", "control", "port", (int)port));
}
