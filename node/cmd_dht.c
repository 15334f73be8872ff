#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/base64.h"
#include "base/err.h"
#include "kademlia/item.h"
#include "kademlia/records/ns.h"
#include "node/cmds.h"
#include "node/tool_compat.h"

struct dht_opts {
    struct tool_opts conn;
    struct tool_compat compat;
    struct pubkey pk;
    const char *salt, *value, *who;
    uint64_t seq;
    bool network, trace;
    uint64_t count;
};

/* One request, one answer; rows are printed as they come. */
static int ask(struct cmdline *cl, enum tool_needs needs, json_t *req, tool_row_fn *row, void *arg,
               json_t **answer)
{
    struct dht_opts *o = cl->opts;
    struct tool *t;
    int rc = tool_compat_open(&t, cl, &o->compat, &o->conn, NULL, needs);
    if (rc == 0) {
        json_object_set_new(req, "timeout_ms", json_integer((json_int_t)tool_timeout_ms(t)));
        if (needs == TOOL_SESSION)
            tool_route(t, req);
        rc = tool_call(t, json_incref(req), row, arg, answer, NULL);
    }
    tool_close(t);
    json_decref(req);
    return rc;
}

/* 0, or the exit code: a request carries the salt as JSON text. */
static int check_salt(struct cmdline *cl)
{
    const struct dht_opts *o = cl->opts;
    if (o->salt == NULL)
        return 0;
    if (strlen(o->salt) > ITEM_MAX_SALT)
        return cmdline_usage_error(cl, "SALT: longer than %d bytes", ITEM_MAX_SALT);
    json_t *text = json_string(o->salt);
    json_decref(text);
    return text != NULL ? 0 : cmdline_usage_error(cl, "SALT: not UTF-8 text");
}

/* ---- put ---- */

static int read_value(const struct dht_opts *o, uint8_t **v, size_t *n)
{
    if (strcmp(o->value, "-") != 0) {
        *n = strlen(o->value);
        *v = (uint8_t *)strdup(o->value);
        return *v == NULL ? tool_fail(ERR_NOMEM, "%s", err_str(ERR_NOMEM)) : 0;
    }
    *v = malloc(ITEM_MAX_VALUE + 1);
    *n = 0;
    ssize_t got = *v == NULL ? 0 : 1;
    while (got > 0 && *n <= ITEM_MAX_VALUE) {
        got = read(STDIN_FILENO, *v + *n, ITEM_MAX_VALUE + 1 - *n);
        if (got < 0)
            return tool_fail(err_sys(), "standard input: %s", err_str(err_sys()));
        *n += (size_t)got;
    }
    return 0;
}

/* A sequence number above 2^63-1 comes as text. */
static const char *seq_text(const json_t *o, char out[24])
{
    const json_t *seq = json_object_get(o, "seq");
    if (json_is_string(seq))
        return json_string_value(seq);
    snprintf(out, 24, "%lld", (long long)json_integer_value(seq));
    return out;
}

/* Sign and publish; the answer tells how many took it. */
static int publish(struct cmdline *cl, const uint8_t *v, size_t n)
{
    const struct dht_opts *o = cl->opts;
    char seq[24];
    json_t *answer = NULL;
    char *b64 = malloc(BASE64_LEN(n) + 1);
    int rc = b64 == NULL ? tool_fail(ERR_NOMEM, "%s", err_str(ERR_NOMEM)) : 0;
    if (b64 != NULL) {
        size_t len = base64_encode(b64, v, n);
        json_t *req = json_pack("{s:s, s:s, s:s#}", "cmd", "dht.put", "salt", o->salt,
                                "value_base64", b64, (int)len);
        snprintf(seq, sizeof(seq), "%llu", (unsigned long long)o->seq);
        if (cmdline_given(cl, "seq"))
            json_object_set_new(req, "seq", json_string(seq));
        rc = ask(cl, TOOL_DHT, req, NULL, NULL, &answer);
    }
    if (rc == 0 && o->conn.json)
        tool_print(json_incref(answer));
    else if (rc == 0)
        printf("stored by %lld of %lld peers, seq %s\n", tool_num(answer, "stored"),
               tool_num(answer, "asked"), seq_text(answer, seq));
    json_decref(answer);
    free(b64);
    return rc;
}

