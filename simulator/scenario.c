#include "simulator/scenario.h"

#include <stdarg.h>
#include <string.h>
#include <yaml.h>

#include "base/err.h"
#include "base/loop.h"

enum kind { TIME, MS, COUNT, BIG, MILLI, PPM, TEXT, CHOICE, YES };

struct setting {
    const char *key; /* section.name */
    enum kind kind;
    size_t offset, size; /* size: of a text */
    uint64_t min, max;
    const char *choices; /* a|b|c in the order of the enum */
    const char *help;
};

#define AT(member) offsetof(struct sim_cfg, member)
#define DAY        (86400 * NS_PER_S)
#define SHARE      0, SIM_MILLION
#define ANY_TIME   0, 3650 * DAY

static const struct setting settings[] = {
    {"name", TEXT, AT(name), 64, 0, 0, NULL, "short name of the scenario"},
    {"seed", BIG, AT(seed), 0, 0, UINT64_MAX, NULL, "of all random numbers"},
    {"nodes", COUNT, AT(nodes), 0, 1, SIM_NODES_MAX, NULL, "virtual nodes"},
    {"duration", TIME, AT(duration_ns), 0, NS_PER_MS, 3650 * DAY, NULL, "virtual time of the run"},
    {"threads", COUNT, AT(threads), 0, 1, SIM_THREADS_MAX, NULL, "shards, one thread each"},
    {"codec", CHOICE, AT(codec), 0, 0, 0, "memory|json|native",
     "how messages are handed over: as they are, or through a codec"},
    {"native", PPM, AT(native_ppm), 0, SHARE, NULL,
     "nodes that speak the native dialect to each other"},
    {"signatures", CHOICE, AT(signatures), 0, 0, 0, "model|real", "stand-ins, or real ones"},
    {"sample", COUNT, AT(sample), 0, 0, UINT32_MAX, NULL,
     "of so many stand-ins one is checked by a real signature; 0 = none"},
    {"skew", TIME, AT(skew_ns), 0, 0, DAY, NULL, "wall clocks are off by up to this"},
    {"join.by", CHOICE, AT(join.by), 0, 0, 0, "protocol|oracle", "how routing tables fill"},
    {"join.over", TIME, AT(join.over_ns), 0, ANY_TIME, NULL, "nodes come during this time"},
    {"join.bootstrap", COUNT, AT(join.bootstrap), 0, 1, 1000, NULL, "nodes that everybody may ask"},
    {"join.keys", COUNT, AT(join.keys), 0, 1, 20, NULL, "bootstrap keys that a node knows"},
    {"join.waves", COUNT, AT(join.waves), 0, 0, 100000, NULL,
     "nodes come in so many waves; 0: evenly"},
    {"net.latency", CHOICE, AT(net.model), 0, 0, 0, "constant|lognormal|regions|matrix",
     "one-way latency between two nodes"},
    {"net.floor", TIME, AT(net.floor_ns), 0, NS_PER_MS / 10, NS_PER_S, NULL,
     "shortest latency, and the window"},
    {"net.median", TIME, AT(net.median_ns), 0, 0, 60 * NS_PER_S, NULL, "median one-way latency"},
    {"net.sigma", MILLI, AT(net.sigma_milli), 0, 0, 3000, NULL, "lognormal: of ln(latency)"},
    {"net.jitter", PPM, AT(net.jitter_ppm), 0, SHARE, NULL, "added to each message, at most"},
    {"net.loss", PPM, AT(net.loss_ppm), 0, SHARE, NULL, "messages that get lost"},
    {"net.matrix", TEXT, AT(net.matrix), 256, 0, 0, NULL, "file of round trips"},
    {"net.matrix-unit", CHOICE, AT(net.matrix_unit), 0, 0, 0, "ms|s", "of the numbers in it"},
    {"relays.count", COUNT, AT(relays.count), 0, 0, 100000, NULL, "0: messages go directly"},
    {"relays.per-node", COUNT, AT(relays.per_node), 0, 1, 2, NULL, "relays of a node"},
    {"relays.bandwidth", BIG, AT(relays.bytes_per_s), 0, 1000, UINT64_C(1) << 40, NULL,
     "bytes a second through a relay"},
    {"relays.message-cpu", TIME, AT(relays.message_ns), 0, 0, NS_PER_S, NULL, "of a relay"},
    {"relays.handshake-cpu", TIME, AT(relays.handshake_ns), 0, 0, NS_PER_S, NULL,
     "of a relay for a new stream"},
    {"relays.queue", TIME, AT(relays.queue_ns), 0, 0, 600 * NS_PER_S, NULL, "longer ones drop"},
    {"relays.pooled", YES, AT(relays.pooled), 0, 0, 0, NULL,
     "streams stay open between calls; else one for each call"},
    {"puts.share", PPM, AT(puts.share_ppm), 0, SHARE, NULL, "nodes that publish"},
    {"puts.every", TIME, AT(puts.every_ns), 0, ANY_TIME, NULL, "mean time between two; 0 = none"},
    {"puts.start", TIME, AT(puts.start_ns), 0, ANY_TIME, NULL, "first ones"},
    {"puts.bytes", COUNT, AT(puts.bytes), 0, 16, 65536, NULL, "of a value"},
    {"gets.every", TIME, AT(gets.every_ns), 0, ANY_TIME, NULL, "mean time between two; 0 = none"},
    {"gets.start", TIME, AT(gets.start_ns), 0, ANY_TIME, NULL, "first ones"},
    {"gets.zipf", MILLI, AT(gets.zipf_milli), 0, 0, 4000, NULL, "exponent of popularity; 0 = even"},
    {"gets.network", YES, AT(gets.network), 0, 0, 0, NULL, "never from the local copy"},
    {"gets.first", YES, AT(gets.first), 0, 0, 0, NULL, "end with the first item"},
    {"records.start", TIME, AT(records_start_ns), 0, ANY_TIME, NULL,
     "first entries, lists and addresses (the next sections)"},
    {"entries.share", PPM, AT(record[SIM_REC_ENTRY].share_ppm), 0, SHARE, NULL,
     "nodes that publish discovery entries"},
    {"entries.every", TIME, AT(record[SIM_REC_ENTRY].every_ns), 0, ANY_TIME, NULL,
     "published again; 0 = never"},
    {"entries.change", TIME, AT(record[SIM_REC_ENTRY].change_ns), 0, ANY_TIME, NULL,
     "mean time between two changes"},
    {"entries.read", TIME, AT(record[SIM_REC_ENTRY].read_ns), 0, ANY_TIME, NULL,
     "mean time between two that a node reads"},
    {"transports.share", PPM, AT(record[SIM_REC_TP].share_ppm), 0, SHARE, NULL,
     "nodes that publish lists of transports"},
    {"transports.count", COUNT, AT(record[SIM_REC_TP].count), 0, 1, 2000, NULL, "of a list"},
    {"transports.every", TIME, AT(record[SIM_REC_TP].every_ns), 0, ANY_TIME, NULL,
     "published again; 0 = never"},
    {"transports.change", TIME, AT(record[SIM_REC_TP].change_ns), 0, ANY_TIME, NULL,
     "mean time between two changes"},
    {"transports.read", TIME, AT(record[SIM_REC_TP].read_ns), 0, ANY_TIME, NULL,
     "mean time between two that a node reads"},
    {"services.share", PPM, AT(record[SIM_REC_SVC].share_ppm), 0, SHARE, NULL,
     "nodes that publish lists of services"},
    {"services.count", COUNT, AT(record[SIM_REC_SVC].count), 0, 1, 50, NULL, "of a list"},
    {"services.every", TIME, AT(record[SIM_REC_SVC].every_ns), 0, ANY_TIME, NULL,
     "published again; 0 = never"},
    {"services.change", TIME, AT(record[SIM_REC_SVC].change_ns), 0, ANY_TIME, NULL,
     "mean time between two changes"},
    {"services.read", TIME, AT(record[SIM_REC_SVC].read_ns), 0, ANY_TIME, NULL,
     "mean time between two that a node reads"},
    {"addresses.share", PPM, AT(record[SIM_REC_ADDR].share_ppm), 0, SHARE, NULL,
     "nodes that publish addresses"},
    {"addresses.every", TIME, AT(record[SIM_REC_ADDR].every_ns), 0, ANY_TIME, NULL,
     "published again; 0 = never"},
    {"addresses.change", TIME, AT(record[SIM_REC_ADDR].change_ns), 0, ANY_TIME, NULL,
     "mean time between two changes"},
    {"addresses.read", TIME, AT(record[SIM_REC_ADDR].read_ns), 0, ANY_TIME, NULL,
     "mean time between two that a node reads"},
    {"http.phase", COUNT, AT(http.phase), 0, 0, 4, NULL,
     "of the way from HTTP to the DHT, 1 to 4; 0: no HTTP services"},
    {"http.adoption", PPM, AT(http.adoption_ppm), 0, SHARE, NULL, "visors of the new kind"},
    {"http.cores", COUNT, AT(http.cores), 0, 1, SIM_CORES_MAX, NULL, "of each service"},
    {"http.get-cpu", TIME, AT(http.get_ns), 0, 0, NS_PER_S, NULL, "of a service for a GET"},
    {"http.post-cpu", TIME, AT(http.post_ns), 0, 0, NS_PER_S, NULL, "for a POST"},
    {"http.mirror-cpu", TIME, AT(http.mirror_ns), 0, 0, NS_PER_S, NULL,
     "more, for one that is mirrored into the DHT"},
    {"http.queue", TIME, AT(http.queue_ns), 0, 0, 600 * NS_PER_S, NULL,
     "who would wait longer is refused"},
    {"http.ttl", TIME, AT(http.ttl_ns), 0, NS_PER_S, DAY, NULL, "of what visors register"},
    {"http.mirror-every", TIME, AT(http.mirror_every_ns), 0, NS_PER_S, DAY, NULL,
     "what has not changed is mirrored again"},
    {"http.push-every", TIME, AT(http.push_every_ns), 0, NS_PER_S, DAY, NULL,
     "what has not changed is pushed again"},
    {"http.settle", TIME, AT(http.settle_ns), 0, 0, DAY, NULL,
     "so long after the last change the new rates are measured"},
    {"full.count", COUNT, AT(full.count), 0, 0, 10000, NULL,
     "the first nodes are full nodes, which keep everything they hear of"},
    {"full.liars", COUNT, AT(full.liars), 0, 0, 10000, NULL,
     "of these, the last ones: forge and hide items, keep nothing"},
    {"watches.share", PPM, AT(watches.share_ppm), 0, SHARE, NULL, "nodes that watch entries"},
    {"watches.each", COUNT, AT(watches.each), 0, 1, SIM_WATCHES_MAX, NULL,
     "entries that such a node watches"},
    {"watches.start", TIME, AT(watches.start_ns), 0, ANY_TIME, NULL, "first ones"},
    {"watches.audit", TIME, AT(watches.audit_ns), 0, NS_PER_S, DAY, NULL,
     "what a watcher knows is compared so often"},
    {"watches.late", TIME, AT(watches.late_ns), 0, NS_PER_MS, DAY, NULL,
     "what was acknowledged longer ago must be known then"},
    {"churn.up", TIME, AT(churn.up_ns), 0, ANY_TIME, NULL, "mean life; 0 = no churn"},
    {"churn.down", TIME, AT(churn.down_ns), 0, ANY_TIME, NULL, "mean absence; 0 = for good"},
    {"churn.start", TIME, AT(churn.start_ns), 0, ANY_TIME, NULL, "nobody leaves before"},
    {"churn.law", CHOICE, AT(churn.law), 0, 0, 0, "exponential|weibull|pareto|trace", "of lives"},
    {"churn.shape", MILLI, AT(churn.shape_milli), 0, 300, 20000, NULL,
     "of a Weibull or Pareto law"},
    {"churn.trace", TEXT, AT(churn.trace), 256, 0, 0, NULL, "file of lines SECONDS NODE up|down"},
    {"churn.keep", YES, AT(churn.keep), 0, 0, 0, NULL, "those who come back have their store"},
    {"day.swing", PPM, AT(day.swing_ppm), 0, SHARE, NULL,
     "gets and absences follow the hour; 0: not"},
    {"day.length", TIME, AT(day.length_ns), 0, NS_PER_S, DAY * 10, NULL, "of a day"},
    {"day.zones", COUNT, AT(day.zones), 0, 1, 24, NULL, "time zones of the nodes"},
    {"attackers.mute", PPM, AT(attack.mute_ppm), 0, SHARE, NULL, "nodes that never answer"},
    {"attackers.wrong", PPM, AT(attack.wrong_ppm), 0, SHARE, NULL, "nodes that forge items"},
    {"attackers.stale", PPM, AT(attack.stale_ppm), 0, SHARE, NULL,
     "nodes that keep serving the first version"},
    {"attackers.slow", PPM, AT(attack.slow_ppm), 0, SHARE, NULL, "nodes that answer late"},
    {"attackers.slow-by", TIME, AT(attack.slow_by_ns), 0, 0, DAY, NULL, "so late"},
    {"attackers.poison", PPM, AT(attack.poison_ppm), 0, SHARE, NULL,
     "nodes that name only each other"},
    {"attackers.flood", PPM, AT(attack.flood_ppm), 0, SHARE, NULL,
     "nodes that store item after item"},
    {"attackers.flood-every", TIME, AT(attack.flood_every_ns), 0, NS_PER_MS, DAY, NULL,
     "mean time between two"},
    {"attackers.replay", PPM, AT(attack.replay_ppm), 0, SHARE, NULL,
     "nodes that put old versions of others' entries again"},
    {"attackers.replay-every", TIME, AT(attack.replay_every_ns), 0, NS_PER_MS, DAY, NULL,
     "mean time between two"},
    {"attackers.eclipse", COUNT, AT(attack.eclipse), 0, 0, 1000000, NULL,
     "nodes with IDs close to the first publisher's item, which they hide"},
    {"attackers.eclipse-bits", COUNT, AT(attack.eclipse_bits), 0, 0, 256, NULL,
     "of the target that these IDs share"},
    {"attackers.eclipse-relay", YES, AT(attack.eclipse_relay), 0, 0, 0, NULL,
     "they are all behind the first relay"},
    {"kad.k", COUNT, AT(kad.k), 0, 1, 20, NULL, "bucket size and replicas"},
    {"kad.alpha", COUNT, AT(kad.alpha), 0, 1, 20, NULL, "requests in flight"},
    {"kad.rpc-timeout", MS, AT(kad.rpc_timeout_ms), 0, NS_PER_MS, DAY, NULL, "of a call"},
    {"kad.hedge", MS, AT(kad.hedge_ms), 0, NS_PER_MS, DAY, NULL, "silence that is overtaken"},
    {"kad.refresh", MS, AT(kad.refresh_ms), 0, NS_PER_S, 40 * DAY, NULL, "of quiet buckets"},
    {"kad.republish", MS, AT(kad.republish_ms), 0, NS_PER_S, 40 * DAY, NULL, "of own items"},
    {"kad.ttl", MS, AT(kad.ttl_ms), 0, NS_PER_S, 40 * DAY, NULL, "lifetime of items"},
    {"kad.cache-fresh", MS, AT(kad.cache_fresh_ms), 0, NS_PER_MS, DAY, NULL,
     "copies of look-ups are used for so long"},
    {"kad.rate", COUNT, AT(kad.rate_per_s), 0, 1, 1000000, NULL, "requests a second of a peer"},
    {"expect.success", PPM, AT(expect.success_ppm), 0, SHARE, NULL,
     "at least, gets of published items"},
    {"expect.stale", PPM, AT(expect.stale_ppm), 0, SHARE, NULL,
     "at most, values older than acknowledged"},
    {"expect.hops", MILLI, AT(expect.hops_milli), 0, 0, 100000, NULL, "mean at most; 0 = any"},
    {"expect.late", PPM, AT(expect.late_ppm), 0, SHARE, NULL,
     "at most, audits of watches that found an older value"},
    {"expect.held", PPM, AT(expect.held_ppm), 0, SHARE, NULL,
     "at least, records of users that honest full nodes hold at the end; 0 = any"},
    {"expect.http-saved", PPM, AT(expect.http_saved_ppm), 0, SHARE, NULL,
     "at least, HTTP requests, from before the first change of phase or adoption to after the "
     "last"},
    {"expect.registrations", BIG, AT(expect.registrations), 0, 0, UINT64_MAX, NULL,
     "at least, of transports, in 90 s before the first change"},
    {"expect.p99", TIME, AT(expect.p99_ns), 0, ANY_TIME, NULL, "of gets at most; 0 = any"},
};
#define N_SETTINGS (sizeof settings / sizeof settings[0])

