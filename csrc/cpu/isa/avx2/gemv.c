/* Products with f32, f16 and bf16 weights on avx2's vectors. */
#include "cpu/isa/avx2/table.h"
#include "cpu/isa/avx2/vector.h"

/* X(weight rows, rows of x, rows of x that meet the tile afterwards): 16 registers have to hold
 * their sums, the rows of x and a vector of weights. */
#define FLOAT_TILES(X)                                                                             \
    X(4, 1, 0) X(4, 2, 0) X(3, 3, 0) X(2, 4, 0) X(2, 4, 1) X(2, 4, 2) X(2, 4, 3) X(2, 4, 4)

#include "cpu/isa/gemv_body.h"

void ct_avx2_fill_gemv(ct_kernels *table)
{
    fill_gemv(table);
}
