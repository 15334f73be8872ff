#include "apps/http_rules.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/err.h"

/* ---- paths ---- */

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* One character of an escaped text; 0 on a bad escape. */
static char next_char(const char **p)
{
    char c = *(*p)++;
    if (c != '%')
        return c;
    int hi = hex_digit((*p)[0]), lo = hi < 0 ? -1 : hex_digit((*p)[1]);
    if (lo < 0)
        return 0;
    *p += 2;
    return (char)(hi * 16 + lo);
}

/* Where the segment before the last '/' of out[0 … n) begins. */
static size_t parent(const char *out, size_t n)
{
    n -= n > 0;
    while (n > 0 && out[n - 1] != '/')
        n--;
    return n;
}

/* A whole segment is in out[at … n): leave out what says nothing. Returns the new end, 0 = above the root. */
static size_t segment_end(char *out, size_t at, size_t n)
{
    size_t len = n - at;
    if (len == 0 || (len == 1 && out[at] == '.'))
        return at;
    if (len == 2 && out[at] == '.' && out[at + 1] == '.')
        return parent(out, at);
    out[n] = '/';
    return n + 1;
}

int http_path_clean(char *out, size_t cap, const char *path)
{
    size_t n = 0, at;
    bool changed = false;
    if (*path != '/' || cap < 2)
        return ERR_FORMAT;
    out[n++] = *path++;
    at = n;
    while (*path != '\0') {
        bool literal = *path != '%';
        char c = next_char(&path);
        if (c == 0)
            return ERR_FORMAT;
        if (n + 2 >= cap)
            return ERR_TOO_LONG;
        if (c != '/' || !literal) { /* an escaped slash is a character of a name, and no file's */
            if (c == '/')
                return ERR_FORMAT;
            out[n++] = c;
            continue;
        }
        size_t end = segment_end(out, at, n);
        changed = changed || end != n + 1;
        if (end == 0)
            return ERR_FORMAT;
        at = n = end;
    }
    size_t len = n - at;
    if ((len == 1 && out[at] == '.') || (len == 2 && out[at] == '.' && out[at + 1] == '.')) {
        n = segment_end(out, at, n);
        changed = true;
        if (n == 0)
            return ERR_FORMAT;
    }
    out[n] = '\0';
    return changed;
}

bool http_path_encode(char *out, size_t cap, const char *path)
{
    static const char keep[] = "-._~/!$&'()*+,;=@";
    size_t n = 0;
    for (; *path != '\0'; path++) {
        unsigned char c = (unsigned char)*path;
        if (cap - n < 4)
            return false;
        if ((c < 0x80 && isalnum(c)) || strchr(keep, c) != NULL)
            out[n++] = (char)c;
        else
            n += (size_t)snprintf(out + n, cap - n, "%%%02X", c);
    }
    out[n] = '\0';
    return true;
}

static const char *html_entity(char c)
{
    switch (c) {
    case '&':
        return "&amp;";
    case '<':
        return "&lt;";
    case '>':
        return "&gt;";
    case '"':
        return "&quot;";
    case '\'':
        return "&#39;";
    default:
        return NULL;
    }
}

bool http_html_escape(char *out, size_t cap, const char *text)
{
    size_t n = 0;
    for (; *text != '\0'; text++) {
        const char *e = html_entity(*text);
        size_t len = e != NULL ? strlen(e) : 1;
        if (cap - n < len + 1)
            return false;
        memcpy(out + n, e != NULL ? e : text, len);
        n += len;
    }
    out[n] = '\0';
    return true;
}

/* ---- ranges ---- */

static const char *skip_blanks(const char *p)
{
    return p + strspn(p, " \t");
}

/* Decimal digits. False: none, or too big (no file is: the caller takes the largest number). */
static bool number(const char **p, uint64_t *out)
{
    const char *start = *p;
    uint64_t v = 0;
    bool over = false;
    for (; **p >= '0' && **p <= '9'; (*p)++) {
        unsigned digit = (unsigned)(**p - '0');
        over = over || v > (UINT64_MAX - digit) / 10;
        v = over ? UINT64_MAX : v * 10 + digit;
    }
    *out = v;
    return *p != start;
}

/* One of "a-b", "a-", "-n". 1: satisfiable, 0: not, < 0: bad syntax. */
static int one_range(struct http_range *r, const char **p, uint64_t size)
{
    uint64_t first = 0, last = 0;
    bool has_first = number(p, &first);
    if (**p != '-')
        return ERR_FORMAT;
    (*p)++;
    bool has_last = number(p, &last);
    if (!has_first && !has_last)
        return ERR_FORMAT;
    if (!has_first) { /* the last n bytes */
        r->n = last < size ? last : size;
        r->first = size - r->n;
        return r->n > 0;
    }
    if (has_last && last < first)
        return ERR_FORMAT;
    if (first >= size)
        return 0;
    r->first = first;
    r->n = has_last && last < size ? last - first + 1 : size - first;
    return 1;
}

int http_range(struct http_range *out, const char *header, uint64_t size)
{
    if (strncasecmp(header, "bytes=", 6) != 0)
        return 0;
    const char *p = skip_blanks(header + 6);
    int rc = one_range(out, &p, size);
    if (rc < 0 || *skip_blanks(p) != '\0')
        return 0;
    return rc > 0 ? 1 : ERR_REFUSED;
}

