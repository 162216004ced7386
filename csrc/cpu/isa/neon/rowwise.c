/* The rowwise kernels on NEON's vectors. */
#include "cpu/isa/neon/table.h"
#include "cpu/isa/neon/vector.h"

#include "cpu/isa/rowwise_body.h"

void ct_neon_fill_rowwise(ct_kernels *table)
{
    fill_rowwise(table);
}
