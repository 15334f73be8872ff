#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/log.h"
#include "kademlia/id.h"
#include "node/cmds.h"
#include "node/config.h"
#include "node/control.h"
#include "node/keyfile.h"
#include "node/node.h"
#include "node/paths.h"
#include "node/policy.h"
#include "node/serve.h"
#include "node/tool.h"
#include "node/tool_key.h"

/* ---- the key ---- */

/* The key: the file that was named, else one that is made in the store directory at the first
 * start. */
static int find_key(const struct node_opts *o, struct node_cfg *cfg)
{
    char dir[PATHS_MAX], key[PATHS_MAX];
    bool made = false;
    int rc = 0;
    if (o->sk_file != NULL) {
        rc = keyfile_read(&cfg->sk, &cfg->pk, o->sk_file);
        return rc < 0 ? tool_key_tell(rc, o->sk_file) : 0;
    }
    rc = o->store != NULL
             ? (snprintf(dir, sizeof(dir), "%s", o->store) < (int)sizeof(dir) ? 0 : ERR_TOO_LONG)
             : paths_state(dir);
    if (rc == 0)
        rc = paths_make_dir(dir);
    if (rc < 0)
        return serve_bad(rc, "directory", dir);
    if ((rc = paths_join(key, dir, "node.key")) == 0)
        rc = keyfile_open(&cfg->sk, &cfg->pk, key, &made);
    if (rc < 0)
        return tool_key_tell(rc, key);
    if (made)
        log_info(LOG_NODE, "made a new key file=%s pk=%s", key, LOG_PK(&cfg->pk));
    return 0;
}

/* ---- SIGHUP ---- */

/* The levels of the log are what can change while the node runs. Flags still win over the file. */
static int reload(void *arg, char *why, size_t cap)
{
    struct cmdline *cl = arg;
    const struct node_opts *o = cl->opts;
    if (o->config == NULL) {
        if (o->relay.allow_keys == NULL && o->relay.deny_keys == NULL)
            log_info(LOG_NODE, "nothing to reload: there is no configuration file");
        return 0;
    }
    int rc = config_reload(cl, o->config, why, cap);
    if (rc < 0)
        log_error(LOG_NODE, "configuration not reloaded reason=%s", LOG_TEXT(why, strlen(why)));
    else
        log_info(LOG_NODE, "configuration reloaded file=%s log-level=%s", o->config, o->log_level);
    return rc;
}

static char *settings(void *arg)
{
    json_t *o = config_json(arg);
    char *text = json_dumps(o, JSON_COMPACT);
    json_decref(o);
    return text;
}

/* ---- the command ---- */

struct texts { /* addresses that the configuration points to */
    char listen[ADDR_HOSTPORT_MAX + 1], public[ADDR_HOSTPORT_MAX + 1];
    char health[ADDR_HOSTPORT_MAX + 1], metrics[ADDR_HOSTPORT_MAX + 1];
    char http[ADDR_HOSTPORT_MAX + 1];
};

/* ":2112" is an address of this host only, for what is the operator's own. */
static const char *loopback_text(char out[ADDR_HOSTPORT_MAX + 1], const struct addr_hostport *at)
{
    struct addr_hostport copy = *at;
    if (copy.host[0] == '\0')
        snprintf(copy.host, sizeof(copy.host), "127.0.0.1");
    return addr_hostport_text(out, &copy);
}

