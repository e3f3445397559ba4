#include "ledger.h"
#include <stdlib.h>
#include <string.h>

static void *grown(void *memory, size_t size)
{
    memory = realloc(memory, size);
    if (memory == NULL)
        abort();
    return memory;
}

static bool parse(const uint8_t *text, size_t length, unsigned *publisher, uint32_t *sequence)
{
    uint64_t value = 0;
    if (length != MESSAGE_LENGTH)
        return false;
    for (size_t i = 0; i < MESSAGE_LENGTH; i++) {
        unsigned c = text[i];
        if (c - '0' > 9 && c - 'a' > 5)
            return false;
        value = value << 4 | (c <= '9' ? c - '0' : c - 'a' + 10);
    }
    *publisher = (unsigned)(value >> 32);
    *sequence = (uint32_t)value;
    return *sequence != 0 && *sequence <= SEQUENCE_MAX &&
           (*publisher < PUBLISHERS_MAX || *publisher == MARK);
}

/* Was that sequence there already? It is now. */
static bool see(struct receipt *r, unsigned publisher, uint32_t sequence)
{
    size_t byte = sequence / 8, size = r->seen_size[publisher];
    uint8_t bit = (uint8_t)(1 << sequence % 8);
    if (byte >= size) {
        size_t more = byte + 4096;
        r->seen[publisher] = grown(r->seen[publisher], more);
        memset(r->seen[publisher] + size, 0, more - size);
        r->seen_size[publisher] = more;
    }
    bool before = (r->seen[publisher][byte] & bit) != 0;
    r->seen[publisher][byte] |= bit;
    return before;
}

static void place(struct group *g, struct receipt *r, uint32_t key)
{
    uint64_t at = r->messages++;
    if (at < g->count) {
        r->diverged |= g->order[at] != key;
        return;
    }
    if (g->count == g->capacity) {
        g->capacity = g->capacity == 0 ? 65536 : 2 * g->capacity;
        g->order = grown(g->order, g->capacity * sizeof(*g->order));
    }
    g->order[g->count++] = key;
}

int ledger_take(struct ledger *l, struct receipt *r, const uint8_t *text, size_t length)
{
    unsigned publisher = 0;
    uint32_t sequence = 0;
    if (!parse(text, length, &publisher, &sequence)) {
        l->foreign++;
        return -1;
    }
    if (publisher == MARK)
        return MARK;
    place(&l->groups[r->group], r, publisher << 24 | sequence);
    uint32_t highest = r->highest[publisher];
    if (see(r, publisher, sequence)) {
        r->twice++;
    } else if (sequence < highest) {
        r->late++;
        r->missing--;
        l->last_late = (struct lateness){publisher, sequence, highest, r->messages};
        if (l->first_late.sequence == 0)
            l->first_late = l->last_late;
    } else {
        r->missing += sequence - highest - 1;
        r->highest[publisher] = sequence;
    }
    return (int)publisher;
}

/*
 * The total order: every group's order gives each message a successor; there is one order for all
 * exactly when the graph of these has no circle, that is when all messages can be taken away, each
 * when nothing is before it any more.
 */
struct graph {
    uint32_t nodes; /* publishers << 24 is too sparse: publisher * width + sequence */
    uint32_t width;
    uint32_t *successor[GROUPS_MAX]; /* node + 1; 0: none */
    uint8_t *before;                 /* groups in which something is before it */
    uint8_t *present;
};

static uint32_t node_of(const struct graph *graph, uint32_t key)
{
    return (key >> 24) * graph->width + (key & SEQUENCE_MAX);
}

static void graph_build(struct graph *graph, const struct ledger *l)
{
    for (unsigned g = 0; g < GROUPS_MAX; g++) {
        for (uint64_t i = 0; i < l->groups[g].count; i++) {
            uint32_t sequence = l->groups[g].order[i] & SEQUENCE_MAX;
            if (sequence >= graph->width)
                graph->width = sequence + 1;
        }
    }
    graph->nodes = graph->width * PUBLISHERS_MAX;
    graph->before = calloc(graph->nodes + 1, 1);
    graph->present = calloc(graph->nodes + 1, 1);
    for (unsigned g = 0; g < GROUPS_MAX; g++) {
        const struct group *group = &l->groups[g];
        graph->successor[g] = calloc(graph->nodes + 1, sizeof(uint32_t));
        if (graph->before == NULL || graph->present == NULL || graph->successor[g] == NULL)
            abort();
        for (uint64_t i = 0; i < group->count; i++) {
            uint32_t node = node_of(graph, group->order[i]);
            graph->present[node] = 1;
            if (i + 1 < group->count) {
                uint32_t next = node_of(graph, group->order[i + 1]);
                graph->successor[g][node] = next + 1;
                graph->before[next]++;
            }
        }
    }
}

/* Takes away all that can be; how many were left. */
static uint32_t graph_unravel(struct graph *graph)
{
    uint32_t *free_nodes = calloc(graph->nodes + 1, sizeof(uint32_t)), count = 0, left = 0;
    if (free_nodes == NULL)
        abort();
    for (uint32_t node = 0; node < graph->nodes; node++) {
        left += graph->present[node];
        if (graph->present[node] && graph->before[node] == 0)
            free_nodes[count++] = node;
    }
    while (count > 0) {
        uint32_t node = free_nodes[--count];
        left--;
        for (unsigned g = 0; g < GROUPS_MAX; g++) {
            uint32_t next = graph->successor[g][node];
            if (next != 0 && --graph->before[next - 1] == 0)
                free_nodes[count++] = next - 1;
        }
    }
    free(free_nodes);
    return left;
}

bool ledger_has_total_order(const struct ledger *l)
{
    struct graph graph = {0};
    graph_build(&graph, l);
    uint32_t left = graph_unravel(&graph);
    for (unsigned g = 0; g < GROUPS_MAX; g++)
        free(graph.successor[g]);
    free(graph.before);
    free(graph.present);
    return left == 0;
}

void ledger_release(struct ledger *l)
{
    for (unsigned g = 0; g < GROUPS_MAX; g++)
        free(l->groups[g].order);
}

void receipt_release(struct receipt *r)
{
    for (unsigned p = 0; p < PUBLISHERS_MAX; p++)
        free(r->seen[p]);
}
