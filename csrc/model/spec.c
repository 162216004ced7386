/* Fields by name, and the checks that the whole program relies on. */
#include "model/spec.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "ops/activation.h"

#define MAX_WIDTH (1 << 18) /* of a row of activations */
#define MAX_COUNT (1 << 26) /* of pieces and positions */
#define MAX_DISTANCE (1 << 16)

#define SET_DEFAULT(name, value) spec->name = (value);
void ct_spec_init(ct_spec *spec)
{
    CT_SPEC_INTS(SET_DEFAULT)
    CT_SPEC_FLOATS(SET_DEFAULT)
}
#undef SET_DEFAULT

#define INT_FIELD(name, value) {#name, offsetof(ct_spec, name), true},
#define FLOAT_FIELD(name, value) {#name, offsetof(ct_spec, name), false},
static const struct field {
    const char *name;
    size_t offset;
    bool is_int;
} fields[] = {CT_SPEC_INTS(INT_FIELD) CT_SPEC_FLOATS(FLOAT_FIELD)};
#undef INT_FIELD
#undef FLOAT_FIELD

ct_status ct_spec_set(ct_spec *spec, const char *name, double value)
{
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        if (strcmp(fields[i].name, name) != 0)
            continue;
        char *place = (char *)spec + fields[i].offset;
        if (!isfinite(value))
            return ct_fail(CT_VALUE, "%s must be finite", name);
        if (!fields[i].is_int) {
            memcpy(place, &value, sizeof value);
            return CT_OK;
        }
        int64_t whole = fabs(value) < 1e15 ? (int64_t)value : -1;
        if ((double)whole != value)
            return ct_fail(CT_VALUE, "%s must be a whole number, was: %g", name, value);
        memcpy(place, &whole, sizeof whole);
        return CT_OK;
    }
    return ct_fail(CT_VALUE, "a specification has no field `%.60s`", name);
}

static ct_status check_range(const char *name, int64_t value, int64_t low, int64_t high)
{
    if (value < low || value > high)
        return ct_fail(CT_VALUE, "%s must be between %lld and %lld, was: %lld", name,
                       (long long)low, (long long)high, (long long)value);
    return CT_OK;
}

#define CHECK(field, low, high) CT_TRY(check_range(#field, spec->field, low, high))

static ct_status check_sizes(const ct_spec *spec)
{
    CHECK(hidden_width, 1, MAX_WIDTH);
    CHECK(embedding_width, 1, MAX_WIDTH);
    CHECK(intermediate_width, 1, 4 * MAX_WIDTH);
    CHECK(n_heads, 1, MAX_WIDTH);
    CHECK(head_width, 1, MAX_WIDTH);
    CHECK(n_kv_heads, 1, spec->n_heads);
    CHECK(n_layers, 1, 4096);
    CHECK(n_layer_groups, 1, spec->n_layers);
    CHECK(layers_per_group, 1, 4096);
    CHECK(n_pieces, 1, MAX_COUNT);
    CHECK(n_positions, 0, MAX_COUNT);
    CHECK(n_types, 0, MAX_COUNT);
    CHECK(max_positions, 0, MAX_COUNT);
    CHECK(window, 0, MAX_COUNT);
    CT_TRY(check_range("n_heads * head_width", spec->n_heads * spec->head_width, 1, MAX_WIDTH));
    CHECK(relative_buckets, 0, MAX_DISTANCE);
    CHECK(relative_max_distance, 1, MAX_DISTANCE);
    CHECK(rotary_width, 0, spec->head_width);
    return CT_OK;
}

static ct_status check_enumerations(const ct_spec *spec)
{
    CHECK(position_rule, CT_POSITIONS_COLUMN, CT_POSITIONS_SKIP_PADDING);
    CHECK(norm_kind, CT_NORM_LAYER, CT_NORM_RMS);
    CHECK(qkv_order, CT_QKV_CONCATENATED, CT_QKV_GROUPED);
    CHECK(qk_norm, CT_QK_NORM_NONE, CT_QK_NORM_ALL);
    CHECK(activation, CT_ACT_NONE, CT_ACT_COUNT - 1);
    if (spec->dtype != CT_F32 && spec->dtype != CT_F16 && spec->dtype != CT_BF16)
        return ct_fail(CT_VALUE, "dtype must be float32, float16 or bfloat16");
    if (spec->compute_dtype != CT_F32 && spec->compute_dtype != CT_F16 &&
        spec->compute_dtype != CT_BF16)
        return ct_fail(CT_VALUE, "compute_dtype must be float32, float16 or bfloat16");
    if (!(spec->outlier_threshold >= 0))
        return ct_fail(CT_VALUE, "outlier_threshold must be >= 0, was: %g",
                       spec->outlier_threshold);
    return CT_OK;
}

