/* The model's forward pass against the oracle: long and ragged sequences, in pieces behind a cache,
 * general masks, 16-bit weights.
 *
 * Tolerances, in parts of a row's length: 1e-5 for f32 (see test_model_spec_fields.c). With 16-bit
 * weights the oracle computes with the rounded weights, but inputs of products and cached keys and
 * values are rounded as well where the processor likes it so: some twenty roundings one after the
 * other, of 2^-9 for bf16 and 2^-12 for f16, of which norms and softmax may make several times as
 * much. Masks, places and pages are what the f32 cases are for. */
#include "test.h"

#include "model_oracle.h"

#define TOLERANCE 1e-5
#define BF16_TOLERANCE 3e-2
#define F16_TOLERANCE 4e-3
#define LONGEST 200

static ct_spec long_encoder_spec(void)
{
    ct_spec spec = tiny_encoder_spec();
    spec.n_positions = spec.max_positions = LONGEST;
    return spec;
}

static const int32_t *counted(void)
{
    static int32_t positions[LONGEST];
    for (int32_t i = 0; i < LONGEST; i++)
        positions[i] = i;
    return positions;
}

/* ---- long and ragged ---- */

/* Sequences whose ends lie around those of pages (64 positions) and of tiles of queries, padded to
 * the longest. */
static const int64_t lengths[] = {1, 63, 64, 65, 130, LONGEST};
#define N_LENGTHS 6

static void check_ragged(ct_spec spec, double tolerance)
{
    static int32_t ids[N_LENGTHS * LONGEST];
    oracle_input sequences[N_LENGTHS];
    ct_model *model;
    ct_inputs inputs = {0};
    ct_tensor *all, *mask;
    tiny_result result;
    tiny_pieces(ids, N_LENGTHS * LONGEST, 3);
    CHECK_OK(ct_spec_validate(&spec));
    CHECK_OK(tiny_model_new(&model, spec));
    CHECK_OK(integers_of(&all, N_LENGTHS, LONGEST, ids));
    CHECK_OK(ct_tensor_new(&mask, CT_BOOL, 2, (int64_t[]){N_LENGTHS, LONGEST}));
    for (int q = 0; q < N_LENGTHS; q++) {
        for (int c = 0; c < LONGEST; c++)
            ((uint8_t *)ct_tensor_data(mask))[q * LONGEST + c] = c < lengths[q];
        sequences[q] = (oracle_input){
            .spec = &spec, .n = lengths[q], .ids = ids + q * LONGEST, .positions = counted()};
    }
    inputs.ids = all;
    inputs.mask = mask;
    CHECK_OK(tiny_run(&result, model, &inputs, false));
    double distance = distance_from_oracle(&result, sequences);
    tiny_result_clear(&result);
    ct_tensor_unref(&mask);
    ct_tensor_unref(&all);
    ct_model_unref(&model);
    if (distance > tolerance)
        FAIL("off by %g", distance);
}

static void long_ragged_sequences_agree_with_double_precision(void)
{
    ct_spec window = tiny_decoder_spec(), alibi = tiny_parallel_spec(), local = long_encoder_spec();
    window.window = 66;
    alibi.rotary_width = 0;
    alibi.alibi = 1;
    local.window = 66;
    check_ragged(long_encoder_spec(), TOLERANCE);
    check_ragged(tiny_decoder_spec(), TOLERANCE);
    check_ragged(tiny_parallel_spec(), TOLERANCE);
    check_ragged(window, TOLERANCE);
    check_ragged(alibi, TOLERANCE);
    check_ragged(local, TOLERANCE);
}

static void sixteen_bit_weights_agree_with_double_precision(void)
{
    static const ct_dtype dtypes[] = {CT_BF16, CT_F16};
    for (int i = 0; i < 2; i++) {
        ct_spec specs[] = {long_encoder_spec(), tiny_decoder_spec(), tiny_parallel_spec()};
        for (int s = 0; s < 3; s++) {
            specs[s].dtype = dtypes[i];
            check_ragged(specs[s], dtypes[i] == CT_BF16 ? BF16_TOLERANCE : F16_TOLERANCE);
        }
    }
}

/* ---- in pieces ---- */

