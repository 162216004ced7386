/* Weights by role: what is taken, what is refused and how it is named. */
#include "test.h"

#include "core/memory.h"
#include "tiny_model.h"

/* Weights of a validated spec. */
static ct_status begin(ct_weights *weights, ct_spec spec)
{
    CT_TRY(ct_spec_validate(&spec));
    return ct_weights_init(weights, &spec);
}

static ct_status set_new(ct_weights *weights, const char *role, int64_t layer, ct_dtype dtype,
                         int n_dims, int64_t rows, int64_t columns)
{
    ct_tensor *tensor;
    CT_TRY(ct_tensor_new(&tensor, dtype, n_dims, (int64_t[]){rows, columns, 1}));
    memset(ct_tensor_data(tensor), 0, tensor->storage->size);
    ct_status status = ct_weights_set(weights, role, layer, tensor, "a.name");
    ct_tensor_unref(&tensor);
    return status;
}

static void every_role_has_a_name_of_its_own(void)
{
    for (int i = 0; i < CT_ROLE_COUNT; i++) {
        CHECK(ct_role_name((ct_role)i));
        for (int j = 0; j < i; j++)
            CHECK(strcmp(ct_role_name((ct_role)i), ct_role_name((ct_role)j)) != 0);
    }
    CHECK_TEXT(ct_role_name(CT_ROLE_PIECE_EMBEDDINGS), "piece_embeddings.weight");
    CHECK_TEXT(ct_role_name(CT_ROLE_HEAD_BIAS), "head.bias");
    CHECK_TEXT(ct_role_name(CT_ROLE_DOWN_BIAS), "ffn_down.bias");
}

static void wrong_shapes_are_refused(void)
{
    static const struct {
        const char *role;
        int n_dims;
        int64_t rows, columns;
        const char *wanted, *got;
    } cases[] = {
        {"piece_embeddings.weight", 2, 61, 31, "[61, 32]", "[61, 31]"},
        {"piece_embeddings.weight", 2, 32, 61, "[61, 32]", "[32, 61]"},
        {"piece_embeddings.weight", 1, 61, 0, "[61, 32]", "[61]"},
        {"piece_embeddings.weight", 3, 61, 32, "[61, 32]", "[61, 32, 1]"},
        {"output_norm.weight", 2, 32, 1, "[32]", "[32, 1]"},
        {"output_norm.weight", 0, 0, 0, "[32]", "[]"},
        {"rotary.frequencies", 1, 8, 0, "[4]", "[8]"},
        {"rotary.local_frequencies", 1, 3, 0, "[4]", "[3]"},
        {"attention.local", 1, 3, 0, "[2]", "[3]"},
        {"head.weight", 2, 60, 32, "[61, 32]", "[60, 32]"},
    };
    ct_weights weights;
    ct_spec spec = tiny_decoder_spec();
    spec.window = spec.local_layers = spec.rotary_local = 1;
    CHECK_OK(begin(&weights, spec));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char message[160];
        snprintf(message, sizeof message,
                 "Expected size of replacement for `a.name` to be %s, but got %s", cases[i].wanted,
                 cases[i].got);
        CHECK_FAILS(set_new(&weights, cases[i].role, -1, CT_F32, cases[i].n_dims, cases[i].rows,
                            cases[i].columns),
                    CT_VALUE, message);
    }
    ct_weights_clear(&weights);
}

