/* The kernels that this process uses, for the files of cpu/. Set once by device.c. */
#ifndef CT_CPU_KERNELS_H
#define CT_CPU_KERNELS_H

#include "cpu/isa/kernels.h"

extern const ct_kernels *ct_cpu_kernels;

#endif
