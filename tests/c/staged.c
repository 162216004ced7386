/* Each operation is the device's own, between copies there and back. Rows are copied with their
 * gaps, so that what is written beside them is seen; arrays that overlap are one there, too. */
#include "staged.h"

#ifdef CT_WITH_CUDA

#include "core/memory.h"
#include "ops/device.h"

extern const ct_ops ct_cuda_table;

#define MAX_COPIES 256

typedef struct copy {
    void *host, *device;
    size_t size;
    bool comes_back;
} copy;

/* Of the running call. */
static copy copies[MAX_COPIES];
static int n_copies;
static ct_status failure; /* the first one; what follows does nothing */
static ct_arena scratch;

/* ---- copies ---- */

static bool holds(const copy *c, const void *array, size_t size)
{
    const char *first = c->host, *wanted = array;
    return wanted >= first && wanted + size <= first + c->size;
}

static ct_status add_copy(void **out, const void *array, size_t size, bool comes_back)
{
    if (n_copies == MAX_COPIES)
        return ct_fail(CT_INTERNAL, "a call with more than %d arrays", MAX_COPIES);
    copy *c = &copies[n_copies];
    *c = (copy){(void *)array, NULL, size, comes_back};
    CT_TRY(ct_cuda_table.alloc(0, &c->device, size));
    n_copies++;
    CT_TRY(ct_cuda_table.upload(c->device, array, size));
    *out = c->device;
    return CT_OK;
}

/* The array on the device. */
static void *staged(const void *array, size_t size, bool comes_back)
{
    void *out = NULL;
    if (!array || failure != CT_OK)
        return NULL;
    for (int i = 0; i < n_copies; i++)
        if (holds(&copies[i], array, size)) {
            copies[i].comes_back = copies[i].comes_back || comes_back;
            return (char *)copies[i].device + ((const char *)array - (char *)copies[i].host);
        }
    failure = add_copy(&out, array, size, comes_back);
    return out;
}

static const void *staged_in(const void *array, int64_t count, size_t size)
{
    return staged(array, (size_t)count * size, false);
}

static ct_rows staged_rows(ct_rows rows, bool comes_back)
{
    size_t value = ct_dtype_block_bytes(rows.dtype);
    rows.data = staged(rows.data, (size_t)(rows.n_rows * rows.stride) * value, comes_back);
    return rows;
}

/* Ends a call that gave `status`: brings back what it wrote, and frees the copies. */
static ct_status finish(ct_status status)
{
    for (int i = 0; i < n_copies; i++) {
        if (status == CT_OK && copies[i].comes_back)
            status = ct_cuda_table.download(copies[i].host, copies[i].device, copies[i].size);
        ct_cuda_table.free(0, copies[i].device, copies[i].size);
    }
    n_copies = 0;
    failure = CT_OK;
    ct_arena_reset(&scratch);
    return status;
}

#define FINISH(call) finish(failure == CT_OK ? (call) : failure)

/* The fibers of the host use the test's own arena, whose pieces have poisoned gaps between them. */
static ct_arena *scratch_for(ct_arena *arena)
{
#ifdef CT_CUDA_ON_HOST
    return arena;
#else
    (void)arena;
    return &scratch;
#endif
}

/* ---- sequences and the cache ---- */

/* View and tables of pages, which come back. */
static void stage_view(ct_kv_view *view, const ct_head_layout *layout, int64_t n_sequences,
                       const int64_t *offsets)
{
    enum { MAX_TABLES = 64 };
    const void *tables[MAX_TABLES];
    int64_t block = layout->n_kv_heads * layout->head_width * CT_PAGE_POSITIONS;
    size_t page_bytes =
        (size_t)(view->layer_offset + 2 * block) * ct_dtype_block_bytes(view->dtype);
    for (int64_t s = 0; s < n_sequences && failure == CT_OK; s++) {
        void *pages[MAX_TABLES];
        int64_t places = view->lengths[s] + offsets[s + 1] - offsets[s];
        int64_t n_pages = (places + CT_PAGE_POSITIONS - 1) / CT_PAGE_POSITIONS;
        if (n_sequences > MAX_TABLES || n_pages > MAX_TABLES) {
            failure = ct_fail(CT_INTERNAL, "more than %d pages or sequences", MAX_TABLES);
            return;
        }
        for (int64_t p = 0; p < n_pages; p++)
            pages[p] = staged(view->pages[s][p], page_bytes, true);
        /* The table is this function's, whose memory the next sequence uses again. */
        void *table = NULL;
        if (failure == CT_OK)
            failure = add_copy(&table, pages, (size_t)n_pages * sizeof *pages, false);
        tables[s] = table;
    }
    void *there = NULL;
    if (failure == CT_OK)
        failure = add_copy(&there, tables, (size_t)n_sequences * sizeof *tables, false);
    view->pages = there;
    view->lengths = staged_in(view->lengths, n_sequences, sizeof *view->lengths);
}

