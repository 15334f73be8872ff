/* Values of the namespaces: the first byte chooses one, the rest is the value. Any bytes give a record
 * or an error; a record that is written reads back as the same one. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "kademlia/records/dmsg_server.h"
#include "kademlia/records/fullnode.h"
#include "kademlia/records/ns.h"
#include "kademlia/records/svc.h"
#include "kademlia/records/tp_chunks.h"
#include "kademlia/records/visor_addr.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fullnode(const uint8_t *v, size_t n)
{
    struct fullnode_rec a, b;
    char text[FULLNODE_MAX_TEXT];
    size_t len;

    if (fullnode_decode(&a, v, n) != 0)
        return;
    assert(fullnode_encode(text, sizeof text, &len, &a) == 0);
    assert(fullnode_decode(&b, text, len) == 0 && memcmp(&a, &b, sizeof a) == 0);
}

static void dmsg_server(const uint8_t *v, size_t n)
{
    static struct dmsg_server_rec a, b;
    static char text[6 * DMSG_SERVER_MAX_TEXT]; /* every byte of an address may be escaped */
    size_t len;

    if (dmsg_server_decode(&a, v, n) != 0)
        return;
    assert(dmsg_server_encode(text, sizeof text, &len, &a) == 0);
    assert(dmsg_server_decode(&b, text, len) == 0 && a.n_peers == b.n_peers);
    assert(strcmp(a.address, b.address) == 0 && a.max_sessions == b.max_sessions);
}

static void visor_addr(const uint8_t *v, size_t n)
{
    static struct visor_addr a, b;
    static char text[VISOR_ADDR_MAX_TEXT];
    size_t len;

    if (visor_addr_decode(&a, v, n) != 0)
        return;
    assert(visor_addr_encode(text, sizeof text, &len, &a) == 0);
    assert(visor_addr_decode(&b, text, len) == 0 && a.n_addresses == b.n_addresses);
    assert(strcmp(a.port, b.port) == 0 && strcmp(a.remote_addr, b.remote_addr) == 0);
}

static void svc(const uint8_t *v, size_t n)
{
    struct svc_list a, b;
    char *text;
    size_t len;

    if (svc_decode(&a, v, n) != 0)
        return;
    if (svc_encode(&text, &len, a.e, a.n) == 0) {
        /* A list without keys has no addresses to read back. */
        if (svc_decode(&b, text, len) == 0) {
            assert(a.n == b.n);
            svc_list_free(&b);
        }
        free(text);
    }
    svc_list_free(&a);
}

static void tp(const uint8_t *v, size_t n)
{
    struct pubkey subject = {{2}};
    struct tp_join join = {.next = 0};
    struct tp_chunks chunks;
    bool more;

    if (tp_join_add(&join, &subject, v, n, &more) == 0 && tp_split(&chunks, &join.list, 2) == 0) {
        assert(chunks.n >= 2 && chunks.used >= 1);
        tp_chunks_free(&chunks);
    }
    tp_join_free(&join);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pubkey subject = {{2}};

    if (size == 0 || crypto_init() < 0)
        return 0;
    enum ns ns = (enum ns)(data[0] % NS__COUNT);
    const uint8_t *v = data + 1;
    size_t n = size - 1;
    const char *salt = ns_name(ns);
    bool dead = ns_is_tombstone(salt, strlen(salt), v, n);
    int rc = ns_check(&subject, salt, strlen(salt), v, n, 0);
    assert(!dead || rc != 0);
    fullnode(v, n);
    dmsg_server(v, n);
    visor_addr(v, n);
    svc(v, n);
    tp(v, n);
    return 0;
}
