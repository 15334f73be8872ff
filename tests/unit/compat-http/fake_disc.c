#include "tests/unit/compat-http/fake_disc.h"

#include <stdlib.h>

#include "base/err.h"
#include "tests/unit/vectors.h"

enum what { GET, LIST, SEND, WITHDRAW };

struct request {
    struct list_node node;
    struct loop_timer timer;
    struct fake_disc *d;
    uint64_t handle;
    enum what what;
    struct pubkey pk;
    enum disc_list list;
    struct entry *sent;
    disc_answer_fn *fn;
    void *arg;
};

static size_t find(const struct fake_disc *d, const struct pubkey *pk)
{
    size_t i = 0;
    while (i < d->n && !pubkey_equal(&d->entry[i]->static_pk, pk))
        i++;
    return i;
}

struct entry *fake_disc_entry(const struct fake_disc *d, const struct pubkey *pk)
{
    size_t i = find(d, pk);
    return i < d->n ? d->entry[i] : NULL;
}

void fake_disc_drop(struct fake_disc *d, const struct pubkey *pk)
{
    size_t i = find(d, pk);
    if (i == d->n)
        return;
    entry_free(d->entry[i]);
    d->entry[i] = d->entry[--d->n];
}

void fake_disc_set(struct fake_disc *d, const char *text, size_t n)
{
    struct entry *e;
    assert_int_equal(entry_parse(&e, text, n), 0);
    fake_disc_drop(d, &e->static_pk);
    assert_true(d->n < FAKE_DISC_ENTRIES);
    d->entry[d->n++] = e;
}

static enum disc_text post(struct fake_disc *d, const struct entry *e)
{
    const struct entry *stored = fake_disc_entry(d, &e->static_pk);
    bool was = stored != NULL;
    d->posts++;
    if (d->liar)
        return DISC_WROTE_NEW;
    if (entry_verify(e) < 0 || (d->old && (e->client_type[0] != '\0' || e->server.dht_bootstrap)))
        return DISC_BAD_SIGNATURE;
    if (was && e->sequence <= stored->sequence) {
        d->refused_seq++;
        return DISC_SEQUENCE;
    }
    if (was && e->timestamp_ns < stored->timestamp_ns)
        return DISC_TIMESTAMP;
    fake_disc_set(d, e->text, e->text_len);
    return was ? DISC_WROTE_NEXT : DISC_WROTE_NEW;
}

static void request_free(struct request *q)
{
    loop_timer_cancel(q->d->loop, &q->timer);
    list_remove(&q->node);
    entry_free(q->sent);
    free(q);
}

static size_t list_of(const struct fake_disc *d, enum disc_list what, struct entry **servers,
                      struct pubkey *keys)
{
    size_t n = 0;
    for (size_t i = 0; i < d->n; i++) {
        struct entry *e = d->entry[i];
        if (what == DISC_AVAILABLE_SERVERS || what == DISC_ALL_SERVERS ? !e->has_server
            : what == DISC_VISOR_CLIENTS ? strcmp(e->client_type, "visor") != 0
                                         : !e->has_client)
            continue;
        servers[n] = e;
        keys[n++] = e->static_pk;
    }
    return n;
}

