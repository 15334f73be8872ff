/* Bytes of an HTTP client on their way through the proxy: whole and in pieces they come out the same. The first byte chooses the pieces and the mode. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "apps/http_req.h"
#include "base/err.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int flow(struct evbuffer *out, const uint8_t *p, size_t n, size_t piece, unsigned mode)
{
    struct http_relay x = {.one = (mode & 1) != 0, .proxy = (mode & 2) != 0};
    int rc = 0;
    if ((mode & 4) != 0)
        strcpy(x.host, "site.example");
    for (size_t at = 0; at < n && rc == 0;) {
        size_t give = n - at < piece ? n - at : piece;
        rc = http_relay_input(&x, p + at, give, out);
        at += give;
    }
    assert(x.line == NULL || evbuffer_get_length(x.line) <= HTTP_REQ_MAX + piece);
    http_relay_free(&x);
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    unsigned mode = size > 0 ? data[0] % 8u : 0;
    size_t piece = size > 0 ? 1 + data[0] / 8u : 1, n = size > 0 ? size - 1 : 0;
    const uint8_t *p = size > 0 ? data + 1 : data;
    struct evbuffer *whole = evbuffer_new(), *pieces = evbuffer_new();
    if (whole == NULL || pieces == NULL)
        abort();
    int rc = flow(whole, p, n, n + 1, mode), rc_pieces = flow(pieces, p, n, piece, mode);
    assert(rc == rc_pieces);
    size_t len = evbuffer_get_length(whole);
    assert(len == evbuffer_get_length(pieces));
    assert(len == 0 || memcmp(evbuffer_pullup(whole, -1), evbuffer_pullup(pieces, -1), len) == 0);
    evbuffer_free(whole);
    evbuffer_free(pieces);
    return 0;
}