static ct_rotary staged_rotary(const ct_rotary *rotary, int64_t n_rows)
{
    ct_rotary there = *rotary;
    int64_t n_positions = 0;
    for (int64_t i = 0; rotary->positions && i < n_rows; i++)
        if (rotary->positions[i] >= n_positions)
            n_positions = rotary->positions[i] + 1;
    there.cos = staged_in(rotary->cos, n_positions * rotary->width / 2, sizeof *rotary->cos);
    there.sin = staged_in(rotary->sin, n_positions * rotary->width / 2, sizeof *rotary->sin);
    there.positions = staged_in(rotary->positions, n_rows, sizeof *rotary->positions);
    return there;
}

/* Elements of the mask up to the last that can be asked for. */
static int64_t mask_size(const ct_attention_args *args)
{
    const int64_t *stride = args->mask_strides;
    return 1 + (args->n_sequences - 1) * stride[0] + (args->layout.n_heads - 1) * stride[1] +
           (args->max_places - 1) * (stride[2] + stride[3]);
}

static ct_status attention(const ct_attention_args *args, ct_arena *arena)
{
    ct_attention_args there = *args;
    ct_kv_view view = {0};
    int64_t n_biases = args->layout.n_heads * (2 * args->max_distance + 1);
    if (args->cache) {
        view = *args->cache;
        stage_view(&view, &args->layout, args->n_sequences, args->offsets);
        there.cache = &view;
    }
    there.qkv = staged_rows(args->qkv, true);
    there.rotary = staged_rotary(&args->rotary, args->qkv.n_rows);
    there.out = staged_rows(args->out, true);
    there.offsets = staged_in(args->offsets, args->n_sequences + 1, sizeof *args->offsets);
    there.alibi_slopes =
        staged_in(args->alibi_slopes, args->layout.n_heads, sizeof *args->alibi_slopes);
    there.distance_bias = staged_in(args->distance_bias, n_biases, sizeof *args->distance_bias);
    there.mask = staged_in(args->mask, args->mask ? mask_size(args) : 0, 1);
    return FINISH(ct_cuda_table.attention(&there, scratch_for(arena)));
}

/* ---- the other operations ---- */

static ct_status linear(const ct_linear *layer, ct_rows x, const ct_epilogue *epilogue, ct_rows y,
                        ct_arena *arena)
{
    ct_epilogue there = *epilogue;
    ct_rows residual;
    x = staged_rows(x, false);
    if (epilogue->residual) {
        residual = staged_rows(*epilogue->residual, false);
        there.residual = &residual;
    }
    y = staged_rows(y, true);
    return FINISH(ct_cuda_table.linear(layer, x, &there, y, scratch_for(arena)));
}

static ct_status embed(ct_rows y, const ct_tensor *table, const int32_t *ids, float scale,
                       bool accumulate)
{
    ct_tensor *there;
    CT_TRY(staged_tensor(&there, table));
    ids = staged_in(ids, y.n_rows, sizeof *ids);
    y = staged_rows(y, true);
    ct_status status = FINISH(ct_cuda_table.embed(y, there, ids, scale, accumulate));
    ct_tensor_unref(&there);
    return status;
}

static ct_status norm(ct_norm_kind kind, ct_rows y, ct_rows x, const float *weight,
                      const float *bias, float eps, int64_t groups)
{
    weight = staged_in(weight, x.width / groups, sizeof *weight);
    bias = staged_in(bias, x.width / groups, sizeof *bias);
    x = staged_rows(x, false);
    y = staged_rows(y, true);
    return FINISH(ct_cuda_table.norm(kind, y, x, weight, bias, eps, groups));
}

