/*
 * Life of a registration:
 *
 *     parse, validate -> signature (ticket) -> the key's turn -> what is stored -> write -> answer, next of the key
 */
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "compat-http/disc_int.h"

#define WAITING_MAX 4096

/* ---- writing ---- */

static void on_stored(void *arg, const struct kv_answer *a)
{
    struct disc_job *j = arg;
    struct disc_service *d = j->d;
    if (a->err != 0) {
        disc_store_failed(j, a->err);
        return;
    }
    if (j->entry->has_server || j->was_server)
        disc_lists_forget(d);
    if (d->uptime != NULL && j->entry->has_client)
        uptime_note(d->uptime, &j->pk, j->entry->client_type, strlen(j->entry->client_type));
    if (d->cfg.stored != NULL)
        d->cfg.stored(d->cfg.arg, j->entry, j->text, j->text_len);
    disc_finish(j, j->existed ? DISC_WROTE_NEXT : DISC_WROTE_NEW);
}

static void on_old(void *arg, const struct kv_answer *a)
{
    struct disc_job *j = arg;
    struct entry *old = NULL;
    if (a->err != 0) {
        disc_store_failed(j, a->err);
        return;
    }
    j->existed = a->n > 0 && a->v[0].p != NULL;
    if (j->existed && !j->d->cfg.load_testing) {
        enum disc_text t = DISC_WROTE_NEXT;
        if (entry_parse(&old, a->v[0].p, a->v[0].n) < 0)
            t = DISC_UNEXPECTED; /* something else has this key; upstream refuses too */
        else if (j->entry->sequence <= old->sequence)
            t = DISC_SEQUENCE;
        else if (j->entry->timestamp_ns < old->timestamp_ns)
            t = DISC_TIMESTAMP;
        j->was_server = old != NULL && old->has_server;
        entry_free(old);
        if (t != DISC_WROTE_NEXT) {
            disc_finish(j, t);
            return;
        }
    }
    disc_layout_set(j, on_stored);
}

static void on_deleted(void *arg, const struct kv_answer *a)
{
    struct disc_job *j = arg;
    struct disc_service *d = j->d;
    if (a->err != 0) {
        disc_store_failed(j, a->err);
        return;
    }
    disc_lists_forget(d);
    if (d->cfg.deleted != NULL)
        d->cfg.deleted(d->cfg.arg, &j->pk);
    if (d->cfg.taken_back != NULL)
        d->cfg.taken_back(d->cfg.arg, j->entry);
    disc_finish(j, DISC_DELETED);
}

/* ---- the key's turn ---- */

static void turn_start(struct disc_job *j)
{
    struct kv_str key = disc_key(j->hex);
    if (j->kind == DISC_JOB_SET)
        disc_try(j, kv_get(j->d->cfg.kv, &key, 1, on_old, j));
    else
        disc_try(j, disc_layout_delete(j->d, j->hex, 1, on_deleted, j));
}

void disc_turn_end(struct disc_job *j)
{
    struct disc_turn *t = map_get(&j->d->turns, &j->pk);
    struct disc_job *next;
    if (!j->has_turn || t == NULL)
        return;
    j->has_turn = false;
    if ((next = list_pop_front_as(&t->queue, struct disc_job, turn)) != NULL) {
        next->has_turn = true;
        turn_start(next);
        return;
    }
    (void)map_del(&j->d->turns, &j->pk);
    free(t);
}

static void turn_wait(struct disc_job *j)
{
    struct disc_turn *t = map_get(&j->d->turns, &j->pk);
    if (t != NULL) {
        list_push_back(&t->queue, &j->turn);
        return;
    }
    if ((t = calloc(1, sizeof(*t))) == NULL) {
        disc_finish(j, DISC_UNEXPECTED);
        return;
    }
    t->pk = j->pk;
    list_init(&t->queue);
    if (map_put(&j->d->turns, t) < 0) {
        free(t);
        disc_finish(j, DISC_UNEXPECTED);
        return;
    }
    j->has_turn = true;
    turn_start(j);
}

/* ---- signature ---- */

static bool equal(const char *a, const char *b)
{
    return strcmp(a, b) == 0;
}

/* §3.5: what is stored of a server's type is our judgement. */
static void judge_server(struct disc_service *d, struct entry *e)
{
    bool official = equal(e->server.server_type, d->cfg.auth != NULL ? d->cfg.auth : "");
    for (size_t i = 0; i < d->cfg.n_official; i++)
        official = official || pubkey_equal(&e->static_pk, &d->cfg.official[i]);
    e->server.server_type = official ? "official" : "community";
}

static void checked(struct disc_job *j)
{
    struct disc_service *d = j->d;
    struct entry *e = j->entry;
    if (j->kind == DISC_JOB_SET) {
        if (e->has_server && d->cfg.generation >= DISC_2024)
            judge_server(d, e);
        if (disc_check_text(j) < 0) {
            disc_finish(j, DISC_UNEXPECTED);
            return;
        }
    }
    turn_wait(j);
}

static void check_signature(struct disc_job *j);

static void on_verified(struct pk_wait *w)
{
    struct disc_job *j = container_of(w, struct disc_job, wait);
    if (w->res.err == 0) {
        checked(j);
    } else if (++j->at < j->n_digest) {
        check_signature(j);
    } else {
        disc_finish(j, DISC_BAD_SIGNATURE);
    }
}

static void check_signature(struct disc_job *j)
{
    struct pk_req req = {.op = PK_VERIFY,
                         .cls = PK_CLASS_ITEM,
                         .pk = j->entry->static_pk,
                         .digest = j->digest[j->at],
                         .sig = j->entry->signature};
    j->wait.done = on_verified;
    int rc = env_pk(j->d->cfg.env, &j->wait, &req);
    if (rc == 0)
        on_verified(&j->wait);
    else if (rc != ERR_PENDING)
        disc_finish(j, DISC_UNEXPECTED);
}

static void receive(struct service_req *q, enum disc_kind kind)
{
    struct disc_service *d = q->app;
    struct disc_job *j = d->stat.waiting < WAITING_MAX ? disc_job_new(d, kind, q) : NULL;
    if (j == NULL) {
        disc_say(q, DISC_UNEXPECTED);
        return;
    }
    d->stat.posts += kind == DISC_JOB_SET;
    d->stat.deletes += kind == DISC_JOB_DELETE;
    int rc = disc_check_parse(&j->entry, q->body, q->body_len);
    const char *first = q->body + strspn(q->body, " \t\r\n");
    if (rc == ERR_NOT_FOUND || (rc < 0 && strncmp(first, "null", 4) == 0)) {
        disc_finish(j, DISC_NO_VERSION); /* an empty object, or null: every member is at its zero */
        return;
    }
    if (rc < 0) {
        disc_finish(j, rc == ERR_TOO_LONG ? DISC_TOO_LARGE : DISC_UNEXPECTED);
        return;
    }
    enum disc_text t = disc_check_entry(d, j->entry, kind == DISC_JOB_SET);
    if (disc_text_err(t) != 0) {
        disc_finish(j, t);
        return;
    }
    j->pk = j->entry->static_pk;
    pubkey_hex(j->hex, &j->pk);
    if (d->cfg.load_testing) {
        checked(j);
        return;
    }
    j->n_digest = entry_check_begin(j->digest, j->entry);
    if (j->n_digest > 0)
        check_signature(j);
    else
        disc_finish(j, DISC_BAD_SIGNATURE);
}

void disc_set(struct service_req *q)
{
    receive(q, DISC_JOB_SET);
}

void disc_delete(struct service_req *q)
{
    receive(q, DISC_JOB_DELETE);
}
