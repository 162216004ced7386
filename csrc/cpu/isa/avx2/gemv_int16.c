/* Products of GGUF blocks with x in whole numbers of 16 or 31 bits, on avx2's vectors.
 *
 * Codes are widened to words in their own order, whose products with those of x are summed exactly
 * within a part of 32 values, as lanes; one multiplication by the scales of both follows. What a
 * format adds to its codes times a scale, a minimum, meets the sums of x, eight parts at a time.
 * Parts go by turns to two sums, whatever a product is computed with: its bits are the same. */
#include "cpu/isa/avx2/blocks.h"
#include "cpu/isa/avx2/table.h"
#include "cpu/isa/avx2/vector.h"
#include "cpu/isa/avx2/whole.h"
#include "cpu/isa/block_formats.h"

#define WORDS_INLINE static inline __attribute__((always_inline))
#define UNIT V_WIDTH /* parts whose scales are decoded together */
#define MAX_M 4      /* rows of x whose sums fit the registers; more meet a row in two goes */
#define FETCH_AHEAD 2048
#define LINE 64
#define IN_CACHE 4 /* rows of weights that the first-level cache holds */
#define BOTH 2     /* halves of a part */

_Static_assert(CT_BLOCK == CT_INT16_BLOCK, "x has a scale for each part");

/* A format, all of it known when a row is compiled. */
typedef struct words_format {
    int64_t bytes;    /* of a block, */
    int parts;        /* which are so many: 1 or UNIT */
    bool has_minima;  /* else `minima` of `scales` is left alone */
    bool half_scales; /* each half of a part has a scale of its own: two vectors of them */
    int x_words;      /* of a value of x: 1 or 2 */
    /* Of the first n parts from `w` on; nothing behind them is read. */
    void (*scales)(vec scales[2], vec *minima, const char *w, int n);
    void (*words)(__m256i words[2], const char *block, int part);
} words_format;

/* ---- scales ---- */

/* Where block p lies, or the last one where there are fewer. */
WORDS_INLINE const char *block_at(const char *w, int64_t bytes, int p, int n)
{
    return w + bytes * (p < n ? p : n - 1);
}

WORDS_INLINE short load_16_bits(const char *p)
{
    short bits;
    memcpy(&bits, p, sizeof bits);
    return bits;
}

WORDS_INLINE int load_32_bits(const char *p)
{
    int bits;
    memcpy(&bits, p, sizeof bits);
    return bits;
}

/* The f16 at the begin of each of eight blocks. */
WORDS_INLINE vec gather_scales(const char *w, int64_t bytes, int n)
{
#define AT(p) load_16_bits(block_at(w, bytes, p, n))
    return _mm256_cvtph_ps(_mm_setr_epi16(AT(0), AT(1), AT(2), AT(3), AT(4), AT(5), AT(6), AT(7)));
#undef AT
}

/* The two f16 at the begin of each. */
WORDS_INLINE void gather_pairs(vec *scales, vec *minima, const char *w, int64_t bytes, int n)
{
    const __m128i apart = _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
#define AT(p) load_32_bits(block_at(w, bytes, p, n))
    __m128i first = _mm_shuffle_epi8(_mm_setr_epi32(AT(0), AT(1), AT(2), AT(3)), apart);
    __m128i last = _mm_shuffle_epi8(_mm_setr_epi32(AT(4), AT(5), AT(6), AT(7)), apart);
#undef AT
    *scales = _mm256_cvtph_ps(_mm_unpacklo_epi64(first, last));
    *minima = _mm256_cvtph_ps(_mm_unpackhi_epi64(first, last));
}

