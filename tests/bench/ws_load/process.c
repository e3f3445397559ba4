#include "process.h"
#include <ctype.h>
#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MEMBERS_MAX = 512, PROCESSES_MAX = 8192 };

bool process_tree_parse(struct process_tree *tree, const char *text)
{
    tree->count = 0;
    while (*text != '\0') {
        char *end;
        long pid = strtol(text, &end, 10);
        if (end == text || pid <= 0 || tree->count == PROCESS_ROOTS_MAX ||
            (*end != ',' && *end != '\0'))
            return false;
        tree->root[tree->count++] = (pid_t)pid;
        text = *end == ',' ? end + 1 : end;
    }
    return tree->count > 0;
}

struct relation {
    pid_t pid, parent;
};

/* All processes of the machine with their parents. */
static unsigned read_relations(struct relation *relation)
{
    DIR *proc = opendir("/proc");
    unsigned count = 0;
    if (proc == NULL)
        return 0;
    for (struct dirent *entry; (entry = readdir(proc)) != NULL && count < PROCESSES_MAX;) {
        char path[64], line[512];
        if (!isdigit((unsigned char)entry->d_name[0]))
            continue;
        snprintf(path, sizeof(path), "/proc/%.16s/stat", entry->d_name);
        FILE *f = fopen(path, "r");
        if (f == NULL)
            continue;
        char *name_end = fgets(line, sizeof(line), f) != NULL ? strrchr(line, ')') : NULL;
        if (name_end != NULL && sscanf(name_end, ") %*c %d", &relation[count].parent) == 1)
            relation[count++].pid = (pid_t)atoi(entry->d_name);
        fclose(f);
    }
    closedir(proc);
    return count;
}

static void add_member(pid_t *member, unsigned *count, pid_t pid)
{
    for (unsigned i = 0; i < *count; i++)
        if (member[i] == pid)
            return;
    if (*count < MEMBERS_MAX)
        member[(*count)++] = pid;
}

static unsigned members(const struct process_tree *tree, pid_t *member)
{
    static struct relation relation[PROCESSES_MAX];
    unsigned count = 0, relations = read_relations(relation);
    for (unsigned i = 0; i < tree->count; i++)
        add_member(member, &count, tree->root[i]);
    for (unsigned i = 0; i < count; i++) /* count grows as descendants are found */
        for (unsigned j = 0; j < relations; j++)
            if (relation[j].parent == member[i])
                add_member(member, &count, relation[j].pid);
    return count;
}

static uint64_t cpu_of(pid_t pid)
{
    clockid_t clock;
    struct timespec used;
    if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &used) != 0)
        return 0;
    return (uint64_t)used.tv_sec * 1000000000u + (uint64_t)used.tv_nsec;
}

static uint64_t field_of(pid_t pid, const char *file, const char *name)
{
    char path[64], line[256];
    uint64_t value = 0;
    size_t length = strlen(name);
    snprintf(path, sizeof(path), "/proc/%d/%s", pid, file);
    FILE *f = fopen(path, "r");
    while (f != NULL && fgets(line, sizeof(line), f) != NULL)
        if (strncmp(line, name, length) == 0 && line[length] == ':')
            value = strtoull(line + length + 1, NULL, 10);
    if (f != NULL)
        fclose(f);
    return value;
}

uint64_t process_tree_cpu(const struct process_tree *tree)
{
    pid_t member[MEMBERS_MAX];
    uint64_t sum = 0;
    unsigned count = members(tree, member);
    for (unsigned i = 0; i < count; i++)
        sum += cpu_of(member[i]);
    return sum;
}

static uint64_t sum_field(const struct process_tree *tree, const char *file, const char *name)
{
    pid_t member[MEMBERS_MAX];
    uint64_t sum = 0;
    unsigned count = members(tree, member);
    for (unsigned i = 0; i < count; i++)
        sum += field_of(member[i], file, name);
    return sum;
}

uint64_t process_tree_pss(const struct process_tree *tree)
{
    return sum_field(tree, "smaps_rollup", "Pss");
}

uint64_t process_tree_peak(const struct process_tree *tree)
{
    return sum_field(tree, "status", "VmHWM");
}

uint64_t process_own_cpu(void)
{
    struct timespec used;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return (uint64_t)used.tv_sec * 1000000000u + (uint64_t)used.tv_nsec;
}
