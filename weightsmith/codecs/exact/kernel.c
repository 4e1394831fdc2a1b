/* Spans of an exact delta that are coded in order by class: kind 4 of docs/reference/delta-format.md.

   An element is a symbol, whose frequencies depend on the class that its base is in, and bits that
   are stored as they are. Symbols go through an interleaved range coder (rANS): 64 lanes take the
   elements in turn, each with a state of 32 bits, and all draw on one stream of 16-bit words. The
   lanes of a group of neighbours do not wait for each other, so AVX2 takes 8 at a time, and AVX-512
   16; the plain code, for all other machines, reads and writes the same bytes.

   Nothing here trusts a payload. Sums, shifts, counts and lengths are checked as the head is read;
   classes and slots are masked; words and exceptions are held against their end. No memory is asked
   for by a size that a payload names. There is no floating point, so that all machines write alike.

   Sources: Duda 2013, arXiv:1311.2540 (rANS); Giesen 2014, arXiv:1402.3392 (interleaved). */

#ifndef KERNEL_ALONE /* a fuzz target has no use for Python */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#endif
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "numbers are read as they lie in memory, which is little-endian"
#endif

#if defined(_MSC_VER)
#include <intrin.h>
#define INLINE static __forceinline
#define UNLIKELY(x) (x)
#else
#define INLINE static inline __attribute__((always_inline))
#define UNLIKELY(x) __builtin_expect(!!(x), 0)
#endif

#if defined(__x86_64__) || defined(_M_X64)
#define WITH_AVX2
#include <immintrin.h>
#if defined(_MSC_VER)
#define AVX2
#else
#define AVX2 __attribute__((target("avx2,bmi,bmi2,popcnt")))
#define WITH_AVX512
#define AVX512 __attribute__((target("avx2,bmi,bmi2,popcnt,avx512f,avx512bw,avx512dq,avx512vl")))
#endif
#endif

/* Which code is used. What encodes goes no further than AVX2. */
enum { PLAIN, BY_8, BY_16 };

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int32_t i32;

enum {
    KIND = 4,
    CLASSES = 8,
    SYMBOLS = 256,
    BITS = 11, /* of a slot; the frequencies of a class add up to SLOTS */
    SLOTS = 1 << BITS,
    LOWEST = 1 << 16, /* state between two elements */
    MOST_RAW = 16 - BITS, /* bits after a symbol, so that no state needs two words */
    MOST_LOW = 24,
    LANES = 64, /* or FEW_LANES, where there are few elements */
    FEW_LANES = 8,
    UNCHANGED = 128, /* the symbol of no difference */
    FIXED = 10, /* bytes of a head before the frequencies */
    STATE = 4,  /* bytes of a state */
    AHEAD = 32  /* bytes that may be read past those that are taken */
};

/* How elements lie in memory: bytes of one, and its exponent. */
typedef struct {
    int width, shift, mask;
} Form;

typedef struct {
    int raw;    /* bits that follow a symbol */
    u32 origin; /* of a class of values: the symbol that number 0 stands for */
    u16 freq[SYMBOLS];
} Class;

/* What a span says before its content. */
typedef struct {
    Form form;
    int ceiling; /* the exponent of class 0 */
    int values;  /* the first class that stores values; those before it store differences */
    int zero;    /* lowest bits, which are zero in every element */
    int low;     /* bits above these, stored apart */
    int lanes;
    Class classes[CLASSES];
} Head;

/* ---- Small parts ---- */

INLINE u32 load(const u8 *at, const int width)
{
    u16 half;
    u32 word;
    if (width == 1)
        return *at;
    if (width == 2) {
        memcpy(&half, at, 2);
        return half;
    }
    memcpy(&word, at, 4);
    return word;
}

INLINE void store(u8 *at, u32 value, const int width)
{
    const u16 half = (u16)value;
    if (width == 1)
        *at = (u8)value;
    else if (width == 2)
        memcpy(at, &half, 2);
    else
        memcpy(at, &value, 4);
}

INLINE i32 with_sign(u32 value, const int width)
{
    return width == 1 ? (int8_t)value : width == 2 ? (int16_t)value : (i32)value;
}

INLINE u32 top_bit(const Head *head) { return (u32)1 << (8 * head->form.width - 1); }

INLINE int class_of(u32 element, const Form *form, int ceiling)
{
    const int below = ceiling - (int)(element >> form->shift & (u32)form->mask);
    return below < 0 ? 0 : below > CLASSES - 1 ? CLASSES - 1 : below;
}

INLINE int bit_length(u32 value)
{
#if defined(__GNUC__)
    return value ? 32 - __builtin_clz(value) : 0;
#else
    unsigned long highest;
    return _BitScanReverse(&highest, value) ? (int)highest + 1 : 0;
#endif
}

INLINE int bit_of(const u8 *map, size_t number) { return map[number >> 3] >> (number & 7) & 1; }

/* Bits, the lowest of each byte first. Writes up to 7 bytes past the end. */
typedef struct {
    u8 *at;
    u64 held;
    int count;
} BitWriter;

INLINE void put_bits(BitWriter *out, u64 bits, int count) /* 56 at most */
{
    out->held |= bits << out->count;
    out->count += count;
    memcpy(out->at, &out->held, 8);
    out->at += out->count >> 3;
    out->held >>= out->count & ~7; /* 56 at most */
    out->count &= 7;
}

/* `bit` counts bits read; past the end they are zeros. */
typedef struct {
    const u8 *from;
    size_t nbytes, bit;
} BitReader;

static u32 take_bits(BitReader *in, int count)
{
    u32 bits = 0;
    for (int i = 0; i < count; i++, in->bit++)
        if (in->bit >> 3 < in->nbytes)
            bits |= (u32)bit_of(in->from, in->bit) << i;
    return bits;
}

/* ---- The head ---- */

/* Lengths in bits, as steps from the one before, zigzag, in unary; then what is below the top bit.
 */
static void put_frequencies(BitWriter *out, const u16 *freq)
{
    int first = 0, last = SYMBOLS - 1, before = 0;
    while (!freq[first])
        first++;
    while (!freq[last])
        last--;
    put_bits(out, (u64)first | (u64)last << 8, 16);
    for (int i = first; i <= last; i++) {
        const int length = bit_length(freq[i]), step = length - before;
        const int zigzag = step < 0 ? -2 * step - 1 : 2 * step;
        put_bits(out, (u64)1 << zigzag, zigzag + 1);
        if (length > 1)
            put_bits(out, freq[i] ^ (u64)1 << (length - 1), length - 1);
        before = length;
    }
}

static int take_frequencies(BitReader *in, u16 *freq)
{
    const int first = (int)take_bits(in, 8), last = (int)take_bits(in, 8);
    int length = 0, sum = 0;
    for (int i = first; i <= last; i++) {
        int zigzag = 0;
        while (zigzag <= 2 * BITS + 2 && !take_bits(in, 1))
            zigzag++;
        length += zigzag & 1 ? -(zigzag + 1) / 2 : zigzag / 2;
        if (length < 0 || length > BITS + 1)
            return -1;
        if (length)
            freq[i] = (u16)(take_bits(in, length - 1) | 1u << (length - 1));
        sum += freq[i];
        if (sum > SLOTS)
            return -1;
    }
    return sum == SLOTS ? 0 : -1;
}

/* Returns its length. */
static size_t put_head(const Head *head, u32 exceptions, int with_map, u8 *out)
{
    BitWriter bits = {out + FIXED, 0, 0};
    out[0] = KIND;
    out[1] = (u8)head->ceiling;
    out[2] = (u8)head->values;
    out[3] = (u8)head->zero;
    out[4] = (u8)head->low;
    out[5] = (u8)(head->lanes | with_map << 7);
    memcpy(out + 6, &exceptions, 4);
    for (int c = 0; c < CLASSES; c++) {
        const Class *class = &head->classes[c];
        int used = 0;
        for (int i = 0; i < SYMBOLS; i++)
            used |= class->freq[i];
        put_bits(&bits, used != 0, 1);
        if (!used)
            continue;
        put_bits(&bits, (u64)class->raw, 3);
        if (c >= head->values)
            put_bits(&bits, class->origin, 16);
        put_frequencies(&bits, class->freq);
    }
    return (size_t)(bits.at - out) + (bits.count > 0);
}

/* Returns its length, or 0 if it is none. */
static size_t take_head(const u8 *from, size_t nbytes, Head *head, u32 *exceptions, int *with_map)
{
    const int most = 8 * head->form.width - 1;
    BitReader bits = {from, nbytes, 8 * FIXED};
    if (nbytes < FIXED || from[0] != KIND)
        return 0;
    head->ceiling = from[1];
    head->values = from[2];
    head->zero = from[3];
    head->low = from[4];
    head->lanes = from[5] & 127;
    *with_map = from[5] >> 7;
    memcpy(exceptions, from + 6, 4);
    if (head->values > CLASSES || head->low > MOST_LOW || head->zero + head->low > most ||
        (head->lanes != LANES && head->lanes != FEW_LANES))
        return 0;
    for (int c = 0; c < CLASSES; c++) {
        Class *class = &head->classes[c];
        memset(class, 0, sizeof *class);
        if (!take_bits(&bits, 1))
            continue;
        class->raw = (int)take_bits(&bits, 3);
        if (c >= head->values)
            class->origin = take_bits(&bits, 16);
        if (class->raw > MOST_RAW || class->raw + head->low + head->zero > most ||
            take_frequencies(&bits, class->freq))
            return 0;
    }
    return (bits.bit + 7) / 8 > nbytes ? 0 : (bits.bit + 7) / 8;
}

/* ---- Decoding ---- */

/* What of the states of its class leads to this slot, and what its symbol adds to an element. */
typedef struct {
    u16 freq, place;
    u32 value;
} Slot;

