/* Products with 4-bit codes of a codebook on avx2's vectors. A table is looked up as bytes, one
 * shuffle for each of the bytes of its entries; those of bf16 have two, as have whole numbers of 16
 * bits, which need not be widened to be multiplied. */
#include "cpu/isa/avx2/bytes.h"
#include "cpu/isa/avx2/table.h"
#include "cpu/isa/avx2/vector.h"
#include "cpu/isa/avx2/whole.h"

/* Byte b of each entry, in either half. */
typedef struct codebook {
    __m256i planes[4];
} codebook;

/* The earlier codes of all bytes of a block come first, then the later ones; of either, two vectors
 * for the lower 8 bytes of each half of the register and two for the upper 8, with even bytes and
 * odd ones apart. So no lane has to cross the register, and widening is a shift and a mask. */
static inline int place_in_block(int c)
{
    int later = c / 32, upper = c / 16 % 2, odd = c / 8 % 2, half = c / 4 % 2, lane = c % 4;
    return 2 * (16 * half + 8 * upper + 2 * lane + odd) + later;
}

#include "cpu/isa/codebook_body.h"
#include "quant/bnb_rules.h"

static codebook make_codebook(const float table[16])
{
    uint8_t bytes[4][16];
    for (int i = 0; i < 16; i++) {
        uint32_t bits;
        memcpy(&bits, table + i, sizeof bits);
        for (int b = 0; b < 4; b++)
            bytes[b][i] = (uint8_t)(bits >> 8 * b);
    }
    codebook book;
    for (int b = 0; b < 4; b++)
        book.planes[b] = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)bytes[b]));
    return book;
}

static bool is_bf16(const codebook *book)
{
    __m256i low = _mm256_or_si256(book->planes[0], book->planes[1]);
    return _mm256_testz_si256(low, low);
}

/* The codes of a block: the earlier ones of all bytes, then the later ones. */
CODEBOOK_INLINE void read_codes(__m256i codes[2], const uint8_t *bytes)
{
    const __m256i nibble = _mm256_set1_epi8(15);
    __m256i both = _mm256_loadu_si256((const __m256i *)bytes);
    codes[0] = _mm256_and_si256(_mm256_srli_epi16(both, 4), nibble);
    codes[1] = _mm256_and_si256(both, nibble);
}

CODEBOOK_INLINE void look_up_bf16(vec values[BLOCK_VECTORS], const uint8_t *bytes,
                                  const codebook *book)
{
    __m256i codes[2];
    read_codes(codes, bytes);
#pragma GCC unroll 2
    for (int later = 0; later < 2; later++) {
        __m256i b2 = _mm256_shuffle_epi8(book->planes[2], codes[later]);
        __m256i b3 = _mm256_shuffle_epi8(book->planes[3], codes[later]);
        __m256i pairs[2] = {_mm256_unpacklo_epi8(b2, b3), _mm256_unpackhi_epi8(b2, b3)};
#pragma GCC unroll 2
        for (int upper = 0; upper < 2; upper++) {
            __m256i even = _mm256_slli_epi32(pairs[upper], 16);
            __m256i odd = _mm256_and_si256(pairs[upper], _mm256_set1_epi32((int)0xffff0000));
            values[4 * later + 2 * upper] = _mm256_castsi256_ps(even);
            values[4 * later + 2 * upper + 1] = _mm256_castsi256_ps(odd);
        }
    }
}

