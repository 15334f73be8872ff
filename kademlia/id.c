#include "kademlia/id.h"

#include <string.h>

#include "base/cursor.h"
#include "base/err.h"
#include "base/hex.h"

struct kad_id kad_id_of(const struct pubkey *pk)
{
    return kad_target(pk, NULL, 0);
}

struct kad_id kad_target(const struct pubkey *pk, const void *salt, size_t salt_len)
{
    struct hash h;
    struct kad_id id;

    _Static_assert(sizeof h == sizeof id, "an ID is a SHA-256");
    crypto_sha256_2(&h, pk->b, sizeof pk->b, salt_len > 0 ? salt : "", salt_len);
    memcpy(id.b, h.b, sizeof id.b);
    return id;
}

bool kad_id_equal(const struct kad_id *a, const struct kad_id *b)
{
    return memcmp(a->b, b->b, sizeof a->b) == 0;
}

bool kad_id_is_zero(const struct kad_id *a)
{
    static const struct kad_id zero;
    return kad_id_equal(a, &zero);
}

int kad_id_cmp(const struct kad_id *a, const struct kad_id *b)
{
    return memcmp(a->b, b->b, sizeof a->b);
}

/* Eight bytes as a big-endian number: the compiler makes one load of it. */
static uint64_t word(const struct kad_id *id, size_t i)
{
    uint64_t w = 0;
    for (size_t j = 0; j < 8; j++)
        w = w << 8 | id->b[8 * i + j];
    return w;
}

int kad_id_closer(const struct kad_id *t, const struct kad_id *a, const struct kad_id *b)
{
    for (size_t i = 0; i < KAD_ID_BYTES / 8; i++) {
        uint64_t wa = word(a, i), wb = word(b, i);
        if (wa != wb) {
            uint64_t wt = word(t, i);
            return (wa ^ wt) < (wb ^ wt) ? -1 : 1;
        }
    }
    return 0;
}

unsigned kad_id_cpl(const struct kad_id *a, const struct kad_id *b)
{
    for (unsigned i = 0; i < KAD_ID_BYTES / 8; i++) {
        uint64_t x = word(a, i) ^ word(b, i);
        if (x != 0)
            return 64 * i + (unsigned)__builtin_clzll(x);
    }
    return KAD_ID_BITS;
}

unsigned kad_id_bucket(const struct kad_id *self, const struct kad_id *peer)
{
    unsigned cpl = kad_id_cpl(self, peer);
    return cpl < KAD_ID_BITS ? cpl : KAD_ID_BITS - 1;
}

char *kad_id_hex(char out[KAD_ID_HEX + 1], const struct kad_id *id)
{
    return hex_encode(out, id->b, sizeof id->b);
}

int kad_id_from_hex(struct kad_id *out, const char *text, size_t n)
{
    struct kad_id id = {{0}};

    if (hex_decode(id.b, sizeof id.b, text, n) != 0)
        return ERR_FORMAT;
    *out = id;
    return 0;
}

uint64_t kad_network_tag(const char *name)
{
    static const char prefix[] = "kadmsg network ";
    struct hash h;

    if (name == NULL || name[0] == '\0')
        return 0;
    crypto_sha256_2(&h, prefix, sizeof prefix - 1, name, strlen(name));
    uint64_t tag = get_be64(h.b);
    return tag != 0 ? tag : 1;
}
