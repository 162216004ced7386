/* What works on one row of activations, by the formula. */
#include "cpu/isa/portable/table.h"

#include <math.h>

static float softmax_step(float *s, int64_t n, float *max, float *sum)
{
    float top = *max;
    for (int64_t i = 0; i < n; i++)
        top = s[i] > top ? s[i] : top;
    if (top == -INFINITY) {
        for (int64_t i = 0; i < n; i++) {
            s[i] = isnan(s[i]) ? s[i] : 0;
            *sum += s[i];
        }
        return 1;
    }
    float correction = expf(*max - top), total = 0;
    for (int64_t i = 0; i < n; i++) {
        s[i] = expf(s[i] - top);
        total += s[i];
    }
    *sum = *sum * correction + total;
    *max = top;
    return correction;
}

static void layer_norm(float *y, const float *x, const float *weight, const float *bias, float eps,
                       int64_t n)
{
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < n; i++)
        sum += x[i];
    double mean = sum / (double)n;
    for (int64_t i = 0; i < n; i++)
        squares += (x[i] - mean) * (x[i] - mean);
    double scale = 1 / sqrt(squares / (double)n + (double)eps);
    for (int64_t i = 0; i < n; i++)
        y[i] = (float)((x[i] - mean) * scale) * weight[i] + (bias ? bias[i] : 0);
}

static void rms_norm(float *y, const float *x, const float *weight, float eps, int64_t n)
{
    double squares = 0;
    for (int64_t i = 0; i < n; i++)
        squares += (double)x[i] * x[i];
    float scale = (float)(1 / sqrt(squares / (double)n + (double)eps));
    for (int64_t i = 0; i < n; i++)
        y[i] = x[i] * scale * weight[i];
}

static void none(float *y, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = x[i];
}

static void relu(float *y, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = x[i] < 0 ? 0 : x[i];
}

static void gelu(float *y, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = 0.5f * x[i] * (1 + erff(x[i] * 0.70710678f)); /* 1 / sqrt(2) */
}

static void gelu_tanh(float *y, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        float inner = 0.79788456f * (x[i] + 0.044715f * x[i] * x[i] * x[i]); /* sqrt(2 / pi) */
        y[i] = 0.5f * x[i] * (1 + tanhf(inner));
    }
}

static void silu(float *y, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = x[i] / (1 + expf(-x[i]));
}

static void add(float *y, const float *a, const float *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = a[i] + b[i];
}

static void mul(float *y, const float *a, const float *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = a[i] * b[i];
}

static void scale(float *x, float alpha, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        x[i] *= alpha;
}

static inline void rotate(float *a, float *b, float cos, float sin)
{
    float first = *a, second = *b;
    *a = first * cos - second * sin;
    *b = second * cos + first * sin;
}

static void rotary_halves(float *x, const float *cos, const float *sin, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        rotate(&x[i], &x[i + n], cos[i], sin[i]);
}

static void rotary_pairs(float *x, const float *cos, const float *sin, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        rotate(&x[2 * i], &x[2 * i + 1], cos[i], sin[i]);
}

static int64_t argmax(const float *x, int64_t n)
{
    int64_t best = 0;
    float top = -INFINITY;
    for (int64_t i = 0; i < n; i++) {
        if (x[i] > top) {
            top = x[i];
            best = i;
        }
    }
    return best;
}

static float exp_sum(float *x, float max, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        x[i] = expf(x[i] - max);
        sum += x[i];
    }
    return (float)sum;
}

void ct_portable_fill_rowwise(ct_kernels *table)
{
    table->softmax_step = softmax_step;
    table->layer_norm = layer_norm;
    table->rms_norm = rms_norm;
    table->activate[CT_ACT_NONE] = none;
    table->activate[CT_ACT_RELU] = relu;
    table->activate[CT_ACT_GELU] = gelu;
    table->activate[CT_ACT_GELU_TANH] = gelu_tanh;
    table->activate[CT_ACT_SILU] = silu;
    table->add = add;
    table->mul = mul;
    table->scale = scale;
    table->rotary_halves = rotary_halves;
    table->rotary_pairs = rotary_pairs;
    table->argmax = argmax;
    table->exp_sum = exp_sum;
}
