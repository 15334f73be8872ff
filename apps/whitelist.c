#include "apps/whitelist.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"

#define SEPARATORS ", \t\r\n"

static int compare(const void *a, const void *b)
{
    return pubkey_cmp(a, b);
}

static bool has(const struct whitelist *w, const struct pubkey *pk)
{
    return w->n > 0 && bsearch(pk, w->v, w->n, sizeof(*pk), compare) != NULL;
}

static int add_key(struct whitelist *w, const struct pubkey *pk)
{
    if (w->n == WHITELIST_MAX)
        return ERR_LIMIT;
    if (w->n == w->room) {
        size_t room = w->room > 0 ? 2 * w->room : 16;
        struct pubkey *v = reallocarray(w->v, room, sizeof(*v));
        if (v == NULL)
            return ERR_NOMEM;
        w->v = v;
        w->room = room;
    }
    w->v[w->n++] = *pk;
    return 0;
}

static void sort_once_each(struct whitelist *w)
{
    size_t kept = 0;
    if (w->n == 0)
        return;
    qsort(w->v, w->n, sizeof(*w->v), compare);
    for (size_t i = 1; i < w->n; i++) {
        if (!pubkey_equal(&w->v[i], &w->v[kept]))
            w->v[++kept] = w->v[i];
    }
    w->n = kept + 1;
}

/* A separator only is no key, and no mistake. */
int whitelist_add(struct whitelist *w, const char *text, const char **bad)
{
    struct whitelist more = {0};
    int rc = 0;
    for (const char *p = text + strspn(text, SEPARATORS); *p != '\0' && rc == 0;) {
        struct pubkey pk;
        size_t n = strcspn(p, SEPARATORS);
        rc = pubkey_from_hex(&pk, p, n);
        if (rc < 0 && bad != NULL)
            *bad = p;
        if (rc == 0)
            rc = add_key(&more, &pk);
        p += n;
        p += strspn(p, SEPARATORS);
    }
    for (size_t i = 0; i < more.n && rc == 0; i++)
        rc = add_key(w, &more.v[i]);
    whitelist_free(&more);
    sort_once_each(w);
    return rc;
}

bool whitelist_allows(const struct whitelist *w, const struct pubkey *pk)
{
    return w->n == 0 || has(w, pk);
}

void whitelist_free(struct whitelist *w)
{
    free(w->v);
    memset(w, 0, sizeof(*w));
}
