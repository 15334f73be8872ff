/*
 * facade - the dmsg discovery's API on a node: an unmodified Go program that is pointed at it becomes DHT-first. What it says and keeps is node/face.h; here it gets HTTP.
 */
#include <stdlib.h>

#include "base/err.h"
#include "base/log.h"
#include "compat-http/disc_service.h"
#include "node/face.h"
#include "node/keyfile.h"
#include "node/node_int.h"

struct facade {
    struct node *node;
    struct face *face;
    struct disc_service *disc;
    struct service *service;
};

static void each_server(void *arg, face_server_fn *fn, void *fn_arg)
{
    servers_each(arg, fn, fn_arg);
}

static void learn_server(void *arg, const struct pubkey *pk, const char *addr)
{
    servers_learn(arg, pk, addr);
}

static int read_carrier(const struct node *n, struct seckey *sk, char why[NODE_WHY])
{
    struct pubkey pk;
    *sk = n->cfg.sk;
    if (n->cfg.publish_sk_file == NULL)
        return 0;
    int rc = keyfile_read(sk, &pk, n->cfg.publish_sk_file);
    if (rc < 0)
        snprintf(why, NODE_WHY, "key file %s: %s", n->cfg.publish_sk_file, err_str(rc));
    return rc;
}

static int open_face(struct facade *f, char why[NODE_WHY])
{
    struct node *n = f->node;
    struct face_cfg cfg = {
        .env = n->env,
        .loop = n->loop,
        .resolve = n->resolve,
        .store = n->store,
        .host = n->policy.publish_dht ? n->host : NULL,
        .port = n->discovery != NULL ? &n->disc : NULL,
        .ask = n->policy.ask_http,
        .forward = n->policy.registers != NODE_REGISTERS_NEVER,
        .servers = each_server,
        .learn = learn_server,
        .arg = n,
    };
    int rc = read_carrier(n, &cfg.carrier, why);
    if (rc == 0)
        rc = face_new(&f->face, &cfg);
    seckey_wipe(&cfg.carrier);
    return rc;
}

static int serve(struct facade *f)
{
    struct node *n = f->node;
    struct disc_service_cfg disc = {
        .env = n->env,
        .loop = n->loop,
        .kv = face_kv(f->face),
        .peek = face_peek,
        .generation = DISC_2023, /* entries stay as they were signed */
        .test_mode = true,       /* who asks is on this machine, or in this network */
        .stored = face_stored,
        .taken_back = face_taken_back,
        .arg = f->face,
    };
    int rc = disc_service_new(&f->disc, &disc);
    struct service_cfg cfg = {
        .drive = n->drive,
        .env = n->env,
        .routes = disc_service_routes,
        .n_routes = disc_service_n_routes,
        .app = f->disc,
        .dropped = disc_service_dropped,
        .check_host = true,
    };
    if (rc == 0)
        rc = service_new(&f->service, &cfg);
    return rc == 0 ? service_listen(f->service, n->cfg.http) : rc;
}

static int facade_open(struct node *n, char why[NODE_WHY])
{
    struct facade *f;
    if (n->cfg.http == NULL)
        return 0;
    if ((f = calloc(1, sizeof(*f))) == NULL)
        return ERR_NOMEM;
    n->facade = f;
    f->node = n;
    int rc = open_face(f, why);
    if (rc == 0 && (rc = serve(f)) < 0)
        snprintf(why, NODE_WHY, "http %s: %s", n->cfg.http, err_str(rc));
    if (rc == 0)
        log_info(LOG_HTTP, "discovery API on this node addr=%s", service_addr(f->service, 0));
    return rc;
}

static void facade_close(struct node *n)
{
    struct facade *f = n->facade;
    if (f == NULL)
        return;
    n->facade = NULL;
    service_free(f->service);
    disc_service_free(f->disc);
    face_free(f->face);
    free(f);
}

const char *node_http_addr(const struct node *n)
{
    return n->facade != NULL ? service_addr(n->facade->service, 0) : NULL;
}

void facade_stat(const struct node *n, struct face_stat *out)
{
    *out = (struct face_stat){0};
    if (n->facade != NULL && n->facade->face != NULL)
        face_stat(n->facade->face, out);
}

const struct node_part node_part_facade = {.open = facade_open, .close = facade_close};
