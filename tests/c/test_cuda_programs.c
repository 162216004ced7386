/* Programs of the CUDA table: what is recorded, what is repeated, and that steps of generation are.
 * Where cuda/ is part of the tests. */
#include "test.h"

#ifdef CT_WITH_CUDA

#include "core/arena.h"
#include "cpu/quantize.h"
#include "cpu_rows.h"
#include "generation/session.h"
#include "ops/device.h"
#include "ops/memory.h"
#include "tiny_model.h"

extern const ct_ops ct_cuda_table;

#define N 40

/* y = x + z by the device, `runs` times asked for. */
typedef struct sum {
    float *x, *z, *y; /* of the device, [N] */
    int runs;
    int refused; /* the run in which the device refuses something; 0: none */
    bool takes_memory, fails;
} sum;

static ct_rows row_of(float *data)
{
    return (ct_rows){data, CT_F32, 1, N, N};
}

static ct_status run_sum(void *context)
{
    sum *s = context;
    s->runs++;
    if (s->takes_memory) {
        void *memory;
        CT_TRY(ct_cuda_table.alloc(0, &memory, 16));
        ct_cuda_table.free(0, memory, 16);
    }
    CT_TRY(ct_cuda_table.add(row_of(s->y), row_of(s->x), row_of(s->z)));
    if (s->runs == s->refused)
        return ct_fail(CT_INTERNAL, "not while something is recorded");
    return s->fails ? ct_fail(CT_INTERRUPTED, "stopped") : CT_OK;
}

static ct_status ask(sum *s, int64_t key)
{
    return ct_cuda_table.repeat(&(ct_program){&key, sizeof key, run_sum, s});
}

/* Sets x to `value` and z to 1, and y to nothing that a sum could be. */
static void set(const sum *s, float value)
{
    float values[3][N];
    for (int i = 0; i < N; i++) {
        values[0][i] = value + (float)i;
        values[1][i] = 1;
        values[2][i] = -1e9f;
    }
    CHECK_OK(ct_cuda_table.upload(s->x, values[0], sizeof values[0]));
    CHECK_OK(ct_cuda_table.upload(s->z, values[1], sizeof values[1]));
    CHECK_OK(ct_cuda_table.upload(s->y, values[2], sizeof values[2]));
}

static void expect(const sum *s, float value)
{
    float got[N];
    CHECK_OK(ct_cuda_table.download(got, s->y, sizeof got));
    for (int i = 0; i < N; i++)
        CHECK_NEAR(got[i], value + (float)i + 1, 0);
}

/* The device was entered. */
static void make(sum *s)
{
    *s = (sum){0};
    CHECK_OK(ct_cuda_table.alloc(0, (void **)&s->x, sizeof(float) * N));
    CHECK_OK(ct_cuda_table.alloc(0, (void **)&s->z, sizeof(float) * N));
    CHECK_OK(ct_cuda_table.alloc(0, (void **)&s->y, sizeof(float) * N));
}

static void begin(sum *s)
{
    CHECK_OK(ct_cuda_table.enter(0));
    make(s);
}

static void drop(sum *s)
{
    ct_cuda_table.free(0, s->x, sizeof(float) * N);
    ct_cuda_table.free(0, s->z, sizeof(float) * N);
    ct_cuda_table.free(0, s->y, sizeof(float) * N);
}

static void finish(sum *s)
{
    drop(s);
    ct_cuda_table.leave(0);
}

/* Other tests' programs have other keys. */
static int64_t next_key = 1000;

static void the_third_time_is_a_repetition_with_what_the_arrays_hold_then(void)
{
    sum s;
    int64_t key = next_key++;
    begin(&s);
    for (int i = 0; i < 5; i++) {
        set(&s, (float)(10 * i));
        CHECK_OK(ask(&s, key));
        expect(&s, (float)(10 * i));
        CHECK_INT(s.runs, i < 2 ? i + 1 : 2);
    }
    finish(&s);
}