const char *scenario_key(size_t n, const char **help)
{
    if (n >= N_SETTINGS)
        return NULL;
    *help = settings[n].help;
    return settings[n].key;
}

/* ---- values ---- */

struct unit {
    const char *name;
    uint64_t factor;
};

static const struct unit units_time[] = {{"ns", 1},
                                         {"us", NS_PER_US},
                                         {"ms", NS_PER_MS},
                                         {"s", NS_PER_S},
                                         {"min", 60 * NS_PER_S},
                                         {"h", 3600 * NS_PER_S},
                                         {"d", DAY},
                                         {NULL, 0}};
static const struct unit units_count[] = {
    {"", 1}, {"k", 1000}, {"M", 1000000}, {"G", 1000000000}, {NULL, 0}};
static const struct unit units_milli[] = {{"", 1000}, {NULL, 0}};
static const struct unit units_ppm[] = {{"%", 10000}, {"ppm", 1}, {NULL, 0}};

/* digits[.digits]unit as a whole number of units; false when it is none. A bare 0 needs no unit. */
static bool read_number(const char *text, const struct unit *units, uint64_t *out)
{
    uint64_t whole = 0, frac = 0, scale = 1;
    const char *p = text;

    for (; *p >= '0' && *p <= '9'; p++) {
        if (whole > (UINT64_MAX - 9) / 10)
            return false;
        whole = whole * 10 + (uint64_t)(*p - '0');
    }
    if (p == text)
        return false;
    if (*p == '.') {
        for (p++; *p >= '0' && *p <= '9' && scale < 1000000; p++, scale *= 10)
            frac = frac * 10 + (uint64_t)(*p - '0');
    }
    for (const struct unit *u = units; u->name != NULL; u++) {
        if (strcmp(p, u->name) != 0)
            continue;
        unsigned __int128 v = (unsigned __int128)whole * u->factor + frac * u->factor / scale;
        *out = (uint64_t)v;
        return v <= UINT64_MAX;
    }
    *out = 0;
    return *p == '\0' && whole == 0 && frac == 0;
}

