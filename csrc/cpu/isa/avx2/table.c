/* What avx2 does better than the level below it. */
#include "cpu/isa/avx2/table.h"

void ct_kernels_avx2(ct_kernels *table)
{
    table->name = "avx2";
    ct_avx2_fill_convert(table);
    ct_avx2_fill_gemm(table);
    ct_avx2_fill_gemv(table);
    ct_avx2_fill_gemv_int16(table);
    ct_avx2_fill_codebook(table);
    ct_avx2_fill_int8(table);
    ct_avx2_fill_int8_vnni(table);
    ct_avx2_fill_tile(table);
    ct_avx2_fill_rowwise(table);
}
