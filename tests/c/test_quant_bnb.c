/* bitsandbytes' formats: codes by rules written out, scales, and what lies where. */
#include "test.h"

#include <stdlib.h>

#include "core/memory.h"
#include "quant/bnb.h"
#include "tensor/tensor.h"

/* The nearest value of a codebook; of two as near, the lower when `down`. */
static double nearest(const float *codebook, double t)
{
    double best = codebook[0];
    for (int i = 1; i < 16; i++)
        if (fabs(codebook[i] - t) < fabs(best - t))
            best = codebook[i];
    return best;
}

static void codes_stand_for_the_nearest_value(void)
{
    static const ct_dtype formats[] = {CT_NF4, CT_FP4};
    float x[200], back[200], absmax[4];
    uint8_t codes[100];
    for (int f = 0; f < 2; f++) {
        const float *codebook = ct_bnb_codebook(formats[f]);
        for (int i = 0; i < 200; i++)
            x[i] = 3 * sinf((float)i * 1.7f);
        ct_bnb_quantize_4bit(codes, absmax, x, 200, 64, formats[f]);
        ct_bnb_dequantize_4bit(back, codes, 0, absmax, 0, 200, 64, formats[f]);
        for (int i = 0; i < 200; i++) {
            double t = x[i] / absmax[i / 64];
            CHECK_NEAR(back[i], nearest(codebook, t) * absmax[i / 64], 1e-6);
        }
    }
}

static void a_middle_goes_down_for_nf4_and_inwards_for_fp4(void)
{
    /* 1 sets the scale; 0.03979015 lies between codes 7 and 8 of NF4, 0.0859375 between 1 and 6 of
     * FP4. */
    float middles[] = {1, 0.03979015f, nextafterf(0.03979015f, 1), 0};
    float thirds[] = {1, 0.0859375f, -0.0859375f, nextafterf(0.0859375f, 1)};
    float absmax;
    uint8_t codes[2];
    ct_bnb_quantize_4bit(codes, &absmax, middles, 4, 4, CT_NF4);
    CHECK_INT(codes[0], 0xf7);
    CHECK_INT(codes[1], 0x87);
    ct_bnb_quantize_4bit(codes, &absmax, thirds, 4, 4, CT_FP4);
    CHECK_INT(codes[0], 0x31);
    CHECK_INT(codes[1], 0x96);
}

static void the_earlier_value_is_the_high_half_and_a_missing_one_is_zero(void)
{
    float x[] = {1, 0, -1}, absmax;
    uint8_t codes[2];
    ct_bnb_quantize_4bit(codes, &absmax, x, 3, 64, CT_NF4);
    CHECK_INT(codes[0], 0xf7);
    CHECK_INT(codes[1], 0x07);
    ct_bnb_quantize_4bit(codes, &absmax, x, 3, 64, CT_FP4);
    CHECK_INT(codes[0], 0x30);
    CHECK_INT(codes[1], 0xb0);
}

static void zeros_and_huge_and_tiny_values_keep_their_block(void)
{
    static const ct_dtype formats[] = {CT_NF4, CT_FP4};
    for (int f = 0; f < 2; f++) {
        float x[256] = {0}, back[256], absmax[4];
        uint8_t codes[128];
        x[64] = 65504; /* beside small ones */
        x[65] = 1;
        x[128] = 6e-8f; /* f16's smallest */
        ct_bnb_quantize_4bit(codes, absmax, x, 256, 64, formats[f]);
        ct_bnb_dequantize_4bit(back, codes, 0, absmax, 0, 256, 64, formats[f]);
        for (int i = 0; i < 256; i++)
            CHECK_NEAR(back[i], i == 65 ? 0 : x[i], 0);
    }
}

