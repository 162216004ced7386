/* Written for being read beside the formulas: no blocking, no cache, no fusing, everything twice as
 * wide as the core computes it. */
#include "model_oracle.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef const oracle_input *input;

/* ---- parts ---- */

/* The values of a weight; matrices are rounded to the model's type, vectors are not. */
static void get(input in, float *out, ct_role role, int64_t layer, int64_t rows, int64_t columns)
{
    tiny_values(out, role, layer, rows, columns, columns ? (ct_dtype)in->spec->dtype : CT_F32);
}

/* y [n, rows] = x [n, columns] W^T, plus the bias that follows W in the list of roles. */
static void linear(input in, double *y, const double *x, ct_role role, int64_t layer, int64_t rows,
                   int64_t columns, bool bias)
{
    float w[rows * columns], b[rows];
    get(in, w, role, layer, rows, columns);
    if (bias)
        get(in, b, role + 1, layer, rows, 0);
    for (int64_t t = 0; t < in->n; t++) {
        for (int64_t i = 0; i < rows; i++) {
            double sum = bias ? b[i] : 0;
            for (int64_t j = 0; j < columns; j++)
                sum += w[i * columns + j] * x[t * columns + j];
            y[t * rows + i] = sum;
        }
    }
}

/* Each of the `count` rows of x [count, width] in place, when `present`. */
static void norm(input in, int64_t present, double *x, int64_t count, int64_t width, ct_role role,
                 int64_t layer)
{
    const ct_spec *s = in->spec;
    bool rms = s->norm_kind == CT_NORM_RMS, bias = !rms && s->norm_bias;
    float w[width], b[width];
    if (!present)
        return;
    get(in, w, role, layer, width, 0);
    if (bias)
        get(in, b, role + 1, layer, width, 0);
    for (double *row = x; row < x + count * width; row += width) {
        double mean = 0, square = 0;
        for (int64_t i = 0; i < width && !rms; i++)
            mean += row[i] / (double)width;
        for (int64_t i = 0; i < width; i++)
            square += (row[i] - mean) * (row[i] - mean) / (double)width;
        for (int64_t i = 0; i < width; i++)
            row[i] = (row[i] - mean) / sqrt(square + s->norm_eps) * w[i] + (bias ? b[i] : 0);
    }
}

static double activation(int64_t kind, double x)
{
    switch (kind) {
    case CT_ACT_RELU:
        return x > 0 ? x : 0;
    case CT_ACT_GELU:
        return x * 0.5 * (1 + erf(x / sqrt(2)));
    case CT_ACT_GELU_TANH:
        return x * 0.5 * (1 + tanh(sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x)));
    case CT_ACT_SILU:
        return x / (1 + exp(-x));
    default:
        return x;
    }
}

static void copy(double *y, const double *x, int64_t n)
{
    memcpy(y, x, sizeof *y * (size_t)n);
}

static void add(double *y, const double *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] += x[i];
}

/* ---- attention ---- */

/* Queries, keys and values as [n, heads, d] each. */
typedef struct heads {
    double *q, *k, *v;
} heads;

/* One matrix: all queries, all keys, all values; or group by group its queries, key and value. */
static void split_fused(input in, heads out, const double *qkv)
{
    const ct_spec *s = in->spec;
    int64_t d = s->head_width, group = s->n_heads / s->n_kv_heads;
    for (int64_t t = 0; t < in->n; t++) {
        double *q = out.q + t * s->n_heads * d;
        double *k = out.k + t * s->n_kv_heads * d, *v = out.v + t * s->n_kv_heads * d;
        if (s->qkv_order == CT_QKV_CONCATENATED) {
            copy(q, qkv, s->n_heads * d), qkv += s->n_heads * d;
            copy(k, qkv, s->n_kv_heads * d), qkv += s->n_kv_heads * d;
            copy(v, qkv, s->n_kv_heads * d), qkv += s->n_kv_heads * d;
            continue;
        }
        for (int64_t g = 0; g < s->n_kv_heads; g++) {
            copy(q + g * group * d, qkv, group * d), qkv += group * d;
            copy(k + g * d, qkv, d), qkv += d;
            copy(v + g * d, qkv, d), qkv += d;
        }
    }
}