/* The same for AVX2, which looks up the rest by class: freq 12 | place 12 | symbol 8. */
INLINE u32 packed_slot(u32 freq, u32 place, u32 symbol)
{
    return freq | place << 12 | symbol << 24;
}

typedef struct {
    u32 states[LANES];
    /* By class, and zeros behind them: the slots of an element that is the base's. */
    u32 same_first[2 * CLASSES], same_freq[2 * CLASSES];
    union {
        Slot slots[CLASSES << BITS];
        u32 packed[CLASSES << BITS];
    } table;
} Decoder;

/* What is left of a payload. */
typedef struct {
    const u8 *low, *words, *words_end, *exceptions, *exceptions_end;
    int failed;
} Source;

static void fill_slots(const Head *head, Decoder *decoder, int simd)
{
    const int flip = 8 * head->form.width - 1 - head->low - head->zero;
    for (int c = 0; c < CLASSES; c++) {
        const Class *class = &head->classes[c];
        size_t at = (size_t)c << BITS;
        for (u32 i = 0; i < SYMBOLS; i++) {
            const u32 freq = class->freq[i];
            u32 value = (i - 128) << class->raw;
            if (c >= head->values)
                value = (((i & 127) + class->origin) << class->raw) + ((u32)(i < 128) << flip);
            for (u32 j = 0; j < freq; j++, at++)
                if (simd)
                    decoder->table.packed[at] = packed_slot(freq, j, i);
                else
                    decoder->table.slots[at] = (Slot){(u16)freq, (u16)j, value};
        }
        for (; at < (size_t)(c + 1) << BITS; at++) /* a class that no element should have */
            if (simd)
                decoder->table.packed[at] = packed_slot(0, 0, 128);
            else
                decoder->table.slots[at] = (Slot){0, 0, 0};
    }
}

/* A sample is SAMPLED neighbours, for the sake of the cache, of each STRETCH of elements. */
enum { SAMPLED = 16, STRETCH = 1024 };

/* Let lanes that are all the base's be told by their states alone, without a look into the table:
   a step of a training run changes one element in a hundred. Where lanes with a change are not much
   rarer than those without, telling them costs more than it saves, and no class has such slots; nor
   has one where bits follow a symbol. */
static void fill_same(const Head *head, const u8 *base, size_t count, int simd, Decoder *decoder)
{
    const int width = head->form.width, lanes = simd == BY_16 ? 16 : 8;
    u32 *first = decoder->same_first, *freq = decoder->same_freq;
    u64 sampled = 0, same = 0;
    memset(first, 0, sizeof decoder->same_first);
    memset(freq, 0, sizeof decoder->same_freq);
    if (!base || head->low)
        return;
    for (int c = 0; c < head->values; c++) {
        const Class *class = &head->classes[c];
        if (class->raw)
            continue;
        for (int i = 0; i < UNCHANGED; i++)
            first[c] += class->freq[i];
        freq[c] = class->freq[UNCHANGED];
    }
    for (size_t i = 0; i < count; i += 4 * STRETCH)
        for (size_t j = i; j < i + SAMPLED && j < count; j++, sampled++)
            same += freq[class_of(load(base + j * (size_t)width, width), &head->form,
                                  head->ceiling)];
    if ((u64)lanes * (sampled * SLOTS - same) * 5 > sampled * SLOTS * 2)
        memset(freq, 0, sizeof decoder->same_freq);
}

INLINE int take_exception(Source *source, const u8 *base, u8 *target, const int width)
{
    if (source->exceptions == source->exceptions_end)
        return -1;
    store(target, load(base, width) + load(source->exceptions, width), width);
    source->exceptions += width;
    return 0;
}

/* A group: as many elements as there are lanes. Of these passes a compiler can make vectors of the
   first and the last with what any processor has. */
INLINE int decode_group(const Head *head, Decoder *decoder, Source *source, const u8 *base,
                        u8 *target, const int lanes, const int width)
{
    const int shift = head->form.shift, low = head->low, zero = head->zero;
    const int16_t mask = (int16_t)head->form.mask, ceiling = (int16_t)head->ceiling;
    const int16_t values = (int16_t)head->values;
    const u32 top = top_bit(head);
    const u8 *words = source->words;
    int16_t class[LANES];
    u32 value[LANES], lows[LANES];
    u64 escaped = 0;
    u32 first[CLASSES];
    int raws[CLASSES];
    for (int c = 0; c < CLASSES; c++) {
        raws[c] = head->classes[c].raw;
        first[c] = head->classes[c].freq[0];
    }
    for (int j = 0; j < lanes; j++) {
        const u32 exponent = load(base + width * j, width) >> shift;
        int16_t below = (int16_t)(ceiling - (int16_t)((int16_t)exponent & mask));
        below = below < 0 ? 0 : below;
        class[j] = below > CLASSES - 1 ? CLASSES - 1 : below;
    }
    for (int j = 0; j < lanes; j++) {
        const int c = class[j];
        const u32 state = decoder->states[j], number = state & (SLOTS - 1);
        const Slot *slot = &decoder->table.slots[(u32)c << BITS | number];
        const u32 x = slot->freq * (state >> BITS) + slot->place, rest = x >> raws[c];
        const u32 need = 0 - (u32)(rest < LOWEST); /* no branch: many would be mispredicted */
        u16 word;
        memcpy(&word, words, 2);
        decoder->states[j] = rest << (need & 16) | (word & need);
        words += need & 2;
        value[j] = slot->value + x - (rest << raws[c]);
        if (UNLIKELY(number < first[c])) /* a slot of symbol 0 */
            escaped |= (u64)1 << j;
    }
    source->words = words;
    if (low) {
        const u64 lowest = ((u64)1 << low) - 1;
        for (int j = 0, bit = 0; j < lanes; j += 2, bit += 2 * low) {
            u64 bits;
            memcpy(&bits, source->low + (bit >> 3), 8);
            bits >>= bit & 7;
            lows[j] = (u32)(bits & lowest);
            lows[j + 1] = (u32)(bits >> low & lowest);
        }
        for (int j = 0; j < lanes; j++)
            value[j] = (value[j] << low) + lows[j];
        source->low += low * lanes / 8;
    }
    for (int j = 0; j < lanes; j++) {
        const u32 kept = load(base + width * j, width) & (class[j] < values ? ~(u32)0 : top);
        store(target + width * j, kept + (value[j] << zero), width);
    }
    for (int j = 0; UNLIKELY(escaped); escaped >>= 1, j++)
        if (escaped & 1 && take_exception(source, base + width * j, target + width * j, width))
            return -1;
    return 0;
}

#ifdef WITH_AVX2

/* By which of 8 lanes need a word: which of the next 8 words each takes; and the way back, the
   words of these lanes at the end of 16 bytes. */
static u8 spread[256][8], gathered[256][16];

static void fill_shuffles(void)
{
    for (int which = 0; which < 256; which++) {
        int taken = 0, at = 16;
        memset(gathered[which], 128, 16);
        for (int j = 0; j < 8; j++)
            spread[which][j] = (u8)(which >> j & 1 ? taken++ : 0);
        for (int j = 7; j >= 0; j--)
            if (which >> j & 1) {
                gathered[which][--at] = (u8)(2 * j + 1);
                gathered[which][--at] = (u8)(2 * j);
            }
    }
}

/* By class: its raw bits, and what is added to a symbol to make a number of it. */
INLINE void list_classes(const Head *head, i32 *raw, i32 *origin)
{
    for (int c = 0; c < CLASSES; c++) {
        raw[c] = head->classes[c].raw;
        origin[c] = c < head->values ? -128 : (i32)head->classes[c].origin;
    }
}

/* How lanes take their low bits, four lanes from 16 bytes: by lane the bits to shift by, and which
   of these bytes have them. Those of lane `j`, if it is the first of four, begin `j * low >> 3`
   bytes behind those of lane 0. */
INLINE void list_low_bits(int low, int lanes, i32 *shift, u8 *bytes)
{
    for (int j = 0; j < lanes; j++) {
        const int bit = (j & 3) * low + ((j & ~3) * low & 7);
        shift[j] = bit & 7;
        for (int k = 0; k < 4; k++)
            bytes[4 * j + k] = (u8)((bit >> 3) + k);
    }
}

/* What is looked up by class, and what every lane needs. */
typedef struct {
    __m256i raw, lift, origin, ceiling, mask, last, top, low_bytes, low_shift, low_mask;
    __m128i shift, zero, places;
    int low_half; /* bytes from the low bits of lane 0 to those of lane 4 */
} Vectors;

AVX2 INLINE Vectors vectors(const Head *head)
{
    Vectors all;
    i32 raw[8], origin[8], shift[8];
    u8 bytes[32];
    const int low = head->low;
    list_classes(head, raw, origin);
    list_low_bits(low, 8, shift, bytes);
    all.raw = _mm256_loadu_si256((const void *)raw);
    all.lift = _mm256_sub_epi32(_mm256_set1_epi32(MOST_RAW), all.raw);
    all.origin = _mm256_loadu_si256((const void *)origin);
    all.low_shift = _mm256_loadu_si256((const void *)shift);
    all.low_bytes = _mm256_loadu_si256((const void *)bytes);
    all.low_mask = _mm256_set1_epi32((1 << low) - 1);
    all.ceiling = _mm256_set1_epi32(head->ceiling);
    all.mask = _mm256_set1_epi32(head->form.mask);
    all.last = _mm256_set1_epi32(head->values - 1);
    all.top = _mm256_set1_epi32((i32)top_bit(head));
    all.shift = _mm_cvtsi32_si128(head->form.shift);
    all.zero = _mm_cvtsi32_si128(head->zero);
    all.places = _mm_cvtsi32_si128(low + head->zero);
    all.low_half = 4 * low >> 3;
    return all;
}

AVX2 INLINE __m256i load8(const u8 *at, const int width)
{
    if (width == 1)
        return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)at));
    if (width == 2)
        return _mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)at));
    return _mm256_loadu_si256((const void *)at);
}

