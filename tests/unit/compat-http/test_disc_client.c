/*
 * The discovery client against a scripted server: what it takes from answers, and the texts.
 */
#include "compat-http/disc_client.h"

#include <signal.h>
#include <stdio.h>

#include "base/env_sys.h"
#include "base/err.h"
#include "tests/unit/compat-http/http_peer.h"
#include "tests/unit/vectors.h"

static struct http_peer peer;
static struct drive_loop *drive;
static struct env_sys env;
static struct http_client *http;
static struct disc_client *disc;

/* what the server answers, and what it was asked */
static unsigned status;
static const char *reply;
static char asked[600];

static unsigned script(void *arg, const char *method, const char *path, const char *body,
                       size_t len, char *out, size_t cap)
{
    (void)arg;
    snprintf(asked, sizeof(asked), "%s %s %.*s", method, path, (int)len, body);
    snprintf(out, cap, "%s", reply);
    return status;
}

static int setup(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    memset(&peer, 0, sizeof(peer));
    peer.script = script;
    http_peer_start(&peer);
    drive = drive_loop_new(NULL);
    assert_int_equal(env_sys_init(&env), 0);
    struct http_client_cfg cfg = {.drive = drive, .env = &env.env};
    assert_int_equal(http_client_new(&http, &cfg), 0);
    char url[80];
    snprintf(url, sizeof(url), "%s/", peer.url);
    struct disc_client_cfg dcfg = {.http = http, .env = &env.env, .url = url, .timeout_ms = 30000};
    assert_int_equal(disc_client_new(&disc, &dcfg), 0);
    assert_string_equal(disc_client_url(disc), peer.url);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    disc_client_free(disc);
    http_client_free(http);
    drive_loop_free(drive);
    http_peer_stop(&peer);
    return 0;
}

struct got {
    unsigned calls;
    int err;
    enum disc_text text;
    bool entry, verified;
    uint64_t sequence;
    size_t n;
    struct pubkey first;
    char address[64];
};

static void on_answer(void *arg, const struct disc_answer *a)
{
    struct got *g = arg;
    g->calls++;
    g->err = a->err;
    g->text = a->text;
    g->entry = a->entry != NULL;
    g->verified = a->verified;
    g->sequence = a->entry != NULL ? a->entry->sequence : 0;
    g->n = a->n;
    if (a->n > 0 && a->keys != NULL)
        g->first = a->keys[0];
    if (a->n > 0 && a->servers != NULL)
        snprintf(g->address, sizeof(g->address), "%s", a->servers[0]->server.address);
    assert_true((a->err == 0) == (a->why[0] == '\0'));
}

static struct got finish(struct got *g, uint64_t handle)
{
    assert_true(handle != 0);
    while (g->calls == 0)
        event_base_loop(drive_loop_base(drive), EVLOOP_ONCE);
    assert_int_equal(g->calls, 1);
    return *g;
}

static struct got get(const struct pubkey *pk, unsigned st, const char *text)
{
    struct got g = {0};
    status = st;
    reply = text;
    drive_loop_now(drive);
    return finish(&g, disc_client_get(disc, pk, on_answer, &g));
}

static struct got list(enum disc_list what, unsigned st, const char *text)
{
    struct got g = {0};
    status = st;
    reply = text;
    drive_loop_now(drive);
    return finish(&g, disc_client_list(disc, what, on_answer, &g));
}

static struct pubkey key_of(const json_t *v)
{
    struct pubkey pk;
    const char *hex = vec_str(v, "pk");
    assert_int_equal(pubkey_from_hex(&pk, hex, strlen(hex)), 0);
    return pk;
}

/* ---- */

static void test_recorded_entries(void **state)
{
    (void)state;
    json_t *root = vectors_load("discovery");
    const json_t *v;
    size_t i;
    json_array_foreach(vec_get(root, "signed_entries"), i, v)
    {
        struct pubkey pk = key_of(v);
        const char *text = vec_str(v, "entry_json");
        struct got g = get(&pk, 200, text);
        assert_int_equal(g.err, 0);
        assert_true(g.entry && g.verified);
        char path[200];
        snprintf(path, sizeof(path), "GET /dmsg-discovery/entry/%s ", vec_str(v, "pk"));
        assert_string_equal(asked, path);
        /* somebody else's, and one that was changed */
        struct pubkey other = pk;
        other.b[32] ^= 1;
        assert_int_equal(get(&other, 200, text).err, ERR_FORMAT);
        char *changed = strdup(text);
        assert_non_null(changed);
        char *at = strstr(changed, "\"version\":");
        assert_non_null(at);
        at[11] = at[11] == '8' ? '9' : '8';
        g = get(&pk, 200, changed);
        bool is_server = strstr(changed, "\"server\":{") != NULL;
        assert_int_equal(g.err, is_server ? 0 : ERR_SIG);
        assert_true(g.entry && !g.verified);
        free(changed);
    }
    json_decref(root);
}

/* §2.2 rule 4: the service wrote serverType over after the signature was made */
static void test_server_type_was_written(void **state)
{
    (void)state;
    struct seckey sk;
    struct pubkey pk;
    struct entry *e;
    struct hash digest;
    struct sig sig;
    char text[1024];
    env_keypair(&env.env, &sk, &pk);
    assert_int_equal(entry_new_server(&e, &pk, 3, 5, "203.0.113.1:80", 9), 0);
    assert_int_equal(entry_digest(&digest, e), 0);
    assert_int_equal(crypto_sign_digest(&sig, &sk, &digest), 0);
    e->server.server_type = "official";
    assert_int_equal(entry_set_signature(e, &sig), 0);
    assert_int_equal(entry_verify(e), ERR_SIG);
    snprintf(text, sizeof(text), "%.*s", (int)e->text_len, e->text);
    entry_free(e);
    struct got g = get(&pk, 200, text);
    assert_int_equal(g.err, 0);
    assert_true(g.verified);
}

