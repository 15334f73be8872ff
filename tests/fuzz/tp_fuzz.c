/* Values of the salts tp, tp:1, …: any bytes give a list of whole transports or an error. */
#include <assert.h>
#include <string.h>

#include "kademlia/records/tp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pubkey subject = {{2}};
    struct tp_list l;
    char text[TP_ID_TEXT + 1];

    if (crypto_init() < 0)
        return 0;
    if (tp_decode(&l, &subject, data, size) != 0) {
        assert(l.e == NULL && l.n == 0);
        return 0;
    }
    for (size_t i = 0; i < l.n; i++) {
        assert(!pubkey_is_null(&l.e[i].edges[0]) && !pubkey_is_null(&l.e[i].edges[1]));
        assert(strlen(l.e[i].type) <= TP_TEXT_MAX && strlen(l.e[i].label) <= TP_TEXT_MAX);
        assert(strlen(tp_id_text(text, &l.e[i].id)) == TP_ID_TEXT);
    }
    tp_list_free(&l);
    return 0;
}