static struct node_cfg config_of(const struct node_opts *o, bool listens, bool http,
                                 struct texts *text)
{
    struct node_cfg cfg = {
        .full = o->full,
        .bootstrap = o->bootstrap.v,
        .n_bootstrap = o->bootstrap.n,
        .discovery = o->discovery,
        .mode = (enum node_mode)o->mode,
        .lookup = (enum node_lookup)o->lookup,
        .registration = (enum node_register)o->registration,
        .push = (enum node_push)o->push,
        .publish_sk_file = o->publish_sk_file,
        .peers = o->peers.v,
        .n_peers = o->peers.n,
        .accepted_peers = o->accepted_peers.v,
        .n_accepted_peers = o->accepted_peers.n,
        .accept_relayed = o->accept_relayed,
        .store_bytes = o->store_bytes,
        .commit_ms = (unsigned)(o->commit / 1000000),
        .whitelisted = o->whitelisted.v,
        .n_whitelisted = o->whitelisted.n,
        .trusted = o->trusted.v,
        .n_trusted = o->trusted.n,
        .mirrors = o->mirrors.v,
        .n_mirrors = o->mirrors.n,
        .readers = o->readers.v,
        .n_readers = o->readers.n,
        .network = o->network,
        .max_sessions = (uint32_t)o->max_sessions,
        .guard = {.max_sessions = (uint32_t)o->max_sessions},
        .sessions = (unsigned)o->sessions,
        .pk_threads = (unsigned)o->pk_threads,
        .health_on_dmsg = o->dmsg_health,
        .control_port = true,
        .publish = true,
        .lock = true,
    };
    config_relay(&cfg, &o->relay);
    if (listens) /* ":0" is all zeros */
        cfg.listen = addr_hostport_text(text->listen, &o->listen);
    if (o->public_address.port != 0)
        cfg.public_address = addr_hostport_text(text->public, &o->public_address);
    const char *offset = getenv("KADMSG_TEST_CLOCK_OFFSET_S");
    if (o->health.port != 0 || o->health.host[0] != '\0')
        cfg.health = loopback_text(text->health, &o->health);
    if (o->metrics.port != 0 || o->metrics.host[0] != '\0')
        cfg.metrics = loopback_text(text->metrics, &o->metrics);
    cfg.http = http ? loopback_text(text->http, &o->http) : NULL;
    if (offset != NULL)
        cfg.clock_offset_ns = strtoll(offset, NULL, 10) * 1000000000;
    return cfg;
}

static int run(struct cmdline *cl)
{
    const struct node_opts *o = cl->opts;
    struct texts text;
    char why[256];
    struct serve_places at;
    if (o->sample_config) {
        config_sample(stdout);
        return 0;
    }
    int rc = o->config != NULL ? config_load(cl, o->config) : 0;
    if (rc != 0)
        return rc;
    if (log_set_levels(o->log_level, why, sizeof(why)) < 0)
        return cmdline_usage_error(cl, "--log-level: %s", why);
    if (o->log_json)
        log_set_format(LOG_FORMAT_JSON);
    bool listens = cmdline_given(cl, "listen");
    if (cmdline_given(cl, "public-address") && !listens)
        return cmdline_usage_error(cl, "--public-address is for relays: --listen is missing");
    if (o->peers.n > 0 && !listens)
        return cmdline_usage_error(cl, "--peers is for relays: --listen is missing");
    struct kad_writer *writers;
    size_t n_writers;
    if (config_writers(&writers, &n_writers, &o->writers, why, sizeof(why)) != 0)
        return cmdline_usage_error(cl, "%s", why);
    struct node_cfg cfg = config_of(o, listens, cmdline_given(cl, "http"), &text);
    const char *wrong = node_policy_wrong(&cfg);
    if (wrong != NULL) {
        free(writers);
        return cmdline_usage_error(cl, "%s", wrong);
    }
    cfg.writers = writers;
    cfg.n_writers = n_writers;
    cfg.reload = reload;
    cfg.config = settings;
    cfg.arg = cl;
    if ((rc = find_key(o, &cfg)) == 0 && (rc = serve_find(&at, &cfg, o->store, o->control)) == 0)
        rc = serve(&cfg, o->ready);
    seckey_wipe(&cfg.sk);
    free(writers);
    return rc;
}

const struct cmd cmd_node = {
    .name = "node",
    .help = "run a node: relay, full DHT node, visor side",
    .about =
        "With --listen the node is a relay; with --full it keeps everything that is published "
        "and syncs with other full nodes; with neither it is a "
        "visor-side node that publishes its entry and looks others up.\n\n"
        "It runs until SIGINT or SIGTERM; a second signal stops at once. Every flag may also "
        "stand in the file of --config, a JSON object with the same "
        "names; flags win. --sample-config prints such a file. SIGHUP reads the file "
        "again and takes over log-level, and the files of --allow-keys and --deny-keys; everything "
        "else needs a restart.",
    .opts = config_flags,
    .opts_size = sizeof(struct node_opts),
    .run = run,
};
