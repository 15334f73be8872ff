#include "base/cmdline.h"

#include <assert.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "base/cmdvalue.h"
#include "base/err.h"
#include "base/log.h"

#define WHY_MAX       256
#define PATH_TEXT_MAX 64 /* "kadmsg server config gen" */
#define LEFT_MAX      30 /* column where help texts begin, at most */
#define WIDTH         80

/* Where a value came from: a better source is not overwritten by a lesser one. */
enum source {
    FROM_TABLE,
    FROM_FILE,
    FROM_USER,
};

struct cmd_slot {
    const struct cmd_opt *opt;
    size_t base; /* of the group's struct */
    bool is_arg;
    enum source source;
};

struct cmd_text {
    struct cmd_text *next;
    char text[];
};

/* All list types look like this. */
struct list_value {
    void *v;
    size_t n;
};
_Static_assert(sizeof(struct list_value) == sizeof(struct cmd_strs) &&
                   offsetof(struct cmd_peers, n) == offsetof(struct list_value, n),
               "lists have one layout");

/* ---- slots: every argument and flag of the command ---- */

static size_t count_opts(const struct cmd_opt *o)
{
    size_t n = 0;
    while (o != NULL && o[n].name != NULL)
        n++;
    return n;
}

static void add_slots(struct cmdline *cl, const struct cmd_opt *o, size_t base, bool is_arg)
{
    for (; o != NULL && o->name != NULL; o++)
        cl->slots[cl->slot_count++] = (struct cmd_slot){.opt = o, .base = base, .is_arg = is_arg};
}

static int make_slots(struct cmdline *cl)
{
    const struct cmd *c = cl->cmd;
    size_t n = count_opts(c->args) + count_opts(c->opts);
    for (const struct cmd_group *g = c->groups; g != NULL && g->title != NULL; g++)
        n += count_opts(g->opts);
    cl->slots = calloc(n + 1, sizeof *cl->slots);
    cl->opts = calloc(1, c->opts_size + 1);
    if (cl->slots == NULL || cl->opts == NULL)
        return ERR_NOMEM;
    add_slots(cl, c->args, 0, true);
    add_slots(cl, c->opts, 0, false);
    for (const struct cmd_group *g = c->groups; g != NULL && g->title != NULL; g++)
        add_slots(cl, g->opts, g->base, false);
    return 0;
}

static struct cmd_slot *find_flag(const struct cmdline *cl, const char *name, size_t n)
{
    for (size_t i = 0; i < cl->slot_count; i++) {
        const char *have = cl->slots[i].opt->name;
        if (!cl->slots[i].is_arg && strlen(have) == n && memcmp(have, name, n) == 0)
            return &cl->slots[i];
    }
    return NULL;
}

static struct cmd_slot *find_letter(const struct cmdline *cl, char letter)
{
    for (size_t i = 0; i < cl->slot_count; i++) {
        const struct cmd_opt *o = cl->slots[i].opt;
        if (!cl->slots[i].is_arg && (o->letter == letter || o->letter2 == letter))
            return &cl->slots[i];
    }
    return NULL;
}

/* ---- values ---- */

static const char *keep_text(struct cmdline *cl, const char *text)
{
    size_t n = strlen(text) + 1;
    struct cmd_text *t = malloc(sizeof *t + n);
    if (t == NULL)
        return NULL;
    memcpy(t->text, text, n);
    t->next = cl->texts;
    cl->texts = t;
    return t->text;
}

/* Room for one more element at the end of a list, not counted yet. */
static int list_grow(struct list_value *list, size_t size)
{
    if (list->n >= CMD_LIST_MAX)
        return ERR_LIMIT;
    void *v = reallocarray(list->v, list->n + 1, size);
    if (v == NULL)
        return ERR_NOMEM;
    list->v = v;
    return 0;
}

static int set_list(const struct cmd_opt *o, const char *text, void *target, char *why, size_t cap)
{
    struct list_value list;
    memcpy(&list, target, sizeof list);
    size_t size = cmd_value_size(o->type);
    int rc = list_grow(&list, size);
    if (rc != 0) {
        snprintf(why, cap, "%s", rc == ERR_LIMIT ? "too many values" : err_str(rc));
        return rc;
    }
    rc = cmd_value_parse(o, text, (char *)list.v + list.n * size, why, cap);
    if (rc == 0)
        list.n++;
    memcpy(target, &list, sizeof list);
    return rc;
}

