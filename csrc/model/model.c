/* From roles to what a layer computes with: linears prepared by the device, norms as plain
 * pointers. */
#include "model/model.h"

#include <stdatomic.h>
#include <string.h>

#include "core/memory.h"
#include "ops/device.h"
#include "ops/memory.h"

static ct_status build_layer(ct_model *model, int64_t index);
static void set_heads(ct_model *model);
static ct_status set_position_tables(ct_model *model);

static atomic_int_fast64_t n_made;

ct_status ct_model_new(ct_model **out, ct_spec *spec, ct_device_id device)
{
    *out = NULL;
    ct_status status = CT_OK;
    const ct_ops *ops;
    ct_model *model;
    CT_TRY(ct_spec_validate(spec));
    CT_TRY(ct_device_ops(device, &ops));
    CT_TRY(ct_alloc_zeroed((void **)&model, 1, sizeof *model));
    ct_refcount_init(&model->refs);
    model->number = atomic_fetch_add(&n_made, 1);
    pthread_mutex_init(&model->workspace_lock, NULL);
    model->ops = ops;
    model->device = device;
    CT_TRY_TO(done, ct_weights_init(&model->weights, spec));
    CT_TRY_TO(done, ct_alloc_zeroed((void **)&model->layers, (size_t)model->weights.n_layers,
                                    sizeof *model->layers));
    set_heads(model);
    *out = model;
    model = NULL;
done:
    ct_model_unref(&model);
    return status;
}

ct_model *ct_model_ref(ct_model *model)
{
    ct_refcount_take(&model->refs);
    return model;
}

void ct_model_unref(ct_model **model)
{
    ct_model *old = *model;
    *model = NULL;
    if (!old || !ct_refcount_drop(&old->refs))
        return;
    for (int64_t i = 0; old->layers && i < old->weights.n_layers; i++) {
        ct_layer *layer = &old->layers[i];
        ct_linear **linears[] = {&layer->qkv, &layer->attention_output_linear, &layer->up,
                                 &layer->down};
        for (size_t l = 0; l < sizeof linears / sizeof *linears; l++)
            old->ops->linear_free(linears[l]);
    }
    old->ops->linear_free(&old->projection);
    old->ops->linear_free(&old->head);
    ct_free(&old->layers);
    ct_weights_clear(&old->weights);
    ct_rotary_table_free(&old->rotary);
    ct_rotary_table_free(&old->local_rotary);
    ct_tensor_unref(&old->alibi_slopes);
    ct_tensor_unref(&old->distance_bias);
    ct_kv_pool_unref(&old->pool);
    while (old->workspaces) {
        ct_workspace *space = old->workspaces;
        old->workspaces = space->next;
        ct_arena_clear(&space->activations);
        ct_arena_clear(&space->scratch);
        ct_arena_clear(&space->host);
        ct_free(&space);
    }
    pthread_mutex_destroy(&old->workspace_lock);
    ct_free(&old);
}

ct_status ct_workspace_take(ct_model *model, ct_workspace **out)
{
    pthread_mutex_lock(&model->workspace_lock);
    *out = model->workspaces;
    if (*out)
        model->workspaces = (*out)->next;
    pthread_mutex_unlock(&model->workspace_lock);
    if (*out)
        return CT_OK;
    const ct_memory *memory;
    CT_TRY(ct_device_memory(model->device, &memory));
    CT_TRY(ct_alloc_zeroed((void **)out, 1, sizeof **out));
    (*out)->activations.memory = (*out)->scratch.memory = memory;
    return CT_OK;
}

void ct_workspace_give(ct_model *model, ct_workspace *space)
{
    ct_arena_reset(&space->activations);
    ct_arena_reset(&space->scratch);
    ct_arena_reset(&space->host);
    pthread_mutex_lock(&model->workspace_lock);
    space->next = model->workspaces;
    model->workspaces = space;
    pthread_mutex_unlock(&model->workspace_lock);
}

