/*
 * servers - the relays that a node knows of, and the client's list of those it should hold sessions
 * to.
 *
 * Sources, best first: the node's own configuration (bootstrap; a key may be there with several
 * addresses, IPv4 and IPv6), records under salt "dmsg-server" in the DHT (signed by the relay
 * itself), the server half of entries that were looked up, the list of an HTTP discovery (hints: they
 * change nothing that was signed). What was published last is one more
 * address of a configured relay: a private relay publishes one that not everybody reaches. While
 * there are fewer sessions than wanted, the records are pulled from a DHT peer that may hold them
 * all.
 *
 * The relay of this node links to every one that published itself so, or that the discovery lists,
 * while its record is there (tell_relay()).
 *
 * Anybody can publish such a record, so a full table gives up the oldest relay that is neither
 * configured nor connected.
 */
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/log.h"
#include "kademlia/records/dmsg_server.h"
#include "node/node_int.h"

#define SERVERS_MAX   128 /* half of what the client remembers, so that forgetting has time */
#define LOOK_SOON_NS  (10 * NS_PER_S)
#define LOOK_LATER_NS (300 * NS_PER_S)
#define LOOK_RELAY_NS (60 * NS_PER_S) /* a relay links to the others soon … */
#define YOUNG_NS      (60 * NS_PER_S) /* … and when it is new, sooner */

static const char salt[] = "dmsg-server";

#define SEEDS_MAX (CLIENT_ADDRS_MAX - 1)

struct server {
    struct list_node node;
    struct pubkey pk;
    char seeds[SEEDS_MAX][CONN_ADDR_MAX]; /* of the configuration */
    size_t n_seeds;
    char addr[CONN_ADDR_MAX]; /* published; "" = none is known */
    int64_t signed_ns;        /* when the address was signed, 0 = it is only known */
    uint64_t round;           /* in which its record was in the store */
    bool configured;
    bool recorded; /* it published itself: our relay links to it */
    bool listed;   /* the discovery has it: the same */
};

static bool is_found(const struct server *s)
{
    return s->recorded || s->listed;
}

static struct server *find(struct node *n, const struct pubkey *pk)
{
    struct list_node *pos, *tmp;
    list_for_each(pos, tmp, &n->servers)
    {
        struct server *s = container_of(pos, struct server, node);
        if (pubkey_equal(&s->pk, pk))
            return s;
    }
    return NULL;
}

static bool among(const struct pubkey *pk, const struct pubkey *list, size_t n)
{
    while (n > 0)
        if (pubkey_equal(pk, &list[--n]))
            return true;
    return false;
}

static bool configured(const struct node *n, const struct pubkey *pk)
{
    for (size_t i = 0; i < n->cfg.n_bootstrap; i++)
        if (pubkey_equal(pk, &n->cfg.bootstrap[i].pk))
            return true;
    return false;
}

static void forget(struct node *n, struct server *s)
{
    n->servers_dirty = n->servers_dirty || is_found(s);
    client_remove_server(n->client, &s->pk);
    list_remove(&s->node);
    n->n_servers--;
    free(s);
}

/* True when there is room for one more. */
static bool make_room(struct node *n)
{
    struct pubkey up[64];
    struct list_node *pos, *tmp;
    if (n->n_servers < SERVERS_MAX)
        return true;
    size_t n_up = client_delegated(n->client, up, sizeof(up) / sizeof(up[0]));
    list_for_each(pos, tmp, &n->servers)
    {
        struct server *s = container_of(pos, struct server, node);
        if (!s->configured && !among(&s->pk, up, n_up)) {
            forget(n, s);
            return true;
        }
    }
    return false;
}

static const char *best_addr(const struct server *s)
{
    return s->n_seeds > 0 ? s->seeds[0] : s->addr;
}

