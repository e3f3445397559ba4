/*
 * For scripts/rspec-asan, preloaded in front of gcc 12's libasan. That allocator takes no care of
 * fork(): when another thread is inside it at that moment, the child waits for ever for a lock that
 * nobody holds. Here every way in is counted: a fork waits until nobody is inside, and lets nobody
 * in until it is done. (Threads that begin or end meanwhile are not covered.)
 */
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stddef.h>

void *__interceptor_malloc(size_t size);
void *__interceptor_calloc(size_t count, size_t size);
void *__interceptor_realloc(void *old, size_t size);
void *__interceptor_reallocarray(void *old, size_t count, size_t size);
void *__interceptor_memalign(size_t align, size_t size);
void *__interceptor_aligned_alloc(size_t align, size_t size);
int __interceptor_posix_memalign(void **out, size_t align, size_t size);
void __interceptor_free(void *memory);
char *__interceptor_strdup(const char *text);
char *__interceptor_strndup(const char *text, size_t size);

static unsigned inside;
static bool forking;
__attribute__((tls_model(
    "initial-exec"))) static __thread bool is_forking; /* this thread: its handlers may allocate */

static void enter(void)
{
    while (!is_forking) {
        __atomic_add_fetch(&inside, 1, __ATOMIC_SEQ_CST);
        if (!__atomic_load_n(&forking, __ATOMIC_SEQ_CST))
            return;
        __atomic_sub_fetch(&inside, 1, __ATOMIC_SEQ_CST);
        sched_yield();
    }
}

static void leave(void)
{
    if (!is_forking)
        __atomic_sub_fetch(&inside, 1, __ATOMIC_SEQ_CST);
}

static void prepare(void)
{
    while (__atomic_exchange_n(&forking, true, __ATOMIC_SEQ_CST))
        sched_yield();
    is_forking = true;
    while (__atomic_load_n(&inside, __ATOMIC_SEQ_CST) > 0)
        sched_yield();
}

/* In the parent and, alone, in the child. */
static void done(void)
{
    is_forking = false;
    __atomic_store_n(&forking, false, __ATOMIC_SEQ_CST);
}

__attribute__((constructor)) static void begin(void)
{
    pthread_atfork(prepare, done, done);
}

#define GUARDED(type, call)                                                                        \
    enter();                                                                                       \
    type result = call;                                                                            \
    leave();                                                                                       \
    return result

void *malloc(size_t size)
{
    GUARDED(void *, __interceptor_malloc(size));
}

void *calloc(size_t count, size_t size)
{
    GUARDED(void *, __interceptor_calloc(count, size));
}

void *realloc(void *old, size_t size)
{
    GUARDED(void *, __interceptor_realloc(old, size));
}

void *reallocarray(void *old, size_t count, size_t size)
{
    GUARDED(void *, __interceptor_reallocarray(old, count, size));
}

void *memalign(size_t align, size_t size)
{
    GUARDED(void *, __interceptor_memalign(align, size));
}

void *aligned_alloc(size_t align, size_t size)
{
    GUARDED(void *, __interceptor_aligned_alloc(align, size));
}

int posix_memalign(void **out, size_t align, size_t size)
{
    GUARDED(int, __interceptor_posix_memalign(out, align, size));
}

char *strdup(const char *text)
{
    GUARDED(char *, __interceptor_strdup(text));
}

char *strndup(const char *text, size_t size)
{
    GUARDED(char *, __interceptor_strndup(text, size));
}

void free(void *memory)
{
    enter();
    __interceptor_free(memory);
    leave();
}
