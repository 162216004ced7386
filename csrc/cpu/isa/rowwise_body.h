/* The rowwise kernels, written once for every vector ISA. Include after that ISA's vector.h; the
 * one function that leaves is fill_rowwise. */
#include <math.h>

#include "cpu/isa/kernels.h"
#include "cpu/isa/vector_math.h"

static float softmax_step(float *s, int64_t n, float *max, float *sum)
{
    vec tops = v_set1(*max);
    int64_t i;
    for (i = 0; i + V_WIDTH <= n; i += V_WIDTH)
        tops = v_max(v_load(s + i), tops);
    if (i < n)
        tops = v_max(v_first_n(v_load_n(s + i, n - i), tops, n - i), tops);
    float top = v_top(tops);
    if (top == -INFINITY) {
        for (i = 0; i < n; i++) {
            s[i] = isnan(s[i]) ? s[i] : 0;
            *sum += s[i];
        }
        return 1;
    }
    vec totals = v_set1(0), shift = v_set1(top);
    for (i = 0; i + V_WIDTH <= n; i += V_WIDTH) {
        vec p = v_exp(v_sub(v_load(s + i), shift));
        v_store(s + i, p);
        totals = v_add(totals, p);
    }
    if (i < n) {
        vec p = v_exp(v_sub(v_load_n(s + i, n - i), shift));
        v_store_n(s + i, p, n - i);
        totals = v_add(totals, v_first_n(p, v_set1(0), n - i));
    }
    float correction = *max == top ? 1 : expf(*max - top);
    *sum = *sum * correction + v_sum(totals);
    *max = top;
    return correction;
}

static float exp_sum(float *x, float max, int64_t n)
{
    vec totals = v_set1(0), shift = v_set1(max);
    int64_t i;
    for (i = 0; i + V_WIDTH <= n; i += V_WIDTH) {
        vec p = v_exp(v_sub(v_load(x + i), shift));
        v_store(x + i, p);
        totals = v_add(totals, p);
    }
    if (i < n) {
        vec p = v_exp(v_sub(v_load_n(x + i, n - i), shift));
        v_store_n(x + i, p, n - i);
        totals = v_add(totals, v_first_n(p, v_set1(0), n - i));
    }
    return v_sum(totals);
}

/* Sum of (x - shift)^power for power 1 or 2. Four sums at a time hide the latency of adding. */
static inline float sum_shifted(const float *x, float shift, int power, int64_t n)
{
    vec totals[4] = {v_set1(0), v_set1(0), v_set1(0), v_set1(0)}, shifts = v_set1(shift);
    int64_t i = 0;
    for (; i + 4 * V_WIDTH <= n; i += 4 * V_WIDTH)
#pragma GCC unroll 4
        for (int t = 0; t < 4; t++) {
            vec d = v_sub(v_load(x + i + t * V_WIDTH), shifts);
            totals[t] = power == 1 ? v_add(totals[t], d) : v_fma(d, d, totals[t]);
        }
    for (; i < n; i += V_WIDTH) {
        vec d = v_first_n(v_sub(v_load_n(x + i, n - i), shifts), v_set1(0), n - i);
        totals[0] = power == 1 ? v_add(totals[0], d) : v_fma(d, d, totals[0]);
    }
    return v_sum(v_add(v_add(totals[0], totals[1]), v_add(totals[2], totals[3])));
}

/* y = (x - shift) * scale * weight + bias */
static inline void scale_and_shift(float *y, const float *x, float shift, float scale,
                                   const float *weight, const float *bias, int64_t n)
{
    vec shifts = v_set1(shift), scales = v_set1(scale);
    int64_t i = 0;
    for (; i + V_WIDTH <= n; i += V_WIDTH) {
        vec d = v_mul(v_sub(v_load(x + i), shifts), scales), w = v_load(weight + i);
        v_store(y + i, bias ? v_fma(d, w, v_load(bias + i)) : v_mul(d, w));
    }
    if (i < n) {
        int64_t left = n - i;
        vec d = v_mul(v_sub(v_load_n(x + i, left), shifts), scales), w = v_load_n(weight + i, left);
        v_store_n(y + i, bias ? v_fma(d, w, v_load_n(bias + i, left)) : v_mul(d, w), left);
    }
}

