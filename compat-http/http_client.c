#include "compat-http/http_client.h"

#include <curl/curl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/err.h"
#include "base/map.h"
#include "compat-http/stream_client.h"

#define ATTEMPTS         3
#define MAX_CONNECTIONS  64L
#define MAX_OF_HOST      8L
#define MAX_KEPT         16L
#define MAX_REDIRECTS    3L
#define CONNECT_MS       5000
#define PAUSE_MS         100
#define PAUSE_MAX_MS     2000
#define BUFFER           16384L
#define BODY_FIRST_BYTES 1024

struct http_waiter {
    struct list_node node; /* in job->waiters */
    uint64_t handle;
    http_answer_fn *fn;
    void *arg;
};

/* One transfer, however many wait for it. */
struct http_job {
    struct list_node node;  /* in client->jobs */
    struct list_node ended; /* in client->ended while its outcome waits to be looked at */
    struct http_client *client;
    struct hash key; /* of a GET that others may join */
    bool shared;     /* it is in client->by_key */
    const char *method;
    char *url, *body;
    size_t body_len;
    struct curl_slist *headers;
    unsigned attempts, done; /* allowed, made */
    uint64_t started_ns, deadline_ns;
    struct loop_timer pause;
    CURL *easy;
    CURLcode code;
    int err; /* found before curl was asked */
    char *answer;
    size_t answer_len, answer_cap, max_body;
    bool too_long;
    struct list waiters;
    char why[CURL_ERROR_SIZE];
};

struct http_sock {
    struct http_client *client;
    struct event *ev;
};

struct http_client {
    struct http_client_cfg cfg;
    struct loop *loop;
    CURLM *multi;
    struct loop_timer timer; /* curl's */
    struct loop_task look;   /* at what has ended */
    struct list jobs, ended;
    struct map by_key;
    uint64_t next_handle;
    struct http_client_stat stat;
};

/* ---- curl and the loop ---- */

static void take_ended(struct http_client *c)
{
    int left;
    CURLMsg *m;
    while ((m = curl_multi_info_read(c->multi, &left)) != NULL) {
        struct http_job *j = NULL;
        if (m->msg != CURLMSG_DONE ||
            curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&j) != CURLE_OK)
            continue;
        j->code = m->data.result;
        if (!list_node_is_linked(&j->ended))
            list_push_back(&c->ended, &j->ended);
    }
    if (!list_empty(&c->ended))
        loop_task_post(c->loop, &c->look);
}

static void on_socket(evutil_socket_t fd, short what, void *arg)
{
    struct http_sock *s = arg;
    struct http_client *c = s->client;
    int running, how = ((what & EV_READ) != 0 ? CURL_CSELECT_IN : 0) |
                       ((what & EV_WRITE) != 0 ? CURL_CSELECT_OUT : 0);
    drive_loop_now(c->cfg.drive);
    (void)curl_multi_socket_action(c->multi, fd, how, &running); /* s may be gone now */
    take_ended(c);
}

static void on_timer(struct loop_timer *t)
{
    struct http_client *c = container_of(t, struct http_client, timer);
    int running;
    (void)curl_multi_socket_action(c->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    take_ended(c);
}

static void sock_free(struct http_sock *s)
{
    if (s->ev != NULL)
        event_free(s->ev);
    free(s);
}

/* curl tells what to wait for. */
static int watch(CURL *easy, curl_socket_t fd, int what, void *arg, void *of_socket)
{
    struct http_client *c = arg;
    struct http_sock *s = of_socket;
    short events = (short)(((what & CURL_POLL_IN) != 0 ? EV_READ : 0) |
                           ((what & CURL_POLL_OUT) != 0 ? EV_WRITE : 0) | EV_PERSIST);
    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        if (s != NULL)
            sock_free(s);
        return 0;
    }
    if (s == NULL) {
        if ((s = calloc(1, sizeof(*s))) == NULL)
            return -1;
        s->client = c;
        (void)curl_multi_assign(c->multi, fd, s);
    }
    if (s->ev != NULL)
        event_free(s->ev);
    s->ev = event_new(drive_loop_base(c->cfg.drive), fd, events, on_socket, s);
    return s->ev != NULL && event_add(s->ev, NULL) == 0 ? 0 : -1;
}

