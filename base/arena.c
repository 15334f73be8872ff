#include "base/arena.h"

#include <assert.h>
#include <errno.h>
#include <link.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/err.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n)   ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

#define SLAB       65536u
#define HEAD       64u /* of a slab, before its first block */
#define STEP       16u /* sizes up to SMALL are multiples of it */
#define SMALL_LOG  12
#define SMALL      (1u << SMALL_LOG)   /* from here on four sizes for each doubling */
#define MEDIUM     ((SLAB - HEAD) / 2) /* larger blocks have slabs of their own */
#define N_SMALL    (SMALL / STEP)
#define N_CLASSES  (N_SMALL + 4 * 25)
#define GROW       (UINT64_C(4) << 20) /* memory is taken in pieces of this */
#define PAGE       4096u
#define SLAB_PAGES (SLAB / PAGE)
#define MAGIC      UINT64_C(0x616e6572612d3031)
#define END        UINT64_MAX

struct block { /* a free one */
    struct block *next;
};

struct slab { /* at each multiple of SLAB; of a large block only at its first one */
    uint32_t class;
    uint32_t pad;
    uint64_t size; /* of a block */
};

struct arena { /* in its own first slabs, behind a struct slab */
    uint64_t magic, number;
    uint64_t top;   /* first byte that was never given to a slab */
    uint64_t taken; /* end of what can be written to */
    uint64_t used;
    void *root;
    struct block *free[N_CLASSES];
    uint8_t *next[N_CLASSES], *end[N_CLASSES]; /* of the newest slab: blocks never used */
    _Atomic(struct block *) returned;          /* freed by other threads */
};

_Static_assert(sizeof(struct slab) <= HEAD, "room before the blocks");
_Static_assert(sizeof(struct arena) <= SLAB - HEAD, "one slab");

void *__real_malloc(size_t n) __attribute__((weak));
void *__real_calloc(size_t n, size_t size) __attribute__((weak));
void *__real_realloc(void *p, size_t n) __attribute__((weak));
void __real_free(void *p) __attribute__((weak));
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_reallocarray(void *p, size_t n, size_t size);
void __wrap_free(void *p);
char *__wrap_strdup(const char *s);
char *__wrap_strndup(const char *s, size_t n);

static __thread struct arena *current;

/* ---- addresses ---- */

static uint64_t start_of(const struct arena *a)
{
    return (uintptr_t)a - HEAD;
}

static void *at(uint64_t address)
{
    return (void *)(uintptr_t)address;
}

/* The arena that this address is in, or NULL. */
static struct arena *home_of(const void *p)
{
    uint64_t off = (uintptr_t)p - ARENA_BASE;

    if (off >= ARENA_SPAN * ARENA_COUNT)
        return NULL;
    return at((ARENA_BASE + (off & ~(ARENA_SPAN - 1))) + HEAD);
}

static struct slab *slab_of(const void *p)
{
    return at((uintptr_t)p & ~(uint64_t)(SLAB - 1));
}

/* ---- sizes ---- */

static unsigned class_of(size_t n)
{
    if (n <= SMALL)
        return n == 0 ? 0 : (unsigned)((n - 1) / STEP);
    unsigned log = 63 - (unsigned)__builtin_clzll(n - 1); /* 2^log < n <= 2^(log+1) */
    unsigned part = (unsigned)((n - 1) >> (log - 2)) & 3;

    return N_SMALL + 4 * (log - SMALL_LOG) + part;
}

static size_t size_of(unsigned class)
{
    if (class < N_SMALL)
        return (class + 1) * (size_t)STEP;
    class -= N_SMALL;
    return ((size_t)(class & 3) + 5) << (class / 4 + SMALL_LOG - 2);
}

/* ---- blocks ---- */

/* So many bytes of whole slabs, never used before. */
static void *take(struct arena *a, uint64_t n)
{
    uint64_t from = a->top, start = start_of(a);

    n = (n + SLAB - 1) & ~(uint64_t)(SLAB - 1);
    if (n > start + ARENA_SPAN - from)
        return NULL;
    if (from + n > a->taken) {
        uint64_t end = (from + n + GROW - 1) & ~(GROW - 1);
        if (mprotect(at(a->taken), end - a->taken, PROT_READ | PROT_WRITE) != 0)
            return NULL;
        a->taken = end;
    }
    a->top += n;
    return at(from);
}