static int set_value(struct cmdline *cl, struct cmd_slot *slot, const char *text,
                     enum source source, char *why, size_t cap)
{
    const struct cmd_opt *o = slot->opt;
    void *target = (char *)cl->opts + slot->base + o->offset;
    if (o->type == CMD_STR && (text = keep_text(cl, text)) == NULL) {
        snprintf(why, cap, "%s", err_str(ERR_NOMEM));
        return ERR_NOMEM;
    }
    int rc =
        o->list ? set_list(o, text, target, why, cap) : cmd_value_parse(o, text, target, why, cap);
    if (rc == 0)
        slot->source = source;
    return rc;
}

static int set_defaults(struct cmdline *cl)
{
    char why[WHY_MAX];
    for (size_t i = 0; i < cl->slot_count; i++) {
        const struct cmd_opt *o = cl->slots[i].opt;
        if (o->def == NULL)
            continue;
        int rc = set_value(cl, &cl->slots[i], o->def, FROM_TABLE, why, sizeof why);
        assert(rc == 0 || rc == ERR_NOMEM); /* see cmdline_check() */
        if (rc != 0)
            return rc;
    }
    return 0;
}

int cmdline_set(struct cmdline *cl, const char *name, const char *value, char *why, size_t why_cap)
{
    struct cmd_slot *slot = find_flag(cl, name, strlen(name));
    if (slot == NULL) {
        snprintf(why, why_cap, "no such setting");
        return ERR_NOT_FOUND;
    }
    if (slot->source == FROM_USER)
        return 0;
    return set_value(cl, slot, value, FROM_FILE, why, why_cap);
}

bool cmdline_given(const struct cmdline *cl, const char *name)
{
    for (size_t i = 0; i < cl->slot_count; i++) {
        if (strcmp(cl->slots[i].opt->name, name) == 0)
            return cl->slots[i].source != FROM_TABLE;
    }
    assert(false);
    return false;
}

/* ---- suggestions ---- */

/* Edits (insert, delete, replace, swap neighbours) from a to b; large when one of them is long. */
static unsigned edits(const char *a, size_t na, const char *b, size_t nb)
{
    unsigned d[32][32];
    if (na >= 32 || nb >= 32)
        return 99;
    for (unsigned i = 0; i <= na; i++) {
        for (unsigned k = 0; k <= nb; k++) {
            if (i == 0 || k == 0) {
                d[i][k] = i + k;
                continue;
            }
            unsigned best = d[i - 1][k - 1] + (a[i - 1] != b[k - 1]);
            best = d[i - 1][k] + 1 < best ? d[i - 1][k] + 1 : best;
            best = d[i][k - 1] + 1 < best ? d[i][k - 1] + 1 : best;
            if (i > 1 && k > 1 && a[i - 1] == b[k - 2] && a[i - 2] == b[k - 1] &&
                d[i - 2][k - 2] + 1 < best)
                best = d[i - 2][k - 2] + 1;
            d[i][k] = best;
        }
    }
    return d[na][nb];
}

struct nearest {
    const char *name;
    unsigned distance;
};

/* At most two edits, and at least half of the word must be right. */
static void consider(struct nearest *best, const char *typed, size_t n, const char *name)
{
    unsigned d = edits(typed, n, name, strlen(name));
    if (d <= 2 && 2 * d < n + 1 && d < best->distance)
        *best = (struct nearest){.name = name, .distance = d};
}

/* ---- messages ---- */

char *cmdline_name(const struct cmdline *cl, char *out, size_t cap)
{
    size_t len = 0;
    for (size_t i = 0; i < cl->depth && len < cap; i++)
        len += (size_t)snprintf(out + len, cap - len, "%s%s", i > 0 ? " " : "", cl->path[i]->name);
    return out;
}

__attribute__((format(printf, 2, 0))) static int complain(struct cmdline *cl, const char *fmt,
                                                          va_list ap)
{
    char name[PATH_TEXT_MAX];
    cmdline_name(cl, name, sizeof name);
    fprintf(cl->err, "%s: ", name);
    vfprintf(cl->err, fmt, ap);
    fprintf(cl->err, "\nTry '%s --help'.\n", name);
    return CMD_EXIT_USAGE;
}

