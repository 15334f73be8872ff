#include "base/err.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#define LOCAL(code, text) [ERR_##code - ERR_FORMAT] = (text)

static const char *const local_text[ERR__END - ERR_FORMAT] = {
    LOCAL(FORMAT, "malformed"),
    LOCAL(SHORT, "truncated"),
    LOCAL(TOO_LONG, "too long"),
    LOCAL(KEY, "invalid key"),
    LOCAL(SIG, "signature does not verify"),
    LOCAL(TAG, "authentication tag is wrong"),
    LOCAL(NONCE, "nonce repeated or out of order"),
    LOCAL(PENDING, "not finished yet"),
    LOCAL(AGAIN, "nothing can be moved now"),
    LOCAL(BUSY, "busy, the request was dropped"),
    LOCAL(LIMIT, "limit reached"),
    LOCAL(NOMEM, "out of memory or buffers"),
    LOCAL(CLOSED, "closed"),
    LOCAL(EOF, "ended by the peer"),
    LOCAL(RESET, "reset by the peer"),
    LOCAL(TIMEOUT, "timed out"),
    LOCAL(CANCELLED, "cancelled"),
    LOCAL(NOT_FOUND, "not found"),
    LOCAL(EXISTS, "exists already"),
    LOCAL(REFUSED, "refused"),
    LOCAL(STATE, "not possible in this state"),
    LOCAL(SEQ, "sequence number does not increase"),
    LOCAL(QUOTA, "quota of the publisher is used up"),
    LOCAL(NO_SPACE, "no space left"),
    LOCAL(NO_ROUTE, "no route to the peer"),
    LOCAL(VERSION, "made by another version"),
    LOCAL(CORRUPT, "stored data is damaged"),
    LOCAL(UNSAFE, "unsafe owner or permissions"),
    LOCAL(USAGE, "wrong usage"),
    LOCAL(UNSUPPORTED, "not supported"),
    LOCAL(SHUTDOWN, "shutting down"),
    LOCAL(PROTOCOL, "protocol violation by the peer"),
    LOCAL(TWIN, "another instance uses this key"),
    LOCAL(NETWORK, "the peer belongs to another network"),
    LOCAL(QUOTA_GROUP, "quota of the publisher's relays is used up"),
};

_Static_assert(ERR__END <= -1000, "conditions of kadmsg leave their range");

struct dmsg_error {
    unsigned code;
    const char
        *text; /* as the peers print it; a part of their interface (docs/protocol/dmsg.md §4.6) */
};

#define DMSG(code, text)                                                                           \
    {                                                                                              \
        code, "dmsg error " #code " - " text                                                       \
    }

static const struct dmsg_error dmsg_table[] = {
    DMSG(100, "entry is not found in discovery"),
    DMSG(101, "entry is not of server in discovery"),
    DMSG(102, "entry is not of client in discovery"),
    DMSG(103, "client entry in discovery has no delegated servers"),
    DMSG(200, "local entity closed"),
    DMSG(201, "local session closed"),
    DMSG(202, "cannot connect to delegated server"),
    DMSG(203, "extra bytes received during session handshake"),
    DMSG(300, "request has invalid signature"),
    DMSG(301, "request timestamp should be higher than last"),
    DMSG(302, "request has invalid source public key"),
    DMSG(303, "request has invalid destination public key"),
    DMSG(304, "request has invalid source port"),
    DMSG(305, "request has invalid destination port"),
    DMSG(306, "request has no associated listener"),
    DMSG(307, "request cannot be forwarded because the next session is non-existent"),
    DMSG(308, "server is at its peer-relay stream capacity"),
    DMSG(350, "response has invalid signature"),
    DMSG(351, "response has invalid hash of associated request"),
    DMSG(352, "response rejected associated request without reason"),
    DMSG(370, "signed object is invalid"),
    DMSG(400, "port already occupied"),
    DMSG(401, "listener accept chan maxed"),
};

static const struct dmsg_error *dmsg_find(unsigned code)
{
    for (size_t i = 0; i < sizeof dmsg_table / sizeof dmsg_table[0]; i++) {
        if (dmsg_table[i].code == code)
            return &dmsg_table[i];
    }
    return NULL;
}

static const struct dmsg_error *dmsg_find_err(int err)
{
    return err <= ERR_DMSG_BASE ? dmsg_find((unsigned)ERR_DMSG_BASE - (unsigned)err) : NULL;
}

const char *err_str(int err)
{
    const char *text = NULL;
    if (err == 0)
        return "success";
    if (err >= ERR_FORMAT && err < ERR__END)
        text = local_text[err - ERR_FORMAT];
    else if (err < 0 && err > -1000)
        text = strerrordesc_np(-err);
    else
        text = err_dmsg_text(err);
    return text != NULL ? text : "unknown error";
}

int err_from_errno(int errnum)
{
    switch (errnum) {
    case ENOMEM:
        return ERR_NOMEM;
    case ENOSPC:
    case EDQUOT:
        return ERR_NO_SPACE;
    default:
        return -errnum;
    }
}

int err_sys(void)
{
    return err_from_errno(errno);
}

unsigned err_dmsg_code(int err)
{
    const struct dmsg_error *e = dmsg_find_err(err);
    return e != NULL ? e->code : 0;
}

int err_from_dmsg_code(unsigned code)
{
    return dmsg_find(code) != NULL ? ERR_DMSG_BASE - (int)code : ERR_DMSG_RSP_REJECTED;
}

const char *err_dmsg_text(int err)
{
    const struct dmsg_error *e = dmsg_find_err(err);
    return e != NULL ? e->text : NULL;
}

int err_exit_code(int err)
{
    switch (err) {
    case 0:
        return 0;
    case ERR_USAGE:
        return 2;
    case ERR_NOT_FOUND:
    case ERR_DMSG_ENTRY_NOT_FOUND:
    case ERR_DMSG_NOT_SERVER:
    case ERR_DMSG_NOT_CLIENT:
        return 3;
    case ERR_REFUSED:
    case ERR_SEQ:
    case ERR_QUOTA:
    case ERR_QUOTA_GROUP:
    case ERR_NETWORK:
    case ERR_DMSG_REQ_SIG:
    case ERR_DMSG_REQ_TIME:
    case ERR_DMSG_REQ_SRC_PK:
    case ERR_DMSG_REQ_DST_PK:
    case ERR_DMSG_REQ_SRC_PORT:
    case ERR_DMSG_REQ_DST_PORT:
    case ERR_DMSG_NO_LISTENER:
    case ERR_DMSG_PEER_CAPACITY:
    case ERR_DMSG_RSP_REJECTED:
    case ERR_DMSG_ACCEPT_FULL:
        return 4;
    case ERR_TIMEOUT:
    case -ETIMEDOUT:
        return 5;
    case ERR_NO_ROUTE:
    case ERR_DMSG_NO_DELEGATED:
    case ERR_DMSG_CANNOT_CONNECT:
    case ERR_DMSG_NO_NEXT_SESSION:
    case -ENETUNREACH:
    case -EHOSTUNREACH:
        return 6;
    default:
        return 1;
    }
}