static int put(struct cmdline *cl)
{
    const struct dht_opts *o = cl->opts;
    uint8_t *v = NULL;
    size_t n = 0;
    int rc = check_salt(cl);
    if (rc != 0)
        return rc;
    rc = read_value(o, &v, &n);
    if (rc == 0 && n > ITEM_MAX_VALUE)
        rc = tool_fail(ERR_TOO_LONG, "put: the value is longer than %d bytes", ITEM_MAX_VALUE);
    if (rc == 0)
        rc = publish(cl, v, n);
    free(v);
    return rc;
}

/* ---- del ---- */

static int del(struct cmdline *cl)
{
    const struct dht_opts *o = cl->opts;
    int rc = check_salt(cl);
    if (rc != 0)
        return rc;
    const char *v = ns_tombstone(o->salt, strlen(o->salt));
    return publish(cl, (const uint8_t *)v, strlen(v));
}

/* ---- get ---- */

static int print_value(const json_t *answer)
{
    const char *text = json_string_value(json_object_get(answer, "value"));
    const char *b64 = json_string_value(json_object_get(answer, "value_base64"));
    uint8_t raw[ITEM_MAX_VALUE];
    size_t n = 0;
    if (text != NULL)
        return fputs(text, stdout) < 0;
    if (b64 == NULL || base64_decode(raw, sizeof(raw), &n, b64, strlen(b64)) < 0)
        return tool_fail(ERR_FORMAT, "the value cannot be read");
    return fwrite(raw, 1, n, stdout) != n;
}

/* A text of many control characters comes as base64, to fit into a packet; text is text all the
 * same. */
static void text_from_base64(json_t *answer)
{
    const char *b64 = json_string_value(json_object_get(answer, "value_base64"));
    uint8_t raw[ITEM_MAX_VALUE];
    size_t n = 0;
    if (b64 == NULL || base64_decode(raw, sizeof(raw), &n, b64, strlen(b64)) < 0 ||
        memchr(raw, 0, n) != NULL)
        return;
    json_t *text = json_stringn((const char *)raw, n);
    if (text == NULL)
        return;
    json_object_set_new(answer, "value", text);
    json_object_del(answer, "value_base64");
}

static int get(struct cmdline *cl)
{
    const struct dht_opts *o = cl->opts;
    char pk[PUBKEY_HEX + 1];
    json_t *answer = NULL;
    int rc = check_salt(cl);
    if (rc != 0)
        return rc;
    json_t *req = json_pack("{s:s, s:s, s:s, s:b}", "cmd", "dht.get", "pk", pubkey_hex(pk, &o->pk),
                            "salt", o->salt, "network", (int)o->network);
    rc = ask(cl, TOOL_DHT, req, NULL, NULL, &answer);
    if (rc == 0)
        text_from_base64(answer);
    if (rc == 0 && o->conn.json)
        tool_print(json_incref(answer));
    else if (rc == 0)
        rc = print_value(answer);
    json_decref(answer);
    return rc;
}

/* ---- watch ---- */

/* One line a change; a value that is no line by itself shows in JSON only as it is. */
static void print_change(const struct dht_opts *o, json_t *ev)
{
    char seq[24];
    if (o->conn.json) {
        text_from_base64(ev);
        json_object_del(ev, "id");
        tool_print(json_incref(ev));
        return;
    }
    text_from_base64(ev);
    tool_plain(ev);
    bool deleted = json_is_true(json_object_get(ev, "deleted"));
    const char *text = json_string_value(json_object_get(ev, "value"));
    printf("seq %s  %s\n", seq_text(ev, seq),
           deleted        ? "(deleted)"
           : text != NULL ? text
                          : tool_str(ev, "value_base64"));
    fflush(stdout);
}