#define SCALE_ALONE(format)                                                                        \
    WORDS_INLINE void unit_##format(vec scales[2], vec *minima, const char *w, int n)              \
    {                                                                                              \
        (void)minima;                                                                              \
        scales[0] = gather_scales(w, sizeof(ct_block_##format), n);                                \
    }
#define SCALE_AND_MINIMUM(format)                                                                  \
    WORDS_INLINE void unit_##format(vec scales[2], vec *minima, const char *w, int n)              \
    {                                                                                              \
        gather_pairs(scales, minima, w, sizeof(ct_block_##format), n);                             \
    }
#define KBLOCK_SCALES(format)                                                                      \
    WORDS_INLINE void unit_##format(vec scales[2], vec *minima, const char *w, int n)              \
    {                                                                                              \
        float decoded[BLOCK_SCALES];                                                               \
        (void)n;                                                                                   \
        scales_##format(decoded, w);                                                               \
        scales[0] = v_load(decoded);                                                               \
        *minima = scales[1] = v_load(decoded + V_WIDTH);                                           \
    }

SCALE_ALONE(q8_0)
SCALE_ALONE(q4_0)
SCALE_AND_MINIMUM(q4_1)
SCALE_ALONE(q5_0)
SCALE_AND_MINIMUM(q5_1)
KBLOCK_SCALES(q4_k)
KBLOCK_SCALES(q5_k)
KBLOCK_SCALES(q6_k)

/* ---- codes ---- */

WORDS_INLINE __m256i widen_unsigned(const char *p)
{
    return _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)p));
}

WORDS_INLINE __m256i widen_signed(const char *p)
{
    return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)p));
}

WORDS_INLINE void read_nibble_words(__m256i words[2], const char *codes)
{
    __m256i both = widen_unsigned(codes);
    words[0] = _mm256_and_si256(both, _mm256_set1_epi16(15));
    words[1] = _mm256_srli_epi16(both, 4);
}

/* All ones in the words whose bit of 16 is set. */
WORDS_INLINE __m256i set_words(const char *bits)
{
    const __m256i bit =
        _mm256_setr_epi16(1, 1 << 1, 1 << 2, 1 << 3, 1 << 4, 1 << 5, 1 << 6, 1 << 7, 1 << 8, 1 << 9,
                          1 << 10, 1 << 11, 1 << 12, 1 << 13, 1 << 14, (short)(1 << 15));
    return _mm256_cmpeq_epi16(_mm256_and_si256(_mm256_set1_epi16(load_16_bits(bits)), bit), bit);
}

WORDS_INLINE void words_q8_0(__m256i words[2], const char *block, int part)
{
    (void)part;
    words[0] = widen_signed(block + 2);
    words[1] = widen_signed(block + 18);
}

WORDS_INLINE void words_q4_0(__m256i words[2], const char *block, int part)
{
    (void)part;
    read_nibble_words(words, block + 2);
    for (int h = 0; h < 2; h++)
        words[h] = _mm256_sub_epi16(words[h], _mm256_set1_epi16(8));
}

WORDS_INLINE void words_q4_1(__m256i words[2], const char *block, int part)
{
    (void)part;
    read_nibble_words(words, block + 4);
}

WORDS_INLINE void words_q5_0(__m256i words[2], const char *block, int part)
{
    (void)part;
    read_nibble_words(words, block + 6);
    for (int h = 0; h < 2; h++) /* 16 less, unless the highest bit is set */
        words[h] = _mm256_sub_epi16(
            words[h], _mm256_andnot_si256(set_words(block + 2 + 2 * h), _mm256_set1_epi16(16)));
}

WORDS_INLINE void words_q5_1(__m256i words[2], const char *block, int part)
{
    (void)part;
    read_nibble_words(words, block + 8);
    for (int h = 0; h < 2; h++)
        words[h] = _mm256_or_si256(
            words[h], _mm256_and_si256(set_words(block + 4 + 2 * h), _mm256_set1_epi16(16)));
}

/* The lower four bits of a part's codes. */
WORDS_INLINE void read_part_words(__m256i words[2], const char *codes, int part)
{
    for (int h = 0; h < 2; h++) {
        __m256i both = widen_unsigned(codes + part / 2 * 32 + 16 * h);
        words[h] =
            part & 1 ? _mm256_srli_epi16(both, 4) : _mm256_and_si256(both, _mm256_set1_epi16(15));
    }
}

WORDS_INLINE void words_q4_k(__m256i words[2], const char *block, int part)
{
    read_part_words(words, block + offsetof(ct_block_q4_k, q), part);
}

WORDS_INLINE void words_q5_k(__m256i words[2], const char *block, int part)
{
    read_part_words(words, block + offsetof(ct_block_q5_k, q), part);
    for (int h = 0; h < 2; h++) {
        __m256i high = widen_unsigned(block + offsetof(ct_block_q5_k, high) + 16 * h);
        high = part < 4 ? _mm256_slli_epi16(high, 4 - part) : _mm256_srli_epi16(high, part - 4);
        words[h] = _mm256_or_si256(words[h], _mm256_and_si256(high, _mm256_set1_epi16(16)));
    }
}

