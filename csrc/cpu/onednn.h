/* Large dense products by oneDNN: packed weights, primitives with their post-operations, and a
 * cache of them. Without CT_WITH_ONEDNN every product is refused, and linear.c does without. */
#ifndef CT_CPU_ONEDNN_H
#define CT_CPU_ONEDNN_H

#include <stdbool.h>
#include <stdint.h>

#include "core/arena.h"
#include "core/status.h"
#include "cpu/linear.h"

/* Turns oneDNN off, or keeps it below AVX-512; called once, before everything else. _BYTES is for
 * tests: on any processor it takes CT_I8, although without VNNI sums of two products are cut to 16
 * bits. Returns the level before. */
typedef enum ct_onednn_level {
    CT_ONEDNN_OFF,
    CT_ONEDNN_AVX2,
    CT_ONEDNN_BEST,
    CT_ONEDNN_BYTES
} ct_onednn_level;
ct_onednn_level ct_onednn_set_level(ct_onednn_level level);

/* Whether weights of this type are multiplied as they are; the input then has the same type. CT_I8:
 * where the processor has tiles of bytes, which our own kernels do not use; sums are exact there.
 */
bool ct_onednn_takes(ct_dtype weights);

/* A matrix [n, k] in the layout that oneDNN likes best. */
typedef struct ct_packed ct_packed;

/* Packs parts [n_i, k], contiguous and of one dtype that ct_onednn_takes, on top of each other. */
CT_MUST_CHECK ct_status ct_packed_new(ct_packed **out, ct_tensor *const *parts, int n_parts);
void ct_packed_free(ct_packed **packed);

typedef struct ct_matmul {
    ct_rows x;           /* [m, k], of the weights' type */
    const void *weights; /* [n, k] rows without gaps, or NULL: */
    const ct_packed *packed;
    const float *bias;        /* [n] or NULL */
    ct_cpu_epilogue epilogue; /* its rows already at this product's columns */
    ct_rows y;                /* [m, n] f32 or bf16; of CT_I8: CT_I32, and nothing follows */
} ct_matmul;

CT_MUST_CHECK ct_status ct_onednn_matmul(const ct_matmul *product, ct_arena *arena);

/* Gives back the primitives that are kept for reuse and not in use. */
void ct_onednn_trim(void);

#endif
