/* Linear layers in bitsandbytes' formats against the published rules in double precision. */
#include "test.h"

#include "cpu/isa/kernels.h"
#include "cpu/quantize.h"
#include "cpu_rows.h"

#define THRESHOLD 6.0f

typedef struct scaled_case {
    const ct_dtype *formats; /* of each part */
    int n_parts;
    int64_t n[CT_LINEAR_MAX_PARTS], k, n_rows;
    ct_quantized_compute how;
    bool nested;
    int64_t skipped; /* rows of a matrix before those that are a part */
    double outliers; /* share of x that lies beyond the threshold */
} scaled_case;

/* Random rows of normal size, quantized; those behind the first `skipped`. */
static ct_status new_weight(ct_tensor **out, uint64_t *seed, const scaled_case *c, int part)
{
    ct_dtype format = c->formats[part];
    ct_tensor *matrix, *quantized = NULL;
    int64_t n = c->n[part] + c->skipped;
    CT_TRY(ct_tensor_new(&matrix, CT_F32, 2, (int64_t[]){n, c->k}));
    float *values = ct_tensor_data(matrix);
    for (int64_t i = 0; i < n * c->k; i++)
        values[i] = random_value(seed, 1);
    ct_status status = CT_OK;
    if (ct_dtype_has_scales(format))
        status = ct_cpu_quantize(&quantized, matrix, format, c->nested);
    if (status == CT_OK)
        status = ct_tensor_slice(out, quantized ? quantized : matrix, 0, c->skipped, c->n[part], 1);
    ct_tensor_unref(&quantized);
    ct_tensor_unref(&matrix);
    return status;
}

/* The row of x as LLM.int8 sees it: codes times *unit, without outliers, whose values go to
 * `outliers`. */
static void quantize_row(double *codes, double *outliers, double *unit, const ct_rows *x,
                         int64_t row, float threshold)
{
    double absmax = 0;
    for (int64_t j = 0; j < x->width; j++) {
        double value = ct_f16_to_f32(ct_f16_from_f32((float)row_value(x, row, j)));
        bool outlier = threshold > 0 && fabs(value) >= (double)threshold;
        outliers[j] = outlier ? row_value(x, row, j) : 0;
        codes[j] = outlier ? 0 : value;
        absmax = fmax(absmax, fabs(codes[j]));
    }
    float scale = absmax > 0 ? 1 / (float)absmax * 127 : 0;
    for (int64_t j = 0; j < x->width; j++)
        codes[j] = rintf((float)codes[j] * scale);
    *unit = absmax / 127;
}

/* One product: of the row's codes by int8 weights, or of its values by what others stand for, both
 * as they are in the type `input`. */
static double expected(double *magnitude, const float *weights, const double *codes,
                       const double *outliers, double unit, const ct_rows *x, int64_t row,
                       bool int8, ct_dtype input)
{
    double sum = 0;
    *magnitude = 0;
    for (int64_t j = 0; j < x->width; j++) {
        double value =
            int8 ? codes[j] * unit + outliers[j] : rounded_to(input, row_value(x, row, j));
        double weight = int8 ? (double)weights[j] : rounded_to(input, (double)weights[j]);
        sum += value * weight;
        *magnitude += fabs(value * weight);
    }
    return sum;
}

/* A machine with a GPU may be without it. */
#ifdef CT_CUDA_ON_HOST
#define CUBLAS_IS_THERE true
#else
#define CUBLAS_IS_THERE false
#endif

/* The type in which cuBLASLt, where it is there, multiplies 4-bit weights by x, both rounded to it
 * as bitsandbytes does; f32: it does not. */
static ct_dtype input_of_cublas(const scaled_case *c)
{
    bool takes = c->n_rows > FEW_ROWS && c->k % 32 == 0;
    for (int p = 0; p < c->n_parts; p++)
        takes = takes && (c->formats[p] == CT_FP4 || c->formats[p] == CT_NF4);
    return takes ? c->how.compute_dtype : CT_F32;
}

