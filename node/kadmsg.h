/*
 * kadmsg - the DHT and its streams in your program: the public header of libkadmsg.
 *
 * What it is. A struct kadmsg is one member of the network under one key: it holds sessions to
 * relays, keeps a routing table and a store, answers the DHT's questions, publishes the signed
 * entry by which others find it, and opens and accepts end-to-end encrypted streams. It runs on
 * *your* libevent base, like a bufferevent does; there is no loop in here.
 *
 *     struct kadmsg *k;
 *     kadmsg_new(&k, base);
 *     kadmsg_add_bootstrap(k, "02ab…@192.0.2.1:8081");
 *     kadmsg_on_state(k, on_state, NULL);  // kadmsg_get() … once KADMSG_JOINED is among the bits
 *     if (kadmsg_start(k) < 0)
 *         errx(1, "%s", kadmsg_why(k));
 *     event_base_dispatch(base);
 *     kadmsg_free(k);
 *
 * Life cycle. kadmsg_new(), settings, kadmsg_start(); then everything else. kadmsg_stop() takes
 * leave (the entry is withdrawn, at most some seconds) and tells when that is done; kadmsg_free()
 * at any time, also without stop and from inside a callback: then it happens in the next turn of
 * the base, and no callback comes any more. Several instances may share a base, under different
 * keys: the newest session of a key pushes the others out. The base must outlive them.
 *
 * Ownership. Values, entries and keys in callbacks are valid until the callback returns. What you
 * pass in is copied. A stream is yours from kadmsg_dial() or the accept callback until
 * kadmsg_stream_close() or _abort(); kadmsg_free() frees those that are left, without callbacks.
 *
 * Callbacks come from the base's loop, never from inside a call of yours. Each operation has
 * exactly one, unless it is cancelled. A callback may call anything here.
 *
 * Threads. All calls on one instance, and of kadmsg_new(), on the thread that runs its base. The
 * library starts no threads, except one that writes to the disk when there is a store directory,
 * and as many as KADMSG_SET_PK_THREADS says for public-key work (by default none: such work, 20 to
 * 60 µs each, is done in place). Key functions: any thread once one of them, or kadmsg_new(), returned.
 *
 * Errors. int results: 0 or more, or a negative code: those below, -errno of the system (above
 * -1000), or -2000 minus a code that dmsg peers sent. kadmsg_error_text() has a text for all.
 *
 * Limits. Salts have 200 bytes at most, values 65536. 256 DHT operations at once, then KADMSG_BUSY.
 *
 * Not offered here: the relay role and the control socket, which are the program's. Settings and codes are only ever added; before release 1.0 there is no promise
 * about the rest.
 */
#ifndef KADMSG_H
#define KADMSG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define KADMSG_API __attribute__((visibility("default")))

struct event_base; /* libevent's */
struct kadmsg;
struct kadmsg_stream;

enum kadmsg_error {
    KADMSG_FORMAT = -1999,
    KADMSG_TOO_LONG = -1997,
    KADMSG_BAD_KEY = -1996,
    KADMSG_BAD_SIGNATURE = -1995,
    KADMSG_BUSY = -1990,
    KADMSG_LIMIT = -1989,
    KADMSG_NO_MEMORY = -1988,
    KADMSG_CLOSED = -1987,
    KADMSG_RESET = -1985,
    KADMSG_TIMEOUT = -1984,
    KADMSG_NOT_FOUND = -1982,
    KADMSG_REFUSED = -1980,
    KADMSG_BAD_STATE = -1979,
    KADMSG_OLD_SEQ = -1978,
    KADMSG_NO_ROUTE = -1975,
    KADMSG_USAGE = -1971,
    KADMSG_OTHER_NETWORK = -1966, /* the bootstrap nodes belong to another one */
    KADMSG_NO_LISTENER = -2306,   /* the other end has nobody on that port */
};

