/* The CPU's row of the operation table. */
#include "cpu/device.h"

#include <string.h>

#include "core/memory.h"
#include "core/sysmem.h"
#include "core/threads.h"
#include "cpu/attention.h"
#include "cpu/embedding.h"
#include "cpu/isa/select.h"
#include "cpu/kernels.h"
#include "cpu/linear.h"
#include "cpu/onednn.h"
#include "cpu/pool.h"
#include "cpu/rowwise.h"
#include "cpu/sample.h"
#include "tensor/storage.h"

const ct_kernels *ct_cpu_kernels;

/* There is one CPU, its calls may run side by side, and its memory is what everybody has. */
static ct_status check(int index)
{
    (void)index;
    return CT_OK;
}

static ct_status enter(int index)
{
    (void)index;
    return CT_OK;
}

static void leave(int index)
{
    (void)index;
}

static ct_status alloc(int index, void **out, size_t size)
{
    (void)index;
    return ct_alloc(out, size);
}

static void release(int index, void *memory, size_t size)
{
    (void)index, (void)size;
    ct_free(&memory);
}

static ct_status available(int index, size_t *bytes)
{
    (void)index;
    *bytes = ct_sysmem_available();
    return CT_OK;
}

static ct_status trim(int index)
{
    (void)index;
    ct_storage_trim();
    return CT_OK;
}

static ct_status copy(void *to, const void *from, size_t size)
{
    memcpy(to, from, size);
    return CT_OK;
}

static const ct_ops cpu_ops = {
    .abi = CT_OPS_ABI,
    .size = sizeof(ct_ops),
    .name = "cpu",
    .host_memory = true,
    .check = check,
    .enter = enter,
    .leave = leave,
    .alloc = alloc,
    .free = release,
    .upload = copy,
    .download = copy,
    .copy = copy,
    .available = available,
    .trim = trim,
    .linear_new = ct_cpu_linear_new,
    .linear_free = ct_cpu_linear_free,
    .linear_input = ct_cpu_linear_input,
    .linear = ct_cpu_linear,
    .embed = ct_cpu_embed,
    .norm = ct_cpu_norm,
    .add = ct_cpu_add,
    .scale = ct_cpu_scale,
    .attention = ct_cpu_attention,
    .scatter = ct_cpu_scatter,
    .gather = ct_cpu_gather,
    .pool = ct_cpu_pool,
    .sample = ct_cpu_sample,
};

ct_status ct_cpu_ops(const ct_ops **out)
{
    /* Portable C is the truth that others are compared with, so it does without oneDNN. */
    static const ct_onednn_level levels[CT_ISA_COUNT] = {
        [CT_ISA_PORTABLE] = CT_ONEDNN_OFF,
        [CT_ISA_NEON] = CT_ONEDNN_OFF,
        [CT_ISA_AVX2] = CT_ONEDNN_AVX2,
        [CT_ISA_AVX512] = CT_ONEDNN_BEST,
    };
    ct_isa isa;
    *out = NULL;
    CT_TRY(ct_threads_init());
    CT_TRY(ct_kernels_select(&isa, &ct_cpu_kernels));
    ct_onednn_set_level(levels[isa]);
    *out = &cpu_ops;
    return CT_OK;
}

const char *ct_cpu_isa_name(void)
{
    return ct_cpu_kernels->name;
}
