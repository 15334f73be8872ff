/*
 * cmdvalue - one value of a command line from its text (the types of cmdline.h).
 *
 * Used by cmdline.c; apart from it so that it can be tested alone. No allocation, any thread,
 * crypto_init() needed for keys. Errors: ERR_USAGE with the reason in why.
 *
 *     uint64_t ns;
 *     const struct cmd_opt o = {.name = "timeout", .type = CMD_SECONDS, .min = NS_PER_S};
 *     rc = cmd_value_parse(&o, "1.5m", &ns, why, sizeof why);
 */
#pragma once

#include <stddef.h>

#include "base/cmdline.h"

/* Size of the C object of a type: what cmd_value_parse() writes. */
size_t cmd_value_size(enum cmd_type type);

/* Parse text by o's type and limits into *out; untouched on errors. A CMD_STR becomes a pointer to
 * text itself. why says what was expected, without repeating the text (it may be a secret). */
int cmd_value_parse(const struct cmd_opt *o, const char *text, void *out, char *why, size_t why_cap)
    __attribute__((warn_unused_result));