static int watch(struct cmdline *cl)
{
    struct dht_opts *o = cl->opts;
    char pk[PUBKEY_HEX + 1];
    struct tool *t;
    int rc = check_salt(cl);
    if (rc != 0)
        return rc;
    rc = tool_compat_open(&t, cl, &o->compat, &o->conn, NULL, TOOL_DHT);
    if (rc == 0)
        rc = tool_send(t, json_pack("{s:s, s:s, s:s}", "cmd", "dht.watch", "pk",
                                    pubkey_hex(pk, &o->pk), "salt", o->salt));
    for (uint64_t seen = 0; rc == 0 && (o->count == 0 || seen < o->count);) {
        json_t *ev = NULL;
        int fd = -1; /* no answer here carries one */
        rc = tool_event(t, -1, &ev, &fd);
        if (rc == 0 && strcmp(tool_str(ev, "event"), "changed") == 0) {
            print_change(o, ev);
            seen++;
        }
        json_decref(ev);
    }
    tool_close(t);
    return rc;
}

/* ---- list, peers, status ---- */

static void row_json(void *arg, json_t *row)
{
    (void)arg;
    tool_print(json_incref(row));
}

static void row_item(void *arg, json_t *row)
{
    char seq[24];
    (void)arg;
    tool_plain(row);
    printf("%s  %.8s  seq %s  %s  %lld bytes\n", tool_str(row, "target"), tool_str(row, "k"),
           seq_text(row, seq), tool_str(row, "salt"), tool_num(row, "size"));
}

static int list(struct cmdline *cl)
{
    const struct dht_opts *o = cl->opts;
    int rc = check_salt(cl);
    if (rc != 0)
        return rc;
    json_t *req =
        json_pack("{s:s, s:s}", "cmd", "dht.list", "salt", o->salt != NULL ? o->salt : "");
    return ask(cl, TOOL_NODE, req, o->conn.json ? row_json : row_item, NULL, NULL);
}

static void print_relays(const char *before, const json_t *o)
{
    const json_t *pk;
    size_t i;
    json_array_foreach(json_object_get(o, "relays"), i, pk)
    {
        printf("%s %.8s", i == 0 ? before : ",", json_string_value(pk));
    }
}

static void row_peer(void *arg, json_t *row)
{
    (void)arg;
    printf("%s  bucket %lld  heard %lld ms ago  %s", tool_str(row, "public_key"),
           tool_num(row, "bucket"), tool_num(row, "last_seen_ms"), tool_str(row, "dialect"));
    print_relays("  behind", row);
    printf("%s\n",
           json_is_true(json_object_get(row, "suspect")) ? "  (these seem to be down)" : "");
}

static int peers(struct cmdline *cl)
{
    const struct dht_opts *o = cl->opts;
    return ask(cl, TOOL_DHT, json_pack("{s:s}", "cmd", "dht.peers"),
               o->conn.json ? row_json : row_peer, NULL, NULL);
}

static void print_status(const json_t *answer)
{
    const json_t *row;
    size_t i;
    printf("node id        %s\nrouting table  %lld peers, network of about %lld nodes\nstored "
           "items   %lld (whitelisted %lld, trusted %lld, public %lld)\n"
           "full node      %s\n",
           tool_str(answer, "node_id"), tool_num(answer, "routing_peers"),
           tool_num(answer, "network_size"), tool_num(answer, "stored_items"),
           tool_num(answer, "whitelisted_items"), tool_num(answer, "trusted_items"),
           tool_num(answer, "public_items"),
           json_is_true(json_object_get(answer, "full_node")) ? "yes" : "no");
    json_array_foreach(json_object_get(answer, "relays"), i, row)
    {
        const char *known = json_array_size(json_object_get(row, "relays")) > 0 ? "" : " ?";
        printf("%s", i == 0 ? "behind        " : "              ");
        print_relays("", row);
        printf("%s: %lld peers, %lld slots here%s\n", known, tool_num(row, "peers"),
               tool_num(row, "slots"),
               json_is_true(json_object_get(row, "suspect")) ? ", seem to be down" : "");
    }
}

