/*
 * cmdline - command lines from a table: parsing, checking, help.
 *
 * Commands are data. A struct cmd names a command, its help, its positional arguments, its flags
 * and, below it, its sub-commands; from it come parsing, error messages, suggestions for typing
 * errors and --help (and man pages), so they cannot disagree.
 *
 * Values land in a struct of the command, at the offset that the flag's table line gives. The
 * macros CMD_…_AT() set type and offset together and refuse to compile when the member has another
 * type:
 *
 *     struct put_opts { struct conn_opts conn; uint64_t seq; bool json; const char *salt, *value;
 * }; static const struct cmd_opt put_args[] = {
 *         {.name = "SALT", CMD_STR_AT(struct put_opts, salt), .help = "name of the slot"},
 *         {.name = "VALUE", CMD_STR_AT(struct put_opts, value), .help = "the value; - reads
 * standard input"}, {0}}; static const struct cmd_opt put_flags[] = {
 *         {.name = "seq", CMD_U64_AT(struct put_opts, seq), .metavar = "N", .help = "force this
 * sequence number"},
 *         {.name = "json", .letter = 'j', CMD_FLAG_AT(struct put_opts, json), .help = "one JSON
 * object on stdout"}, {0}}; static const struct cmd_group put_groups[] = {
 *         {"Connection flags", conn_flags, offsetof(struct put_opts, conn)}, {0}};      // shared
 * by many commands static const struct cmd dht_cmds[] = {
 *         {.name = "put", .help = "sign a value and publish it", .args = put_args, .opts =
 * put_flags, .groups = put_groups, .opts_size = sizeof(struct put_opts), .run = dht_put}, {0}};
 *     static int dht_put(struct cmdline *cl)
 *     {
 *         const struct put_opts *o = cl->opts;
 *         bool forced = cmdline_given(cl, "seq");
 *         ...
 *     }
 *     int main(int argc, char **argv) { return cmdline_main(&root, argc, argv); }
 *
 * Rules for the user
 *     Flags may stand anywhere behind the (sub-)command: --flag value, --flag=value, -f value,
 * -fvalue, -f=value, -abc for flags without value.
 *     "--" ends the flags, "-" is an argument. The last of several values wins, except for lists.
 * -h and --help print help on stdout, exit 0; "help COMMAND" does the same. A wrong command line
 * says what is wrong on stderr, nothing on stdout, exit 2, before anything is run. A command with
 * sub-commands but none given prints their list on stderr, exit 2.
 *
 * Sources: a value comes from the command line, else from cmdline_set() (configuration file), else
 * from the table's default.
 *
 * Secret keys (CMD_SECKEY_AT) are accepted on the command line for compatibility: with a warning,
 * the argument is overwritten in argv, the text is never shown again, and the options are wiped by
 * cmdline_free().
 *
 * Owners: the tables are static and constant. The struct cmdline is the caller's; the options and
 * all strings and lists in them belong to it until cmdline_free(). One thread. crypto_init() must
 * have been called (keys are checked). Limits: CMD_LIST_MAX values of one list flag.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/addr.h"
#include "base/crypto.h"

#define CMD_DEPTH_MAX 4
#define CMD_LIST_MAX  1024

#define CMD_EXIT_OK    0
#define CMD_EXIT_FAIL  1
#define CMD_EXIT_USAGE 2

struct cmdline;

enum cmd_type {
    CMD_FLAG,    /* bool             no value; --flag=false is possible    */
    CMD_STR,     /* const char *     anything     */
    CMD_U64,     /* uint64_t         decimal, min … max     */
    CMD_BYTES,   /* uint64_t         decimal with k, M, G or T (powers of 1024), min … max   */
    CMD_SECONDS, /* uint64_t, in ns  decimal, fraction allowed, with ms, s (default), m, h or d; min
                    … max in ns */
    CMD_PORT,    /* uint16_t         1 … 65535    */
    CMD_CHOICE,  /* int              index of the word in .choices, "dht|hybrid|http"  */
    CMD_PUBKEY,  /* struct pubkey    66 hex digits, point of the curve  */
    CMD_SECKEY,  /* struct seckey    64 hex digits  */
    CMD_HOSTPORT, /* struct addr_hostport  HOST:PORT */
    CMD_LISTEN,   /* struct addr_hostport  HOST:PORT, :PORT, port 0   */
    CMD_PEER,     /* struct addr_peer      PK@HOST:PORT     */
    CMD_DMSG,     /* struct addr_dmsg      PK:PORT     */
};

