#include "descriptors.h"
#include <stdatomic.h>
#include <stdint.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TABLE_SIZE = 65536, WORD_BITS = 64, WORDS = TABLE_SIZE / WORD_BITS };

static _Atomic uint64_t owned[WORDS];

static uint64_t bit_of(int fd)
{
    return UINT64_C(1) << ((unsigned)fd % WORD_BITS);
}

bool descriptors_add(int fd)
{
    if (fd < 0 || fd >= TABLE_SIZE)
        return false;
    atomic_fetch_or(&owned[fd / WORD_BITS], bit_of(fd));
    return true;
}

void descriptors_close(int fd, bool is_socket)
{
    if (fd < 0)
        return;
    if (is_socket)
        shutdown(fd, SHUT_RDWR);
    /* Off the table before the number is free again: a child forked in between would otherwise
     * close a descriptor that another thread has just been given. The copy it keeps holds nothing
     * open. */
    if (fd < TABLE_SIZE)
        atomic_fetch_and(&owned[fd / WORD_BITS], ~bit_of(fd));
    close(fd);
}

void descriptors_close_in_child(void)
{
    for (int i = 0; i < WORDS; i++) {
        uint64_t word = atomic_exchange(&owned[i], 0);
        while (word != 0) {
            close(i * WORD_BITS + __builtin_ctzll(word));
            word &= word - 1;
        }
    }
}
