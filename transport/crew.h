/*
 * crew - the relays of one server, one for each worker: who is responsible for a key, and what all
 * of them must count together (design §4).
 *
 * Every key has a home, one of the relays, told by a keyed hash. A session goes there after its
 * handshake, wherever it was accepted; the mesh link to another relay is dialled from there; requests
 * to a destination are sent there over a trunk (relay.h). So everything that concerns one key, the
 * newest session, links, misses, happens on one thread, and needs no lock.
 *
 * What concerns more than one key is here: slots of relayed streams, in all and per key (under a
 * lock, taken when a stream is set up), and numbers that are read without one: links to other relays
 * of each member, and received bytes that wait.
 *
 * Threads: any; a crew outlives its relays. A relay without a crew makes one of its own, of one
 * member.
 *
 *     crew_new(&crew, 4, key);
 *     for (i = 0; i < 4; i++) relay_new(&r[i], &(struct relay_cfg){.crew = crew, .index = i, …});
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/crypto.h"

#define CREW_MAX 64u

struct crew;
struct share; /* the slots that one key uses */

/* 1 … CREW_MAX members. 0 or ERR_NOMEM. */
int crew_new(struct crew **out, unsigned members, const uint8_t hash_key[16])
    __attribute__((warn_unused_result));
void crew_free(struct crew *c);
unsigned crew_size(const struct crew *c);
/* The member that is responsible for a key. */
unsigned crew_home(const struct crew *c, const struct pubkey *pk);

/* One of max slots, of which one key may have a quarter; NULL: there is none, or no memory. */
struct share *crew_slot_take(struct crew *c, const struct pubkey *pk, uint32_t max);
void crew_slot_give(struct crew *c, struct share *share);

/* How many other relays a member has links to. */
void crew_links_set(struct crew *c, unsigned member, size_t n);
size_t crew_links(const struct crew *c, unsigned member);
size_t crew_links_all(const struct crew *c);
/* Changes when a relay was linked that was not before: what led nowhere may lead somewhere now. */
void crew_ways_changed(struct crew *c);
uint64_t crew_ways(const struct crew *c);

/* A key was heard of, at that time; when it was last (or another one with the same place in a small
 * table), 0 = never. */
void crew_heard(struct crew *c, const struct pubkey *pk, uint64_t now_ns);
uint64_t crew_heard_ns(const struct crew *c, const struct pubkey *pk);

/* Received bytes that wait, of all members: each tells by how much its own have changed. */
void crew_buffered_add(struct crew *c, size_t more, size_t less);
size_t crew_buffered(const struct crew *c);