static ct_status add(ct_rows y, ct_rows x, ct_rows z)
{
    x = staged_rows(x, false);
    z = staged_rows(z, false);
    y = staged_rows(y, true);
    return FINISH(ct_cuda_table.add(y, x, z));
}

static ct_status scale(ct_rows x, float factor, float cap)
{
    x = staged_rows(x, true);
    return FINISH(ct_cuda_table.scale(x, factor, cap));
}

static ct_status scatter(ct_rows dst, ct_rows x, const int64_t *map)
{
    map = staged_in(map, x.n_rows, sizeof *map);
    x = staged_rows(x, false);
    dst = staged_rows(dst, true);
    return FINISH(ct_cuda_table.scatter(dst, x, map));
}

static ct_status gather(ct_rows dst, ct_rows x, const int64_t *map)
{
    map = staged_in(map, dst.n_rows, sizeof *map);
    x = staged_rows(x, false);
    dst = staged_rows(dst, true);
    return FINISH(ct_cuda_table.gather(dst, x, map));
}

static ct_status pool(ct_pool_kind kind, ct_rows dst, ct_rows x, const int64_t *offsets)
{
    offsets = staged_in(offsets, dst.n_rows + 1, sizeof *offsets);
    x = staged_rows(x, false);
    dst = staged_rows(dst, true);
    return FINISH(ct_cuda_table.pool(kind, dst, x, offsets));
}

/* What the parameters read is the host's already. */
static ct_status sample(ct_logprob *chosen, int32_t *ids, ct_rows logits, const ct_sampling *params,
                        ct_arena *arena)
{
    enum { MAX_ROWS = 64 };
    ct_sampling there[MAX_ROWS];
    size_t n = (size_t)logits.n_rows;
    if (n > MAX_ROWS)
        return ct_fail(CT_INTERNAL, "more than %d rows", MAX_ROWS);
    for (size_t i = 0; i < n; i++) {
        there[i] = params[i];
        there[i].top = staged(params[i].top, sizeof *params->top * (size_t)params[i].n_top, true);
    }
    logits = staged_rows(logits, true);
    chosen = staged(chosen, sizeof *chosen * n, true);
    ids = staged(ids, sizeof *ids * n, true);
    return FINISH(ct_cuda_table.sample(chosen, ids, logits, there, scratch_for(arena)));
}

/* ---- the level ---- */

ct_status staged_enter(const ct_ops **out)
{
    static ct_ops table;
    static ct_memory memory;
    table = ct_cuda_table;
    table.attention = attention;
    table.linear = linear;
    table.embed = embed;
    table.norm = norm;
    table.add = add;
    table.scale = scale;
    table.scatter = scatter;
    table.gather = gather;
    table.pool = pool;
    table.sample = sample;
    memory = (ct_memory){table.alloc, table.free, 0};
    scratch = (ct_arena){.memory = &memory};
    *out = &table;
    return table.enter(0);
}

void staged_leave(void)
{
    ct_arena_clear(&scratch);
    ct_cuda_table.leave(0);
}

static void free_memory(void *data, size_t size, void *context)
{
    (void)context;
    ct_cuda_table.free(0, data, size);
}

ct_status staged_tensor(ct_tensor **out, const ct_tensor *tensor)
{
    ct_device_id device = {CT_DEVICE_CUDA, 0};
    ct_storage *storage;
    void *memory;
    size_t size = ct_tensor_bytes(tensor);
    *out = NULL;
    CT_TRY(ct_cuda_table.alloc(0, &memory, size));
    ct_status status = ct_cuda_table.upload(memory, ct_tensor_data(tensor), size);
    if (status == CT_OK)
        status = ct_storage_import(&storage, memory, size, true, device, free_memory, NULL);
    if (status != CT_OK) {
        ct_cuda_table.free(0, memory, size);
        return status;
    }
    status = ct_tensor_view(out, storage, 0, tensor->dtype, tensor->n_dims, tensor->shape, NULL);
    ct_storage_unref(&storage);
    return status;
}

#endif