static int status(struct cmdline *cl)
{
    const struct dht_opts *o = cl->opts;
    json_t *answer = NULL;
    int rc = ask(cl, TOOL_NODE, json_pack("{s:s}", "cmd", "dht.status"), NULL, NULL, &answer);
    if (rc == 0 && o->conn.json)
        tool_print(json_incref(answer));
    else if (rc == 0)
        print_status(answer);
    json_decref(answer);
    return rc;
}

/* ---- full ---- */

static int full(struct cmdline *cl)
{
    const struct dht_opts *o = cl->opts;
    json_t *answer = NULL, *req = json_pack("{s:s}", "cmd", "dht.full");
    bool on = o->value != NULL && strcmp(o->value, "on") == 0;
    if (o->value != NULL && !on && strcmp(o->value, "off") != 0) {
        json_decref(req);
        return cmdline_usage_error(cl, "STATE: neither on nor off");
    }
    if (o->value != NULL)
        json_object_set_new(req, "on", json_boolean(on));
    int rc = ask(cl, TOOL_NODE, req, NULL, NULL, &answer);
    if (rc == 0 && o->conn.json)
        tool_print(json_incref(answer));
    else if (rc == 0)
        printf("full node %s\n", json_is_true(json_object_get(answer, "full_node")) ? "on" : "off");
    json_decref(answer);
    return rc;
}

/* ---- lookup ---- */

static void print_report(const json_t *answer)
{
    size_t i;
    json_t *s;
    printf("target     %s\nresult     %s, because %s\nmessages   %lld asked, %lld answered, %lld "
           "failed, %lld items refused\ncost       %lld hops, %lld bytes, %lld ms\n",
           tool_str(answer, "target"), tool_str(answer, "result"), tool_str(answer, "end"),
           tool_num(answer, "asked"), tool_num(answer, "answered"), tool_num(answer, "failed"),
           tool_num(answer, "rejected"), tool_num(answer, "hops"), tool_num(answer, "bytes"),
           tool_num(answer, "ms"));
    json_array_foreach(json_object_get(answer, "closest"), i, s)
    {
        printf("closest %2zu %s\n", i + 1, json_string_value(s));
    }
    json_array_foreach(json_object_get(answer, "steps"), i, s)
    {
        printf("asked   %2zu %s  hop %lld  after %lld ms  %s\n", i + 1, tool_str(s, "public_key"),
               tool_num(s, "hop"), tool_num(s, "asked_ms"), tool_str(s, "result"));
    }
}

static int lookup(struct cmdline *cl)
{
    const struct dht_opts *o = cl->opts;
    struct kad_id id;
    struct pubkey pk;
    json_t *answer = NULL;
    bool target = kad_id_from_hex(&id, o->who, strlen(o->who)) == 0;
    if (!target && pubkey_from_hex(&pk, o->who, strlen(o->who)) < 0)
        return cmdline_usage_error(cl, "TARGET: neither a target of %d hex digits nor a public key",
                                   KAD_ID_HEX);
    if (target && o->salt != NULL)
        return cmdline_usage_error(cl, "SALT: only with a public key");
    int rc = check_salt(cl);
    if (rc != 0)
        return rc;
    json_t *req = json_pack("{s:s, s:s, s:s*, s:b}", "cmd", "dht.lookup", target ? "target" : "pk",
                            o->who, "salt", o->salt, "trace", (int)o->trace);
    rc = ask(cl, TOOL_DHT, req, NULL, NULL, &answer);
    if (rc == 0 && o->conn.json)
        tool_print(json_incref(answer));
    else if (rc == 0)
        print_report(answer);
    if (rc == 0)
        rc = (int)tool_num(answer, "exit");
    json_decref(answer);
    return rc;
}

/* ---- sync ---- */