static int set_timer(CURLM *multi, long ms, void *arg)
{
    struct http_client *c = arg;
    (void)multi;
    if (ms < 0)
        loop_timer_cancel(c->loop, &c->timer);
    else
        loop_timer_set(c->loop, &c->timer, c->loop->now_ns + (uint64_t)ms * NS_PER_MS);
    return 0;
}

/* ---- an attempt ---- */

static size_t on_body(char *p, size_t size, size_t n, void *arg)
{
    struct http_job *j = arg;
    size_t bytes = size * n;
    if (bytes > j->max_body - j->answer_len) {
        j->too_long = true;
        return 0;
    }
    if (bytes >= j->answer_cap - j->answer_len) { /* with room for a NUL */
        size_t cap = j->answer_cap != 0 ? j->answer_cap : BODY_FIRST_BYTES;
        while (cap <= j->answer_len + bytes)
            cap *= 2;
        char *more = realloc(j->answer, cap);
        if (more == NULL)
            return 0;
        j->answer = more;
        j->answer_cap = cap;
    }
    memcpy(j->answer + j->answer_len, p, bytes);
    j->answer_len += bytes;
    return bytes;
}

static bool is_dmsg(const char *url)
{
    return strncasecmp(url, "dmsg://", 7) == 0;
}

static int set_place(struct http_job *j)
{
    struct http_client *c = j->client;
    struct stream_url u;
    char path[HTTP_CLIENT_PATH];
    if (!is_dmsg(j->url))
        return curl_easy_setopt(j->easy, CURLOPT_URL, j->url) == CURLE_OK &&
                       curl_easy_setopt(j->easy, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK &&
                       curl_easy_setopt(j->easy, CURLOPT_REDIR_PROTOCOLS_STR, "http,https") ==
                           CURLE_OK &&
                       curl_easy_setopt(j->easy, CURLOPT_FOLLOWLOCATION,
                                        strcmp(j->method, "GET") == 0 ? 1L : 0L) == CURLE_OK &&
                       curl_easy_setopt(j->easy, CURLOPT_MAXREDIRS, MAX_REDIRECTS) == CURLE_OK
                   ? 0
                   : ERR_NOMEM;
    if (c->cfg.socket_of == NULL)
        return ERR_UNSUPPORTED;
    int rc = stream_url_parse(&u, j->url, NULL);
    if (rc == 0)
        rc = c->cfg.socket_of(c->cfg.arg, &u.pk, u.port, path);
    if (rc == 0)
        rc = stream_client_setup(j->easy, &u, path);
    stream_url_free(&u);
    return rc;
}

static unsigned ms_left(const struct http_job *j)
{
    uint64_t now = j->client->loop->now_ns;
    return j->deadline_ns > now ? (unsigned)((j->deadline_ns - now) / NS_PER_MS) : 0;
}

/* All but the last attempt leave time for another one. */
static bool set_rest(struct http_job *j)
{
    unsigned left = ms_left(j) != 0 ? ms_left(j) : 1;
    unsigned ms = j->done < j->attempts && left > 1 ? left / 2 : left;
    unsigned connect = ms < CONNECT_MS ? ms : CONNECT_MS;
    bool ok = curl_easy_setopt(j->easy, CURLOPT_PRIVATE, j) == CURLE_OK &&
              curl_easy_setopt(j->easy, CURLOPT_ERRORBUFFER, j->why) == CURLE_OK &&
              curl_easy_setopt(j->easy, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
              curl_easy_setopt(j->easy, CURLOPT_BUFFERSIZE, BUFFER) == CURLE_OK &&
              curl_easy_setopt(j->easy, CURLOPT_UPLOAD_BUFFERSIZE, BUFFER) == CURLE_OK &&
              curl_easy_setopt(j->easy, CURLOPT_WRITEFUNCTION, on_body) == CURLE_OK &&
              curl_easy_setopt(j->easy, CURLOPT_WRITEDATA, j) == CURLE_OK &&
              curl_easy_setopt(j->easy, CURLOPT_TIMEOUT_MS, (long)ms) == CURLE_OK &&
              curl_easy_setopt(j->easy, CURLOPT_CONNECTTIMEOUT_MS, (long)connect) == CURLE_OK &&
              curl_easy_setopt(j->easy, CURLOPT_USERAGENT, "kadmsg") == CURLE_OK &&
              curl_easy_setopt(j->easy, CURLOPT_HTTPHEADER, j->headers) == CURLE_OK &&
              curl_easy_setopt(j->easy, CURLOPT_CUSTOMREQUEST,
                               strcmp(j->method, "GET") == 0 ? NULL : j->method) == CURLE_OK;
    if (ok && (j->body_len > 0 || strcmp(j->method, "POST") == 0))
        ok = curl_easy_setopt(j->easy, CURLOPT_POSTFIELDS, j->body) == CURLE_OK &&
             curl_easy_setopt(j->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)j->body_len) ==
                 CURLE_OK;
    return ok;
}

static void attempt_end(struct http_job *j)
{
    if (j->easy == NULL)
        return;
    (void)curl_multi_remove_handle(j->client->multi, j->easy);
    curl_easy_cleanup(j->easy);
    j->easy = NULL;
}

static void attempt(struct http_job *j)
{
    struct http_client *c = j->client;
    j->done++;
    j->answer_len = 0;
    j->err = 0;
    j->code = CURLE_OK;
    j->why[0] = '\0';
    j->easy = curl_easy_init();
    j->err = j->easy != NULL ? set_place(j) : ERR_NOMEM;
    if (j->err == 0 && (!set_rest(j) || curl_multi_add_handle(c->multi, j->easy) != CURLM_OK)) {
        j->err = ERR_NOMEM;
    }
    if (j->err == 0)
        return;
    list_push_back(&c->ended, &j->ended);
    loop_task_post(c->loop, &c->look);
}

static void on_pause_over(struct loop_timer *t)
{
    attempt(container_of(t, struct http_job, pause));
}

/* ---- outcome ---- */

static int err_of(const struct http_job *j)
{
    if (j->err != 0)
        return j->err;
    if (j->too_long)
        return ERR_TOO_LONG;
    switch (j->code) {
    case CURLE_OK:
        return 0;
    case CURLE_URL_MALFORMAT:
        return ERR_FORMAT;
    case CURLE_UNSUPPORTED_PROTOCOL:
        return ERR_UNSUPPORTED;
    case CURLE_OPERATION_TIMEDOUT:
        return ERR_TIMEOUT;
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_CONNECT:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
        return ERR_NO_ROUTE;
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_PARTIAL_FILE:
        return ERR_RESET;
    case CURLE_OUT_OF_MEMORY:
    case CURLE_WRITE_ERROR:
        return ERR_NOMEM;
    default:
        return ERR_PROTOCOL;
    }
}

static bool worth_another(const struct http_job *j, int err, long status)
{
    bool get = strcmp(j->method, "GET") == 0;
    if (j->done >= j->attempts)
        return false;
    if (err == 0)
        return get && (status == 429 || (status >= 502 && status <= 504));
    if (err == ERR_NO_ROUTE)
        return j->code == CURLE_COULDNT_CONNECT || j->code == CURLE_COULDNT_RESOLVE_HOST;
    return get && (err == ERR_RESET || err == ERR_TIMEOUT);
}

static bool pause_before_next(struct http_job *j)
{
    unsigned ms = PAUSE_MS << (j->done < 6 ? j->done - 1 : 5);
    uint64_t pause =
        env_jitter_ns(j->client->cfg.env, (ms < PAUSE_MAX_MS ? ms : PAUSE_MAX_MS) * NS_PER_MS, 50);
    if (j->client->loop->now_ns + pause + NS_PER_MS >= j->deadline_ns)
        return false;
    j->client->stat.retried++;
    loop_timer_set(j->client->loop, &j->pause, j->client->loop->now_ns + pause);
    return true;
}

static void job_unshare(struct http_job *j)
{
    if (j->shared)
        (void)map_del(&j->client->by_key, &j->key);
    j->shared = false;
}

static void job_free(struct http_job *j)
{
    struct http_waiter *w;
    while ((w = list_pop_front_as(&j->waiters, struct http_waiter, node)) != NULL)
        free(w);
    attempt_end(j);
    job_unshare(j);
    loop_timer_cancel(j->client->loop, &j->pause);
    list_remove(&j->ended);
    list_remove(&j->node);
    j->client->stat.running--;
    curl_slist_free_all(j->headers);
    free(j->url);
    free(j->body);
    free(j->answer);
    free(j);
}

/* Waiters may start, join and cancel anything meanwhile, also each other. */
static void tell(struct http_job *j, int err, long status)
{
    struct http_client *c = j->client;
    struct http_answer a = {
        .err = err,
        .status = err == 0 ? status : 0,
        .body = j->answer != NULL && err == 0 ? j->answer : "",
        .len = err == 0 ? j->answer_len : 0,
        .attempts = j->done,
        .ms = (unsigned)((c->loop->now_ns - j->started_ns) / NS_PER_MS),
        .why = err == 0                           ? ""
               : j->why[0] != '\0' && j->err == 0 ? j->why
                                                  : err_str(err),
    };
    struct http_waiter *w;
    if (err == 0 && j->answer != NULL)
        j->answer[j->answer_len] = '\0';
    c->stat.failed += err != 0;
    c->stat.timeouts += err == ERR_TIMEOUT;
    c->stat.too_long += err == ERR_TOO_LONG;
    job_unshare(j);
    while ((w = list_pop_front_as(&j->waiters, struct http_waiter, node)) != NULL) {
        w->fn(w->arg, &a);
        free(w);
    }
}

static void job_ended(struct http_job *j)
{
    long status = 0;
    int err = err_of(j);
    if (err == 0)
        (void)curl_easy_getinfo(j->easy, CURLINFO_RESPONSE_CODE, &status);
    bool repeat = !list_empty(&j->waiters) && worth_another(j, err, status);
    attempt_end(j);
    if (repeat && pause_before_next(j))
        return;
    tell(j, err, status);
    job_free(j);
}

static void on_look(struct loop_task *t)
{
    struct http_client *c = container_of(t, struct http_client, look);
    struct list_node *n;
    while ((n = list_pop_front(&c->ended)) != NULL)
        job_ended(container_of(n, struct http_job, ended));
}

/* ---- requests ---- */

static struct http_job *job_new(struct http_client *c, const struct http_request *req)
{
    struct http_job *j = calloc(1, sizeof(*j));
    unsigned timeout = req->timeout_ms != 0 ? req->timeout_ms : HTTP_CLIENT_TIMEOUT_MS;
    if (j == NULL)
        return NULL;
    j->client = c;
    j->pause.fn = on_pause_over;
    j->method = req->method;
    j->attempts = req->attempts != 0 ? req->attempts : ATTEMPTS;
    j->max_body = req->max_body != 0 ? req->max_body : HTTP_CLIENT_BODY;
    j->started_ns = c->loop->now_ns;
    j->deadline_ns = j->started_ns + timeout * NS_PER_MS;
    list_init(&j->waiters);
    list_push_back(&c->jobs, &j->node);
    c->stat.running++;
    j->url = strdup(req->url);
    j->body = malloc(req->body_len + 1);
    if (j->body != NULL && req->body_len > 0)
        memcpy(j->body, req->body, req->body_len);
    j->body_len = req->body_len;
    bool ok = j->url != NULL && j->body != NULL;
    for (const char *const *h = req->headers; ok && h != NULL && *h != NULL; h++) {
        struct curl_slist *more = curl_slist_append(j->headers, *h);
        ok = more != NULL;
        j->headers = ok ? more : j->headers;
    }
    if (ok)
        return j;
    job_free(j);
    return NULL;
}

/* The job of a request: one that is under way for the same GET, or a new one. */
static struct http_job *job_for(struct http_client *c, const struct http_request *req)
{
    bool shares = strcmp(req->method, "GET") == 0 && req->headers == NULL && req->body_len == 0;
    struct hash key;
    struct http_job *j = NULL;
    crypto_sha256(&key, req->url, strlen(req->url));
    if (shares && (j = map_get(&c->by_key, &key)) != NULL) {
        c->stat.joined++;
        return j;
    }
    if (c->stat.running >= HTTP_CLIENT_MAX || (j = job_new(c, req)) == NULL)
        return NULL;
    j->key = key;
    j->shared = shares && map_put(&c->by_key, j) == 0;
    attempt(j);
    return j;
}

/* What could not be started is told from the loop, like everything else. */
static struct http_job *job_refused(struct http_client *c)
{
    static const struct http_request nothing = {.method = "GET", .url = ""};
    struct http_job *j = job_new(c, &nothing);
    c->stat.busy++;
    if (j == NULL)
        return NULL;
    j->err = ERR_BUSY;
    list_push_back(&c->ended, &j->ended);
    loop_task_post(c->loop, &c->look);
    return j;
}

uint64_t http_client_start(struct http_client *c, const struct http_request *req,
                           http_answer_fn *fn, void *arg)
{
    struct http_waiter *w = calloc(1, sizeof(*w));
    struct http_job *j = w != NULL ? job_for(c, req) : NULL;
    if (w != NULL && j == NULL)
        j = job_refused(c);
    if (j == NULL) {
        free(w);
        return 0;
    }
    c->stat.started++;
    w->handle = ++c->next_handle;
    w->fn = fn;
    w->arg = arg;
    list_push_back(&j->waiters, &w->node);
    return w->handle;
}

void http_client_cancel(struct http_client *c, uint64_t handle)
{
    struct list_node *pos, *tmp, *wpos, *wtmp;
    if (handle == 0)
        return;
    list_for_each(pos, tmp, &c->jobs)
    {
        struct http_job *j = container_of(pos, struct http_job, node);
        list_for_each(wpos, wtmp, &j->waiters)
        {
            struct http_waiter *w = container_of(wpos, struct http_waiter, node);
            if (w->handle != handle)
                continue;
            list_remove(&w->node);
            free(w);
            if (list_empty(&j->waiters) && !list_node_is_linked(&j->ended) && j->shared)
                job_free(j); /* nobody waits; what was sent by another method goes on */
            return;
        }
    }
}

void http_client_stat(const struct http_client *c, struct http_client_stat *out)
{
    *out = c->stat;
}

/* ---- life ---- */

int http_client_new(struct http_client **out, const struct http_client_cfg *cfg)
{
    struct http_client *c = calloc(1, sizeof(*c));
    *out = NULL;
    if (c == NULL)
        return ERR_NOMEM;
    c->cfg = *cfg;
    c->loop = drive_loop_loop(cfg->drive);
    c->timer.fn = on_timer;
    c->look.fn = on_look;
    list_init(&c->jobs);
    list_init(&c->ended);
    map_init(&c->by_key, MAP_KEY(struct http_job, key), cfg->env->hash_key, 0);
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK ||
        (c->multi = curl_multi_init()) == NULL ||
        curl_multi_setopt(c->multi, CURLMOPT_SOCKETFUNCTION, watch) != CURLM_OK ||
        curl_multi_setopt(c->multi, CURLMOPT_SOCKETDATA, c) != CURLM_OK ||
        curl_multi_setopt(c->multi, CURLMOPT_TIMERFUNCTION, set_timer) != CURLM_OK ||
        curl_multi_setopt(c->multi, CURLMOPT_TIMERDATA, c) != CURLM_OK ||
        curl_multi_setopt(c->multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, MAX_CONNECTIONS) != CURLM_OK ||
        curl_multi_setopt(c->multi, CURLMOPT_MAX_HOST_CONNECTIONS, MAX_OF_HOST) != CURLM_OK ||
        curl_multi_setopt(c->multi, CURLMOPT_MAXCONNECTS, MAX_KEPT) != CURLM_OK) {
        http_client_free(c);
        return ERR_NOMEM;
    }
    *out = c;
    return 0;
}

void http_client_free(struct http_client *c)
{
    struct http_job *j;
    if (c == NULL)
        return;
    while ((j = list_first_as(&c->jobs, struct http_job, node)) != NULL)
        job_free(j);
    if (c->multi != NULL)
        (void)curl_multi_cleanup(c->multi);
    loop_timer_cancel(c->loop, &c->timer);
    loop_task_cancel(c->loop, &c->look);
    map_free(&c->by_key);
    free(c);
}
