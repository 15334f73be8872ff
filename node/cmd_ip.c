#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "node/cmds.h"
#include "node/tool_relays.h"

struct ip_opts {
    struct tool_opts conn;
    struct tool_compat compat;
    struct cmd_strs srv;
};

struct ip_run {
    struct tool *tool;
    json_t *relays; /* what each of them said */
    int exit;       /* of the last failure */
};

/* {"server", "address", "ip", "ms"}, or {"server", "address", "ip": null, "error"}. */
static int ask_relay(struct ip_run *run, const struct tool_relay *relay)
{
    char pk[PUBKEY_HEX + 1];
    pubkey_hex(pk, &relay->pk);
    json_t *session = tool_relays_session(run->tool, relay), *ip = NULL;
    if (session == NULL)
        return 1;
    bool up = json_is_true(json_object_get(session, "up"));
    if (up &&
        (ip = tool_ask(run->tool, json_pack("{s:s, s:s}", "cmd", "ip", "server", pk))) == NULL) {
        json_decref(session);
        return 1;
    }
    json_t *row =
        json_pack("{s:s, s:s, s:s?}", "server", pk, "address", tool_str(session, "address"), "ip",
                  json_string_value(json_object_get(ip, "ip")));
    if (ip != NULL && json_is_true(json_object_get(ip, "ok"))) {
        json_object_set(row, "ms", json_object_get(ip, "ms"));
    } else {
        char text[512];
        snprintf(text, sizeof(text), "%s%s%s",
                 up ? tool_str(ip, "error") : tool_str(session, "phase"), up ? "" : ": ",
                 up ? "" : tool_str(session, "reason"));
        json_object_set_new(row, "error", json_string(text));
        run->exit = (int)tool_num(up ? ip : session, "exit");
        fprintf(stderr, "kadmsg: relay %s %s: %s\n", pk, tool_str(session, "address"), text);
    }
    json_array_append_new(run->relays, row);
    json_decref(session);
    json_decref(ip);
    return 0;
}

/* The address that all of those that answered agree on, else NULL. */
static const char *agreed(const json_t *relays)
{
    const char *first = NULL;
    size_t i;
    json_t *row;
    json_array_foreach(relays, i, row)
    {
        const char *ip = tool_str(row, "ip");
        if (ip[0] == '\0')
            continue;
        if (first != NULL && strcmp(first, ip) != 0)
            return NULL;
        first = ip;
    }
    return first;
}

/* Relays disagree: who said what. */
static void print_rows(const json_t *relays)
{
    size_t i;
    json_t *row;
    json_array_foreach(relays, i, row)
    {
        if (tool_str(row, "ip")[0] != '\0')
            printf("%s\t%s %s\n", tool_str(row, "ip"), tool_str(row, "server"),
                   tool_str(row, "address"));
    }
}

static int report(const struct ip_opts *o, struct ip_run *run)
{
    const char *ip = agreed(run->relays);
    size_t answered = 0, i;
    json_t *row;
    json_array_foreach(run->relays, i, row)
    {
        answered += tool_str(row, "ip")[0] != '\0';
    }
    if (o->conn.json)
        tool_print(
            json_pack("{s:s?, s:b, s:O}", "ip", ip, "agreed", ip != NULL, "relays", run->relays));
    else if (ip != NULL)
        printf("%s\n", ip);
    else
        print_rows(run->relays);
    if (answered > 0 && ip == NULL)
        fputs("kadmsg: the relays see different addresses\n", stderr);
    return answered > 0 ? 0 : run->exit != 0 ? run->exit : 1;
}

static int run(struct cmdline *cl)
{
    static struct tool_relays relays;
    struct ip_opts *o = cl->opts;
    struct ip_run r = {.relays = json_array()};
    struct tool_opts opts;
    int rc = tool_relays_parse(cl, "--srv", &o->srv, &relays);
    if (rc == 0)
        rc = tool_relays_apply(cl, &o->compat, &o->conn, "DMSGIP_SK", &relays, &opts);
    if (rc == 0)
        rc = tool_open(&r.tool, &opts, relays.n > 0 ? TOOL_NODE : TOOL_SESSION);
    if (rc == 0)
        rc = tool_relays_fill(r.tool, &opts, &relays);
    for (size_t i = 0; i < relays.n && rc == 0; i++)
        rc = ask_relay(&r, &relays.v[i]);
    if (rc == 0)
        rc = report(o, &r);
    tool_close(r.tool);
    json_decref(r.relays);
    return rc;
}

static const struct cmd_opt flags[] = {{.name = "srv",
                                        .letter = 'd',
                                        .letter2 = 'S',
                                        CMD_STRS_AT(struct ip_opts, srv),
                                        .metavar = "PK|PK@HOST:PORT",
                                        .def_text = "every relay that there is a session to",
                                        .help = "relays to ask (commas, or repeated)"},
                                       {0}};
static const struct cmd_group groups[] = {
    {"Connection flags", tool_flags, offsetof(struct ip_opts, conn)},
    {TOOL_COMPAT_TITLE, tool_compat_flags_ip, offsetof(struct ip_opts, compat)},
    {0}};

const struct cmd cmd_ip = {
    .name = "ip",
    .help = "the address that relays see this machine under",
    .about = "Asks every relay that there is a session to, or those that are named, and prints the "
             "address once when they agree; when they do not, a line for each: address, relay. "
             "Relays of 2023 do not know the question. --srv with PK@HOST:PORT needs no node and "
             "no look-up.\n\n"
             "With --json one object: ip (null when they disagree), agreed, relays (server, "
             "address, ip, ms; or error).",
    .opts = flags,
    .groups = groups,
    .opts_size = sizeof(struct ip_opts),
    .run = run,
};
