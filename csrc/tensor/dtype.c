/* Names and sizes of element types, and the conversions of single values. */
#include "tensor/dtype.h"

#include <stdio.h>
#include <string.h>

#include "core/memory.h"

typedef struct row {
    const char *name;
    int values;
    size_t bytes;
} row;

#define ROW(id, name, values, bytes) [id] = {name, values, bytes},
static const row rows[CT_DTYPE_COUNT] = {CT_DTYPES(ROW)};
#undef ROW

const char *ct_dtype_name(ct_dtype dtype)
{
    return rows[dtype].name;
}

int ct_dtype_block_values(ct_dtype dtype)
{
    return rows[dtype].values;
}

size_t ct_dtype_block_bytes(ct_dtype dtype)
{
    return rows[dtype].bytes;
}

ct_status ct_dtype_row_bytes(size_t *out, ct_dtype dtype, int64_t n)
{
    if (n < 0)
        return ct_fail(CT_VALUE, "a negative number of values: %lld", (long long)n);
    if (n % rows[dtype].values != 0)
        return ct_fail(CT_VALUE, "%lld values are not a multiple of %s's block of %d", (long long)n,
                       rows[dtype].name, rows[dtype].values);
    return ct_mul_size(out, (size_t)(n / rows[dtype].values), rows[dtype].bytes);
}

ct_status ct_dtype_from_name(ct_dtype *out, const char *name)
{
    char list[320] = "";
    for (int i = 0; i < CT_DTYPE_COUNT; i++) {
        if (strcmp(rows[i].name, name) == 0) {
            *out = (ct_dtype)i;
            return CT_OK;
        }
        size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "", rows[i].name);
    }
    return ct_fail(CT_VALUE, "unknown dtype `%.40s`; known ones: %s", name, list);
}

float ct_f16_to_f32(uint16_t bits)
{
    union {
        uint32_t bits;
        float value;
    } word;
    uint32_t sign = (uint32_t)(bits & 0x8000) << 16, exponent = bits >> 10 & 31,
             fraction = bits & 1023;
    if (exponent == 31) { /* infinity, NaN; a NaN becomes quiet, as processors convert it */
        word.bits = sign | 0x7f800000 | (fraction ? 0x400000 : 0) | fraction << 13;
    } else if (exponent != 0) {
        word.bits = sign | (exponent + 112) << 23 | fraction << 13;
    } else { /* subnormal: fraction * 2^-24 is exact */
        word.value = (float)fraction * 0x1p-24f;
        word.bits |= sign;
    }
    return word.value;
}

uint16_t ct_f16_from_f32(float value)
{
    union {
        float value;
        uint32_t bits;
    } word = {value};
    uint16_t sign = (uint16_t)(word.bits >> 16 & 0x8000);
    uint32_t magnitude = word.bits & 0x7fffffff;
    if (magnitude > 0x7f800000)
        return sign | 0x7e00 | (uint16_t)(magnitude >> 13 & 0x1ff);
    if (magnitude >= 0x477ff000) /* 65520 and more round to infinity */
        return sign | 0x7c00;
    if (magnitude < 0x38800000) { /* below 2^-14: adding 0.5 aligns the subnormal's last bit */
        word.bits = magnitude;
        word.value += 0.5f;
        return sign | (uint16_t)(word.bits - 0x3f000000);
    }
    uint32_t odd = magnitude >> 13 & 1;
    return sign | (uint16_t)((magnitude - 0x38000000 + 0xfff + odd) >> 13);
}

uint16_t ct_bf16_from_f32(float value)
{
    union {
        float value;
        uint32_t bits;
    } word = {value};
    if ((word.bits & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(word.bits >> 16 | 0x40);
    return (uint16_t)((word.bits + 0x7fff + (word.bits >> 16 & 1)) >> 16);
}
