#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/hex.h"
#include "kademlia/id.h"
#include "node/cmds.h"
#include "node/keyfile.h"
#include "node/tool.h"
#include "node/tool_key.h"

struct keys_opts {
    const char *out, *sk_file, *payload, *sig;
    struct pubkey pk;
    bool json;
};

/* ---- gen ---- */

static int gen(struct cmdline *cl)
{
    const struct keys_opts *o = cl->opts;
    return tool_key_gen(o->out, o->json);
}

/* ---- show, sign, verify ---- */

static int read_key(const struct keys_opts *o, struct seckey *sk, struct pubkey *pk)
{
    if (o->sk_file == NULL)
        return tool_fail(ERR_USAGE, "which key? --sk-file FILE is missing");
    int rc = keyfile_read(sk, pk, o->sk_file);
    return rc < 0 ? tool_key_tell(rc, o->sk_file) : 0;
}

static int show(struct cmdline *cl)
{
    const struct keys_opts *o = cl->opts;
    struct seckey sk;
    struct pubkey pk;
    char pk_hex[PUBKEY_HEX + 1], id_hex[KAD_ID_HEX + 1];
    int rc = read_key(o, &sk, &pk);
    if (rc != 0)
        return rc;
    seckey_wipe(&sk);
    struct kad_id id = kad_id_of(&pk);
    pubkey_hex(pk_hex, &pk);
    kad_id_hex(id_hex, &id);
    if (o->json)
        tool_print(json_pack("{s:s, s:s}", "public_key", pk_hex, "node_id", id_hex));
    else
        printf("public key  %s\nnode id     %s\n", pk_hex, id_hex);
    return 0;
}

static int sign(struct cmdline *cl)
{
    const struct keys_opts *o = cl->opts;
    struct seckey sk;
    struct pubkey pk;
    struct sig sig;
    char hex[SIG_HEX + 1], pk_hex[PUBKEY_HEX + 1];
    int rc = read_key(o, &sk, &pk);
    if (rc != 0)
        return rc;
    rc = crypto_sign_msg(&sig, &sk, o->payload, strlen(o->payload));
    seckey_wipe(&sk);
    if (rc < 0)
        return tool_fail(rc, "sign: %s", err_str(rc));
    hex_encode(hex, sig.b, SIG_BYTES);
    if (o->json)
        tool_print(
            json_pack("{s:s, s:s}", "public_key", pubkey_hex(pk_hex, &pk), "signature", hex));
    else
        printf("%s\n", hex);
    return 0;
}

static int verify(struct cmdline *cl)
{
    const struct keys_opts *o = cl->opts;
    struct sig sig;
    if (strlen(o->sig) != SIG_HEX || hex_decode(sig.b, SIG_BYTES, o->sig, SIG_HEX) < 0)
        return cmdline_usage_error(cl, "SIGNATURE: not %d hex digits", SIG_HEX);
    int rc = crypto_verify(&o->pk, &sig, o->payload, strlen(o->payload));
    if (rc < 0)
        return tool_fail(rc, "the signature is not one of this key over this text");
    if (o->json)
        tool_print(json_pack("{s:b}", "ok", 1));
    else
        puts("ok");
    return 0;
}

/* ---- the table ---- */

#define JSON_FLAG                                                                                  \
    {                                                                                              \
        .name = "json", CMD_FLAG_AT(struct keys_opts, json), .help = "print JSON"                  \
    }
#define SK_FLAG                                                                                    \
    {                                                                                              \
        .name = "sk-file", CMD_STR_AT(struct keys_opts, sk_file), .metavar = "FILE",               \
        .help = "secret key; - reads standard input"                                               \
    }

static const struct cmd_opt gen_flags[] = {
    {.name = "output",
     .letter = 'o',
     CMD_STR_AT(struct keys_opts, out),
     .metavar = "FILE",
     .help = "write the pair there with mode 0600, never over an existing file"},
    JSON_FLAG,
    {0}};
static const struct cmd_opt key_flags[] = {SK_FLAG, JSON_FLAG, {0}};
static const struct cmd_opt json_flags[] = {JSON_FLAG, {0}};
static const struct cmd_opt sign_args[] = {
    {.name = "TEXT", CMD_STR_AT(struct keys_opts, payload), .help = "what is signed"}, {0}};
static const struct cmd_opt verify_args[] = {
    {.name = "PK", CMD_PUBKEY_AT(struct keys_opts, pk), .help = "public key"},
    {.name = "SIGNATURE", CMD_STR_AT(struct keys_opts, sig), .help = "130 hex digits"},
    {.name = "TEXT", CMD_STR_AT(struct keys_opts, payload), .help = "what was signed"},
    {0}};

#define SIZE .opts_size = sizeof(struct keys_opts)
static const struct cmd subs[] = {
    {.name = "gen",
     .help = "make a key pair: public key and secret key, a line each",
     .opts = gen_flags,
     SIZE,
     .run = gen},
    {.name = "show",
     .help = "public key and node ID of a key file",
     .opts = key_flags,
     SIZE,
     .run = show},
    {.name = "sign",
     .help = "sign a text",
     .opts = key_flags,
     .args = sign_args,
     SIZE,
     .run = sign},
    {.name = "verify",
     .help = "check a signature",
     .opts = json_flags,
     .args = verify_args,
     SIZE,
     .run = verify},
    {0}};

const struct cmd cmd_keys = {.name = "keys", .help = "make and look at keys", .subs = subs};