/* Static, lower case, never NULL. */
KADMSG_API const char *kadmsg_error_text(int err);
KADMSG_API const char *kadmsg_version(void);
/* What is logged on stderr, for the whole process: "off" (default), "warn", "info,dht=debug" …
 * KADMSG_USAGE. */
KADMSG_API int kadmsg_log(const char *levels);

/* ---- keys ---- */

#define KADMSG_KEY_TEXT 67 /* 66 hex digits and NUL */

struct kadmsg_pk { /* public key: what everybody knows of you */
    uint8_t b[33];
};
struct kadmsg_sk { /* secret key; wipe it after use */
    uint8_t b[32];
};
struct kadmsg_sig {
    uint8_t b[65];
};

/* A new pair. */
KADMSG_API int kadmsg_key_new(struct kadmsg_sk *sk, struct kadmsg_pk *pk);
/* From text: 66 and 64 hex digits. KADMSG_BAD_KEY. */
KADMSG_API int kadmsg_pk_parse(struct kadmsg_pk *pk, const char *text);
KADMSG_API int kadmsg_sk_parse(struct kadmsg_sk *sk, const char *text);
KADMSG_API int kadmsg_sk_public(struct kadmsg_pk *pk, const struct kadmsg_sk *sk);
/* Returns out. */
KADMSG_API char *kadmsg_pk_text(char out[KADMSG_KEY_TEXT], const struct kadmsg_pk *pk);
KADMSG_API void kadmsg_sk_wipe(struct kadmsg_sk *sk);
/* Signatures over SHA-256 of a message, as the network uses them. KADMSG_BAD_KEY;
 * KADMSG_BAD_SIGNATURE. */
KADMSG_API int kadmsg_sign(struct kadmsg_sig *sig, const struct kadmsg_sk *sk, const void *msg,
                           size_t size);
KADMSG_API int kadmsg_verify(const struct kadmsg_pk *pk, const struct kadmsg_sig *sig,
                             const void *msg, size_t size);

/* ---- life ---- */

enum kadmsg_setting {
    KADMSG_SET_FULL = 1,    /* 1: keep the whole data set; default 0 */
    KADMSG_SET_PUBLISH,     /* 0: others cannot find this key; default 1 */
    KADMSG_SET_SESSIONS,    /* relays to hold sessions to, 1 … 64; default 2 */
    KADMSG_SET_PK_THREADS,  /* threads for public-key work, 0 … 64; default 0, in place */
    KADMSG_SET_STORE_BYTES, /* cap of the store; default 64 MiB, a full node 1 GiB */
    KADMSG_SET_LOCK,        /* 1: start fails while another process of this machine that also asked
                               for it, or a kadmsg node, runs under this key; default 0 */
};

/* An instance on a base, with a fresh key. KADMSG_NO_MEMORY. */
KADMSG_API int kadmsg_new(struct kadmsg **out, struct event_base *base);
KADMSG_API void kadmsg_free(struct kadmsg *k); /* NULL is allowed */

/* Before kadmsg_start(), else KADMSG_BAD_STATE. */
KADMSG_API int kadmsg_set_key(struct kadmsg *k, const struct kadmsg_sk *sk); /* KADMSG_BAD_KEY */
KADMSG_API int kadmsg_set(struct kadmsg *k, enum kadmsg_setting what, uint64_t value);
/* "PK@HOST:PORT" of a relay that is a DHT node too; any number of them. KADMSG_FORMAT, with the
 * reason in kadmsg_why(). */
KADMSG_API int kadmsg_add_bootstrap(struct kadmsg *k, const char *peer);
/* Directory of the store, made if there is none; without it the store is in memory. */
KADMSG_API int kadmsg_set_store(struct kadmsg *k, const char *dir);

/* Name of a private network: nodes under different names share neither contacts nor items. "": the
 * default one. */
KADMSG_API int kadmsg_set_network(struct kadmsg *k, const char *name);

