/* The journal's recovery (delivery.md, rules 2 and 3) on files that were cut, flipped, of another
 * version or of another epoch. Whatever is done to a file: what is taken over is what was written,
 * ids are never given out again within an epoch, or the file is moved aside and a new epoch begins.
 */
#include "bytes.h"
#include "journal.h"
#include "log.h"
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SIZE = JOURNAL_SIZE_MIN, FILE_SIZE = JOURNAL_HEADER_SIZE + SIZE, ORIGINS = 3 };

static char dir[64], path[100];
static struct origins *origins;
static struct journal j;

static void start(void)
{
    strcpy(dir, "/dev/shm/brokerd-test-XXXXXX"); /* closing a journal waits for the disk */
    if (mkdtemp(dir) == NULL) {
        strcpy(dir, "/tmp/brokerd-test-XXXXXX");
        cr_assert(mkdtemp(dir) != NULL);
    }
    snprintf(path, sizeof(path), "%s/journal", dir);
    origins = origins_new();
    cr_assert(origins != NULL);
    log_set_level(LOG_LEVEL_ERROR); /* thousands of files are moved aside */
}

static void end(void)
{
    char command[128];
    origins_free(origins);
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    cr_assert(system(command) == 0);
}

TestSuite(journal, .init = start, .fini = end, .timeout = 300);

/* Message `id` of a journal: everything in it follows from the id. Returns its size. */
static uint32_t encode(uint8_t *out, uint64_t id, uint8_t type)
{
    uint8_t payload[700];
    size_t length = 1 + id * 37 % sizeof(payload);
    char channel[32];
    int name = snprintf(channel, sizeof(channel), "channel.%u", (unsigned)(id % 5));
    memset(payload, (int)(id * 11 & 0xff), length);
    wire_record_encode(out, &(struct wire_record){.type = type,
                                                  .origin = 1 + id % ORIGINS,
                                                  .sequence = 1 + id / ORIGINS,
                                                  .channel = (const uint8_t *)channel,
                                                  .channel_length = (uint16_t)name,
                                                  .payload = payload,
                                                  .payload_length = length});
    return (uint32_t)wire_record_size((size_t)name, length);
}

static void append(uint64_t count)
{
    uint8_t bytes[1024];
    for (uint64_t i = 0; i < count; i++) {
        uint32_t size = encode(bytes, j.last_id + 1, WIRE_PUBLISH);
        journal_append(&j, bytes, size, 0);
    }
}

/* Everything in the ring is what was written, in order. */
static void check_content(uint64_t last)
{
    uint8_t expected[1024];
    uint64_t id = j.first_id;
    cr_assert_eq(j.last_id, last, "ids go on behind %llu, not %llu", (unsigned long long)j.last_id,
                 (unsigned long long)last);
    for (uint64_t at = j.tail; at < j.head; at += journal_record_size(&j, at)) {
        const uint8_t *record = journal_at(&j, at);
        if (record[4] == WIRE_FILLER)
            continue;
        encode(expected, id, WIRE_PUBLISH);
        wire_record_stamp(expected, id, 0);
        cr_assert_eq(memcmp(record, expected, get_u32le(expected)), 0, "message %llu is another",
                     (unsigned long long)id);
        id++;
    }
    cr_assert_eq(id, last + 1);
}

struct image {
    uint8_t bytes[FILE_SIZE];
    uint64_t last, epoch;
};

/* What a broker that was killed leaves after `count` messages. */
static void make_image(struct image *image, uint64_t count)
{
    cr_assert(journal_open_file(&j, path, SIZE, origins));
    append(count);
    image->last = count;
    image->epoch = j.header->epoch;
    memcpy(image->bytes, j.header, FILE_SIZE);
    journal_close(&j);
    unlink(path);
}

static void write_file(const uint8_t *bytes, size_t length)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    cr_assert(fd >= 0);
    cr_assert_eq(write(fd, bytes, length), (ssize_t)length);
    close(fd);
}

static bool aside_exists(void)
{
    char aside[128];
    struct stat there;
    snprintf(aside, sizeof(aside), "%s.aside-1", path);
    bool exists = stat(aside, &there) == 0;
    unlink(aside);
    return exists;
}

/* Opens what is in the file. The promise: the same messages and no id given out again, or a new
 * epoch that begins with nothing and leaves the file aside. */