/* `input`: see expected. */
static void check_part(const scaled_case *c, const char *level, const ct_tensor *weight, int part,
                       int64_t column, const ct_rows *x, ct_dtype input, const ct_rows *y)
{
    ct_tensor *floats;
    CHECK_OK(ct_tensor_convert(&floats, weight, CT_F32));
    bool int8 = c->formats[part] == CT_LLM_INT8;
    double loss = 4e-6; /* f32 sums in another order */
    if (!int8 && ct_dtype_has_scales(c->formats[part]) && c->how.compute_dtype != CT_F32)
        loss = 0x1p-11; /* factors may be whole numbers of 15 bits */
    if (c->formats[part] == CT_NF4 && c->how.compute_dtype == CT_BF16)
        loss = 0x1p-8; /* the codebook */
    if (!int8 && c->how.compute_dtype == CT_BF16 && c->n_rows > 8)
        loss = 0x1p-7; /* where oneDNN has bf16: the input and the weights as well */
    if (!int8 && ct_dtype_has_scales(c->formats[part]) && c->how.int8_activations)
        loss = 0.02;
    if (input != CT_F32)
        loss = 4e-6;
    double *codes = malloc(sizeof *codes * (size_t)c->k), unit = 0, magnitude;
    double *outliers = malloc(sizeof *outliers * (size_t)c->k);
    for (int64_t i = 0; i < c->n_rows; i++) {
        quantize_row(codes, outliers, &unit, x, i, c->how.outlier_threshold);
        for (int64_t j = 0; j < c->n[part]; j++) {
            const float *weights = (const float *)ct_tensor_data(floats) + j * c->k;
            double wanted = expected(&magnitude, weights, codes, outliers, unit, x, i, int8, input);
            double got = row_value(y, i, column + j);
            if (!(fabs(got - wanted) <= loss * magnitude + 1e-30))
                FAIL("level %s, %s, k %lld, row %lld of %lld, column %lld: %.9g instead of %.9g",
                     level, ct_dtype_name(c->formats[part]), (long long)c->k, (long long)i,
                     (long long)c->n_rows, (long long)(column + j), got, wanted);
        }
    }
    free(outliers);
    free(codes);
    ct_tensor_unref(&floats);
}

static ct_status random_vector(ct_tensor **out, uint64_t *seed, int64_t n)
{
    CT_TRY(ct_tensor_new(out, CT_F32, 1, &n));
    for (int64_t i = 0; i < n; i++)
        ((float *)ct_tensor_data(*out))[i] = random_value(seed, 1);
    return CT_OK;
}

static void run_case(const ct_ops *ops, const char *level, const scaled_case *c, uint64_t seed)
{
    ct_linear_desc desc = {.n_parts = c->n_parts, .use = CT_LINEAR_STREAM, .quantized = c->how};
    int64_t width = 0;
    for (int p = 0; p < c->n_parts; width += c->n[p++])
        CHECK_OK(new_weight(&desc.weight[p], &seed, c, p));
    ct_linear *linear;
    CHECK_OK(ops->linear_new(&linear, &desc));
    bool by_cublas = strcmp(level, WITH_CUBLAS) == 0;
    ct_dtype input = by_cublas ? ops->linear_input(linear, c->n_rows) : CT_F32;
    if (by_cublas && (CUBLAS_IS_THERE || input != CT_F32))
        CHECK_INT(input, input_of_cublas(c));
    /* Rows that begin at multiples of 16 bytes, and others. */
    ct_rows x = random_rows(&seed, CT_F32, c->n_rows, c->k, c->nested ? 4 : 3, 1);
    ct_rows y = new_rows(CT_F32, c->n_rows, width, 5);
    for (int64_t i = 0; i < c->n_rows * x.stride; i++)
        if (i % x.stride < c->k && random_uniform(&seed) < c->outliers)
            ((float *)x.data)[i] *= 40;
    ct_arena arena = {0};
    CHECK_OK(ops->linear(linear, x, &(ct_epilogue){0}, y, &arena));
    CHECK(gaps_untouched(&y));
    for (int64_t p = 0, column = 0; p < c->n_parts; column += c->n[p++])
        check_part(c, level, desc.weight[p], (int)p, column, &x, input, &y);
    ct_arena_clear(&arena);
    ops->linear_free(&linear);
    for (int p = 0; p < c->n_parts; p++)
        ct_tensor_unref(&desc.weight[p]);
    free(x.data);
    free(y.data);
}

static const int64_t row_counts[] = {0, 1, 3, 8, 9, 21}; /* the last two more than FEW_ROWS */
#define N_ROW_COUNTS (sizeof row_counts / sizeof *row_counts)

static void int8_at(const ct_ops *ops, const char *level)
{
    static const ct_dtype formats[] = {CT_LLM_INT8, CT_LLM_INT8, CT_LLM_INT8};
    static const int64_t widths[] = {1, 31, 64, 259};
    for (size_t r = 0; r < N_ROW_COUNTS; r++)
        for (size_t w = 0; w < 4; w++)
            for (int outliers = 0; outliers < 3; outliers++) {
                scaled_case c = {.formats = formats,
                                 .n_parts = 3,
                                 .n = {70, 1, 33},
                                 .k = widths[w],
                                 .n_rows = row_counts[r],
                                 .how = {.outlier_threshold = outliers ? THRESHOLD : 0},
                                 .skipped = 2,
                                 .outliers = outliers == 2 ? 1 : 0.02};
                run_case(ops, level, &c, 1 + r);
            }
}