/* One sequence of LONGEST pieces in parts, each behind the snapshot that the one before left. */
static ct_status run_parts(double *distance, ct_model *model, const int64_t *parts)
{
    static double hidden[(TINY_LAYERS + 1) * LONGEST * TINY_WIDTH], logits[LONGEST * TINY_PIECES];
    int32_t ids[LONGEST];
    ct_kv_cache *cache = NULL;
    tiny_pieces(ids, LONGEST, 4);
    oracle_run(&(oracle_input){&model->weights.spec, LONGEST, ids, counted(), NULL, NULL}, hidden,
               logits);
    *distance = 0;
    for (int64_t first = 0; first < LONGEST; first += *parts++) {
        tiny_result result;
        ct_status status =
            tiny_run_pieces(&result, model, ids + first, *parts, cache, first + *parts < LONGEST);
        ct_kv_cache_unref(&cache);
        if (status != CT_OK)
            return status;
        for (int64_t t = 0; t < *parts; t++) {
            const double *last = hidden + (TINY_LAYERS * LONGEST + first + t) * TINY_WIDTH;
            *distance = fmax(*distance, float_row_distance(tiny_hidden(&result, TINY_LAYERS, t),
                                                           last, TINY_WIDTH));
            *distance = fmax(*distance,
                             float_row_distance(tiny_logits(&result, t),
                                                logits + (first + t) * TINY_PIECES, TINY_PIECES));
        }
        cache = result.cache;
        result.cache = NULL;
        tiny_result_clear(&result);
    }
    return CT_OK;
}

static void check_parts(ct_spec spec, double tolerance)
{
    static const int64_t splits[][LONGEST] = {
        {64, 1, 65, 70}, {63, 2, 135}, {1, 130, 69}, {128, 72}, {0}};
    int64_t singly[LONGEST];
    for (int i = 0; i < LONGEST; i++)
        singly[i] = 1;
    ct_model *model;
    CHECK_OK(tiny_model_new(&model, spec));
    for (int i = 0; i < 5; i++) {
        double distance;
        CHECK_OK(run_parts(&distance, model, splits[i][0] ? splits[i] : singly));
        if (distance > tolerance)
            FAIL("split %d: off by %g", i, distance);
    }
    ct_model_unref(&model);
}

static void cached_pieces_agree_with_double_precision(void)
{
    ct_spec window = tiny_decoder_spec(), alibi = tiny_parallel_spec();
    window.window = 66;
    alibi.rotary_width = 0;
    alibi.alibi = 1;
    check_parts(tiny_decoder_spec(), TOLERANCE);
    check_parts(tiny_parallel_spec(), TOLERANCE);
    check_parts(window, TOLERANCE);
    check_parts(alibi, TOLERANCE);
}

static void a_sixteen_bit_cache_agrees_with_double_precision(void)
{
    ct_spec specs[] = {tiny_decoder_spec(), tiny_parallel_spec()};
    specs[0].dtype = CT_BF16;
    specs[1].dtype = CT_F16;
    check_parts(specs[0], BF16_TOLERANCE);
    check_parts(specs[1], F16_TOLERANCE);
}

/* ---- general masks ---- */

enum { COLUMNS = 9, HEADS = 4 };

/* A mask [batch, heads, queries, keys] of scattered holes, the first query without any key. */
static ct_status holes(ct_tensor **out, const int64_t *shape)
{
    CT_TRY(ct_tensor_new(out, CT_BOOL, 4, shape));
    uint8_t *values = ct_tensor_data(*out);
    for (int64_t i = 0; i < ct_tensor_size(*out); i++)
        values[i] = (i * 7 + i / 5) % 3 != 0 && (shape[2] == 1 || i / shape[3] % shape[2] > 0);
    return CT_OK;
}

/* What the mask says of sequence q, for the oracle; dimensions of length 1 count for all. */
static void allowed_of(uint8_t *out, const ct_tensor *mask, int64_t q)
{
    const uint8_t *values = ct_tensor_data(mask);
    const int64_t *shape = mask->shape;
    for (int64_t h = 0; h < HEADS; h++)
        for (int64_t i = 0; i < COLUMNS; i++)
            for (int64_t j = 0; j < COLUMNS; j++)
                *out++ =
                    values[((q % shape[0] * shape[1] + h % shape[1]) * shape[2] + i % shape[2]) *
                               shape[3] +
                           j];
}

/* Two sequences at once, or for a decoder in parts of 4 and 5 with the mask's part for each. */
static ct_status run_masked(double *distance, ct_model *model, const ct_tensor *ids,
                            const ct_tensor *mask, const oracle_input *sequences, int64_t first)
{
    ct_status status = CT_OK;
    ct_kv_cache *cache = NULL;
    *distance = 0;
    for (int64_t at = 0; at < COLUMNS && status == CT_OK; at = at ? COLUMNS : first) {
        int64_t n = at ? COLUMNS - at : first;
        ct_tensor *part[3] = {NULL};
        tiny_result result = {0};
        oracle_input begun[2] = {sequences[0], sequences[1]};
        CT_TRY_TO(done, ct_tensor_slice(&part[0], ids, 1, at, n, 1));
        CT_TRY_TO(done, ct_tensor_slice(&part[1], mask, 3, 0, at + n, 1));
        CT_TRY_TO(done, ct_tensor_slice(&part[2], part[1], 2, mask->shape[2] > 1 ? at : 0,
                                        mask->shape[2] > 1 ? n : 1, 1));
        ct_inputs inputs = {.ids = part[0], .mask = part[2], .cache = cache};
        CT_TRY_TO(done, tiny_run(&result, model, &inputs, first < COLUMNS));
        if (at + n == COLUMNS)
            *distance = distance_from_oracle(&result, begun);
    done:
        for (int i = 0; i < 3; i++)
            ct_tensor_unref(&part[i]);
        ct_kv_cache_unref(&cache);
        cache = result.cache;
        result.cache = NULL;
        tiny_result_clear(&result);
    }
    ct_kv_cache_unref(&cache);
    return status;
}

