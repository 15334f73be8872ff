/*
 * http_rules - what a file server must know of HTTP, without files and sockets: paths, ranges, conditions, dates, types, escaping (RFC 9110, RFC 3986).
 *
 * Pure functions on strings; nothing allocates, any thread. Dates are in seconds since 1970, UTC.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#define HTTP_DATE_MAX 32 /* "Sun, 06 Nov 1994 08:49:37 GMT" and the NUL */
#define HTTP_ETAG_MAX 48

/*
 * Decode the path of a request ("/a%20b/../c", without query) and take it to its clean form: no ".", "..", "//". out gets the clean decoded path, always beginning
 * with '/', ending with '/' when the request's last segment was empty, "." or "..".
 * 0: it was clean; 1: it was not (redirect to out); ERR_FORMAT: no '/', bad escape, escaped NUL or '/', or a ".." that leaves the root; ERR_TOO_LONG.
 */
int http_path_clean(char *out, size_t cap, const char *path);
/* Percent-encode a path for a header or link: all but unreserved characters, '/', and what segments may have. False: no room. */
bool http_path_encode(char *out, size_t cap, const char *path);
/* Text for HTML, also in quotes. False: no room. */
bool http_html_escape(char *out, size_t cap, const char *text);

struct http_range {
    uint64_t first, n; /* n > 0 */
};
/*
 * A Range header against a body of size bytes. 1: *out is the one range; 0: the header is to be ignored (another unit, bad syntax, several ranges, which RFC 9110 §14.2
 * leaves to the server); ERR_REFUSED: it lies outside (416).
 */
int http_range(struct http_range *out, const char *header, uint64_t size);

/* "Sun, 06 Nov 1994 08:49:37 GMT"; returns out. */
char *http_date(char out[HTTP_DATE_MAX], time_t t);
/* The three formats of RFC 9110 §5.6.7. False: it is no date. */
bool http_date_parse(time_t *out, const char *text);
/* Strong validator of a file: its size and time of change. Returns out. */
char *http_etag(char out[HTTP_ETAG_MAX], uint64_t size, const struct timespec *mtime);
/* Does a list as in If-Match ("*", "a", W/"b") name this tag? weak: W/ is ignored (If-None-Match), else it never matches. */
bool http_etag_listed(const char *list, const char *etag, bool weak);

struct http_conditions { /* header values, NULL = absent */
    const char *if_match, *if_none_match, *if_modified_since, *if_unmodified_since, *if_range;
};
/* RFC 9110 §13.2.2 for GET and HEAD: 200 (go on), 304 or 412. */
int http_conditions_check(const struct http_conditions *c, const char *etag, time_t mtime);
/* May a range be served? */
bool http_if_range(const struct http_conditions *c, const char *etag, time_t mtime);

/* Content-Type by file name; application/octet-stream when the extension is not known. */
const char *http_type_of(const char *name);
