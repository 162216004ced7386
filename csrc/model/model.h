/* A model: spec, prepared weights, rotary tables, page pool. Safe for several threads at once: a
 * call changes nothing of it but caches that lock themselves. */
#ifndef CT_MODEL_MODEL_H
#define CT_MODEL_MODEL_H

#include "core/arena.h"
#include "core/poll.h"
#include "core/refcount.h"
#include "core/status.h"
#include "model/batch.h"
#include "model/kv_cache.h"
#include "model/positions.h"
#include "model/spec.h"
#include "model/weights.h"
#include "ops/ops.h"

/* What a layer computes with; NULL where the spec has none. Vectors are f32. */
typedef struct ct_norm_weights {
    const float *weight, *bias; /* weight NULL: no norm here */
} ct_norm_weights;

typedef struct ct_layer {
    ct_norm_weights attention_output, attention_residual, ffn_output, ffn_residual;
    ct_norm_weights query_norm, key_norm;
    ct_linear *qkv, *attention_output_linear; /* qkv and up with the norms of their inputs */
    ct_linear *up, *down;                     /* up: with the gate, where there is one */
} ct_layer;

/* The memory of one call: what lives through it, and what an operation needs while it runs. */
typedef struct ct_workspace {
    struct ct_workspace *next;
    ct_arena activations, scratch; /* of the device's memory */
    ct_arena host;                 /* what is prepared for it */
} ct_workspace;

typedef struct ct_model {
    ct_refcount refs;
    int64_t number; /* no other model of this process has or had it */
    const ct_ops *ops;
    ct_device_id device;
    ct_weights weights; /* until ready: all; afterwards only what is read as it lies */
    bool begun, ready;  /* finish took weights apart; and succeeded */
    ct_head_layout heads;
    int64_t qkv_width;
    ct_layer *layers; /* [weights.n_layers] */
    ct_linear *projection, *head;
    ct_rotary_table *rotary, *local_rotary; /* local: NULL without rotary_local */
    ct_tensor *alibi_slopes;                /* f32 [n_heads] or NULL */
    ct_tensor *distance_bias; /* f32 [n_heads, 2 * relative_max_distance + 1] or NULL */
    ct_kv_pool *pool;
    pthread_mutex_t workspace_lock;
    ct_workspace *workspaces; /* idle ones; a call takes one, or makes one */
} ct_model;

/* `spec` is validated here. */
CT_MUST_CHECK ct_status ct_model_new(ct_model **out, ct_spec *spec, ct_device_id device);
ct_model *ct_model_ref(ct_model *model);
void ct_model_unref(ct_model **model);

/* All weights were set (ct_weights_set on model->weights): checks that none is missing and prepares
 * them for the device. Only then may the model run. Where weights are missing it may be called
 * again; after any other failure the model can only be freed. */
CT_MUST_CHECK ct_status ct_model_finish(ct_model *model);

/* An idle workspace or a new one, and back with it. */
CT_MUST_CHECK ct_status ct_workspace_take(ct_model *model, ct_workspace **out);
void ct_workspace_give(ct_model *model, ct_workspace *space);

/* The f32 values of a vector's role, NULL when the model has none; in memory of the device but for
 * those of which ct_weights_move says otherwise. */
const float *ct_model_vector(const ct_model *model, ct_role role, int64_t layer);

typedef enum ct_keep { CT_KEEP_NONE, CT_KEEP_LAST, CT_KEEP_ALL } ct_keep;
typedef enum ct_logits_rows {
    CT_LOGITS_NONE,
    CT_LOGITS_LAST,
    CT_LOGITS_ENDING,
    CT_LOGITS_ALL
} ct_logits_rows;

typedef struct ct_forward_args {
    const ct_batch *batch;
    /* [n_tokens] of the device's memory, in the place of batch->ids: pieces that the host does not
     * know yet, so that sequences do not advance. NULL: those of the batch. */
    const int32_t *unknown_ids;
    ct_kv_sequence *const *sequences; /* [batch->n_sequences], appended to; NULL: no cache */
    ct_keep keep;                     /* which hidden states come back */
    ct_logits_rows logits; /* of which rows: none, each sequence's last, those of `ending`, all */
    const int64_t *ending; /* [n_ending] rows of the batch, rising */
    int64_t n_ending;
    float *logits_out; /* [rows, n_pieces] where logits go; NULL: to a new tensor */
    ct_poll poll;      /* asked between layers */
} ct_forward_args;

/* *hidden: f32 [1 + n_layers, n_tokens, hidden_width] (keep all: the embeddings' output, then each
 * layer's, the last one after the output norm) or [1, ...] (keep last); NULL when nothing is kept.
 * *logits: f32 [rows, n_pieces] or NULL. A sequence with no tokens in this batch and CT_LOGITS_LAST
 * is CT_VALUE. Sequences advance only when the call succeeds and ids are known. */
CT_MUST_CHECK ct_status ct_model_forward(ct_model *model, const ct_forward_args *args,
                                         ct_tensor **hidden, ct_tensor **logits);

#endif
