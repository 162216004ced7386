/* Fills the table with the formulas. Every member is set here, so that a faster level only has to
 * bring what it does better. */
#include "cpu/isa/portable/table.h"

void ct_kernels_portable(ct_kernels *table)
{
    *table = (ct_kernels){.name = "portable"};
    ct_portable_fill_convert(table);
    ct_portable_fill_gemm(table);
    ct_portable_fill_gemv(table);
    ct_portable_fill_gemv_int16(table);
    ct_portable_fill_codebook(table);
    ct_portable_fill_int8(table);
    ct_portable_fill_tile(table);
    ct_portable_fill_rowwise(table);
}
