/*
 * tpd_rig - the transport discovery in a service_rig, and what its clients send.
 */
#pragma once

#include "compat-http/tpd_service.h"
#include "tests/unit/compat-http/service_rig.h"

/* env, loop and stores of cfg are the rig's: with Redis the generation of 2024 has its transports in LMDB, and only its nonces there. Waits until the store was read. */
void tpd_start(struct tpd_service_cfg cfg, bool with_redis);
struct tpd_service *tpd_of_rig(void);
/* rig.app_free for it. */
void tpd_rig_free(void *app);
bool tpd_is_ready(void *arg);

/* A signed request with this nonce. */
struct answer tpd_ask(struct signer *s, uint64_t nonce, const char *method, const char *path,
                      const char *body);
/* The nonce that the service expects. */
uint64_t tpd_nonce(const struct signer *s);
/* The same with the nonce it expects. */
struct answer tpd_call(struct signer *s, const char *method, const char *path, const char *body);
/* A list of one signed entry of these edges, until the next call; bare: without signatures. */
const char *tpd_entry(const struct signer *a, const struct signer *b, const char *type,
                      const char *label);
const char *tpd_bare(const struct signer *a, const struct signer *b, const char *type,
                     const char *label);
/* The id of the transport, until the next but three. */
const char *tpd_id(const struct signer *a, const struct signer *b, const char *type);
