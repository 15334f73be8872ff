/* The control socket of a node, with the operations that its requests wait for. */
#include <stdio.h>

#include "base/err.h"
#include "node/node_int.h"

static int control_open(struct node *n, char why[NODE_WHY])
{
    int rc = control_new(&n->control, n->drive, n->cfg.control, ctl_commands, n);
    const char *path = n->cfg.control != NULL ? n->cfg.control : "(none)";
    if (rc == ERR_BUSY)
        snprintf(why, NODE_WHY, "control socket %s: a living process has it", path);
    else if (rc == ERR_EXISTS)
        snprintf(why, NODE_WHY, "control socket %s: there is something that is no socket", path);
    else if (rc == ERR_UNSAFE)
        snprintf(why, NODE_WHY, "control socket %s: others can write its directory, or own it",
                 path);
    else if (rc < 0)
        snprintf(why, NODE_WHY, "control socket %s: %s", path, err_str(rc));
    if (rc < 0)
        return rc;
    if (n->cfg.control != NULL)
        snprintf(n->control_path, sizeof(n->control_path), "%s", n->cfg.control);
    return 0;
}

void ctl_reload(struct ctl_req *req)
{
    struct node *n = req->node_arg;
    struct guard_stat st = {0};
    char why[NODE_WHY] = "";
    int rc = node_reload(n, why);
    if (rc < 0) {
        ctl_fail(req, rc, "%s", why);
        return;
    }
    if (n->relay != NULL)
        guard_stat(relay_thread_guard(n->relay), &st);
    ctl_ok(
        req,
        json_pack("{s:I, s:I}", "allowed", (json_int_t)st.allowed, "denied", (json_int_t)st.denied),
        -1);
}

static void control_close(struct node *n)
{
    control_free(n->control);
    n->control = NULL;
    fresh_dir_remove(&n->forward_dir);
    ctl_operations_free(n);
    ctl_pings_free(n);
    ctl_sessions_free(n);
}

static void control_changed(struct node *n)
{
    ctl_wait_check(n);
    ctl_publish_check(n);
}

const char *node_control_path(const struct node *n)
{
    return n->control_path[0] != '\0' ? n->control_path : NULL;
}

int node_control_adopt(struct node *n, int fd)
{
    return control_adopt(n->control, fd);
}

const struct node_part node_part_control = {
    .open = control_open, .close = control_close, .changed = control_changed, .report = ctl_report};