int cmdline_usage_error(struct cmdline *cl, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int rc = complain(cl, fmt, ap);
    va_end(ap);
    return rc;
}

/* The same for cmdline_parse(): always false. */
__attribute__((format(printf, 2, 3))) static bool wrong(struct cmdline *cl, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    cl->exit_code = complain(cl, fmt, ap);
    va_end(ap);
    return false;
}

static bool no_memory(struct cmdline *cl)
{
    fprintf(cl->err, "%s: %s\n", cl->path[0]->name, err_str(ERR_NOMEM));
    cl->exit_code = CMD_EXIT_FAIL;
    return false;
}

#define QUOTE(text) LOG_TEXT(text, strlen(text))

static bool wrong_flag(struct cmdline *cl, const char *name, size_t n)
{
    struct nearest best = {.distance = 99};
    for (size_t i = 0; i < cl->slot_count; i++) {
        if (!cl->slots[i].is_arg)
            consider(&best, name, n, cl->slots[i].opt->name);
    }
    consider(&best, name, n, "help");
    /* name stands behind its two dashes in the word it came from */
    const char *shown = LOG_TEXT(name - 2, n + 2);
    if (best.name != NULL)
        return wrong(cl, "unknown flag %s; did you mean --%s?", shown, best.name);
    return wrong(cl, "unknown flag %s", shown);
}

static bool wrong_command(struct cmdline *cl, const char *word)
{
    struct nearest best = {.distance = 99};
    for (const struct cmd *c = cl->cmd->subs; c->name != NULL; c++) {
        if (!c->hidden)
            consider(&best, word, strlen(word), c->name);
    }
    if (best.name != NULL)
        return wrong(cl, "unknown command %s; did you mean %s?", QUOTE(word), best.name);
    return wrong(cl, "unknown command %s", QUOTE(word));
}

static bool take_value(struct cmdline *cl, struct cmd_slot *slot, const char *text)
{
    char why[WHY_MAX];
    const struct cmd_opt *o = slot->opt;
    int rc = set_value(cl, slot, text, FROM_USER, why, sizeof why);
    if (rc == 0)
        return true;
    if (rc == ERR_NOMEM)
        return no_memory(cl);
    const char *dashes = slot->is_arg ? "" : "--";
    if (o->type == CMD_SECKEY)
        return wrong(cl, "%s%s: %s", dashes, o->name, why);
    return wrong(cl, "%s%s %s: %s", dashes, o->name, QUOTE(text), why);
}

/* ---- help ---- */

const char *cmd_opt_metavar(const struct cmd_opt *o)
{
    static const char *const by_type[] = {
        [CMD_FLAG] = "",
        [CMD_STR] = "TEXT",
        [CMD_U64] = "N",
        [CMD_BYTES] = "SIZE",
        [CMD_SECONDS] = "SECONDS",
        [CMD_PORT] = "PORT",
        [CMD_PUBKEY] = "PK",
        [CMD_SECKEY] = "SK",
        [CMD_HOSTPORT] = "HOST:PORT",
        [CMD_LISTEN] = "HOST:PORT",
        [CMD_PEER] = "PK@HOST:PORT",
        [CMD_DMSG] = "PK:PORT",
    };
    if (o->metavar != NULL)
        return o->metavar;
    return o->type == CMD_CHOICE ? o->choices : by_type[o->type];
}

/* Print text from column `at` on, wrapped, further lines indented by `indent`; ends the line. */
static void print_wrapped(FILE *out, size_t at, size_t indent, const char *text)
{
    bool first = true;
    while (*text != '\0') {
        size_t n = strcspn(text, " \n");
        if (n > 0) {
            if (!first && at + 1 + n > WIDTH) {
                fprintf(out, "\n%*s", (int)indent, "");
                at = indent;
                first = true;
            }
            fprintf(out, "%s%.*s", first ? "" : " ", (int)n, text);
            at += n + !first;
            first = false;
            text += n;
        } else if (*text++ == '\n') {
            fputc('\n', out);
            if (*text != '\n')
                fprintf(out, "%*s", (int)indent, "");
            at = indent;
            first = true;
        }
    }
    fputc('\n', out);
}

