/* CPUID and the override of the environment -> the table of kernels that this process uses. */
#ifndef CT_CPU_ISA_SELECT_H
#define CT_CPU_ISA_SELECT_H

#include "core/status.h"
#include "cpu/isa/kernels.h"

/* The table for a level, built once: portable first, then every level up to `isa` that the CPU has.
 * CT_UNSUPPORTED when the CPU does not have `isa`. */
CT_MUST_CHECK ct_status ct_kernels_for(ct_isa isa, const ct_kernels **out);

/* The best level of this CPU, lowered to CURATED_TRANSFORMERS_ISA where that is set. CT_VALUE for a
 * name that is none of the levels; CT_UNSUPPORTED for a level above the CPU's. */
CT_MUST_CHECK ct_status ct_kernels_select(ct_isa *isa, const ct_kernels **out);

const char *ct_isa_name(ct_isa isa);

#endif
