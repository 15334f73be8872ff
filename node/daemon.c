#include "node/daemon.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>

#include "base/err.h"
#include "base/log.h"
#include "node/keyfile.h"
#include "node/node_int.h"
#include "node/tool.h"
#include "node/tool_key.h"

#define DMSG_SESSIONS  16
#define REDIS_ATTEMPTS 10
#define PULLED_BYTES   (UINT64_C(16) << 20) /* of what the DHT gave */

/* ---- the configuration file ---- */

static const struct daemon_member common[] = {
    {"addr", "addr"},
    {"mode", "mode"},
    {"dmsg_port", "dmsg-port"},
    {"redis", "redis"},
    {"redis_pool_size", NULL},
    {"entry_timeout", "entry-timeout"},
    {"log_level", "log-level"},
    {"tag", "tag"},
    {"metrics_addr", "metrics"},
    {"pprof_addr", NULL},
    {"survey_whitelist", NULL},
    {"test_environment", "test-environment"},
    {"dmsg_server_type", "dmsg-server-type"},
    {"whitelist_keys", "whitelist-keys"},
    {"dmsg_servers", NULL},
    {"secret_key", "sk"},
    {"public_key", NULL},
};

/* A list becomes a text with commas. */
static void value_text(const json_t *v, char *out, size_t cap)
{
    size_t i, n = 0;
    const json_t *e;
    if (json_is_boolean(v))
        snprintf(out, cap, "%s", json_is_true(v) ? "true" : "false");
    else if (json_is_integer(v))
        snprintf(out, cap, "%lld", (long long)json_integer_value(v));
    else
        snprintf(out, cap, "%s", json_is_string(v) ? json_string_value(v) : "");
    json_array_foreach(v, i, e)
    {
        n += (size_t)snprintf(out + n, cap > n ? cap - n : 0, "%s%s", i > 0 ? "," : "",
                              json_is_string(e) ? json_string_value(e) : "");
        n = n < cap ? n : cap;
    }
}

static const struct daemon_member *member_of(const struct daemon_spec *spec, const char *name)
{
    for (size_t i = 0; i < spec->n_members; i++)
        if (strcmp(spec->members[i].member, name) == 0)
            return &spec->members[i];
    for (size_t i = 0; i < sizeof(common) / sizeof(common[0]); i++)
        if (strcmp(common[i].member, name) == 0)
            return &common[i];
    return NULL;
}

static int config_member(struct cmdline *cl, const struct daemon_spec *spec, const char *path,
                         const char *name, const json_t *v)
{
    char text[65536], why[200];
    const struct daemon_member *m = member_of(spec, name);
    if (m == NULL)
        return tool_fail(ERR_FORMAT, "%s: no such setting: \"%.100s\"", path, name);
    value_text(v, text, sizeof(text));
    if (m->flag == NULL && text[0] != '\0' && strcmp(name, "public_key") != 0)
        log_warn(LOG_HTTP, "%s: setting is not used here name=%s", path, name);
    if (m->flag == NULL || json_is_null(v))
        return 0;
    if (cmdline_set(cl, m->flag, text, why, sizeof(why)) < 0)
        return tool_fail(ERR_FORMAT, "%s: \"%s\": %s", path, name, why);
    return 0;
}

static int config_read(struct cmdline *cl, const struct daemon_spec *spec, const char *path)
{
    json_error_t je;
    const char *name;
    json_t *root = json_load_file(path, 0, &je), *v;
    int rc = 0;
    if (!json_is_object(root)) {
        json_decref(root);
        return tool_fail(ERR_FORMAT, "%s: %s", path, root == NULL ? je.text : "not an object");
    }
    json_object_foreach(root, name, v)
    {
        rc = rc == 0 ? config_member(cl, spec, path, name, v) : rc;
    }
    json_decref(root);
    return rc;
}

/* ---- lists of keys ---- */

static size_t count_words(const char *text)
{
    size_t n = text != NULL && *text != '\0';
    for (; text != NULL && *text != '\0'; text++)
        n += *text == ',';
    return n;
}