AVX2 INLINE __m128i lower_halves(__m256i numbers)
{
    const __m256i each = _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, -1, -1, -1, -1, -1, -1, -1, -1,
                                          0, 1, 4, 5, 8, 9, 12, 13, -1, -1, -1, -1, -1, -1, -1, -1);
    numbers = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(numbers, each), 8);
    return _mm256_castsi256_si128(numbers);
}

AVX2 INLINE void store8(u8 *at, __m256i numbers, const int width)
{
    if (width == 4) {
        _mm256_storeu_si256((void *)at, numbers);
    } else if (width == 2) {
        _mm_storeu_si128((void *)at, lower_halves(numbers));
    } else {
        const __m128i bytes = _mm_and_si128(lower_halves(numbers), _mm_set1_epi16(255));
        _mm_storel_epi64((void *)at, _mm_packus_epi16(bytes, bytes));
    }
}

AVX2 INLINE __m256i classes8(__m256i elements, const Vectors *all)
{
    const __m256i exponent = _mm256_and_si256(_mm256_srl_epi32(elements, all->shift), all->mask);
    const __m256i below = _mm256_sub_epi32(all->ceiling, exponent);
    return _mm256_max_epi32(_mm256_setzero_si256(), _mm256_min_epi32(_mm256_set1_epi32(7), below));
}

/* What differences and values are told from: the base, or its sign. */
AVX2 INLINE __m256i kept8(__m256i base, __m256i is_value, const Vectors *all)
{
    return _mm256_andnot_si256(_mm256_andnot_si256(all->top, is_value), base);
}

/* All bits, or none but those below `raw`. */
AVX2 INLINE __m256i below8(__m256i numbers, __m256i raw)
{
    return _mm256_andnot_si256(_mm256_sllv_epi32(_mm256_set1_epi32(-1), raw), numbers);
}

AVX2 INLINE u32 lanes_of(__m256i which)
{
    return (u32)_mm256_movemask_ps(_mm256_castsi256_ps(which));
}

/* States, those that fell too low with one more word. */
AVX2 INLINE __m256i refilled8(__m256i states, const u8 **words)
{
    const __m256i need =
        _mm256_cmpeq_epi32(_mm256_srli_epi32(states, 16), _mm256_setzero_si256());
    const u32 needing = lanes_of(need);
    __m256i word = _mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)*words));
    word = _mm256_permutevar8x32_epi32(
        word, _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)spread[needing])));
    *words += 2 * _mm_popcnt_u32(needing);
    return _mm256_blendv_epi8(states, _mm256_or_si256(_mm256_slli_epi32(states, 16), word), need);
}

AVX2 INLINE int decode_group_avx2(const Head *head, Decoder *decoder, Source *source,
                                  const Vectors *all, const u8 *base, u8 *target, const int lanes,
                                  const int width)
{
    const __m256i twelve = _mm256_set1_epi32(4095), none = _mm256_setzero_si256();
    const __m256i same_first = _mm256_loadu_si256((const void *)decoder->same_first);
    const __m256i same_freq = _mm256_loadu_si256((const void *)decoder->same_freq);
    const u32 *table = decoder->table.packed;
    const u8 *words = source->words, *low = source->low;
    for (int i = 0; i < lanes; i += 8) {
        const __m256i known = load8(base + width * i, width), class = classes8(known, all);
        const __m256i raw = _mm256_permutevar8x32_epi32(all->raw, class);
        const __m256i is_value = _mm256_cmpgt_epi32(class, all->last);
        __m256i x = _mm256_loadu_si256((const void *)(decoder->states + i));
        __m256i slot, freq, place, symbol, bits, value, flip;
        u32 at[8], escaped;
        slot = _mm256_and_si256(x, _mm256_set1_epi32(SLOTS - 1));
        freq = _mm256_permutevar8x32_epi32(same_freq, class);
        place = _mm256_sub_epi32(slot, _mm256_permutevar8x32_epi32(same_first, class));
        if (lanes_of(_mm256_andnot_si256(_mm256_cmpgt_epi32(none, place),
                                         _mm256_cmpgt_epi32(freq, place))) == 0xFF) {
            x = _mm256_mullo_epi32(freq, _mm256_srli_epi32(x, BITS));
            x = _mm256_add_epi32(x, place);
            if (lanes_of(_mm256_cmpeq_epi32(_mm256_srli_epi32(x, 16), none))) /* rarely */
                x = refilled8(x, &words);
            _mm256_storeu_si256((void *)(decoder->states + i), x);
            memcpy(target + width * i, base + width * i, (size_t)width * 8);
            continue;
        }
        _mm256_storeu_si256((void *)at, _mm256_or_si256(_mm256_slli_epi32(class, BITS), slot));
        /* Faster than a gather, on AMD by far. */
        slot = _mm256_setr_epi32((i32)table[at[0]], (i32)table[at[1]], (i32)table[at[2]],
                                 (i32)table[at[3]], (i32)table[at[4]], (i32)table[at[5]],
                                 (i32)table[at[6]], (i32)table[at[7]]);
        symbol = _mm256_srli_epi32(slot, 24);
        x = _mm256_mullo_epi32(_mm256_and_si256(slot, twelve), _mm256_srli_epi32(x, BITS));
        x = _mm256_add_epi32(x, _mm256_and_si256(_mm256_srli_epi32(slot, 12), twelve));
        bits = below8(x, raw);
        x = _mm256_srlv_epi32(x, raw);
        _mm256_storeu_si256((void *)(decoder->states + i), refilled8(x, &words));
        flip = _mm256_and_si256(_mm256_and_si256(is_value, all->top),
                                _mm256_cmpgt_epi32(_mm256_set1_epi32(128), symbol));
        value = _mm256_and_si256(is_value, _mm256_set1_epi32(128));
        value = _mm256_add_epi32(_mm256_andnot_si256(value, symbol),
                                 _mm256_permutevar8x32_epi32(all->origin, class));
        value = _mm256_add_epi32(_mm256_sllv_epi32(value, raw), bits);
        value = _mm256_sll_epi32(value, all->places);
        if (head->low) {
            const __m128i half = _mm_loadu_si128((const void *)(low + all->low_half));
            __m256i lows = _mm256_castsi128_si256(_mm_loadu_si128((const void *)low));
            lows = _mm256_shuffle_epi8(_mm256_inserti128_si256(lows, half, 1), all->low_bytes);
            lows = _mm256_and_si256(_mm256_srlv_epi32(lows, all->low_shift), all->low_mask);
            value = _mm256_add_epi32(value, _mm256_sll_epi32(lows, all->zero));
            low += head->low;
        }
        value = _mm256_add_epi32(_mm256_add_epi32(value, flip), kept8(known, is_value, all));
        store8(target + width * i, value, width);
        escaped = lanes_of(_mm256_cmpeq_epi32(symbol, none));
        for (int j = i; UNLIKELY(escaped); escaped >>= 1, j++)
            if (escaped & 1 && take_exception(source, base + width * j, target + width * j, width))
                return -1;
    }
    source->words = words;
    source->low = low;
    return 0;
}

#endif

#ifdef WITH_AVX512

/* The same of 16 lanes. */
typedef struct {
    __m512i raw, origin, ceiling, mask, last, top, low_bytes, low_shift, low_mask;
    __m128i shift, zero, places;
    int low_quarters[4]; /* bytes to the low bits of lanes 0, 4, 8 and 12 */
} WideVectors;

AVX512 INLINE WideVectors wide_vectors(const Head *head)
{
    WideVectors all;
    i32 raw[16] = {0}, origin[16] = {0}, shift[16];
    u8 bytes[64];
    const int low = head->low;
    list_classes(head, raw, origin);
    list_low_bits(low, 16, shift, bytes);
    for (int j = 0; j < 16; j += 4)
        all.low_quarters[j / 4] = j * low >> 3;
    all.raw = _mm512_loadu_si512(raw);
    all.origin = _mm512_loadu_si512(origin);
    all.low_shift = _mm512_loadu_si512(shift);
    all.low_bytes = _mm512_loadu_si512(bytes);
    all.low_mask = _mm512_set1_epi32((1 << low) - 1);
    all.ceiling = _mm512_set1_epi32(head->ceiling);
    all.mask = _mm512_set1_epi32(head->form.mask);
    all.last = _mm512_set1_epi32(head->values - 1);
    all.top = _mm512_set1_epi32((i32)top_bit(head));
    all.shift = _mm_cvtsi32_si128(head->form.shift);
    all.zero = _mm_cvtsi32_si128(head->zero);
    all.places = _mm_cvtsi32_si128(low + head->zero);
    return all;
}

AVX512 INLINE __m512i load16(const u8 *at, const int width)
{
    if (width == 1)
        return _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)at));
    if (width == 2)
        return _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)at));
    return _mm512_loadu_si512(at);
}

AVX512 INLINE void store16(u8 *at, __m512i numbers, const int width)
{
    if (width == 1)
        _mm_storeu_si128((void *)at, _mm512_cvtepi32_epi8(numbers));
    else if (width == 2)
        _mm256_storeu_si256((void *)at, _mm512_cvtepi32_epi16(numbers));
    else
        _mm512_storeu_si512(at, numbers);
}

AVX512 INLINE __m512i lows16(const u8 *low, const WideVectors *all)
{
    const int *at = all->low_quarters;
    __m512i lows = _mm512_castsi128_si512(_mm_loadu_si128((const void *)low));
    lows = _mm512_inserti32x4(lows, _mm_loadu_si128((const void *)(low + at[1])), 1);
    lows = _mm512_inserti32x4(lows, _mm_loadu_si128((const void *)(low + at[2])), 2);
    lows = _mm512_inserti32x4(lows, _mm_loadu_si128((const void *)(low + at[3])), 3);
    lows = _mm512_srlv_epi32(_mm512_shuffle_epi8(lows, all->low_bytes), all->low_shift);
    return _mm512_sll_epi32(_mm512_and_si512(lows, all->low_mask), all->zero);
}