/* The client is told all of them; it stays with the one that works. */
static void tell_client(struct node *n, struct server *s)
{
    const char *addrs[CLIENT_ADDRS_MAX];
    size_t have = 0;
    for (size_t i = 0; i < s->n_seeds; i++)
        addrs[have++] = s->seeds[i];
    if (s->addr[0] != '\0')
        addrs[have++] = s->addr;
    log_debug(LOG_CLIENT, "relay known pk=%s addr=%s", LOG_PK(&s->pk),
              s->addr[0] != '\0' ? s->addr : best_addr(s));
    if (client_add_server_addrs(n->client, &s->pk, addrs, have) < 0)
        forget(n, s); /* it forgets slowly: another time */
}

/* The relay of this key, made when there is room. NULL: not one to know. */
static struct server *server_make(struct node *n, const struct pubkey *pk)
{
    struct server *s = find(n, pk);
    if (s != NULL)
        return s;
    if (!make_room(n) || (s = calloc(1, sizeof(*s))) == NULL)
        return NULL;
    s->pk = *pk;
    s->configured = configured(n, pk);
    list_push_back(&n->servers, &s->node);
    n->n_servers++;
    return s;
}

static bool parse(struct node *n, const struct pubkey *pk, const char *addr,
                  char text[ADDR_HOSTPORT_MAX + 1])
{
    struct addr_hostport at;
    if (pubkey_equal(pk, &n->cfg.pk) ||
        addr_hostport_parse(&at, addr, strlen(addr), ADDR_STRICT, NULL) < 0)
        return false;
    addr_hostport_text(text, &at);
    return true;
}

void servers_seed(struct node *n, const struct pubkey *pk, const char *addr)
{
    char text[ADDR_HOSTPORT_MAX + 1];
    struct server *s = parse(n, pk, addr, text) ? server_make(n, pk) : NULL;
    if (s == NULL || s->n_seeds == SEEDS_MAX)
        return;
    for (size_t i = 0; i < s->n_seeds; i++)
        if (strcmp(s->seeds[i], text) == 0)
            return;
    snprintf(s->seeds[s->n_seeds++], sizeof(s->seeds[0]), "%s", text);
    tell_client(n, s);
}

void servers_learn(struct node *n, const struct pubkey *pk, const char *addr)
{
    servers_learn_at(n, pk, addr, 0);
}

static bool seeded(const struct server *s, const char *addr)
{
    for (size_t i = 0; i < s->n_seeds; i++)
        if (strcmp(s->seeds[i], addr) == 0)
            return true;
    return false;
}

void servers_learn_at(struct node *n, const struct pubkey *pk, const char *addr, int64_t wall_ns)
{
    char text[ADDR_HOSTPORT_MAX + 1];
    struct server *s = parse(n, pk, addr, text) ? server_make(n, pk) : NULL;
    if (s == NULL || wall_ns < s->signed_ns)
        return;
    s->signed_ns = wall_ns;
    if (strcmp(s->addr, text) == 0 || (s->addr[0] == '\0' && seeded(s, text)))
        return;
    snprintf(s->addr, sizeof(s->addr), "%s", seeded(s, text) ? "" : text);
    n->servers_dirty = n->servers_dirty || is_found(s);
    tell_client(n, s);
}

/* ---- records in the store ---- */

static void set_recorded(struct node *n, struct server *s, bool recorded)
{
    if (s == NULL)
        return;
    s->round = n->servers_round;
    n->servers_dirty = n->servers_dirty || s->recorded != recorded;
    s->recorded = recorded;
}

static bool learn_record(void *arg, const struct store_rec *rec)
{
    struct node *n = arg;
    if (rec->kind != ITEM_OWNER)
        return true;
    struct dmsg_server_rec r;
    bool said = dmsg_server_decode(&r, rec->item.v, rec->item.v_len) == 0 &&
                dmsg_server_check(&r, &rec->item.k) == 0;
    int64_t seq = rec->item.seq < INT64_MAX ? (int64_t)rec->item.seq : INT64_MAX;
    if (said)
        servers_learn_at(n, &rec->item.k, r.address, seq);
    set_recorded(n, find(n, &rec->item.k), said);
    return true;
}

