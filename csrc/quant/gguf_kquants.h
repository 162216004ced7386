/* The K formats of GGUF files: 256 values in small groups, whose scales are codes themselves. */
#ifndef CT_QUANT_GGUF_KQUANTS_H
#define CT_QUANT_GGUF_KQUANTS_H

#include <stdint.h>

#define CT_KBLOCK 256

/* Scales and minima of 8 groups of 32 values, 6 bits each. The lower six bits of byte i < 4 are
 * scale i, those of byte 4 + i minimum i. Byte 8 + i has the low bits of scale 4 + i and minimum
 * 4 + i in its nibbles; their high bits are the upper two of byte i and of byte 4 + i. */
#define CT_KSCALE_BYTES 12

typedef struct ct_block_q4_k {
    uint16_t d, m; /* f16: what a code of a scale and one of a minimum are multiplied with */
    uint8_t scales[CT_KSCALE_BYTES];
    uint8_t q[CT_KBLOCK / 2]; /* groups 2i and 2i + 1 are the low and high nibbles of 32 bytes */
} ct_block_q4_k;              /* value = d * scale * q - m * minimum */

typedef struct ct_block_q5_k {
    uint16_t d, m;
    uint8_t scales[CT_KSCALE_BYTES];
    uint8_t high[CT_KBLOCK / 8]; /* bit 4 of value i of group g is bit g of byte i */
    uint8_t q[CT_KBLOCK / 2];    /* as in q4_k */
} ct_block_q5_k;

/* Each half of the block is four groups of 32 values: groups 0 and 1 in the low nibbles of 64
 * bytes, 2 and 3 in the high ones; bits 4 and 5 of value i of group g are bits 2g and 2g + 1 of
 * byte i of 32. A scale serves 16 values. */
typedef struct ct_block_q6_k {
    uint8_t q[CT_KBLOCK / 2];
    uint8_t high[CT_KBLOCK / 4];
    int8_t scales[CT_KBLOCK / 16];
    uint16_t d;
} ct_block_q6_k; /* value = d * scale * (q - 32) */

_Static_assert(sizeof(ct_block_q4_k) == 144, "q4_k blocks are 144 bytes in files");
_Static_assert(sizeof(ct_block_q5_k) == 176, "q5_k blocks are 176 bytes in files");
_Static_assert(sizeof(ct_block_q6_k) == 210, "q6_k blocks are 210 bytes in files");

void ct_q4_k_dequantize(float *dst, const void *src, int64_t n);
void ct_q5_k_dequantize(float *dst, const void *src, int64_t n);
void ct_q6_k_dequantize(float *dst, const void *src, int64_t n);

/* To nearest, with the scales that the groups' extremes give. Published files were made by a search
 * for better scales. */
void ct_q4_k_quantize(void *dst, const float *src, int64_t n);
void ct_q5_k_quantize(void *dst, const float *src, int64_t n);
void ct_q6_k_quantize(void *dst, const float *src, int64_t n);

#endif
