/* The layer that all architectures share. With the norms N1..N4 of the spec that are there:
 *
 * sequential  r = N2(x + attention(N1 x)),  y = N4(r + ffn(N3 r))
 * parallel    y = N4(x + attention(N1 x) + ffn(N3 x)), N3 x being N1 x where there is no N3
 *
 * and with output norms, attention and ffn stand for norm(attention) and norm(ffn). N1 and N3
 * belong to the linears that follow them. */
#include "model/layer.h"

static ct_status attend(ct_call *call, const ct_layer *weights, int64_t index, ct_rows input,
                        ct_rows *out);
static ct_status feed_forward(ct_call *call, const ct_layer *weights, ct_rows input, ct_rows *out);

static ct_rows rows(const ct_call *call, void *data, ct_dtype dtype, int64_t width)
{
    return (ct_rows){data, dtype, call->n_tokens, width, width};
}

ct_status ct_call_allocate(ct_call *call)
{
    const ct_spec *spec = &call->model->weights.spec;
    size_t hidden = (size_t)spec->hidden_width, inner = (size_t)spec->intermediate_width;
    size_t heads = (size_t)(spec->n_heads * spec->head_width);
    struct {
        void **place;
        size_t width;
    } buffers[] = {
        {(void **)&call->qkv, (size_t)call->model->qkv_width},
        {&call->attended, heads},
        {&call->inner, inner},
        {(void **)&call->middle, hidden},
        {(void **)&call->branch, hidden},
    };
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++)
        CT_TRY(ct_arena_alloc(call->activations, buffers[i].place,
                              buffers[i].width * sizeof(float) * (size_t)call->n_tokens));
    return CT_OK;
}

ct_status ct_call_linear(ct_call *call, const ct_linear *linear, ct_rows x,
                         const ct_epilogue *epilogue, ct_rows y)
{
    ct_status status = call->model->ops->linear(linear, x, epilogue, y, call->scratch);
    ct_arena_reset(call->scratch);
    return status;
}

static ct_status norm_rows(const ct_call *call, ct_norm_weights norm, ct_rows x, ct_rows y)
{
    const ct_spec *spec = &call->model->weights.spec;
    return call->model->ops->norm((ct_norm_kind)spec->norm_kind, y, x, norm.weight, norm.bias,
                                  (float)spec->norm_eps, 1);
}

/* y = residual + linear(x), with the branch's own norm before the sum where there is one. */
static ct_status add_branch(ct_call *call, const ct_linear *linear, ct_norm_weights output_norm,
                            ct_rows x, ct_rows residual, ct_rows y)
{
    if (!output_norm.weight)
        return ct_call_linear(call, linear, x, &(ct_epilogue){.residual = &residual}, y);
    ct_rows branch = rows(call, call->branch, CT_F32, y.width);
    CT_TRY(ct_call_linear(call, linear, x, &(ct_epilogue){0}, branch));
    CT_TRY(norm_rows(call, output_norm, branch, branch));
    return call->model->ops->add(y, residual, branch);
}

ct_status ct_layer_run(ct_call *call, const ct_layer *weights, int64_t index, ct_rows x, ct_rows y)
{
    bool parallel = call->model->weights.spec.parallel != 0;
    ct_rows middle = rows(call, call->middle, CT_F32, x.width), attended, inner;
    CT_TRY(attend(call, weights, index, x, &attended));
    CT_TRY(add_branch(call, weights->attention_output_linear, weights->attention_output, attended,
                      x, middle));
    if (!parallel && weights->attention_residual.weight)
        CT_TRY(norm_rows(call, weights->attention_residual, middle, middle));
    CT_TRY(feed_forward(call, weights, parallel ? x : middle, &inner));
    CT_TRY(add_branch(call, weights->down, weights->ffn_output, inner, middle, y));
    if (weights->ffn_residual.weight)
        CT_TRY(norm_rows(call, weights->ffn_residual, y, y));
    return CT_OK;
}

