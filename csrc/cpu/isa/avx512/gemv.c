/* Products with weights of every format, 16 lanes. The 4-bit formats decode by a permute: a block's
 * 16 possible values make one vector, which the codes index. */
#include "cpu/isa/avx512/table.h"
#include "cpu/isa/avx512/vector.h"

#include <string.h>

#include "cpu/isa/gemv_body.h"
#include "cpu/isa/convert_body.h"
#include "quant/gguf_blocks.h"

/* An f16 at any address as f32, in all lanes. */
ALWAYS_INLINE vec broadcast_f16(const void *p)
{
    uint16_t bits;
    memcpy(&bits, p, sizeof bits);
    return _mm512_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(bits)));
}

ALWAYS_INLINE vec codes_0_to_15(void)
{
    return _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}

/* Low nibbles of 16 bytes index `values` for the first half of a block, high ones for the second.
 * The permute looks at 4 bits of each index only. */
ALWAYS_INLINE void look_up_nibbles(vec piece[2], const uint8_t *codes, vec values)
{
    __m512i low = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)codes));
    piece[0] = _mm512_permutexvar_ps(low, values);
    piece[1] = _mm512_permutexvar_ps(_mm512_srli_epi32(low, 4), values);
}

ALWAYS_INLINE void decode_q8_0(vec piece[GEMV_VECTORS], const char *row, int64_t step)
{
    const char *block = row + step * (int64_t)sizeof(ct_block_q8_0);
    const __m128i *codes = (const __m128i *)(block + 2);
    vec d = broadcast_f16(block);
    for (int v = 0; v < 2; v++)
        piece[v] = v_mul(d, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(codes + v))));
}

ALWAYS_INLINE void decode_q4_0(vec piece[GEMV_VECTORS], const char *row, int64_t step)
{
    const char *block = row + step * (int64_t)sizeof(ct_block_q4_0);
    vec values = v_mul(broadcast_f16(block), v_sub(codes_0_to_15(), v_set1(8)));
    look_up_nibbles(piece, (const uint8_t *)block + 2, values);
}

ALWAYS_INLINE void decode_q4_1(vec piece[GEMV_VECTORS], const char *row, int64_t step)
{
    const char *block = row + step * (int64_t)sizeof(ct_block_q4_1);
    vec values = v_add(v_mul(broadcast_f16(block), codes_0_to_15()), broadcast_f16(block + 2));
    look_up_nibbles(piece, (const uint8_t *)block + 4, values);
}

GEMV_KERNEL(gemv_q8_0, decode_q8_0, NULL)
GEMV_KERNEL(gemv_q4_0, decode_q4_0, NULL)
GEMV_KERNEL(gemv_q4_1, decode_q4_1, NULL)

TO_F32_KERNEL(f16_to_f32, decode_f16, tail_f16)
TO_F32_KERNEL(bf16_to_f32, decode_bf16, tail_bf16)
TO_F32_KERNEL(q8_0_to_f32, decode_q8_0, NULL)
TO_F32_KERNEL(q4_0_to_f32, decode_q4_0, NULL)
TO_F32_KERNEL(q4_1_to_f32, decode_q4_1, NULL)

void ct_avx512_fill_gemv(ct_kernels *table)
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
