/* Linear layers of every element type, with every epilogue, against sums in double precision. */
#include "test.h"

#include <pthread.h>

#include "cpu/kernels.h"
#include "cpu_rows.h"
#include "quant/format.h"

/* One layer and one call of it. */
typedef struct linear_case {
    ct_dtype dtype, x_dtype, y_dtype, other_dtype;
    const ct_dtype *mixed; /* of each part, instead of dtype, or NULL */
    ct_linear_use use;
    int n_parts;
    int64_t n[CT_LINEAR_MAX_PARTS], k, n_rows;
    ct_activation activation;
    enum {
        NOTHING,
        GATED,
        RESIDUAL,
        RESIDUAL_IN_PLACE
    } other; /* GATED: by a part like the first */
    enum { NO_NORM, LAYER_NORM, RMS_NORM } norm;
    float clip;
    bool bias;
    ct_dtype model_dtype; /* CT_F32, or x may be rounded by blocks of 32 where blocks meet it */
    bool awkward;         /* blocks of zeros, of subnormals, and with one value beyond all others */
} linear_case;

static const ct_dtype weight_types[] = {CT_F32,  CT_F16,  CT_BF16, CT_Q8_0, CT_Q4_0, CT_Q4_1,
                                        CT_Q5_0, CT_Q5_1, CT_Q4_K, CT_Q5_K, CT_Q6_K};
#define N_WEIGHT_TYPES (sizeof weight_types / sizeof *weight_types)

/* Random weights [n, k]. */
static ct_status new_weight(ct_tensor **out, uint64_t *seed, ct_dtype dtype, int64_t n, int64_t k)
{
    CT_TRY(ct_tensor_new(out, dtype, 2, (int64_t[]){n, k}));
    const ct_format *format = ct_format_get(dtype);
    float *row = malloc(sizeof *row * (size_t)k);
    size_t row_bytes;
    ct_status status = ct_dtype_row_bytes(&row_bytes, dtype, k);
    for (int64_t i = 0; i < n; i++) {
        char *to = (char *)ct_tensor_data(*out) + (size_t)i * row_bytes;
        for (int64_t j = 0; j < k; j++) {
            row[j] = random_value(seed, 1);
            if (!format)
                set_value(to, dtype, j, row[j]);
        }
        if (format)
            format->quantize(to, row, k);
    }
    free(row);
    return status;
}

static void weight_row(double *out, const ct_tensor *weight, int64_t i)
{
    int64_t k = weight->shape[1];
    const ct_format *format = ct_format_get(weight->dtype);
    if (!format) {
        for (int64_t j = 0; j < k; j++)
            out[j] = get_value(ct_tensor_data(weight), weight->dtype, i * k + j);
        return;
    }
    float *row = malloc(sizeof *row * (size_t)k);
    size_t row_bytes =
        (size_t)(k / ct_dtype_block_values(weight->dtype)) * ct_dtype_block_bytes(weight->dtype);
    format->dequantize(row, (const char *)ct_tensor_data(weight) + (size_t)i * row_bytes, k);
    for (int64_t j = 0; j < k; j++)
        out[j] = row[j];
    free(row);
}

static double activation(ct_activation kind, double x)
{
    switch (kind) {
    case CT_ACT_RELU:
        return x < 0 ? 0 : x;
    case CT_ACT_GELU:
        return 0.5 * x * (1 + erf(x * M_SQRT1_2));
    case CT_ACT_GELU_TANH:
        return 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case CT_ACT_SILU:
        return x / (1 + exp(-x));
    default:
        return x;
    }
}

/* One product, and in *magnitude what rounding is measured by. */
static double expected_product(const linear_case *c, const ct_rows *x, ct_dtype input, int64_t row,
                               const double *weights, double bias, double *magnitude)
{
    double sum = bias;
    *magnitude = fabs(bias);
    for (int64_t j = 0; j < c->k; j++) {
        double value = rounded_to(input, row_value(x, row, j));
        sum += value * weights[j];
        *magnitude += fabs(value * weights[j]);
    }
    return sum;
}

static double clipped_and_activated(const linear_case *c, double value)
{
    if (c->clip > 0)
        value = fmax(-c->clip, fmin(c->clip, value));
    return activation(c->activation, value);
}

/* The rows that the products see: x, or its norm. */
static ct_rows normed_rows(const linear_case *c, const ct_rows *x, const ct_input_norm *norm)
{
    ct_rows out = new_rows(c->norm ? CT_F32 : x->dtype, x->n_rows, x->width, 0);
    for (int64_t i = 0; i < x->n_rows; i++) {
        double mean = 0, squares = 0, n = (double)x->width;
        for (int64_t j = 0; j < x->width && c->norm == LAYER_NORM; j++)
            mean += row_value(x, i, j) / n;
        for (int64_t j = 0; j < x->width; j++)
            squares += (row_value(x, i, j) - mean) * (row_value(x, i, j) - mean) / n;
        for (int64_t j = 0; j < x->width; j++) {
            double value = row_value(x, i, j);
            if (c->norm)
                value = (value - mean) / sqrt(squares + (double)norm->eps) *
                        ((const float *)ct_tensor_data(norm->weight))[j];
            if (norm->bias)
                value += ((const float *)ct_tensor_data(norm->bias))[j];
            set_value(out.data, out.dtype, i * out.stride + j, (float)value);
        }
    }
    return out;
}

