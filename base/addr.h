/*
 * addr - addresses as people and peers write them.
 *
 *     HOST:PORT        struct addr_hostport   TCP end point; IPv6 in brackets: [2001:db8::1]:8081
 *     PK@HOST:PORT     struct addr_peer       a server with its key
 *     PK:PORT          struct addr_dmsg       a dmsg end point (docs/protocol/dmsg.md §1.1
 * "Address")
 *
 * Parsing is strict: no blanks, no signs, no leading zeros in ports, no bare IPv6, no zone, keys
 * that are points of the curve. A host is an IPv4 address, an IPv6 address in brackets, or a DNS
 * name (labels of 1-63 letters, digits, '-' and '_', not starting or ending with '-', 253
 * characters in all); a name whose last label is a number must be an IPv4 address. IPv6 is kept in
 * its canonical form, everything else as written. Nothing is resolved here.
 *
 * Values, no allocation, any thread. Errors: ERR_FORMAT, or ERR_KEY for the key part; *why (if not
 * NULL) gets a static text for the user such as "port is not a number from 1 to 65535".
 *
 *     struct addr_peer peer;  const char *why;
 *     if (addr_peer_parse(&peer, text, strlen(text), &why) != 0)
 *         fprintf(stderr, "%s: %s\n", text, why);
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/crypto.h"

#define ADDR_HOST_MAX 253
#define ADDR_HOSTPORT_MAX                                                                          \
    (ADDR_HOST_MAX + 8) /* longest text, without NUL: brackets, colon, 5 digits */
#define ADDR_PEER_MAX (PUBKEY_HEX + 1 + ADDR_HOSTPORT_MAX)
#define ADDR_DMSG_MAX (PUBKEY_HEX + 1 + 5)

struct addr_hostport {
    char host[ADDR_HOST_MAX +
              1]; /* without brackets; an address with ':' inside is IPv6; "" = any */
    uint16_t port;
};

struct addr_peer {
    struct pubkey pk;
    struct addr_hostport at;
};

struct addr_dmsg {
    struct pubkey pk;
    uint16_t port;
};

enum addr_flags {
    ADDR_STRICT = 0,
    ADDR_PORT_0 = 1,   /* port 0 is allowed: any free one, for listeners */
    ADDR_ANY_HOST = 2, /* ":8081" is allowed: every address of this host, for listeners */
};

/* flags: enum addr_flags. n is the text's length. */
int addr_hostport_parse(struct addr_hostport *out, const char *text, size_t n, unsigned flags,
                        const char **why) __attribute__((warn_unused_result));
int addr_peer_parse(struct addr_peer *out, const char *text, size_t n, const char **why)
    __attribute__((warn_unused_result));

/* Both parts given, port 1 … 65535: for command lines. */
int addr_dmsg_parse(struct addr_dmsg *out, const char *text, size_t n, const char **why)
    __attribute__((warn_unused_result));

/*
 * The peers' rule for the same text: blanks around parts are trimmed, a missing, empty or "~" port
 * is 0, an empty key is the null key, leading zeros of the port do not matter. What the peers
 * refuse is refused: a third part, a bad key, a port over 65535.
 */
int addr_dmsg_from_text(struct addr_dmsg *out, const char *text, size_t n)
    __attribute__((warn_unused_result));

/* A port 1 … 65535 (0 … with ADDR_PORT_0) in decimal without leading zeros. */
int addr_port_parse(uint16_t *out, const char *text, size_t n, unsigned flags)
    __attribute__((warn_unused_result));

/* Text and a NUL; every parser here gives the same value back. All return out. */
char *addr_hostport_text(char out[ADDR_HOSTPORT_MAX + 1], const struct addr_hostport *a);
char *addr_peer_text(char out[ADDR_PEER_MAX + 1], const struct addr_peer *a);

/* As the peers print it: port 0 is "~" (addr_dmsg_from_text() reads that back). */
char *addr_dmsg_text(char out[ADDR_DMSG_MAX + 1], const struct addr_dmsg *a);
