/*
 * fake_disc - a discovery in memory behind struct disc_port, in virtual time: the checks of services.md §3.2 that matter to clients, an answer after delay_ns, and every failure.
 */
#pragma once

#include "base/loop.h"
#include "compat-http/disc_client.h"

#define FAKE_DISC_ENTRIES 64

struct fake_disc {
    struct loop *loop;
    uint64_t delay_ns;
    int down;    /* every request fails with this error */
    bool old;    /* a service of 2023: client_type and dht_bootstrap break the signature */
    bool forged; /* says that nothing verifies */
    bool liar;   /* takes everything, and knows nobody */
    unsigned gets, posts, deletes, refused_seq, lists;
    struct entry *entry[FAKE_DISC_ENTRIES];
    size_t n;
    struct list requests;
    uint64_t next_handle;
};

void fake_disc_init(struct fake_disc *d, struct loop *loop);
void fake_disc_free(struct fake_disc *d);
struct disc_port fake_disc_port(struct fake_disc *d);
/* What is stored for a key; NULL = nothing. */
struct entry *fake_disc_entry(const struct fake_disc *d, const struct pubkey *pk);
/* Put an entry in as it is (text is parsed). */
void fake_disc_set(struct fake_disc *d, const char *text, size_t n);
void fake_disc_drop(struct fake_disc *d, const struct pubkey *pk);
size_t fake_disc_pending(const struct fake_disc *d);
