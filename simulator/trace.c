#include "simulator/trace.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/cursor.h"
#include "base/err.h"
#include "simulator/world.h"

/* ---- which nodes ---- */

/* One number or range; false: it is none. */
static bool read_range(const char **p, struct sim_range *r)
{
    char *end;

    if (**p < '0' || **p > '9')
        return false;
    r->first = r->last = strtoull(*p, &end, 10);
    if (*end == '-') {
        if (end[1] < '0' || end[1] > '9')
            return false;
        r->last = strtoull(end + 1, &end, 10);
    }
    *p = end;
    return r->first <= r->last;
}

int trace_nodes(struct sim_cfg *cfg, const char *text, char *why, size_t why_cap)
{
    const char *p = text;

    cfg->n_trace = 0;
    if (strcmp(text, "all") == 0) {
        cfg->trace[cfg->n_trace++] = (struct sim_range){0, cfg->nodes - 1};
        return 0;
    }
    for (;; p++) {
        struct sim_range r;
        if (cfg->n_trace == SIM_RANGES_MAX || !read_range(&p, &r) || (*p != ',' && *p != '\0')) {
            snprintf(why, why_cap,
                     "\"%.100s\": at most %u numbers or ranges of nodes such as 5,17-20", text,
                     SIM_RANGES_MAX);
            return ERR_USAGE;
        }
        if (r.last >= cfg->nodes) {
            snprintf(why, why_cap, "node %" PRIu64 ": the scenario has nodes 0 to %" PRIu32, r.last,
                     cfg->nodes - 1);
            return ERR_USAGE;
        }
        cfg->trace[cfg->n_trace++] = r;
        if (*p == '\0')
            return 0;
    }
}

bool trace_has(const struct sim_cfg *cfg, uint32_t node)
{
    for (size_t i = 0; i < cfg->n_trace; i++) {
        if (node >= cfg->trace[i].first && node <= cfg->trace[i].last)
            return true;
    }
    return false;
}

/* ---- noting ---- */

static uint64_t hash_message(const struct kad_msg *m)
{
    uint64_t h = rng_mix(m->n_closest, m->n_items);

    h = rng_mix(h ^ get_be64(m->target.b), m->stored | (uint64_t)m->native << 8);
    for (size_t i = 0; i < m->n_closest; i++)
        h = rng_mix(h, get_be64(m->closest[i].b + 1));
    for (size_t i = 0; i < m->n_targets; i++)
        h = rng_mix(h, get_be64(m->targets[i].b));
    for (size_t i = 0; i < m->n_items; i++) {
        const struct item_ref *item = m->items[i].item;
        h = rng_mix(h, (uint64_t)(int64_t)m->items[i].result);
        if (item != NULL)
            h = rng_mix(h ^ item->item.seq, get_be64(item->item.sig.b));
    }
    return rng_mix(h, m->n_ranges << 32 | m->n_answers);
}

void trace_note(struct sim_shard *sh, const struct sim_event *ev)
{
    struct trace_box *b = &sh->traced[sh->trace_box];

    if (b->n == b->cap) {
        b->cap = b->cap > 0 ? 2 * b->cap : 64;
        b->v = sim_must(realloc(b->v, b->cap * sizeof *b->v));
    }
    struct sim_traced *t = &b->v[b->n++];
    *t = (struct sim_traced){.at_ns = ev->at_ns - SIM_EPOCH_NS,
                             .node = ev->dst,
                             .src = ev->src,
                             .seq = ev->seq,
                             .type = ev->type,
                             .aux = ev->aux,
                             .state = sh->sim->nodes[ev->dst].digest};
    if (ev->type != EV_MSG)
        return;
    const struct sim_msg *m = (const struct sim_msg *)(uintptr_t)ev->data;
    t->kind = m->kind;
    t->method = (uint8_t)m->m.method;
    t->why = m->why;
    t->call = m->call;
    t->contacts = (uint32_t)m->m.n_closest;
    t->items = (uint32_t)m->m.n_items;
    t->content = hash_message(&m->m);
}

