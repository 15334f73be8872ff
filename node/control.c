#include "node/control.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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
    bool closing, in_read;
};

struct control {
    struct drive_loop *loop;
    const struct ctl_cmd *cmds;
    void *node_arg;
    struct list conns;
    size_t n_conns;
    struct event *listen_ev;
    int listen_fd;
    char path[PATHS_MAX];
};

/* ---- the end of a connection ---- */

static void conn_free(struct ctl_conn *c)
{
    struct ctl_req *req;
    struct packet *p;
    while ((req = list_pop_front_as(&c->requests, struct ctl_req, node)) != NULL) {
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
    event_free(c->ev);
    close(c->fd);
    free(c);
}

/* ---- sending ---- */

static void interest_set(struct ctl_conn *c, short want);

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
    while ((p = list_first_as(&c->out, struct packet, node)) != NULL) {
        int rc = send_packet(c->fd, p);
        if (rc == ERR_AGAIN)
            break;
        if (rc < 0)
            c->closing = true; /* noticed by the read side; what is queued goes nowhere */
        list_remove(&p->node);
        c->n_out--;
        if (p->fd >= 0)
            close(p->fd);
        free(p);
    }
    interest_set(c, (short)(EV_READ | (list_empty(&c->out) ? 0 : EV_WRITE)));
}

static void enqueue(struct ctl_conn *c, json_t *obj, int fd)
{
    size_t n = json_dumpb(obj, NULL, 0, JSON_COMPACT);
    struct packet *p = n > 0 && n <= CONTROL_PACKET ? malloc(sizeof(*p) + n) : NULL;
    if (p == NULL) {
        log_warn(LOG_CTL, "answer dropped bytes=%zu", n);
        if (fd >= 0)
            close(fd);
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
    list_remove(&req->node);
    req->conn->n_requests--;
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
    json_t *o = json_pack("{s:I, s:b, s:o, s:i}", "id", req->id, "ok", 0, "error",
                          json_string_nocheck(text), "exit", err_exit_code(err));
    enqueue(req->conn, o, -1);
    json_decref(o);
    req_end(req);
}

void ctl_row(struct ctl_req *req, json_t *row)
{
    json_t *o = json_pack("{s:I, s:o}", "id", req->id, "row", row);
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
    return req->conn->n_out < CONTROL_QUEUE;
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

json_int_t ctl_arg_int(const struct ctl_req *req, const char *name, json_int_t def)
{
    const json_t *v = json_object_get(req->args, name);
    return json_is_integer(v) ? json_integer_value(v) : def;
}

bool ctl_arg_bool(const struct ctl_req *req, const char *name)
{
    return json_is_true(json_object_get(req->args, name));
}

/* ---- receiving ---- */

static void dispatch(struct ctl_conn *c, const char *text, size_t n)
{
    json_error_t je;
    json_t *args = json_loadb(text, n, JSON_REJECT_DUPLICATES, &je);
    struct ctl_req *req =
        json_is_object(args) && c->n_requests < CONTROL_REQS ? calloc(1, sizeof(*req)) : NULL;
    if (req == NULL) {
        json_decref(args);
        c->closing = true;
        return;
    }
    req->conn = c;
    req->args = args;
    req->node_arg = c->control->node_arg;
    list_push_back(&c->requests, &req->node);
    c->n_requests++;
    req->id = ctl_arg_int(req, "id", 0);
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
        if (n <= 0 || (size_t)n > CONTROL_PACKET)
            c->closing = true;
        else
            dispatch(c, text, (size_t)n);
    }
    free(text);
}

static void tell_room(struct ctl_conn *c)
{
    struct list_node *pos, *tmp;
    list_for_each(pos, tmp, &c->requests)
    {
        struct ctl_req *req = container_of(pos, struct ctl_req, node);
        if (c->n_out < CONTROL_QUEUE / 2 && req->room != NULL)
            req->room(req);
    }
}

static void on_io(evutil_socket_t fd, short what, void *arg)
{
    struct ctl_conn *c = arg;
    (void)fd;
    drive_loop_now(c->control->loop);
    if (what & EV_WRITE) {
        flush_out(c);
        tell_room(c);
    }
    if (what & EV_READ)
        read_packets(c);
    if (c->closing)
        conn_free(c);
}

static void interest_set(struct ctl_conn *c, short want)
{
    if (want == c->interest)
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
    interest_set(c, EV_READ);
    return 0;
}

static void on_connect(evutil_socket_t fd, short what, void *arg)
{
    struct control *ctl = arg;
    struct ucred cred;
    socklen_t len = sizeof(cred);
    (void)what;
    int peer = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (peer < 0)
        return;
    if (getsockopt(peer, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0 ||
        (cred.uid != geteuid() && cred.uid != 0)) {
        log_warn(LOG_CTL, "control connection refused uid=%ld", (long)cred.uid);
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

/* A socket file whose process is gone refuses connections: then it may be removed. */
static int remove_stale(const char *path, const struct sockaddr_un *sa)
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
    if (rc == 0 && unlink(path) < 0 && errno != ENOENT)
        rc = err_sys();
    return rc;
}

static int open_socket(struct control *ctl, const char *path)
{
    struct sockaddr_un sa;
    char dir[PATHS_MAX];
    int rc = socket_addr(&sa, path);
    if (rc < 0)
        return rc;
    snprintf(dir, sizeof(dir), "%s", path);
    char *slash = strrchr(dir, '/');
    if (slash != NULL && slash != dir) {
        *slash = '\0';
        if ((rc = paths_make_dir(dir)) < 0)
            return rc;
    }
    if ((rc = remove_stale(path, &sa)) < 0)
        return rc;
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_sys();
    mode_t old = umask(0177);
    rc = bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 || listen(fd, 16) < 0 ? err_sys() : 0;
    umask(old);
    if (rc < 0) {
        close(fd);
        return rc;
    }
    ctl->listen_fd = fd;
    snprintf(ctl->path, sizeof(ctl->path), "%s", path);
    ctl->listen_ev =
        event_new(drive_loop_base(ctl->loop), fd, EV_READ | EV_PERSIST, on_connect, ctl);
    return ctl->listen_ev == NULL || event_add(ctl->listen_ev, NULL) < 0 ? ERR_NOMEM : 0;
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
    if (ctl->listen_ev != NULL)
        event_free(ctl->listen_ev);
    if (ctl->listen_fd >= 0) {
        unlink(ctl->path);
        close(ctl->listen_fd);
    }
    free(ctl);
}

size_t control_conns(const struct control *ctl)
{
    return ctl->n_conns;
}