static bool read_choice(const char *text, const char *choices, int *out)
{
    size_t n = strlen(text);

    for (*out = 0; choices != NULL; (*out)++) {
        const char *bar = strchr(choices, '|');
        size_t len = bar != NULL ? (size_t)(bar - choices) : strlen(choices);
        if (len == n && memcmp(choices, text, n) == 0)
            return true;
        choices = bar != NULL ? bar + 1 : NULL;
    }
    return false;
}

static const struct unit *units_of(enum kind kind, const char **what)
{
    switch (kind) {
    case TIME:
    case MS:
        *what = "a time such as 30s, 5ms or 2h";
        return units_time;
    case MILLI:
        *what = "a number such as 0.8";
        return units_milli;
    case PPM:
        *what = "a share such as 12.5% or 300ppm";
        return units_ppm;
    case COUNT:
    case BIG:
    case TEXT:
    case CHOICE:
    case YES:
        break;
    }
    *what = "a number such as 100, 20k or 3M";
    return units_count;
}

static bool set_word(struct sim_cfg *cfg, const struct setting *s, const char *text, char *why,
                     size_t cap)
{
    char *at = (char *)cfg + s->offset;
    int choice;

    if (s->kind == TEXT) {
        if (strlen(text) < s->size) {
            strcpy(at, text);
            return true;
        }
        snprintf(why, cap, "%s: longer than %zu bytes", s->key, s->size - 1);
        return false;
    }
    const char *choices = s->kind == YES ? "no|yes|false|true" : s->choices;
    if (!read_choice(text, choices, &choice)) {
        snprintf(why, cap, "%s: \"%s\" is none of %s", s->key, text, choices);
        return false;
    }
    if (s->kind == YES)
        *(bool *)at = choice % 2 == 1;
    else
        *(int *)(void *)at = choice;
    return true;
}

