/* Items: any JSON text of an item is refused or gives one that can be checked, hashed, copied and
 * written, and what was written is the same item. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "kademlia/codec_json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_item(struct item_ref *r)
{
    struct kad_id own = kad_id_of(&r->item.k), target = item_target(&r->item);
    int size = item_check_size(&r->item), sig = item_verify(&r->item);
    struct item_ref *copy = item_ref_new(&r->item);

    assert(r->item.salt_len > 0 || kad_id_equal(&own, &target));
    assert(size == 0 || item_error_text(size, &r->item) != NULL);
    assert(sig == 0 || item_error_text(sig, &r->item) != NULL);
    assert(copy != NULL && item_equal(&copy->item, &r->item));
    if (sig == 0) { /* what is signed is signed for this value only */
        copy->item.seq ^= 1;
        assert(item_verify(&copy->item) != 0);
    }
    item_ref_put(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char head[] = "{\"item\":", tail[] = "}";
    size_t n = sizeof head - 1 + size + sizeof tail - 1, n2;
    struct kad_msg m, again;
    uint8_t *frame;

    if (crypto_init() < 0)
        return 0;
    char *body = malloc(n);
    assert(body != NULL);
    memcpy(body, head, sizeof head - 1);
    if (size > 0)
        memcpy(body + sizeof head - 1, data, size);
    memcpy(body + n - (sizeof tail - 1), tail, sizeof tail - 1);
    if (kad_json_decode(&m, KAD_PUT_VALUE, false, body, n) == 0) {
        assert(m.n_items == 1);
        check_item(m.items[0].item);
        assert(kad_json_encode(&frame, &n2, &m) == 0);
        assert(kad_json_decode(&again, KAD_PUT_VALUE, false, frame + KAD_FRAME_HEAD,
                               n2 - KAD_FRAME_HEAD) == 0);
        assert(item_equal(&m.items[0].item->item, &again.items[0].item->item));
        kad_msg_clear(&m);
        kad_msg_clear(&again);
        free(frame);
    }
    free(body);
    return 0;
}
