/* Products with 4-bit codes of a codebook on NEON's vectors. Bytes index a table of bytes: one of
 * four registers holds all values as floats, two tables hold the bytes of words. */
#include "cpu/isa/neon/table.h"
#include "cpu/isa/neon/vector.h"

typedef struct codebook {
    uint8x16x4_t values;
} codebook;

/* The earlier codes of 16 bytes come first, then the later ones, then those of the other 16. */
static inline int place_in_block(int c)
{
    return c / 32 * 32 + 2 * (c % 16) + c / 16 % 2;
}

#include "cpu/isa/codebook_body.h"

static codebook make_codebook(const float table[16])
{
    codebook book;
    for (int i = 0; i < 4; i++)
        book.values.val[i] = vreinterpretq_u8_f32(v_load(table + 4 * i));
    return book;
}

/* The earlier codes of 16 bytes, and the later ones. */
CODEBOOK_INLINE uint8x16x2_t read_codes(const uint8_t *bytes)
{
    uint8x16_t both = vld1q_u8(bytes);
    return (uint8x16x2_t){{vshrq_n_u8(both, 4), vandq_u8(both, vdupq_n_u8(15))}};
}

/* The values of 16 codes: byte b of value c is byte 4 c + b of the table. */
CODEBOOK_INLINE void look_up_16(vec values[4], uint8x16_t codes, const codebook *book)
{
    const uint8x16_t spread = {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3};
    const uint8x16_t byte = vreinterpretq_u8_u32(vdupq_n_u32(0x03020100));
    codes = vshlq_n_u8(codes, 2);
#pragma GCC unroll 4
    for (int v = 0; v < 4; v++) {
        uint8x16_t four = vqtbl1q_u8(codes, vaddq_u8(spread, vdupq_n_u8((uint8_t)(4 * v))));
        values[v] = vreinterpretq_f32_u8(vqtbl4q_u8(book->values, vaddq_u8(four, byte)));
    }
}

CODEBOOK_INLINE void look_up(vec values[BLOCK_VECTORS], const uint8_t *bytes, const codebook *book)
{
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
        uint8x16x2_t codes = read_codes(bytes + 16 * half);
        look_up_16(values + 8 * half, codes.val[0], book);
        look_up_16(values + 8 * half + 4, codes.val[1], book);
    }
}

static void gemv_codebook(float *y, int64_t ldy, const float *x, int64_t ldx, int64_t m,
                          const uint8_t *codes, const float *scales, int64_t n, int64_t k,
                          const float table[16])
{
    const codebook book = make_codebook(table);
    codebook_gemv(y, ldy, x, ldx, m, codes, scales, n, k, &book, look_up);
}

static void codebook_to_f32(float *dst, const uint8_t *codes, const float *scales, int64_t k,
                            const float table[16])
{
    const codebook book = make_codebook(table);
    for (int64_t c = 0; c < k; c += CT_CODEBOOK_BLOCK, codes += CT_CODEBOOK_BLOCK / 2) {
        const vec scale = v_set1(*scales++);
        vec values[BLOCK_VECTORS];
        look_up(values, codes, &book);
        for (int half = 0; half < 2; half++)
            for (int v = 0; v < 4; v++) {
                float32x4x2_t by_turns = {
                    {v_mul(scale, values[8 * half + v]), v_mul(scale, values[8 * half + 4 + v])}};
                vst2q_f32(dst + c + 32 * half + 8 * v, by_turns);
            }
    }
}

/* ---- x in whole numbers, whose even values meet the earlier codes and odd ones the later ---- */

/* What a block of codes stands for: bytes of 16 codes in each register, or words of 8. */
typedef struct integer_block {
    uint8x16_t w[8];
} integer_block;

typedef uint8x16_t integer_table;
typedef void (*integer_look_up)(integer_block *block, const uint8_t *codes,
                                const integer_table table[2]);
/* 4 sums of the products of a block of x with what was looked up. */
typedef vec (*integer_sum)(const integer_block *block, const void *x);

CODEBOOK_INLINE void look_up_int8(integer_block *block, const uint8_t *codes,
                                  const integer_table table[2])
{
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
        uint8x16x2_t pair = read_codes(codes + 16 * half);
        for (int later = 0; later < 2; later++)
            block->w[2 * half + later] = vqtbl1q_u8(table[0], pair.val[later]);
    }
}

/* Two products of bytes in [-127, 127] fit 16 bits. */
CODEBOOK_INLINE vec sum_int8(const integer_block *block, const void *x)
{
    int32x4_t sum = vdupq_n_s32(0);
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
        int8x16x2_t piece = vld2q_s8((const int8_t *)x + 32 * half);
        for (int later = 0; later < 2; later++) {
            int8x16_t w = vreinterpretq_s8_u8(block->w[2 * half + later]), p = piece.val[later];
            int16x8_t pairs = vmull_s8(vget_low_s8(w), vget_low_s8(p));
            sum = vpadalq_s16(sum, vmlal_high_s8(pairs, w, p));
        }
    }
    return vcvtq_f32_s32(sum);
}