/* A quarter of the buckets is of one distance each, on either side of the query; the logarithm
 * starts there and needs room up to the largest distance. */
static ct_status check_relative_bias(const ct_spec *spec)
{
    if (spec->relative_buckets == 0)
        return CT_OK;
    if (spec->causal)
        return ct_fail(CT_VALUE, "relative_buckets: half of them are for keys after the query, "
                                 "which a causal model does not see");
    if (spec->relative_buckets < 4)
        return ct_fail(CT_VALUE, "relative_buckets must be 0 or at least 4, was: %lld",
                       (long long)spec->relative_buckets);
    if (spec->relative_max_distance <= spec->relative_buckets / 4)
        return ct_fail(CT_VALUE,
                       "relative_max_distance (%lld) must be more than a quarter of "
                       "relative_buckets (%lld)",
                       (long long)spec->relative_max_distance, (long long)spec->relative_buckets);
    return CT_OK;
}

/* What the program has no place for, and would pass over without a word. */
static ct_status check_combinations(const ct_spec *spec)
{
    if (spec->parallel && spec->attention_residual_norm)
        return ct_fail(CT_VALUE,
                       "attention_residual_norm: a parallel layer has no sum after its attention");
    if (spec->qk_norm != CT_QK_NORM_NONE && spec->qkv_order == CT_QKV_GROUPED)
        return ct_fail(CT_VALUE, "qk_norm needs concatenated queries, keys and values");
    if (spec->local_layers && spec->window == 0)
        return ct_fail(CT_VALUE, "local_layers needs a window");
    if (spec->rotary_local && (!spec->local_layers || spec->rotary_width == 0))
        return ct_fail(CT_VALUE, "rotary_local needs local_layers and a rotary width");
    if (spec->bare_first_layer && !spec->attention_input_norm)
        return ct_fail(CT_VALUE, "bare_first_layer: no layer has an attention_input_norm");
    if (spec->causal && spec->position_rule == CT_POSITIONS_SKIP_PADDING)
        return ct_fail(CT_VALUE, "position_rule: a causal model counts its positions by column");
    return CT_OK;
}

ct_status ct_spec_validate(ct_spec *spec)
{
    if (spec->embedding_width == 0)
        spec->embedding_width = spec->hidden_width;
    if (spec->n_layer_groups == 0)
        spec->n_layer_groups = spec->n_layers;
    if (spec->n_kv_heads == 0)
        spec->n_kv_heads = spec->n_heads;
    if (spec->head_width == 0 && spec->n_heads > 0) {
        if (spec->hidden_width % spec->n_heads != 0)
            return ct_fail(CT_VALUE,
                           "hidden width (%lld) must be divisible by the number of query heads "
                           "(%lld)",
                           (long long)spec->hidden_width, (long long)spec->n_heads);
        spec->head_width = spec->hidden_width / spec->n_heads;
    }
    CT_TRY(check_sizes(spec));
    CT_TRY(check_enumerations(spec));
    if (spec->n_heads % spec->n_kv_heads != 0)
        return ct_fail(CT_VALUE,
                       "Number of query heads (%lld) must be a multiple of key/value heads (%lld)",
                       (long long)spec->n_heads, (long long)spec->n_kv_heads);
    if (spec->n_layers % spec->n_layer_groups != 0)
        return ct_fail(
            CT_VALUE, "number of layers (%lld) must be divisable by number of hidden groups (%lld)",
            (long long)spec->n_layers, (long long)spec->n_layer_groups);
    if (spec->rotary_width % 2 != 0)
        return ct_fail(CT_VALUE, "rotary width must be even, was: %lld",
                       (long long)spec->rotary_width);
    if (spec->embedding_width != spec->hidden_width && !spec->embedding_projection)
        return ct_fail(CT_VALUE,
                       "embedding width (%lld) differs from hidden width (%lld), but "
                       "there is no projection",
                       (long long)spec->embedding_width, (long long)spec->hidden_width);
    if (spec->norm_eps < 0 || spec->attention_scale < 0 || spec->clip_qkv < 0 ||
        spec->attention_softcap < 0 || spec->logit_softcap < 0)
        return ct_fail(CT_VALUE, "norm_eps, attention_scale, attention_softcap, clip_qkv and "
                                 "logit_softcap must not be negative");
    CT_TRY(check_relative_bias(spec));
    CT_TRY(check_combinations(spec));
    if (spec->attention_scale == 0)
        spec->attention_scale = 1 / sqrt((double)spec->head_width);
    return CT_OK;
}
