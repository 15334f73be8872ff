#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apps/curl.h"
#include "base/err.h"
#include "base/version.h"
#include "node/app_net.h"
#include "node/cmds.h"
#include "node/tool_compat.h"

struct curl_opts {
    struct tool_opts conn;
    struct tool_compat compat;
    struct cmd_strs urls, outs, headers, data;
    const char *method, *upload, *range, *resume, *agent, *user, *dump_header;
    bool to_stdout, remote_name, replace, head, include, follow, fail, verbose, compressed;
    bool path_as_is, silent, progress;
    uint64_t tries, wait, max_time, stall, max_redirects, max_size;
};

static volatile sig_atomic_t stop_asked;

static void on_signal(int sig)
{
    (void)sig;
    stop_asked = stop_asked + 1;
}

static int read_resume(struct cmdline *cl, const struct curl_opts *o, struct curl_cfg *cfg)
{
    char *end;
    if (o->resume == NULL)
        return 0;
    cfg->resume_auto = strcmp(o->resume, "-") == 0;
    if (cfg->resume_auto)
        return 0;
    cfg->resume_at = strtoull(o->resume, &end, 10);
    return *o->resume >= '0' && *o->resume <= '9' && *end == '\0'
               ? 0
               : cmdline_usage_error(cl, "--continue-at: %s: neither a number nor -", o->resume);
}

static int check(struct cmdline *cl, const struct curl_opts *o, const struct curl_cfg *cfg)
{
    bool resumes = cfg->resume_auto || cfg->resume_at > 0;
    bool to_file = cfg->remote_name || cfg->n_outs > 0;
    if (o->to_stdout && to_file)
        return cmdline_usage_error(cl, "--stdout excludes -o and -O");
    if (cfg->resume_auto && !to_file)
        return cmdline_usage_error(cl, "-C - needs -o or -O");
    if (resumes && (cfg->range != NULL || cfg->include))
        return cmdline_usage_error(cl, "-C excludes --range, -i and -I");
    if (cfg->upload != NULL && cfg->n_data > 0)
        return cmdline_usage_error(cl, "-T and -d exclude each other");
    if (cfg->json && (!to_file || (!cfg->remote_name && cfg->n_outs < cfg->n_urls)))
        return cmdline_usage_error(cl, "--json needs -o for each URL, or -O");
    return 0;
}

static int fetch(const struct curl_cfg *cfg, const struct tool_opts *conn)
{
    struct app_net *net;
    int rc = app_net_open(&net, conn, TOOL_SESSION);
    if (rc == 0)
        rc = curl_run(net, cfg);
    app_net_close(net);
    return rc;
}

static int run(struct cmdline *cl)
{
    struct curl_opts *o = cl->opts;
    struct tool_opts conn;
    char agent[128];
    struct sigaction sa = {.sa_handler = on_signal};
    struct curl_cfg cfg = {
        .urls = o->urls.v,
        .n_urls = o->urls.n,
        .outs = o->outs.v,
        .n_outs = o->outs.n,
        .remote_name = o->remote_name,
        .replace = o->replace,
        .range = o->range,
        .headers = o->headers.v,
        .n_headers = o->headers.n,
        .method = o->method,
        .data = o->data.v,
        .n_data = o->data.n,
        .upload = o->upload,
        .head = o->head,
        .include = o->include || o->head,
        .follow = o->follow,
        .fail = o->fail,
        .verbose = o->verbose,
        .compressed = o->compressed,
        .path_as_is = o->path_as_is,
        .dump_header = o->dump_header,
        .agent = o->agent != NULL ? o->agent : agent,
        .user = o->user,
        .max_redirects = o->max_redirects,
        .tries = o->tries,
        .wait_ns = o->wait,
        .max_time_ms = o->max_time / 1000000,
        .stall_s = o->stall / 1000000000,
        .max_size = o->max_size,
        .progress = o->silent ? -1 : o->progress,
        .json = o->conn.json,
        .stop = &stop_asked,
    };
    snprintf(agent, sizeof(agent), "kadmsg-curl/%s", version_str());
    int rc = read_resume(cl, o, &cfg);
    if (rc == 0)
        rc = check(cl, o, &cfg);
    if (rc == 0)
        rc = curl_check_urls(&cfg);
    if (rc == 0)
        rc = tool_compat_apply(cl, &o->compat, &o->conn, "DMSGCURL_SK DMSGGET_SK dmsgpost_SK",
                               &conn);
    if (rc != 0)
        return rc;
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
    signal(SIGPIPE, SIG_IGN);
    return fetch(&cfg, &conn);
}

static const struct cmd_opt args[] = {
    {.name = "URL",
     CMD_STRS_AT(struct curl_opts, urls),
     .help = "what to fetch: dmsg://PK[:PORT][/path], port 80 when absent"},
    {0}};
