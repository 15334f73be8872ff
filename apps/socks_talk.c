#include "apps/socks_talk.h"

#include "base/err.h"

static void say(struct guest *g, struct socks *s)
{
    guest_say(g, s->out, s->out_n);
    s->out_n = 0;
}

enum socks_state socks_talk_input(struct guest *g, struct socks_talk *t)
{
    struct socks *s = &t->socks;
    size_t n = evbuffer_get_length(g->in), used;
    enum socks_state state = socks_input(s, evbuffer_pullup(g->in, -1), n, &used);
    evbuffer_drain(g->in, used);
    if (state == SOCKS_END) {
        g->hub->stat.bad_input++;
        hub_note(g->hub, "%s%sSOCKS: %s", g->who, g->who[0] != '\0' ? ": " : "", s->why);
    }
    say(g, s);
    if (state == SOCKS_END)
        guest_bye(g);
    else if (state != SOCKS_WAIT)
        guest_flush(g);
    return state;
}

/* Where we are bound to is nobody's business: 127.0.0.1, port 0 (docs/protocol/apps.md §2.3). */
void socks_talk_accept(struct guest *g, struct socks_talk *t)
{
    static const uint8_t loopback[4] = {127, 0, 0, 1};
    socks_reply(&t->socks, SOCKS_OK, loopback, sizeof(loopback), 0);
    say(g, &t->socks);
}

void socks_talk_refuse(struct guest *g, struct socks_talk *t, enum socks_code code,
                       const char *text)
{
    const struct socks_dest *d = &t->socks.dest;
    hub_note(g->hub, "%s%s%s:%u: %s", g->who, g->who[0] != '\0' ? " to " : "", d->host, d->port,
             text);
    socks_reply(&t->socks, code, NULL, 0, 0);
    say(g, &t->socks);
    guest_bye(g);
}

void socks_talk_led(struct guest *g, struct socks_talk *t, int err, const char *text)
{
    if (err != 0) {
        socks_talk_refuse(g, t, socks_code_of(err), text);
        return;
    }
    socks_talk_accept(g, t);
    guest_join(g);
}
