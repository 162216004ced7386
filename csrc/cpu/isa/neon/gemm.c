/* Products of many rows on NEON's vectors. */
#include "cpu/isa/neon/table.h"
#include "cpu/isa/neon/vector.h"

/* 32 registers hold the sums of 6 by 4 products, the rows of x and a vector of weights. */
#define GEMM_X 6
#define GEMM_W 4

#include "cpu/isa/gemm_body.h"

void ct_neon_fill_gemm(ct_kernels *table)
{
    fill_gemm(table);
}
