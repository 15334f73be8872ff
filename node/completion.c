#include "node/completion.h"

#include <stdbool.h>
#include <string.h>

#define PATH_MAX_TEXT 64 /* "server config gen" */

/* ---- what a value is ---- */

enum kind {
    KIND_NONE, /* a flag without value */
    KIND_ANY,  /* nothing to offer */
    KIND_FILE,
    KIND_DIR,
    KIND_WORDS,
};

static enum kind kind_of(const struct cmd_opt *o, bool is_arg)
{
    const char *name = is_arg ? o->name : cmd_opt_metavar(o);
    if (o->type == CMD_FLAG)
        return KIND_NONE;
    if (o->type == CMD_CHOICE)
        return KIND_WORDS;
    if (o->type == CMD_STR && (strcmp(name, "FILE") == 0 || strcmp(name, "PATH") == 0))
        return KIND_FILE;
    return o->type == CMD_STR && strcmp(name, "DIR") == 0 ? KIND_DIR : KIND_ANY;
}

static void put_words(FILE *out, const char *choices)
{
    for (; *choices != '\0'; choices++)
        fputc(*choices == '|' ? ' ' : *choices, out);
}

/* ---- walking over the table ---- */

struct walk {
    FILE *out;
    void (*command)(struct walk *w, const char *path, const struct cmd *c);
};

/* "", "dht", "dht put": every command that is shown, the root first. */
static void walk(struct walk *w, const char *path, const struct cmd *c)
{
    char below[PATH_MAX_TEXT];
    w->command(w, path, c);
    for (const struct cmd *s = c->subs; s != NULL && s->name != NULL; s++) {
        int n = snprintf(below, sizeof(below), "%s%s%s", path, path[0] != '\0' ? " " : "", s->name);
        if (!s->hidden && n > 0 && (size_t)n < sizeof(below))
            walk(w, below, s);
    }
}

typedef void opt_fn(FILE *out, const char *path, const struct cmd_opt *o);

static void each_opt(FILE *out, const char *path, const struct cmd_opt *opts, opt_fn *fn)
{
    for (const struct cmd_opt *o = opts; o != NULL && o->name != NULL; o++)
        fn(out, path, o);
}

static void each_flag(FILE *out, const char *path, const struct cmd *c, opt_fn *fn)
{
    each_opt(out, path, c->opts, fn);
    for (const struct cmd_group *g = c->groups; g != NULL && g->title != NULL; g++)
        each_opt(out, path, g->opts, fn);
}

static bool has_subs(const struct cmd *c)
{
    return c->subs != NULL && c->subs->name != NULL;
}

/* ---- bash ---- */

static void bash_subs(struct walk *w, const char *path, const struct cmd *c)
{
    if (!has_subs(c))
        return;
    fprintf(w->out, "    '%s') echo '", path);
    for (const struct cmd *s = c->subs; s->name != NULL; s++) {
        if (!s->hidden)
            fprintf(w->out, "%s ", s->name);
    }
    fputs(path[0] == '\0' ? "help' ;;\n" : "' ;;\n", w->out);
}

static void bash_flag(FILE *out, const char *path, const struct cmd_opt *o)
{
    (void)path;
    fprintf(out, "--%s ", o->name);
}

static void bash_flags(struct walk *w, const char *path, const struct cmd *c)
{
    fprintf(w->out, "    '%s') echo '", path);
    each_flag(w->out, path, c, bash_flag);
    fputs("--help' ;;\n", w->out);
}

static void bash_kind(FILE *out, const struct cmd_opt *o, enum kind kind)
{
    static const char *const names[] = {"", "any", "file", "dir", "words "};
    fprintf(out, ") echo '%s", names[kind]);
    if (kind == KIND_WORDS)
        put_words(out, o->choices);
    fputs("' ;;\n", out);
}

