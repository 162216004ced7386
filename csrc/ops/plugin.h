/* What the core and the plugin of a device know of each other. A plugin is a shared object of its
 * own, with one symbol: the core asks it for its table of operations, and gives it a table of
 * services, through which it uses the core's functions. So it holds no second copy of what there is
 * once in a process: the thread's message, counts of memory, the fault that a test asks for.
 *
 * Both are built from one version: what they share by these headers (ct_tensor, for instance) has
 * no number of its own. Increase CT_PLUGIN_ABI when one of these structs changes. */
#ifndef CT_OPS_PLUGIN_H
#define CT_OPS_PLUGIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/arena.h"
#include "core/memory.h"
#include "core/status.h"
#include "ops/ops.h"
#include "quant/bnb.h"
#include "tensor/dtype.h"
#include "tensor/scales.h"
#include "tensor/storage.h"
#include "tensor/tensor.h"

#define CT_PLUGIN_ABI 2

/* X(result, name, parameters, their names): functions of the core that a plugin may call */
#define CT_SERVICES(X)                                                                             \
    X(const char *, ct_message, (void), ())                                                        \
    X(ct_status, ct_alloc, (void **out, size_t size), (out, size))                                 \
    X(ct_status, ct_alloc_zeroed, (void **out, size_t count, size_t size), (out, count, size))     \
    X(void, ct_free, (void *pointer), (pointer))                                                   \
    X(ct_status, ct_mul_size, (size_t * out, size_t a, size_t b), (out, a, b))                     \
    X(ct_status, ct_arena_alloc, (ct_arena * arena, void **out, size_t size), (arena, out, size))  \
    X(const char *, ct_dtype_name, (ct_dtype dtype), (dtype))                                      \
    X(int, ct_dtype_block_values, (ct_dtype dtype), (dtype))                                       \
    X(size_t, ct_dtype_block_bytes, (ct_dtype dtype), (dtype))                                     \
    X(ct_status, ct_dtype_row_bytes, (size_t * out, ct_dtype dtype, int64_t n), (out, dtype, n))   \
    X(float, ct_f16_to_f32, (uint16_t bits), (bits))                                               \
    X(uint16_t, ct_f16_from_f32, (float value), (value))                                           \
    X(uint16_t, ct_bf16_from_f32, (float value), (value))                                          \
    X(ct_storage *, ct_storage_ref, (ct_storage * storage), (storage))                             \
    X(void, ct_storage_unref, (ct_storage * *storage), (storage))                                  \
    X(ct_tensor *, ct_tensor_ref, (ct_tensor * tensor), (tensor))                                  \
    X(void, ct_tensor_unref, (ct_tensor * *tensor), (tensor))                                      \
    X(void *, ct_tensor_data, (const ct_tensor *tensor), (tensor))                                 \
    X(int64_t, ct_tensor_size, (const ct_tensor *tensor), (tensor))                                \
    X(size_t, ct_tensor_bytes, (const ct_tensor *tensor), (tensor))                                \
    X(bool, ct_tensor_is_contiguous, (const ct_tensor *tensor), (tensor))                          \
    X(ct_status, ct_tensor_contiguous, (ct_tensor * *out, const ct_tensor *tensor), (out, tensor)) \
    X(ct_status, ct_tensor_convert, (ct_tensor * *out, const ct_tensor *tensor, ct_dtype dtype),   \
      (out, tensor, dtype))                                                                        \
    X(int64_t, ct_scales_count, (const ct_scales *scales), (scales))                               \
    X(void, ct_scales_restore, (float *dst, const ct_scales *scales, int64_t first, int64_t n),    \
      (dst, scales, first, n))                                                                     \
    X(const float *, ct_bnb_codebook, (ct_dtype format), (format))

#define CT_SERVICE_MEMBER(result, name, parameters, names) result(*name) parameters;
typedef struct ct_services {
    ct_status (*fail)(ct_status code, const char *text); /* ct_fail of a text that is complete */
    CT_SERVICES(CT_SERVICE_MEMBER)
} ct_services;
#undef CT_SERVICE_MEMBER

typedef struct ct_plugin {
    uint32_t abi;  /* CT_PLUGIN_ABI */
    uint32_t size; /* sizeof(ct_plugin) */
    uint32_t services_size;
    const ct_ops *ops;
    /* Before anything of `ops` is called; the table stays valid. */
    void (*connect)(const ct_services *services);
} ct_plugin;

/* The one symbol of a plugin: const ct_plugin *ct_plugin_entry(void). */
#define CT_PLUGIN_ENTRY "ct_plugin_entry"
typedef const ct_plugin *ct_plugin_entry_function(void);

/* `file` is one beside which plugins lie; CT_VALUE when its name is too long. */
CT_MUST_CHECK ct_status ct_plugin_set_neighbour(const char *file);

/* Opens the CUDA plugin, the one that CURATED_TRANSFORMERS_CUDA_PLUGIN names or _cuda.so beside the
 * core, and connects it. CT_UNSUPPORTED says why there is none. One thread at a time. */
CT_MUST_CHECK ct_status ct_plugin_load(const ct_ops **out);

#endif