static void check_mask(ct_spec spec, const int64_t *shape, int64_t first)
{
    int32_t ids[2 * COLUMNS];
    uint8_t allowed[2][HEADS * COLUMNS * COLUMNS];
    oracle_input sequences[2];
    ct_model *model;
    ct_tensor *all, *mask;
    double distance;
    tiny_pieces(ids, 2 * COLUMNS, 6);
    CHECK_OK(ct_spec_validate(&spec));
    CHECK_OK(tiny_model_new(&model, spec));
    CHECK_OK(integers_of(&all, 2, COLUMNS, ids));
    CHECK_OK(holes(&mask, shape));
    for (int q = 0; q < 2; q++) {
        allowed_of(allowed[q], mask, q);
        sequences[q] =
            (oracle_input){&spec, COLUMNS, ids + q * COLUMNS, counted(), NULL, allowed[q]};
    }
    CHECK_OK(run_masked(&distance, model, all, mask, sequences, first));
    ct_tensor_unref(&mask);
    ct_tensor_unref(&all);
    ct_model_unref(&model);
    if (distance > TOLERANCE)
        FAIL("mask [%d, %d, %d, %d], %d at first: off by %g", (int)shape[0], (int)shape[1],
             (int)shape[2], (int)shape[3], (int)first, distance);
}

static void general_masks_agree_with_double_precision(void)
{
    static const int64_t shapes[][4] = {{2, 1, COLUMNS, COLUMNS},
                                        {2, HEADS, COLUMNS, COLUMNS},
                                        {1, HEADS, COLUMNS, COLUMNS},
                                        {1, 1, COLUMNS, COLUMNS},
                                        {2, HEADS, 1, COLUMNS}};
    ct_spec alibi = tiny_encoder_spec(), window = tiny_decoder_spec();
    alibi.alibi = 1;
    window.window = 4;
    for (int i = 0; i < 5; i++) {
        check_mask(tiny_encoder_spec(), shapes[i], COLUMNS);
        check_mask(alibi, shapes[i], COLUMNS);
        check_mask(tiny_decoder_spec(), shapes[i], COLUMNS);
        check_mask(tiny_decoder_spec(), shapes[i], 4);
        check_mask(window, shapes[i], 4);
        check_mask(tiny_parallel_spec(), shapes[i], 4);
    }
}

/* A plain mask with holes, in a model in which distances count: distances are those of columns. */
static void holes_keep_distances(void)
{
    int32_t ids[COLUMNS];
    uint8_t allowed[HEADS * COLUMNS * COLUMNS];
    tiny_pieces(ids, COLUMNS, 7);
    for (int i = 0; i < HEADS * COLUMNS * COLUMNS; i++)
        allowed[i] = "11..1.111"[i % COLUMNS] == '1';
    for (int i = 0; i < 5; i++) {
        ct_spec spec = i < 2 || i == 4 ? tiny_encoder_spec() : tiny_decoder_spec();
        ct_inputs inputs = {0};
        ct_tensor *all, *mask;
        ct_model *model;
        tiny_result result;
        spec.alibi = i % 2;
        spec.window = i == 0 || i == 2 ? 4 : 0;
        spec.relative_buckets = i == 4 ? 8 : 0;
        CHECK_OK(ct_spec_validate(&spec));
        CHECK_OK(tiny_model_new(&model, spec));
        CHECK_OK(integers_of(&all, 1, COLUMNS, ids));
        CHECK_OK(mask_of(&mask, "11..1.111"));
        inputs.ids = all;
        inputs.mask = mask;
        CHECK_OK(tiny_run(&result, model, &inputs, false));
        oracle_input sequence = {&spec, COLUMNS, ids, counted(), NULL, allowed};
        CHECK_NEAR(distance_from_oracle(&result, &sequence), 0, TOLERANCE);
        tiny_result_clear(&result);
        ct_tensor_unref(&mask);
        ct_tensor_unref(&all);
        ct_model_unref(&model);
    }
}

const ct_test suite_model_forward[] = {
    TEST(long_ragged_sequences_agree_with_double_precision),
    TEST(sixteen_bit_weights_agree_with_double_precision),
    TEST(cached_pieces_agree_with_double_precision),
    TEST(a_sixteen_bit_cache_agrees_with_double_precision),
    TEST(general_masks_agree_with_double_precision),
    TEST(holes_keep_distances),
    TESTS_END,
};