/* ---- dates ---- */

char *http_date(char out[HTTP_DATE_MAX], time_t t)
{
    struct tm tm = {0};
    /* The program never leaves the C locale: the names are English. */
    if (gmtime_r(&t, &tm) == NULL ||
        strftime(out, HTTP_DATE_MAX, "%a, %d %b %Y %H:%M:%S GMT", &tm) == 0)
        memcpy(out, "Thu, 01 Jan 1970 00:00:00 GMT", 30);
    return out;
}

bool http_date_parse(time_t *out, const char *text)
{
    static const char *const formats[] = {"%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT",
                                          "%a %b %e %H:%M:%S %Y"};
    for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++) {
        struct tm tm = {0};
        const char *end = strptime(text, formats[i], &tm);
        if (end == NULL || *end != '\0')
            continue;
        *out = timegm(&tm);
        return true;
    }
    return false;
}

/* ---- conditions ---- */

char *http_etag(char out[HTTP_ETAG_MAX], uint64_t size, const struct timespec *mtime)
{
    uint64_t ns = (uint64_t)mtime->tv_sec * 1000000000u + (uint64_t)mtime->tv_nsec;
    snprintf(out, HTTP_ETAG_MAX, "\"%" PRIx64 "-%" PRIx64 "\"", ns, size);
    return out;
}

bool http_etag_listed(const char *list, const char *etag, bool weak)
{
    size_t n = strlen(etag);
    const char *p = skip_blanks(list);
    if (strcmp(p, "*") == 0)
        return true;
    while (*p != '\0') {
        bool is_weak = strncmp(p, "W/", 2) == 0;
        p += is_weak ? 2 : 0;
        if (strncmp(p, etag, n) == 0 && (weak || !is_weak))
            return true;
        p = strchr(p, ','); /* our tags have no commas; others' pieces do not match */
        if (p == NULL)
            break;
        p = skip_blanks(p + 1);
    }
    return false;
}

int http_conditions_check(const struct http_conditions *c, const char *etag, time_t mtime)
{
    time_t t;
    if (c->if_match != NULL) {
        if (!http_etag_listed(c->if_match, etag, false))
            return 412;
    } else if (c->if_unmodified_since != NULL && http_date_parse(&t, c->if_unmodified_since) &&
               mtime > t) {
        return 412;
    }
    if (c->if_none_match != NULL)
        return http_etag_listed(c->if_none_match, etag, true) ? 304 : 200;
    if (c->if_modified_since != NULL && http_date_parse(&t, c->if_modified_since) && mtime <= t)
        return 304;
    return 200;
}

bool http_if_range(const struct http_conditions *c, const char *etag, time_t mtime)
{
    time_t t;
    if (c->if_range == NULL)
        return true;
    if (strchr(c->if_range, '"') != NULL)
        return strcmp(c->if_range, etag) == 0;
    return http_date_parse(&t, c->if_range) && t == mtime;
}

/* ---- types ---- */

const char *http_type_of(const char *name)
{
    static const char *const types[][2] = {
        {"html", "text/html; charset=utf-8"},
        {"htm", "text/html; charset=utf-8"},
        {"css", "text/css; charset=utf-8"},
        {"js", "text/javascript; charset=utf-8"},
        {"mjs", "text/javascript; charset=utf-8"},
        {"json", "application/json"},
        {"map", "application/json"},
        {"txt", "text/plain; charset=utf-8"},
        {"text", "text/plain; charset=utf-8"},
        {"log", "text/plain; charset=utf-8"},
        {"md", "text/markdown; charset=utf-8"},
        {"csv", "text/csv; charset=utf-8"},
        {"xml", "text/xml; charset=utf-8"},
        {"svg", "image/svg+xml"},
        {"png", "image/png"},
        {"jpg", "image/jpeg"},
        {"jpeg", "image/jpeg"},
        {"gif", "image/gif"},
        {"webp", "image/webp"},
        {"avif", "image/avif"},
        {"ico", "image/vnd.microsoft.icon"},
        {"bmp", "image/bmp"},
        {"pdf", "application/pdf"},
        {"wasm", "application/wasm"},
        {"woff", "font/woff"},
        {"woff2", "font/woff2"},
        {"ttf", "font/ttf"},
        {"otf", "font/otf"},
        {"mp3", "audio/mpeg"},
        {"ogg", "audio/ogg"},
        {"oga", "audio/ogg"},
        {"flac", "audio/flac"},
        {"wav", "audio/wav"},
        {"mp4", "video/mp4"},
        {"webm", "video/webm"},
        {"mkv", "video/x-matroska"},
        {"zip", "application/zip"},
        {"gz", "application/gzip"},
        {"xz", "application/x-xz"},
        {"bz2", "application/x-bzip2"},
        {"zst", "application/zstd"},
        {"tar", "application/x-tar"},
        {"7z", "application/x-7z-compressed"},
        {"deb", "application/vnd.debian.binary-package"},
    };
    const char *slash = strrchr(name, '/'), *dot = strrchr(slash != NULL ? slash : name, '.');
    for (size_t i = 0; dot != NULL && i < sizeof(types) / sizeof(types[0]); i++)
        if (strcasecmp(dot + 1, types[i][0]) == 0)
            return types[i][1];
    return "application/octet-stream";
}
