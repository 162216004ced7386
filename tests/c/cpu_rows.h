/* What the tests of the CPU's operations share: every ISA level that this processor has, random
 * rows with guarded gaps, values of any element type as double. */
#ifndef CT_TEST_CPU_ROWS_H
#define CT_TEST_CPU_ROWS_H

#include "test.h"

#include <stdlib.h>

#include "core/cpuinfo.h"
#include "core/memory.h"
#include "core/threads.h"
#include "cpu/device.h"
#include "cpu/onednn.h"
#include "staged.h"

#define GUARD 0x5a /* each byte of a gap */

/* The levels to test, best first: oneDNN settles on the first one it meets. */
static const char *const cpu_levels[] = {"", "avx2", "portable"};
#define N_CPU_LEVELS (sizeof cpu_levels / sizeof *cpu_levels)

/* The operations at a level, or NULL where the processor does not have it. */
static inline const ct_ops *cpu_ops_at(const char *level)
{
    const ct_ops *ops;
    if (strcmp(level, "avx2") == 0 && !ct_cpuinfo_get()->avx2)
        return NULL;
    setenv("CURATED_TRANSFORMERS_ISA", level, 1);
    return ct_cpu_ops(&ops) == CT_OK ? ops : NULL;
}

#ifdef CT_WITH_CUDA /* the operations of cuda/, on a GPU or as fibers on the host */
static inline void at_cuda(void (*test)(const ct_ops *ops, const char *level), const char *level)
{
    const ct_ops *ops;
    CHECK_OK(staged_enter(&ops));
    test(ops, level);
    staged_leave();
}
#endif

static inline void at_cpu_levels(void (*test)(const ct_ops *ops, const char *level))
{
    const char *before = getenv("CURATED_TRANSFORMERS_ISA");
    char *kept = strdup(before ? before : "");
    for (size_t i = 0; i < N_CPU_LEVELS; i++) {
        const ct_ops *ops = cpu_ops_at(*kept && i == 0 ? kept : cpu_levels[i]);
        if (ops)
            test(ops, *cpu_levels[i] ? cpu_levels[i] : "best");
    }
    cpu_ops_at(kept);
    ct_onednn_trim(); /* kept primitives would count as leaks */
    if (!before)
        unsetenv("CURATED_TRANSFORMERS_ISA");
    free(kept);
}

/* Runs test(ops, level) at every level, and leaves the level that the environment had. With a GPU
 * only there: its time is dear, and the CPU's levels need none. */
static inline void at_every_level(void (*test)(const ct_ops *ops, const char *level))
{
#if !defined(CT_WITH_CUDA) || defined(CT_CUDA_ON_HOST)
    at_cpu_levels(test);
#endif
#ifdef CT_WITH_CUDA
    setenv("CURATED_TRANSFORMERS_CUBLAS", "0", 1); /* our own kernels */
    at_cuda(test, "cuda");
    unsetenv("CURATED_TRANSFORMERS_CUBLAS");
#endif
}

#define WITH_CUBLAS "cuda, cuBLASLt"
#define FEW_ROWS 8 /* up to which nobody uses it */

/* Products at every level, and on CUDA once more with cuBLASLt; that a row's bits depend on it
 * alone is not among what it promises. */
static inline void at_every_level_of_products(void (*test)(const ct_ops *ops, const char *level))
{
    at_every_level(test);
#ifdef CT_WITH_CUDA
    at_cuda(test, WITH_CUBLAS);
#endif
}

/* What a value becomes in a type of 16 bits, or itself. */
static inline double rounded_to(ct_dtype dtype, double value)
{
    return dtype == CT_BF16  ? ct_bf16_to_f32(ct_bf16_from_f32((float)value))
           : dtype == CT_F16 ? ct_f16_to_f32(ct_f16_from_f32((float)value))
                             : value;
}

/* xorshift64*: the same numbers everywhere. */
static inline double random_uniform(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return (double)(*state * 2685821657736338717u >> 11) * 0x1p-53;
}

/* Mean 0, between -scale and scale. */
static inline float random_value(uint64_t *state, double scale)
{
    return (float)((2 * random_uniform(state) - 1) * scale);
}

static inline int64_t value_bytes(ct_dtype dtype)
{
    return (int64_t)ct_dtype_block_bytes(dtype);
}

static inline double get_value(const void *values, ct_dtype dtype, int64_t i)
{
    if (dtype == CT_F32)
        return ((const float *)values)[i];
    uint16_t bits = ((const uint16_t *)values)[i];
    return dtype == CT_F16 ? ct_f16_to_f32(bits) : ct_bf16_to_f32(bits);
}

static inline void set_value(void *values, ct_dtype dtype, int64_t i, float value)
{
    if (dtype == CT_F32)
        ((float *)values)[i] = value;
    else
        ((uint16_t *)values)[i] =
            dtype == CT_F16 ? ct_f16_from_f32(value) : ct_bf16_from_f32(value);
}

static inline double row_value(const ct_rows *rows, int64_t row, int64_t column)
{
    return get_value(rows->data, rows->dtype, row * rows->stride + column);
}

/* Rows on the heap, `gap` elements of guard behind each; freed by free(rows.data). */
static inline ct_rows new_rows(ct_dtype dtype, int64_t n_rows, int64_t width, int64_t gap)
{
    ct_rows rows = {NULL, dtype, n_rows, width, width + gap};
    size_t size = (size_t)(n_rows * rows.stride * value_bytes(dtype));
    rows.data = malloc(size + 1);
    memset(rows.data, GUARD, size);
    return rows;
}

static inline ct_rows random_rows(uint64_t *state, ct_dtype dtype, int64_t n_rows, int64_t width,
                                  int64_t gap, double scale)
{
    ct_rows rows = new_rows(dtype, n_rows, width, gap);
    for (int64_t i = 0; i < n_rows; i++)
        for (int64_t j = 0; j < width; j++)
            set_value(rows.data, dtype, i * rows.stride + j, random_value(state, scale));
    return rows;
}

static inline bool gaps_untouched(const ct_rows *rows)
{
    const unsigned char *bytes = rows->data;
    int64_t value = value_bytes(rows->dtype);
    for (int64_t i = 0; i < rows->n_rows; i++)
        for (int64_t j = (i * rows->stride + rows->width) * value;
             j < (i + 1) * rows->stride * value; j++)
            if (bytes[j] != GUARD)
                return false;
    return true;
}

/* Half a unit in the last place of bf16, relative; 0 for f32. */
static inline double rounding_of(ct_dtype dtype)
{
    return dtype == CT_BF16 ? 0x1p-8 : dtype == CT_F16 ? 0x1p-11 : 0;
}

#endif
