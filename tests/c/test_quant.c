/* GGUF blocks against values written out by hand and the bounds of their reference rounding. */
#include "test.h"

#include "quant/format.h"
#include "quant/gguf_blocks.h"
#include "quant/gguf_kquants.h"

static const ct_dtype quantized[] = {CT_Q8_0, CT_Q4_0, CT_Q4_1, CT_Q5_0,
                                     CT_Q5_1, CT_Q4_K, CT_Q5_K, CT_Q6_K};
#define N_QUANTIZED (sizeof quantized / sizeof *quantized)

static uint16_t f16(float value)
{
    return ct_f16_from_f32(value);
}

static void every_dtype_of_whole_blocks_has_a_format(void)
{
    for (int dtype = 0; dtype < CT_DTYPE_COUNT; dtype++) {
        const ct_format *format = ct_format_get((ct_dtype)dtype);
        bool blocks =
            ct_dtype_is_quantized((ct_dtype)dtype) && !ct_dtype_has_scales((ct_dtype)dtype);
        CHECK(!format == !blocks);
        CHECK(!format ||
              (format->dtype == (ct_dtype)dtype && format->dequantize && format->quantize));
    }
}

static void blocks_decode_as_published(void)
{
    float values[CT_BLOCK];
    ct_block_q8_0 q8 = {.d = f16(0.5f), .q = {-128, 127, 3}};
    ct_q8_0_dequantize(values, &q8, CT_BLOCK);
    CHECK_NEAR(values[0], -64, 0);
    CHECK_NEAR(values[1], 63.5, 0);
    CHECK_NEAR(values[2], 1.5, 0);

    ct_block_q4_0 q40 = {.d = f16(0.25f), .q = {0x1f}};
    ct_q4_0_dequantize(values, &q40, CT_BLOCK);
    CHECK_NEAR(values[0], 0.25 * (15 - 8), 0); /* low nibbles come first */
    CHECK_NEAR(values[16], 0.25 * (1 - 8), 0);
    CHECK_NEAR(values[1], -2, 0);

    ct_block_q4_1 q41 = {.d = f16(0.25f), .m = f16(-3), .q = {0x1f}};
    ct_q4_1_dequantize(values, &q41, CT_BLOCK);
    CHECK_NEAR(values[0], 0.25 * 15 - 3, 0);
    CHECK_NEAR(values[16], 0.25 - 3, 0);
    CHECK_NEAR(values[1], -3, 0);

    ct_block_q5_0 q50 = {.d = f16(0.25f), .high = {1, 0, 1, 0x80}, .q = {0x1f}};
    ct_q5_0_dequantize(values, &q50, CT_BLOCK);
    CHECK_NEAR(values[0], 0.25 * (31 - 16), 0); /* bits 0, 16 and 31 are set */
    CHECK_NEAR(values[16], 0.25 * (17 - 16), 0);
    CHECK_NEAR(values[31], 0, 0);
    CHECK_NEAR(values[1], -4, 0);

    ct_block_q5_1 q51 = {.d = f16(0.25f), .m = f16(-3), .high = {1, 0, 1, 0x80}, .q = {0x1f}};
    ct_q5_1_dequantize(values, &q51, CT_BLOCK);
    CHECK_NEAR(values[0], 0.25 * 31 - 3, 0);
    CHECK_NEAR(values[16], 0.25 * 17 - 3, 0);
    CHECK_NEAR(values[31], 1, 0);
    CHECK_NEAR(values[1], -3, 0);
}

