/* DHT frames: the first byte says direction and how the rest is cut into pieces. What can be read
 * can be written, and reading that again gives the same bytes. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "kademlia/codec_json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_again(struct kad_msg *m)
{
    uint8_t *first, *second;
    size_t n, n2;
    struct kad_msg again;

    /* A response to PUT_VALUE has no item, so there is nothing else to leave out. */
    int rc = kad_json_encode(&first, &n, m);
    if (rc != 0) { /* base64 of what came as "" fits, but numbers may be longer than they were */
        assert(rc == ERR_TOO_LONG);
        return;
    }
    assert(n >= KAD_FRAME_HEAD + 2 && n <= KAD_FRAME_MAX + 4);
    assert(kad_json_decode(&again, m->method, m->response, first + KAD_FRAME_HEAD,
                           n - KAD_FRAME_HEAD) == 0);
    if (m->method == KAD_PING && !m->response)
        again.sender = m->sender;
    assert(again.bad_contacts == 0 && again.n_items == m->n_items);
    assert(kad_json_encode(&second, &n2, &again) == 0);
    assert(n == n2 && memcmp(first, second, n) == 0);
    kad_msg_clear(&again);
    free(first);
    free(second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct kad_frame f;
    struct kad_msg m;
    size_t used, at = 1;
    int rc = ERR_AGAIN;

    if (crypto_init() < 0 || size == 0)
        return 0;
    kad_frame_init(&f, KAD_FRAME_MAX);
    for (size_t piece = 1 + data[0] / 2; rc == ERR_AGAIN && at < size; at += used) {
        size_t n = piece < size - at ? piece : size - at;
        rc = kad_frame_feed(&f, data + at, n, &used);
        assert(used <= n && (used == n || rc != ERR_AGAIN));
    }
    if (rc == 0 && kad_json_decode(&m, f.method, data[0] & 1, f.body, f.body_len) == 0) {
        assert(m.n_closest <= KAD_K && m.n_items <= KAD_MSG_MAX_ITEMS);
        check_again(&m);
        kad_msg_clear(&m);
    }
    kad_frame_clear(&f);
    return 0;
}
