/* MemAvailable of Linux, and the limits of both kinds of cgroups as a container sees them. Pages of
 * files that the cgroup may drop count as available, as they do in MemAvailable. */
#include "core/sysmem.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define UNKNOWN ((size_t)1 << 30)

/* The number behind `name` in a file of "name number" lines, or the file's only number where name
 * is ""; `otherwise` when there is none. */
static uint64_t read_number(const char *path, const char *name, uint64_t otherwise)
{
    char line[256];
    FILE *file = fopen(path, "re");
    unsigned long long number;
    if (!file)
        return otherwise;
    while (fgets(line, sizeof line, file)) {
        if (strncmp(line, name, strlen(name)) != 0 ||
            sscanf(line + strlen(name), " %llu", &number) != 1)
            continue;
        otherwise = number;
        break;
    }
    fclose(file);
    return otherwise;
}

/* What a cgroup's limit leaves. */
static uint64_t left_of(const char *limit_path, const char *used_path, const char *stat_path,
                        const char *droppable)
{
    uint64_t limit = read_number(limit_path, "", UINT64_MAX);
    uint64_t used = read_number(used_path, "", 0), files = read_number(stat_path, droppable, 0);
    used -= files < used ? files : used;
    if (limit == UINT64_MAX)
        return limit;
    return limit > used ? limit - used : 0;
}

size_t ct_sysmem_available(void)
{
    uint64_t machine = read_number("/proc/meminfo", "MemAvailable:", UNKNOWN >> 10) << 10;
    uint64_t limits[] = {
        left_of("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current",
                "/sys/fs/cgroup/memory.stat", "inactive_file "),
        left_of("/sys/fs/cgroup/memory/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.usage_in_bytes", "/sys/fs/cgroup/memory/memory.stat",
                "total_inactive_file "),
    };
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++)
        machine = limits[i] < machine ? limits[i] : machine;
    return machine > SIZE_MAX ? SIZE_MAX : (size_t)machine;
}
