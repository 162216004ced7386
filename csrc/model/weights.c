/* What each role must look like is said once, in role_shape; whether a spec has it, in has_role. */
#include "model/weights.h"

#include <stdio.h>
#include <string.h>

#include "core/memory.h"
#include "ops/memory.h"

#define ROLE_NAME(role, name) [CT_ROLE_##role] = name,
static const char *const role_names[CT_ROLE_COUNT] = {CT_MODEL_ROLES(ROLE_NAME)
                                                          CT_LAYER_ROLES(ROLE_NAME)};
#undef ROLE_NAME

const char *ct_role_name(ct_role role)
{
    return role_names[role];
}

static int64_t n_slots(const ct_weights *weights)
{
    return CT_MODEL_ROLE_COUNT + weights->n_layers * (CT_ROLE_COUNT - CT_MODEL_ROLE_COUNT);
}

static ct_tensor **slot(const ct_weights *weights, ct_role role, int64_t layer)
{
    if (role < CT_MODEL_ROLE_COUNT)
        return &weights->tensors[role];
    return &weights->tensors[role + layer * (CT_ROLE_COUNT - CT_MODEL_ROLE_COUNT)];
}

ct_status ct_weights_init(ct_weights *weights, const ct_spec *spec)
{
    *weights = (ct_weights){.spec = *spec};
    weights->n_layers = spec->n_layer_groups * spec->layers_per_group;
    return ct_alloc_zeroed((void **)&weights->tensors, (size_t)n_slots(weights),
                           sizeof(ct_tensor *));
}

void ct_weights_clear(ct_weights *weights)
{
    for (int64_t i = 0; weights->tensors && i < n_slots(weights); i++)
        ct_tensor_unref(&weights->tensors[i]);
    ct_free(&weights->tensors);
}

ct_tensor *ct_weights_get(const ct_weights *weights, ct_role role, int64_t layer)
{
    return *slot(weights, role, layer);
}

void ct_weights_drop(ct_weights *weights, ct_role role, int64_t layer)
{
    ct_tensor_unref(slot(weights, role, layer));
}

/* The shape of a role: [rows, columns], or [rows] with columns 0. */
static void role_shape(const ct_spec *spec, ct_role role, int64_t *rows, int64_t *columns)
{
    int64_t hidden = spec->hidden_width, queries = spec->n_heads * spec->head_width;
    int64_t keys = spec->n_kv_heads * spec->head_width, inner = spec->intermediate_width;
    bool whole = spec->qk_norm == CT_QK_NORM_ALL;
    *columns = 0;
    switch (role) {
    case CT_ROLE_PIECE_EMBEDDINGS:
        *rows = spec->n_pieces, *columns = spec->embedding_width;
        break;
    case CT_ROLE_POSITION_EMBEDDINGS:
        *rows = spec->n_positions, *columns = spec->embedding_width;
        break;
    case CT_ROLE_TYPE_EMBEDDINGS:
        *rows = spec->n_types, *columns = spec->embedding_width;
        break;
    case CT_ROLE_EMBEDDING_NORM_WEIGHT:
    case CT_ROLE_EMBEDDING_NORM_BIAS:
        *rows = spec->embedding_width;
        break;
    case CT_ROLE_PROJECTION_WEIGHT:
        *rows = hidden, *columns = spec->embedding_width;
        break;
    case CT_ROLE_ATTENTION_LOCAL:
        *rows = spec->n_layers * spec->layers_per_group;
        break;
    case CT_ROLE_ROTARY_FREQUENCIES:
    case CT_ROLE_ROTARY_LOCAL_FREQUENCIES:
        *rows = spec->rotary_width / 2;
        break;
    case CT_ROLE_RELATIVE_BIAS:
        *rows = spec->relative_buckets, *columns = spec->n_heads;
        break;
    case CT_ROLE_HEAD_WEIGHT:
        *rows = spec->n_pieces, *columns = hidden;
        break;
    case CT_ROLE_HEAD_BIAS:
        *rows = spec->n_pieces;
        break;
    case CT_ROLE_QKV_WEIGHT:
        *rows = queries + 2 * keys, *columns = hidden;
        break;
    case CT_ROLE_QKV_BIAS:
        *rows = queries + 2 * keys;
        break;
    case CT_ROLE_QUERY_WEIGHT:
        *rows = queries, *columns = hidden;
        break;
    case CT_ROLE_QUERY_BIAS:
        *rows = queries;
        break;
    case CT_ROLE_KEY_WEIGHT:
    case CT_ROLE_VALUE_WEIGHT:
        *rows = keys, *columns = hidden;
        break;
    case CT_ROLE_KEY_BIAS:
    case CT_ROLE_VALUE_BIAS:
        *rows = keys;
        break;
    case CT_ROLE_QUERY_NORM_WEIGHT:
    case CT_ROLE_QUERY_NORM_BIAS:
        *rows = whole ? queries : spec->head_width;
        break;
    case CT_ROLE_KEY_NORM_WEIGHT:
    case CT_ROLE_KEY_NORM_BIAS:
        *rows = whole ? keys : spec->head_width;
        break;
    case CT_ROLE_ATTENTION_OUTPUT_WEIGHT:
        *rows = hidden, *columns = queries;
        break;
    case CT_ROLE_GATE_WEIGHT:
    case CT_ROLE_UP_WEIGHT:
        *rows = inner, *columns = hidden;
        break;
    case CT_ROLE_GATE_BIAS:
    case CT_ROLE_UP_BIAS:
        *rows = inner;
        break;
    case CT_ROLE_DOWN_WEIGHT:
        *rows = hidden, *columns = inner;
        break;
    default: /* norms and biases over the hidden width */
        *rows = hidden;
    }
}

