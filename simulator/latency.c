/*
 * A pair of nodes has one latency for the whole run; jitter is the messages' own (wire.c). Everything
 * is at least the floor, which is the window of the shards.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "simulator/fixed.h"
#include "simulator/world.h"

#define QUANTILES 4096u
#define MAX_ROWS  20000u
#define MAX_US    60000000u /* a minute */

static uint64_t at_least(uint64_t v, uint64_t floor)
{
    return v > floor ? v : floor;
}

/* median * e^(sigma * z) at the middle of each of QUANTILES steps. */
static int init_lognormal(struct sim *s)
{
    s->lat_table = calloc(QUANTILES, sizeof *s->lat_table);
    if (s->lat_table == NULL)
        return ERR_NOMEM;
    for (uint64_t i = 0; i < QUANTILES; i++) {
        int64_t z = fixed_normal((2 * i + 1) << 51);                         /* Q16 */
        int64_t ln = z * (int64_t)s->cfg.net.sigma_milli / 1000;             /* Q16 */
        int64_t log2 = ln * (INT64_C(1) << 32) / (int64_t)(FIXED_LN2 >> 16); /* Q32 */
        uint64_t ns = fixed_mul(s->cfg.net.median_ns, fixed_exp2(log2));
        s->lat_table[i] = at_least(ns, s->cfg.net.floor_ns);
    }
    return 0;
}

/* ---- matrix file: a number for each pair, rows of one length, white space between ---- */

struct cells {
    uint32_t *v;
    size_t n, cap;
};

static int add_cell(struct cells *c, uint32_t us)
{
    if (c->n == c->cap) {
        size_t cap = c->cap > 0 ? 2 * c->cap : 4096;
        uint32_t *v = realloc(c->v, cap * sizeof *v);
        if (v == NULL)
            return ERR_NOMEM;
        c->v = v;
        c->cap = cap;
    }
    c->v[c->n++] = us;
    return 0;
}

/* digits[.digits] of a round trip as us of one way; negative and other texts are "not measured". */
static uint32_t cell_us(const char *word, uint64_t unit_us)
{
    uint64_t us = 0, scale = unit_us;

    if (!isdigit((unsigned char)*word))
        return UINT32_MAX;
    for (; isdigit((unsigned char)*word); word++)
        us = us < MAX_US ? us * 10 + (uint64_t)(*word - '0') : us;
    us *= unit_us;
    if (*word == '.') {
        for (word++; isdigit((unsigned char)*word) && scale > 1; word++) {
            scale /= 10;
            us += (uint64_t)(*word - '0') * scale;
        }
    }
    us /= 2;
    return us < MAX_US ? (uint32_t)us : MAX_US;
}

static int read_cells(struct cells *c, FILE *f, uint64_t unit_us)
{
    char word[64];
    int rc = 0;

    while (rc == 0 && fscanf(f, "%63s", word) == 1)
        rc = add_cell(c, cell_us(word, unit_us));
    return rc;
}

/* 0 is how these files write "none": a machine to itself, or a pair that was not measured. */
static bool is_gap(const struct cells *c, size_t rows, size_t i)
{
    return c->v[i] == UINT32_MAX || (c->v[i] == 0 && i / rows != i % rows);
}

/* Pairs that were not measured get the mean of the others. */
static void fill_gaps(struct cells *c, size_t rows)
{
    uint64_t sum = 0, n = 0;

    for (size_t i = 0; i < c->n; i++) {
        if (!is_gap(c, rows, i) && i / rows != i % rows) {
            sum += c->v[i];
            n++;
        }
    }
    for (size_t i = 0; i < c->n; i++) {
        if (is_gap(c, rows, i))
            c->v[i] = (uint32_t)(sum / (n > 0 ? n : 1));
    }
}

static int init_matrix(struct sim *s, char *why, size_t why_cap)
{
    FILE *f = fopen(s->cfg.net.matrix, "r");
    struct cells c = {0};
    uint32_t rows = 0;

    if (f == NULL) {
        int rc = err_sys();
        snprintf(why, why_cap, "%s: %s", s->cfg.net.matrix, err_str(rc));
        return rc;
    }
    int rc =
        read_cells(&c, f, s->cfg.net.matrix_unit == SIM_UNIT_S ? SIM_MILLION : SIM_MILLION / 1000);
    (void)fclose(f);
    while (rows < MAX_ROWS && (size_t)rows * rows < c.n)
        rows++;
    if (rc == 0 && (rows < 2 || (size_t)rows * rows != c.n)) {
        snprintf(why, why_cap, "%s: %zu numbers are no square matrix", s->cfg.net.matrix, c.n);
        rc = ERR_FORMAT;
    }
    uint32_t all = s->cfg.nodes + s->cfg.relays.count + SIM_REC__COUNT;
    s->rows = calloc(all, sizeof *s->rows);
    if (rc == 0 && s->rows == NULL)
        rc = ERR_NOMEM;
    if (rc != 0) {
        free(c.v);
        return rc;
    }
    fill_gaps(&c, rows);
    s->matrix = c.v;
    s->n_rows = rows;
    for (uint32_t i = 0; i < all; i++)
        s->rows[i] = (uint32_t)rng_below(node_trait(s, i, TRAIT_ROW), rows);
    return 0;
}

int latency_init(struct sim *s, char *why, size_t why_cap)
{
    switch (s->cfg.net.model) {
    case SIM_LAT_CONSTANT:
        return 0;
    case SIM_LAT_LOGNORMAL:
        return init_lognormal(s);
    case SIM_LAT_REGIONS:
        if (s->cfg.net.n_regions > 0)
            return 0;
        snprintf(why, why_cap, "net.latency is regions, but there is no table \"regions\"");
        return ERR_USAGE;
    case SIM_LAT_MATRIX:
        return init_matrix(s, why, why_cap);
    }
    return ERR_USAGE;
}

static uint64_t between_regions(const struct sim *s, uint32_t a, uint32_t b)
{
    uint64_t n = s->cfg.net.n_regions;

    return s->cfg.net.region_ns[rng_below(node_trait(s, a, TRAIT_REGION), n)]
                               [rng_below(node_trait(s, b, TRAIT_REGION), n)];
}

uint64_t latency_of(const struct sim *s, uint32_t a, uint32_t b)
{
    uint64_t ns = s->cfg.net.median_ns;

    switch (s->cfg.net.model) {
    case SIM_LAT_CONSTANT:
        break;
    case SIM_LAT_LOGNORMAL:
        ns = s->lat_table[rng_mix(s->cfg.seed,
                                  a < b ? (uint64_t)a << 32 | b : (uint64_t)b << 32 | a) %
                          QUANTILES];
        break;
    case SIM_LAT_REGIONS:
        ns = between_regions(s, a, b);
        break;
    case SIM_LAT_MATRIX:
        ns = s->matrix[(size_t)s->rows[a] * s->n_rows + s->rows[b]] * NS_PER_US;
        break;
    }
    return at_least(ns, s->cfg.net.floor_ns);
}
