/*
 * What one client has subscribed to, as little of it as can be: most clients have one channel
 * without a block, and there may be many thousands of them. nil: nothing; a key (text_key): that
 * one, direct; a Hash: key => Subscription, or true for a direct one.
 */
#include "rb_brokerd.h"

static VALUE as_hash(VALUE subscriptions)
{
    if (RB_TYPE_P(subscriptions, T_HASH))
        return subscriptions;
    VALUE hash = rb_hash_new();
    if (!NIL_P(subscriptions))
        rb_hash_aset(hash, subscriptions, Qtrue);
    return hash;
}

/* Keys are interned: one text is one object. */
void rb_subscriptions_add(VALUE owner, VALUE *subscriptions, VALUE key, VALUE subscription)
{
    if (subscription == Qtrue && (NIL_P(*subscriptions) || *subscriptions == key)) {
        RB_OBJ_WRITE(owner, subscriptions, key);
        return;
    }
    VALUE hash = as_hash(*subscriptions);
    VALUE older = rb_hash_lookup2(hash, key, Qtrue);
    rb_hash_aset(hash, key, subscription);
    RB_OBJ_WRITE(owner, subscriptions, hash);
    if (older != Qtrue)
        rb_subscription_cancel(older);
}

bool rb_subscriptions_remove(VALUE *subscriptions, VALUE key)
{
    VALUE removed = Qnil;
    if (*subscriptions == key) {
        *subscriptions = Qnil;
        return true;
    }
    if (RB_TYPE_P(*subscriptions, T_HASH))
        removed = rb_hash_delete(*subscriptions, key);
    if (!NIL_P(removed) && removed != Qtrue)
        rb_subscription_cancel(removed);
    return !NIL_P(removed);
}

static int cancel_each(VALUE key, VALUE subscription, VALUE unused)
{
    (void)key;
    (void)unused;
    if (subscription != Qtrue)
        rb_subscription_cancel(subscription);
    return ST_CONTINUE;
}

void rb_subscriptions_drop(VALUE *subscriptions)
{
    if (RB_TYPE_P(*subscriptions, T_HASH))
        rb_hash_foreach(*subscriptions, cancel_each, Qnil);
    *subscriptions = Qnil;
}
