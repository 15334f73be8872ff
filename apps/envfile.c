#include "apps/envfile.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"

struct parser {
    char *p;
    size_t line;
    envfile_fn *fn;
    void *arg;
};

static void skip_blanks(struct parser *x, bool line_ends)
{
    for (;; x->p++) {
        if (*x->p == '#') {
            x->p += strcspn(x->p, "\n");
        }
        if (*x->p == '\n' && line_ends)
            x->line++;
        else if (*x->p != ' ' && *x->p != '\t' && *x->p != '\r')
            return;
    }
}

static bool is_name(char c, bool first)
{
    return c == '_' || isalpha((unsigned char)c) || (!first && isdigit((unsigned char)c));
}

/* A value up to its end, cut off there; the character behind it comes back in *next. */
static char *value(struct parser *x, char *next)
{
    char quote = *x->p == '\'' || *x->p == '"' ? *x->p++ : '\0';
    char *start = x->p;
    size_t n = quote != '\0' ? strcspn(start, quote == '"' ? "\"\n$`\\" : "'\n")
                             : strcspn(start, " \t\r\n()'\"$`\\;&|<>");
    x->p += n;
    if (quote != '\0' && *x->p != quote)
        return NULL;
    *next = quote != '\0' ? x->p[1] : *x->p;
    *x->p = '\0';
    x->p += quote != '\0' ? 1 : 0;
    /* Two values may not touch. */
    return strchr(" \t\r\n)#", *next) != NULL ? start : NULL;
}

static int array(struct parser *x, const char *name)
{
    char next;
    for (;;) {
        skip_blanks(x, true);
        if (*x->p == ')') {
            x->p++;
            return 0;
        }
        if (*x->p == '\0' || *x->p == '(')
            return ERR_FORMAT;
        char *v = value(x, &next);
        if (v == NULL)
            return ERR_FORMAT;
        x->fn(x->arg, name, v);
        *x->p = next;
    }
}

static int assignment(struct parser *x)
{
    char next;
    if (strncmp(x->p, "export", 6) == 0 && (x->p[6] == ' ' || x->p[6] == '\t')) {
        x->p += 6;
        skip_blanks(x, false);
    }
    char *name = x->p;
    while (is_name(*x->p, x->p == name))
        x->p++;
    if (x->p == name || *x->p != '=')
        return ERR_FORMAT;
    *x->p++ = '\0';
    if (*x->p == '(') {
        x->p++;
        return array(x, name);
    }
    char *v = value(x, &next);
    if (v == NULL || next == ')')
        return ERR_FORMAT;
    x->fn(x->arg, name, v);
    *x->p = next;
    return 0;
}

int envfile_parse(char *text, envfile_fn *fn, void *arg, size_t *line)
{
    struct parser x = {.p = text, .line = 1, .fn = fn, .arg = arg};
    int rc = 0;
    for (skip_blanks(&x, true); *x.p != '\0' && rc == 0; skip_blanks(&x, true)) {
        rc = assignment(&x);
        if (rc == 0)
            skip_blanks(&x, false);
        if (rc == 0 && *x.p != '\0' && *x.p != '\n')
            rc = ERR_FORMAT;
        if (rc != 0)
            break;
    }
    *line = x.line;
    return rc;
}

int envfile_read(const char *path, envfile_fn *fn, void *arg, size_t *line)
{
    char *text = malloc(ENVFILE_MAX + 1);
    FILE *f = text != NULL ? fopen(path, "re") : NULL;
    int rc = text == NULL ? ERR_NOMEM : f == NULL ? err_sys() : 0;
    if (rc == 0) {
        size_t n = fread(text, 1, ENVFILE_MAX + 1, f);
        rc = ferror(f) ? err_sys() : n > ENVFILE_MAX ? ERR_TOO_LONG : 0;
        text[rc == 0 ? n : 0] = '\0';
        if (rc == 0 && strlen(text) != n) {
            *line = 1;
            rc = ERR_FORMAT; /* a NUL */
        }
    }
    if (f != NULL)
        fclose(f);
    if (rc == 0)
        rc = envfile_parse(text, fn, arg, line);
    free(text);
    return rc;
}
