/* Products with quantized weights on NEON's vectors. */
#include "cpu/isa/neon/blocks.h"
#include "cpu/isa/neon/table.h"
#include "cpu/isa/neon/vector.h"

/* X(weight rows, rows of x, rows of x that meet the tile afterwards) */
#define BLOCK_TILES(X)                                                                             \
    X(2, 1, 0) X(4, 2, 0) X(2, 3, 0) X(2, 4, 0) X(2, 4, 1) X(2, 4, 2) X(2, 4, 3) X(2, 4, 4)

#include "cpu/isa/gemv_quant_body.h"

void ct_neon_fill_gemv_quant(ct_kernels *table)
{
    fill_gemv_quant(table);
}
