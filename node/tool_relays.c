#include "node/tool_relays.h"

#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "node/control.h"
#include "node/paths.h"

#define ANSWER_GRACE_MS 5000 /* as in tool.c */
#define SESSIONS_MAX    16

/* ---- who ---- */

static int add_text(struct tool_relays *r, const char *text, size_t n)
{
    struct addr_peer p = {0};
    const char *why = NULL;
    if (r->n == TOOL_RELAYS)
        return ERR_LIMIT;
    struct tool_relay *relay = &r->v[r->n];
    if (pubkey_from_hex(&relay->pk, text, n) == 0) {
        relay->addr[0] = '\0';
    } else if (addr_peer_parse(&p, text, n, &why) == 0) {
        relay->pk = p.pk;
        addr_hostport_text(relay->addr, &p.at);
    } else {
        return ERR_FORMAT;
    }
    r->n++;
    return 0;
}

int tool_relays_parse(struct cmdline *cl, const char *flag, const struct cmd_strs *texts,
                      struct tool_relays *out)
{
    out->n = 0;
    for (size_t i = 0; i < texts->n; i++) {
        for (const char *p = texts->v[i]; *p != '\0'; p += *p == ',') {
            size_t n = strcspn(p, ",");
            int rc = add_text(out, p, n);
            if (rc == ERR_LIMIT)
                return cmdline_usage_error(cl, "%s: more than %d relays", flag, TOOL_RELAYS);
            if (rc < 0)
                return cmdline_usage_error(cl, "%s: %.*s: neither PK nor PK@HOST:PORT", flag,
                                           (int)n, p);
            p += n;
        }
    }
    return 0;
}

/* A node answers at the default control socket. */
static bool node_is_here(void)
{
    char path[PATHS_MAX];
    return paths_control(path) == 0 && control_is_taken(path);
}

static void join_named(struct tool_relays *r, struct tool_opts *opts)
{
    size_t n = 0;
    for (size_t i = 0; i < r->n; i++) {
        const char *at = r->v[i].addr;
        r->join[n].pk = r->v[i].pk;
        if (at[0] != '\0' &&
            addr_hostport_parse(&r->join[n].at, at, strlen(at), ADDR_STRICT, NULL) == 0)
            n++;
    }
    if (n == 0)
        return;
    opts->bootstrap = (struct cmd_peers){r->join, n};
    opts->direct = n == r->n; /* nobody is left to be looked up */
}

int tool_relays_apply(struct cmdline *cl, struct tool_compat *c, const struct tool_opts *given,
                      const char *sk_env, struct tool_relays *r, struct tool_opts *out)
{
    bool bare = given->control == NULL && given->bootstrap.n == 0 && c->dmsgconf == NULL &&
                c->disc_addr == NULL && given->discovery == NULL && c->dmsg_disc == NULL &&
                c->disc_url == NULL;
    bool direct = c->direct;
    if (bare && r->n > 0)
        c->direct = false; /* what -B asks for is what join_named() does */
    int rc = tool_compat_apply(cl, c, given, sk_env, out);
    c->direct = direct;
    if (rc != 0)
        return rc;
    bool has_key = out->sk != NULL || out->sk_file != NULL;
    if (bare && r->n > 0 && (direct || has_key || out->proxy != NULL || !node_is_here()))
        join_named(r, out);
    if (direct && bare && r->n > 0 && !out->direct)
        return cmdline_usage_error(cl, "--direct needs the address of every relay, PK@HOST:PORT");
    if (out->sessions == 0 && out->bootstrap.n > 0)
        out->sessions = out->bootstrap.n < SESSIONS_MAX ? (unsigned)out->bootstrap.n : SESSIONS_MAX;
    return 0;
}

/* ---- asking ---- */

json_t *tool_ask(struct tool *t, json_t *req)
{
    json_int_t id;
    json_t *o = NULL;
    int fd, rc = tool_post(t, req, &id);
    while (rc == 0) {
        rc = tool_take(t, (int)tool_timeout_ms(t) + ANSWER_GRACE_MS, &o, &fd);
        if (rc == 0 && tool_num(o, "id") == id && json_is_boolean(json_object_get(o, "ok")))
            return o;
        json_decref(o);
        if (fd >= 0)
            close(fd);
    }
    (void)tool_fail(rc, "%s",
                    rc == ERR_TIMEOUT     ? "the node does not answer"
                    : rc == ERR_CANCELLED ? "interrupted"
                                          : "the node closed the control connection");
    return NULL;
}

static void on_session(void *arg, json_t *row)
{
    struct tool_relays *r = arg;
    const char *pk = tool_str(row, "server");
    if (!json_is_true(json_object_get(row, "up")) || r->n == TOOL_RELAYS ||
        pubkey_from_hex(&r->v[r->n].pk, pk, strlen(pk)) < 0)
        return;
    r->v[r->n++].addr[0] = '\0';
}

int tool_relays_fill(struct tool *t, const struct tool_opts *opts, struct tool_relays *r)
{
    if (r->n > 0)
        return 0;
    if (tool_is_own(t) && opts->bootstrap.n > 0) {
        for (size_t i = 0; i < opts->bootstrap.n && r->n < TOOL_RELAYS; i++) {
            r->v[r->n].pk = opts->bootstrap.v[i].pk;
            r->v[r->n++].addr[0] = '\0';
        }
        return 0;
    }
    int rc = tool_call(t, json_pack("{s:s}", "cmd", "sessions"), on_session, r, NULL, NULL);
    if (rc == 0 && r->n == 0)
        rc = tool_fail(ERR_NO_ROUTE, "the node has no session to any relay");
    return rc;
}

json_t *tool_relays_session(struct tool *t, const struct tool_relay *relay)
{
    char pk[PUBKEY_HEX + 1];
    return tool_ask(t, json_pack("{s:s, s:s, s:s}", "cmd", "session", "pk",
                                 pubkey_hex(pk, &relay->pk), "address", relay->addr));
}
