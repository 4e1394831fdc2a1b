/* What a fuzzer drives: any bytes as a payload, and what any elements become and were.

   The first bytes of an input say which. A payload must be refused or decoded by both paths alike,
   and nothing else be touched: build with -fsanitize=address,undefined. Without libFuzzer, `main`
   runs files, or so many inputs made from a seed:

       kernel_fuzz [FILE...] | --runs N SEED [FOLDER]

   With a folder these are left there, for libFuzzer to begin with.

   The hundred bytes that every input may lack are zeros. */

#define KERNEL_ALONE
#include "../../../../weightsmith/codecs/exact/kernel.c"
#include <stdio.h>

static const Form FORMS[] = {{1, 2, 31}, {1, 3, 15}, {2, 10, 31}, {2, 7, 255}, {4, 23, 255}};

static void fail(const char *what)
{
    fprintf(stderr, "%s\n", what);
    abort();
}

/* Bytes in memory of their own, so that reading past them is seen. */
static u8 *copy_of(const u8 *data, size_t nbytes)
{
    u8 *copy = malloc(nbytes ? nbytes : 1);
    if (!copy)
        abort();
    if (nbytes)
        memcpy(copy, data, nbytes);
    return copy;
}

/* Whether a payload decodes; all paths must say the same, and give the same bytes. */
static int decodes(const u8 *payload, size_t nbytes, const u8 *base, u8 *target, size_t count,
                   Form form)
{
    static Decoder decoder;
    const size_t target_nbytes = count * (size_t)form.width;
    u8 *other = copy_of(target, target_nbytes);
    const char *wrong = decode(payload, nbytes, base, target, count, form, PLAIN, &decoder);
    for (int simd = PLAIN + 1; simd <= widest(); simd++) {
        const char *too = decode(payload, nbytes, base, other, count, form, simd, &decoder);
        if (!wrong != !too)
            fail("the paths do not agree whether this is a payload");
        if (!wrong && memcmp(target, other, target_nbytes))
            fail("the paths decode to other bytes");
    }
    free(other);
    return !wrong;
}

static void round_trip(const u8 *base, const u8 *elements, size_t count, Form form)
{
    const size_t nbytes = count * (size_t)form.width;
    Span sizes;
    Span *span = malloc(lay_out(&sizes, count, form.width));
    u8 *target = copy_of(elements, nbytes), *payload, *again;
    size_t made;
    if (!span)
        abort();
    lay_out(span, count, form.width);
    encode(span, base, target, count, form, PLAIN);
    made = span->nbytes;
    if (!made) {
        free(target);
        free(span);
        return;
    }
    payload = malloc(made);
    again = malloc(made);
    if (!payload || !again)
        abort();
    assemble(span, payload);
    if (widest() > PLAIN) {
        encode(span, base, target, count, form, BY_8);
        if (span->nbytes != made)
            fail("the paths encode to other lengths");
        assemble(span, again);
        if (memcmp(payload, again, made))
            fail("the paths encode to other bytes");
    }
    memset(target, 0xA5, nbytes);
    if (!decodes(payload, made, base, target, count, form) || memcmp(target, elements, nbytes))
        fail("what was encoded does not come back");
    free(again);
    free(payload);
    free(target);
    free(span);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    static int ready;
    const Form form = FORMS[nbytes > 0 ? data[0] % 5 : 0];
    const int with_base = nbytes > 1 && data[1] & 1, rounds = nbytes > 1 && data[1] & 2;
    size_t count = nbytes > 3 ? 1 + (data[2] | (size_t)(data[3] & 3) << 8) : 1, target_nbytes;
    u8 *base = NULL, *target, *payload;
    if (!ready) {
#ifdef WITH_AVX2
        fill_shuffles();
#endif
        ready = 1;
    }
    data += nbytes < 4 ? nbytes : 4;
    nbytes -= nbytes < 4 ? nbytes : 4;
    target_nbytes = count * (size_t)form.width;
    if (with_base) { /* its bytes come first, as far as they go */
        base = calloc(count, (size_t)form.width);
        if (!base)
            abort();
        const size_t given = nbytes < target_nbytes ? nbytes : target_nbytes;
        if (given)
            memcpy(base, data, given);
        data += given;
        nbytes -= given;
    }
    target = calloc(count, (size_t)form.width);
    if (!target)
        abort();
    if (rounds) {
        if (nbytes)
            memcpy(target, data, nbytes < target_nbytes ? nbytes : target_nbytes);
        round_trip(base, target, count, form);
    } else {
        payload = copy_of(data, nbytes);
        decodes(payload, nbytes, base, target, count, form);
        free(payload);
    }
    free(target);
    free(base);
    return 0;
}