static void other_keys_are_other_programs(void)
{
    sum s, other;
    int64_t key = next_key++, other_key = next_key++;
    begin(&s);
    make(&other);
    for (int i = 0; i < 4; i++) {
        set(&s, 1);
        set(&other, 2);
        CHECK_OK(ask(&s, key));
        CHECK_OK(ask(&other, other_key));
        expect(&s, 1);
        expect(&other, 2);
    }
    CHECK_INT(s.runs, 2);
    CHECK_INT(other.runs, 2);
    drop(&other);
    finish(&s);
}

static void what_takes_memory_is_never_repeated(void)
{
    sum s;
    int64_t key = next_key++;
    begin(&s);
    s.takes_memory = true;
    for (int i = 0; i < 8; i++) {
        set(&s, (float)i);
        CHECK_OK(ask(&s, key));
        expect(&s, (float)i);
    }
    CHECK(s.runs >= 8 && s.runs <= 11); /* a few attempts to record it */
    finish(&s);
}

static void a_failure_while_it_is_recorded_is_the_callers(void)
{
    sum s;
    int64_t key = next_key++;
    begin(&s);
    CHECK_OK(ask(&s, key));
    s.fails = true;
    CHECK_FAILS(ask(&s, key), CT_INTERRUPTED, "stopped");
    s.fails = false;
    set(&s, 3);
    CHECK_OK(ask(&s, key));
    expect(&s, 3);
    int runs = s.runs;
    set(&s, 4);
    CHECK_OK(ask(&s, key));
    expect(&s, 4);
    CHECK_INT(s.runs, runs);
    finish(&s);
}

static void what_cannot_be_recorded_is_done_as_it_is(void)
{
    sum s;
    int64_t key = next_key++;
    begin(&s);
    s.refused = 2;
    for (int i = 0; i < 4; i++) {
        set(&s, (float)i);
        CHECK_OK(ask(&s, key));
        expect(&s, (float)i);
    }
    CHECK_INT(s.runs, 4); /* once; refused, and as it is; recorded */
    finish(&s);
}

static void the_longest_unasked_is_forgotten(void)
{
    sum s;
    int64_t first = next_key;
    next_key += 100;
    begin(&s);
    for (int64_t i = 0; i < 33; i++) /* one more than are kept */
        for (int j = 0; j < 3; j++) {
            CHECK_OK(ask(&s, first + i));
            CHECK_OK(ask(&s, first + 1)); /* is used all the time */
        }
    s.runs = 0;
    CHECK_OK(ask(&s, first + 1));
    CHECK_OK(ask(&s, first + 32));
    CHECK_INT(s.runs, 0);
    CHECK_OK(ask(&s, first));
    CHECK_INT(s.runs, 1);
    finish(&s);
}

/* ---- layers ---- */

#define COLUMNS 192

/* y = norm(x + z) W^T: the sum is made by the kernel before the layer's. */
typedef struct layer {
    ct_linear *linear;
    float *x, *z, *sum, *y; /* of the device, [COLUMNS], y [N] */
    ct_arena arena;
} layer;

static ct_status run_layer(void *context)
{
    layer *one = context;
    ct_rows x = {one->x, CT_F32, 1, COLUMNS, COLUMNS}, z = x, sum = x;
    z.data = one->z;
    sum.data = one->sum;
    ct_arena_reset(&one->arena);
    CT_TRY(ct_cuda_table.add(sum, x, z));
    return ct_cuda_table.linear(one->linear, sum, &(ct_epilogue){0}, row_of(one->y), &one->arena);
}

