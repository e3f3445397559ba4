#ifndef PROTOCOL_GLOB_ELEMENT_H
#define PROTOCOL_GLOB_ELEMENT_H

/* What glob.c shares with the parts of the pattern index that take patterns apart. */
#include <stddef.h>
#include <stdint.h>

/* Length of the class that begins at pattern[0] == '[', 0 when it does not end or is empty. */
size_t glob_class_length(const uint8_t *pattern, size_t length);

#endif
