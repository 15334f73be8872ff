#include "node/control.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/crypto.h"
#include "base/err.h"
#include "base/log.h"
#include "node/paths.h"

struct packet {
    struct list_node node;
    int fd;
    size_t n;
    char text[];
};

struct ctl_conn {
    struct control *control;
    struct list_node node;
    struct event *ev;
    int fd;
    short interest;
    struct list requests, out;
    size_t n_requests, n_out;
    unsigned turn_rows;
    bool closing, want_room;
};

struct control {
    struct drive_loop *loop;
    const struct ctl_cmd *cmds;
    void *node_arg;
    struct list conns;
    size_t n_conns;
    struct event *listen_ev, *rest_ev;
    int listen_fd;
    struct control_stat stat;
    char path[PATHS_MAX];
};

#define LOCK_TRIES 100
#define REST_US    (100 * 1000) /* of the listener when there are no descriptors left */

/* ---- the end of a connection ---- */

static void conn_free(struct ctl_conn *c)
{
    struct ctl_req *req;
    struct packet *p;
    while ((req = list_pop_front_as(&c->requests, struct ctl_req, node)) != NULL) {
        loop_timer_cancel(drive_loop_loop(c->control->loop), &req->timer);
        if (req->gone != NULL)
            req->gone(req);
        json_decref(req->args);
        free(req);
    }
    while ((p = list_pop_front_as(&c->out, struct packet, node)) != NULL) {
        if (p->fd >= 0)
            close(p->fd);
        free(p);
    }
    list_remove(&c->node);
    c->control->n_conns--;
    c->control->stat.requests -= c->n_requests;
    event_free(c->ev);
    close(c->fd);
    free(c);
}

/* To be freed by its own event: somebody further up may be using it. */
static void conn_end(struct ctl_conn *c)
{
    c->closing = true;
    event_active(c->ev, EV_READ, 0);
}

/* ---- sending ---- */

static void interest_set(struct ctl_conn *c);

/* 0 sent, ERR_AGAIN, or the connection is dead. */
static int send_packet(int fd, const struct packet *p)
{
    struct iovec iov = {(void *)(uintptr_t)p->text, p->n};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    union {
        char buf[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } u;
    if (p->fd >= 0) {
        memset(&u, 0, sizeof(u));
        msg.msg_control = u.buf;
        msg.msg_controllen = sizeof(u.buf);
        struct cmsghdr *cm = CMSG_FIRSTHDR(&msg);
        cm->cmsg_level = SOL_SOCKET;
        cm->cmsg_type = SCM_RIGHTS;
        cm->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(cm), &p->fd, sizeof(int));
    }
    ssize_t n = sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? ERR_AGAIN : err_sys();
    return 0;
}

static void flush_out(struct ctl_conn *c)
{
    struct packet *p;
    while (!c->closing && (p = list_first_as(&c->out, struct packet, node)) != NULL) {
        int rc = send_packet(c->fd, p);
        if (rc == ERR_AGAIN)
            break;
        if (rc < 0)
            conn_end(c);
        list_remove(&p->node);
        c->n_out--;
        if (p->fd >= 0)
            close(p->fd);
        free(p);
    }
    interest_set(c);
}

static void enqueue(struct ctl_conn *c, json_t *obj, int fd)
{
    size_t n = json_dumpb(obj, NULL, 0, JSON_COMPACT);
    struct packet *p = n > 0 && n <= CONTROL_PACKET ? malloc(sizeof(*p) + n) : NULL;
    if (p == NULL) { /* without this answer the rest makes no sense: the other end must not wait */
        log_warn(LOG_CTL, "answer dropped bytes=%zu", n);
        c->control->stat.dropped++;
        if (fd >= 0)
            close(fd);
        conn_end(c);
        return;
    }
    memset(&p->node, 0, sizeof(p->node));
    p->fd = fd;
    p->n = json_dumpb(obj, p->text, n, JSON_COMPACT);
    list_push_back(&c->out, &p->node);
    c->n_out++;
    flush_out(c);
}

