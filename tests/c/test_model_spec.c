/* Specifications: defaults, fields by name, and everything that is refused. */
#include "test.h"

#include "model/spec.h"
#include "tiny_model.h"

static void every_field_has_the_documented_default(void)
{
    ct_spec spec;
    memset(&spec, 0xff, sizeof spec);
    ct_spec_init(&spec);
    static const ct_spec expected = {.layers_per_group = 1,
                                     .norm_bias = 1,
                                     .relative_max_distance = 128,
                                     .activation = CT_ACT_GELU,
                                     .norm_eps = 1e-5,
                                     .embedding_scale = 1,
                                     .rotary_factor = 1,
                                     .alibi_max_bias = 8,
                                     .logit_scale = 1,
                                     .compute_dtype = CT_BF16,
                                     .outlier_threshold = 6};
    CHECK(memcmp(&spec, &expected, sizeof spec) == 0);
}

static void fields_are_set_by_name(void)
{
    ct_spec spec;
    ct_spec_init(&spec);
    CHECK_OK(ct_spec_set(&spec, "hidden_width", 768));
    CHECK_OK(ct_spec_set(&spec, "dtype", CT_BF16));
    CHECK_OK(ct_spec_set(&spec, "window", -3)); /* judged as a whole, later */
    CHECK_OK(ct_spec_set(&spec, "norm_eps", 1e-12));
    CHECK_OK(ct_spec_set(&spec, "logit_softcap", 30.5));
    CHECK_INT(spec.hidden_width, 768);
    CHECK_INT(spec.dtype, CT_BF16);
    CHECK_INT(spec.window, -3);
    CHECK_NEAR(spec.norm_eps, 1e-12, 0);
    CHECK_NEAR(spec.logit_softcap, 30.5, 0);
}

static void what_is_no_field_or_no_number_for_it_is_refused(void)
{
    ct_spec spec;
    ct_spec_init(&spec);
    const ct_spec before = spec;
    CHECK_FAILS(ct_spec_set(&spec, "hidden_with", 1), CT_VALUE,
                "a specification has no field `hidden_with`");
    CHECK_FAILS(ct_spec_set(&spec, "", 1), CT_VALUE, "no field ``");
    CHECK_FAILS(ct_spec_set(&spec, "n_heads", 1.5), CT_VALUE,
                "n_heads must be a whole number, was: 1.5");
    CHECK_FAILS(ct_spec_set(&spec, "n_heads", 1e300), CT_VALUE, "n_heads must be a whole number");
    CHECK_FAILS(ct_spec_set(&spec, "n_heads", (double)NAN), CT_VALUE, "n_heads must be finite");
    CHECK_FAILS(ct_spec_set(&spec, "norm_eps", (double)INFINITY), CT_VALUE,
                "norm_eps must be finite");
    CHECK(memcmp(&spec, &before, sizeof spec) == 0);
}

static void zeros_are_filled_in(void)
{
    ct_spec spec = tiny_encoder_spec();
    CHECK_OK(ct_spec_validate(&spec));
    CHECK_INT(spec.embedding_width, TINY_WIDTH);
    CHECK_INT(spec.n_layer_groups, TINY_LAYERS);
    CHECK_INT(spec.n_kv_heads, 4);
    CHECK_INT(spec.head_width, TINY_WIDTH / 4);
    CHECK_NEAR(spec.attention_scale, 1 / sqrt(TINY_WIDTH / 4), 1e-15); /* one rounding */
    const ct_spec once = spec;
    CHECK_OK(ct_spec_validate(&spec));
    CHECK(memcmp(&spec, &once, sizeof spec) == 0);
}

static void what_is_given_is_kept(void)
{
    ct_spec spec = tiny_decoder_spec();
    spec.head_width = 10; /* 4 heads of it are not the hidden width */
    spec.embedding_width = 16;
    spec.embedding_projection = 1;
    spec.n_layer_groups = 1;
    spec.attention_scale = 0.5;
    CHECK_OK(ct_spec_validate(&spec));
    CHECK_INT(spec.head_width, 10);
    CHECK_INT(spec.embedding_width, 16);
    CHECK_INT(spec.n_kv_heads, 2);
    CHECK_INT(spec.n_layer_groups, 1);
    CHECK_NEAR(spec.attention_scale, 0.5, 0);
}

