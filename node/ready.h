/*
 * ready - the line that a serving command prints with --ready, as docs and scripts know it of `kadmsg node`.
 */
#pragma once

#include <jansson.h>

#include "base/crypto.h"

/* {"event": "ready", "public_key", "node_id", "relay": null, "http": null, "control": null}: a new reference. */
json_t *ready_json(const struct pubkey *pk);
/* The same with "port", on stdout. */
void ready_print(const struct pubkey *pk, uint16_t port);