CODEBOOK_INLINE void look_up_f32(vec values[BLOCK_VECTORS], const uint8_t *bytes,
                                 const codebook *book)
{
    __m256i codes[2];
    read_codes(codes, bytes);
#pragma GCC unroll 2
    for (int later = 0; later < 2; later++) {
        __m256i b[4];
#pragma GCC unroll 4
        for (int plane = 0; plane < 4; plane++)
            b[plane] = _mm256_shuffle_epi8(book->planes[plane], codes[later]);
        __m256i low[2] = {_mm256_unpacklo_epi8(b[0], b[1]), _mm256_unpackhi_epi8(b[0], b[1])};
        __m256i high[2] = {_mm256_unpacklo_epi8(b[2], b[3]), _mm256_unpackhi_epi8(b[2], b[3])};
#pragma GCC unroll 2
        for (int upper = 0; upper < 2; upper++) {
            __m256i even = _mm256_blend_epi16(low[upper], _mm256_slli_epi32(high[upper], 16), 0xaa);
            __m256i odd = _mm256_blend_epi16(_mm256_srli_epi32(low[upper], 16), high[upper], 0xaa);
            values[4 * later + 2 * upper] = _mm256_castsi256_ps(even);
            values[4 * later + 2 * upper + 1] = _mm256_castsi256_ps(odd);
        }
    }
}

static void gemv_codebook(float *y, int64_t ldy, const float *x, int64_t ldx, int64_t m,
                          const uint8_t *codes, const float *scales, int64_t n, int64_t k,
                          const float table[16])
{
    const codebook book = make_codebook(table);
    if (is_bf16(&book))
        codebook_gemv(y, ldy, x, ldx, m, codes, scales, n, k, &book, look_up_bf16);
    else
        codebook_gemv(y, ldy, x, ldx, m, codes, scales, n, k, &book, look_up_f32);
}

/* ---- by whole numbers ---- */

/* The even bytes of a block, then the odd ones: the order of read_codes. */
CODEBOOK_INLINE void store_apart(int8_t *dst, const int8_t *src)
{
    __m256i first = _mm256_loadu_si256((const __m256i *)src);
    __m256i second = _mm256_loadu_si256((const __m256i *)(src + 32));
    const __m256i low = _mm256_set1_epi16(0xff);
    __m256i even = _mm256_packus_epi16(_mm256_and_si256(first, low), _mm256_and_si256(second, low));
    __m256i odd = _mm256_packus_epi16(_mm256_srli_epi16(first, 8), _mm256_srli_epi16(second, 8));
    _mm256_storeu_si256((__m256i *)dst, _mm256_permute4x64_epi64(even, 0xd8));
    _mm256_storeu_si256((__m256i *)(dst + 32), _mm256_permute4x64_epi64(odd, 0xd8));
}

static void codebook_input_int8(int8_t *dst, float *dst_scales, const float *x, int64_t k)
{
    for (int64_t c = 0; c < k; c += CT_CODEBOOK_BLOCK, x += CT_CODEBOOK_BLOCK, dst_scales++) {
        *dst_scales = block_scale(x, CT_CODEBOOK_BLOCK, 127);
        const vec scale = v_set1(*dst_scales);
        int8_t in_order[CT_CODEBOOK_BLOCK];
        for (int v = 0; v < CT_CODEBOOK_BLOCK; v += V_WIDTH)
            v_store_i8(in_order + v, over_scale(v_load(x + v), scale, 127));
        store_apart(dst + c, in_order);
    }
}

/* The place in its block of the word at c: the order of look_up_int16. */
static inline int word_in_block(int c)
{
    int later = c / 32, upper = c / 16 % 2, half = c / 8 % 2, lane = c % 8;
    return 2 * (16 * half + 8 * upper + lane) + later;
}

static void codebook_input_int16(int16_t *dst, float *dst_scales, const float *x, int64_t k)
{
    const float most = CT_CODEBOOK_INT16_MAX;
    for (int64_t c = 0; c < k; c += CT_CODEBOOK_BLOCK, x += CT_CODEBOOK_BLOCK, dst_scales++) {
        *dst_scales = block_scale(x, CT_CODEBOOK_BLOCK, most);
        const vec scale = v_set1(*dst_scales);
        int32_t in_order[CT_CODEBOOK_BLOCK];
        for (int v = 0; v < CT_CODEBOOK_BLOCK; v += V_WIDTH)
            _mm256_storeu_si256((__m256i *)(in_order + v),
                                _mm256_cvtps_epi32(over_scale(v_load(x + v), scale, most)));
#pragma GCC unroll 64
        for (int i = 0; i < CT_CODEBOOK_BLOCK; i++)
            dst[c + i] = (int16_t)in_order[word_in_block(i)];
    }
}

