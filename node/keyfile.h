/*
 * keyfile - the secret key of a node on disk.
 *
 * One line of 64 hex digits, or two lines as `kadmsg keys gen` prints them: public key, secret key
 * (the two must fit together). Written with mode 0600, never over an existing file. Reading: a file
 * that others can read is warned about; one that others can write or another user owns is refused
 * (ERR_UNSAFE). "-" reads standard input.
 */
#pragma once

#include "base/crypto.h"

int keyfile_read(struct seckey *sk, struct pubkey *pk, const char *path)
    __attribute__((warn_unused_result));
/* ERR_EXISTS when the file is there already. */
int keyfile_write(const char *path, const struct seckey *sk, const struct pubkey *pk)
    __attribute__((warn_unused_result));
/* Read it, or make a new key and write it. *made tells which. */
int keyfile_open(struct seckey *sk, struct pubkey *pk, const char *path, bool *made)
    __attribute__((warn_unused_result));
/* May an open file be trusted to hold a key? 0, ERR_UNSAFE, -errno; warns when others can read it. */
int keyfile_check(int fd, const char *path) __attribute__((warn_unused_result));
/* A key of the system's random source. */
void keyfile_fresh(struct seckey *sk, struct pubkey *pk);
