/* Products with quantized weights on avx2's vectors. */
#include "cpu/isa/avx2/blocks.h"
#include "cpu/isa/avx2/table.h"
#include "cpu/isa/avx2/vector.h"

/* X(weight rows, rows of x, rows of x that meet the tile afterwards) */
#define BLOCK_TILES(X)                                                                             \
    X(1, 1, 0) X(2, 2, 0) X(1, 3, 0) X(1, 4, 0) X(1, 4, 1) X(1, 4, 2) X(1, 4, 3) X(1, 4, 4)

#include "cpu/isa/gemv_quant_body.h"

void ct_avx2_fill_gemv_quant(ct_kernels *table)
{
    fill_gemv_quant(table);
}
