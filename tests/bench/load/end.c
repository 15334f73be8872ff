#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <unistd.h>

#include "base/err.h"
#include "tests/bench/load/load.h"

/* Addresses 127.0.0.1 … towards a server on loopback: each has its own ports, and its own share of
 * limits per address. */
#define SOURCES      250u
#define LONG_HOLD_MS 500u

static void settled(struct end *e, bool ok)
{
    struct load *l = e->load;
    e->up = ok;
    if (ok)
        l->up++;
    else
        l->failed++;
    if (ok && l->mode->up != NULL)
        l->mode->up(e);
    if (l->up + l->failed == l->n_ends)
        l->mode->ready(l);
    else
        ends_start(l);
}

static int end_start(struct end *e);

/* Old servers hang up when they find the first bytes of the multiplexer behind the last handshake
 * message (docs/protocol/dmsg.md §3.1); a busy one may need a longer pause. */
static bool try_again(struct end *e, int err)
{
    if (e->retried || (err != ERR_EOF && err != ERR_RESET && err != -ECONNRESET))
        return false;
    e->retried = true;
    e->load->retries++;
    return end_start(e) == 0;
}

void end_settled(struct end *e)
{
    settled(e, true);
}

void end_failed(struct end *e, int err)
{
    struct load *l = e->load;
    if (!l->mode->tolerant) {
        load_fail(l, "session", err);
        return;
    }
    load_error(l, "session", err);
    settled(e, false);
}

static void on_up(struct link *link)
{
    struct end *e = link_arg(link);
    /* The server takes the last handshake message without an answer: its pong says that it did. */
    int rc = session_ping(link_session(link), e->load->loop->now_ns);
    if (rc < 0)
        load_error(e->load, "ping", rc);
    link_kick(link);
}

static void on_event(struct link *link, const struct yamux_event *ev)
{
    struct end *e = link_arg(link);
    if (ev->stream != NULL)
        flow_event(e, ev);
    else if ((ev->what & YAMUX_PONG) && !e->up)
        settled(e, true);
}

static void on_down(struct link *link, int err)
{
    struct end *e = link_arg(link);
    bool was_up = e->up;
    e->link = NULL;
    e->up = false;
    link_close(link);
    if (was_up)
        load_fail(e->load, "session lost", err);
    else if (!try_again(e, err))
        end_failed(e, err);
}

static const struct link_owner owner = {on_up, on_event, on_down};

static bool is_loopback(const struct load *l)
{
    const struct sockaddr_in *in = (const void *)&l->to;
    return in->sin_family == AF_INET && (ntohl(in->sin_addr.s_addr) >> 24) == 127;
}

/* A socket on its way to the server; the session's first bytes wait until it is there. */
static int connect_from(const struct load *l, size_t index)
{
    int one = 1, fd = socket(l->to.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_sys();
    if (is_loopback(l)) {
        struct sockaddr_in from = {.sin_family = AF_INET};
        from.sin_addr.s_addr = htonl(0x7f000001u + (uint32_t)(index % SOURCES));
        (void)setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
        if (bind(fd, (struct sockaddr *)&from, sizeof from) < 0)
            goto failed;
    }
    if (connect(fd, (const struct sockaddr *)&l->to, l->to_len) == 0 || errno == EINPROGRESS)
        return fd;
failed:;
    int rc = err_sys();
    close(fd);
    return rc;
}

static int end_start(struct end *e)
{
    struct load *l = e->load;
    size_t index = (size_t)(e - l->ends);
    bool answers = l->o.bare && index % 2 == 1; /* no server in between: one of them must be it */
    struct session_cfg cfg = {
        .env = &l->sys.env,
        .pool = l->pool,
        .initiator = !answers,
        .self = e->pk,
        .sk = &e->sk,
        .hold_ms = e->retried ? LONG_HOLD_MS : 0,
        .keepalive_ms = 30000,
        .mux = {.accept_backlog = 4096},
    };
    if (!answers)
        cfg.remote = l->o.bare ? end_partner(e)->pk : l->o.pk;
    e->started_ns = l->loop->now_ns;
    if (l->o.e2e)
        return sealed_start(e);
    int fd = connect_from(l, index);
    if (fd < 0)
        return fd;
    struct conn *conn = drive_tcp_adopt(l->tcp, fd, "server");
    e->link = conn != NULL ? link_new(l->loop, conn, &cfg, &owner, e) : NULL;
    return e->link != NULL ? 0 : ERR_NOMEM;
}

void ends_start(struct load *l)
{
    while (l->started < l->n_ends && l->started - l->up - l->failed < l->o.inflight &&
           !l->failed_hard) {
        struct end *e = &l->ends[l->started++];
        int rc = end_start(e);
        if (rc < 0)
            end_failed(e, rc);
    }
}

void end_close(struct end *e)
{
    if (e->link != NULL)
        link_close(e->link);
    e->link = NULL;
}

struct end *end_partner(struct end *e)
{
    size_t index = (size_t)(e - e->load->ends);
    return &e->load->ends[index ^ 1];
}
