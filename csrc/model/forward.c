/* The whole program: embed -> layers -> norm -> head, over the rows of a packed batch.
 *
 * Each layer writes its result where it stays: when hidden states are kept, straight into the
 * tensor that the caller gets. */
#include <string.h>

#include "model/layer.h"
#include "ops/memory.h"

typedef struct outputs {
    ct_tensor *hidden; /* owned until handed out; NULL when nothing is kept */
    ct_rows states[2]; /* ping and pong where it is not kept, or only the last */
} outputs;

static ct_status run(ct_call *call, ct_tensor **hidden, ct_tensor **logits);
static ct_status embed(ct_call *call, ct_rows out);
static ct_status compute_logits(ct_call *call, ct_rows last, bool normed, ct_tensor **logits);

static ct_rows matrix(void *data, int64_t n_rows, int64_t width)
{
    return (ct_rows){data, CT_F32, n_rows, width, width};
}

static ct_status reserve(const ct_forward_args *args)
{
    const ct_batch *batch = args->batch;
    for (int64_t i = 0; args->sequences && i < batch->n_sequences; i++)
        CT_TRY(
            ct_kv_sequence_reserve(args->sequences[i], batch->offsets[i + 1] - batch->offsets[i]));
    return CT_OK;
}

/* The call on its device, which other callers may be using. */
static ct_status run_on_device(ct_call *call, ct_tensor **hidden, ct_tensor **logits)
{
    ct_model *model = call->model;
    CT_TRY(ct_call_set_rotary(call));
    if (call->args->batch->mask)
        CT_TRY(ct_tensor_to_device(&call->mask, call->args->batch->mask, model->device));
    CT_TRY(model->ops->enter(model->device.index));
    ct_status status = run(call, hidden, logits);
    model->ops->leave(model->device.index);
    return status;
}

ct_status ct_model_forward(ct_model *model, const ct_forward_args *args, ct_tensor **hidden,
                           ct_tensor **logits)
{
    *hidden = *logits = NULL;
    if (!model->ready)
        return ct_fail(CT_VALUE, "the model has no weights yet");
    if (args->sequences && !model->weights.spec.causal)
        return ct_fail(CT_VALUE, "an encoder has no cache");
    if (args->logits != CT_LOGITS_NONE && !model->head)
        return ct_fail(CT_VALUE, "this model has no output head");
    ct_workspace *space;
    CT_TRY(ct_workspace_take(model, &space));
    ct_call call = {
        .model = model,
        .args = args,
        .activations = &space->activations,
        .scratch = &space->scratch,
        .host = &space->host,
        .n_tokens = args->batch->n_tokens,
    };
    ct_status status = run_on_device(&call, hidden, logits);
    ct_tensor_unref(&call.mask);
    ct_workspace_give(model, space);
    if (status != CT_OK) {
        ct_tensor_unref(hidden);
        ct_tensor_unref(logits);
        return status;
    }
    bool advances = args->sequences && !args->unknown_ids;
    for (int64_t i = 0; advances && i < args->batch->n_sequences; i++)
        ct_kv_sequence_advance(args->sequences[i],
                               args->batch->offsets[i + 1] - args->batch->offsets[i]);
    return CT_OK;
}

/* Where output number `index` of n goes. */
static ct_rows output_rows(const ct_call *call, const outputs *out, int64_t index, int64_t n)
{
    int64_t width = call->model->weights.spec.hidden_width;
    if (call->args->keep == CT_KEEP_ALL)
        return matrix((float *)ct_tensor_data(out->hidden) + index * call->n_tokens * width,
                      call->n_tokens, width);
    if (out->hidden && index == n - 1)
        return matrix(ct_tensor_data(out->hidden), call->n_tokens, width);
    return out->states[index % 2];
}

static ct_status make_outputs(const ct_call *call, outputs *out, int64_t n)
{
    int64_t width = call->model->weights.spec.hidden_width;
    bool all = call->args->keep == CT_KEEP_ALL;
    if (call->args->keep != CT_KEEP_NONE)
        CT_TRY(ct_device_tensor(&out->hidden, call->model->device, CT_F32, 3,
                                (int64_t[]){all ? n : 1, call->n_tokens, width}));
    for (int i = 0; i < 2 && !all; i++) {
        void *data;
        CT_TRY(ct_arena_alloc(call->activations, &data,
                              sizeof(float) * (size_t)(call->n_tokens * width)));
        out->states[i] = matrix(data, call->n_tokens, width);
    }
    return CT_OK;
}

