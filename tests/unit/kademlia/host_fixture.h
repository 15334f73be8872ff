/*
 * host_fixture - the host_world of a program of tests: one, made and freed around each test.
 *
 *     cmocka_unit_test_setup_teardown(test_it, hw_setup, hw_teardown)
 */
#pragma once

#include "tests/unit/kademlia/host_world.h"

/* With relay 0 running. */
extern struct host_world hw;
int hw_setup(void **state);
int hw_teardown(void **state);
const struct pubkey *hw_key(int i);
struct host_stat hw_stat(int i);
/* Nodes 0 and 1 know each other. */
void hw_two_nodes(void);
