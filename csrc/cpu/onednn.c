/* A primitive is made for one shape; all layers of that shape share it. Making one takes 0.2 to 0.5
 * ms and keeps 25 to 40 KiB, which a model with packed or bf16 weights pays for its four to seven
 * shapes when it first meets a number of rows: less than the padding, or the second pass over the
 * weights, that rounding the number to few sizes would cost each time. A number of rows that is
 * left open (DNNL_RUNTIME_DIM_VAL) has no fast implementation for packed weights. The cache is
 * bounded; what was used longest ago goes.
 *
 * Scratch comes from the caller's arena and memory objects live for one call, so a primitive may
 * run in several threads at once. */
#include "cpu/onednn.h"

#ifdef CT_WITH_ONEDNN

#include <dnnl.h>
#include <pthread.h>
#include <string.h>

#include "core/cpuinfo.h"
#include "core/memory.h"
#include "core/threads.h"

#define CACHE_SIZE 1024
#define PROBES 8
#define PACKING_ROWS 128 /* the number of rows for which weights are laid out */

#define DNNL_TRY_TO(label, call)                                                                   \
    do {                                                                                           \
        dnnl_status_t dnnl_status = (call);                                                        \
        if (dnnl_status != dnnl_success) {                                                         \
            status = failure(dnnl_status, #call);                                                  \
            goto label;                                                                            \
        }                                                                                          \
    } while (0)

struct ct_packed {
    int64_t n, k;
    ct_dtype dtype;
    dnnl_memory_desc_t layout;
    void *data;
};

typedef enum residual_kind { RESIDUAL_NONE, RESIDUAL_IN_PLACE, RESIDUAL_OTHER } residual_kind;

/* What tells one primitive from another; compared byte by byte, so padding is zeroed. */
typedef struct key {
    int64_t m, n, k, x_stride, y_stride, other_stride;
    int32_t w_dtype, y_dtype, other_dtype; /* other: the residual or the factor */
    int32_t activation, residual, multiply, bias, packed;
    int32_t n_threads; /* a primitive splits its work when it is made */
    float clip;
} key;

typedef struct entry {
    key key;
    uint64_t hash, used;
    int users;
    bool cached;
    dnnl_primitive_t primitive;
    dnnl_primitive_desc_t desc;
    dnnl_memory_desc_t x, weights, bias, other, y;
    size_t scratch;
} entry;

static ct_onednn_level level = CT_ONEDNN_BEST;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static dnnl_engine_t engine;
static dnnl_status_t engine_status;
static pthread_mutex_t cache_lock = PTHREAD_MUTEX_INITIALIZER;
static entry *cache[CACHE_SIZE];
static uint64_t cache_clock;

static ct_status choose_layout(ct_packed *packed);
static ct_status pack(ct_packed *packed, const void *rows);
static ct_status take_entry(entry **out, const key *wanted, const ct_packed *packed);
static void give_entry(entry *used);
static ct_status make_entry(entry **out, const key *wanted, const ct_packed *packed);
static void free_entry(entry **old);

static ct_status failure(dnnl_status_t code, const char *call)
{
    if (code == dnnl_out_of_memory)
        return ct_fail(CT_MEMORY, "out of memory in oneDNN");
    return ct_fail(CT_INTERNAL, "oneDNN failed with status %d in %s", (int)code, call);
}

static void init(void)
{
    if (level == CT_ONEDNN_AVX2)
        dnnl_set_max_cpu_isa(dnnl_cpu_isa_avx2);
    engine_status = dnnl_engine_create(&engine, dnnl_cpu, 0);
}

static bool ready(void)
{
    if (level == CT_ONEDNN_OFF)
        return false;
    pthread_once(&once, init);
    return engine_status == dnnl_success;
}

/* AMX; levels are sets of bits. */
static bool has_tiles(void)
{
    return (dnnl_get_effective_cpu_isa() & dnnl_cpu_isa_avx512_core_amx) ==
           dnnl_cpu_isa_avx512_core_amx;
}

ct_onednn_level ct_onednn_set_level(ct_onednn_level wanted)
{
    ct_onednn_level before = level;
    level = wanted;
    return before;
}

bool ct_onednn_takes(ct_dtype weights)
{
    if (weights == CT_BF16 && (level != CT_ONEDNN_BEST || !ct_cpuinfo_get()->avx512_bf16))
        return false;
    if (weights == CT_I8)
        return ready() && (level == CT_ONEDNN_BYTES || (level == CT_ONEDNN_BEST && has_tiles()));
    return (weights == CT_F32 || weights == CT_BF16) && ready();
}

static dnnl_data_type_t data_type(ct_dtype dtype)
{
    switch (dtype) {
    case CT_BF16:
        return dnnl_bf16;
    case CT_I8:
        return dnnl_s8;
    case CT_I32:
        return dnnl_s32;
    default:
        return dnnl_f32;
    }
}

/* A [rows, columns] matrix whose rows are `stride` apart, or (transposed) its transpose. */
static dnnl_status_t matrix_desc(dnnl_memory_desc_t *out, int64_t rows, int64_t columns,
                                 int64_t row_stride, int64_t column_stride, ct_dtype dtype)
{
    dnnl_dims_t dims = {rows, columns}, strides = {row_stride, column_stride};
    return dnnl_memory_desc_create_with_strides(out, 2, dims, data_type(dtype), strides);
}

ct_status ct_packed_new(ct_packed **out, ct_tensor *const *parts, int n_parts)
{
    *out = NULL;
    ct_status status = CT_OK;
    ct_packed *packed;
    char *joined = NULL;
    ct_threads_enter();
    CT_TRY(ct_alloc_zeroed((void **)&packed, 1, sizeof *packed));
    packed->k = parts[0]->shape[1];
    packed->dtype = parts[0]->dtype;
    size_t row = (size_t)packed->k * ct_dtype_block_bytes(packed->dtype), used = 0;
    for (int i = 0; i < n_parts; i++)
        packed->n += parts[i]->shape[0];
    CT_TRY_TO(done, choose_layout(packed));
    if (n_parts == 1) {
        CT_TRY_TO(done, pack(packed, ct_tensor_data(parts[0])));
    } else {
        CT_TRY_TO(done, ct_alloc((void **)&joined, (size_t)packed->n * row));
        for (int i = 0; i < n_parts; used += (size_t)parts[i++]->shape[0] * row)
            memcpy(joined + used, ct_tensor_data(parts[i]), (size_t)parts[i]->shape[0] * row);
        CT_TRY_TO(done, pack(packed, joined));
    }
    *out = packed;
    packed = NULL;
done:
    ct_free(&joined);
    ct_packed_free(&packed);
    return status;
}

void ct_packed_free(ct_packed **packed)
{
    if (!*packed)
        return;
    dnnl_memory_desc_destroy((*packed)->layout);
    ct_free(&(*packed)->data);
    ct_free(packed);
}

/* The layout that oneDNN would choose for PACKING_ROWS rows; other numbers of rows have to take it.
 */
static ct_status choose_layout(ct_packed *packed)
{
    ct_status status = CT_OK;
    int64_t n = packed->n, k = packed->k;
    dnnl_dims_t dims = {k, n};
    dnnl_memory_desc_t x = NULL, any = NULL, y = NULL;
    dnnl_primitive_desc_t desc = NULL;
    DNNL_TRY_TO(done, matrix_desc(&x, PACKING_ROWS, k, k, 1, packed->dtype));
    DNNL_TRY_TO(done, matrix_desc(&y, PACKING_ROWS, n, n, 1, CT_F32));
    DNNL_TRY_TO(done, dnnl_memory_desc_create_with_tag(&any, 2, dims, data_type(packed->dtype),
                                                       dnnl_format_tag_any));
    DNNL_TRY_TO(done, dnnl_matmul_primitive_desc_create(&desc, engine, x, any, NULL, y, NULL));
    DNNL_TRY_TO(done, dnnl_memory_desc_clone(&packed->layout, dnnl_primitive_desc_query_md(
                                                                  desc, dnnl_query_weights_md, 0)));
done:
    dnnl_primitive_desc_destroy(desc);
    dnnl_memory_desc_destroy(x);
    dnnl_memory_desc_destroy(y);
    dnnl_memory_desc_destroy(any);
    return status;
}

/* packed->data = rows [n, k] in the layout. */
static ct_status pack(ct_packed *packed, const void *rows)
{
    ct_status status = CT_OK;
    dnnl_memory_desc_t plain = NULL;
    dnnl_primitive_desc_t desc = NULL;
    dnnl_primitive_t reorder = NULL;
    dnnl_memory_t from = NULL, to = NULL;
    dnnl_stream_t stream = NULL;
    CT_TRY(ct_alloc(&packed->data, dnnl_memory_desc_get_size(packed->layout)));
    DNNL_TRY_TO(done, matrix_desc(&plain, packed->k, packed->n, 1, packed->k, packed->dtype));
    DNNL_TRY_TO(done, dnnl_memory_create(&from, plain, engine, (void *)rows));
    DNNL_TRY_TO(done, dnnl_memory_create(&to, packed->layout, engine, packed->data));
    DNNL_TRY_TO(done, dnnl_reorder_primitive_desc_create(&desc, plain, engine, packed->layout,
                                                         engine, NULL));
    DNNL_TRY_TO(done, dnnl_primitive_create(&reorder, desc));
    DNNL_TRY_TO(done, dnnl_stream_create(&stream, engine, dnnl_stream_default_flags));
    dnnl_exec_arg_t arguments[2] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}};
    DNNL_TRY_TO(done, dnnl_primitive_execute(reorder, stream, 2, arguments));
    DNNL_TRY_TO(done, dnnl_stream_wait(stream));