void servers_stored(struct node *n, const struct store_rec *rec)
{
    if (rec->item.salt_len == sizeof(salt) - 1 &&
        memcmp(rec->item.salt, salt, rec->item.salt_len) == 0)
        (void)learn_record(n, rec);
}

static void learn_from_store(struct node *n)
{
    struct store_page page = {
        .salt = (const uint8_t *)salt,
        .salt_len = sizeof(salt) - 1,
        .limit = SERVERS_MAX,
        .max_bytes = 1 << 20,
    };
    bool more = true;
    struct list_node *pos, *tmp;
    n->servers_round++;
    int rc = n->store->ops->list(n->store, &page, learn_record, n, &more);
    if (rc < 0 || more)
        return;
    list_for_each(pos, tmp, &n->servers)
    {
        struct server *s = container_of(pos, struct server, node);
        if (s->round != n->servers_round && s->recorded) /* its record has expired */
            set_recorded(n, s, false);
    }
}

void servers_each(struct node *n, void (*fn)(void *arg, const struct pubkey *pk, const char *addr),
                  void *arg)
{
    struct list_node *pos, *tmp;
    if (n->relay != NULL)
        fn(arg, &n->cfg.pk, n->public_addr);
    list_for_each(pos, tmp, &n->servers)
    {
        const struct server *s = container_of(pos, struct server, node);
        fn(arg, &s->pk, s->addr[0] == '\0' && s->n_seeds > 0 ? s->seeds[0] : s->addr);
    }
}

/* ---- the discovery's list ---- */

static bool lists(struct entry *const *list, size_t count, const struct pubkey *pk)
{
    while (count > 0)
        if (pubkey_equal(&list[--count]->static_pk, pk))
            return true;
    return false;
}

void servers_listed(struct node *n, struct entry *const *list, size_t count)
{
    struct list_node *pos, *tmp;
    for (size_t i = 0; i < count && i < SERVERS_MAX; i++)
        servers_learn(n, &list[i]->static_pk, entry_server_address(list[i]));
    list_for_each(pos, tmp, &n->servers)
    {
        struct server *s = container_of(pos, struct server, node);
        bool listed = lists(list, count, &s->pk);
        n->servers_dirty = n->servers_dirty || listed != s->listed;
        s->listed = listed;
    }
}

/* ---- what our own relay links to ---- */

static size_t count_recorded(const struct node *n)
{
    size_t have = 0;
    for (struct list_node *pos = list_first(&n->servers); pos != NULL;
         pos = list_next(&n->servers, pos))
        have += is_found(container_of(pos, struct server, node)) ? 1 : 0;
    return have;
}

static void tell_relay(struct node *n)
{
    struct relay_server list[SERVERS_MAX];
    size_t have = 0;
    if (n->relay == NULL || !n->servers_dirty)
        return;
    for (struct list_node *pos = list_first(&n->servers); pos != NULL && have < SERVERS_MAX;
         pos = list_next(&n->servers, pos)) {
        const struct server *s = container_of(pos, struct server, node);
        if (!is_found(s))
            continue;
        list[have].pk = s->pk;
        memcpy(list[have++].addr, best_addr(s), sizeof(s->addr));
    }
    n->servers_dirty = !relay_thread_found(n->relay, list, have);
}

/* ---- looking for more ---- */

bool servers_full_peer(struct node *n, struct pubkey *out)
{
    struct pubkey closest[4];
    size_t have = kad_closest(node_kad(n), &(struct kad_id){{0}}, closest, 4);
    const struct pubkey *from = n->cfg.n_bootstrap > 0 && !n->cfg.no_dht
                                    ? &n->cfg.bootstrap[n->cfg.n_bootstrap - 1].pk
                                : have > 0 ? &closest[0]
                                           : NULL;
    if (from == NULL || pubkey_equal(from, &n->cfg.pk))
        return false;
    *out = *from;
    return true;
}

