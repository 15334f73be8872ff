/*
 * The dmsg discovery as a daemon, with the flags of upstream's (docs/protocol/services.md §3.7).
 *
 * With a secret key it is also served over dmsg port 80: a node of this process joins the servers that have registered here, through its own HTTP address.
 */
#include <stdlib.h>

#include "base/err.h"
#include "base/log.h"
#include "compat-http/disc_service.h"
#include "compat-http/mirror_disc.h"
#include "node/cmds.h"
#include "node/daemon.h"
#include "node/node_int.h"
#include "node/tool.h"

#define DMSG_RATE  100
#define DMSG_BURST 200
#define GATHER_NS  (5 * NS_PER_S)

struct disc_opts {
    struct daemon_opts d;
    const char *official, *auth, *syslog, *ignored;
    uint64_t entry_timeout;
    bool test_mode, load_testing;
    int generation;
};

static const struct cmd_opt opts[] = {
    DAEMON_OPTS(struct disc_opts, ":9090"),
    {.name = "entry-timeout",
     CMD_SECONDS_AT(struct disc_opts, entry_timeout),
     .def = "60m",
     .help = "life of a client's entry; 0 is for ever"},
    {.name = "test-mode",
     .letter = 't',
     CMD_FLAG_AT(struct disc_opts, test_mode),
     .help = "let servers have loopback addresses"},
    {.name = "testmode",
     CMD_FLAG_AT(struct disc_opts, test_mode),
     .help = "the same as --test-mode"},
    {.name = "enable-load-testing",
     CMD_FLAG_AT(struct disc_opts, load_testing),
     .help = "check neither signatures nor times nor sequence numbers"},
    {.name = "auth",
     CMD_STR_AT(struct disc_opts, auth),
     .metavar = "TEXT",
     .help = "servers that send this passphrase are official"},
    {.name = "official-servers",
     CMD_STR_AT(struct disc_opts, official),
     .metavar = "KEYS",
     .help = "servers that are official, separated by commas"},
    {.name = "mode",
     CMD_CHOICE_AT(struct disc_opts, d.mode),
     .choices = "auto|http|dual",
     .def = "auto",
     .help = "dual, with a key, serves over dmsg too"},
    {.name = "generation",
     CMD_CHOICE_AT(struct disc_opts, generation),
     .choices = "2023|2024|2026",
     .def = "2026",
     .help = "whose layout to keep: 2023 writes no serverType and gives clients no life"},
    {.name = "syslog",
     CMD_STR_AT(struct disc_opts, syslog),
     .metavar = "HOST:PORT",
     .help = "taken for compatibility: the log goes to standard error, for the journal"},
    {.name = "syslog-net", CMD_STR_AT(struct disc_opts, ignored), .help = "see --syslog"},
    {.name = "syslog-lvl", CMD_STR_AT(struct disc_opts, ignored), .help = "see --syslog"},
    {0}};

static const struct daemon_member members[] = {
    {"testing", "test-mode"},
    {"auth_passphrase", "auth"},
    {"official_servers", "official-servers"},
    {"charts_addr", NULL},
    {"enable_load_testing", "enable-load-testing"},
};

struct disc_app {
    struct disc_service *disc;
    struct mirror_disc *walk;
    struct pubkey *official;
    size_t n_official;
};

static void metrics(struct daemon *m, FILE *f)
{
    const struct disc_app *a = m->app;
    struct disc_service_stat d;
    disc_service_stat(a->disc, &d);
    fprintf(f,
            "# TYPE dmsg_discovery_clients_count gauge\ndmsg_discovery_clients_count %zu\n"
            "# TYPE dmsg_discovery_servers_count gauge\ndmsg_discovery_servers_count %zu\n"
            "# TYPE kadmsg_disc_posts_total counter\nkadmsg_disc_posts_total %llu\n"
            "# TYPE kadmsg_disc_refused_total counter\nkadmsg_disc_refused_total %llu\n"
            "# TYPE kadmsg_disc_store_errors_total counter\nkadmsg_disc_store_errors_total %llu\n"
            "# TYPE kadmsg_disc_heartbeats_gathered gauge\nkadmsg_disc_heartbeats_gathered %zu\n"
            "# TYPE kadmsg_disc_heartbeats_lost_total counter\n"
            "kadmsg_disc_heartbeats_lost_total %llu\n",
            d.clients, d.servers, (unsigned long long)d.posts, (unsigned long long)d.refused,
            (unsigned long long)d.store_errors, d.uptime.gathered,
            (unsigned long long)d.uptime.lost);
    mirroring_metrics(m->mirroring, f, "kadmsg_disc");
}

