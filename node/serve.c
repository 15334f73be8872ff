#include "node/serve.h"

#include <stdio.h>
#include <string.h>
#include <systemd/sd-daemon.h>

#include "base/err.h"
#include "kademlia/id.h"
#include "node/control.h"
#include "node/tool.h"

/* ---- where things are ---- */

int serve_bad(int rc, const char *what, const char *path)
{
    if (rc == ERR_UNSAFE)
        return tool_fail(rc, "%s %s: others can write it, or another user owns it", what, path);
    return tool_fail(rc, "%s %s: %s", what, path, err_str(rc));
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

int serve_find(struct serve_places *at, struct node_cfg *cfg, const char *store,
               const char *control)
{
    int rc;
    if (store != NULL)
        snprintf(at->store, sizeof(at->store), "%s", store);
    else if ((rc = paths_store(at->store, &cfg->pk)) < 0)
        return serve_bad(rc, "state directory of", "this user");
    if (control != NULL)
        snprintf(at->control, sizeof(at->control), "%s", control);
    else if ((rc = default_control(at->control, &cfg->pk)) < 0)
        return serve_bad(rc, "run directory of", "this user");
    cfg->store_dir = at->store;
    cfg->control = at->control;
    return 0;
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
    json_t *o =
        json_pack("{s:s, s:s, s:s, s:s?, s:s?, s:s?, s:s?, s:s?}", "event", "ready", "public_key",
                  pubkey_hex(pk, node_pk(n)), "node_id", kad_id_hex(hex, &id), "relay",
                  node_relay_addr(n), "http", node_http_addr(n), "control", node_control_path(n),
                  "health", node_health_addr(n), "metrics", node_metrics_addr(n));
    tool_print(o);
}

/* The founder's first minute: what the second machine has to run. */
static void print_join(const struct node *n, bool alone)
{
    char pk[PUBKEY_HEX + 1];
    if (node_relay_addr(n) == NULL)
        return;
    fprintf(stderr, "%sThe next machine joins with:\n    kadmsg node --bootstrap %s@%s\n",
            alone ? "This node is alone: no --bootstrap is given. " : "",
            pubkey_hex(pk, node_pk(n)), node_public_addr(n));
}

int serve(struct node_cfg *cfg, bool ready)
{
    char why[NODE_WHY];
    struct node *n;
    cfg->stopping = stopping;
    cfg->parts = node_parts;
    int rc = node_new(&n, cfg, why);
    if (rc < 0)
        return tool_fail(rc, "%s", why);
    rc = node_handle_signals(n);
    if (rc == 0) {
        if (ready)
            print_ready(n);
        if (!cfg->no_dht)
            print_join(n, cfg->n_bootstrap == 0);
        sd_notify(0, "READY=1");
        rc = node_run(n);
    }
    node_free(n);
    return rc < 0 ? tool_fail(rc, "node: %s", err_str(rc)) : 0;
}
