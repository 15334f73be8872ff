/*
 * The transport discovery as a daemon, with the flags of upstream's (docs/protocol/services.md §5.5).
 */
#include <stdlib.h>

#include "base/err.h"
#include "compat-http/mirror_tpd.h"
#include "node/cmds.h"
#include "node/daemon.h"
#include "node/node_int.h"
#include "node/tool.h"

#define RATE "30"

struct tpd_opts {
    struct daemon_opts d;
    const char *ignored;
    uint64_t entry_timeout, rate, max, ignored_n;
    int generation;
};

static const struct cmd_opt opts[] = {
    DAEMON_OPTS(struct tpd_opts, ":9091"),
    {.name = "dmsg-disc",
     CMD_STR_AT(struct tpd_opts, d.discovery),
     .metavar = "URL",
     .def_text = "the DHT",
     .help = "dmsg discovery that tells the relays through which to serve over dmsg"},
    {.name = "entry-timeout",
     CMD_SECONDS_AT(struct tpd_opts, entry_timeout),
     .def = "5m",
     .min = UINT64_C(1000000000),
     .help = "a transport that is not registered again for so long is gone"},
    {.name = "testing",
     .letter = 't',
     CMD_FLAG_AT(struct tpd_opts, d.memory),
     .help = "keep everything only as long as the process lives"},
    {.name = "rate",
     CMD_U64_AT(struct tpd_opts, rate),
     .def = RATE,
     .max = 1000000,
     .metavar = "N",
     .help = "requests a minute of one caller (dmsg key, else address), 10 at once; 0 is no limit"},
    {.name = "max-transports",
     CMD_U64_AT(struct tpd_opts, max),
     .def = "1048576",
     .min = 1,
     .max = UINT64_C(1) << 24,
     .metavar = "N",
     .help = "no more than so many"},
    {.name = "generation",
     CMD_CHOICE_AT(struct tpd_opts, generation),
     .choices = "2024|2026",
     .def = "2026",
     .help = "whose endpoints and layout: 2024 keeps transports for ever, and with --redis only "
             "nonces in the Redis"},
    {.name = "mode",
     CMD_CHOICE_AT(struct tpd_opts, d.mode),
     .choices = "auto|http|dual|dmsg",
     .def = "auto",
     .help = "dual, with a key, serves over dmsg too; dmsg opens no port of this host; the "
             "environment variable SKYWIRE_SVC_MODE overrides"},
    {.name = "loglvl",
     .letter = 'l',
     CMD_STR_AT(struct tpd_opts, d.log_level),
     .metavar = "LEVELS",
     .help = "the same as --log-level"},
    {.name = "redis-pool-size",
     CMD_U64_AT(struct tpd_opts, ignored_n),
     .metavar = "N",
     .help = "taken for compatibility: one connection carries everything"},
    {.name = "pg-host",
     CMD_STR_AT(struct tpd_opts, ignored),
     .help = "taken for compatibility: transports are in --store or --redis"},
    {.name = "pg-port", CMD_STR_AT(struct tpd_opts, ignored), .help = "see --pg-host"},
    {.name = "pg-max-open-conn", CMD_STR_AT(struct tpd_opts, ignored), .help = "see --pg-host"},
    {.name = "store-data-path",
     CMD_STR_AT(struct tpd_opts, ignored),
     .metavar = "DIR",
     .help = "taken for compatibility: no files of bandwidth are written"},
    {.name = "uptime-db",
     CMD_STR_AT(struct tpd_opts, ignored),
     .metavar = "FILE",
     .help = "taken for compatibility: no history of the service itself is kept"},
    {0}};

static const struct daemon_member members[] = {
    {"testing", "testing"},    {"dmsg_disc", "dmsg-disc"}, {"dmsg_discovery", "dmsg-disc"},
    {"store_data_path", NULL}, {"uptime_db", NULL},
};

#define PULLED_MAX 65536 /* lists of visors */