static void test_texts(void **state)
{
    (void)state;
    struct seckey sk;
    struct pubkey pk;
    char text[300];
    env_keypair(&env.env, &sk, &pk);
    for (unsigned t = DISC_BAD_INPUT; t < DISC_TEXT__COUNT; t++) {
        const char *message = disc_text_message((enum disc_text)t);
        assert_int_equal(disc_text_find(message, strlen(message)), t);
        assert_true(disc_text_err((enum disc_text)t) < 0);
        snprintf(text, sizeof(text), "{\"message\":\"%s\",\"code\":%u}\n", message,
                 disc_text_status((enum disc_text)t));
        /* the text decides, whatever the status is */
        struct got g = get(&pk, 418, text);
        assert_int_equal(g.err, disc_text_err((enum disc_text)t));
        assert_int_equal(g.text, t);
    }
    assert_int_equal(get(&pk, 404, "404 page not found\n").err, ERR_PROTOCOL);
    assert_int_equal(get(&pk, 500, "").err, ERR_PROTOCOL);
    assert_int_equal(get(&pk, 418, "{\"message\":\"deleted entry\"}").err, ERR_PROTOCOL);
    assert_int_equal(get(&pk, 200, "null").err, ERR_FORMAT);
    assert_int_equal(get(&pk, 200, "{}").err, ERR_NOT_FOUND);
    assert_int_equal(get(&pk, 200, "[1]").err, ERR_FORMAT);
}

static void test_lists(void **state)
{
    (void)state;
    json_t *root = vectors_load("discovery");
    const json_t *v;
    size_t i, seen = 0;
    json_array_foreach(vec_get(root, "transcripts_production_mode"), i, v)
    {
        const char *path = vec_str(vec_get(v, "request"), "path");
        const json_t *res = vec_get(v, "response");
        bool all = strcmp(path, "/dmsg-discovery/all_servers") == 0;
        if (!all && strcmp(path, "/dmsg-discovery/available_servers") != 0)
            continue;
        struct got g = list(all ? DISC_ALL_SERVERS : DISC_AVAILABLE_SERVERS,
                            (unsigned)vec_int(res, "status"), vec_str(res, "body"));
        assert_int_equal(g.err, 0); /* "none" is a list too */
        seen += g.n;
    }
    assert_int_equal(seen, 5);
    json_decref(root);
    struct got g = list(DISC_CLIENTS, 200,
                        "[\"02026f0997b675aa29e8b43a0365d887947b7724ea179c19931e14ee9be7e6b7dd\","
                        "\"zz\"]\n");
    assert_int_equal(g.err, 0);
    assert_int_equal(g.n, 1);
    assert_int_equal(g.first.b[0], 2);
    assert_string_equal(asked, "GET /dmsg-discovery/entries ");
    assert_int_equal(list(DISC_VISOR_CLIENTS, 200, "[]").n, 0);
    assert_int_equal(list(DISC_CLIENTS, 200, "null").err, 0);
    assert_int_equal(list(DISC_CLIENTS, 200, "[1").err, ERR_FORMAT);
    assert_int_equal(list(DISC_ALL_SERVERS, 200, "[{},{\"static\":1},\"x\"]").n, 0);
    assert_int_equal(list(DISC_ALL_SERVERS, 200, "[{").err, ERR_FORMAT);
}

static void test_sending(void **state)
{
    (void)state;
    struct got g = {0};
    status = 200;
    reply = "{\"message\":\"wrote a new entry\",\"code\":200}";
    g = finish(&g, disc_client_send(disc, false, "{1}", 3, on_answer, &g));
    assert_int_equal(g.text, DISC_WROTE_NEW);
    assert_string_equal(asked, "POST /dmsg-discovery/entry/ {1}");
    g = (struct got){0};
    reply = "{\"message\":\"deleted entry\",\"code\":200}";
    g = finish(&g, disc_client_send(disc, true, "{2}", 3, on_answer, &g));
    assert_int_equal(g.text, DISC_DELETED);
    assert_string_equal(asked, "DELETE /dmsg-discovery/entry {2}");
}

static void test_cancel_and_urls(void **state)
{
    (void)state;
    struct got g = {0};
    struct disc_client *d;
    uint64_t h = disc_client_list(disc, DISC_CLIENTS, on_answer, &g);
    disc_client_cancel(disc, h);
    disc_client_cancel(disc, h);
    assert_true(disc_client_list(disc, DISC_CLIENTS, on_answer, &g) != 0); /* freed under way */
    struct disc_client_cfg cfg = {.http = http, .env = &env.env, .url = "ftp://x"};
    assert_int_equal(disc_client_new(&d, &cfg), ERR_FORMAT);
    assert_int_equal(g.calls, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_recorded_entries, setup, teardown),
        cmocka_unit_test_setup_teardown(test_server_type_was_written, setup, teardown),
        cmocka_unit_test_setup_teardown(test_texts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lists, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sending, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cancel_and_urls, setup, teardown),
    };
    return crypto_init() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