int daemon_keys(const char *flag, const char *text, struct pubkey **out, size_t *n)
{
    size_t len;
    *n = 0;
    if ((*out = calloc(count_words(text) + 1, sizeof(**out))) == NULL)
        return tool_fail(ERR_NOMEM, "%s", err_str(ERR_NOMEM));
    for (; text != NULL && *text != '\0'; text += len + (text[len] == ',')) {
        len = strcspn(text, ",");
        if (len == 0)
            continue;
        if (pubkey_from_hex(&(*out)[*n], text, len) < 0)
            return tool_fail(ERR_USAGE, "%s: %.*s is not a public key", flag,
                             len < 80 ? (int)len : 80, text);
        (*n)++;
    }
    return 0;
}

/* As texts: they are compared so (services.md §3.6). */
static int read_monitors(struct daemon *m)
{
    struct pubkey *keys;
    char *rest, *word;
    int rc = daemon_keys("--whitelist-keys", m->o->whitelist, &keys, &m->n_monitors);
    size_t n = m->n_monitors;
    free(keys);
    m->n_monitors = 0;
    if (rc != 0)
        return rc;
    m->monitors = calloc(n + 1, sizeof(*m->monitors));
    m->monitor_text = strdup(m->o->whitelist != NULL ? m->o->whitelist : "");
    if (m->monitors == NULL || m->monitor_text == NULL)
        return tool_fail(ERR_NOMEM, "%s", err_str(ERR_NOMEM));
    rest = m->monitor_text;
    while ((word = strsep(&rest, ",")) != NULL)
        if (*word != '\0')
            m->monitors[m->n_monitors++] = word;
    return 0;
}

/* ---- store ---- */

static void on_redis(void *arg, int err, const char *why)
{
    struct daemon *m = arg;
    m->redis_err = err;
    snprintf(m->why, sizeof(m->why), "%s", why);
    m->attempts += err != 0;
    m->known = err == 0 || err == ERR_REFUSED || m->attempts >= REDIS_ATTEMPTS;
    if (err == 0 && m->served && m->spec->store_back != NULL)
        m->spec->store_back(m);
    if (err == 0 && m->node != NULL)
        mirroring_pull(m->mirroring, m->spec->pull); /* it may be another one, or an empty one */
}

int daemon_store_dir(const struct daemon *m, char out[PATHS_MAX])
{
    char state[PATHS_MAX];
    if (m->o->store != NULL) {
        snprintf(out, PATHS_MAX, "%s", m->o->store);
        return 0;
    }
    int rc = paths_state(state);
    if (rc == 0)
        rc = paths_join(out, state, m->spec->name);
    return rc < 0 ? tool_fail(rc, "state directory: %s", err_str(rc)) : 0;
}

static int open_store(struct daemon *m)
{
    char dir[PATHS_MAX] = "", why[512];
    const struct daemon_opts *o = m->o;
    const char *redis = o->memory ? NULL : o->redis;
    int rc = 0;
    if (o->memory && (rc = fresh_dir_make(&m->fresh)) < 0)
        return tool_fail(rc, "run directory: %s", err_str(rc));
    if (o->memory)
        snprintf(dir, sizeof(dir), "%s", m->fresh.path);
    else if (redis == NULL && (rc = daemon_store_dir(m, dir)) != 0)
        return rc;
    struct kv_open_cfg cfg = {
        .drive = m->drive,
        .env = &m->env.env,
        .redis = redis,
        .password = getenv("REDIS_PASSWORD"),
        .dir = dir,
        .commit_ms = (unsigned)(o->commit / 1000000),
        .state = on_redis,
        .arg = m,
    };
    rc = kv_open(&m->store, &cfg, why, sizeof(why));
    if (rc < 0)
        return tool_fail(rc, "%s", why);
    while (redis != NULL && !m->known && !m->stopping)
        event_base_loop(drive_loop_base(m->drive), EVLOOP_ONCE);
    return redis != NULL && m->redis_err != 0 ? tool_fail(m->redis_err, "redis: %s", m->why) : 0;
}

/* ---- metrics ---- */