static void clip(double *x, int64_t n, double bound)
{
    for (int64_t i = 0; i < n && bound > 0; i++)
        x[i] = fmax(-bound, fmin(bound, x[i]));
}

static void project(input in, heads out, const double *x, int64_t layer)
{
    const ct_spec *s = in->spec;
    int64_t queries = s->n_heads * s->head_width, keys = s->n_kv_heads * s->head_width;
    int64_t width = s->hidden_width, n = in->n;
    if (tiny_is_fused(s)) {
        double qkv[n * (queries + 2 * keys)];
        linear(in, qkv, x, CT_ROLE_QKV_WEIGHT, layer, queries + 2 * keys, width, s->qkv_bias);
        split_fused(in, out, qkv);
    } else {
        linear(in, out.q, x, CT_ROLE_QUERY_WEIGHT, layer, queries, width, s->qkv_bias);
        linear(in, out.k, x, CT_ROLE_KEY_WEIGHT, layer, keys, width, s->qkv_bias);
        linear(in, out.v, x, CT_ROLE_VALUE_WEIGHT, layer, keys, width, s->qkv_bias);
    }
    clip(out.q, n * queries, s->clip_qkv);
    clip(out.k, n * keys, s->clip_qkv);
    clip(out.v, n * keys, s->clip_qkv);
    if (s->qk_norm == CT_QK_NORM_HEAD) {
        norm(in, 1, out.q, n * s->n_heads, s->head_width, CT_ROLE_QUERY_NORM_WEIGHT, layer);
        norm(in, 1, out.k, n * s->n_kv_heads, s->head_width, CT_ROLE_KEY_NORM_WEIGHT, layer);
    } else if (s->qk_norm == CT_QK_NORM_ALL) {
        norm(in, 1, out.q, n, queries, CT_ROLE_QUERY_NORM_WEIGHT, layer);
        norm(in, 1, out.k, n, keys, CT_ROLE_KEY_NORM_WEIGHT, layer);
    }
}

/* Whether an application of a layer sees only what is near. */
static bool is_local(input in, int64_t application)
{
    const ct_spec *s = in->spec;
    int64_t n = s->n_layers * s->layers_per_group;
    float flags[n];
    if (!s->local_layers)
        return s->window > 0;
    get(in, flags, CT_ROLE_ATTENTION_LOCAL, -1, n, 0);
    return flags[application] == 1;
}

/* Turns pairs of features of every head of x [n, count, d] by position * frequency. */
static void rotate(input in, double *x, int64_t count, int64_t application)
{
    const ct_spec *s = in->spec;
    int64_t half = s->rotary_width / 2;
    bool own = s->rotary_local && is_local(in, application);
    double factor = own ? 1 : s->rotary_factor;
    float frequencies[half + 1];
    if (half > 0)
        get(in, frequencies, own ? CT_ROLE_ROTARY_LOCAL_FREQUENCIES : CT_ROLE_ROTARY_FREQUENCIES,
            -1, half, 0);
    for (int64_t t = 0; t < in->n; t++) {
        for (int64_t h = 0; h < count; h++) {
            double *head = x + (t * count + h) * s->head_width;
            for (int64_t i = 0; i < half; i++) {
                double angle = in->positions[t] * (double)frequencies[i];
                double *a = s->rotary_interleaved ? &head[2 * i] : &head[i];
                double *b = s->rotary_interleaved ? &head[2 * i + 1] : &head[i + half];
                double c = factor * cos(angle), d = factor * sin(angle);
                double turned = *a * c - *b * d;
                *b = *b * c + *a * d;
                *a = turned;
            }
        }
    }
}