WORDS_INLINE void words_q6_k(__m256i words[2], const char *block, int part)
{
    __m256i codes = codes_q6_k(block, part);
    words[0] = _mm256_cvtepi8_epi16(_mm256_castsi256_si128(codes));
    words[1] = _mm256_cvtepi8_epi16(_mm256_extracti128_si256(codes, 1));
}

/* ---- products ---- */

/* m rows of x, each in its place of these. */
typedef struct words_input {
    const int16_t *x;
    int64_t ldx;
    const float *scales, *sums;
    int64_t lds;
} words_input;

/* The scales of n parts from `first` on times those of x. */
WORDS_INLINE void multiply_scales(float factors[2 * UNIT], vec *minima, const words_input *input,
                                  int64_t first, int n, int i, const vec scales[2],
                                  const vec minimum, const words_format format)
{
    const float *from = input->scales + i * input->lds + first;
    vec x_scales = n == UNIT ? v_load(from) : v_load_n(from, n);
    if (format.half_scales) {
        const __m256i twice = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3);
        const __m256i upper = _mm256_setr_epi32(4, 4, 5, 5, 6, 6, 7, 7);
        v_store(factors, v_mul(scales[0], _mm256_permutevar8x32_ps(x_scales, twice)));
        v_store(factors + V_WIDTH, v_mul(scales[1], _mm256_permutevar8x32_ps(x_scales, upper)));
    } else {
        v_store(factors, v_mul(scales[0], x_scales));
    }
    if (format.has_minima) {
        from = input->sums + i * input->lds + first;
        *minima = v_fma(minimum, n == UNIT ? v_load(from) : v_load_n(from, n), *minima);
    }
}

/* Codes of half a part, or of BOTH, times a word of x each, as sums of lanes. */
WORDS_INLINE vec word_sums(const __m256i words[2], const __m256i *x, const int half)
{
    __m256i sums[2];
    for (int h = 0; h < 2; h++)
        sums[h] = _mm256_madd_epi16(words[h], _mm256_loadu_si256(x + h));
    return _mm256_cvtepi32_ps(half == BOTH ? _mm256_add_epi32(sums[0], sums[1]) : sums[half]);
}

/* The same by values of x, whose second words come behind all the first ones of a part. */
WORDS_INLINE vec part_sums(const __m256i words[2], const __m256i *x, const int half,
                           const int x_words)
{
    vec sums = word_sums(words, x, half);
    return x_words == 2 ? v_fma(word_sums(words, x + 2, half), v_set1(CT_INT31_LOW), sums) : sums;
}

/* sums and minima += n parts of a row from `w` on, n being UNIT if `whole`. */
WORDS_INLINE void words_unit(vec sums[MAX_M][2], vec minima[MAX_M], const words_input *input,
                             int64_t first, const char *w, const int m, const bool whole, int n,
                             const words_format format)
{
    vec scales[2], minimum = v_set1(0);
    float factors[MAX_M][2 * UNIT];
    format.scales(scales, &minimum, w, whole ? UNIT : n);
#pragma GCC unroll 4
    for (int i = 0; i < m; i++)
        multiply_scales(factors[i], &minima[i], input, first, whole ? UNIT : n, i, scales, minimum,
                        format);
#pragma GCC unroll 8
    for (int p = 0; p < UNIT; p++) {
        if (!whole && p == n)
            break;
        __m256i words[2];
        format.words(words, w + p / format.parts * format.bytes, p);
#pragma GCC unroll 4
        for (int i = 0; i < m; i++) {
            const __m256i *x = (const __m256i *)(input->x + i * input->ldx +
                                                 (first + p) * CT_BLOCK * format.x_words);
            if (format.half_scales) {
                for (int h = 0; h < 2; h++)
                    sums[i][h] = v_fma(v_set1(factors[i][2 * p + h]),
                                       part_sums(words, x, h, format.x_words), sums[i][h]);
            } else {
                sums[i][p & 1] = v_fma(v_set1(factors[i][p]),
                                       part_sums(words, x, BOTH, format.x_words), sums[i][p & 1]);
            }
        }
    }
}

/* m rows of x by one row of weights. The address that is fetched may lie behind the matrix: a
 * prefetch does not fault. */
