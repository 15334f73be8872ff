#include "node/tool.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/err.h"
#include "base/log.h"
#include "node/control.h"
#include "node/keyfile.h"
#include "node/node.h"
#include "node/paths.h"
#include "node/tool_key.h"

#define TIMEOUT_DEFAULT_MS 20000
#define ANSWER_GRACE_MS    5000 /* the node has the deadline; this one is for a node that hangs */

struct tool {
    int fd;
    json_int_t next_id;
    unsigned timeout_ms;
    struct node *node; /* of its own, else NULL */
    pthread_t thread;
    bool runs; /* thread */
    bool direct;
    struct pubkey via; /* null: any way */
    char *packet;
};

const struct cmd_opt tool_flags[] = {
    {.name = "control",
     CMD_STR_AT(struct tool_opts, control),
     .metavar = "PATH",
     .def_text = "the default control socket, if it is there",
     .help = "ask the node behind this socket"},
    {.name = "bootstrap",
     CMD_PEERS_AT(struct tool_opts, bootstrap),
     .help = "without a running node: join through this relay"},
    {.name = "discovery",
     CMD_STR_AT(struct tool_opts, discovery),
     .metavar = "URL",
     .help = "without a running node: find relays and entries through this HTTP discovery too"},
    {.name = "network-name",
     CMD_STR_AT(struct tool_opts, network),
     .metavar = "NAME",
     .def_text = "the default network",
     .help = "without a running node: the name of the network to join"},
    {.name = "sk-file",
     CMD_STR_AT(struct tool_opts, sk_file),
     .metavar = "FILE",
     .def_text = "a fresh key",
     .help = "secret key to act as; - reads standard input"},
    {.name = "timeout",
     CMD_SECONDS_AT(struct tool_opts, timeout),
     .def = "20",
     .min = 1000000,
     .max = UINT64_C(86400000000000),
     .help = "give up after this long"},
    {.name = "json", CMD_FLAG_AT(struct tool_opts, json), .help = "print JSON, one object a line"},
    {0}};

int tool_fail(int err, const char *fmt, ...)
{
    va_list ap;
    fputs("kadmsg: ", stderr);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    return err_exit_code(err);
}

void tool_print(json_t *o)
{
    /* 12 digits: enough for every figure, and 0.1 stays 0.1. */
    json_dumpf(o, stdout, JSON_COMPACT | JSON_REAL_PRECISION(12));
    putchar('\n');
    fflush(stdout);
    json_decref(o);
}

const char *tool_str(const json_t *o, const char *name)
{
    const char *s = json_string_value(json_object_get(o, name));
    return s != NULL ? s : "";
}

long long tool_num(const json_t *o, const char *name)
{
    const json_t *v = json_object_get(o, name);
    return json_is_real(v) ? (long long)json_real_value(v) : (long long)json_integer_value(v);
}

void tool_plain(json_t *v)
{
    const char *key, *text = json_string_value(v);
    json_t *member;
    size_t i;
    void *tmp;
    char *copy = text != NULL ? strdup(text) : NULL;
    if (copy != NULL) {
        for (char *p = copy; *p != '\0'; p++) {
            bool c1 = p[0] == '\xc2' && (unsigned char)p[1] < 0xa0; /* U+0080 to U+009F */
            if (c1 || (unsigned char)*p < 0x20 || *p == 0x7f)
                *p = '?';
            if (c1)
                p[1] = '?';
        }
        (void)json_string_set(v, copy);
        free(copy);
    }
    json_array_foreach(v, i, member)
    {
        tool_plain(member);
    }
    json_object_foreach_safe(v, tmp, key, member)
    {
        tool_plain(member);
    }
}

/* ---- a running node ---- */

static int connect_to(struct tool *t, const char *path)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(sa.sun_path))
        return -ENAMETOOLONG;
    memcpy(sa.sun_path, path, strlen(path));
    t->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (t->fd < 0)
        return err_sys();
    int room = (int)CONTROL_PACKET * 2;
    (void)setsockopt(t->fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
    if (connect(t->fd, (struct sockaddr *)&sa, sizeof(sa)) == 0)
        return 0;
    int rc = err_sys();
    close(t->fd);
    t->fd = -1;
    return rc;
}

