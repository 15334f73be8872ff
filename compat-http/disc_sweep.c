/*
 * Members of the sets whose entry has expired leave them; entries of clients without a life get one (incident 44).
 */
#include <stdlib.h>
#include <string.h>

#include "compat-http/disc_int.h"

#define SWEEP_NS (10 * NS_PER_S)

static void sweep_set(struct disc_job *s);

static void sweep_over(struct disc_job *s)
{
    struct disc_service *d = s->d;
    bool was_servers = !s->clients;
    disc_job_free(s);
    d->sweep_under_way = false;
    if (!was_servers)
        return;
    struct disc_job *next = disc_job_new(d, DISC_JOB_SWEEP, NULL);
    if (next == NULL)
        return;
    next->clients = true;
    d->sweep_under_way = true;
    sweep_set(next);
}

static void on_swept(void *arg, const struct kv_answer *a)
{
    (void)a;
    sweep_over(arg);
}

static void on_lives(void *arg, const struct kv_answer *a)
{
    struct disc_job *s = arg;
    struct disc_service *d = s->d;
    struct kv_op *op = a->err == 0 ? calloc(2 * a->n + 1, sizeof(*op)) : NULL;
    bool renew = s->clients && d->cfg.generation >= DISC_2026 && d->cfg.client_ttl_ms != 0;
    /* 2023 and 2024 keep the keys of clients for ever. */
    bool drop = !s->clients || d->cfg.generation >= DISC_2026;
    size_t n = 0, alive = 0;
    for (size_t i = 0; op != NULL && i < a->n && i < s->n; i++) {
        struct kv_str key = disc_key(s->keys + i * PUBKEY_HEX);
        alive += a->ttl_ms[i] != -2;
        if (a->ttl_ms[i] == -2 && drop) {
            op[n++] = (struct kv_op){
                .cmd = KV_SREM, .key = s->clients ? disc_clients : disc_servers, .member = key};
            if (s->clients)
                op[n++] = (struct kv_op){.cmd = KV_SREM, .key = disc_visors, .member = key};
        } else if (a->ttl_ms[i] == -1 && renew) {
            op[n++] = (struct kv_op){.cmd = KV_EXPIRE, .key = key, .ttl_ms = d->cfg.client_ttl_ms};
        }
    }
    if (op != NULL && s->clients)
        d->stat.clients = alive;
    else if (op != NULL)
        d->stat.servers = alive;
    if (n == 0 || kv_write(d->cfg.kv, op, n, on_swept, s) < 0)
        sweep_over(s);
    free(op);
}

static void on_sweep_members(void *arg, const struct kv_answer *a)
{
    struct disc_job *s = arg;
    struct kv_str *keys = a->err == 0 ? calloc(a->n + 1, sizeof(*keys)) : NULL;
    s->keys = a->err == 0 ? malloc(a->n * PUBKEY_HEX + 1) : NULL;
    if (keys == NULL || s->keys == NULL || a->n == 0) {
        if (a->err == 0 && s->clients)
            s->d->stat.clients = 0;
        else if (a->err == 0)
            s->d->stat.servers = 0;
        free(keys);
        sweep_over(s);
        return;
    }
    for (size_t i = 0; i < a->n; i++) {
        if (a->v[i].n != PUBKEY_HEX)
            continue;
        memcpy(s->keys + s->n * PUBKEY_HEX, a->v[i].p, PUBKEY_HEX);
        keys[s->n] = disc_key(s->keys + s->n * PUBKEY_HEX);
        s->n++;
    }
    if (kv_ttl(s->d->cfg.kv, keys, s->n, on_lives, s) < 0)
        sweep_over(s);
    free(keys);
}

static void sweep_set(struct disc_job *s)
{
    if (kv_members(s->d->cfg.kv, s->clients ? disc_clients : disc_servers, on_sweep_members, s) < 0)
        sweep_over(s);
}

void disc_on_sweep(struct loop_timer *t)
{
    struct disc_service *d = container_of(t, struct disc_service, sweep);
    struct disc_job *s = d->sweep_under_way ? NULL : disc_job_new(d, DISC_JOB_SWEEP, NULL);
    loop_timer_set(d->cfg.loop, t, d->cfg.loop->now_ns + SWEEP_NS);
    if (s == NULL)
        return;
    d->sweep_under_way = true;
    sweep_set(s);
}