static ct_status new_layer(layer *out, ct_tensor **weight, ct_dtype format)
{
    static float values[N * COLUMNS], ones[COLUMNS];
    uint64_t seed = 3;
    ct_tensor *matrix, *norm;
    for (int i = 0; i < N * COLUMNS; i++)
        values[i] = random_value(&seed, 1);
    for (int i = 0; i < COLUMNS; i++)
        ones[i] = 1;
    CT_TRY(ct_tensor_new(&matrix, CT_F32, 2, (int64_t[]){N, COLUMNS}));
    CT_TRY(ct_tensor_new(&norm, CT_F32, 1, (int64_t[]){COLUMNS}));
    memcpy(ct_tensor_data(matrix), values, sizeof values);
    memcpy(ct_tensor_data(norm), ones, sizeof ones);
    if (format == CT_F32)
        *weight = ct_tensor_ref(matrix);
    else
        CT_TRY(ct_cpu_quantize(weight, matrix, format, false));
    ct_linear_desc desc = {
        .n_parts = 1,
        .weight = {*weight},
        .use = CT_LINEAR_STREAM,
        .norm = {.kind = CT_NORM_RMS, .weight = norm, .eps = 1e-6f},
        .quantized = {.model_dtype = CT_BF16, .compute_dtype = CT_BF16, .outlier_threshold = 6}};
    ct_status status = ct_cuda_table.linear_new(&out->linear, &desc);
    ct_tensor_unref(&matrix);
    ct_tensor_unref(&norm);
    return status;
}

/* By a row of the product, in double precision. */
static void check_layer(const float *y, const float *sum, ct_tensor *weight)
{
    ct_tensor *floats;
    double squares = 0;
    CHECK_OK(ct_tensor_convert(&floats, weight, CT_F32));
    for (int j = 0; j < COLUMNS; j++)
        squares += (double)sum[j] * (double)sum[j] / COLUMNS;
    for (int i = 0; i < N; i++) {
        double product = 0, magnitude = 0;
        for (int j = 0; j < COLUMNS; j++) {
            double one = (double)sum[j] / sqrt(squares) *
                         (double)((const float *)ct_tensor_data(floats))[i * COLUMNS + j];
            product += one;
            magnitude += fabs(one);
        }
        CHECK_NEAR(y[i], product, 0.02 * magnitude);
    }
    ct_tensor_unref(&floats);
}

/* Its kernels may have begun by then; what they read too early, the watch for races finds. */
static void layers_wait_for_the_kernel_before(void)
{
    static const ct_dtype formats[] = {CT_F32, CT_NF4, CT_LLM_INT8};
    const ct_memory memory = {ct_cuda_table.alloc, ct_cuda_table.free, 0};
    CHECK_OK(ct_cuda_table.enter(0));
    for (size_t f = 0; f < sizeof formats / sizeof *formats; f++) {
        float values[2][COLUMNS], sum[COLUMNS], y[N];
        size_t size = sizeof sum;
        layer one = {.arena = {.memory = &memory}};
        ct_tensor *weight = NULL;
        int64_t key = next_key++;
        float **const arrays[] = {&one.x, &one.z, &one.sum, &one.y};
        CHECK_OK(new_layer(&one, &weight, formats[f]));
        for (int i = 0; i < 4; i++)
            CHECK_OK(ct_cuda_table.alloc(0, (void **)arrays[i], size));
        for (int run = 0; run < 4; run++) {
            for (int j = 0; j < COLUMNS; j++) {
                values[0][j] = sinf((float)(j + 50 * run));
                values[1][j] = cosf((float)(j * run));
                sum[j] = values[0][j] + values[1][j];
            }
            CHECK_OK(ct_cuda_table.upload(one.x, values[0], size));
            CHECK_OK(ct_cuda_table.upload(one.z, values[1], size));
            CHECK_OK(ct_cuda_table.repeat(&(ct_program){&key, sizeof key, run_layer, &one}));
            CHECK_OK(ct_cuda_table.download(y, one.y, sizeof y));
            check_layer(y, sum, weight);
        }
        for (int i = 0; i < 4; i++)
            ct_cuda_table.free(0, *arrays[i], size);
        ct_arena_clear(&one.arena);
        ct_cuda_table.linear_free(&one.linear);
        ct_tensor_unref(&weight);
    }
    ct_cuda_table.leave(0);
}

/* ---- products ---- */

#define MANY_ROWS 20
#define WIDTH 64

