/* Bytes of a SOCKS5 client, and of a proxy: whole and in pieces they mean the same, and no byte behind the conversation is taken. The first byte chooses the pieces. */
#include <assert.h>
#include <string.h>

#include "apps/socks.h"
#include "base/err.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct end {
    enum socks_state state;
    uint8_t out[2 * SOCKS_OUT_MAX];
    size_t out_n, used;
    struct socks_dest dest;
};

static void serve(struct end *e, const uint8_t *p, size_t n, size_t piece)
{
    struct socks s;
    memset(e, 0, sizeof(*e));
    socks_init(&s);
    while (e->used < n && s.state <= SOCKS_REQUEST) {
        size_t used, give = n - e->used < piece ? n - e->used : piece;
        socks_input(&s, p + e->used, give, &used);
        assert(used == give || s.state > SOCKS_REQUEST);
        e->used += used;
        assert(s.out_n <= sizeof(s.out) && e->out_n + s.out_n <= sizeof(e->out));
        memcpy(e->out + e->out_n, s.out, s.out_n);
        e->out_n += s.out_n;
        s.out_n = 0;
    }
    if (s.state == SOCKS_WAIT) {
        assert(s.dest.host[0] != '\0' && s.dest.port != 0);
        assert(strnlen(s.dest.host, sizeof(s.dest.host)) < sizeof(s.dest.host));
        e->dest = s.dest;
        socks_reply(&s, SOCKS_OK, s.dest.ip, s.dest.ip_n, s.dest.port);
        assert(s.state == SOCKS_OPEN && s.out_n <= sizeof(s.out));
    }
    assert(s.state != SOCKS_END || s.why != NULL);
    e->state = s.state;
}

static int ask(const uint8_t *p, size_t n, size_t piece, size_t *total)
{
    struct socks_dest dest;
    struct socks_ask a;
    int rc = socks_dest_set(&dest, "example.org", 11, 80);
    assert(rc == 0);
    socks_ask_init(&a, &dest);
    rc = ERR_PENDING;
    for (*total = 0; *total < n && rc == ERR_PENDING;) {
        size_t used, give = n - *total < piece ? n - *total : piece;
        rc = socks_ask_input(&a, p + *total, give, &used);
        assert(a.out_n <= sizeof(a.out) && used <= give);
        *total += used;
    }
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct end whole, pieces;
    size_t piece = size > 0 ? 1 + data[0] % 16u : 1, used_whole, used_pieces;
    const uint8_t *p = size > 0 ? data + 1 : data;
    size_t n = size > 0 ? size - 1 : 0;
    serve(&whole, p, n, n + 1);
    serve(&pieces, p, n, piece);
    assert(whole.state == pieces.state && whole.used == pieces.used);
    assert(whole.out_n == pieces.out_n && memcmp(whole.out, pieces.out, whole.out_n) == 0);
    assert(strcmp(whole.dest.host, pieces.dest.host) == 0 && whole.dest.port == pieces.dest.port);
    int rc = ask(p, n, n + 1, &used_whole);
    assert(ask(p, n, piece, &used_pieces) == rc && used_whole == used_pieces);
    return 0;
}
