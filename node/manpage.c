#include "node/manpage.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "node/config.h"
#include "node/paths.h"
#include "node/tool.h"

#define MAN_DATE "November 20, 2026"

/* ---- text ---- */

static void put_escaped(FILE *out, const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (text[i] == '\\')
            fputs("\\e", out);
        else if (text[i] == '-')
            fputs("\\-", out);
        else
            fputc(text[i], out);
    }
}

/* Paragraphs; every sentence begins a line. */
static void put_text(FILE *out, const char *text)
{
    while (*text != '\0') {
        size_t n = strcspn(text, "\n");
        const char *stop = memmem(text, n, ". ", 2);
        size_t len = stop != NULL ? (size_t)(stop - text) + 1 : n;
        if (text[0] == '.' || text[0] == '\'')
            fputs("\\&", out);
        put_escaped(out, text, len);
        fputc('\n', out);
        text += len;
        if (strncmp(text, "\n\n", 2) == 0)
            fputs(".Pp\n", out);
        text += strspn(text, stop != NULL ? " " : "\n");
    }
}

static void put_heading(FILE *out, const char *title)
{
    fputs(".Sh ", out);
    for (; *title != '\0'; title++)
        fputc(toupper((unsigned char)*title), out);
    fputc('\n', out);
}

static void put_top(FILE *out, const char *name, const char *section, const char *help)
{
    fputs(".\\\" Written by 'make man' from the command table; changes here are lost.\n", out);
    fprintf(out, ".Dd %s\n.Dt ", MAN_DATE);
    for (const char *p = name; *p != '\0'; p++)
        fputc(toupper((unsigned char)*p), out);
    fprintf(out, " %s\n.Os\n.Sh NAME\n.Nm %s\n.Nd ", section, name);
    put_escaped(out, help, strlen(help));
    fputc('\n', out);
}

/* ---- flags and arguments ---- */

static void put_help(FILE *out, const struct cmd_opt *o)
{
    const char *def = o->def_text != NULL ? o->def_text : o->def;
    fputc(toupper((unsigned char)o->help[0]), out);
    put_escaped(out, o->help + 1, strlen(o->help + 1));
    fputs(".\n", out);
    if (o->list)
        fputs("May be repeated.\n", out);
    if (def != NULL) {
        fputs("Default: ", out);
        put_escaped(out, def, strlen(def));
        fputs(".\n", out);
    }
}

static void put_opts(FILE *out, const struct cmd_opt *opts, bool are_args)
{
    if (opts == NULL || opts->name == NULL)
        return;
    fputs(".Bl -tag -width Ds\n", out);
    for (const struct cmd_opt *o = opts; o->name != NULL; o++) {
        const char *value = cmd_opt_metavar(o);
        if (are_args)
            fprintf(out, ".It Ar %s\n", o->name);
        else if (o->letter != 0)
            fprintf(out, ".It Fl %c , Fl \\-%s", o->letter, o->name);
        else
            fprintf(out, ".It Fl \\-%s", o->name);
        if (!are_args)
            fprintf(out, "%s%s\n", value[0] != '\0' ? " Ar " : "", value);
        put_help(out, o);
    }
    fputs(".El\n", out);
}

/* ---- a command ---- */

/* ".Nm kadmsg", words, arguments: one form of use. */
static void put_form(FILE *out, const char *words, const struct cmd *c)
{
    fprintf(out, ".Nm kadmsg\n.Cm %s\n", words);
    if (c->opts != NULL || c->groups != NULL)
        fputs(".Op Ar flags\n", out);
    for (const struct cmd_opt *a = c->args; a != NULL && a->name != NULL; a++)
        fprintf(out, a->optional ? ".Op Ar %s%s\n" : ".Ar %s%s\n", a->name, a->list ? " ..." : "");
}

static void put_body(FILE *out, const struct cmd *c)
{
    fputc(toupper((unsigned char)c->help[0]), out);
    put_escaped(out, c->help + 1, strlen(c->help + 1));
    fputs(".\n", out);
    if (c->about != NULL) {
        fputs(".Pp\n", out);
        put_text(out, c->about);
    }
    put_opts(out, c->args, true);
    put_opts(out, c->opts, false);
}

static const struct cmd_group *groups_of(const struct cmd *c)
{
    for (const struct cmd *s = c->subs; s != NULL && s->name != NULL; s++)
        if (s->groups != NULL)
            return s->groups;
    return c->groups;
}

