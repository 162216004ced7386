/* What the operations of a call read: tables of positions, and of the batch what the host prepares,
 * where the device reads it. */
#include "model/layer.h"
#include "ops/memory.h"

/* Steps are alike while the longest sequence stays below the next multiple of this. */
#define STEP_PLACES 256

ct_status ct_call_set_rotary(ct_call *call)
{
    const ct_spec *spec = &call->model->weights.spec;
    const ct_batch *batch = call->args->batch;
    int64_t most = 0;
    if (!call->model->rotary)
        return CT_OK;
    for (int64_t i = 0; i < batch->n_tokens; i++)
        most = batch->positions[i] > most ? batch->positions[i] : most;
    call->rotary = (ct_rotary){
        .width = spec->rotary_width,
        .interleaved = spec->rotary_interleaved != 0,
    };
    CT_TRY(
        ct_rotary_table_get(call->model->rotary, most + 1, &call->rotary.cos, &call->rotary.sin));
    call->local_rotary = call->rotary;
    if (!call->model->local_rotary)
        return CT_OK;
    return ct_rotary_table_get(call->model->local_rotary, most + 1, &call->local_rotary.cos,
                               &call->local_rotary.sin);
}

/* The last row of each sequence. */
static ct_status last_rows(ct_call *call, const int64_t **out)
{
    const ct_batch *batch = call->args->batch;
    int64_t *map;
    CT_TRY(ct_arena_alloc(call->host, (void **)&map, sizeof *map * (size_t)batch->n_sequences));
    for (int64_t i = 0; i < batch->n_sequences; i++) {
        if (batch->offsets[i + 1] == batch->offsets[i])
            return ct_fail(CT_VALUE, "sequence %lld has no pieces to go on from", (long long)i);
        map[i] = batch->offsets[i + 1] - 1;
    }
    *out = map;
    return CT_OK;
}

static ct_status find_ends(ct_call *call, const int64_t **out)
{
    *out = NULL;
    if (call->args->logits == CT_LOGITS_LAST) {
        call->n_ending = call->args->batch->n_sequences;
        return last_rows(call, out);
    }
    if (call->args->logits == CT_LOGITS_ENDING) {
        call->n_ending = call->args->n_ending;
        *out = call->args->ending;
    }
    return CT_OK;
}

bool ct_call_is_step(const ct_call *call)
{
    const ct_forward_args *args = call->args;
    return call->model->ops->repeat && args->sequences && args->keep == CT_KEEP_NONE &&
           args->logits == CT_LOGITS_ENDING && args->logits_out && !call->mask &&
           call->n_tokens > 0 && call->n_tokens <= args->batch->n_sequences;
}

static void set_lengths(ct_call *call)
{
    const ct_batch *batch = call->args->batch;
    ct_kv_sequence *const *sequences = call->args->sequences;
    for (int64_t i = 0; i < batch->n_sequences; i++) {
        int64_t rows = batch->offsets[i + 1] - batch->offsets[i];
        int64_t places = rows + (sequences ? sequences[i]->length : 0);
        call->max_rows = rows > call->max_rows ? rows : call->max_rows;
        call->max_places = places > call->max_places ? places : call->max_places;
    }
    if (ct_call_is_step(call))
        call->max_places = (call->max_places + STEP_PLACES - 1) / STEP_PLACES * STEP_PLACES;
}

ct_status ct_call_stage(ct_call *call)
{
    const ct_batch *batch = call->args->batch;
    const int32_t *unknown = call->args->unknown_ids;
    const int64_t *ending;
    CT_TRY(find_ends(call, &ending));
    size_t numbers = sizeof(int32_t) * (size_t)batch->n_tokens;
    const ct_staged arrays[] = {
        {(const void **)&call->ids, unknown ? NULL : batch->ids, numbers},
        {(const void **)&call->positions, batch->positions, numbers},
        {(const void **)&call->types, batch->types, numbers},
        {(const void **)&call->offsets, batch->offsets,
         sizeof(int64_t) * (size_t)(batch->n_sequences + 1)},
        {(const void **)&call->ending, ending, sizeof *ending * (size_t)call->n_ending},
    };
    CT_TRY(ct_stage(arrays, sizeof arrays / sizeof *arrays, call->model->ops, call->host,
                    call->activations));
    if (unknown)
        call->ids = unknown;
    call->rotary.positions = call->local_rotary.positions = call->positions;
    set_lengths(call);
    return call->args->sequences && batch->n_sequences > 0
               ? ct_kv_view_make(&call->view, call->args->sequences, batch->n_sequences,
                                 call->max_places, call->host, call->activations)
               : CT_OK;
}
