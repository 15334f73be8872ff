#include "compat-http/stream_client.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/addr.h"
#include "base/err.h"

#define BUFFER 262144L

static int wrong(const char **why, int err, const char *text)
{
    if (why != NULL)
        *why = text;
    return err;
}

/* "PK" or "PK:PORT". */
static int parse_host(struct stream_url *u, const char *host, size_t n, const char **why)
{
    size_t key = 0;
    while (key < n && host[key] != ':')
        key++;
    if (n == 0)
        return wrong(why, ERR_FORMAT, "URL is missing a host");
    if (memchr(host, '@', n) != NULL)
        return wrong(why, ERR_FORMAT, "URL has a user name; use --user");
    if (pubkey_from_hex(&u->pk, host, key) < 0)
        return wrong(why, ERR_KEY, "host is not a public key");
    u->port = 80;
    if (key < n && addr_port_parse(&u->port, host + key + 1, n - key - 1, ADDR_STRICT) < 0)
        return wrong(why, ERR_FORMAT, "port is not a number from 1 to 65535");
    memcpy(u->host, host, n);
    u->host[n] = '\0';
    return 0;
}

static const char *skip_scheme(const char *text)
{
    const char *p = text;
    while (isalnum((unsigned char)*p) || (p > text && strchr("+-.", *p) != NULL && *p != '\0'))
        p++;
    return p > text && strncmp(p, "://", 3) == 0 ? p + 3 : NULL;
}

int stream_url_parse(struct stream_url *u, const char *text, const char **why)
{
    memset(u, 0, sizeof(*u));
    const char *host = skip_scheme(text);
    if (host == NULL)
        return wrong(why, ERR_FORMAT, "URL is missing a scheme, such as dmsg://");
    size_t n = strcspn(host, "/?#");
    const char *rest = host + n;
    int rc = parse_host(u, host, n, why);
    if (rc < 0)
        return rc;
    for (const char *p = rest; *p != '\0'; p++)
        if ((unsigned char)*p <= ' ' || *p == 0x7f)
            return wrong(why, ERR_FORMAT, "URL has a blank or a control character");
    u->path = strlen("http://") + n;
    if (asprintf(&u->http, "http://%s%s%s", u->host, *rest == '/' ? "" : "/", rest) < 0) {
        u->http = NULL;
        return wrong(why, ERR_NOMEM, err_str(ERR_NOMEM));
    }
    return 0;
}

int stream_url_join(struct stream_url *u, const struct stream_url *base, const char *location,
                    const char **why)
{
    char *whole = NULL;
    CURLU *h = curl_url();
    const unsigned flags = CURLU_NON_SUPPORT_SCHEME;
    memset(u, 0, sizeof(*u));
    int rc = h != NULL ? 0 : wrong(why, ERR_NOMEM, err_str(ERR_NOMEM));
    if (rc == 0 && (curl_url_set(h, CURLUPART_URL, base->http, flags) != CURLUE_OK ||
                    curl_url_set(h, CURLUPART_URL, location, flags) != CURLUE_OK ||
                    curl_url_get(h, CURLUPART_URL, &whole, 0) != CURLUE_OK))
        rc = wrong(why, ERR_FORMAT, "cannot be read");
    if (rc == 0)
        rc = stream_url_parse(u, whole, why);
    curl_free(whole);
    curl_url_cleanup(h);
    return rc;
}

void stream_url_free(struct stream_url *u)
{
    free(u->http);
    u->http = NULL;
}

int stream_client_setup(CURL *easy, const struct stream_url *u, const char *unix_path)
{
    bool ok = curl_easy_setopt(easy, CURLOPT_URL, u->http) == CURLE_OK &&
              curl_easy_setopt(easy, CURLOPT_UNIX_SOCKET_PATH, unix_path) == CURLE_OK &&
              curl_easy_setopt(easy, CURLOPT_PROXY, "") == CURLE_OK &&
              curl_easy_setopt(easy, CURLOPT_NOPROXY, "*") == CURLE_OK &&
              curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http") == CURLE_OK &&
              curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1) == CURLE_OK &&
              curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L) == CURLE_OK &&
              curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
              curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, BUFFER) == CURLE_OK &&
              curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, BUFFER) == CURLE_OK;
    return ok ? 0 : ERR_NOMEM;
}
