/* The relay role of a node: what it listens on, where it says that it can be found, and the node's own session to it. */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/err.h"
#include "base/log.h"
#include "node/node_int.h"

static void on_relay_changed(struct drive_msg *m)
{
    struct node *n = container_of(m, struct node, relay_changed_msg);
    atomic_store(&n->relay_changed_posted, false);
}

/* Called on the relay's thread. */
static void relay_changed(void *arg)
{
    struct node *n = arg;
    if (!atomic_exchange(&n->relay_changed_posted, true))
        drive_post(n->drive, &n->relay_changed_msg);
}

/* The address that this machine has towards the rest of the world; nothing is sent. */
static bool outgoing_addr(int family, char out[ADDR_HOST_MAX + 1])
{
    /* Any address that is not ours will do: these are for documentation (RFC 5737, RFC 3849). */
    struct sockaddr_in to4 = {.sin_family = AF_INET, .sin_port = htons(9)};
    struct sockaddr_in6 to6 = {.sin6_family = AF_INET6, .sin6_port = htons(9)};
    const struct sockaddr *to = family == AF_INET ? (void *)&to4 : (void *)&to6;
    socklen_t len = family == AF_INET ? sizeof(to4) : sizeof(to6);
    struct sockaddr_storage own;
    socklen_t own_len = sizeof(own);
    inet_pton(AF_INET, "192.0.2.1", &to4.sin_addr);
    inet_pton(AF_INET6, "2001:db8::1", &to6.sin6_addr);
    int fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool ok = fd >= 0 && connect(fd, to, len) == 0 &&
              getsockname(fd, (struct sockaddr *)&own, &own_len) == 0 &&
              getnameinfo((struct sockaddr *)&own, own_len, out, ADDR_HOST_MAX + 1, NULL, 0,
                          NI_NUMERICHOST) == 0;
    if (fd >= 0)
        close(fd);
    return ok;
}

/* "Any address" is where to listen, not where to be found. */
static void public_addr_guess(struct node *n)
{
    struct addr_hostport at;
    bool v4, parsed = addr_hostport_parse(&at, n->relay_addr, strlen(n->relay_addr), ADDR_STRICT,
                                          NULL) == 0;
    v4 = parsed && strcmp(at.host, "0.0.0.0") == 0;
    snprintf(n->public_addr, sizeof(n->public_addr), "%s", n->relay_addr);
    if (!v4 && !(parsed && strcmp(at.host, "::") == 0))
        return;
    if (outgoing_addr(AF_INET, at.host) || (!v4 && outgoing_addr(AF_INET6, at.host)))
        addr_hostport_text(n->public_addr, &at);
    log_warn(LOG_NODE, "listening everywhere, publishing addr=%s; --public-address sets another",
             n->public_addr);
}

/* The configured relays as the relay wants them; NULL: out of memory. */
static struct relay_server *relay_servers(const struct node_cfg *cfg)
{
    struct relay_server *list = calloc(cfg->n_peers + 1, sizeof(*list));
    for (size_t i = 0; list != NULL && i < cfg->n_peers; i++) {
        char addr[ADDR_HOSTPORT_MAX + 1];
        list[i].pk = cfg->peers[i].pk;
        snprintf(list[i].addr, sizeof(list[i].addr), "%s",
                 addr_hostport_text(addr, &cfg->peers[i].at));
    }
    return list;
}

/* One core is left to the rest of the node: DHT, store, public-key work. */
static unsigned worker_count(const struct node *n)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    if (n->cfg.workers != 0)
        return n->cfg.workers;
    return cores <= 2 ? 1 : cores <= 17 ? (unsigned)cores - 1 : 16;
}

int node_open_relay(struct node *n, char why[NODE_WHY])
{
    struct relay_server *peers;
    struct relay_thread_cfg cfg = {
        .self = n->cfg.pk,
        .sk = n->cfg.sk,
        .listen = n->cfg.listen,
        .pk_pool = n->pk_pool,
        .budget = &n->budget,
        .workers = worker_count(n),
        .guard = n->cfg.guard,
        .key_bytes_per_s = n->cfg.key_bytes_per_s,
        .changed = relay_changed,
        .arg = n,
    };
    if (n->cfg.listen == NULL)
        return 0;
    n->relay_changed_msg.fn = on_relay_changed;
    cfg.peers = peers = relay_servers(&n->cfg);
    cfg.n_peers = n->cfg.n_peers;
    cfg.accepted = n->cfg.accepted_peers;
    cfg.n_accepted = n->cfg.n_accepted_peers;
    cfg.accept_relayed = n->cfg.accept_relayed;
    int rc = peers != NULL ? relay_thread_start(&n->relay, &cfg) : ERR_NOMEM;
    seckey_wipe(&cfg.sk);
    free(peers);
    if (rc < 0) {
        snprintf(why, NODE_WHY, "listen %s: %s", n->cfg.listen, err_str(rc));
        return rc;
    }
    snprintf(n->relay_addr, sizeof(n->relay_addr), "%s", relay_thread_addr(n->relay));
    if (n->cfg.public_address != NULL)
        snprintf(n->public_addr, sizeof(n->public_addr), "%s", n->cfg.public_address);
    else
        public_addr_guess(n);
    return node_load_keys(n, why);
}

int node_attach_relay(struct node *n)
{
    int fd = relay_thread_pair(n->relay);
    if (fd < 0)
        return fd;
    struct conn *conn = drive_tcp_adopt(n->tcp, fd, "own relay");
    return conn == NULL ? ERR_NOMEM : client_attach(n->client, &n->cfg.pk, conn);
}