static int sync_with(struct cmdline *cl)
{
    const struct dht_opts *o = cl->opts;
    char pk[PUBKEY_HEX + 1];
    json_t *answer = NULL;
    int rc = check_salt(cl);
    if (rc != 0)
        return rc;
    json_t *req = json_pack("{s:s, s:s*, s:s*}", "cmd", "dht.sync", "salt", o->salt, "pk",
                            cmdline_given(cl, "PK") ? pubkey_hex(pk, &o->pk) : NULL);
    rc = ask(cl, TOOL_DHT, req, NULL, NULL, &answer);
    if (rc == 0 && o->conn.json)
        tool_print(json_incref(answer));
    else if (rc == 0)
        printf("pulled %lld, pushed %lld (%lld pages, %lld bytes, %lld ms)\n",
               tool_num(answer, "pulled"), tool_num(answer, "pushed"), tool_num(answer, "pages"),
               tool_num(answer, "bytes"), tool_num(answer, "ms"));
    json_decref(answer);
    return rc;
}

/* ---- why ---- */

static void print_steps(json_t *answer)
{
    size_t i;
    json_t *s;
    tool_plain(answer);
    json_array_foreach(json_object_get(answer, "steps"), i, s)
    {
        bool ok = json_is_true(json_object_get(s, "ok"));
        printf("%2zu. %-17s %-6s %5lld ms", i + 1, tool_str(s, "step"), ok ? "ok" : "failed",
               tool_num(s, "ms"));
        if (strcmp(tool_str(s, "step"), "entry") == 0 && ok)
            printf("  from %s, %zu delegated servers", tool_str(s, "source"),
                   json_array_size(json_object_get(s, "delegated_servers")));
        if (tool_num(s, "asked") > 0)
            printf("  (asked %lld peers, %lld answered, %lld hops, %lld bytes; %s)",
                   tool_num(s, "asked"), tool_num(s, "answered"), tool_num(s, "hops"),
                   tool_num(s, "bytes"), tool_str(s, "end"));
        if (tool_str(s, "server")[0] != '\0')
            printf("  relay %s %s", tool_str(s, "server"), tool_str(s, "address"));
        if (tool_str(s, "detail")[0] != '\0')
            printf("  %s", tool_str(s, "detail"));
        putchar('\n');
    }
    printf("%s: %s\n", tool_str(answer, "public_key"), tool_str(answer, "result"));
}

static int why(struct cmdline *cl)
{
    const struct dht_opts *o = cl->opts;
    char pk[PUBKEY_HEX + 1];
    json_t *answer = NULL;
    int rc = ask(cl, TOOL_SESSION,
                 json_pack("{s:s, s:s}", "cmd", "dht.why", "pk", pubkey_hex(pk, &o->pk)), NULL,
                 NULL, &answer);
    if (rc == 0 && o->conn.json)
        tool_print(json_incref(answer));
    else if (rc == 0)
        print_steps(answer);
    if (rc == 0 && !json_is_true(json_object_get(answer, "reached")))
        rc = 6;
    json_decref(answer);
    return rc;
}

/* ---- the table ---- */

static const struct cmd_group groups[] = {
    {"Connection flags", tool_flags, offsetof(struct dht_opts, conn)},
    {TOOL_COMPAT_TITLE, tool_compat_flags_dht, offsetof(struct dht_opts, compat)},
    {0}};
#define SALT_ARG(text)                                                                             \
    {                                                                                              \
        .name = "SALT", CMD_STR_AT(struct dht_opts, salt), .help = text                            \
    }
#define PK_ARG(text)                                                                               \
    {                                                                                              \
        .name = "PK", CMD_PUBKEY_AT(struct dht_opts, pk), .help = text                             \
    }
#define SALT_FLAG(text)                                                                            \
    {                                                                                              \
        .name = "salt", CMD_STR_AT(struct dht_opts, salt), .metavar = "S", .help = text            \
    }
#define SWITCH(flag, member, text)                                                                 \
    {                                                                                              \
        .name = flag, CMD_FLAG_AT(struct dht_opts, member), .help = text                           \
    }
#define OPTS(name, ...) static const struct cmd_opt name[] = {__VA_ARGS__, {0}}

OPTS(put_args, SALT_ARG("namespace of the slot, at most 200 bytes"),
     {.name = "VALUE",
      CMD_STR_AT(struct dht_opts, value),
      .help = "the value, at most 65536 bytes; - reads standard input"});
