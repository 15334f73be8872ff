/* What was tried by a dial, and its text. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "transport/client_int.h"

#define STEPS_MORE 4

void stream_step_add(struct stream *st, enum client_phase phase, const struct pubkey *server,
                     const char *addr, int err, uint64_t began_ns)
{
    struct client_step *s;

    if (st->n_steps == CLIENT_STEPS_MAX)
        return;
    if (st->n_steps % STEPS_MORE == 0) {
        if ((s = realloc(st->steps, (st->n_steps + STEPS_MORE) * sizeof *s)) == NULL)
            return;
        st->steps = s;
    }
    s = &st->steps[st->n_steps++];
    memset(s, 0, sizeof *s);
    s->phase = phase;
    if (server != NULL)
        s->server = *server;
    s->err = err;
    s->ms = (uint32_t)((client_now(st->client) - began_ns) / NS_PER_MS);
    snprintf(s->addr, sizeof s->addr, "%s", addr);
}

const struct client_step *stream_dial_steps(const struct stream *st, size_t *n)
{
    *n = st->n_steps;
    return st->steps;
}

static const char *phase_name(enum client_phase phase)
{
    switch (phase) {
    case CLIENT_PHASE_RESOLVE:
        return "look-up";
    case CLIENT_PHASE_EXISTING:
        return "existing";
    case CLIENT_PHASE_CONNECT:
        return "connect";
    case CLIENT_PHASE_MESH:
        return "mesh";
    case CLIENT_PHASE_BACKOFF:
        return "not tried again yet";
    }
    return "?";
}

static int step_text(const struct client_step *s, char *out, size_t cap)
{
    bool named = !pubkey_is_null(&s->server);
    char name[9] = "";

    if (named)
        pubkey_short(name, &s->server);
    return snprintf(out, cap, "%s%s%s%s%s: %s after %u ms", phase_name(s->phase), named ? " " : "",
                    name, s->addr[0] != '\0' ? " " : "", s->addr,
                    s->err == 0             ? "worked"
                    : s->err == ERR_TIMEOUT ? "timed out"
                                            : err_str(s->err),
                    s->ms);
}

void client_steps_text(const struct client_step *steps, size_t n, char *out, size_t cap)
{
    size_t at = 0;

    assert(cap > 0);
    out[0] = '\0';
    for (size_t i = 0; i < n && at < cap; i++) {
        int rc = i > 0 ? snprintf(out + at, cap - at, "; ") : 0;
        if (rc < 0 || (size_t)rc >= cap - at)
            return;
        at += (size_t)rc;
        rc = step_text(&steps[i], out + at, cap - at);
        if (rc < 0 || (size_t)rc >= cap - at)
            return;
        at += (size_t)rc;
    }
}
