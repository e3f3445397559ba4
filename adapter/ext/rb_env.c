/*
 * A client's env before anybody asks for it. As a Hash it would be a score of objects for each
 * client, spread over the heap, which every collection steps around; most applications read the
 * request in `call` and never again. So it stands in one piece of memory outside the heap: keys
 * and what cannot be written down as VALUEs, the request's own Strings as their bytes.
 */
#include "rb_brokerd.h"
#include <ruby/encoding.h>

/* A longer String stays an object: it is no header's, and copying it twice has its price. */
enum { TEXT_MAX = 8192 };

struct entry {
    VALUE key;
    VALUE value; /* Qundef: the next of the texts */
};

struct packed_env {
    size_t text_bytes;
    unsigned count;
    struct entry entries[]; /* as many as were counted first, and the texts after them */
};

struct text {
    uint32_t length;
    int encoding; /* Ruby's index; bytes follow, the next text follows those, unaligned */
};

static bool is_string(VALUE object)
{
    return RB_TYPE_P(object, T_STRING) && RBASIC_CLASS(object) == rb_cString;
}

/* HTTP_COOKIE, PATH_INFO and their like; what the application put there has a dot or is a Symbol,
 * and it may want that very object again. */
static bool is_of_request(VALUE key)
{
    return is_string(key) && RSTRING_LEN(key) > 0 && RSTRING_PTR(key)[0] >= 'A' &&
           RSTRING_PTR(key)[0] <= 'Z';
}

/* A frozen String is likely a constant that all clients share. */
static bool is_text(VALUE key, VALUE value)
{
    return is_of_request(key) && is_string(value) && !RB_OBJ_FROZEN(value) &&
           RSTRING_LEN(value) <= TEXT_MAX && rb_ivar_count(value) == 0;
}

struct measure {
    size_t text_bytes;
    bool can_pack;
};

/* Unpacking must not run Ruby code: another thread could come in between. A key of another kind
 * may have a `hash` of its own. */
static int measure_entry(VALUE key, VALUE value, VALUE data)
{
    struct measure *measure = (struct measure *)data;
    if (!is_string(key) && !RB_SYMBOL_P(key)) {
        measure->can_pack = false;
        return ST_STOP;
    }
    if (is_text(key, value))
        measure->text_bytes += sizeof(struct text) + (size_t)RSTRING_LEN(value);
    return ST_CONTINUE;
}

struct packing {
    VALUE owner;
    struct packed_env *env;
    char *at;
};

static int pack_entry(VALUE key, VALUE value, VALUE data)
{
    struct packing *p = (struct packing *)data;
    struct entry *entry = &p->env->entries[p->env->count];
    if (is_string(key))
        key = rb_str_to_interned_str(key); /* one object for all clients */
    if (is_text(key, value)) {
        struct text text = {(uint32_t)RSTRING_LEN(value), rb_enc_get_index(value)};
        memcpy(p->at, &text, sizeof(text));
        memcpy(p->at + sizeof(text), RSTRING_PTR(value), text.length);
        p->at += sizeof(text) + text.length;
        value = Qundef;
    }
    RB_OBJ_WRITE(p->owner, &entry->key, key);
    RB_OBJ_WRITE(p->owner, &entry->value, value);
    p->env->count++; /* marked from here on */
    return ST_CONTINUE;
}

bool rb_env_pack(VALUE owner, struct packed_env **place, VALUE env)
{
    struct measure measure = {0, true};
    rb_hash_foreach(env, measure_entry, (VALUE)&measure);
    if (!measure.can_pack)
        return false;
    size_t head = sizeof(struct packed_env) + RHASH_SIZE(env) * sizeof(struct entry);
    struct packed_env *packed = xmalloc(head + measure.text_bytes);
    packed->text_bytes = measure.text_bytes;
    packed->count = 0;
    *place = packed;
    struct packing packing = {owner, packed, (char *)packed + head};
    rb_hash_foreach(env, pack_entry, (VALUE)&packing);
    RB_GC_GUARD(env);
    return true;
}

VALUE rb_env_unpack(const struct packed_env *packed)
{
    VALUE env = rb_hash_new();
    const char *at = (const char *)(packed->entries + packed->count);
    for (unsigned i = 0; i < packed->count; i++) {
        VALUE value = packed->entries[i].value;
        if (value == Qundef) {
            struct text text;
            memcpy(&text, at, sizeof(text));
            value =
                rb_enc_str_new(at + sizeof(text), text.length, rb_enc_from_index(text.encoding));
            at += sizeof(text) + text.length;
        }
        rb_hash_aset(env, packed->entries[i].key, value);
    }
    return env;
}

void rb_env_mark(const struct packed_env *packed)
{
    for (unsigned i = 0; packed && i < packed->count; i++) {
        rb_gc_mark_movable(packed->entries[i].key);
        rb_gc_mark_movable(packed->entries[i].value);
    }
}

void rb_env_compact(struct packed_env *packed)
{
    for (unsigned i = 0; packed && i < packed->count; i++) {
        packed->entries[i].key = rb_gc_location(packed->entries[i].key);
        packed->entries[i].value = rb_gc_location(packed->entries[i].value);
    }
}

size_t rb_env_size(const struct packed_env *packed)
{
    return packed ? sizeof(*packed) + packed->count * sizeof(struct entry) + packed->text_bytes : 0;
}