typedef struct refusal {
    const char *field;
    double value;
    const char *message;
} refusal;

static void check_refusals(ct_spec spec, const refusal *refusals)
{
    for (const refusal *r = refusals; r->field; r++) {
        ct_spec wrong = spec;
        CHECK_OK(ct_spec_set(&wrong, r->field, r->value));
        CHECK_FAILS(ct_spec_validate(&wrong), CT_VALUE, r->message);
    }
}

static void sizes_outside_their_range_are_refused(void)
{
    static const refusal refusals[] = {
        {"hidden_width", 0, "hidden_width must be between 1 and 262144, was: 0"},
        {"hidden_width", -32, "hidden_width must be between 1 and 262144, was: -32"},
        {"hidden_width", 1 << 20, "hidden_width must be between 1 and 262144, was: 1048576"},
        {"embedding_width", -1, "embedding_width must be between 1 and 262144, was: -1"},
        {"intermediate_width", 0, "intermediate_width must be between 1 and 1048576, was: 0"},
        {"intermediate_width", 1 << 21, "intermediate_width must be between"},
        {"head_width", -8, "head_width must be between 1 and 262144, was: -8"},
        {"head_width", 1 << 17, "n_heads * head_width must be between 1 and 262144, was: 524288"},
        {"n_heads", 0, "n_heads must be between 1 and 262144, was: 0"},
        {"n_heads", -4, "n_heads must be between 1 and 262144, was: -4"},
        {"n_kv_heads", -1, "n_kv_heads must be between 1 and 4, was: -1"},
        {"n_kv_heads", 5, "n_kv_heads must be between 1 and 4, was: 5"},
        {"n_layers", 0, "n_layers must be between 1 and 4096, was: 0"},
        {"n_layers", 5000, "n_layers must be between 1 and 4096, was: 5000"},
        {"n_layer_groups", 3, "n_layer_groups must be between 1 and 2, was: 3"},
        {"layers_per_group", 0, "layers_per_group must be between 1 and 4096, was: 0"},
        {"n_pieces", 0, "n_pieces must be between 1 and 67108864, was: 0"},
        {"n_positions", -1, "n_positions must be between 0 and 67108864, was: -1"},
        {"n_types", -1, "n_types must be between 0 and 67108864, was: -1"},
        {"max_positions", -1, "max_positions must be between 0 and 67108864, was: -1"},
        {"window", -1, "window must be between 0 and 67108864, was: -1"},
        {"relative_buckets", -1, "relative_buckets must be between 0 and 65536, was: -1"},
        {"relative_buckets", 65537, "relative_buckets must be between 0 and 65536, was: 65537"},
        {"relative_max_distance", 0, "relative_max_distance must be between 1 and 65536, was: 0"},
        {"rotary_width", -2, "rotary_width must be between 0 and 8, was: -2"},
        {"rotary_width", 10, "rotary_width must be between 0 and 8, was: 10"},
        {NULL, 0, NULL},
    };
    check_refusals(tiny_decoder_spec(), refusals);
}

static void unknown_enumerators_are_refused(void)
{
    static const refusal refusals[] = {
        {"position_rule", 2, "position_rule must be between 0 and 1, was: 2"},
        {"norm_kind", 2, "norm_kind must be between 0 and 1, was: 2"},
        {"norm_kind", -1, "norm_kind must be between 0 and 1, was: -1"},
        {"qkv_order", 2, "qkv_order must be between 0 and 1, was: 2"},
        {"qk_norm", 3, "qk_norm must be between 0 and 2, was: 3"},
        {"activation", 5, "activation must be between 0 and 4, was: 5"},
        {"dtype", CT_I32, "dtype must be float32, float16 or bfloat16"},
        {"dtype", CT_Q4_1, "dtype must be float32, float16 or bfloat16"},
        {"dtype", -1, "dtype must be float32, float16 or bfloat16"},
        {"dtype", 1000, "dtype must be float32, float16 or bfloat16"},
        {NULL, 0, NULL},
    };
    check_refusals(tiny_decoder_spec(), refusals);
}

