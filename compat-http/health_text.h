/*
 * health_text - what every service says at /health (docs/protocol/services.md §1).
 *
 *     health_text_time(started, env_wall_ns(env));
 *     json_out_object(&o);  health_text_write(&o, NULL, started, "PK:80");  …more members…  json_out_object_end(&o);
 */
#pragma once

#include <stdint.h>

#include "base/json.h"

#define HEALTH_TIME 64

/* RFC 3339 with nanoseconds, UTC. Returns out. */
char *health_text_time(char out[HEALTH_TIME], int64_t wall_ns);
/* The members service_name (2026; NULL = none), build_info, started_at, dmsg_address (NULL = none) of an open object. */
void health_text_write(struct json_out *o, const char *name, const char *started,
                       const char *dmsg_address);
