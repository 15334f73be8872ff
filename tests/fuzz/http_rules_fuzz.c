/* Any text as path, range, date, tags and URL of a request: what is accepted has a clean form that reads back as itself, and stays inside. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "apps/http_rules.h"
#include "compat-http/stream_client.h"

#define TEXT_MAX 2048

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    if (crypto_init() != 0)
        abort();
    return 0;
}

static void try_path(const char *text)
{
    char clean[TEXT_MAX + 2], again[TEXT_MAX + 2], encoded[3 * TEXT_MAX + 8];
    if (http_path_clean(clean, sizeof clean, text) < 0)
        return;
    assert(clean[0] == '/' && strstr(clean, "//") == NULL && strstr(clean, "/../") == NULL);
    size_t n = strlen(clean);
    assert(n < 3 || strcmp(clean + n - 3, "/..") != 0);
    assert(http_path_encode(encoded, sizeof encoded, clean));
    int rc = http_path_clean(again, sizeof again, encoded);
    assert(rc == 0 && strcmp(again, clean) == 0);
}

static void try_range(const char *text, uint64_t size)
{
    struct http_range r;
    if (http_range(&r, text, size) == 1)
        assert(r.n > 0 && r.first < size && r.n <= size - r.first);
}

static void try_date(const char *text)
{
    char out[HTTP_DATE_MAX];
    time_t t, again;
    if (!http_date_parse(&t, text) || t < 0)
        return;
    assert(http_date_parse(&again, http_date(out, t)) && again == t);
}

static void try_url(const char *text)
{
    struct stream_url u, same;
    if (stream_url_parse(&u, text, NULL) == 0) {
        int rc = stream_url_parse(&same, u.http, NULL);
        assert(rc == 0 && strcmp(same.http, u.http) == 0 && u.http[u.path] == '/');
        stream_url_free(&same);
    }
    stream_url_free(&u);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char text[TEXT_MAX], html[6 * TEXT_MAX];
    if (size >= TEXT_MAX)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    try_path(text);
    try_range(text, 10);
    try_range(text, size);
    try_range(text, UINT64_MAX);
    try_date(text);
    try_url(text);
    (void)http_etag_listed(text, "\"a\"", true);
    assert(http_html_escape(html, sizeof html, text));
    assert(strpbrk(html, "<>\"'") == NULL);
    return 0;
}
