#include "compat-http/tpd_body.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/hex.h"
#include "kademlia/json_read.h"

struct reader {
    struct json_in in;
    struct json_scratch text;
    struct tpd_body *out;
    size_t cap;
    struct tpd_why *why;
    bool said;
};

static void fail(struct reader *r, unsigned status, const char *text)
{
    if (r->in.err != 0)
        return;
    r->said = true;
    r->why->status = status;
    snprintf(r->why->text, sizeof(r->why->text), "%s", text);
    json_in_fail(&r->in, ERR_FORMAT);
}

/* ---- values ---- */

/* As upstream's library for ids says it. */
static void read_id(struct reader *r, struct tp_id *id)
{
    const char *text;
    char why[64];
    size_t n;
    if (!json_read_text(&r->in, &r->text, &text, &n) || tp_id_from_text(id, text, n) == 0)
        return;
    bool length = n != 32 && n != TP_ID_TEXT && n != TP_ID_TEXT + 2 && n != TP_ID_TEXT + 9;
    snprintf(why, sizeof(why), length ? "invalid UUID length: %zu" : "invalid UUID format", n);
    fail(r, 500, why);
}

static void read_key(struct reader *r, struct pubkey *pk)
{
    const char *text;
    size_t n;
    if (json_read_text(&r->in, &r->text, &text, &n) && pubkey_from_json_text(pk, text, n) < 0)
        fail(r, 500, n == PUBKEY_HEX ? "Invalid public key" : "Invalid public key length");
}

static void read_sig(struct reader *r, struct sig *sig)
{
    const char *text;
    size_t n;
    if (json_read_text(&r->in, &r->text, &text, &n) && hex_decode(sig->b, SIG_BYTES, text, n) < 0)
        fail(r, 500, n == 2 * (size_t)SIG_BYTES ? "Invalid signature" : "Invalid signature length");
}

static void read_short(struct reader *r, char out[TP_TEXT_MAX + 1])
{
    json_read_short(&r->in, &r->text, out, TP_TEXT_MAX + 1);
}

static void read_edges(struct reader *r, struct pubkey edge[2])
{
    size_t n = 0;
    if (!json_in_array(&r->in))
        return;
    memset(edge, 0, 2 * sizeof(*edge));
    while (json_in_element(&r->in)) {
        if (n < 2)
            read_key(r, &edge[n++]);
        else
            json_in_skip(&r->in);
    }
}

static void read_sigs(struct reader *r, struct sig sig[2])
{
    size_t n = 0;
    if (!json_in_array(&r->in))
        return;
    memset(sig, 0, 2 * sizeof(*sig));
    while (json_in_element(&r->in)) {
        if (n < 2)
            read_sig(r, &sig[n++]);
        else
            json_in_skip(&r->in);
    }
}

/* False: null. */
static bool read_entry(struct reader *r, struct tp_entry *e)
{
    static const char *const names[] = {"t_id", "edges", "type", "label"};
    if (!json_in_object(&r->in))
        return false;
    while (json_in_member(&r->in)) {
        switch (json_in_name_find(&r->in, names, 4)) {
        case 0:
            read_id(r, &e->id);
            break;
        case 1:
            read_edges(r, e->edges);
            break;
        case 2:
            read_short(r, e->type);
            break;
        case 3:
            read_short(r, e->label);
            break;
        default:
            json_in_skip(&r->in);
        }
    }
    return true;
}

/* Without an entry upstream crashes, and its frame answers 500 without a body. */
static void read_signed(struct reader *r, struct tpd_signed *s)
{
    static const char *const names[] = {"entry", "signatures", "registered"};
    bool has = false;
    if (!json_in_object(&r->in)) {
        fail(r, 500, "");
        return;
    }
    while (json_in_member(&r->in)) {
        switch (json_in_name_find(&r->in, names, 3)) {
        case 0:
            has = read_entry(r, &s->e);
            break;
        case 1:
            read_sigs(r, s->sig);
            break;
        case 2:
            json_in_i64(&r->in, &s->registered);
            break;
        default:
            json_in_skip(&r->in);
        }
    }
    if (!has)
        fail(r, 500, "");
}

/* ---- lists ---- */

static void *grow(struct reader *r, void *p, size_t size)
{
    size_t cap = r->cap > 0 ? 2 * r->cap : 4;
    if (r->out->n == TPD_BATCH_MAX) {
        fail(r, 400, "too many elements");
        return NULL;
    }
    void *more = r->out->n < r->cap ? p : realloc(p, cap * size);
    if (more == NULL)
        json_in_fail(&r->in, ERR_NOMEM);
    else if (r->out->n == r->cap)
        r->cap = cap;
    return more;
}

static struct tpd_signed *add_entry(struct reader *r)
{
    struct tpd_signed *e = grow(r, r->out->e, sizeof(*e));
    if (e == NULL)
        return NULL;
    r->out->e = e;
    e += r->out->n++;
    memset(e, 0, sizeof(*e));
    return e;
}

static void signed_element(struct reader *r)
{
    struct tpd_signed *e = add_entry(r);
    if (e != NULL)
        read_signed(r, e);
}

