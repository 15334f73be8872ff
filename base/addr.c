#include "base/addr.h"

#include <arpa/inet.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"

#define LABEL_MAX 63

static int refuse(int err, const char **why, const char *text)
{
    if (why != NULL)
        *why = text;
    return err;
}

/* ---- parts ---- */

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Digits only, at most 65535. */
static int number(uint16_t *out, const char *text, size_t n)
{
    uint32_t v = 0;
    if (n == 0)
        return ERR_FORMAT;
    for (size_t i = 0; i < n; i++) {
        if (!is_digit(text[i]))
            return ERR_FORMAT;
        v = v * 10 + (uint32_t)(text[i] - '0');
        if (v > UINT16_MAX)
            return ERR_FORMAT;
    }
    *out = (uint16_t)v;
    return 0;
}

int addr_port_parse(uint16_t *out, const char *text, size_t n, unsigned flags)
{
    uint16_t v;
    if (number(&v, text, n) != 0 || (n > 1 && text[0] == '0'))
        return ERR_FORMAT;
    if (v == 0 && (flags & ADDR_PORT_0) == 0)
        return ERR_FORMAT;
    *out = v;
    return 0;
}

/* n bytes of text as a string, for inet_pton(). */
static bool copy_host(char out[ADDR_HOST_MAX + 1], const char *text, size_t n)
{
    if (n > ADDR_HOST_MAX || memchr(text, '\0', n) != NULL)
        return false;
    memcpy(out, text, n);
    out[n] = '\0';
    return true;
}

static int parse_ip6(char out[ADDR_HOST_MAX + 1], const char *text, size_t n, const char **why)
{
    char host[ADDR_HOST_MAX + 1];
    struct in6_addr a;
    if (!copy_host(host, text, n) || inet_pton(AF_INET6, host, &a) != 1)
        return refuse(ERR_FORMAT, why, "what stands in brackets is not an IPv6 address");
    inet_ntop(AF_INET6, &a, out, ADDR_HOST_MAX + 1);
    return 0;
}

static bool is_label(const char *p, size_t n)
{
    if (n == 0 || n > LABEL_MAX || p[0] == '-' || p[n - 1] == '-')
        return false;
    for (size_t i = 0; i < n; i++) {
        char lower = (char)(p[i] | 0x20);
        if (!is_digit(p[i]) && !(lower >= 'a' && lower <= 'z') && p[i] != '-' && p[i] != '_')
            return false;
    }
    return true;
}

static bool all_digits(const char *p)
{
    while (is_digit(*p))
        p++;
    return *p == '\0';
}

static int parse_name(char out[ADDR_HOST_MAX + 1], const char *text, size_t n, const char **why)
{
    struct in_addr a;
    char host[ADDR_HOST_MAX + 1];
    const char *last;
    if (!copy_host(host, text, n))
        return refuse(ERR_FORMAT, why, "host name is too long");
    for (const char *p = host;; p++) {
        size_t len = strcspn(p, ".");
        if (!is_label(p, len))
            return refuse(ERR_FORMAT, why, "host is not a name or an address");
        last = p;
        p += len;
        if (*p == '\0')
            break;
    }
    if (all_digits(last) && inet_pton(AF_INET, host, &a) != 1)
        return refuse(ERR_FORMAT, why, "host is not an IPv4 address");
    memcpy(out, host, n + 1);
    return 0;
}

/* ---- whole addresses ---- */

int addr_hostport_parse(struct addr_hostport *out, const char *text, size_t n, unsigned flags,
                        const char **why)
{
    struct addr_hostport a = {0};
    const char *colon = n > 0 ? memrchr(text, ':', n) : NULL;
    if (colon == NULL)
        return refuse(ERR_FORMAT, why, "not HOST:PORT");
    size_t host_len = (size_t)(colon - text);
    int rc = 0;
    if (host_len == 0 && (flags & ADDR_ANY_HOST) == 0)
        return refuse(ERR_FORMAT, why, "host is missing");
    if (host_len > 0 && text[0] == '[') {
        if (host_len < 2 || text[host_len - 1] != ']')
            return refuse(ERR_FORMAT, why, "not [IPV6]:PORT");
        rc = parse_ip6(a.host, text + 1, host_len - 2, why);
    } else if (memchr(text, ':', host_len) != NULL) {
        return refuse(ERR_FORMAT, why, "an IPv6 address needs brackets: [ADDRESS]:PORT");
    } else if (host_len > 0) {
        rc = parse_name(a.host, text, host_len, why);
    }
    if (rc != 0)
        return rc;
    if (addr_port_parse(&a.port, colon + 1, n - host_len - 1, flags) != 0)
        return refuse(ERR_FORMAT, why,
                      (flags & ADDR_PORT_0) != 0 ? "port is not a number from 0 to 65535"
                                                 : "port is not a number from 1 to 65535");
    *out = a;
    return 0;
}

