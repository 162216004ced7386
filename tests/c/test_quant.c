/* GGUF blocks against values written out by hand and the bounds of their reference rounding. */
#include "test.h"

#include "quant/format.h"
#include "quant/gguf_blocks.h"

static const ct_dtype quantized[] = {CT_Q8_0, CT_Q4_0, CT_Q4_1};
#define N_QUANTIZED (sizeof quantized / sizeof *quantized)

static uint16_t f16(float value)
{
    return ct_f16_from_f32(value);
}

static void every_quantized_dtype_has_a_format(void)
{
    for (int dtype = 0; dtype < CT_DTYPE_COUNT; dtype++) {
        const ct_format *format = ct_format_get((ct_dtype)dtype);
        CHECK(!format == !ct_dtype_is_quantized((ct_dtype)dtype));
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

static void rounding_stays_within_half_a_step(void)
{
    enum { N = 64 * CT_BLOCK };
    static float values[N], decoded[N];
    static char blocks[N * 2 + 1];
    uint32_t seed = 7;
    for (int i = 0; i < N; i++) {
        seed = seed * 1664525 + 1013904223;
        values[i] = ((float)(seed >> 8) / (1 << 24) - 0.5f) * (float)(1 << (i / CT_BLOCK % 12));
    }
    for (size_t f = 0; f < N_QUANTIZED; f++) {
        const ct_format *format = ct_format_get(quantized[f]);
        format->quantize(blocks + 1, values, N); /* any alignment */
        format->dequantize(decoded, blocks + 1, N);
        for (int i = 0; i < N; i++) {
            /* Values lie in +-scale / 2. Half a step (q4_0's far end loses a whole one), and what
             * the scale and the minimum lose as f16. */
            float scale = (float)(1 << (i / CT_BLOCK % 12));
            float half_step = quantized[f] == CT_Q8_0   ? 0.25f / 127
                              : quantized[f] == CT_Q4_0 ? 0.5f / 8
                                                        : 0.5f / 15;
            CHECK_NEAR(decoded[i], values[i], (half_step + 0x1p-11f) * scale);
        }
    }
}

static void odd_blocks_quantize_to_something_finite(void)
{
    static const float odd[] = {0, 1e-45f, 1e-38f, 1e-6f, -1e-45f};
    float values[CT_BLOCK], decoded[CT_BLOCK];
    char block[64];
    for (size_t f = 0; f < N_QUANTIZED; f++) {
        const ct_format *format = ct_format_get(quantized[f]);
        for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
            for (int j = 0; j < CT_BLOCK; j++)
                values[j] = j % 2 ? odd[i] : 0;
            format->quantize(block, values, CT_BLOCK);
            format->dequantize(decoded, block, CT_BLOCK);
            for (int j = 0; j < CT_BLOCK; j++)
                CHECK_NEAR(decoded[j], values[j], 1e-6);
        }
        values[3] = NAN; /* no code says NaN or infinity; that must not be undefined behaviour */
        values[4] = INFINITY;
        format->quantize(block, values, CT_BLOCK);
    }
    ct_block_q8_0 q8;
    ct_q8_0_quantize(&q8, values, CT_BLOCK);
    CHECK(q8.q[3] == 0 && q8.q[4] == 0);
}

const ct_test suite_quant[] = {
    TEST(every_quantized_dtype_has_a_format),      TEST(blocks_decode_as_published),
    TEST(quantizers_round_as_published),           TEST(rounding_stays_within_half_a_step),
    TEST(odd_blocks_quantize_to_something_finite), TESTS_END,
};
