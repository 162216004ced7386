/* Values of weights in registers. A read takes the bits of several values as they lie; four of them
 * at a time then become floats, still without their scale, which serves all values of a group. */
#ifndef CT_CUDA_DECODE_H
#define CT_CUDA_DECODE_H

#include "device.h"
#include "rows.h"
#include "weights.h"

/* Values of one read: what makes 16 bytes a lane (32 of f32 and q8_0). */
CT_CONSTANT int ct_read_values(ct_dtype dtype)
{
    return ct_code_bits(dtype) ? CT_CHUNK : 8;
}

/* Those of them that share a scale. */
CT_CONSTANT int ct_group_values(ct_dtype dtype)
{
    return dtype == CT_Q6_K ? 16 : ct_read_values(dtype);
}

/* As far as a format has them; the rest takes no registers. */
typedef struct ct_bits {
    uint32_t low[8], high[2], scales, super;
} ct_bits;

CT_DEVICE void ct_read_words(uint32_t *words, const void *address)
{
    uint4 four = ct_load_stream(address);
    words[0] = four.x;
    words[1] = four.y;
    words[2] = four.z;
    words[3] = four.w;
}

/* Eight values of a row of floats at any address, zeros behind its end. */
template <ct_dtype dtype>
CT_DEVICE void ct_read_unaligned(ct_bits *bits, const void *row, int64_t first, int64_t k)
{
    for (int i = 0; i < 8; i++) {
        bool inside = first + i < k;
        if (dtype == CT_F32) {
            bits->low[i] = inside ? ((const uint32_t *)row)[first + i] : 0;
        } else {
            uint32_t value = inside ? ((const uint16_t *)row)[first + i] : 0;
            bits->low[i / 2] = i % 2 ? bits->low[i / 2] | value << 16 : value;
        }
    }
}

template <ct_dtype dtype>
CT_DEVICE void ct_read_floats(ct_bits *bits, const ct_cuda_planes &weight, int64_t row, int step)
{
    constexpr int BYTES = dtype == CT_F32 ? 4 : 2;
    const uint8_t *from = weight.codes + row * weight.k * BYTES;
    if (!weight.aligned) {
        ct_read_unaligned<dtype>(bits, from, (int64_t)step * 8, weight.k);
        return;
    }
    from += (int64_t)step * 8 * BYTES;
    ct_read_words(bits->low, from);
    if (dtype != CT_F32)
        return;
    /* Rows of f32 are aligned when they are multiples of 4 values, and 8 are read. */
    if ((int64_t)step * 8 + 4 < weight.k)
        ct_read_words(bits->low + 4, from + 16);
    else
        for (int i = 4; i < 8; i++)
            bits->low[i] = 0;
}

/* The scales of a chunk; see weights.h. */
template <ct_dtype dtype>
CT_DEVICE void ct_read_scales(ct_bits *bits, const ct_cuda_planes &weight, int64_t chunk)
{
    bits->scales = ct_scale_bytes(dtype) == 4 ? ((const uint32_t *)weight.scales)[chunk]
                                              : ((const uint16_t *)weight.scales)[chunk];
    int64_t super = chunk / (CT_KBLOCK / CT_CHUNK);
    if (ct_super_bytes(dtype) == 4)
        bits->super = ((const uint32_t *)weight.supers)[super];
    if (ct_super_bytes(dtype) == 2)
        bits->super = ((const uint16_t *)weight.supers)[super];
}

/* The values of a row from step * ct_read_values on. */
template <ct_dtype dtype>
CT_DEVICE void ct_read(ct_bits *bits, const ct_cuda_planes &weight, int64_t row, int step)
{
    if constexpr (ct_code_bits(dtype) == 0) {
        ct_read_floats<dtype>(bits, weight, row, step);
    } else {
        int64_t chunk = row * (weight.k / CT_CHUNK) + step;
        const uint8_t *low = weight.codes + chunk * ct_low_bytes(dtype);
        ct_read_words(bits->low, low);
        if (ct_low_bytes(dtype) == 32)
            ct_read_words(bits->low + 4, low + 16);
        if (ct_high_bytes(dtype) == 4)
            bits->high[0] = ((const uint32_t *)weight.high)[chunk];
        if (ct_high_bytes(dtype) == 8) {
            uint64_t both = ((const uint64_t *)weight.high)[chunk];
            bits->high[0] = (uint32_t)both;
            bits->high[1] = (uint32_t)(both >> 32);
        }
        ct_read_scales<dtype>(bits, weight, chunk);
    }
}

