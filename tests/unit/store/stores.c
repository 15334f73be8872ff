#include "tests/unit/store/stores.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static char path[4096];

const char *stores_dir(void)
{
    const char *tmp = getenv("TMPDIR");

    snprintf(path, sizeof path, "%s/store-XXXXXX", tmp != NULL ? tmp : "/tmp");
    assert_non_null(mkdtemp(path));
    return path;
}

void stores_remove(void)
{
    DIR *d = opendir(path);

    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        if (e->d_name[0] != '.')
            assert_int_equal(unlinkat(dirfd(d), e->d_name, 0), 0);
    }
    closedir(d);
    assert_int_equal(rmdir(path), 0);
}

struct store_lmdb_cfg stores_cfg(void)
{
    struct store_lmdb_cfg cfg = {.path = path, .commit_ms = 5, .map_size = (uint64_t)1 << 30};

    memset(cfg.own_pk.b, 1, sizeof cfg.own_pk.b);
    cfg.own_pk.b[0] = 2;
    return cfg;
}

struct store *stores_open(void)
{
    char why[STORE_WHY_BYTES] = "";
    struct store *s;
    struct store_lmdb_cfg cfg = stores_cfg();
    int rc = store_lmdb_open(&s, &cfg, why, sizeof why);

    if (rc != 0)
        fail_msg("%s", why);
    return s;
}

struct store_rec record_of(unsigned key, const char *salt, uint64_t seq, const char *v)
{
    struct item it = {.seq = seq,
                      .salt = (const uint8_t *)salt,
                      .salt_len = strlen(salt),
                      .v = (const uint8_t *)v,
                      .v_len = v != NULL ? strlen(v) : 0};

    it.k.b[0] = 2;
    it.k.b[1] = (uint8_t)(key >> 24);
    it.k.b[2] = (uint8_t)(key >> 16);
    it.k.b[3] = (uint8_t)(key >> 8);
    it.k.b[4] = (uint8_t)key;
    it.sig.b[0] = (uint8_t)(seq * 7 + key);
    return (struct store_rec){.target = item_target(&it),
                              .item = it,
                              .stored_ns = (int64_t)seq + 1000,
                              .expires_ns = INT64_MAX,
                              .origin = STORE_REPLICA,
                              .charged = it.k};
}

bool record_same(const struct store_rec *a, const struct store_rec *b)
{
    return kad_id_equal(&a->target, &b->target) && a->kind == b->kind &&
           item_equal(&a->item, &b->item) && (a->item.v == NULL) == (b->item.v == NULL) &&
           a->stored_ns == b->stored_ns && a->expires_ns == b->expires_ns && a->tier == b->tier &&
           a->origin == b->origin && pubkey_equal(&a->charged, &b->charged) &&
           a->rank_time == b->rank_time && a->rank_seq == b->rank_seq;
}

void assert_stored(struct store *s, const struct store_rec *want)
{
    struct store_rec have;

    assert_int_equal(S(s)->get(s, &want->target, want->kind, &have), 0);
    assert_true(record_same(&have, want));
}

void assert_absent(struct store *s, const struct store_rec *rec)
{
    struct store_rec have;

    assert_int_equal(S(s)->get(s, &rec->target, rec->kind, &have), ERR_NOT_FOUND);
}

static int open_file(const char *name, int flags)
{
    char file[8192];

    snprintf(file, sizeof file, "%s/%s", path, name);
    int fd = open(file, flags, 0600);
    assert_true(fd >= 0);
    return fd;
}

size_t stores_file_size(const char *name)
{
    struct stat st;
    int fd = open_file(name, O_RDONLY);

    assert_int_equal(fstat(fd, &st), 0);
    close(fd);
    return (size_t)st.st_size;
}

void stores_file_write(const char *name, size_t offset, const void *p, size_t n)
{
    int fd = open_file(name, O_WRONLY | O_CREAT);

    assert_int_equal(pwrite(fd, p, n, (off_t)offset), (ssize_t)n);
    close(fd);
}

void stores_file_copy(const char *from, const char *to)
{
    static char buf[1 << 16];
    int in = open_file(from, O_RDONLY), out = open_file(to, O_WRONLY | O_CREAT | O_TRUNC);

    for (ssize_t n; (n = read(in, buf, sizeof buf)) != 0;) {
        assert_true(n > 0);
        assert_int_equal(write(out, buf, (size_t)n), n);
    }
    close(in);
    close(out);
}
