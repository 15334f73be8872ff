/*
 * netrule - which networks a proxy may connect to.
 *
 * Rules are networks with a verdict; the longest prefix that contains the address decides, a given rule before a built-in one of the same length, deny before allow.
 * Built in: addresses that are not public (loopback, private, link-local, shared, documentation, multicast, reserved; RFC 6890 and its registries) are denied, unless
 * private_ok. No rule: allowed.
 *
 * An IPv6 address that carries an IPv4 address (mapped, compatible, NAT64, 6to4) must pass as that one too, else a rule could be walked around.
 *
 * A zeroed struct has the built-in rules only. Nothing is allocated; limit NETRULES. Any thread that does not change it.
 *
 *     rc = netrule_add(&r, "192.168.7.0/24", true, &why);
 *     if (!netrule_allows(&r, ip, 4)) …
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NETRULES 64

struct net_prefix {
    uint8_t ip[16];
    uint8_t ip_n; /* 4 or 16 */
    uint8_t bits;
    bool allow;
};

struct netrule {
    struct net_prefix v[NETRULES];
    size_t n;
    bool private_ok;
};

/* "10.0.0.0/8", "fd00::/8" or one address. Bits behind the prefix must be 0. ERR_FORMAT with the reason in *why, ERR_LIMIT. */
int netrule_add(struct netrule *r, const char *text, bool allow, const char **why)
    __attribute__((warn_unused_result));
/* ip_n 4 or 16. */
bool netrule_allows(const struct netrule *r, const uint8_t *ip, size_t ip_n);
