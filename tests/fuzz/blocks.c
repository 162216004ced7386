/* Blocks of the quantized formats, any bytes: every decoder gives the same numbers and reads
 * nothing beside its blocks; the numbers, and any others, quantize to whole blocks again. */
#include "fuzz.h"

#include <math.h>

#include "core/cpuinfo.h"
#include "cpu/isa/avx2/table.h"
#include "cpu/isa/avx512/table.h"
#include "cpu/isa/neon/table.h"
#include "cpu/isa/portable/table.h"
#include "quant/format.h"

/* The conversions of every level that this processor has; the rest of their tables is not built. */
static int fill_tables(ct_kernels *tables)
{
    int n = 0;
    ct_portable_fill_convert(&tables[n++]);
#ifdef __x86_64__
    if (ct_cpuinfo_get()->avx2)
        ct_avx2_fill_convert(&tables[n++]);
    if (ct_cpuinfo_get()->avx512)
        ct_avx512_fill_convert(&tables[n++]);
#endif
#ifdef __aarch64__
    ct_neon_fill_convert(&tables[n++]);
#endif
    return n;
}

/* Equal, or both NaN. */
static bool agree(const float *a, const float *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (a[i] != b[i] && !(isnan(a[i]) && isnan(b[i])))
            return false;
    return true;
}

static void *block_of(size_t size)
{
    void *block = malloc(size ? size : 1);
    MUST(block);
    return block;
}

static ct_kernels tables[CT_ISA_COUNT];
static int n_tables;

static void decode(const ct_format *format, const fuzz_input *input)
{
    size_t n_bytes = ct_dtype_block_bytes(format->dtype);
    int64_t n = (int64_t)(input->size / n_bytes) * ct_dtype_block_values(format->dtype);
    fuzz_input whole = {input->data, input->size / n_bytes * n_bytes};
    float *expected = block_of((size_t)n * sizeof *expected), *values = block_of((size_t)n * 4);
    void *blocks = fuzz_rest(&whole), *again = block_of(whole.size);
    format->dequantize(expected, blocks, n);
    for (int i = 0; i < n_tables; i++) {
        tables[i].to_f32[format->dtype](values, blocks, n);
        MUST(agree(values, expected, n));
    }
    format->quantize(again, expected, n);
    format->dequantize(values, again, n);
    free(expected);
    free(values);
    free(blocks);
    free(again);
}

/* The bytes as floats: also NaN, infinities and the smallest. */
static void encode(const ct_format *format, const fuzz_input *input)
{
    int64_t block = ct_dtype_block_values(format->dtype);
    int64_t n = (int64_t)(input->size / sizeof(float)) / block * block;
    fuzz_input whole = {input->data, (size_t)n * sizeof(float)};
    size_t size;
    MUST(ct_dtype_row_bytes(&size, format->dtype, n) == CT_OK);
    float *values = fuzz_rest(&whole);
    void *blocks = block_of(size);
    format->quantize(blocks, values, n);
    format->dequantize(values, blocks, n);
    free(values);
    free(blocks);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_input input = {data, size};
    if (n_tables == 0)
        n_tables = fill_tables(tables);
    uint8_t way = fuzz_byte(&input);
    const ct_format *format = ct_format_get((ct_dtype)(way / 2 % CT_DTYPE_COUNT));
    if (!format)
        return -1; /* not worth keeping */
    if (way % 2)
        encode(format, &input);
    else
        decode(format, &input);
    return 0;
}
