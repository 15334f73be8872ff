#include "compat-http/mirror_kv.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/err.h"
#include "kademlia/codec_json.h"

#define PREFIX   "dht:"
#define KEY_TEXT (sizeof(PREFIX) + KAD_ID_HEX)

struct mirror_kv {
    struct mirror *mirror;
    struct kv *kv;
    unsigned number;
    /* of the batch that is being handed over */
    struct kv_op op[MIRROR_BATCH];
    char key[MIRROR_BATCH][KEY_TEXT];
    char *text[MIRROR_BATCH];
};

static void on_done(void *arg, const struct kv_answer *a)
{
    struct mirror_kv *s = arg;
    mirror_written(s->mirror, s->number, a->err);
}

static int add(struct mirror_kv *s, size_t i, const struct mirror_write *w)
{
    char hex[KAD_ID_HEX + 1];
    size_t n = 0;
    int len = snprintf(s->key[i], KEY_TEXT, "%s%s", PREFIX, kad_id_hex(hex, &w->target));
    s->op[i] = (struct kv_op){.cmd = KV_DEL, .key = {s->key[i], (size_t)len}};
    s->text[i] = NULL;
    if (w->gone)
        return 0;
    int rc = kad_json_item(&s->text[i], &n, &w->item->item);
    s->op[i].cmd = KV_SET;
    s->op[i].value = (struct kv_str){s->text[i], n};
    return rc;
}

static int write_batch(void *arg, const struct mirror_write *w, size_t n, size_t *taken)
{
    struct mirror_kv *s = arg;
    size_t i = 0;
    int rc = 0;
    for (; i < n && rc == 0; i++)
        rc = add(s, i, &w[i]);
    if (rc == 0)
        rc = kv_write(s->kv, s->op, n, on_done, s);
    *taken = n;
    while (i > 0)
        free(s->text[--i]);
    return rc;
}

int mirror_kv_new(struct mirror_kv **out, struct mirror *m, struct kv *kv, const char *name)
{
    struct mirror_kv *s = *out = calloc(1, sizeof(*s));
    if (s == NULL)
        return ERR_NOMEM;
    s->mirror = m;
    s->kv = kv;
    s->number = mirror_add_sink(m, name, write_batch, s);
    return 0;
}

void mirror_kv_free(struct mirror_kv *s)
{
    free(s);
}
