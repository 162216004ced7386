/* The simple block formats of GGUF files: 32 values, a scale, sometimes a minimum. */
#ifndef CT_QUANT_GGUF_BLOCKS_H
#define CT_QUANT_GGUF_BLOCKS_H

#include <stdint.h>

#define CT_BLOCK 32

typedef struct ct_block_q8_0 {
    uint16_t d; /* f16 scale */
    int8_t q[CT_BLOCK];
} ct_block_q8_0; /* value = d * q */

typedef struct ct_block_q4_0 {
    uint16_t d;
    uint8_t q[CT_BLOCK / 2]; /* values 0..15 in the low nibbles, 16..31 in the high ones */
} ct_block_q4_0;             /* value = d * (q - 8) */

typedef struct ct_block_q4_1 {
    uint16_t d, m; /* f16 scale and minimum */
    uint8_t q[CT_BLOCK / 2];
} ct_block_q4_1; /* value = d * q + m */

typedef struct ct_block_q5_0 {
    uint16_t d;
    uint8_t high[CT_BLOCK / 8]; /* bit 4 of value i is bit i of these, the first byte lowest */
    uint8_t q[CT_BLOCK / 2];    /* the other bits, as in q4_0 */
} ct_block_q5_0;                /* value = d * (q - 16) */

typedef struct ct_block_q5_1 {
    uint16_t d, m;
    uint8_t high[CT_BLOCK / 8];
    uint8_t q[CT_BLOCK / 2];
} ct_block_q5_1; /* value = d * q + m */

_Static_assert(sizeof(ct_block_q8_0) == 34, "q8_0 blocks are 34 bytes in files");
_Static_assert(sizeof(ct_block_q4_0) == 18, "q4_0 blocks are 18 bytes in files");
_Static_assert(sizeof(ct_block_q4_1) == 20, "q4_1 blocks are 20 bytes in files");
_Static_assert(sizeof(ct_block_q5_0) == 22, "q5_0 blocks are 22 bytes in files");
_Static_assert(sizeof(ct_block_q5_1) == 24, "q5_1 blocks are 24 bytes in files");

void ct_q8_0_dequantize(float *dst, const void *src, int64_t n);
void ct_q4_0_dequantize(float *dst, const void *src, int64_t n);
void ct_q4_1_dequantize(float *dst, const void *src, int64_t n);
void ct_q5_0_dequantize(float *dst, const void *src, int64_t n);
void ct_q5_1_dequantize(float *dst, const void *src, int64_t n);

/* Reference rounding, as the published files were made. */
void ct_q8_0_quantize(void *dst, const float *src, int64_t n);
void ct_q4_0_quantize(void *dst, const float *src, int64_t n);
void ct_q4_1_quantize(void *dst, const float *src, int64_t n);
void ct_q5_0_quantize(void *dst, const float *src, int64_t n);
void ct_q5_1_quantize(void *dst, const float *src, int64_t n);

#endif