/* States, those that fell too low with one more word. */
AVX512 INLINE __m512i refilled16(__m512i states, const u8 **words)
{
    const __mmask16 need = _mm512_cmplt_epu32_mask(states, _mm512_set1_epi32(LOWEST));
    __m512i word = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)*words));
    word = _mm512_maskz_expand_epi32(need, word);
    *words += 2 * _mm_popcnt_u32(need);
    return _mm512_mask_or_epi32(states, need, _mm512_slli_epi32(states, 16), word);
}

AVX512 INLINE int decode_group_avx512(const Head *head, Decoder *decoder, Source *source,
                                      const WideVectors *all, const u8 *base, u8 *target,
                                      const int width)
{
    const __m512i twelve = _mm512_set1_epi32(4095), none = _mm512_setzero_si512();
    const __m512i same_first = _mm512_loadu_si512(decoder->same_first);
    const __m512i same_freq = _mm512_loadu_si512(decoder->same_freq);
    const u8 *words = source->words, *low = source->low;
    for (int i = 0; i < LANES; i += 16) {
        const __m512i known = load16(base + width * i, width);
        __m512i class, raw, x, slot, freq, place, symbol, bits, value;
        __mmask16 is_value;
        u32 escaped;
        class = _mm512_and_si512(_mm512_srl_epi32(known, all->shift), all->mask);
        class = _mm512_min_epi32(_mm512_set1_epi32(7), _mm512_sub_epi32(all->ceiling, class));
        class = _mm512_max_epi32(none, class);
        raw = _mm512_permutexvar_epi32(class, all->raw);
        is_value = _mm512_cmpgt_epi32_mask(class, all->last);
        x = _mm512_loadu_si512(decoder->states + i);
        slot = _mm512_and_si512(x, _mm512_set1_epi32(SLOTS - 1));
        freq = _mm512_permutexvar_epi32(class, same_freq);
        place = _mm512_sub_epi32(slot, _mm512_permutexvar_epi32(class, same_first));
        if (_mm512_cmplt_epu32_mask(place, freq) == 0xFFFF) {
            x = _mm512_mullo_epi32(freq, _mm512_srli_epi32(x, BITS));
            x = _mm512_add_epi32(x, place);
            if (_mm512_cmplt_epu32_mask(x, _mm512_set1_epi32(LOWEST))) /* rarely */
                x = refilled16(x, &words);
            _mm512_storeu_si512(decoder->states + i, x);
            memcpy(target + width * i, base + width * i, (size_t)width * 16);
            continue;
        }
        slot = _mm512_or_si512(_mm512_slli_epi32(class, BITS), slot);
        slot = _mm512_i32gather_epi32(slot, decoder->table.packed, 4);
        symbol = _mm512_srli_epi32(slot, 24);
        x = _mm512_mullo_epi32(_mm512_and_si512(slot, twelve), _mm512_srli_epi32(x, BITS));
        x = _mm512_add_epi32(x, _mm512_and_si512(_mm512_srli_epi32(slot, 12), twelve));
        bits = _mm512_andnot_si512(_mm512_sllv_epi32(_mm512_set1_epi32(-1), raw), x);
        x = _mm512_srlv_epi32(x, raw);
        _mm512_storeu_si512(decoder->states + i, refilled16(x, &words));
        value = _mm512_mask_and_epi32(symbol, is_value, symbol, _mm512_set1_epi32(127));
        value = _mm512_add_epi32(value, _mm512_permutexvar_epi32(class, all->origin));
        value = _mm512_add_epi32(_mm512_sllv_epi32(value, raw), bits);
        value = _mm512_sll_epi32(value, all->places);
        if (head->low) {
            value = _mm512_add_epi32(value, lows16(low, all));
            low += 2 * head->low;
        }
        value = _mm512_add_epi32(value, _mm512_mask_and_epi32(known, is_value, known, all->top));
        value = _mm512_mask_add_epi32(
            value, _mm512_mask_cmplt_epu32_mask(is_value, symbol, _mm512_set1_epi32(128)), value,
            all->top);
        store16(target + width * i, value, width);
        escaped = _mm512_cmpeq_epi32_mask(symbol, none);
        for (int j = i; UNLIKELY(escaped); escaped >>= 1, j++)
            if (escaped & 1 && take_exception(source, base + width * j, target + width * j, width))
                return -1;
    }
    source->words = words;
    source->low = low;
    return 0;
}

#endif

/* Decode groups one after the other, while there are words enough for whatever one may need.
   `step` is 0 for a base that is ZEROS, and 1 else. Returns how many were decoded. */
typedef size_t Run(const Head *, Decoder *, Source *, const u8 *base, size_t step, u8 *target,
                   size_t groups);

INLINE ptrdiff_t most_words(const Head *head) { return 2 * head->lanes + AHEAD; }

#define RUN(attributes, name, prepare, decode_group, width)                                        \
    attributes static size_t name(const Head *head, Decoder *decoder, Source *source,              \
                                  const u8 *base, size_t step, u8 *target, size_t groups)          \
    {                                                                                              \
        size_t done = 0;                                                                           \
        const size_t nbytes = (size_t)(width) * (size_t)head->lanes;                               \
        prepare;                                                                                   \
        while (done < groups && source->words_end - source->words >= most_words(head)) {           \
            source->failed = head->lanes == LANES ? decode_group(LANES, width)                     \
                                                  : decode_group(FEW_LANES, width);                \
            if (source->failed)                                                                    \
                break;                                                                             \
            base += nbytes * step;                                                                 \
            target += nbytes;                                                                      \
            done++;                                                                                \
        }                                                                                          \
        return done;                                                                               \
    }
#define ANY(lanes, width) decode_group(head, decoder, source, base, target, lanes, width)
RUN(, run1, , ANY, 1)
RUN(, run2, , ANY, 2)
RUN(, run4, , ANY, 4)
#ifdef WITH_AVX2
#define EIGHT(lanes, width)                                                                        \
    decode_group_avx2(head, decoder, source, &all, base, target, lanes, width)
RUN(AVX2, run1_avx2, const Vectors all = vectors(head), EIGHT, 1)
RUN(AVX2, run2_avx2, const Vectors all = vectors(head), EIGHT, 2)
RUN(AVX2, run4_avx2, const Vectors all = vectors(head), EIGHT, 4)
#endif
#ifdef WITH_AVX512
#define SIXTEEN(lanes, width)                                                                      \
    ((lanes) == LANES                                                                              \
         ? decode_group_avx512(head, decoder, source, &wide, base, target, width)                  \
         : decode_group_avx2(head, decoder, source, &all, base, target, FEW_LANES, width))
#define BOTH                                                                                       \
    const Vectors all = vectors(head);                                                             \
    const WideVectors wide = wide_vectors(head)
RUN(AVX512, run1_avx512, BOTH, SIXTEEN, 1)
RUN(AVX512, run2_avx512, BOTH, SIXTEEN, 2)
RUN(AVX512, run4_avx512, BOTH, SIXTEEN, 4)
#endif

static Run *run_for(int width, int simd)
{
#ifdef WITH_AVX512
    if (simd == BY_16)
        return width == 1 ? run1_avx512 : width == 2 ? run2_avx512 : run4_avx512;
#endif
#ifdef WITH_AVX2
    if (simd)
        return width == 1 ? run1_avx2 : width == 2 ? run2_avx2 : run4_avx2;
#endif
    (void)simd;
    return width == 1 ? run1 : width == 2 ? run2 : run4;
}

static const u8 ZEROS[4 * LANES];

/* How elements fall into groups: the last one is filled up with zeros, in base and target. */
typedef struct {
    size_t lanes, nbytes; /* elements and bytes of a group */
    size_t count, whole;  /* groups, and those that need no filling */
    size_t left;          /* bytes of the last one, if it does */
} Groups;

static Groups groups_of(size_t count, int lanes, int width)
{
    const size_t each = (size_t)lanes;
    Groups groups = {each, each * (size_t)width, (count + each - 1) / each, count / each, 0};
    groups.left = count * (size_t)width - groups.whole * groups.nbytes;
    return groups;
}

/* The end of a run of groups that are all in the map, or all not. */
static size_t end_of_run(const u8 *map, size_t start, size_t count)
{
    const int skipped = map && bit_of(map, start);
    size_t end = start + 1;
    while (map && end < count && bit_of(map, end) == skipped)
        end++;
    return map ? end : count;
}

/* Fill `target` with `count` elements; `base` has as many, or is NULL for zeros. Returns what is
   wrong with the payload, or NULL. */