WORDS_INLINE void words_row(float *y, int64_t ldy, const words_input *input, const char *w,
                            int64_t k, const int m, const words_format format)
{
    const int64_t n_parts = k / CT_BLOCK, unit_bytes = UNIT / format.parts * format.bytes;
    vec sums[MAX_M][2], minima[MAX_M];
#pragma GCC unroll 4
    for (int i = 0; i < m; i++)
        sums[i][0] = sums[i][1] = minima[i] = v_set1(0);
    int64_t first = 0;
    for (; first + UNIT <= n_parts; first += UNIT, w += unit_bytes) {
        for (int64_t line = 0; line < unit_bytes; line += LINE)
            _mm_prefetch((const char *)((uintptr_t)w + (uintptr_t)(FETCH_AHEAD + line)),
                         _MM_HINT_T0);
        words_unit(sums, minima, input, first, w, m, true, UNIT, format);
    }
    if (format.parts == 1 && first < n_parts)
        words_unit(sums, minima, input, first, w, m, false, (int)(n_parts - first), format);
#pragma GCC unroll 4
    for (int i = 0; i < m; i++) {
        vec sum = v_add(sums[i][0], sums[i][1]);
        y[i * ldy] = v_sum(format.has_minima ? v_add(sum, minima[i]) : sum);
    }
}

/* So many rows of x by n rows of weights. */
typedef void (*words_rows)(float *y, int64_t ldy, const words_input *input, const char *w,
                           int64_t w_stride, int64_t n, int64_t k);

/* by_m[m - 1] takes m rows of x. More than it has meet a few rows of weights in two goes, the
 * second of which finds them in cache. */
static void words_gemv(const words_rows by_m[MAX_M], float *y, int64_t ldy, words_input input,
                       int64_t m, const char *w, int64_t w_stride, int64_t n, int64_t k)
{
    if (m <= MAX_M) {
        by_m[m - 1](y, ldy, &input, w, w_stride, n, k);
        return;
    }
    words_input rest = input;
    rest.x += MAX_M * input.ldx;
    rest.scales += MAX_M * input.lds;
    rest.sums += MAX_M * input.lds;
    for (int64_t j = 0; j < n; j += IN_CACHE, w += IN_CACHE * w_stride) {
        int64_t now = n - j < IN_CACHE ? n - j : IN_CACHE;
        by_m[MAX_M - 1](y + j, ldy, &input, w, w_stride, now, k);
        by_m[m - MAX_M - 1](y + MAX_M * ldy + j, ldy, &rest, w, w_stride, now, k);
    }
}

#define HAS_MINIMA(dtype)                                                                          \
    ((dtype) == CT_Q4_1 || (dtype) == CT_Q5_1 || (dtype) == CT_Q4_K || (dtype) == CT_Q5_K)

