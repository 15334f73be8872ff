/*
 * transports - signed registrations for a transport discovery on standard output, one a line: key, signature over body and nonce 0, body with one signed entry. --count of them, each of
 * a fresh key. An answer of 201 leaves the nonce, so that each may be sent again and again. What `make bench BENCH=http` sends.
 */
#include <stdio.h>

#include "base/err.h"
#include "base/hex.h"
#include "compat-http/httpauth.h"
#include "compat-http/tpd_body.h"
#include "tests/bench/load/load.h"

static int make(struct env_sys *sys)
{
    struct seckey sk[2];
    struct pubkey pk[2];
    struct tpd_signed s = {.e = {.type = "stcpr", .label = "automatic"}};
    struct hash digest;
    struct sig sig;
    struct json_out o;
    char body[1024], hex[PUBKEY_HEX + 1], text[2 * SIG_BYTES + 1];
    int rc = 0;
    for (int i = 0; i < 2; i++)
        env_keypair(&sys->env, &sk[i], &pk[i]);
    bool swap = pubkey_cmp(&pk[0], &pk[1]) > 0;
    s.e.edges[0] = pk[swap];
    s.e.edges[1] = pk[!swap];
    s.e.id = tp_id_of(&pk[0], &pk[1], s.e.type);
    tpd_signed_digest(&digest, &s.e);
    for (int i = 0; i < 2 && rc == 0; i++)
        rc = crypto_sign_digest(&s.sig[i], &sk[swap ? !i : i], &digest);
    json_out_fixed(&o, JSON_STD, body, sizeof(body));
    json_out_array(&o);
    tpd_signed_write(&o, &s);
    json_out_array_end(&o);
    if (rc == 0 && o.err == 0) {
        httpauth_digest(&digest, o.p, o.len, 0);
        rc = crypto_sign_digest(&sig, &sk[0], &digest);
    }
    if (rc == 0 && o.err == 0)
        printf("%s %s %.*s\n", pubkey_hex(hex, &pk[0]), hex_encode(text, sig.b, SIG_BYTES),
               (int)o.len, o.p);
    return rc < 0 ? rc : o.err;
}

int transports_run(const struct load_opts *o)
{
    struct env_sys sys;
    int rc = env_sys_init(&sys);
    for (uint64_t i = 0; i < o->count && rc == 0; i++)
        rc = make(&sys);
    if (rc < 0)
        fprintf(stderr, "kadmsg-load: transports: %s\n", err_str(rc));
    return rc < 0 ? CMD_EXIT_FAIL : CMD_EXIT_OK;
}
