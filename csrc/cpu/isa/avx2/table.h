/* The avx2 kernels, by the file that they stand in. */
#ifndef CT_CPU_ISA_AVX2_TABLE_H
#define CT_CPU_ISA_AVX2_TABLE_H

#include "cpu/isa/kernels.h"

void ct_avx2_fill_convert(ct_kernels *table);
void ct_avx2_fill_gemm(ct_kernels *table);
void ct_avx2_fill_gemv(ct_kernels *table);
void ct_avx2_fill_gemv_int16(ct_kernels *table);
void ct_avx2_fill_codebook(ct_kernels *table);
void ct_avx2_fill_int8(ct_kernels *table);
void ct_avx2_fill_int8_vnni(ct_kernels *table);
void ct_avx2_fill_tile(ct_kernels *table);
void ct_avx2_fill_rowwise(ct_kernels *table);

#endif