/* `layer` matters for roles of a layer alone. */
static bool has_role(const ct_spec *spec, ct_role role, int64_t layer)
{
    bool bias = spec->norm_bias && spec->norm_kind == CT_NORM_LAYER;
    bool input_norm = spec->attention_input_norm && !(spec->bare_first_layer && layer == 0);
    bool three = spec->qkv_order == CT_QKV_CONCATENATED; /* matrices may come, or one */
    switch (role) {
    case CT_ROLE_POSITION_EMBEDDINGS:
        return spec->n_positions > 0;
    case CT_ROLE_TYPE_EMBEDDINGS:
        return spec->n_types > 0;
    case CT_ROLE_EMBEDDING_NORM_WEIGHT:
        return spec->embedding_norm;
    case CT_ROLE_EMBEDDING_NORM_BIAS:
        return spec->embedding_norm && bias;
    case CT_ROLE_PROJECTION_WEIGHT:
    case CT_ROLE_PROJECTION_BIAS:
        return spec->embedding_projection;
    case CT_ROLE_ROTARY_FREQUENCIES:
        return spec->rotary_width > 0;
    case CT_ROLE_ROTARY_LOCAL_FREQUENCIES:
        return spec->rotary_local;
    case CT_ROLE_ATTENTION_LOCAL:
        return spec->local_layers;
    case CT_ROLE_RELATIVE_BIAS:
        return spec->relative_buckets > 0;
    case CT_ROLE_OUTPUT_NORM_WEIGHT:
        return spec->output_norm;
    case CT_ROLE_OUTPUT_NORM_BIAS:
        return spec->output_norm && bias;
    case CT_ROLE_HEAD_WEIGHT:
        return spec->head;
    case CT_ROLE_HEAD_BIAS:
        return spec->head && spec->head_bias;
    case CT_ROLE_ATTENTION_INPUT_NORM_WEIGHT:
        return input_norm;
    case CT_ROLE_ATTENTION_INPUT_NORM_BIAS:
        return input_norm && bias;
    case CT_ROLE_ATTENTION_OUTPUT_NORM_WEIGHT:
        return spec->attention_output_norm;
    case CT_ROLE_ATTENTION_OUTPUT_NORM_BIAS:
        return spec->attention_output_norm && bias;
    case CT_ROLE_ATTENTION_RESIDUAL_NORM_WEIGHT:
        return spec->attention_residual_norm;
    case CT_ROLE_ATTENTION_RESIDUAL_NORM_BIAS:
        return spec->attention_residual_norm && bias;
    case CT_ROLE_FFN_INPUT_NORM_WEIGHT:
        return spec->ffn_input_norm;
    case CT_ROLE_FFN_INPUT_NORM_BIAS:
        return spec->ffn_input_norm && bias;
    case CT_ROLE_FFN_OUTPUT_NORM_WEIGHT:
        return spec->ffn_output_norm;
    case CT_ROLE_FFN_OUTPUT_NORM_BIAS:
        return spec->ffn_output_norm && bias;
    case CT_ROLE_FFN_RESIDUAL_NORM_WEIGHT:
        return spec->ffn_residual_norm;
    case CT_ROLE_FFN_RESIDUAL_NORM_BIAS:
        return spec->ffn_residual_norm && bias;
    case CT_ROLE_QKV_BIAS:
        return spec->qkv_bias;
    case CT_ROLE_QUERY_WEIGHT:
    case CT_ROLE_KEY_WEIGHT:
    case CT_ROLE_VALUE_WEIGHT:
        return three;
    case CT_ROLE_QUERY_BIAS:
    case CT_ROLE_KEY_BIAS:
    case CT_ROLE_VALUE_BIAS:
        return three && spec->qkv_bias;
    case CT_ROLE_QUERY_NORM_WEIGHT:
    case CT_ROLE_KEY_NORM_WEIGHT:
        return spec->qk_norm != CT_QK_NORM_NONE;
    case CT_ROLE_QUERY_NORM_BIAS:
    case CT_ROLE_KEY_NORM_BIAS:
        return spec->qk_norm != CT_QK_NORM_NONE && bias;
    case CT_ROLE_ATTENTION_OUTPUT_BIAS:
        return spec->attention_output_bias;
    case CT_ROLE_GATE_WEIGHT:
        return spec->gated;
    case CT_ROLE_GATE_BIAS:
        return spec->gated && spec->ffn_bias;
    case CT_ROLE_UP_BIAS:
    case CT_ROLE_DOWN_BIAS:
        return spec->ffn_bias;
    default: /* piece embeddings and the projections */
        return true;
    }
}

