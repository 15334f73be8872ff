#include "tests/unit/kademlia/host_fixture.h"

struct host_world hw;

int hw_setup(void **state)
{
    (void)state;
    host_world_init(&hw);
    world_relay_start(&hw.w, 0);
    return 0;
}

int hw_teardown(void **state)
{
    (void)state;
    host_world_free(&hw);
    return 0;
}

const struct pubkey *hw_key(int i)
{
    return &hw.w.client[i].key.pk;
}

struct host_stat hw_stat(int i)
{
    struct host_stat st;
    host_stat(hw.node[i].h, &st);
    return st;
}

void hw_two_nodes(void)
{
    hw_start(&hw, 0, NULL, NULL);
    world_up(&hw.w, 0, 1);
    hw_start(&hw, 1, hw_key(0), NULL);
    hw_peers(&hw, 1, 1);
    hw_peers(&hw, 0, 1);
    world_run(&hw.w, NS_PER_S); /* both may have dialled */
}
