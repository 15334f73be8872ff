/*
 * service_rig - a service of compat-http on a store, in the test's own loop, and a client that asks it over TCP.
 *
 *     cmocka_unit_test_setup_teardown(test, rig_setup, rig_teardown)
 *     rig_open_store(with_redis);
 *     rig.app = app; rig.app_free = app_free; (optional: rig_stop() ends it)
 *     rig_serve(routes, n_routes, app, dropped);
 *     assert_true(rig_says(rig_get("/health"), 200, "started_at"));
 */
#pragma once

#include "base/env_test.h"
#include "compat-http/kv_open.h"
#include "compat-http/service.h"
#include "tests/unit/compat-http/redis_rig.h"
#include "tests/unit/node/tmpdir.h"
#include "tests/unit/vectors.h"

#define RIG_WAIT_NS (30 * NS_PER_S)

struct service_rig {
    struct drive_loop *drive;
    struct env_test env;
    struct kv_open store;
    struct service *service;
    struct tmpdir dir;
    bool redis_ready;         /* the store's connection */
    bool keep_redis;          /* the next rig_open_store() leaves what is in it */
    void (*store_back)(void); /* optional: the connection is there, maybe again */
    void *app;
    void (*app_free)(void *app);
};

extern struct service_rig rig;

struct answer {
    int status;
    char head[4096];
    char *body; /* until the next request */
};

struct signer {
    struct seckey sk;
    struct pubkey pk;
    char hex[PUBKEY_HEX + 1];
};

int rig_setup(void **state);
int rig_teardown(void **state);
/* LMDB in rig.dir, or an empty Redis that is connected. */
void rig_open_store(bool with_redis);
void rig_serve(const struct service_route *routes, size_t n, void *app,
               void (*dropped)(struct service_req *q));
/* Ends service, app and store; rig_open_store() may follow. */
void rig_stop(void);
void rig_turn(void);
void rig_wait(bool (*done)(void *arg), void *arg);
/* headers: an object of texts, or NULL. */
struct answer rig_request(const char *method, const char *path, const json_t *headers,
                          const char *body);
struct answer rig_get(const char *path);
/* Prints what came instead. */
bool rig_says(struct answer a, int status, const char *part);
struct signer signer_new(void);