static const char *decode(const u8 *payload, size_t nbytes, const u8 *base, u8 *target,
                          size_t count, Form form, int simd, Decoder *decoder)
{
    Head head = {0};
    Source source = {0};
    Groups groups;
    Run *run = run_for(form.width, simd);
    const size_t step = base != NULL;
    const u8 *map = NULL, *end = payload + nbytes;
    u8 rest[4 * (LANES + AHEAD) + 2 * LANES], last_base[4 * LANES] = {0}, last_target[4 * LANES];
    u32 exceptions;
    int with_map, in_rest = 0;
    size_t coded, at;
    head.form = form;
    at = take_head(payload, nbytes, &head, &exceptions, &with_map);
    if (!at)
        return "a span's head is damaged";
    groups = groups_of(count, head.lanes, form.width);
    coded = groups.count;
    if (with_map) {
        map = payload + at;
        at += (groups.count + 7) / 8;
        if (at > nbytes)
            return "a span is cut short";
        for (size_t i = 0; i < groups.count; i++)
            coded -= (size_t)bit_of(map, i);
    }
    source.low = payload + at;
    at += coded * groups.lanes / 8 * (size_t)head.low + groups.lanes * STATE;
    if (at > nbytes || (nbytes - at) / (size_t)form.width < exceptions)
        return "a span is cut short";
    memcpy(decoder->states, payload + at - groups.lanes * STATE, groups.lanes * STATE);
    source.exceptions = payload + at;
    source.exceptions_end = source.exceptions + (size_t)form.width * exceptions;
    source.words = source.exceptions_end;
    source.words_end = end;
    fill_slots(&head, decoder, simd);
    if (simd)
        fill_same(&head, base, count, simd, decoder);
    if (base)
        memcpy(last_base, base + groups.whole * groups.nbytes, groups.left);
    for (size_t i = 0, run_end; i < groups.count; i = run_end) {
        run_end = end_of_run(map, i, groups.count);
        if (map && bit_of(map, i)) {
            const size_t stop = run_end > groups.whole ? groups.whole * groups.nbytes + groups.left
                                                       : run_end * groups.nbytes;
            if (base)
                memcpy(target + i * groups.nbytes, base + i * groups.nbytes,
                       stop - i * groups.nbytes);
            else
                memset(target + i * groups.nbytes, 0, stop - i * groups.nbytes);
            continue;
        }
        while (i < run_end) {
            const size_t place = i * groups.nbytes;
            size_t some = (run_end < groups.whole ? run_end : groups.whole) - i;
            if (!in_rest && source.words_end - source.words < most_words(&head)) {
                /* The last words go where there is room to read past their end. */
                const size_t left = (size_t)(source.words_end - source.words);
                memset(rest, 0, sizeof rest);
                memcpy(rest, source.words, left);
                source.words = rest;
                source.words_end = rest + sizeof rest;
                end = rest + left;
                in_rest = 1;
            }
            if (i == groups.whole) {
                i += run(&head, decoder, &source, last_base, 1, last_target, 1);
                memcpy(target + place, last_target, groups.left);
            } else {
                i += run(&head, decoder, &source, base ? base + place : ZEROS, step,
                         target + place, in_rest ? 1 : some);
            }
            if (source.failed)
                return "a span has too few exceptions";
            if (source.words > end)
                return "a span is cut short";
        }
    }
    for (size_t j = 0; j < groups.lanes; j++)
        if (decoder->states[j] != LOWEST)
            return "a span's words are damaged";
    if (source.words != end || source.exceptions != source.exceptions_end)
        return "a span is longer than its content";
    return NULL;
}

/* ---- Encoding: what to code, and how ---- */

/* What all elements of a span have in common. */
typedef struct {
    size_t changes; /* elements that are not the base's */
    size_t same;    /* groups that are */
    u32 bits;       /* all that are set somewhere, in base or target */
} Survey;

/* Look at groups, from the given number on; those that are the base's are noted in `map`. */
INLINE void survey_groups(Survey *survey, const u8 *base, size_t step, const u8 *target,
                          size_t number, size_t groups, u8 *map, const int lanes, const int width)
{
    for (size_t end = number + groups; number < end; number++) {
        u32 bits = 0, changes = 0;
        for (int j = 0; j < lanes; j++) {
            const u32 b = load(base + width * j, width), t = load(target + width * j, width);
            bits |= b | t;
            changes += b != t;
        }
        survey->bits |= bits;
        survey->changes += changes;
        survey->same += !changes;
        map[number >> 3] |= (u8)(!changes << (number & 7));
        base += (size_t)(width * lanes) * step;
        target += width * lanes;
    }
}

static void survey(Survey *found, const u8 *base, size_t step, const u8 *target, size_t number,
                   size_t groups, u8 *map, const Head *head)
{
#define SURVEY(lanes, width) \
    survey_groups(found, base, step, target, number, groups, map, lanes, width)
    if (head->lanes == FEW_LANES)
        SURVEY(FEW_LANES, head->form.width);
    else if (head->form.width == 1)
        SURVEY(LANES, 1);
    else if (head->form.width == 2)
        SURVEY(LANES, 2);
    else
        SURVEY(LANES, 4);
}

typedef struct {
    u32 count;
    u32 lengths[33];    /* of differences, in bits */
    u32 exponents[256]; /* of the target */
} Sample;

/* The length that about one difference in ten is longer than. */
static int usual_length(const Sample *sample)
{
    u32 longer = 0;
    int length = 32;
    while (length > 0 && (longer + sample->lengths[length]) * 10 <= sample->count)
        longer += sample->lengths[length--];
    return length;
}

/* The exponents, `length` of them up to `*highest`, that most elements of the target have. Returns
   how many do not. */
static u32 best_window(const Sample *sample, int mask, int length, int *highest)
{
    u32 within = 0, most = 0;
    *highest = 0;
    for (int e = 0; e <= mask; e++) {
        within += sample->exponents[e] - (e < length ? 0 : sample->exponents[e - length]);
        if (within > most) {
            most = within;
            *highest = e;
        }
    }
    return sample->count - most;
}

/* Of a class of values: the bits that a symbol leaves out, where its symbols end, and how many of
   the sample these do not reach. */
static int value_places(const Sample *sample, int shift, int mask, u32 *end, u32 *strays)
{
    int highest, places = shift - 2; /* four symbols to a power of two, if 127 reach far enough */
    *strays = best_window(sample, mask, 31, &highest);
    if (*strays * 256 > sample->count) {
        places = shift;
        *strays = best_window(sample, mask, 127, &highest);
    }
    *end = (u32)(highest + 1) << shift;
    return places;
}

/* The same of a class of differences. */
static int difference_places(const Sample *sample, u32 *strays)
{
    const int length = usual_length(sample), places = length > 3 ? length - 3 : 0;
    *strays = 0;
    for (int longer = places + 8; longer < 33; longer++)
        *strays += sample->lengths[longer];
    return places;
}

/* Of what is not in the map. Returns how many elements that were. */
static u32 take_samples(const Head *head, const u8 *base, size_t step, const u8 *target,
                        size_t count, size_t stretch, const u8 *map, Sample *samples)
{
    const int width = head->form.width;
    u32 all = 0;
    memset(samples, 0, CLASSES * sizeof *samples);
    for (size_t i = 0; i < count; i += stretch)
        for (size_t j = i; j < i + SAMPLED && j < count; j++) {
            if (map && bit_of(map, j / (size_t)head->lanes))
                continue;
            const u32 b = load(base + j * step * (size_t)width, width);
            const u32 t = load(target + j * (size_t)width, width);
            const i32 d = with_sign(t - b, width);
            Sample *sample = &samples[class_of(b, &head->form, head->ceiling)];
            all++;
            sample->count++;
            sample->lengths[bit_length(d < 0 ? 0 - (u32)d : (u32)d)]++;
            sample->exponents[t >> head->form.shift & (u32)head->form.mask]++;
        }
    return all;
}

/* The exponent that about one element in a hundred is above. */
static int ceiling_of(const Form *form, const u8 *base, size_t count, size_t stretch)
{
    u32 found[256] = {0}, all = 0, above = 0;
    int ceiling = form->mask;
    for (size_t i = 0; i < count; i += stretch)
        for (size_t j = i; j < i + SAMPLED && j < count; j++, all++)
            found[load(base + j * (size_t)form->width, form->width) >> form->shift &
                  (u32)form->mask]++;
    while (ceiling > 0 && (above + found[ceiling]) * 100 <= all)
        above += found[ceiling--];
    return ceiling;
}

/* Set all that the head says but frequencies, so that sizes come within a percent of the best.
   Returns whether it is worth while: not if every fourth element is an exception. */
static int choose(Head *head, const u8 *base, size_t step, const u8 *target, size_t count,
                  const u8 *map, u32 bits, Sample *samples)
{
    const int width = head->form.width, shift = head->form.shift, mask = head->form.mask;
    int places[CLASSES], least = 8 * width, most = 0;
    size_t stretch = count > 16 * STRETCH ? STRETCH : SAMPLED;
    u32 ends[CLASSES], all, strays = 0;
    while (head->zero < shift && !(bits >> head->zero & 1))
        head->zero++;
    head->ceiling = step ? ceiling_of(&head->form, base, count, stretch) : 0;
    all = take_samples(head, base, step, target, count, stretch, map, samples);
    if (!all) /* the few elements that changed lie between */
        all = take_samples(head, base, step, target, count, SAMPLED, map, samples);
    /* Where differences are as long as fractions, the base tells less than nothing. Bytes have no
       symbols to spare. */
    head->values = step ? CLASSES : 0;
    while (head->values > 0 && width > 1 &&
           (!samples[head->values - 1].count || usual_length(&samples[head->values - 1]) > shift))
        head->values--;
    for (int c = 0; c < CLASSES; c++) {
        u32 own = 0;
        if (width == 1)
            places[c] = 0, ends[c] = 128;
        else if (c < head->values)
            places[c] = difference_places(&samples[c], &own);
        else
            places[c] = value_places(&samples[c], shift, mask, &ends[c], &own);
        strays += own;
        if (places[c] < head->zero)
            places[c] = head->zero;
        if (samples[c].count && samples[c].count * 64 >= all) {
            least = places[c] < least ? places[c] : least;
            most = places[c] > most ? places[c] : most;
        }
    }
    least = least > most - MOST_RAW - 2 ? least : most - MOST_RAW - 2;
    head->low = least - head->zero < MOST_LOW ? least - head->zero : MOST_LOW;
    for (int c = 0; c < CLASSES; c++) {
        Class *class = &head->classes[c];
        const int raw = places[c] - head->low - head->zero;
        class->raw = raw < 0 ? 0 : raw < MOST_RAW ? raw : MOST_RAW;
        if (c >= head->values) {
            /* Of a class too rare to be cared for, symbols may be too fine to reach its values. */
            const u32 end = ends[c] >> (class->raw + head->low + head->zero);
            class->origin = end < 127 ? 0 : end - 127 < 0xFFFF ? end - 127 : 0xFFFF;
        }
    }
    return strays * 4 <= all;
}

