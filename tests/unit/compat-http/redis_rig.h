/*
 * redis_rig - a redis-server of a test's own, on a free port that it keeps when it is started again.
 */
#pragma once

#include <hiredis/hiredis.h>
#include <sys/types.h>

struct redis_rig {
    pid_t pid; /* 0: does not run */
    int port;
    redisContext *eyes; /* the test's own connection */
};

extern struct redis_rig redis_rig;

void redis_start(void);
/* By SIGKILL. */
void redis_stop(void);