/* What a product loses at most by x that is rounded to 16 bits in blocks of 32. */
static double rounding_loss(const linear_case *c, const ct_rows *x, int64_t row,
                            const double *weights)
{
    double loss = 0;
    for (int64_t b = 0; c->model_dtype != CT_F32 && b + 32 <= c->k; b += 32) {
        double largest = 0, sum = 0;
        for (int64_t j = b; j < b + 32; j++) {
            largest = fmax(largest, fabs(row_value(x, row, j)));
            sum += fabs(weights[j]);
        }
        loss += largest / 65534 * sum;
    }
    return loss;
}

/* f32 sums in another order, and vector exponentials of a few units; a norm that differs in its
 * last bit, and so in a bit of 16 of some values. */
static double tolerance_of(const linear_case *c, ct_dtype input, double magnitude)
{
    double of_norm = c->norm ? 4e-6 + rounding_of(input) / 16 : 0;
    return (4e-6 + of_norm) * magnitude;
}

/* The rows of all parts, as the products see them. */
static double *all_weights(const linear_case *c, ct_tensor *const *weight, ct_dtype input)
{
    int64_t n = 0;
    for (int p = 0; p < c->n_parts; p++)
        n += c->n[p];
    double *out = malloc(sizeof *out * (size_t)(n * c->k)), *row = out;
    for (int p = 0; p < c->n_parts; p++)
        for (int64_t j = 0; j < c->n[p]; j++, row += c->k) {
            weight_row(row, weight[p], j);
            for (int64_t i = 0; i < c->k; i++) /* floats are of that type already */
                row[i] = rounded_to(input, row[i]);
        }
    return out;
}

/* What a row of y should have in each column, and how far off it may be. */
static void expected_row(double *wanted, double *tolerance, const linear_case *c,
                         const double *weights, ct_tensor *const *bias, const ct_rows *x,
                         ct_dtype input, const ct_rows *other, ct_dtype y_dtype, int64_t row)
{
    double magnitude;
    for (int64_t p = 0, column = 0; p < c->n_parts; p++)
        for (int64_t j = 0; j < c->n[p]; j++, weights += c->k) {
            int64_t at = c->other == GATED ? j : column++;
            double b = bias[p] ? ((const float *)ct_tensor_data(bias[p]))[j] : 0;
            double value = expected_product(c, x, input, row, weights, b, &magnitude);
            double off = tolerance_of(c, input, magnitude + 1) + rounding_loss(c, x, row, weights);
            if (c->other == GATED && p == 1) {
                double gate = wanted[at];
                tolerance[at] = tolerance[at] * (fabs(value) + off) + fabs(gate) * off;
                wanted[at] = gate * value;
            } else {
                wanted[at] = clipped_and_activated(c, value);
                tolerance[at] = off;
            }
            if (other) {
                tolerance[at] += 4e-6 * fabs(row_value(other, row, at));
                wanted[at] += row_value(other, row, at);
            }
            tolerance[at] += rounding_of(y_dtype) * fabs(wanted[at]);
        }
}

/* Prints the case when a value is off. */
static bool check_rows(const linear_case *c, ct_tensor *const *weight, ct_tensor *const *bias,
                       const ct_rows *x, ct_dtype input, const ct_rows *other, const ct_rows *y)
{
    double *wanted = malloc(sizeof *wanted * (size_t)y->width);
    double *tolerance = malloc(sizeof *tolerance * (size_t)y->width);
    double *weights = all_weights(c, weight, input);
    bool good = gaps_untouched(y);
    for (int64_t i = 0; good && i < c->n_rows; i++) {
        expected_row(wanted, tolerance, c, weights, bias, x, input, other, y->dtype, i);
        for (int64_t j = 0; good && j < y->width; j++) {
            double got = row_value(y, i, j);
            good = fabs(got - wanted[j]) <= tolerance[j];
            if (!good)
                fprintf(stderr, "  row %lld column %lld: %.9g instead of %.9g\n", (long long)i,
                        (long long)j, got, wanted[j]);
        }
    }
    free(weights);
    free(tolerance);
    free(wanted);
    return good;
}

/* Every second row: its blocks by turns. */
static void make_awkward(ct_rows *x)
{
    for (int64_t i = 0; i < x->n_rows; i += 2) {
        float *row = (float *)x->data + i * x->stride;
        for (int64_t j = 0; j + 32 <= x->width; j++)
            row[j] *= j / 32 % 3 == 0 ? 0 : j / 32 % 3 == 1 ? 0x1p-130f : 1;
        row[x->width - 7] = 1e6f;
    }
}

/* It takes x in the type that the model computes in: floats' own, or any where blocks meet it. */
static ct_dtype model_of_cublas(const linear_case *c, uint64_t seed)
{
    static const ct_dtype types[] = {CT_F32, CT_F16, CT_BF16};
    bool is_float = !c->mixed && !ct_dtype_is_quantized(c->dtype);
    return is_float ? c->dtype : types[seed % 3];
}

static void new_norm(ct_input_norm *out, const linear_case *c, uint64_t *seed)
{
    *out = (ct_input_norm){c->norm == RMS_NORM ? CT_NORM_RMS : CT_NORM_LAYER, NULL, NULL, 1e-5f};
    if (c->norm)
        CHECK_OK(new_weight(&out->weight, seed, CT_F32, 1, c->k));
    if (c->norm == LAYER_NORM)
        CHECK_OK(new_weight(&out->bias, seed, CT_F32, 1, c->k));
}

