#include "apps/socks.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/err.h"

#define VERSION     5
#define NO_AUTH     0x00
#define NO_METHOD   0xff
#define CMD_CONNECT 1
#define TYPE_IP4    1
#define TYPE_NAME   3
#define TYPE_IP6    4

/* Take bytes until `want` are there; true when they are. */
static bool fill(uint8_t *in, size_t *in_n, size_t want, const uint8_t **p, size_t *n)
{
    if (*in_n < want) {
        size_t take = want - *in_n < *n ? want - *in_n : *n;
        if (take > 0)
            memcpy(in + *in_n, *p, take);
        *in_n += take;
        *p += take;
        *n -= take;
    }
    return *in_n >= want;
}

/* Length of a request or reply as far as can be known: from 5 bytes on it is final. 0: no such address type. */
static size_t message_len(const uint8_t *in)
{
    switch (in[3]) {
    case TYPE_IP4:
        return 4 + 4 + 2;
    case TYPE_NAME:
        return 4 + 1 + (size_t)in[4] + 2;
    case TYPE_IP6:
        return 4 + 16 + 2;
    }
    return 0;
}

void socks_init(struct socks *s)
{
    memset(s, 0, sizeof(*s));
}

static enum socks_state end(struct socks *s, const char *why)
{
    s->why = why;
    return s->state = SOCKS_END;
}

/* ---- destinations ---- */

/* Text and binary form of an address agree; IPv4 inside IPv6 is IPv4. */
static void dest_ip(struct socks_dest *d, const uint8_t *ip, size_t n)
{
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    if (n == 16 && memcmp(ip, mapped, sizeof(mapped)) == 0) {
        ip += 12;
        n = 4;
    }
    memcpy(d->ip, ip, n);
    d->ip_n = n;
    inet_ntop(n == 4 ? AF_INET : AF_INET6, d->ip, d->host, sizeof(d->host));
}

int socks_dest_set(struct socks_dest *d, const char *host, size_t n, uint16_t port)
{
    uint8_t ip[16];
    if (n > SOCKS_NAME_MAX)
        return ERR_TOO_LONG;
    if (n == 0)
        return ERR_FORMAT;
    for (size_t i = 0; i < n; i++) {
        if (host[i] < 0x21 || host[i] > 0x7e)
            return ERR_FORMAT;
    }
    memset(d, 0, sizeof(*d));
    memcpy(d->host, host, n);
    d->port = port;
    if (inet_pton(AF_INET, d->host, ip) == 1)
        dest_ip(d, ip, 4);
    else if (inet_pton(AF_INET6, d->host, ip) == 1)
        dest_ip(d, ip, 16);
    return 0;
}

/* The destination of the whole request in s->in. */
static int dest_read(struct socks *s, size_t len)
{
    const uint8_t *at = s->in + 4;
    uint16_t port = (uint16_t)(s->in[len - 2] << 8 | s->in[len - 1]);
    if (s->in[3] == TYPE_NAME)
        return socks_dest_set(&s->dest, (const char *)at + 1, at[0], port);
    s->dest.port = port;
    dest_ip(&s->dest, at, len - 6);
    return 0;
}

/* ---- server ---- */

static enum socks_state greeting(struct socks *s, const uint8_t **p, size_t *n)
{
    if (!fill(s->in, &s->in_n, 1, p, n))
        return s->state;
    if (s->in[0] != VERSION)
        return end(s, "not SOCKS5");
    if (!fill(s->in, &s->in_n, 2, p, n) || !fill(s->in, &s->in_n, 2 + (size_t)s->in[1], p, n))
        return s->state;
    bool ours = memchr(s->in + 2, NO_AUTH, s->in[1]) != NULL;
    s->in_n = 0;
    s->out[s->out_n++] = VERSION;
    s->out[s->out_n++] = ours ? NO_AUTH : NO_METHOD;
    return ours ? (s->state = SOCKS_REQUEST) : end(s, "no method without authentication offered");
}

static enum socks_state refuse(struct socks *s, enum socks_code code, const char *why)
{
    socks_reply(s, code, NULL, 0, 0);
    return end(s, why);
}

static enum socks_state request(struct socks *s, const uint8_t **p, size_t *n)
{
    if (!fill(s->in, &s->in_n, 1, p, n))
        return s->state;
    if (s->in[0] != VERSION)
        return end(s, "not SOCKS5");
    if (!fill(s->in, &s->in_n, 4, p, n))
        return s->state;
    if (s->in[2] != 0)
        return refuse(s, SOCKS_FAILURE, "reserved byte is not 0");
    if (s->in[3] != TYPE_IP4 && s->in[3] != TYPE_NAME && s->in[3] != TYPE_IP6)
        return refuse(s, SOCKS_NO_ADDRESS_TYPE, "unknown type of address");
    if (!fill(s->in, &s->in_n, 5, p, n) || !fill(s->in, &s->in_n, message_len(s->in), p, n))
        return s->state;
    if (s->in[1] != CMD_CONNECT)
        return refuse(s, SOCKS_NO_COMMAND, "a command other than CONNECT");
    if (dest_read(s, s->in_n) < 0)
        return refuse(s, SOCKS_HOST_UNREACHABLE, "not a host name");
    if (s->dest.port == 0)
        return refuse(s, SOCKS_FAILURE, "port 0");
    return s->state = SOCKS_WAIT;
}

