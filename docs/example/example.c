/*
 * A program on libkadmsg and libevent: values in the DHT, and an echo over streams.
 *
 *     cc example.c -o example $(pkg-config --cflags --libs kadmsg libevent_core)
 *
 *     ./example PEER put SALT VALUE       prints its public key: the value lives under it
 *     ./example PEER get PK SALT
 *     ./example PEER watch PK SALT N      one line for each of N changes
 *     ./example PEER entry PK             where that key can be reached
 *     ./example PEER listen PORT          echoes; prints its public key when it can be found
 *     ./example PEER echo PK PORT TEXT    prints what comes back
 *
 * PEER is PK@HOST:PORT of a running kadmsg node with a relay. Exit: 0, or 1 with a line on stderr.
 */
#include <event2/event.h>
#include <kadmsg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct event_base *base;
static struct kadmsg *k;
static int argc;
static char **argv;
static int result = 1;

/* ---- the end: take leave, then leave the loop ---- */

static void on_gone(void *arg)
{
    (void)arg;
    event_base_loopbreak(base);
}

static void finish(int rc)
{
    result = rc;
    kadmsg_stop(k, on_gone, NULL);
}

static void failed(const char *what, int err)
{
    fprintf(stderr, "%s: %s\n", what, kadmsg_error_text(err));
    finish(1);
}

static void print_key(const struct kadmsg_pk *pk)
{
    char text[KADMSG_KEY_TEXT];
    printf("%s\n", kadmsg_pk_text(text, pk));
    fflush(stdout);
}

/* ---- values and entries ---- */

static void on_put(void *arg, int err, const struct kadmsg_put_result *r)
{
    (void)arg;
    if (err < 0) {
        failed("put", err);
        return;
    }
    fprintf(stderr, "stored by %u of %u peers\n", r->stored, r->asked);
    print_key(kadmsg_public_key(k));
    finish(0);
}

static void on_value(void *arg, int err, const struct kadmsg_value *v)
{
    (void)arg;
    if (err < 0) {
        failed("get", err);
        return;
    }
    fwrite(v->value, 1, v->value_size, stdout);
    finish(0);
}

static void on_change(void *arg, int err, const struct kadmsg_value *v)
{
    unsigned *left = arg;
    if (err < 0)
        printf("(%s)\n", kadmsg_error_text(err));
    else
        printf("%.*s\n", (int)v->value_size, (const char *)v->value);
    fflush(stdout);
    if (*left > 0 && --*left == 0)
        finish(0);
}

static void on_entry(void *arg, int err, const struct kadmsg_entry *e)
{
    (void)arg;
    if (err < 0) {
        failed("entry", err);
        return;
    }
    for (size_t i = 0; i < e->n_relays; i++)
        print_key(&e->relays[i]);
    finish(0);
}

/* ---- echo: what came is kept until it was taken back ---- */

struct echo {
    char buf[16384];
    size_t at, n;
};

static void echo_more(struct kadmsg_stream *st, void *arg)
{
    struct echo *e = arg;
    for (;;) {
        if (e->at == e->n) {
            e->at = 0;
            e->n = kadmsg_stream_read(st, e->buf, sizeof(e->buf));
        }
        if (e->n == 0)
            break;
        long took = kadmsg_stream_write(st, e->buf + e->at, e->n - e->at);
        if (took < 0)
            return; /* ended() follows */
        e->at += (size_t)took;
        if (e->at < e->n)
            return; /* writable() follows */
    }
    if (kadmsg_stream_eof(st)) {
        kadmsg_stream_close(st);
        free(e);
    }
}

static void echo_ended(struct kadmsg_stream *st, void *arg, int err)
{
    (void)err;
    kadmsg_stream_close(st);
    free(arg);
}

static void on_accept(void *arg, struct kadmsg_stream *st)
{
    static const struct kadmsg_stream_callbacks cb = {
        .readable = echo_more, .writable = echo_more, .ended = echo_ended};
    struct echo *e = calloc(1, sizeof(*e));
    (void)arg;
    if (e == NULL)
        kadmsg_stream_abort(st);
    else
        kadmsg_stream_set_callbacks(st, &cb, e);
}

/* ---- the dialling side ---- */