static void int8_products_follow_the_published_rules(void)
{
    at_every_level_of_products(int8_at);
}

static void codebooks_at(const ct_ops *ops, const char *level)
{
    static const ct_dtype formats[][CT_LINEAR_MAX_PARTS] = {
        {CT_NF4, CT_FP4, CT_NF4}, {CT_NF4, CT_NF4, CT_NF4}, {CT_FP4, CT_FP4, CT_FP4}};
    static const ct_dtype compute[] = {CT_F32, CT_F16, CT_BF16};
    static const int64_t widths[] = {64, 320, 2, 96, 130}; /* the last three: no whole blocks */
    for (size_t r = 0; r < N_ROW_COUNTS; r++)
        for (size_t w = 0; w < 5; w++)
            for (int d = 0; d < 3; d++)
                for (int way = 0; way < 6; way++) {
                    scaled_case c = {.formats = formats[way / 2],
                                     .n_parts = 3,
                                     .n = {45, 1, 34},
                                     .k = widths[w],
                                     .n_rows = row_counts[r],
                                     .how = {.compute_dtype = compute[d]},
                                     .nested = way % 2,
                                     .skipped = 3};
                    run_case(ops, level, &c, 1 + r);
                }
}

static void codebook_products_agree_with_double_precision(void)
{
    at_every_level_of_products(codebooks_at);
}

static void bytes_at(const ct_ops *ops, const char *level)
{
    static const ct_dtype formats[] = {CT_NF4, CT_FP4};
    for (size_t r = 0; r < 4; r++)
        for (int nested = 0; nested < 2; nested++) {
            scaled_case c = {.formats = formats,
                             .n_parts = 2,
                             .n = {45, 34},
                             .k = 640,
                             .n_rows = row_counts[r],
                             .how = {.compute_dtype = CT_F32, .int8_activations = true},
                             .nested = nested};
            run_case(ops, level, &c, 5 + r);
        }
}

static void activations_in_bytes_stay_close(void)
{
    at_every_level(bytes_at);
}

static void mixed_at(const ct_ops *ops, const char *level)
{
    static const ct_dtype mixes[][CT_LINEAR_MAX_PARTS] = {{CT_F32, CT_LLM_INT8, CT_NF4},
                                                          {CT_FP4, CT_F32, CT_NF4}};
    for (size_t r = 0; r < N_ROW_COUNTS; r++)
        for (int mix = 0; mix < 2; mix++) {
            scaled_case c = {.formats = mixes[mix],
                             .n_parts = 3,
                             .n = {20, 17, 33},
                             .k = 128,
                             .n_rows = row_counts[r],
                             .how = {.compute_dtype = CT_F32, .outlier_threshold = THRESHOLD},
                             .outliers = 0.02};
            run_case(ops, level, &c, 9 + r);
        }
}

static void formats_mix_with_floats_in_one_layer(void)
{
    at_every_level_of_products(mixed_at);
}

/* ---- with a norm before, and what follows ---- */

typedef struct whole_layer {
    ct_linear_desc desc; /* with norm, biases and gate */
    ct_epilogue epilogue;
    ct_rows x, y;
} whole_layer;

/* The same by parts: the norm as an operation, products alone, and the rest in double precision. */
static void check_whole(const ct_ops *ops, const char *level, const whole_layer *layer,
                        const ct_rows *before, double tolerance)
{
    const ct_linear_desc *desc = &layer->desc;
    const ct_rows *x = &layer->x, *y = &layer->y;
    ct_rows normed = new_rows(CT_F32, x->n_rows, x->width, 0);
    ct_rows parts[CT_LINEAR_MAX_PARTS];
    CHECK_OK(ops->norm(desc->norm.kind, normed, *x, ct_tensor_data(desc->norm.weight),
                       desc->norm.bias ? ct_tensor_data(desc->norm.bias) : NULL, desc->norm.eps,
                       1));
    for (int p = 0; p < desc->n_parts; p++) {
        ct_linear *linear;
        ct_arena arena = {0};
        ct_linear_desc alone = {.n_parts = 1,
                                .weight = {desc->weight[p]},
                                .bias = {desc->bias[p]},
                                .quantized = desc->quantized};
        parts[p] = new_rows(CT_F32, x->n_rows, desc->weight[p]->shape[0], 0);
        CHECK_OK(ops->linear_new(&linear, &alone));
        CHECK_OK(ops->linear(linear, normed, &(ct_epilogue){0}, parts[p], &arena));
        ct_arena_clear(&arena);
        ops->linear_free(&linear);
    }
    for (int64_t i = 0; i < x->n_rows; i++)
        for (int64_t j = 0; j < y->width; j++) {
            int64_t column = j;
            int p = 0;
            while (!desc->gated && column >= parts[p].width)
                column -= parts[p++].width;
            double wanted = row_value(&parts[p], i, column), off = tolerance;
            if (layer->epilogue.activation == CT_ACT_SILU)
                wanted /= 1 + exp(-wanted);
            if (desc->gated) {
                double up = row_value(&parts[1], i, column);
                off = off * (fabs(up) + off) + fabs(wanted) * off;
                wanted *= up;
            }
            if (before->data)
                wanted += row_value(before, i, j);
            off += 2 * rounding_of(y->dtype) * fabs(wanted);
            if (!(fabs(row_value(y, i, j) - wanted) <= off))
                FAIL("level %s, %s, compute %s, k %lld, norm %d, gated %d, row %lld of %lld, "
                     "column %lld: %.9g instead of %.9g",
                     level, ct_dtype_name(desc->weight[0]->dtype),
                     ct_dtype_name(desc->quantized.compute_dtype), (long long)x->width,
                     desc->norm.kind, desc->gated, (long long)i, (long long)x->n_rows, (long long)j,
                     row_value(y, i, j), wanted);
        }
    for (int p = 0; p < desc->n_parts; p++)
        free(parts[p].data);
    free(normed.data);
}