static ct_status check_shape(const ct_spec *spec, ct_role role, const ct_tensor *tensor,
                             const char *source)
{
    int64_t shape[2];
    role_shape(spec, role, &shape[0], &shape[1]);
    int n_dims = shape[1] ? 2 : 1;
    bool same = tensor->n_dims == n_dims && tensor->shape[0] == shape[0] &&
                (n_dims == 1 || tensor->shape[1] == shape[1]);
    if (same)
        return CT_OK;
    char wanted[64], got[192];
    ct_shape_text(wanted, sizeof wanted, n_dims, shape);
    ct_shape_text(got, sizeof got, tensor->n_dims, tensor->shape);
    return ct_fail(CT_VALUE, "Expected size of replacement for `%.200s` to be %s, but got %s",
                   source, wanted, got);
}

static ct_status find_role(ct_role *out, const ct_weights *weights, const char *name, int64_t layer,
                           const char *source)
{
    for (int i = 0; i < CT_ROLE_COUNT; i++) {
        if (strcmp(role_names[i], name) != 0)
            continue;
        bool of_layer = i >= CT_MODEL_ROLE_COUNT;
        if (of_layer ? layer < 0 || layer >= weights->n_layers : layer != -1)
            return ct_fail(CT_VALUE, "`%.200s`: there is no layer %lld for role %s", source,
                           (long long)layer, name);
        if (!has_role(&weights->spec, (ct_role)i, layer))
            return ct_fail(CT_VALUE, "`%.200s`: this model has no %s", source, name);
        *out = (ct_role)i;
        return CT_OK;
    }
    return ct_fail(CT_VALUE, "`%.200s`: there is no role `%.60s`", source, name);
}

/* Whether the matrix of a role is multiplied; the others are tables. */
static bool is_projection(ct_role role)
{
    switch (role) {
    case CT_ROLE_PROJECTION_WEIGHT:
    case CT_ROLE_HEAD_WEIGHT:
    case CT_ROLE_QKV_WEIGHT:
    case CT_ROLE_QUERY_WEIGHT:
    case CT_ROLE_KEY_WEIGHT:
    case CT_ROLE_VALUE_WEIGHT:
    case CT_ROLE_ATTENTION_OUTPUT_WEIGHT:
    case CT_ROLE_GATE_WEIGHT:
    case CT_ROLE_UP_WEIGHT:
    case CT_ROLE_DOWN_WEIGHT:
        return true;
    default:
        return false;
    }
}

/* A flag for each layer is 0 or 1; anything else was meant as something that this is not. */
static ct_status check_flags(const ct_tensor *flags, const char *source)
{
    const float *values = ct_tensor_data(flags);
    for (int64_t i = 0; i < flags->shape[0]; i++)
        if (values[i] != 0 && values[i] != 1)
            return ct_fail(CT_VALUE, "`%.200s` must be 0 or 1, was: %g for layer %lld", source,
                           (double)values[i], (long long)i);
    return CT_OK;
}

static bool is_of_host(ct_role role)
{
    return role == CT_ROLE_ROTARY_FREQUENCIES || role == CT_ROLE_ROTARY_LOCAL_FREQUENCIES ||
           role == CT_ROLE_ATTENTION_LOCAL || role == CT_ROLE_RELATIVE_BIAS;
}

/* Vectors in f32; matrices contiguous, those in a device's memory there. */
static ct_status as_kept(ct_tensor **out, ct_tensor *tensor, ct_role role)
{
    ct_tensor *host;
    if (tensor->storage->device.kind != CT_DEVICE_CPU && tensor->n_dims == 2 && !is_of_host(role) &&
        ct_tensor_is_contiguous(tensor)) {
        *out = ct_tensor_ref(tensor);
        return CT_OK;
    }
    CT_TRY(ct_tensor_to_device(&host, tensor, (ct_device_id){CT_DEVICE_CPU, 0}));
    ct_status status = tensor->n_dims == 1 ? ct_tensor_convert(out, host, CT_F32)
                                           : ct_tensor_contiguous(out, host);
    ct_tensor_unref(&host);
    return status;
}