/* Left column of a flag: "-o, --out FILE". */
static void flag_left(char *out, size_t cap, const struct cmd_opt *o)
{
    const char *value = cmd_opt_metavar(o);
    char letter[] = {'-', o->letter, ',', '\0'};
    snprintf(out, cap, "%-3s --%s%s%s", o->letter != 0 ? letter : "", o->name,
             value[0] != '\0' ? " " : "", value);
}

static void print_row(FILE *out, const char *left, size_t column, const char *help)
{
    size_t n = strlen(left) + 2;
    fprintf(out, "  %s", left);
    if (n + 2 > column) {
        fputc('\n', out);
        n = 0;
    }
    fprintf(out, "%*s", (int)(column - n), "");
    print_wrapped(out, column, column, help);
}

static void print_opts(FILE *out, const char *title, const struct cmd_opt *opts, bool is_arg)
{
    char left[128], help[1024];
    size_t column = 0;
    if (opts == NULL || opts->name == NULL)
        return;
    fprintf(out, "\n%s:\n", title);
    for (int pass = 0; pass < 2; pass++) { /* measure, then print */
        for (const struct cmd_opt *o = opts; o->name != NULL; o++) {
            if (is_arg)
                snprintf(left, sizeof left, "%s", o->name);
            else
                flag_left(left, sizeof left, o);
            size_t want = strlen(left) + 4;
            if (pass == 0) {
                column = want > column && want <= LEFT_MAX ? want : column;
                continue;
            }
            const char *def = o->def_text != NULL ? o->def_text : o->def;
            snprintf(help, sizeof help, "%s%s%s%s%s", o->help, o->list ? " (may be repeated)" : "",
                     def != NULL ? " (default: " : "", def != NULL ? def : "",
                     def != NULL ? ")" : "");
            print_row(out, left, column > 0 ? column : 8, help);
        }
    }
}

static void print_commands(FILE *out, const struct cmd *parent, bool root)
{
    size_t column = root ? strlen("help") + 4 : 0;
    for (const struct cmd *c = parent->subs; c->name != NULL; c++) {
        if (!c->hidden && strlen(c->name) + 4 > column)
            column = strlen(c->name) + 4;
    }
    fprintf(out, "\nCommands:\n");
    for (const struct cmd *c = parent->subs; c->name != NULL; c++) {
        if (!c->hidden)
            print_row(out, c->name, column, c->help);
    }
    if (root)
        print_row(out, "help", column, "help for a command");
}

static void print_synopsis(const struct cmdline *cl, FILE *out)
{
    const struct cmd *c = cl->cmd;
    char name[PATH_TEXT_MAX];
    fprintf(out, "Usage: %s", cmdline_name(cl, name, sizeof name));
    if (c->subs != NULL)
        fprintf(out, c->run != NULL ? " [COMMAND]" : " COMMAND");
    if (c->run != NULL && (c->opts != NULL || c->groups != NULL))
        fprintf(out, " [FLAGS]");
    for (const struct cmd_opt *a = c->args; a != NULL && a->name != NULL; a++)
        fprintf(out, a->optional ? " [%s%s]" : " %s%s", a->name, a->list ? "..." : "");
    fputc('\n', out);
}

void cmdline_help(const struct cmdline *cl, FILE *out)
{
    static const struct cmd_opt help_flag[] = {
        {.name = "help", .letter = 'h', .type = CMD_FLAG, .help = "print this help"}, {0}};
    const struct cmd *c = cl->cmd;
    print_synopsis(cl, out);
    fputc('\n', out);
    print_wrapped(out, 0, 0, c->help);
    if (c->about != NULL) {
        fputc('\n', out);
        print_wrapped(out, 0, 0, c->about);
    }
    print_opts(out, "Arguments", c->args, true);
    if (c->subs != NULL)
        print_commands(out, c, cl->depth == 1);
    print_opts(out, "Flags", c->opts, false);
    for (const struct cmd_group *g = c->groups; g != NULL && g->title != NULL; g++)
        print_opts(out, g->title, g->opts, false);
    print_opts(out, "Help", help_flag, false);
}