/* Output i + 1 from output i: one application of its group's layers. */
static ct_status apply_group(ct_call *call, int64_t index, ct_rows x, ct_rows y)
{
    const ct_model *model = call->model;
    const ct_spec *spec = &model->weights.spec;
    int64_t n = spec->layers_per_group;
    int64_t group = index / (spec->n_layers / spec->n_layer_groups);
    ct_rows between[2];
    for (int i = 0; i < 2 && n > 1; i++) {
        between[i] = y;
        CT_TRY(ct_arena_alloc(call->activations, &between[i].data,
                              sizeof(float) * (size_t)(y.n_rows * y.width)));
    }
    for (int64_t j = 0; j < n; j++) {
        ct_rows from = j == 0 ? x : between[(j - 1) % 2], to = j == n - 1 ? y : between[j % 2];
        CT_TRY(ct_layer_run(call, &model->layers[group * n + j], index * n + j, from, to));
        if (call->args->poll.check)
            CT_TRY(call->args->poll.check(call->args->poll.context));
    }
    return CT_OK;
}

static ct_status norm_output(const ct_call *call, ct_rows x)
{
    const ct_model *model = call->model;
    const ct_spec *spec = &model->weights.spec;
    if (!spec->output_norm)
        return CT_OK;
    return model->ops->norm(
        (ct_norm_kind)spec->norm_kind, x, x, ct_model_vector(model, CT_ROLE_OUTPUT_NORM_WEIGHT, 0),
        ct_model_vector(model, CT_ROLE_OUTPUT_NORM_BIAS, 0), (float)spec->norm_eps, 1);
}

/* The call's operations, all of them. */
static ct_status compute(ct_call *call, const outputs *out, ct_tensor **logits)
{
    int64_t n_layers = call->model->weights.spec.n_layers, n = n_layers + 1;
    ct_rows last = output_rows(call, out, n_layers, n);
    /* Where only a few rows' logits are wanted and nothing is kept, only those rows are normed. */
    bool few = call->args->keep == CT_KEEP_NONE && call->args->logits != CT_LOGITS_ALL;
    if (call->n_tokens > 0) {
        CT_TRY(embed(call, output_rows(call, out, 0, n)));
        for (int64_t i = 0; i < n_layers; i++)
            CT_TRY(apply_group(call, i, output_rows(call, out, i, n),
                               output_rows(call, out, i + 1, n)));
        if (!few)
            CT_TRY(norm_output(call, last));
    }
    if (call->args->logits == CT_LOGITS_NONE)
        return CT_OK;
    return compute_logits(call, last, !few || call->n_tokens == 0, logits);
}

/* All that decides what a step's operations are and where they work; no bytes between. */
typedef struct step_key {
    int64_t model, n_tokens, n_sequences, n_ending, max_rows, max_places;
    ct_arena_place activations, scratch; /* once the batch is staged */
    const void *ids, *positions, *types, *offsets, *ending, *pages, *lengths, *logits;
    const float *cos, *sin, *local_cos, *local_sin;
} step_key;

typedef struct step {
    ct_call *call;
    const outputs *out;
} step;

static ct_status run_step(void *context)
{
    step *step = context;
    ct_tensor *logits = NULL; /* they go to logits_out */
    return compute(step->call, step->out, &logits);
}

static ct_status compute_step(ct_call *call, const outputs *out)
{
    const ct_rotary *rotary = &call->rotary, *local = &call->local_rotary;
    const step_key key = {
        .model = call->model->number,
        .n_tokens = call->n_tokens,
        .n_sequences = call->args->batch->n_sequences,
        .n_ending = call->n_ending,
        .max_rows = call->max_rows,
        .max_places = call->max_places,
        .activations = ct_arena_next(call->activations),
        .scratch = ct_arena_next(call->scratch),
        .ids = call->ids,
        .positions = call->positions,
        .types = call->types,
        .offsets = call->offsets,
        .ending = call->ending,
        .pages = call->view.pages,
        .lengths = call->view.lengths,
        .logits = call->args->logits_out,
        .cos = rotary->cos,
        .sin = rotary->sin,
        .local_cos = local->cos,
        .local_sin = local->sin,
    };
    step step = {call, out};
    if (call->args->poll.check) /* between layers nobody asks */
        CT_TRY(call->args->poll.check(call->args->poll.context));
    if (!ct_arena_is_whole(call->activations)) /* it will be, next time */
        return run_step(&step);
    return call->model->ops->repeat(&(ct_program){&key, sizeof key, run_step, &step});
}

