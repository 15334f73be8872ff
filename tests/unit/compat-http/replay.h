/*
 * replay - compares an answer with a recorded one: status, body, headers that matter, and what is in Redis afterwards.
 */
#pragma once

#include "tests/unit/compat-http/service_rig.h"

/* v: a transcript of the vectors. as_set: the body is a list in any order. dumps: compare redis_after too, where there is something in it. Fails the test. */
void replay_check(const json_t *v, const struct answer *a, bool as_set, bool dumps);
