/*
 * reload - what a node takes over while it runs: the files of keys that may come to its relay, and
 * what cfg.reload reads again. By SIGHUP, or the command "reload" of the control socket.
 */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "node/keylist.h"
#include "node/node_int.h"

static int load(struct keylist *l, const char *path, char why[NODE_WHY])
{
    *l = (struct keylist){0};
    return path != NULL ? keylist_load(l, path, why, NODE_WHY) : 0;
}

int node_load_keys(struct node *n, char why[NODE_WHY])
{
    struct keylist allow = {0}, deny = {0};
    if (n->relay == NULL)
        return 0;
    int rc = load(&allow, n->cfg.allow, why);
    if (rc == 0)
        rc = load(&deny, n->cfg.deny, why);
    /* A list that lets nobody in is a mistake sooner than a wish. */
    if (rc == 0 && n->cfg.allow != NULL && allow.n == 0) {
        snprintf(why, NODE_WHY, "%s: there is no key in it", n->cfg.allow);
        rc = ERR_FORMAT;
    } else if (rc == 0) {
        rc = guard_set_access(relay_thread_guard(n->relay), allow.keys, allow.n, deny.keys, deny.n);
        if (rc == 0 && !relay_thread_recheck(n->relay))
            rc = ERR_NOMEM;
        if (rc < 0)
            snprintf(why, NODE_WHY, "lists of keys: %s", err_str(rc));
    }
    keylist_free(&allow);
    keylist_free(&deny);
    return rc;
}

/* Everything is tried, and what fails stays as it was. */
int node_reload(struct node *n, char why[NODE_WHY])
{
    int rc = node_load_keys(n, why);
    if (rc < 0) {
        log_error(LOG_NODE, "keys not reloaded reason=%s", LOG_TEXT(why, strlen(why)));
    } else if (n->cfg.allow != NULL || n->cfg.deny != NULL) {
        struct guard_stat st;
        guard_stat(relay_thread_guard(n->relay), &st);
        log_info(LOG_NODE, "keys reloaded allowed=%zu denied=%zu", st.allowed, st.denied);
    }
    int other = 0;
    char other_why[NODE_WHY] = "";
    if (n->cfg.reload != NULL)
        other = n->cfg.reload(n->cfg.arg, other_why, sizeof(other_why));
    if (rc == 0 && other < 0)
        snprintf(why, NODE_WHY, "%.*s", NODE_WHY - 1, other_why);
    return rc < 0 ? rc : other;
}
