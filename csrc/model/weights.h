/* Roles -> tensors. The C side knows what a weight is for; Python knows what a checkpoint calls it.
 */
#ifndef CT_MODEL_WEIGHTS_H
#define CT_MODEL_WEIGHTS_H

#include "core/status.h"
#include "model/spec.h"
#include "tensor/tensor.h"

/* X(role, name). First those of the whole model, then those of each layer. */
#define CT_MODEL_ROLES(X)                                                                          \
    X(PIECE_EMBEDDINGS, "piece_embeddings.weight")                                                 \
    X(POSITION_EMBEDDINGS, "position_embeddings.weight")                                           \
    X(TYPE_EMBEDDINGS, "type_embeddings.weight")                                                   \
    X(EMBEDDING_NORM_WEIGHT, "embedding_norm.weight")                                              \
    X(EMBEDDING_NORM_BIAS, "embedding_norm.bias")                                                  \
    X(PROJECTION_WEIGHT, "embedding_projection.weight")                                            \
    X(PROJECTION_BIAS, "embedding_projection.bias")                                                \
    X(ROTARY_FREQUENCIES, "rotary.frequencies") /* [rotary_width / 2] radians per position */      \
    X(ROTARY_LOCAL_FREQUENCIES, "rotary.local_frequencies") /* likewise, of local layers */        \
    X(ATTENTION_LOCAL, "attention.local") /* [n_layers * layers_per_group] 1: the layer uses the   \
                                             window, 0: it sees all */                             \
    X(RELATIVE_BIAS, "relative_attention_bias.weight") /* [relative_buckets, n_heads] */           \
    X(OUTPUT_NORM_WEIGHT, "output_norm.weight")                                                    \
    X(OUTPUT_NORM_BIAS, "output_norm.bias")                                                        \
    X(HEAD_WEIGHT, "head.weight") /* left out: tied to the piece embeddings */                     \
    X(HEAD_BIAS, "head.bias")

#define CT_LAYER_ROLES(X)                                                                          \
    X(ATTENTION_INPUT_NORM_WEIGHT, "attention_input_norm.weight")                                  \
    X(ATTENTION_INPUT_NORM_BIAS, "attention_input_norm.bias")                                      \
    X(ATTENTION_OUTPUT_NORM_WEIGHT, "attention_output_norm.weight")                                \
    X(ATTENTION_OUTPUT_NORM_BIAS, "attention_output_norm.bias")                                    \
    X(ATTENTION_RESIDUAL_NORM_WEIGHT, "attention_residual_norm.weight")                            \
    X(ATTENTION_RESIDUAL_NORM_BIAS, "attention_residual_norm.bias")                                \
    X(FFN_INPUT_NORM_WEIGHT, "ffn_input_norm.weight")                                              \
    X(FFN_INPUT_NORM_BIAS, "ffn_input_norm.bias")                                                  \
    X(FFN_OUTPUT_NORM_WEIGHT, "ffn_output_norm.weight")                                            \
    X(FFN_OUTPUT_NORM_BIAS, "ffn_output_norm.bias")                                                \
    X(FFN_RESIDUAL_NORM_WEIGHT, "ffn_residual_norm.weight")                                        \
    X(FFN_RESIDUAL_NORM_BIAS, "ffn_residual_norm.bias")                                            \
    X(QKV_WEIGHT, "qkv.weight") /* either this, or query, key and value; this when grouped */      \
    X(QKV_BIAS, "qkv.bias")                                                                        \
    X(QUERY_WEIGHT, "query.weight")                                                                \
    X(QUERY_BIAS, "query.bias")                                                                    \
    X(KEY_WEIGHT, "key.weight")                                                                    \
    X(KEY_BIAS, "key.bias")                                                                        \
    X(VALUE_WEIGHT, "value.weight")                                                                \
    X(VALUE_BIAS, "value.bias")                                                                    \
    X(QUERY_NORM_WEIGHT, "query_norm.weight")                                                      \
    X(QUERY_NORM_BIAS, "query_norm.bias")                                                          \
    X(KEY_NORM_WEIGHT, "key_norm.weight")                                                          \
    X(KEY_NORM_BIAS, "key_norm.bias")                                                              \
    X(ATTENTION_OUTPUT_WEIGHT, "attention_output.weight")                                          \
    X(ATTENTION_OUTPUT_BIAS, "attention_output.bias")                                              \
    X(GATE_WEIGHT, "ffn_gate.weight")                                                              \
    X(GATE_BIAS, "ffn_gate.bias")                                                                  \
    X(UP_WEIGHT, "ffn_up.weight")                                                                  \
    X(UP_BIAS, "ffn_up.bias")                                                                      \
    X(DOWN_WEIGHT, "ffn_down.weight")                                                              \
    X(DOWN_BIAS, "ffn_down.bias")

#define CT_ROLE_ENUM(role, name) CT_ROLE_##role,
typedef enum ct_role {
    CT_MODEL_ROLES(CT_ROLE_ENUM) CT_MODEL_ROLE_COUNT,
    CT_BEFORE_LAYER_ROLES = CT_MODEL_ROLE_COUNT - 1, /* the next is CT_MODEL_ROLE_COUNT */
    CT_LAYER_ROLES(CT_ROLE_ENUM) CT_ROLE_COUNT
} ct_role;
#undef CT_ROLE_ENUM

typedef struct ct_weights {
    ct_spec spec;
    int64_t n_layers;    /* layers with own weights: n_layer_groups * layers_per_group */
    ct_tensor **tensors; /* CT_MODEL_ROLE_COUNT, then CT_ROLE_COUNT - CT_MODEL_ROLE_COUNT a layer */
} ct_weights;

CT_MUST_CHECK ct_status ct_weights_init(ct_weights *weights, const ct_spec *spec);
void ct_weights_clear(ct_weights *weights);

/* Sets one weight (a reference is taken). `layer` is -1 for a role of the whole model. Checks the
 * role, the shape that the spec gives it, and the dtype; `source` (the checkpoint's name for it)
 * stands in the message. Vectors and biases are converted to f32 here. */
CT_MUST_CHECK ct_status ct_weights_set(ct_weights *weights, const char *role, int64_t layer,
                                       ct_tensor *tensor, const char *source);

/* CT_VALUE "Some parameters were not updated/replaced: ..." with the roles that the spec asks for
 * and nobody set. */
CT_MUST_CHECK ct_status ct_weights_check(const ct_weights *weights);

/* Finds the first missing weight at or behind (*layer, *role), where layer -1 holds the roles of
 * the whole model; begin with role 0 of it. False: no more. */
bool ct_weights_next_missing(const ct_weights *weights, ct_role *role, int64_t *layer);

/* Takes tables and vectors into memory of `device`: all but the matrices that are multiplied, which
 * the device's linears take, and what the host reads itself: rotary frequencies, flags of layers
 * and the relative bias. */
CT_MUST_CHECK ct_status ct_weights_move(ct_weights *weights, ct_device_id device);

/* NULL when it was not set. `layer` is ignored for a role of the whole model. */
ct_tensor *ct_weights_get(const ct_weights *weights, ct_role role, int64_t layer);

/* Gives up the reference to a weight that lives on in another form. */
void ct_weights_drop(ct_weights *weights, ct_role role, int64_t layer);

const char *ct_role_name(ct_role role);

#endif
