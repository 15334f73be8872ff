#include "compat-http/disc_text.h"

#include <string.h>

#include "base/err.h"

#define INVALID "entry validation error: "

static const struct {
    unsigned status;
    int err;
    const char *message;
} rows[DISC_TEXT__COUNT] = {
    [DISC_WROTE_NEW] = {200, 0, "wrote a new entry"},
    [DISC_WROTE_NEXT] = {200, 0, "wrote new entry iteration"},
    [DISC_DELETED] = {200, 0, "deleted entry"},
    [DISC_BAD_INPUT] = {400, ERR_FORMAT, "error bad input"},
    [DISC_BAD_SIGNATURE] = {401, ERR_SIG, "invalid signature"},
    [DISC_NO_ENTRY] = {404, ERR_NOT_FOUND, "entry of public key is not found"},
    [DISC_NO_SERVERS] = {404, ERR_NOT_FOUND, "no delegated dmsg servers available for remote"},
    [DISC_TOO_LARGE] = {413, ERR_TOO_LONG, "Request Entity Too Large"},
    [DISC_NO_VERSION] = {422, ERR_REFUSED, INVALID "entry has no version"},
    [DISC_NO_SIGNATURE] = {422, ERR_REFUSED, INVALID "entry has no signature"},
    [DISC_NO_KEY] = {422, ERR_REFUSED, INVALID "entry Keys is nil"},
    [DISC_NO_HALF] = {422, ERR_REFUSED, INVALID "entry has neither client or server field"},
    [DISC_NO_ADDRESS] = {422, ERR_REFUSED, INVALID "server address cannot be empty"},
    [DISC_OUTDATED] = {422, ERR_REFUSED, INVALID "advertised entry has outdated timestamp"},
    [DISC_LOOPBACK] = {422, ERR_REFUSED,
                       INVALID
                       "advertising localhost listening address is not allowed in production mode"},
    [DISC_SEQUENCE] = {422, ERR_SEQ,
                       INVALID "sequence field of new entry is not sequence of old entry + 1"},
    [DISC_TIMESTAMP] = {422, ERR_SEQ,
                        INVALID "advertised entry timestamp is not greater than previous"},
    [DISC_NONZERO_SEQUENCE] = {422, ERR_REFUSED, INVALID "new entry has non-zero sequence"},
    [DISC_NIL_EPHEMERAL] = {422, ERR_REFUSED,
                            INVALID "entry of client instance has nil ephemeral keys"},
    [DISC_NON_NIL_EPHEMERAL] = {422, ERR_REFUSED,
                                INVALID
                                "entry of server instance has non nil Keys.Ephemerals field"},
    [DISC_BAD_MONITOR] = {401, ERR_REFUSED, "invalid network monitor key"},
    [DISC_UNEXPECTED] = {500, ERR_PROTOCOL, "something unexpected happened"},
};

unsigned disc_text_status(enum disc_text t)
{
    return rows[t].status;
}

const char *disc_text_message(enum disc_text t)
{
    return rows[t].message;
}

int disc_text_err(enum disc_text t)
{
    return rows[t].err;
}

enum disc_text disc_text_find(const char *message, size_t n)
{
    for (unsigned t = 0; t < DISC_TEXT__COUNT; t++)
        if (strlen(rows[t].message) == n && memcmp(rows[t].message, message, n) == 0)
            return (enum disc_text)t;
    return DISC_UNEXPECTED;
}