static void scales_are_known_to_a_part_of_their_spread(void)
{
    float x[600], back, nested[3], offset;
    uint8_t codes[600];
    for (int i = 0; i < 600; i++)
        x[i] = 2 + sinf((float)i * 0.7f);
    ct_bnb_quantize_scales(codes, nested, &offset, x, 600);
    CHECK_NEAR(offset, 2, 0.01);
    for (int i = 0; i < 600; i++) {
        back = ct_bnb_dynamic_map[codes[i]] * nested[i / CT_NESTED_BLOCK] + offset;
        CHECK_NEAR(back, x[i], 0.01);
    }
    float same[300];
    for (int i = 0; i < 300; i++)
        same[i] = 0.5f;
    ct_bnb_quantize_scales(codes, nested, &offset, same, 300);
    CHECK_NEAR(offset, 0.5, 0);
    CHECK_NEAR(ct_bnb_dynamic_map[codes[299]] * nested[1], 0, 0);
}

static void the_dynamic_map_rises_and_is_symmetric_but_for_one(void)
{
    for (int i = 1; i < 256; i++)
        CHECK(ct_bnb_dynamic_map[i] > ct_bnb_dynamic_map[i - 1]);
    CHECK_NEAR(ct_bnb_dynamic_map[127], 0, 0);
    CHECK_NEAR(ct_bnb_dynamic_map[255], 1, 0);
    for (int i = 0; i < 127; i++)
        CHECK_NEAR(ct_bnb_dynamic_map[i], -ct_bnb_dynamic_map[254 - i], 0);
}

static void int8_rows_use_the_whole_range(void)
{
    float x[] = {0.5f, -1, 0.25f, 0, 0.001f};
    int8_t codes[5];
    CHECK_NEAR(ct_bnb_quantize_int8_row(codes, x, 5), 1, 0);
    CHECK_INT(codes[0], 64); /* 63.5 goes to the even one */
    CHECK_INT(codes[1], -127);
    CHECK_INT(codes[2], 32);
    CHECK_INT(codes[3], 0);
    CHECK_INT(codes[4], 0);
    float zeros[3] = {0};
    CHECK_NEAR(ct_bnb_quantize_int8_row(codes, zeros, 3), 0, 0);
    CHECK_INT(codes[2], 0);
}

/* ---- tensors with scales ---- */

/* The matrix [n, k] of values that rise by a block's 1/64 and restart, in `format`. */
static ct_status new_matrix(ct_tensor **out, ct_dtype format, int64_t n, int64_t k, int64_t block)
{
    bool int8 = format == CT_LLM_INT8;
    int64_t n_codes = n * k / ct_dtype_block_values(format);
    ct_scales parts = {.n_values = n * k, .block = block, .origin = CT_F16}, *scales = NULL;
    int64_t n_scales = ct_scales_count(&parts);
    ct_tensor *codes = NULL;
    ct_status status = CT_OK;
    CT_TRY_TO(done, ct_tensor_new(&codes, int8 ? CT_I8 : CT_U8, 1, &n_codes));
    CT_TRY_TO(done, ct_tensor_new(&parts.absmax, CT_F32, 1, &n_scales));
    for (int64_t i = 0; i < n_codes; i++)
        ((uint8_t *)ct_tensor_data(codes))[i] = (uint8_t)(i % 128);
    for (int64_t i = 0; i < n_scales; i++)
        ((float *)ct_tensor_data(parts.absmax))[i] = (float)(i + 1);
    CT_TRY_TO(done, ct_scales_new(&scales, &parts));
    CT_TRY_TO(done, ct_tensor_scaled(out, codes, format, 2, (int64_t[]){n, k}, scales));
done:
    ct_scales_unref(&scales);
    ct_tensor_unref(&parts.absmax);
    ct_tensor_unref(&codes);
    return status;
}