static void layer_norm(float *y, const float *x, const float *weight, const float *bias, float eps,
                       int64_t n)
{
    float mean = sum_shifted(x, 0, 1, n) / (float)n;
    mean += sum_shifted(x, mean, 1, n) / (float)n; /* what the first sum lost in rounding */
    float variance = sum_shifted(x, mean, 2, n) / (float)n;
    scale_and_shift(y, x, mean, 1 / sqrtf(variance + eps), weight, bias, n);
}

static void rms_norm(float *y, const float *x, const float *weight, float eps, int64_t n)
{
    float mean_square = sum_shifted(x, 0, 2, n) / (float)n;
    scale_and_shift(y, x, 0, 1 / sqrtf(mean_square + eps), weight, NULL, n);
}

static inline void map_row(float *y, const float *x, int64_t n, vec (*function)(vec))
{
    int64_t i;
    for (i = 0; i + V_WIDTH <= n; i += V_WIDTH)
        v_store(y + i, function(v_load(x + i)));
    if (i < n)
        v_store_n(y + i, function(v_load_n(x + i, n - i)), n - i);
}

static void relu(float *y, const float *x, int64_t n)
{
    map_row(y, x, n, v_relu);
}
static void gelu(float *y, const float *x, int64_t n)
{
    map_row(y, x, n, v_gelu);
}
static void gelu_tanh(float *y, const float *x, int64_t n)
{
    map_row(y, x, n, v_gelu_tanh);
}
static void silu(float *y, const float *x, int64_t n)
{
    map_row(y, x, n, v_silu);
}

static inline void map_rows(float *y, const float *a, const float *b, int64_t n,
                            vec (*function)(vec, vec))
{
    int64_t i;
    for (i = 0; i + V_WIDTH <= n; i += V_WIDTH)
        v_store(y + i, function(v_load(a + i), v_load(b + i)));
    if (i < n)
        v_store_n(y + i, function(v_load_n(a + i, n - i), v_load_n(b + i, n - i)), n - i);
}

static void add(float *y, const float *a, const float *b, int64_t n)
{
    map_rows(y, a, b, n, v_add);
}
static void mul(float *y, const float *a, const float *b, int64_t n)
{
    map_rows(y, a, b, n, v_mul);
}

static void scale(float *x, float alpha, int64_t n)
{
    vec alphas = v_set1(alpha);
    int64_t i;
    for (i = 0; i + V_WIDTH <= n; i += V_WIDTH)
        v_store(x + i, v_mul(v_load(x + i), alphas));
    if (i < n)
        v_store_n(x + i, v_mul(v_load_n(x + i, n - i), alphas), n - i);
}

static void rotary_halves(float *x, const float *cos, const float *sin, int64_t n)
{
    for (int64_t i = 0; i < n; i += V_WIDTH) {
        int64_t left = n - i;
        vec a = v_load_n(x + i, left), b = v_load_n(x + n + i, left);
        vec c = v_load_n(cos + i, left), s = v_load_n(sin + i, left);
        v_store_n(x + i, v_sub(v_mul(a, c), v_mul(b, s)), left);
        v_store_n(x + n + i, v_fma(b, c, v_mul(a, s)), left);
    }
}

static int64_t argmax(const float *x, int64_t n)
{
    vec tops = v_set1(-INFINITY);
    int64_t i;
    for (i = 0; i + V_WIDTH <= n; i += V_WIDTH)
        tops = v_max(v_load(x + i), tops);
    if (i < n)
        tops = v_max(v_first_n(v_load_n(x + i, n - i), tops, n - i), tops);
    float top = v_top(tops);
    if (top == -INFINITY)
        return 0;
    vec wanted = v_set1(top);
    for (i = 0; i + V_WIDTH <= n; i += V_WIDTH) {
        int lane = v_find(v_load(x + i), wanted);
        if (lane >= 0)
            return i + lane;
    }
    while (x[i] != top)
        i++;
    return i;
}

static inline void fill_rowwise(ct_kernels *table)
{
    table->softmax_step = softmax_step;
    table->layer_norm = layer_norm;
    table->rms_norm = rms_norm;
    table->activate[CT_ACT_RELU] = relu;
    table->activate[CT_ACT_GELU] = gelu;
    table->activate[CT_ACT_GELU_TANH] = gelu_tanh;
    table->activate[CT_ACT_SILU] = silu;
    table->add = add;
    table->mul = mul;
    table->scale = scale;
    table->rotary_halves = rotary_halves;
    table->argmax = argmax;
    table->exp_sum = exp_sum;
}