/* The ALiBi slope of head h: r, r^2, r^3 ... with r = 2^(-max / k) for the first k heads, k the
 * largest power of two that there are heads for, then s, s^3, s^5 ... with s^2 = r. */
static double slope(const ct_spec *s, int64_t h)
{
    int64_t k = 1;
    while (k * 2 <= s->n_heads)
        k *= 2;
    double r = pow(2, -s->alibi_max_bias / (double)k);
    return h < k ? pow(r, (double)h + 1) : sqrt(r) * pow(r, (double)(h - k));
}

/* What head h adds for a key `distance` places behind the query: one value for each of the smallest
 * distances, then for distances growing by a constant factor; keys after the query have their own.
 */
static double relative_bias(input in, int64_t h, int64_t distance)
{
    const ct_spec *s = in->spec;
    int64_t half = s->relative_buckets / 2, exact = half / 2, away = llabs(distance);
    float weight[s->relative_buckets * s->n_heads + 1];
    if (half == 0)
        return 0;
    get(in, weight, CT_ROLE_RELATIVE_BIAS, -1, s->relative_buckets, s->n_heads);
    double step = pow((double)s->relative_max_distance / (double)exact, 1 / (double)(half - exact));
    int64_t bucket = away < exact ? away : exact;
    while (away >= exact && bucket < half - 1 &&
           (double)away >= (double)exact * pow(step, (double)(bucket + 1 - exact)))
        bucket++;
    return weight[(bucket + (distance > 0 ? half : 0)) * s->n_heads + h];
}

static bool sees(input in, int64_t application, int64_t h, int64_t i, int64_t j)
{
    const ct_spec *s = in->spec;
    if (s->causal && j > i)
        return false;
    if (is_local(in, application) && llabs(i - j) >= s->window)
        return false;
    return !in->allowed || in->allowed[(h * in->n + i) * in->n + j];
}

static double score(input in, const double *q, const double *k, int64_t h, int64_t i, int64_t j)
{
    const ct_spec *s = in->spec;
    double product = 0, bias = s->alibi ? -slope(s, h) * (double)llabs(i - j) : 0;
    for (int64_t f = 0; f < s->head_width; f++)
        product += q[f] * k[f];
    double all = s->alibi_scaled ? (product + bias) * s->attention_scale
                                 : product * s->attention_scale + bias;
    all += relative_bias(in, h, j - i);
    double cap = s->attention_softcap;
    return cap > 0 ? cap * tanh(all / cap) : all;
}

/* out [n, n_heads, d]: softmax-weighted values; zeros where a query sees no key. */
static void mix_values(input in, double *out, heads x, int64_t application)
{
    const ct_spec *s = in->spec;
    int64_t d = s->head_width, group = s->n_heads / s->n_kv_heads;
    memset(out, 0, sizeof *out * (size_t)(in->n * s->n_heads * d));
    for (int64_t i = 0; i < in->n; i++) {
        for (int64_t h = 0; h < s->n_heads; h++) {
            double weights[in->n], largest = -INFINITY, sum = 0;
            int64_t g = h / group;
            for (int64_t j = 0; j < in->n; j++) {
                weights[j] = !sees(in, application, h, i, j)
                                 ? -INFINITY
                                 : score(in, x.q + (i * s->n_heads + h) * d,
                                         x.k + (j * s->n_kv_heads + g) * d, h, i, j);
                largest = fmax(largest, weights[j]);
            }
            for (int64_t j = 0; j < in->n && largest > -INFINITY; j++)
                sum += exp(weights[j] - largest);
            for (int64_t j = 0; j < in->n && largest > -INFINITY; j++)
                for (int64_t f = 0; f < d; f++)
                    out[(i * s->n_heads + h) * d + f] +=
                        exp(weights[j] - largest) / sum * x.v[(j * s->n_kv_heads + g) * d + f];
        }
    }
}

