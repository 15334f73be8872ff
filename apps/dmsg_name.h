/*
 * dmsg_name - host names that lead into the network (docs/protocol/apps.md §2.2):
 *
 *     [virtual.host.][server key.…]destination.dmsg        destination and server key: 66 hex digits, 53 characters of base32, or a local alias
 *
 * Letters of any case, a dot at the end is allowed: resolvers and browsers change both. Of several server keys the one next to the destination counts. Everything left of
 * the first label that is no key is the virtual host.
 *
 * Pure, nothing allocates, any thread that does not change the aliases.
 *
 *     rc = dmsg_name_parse(&name, &aliases, ".dmsg", host, strlen(host), &why);
 *     if (rc == ERR_NOT_FOUND) …   // an ordinary name of the internet
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/crypto.h"

#define DMSG_NAME_MAX   255
#define DMSG_BASE32     53
#define DMSG_ALIASES    256
#define DMSG_SUFFIX_MAX 63

struct dmsg_name {
    struct pubkey pk;
    bool has_via;
    struct pubkey via;             /* the server to go through */
    char vhost[DMSG_NAME_MAX + 1]; /* "" = none */
};

struct dmsg_alias {
    char label[64];
    struct pubkey pk;
};

struct dmsg_aliases {
    struct dmsg_alias v[DMSG_ALIASES];
    size_t n;
};

/* "name=PK": the name is a label of letters, digits and '-' that is no key itself; PK in hex or base32. ERR_FORMAT, ERR_KEY, ERR_EXISTS, ERR_LIMIT. */
int dmsg_alias_add(struct dmsg_aliases *a, const char *text) __attribute__((warn_unused_result));

/* A suffix: '.' and labels. */
bool dmsg_suffix_ok(const char *suffix);

/* 0; ERR_NOT_FOUND: the host does not end in the suffix; ERR_KEY, ERR_FORMAT, ERR_TOO_LONG: it does, and *why (static) is wrong with the rest. aliases may be NULL. */
int dmsg_name_parse(struct dmsg_name *out, const struct dmsg_aliases *aliases, const char *suffix,
                    const char *host, size_t n, const char **why)
    __attribute__((warn_unused_result));

/* A key as a label of 53 characters, and a NUL. Returns out. */
char *dmsg_base32(char out[DMSG_BASE32 + 1], const struct pubkey *pk);
