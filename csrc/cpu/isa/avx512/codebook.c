/* Products with 4-bit codes of a codebook on avx512's vectors: a register holds a whole table, and
 * a permute looks at 4 bits of each index only. What is not here is as fast on avx2's. */
#include "cpu/isa/avx512/table.h"
#include "cpu/isa/avx512/vector.h"

typedef struct codebook {
    vec values;
} codebook;

/* The earlier codes of 16 bytes come first, then the later ones, then those of the other 16. */
static inline int place_in_block(int c)
{
    return c / 32 * 32 + 2 * (c % 16) + c / 16 % 2;
}

#include "cpu/isa/codebook_body.h"

CODEBOOK_INLINE void look_up(vec values[BLOCK_VECTORS], const uint8_t *bytes, const codebook *book)
{
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
        __m128i both = _mm_loadu_si128((const __m128i *)(bytes + 16 * half));
        __m512i later = _mm512_cvtepu8_epi32(both), earlier = _mm512_srli_epi32(later, 4);
        values[2 * half] = _mm512_permutexvar_ps(earlier, book->values);
        values[2 * half + 1] = _mm512_permutexvar_ps(later, book->values);
    }
}

static void gemv_codebook(float *y, int64_t ldy, const float *x, int64_t ldx, int64_t m,
                          const uint8_t *codes, const float *scales, int64_t n, int64_t k,
                          const float table[16])
{
    const codebook book = {v_load(table)};
    codebook_gemv(y, ldy, x, ldx, m, codes, scales, n, k, &book, look_up);
}

/* Of two vectors of 16, lanes by turns: the first 8 of each, then the last 8. */
CODEBOOK_INLINE void store_by_turns(float *dst, vec earlier, vec later)
{
    const __m512i first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __m512i last = _mm512_add_epi32(first, _mm512_set1_epi32(8));
    v_store(dst, _mm512_permutex2var_ps(earlier, first, later));
    v_store(dst + V_WIDTH, _mm512_permutex2var_ps(earlier, last, later));
}

static void codebook_to_f32(float *dst, const uint8_t *codes, const float *scales, int64_t k,
                            const float table[16])
{
    const codebook book = {v_load(table)};
    for (int64_t c = 0; c < k; c += CT_CODEBOOK_BLOCK, codes += CT_CODEBOOK_BLOCK / 2) {
        const vec scale = v_set1(*scales++);
        vec values[BLOCK_VECTORS];
        look_up(values, codes, &book);
        for (int half = 0; half < 2; half++)
            store_by_turns(dst + c + 32 * half, v_mul(scale, values[2 * half]),
                           v_mul(scale, values[2 * half + 1]));
    }
}

/* All values that a block can have are scaled and rounded, once; then codes look up words. Their
 * permute looks at 5 bits of an index, of which the fifth only says which copy of the values. */
static void codebook_to_bf16(uint16_t *dst, const uint8_t *codes, const float *scales, int64_t k,
                             const float table[16])
{
    const vec values = v_load(table);
    for (int64_t c = 0; c < k; c += CT_CODEBOOK_BLOCK, codes += CT_CODEBOOK_BLOCK / 2) {
        __m512i words = _mm512_broadcast_i64x4(v_to_bf16(v_mul(v_set1(*scales++), values)));
        for (int half = 0; half < 2; half++) {
            __m128i both = _mm_loadu_si128((const __m128i *)(codes + 16 * half));
            __m512i later = _mm512_cvtepu8_epi32(both);
            __m512i pairs =
                _mm512_or_si512(_mm512_srli_epi32(later, 4), _mm512_slli_epi32(later, 16));
            _mm512_storeu_si512(dst + c + 32 * half, _mm512_permutexvar_epi16(pairs, words));
        }
    }
}

void ct_avx512_fill_codebook(ct_kernels *table)
{
    table->codebook_input = codebook_input;
    table->gemv_codebook = gemv_codebook;
    table->int16_codebook_is_fast = false; /* f32 takes fewer instructions, unless VNNI is there */
    table->codebook_to_f32 = codebook_to_f32;
    table->codebook_to_bf16 = codebook_to_bf16;
}