/* Shapes as the architectures' papers give them: heads times head width is not the hidden width. */
static void shapes_follow_the_heads(void)
{
    static const struct {
        const char *role;
        int n_dims;
        int64_t rows, columns;
    } shapes[] = {
        {"query.weight", 2, 4 * 6, 32},
        {"key.weight", 2, 2 * 6, 32},
        {"value.weight", 2, 2 * 6, 32},
        {"qkv.weight", 2, 8 * 6, 32},
        {"query.bias", 1, 4 * 6, 0},
        {"key.bias", 1, 2 * 6, 0},
        {"value.bias", 1, 2 * 6, 0},
        {"qkv.bias", 1, 8 * 6, 0},
        {"query_norm.weight", 1, 4 * 6, 0},
        {"key_norm.weight", 1, 2 * 6, 0},
        {"attention_output.weight", 2, 32, 24},
        {"ffn_gate.weight", 2, 48, 32},
        {"ffn_up.weight", 2, 48, 32},
        {"ffn_down.weight", 2, 32, 48},
        {"ffn_input_norm.weight", 1, 32, 0},
    };
    ct_weights weights;
    ct_spec spec = tiny_decoder_spec();
    spec.head_width = spec.rotary_width = 6;
    spec.qk_norm = CT_QK_NORM_ALL;
    spec.qkv_bias = 1;
    CHECK_OK(begin(&weights, spec));
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        CHECK_OK(set_new(&weights, shapes[i].role, 1, CT_F32, shapes[i].n_dims, shapes[i].rows,
                         shapes[i].columns));
        CHECK_FAILS(set_new(&weights, shapes[i].role, 1, CT_F32, shapes[i].n_dims,
                            shapes[i].rows + 1, shapes[i].columns),
                    CT_VALUE, "Expected size of replacement");
    }
    weights.spec.qk_norm = CT_QK_NORM_HEAD;
    CHECK_OK(set_new(&weights, "query_norm.weight", 0, CT_F32, 1, 6, 0));
    ct_weights_clear(&weights);
}

static void integers_are_no_weights(void)
{
    ct_weights weights;
    CHECK_OK(begin(&weights, tiny_decoder_spec()));
    CHECK_FAILS(set_new(&weights, "output_norm.weight", -1, CT_I32, 1, 32, 0), CT_VALUE,
                "Expected dtype of replacement for `a.name` to be floating point or quantized, but "
                "got int32");
    CHECK_FAILS(set_new(&weights, "piece_embeddings.weight", -1, CT_BOOL, 2, 61, 32), CT_VALUE,
                "`a.name` to be floating point or quantized, but got bool");
    CHECK(!ct_weights_get(&weights, CT_ROLE_PIECE_EMBEDDINGS, 0));
    ct_weights_clear(&weights);
}

static void what_the_model_does_not_have_is_refused(void)
{
    static const struct {
        const char *role;
        int64_t layer;
        const char *message;
    } cases[] = {
        {"qvk.weight", 0, "`a.name`: there is no role `qvk.weight`"},
        {"", 0, "`a.name`: there is no role ``"},
        {"query.weight", 2, "`a.name`: there is no layer 2 for role query.weight"},
        {"query.weight", -1, "`a.name`: there is no layer -1 for role query.weight"},
        {"head.weight", 0, "`a.name`: there is no layer 0 for role head.weight"},
        {"position_embeddings.weight", -1, "this model has no position_embeddings.weight"},
        {"type_embeddings.weight", -1, "this model has no type_embeddings.weight"},
        {"embedding_norm.weight", -1, "this model has no embedding_norm.weight"},
        {"embedding_projection.bias", -1, "this model has no embedding_projection.bias"},
        {"output_norm.bias", -1, "this model has no output_norm.bias"}, /* RMS */
        {"attention.local", -1, "this model has no attention.local"},
        {"rotary.local_frequencies", -1, "this model has no rotary.local_frequencies"},
        {"relative_attention_bias.weight", -1, "this model has no relative_attention_bias.weight"},
        {"head.bias", -1, "this model has no head.bias"},
        {"attention_output_norm.weight", 0, "this model has no attention_output_norm.weight"},
        {"attention_residual_norm.weight", 0, "this model has no attention_residual_norm.weight"},
        {"attention_input_norm.bias", 1, "this model has no attention_input_norm.bias"},
        {"qkv.bias", 0, "this model has no qkv.bias"},
        {"query_norm.weight", 0, "this model has no query_norm.weight"},
        {"ffn_gate.bias", 0, "this model has no ffn_gate.bias"},
    };
    ct_weights weights;
    CHECK_OK(begin(&weights, tiny_decoder_spec()));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        CHECK_FAILS(set_new(&weights, cases[i].role, cases[i].layer, CT_F32, 1, 32, 0), CT_VALUE,
                    cases[i].message);
    ct_weights_clear(&weights);
}

static ct_status set_flags(ct_weights *weights, float first, float second)
{
    ct_tensor *flags;
    CT_TRY(ct_tensor_new(&flags, CT_F32, 1, (int64_t[]){2}));
    memcpy(ct_tensor_data(flags), (float[]){first, second}, 2 * sizeof first);
    ct_status status = ct_weights_set(weights, "attention.local", -1, flags, "layer_types");
    ct_tensor_unref(&flags);
    return status;
}

