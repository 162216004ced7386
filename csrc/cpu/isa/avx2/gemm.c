/* Products of many rows on avx2's vectors. */
#include "cpu/isa/avx2/table.h"
#include "cpu/isa/avx2/vector.h"

/* 16 registers hold the sums of 3 by 4 products, the rows of x and a vector of weights. */
#define GEMM_X 3
#define GEMM_W 4

#include "cpu/isa/gemm_body.h"

void ct_avx2_fill_gemm(ct_kernels *table)
{
    fill_gemm(table);
}