static void req_end(struct ctl_req *req)
{
    loop_timer_cancel(drive_loop_loop(req->conn->control->loop), &req->timer);
    list_remove(&req->node);
    req->conn->n_requests--;
    req->conn->control->stat.requests--;
    json_decref(req->args);
    free(req);
}

void ctl_ok(struct ctl_req *req, json_t *members, int fd)
{
    json_t *o = json_pack("{s:I, s:b}", "id", req->id, "ok", 1);
    if (members != NULL) {
        json_object_update(o, members);
        json_decref(members);
    }
    enqueue(req->conn, o, fd);
    json_decref(o);
    req_end(req);
}

/* What a client sent may be quoted in a text, and be cut in the middle of a character there. */
static json_t *text_json(char *text)
{
    json_t *s = json_string(text);
    if (s != NULL)
        return s;
    for (char *p = text; *p != '\0'; p++)
        *p = (unsigned char)*p < 0x80 ? *p : '?';
    return json_string(text);
}

void ctl_fail(struct ctl_req *req, int err, const char *fmt, ...)
{
    char text[1024];
    if (fmt != NULL) {
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(text, sizeof(text), fmt, ap);
        va_end(ap);
    } else {
        snprintf(text, sizeof(text), "%s", err_str(err));
    }
    json_t *o = json_pack("{s:I, s:b, s:o, s:i, s:i}", "id", req->id, "ok", 0, "error",
                          text_json(text), "exit", err_exit_code(err), "code", err);
    enqueue(req->conn, o, -1);
    json_decref(o);
    req_end(req);
}

static void on_timeout(struct loop_timer *t)
{
    struct ctl_req *req = container_of(t, struct ctl_req, timer);
    if (req->gone != NULL)
        req->gone(req);
    ctl_fail(req, ERR_TIMEOUT, "%s: timed out after %u ms", ctl_arg_str(req, "cmd", ""),
             req->timeout_ms);
}

void ctl_set_timeout(struct ctl_req *req, unsigned ms)
{
    struct loop *loop = drive_loop_loop(req->conn->control->loop);
    req->timeout_ms = ms;
    req->timer.fn = on_timeout;
    loop_timer_set(loop, &req->timer, loop->now_ns + ms * NS_PER_MS);
}

void ctl_row(struct ctl_req *req, json_t *row)
{
    json_t *o = json_pack("{s:I, s:o}", "id", req->id, "row", row);
    req->conn->turn_rows++;
    enqueue(req->conn, o, -1);
    json_decref(o);
}

void ctl_event(struct ctl_req *req, json_t *members, int fd)
{
    json_object_set_new(members, "id", json_integer(req->id));
    enqueue(req->conn, members, fd);
    json_decref(members);
}

bool ctl_row_room(const struct ctl_req *req)
{
    struct ctl_conn *c = req->conn;
    if (!c->closing && c->n_out < CONTROL_QUEUE && c->turn_rows < CONTROL_TURN)
        return true;
    c->want_room = true;
    interest_set(c);
    return false;
}

/* ---- arguments ---- */

int ctl_arg_pubkey(struct ctl_req *req, const char *name, struct pubkey *out)
{
    const char *text = ctl_arg_str(req, name, "");
    if (pubkey_from_hex(out, text, strlen(text)) == 0)
        return 0;
    ctl_fail(req, ERR_USAGE, "%s: not a public key: \"%.80s\"", name, text);
    return ERR_USAGE;
}

const char *ctl_arg_str(const struct ctl_req *req, const char *name, const char *def)
{
    const char *v = json_string_value(json_object_get(req->args, name));
    return v != NULL ? v : def;
}