/* ---- into the DHT ---- */

static void on_stored(void *arg, const struct entry *e, const char *text, size_t n)
{
    struct daemon *m = arg;
    mirror_entry(mirroring_mirror(m->mirroring), e, text, n);
}

static void on_deleted(void *arg, const struct pubkey *pk)
{
    struct daemon *m = arg;
    mirror_delete(mirroring_mirror(m->mirroring), "dmsg", pk);
}

static void mirror_again(struct daemon *m)
{
    struct disc_app *a = m->app;
    if (a->walk != NULL)
        mirror_disc_again(a->walk);
}

/* What the DHT knows and we do not is registered here, as if it came over HTTP. */
static void pulled(struct daemon *m)
{
    push_all(m->node);
}

/* ---- life ---- */

static int open_disc(struct daemon *m, struct service_cfg *cfg)
{
    const struct disc_opts *o = m->opts;
    struct disc_app *a = m->app = calloc(1, sizeof(*a));
    int rc;
    if (a == NULL)
        return tool_fail(ERR_NOMEM, "%s", err_str(ERR_NOMEM));
    if ((rc = daemon_keys("--official-servers", o->official, &a->official, &a->n_official)) != 0)
        return rc;
    if (o->syslog != NULL)
        log_warn(LOG_HTTP, "--syslog is not used: the log goes to standard error");
    struct disc_service_cfg disc = {
        .env = &m->env.env,
        .loop = drive_loop_loop(m->drive),
        .kv = m->store.kv,
        .generation = (enum disc_generation)o->generation,
        .test_mode = o->test_mode,
        .load_testing = o->load_testing,
        .auth = o->auth,
        .official = a->official,
        .n_official = a->n_official,
        .monitors = m->monitors,
        .n_monitors = m->n_monitors,
        .client_ttl_ms = o->generation >= DISC_2026 ? o->entry_timeout / 1000000 : 0,
        .gather_ns = o->d.redis == NULL ? GATHER_NS : 0, /* others may look at a Redis */
        .dmsg_address = daemon_address(m),
        .stored = m->mirroring != NULL ? on_stored : NULL,
        .deleted = m->mirroring != NULL ? on_deleted : NULL,
        .arg = m,
    };
    if ((rc = disc_service_new(&a->disc, &disc)) < 0)
        return tool_fail(rc, "service: %s", err_str(rc));
    cfg->app = a->disc;
    cfg->routes = disc_service_routes;
    cfg->n_routes = disc_service_n_routes;
    cfg->dropped = disc_service_dropped;
    cfg->stream_rate = o->load_testing ? 0 : DMSG_RATE;
    cfg->stream_burst = DMSG_BURST;
    if (m->mirroring == NULL)
        return 0;
    a->walk =
        mirror_disc_new(mirroring_mirror(m->mirroring), m->store.kv, drive_loop_loop(m->drive));
    return a->walk != NULL ? 0 : tool_fail(ERR_NOMEM, "mirror: %s", err_str(ERR_NOMEM));
}

static void close_disc(struct daemon *m)
{
    struct disc_app *a = m->app;
    if (a != NULL)
        disc_service_free(a->disc);
}

static void closed(struct daemon *m)
{
    struct disc_app *a = m->app;
    if (a == NULL)
        return;
    mirror_disc_free(a->walk);
    free(a->official);
    free(a);
}

static const struct daemon_spec spec = {
    .name = "disc",
    .title = "discovery",
    .own_discovery = true,
    .members = members,
    .n_members = sizeof(members) / sizeof(members[0]),
    .open = open_disc,
    .close = close_disc,
    .closed = closed,
    .metrics = metrics,
    .mirror_again = mirror_again,
    .pull = "dmsg",
    .pulled = pulled,
};

static int run(struct cmdline *cl)
{
    return daemon_run(cl, &spec, &((const struct disc_opts *)cl->opts)->d);
}

const struct cmd cmd_disc = {
    .name = "disc",
    .help = "run a dmsg discovery",
    .about =
        "A daemon that takes the place of upstream's dmsg discovery: the same endpoints, answers "
        "and flags. Entries are kept in an LMDB store of its own, or with --redis in a Redis that "
        "upstream's daemon can take over again.\n\n"
        "A registration is answered after it is on disk (or confirmed by Redis). With a secret key "
        "the discovery is served over dmsg too, through the servers that have registered.",
    .opts = opts,
    .opts_size = sizeof(struct disc_opts),
    .run = run,
};