/* `before` gets what y has at first, where it is the residual. */
static void new_whole(whole_layer *layer, ct_rows *before, const scaled_case *c, bool gated,
                      ct_dtype y_dtype, uint64_t seed)
{
    *before = (ct_rows){0};
    *layer = (whole_layer){
        .desc = {
            .n_parts = c->n_parts, .gated = gated, .use = CT_LINEAR_STREAM, .quantized = c->how}};
    ct_linear_desc *desc = &layer->desc;
    int64_t width = 0;
    for (int p = 0; p < c->n_parts; p++) {
        CHECK_OK(new_weight(&desc->weight[p], &seed, c, p));
        if (p != 1)
            CHECK_OK(random_vector(&desc->bias[p], &seed, c->n[p]));
        width = gated ? c->n[p] : width + c->n[p];
    }
    desc->norm = (ct_input_norm){seed % 2 ? CT_NORM_RMS : CT_NORM_LAYER, NULL, NULL, 1e-5f};
    CHECK_OK(random_vector(&desc->norm.weight, &seed, c->k));
    if (desc->norm.kind == CT_NORM_LAYER)
        CHECK_OK(random_vector(&desc->norm.bias, &seed, c->k));
    layer->x = random_rows(&seed, CT_F32, c->n_rows, c->k, c->nested ? 4 : 3, 20);
    layer->y = random_rows(&seed, y_dtype, c->n_rows, width, 5, 1);
    if (gated) {
        layer->epilogue.activation = CT_ACT_SILU;
    } else if (y_dtype == CT_F32) {
        layer->epilogue.residual = &layer->y;
        *before = new_rows(CT_F32, c->n_rows, width, 5);
        memcpy(before->data, layer->y.data, sizeof(float) * (size_t)(c->n_rows * before->stride));
    }
}

static void free_whole(whole_layer *layer, ct_rows *before)
{
    for (int p = 0; p < layer->desc.n_parts; p++) {
        ct_tensor_unref(&layer->desc.weight[p]);
        ct_tensor_unref(&layer->desc.bias[p]);
    }
    ct_tensor_unref(&layer->desc.norm.weight);
    ct_tensor_unref(&layer->desc.norm.bias);
    free(before->data);
    free(layer->x.data);
    free(layer->y.data);
}

static void compute_whole(const ct_ops *ops, const whole_layer *layer)
{
    ct_linear *linear;
    ct_arena arena = {0};
    CHECK_OK(ops->linear_new(&linear, &layer->desc));
    CHECK_OK(ops->linear(linear, layer->x, &layer->epilogue, layer->y, &arena));
    CHECK(gaps_untouched(&layer->y));
    ct_arena_clear(&arena);
    ops->linear_free(&linear);
}

static void run_whole(const ct_ops *ops, const char *level, const scaled_case *c, bool gated,
                      ct_dtype y_dtype, uint64_t seed)
{
    whole_layer layer;
    ct_rows before;
    new_whole(&layer, &before, c, gated, y_dtype, seed);
    compute_whole(ops, &layer);
    /* A norm that differs in its last bit changes few values by a whole unit of what they are
     * rounded to: bytes, or a type of 16 bits. */
    bool exact = c->how.compute_dtype == CT_F32 && c->formats[0] != CT_LLM_INT8;
    check_whole(ops, level, &layer, &before, exact ? 1e-5 * (double)c->k : 0.25);
    free_whole(&layer, &before);
}

