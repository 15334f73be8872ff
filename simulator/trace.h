/*
 * trace - what chosen nodes are given, event by event, as lines of text.
 *
 * A shard notes the events of its traced nodes while a window runs (trace_note()); between windows the first
 * shard gives those of all shards to cfg.traced in the order (time, source, sequence), which is the same
 * for any number of threads. Of processes there can be only one. Events that a node is given: messages, its
 * timers, comings and goings, what its user does. Not: timers that were set again before they were due.
 *
 * A line says what came, and a hash of all that was in it, so two runs that give the same lines gave these
 * nodes the same. Limits: TRACE_LINE_MAX bytes a line; memory for the events of one window.
 *
 *     rc = trace_nodes(&cfg, "5,17-20", why, sizeof why);
 *     cfg.traced = print;      // trace_line(text, event)
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "simulator/sim.h"

#define TRACE_LINE_MAX 320

/* Numbers and ranges of nodes, or "all", into cfg->trace. ERR_USAGE with the reason. */
int trace_nodes(struct sim_cfg *cfg, const char *text, char *why, size_t why_cap);

/* The line of an event: one JSON object, without a line end. Returns its length. */
size_t trace_line(char out[TRACE_LINE_MAX], const struct sim_traced *ev);
