/* The avx512 kernels, by the file that they stand in. */
#ifndef CT_CPU_ISA_AVX512_TABLE_H
#define CT_CPU_ISA_AVX512_TABLE_H

#include "cpu/isa/kernels.h"

void ct_avx512_fill_convert(ct_kernels *table);
void ct_avx512_fill_gemm(ct_kernels *table);
void ct_avx512_fill_gemv(ct_kernels *table);
void ct_avx512_fill_gemv_quant(ct_kernels *table);
void ct_avx512_fill_codebook(ct_kernels *table);
void ct_avx512_fill_dot_vnni(ct_kernels *table); /* nothing without VNNI */
void ct_avx512_fill_tile(ct_kernels *table);
void ct_avx512_fill_rowwise(ct_kernels *table);

#endif
