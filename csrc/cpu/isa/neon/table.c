/* What NEON does better than the portable level. */
#include "cpu/isa/neon/table.h"

void ct_kernels_neon(ct_kernels *table)
{
    table->name = "neon";
    ct_neon_fill_convert(table);
    ct_neon_fill_gemm(table);
    ct_neon_fill_gemv(table);
    ct_neon_fill_gemv_quant(table);
    ct_neon_fill_codebook(table);
    ct_neon_fill_int8(table);
    ct_neon_fill_int8_dot(table);
    ct_neon_fill_tile(table);
    ct_neon_fill_rowwise(table);
}
