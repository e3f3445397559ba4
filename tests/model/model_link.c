/* Links: what is under way arrives in order, up to where they are cut. */
#include "model.h"

struct link links[LINKS_MAX];

void cut(struct link *l)
{
    if (l->cut)
        return;
    l->cut = true;
    l->up_count = pick(l->up_count + 1);
    l->down_count = pick(l->down_count + 1);
}

void free_link(struct link *l)
{
    if (!l->process_end && !l->broker_end)
        l->used = false;
}

void send_up(struct link *l, const struct travelling *t)
{
    if (!l->cut && l->up_count < TRAVEL_MAX)
        l->up[l->up_count++] = *t;
}

void send_down(struct link *l, const struct travelling *t)
{
    if (!l->cut && l->down_count == TRAVEL_MAX)
        cut(l);
    else if (!l->cut)
        l->down[l->down_count++] = *t;
}

struct travelling take(struct travelling *queue, unsigned *count)
{
    struct travelling t = queue[0];
    memmove(queue, queue + 1, --*count * sizeof(*queue));
    return t;
}
