/* Entries: any text parses or fails; both canons can be made, and the text made from a parsed entry
 * parses to the same canon. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "transport/entry.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_again(struct entry *e)
{
    struct sig sig = {{1}};
    struct entry *again;
    char *a, *b;
    size_t n, m;

    assert(entry_canonical(&a, &n, e, false) == 0);
    if (entry_set_signature(e, &sig) == 0) {
        assert(entry_parse(&again, e->text, e->text_len) == 0);
        assert(entry_canonical(&b, &m, again, false) == 0);
        assert(n == m && memcmp(a, b, n) == 0);
        assert(!again->unknown_members && again->has_signature && entry_cmp(e, again) == 0);
        free(b);
        entry_free(again);
    }
    free(a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hash digest[2];
    struct entry *e;
    char *canon;
    size_t n;

    if (crypto_init() < 0 || entry_parse(&e, (const char *)data, size) < 0)
        return 0;
    assert(entry_canonical(&canon, &n, e, true) == 0);
    free(canon);
    if (e->has_signature && !pubkey_is_null(&e->static_pk))
        assert(entry_check_begin(digest, e) >= 1);
    check_again(e);
    entry_free(e);
    return 0;
}
