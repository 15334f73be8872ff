/*
 * json_double - floating-point numbers as the peers' two JSON writers print them
 * (docs/protocol/services.md §1).
 *
 *     JSON_FAST   at most six digits behind the point, rounded, trailing zeros cut; numbers above
 *                 83 886 079 as JSON_STD has them
 *     JSON_STD    the shortest text that reads back as the same number; with an exponent below
 *                 1e-6 and from 1e21 on
 *
 * Pure function, any thread. The process's locale must have the point as decimal separator (nobody
 * calls setlocale() here).
 */
#pragma once

#include <stddef.h>

#include "base/json.h"

#define JSON_DOUBLE_MAX 40 /* longest text, without NUL: 1e20 or a small fraction in full */

/* Text of v and a NUL into out; returns its length, 0 when v is not a finite number (JSON has none). */
size_t json_double_text(char out[JSON_DOUBLE_MAX + 1], double v, enum json_dialect dialect);
