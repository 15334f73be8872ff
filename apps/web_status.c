/*
 * web_status - the pages of the proxy itself: status.dmsg (what it does, its sessions, what went wrong lately; as HTML or JSON), home.dmsg, and the one that waits.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apps/http_rules.h"
#include "apps/web.h"
#include "base/env_sys.h"
#include "base/err.h"
#include "base/loop.h"
#include "base/version.h"

#define ESCAPED (6 * HUB_NOTE_TEXT)

struct figure {
    const char *name;
    uint64_t value;
};

#define FIGURES 18

static void figures(struct figure f[FIGURES], const struct hub *hub)
{
    const struct hub_stat *st = &hub->stat;
    const struct splices *s = &hub->splices;
    const struct figure all[FIGURES] = {
        {"uptime_s", (env_sys_mono_ns() - hub->started_ns) / NS_PER_S},
        {"connections", hub->conns},
        {"max_connections", hub->max_conns},
        {"streams_open", s->n},
        {"bytes_up", s->bytes[0]},
        {"bytes_down", s->bytes[1]},
        {"bytes_waiting", s->waiting},
        {"accepted", st->admitted},
        {"refused_limit", st->refused_limit},
        {"refused_rule", st->refused_rule},
        {"bad_input", st->bad_input},
        {"dialled", st->dialled},
        {"dial_failed", st->dial_failed},
        {"accept_failed", st->accept_failed},
        {"ended_clean", s->ended_clean},
        {"ended_idle", s->ended_idle},
        {"ended_stall", s->ended_stall},
        {"ended_error", s->ended_error},
    };
    memcpy(f, all, sizeof(all));
}

static const struct hub_note *note_at(const struct hub *hub, size_t age)
{
    return &hub->notes[(hub->n_notes - 1 - age) % HUB_NOTES];
}

static size_t notes_of(const struct hub *hub)
{
    return hub->n_notes < HUB_NOTES ? (size_t)hub->n_notes : HUB_NOTES;
}

static void time_text(char out[32], time_t t)
{
    struct tm tm;
    gmtime_r(&t, &tm);
    strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", &tm);
}

/* ---- JSON ---- */

static json_t *json_of(const struct hub *hub, const struct app_net_session *v, size_t n)
{
    struct figure f[FIGURES];
    char pk[PUBKEY_HEX + 1], when[32];
    json_t *o = json_pack("{s:s, s:s}", "public_key", pubkey_hex(pk, &hub->net->self), "version",
                          version_str());
    figures(f, hub);
    for (size_t i = 0; i < FIGURES; i++)
        json_object_set_new(o, f[i].name, json_integer((json_int_t)f[i].value));
    json_t *sessions = v != NULL ? json_array() : json_null(), *notes = json_array();
    for (size_t i = 0; v != NULL && i < n; i++)
        json_array_append_new(sessions,
                              json_pack("{s:s, s:s, s:b, s:i, s:I, s:s}", "server",
                                        pubkey_hex(pk, &v[i].server), "address", v[i].address, "up",
                                        (int)v[i].up, "streams", (int)v[i].streams, "rtt_us",
                                        (json_int_t)v[i].rtt_us, "last_error", v[i].last_error));
    for (size_t i = 0; i < notes_of(hub); i++) {
        const struct hub_note *note = note_at(hub, i);
        time_text(when, note->when);
        json_array_append_new(
            notes, json_pack("{s:s, s:s%}", "time", when, "text", note->text, strlen(note->text)));
    }
    json_object_set_new(o, "sessions", sessions);
    json_object_set_new(o, "errors", notes);
    return o;
}

static int write_json(struct evbuffer *body, const struct hub *hub, const struct app_net_session *v,
                      size_t n)
{
    json_t *o = json_of(hub, v, n);
    char *text = json_dumps(o, JSON_INDENT(1));
    int rc = text != NULL && evbuffer_add_printf(body, "%s\n", text) > 0 ? 0 : ERR_NOMEM;
    free(text);
    json_decref(o);
    return rc;
}

/* ---- HTML ---- */

#define TOP                                                                                        \
    "<!DOCTYPE html><html lang=\"en\"><meta charset=\"utf-8\"><title>kadmsg web</title>"           \
    "<style>body{font:15px sans-serif;margin:2em}td,th{text-align:left;padding:.1em 1em .1em 0}"   \
    "</style>"

static void escaped(struct evbuffer *body, const char *before, const char *text, const char *behind)
{
    char out[ESCAPED + 1];
    if (!http_html_escape(out, sizeof(out), text))
        out[0] = '\0';
    evbuffer_add_printf(body, "%s%s%s", before, out, behind);
}