/* Open everything. After a failure kadmsg_why() names what and why; only kadmsg_free() is left. */
KADMSG_API int kadmsg_start(struct kadmsg *k);
/* Reason of the last failed kadmsg_start() or kadmsg_add_bootstrap(); "" if there was none. */
KADMSG_API const char *kadmsg_why(const struct kadmsg *k);
KADMSG_API const struct kadmsg_pk *kadmsg_public_key(const struct kadmsg *k);

enum kadmsg_state {                       /* bits */
                    KADMSG_CONNECTED = 1, /* a session to a relay is up: streams may be dialled */
                    KADMSG_JOINED = 2,    /* a DHT peer is known */
                    KADMSG_FOUND = 4, /* the entry is stored by others: this key can be dialled */
};
/* The present state; fn(arg, state) whenever it changed since it was told last (the first time:
 * from 0). NULL: nobody. */
KADMSG_API unsigned kadmsg_state(const struct kadmsg *k);
typedef void kadmsg_state_fn(void *arg, unsigned state);
KADMSG_API void kadmsg_on_state(struct kadmsg *k, kadmsg_state_fn *fn, void *arg);

/* Take leave: done(arg) follows, within some seconds; a second call shortens them. Only
 * kadmsg_free() is left then. */
typedef void kadmsg_done_fn(void *arg);
KADMSG_API int kadmsg_stop(struct kadmsg *k, kadmsg_done_fn *done, void *arg);

/* ---- values in the DHT ---- */

enum kadmsg_flags {
    KADMSG_NETWORK = 1, /* ask the network also when there is a local copy */
};

struct kadmsg_value {
    struct kadmsg_pk key; /* the publisher; its signature was verified */
    const void *salt, *value;
    size_t salt_size, value_size;
    uint64_t seq; /* grows with every change */
    bool local;   /* from the local store */
    unsigned hops, asked;
};

typedef void kadmsg_get_fn(void *arg, int err, const struct kadmsg_value *v); /* v NULL on errors */
struct kadmsg_put_result {
    uint64_t seq;
    unsigned asked, stored; /* peers; stored = 0 only for the first node of a network */
};
typedef void kadmsg_put_fn(void *arg, int err, const struct kadmsg_put_result *r);

/* Look up (pk, salt). fn: 0, KADMSG_NOT_FOUND, KADMSG_NO_ROUTE (no DHT peer answers),
 * KADMSG_TIMEOUT (30 s). *op (may be NULL) is for kadmsg_cancel(). At once: KADMSG_BUSY,
 * KADMSG_TOO_LONG, KADMSG_BAD_STATE. */
KADMSG_API int kadmsg_get(struct kadmsg *k, const struct kadmsg_pk *pk, const void *salt,
                          size_t salt_size, unsigned flags, kadmsg_get_fn *fn, void *arg,
                          uint64_t *op);
/* The same, and again for every change, until kadmsg_cancel(): 0 with the value, KADMSG_NOT_FOUND when
 * its publisher has taken it away. Nodes close to the slot push changes, at most one a second; where
 * none of them can, it is looked up every minute. No call while there is nothing. 16384 at once. */
KADMSG_API int kadmsg_watch(struct kadmsg *k, const struct kadmsg_pk *pk, const void *salt,
                            size_t salt_size, kadmsg_get_fn *fn, void *arg, uint64_t *op);
/* Sign (own key, salt) = value and publish it; it is renewed as long as this runs. fn may be NULL:
 * 0, KADMSG_REFUSED, KADMSG_OLD_SEQ, KADMSG_NO_ROUTE (kept, and published when a peer answers). */
KADMSG_API int kadmsg_put(struct kadmsg *k, const void *salt, size_t salt_size, const void *value,
                          size_t value_size, kadmsg_put_fn *fn, void *arg, uint64_t *op);
/* Forget it: its callback does not come. Harmless when it has come. */
KADMSG_API void kadmsg_cancel(struct kadmsg *k, uint64_t op);