done:
    dnnl_stream_destroy(stream);
    dnnl_primitive_destroy(reorder);
    dnnl_primitive_desc_destroy(desc);
    dnnl_memory_destroy(from);
    dnnl_memory_destroy(to);
    dnnl_memory_desc_destroy(plain);
    return status;
}

static key make_key(const ct_matmul *product)
{
    key wanted;
    memset(&wanted, 0, sizeof wanted);
    const ct_cpu_epilogue *epilogue = &product->epilogue;
    const ct_rows *other = epilogue->multiply ? epilogue->multiply : epilogue->residual;
    wanted.m = product->x.n_rows;
    wanted.n = product->y.width;
    wanted.k = product->x.width;
    wanted.x_stride = product->x.stride;
    wanted.y_stride = product->y.stride;
    wanted.packed = product->packed != NULL;
    wanted.n_threads = ct_threads_get();
    wanted.w_dtype = (int32_t)product->x.dtype;
    wanted.y_dtype = (int32_t)product->y.dtype;
    wanted.activation = (int32_t)epilogue->activation;
    wanted.multiply = epilogue->multiply != NULL;
    wanted.bias = product->bias != NULL;
    wanted.clip = epilogue->clip;
    if (epilogue->residual)
        wanted.residual =
            epilogue->residual->data == product->y.data ? RESIDUAL_IN_PLACE : RESIDUAL_OTHER;
    if (other && wanted.residual != RESIDUAL_IN_PLACE) {
        wanted.other_stride = other->stride;
        wanted.other_dtype = (int32_t)other->dtype;
    }
    return wanted;
}

