/* LLM.int8 with AVX-VNNI, which client processors have that lack AVX-512: the products of four
 * bytes without a sign by four with one are added up in a lane of 32 bits, without saturation.
 * Functions here ask for it, and the table takes them only where the processor has it. */
#include "cpu/isa/avx2/bytes.h"
#include "cpu/isa/avx2/table.h"

#if __has_include(<avxvnniintrin.h>) /* the compiler knows it too */

#include "core/cpuinfo.h"

#define INT8_FUNCTION __attribute__((target("avxvnni"))) static
#define INT8_INLINE INT8_FUNCTION inline __attribute__((always_inline))

/* Their own sums: few lanes would wait for each other where the instruction adds them up. */
INT8_INLINE __m256i products_of_4(__m256i unsigned_bytes, __m256i signed_bytes)
{
    return _mm256_dpbusd_avx_epi32(_mm256_setzero_si256(), unsigned_bytes, signed_bytes);
}

/* lanes [rows, m] += products of 32 bytes, or of the n < 32 last ones. Bytes of weights without a
 * sign are those with one plus 128. */
INT8_INLINE void int8_step(int8_lanes lanes[4][4], const int8_t *x, int64_t ldx, const int8_t *w,
                           int64_t w_stride, const int rows, const int m, const bool whole,
                           int64_t n)
{
    const __m256i sign = _mm256_set1_epi8((char)0x80);
    __m256i weights[4];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
        const int8_t *row = w + r * w_stride;
        weights[r] = _mm256_xor_si256(whole ? load_bytes(row) : load_bytes_n(row, n), sign);
    }
#pragma GCC unroll 4
    for (int i = 0; i < m; i++) {
        __m256i piece = whole ? load_bytes(x + i * ldx) : load_bytes_n(x + i * ldx, n);
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++)
            lanes[r][i] = _mm256_add_epi32(lanes[r][i], products_of_4(weights[r], piece));
    }
}

#include "cpu/isa/avx2/int8_tile.h"

/* 128 times the sum of x [k]. */
INT8_INLINE uint32_t surplus(const int8_t *x, int64_t k)
{
    const __m256i offset = _mm256_set1_epi8((char)0x80);
    __m256i lanes = _mm256_setzero_si256();
    int64_t c = 0;
    for (; c + INT8_STEP <= k; c += INT8_STEP)
        lanes = _mm256_add_epi32(lanes, products_of_4(offset, load_bytes(x + c)));
    if (c < k)
        lanes = _mm256_add_epi32(lanes, products_of_4(offset, load_bytes_n(x + c, k - c)));
    return (uint32_t)sum_of_lanes(lanes);
}

/* What the 128 that weights had too much add to a row's products is the same for all of them. Sums
 * may pass the range of 32 bits on the way; they wrap, and the result fits. */
INT8_FUNCTION void gemv_int8_vnni(int32_t *sums, int64_t ld_sums, const int8_t *x, int64_t ldx,
                                  int64_t m, const int8_t *w, int64_t w_stride, int64_t n,
                                  int64_t k)
{
    gemv_int8(sums, ld_sums, x, ldx, m, w, w_stride, n, k);
    for (int64_t i = 0; i < m; i++) {
        const uint32_t too_much = surplus(x + i * ldx, k);
        int32_t *row = sums + i * ld_sums;
#pragma omp simd
        for (int64_t j = 0; j < n; j++)
            row[j] = (int32_t)((uint32_t)row[j] - too_much);
    }
}

void ct_avx2_fill_int8_vnni(ct_kernels *table)
{
    if (ct_cpuinfo_get()->avx_vnni)
        table->gemv_int8 = gemv_int8_vnni;
}

#else

void ct_avx2_fill_int8_vnni(ct_kernels *table)
{
    (void)table;
}

#endif