static void rows_of_a_matrix_keep_their_scales(void)
{
    static const ct_dtype formats[] = {CT_NF4, CT_FP4, CT_LLM_INT8};
    for (int f = 0; f < 3; f++) {
        ct_tensor *matrix, *all, *rows, *row, *flat, *part;
        int64_t k = 96; /* blocks of 64 run across rows */
        CHECK_OK(new_matrix(&matrix, formats[f], 7, k, formats[f] == CT_LLM_INT8 ? k : 64));
        CHECK_OK(ct_tensor_convert(&all, matrix, CT_F32));
        CHECK_OK(ct_tensor_slice(&rows, matrix, 0, 3, 2, 1));
        CHECK_OK(ct_tensor_convert(&part, rows, CT_F32));
        const float *wanted = ct_tensor_data(all), *got = ct_tensor_data(part);
        for (int64_t i = 0; i < 2 * k; i++)
            CHECK_NEAR(got[i], wanted[3 * k + i], 0);
        ct_tensor_unref(&part);
        CHECK_OK(ct_tensor_select(&row, rows, 0, 1));
        CHECK_OK(ct_tensor_convert(&part, row, CT_BF16));
        for (int64_t i = 0; i < k; i++)
            CHECK_INT(((uint16_t *)ct_tensor_data(part))[i], ct_bf16_from_f32(wanted[4 * k + i]));
        CHECK_OK(ct_tensor_reshape(&flat, rows, 1, (int64_t[]){-1}));
        CHECK_INT(flat->first_value, 3 * k);
        ct_tensor_unref(&part);
        CHECK_OK(ct_tensor_convert(&part, flat, formats[f])); /* a copy */
        CHECK(part->scales == matrix->scales && part->storage != matrix->storage);
        ct_tensor *tensors[] = {matrix, all, rows, row, flat, part};
        for (int i = 0; i < 6; i++)
            ct_tensor_unref(&tensors[i]);
    }
}

static void parts_that_do_not_fit_are_refused(void)
{
    ct_tensor *codes, *absmax, *other, *out;
    ct_scales *scales;
    CHECK_OK(ct_tensor_new(&codes, CT_U8, 1, (int64_t[]){64}));
    CHECK_OK(ct_tensor_new(&absmax, CT_F32, 1, (int64_t[]){2}));
    CHECK_OK(ct_tensor_new(&other, CT_F32, 1, (int64_t[]){256}));
    ct_scales parts = {.n_values = 128, .block = 64, .absmax = absmax, .origin = CT_F16};
    ct_scales bad[5] = {parts, parts, parts, parts, parts};
    bad[0].n_values = 129; /* three blocks */
    bad[1].block = 0;
    bad[2].nested_map = other;                        /* without nested scales */
    bad[3].nested_map = bad[3].nested_absmax = other; /* of absmax that are no codes */
    bad[4].origin = CT_I32;
    for (int i = 0; i < 5; i++) {
        CHECK_INT(ct_scales_new(&scales, &bad[i]), CT_VALUE);
        CHECK(!scales);
    }
    CHECK_OK(ct_scales_new(&scales, &parts));
    int64_t good[] = {2, 64}, odd[] = {128, 1}, more[] = {3, 64};
    CHECK_INT(ct_tensor_scaled(&out, codes, CT_NF4, 2, odd, scales), CT_VALUE);
    CHECK_INT(ct_tensor_scaled(&out, codes, CT_NF4, 2, more, scales), CT_VALUE);
    CHECK_INT(ct_tensor_scaled(&out, codes, CT_LLM_INT8, 2, good, scales), CT_VALUE);
    CHECK_INT(ct_tensor_scaled(&out, absmax, CT_NF4, 2, good, scales), CT_VALUE);
    CHECK_OK(ct_tensor_scaled(&out, codes, CT_NF4, 2, good, scales));
    ct_tensor *tensors[] = {codes, absmax, other, out};
    for (int i = 0; i < 4; i++)
        ct_tensor_unref(&tensors[i]);
    ct_scales_unref(&scales);
}

const ct_test suite_quant_bnb[] = {
    TEST(codes_stand_for_the_nearest_value),
    TEST(a_middle_goes_down_for_nf4_and_inwards_for_fp4),
    TEST(the_earlier_value_is_the_high_half_and_a_missing_one_is_zero),
    TEST(zeros_and_huge_and_tiny_values_keep_their_block),
    TEST(scales_are_known_to_a_part_of_their_spread),
    TEST(the_dynamic_map_rises_and_is_symmetric_but_for_one),
    TEST(int8_rows_use_the_whole_range),
    TEST(rows_of_a_matrix_keep_their_scales),
    TEST(parts_that_do_not_fit_are_refused),
    TESTS_END,
};
