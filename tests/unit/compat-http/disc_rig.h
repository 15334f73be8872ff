/*
 * disc_rig - the discovery in a service_rig, and entries for it.
 */
#pragma once

#include "compat-http/disc_service.h"
#include "tests/unit/compat-http/service_rig.h"

/* env, loop and kv of cfg are the rig's. */
void disc_start(struct disc_service_cfg cfg, bool with_redis);
/* To /entry/. */
struct answer disc_post(const char *body);
/* Signed texts, until the next one. */
const char *client_entry(struct signer *s, uint64_t seq, const struct pubkey *via,
                         const char *type);
const char *server_entry(struct signer *s, uint64_t seq, const char *addr, int64_t free_n,
                         const char *type);
/* The signed text of e, which is freed. */
const char *signer_finish(struct signer *s, struct entry *e);