static void *first_of_slab(struct arena *a, unsigned class, size_t size)
{
    struct slab *s = take(a, size > MEDIUM ? size + HEAD : SLAB);

    if (s == NULL)
        return NULL;
    *s = (struct slab){.class = class, .size = size};
    uint8_t *p = (uint8_t *)s + HEAD;
    if (size <= MEDIUM) {
        a->next[class] = p + size;
        a->end[class] = (uint8_t *)s + SLAB;
        ASAN_POISON_MEMORY_REGION(p, SLAB - HEAD);
    }
    return p;
}

static void put_block(struct arena *a, struct block *b)
{
    const struct slab *s = slab_of(b);

    b->next = a->free[s->class];
    a->free[s->class] = b;
    a->used -= s->size;
}

static void fetch_returned(struct arena *a)
{
    struct block *b = atomic_exchange_explicit(&a->returned, NULL, memory_order_acquire), *next;

    for (; b != NULL; b = next) {
        next = b->next;
        put_block(a, b);
    }
}

/* *fresh: it was never used and is zero. */
static void *take_block(struct arena *a, size_t n, bool *fresh)
{
    if (n > ARENA_SPAN / 4)
        return NULL;
    unsigned class = class_of(n);
    size_t size = size_of(class);
    if (a->free[class] == NULL && atomic_load_explicit(&a->returned, memory_order_relaxed) != NULL)
        fetch_returned(a);
    struct block *b = a->free[class];
    *fresh = b == NULL;
    void *p = b;
    if (b != NULL) {
        a->free[class] = b->next;
    } else if (a->next[class] != NULL && (size_t)(a->end[class] - a->next[class]) >= size) {
        p = a->next[class];
        a->next[class] += size;
    } else {
        p = first_of_slab(a, class, size);
        if (p == NULL)
            return NULL;
    }
    a->used += size;
    ASAN_UNPOISON_MEMORY_REGION(p, n);
    return p;
}

static void give_back(struct arena *a, void *p)
{
    struct block *b = p;

    ASAN_POISON_MEMORY_REGION(p, slab_of(p)->size);
    ASAN_UNPOISON_MEMORY_REGION(p, sizeof *b);
    if (a == current) {
        put_block(a, b);
        return;
    }
    b->next = atomic_load_explicit(&a->returned, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(&a->returned, &b->next, b, memory_order_release,
                                                  memory_order_relaxed))
        ;
}

/* ---- what the linker puts in place of the C library's ---- */

void *__wrap_malloc(size_t n)
{
    bool fresh;

    return current == NULL ? __real_malloc(n) : take_block(current, n, &fresh);
}

void *__wrap_calloc(size_t n, size_t size)
{
    bool fresh;
    size_t all;

    if (current == NULL)
        return __real_calloc(n, size);
    void *p = __builtin_mul_overflow(n, size, &all) ? NULL : take_block(current, all, &fresh);
    if (p != NULL && !fresh)
        memset(p, 0, all);
    return p;
}

void __wrap_free(void *p)
{
    struct arena *a = home_of(p);

    if (a == NULL)
        __real_free(p);
    else
        give_back(a, p);
}

/* A block stays where it is: in its arena, or on the heap. */
void *__wrap_realloc(void *p, size_t n)
{
    if (p == NULL)
        return __wrap_malloc(n);
    struct arena *a = home_of(p);
    if (a == NULL)
        return __real_realloc(p, n);
    size_t had = slab_of(p)->size;
    if (n <= had && class_of(n) == slab_of(p)->class) {
        ASAN_UNPOISON_MEMORY_REGION(p, n);
        return p;
    }
    void *q = __wrap_malloc(n);
    if (q != NULL) {
        ASAN_UNPOISON_MEMORY_REGION(p, had);
        memcpy(q, p, had < n ? had : n);
        give_back(a, p);
    }
    return q;
}

void *__wrap_reallocarray(void *p, size_t n, size_t size)
{
    size_t all;

    if (__builtin_mul_overflow(n, size, &all)) {
        errno = ENOMEM;
        return NULL;
    }
    return __wrap_realloc(p, all);
}