/* ---- weights -> layers ---- */

static void set_heads(ct_model *model)
{
    const ct_spec *spec = &model->weights.spec;
    int64_t d = spec->head_width, group = spec->n_heads / spec->n_kv_heads;
    ct_head_layout *heads = &model->heads;
    heads->n_heads = spec->n_heads;
    heads->n_kv_heads = spec->n_kv_heads;
    heads->head_width = d;
    if (spec->qkv_order == CT_QKV_GROUPED) {
        heads->k_offset = group * d;
        heads->v_offset = (group + 1) * d;
        heads->q_group_stride = heads->kv_group_stride = (group + 2) * d;
    } else {
        heads->k_offset = spec->n_heads * d;
        heads->v_offset = (spec->n_heads + spec->n_kv_heads) * d;
        heads->q_group_stride = group * d;
        heads->kv_group_stride = d;
    }
    model->qkv_width = (spec->n_heads + 2 * spec->n_kv_heads) * d;
}

const float *ct_model_vector(const ct_model *model, ct_role role, int64_t layer)
{
    ct_tensor *tensor = ct_weights_get(&model->weights, role, layer);
    return tensor ? ct_tensor_data(tensor) : NULL;
}

/* The weights of a linear, by role. Its parts may come in different types, as GGUF files mix them.
 */
typedef struct linear_roles {
    int n_parts;
    ct_role weight[CT_LINEAR_MAX_PARTS], bias[CT_LINEAR_MAX_PARTS];
    ct_role norm; /* the weight of its input's, its bias behind it; CT_ROLE_COUNT: none */
    bool gated;
} linear_roles;

static ct_status build_linear(ct_model *model, ct_linear **out, int64_t layer,
                              const linear_roles *roles, ct_linear_use use)
{
    const ct_spec *spec = &model->weights.spec;
    const ct_weights *weights = &model->weights;
    ct_linear_desc desc = {.n_parts = roles->n_parts,
                           .gated = roles->gated,
                           .use = use,
                           .quantized = {.outlier_threshold = (float)spec->outlier_threshold,
                                         .compute_dtype = (ct_dtype)spec->compute_dtype,
                                         .int8_activations = spec->int8_activations,
                                         .model_dtype = (ct_dtype)spec->dtype}};
    for (int i = 0; i < roles->n_parts; i++) {
        desc.weight[i] = ct_weights_get(weights, roles->weight[i], layer);
        desc.bias[i] = ct_weights_get(weights, roles->bias[i], layer);
    }
    if (roles->norm != CT_ROLE_COUNT)
        desc.norm = (ct_input_norm){
            (ct_norm_kind)spec->norm_kind, ct_weights_get(weights, roles->norm, layer),
            ct_weights_get(weights, roles->norm + 1, layer), (float)spec->norm_eps};
    CT_TRY(model->ops->enter(model->device.index));
    ct_status status = model->ops->linear_new(out, &desc);
    model->ops->leave(model->device.index);
    CT_TRY(status);
    for (int i = 0; i < roles->n_parts; i++) { /* the linear holds what it needs */
        ct_weights_drop(&model->weights, roles->weight[i], layer);
        ct_weights_drop(&model->weights, roles->bias[i], layer);
    }
    return CT_OK;
}

static ct_status build_one(ct_model *model, ct_linear **out, int64_t layer, ct_role weight,
                           ct_role bias, ct_linear_use use)
{
    const linear_roles roles = {1, {weight}, {bias}, CT_ROLE_COUNT, false};
    return build_linear(model, out, layer, &roles, use);
}

