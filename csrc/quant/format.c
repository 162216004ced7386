/* One row for each quantized format. */
#include "quant/format.h"

#include "quant/gguf_blocks.h"

static const ct_format formats[] = {
    {CT_Q8_0, ct_q8_0_dequantize, ct_q8_0_quantize},
    {CT_Q4_0, ct_q4_0_dequantize, ct_q4_0_quantize},
    {CT_Q4_1, ct_q4_1_dequantize, ct_q4_1_quantize},
};

const ct_format *ct_format_get(ct_dtype dtype)
{
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (formats[i].dtype == dtype)
            return &formats[i];
    return NULL;
}
