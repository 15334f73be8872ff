#include "node/keyfile.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/hex.h"
#include "base/log.h"
#include "node/tool.h"

#define FILE_MAX_BYTES 512

int keyfile_check(int fd, const char *path)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return err_sys();
    if (!S_ISREG(st.st_mode))
        return 0; /* a pipe or a terminal has no permissions to speak of */
    if (st.st_uid != geteuid() || (st.st_mode & (S_IWGRP | S_IWOTH)) != 0)
        return ERR_UNSAFE;
    if ((st.st_mode & (S_IRGRP | S_IROTH)) != 0)
        log_warn(LOG_NODE, "key file can be read by others path=%s mode=%03o", path,
                 (unsigned)(st.st_mode & 0777));
    return 0;
}

/* Cut a line off; returns its length without trailing white space. */
static size_t next_line(const char **p)
{
    size_t n = strcspn(*p, "\n");
    size_t text = n;
    while (text > 0 && strchr("\r\t ", (*p)[text - 1]) != NULL)
        text--;
    *p += n + ((*p)[n] == '\n');
    return text;
}

static int parse(struct seckey *sk, struct pubkey *pk, const char *text)
{
    const char *p = text, *first = p;
    size_t n = next_line(&p);
    struct pubkey said;

    if (n == PUBKEY_HEX) {
        if (pubkey_from_hex(&said, first, n) < 0)
            return ERR_KEY;
        first = p;
        n = next_line(&p);
        if (seckey_from_hex(sk, first, n) < 0 || seckey_pubkey(pk, sk) < 0 ||
            !pubkey_equal(pk, &said))
            return ERR_KEY;
    } else if (seckey_from_hex(sk, first, n) < 0 || seckey_pubkey(pk, sk) < 0) {
        return ERR_KEY;
    }
    return p[strspn(p, " \t\r\n")] == '\0' ? 0 : ERR_KEY;
}

int keyfile_read(struct seckey *sk, struct pubkey *pk, const char *path)
{
    char text[FILE_MAX_BYTES + 1];
    size_t have = 0;
    bool std = strcmp(path, "-") == 0;
    int fd = std ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_sys();
    int rc = keyfile_check(fd, path);
    ssize_t n = 1;
    while (rc == 0 && n > 0 && have < sizeof(text)) {
        n = read(fd, text + have, sizeof(text) - have);
        if (n > 0)
            have += (size_t)n;
        else if (n < 0)
            rc = err_sys();
    }
    if (!std)
        close(fd);
    if (rc == 0 && (have == sizeof(text) || memchr(text, '\0', have) != NULL))
        rc = ERR_KEY;
    if (rc == 0) {
        text[have] = '\0';
        rc = parse(sk, pk, text);
    }
    if (rc < 0)
        seckey_wipe(sk);
    sodium_memzero(text, sizeof(text));
    return rc;
}

int keyfile_write(const char *path, const struct seckey *sk, const struct pubkey *pk)
{
    char text[PUBKEY_HEX + 1 + 2 * SECKEY_BYTES + 2];
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return errno == EEXIST ? ERR_EXISTS : err_sys();
    pubkey_hex(text, pk);
    text[PUBKEY_HEX] = '\n';
    hex_encode(text + PUBKEY_HEX + 1, sk->b, SECKEY_BYTES);
    text[sizeof(text) - 2] = '\n';
    size_t len = sizeof(text) - 1;
    ssize_t put = write(fd, text, len);
    int rc = 0;
    if (put < 0 || fsync(fd) < 0)
        rc = err_sys();
    else if (put != (ssize_t)len) /* no errno tells of that */
        rc = ERR_NO_SPACE;
    close(fd);
    sodium_memzero(text, sizeof(text));
    if (rc < 0)
        unlink(path); /* half a key is none */
    return rc;
}

void keyfile_fresh(struct seckey *sk, struct pubkey *pk)
{
    uint8_t seed[32];
    do {
        randombytes_buf(seed, sizeof(seed));
    } while (crypto_keypair(sk, pk, seed) < 0);
    sodium_memzero(seed, sizeof(seed));
}

int keyfile_open(struct seckey *sk, struct pubkey *pk, const char *path, bool *made)
{
    *made = false;
    int rc = keyfile_read(sk, pk, path);
    if (rc != -ENOENT)
        return rc;
    keyfile_fresh(sk, pk);
    rc = keyfile_write(path, sk, pk);
    *made = rc == 0;
    if (rc < 0)
        seckey_wipe(sk);
    return rc == ERR_EXISTS ? keyfile_read(sk, pk, path) : rc; /* somebody else was faster */
}