static void html_sessions(struct evbuffer *body, const struct app_net_session *v, size_t n)
{
    evbuffer_add_printf(body, "<h2>Sessions</h2>");
    if (v == NULL) {
        evbuffer_add_printf(body, "<p>The node does not say.</p>");
        return;
    }
    evbuffer_add_printf(body, "<table><tr><th>relay<th>address<th>state<th>streams<th>round trip");
    for (size_t i = 0; i < n; i++) {
        char pk[PUBKEY_HEX + 1];
        escaped(body, "<tr><td>", pubkey_hex(pk, &v[i].server), "");
        escaped(body, "<td>", v[i].address, "");
        escaped(body, "<td>",
                v[i].up                      ? "up"
                : v[i].last_error[0] != '\0' ? v[i].last_error
                                             : "down",
                "");
        evbuffer_add_printf(body, "<td>%u<td>%.2f ms\n", v[i].streams, (double)v[i].rtt_us / 1000);
    }
    evbuffer_add_printf(body, "</table>");
}

static int write_html(struct evbuffer *body, const struct hub *hub, const struct app_net_session *v,
                      size_t n)
{
    struct figure f[FIGURES];
    char pk[PUBKEY_HEX + 1], when[32];
    evbuffer_add_printf(body, TOP "<h1>kadmsg web</h1>");
    escaped(body, "<p>", pubkey_hex(pk, &hub->net->self), "<br>version ");
    escaped(body, "", version_str(), "</p>");
    html_sessions(body, v, n);
    evbuffer_add_printf(body, "<h2>Connections</h2><table>");
    figures(f, hub);
    for (size_t i = 0; i < FIGURES; i++)
        evbuffer_add_printf(body, "<tr><td>%s<td>%llu\n", f[i].name,
                            (unsigned long long)f[i].value);
    evbuffer_add_printf(body, "</table><h2>Errors</h2><table>");
    for (size_t i = 0; i < notes_of(hub); i++) {
        time_text(when, note_at(hub, i)->when);
        evbuffer_add_printf(body, "<tr><td>%s<td>", when);
        escaped(body, "", note_at(hub, i)->text, "\n");
    }
    return evbuffer_add_printf(body, "</table></html>\n") > 0 ? 0 : ERR_NOMEM;
}

/* Head and body; the body is freed. */
static int send_page(struct evbuffer *out, const char *status, const char *type, const char *more,
                     struct evbuffer *body)
{
    evbuffer_add_printf(out,
                        "HTTP/1.1 %s\r\nContent-Type: %s; charset=utf-8\r\n"
                        "Content-Length: %zu\r\nCache-Control: no-store\r\n"
                        "X-Content-Type-Options: nosniff\r\nContent-Security-Policy: "
                        "default-src 'none'; style-src 'unsafe-inline'\r\n%s"
                        "Connection: close\r\n\r\n",
                        status, type, evbuffer_get_length(body), more);
    int rc = evbuffer_add_buffer(out, body) == 0 ? 0 : ERR_NOMEM;
    evbuffer_free(body);
    return rc;
}

int web_status_answer(struct evbuffer *out, const struct hub *hub, bool json,
                      const struct app_net_session *sessions, size_t n_sessions)
{
    struct evbuffer *body = evbuffer_new();
    if (body == NULL)
        return ERR_NOMEM;
    int rc = json ? write_json(body, hub, sessions, n_sessions)
                  : write_html(body, hub, sessions, n_sessions);
    if (rc == 0)
        return send_page(out, "200 OK", json ? "application/json" : "text/html", "", body);
    evbuffer_free(body);
    return rc;
}

static void link_to(struct evbuffer *body, const char *label, const char *suffix, const char *text)
{
    escaped(body, "<li><a href=\"http://", label, "");
    escaped(body, "", suffix, "/\">");
    escaped(body, "", label, "");
    escaped(body, "", suffix, "</a>");
    escaped(body, " ", text, "\n");
}

int web_home_answer(struct evbuffer *out, const struct hub *hub, const struct web_cfg *cfg)
{
    struct evbuffer *body = evbuffer_new();
    char pk[PUBKEY_HEX + 1], b32[DMSG_BASE32 + 1];
    if (body == NULL)
        return ERR_NOMEM;
    evbuffer_add_printf(body, TOP "<h1>kadmsg web</h1><ul>");
    link_to(body, "status", cfg->suffix, "sessions, connections, errors");
    link_to(body, dmsg_base32(b32, &hub->net->self), cfg->suffix, "this node's own key");
    for (size_t i = 0; cfg->aliases != NULL && i < cfg->aliases->n; i++)
        link_to(body, cfg->aliases->v[i].label, cfg->suffix,
                pubkey_hex(pk, &cfg->aliases->v[i].pk));
    escaped(body, "</ul><p>A site is http://KEY", cfg->suffix,
            "/ with its public key in hexadecimal or base32.</p></html>\n");
    return send_page(out, "200 OK", "text/html", "", body);
}

int web_wait_answer(struct evbuffer *out, unsigned status, const char *phrase, const char *host,
                    const char *why)
{
    struct evbuffer *body = evbuffer_new();
    char line[64];
    if (body == NULL)
        return ERR_NOMEM;
    snprintf(line, sizeof(line), "%u %s", status, phrase);
    evbuffer_add_printf(body, TOP "<h1>Please wait</h1>");
    escaped(body, "<p>", host,
            " cannot be reached now; this page tries again every 5 seconds.</p>");
    escaped(body, "<p>", why, "</p></html>\n");
    return send_page(out, line, "text/html", "Refresh: 5\r\nRetry-After: 5\r\n", body);
}