static void attention(input in, double *y, const double *x, int64_t layer, int64_t application)
{
    const ct_spec *s = in->spec;
    int64_t queries = s->n_heads * s->head_width, keys = s->n_kv_heads * s->head_width;
    double q[in->n * queries], k[in->n * keys], v[in->n * keys], mixed[in->n * queries];
    heads all = {q, k, v};
    project(in, all, x, layer);
    rotate(in, q, s->n_heads, application);
    rotate(in, k, s->n_kv_heads, application);
    mix_values(in, mixed, all, application);
    linear(in, y, mixed, CT_ROLE_ATTENTION_OUTPUT_WEIGHT, layer, s->hidden_width, queries,
           s->attention_output_bias);
}

/* ---- the layer and the model ---- */

static void feed_forward(input in, double *y, const double *x, int64_t layer)
{
    const ct_spec *s = in->spec;
    int64_t inner = s->intermediate_width, width = s->hidden_width, n = in->n * inner;
    double up[n], gate[n];
    linear(in, up, x, CT_ROLE_UP_WEIGHT, layer, inner, width, s->ffn_bias);
    if (s->gated)
        linear(in, gate, x, CT_ROLE_GATE_WEIGHT, layer, inner, width, s->ffn_bias);
    for (int64_t i = 0; i < n; i++)
        up[i] = s->gated ? activation(s->activation, gate[i]) * up[i]
                         : activation(s->activation, up[i]);
    linear(in, y, up, CT_ROLE_DOWN_WEIGHT, layer, width, inner, s->ffn_bias);
}

/* x in place. */
static void run_layer(input in, double *x, int64_t layer, int64_t application)
{
    const ct_spec *s = in->spec;
    int64_t w = s->hidden_width, n = in->n, all = n * w;
    double read[all], attended[all], fed[all];
    copy(read, x, all);
    norm(in, s->attention_input_norm && !(s->bare_first_layer && layer == 0), read, n, w,
         CT_ROLE_ATTENTION_INPUT_NORM_WEIGHT, layer);
    attention(in, attended, read, layer, application);
    norm(in, s->attention_output_norm, attended, n, w, CT_ROLE_ATTENTION_OUTPUT_NORM_WEIGHT, layer);
    if (!s->parallel) {
        add(x, attended, all);
        norm(in, s->attention_residual_norm, x, n, w, CT_ROLE_ATTENTION_RESIDUAL_NORM_WEIGHT,
             layer);
    }
    if (!s->parallel || s->ffn_input_norm)
        copy(read, x, all);
    norm(in, s->ffn_input_norm, read, n, w, CT_ROLE_FFN_INPUT_NORM_WEIGHT, layer);
    feed_forward(in, fed, read, layer);
    norm(in, s->ffn_output_norm, fed, n, w, CT_ROLE_FFN_OUTPUT_NORM_WEIGHT, layer);
    add(x, fed, all);
    if (s->parallel)
        add(x, attended, all);
    norm(in, s->ffn_residual_norm, x, n, w, CT_ROLE_FFN_RESIDUAL_NORM_WEIGHT, layer);
}

static void add_rows(input in, double *y, ct_role role, int64_t rows, const int32_t *indices,
                     double scale)
{
    int64_t width = in->spec->embedding_width;
    float table[rows * width + 1];
    if (rows > 0)
        get(in, table, role, -1, rows, width);
    for (int64_t t = 0; t < in->n && rows > 0; t++)
        for (int64_t i = 0; i < width; i++)
            y[t * width + i] += scale * table[(indices ? indices[t] : 0) * width + i];
}

