/* Any text as every kind of address: what is accepted prints in a form that reads back as the same
 * value. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/addr.h"
#include "base/err.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    if (crypto_init() != 0)
        abort();
    return 0;
}

static void try_hostport(const char *p, size_t n, unsigned flags)
{
    struct addr_hostport a, b;
    char text[ADDR_HOSTPORT_MAX + 1];
    const char *why = NULL;
    if (addr_hostport_parse(&a, p, n, flags, &why) != 0) {
        assert(why != NULL);
        return;
    }
    addr_hostport_text(text, &a);
    int rc = addr_hostport_parse(&b, text, strlen(text), flags, NULL);
    assert(rc == 0 && a.port == b.port && strcmp(a.host, b.host) == 0);
}

static void try_peer(const char *p, size_t n)
{
    struct addr_peer a, b;
    char text[ADDR_PEER_MAX + 1];
    const char *why = NULL;
    if (addr_peer_parse(&a, p, n, &why) != 0) {
        assert(why != NULL);
        return;
    }
    addr_peer_text(text, &a);
    int rc = addr_peer_parse(&b, text, strlen(text), NULL);
    assert(rc == 0 && pubkey_equal(&a.pk, &b.pk) && strcmp(a.at.host, b.at.host) == 0);
}

static void try_dmsg(const char *p, size_t n)
{
    struct addr_dmsg strict, a, b;
    char text[ADDR_DMSG_MAX + 1];
    const char *why = NULL;
    int rc = addr_dmsg_parse(&strict, p, n, &why);
    assert(rc == 0 || why != NULL);
    if (addr_dmsg_from_text(&a, p, n) != 0) {
        assert(rc != 0); /* the strict form is part of the peers' */
        return;
    }
    assert(rc != 0 || (strict.port == a.port && pubkey_equal(&strict.pk, &a.pk)));
    if (pubkey_is_null(&a.pk))
        return;
    addr_dmsg_text(text, &a);
    rc = addr_dmsg_from_text(&b, text, strlen(text));
    assert(rc == 0 && a.port == b.port && pubkey_equal(&a.pk, &b.pk));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *p = (const char *)data;
    for (unsigned flags = 0; flags < 4; flags++)
        try_hostport(p, size, flags);
    try_peer(p, size);
    try_dmsg(p, size);
    return 0;
}