static void a_layer_is_local_or_not(void)
{
    int64_t live = live_blocks();
    ct_weights weights;
    ct_spec spec = tiny_decoder_spec();
    spec.window = spec.local_layers = 1;
    CHECK_OK(begin(&weights, spec));
    CHECK_FAILS(set_flags(&weights, 1, 2), CT_VALUE,
                "`layer_types` must be 0 or 1, was: 2 for layer 1");
    CHECK_FAILS(set_flags(&weights, 0.5f, 0), CT_VALUE,
                "`layer_types` must be 0 or 1, was: 0.5 for layer 0");
    CHECK_FAILS(set_flags(&weights, NAN, 0), CT_VALUE, "`layer_types` must be 0 or 1");
    CHECK_FAILS(ct_weights_check(&weights), CT_VALUE, "attention.local"); /* nothing was taken */
    CHECK_OK(set_flags(&weights, 1, 0));
    CHECK_INT(((float *)ct_tensor_data(ct_weights_get(&weights, CT_ROLE_ATTENTION_LOCAL, -1)))[0],
              1);
    ct_weights_clear(&weights);
    CHECK_INT(live_blocks(), live);
}

static void a_bare_first_layer_has_no_input_norm_and_the_others_have(void)
{
    ct_weights weights;
    ct_spec spec = tiny_decoder_spec();
    spec.bare_first_layer = 1;
    CHECK_OK(begin(&weights, spec));
    CHECK_FAILS(set_new(&weights, "attention_input_norm.weight", 0, CT_F32, 1, 32, 0), CT_VALUE,
                "`a.name`: this model has no attention_input_norm.weight");
    CHECK_FAILS(ct_weights_check(&weights), CT_VALUE, "layers.0.ffn_input_norm.weight");
    CHECK_FAILS(ct_weights_check(&weights), CT_VALUE, "layers.1.attention_input_norm.weight");
    CHECK(!strstr(ct_message(), "layers.0.attention_input_norm.weight"));
    CHECK_OK(set_new(&weights, "attention_input_norm.weight", 1, CT_F32, 1, 32, 0));
    ct_weights_clear(&weights);
}

/* Three matrices below one another are not what a grouped projection is. */
static void a_grouped_projection_is_one_matrix(void)
{
    ct_weights weights;
    CHECK_OK(begin(&weights, tiny_parallel_spec()));
    CHECK_FAILS(set_new(&weights, "query.weight", 0, CT_F32, 2, 32, 32), CT_VALUE,
                "this model has no query.weight");
    CHECK_FAILS(set_new(&weights, "value.bias", 0, CT_F32, 1, 8, 0), CT_VALUE,
                "this model has no value.bias");
    CHECK_FAILS(ct_weights_check(&weights), CT_VALUE, "layers.0.qkv.weight, layers.0.qkv.bias");
    ct_weights_clear(&weights);
}

static void a_weight_that_is_set_twice_is_the_second(void)
{
    int64_t live = live_blocks();
    ct_weights weights;
    CHECK_OK(begin(&weights, tiny_decoder_spec()));
    for (int i = 0; i < 3; i++)
        CHECK_OK(set_new(&weights, "output_norm.weight", -1, i ? CT_F16 : CT_F32, 1, 32, 0));
    ct_tensor *one;
    CHECK_OK(ct_tensor_new(&one, CT_BF16, 1, (int64_t[]){32}));
    for (int i = 0; i < 32; i++)
        ((uint16_t *)ct_tensor_data(one))[i] = ct_bf16_from_f32((float)i / 4);
    CHECK_OK(ct_weights_set(&weights, "output_norm.weight", -1, one, "a.name"));
    ct_tensor_unref(&one);
    ct_tensor *kept = ct_weights_get(&weights, CT_ROLE_OUTPUT_NORM_WEIGHT, -1);
    CHECK_INT(kept->dtype, CT_F32); /* vectors are */
    for (int i = 0; i < 32; i++)
        CHECK_NEAR(((float *)ct_tensor_data(kept))[i], i / 4.0, 0);
    ct_weights_clear(&weights);
    CHECK_INT(live_blocks(), live);
}

