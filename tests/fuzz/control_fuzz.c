/* Packets of any bytes, one a line, to the control connection of a node without network: whatever
 * they ask for, nothing of it is left when the connection has ended. */
#include <assert.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "node/keyfile.h"
#include "node/node_int.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static struct node *node;

static char dir[256]; /* for the sockets of "forward" */

static void leave(void)
{
    char run[300];
    node_free(node);
    snprintf(run, sizeof run, "%s/kadmsg", dir);
    (void)rmdir(run);
    (void)rmdir(dir);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    struct node_cfg cfg = {.full = true, .pk_threads = 1, .publish = true, .parts = node_parts};
    char why[NODE_WHY];
    (void)argc;
    (void)argv;
    if (crypto_init() != 0 || log_set_levels("error", why, sizeof why) != 0)
        abort();
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/control-fuzz-XXXXXX", tmp != NULL ? tmp : "/tmp");
    if (mkdtemp(dir) == NULL || setenv("XDG_RUNTIME_DIR", dir, 1) < 0)
        abort();
    keyfile_fresh(&cfg.sk, &cfg.pk);
    if (node_new(&node, &cfg, why) != 0)
        abort();
    atexit(leave);
    return 0;
}

static void turn(int times)
{
    while (times-- > 0)
        event_base_loop(drive_loop_base(node->drive), EVLOOP_NONBLOCK);
}

/* Takes what comes, descriptors too. */
static void drain(int fd)
{
    static char text[CONTROL_PACKET];
    union {
        char buf[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } u;
    for (;;) {
        struct iovec iov = {text, sizeof text};
        struct msghdr msg = {
            .msg_iov = &iov, .msg_iovlen = 1, .msg_control = u.buf, .msg_controllen = sizeof u.buf};
        if (recvmsg(fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) <= 0)
            return;
        struct cmsghdr *cm = CMSG_FIRSTHDR(&msg);
        int got;
        if (cm != NULL) {
            memcpy(&got, CMSG_DATA(cm), sizeof got);
            close(got);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct control_stat st;
    int fds[2], room = (int)CONTROL_PACKET * 2;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0 ||
        setsockopt(fds[1], SOL_SOCKET, SO_SNDBUF, &room, sizeof room) < 0)
        abort();
    int rc = node_control_adopt(node, fds[0]);
    assert(rc == 0);
    while (size > 0) {
        const uint8_t *end = memchr(data, '\n', size);
        size_t n = end != NULL ? (size_t)(end - data) : size;
        if (n > 0)
            (void)send(fds[1], data, n, MSG_DONTWAIT | MSG_NOSIGNAL);
        turn(2);
        drain(fds[1]);
        data += n;
        size -= n;
        if (size > 0) {
            data++;
            size--;
        }
    }
    close(fds[1]);
    turn(4);
    control_stat(node->control, &st);
    assert(st.conns == 0 && st.requests == 0);
    assert(list_empty(&node->waits));
    return 0;
}
