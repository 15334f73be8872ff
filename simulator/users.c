#include "simulator/users.h"

int users_init(struct sim *s)
{
    int rc = watches_init(s);

    return rc == 0 ? replay_init(s) : rc;
}

void users_free(struct sim *s)
{
    watches_free(s);
    replay_free(s);
}

void users_schedule(struct sim_shard *sh, uint32_t node)
{
    watches_schedule(sh, node);
    replay_schedule(sh, node);
}

void users_task(struct sim_shard *sh, uint32_t node, uint32_t task)
{
    switch ((enum user_task)task) {
    case TASK_WATCH:
        watches_begin(sh, node);
        break;
    case TASK_AUDIT:
        watches_audit(sh, node);
        break;
    case TASK_REPLAY:
        replay_shoot(sh, node);
        break;
    }
}