int ctl_arg_range(struct ctl_req *req, const char *name, json_int_t min, json_int_t max,
                  json_int_t def, json_int_t *out)
{
    const json_t *v = json_object_get(req->args, name);
    *out = v == NULL ? def : json_integer_value(v);
    if (v == NULL || (json_is_integer(v) && *out >= min && *out <= max))
        return 0;
    ctl_fail(req, ERR_USAGE, "%s: not a number from %lld to %lld", name, (long long)min,
             (long long)max);
    return ERR_USAGE;
}

int ctl_arg_timeout(struct ctl_req *req, unsigned *ms)
{
    json_int_t v;
    int rc = ctl_arg_range(req, "timeout_ms", 1, 86400 * 1000, 20000, &v);
    *ms = (unsigned)v;
    return rc;
}

bool ctl_arg_bool(const struct ctl_req *req, const char *name)
{
    return json_is_true(json_object_get(req->args, name));
}

/* ---- cancel ---- */

void ctl_cancel(struct ctl_req *req)
{
    json_int_t target;
    struct list_node *pos, *tmp;
    if (ctl_arg_range(req, "target", 1, INT64_MAX, 0, &target) < 0)
        return;
    list_for_each(pos, tmp, &req->conn->requests)
    {
        struct ctl_req *r = container_of(pos, struct ctl_req, node);
        if (r->id != target || r == req || r->gone == NULL)
            continue;
        r->gone(r);
        req_end(r);
        break;
    }
    ctl_ok(req, NULL, -1); /* it may have been answered while this one was under way */
}

/* ---- receiving ---- */

static void dispatch(struct ctl_conn *c, const char *text, size_t n)
{
    json_error_t je;
    json_t *args = json_loadb(text, n, JSON_REJECT_DUPLICATES, &je);
    struct ctl_req *req = json_is_object(args) ? calloc(1, sizeof(*req)) : NULL;
    if (req == NULL) {
        c->control->stat.bad_packets++;
        json_decref(args);
        c->closing = true;
        return;
    }
    req->conn = c;
    req->args = args;
    req->node_arg = c->control->node_arg;
    req->id = json_integer_value(json_object_get(args, "id"));
    list_push_back(&c->requests, &req->node);
    c->control->stat.requests++;
    if (c->n_requests++ >= CONTROL_REQS) {
        c->control->stat.refused_limit++;
        ctl_fail(req, ERR_LIMIT, "more than %d requests at once", CONTROL_REQS);
        return;
    }
    const char *name = ctl_arg_str(req, "cmd", "");
    for (const struct ctl_cmd *cmd = c->control->cmds; cmd->name != NULL; cmd++) {
        if (strcmp(cmd->name, name) == 0) {
            cmd->run(req);
            return;
        }
    }
    ctl_fail(req, ERR_UNSUPPORTED, "this node does not know the command \"%.80s\"", name);
}

static void read_packets(struct ctl_conn *c)
{
    char *text = malloc(CONTROL_PACKET);
    for (int i = 0; text != NULL && i < 16 && !c->closing; i++) {
        ssize_t n = recv(c->fd, text, CONTROL_PACKET, MSG_DONTWAIT | MSG_TRUNC);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            break;
        if (n > 0 && (size_t)n <= CONTROL_PACKET) {
            dispatch(c, text, (size_t)n);
            continue;
        }
        c->control->stat.bad_packets += n > 0;
        c->closing = true;
    }
    free(text);
}

static void tell_room(struct ctl_conn *c)
{
    struct list_node *pos, *tmp;
    if (!c->want_room || c->n_out >= CONTROL_QUEUE / 2)
        return;
    c->want_room = false;
    c->turn_rows = 0;
    list_for_each(pos, tmp, &c->requests)
    {
        struct ctl_req *req = container_of(pos, struct ctl_req, node);
        if (req->room != NULL)
            req->room(req);
    }
    interest_set(c);
}

static void on_io(evutil_socket_t fd, short what, void *arg)
{
    struct ctl_conn *c = arg;
    (void)fd;
    drive_loop_now(c->control->loop);
    if ((what & EV_WRITE) && !c->closing) {
        flush_out(c);
        tell_room(c);
    }
    if (what & EV_READ)
        read_packets(c);
    if (c->closing)
        conn_free(c);
}