/* Lists: flags and last arguments that may be repeated. */
struct cmd_strs {
    const char **v;
    size_t n;
};
struct cmd_pubkeys {
    struct pubkey *v;
    size_t n;
};
struct cmd_peers {
    struct addr_peer *v;
    size_t n;
};
struct cmd_hostports {
    struct addr_hostport *v;
    size_t n;
};

/* A flag, or (in struct cmd.args) a positional argument. */
struct cmd_opt {
    const char *name;    /* "seq" for --seq; of an argument: as shown, "SALT" */
    char letter;         /* short form, or 0 */
    char letter2;        /* another one, as other programs have it, or 0; not shown by help */
    bool list;           /* several values; set by CMD_…S_AT() */
    bool optional;       /* arguments only: may be left out, with all behind it */
    enum cmd_type type;  /* set by CMD_…_AT() */
    size_t offset;       /* set by CMD_…_AT() */
    uint64_t min, max;   /* max = 0: no upper limit */
    const char *choices; /* CMD_CHOICE */
    const char
        *def; /* value when absent, as the user would write it; NULL = zeros (not for lists) */
    const char *def_text; /* what help says about an absent value when def cannot say it */
    const char *metavar;  /* "FILE"; NULL = by type */
    const char *help;     /* a sentence without full stop */
};

/* offsetof() that does not compile when the member is not of this type. */
#define CMD_OFFSET(T, member, type_)                                                               \
    (offsetof(T, member) +                                                                         \
     0 * sizeof(                                                                                   \
             char[__builtin_types_compatible_p(__typeof__(((T *)NULL)->member), type_) ? 1 : -1]))
#define CMD_AT_(type_, is_list, T, member, ctype)                                                  \
    .type = (type_), .list = (is_list), .offset = CMD_OFFSET(T, member, ctype)

#define CMD_FLAG_AT(T, member)     CMD_AT_(CMD_FLAG, false, T, member, bool)
#define CMD_STR_AT(T, member)      CMD_AT_(CMD_STR, false, T, member, const char *)
#define CMD_U64_AT(T, member)      CMD_AT_(CMD_U64, false, T, member, uint64_t)
#define CMD_BYTES_AT(T, member)    CMD_AT_(CMD_BYTES, false, T, member, uint64_t)
#define CMD_SECONDS_AT(T, member)  CMD_AT_(CMD_SECONDS, false, T, member, uint64_t)
#define CMD_PORT_AT(T, member)     CMD_AT_(CMD_PORT, false, T, member, uint16_t)
#define CMD_CHOICE_AT(T, member)   CMD_AT_(CMD_CHOICE, false, T, member, int)
#define CMD_PUBKEY_AT(T, member)   CMD_AT_(CMD_PUBKEY, false, T, member, struct pubkey)
#define CMD_SECKEY_AT(T, member)   CMD_AT_(CMD_SECKEY, false, T, member, struct seckey)
#define CMD_HOSTPORT_AT(T, member) CMD_AT_(CMD_HOSTPORT, false, T, member, struct addr_hostport)
#define CMD_LISTEN_AT(T, member)   CMD_AT_(CMD_LISTEN, false, T, member, struct addr_hostport)
#define CMD_PEER_AT(T, member)     CMD_AT_(CMD_PEER, false, T, member, struct addr_peer)
#define CMD_DMSG_AT(T, member)     CMD_AT_(CMD_DMSG, false, T, member, struct addr_dmsg)