OPTS(put_flags, {.name = "seq",
                 CMD_U64_AT(struct dht_opts, seq),
                 .metavar = "N",
                 .def_text = "above every known one, from the clock",
                 .help = "force this sequence number"});
OPTS(get_args, PK_ARG("key of the publisher"), SALT_ARG("namespace of the slot"));
OPTS(get_flags, SWITCH("network", network, "do not answer from the local store"));
OPTS(list_flags, SALT_FLAG("only this namespace"));
OPTS(del_args, SALT_ARG("namespace of the slot"));
OPTS(lookup_args,
     {.name = "TARGET",
      CMD_STR_AT(struct dht_opts, who),
      .help = "a target of 64 hex digits, or a public key"},
     {.name = "SALT",
      CMD_STR_AT(struct dht_opts, salt),
      .optional = true,
      .help = "look for the value of this slot of the key, not for the nodes closest to it"});
OPTS(lookup_flags, SWITCH("trace", trace, "list every contact that was asked"));
OPTS(sync_args, {.name = "PK",
                 CMD_PUBKEY_AT(struct dht_opts, pk),
                 .optional = true,
                 .help = "the peer; without it a bootstrap node"});
OPTS(sync_flags, SALT_FLAG("pull only this namespace, push nothing"));
OPTS(reconcile_args, PK_ARG("the peer"));
OPTS(full_args, {.name = "STATE",
                 CMD_STR_AT(struct dht_opts, value),
                 .optional = true,
                 .help = "on or off; without it, what the node is"});
OPTS(why_args, PK_ARG("key to be reached"));
OPTS(watch_flags, {.name = "count",
                   CMD_U64_AT(struct dht_opts, count),
                   .metavar = "N",
                   .min = 1,
                   .def_text = "no end",
                   .help = "end after so many lines"});

#define COMMON .groups = groups, .opts_size = sizeof(struct dht_opts)
static const struct cmd subs[] = {
    {.name = "put",
     .help = "sign a value and publish it",
     .args = put_args,
     .opts = put_flags,
     COMMON,
     .run = put},
    {.name = "get",
     .help = "look a value up",
     .args = get_args,
     .opts = get_flags,
     COMMON,
     .run = get},
    {.name = "del",
     .help = "publish that a slot of this key holds nothing any more",
     .args = del_args,
     .opts = put_flags,
     COMMON,
     .run = del},
    {.name = "watch",
     .help = "print a value, and every change of it, until it is interrupted",
     .about = "The nodes closest to the slot push changes, at most one a second; where none does, "
              "the slot is looked up every minute. Publishing the same value anew is no change.",
     .args = get_args,
     .opts = watch_flags,
     COMMON,
     .run = watch},
    {.name = "lookup",
     .help = "walk towards a target and show the report",
     .args = lookup_args,
     .opts = lookup_flags,
     COMMON,
     .run = lookup},
    {.name = "sync",
     .help = "pull what a peer holds, and push what it lacks if it is a full node",
     .args = sync_args,
     .opts = sync_flags,
     COMMON,
     .run = sync_with},
    {.name = "reconcile",
     .help = "the same with one named peer",
     .args = reconcile_args,
     COMMON,
     .run = sync_with},
    {.name = "full",
     .help = "keep everything that is published, or what is close only; until the next start",
     .args = full_args,
     COMMON,
     .run = full},
    {.name = "list", .help = "items in the local store", .opts = list_flags, COMMON, .run = list},
    {.name = "peers", .help = "the routing table", COMMON, .run = peers},
    {.name = "status", .help = "state and counters of the DHT node", COMMON, .run = status},
    {.name = "why",
     .help = "try to reach a key and show every step",
     .about = "This one may be told not to look anything up: --direct shows what the sessions to "
              "the named servers give.",
     .args = why_args,
     COMMON,
     .run = why},
    {0}};

const struct cmd cmd_dht = {.name = "dht", .help = "the distributed hash table", .subs = subs};
