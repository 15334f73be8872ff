#include "node/tool_key.h"

#include <sodium.h>
#include <stdio.h>

#include "base/err.h"
#include "base/hex.h"
#include "node/keyfile.h"
#include "node/tool.h"

int tool_key_tell(int err, const char *path)
{
    if (err == ERR_KEY)
        return tool_fail(err, "key file %s: not a secret key", path);
    if (err == ERR_UNSAFE)
        return tool_fail(err, "key file %s: others can write it, or another user owns it", path);
    return tool_fail(err, "key file %s: %s", path, err_str(err));
}

int tool_key_gen(const char *path, bool json)
{
    struct seckey sk;
    struct pubkey pk;
    char pk_hex[PUBKEY_HEX + 1], sk_hex[2 * SECKEY_BYTES + 1];
    keyfile_fresh(&sk, &pk);
    pubkey_hex(pk_hex, &pk);
    hex_encode(sk_hex, sk.b, SECKEY_BYTES);
    int rc = path != NULL ? keyfile_write(path, &sk, &pk) : 0;
    if (rc < 0)
        rc = tool_key_tell(rc, path);
    else if (json)
        tool_print(json_pack("{s:s, s:s, s:s*}", "public_key", pk_hex, "secret_key", sk_hex, "file",
                             path));
    else if (path != NULL)
        printf("%s\n", pk_hex);
    else
        printf("%s\n%s\n", pk_hex, sk_hex);
    seckey_wipe(&sk);
    sodium_memzero(sk_hex, sizeof(sk_hex));
    return rc;
}
