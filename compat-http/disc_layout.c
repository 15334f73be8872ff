#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "compat-http/disc_int.h"

#define SERVER_TTL_MS 120000
#define SHORT_TTL_MS  180000 /* ?timeout=true */

const struct kv_str disc_servers = {"servers", 7}, disc_clients = {"clients", 7},
                    disc_visors = {"visorClients", 12};

struct kv_str disc_key(const char *hex)
{
    return (struct kv_str){hex, PUBKEY_HEX};
}

int disc_peek(struct disc_service *d, const struct kv_str *keys, size_t n, kv_done_fn *fn,
              void *arg)
{
    return d->cfg.peek != NULL ? d->cfg.peek(d->cfg.kv, keys, n, fn, arg)
                               : kv_get(d->cfg.kv, keys, n, fn, arg);
}

bool disc_is_entry(struct kv_str v)
{
    const char *p = v.p;
    return v.n >= 2 && p[0] == '{' && p[v.n - 1] == '}';
}

void disc_layout_set(struct disc_job *j, kv_done_fn *fn)
{
    struct disc_service *d = j->d;
    const struct entry *e = j->entry;
    char timeout[8];
    struct kv_op op[4];
    struct kv_str key = disc_key(j->hex);
    bool brief = j->q != NULL && service_query(j->q, "timeout", timeout, sizeof(timeout)) > 0 &&
                 strcmp(timeout, "true") == 0;
    uint64_t ttl = e->has_server ? SERVER_TTL_MS : brief ? SHORT_TTL_MS : d->cfg.client_ttl_ms;
    size_t n = 0;
    op[n++] =
        (struct kv_op){.cmd = KV_SET, .key = key, .value = {j->text, j->text_len}, .ttl_ms = ttl};
    if (e->has_server)
        op[n++] = (struct kv_op){.cmd = KV_SADD, .key = disc_servers, .member = key};
    if (e->has_client)
        op[n++] = (struct kv_op){.cmd = KV_SADD, .key = disc_clients, .member = key};
    if (d->cfg.generation >= DISC_2024 && strcmp(e->client_type, "visor") == 0)
        op[n++] = (struct kv_op){.cmd = KV_SADD, .key = disc_visors, .member = key};
    disc_try(j, kv_write(d->cfg.kv, op, n, fn, j));
}

int disc_layout_delete(struct disc_service *d, const char *hex, size_t n, kv_done_fn *fn, void *arg)
{
    struct kv_op *op = calloc(4 * n + 1, sizeof(*op));
    size_t k = 0;
    if (op == NULL)
        return ERR_NOMEM;
    for (size_t i = 0; i < n; i++) {
        struct kv_str key = disc_key(hex + i * PUBKEY_HEX);
        op[k++] = (struct kv_op){.cmd = KV_DEL, .key = key};
        op[k++] = (struct kv_op){.cmd = KV_SREM, .key = disc_servers, .member = key};
        op[k++] = (struct kv_op){.cmd = KV_SREM, .key = disc_clients, .member = key};
        if (d->cfg.generation >= DISC_2024)
            op[k++] = (struct kv_op){.cmd = KV_SREM, .key = disc_visors, .member = key};
    }
    int rc = kv_write(d->cfg.kv, op, k, fn, arg);
    free(op);
    return rc;
}