ct_status ct_onednn_matmul(const ct_matmul *product, ct_arena *arena)
{
    ct_status status = CT_OK;
    entry *made;
    if (product->x.n_rows == 0)
        return CT_OK;
    ct_threads_enter();
    key wanted = make_key(product);
    CT_TRY(take_entry(&made, &wanted, product->packed));
    const ct_rows *other =
        product->epilogue.multiply ? product->epilogue.multiply : product->epilogue.residual;
    dnnl_memory_t memory[6] = {NULL};
    dnnl_stream_t stream = NULL;
    void *scratch = NULL;
    const void *weights = product->packed ? product->packed->data : product->weights;
    int n = 0, other_argument = DNNL_ARG_ATTR_MULTIPLE_POST_OP((wanted.clip > 0) +
                                                               (wanted.activation != CT_ACT_NONE)) |
                                DNNL_ARG_SRC_1;
    dnnl_exec_arg_t arguments[6];
    struct {
        int argument;
        const_dnnl_memory_desc_t desc;
        const void *data;
    } inputs[6] = {
        {DNNL_ARG_SRC, made->x, product->x.data},
        {DNNL_ARG_WEIGHTS, made->weights, weights},
        {DNNL_ARG_DST, made->y, product->y.data},
        {DNNL_ARG_BIAS, made->bias, product->bias},
        {other_argument, made->other, made->other ? other->data : NULL},
        {DNNL_ARG_SCRATCHPAD, NULL, NULL},
    };
    if (made->scratch) {
        CT_TRY_TO(done, ct_arena_alloc(arena, &scratch, made->scratch));
        inputs[5].desc = dnnl_primitive_desc_query_md(made->desc, dnnl_query_scratchpad_md, 0);
        inputs[5].data = scratch;
    }
    for (int i = 0; i < 6; i++) {
        if (!inputs[i].desc)
            continue;
        DNNL_TRY_TO(done,
                    dnnl_memory_create(&memory[n], inputs[i].desc, engine, (void *)inputs[i].data));
        arguments[n] = (dnnl_exec_arg_t){inputs[i].argument, memory[n]};
        n++;
    }
    DNNL_TRY_TO(done, dnnl_stream_create(&stream, engine, dnnl_stream_default_flags));
    DNNL_TRY_TO(done, dnnl_primitive_execute(made->primitive, stream, n, arguments));
    DNNL_TRY_TO(done, dnnl_stream_wait(stream));
done:
    for (int i = 0; i < n; i++)
        dnnl_memory_destroy(memory[i]);
    dnnl_stream_destroy(stream);
    give_entry(made);
    return status;
}

