/*
 * curl_out - where the body of a transfer goes: standard output or a file, see curl.h for the rules.
 *
 *     rc = curl_out_name(&out, cfg, i, url);     // 0 or the exit code
 *     curl_out_start(&out, 0);                   // of every answer: the body begins at this offset
 *     n = curl_out_write(&out, p, n);
 *     curl_out_finish(&out, ok);
 */
#pragma once

#include "apps/curl.h"

struct curl_out {
    char *path; /* NULL = stdout */
    int fd;     /* -1: not opened yet */
    bool replace, keep, append_only;
    bool made;   /* by us: remove it when the transfer fails */
    uint64_t at; /* bytes in it */
};

/* Decide the file, check that it may be written, find where to continue. 0 or an exit code (told). */
int curl_out_open(struct curl_out *o, const struct curl_cfg *cfg, size_t i, const char *url_path);
/* The answer's body begins at this offset of the file: 0, or where we are. False: told. */
bool curl_out_start(struct curl_out *o, uint64_t at);
bool curl_out_write(struct curl_out *o, const void *p, size_t n);
/* Close; a file of which nothing came is made when it was asked for. Returns 0 or an exit code. */
int curl_out_finish(struct curl_out *o, bool ok);
