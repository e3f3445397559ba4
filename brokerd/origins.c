#include "origins.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { BUCKETS = 1 << 17, ENTRIES = ORIGINS_ONE_SHOT_MAX + ORIGINS_LASTING_MAX };

/* Entries are named by index + 1, so that zeroed memory means "none". */
struct entry {
    uint64_t origin, sequence, id;
    uint32_t chain;        /* next in the bucket, or in the list of unused ones */
    uint32_t newer, older; /* in the list of its kind */
    bool lasting;
};

struct list {
    uint32_t newest, oldest, count, limit;
};

struct origins {
    struct list lists[2]; /* [lasting] */
    uint32_t unused;
    uint32_t fresh; /* entries from here on were never used */
    uint64_t forgotten;
    uint64_t seed;
    uint32_t buckets[BUCKETS];
    struct entry entries[ENTRIES + 1];
};

void origins_clear(struct origins *o)
{
    memset(o->buckets, 0, sizeof(o->buckets));
    o->lists[0] = (struct list){.limit = ORIGINS_ONE_SHOT_MAX};
    o->lists[1] = (struct list){.limit = ORIGINS_LASTING_MAX};
    o->unused = 0;
    o->fresh = 1;
    o->forgotten = 0;
}

struct origins *origins_new(void)
{
    struct origins *o = calloc(1, sizeof(*o));
    if (o == NULL)
        return NULL;
    origins_clear(o);
    if (getrandom(&o->seed, sizeof(o->seed), 0) < 0)
        o->seed = (uint64_t)(uintptr_t)o;
    return o;
}

void origins_free(struct origins *o)
{
    free(o);
}

static uint32_t *bucket_of(struct origins *o, uint64_t origin)
{
    uint64_t mixed = (origin ^ o->seed) * 0x9e3779b97f4a7c15u;
    mixed = (mixed ^ (mixed >> 29)) * 0xbf58476d1ce4e5b9u;
    return &o->buckets[mixed >> 47];
}

static uint32_t lookup(struct origins *o, uint64_t origin)
{
    uint32_t at = *bucket_of(o, origin);
    while (at != 0 && o->entries[at].origin != origin)
        at = o->entries[at].chain;
    return at;
}

static void list_remove(struct origins *o, uint32_t at)
{
    struct entry *e = &o->entries[at];
    struct list *list = &o->lists[e->lasting];
    *(e->newer != 0 ? &o->entries[e->newer].older : &list->newest) = e->older;
    *(e->older != 0 ? &o->entries[e->older].newer : &list->oldest) = e->newer;
    list->count--;
}

static void list_add(struct origins *o, uint32_t at)
{
    struct entry *e = &o->entries[at];
    struct list *list = &o->lists[e->lasting];
    e->newer = 0;
    e->older = list->newest;
    *(list->newest != 0 ? &o->entries[list->newest].newer : &list->oldest) = at;
    list->newest = at;
    list->count++;
}

static void forget(struct origins *o, uint32_t at)
{
    struct entry *e = &o->entries[at];
    list_remove(o, at);
    uint32_t *link = bucket_of(o, e->origin);
    while (*link != at)
        link = &o->entries[*link].chain;
    *link = e->chain;
    if (e->id > o->forgotten)
        o->forgotten = e->id;
    e->chain = o->unused;
    o->unused = at;
}

static uint32_t add(struct origins *o, uint64_t origin, bool lasting)
{
    if (o->lists[lasting].count == o->lists[lasting].limit)
        forget(o, o->lists[lasting].oldest);
    uint32_t at = o->unused;
    if (at != 0)
        o->unused = o->entries[at].chain;
    else
        at = o->fresh++;
    uint32_t *bucket = bucket_of(o, origin);
    o->entries[at] = (struct entry){.origin = origin, .chain = *bucket, .lasting = lasting};
    *bucket = at;
    list_add(o, at);
    return at;
}

uint64_t origins_known(struct origins *o, uint64_t origin, uint64_t *id)
{
    uint32_t at = lookup(o, origin);
    *id = at != 0 ? o->entries[at].id : 0;
    return at != 0 ? o->entries[at].sequence : 0;
}

void origins_note(struct origins *o, uint64_t origin, uint64_t sequence, uint64_t id, bool lasting)
{
    uint32_t at = lookup(o, origin);
    if (at == 0) {
        at = add(o, origin, lasting);
    } else if (o->lists[o->entries[at].lasting].newest != at || lasting != o->entries[at].lasting) {
        bool stays = o->entries[at].lasting || lasting;
        list_remove(o, at);
        o->entries[at].lasting = stays;
        if (o->lists[stays].count == o->lists[stays].limit)
            forget(o, o->lists[stays].oldest);
        list_add(o, at);
    }
    o->entries[at].sequence = sequence;
    o->entries[at].id = id;
}

uint64_t origins_forgotten(const struct origins *o)
{
    return o->forgotten;
}

uint32_t origins_count(const struct origins *o)
{
    return o->lists[0].count + o->lists[1].count;
}
