#include "base/json_double.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FAST_MAX   83886079.0 /* above it the fast writer falls back to the other form */
#define FAST_SCALE 1000000u   /* six digits */
#define DIGITS_MAX 17         /* enough for every double */

struct decimal { /* 0.d1d2d3… × 10^point */
    char digits[DIGITS_MAX + 1];
    int n, point;
};

/* The fewest digits that read back as a (a >= 0, finite). */
static struct decimal shortest(double a)
{
    struct decimal d = {.n = 0};
    char text[DIGITS_MAX + 12];

    for (int precision = 0; precision < DIGITS_MAX; precision++) {
        snprintf(text, sizeof text, "%.*e", precision, a);
        if (strtod(text, NULL) == a)
            break;
    }
    const char *e = strchr(text, 'e');
    for (const char *p = text; p < e; p++) {
        if (*p >= '0' && *p <= '9')
            d.digits[d.n++] = *p;
    }
    while (d.n > 1 && d.digits[d.n - 1] == '0')
        d.n--;
    d.point = a > 0 ? (int)strtol(e + 1, NULL, 10) + 1 : 1;
    return d;
}

static size_t put_plain(char *out, const struct decimal *d)
{
    size_t n = 0;

    if (d->point <= 0)
        out[n++] = '0';
    for (int i = 0; i < d->point; i++)
        out[n++] = i < d->n ? d->digits[i] : '0';
    if (d->n > d->point)
        out[n++] = '.';
    for (int i = d->point; i < 0; i++)
        out[n++] = '0';
    for (int i = d->point > 0 ? d->point : 0; i < d->n; i++)
        out[n++] = d->digits[i];
    return n;
}

static size_t put_exponent(char *out, const struct decimal *d)
{
    size_t n = 0;

    out[n++] = d->digits[0];
    if (d->n > 1)
        out[n++] = '.';
    memcpy(out + n, d->digits + 1, (size_t)d->n - 1);
    n += (size_t)d->n - 1;
    /* Positive exponents have a sign and at least two digits, negative ones no leading zero. */
    int e = d->point - 1;
    return n + (size_t)snprintf(out + n, 8, e < 0 ? "e%d" : "e+%02d", e);
}

static size_t put_fast(char *out, double a)
{
    uint64_t scaled = (uint64_t)(a * FAST_SCALE + 0.5);
    unsigned fraction = (unsigned)(scaled % FAST_SCALE);
    size_t n = (size_t)snprintf(out, 12, "%u", (unsigned)(scaled / FAST_SCALE));

    if (fraction == 0)
        return n;
    n += (size_t)snprintf(out + n, 9, ".%06u", fraction);
    while (out[n - 1] == '0')
        n--;
    return n;
}

size_t json_double_text(char out[JSON_DOUBLE_MAX + 1], double v, enum json_dialect dialect)
{
    double a = fabs(v);
    size_t n = 0;

    if (!isfinite(v))
        return 0;
    bool fast = dialect == JSON_FAST && a <= FAST_MAX;
    if (fast ? v < 0 : signbit(v) != 0)
        out[n++] = '-';
    if (fast) {
        n += put_fast(out + n, a);
    } else {
        struct decimal d = shortest(a);
        n += a != 0 && (a < 1e-6 || a >= 1e21) ? put_exponent(out + n, &d) : put_plain(out + n, &d);
    }
    out[n] = '\0';
    return n;
}
