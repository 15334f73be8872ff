/*
 * curl - `kadmsg curl`: HTTP requests over streams (docs/protocol/apps.md §1.3, §2.1).
 *
 * libcurl does the transfers, over forwards of the net (compat-http/stream_client.h); here is what a person expects around them: output files, resume, repeated
 * attempts, redirects between keys, progress, exit codes. URLs are fetched one after the other; connections to one key and port are reused.
 *
 * Output files: an existing file is refused (22) unless it is to be replaced or continued; parent directories are made; a new file appears when the first byte comes, and is removed when
 * the transfer fails, unless it is to be continued (resume_auto). What was received before a failed attempt is continued by the next one if the server's answer had a strong
 * ETag or a date, with If-Range; else the file starts anew.
 *
 * Exit codes (enum curl_exit) are those of upstream's tool where it has them, else curl's own.
 *
 * Threads: one. Deadlines: a dial has net->timeout_ms, a transfer max_time_ms and stall_s.
 *
 *     struct curl_cfg cfg = {.urls = urls, .n_urls = 1, .tries = 1, .stop = &stop};
 *     return curl_run(net, &cfg);
 */
#pragma once

#include <signal.h>
#include <stdbool.h>

#include "apps/net.h"

enum curl_exit {
    CURL_EXIT_OK = 0,
    CURL_EXIT_FAILED = 1,
    CURL_EXIT_USAGE = 2,
    CURL_EXIT_URL = 3,       /* malformed URL */
    CURL_EXIT_NOT_FOUND = 6, /* the key is not found, or no server leads to it */
    CURL_EXIT_REFUSED = 7,   /* nobody listens there */
    CURL_EXIT_PARTIAL = 18,
    CURL_EXIT_HTTP = 22, /* status 400 and above with -f; or the output file cannot be made */
    CURL_EXIT_WRITE = 23,
    CURL_EXIT_READ = 26,
    CURL_EXIT_TIMEOUT = 28,
    CURL_EXIT_RANGE = 33, /* the server cannot resume */
    CURL_EXIT_REDIRECTS = 47,
    CURL_EXIT_SIZE = 63,
    CURL_EXIT_CANCELLED = 64,
};

struct curl_cfg {
    const char *const *urls;
    size_t n_urls;
    const char *const *outs; /* output of the n-th URL; "-" and absent: stdout */
    size_t n_outs;
    bool remote_name;   /* no -o: the last segment of the path, in the current directory */
    bool replace;       /* existing files */
    bool resume_auto;   /* continue at the end of the output file */
    uint64_t resume_at; /* or at this byte */
    const char *range;
    const char *const *headers;
    size_t n_headers;
    const char *method;
    const char *const *data; /* joined by '&'; "@FILE" is its content, "@-" stdin */
    size_t n_data;
    const char *upload; /* file for PUT; "-" = stdin */
    bool head, include, follow, fail, verbose, compressed, path_as_is;
    const char *dump_header; /* file */
    const char *agent, *user;
    uint64_t max_redirects, tries /* 0 = for ever */, wait_ns, max_time_ms, stall_s, max_size;
    int progress; /* 1 on, -1 off, 0: on a terminal */
    bool json;    /* one object for each URL on stdout */
    const volatile sig_atomic_t *stop;
};

/* Before anything is opened: 0, or CURL_EXIT_URL and a line on stderr. */
int curl_check_urls(const struct curl_cfg *cfg);
/* Returns the exit code: that of the first URL that failed. Failures are told on stderr. */
int curl_run(struct app_net *net, const struct curl_cfg *cfg);
/* The list for documents. */
#define CURL_EXIT_DOC                                                                              \
    "0 done; 1 failed; 2 wrong usage; 3 malformed URL; 6 the key is not found, or no server "      \
    "leads "                                                                                       \
    "to it; 7 nobody listens on that port; 18 the body ended too early; 22 status 400 or above "   \
    "with -f, or the output file cannot be made or is there already; 23 write error; 26 read "     \
    "error; 28 timed out; 33 the server cannot resume; 47 too many redirects; 63 the body is "     \
    "larger than --max-filesize; 64 interrupted; others as in curl(1)."
