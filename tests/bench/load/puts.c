/*
 * puts - signed items of many keys for the nodes of a network, for tests of what survives. --keys keys with
 * --slots slots each; every round gives each slot a newer value, in PUT_BATCH, to the node whose ID is
 * closest to the slot; when that node does not take it, to the next one, until one has acknowledged it.
 *
 *     in     SECRET                    of the node that gives them; the others trust it, so that it pays nothing
 *            KEY …                     the nodes, one a line, then an empty line
 *            an empty line             begin the next round; the end of the input is the end
 *     out    ready
 *            key I KEY                 of each publishing key
 *            ack I SLOT SEQ NODE MS    node number NODE has said at MS (CLOCK_MONOTONIC) that it stored it
 *            round N                   all of them are acknowledged
 */
#include <event2/event.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"
#include "base/hex.h"
#include "node/node.h"
#include "node/node_int.h"
#include "tests/bench/load/load.h"
#include "transport/drive_loop.h"

#define NODES_MAX 256
#define BATCH     32
#define AT_ONCE   16
#define PAUSE_MS  200 /* before a node that does not answer is asked again */

struct slot {
    unsigned key, number;
    struct kad_id target;
    struct item_ref *item; /* of this round */
    unsigned rank, node;   /* it is the turn of the closest but so many, which is that one */
    bool acked;
};

struct receiver {
    struct pubkey pk;
    struct kad_id id;
    kad_peer peer;
    size_t under_way; /* items of its batch; 0: none */
    uint64_t not_before_ns;
};

struct batch { /* user of an operation */
    struct puts *p;
    unsigned node;
    size_t n;
    struct slot *slots[BATCH];
};

struct puts {
    struct node *node;
    struct event_base *base;
    struct event *in, *timer;
    struct env_sys sys;
    size_t n_keys, n_slots; /* slots: of all keys */
    struct seckey *sks;
    struct slot *slots;
    struct receiver to[NODES_MAX];
    unsigned n_to, running, round;
    size_t left; /* slots without an acknowledgement in this round */
    bool listed, over, busy;
};

static uint64_t clock_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static uint64_t now(const struct puts *p)
{
    return p->node->loop->now_ns;
}

/* Which node is to get it next. */
static void choose(const struct puts *p, struct slot *s, unsigned rank)
{
    bool taken[NODES_MAX] = {false};

    s->rank = rank;
    for (unsigned i = 0; i <= rank % p->n_to; i++) {
        unsigned best = NODES_MAX;
        for (unsigned j = 0; j < p->n_to; j++) {
            if (!taken[j] &&
                (best == NODES_MAX || kad_id_closer(&s->target, &p->to[j].id, &p->to[best].id) < 0))
                best = j;
        }
        if (best == NODES_MAX)
            return;
        taken[best] = true;
        s->node = best;
    }
}

/* ---- rounds ---- */

static int sign(struct puts *p, struct slot *s)
{
    char salt[16], value[64];
    struct item it = {.seq = (uint64_t)env_wall_ns(&p->sys.env), .v = (const uint8_t *)value};

    it.salt_len = (size_t)snprintf(salt, sizeof salt, "s%u", s->number);
    it.salt = (const uint8_t *)salt;
    it.v_len = (size_t)snprintf(value, sizeof value, "%u %u %u", s->key, s->number, p->round);
    int rc = item_sign(&it, &p->sks[s->key]);
    item_ref_put(s->item);
    s->item = rc == 0 ? item_ref_new(&it) : NULL;
    s->target = item_target(&it);
    s->acked = false;
    choose(p, s, 0);
    return s->item != NULL ? 0 : ERR_NOMEM;
}

static void send_batch(struct puts *p, unsigned node)
{
    struct kad_batch_item items[BATCH];
    struct batch *b = calloc(1, sizeof *b);
    size_t taken = 0;

    if (b == NULL)
        abort();
    b->p = p;
    b->node = node;
    for (size_t i = 0; i < p->n_slots && b->n < BATCH; i++) {
        struct slot *s = &p->slots[i];
        if (s->item == NULL || s->acked || s->node != node)
            continue;
        items[b->n] = (struct kad_batch_item){.item = s->item, .target = s->target};
        b->slots[b->n++] = s;
    }
    if (b->n == 0 ||
        kad_put_batch(node_kad(p->node), p->to[node].peer, items, b->n, &taken, b, now(p)) == 0) {
        free(b);
        return;
    }
    b->n = taken;
    p->to[node].under_way = taken;
    p->running++;
}

static void send_some(struct puts *p)
{
    for (unsigned i = 0; i < p->n_to && p->running < AT_ONCE && p->left > 0; i++) {
        if (p->to[i].under_way == 0 && p->to[i].not_before_ns <= now(p))
            send_batch(p, i);
    }
    host_kick(p->node->host);
}

static void begin_round(struct puts *p)
{
    int rc = 0;

    p->round++;
    for (size_t i = 0; i < p->n_slots && rc == 0; i++)
        rc = sign(p, &p->slots[i]);
    if (rc != 0)
        abort();
    p->left = p->n_slots;
    p->busy = true;
    send_some(p);
}

static void acknowledged(struct puts *p, struct slot *s, unsigned node)
{
    if (s->acked)
        return;
    s->acked = true;
    p->left--;
    printf("ack %u %u %" PRIu64 " %u %" PRIu64 "\n", s->key, s->number, s->item->item.seq, node,
           clock_ms());
}

