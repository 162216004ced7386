/* Builds the tiny models and calls them as the binding does. */
#include "tiny_model.h"

#include "cpu_rows.h"

#include "ops/device.h"

int64_t live_blocks(void)
{
    ct_storage_trim();
    ct_onednn_trim();
    return ct_memory_live_blocks();
}

/* ---- specifications ---- */

static ct_spec common_spec(void)
{
    ct_spec spec;
    ct_spec_init(&spec);
    spec.hidden_width = TINY_WIDTH;
    spec.n_layers = TINY_LAYERS;
    spec.n_pieces = TINY_PIECES;
    spec.n_heads = 4;
    spec.intermediate_width = 48;
    return spec;
}

ct_spec tiny_encoder_spec(void)
{
    ct_spec spec = common_spec();
    spec.n_positions = spec.max_positions = 40;
    spec.n_types = 2;
    spec.embedding_norm = 1;
    spec.attention_residual_norm = spec.ffn_residual_norm = 1;
    spec.qkv_bias = spec.attention_output_bias = spec.ffn_bias = 1;
    return spec;
}

ct_spec tiny_decoder_spec(void)
{
    ct_spec spec = common_spec();
    spec.max_positions = 256;
    spec.norm_kind = CT_NORM_RMS;
    spec.attention_input_norm = spec.ffn_input_norm = spec.output_norm = 1;
    spec.n_kv_heads = 2;
    spec.causal = 1;
    spec.rotary_width = 8;
    spec.activation = CT_ACT_SILU;
    spec.gated = 1;
    spec.head = 1;
    return spec;
}

ct_spec tiny_parallel_spec(void)
{
    ct_spec spec = common_spec();
    spec.attention_input_norm = spec.output_norm = 1;
    spec.parallel = 1;
    spec.n_kv_heads = 1;
    spec.qkv_order = CT_QKV_GROUPED;
    spec.qkv_bias = spec.attention_output_bias = spec.ffn_bias = 1;
    spec.causal = 1;
    spec.rotary_width = 4;
    spec.rotary_interleaved = 1;
    spec.activation = CT_ACT_GELU_TANH;
    spec.head = 1;
    return spec;
}

/* ---- weights ---- */

void tiny_values(float *out, ct_role role, int64_t layer, int64_t rows, int64_t columns,
                 ct_dtype dtype)
{
    const char *name = ct_role_name(role);
    uint64_t state = (uint64_t)(layer + 2) * 7919;
    bool norm = strstr(name, "norm.weight"), embeddings = strstr(name, "embeddings");
    double scale = embeddings ? 1 : columns > 0 ? sqrt(3 / (double)columns) : 0.3;
    for (const char *at = name; *at; at++) /* and not by its number, which another role shifts */
        state = (state ^ (uint64_t)*at) * 1099511628211u;
    for (int i = 0; i < 8; i++)
        random_uniform(&state);
    for (int64_t i = 0; i < rows * (columns > 0 ? columns : 1); i++) {
        float value = random_value(&state, scale) + (norm ? 1 : 0);
        if (role == CT_ROLE_ROTARY_FREQUENCIES)
            value = (float)pow(10000, -(double)i / (double)rows);
        if (role == CT_ROLE_ROTARY_LOCAL_FREQUENCIES)
            value = (float)pow(20, -(double)i / (double)rows);
        if (role == CT_ROLE_ATTENTION_LOCAL)
            value = i % 3 != 0;
        set_value(out, CT_F32, i, value);
        if (columns > 0 && dtype == CT_BF16)
            out[i] = ct_bf16_to_f32(ct_bf16_from_f32(value));
        if (columns > 0 && dtype == CT_F16)
            out[i] = ct_f16_to_f32(ct_f16_from_f32(value));
    }
}

