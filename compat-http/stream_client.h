/*
 * stream_client - libcurl over streams: URLs of dmsg end points, and a handle set up for them (docs/protocol/apps.md §1.3, §2.1).
 *
 * libcurl connects to a unix socket that leads to pk:port (apps/net.h: app_net_forward) and speaks plain HTTP/1.1 to it; everything of libcurl works. Connections are kept
 * alive by the handle. Redirects are the caller's: another key needs another socket (stream_url_join).
 *
 *     const char *why;
 *     if (stream_url_parse(&u, "dmsg://02ab…:8080/x?y", &why) == 0) {
 *         …socket to u.pk, u.port…
 *         rc = stream_client_setup(easy, &u, path);
 *         code = curl_easy_perform(easy);
 *     }
 *     stream_url_free(&u);
 */
#pragma once

#include <curl/curl.h>
#include <stddef.h>
#include <stdint.h>

#include "base/crypto.h"

#define STREAM_HOST_MAX (PUBKEY_HEX + 7) /* key, ":65535", NUL */

struct stream_url {
    struct pubkey pk;
    uint16_t port;              /* 80 when absent */
    char host[STREAM_HOST_MAX]; /* as written: what goes into Host */
    char *http;                 /* "http://host/path?query", owned */
    size_t path;                /* of the path in http */
};

/* scheme://PK[:PORT][/path][?query]; the scheme's name does not matter, as upstream. 0; ERR_FORMAT, ERR_KEY, ERR_NOMEM with a static text in why (may be NULL). */
int stream_url_parse(struct stream_url *u, const char *text, const char **why)
    __attribute__((warn_unused_result));
/* A Location, relative or whole, as seen from base. The same errors; a host that is no key is ERR_KEY. */
int stream_url_join(struct stream_url *u, const struct stream_url *base, const char *location,
                    const char **why) __attribute__((warn_unused_result));
void stream_url_free(struct stream_url *u);

/* Set the options that make it a client of this end point: URL, socket, HTTP only, no proxy, no redirects, no signals, buffers for bulk. Headers, method and body are the caller's;
 * Host comes from u (libcurl leaves ":80" out; the caller adds a Host header when that matters). 0, ERR_NOMEM, ERR_TOO_LONG (path). */
int stream_client_setup(CURL *easy, const struct stream_url *u, const char *unix_path)
    __attribute__((warn_unused_result));