static bool set_number(struct sim_cfg *cfg, const struct setting *s, const char *text, char *why,
                       size_t cap)
{
    void *at = (char *)cfg + s->offset;
    const char *what;
    const struct unit *units = units_of(s->kind, &what);
    uint64_t v;

    if (!read_number(text, units, &v)) {
        snprintf(why, cap, "%s: \"%s\" is not %s", s->key, text, what);
        return false;
    }
    if (v < s->min || v > s->max) {
        snprintf(why, cap, "%s: %s is out of range", s->key, text);
        return false;
    }
    if (s->kind == TIME || s->kind == BIG)
        *(uint64_t *)at = v;
    else
        *(uint32_t *)at = (uint32_t)(s->kind == MS ? v / NS_PER_MS : v);
    return true;
}

static bool set(struct sim_cfg *cfg, const char *key, const char *text, char *why, size_t cap)
{
    for (size_t i = 0; i < N_SETTINGS; i++) {
        const struct setting *s = &settings[i];
        if (strcmp(s->key, key) != 0)
            continue;
        if (s->kind == TEXT || s->kind == CHOICE || s->kind == YES)
            return set_word(cfg, s, text, why, cap);
        return set_number(cfg, s, text, why, cap);
    }
    snprintf(why, cap, "there is no setting \"%s\"", key);
    return false;
}

