/*
 * What is wrong with an entry before its signature is looked at (docs/protocol/services.md §3.2), and the text that is kept of it.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "compat-http/disc_int.h"

#define PAST_NS   (INT64_C(60) * 1000000000)
#define FUTURE_NS (INT64_C(5) * 1000000000)

/* Only the first JSON value of the body counts. */
int disc_check_parse(struct entry **out, const char *body, size_t n)
{
    struct json_in j = json_in_init(body, n);
    const char *p;
    size_t len;
    json_in_skip_text(&j, &p, &len);
    return j.err != 0 ? ERR_FORMAT : entry_parse(out, p, len);
}

/* Does a host:port that can be split say this host? As upstream's standard library splits it. */
static bool is_local(const char *address)
{
    char host[64] = "";
    struct in_addr four;
    struct in6_addr six;
    size_t n;
    if (address[0] == '[') {
        const char *end = strchr(address, ']');
        if (end == NULL || end[1] != ':' || strchr(end + 2, ':') != NULL)
            return false;
        address++;
        n = (size_t)(end - address);
    } else {
        const char *colon = strchr(address, ':');
        if (colon == NULL || strchr(colon + 1, ':') != NULL || strpbrk(address, "[]") != NULL)
            return false;
        n = (size_t)(colon - address);
    }
    if (n >= sizeof(host))
        return false;
    memcpy(host, address, n);
    if (n == 0)
        return true;
    if (inet_pton(AF_INET, host, &four) == 1)
        return ntohl(four.s_addr) >> 24 == 127;
    return inet_pton(AF_INET6, host, &six) == 1 &&
           (IN6_IS_ADDR_LOOPBACK(&six) || (IN6_IS_ADDR_V4MAPPED(&six) && six.s6_addr[12] == 127));
}

enum disc_text disc_check_entry(const struct disc_service *d, const struct entry *e, bool setting)
{
    if (setting && e->has_server && !d->cfg.test_mode && is_local(e->server.address))
        return DISC_LOOPBACK;
    if (e->version[0] == '\0')
        return DISC_NO_VERSION;
    if (!e->has_signature)
        return DISC_NO_SIGNATURE;
    if (pubkey_is_null(&e->static_pk))
        return DISC_NO_KEY;
    if (!e->has_client && !e->has_server)
        return DISC_NO_HALF;
    if (e->has_server && e->server.address[0] == '\0')
        return DISC_NO_ADDRESS;
    if (!e->has_client && !d->cfg.load_testing) {
        int64_t now = env_wall_ns(d->cfg.env);
        if (e->timestamp_ns < now - PAST_NS || e->timestamp_ns > now + FUTURE_NS)
            return DISC_OUTDATED;
    }
    return DISC_WROTE_NEW;
}

/* The signature text as it was sent: it is stored so. */
static bool sent_signature(const struct entry *e, const char **p, size_t *n)
{
    struct json_in j = json_in_init(e->text, e->text_len);
    bool found = false;
    if (json_in_object(&j))
        while (json_in_member(&j)) {
            if (json_in_name_is(&j, "signature")) {
                json_in_skip_text(&j, p, n);
                found = true;
            } else {
                json_in_skip(&j);
            }
        }
    return found && j.err == 0;
}

/* What is stored: the known members in canonical order with the signature as it was sent; when the signature covers more than those, the text as it came. */
int disc_check_text(struct disc_job *j)
{
    const struct entry *e = j->entry;
    char *canon;
    const char *sig, *at;
    size_t n, sig_len;
    if (j->at == 1) {
        j->text = strndup(e->text, e->text_len);
        j->text_len = e->text_len;
        return j->text != NULL ? 0 : ERR_NOMEM;
    }
    int rc = entry_canonical(&canon, &n, e, false);
    if (rc < 0)
        return rc;
    /* It stands before "protocol", which is the last member, or at the end. */
    at = canon + n - 1;
    if (e->protocol[0] != '\0')
        for (const char *p = canon;
             (p = memmem(p, (size_t)(canon + n - p), ",\"protocol\":", 12)) != NULL; p++)
            at = p;
    if (!sent_signature(e, &sig, &sig_len) || (j->text = malloc(n + sig_len + 16)) == NULL) {
        free(canon);
        return ERR_NOMEM;
    }
    int len = sprintf(j->text, "%.*s,\"signature\":%.*s%.*s", (int)(at - canon), canon,
                      (int)sig_len, sig, (int)(canon + n - at), at);
    j->text_len = (size_t)len;
    free(canon);
    return 0;
}