/* y = x W^T, all of the device, with scratch from its memory. */
typedef struct many_layer {
    ct_linear *linear;
    ct_memory memory;
    ct_arena scratch;
    ct_rows x, y;
    int runs;
} many_layer;

static ct_status run_many(void *context)
{
    many_layer *l = context;
    l->runs++;
    ct_status status = ct_cuda_table.linear(l->linear, l->x, &(ct_epilogue){0}, l->y, &l->scratch);
    ct_arena_reset(&l->scratch);
    return status;
}

static ct_status new_many(many_layer *l, ct_dtype format, uint64_t *seed)
{
    ct_tensor *matrix, *quantized = NULL;
    ct_linear_desc desc = {.n_parts = 1,
                           .quantized = {.compute_dtype = CT_BF16, .outlier_threshold = 0.9f}};
    *l = (many_layer){.memory = {ct_cuda_table.alloc, ct_cuda_table.free, 0}};
    l->scratch.memory = &l->memory;
    l->x = l->y = (ct_rows){NULL, CT_F32, MANY_ROWS, WIDTH, WIDTH};
    CT_TRY(ct_cuda_table.alloc(0, &l->x.data, sizeof(float) * MANY_ROWS * WIDTH));
    CT_TRY(ct_cuda_table.alloc(0, &l->y.data, sizeof(float) * MANY_ROWS * WIDTH));
    CT_TRY(ct_tensor_new(&matrix, CT_F32, 2, (int64_t[]){WIDTH, WIDTH}));
    for (int i = 0; i < WIDTH * WIDTH; i++)
        ((float *)ct_tensor_data(matrix))[i] = random_value(seed, 1);
    ct_status status = ct_cpu_quantize(&quantized, matrix, format, false);
    desc.weight[0] = quantized;
    if (status == CT_OK)
        status = ct_cuda_table.linear_new(&l->linear, &desc);
    ct_tensor_unref(&quantized);
    ct_tensor_unref(&matrix);
    return status;
}

static void free_many(many_layer *l)
{
    ct_cuda_table.linear_free(&l->linear);
    ct_arena_clear(&l->scratch);
    ct_cuda_table.free(0, l->x.data, sizeof(float) * MANY_ROWS * WIDTH);
    ct_cuda_table.free(0, l->y.data, sizeof(float) * MANY_ROWS * WIDTH);
}

/* Asked for, and then done as it is: the same bits. */
static void repeat_many(many_layer *l, int64_t key, uint64_t *seed)
{
    float x[MANY_ROWS * WIDTH], y[2][MANY_ROWS * WIDTH];
    for (int i = 0; i < MANY_ROWS * WIDTH; i++)
        x[i] = random_value(seed, 1);
    CHECK_OK(ct_cuda_table.upload(l->x.data, x, sizeof x));
    CHECK_OK(ct_cuda_table.repeat(&(ct_program){&key, sizeof key, run_many, l}));
    CHECK_OK(ct_cuda_table.download(y[0], l->y.data, sizeof x));
    int runs = l->runs;
    CHECK_OK(run_many(l));
    l->runs = runs;
    CHECK_OK(ct_cuda_table.download(y[1], l->y.data, sizeof x));
    CHECK(memcmp(y[0], y[1], sizeof x) == 0);
}

/* By cuBLASLt, where it is there: what it needs, and what is decoded or summed beside y, lies where
 * it lay, and what outliers there are the device sees by itself. */
static void products_of_many_rows_are_repeated(void)
{
    static const ct_dtype formats[] = {CT_LLM_INT8, CT_NF4, CT_FP4};
    uint64_t seed = 7;
    CHECK_OK(ct_cuda_table.enter(0));
    for (int f = 0; f < 3; f++) {
        many_layer l;
        int64_t key = next_key++;
        CHECK_OK(new_many(&l, formats[f], &seed));
        CHECK_OK(run_many(&l)); /* the arena grows */
        l.runs = 0;
        for (int i = 0; i < 4; i++)
            repeat_many(&l, key, &seed);
        CHECK_INT(l.runs, 2);
        free_many(&l);
    }
    ct_cuda_table.leave(0);
}

