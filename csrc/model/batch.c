/* Reads the caller's arrays once, checks every value, and keeps what the program needs of the real
 * tokens. */
#include "model/batch.h"

#include <string.h>

#include "core/memory.h"
#include "ops/device.h"
#include "ops/memory.h"

/* Rotary models take positions beyond those that they were trained with, but a table is made up to
 * the largest: a slip must not cost gigabytes. */
#define POSITION_LIMIT ((int64_t)1 << 20)

typedef struct packer {
    ct_batch *batch;
    const ct_spec *spec;
    const ct_inputs *inputs;
    int64_t n_cached; /* columns */
    bool general;     /* the mask goes to the attention, every token is a row */
    bool holes;       /* it is general because of its holes */
} packer;

static ct_status check_integers(const char *name, const ct_tensor *tensor, int64_t rows,
                                int64_t columns);
static ct_status check_mask(packer *p);
static ct_status set_columns(packer *p);
static ct_status fill_row(packer *p, int64_t row);

static int64_t read_integer(const ct_tensor *tensor, int64_t row, int64_t column)
{
    int64_t index = row * tensor->strides[0] + column * tensor->strides[1];
    const void *data = ct_tensor_data(tensor);
    return tensor->dtype == CT_I32 ? ((const int32_t *)data)[index]
                                   : ((const int64_t *)data)[index];
}

/* A plain mask's value; it may have come with two dimensions of length 1 in the middle. */
static bool mask_at(const ct_tensor *mask, int64_t row, int64_t column)
{
    int last = mask->n_dims - 1;
    int64_t r = mask->shape[0] == 1 ? 0 : row;
    return ((const uint8_t *)ct_tensor_data(
               mask))[r * mask->strides[0] + column * mask->strides[last]] != 0;
}

static bool is_real(const packer *p, int64_t row, int64_t column)
{
    return p->general || !p->inputs->mask || mask_at(p->inputs->mask, row, p->n_cached + column);
}

ct_status ct_batch_pack(ct_batch *out, const ct_spec *spec, const ct_inputs *inputs)
{
    *out = (ct_batch){0};
    ct_status status = CT_OK;
    const ct_tensor *ids = inputs->ids;
    packer p = {.batch = out, .spec = spec, .inputs = inputs};
    if (ids->n_dims != 2 || ids->shape[0] == 0 || ids->shape[1] == 0)
        return ct_fail(CT_VALUE, "piece ids must have the shape [batch, seq], with at least one "
                                 "sequence of at least one piece");
    out->n_sequences = ids->shape[0];
    out->n_columns = ids->shape[1];
    CT_TRY(check_integers("piece ids", ids, out->n_sequences, out->n_columns));
    CT_TRY(check_integers("positions", inputs->positions, out->n_sequences, out->n_columns));
    CT_TRY(check_integers("type ids", inputs->types, out->n_sequences, out->n_columns));
    if (inputs->types && spec->n_types == 0)
        return ct_fail(CT_VALUE, "this model has no type embeddings, but type ids were given");
    if (inputs->cache) {
        p.n_cached = inputs->cache->columns->shape[1];
        if (inputs->cache->n_sequences != out->n_sequences)
            return ct_fail(CT_VALUE, "the cache holds %lld sequences, the piece ids %lld",
                           (long long)inputs->cache->n_sequences, (long long)out->n_sequences);
    }
    CT_TRY_TO(failed, check_mask(&p));
    CT_TRY_TO(failed, set_columns(&p));
    size_t most = (size_t)(out->n_sequences * out->n_columns);
    CT_TRY_TO(failed, ct_alloc_zeroed((void **)&out->offsets, (size_t)out->n_sequences + 1,
                                      sizeof *out->offsets));
    CT_TRY_TO(failed, ct_alloc_zeroed((void **)&out->shown_offsets, (size_t)out->n_sequences + 1,
                                      sizeof *out->shown_offsets));
    CT_TRY_TO(failed, ct_alloc((void **)&out->places, most * sizeof *out->places));
    CT_TRY_TO(failed, ct_alloc((void **)&out->ids, most * sizeof *out->ids));
    CT_TRY_TO(failed, ct_alloc((void **)&out->positions, most * sizeof *out->positions));
    if (spec->n_types > 0)
        CT_TRY_TO(failed, ct_alloc((void **)&out->types, most * sizeof *out->types));
    for (int64_t row = 0; row < out->n_sequences; row++)
        CT_TRY_TO(failed, fill_row(&p, row));
    return CT_OK;
failed:
    ct_batch_clear(out);
    return status;
}