/* The type in which the products want x, whether or not it is normed before. */
static void find_input(ct_dtype *input, const ct_ops *ops, const ct_linear_desc *desc,
                       int64_t n_rows)
{
    ct_linear *bare;
    ct_linear_desc without = *desc;
    without.norm = (ct_input_norm){0};
    CHECK_OK(ops->linear_new(&bare, &without));
    *input = ops->linear_input(bare, n_rows);
    ops->linear_free(&bare);
}

static void run_case(const ct_ops *ops, const char *level, const linear_case *any, uint64_t seed)
{
    linear_case one = *any, *c = &one;
    bool gated = one.other == GATED;
    if (gated) {
        one.n_parts = 2;
        one.n[1] = one.n[0];
    }
    ct_tensor *weight[CT_LINEAR_MAX_PARTS] = {NULL}, *bias[CT_LINEAR_MAX_PARTS] = {NULL};
    ct_linear_desc desc = {.n_parts = c->n_parts, .gated = gated, .use = c->use};
    desc.quantized.model_dtype =
        strcmp(level, WITH_CUBLAS) == 0 ? model_of_cublas(c, seed) : c->model_dtype;
    int64_t width = 0;
    if (strcmp(level, WITH_CUBLAS) == 0 && c->n_rows <= FEW_ROWS)
        return;
    for (int p = 0; p < c->n_parts; p++) {
        CHECK_OK(new_weight(&weight[p], &seed, c->mixed ? c->mixed[p] : c->dtype, c->n[p], c->k));
        if (c->bias && p != 1) /* the middle part goes without */
            CHECK_OK(new_weight(&bias[p], &seed, CT_F32, 1, c->n[p]));
        desc.weight[p] = weight[p];
        desc.bias[p] = bias[p];
        width = gated ? c->n[p] : width + c->n[p];
    }
    new_norm(&desc.norm, c, &seed);
    ct_linear *linear;
    CHECK_OK(ops->linear_new(&linear, &desc));
    ct_rows x = random_rows(&seed, c->x_dtype, c->n_rows, c->k, 3, 1), y, other = {0}, before = {0};
    bool in_place = c->other == RESIDUAL_IN_PLACE;
    if (c->awkward)
        make_awkward(&x);
    if (c->other && !gated) {
        other = random_rows(&seed, c->other_dtype, c->n_rows, width, 5, 2);
        before = other;
        before.data = malloc((size_t)(other.n_rows * other.stride * value_bytes(other.dtype)) + 1);
        memcpy(before.data, other.data,
               (size_t)(other.n_rows * other.stride * value_bytes(other.dtype)));
    }
    y = in_place ? other : new_rows(c->y_dtype, c->n_rows, width, 7);
    ct_epilogue epilogue = {.activation = c->activation, .clip = c->clip};
    if (other.data)
        epilogue.residual = &other;
    ct_arena arena = {0};
    ct_dtype input = CT_F32;
    find_input(&input, ops, &desc, c->n_rows);
    ct_rows seen = normed_rows(c, &x, &desc.norm);
    CHECK_INT(ops->linear_input(linear, c->n_rows), c->norm ? CT_F32 : input);
    CHECK_OK(ops->linear(linear, x, &epilogue, y, &arena));
    if (!check_rows(c, weight, bias, &seen, input, other.data ? &before : NULL, &y))
        FAIL(
            "level %s, %s weights, use %d, %d parts, k %lld, %lld rows, x %s, y %s, activation %d, "
            "other %d %s, norm %d, clip %g",
            level, c->mixed ? "mixed" : ct_dtype_name(c->dtype), c->use, c->n_parts,
            (long long)c->k, (long long)c->n_rows, ct_dtype_name(c->x_dtype),
            ct_dtype_name(c->y_dtype), c->activation, c->other, ct_dtype_name(c->other_dtype),
            c->norm, c->clip);
    ct_arena_clear(&arena);
    ops->linear_free(&linear);
    CHECK(!linear);
    ops->linear_free(&linear);
    for (int p = 0; p < c->n_parts; p++) {
        ct_tensor_unref(&weight[p]);
        ct_tensor_unref(&bias[p]);
    }
    ct_tensor_unref(&desc.norm.weight);
    ct_tensor_unref(&desc.norm.bias);
    if (!in_place)
        free(y.data);
    free(seen.data);
    free(other.data);
    free(before.data);
    free(x.data);
}

static linear_case plain_case(ct_dtype dtype, ct_linear_use use, int64_t n_rows)
{
    int block = ct_dtype_block_values(dtype);
    return (linear_case){.dtype = dtype,
                         .x_dtype = CT_F32,
                         .y_dtype = CT_F32,
                         .other_dtype = CT_F32,
                         .use = use,
                         .n_parts = 1,
                         .n = {45},
                         .k = block == 256  ? 512
                              : block == 32 ? 288
                                            : 259,
                         .n_rows = n_rows,
                         .bias = true};
}

static void sums_at(const ct_ops *ops, const char *level)
{
    static const int64_t rows[] = {0, 1, 2, 7, 8, 9, 31, 70};
    for (size_t t = 0; t < N_WEIGHT_TYPES; t++)
        for (int use = 0; use < 2; use++)
            for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
                linear_case one = plain_case(weight_types[t], (ct_linear_use)use, rows[r]);
                run_case(ops, level, &one, 1 + r);
                linear_case three = one;
                three.n_parts = 3;
                three.n[1] = 1;
                three.n[2] = 33;
                run_case(ops, level, &three, 2 + r);
                one.k = ct_dtype_block_values(weight_types[t]);
                run_case(ops, level, &one, 3 + r);
            }
}

static void sums_agree_with_double_precision(void)
{
    at_every_level_of_products(sums_at);
}