static bool show_help(struct cmdline *cl)
{
    cmdline_help(cl, cl->out);
    cl->exit_code = fflush(cl->out) == 0 ? CMD_EXIT_OK : CMD_EXIT_FAIL;
    return false;
}

/* ---- parsing ---- */

static bool is_help(const char *arg)
{
    return strcmp(arg, "-h") == 0 || strcmp(arg, "--help") == 0;
}

static const struct cmd *find_sub(const struct cmd *c, const char *word)
{
    for (const struct cmd *s = c->subs; s != NULL && s->name != NULL; s++) {
        if (strcmp(s->name, word) == 0 || (s->alias != NULL && strcmp(s->alias, word) == 0))
            return s;
    }
    return NULL;
}

static void descend(struct cmdline *cl, const struct cmd *c)
{
    assert(cl->depth < CMD_DEPTH_MAX);
    cl->path[cl->depth++] = c;
    cl->cmd = c;
}

/* "help a b": the help of "a b". */
static bool help_command(struct cmdline *cl, int argc, char **argv)
{
    for (int i = 0; i < argc && !is_help(argv[i]); i++) {
        const struct cmd *sub = find_sub(cl->cmd, argv[i]);
        if (sub == NULL)
            return cl->cmd->subs != NULL ? wrong_command(cl, argv[i])
                                         : wrong(cl, "it has no commands of its own");
        descend(cl, sub);
    }
    return show_help(cl);
}

/* Follow the words that name the command; *used = how many. False when that ended in help or an
 * error. */
static bool select_command(struct cmdline *cl, int argc, char **argv, int *used)
{
    int i = 0;
    for (; cl->cmd->subs != NULL; i++) {
        const char *word = i < argc ? argv[i] : NULL;
        const struct cmd *sub = word != NULL ? find_sub(cl->cmd, word) : NULL;
        if (sub != NULL) {
            descend(cl, sub);
            continue;
        }
        if (word != NULL && is_help(word))
            return show_help(cl);
        if (word != NULL && cl->depth == 1 && strcmp(word, "help") == 0)
            return help_command(cl, argc - i - 1, argv + i + 1);
        if (cl->cmd->run != NULL && (word == NULL || word[0] == '-' || cl->cmd->args != NULL))
            break;
        if (word == NULL) {
            cmdline_help(cl, cl->err);
            cl->exit_code = CMD_EXIT_USAGE;
            return false;
        }
        if (word[0] == '-')
            return wrong(cl, "flag %s stands before the command", QUOTE(word));
        return wrong_command(cl, word);
    }
    *used = i;
    return true;
}

/* A secret in argv can be read by every user of the machine: say so, and take it away. */
static void hide_secret(struct cmdline *cl, const struct cmd_opt *o, char *text)
{
    char name[PATH_TEXT_MAX];
    fprintf(cl->err, "%s: warning: other users can read the secret key of --%s; use a file\n",
            cmdline_name(cl, name, sizeof name), o->name);
    sodium_memzero(text, strlen(text));
}

static bool take_flag_value(struct cmdline *cl, struct cmd_slot *slot, char *text)
{
    bool ok = take_value(cl, slot, text);
    if (slot->opt->type == CMD_SECKEY)
        hide_secret(cl, slot->opt, text);
    return ok;
}

/* The rest of the command line. */
struct words {
    int argc, at;
    char **argv;
};

/* The next word as a flag's value, unless it is evidently the next flag. */
static bool next_value(struct cmdline *cl, struct cmd_slot *slot, struct words *w)
{
    char *next = w->at < w->argc ? w->argv[w->at] : NULL;
    if (next == NULL || strcmp(next, "--") == 0 || strcmp(next, "--help") == 0 ||
        (strncmp(next, "--", 2) == 0 && find_flag(cl, next + 2, strcspn(next + 2, "=")) != NULL))
        return wrong(cl, "--%s needs a value: %s", slot->opt->name, cmd_opt_metavar(slot->opt));
    w->at++;
    return take_flag_value(cl, slot, next);
}

