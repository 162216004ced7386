/* The tiles of products of bytes on avx2's vectors. Include after int8_step, INT8_INLINE and
 * INT8_FUNCTION. */
#include "cpu/isa/avx2/bytes.h"

/* X(weight rows, rows of x, rows of x that meet the tile afterwards): 16 registers have to hold
 * their sums, the weights and their magnitudes. */
#define INT8_TILES(X)                                                                              \
    X(1, 1, 0) X(2, 2, 0) X(2, 3, 0) X(2, 4, 0) X(2, 4, 1) X(2, 4, 2) X(2, 4, 3) X(2, 4, 4)

#include "cpu/isa/int8_tile_body.h"
