#include "node/node_int.h"

const struct node_part *const node_parts[] = {&node_part_discovery, &node_part_push,
                                              &node_part_facade,    &node_part_health,
                                              &node_part_control,   NULL};