static ct_status set_weight(ct_model *model, ct_role role, int64_t layer, int64_t rows,
                            int64_t columns)
{
    ct_status status = CT_OK;
    ct_dtype dtype = columns > 0 ? (ct_dtype)model->weights.spec.dtype : CT_F32;
    ct_tensor *values, *weight = NULL;
    char source[80];
    snprintf(source, sizeof source, "tiny.%s", ct_role_name(role));
    CT_TRY(ct_tensor_new(&values, CT_F32, columns > 0 ? 2 : 1, (int64_t[]){rows, columns}));
    tiny_values(ct_tensor_data(values), role, layer, rows, columns, dtype);
    CT_TRY_TO(done, ct_tensor_convert(&weight, values, dtype));
    CT_TRY_TO(done, ct_weights_set(&model->weights, ct_role_name(role), layer, weight, source));
done:
    ct_tensor_unref(&weight);
    ct_tensor_unref(&values);
    return status;
}

/* A bias stands behind its weight in the list of roles. */
static ct_status set_linear(ct_model *model, ct_role weight, int64_t layer, int64_t rows,
                            int64_t columns, int64_t bias)
{
    CT_TRY(set_weight(model, weight, layer, rows, columns));
    return bias ? set_weight(model, weight + 1, layer, rows, 0) : CT_OK;
}

/* The same for a norm of `width` values. */
static ct_status set_norm(ct_model *model, int64_t present, ct_role weight, int64_t layer,
                          int64_t width)
{
    const ct_spec *spec = &model->weights.spec;
    bool bias = spec->norm_kind == CT_NORM_LAYER && spec->norm_bias;
    if (!present)
        return CT_OK;
    CT_TRY(set_weight(model, weight, layer, width, 0));
    return bias ? set_weight(model, weight + 1, layer, width, 0) : CT_OK;
}

static ct_status set_layer_norms(ct_model *model, int64_t layer)
{
    const ct_spec *s = &model->weights.spec;
    bool all = s->qk_norm == CT_QK_NORM_ALL;
    const struct {
        int64_t present;
        ct_role weight;
        int64_t width;
    } norms[] = {
        {s->attention_input_norm && !(s->bare_first_layer && layer == 0),
         CT_ROLE_ATTENTION_INPUT_NORM_WEIGHT, s->hidden_width},
        {s->attention_output_norm, CT_ROLE_ATTENTION_OUTPUT_NORM_WEIGHT, s->hidden_width},
        {s->attention_residual_norm, CT_ROLE_ATTENTION_RESIDUAL_NORM_WEIGHT, s->hidden_width},
        {s->ffn_input_norm, CT_ROLE_FFN_INPUT_NORM_WEIGHT, s->hidden_width},
        {s->ffn_output_norm, CT_ROLE_FFN_OUTPUT_NORM_WEIGHT, s->hidden_width},
        {s->ffn_residual_norm, CT_ROLE_FFN_RESIDUAL_NORM_WEIGHT, s->hidden_width},
        {s->qk_norm, CT_ROLE_QUERY_NORM_WEIGHT, s->head_width * (all ? s->n_heads : 1)},
        {s->qk_norm, CT_ROLE_KEY_NORM_WEIGHT, s->head_width * (all ? s->n_kv_heads : 1)},
    };
    for (size_t i = 0; i < sizeof norms / sizeof *norms; i++)
        CT_TRY(set_norm(model, norms[i].present, norms[i].weight, layer, norms[i].width));
    return CT_OK;
}

bool tiny_is_fused(const ct_spec *spec)
{
    return spec->qkv_order == CT_QKV_GROUPED || spec->clip_qkv > 0;
}

bool tiny_is_tied(const ct_spec *spec)
{
    return spec->parallel != 0;
}

static ct_status set_layer(ct_model *model, int64_t layer)
{
    const ct_spec *s = &model->weights.spec;
    int64_t hidden = s->hidden_width, inner = s->intermediate_width;
    int64_t queries = s->n_heads * s->head_width, keys = s->n_kv_heads * s->head_width;
    CT_TRY(set_layer_norms(model, layer));
    if (tiny_is_fused(s)) {
        CT_TRY(
            set_linear(model, CT_ROLE_QKV_WEIGHT, layer, queries + 2 * keys, hidden, s->qkv_bias));
    } else {
        CT_TRY(set_linear(model, CT_ROLE_QUERY_WEIGHT, layer, queries, hidden, s->qkv_bias));
        CT_TRY(set_linear(model, CT_ROLE_KEY_WEIGHT, layer, keys, hidden, s->qkv_bias));
        CT_TRY(set_linear(model, CT_ROLE_VALUE_WEIGHT, layer, keys, hidden, s->qkv_bias));
    }
    CT_TRY(set_linear(model, CT_ROLE_ATTENTION_OUTPUT_WEIGHT, layer, hidden, queries,
                      s->attention_output_bias));
    if (s->gated)
        CT_TRY(set_linear(model, CT_ROLE_GATE_WEIGHT, layer, inner, hidden, s->ffn_bias));
    CT_TRY(set_linear(model, CT_ROLE_UP_WEIGHT, layer, inner, hidden, s->ffn_bias));
    return set_linear(model, CT_ROLE_DOWN_WEIGHT, layer, hidden, inner, s->ffn_bias);
}

