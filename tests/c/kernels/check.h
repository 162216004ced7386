/* What the checks of kernels share: the list of cases, operands between inaccessible pages, inputs
 * and comparisons.
 *
 * A case covers one member of ct_kernels. `check` compares a level's pointer with the portable one
 * and reports through FAIL and CHECK of test.h; `bench` times it. To add a case, write both in the
 * file of the member's idea and name them in that file's list: check_kernels.c fails as long as a
 * pointer of the table belongs to no case. */
#ifndef CT_CHECK_H
#define CT_CHECK_H

#include "../test.h"

#include <stddef.h>

#include "cpu/isa/kernels.h"

typedef struct kernel_case {
    const char *name;
    size_t offset, size; /* of the member in ct_kernels; size 0 ends a list */
    void (*check)(const ct_kernels *level, const ct_kernels *portable);
    void (*bench)(void);
} kernel_case;

/* clang-format off */
#define KERNEL_CASE(member) \
    {#member, offsetof(ct_kernels, member), sizeof(((ct_kernels *)0)->member), check_##member, bench_##member}
#define KERNEL_CASES_END {NULL, 0, 0, NULL, NULL}
/* clang-format on */

extern const kernel_case cases_gemv[], cases_gemv_int16[], cases_gemm[], cases_codebook[],
    cases_int8[], cases_convert[], cases_tile[], cases_norm[], cases_elementwise[],
    cases_exponential[];

/* True from the first failure of the running case on: a loop over many inputs may end there. */
bool case_failed(void);

/* 1 .. two vectors + 1 of the widest level, and some larger. */
extern const int64_t check_widths[];
extern const int n_check_widths;

/* ---- operands ---- */

/* Where an operand lies. Each operand has pages of its own between two inaccessible ones, so that
 * an access too far ends the program; in the middle it shows in the bytes around the operand. */
typedef enum placement {
    AT_END,   /* its last byte is the last accessible one */
    AT_START, /* its first byte is the first accessible one */
    INSIDE,   /* one element behind a cache line's begin, unless wider elements align it more */
    N_PLACEMENTS
} placement;

typedef struct operand {
    char *pages;
    size_t capacity;
    char *data;
    size_t n_bytes;
} operand;

/* `n_bytes` at `where`, valid until the next call for the same operand. What surrounds them, and
 * they themselves, is filled with bytes FENCE: a NaN in every float type. */
#define FENCE 0xff
void *operand_place(operand *o, placement where, size_t n_bytes, size_t element);
float *operand_floats(operand *o, placement where, int64_t n);

/* Whether the bytes around the operand, and those between rows of `row_bytes` that lie `stride`
 * bytes apart, are as operand_place left them. */
bool operand_intact(const operand *o);
bool gaps_intact(const operand *o, size_t row_bytes, size_t stride);

/* ---- inputs, the same in every run ---- */

uint64_t random_bits(void);
int64_t random_below(int64_t n);
/* Uniform in [-scale, scale). */
float random_float(double scale);
void fill_random(float *x, int64_t n, double scale);
/* Whole numbers in [-limit, limit]: their sums of products are exact in any order. */
void fill_whole(float *x, int64_t n, int limit);
/* Zeros, subnormals, infinities, NaN, the largest values, ties of the narrow types, and magnitudes
 * of all sizes. */
void fill_awkward(float *x, int64_t n);
/* A row of blocks of a GGUF file for k values of the order of 1; whole ones, of which products with
 * whole numbers of a few bits have exact sums, where `whole`. */
void fill_gguf_row(char *w, ct_dtype dtype, int64_t k, bool whole);
float awkward_float(void);

/* ---- comparisons ---- */

uint32_t float_bits(float value);
/* Equal bits, or both NaN. */
bool same(float got, float wanted);
/* Both NaN, the same infinity, or within the tolerance. */
bool close_to(float got, float wanted, double tolerance);
/* The first of n at which same() is false, or -1. */
int64_t first_difference(const float *got, const float *wanted, int64_t n);

#define EPS 0x1p-24 /* relative error of one rounding to f32 */
#define TINY 0x1p-149

/* ---- timing ---- */

/* Times run(level, operands) for every level and prints a line, where the filter allows. `amount`
 * is what one call does, in `unit`s of "B", "elem" or "FLOP". */
void bench(const char *label, double amount, const char *unit,
           void (*run)(const ct_kernels *level, void *operands), void *operands);
bool bench_wants(const char *label);
/* For operands of benchmarks; random floats in (-1, 1). Freed by the caller. */
float *bench_floats(int64_t n);

#endif
