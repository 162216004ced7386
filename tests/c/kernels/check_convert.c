/* Conversions of rows: exact, so that results have to be equal bit for bit. */
#include "check.h"

#include <stdlib.h>

#define CHUNK 4096

static operand source, target;
static float wanted[CHUNK];

static void compare_to_f32(const ct_kernels *level, const ct_kernels *portable, ct_dtype dtype,
                           int64_t n, bool every_nan_equal)
{
    float *got = (float *)target.data;
    portable->to_f32[dtype](wanted, source.data, n);
    level->to_f32[dtype](got, source.data, n);
    CHECK(operand_intact(&source) && operand_intact(&target));
    for (int64_t i = 0; i < n; i++)
        if (every_nan_equal ? !same(got[i], wanted[i])
                            : float_bits(got[i]) != float_bits(wanted[i]))
            FAIL("%s, n %d: element %d is %08x instead of %08x", ct_dtype_name(dtype), (int)n,
                 (int)i, float_bits(got[i]), float_bits(wanted[i]));
}

/* Random bytes are codes, scales and minima of every kind, infinities and NaN among them. */
static void widths_to_f32(const ct_kernels *level, const ct_kernels *portable, ct_dtype dtype)
{
    int64_t block = ct_dtype_block_values(dtype);
    for (int w = 0; w < n_check_widths && !case_failed(); w++)
        for (int where = 0; where < N_PLACEMENTS; where++) {
            int64_t n = block == 1 ? check_widths[w] : (1 + w % (CHUNK / block)) * block;
            size_t n_bytes = (size_t)(n / block) * ct_dtype_block_bytes(dtype);
            size_t element = block == 1 ? ct_dtype_block_bytes(dtype) : 1;
            char *src = operand_place(&source, (placement)where, n_bytes, element);
            for (size_t i = 0; i < n_bytes; i++)
                src[i] = (char)random_bits();
            operand_floats(&target, (placement)where, n);
            compare_to_f32(level, portable, dtype, n, block > 1);
        }
}

static void all_16_bit_patterns(const ct_kernels *level, const ct_kernels *portable, ct_dtype dtype)
{
    for (int32_t first = 0; first < 0x10000 && !case_failed(); first += CHUNK) {
        uint16_t *src = operand_place(&source, AT_END, sizeof *src * CHUNK, sizeof *src);
        for (int32_t i = 0; i < CHUNK; i++)
            src[i] = (uint16_t)(first + i);
        operand_floats(&target, AT_END, CHUNK);
        compare_to_f32(level, portable, dtype, CHUNK, false);
    }
}

static void check_to_f32(const ct_kernels *level, const ct_kernels *portable)
{
    for (int i = 0; i < CT_DTYPE_COUNT && !case_failed(); i++) {
        ct_dtype dtype = (ct_dtype)i;
        if (!portable->to_f32[i])
            continue;
        widths_to_f32(level, portable, dtype);
        if (dtype == CT_F16 || dtype == CT_BF16)
            all_16_bit_patterns(level, portable, dtype);
    }
}

static void compare_from_f32(const ct_kernels *level, const ct_kernels *portable, ct_dtype dtype,
                             int64_t n)
{
    portable->from_f32[dtype](wanted, (const float *)source.data, n);
    level->from_f32[dtype](target.data, (const float *)source.data, n);
    CHECK(operand_intact(&source) && operand_intact(&target));
    size_t size = ct_dtype_block_bytes(dtype);
    for (int64_t i = 0; i < n; i++)
        if (memcmp(target.data + (size_t)i * size, (char *)wanted + (size_t)i * size, size) != 0)
            FAIL("%s, n %d: element %d, %08x, is rounded differently", ct_dtype_name(dtype), (int)n,
                 (int)i, float_bits(((const float *)source.data)[i]));
}

/* Every upper half of an f32 with the lower halves between which rounding decides: about the ties
 * of bf16 (0x8000) and of f16 (0x1000, 0x3000). The subnormals of f16 have their ties anywhere. */
static void all_roundings(const ct_kernels *level, const ct_kernels *portable, ct_dtype dtype)
{
    static const uint16_t low[] = {0,      1,      0x0fff, 0x1000, 0x1001, 0x2fff, 0x3000, 0x3001,
                                   0x7fff, 0x8000, 0x8001, 0xcfff, 0xd000, 0xefff, 0xf000, 0xffff};
    for (uint32_t first = 0; first < 0x10000 && !case_failed(); first += CHUNK / 16) {
        float *src = operand_floats(&source, AT_END, CHUNK);
        operand_place(&target, AT_END, CHUNK * ct_dtype_block_bytes(dtype), 1);
        for (uint32_t i = 0; i < CHUNK; i++) {
            uint32_t bits = (first + i / 16) << 16 | low[i % 16];
            memcpy(&src[i], &bits, sizeof bits);
        }
        compare_from_f32(level, portable, dtype, CHUNK);
    }
}

static void check_from_f32(const ct_kernels *level, const ct_kernels *portable)
{
    for (int i = 0; i < CT_DTYPE_COUNT && !case_failed(); i++) {
        ct_dtype dtype = (ct_dtype)i;
        if (!portable->from_f32[i])
            continue;
        for (int w = 0; w < n_check_widths && !case_failed(); w++)
            for (int where = 0; where < N_PLACEMENTS; where++) {
                int64_t n = check_widths[w];
                size_t size = ct_dtype_block_bytes(dtype);
                fill_awkward(operand_floats(&source, (placement)where, n), n);
                operand_place(&target, (placement)where, size * (size_t)n, size);
                compare_from_f32(level, portable, dtype, n);
            }
        all_roundings(level, portable, dtype);
    }
}

/* ---- timing ---- */

typedef struct timed {
    ct_dtype dtype;
    int64_t n;
    float *floats;
    void *others;
} timed;

static void run_to_f32(const ct_kernels *level, void *operands)
{
    timed *t = operands;
    level->to_f32[t->dtype](t->floats, t->others, t->n);
}

static void run_from_f32(const ct_kernels *level, void *operands)
{
    timed *t = operands;
    level->from_f32[t->dtype](t->others, t->floats, t->n);
}

static void bench_rows(const char *member, bool quantized_too,
                       void (*run)(const ct_kernels *, void *))
{
    timed t = {.n = 4096};
    t.floats = bench_floats(t.n);
    t.others = bench_floats(t.n);
    memset(t.others, 0x2c, sizeof(float) * (size_t)t.n);
    for (int i = 0; i < CT_DTYPE_COUNT; i++) {
        t.dtype = (ct_dtype)i;
        bool in_blocks = ct_dtype_is_quantized(t.dtype) && !ct_dtype_has_scales(t.dtype);
        if (!ct_dtype_is_float(t.dtype) && !(quantized_too && in_blocks))
            continue;
        char label[64];
        snprintf(label, sizeof label, "%s %s %d", member, ct_dtype_name(t.dtype), (int)t.n);
        bench(label, (double)t.n, "elem", run, &t);
    }
    free(t.floats);
    free(t.others);
}

static void bench_to_f32(void)
{
    bench_rows("to_f32", true, run_to_f32);
}

static void bench_from_f32(void)
{
    bench_rows("from_f32", false, run_from_f32);
}

const kernel_case cases_convert[] = {KERNEL_CASE(to_f32), KERNEL_CASE(from_f32), KERNEL_CASES_END};