ct_status ct_weights_set(ct_weights *weights, const char *role, int64_t layer, ct_tensor *tensor,
                         const char *source)
{
    ct_role found = CT_ROLE_COUNT;
    CT_TRY(find_role(&found, weights, role, layer, source));
    CT_TRY(check_shape(&weights->spec, found, tensor, source));
    if (!ct_dtype_is_float(tensor->dtype) && !ct_dtype_is_quantized(tensor->dtype))
        return ct_fail(CT_VALUE,
                       "Expected dtype of replacement for `%.200s` to be floating point or "
                       "quantized, but got %s",
                       source, ct_dtype_name(tensor->dtype));
    if (ct_dtype_has_scales(tensor->dtype) && !is_projection(found))
        return ct_fail(CT_VALUE,
                       "`%.200s`: only the matrices of linear layers can be in %s, not %s", source,
                       ct_dtype_name(tensor->dtype), role);
    ct_tensor *taken;
    CT_TRY(as_kept(&taken, tensor, found));
    ct_status status = CT_OK;
    if (found == CT_ROLE_ATTENTION_LOCAL)
        CT_TRY_TO(done, check_flags(taken, source));
    ct_tensor **place = slot(weights, found, layer);
    ct_tensor_unref(place);
    *place = taken;
    taken = NULL;
done:
    ct_tensor_unref(&taken);
    return status;
}

ct_status ct_weights_move(ct_weights *weights, ct_device_id device)
{
    for (int64_t layer = -1; layer < weights->n_layers; layer++) {
        int begin = layer < 0 ? 0 : CT_MODEL_ROLE_COUNT;
        int end = layer < 0 ? CT_MODEL_ROLE_COUNT : CT_ROLE_COUNT;
        for (int role = begin; role < end; role++) {
            ct_tensor **place = slot(weights, (ct_role)role, layer), *moved;
            if (!*place || is_projection((ct_role)role) || is_of_host((ct_role)role))
                continue;
            CT_TRY(ct_tensor_to_device(&moved, *place, device));
            ct_tensor_unref(place);
            *place = moved;
        }
    }
    return CT_OK;
}

/* A projection may come fused or as three; what is missing is named in the form that was begun. */
static bool is_missing(const ct_weights *weights, ct_role role, int64_t layer)
{
    if (ct_weights_get(weights, role, layer) || !has_role(&weights->spec, role, layer))
        return false;
    bool fused =
        role >= CT_MODEL_ROLE_COUNT && (weights->spec.qkv_order == CT_QKV_GROUPED ||
                                        ct_weights_get(weights, CT_ROLE_QKV_WEIGHT, layer));
    switch (role) {
    case CT_ROLE_HEAD_WEIGHT: /* tied */
        return false;
    case CT_ROLE_QKV_WEIGHT:
    case CT_ROLE_QKV_BIAS:
        return fused;
    case CT_ROLE_QUERY_WEIGHT:
    case CT_ROLE_QUERY_BIAS:
    case CT_ROLE_KEY_WEIGHT:
    case CT_ROLE_KEY_BIAS:
    case CT_ROLE_VALUE_WEIGHT:
    case CT_ROLE_VALUE_BIAS:
        return !fused;
    default:
        return true;
    }
}

bool ct_weights_next_missing(const ct_weights *weights, ct_role *role, int64_t *layer)
{
    int next = (int)*role;
    for (; *layer < weights->n_layers; ++*layer, next = CT_MODEL_ROLE_COUNT) {
        int end = *layer < 0 ? CT_MODEL_ROLE_COUNT : CT_ROLE_COUNT;
        for (; next < end; next++) {
            if (is_missing(weights, (ct_role)next, *layer)) {
                *role = (ct_role)next;
                return true;
            }
        }
    }
    return false;
}

ct_status ct_weights_check(const ct_weights *weights)
{
    char names[800] = "";
    size_t used = 0;
    int64_t n_missing = 0, layer = -1;
    for (ct_role role = 0; ct_weights_next_missing(weights, &role, &layer); role++) {
        n_missing++;
        if (used + 80 > sizeof names)
            continue;
        const char *comma = used ? ", " : "";
        if (layer < 0)
            used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", comma,
                                     role_names[role]);
        else
            used += (size_t)snprintf(names + used, sizeof names - used, "%slayers.%lld.%s", comma,
                                     (long long)layer, role_names[role]);
    }
    if (n_missing)
        return ct_fail(CT_VALUE, "Some parameters were not updated/replaced: %s (%lld in all)",
                       names, (long long)n_missing);
    return CT_OK;
}