static void write_metrics(struct daemon *m, FILE *f)
{
    const char *name = m->spec->name;
    struct service_stat s;
    struct kv_stat k;
    service_stat(m->service, &s);
    kv_stat(m->store.kv, &k);
    fprintf(f,
            "# TYPE vm_request_ongoing_count gauge\nvm_request_ongoing_count %zu\n"
            "# TYPE kadmsg_%s_requests_total counter\n",
            s.requests, name);
    for (unsigned i = 2; i < 6; i++)
        fprintf(f, "kadmsg_%s_requests_total{code=\"%uxx\"} %llu\n", name, i,
                (unsigned long long)s.status[i]);
    fprintf(f,
            "# TYPE kadmsg_%s_connections gauge\nkadmsg_%s_connections %zu\n"
            "# TYPE kadmsg_%s_store_pending gauge\nkadmsg_%s_store_pending %zu\n",
            name, name, s.conns, name, name, k.pending);
    m->spec->metrics(m, f);
}

static void handle_metrics(struct service_req *q)
{
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    if (f != NULL) {
        write_metrics(q->app, f);
        fclose(f);
    }
    service_answer(q, text != NULL ? 200 : 500, "text/plain; version=0.0.4; charset=utf-8",
                   text != NULL ? text : "", n);
    free(text);
}

static const struct service_route metrics_routes[] = {{SERVICE_GET, "/metrics", handle_metrics, 0}};

static int open_metrics(struct daemon *m)
{
    const char *addr = m->o->metrics;
    if (addr == NULL || *addr == '\0')
        return 0;
    struct service_cfg cfg = {
        .drive = m->drive, .env = &m->env.env, .routes = metrics_routes, .n_routes = 1, .app = m};
    int rc = service_new(&m->metrics, &cfg);
    if (rc == 0)
        rc = service_listen(m->metrics, addr);
    return rc < 0 ? tool_fail(rc, "listen %s: %s", addr, err_str(rc)) : 0;
}

/* ---- service, mirror ---- */

static void on_again(void *arg)
{
    struct daemon *m = arg;
    if (m->served && m->spec->mirror_again != NULL)
        m->spec->mirror_again(m);
}

static void on_pulled(void *arg)
{
    struct daemon *m = arg;
    if (m->node != NULL && m->spec->pulled != NULL)
        m->spec->pulled(m);
}

static int open_mirror(struct daemon *m)
{
    const struct daemon_opts *o = m->o;
    struct mirroring_cfg cfg = {
        .drive = m->drive,
        .env = &m->env.env,
        .pk = m->pk,
        .sk = m->sk,
        .redis = o->mirror_redis,
        .password = getenv("REDIS_PASSWORD"),
        .n_full = o->bootstrap.n,
        .again = on_again,
        .pulled = on_pulled,
        .arg = m,
    };
    int rc = mirroring_open(&m->mirroring, &cfg);
    seckey_wipe(&cfg.sk);
    if (rc < 0)
        return tool_fail(rc, "mirror: %s", rc == ERR_FORMAT ? "not a Redis URL" : err_str(rc));
    return 0;
}

static int open_service(struct daemon *m)
{
    const struct daemon_opts *o = m->o;
    struct service_cfg cfg = {
        .drive = m->drive, .env = &m->env.env, .trust_any_proxy = o->trust_proxy};
    int rc = m->spec->open(m, &cfg);
    if (rc != 0)
        return rc;
    m->served = true;
    if ((rc = service_new(&m->service, &cfg)) < 0)
        return tool_fail(rc, "service: %s", err_str(rc));
    if (o->mode != DAEMON_DMSG && (rc = service_listen(m->service, o->addr)) < 0)
        return tool_fail(rc, "listen %s: %s", o->addr, err_str(rc));
    return open_metrics(m);
}

/* ---- over dmsg ---- */

const char *daemon_address(const struct daemon *m)
{
    return m->has_key ? m->address : NULL;
}

static void on_stream(void *arg, struct stream *st)
{
    struct daemon *m = arg;
    struct pubkey pk = *stream_remote(st);
    uint16_t port = stream_remote_port(st);
    int fd = node_stream_to_fd(m->node, st);
    if (fd >= 0)
        (void)service_add_stream(m->service, fd, &pk, port);
}

static bool on_report(void *arg, const struct kad_report *r)
{
    struct daemon *m = arg;
    return mirroring_report(m->mirroring, r);
}

static void on_changed(void *arg)
{
    struct daemon *m = arg;
    mirroring_tick(m->mirroring);
}

static void on_node_stopped(void *arg)
{
    struct daemon *m = arg;
    drive_loop_stop(m->drive);
}

