/* The rowwise kernels on avx2's vectors. */
#include "cpu/isa/avx2/table.h"
#include "cpu/isa/avx2/vector.h"

#include "cpu/isa/rowwise_body.h"

void ct_avx2_fill_rowwise(ct_kernels *table)
{
    fill_rowwise(table);
}
