/*
 * app_net - the network of an application (apps/net.h) by way of the control protocol: a running node's, or that of a node of its own in this process (tool.h).
 *
 *     struct app_net *net;
 *     int rc = app_net_open(&net, &opts->conn, TOOL_REACHABLE);
 *     if (rc == 0)
 *         rc = http_run(net, …);
 *     app_net_close(net);
 */
#pragma once

#include "apps/net.h"
#include "node/tool.h"

/* Like tool_open(): prints its failure on stderr and returns the exit code, 0 = fine. opts->timeout becomes net->timeout_ms. */
int app_net_open(struct app_net **out, const struct tool_opts *opts, enum tool_needs needs);
/* Requests end without an answer. Not from a callback. NULL is allowed. */
void app_net_close(struct app_net *net);
/* The connection below, for tool_is_own(). */
struct tool *app_net_tool(struct app_net *net);