/* About how many bits are spent beside symbols where fewer would do: on values that are zero, on
   differences far shorter than most. Where there is much of this, another kind of span may do
   better. */
static size_t wasted_bits(const Head *head, const Sample *samples, size_t count)
{
    u64 wasted = 0, all = 0;
    for (int c = 0; c < CLASSES; c++) {
        const int each = head->classes[c].raw + head->low;
        all += samples[c].count;
        if (c >= head->values)
            wasted += (u64)samples[c].exponents[0] * (u64)each;
        for (int length = 0; c < head->values && length < each - 1; length++)
            wasted += (u64)samples[c].lengths[length] * (u64)(each - 1 - length);
    }
    return (size_t)(wasted * count / (all ? all : 1));
}

/* ---- Encoding: symbols ---- */

/* An element's class 3 | symbol 8 | its raw bits, above zeros, 5. */
typedef struct {
    u16 *symbols;
    u8 *exceptions;
    BitWriter low;
} Symbols;

/* How to take apart an element, by what its base has above the fraction, and by the top bit of what
   is told from it: of a value, whether its sign is not the base's. */
typedef struct {
    u32 told;        /* bits that count: of a value all but the sign */
    u32 add;         /* makes of a number a symbol and raw bits */
    u32 first, room; /* where these may be */
    u32 class, lift;
} Taken;

static void fill_taken(const Head *head, u32 *kept, Taken *taken)
{
    const u32 top = top_bit(head);
    for (u32 i = 0; i < (u32)1 << (8 * head->form.width - head->form.shift); i++) {
        const int c = class_of(i << head->form.shift, &head->form, head->ceiling);
        const Class *class = &head->classes[c];
        const u32 one = (u32)1 << class->raw, is_value = c >= head->values;
        kept[i] = is_value ? top : ~(u32)0;
        for (u32 flip = 0; flip < 2; flip++) {
            Taken *each = &taken[2 * i + flip];
            each->class = (u32)c << 13;
            each->lift = (u32)(MOST_RAW - class->raw);
            each->told = is_value ? ~top : ~(u32)0;
            each->add = 128 * one;
            each->first = one; /* symbol 0 is for what has no other */
            each->room = 255 * one;
            if (is_value) {
                each->add = (flip ? 0 : 128 * one) - class->origin * one;
                each->first = flip ? one : 128 * one;
                each->room = flip ? 127 * one : 128 * one;
            }
        }
    }
}

INLINE void take_symbols_with(const Head *head, Symbols *out, const u8 *base, size_t step,
                              const u8 *target, size_t count, const int width, const int with_low)
{
    const int shift = head->form.shift, zero = head->zero, low = head->low, places = low + zero;
    const u32 lowest = ((u32)1 << low) - 1, element = ~(u32)0 >> (32 - 8 * width);
    u32 kept[512];
    Taken taken[1024];
    u16 *symbols = out->symbols;
    u8 *exceptions = out->exceptions;
    BitWriter lows = out->low;
    fill_taken(head, kept, taken);
    for (size_t i = 0; i < count; i += FEW_LANES, symbols += FEW_LANES) {
        u32 tolds[FEW_LANES];
        for (int j = 0; j < FEW_LANES; j++) {
            const u32 b = load(base + (i + (size_t)j) * (size_t)width * step, width);
            const u32 t = load(target + (i + (size_t)j) * (size_t)width, width);
            const u32 told = (t - (b & kept[b >> shift])) & element;
            const Taken *by = &taken[2 * (b >> shift) + (told >> (8 * width - 1))];
            u32 number = (u32)(with_sign(told & by->told, width) >> places) + by->add;
            if (with_low)
                tolds[j] = told >> zero & lowest;
            symbols[j] = (u16)(by->class | number << by->lift);
            if (UNLIKELY(number - by->first >= by->room)) {
                symbols[j] = (u16)(by->class | (number << by->lift & ((1 << MOST_RAW) - 1)));
                store(exceptions, t - b, width);
                exceptions += width;
            }
        }
        for (int j = 0; with_low && j < FEW_LANES; j += 4) {
            const u64 two = tolds[j] | (u64)tolds[j + 1] << low;
            const u64 next = tolds[j + 2] | (u64)tolds[j + 3] << low;
            if (low <= 14) {
                put_bits(&lows, two | next << 2 * low, 4 * low);
            } else {
                put_bits(&lows, two, 2 * low);
                put_bits(&lows, next, 2 * low);
            }
        }
    }
    out->low = lows;
    out->symbols = symbols;
    out->exceptions = exceptions;
}

INLINE void take_symbols(const Head *head, Symbols *out, const u8 *base, size_t step,
                         const u8 *target, size_t count, const int width)
{
    if (head->low)
        take_symbols_with(head, out, base, step, target, count, width, 1);
    else
        take_symbols_with(head, out, base, step, target, count, width, 0);
}

#ifdef WITH_AVX2
AVX2 INLINE void take_symbols_avx2(const Head *head, Symbols *out, const u8 *base, size_t step,
                                   const u8 *target, size_t count, const int width)
{
    const Vectors all = vectors(head);
    const __m128i sign = _mm_cvtsi32_si128(32 - 8 * width);
    const __m128i apart = _mm_cvtsi32_si128(32 - head->low);
    const __m256i none = _mm256_setzero_si256();
    u16 *symbols = out->symbols;
    u8 *exceptions = out->exceptions;
    for (size_t i = 0; i < count; i += 8, symbols += 8) {
        const u8 *b = base + i * (size_t)width * step, *t = target + i * (size_t)width;
        const __m256i known = load8(b, width), class = classes8(known, &all);
        const __m256i raw = _mm256_permutevar8x32_epi32(all.raw, class);
        const __m256i lift = _mm256_permutevar8x32_epi32(all.lift, class);
        const __m256i is_value = _mm256_cmpgt_epi32(class, all.last);
        const __m256i told = _mm256_sub_epi32(load8(t, width), kept8(known, is_value, &all));
        const __m256i flip = _mm256_and_si256(_mm256_and_si256(told, all.top), is_value);
        const __m256i unflipped =
            _mm256_and_si256(_mm256_and_si256(is_value, _mm256_set1_epi32(128)),
                             _mm256_cmpeq_epi32(flip, none));
        const __m256i most =
            _mm256_sub_epi32(_mm256_set1_epi32(255),
                             _mm256_and_si256(is_value, _mm256_set1_epi32(128)));
        __m256i number, symbol, inside;
        u32 escaped;
        number = _mm256_sll_epi32(_mm256_xor_si256(told, flip), sign);
        number = _mm256_sra_epi32(_mm256_sra_epi32(number, sign), all.places);
        symbol = _mm256_sub_epi32(_mm256_srav_epi32(number, raw),
                                  _mm256_permutevar8x32_epi32(all.origin, class));
        inside = _mm256_cmpeq_epi32(_mm256_andnot_si256(most, symbol), none);
        symbol = _mm256_and_si256(_mm256_add_epi32(symbol, unflipped), inside);
        escaped = lanes_of(_mm256_cmpeq_epi32(symbol, none));
        number = _mm256_and_si256(_mm256_sllv_epi32(number, lift),
                                  _mm256_set1_epi32((1 << MOST_RAW) - 1));
        symbol = _mm256_or_si256(_mm256_slli_epi32(class, 13), _mm256_slli_epi32(symbol, MOST_RAW));
        _mm_storeu_si128((void *)symbols, lower_halves(_mm256_or_si256(symbol, number)));
        for (int j = 0; UNLIKELY(escaped); escaped >>= 1, j++)
            if (escaped & 1) {
                const u32 from = load(b + (size_t)(j * width) * step, width);
                store(exceptions, load(t + j * width, width) - from, width);
                exceptions += width;
            }
        if (head->low) { /* those of two neighbours together */
            __m256i lows = _mm256_and_si256(_mm256_srl_epi32(told, all.zero), all.low_mask);
            const __m256i odd = _mm256_srl_epi64(_mm256_blend_epi32(none, lows, 0xAA), apart);
            lows = _mm256_or_si256(_mm256_blend_epi32(lows, none, 0xAA), odd);
            put_bits(&out->low, (u64)_mm256_extract_epi64(lows, 0), 2 * head->low);
            put_bits(&out->low, (u64)_mm256_extract_epi64(lows, 1), 2 * head->low);
            put_bits(&out->low, (u64)_mm256_extract_epi64(lows, 2), 2 * head->low);
            put_bits(&out->low, (u64)_mm256_extract_epi64(lows, 3), 2 * head->low);
        }
    }
    out->symbols = symbols;
    out->exceptions = exceptions;
}
#endif

typedef void Take(const Head *, Symbols *, const u8 *base, size_t step, const u8 *target,
                  size_t count);

#define TAKE(attributes, name, take, width)                                                        \
    attributes static void name(const Head *head, Symbols *out, const u8 *base, size_t step,       \
                                const u8 *target, size_t count)                                    \
    {                                                                                              \
        take(head, out, base, step, target, count, width);                                         \
    }
TAKE(, take1, take_symbols, 1)
TAKE(, take2, take_symbols, 2)
TAKE(, take4, take_symbols, 4)
#ifdef WITH_AVX2
TAKE(AVX2, take1_avx2, take_symbols_avx2, 1)
TAKE(AVX2, take2_avx2, take_symbols_avx2, 2)
TAKE(AVX2, take4_avx2, take_symbols_avx2, 4)
#endif

static Take *take_for(int width, int simd)
{
#ifdef WITH_AVX2
    if (simd)
        return width == 1 ? take1_avx2 : width == 2 ? take2_avx2 : take4_avx2;
#endif
    (void)simd;
    return width == 1 ? take1 : width == 2 ? take2 : take4;
}

/* ---- Encoding: frequencies and words ---- */

