/* A store whose data file was damaged: opening refuses it, or everything that is read is what was
 * written, and writing works. Never a crash inside LMDB.
 *
 * Input: patches of five bytes (page, offset u16, length, byte) over the file of a sound store. */
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/crypto.h"
#include "base/cursor.h"
#include "base/err.h"
#include "store/lmdb.h"

#define RECORDS   120
#define FILE_SIZE (1u << 20)

#define MUST(x)                                                                                    \
    do {                                                                                           \
        if (!(x))                                                                                  \
            abort();                                                                               \
    } while (0)

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char dir[512];
static uint8_t good[FILE_SIZE], bad[FILE_SIZE], filler[3000];
static size_t good_size;

static struct store_rec make_record(unsigned i)
{
    struct store_rec rec = {.item = {.seq = i + 1,
                                     .v = filler,
                                     .v_len = i % 40 == 39 ? sizeof filler : 20 + i,
                                     .salt = (const uint8_t *)(i % 2 == 0 ? "dmsg" : "tp"),
                                     .salt_len = i % 2 == 0 ? 4 : 2},
                            .stored_ns = i,
                            .expires_ns = i % 3 == 0 ? INT64_MAX : 1000 + i,
                            .origin = STORE_REPLICA};

    rec.item.k.b[0] = 2;
    rec.item.k.b[1] = (uint8_t)i;
    rec.charged = rec.item.k;
    rec.target = item_target(&rec.item);
    return rec;
}

static int open_store(struct store **s)
{
    char why[STORE_WHY_BYTES];
    struct store_lmdb_cfg cfg = {
        .path = dir, .own_pk = {{2, 1}}, .map_size = 1 << 24, .commit_ms = 1000};

    return store_lmdb_open(s, &cfg, why, sizeof why);
}

static void file_name(char out[600], const char *name)
{
    snprintf(out, 600, "%s/%s", dir, name);
}

static void remove_dir(void)
{
    static const char *const names[] = {"data.mdb", "lock.mdb", "kadmsg.lock", "clean"};
    char file[600];

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        file_name(file, names[i]);
        unlink(file);
    }
    rmdir(dir);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    const char *tmp = getenv("TMPDIR");
    char file[600];
    struct store *s;

    (void)argc;
    (void)argv;
    snprintf(dir, sizeof dir, "%s/store-fuzz-XXXXXX", tmp != NULL ? tmp : "/tmp");
    MUST(crypto_init() == 0 && mkdtemp(dir) != NULL);
    atexit(remove_dir);
    memset(filler, 'v', sizeof filler);
    MUST(open_store(&s) == 0);
    for (unsigned i = 0; i < RECORDS; i++) {
        struct store_rec rec = make_record(i);
        MUST(s->ops->put(s, &rec) == 0);
        if (i % 50 == 0)
            MUST(s->ops->sync(s, 60000) == 0);
    }
    s->ops->close(s);
    file_name(file, "data.mdb");
    int fd = open(file, O_RDONLY);
    ssize_t n = read(fd, good, sizeof good);
    close(fd);
    MUST(n > 0 && n < (ssize_t)sizeof good);
    good_size = (size_t)n;
    return 0;
}

static void write_damaged(const uint8_t *data, size_t size)
{
    char file[600];
    struct rd r = rd_init(data, size);

    memcpy(bad, good, good_size);
    while (rd_left(&r) >= 5) {
        size_t page = rd_u8(&r) % (good_size / 4096), at = rd_be16(&r) % 4096;
        size_t n = rd_u8(&r) % 16 + 1, end = page * 4096 + at + n;
        memset(bad + page * 4096 + at, rd_u8(&r), end <= good_size ? n : good_size - (end - n));
    }
    file_name(file, "data.mdb");
    int fd = open(file, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    MUST(write(fd, bad, good_size) == (ssize_t)good_size);
    close(fd);
}

static bool ignore(void *arg, const struct store_rec *rec)
{
    (void)arg;
    (void)rec;
    return true;
}

static void use(struct store *s)
{
    struct store_page page = {.limit = 10000};
    struct store_rec out;
    uint64_t slots, bytes;
    bool more;

    for (unsigned i = 0; i < RECORDS; i++) {
        struct store_rec rec = make_record(i);
        if (s->ops->get(s, &rec.target, rec.kind, &out) == 0)
            MUST(item_equal(&out.item, &rec.item) && out.stored_ns == rec.stored_ns);
        (void)s->ops->usage(s, &rec.charged, &slots, &bytes);
    }
    (void)s->ops->scan(s, NULL, ignore, NULL);
    (void)s->ops->list(s, &page, ignore, NULL, &more);
    (void)s->ops->victim(s, &out);
    (void)s->ops->expire(s, 1040, 1000);
    for (unsigned i = 0; i < RECORDS; i += 3) {
        struct store_rec rec = make_record(i);
        if (i % 2 == 0)
            (void)s->ops->del(s, &rec.target, rec.kind);
        rec.item.seq += 1000;
        (void)s->ops->put(s, &rec);
    }
    (void)s->ops->sync(s, 60000);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct store *s;

    write_damaged(data, size);
    if (open_store(&s) == 0) {
        use(s);
        s->ops->close(s);
    }
    return 0;
}