static void k_blocks_decode_as_published(void)
{
    float values[CT_KBLOCK];
    /* Scale 0 is 5, minimum 0 is 3. Scale 7 is 0x1a and minimum 7 is 0x2b: low bits in byte 11,
     * high ones in bytes 3 and 7. */
    ct_block_q4_k q4 = {.d = f16(0.5f),
                        .m = f16(0.25f),
                        .scales = {5, 0, 0, 1 << 6, 3, 0, 0, 2 << 6, 0, 0, 0, 0xba},
                        .q = {[0] = 0x0e, [96] = 0xc0}};
    ct_q4_k_dequantize(values, &q4, CT_KBLOCK);
    CHECK_NEAR(values[0], 0.5 * 5 * 14 - 0.25 * 3, 0);
    CHECK_NEAR(values[1], -0.25 * 3, 0);
    CHECK_NEAR(values[32], 0, 0);
    CHECK_NEAR(values[7 * 32], 0.5 * 0x1a * 12 - 0.25 * 0x2b, 0);

    ct_block_q5_k q5 = {.d = f16(0.5f),
                        .m = f16(0.25f),
                        .scales = {5, 0, 0, 1 << 6, 3, 0, 0, 2 << 6, 0, 0, 0, 0xba},
                        .high = {1, 0x80},
                        .q = {[0] = 0x0e, [97] = 0xc0}};
    ct_q5_k_dequantize(values, &q5, CT_KBLOCK);
    CHECK_NEAR(values[0], 0.5 * 5 * 30 - 0.25 * 3, 0);
    CHECK_NEAR(values[1], -0.25 * 3, 0);
    CHECK_NEAR(values[7 * 32 + 1], 0.5 * 0x1a * 28 - 0.25 * 0x2b, 0);

    ct_block_q6_k q6 = {.d = f16(0.5f),
                        .scales = {[0] = -3, [1] = 2, [13] = 7},
                        .q = {[3] = 0x0f, [16] = 0x01, [64 + 32 + 17] = 0x0a},
                        .high = {[3] = 3, [32 + 17] = 2 << 2}};
    ct_q6_k_dequantize(values, &q6, CT_KBLOCK);
    CHECK_NEAR(values[3], 0.5 * -3 * 31, 0);
    CHECK_NEAR(values[0], 0.5 * -3 * -32, 0);
    CHECK_NEAR(values[16], 0.5 * 2 * (1 - 32), 0);
    CHECK_NEAR(values[32], 0, 0);
    /* group 1 of the second half: scales 8 + 2 and 8 + 3 */
    CHECK_NEAR(values[128 + 32 + 17], 0, 0);
    q6.scales[11] = 7;
    ct_q6_k_dequantize(values, &q6, CT_KBLOCK);
    CHECK_NEAR(values[128 + 32 + 17], 0.5 * 7 * (0x2a - 32), 0);
}

static void quantizers_round_as_published(void)
{
    float values[CT_BLOCK] = {-127, 126.5f, 0.49f, -0.5f};
    ct_block_q8_0 q8;
    ct_q8_0_quantize(&q8, values, CT_BLOCK);
    CHECK_INT(q8.d, f16(1));
    CHECK_INT(q8.q[0], -127);
    CHECK_INT(q8.q[1], 127); /* halves go away from zero */
    CHECK_INT(q8.q[2], 0);
    CHECK_INT(q8.q[3], -1);

    float fours[CT_BLOCK] = {-8, 8, 6.5f, 6.4f, -7.5f};
    fours[16] = -7.6f;
    ct_block_q4_0 q40;
    ct_q4_0_quantize(&q40, fours, CT_BLOCK);
    CHECK_INT(q40.d, f16(1));
    CHECK_INT(q40.q[0], 0x00);    /* the extreme is code 0, -7.6 as well */
    CHECK_INT(q40.q[1] & 15, 15); /* its opposite has no code of its own */
    CHECK_INT(q40.q[2] & 15, 15);
    CHECK_INT(q40.q[3] & 15, 14);
    CHECK_INT(q40.q[4] & 15, 1);
    fours[0] = 0;
    ct_q4_0_quantize(&q40, fours, CT_BLOCK);
    CHECK_INT(q40.d, f16(-1)); /* the extreme is positive now */

    float ones[CT_BLOCK] = {-1, 14, 0.5f, 0.4f};
    ones[31] = 3;
    ct_block_q4_1 q41;
    ct_q4_1_quantize(&q41, ones, CT_BLOCK);
    CHECK_INT(q41.d, f16(1));
    CHECK_INT(q41.m, f16(-1));
    CHECK_INT(q41.q[0] & 15, 0);
    CHECK_INT(q41.q[1] & 15, 15);
    CHECK_INT(q41.q[2] & 15, 2);
    CHECK_INT(q41.q[3] & 15, 1);
    CHECK_INT(q41.q[15] >> 4, 4);
}

