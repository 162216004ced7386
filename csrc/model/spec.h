/* What can vary between architectures. A model is this struct plus its weights: one program runs
 * all of them, and no architecture has C code of its own.
 *
 * Fields are listed once, as name, default and meaning; Python sets them by name. Booleans are 0 or
 * 1, enumerations are the integers of their C enumerators. A norm, bias or table that a flag leaves
 * off is the identity. */
#ifndef CT_MODEL_SPEC_H
#define CT_MODEL_SPEC_H

#include <stdint.h>

#include "core/status.h"
#include "ops/ops.h"
#include "tensor/dtype.h"

/* How a fused projection's rows are ordered. */
typedef enum ct_qkv_order {
    CT_QKV_CONCATENATED, /* all queries, all keys, all values; also three separate matrices */
    CT_QKV_GROUPED       /* per KV head: its query heads, its key, its value; one matrix */
} ct_qkv_order;

typedef enum ct_qk_norm {
    CT_QK_NORM_NONE,
    CT_QK_NORM_HEAD, /* one norm of head_width, shared by the heads */
    CT_QK_NORM_ALL   /* one norm over all heads together */
} ct_qk_norm;

typedef enum ct_position_rule {
    CT_POSITIONS_COLUMN,      /* 0, 1, 2 ... from the first column, padding included */
    CT_POSITIONS_SKIP_PADDING /* counts pieces that are not padding_id, from padding_id + 1
                                 (RoBERTa) */
} ct_position_rule;

#define CT_SPEC_INTS(X)                                                                            \
    X(hidden_width, 0)                                                                             \
    X(embedding_width, 0) /* 0: hidden_width */                                                    \
    X(n_layers, 0)        /* outputs of the model, applications of a layer group */                \
    X(n_layer_groups, 0)  /* sets of weights, each used n_layers / n_layer_groups times in a row;  \
                             0: n_layers */                                                        \
    X(layers_per_group, 1)                                                                         \
    X(n_pieces, 0)                                                                                 \
    X(n_positions, 0)   /* rows of the position table; 0: no table */                              \
    X(n_types, 0)       /* rows of the type table; 0: no table */                                  \
    X(max_positions, 0) /* the longest sequence that the model takes; 0: no limit */               \
    X(position_rule, CT_POSITIONS_COLUMN)                                                          \
    X(padding_id, 0)                                                                               \
    X(embedding_norm, 0)                                                                           \
    X(embedding_projection, 0) /* embedding_width -> hidden_width, with bias */                    \
    X(norm_kind, CT_NORM_LAYER)                                                                    \
    X(norm_bias, 1)                                                                                \
    X(attention_input_norm, 0)    /* x' = x + f(norm(x)): pre-norm */                              \
    X(bare_first_layer, 0)        /* layer 0 has no attention_input_norm (ModernBERT) */           \
    X(attention_output_norm, 0)   /* x' = x + norm(f(x)) */                                        \
    X(attention_residual_norm, 0) /* x' = norm(x + f(x)): post-norm */                             \
    X(ffn_input_norm, 0)                                                                           \
    X(ffn_output_norm, 0)                                                                          \
    X(ffn_residual_norm, 0)                                                                        \
    X(output_norm, 0) /* after the last layer */                                                   \
    X(parallel, 0)    /* attention and feed-forward both read the layer's input; the feed-forward  \
                         has its own input norm, or shares the attention's when it has none */     \
    X(n_heads, 0)                                                                                  \
    X(n_kv_heads, 0) /* 0: n_heads */                                                              \
    X(head_width, 0) /* 0: hidden_width / n_heads */                                               \
    X(qkv_order, CT_QKV_CONCATENATED)                                                              \
    X(qkv_bias, 0)                                                                                 \
    X(attention_output_bias, 0)                                                                    \
    X(qk_norm, CT_QK_NORM_NONE)                                                                    \
    X(causal, 0)                                                                                   \
    X(window, 0)       /* local attention: keys less than this far away, behind and, unless        \
                          causal, ahead (so that |i - j| <= w is w + 1); 0: all */                 \
    X(local_layers, 0) /* only the layers that `attention.local` names use the window */           \
    X(rotary_width, 0) /* features of each head that rotate; 0: none */                            \
    X(rotary_interleaved, 0)                                                                       \
    X(rotary_local, 0) /* local layers rotate by `rotary.local_frequencies`, factor 1 */           \
    X(alibi, 0)                                                                                    \
    X(alibi_scaled, 0)     /* the bias is scaled together with the scores (Falcon) */              \
    X(relative_buckets, 0) /* of distances, each with a bias for each head (T5, MPNet); 0: none */ \
    X(relative_max_distance, 128) /* from which on all distances share the last bucket */          \
    X(intermediate_width, 0)                                                                       \
    X(activation, CT_ACT_GELU)                                                                     \
    X(gated, 0)                                                                                    \
    X(ffn_bias, 0)                                                                                 \
    X(head, 0) /* logits */                                                                        \
    X(head_bias, 0)                                                                                \
    X(dtype, CT_F32)          /* of hidden states, logits and cache as users see them */           \
    X(compute_dtype, CT_BF16) /* of the values that 4-bit codes stand for */                       \
    X(int8_activations, 0)    /* 4-bit weights meet few rows of activations as bytes */

#define CT_SPEC_FLOATS(X)                                                                          \
    X(norm_eps, 1e-5)                                                                              \
    X(embedding_scale, 1.0)                                                                        \
    X(attention_scale, 0.0) /* 0: 1 / sqrt(head_width) */                                          \
    X(attention_softcap, 0.0)                                                                      \
    X(clip_qkv, 0.0)                                                                               \
    X(rotary_factor, 1.0) /* cos and sin are multiplied by it (YaRN's attention factor) */         \
    X(alibi_max_bias, 8.0)                                                                         \
    X(logit_scale, 1.0)                                                                            \
    X(logit_softcap, 0.0)                                                                          \
    X(outlier_threshold, 6.0) /* of LLM.int8; 0: no outliers */

#define CT_SPEC_INT(name, value) int64_t name;
#define CT_SPEC_FLOAT(name, value) double name;
typedef struct ct_spec {
    CT_SPEC_INTS(CT_SPEC_INT)
    CT_SPEC_FLOATS(CT_SPEC_FLOAT)
} ct_spec;
#undef CT_SPEC_INT
#undef CT_SPEC_FLOAT

/* Every field at its default. */
void ct_spec_init(ct_spec *spec);

/* Sets a field by name. CT_VALUE when there is no such field or a fraction is given to an int. */
CT_MUST_CHECK ct_status ct_spec_set(ct_spec *spec, const char *name, double value);

/* Fills in what "0:" defaults stand for and checks that the fields go together (heads divide the
 * width, rotary width even and at most the head's, known enumerators, sizes positive and their
 * products small enough). CT_VALUE names the field. */
CT_MUST_CHECK ct_status ct_spec_validate(ct_spec *spec);

#endif
