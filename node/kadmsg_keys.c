/* Keys, signatures, the log and texts of the public library. */
#include <sodium.h>
#include <stdatomic.h>

#include "base/err.h"
#include "base/log.h"
#include "base/version.h"
#include "node/kadmsg_int.h"
#include "node/keyfile.h"

#define LOG_WHY 128

_Static_assert(sizeof(struct kadmsg_pk) == sizeof(struct pubkey), "copied as they are");
_Static_assert(sizeof(struct kadmsg_sk) == sizeof(struct seckey), "copied as they are");
_Static_assert(sizeof(struct kadmsg_sig) == sizeof(struct sig), "copied as they are");

#define SAME_CODE(ours, err)                                                                       \
    _Static_assert((int)(ours) == (int)(err), "codes of kadmsg.h are those of base/err.h")
SAME_CODE(KADMSG_FORMAT, ERR_FORMAT);
SAME_CODE(KADMSG_TOO_LONG, ERR_TOO_LONG);
SAME_CODE(KADMSG_BAD_KEY, ERR_KEY);
SAME_CODE(KADMSG_BAD_SIGNATURE, ERR_SIG);
SAME_CODE(KADMSG_BUSY, ERR_BUSY);
SAME_CODE(KADMSG_LIMIT, ERR_LIMIT);
SAME_CODE(KADMSG_NO_MEMORY, ERR_NOMEM);
SAME_CODE(KADMSG_CLOSED, ERR_CLOSED);
SAME_CODE(KADMSG_RESET, ERR_RESET);
SAME_CODE(KADMSG_TIMEOUT, ERR_TIMEOUT);
SAME_CODE(KADMSG_NOT_FOUND, ERR_NOT_FOUND);
SAME_CODE(KADMSG_REFUSED, ERR_REFUSED);
SAME_CODE(KADMSG_BAD_STATE, ERR_STATE);
SAME_CODE(KADMSG_OLD_SEQ, ERR_SEQ);
SAME_CODE(KADMSG_NO_ROUTE, ERR_NO_ROUTE);
SAME_CODE(KADMSG_USAGE, ERR_USAGE);
SAME_CODE(KADMSG_OTHER_NETWORK, ERR_NETWORK);
SAME_CODE(KADMSG_NO_LISTENER, ERR_DMSG_NO_LISTENER);

/* ---- errors, log ---- */

const char *kadmsg_error_text(int err)
{
    return err_str(err);
}

const char *kadmsg_version(void)
{
    return version_str();
}

static atomic_bool log_chosen;

int kadmsg_log(const char *levels)
{
    char why[LOG_WHY];
    atomic_store(&log_chosen, true);
    return log_set_levels(levels, why, sizeof(why));
}

void kadmsg_log_default(void)
{
    char why[LOG_WHY];
    if (!atomic_exchange(&log_chosen, true))
        (void)!log_set_levels("off", why, sizeof(why));
}

/* ---- keys ---- */

int kadmsg_key_new(struct kadmsg_sk *sk, struct kadmsg_pk *pk)
{
    struct seckey s;
    struct pubkey p;
    int rc = crypto_init();
    if (rc < 0)
        return rc;
    keyfile_fresh(&s, &p);
    memcpy(sk, &s, sizeof(*sk));
    kadmsg_pk_set(pk, &p);
    seckey_wipe(&s);
    return 0;
}

int kadmsg_pk_parse(struct kadmsg_pk *pk, const char *text)
{
    struct pubkey p;
    int rc = crypto_init();
    if (rc == 0)
        rc = pubkey_from_hex(&p, text, strlen(text));
    if (rc == 0)
        kadmsg_pk_set(pk, &p);
    return rc;
}

int kadmsg_sk_parse(struct kadmsg_sk *sk, const char *text)
{
    struct seckey s;
    int rc = crypto_init();
    if (rc == 0)
        rc = seckey_from_hex(&s, text, strlen(text));
    if (rc == 0)
        memcpy(sk, &s, sizeof(*sk));
    seckey_wipe(&s);
    return rc;
}

int kadmsg_sk_public(struct kadmsg_pk *pk, const struct kadmsg_sk *sk)
{
    struct seckey s;
    struct pubkey p;
    int rc = crypto_init();
    memcpy(&s, sk, sizeof(s));
    if (rc == 0)
        rc = seckey_pubkey(&p, &s);
    if (rc == 0)
        kadmsg_pk_set(pk, &p);
    seckey_wipe(&s);
    return rc;
}

char *kadmsg_pk_text(char out[KADMSG_KEY_TEXT], const struct kadmsg_pk *pk)
{
    struct pubkey p = kadmsg_pk_of(pk);
    return pubkey_hex(out, &p);
}

void kadmsg_sk_wipe(struct kadmsg_sk *sk)
{
    sodium_memzero(sk, sizeof(*sk));
}

int kadmsg_sign(struct kadmsg_sig *sig, const struct kadmsg_sk *sk, const void *msg, size_t size)
{
    struct seckey s;
    struct sig made;
    int rc = crypto_init();
    memcpy(&s, sk, sizeof(s));
    if (rc == 0)
        rc = crypto_sign_msg(&made, &s, msg, size);
    if (rc == 0)
        memcpy(sig, &made, sizeof(*sig));
    seckey_wipe(&s);
    return rc;
}

int kadmsg_verify(const struct kadmsg_pk *pk, const struct kadmsg_sig *sig, const void *msg,
                  size_t size)
{
    struct pubkey p = kadmsg_pk_of(pk);
    struct sig s;
    int rc = crypto_init();
    memcpy(&s, sig, sizeof(s));
    return rc < 0 ? rc : crypto_verify(&p, &s, msg, size);
}
