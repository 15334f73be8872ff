/*
 * whitelist - who may use a service: a set of public keys. An empty set lets everybody in.
 *
 * Keys are compared as keys, so upper-case digits make no difference and a part of a key never matches; what is no key is an error, never ignored (a list whose only key
 * was mistyped must not open the door).
 *
 * A zeroed struct is an empty set; whitelist_free() gives the memory back. One writer at a time. Limit: WHITELIST_MAX keys.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/crypto.h"

#define WHITELIST_MAX 100000

struct whitelist {
    struct pubkey *v; /* sorted, each once */
    size_t n;
    size_t room;
};

/* Add keys, separated by commas, blanks or line ends; there may be none. ERR_KEY (with what is wrong in *bad, a pointer into text; nothing of it is kept), ERR_LIMIT,
 * ERR_NOMEM. */
int whitelist_add(struct whitelist *w, const char *text, const char **bad)
    __attribute__((warn_unused_result));
bool whitelist_allows(const struct whitelist *w, const struct pubkey *pk);
void whitelist_free(struct whitelist *w);