#ifndef WITH_LIBFUZZER

static const char *folder; /* or NULL */

static void run(const u8 *input, size_t nbytes)
{
    static unsigned number;
    char path[4096];
    LLVMFuzzerTestOneInput(input, nbytes);
    if (!folder)
        return;
    snprintf(path, sizeof path, "%s/%u", folder, number++);
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(input, 1, nbytes, file) != nbytes || fclose(file))
        fail("an input could not be left");
}

static u64 random_bits(u64 *seed) /* splitmix64 */
{
    u64 z = *seed += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

/* Elements near their base, and from time to time a payload of them with a few bytes changed. */
static void made_up(u64 *seed)
{
    static u8 input[4 + 2 * 4 * 1024 + 65536];
    const Form form = FORMS[random_bits(seed) % 5];
    const size_t width = (size_t)form.width, count = 1 + random_bits(seed) % 1024;
    const u64 spread = (u64)1 << random_bits(seed) % (8 * width);
    const int with_base = random_bits(seed) & 1;
    u8 *base = input + 4, *target = input + 4 + (with_base ? count * width : 0);
    size_t at = 0;
    for (size_t i = 0; i < 5; i++)
        if (FORMS[i].width == form.width && FORMS[i].shift == form.shift)
            input[0] = (u8)i;
    input[1] = (u8)(with_base | 2);
    input[2] = (u8)(count - 1);
    input[3] = (u8)((count - 1) >> 8);
    for (size_t i = 0; i < count; i++) {
        const u64 b = random_bits(seed) & random_bits(seed), t = b + random_bits(seed) % spread;
        memcpy(base + i * width, &b, width);
        memcpy(target + i * width, random_bits(seed) % 16 ? (const void *)&t : (const void *)&b,
               width);
    }
    at = (size_t)(target - input) + count * width;
    run(input, at);
    {
        Span sizes;
        Span *span = malloc(lay_out(&sizes, count, form.width));
        if (!span)
            abort();
        lay_out(span, count, form.width);
        encode(span, with_base ? base : NULL, target, count, form, PLAIN);
        assemble(span, target);
        at = (size_t)(target - input) + span->nbytes;
        free(span);
    }
    input[1] = (u8)with_base;
    for (u64 i = random_bits(seed) % 4; i; i--)
        target[random_bits(seed) % (at - (size_t)(target - input))] ^= (u8)(1 << random_bits(seed) % 8);
    if (random_bits(seed) % 4 == 0)
        at = (size_t)(target - input) + random_bits(seed) % (at - (size_t)(target - input));
    run(input, at);
}

int main(int count, char **arguments)
{
    if (count >= 4 && !strcmp(arguments[1], "--runs")) {
        folder = count > 4 ? arguments[4] : NULL;
        u64 seed = strtoull(arguments[3], NULL, 10);
        for (u64 runs = strtoull(arguments[2], NULL, 10); runs; runs--)
            made_up(&seed);
        return 0;
    }
    for (int i = 1; i < count; i++) {
        static u8 input[1 << 20];
        FILE *file = fopen(arguments[i], "rb");
        if (!file)
            return 2;
        LLVMFuzzerTestOneInput(input, fread(input, 1, sizeof input, file));
        fclose(file);
    }
    return 0;
}

#endif