void ct_batch_clear(ct_batch *batch)
{
    ct_free(&batch->offsets);
    ct_free(&batch->shown_offsets);
    ct_free(&batch->places);
    ct_free(&batch->ids);
    ct_free(&batch->positions);
    ct_free(&batch->types);
    ct_tensor_unref(&batch->mask);
    ct_tensor_unref(&batch->columns);
    *batch = (ct_batch){0};
}

/* ---- what comes back ---- */

/* The device of the rows, entered, and what operations there read of the batch. */
typedef struct reader {
    const ct_ops *ops;
    ct_device_id device;
    ct_arena arena, host;
    const int64_t *places, *shown_offsets;
} reader;

static void close_reader(reader *r)
{
    ct_arena_clear(&r->arena);
    ct_arena_clear(&r->host);
    r->ops->leave(r->device.index);
}

static ct_status open_reader(reader *r, const ct_batch *batch, const ct_tensor *rows)
{
    *r = (reader){.device = rows->storage->device};
    CT_TRY(ct_device_ops(r->device, &r->ops));
    CT_TRY(ct_device_memory(r->device, &r->arena.memory));
    CT_TRY(r->ops->enter(r->device.index));
    const ct_staged arrays[] = {
        {(const void **)&r->places, batch->places, sizeof(int64_t) * (size_t)batch->n_shown},
        {(const void **)&r->shown_offsets, batch->shown_offsets,
         sizeof(int64_t) * (size_t)(batch->n_sequences + 1)},
    };
    ct_status status =
        ct_stage(arrays, sizeof arrays / sizeof *arrays, r->ops, &r->host, &r->arena);
    if (status != CT_OK)
        close_reader(r);
    return status;
}

/* Without the rows that are not shown, in a new tensor where there are any. With holes every column
 * is a row, so that places are rows too. */
static ct_status shown_rows(ct_tensor **out, const ct_batch *batch, ct_tensor *rows,
                            const reader *r)
{
    if (batch->n_shown == batch->n_tokens) {
        *out = ct_tensor_ref(rows);
        return CT_OK;
    }
    int64_t width = rows->shape[1];
    CT_TRY(ct_device_tensor(out, r->device, CT_F32, 2, (int64_t[]){batch->n_shown, width}));
    ct_rows to = {ct_tensor_data(*out), CT_F32, batch->n_shown, width, width};
    ct_rows from = {ct_tensor_data(rows), CT_F32, batch->n_tokens, width, width};
    ct_status status = r->ops->gather(to, from, r->places);
    if (status != CT_OK)
        ct_tensor_unref(out);
    return status;
}

ct_status ct_batch_scatter(ct_tensor **out, const ct_batch *batch, ct_tensor *rows, ct_dtype dtype)
{
    *out = NULL;
    ct_status status = CT_OK;
    int64_t width = rows->shape[1], padded = batch->n_sequences * batch->n_columns;
    int64_t shape[3] = {batch->n_sequences, batch->n_columns, width};
    bool dense = batch->n_shown == padded;
    if (dense && dtype == CT_F32)
        return ct_tensor_reshape(out, rows, 3, shape);
    reader r;
    ct_tensor *shown = NULL, *scattered = NULL;
    CT_TRY(open_reader(&r, batch, rows));
    CT_TRY_TO(done, shown_rows(&shown, batch, rows, &r));
    CT_TRY_TO(done, ct_device_tensor(&scattered, r.device, dtype, 3, shape));
    ct_rows to = {ct_tensor_data(scattered), dtype, padded, width, width};
    ct_rows from = {ct_tensor_data(shown), CT_F32, batch->n_shown, width, width};
    CT_TRY_TO(done, r.ops->scatter(to, from, dense ? NULL : r.places));
    *out = ct_tensor_ref(scattered);
done:
    ct_tensor_unref(&scattered);
    ct_tensor_unref(&shown);
    close_reader(&r);
    return status;
}

ct_status ct_batch_pool(ct_tensor **out, const ct_batch *batch, ct_tensor *rows, ct_pool_kind kind)
{
    *out = NULL;
    ct_status status = CT_OK;
    int64_t width = rows->shape[1];
    reader r;
    ct_tensor *shown = NULL, *pooled = NULL;
    CT_TRY(open_reader(&r, batch, rows));
    CT_TRY_TO(done, shown_rows(&shown, batch, rows, &r));
    CT_TRY_TO(done, ct_device_tensor(&pooled, r.device, CT_F32, 2,
                                     (int64_t[]){batch->n_sequences, width}));
    ct_rows to = {ct_tensor_data(pooled), CT_F32, batch->n_sequences, width, width};
    ct_rows from = {ct_tensor_data(shown), CT_F32, batch->n_shown, width, width};
    CT_TRY_TO(done, r.ops->pool(kind, to, from, r.shown_offsets));
    *out = ct_tensor_ref(pooled);
done:
    ct_tensor_unref(&pooled);
    ct_tensor_unref(&shown);
    close_reader(&r);
    return status;
}

