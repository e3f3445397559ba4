#include "glob.h"
#include <criterion/criterion.h>
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
        if (glob_check(pattern, length) != STATUS_OK)
            continue;
        for (int n = 0; n < 8; n++, i++) {
            size_t size = random_text(channel, rand_r(&seed) % 8 == 0 ? 40 : 10,
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
        clock_gettime(CLOCK_MONOTONIC, &from);
        glob_match(pattern, length, channel, size);
        clock_gettime(CLOCK_MONOTONIC, &to);
        double took =
            (double)(to.tv_sec - from.tv_sec) * 1e6 + (double)(to.tv_nsec - from.tv_nsec) / 1e3;
        best = took < best ? took : best;
    }
    return best;
}

Test(glob, time_is_bounded_for_hostile_patterns)
{
    static char pattern[4096], channel[4096];

    memset(channel, 'a', sizeof(channel));
    for (size_t i = 0; i < sizeof(pattern); i++)
        pattern[i] = i % 2 == 0 ? '*' : 'a';
    pattern[4095] = 'b';
    cr_expect_lt(microseconds_of(pattern, 4096, channel, 4096), 1e6, "many stars");

    memset(pattern, 'a', sizeof(pattern));
    pattern[0] = pattern[4095] = '*';
    pattern[2048] = 'b';
    pattern[2049] = '*';
    cr_expect_lt(microseconds_of(pattern, 4096, channel, 4096), 1e6, "long literals");

    pattern[2048] = '?';
    pattern[1000] = 'b';
    cr_expect_lt(microseconds_of(pattern, 4096, channel, 4096), 1e6, "long segments");
}
