#include "kademlia/json_read.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"

void json_scratch_free(struct json_scratch *s)
{
    free(s->p);
    *s = (struct json_scratch){.cap = 0};
}

static bool reserve(struct json_in *j, struct json_scratch *s, size_t n)
{
    if (n <= s->cap)
        return true;
    char *p = realloc(s->p, n);
    if (p == NULL) {
        json_in_fail(j, ERR_NOMEM);
        return false;
    }
    s->p = p;
    s->cap = n;
    return true;
}

bool json_read_text(struct json_in *j, struct json_scratch *s, const char **text, size_t *n)
{
    if (json_in_peek(j) == JSON_TOK_STRING && j->plain) {
        *text = j->text;
        *n = j->text_len;
        json_in_next(j);
        return true;
    }
    /* A bad byte becomes U+FFFD, which has three. */
    size_t most = j->tok == JSON_TOK_STRING ? 3 * j->text_len + 1 : 1;
    if (!reserve(j, s, most) || !json_in_string(j, s->p, s->cap, n))
        return false;
    *text = s->p;
    return true;
}

void json_read_pubkey(struct json_in *j, struct json_scratch *s, struct pubkey *pk)
{
    const char *text;
    size_t n;

    if (json_read_text(j, s, &text, &n) && pubkey_from_json_text(pk, text, n) != 0)
        json_in_fail(j, ERR_FORMAT);
}

void json_read_short(struct json_in *j, struct json_scratch *s, char *out, size_t cap)
{
    const char *text;
    size_t n;

    if (!json_read_text(j, s, &text, &n))
        return;
    if (n >= cap || memchr(text, '\0', n) != NULL) {
        json_in_fail(j, ERR_FORMAT);
        return;
    }
    memcpy(out, text, n);
    out[n] = '\0';
}

int json_read_record(void *rec, size_t size, const void *p, size_t n, json_members_fn *fn)
{
    struct json_in j = json_in_init(p, n);
    struct json_scratch s = {0};

    memset(rec, 0, size);
    if (json_in_object(&j))
        fn(&j, &s, rec);
    else
        json_in_fail(&j, ERR_FORMAT); /* null, which the reader lets pass */
    int rc = json_in_end_input(&j);
    json_scratch_free(&s);
    if (rc != 0)
        memset(rec, 0, size);
    return rc == 0 || rc == ERR_NOMEM || rc == ERR_TOO_LONG ? rc : ERR_FORMAT;
}