static void bash_value(FILE *out, const char *path, const struct cmd_opt *o)
{
    enum kind kind = kind_of(o, false);
    if (kind == KIND_NONE)
        return;
    fprintf(out, "    '%s --%s'", path, o->name);
    if (o->letter != 0)
        fprintf(out, " | '%s -%c'", path, o->letter);
    if (o->letter2 != 0)
        fprintf(out, " | '%s -%c'", path, o->letter2);
    bash_kind(out, o, kind);
}

static void bash_values(struct walk *w, const char *path, const struct cmd *c)
{
    each_flag(w->out, path, c, bash_value);
}

/* The first argument that there is something to offer for. */
static void bash_args(struct walk *w, const char *path, const struct cmd *c)
{
    for (const struct cmd_opt *o = c->args; o != NULL && o->name != NULL; o++) {
        enum kind kind = kind_of(o, true);
        if (kind == KIND_ANY)
            continue;
        fprintf(w->out, "    '%s'", path);
        bash_kind(w->out, o, kind);
        return;
    }
}

static void bash_table(FILE *out, const struct cmd *root, const char *name, const char *key,
                       void (*command)(struct walk *w, const char *path, const struct cmd *c))
{
    struct walk w = {out, command};
    fprintf(out, "%s() {\n    case \"%s\" in\n", name, key);
    walk(&w, "", root);
    fputs("    esac\n}\n", out);
}

static void print_bash(FILE *out, const struct cmd *root)
{
    fputs("# bash completion of kadmsg, written by 'kadmsg completion bash'.\n", out);
    bash_table(out, root, "_kadmsg_subs", "$1", bash_subs);
    bash_table(out, root, "_kadmsg_flags", "$1", bash_flags);
    bash_table(out, root, "_kadmsg_value", "$1 $2", bash_values);
    bash_table(out, root, "_kadmsg_arg", "$1", bash_args);
    fputs("_kadmsg() {\n"
          "    local cur=${COMP_WORDS[COMP_CWORD]} flag=${COMP_WORDS[COMP_CWORD-1]} path='' i w "
          "kind\n"
          "    for ((i = 1; i < COMP_CWORD; i++)); do\n"
          "        w=${COMP_WORDS[i]}\n"
          "        [[ -n $w && $w != help && \" $(_kadmsg_subs \"$path\") \" == *\" $w \"* ]] &&\n"
          "            path=${path:+$path }$w\n"
          "    done\n"
          "    # --flag=value comes as three words.\n"
          "    if [[ $cur == = ]]; then\n"
          "        cur=''\n"
          "    elif [[ $flag == = ]]; then\n"
          "        flag=${COMP_WORDS[COMP_CWORD-2]}\n"
          "    fi\n"
          "    kind=$(_kadmsg_value \"$path\" \"$flag\")\n"
          "    if [[ -z $kind && $cur == -* ]]; then\n"
          "        kind=\"words $(_kadmsg_flags \"$path\")\"\n"
          "    elif [[ -z $kind ]]; then\n"
          "        kind=$(_kadmsg_arg \"$path\")\n"
          "        [[ -z $kind ]] && kind=\"words $(_kadmsg_subs \"$path\")\"\n"
          "    fi\n"
          "    COMPREPLY=()\n"
          "    case $kind in\n"
          "    file) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- \"$cur\") ;;\n"
          "    dir) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -d -- \"$cur\") ;;\n"
          "    'words '*) mapfile -t COMPREPLY < <(compgen -W \"${kind#words }\" -- \"$cur\") ;;\n"
          "    esac\n"
          "}\n"
          "complete -F _kadmsg kadmsg\n",
          out);
}

/* ---- zsh ---- */

/* Inside single quotes, and inside a specification of _arguments. */
static void zsh_text(FILE *out, const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '\'')
            fputs("'\\''", out);
        else if (strchr("[]:\\", *text) != NULL)
            fprintf(out, "\\%c", *text);
        else
            fputc(*text, out);
    }
}

