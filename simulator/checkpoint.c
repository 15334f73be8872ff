/*
 * A checkpoint is a head, the arenas of this process's shards, and a hash of both. It is written beside
 * its name and gets it when all processes have written theirs.
 */
#include <errno.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/err.h"
#include "simulator/world.h"

#define MAGIC  "kadmsg checkpoint\n"
#define FORMAT 1 /* of head and arenas */

struct head {
    char magic[24];
    uint32_t format, head_bytes;
    struct arena_program program;
    uint64_t run; /* the same in the files of all processes */
    uint32_t ranks, rank;
    struct sim_saved about;
};

struct file {
    FILE *f;
    crypto_generichash_state hash;
};

/* ---- bytes ---- */

static int put(void *arg, const void *p, size_t n)
{
    struct file *f = arg;

    (void)crypto_generichash_update(&f->hash, p, n);
    return fwrite(p, 1, n, f->f) == n ? 0 : err_sys();
}

static int get(void *arg, void *p, size_t n)
{
    struct file *f = arg;

    if (fread(p, 1, n, f->f) != n)
        return ferror(f->f) != 0 ? err_sys() : ERR_CORRUPT;
    (void)crypto_generichash_update(&f->hash, p, n);
    return 0;
}

static void begin_hash(struct file *f)
{
    (void)crypto_generichash_init(&f->hash, NULL, 0, crypto_generichash_BYTES);
}

static void end_hash(struct file *f, uint8_t out[crypto_generichash_BYTES])
{
    (void)crypto_generichash_final(&f->hash, out, crypto_generichash_BYTES);
}

/* The name of this process's file. */
static int name_of(char *out, size_t cap, const char *path, const struct exchange_net *others,
                   const char *end)
{
    int n = others != NULL && others->ranks > 1
                ? snprintf(out, cap, "%s.%u%s", path, others->rank, end)
                : snprintf(out, cap, "%s%s", path, end);

    return n < (int)cap ? 0 : ERR_TOO_LONG;
}

/* ---- saving ---- */

bool checkpoint_is_due(const struct sim *s, uint64_t begun_ns, uint64_t next_ns, bool stop)
{
    uint64_t every = s->cfg.checkpoint_every_ns;

    if (s->cfg.checkpoint[0] == '\0' || next_ns >= s->end_ns)
        return false;
    return stop ||
           (every > 0 && (begun_ns - SIM_EPOCH_NS) / every != (next_ns - SIM_EPOCH_NS) / every);
}

static uint64_t largest_of_all(const struct sim *s, uint64_t v)
{
    if (s->cfg.others != NULL)
        s->cfg.others->max(s->cfg.others->arg, &v, 1);
    return v;
}

static void make_head(struct sim *s, struct head *h)
{
    uint64_t run;

    memset(h, 0, sizeof *h);
    memcpy(h->magic, MAGIC, sizeof MAGIC);
    h->format = FORMAT;
    h->head_bytes = sizeof *h;
    h->program = arena_program();
    randombytes_buf(&run, sizeof run);
    h->run = largest_of_all(s, run);
    h->ranks = s->cfg.others != NULL ? s->cfg.others->ranks : 1;
    h->rank = s->cfg.others != NULL ? s->cfg.others->rank : 0;
    h->about = (struct sim_saved){.seed = s->cfg.seed,
                                  .virtual_ns = s->virtual_ns - SIM_EPOCH_NS,
                                  .bytes = sim_memory(s),
                                  .nodes = s->cfg.nodes,
                                  .threads = s->locals};
    memcpy(h->about.name, s->cfg.name, sizeof h->about.name);
}

static int write_all(struct sim *s, struct file *f)
{
    uint8_t hash[crypto_generichash_BYTES];
    struct head h;

    make_head(s, &h);
    begin_hash(f);
    int rc = put(f, &h, sizeof h);
    for (unsigned i = 0; rc == 0 && i < s->locals; i++)
        rc = arena_save(s->shard[i].arena, put, f);
    end_hash(f, hash);
    return rc == 0 ? put(f, hash, sizeof hash) : rc;
}

