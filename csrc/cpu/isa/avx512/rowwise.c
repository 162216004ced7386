/* The rowwise kernels on avx512's vectors. */
#include "cpu/isa/avx512/table.h"
#include "cpu/isa/avx512/vector.h"

#include "cpu/isa/rowwise_body.h"

void ct_avx512_fill_rowwise(ct_kernels *table)
{
    fill_rowwise(table);
}
