#include "glob.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static bool matches(const char *pattern, const char *channel)
{
    cr_assert_eq(glob_check(pattern, strlen(pattern)), STATUS_OK, "%s", pattern);
    return glob_match(pattern, strlen(pattern), channel, strlen(channel));
}

#define YES(pattern, channel) cr_assert(matches(pattern, channel), "%s : %s", pattern, channel)
#define NO(pattern, channel)  cr_assert_not(matches(pattern, channel), "%s : %s", pattern, channel)

Test(glob, star_is_any_bytes_also_none)
{
    YES("*", "");
    YES("*", "anything");
    YES("a*", "a");
    YES("a*b", "ab");
    YES("a*b", "a/x/b");
    NO("a*b", "a/x/bc");
    YES("**", "");
    YES("*a*", "bab");
    NO("*a*", "bbb");
    YES("user:*:x:*", "user:7:x:");
    YES("*aab", "aaaab");
    YES("*ab*ab", "abab");
    NO("*ab*ab", "aab");
}

Test(glob, question_mark_is_one_byte)
{
    YES("h?llo", "hello");
    NO("h?llo", "hllo");
    NO("?", "");
    NO("?", "ab");
    YES("??", "ab");
    YES("?*", "a");
    NO("?*", "");
    NO("?", "\xc3\xa9");
    YES("??", "\xc3\xa9");
}

Test(glob, class_is_one_byte_of_it)
{
    YES("h[ae]llo", "hallo");
    YES("h[ae]llo", "hello");
    NO("h[ae]llo", "hillo");
    NO("h[ae]llo", "haello");
    YES("[a-c]", "b");
    NO("[a-c]", "d");
    YES("[a-cx-z]", "y");
    YES("[-a]", "-");
    YES("[*]", "*");
    NO("[*]", "a");
}

Test(glob, class_negated_by_caret_alone)
{
    YES("[^a]", "b");
    NO("[^a]", "a");
    NO("[^a]", "");
    YES("[!a]", "!");
    YES("[!a]", "a");
    NO("[!a]", "b");
    YES("[a^]", "^");
    YES("[^]", "x");
}

Test(glob, class_range_as_redis_reads_it)
{
    YES("[c-a]", "b"); /* reversed: swapped */
    YES("[a-]]", "`"); /* the ] is the end of the range a to ] */
    YES("[a-]]", "]");
    NO("[a-]]", "b");
    YES("[\\a-c]", "-"); /* an escaped byte begins no range */
    NO("[\\a-c]", "b");
    YES("[\\]]", "]");
    YES("[a\\-c]", "-");
    YES("[\\^a]", "^");
    NO("[\\^a]", "b");
    YES("[a-\\]x", "`x"); /* the range is a to \, which the ] then ends */
    NO("[a-\\]x", "Ax");
}

Test(glob, bytes_are_unsigned)
{
    YES("[a-\xff]", "\xc3");
    NO("[a-\xff]", "A");
    YES("[\x80-\xff]", "\x90");
    NO("[\x80-\xff]", "a");
}

Test(glob, backslash_makes_the_next_byte_itself)
{
    YES("\\*", "*");
    NO("\\*", "a");
    YES("\\?\\[", "?[");
    YES("\\a", "a");
    YES("a\\\\", "a\\");
    YES("a\\", "a\\"); /* the last byte is itself */
    NO("a\\", "a");
}

Test(glob, case_counts)
{
    NO("abc", "ABC");
    NO("[a-c]", "B");
}

Test(glob, zero_bytes_are_bytes)
{
    cr_assert(glob_match("a\0*", 3, "a\0b", 3));
    cr_assert_not(glob_match("a\0*", 3, "a", 1));
}

Test(glob, malformed_class_is_refused)
{
    const char *bad[] = {"[",    "a[",   "[a",   "[^",   "[^a", "[]",
                         "x[]y", "[]a]", "[a-]", "[\\]", "[\\", "[a-z"};

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        cr_assert_eq(glob_check(bad[i], strlen(bad[i])), STATUS_PATTERN, "%s", bad[i]);
    cr_assert_eq(glob_check("\\[", 2), STATUS_OK);
    cr_assert_eq(glob_check("]", 1), STATUS_OK);
    cr_assert_eq(glob_check("", 0), STATUS_OK);
}

Test(glob, longer_than_4096_bytes_is_refused)
{
    static char pattern[4097];

    memset(pattern, 'a', sizeof(pattern));
    cr_assert_eq(glob_check(pattern, 4096), STATUS_OK);
    cr_assert_eq(glob_check(pattern, 4097), STATUS_CHANNEL_LENGTH);
}

