/* Products of whole numbers with VNNI, which adds up the products of four bytes without a sign by
 * four with one, or of two words by two, in a lane of 32 bits, without saturation. Processors with
 * AVX-512 may lack it, so it is no part of this folder's flags: functions here ask for it, and the
 * table takes them only where the processor has it. */
#include "cpu/isa/avx512/table.h"
#include "cpu/isa/avx512/vector.h"

#include "core/cpuinfo.h"

#define VNNI __attribute__((target("avx512vnni")))
#define VNNI_INLINE VNNI static inline __attribute__((always_inline))

/* ---- LLM.int8 ---- */

#define STEP 64 /* bytes of a vector */
#define TILE_ROWS 4

/* A vector of bytes, or those of the mask and zeros. */
VNNI_INLINE __m512i load_bytes(const int8_t *p, const bool whole, __mmask64 last)
{
    return whole ? _mm512_loadu_si512(p) : _mm512_maskz_loadu_epi8(last, p);
}

/* Sums of 32 bits by a type of their own: as __m512i, gcc copies each before it adds and back. */
typedef __v16si sum_lanes;

VNNI_INLINE sum_lanes add_products(sum_lanes sums, __m512i unsigned_bytes, __m512i signed_bytes)
{
    return (sum_lanes)_mm512_dpbusd_epi32((__m512i)sums, unsigned_bytes, signed_bytes);
}

/* lanes [m, rows] += products of STEP bytes, or of the last ones. Bytes of weights without a sign
 * are those with one plus 128. */
VNNI_INLINE void int8_step(sum_lanes lanes[4][TILE_ROWS], const int8_t *x, int64_t ldx,
                           const int8_t *w, int64_t w_stride, const int rows, const int m,
                           const bool whole, __mmask64 last)
{
    const __m512i sign = _mm512_set1_epi8((char)0x80);
    __m512i weights[TILE_ROWS];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
        weights[r] = _mm512_xor_si512(load_bytes(w + r * w_stride, whole, last), sign);
#pragma GCC unroll 4
    for (int i = 0; i < m; i++) {
        __m512i piece = load_bytes(x + i * ldx, whole, last);
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++)
            lanes[i][r] = add_products(lanes[i][r], weights[r], piece);
    }
}

/* The sums of the lanes of four vectors: pairs of lanes that belong together are added until each
 * quarter of a vector has all four. */
VNNI_INLINE __m128i sums_of_four(const sum_lanes lanes[4])
{
    __m512i pairs[2];
#pragma GCC unroll 2
    for (int h = 0; h < 2; h++) {
        __m512i even = (__m512i)lanes[2 * h], odd = (__m512i)lanes[2 * h + 1];
        pairs[h] =
            _mm512_add_epi32(_mm512_unpacklo_epi32(even, odd), _mm512_unpackhi_epi32(even, odd));
    }
    __m512i four = _mm512_add_epi32(_mm512_unpacklo_epi64(pairs[0], pairs[1]),
                                    _mm512_unpackhi_epi64(pairs[0], pairs[1]));
    __m256i halves =
        _mm256_add_epi32(_mm512_castsi512_si256(four), _mm512_extracti64x4_epi64(four, 1));
    return _mm_add_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1));
}

/* The sum of one vector's. */
VNNI_INLINE int32_t sum_of_lanes(sum_lanes lanes)
{
    return _mm_cvtsi128_si32(sums_of_four((const sum_lanes[4]){lanes}));
}

/* sums [m, rows] = x [m, k] by weights plus 128 [rows, k]. Sums may pass the range of 32 bits on
 * the way; they wrap, and the result fits. */
VNNI_INLINE void int8_tile(int32_t *sums, int64_t ld_sums, const int8_t *x, int64_t ldx,
                           const int8_t *w, int64_t w_stride, int64_t k, const int rows,
                           const int m)
{
    sum_lanes lanes[4][TILE_ROWS];
#pragma GCC unroll 4
    for (int i = 0; i < m; i++)
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++)
            lanes[i][r] = (sum_lanes)_mm512_setzero_si512();
    int64_t c = 0;
    for (; c + STEP <= k; c += STEP)
        int8_step(lanes, x + c, ldx, w + c, w_stride, rows, m, true, 0);
    if (c < k)
        int8_step(lanes, x + c, ldx, w + c, w_stride, rows, m, false,
                  ((__mmask64)1 << (k - c)) - 1);
#pragma GCC unroll 4
    for (int i = 0; i < m; i++)
        if (rows == TILE_ROWS)
            _mm_storeu_si128((__m128i *)(sums + i * ld_sums), sums_of_four(lanes[i]));
        else
            sums[i * ld_sums] = sum_of_lanes(lanes[i][0]);
}

/* X(weight rows, rows of x, rows of x that meet the tile afterwards) */
#define INT8_TILES(X)                                                                              \
    X(1, 1, 0) X(4, 2, 0) X(4, 3, 0) X(4, 4, 0) X(4, 4, 1) X(4, 4, 2) X(4, 4, 3) X(4, 4, 4)
#define INT8_FUNCTION VNNI static
#define INT8_INLINE VNNI_INLINE

