/* The NEON kernels, by the file that they stand in. */
#ifndef CT_CPU_ISA_NEON_TABLE_H
#define CT_CPU_ISA_NEON_TABLE_H

#include "cpu/isa/kernels.h"

void ct_neon_fill_convert(ct_kernels *table);
void ct_neon_fill_gemm(ct_kernels *table);
void ct_neon_fill_gemv(ct_kernels *table);
void ct_neon_fill_gemv_quant(ct_kernels *table);
void ct_neon_fill_codebook(ct_kernels *table);
void ct_neon_fill_int8(ct_kernels *table);
void ct_neon_fill_int8_dot(ct_kernels *table);
void ct_neon_fill_tile(ct_kernels *table);
void ct_neon_fill_rowwise(ct_kernels *table);

#endif