static void pull(struct node *n)
{
    struct pubkey from;
    if (!servers_full_peer(n, &from))
        return;
    kad_peer p = host_peer(n->host, &from);
    if (p == KAD_PEER_NONE)
        return;
    n->servers_op = kad_pull(node_kad(n), p, salt, sizeof(salt) - 1, &n->servers, n->loop->now_ns);
    host_unref(n->host, p);
    host_kick(n->host);
}

void servers_tick(struct node *n)
{
    struct client_stat st;
    tell_relay(n);
    if (n->loop->now_ns < n->servers_next_ns || n->servers_op != 0 ||
        (n->cfg.no_dht && n->discovery == NULL))
        return;
    client_stat(n->client, &st);
    unsigned want = n->cfg.sessions != 0 ? n->cfg.sessions : 2;
    bool young = n->loop->now_ns - n->started_ns < YOUNG_NS || count_recorded(n) == 0;
    bool short_of = st.sessions_up < want || (n->relay != NULL && young);
    uint64_t wait_ns = short_of ? LOOK_SOON_NS : n->relay != NULL ? LOOK_RELAY_NS : LOOK_LATER_NS;
    n->servers_next_ns = n->loop->now_ns + env_jitter_ns(n->env, wait_ns, 20);
    learn_from_store(n);
    if (n->ask_servers != NULL)
        n->ask_servers(n);
    /* A full node gets them anyway, in its own time: not soon enough for a relay (measured: a relay
     * that joined a second after another one did not know of it 20 s later). */
    if (st.sessions_up > 0 && (!n->cfg.full || n->relay != NULL))
        pull(n);
}

bool servers_report(struct node *n, const struct kad_report *r)
{
    if (r->user != &n->servers || r->op != n->servers_op)
        return false;
    n->servers_op = 0;
    learn_from_store(n);
    return true;
}

/* ---- the client asks for an address ---- */

static void found(void *arg, const struct resolve_answer *a)
{
    struct node *n = arg;
    if (a->err == 0 && a->entry->has_server)
        servers_learn_at(n, &a->entry->static_pk, entry_server_address(a->entry),
                         a->entry->timestamp_ns);
}

struct question {
    struct node *node;
    struct list_node link; /* in node->questions */
    struct pubkey pk;
};

static void answered(void *arg, const struct resolve_answer *a)
{
    struct question *q = arg;
    struct node *n = q->node;
    found(n, a);
    const struct server *s = find(n, &q->pk);
    struct pubkey pk = q->pk;
    list_remove(&q->link);
    free(q);
    client_server_found(n->client, &pk, s != NULL ? 0 : ERR_NOT_FOUND,
                        s != NULL ? best_addr(s) : NULL);
}

void servers_find(void *arg, const struct pubkey *server)
{
    struct node *n = arg;
    if (n->relay != NULL && pubkey_equal(server, &n->cfg.pk)) { /* the session to it was lost */
        if (node_attach_relay(n) < 0)
            client_server_found(n->client, server, ERR_NO_ROUTE, NULL);
        return;
    }
    const struct server *s = find(n, server);
    struct question *q = s == NULL ? calloc(1, sizeof(*q)) : NULL;
    if (q == NULL) {
        client_server_found(n->client, server, s != NULL ? 0 : ERR_NOMEM,
                            s != NULL ? best_addr(s) : NULL);
        return;
    }
    q->node = n;
    q->pk = *server;
    list_push_back(&n->questions, &q->link);
    (void)resolve_entry(n->resolve, server, RESOLVE_UNCOUNTED, answered, q);
}

void servers_init(struct node *n)
{
    n->servers_next_ns = n->loop->now_ns + 2 * NS_PER_S;
}

void servers_free(struct node *n)
{
    struct server *s;
    struct question *q;
    while ((q = list_pop_front_as(&n->questions, struct question, link)) != NULL)
        free(q);
    while ((s = list_pop_front_as(&n->servers, struct server, node)) != NULL)
        free(s);
}
