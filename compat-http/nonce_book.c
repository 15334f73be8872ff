#include "compat-http/nonce_book.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"

struct nonce_key { /* a key that has its turn */
    struct pubkey pk;
    struct list queue; /* turns that wait */
};

struct show {
    struct list_node node; /* in book->shows */
    struct service_req *q; /* NULL: nobody waits */
    struct pubkey pk;
};

static void nonce_key_text(char out[NONCE_KEY], const char *service, const struct pubkey *pk)
{
    char hex[PUBKEY_HEX + 1];
    snprintf(out, NONCE_KEY, "%s:nonces:%s", service, pubkey_hex(hex, pk));
}

/* A number as Redis has it; a missing key is 0. */
static int read_nonce(uint64_t *out, const struct kv_answer *a)
{
    const char *p = a->n > 0 ? a->v[0].p : NULL;
    *out = 0;
    if (a->err != 0)
        return a->err;
    for (size_t i = 0; p != NULL && i < a->v[0].n; i++) {
        if (p[i] < '0' || p[i] > '9' || *out > (UINT64_MAX - 9) / 10)
            return ERR_CORRUPT;
        *out = *out * 10 + (uint64_t)(p[i] - '0');
    }
    return 0;
}

/* ---- turns ---- */

static void refuse(struct nonce_turn *t, const char *text)
{
    t->book->refused++;
    if (t->q != NULL)
        httpauth_refuse(t->q, text);
    t->q = NULL;
    t->fn(t, ERR_REFUSED);
}

static void on_nonce(void *arg, const struct kv_answer *a)
{
    struct nonce_turn *t = arg;
    char text[HTTPAUTH_TEXT];
    uint64_t stored;
    int rc = read_nonce(&stored, a);
    if (rc == 0 && t->q == NULL)
        rc = ERR_CANCELLED;
    if (rc < 0)
        t->fn(t, rc);
    else if (!httpauth_check(&t->auth, stored, t->q->body, t->q->body_len, text))
        refuse(t, text);
    else
        t->fn(t, 0);
}

static void begin(struct nonce_turn *t)
{
    struct kv_str key = {t->text, strlen(t->text)};
    if (t->auth.by_channel) {
        t->fn(t, t->q != NULL ? 0 : ERR_CANCELLED);
        return;
    }
    int rc = kv_get(t->book->kv, &key, 1, on_nonce, t);
    if (rc < 0)
        t->fn(t, rc); /* else it may be gone by now */
}

void nonce_turn_enter(struct nonce_book *b, struct nonce_turn *t, struct service_req *q)
{
    char text[HTTPAUTH_TEXT];
    t->book = b;
    t->q = q;
    if (!httpauth_read(&t->auth, q, text)) {
        refuse(t, text);
        return;
    }
    t->pk = t->auth.pk;
    nonce_key_text(t->text, b->service, &t->pk);
    snprintf(t->set, sizeof(t->set), "%s:nonces", b->service);
    struct nonce_key *k = map_get(&b->keys, &t->pk);
    if (k != NULL) {
        t->key = k;
        list_push_back(&k->queue, &t->node);
        return;
    }
    if ((k = calloc(1, sizeof(*k))) == NULL) {
        t->fn(t, ERR_NOMEM);
        return;
    }
    k->pk = t->pk;
    list_init(&k->queue);
    int rc = map_put(&b->keys, k);
    if (rc < 0) {
        free(k);
        t->fn(t, rc);
        return;
    }
    t->key = k;
    t->up = true;
    begin(t);
}

/* Not from inside the one that left: their number is a peer's. */
static void on_next(struct loop_task *task)
{
    struct nonce_book *b = container_of(task, struct nonce_book, next);
    struct list now;
    struct nonce_turn *t;
    list_init(&now);
    list_splice(&now, &b->ready);
    while ((t = list_pop_front_as(&now, struct nonce_turn, node)) != NULL)
        begin(t);
}

