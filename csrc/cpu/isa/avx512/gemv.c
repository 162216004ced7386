/* Products with f32, f16 and bf16 weights on avx512's vectors. */
#include "cpu/isa/avx512/table.h"
#include "cpu/isa/avx512/vector.h"

/* X(weight rows, rows of x, rows of x that meet the tile afterwards). More weight rows would fit,
 * but then the next tile is too far ahead for the first-level cache. For a single row of x one
 * weight row after the other keeps up with memory, and is what the processor prefetches best. */
#define FLOAT_TILES(X)                                                                             \
    X(1, 1, 0) X(4, 2, 0) X(4, 3, 0) X(4, 4, 0) X(4, 5, 0) X(4, 6, 0) X(4, 4, 3) X(4, 4, 4)

#include "cpu/isa/gemv_body.h"

void ct_avx512_fill_gemv(ct_kernels *table)
{
    fill_gemv(table);
}