static void embed(input in, double *out)
{
    const ct_spec *s = in->spec;
    int64_t width = s->embedding_width;
    double sum[in->n * width];
    memset(sum, 0, sizeof sum);
    add_rows(in, sum, CT_ROLE_PIECE_EMBEDDINGS, s->n_pieces, in->ids, s->embedding_scale);
    add_rows(in, sum, CT_ROLE_POSITION_EMBEDDINGS, s->n_positions, in->positions, 1);
    add_rows(in, sum, CT_ROLE_TYPE_EMBEDDINGS, s->n_types, in->types, 1);
    norm(in, s->embedding_norm, sum, in->n, width, CT_ROLE_EMBEDDING_NORM_WEIGHT, -1);
    if (s->embedding_projection)
        linear(in, out, sum, CT_ROLE_PROJECTION_WEIGHT, -1, s->hidden_width, width, true);
    else
        copy(out, sum, in->n * width);
}

static void head(input in, double *logits, const double *x)
{
    const ct_spec *s = in->spec;
    double cap = s->logit_softcap;
    float bias[s->n_pieces];
    if (s->head_bias)
        get(in, bias, CT_ROLE_HEAD_BIAS, -1, s->n_pieces, 0);
    linear(in, logits, x, tiny_is_tied(s) ? CT_ROLE_PIECE_EMBEDDINGS : CT_ROLE_HEAD_WEIGHT, -1,
           s->n_pieces, s->hidden_width, false);
    for (int64_t i = 0; i < in->n * s->n_pieces; i++) {
        double logit = s->logit_scale * (logits[i] + (s->head_bias ? bias[i % s->n_pieces] : 0));
        logits[i] = cap > 0 ? cap * tanh(logit / cap) : logit;
    }
}

void oracle_run(const oracle_input *in, double *hidden, double *logits)
{
    const ct_spec *s = in->spec;
    int64_t all = in->n * s->hidden_width, repeats = s->n_layers / s->n_layer_groups;
    embed(in, hidden);
    for (int64_t i = 0; i < s->n_layers; i++) {
        double *x = hidden + (i + 1) * all;
        copy(x, hidden + i * all, all);
        for (int64_t j = 0; j < s->layers_per_group; j++)
            run_layer(in, x, i / repeats * s->layers_per_group + j, i * s->layers_per_group + j);
    }
    double *last = hidden + s->n_layers * all;
    norm(in, s->output_norm, last, in->n, s->hidden_width, CT_ROLE_OUTPUT_NORM_WEIGHT, -1);
    if (s->head)
        head(in, logits, last);
}

/* ---- comparing ---- */

double row_distance(const double *a, const double *b, int64_t n)
{
    double difference = 0, length = 0;
    for (int64_t i = 0; i < n; i++) {
        difference += (a[i] - b[i]) * (a[i] - b[i]);
        length += b[i] * b[i];
    }
    double distance = sqrt(difference / (length > 0 ? length : 1));
    return isnan(distance) ? INFINITY : distance;
}

double float_row_distance(const float *a, const double *b, int64_t n)
{
    double wide[n];
    for (int64_t i = 0; i < n; i++)
        wide[i] = a[i];
    return row_distance(wide, b, n);
}

double distance_from_oracle(const tiny_result *result, const oracle_input *sequences)
{
    double worst = 0;
    for (int64_t q = 0; q < result->batch.n_sequences; q++) {
        input in = &sequences[q];
        const ct_spec *s = in->spec;
        int64_t first = result->batch.offsets[q], n = result->batch.offsets[q + 1] - first;
        double hidden[(s->n_layers + 1) * in->n * s->hidden_width + 1];
        double logits[in->n * s->n_pieces + 1];
        if (n == 0)
            continue;
        oracle_run(in, hidden, logits);
        for (int64_t t = 0; t < n; t++) {
            int64_t place = in->n - n + t;
            for (int64_t i = 0; i <= s->n_layers; i++)
                worst =
                    fmax(worst, float_row_distance(tiny_hidden(result, i, first + t),
                                                   hidden + (i * in->n + place) * s->hidden_width,
                                                   s->hidden_width));
            if (s->head)
                worst = fmax(worst, float_row_distance(tiny_logits(result, first + t),
                                                       logits + place * s->n_pieces, s->n_pieces));
        }
    }
    return worst;
}
