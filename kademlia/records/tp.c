#include "kademlia/records/tp.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/err.h"
#include "base/hex.h"
#include "base/json.h"
#include "kademlia/item.h"
#include "kademlia/json_read.h"

/* ---- transport ids ---- */

/* Edges in the order of their 33 bytes as numbers. */
static void set_edges(struct tp_entry *e, const struct pubkey *a, const struct pubkey *b)
{
    bool swap = pubkey_cmp(a, b) > 0;

    e->edges[0] = swap ? *b : *a;
    e->edges[1] = swap ? *a : *b;
}

struct tp_id tp_id_of(const struct pubkey *a, const struct pubkey *b, const char *type)
{
    static const uint8_t space[16];
    struct tp_entry e;
    struct tp_id id;
    struct hash h;

    set_edges(&e, a, b);
    const struct iovec parts[] = {
        {.iov_base = (void *)(uintptr_t)space, .iov_len = sizeof space},
        {.iov_base = e.edges[0].b, .iov_len = PUBKEY_BYTES},
        {.iov_base = e.edges[1].b, .iov_len = PUBKEY_BYTES},
        {.iov_base = (void *)(uintptr_t)type, .iov_len = strlen(type)},
    };
    crypto_sha256_v(&h, parts, sizeof parts / sizeof parts[0]);
    memcpy(id.b, h.b, sizeof id.b);
    id.b[6] &= 0x0f;
    id.b[8] = (id.b[8] & 0x3f) | 0x80;
    return id;
}

char *tp_id_text(char out[TP_ID_TEXT + 1], const struct tp_id *id)
{
    char hex[HEX_LEN(TP_ID_BYTES) + 1], *p = out;

    hex_encode(hex, id->b, sizeof id->b);
    for (size_t i = 0; i < HEX_LEN(TP_ID_BYTES); i++) {
        if (i == 8 || i == 12 || i == 16 || i == 20)
            *p++ = '-';
        *p++ = hex[i];
    }
    *p = '\0';
    return out;
}

int tp_id_from_text(struct tp_id *out, const char *text, size_t n)
{
    static const char urn[] = "urn:uuid:";
    char hex[HEX_LEN(TP_ID_BYTES)];
    size_t len = 0;

    if (n == TP_ID_TEXT + 9 && strncasecmp(text, urn, 9) == 0) {
        text += 9;
        n -= 9;
    } else if (n == TP_ID_TEXT + 2 && text[0] == '{' && text[n - 1] == '}') {
        text += 1;
        n -= 2;
    } else if (n == sizeof hex) {
        return hex_decode(out->b, sizeof out->b, text, n);
    }
    if (n != TP_ID_TEXT)
        return ERR_FORMAT;
    for (size_t i = 0; i < n; i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        if (dash != (text[i] == '-'))
            return ERR_FORMAT;
        if (!dash)
            hex[len++] = text[i];
    }
    return hex_decode(out->b, sizeof out->b, hex, len);
}

void tp_entry_write(struct json_out *o, const struct tp_entry *e)
{
    char id[TP_ID_TEXT + 1];

    json_out_object(o);
    json_out_name(o, "t_id");
    json_out_str(o, tp_id_text(id, &e->id));
    json_out_name(o, "edges");
    json_out_array(o);
    json_out_hex(o, e->edges[0].b, PUBKEY_BYTES);
    json_out_hex(o, e->edges[1].b, PUBKEY_BYTES);
    json_out_array_end(o);
    json_out_name(o, "type");
    json_out_str(o, e->type);
    json_out_name(o, "label");
    json_out_str(o, e->label);
    json_out_object_end(o);
}

/* ---- values ---- */

struct reader {
    struct json_in in;
    struct json_scratch text;
    struct tp_list *out;
};

static struct tp_entry *add(struct reader *r)
{
    struct tp_list *l = r->out;

    if ((l->n & (l->n - 1)) == 0) { /* full at 0 and every power of two */
        struct tp_entry *e = realloc(l->e, (l->n > 0 ? 2 * l->n : 1) * sizeof *e);
        if (e == NULL) {
            json_in_fail(&r->in, ERR_NOMEM);
            return NULL;
        }
        l->e = e;
    }
    memset(&l->e[l->n], 0, sizeof l->e[0]);
    return &l->e[l->n++];
}

static void read_tp_id(struct reader *r, struct tp_id *id)
{
    const char *text;
    size_t n;

    if (json_read_text(&r->in, &r->text, &text, &n) && tp_id_from_text(id, text, n) != 0)
        json_in_fail(&r->in, ERR_FORMAT);
}

static void read_edges(struct reader *r, struct pubkey edges[2])
{
    size_t n = 0;

    if (!json_in_array(&r->in))
        return;
    memset(edges, 0, 2 * sizeof edges[0]);
    while (json_in_element(&r->in)) {
        if (n < 2)
            json_read_pubkey(&r->in, &r->text, &edges[n++]);
        else
            json_in_skip(&r->in);
    }
}

static void read_entry(struct reader *r, struct tp_entry *e)
{
    static const char *const names[] = {"t_id", "edges", "type", "label"};

    if (!json_in_object(&r->in))
        return;
    while (json_in_member(&r->in)) {
        switch (json_in_name_find(&r->in, names, 4)) {
        case 0:
            read_tp_id(r, &e->id);
            break;
        case 1:
            read_edges(r, e->edges);
            break;
        case 2:
            json_read_short(&r->in, &r->text, e->type, sizeof e->type);
            break;
        case 3:
            json_read_short(&r->in, &r->text, e->label, sizeof e->label);
            break;
        default:
            json_in_skip(&r->in);
        }
    }
}

