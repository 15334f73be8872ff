#include "compat-http/disc_reg.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/log.h"

#define CONFLICT_NS     (100 * NS_PER_MS)
#define CONFLICT_MAX_NS (2 * NS_PER_S)
#define RETRY_NS        (NS_PER_S)

enum reg_state { REG_IDLE, REG_GET, REG_SIGN, REG_SEND };

struct disc_reg {
    struct disc_reg_cfg cfg;
    enum reg_state state;
    struct loop_timer timer; /* IDLE: when to publish next */
    struct loop_task ended;  /* of a withdrawal that had nothing to do */
    uint64_t handle;         /* of the port */
    struct pk_wait sign;
    struct entry *draft;
    bool again;       /* a change came while a publication was under way */
    bool taking_back; /* the draft is there to be taken back */
    bool plain;       /* without members that 2023 does not know */
    bool ours;        /* something of ours may be in the discovery */
    bool looking;     /* not due yet: to be sent only when it has to be */
    uint64_t due_ns;  /* when it is to be sent, whatever a look says meanwhile */
    unsigned conflicts, failures;
    uint64_t sequence;   /* of the last entry that we sent */
    uint64_t foreign_ns; /* when somebody else wrote the key's entry last; 0 = never */
    void (*done)(void *arg);
    void *done_arg;
    bool withdrawing;
    struct disc_reg_stat stat;
};

static uint64_t now_of(const struct disc_reg *r)
{
    return r->cfg.loop->now_ns;
}

static void schedule(struct disc_reg *r, uint64_t in_ns)
{
    uint64_t at = now_of(r) + in_ns;
    if (r->state == REG_IDLE && (!loop_timer_armed(&r->timer) || at < r->timer.at_ns))
        loop_timer_set(r->cfg.loop, &r->timer, at);
}

static void drop_draft(struct disc_reg *r)
{
    entry_free(r->draft);
    r->draft = NULL;
}

static void idle(struct disc_reg *r, uint64_t next_ns)
{
    r->state = REG_IDLE;
    drop_draft(r);
    loop_timer_cancel(r->cfg.loop, &r->timer);
    if (r->withdrawing) {
        loop_task_post(r->cfg.loop, &r->ended);
        return;
    }
    if (r->again && next_ns > DISC_REG_GAP_NS)
        next_ns = DISC_REG_GAP_NS;
    r->again = r->looking = false;
    r->due_ns = now_of(r) + next_ns;
    schedule(r, next_ns);
}

/* ---- failures ---- */

static void failed(struct disc_reg *r, int err, const char *why)
{
    uint64_t wait = RETRY_NS << (r->failures < 6 ? r->failures : 6);
    r->failures++;
    r->conflicts = 0;
    r->stat.failed++;
    r->stat.last_err = err;
    log_limited_here(LOG_HTTP, LOG_LEVEL_WARN, "entry not registered reason=\"%s\"", why);
    idle(r, env_jitter_ns(r->cfg.env, wait < DISC_REG_RETRY_MAX_NS ? wait : DISC_REG_RETRY_MAX_NS,
                          50));
}

static void conflict(struct disc_reg *r)
{
    uint64_t wait = CONFLICT_NS << (r->conflicts < 5 ? r->conflicts : 5);
    r->stat.conflicts++;
    if (++r->conflicts > DISC_REG_CONFLICTS) {
        failed(r, ERR_SEQ, disc_text_message(DISC_SEQUENCE));
        return;
    }
    idle(r, env_jitter_ns(r->cfg.env, wait < CONFLICT_MAX_NS ? wait : CONFLICT_MAX_NS, 25));
}

/* ---- the entry that should be there ---- */

/* Somebody else renews the other half of our key: it is there, and either not written by us or seen so lately. */
static bool keep_foreign(struct disc_reg *r, const struct entry *stored, bool half, bool ours)
{
    if (!half || ours)
        return false;
    if (!r->ours || stored->sequence != r->sequence)
        r->foreign_ns = now_of(r) + 1;
    return r->foreign_ns != 0 && now_of(r) < r->foreign_ns + DISC_REG_FOREIGN_NS;
}

static int add_own(struct disc_reg *r, struct entry *e, const struct disc_self *self)
{
    int rc = 0;
    if (self->server) {
        rc = entry_add_server(e, self->address, self->available_sessions);
        if (rc == 0 && self->server_type != NULL)
            e->server.server_type =
                self->server_type; /* until it is signed: then it is in the text */
    }
    if (rc == 0 && self->client && r->plain)
        e->client_type = "";
    return rc;
}