static void on_time(struct loop_timer *t)
{
    struct request *q = container_of(t, struct request, timer);
    struct fake_disc *d = q->d;
    struct entry *servers[FAKE_DISC_ENTRIES];
    struct pubkey keys[FAKE_DISC_ENTRIES];
    struct disc_answer a = {.text = DISC_UNEXPECTED, .err = d->down, .why = ""};
    if (a.err == 0 && q->what == GET) {
        a.entry = d->liar ? NULL : fake_disc_entry(d, &q->pk);
        a.verified = a.entry != NULL && !d->forged && entry_verify(a.entry) == 0;
        a.err = a.entry == NULL ? ERR_NOT_FOUND : !a.verified && !a.entry->has_server ? ERR_SIG : 0;
    } else if (a.err == 0 && q->what == LIST) {
        a.n = list_of(d, q->list, servers, keys);
        a.servers = servers;
        a.keys = keys;
    } else if (a.err == 0) {
        if (q->what == SEND) {
            a.text = post(d, q->sent);
        } else {
            a.text = entry_verify(q->sent) == 0 ? DISC_DELETED : DISC_BAD_SIGNATURE;
            if (a.text == DISC_DELETED)
                fake_disc_drop(d, &q->sent->static_pk);
        }
        a.err = disc_text_err(a.text);
        a.why = disc_text_message(a.text);
    }
    disc_answer_fn *fn = q->fn;
    void *arg = q->arg;
    request_free(q);
    fn(arg, &a);
}

static uint64_t request(struct fake_disc *d, enum what what, const struct pubkey *pk,
                        const char *text, size_t n, disc_answer_fn *fn, void *arg)
{
    struct request *q = calloc(1, sizeof(*q));
    assert_non_null(q);
    q->d = d;
    q->what = what;
    if (pk != NULL)
        q->pk = *pk;
    if (text != NULL)
        assert_int_equal(entry_parse(&q->sent, text, n), 0);
    q->fn = fn;
    q->arg = arg;
    q->handle = ++d->next_handle;
    q->timer.fn = on_time;
    list_push_back(&d->requests, &q->node);
    loop_timer_set(d->loop, &q->timer, d->loop->now_ns + d->delay_ns);
    return q->handle;
}

static uint64_t port_get(void *d, const struct pubkey *pk, disc_answer_fn *fn, void *arg)
{
    ((struct fake_disc *)d)->gets++;
    return request(d, GET, pk, NULL, 0, fn, arg);
}

static struct request *last_request(struct fake_disc *d)
{
    struct list_node *last = list_first(&d->requests);
    for (struct list_node *n = last; n != NULL; n = list_next(&d->requests, n))
        last = n;
    return container_of(last, struct request, node);
}

static uint64_t port_list(void *d, enum disc_list what, disc_answer_fn *fn, void *arg)
{
    ((struct fake_disc *)d)->lists++;
    uint64_t handle = request(d, LIST, NULL, NULL, 0, fn, arg);
    last_request(d)->list = what;
    return handle;
}

static uint64_t port_send(void *arg, bool withdraw, const char *text, size_t n, disc_answer_fn *fn,
                          void *fn_arg)
{
    struct fake_disc *d = arg;
    d->deletes += withdraw;
    return request(d, withdraw ? WITHDRAW : SEND, NULL, text, n, fn, fn_arg);
}

static void port_cancel(void *arg, uint64_t handle)
{
    struct fake_disc *d = arg;
    struct list_node *pos, *tmp;
    list_for_each(pos, tmp, &d->requests)
    {
        struct request *q = container_of(pos, struct request, node);
        if (q->handle == handle) {
            request_free(q);
            return;
        }
    }
}

struct disc_port fake_disc_port(struct fake_disc *d)
{
    return (struct disc_port){d, port_get, port_list, port_send, port_cancel};
}

size_t fake_disc_pending(const struct fake_disc *d)
{
    size_t n = 0;
    for (struct list_node *pos = list_first(&d->requests); pos != NULL;
         pos = list_next(&d->requests, pos))
        n++;
    return n;
}

void fake_disc_init(struct fake_disc *d, struct loop *loop)
{
    memset(d, 0, sizeof(*d));
    d->loop = loop;
    d->delay_ns = 10 * NS_PER_MS;
    list_init(&d->requests);
}

void fake_disc_free(struct fake_disc *d)
{
    struct request *q;
    while ((q = list_first_as(&d->requests, struct request, node)) != NULL)
        request_free(q);
    while (d->n > 0)
        entry_free(d->entry[--d->n]);
}