/* The halves of `table` are lower and upper bytes. */
CODEBOOK_INLINE void look_up_int16(integer_block *block, const uint8_t *codes,
                                   const integer_table table[2])
{
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
        uint8x16x2_t pair = read_codes(codes + 16 * half);
        for (int later = 0; later < 2; later++) {
            uint8x16_t lower = vqtbl1q_u8(table[0], pair.val[later]);
            uint8x16_t upper = vqtbl1q_u8(table[1], pair.val[later]);
            block->w[4 * half + later] = vzip1q_u8(lower, upper);
            block->w[4 * half + 2 + later] = vzip2q_u8(lower, upper);
        }
    }
}

/* A lane holds eight products, so there are two vectors of them. */
CODEBOOK_INLINE vec sum_int16(const integer_block *block, const void *x)
{
    int32x4_t sums[2] = {vdupq_n_s32(0), vdupq_n_s32(0)};
#pragma GCC unroll 4
    for (int v = 0; v < 4; v++) {
        int16x8x2_t piece = vld2q_s16((const int16_t *)x + 16 * v);
        for (int later = 0; later < 2; later++) {
            int16x8_t w = vreinterpretq_s16_u8(block->w[2 * v + later]), p = piece.val[later];
            sums[0] = vmlal_s16(sums[0], vget_low_s16(w), vget_low_s16(p));
            sums[1] = vmlal_high_s16(sums[1], w, p);
        }
    }
    return v_add(vcvtq_f32_s32(sums[0]), vcvtq_f32_s32(sums[1]));
}

/* m rows of x, in elements of x_size bytes, by one row of weights. */
CODEBOOK_INLINE void integer_row(float *y, int64_t ldy, const char *x, int64_t ldx, int x_size,
                                 const float *x_scales, int64_t x_lds, const uint8_t *codes,
                                 const float *scales, int64_t k, const int m,
                                 const integer_table table[2], integer_look_up look_up,
                                 integer_sum sum_of)
{
    vec sums[CT_GEMV_MAX_M];
#pragma GCC unroll 8
    for (int i = 0; i < m; i++)
        sums[i] = v_set1(0);
    for (int64_t b = 0; b < k / CT_CODEBOOK_BLOCK; b++, codes += CT_CODEBOOK_BLOCK / 2) {
        integer_block block;
        look_up(&block, codes, table);
#pragma GCC unroll 8
        for (int i = 0; i < m; i++) {
            vec sum = sum_of(&block, x + (i * ldx + b * CT_CODEBOOK_BLOCK) * x_size);
            sums[i] = v_fma(v_set1(x_scales[i * x_lds + b] * scales[b]), sum, sums[i]);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < m; i++)
        y[i * ldy] = v_sum(sums[i]);
}

#include "cpu/isa/codebook_integer_body.h"

static void gemv_codebook_int8(float *y, int64_t ldy, const int8_t *x, int64_t ldx,
                               const float *x_scales, int64_t x_lds, int64_t m,
                               const uint8_t *codes, const float *scales, int64_t n, int64_t k,
                               const int8_t table[16])
{
    const uint8x16_t bytes = vreinterpretq_u8_s8(vld1q_s8(table)), tables[2] = {bytes, bytes};
    integer_gemv(y, ldy, (const char *)x, ldx, sizeof *x, x_scales, x_lds, m, codes, scales, n, k,
                 tables, look_up_int8, sum_int8);
}

static void gemv_codebook_int16(float *y, int64_t ldy, const int16_t *x, int64_t ldx,
                                const float *x_scales, int64_t x_lds, int64_t m,
                                const uint8_t *codes, const float *scales, int64_t n, int64_t k,
                                const int16_t table[16])
{
    const uint8x16x2_t bytes = vld2q_u8((const uint8_t *)table);
    integer_gemv(y, ldy, (const char *)x, ldx, sizeof *x, x_scales, x_lds, m, codes, scales, n, k,
                 bytes.val, look_up_int16, sum_int16);
}

void ct_neon_fill_codebook(ct_kernels *table)
{
    table->codebook_input = codebook_input;
    table->gemv_codebook = gemv_codebook;
    table->gemv_codebook_int8 = gemv_codebook_int8;
    table->gemv_codebook_int16 = gemv_codebook_int16;
    table->int16_codebook_is_fast = true;
    table->codebook_to_f32 = codebook_to_f32;
}