/* The codes of V_WIDTH blocks, which are fetched so many bytes before they are needed. */
#define FETCH_AHEAD 2048
#define FETCH_LINES (V_WIDTH * CT_CODEBOOK_BLOCK / 2 / 64)

/* What a block of codes stands for, and tables of either width as it is looked up in them. */
typedef __m256i integer_table;
typedef void (*integer_look_up)(__m256i w[4], const uint8_t *codes, const integer_table table[2]);
/* 8 sums of the products of a block of x with what was looked up. */
typedef __m256i (*integer_sum)(const __m256i w[4], const void *x);

/* Bytes, and their magnitudes. */
CODEBOOK_INLINE void look_up_int8(__m256i w[4], const uint8_t *codes, const __m256i table[2])
{
    read_codes(w, codes);
#pragma GCC unroll 2
    for (int later = 0; later < 2; later++) {
        w[later] = _mm256_shuffle_epi8(table[0], w[later]);
        w[2 + later] = _mm256_abs_epi8(w[later]);
    }
}

CODEBOOK_INLINE __m256i sum_int8(const __m256i w[4], const void *x)
{
    const __m256i *bytes = x;
    return _mm256_add_epi32(sums_of_4(w[2], w[0], _mm256_loadu_si256(bytes)),
                            sums_of_4(w[3], w[1], _mm256_loadu_si256(bytes + 1)));
}

/* Words, of which the table's halves are the lower and the upper bytes. */
CODEBOOK_INLINE void look_up_int16(__m256i w[4], const uint8_t *codes, const __m256i table[2])
{
    __m256i both[2];
    read_codes(both, codes);
#pragma GCC unroll 2
    for (int later = 0; later < 2; later++) {
        __m256i lower = _mm256_shuffle_epi8(table[0], both[later]);
        __m256i upper = _mm256_shuffle_epi8(table[1], both[later]);
        w[2 * later] = _mm256_unpacklo_epi8(lower, upper);
        w[2 * later + 1] = _mm256_unpackhi_epi8(lower, upper);
    }
}

CODEBOOK_INLINE __m256i sum_int16(const __m256i w[4], const void *x)
{
    const __m256i *words = x;
    __m256i sums[4];
#pragma GCC unroll 4
    for (int v = 0; v < 4; v++)
        sums[v] = _mm256_madd_epi16(w[v], _mm256_loadu_si256(words + v));
    return _mm256_add_epi32(_mm256_add_epi32(sums[0], sums[1]), _mm256_add_epi32(sums[2], sums[3]));
}