/* ---- parts of different types ---- */

static const ct_dtype mixes[][CT_LINEAR_MAX_PARTS] = {{CT_Q4_K, CT_Q4_K, CT_Q6_K},
                                                      {CT_Q5_0, CT_Q5_K, CT_Q8_0},
                                                      {CT_F32, CT_Q4_1, CT_BF16},
                                                      {CT_F16, CT_BF16, CT_F32}};
#define N_MIXES (sizeof mixes / sizeof *mixes)

static linear_case mixed_case(size_t mix, ct_linear_use use, int64_t n_rows)
{
    linear_case c = plain_case(CT_Q4_K, use, n_rows);
    c.mixed = mixes[mix];
    c.n_parts = 3;
    c.n[1] = 17;
    c.n[2] = 33;
    return c;
}

static void mixed_parts_at(const ct_ops *ops, const char *level)
{
    static const int64_t rows[] = {1, 8, 31};
    for (size_t mix = 0; mix < N_MIXES; mix++)
        for (int use = 0; use < 2; use++)
            for (int r = 0; r < 3; r++) {
                linear_case c = mixed_case(mix, (ct_linear_use)use, rows[r]);
                run_case(ops, level, &c, 20 + mix);
                c.other = RESIDUAL_IN_PLACE;
                run_case(ops, level, &c, 21 + mix);
                c.x_dtype = c.y_dtype = c.other_dtype = CT_BF16;
                c.other = GATED;
                c.activation = CT_ACT_SILU;
                run_case(ops, level, &c, 22 + mix);
                c.x_dtype = CT_F32;
                c.norm = RMS_NORM;
                run_case(ops, level, &c, 23 + mix);
            }
}

static void parts_of_different_types_agree_with_double_precision(void)
{
    at_every_level_of_products(mixed_parts_at);
}

static void uncopied_at(const ct_ops *ops, const char *level)
{
    (void)level;
    if (!ops->host_memory)
        return; /* weights in the host's memory have to be copied */
    for (size_t mix = 0; mix < N_MIXES; mix++) {
        uint64_t seed = 23;
        ct_linear *linear;
        ct_linear_desc desc = {.n_parts = 3, .use = CT_LINEAR_STREAM};
        for (int i = 0; i < 3; i++)
            CHECK_OK(new_weight(&desc.weight[i], &seed, mixes[mix][i], 40, 256));
        int64_t made = ct_memory_allocations();
        CHECK_OK(ops->linear_new(&linear, &desc));
        CHECK_INT(ct_memory_allocations() - made, 1); /* the layer itself */
        ops->linear_free(&linear);
        for (int i = 0; i < 3; i++)
            ct_tensor_unref(&desc.weight[i]);
    }
}

static void parts_of_different_types_stay_where_they_are(void)
{
    at_every_level(uncopied_at);
}

/* ---- models in 16-bit types ---- */

static void rounded_at(const ct_ops *ops, const char *level)
{
    static const int64_t rows[] = {0, 1, 2, 3, 4, 7, 8, 9};
    for (size_t t = 0; t < N_WEIGHT_TYPES + N_MIXES; t++)
        for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
            linear_case c = t < N_WEIGHT_TYPES
                                ? plain_case(weight_types[t], CT_LINEAR_STREAM, rows[r])
                                : mixed_case(t - N_WEIGHT_TYPES, CT_LINEAR_STREAM, rows[r]);
            c.model_dtype = r % 2 ? CT_BF16 : CT_F16;
            run_case(ops, level, &c, 30 + r);
            c.other = RESIDUAL_IN_PLACE;
            run_case(ops, level, &c, 31 + r);
            c.other = NOTHING;
            c.awkward = true;
            run_case(ops, level, &c, 32 + r);
        }
}

static void models_in_16_bits_lose_no_more_than_blocks_of_x_do(void)
{
    at_every_level(rounded_at);
}

/* y [n_rows, 40], new, = x [n_rows, 512] by random weights. */
static void multiply_as(const ct_ops *ops, ct_dtype weight_type, ct_dtype model_dtype, ct_rows x,
                        ct_rows *y)
{
    uint64_t seed = 33;
    ct_linear *linear;
    ct_arena arena = {0};
    ct_linear_desc desc = {.n_parts = 1, .quantized = {.model_dtype = model_dtype}};
    *y = new_rows(CT_F32, x.n_rows, 40, 0);
    CHECK_OK(new_weight(&desc.weight[0], &seed, weight_type, 40, 512));
    CHECK_OK(ops->linear_new(&linear, &desc));
    CHECK_OK(ops->linear(linear, x, &(ct_epilogue){0}, *y, &arena));
    ct_arena_clear(&arena);
    ops->linear_free(&linear);
    ct_tensor_unref(&desc.weight[0]);
}

static void only_rounded_at(const ct_ops *ops, const char *level)
{
    (void)level;
    bool avx2 = ops->host_memory && strcmp(ct_cpu_kernels->name, "avx2") == 0;
    uint64_t seed = 34;
    for (size_t t = 0; t < N_WEIGHT_TYPES; t++)
        for (int64_t n_rows = 8; n_rows <= 9; n_rows++) {
            bool rounds = avx2 && ct_dtype_is_quantized(weight_types[t]) && n_rows <= 8;
            ct_rows x = random_rows(&seed, CT_F32, n_rows, 512, 0, 1);
            ct_rows exact, rounded;
            multiply_as(ops, weight_types[t], CT_F32, x, &exact);
            multiply_as(ops, weight_types[t], CT_BF16, x, &rounded);
            CHECK(rounds ==
                  (memcmp(exact.data, rounded.data, sizeof(float) * 40 * (size_t)n_rows) != 0));
            free(x.data);
            free(exact.data);
            free(rounded.data);
        }
}

