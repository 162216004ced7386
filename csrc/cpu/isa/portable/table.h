/* The portable kernels, by the file that they stand in. */
#ifndef CT_CPU_ISA_PORTABLE_TABLE_H
#define CT_CPU_ISA_PORTABLE_TABLE_H

#include "cpu/isa/kernels.h"

void ct_portable_fill_convert(ct_kernels *table);
void ct_portable_fill_gemm(ct_kernels *table);
void ct_portable_fill_gemv(ct_kernels *table);
void ct_portable_fill_gemv_int16(ct_kernels *table);
void ct_portable_fill_codebook(ct_kernels *table);
void ct_portable_fill_int8(ct_kernels *table);
void ct_portable_fill_tile(ct_kernels *table);
void ct_portable_fill_rowwise(ct_kernels *table);

#endif
