/* How a product of given sizes and addresses is computed is asked of the library once and kept in a
 * plan; what a call then does is to find its plan. The oldest plan makes room for a new one.
 *
 * To the library W [n, k] by rows is a matrix [k, n] by columns, to be transposed, x is [k, m] and
 * y [n, m]: it is told y^T = W x^T, for which it has its best kernels. */
#include "gemm.h"

#include <stdlib.h>

#include "cublas.h"
#include "runtime.h"

#define MAX_PLANS 128
/* Bytes that an algorithm for floats may ask for, as is recommended for GPUs of 9.0; most want
 * none. Those for bytes may ask for none: so the library is used for them elsewhere (PyTorch,
 * bitsandbytes), where it was seen to fail with some. */
#define MAX_WORKSPACE ((uint64_t)32 << 20)

/* All that the library's choice depends on. */
typedef struct key {
    int64_t m, n, k, x_stride, y_stride, residual_stride;
    uint32_t dtype;
    uint32_t alignment[4]; /* in bytes, of weight, x, residual and y */
    uint32_t has_bias, has_residual;
    uint32_t unused; /* zero: keys are compared as bytes */
} key;

typedef struct plan {
    key of;
    ct_cublas_desc desc;
    ct_cublas_layout weight, x, residual, y;
    ct_cublas_algorithm algorithm;
    size_t workspace;
    bool possible;
} plan;

typedef struct device {
    bool started;
    const ct_cublas *library; /* NULL: it cannot be used here */
    ct_cublas_handle handle;
    int n_plans, next;
    plan plans[MAX_PLANS];
} device;

static device devices[CT_CUDA_MAX_DEVICES]; /* each the thread's that has entered it */

static device *here()
{
    return &devices[ct_cuda_index()];
}

static const ct_cublas *library()
{
    return here()->library;
}

static ct_status fail(int status, const char *what)
{
    return ct_fail(status == 3 ? CT_MEMORY : CT_INTERNAL,
                   "device \"cuda:%d\", cuBLASLt, %s: status %d", ct_cuda_index(), what, status);
}

#define CUBLAS_TRY(what, call)                                                                     \
    do {                                                                                           \
        int cublas_status = (call);                                                                \
        if (cublas_status != 0)                                                                    \
            return fail(cublas_status, what);                                                      \
    } while (0)

/* ---- is it there? ---- */

/* That it could not be started is remembered, unless it has to be told. */
static ct_status start(device *d, const ct_cublas *opened)
{
    const char *named = getenv("CURATED_TRANSFORMERS_CUBLAS");
    int status = opened->create(&d->handle);
    if (status != 0 && named && *named)
        return ct_fail(CT_UNSUPPORTED,
                       "device \"cuda:%d\": cuBLASLt cannot be started: status %d; the driver may "
                       "be older than the library",
                       ct_cuda_index(), status);
    d->library = status == 0 ? opened : NULL;
    d->started = true;
    return CT_OK;
}

ct_status ct_cuda_gemm_available(bool *out)
{
    device *d = here();
    const ct_cublas *opened;
    *out = false;
    CT_TRY(ct_cublas_open(&opened));
    if (opened && !d->started)
        CT_TRY(start(d, opened));
    *out = opened && d->library;
    return CT_OK;
}

/* ---- plans ---- */

static uint32_t alignment_of(const void *address)
{
    uint32_t alignment = CT_GEMM_ALIGNMENT;
    while ((uintptr_t)address % alignment != 0)
        alignment /= 2;
    return alignment;
}

static key key_of(const ct_gemm *gemm)
{
    const void *matrices[4] = {gemm->weight, gemm->x.data,
                               gemm->residual.data ? gemm->residual.data : gemm->y.data,
                               gemm->y.data};
    key of = {};
    of.m = gemm->x.n_rows;
    of.n = gemm->y.width;
    of.k = gemm->x.width;
    of.x_stride = gemm->x.stride;
    of.y_stride = gemm->y.stride;
    of.residual_stride = gemm->residual.data ? gemm->residual.stride : gemm->y.stride;
    of.dtype = (uint32_t)gemm->dtype;
    for (int i = 0; i < 4; i++)
        of.alignment[i] = alignment_of(matrices[i]);
    of.has_bias = gemm->bias != NULL;
    of.has_residual = gemm->residual.data != NULL;
    return of;
}

/* The types of what a product is made from. */
typedef struct arithmetic {
    int input, output, compute, factors;
} arithmetic;

static arithmetic arithmetic_of(ct_dtype dtype)
{
    if (dtype == CT_I8)
        return {CT_CUBLAS_I8, CT_CUBLAS_I32, CT_CUBLAS_COMPUTE_I32, CT_CUBLAS_I32};
    int input = dtype == CT_F32 ? CT_CUBLAS_F32 : dtype == CT_F16 ? CT_CUBLAS_F16 : CT_CUBLAS_BF16;
    return {input, CT_CUBLAS_F32, CT_CUBLAS_COMPUTE_F32, CT_CUBLAS_F32};
}