/* Frequencies that add up to SLOTS, at least 1 for each symbol that there is. */
static void normalize(const u32 *counts, u16 *freq)
{
    u64 total = 0, rest[SYMBOLS];
    int sum = 0;
    for (int i = 0; i < SYMBOLS; i++)
        total += counts[i];
    if (!total)
        return;
    for (int i = 0; i < SYMBOLS; i++) {
        const u64 share = (u64)counts[i] << BITS;
        freq[i] = (u16)(share / total);
        rest[i] = freq[i] ? share % total : 0;
        if (counts[i] && !freq[i])
            freq[i] = 1;
        sum += freq[i];
    }
    for (; sum < SLOTS; sum++) { /* to the largest remainders */
        int best = 0;
        for (int i = 1; i < SYMBOLS; i++)
            if (rest[i] > rest[best])
                best = i;
        freq[best]++;
        rest[best] = 0;
    }
    while (sum > SLOTS) { /* from the most frequent, which miss it least */
        int best = 0, cut;
        for (int i = 1; i < SYMBOLS; i++)
            if (freq[i] > freq[best])
                best = i;
        cut = freq[best] / 8 < sum - SLOTS ? freq[best] / 8 : sum - SLOTS;
        cut = cut > 1 ? cut : 1;
        freq[best] = (u16)(freq[best] - cut);
        sum -= cut;
    }
}

/* How to code a symbol. */
typedef struct {
    u64 inverse; /* 2^64 / freq, rounded up */
    u32 most;    /* the largest state that no word need leave first */
    u32 start;
    u16 others; /* SLOTS - freq */
    u16 lift;
} Push;

typedef struct {
    Push pushes[CLASSES * SYMBOLS];
    u64 packed[CLASSES * SYMBOLS]; /* for AVX2: freq 12 | start 20 | 2^32 / freq, rounded down */
} Encoder;

static void fill_encoder(const Head *head, Encoder *encoder)
{
    for (int c = 0; c < CLASSES; c++) {
        const Class *class = &head->classes[c];
        u32 start = 0;
        for (int i = 0; i < SYMBOLS; i++) {
            const u32 freq = class->freq[i];
            Push *push = &encoder->pushes[c << 8 | i];
            if (!freq)
                continue;
            push->most = (u32)(((u64)freq << (32 - BITS - class->raw)) - 1);
            push->others = (u16)(SLOTS - freq);
            push->lift = (u16)(MOST_RAW - class->raw);
            /* 1 has no inverse of 64 bits: its quotients come out one too small. */
            push->inverse = freq > 1 ? ~(u64)0 / freq + 1 : ~(u64)0;
            push->start = freq > 1 ? start : start + SLOTS - 1;
            encoder->packed[c << 8 | i] =
                freq | start << 12 | (freq > 1 ? ((u64)1 << 32) / freq : ~(u32)0) << 32;
            start += freq;
        }
    }
}

INLINE u32 upper_product(u64 a, u32 b) /* what is above 64 bits */
{
#if defined(__SIZEOF_INT128__)
    return (u32)((unsigned __int128)a * b >> 64);
#else
    return (u32)(((a >> 32) * b + ((a & 0xFFFFFFFF) * b >> 32)) >> 32);
#endif
}

/* Code a group of symbols, the last one first, its words in front of `words`. Returns where these
   begin. */
INLINE u8 *push_group(const Push *pushes, u32 *states, const u16 *symbols, const int lanes,
                      u8 *words)
{
    for (int j = lanes - 1; j >= 0; j--) {
        const u32 symbol = symbols[j], state = states[j];
        const Push *push = &pushes[symbol >> MOST_RAW];
        const u32 leaves = 0 - (u32)(state > push->most);
        const u64 raised = (u64)(state >> (leaves & 16)) << MOST_RAW;
        const u32 x = (u32)((raised | (symbol & ((1 << MOST_RAW) - 1))) >> push->lift);
        const u16 word = (u16)state;
        memcpy(words - 2, &word, 2);
        words -= leaves & 2;
        states[j] = x + push->start + upper_product(push->inverse, x) * push->others;
    }
    return words;
}

/* Code groups, the last one first. */
static u8 *push_groups(const Head *head, const Encoder *encoder, u32 *states, const u16 *symbols,
                       size_t groups, u8 *words)
{
    const Push *pushes = encoder->pushes;
    while (groups--)
        if (head->lanes == LANES)
            words = push_group(pushes, states, symbols + groups * LANES, LANES, words);
        else
            words = push_group(pushes, states, symbols + groups * FEW_LANES, FEW_LANES, words);
    return words;
}

#ifdef WITH_AVX2
AVX2 INLINE __m128i load_pushes(const Encoder *encoder, u32 one, u32 other)
{
    return _mm_unpacklo_epi64(
        _mm_loadl_epi64((const void *)&encoder->packed[one >> MOST_RAW]),
        _mm_loadl_epi64((const void *)&encoder->packed[other >> MOST_RAW]));
}

AVX2 static u8 *push_groups_avx2(const Head *head, const Encoder *encoder, u32 *states,
                                 const u16 *symbols, size_t groups, u8 *words)
{
    const Vectors all = vectors(head);
    const __m256i one = _mm256_set1_epi32(1), room = _mm256_set1_epi32(32 - BITS);
    const __m256i raw_mask = _mm256_set1_epi32((1 << MOST_RAW) - 1);
    while (groups--)
        for (int i = head->lanes - 8; i >= 0; i -= 8) {
            const u16 *from = symbols + groups * (size_t)head->lanes + i;
            const __m256i symbol = load8((const u8 *)from, 2);
            const __m256i class = _mm256_srli_epi32(symbol, 13);
            const __m256i raw = _mm256_permutevar8x32_epi32(all.raw, class);
            const __m256i lift = _mm256_permutevar8x32_epi32(all.lift, class);
            __m256i x = _mm256_loadu_si256((const void *)(states + i));
            __m256i pairs, range, inverse, freq, stays, even, odd, quotient, rest, less;
            __m256 lower, upper;
            __m128i word;
            u32 leaving;
            /* Faster than gathers, on AMD by far. */
            pairs = _mm256_castsi128_si256(load_pushes(encoder, from[0], from[1]));
            pairs = _mm256_inserti128_si256(pairs, load_pushes(encoder, from[4], from[5]), 1);
            lower = _mm256_castsi256_ps(pairs);
            pairs = _mm256_castsi128_si256(load_pushes(encoder, from[2], from[3]));
            pairs = _mm256_inserti128_si256(pairs, load_pushes(encoder, from[6], from[7]), 1);
            upper = _mm256_castsi256_ps(pairs);
            range = _mm256_castps_si256(_mm256_shuffle_ps(lower, upper, 0x88));
            inverse = _mm256_castps_si256(_mm256_shuffle_ps(lower, upper, 0xDD));
            freq = _mm256_and_si256(range, _mm256_set1_epi32(4095));
            stays = _mm256_srlv_epi32(x, _mm256_sub_epi32(room, raw));
            stays = _mm256_cmpgt_epi32(freq, stays);
            leaving = 255 ^ lanes_of(stays);
            word = _mm_loadu_si128((const void *)gathered[leaving]);
            _mm_storeu_si128((void *)(words - 16), _mm_shuffle_epi8(lower_halves(x), word));
            words -= 2 * _mm_popcnt_u32(leaving);
            x = _mm256_blendv_epi8(_mm256_srli_epi32(x, 16), x, stays);
            x = _mm256_or_si256(_mm256_sllv_epi32(x, raw),
                                _mm256_srlv_epi32(_mm256_and_si256(symbol, raw_mask), lift));
            even = _mm256_srli_epi64(_mm256_mul_epu32(x, inverse), 32);
            odd = _mm256_mul_epu32(_mm256_srli_epi64(x, 32), _mm256_srli_epi64(inverse, 32));
            quotient = _mm256_blend_epi32(even, odd, 0xAA); /* or one more */
            rest = _mm256_sub_epi32(x, _mm256_mullo_epi32(quotient, freq));
            less = _mm256_cmpgt_epi32(freq, rest);
            quotient = _mm256_add_epi32(quotient, _mm256_andnot_si256(less, one));
            rest = _mm256_sub_epi32(rest, _mm256_andnot_si256(less, freq));
            x = _mm256_add_epi32(_mm256_slli_epi32(quotient, BITS), rest);
            x = _mm256_add_epi32(x, _mm256_srli_epi32(range, 12));
            _mm256_storeu_si256((void *)(states + i), x);
        }
    return words;
}
#endif

/* ---- Encoding: a whole span ---- */

enum { FEW = 32768 }; /* elements, for which few lanes do */

/* A span in the making. The memory that it points to follows it. */
typedef struct {
    Sample samples[CLASSES];
    u32 counts[4][CLASSES * SYMBOLS];
    Encoder encoder;
    u32 states[LANES];
    u8 head[FIXED + CLASSES * 1024];
    u16 *symbols;
    u8 *map, *low, *exceptions, *words, *words_end;
    size_t head_nbytes, map_nbytes, low_nbytes, exceptions_nbytes;
    int lanes;
    /* What the caller asks for. */
    size_t nbytes; /* of the payload, 0 if it is not worth while to code the span */
    size_t changes;
    size_t wasted; /* about how many bits, as `wasted_bits` says */
} Span;

/* Cut the memory behind `span` to size. Returns how much that is, `span` itself included. */
static size_t lay_out(Span *span, size_t count, int width)
{
    const size_t most = count + LANES, spare = 64;
    size_t at = sizeof(Span);
    span->symbols = (u16 *)((u8 *)span + at);
    at += most * sizeof *span->symbols;
    span->map = (u8 *)span + at;
    at += most / FEW_LANES + spare;
    span->low = (u8 *)span + at;
    at += most * (size_t)(width < 4 ? width : MOST_LOW / 8) + spare;
    span->exceptions = (u8 *)span + at;
    at += most * (size_t)width + spare;
    at += most * 2; /* a word an element at most */
    span->words_end = (u8 *)span + at;
    return at;
}