/* The definition of a glob, without any care for time. */
static bool naive(const uint8_t *p, const uint8_t *p_end, const uint8_t *c, const uint8_t *c_end)
{
    bool negated, has;

    if (p == p_end)
        return c == c_end;
    if (*p == '*') {
        for (const uint8_t *at = c; at <= c_end; at++)
            if (naive(p + 1, p_end, at, c_end))
                return true;
        return false;
    }
    if (c == c_end)
        return false;
    switch (*p) {
    case '?':
        return naive(p + 1, p_end, c + 1, c_end);
    case '\\':
        if (p + 1 < p_end)
            p++;
        return *p == *c && naive(p + 1, p_end, c + 1, c_end);
    case '[':
        p++;
        negated = *p == '^';
        p += negated;
        for (has = false; *p != ']'; p++) {
            if (*p == '\\' && p_end - p >= 2) {
                p++;
                has |= *p == *c;
            } else if (p_end - p >= 3 && p[1] == '-') {
                uint8_t low = p[0] < p[2] ? p[0] : p[2], high = p[0] < p[2] ? p[2] : p[0];
                has |= low <= *c && *c <= high;
                p += 2;
            } else {
                has |= *p == *c;
            }
        }
        return has != negated && naive(p + 1, p_end, c + 1, c_end);
    default:
        return *p == *c && naive(p + 1, p_end, c + 1, c_end);
    }
}

static size_t random_text(uint8_t *out, size_t most, const char *alphabet, unsigned *seed)
{
    size_t length = (size_t)rand_r(seed) % (most + 1), letters = strlen(alphabet);

    for (size_t i = 0; i < length; i++)
        out[i] = (uint8_t)alphabet[(size_t)rand_r(seed) % letters];
    return length;
}

/* GLOB_PAIRS in the environment makes it longer. */
Test(glob, random_pairs_against_the_definition, .timeout = 3600)
{
    static const char *alphabets[] = {"ab*", "aab*?", "ab*?[]^-\\", "abcd*?[]^-\\a:\xff", "a**b?"};
    const char *asked = getenv("GLOB_PAIRS");
    unsigned long pairs = asked != NULL ? strtoul(asked, NULL, 10) : 300000, matched = 0;
    unsigned seed = 11;
    uint8_t pattern[24], channel[200];

    for (unsigned long i = 0; i < pairs;) {
        const char *alphabet = alphabets[(size_t)rand_r(&seed) % 5];
        size_t length =
            random_text(pattern, sizeof(pattern) >> (rand_r(&seed) % 3), alphabet, &seed);
        size_t stars = 0;
        for (size_t n = 0; n < length; n++)
            stars += pattern[n] == '*';
        if (glob_check(pattern, length) != STATUS_OK)
            continue;
        for (int n = 0; n < 8; n++, i++) {
            size_t size = random_text(channel, stars < 5 && n == 0 ? 40 : 10,
                                      rand_r(&seed) % 3 ? "ab" : "abc]^-", &seed);
            bool right = naive(pattern, pattern + length, channel, channel + size);
            matched += right;
            cr_assert_eq(glob_match(pattern, length, channel, size), right, "%.*s : %.*s",
                         (int)length, pattern, (int)size, channel);
        }
    }
    cr_assert_gt(matched, pairs / 50);
}

static double microseconds_of(const void *pattern, size_t length, const void *channel, size_t size)
{
    struct timespec from, to;
    double best = 1e9;

    for (int i = 0; i < 5; i++) {
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &from);
        glob_match(pattern, length, channel, size);
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &to);
        double took =
            (double)(to.tv_sec - from.tv_sec) * 1e6 + (double)(to.tv_nsec - from.tv_nsec) / 1e3;
        best = took < best ? took : best;
    }
    return best;
}

static void fill(char *out, size_t length, const char *part)
{
    for (size_t i = 0; i < length; i++)
        out[i] = part[i % strlen(part)];
}

/* Whole parts only; what is left is filled with a. */
static void fill_parts(char *out, size_t length, const char *part)
{
    memset(out, 'a', length);
    for (size_t i = 0; i + strlen(part) <= length; i += strlen(part))
        memcpy(out + i, part, strlen(part));
}

#if defined(__SANITIZE_ADDRESS__)
enum { SLOWER = 40 };
#else
enum { SLOWER = 8 }; /* of the promise: the machine may be busy */
#endif

#define FAST(limit, what)                                                                          \
    do {                                                                                           \
        double took = microseconds_of(pattern, 4096, channel, 4096);                               \
        cr_expect_lt(took, (limit)*SLOWER, "%s: %.0f us", what, took);                             \
        if (getenv("GLOB_TIMES") != NULL)                                                          \
            fprintf(stderr, "%-40s %6.1f us\n", what, took);                                       \
    } while (0)