static ct_status check_integers(const char *name, const ct_tensor *tensor, int64_t rows,
                                int64_t columns)
{
    if (!tensor)
        return CT_OK;
    if (tensor->dtype != CT_I32 && tensor->dtype != CT_I64)
        return ct_fail(CT_TYPE, "%s must be int32 or int64, not %s", name,
                       ct_dtype_name(tensor->dtype));
    if (tensor->n_dims != 2 || tensor->shape[0] != rows || tensor->shape[1] != columns)
        return ct_fail(CT_VALUE, "%s must have the shape of the piece ids, [%lld, %lld]", name,
                       (long long)rows, (long long)columns);
    return CT_OK;
}

/* ---- masks ---- */

/* Whether real columns of a row have masked ones between them. */
static bool has_holes(const packer *p, int64_t row)
{
    bool started = false, ended = false;
    for (int64_t c = 0; c < p->n_cached + p->batch->n_columns; c++) {
        bool real = mask_at(p->inputs->mask, row, c);
        if (real && ended)
            return true;
        ended = started && !real;
        started = started || real;
    }
    return false;
}

/* The mask as [batch, heads, columns, keys], with strides of 0 where it is the same for all. */
static ct_status set_general_mask(packer *p)
{
    const ct_tensor *mask = p->inputs->mask;
    ct_batch *batch = p->batch;
    int64_t shape[4] = {batch->n_sequences, p->spec->n_heads, batch->n_columns,
                        p->n_cached + batch->n_columns};
    int64_t strides[4] = {mask->strides[0], 0, 0, mask->strides[mask->n_dims - 1]};
    if (mask->n_dims == 4) {
        strides[1] = mask->strides[1];
        strides[2] = mask->strides[2];
    }
    for (int i = 0; i < 4; i++) {
        int64_t length = mask->n_dims == 4  ? mask->shape[i]
                         : i == 0 || i == 3 ? mask->shape[i / 3]
                                            : 1;
        if (length != shape[i] && length != 1)
            return ct_fail(CT_VALUE,
                           "dimension %d of the attention mask must be 1 or %lld, was: %lld", i,
                           (long long)shape[i], (long long)length);
        if (length == 1)
            strides[i] = 0;
    }
    const uint8_t *columns = p->inputs->cache ? ct_tensor_data(p->inputs->cache->columns) : NULL;
    for (int64_t i = 0; i < batch->n_sequences * p->n_cached; i++)
        if (!columns[i])
            return ct_fail(CT_VALUE, "a mask by query or head, or one with holes, needs a cache "
                                     "without padding");
    p->general = true;
    return ct_tensor_view(&batch->mask, mask->storage, mask->offset, CT_BOOL, 4, shape, strides);
}

static ct_status check_mask(packer *p)
{
    const ct_tensor *mask = p->inputs->mask;
    ct_batch *batch = p->batch;
    int64_t keys = p->n_cached + batch->n_columns;
    if (!mask) {
        const uint8_t *columns =
            p->inputs->cache ? ct_tensor_data(p->inputs->cache->columns) : NULL;
        for (int64_t i = 0; i < batch->n_sequences * p->n_cached; i++)
            if (!columns[i])
                return ct_fail(CT_VALUE, "the cache holds padding; pass the attention mask of "
                                         "cached and new pieces");
        return CT_OK;
    }
    if (mask->dtype != CT_BOOL)
        return ct_fail(CT_VALUE, "expected attention mask to be of dtype bool, was: %s",
                       ct_dtype_name(mask->dtype));
    if (mask->n_dims != 2 && mask->n_dims != 4)
        return ct_fail(CT_VALUE, "the attention mask must be a tensor of shape [batch, keys] or "
                                 "[batch, heads, queries, keys]");
    bool plain = mask->n_dims == 2 || (mask->shape[1] == 1 && mask->shape[2] == 1);
    if (!plain)
        return set_general_mask(p);
    if (mask->shape[mask->n_dims - 1] != keys ||
        (mask->shape[0] != batch->n_sequences && mask->shape[0] != 1))
        return ct_fail(CT_VALUE,
                       "the attention mask must cover %lld sequences of %lld pieces (%lld cached "
                       "and %lld new), but has the shape [%lld, %lld]",
                       (long long)batch->n_sequences, (long long)keys, (long long)p->n_cached,
                       (long long)batch->n_columns, (long long)mask->shape[0],
                       (long long)mask->shape[mask->n_dims - 1]);
    if (!p->spec->alibi && p->spec->window == 0 && p->spec->relative_buckets == 0)
        return CT_OK;
    for (int64_t row = 0; row < batch->n_sequences && !p->holes; row++)
        p->holes = has_holes(p, row);
    return p->holes ? set_general_mask(p) : CT_OK; /* packing would change distances */
}