enum socks_state socks_input(struct socks *s, const uint8_t *p, size_t n, size_t *used)
{
    size_t left = n;
    if (s->state == SOCKS_GREETING)
        greeting(s, &p, &left);
    if (s->state == SOCKS_REQUEST)
        request(s, &p, &left);
    *used = n - left;
    return s->state;
}

void socks_reply(struct socks *s, enum socks_code code, const uint8_t *ip, size_t ip_n,
                 uint16_t port)
{
    static const uint8_t any[4];
    assert(s->state == SOCKS_WAIT || code != SOCKS_OK);
    if (code != SOCKS_OK || ip_n == 0) {
        ip = any;
        ip_n = sizeof(any);
        port = code == SOCKS_OK ? port : 0;
    }
    uint8_t *o = s->out + s->out_n;
    *o++ = VERSION;
    *o++ = (uint8_t)code;
    *o++ = 0;
    *o++ = ip_n == 4 ? TYPE_IP4 : TYPE_IP6;
    memcpy(o, ip, ip_n);
    o += ip_n;
    *o++ = (uint8_t)(port >> 8);
    *o++ = (uint8_t)port;
    s->out_n = (size_t)(o - s->out);
    s->state = code == SOCKS_OK ? SOCKS_OPEN : SOCKS_END;
}

/* ---- errors ---- */

enum socks_code socks_code_of(int err)
{
    switch (err) {
    case 0:
        return SOCKS_OK;
    case ERR_NOMEM:
    case ERR_LIMIT:
    case ERR_BUSY:
    case ERR_SHUTDOWN:
    case -EMFILE:
    case -ENFILE:
        return SOCKS_FAILURE;
    case -ENETUNREACH:
    case -ENETDOWN:
        return SOCKS_NET_UNREACHABLE;
    case -ECONNREFUSED:
        return SOCKS_REFUSED;
    case -ETIMEDOUT:
        return SOCKS_TTL;
    case ERR_UNSUPPORTED:
        return SOCKS_NO_COMMAND;
    case -EACCES:
    case -EPERM:
        return SOCKS_NOT_ALLOWED;
    }
    switch (err_exit_code(err)) {
    case 4:
        return SOCKS_REFUSED;
    case 5:
        return SOCKS_TTL;
    }
    return SOCKS_HOST_UNREACHABLE;
}

int socks_err_of(unsigned code)
{
    switch (code) {
    case SOCKS_OK:
        return 0;
    case SOCKS_NOT_ALLOWED:
        return -EACCES;
    case SOCKS_NET_UNREACHABLE:
        return -ENETUNREACH;
    case SOCKS_HOST_UNREACHABLE:
        return -EHOSTUNREACH;
    case SOCKS_REFUSED:
        return -ECONNREFUSED;
    case SOCKS_TTL:
        return ERR_TIMEOUT;
    case SOCKS_NO_COMMAND:
    case SOCKS_NO_ADDRESS_TYPE:
        return ERR_UNSUPPORTED;
    }
    return ERR_BUSY;
}

/* ---- client ---- */

void socks_ask_init(struct socks_ask *a, const struct socks_dest *dest)
{
    static const uint8_t hello[3] = {VERSION, 1, NO_AUTH};
    memset(a, 0, sizeof(*a));
    a->dest = dest;
    memcpy(a->out, hello, sizeof(hello));
    a->out_n = sizeof(hello);
}

static void ask_request(struct socks_ask *a)
{
    const struct socks_dest *d = a->dest;
    size_t name_n = strlen(d->host);
    uint8_t *o = a->out + a->out_n;
    *o++ = VERSION;
    *o++ = CMD_CONNECT;
    *o++ = 0;
    *o++ = d->ip_n == 4 ? TYPE_IP4 : d->ip_n == 16 ? TYPE_IP6 : TYPE_NAME;
    if (d->ip_n == 0)
        *o++ = (uint8_t)name_n;
    memcpy(o, d->ip_n > 0 ? (const void *)d->ip : d->host, d->ip_n > 0 ? d->ip_n : name_n);
    o += d->ip_n > 0 ? d->ip_n : name_n;
    *o++ = (uint8_t)(d->port >> 8);
    *o++ = (uint8_t)d->port;
    a->out_n = (size_t)(o - a->out);
}

static int ask_step(struct socks_ask *a, const uint8_t **p, size_t *n)
{
    if (!a->chosen) {
        if (!fill(a->in, &a->in_n, 2, p, n))
            return ERR_PENDING;
        if (a->in[0] != VERSION || a->in[1] != NO_AUTH)
            return ERR_PROTOCOL;
        a->chosen = true;
        a->in_n = 0;
        ask_request(a);
    }
    if (!fill(a->in, &a->in_n, 5, p, n))
        return ERR_PENDING;
    if (a->in[0] != VERSION || message_len(a->in) == 0)
        return ERR_PROTOCOL;
    if (a->in[1] != SOCKS_OK)
        return socks_err_of(a->in[1]);
    return fill(a->in, &a->in_n, message_len(a->in), p, n) ? 0 : ERR_PENDING;
}

int socks_ask_input(struct socks_ask *a, const uint8_t *p, size_t n, size_t *used)
{
    size_t left = n;
    int rc = ask_step(a, &p, &left);
    *used = n - left;
    return rc;
}
