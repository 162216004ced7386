/* Every field of the spec that changes the mathematics, against the oracle in double precision: a
 * padded batch at once, and for decoders the same batch in pieces behind a cache.
 *
 * Tolerance: f32 sums of at most 61 products of values around 1, a few dozen roundings of 2^-24
 * one after the other, of which norms and softmax may make several times as much: 1e-5 of a row's
 * length. Each field has to move the oracle's results by more than 10 times that, so that a field
 * which is read wrongly or not at all is seen. */
#include "test.h"

#include "model_oracle.h"

#define TOLERANCE 1e-5
#define N_ROWS 3
#define N_COLUMNS 9

typedef struct field_case {
    const char *given; /* fields as "name=value name=value", on top of the kind's */
    const char *field; /* likewise: what is under test */
} field_case;

static ct_status set_fields(ct_spec *spec, const char *text)
{
    char name[64];
    double value;
    for (int used; sscanf(text, " %63[^=]=%lf%n", name, &value, &used) == 2; text += used)
        CT_TRY(ct_spec_set(spec, name, value));
    return CT_OK;
}

/* ---- the inputs, and the sequences that stand in them ---- */

typedef struct example {
    ct_spec spec;
    const char *mask; /* N_ROWS rows of N_COLUMNS */
    int32_t ids[N_ROWS * N_COLUMNS], types[N_ROWS * N_COLUMNS];
    int32_t kept[3][N_ROWS][N_COLUMNS]; /* ids, positions and types of real pieces */
    oracle_input sequences[N_ROWS];
} example;

static int32_t position_of(const example *e, int64_t row, int64_t column)
{
    const int32_t *ids = e->ids + row * N_COLUMNS;
    int32_t padding = (int32_t)e->spec.padding_id, counted = 0;
    if (e->spec.position_rule == CT_POSITIONS_COLUMN)
        return (int32_t)column;
    if (ids[column] == padding)
        return padding;
    for (int64_t c = 0; c <= column; c++)
        counted += ids[c] != padding;
    return padding + counted;
}

/* The first n_columns of the example, as sequences for the oracle. */
static void set_sequences(example *e, int64_t n_columns)
{
    for (int64_t r = 0; r < N_ROWS; r++) {
        int64_t n = 0;
        for (int64_t c = 0; c < n_columns; c++) {
            if (e->mask[r * (N_COLUMNS + 1) + c] != '1')
                continue;
            e->kept[0][r][n] = e->ids[r * N_COLUMNS + c];
            e->kept[1][r][n] = position_of(e, r, c);
            e->kept[2][r][n++] = e->spec.n_types ? e->types[r * N_COLUMNS + c] : 0;
        }
        e->sequences[r] = (oracle_input){.spec = &e->spec,
                                         .n = n,
                                         .ids = e->kept[0][r],
                                         .positions = e->kept[1][r],
                                         .types = e->kept[2][r]};
    }
}

static ct_status set_example(example *e, ct_spec spec, const char *mask)
{
    *e = (example){.spec = spec, .mask = mask};
    tiny_pieces(e->ids, N_ROWS * N_COLUMNS, 5);
    for (int i = 0; i < N_ROWS * N_COLUMNS; i++)
        e->types[i] = e->ids[(i * 7) % (N_ROWS * N_COLUMNS)] % 2;
    e->ids[1 * N_COLUMNS + 3] = e->ids[2 * N_COLUMNS + 4] = 3; /* the padding id, once unmasked */
    CT_TRY(ct_spec_validate(&e->spec));
    set_sequences(e, N_COLUMNS);
    return CT_OK;
}

/* ---- both ways to run it ---- */

static ct_status columns_of(ct_tensor **out, const ct_tensor *all, int64_t first, int64_t n)
{
    return ct_tensor_slice(out, all, 1, first, n, 1);
}

/* Columns [first, first + n) behind *cache, which becomes the next one when `store`. */
static ct_status run_columns(example *e, ct_model *model, int64_t first, int64_t n, bool store,
                             ct_kv_cache **cache, double *distance)
{
    ct_status status = CT_OK;
    ct_tensor *all[3] = {NULL}, *part[3] = {NULL};
    tiny_result result = {0};
    CT_TRY_TO(done, integers_of(&all[0], N_ROWS, N_COLUMNS, e->ids));
    CT_TRY_TO(done, integers_of(&all[1], N_ROWS, N_COLUMNS, e->types));
    CT_TRY_TO(done, mask_of(&all[2], e->mask));
    CT_TRY_TO(done, columns_of(&part[0], all[0], first, n));
    CT_TRY_TO(done, columns_of(&part[1], all[1], first, n));
    CT_TRY_TO(done, columns_of(&part[2], all[2], 0, first + n));
    ct_inputs inputs = {.ids = part[0],
                        .mask = part[2],
                        .types = e->spec.n_types ? part[1] : NULL,
                        .cache = *cache};
    CT_TRY_TO(done, tiny_run(&result, model, &inputs, store));
    set_sequences(e, first + n);
    *distance = fmax(*distance, distance_from_oracle(&result, e->sequences));
    ct_kv_cache_unref(cache);
    *cache = result.cache;
    result.cache = NULL;
done:
    for (int i = 0; i < 3; i++) {
        ct_tensor_unref(&all[i]);
        ct_tensor_unref(&part[i]);
    }
    tiny_result_clear(&result);
    return status;
}

