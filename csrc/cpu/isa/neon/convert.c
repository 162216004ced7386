/* Conversions on NEON's vectors. */
#include "cpu/isa/neon/blocks.h"
#include "cpu/isa/neon/table.h"
#include "cpu/isa/neon/vector.h"

#include "cpu/isa/convert_body.h"

void ct_neon_fill_convert(ct_kernels *table)
{
    fill_convert(table);
}
