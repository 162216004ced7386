/* The block formats as the shared bodies see them: parts of 32 values, decoded one after the other.
 *
 * Each ISA's blocks.h has, for a format f, decode_f(piece, block, scales, part), which decodes a
 * part into the vectors piece, and where a block has several parts scales_f(scales, block), which
 * decodes what they need of its scales; it may use all BLOCK_SCALES floats. */
#ifndef CT_CPU_ISA_BLOCK_FORMATS_H
#define CT_CPU_ISA_BLOCK_FORMATS_H

#include "quant/gguf_blocks.h"
#include "quant/gguf_kquants.h"

/* X(name, element type, parts of a block) */
#define BLOCK_FORMATS(X)                                                                           \
    X(q8_0, CT_Q8_0, 1)                                                                            \
    X(q4_0, CT_Q4_0, 1)                                                                            \
    X(q4_1, CT_Q4_1, 1)                                                                            \
    X(q5_0, CT_Q5_0, 1)                                                                            \
    X(q5_1, CT_Q5_1, 1)                                                                            \
    X(q4_k, CT_Q4_K, 8)                                                                            \
    X(q5_k, CT_Q5_K, 8)                                                                            \
    X(q6_k, CT_Q6_K, 8)

#define BLOCK_SCALES 16

static inline void no_scales(float *scales, const char *block)
{
    (void)scales, (void)block;
}
#define scales_q8_0 no_scales
#define scales_q4_0 no_scales
#define scales_q4_1 no_scales
#define scales_q5_0 no_scales
#define scales_q5_1 no_scales

#endif