static void only_few_rows_by_blocks_are_rounded_on_avx2(void)
{
    at_every_level(only_rounded_at);
}

/* A row that holds NaN or an infinity has no finite product, as in f32; others do not notice. */
static void not_finite_at(const ct_ops *ops, const char *level)
{
    static const float guests[] = {NAN, INFINITY, -INFINITY};
    uint64_t seed = 35;
    for (size_t t = 0; t < N_WEIGHT_TYPES; t++)
        for (int g = 0; g < 3; g++) {
            ct_rows x = random_rows(&seed, CT_F32, 3, 512, 0, 1);
            ct_rows before, after;
            multiply_as(ops, weight_types[t], CT_BF16, x, &before);
            ((float *)x.data)[512 + 300] = guests[g];
            multiply_as(ops, weight_types[t], CT_BF16, x, &after);
            for (int64_t j = 0; j < 40; j++)
                if (isfinite(row_value(&after, 1, j)) ||
                    row_value(&after, 0, j) != row_value(&before, 0, j) ||
                    row_value(&after, 2, j) != row_value(&before, 2, j))
                    FAIL("level %s, %s, %g in row 1, column %d", level,
                         ct_dtype_name(weight_types[t]), (double)guests[g], (int)j);
            free(x.data);
            free(before.data);
            free(after.data);
        }
}

static void what_is_not_finite_stays_in_its_row(void)
{
    at_every_level(not_finite_at);
}

#ifdef CT_WITH_CUDA
static void run_one_row(const ct_ops *ops, ct_tensor *weight, float *y)
{
    static float x[256];
    ct_linear *linear;
    ct_arena arena = {0};
    ct_linear_desc desc = {.n_parts = 1, .weight = {weight}, .use = CT_LINEAR_STREAM};
    for (int i = 0; i < 256; i++)
        x[i] = (float)(i % 7) - 3;
    int64_t made = ct_memory_allocations();
    CHECK_OK(ops->linear_new(&linear, &desc));
    if (weight->storage->device.kind == CT_DEVICE_CUDA && !ct_dtype_is_quantized(weight->dtype))
        CHECK_INT(ct_memory_allocations() - made, 1); /* the layer itself */
    ct_rows from = {x, CT_F32, 1, 256, 256}, to = {y, CT_F32, 1, 40, 40};
    CHECK_OK(ops->linear(linear, from, &(ct_epilogue){0}, to, &arena));
    ops->linear_free(&linear);
    ct_arena_clear(&arena);
}

static void moved_at(const ct_ops *ops, const char *level)
{
    (void)level;
    for (size_t t = 0; t < N_WEIGHT_TYPES; t++) {
        uint64_t seed = 24;
        ct_tensor *here, *there;
        float wanted[40], got[40];
        CHECK_OK(new_weight(&here, &seed, weight_types[t], 40, 256));
        CHECK_OK(staged_tensor(&there, here));
        run_one_row(ops, here, wanted);
        run_one_row(ops, there, got);
        CHECK(memcmp(wanted, got, sizeof got) == 0);
        ct_tensor_unref(&there);
        ct_tensor_unref(&here);
    }
}

static void weights_may_be_in_the_devices_memory_already(void)
{
    at_cuda(moved_at, "cuda");
}
#endif

static void epilogues_at(const ct_ops *ops, const char *level)
{
    static const ct_dtype dtypes[] = {CT_F32, CT_BF16, CT_Q4_1};
    static const int64_t rows[] = {3, 20};
    for (int t = 0; t < 3; t++)
        for (int use = 0; use < 2; use++)
            for (int r = 0; r < 2; r++)
                for (int act = 0; act < CT_ACT_COUNT; act++)
                    for (int other = NOTHING; other <= RESIDUAL_IN_PLACE; other++) {
                        linear_case c = plain_case(dtypes[t], (ct_linear_use)use, rows[r]);
                        c.n_parts = 2;
                        c.n[1] = 18;
                        c.activation = (ct_activation)act;
                        c.other = other;
                        run_case(ops, level, &c, 5);
                        c.clip = 1.5f;
                        run_case(ops, level, &c, 6);
                    }
}

static void epilogues_agree_with_double_precision(void)
{
    at_every_level_of_products(epilogues_at);
}

static void sixteen_bits_at(const ct_ops *ops, const char *level)
{
    static const int64_t rows[] = {3, 20};
    for (size_t t = 0; t < N_WEIGHT_TYPES; t++)
        for (int use = 0; use < 2; use++)
            for (int r = 0; r < 2; r++) {
                linear_case c = plain_case(weight_types[t], (ct_linear_use)use, rows[r]);
                c.x_dtype = c.y_dtype = CT_BF16;
                run_case(ops, level, &c, 7);
                c.x_dtype = CT_F16; /* an input that no path wants as it is */
                run_case(ops, level, &c, 8);
                c.other = RESIDUAL;
                run_case(ops, level, &c, 9);
                c.other = GATED;
                c.activation = CT_ACT_SILU;
                run_case(ops, level, &c, 10);
                c.y_dtype = CT_F32;
                run_case(ops, level, &c, 11);
            }
}

static void sixteen_bit_rows_agree_with_double_precision(void)
{
    at_every_level_of_products(sixteen_bits_at);
}