static ct_status set_weights(ct_model *model)
{
    const ct_spec *s = &model->weights.spec;
    int64_t hidden = s->hidden_width, embedding = s->embedding_width;
    CT_TRY(set_weight(model, CT_ROLE_PIECE_EMBEDDINGS, -1, s->n_pieces, embedding));
    if (s->n_positions > 0)
        CT_TRY(set_weight(model, CT_ROLE_POSITION_EMBEDDINGS, -1, s->n_positions, embedding));
    if (s->n_types > 0)
        CT_TRY(set_weight(model, CT_ROLE_TYPE_EMBEDDINGS, -1, s->n_types, embedding));
    CT_TRY(set_norm(model, s->embedding_norm, CT_ROLE_EMBEDDING_NORM_WEIGHT, -1, embedding));
    if (s->embedding_projection)
        CT_TRY(set_linear(model, CT_ROLE_PROJECTION_WEIGHT, -1, hidden, embedding, true));
    if (s->rotary_width > 0)
        CT_TRY(set_weight(model, CT_ROLE_ROTARY_FREQUENCIES, -1, s->rotary_width / 2, 0));
    if (s->rotary_local)
        CT_TRY(set_weight(model, CT_ROLE_ROTARY_LOCAL_FREQUENCIES, -1, s->rotary_width / 2, 0));
    if (s->local_layers)
        CT_TRY(
            set_weight(model, CT_ROLE_ATTENTION_LOCAL, -1, s->n_layers * s->layers_per_group, 0));
    if (s->relative_buckets > 0)
        CT_TRY(set_weight(model, CT_ROLE_RELATIVE_BIAS, -1, s->relative_buckets, s->n_heads));
    CT_TRY(set_norm(model, s->output_norm, CT_ROLE_OUTPUT_NORM_WEIGHT, -1, hidden));
    if (s->head && !tiny_is_tied(s))
        CT_TRY(set_weight(model, CT_ROLE_HEAD_WEIGHT, -1, s->n_pieces, hidden));
    if (s->head && s->head_bias)
        CT_TRY(set_weight(model, CT_ROLE_HEAD_BIAS, -1, s->n_pieces, 0));
    for (int64_t layer = 0; layer < model->weights.n_layers; layer++)
        CT_TRY(set_layer(model, layer));
    return CT_OK;
}

static ct_status begin_on(ct_model **out, ct_spec spec, ct_device_id device)
{
    *out = NULL;
    CT_TRY(ct_model_new(out, &spec, device));
    ct_status status = set_weights(*out);
    if (status != CT_OK)
        ct_model_unref(out);
    return status;
}

ct_status tiny_model_begin(ct_model **out, ct_spec spec)
{
    return begin_on(out, spec, (ct_device_id){CT_DEVICE_CPU, 0});
}

ct_status tiny_model_new(ct_model **out, ct_spec spec)
{
    return tiny_model_new_on(out, spec, (ct_device_id){CT_DEVICE_CPU, 0});
}

ct_status tiny_model_new_on(ct_model **out, ct_spec spec, ct_device_id device)
{
    CT_TRY(begin_on(out, spec, device));
    ct_status status = ct_model_finish(*out);
    if (status != CT_OK)
        ct_model_unref(out);
    return status;
}

/* ---- inputs ---- */