#include "cpu/isa/int8_body.h"

/* 128 times the sum of x [k]. */
VNNI_INLINE __m512i surplus(const int8_t *x, int64_t k)
{
    const __m512i offset = _mm512_set1_epi8((char)0x80);
    sum_lanes lanes = (sum_lanes)_mm512_setzero_si512();
    int64_t c = 0;
    for (; c + STEP <= k; c += STEP)
        lanes = add_products(lanes, offset, load_bytes(x + c, true, 0));
    if (c < k)
        lanes =
            add_products(lanes, offset, load_bytes(x + c, false, ((__mmask64)1 << (k - c)) - 1));
    return _mm512_set1_epi32(sum_of_lanes(lanes));
}

/* What the 128 that weights had too much add to a row's products is the same for all of them. */
VNNI static void gemv_int8_vnni(int32_t *sums, int64_t ld_sums, const int8_t *x, int64_t ldx,
                                int64_t m, const int8_t *w, int64_t w_stride, int64_t n, int64_t k)
{
    gemv_int8(sums, ld_sums, x, ldx, m, w, w_stride, n, k);
    for (int64_t i = 0; i < m; i++) {
        const __m512i too_much = surplus(x + i * ldx, k);
        for (int64_t j = 0; j < n; j += V_WIDTH) {
            __mmask16 there = v_mask(n - j);
            int32_t *row = sums + i * ld_sums + j;
            __m512i products = _mm512_maskz_loadu_epi32(there, row);
            _mm512_mask_storeu_epi32(row, there, _mm512_sub_epi32(products, too_much));
        }
    }
}

/* ---- 4-bit codes by bytes ---- */

/* The codes of a block in the order of avx2's codebook_input_int8: the earlier ones of all bytes,
 * then the later ones. */
VNNI_INLINE __m512i read_codes(const uint8_t *bytes)
{
    __m256i later = _mm256_loadu_si256((const __m256i *)bytes);
    __m256i earlier = _mm256_srli_epi16(later, 4);
    __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(earlier), later, 1);
    return _mm512_and_si512(both, _mm512_set1_epi8(15));
}

/* y [m] = x [m, k] by a row of weights: their magnitudes are multiplied, their signs move to x. */
VNNI_INLINE void bytes_row(float *y, int64_t ldy, const int8_t *x, int64_t ldx,
                           const float *x_scales, int64_t x_lds, const uint8_t *codes,
                           const float *scales, int64_t k, const int m, __m512i table)
{
    const __m512i zero = _mm512_setzero_si512();
    vec sums[CT_GEMV_MAX_M];
#pragma GCC unroll 8
    for (int i = 0; i < m; i++)
        sums[i] = v_set1(0);
    for (int64_t b = 0; b < k / CT_CODEBOOK_BLOCK; b++, codes += CT_CODEBOOK_BLOCK / 2) {
        __m512i weights = _mm512_shuffle_epi8(table, read_codes(codes));
        __m512i magnitudes = _mm512_abs_epi8(weights);
        __mmask64 negative = _mm512_movepi8_mask(weights);
#pragma GCC unroll 8
        for (int i = 0; i < m; i++) {
            __m512i piece = _mm512_loadu_si512(x + i * ldx + b * CT_CODEBOOK_BLOCK);
            piece = _mm512_mask_sub_epi8(piece, negative, zero, piece);
            __m512i sum = _mm512_dpbusd_epi32(zero, magnitudes, piece);
            sums[i] = v_fma(v_set1(x_scales[i * x_lds + b] * scales[b]), _mm512_cvtepi32_ps(sum),
                            sums[i]);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < m; i++)
        y[i * ldy] = v_sum(sums[i]);
}

/* X(rows of x) */
#define GEMV_ROWS(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8)
#define BYTES_CASE(m)                                                                              \
    case m:                                                                                        \
        bytes_row(y + j, ldy, x, ldx, x_scales, x_lds, row, row_scales, k, m, values);             \
        break;

VNNI static void gemv_codebook_int8(float *y, int64_t ldy, const int8_t *x, int64_t ldx,
                                    const float *x_scales, int64_t x_lds, int64_t m,
                                    const uint8_t *codes, const float *scales, int64_t n, int64_t k,
                                    const int8_t table[16])
{
    const __m512i values = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)table));
    for (int64_t j = 0; j < n; j++) {
        const uint8_t *row = codes + j * (k / 2);
        const float *row_scales = scales + j * (k / CT_CODEBOOK_BLOCK);
        switch (m) {
            GEMV_ROWS(BYTES_CASE)
        default:
            break;
        }
    }
}

/* ---- 4-bit codes by words ---- */

#define HALF (V_WIDTH / 2)
#define FETCH_AHEAD 2048 /* bytes of codes */

/* What a block of codes of two weight rows stands for, a row in each half of the vectors, of which
 * avx2's codebook_input_int16 gives x the order. The halves of `table` are lower and upper bytes.
 */