/* ---- giving ---- */

static int in_order(const void *a, const void *b)
{
    const struct sim_traced *x = a, *y = b;

    if (x->at_ns != y->at_ns)
        return x->at_ns < y->at_ns ? -1 : 1;
    if (x->src != y->src)
        return x->src < y->src ? -1 : 1;
    return x->seq < y->seq ? -1 : x->seq > y->seq;
}

void trace_give(struct sim *s, unsigned box)
{
    size_t n = 0;

    for (unsigned i = 0; i < s->locals; i++)
        n += s->shard[i].traced[box].n;
    if (n == 0)
        return;
    struct arena *before = arena_use(NULL);
    struct sim_traced *v = sim_must(calloc(n, sizeof *v));
    n = 0;
    for (unsigned i = 0; i < s->locals; i++) {
        struct trace_box *b = &s->shard[i].traced[box];
        if (b->n > 0)
            memcpy(v + n, b->v, b->n * sizeof *v);
        n += b->n;
        b->n = 0;
    }
    qsort(v, n, sizeof *v, in_order);
    for (size_t i = 0; s->cfg.traced != NULL && i < n; i++)
        s->cfg.traced(s->cfg.traced_arg, &v[i]);
    free(v);
    (void)arena_use(before);
}

/* ---- lines ---- */

static const char *name_of(const char *const *names, size_t n, unsigned i)
{
    return i < n && names[i] != NULL ? names[i] : "?";
}

#define NAME_OF(names, i) name_of(names, sizeof(names) / sizeof((names)[0]), i)

size_t trace_line(char out[TRACE_LINE_MAX], const struct sim_traced *ev)
{
    static const char *const types[] = {
        [EV_TIMER] = "timer", [EV_MSG] = "message", [EV_JOIN] = "join", [EV_CHURN] = "churn",
        [EV_KILL] = "kill",   [EV_PUT] = "put",     [EV_GET] = "get",   [EV_LEAVE] = "leave",
        [EV_FLASH] = "flash", [EV_FLOOD] = "flood", [EV_TASK] = "task"};
    static const char *const methods[] = {
        [KAD_PING] = "ping",           [KAD_FIND_NODE] = "find_node", [KAD_GET_VALUE] = "get_value",
        [KAD_PUT_VALUE] = "put_value", [KAD_GET_ITEMS] = "get_items", [KAD_PUT_BATCH] = "put_batch",
        [KAD_GET_BATCH] = "get_batch", [KAD_WATCH] = "watch",         [KAD_CHANGED] = "changed",
        [KAD_RECONCILE] = "reconcile"};
    static const char *const kinds[] = {"request", "answer", "failure"};
    int n;

    if (ev->type != EV_MSG)
        n = snprintf(out, TRACE_LINE_MAX,
                     "{\"ns\":%" PRIu64 ",\"node\":%" PRIu32 ",\"event\":\"%s\",\"seq\":%" PRIu32
                     ",\"aux\":%" PRIu32 ",\"state\":\"%016" PRIx64 "\"}",
                     ev->at_ns, ev->node, NAME_OF(types, ev->type), ev->seq, ev->aux, ev->state);
    else
        n = snprintf(out, TRACE_LINE_MAX,
                     "{\"ns\":%" PRIu64 ",\"node\":%" PRIu32 ",\"event\":\"%s\",\"method\":\"%s\""
                     ",\"from\":%" PRIu32 ",\"seq\":%" PRIu32 ",\"call\":%" PRIu32 ",\"why\":%u"
                     ",\"contacts\":%" PRIu32 ",\"items\":%" PRIu32 ",\"content\":\"%016" PRIx64
                     "\",\"state\":\"%016" PRIx64 "\"}",
                     ev->at_ns, ev->node, NAME_OF(kinds, ev->kind), NAME_OF(methods, ev->method),
                     ev->src, ev->seq, ev->call, ev->why, ev->contacts, ev->items, ev->content,
                     ev->state);
    return (size_t)n;
}