static uint64_t hash_key(const key *wanted) /* FNV-1a */
{
    const unsigned char *bytes = (const unsigned char *)wanted;
    uint64_t hash = 14695981039346656037u;
    for (size_t i = 0; i < sizeof *wanted; i++)
        hash = (hash ^ bytes[i]) * 1099511628211u;
    return hash;
}

/* Weights of one shape were packed alike, unless the number of threads changed between them. */
static bool serves(const entry *cached, const key *wanted, const ct_packed *packed)
{
    return memcmp(&cached->key, wanted, sizeof *wanted) == 0 &&
           (!packed || dnnl_memory_desc_equal(cached->weights, packed->layout));
}

/* The cached entry, or a new one in an empty place or that of the entry that was idle longest among
 * the PROBES where the key may stand. When all of those are in use the new one stays outside. */
static ct_status take_entry(entry **out, const key *wanted, const ct_packed *packed)
{
    ct_status status = CT_OK;
    uint64_t hash = hash_key(wanted);
    entry **place = NULL;
    *out = NULL;
    pthread_mutex_lock(&cache_lock);
    for (uint64_t probe = 0; probe < PROBES; probe++) {
        entry **slot = &cache[(hash + probe) % CACHE_SIZE];
        if (*slot && (*slot)->hash == hash && serves(*slot, wanted, packed)) {
            *out = *slot;
            break;
        }
        if (*slot && (*slot)->users)
            continue;
        if (!place || (*place && (!*slot || (*slot)->used < (*place)->used)))
            place = slot;
    }
    if (!*out) {
        CT_TRY_TO(done, make_entry(out, wanted, packed));
        (*out)->hash = hash;
        if (place) {
            free_entry(place);
            *place = *out;
        }
        (*out)->cached = place != NULL;
    }
    (*out)->users++;
    (*out)->used = ++cache_clock;
done:
    pthread_mutex_unlock(&cache_lock);
    return status;
}

static void give_entry(entry *used)
{
    pthread_mutex_lock(&cache_lock);
    if (--used->users == 0 && !used->cached)
        free_entry(&used);
    pthread_mutex_unlock(&cache_lock);
}

void ct_onednn_trim(void)
{
    pthread_mutex_lock(&cache_lock);
    for (int i = 0; i < CACHE_SIZE; i++)
        if (cache[i] && !cache[i]->users)
            free_entry(&cache[i]);
    pthread_mutex_unlock(&cache_lock);
}

static dnnl_alg_kind_t algorithm(ct_activation activation)
{
    switch (activation) {
    case CT_ACT_RELU:
        return dnnl_eltwise_relu;
    case CT_ACT_GELU:
        return dnnl_eltwise_gelu_erf;
    case CT_ACT_GELU_TANH:
        return dnnl_eltwise_gelu_tanh;
    default:
        return dnnl_eltwise_swish;
    }
}

static dnnl_status_t append_post_ops(dnnl_post_ops_t ops, const key *wanted,
                                     const_dnnl_memory_desc_t other)
{
    dnnl_status_t status = dnnl_success;
    if (wanted->clip > 0)
        status = dnnl_post_ops_append_eltwise(ops, dnnl_eltwise_clip, -wanted->clip, wanted->clip);
    if (status == dnnl_success && wanted->activation != CT_ACT_NONE) /* swish: alpha 1 */
        status =
            dnnl_post_ops_append_eltwise(ops, algorithm((ct_activation)wanted->activation),
                                         wanted->activation == CT_ACT_SILU ? 1.0f : 0.0f, 0.0f);
    if (status == dnnl_success && wanted->residual == RESIDUAL_IN_PLACE)
        status = dnnl_post_ops_append_sum(ops, 1.0f, 0, dnnl_data_type_undef);
    if (status == dnnl_success && other)
        status = dnnl_post_ops_append_binary(
            ops, wanted->multiply ? dnnl_binary_mul : dnnl_binary_add, other);
    return status;
}

