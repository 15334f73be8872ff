/*
 * socks - SOCKS5 (RFC 1928) without sockets: the server's side, and the little of the client's side that an upstream proxy needs.
 *
 * Server: no authentication, CONNECT only, addresses of type 01, 03 and 04 (docs/protocol/apps.md §2.3, §2.5). Bytes go in as they come, in pieces of any size; exactly the
 * conversation's bytes are used, so that data sent right behind the request stays for the destination.
 *
 *      GREETING ──► REQUEST ──► WAIT ──socks_reply(OK)──► OPEN
 *          │           │          └──socks_reply(else)──► END
 *          └───────────┴── not SOCKS5, no method for us, other command, …──► END
 *
 * Strict: another version byte ends without an answer; no method 00 is answered FF; another command 07, another address type 08, a reserved byte that is not 0 or port 0
 * with 01, a name with anything but printable ASCII with 04. A name that is an address in text form becomes that address, so that rules for addresses hold for it.
 *
 * What is to be sent lies in out[0 … out_n): the owner sends it and sets out_n to 0. Values, no allocation, any thread.
 *
 *     socks_init(&s);
 *     switch (socks_input(&s, p, n, &used)) { … case SOCKS_WAIT: dial(&s.dest); }
 *     socks_reply(&s, SOCKS_OK, NULL, 0, 0);
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SOCKS_NAME_MAX 255
#define SOCKS_IN_MAX   262 /* the longest message, a request with a name of 255 bytes */
#define SOCKS_OUT_MAX  24  /* a method answer, or a reply with an IPv6 address */

/* Replies, RFC 1928 §6. */
enum socks_code {
    SOCKS_OK = 0,
    SOCKS_FAILURE = 1,
    SOCKS_NOT_ALLOWED = 2,
    SOCKS_NET_UNREACHABLE = 3,
    SOCKS_HOST_UNREACHABLE = 4,
    SOCKS_REFUSED = 5,
    SOCKS_TTL = 6,
    SOCKS_NO_COMMAND = 7,
    SOCKS_NO_ADDRESS_TYPE = 8,
};

enum socks_state {
    SOCKS_GREETING, /* more bytes are needed */
    SOCKS_REQUEST,  /* more bytes are needed */
    SOCKS_WAIT,     /* dest is complete, socks_reply() is due */
    SOCKS_OPEN,     /* everything from now on is data */
    SOCKS_END,      /* send what is in out, then close */
};

struct socks_dest {
    char host[SOCKS_NAME_MAX + 1]; /* as asked; addresses in text form */
    uint8_t ip[16];
    size_t ip_n; /* 4, 16, or 0: it is a name */
    uint16_t port;
};

struct socks {
    enum socks_state state;
    struct socks_dest dest;
    const char *why; /* in SOCKS_END: what was wrong with the input; NULL otherwise */
    uint8_t out[SOCKS_OUT_MAX];
    size_t out_n;
    uint8_t in[SOCKS_IN_MAX];
    size_t in_n;
};

void socks_init(struct socks *s);

/* Take bytes; *used <= n of them belong to the conversation (fewer only in WAIT and END). Returns the state. In WAIT, OPEN and END nothing is used. */
enum socks_state socks_input(struct socks *s, const uint8_t *p, size_t n, size_t *used);

/* The answer in WAIT; puts the reply behind out. ip (ip_n 4, 16, or 0 = 0.0.0.0) and port are what we are bound to; only sent with SOCKS_OK. */
void socks_reply(struct socks *s, enum socks_code code, const uint8_t *ip, size_t ip_n,
                 uint16_t port);

/* Reply code for an error of base/err.h: timed out is 6, refused 5, no such host or no route 4 (network unreachable 3), own limits 1, else 4. */
enum socks_code socks_code_of(int err);
/* The other way round, for upstream proxies: 0, or an error whose socks_code_of() is the code. */
int socks_err_of(unsigned code);

/* Fill in dest from a host in text form (a name or an address, no brackets) of n bytes. ERR_FORMAT, ERR_TOO_LONG. */
int socks_dest_set(struct socks_dest *d, const char *host, size_t n, uint16_t port);

/* ---- client ---- */

struct socks_ask {
    const struct socks_dest *dest; /* must live until the end */
    uint8_t out[3 + SOCKS_IN_MAX]; /* as in struct socks */
    size_t out_n;
    uint8_t in[SOCKS_IN_MAX];
    size_t in_n;
    bool chosen; /* the method */
};

/* The greeting is in out then. */
void socks_ask_init(struct socks_ask *a, const struct socks_dest *dest);
/* Take bytes of the proxy; *used as above. 0: it is connected; ERR_PENDING: go on; ERR_PROTOCOL, or the proxy's reason (socks_err_of()). */
int socks_ask_input(struct socks_ask *a, const uint8_t *p, size_t n, size_t *used);
