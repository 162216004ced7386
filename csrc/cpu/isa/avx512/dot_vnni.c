/* Products of bytes with VNNI, which adds up the products of four bytes without a sign by four with
 * one in a lane of 32 bits, without saturation. Processors with AVX-512 may lack it, so it is no
 * part of this folder's flags: functions here ask for it, and the table takes them only where the
 * processor has it. */
#include "cpu/isa/avx512/table.h"
#include "cpu/isa/avx512/vector.h"

#include "core/cpuinfo.h"

#define VNNI __attribute__((target("avx512vnni")))
#define VNNI_INLINE VNNI static inline __attribute__((always_inline))

/* ---- LLM.int8 ---- */

#define STEP 64 /* bytes of a vector */

/* The first n bytes, n <= STEP, then zeros. */
VNNI_INLINE __m512i load_bytes(const int8_t *p, int64_t n)
{
    return n >= STEP ? _mm512_loadu_si512(p) : _mm512_maskz_loadu_epi8(((__mmask64)1 << n) - 1, p);
}

/* sums [m, rows] = x [m, k] by weights [rows, k]. Bytes of x without a sign are those with one plus
 * 128, so 128 times a row's weights come off its sums. Sums may pass the range of 32 bits on the
 * way; they wrap, and the result fits. */
VNNI_INLINE void int8_tile(int32_t *sums, int64_t ld_sums, const int8_t *x, int64_t ldx,
                           const int8_t *w, int64_t w_stride, int64_t k, const int rows,
                           const int m)
{
    const __m512i offset = _mm512_set1_epi8((char)0x80);
    __m512i lanes[4][4], offsets[4];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
        offsets[r] = _mm512_setzero_si512();
#pragma GCC unroll 4
        for (int i = 0; i < m; i++)
            lanes[r][i] = _mm512_setzero_si512();
    }
    for (int64_t c = 0; c < k; c += STEP) {
        __m512i weights[4];
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            weights[r] = load_bytes(w + r * w_stride + c, k - c);
            offsets[r] = _mm512_dpbusd_epi32(offsets[r], offset, weights[r]);
        }
#pragma GCC unroll 4
        for (int i = 0; i < m; i++) {
            __m512i piece = _mm512_xor_si512(load_bytes(x + i * ldx + c, k - c), offset);
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++)
                lanes[r][i] = _mm512_dpbusd_epi32(lanes[r][i], piece, weights[r]);
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int i = 0; i < m; i++)
            sums[i * ld_sums + r] =
                _mm512_reduce_add_epi32(_mm512_sub_epi32(lanes[r][i], offsets[r]));
}

/* X(weight rows, rows of x, rows of x that meet the tile afterwards) */
#define INT8_TILES(X)                                                                              \
    X(1, 1, 0) X(4, 2, 0) X(4, 3, 0) X(4, 4, 0) X(4, 4, 1) X(4, 4, 2) X(4, 4, 3) X(4, 4, 4)
#define INT8_FUNCTION VNNI static
#define INT8_INLINE VNNI_INLINE

#include "cpu/isa/int8_body.h"

/* ---- 4-bit codes ---- */

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
#define BYTES_ROWS(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8)
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
            BYTES_ROWS(BYTES_CASE)
        default:
            break;
        }
    }
}

void ct_avx512_fill_dot_vnni(ct_kernels *table)
{
    if (!ct_cpuinfo_get()->avx512_vnni)
        return;
    table->gemv_int8 = gemv_int8;
    table->gemv_codebook_int8 = gemv_codebook_int8;
}