static void norms_at(const ct_ops *ops, const char *level)
{
    static const int64_t rows[] = {1, 3, 8, 9};
    for (size_t t = 0; t < N_WEIGHT_TYPES; t++)
        for (int use = t < 3 ? CT_LINEAR_STREAM : CT_LINEAR_BATCH; use <= CT_LINEAR_BATCH; use++)
            for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
                for (int norm = LAYER_NORM; norm <= RMS_NORM; norm++)
                    for (int other = NOTHING; other <= RESIDUAL_IN_PLACE; other++) {
                        linear_case c = plain_case(weight_types[t], (ct_linear_use)use, rows[r]);
                        c.norm = norm;
                        c.other = other;
                        c.n_parts = 3;
                        c.n[0] = 19;
                        c.n[1] = 1;
                        c.n[2] = 6;
                        c.activation = other == GATED ? CT_ACT_SILU : CT_ACT_NONE;
                        run_case(ops, level, &c, 40 + r);
                    }
}

static void normed_and_gated_layers_agree_with_double_precision(void)
{
    at_every_level_of_products(norms_at);
}

/* Rows of x that do not fit where a device keeps them, and few weight rows. */
static void long_rows_at(const ct_ops *ops, const char *level)
{
    static const int64_t rows[] = {1, 5};
    for (size_t t = 0; t < N_WEIGHT_TYPES; t++)
        for (int r = 0; r < 2; r++) {
            linear_case c = plain_case(weight_types[t], CT_LINEAR_STREAM, rows[r]);
            c.k = r ? 4096 + c.k : 16384 + c.k;
            c.n[0] = 5;
            run_case(ops, level, &c, 25);
            c.norm = LAYER_NORM;
            c.other = GATED;
            run_case(ops, level, &c, 26);
        }
}

static void long_rows_agree_with_double_precision(void)
{
    at_every_level(long_rows_at);
}

/* Large enough for several threads and several bands of weight rows. */
static void large_at(const ct_ops *ops, const char *level)
{
    static const int64_t rows[] = {1, 11, 50};
    for (size_t t = 0; t < N_WEIGHT_TYPES; t++)
        for (int r = 0; r < 3; r++) {
            linear_case c = plain_case(weight_types[t], CT_LINEAR_STREAM, rows[r]);
            c.k = 2048;
            c.n_parts = 2;
            c.n[0] = 301;
            c.n[1] = 17;
            c.other = RESIDUAL_IN_PLACE;
            run_case(ops, level, &c, 12);
        }
}

static void bands_and_threads_agree_with_double_precision(void)
{
    CHECK_OK(ct_threads_init());
    int before = ct_threads_get();
    CHECK_OK(ct_threads_set(3));
    at_every_level_of_products(large_at);
    CHECK_OK(ct_threads_set(before));
}

/* Runs the first n_rows of x. */
static void run_rows(const ct_ops *ops, const ct_linear *linear, ct_rows x, int64_t n_rows,
                     int64_t width, ct_rows *y)
{
    ct_arena arena = {0};
    x.n_rows = n_rows;
    *y = new_rows(CT_F32, n_rows, width, 0);
    CHECK_OK(ops->linear(linear, x, &(ct_epilogue){0}, *y, &arena));
    ct_arena_clear(&arena);
}

/* `first`, first + step, ... rows get the bits that `most` rows get; weights [n, k]. */
static void check_independence(const ct_ops *ops, const char *level, ct_dtype dtype,
                               ct_dtype model_dtype, int64_t n, int64_t k, int64_t first,
                               int64_t most, int64_t step)
{
    int before = ct_threads_get();
    uint64_t seed = 14;
    ct_tensor *weight;
    ct_linear *linear;
    CHECK_OK(new_weight(&weight, &seed, dtype, n, k));
    ct_linear_desc desc = {.n_parts = 1, .weight = {weight}, .use = CT_LINEAR_STREAM};
    desc.quantized.model_dtype = model_dtype;
    linear_case normed = {.norm = LAYER_NORM, .k = k};
    new_norm(&desc.norm, &normed, &seed);
    CHECK_OK(ops->linear_new(&linear, &desc));
    ct_tensor_unref(&weight);
    ct_tensor_unref(&desc.norm.weight);
    ct_tensor_unref(&desc.norm.bias);
    ct_rows x = random_rows(&seed, CT_F32, most, k, 0, 1), whole;
    CHECK_OK(ct_threads_set(1));
    run_rows(ops, linear, x, most, n, &whole);
    CHECK_OK(ct_threads_set(3));
    for (int64_t m = first; m <= most; m += step) {
        ct_rows few;
        run_rows(ops, linear, x, m, n, &few);
        if (memcmp(few.data, whole.data, (size_t)(m * n) * sizeof(float)) != 0)
            FAIL("level %s, %s: %d rows differ from %d", level, ct_dtype_name(dtype), (int)m,
                 (int)most);
        free(few.data);
    }
    CHECK_OK(ct_threads_set(before));
    free(whole.data);
    free(x.data);
    ops->linear_free(&linear);
}

/* More than 8 rows are summed in another way, except by the CPU's exact products of floats. */
static void independence_at(const ct_ops *ops, const char *level)
{
    for (size_t t = 0; t < N_WEIGHT_TYPES; t++) {
        ct_dtype dtype = weight_types[t];
        bool exact =
            dtype == CT_F32 || dtype == CT_F16 || (dtype == CT_BF16 && !ct_onednn_takes(CT_BF16));
        exact = exact && ops->host_memory;
        check_independence(ops, level, dtype, CT_F32, 200, 512, 1, exact ? 150 : 8, 1);
        check_independence(ops, level, dtype, CT_BF16, 200, 512, 1, 8, 1);
        if (!ops->host_memory) {
            check_independence(ops, level, dtype, CT_F32, 70, 512, 9, 130, 60);
            check_independence(ops, level, dtype, CT_F32, 9, 4352, 1, 8,
                               1); /* x comes in several tiles */
        }
    }
}