static void whole_at(const ct_ops *ops, const char *level)
{
    static const ct_dtype formats[][CT_LINEAR_MAX_PARTS] = {{CT_LLM_INT8, CT_LLM_INT8, CT_LLM_INT8},
                                                            {CT_NF4, CT_NF4, CT_NF4},
                                                            {CT_FP4, CT_FP4, CT_FP4},
                                                            {CT_NF4, CT_FP4, CT_F32}};
    static const ct_dtype compute[] = {CT_F32, CT_F16, CT_BF16};
    static const int64_t widths[] = {64, 320, 130};
    for (size_t r = 0; r < N_ROW_COUNTS; r++)
        for (size_t w = 0; w < 3; w++)
            for (int d = 0; d < 3; d++)
                for (size_t f = d == 0 ? 0 : 1; f < sizeof formats / sizeof *formats; f++)
                    for (int gated = 0; gated < 2; gated++) {
                        scaled_case c = {
                            .formats = formats[f],
                            .n_parts = gated ? 2 : 3,
                            .n = {19, gated ? 19 : 1, 6},
                            .k = widths[w],
                            .n_rows = row_counts[r],
                            .how = {.compute_dtype = compute[d], .outlier_threshold = 2},
                            .nested = r % 2,
                            .skipped = 3};
                        run_whole(ops, level, &c, gated, CT_F32, 11 + r + w);
                        run_whole(ops, level, &c, gated, CT_BF16, 12 + r + w);
                    }
}

static void norms_gates_and_residuals_join_products(void)
{
    at_every_level_of_products(whole_at);
}

/* Codes so small that oneDNN sums them exactly on any processor. */
static void shrink_codes(ct_tensor *weight)
{
    int8_t *codes = ct_tensor_data(weight);
    for (int64_t i = 0; i < weight->shape[0] * weight->shape[1]; i++)
        codes[i] /= 3;
}

/* y of a layer, which is the residual as well; or, gated, in bf16. */
static void run_bytes(const ct_ops *ops, const ct_linear_desc *desc, const scaled_case *c,
                      ct_rows *y)
{
    uint64_t seed = 17;
    ct_linear *linear;
    ct_arena arena = {0};
    ct_rows x = random_rows(&seed, CT_F32, c->n_rows, c->k, 3, 1);
    for (int64_t i = 0; i < c->n_rows * x.stride; i++)
        if (i % x.stride < c->k && random_uniform(&seed) < c->outliers)
            ((float *)x.data)[i] *= 40;
    int64_t width = desc->gated ? c->n[0] : c->n[0] + c->n[1] + c->n[2];
    *y = random_rows(&seed, desc->gated ? CT_BF16 : CT_F32, c->n_rows, width, 5, 1);
    ct_epilogue epilogue = {0};
    if (desc->gated)
        epilogue.activation = CT_ACT_SILU;
    else
        epilogue.residual = y;
    CHECK_OK(ops->linear_new(&linear, desc));
    CHECK_OK(ops->linear(linear, x, &epilogue, *y, &arena));
    CHECK(gaps_untouched(y));
    ct_arena_clear(&arena);
    ops->linear_free(&linear);
    free(x.data);
}

static void compare_bytes(const ct_ops *ops, const char *level, const scaled_case *c, bool gated)
{
    uint64_t seed = 3;
    ct_linear_desc desc = {.n_parts = c->n_parts, .gated = gated, .quantized = c->how};
    for (int p = 0; p < c->n_parts; p++) {
        CHECK_OK(new_weight(&desc.weight[p], &seed, c, p));
        shrink_codes(desc.weight[p]);
        CHECK_OK(random_vector(&desc.bias[p], &seed, c->n[p]));
    }
    ct_rows wanted, got;
    run_bytes(ops, &desc, c, &wanted);
    ct_onednn_level before = ct_onednn_set_level(CT_ONEDNN_BYTES);
    run_bytes(ops, &desc, c, &got);
    ct_onednn_set_level(before);
    size_t row_bytes = (size_t)wanted.width * ct_dtype_block_bytes(wanted.dtype);
    for (int64_t i = 0; i < c->n_rows; i++) {
        size_t at = (size_t)(i * wanted.stride) * ct_dtype_block_bytes(wanted.dtype);
        if (memcmp((char *)wanted.data + at, (char *)got.data + at, row_bytes) != 0)
            FAIL("level %s, k %lld, gated %d: row %lld of %lld has other bits by oneDNN", level,
                 (long long)c->k, gated, (long long)i, (long long)c->n_rows);
    }
    for (int p = 0; p < c->n_parts; p++) {
        ct_tensor_unref(&desc.weight[p]);
        ct_tensor_unref(&desc.bias[p]);
    }
    free(wanted.data);
    free(got.data);
}