static void on_opened(struct kadmsg_stream *st, void *arg)
{
    const char *text = arg;
    if (kadmsg_stream_write(st, text, strlen(text)) != (long)strlen(text)) {
        fprintf(stderr, "TEXT is longer than a window\n");
        kadmsg_stream_abort(st);
        finish(1);
        return;
    }
    kadmsg_stream_shutdown(st);
}

static void on_readable(struct kadmsg_stream *st, void *arg)
{
    char buf[4096];
    size_t n;
    (void)arg;
    while ((n = kadmsg_stream_read(st, buf, sizeof(buf))) > 0)
        fwrite(buf, 1, n, stdout);
    if (!kadmsg_stream_eof(st))
        return;
    kadmsg_stream_close(st);
    finish(0);
}

static void on_ended(struct kadmsg_stream *st, void *arg, int err)
{
    char steps[512];
    (void)arg;
    fprintf(stderr, "%s\n", kadmsg_stream_steps(st, steps, sizeof(steps)));
    kadmsg_stream_close(st);
    failed("stream", err);
}

/* ---- what is to be done, when the network is there ---- */

static int begin(const struct kadmsg_pk *pk)
{
    static const struct kadmsg_stream_callbacks cb = {
        .opened = on_opened, .readable = on_readable, .ended = on_ended};
    struct kadmsg_stream *st;
    const char *what = argv[2];
    if (strcmp(what, "put") == 0)
        return kadmsg_put(k, argv[3], strlen(argv[3]), argv[4], strlen(argv[4]), on_put, NULL,
                          NULL);
    if (strcmp(what, "get") == 0)
        return kadmsg_get(k, pk, argv[4], strlen(argv[4]), 0, on_value, NULL, NULL);
    if (strcmp(what, "watch") == 0) {
        static unsigned left;
        left = (unsigned)atoi(argv[5]);
        return kadmsg_watch(k, pk, argv[4], strlen(argv[4]), on_change, &left, NULL);
    }
    if (strcmp(what, "entry") == 0)
        return kadmsg_entry_get(k, pk, 0, on_entry, NULL, NULL);
    if (strcmp(what, "echo") == 0)
        return kadmsg_dial(k, pk, (uint16_t)atoi(argv[4]), 0, &cb, argv[5], &st);
    print_key(kadmsg_public_key(k));
    return kadmsg_listen(k, (uint16_t)atoi(argv[3]), on_accept, NULL);
}

static void on_state(void *arg, unsigned state)
{
    const struct kadmsg_pk *pk = arg;
    unsigned need = strcmp(argv[2], "listen") == 0 ? KADMSG_FOUND : KADMSG_JOINED;
    if (!(state & need))
        return;
    kadmsg_on_state(k, NULL, NULL);
    int rc = begin(pk);
    if (rc < 0)
        failed(argv[2], rc);
}

static void on_interrupt(evutil_socket_t sig, short what, void *arg)
{
    (void)sig;
    (void)what;
    (void)arg;
    finish(0);
}

static int arguments(const char *what)
{
    static const struct {
        const char *what;
        int n;
    } known[] = {{"put", 5}, {"get", 5}, {"watch", 6}, {"entry", 4}, {"listen", 4}, {"echo", 6}};
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (strcmp(what, known[i].what) == 0)
            return known[i].n;
    return -1;
}

int main(int n, char **v)
{
    struct kadmsg_pk pk;
    argc = n;
    argv = v;
    if (argc < 3 || arguments(argv[2]) != argc) {
        fprintf(stderr, "usage: example PEER put|get|watch|entry|listen|echo …\n");
        return 2;
    }
    if (argv[2][0] == 'g' || argv[2][0] == 'e' || argv[2][0] == 'w') {
        if (kadmsg_pk_parse(&pk, argv[3]) < 0) {
            fprintf(stderr, "%s: not a public key\n", argv[3]);
            return 2;
        }
    }
    if ((base = event_base_new()) == NULL || kadmsg_new(&k, base) < 0)
        return 1;
    struct event *interrupt = evsignal_new(base, 2, on_interrupt, NULL);
    event_add(interrupt, NULL);
    kadmsg_on_state(k, on_state, &pk);
    if (kadmsg_add_bootstrap(k, argv[1]) < 0 || kadmsg_start(k) < 0)
        fprintf(stderr, "%s\n", kadmsg_why(k));
    else
        event_base_dispatch(base);
    kadmsg_free(k);
    event_free(interrupt);
    event_base_free(base);
    return result;
}
