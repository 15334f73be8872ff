/* Messages of the native dialect: the first byte says how the rest is cut into pieces. What can be
 * read can be written, and reading that again gives the same bytes. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "kademlia/codec_msgpack.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_again(struct kad_msg *m, uint32_t id)
{
    struct kad_mp_frame f;
    struct kad_mp_head head;
    struct kad_msg again;
    uint8_t *first, *second;
    size_t n, n2, used;

    if (m->n_closest == 0)
        m->native = 0;
    if (kad_codec_msgpack.encode(&first, &n, m, id) != 0)
        return; /* notifications have no answers, and numbers may be longer than they were */
    kad_mp_frame_init(&f);
    assert(kad_mp_frame_feed(&f, first, n, &used, &head) == 0 && used == n);
    assert(kad_codec_msgpack.decode(&again, m->method, m->response, head.body, head.body_len) == 0);
    assert(again.n_items == m->n_items && again.n_closest == m->n_closest);
    assert(kad_codec_msgpack.encode(&second, &n2, &again, id) == 0);
    assert(n == n2 && memcmp(first, second, n) == 0);
    kad_msg_clear(&again);
    kad_mp_frame_clear(&f);
    free(first);
    free(second);
}

/* A response says no method: it is tried as an answer to each. */
static void take(const struct kad_mp_head *h)
{
    struct kad_msg m;

    for (unsigned method = 0; method <= KAD_METHOD__END; method++) {
        bool response = h->type == KAD_MP_RESPONSE;
        if ((!response && method != h->method) ||
            kad_codec_msgpack.decode(&m, method, response, h->body, h->body_len) != 0)
            continue;
        assert(m.n_closest <= KAD_K && m.n_items <= KAD_MSG_MAX_ITEMS &&
               m.n_targets <= KAD_MSG_MAX_TARGETS);
        check_again(&m, h->id);
        kad_msg_clear(&m);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct kad_mp_frame f;
    struct kad_mp_head head;
    size_t used;
    int rc = ERR_AGAIN;

    if (crypto_init() < 0 || size == 0)
        return 0;
    kad_mp_frame_init(&f);
    size_t piece = 1 + (size_t)data[0] * 16;
    for (size_t at = 1; at < size && (rc == 0 || rc == ERR_AGAIN); at += used) {
        size_t n = piece < size - at ? piece : size - at;
        rc = kad_mp_frame_feed(&f, data + at, n, &used, &head);
        assert(used <= n && (used == n || rc != ERR_AGAIN));
        if (rc != 0)
            continue;
        take(&head);
        kad_mp_frame_next(&f);
    }
    kad_mp_frame_clear(&f);
    return 0;
}