/* Writing is of interest while something waits for room: packets, or a source of rows. */
static void interest_set(struct ctl_conn *c)
{
    short want = (short)(EV_READ | (list_empty(&c->out) && !c->want_room ? 0 : EV_WRITE));
    if (want == c->interest || c->closing)
        return;
    event_del(c->ev);
    c->interest = want;
    event_assign(c->ev, drive_loop_base(c->control->loop), c->fd, (short)(want | EV_PERSIST), on_io,
                 c);
    event_add(c->ev, NULL);
}

int control_adopt(struct control *ctl, int fd)
{
    struct ctl_conn *c = ctl->n_conns < CONTROL_CONNS ? calloc(1, sizeof(*c)) : NULL;
    if (c != NULL)
        c->ev = event_new(drive_loop_base(ctl->loop), -1, 0, on_io, c);
    if (c == NULL || c->ev == NULL) {
        ctl->stat.refused_limit++;
        free(c);
        close(fd);
        return ERR_LIMIT;
    }
    int room = (int)CONTROL_PACKET * 2;
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
    evutil_make_socket_nonblocking(fd);
    c->control = ctl;
    c->fd = fd;
    list_init(&c->requests);
    list_init(&c->out);
    list_push_back(&ctl->conns, &c->node);
    ctl->n_conns++;
    interest_set(c);
    return 0;
}

static void on_rested(evutil_socket_t fd, short what, void *arg)
{
    struct control *ctl = arg;
    (void)fd;
    (void)what;
    event_add(ctl->listen_ev, NULL);
}

/* Out of descriptors: the pending connection stays pending, so look again later (incident 88). */
static void rest(struct control *ctl)
{
    static const struct timeval tv = {0, REST_US};
    ctl->stat.accept_failed++;
    event_del(ctl->listen_ev);
    event_add(ctl->rest_ev, &tv);
}

