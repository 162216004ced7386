/* LLM.int8's products with the instruction that adds up four products of bytes in a lane, which
 * most processors have that are not the oldest. Functions here ask for it, and the table takes them
 * only where the processor has it. */
#include "cpu/isa/neon/table.h"
#include "cpu/isa/neon/vector.h"

#include "core/cpuinfo.h"

#define INT8_FUNCTION __attribute__((target("arch=armv8.2-a+dotprod"))) static
#define INT8_INLINE INT8_FUNCTION inline __attribute__((always_inline))

INT8_INLINE int32x4_t sums_of_4(int32x4_t sums, int8x16_t w, int8x16_t x)
{
    return vdotq_s32(sums, w, x);
}

#include "cpu/isa/neon/int8_tile.h"

void ct_neon_fill_int8_dot(ct_kernels *table)
{
    if (ct_cpuinfo_get()->neon_dot)
        table->gemv_int8 = gemv_int8;
}