static void check_opening(const struct image *image, const char *what, unsigned long at)
{
    origins_clear(origins);
    cr_assert(journal_open_file(&j, path, SIZE, origins), "%s %lu: refused", what, at);
    if (aside_exists()) {
        cr_assert(j.header->epoch != image->epoch && j.last_id == 0 && j.head == 0,
                  "%s %lu: not a new epoch", what, at);
        cr_assert_eq(origins_count(origins), 0);
    } else {
        check_content(image->last);
    }
    append(3);
    check_content(j.last_id);
    journal_close(&j);
    unlink(path);
}

static const uint64_t fills[] = {0, 1, 40, 1000}; /* empty, one, not full, wrapped many times */

Test(journal, rules_2_and_3_a_whole_file_is_taken_over)
{
    static struct image image;
    for (size_t i = 0; i < sizeof(fills) / sizeof(*fills); i++) {
        make_image(&image, fills[i]);
        write_file(image.bytes, FILE_SIZE);
        cr_assert(journal_open_file(&j, path, SIZE, origins));
        cr_assert(!aside_exists());
        cr_assert_eq(j.header->epoch, image.epoch);
        check_content(image.last);
        for (uint64_t origin = 1, id; origin <= ORIGINS && image.last >= ORIGINS; origin++) {
            uint64_t known = origins_known(origins, origin, &id);
            cr_assert(id > image.last - ORIGINS && known == 1 + id / ORIGINS);
        }
        journal_close(&j);
        unlink(path);
    }
}

Test(journal, rule_2_cut_short_at_any_length_it_is_a_new_epoch)
{
    static struct image image;
    make_image(&image, 1000);
    for (size_t length = 1; length < FILE_SIZE;
         length += length < 128 || length + 64 >= FILE_SIZE ? 1 : 61) {
        write_file(image.bytes, length);
        check_opening(&image, "cut after byte", length);
    }
    write_file(image.bytes, 0); /* made and never filled */
    cr_assert(journal_open_file(&j, path, SIZE, origins));
    cr_assert(!aside_exists() && j.last_id == 0 && j.header->epoch != image.epoch);
    journal_close(&j);
}

Test(journal, rule_2_cut_short_within_the_ring_and_longer_again)
{
    static struct image image;
    static uint8_t holes[FILE_SIZE];
    make_image(&image, 1000);
    for (size_t length = JOURNAL_HEADER_SIZE; length < FILE_SIZE; length += 509) {
        memcpy(holes, image.bytes, length);
        memset(holes + length, 0, FILE_SIZE - length);
        write_file(holes, FILE_SIZE);
        check_opening(&image, "zeroes from byte", length);
    }
}

Test(journal, rule_2_each_bit_of_the_header_flipped)
{
    static struct image image;
    for (size_t i = 0; i < sizeof(fills) / sizeof(*fills); i++) {
        make_image(&image, fills[i]);
        for (size_t at = 0; at < sizeof(struct journal_header); at++)
            for (unsigned flip = 1; flip < 256; flip = flip < 128 ? flip * 2 : flip + 127) {
                image.bytes[at] = (uint8_t)(image.bytes[at] ^ flip);
                write_file(image.bytes, FILE_SIZE);
                image.bytes[at] = (uint8_t)(image.bytes[at] ^ flip);
                check_opening(&image, "flipped header byte", at);
            }
    }
}

/* In memory of the test's own: a file for each of 65,536 bytes would take minutes. */
Test(journal, rule_2_each_byte_of_the_ring_flipped)
{
    static struct image image, copy;
    uint64_t random = 88172645463325252u;
    make_image(&image, 1000);
    memcpy(copy.bytes, image.bytes, FILE_SIZE);
    unsigned long taken = 0, refused = 0;
    for (size_t at = JOURNAL_HEADER_SIZE; at < FILE_SIZE; at++) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        unsigned flip = at % 3 == 0 ? 1u << (random >> 40) % 8 : 1 + (unsigned)(random >> 40) % 255;
        copy.bytes[at] = (uint8_t)(copy.bytes[at] ^ flip);
        const char *fault = NULL;
        j = (struct journal){.fd = -1};
        cr_assert(journal_prepare(&j, (struct journal_header *)(void *)copy.bytes));
        if (journal_recover(&j, origins, &fault)) {
            check_content(image.last);
            taken++;
        } else {
            cr_assert(fault != NULL);
            refused++;
        }
        free(j.index);
        memcpy(copy.bytes, image.bytes, JOURNAL_HEADER_SIZE);
        copy.bytes[at] = image.bytes[at];
    }
    cr_assert(taken > 0 && refused > SIZE / 2, "%lu taken over, %lu refused", taken, refused);
}