static void bare_element(struct reader *r)
{
    struct tpd_signed *e = add_entry(r);
    if (e != NULL && !read_entry(r, &e->e))
        fail(r, 500, "");
}

/* What is none is left out and counted: the endpoints differ in what they make of it. */
static void id_element(struct reader *r)
{
    struct tp_id *id = grow(r, r->out->id, sizeof(*id));
    const char *text;
    size_t n;
    if (id == NULL)
        return;
    r->out->id = id;
    if (json_read_text(&r->in, &r->text, &text, &n) &&
        tp_id_from_text(&id[r->out->n], text, n) == 0)
        r->out->n++;
    else
        r->out->bad++;
}

static void key_element(struct reader *r)
{
    struct pubkey *pk = grow(r, r->out->pk, sizeof(*pk));
    const char *text;
    size_t n;
    if (pk == NULL)
        return;
    r->out->pk = pk;
    if (json_read_text(&r->in, &r->text, &text, &n) &&
        pubkey_from_hex(&pk[r->out->n], text, n) == 0)
        r->out->n++;
    else
        r->out->bad++;
}

static const char *kind_of(enum json_tok t)
{
    return t == JSON_TOK_OBJECT   ? "object"
           : t == JSON_TOK_STRING ? "string"
           : t == JSON_TOK_NUMBER ? "number"
                                  : "bool";
}

/* A syntax error anywhere comes before every other one. */
static int check_syntax(const void *p, size_t n, struct tpd_why *why)
{
    struct json_in j = json_in_init(p, n);
    json_in_skip(&j);
    int rc = json_in_end_input(&j);
    if (rc == 0)
        return 0;
    why->status = 400;
    snprintf(why->text, sizeof(why->text), "%s",
             rc == ERR_SHORT ? "unexpected end of JSON input" : "invalid character in JSON input");
    return ERR_FORMAT;
}

static int read_list(struct tpd_body *out, const void *p, size_t n, struct tpd_why *why,
                     const char *type, void (*element)(struct reader *r))
{
    struct reader r = {.in = json_in_init(p, n), .out = out, .why = why};
    char text[sizeof(why->text)];
    *out = (struct tpd_body){.n = 0};
    *why = (struct tpd_why){.status = 500};
    if (check_syntax(p, n, why) < 0)
        return ERR_FORMAT;
    enum json_tok first = json_in_peek(&r.in);
    if (first != JSON_TOK_ARRAY && first != JSON_TOK_NULL) {
        snprintf(text, sizeof(text), "json: cannot unmarshal %s into Go value of type %s",
                 kind_of(first), type);
        fail(&r, 500, text);
    }
    if (json_in_array(&r.in))
        while (json_in_element(&r.in))
            element(&r);
    int rc = json_in_end_input(&r.in);
    json_scratch_free(&r.text);
    if (rc == 0)
        return 0;
    if (!r.said)
        snprintf(why->text, sizeof(why->text), "json: cannot unmarshal an element of type %s",
                 type + 2);
    tpd_body_free(out);
    return ERR_FORMAT;
}

int tpd_body_signed(struct tpd_body *out, const void *p, size_t n, struct tpd_why *why)
{
    return read_list(out, p, n, why, "[]*transport.SignedEntry", signed_element);
}

int tpd_body_bare(struct tpd_body *out, const void *p, size_t n, struct tpd_why *why)
{
    return read_list(out, p, n, why, "[]*transport.Entry", bare_element);
}

int tpd_body_ids(struct tpd_body *out, const void *p, size_t n, struct tpd_why *why)
{
    return read_list(out, p, n, why, "[]string", id_element);
}

int tpd_body_keys(struct tpd_body *out, const void *p, size_t n, struct tpd_why *why)
{
    return read_list(out, p, n, why, "[]string", key_element);
}

void tpd_body_free(struct tpd_body *b)
{
    free(b->e);
    free(b->id);
    free(b->pk);
    *b = (struct tpd_body){.n = 0};
}

/* ---- writing ---- */

void tpd_signed_write(struct json_out *o, const struct tpd_signed *e)
{
    json_out_object(o);
    json_out_name(o, "entry");
    tp_entry_write(o, &e->e);
    json_out_name(o, "signatures");
    json_out_array(o);
    json_out_hex(o, e->sig[0].b, SIG_BYTES);
    json_out_hex(o, e->sig[1].b, SIG_BYTES);
    json_out_array_end(o);
    if (e->registered != 0) {
        json_out_name(o, "registered");
        json_out_i64(o, e->registered);
    }
    json_out_object_end(o);
}

void tpd_signed_digest(struct hash *out, const struct tp_entry *e)
{
    const struct iovec parts[] = {
        {(void *)(uintptr_t)e->id.b, TP_ID_BYTES},
        {(void *)(uintptr_t)e->edges[0].b, PUBKEY_BYTES},
        {(void *)(uintptr_t)e->edges[1].b, PUBKEY_BYTES},
        {(void *)(uintptr_t)e->type, strlen(e->type)},
    };
    crypto_sha256_v(out, parts, sizeof(parts) / sizeof(parts[0]));
}
