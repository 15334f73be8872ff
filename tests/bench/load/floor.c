/*
 * floor - what single operations cost on this machine, in processor time: the sum of those that a
 * task needs is what no implementation of it beats. Best of several rounds, because a disturbance
 * only ever adds.
 */
#include <assert.h>
#include <stdio.h>
#include <time.h>

#include "tests/bench/load/load.h"
#include "transport/record.h"

#define ROUNDS 7

struct floor {
    struct env_sys sys;
    struct seckey sk;
    struct pubkey pk, pk2;
    struct hash digest;
    struct sig sig;
    uint8_t out[32];
    uint8_t frame[RECORD_PLAIN_MAX + AEAD_TAG_BYTES];
};

static void ecdh(struct floor *f)
{
    int rc = crypto_ecdh(f->out, &f->sk, &f->pk2);
    assert(rc == 0);
    (void)rc;
}

static void keypair(struct floor *f)
{
    struct seckey sk;
    env_keypair(&f->sys.env, &sk, &f->pk2);
}

static void sign(struct floor *f)
{
    int rc = crypto_sign_digest(&f->sig, &f->sk, &f->digest);
    assert(rc == 0);
    (void)rc;
}

static void verify(struct floor *f)
{
    int rc = crypto_verify_digest(&f->pk, &f->sig, &f->digest);
    assert(rc == 0);
    (void)rc;
}

static void seal_and_open(struct floor *f)
{
    crypto_aead_seal(f->frame, f->digest.b, 1, NULL, 0, f->frame, RECORD_PLAIN_MAX);
    int rc = crypto_aead_open(f->frame, f->digest.b, 1, NULL, 0, f->frame, sizeof f->frame);
    assert(rc == 0);
    (void)rc;
}

static double cpu_us(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

static double best_us(struct floor *f, void (*op)(struct floor *f), unsigned count)
{
    double best = 0;
    for (unsigned r = 0; r < ROUNDS; r++) {
        double start = cpu_us();
        for (unsigned i = 0; i < count; i++)
            op(f);
        double one = (cpu_us() - start) / count;
        best = r == 0 || one < best ? one : best;
    }
    return best;
}

int floor_run(void)
{
    static struct floor f;
    struct json_out o;
    char text[1024];
    if (env_sys_init(&f.sys) < 0)
        return CMD_EXIT_FAIL;
    env_keypair(&f.sys.env, &f.sk, &f.pk);
    env_keypair(&f.sys.env, &f.sk, &f.pk2);
    env_keypair(&f.sys.env, &f.sk, &f.pk); /* pk belongs to sk */
    crypto_sha256(&f.digest, f.pk.b, sizeof f.pk.b);
    json_out_fixed(&o, JSON_FAST, text, sizeof text);
    json_out_object(&o);
    json_out_name(&o, "mode");
    json_out_str(&o, "floor");
    report_number(&o, "ecdh_us", best_us(&f, ecdh, 500));
    report_number(&o, "keypair_us", best_us(&f, keypair, 500));
    report_number(&o, "sign_us", best_us(&f, sign, 500));
    report_number(&o, "verify_us", best_us(&f, verify, 500));
    report_number(&o, "seal_and_open_us_per_kib",
                  best_us(&f, seal_and_open, 2000) * 1024 / RECORD_PLAIN_MAX);
    json_out_object_end(&o);
    printf("%.*s\n", (int)o.len, o.p);
    return CMD_EXIT_OK;
}
