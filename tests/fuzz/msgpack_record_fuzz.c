/* Store records: hostile MessagePack either is refused or is a record that encodes and decodes to
 * the same. The input is the array; a second reading takes it as a whole value with its sum. */
#include <stdlib.h>
#include <string.h>

#include "kademlia/item.h"
#include "store/record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_same(const struct store_rec *a, const struct store_rec *b)
{
    if (!item_equal(&a->item, &b->item) || a->stored_ns != b->stored_ns ||
        a->expires_ns != b->expires_ns || a->tier != b->tier || a->origin != b->origin ||
        !pubkey_equal(&a->charged, &b->charged) || a->rank_time != b->rank_time ||
        a->rank_seq != b->rank_seq || (a->item.v == NULL) != (b->item.v == NULL))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t buf[RECORD_MAX_BYTES];
    uint8_t key[RECORD_KEY_BYTES] = {0};
    uint8_t index[RECORD_INDEX_KEY_MAX];
    struct store_rec rec = {.kind = ITEM_OWNER}, again;

    (void)!record_decode(&again, key, data, size);
    if (record_parse(&rec, data, size) != 0)
        return 0;
    if (item_check_size(&rec.item) != 0)
        abort();
    for (unsigned ix = 0; ix < IX__COUNT; ix++)
        (void)record_index_key(index, (enum record_index)ix, &rec);
    size_t n = record_encode(buf, &rec);
    if (record_decode(&again, key, buf, n) != 0)
        abort();
    check_same(&rec, &again);
    return 0;
}