/* {"entry":{…},"signatures":[…]} */
static void read_signed(struct reader *r, struct tp_entry *e)
{
    if (!json_in_object(&r->in))
        return;
    while (json_in_member(&r->in)) {
        if (json_in_name_is(&r->in, "entry"))
            read_entry(r, e);
        else
            json_in_skip(&r->in);
    }
}

static void read_entries(struct reader *r, void (*read)(struct reader *r, struct tp_entry *e))
{
    if (!json_in_array(&r->in))
        return;
    while (json_in_element(&r->in)) {
        struct tp_entry *e = add(r);
        if (e == NULL)
            return;
        read(r, e);
        if (pubkey_is_null(&e->edges[0]) || pubkey_is_null(&e->edges[1]))
            r->out->n--;
    }
}

static void read_bare_shape(struct reader *r)
{
    read_entries(r, read_entry);
}

static void read_signed_shape(struct reader *r)
{
    read_entries(r, read_signed);
}

struct row {
    struct pubkey r;
    char t[TP_TEXT_MAX + 1];
};

static void read_row(struct reader *r, struct row *row)
{
    static const char *const names[] = {"r", "t", "l"};
    const char *text;
    size_t n;

    memset(row, 0, sizeof *row);
    if (!json_in_object(&r->in))
        return;
    while (json_in_member(&r->in)) {
        switch (json_in_name_find(&r->in, names, 3)) {
        case 0: /* a bad key costs its row only */
            if (json_read_text(&r->in, &r->text, &text, &n) &&
                pubkey_from_hex(&row->r, text, n) != 0)
                memset(&row->r, 0, sizeof row->r);
            break;
        case 1:
            json_read_short(&r->in, &r->text, row->t, sizeof row->t);
            break;
        case 2:
            if (json_in_peek(&r->in) != JSON_TOK_NUMBER && json_in_peek(&r->in) != JSON_TOK_NULL)
                json_in_fail(&r->in, ERR_FORMAT);
            json_in_skip(&r->in);
            break;
        default:
            json_in_skip(&r->in);
        }
    }
}

/* Rows become entries when the source is known; before that they have it as a null edge. */
static void read_rows(struct reader *r)
{
    struct row row;

    if (!json_in_array(&r->in))
        return;
    while (json_in_element(&r->in)) {
        read_row(r, &row);
        if (pubkey_is_null(&row.r) || row.t[0] == '\0')
            continue;
        struct tp_entry *e = add(r);
        if (e == NULL)
            return;
        e->edges[1] = row.r;
        memcpy(e->type, row.t, sizeof e->type);
    }
}

static void set_source(struct tp_list *l, const struct pubkey *source)
{
    for (size_t i = 0; i < l->n; i++) {
        struct pubkey remote = l->e[i].edges[1];
        set_edges(&l->e[i], source, &remote);
        l->e[i].id = tp_id_of(source, &remote, l->e[i].type);
    }
}

static void read_envelope_shape(struct reader *r)
{
    static const char *const names[] = {"s", "ts"};
    struct pubkey source = {{0}};

    if (!json_in_object(&r->in))
        return;
    while (json_in_member(&r->in)) {
        switch (json_in_name_find(&r->in, names, 2)) {
        case 0:
            json_read_pubkey(&r->in, &r->text, &source);
            break;
        case 1:
            r->out->n = 0; /* of a duplicate */
            read_rows(r);
            break;
        default:
            json_in_skip(&r->in);
        }
    }
    if (pubkey_is_null(&source))
        json_in_fail(&r->in, ERR_FORMAT);
    else
        set_source(r->out, &source);
}

/* 0 when the value has this shape and yields transports, else ERR_NOT_FOUND or the error. */
static int try_shape(struct tp_list *out, void (*read)(struct reader *r), const void *v, size_t n)
{
    struct reader r = {.in = json_in_init(v, n), .out = out};

    out->n = 0;
    read(&r);
    int rc = json_in_end_input(&r.in);
    json_scratch_free(&r.text);
    return rc != 0 ? rc : out->n > 0 ? 0 : ERR_NOT_FOUND;
}

static bool is_empty_list(const void *v, size_t n)
{
    struct json_in j = json_in_init(v, n);

    if (json_in_array(&j) && json_in_element(&j))
        return false;
    return json_in_end_input(&j) == 0;
}

int tp_decode(struct tp_list *out, const struct pubkey *subject, const void *v, size_t n)
{
    void (*const shapes[])(struct reader *) = {read_bare_shape, read_signed_shape,
                                               read_envelope_shape, read_rows};
    int rc = ERR_FORMAT;

    *out = (struct tp_list){.n = 0};
    if (n > ITEM_MAX_VALUE)
        return ERR_TOO_LONG;
    if (is_empty_list(v, n))
        return 0;
    for (size_t i = 0; i < 4 && rc != 0 && rc != ERR_NOMEM; i++) {
        rc = try_shape(out, shapes[i], v, n);
        if (rc == 0 && shapes[i] == read_rows)
            set_source(out, subject);
    }
    if (rc == 0)
        return 0;
    tp_list_free(out);
    return rc == ERR_NOMEM ? rc : ERR_FORMAT;
}

void tp_list_free(struct tp_list *l)
{
    free(l->e);
    *l = (struct tp_list){.n = 0};
}
