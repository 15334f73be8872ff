/*
 * name_lookup - the addresses of a host name, without keeping the loop waiting; for libraries that would look names up themselves, and block.
 *
 * Numbers, "localhost" and names of the hosts file are answered from inside the call, others by the name servers of this system. One look-up at a time for an object. A look-up that is not over
 * when its object is freed ends in the next turns of the loop; nobody is told.
 *
 * Errors: ERR_NOT_FOUND (no such name, or no server answered). One thread, the loop's.
 *
 *     l = name_lookup_new(drive, NULL);
 *     name_lookup_start(l, "redis.example.org", on_name, me);
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>

#include "transport/drive_loop.h"

#define NAME_LOOKUP_ADDRS 8

struct name_lookup;

/* addr: n texts of addresses, until the callback returns. err != 0: none. */
typedef void name_lookup_fn(void *arg, int err, const char (*addr)[INET6_ADDRSTRLEN], size_t n);

/* server: "host:port" of the one name server to ask, for tests; NULL = the system's. NULL: no memory. */
struct name_lookup *name_lookup_new(struct drive_loop *drive, const char *server);
void name_lookup_free(struct name_lookup *l);
/* fn once, maybe from inside. The one that is under way is cancelled. */
void name_lookup_start(struct name_lookup *l, const char *host, name_lookup_fn *fn, void *arg);
void name_lookup_cancel(struct name_lookup *l);
