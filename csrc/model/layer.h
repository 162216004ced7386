/* One layer of the program, and the call that it runs in. */
#ifndef CT_MODEL_LAYER_H
#define CT_MODEL_LAYER_H

#include "model/model.h"

/* What stays the same through the layers of one call. */
typedef struct ct_call {
    ct_model *model;
    const ct_forward_args *args;
    ct_arena *activations, *scratch, *host;
    int64_t n_tokens;
    /* The batch's arrays, as the device's operations read them. */
    const int32_t *ids, *positions, *types;
    const int64_t *offsets;
    const int64_t *ending; /* rows whose logits are wanted, where those are not all */
    int64_t n_ending;
    ct_tensor *mask;                /* owned, or NULL */
    ct_kv_view view;                /* of the sequences, if there are such */
    int64_t max_places;             /* of any sequence, after this call; or more */
    int64_t max_rows;               /* of any sequence, in it */
    ct_rotary rotary, local_rotary; /* of layers that see all, and of local ones */
    /* Buffers of n_tokens rows, from the activations. */
    float *qkv;
    void *attended, *inner; /* f32 or of 16 bits, as the next linear likes */
    float *middle, *branch;
} ct_call;

/* call.c: sets the rotary tables, which may grow. */
CT_MUST_CHECK ct_status ct_call_set_rotary(ct_call *call);
/* Once the device was entered and sequences have their room: sets the batch's arrays, `ending`, the
 * view and the lengths. */
CT_MUST_CHECK ct_status ct_call_stage(ct_call *call);
/* Whether it is a step of generation without prompts: the next one asks for the same operations,
 * with the same memory. */
bool ct_call_is_step(const ct_call *call);

/* layer.c */
CT_MUST_CHECK ct_status ct_call_allocate(ct_call *call);

/* y [n_tokens, hidden] = layer `weights` of x, as application number `index` (which has its own
 * place in the cache). x and y are f32 and do not overlap. */
CT_MUST_CHECK ct_status ct_layer_run(ct_call *call, const ct_layer *weights, int64_t index,
                                     ct_rows x, ct_rows y);

/* A linear with scratch that is given back afterwards. */
CT_MUST_CHECK ct_status ct_call_linear(ct_call *call, const ct_linear *linear, ct_rows x,
                                       const ct_epilogue *epilogue, ct_rows y);

#endif
