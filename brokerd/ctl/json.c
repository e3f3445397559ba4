#include "json.h"
#include <openssl/evp.h>
#include <stdbool.h>

/* Length of the valid UTF-8 character at the start of text, 0 when there is none. */
static size_t character(const uint8_t *text, size_t length)
{
    uint8_t first = text[0];
    if (first < 0x80)
        return 1;
    size_t size = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
    if (first < 0xc2 || first > 0xf4 || size > length)
        return 0;
    for (size_t i = 1; i < size; i++)
        if ((text[i] & 0xc0) != 0x80)
            return 0;
    bool overlong = (first == 0xe0 && text[1] < 0xa0) || (first == 0xf0 && text[1] < 0x90);
    bool outside = (first == 0xed && text[1] > 0x9f) || (first == 0xf4 && text[1] > 0x8f);
    return overlong || outside ? 0 : size;
}

void json_string(FILE *out, const void *text, size_t length)
{
    const uint8_t *at = text, *end = at + length;
    putc('"', out);
    while (at < end) {
        size_t size = character(at, (size_t)(end - at));
        if (size == 0) {
            fputs("\\ufffd", out);
            size = 1;
        } else if (*at == '"' || *at == '\\') {
            fprintf(out, "\\%c", *at);
        } else if (*at < 0x20 || *at == 0x7f) {
            fprintf(out, "\\u%04x", *at);
        } else {
            fwrite(at, 1, size, out);
        }
        at += size;
    }
    putc('"', out);
}

void json_base64(FILE *out, const void *data, size_t length)
{
    const uint8_t *at = data;
    putc('"', out);
    for (size_t piece; length > 0; at += piece, length -= piece) {
        unsigned char encoded[65];
        piece = length < 48 ? length : 48;
        int size = EVP_EncodeBlock(encoded, at, (int)piece);
        fwrite(encoded, 1, (size_t)size, out);
    }
    putc('"', out);
}
