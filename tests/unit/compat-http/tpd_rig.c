#include "tests/unit/compat-http/tpd_rig.h"

#include <stdio.h>

#include "base/hex.h"
#include "compat-http/httpauth.h"
#include "compat-http/tpd_body.h"

static struct kv_open sql; /* what is not in Redis in 2024 */

void tpd_rig_free(void *app)
{
    tpd_service_free(app);
    kv_open_close(&sql);
}

struct tpd_service *tpd_of_rig(void)
{
    return rig.app;
}

bool tpd_is_ready(void *arg)
{
    struct tpd_service_stat stat;
    (void)arg;
    tpd_service_stat(tpd_of_rig(), &stat);
    return stat.ready;
}

static void store_back(void)
{
    tpd_service_store_back(tpd_of_rig());
}

void tpd_start(struct tpd_service_cfg cfg, bool with_redis)
{
    struct tpd_service *t;
    char why[300];
    size_t n;
    rig_open_store(with_redis);
    cfg.env = &rig.env.env;
    cfg.loop = drive_loop_loop(rig.drive);
    cfg.kv = rig.store.kv;
    if (with_redis && cfg.generation == TPD_2024) {
        struct kv_open_cfg lmdb = {
            .drive = rig.drive, .env = &rig.env.env, .dir = tmpdir_file(&rig.dir, "sql")};
        assert_int_equal(kv_open(&sql, &lmdb, why, sizeof(why)), 0);
        cfg.nonces = rig.store.kv;
        cfg.kv = sql.kv;
    }
    assert_int_equal(tpd_service_new(&t, &cfg), 0);
    rig.app = t;
    rig.app_free = tpd_rig_free;
    rig.store_back = store_back;
    const struct service_route *routes = tpd_service_routes(cfg.generation, &n);
    rig_serve(routes, n, t, tpd_service_dropped);
    rig_wait(tpd_is_ready, NULL);
}

struct answer tpd_ask(struct signer *s, uint64_t nonce, const char *method, const char *path,
                      const char *body)
{
    struct hash digest;
    struct sig sig;
    char hex[2 * SIG_BYTES + 1], number[24];
    httpauth_digest(&digest, body, strlen(body), nonce);
    assert_int_equal(crypto_sign_digest(&sig, &s->sk, &digest), 0);
    snprintf(number, sizeof(number), "%llu", (unsigned long long)nonce);
    json_t *headers = json_pack("{s:s, s:s, s:s}", "SW-Public", s->hex, "SW-Nonce", number,
                                "SW-Sig", hex_encode(hex, sig.b, SIG_BYTES));
    struct answer a = rig_request(method, path, headers, body);
    json_decref(headers);
    return a;
}

uint64_t tpd_nonce(const struct signer *s)
{
    char path[120];
    snprintf(path, sizeof(path), "/security/nonces/%s", s->hex);
    struct answer a = rig_get(path);
    assert_int_equal(a.status, 200);
    const char *at = strstr(a.body, "\"next_nonce\":");
    assert_non_null(at);
    return strtoull(at + 13, NULL, 10);
}

struct answer tpd_call(struct signer *s, const char *method, const char *path, const char *body)
{
    return tpd_ask(s, tpd_nonce(s), method, path, body);
}

/* ---- entries ---- */

static struct tpd_signed make(const struct signer *a, const struct signer *b, const char *type,
                              const char *label)
{
    struct tpd_signed s = {.e.id = tp_id_of(&a->pk, &b->pk, type)};
    const struct signer *by[2] = {a, b};
    struct hash digest;
    if (pubkey_cmp(&a->pk, &b->pk) > 0) {
        by[0] = b;
        by[1] = a;
    }
    for (int i = 0; i < 2; i++)
        s.e.edges[i] = by[i]->pk;
    snprintf(s.e.type, sizeof(s.e.type), "%s", type);
    snprintf(s.e.label, sizeof(s.e.label), "%s", label);
    tpd_signed_digest(&digest, &s.e);
    for (int i = 0; i < 2; i++)
        assert_int_equal(crypto_sign_digest(&s.sig[i], &by[i]->sk, &digest), 0);
    return s;
}

static const char *list_of(const struct tpd_signed *s, bool bare)
{
    static char text[2048];
    struct json_out o;
    json_out_fixed(&o, JSON_STD, text, sizeof(text) - 1);
    json_out_array(&o);
    if (bare)
        tp_entry_write(&o, &s->e);
    else
        tpd_signed_write(&o, s);
    json_out_array_end(&o);
    assert_int_equal(o.err, 0);
    text[o.len] = '\0';
    return text;
}

const char *tpd_entry(const struct signer *a, const struct signer *b, const char *type,
                      const char *label)
{
    struct tpd_signed s = make(a, b, type, label);
    return list_of(&s, false);
}

const char *tpd_bare(const struct signer *a, const struct signer *b, const char *type,
                     const char *label)
{
    struct tpd_signed s = make(a, b, type, label);
    return list_of(&s, true);
}

const char *tpd_id(const struct signer *a, const struct signer *b, const char *type)
{
    static char text[4][TP_ID_TEXT + 1];
    static unsigned at;
    struct tp_id id = tp_id_of(&a->pk, &b->pk, type);
    return tp_id_text(text[at++ % 4], &id);
}