static void tiles_at(const ct_ops *ops, const char *level)
{
    static const ct_dtype formats[] = {CT_LLM_INT8, CT_LLM_INT8, CT_LLM_INT8};
    static const int64_t n_rows[] = {16, 65, 515}, widths[] = {1, 64, 259};
    for (int r = 0; r < 3; r++)
        for (int w = 0; w < 3; w++)
            for (int way = 0; way < 6; way++) {
                bool gated = way % 2;
                int64_t wide = w == 1 ? 530 : 33;
                scaled_case c = {.formats = formats,
                                 .n_parts = gated ? 2 : 3,
                                 .n = {wide, gated ? wide : 1, 70},
                                 .k = widths[w],
                                 .n_rows = n_rows[r],
                                 .how = {.outlier_threshold = way < 2 ? 0 : THRESHOLD},
                                 .outliers = way < 4 ? 0.02 : 0.5};
                compare_bytes(ops, level, &c, gated);
            }
}

static void many_bytes_have_the_same_bits_by_onednn(void)
{
    at_cpu_levels(tiles_at);
}

#ifdef CT_WITH_CUDA
/* By cuBLASLt, and by our own kernels: the same, but for `tolerance`. */
static void run_both(const ct_ops *ops, const scaled_case *c, bool gated, ct_dtype y_dtype,
                     double tolerance)
{
    whole_layer layer;
    ct_rows before;
    new_whole(&layer, &before, c, gated, y_dtype, 15);
    size_t size = (size_t)(c->n_rows * layer.y.stride * value_bytes(y_dtype));
    ct_rows start = layer.y, by_cublas = layer.y;
    start.data = malloc(size);
    by_cublas.data = malloc(size);
    memcpy(start.data, layer.y.data, size);
    compute_whole(ops, &layer);
    memcpy(by_cublas.data, layer.y.data, size);
    memcpy(layer.y.data, start.data, size);
    setenv("CURATED_TRANSFORMERS_CUBLAS", "0", 1);
    compute_whole(ops, &layer);
    unsetenv("CURATED_TRANSFORMERS_CUBLAS");
    for (int64_t i = 0; i < c->n_rows; i++)
        for (int64_t j = 0; j < layer.y.width; j++) {
            double wanted = row_value(&layer.y, i, j), got = row_value(&by_cublas, i, j);
            if (!(fabs(got - wanted) <= tolerance * (1 + fabs(wanted))))
                FAIL("%s, k %lld, row %lld of %lld, column %lld, threshold %g, gated %d, y %s: "
                     "cuBLASLt gives %.9g, our own kernels %.9g",
                     ct_dtype_name(c->formats[0]), (long long)c->k, (long long)i,
                     (long long)c->n_rows, (long long)j, (double)c->how.outlier_threshold, gated,
                     ct_dtype_name(y_dtype), got, wanted);
        }
    free(start.data);
    free(by_cublas.data);
    free_whole(&layer, &before);
}

/* Neither decoded weights nor what cuBLASLt gives fit beside y at once. */
static void bands_at(const ct_ops *ops, const char *level)
{
    static const ct_dtype formats[] = {CT_NF4};
    scaled_case c = {.formats = formats,
                     .n_parts = 1,
                     .n = {500},
                     .k = 640,
                     .n_rows = 300,
                     .how = {.compute_dtype = CT_BF16}};
    (void)level;
    run_both(ops, &c, false, CT_BF16, 0x1p-7);
}

static void bands_of_products_join(void)
{
    at_cuda(bands_at, WITH_CUBLAS);
}

/* Weight rows of numbers that cuBLASLt takes, that it takes and refuses in the end, and that it
 * does not take. The last rows of x are so many that they, and lists of outliers, go in bands. */
static void bytes_by_cublas_at(const ct_ops *ops, const char *level)
{
    static const ct_dtype formats[] = {CT_LLM_INT8, CT_LLM_INT8, CT_LLM_INT8};
    static const ct_dtype y_dtypes[] = {CT_F32, CT_BF16, CT_F16};
    static const int64_t rows[] = {9, 17, 40, 300}, widths[] = {31, 64, 259};
    static const float thresholds[] = {0, 0.9f, 0.001f}; /* outliers: none, some, nearly all */
    (void)level;
    for (int r = 0; r < 4; r++)
        for (int w = r == 3 ? 2 : 0; w < 3; w++)
            for (int t = 0; t < 3; t++)
                for (int gated = 0; gated < 2; gated++) {
                    scaled_case c = {.formats = formats,
                                     .n_parts = gated ? 2 : 3,
                                     .n = {68, gated ? 68 : 4, 13},
                                     .k = widths[w],
                                     .n_rows = rows[r],
                                     .how = {.outlier_threshold = thresholds[t]}};
                    run_both(ops, &c, gated, y_dtypes[(r + w + t) % 3], 0);
                    run_both(ops, &c, gated, CT_F32, 0);
                }
}

