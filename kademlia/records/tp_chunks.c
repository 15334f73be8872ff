#include "kademlia/records/tp_chunks.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "kademlia/item.h"

char *tp_salt(char out[TP_SALT_MAX], size_t i)
{
    if (i == 0)
        memcpy(out, "tp", 3);
    else
        snprintf(out, TP_SALT_MAX, "tp:%u", (unsigned)i % 1000);
    return out;
}

int tp_salt_chunk(const void *salt, size_t n)
{
    const char *s = salt;
    int chunk = 0;

    if (n < 2 || memcmp(s, "tp", 2) != 0)
        return -1;
    if (n == 2)
        return 0;
    if (s[2] != ':' || n == 3 || n > 6 || s[3] == '0')
        return -1;
    for (size_t i = 3; i < n; i++) {
        if (s[i] < '0' || s[i] > '9')
            return -1;
        chunk = 10 * chunk + (s[i] - '0');
    }
    return chunk;
}

/* ---- writing ---- */

/* An upper bound of what tp_entry_write() gives: every byte of the texts escaped. */
static size_t entry_size(const struct tp_entry *e)
{
    return 64 + TP_ID_TEXT + 2 * (PUBKEY_HEX + 3) + 6 * (strlen(e->type) + strlen(e->label));
}

/* As many entries as fit, from e on. Returns how many, or an error. */
static int write_chunk(struct tp_chunk *out, const struct tp_entry *e, size_t left)
{
    struct json_out o;
    size_t n = 0;

    assert(e != NULL || left == 0);
    json_out_grow(&o, JSON_STD, ITEM_MAX_VALUE);
    json_out_array(&o);
    while (n < left && n < TP_CHUNK_SIZE && o.len + entry_size(&e[n]) + 2 <= ITEM_MAX_VALUE)
        tp_entry_write(&o, &e[n++]);
    json_out_array_end(&o);
    if (o.err != 0) {
        int rc = o.err;
        json_out_free(&o);
        return rc;
    }
    *out = (struct tp_chunk){.text = o.p, .n = o.len};
    return (int)n;
}

int tp_split(struct tp_chunks *out, const struct tp_list *l, size_t before)
{
    size_t done = 0;
    int rc = 0;

    memset(out, 0, sizeof *out);
    for (; rc >= 0 && (done < l->n || out->n < before || out->n == 0); out->n++) {
        if (out->n == TP_CHUNKS_MAX) {
            rc = ERR_TOO_LONG;
            break;
        }
        rc = write_chunk(&out->v[out->n], l->n > 0 ? l->e + done : NULL, l->n - done);
        if (rc < 0)
            break;
        done += (size_t)rc;
        if (rc > 0 || out->n == 0)
            out->used++;
    }
    if (rc >= 0)
        return 0;
    tp_chunks_free(out);
    return rc;
}

void tp_chunks_free(struct tp_chunks *c)
{
    for (size_t i = 0; i < c->n; i++)
        free(c->v[i].text);
    memset(c, 0, sizeof *c);
}

/* ---- reading ---- */

static int append(struct tp_list *to, const struct tp_list *from, const struct pubkey *subject)
{
    if (from->n == 0)
        return 0;
    struct tp_entry *e = realloc(to->e, (to->n + from->n) * sizeof *e);

    if (e == NULL)
        return ERR_NOMEM;
    to->e = e;
    for (size_t i = 0; i < from->n; i++) {
        const struct tp_entry *t = &from->e[i];
        if (pubkey_equal(&t->edges[0], subject) || pubkey_equal(&t->edges[1], subject))
            to->e[to->n++] = *t;
    }
    return 0;
}

int tp_join_add(struct tp_join *j, const struct pubkey *subject, const void *v, size_t n,
                bool *more)
{
    struct tp_list l;
    int rc = tp_decode(&l, subject, v, n);

    *more = false;
    if (rc != 0)
        return rc;
    rc = append(&j->list, &l, subject);
    if (rc == 0) {
        j->next++;
        *more = l.n > 0 && j->next < TP_CHUNKS_MAX;
    }
    tp_list_free(&l);
    return rc;
}

void tp_join_free(struct tp_join *j)
{
    tp_list_free(&j->list);
    j->next = 0;
}