static ct_status make_entry(entry **out, const key *wanted, const ct_packed *packed)
{
    *out = NULL;
    ct_status status = CT_OK;
    dnnl_post_ops_t ops = NULL;
    dnnl_primitive_attr_t attributes = NULL;
    int64_t m = wanted->m, n = wanted->n, k = wanted->k;
    ct_dtype type = (ct_dtype)wanted->w_dtype;
    entry *made;
    CT_TRY(ct_alloc_zeroed((void **)&made, 1, sizeof *made));
    made->key = *wanted;
    DNNL_TRY_TO(done, matrix_desc(&made->x, m, k, wanted->x_stride, 1, type));
    if (packed)
        DNNL_TRY_TO(done, dnnl_memory_desc_clone(&made->weights, packed->layout));
    else
        DNNL_TRY_TO(done, matrix_desc(&made->weights, k, n, 1, k, type));
    DNNL_TRY_TO(done, matrix_desc(&made->y, m, n, wanted->y_stride, 1, (ct_dtype)wanted->y_dtype));
    if (wanted->bias)
        DNNL_TRY_TO(done, matrix_desc(&made->bias, 1, n, n, 1, CT_F32));
    if (wanted->multiply || wanted->residual == RESIDUAL_OTHER)
        DNNL_TRY_TO(done, matrix_desc(&made->other, m, n, wanted->other_stride, 1,
                                      (ct_dtype)wanted->other_dtype));
    DNNL_TRY_TO(done, dnnl_post_ops_create(&ops));
    DNNL_TRY_TO(done, append_post_ops(ops, wanted, made->other));
    DNNL_TRY_TO(done, dnnl_primitive_attr_create(&attributes));
    DNNL_TRY_TO(done, dnnl_primitive_attr_set_post_ops(attributes, ops));
    DNNL_TRY_TO(done,
                dnnl_primitive_attr_set_scratchpad_mode(attributes, dnnl_scratchpad_mode_user));
    DNNL_TRY_TO(done, dnnl_matmul_primitive_desc_create(&made->desc, engine, made->x, made->weights,
                                                        made->bias, made->y, attributes));
    made->scratch = dnnl_memory_desc_get_size(
        dnnl_primitive_desc_query_md(made->desc, dnnl_query_scratchpad_md, 0));
    DNNL_TRY_TO(done, dnnl_primitive_create(&made->primitive, made->desc));
    *out = made;
    made = NULL;
done:
    dnnl_post_ops_destroy(ops);
    dnnl_primitive_attr_destroy(attributes);
    free_entry(&made);
    return status;
}

static void free_entry(entry **old)
{
    if (!*old)
        return;
    dnnl_primitive_destroy((*old)->primitive);
    dnnl_primitive_desc_destroy((*old)->desc);
    dnnl_memory_desc_t descs[] = {(*old)->x, (*old)->weights, (*old)->bias, (*old)->other,
                                  (*old)->y};
    for (size_t i = 0; i < sizeof descs / sizeof *descs; i++)
        dnnl_memory_desc_destroy(descs[i]);
    ct_free(old);
}

#else

ct_onednn_level ct_onednn_set_level(ct_onednn_level level)
{
    (void)level;
    return CT_ONEDNN_OFF;
}

bool ct_onednn_takes(ct_dtype weights)
{
    (void)weights;
    return false;
}

ct_status ct_packed_new(ct_packed **out, ct_tensor *const *parts, int n_parts)
{
    (void)parts, (void)n_parts;
    *out = NULL;
    return ct_fail(CT_UNSUPPORTED, "this build has no oneDNN");
}

void ct_packed_free(ct_packed **packed)
{
    *packed = NULL;
}

ct_status ct_onednn_matmul(const ct_matmul *product, ct_arena *arena)
{
    (void)product, (void)arena;
    return ct_fail(CT_UNSUPPORTED, "this build has no oneDNN");
}

void ct_onednn_trim(void)
{
}

#endif