/* Sums of bytes are exact, and what follows is the same arithmetic. */
static void bytes_by_cublas_have_the_bits_of_our_own(void)
{
    at_cuda(bytes_by_cublas_at, WITH_CUBLAS);
}
#endif

/* A layer's parts, biases and all, or one of them, which then goes where it is in the layer. */
static void run_parts(const ct_ops *ops, ct_linear_desc desc, int first, int n_parts, ct_rows x,
                      ct_rows y)
{
    ct_linear_desc some = {.n_parts = n_parts, .use = desc.use, .quantized = desc.quantized};
    for (int p = 0; p < first; p++)
        y.data = (float *)y.data + desc.weight[p]->shape[0];
    y.width = 0;
    for (int p = 0; p < n_parts; p++) {
        some.weight[p] = desc.weight[first + p];
        some.bias[p] = desc.bias[first + p];
        y.width += some.weight[p]->shape[0];
    }
    ct_linear *linear;
    ct_arena arena = {0};
    CHECK_OK(ops->linear_new(&linear, &some));
    CHECK_OK(ops->linear(linear, x, &(ct_epilogue){0}, y, &arena));
    ct_arena_clear(&arena);
    ops->linear_free(&linear);
}

/* The same bits joined and alone, and for a row whichever are beside it. */
static void run_joined(const ct_ops *ops, const char *level, const scaled_case *c, bool biases)
{
    uint64_t seed = 21;
    ct_linear_desc desc = {.n_parts = c->n_parts, .use = CT_LINEAR_STREAM, .quantized = c->how};
    int64_t width = 0;
    for (int p = 0; p < c->n_parts; width += c->n[p++]) {
        scaled_case own = *c;
        own.skipped = p; /* where blocks of scales begin differs, too */
        CHECK_OK(new_weight(&desc.weight[p], &seed, &own, p));
        if (!biases || p == 1)
            continue;
        CHECK_OK(ct_tensor_new(&desc.bias[p], CT_F32, 1, (int64_t[]){c->n[p]}));
        for (int64_t i = 0; i < c->n[p]; i++)
            ((float *)ct_tensor_data(desc.bias[p]))[i] = random_value(&seed, 1);
    }
    ct_rows x = random_rows(&seed, CT_F32, c->n_rows, c->k, 4, 1);
    ct_rows joined = new_rows(CT_F32, c->n_rows, width, 5), alone = joined;
    /* Rows of the last part are as far apart, and may be copied as a whole. */
    alone.data = malloc(sizeof(float) * (size_t)((c->n_rows + 1) * joined.stride));
    memcpy(alone.data, joined.data, sizeof(float) * (size_t)(c->n_rows * joined.stride));
    ((float *)x.data)[c->k / 2] = 40; /* an outlier */
    run_parts(ops, desc, 0, c->n_parts, x, joined);
    for (int p = 0; p < c->n_parts; p++)
        run_parts(ops, desc, p, 1, x, alone);
    if (memcmp(joined.data, alone.data, sizeof(float) * (size_t)(c->n_rows * joined.stride)) != 0)
        FAIL("level %s, %lld rows, %s: parts alone give other bits", level, (long long)c->n_rows,
             ct_dtype_name(c->formats[0]));
    for (int64_t i = 0; i < c->n_rows; i++) {
        ct_rows row = x, to = alone;
        row.data = (float *)x.data + i * x.stride;
        to.data = (float *)alone.data + i * alone.stride;
        row.n_rows = to.n_rows = 1;
        run_parts(ops, desc, 0, c->n_parts, row, to);
    }
    if (memcmp(joined.data, alone.data, sizeof(float) * (size_t)(c->n_rows * joined.stride)) != 0)
        FAIL("level %s, %lld rows, %s: rows alone give other bits", level, (long long)c->n_rows,
             ct_dtype_name(c->formats[0]));
    CHECK(gaps_untouched(&joined));
    for (int p = 0; p < c->n_parts; p++) {
        ct_tensor_unref(&desc.weight[p]);
        ct_tensor_unref(&desc.bias[p]);
    }
    free(x.data);
    free(joined.data);
    free(alone.data);
}

