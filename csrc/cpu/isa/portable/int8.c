/* LLM.int8: rows of activations and of weights in bytes, and their product, by the formula. */
#include "cpu/isa/portable/table.h"

#include <math.h>

#include "quant/bnb.h"
#include "quant/bnb_rules.h"

/* x as f16, magnitudes beyond it as its largest. */
static float to_f16(float x)
{
    return isnan(x) ? x : ct_f16_to_f32(ct_f16_from_f32(fminf(fmaxf(x, -CT_F16_MAX), CT_F16_MAX)));
}

static int64_t int8_input(int8_t *codes, float *absmax, int32_t *outliers, const float *x,
                          int64_t k, float threshold)
{
    float limit = threshold > 0 ? threshold : INFINITY, largest = 0, not_a_number = 0;
    int64_t n_outliers = 0;
    for (int64_t i = 0; i < k; i++) {
        float value = to_f16(x[i]);
        not_a_number += 0 * value;
        if (fabsf(value) >= limit)
            outliers[n_outliers++] = (int32_t)i;
        else
            largest = fmaxf(largest, fabsf(value));
    }
    *absmax = largest + not_a_number;
    float scale = ct_int8_scale(*absmax);
    for (int64_t i = 0; i < k; i++) {
        float value = to_f16(x[i]);
        codes[i] = fabsf(value) < limit ? (int8_t)rintf(value * scale) : 0;
    }
    return n_outliers;
}

static void gemv_int8(int32_t *sums, int64_t ld_sums, const int8_t *x, int64_t ldx, int64_t m,
                      const int8_t *w, int64_t w_stride, int64_t n, int64_t k)
{
    for (int64_t j = 0; j < n; j++)
        for (int64_t i = 0; i < m; i++) {
            int32_t sum = 0;
            for (int64_t c = 0; c < k; c++)
                sum += x[i * ldx + c] * w[j * w_stride + c];
            sums[i * ld_sums + j] = sum;
        }
}

void ct_portable_fill_int8(ct_kernels *table)
{
    table->int8_input = int8_input;
    table->gemv_int8 = gemv_int8;
    table->int8_quantize = ct_bnb_quantize_int8_row;
}
