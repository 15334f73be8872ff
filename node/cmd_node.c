#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>

#include "base/err.h"
#include "base/log.h"
#include "kademlia/id.h"
#include "node/cmds.h"
#include "node/config.h"
#include "node/control.h"
#include "node/keyfile.h"
#include "node/node.h"
#include "node/paths.h"
#include "node/tool.h"

/* ---- where things are ---- */

struct places {
    char store[PATHS_MAX], key[PATHS_MAX], control[PATHS_MAX];
};

static int bad(int rc, const char *what, const char *path)
{
    if (rc == ERR_UNSAFE)
        return tool_fail(rc, "%s %s: others can write it, or another user owns it", what, path);
    return tool_fail(rc, "%s %s: %s", what, path, err_str(rc));
}

/* The key: the file that was named, else one that is made in the store directory at the first
 * start. */
static int find_key(const struct node_opts *o, struct places *at, struct node_cfg *cfg)
{
    char dir[PATHS_MAX];
    bool made = false;
    int rc = 0;
    if (o->sk_file != NULL) {
        rc = keyfile_read(&cfg->sk, &cfg->pk, o->sk_file);
        return rc < 0 ? keyfile_tell(rc, o->sk_file) : 0;
    }
    rc = o->store != NULL
             ? (snprintf(dir, sizeof(dir), "%s", o->store) < (int)sizeof(dir) ? 0 : ERR_TOO_LONG)
             : paths_state(dir);
    if (rc == 0)
        rc = paths_make_dir(dir);
    if (rc < 0)
        return bad(rc, "directory", dir);
    if ((rc = paths_join(at->key, dir, "node.key")) == 0)
        rc = keyfile_open(&cfg->sk, &cfg->pk, at->key, &made);
    if (rc < 0)
        return keyfile_tell(rc, at->key);
    if (made)
        log_info(LOG_NODE, "made a new key file=%s pk=%s", at->key, LOG_PK(&cfg->pk));
    return 0;
}

/* The default socket, or one beside it when another node of this user has that. */
static int default_control(char out[PATHS_MAX], const struct pubkey *pk)
{
    char run[PATHS_MAX], name[32] = "control-";
    int rc = paths_control(out);
    if (rc < 0 || !control_is_taken(out))
        return rc;
    pubkey_short(name + strlen(name), pk);
    rc = paths_run(run);
    return rc < 0 ? rc : paths_join(out, run, name);
}

static int find_places(const struct node_opts *o, struct places *at, struct node_cfg *cfg)
{
    int rc = find_key(o, at, cfg);
    if (rc != 0)
        return rc;
    if (o->store != NULL)
        snprintf(at->store, sizeof(at->store), "%s", o->store);
    else if ((rc = paths_store(at->store, &cfg->pk)) < 0)
        return bad(rc, "state directory of", "this user");
    if (o->control != NULL)
        snprintf(at->control, sizeof(at->control), "%s", o->control);
    else if ((rc = default_control(at->control, &cfg->pk)) < 0)
        return bad(rc, "run directory of", "this user");
    cfg->store_dir = at->store;
    cfg->control = at->control;
    return 0;
}

/* ---- SIGHUP ---- */

/* The levels of the log are what can change while the node runs. Flags still win over the file. */
static int reload(void *arg, char *why, size_t cap)
{
    struct cmdline *cl = arg;
    const struct node_opts *o = cl->opts;
    if (o->config == NULL) {
        if (o->allow_keys == NULL && o->deny_keys == NULL)
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

/* ---- saying so ---- */

static void stopping(void *arg)
{
    (void)arg;
    sd_notify(0, "STOPPING=1");
}

static void print_ready(const struct node *n)
{
    struct kad_id id = kad_id_of(node_pk(n));
    char pk[PUBKEY_HEX + 1], hex[KAD_ID_HEX + 1];
    json_t *o = json_pack("{s:s, s:s, s:s, s:s?, s:n, s:s?}", "event", "ready", "public_key",
                          pubkey_hex(pk, node_pk(n)), "node_id", kad_id_hex(hex, &id), "relay",
                          node_relay_addr(n), "http", "control", node_control_path(n));
    tool_print(o);
}

/* The founder's first minute: what the second machine has to run. */
static void print_join(const struct node *n, const struct node_opts *o)
{
    char pk[PUBKEY_HEX + 1];
    if (node_relay_addr(n) == NULL)
        return;
    fprintf(stderr, "%sThe next machine joins with:\n    kadmsg node --bootstrap %s@%s\n",
            o->bootstrap.n == 0 ? "This node is alone: no --bootstrap is given. " : "",
            pubkey_hex(pk, node_pk(n)), node_public_addr(n));
}

/* ---- the command ---- */

static struct node_cfg config_of(const struct node_opts *o, bool listens,
                                 char listen[ADDR_HOSTPORT_MAX + 1],
                                 char public[ADDR_HOSTPORT_MAX + 1])
{
    struct node_cfg cfg = {
        .full = o->full,
        .bootstrap = o->bootstrap.v,
        .n_bootstrap = o->bootstrap.n,
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
        .max_sessions = (uint32_t)o->max_sessions,
        .guard = {.max_sessions = (uint32_t)o->max_sessions,
                  .max_sessions_addr = (uint32_t)o->max_sessions_addr,
                  .handshakes_per_s = (uint32_t)o->handshake_rate,
                  .max_streams = (uint32_t)o->max_streams,
                  .bytes_per_s = o->total_rate},
        .key_bytes_per_s = o->key_rate,
        .allow = o->allow_keys,
        .deny = o->deny_keys,
        .sessions = (unsigned)o->sessions,
        .pk_threads = (unsigned)o->pk_threads,
        .publish = true,
        .lock = true,
    };
    if (listens) /* ":0" is all zeros */
        cfg.listen = addr_hostport_text(listen, &o->listen);
    if (o->public_address.port != 0)
        cfg.public_address = addr_hostport_text(public, &o->public_address);
    const char *offset = getenv("KADMSG_TEST_CLOCK_OFFSET_S");
    if (offset != NULL)
        cfg.clock_offset_ns = strtoll(offset, NULL, 10) * 1000000000;
    return cfg;
}

static int serve(const struct node_opts *o, const struct node_cfg *cfg)
{
    char why[NODE_WHY];
    struct node *n;
    int rc = node_new(&n, cfg, why);
    if (rc < 0)
        return tool_fail(rc, "%s", why);
    rc = node_handle_signals(n);
    if (rc == 0) {
        if (o->ready)
            print_ready(n);
        print_join(n, o);
        sd_notify(0, "READY=1");
        rc = node_run(n);
    }
    node_free(n);
    return rc < 0 ? tool_fail(rc, "node: %s", err_str(rc)) : 0;
}

static int run(struct cmdline *cl)
{
    const struct node_opts *o = cl->opts;
    char listen[ADDR_HOSTPORT_MAX + 1], public[ADDR_HOSTPORT_MAX + 1], why[256];
    struct places at;
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
    if ((rc = config_writers(&writers, &n_writers, &o->writers, why, sizeof(why))) != 0)
        return cmdline_usage_error(cl, "%s", why);
    struct node_cfg cfg = config_of(o, listens, listen, public);
    cfg.writers = writers;
    cfg.n_writers = n_writers;
    cfg.stopping = stopping;
    cfg.reload = reload;
    cfg.config = settings;
    cfg.arg = cl;
    if ((rc = find_places(o, &at, &cfg)) == 0)
        rc = serve(o, &cfg);
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
