/* The table of inner kernels: what an instruction set has to compute.
 *
 * portable/ fills every member by the formula; each ISA level that the CPU has overwrites what it
 * does faster. Kernels get plain pointers, counts and strides: shapes were checked and work was
 * split over threads above. No kernel allocates, fails or starts a thread.
 *
 * Letters: m rows of activations, n rows of a weight matrix [n, k], d a head's width. Pointers may
 * have any alignment that their element type allows; outputs never alias inputs unless a member
 * says so. Strides of activations (ld*) count elements, strides of weights count bytes. */
#ifndef CT_CPU_ISA_KERNELS_H
#define CT_CPU_ISA_KERNELS_H

#include <stdbool.h>
#include <stdint.h>

#include "ops/activation.h"
#include "tensor/dtype.h"

#define CT_GEMV_MAX_M 8 /* rows of activations that one pass over the weights serves */

/* y[i, j] = sum over k of x[i, k] * w[j, k], for m <= CT_GEMV_MAX_M rows i and n rows j, in f32. A
 * product has the same bits whatever m and n it is computed with, as has a row of gemm_tile.
 * x rows lie ldx apart, y rows ldy, w rows w_stride bytes, quantized ones at any address. */
typedef void (*ct_gemv_kernel)(float *y, int64_t ldy, const float *x, int64_t ldx, int64_t m,
                               const void *w, int64_t w_stride, int64_t n, int64_t k);

/* The same with x in whole numbers of 16 bits, its rows ldx apart: value c of a row stands for
 * x[c] * x_scales[c / CT_INT16_BLOCK]. x_sums has those values' sums, block by block; rows of both
 * lie x_lds apart. Sums within a block are exact, but for the portable version's. */
typedef void (*ct_gemv_int16_kernel)(float *y, int64_t ldy, const int16_t *x, int64_t ldx,
                                     const float *x_scales, const float *x_sums, int64_t x_lds,
                                     int64_t m, const void *w, int64_t w_stride, int64_t n,
                                     int64_t k);

typedef void (*ct_int16_input)(int16_t *dst, float *dst_scales, float *dst_sums, const float *x,
                               int64_t k);

#define CT_INT16_BLOCK 32  /* values that share a scale: blocks of GGUF files have whole ones */
#define CT_INT16_MAX 32767 /* 4 products with bytes fit 24 bits, as lanes add up of a block */

/* gemv_int31 has two such words for each value, that of gemv_int16 and what it leaves, in units of
 * CT_INT31_LOW: a block is all its high words, then all its low ones, in [-CT_INT31_LOW_MAX,
 * CT_INT31_LOW_MAX]. */
#define CT_INT31_LOW 0x1p-15f
#define CT_INT31_LOW_MAX 16384

#define CT_INT8_MAX_K 132104 /* so many products of 127 and -128 fit 32 bits */
#define CT_CODEBOOK_BLOCK 64 /* values that share a scale */
/* 8 products of such fit 32 bits, as lanes add up of a block. */
#define CT_CODEBOOK_INT16_MAX 16383

/* Many rows go by blocks of x, of weights and of k, which are sized for the caches. Rows are packed
 * a multiple of CT_GEMM_ROWS at a time; a packed row takes k values, rounded up to CT_GEMM_COLUMNS.
 */
#define CT_GEMM_BLOCK_X 240
#define CT_GEMM_BLOCK_W 32
#define CT_GEMM_BLOCK_K 384
#define CT_GEMM_ROWS 24
#define CT_GEMM_COLUMNS 16
#define CT_GEMM_SCRATCH /* floats: the weights of a block, and its vectors of sums */              \
    (CT_GEMM_BLOCK_W * (CT_GEMM_BLOCK_K + CT_GEMM_BLOCK_X * CT_GEMM_COLUMNS))

