#include "tests/unit/compat-http/disc_rig.h"

#include <stdio.h>

static void app_free(void *app)
{
    disc_service_free(app);
}

void disc_start(struct disc_service_cfg cfg, bool with_redis)
{
    struct disc_service *d;
    rig_open_store(with_redis);
    cfg.env = &rig.env.env;
    cfg.loop = drive_loop_loop(rig.drive);
    cfg.kv = rig.store.kv;
    assert_int_equal(disc_service_new(&d, &cfg), 0);
    rig.app = d;
    rig.app_free = app_free;
    rig_serve(disc_service_routes, disc_service_n_routes, d, disc_service_dropped);
}

struct answer disc_post(const char *body)
{
    return rig_request("POST", "/dmsg-discovery/entry/", NULL, body);
}

const char *signer_finish(struct signer *s, struct entry *e)
{
    static char text[4096];
    struct hash digest;
    struct sig sig;
    assert_int_equal(entry_digest(&digest, e), 0);
    assert_int_equal(crypto_sign_digest(&sig, &s->sk, &digest), 0);
    assert_int_equal(entry_set_signature(e, &sig), 0);
    snprintf(text, sizeof(text), "%.*s", (int)e->text_len, e->text);
    entry_free(e);
    return text;
}

const char *client_entry(struct signer *s, uint64_t seq, const struct pubkey *via, const char *type)
{
    struct entry *e;
    assert_int_equal(entry_new_client(&e, &s->pk, seq, rig.env.wall_ns, via, via != NULL, type), 0);
    return signer_finish(s, e);
}

const char *server_entry(struct signer *s, uint64_t seq, const char *addr, int64_t free_n,
                         const char *type)
{
    struct entry *e;
    assert_int_equal(entry_new_server(&e, &s->pk, seq, rig.env.wall_ns, addr, free_n), 0);
    e->server.server_type = type;
    return signer_finish(s, e);
}