/* Code `count` elements into the parts of `span`, whose memory is laid out. */
static void encode(Span *span, const u8 *base, const u8 *target, size_t count, Form form, int simd)
{
    Head head = {0};
    Survey found = {0};
    Symbols out = {span->symbols, span->exceptions, {span->low, 0, 0}};
    const size_t step = base != NULL;
    const u8 *map;
    u8 last_base[4 * LANES] = {0}, last_target[4 * LANES] = {0};
    Take *take = take_for(form.width, simd);
    Groups groups;
    size_t coded;
    head.form = form;
    head.lanes = count < FEW ? FEW_LANES : LANES;
    groups = groups_of(count, head.lanes, form.width);
    memcpy(last_target, target + groups.whole * groups.nbytes, groups.left);
    if (base)
        memcpy(last_base, base + groups.whole * groups.nbytes, groups.left);
    else
        base = ZEROS;
    memset(span->map, 0, (groups.count + 7) / 8);
    survey(&found, base, step, target, 0, groups.whole, span->map, &head);
    if (groups.left)
        survey(&found, last_base, 1, last_target, groups.whole, 1, span->map, &head);
    /* Groups that are the base's are left out if changes are dense in the others. */
    coded = groups.count - found.same;
    map = NULL;
    if (found.same * 64 > groups.count && found.changes * 4 > coded * groups.lanes)
        map = span->map;
    coded = map ? coded : groups.count;
    span->changes = found.changes;
    span->nbytes = span->wasted = 0;
    if (!choose(&head, base, step, target, count, map, found.bits, span->samples) && count >= FEW)
        return;
    for (size_t i = 0, end; i < groups.count; i = end) {
        const size_t place = i * groups.nbytes;
        end = end_of_run(map, i, groups.count);
        if (map && bit_of(map, i))
            continue;
        if (i < groups.whole)
            take(&head, &out, base + place * step, step, target + place,
                 ((end < groups.whole ? end : groups.whole) - i) * groups.lanes);
        if (end > groups.whole)
            take(&head, &out, last_base, 1, last_target, groups.lanes);
    }
    memset(span->counts, 0, sizeof span->counts);
    for (size_t i = 0; i < coded * groups.lanes; i += 4)
        for (size_t k = 0; k < 4; k++) /* apart: a count should not wait for the one before */
            span->counts[k][span->symbols[i + k] >> MOST_RAW]++;
    for (int i = 0; i < CLASSES * SYMBOLS; i++)
        for (int k = 1; k < 4; k++)
            span->counts[0][i] += span->counts[k][i];
    for (int c = 0; c < CLASSES; c++)
        normalize(span->counts[0] + c * SYMBOLS, head.classes[c].freq);
    fill_encoder(&head, &span->encoder);
    for (int j = 0; j < head.lanes; j++)
        span->states[j] = LOWEST;
#ifdef WITH_AVX2
    if (simd)
        span->words = push_groups_avx2(&head, &span->encoder, span->states, span->symbols, coded,
                                       span->words_end);
    else
#endif
        span->words = push_groups(&head, &span->encoder, span->states, span->symbols, coded,
                                  span->words_end);
    span->exceptions_nbytes = (size_t)(out.exceptions - span->exceptions);
    span->head_nbytes = put_head(&head, (u32)(span->exceptions_nbytes / (size_t)form.width),
                                 map != NULL, span->head);
    span->map_nbytes = map ? (groups.count + 7) / 8 : 0;
    span->low_nbytes = coded * groups.lanes / 8 * (size_t)head.low;
    span->lanes = head.lanes;
    span->nbytes = span->head_nbytes + span->map_nbytes + span->low_nbytes + groups.lanes * STATE +
                   span->exceptions_nbytes + (size_t)(span->words_end - span->words);
    span->wasted = wasted_bits(&head, span->samples, coded * groups.lanes);
}

static void assemble(const Span *span, u8 *out)
{
    const struct {
        const void *from;
        size_t nbytes;
    } parts[] = {{span->head, span->head_nbytes},
                 {span->map, span->map_nbytes},
                 {span->low, span->low_nbytes},
                 {span->states, (size_t)span->lanes * STATE},
                 {span->exceptions, span->exceptions_nbytes},
                 {span->words, (size_t)(span->words_end - span->words)}};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        memcpy(out, parts[i].from, parts[i].nbytes);
        out += parts[i].nbytes;
    }
}

/* The widest that processor and system have. */
static int widest(void)
{
#if !defined(WITH_AVX2)
    return PLAIN;
#elif defined(_MSC_VER)
    int leaf[4];
    __cpuid(leaf, 1); /* OSXSAVE and AVX, and that the system saves these registers */
    if ((leaf[2] >> 27 & 3) != 3 || (_xgetbv(0) & 6) != 6)
        return PLAIN;
    __cpuidex(leaf, 7, 0);
    return leaf[1] >> 5 & 1 ? BY_8 : PLAIN;
#else
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("bmi2") ||
        !__builtin_cpu_supports("popcnt"))
        return PLAIN;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return BY_16;
    return BY_8;
#endif
}

/* ---- For Python ---- */

#ifndef KERNEL_ALONE

#define INTERFACE 2 /* what `kernel.py` asks for */

/* Of a call from Python. */
typedef struct {
    Py_buffer base, elements, payload;
    Form form;
    int simd;
} Call;

static void release(Call *call)
{
    Py_buffer *const all[] = {&call->base, &call->elements, &call->payload};
    for (int i = 0; i < 3; i++)
        if (all[i]->obj)
            PyBuffer_Release(all[i]);
}

/* Take the base, which is None or a buffer, and no more of `simd` than there is. Returns whether
   the elements can be gone through as they are said to lie; if not, an exception is set. */
static int ready(Call *call, PyObject *base)
{
    const Form *form = &call->form;
    const int width = form->width;
    const Py_ssize_t nbytes = call->elements.len;
    if (base != Py_None && PyObject_GetBuffer(base, &call->base, PyBUF_SIMPLE))
        return 0;
    call->simd = call->simd < widest() ? call->simd : widest();
    if ((width != 1 && width != 2 && width != 4) || form->shift < 2 ||
        form->shift > 8 * width - 2 ||
        8 * width - form->shift > 9 || form->mask != (1 << (8 * width - 1 - form->shift)) - 1 ||
        nbytes < width || nbytes % width || nbytes > 1 << 28 ||
        (call->base.obj && call->base.len != nbytes)) {
        PyErr_SetString(PyExc_ValueError, "elements that no kernel goes through");
        return 0;
    }
    return 1;
}

static PyObject *py_encode(PyObject *self, PyObject *args)
{
    Call call = {0};
    Span *span = NULL;
    PyObject *made = NULL, *base;
    Span sizes;
    (void)self;
    if (!PyArg_ParseTuple(args, "Oy*iiii", &base, &call.elements, &call.form.width,
                          &call.form.shift, &call.form.mask, &call.simd))
        return NULL;
    if (!ready(&call, base))
        goto done;
    const size_t count = (size_t)(call.elements.len / call.form.width);
    span = PyMem_Malloc(lay_out(&sizes, count, call.form.width));
    if (!span) {
        PyErr_NoMemory();
        goto done;
    }
    lay_out(span, count, call.form.width);
    Py_BEGIN_ALLOW_THREADS
    encode(span, call.base.buf, call.elements.buf, count, call.form, call.simd);
    Py_END_ALLOW_THREADS
    PyObject *payload = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)span->nbytes);
    if (!payload)
        goto done;
    if (span->nbytes)
        assemble(span, (u8 *)PyBytes_AsString(payload));
    made = Py_BuildValue("Nnn", payload, (Py_ssize_t)span->changes, (Py_ssize_t)span->wasted);
done:
    PyMem_Free(span);
    release(&call);
    return made;
}

static PyObject *py_decode(PyObject *self, PyObject *args)
{
    Call call = {0};
    Decoder *decoder = NULL;
    PyObject *base, *result = NULL;
    const char *wrong;
    (void)self;
    if (!PyArg_ParseTuple(args, "y*Ow*iiii", &call.payload, &base, &call.elements, &call.form.width,
                          &call.form.shift, &call.form.mask, &call.simd))
        return NULL;
    if (!ready(&call, base))
        goto done;
    decoder = PyMem_Malloc(sizeof *decoder);
    if (!decoder) {
        PyErr_NoMemory();
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    wrong = decode(call.payload.buf, (size_t)call.payload.len, call.base.buf, call.elements.buf,
                   (size_t)(call.elements.len / call.form.width), call.form, call.simd, decoder);
    Py_END_ALLOW_THREADS
    if (wrong)
        PyErr_SetString(PyExc_ValueError, wrong);
    else
        result = Py_NewRef(Py_None);
done:
    PyMem_Free(decoder);
    release(&call);
    return result;
}

static PyMethodDef methods[] = {
    {"encode", py_encode, METH_VARARGS,
     "encode(base, target, width, shift, mask, simd) -> (payload, changes, wasted)"},
    {"decode", py_decode, METH_VARARGS, "decode(payload, base, out, width, shift, mask, simd)"},
    {NULL, NULL, 0, NULL}};

static int fill_module(PyObject *module)
{
#ifdef WITH_AVX2
    fill_shuffles();
#endif
    if (PyModule_AddIntConstant(module, "INTERFACE", INTERFACE))
        return -1;
    return PyModule_AddIntConstant(module, "SIMD", widest());
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, fill_module}, {0, NULL}};

static PyModuleDef definition = {PyModuleDef_HEAD_INIT,
                                 "_kernel",
                                 "Spans that are coded in order by class; see kernel.py.",
                                 0,
                                 methods,
                                 slots,
                                 NULL,
                                 NULL,
                                 NULL};

PyMODINIT_FUNC PyInit__kernel(void) { return PyModuleDef_Init(&definition); }

#endif