static void zsh_action(FILE *out, const struct cmd_opt *o, const char *name, enum kind kind)
{
    fputc(':', out);
    zsh_text(out, name);
    fputc(':', out);
    if (kind == KIND_WORDS) {
        fputc('(', out);
        put_words(out, o->choices);
        fputc(')', out);
    } else {
        fputs(kind == KIND_FILE ? "_files" : kind == KIND_DIR ? "_files -/" : " ", out);
    }
}

static void zsh_flag(FILE *out, const char *path, const struct cmd_opt *o)
{
    (void)path;
    enum kind kind = kind_of(o, false);
    bool value = kind != KIND_NONE;
    fputs(" \\\n        ", out);
    if (o->list)
        fputs("'*'", out);
    else if (o->letter != 0)
        fprintf(out, "'(-%c --%s)'", o->letter, o->name);
    if (o->letter != 0)
        fprintf(out, "{-%c%s,--%s%s}'[", o->letter, value ? "+" : "", o->name, value ? "=" : "");
    else
        fprintf(out, "'--%s%s[", o->name, value ? "=" : "");
    zsh_text(out, o->help);
    fputc(']', out);
    if (value)
        zsh_action(out, o, kind == KIND_WORDS ? "word" : cmd_opt_metavar(o), kind);
    fputc('\'', out);
}

static void zsh_arg(FILE *out, const char *path, const struct cmd_opt *o)
{
    (void)path;
    fprintf(out, " \\\n        '%s", o->list ? "*" : o->optional ? ":" : "");
    zsh_action(out, o, o->name, kind_of(o, true));
    fputc('\'', out);
}

static void zsh_name(FILE *out, const char *path)
{
    fputs(path[0] != '\0' ? "_kadmsg_" : "_kadmsg", out);
    for (; *path != '\0'; path++)
        fputc(*path == ' ' || *path == '-' ? '_' : *path, out);
}

static void zsh_subs(struct walk *w, const char *path, const struct cmd *c)
{
    char below[PATH_MAX_TEXT];
    fputs("    case $state in\n    cmd)\n        local -a list=(\n", w->out);
    for (const struct cmd *s = c->subs; s->name != NULL; s++) {
        if (s->hidden)
            continue;
        fprintf(w->out, "            '%s:", s->name);
        zsh_text(w->out, s->help);
        fputs("'\n", w->out);
    }
    fputs(path[0] == '\0' ? "            'help:help for a command'\n" : "", w->out);
    fputs("        )\n        _describe -t commands command list\n        ;;\n"
          "    args)\n        case $words[1] in\n",
          w->out);
    for (const struct cmd *s = c->subs; s->name != NULL; s++) {
        if (s->hidden)
            continue;
        snprintf(below, sizeof(below), "%s%s%s", path, path[0] != '\0' ? " " : "", s->name);
        fprintf(w->out, "        %s) ", s->name);
        zsh_name(w->out, below);
        fputs(" ;;\n", w->out);
    }
    fputs("        esac\n        ;;\n    esac\n", w->out);
}

static void zsh_command(struct walk *w, const char *path, const struct cmd *c)
{
    FILE *out = w->out;
    bool subs = has_subs(c);
    zsh_name(out, path);
    fputs("() {\n    local curcontext=\"$curcontext\" state line\n    typeset -A opt_args\n"
          "    _arguments -C '(- *)'{-h,--help}'[print help]'",
          out);
    each_flag(out, path, c, zsh_flag);
    if (subs)
        fputs(" \\\n        '1: :->cmd' '*:: :->args'\n", out);
    else
        each_opt(out, path, c->args, zsh_arg);
    fputs(subs ? "" : "\n", out);
    if (subs)
        zsh_subs(w, path, c);
    fputs("}\n", out);
}

static void print_zsh(FILE *out, const struct cmd *root)
{
    struct walk w = {out, zsh_command};
    fputs("#compdef kadmsg\n# zsh completion of kadmsg, written by 'kadmsg completion zsh'.\n",
          out);
    walk(&w, "", root);
    fputs("if [ \"$funcstack[1]\" = _kadmsg ]; then\n    _kadmsg \"$@\"\nelse\n"
          "    compdef _kadmsg kadmsg\nfi\n",
          out);
}

