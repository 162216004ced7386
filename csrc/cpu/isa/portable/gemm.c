/* Products of many rows on single floats: the blocks serve every processor. */
#include <stdint.h>

#include "cpu/isa/portable/table.h"

#define V_WIDTH 1

typedef float vec;

static inline vec v_load(const float *p)
{
    return *p;
}
static inline vec v_load_n(const float *p, int64_t n)
{
    return n > 0 ? *p : 0;
}
static inline void v_store(float *p, vec a)
{
    *p = a;
}
static inline vec v_set1(float a)
{
    return a;
}
static inline vec v_fma(vec a, vec b, vec c)
{
    return c + a * b; /* in two roundings, as gemv does */
}
static inline float v_sum(vec a)
{
    return a;
}

#define GEMM_X 4
#define GEMM_W 4

#include "cpu/isa/gemm_body.h"

void ct_portable_fill_gemm(ct_kernels *table)
{
    fill_gemm(table);
}
