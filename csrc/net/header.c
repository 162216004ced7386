/* Only the last header is kept: an answer can have forerunners, a 100 Continue or a proxy's. */
#include "net/header.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

ct_status ct_header_add(ct_header *header, const char *line, size_t size, bool *all)
{
    if (size >= 5 && memcmp(line, "HTTP/", 5) == 0)
        header->lines.size = 0;
    header->complete = size <= 2; /* the empty line */
    return ct_buffer_append(&header->lines, line, size, all);
}

/* The value behind `name:` in the line from `line` to `end`, or NULL. */
static const char *value_of(const char *line, const char *end, const char *name)
{
    size_t size = strlen(name);
    if ((size_t)(end - line) <= size || strncasecmp(line, name, size) != 0 || line[size] != ':')
        return NULL;
    line += size + 1;
    while (line < end && (*line == ' ' || *line == '\t'))
        line++;
    return line;
}

bool ct_header_find(const ct_header *header, const char *name, char *value, size_t size)
{
    size_t left = header->lines.size;
    for (const char *line = header->lines.data; left > 0;) {
        const char *stop = memchr(line, '\n', left);
        const char *end = stop ? stop : line + left;
        const char *found = value_of(line, end, name);
        if (found) {
            snprintf(value, size, "%.*s", (int)(end - found), found);
            value[strcspn(value, "\r")] = '\0';
            return true;
        }
        left -= (size_t)(end - line) + (stop != NULL);
        line = end + (stop != NULL);
    }
    return false;
}
