/*
 * keylist - a file of public keys: one key a line, blanks around it, `#` begins a comment, empty
 * lines mean nothing.
 *
 * Read whole or not at all: a line that is no key is an error with its number, so that a slip of
 * the pen in a list of who may come in changes nothing. Limits: KEYLIST_MAX keys.
 */
#pragma once

#include "base/crypto.h"

#define KEYLIST_MAX 100000

struct keylist {
    struct pubkey *keys;
    size_t n;
};

/* 0, or an error with the reason (the file is named in it) in why. Freed by keylist_free(). */
int keylist_load(struct keylist *out, const char *path, char *why, size_t cap)
    __attribute__((warn_unused_result));
void keylist_free(struct keylist *l);
