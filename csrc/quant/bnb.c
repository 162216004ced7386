/* Quantizing and dequantizing by bitsandbytes' rules, value by value. */
#include "quant/bnb.h"

#include <math.h>

#include "quant/bnb_rules.h"

/* The quantiles of a normal distribution (QLoRA, appendix E), and bitsandbytes' own 4-bit floats,
 * which are sixths and twelfths, and 1/192 where a subnormal would be. */
static const float nf4[16] = {
    -1.0f,          -0.696192801f, -0.525073051f, -0.394917488f, -0.284441382f, -0.18477343f,
    -0.0910500363f, 0.0f,          0.0795802996f, 0.160930201f,  0.246112302f,  0.337915242f,
    0.440709829f,   0.562617004f,  0.722956836f,  1.0f,
};
static const float fp4[16] = {
    0.0f, 0.00520833349f,  0.666666687f,  1.0f,  0.333333343f,  0.5f,  0.166666672f,  0.25f,
    0.0f, -0.00520833349f, -0.666666687f, -1.0f, -0.333333343f, -0.5f, -0.166666672f, -0.25f,
};

#define FP4_SIGN 8

const float *ct_bnb_codebook(ct_dtype format)
{
    return format == CT_NF4 ? nf4 : fp4;
}

static uint8_t nf4_code(float t)
{
    uint8_t code = 0;
    for (int i = 0; i < 15; i++)
        code += t > ct_nf4_bounds[i];
    return code;
}

static uint8_t fp4_code(float t)
{
    int place = 0;
    float magnitude = fabsf(t);
    for (int i = 0; i < 7; i++)
        place += magnitude > ct_fp4_bounds[i];
    return ct_fp4_codes[place] | (t < 0 ? FP4_SIGN : 0);
}

static float largest(const float *x, int64_t n)
{
    float max = 0;
    for (int64_t i = 0; i < n; i++)
        max = fabsf(x[i]) > max ? fabsf(x[i]) : max;
    return max;
}

/* Codes of one block, by a factor of its values or, when it is short, as bitsandbytes does on a
 * CPU, by their quotient. */
static void quantize_block(uint8_t *codes, float *absmax, const float *x, int64_t n, bool whole,
                           ct_dtype format)
{
    float max = largest(x, n);
    float least = fmaxf(max, CT_BNB_MIN_ABSMAX), factor = 1 / least;
    *absmax = whole ? max : least;
    for (int64_t i = 0; i < n; i += 2) {
        uint8_t pair[2];
        for (int64_t j = 0; j < 2; j++) {
            float value = i + j < n ? x[i + j] : 0;
            float t = whole ? value * factor : value / least;
            pair[j] = format == CT_NF4 ? nf4_code(t) : fp4_code(t);
        }
        codes[i / 2] = (uint8_t)(pair[0] << 4 | pair[1]);
    }
}

void ct_bnb_quantize_4bit(uint8_t *codes, float *absmax, const float *x, int64_t n, int64_t block,
                          ct_dtype format)
{
    for (int64_t i = 0; i < n; i += block) {
        int64_t length = n - i < block ? n - i : block;
        quantize_block(codes + i / 2, absmax + i / block, x + i, length, length == block, format);
    }
}

void ct_bnb_dequantize_4bit(float *dst, const uint8_t *codes, int64_t origin, const float *scales,
                            int64_t first, int64_t n, int64_t block, ct_dtype format)
{
    const float *codebook = ct_bnb_codebook(format);
    int64_t first_block = first / block;
    for (int64_t i = 0; i < n; i++) {
        int64_t place = first + i, byte = (place - origin) / 2;
        uint8_t code = place % 2 ? codes[byte] & 15 : codes[byte] >> 4;
        dst[i] = codebook[code] * scales[place / block - first_block];
    }
}

/* The code of the nearest value of the dynamic map: by halving, then the nearer of two. */
static uint8_t dynamic_code(float t)
{
    int low = 0, high = 255;
    while (high - low > 1) {
        int middle = (low + high) / 2;
        *(t < ct_bnb_dynamic_map[middle] ? &high : &low) = middle;
    }
    float middle = (ct_bnb_dynamic_map[low] + ct_bnb_dynamic_map[high]) * 0.5f;
    return (uint8_t)(t > middle ? high : low);
}

void ct_bnb_quantize_scales(uint8_t *codes, float *nested_absmax, float *offset, const float *x,
                            int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += x[i];
    *offset = n ? (float)(sum / (double)n) : 0;
    for (int64_t i = 0; i < n; i += CT_NESTED_BLOCK) {
        int64_t end = n - i < CT_NESTED_BLOCK ? n : i + CT_NESTED_BLOCK;
        float max = 0;
        for (int64_t j = i; j < end; j++) {
            float distance = fabsf(x[j] - *offset);
            max = distance > max ? distance : max;
        }
        nested_absmax[i / CT_NESTED_BLOCK] = max;
        float factor = max > 0 ? 1 / max : 0;
        for (int64_t j = i; j < end; j++)
            codes[j] = dynamic_code((x[j] - *offset) * factor);
    }
}

float ct_bnb_quantize_int8_row(int8_t *codes, const float *x, int64_t n)
{
    float max = largest(x, n);
    float scale = ct_int8_scale(max);
    for (int64_t i = 0; i < n; i++)
        codes[i] = (int8_t)rintf(x[i] * scale);
    return max;
}