static void rows_depend_neither_on_each_other_nor_on_threads(void)
{
    CHECK_OK(ct_threads_init());
    at_every_level(independence_at);
}

static void a_warm_call_allocates_nothing(void)
{
    const ct_ops *ops;
    uint64_t seed = 15;
    CHECK_OK(ct_cpu_ops(&ops));
    static const int64_t rows[] = {1, 40};
    for (size_t t = 0; t < N_WEIGHT_TYPES; t++) {
        ct_tensor *weight;
        ct_linear *linear;
        ct_arena arena = {0};
        CHECK_OK(new_weight(&weight, &seed, weight_types[t], 64, 512));
        ct_linear_desc desc = {.n_parts = 1, .weight = {weight}, .use = CT_LINEAR_STREAM};
        desc.quantized.model_dtype = t % 2 ? CT_BF16 : CT_F32;
        CHECK_OK(ops->linear_new(&linear, &desc));
        ct_tensor_unref(&weight);
        for (int r = 0; r < 2; r++) {
            ct_rows x = random_rows(&seed, CT_F32, rows[r], 512, 0, 1);
            ct_rows y = new_rows(CT_F32, rows[r], 64, 0);
            int64_t made = 0;
            for (int round = 0; round < 3; round++) {
                made = ct_memory_allocations();
                CHECK_OK(ops->linear(linear, x, &(ct_epilogue){0}, y, &arena));
                ct_arena_reset(&arena);
            }
            CHECK_INT(ct_memory_allocations(), made);
            free(x.data);
            free(y.data);
        }
        ct_arena_clear(&arena);
        ops->linear_free(&linear);
    }
    ct_onednn_trim();
}

/* ---- several callers ---- */

enum { CALLERS = 4, MOST_ROWS = 24, SHARED_N = 40, SHARED_K = 256 };

typedef struct caller {
    const ct_ops *ops;
    const ct_linear *linear;
    ct_rows x, wanted[MOST_ROWS + 1]; /* by number of rows */
    int index;
    bool good;
} caller;

/* Calls with ever other numbers of rows, and empties the cache of primitives now and then. */
static void *call_often(void *argument)
{
    caller *own = argument;
    ct_arena arena = {0};
    ct_rows y = new_rows(CT_F32, MOST_ROWS, SHARED_N, 0);
    own->good = true;
    for (int round = 0; own->good && round < 120; round++) {
        ct_rows x = own->x, out = y;
        x.n_rows = out.n_rows = 1 + (round * 7 + own->index * 5) % MOST_ROWS;
        own->good = own->ops->linear(own->linear, x, &(ct_epilogue){0}, out, &arena) == CT_OK &&
                    memcmp(out.data, own->wanted[x.n_rows].data,
                           sizeof(float) * (size_t)(x.n_rows * SHARED_N)) == 0;
        ct_arena_reset(&arena);
        if (round % 16 == own->index)
            ct_onednn_trim();
    }
    ct_arena_clear(&arena);
    free(y.data);
    return NULL;
}

static void share_layer(const ct_ops *ops, ct_dtype dtype, ct_linear_use use)
{
    uint64_t seed = 16;
    ct_tensor *weight;
    ct_linear *linear;
    CHECK_OK(new_weight(&weight, &seed, dtype, SHARED_N, SHARED_K));
    ct_linear_desc desc = {.n_parts = 1, .weight = {weight}, .use = use};
    CHECK_OK(ops->linear_new(&linear, &desc));
    ct_tensor_unref(&weight);
    caller callers[CALLERS];
    ct_rows x = random_rows(&seed, CT_F32, MOST_ROWS, SHARED_K, 0, 1), wanted[MOST_ROWS + 1];
    for (int n = 1; n <= MOST_ROWS; n++) {
        ct_arena arena = {0};
        ct_rows few = x;
        few.n_rows = n;
        wanted[n] = new_rows(CT_F32, n, SHARED_N, 0);
        CHECK_OK(ops->linear(linear, few, &(ct_epilogue){0}, wanted[n], &arena));
        ct_arena_clear(&arena);
    }
    pthread_t threads[CALLERS];
    for (int i = 0; i < CALLERS; i++) {
        callers[i] = (caller){.ops = ops, .linear = linear, .x = x, .index = i};
        memcpy(callers[i].wanted, wanted, sizeof wanted);
        CHECK_INT(pthread_create(&threads[i], NULL, call_often, &callers[i]), 0);
    }
    for (int i = 0; i < CALLERS; i++)
        CHECK_INT(pthread_join(threads[i], NULL), 0);
    for (int i = 0; i < CALLERS; i++)
        CHECK(callers[i].good);
    for (int n = 1; n <= MOST_ROWS; n++)
        free(wanted[n].data);
    free(x.data);
    ops->linear_free(&linear);
    ct_onednn_trim();
}

static void several_callers_share_a_layer(void)
{
    const ct_ops *ops;
    CHECK_OK(ct_cpu_ops(&ops));
    for (size_t t = 0; t < N_WEIGHT_TYPES; t++)
        for (int use = 0; use < 2; use++)
            share_layer(ops, weight_types[t], (ct_linear_use)use);
}