/* A discovery asks itself, like every other client: its relays are those that register with it. */
static void own_url(struct daemon *m)
{
    const char *addr = service_addr(m->service, 0), *port = strrchr(addr, ':');
    bool any = strncmp(addr, "[::]", 4) == 0 || strncmp(addr, "0.0.0.0", 7) == 0;
    if (any)
        snprintf(m->url, sizeof(m->url), "http://127.0.0.1%s", port);
    else
        snprintf(m->url, sizeof(m->url), "http://%s", addr);
}

static int open_node(struct daemon *m)
{
    char why[NODE_WHY];
    const struct daemon_opts *o = m->o;
    if (!m->has_key)
        return 0;
    if (m->spec->own_discovery)
        own_url(m);
    const char *discovery = m->spec->own_discovery ? m->url : o->discovery;
    struct node_cfg cfg = {
        .pk = m->pk,
        .sk = m->sk,
        .discovery = discovery,
        .mode = m->spec->own_discovery ? NODE_MODE_HTTP
                : discovery == NULL    ? NODE_MODE_DHT
                : o->bootstrap.n > 0   ? NODE_MODE_HYBRID
                                       : NODE_MODE_HTTP,
        /* What was pulled of the DHT, to itself. */
        .push = m->spec->own_discovery && o->bootstrap.n > 0 ? NODE_PUSH_ON : NODE_PUSH_OFF,
        .store_bytes = PULLED_BYTES,
        .parts = node_parts,
        .publish = true,
        .lock = false,
        .sessions = DMSG_SESSIONS,
        .base = drive_loop_base(m->drive),
        .pk_inline = true,
        .bootstrap = o->bootstrap.v,
        .n_bootstrap = o->bootstrap.n,
        .mirrors = &m->pk,
        .n_mirrors = 1,
        .client_only = true,
        .stopped = on_node_stopped,
        .changed = on_changed,
        .report = on_report,
        .arg = m,
    };
    int rc = node_new(&m->node, &cfg, why);
    seckey_wipe(&cfg.sk);
    if (rc < 0)
        return tool_fail(rc, "%s", why);
    mirroring_set_node(m->mirroring, m->node);
    mirroring_pull(m->mirroring, m->spec->pull);
    rc = client_listen(m->node->client, (uint16_t)o->dmsg_port, on_stream, m);
    return rc < 0 ? tool_fail(rc, "dmsg port: %s", err_str(rc)) : 0;
}

/* ---- life ---- */

static void on_signal(evutil_socket_t sig, short what, void *arg)
{
    struct daemon *m = arg;
    (void)sig, (void)what;
    drive_loop_now(m->drive);
    bool again = m->stopping;
    m->stopping = true;
    if (m->node != NULL && !again)
        node_stop(m->node);
    else
        drive_loop_stop(m->drive);
}

static int open_loop(struct daemon *m)
{
    int rc = env_sys_init(&m->env);
    if (rc < 0 || (m->drive = drive_loop_new(NULL)) == NULL)
        return tool_fail(ERR_NOMEM, "event loop");
    struct event_base *base = drive_loop_base(m->drive);
    m->sigint = evsignal_new(base, SIGINT, on_signal, m);
    m->sigterm = evsignal_new(base, SIGTERM, on_signal, m);
    if (m->sigint == NULL || m->sigterm == NULL || event_add(m->sigint, NULL) < 0 ||
        event_add(m->sigterm, NULL) < 0)
        return tool_fail(ERR_NOMEM, "signals");
    drive_loop_now(m->drive);
    return 0;
}

/* What cannot be is told before anything is opened or made. */
static int check_mode(const struct daemon *m)
{
    const struct daemon_opts *o = m->o;
    bool key = m->has_key || o->keyfile != NULL;
    if (!key && (o->mode == DAEMON_DMSG || o->mode == DAEMON_DUAL))
        return tool_fail(ERR_USAGE, "this --mode needs --keyfile or --sk");
    if (!key && (o->mirror_redis != NULL || o->bootstrap.n > 0))
        return tool_fail(ERR_USAGE, "--bootstrap and --mirror-redis need --keyfile or --sk: items "
                                    "are signed");
    if (key && o->mode != DAEMON_HTTP && !m->spec->own_discovery && o->discovery == NULL &&
        o->bootstrap.n == 0)
        return tool_fail(ERR_USAGE, "to be served over dmsg it needs --dmsg-disc or --bootstrap");
    return 0;
}