static void put_exit_status(FILE *out)
{
    static const char *const what[] = {"Done.",
                                       "Failed; the reason is on standard error.",
                                       "Wrong usage.",
                                       "Not found.",
                                       "Refused by the peer or by policy.",
                                       "Timed out.",
                                       "No route to the peer, or no server."};
    fputs(".Sh EXIT STATUS\n.Bl -tag -width Ds -compact\n", out);
    for (size_t i = 0; i < sizeof(what) / sizeof(what[0]); i++)
        fprintf(out, ".It %zu\n%s\n", i, what[i]);
    fputs(".El\n", out);
}

static void print_command(FILE *out, const struct cmd *c)
{
    char name[64], words[64];
    snprintf(name, sizeof(name), "kadmsg-%s", c->name);
    put_top(out, name, "1", c->help);
    fputs(".Sh SYNOPSIS\n", out);
    if (c->run != NULL)
        put_form(out, c->name, c);
    for (const struct cmd *s = c->subs; s != NULL && s->name != NULL; s++) {
        snprintf(words, sizeof(words), "%s %s", c->name, s->name);
        put_form(out, words, s);
    }
    fputs(".Sh DESCRIPTION\n", out);
    put_body(out, c);
    for (const struct cmd *s = c->subs; s != NULL && s->name != NULL; s++) {
        fprintf(out, ".Ss kadmsg %s %s\n", c->name, s->name);
        put_body(out, s);
    }
    for (const struct cmd_group *g = groups_of(c); g != NULL && g->title != NULL; g++) {
        put_heading(out, g->title);
        put_opts(out, g->opts, false);
    }
    put_exit_status(out);
    fputs(".Sh SEE ALSO\n.Xr kadmsg 1", out);
    fputs(strcmp(c->name, "node") == 0 ? " ,\n.Xr kadmsg.conf 5\n" : "\n", out);
}

/* ---- the program ---- */

/* In the order of the alphabet. */
static void put_see_also(FILE *out, const struct cmd *root)
{
    const char *last = "";
    fputs(".Sh SEE ALSO\n", out);
    for (;;) {
        const char *next = NULL;
        for (const struct cmd *c = root->subs; c->name != NULL; c++) {
            if (!c->hidden && strcmp(c->name, last) > 0 &&
                (next == NULL || strcmp(c->name, next) < 0))
                next = c->name;
        }
        if (next == NULL)
            break;
        fprintf(out, ".Xr kadmsg-%s 1 ,\n", next);
        last = next;
    }
    fputs(".Xr kadmsg.conf 5\n", out);
}

static void print_program(FILE *out, const struct cmd *root)
{
    put_top(out, root->name, "1", root->help);
    fputs(".Sh SYNOPSIS\n.Nm\n.Ar command\n.Op Ar flags\n.Op Ar arguments\n.Sh DESCRIPTION\n", out);
    put_text(out, root->about);
    fputs(".Pp\nFlags stand anywhere behind the command, as\n.Fl \\-flag Ar value\nor\n"
          ".Fl \\-flag Ns = Ns Ar value .\nThe commands are:\n.Bl -tag -width Ds\n",
          out);
    for (const struct cmd *c = root->subs; c->name != NULL; c++) {
        if (c->hidden)
            continue;
        fprintf(out, ".It Cm %s\n", c->name);
        fputc(toupper((unsigned char)c->help[0]), out);
        put_escaped(out, c->help + 1, strlen(c->help + 1));
        fprintf(out, ".\nSee\n.Xr kadmsg-%s 1 .\n", c->name);
    }
    fputs(".It Cm help\nHelp for a command, as its flag\n.Fl \\-help\nprints it.\n.El\n.Pp\n"
          "Data goes to standard output, everything else to standard error.\n"
          "With\n.Fl \\-json\na command prints one JSON object a line, which only ever gains "
          "members.\n",
          out);
    fputs(".Sh ENVIRONMENT\n.Bl -tag -width XDG_RUNTIME_DIR\n"
          ".It Ev XDG_STATE_HOME\nWhere keys, stores and locks are kept, in a directory\n.Pa "
          "kadmsg .\nDefault:\n.Pa /var/lib\nfor root, else\n.Pa ~/.local/state .\n"
          ".It Ev XDG_RUNTIME_DIR\nWhere control sockets are, in a directory\n.Pa kadmsg .\n"
          "Default:\n.Pa /run\nfor root, else\n.Pa run\nin the state directory.\n.El\n",
          out);
    fputs(".Sh FILES\n.Bl -tag -width Ds\n"
          ".It Pa $XDG_STATE_HOME/kadmsg/node.key\nKey of the node that is started without\n"
          ".Fl \\-sk\\-file .\n"
          ".It Pa $XDG_STATE_HOME/kadmsg/XXXXXXXX\nStore of the node whose public key begins with "
          "these digits.\n"
          ".It Pa $XDG_STATE_HOME/kadmsg/locks\nOne lock for each key that a node runs under.\n"
          ".It Pa $XDG_RUNTIME_DIR/kadmsg/control\nControl socket.\n.El\n",
          out);
    put_exit_status(out);
    put_see_also(out, root);
}

