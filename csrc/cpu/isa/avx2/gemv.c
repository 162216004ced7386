/* Products with weights of every format, 8 lanes. Codes become floats by
 * conversion: eight lanes do not hold the 16 values of a 4-bit code. */
#include "cpu/isa/avx2/table.h"
#include "cpu/isa/avx2/vector.h"

#include <string.h>

#include "cpu/isa/gemv_body.h"
#include "cpu/isa/convert_body.h"
#include "quant/gguf_blocks.h"

/* An f16 at any address as f32, in all lanes. */
ALWAYS_INLINE vec broadcast_f16(const void *p)
{
    uint16_t bits;
    memcpy(&bits, p, sizeof bits);
    return _mm256_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(bits)));
}

/* Low nibbles of 16 bytes are the first half of a block, high ones the second. */
ALWAYS_INLINE void convert_nibbles(vec piece[4], const uint8_t *codes)
{
    __m128i bytes = _mm_loadu_si128((const __m128i *)codes), mask = _mm_set1_epi8(15);
    __m128i halves[2] = {_mm_and_si128(bytes, mask), _mm_and_si128(_mm_srli_epi16(bytes, 4), mask)};
    for (int h = 0; h < 2; h++) {
        piece[2 * h] = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(halves[h]));
        piece[2 * h + 1] = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128(halves[h], 8)));
    }
}

ALWAYS_INLINE void decode_q8_0(vec piece[GEMV_VECTORS], const char *row, int64_t step)
{
    const char *block = row + step * (int64_t)sizeof(ct_block_q8_0);
    vec d = broadcast_f16(block);
    for (int v = 0; v < 4; v++) {
        __m128i codes = _mm_loadl_epi64((const __m128i *)(block + 2 + 8 * v));
        piece[v] = v_mul(d, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes)));
    }
}

ALWAYS_INLINE void decode_q4_0(vec piece[GEMV_VECTORS], const char *row, int64_t step)
{
    const char *block = row + step * (int64_t)sizeof(ct_block_q4_0);
    vec d = broadcast_f16(block);
    convert_nibbles(piece, (const uint8_t *)block + 2);
    for (int v = 0; v < 4; v++)
        piece[v] = v_mul(d, v_sub(piece[v], v_set1(8)));
}

ALWAYS_INLINE void decode_q4_1(vec piece[GEMV_VECTORS], const char *row, int64_t step)
{
    const char *block = row + step * (int64_t)sizeof(ct_block_q4_1);
    vec d = broadcast_f16(block), m = broadcast_f16(block + 2);
    convert_nibbles(piece, (const uint8_t *)block + 4);
    for (int v = 0; v < 4; v++)
        piece[v] = v_add(v_mul(d, piece[v]), m);
}

GEMV_KERNEL(gemv_q8_0, decode_q8_0, NULL)
GEMV_KERNEL(gemv_q4_0, decode_q4_0, NULL)
GEMV_KERNEL(gemv_q4_1, decode_q4_1, NULL)

TO_F32_KERNEL(f16_to_f32, decode_f16, tail_f16)
TO_F32_KERNEL(bf16_to_f32, decode_bf16, tail_bf16)
TO_F32_KERNEL(q8_0_to_f32, decode_q8_0, NULL)
TO_F32_KERNEL(q4_0_to_f32, decode_q4_0, NULL)
TO_F32_KERNEL(q4_1_to_f32, decode_q4_1, NULL)

void ct_avx2_fill_gemv(ct_kernels *table)
{
    table->gemv[CT_Q8_0] = gemv_q8_0;
    table->gemv[CT_Q4_0] = gemv_q4_0;
    table->gemv[CT_Q4_1] = gemv_q4_1;
    table->to_f32[CT_F16] = f16_to_f32;
    table->to_f32[CT_BF16] = bf16_to_f32;
    table->to_f32[CT_Q8_0] = q8_0_to_f32;
    table->to_f32[CT_Q4_0] = q4_0_to_f32;
    table->to_f32[CT_Q4_1] = q4_1_to_f32;
    table->from_f32[CT_F16] = f16_from_f32;
    table->from_f32[CT_BF16] = bf16_from_f32;
}
