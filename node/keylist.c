#include "node/keylist.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"

#define BLANKS " \t\r\n"

static int add(struct keylist *l, size_t *room, const struct pubkey *pk)
{
    if (l->n == KEYLIST_MAX)
        return ERR_LIMIT;
    if (l->n == *room) {
        size_t more = *room > 0 ? *room * 2 : 64;
        struct pubkey *keys = realloc(l->keys, more * sizeof(*keys));
        if (keys == NULL)
            return ERR_NOMEM;
        l->keys = keys;
        *room = more;
    }
    l->keys[l->n++] = *pk;
    return 0;
}

/* One line: a key, or nothing. */
static int take_line(struct keylist *l, size_t *room, char *line)
{
    struct pubkey pk;
    line[strcspn(line, "#")] = '\0';
    char *word = line + strspn(line, BLANKS);
    size_t len = strcspn(word, BLANKS);
    if (len == 0)
        return 0;
    if (word[len + strspn(word + len, BLANKS)] != '\0')
        return ERR_FORMAT;
    int rc = pubkey_from_hex(&pk, word, len);
    return rc < 0 ? rc : add(l, room, &pk);
}

int keylist_load(struct keylist *out, const char *path, char *why, size_t cap)
{
    struct keylist l = {0};
    char *line = NULL;
    size_t line_cap = 0, room = 0, number = 0;
    int rc = 0;
    FILE *f = fopen(path, "re");
    if (f == NULL) {
        rc = err_sys();
        snprintf(why, cap, "%s: %s", path, err_str(rc));
        return rc;
    }
    while (rc == 0 && getline(&line, &line_cap, f) >= 0) {
        number++;
        if ((rc = take_line(&l, &room, line)) < 0)
            snprintf(why, cap, "%s: line %zu: %s", path, number,
                     rc == ERR_FORMAT || rc == ERR_KEY ? "not a public key" : err_str(rc));
    }
    if (rc == 0 && ferror(f)) {
        rc = err_sys();
        snprintf(why, cap, "%s: %s", path, err_str(rc));
    }
    free(line);
    fclose(f);
    if (rc < 0)
        keylist_free(&l);
    *out = l;
    return rc;
}

void keylist_free(struct keylist *l)
{
    free(l->keys);
    *l = (struct keylist){0};
}