/* genuine: its other half may be kept. */
static int draft_new(struct disc_reg *r, const struct disc_self *self, const struct entry *stored,
                     bool genuine)
{
    uint64_t sequence = stored != NULL ? stored->sequence + 1 : 0;
    int64_t wall = env_wall_ns(r->cfg.env);
    bool foreign_server =
        stored != NULL && genuine && keep_foreign(r, stored, stored->has_server, self->server);
    bool foreign_client =
        stored != NULL && genuine && keep_foreign(r, stored, stored->has_client, self->client);
    if (stored != NULL && stored->timestamp_ns > wall)
        wall = stored->timestamp_ns; /* an equal one is taken, an older one is not */
    r->stat.merged += foreign_server || foreign_client;
    r->taking_back = r->withdrawing && !foreign_server && !foreign_client;
    struct disc_self none = {.client = true, .client_type = ""};
    const struct disc_self *say = r->withdrawing && !r->taking_back ? &none : self;
    int rc = entry_new_client(&r->draft, &r->cfg.self, sequence, wall, say->delegated,
                              say->n_delegated, say->client_type);
    if (rc < 0)
        return rc;
    r->draft->has_client = say == self && self->client;
    if (!r->draft->has_client)
        r->draft->client_type = "";
    if (say == self)
        rc = add_own(r, r->draft, self);
    if (rc == 0 && foreign_server)
        rc = entry_copy_server(r->draft, stored);
    if (rc == 0 && foreign_client)
        rc = entry_copy_client(r->draft, stored);
    return rc;
}

/* ---- sending ---- */

static void on_sent(void *arg, const struct disc_answer *a)
{
    struct disc_reg *r = arg;
    r->handle = 0;
    if (a->err == ERR_SEQ) {
        conflict(r);
        return;
    }
    if (a->text == DISC_BAD_SIGNATURE && !r->plain && r->draft->client_type[0] != '\0') {
        r->plain = true;
        conflict(r);
        return;
    }
    if (a->err != 0) {
        failed(r, a->err, a->why);
        return;
    }
    uint64_t period = r->draft->has_server ? DISC_REG_SERVER_NS : DISC_REG_CLIENT_NS;
    bool sent = !r->withdrawing;
    r->sequence = r->stat.sequence = r->draft->sequence;
    r->ours = !r->withdrawing;
    r->stat.withdrawn += r->withdrawing;
    r->stat.published += !r->withdrawing;
    r->stat.last_err = 0;
    r->stat.last_ns = now_of(r);
    r->conflicts = r->failures = 0;
    idle(r, env_jitter_ns(r->cfg.env, period - period / 10, 10));
    if (sent && r->cfg.sent != NULL)
        r->cfg.sent(r->cfg.arg);
}

static void on_signed(struct pk_wait *w)
{
    struct disc_reg *r = container_of(w, struct disc_reg, sign);
    int rc = w->res.err;
    if (rc == 0)
        rc = entry_set_signature(r->draft, &w->res.sig);
    pk_wait_wipe(w);
    if (rc < 0) {
        failed(r, rc, err_str(rc));
        return;
    }
    r->state = REG_SEND;
    r->handle = r->cfg.port.send(r->cfg.port.arg, r->taking_back, r->draft->text,
                                 r->draft->text_len, on_sent, r);
    if (r->handle == 0)
        failed(r, ERR_NOMEM, err_str(ERR_NOMEM));
}

static void sign(struct disc_reg *r)
{
    struct pk_req req = {.op = PK_SIGN, .cls = PK_CLASS_OWN, .sk = r->cfg.sk};
    int rc = entry_digest(&req.digest, r->draft);
    r->state = REG_SIGN;
    r->sign.done = on_signed;
    if (rc == 0)
        rc = env_pk(r->cfg.env, &r->sign, &req);
    sodium_memzero(&req, sizeof(req));
    if (rc == 0)
        on_signed(&r->sign);
    else if (rc != ERR_PENDING)
        failed(r, rc, err_str(rc));
}

/* ---- what is there ---- */

/* Back to waiting, with the next publication due when it was. */
static void look_over(struct disc_reg *r, uint64_t in_ns, uint64_t due_ns)
{
    idle(r, in_ns);
    r->due_ns = due_ns > now_of(r) ? due_ns : now_of(r);
    r->looking = r->due_ns > now_of(r) + in_ns;
}

/* True: nothing has to be sent now. */
static bool is_carried(struct disc_reg *r, const struct entry *stored)
{
    uint64_t period = env_jitter_ns(r->cfg.env, DISC_REG_CLIENT_NS - DISC_REG_CLIENT_NS / 10, 10);
    bool was = r->stat.carried;
    r->stat.looks++;
    switch (r->cfg.carried(r->cfg.arg, stored)) {
    case DISC_REG_CARRIED:
        r->stat.seen++;
        r->stat.carried = r->ours = true;
        r->sequence = r->stat.sequence = stored->sequence;
        r->stat.last_err = 0;
        r->stat.last_ns = now_of(r);
        r->conflicts = r->failures = 0;
        idle(r, period);
        return true;
    case DISC_REG_NOT_YET:
        look_over(r, DISC_REG_LOOK_NS, r->due_ns);
        return true;
    case DISC_REG_MISSING:
        break;
    }
    r->stat.carried = false;
    r->stat.resumed += was;
    if (stored != NULL && r->looking && !was && r->due_ns > now_of(r)) {
        look_over(r, r->due_ns - now_of(r), r->due_ns); /* what was sent is there */
        return true;
    }
    return false;
}