/* A kill between writing a record and moving the head; and a head that was damaged. */
Test(journal, rule_2_a_head_that_lies_behind_the_records_gives_no_id_twice)
{
    static struct image image;
    make_image(&image, 1000);
    struct journal_header *header = (struct journal_header *)(void *)image.bytes;
    uint64_t head = atomic_load(&header->head), tail = atomic_load(&header->tail);
    for (uint64_t at = tail; at <= head;
         at += size_align8(get_u32le(image.bytes + JOURNAL_HEADER_SIZE + at % SIZE)))
        for (uint64_t off = 0; off < 16; off += 8) {
            atomic_store(&header->head, at + off);
            write_file(image.bytes, FILE_SIZE);
            check_opening(&image, "head at", at + off);
        }
}

Test(journal, rule_2_another_version_is_moved_aside)
{
    static struct image image;
    make_image(&image, 40);
    ((struct journal_header *)(void *)image.bytes)->format = JOURNAL_FORMAT + 1;
    write_file(image.bytes, FILE_SIZE);
    cr_assert(journal_open_file(&j, path, SIZE, origins));
    cr_assert(aside_exists() && j.last_id == 0 && j.header->epoch != image.epoch);
    journal_close(&j);
}

Test(journal, rule_2_another_boot_counts_only_if_it_was_closed_in_order)
{
    static struct image image;
    make_image(&image, 40);
    struct journal_header *header = (struct journal_header *)(void *)image.bytes;
    header->boot[0] = header->boot[0] == 'x' ? 'y' : 'x';
    for (uint32_t clean = 0; clean < 2; clean++) {
        header->clean = clean;
        write_file(image.bytes, FILE_SIZE);
        cr_assert(journal_open_file(&j, path, SIZE, origins));
        cr_assert_eq(aside_exists(), clean == 0);
        cr_assert_eq(j.last_id, clean == 0 ? 0 : image.last);
        journal_close(&j);
        unlink(path);
    }
}

Test(journal, rule_2_a_journal_of_another_epoch_is_taken_over_as_that_epoch)
{
    static struct image first, second;
    make_image(&first, 40);
    make_image(&second, 1000);
    cr_assert_neq(first.epoch, second.epoch);
    write_file(second.bytes, FILE_SIZE);
    cr_assert(journal_open_file(&j, path, SIZE, origins));
    cr_assert_eq(j.header->epoch, second.epoch);
    check_content(second.last);
    journal_close(&j);
}

/* Records that are each in order but of two journals do not mix: the ids do not fit together. */
Test(journal, rule_2_a_ring_made_of_two_journals_is_a_new_epoch)
{
    static struct image first, second;
    make_image(&first, 1000);
    make_image(&second, 1100);
    for (size_t at = JOURNAL_HEADER_SIZE + 4096; at < FILE_SIZE; at += 4096) {
        memcpy(second.bytes + at, first.bytes + at, FILE_SIZE - at);
        write_file(second.bytes, FILE_SIZE);
        check_opening(&second, "another journal's bytes from", at);
        make_image(&second, 1100);
    }
}

static size_t mapped_pages(void)
{
    unsigned char pages[SIZE / 4096 * 4];
    size_t count = 0;
    cr_assert(mincore(j.ring, j.size, pages) == 0);
    for (size_t i = 0; i < j.size / 4096; i++)
        count += pages[i] & 1;
    return count;
}

Test(journal, the_ring_takes_memory_as_it_fills_some_pages_at_a_time)
{
    const size_t step = JOURNAL_TOUCH / 4096;
    cr_assert(journal_open_memory(&j, (uint64_t)SIZE * 4));
    cr_assert_eq(mapped_pages(), 0);
    append(1);
    cr_assert_eq(mapped_pages(), step);
    while (j.head <= JOURNAL_TOUCH)
        append(1);
    cr_assert_eq(mapped_pages(), 2 * step);
    while (j.lap == 0)
        append(1);
    cr_assert_eq(mapped_pages(), j.size / 4096);
    cr_assert_eq(j.untouched, 0);
    journal_close(&j);
}

Test(journal, a_ring_that_was_taken_over_in_its_middle_is_mapped_once_around)
{
    cr_assert(journal_open_file(&j, path, SIZE, origins));
    append(20);
    cr_assert_neq(j.head % JOURNAL_TOUCH, 0);
    journal_close(&j);
    cr_assert(journal_open_file(&j, path, SIZE, origins));
    cr_assert_eq(j.untouched, j.size);
    append(20);
    cr_assert_lt(j.untouched, j.size);
    append(SIZE / 100);
    cr_assert_eq(j.untouched, 0);
    check_content(40 + SIZE / 100);
    journal_close(&j);
}
