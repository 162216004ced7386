/* The attention's products on avx2's vectors. */
#include "cpu/isa/avx2/table.h"
#include "cpu/isa/avx2/vector.h"

#include "cpu/isa/tile_body.h"

void ct_avx2_fill_tile(ct_kernels *table)
{
    table->gemm_tile = gemm_tile;
}
