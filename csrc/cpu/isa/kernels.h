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
    const char *name; /* "portable", "avx2", "avx512" */

    /* By the weights' element type; NULL where the type is no float and not quantized. */
    ct_gemv_kernel gemv[CT_DTYPE_COUNT];

    /* panels = x [m, k], rounded up as above, in the order in which this level's gemm reads it. A
     * block of rows may be packed by itself, to panels + its first row * a packed row. */
    void (*gemm_pack)(float *panels, const float *x, int64_t ldx, int64_t m, int64_t k);
    /* y [m, n] = x w^T for any m, each product with the bits that gemv[CT_F32] gives it. k >= 1;
     * scratch [CT_GEMM_SCRATCH]. */
    void (*gemm)(float *y, int64_t ldy, const float *panels, int64_t m, const float *w, int64_t ldw,
                 int64_t n, int64_t k, float *scratch);

    /* dst [n] f32 from n values of a float type or of whole blocks of a quantized one. */
    void (*to_f32[CT_DTYPE_COUNT])(float *dst, const void *src, int64_t n);
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
typedef enum ct_isa { CT_ISA_PORTABLE, CT_ISA_AVX2, CT_ISA_AVX512, CT_ISA_COUNT } ct_isa;

/* Each level's filler; it overwrites what it has and leaves the rest. */
void ct_kernels_portable(ct_kernels *table);
void ct_kernels_avx2(ct_kernels *table);
void ct_kernels_avx512(ct_kernels *table);

#endif