int scenario_set(struct sim_cfg *cfg, const char *assignment, char *why, size_t why_cap)
{
    const char *eq = strchr(assignment, '=');
    char key[64];

    if (eq == NULL || (size_t)(eq - assignment) >= sizeof key) {
        snprintf(why, why_cap, "\"%s\" is not section.key=value", assignment);
        return ERR_USAGE;
    }
    memcpy(key, assignment, (size_t)(eq - assignment));
    key[eq - assignment] = '\0';
    return set(cfg, key, eq + 1, why, why_cap) ? 0 : ERR_USAGE;
}

/* ---- the file ---- */

struct reader {
    yaml_document_t doc;
    struct sim_cfg *cfg;
    const char *name;
    char *why;
    size_t why_cap;
};

__attribute__((format(printf, 3, 4))) static bool complain(struct reader *r, const yaml_node_t *at,
                                                           const char *fmt, ...)
{
    va_list ap;
    int n = snprintf(r->why, r->why_cap, "%s:%zu: ", r->name, at->start_mark.line + 1);

    if (n < 0 || (size_t)n >= r->why_cap)
        return false;
    va_start(ap, fmt);
    (void)vsnprintf(r->why + n, r->why_cap - (size_t)n, fmt, ap);
    va_end(ap);
    return false;
}

