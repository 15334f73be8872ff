#include "apps/netrule.h"

#include <arpa/inet.h>
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"

#define IP4(a, b, c, bits_)                                                                        \
    {                                                                                              \
        .ip = {a, b, c}, .ip_n = 4, .bits = (bits_)                                                \
    }

/* RFC 6890 and the IANA registries of special-purpose addresses. */
static const struct net_prefix special[] = {
    IP4(0, 0, 0, 8),
    IP4(10, 0, 0, 8),
    IP4(100, 64, 0, 10),
    IP4(127, 0, 0, 8),
    IP4(169, 254, 0, 16),
    IP4(172, 16, 0, 12),
    IP4(192, 0, 0, 24),
    IP4(192, 0, 2, 24),
    IP4(192, 88, 99, 24),
    IP4(192, 168, 0, 16),
    IP4(198, 18, 0, 15),
    IP4(198, 51, 100, 24),
    IP4(203, 0, 113, 24),
    IP4(224, 0, 0, 4),
    IP4(240, 0, 0, 4),
    {.ip = {0}, .ip_n = 16, .bits = 127},                           /* ::, ::1 */
    {.ip = {0x00, 0x64, 0xff, 0x9b, 0, 1}, .ip_n = 16, .bits = 48}, /* local NAT64 */
    {.ip = {0x01, 0x00}, .ip_n = 16, .bits = 64},                   /* discard */
    {.ip = {0x20, 0x01, 0x00, 0x00}, .ip_n = 16, .bits = 23},       /* protocols, Teredo */
    {.ip = {0x20, 0x01, 0x0d, 0xb8}, .ip_n = 16, .bits = 32},       /* documentation */
    {.ip = {0x3f, 0xff, 0x00}, .ip_n = 16, .bits = 20},             /* documentation */
    {.ip = {0x5f, 0x00}, .ip_n = 16, .bits = 16},                   /* segment routing */
    {.ip = {0xfc}, .ip_n = 16, .bits = 7},
    {.ip = {0xfe, 0x80}, .ip_n = 16, .bits = 10},
    {.ip = {0xfe, 0xc0}, .ip_n = 16, .bits = 10},
    {.ip = {0xff}, .ip_n = 16, .bits = 8},
};

static bool prefix_equal(const uint8_t *a, const uint8_t *b, size_t bits)
{
    size_t whole = bits / 8, rest = bits % 8;
    if (memcmp(a, b, whole) != 0)
        return false;
    return rest == 0 || (a[whole] >> (8 - rest)) == (b[whole] >> (8 - rest));
}

static bool contains(const struct net_prefix *p, const uint8_t *ip, size_t ip_n)
{
    return p->ip_n == ip_n && prefix_equal(p->ip, ip, p->bits);
}

/* The IPv4 address inside of an IPv6 address, or NULL. */
static const uint8_t *inner_ip4(const uint8_t *ip)
{
    static const uint8_t compatible[12] = {0}, mapped[12] = {[10] = 0xff, [11] = 0xff},
                         nat64[12] = {0x00, 0x64, 0xff, 0x9b};
    if (memcmp(ip, mapped, 12) == 0 || memcmp(ip, nat64, 12) == 0)
        return ip + 12;
    if (memcmp(ip, compatible, 12) == 0)
        return ip + 12;
    return ip[0] == 0x20 && ip[1] == 0x02 ? ip + 2 : NULL;
}

static bool one_allows(const struct netrule *r, const uint8_t *ip, size_t ip_n)
{
    int best = -1;
    bool allow = true;
    for (size_t i = 0; i < sizeof(special) / sizeof(special[0]) && !r->private_ok; i++) {
        if (contains(&special[i], ip, ip_n) && special[i].bits > best) {
            best = special[i].bits;
            allow = false;
        }
    }
    bool given = false;
    for (size_t i = 0; i < r->n; i++) {
        const struct net_prefix *p = &r->v[i];
        if (!contains(p, ip, ip_n) || p->bits < best)
            continue;
        allow = given && p->bits == best ? allow && p->allow : p->allow;
        best = p->bits;
        given = true;
    }
    return allow;
}

bool netrule_allows(const struct netrule *r, const uint8_t *ip, size_t ip_n)
{
    assert(ip_n == 4 || ip_n == 16);
    const uint8_t *inner = ip_n == 16 ? inner_ip4(ip) : NULL;
    return one_allows(r, ip, ip_n) && (inner == NULL || one_allows(r, inner, 4));
}

static bool rest_is_zero(const struct net_prefix *p)
{
    static const uint8_t zeros[16];
    uint8_t ip[16];
    size_t whole = p->bits / 8u;
    memcpy(ip, p->ip, sizeof(ip));
    memset(ip, 0, whole);
    if (p->bits % 8 != 0)
        ip[whole] = (uint8_t)(ip[whole] & (0xff >> (p->bits % 8)));
    return memcmp(ip, zeros, p->ip_n) == 0;
}

int netrule_add(struct netrule *r, const char *text, bool allow, const char **why)
{
    struct net_prefix p = {.allow = allow};
    char ip[INET6_ADDRSTRLEN];
    size_t n = strcspn(text, "/");
    *why = "not a network such as 10.0.0.0/8 or fd00::/8";
    if (n >= sizeof(ip))
        return ERR_FORMAT;
    memcpy(ip, text, n);
    ip[n] = '\0';
    p.ip_n = inet_pton(AF_INET, ip, p.ip) == 1 ? 4 : inet_pton(AF_INET6, ip, p.ip) == 1 ? 16 : 0;
    if (p.ip_n == 0)
        return ERR_FORMAT;
    p.bits = (uint8_t)(8 * p.ip_n);
    if (text[n] == '/') {
        const char *digits = text + n + 1;
        size_t len = strspn(digits, "0123456789");
        unsigned long bits = strtoul(digits, NULL, 10);
        if (len == 0 || len > 3 || digits[len] != '\0' || bits > p.bits)
            return ERR_FORMAT;
        p.bits = (uint8_t)bits;
    }
    *why = "bits are set behind the prefix";
    if (!rest_is_zero(&p))
        return ERR_FORMAT;
    *why = "too many networks";
    if (r->n == NETRULES)
        return ERR_LIMIT;
    r->v[r->n++] = p;
    return 0;
}
