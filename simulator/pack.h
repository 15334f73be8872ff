/*
 * pack - events with their messages as bytes, for shards in other processes.
 *
 * The format is that of the memory of this build: both ends are the same program on machines of one
 * kind, started together. Reading trusts the bytes.
 *
 *     pack_event(&bytes, to_shard, &ev);           // takes over what ev.data refers to
 *     while (pack_read(&p, end, &to_shard, &ev))   // ev.data is the receiver's
 *         …
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "simulator/queue.h"

struct pack_bytes {
    uint8_t *v;
    size_t n, cap;
};

void pack_event(struct pack_bytes *b, uint32_t shard, const struct sim_event *ev);
bool pack_read(const uint8_t **p, const uint8_t *end, uint32_t *shard, struct sim_event *ev);
/* Makes room for n more bytes. */
void pack_room(struct pack_bytes *b, size_t n);