struct tpd_app {
    struct tpd_service *tpd;
    struct mirror_tpd *mirror; /* NULL = none */
    bool pulled;               /* the node's store has what full nodes have */
    struct kv_open sql; /* generation 2024 beside a Redis: what upstream has in its database */
};

static void metrics(struct daemon *m, FILE *f)
{
    static const char *const types[] = {"stcp", "stcpr", "sudph", "dmsg"};
    const struct tpd_app *a = m->app;
    struct tpd_service_stat s;
    tpd_service_stat(a->tpd, &s);
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
        fprintf(f, "# TYPE transport_discovery_%s_count gauge\ntransport_discovery_%s_count %zu\n",
                types[i], types[i], tpd_service_count(a->tpd, types[i]));
    const struct {
        const char *name, *kind;
        uint64_t n;
    } rows[] = {
        {"transports", "gauge", s.transports},
        {"visors", "gauge", s.edges},
        {"waiting", "gauge", s.waiting},
        {"ready", "gauge", s.ready},
        {"registered_total", "counter", s.registered},
        {"renewed_total", "counter", s.renewed},
        {"unchanged_total", "counter", s.unchanged},
        {"refused_total", "counter", s.refused},
        {"removed_total", "counter", s.removed},
        {"expired_total", "counter", s.expired},
        {"heartbeats_total", "counter", s.heartbeats},
        {"unauthorized_total", "counter", s.unauthorized},
        {"limited_total", "counter", s.limited},
        {"store_errors_total", "counter", s.store_errors},
        {"restored_total", "counter", s.restored},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        fprintf(f, "# TYPE kadmsg_tpd_%s %s\nkadmsg_tpd_%s %llu\n", rows[i].name, rows[i].kind,
                rows[i].name, (unsigned long long)rows[i].n);
    mirroring_metrics(m->mirroring, f, "kadmsg_tpd");
}

static void store_back(struct daemon *m)
{
    struct tpd_app *a = m->app;
    tpd_service_store_back(a->tpd);
}

/* ---- into the DHT and back ---- */

static void on_changed(void *arg, const struct pubkey *pk)
{
    const struct daemon *m = arg;
    struct tpd_app *a = m->app;
    if (a->mirror != NULL)
        mirror_tpd_changed(a->mirror, pk);
}

/* What a visor says of its own transports, and what we said ourselves. */
static bool take_record(void *arg, const struct store_rec *rec)
{
    const struct daemon *m = arg;
    struct tpd_app *a = m->app;
    bool ours = pubkey_equal(&rec->item.k, &m->pk);
    if (rec->expires_ns > env_wall_ns(m->node->env) && (ours || rec->kind == ITEM_OWNER))
        (void)mirror_tpd_take(a->mirror, ours ? NULL : &rec->item.k, rec->item.v, rec->item.v_len);
    return true;
}

static void pulled(struct daemon *m)
{
    struct tpd_app *a = m->app;
    struct store *s = m->node->store;
    struct store_page page = {.salt = (const uint8_t *)"tp", .salt_len = 2, .limit = PULLED_MAX};
    bool more;
    a->pulled = true;
    if (a->mirror == NULL)
        return;
    (void)s->ops->list(s, &page, take_record, m, &more);
    tpd_service_store_back(a->tpd);
}

static void mirror_again(struct daemon *m)
{
    struct tpd_app *a = m->app;
    if (a->mirror != NULL)
        mirror_tpd_all(a->mirror);
}

static void on_loaded(void *arg)
{
    struct daemon *m = arg;
    struct tpd_app *a = m->app;
    mirror_again(m);
    if (a->pulled)
        pulled(m); /* nothing could be taken before */
}

/* Beside a Redis of 2024 transports have a store of their own. */
static int open_sql(struct daemon *m, struct tpd_app *a)
{
    char dir[PATHS_MAX], why[512];
    int rc = daemon_store_dir(m, dir);
    if (rc != 0)
        return rc;
    struct kv_open_cfg cfg = {.drive = m->drive,
                              .env = &m->env.env,
                              .dir = dir,
                              .commit_ms = (unsigned)(m->o->commit / 1000000)};
    rc = kv_open(&a->sql, &cfg, why, sizeof(why));
    return rc < 0 ? tool_fail(rc, "%s", why) : 0;
}

static int open_tpd(struct daemon *m, struct service_cfg *cfg)
{
    const struct tpd_opts *o = m->opts;
    struct tpd_app *a = m->app = calloc(1, sizeof(*a));
    int rc;
    if (a == NULL)
        return tool_fail(ERR_NOMEM, "%s", err_str(ERR_NOMEM));
    bool split = o->generation == TPD_2024 && o->d.redis != NULL && !o->d.memory;
    if (split && (rc = open_sql(m, a)) != 0)
        return rc;
    struct tpd_service_cfg tpd = {
        .env = &m->env.env,
        .loop = drive_loop_loop(m->drive),
        .kv = split ? a->sql.kv : m->store.kv,
        .nonces = m->store.kv,
        .generation = (enum tpd_generation)o->generation,
        .testing = o->d.memory,
        .monitors = m->monitors,
        .n_monitors = m->n_monitors,
        .ttl_ms = o->entry_timeout / 1000000,
        .rate = o->generation == TPD_2024 ? 0 : (unsigned)o->rate,
        .max = o->max,
        .dmsg_address = daemon_address(m),
        .changed = m->mirroring != NULL ? on_changed : NULL,
        .loaded = m->mirroring != NULL ? on_loaded : NULL,
        .arg = m,
    };
    if ((rc = tpd_service_new(&a->tpd, &tpd)) < 0)
        return tool_fail(rc, "service: %s", err_str(rc));
    if (m->mirroring != NULL &&
        (a->mirror = mirror_tpd_new(mirroring_mirror(m->mirroring), a->tpd, tpd.loop)) == NULL)
        return tool_fail(ERR_NOMEM, "mirror: %s", err_str(ERR_NOMEM));
    cfg->app = a->tpd;
    cfg->routes = tpd_service_routes(tpd.generation, &cfg->n_routes);
    cfg->dropped = tpd_service_dropped;
    return 0;
}

static void close_tpd(struct daemon *m)
{
    struct tpd_app *a = m->app;
    if (a == NULL)
        return;
    mirror_tpd_free(a->mirror);
    a->mirror = NULL;
    tpd_service_free(a->tpd);
    kv_open_close(&a->sql);
}

static void closed(struct daemon *m)
{
    free(m->app);
}

static const struct daemon_spec spec = {
    .name = "tpd",
    .title = "transport discovery",
    .mode_env = "SKYWIRE_SVC_MODE",
    .members = members,
    .n_members = sizeof(members) / sizeof(members[0]),
    .open = open_tpd,
    .close = close_tpd,
    .closed = closed,
    .metrics = metrics,
    .store_back = store_back,
    .mirror_again = mirror_again,
    .pull = "tp",
    .pulled = pulled,
};

static int run(struct cmdline *cl)
{
    return daemon_run(cl, &spec, &((const struct tpd_opts *)cl->opts)->d);
}

const struct cmd cmd_tpd = {
    .name = "tpd",
    .help = "run a transport discovery",
    .about =
        "A daemon that takes the place of upstream's transport discovery: the same endpoints, "
        "answers and flags. Transports are kept in an LMDB store of its own, or with --redis in "
        "a Redis that upstream's daemon can take over again.\n\n"
        "A registration is answered after it is on disk (or confirmed by Redis). With a secret "
        "key the service is served over dmsg too, where the caller's key takes the place of "
        "signatures; --dmsg-disc or --bootstrap tells its relays.",
    .opts = opts,
    .opts_size = sizeof(struct tpd_opts),
    .run = run,
};
