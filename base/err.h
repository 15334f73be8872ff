/*
 * err - one table of everything that can go wrong.
 *
 * Every function that can fail returns 0 or a negative `enum err`. Three ranges share the int:
 *
 *     0                  success
 *     -1 … -999          -errno of the operating system (err_sys() makes one from errno)
 *     -1000 … -1999      conditions of kadmsg (ERR_FORMAT …), counted upwards from -1999
 *     -2000-c            an error that dmsg peers send as the 16-bit code c
 *                        (docs/protocol/dmsg.md §4.6)
 *
 * ERR_PENDING and ERR_AGAIN are not failures: the first says that the answer comes later (env.h),
 * the second that nothing could be moved now. Texts are static, lower case, without the name of the
 * thing that failed: the caller adds key, address or path. No function here allocates; all may be
 * called from any thread.
 *
 *     int rc = session_input(s, in, now_ns);
 *     if (rc < 0)
 *         log_info(LOG_RELAY, "session closed peer=%s reason=\"%s\"", name, err_str(rc));
 */
#pragma once

enum err {
    ERR_OK = 0,
    ERR_FORMAT = -1999, /* bytes that do not follow the format */
    ERR_SHORT,          /* input ends before the object does */
    ERR_TOO_LONG,       /* a length above its limit */
    ERR_KEY,            /* not a key: wrong length, not on the curve, zero */
    ERR_SIG,            /* signature does not verify */
    ERR_TAG,            /* AEAD tag is wrong */
    ERR_NONCE,          /* counter repeated, too old or going back */
    ERR_PENDING,        /* not yet: the answer comes by callback or event */
    ERR_AGAIN,          /* nothing can be moved now; an event says when */
    ERR_BUSY,           /* bounded queue is full, the request was dropped */
    ERR_LIMIT,          /* a cap is reached */
    ERR_NOMEM,          /* allocation failed or buffer budget is used up */
    ERR_CLOSED,         /* the object was closed by this side */
    ERR_EOF,            /* orderly end by the peer */
    ERR_RESET,          /* reset by the peer */
    ERR_TIMEOUT,        /* deadline passed */
    ERR_CANCELLED,      /* given up by the caller */
    ERR_NOT_FOUND,      /* no such thing */
    ERR_EXISTS,         /* there already */
    ERR_REFUSED,        /* refused by the peer or by policy */
    ERR_STATE,          /* not possible in the present state */
    ERR_SEQ,            /* sequence number does not increase */
    ERR_QUOTA,          /* publisher's quota is used up */
    ERR_NO_SPACE,       /* store or disk is full */
    ERR_NO_ROUTE,       /* no server and no peer leads there */
    ERR_VERSION,        /* made by another version of the program */
    ERR_CORRUPT,        /* stored bytes are damaged */
    ERR_UNSAFE,         /* permissions or owner make the file unsafe */
    ERR_USAGE,          /* wrong command line */
    ERR_UNSUPPORTED,    /* the peer or this build does not speak it */
    ERR_SHUTDOWN,       /* the program is stopping */
    ERR_PROTOCOL,       /* the peer broke the protocol */
    ERR_TWIN,           /* another instance uses this key */
    ERR_NETWORK,        /* the peer belongs to another network (--network) */
    ERR_QUOTA_GROUP,    /* quota of the publisher's relays is used up */
    ERR__END,           /* one past the last, for the table's check */

    ERR_DMSG_BASE = -2000,
    ERR_DMSG_ENTRY_NOT_FOUND = ERR_DMSG_BASE - 100,
    ERR_DMSG_NOT_SERVER = ERR_DMSG_BASE - 101,
    ERR_DMSG_NOT_CLIENT = ERR_DMSG_BASE - 102,
    ERR_DMSG_NO_DELEGATED = ERR_DMSG_BASE - 103,
    ERR_DMSG_ENTITY_CLOSED = ERR_DMSG_BASE - 200,
    ERR_DMSG_SESSION_CLOSED = ERR_DMSG_BASE - 201,
    ERR_DMSG_CANNOT_CONNECT = ERR_DMSG_BASE - 202,
    ERR_DMSG_EXTRA_BYTES = ERR_DMSG_BASE - 203,
    ERR_DMSG_REQ_SIG = ERR_DMSG_BASE - 300,
    ERR_DMSG_REQ_TIME = ERR_DMSG_BASE - 301,
    ERR_DMSG_REQ_SRC_PK = ERR_DMSG_BASE - 302,
    ERR_DMSG_REQ_DST_PK = ERR_DMSG_BASE - 303,
    ERR_DMSG_REQ_SRC_PORT = ERR_DMSG_BASE - 304,
    ERR_DMSG_REQ_DST_PORT = ERR_DMSG_BASE - 305,
    ERR_DMSG_NO_LISTENER = ERR_DMSG_BASE - 306,
    ERR_DMSG_NO_NEXT_SESSION = ERR_DMSG_BASE - 307,
    ERR_DMSG_PEER_CAPACITY = ERR_DMSG_BASE - 308,
    ERR_DMSG_RSP_SIG = ERR_DMSG_BASE - 350,
    ERR_DMSG_RSP_HASH = ERR_DMSG_BASE - 351,
    ERR_DMSG_RSP_REJECTED = ERR_DMSG_BASE - 352,
    ERR_DMSG_OBJECT = ERR_DMSG_BASE - 370,
    ERR_DMSG_PORT_OCCUPIED = ERR_DMSG_BASE - 400,
    ERR_DMSG_ACCEPT_FULL = ERR_DMSG_BASE - 401,
};

/* Text of a code of any of the three ranges; never NULL. For dmsg codes the peers' text, see
 * err_dmsg_text(). */
const char *err_str(int err);

/* -errno of the last failed system call, or ERR_NOMEM for ENOMEM and ERR_NO_SPACE for
 * ENOSPC/EDQUOT. */
int err_sys(void);

/* The same for a value that is already at hand (errnum > 0). */
int err_from_errno(int errnum);

/* Wire code (100 … 401) of a dmsg error, or 0 when err is not one of the table's. */
unsigned err_dmsg_code(int err);

/* Error for a wire code; an unknown code gives ERR_DMSG_RSP_REJECTED as 2023 peers do
 * (docs/protocol/dmsg.md §4.6). */
int err_from_dmsg_code(unsigned code);

/* The peers' exact text "dmsg error <code> - <text>"; NULL when err is not a dmsg error. */
const char *err_dmsg_text(int err);

/* Exit code of the command-line contract for an error: 0 done, 1 failed, 2 usage, 3 not found, 4
 * refused, 5 timed out, 6 no route. */
int err_exit_code(int err);
