#include "apps/forward.h"

#include <stdlib.h>

#include "apps/guest.h"
#include "base/err.h"

struct forward {
    struct tcp_door *door;
    struct hub *hub;
    struct pubkey pk;
    uint16_t port;
};

static void on_led(struct guest *g, int err, const char *text)
{
    if (err == 0) {
        guest_join(g);
        return;
    }
    hub_note(g->hub, "%s", text);
    guest_drop(g);
}

static const struct guest_ops ops = {.size = sizeof(struct guest), .led = on_led};

static void on_conn(void *arg, int fd)
{
    struct forward *f = arg;
    struct guest *g = guest_new(f->hub, &ops, f, fd, f->hub->net->timeout_ms);
    if (g != NULL)
        guest_dial_stream(g, NULL, &f->pk, f->port);
}

int forward_open(struct forward **out, struct hub *hub, const char *address, uint16_t local_port,
                 const struct pubkey *pk, uint16_t port)
{
    struct forward *f = calloc(1, sizeof(*f));
    *out = NULL;
    if (f == NULL)
        return ERR_NOMEM;
    *f = (struct forward){.hub = hub, .pk = *pk, .port = port};
    int rc = tcp_door_open(&f->door, hub, address, local_port, on_conn, f);
    if (rc != 0) {
        free(f);
        return rc;
    }
    *out = f;
    return 0;
}

void forward_close(struct forward *f)
{
    if (f == NULL)
        return;
    tcp_door_close(f->door);
    free(f);
}

uint16_t forward_port(const struct forward *f)
{
    return tcp_door_port(f->door);
}