/* m rows of x, in elements of x_size bytes, by one row of weights. */
CODEBOOK_INLINE void integer_row(float *y, int64_t ldy, const char *x, int64_t ldx, int x_size,
                                 const float *x_scales, int64_t x_lds, const uint8_t *codes,
                                 const float *scales, int64_t k, const int m,
                                 const integer_table table[2], integer_look_up look_up,
                                 integer_sum sum_of)
{
    const int64_t n_blocks = k / CT_CODEBOOK_BLOCK;
    vec sums[CT_GEMV_MAX_M];
#pragma GCC unroll 8
    for (int i = 0; i < m; i++)
        sums[i] = v_set1(0);
    for (int64_t first = 0; first < n_blocks; first += V_WIDTH) {
        const int64_t n = n_blocks - first < V_WIDTH ? n_blocks - first : V_WIDTH;
        float factors[CT_GEMV_MAX_M][V_WIDTH];
#pragma GCC unroll 8
        for (int i = 0; i < m; i++)
            v_store(factors[i],
                    v_mul(v_load_n(scales + first, n), v_load_n(x_scales + i * x_lds + first, n)));
        for (int line = 0; line < FETCH_LINES; line++)
            _mm_prefetch((const char *)((uintptr_t)codes + FETCH_AHEAD) + 64 * line, _MM_HINT_T0);
#pragma GCC unroll 2
        for (int64_t b = 0; b < n; b++, codes += CT_CODEBOOK_BLOCK / 2) {
            __m256i w[4];
            look_up(w, codes, table);
#pragma GCC unroll 8
            for (int i = 0; i < m; i++) {
                __m256i sum = sum_of(w, x + (i * ldx + (first + b) * CT_CODEBOOK_BLOCK) * x_size);
                sums[i] = v_fma(v_set1(factors[i][b]), _mm256_cvtepi32_ps(sum), sums[i]);
            }
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < m; i++)
        y[i * ldy] = v_sum(sums[i]);
}

#include "cpu/isa/codebook_integer_body.h"

static void gemv_codebook_int8(float *y, int64_t ldy, const int8_t *x, int64_t ldx,
                               const float *x_scales, int64_t x_lds, int64_t m,
                               const uint8_t *codes, const float *scales, int64_t n, int64_t k,
                               const int8_t table[16])
{
    __m256i bytes = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)table));
    const __m256i tables[2] = {bytes, bytes};
    integer_gemv(y, ldy, (const char *)x, ldx, sizeof *x, x_scales, x_lds, m, codes, scales, n, k,
                 tables, look_up_int8, sum_int8);
}

static void gemv_codebook_int16(float *y, int64_t ldy, const int16_t *x, int64_t ldx,
                                const float *x_scales, int64_t x_lds, int64_t m,
                                const uint8_t *codes, const float *scales, int64_t n, int64_t k,
                                const int16_t table[16])
{
    uint8_t bytes[2][16];
    for (int i = 0; i < 16; i++) {
        bytes[0][i] = (uint8_t)table[i];
        bytes[1][i] = (uint8_t)((uint16_t)table[i] >> 8);
    }
    __m256i tables[2];
    for (int b = 0; b < 2; b++)
        tables[b] = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)bytes[b]));
    integer_gemv(y, ldy, (const char *)x, ldx, sizeof *x, x_scales, x_lds, m, codes, scales, n, k,
                 tables, look_up_int16, sum_int16);
}

/* ---- to and from codes ---- */

/* Values of 8 codes in the lower bytes of x, by both halves of the table. */
CODEBOOK_INLINE vec look_up_8(__m128i codes, vec lower, vec upper)
{
    __m256i wide = _mm256_cvtepu8_epi32(codes);
    vec is_upper = _mm256_castsi256_ps(_mm256_slli_epi32(wide, 28));
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(lower, wide),
                            _mm256_permutevar8x32_ps(upper, wide), is_upper);
}

static void codebook_to_f32(float *dst, const uint8_t *codes, const float *scales, int64_t k,
                            const float table[16])
{
    const vec lower = v_load(table), upper = v_load(table + 8);
    const __m128i nibble = _mm_set1_epi8(15);
    for (int64_t c = 0; c < k; c += CT_CODEBOOK_BLOCK) {
        const vec scale = v_set1(*scales++);
        for (int half = 0; half < 2; half++, codes += 16, dst += 32) {
            __m128i both = _mm_loadu_si128((const __m128i *)codes);
            __m128i earlier = _mm_and_si128(_mm_srli_epi16(both, 4), nibble);
            __m128i later = _mm_and_si128(both, nibble);
            __m128i in_order[2] = {_mm_unpacklo_epi8(earlier, later),
                                   _mm_unpackhi_epi8(earlier, later)};
            for (int v = 0; v < 2; v++) {
                __m128i rest = _mm_srli_si128(in_order[v], 8);
                v_store(dst + 16 * v, v_mul(scale, look_up_8(in_order[v], lower, upper)));
                v_store(dst + 16 * v + 8, v_mul(scale, look_up_8(rest, lower, upper)));
            }
        }
    }
}