#define WORDS_ROWS(kernel, name, m)                                                                \
    static void kernel##_##name##_##m(float *y, int64_t ldy, const words_input *input,             \
                                      const char *w, int64_t w_stride, int64_t n, int64_t k)       \
    {                                                                                              \
        for (int64_t j = 0; j < n; j++)                                                            \
            words_row(y + j, ldy, input, w + j * w_stride, k, m, kernel##_##name##_format);        \
    }

/* Kernels of the table for each format. */
#define WORDS_KERNEL(kernel, name, dtype, n_parts, n_words)                                        \
    static const words_format kernel##_##name##_format = {                                         \
        .bytes = sizeof(ct_block_##name),                                                          \
        .parts = n_parts,                                                                          \
        .has_minima = HAS_MINIMA(dtype),                                                           \
        .half_scales = (dtype) == CT_Q6_K,                                                         \
        .x_words = n_words,                                                                        \
        .scales = unit_##name,                                                                     \
        .words = words_##name,                                                                     \
    };                                                                                             \
    WORDS_ROWS(kernel, name, 1)                                                                    \
    WORDS_ROWS(kernel, name, 2)                                                                    \
    WORDS_ROWS(kernel, name, 3)                                                                    \
    WORDS_ROWS(kernel, name, 4)                                                                    \
    static void kernel##_##name(float *y, int64_t ldy, const int16_t *x, int64_t ldx,              \
                                const float *x_scales, const float *x_sums, int64_t x_lds,         \
                                int64_t m, const void *w, int64_t w_stride, int64_t n, int64_t k)  \
    {                                                                                              \
        static const words_rows by_m[MAX_M] = {kernel##_##name##_1, kernel##_##name##_2,           \
                                               kernel##_##name##_3, kernel##_##name##_4};          \
        const words_input input = {x, ldx, x_scales, x_sums, x_lds};                               \
        words_gemv(by_m, y, ldy, input, m, w, w_stride, n, k);                                     \
    }

#define INT16_KERNEL(name, dtype, parts) WORDS_KERNEL(gemv_int16, name, dtype, parts, 1)
#define INT31_KERNEL(name, dtype, parts) WORDS_KERNEL(gemv_int31, name, dtype, parts, 2)
BLOCK_FORMATS(INT16_KERNEL)
BLOCK_FORMATS(INT31_KERNEL)

/* ---- input ---- */

/* 16 floats within the range of words, rounded. */
WORDS_INLINE __m256i to_words(vec first, vec last)
{
    __m256i turns = _mm256_packs_epi32(_mm256_cvtps_epi32(first), _mm256_cvtps_epi32(last));
    return _mm256_permute4x64_epi64(turns, 0xd8);
}

/* What whole numbers of 16 bits leave of x, in words of 2^-15 of their unit. */
WORDS_INLINE vec low_word(vec x, vec word, vec scale)
{
    vec rest = v_fma(v_neg(word), scale, x);
    return over_scale(rest, v_mul(scale, v_set1(CT_INT31_LOW)), CT_INT31_LOW_MAX);
}

WORDS_INLINE __m256i pair_sums(__m256i words, __m256i to)
{
    return _mm256_add_epi32(to, _mm256_madd_epi16(words, _mm256_set1_epi16(1)));
}

/* A block in words of 16 bits, n_words for each value: first all the high ones. */
WORDS_INLINE void words_block(int16_t *dst, float *dst_scale, float *dst_sum, const float *x,
                              const int n_words)
{
    const float most = CT_INT16_MAX;
    __m256i pairs[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    *dst_scale = block_scale(x, CT_BLOCK, most);
    const vec scale = v_set1(*dst_scale);
    for (int i = 0; i < CT_BLOCK; i += 2 * V_WIDTH) {
        vec parts[2];
        for (int h = 0; h < 2; h++)
            parts[h] = v_round(over_scale(v_load(x + i + h * V_WIDTH), scale, most));
        __m256i words = to_words(parts[0], parts[1]);
        _mm256_storeu_si256((__m256i *)(dst + i), words);
        pairs[0] = pair_sums(words, pairs[0]);
        if (n_words == 2) {
            for (int h = 0; h < 2; h++)
                parts[h] = low_word(v_load(x + i + h * V_WIDTH), parts[h], scale);
            words = to_words(parts[0], parts[1]);
            _mm256_storeu_si256((__m256i *)(dst + CT_BLOCK + i), words);
            pairs[1] = pair_sums(words, pairs[1]);
        }
    }
    /* Sums of whole numbers below 2^20 are exact as floats. */
    float sum = v_sum(_mm256_cvtepi32_ps(pairs[0]));
    if (n_words == 2)
        sum += v_sum(_mm256_cvtepi32_ps(pairs[1])) * CT_INT31_LOW;
    *dst_sum = sum * *dst_scale;
}

#define WORDS_INPUT(name, n_words)                                                                 \
    static void name(int16_t *dst, float *dst_scales, float *dst_sums, const float *x, int64_t k)  \
    {                                                                                              \
        for (int64_t b = 0; b < k / CT_BLOCK; b++)                                                 \
            words_block(dst + b * CT_BLOCK * (n_words), &dst_scales[b], &dst_sums[b],              \
                        x + b * CT_BLOCK, n_words);                                                \
    }

WORDS_INPUT(int16_input, 1)
WORDS_INPUT(int31_input, 2)

#define INT16_ENTRY(name, dtype, parts) table->gemv_int16[dtype] = gemv_int16_##name;
#define INT31_ENTRY(name, dtype, parts) table->gemv_int31[dtype] = gemv_int31_##name;

void ct_avx2_fill_gemv_int16(ct_kernels *table)
{
    table->words_are_fast = true;
    table->int16_input = int16_input;
    table->int31_input = int31_input;
    BLOCK_FORMATS(INT16_ENTRY)
    BLOCK_FORMATS(INT31_ENTRY)
}
