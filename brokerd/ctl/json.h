#ifndef BROKERCTL_JSON_H
#define BROKERCTL_JSON_H

/* Writing JSON strings: brokerctl's output for machines. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* A JSON string with its quotes. Bytes that are not UTF-8 become U+FFFD. */
void json_string(FILE *out, const void *text, size_t length);

/* The same of the bytes' base64. */
void json_base64(FILE *out, const void *data, size_t length);

#endif