static void on_stored(void *arg, const struct disc_answer *a)
{
    struct disc_reg *r = arg;
    struct disc_self self = {.client_type = ""};
    r->handle = 0;
    /* What cannot be read as an entry of ours is written over. */
    bool none = a->err == ERR_NOT_FOUND || a->err == ERR_FORMAT || a->err == ERR_SIG ||
                a->err == ERR_TOO_LONG;
    if (a->err != 0 && !none) {
        failed(r, a->err, a->why);
        return;
    }
    if (!r->cfg.fill(r->cfg.arg, &self) && !r->withdrawing) {
        idle(r, DISC_REG_CLIENT_NS);
        return;
    }
    if (r->withdrawing && a->entry == NULL) { /* nothing to take back */
        idle(r, 0);
        return;
    }
    if (!r->withdrawing && r->cfg.carried != NULL && is_carried(r, a->entry))
        return;
    int rc = draft_new(r, &self, a->entry, a->verified);
    if (rc < 0)
        failed(r, rc, err_str(rc));
    else
        sign(r);
}

static void on_due(struct loop_timer *t)
{
    struct disc_reg *r = container_of(t, struct disc_reg, timer);
    struct disc_self self;
    if (!r->withdrawing && !r->cfg.fill(r->cfg.arg, &self))
        return; /* the next kick comes when there is something to say */
    r->state = REG_GET;
    r->handle = r->cfg.port.get(r->cfg.port.arg, &r->cfg.self, on_stored, r);
    if (r->handle == 0)
        failed(r, ERR_NOMEM, err_str(ERR_NOMEM));
}

void disc_reg_kick(struct disc_reg *r)
{
    if (r->withdrawing)
        return;
    if (r->state != REG_IDLE) {
        r->again = true;
        return;
    }
    uint64_t since = now_of(r) - r->stat.last_ns;
    r->looking = false;
    r->due_ns = now_of(r); /* it says something else now */
    if (r->failures > 0 && loop_timer_armed(&r->timer))
        return; /* the retry is soon enough */
    schedule(r, r->stat.last_ns != 0 && since < DISC_REG_GAP_NS ? DISC_REG_GAP_NS - since
                                                                : DISC_REG_DEBOUNCE_NS);
}

void disc_reg_look(struct disc_reg *r, uint64_t in_ns)
{
    if (r->cfg.carried == NULL || r->withdrawing || r->state != REG_IDLE || r->failures > 0 ||
        !loop_timer_armed(&r->timer) || r->timer.at_ns <= now_of(r) + in_ns)
        return; /* it is looked at soon anyway */
    r->looking = true;
    loop_timer_set(r->cfg.loop, &r->timer, now_of(r) + in_ns);
}

/* ---- the end ---- */

static void on_ended(struct loop_task *t)
{
    struct disc_reg *r = container_of(t, struct disc_reg, ended);
    void (*done)(void *arg) = r->done;
    r->done = NULL;
    if (done != NULL)
        done(r->done_arg);
}

static void stop(struct disc_reg *r)
{
    if (r->handle != 0)
        r->cfg.port.cancel(r->cfg.port.arg, r->handle);
    r->handle = 0;
    env_pk_cancel(r->cfg.env, &r->sign);
    loop_timer_cancel(r->cfg.loop, &r->timer);
    drop_draft(r);
    r->state = REG_IDLE;
}

void disc_reg_withdraw(struct disc_reg *r, void (*done)(void *arg), void *arg)
{
    bool sent = r->ours || r->state == REG_SEND;
    stop(r);
    r->withdrawing = true;
    r->done = done;
    r->done_arg = arg;
    if (sent)
        loop_timer_set(r->cfg.loop, &r->timer, now_of(r));
    else
        loop_task_post(r->cfg.loop, &r->ended);
}

struct disc_reg *disc_reg_new(const struct disc_reg_cfg *cfg)
{
    struct disc_reg *r = calloc(1, sizeof(*r));
    if (r == NULL)
        return NULL;
    r->cfg = *cfg;
    r->timer.fn = on_due;
    r->ended.fn = on_ended;
    return r;
}

void disc_reg_free(struct disc_reg *r)
{
    if (r == NULL)
        return;
    stop(r);
    loop_task_cancel(r->cfg.loop, &r->ended);
    seckey_wipe(&r->cfg.sk);
    free(r);
}

void disc_reg_stat(const struct disc_reg *r, struct disc_reg_stat *out)
{
    *out = r->stat;
}