static int parse_key(struct pubkey *out, const char *text, size_t n, const char **why)
{
    if (n != PUBKEY_HEX)
        return refuse(ERR_KEY, why, "key does not have 66 hex digits");
    if (pubkey_from_hex(out, text, n) != 0)
        return refuse(ERR_KEY, why, "key is not a public key");
    return 0;
}

int addr_peer_parse(struct addr_peer *out, const char *text, size_t n, const char **why)
{
    struct addr_peer a;
    const char *at = n > 0 ? memchr(text, '@', n) : NULL;
    if (at == NULL)
        return refuse(ERR_FORMAT, why, "not PK@HOST:PORT");
    size_t key_len = (size_t)(at - text);
    int rc = parse_key(&a.pk, text, key_len, why);
    if (rc == 0)
        rc = addr_hostport_parse(&a.at, at + 1, n - key_len - 1, ADDR_STRICT, why);
    if (rc == 0)
        *out = a;
    return rc;
}

int addr_dmsg_parse(struct addr_dmsg *out, const char *text, size_t n, const char **why)
{
    struct addr_dmsg a;
    const char *colon = n > 0 ? memchr(text, ':', n) : NULL;
    if (colon == NULL)
        return refuse(ERR_FORMAT, why, "not PK:PORT");
    size_t key_len = (size_t)(colon - text);
    int rc = parse_key(&a.pk, text, key_len, why);
    if (rc != 0)
        return rc;
    if (addr_port_parse(&a.port, colon + 1, n - key_len - 1, ADDR_STRICT) != 0)
        return refuse(ERR_FORMAT, why, "port is not a number from 1 to 65535");
    *out = a;
    return 0;
}

static void trim(const char **text, size_t *n)
{
    static const char blanks[] = " \t\n\v\f\r";
    while (*n > 0 && memchr(blanks, (*text)[0], sizeof blanks - 1) != NULL) {
        (*text)++;
        (*n)--;
    }
    while (*n > 0 && memchr(blanks, (*text)[*n - 1], sizeof blanks - 1) != NULL)
        (*n)--;
}

int addr_dmsg_from_text(struct addr_dmsg *out, const char *text, size_t n)
{
    struct addr_dmsg a = {0};
    const char *colon = n > 0 ? memchr(text, ':', n) : NULL;
    size_t key_len = colon != NULL ? (size_t)(colon - text) : n;
    const char *port = colon != NULL ? colon + 1 : NULL;
    size_t port_len = colon != NULL ? n - key_len - 1 : 0;
    trim(&text, &key_len);
    trim(&port, &port_len);
    if (key_len > 0 && pubkey_from_hex(&a.pk, text, key_len) != 0)
        return ERR_KEY;
    /* A third part shows as a ':' in the port. */
    if (port_len > 0 && !(port_len == 1 && port[0] == '~') && number(&a.port, port, port_len) != 0)
        return ERR_FORMAT;
    *out = a;
    return 0;
}

/* ---- text ---- */

char *addr_hostport_text(char out[ADDR_HOSTPORT_MAX + 1], const struct addr_hostport *a)
{
    bool ip6 = strchr(a->host, ':') != NULL;
    snprintf(out, ADDR_HOSTPORT_MAX + 1, "%s%s%s:%u", ip6 ? "[" : "", a->host, ip6 ? "]" : "",
             a->port);
    return out;
}

char *addr_peer_text(char out[ADDR_PEER_MAX + 1], const struct addr_peer *a)
{
    pubkey_hex(out, &a->pk);
    out[PUBKEY_HEX] = '@';
    addr_hostport_text(out + PUBKEY_HEX + 1, &a->at);
    return out;
}

char *addr_dmsg_text(char out[ADDR_DMSG_MAX + 1], const struct addr_dmsg *a)
{
    pubkey_hex(out, &a->pk);
    if (a->port == 0)
        memcpy(out + PUBKEY_HEX, ":~", 3);
    else
        snprintf(out + PUBKEY_HEX, ADDR_DMSG_MAX + 1 - PUBKEY_HEX, ":%u", a->port);
    return out;
}