/* ---- generation ---- */

#define PROMPT 61
#define LONG_PROMPT 230
#define PIECES 80 /* past the end of a page; of a long prompt, of a span of keys */

static int n_runs, n_asked;
static ct_program counted;

static ct_status count_run(void *context)
{
    n_runs++;
    return counted.run(context);
}

static ct_status count_repeat(const ct_program *program)
{
    n_asked++;
    counted = *program;
    return ct_cuda_table.repeat(
        &(ct_program){program->key, program->key_size, count_run, program->context});
}

/* Two texts, one of which ends sooner; the second's pieces. */
static ct_status generate(int32_t *out, int64_t n_prompt, ct_device_id device)
{
    ct_status status = CT_OK;
    ct_model *model;
    ct_session *session = NULL;
    int32_t prompt[LONG_PROMPT];
    int64_t number, n = 0;
    ct_spec spec = tiny_decoder_spec();
    spec.max_positions = LONG_PROMPT + PIECES;
    CT_TRY(tiny_model_new_on(&model, spec, device));
    CT_TRY_TO(done, ct_session_new(&session, model, &(ct_session_config){4, 600, 20 * 64}));
    tiny_pieces(prompt, n_prompt, 5);
    for (int i = 0; i < 2; i++) {
        ct_request request = {.prompt = prompt + i,
                              .n_prompt = n_prompt - i,
                              .sampling = {.top_p = 1},
                              .max_pieces = i == 0 ? 20 : PIECES};
        CT_TRY_TO(done, ct_session_add(session, &request, &number));
    }
    while (!ct_session_is_done(session)) {
        const ct_event *events;
        int64_t n_events;
        CT_TRY_TO(done, ct_session_step(session, (ct_poll){0}, &events, &n_events));
        for (int64_t i = 0; i < n_events; i++)
            if (events[i].sequence == 1 && n < PIECES)
                out[n++] = events[i].piece;
    }
done:
    ct_session_free(&session);
    ct_model_unref(&model);
    return status;
}

static void steps_behind(int64_t n_prompt, int most_runs)
{
    int32_t wanted[PIECES] = {0}, got[PIECES] = {0};
    ct_ops table = ct_cuda_table;
    table.repeat = count_repeat;
    n_runs = n_asked = 0;
    CHECK_OK(ct_device_register(CT_DEVICE_CUDA, &table));
    ct_status status = generate(got, n_prompt, (ct_device_id){CT_DEVICE_CUDA, 0});
    CHECK_OK(ct_device_register(CT_DEVICE_CUDA, &ct_cuda_table));
    CHECK_OK(status);
    CHECK_OK(generate(wanted, n_prompt, (ct_device_id){CT_DEVICE_CPU, 0}));
    CHECK(memcmp(wanted, got, sizeof got) == 0);
    CHECK(n_asked >= PIECES - 4);
    CHECK(n_runs <= most_runs);
}

/* Twice with two rows and with one, and while arenas grow. */
static void steps_of_generation_are_repeated(void)
{
    steps_behind(PROMPT, 6);
}

/* The same again once keys are in two spans, which the blocks of the same launch merge. */
static void steps_over_several_spans_are_repeated(void)
{
    steps_behind(LONG_PROMPT, 12);
}

const ct_test suite_cuda_programs[] = {
    TEST(the_third_time_is_a_repetition_with_what_the_arrays_hold_then),
    TEST(other_keys_are_other_programs),
    TEST(what_takes_memory_is_never_repeated),
    TEST(a_failure_while_it_is_recorded_is_the_callers),
    TEST(what_cannot_be_recorded_is_done_as_it_is),
    TEST(the_longest_unasked_is_forgotten),
    TEST(layers_wait_for_the_kernel_before),
    TEST(products_of_many_rows_are_repeated),
    TEST(steps_of_generation_are_repeated),
    TEST(steps_over_several_spans_are_repeated),
    TESTS_END,
};

#else

const ct_test suite_cuda_programs[] = {TESTS_END};

#endif