static ct_status run_in_parts(example *e, const int64_t *parts, double *distance)
{
    ct_status status = CT_OK;
    ct_model *model;
    ct_kv_cache *cache = NULL;
    bool store = parts[0] < N_COLUMNS;
    *distance = 0;
    CT_TRY(tiny_model_new(&model, e->spec));
    for (int64_t first = 0; first < N_COLUMNS; first += *parts++)
        CT_TRY_TO(done, run_columns(e, model, first, *parts, store, &cache, distance));
done:
    ct_kv_cache_unref(&cache);
    ct_model_unref(&model);
    return status;
}

/* How far the field moves the oracle's last hidden state or logits. */
static double effect(example *with, example *without)
{
    double hidden[2][9 * N_COLUMNS * TINY_WIDTH], logits[2][N_COLUMNS * TINY_PIECES], moved = 0;
    for (int64_t r = 0; r < N_ROWS; r++) {
        int64_t n = with->sequences[r].n, each = n * TINY_WIDTH;
        oracle_run(&with->sequences[r], hidden[0], logits[0]);
        oracle_run(&without->sequences[r], hidden[1], logits[1]);
        moved = fmax(moved, row_distance(hidden[0] + with->spec.n_layers * each,
                                         hidden[1] + without->spec.n_layers * each, each));
        if (with->spec.head && without->spec.head)
            moved = fmax(moved, row_distance(logits[0], logits[1], n * TINY_PIECES));
    }
    return moved;
}

static void check_field(ct_spec spec, const field_case *c)
{
    /* Padding left, none and right; behind a cache only left, as generation has it. */
    static const char all_masks[] = "..1111111 111111111 1111111..";
    static const char left_masks[] = "..1111111 111111111 .....1111";
    static const int64_t whole[] = {N_COLUMNS}, parts[] = {4, 1, 4};
    example with, without;
    double distance;
    CHECK_OK(set_fields(&spec, c->given));
    CHECK_OK(set_example(&without, spec, all_masks));
    CHECK_OK(set_fields(&spec, c->field));
    CHECK_OK(set_example(&with, spec, all_masks));
    if (*c->field && effect(&with, &without) < 10 * TOLERANCE)
        FAIL("\"%s\" hardly matters: %g", c->field, effect(&with, &without));
    CHECK_OK(run_in_parts(&with, whole, &distance));
    if (distance > TOLERANCE)
        FAIL("\"%s\" and \"%s\": off by %g", c->given, c->field, distance);
    if (!spec.causal)
        return;
    CHECK_OK(set_example(&with, spec, left_masks));
    CHECK_OK(run_in_parts(&with, parts, &distance));
    if (distance > TOLERANCE)
        FAIL("\"%s\" and \"%s\": off by %g in parts", c->given, c->field, distance);
}

static void check_fields(ct_spec spec, const field_case *cases)
{
    for (const field_case *c = cases; c->field; c++)
        check_field(spec, c);
}

/* ---- the fields ---- */

static void encoder_fields_agree_with_double_precision(void)
{
    static const field_case cases[] = {
        {"", ""},
        {"", "embedding_width=24 embedding_projection=1"},
        {"", "embedding_projection=1"},
        {"n_layers=6", "n_layer_groups=2 layers_per_group=2"},
        {"n_layers=3", "n_layer_groups=1"},
        {"", "n_types=0"},
        {"", "n_positions=0"},
        {"", "position_rule=1"},
        {"position_rule=1", "padding_id=3"},
        {"", "embedding_norm=0"},
        {"", "embedding_scale=3"},
        {"", "norm_kind=1"},
        {"", "norm_bias=0"},
        {"", "norm_eps=0.5"},
        {"", "activation=0"},
        {"", "activation=1"},
        {"", "activation=3"},
        {"", "activation=4"},
        {"", "gated=1"},
        {"", "ffn_bias=0"},
        {"", "intermediate_width=20"},
        {"", "qkv_bias=0"},
        {"", "attention_output_bias=0"},
        {"", "head_width=12"},
        {"", "n_heads=3 head_width=6"},
        {"", "n_kv_heads=2"},
        {"", "window=3"},
        {"window=2 n_layers=4", "local_layers=1"},
        {"window=2 n_layers=5 rotary_width=4 local_layers=1", "rotary_local=1"},
        {"window=2 n_layers=4 local_layers=1 rotary_width=8 rotary_local=1", "rotary_factor=1.3"},
        {"", "alibi=1"},
        {"alibi=1", "alibi_scaled=1"},
        {"", "relative_buckets=8"},
        {"", "relative_buckets=9"},
        {"relative_buckets=8", "relative_max_distance=6"},
        {"relative_buckets=8 relative_max_distance=3", "window=5"},
        {"relative_buckets=8", "attention_softcap=0.5"},
        {"relative_buckets=8", "attention_scale=2"},
        {"relative_buckets=32", "alibi=1"},
        {"", "attention_scale=2"},
        {"", "attention_softcap=0.5"},
        {"", "attention_output_norm=1"},
        {"", "ffn_output_norm=1"},
        {"", "attention_residual_norm=0"},
        {"", "ffn_residual_norm=0"},
        {"", "attention_input_norm=1"},
        {"attention_input_norm=1", "bare_first_layer=1"},
        {"attention_input_norm=1 n_layers=3 n_layer_groups=1", "bare_first_layer=1"},
        {"", "ffn_input_norm=1"},
        {"", "output_norm=1"},
        {"", "rotary_width=4"},
        {"", "causal=1"},
        {"head=1", "head_bias=1"},
        {NULL, NULL},
    };
    check_fields(tiny_encoder_spec(), cases);
}