static int write_file(struct sim *s, const char *path)
{
    struct file f = {.f = fopen(path, "w")};

    if (f.f == NULL) {
        (void)largest_of_all(s, 0); /* the others make a head */
        return err_sys();
    }
    int rc = write_all(s, &f);
    if (rc == 0 && fflush(f.f) != 0)
        rc = err_sys();
    if (rc == 0 && fsync(fileno(f.f)) != 0 && errno != EINVAL)
        rc = err_sys();
    if (fclose(f.f) != 0 && rc == 0)
        rc = err_sys();
    return rc;
}

static void failed(struct sim *s, const char *path, int rc)
{
    s->checkpoint_err = rc;
    snprintf(s->checkpoint_why, sizeof s->checkpoint_why, "%.200s: %s", path, err_str(rc));
}

static void save(struct sim *s)
{
    char path[300], part[300];
    bool can = s->shard[0].arena != NULL;

    (void)name_of(path, sizeof path, s->cfg.checkpoint, s->cfg.others, "");
    (void)name_of(part, sizeof part, s->cfg.checkpoint, s->cfg.others, ".part");
    if (largest_of_all(s, !can) != 0) {
        failed(s, path, ERR_UNSUPPORTED);
        return;
    }
    int rc = write_file(s, part);
    bool all = largest_of_all(s, rc != 0) == 0;
    if (all && rename(part, path) != 0)
        rc = err_sys();
    if (!all)
        (void)unlink(part);
    if (rc != 0 || !all)
        failed(s, path, rc != 0 ? rc : ERR_STATE);
    else
        s->checkpoints++;
}

void checkpoint_save(struct sim *s)
{
    struct arena *before = arena_use(NULL);

    save(s);
    (void)arena_use(before);
}

/* ---- what is in a file ---- */

static int refuse(char *why, size_t cap, int rc, const char *path, const char *reason)
{
    snprintf(why, cap, "%s: %s", path, reason);
    return rc;
}

static int check_head(const struct head *h, const struct exchange_net *others, const char *path,
                      char *why, size_t cap)
{
    unsigned ranks = others != NULL ? others->ranks : 1, rank = others != NULL ? others->rank : 0;
    char text[128];

    if (memcmp(h->magic, MAGIC, sizeof MAGIC) != 0)
        return refuse(why, cap, ERR_FORMAT, path, "not a checkpoint");
    if (h->format != FORMAT || h->head_bytes != sizeof *h) {
        snprintf(text, sizeof text, "a checkpoint of format %" PRIu32 ", this program reads %d",
                 h->format, FORMAT);
        return refuse(why, cap, ERR_VERSION, path, text);
    }
    if (h->program.check != arena_program().check)
        return refuse(why, cap, ERR_VERSION, path,
                      "a checkpoint of another build: only the program that wrote it can go on");
    if (h->ranks != ranks || h->rank != rank) {
        snprintf(text, sizeof text, "of process %" PRIu32 " of %" PRIu32 ", this is %u of %u",
                 h->rank, h->ranks, rank, ranks);
        return refuse(why, cap, ERR_STATE, path, text);
    }
    if (h->about.threads == 0 || h->about.threads > SIM_THREADS_MAX)
        return refuse(why, cap, ERR_CORRUPT, path, "damaged");
    return 0;
}

/* Files of the same moment of the same run? A collective call: a process that cannot read its own takes part. */
static int check_run(const struct exchange_net *others, bool good, uint64_t run, const char *path,
                     char *why, size_t cap)
{
    uint64_t v[] = {good ? run : 0, good ? ~run : UINT64_MAX, !good};

    if (others == NULL)
        return 0;
    others->max(others->arg, v, 3);
    if (good && v[2] != 0)
        return refuse(why, cap, ERR_STATE, path, "another process cannot read its file");
    if (good && v[0] != ~v[1])
        return refuse(why, cap, ERR_STATE, path,
                      "the files of the processes are of different runs");
    return 0;
}