#define CMD_STRS_AT(T, member)      CMD_AT_(CMD_STR, true, T, member, struct cmd_strs)
#define CMD_PUBKEYS_AT(T, member)   CMD_AT_(CMD_PUBKEY, true, T, member, struct cmd_pubkeys)
#define CMD_PEERS_AT(T, member)     CMD_AT_(CMD_PEER, true, T, member, struct cmd_peers)
#define CMD_HOSTPORTS_AT(T, member) CMD_AT_(CMD_HOSTPORT, true, T, member, struct cmd_hostports)

/* Flags that several commands share; they land in a struct inside the command's struct. */
struct cmd_group {
    const char *title;          /* "Connection flags"; NULL ends the array */
    const struct cmd_opt *opts; /* ends with a zeroed line */
    size_t base;                /* offset of the shared struct in the command's struct */
};

struct cmd {
    const char *name;  /* NULL ends an array */
    const char *alias; /* a second name, not listed; or NULL */
    const char *help;  /* one line, no full stop */
    const char *about; /* paragraphs for --help and the man page, separated by "\n\n"; or NULL */
    const struct cmd_opt *args;     /* in order; or NULL */
    const struct cmd_opt *opts;     /* or NULL */
    const struct cmd_group *groups; /* or NULL */
    const struct cmd *subs;         /* or NULL */
    size_t opts_size;               /* of the struct that values land in */
    int (*run)(
        struct cmdline *cl); /* returns the exit code; NULL when there are only sub-commands */
    bool hidden;             /* works, but is in no list */
};

struct cmdline {
    const struct cmd *cmd; /* the command that was named */
    void *opts;            /* its struct */
    int exit_code;         /* when cmdline_parse() said false */

    /* private */
    const struct cmd *path[CMD_DEPTH_MAX];
    size_t depth;
    struct cmd_slot *slots;
    size_t slot_count;
    struct cmd_text *texts;
    FILE *out, *err;
};

/* Parse, run, flush stdout (a failure to write it makes a 0 a 1), free. Returns the exit code. */
int cmdline_main(const struct cmd *root, int argc, char **argv);

/* Parse only. True: run cl->cmd. False: help or an error was printed to out/err, leave with
 * cl->exit_code. cmdline_free() in both cases. */
bool cmdline_parse(struct cmdline *cl, const struct cmd *root, int argc, char **argv, FILE *out,
                   FILE *err);
void cmdline_free(struct cmdline *cl);

/* Was this flag or argument given on the command line (or by cmdline_set())? The name must exist
 * (assert). */
bool cmdline_given(const struct cmdline *cl, const char *name);

/*
 * A value from a configuration file, as text; lists are set by repeated calls. Does nothing when
 * the command line gave that flag. 0; ERR_NOT_FOUND (no such flag), ERR_USAGE (bad value),
 * ERR_LIMIT, ERR_NOMEM, with the reason in why (why_cap > 0).
 */
int cmdline_set(struct cmdline *cl, const char *name, const char *value, char *why, size_t why_cap)
    __attribute__((warn_unused_result));

/* Report a wrong combination that the table cannot express. Returns CMD_EXIT_USAGE, so that run()
 * can return it. */
int cmdline_usage_error(struct cmdline *cl, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* The whole name, "kadmsg dht put", to out. Returns out. */
char *cmdline_name(const struct cmdline *cl, char *out, size_t cap);

/* Help of the command that was parsed. */
void cmdline_help(const struct cmdline *cl, FILE *out);

/* Placeholder of a flag's value in help and man pages: "FILE"; "" for CMD_FLAG. */
const char *cmd_opt_metavar(const struct cmd_opt *o);

/*
 * Check a whole table for mistakes of its author: names or letters twice, defaults that do not
 * convert, optional before required arguments, missing help. 0, or ERR_STATE with the first mistake
 * in why. For a unit test of the real table.
 */
int cmdline_check(const struct cmd *root, char *why, size_t why_cap)
    __attribute__((warn_unused_result));