/* ---- entries: where a key can be reached ---- */

struct kadmsg_entry {
    struct kadmsg_pk key;
    const char *text; /* JSON as it was signed; the signature was verified */
    size_t text_size;
    const struct kadmsg_pk *relays; /* that it can be reached through */
    size_t n_relays;
    const char *address; /* "host:port" of a relay, else NULL */
};
typedef void kadmsg_entry_fn(void *arg, int err, const struct kadmsg_entry *e);
/* fn as of kadmsg_get(). */
KADMSG_API int kadmsg_entry_get(struct kadmsg *k, const struct kadmsg_pk *pk, unsigned flags,
                                kadmsg_entry_fn *fn, void *arg, uint64_t *op);

/* ---- streams ---- */

struct kadmsg_stream_callbacks { /* any may be NULL */
    void (*opened)(struct kadmsg_stream *st, void *arg);
    void (*readable)(struct kadmsg_stream *st, void *arg); /* bytes or the end came */
    void (*writable)(struct kadmsg_stream *st, void *arg); /* after a short write */
    /* Dial failed, reset, session lost. What had come can still be read; then close it. */
    void (*ended)(struct kadmsg_stream *st, void *arg, int err);
};

/* Open a stream; opened() or ended() follows within timeout_ms (0 = 20 000). At once: KADMSG_LIMIT,
 * KADMSG_NO_MEMORY, KADMSG_BAD_KEY, KADMSG_BAD_STATE, KADMSG_USAGE (port 0). */
KADMSG_API int kadmsg_dial(struct kadmsg *k, const struct kadmsg_pk *pk, uint16_t port,
                           unsigned timeout_ms, const struct kadmsg_stream_callbacks *cb, void *arg,
                           struct kadmsg_stream **out);
/* Everything that was tried by a dial, as one line; for messages, after ended(). Returns out. */
KADMSG_API char *kadmsg_stream_steps(const struct kadmsg_stream *st, char *out, size_t cap);

/* Accept streams on a port (0: any free one). on_accept gets an open stream and must give it
 * callbacks or close it. Returns the port, or -2400 (taken). */
typedef void kadmsg_accept_fn(void *arg, struct kadmsg_stream *st);
KADMSG_API int kadmsg_listen(struct kadmsg *k, uint16_t port, kadmsg_accept_fn *on_accept,
                             void *arg);
KADMSG_API void kadmsg_unlisten(struct kadmsg *k, uint16_t port);

KADMSG_API void kadmsg_stream_set_callbacks(struct kadmsg_stream *st,
                                            const struct kadmsg_stream_callbacks *cb, void *arg);
/* How many bytes were read, up to size; 0 = none now. */
KADMSG_API size_t kadmsg_stream_read(struct kadmsg_stream *st, void *out, size_t size);
/* The other side has ended its direction, and everything was read. */
KADMSG_API bool kadmsg_stream_eof(const struct kadmsg_stream *st);
/* How many bytes were taken: less than size = no room, writable() follows. KADMSG_CLOSED,
 * KADMSG_RESET. */
KADMSG_API long kadmsg_stream_write(struct kadmsg_stream *st, const void *p, size_t size);
/* End this direction behind what was written; the other goes on. */
KADMSG_API int kadmsg_stream_shutdown(struct kadmsg_stream *st);
KADMSG_API const struct kadmsg_pk *kadmsg_stream_remote(const struct kadmsg_stream *st);
KADMSG_API uint16_t kadmsg_stream_remote_port(const struct kadmsg_stream *st);
KADMSG_API uint16_t kadmsg_stream_local_port(const struct kadmsg_stream *st);
/* Give it back: in good order (what was written goes out), or by reset. */
KADMSG_API void kadmsg_stream_close(struct kadmsg_stream *st);
KADMSG_API void kadmsg_stream_abort(struct kadmsg_stream *st);

#ifdef __cplusplus
}
#endif

#endif