static void joined_at(const ct_ops *ops, const char *level)
{
    static const ct_dtype mixes[][CT_LINEAR_MAX_PARTS] = {{CT_NF4, CT_NF4, CT_NF4},
                                                          {CT_FP4, CT_FP4, CT_FP4},
                                                          {CT_LLM_INT8, CT_LLM_INT8, CT_LLM_INT8},
                                                          {CT_NF4, CT_FP4, CT_NF4},
                                                          {CT_LLM_INT8, CT_NF4, CT_LLM_INT8}};
    static const ct_dtype compute[] = {CT_F32, CT_F16, CT_BF16};
    for (size_t mix = 0; mix < sizeof mixes / sizeof *mixes; mix++)
        for (int64_t n_rows = 1; n_rows <= 8; n_rows += n_rows == 1 ? 2 : 5)
            for (int way = 0; way < 6; way++) {
                scaled_case c = {
                    .formats = mixes[mix],
                    .n_parts = 3,
                    .n = {37, 1, 19},
                    .k = 192,
                    .n_rows = n_rows,
                    .how = {.compute_dtype = compute[way / 2], .outlier_threshold = THRESHOLD}};
                run_joined(ops, level, &c, way % 2);
            }
}

static void parts_and_rows_have_the_same_bits_joined_and_alone(void)
{
    at_every_level(joined_at);
}

/* So many that kernels go round, and x does not fit in what they keep it in. */
static void large_at(const ct_ops *ops, const char *level)
{
    static const ct_dtype formats[] = {CT_NF4, CT_FP4, CT_LLM_INT8};
    static const ct_dtype compute[] = {CT_F32, CT_F16, CT_BF16};
    for (int64_t n_rows = 8; n_rows < 10; n_rows++)
        for (int d = 0; d < 3; d++) {
            scaled_case c = {.formats = formats,
                             .n_parts = 3,
                             .n = {150, 20, 40},
                             .k = 6080,
                             .n_rows = n_rows,
                             .how = {.compute_dtype = compute[d], .outlier_threshold = THRESHOLD},
                             .outliers = 0.02};
            run_case(ops, level, &c, 3);
        }
}

static void large_products_agree_with_double_precision(void)
{
    at_every_level_of_products(large_at);
}

static void too_long_rows_are_refused(void)
{
    static const ct_dtype formats[] = {CT_LLM_INT8, CT_FP4};
    static const int64_t widths[] = {CT_INT8_MAX_K + 1, 4096 * 64 + 64};
    for (int f = 0; f < 2; f++) {
        uint64_t seed = 1;
        scaled_case c = {.formats = &formats[f], .n_parts = 1, .n = {1}, .k = widths[f]};
        ct_linear_desc desc = {.n_parts = 1};
        const ct_ops *ops;
        ct_linear *linear;
        CHECK_OK(ct_cpu_ops(&ops));
        CHECK_OK(new_weight(&desc.weight[0], &seed, &c, 0));
        CHECK_INT(ops->linear_new(&linear, &desc), CT_VALUE);
        CHECK(!linear);
        ct_tensor_unref(&desc.weight[0]);
    }
}

const ct_test suite_cpu_scaled[] = {
    TEST(int8_products_follow_the_published_rules),
    TEST(codebook_products_agree_with_double_precision),
    TEST(activations_in_bytes_stay_close),
    TEST(formats_mix_with_floats_in_one_layer),
    TEST(norms_gates_and_residuals_join_products),
    TEST(many_bytes_have_the_same_bits_by_onednn),
#ifdef CT_WITH_CUDA
    TEST(bands_of_products_join),
    TEST(bytes_by_cublas_have_the_bits_of_our_own),
#endif
    TEST(parts_and_rows_have_the_same_bits_joined_and_alone),
    TEST(large_products_agree_with_double_precision),
    TEST(too_long_rows_are_refused),
    TESTS_END,
};

ct_status fault_scaled(void)
{
    static const ct_dtype formats[] = {CT_LLM_INT8, CT_NF4, CT_FP4};
    ct_linear_desc desc = {.n_parts = 3};
    ct_linear *linear = NULL;
    ct_arena arena = {0};
    uint64_t seed = 3;
    const ct_ops *ops;
    ct_status status = ct_cpu_ops(&ops);
    scaled_case c = {.formats = formats, .n_parts = 3, .n = {8, 8, 8}, .k = 128, .nested = true};
    float values[3 * 128] = {1};
    ct_rows x = {values, CT_F32, 3, 128, 128}, y = new_rows(CT_F32, 3, 24, 0);
    for (int p = 0; p < 3 && status == CT_OK; p++)
        status = new_weight(&desc.weight[p], &seed, &c, p);
    if (status == CT_OK)
        status = ops->linear_new(&linear, &desc);
    if (status == CT_OK)
        status = ops->linear(linear, x, &(ct_epilogue){0}, y, &arena);
    ct_arena_clear(&arena);
    ops->linear_free(&linear);
    for (int p = 0; p < 3; p++)
        ct_tensor_unref(&desc.weight[p]);
    free(y.data);
    return status;
}