/* What columns hold a position after the call. Cached ones stay as they were computed. */
static ct_status set_columns(packer *p)
{
    ct_batch *batch = p->batch;
    int64_t width = p->n_cached + batch->n_columns;
    CT_TRY(ct_tensor_new(&batch->columns, CT_BOOL, 2, (int64_t[]){batch->n_sequences, width}));
    uint8_t *columns = ct_tensor_data(batch->columns);
    for (int64_t row = 0; row < batch->n_sequences; row++) {
        for (int64_t c = 0; c < p->n_cached; c++) {
            const uint8_t *cached = ct_tensor_data(p->inputs->cache->columns);
            bool real = cached[row * p->n_cached + c];
            if (!p->general && p->inputs->mask && mask_at(p->inputs->mask, row, c) != real)
                return ct_fail(CT_VALUE,
                               "the attention mask is %s at cached column [%lld, %lld], which was "
                               "computed with %s",
                               real ? "false" : "true", (long long)row, (long long)c,
                               real ? "true" : "false");
            columns[row * width + c] = real;
        }
        for (int64_t c = 0; c < batch->n_columns; c++)
            columns[row * width + p->n_cached + c] = is_real(p, row, c);
    }
    return CT_OK;
}

/* ---- tokens ---- */

static ct_status check_index(const char *name, int64_t value, int64_t limit, const char *of,
                             int64_t row, int64_t column)
{
    if (value >= 0 && value < limit)
        return CT_OK;
    return ct_fail(CT_INDEX, "%s %lld at [%lld, %lld] is outside the %lld %s of the model", name,
                   (long long)value, (long long)row, (long long)column, (long long)limit, of);
}

static int64_t position_limit(const ct_spec *spec)
{
    if (spec->n_positions > 0)
        return spec->n_positions;
    return spec->max_positions > POSITION_LIMIT ? spec->max_positions : POSITION_LIMIT;
}

static ct_status fill_row(packer *p, int64_t row)
{
    ct_batch *batch = p->batch;
    const ct_inputs *inputs = p->inputs;
    const ct_spec *spec = p->spec;
    int64_t counted = 0, t = batch->n_tokens;
    /* Not the caller's mask again, which another thread might be changing: as many positions must
     * be computed as columns say. */
    const uint8_t *real = (uint8_t *)ct_tensor_data(batch->columns) +
                          row * (p->n_cached + batch->n_columns) + p->n_cached;
    for (int64_t c = 0; c < batch->n_columns; c++) {
        int64_t id = read_integer(inputs->ids, row, c), position = p->n_cached + c;
        if (spec->position_rule == CT_POSITIONS_SKIP_PADDING) {
            counted += id != spec->padding_id;
            position = spec->padding_id + (id != spec->padding_id ? counted : 0);
        }
        if (!real[c])
            continue;
        if (inputs->positions)
            position = read_integer(inputs->positions, row, c);
        CT_TRY(check_index("piece id", id, spec->n_pieces, "pieces", row, c));
        if (spec->n_positions > 0 || spec->rotary_width > 0)
            CT_TRY(check_index("position", position, position_limit(spec), "positions", row, c));
        batch->ids[t] = (int32_t)id;
        batch->positions[t] = (int32_t)position;
        if (!p->holes || mask_at(inputs->mask, row, p->n_cached + c))
            batch->places[batch->n_shown++] = row * batch->n_columns + c;
        if (spec->n_types > 0) {
            int64_t type = inputs->types ? read_integer(inputs->types, row, c) : 0;
            CT_TRY(check_index("type id", type, spec->n_types, "types", row, c));
            batch->types[t] = (int32_t)type;
        }
        t++;
    }
    int64_t before = inputs->cache ? inputs->cache->sequences[row].length : 0;
    int64_t length = before + t - batch->n_tokens;
    if (spec->max_positions > 0 && length > spec->max_positions)
        return ct_fail(CT_VALUE,
                       "a sequence of %lld pieces is longer than the %lld positions of "
                       "the model",
                       (long long)length, (long long)spec->max_positions);
    batch->n_tokens = t;
    batch->offsets[row + 1] = t;
    batch->shown_offsets[row + 1] = batch->n_shown;
    return CT_OK;
}