static void fields_that_do_not_go_together_are_refused(void)
{
    static const refusal refusals[] = {
        {"n_heads", 5, "hidden width (32) must be divisible by the number of query heads (5)"},
        {"n_kv_heads", 3, "Number of query heads (4) must be a multiple of key/value heads (3)"},
        {"rotary_width", 3, "rotary width must be even, was: 3"},
        {"embedding_width", 16,
         "embedding width (16) differs from hidden width (32), but there is no projection"},
        {"norm_eps", -1e-5, "must not be negative"},
        {"attention_scale", -1, "must not be negative"},
        {"clip_qkv", -1, "must not be negative"},
        {"attention_softcap", -1, "must not be negative"},
        {"logit_softcap", -1, "must not be negative"},
        {"local_layers", 1, "local_layers needs a window"},
        {"rotary_local", 1, "rotary_local needs local_layers and a rotary width"},
        {NULL, 0, NULL},
    };
    check_refusals(tiny_decoder_spec(), refusals);
    ct_spec layers = tiny_decoder_spec();
    layers.n_layers = 7;
    static const refusal groups[] = {
        {"n_layer_groups", 3,
         "number of layers (7) must be divisable by number of hidden groups (3)"},
        {NULL, 0, NULL},
    };
    check_refusals(layers, groups);
}

static void a_relative_bias_needs_buckets_for_both_sides(void)
{
    static const refusal causal[] = {
        {"relative_buckets", 32, "relative_buckets: half of them are for keys after the query"},
        {NULL, 0, NULL},
    };
    check_refusals(tiny_decoder_spec(), causal);
    static const refusal few[] = {
        {"relative_buckets", 3, "relative_buckets must be 0 or at least 4, was: 3"},
        {"relative_buckets", 512,
         "relative_max_distance (128) must be more than a quarter of relative_buckets (512)"},
        {NULL, 0, NULL},
    };
    check_refusals(tiny_encoder_spec(), few);
}

static void local_rotary_needs_what_it_is_made_of(void)
{
    ct_spec spec = tiny_decoder_spec();
    spec.window = 4;
    spec.rotary_local = 1;
    CHECK_FAILS(ct_spec_validate(&spec), CT_VALUE, "rotary_local needs local_layers");
    spec.local_layers = 1;
    CHECK_OK(ct_spec_validate(&spec));
    spec.rotary_width = 0;
    CHECK_FAILS(ct_spec_validate(&spec), CT_VALUE, "rotary_local needs local_layers");
}

/* What the program would pass over without a word. */
static void fields_that_would_have_no_effect_are_refused(void)
{
    static const refusal refusals[] = {
        {"attention_residual_norm", 1,
         "attention_residual_norm: a parallel layer has no sum after its attention"},
        {"position_rule", CT_POSITIONS_SKIP_PADDING,
         "position_rule: a causal model counts its positions by column"},
        {"qk_norm", CT_QK_NORM_HEAD, "qk_norm needs concatenated queries, keys and values"},
        {"qk_norm", CT_QK_NORM_ALL, "qk_norm needs concatenated queries, keys and values"},
        {NULL, 0, NULL},
    };
    check_refusals(tiny_parallel_spec(), refusals);
    static const refusal no_norm[] = {
        {"bare_first_layer", 1, "bare_first_layer: no layer has an attention_input_norm"},
        {NULL, 0, NULL},
    };
    check_refusals(tiny_encoder_spec(), no_norm);
}

const ct_test suite_model_spec[] = {
    TEST(every_field_has_the_documented_default),
    TEST(fields_are_set_by_name),
    TEST(what_is_no_field_or_no_number_for_it_is_refused),
    TEST(zeros_are_filled_in),
    TEST(what_is_given_is_kept),
    TEST(sizes_outside_their_range_are_refused),
    TEST(unknown_enumerators_are_refused),
    TEST(fields_that_do_not_go_together_are_refused),
    TEST(a_relative_bias_needs_buckets_for_both_sides),
    TEST(local_rotary_needs_what_it_is_made_of),
    TEST(fields_that_would_have_no_effect_are_refused),
    TESTS_END,
};