/* 8 codes in lanes of 32 bits. */
CODEBOOK_INLINE __m256i codes_nf4(vec t)
{
    __m256i code = _mm256_setzero_si256(); /* a comparison that holds is -1 */
#pragma GCC unroll 15
    for (int i = 0; i < 15; i++)
        code = _mm256_sub_epi32(
            code, _mm256_castps_si256(_mm256_cmp_ps(t, v_set1(ct_nf4_bounds[i]), _CMP_GT_OQ)));
    return code;
}

CODEBOOK_INLINE __m256i codes_fp4(vec t)
{
    const __m256i of_rank = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)ct_fp4_codes));
    const vec magnitude = v_abs(t);
    __m256i rank = _mm256_setzero_si256();
#pragma GCC unroll 7
    for (int i = 0; i < 7; i++)
        rank = _mm256_sub_epi32(rank, _mm256_castps_si256(_mm256_cmp_ps(
                                          magnitude, v_set1(ct_fp4_bounds[i]), _CMP_GT_OQ)));
    __m256i negative = _mm256_castps_si256(_mm256_cmp_ps(t, v_set1(0), _CMP_LT_OQ));
    return _mm256_or_si256(_mm256_permutevar8x32_epi32(of_rank, rank),
                           _mm256_and_si256(negative, _mm256_set1_epi32(8)));
}

CODEBOOK_INLINE void quantize_blocks(uint8_t *codes, float *absmax, const float *x, int64_t n,
                                     __m256i (*codes_of)(vec t))
{
    for (int64_t start = 0; start < n; start += CT_CODEBOOK_BLOCK) {
        vec largest = v_set1(0);
        for (int v = 0; v < CT_CODEBOOK_BLOCK; v += V_WIDTH)
            largest = v_max(v_abs(v_load(x + start + v)), largest);
        *absmax = v_top(largest);
        const float divisor = *absmax > CT_BNB_MIN_ABSMAX ? *absmax : CT_BNB_MIN_ABSMAX;
        const vec inverse = v_set1(1 / divisor);
        absmax++;
        for (int v = 0; v < CT_CODEBOOK_BLOCK; v += V_WIDTH, codes += V_WIDTH / 2) {
            __m256i lanes = codes_of(v_mul(v_load(x + start + v), inverse));
            /* Pairs of lanes to bytes, of which each half of the register gives two. */
            __m256i pairs =
                _mm256_or_si256(_mm256_slli_epi64(lanes, 4), _mm256_srli_epi64(lanes, 32));
            pairs = _mm256_shuffle_epi8(pairs, _mm256_set1_epi32(0x80800800));
            uint16_t bytes[2] = {(uint16_t)_mm256_extract_epi16(pairs, 0),
                                 (uint16_t)_mm256_extract_epi16(pairs, 8)};
            memcpy(codes, bytes, sizeof bytes);
        }
    }
}

static void codebook_quantize(uint8_t *codes, float *absmax, const float *x, int64_t n,
                              ct_dtype format)
{
    if (format == CT_NF4)
        quantize_blocks(codes, absmax, x, n, codes_nf4);
    else
        quantize_blocks(codes, absmax, x, n, codes_fp4);
}

void ct_avx2_fill_codebook(ct_kernels *table)
{
    table->codebook_input = codebook_input;
    table->gemv_codebook = gemv_codebook;
    table->codebook_input_int8 = codebook_input_int8;
    table->gemv_codebook_int8 = gemv_codebook_int8;
    table->codebook_input_int16 = codebook_input_int16;
    table->gemv_codebook_int16 = gemv_codebook_int16;
    table->int16_codebook_is_fast = true;
    table->codebook_to_f32 = codebook_to_f32;
    table->codebook_quantize = codebook_quantize;
}