char *__wrap_strndup(const char *s, size_t n)
{
    size_t len = strnlen(s, n);
    char *copy = __wrap_malloc(len + 1);

    if (copy != NULL) {
        memcpy(copy, s, len);
        copy[len] = '\0';
    }
    return copy;
}

char *__wrap_strdup(const char *s)
{
    return __wrap_strndup(s, strlen(s));
}

/* ---- life ---- */

static bool is_linked(void)
{
    return __real_malloc != NULL && __real_calloc != NULL && __real_realloc != NULL &&
           __real_free != NULL;
}

/* Addresses without memory, but for the first `taken` bytes. */
static int reserve(struct arena **out, unsigned number, uint64_t taken)
{
    uint64_t start = ARENA_BASE + number % ARENA_COUNT * ARENA_SPAN;

    *out = NULL;
    if (!is_linked())
        return ERR_UNSUPPORTED;
    void *p = mmap(at(start), ARENA_SPAN, PROT_NONE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
    if (p == MAP_FAILED)
        return errno == EEXIST ? ERR_EXISTS : ERR_NOMEM;
    if (p != at(start)) { /* a kernel that does not know the flag */
        (void)munmap(p, ARENA_SPAN);
        return ERR_EXISTS;
    }
    if (mprotect(p, taken, PROT_READ | PROT_WRITE) != 0) {
        (void)munmap(p, ARENA_SPAN);
        return ERR_NOMEM;
    }
    *out = at(start + HEAD);
    return 0;
}

int arena_new(struct arena **out, unsigned number)
{
    int rc = reserve(out, number, GROW);

    if (rc != 0)
        return rc;
    struct arena *a = *out;
    a->magic = MAGIC;
    a->number = number % ARENA_COUNT;
    a->top = start_of(a) + SLAB;
    a->taken = start_of(a) + GROW;
    return 0;
}

void arena_free(struct arena *a)
{
    if (a == NULL)
        return;
    assert(a->magic == MAGIC && a != current);
    ASAN_UNPOISON_MEMORY_REGION(at(start_of(a)), a->taken - start_of(a));
    (void)munmap(at(start_of(a)), ARENA_SPAN);
}

struct arena *arena_use(struct arena *a)
{
    struct arena *was = current;

    current = a;
    return was;
}

static size_t returned_bytes(const struct arena *a)
{
    size_t n = 0;

    for (const struct block *b = atomic_load(&a->returned); b != NULL; b = b->next)
        n += slab_of(b)->size;
    return n;
}

size_t arena_used(const struct arena *a)
{
    return a->used - returned_bytes(a);
}

size_t arena_taken(const struct arena *a)
{
    return a->top - start_of(a);
}

void arena_set_root(struct arena *a, void *root)
{
    a->root = root;
}

void *arena_root(const struct arena *a)
{
    return a->root;
}

/* ---- the program ---- */

typedef uint64_t word __attribute__((may_alias));

/* FNV-1a over words: two builds are to differ, nobody forges one. What a sanitizer has put between constants is
 * read too. */
__attribute__((no_sanitize("address"))) static uint64_t check_of(uint64_t h, const word *w,
                                                                 size_t n)
{
    for (size_t i = 0; i < n; i++) {
        h = (h ^ w[i]) * UINT64_C(0x100000001b3);
        h ^= h >> 29;
    }
    return h;
}

static int look_at_program(struct dl_phdr_info *info, size_t size, void *arg)
{
    struct arena_program *out = arg;
    uint64_t low = UINT64_MAX, high = 0;

    (void)size;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *ph = &info->dlpi_phdr[i];
        uint64_t from = info->dlpi_addr + ph->p_vaddr;
        if (ph->p_type != PT_LOAD)
            continue;
        low = from < low ? from : low;
        high = from + ph->p_memsz > high ? from + ph->p_memsz : high;
        if ((ph->p_flags & PF_W) == 0)
            out->check = check_of(out->check ^ ph->p_vaddr, at(from), ph->p_filesz / sizeof(word));
    }
    out->base = low;
    out->size = high - low;
    return 1; /* the first is the program */
}

struct arena_program arena_program(void)
{
    struct arena_program p = {0};

    (void)dl_iterate_phdr(look_at_program, &p);
    return p;
}

/* ---- files ---- */