static bool on_report(void *arg, const struct kad_report *r)
{
    struct puts *p = arg;

    if (r->type != KAD_OP_BATCH)
        return false;
    struct batch *b = r->user;
    bool all = r->err == 0 && r->refused == 0 && r->pushed == b->n;
    p->running--;
    p->to[b->node].under_way = 0;
    if (!all)
        p->to[b->node].not_before_ns = now(p) + PAUSE_MS * NS_PER_MS;
    for (size_t i = 0; i < b->n; i++) {
        if (all)
            acknowledged(p, b->slots[i], b->node);
        else
            choose(p, b->slots[i], b->slots[i]->rank + 1);
    }
    free(b);
    if (p->busy && p->left == 0) {
        p->busy = false;
        printf("round %u\n", p->round);
    }
    if (p->busy)
        send_some(p);
    fflush(stdout);
    return true;
}

static void tick(evutil_socket_t fd, short what, void *arg)
{
    struct puts *p = arg;

    (void)fd;
    (void)what;
    if (p->busy)
        send_some(p);
}

/* ---- what it is told ---- */

static void add_node(struct puts *p, const char *line)
{
    struct receiver *r = &p->to[p->n_to];

    if (p->n_to == NODES_MAX || pubkey_from_hex(&r->pk, line, strlen(line)) != 0) {
        fprintf(stderr, "kadmsg-load: \"%s\" is not the key of a node\n", line);
        exit(CMD_EXIT_FAIL);
    }
    r->id = kad_id_of(&r->pk);
    r->peer = host_peer(p->node->host, &r->pk);
    p->n_to++;
}

static void line(struct puts *p, const char *text)
{
    if (!p->listed && text[0] != '\0')
        add_node(p, text);
    else if (!p->listed)
        p->listed = p->n_to > 0;
    else if (!p->busy)
        begin_round(p);
}

static void readable(evutil_socket_t fd, short what, void *arg)
{
    static char buf[256];
    static size_t n;
    struct puts *p = arg;
    ssize_t got = read(fd, buf + n, sizeof buf - 1 - n);

    (void)what;
    if (got <= 0) {
        event_del(p->in);
        node_stop(p->node);
        return;
    }
    n += (size_t)got;
    for (char *end; (end = memchr(buf, '\n', n)) != NULL;) {
        *end = '\0';
        line(p, buf);
        n -= (size_t)(end + 1 - buf);
        memmove(buf, end + 1, n);
    }
}

/* ---- life ---- */

static void make_keys(struct puts *p, const struct load_opts *o)
{
    p->n_keys = o->keys;
    p->n_slots = o->keys * o->slots;
    p->sks = calloc(p->n_keys, sizeof *p->sks);
    p->slots = calloc(p->n_slots, sizeof *p->slots);
    if (p->sks == NULL || p->slots == NULL)
        abort();
    for (size_t i = 0; i < p->n_keys; i++) {
        struct pubkey pk;
        char hex[PUBKEY_HEX + 1];
        env_keypair(&p->sys.env, &p->sks[i], &pk);
        printf("key %zu %s\n", i, pubkey_hex(hex, &pk));
        for (size_t j = 0; j < o->slots; j++)
            p->slots[i * o->slots + j] = (struct slot){.key = (unsigned)i, .number = (unsigned)j};
    }
}

static void stopped(void *arg)
{
    event_base_loopbreak(((struct puts *)arg)->base);
}

static int read_secret(struct node_cfg *cfg)
{
    char text[2 * SECKEY_BYTES + 2] = "";

    /* Byte by byte: what follows is for the loop. */
    for (size_t n = 0; n + 1 < sizeof text && read(STDIN_FILENO, text + n, 1) == 1; n++) {
        if (text[n] == '\n') {
            text[n] = '\0';
            break;
        }
    }
    int rc = seckey_from_hex(&cfg->sk, text, strlen(text));
    return rc != 0 ? rc : seckey_pubkey(&cfg->pk, &cfg->sk);
}

int puts_run(const struct load_opts *o)
{
    static struct puts p;
    struct addr_peer to = {.pk = o->pk, .at = o->addr};
    struct timeval every = {.tv_usec = 50000};
    char why[NODE_WHY] = "";
    struct node_cfg cfg = {.bootstrap = &to,
                           .n_bootstrap = 1,
                           .client_only = true,
                           .report = on_report,
                           .stopped = stopped,
                           .arg = &p};
    int rc = env_sys_init(&p.sys);

    if (rc == 0)
        rc = read_secret(&cfg);
    p.base = cfg.base = event_base_new();
    if (rc == 0 && p.base != NULL)
        rc = node_new(&p.node, &cfg, why);
    if (rc < 0 || p.base == NULL) {
        fprintf(stderr, "kadmsg-load: %s %s\n", err_str(rc), why);
        return CMD_EXIT_FAIL;
    }
    make_keys(&p, o);
    p.in = event_new(p.base, STDIN_FILENO, EV_READ | EV_PERSIST, readable, &p);
    p.timer = event_new(p.base, -1, EV_PERSIST, tick, &p);
    if (p.in == NULL || p.timer == NULL || event_add(p.in, NULL) < 0 ||
        event_add(p.timer, &every) < 0)
        abort();
    printf("ready\n");
    fflush(stdout);
    event_base_dispatch(p.base);
    return CMD_EXIT_OK;
}
