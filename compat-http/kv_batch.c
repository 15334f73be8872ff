#include "compat-http/kv_batch.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"

#define ROOM     ((size_t)4096)
#define TEXT_MAX 2048

struct kv_batch_room {
    struct kv_batch_room *next;
    size_t used, size;
    char p[];
};

static char *room_for(struct kv_batch *b, size_t n)
{
    struct kv_batch_room *r = b->rooms;
    if (b->err != 0)
        return NULL;
    if (r == NULL || r->size - r->used < n) {
        size_t size = n > ROOM ? n : ROOM;
        if ((r = malloc(sizeof(*r) + size)) == NULL) {
            b->err = ERR_NOMEM;
            return NULL;
        }
        *r = (struct kv_batch_room){.next = b->rooms, .size = size};
        b->rooms = r;
    }
    char *p = r->p + r->used;
    r->used += n;
    return p;
}

struct kv_str kv_batch_copy(struct kv_batch *b, const void *p, size_t n)
{
    char *to = room_for(b, n);
    if (to == NULL)
        return (struct kv_str){"", 0};
    if (n > 0)
        memcpy(to, p, n);
    return (struct kv_str){to, n};
}

struct kv_str kv_batch_text(struct kv_batch *b, const char *fmt, ...)
{
    char text[TEXT_MAX];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (n < 0 || n >= TEXT_MAX) {
        b->err = b->err != 0 ? b->err : ERR_LIMIT;
        return (struct kv_str){"", 0};
    }
    return kv_batch_copy(b, text, (size_t)n);
}

void kv_batch_add(struct kv_batch *b, struct kv_op op)
{
    if (b->n == KV_OPS_MAX && b->err == 0)
        b->err = ERR_LIMIT;
    if (b->err == 0 && b->n == b->cap) {
        size_t cap = b->cap > 0 ? 2 * b->cap : 16;
        struct kv_op *more = realloc(b->op, cap * sizeof(*more));
        if (more != NULL) {
            b->op = more;
            b->cap = cap;
        } else {
            b->err = ERR_NOMEM;
        }
    }
    if (b->err == 0)
        b->op[b->n++] = op;
}

int kv_batch_write(struct kv_batch *b, struct kv *kv, kv_done_fn *fn, void *arg)
{
    int rc = b->err != 0 ? b->err : b->n == 0 ? ERR_STATE : kv_write(kv, b->op, b->n, fn, arg);
    kv_batch_free(b);
    return rc;
}

void kv_batch_free(struct kv_batch *b)
{
    struct kv_batch_room *r;
    while ((r = b->rooms) != NULL) {
        b->rooms = r->next;
        free(r);
    }
    free(b->op);
    *b = (struct kv_batch){0};
}
