/* Products of many rows on avx512's vectors. */
#include "cpu/isa/avx512/table.h"
#include "cpu/isa/avx512/vector.h"

/* 32 registers hold the sums of 6 by 4 products, the rows of x and a vector of weights. */
#define GEMM_X 6
#define GEMM_W 4

#include "cpu/isa/gemm_body.h"

void ct_avx512_fill_gemm(ct_kernels *table)
{
    fill_gemm(table);
}