static void on_connect(evutil_socket_t fd, short what, void *arg)
{
    struct control *ctl = arg;
    struct ucred cred;
    socklen_t len = sizeof(cred);
    (void)what;
    int peer = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (peer < 0) {
        if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
            rest(ctl);
        return;
    }
    if (getsockopt(peer, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0 ||
        (cred.uid != geteuid() && cred.uid != 0)) {
        log_warn(LOG_CTL, "control connection refused uid=%ld", (long)cred.uid);
        ctl->stat.refused_user++;
        close(peer);
        return;
    }
    (void)control_adopt(ctl, peer);
}

/* ---- the socket ---- */

static int socket_addr(struct sockaddr_un *sa, const char *path)
{
    memset(sa, 0, sizeof(*sa));
    sa->sun_family = AF_UNIX;
    if (strlen(path) >= sizeof(sa->sun_path))
        return -ENAMETOOLONG;
    memcpy(sa->sun_path, path, strlen(path));
    return 0;
}

/* A socket file whose process is gone refuses connections. 0, ERR_BUSY (a living process has
 * it), ERR_EXISTS (not a socket), system errors. */
static int look_at(const char *path, const struct sockaddr_un *sa)
{
    struct stat st;
    if (lstat(path, &st) < 0)
        return errno == ENOENT ? 0 : err_sys();
    if (!S_ISSOCK(st.st_mode))
        return ERR_EXISTS;
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_sys();
    int rc = connect(fd, (const struct sockaddr *)sa, sizeof(*sa)) == 0 || errno != ECONNREFUSED
                 ? ERR_BUSY
                 : 0;
    close(fd);
    return rc;
}

bool control_is_taken(const char *path)
{
    struct sockaddr_un sa;
    return socket_addr(&sa, path) == 0 && look_at(path, &sa) == ERR_BUSY;
}

static int remove_stale(const char *path, const struct sockaddr_un *sa)
{
    int rc = look_at(path, sa);
    if (rc == 0 && unlink(path) < 0 && errno != ENOENT)
        rc = err_sys();
    return rc;
}

/* Two nodes that start at once must not take each other's socket for a dead one's: the directory is
 * locked from the look until the new socket listens. */
static int lock_dir(const char *path, int *fd)
{
    char dir[PATHS_MAX];
    snprintf(dir, sizeof(dir), "%s", path); /* path fits into a socket address */
    char *slash = strrchr(dir, '/');
    if (slash != NULL)
        slash[slash == dir] = '\0';
    if (slash != NULL && slash != dir) {
        int rc = paths_make_dir(dir);
        if (rc < 0)
            return rc;
    }
    *fd = open(slash != NULL ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*fd < 0)
        return err_sys();
    for (int i = 0; flock(*fd, LOCK_EX | LOCK_NB) < 0; i++) {
        if (errno != EWOULDBLOCK || i == LOCK_TRIES) {
            int rc = errno == EWOULDBLOCK ? ERR_BUSY : err_sys();
            close(*fd);
            return rc;
        }
        usleep(10 * 1000);
    }
    return 0;
}

static int bind_socket(struct control *ctl, const char *path, const struct sockaddr_un *sa)
{
    int rc = remove_stale(path, sa);
    if (rc < 0)
        return rc;
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_sys();
    mode_t old = umask(0177);
    rc = bind(fd, (const struct sockaddr *)sa, sizeof(*sa)) < 0 || listen(fd, 16) < 0 ? err_sys()
                                                                                      : 0;
    umask(old);
    if (rc < 0) {
        close(fd);
        return rc;
    }
    ctl->listen_fd = fd;
    snprintf(ctl->path, sizeof(ctl->path), "%s", path);
    return 0;
}

static int open_socket(struct control *ctl, const char *path)
{
    struct sockaddr_un sa;
    int dir_fd, rc = socket_addr(&sa, path);
    if (rc < 0 || (rc = lock_dir(path, &dir_fd)) < 0)
        return rc;
    rc = bind_socket(ctl, path, &sa);
    close(dir_fd);
    if (rc < 0)
        return rc;
    int fd = ctl->listen_fd;
    ctl->rest_ev = event_new(drive_loop_base(ctl->loop), -1, 0, on_rested, ctl);
    ctl->listen_ev =
        event_new(drive_loop_base(ctl->loop), fd, EV_READ | EV_PERSIST, on_connect, ctl);
    return ctl->rest_ev == NULL || ctl->listen_ev == NULL || event_add(ctl->listen_ev, NULL) < 0
               ? ERR_NOMEM
               : 0;
}

int control_new(struct control **out, struct drive_loop *loop, const char *path,
                const struct ctl_cmd *cmds, void *node_arg)
{
    struct control *ctl = calloc(1, sizeof(*ctl));
    if (ctl == NULL)
        return ERR_NOMEM;
    ctl->loop = loop;
    ctl->cmds = cmds;
    ctl->node_arg = node_arg;
    ctl->listen_fd = -1;
    list_init(&ctl->conns);
    int rc = path != NULL ? open_socket(ctl, path) : 0;
    if (rc < 0) {
        control_free(ctl);
        return rc;
    }
    *out = ctl;
    return 0;
}

void control_free(struct control *ctl)
{
    struct ctl_conn *c;
    if (ctl == NULL)
        return;
    while ((c = list_first_as(&ctl->conns, struct ctl_conn, node)) != NULL)
        conn_free(c);
    if (ctl->rest_ev != NULL)
        event_free(ctl->rest_ev);
    if (ctl->listen_ev != NULL)
        event_free(ctl->listen_ev);
    if (ctl->listen_fd >= 0) {
        unlink(ctl->path);
        close(ctl->listen_fd);
    }
    free(ctl);
}

void control_stat(const struct control *ctl, struct control_stat *out)
{
    *out = ctl->stat;
    out->conns = ctl->n_conns;
}
