/* Any text as a host name, a suffix and an alias: what is accepted is rebuilt from its parts and gives the same parts again. */
#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apps/dmsg_name.h"
#include "base/err.h"

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

static bool same(const struct dmsg_name *a, const struct dmsg_name *b)
{
    return pubkey_equal(&a->pk, &b->pk) && a->has_via == b->has_via &&
           (!a->has_via || pubkey_equal(&a->via, &b->via)) && strcmp(a->vhost, b->vhost) == 0;
}

static void rebuild(const struct dmsg_name *name)
{
    char text[2 * DMSG_NAME_MAX], via[DMSG_BASE32 + 2] = "", pk[DMSG_BASE32 + 1];
    struct dmsg_name again;
    const char *why = NULL;
    if (name->has_via) {
        dmsg_base32(via, &name->via);
        strcat(via, ".");
    }
    int n = snprintf(text, sizeof text, "%s%s%s%s.dmsg", name->vhost,
                     name->vhost[0] != '\0' ? "." : "", via, dmsg_base32(pk, &name->pk));
    if (n > DMSG_NAME_MAX) /* an alias was shorter than its key */
        return;
    int rc = dmsg_name_parse(&again, NULL, ".dmsg", text, (size_t)n, &why);
    assert(rc == 0 && same(name, &again));
}

/* The first line is the host, the second one an alias, the third one a suffix. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct dmsg_aliases aliases;
    char copy[1024];
    struct dmsg_name name;
    const char *why = NULL;
    if (size >= sizeof copy)
        return 0;
    memcpy(copy, data, size);
    copy[size] = '\0';
    char *host = copy, *alias = strchr(copy, '\n'), *suffix = NULL;
    if (alias != NULL) {
        *alias++ = '\0';
        if ((suffix = strchr(alias, '\n')) != NULL)
            *suffix++ = '\0';
    }
    aliases.n = 0;
    if (alias != NULL) {
        int rc = dmsg_alias_add(&aliases, alias);
        assert((rc == 0) == (aliases.n == 1));
    }
    size_t n = strlen(host);
    char *exact = malloc(n + 1); /* so that a read behind the end is seen */
    if (exact == NULL)
        return 0;
    memcpy(exact, host, n);
    int rc = dmsg_name_parse(&name, &aliases, ".dmsg", exact, n, &why);
    assert(rc == 0 || rc == ERR_NOT_FOUND || why != NULL);
    if (rc == 0)
        rebuild(&name);
    if (suffix != NULL && dmsg_suffix_ok(suffix)) {
        assert(suffix[0] == '.' && strlen(suffix) <= DMSG_SUFFIX_MAX);
        rc = dmsg_name_parse(&name, &aliases, suffix, exact, n, &why);
        assert(rc == 0 || rc == ERR_NOT_FOUND || why != NULL);
    }
    free(exact);
    return 0;
}