/* ---- the configuration file ---- */

static const char *value_type(const struct cmd_opt *o)
{
    if (o->list)
        return "list of texts";
    switch (o->type) {
    case CMD_FLAG:
        return "true or false";
    case CMD_U64:
        return "number";
    case CMD_BYTES:
        return "text with a unit, or number of bytes";
    case CMD_SECONDS:
        return "text with a unit, or number of seconds";
    case CMD_STR:
    case CMD_PORT:
    case CMD_CHOICE:
    case CMD_PUBKEY:
    case CMD_SECKEY:
    case CMD_HOSTPORT:
    case CMD_LISTEN:
    case CMD_PEER:
    case CMD_DMSG:
        break;
    }
    return "text";
}

static void print_config(FILE *out)
{
    put_top(out, "kadmsg.conf", "5", "configuration file of kadmsg node");
    fputs(".Sh DESCRIPTION\nThe file that\n.Fl \\-config\nof\n.Xr kadmsg-node 1\nnames is one JSON "
          "object.\nIts members have the names of the flags; a flag on the command line wins.\n"
          "A member that is null is as if it were not there.\nMembers that are not in this list, "
          "and values of a wrong type, are refused.\n"
          ".Nm kadmsg Cm node Fl \\-sample\\-config\nprints a file with the defaults.\n"
          "SIGHUP makes the node read the file again and take over\n.Cm log\\-level ;\neverything "
          "else needs a restart.\n.Bl -tag -width Ds\n",
          out);
    for (const struct cmd_opt *o = config_flags; o->name != NULL; o++) {
        if (!config_is_setting(o))
            continue;
        fputs(".It Cm ", out);
        put_escaped(out, o->name, strlen(o->name));
        fprintf(out, " Pq %s\n", value_type(o));
        put_help(out, o);
    }
    fputs(
        ".El\n.Sh EXAMPLES\nA relay that is also a full DHT node:\n.Bd -literal -offset indent\n"
        "{\n    \"full\": true,\n    \"listen\": \"0.0.0.0:8081\",\n"
        "    \"public\\-address\": \"relay.example.org:8081\",\n    \"store\\-bytes\": \"4G\"\n}\n"
        ".Ed\n.Sh SEE ALSO\n.Xr kadmsg-node 1\n",
        out);
}

/* ---- all of them ---- */

int manpage_print(FILE *out, const struct cmd *root, const char *name)
{
    if (strcmp(name, root->name) == 0) {
        print_program(out, root);
        return 0;
    }
    if (strcmp(name, "kadmsg.conf") == 0) {
        print_config(out);
        return 0;
    }
    for (const struct cmd *c = root->subs; c->name != NULL; c++) {
        char page[64];
        snprintf(page, sizeof(page), "kadmsg-%s", c->name);
        if (!c->hidden && strcmp(page, name) == 0) {
            print_command(out, c);
            return 0;
        }
    }
    return ERR_NOT_FOUND;
}

static int write_page(const struct cmd *root, const char *dir, const char *name, int section)
{
    char path[PATHS_MAX], file[80];
    snprintf(file, sizeof(file), "%s.%d", name, section);
    int rc = paths_join(path, dir, file);
    FILE *out = rc == 0 ? fopen(path, "we") : NULL;
    if (out == NULL)
        return tool_fail(rc < 0 ? rc : err_sys(), "%s/%s: %s", dir, file,
                         rc < 0 ? err_str(rc) : strerror(errno));
    rc = manpage_print(out, root, name);
    bool lost = ferror(out) != 0;
    if (fclose(out) != 0 || lost)
        return tool_fail(ERR_NO_SPACE, "%s: cannot be written", path);
    return rc;
}

int manpage_write_all(const struct cmd *root, const char *dir)
{
    int rc = write_page(root, dir, root->name, 1);
    if (rc == 0)
        rc = write_page(root, dir, "kadmsg.conf", 5);
    for (const struct cmd *c = root->subs; c->name != NULL && rc == 0; c++) {
        char page[64];
        snprintf(page, sizeof(page), "kadmsg-%s", c->name);
        if (!c->hidden)
            rc = write_page(root, dir, page, 1);
    }
    return rc;
}