/* ---- a node of its own ---- */

static void *run_node(void *arg)
{
    (void)node_run(arg);
    return NULL;
}

static int start_own(struct tool *t, const struct tool_opts *opts, struct node_cfg *cfg)
{
    char why[NODE_WHY];
    int fds[2];
    cfg->bootstrap = opts->bootstrap.v;
    cfg->n_bootstrap = opts->bootstrap.n;
    cfg->discovery = opts->discovery;
    cfg->network = opts->network;
    cfg->pk_threads = 1;
    cfg->client_only = true;
    cfg->no_dht = opts->direct;
    cfg->proxy = opts->proxy;
    cfg->parts = node_parts;
    /* a command tells of its own failures */
    if (log_set_levels(opts->log_level != NULL ? opts->log_level : "warn", why, sizeof(why)) < 0)
        return tool_fail(ERR_STATE, "log: %s", why);
    int rc = node_new(&t->node, cfg, why);
    if (rc < 0)
        return tool_fail(rc, "%s", why);
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
        return tool_fail(err_sys(), "socketpair: %s", err_str(err_sys()));
    int room = (int)CONTROL_PACKET * 2;
    (void)setsockopt(fds[1], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
    t->fd = fds[1];
    rc = node_control_adopt(t->node, fds[0]);
    t->runs = rc == 0 && pthread_create(&t->thread, NULL, run_node, t->node) == 0;
    return t->runs ? 0 : tool_fail(rc < 0 ? rc : ERR_NOMEM, "cannot start a node of its own");
}

static int wait_ready(struct tool *t, enum tool_needs needs)
{
    if (needs == TOOL_NODE)
        return 0;
    json_t *req =
        json_pack("{s:s, s:s, s:I}", "cmd", "wait", "for", needs == TOOL_DHT ? "dht" : "session",
                  "timeout_ms", (json_int_t)t->timeout_ms);
    return tool_call(t, req, NULL, NULL, NULL, NULL);
}

/* The key to act as: of --sk-file, --sk, or none yet. 0 also then; the exit code. */
static int key_read(struct node_cfg *cfg, const struct tool_opts *opts)
{
    if (opts->sk_file != NULL) {
        int rc = keyfile_read(&cfg->sk, &cfg->pk, opts->sk_file);
        return rc < 0 ? tool_key_tell(rc, opts->sk_file) : 0;
    }
    if (opts->sk == NULL)
        return 0;
    cfg->sk = *opts->sk;
    return seckey_pubkey(&cfg->pk, &cfg->sk) < 0 ? tool_fail(ERR_USAGE, "--sk: not a secret key")
                                                 : 0;
}

static const char *key_name(const struct tool_opts *opts)
{
    return opts->sk_file != NULL ? opts->sk_file : "--sk";
}

/* With both --control and a key, acting as somebody else would be a surprise. */
static int check_same_key(struct tool *t, const struct tool_opts *opts, const struct pubkey *pk)
{
    char hex[PUBKEY_HEX + 1];
    json_t *answer = NULL;
    int rc = tool_call(t, json_pack("{s:s}", "cmd", "status"), NULL, NULL, &answer, NULL);
    if (rc == 0 && strcmp(pubkey_hex(hex, pk), tool_str(answer, "public_key")) != 0)
        rc = tool_fail(ERR_STATE, "the node at %s runs under another key than that of %s",
                       opts->control, key_name(opts));
    json_decref(answer);
    return rc;
}

/* The node that runs under our key. */
static int connect_owner(struct tool *t, const struct tool_opts *opts,
                         const struct keylock_owner *owner)
{
    int rc = connect_to(t, owner->control);
    return rc < 0 ? tool_fail(rc, "the node under the key of %s, process %ld, at %s: %s",
                              key_name(opts), (long)owner->pid, owner->control, err_str(rc))
                  : 0;
}

static int connect_default(struct tool *t)
{
    char path[PATHS_MAX];
    int rc = paths_control(path);
    if (rc == 0)
        rc = connect_to(t, path);
    return rc < 0
               ? tool_fail(ERR_NO_ROUTE, "no node answers at %s (%s), and no --bootstrap is given",
                           path, err_str(rc))
               : 0;
}

static int choose(struct tool *t, const struct tool_opts *opts, enum tool_needs needs,
                  struct node_cfg *cfg)
{
    struct keylock_owner owner;
    bool has_key = cfg->lock;
    int rc = key_read(cfg, opts);
    if (rc != 0)
        return rc;
    bool own = opts->control == NULL && (opts->bootstrap.n > 0 || opts->discovery != NULL);
    if (opts->proxy != NULL && !own)
        return tool_fail(ERR_USAGE,
                         "--proxy is for a node of the command's own: name relays by -S, "
                         "-D or --bootstrap");
    if (opts->control != NULL) {
        rc = connect_to(t, opts->control);
        if (rc < 0)
            return tool_fail(rc, "control socket %s: %s", opts->control, err_str(rc));
        return has_key ? check_same_key(t, opts, &cfg->pk) : 0;
    }
    if (has_key && keylock_owner(&owner, &cfg->pk) == 0 && owner.control[0] != '\0')
        return connect_owner(t, opts, &owner);
    if (opts->bootstrap.n > 0 || opts->discovery != NULL) {
        if (!has_key)
            keyfile_fresh(&cfg->sk, &cfg->pk);
        rc = start_own(t, opts, cfg);
        /* Without --bootstrap there may be no DHT at all, and HTTP answers. */
        if (opts->bootstrap.n == 0 && needs == TOOL_DHT)
            needs = TOOL_SESSION;
        return rc != 0 ? rc : wait_ready(t, needs);
    }
    if (has_key)
        return tool_fail(ERR_NO_ROUTE,
                         "no node runs under the key of %s, and no --bootstrap is given",
                         key_name(opts));
    return connect_default(t);
}

int tool_open(struct tool **out, const struct tool_opts *opts, enum tool_needs needs)
{
    struct tool *t = calloc(1, sizeof(*t));
    *out = NULL;
    if (t == NULL || (t->packet = malloc(CONTROL_PACKET)) == NULL) {
        free(t);
        return tool_fail(ERR_NOMEM, "%s", err_str(ERR_NOMEM));
    }
    t->fd = -1;
    t->timeout_ms = opts->timeout != 0 ? (unsigned)(opts->timeout / 1000000) : TIMEOUT_DEFAULT_MS;
    t->direct = opts->direct;
    if (opts->via != NULL)
        t->via = *opts->via;
    struct node_cfg cfg = {.publish = needs == TOOL_REACHABLE,
                           .lock = opts->sk_file != NULL || opts->sk != NULL,
                           .sessions = opts->sessions};
    int rc = choose(t, opts, needs, &cfg);
    seckey_wipe(&cfg.sk);
    if (rc != 0) {
        tool_close(t);
        return rc;
    }
    *out = t;
    return 0;
}

void tool_close(struct tool *t)
{
    if (t == NULL)
        return;
    if (t->fd >= 0)
        close(t->fd);
    if (t->runs) {
        node_stop(t->node);
        pthread_join(t->thread, NULL);
    }
    node_free(t->node);
    free(t->packet);
    free(t);
}

bool tool_is_own(const struct tool *t)
{
    return t->node != NULL;
}

int tool_fd(const struct tool *t)
{
    return t->fd;
}

unsigned tool_timeout_ms(const struct tool *t)
{
    return t->timeout_ms;
}

/* ---- packets ---- */

void tool_route(const struct tool *t, json_t *req)
{
    char via[PUBKEY_HEX + 1];
    if (t->direct)
        json_object_set_new(req, "local", json_true());
    if (!pubkey_is_null(&t->via) && json_object_get(req, "via") == NULL)
        json_object_set_new(req, "via", json_string(pubkey_hex(via, &t->via)));
}

int tool_post(struct tool *t, json_t *req, json_int_t *id)
{
    *id = ++t->next_id;
    json_object_set_new(req, "id", json_integer(*id));
    if (json_object_get(req, "timeout_ms") == NULL)
        json_object_set_new(req, "timeout_ms", json_integer((json_int_t)t->timeout_ms));
    size_t n = json_dumpb(req, t->packet, CONTROL_PACKET, JSON_COMPACT);
    json_decref(req);
    if (n == 0 || n > CONTROL_PACKET)
        return ERR_TOO_LONG;
    return send(t->fd, t->packet, n, MSG_NOSIGNAL) == (ssize_t)n ? 0 : err_sys();
}

int tool_send(struct tool *t, json_t *req)
{
    json_int_t id;
    int rc = tool_post(t, req, &id);
    if (rc == ERR_TOO_LONG)
        return tool_fail(rc, "request is too long");
    return rc < 0 ? tool_fail(rc, "the node does not take the request: %s", err_str(rc)) : 0;
}

static int take_fd(struct msghdr *msg)
{
    struct cmsghdr *cm = CMSG_FIRSTHDR(msg);
    int fd = -1;
    if (cm != NULL && cm->cmsg_level == SOL_SOCKET && cm->cmsg_type == SCM_RIGHTS)
        memcpy(&fd, CMSG_DATA(cm), sizeof(fd));
    return fd;
}

int tool_take(struct tool *t, int timeout_ms, json_t **packet, int *fd)
{
    struct pollfd p = {t->fd, POLLIN, 0};
    union {
        char buf[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } u;
    struct iovec iov = {t->packet, CONTROL_PACKET};
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = u.buf, .msg_controllen = sizeof(u.buf)};

    *fd = -1;
    *packet = NULL;
    int ready = poll(&p, 1, timeout_ms);
    if (ready == 0)
        return ERR_TIMEOUT;
    if (ready < 0 && errno == EINTR) /* by a signal that asks the command to end */
        return ERR_CANCELLED;
    ssize_t n = ready < 0 ? -1 : recvmsg(t->fd, &msg, MSG_CMSG_CLOEXEC);
    if (n <= 0)
        return ERR_RESET;
    *fd = take_fd(&msg);
    *packet = json_loadb(t->packet, (size_t)n, 0, NULL);
    return *packet != NULL ? 0 : ERR_FORMAT;
}

/* One packet: an object, or NULL and the exit code. */
static json_t *receive(struct tool *t, int timeout_ms, int *fd, int *code)
{
    json_t *o;
    int rc = tool_take(t, timeout_ms, &o, fd);
    if (rc == ERR_TIMEOUT)
        *code = tool_fail(rc, "the node does not answer");
    else if (rc == ERR_CANCELLED)
        *code = tool_fail(rc, "interrupted");
    else if (rc == ERR_FORMAT)
        *code = tool_fail(rc, "the node's answer cannot be read");
    else if (rc < 0)
        *code = tool_fail(rc, "the node closed the control connection");
    return o;
}

int tool_event(struct tool *t, int timeout_ms, json_t **event, int *fd)
{
    int code = 0;
    *event = receive(t, timeout_ms, fd, &code);
    if (*event == NULL)
        return code;
    const json_t *ok = json_object_get(*event, "ok");
    if (!json_is_false(ok))
        return 0;
    fprintf(stderr, "kadmsg: %s\n", tool_str(*event, "error"));
    code = (int)json_integer_value(json_object_get(*event, "exit"));
    json_decref(*event);
    *event = NULL;
    return code != 0 ? code : 1;
}

int tool_call(struct tool *t, json_t *req, tool_row_fn *fn, void *arg, json_t **answer, int *fd)
{
    int got = -1;
    if (answer != NULL)
        *answer = NULL;
    int rc = tool_send(t, req);
    while (rc == 0) {
        json_t *o;
        if ((rc = tool_event(t, (int)t->timeout_ms + ANSWER_GRACE_MS, &o, &got)) != 0)
            break;
        json_t *row = json_object_get(o, "row");
        if (row != NULL && fn != NULL)
            fn(arg, row);
        if (json_is_true(json_object_get(o, "ok"))) {
            json_object_del(o, "ok");
            json_object_del(o, "id");
            if (answer != NULL)
                *answer = o;
            else
                json_decref(o);
            break;
        }
        json_decref(o);
    }
    if (fd != NULL)
        *fd = got;
    else if (got >= 0)
        close(got);
    return rc;
}