static const char *scalar(const yaml_node_t *n)
{
    return n != NULL && n->type == YAML_SCALAR_NODE ? (const char *)n->data.scalar.value : NULL;
}

static yaml_node_t *node(struct reader *r, int index)
{
    return yaml_document_get_node(&r->doc, index);
}

static bool apply(struct reader *r, const yaml_node_t *at, const char *section, const char *name,
                  const yaml_node_t *value)
{
    char key[64], why[200];

    snprintf(key, sizeof key, "%s%s%s", section, section[0] != '\0' ? "." : "", name);
    if (scalar(value) == NULL)
        return complain(r, at, "%s: a single value is expected", key);
    if (!set(r->cfg, key, scalar(value), why, sizeof why))
        return complain(r, at, "%s", why);
    return true;
}

/* Calls fn for each pair of a mapping; a name twice is a mistake. */
typedef bool pair_fn(struct reader *r, const yaml_node_t *key, yaml_node_t *value, void *arg);

static bool each_pair(struct reader *r, yaml_node_t *map, pair_fn *fn, void *arg)
{
    yaml_node_pair_t *p = map->data.mapping.pairs.start;

    if (map->type != YAML_MAPPING_NODE)
        return complain(r, map, "a mapping (name: value) is expected");
    for (; p < map->data.mapping.pairs.top; p++) {
        yaml_node_t *key = node(r, p->key);
        if (scalar(key) == NULL)
            return complain(r, map, "a name is expected");
        for (yaml_node_pair_t *q = map->data.mapping.pairs.start; q < p; q++) {
            if (strcmp(scalar(node(r, q->key)), scalar(key)) == 0)
                return complain(r, key, "\"%s\" stands here twice", scalar(key));
        }
        if (!fn(r, key, node(r, p->value), arg))
            return false;
    }
    return true;
}

