#include "tests/unit/kademlia/old_peer.h"

#include "base/err.h"
#include "kademlia/codec_json.h"

struct serving {
    struct old_peer *o;
    struct kad_frame in;
};

size_t old_frame_max(const struct old_peer *o)
{
    return o->form == OLD_EARLY ? 65536 : KAD_FRAME_MAX;
}

static size_t find(const struct old_peer *o, const struct kad_id *target)
{
    size_t i = 0;
    while (i < o->n && !kad_id_equal(&o->item[i].target, target))
        i++;
    return i;
}

bool old_has(const struct old_peer *o, const struct kad_id *target)
{
    return find(o, target) < o->n;
}

static int put(struct old_peer *o, const struct kad_msg_item *mi)
{
    struct kad_id target = mi->has_target ? mi->target : item_target(&mi->item->item);
    size_t i = find(o, &target);
    int rc = o->verify != NULL ? o->verify(o->arg, &mi->item->item) : item_verify(&mi->item->item);
    if (rc == 0 && i < o->n && o->item[i].item->item.seq >= mi->item->item.seq)
        rc = ERR_SEQ;
    if (rc != 0 || i == OLD_ITEMS)
        return rc;
    if (i < o->n) {
        item_ref_put(o->item[i].item);
    } else if (o->n++ % 64 == 0) {
        o->item = realloc(o->item, (i + 64) * sizeof *o->item);
        assert_non_null(o->item);
    }
    o->item[i].target = target;
    o->item[i].item = item_ref_get(mi->item);
    return 0;
}

bool old_answer(struct old_peer *o, const struct pubkey *self, struct kad_msg *req,
                struct kad_msg *rsp)
{
    kad_msg_init(rsp, req->method, true);
    rsp->sender = *self;
    size_t i = find(o, &req->target);
    switch (req->method) {
    case KAD_PING:
    case KAD_FIND_NODE: /* its table is empty: "closest":null */
        return true;
    case KAD_GET_VALUE:
        if (i < o->n)
            assert_int_equal(kad_msg_add_item(rsp, o->item[i].item, NULL), 0);
        return true;
    case KAD_PUT_VALUE:
        rsp->error = put(o, &req->items[0]);
        rsp->stored = rsp->error == 0;
        return true;
    case KAD_GET_ITEMS:
        for (i = 0; i < o->n && o->form == OLD_LATE; i++)
            assert_int_equal(kad_msg_add_item(rsp, o->item[i].item, &o->item[i].target), 0);
        return o->form == OLD_LATE;
    case KAD_PUT_BATCH:
        for (i = 0; i < req->n_items && o->form == OLD_LATE; i++) {
            assert_int_equal(kad_msg_add_item(rsp, req->items[i].item, NULL), 0);
            rsp->items[i].result = put(o, &req->items[i]);
        }
        return o->form == OLD_LATE;
    case KAD_GET_BATCH:
    case KAD_WATCH:
    case KAD_CHANGED:
    case KAD_RECONCILE:
    case KAD_METHOD__END:
        break;
    }
    return false;
}

static void end_serving(struct serving *s, struct stream *st)
{
    kad_frame_clear(&s->in);
    free(s);
    stream_close(st);
}

static void serve(struct serving *s, struct stream *st)
{
    struct old_peer *o = s->o;
    struct kad_msg req, rsp;
    uint8_t *frame;
    size_t n;
    if (kad_json_decode(&req, s->in.method, false, s->in.body, s->in.body_len) != 0) {
        o->closed++;
        return;
    }
    o->extended += req.network != 0 || req.offer != 0;
    if (old_answer(o, &o->w->client[o->client].key.pk, &req, &rsp)) {
        assert_int_equal(kad_json_encode(&frame, &n, &rsp), 0);
        assert_int_equal(stream_write(st, frame, n), n);
        free(frame);
        o->asked[req.method]++;
    } else {
        o->closed++;
    }
    kad_msg_clear(&rsp);
    kad_msg_clear(&req);
}

static void readable(struct stream *st, void *arg)
{
    struct serving *s = arg;
    uint8_t piece[4096];
    size_t n, used;
    int rc = ERR_AGAIN;
    while (rc == ERR_AGAIN && (n = stream_read(st, piece, sizeof piece)) > 0)
        rc = kad_frame_feed(&s->in, piece, n, &used);
    if (rc == ERR_AGAIN && !stream_eof(st))
        return;
    if (rc == 0)
        serve(s, st);
    else
        s->o->closed++;
    end_serving(s, st);
}

static void ended(struct stream *st, void *arg, int err)
{
    (void)err;
    end_serving(arg, st);
}

static void on_accept(void *arg, struct stream *st)
{
    static const struct stream_cb cb = {.readable = readable, .ended = ended};
    struct serving *s = calloc(1, sizeof *s);
    assert_non_null(s);
    s->o = arg;
    kad_frame_init(&s->in, old_frame_max(s->o));
    stream_set_cb(st, &cb, s);
}

void old_start(struct old_peer *o, struct world *w, int client, enum old_form form)
{
    memset(o, 0, sizeof *o);
    o->w = w;
    o->client = client;
    o->form = form;
    assert_int_equal(client_listen(w->client[client].c, KAD_PORT, on_accept, o), KAD_PORT);
}

void old_free(struct old_peer *o)
{
    while (o->n > 0)
        item_ref_put(o->item[--o->n].item);
    free(o->item);
    o->item = NULL;
}

int old_ask(struct old_peer *o, const struct pubkey *to, struct kad_msg *req, struct kad_msg *rsp)
{
    struct app a;
    uint8_t *frame;
    size_t n;
    enum kad_method method = req->method;
    int rc = ERR_EOF;
    req->sender = o->w->client[o->client].key.pk;
    assert_int_equal(kad_json_encode(&frame, &n, req), 0);
    kad_msg_clear(req);
    app_init(&a, o->w);
    app_dial(&a, o->client, to, KAD_PORT, 10000);
    assert_int_equal(app_wait_open(&a), 0);
    app_send(&a, frame, n);
    free(frame);
    world_until(o->w, app_is_over, &a);
    if (a.got_n >= KAD_FRAME_HEAD) {
        assert_true(a.got_n <= old_frame_max(o) + 4);
        rc = kad_json_decode(rsp, method, true, a.got + KAD_FRAME_HEAD, a.got_n - KAD_FRAME_HEAD);
        o->extended += rc == 0 && (rsp->network != 0 || rsp->offer != 0);
    }
    app_close(&a);
    app_free(&a);
    return rc;
}
