/*
 * face_int - what the parts of a face see of each other. Private to face*.c.
 *
 *     face.c        registrations, their way into the DHT and to the discovery
 *     face_ask.c    questions for entries
 *     face_keys.c   lists
 *     face_saved.c  over a restart
 */
#pragma once

#include "base/list.h"
#include "base/map.h"
#include "node/face.h"
#include "transport/conn.h"

#define FACE_SALT     "dmsg"
#define FACE_SALT_LEN 4
#define FACE_BUCKETS  16

struct registered {
    struct list_node node; /* in face->order */
    struct pubkey pk;
    uint64_t until_ns, since_ns;
    uint64_t carry_ns;
    uint64_t forward_ns; /* LOOP_NEVER: nothing to forward */
    bool client, server, visor;
    bool gone; /* taken back: no older entry is given */
    size_t n;
    char text[];
};

enum face_list { FACE_SERVERS, FACE_CLIENTS, FACE_VISORS, FACE__LISTS };

struct upstream { /* a list of the HTTP discovery */
    struct face *f;
    enum face_list what;
    struct pubkey *pk;
    size_t n;
    bool known;
    uint64_t since_ns;  /* of what is known */
    uint64_t next_ns;   /* not asked again before */
    uint64_t handle;    /* 0: is not being asked */
    struct list asking; /* those that wait */
    struct loop_timer impatient;
};

struct listed { /* a server's entry, as the HTTP discovery lists it */
    struct pubkey pk;
    size_t n;
    char text[];
};

struct face {
    struct kv kv;
    struct face_cfg cfg;
    struct disc_port port; /* with cfg.ask or cfg.forward only */
    struct map entries;    /* struct registered */
    struct list order;
    struct list asks;
    struct list forwards; /* under way */
    size_t n_forwards;
    struct map listed;
    struct upstream upstream[FACE__LISTS];
    struct loop_timer tick, save;
    bool dirty[FACE_BUCKETS];
    struct face_stat stat;
};

static inline uint64_t face_now(const struct face *f)
{
    return f->cfg.loop->now_ns;
}

static inline struct face *face_of(struct kv *kv)
{
    return container_of(kv, struct face, kv);
}

/* face.c. NULL: nothing, or it has ended. What is gone is found too. */
struct registered *face_find(struct face *f, const struct pubkey *pk);
void face_drop(struct face *f, struct registered *r);
/* In place of what there was. ERR_NOMEM, ERR_NO_SPACE. */
int face_put(struct face *f, const struct pubkey *pk, const char *text, size_t n, uint64_t until_ns,
             struct registered **out);

/* face_ask.c */
int face_get(struct kv *kv, const struct kv_str *keys, size_t n, kv_done_fn *fn, void *arg);
void face_asks_free(struct face *f);

/* face_keys.c */
int face_members(struct kv *kv, struct kv_str set, kv_done_fn *fn, void *arg);
void face_keys_init(struct face *f);
void face_keys_free(struct face *f);

/* face_saved.c */
void face_load(struct face *f);
void face_changed(struct face *f, const struct pubkey *pk);
void face_save(struct face *f);