VNNI_INLINE void look_up_words(__m512i words[4], const uint8_t *codes, int64_t other_row,
                               const __m512i table[2])
{
    const __m512i nibble = _mm512_set1_epi8(15);
    __m512i both =
        _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)codes)),
                           _mm256_loadu_si256((const __m256i *)(codes + other_row)), 1);
    const __m512i apart[2] = {_mm512_and_si512(_mm512_srli_epi16(both, 4), nibble),
                              _mm512_and_si512(both, nibble)};
#pragma GCC unroll 2
    for (int later = 0; later < 2; later++) {
        __m512i lower = _mm512_shuffle_epi8(table[0], apart[later]);
        __m512i upper = _mm512_shuffle_epi8(table[1], apart[later]);
        words[2 * later] = _mm512_unpacklo_epi8(lower, upper);
        words[2 * later + 1] = _mm512_unpackhi_epi8(lower, upper);
    }
}

/* Eight products fit a lane, which adds up four pairs of them. */
VNNI_INLINE __m512i sum_words(const __m512i words[4], const int16_t *x)
{
    sum_lanes sums = (sum_lanes)_mm512_setzero_si512();
#pragma GCC unroll 4
    for (int v = 0; v < 4; v++) {
        __m256i piece = _mm256_loadu_si256((const __m256i *)x + v);
        sums =
            (sum_lanes)_mm512_dpwssd_epi32((__m512i)sums, words[v], _mm512_broadcast_i64x4(piece));
    }
    return (__m512i)sums;
}

VNNI_INLINE void prefetch_codes(const uint8_t *codes)
{
    _mm_prefetch((const char *)((uintptr_t)codes + FETCH_AHEAD), _MM_HINT_T0);
}

/* y [m, rows] = x [m, k] by one or two rows of weights. The address that is fetched may lie behind
 * the matrix: a prefetch does not fault. */
VNNI_INLINE void words_rows(float *y, int64_t ldy, const int16_t *x, int64_t ldx,
                            const float *x_scales, int64_t x_lds, const uint8_t *codes,
                            const float *scales, int64_t k, int64_t rows, const int m,
                            const __m512i table[2])
{
    const int64_t n_blocks = k / CT_CODEBOOK_BLOCK, other = rows - 1;
    vec sums[CT_GEMV_MAX_M];
#pragma GCC unroll 8
    for (int i = 0; i < m; i++)
        sums[i] = v_set1(0);
    for (int64_t b = 0; b < n_blocks; b++, codes += CT_CODEBOOK_BLOCK / 2) {
        __m512i words[4];
        prefetch_codes(codes);
        prefetch_codes(codes + other * (k / 2));
        look_up_words(words, codes, other * (k / 2), table);
        const vec scale = v_first_n(v_set1(scales[b]), v_set1(scales[other * n_blocks + b]), HALF);
#pragma GCC unroll 8
        for (int i = 0; i < m; i++)
            sums[i] = v_fma(
                v_mul(scale, v_set1(x_scales[i * x_lds + b])),
                _mm512_cvtepi32_ps(sum_words(words, x + i * ldx + b * CT_CODEBOOK_BLOCK)), sums[i]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < m; i++) {
        y[i * ldy] = v_sum(v_first_n(sums[i], v_set1(0), HALF));
        if (other)
            y[i * ldy + 1] = v_sum(v_first_n(v_set1(0), sums[i], HALF));
    }
}

#define WORDS_CASE(m)                                                                              \
    case m:                                                                                        \
        words_rows(y + j, ldy, x, ldx, x_scales, x_lds, row, row_scales, k, rows, m, tables);      \
        break;

VNNI static void gemv_codebook_int16(float *y, int64_t ldy, const int16_t *x, int64_t ldx,
                                     const float *x_scales, int64_t x_lds, int64_t m,
                                     const uint8_t *codes, const float *scales, int64_t n,
                                     int64_t k, const int16_t table[16])
{
    __m128i words[2], low = _mm_set1_epi16(0xff);
    for (int half = 0; half < 2; half++)
        words[half] = _mm_loadu_si128((const __m128i *)table + half);
    const __m512i tables[2] = {_mm512_broadcast_i32x4(_mm_packus_epi16(
                                   _mm_and_si128(words[0], low), _mm_and_si128(words[1], low))),
                               _mm512_broadcast_i32x4(_mm_packus_epi16(
                                   _mm_srli_epi16(words[0], 8), _mm_srli_epi16(words[1], 8)))};
    for (int64_t j = 0; j < n; j += 2) {
        const uint8_t *row = codes + j * (k / 2);
        const float *row_scales = scales + j * (k / CT_CODEBOOK_BLOCK);
        const int64_t rows = n - j < 2 ? 1 : 2;
        switch (m) {
            GEMV_ROWS(WORDS_CASE)
        default:
            break;
        }
    }
}

void ct_avx512_fill_dot_vnni(ct_kernels *table)
{
    if (!ct_cpuinfo_get()->avx512_vnni)
        return;
    table->gemv_int8 = gemv_int8_vnni;
    table->gemv_codebook_int8 = gemv_codebook_int8;
    table->gemv_codebook_int16 = gemv_codebook_int16;
    table->int16_codebook_is_fast = true;
}
