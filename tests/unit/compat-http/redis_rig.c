#include "tests/unit/compat-http/redis_rig.h"

#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/vectors.h"

struct redis_rig redis_rig;

static int free_port(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(at);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &len), 0);
    close(fd);
    return ntohs(at.sin_port);
}

void redis_start(void)
{
    char port[8];
    redis_rig.port = redis_rig.port != 0 ? redis_rig.port : free_port();
    snprintf(port, sizeof(port), "%d", redis_rig.port);
    redis_rig.pid = fork();
    assert_true(redis_rig.pid >= 0);
    if (redis_rig.pid == 0) {
        if (freopen("/dev/null", "w", stdout) == NULL)
            _exit(1);
        execlp("redis-server", "redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "",
               "--appendonly", "no", (char *)NULL);
        _exit(127);
    }
    for (int i = 0; i < 300; i++) {
        redis_rig.eyes = redisConnect("127.0.0.1", redis_rig.port);
        if (redis_rig.eyes != NULL && redis_rig.eyes->err == 0)
            return;
        redisFree(redis_rig.eyes);
        redis_rig.eyes = NULL;
        usleep(100000);
    }
    fail_msg("redis-server does not start");
}

void redis_stop(void)
{
    if (redis_rig.eyes != NULL)
        redisFree(redis_rig.eyes);
    redis_rig.eyes = NULL;
    if (redis_rig.pid > 0) {
        kill(redis_rig.pid, SIGKILL);
        waitpid(redis_rig.pid, NULL, 0);
    }
    redis_rig.pid = 0;
}