static bool parse_long(struct cmdline *cl, char *word, struct words *w)
{
    char *name = word + 2, *eq = strchr(name, '=');
    size_t n = eq != NULL ? (size_t)(eq - name) : strlen(name);
    struct cmd_slot *slot = find_flag(cl, name, n);
    if (slot == NULL)
        return wrong_flag(cl, name, n);
    if (eq != NULL)
        return take_flag_value(cl, slot, eq + 1);
    if (slot->opt->type == CMD_FLAG)
        return take_value(cl, slot, "true");
    return next_value(cl, slot, w);
}

/* -a -bc -f value -fvalue -f=value */
static bool parse_short(struct cmdline *cl, char *word, struct words *w)
{
    for (char *p = word + 1; *p != '\0'; p++) {
        struct cmd_slot *slot = find_letter(cl, *p);
        if (*p == 'h' && slot == NULL)
            return show_help(cl);
        if (slot == NULL) {
            char flag[] = {'-', *p};
            return wrong(cl, "unknown flag %s", LOG_TEXT(flag, sizeof flag));
        }
        if (p[1] == '=')
            return take_flag_value(cl, slot, p + 2);
        if (slot->opt->type != CMD_FLAG)
            return p[1] != '\0' ? take_flag_value(cl, slot, p + 1) : next_value(cl, slot, w);
        if (!take_value(cl, slot, "true"))
            return false;
    }
    return true;
}

/* An argument of it is a secret key: one too many may be one too. */
static bool takes_secret(const struct cmdline *cl)
{
    for (size_t i = 0; i < cl->slot_count; i++) {
        if (cl->slots[i].is_arg && cl->slots[i].opt->type == CMD_SECKEY)
            return true;
    }
    return false;
}

static bool parse_words(struct cmdline *cl, struct words w)
{
    const struct cmd_opt *args = cl->cmd->args;
    size_t arg = 0, args_max = count_opts(args);
    bool flags = true;
    while (w.at < w.argc) {
        char *word = w.argv[w.at++];
        bool ok;
        if (flags && strcmp(word, "--") == 0) {
            flags = false;
            continue;
        }
        if (flags && strcmp(word, "--help") == 0)
            return show_help(cl);
        if (flags && word[0] == '-' && word[1] == '-') {
            ok = parse_long(cl, word, &w);
        } else if (flags && word[0] == '-' && word[1] != '\0') {
            ok = parse_short(cl, word, &w);
        } else {
            if (arg == args_max)
                return takes_secret(cl) ? wrong(cl, "unexpected argument")
                                        : wrong(cl, "unexpected argument %s", QUOTE(word));
            ok = take_value(cl, &cl->slots[arg], word); /* arguments are the first slots */
            arg += !args[arg].list;
        }
        if (!ok)
            return false;
    }
    for (; arg < args_max && !args[arg].optional; arg++) {
        if (cl->slots[arg].source != FROM_USER)
            return wrong(cl, "missing argument %s: %s", args[arg].name, args[arg].help);
    }
    return true;
}

bool cmdline_parse(struct cmdline *cl, const struct cmd *root, int argc, char **argv, FILE *out,
                   FILE *err)
{
    int used = 0;
    *cl = (struct cmdline){.out = out, .err = err};
    descend(cl, root);
    struct words w = {.argc = argc > 0 ? argc - 1 : 0, .argv = argv + 1};
    if (!select_command(cl, w.argc, w.argv, &used))
        return false;
    w.at = used;
    if (make_slots(cl) != 0 || set_defaults(cl) != 0)
        return no_memory(cl);
    return parse_words(cl, w);
}

void cmdline_free(struct cmdline *cl)
{
    for (size_t i = 0; i < cl->slot_count && cl->opts != NULL; i++) {
        struct list_value list;
        if (!cl->slots[i].opt->list)
            continue;
        memcpy(&list, (char *)cl->opts + cl->slots[i].base + cl->slots[i].opt->offset, sizeof list);
        free(list.v);
    }
    struct cmd_text *t;
    while ((t = cl->texts) != NULL) {
        cl->texts = t->next;
        free(t);
    }
    if (cl->opts != NULL)
        sodium_memzero(cl->opts, cl->cmd->opts_size);
    free(cl->opts);
    free(cl->slots);
    *cl = (struct cmdline){0};
}