static void matrices_are_taken_as_they_lie(void)
{
    int64_t live = live_blocks();
    ct_weights weights;
    ct_tensor *wide, *turned;
    CHECK_OK(begin(&weights, tiny_decoder_spec()));
    CHECK_OK(ct_tensor_new(&wide, CT_F16, 2, (int64_t[]){61, 32}));
    CHECK_OK(ct_weights_set(&weights, "head.weight", -1, wide, "a.name"));
    CHECK(ct_weights_get(&weights, CT_ROLE_HEAD_WEIGHT, -1) == wide);
    CHECK_OK(ct_tensor_view(&turned, wide->storage, 0, CT_F16, 2, (int64_t[]){61, 32},
                            (int64_t[]){1, 61}));
    CHECK_OK(ct_weights_set(&weights, "head.weight", -1, turned, "a.name"));
    CHECK(ct_tensor_is_contiguous(ct_weights_get(&weights, CT_ROLE_HEAD_WEIGHT, -1)));
    ct_tensor_unref(&turned);
    ct_tensor_unref(&wide);
    ct_weights_drop(&weights, CT_ROLE_HEAD_WEIGHT, -1);
    ct_weights_drop(&weights, CT_ROLE_HEAD_WEIGHT, -1); /* nothing there */
    CHECK(!ct_weights_get(&weights, CT_ROLE_HEAD_WEIGHT, -1));
    ct_weights_clear(&weights);
    CHECK_INT(live_blocks(), live);
}

static void missing_weights_are_named(void)
{
    ct_model *model;
    CHECK_OK(tiny_model_begin(&model, tiny_decoder_spec()));
    CHECK_OK(ct_weights_check(&model->weights));
    ct_weights_drop(&model->weights, CT_ROLE_OUTPUT_NORM_WEIGHT, -1);
    ct_weights_drop(&model->weights, CT_ROLE_KEY_WEIGHT, 1);
    CHECK_FAILS(ct_model_finish(model), CT_VALUE,
                "Some parameters were not updated/replaced: output_norm.weight, "
                "layers.1.key.weight (2 in all)");
    CHECK(!model->ready);
    ct_model_unref(&model);

    CHECK_OK(tiny_model_begin(&model, tiny_parallel_spec()));
    ct_weights_drop(&model->weights, CT_ROLE_QKV_BIAS, 0);
    CHECK_FAILS(ct_model_finish(model), CT_VALUE, "replaced: layers.0.qkv.bias (1 in all)");
    ct_model_unref(&model);
}

static void a_long_list_of_missing_weights_is_cut(void)
{
    ct_weights weights;
    ct_spec spec = tiny_encoder_spec();
    spec.n_layers = 4000;
    CHECK_OK(begin(&weights, spec));
    CHECK_FAILS(ct_weights_check(&weights), CT_VALUE,
                "replaced: piece_embeddings.weight, position_embeddings.weight, ");
    /* Five in front; per layer four projections, two of the feed-forward, two norms, with biases.
     */
    CHECK_FAILS(ct_weights_check(&weights), CT_VALUE, "(64005 in all)");
    ct_weights_clear(&weights);
}

static void layers_of_a_group_have_weights_each(void)
{
    ct_weights weights;
    ct_spec spec = tiny_encoder_spec();
    spec.n_layers = 6;
    spec.n_layer_groups = 2;
    spec.layers_per_group = 2;
    CHECK_OK(begin(&weights, spec));
    CHECK_INT(weights.n_layers, 4);
    CHECK_OK(set_new(&weights, "ffn_up.bias", 3, CT_F32, 1, 48, 0));
    CHECK_FAILS(set_new(&weights, "ffn_up.bias", 4, CT_F32, 1, 48, 0), CT_VALUE,
                "there is no layer 4");
    ct_weights_clear(&weights);
}

const ct_test suite_model_weights[] = {
    TEST(every_role_has_a_name_of_its_own),
    TEST(wrong_shapes_are_refused),
    TEST(shapes_follow_the_heads),
    TEST(integers_are_no_weights),
    TEST(what_the_model_does_not_have_is_refused),
    TEST(a_layer_is_local_or_not),
    TEST(a_bare_first_layer_has_no_input_norm_and_the_others_have),
    TEST(a_grouped_projection_is_one_matrix),
    TEST(a_weight_that_is_set_twice_is_the_second),
    TEST(matrices_are_taken_as_they_lie),
    TEST(missing_weights_are_named),
    TEST(a_long_list_of_missing_weights_is_cut),
    TEST(layers_of_a_group_have_weights_each),
    TESTS_END,
};