static void the_cache_of_primitives_is_bounded(void)
{
    enum { KINDS = 3000, BOUND = 1024, ROWS = 9 };
    const ct_ops *ops;
    uint64_t seed = 17;
    CHECK_OK(ct_cpu_ops(&ops));
    ct_tensor *weight;
    ct_linear *linear;
    CHECK_OK(new_weight(&weight, &seed, CT_F32, 4, 8));
    ct_linear_desc desc = {.n_parts = 1, .weight = {weight}, .use = CT_LINEAR_BATCH};
    CHECK_OK(ops->linear_new(&linear, &desc));
    ct_rows x = random_rows(&seed, CT_F32, ROWS, 8, 0, 1);
    ct_rows plain = new_rows(CT_F32, ROWS, 4, 0), y = new_rows(CT_F32, ROWS, 4, 0);
    ct_arena arena = {0};
    CHECK_OK(ops->linear(linear, x, &(ct_epilogue){0}, plain, &arena));
    int64_t live = ct_memory_live_blocks();
    for (int kind = 0; kind < KINDS; kind++) { /* each with a primitive of its own */
        float clip = 0.1f + 0.001f * (float)kind;
        CHECK_OK(ops->linear(linear, x, &(ct_epilogue){.clip = clip}, y, &arena));
        ct_arena_reset(&arena);
        for (int64_t i = 0; i < 4 * ROWS; i++)
            CHECK_NEAR(row_value(&y, i / 4, i % 4),
                       fmax(-clip, fmin(clip, row_value(&plain, i / 4, i % 4))), 1e-6);
    }
    CHECK(ct_memory_live_blocks() - live <= BOUND);
    ct_arena_clear(&arena);
    ops->linear_free(&linear);
    ct_tensor_unref(&weight);
    free(x.data);
    free(y.data);
    free(plain.data);
    ct_onednn_trim();
}

static ct_status run_fault(const ct_ops *ops, ct_dtype dtype, ct_linear_use use, float *x, float *y)
{
    ct_status status = CT_OK;
    ct_tensor *weight[2] = {NULL, NULL}, *bias = NULL;
    ct_linear *linear = NULL;
    ct_arena arena = {0};
    CT_TRY(ct_tensor_new(&weight[0], dtype, 2, (int64_t[]){8, 32}));
    CT_TRY_TO(done, ct_tensor_new(&weight[1], dtype, 2, (int64_t[]){4, 32}));
    CT_TRY_TO(done, ct_tensor_new(&bias, CT_F32, 1, (int64_t[]){4}));
    for (int i = 0; i < 2; i++)
        memset(ct_tensor_data(weight[i]), 0, weight[i]->storage->size);
    memset(ct_tensor_data(bias), 0, 4 * sizeof(float));
    ct_linear_desc desc = {
        .n_parts = 2, .weight = {weight[0], weight[1]}, .bias = {NULL, bias}, .use = use};
    desc.quantized.model_dtype = CT_BF16;
    CT_TRY_TO(done, ops->linear_new(&linear, &desc));
    for (int64_t n = 2; n <= 20; n += 18) {
        ct_rows from = {x, CT_F32, n, 32, 32}, to = {y, CT_F32, n, 12, 12};
        CT_TRY_TO(done, ops->linear(linear, from, &(ct_epilogue){.residual = &to}, to, &arena));
    }
done:
    ops->linear_free(&linear);
    for (int i = 0; i < 2; i++)
        ct_tensor_unref(&weight[i]);
    ct_tensor_unref(&bias);
    ct_arena_clear(&arena);
    ct_onednn_trim();
    return status;
}

ct_status fault_linear(void)
{
    static float x[20 * 32], y[20 * 12];
    static const ct_dtype dtypes[] = {CT_F32, CT_BF16, CT_Q4_1};
    const ct_ops *ops;
    CT_TRY(ct_cpu_ops(&ops));
    for (int t = 0; t < 3; t++)
        for (int use = 0; use < 2; use++)
            CT_TRY(run_fault(ops, dtypes[t], (ct_linear_use)use, x, y));
#ifdef CT_WITH_CUDA
    CT_TRY(staged_enter(&ops));
    ct_status status = CT_OK;
    for (int t = 0; t < 3 && status == CT_OK; t++)
        status = run_fault(ops, dtypes[t], CT_LINEAR_STREAM, x, y);
    staged_leave();
    return status;
#endif
    return CT_OK;
}

const ct_test suite_cpu_linear[] = {
    TEST(sums_agree_with_double_precision),
    TEST(parts_of_different_types_agree_with_double_precision),
    TEST(parts_of_different_types_stay_where_they_are),
    TEST(models_in_16_bits_lose_no_more_than_blocks_of_x_do),
    TEST(only_few_rows_by_blocks_are_rounded_on_avx2),
    TEST(what_is_not_finite_stays_in_its_row),
#ifdef CT_WITH_CUDA
    TEST(weights_may_be_in_the_devices_memory_already),
#endif
    TEST(epilogues_agree_with_double_precision),
    TEST(sixteen_bit_rows_agree_with_double_precision),
    TEST(normed_and_gated_layers_agree_with_double_precision),
    TEST(long_rows_agree_with_double_precision),
    TEST(bands_and_threads_agree_with_double_precision),
    TEST(rows_depend_neither_on_each_other_nor_on_threads),
    TEST(a_warm_call_allocates_nothing),
    TEST(several_callers_share_a_layer),
    TEST(the_cache_of_primitives_is_bounded),
    TESTS_END,
};