static ct_status run(ct_call *call, ct_tensor **hidden, ct_tensor **logits)
{
    outputs out = {0};
    ct_status status = CT_OK;
    CT_TRY(reserve(call->args));
    CT_TRY(ct_call_stage(call));
    CT_TRY(ct_call_allocate(call));
    CT_TRY_TO(done, make_outputs(call, &out, call->model->weights.spec.n_layers + 1));
    CT_TRY_TO(done, ct_call_is_step(call) ? compute_step(call, &out) : compute(call, &out, logits));
    *hidden = out.hidden;
    out.hidden = NULL;
done:
    ct_tensor_unref(&out.hidden);
    return status;
}

static ct_status embed(ct_call *call, ct_rows out)
{
    const ct_model *model = call->model;
    const ct_spec *spec = &model->weights.spec;
    const ct_weights *weights = &model->weights;
    ct_rows embedded = out;
    if (spec->embedding_projection) {
        void *data;
        CT_TRY(ct_arena_alloc(call->activations, &data,
                              sizeof(float) * (size_t)(call->n_tokens * spec->embedding_width)));
        embedded = matrix(data, call->n_tokens, spec->embedding_width);
    }
    CT_TRY(model->ops->embed(embedded, ct_weights_get(weights, CT_ROLE_PIECE_EMBEDDINGS, 0),
                             call->ids, (float)spec->embedding_scale, false));
    if (spec->n_types > 0)
        CT_TRY(model->ops->embed(embedded, ct_weights_get(weights, CT_ROLE_TYPE_EMBEDDINGS, 0),
                                 call->types, 1, true));
    if (spec->n_positions > 0)
        CT_TRY(model->ops->embed(embedded, ct_weights_get(weights, CT_ROLE_POSITION_EMBEDDINGS, 0),
                                 call->positions, 1, true));
    if (spec->embedding_norm)
        CT_TRY(model->ops->norm((ct_norm_kind)spec->norm_kind, embedded, embedded,
                                ct_model_vector(model, CT_ROLE_EMBEDDING_NORM_WEIGHT, 0),
                                ct_model_vector(model, CT_ROLE_EMBEDDING_NORM_BIAS, 0),
                                (float)spec->norm_eps, 1));
    if (spec->embedding_projection)
        CT_TRY(ct_call_linear(call, model->projection, embedded, &(ct_epilogue){0}, out));
    return CT_OK;
}

/* The rows whose logits are wanted, where those are not all. */
static ct_status gather_ends(ct_call *call, ct_rows *rows)
{
    ct_rows gathered = *rows;
    gathered.n_rows = call->n_ending;
    CT_TRY(ct_arena_alloc(call->activations, &gathered.data,
                          sizeof(float) * (size_t)(gathered.n_rows * rows->width)));
    CT_TRY(call->model->ops->gather(gathered, *rows, call->ending));
    *rows = gathered;
    return CT_OK;
}

static ct_status compute_logits(ct_call *call, ct_rows last, bool normed, ct_tensor **logits)
{
    const ct_model *model = call->model;
    const ct_spec *spec = &model->weights.spec;
    if (call->args->logits != CT_LOGITS_ALL)
        CT_TRY(gather_ends(call, &last));
    if (!normed)
        CT_TRY(norm_output(call, last));
    float *data = call->args->logits_out;
    if (!data) {
        CT_TRY(ct_device_tensor(logits, model->device, CT_F32, 2,
                                (int64_t[]){last.n_rows, spec->n_pieces}));
        data = ct_tensor_data(*logits);
    }
    if (last.n_rows == 0)
        return CT_OK;
    ct_rows out = matrix(data, last.n_rows, spec->n_pieces);
    CT_TRY(ct_call_linear(call, model->head, last, &(ct_epilogue){0}, out));
    if (spec->logit_scale != 1 || spec->logit_softcap > 0)
        CT_TRY(model->ops->scale(out, (float)spec->logit_scale, (float)spec->logit_softcap));
    return CT_OK;
}