void tiny_pieces(int32_t *out, int64_t n, uint64_t seed)
{
    uint64_t state = seed * 2654435761u + 1;
    for (int i = 0; i < 8; i++)
        random_uniform(&state);
    for (int64_t i = 0; i < n; i++)
        out[i] = (int32_t)(random_uniform(&state) * TINY_PIECES);
}

ct_status integers_of(ct_tensor **out, int64_t rows, int64_t columns, const int32_t *values)
{
    CT_TRY(ct_tensor_new(out, CT_I32, 2, (int64_t[]){rows, columns}));
    memcpy(ct_tensor_data(*out), values, sizeof *values * (size_t)(rows * columns));
    return CT_OK;
}

ct_status mask_of(ct_tensor **out, const char *text)
{
    int64_t columns = (int64_t)strcspn(text, " "), all = (int64_t)strlen(text);
    int64_t rows = (all + 1) / (columns + 1);
    CT_TRY(ct_tensor_new(out, CT_BOOL, 2, (int64_t[]){rows, columns}));
    uint8_t *mask = ct_tensor_data(*out);
    for (const char *at = text; *at; at++)
        if (*at != ' ')
            *mask++ = *at == '1';
    return CT_OK;
}

/* ---- a call ---- */

/* Sequences that go on behind the cache's, or begin. */
static ct_status start_sequences(const ct_model *model, const ct_inputs *inputs, int64_t n,
                                 ct_kv_sequence *sequences, ct_kv_sequence **pointers)
{
    for (int64_t i = 0; i < n; i++) {
        pointers[i] = &sequences[i];
        if (inputs->cache)
            CT_TRY(ct_kv_sequence_share(&sequences[i], &inputs->cache->sequences[i]));
        else
            ct_kv_sequence_init(&sequences[i], model->pool);
    }
    return CT_OK;
}

ct_status tiny_run(tiny_result *out, ct_model *model, const ct_inputs *inputs, bool store)
{
    ct_status status = CT_OK;
    *out = (tiny_result){0};
    CT_TRY(ct_batch_pack(&out->batch, &model->weights.spec, inputs));
    int64_t n = out->batch.n_sequences;
    ct_kv_sequence sequences[n], *pointers[n];
    memset(sequences, 0, sizeof sequences);
    ct_forward_args args = {.batch = &out->batch, .keep = CT_KEEP_ALL};
    args.logits = model->head ? CT_LOGITS_ALL : CT_LOGITS_NONE;
    if (store || inputs->cache) {
        CT_TRY_TO(done, start_sequences(model, inputs, n, sequences, pointers));
        args.sequences = pointers;
    }
    CT_TRY_TO(done, ct_model_forward(model, &args, &out->hidden, &out->logits));
    if (store)
        CT_TRY_TO(done, ct_kv_cache_new(&out->cache, pointers, n, out->batch.columns));
done:
    for (int64_t i = 0; i < n; i++)
        if (sequences[i].pool)
            ct_kv_sequence_clear(&sequences[i]);
    if (status != CT_OK)
        tiny_result_clear(out);
    return status;
}

ct_status tiny_run_pieces(tiny_result *out, ct_model *model, const int32_t *pieces, int64_t n,
                          const ct_kv_cache *cache, bool store)
{
    ct_tensor *ids;
    *out = (tiny_result){0};
    CT_TRY(integers_of(&ids, 1, n, pieces));
    ct_status status = tiny_run(out, model, &(ct_inputs){.ids = ids, .cache = cache}, store);
    ct_tensor_unref(&ids);
    return status;
}

void tiny_result_clear(tiny_result *result)
{
    ct_batch_clear(&result->batch);
    ct_tensor_unref(&result->hidden);
    ct_tensor_unref(&result->logits);
    ct_kv_cache_unref(&result->cache);
}

const float *tiny_hidden(const tiny_result *result, int64_t index, int64_t token)
{
    const ct_tensor *hidden = result->hidden;
    return (const float *)ct_tensor_data(hidden) +
           (index * hidden->shape[1] + token) * hidden->shape[2];
}

const float *tiny_logits(const tiny_result *result, int64_t token)
{
    return (const float *)ct_tensor_data(result->logits) + token * result->logits->shape[1];
}
