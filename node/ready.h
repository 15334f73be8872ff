/*
 * ready - the line that a serving command prints with --ready, as docs and scripts know it of `kadmsg node`.
 */
#pragma once

#include "base/crypto.h"

/* {"event": "ready", "public_key", "node_id", "relay": null, "http": null, "control": null, "port"} on stdout. */
void ready_print(const struct pubkey *pk, uint16_t port);