/* Which pages of a slab hold anything. */
static uint64_t filled_pages(const uint8_t *slab)
{
    static const uint8_t zero[PAGE];
    uint64_t bits = 0;

    for (unsigned i = 0; i < SLAB_PAGES; i++)
        bits |= (uint64_t)(memcmp(slab + i * PAGE, zero, PAGE) != 0) << i;
    return bits;
}

/* For each slab that is not empty: its place, a bit for each page with anything in it, these pages. */
static int save_slab(uint64_t start, uint64_t place, arena_write_fn *fn, void *arg)
{
    const uint8_t *slab = at(start + place);
    uint64_t head[2] = {place, filled_pages(slab)};
    int rc = head[1] != 0 ? fn(arg, head, sizeof head) : 0;

    for (unsigned i = 0; rc == 0 && i < SLAB_PAGES; i++) {
        if ((head[1] >> i & 1) != 0)
            rc = fn(arg, slab + i * PAGE, PAGE);
    }
    return rc;
}

int arena_save(struct arena *a, arena_write_fn *fn, void *arg)
{
    uint64_t start = start_of(a), size = a->top - start;
    uint64_t head[3] = {MAGIC, a->number, size}, end = END;

    fetch_returned(a);
    /* The allocator may look everywhere in its own memory. */
    ASAN_UNPOISON_MEMORY_REGION(at(start), size);
    int rc = fn(arg, head, sizeof head);
    for (uint64_t place = 0; rc == 0 && place < size; place += SLAB)
        rc = save_slab(start, place, fn, arg);
    return rc == 0 ? fn(arg, &end, sizeof end) : rc;
}

/* Addresses of the program as it was become those of today. */
static void move_pointers(uint8_t *page, const struct arena_program *was, uint64_t by)
{
    word *w = (word *)(void *)page;

    for (size_t i = 0; by != 0 && i < PAGE / sizeof *w; i++) {
        if (w[i] - was->base < was->size)
            w[i] += by;
    }
}

static int load_slab(uint8_t *slab, uint64_t pages, const struct arena_program *was, uint64_t by,
                     arena_read_fn *fn, void *arg)
{
    int rc = pages >> SLAB_PAGES != 0 ? ERR_CORRUPT : 0;

    for (unsigned i = 0; rc == 0 && i < SLAB_PAGES; i++) {
        if ((pages >> i & 1) == 0)
            continue;
        rc = fn(arg, slab + i * PAGE, PAGE);
        move_pointers(slab + i * PAGE, was, by);
    }
    return rc;
}

static int load_slabs(uint64_t start, uint64_t size, const struct arena_program *was,
                      arena_read_fn *fn, void *arg)
{
    uint64_t by = arena_program().base - was->base, place = 0, pages = 0;

    for (;;) {
        int rc = fn(arg, &place, sizeof place);
        if (rc != 0 || place == END)
            return rc;
        rc = fn(arg, &pages, sizeof pages);
        if (rc == 0 && (place >= size || place % SLAB != 0))
            rc = ERR_CORRUPT;
        if (rc == 0)
            rc = load_slab(at(start + place), pages, was, by, fn, arg);
        if (rc != 0)
            return rc;
    }
}

int arena_load(struct arena **out, unsigned number, const struct arena_program *was,
               arena_read_fn *fn, void *arg)
{
    uint64_t head[3], taken = 0;

    *out = NULL;
    int rc = fn(arg, head, sizeof head);
    if (rc == 0 && (head[0] != MAGIC || head[1] != number % ARENA_COUNT || head[2] < SLAB ||
                    head[2] % SLAB != 0 || head[2] > ARENA_SPAN))
        rc = ERR_CORRUPT;
    if (rc == 0) {
        taken = (head[2] + GROW - 1) & ~(GROW - 1);
        rc = reserve(out, number, taken);
    }
    if (rc != 0)
        return rc;
    uint64_t start = start_of(*out);
    rc = load_slabs(start, head[2], was, fn, arg);
    struct arena *a = *out;
    if (rc == 0 && (a->magic != MAGIC || a->number != head[1] || a->top - start != head[2]))
        rc = ERR_CORRUPT;
    if (rc != 0) {
        (void)munmap(at(start), ARENA_SPAN);
        *out = NULL;
        return rc;
    }
    a->taken = start + taken;
    return 0;
}
