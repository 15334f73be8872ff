#include "compat-http/httpauth.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/hex.h"
#include "base/json.h"

/* The value is a stranger's: it is cut here, and escaped by the JSON writer. */
static bool refuse(char text[HTTPAUTH_TEXT], const char *before, const char *value,
                   const char *after)
{
    snprintf(text, HTTPAUTH_TEXT, "%s%.140s%s", before, value, after);
    return false;
}

static bool parse_nonce(struct httpauth *a, const char *text, char why[HTTPAUTH_TEXT])
{
    char *end;
    size_t digits = strspn(text, "0123456789");
    if (digits == 0 || text[digits] != '\0')
        return refuse(why, "error parsing SW-Nonce: ", "invalid syntax", "");
    errno = 0;
    a->nonce = strtoull(text, &end, 10);
    return errno != ERANGE || refuse(why, "error parsing SW-Nonce: ", "value out of range", "");
}

bool httpauth_parse(struct httpauth *a, const char *pub, const char *sig, const char *nonce,
                    char text[HTTPAUTH_TEXT])
{
    memset(a, 0, sizeof(*a));
    if (pub == NULL || *pub == '\0')
        return refuse(text, "SW-Public", " missing", "");
    if (pubkey_from_json_text(&a->pk, pub, strlen(pub)) < 0 || pubkey_is_null(&a->pk))
        return refuse(text, "error parsing SW-Public: ", "Invalid public key", "");
    if (sig == NULL || *sig == '\0')
        return refuse(text, "SW-Sig", " missing", "");
    if (hex_decode(a->sig.b, SIG_BYTES, sig, strlen(sig)) < 0)
        return refuse(text, "error parsing SW-Sig:'", sig, "': Invalid signature length");
    if (nonce == NULL || *nonce == '\0')
        return refuse(text, "SW-Nonce", " missing", "");
    return parse_nonce(a, nonce, text);
}

bool httpauth_read(struct httpauth *a, const struct service_req *q, char text[HTTPAUTH_TEXT])
{
    if (q->caller.stream) {
        *a = (struct httpauth){.pk = q->caller.pk, .by_channel = true};
        return true;
    }
    return httpauth_parse(a, service_header(q, "SW-Public"), service_header(q, "SW-Sig"),
                          service_header(q, "SW-Nonce"), text);
}

void httpauth_digest(struct hash *out, const void *body, size_t n, uint64_t nonce)
{
    char digits[24];
    int len = snprintf(digits, sizeof(digits), "%llu", (unsigned long long)nonce);
    crypto_sha256_2(out, body, n, digits, (size_t)len);
}

bool httpauth_check(const struct httpauth *a, uint64_t stored, const void *body, size_t n,
                    char text[HTTPAUTH_TEXT])
{
    struct hash digest;
    if (a->by_channel)
        return true;
    if (a->nonce != stored)
        return refuse(text, "SW-Nonce", " does not match", "");
    httpauth_digest(&digest, body, n, a->nonce);
    const char *why = crypto_verify_text(&a->pk, &a->sig, &digest);
    return why == NULL || refuse(text, why, "", "");
}

void httpauth_refuse(struct service_req *q, const char *text)
{
    char buf[2 * HTTPAUTH_TEXT + 64];
    struct json_out o;
    json_out_fixed(&o, JSON_FAST, buf, sizeof(buf) - 1);
    json_out_object(&o);
    json_out_name(&o, "error");
    json_out_object(&o);
    json_out_name(&o, "message");
    json_out_str(&o, text);
    json_out_name(&o, "code");
    json_out_u64(&o, 401);
    json_out_object_end(&o);
    json_out_object_end(&o);
    size_t n = o.err == 0 ? o.len : 0;
    buf[n++] = '\n';
    service_answer(q, 401, SERVICE_JSON, buf, n);
}

/* ---- network monitors ---- */

unsigned httpauth_monitor_check(const char *pk, const char *sign, const char *const *whitelist,
                                size_t n)
{
    struct pubkey key;
    struct sig sig;
    char hex[PUBKEY_HEX + 1];
    size_t i = 0;
    while (i < n && (pk == NULL || strcmp(whitelist[i], pk) != 0))
        i++;
    if (i == n)
        return 403;
    if (pubkey_from_hex(&key, pk, strlen(pk)) < 0 || sign == NULL ||
        hex_decode(sig.b, SIG_BYTES, sign, strlen(sign)) < 0)
        return 400;
    pubkey_hex(hex, &key);
    return crypto_verify(&key, &sig, hex, PUBKEY_HEX) == 0 ? 0 : 403;
}

unsigned httpauth_monitor(const struct service_req *q, const char *const *whitelist, size_t n)
{
    return httpauth_monitor_check(service_header(q, "NM-PK"), service_header(q, "NM-Sign"),
                                  whitelist, n);
}
