#include "apps/http_req.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

#include "base/addr.h"
#include "base/err.h"

#define METHOD_MAX   20
#define CHUNK_LINE   1024
#define LENGTH_LIMIT (UINT64_MAX / 16 - 16)

static bool is_token(char c)
{
    return isalnum((unsigned char)c) || (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

static bool text_is(struct http_text t, const char *word)
{
    return t.n == strlen(word) && strncasecmp(t.p, word, t.n) == 0;
}

static struct http_text trim(const char *p, size_t n)
{
    while (n > 0 && (*p == ' ' || *p == '\t'))
        p++, n--;
    while (n > 0 && (p[n - 1] == ' ' || p[n - 1] == '\t'))
        n--;
    return (struct http_text){p, n};
}

/* Is word one of the values of a comma list? */
static bool list_has(struct http_text list, const char *word)
{
    while (list.n > 0) {
        const char *comma = memchr(list.p, ',', list.n);
        size_t n = comma != NULL ? (size_t)(comma - list.p) : list.n;
        if (text_is(trim(list.p, n), word))
            return true;
        n += comma != NULL ? 1 : 0;
        list.p += n;
        list.n -= n;
    }
    return false;
}

/* ---- heads ---- */

/* "METHOD target HTTP/1.x": ERR_UNSUPPORTED when it is something else. */
static int request_line(struct http_req *r, const char *p, size_t n)
{
    const char *sp = memchr(p, ' ', n);
    size_t method_n = sp != NULL ? (size_t)(sp - p) : 0;
    if (method_n == 0 || method_n > METHOD_MAX || n < method_n + 1 + 1 + 9)
        return ERR_UNSUPPORTED;
    for (size_t i = 0; i < method_n; i++) {
        if (!is_token(p[i]))
            return ERR_UNSUPPORTED;
    }
    const char *version = p + n - 9;
    if (memcmp(version, " HTTP/1.", 8) != 0 || (version[8] != '0' && version[8] != '1'))
        return ERR_UNSUPPORTED;
    r->method = (struct http_text){p, method_n};
    r->target = (struct http_text){sp + 1, (size_t)(version - sp) - 1};
    r->minor = (unsigned)(version[8] - '0');
    for (size_t i = 0; i < r->target.n; i++) {
        if (r->target.p[i] <= 0x20 || r->target.p[i] == 0x7f)
            return ERR_FORMAT;
    }
    return r->target.n > 0 ? 0 : ERR_FORMAT;
}

static int read_length(uint64_t *out, struct http_text v)
{
    *out = 0;
    for (size_t i = 0; i < v.n; i++) {
        if (!isdigit((unsigned char)v.p[i]) || *out > LENGTH_LIMIT / 10)
            return ERR_FORMAT;
        *out = *out * 10 + (uint64_t)(v.p[i] - '0');
    }
    return v.n > 0 ? 0 : ERR_FORMAT;
}

/* One header line; name and value. */
static int header_split(const char *p, size_t n, struct http_text *name, struct http_text *value)
{
    const char *colon = memchr(p, ':', n);
    size_t name_n = colon != NULL ? (size_t)(colon - p) : 0;
    if (name_n == 0)
        return ERR_FORMAT;
    for (size_t i = 0; i < name_n; i++) {
        if (!is_token(p[i]))
            return ERR_FORMAT;
    }
    for (size_t i = name_n; i < n; i++) {
        if ((p[i] >= 0 && p[i] < 0x20 && p[i] != '\t') || p[i] == 0x7f)
            return ERR_FORMAT;
    }
    *name = (struct http_text){p, name_n};
    *value = trim(colon + 1, n - name_n - 1);
    return 0;
}

static int take_header(struct http_req *r, struct http_text name, struct http_text value)
{
    if (text_is(name, "host")) {
        if (r->host.p != NULL)
            return ERR_FORMAT;
        r->host = value;
    } else if (text_is(name, "content-length")) {
        if (r->body != HTTP_NO_BODY || read_length(&r->length, value) < 0)
            return ERR_FORMAT;
        r->body = HTTP_LENGTH;
    } else if (text_is(name, "transfer-encoding")) {
        if (r->body != HTTP_NO_BODY || !text_is(value, "chunked"))
            return ERR_FORMAT;
        r->body = HTTP_CHUNKED;
    } else if (text_is(name, "connection")) {
        r->upgrade = r->upgrade || list_has(value, "upgrade");
    }
    return 0;
}

/* The end of the line at p, which is the byte behind its CRLF; NULL: it is not there yet. */
static const char *line_end(const char *p, size_t n)
{
    const char *lf = n > 0 ? memchr(p, '\n', n) : NULL;
    return lf != NULL ? lf + 1 : NULL;
}

static bool starts_like_http(const char *p, size_t n)
{
    size_t i = 0;
    while (i < n && i <= METHOD_MAX && is_token(p[i]))
        i++;
    return i <= METHOD_MAX && (i == n || (i > 0 && p[i] == ' '));
}

long http_req_parse(struct http_req *r, const char *p, size_t n)
{
    const char *start = p, *end = p + n, *next;
    memset(r, 0, sizeof(*r));
    if (n > 0 && !starts_like_http(p, n))
        return ERR_UNSUPPORTED;
    for (bool first = true; (next = line_end(p, (size_t)(end - p))) != NULL; first = false) {
        size_t len = (size_t)(next - p);
        struct http_text name, value;
        int rc = 0;
        if (len < 2 || next[-2] != '\r')
            return first ? ERR_UNSUPPORTED : ERR_FORMAT;
        if (next - start > HTTP_REQ_MAX)
            return ERR_TOO_LONG;
        if (first)
            rc = request_line(r, p, len - 2);
        else if (len == 2)
            return next - start;
        else if ((rc = header_split(p, len - 2, &name, &value)) == 0)
            rc = take_header(r, name, value);
        if (rc != 0)
            return rc;
        if (first)
            r->headers = (size_t)(next - start);
        p = next;
    }
    return n > HTTP_REQ_MAX ? ERR_TOO_LONG : 0;
}

/* ---- writing ---- */

static bool goes_out(const struct http_req *r, const struct http_req_change *c,
                     struct http_text name)
{
    if (text_is(name, "host"))
        return c->host == NULL;
    if (c->proxy && (text_is(name, "proxy-connection") || text_is(name, "proxy-authorization")))
        return false;
    return !(c->close && !r->upgrade &&
             (text_is(name, "connection") || text_is(name, "keep-alive")));
}

int http_req_write(struct evbuffer *out, const char *p, size_t head_n, const struct http_req *r,
                   const struct http_req_change *change)
{
    struct http_text t = change->target.n > 0 ? change->target : r->target;
    int bad = evbuffer_add(out, r->method.p, r->method.n) | evbuffer_add(out, " ", 1) |
              evbuffer_add(out, t.p, t.n);
    bad |= evbuffer_add_printf(out, " HTTP/1.%u\r\n", r->minor) < 0;
    if (change->host != NULL)
        bad |= evbuffer_add_printf(out, "Host: %s\r\n", change->host) < 0;
    const char *end = p + head_n - 2;
    for (p += r->headers; p < end;) {
        const char *next = line_end(p, (size_t)(end - p));
        struct http_text name, value;
        if (header_split(p, (size_t)(next - p) - 2, &name, &value) == 0 &&
            goes_out(r, change, name))
            bad |= evbuffer_add(out, p, (size_t)(next - p));
        p = next;
    }
    if (change->close && !r->upgrade)
        bad |= evbuffer_add_printf(out, "Connection: close\r\n") < 0;
    bad |= evbuffer_add(out, "\r\n", 2);
    return bad == 0 ? 0 : ERR_NOMEM;
}

/* ---- targets ---- */

int http_authority_split(struct http_text text, struct http_text *host, uint16_t *port)
{
    const char *end = text.p + text.n, *colon;
    *port = 0;
    if (text.n == 0)
        return ERR_FORMAT;
    if (text.p[0] == '[') {
        const char *bracket = memchr(text.p, ']', text.n);
        if (bracket == NULL)
            return ERR_FORMAT;
        *host = (struct http_text){text.p + 1, (size_t)(bracket - text.p) - 1};
        colon = bracket + 1;
    } else {
        colon = memchr(text.p, ':', text.n);
        colon = colon != NULL ? colon : end;
        *host = (struct http_text){text.p, (size_t)(colon - text.p)};
    }
    if (host->n == 0)
        return ERR_FORMAT;
    for (size_t i = 0; i < host->n; i++) {
        if (host->p[i] == '@' || host->p[i] == '/')
            return ERR_FORMAT;
    }
    if (colon == end)
        return 0;
    if (*colon != ':')
        return ERR_FORMAT;
    return colon + 1 == end ? 0 : addr_port_parse(port, colon + 1, (size_t)(end - colon) - 1, 0);
}

int http_target_split(struct http_text target, bool is_connect, struct http_text *host,
                      uint16_t *port, struct http_text *rest)
{
    static const char scheme[] = "http://";
    const size_t scheme_n = sizeof(scheme) - 1;
    *rest = (struct http_text){"/", 1};
    if (is_connect) {
        int rc = http_authority_split(target, host, port);
        return rc == 0 && *port == 0 ? ERR_FORMAT : rc;
    }
    if (target.n <= scheme_n || strncasecmp(target.p, scheme, scheme_n) != 0)
        return ERR_FORMAT;
    target.p += scheme_n;
    target.n -= scheme_n;
    size_t n = 0;
    while (n < target.n && target.p[n] != '/' && target.p[n] != '?')
        n++;
    if (n < target.n && target.p[n] == '?')
        return ERR_FORMAT; /* no path: nobody sends that, and it would have to be made up */
    if (n < target.n)
        *rest = (struct http_text){target.p + n, target.n - n};
    return http_authority_split((struct http_text){target.p, n}, host, port);
}

/* ---- whole connections ---- */

void http_relay_free(struct http_relay *x)
{
    if (x->line != NULL)
        evbuffer_free(x->line);
    x->line = NULL;
}

static void message_over(struct http_relay *x)
{
    x->state = x->one ? HTTP_OVER : HTTP_HEAD;
    x->later = true;
}

void http_relay_behind(struct http_relay *x, const struct http_req *r)
{
    if (r->upgrade || text_is(r->method, "connect")) {
        x->state = HTTP_UNTOUCHED;
    } else if (r->body == HTTP_CHUNKED) {
        x->state = HTTP_CHUNK;
    } else if (r->body == HTTP_LENGTH && r->length > 0) {
        x->state = HTTP_BODY;
        x->left = r->length;
    } else {
        message_over(x);
    }
}

/* Move collected bytes on. */
static int release(struct http_relay *x, struct evbuffer *out)
{
    return evbuffer_add_buffer(out, x->line) == 0 ? 0 : ERR_NOMEM;
}

static int step_head(struct http_relay *x, struct evbuffer *out)
{
    struct http_req r;
    size_t n = evbuffer_get_length(x->line);
    const char *p = (const char *)evbuffer_pullup(x->line, -1);
    struct http_req_change change = {
        .host = x->host[0] != '\0' ? x->host : NULL, .proxy = x->proxy, .close = x->one};
    struct http_text authority;
    uint16_t port;
    long head = http_req_parse(&r, p, n);
    if (head > 0 && x->proxy &&
        http_target_split(r.target, false, &authority, &port, &change.target) < 0)
        change.target.n = 0;
    if (head == ERR_UNSUPPORTED && !x->later) {
        x->state = HTTP_UNTOUCHED;
        return release(x, out);
    }
    if (head <= 0)
        return head == 0 ? ERR_PENDING : head == ERR_UNSUPPORTED ? ERR_FORMAT : (int)head;
    int rc = http_req_write(out, p, (size_t)head, &r, &change);
    http_relay_behind(x, &r);
    evbuffer_drain(x->line, (size_t)head);
    return rc;
}

/* One line of the chunked coding into *line (without CRLF), and out. ERR_PENDING: not there yet. */
static int take_line(struct http_relay *x, struct evbuffer *out, char *line)
{
    size_t n = evbuffer_get_length(x->line), keep = n < CHUNK_LINE ? n : CHUNK_LINE;
    const char *p = (const char *)evbuffer_pullup(x->line, (ev_ssize_t)keep);
    const char *end = keep > 0 ? line_end(p, keep) : NULL;
    if (end == NULL)
        return n >= CHUNK_LINE ? ERR_TOO_LONG : ERR_PENDING;
    size_t len = (size_t)(end - p);
    if (len < 2 || end[-2] != '\r')
        return ERR_FORMAT;
    memcpy(line, p, len - 2);
    line[len - 2] = '\0';
    return evbuffer_remove_buffer(x->line, out, len) == (int)len ? 0 : ERR_NOMEM;
}

static int step_chunk(struct http_relay *x, struct evbuffer *out)
{
    char line[CHUNK_LINE];
    uint64_t size = 0;
    size_t i = 0;
    int rc = take_line(x, out, line);
    if (rc != 0)
        return rc;
    for (; isxdigit((unsigned char)line[i]); i++) {
        char c = (char)tolower((unsigned char)line[i]);
        if (size > LENGTH_LIMIT / 16)
            return ERR_FORMAT;
        size = size * 16 + (uint64_t)(isdigit((unsigned char)c) ? c - '0' : c - 'a' + 10);
    }
    if (i == 0 || (line[i] != '\0' && line[i] != ';' && line[i] != ' ' && line[i] != '\t'))
        return ERR_FORMAT;
    x->state = size > 0 ? HTTP_DATA : HTTP_TRAILER;
    x->left = size + 2;
    return 0;
}

static int step_trailer(struct http_relay *x, struct evbuffer *out)
{
    char line[CHUNK_LINE];
    int rc = take_line(x, out, line);
    if (rc == 0 && line[0] == '\0')
        message_over(x);
    return rc;
}

static int step_counted(struct http_relay *x, struct evbuffer *out)
{
    size_t n = evbuffer_get_length(x->line);
    if (n == 0)
        return ERR_PENDING;
    n = n < x->left ? n : (size_t)x->left;
    if (evbuffer_remove_buffer(x->line, out, n) != (int)n)
        return ERR_NOMEM;
    x->left -= n;
    if (x->left == 0 && x->state == HTTP_DATA)
        x->state = HTTP_CHUNK;
    else if (x->left == 0)
        message_over(x);
    return 0;
}

static int step(struct http_relay *x, struct evbuffer *out)
{
    switch (x->state) {
    case HTTP_HEAD:
        return evbuffer_get_length(x->line) > 0 ? step_head(x, out) : ERR_PENDING;
    case HTTP_BODY:
    case HTTP_DATA:
        return step_counted(x, out);
    case HTTP_CHUNK:
        return step_chunk(x, out);
    case HTTP_TRAILER:
        return step_trailer(x, out);
    case HTTP_UNTOUCHED:
        return evbuffer_get_length(x->line) > 0 ? release(x, out) : ERR_PENDING;
    case HTTP_OVER:
        return ERR_EOF;
    }
    return ERR_STATE;
}

int http_relay_input(struct http_relay *x, const uint8_t *p, size_t n, struct evbuffer *out)
{
    int rc = 0;
    if (x->state == HTTP_OVER)
        return ERR_EOF;
    if (x->line == NULL && (x->line = evbuffer_new()) == NULL)
        return ERR_NOMEM;
    if (n > 0 && evbuffer_add(x->line, p, n) != 0)
        return ERR_NOMEM;
    while (rc == 0)
        rc = step(x, out);
    return rc == ERR_PENDING ? 0 : rc;
}