static int open_file(struct file *f, struct head *h, const char *path,
                     const struct exchange_net *others, char *why, size_t cap)
{
    char name[300];
    int rc = name_of(name, sizeof name, path, others, "");

    f->f = rc == 0 ? fopen(name, "r") : NULL;
    if (f->f == NULL)
        return refuse(why, cap, rc != 0 ? rc : err_sys(), path,
                      rc != 0 ? err_str(rc) : strerror(errno));
    begin_hash(f);
    rc = get(f, h, sizeof *h);
    if (rc == ERR_CORRUPT)
        rc = refuse(why, cap, ERR_FORMAT, name, "not a checkpoint: too short");
    else if (rc != 0)
        rc = refuse(why, cap, rc, name, err_str(rc));
    else
        rc = check_head(h, others, name, why, cap);
    if (rc != 0)
        (void)fclose(f->f);
    return rc;
}

int sim_saved(struct sim_saved *out, const char *path, const struct exchange_net *others, char *why,
              size_t why_cap)
{
    struct file f;
    struct head h;

    int rc = open_file(&f, &h, path, others, why, why_cap);
    if (rc == 0) {
        (void)fclose(f.f);
        *out = h.about;
    }
    return rc;
}

/* ---- going on ---- */

static int read_arenas(struct file *f, const struct head *h, struct arena **v)
{
    uint8_t want[crypto_generichash_BYTES], hash[sizeof want];
    unsigned n = 0;
    int rc = 0;

    for (; rc == 0 && n < h->about.threads; n++)
        rc = arena_load(&v[n], h->rank * h->about.threads + n, &h->program, get, f);
    end_hash(f, hash);
    if (rc == 0)
        rc = get(f, want, sizeof want);
    if (rc == 0 && (memcmp(hash, want, sizeof hash) != 0 || fgetc(f->f) != EOF))
        rc = ERR_CORRUPT;
    for (unsigned i = 0; rc != 0 && i < n; i++)
        arena_free(v[i]);
    return rc;
}

static void set_run(struct sim *s, const struct sim_cfg *run)
{
    s->cfg.others = run->others;
    s->cfg.stop = run->stop;
    s->cfg.progress = run->progress;
    s->cfg.progress_arg = run->progress_arg;
    s->cfg.traced = run->traced;
    s->cfg.traced_arg = run->traced_arg;
    memcpy(s->cfg.checkpoint, run->checkpoint, sizeof s->cfg.checkpoint);
    s->cfg.checkpoint_every_ns = run->checkpoint_every_ns;
    s->resumed = true;
    s->interrupted = false;
    s->checkpoints = 0;
    s->checkpoint_err = 0;
}

int sim_resume(struct sim **out, const char *path, const struct sim_cfg *run, char *why,
               size_t why_cap)
{
    struct arena *arenas[SIM_THREADS_MAX];
    struct file f;
    struct head h = {0};

    *out = NULL;
    int rc = open_file(&f, &h, path, run->others, why, why_cap);
    int same = check_run(run->others, rc == 0, h.run, path, why, why_cap);
    if (rc != 0)
        return rc;
    rc = same != 0 ? same : read_arenas(&f, &h, arenas);
    (void)fclose(f.f);
    if (rc == ERR_CORRUPT)
        (void)refuse(why, why_cap, rc, path, "damaged, or cut off");
    else if (rc != 0 && same == 0)
        (void)refuse(why, why_cap, rc, path, err_str(rc));
    if (rc != 0)
        return rc;
    struct sim *s = arena_root(arenas[0]);
    set_run(s, run);
    rc = exchange_new(&s->exchange, s->locals, s->cfg.others);
    if (rc != 0) {
        sim_free(s);
        return refuse(why, why_cap, rc, path, err_str(rc));
    }
    *out = s;
    return 0;
}
