/*
 * uptime - who was seen when, as services of 2026 keep and tell it (docs/protocol/services.md §3.4, §9.3).
 *
 * uptime_note() says that a key was seen. What is kept, under the service's prefix, for 8 days: how often it was seen on a day (UTC) and with which version, who was
 * seen that day, and in which of its 288 slots of 5 minutes. Notes are gathered and written together, neighbouring keys at once, gather_ns after the first of them at the latest,
 * when another slot begins, and at the end: one that is lost in a crash costs a heartbeat, not a registration. Several notes of one key are one write.
 *
 * uptime_list() reads the last 7 days of some keys, or of all that were seen. Those who ask for all at the same time, or within UPTIME_KEPT_NS, get one answer.
 *
 * Limits: UPTIME_GATHERED keys (more are lost, counted), UPTIME_KEYS of a question, UPTIME_ASKING questions at once. One thread. The store must outlive it, and calls into
 * it that are under way must be over or dropped when uptime_free() is called.
 *
 *     struct uptime_cfg cfg = {.env = env, .loop = loop, .kv = kv, .prefix = "dmsgd", .expected = 288, .gather_ns = 5 * NS_PER_S, .online = online, .arg = me};
 *     rc = uptime_new(&u, &cfg);
 *     uptime_note(u, &pk, "v1.3.29", 7);
 *     rc = uptime_list(u, &spec, done, me);
 */
#pragma once

#include "base/crypto.h"
#include "base/env.h"
#include "base/loop.h"
#include "compat-http/service.h"
#include "store/kv.h"

#define UPTIME_DAYS     7
#define UPTIME_SLOTS    288
#define UPTIME_GATHERED 16384
#define UPTIME_KEYS     16384
#define UPTIME_ALL      131072 /* keys of an answer about all; the others are left out */
#define UPTIME_ASKING   64
#define UPTIME_KEPT_NS  (15 * NS_PER_S)

struct uptime;

struct uptime_cfg {
    struct env *env;
    struct loop *loop;
    struct kv *kv;
    const char *prefix; /* kept; "dmsgd", "transport-discovery" */
    unsigned expected;  /* heartbeats of a day */
    uint64_t gather_ns; /* 0: at the end of the turn */
    /* Is it online? value: what the store has under the key's text, p NULL = nothing. */
    bool (*online)(void *arg, const struct pubkey *pk, struct kv_str value);
    void *arg;
};

struct uptime_stat {
    size_t gathered, asking; /* gauges */
    uint64_t notes, writes, lost, failed, lists;
};

enum uptime_version { UPTIME_PLAIN, UPTIME_V2, UPTIME_V3, UPTIME__VERSIONS };

struct uptime_spec {
    enum uptime_version v;
    bool all;
    struct pubkey *pk; /* !all: n of them, from malloc() */
    size_t n;
};

/* 0, ERR_NOMEM. */
int uptime_new(struct uptime **out, const struct uptime_cfg *cfg)
    __attribute__((warn_unused_result));
/* Hands what was gathered to the store; answers of lists are not given any more. NULL is allowed. */
void uptime_free(struct uptime *u);

void uptime_note(struct uptime *u, const struct pubkey *pk, const char *version, size_t n);

/* What was asked for: by query (v, visors) or by body. Keys that are none are left out. 0, ERR_FORMAT, ERR_LIMIT, ERR_NOMEM. The caller frees spec->pk. */
int uptime_spec_query(struct uptime_spec *spec, const struct service_req *q);
int uptime_spec_body(struct uptime_spec *spec, const char *body, size_t n);

/* text: a JSON list, until done() returns; err: of the store. done() once if this returns 0, maybe from inside the call; else ERR_BUSY, ERR_NOMEM. Keys are copied. */
typedef void uptime_done(void *arg, int err, const char *text, size_t n);
int uptime_list(struct uptime *u, const struct uptime_spec *spec, uptime_done *done, void *arg);

void uptime_stat(const struct uptime *u, struct uptime_stat *out);
