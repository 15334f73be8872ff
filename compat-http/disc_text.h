/*
 * disc_text - what a dmsg discovery says: statuses and texts (docs/protocol/services.md §3.2, §3.3).
 *
 * The texts are protocol: clients map them back to errors, whatever the status is. One table for the service and for the client.
 *
 *     enum disc_text t = disc_text_find(message, n);
 *     status = disc_text_status(DISC_BAD_INPUT);
 */
#pragma once

#include <stddef.h>

enum disc_text {
    DISC_WROTE_NEW,
    DISC_WROTE_NEXT,
    DISC_DELETED,
    DISC_BAD_INPUT,
    DISC_BAD_SIGNATURE,
    DISC_NO_ENTRY,
    DISC_NO_SERVERS,
    DISC_TOO_LARGE,
    DISC_NO_VERSION,
    DISC_NO_SIGNATURE,
    DISC_NO_KEY,
    DISC_NO_HALF,
    DISC_NO_ADDRESS,
    DISC_OUTDATED,
    DISC_LOOPBACK,
    DISC_SEQUENCE,
    DISC_TIMESTAMP,
    DISC_NONZERO_SEQUENCE,
    DISC_NIL_EPHEMERAL,
    DISC_NON_NIL_EPHEMERAL,
    DISC_BAD_MONITOR,
    DISC_UNEXPECTED, /* and every text that is not known */
    DISC_TEXT__COUNT
};

/* HTTP status and message; the message is static. */
unsigned disc_text_status(enum disc_text t);
const char *disc_text_message(enum disc_text t);
/* 0 for the first three, else the error (base/err.h) it stands for. */
int disc_text_err(enum disc_text t);
/* The row of a message that a service sent. */
enum disc_text disc_text_find(const char *message, size_t n);
