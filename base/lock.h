/*
 * lock - a mutex for the few structs of cores that several threads share (transport/guard.h).
 *
 * Held for some table look-ups at most, never while anything waits, and never on the way of bytes.
 * Cores include no header of threads themselves; this is what they need of them.
 */
#pragma once

#include <pthread.h>

struct lock {
    pthread_mutex_t mutex;
};

static inline void lock_init(struct lock *l)
{
    pthread_mutex_init(&l->mutex, NULL);
}

static inline void lock_destroy(struct lock *l)
{
    pthread_mutex_destroy(&l->mutex);
}

static inline void lock_take(struct lock *l)
{
    pthread_mutex_lock(&l->mutex);
}

static inline void lock_give(struct lock *l)
{
    pthread_mutex_unlock(&l->mutex);
}