Test(glob, time_is_bounded_for_4_KiB_of_literals_and_stars)
{
    static char pattern[4096], channel[4096];

    fill(channel, 4096, "a");
    fill(pattern, 4096, "*a");
    pattern[4095] = 'b';
    FAST(20, "many stars");
    pattern[4095] = '*';
    pattern[4094] = 'b';
    FAST(20, "many stars, the last segment missing");
    fill(pattern, 4096, "*aaaaaaab");
    FAST(20, "short segments that nearly match");
    fill(pattern, 4096, "a");
    pattern[0] = pattern[2048] = pattern[4095] = '*';
    pattern[1024] = 'b';
    FAST(20, "a long segment, b in the middle");
    pattern[1024] = 'a';
    pattern[1] = 'b';
    FAST(20, "a long segment, b at its start");
    pattern[1] = 'a';
    pattern[2047] = 'b';
    FAST(20, "a long segment, b at its end");
    fill(pattern, 4096, "a");
    pattern[0] = pattern[257] = '*';
    pattern[1] = 'b';
    FAST(20, "a segment of 256 bytes");
}

Test(glob, time_is_bounded_for_4_KiB_of_anything)
{
    static char pattern[4096], channel[4096];

    fill(channel, 4096, "a");
    fill(pattern, 4096, "a");
    pattern[0] = pattern[4095] = pattern[2048] = '*';
    pattern[100] = '?';
    pattern[1500] = 'b';
    FAST(100, "a segment of 2,047, b in the middle");
    pattern[1500] = 'a';
    pattern[2047] = 'b';
    FAST(100, "a segment of 2,047, b at its end");
    fill(pattern, 4096, "?");
    pattern[0] = pattern[2048] = pattern[4095] = '*';
    pattern[2047] = 'b';
    FAST(100, "question marks");
    fill_parts(pattern, 4096, "[a-z]");
    pattern[4090] = 'b';
    pattern[4091] = '*';
    memmove(pattern + 1, pattern, 4095);
    pattern[0] = '*';
    FAST(100, "classes");
    fill_parts(pattern, 4096, "[^b]");
    memcpy(pattern + 4088, "bbbbbbb*", 8);
    memmove(pattern + 4, pattern, 4092);
    memcpy(pattern, "****", 4);
    FAST(200, "negated classes");
    fill(pattern, 4096, "*??a??b");
    FAST(100, "short segments");
}

/* Long literal segments, which are searched by a hash, at a random place or one byte beside it. */
Test(glob, long_literal_segments_are_found_where_they_are)
{
    static char pattern[4096], channel[4096];
    unsigned seed = 29, matched = 0;

    for (int round = 0; round < 20000; round++) {
        size_t length = 1 + (size_t)rand_r(&seed) % 300;
        size_t size = length + (size_t)rand_r(&seed) % 500;
        size_t place = (size_t)rand_r(&seed) % (size - length + 1);
        for (size_t i = 0; i < size; i++)
            channel[i] = rand_r(&seed) % 64 == 0 ? 'b' : 'a';
        pattern[0] = pattern[length + 1] = '*';
        memcpy(pattern + 1, channel + place, length);
        if (rand_r(&seed) % 2 == 0)
            pattern[1 + (size_t)rand_r(&seed) % length] ^= 3; /* a and b change places */
        bool right = memmem(channel, size, pattern + 1, length) != NULL;
        matched += right;
        cr_assert_eq(glob_match(pattern, length + 2, channel, size), right, "round %d", round);
    }
    cr_assert_gt(matched, 8000);
    cr_assert_lt(matched, 19000);
}

/* Long segments of few kinds of elements, in which bits and plain tries have to agree. */
Test(glob, long_segments_against_the_definition)
{
    static const char *const elements[] = {"a", "?", "[ab]", "[^b]", "\\a", "b", "[b-d]"};
    static uint8_t pattern[4096], channel[4096];
    unsigned seed = 23, matched = 0;

    for (int round = 0; round < 3000; round++) {
        size_t length = 0, size = 200 + (size_t)rand_r(&seed) % 1200;
        size_t count = 1 + (size_t)rand_r(&seed) % (round % 2 ? 700 : 60);
        unsigned rare = 1 + (unsigned)rand_r(&seed) % 400, start = 0;
        for (size_t i = 0; i < size; i++)
            channel[i] = (unsigned)rand_r(&seed) % rare == 0 ? 'b' : 'a';
        pattern[length++] = '*';
        if (size > count && rand_r(&seed) % 2 == 0)
            start = (unsigned)rand_r(&seed) % (unsigned)(size - count);
        for (size_t i = 0; i < count; i++) {
            const char *e = elements[(size_t)rand_r(&seed) % 4];
            if (start > 0 && channel[start + i] == 'b')
                e = elements[i % 2 ? 5 : 6];
            else if (start == 0 && rand_r(&seed) % 200 == 0)
                e = "b";
            memcpy(pattern + length, e, strlen(e));
            length += strlen(e);
        }
        pattern[length++] = '*';
        bool right = naive(pattern, pattern + length, channel, channel + size);
        cr_assert_eq(glob_match(pattern, length, channel, size), right, "round %d", round);
        matched += right;
    }
    cr_assert(matched > 500 && matched < 2900, "%u", matched);
}
