/* Products with f32, f16 and bf16 weights on NEON's vectors. */
#include "cpu/isa/neon/table.h"
#include "cpu/isa/neon/vector.h"

/* X(weight rows, rows of x, rows of x that meet the tile afterwards): 32 registers have to hold
 * their sums, the rows of x and a vector of weights. */
#define FLOAT_TILES(X)                                                                             \
    X(8, 1, 0) X(4, 2, 0) X(4, 3, 0) X(4, 4, 0) X(4, 5, 0) X(4, 6, 0) X(4, 4, 3) X(4, 4, 4)

#include "cpu/isa/gemv_body.h"

void ct_neon_fill_gemv(ct_kernels *table)
{
    fill_gemv(table);
}