/* Eight values of a row from eight * 8 on, which become the first of `bits`. */
template <ct_dtype dtype>
CT_DEVICE void ct_read_eight(ct_bits *bits, const ct_cuda_planes &weight, int64_t row, int eight)
{
    if constexpr (ct_code_bits(dtype) == 0) {
        ct_read_floats<dtype>(bits, weight, row, eight);
    } else {
        int64_t chunk = row * (weight.k / CT_CHUNK) + eight / 4;
        int part = eight % 4;
        const uint32_t *low = (const uint32_t *)(weight.codes + chunk * ct_low_bytes(dtype));
        const uint32_t *high = (const uint32_t *)(weight.high + chunk * ct_high_bytes(dtype));
        if (ct_low_bytes(dtype) == 32) {
            bits->low[0] = low[2 * part];
            bits->low[1] = low[2 * part + 1];
        } else {
            bits->low[0] = low[part];
        }
        if (ct_high_bytes(dtype) == 4)
            bits->high[0] = high[0] >> 2 * part;
        if (ct_high_bytes(dtype) == 8)
            bits->high[0] = high[part / 2] >> part % 2 * 4;
        ct_read_scales<dtype>(bits, weight, chunk);
        if (dtype == CT_Q6_K)
            bits->scales >>= part / 2 * 8;
    }
}

/* The bytes of a word as floats, less `zero`. Set into the mantissa of a power of two, a byte makes
 * their sum, from which both come off exactly: conversions of integers are slow. */
template <int zero> CT_DEVICE void ct_bytes_to_floats(float *values, uint32_t word)
{
    const uint32_t even = 0x4b000000u, odd = 0x47000000u; /* 2^23; 2^15, for the second byte */
    uint32_t upper = word >> 16;
    values[0] = ct_float_of_bits((word & 0xffu) | even) - (8388608.0f + zero);
    values[1] = ct_float_of_bits((word & 0xff00u) | odd) - (32768.0f + zero);
    values[2] = ct_float_of_bits((upper & 0xffu) | even) - (8388608.0f + zero);
    values[3] = ct_float_of_bits((upper & 0xff00u) | odd) - (32768.0f + zero);
}

/* The values 4 j ... 4 j + 3 of a read, to be multiplied by the scale of their group. */
template <ct_dtype dtype> CT_DEVICE void ct_four_values(float *values, const ct_bits &bits, int j)
{
    constexpr int BITS = ct_code_bits(dtype);
    if constexpr (dtype == CT_F32) {
        for (int i = 0; i < 4; i++)
            values[i] = ct_float_of_bits(bits.low[4 * j + i]);
    } else if constexpr (dtype == CT_BF16) {
        for (int i = 0; i < 4; i++) {
            uint32_t word = bits.low[2 * j + i / 2];
            values[i] = ct_float_of_bits(i % 2 ? word & 0xffff0000u : word << 16);
        }
    } else if constexpr (dtype == CT_F16) {
        for (int i = 0; i < 4; i++)
            values[i] = ct_half_to_float((uint16_t)(bits.low[2 * j + i / 2] >> i % 2 * 16));
    } else {
        uint32_t word = BITS == 8 ? bits.low[j] : bits.low[j / 2] >> j % 2 * 4 & 0x0f0f0f0fu;
        if (BITS == 5)
            word |= (bits.high[0] >> j & 0x01010101u) << 4;
        if (BITS == 6)
            word |= (bits.high[j / 4] >> j % 4 * 2 & 0x03030303u) << 4;
        ct_bytes_to_floats<ct_code_zero(dtype)>(values, word);
    }
}

/* Of group g of a read. */
template <ct_dtype dtype> CT_DEVICE float ct_scale(const ct_bits &bits, int g)
{
    if constexpr (ct_code_bits(dtype) == 0)
        return 1;
    else if constexpr (dtype == CT_Q6_K)
        return ct_half_to_float((uint16_t)bits.super) * (float)(int8_t)(bits.scales >> 8 * g);
    else if constexpr (ct_has_supers(dtype))
        return ct_half_to_float((uint16_t)bits.super) * (float)(bits.scales & 0xff);
    else
        return ct_half_to_float((uint16_t)bits.scales);
}

/* What is added to all values of the read. */
template <ct_dtype dtype> CT_DEVICE float ct_minimum(const ct_bits &bits)
{
    if constexpr (!ct_has_minimum(dtype))
        return 0;
    else if constexpr (ct_has_supers(dtype))
        return -ct_half_to_float((uint16_t)(bits.super >> 16)) * (float)(bits.scales >> 8);
    else
        return ct_half_to_float((uint16_t)(bits.scales >> 16));
}

#endif