ct_status ct_model_finish(ct_model *model)
{
    const ct_spec *spec = &model->weights.spec;
    if (model->ready)
        return ct_fail(CT_VALUE, "the model's weights are complete already");
    if (model->begun) /* some weights are gone already, and a head would pass for a tied one */
        return ct_fail(CT_VALUE, "preparing the model's weights has failed; make a new model");
    CT_TRY(ct_weights_check(&model->weights));
    model->begun = true;
    CT_TRY(ct_weights_move(&model->weights, model->device));
    if (spec->head) {
        if (!ct_weights_get(&model->weights, CT_ROLE_HEAD_WEIGHT, 0))
            CT_TRY(ct_weights_set(&model->weights, ct_role_name(CT_ROLE_HEAD_WEIGHT), -1,
                                  ct_weights_get(&model->weights, CT_ROLE_PIECE_EMBEDDINGS, 0),
                                  "piece embeddings"));
        CT_TRY(build_one(model, &model->head, 0, CT_ROLE_HEAD_WEIGHT, CT_ROLE_HEAD_BIAS,
                         CT_LINEAR_STREAM));
    }
    if (spec->embedding_projection)
        CT_TRY(build_one(model, &model->projection, 0, CT_ROLE_PROJECTION_WEIGHT,
                         CT_ROLE_PROJECTION_BIAS, CT_LINEAR_BATCH));
    for (int64_t i = 0; i < model->weights.n_layers; i++)
        CT_TRY(build_layer(model, i));
    CT_TRY(set_position_tables(model));
    if (spec->causal)
        CT_TRY(ct_kv_pool_new(&model->pool, model->device, spec->n_layers * spec->layers_per_group,
                              spec->n_kv_heads, spec->head_width, (ct_dtype)spec->dtype));
    model->ready = true;
    return CT_OK;
}

/* What the relative bias is for each distance, and not for each bucket any more. */
static ct_status set_distance_bias(ct_model *model)
{
    const ct_spec *spec = &model->weights.spec;
    ct_status status = CT_OK;
    ct_tensor *weight, *bias = NULL;
    int64_t shape[2] = {spec->n_heads, 2 * spec->relative_max_distance + 1};
    CT_TRY(ct_tensor_convert(&weight, ct_weights_get(&model->weights, CT_ROLE_RELATIVE_BIAS, 0),
                             CT_F32));
    CT_TRY_TO(done, ct_tensor_new(&bias, CT_F32, 2, shape));
    ct_expand_relative_bias(ct_tensor_data(bias), ct_tensor_data(weight), spec->n_heads,
                            spec->relative_buckets, spec->relative_max_distance);
    CT_TRY_TO(done, ct_tensor_to_device(&model->distance_bias, bias, model->device));
    ct_weights_drop(&model->weights, CT_ROLE_RELATIVE_BIAS, 0);
done:
    ct_tensor_unref(&bias);
    ct_tensor_unref(&weight);
    return status;
}

static ct_status set_alibi_slopes(ct_model *model)
{
    const ct_spec *spec = &model->weights.spec;
    ct_tensor *slopes;
    CT_TRY(ct_tensor_new(&slopes, CT_F32, 1, &spec->n_heads));
    float *values = ct_tensor_data(slopes);
    ct_alibi_slopes(values, spec->n_heads, spec->alibi_max_bias);
    for (int64_t i = 0; spec->alibi_scaled && i < spec->n_heads; i++)
        values[i] *= (float)spec->attention_scale;
    ct_status status = ct_tensor_to_device(&model->alibi_slopes, slopes, model->device);
    ct_tensor_unref(&slopes);
    return status;
}

static ct_status set_position_tables(ct_model *model)
{
    const ct_spec *spec = &model->weights.spec;
    if (spec->rotary_width)
        CT_TRY(ct_rotary_table_new(&model->rotary, model->device,
                                   ct_model_vector(model, CT_ROLE_ROTARY_FREQUENCIES, 0),
                                   spec->rotary_width / 2, (float)spec->rotary_factor));
    if (spec->rotary_local)
        CT_TRY(ct_rotary_table_new(&model->local_rotary, model->device,
                                   ct_model_vector(model, CT_ROLE_ROTARY_LOCAL_FREQUENCIES, 0),
                                   spec->rotary_width / 2, 1));
    if (spec->alibi)
        CT_TRY(set_alibi_slopes(model));
    return spec->relative_buckets ? set_distance_bias(model) : CT_OK;
}

