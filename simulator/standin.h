/*
 * standin - signatures that cost nothing, for networks in memory.
 *
 * 32 bytes of a keyed hash of (public key, digest): nobody in the network can make one without the
 * seed, and changing a bit of item or key makes it bad, which is what the engine's rules are about.
 * Worthless against anybody who has the seed: for simulator and tests only.
 *
 *     standin_sign(&sig, seed, &pk, &digest);
 *     if (!standin_is_good(&sig, seed, &pk, &digest)) ...
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/crypto.h"

void standin_sign(struct sig *out, uint64_t seed, const struct pubkey *pk,
                  const struct hash *digest);
bool standin_is_good(const struct sig *sig, uint64_t seed, const struct pubkey *pk,
                     const struct hash *digest);
