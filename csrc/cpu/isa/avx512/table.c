/* What avx512 does better than the level below it. */
#include "cpu/isa/avx512/table.h"

void ct_kernels_avx512(ct_kernels *table)
{
    table->name = "avx512";
    ct_avx512_fill_convert(table);
    ct_avx512_fill_gemm(table);
    ct_avx512_fill_gemv(table);
    ct_avx512_fill_gemv_quant(table);
    ct_avx512_fill_codebook(table);
    ct_avx512_fill_dot_vnni(table);
    ct_avx512_fill_tile(table);
    ct_avx512_fill_rowwise(table);
}