static ct_norm_weights norm(const ct_model *model, ct_role weight, int64_t layer)
{
    return (ct_norm_weights){ct_model_vector(model, weight, layer),
                             ct_model_vector(model, weight + 1, layer)};
}

/* The first product of the feed-forward layer. Where it is beside attention and has no norm of its
 * own, it shares attention's. */
static ct_status build_up(ct_model *model, int64_t layer, ct_linear_use use)
{
    static const linear_roles gated = {2,
                                       {CT_ROLE_GATE_WEIGHT, CT_ROLE_UP_WEIGHT},
                                       {CT_ROLE_GATE_BIAS, CT_ROLE_UP_BIAS},
                                       CT_ROLE_FFN_INPUT_NORM_WEIGHT,
                                       true};
    static const linear_roles plain = {
        1, {CT_ROLE_UP_WEIGHT}, {CT_ROLE_UP_BIAS}, CT_ROLE_FFN_INPUT_NORM_WEIGHT, false};
    const ct_spec *spec = &model->weights.spec;
    linear_roles roles = spec->gated ? gated : plain;
    if (spec->parallel && !ct_weights_get(&model->weights, CT_ROLE_FFN_INPUT_NORM_WEIGHT, layer))
        roles.norm = CT_ROLE_ATTENTION_INPUT_NORM_WEIGHT;
    return build_linear(model, &model->layers[layer].up, layer, &roles, use);
}

static ct_status build_layer(ct_model *model, int64_t index)
{
    const ct_spec *spec = &model->weights.spec;
    ct_linear_use use = spec->causal ? CT_LINEAR_STREAM : CT_LINEAR_BATCH;
    ct_layer *layer = &model->layers[index];
    layer->attention_output = norm(model, CT_ROLE_ATTENTION_OUTPUT_NORM_WEIGHT, index);
    layer->attention_residual = norm(model, CT_ROLE_ATTENTION_RESIDUAL_NORM_WEIGHT, index);
    layer->ffn_output = norm(model, CT_ROLE_FFN_OUTPUT_NORM_WEIGHT, index);
    layer->ffn_residual = norm(model, CT_ROLE_FFN_RESIDUAL_NORM_WEIGHT, index);
    layer->query_norm = norm(model, CT_ROLE_QUERY_NORM_WEIGHT, index);
    layer->key_norm = norm(model, CT_ROLE_KEY_NORM_WEIGHT, index);

    static const linear_roles fused = {
        1, {CT_ROLE_QKV_WEIGHT}, {CT_ROLE_QKV_BIAS}, CT_ROLE_ATTENTION_INPUT_NORM_WEIGHT, false};
    static const linear_roles three = {
        3,
        {CT_ROLE_QUERY_WEIGHT, CT_ROLE_KEY_WEIGHT, CT_ROLE_VALUE_WEIGHT},
        {CT_ROLE_QUERY_BIAS, CT_ROLE_KEY_BIAS, CT_ROLE_VALUE_BIAS},
        CT_ROLE_ATTENTION_INPUT_NORM_WEIGHT,
        false};
    bool is_fused = ct_weights_get(&model->weights, CT_ROLE_QKV_WEIGHT, index) != NULL;
    CT_TRY(build_linear(model, &layer->qkv, index, is_fused ? &fused : &three, use));
    CT_TRY(build_one(model, &layer->attention_output_linear, index, CT_ROLE_ATTENTION_OUTPUT_WEIGHT,
                     CT_ROLE_ATTENTION_OUTPUT_BIAS, use));
    CT_TRY(build_up(model, index, use));
    return build_one(model, &layer->down, index, CT_ROLE_DOWN_WEIGHT, CT_ROLE_DOWN_BIAS, use);
}