static int open_key(struct daemon *m)
{
    const struct daemon_opts *o = m->o;
    bool made;
    int rc;
    if (o->keyfile != NULL) {
        if ((rc = keyfile_open(&m->sk, &m->pk, o->keyfile, &made)) < 0)
            return tool_key_tell(rc, o->keyfile);
        m->has_key = true;
    } else if (m->has_key) {
        m->sk = o->sk;
        if (seckey_pubkey(&m->pk, &m->sk) < 0)
            return tool_fail(ERR_USAGE, "--sk: not a secret key");
    }
    struct addr_dmsg at = {m->pk, (uint16_t)o->dmsg_port};
    addr_dmsg_text(m->address, &at);
    if (o->mode == DAEMON_HTTP)
        m->has_key = false;
    return 0;
}

static int open_all(struct daemon *m)
{
    int rc;
    if ((rc = check_mode(m)) != 0 || (rc = read_monitors(m)) != 0 || (rc = open_loop(m)) != 0 ||
        (rc = open_key(m)) != 0 || (rc = open_store(m)) != 0 || (rc = open_mirror(m)) != 0 ||
        (rc = open_service(m)) != 0)
        return rc;
    return open_node(m);
}

static void close_all(struct daemon *m)
{
    mirroring_set_node(m->mirroring, NULL);
    node_free(m->node);
    service_free(m->metrics);
    service_free(m->service);
    m->spec->close(m);
    kv_open_close(&m->store);
    if (m->spec->closed != NULL)
        m->spec->closed(m);
    mirroring_close(m->mirroring);
    if (m->sigint != NULL)
        event_free(m->sigint);
    if (m->sigterm != NULL)
        event_free(m->sigterm);
    if (m->drive != NULL)
        drive_loop_free(m->drive);
    fresh_dir_remove(&m->fresh);
    free(m->monitor_text);
    free(m->monitors);
    seckey_wipe(&m->sk);
}

static void say_ready(struct daemon *m)
{
    const char *addr = service_addr(m->service, 0), *dmsg = daemon_address(m);
    log_info(LOG_HTTP, "%s serves addr=%s store=%s%s%s", m->spec->title, addr != NULL ? addr : "-",
             m->store.kv->ops->name, dmsg != NULL ? " dmsg=" : "", dmsg != NULL ? dmsg : "");
    sd_notify(0, "READY=1");
    if (m->o->ready)
        tool_print(json_pack("{s:s, s:s?, s:s?, s:s?}", "event", "ready", "http", addr, "metrics",
                             m->metrics != NULL ? service_addr(m->metrics, 0) : NULL, "dmsg",
                             dmsg));
}

int daemon_run(struct cmdline *cl, const struct daemon_spec *spec, const struct daemon_opts *o)
{
    char why[256];
    const char *mode = spec->mode_env != NULL ? getenv(spec->mode_env) : NULL;
    int rc = o->config != NULL ? config_read(cl, spec, o->config) : 0;
    if (rc != 0)
        return rc;
    if (mode != NULL && *mode != '\0' && cmdline_set(cl, "mode", mode, why, sizeof(why)) < 0)
        return tool_fail(ERR_USAGE, "%s: %s", spec->mode_env, why);
    if (log_set_levels(o->log_level, why, sizeof(why)) < 0)
        return cmdline_usage_error(cl, "--log-level: %s", why);
    struct daemon *m = calloc(1, sizeof(*m));
    if (m == NULL)
        return tool_fail(ERR_NOMEM, "%s", err_str(ERR_NOMEM));
    m->spec = spec;
    m->o = o;
    m->opts = cl->opts;
    m->fresh.fd = -1;
    m->has_key = cmdline_given(cl, "sk") && seckey_check(&o->sk) == 0;
    signal(SIGPIPE, SIG_IGN);
    rc = open_all(m);
    if (rc == 0) {
        say_ready(m);
        rc = drive_loop_run(m->drive) < 0 ? tool_fail(ERR_STATE, "event loop") : 0;
    }
    close_all(m);
    free(m);
    return rc;
}
