/* The attention's products on avx512's vectors. */
#include "cpu/isa/avx512/table.h"
#include "cpu/isa/avx512/vector.h"

#include "cpu/isa/tile_body.h"

void ct_avx512_fill_tile(ct_kernels *table)
{
    table->gemm_tile = gemm_tile;
}
