/* The small parsers of the HTTP frame: a query, httpauth headers (three values by line), a proxy's line. The first byte says which. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "compat-http/httpauth.h"
#include "compat-http/proxy_line.h"

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

static void try_query(const char *text)
{
    static const char *const names[] = {"v", "timeout", ""};
    for (size_t i = 0; i < 3; i++) {
        char out[64];
        int n = service_query_find(text, names[i], out, sizeof(out));
        assert(n < 0 || (size_t)n == strlen(out));
    }
}

static void try_auth(char *text)
{
    char *value[3] = {0}, *rest = text, why[HTTPAUTH_TEXT] = "";
    struct httpauth a;
    for (int i = 0; i < 3 && rest != NULL; i++)
        value[i] = strsep(&rest, "\n");
    bool ok =
        httpauth_parse(&a, value[0], value[1], value[2], why) && httpauth_check(&a, 0, "", 0, why);
    assert(ok == (why[0] == '\0'));
    (void)httpauth_monitor_check(value[0], value[1], (const char *const *)&value[2],
                                 value[2] != NULL);
}

static void try_proxy(const uint8_t *p, size_t n)
{
    struct proxy_line l;
    int rc = proxy_line_parse(&l, p, n);
    assert(rc <= 0 && l.used <= n && (rc == 0 || l.used == 0));
    assert(strlen(l.ip) < sizeof(l.ip));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    char *text = malloc(size);
    if (text == NULL)
        return 0;
    memcpy(text, data + 1, size - 1);
    text[size - 1] = '\0';
    if (data[0] == 'p')
        try_proxy(data + 1, size - 1);
    else if (data[0] == 'a')
        try_auth(text);
    else
        try_query(text);
    free(text);
    return 0;
}