static bool in_section(struct reader *r, const yaml_node_t *key, yaml_node_t *value, void *arg)
{
    return apply(r, key, arg, scalar(key), value);
}

static bool event_member(struct reader *r, const yaml_node_t *key, yaml_node_t *value, void *arg)
{
    struct sim_script *e = arg;
    const char *name = scalar(key), *text = scalar(value);
    uint64_t v = 0;
    int choice;
    bool ok = text != NULL;

    if (strcmp(name, "at") == 0) {
        ok = ok && read_number(text, units_time, &e->at_ns);
    } else if (strcmp(name, "for") == 0) {
        ok = ok && read_number(text, units_time, &e->for_ns);
    } else if (strcmp(name, "do") == 0) {
        ok = ok &&
             read_choice(text, "kill|partition|relay-crash|flash|phase|adopt|http-down", &choice);
        e->type = ok ? (enum sim_event_type)choice : SIM_KILL;
    } else if (strcmp(name, "share") == 0) {
        ok = ok && read_number(text, units_ppm, &v) && v <= SIM_MILLION;
        e->share_ppm = (uint32_t)v;
    } else if (strcmp(name, "relays") == 0) {
        ok = ok && read_number(text, units_count, &v) && v <= 100000;
        e->relays = (uint32_t)v;
    } else if (strcmp(name, "phase") == 0) {
        ok = ok && read_number(text, units_count, &v) && v >= 1 && v <= 4;
        e->phase = (uint32_t)v;
    } else {
        return complain(r, key, "an event has no member \"%s\"", name);
    }
    return ok || complain(r, key, "%s: \"%s\" cannot be read", name, text != NULL ? text : "");
}

static bool says_how_many(const struct sim_script *e)
{
    switch (e->type) {
    case SIM_RELAY_CRASH:
        return e->relays > 0;
    case SIM_PHASE:
        return e->phase > 0;
    case SIM_HTTP_DOWN:
        return true;
    case SIM_KILL:
    case SIM_PARTITION:
    case SIM_FLASH:
    case SIM_ADOPT:
        break;
    }
    return e->share_ppm > 0;
}

static bool read_events(struct reader *r, yaml_node_t *list)
{
    yaml_node_item_t *i = list->data.sequence.items.start;

    if (list->type != YAML_SEQUENCE_NODE)
        return complain(r, list, "events: a list is expected");
    for (; i < list->data.sequence.items.top; i++) {
        struct sim_script e = {0};
        if (r->cfg->n_script == SIM_EVENTS_MAX)
            return complain(r, node(r, *i), "more than %d events", SIM_EVENTS_MAX);
        if (!each_pair(r, node(r, *i), event_member, &e))
            return false;
        if (!says_how_many(&e))
            return complain(r, node(r, *i), "the event does not say how many");
        r->cfg->script[r->cfg->n_script++] = e;
    }
    return true;
}