/* Of a block in +-1 / 2. In K blocks the scale and the minimum of a group are off by up to half of
 * the 63rd (q6_k: 127th) part of the largest. */
static float half_step(ct_dtype dtype)
{
    switch (dtype) {
    case CT_Q8_0:
        return 0.25f / 127;
    case CT_Q4_0:
        return 0.5f / 8;
    case CT_Q4_1:
        return 0.5f / 15;
    case CT_Q5_0:
        return 0.5f / 16;
    case CT_Q5_1:
        return 0.5f / 31;
    case CT_Q4_K:
        return 0.5f / 15 + 1.5f / 126;
    case CT_Q5_K:
        return 0.5f / 31 + 1.5f / 126;
    default:
        return 0.5f / 32 + 0.5f / 254;
    }
}

static void rounding_stays_within_half_a_step(void)
{
    enum { N = 16 * CT_KBLOCK };
    static float values[N], decoded[N];
    static char blocks[N * 2 + 1];
    uint32_t seed = 7;
    for (int i = 0; i < N; i++) {
        seed = seed * 1664525 + 1013904223;
        values[i] = ((float)(seed >> 8) / (1 << 24) - 0.5f) * (float)(1 << (i / CT_KBLOCK % 12));
    }
    for (size_t f = 0; f < N_QUANTIZED; f++) {
        const ct_format *format = ct_format_get(quantized[f]);
        format->quantize(blocks + 1, values, N); /* any alignment */
        format->dequantize(decoded, blocks + 1, N);
        for (int i = 0; i < N; i++) {
            /* Values lie in +-scale / 2. Half a step (the far end of q4_0, q5_0 and q6_k loses a
             * whole one), and what the scale and the minimum lose as f16. */
            float scale = (float)(1 << (i / CT_KBLOCK % 12));
            CHECK_NEAR(decoded[i], values[i], (half_step(quantized[f]) + 0x1p-11f) * scale);
        }
    }
}

static void odd_blocks_quantize_to_something_finite(void)
{
    static const float odd[] = {0, 1e-45f, 1e-38f, 1e-6f, -1e-45f};
    float values[CT_KBLOCK], decoded[CT_KBLOCK];
    char block[8 * sizeof(ct_block_q8_0)];
    for (size_t f = 0; f < N_QUANTIZED; f++) {
        const ct_format *format = ct_format_get(quantized[f]);
        for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
            for (int j = 0; j < CT_KBLOCK; j++)
                values[j] = j % 2 ? odd[i] : 0;
            format->quantize(block, values, CT_KBLOCK);
            format->dequantize(decoded, block, CT_KBLOCK);
            for (int j = 0; j < CT_KBLOCK; j++)
                CHECK_NEAR(decoded[j], values[j], 1e-6);
        }
        values[3] = NAN; /* no code says NaN or infinity; that must not be undefined behaviour */
        values[4] = INFINITY;
        format->quantize(block, values, CT_KBLOCK);
    }
    ct_block_q8_0 q8;
    ct_q8_0_quantize(&q8, values, CT_BLOCK);
    CHECK(q8.q[3] == 0 && q8.q[4] == 0);
}

const ct_test suite_quant[] = {
    TEST(every_dtype_of_whole_blocks_has_a_format),
    TEST(blocks_decode_as_published),
    TEST(k_blocks_decode_as_published),
    TEST(quantizers_round_as_published),
    TEST(rounding_stays_within_half_a_step),
    TEST(odd_blocks_quantize_to_something_finite),
    TESTS_END,
};
