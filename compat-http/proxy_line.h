/*
 * proxy_line - the line that a proxy puts before a connection: the PROXY protocol, versions 1 and 2 (docs/protocol/services.md §1 "Client address").
 *
 * Reads from the first bytes of a connection, without taking any: `used` says how many belong to the line. "UNKNOWN", LOCAL and other families give no address. No I/O.
 *
 *     rc = proxy_line_parse(&line, p, n);
 *     rc == 0: line.used bytes are the line (0: there is none); ERR_SHORT: look again when more is there; ERR_FORMAT: not to be served
 */
#pragma once

#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>

#define PROXY_LINE_MAX 552 /* version 2: 16 bytes and what upstream reads at most */

struct proxy_line {
    size_t used;
    char ip[INET6_ADDRSTRLEN]; /* "" = none */
    uint16_t port;
};

int proxy_line_parse(struct proxy_line *out, const uint8_t *p, size_t n)
    __attribute__((warn_unused_result));
