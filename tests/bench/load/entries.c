/*
 * entries - signed discovery entries on standard output, one a line, each of a fresh key: --count of them, --bare for servers instead of clients. What `make bench BENCH=http` sends.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/err.h"
#include "tests/bench/load/load.h"
#include "transport/entry.h"

static int make(struct env_sys *sys, uint64_t i, bool server)
{
    struct seckey sk;
    struct pubkey pk, via;
    struct entry *e = NULL;
    struct hash digest;
    struct sig sig;
    char addr[40];
    env_keypair(&sys->env, &sk, &via);
    env_keypair(&sys->env, &sk, &pk);
    snprintf(addr, sizeof(addr), "203.0.113.%u:%u", (unsigned)(i % 250 + 1),
             (unsigned)(i % 60000) + 1);
    int64_t now = env_wall_ns(&sys->env);
    int rc = server ? entry_new_server(&e, &pk, 0, now, addr, (int64_t)(i + 1))
                    : entry_new_client(&e, &pk, 0, now, &via, 1, "");
    if (rc == 0)
        rc = entry_digest(&digest, e);
    if (rc == 0)
        rc = crypto_sign_digest(&sig, &sk, &digest);
    if (rc == 0)
        rc = entry_set_signature(e, &sig);
    if (rc == 0)
        printf("%.*s\n", (int)e->text_len, e->text);
    entry_free(e);
    return rc;
}

int entries_run(const struct load_opts *o)
{
    struct env_sys sys;
    int rc = env_sys_init(&sys);
    for (uint64_t i = 0; i < o->count && rc == 0; i++)
        rc = make(&sys, i, o->bare);
    if (rc < 0)
        fprintf(stderr, "kadmsg-load: entries: %s\n", err_str(rc));
    return rc < 0 ? CMD_EXIT_FAIL : CMD_EXIT_OK;
}