/* ---- fish ---- */

static void fish_text(FILE *out, const char *text)
{
    fputc('\'', out);
    for (; *text != '\0'; text++) {
        if (*text == '\'' || *text == '\\')
            fputc('\\', out);
        fputc(*text, out);
    }
    fputc('\'', out);
}

static void fish_at(FILE *out, const char *path)
{
    fprintf(out, "complete -c kadmsg -n '__kadmsg_at \"%s\"'", path);
}

static void fish_value(FILE *out, const struct cmd_opt *o, enum kind kind)
{
    switch (kind) {
    case KIND_NONE:
        break;
    case KIND_ANY:
        fputs(" -x", out);
        break;
    case KIND_FILE:
        fputs(" -r -F", out);
        break;
    case KIND_DIR:
        fputs(" -x -a '(__fish_complete_directories)'", out);
        break;
    case KIND_WORDS:
        fputs(" -x -a '", out);
        put_words(out, o->choices);
        fputc('\'', out);
        break;
    }
}

static void fish_flag(FILE *out, const char *path, const struct cmd_opt *o)
{
    fish_at(out, path);
    fprintf(out, " -l %s", o->name);
    if (o->letter != 0)
        fprintf(out, " -s %c", o->letter);
    if (o->letter2 != 0)
        fprintf(out, " -s %c", o->letter2);
    fish_value(out, o, kind_of(o, false));
    fputs(" -d ", out);
    fish_text(out, o->help);
    fputc('\n', out);
}

static void fish_arg(FILE *out, const char *path, const struct cmd_opt *o)
{
    enum kind kind = kind_of(o, true);
    if (kind == KIND_ANY)
        return;
    fish_at(out, path);
    if (kind == KIND_FILE)
        fputs(" -F", out);
    else
        fish_value(out, o, kind);
    fputc('\n', out);
}

static void fish_command(struct walk *w, const char *path, const struct cmd *c)
{
    for (const struct cmd *s = c->subs; s != NULL && s->name != NULL; s++) {
        if (s->hidden)
            continue;
        fish_at(w->out, path);
        fprintf(w->out, " -a %s -d ", s->name);
        fish_text(w->out, s->help);
        fputc('\n', w->out);
    }
    each_flag(w->out, path, c, fish_flag);
    each_opt(w->out, path, c->args, fish_arg);
}

static void fish_path(struct walk *w, const char *path, const struct cmd *c)
{
    (void)c;
    if (path[0] != '\0')
        fprintf(w->out, " '%s'", path);
}

static void print_fish(FILE *out, const struct cmd *root)
{
    struct walk w = {out, fish_path};
    fputs("# fish completion of kadmsg, written by 'kadmsg completion fish'.\n"
          "set -g __kadmsg_commands",
          out);
    walk(&w, "", root);
    fputs("\nfunction __kadmsg_at\n    set -l path ''\n"
          "    for word in (commandline -opc)[2..-1]\n"
          "        set -l longer (string trim -- \"$path $word\")\n"
          "        contains -- $longer $__kadmsg_commands; and set path $longer\n"
          "    end\n    test \"$path\" = \"$argv[1]\"\nend\n"
          "complete -c kadmsg -f\ncomplete -c kadmsg -s h -l help -d 'print help'\n"
          "complete -c kadmsg -n '__kadmsg_at \"\"' -a help -d 'help for a command'\n",
          out);
    w.command = fish_command;
    walk(&w, "", root);
}

void completion_print(FILE *out, const struct cmd *root, enum completion_shell shell)
{
    switch (shell) {
    case COMPLETION_BASH:
        print_bash(out, root);
        break;
    case COMPLETION_ZSH:
        print_zsh(out, root);
        break;
    case COMPLETION_FISH:
        print_fish(out, root);
        break;
    }
}