typedef struct ct_kernels {
    const char *name; /* that of its ct_isa */
    /* gemv_int16 and gemv_int31 are faster than gemv, and gemv_codebook_int16 than gemv_codebook.
     */
    bool words_are_fast, int16_codebook_is_fast;

    /* By the weights' element type; NULL where the type is no float and not quantized. */
    ct_gemv_kernel gemv[CT_DTYPE_COUNT];
    /* The same; NULL where the type is not one of the blocks of GGUF files. */
    ct_gemv_int16_kernel gemv_int16[CT_DTYPE_COUNT], gemv_int31[CT_DTYPE_COUNT];
    /* dst [k] in [-CT_INT16_MAX, CT_INT16_MAX] and its scales and sums [k / CT_INT16_BLOCK]: a
     * value is off by at most 1/65534 of the largest of its block. NaN or infinity in a block makes
     * its scale and its sum NaN. */
    ct_int16_input int16_input;
    /* dst [2 k], for gemv_int31: a value is off by less than 2^-30 of the largest of its block. */
    ct_int16_input int31_input;

    /* panels = x [m, k], rounded up as above, in the order in which this level's gemm reads it. A
     * block of rows may be packed by itself, to panels + its first row * a packed row. */
    void (*gemm_pack)(float *panels, const float *x, int64_t ldx, int64_t m, int64_t k);
    /* y [m, n] = x w^T for any m, each product with the bits that gemv[CT_F32] gives it. k >= 1;
     * scratch [CT_GEMM_SCRATCH]. */
    void (*gemm)(float *y, int64_t ldy, const float *panels, int64_t m, const float *w, int64_t ldw,
                 int64_t n, int64_t k, float *scratch);

    /* dst [n] f32 from n values of a float type or of whole blocks of a quantized one. */
    void (*to_f32[CT_DTYPE_COUNT])(float *dst, const void *src, int64_t n);
    /* ---- 4-bit codes of a codebook, with a scale for each CT_CODEBOOK_BLOCK values ----
     *
     * k is a multiple of the block. Rows of codes lie k / 2 bytes apart, two codes in a byte, the
     * earlier value in its high half; rows of scales k / CT_CODEBOOK_BLOCK apart. */

    /* dst [k] = x [k], each block's values in the order in which gemv_codebook wants them. */
    void (*codebook_input)(float *dst, const float *x, int64_t k);
    /* y[i, j] = sum over blocks b of scales[j, b] * sum over c in b of x[i, c] * table[code[j, c]],
     * for m <= CT_GEMV_MAX_M rows of x that codebook_input has ordered. Bits do not depend on m and
     * n. A table whose entries are all bf16 values may be faster. */
    void (*gemv_codebook)(float *y, int64_t ldy, const float *x, int64_t ldx, int64_t m,
                          const uint8_t *codes, const float *scales, int64_t n, int64_t k,
                          const float table[16]);
    /* The same with x in bytes: each block of dst [k] is x [k] / dst_scales [k / block], ordered as
     * gemv_codebook_int8 wants it. NaN or infinity in a block makes its scale NaN. */
    void (*codebook_input_int8)(int8_t *dst, float *dst_scales, const float *x, int64_t k);
    /* x [m, k] in bytes, ldx apart, its scales x_scales [m, k / block], x_lds apart; table in bytes
     * of [-127, 127]; sums of bytes are exact. The caller's scales make up for the table's unit. */
    void (*gemv_codebook_int8)(float *y, int64_t ldy, const int8_t *x, int64_t ldx,
                               const float *x_scales, int64_t x_lds, int64_t m,
                               const uint8_t *codes, const float *scales, int64_t n, int64_t k,
                               const int8_t table[16]);
    /* The same in 16 bits, x and table in [-CT_CODEBOOK_INT16_MAX, CT_CODEBOOK_INT16_MAX]: a value
     * is off by at most 1/32766 of the largest of its block. */
    void (*codebook_input_int16)(int16_t *dst, float *dst_scales, const float *x, int64_t k);
    void (*gemv_codebook_int16)(float *y, int64_t ldy, const int16_t *x, int64_t ldx,
                                const float *x_scales, int64_t x_lds, int64_t m,
                                const uint8_t *codes, const float *scales, int64_t n, int64_t k,
                                const int16_t table[16]);
    /* dst [k] = one row, in its own order, in f32 or rounded to bf16 from it. */
    void (*codebook_to_f32)(float *dst, const uint8_t *codes, const float *scales, int64_t k,
                            const float table[16]);
    void (*codebook_to_bf16)(uint16_t *dst, const uint8_t *codes, const float *scales, int64_t k,
                             const float table[16]);
    /* Quantizes n values in whole blocks: absmax [n / block] and codes [n / 2], bit by bit as
     * quant/bnb.h says; format CT_FP4 or CT_NF4. */
    void (*codebook_quantize)(uint8_t *codes, float *absmax, const float *x, int64_t n,
                              ct_dtype format);

    /* ---- LLM.int8 ---- */

    /* A row of activations x [k], rounded to f16 (magnitudes beyond it count as its largest), to
     * codes in [-127, 127] of the largest magnitude below `threshold`, *absmax. Places with a
     * magnitude of `threshold` or more get code 0 and go, rising, to outliers [k]; their number is
     * returned. Threshold 0: there are none. NaN in x makes *absmax NaN and all codes 0. */
    int64_t (*int8_input)(int8_t *codes, float *absmax, int32_t *outliers, const float *x,
                          int64_t k, float threshold);
    /* sums[i, j] = sum over k of x[i, k] * w[j, k], exact, for m <= CT_GEMV_MAX_M rows x of codes
     * in [-127, 127] and bytes w; k <= CT_INT8_MAX_K. */
    void (*gemv_int8)(int32_t *sums, int64_t ld_sums, const int8_t *x, int64_t ldx, int64_t m,
                      const int8_t *w, int64_t w_stride, int64_t n, int64_t k);
    /* A row of weights x [k] (finite f16 values in f32): codes, and the largest magnitude is
     * returned. Bit by bit as quant/bnb.h says. */
    float (*int8_quantize)(int8_t *codes, const float *x, int64_t k);

    /* dst [n] of f32, f16 or bf16 from f32, to nearest, ties to even. NULL for other types. */
    void (*from_f32[CT_DTYPE_COUNT])(void *dst, const float *src, int64_t n);

    /* c [m, n] = alpha * a [m, k] b [k, n], or c += when `accumulate`. The attention's two
     * products: scores with b = keys transposed, values with b = values. */
    void (*gemm_tile)(float *c, int64_t ldc, const float *a, int64_t lda, const float *b,
                      int64_t ldb, int64_t m, int64_t n, int64_t k, float alpha, bool accumulate);

    /* dst [n, m] = src [m, n] transposed. */
    void (*transpose)(float *dst, int64_t ld_dst, const float *src, int64_t ld_src, int64_t m,
                      int64_t n);

    /* One step of the online softmax over a row of scores s [n], in place: with
     * new = max(*max, max of s), s becomes exp(s - new), *sum becomes
     * *sum * exp(*max - new) + sum of s, and *max becomes new. Returns exp(*max - new), by which
     * the caller scales what it has accumulated. A score of -INFINITY gets weight 0, also when all
     * so far are -INFINITY (then new stays -INFINITY and 1 is returned). NaN is never the maximum,
     * but a NaN among the scores, or a score of INFINITY, makes *sum NaN for good; what is returned
     * does not matter then. */
    float (*softmax_step)(float *s, int64_t n, float *max, float *sum);

    /* y [n] = (x - mean) / sqrt(variance + eps) * weight + bias; bias may be NULL. y may be x.
     * Both norms may sum squares in f32, which holds those of |x| up to 1e17. */
    void (*layer_norm)(float *y, const float *x, const float *weight, const float *bias, float eps,
                       int64_t n);
    /* y [n] = x / sqrt(mean square + eps) * weight. y may be x. */
    void (*rms_norm)(float *y, const float *x, const float *weight, float eps, int64_t n);

    /* y [n] = activation(x). y may be x. */
    void (*activate[CT_ACT_COUNT])(float *y, const float *x, int64_t n);

    /* y [n] = a + b and a * b; y may be a or b. */
    void (*add)(float *y, const float *a, const float *b, int64_t n);
    void (*mul)(float *y, const float *a, const float *b, int64_t n);
    /* x [n] *= alpha */
    void (*scale)(float *x, float alpha, int64_t n);

    /* Rotates x [2 n] in place by n angles: element i with element i + n (halves), or element 2i
     * with element 2i + 1 (interleaved). */
    void (*rotary_halves)(float *x, const float *cos, const float *sin, int64_t n);
    void (*rotary_pairs)(float *x, const float *cos, const float *sin, int64_t n);

    /* The index of the first largest value; NaN never wins. n >= 1. */
    int64_t (*argmax)(const float *x, int64_t n);
    /* x [n] = exp(x - max), returns the sum. */
    float (*exp_sum)(float *x, float max, int64_t n);
} ct_kernels;

/* The levels in rising order, by the names that CURATED_TRANSFORMERS_ISA takes. */
typedef enum ct_isa {
    CT_ISA_PORTABLE,
    CT_ISA_NEON,
    CT_ISA_AVX2,
    CT_ISA_AVX512,
    CT_ISA_COUNT
} ct_isa;

/* Each level's filler; it overwrites what it has and leaves the rest. */
void ct_kernels_portable(ct_kernels *table);
void ct_kernels_neon(ct_kernels *table);
void ct_kernels_avx2(ct_kernels *table);
void ct_kernels_avx512(ct_kernels *table);

#endif
