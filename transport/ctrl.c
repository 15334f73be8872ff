#include "transport/ctrl.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"

enum packet { PACKET_PING = 9, PACKET_PONG = 10 };

struct ctrl {
    struct client *client;
    struct list peers; /* struct peer */
    struct ctrl_stat stat;
};

struct peer {
    struct ctrl *ctrl;
    struct stream *st;
    struct list_node node;
};

static void peer_end(struct peer *p, bool in_order)
{
    list_remove(&p->node);
    p->ctrl->stat.streams--;
    if (in_order)
        stream_close(p->st);
    else
        stream_abort(p->st);
    free(p);
}

/* As many answers as there are questions among n packets; false: there is something else. */
static bool answers_to(uint8_t *out, size_t *n_out, const uint8_t *in, size_t n)
{
    *n_out = 0;
    for (size_t i = 0; i < n; i++) {
        if (in[i] == PACKET_PING)
            out[(*n_out)++] = PACKET_PONG;
        else if (in[i] != PACKET_PONG)
            return false;
    }
    return true;
}

static void on_readable(struct stream *st, void *arg)
{
    struct peer *p = arg;
    uint8_t in[256], out[256];
    size_t n, n_out;
    while ((n = stream_read(st, in, sizeof(in))) > 0) {
        bool ok = answers_to(out, &n_out, in, n);
        p->ctrl->stat.pings += n_out;
        if (n_out > 0 && stream_write(st, out, n_out) != (long)n_out)
            ok = false;
        if (!ok) {
            p->ctrl->stat.bad++;
            peer_end(p, false);
            return;
        }
    }
    if (stream_eof(st))
        peer_end(p, true);
}

static void on_ended(struct stream *st, void *arg, int err)
{
    (void)st;
    (void)err;
    peer_end(arg, true);
}

static void on_accept(void *arg, struct stream *st)
{
    static const struct stream_cb cb = {.readable = on_readable, .ended = on_ended};
    struct ctrl *c = arg;
    struct peer *p = c->stat.streams < CTRL_STREAMS ? calloc(1, sizeof(*p)) : NULL;
    if (p == NULL) {
        c->stat.refused++;
        stream_abort(st);
        return;
    }
    p->ctrl = c;
    p->st = st;
    list_push_back(&c->peers, &p->node);
    c->stat.streams++;
    stream_set_cb(st, &cb, p);
    stream_set_idle(st, CTRL_IDLE_NS);
}

int ctrl_new(struct ctrl **out, struct client *client)
{
    struct ctrl *c = calloc(1, sizeof(*c));
    if (c == NULL)
        return ERR_NOMEM;
    c->client = client;
    list_init(&c->peers);
    int rc = client_listen(client, CTRL_PORT, on_accept, c);
    if (rc < 0) {
        free(c);
        return rc;
    }
    *out = c;
    return 0;
}

void ctrl_free(struct ctrl *c)
{
    struct peer *p;
    if (c == NULL)
        return;
    client_unlisten(c->client, CTRL_PORT);
    while ((p = list_first_as(&c->peers, struct peer, node)) != NULL)
        peer_end(p, false);
    free(c);
}

void ctrl_stat(const struct ctrl *c, struct ctrl_stat *out)
{
    *out = c->stat;
}
