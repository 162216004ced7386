/* The attention's products on NEON's vectors. */
#include "cpu/isa/neon/table.h"
#include "cpu/isa/neon/vector.h"

#include "cpu/isa/tile_body.h"

void ct_neon_fill_tile(ct_kernels *table)
{
    table->gemm_tile = gemm_tile;
}
