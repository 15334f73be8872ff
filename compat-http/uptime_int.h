/*
 * uptime_int - what the parts of uptime see of each other: uptime.c (notes), uptime_list.c (questions). Private to them.
 */
#pragma once

#include "base/list.h"
#include "base/map.h"
#include "compat-http/uptime.h"

#define UPTIME_DAY 11 /* YYYY-MM-DD and a NUL */
#define UPTIME_KEY 192

struct uptime_question;

struct uptime_kept { /* an answer about all keys */
    char *text;
    size_t n;
    uint64_t until_ns;
    struct uptime_question *under_way;
};

struct uptime {
    struct uptime_cfg cfg;
    /* notes */
    struct map notes;
    char day[UPTIME_DAY]; /* of what is in notes */
    unsigned slot;
    struct loop_timer gather;
    struct uptime_flush *flush; /* is being written; NULL = nothing */
    struct list waiting;        /* questions that wait for it */
    /* questions */
    struct list questions;
    struct uptime_kept kept[UPTIME__VERSIONS];
    struct loop_timer forget;
    struct uptime_stat stat;
};

void uptime_day(char out[UPTIME_DAY], int64_t wall_ns, int days_ago);
/* "PREFIX:uptime:HEX:DAY" and what follows it; text points into the result. */
struct kv_str uptime_key(const struct uptime *u, char out[UPTIME_KEY], const char *hex,
                         const char *day, const char *tail);
struct kv_str uptime_online_key(const struct uptime *u, char out[UPTIME_KEY], const char *day);

/* Write what was gathered; uptime_flushed() follows. False: there is nothing to write, or to wait for. */
bool uptime_flush(struct uptime *u);
void uptime_flushed(struct uptime *u);

void uptime_questions_init(struct uptime *u);
void uptime_questions_free(struct uptime *u);
