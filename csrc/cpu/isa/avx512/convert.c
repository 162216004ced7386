/* Conversions on avx512's vectors. */
#include "cpu/isa/avx512/blocks.h"
#include "cpu/isa/avx512/table.h"
#include "cpu/isa/avx512/vector.h"

#include "cpu/isa/convert_body.h"

void ct_avx512_fill_convert(ct_kernels *table)
{
    fill_convert(table);
}
