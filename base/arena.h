/*
 * arena - memory whose every byte can be written to a file and come back at the same addresses.
 *
 * A thread that has said arena_use(a) gets what it allocates (malloc, calloc, realloc of NULL,
 * reallocarray, strdup, strndup) from arena a; all other threads, and libraries always, get it from
 * the heap. free() and realloc() find out by the address where a block lives, so code that allocates
 * knows nothing of arenas. The program is linked with --wrap for these functions (Makefile); where it is
 * not, arena_new() gives ERR_UNSUPPORTED and everything is on the heap.
 *
 * An arena is a range of addresses of its own, the same in every process: number n lies at
 * ARENA_BASE + n * ARENA_SPAN. It is cut into slabs of 64 KiB; a slab holds blocks of one size, which
 * follow each other without headers, or is the head of one large block. Everything the arena knows
 * about itself lies in it too. So arena_save() and arena_load() bring back a whole world of structs
 * with their pointers. Pointers out of the arena are the caller's affair, but for those into the
 * program (functions, constants): arena_load() moves them when the program lies elsewhere this time.
 * It knows them by their value, eight aligned bytes that are an address within the program. So times and
 * counters that could look like one are to be kept away from there: arena_program() says where.
 *
 * Threads: one user at a time (arena_use() of several threads at once is a caller's bug); blocks
 * may be freed by any thread, and go back to their arena when it allocates next. Saving and loading:
 * nobody uses it meanwhile. Limits: ARENA_SPAN each, ARENA_COUNT of them; blocks of up to
 * ARENA_SPAN / 4; memory, which allocation tells as malloc() does (NULL).
 * Errors: arena_new() ERR_EXISTS (this number is in use, or its addresses are), ERR_NOMEM,
 * ERR_UNSUPPORTED.
 *
 *     rc = arena_new(&a, 0);
 *     struct arena *before = arena_use(a);
 *     world = build_world();
 *     (void)arena_use(before);
 *     rc = arena_save(a, write_some, file);
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__SANITIZE_THREAD__)
#define ARENA_BASE  UINT64_C(0x7e8000000000) /* where that tool lets a program map what it likes */
#define ARENA_SPAN  (UINT64_C(1) << 32)
#define ARENA_COUNT 128u
#else
#define ARENA_BASE  UINT64_C(0x200000000000)
#define ARENA_SPAN  (UINT64_C(1) << 37)
#define ARENA_COUNT 256u
#endif

struct arena;

/* An empty arena with this number, modulo ARENA_COUNT. */
int arena_new(struct arena **out, unsigned number) __attribute__((warn_unused_result));
/* Everything in it is gone; NULL is allowed. No thread uses it. */
void arena_free(struct arena *a);

/* From now on this thread allocates from a; NULL: from the heap. Returns what it was. */
struct arena *arena_use(struct arena *a);

/* Bytes of blocks in use, rounded up as they are; bytes of memory the arena has taken. */
size_t arena_used(const struct arena *a);
size_t arena_taken(const struct arena *a);

/* One pointer that the arena keeps for its owner: where the rest begins. */
void arena_set_root(struct arena *a, void *root);
void *arena_root(const struct arena *a);

/* Where the program itself lies in memory. */
struct arena_program {
    uint64_t base, size;
    uint64_t check; /* of its code and constants: another build has another one */
};
struct arena_program arena_program(void);

/* Gives all bytes in order; 0 or what fn returned. */
typedef int arena_write_fn(void *arg, const void *p, size_t n);
int arena_save(struct arena *a, arena_write_fn *fn, void *arg) __attribute__((warn_unused_result));

/* The arena with this number as it was saved by the program that lay at `was`. fn gives the next n bytes
 * or an error. ERR_CORRUPT: they are no arena with this number. */
typedef int arena_read_fn(void *arg, void *p, size_t n);
int arena_load(struct arena **out, unsigned number, const struct arena_program *was,
               arena_read_fn *fn, void *arg) __attribute__((warn_unused_result));