static const struct cmd_opt flags[] = {
    {.name = "out",
     .letter = 'o',
     CMD_STRS_AT(struct curl_opts, outs),
     .metavar = "FILE",
     .help = "write the body to this file or into this directory; repeated: one for each URL"},
    {.name = "remote-name",
     .letter = 'O',
     CMD_FLAG_AT(struct curl_opts, remote_name),
     .help = "write to a file named as the URL's path ends"},
    {.name = "stdout",
     .letter = 'n',
     CMD_FLAG_AT(struct curl_opts, to_stdout),
     .help = "write to standard output, as without -o"},
    {.name = "replace",
     .letter = 'r',
     CMD_FLAG_AT(struct curl_opts, replace),
     .help = "overwrite existing files"},
    {.name = "continue-at",
     .letter = 'C',
     CMD_STR_AT(struct curl_opts, resume),
     .metavar = "OFFSET",
     .help = "go on at this byte; - goes on at the end of the file, and keeps what came if it "
             "fails again"},
    {.name = "try",
     .letter = 't',
     CMD_U64_AT(struct curl_opts, tries),
     .metavar = "N",
     .def = "1",
     .help = "attempts, 0 = for ever; the next one goes on where the last one ended"},
    {.name = "wait",
     .letter = 'w',
     CMD_SECONDS_AT(struct curl_opts, wait),
     .def = "0",
     .help = "between attempts"},
    {.name = "data",
     .letter = 'd',
     CMD_STRS_AT(struct curl_opts, data),
     .metavar = "DATA",
     .help = "POST this as text/plain; @FILE is a file's content; repeated: joined by &"},
    {.name = "upload-file",
     .letter = 'T',
     CMD_STR_AT(struct curl_opts, upload),
     .metavar = "FILE",
     .help = "PUT this file; - is standard input"},
    {.name = "request",
     .letter = 'X',
     CMD_STR_AT(struct curl_opts, method),
     .metavar = "METHOD",
     .help = "method of the request"},
    {.name = "header",
     .letter = 'H',
     CMD_STRS_AT(struct curl_opts, headers),
     .metavar = "LINE",
     .help = "one more header, \"Name: value\"; \"Name:\" leaves one out"},
    {.name = "head", .letter = 'I', CMD_FLAG_AT(struct curl_opts, head), .help = "headers only"},
    {.name = "include",
     .letter = 'i',
     CMD_FLAG_AT(struct curl_opts, include),
     .help = "the answer's headers in the output"},
    {.name = "dump-header",
     CMD_STR_AT(struct curl_opts, dump_header),
     .metavar = "FILE",
     .help = "the answer's headers to this file"},
    {.name = "location",
     .letter = 'L',
     CMD_FLAG_AT(struct curl_opts, follow),
     .help = "follow redirects, also to other keys"},
    {.name = "max-redirs",
     CMD_U64_AT(struct curl_opts, max_redirects),
     .metavar = "N",
     .def = "50",
     .max = 10000,
     .help = "with -L"},
    {.name = "fail",
     .letter = 'f',
     CMD_FLAG_AT(struct curl_opts, fail),
     .help = "status 400 and above is a failure (22), its body is not written"},
    {.name = "range",
     CMD_STR_AT(struct curl_opts, range),
     .metavar = "RANGE",
     .help = "these bytes only, such as 0-99, 100- or -10"},
    {.name = "agent",
     .letter = 'a',
     CMD_STR_AT(struct curl_opts, agent),
     .metavar = "TEXT",
     .def_text = "kadmsg-curl/VERSION",
     .help = "User-Agent"},
    {.name = "user",
     .letter = 'u',
     CMD_STR_AT(struct curl_opts, user),
     .metavar = "NAME:PASSWORD",
     .help = "basic authentication"},
    {.name = "compressed",
     CMD_FLAG_AT(struct curl_opts, compressed),
     .help = "ask for a compressed answer, and decode it"},
    {.name = "path-as-is",
     CMD_FLAG_AT(struct curl_opts, path_as_is),
     .help = "leave /../ in the path"},
    {.name = "max-time",
     .letter = 'm',
     CMD_SECONDS_AT(struct curl_opts, max_time),
     .def_text = "no limit",
     .max = 86400000000000000,
     .help = "for a whole transfer"},
    {.name = "stall-time",
     CMD_SECONDS_AT(struct curl_opts, stall),
     .def = "300",
     .min = 1000000000,
     .max = 86400000000000,
     .help = "give up when nothing has moved for so long"},
    {.name = "max-filesize",
     CMD_BYTES_AT(struct curl_opts, max_size),
     .metavar = "BYTES",
     .def_text = "no limit",
     .help = "give up when the body is larger"},
    {.name = "silent", CMD_FLAG_AT(struct curl_opts, silent), .help = "no progress"},
    {.name = "progress",
     CMD_FLAG_AT(struct curl_opts, progress),
     .help = "progress on standard error also when that is no terminal"},
    {.name = "verbose",
     .letter = 'v',
     CMD_FLAG_AT(struct curl_opts, verbose),
     .help = "show requests and answers on standard error"},
    {0}};
static const struct cmd_group groups[] = {
    {"Connection flags", tool_flags, offsetof(struct curl_opts, conn)},
    {TOOL_COMPAT_TITLE, tool_compat_flags_curl, offsetof(struct curl_opts, compat)},
    {0}};

const struct cmd cmd_curl = {
    .name = "curl",
    .help = "HTTP requests over dmsg",
    .about =
        "Fetches URLs of the form dmsg://PK[:PORT]/path, one after the other, through the node "
        "that runs on this machine or with --bootstrap. The body goes to standard output, messages "
        "and "
        "progress to standard error. Status 400 and above is no failure without -f, as in curl. "
        "Some letters are those of upstream's tool and differ from curl's: -r, -s, -A, -D, -e, -S, "
        "-t, -w.\n\n"
        "A file that is there is not overwritten without -r. When a transfer fails, a new file is "
        "removed, unless -C - is given. With --try the next attempt goes on where the last one "
        "ended, if the server's answer says how to tell that the file is still the same.\n\n"
        "With --json each URL gives one object: url, exit, status, bytes, ms, attempts, file.\n\n"
        "Exit codes: " CURL_EXIT_DOC,
    .args = args,
    .opts = flags,
    .groups = groups,
    .opts_size = sizeof(struct curl_opts),
    .run = run,
};
