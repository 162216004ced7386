/* LLM.int8's products on NEON's vectors. */
#include "cpu/isa/neon/table.h"
#include "cpu/isa/neon/vector.h"

#define INT8_FUNCTION static
#define INT8_INLINE INT8_FUNCTION inline __attribute__((always_inline))

/* Two products of 127 and -128 fit 16 bits. */
INT8_INLINE int32x4_t sums_of_4(int32x4_t sums, int8x16_t w, int8x16_t x)
{
    int16x8_t pairs = vmull_s8(vget_low_s8(w), vget_low_s8(x));
    return vpadalq_s16(sums, vmlal_high_s8(pairs, w, x));
}

#include "cpu/isa/neon/int8_tile.h"

void ct_neon_fill_int8(ct_kernels *table)
{
    table->gemv_int8 = gemv_int8;
}
