#include "compat-http/proxy_line.h"

#include <arpa/inet.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/addr.h"
#include "base/err.h"

#define V1_MAX  107
#define V2_HEAD 16

static const char v1[] = "PROXY ";
static const uint8_t v2[12] = {13, 10, 13, 10, 0, 13, 10, 0x51, 0x55, 0x49, 0x54, 10};

static bool begins(const uint8_t *p, size_t n, const void *with, size_t len)
{
    return memcmp(p, with, n < len ? n : len) == 0;
}

static bool is_ip(const char *text)
{
    struct in6_addr a;
    return inet_pton(AF_INET, text, &a) == 1 || inet_pton(AF_INET6, text, &a) == 1;
}

/* "PROXY TCP4 1.2.3.4 5.6.7.8 1111 2222\r\n" */
static int parse_v1(struct proxy_line *out, const uint8_t *p, size_t n)
{
    char line[V1_MAX + 1], *word[6] = {0}, *rest = line;
    const uint8_t *end = memchr(p, '\n', n < V1_MAX ? n : V1_MAX);
    if (end == NULL)
        return n < V1_MAX ? ERR_SHORT : ERR_FORMAT;
    size_t len = (size_t)(end - p);
    if (len == 0 || p[len - 1] != '\r' || memchr(p, '\0', len) != NULL)
        return ERR_FORMAT;
    memcpy(line, p, len - 1);
    line[len - 1] = '\0';
    out->used = len + 1;
    for (int i = 0; i < 6 && rest != NULL; i++)
        word[i] = strsep(&rest, " ");
    if (word[1] != NULL && strcmp(word[1], "UNKNOWN") == 0)
        return 0;
    if (word[5] == NULL || rest != NULL || strncmp(word[1], "TCP", 3) != 0 || !is_ip(word[2]) ||
        addr_port_parse(&out->port, word[4], strlen(word[4]), ADDR_PORT_0) < 0)
        return ERR_FORMAT;
    snprintf(out->ip, sizeof(out->ip), "%s", word[2]);
    return 0;
}

static int parse_v2(struct proxy_line *out, const uint8_t *p, size_t n)
{
    if (n < V2_HEAD)
        return ERR_SHORT;
    unsigned version = p[12] >> 4, command = p[12] & 15u, family = p[13] >> 4;
    size_t len = (size_t)p[14] << 8 | p[15];
    if (version != 2 || command > 1 || len > PROXY_LINE_MAX - V2_HEAD)
        return ERR_FORMAT;
    if (n - V2_HEAD < len)
        return ERR_SHORT;
    const uint8_t *a = p + V2_HEAD;
    out->used = V2_HEAD + len;
    if (command == 0 || family == 0 || family > 2)
        return 0;
    size_t size = family == 1 ? 4 : 16;
    if (len < 2 * size + 4)
        return ERR_FORMAT;
    inet_ntop(family == 1 ? AF_INET : AF_INET6, a, out->ip, sizeof(out->ip));
    out->port = (uint16_t)(a[2 * size] << 8 | a[2 * size + 1]);
    return 0;
}

int proxy_line_parse(struct proxy_line *out, const uint8_t *p, size_t n)
{
    memset(out, 0, sizeof(*out));
    if (n == 0)
        return ERR_SHORT;
    int rc = 0;
    if (begins(p, n, v1, sizeof(v1) - 1))
        rc = n < sizeof(v1) - 1 ? ERR_SHORT : parse_v1(out, p, n);
    else if (begins(p, n, v2, sizeof(v2)))
        rc = n < sizeof(v2) ? ERR_SHORT : parse_v2(out, p, n);
    if (rc < 0)
        out->used = 0;
    return rc;
}