static bool read_regions(struct reader *r, yaml_node_t *rows)
{
    size_t n = 0;

    if (rows->type != YAML_SEQUENCE_NODE)
        return complain(r, rows, "regions: a list of rows is expected");
    size_t all = (size_t)(rows->data.sequence.items.top - rows->data.sequence.items.start);
    if (all == 0 || all > SIM_REGIONS_MAX)
        return complain(r, rows, "regions: 1 to %d rows", SIM_REGIONS_MAX);
    for (; n < all; n++) {
        yaml_node_t *row = node(r, rows->data.sequence.items.start[n]);
        if (row->type != YAML_SEQUENCE_NODE ||
            (size_t)(row->data.sequence.items.top - row->data.sequence.items.start) != all)
            return complain(r, row, "regions: a row of %zu latencies is expected", all);
        for (size_t j = 0; j < all; j++) {
            yaml_node_t *cell = node(r, row->data.sequence.items.start[j]);
            if (scalar(cell) == NULL ||
                !read_number(scalar(cell), units_time, &r->cfg->net.region_ns[n][j]))
                return complain(r, cell, "regions: a time such as 40ms is expected");
        }
    }
    r->cfg->net.n_regions = (uint32_t)all;
    return true;
}

static bool top_level(struct reader *r, const yaml_node_t *key, yaml_node_t *value, void *arg)
{
    const char *name = scalar(key);

    (void)arg;
    if (strcmp(name, "about") == 0)
        return true; /* for readers */
    if (strcmp(name, "events") == 0)
        return read_events(r, value);
    if (strcmp(name, "regions") == 0)
        return read_regions(r, value);
    if (value->type == YAML_MAPPING_NODE)
        return each_pair(r, value, in_section, (void *)(uintptr_t)name);
    return apply(r, key, "", name, value);
}

int scenario_parse(struct sim_cfg *cfg, FILE *f, const char *name, char *why, size_t why_cap)
{
    struct reader r = {.cfg = cfg, .name = name, .why = why, .why_cap = why_cap};
    yaml_parser_t parser;
    int rc = ERR_FORMAT;

    if (!yaml_parser_initialize(&parser))
        return ERR_NOMEM;
    yaml_parser_set_input_file(&parser, f);
    if (!yaml_parser_load(&parser, &r.doc)) {
        snprintf(why, why_cap, "%s:%zu: %s", name, parser.problem_mark.line + 1,
                 parser.problem != NULL ? parser.problem : "cannot be read");
        yaml_parser_delete(&parser);
        return ERR_FORMAT;
    }
    yaml_node_t *root = yaml_document_get_root_node(&r.doc);
    if (root == NULL)
        snprintf(why, why_cap, "%s:1: the file is empty", name);
    else if (each_pair(&r, root, top_level, NULL))
        rc = 0;
    yaml_document_delete(&r.doc);
    yaml_parser_delete(&parser);
    return rc;
}

/* Files that a scenario names without a leading / stand beside it. */
static bool beside(char *name, size_t cap, const char *file)
{
    const char *slash = strrchr(file, '/');
    size_t folder = slash != NULL ? (size_t)(slash - file) + 1 : 0, n = strlen(name);

    if (n == 0 || name[0] == '/' || folder == 0)
        return true;
    if (folder + n >= cap)
        return false;
    memmove(name + folder, name, n + 1);
    memcpy(name, file, folder);
    return true;
}

int scenario_read(struct sim_cfg *cfg, const char *file, char *why, size_t why_cap)
{
    FILE *f = fopen(file, "r");

    if (f == NULL) {
        int rc = err_sys();
        snprintf(why, why_cap, "%s: %s", file, err_str(rc));
        return rc;
    }
    int rc = scenario_parse(cfg, f, file, why, why_cap);
    (void)fclose(f);
    if (rc == 0 && (!beside(cfg->net.matrix, sizeof cfg->net.matrix, file) ||
                    !beside(cfg->churn.trace, sizeof cfg->churn.trace, file))) {
        snprintf(why, why_cap, "%s: the name of a file in it is too long", file);
        rc = ERR_FORMAT;
    }
    return rc;
}
