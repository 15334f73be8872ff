#include "compat-http/kv_open.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/err.h"

/* The writer's thread calls the owner. */
struct wake {
    struct drive_msg msg;
    struct drive_loop *drive;
    struct kv *kv;
    atomic_bool posted;
    bool closed;
};

static void on_wake(struct drive_msg *m)
{
    struct wake *w = (struct wake *)(void *)m;
    atomic_store(&w->posted, false);
    if (w->kv != NULL)
        kv_lmdb_reap(w->kv);
    else if (w->closed)
        free(w);
}

static void wake_up(void *arg)
{
    struct wake *w = arg;
    if (!atomic_exchange(&w->posted, true))
        drive_post(w->drive, &w->msg);
}

static int open_lmdb(struct kv_open *o, const struct kv_open_cfg *cfg, char *why, size_t why_size)
{
    struct wake *w = calloc(1, sizeof(*w));
    if (w == NULL)
        return ERR_NOMEM;
    w->msg.fn = on_wake;
    w->drive = cfg->drive;
    struct kv_lmdb_cfg lmdb = {
        .path = cfg->dir, .commit_ms = cfg->commit_ms, .wake = wake_up, .wake_arg = w};
    int rc = kv_lmdb_open(&o->kv, &lmdb, why, why_size);
    if (rc < 0) {
        free(w);
        return rc;
    }
    w->kv = o->kv;
    o->wake = w;
    return 0;
}

int kv_open(struct kv_open *out, const struct kv_open_cfg *cfg, char *why, size_t why_size)
{
    *out = (struct kv_open){0};
    snprintf(why, why_size, "%s", err_str(ERR_NOMEM));
    if (cfg->redis == NULL)
        return open_lmdb(out, cfg, why, why_size);
    struct kv_redis_cfg redis = {.drive = cfg->drive,
                                 .env = cfg->env,
                                 .url = cfg->redis,
                                 .password = cfg->password,
                                 .state = cfg->state,
                                 .arg = cfg->arg};
    int rc = kv_redis_open(&out->kv, &redis);
    if (rc == ERR_FORMAT)
        snprintf(why, why_size, "not a Redis URL, such as redis://localhost:6379");
    return rc;
}

void kv_open_close(struct kv_open *o)
{
    struct wake *w = o->wake;
    kv_close(o->kv); /* the writer's last words come before its end */
    if (w != NULL) {
        w->kv = NULL;
        w->closed = true;
        if (atomic_load(&w->posted))
            drive_loop_wait_message(w->drive); /* and frees it */
        else
            free(w);
    }
    *o = (struct kv_open){0};
}