/* ---- the two halves ---- */

static ct_status norm_queries_and_keys(const ct_call *call, const ct_layer *weights, ct_rows qkv)
{
    const ct_model *model = call->model;
    const ct_spec *spec = &model->weights.spec;
    const ct_head_layout *heads = &model->heads;
    bool whole = spec->qk_norm == CT_QK_NORM_ALL;
    int64_t counts[2] = {heads->n_heads, heads->n_kv_heads};
    int64_t offsets[2] = {heads->q_offset, heads->k_offset};
    ct_norm_weights norms[2] = {weights->query_norm, weights->key_norm};
    for (int i = 0; i < 2; i++) {
        ct_rows part = qkv;
        part.data = (float *)qkv.data + offsets[i];
        part.width = counts[i] * heads->head_width;
        CT_TRY(model->ops->norm((ct_norm_kind)spec->norm_kind, part, part, norms[i].weight,
                                norms[i].bias, (float)spec->norm_eps, whole ? 1 : counts[i]));
    }
    return CT_OK;
}

static bool is_local(const ct_model *model, int64_t index)
{
    const float *flags = ct_model_vector(model, CT_ROLE_ATTENTION_LOCAL, 0);
    return flags ? flags[index] == 1 : model->weights.spec.window > 0;
}

static ct_status attend(ct_call *call, const ct_layer *weights, int64_t index, ct_rows input,
                        ct_rows *out)
{
    const ct_model *model = call->model;
    const ct_spec *spec = &model->weights.spec;
    const ct_batch *batch = call->args->batch;
    bool local = is_local(model, index);
    ct_rows qkv = rows(call, call->qkv, CT_F32, model->qkv_width);
    CT_TRY(ct_call_linear(call, weights->qkv, input, &(ct_epilogue){.clip = (float)spec->clip_qkv},
                          qkv));
    if (spec->qk_norm != CT_QK_NORM_NONE)
        CT_TRY(norm_queries_and_keys(call, weights, qkv));

    const ct_kv_view *cache = call->args->sequences ? &call->view : NULL;
    if (cache)
        ct_kv_view_layer(&call->view, model->pool, index);
    ct_dtype dtype = model->ops->linear_input(weights->attention_output_linear, call->n_tokens);
    *out = rows(call, call->attended, dtype, spec->n_heads * spec->head_width);
    ct_attention_args args = {
        .layout = model->heads,
        .qkv = qkv,
        .rotary = local ? call->local_rotary : call->rotary,
        .n_sequences = batch->n_sequences,
        .offsets = call->offsets,
        .max_places = call->max_places,
        .max_rows = call->max_rows,
        .compute = (ct_dtype)spec->dtype,
        .cache = cache,
        .scale = (float)spec->attention_scale,
        .logit_softcap = (float)spec->attention_softcap,
        .causal = spec->causal != 0,
        .window = local ? spec->window : 0,
        .alibi_slopes = model->alibi_slopes ? ct_tensor_data(model->alibi_slopes) : NULL,
        .distance_bias = model->distance_bias ? ct_tensor_data(model->distance_bias) : NULL,
        .max_distance = spec->relative_max_distance,
        .out = *out,
    };
    if (call->mask) {
        args.mask = ct_tensor_data(call->mask);
        for (int i = 0; i < 4; i++)
            args.mask_strides[i] = call->mask->strides[i];
    }
    ct_status status = model->ops->attention(&args, call->scratch);
    ct_arena_reset(call->scratch);
    return status;
}

static ct_status feed_forward(ct_call *call, const ct_layer *weights, ct_rows input, ct_rows *out)
{
    const ct_spec *spec = &call->model->weights.spec;
    ct_dtype dtype = call->model->ops->linear_input(weights->down, call->n_tokens);
    *out = rows(call, call->inner, dtype, spec->intermediate_width);
    return ct_call_linear(call, weights->up, input,
                          &(ct_epilogue){.activation = (ct_activation)spec->activation}, *out);
}
