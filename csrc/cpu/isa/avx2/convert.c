/* Conversions on avx2's vectors. */
#include "cpu/isa/avx2/blocks.h"
#include "cpu/isa/avx2/table.h"
#include "cpu/isa/avx2/vector.h"

#include "cpu/isa/convert_body.h"

void ct_avx2_fill_convert(ct_kernels *table)
{
    fill_convert(table);
}
