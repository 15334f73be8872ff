/*
 * httpauth - who signs a request: the SW-Public, SW-Nonce and SW-Sig headers, and the network monitor's NM-PK and NM-Sign (docs/protocol/services.md §4, §3.6).
 *
 *     struct httpauth a;
 *     char text[HTTPAUTH_TEXT];
 *     if (!httpauth_read(&a, q, text)) { httpauth_refuse(q, text); return; }
 *     …a.by_channel: a.pk is proved, no nonce is consumed; else fetch the stored number of a.pk (§4.4), then
 *     if (!httpauth_check(&a, stored, q->body, q->body_len, text)) { httpauth_refuse(q, text); return; }
 *     …answer; after an answer of status 200 the stored number grows by one
 *
 * Over a stream the identity is the channel's key, and headers are not looked at (incident 49). The checks come in the order of §4.3, with its texts. What is signed is
 * the body and the nonce's decimal digits. Verification is done at once, about 40 µs. Any thread.
 */
#pragma once

#include "compat-http/service.h"

#define HTTPAUTH_TEXT 256

struct httpauth {
    struct pubkey pk;
    struct sig sig;
    uint64_t nonce;
    bool by_channel;
};

/* False: refused, with the text. */
bool httpauth_read(struct httpauth *a, const struct service_req *q, char text[HTTPAUTH_TEXT]);
/* The same from the values of the headers (NULL = absent), for plain HTTP. */
bool httpauth_parse(struct httpauth *a, const char *pub, const char *sig, const char *nonce,
                    char text[HTTPAUTH_TEXT]);
bool httpauth_check(const struct httpauth *a, uint64_t stored, const void *body, size_t n,
                    char text[HTTPAUTH_TEXT]);
/* What is signed; for clients too. */
void httpauth_digest(struct hash *out, const void *body, size_t n, uint64_t nonce);
/* 401 with the text, as §4.3 has it. */
void httpauth_refuse(struct service_req *q, const char *text);

/* A monitor's request (§3.6): 0, or the status (400, 403) to answer with an empty body. The whitelist holds keys as texts. */
unsigned httpauth_monitor(const struct service_req *q, const char *const *whitelist, size_t n);
/* The same from the values. */
unsigned httpauth_monitor_check(const char *pk, const char *sign, const char *const *whitelist,
                                size_t n);