static void decoder_fields_agree_with_double_precision(void)
{
    static const field_case cases[] = {
        {"", ""},
        {"", "n_kv_heads=4"},
        {"", "n_kv_heads=1"},
        {"", "window=3"},
        {"window=2 n_layers=4", "local_layers=1"},
        {"window=2 n_layers=4 n_layer_groups=2 layers_per_group=2", "local_layers=1"},
        {"window=3 n_layers=4 local_layers=1", "rotary_local=1"},
        {"window=3 n_layers=4 local_layers=1 rotary_local=1", "rotary_factor=1.3"},
        {"", "bare_first_layer=1"},
        {"", "embedding_scale=5.65"},
        {"", "attention_scale=0.1"},
        {"", "attention_softcap=0.5"},
        {"", "logit_scale=0.25"},
        {"", "logit_softcap=2"},
        {"logit_softcap=2", "logit_scale=3"},
        {"", "head_bias=1"},
        {"", "rotary_width=0"},
        {"", "rotary_width=4"},
        {"", "rotary_interleaved=1"},
        {"", "rotary_factor=1.3"},
        {"", "qk_norm=1"},
        {"", "qk_norm=2"},
        {"norm_kind=0", "qk_norm=1"},
        {"norm_kind=0 qk_norm=2", "norm_bias=0"},
        {"qk_norm=1", "norm_eps=0.1"},
        {"rotary_width=0", "alibi=1"},
        {"rotary_width=0 alibi=1", "alibi_max_bias=4"},
        {"rotary_width=0 alibi=1", "alibi_scaled=1"},
        {"rotary_width=0 alibi=1", "n_heads=3 n_kv_heads=3 head_width=8"},
        {"", "clip_qkv=0.4"},
        {"clip_qkv=0.4", "qkv_bias=1"},
        {"", "attention_output_norm=1 ffn_output_norm=1"},
        {"attention_output_norm=1 ffn_output_norm=1", "attention_input_norm=0 ffn_input_norm=0"},
        {"", "attention_residual_norm=1 ffn_residual_norm=1"},
        {"", "output_norm=0"},
        {"", "n_positions=40"},
        {"", "gated=0"},
        {"", "activation=3"},
        {"", "head_width=16"},
        {NULL, NULL},
    };
    check_fields(tiny_decoder_spec(), cases);
}

static void parallel_fields_agree_with_double_precision(void)
{
    static const field_case cases[] = {
        {"", ""},
        {"", "parallel=0"},
        {"", "ffn_input_norm=1"},
        {"", "n_kv_heads=2"},
        {"", "n_kv_heads=4"},
        {"n_kv_heads=2", "qkv_order=0"},
        {"n_kv_heads=2 clip_qkv=0.4", "qkv_order=0"},
        {"n_kv_heads=2", "clip_qkv=0.4"},
        {"n_kv_heads=2", "rotary_interleaved=0"},
        {"", "attention_input_norm=0"},
        {"", "attention_output_norm=1 ffn_output_norm=1"},
        {"", "ffn_residual_norm=1"},
        {"", "qkv_bias=0"},
        {"", "attention_output_bias=0"},
        {"", "ffn_bias=0"},
        {"ffn_bias=0", "gated=1 activation=4"},
        {"", "rotary_width=0 alibi=1 alibi_scaled=1"},
        {"", "head_bias=1"},
        {NULL, NULL},
    };
    check_fields(tiny_parallel_spec(), cases);
}

const ct_test suite_model_spec_fields[] = {
    TEST(encoder_fields_agree_with_double_precision),
    TEST(decoder_fields_agree_with_double_precision),
    TEST(parallel_fields_agree_with_double_precision),
    TESTS_END,
};