static ct_status describe(plan *to, const ct_gemm *gemm)
{
    const key *of = &to->of;
    int32_t transposed = CT_CUBLAS_TRANSPOSED;
    arithmetic types = arithmetic_of(gemm->dtype);
    int32_t epilogue = of->has_bias ? CT_CUBLAS_EPILOGUE_BIAS : CT_CUBLAS_EPILOGUE_NONE;
    CUBLAS_TRY("describing a product",
               library()->desc_create(&to->desc, types.compute, types.factors));
    CUBLAS_TRY("describing a product", library()->desc_set(to->desc, CT_CUBLAS_DESC_TRANSPOSE_A,
                                                           &transposed, sizeof transposed));
    CUBLAS_TRY("describing a product",
               library()->desc_set(to->desc, CT_CUBLAS_DESC_EPILOGUE, &epilogue, sizeof epilogue));
    if (of->has_bias) /* its alignment is looked at */
        CUBLAS_TRY("describing a product", library()->desc_set(to->desc, CT_CUBLAS_DESC_BIAS,
                                                               &gemm->bias, sizeof gemm->bias));
    uint64_t m = (uint64_t)of->m, n = (uint64_t)of->n, k = (uint64_t)of->k;
    CUBLAS_TRY("describing a matrix",
               library()->layout_create(&to->weight, types.input, k, n, of->k));
    CUBLAS_TRY("describing a matrix",
               library()->layout_create(&to->x, types.input, k, m, of->x_stride));
    CUBLAS_TRY("describing a matrix",
               library()->layout_create(&to->residual, types.output, n, m, of->residual_stride));
    CUBLAS_TRY("describing a matrix",
               library()->layout_create(&to->y, types.output, n, m, of->y_stride));
    return CT_OK;
}

static ct_status set_wishes(ct_cublas_preference wishes, const key *of)
{
    uint64_t most = of->dtype == CT_I8 ? 0 : MAX_WORKSPACE;
    CUBLAS_TRY("preferences", library()->preference_set(wishes, CT_CUBLAS_PREFERENCE_WORKSPACE,
                                                        &most, sizeof most));
    for (int i = 0; i < 4; i++)
        CUBLAS_TRY("preferences",
                   library()->preference_set(wishes, CT_CUBLAS_PREFERENCE_ALIGNMENT_A + i,
                                             &of->alignment[i], sizeof of->alignment[i]));
    return CT_OK;
}

/* That nothing was found is an answer, whether it comes as a status or as no choice. */
static ct_status choose(plan *to)
{
    ct_cublas_preference wishes;
    ct_cublas_choice choice = {};
    int found = 0;
    CUBLAS_TRY("preferences", library()->preference_create(&wishes));
    ct_status status = set_wishes(wishes, &to->of);
    if (status == CT_OK) {
        int answer = library()->choose(here()->handle, to->desc, to->weight, to->x, to->residual,
                                       to->y, wishes, 1, &choice, &found);
        to->possible = answer == 0 && found > 0 && choice.status == 0;
        to->algorithm = choice.algorithm;
        to->workspace = choice.workspace;
    }
    library()->preference_destroy(wishes);
    return status;
}

static void drop(plan *one)
{
    ct_cublas_layout layouts[] = {one->weight, one->x, one->residual, one->y};
    for (ct_cublas_layout layout : layouts)
        if (layout)
            library()->layout_destroy(layout);
    if (one->desc)
        library()->desc_destroy(one->desc);
    *one = {};
}

static ct_status make_plan(plan *to, const key *of, const ct_gemm *gemm)
{
    drop(to);
    to->of = *of;
    ct_status status = describe(to, gemm);
    if (status == CT_OK)
        status = choose(to);
    if (status != CT_OK)
        drop(to);
    return status;
}

static ct_status find_plan(plan **out, const ct_gemm *gemm)
{
    device *d = here();
    key of = key_of(gemm);
    for (int i = 0; i < d->n_plans; i++) {
        *out = &d->plans[i];
        if (memcmp(&(*out)->of, &of, sizeof of) == 0)
            return CT_OK;
    }
    plan *fresh = &d->plans[d->next];
    CT_TRY(make_plan(fresh, &of, gemm));
    d->next = (d->next + 1) % MAX_PLANS;
    d->n_plans = d->n_plans < MAX_PLANS ? d->n_plans + 1 : MAX_PLANS;
    *out = fresh;
    return CT_OK;
}

/* ---- a product ---- */

static ct_status new_workspace(void **out, size_t size, ct_arena *arena)
{
    const uintptr_t alignment = CT_CUBLAS_WORKSPACE_ALIGNMENT;
    *out = NULL;
    if (size == 0)
        return CT_OK;
    CT_TRY(ct_arena_alloc(arena, out, size + alignment));
    *out = (void *)(((uintptr_t)*out + alignment - 1) / alignment * alignment);
    return CT_OK;
}

/* What the library has chosen for a product it may still refuse to compute. */
ct_status ct_cuda_gemm(bool *done, const ct_gemm *gemm, ct_arena *arena)
{
    plan *p;
    void *workspace;
    const float factors[] = {0, 1};
    const int32_t whole_factors[] = {0, 1};
    bool adds = gemm->residual.data != NULL, whole = gemm->dtype == CT_I8;
    const void *zero = whole ? (const void *)&whole_factors[0] : &factors[0];
    const void *one = whole ? (const void *)&whole_factors[1] : &factors[1];
    CT_TRY(find_plan(&p, gemm));
    *done = p->possible;
    if (!p->possible)
        return CT_OK;
    CT_TRY(new_workspace(&workspace, p->workspace, arena));
    if (gemm->bias)
        CUBLAS_TRY("describing a product", library()->desc_set(p->desc, CT_CUBLAS_DESC_BIAS,
                                                               &gemm->bias, sizeof gemm->bias));
    int status = library()->multiply(
        here()->handle, p->desc, one, gemm->weight, p->weight, gemm->x.data, p->x,
        adds ? one : zero, adds ? gemm->residual.data : gemm->y.data, p->residual, gemm->y.data,
        p->y, &p->algorithm, workspace, p->workspace, ct_cuda_stream());
    if (status == CT_CUBLAS_NOT_SUPPORTED) {
        p->possible = *done = false;
        return CT_OK;
    }
    CUBLAS_TRY("a product", status);
    return CT_OK;
}
