/* One row for each quantized format. */
#include "quant/format.h"

#include "quant/gguf_blocks.h"
#include "quant/gguf_kquants.h"

static const ct_format formats[] = {
    {CT_Q8_0, ct_q8_0_dequantize, ct_q8_0_quantize},
    {CT_Q4_0, ct_q4_0_dequantize, ct_q4_0_quantize},
    {CT_Q4_1, ct_q4_1_dequantize, ct_q4_1_quantize},
    {CT_Q5_0, ct_q5_0_dequantize, ct_q5_0_quantize},
    {CT_Q5_1, ct_q5_1_dequantize, ct_q5_1_quantize},
    {CT_Q4_K, ct_q4_k_dequantize, ct_q4_k_quantize},
    {CT_Q5_K, ct_q5_k_dequantize, ct_q5_k_quantize},
    {CT_Q6_K, ct_q6_k_dequantize, ct_q6_k_quantize},
};

const ct_format *ct_format_get(ct_dtype dtype)
{
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (formats[i].dtype == dtype)
            return &formats[i];
    return NULL;
}