void nonce_turn_leave(struct nonce_turn *t)
{
    struct nonce_key *k = t->key;
    if (k == NULL)
        return;
    t->key = NULL;
    t->q = NULL;
    list_remove(&t->node);
    if (!t->up) /* its turn had not come */
        return;
    struct nonce_turn *next = list_pop_front_as(&k->queue, struct nonce_turn, node);
    if (next == NULL) {
        (void)map_del(&t->book->keys, &k->pk);
        free(k);
        return;
    }
    next->up = true;
    list_push_back(&t->book->ready, &next->node);
    loop_task_post(t->book->loop, &t->book->next);
}

size_t nonce_turn_ops(const struct nonce_turn *t, struct kv_op op[NONCE_OPS])
{
    if (t->auth.by_channel)
        return 0;
    struct kv_str key = {t->text, strlen(t->text)}, set = {t->set, strlen(t->set)};
    op[0] = (struct kv_op){.cmd = KV_INCR, .key = key, .number = 1};
    op[1] = (struct kv_op){.cmd = KV_SADD, .key = set, .member = {t->pk.b, PUBKEY_BYTES}};
    return NONCE_OPS;
}

/* ---- what the number is ---- */

static void answer_key_error(struct service_req *q)
{
    service_answer_text(q, 400, SERVICE_JSON,
                        "{\"error\":{\"message\":\"Invalid public key\",\"code\":400}}\n");
}

static void answer_nonce(struct service_req *q, const struct pubkey *pk, uint64_t nonce)
{
    char text[200], hex[PUBKEY_HEX + 1];
    snprintf(text, sizeof(text), "{\"edge\":\"%s\",\"next_nonce\":%llu}\n", pubkey_hex(hex, pk),
             (unsigned long long)nonce);
    service_answer_text(q, 200, SERVICE_JSON, text);
}

static void answer_failure(struct service_req *q)
{
    service_answer(q, 500, NULL, "", 0);
}

static void show_free(struct show *s)
{
    if (s->q != NULL)
        s->q->user = NULL;
    list_remove(&s->node);
    free(s);
}

static void on_show(void *arg, const struct kv_answer *a)
{
    struct show *s = arg;
    uint64_t nonce;
    int rc = read_nonce(&nonce, a);
    struct service_req *q = s->q;
    struct pubkey pk = s->pk;
    show_free(s);
    if (q != NULL && rc == 0)
        answer_nonce(q, &pk, nonce);
    else if (q != NULL)
        answer_failure(q);
}

void nonce_book_show(struct nonce_book *b, struct service_req *q)
{
    char text[NONCE_KEY];
    struct pubkey pk;
    if (pubkey_from_json_text(&pk, q->param[0], strlen(q->param[0])) < 0 || pubkey_is_null(&pk)) {
        answer_key_error(q);
        return;
    }
    struct show *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        answer_failure(q);
        return;
    }
    s->q = q;
    s->pk = pk;
    q->user = s;
    list_push_back(&b->shows, &s->node);
    nonce_key_text(text, b->service, &pk);
    struct kv_str key = {text, strlen(text)};
    if (kv_get(b->kv, &key, 1, on_show, s) < 0) {
        show_free(s);
        answer_failure(q);
    }
}

void nonce_show_dropped(struct service_req *q)
{
    struct show *s = q->user;
    if (s != NULL)
        s->q = NULL;
}

/* ---- life ---- */

void nonce_book_init(struct nonce_book *b, struct kv *kv, struct env *env, struct loop *loop,
                     const char *service)
{
    memset(b, 0, sizeof(*b));
    b->kv = kv;
    b->loop = loop;
    snprintf(b->service, sizeof(b->service), "%s", service);
    map_init(&b->keys, MAP_KEY(struct nonce_key, pk), env->hash_key, NONCE_KEYS);
    list_init(&b->ready);
    list_init(&b->shows);
    b->next.fn = on_next;
}

void nonce_book_free(struct nonce_book *b)
{
    struct show *s;
    while ((s = list_first_as(&b->shows, struct show, node)) != NULL)
        show_free(s);
    loop_task_cancel(b->loop, &b->next);
    map_free(&b->keys);
}
