/*
 * svc - the services that a visor offers, salt "svc", and in the first builds "svc:<type>"
 * (docs/protocol/dht.md §4; members as in services.md §6).
 *
 *     svc          [{"address":"KEY:PORT","type":…,"geo":{…},"display_node_ip":true,"version":…,
 *                    "local_ips":[…],"info":{…}}, …]      the whole list of a visor
 *     svc:<type>   {"pk":KEY,"port":N,"type":…,"version":…,"addr":…}     one service
 *
 * Both are read into one list. `[]`, `null` and `{}` are tombstones: an empty list. geo, local_ips and
 * info are handed through as they stand, after a look at their outer shape.
 *
 * Owner: svc_decode() allocates the list, svc_list_free() frees it; the raw members point into the
 * value. Any thread. Limits: ITEM_MAX_VALUE bytes, texts below. Errors: ERR_FORMAT, ERR_TOO_LONG,
 * ERR_NOMEM.
 *
 *     struct svc_list l;
 *     if (svc_decode(&l, it->v, it->v_len) == 0) {
 *         if (svc_check(&l, &subject) == 0) use(l.e, l.n);
 *         svc_list_free(&l);
 *     }
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/crypto.h"

#define SVC_TYPE_MAX    31
#define SVC_VERSION_MAX 63

struct svc_raw { /* JSON text; n = 0: absent */
    const char *p;
    size_t n;
};

struct svc {
    struct pubkey pk;
    uint16_t port; /* 0 = not said */
    char type[SVC_TYPE_MAX + 1];
    char version[SVC_VERSION_MAX + 1]; /* "" = absent */
    bool display_node_ip;
    struct svc_raw geo, local_ips, info; /* object, array, object */
};

struct svc_list {
    struct svc *e;
    size_t n;
};

/* On errors *out is empty. */
int svc_decode(struct svc_list *out, const void *v, size_t n) __attribute__((warn_unused_result));
void svc_list_free(struct svc_list *l);
/* The value of salt "svc" into a malloc'ed text (caller frees); an empty list gives "[]". */
int svc_encode(char **out, size_t *n, const struct svc *e, size_t count)
    __attribute__((warn_unused_result));
/* Every service is one of this key and has a type. 0, ERR_NOT_FOUND (empty), ERR_REFUSED (of another
 * key), ERR_FORMAT. */
int svc_check(const struct svc_list *l, const struct pubkey *subject)
    __attribute__((warn_unused_result));
