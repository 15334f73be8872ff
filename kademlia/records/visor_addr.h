/*
 * visor_addr - under which addresses a visor accepts transports, salts "addr:stcpr" and
 * "addr:sudph" (docs/protocol/dht.md §4; the members of an answer of the address resolver,
 * services.md §7.1):
 *
 *     {"remote_addr":…,"remote_addr_v6":…,"is_local":true,"port":"30045","addresses":[…],
 *      "public_ip":…,"public_ip_v6":…,"cert_hash":…}
 *
 * All but remote_addr, port and addresses are left out when empty. The tombstone is `{}`: no port and
 * no address. The value names no key: its subject is whose slot it is in, so nothing in it can be
 * compared, and what it says is a claim of its signer (the visor, or a resolver's mirror).
 *
 * Values of fixed size, any thread. Limits: VISOR_ADDR_MAX_ADDRESSES addresses (more: ERR_TOO_LONG),
 * texts below. Errors: ERR_FORMAT, ERR_TOO_LONG, ERR_NOMEM.
 *
 *     struct visor_addr a;
 *     if (visor_addr_decode(&a, it->v, it->v_len) == 0 && visor_addr_check(&a) == 0)
 *         for (size_t i = 0; i < a.n_addresses; i++) dial(a.addresses[i], a.port);
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VISOR_ADDR_MAX_ADDRESSES 32
#define VISOR_ADDR_TEXT          63
#define VISOR_ADDR_MAX_TEXT      16384 /* longest encoded value, all escapes included */

struct visor_addr {
    char remote_addr[VISOR_ADDR_TEXT + 1]; /* stcpr: an IP address; sudph: ip:port */
    char remote_addr_v6[VISOR_ADDR_TEXT + 1];
    bool is_local;
    char port[6];
    bool addresses_null; /* the writer had no list at all: written as null */
    size_t n_addresses;
    char addresses[VISOR_ADDR_MAX_ADDRESSES][VISOR_ADDR_TEXT + 1];
    char public_ip[VISOR_ADDR_TEXT + 1];
    char public_ip_v6[VISOR_ADDR_TEXT + 1];
    char cert_hash[65];
};

int visor_addr_decode(struct visor_addr *out, const void *v, size_t n)
    __attribute__((warn_unused_result));
int visor_addr_encode(char *out, size_t cap, size_t *n, const struct visor_addr *a)
    __attribute__((warn_unused_result));
/* 0; ERR_NOT_FOUND: says nothing (tombstone); ERR_FORMAT: the port is no number from 1 to 65535, or
 * there is no address at all. */
int visor_addr_check(const struct visor_addr *a) __attribute__((warn_unused_result));
