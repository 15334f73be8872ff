#include "apps/iperf_flow.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cursor.h"
#include "base/err.h"

#define PIECE  65536 /* of one read */
#define ROUNDS 8     /* reads or writes of one step: others want their turn */

static const uint8_t magic[8] = "kiperf1\n";

/* ---- head and result ---- */

void iperf_head_put(uint8_t out[IPERF_HEAD], const struct iperf_head *h)
{
    memcpy(out, magic, sizeof(magic));
    put_be32(out + 8, (uint32_t)h->mode << 24 | h->block);
    put_be32(out + 12, h->seconds);
    put_be64(out + 16, h->seed);
}

int iperf_head_get(struct iperf_head *out, const uint8_t in[IPERF_HEAD])
{
    uint32_t word = get_be32(in + 8), mode = word >> 24;
    if (memcmp(in, magic, sizeof(magic)) != 0 || mode < IPERF_UP || mode > IPERF_ECHO)
        return ERR_FORMAT;
    *out = (struct iperf_head){.mode = (enum iperf_mode)mode,
                               .block = word & 0xffffff,
                               .seconds = get_be32(in + 12),
                               .seed = get_be64(in + 16)};
    return out->block == 0 || out->block > IPERF_BLOCK_MAX || out->seconds > IPERF_TIME_MAX
               ? ERR_FORMAT
               : 0;
}

void iperf_result_put(uint8_t out[IPERF_RESULT], const struct iperf_result *r)
{
    put_be64(out, r->bytes);
    put_be64(out + 8, r->wrong);
    put_be64(out + 16, r->ns);
}

void iperf_result_get(struct iperf_result *out, const uint8_t in[IPERF_RESULT])
{
    *out = (struct iperf_result){get_be64(in), get_be64(in + 8), get_be64(in + 16)};
}

/* ---- the pattern ---- */

/* splitmix64: every word is a function of its number. */
static uint64_t word_at(const struct iperf_pattern *p, uint64_t number)
{
    uint64_t x = p->seed + (number + 1) * UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

/* The next bytes, as far as they are of one word. Returns how many. */
static size_t next_bytes(struct iperf_pattern *p, uint8_t word[8], size_t max, const uint8_t **from)
{
    size_t skip = (size_t)(p->at % 8), n = 8 - skip;
    put_be64(word, word_at(p, p->at / 8));
    *from = word + skip;
    n = n < max ? n : max;
    p->at += n;
    return n;
}

void iperf_pattern_fill(struct iperf_pattern *p, uint8_t *out, size_t n)
{
    uint8_t word[8];
    const uint8_t *from;
    for (size_t at = 0; at < n;) {
        size_t got = next_bytes(p, word, n - at, &from);
        memcpy(out + at, from, got);
        at += got;
    }
}

size_t iperf_pattern_check(struct iperf_pattern *p, const uint8_t *in, size_t n)
{
    uint8_t word[8];
    const uint8_t *from;
    size_t wrong = 0;
    for (size_t at = 0; at < n;) {
        size_t got = next_bytes(p, word, n - at, &from);
        if (memcmp(in + at, from, got) != 0) {
            for (size_t i = 0; i < got; i++)
                wrong += in[at + i] != from[i];
        }
        at += got;
    }
    return wrong;
}

/* ---- source ---- */

int iperf_source_init(struct iperf_source *s, uint64_t seed, uint32_t block)
{
    *s = (struct iperf_source){.pattern = {.seed = seed}, .block = block};
    s->buf = malloc(4 + (size_t)block);
    return s->buf != NULL ? 0 : ERR_NOMEM;
}

void iperf_source_free(struct iperf_source *s)
{
    free(s->buf);
    s->buf = NULL;
}

static void next_block(struct iperf_source *s, bool stop)
{
    uint32_t n = stop ? 0 : (uint32_t)s->block;
    put_be32(s->buf, n);
    iperf_pattern_fill(&s->pattern, s->buf + 4, n);
    s->have = 4 + n;
    s->at = 0;
    s->bytes += n;
    s->last = stop;
}

int iperf_source_step(struct iperf_source *s, int fd, bool stop)
{
    for (int i = 0; i < ROUNDS && !s->done; i++) {
        if (s->at == s->have)
            next_block(s, stop);
        ssize_t n = write(fd, s->buf + s->at, s->have - s->at);
        if (n < 0)
            return errno == EAGAIN || errno == EINTR ? 0 : err_sys();
        s->at += (size_t)n;
        s->done = s->last && s->at == s->have;
    }
    return 0;
}

/* ---- sink ---- */

void iperf_sink_init(struct iperf_sink *s, uint64_t seed)
{
    *s = (struct iperf_sink){.pattern = {.seed = seed}};
}

/* The length of the next block; behind it comes nothing that is ours when it is 0. */
static int take_head(struct iperf_sink *s, const uint8_t *in, size_t n)
{
    memcpy(s->head + s->head_n, in, n);
    s->head_n += n;
    if (s->head_n < sizeof(s->head))
        return 0;
    s->head_n = 0;
    s->left = get_be32(s->head);
    s->done = s->left == 0;
    return s->left > IPERF_BLOCK_MAX ? ERR_FORMAT : 0;
}

int iperf_sink_step(struct iperf_sink *s, int fd, uint64_t now_ns)
{
    uint8_t buf[PIECE];
    int rc = 0;
    for (int i = 0; i < ROUNDS && !s->done && rc == 0; i++) {
        size_t want = s->left == 0 ? sizeof(s->head) - s->head_n : s->left;
        ssize_t n = read(fd, buf, want < sizeof(buf) ? want : sizeof(buf));
        if (n == 0)
            return ERR_EOF;
        if (n < 0)
            return errno == EAGAIN || errno == EINTR ? 0 : err_sys();
        if (s->first_ns == 0)
            s->first_ns = now_ns;
        s->result.ns = now_ns - s->first_ns;
        if (s->left == 0) {
            rc = take_head(s, buf, (size_t)n);
            continue;
        }
        s->result.wrong += iperf_pattern_check(&s->pattern, buf, (size_t)n);
        s->result.bytes += (uint64_t)n;
        s->left -= (uint32_t)n;
    }
    return rc;
}
