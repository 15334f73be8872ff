#include "simulator/users.h"

int users_init(struct sim *s)
{
    int rc = watches_init(s);

    if (rc == 0)
        rc = replay_init(s);
    if (rc == 0)
        rc = records_init(s);
    return rc == 0 ? services_init(s) : rc;
}

void users_free(struct sim *s)
{
    watches_free(s);
    replay_free(s);
    records_free(s);
    services_free(s);
}

void users_schedule(struct sim_shard *sh, uint32_t node)
{
    watches_schedule(sh, node);
    replay_schedule(sh, node);
    records_schedule(sh, node);
}

void users_task(struct sim_shard *sh, uint32_t node, uint32_t task)
{
    enum sim_record kind = (enum sim_record)(task >> USER_KIND_SHIFT);

    switch ((enum user_task)(task & ((1u << USER_KIND_SHIFT) - 1))) {
    case TASK_WATCH:
        watches_begin(sh, node);
        break;
    case TASK_AUDIT:
        watches_audit(sh, node);
        break;
    case TASK_REPLAY:
        replay_shoot(sh, node);
        break;
    case TASK_BEAT:
        records_beat(sh, node, kind);
        break;
    case TASK_CHANGE:
        records_change(sh, node, kind);
        break;
    case TASK_READ:
        records_read(sh, node, kind);
        break;
    }
}
