/*
 * ns - the namespaces of the DHT: which salt means what, whether a value says what it may say, and
 * what deletes it (docs/protocol/dht.md §4).
 *
 *     salt                   subject's value            record      deleted by
 *     dmsg                   a signed entry             transport/entry.h  {}
 *     tp, tp:1, tp:2, …      transports of a visor      tp.h, tp_chunks.h  [] or null; of chunk 0
 *                                                       that means "none at present"
 *     svc, svc:<type>        services of a visor        svc.h       [] null {}
 *     addr:stcpr, addr:sudph addresses of a visor       visor_addr.h       {}
 *     fullnode               advert of a full node      fullnode.h  {}
 *     dmsg-server            where a relay is           dmsg_server.h      {}
 *
 * Every other salt is opaque: any bytes are a value, and nothing deletes it but another value.
 * Salts are matched as exact bytes.
 *
 * The store takes any bytes under any salt from their owner, as the peers do: what is checked here is
 * for readers and for writers. Whoever decodes a value also asks ns_check(), which compares the
 * subject with the slot's key and, under salt "dmsg", verifies the signature inside.
 *
 * Pure, any thread; ns_check() does one public-key operation for an entry.
 *
 *     if (ns_check(&subject, it->salt, it->salt_len, it->v, it->v_len, wall_ns) != 0)
 *         ignore it;
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/crypto.h"

enum ns {
    NS_OPAQUE,
    NS_DMSG,
    NS_TP,
    NS_SVC,
    NS_ADDR_STCPR,
    NS_ADDR_SUDPH,
    NS_FULLNODE,
    NS_DMSG_SERVER,
    NS__COUNT
};

enum ns ns_of(const void *salt, size_t n);
/* The salt, of chunk 0 and of the list where there are several; "" for NS_OPAQUE. What
 * configuration calls the namespace, too. */
const char *ns_name(enum ns ns);
/* By that name; NS__COUNT when there is none of it. "opaque" is NS_OPAQUE. */
enum ns ns_by_name(const char *name, size_t n);

/* Does this value say that there is nothing any more? */
bool ns_is_tombstone(const void *salt, size_t salt_len, const void *v, size_t n);

/* The value that deletes what is under this salt: "{}" or "[]"; "" under an opaque one, where there
 * is none and an empty value is as good as any. */
const char *ns_tombstone(const void *salt, size_t salt_len);

/* Is the value what its salt promises, about this key? 0; ERR_NOT_FOUND: a tombstone; ERR_FORMAT;
 * ERR_REFUSED: it speaks of another key; ERR_SIG: the signature inside is missing or wrong;
 * ERR_TIMEOUT: an advert that is not of now; ERR_TOO_LONG; ERR_NOMEM. */
int ns_check(const struct pubkey *subject, const void *salt, size_t salt_len, const void *v,
             size_t n, int64_t wall_ns) __attribute__((warn_unused_result));