int cmdline_main(const struct cmd *root, int argc, char **argv)
{
    struct cmdline cl;
    int code;
    if (cmdline_parse(&cl, root, argc, argv, stdout, stderr))
        code = cl.cmd->run(&cl);
    else
        code = cl.exit_code;
    cmdline_free(&cl);
    bool lost = ferror(stdout) != 0; /* of an earlier write; its errno is gone */
    if ((fflush(stdout) != 0 || lost) && code == CMD_EXIT_OK) {
        fprintf(stderr, "%s: cannot write to standard output\n", root->name);
        code = CMD_EXIT_FAIL;
    }
    return code;
}

/* ---- check of a table ---- */

static int mistake(const struct cmdline *cl, char *why, size_t cap, const char *what,
                   const char *name)
{
    char path[PATH_TEXT_MAX];
    snprintf(why, cap, "%s: %s: %s", cmdline_name(cl, path, sizeof path), name, what);
    return ERR_STATE;
}

static bool has_letter(const struct cmd_opt *o, char letter)
{
    return letter != 0 && (o->letter == letter || o->letter2 == letter);
}

static bool same_letter(const struct cmd_opt *a, const struct cmd_opt *b)
{
    return has_letter(a, b->letter) || has_letter(a, b->letter2);
}

static int check_slot(struct cmdline *cl, size_t i, char *why, size_t cap)
{
    const struct cmd_slot *s = &cl->slots[i];
    const struct cmd_opt *o = s->opt;
    char reason[WHY_MAX];
    size_t size = o->list ? sizeof(struct list_value) : cmd_value_size(o->type);
    if (o->help == NULL)
        return mistake(cl, why, cap, "no help", o->name);
    if (s->base + o->offset + size > cl->cmd->opts_size)
        return mistake(cl, why, cap, "outside of the options' struct", o->name);
    if ((o->type == CMD_CHOICE) != (o->choices != NULL))
        return mistake(cl, why, cap, "choices belong to CMD_CHOICE", o->name);
    if (o->list && o->def != NULL)
        return mistake(cl, why, cap, "a list has no default", o->name);
    if (o->def != NULL && set_value(cl, &cl->slots[i], o->def, FROM_TABLE, reason, sizeof reason))
        return mistake(cl, why, cap, "bad default", o->name);
    if (o->letter == 'h' || o->letter2 == 'h' || strcmp(o->name, "help") == 0)
        return mistake(cl, why, cap, "help is taken", o->name);
    for (size_t k = 0; k < i; k++) {
        if (strcmp(cl->slots[k].opt->name, o->name) == 0)
            return mistake(cl, why, cap, "name twice", o->name);
        if (same_letter(o, cl->slots[k].opt))
            return mistake(cl, why, cap, "letter twice", o->name);
    }
    if (s->is_arg && i > 0 &&
        (cl->slots[i - 1].opt->list || (cl->slots[i - 1].opt->optional && !o->optional)))
        return mistake(cl, why, cap, "behind a list or an optional argument", o->name);
    return 0;
}

static int check_command(struct cmdline *parent, const struct cmd *c, char *why, size_t cap)
{
    struct cmdline cl = {0};
    memcpy(cl.path, parent->path, sizeof cl.path);
    cl.depth = parent->depth;
    if (cl.depth == CMD_DEPTH_MAX)
        return mistake(parent, why, cap, "too deep", c->name);
    descend(&cl, c);
    int rc = make_slots(&cl);
    if (rc == 0 && c->help == NULL)
        rc = mistake(&cl, why, cap, "no help", c->name);
    if (rc == 0 && c->run == NULL && c->subs == NULL)
        rc = mistake(&cl, why, cap, "nothing to run", c->name);
    for (size_t i = 0; i < cl.slot_count && rc == 0; i++)
        rc = check_slot(&cl, i, why, cap);
    for (const struct cmd *s = c->subs; s != NULL && s->name != NULL && rc == 0; s++) {
        if (find_sub(c, s->name) != s || (s->alias != NULL && find_sub(c, s->alias) != s))
            rc = mistake(&cl, why, cap, "name twice", s->name);
        if (rc == 0)
            rc = check_command(&cl, s, why, cap);
    }
    cmdline_free(&cl);
    return rc;
}

int cmdline_check(const struct cmd *root, char *why, size_t why_cap)
{
    struct cmdline none = {0};
    return check_command(&none, root, why, why_cap);
}
