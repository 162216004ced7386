/* What the codes of a matrix in one of bitsandbytes' formats are multiplied by. The scales belong
 * to the whole matrix, its values counted row by row; views of its rows share them. */
#ifndef CT_TENSOR_SCALES_H
#define CT_TENSOR_SCALES_H

#include <stdint.h>

#include "core/refcount.h"
#include "core/status.h"
#include "tensor/dtype.h"

#define CT_NESTED_BLOCK 256 /* scales that share a scale of their own */
#define CT_NESTED_CODES 256

typedef struct ct_tensor ct_tensor;

typedef struct ct_scales {
    ct_refcount refs;
    int64_t n_values;  /* of the matrix */
    int64_t block;     /* values that share a scale; the last block may be short */
    ct_tensor *absmax; /* [n_blocks] f32; or u8: codes of `nested_map`, times a nested scale */
    ct_tensor *nested_absmax; /* [blocks of CT_NESTED_BLOCK scales] f32, or NULL */
    ct_tensor *nested_map;    /* [CT_NESTED_CODES] f32, or NULL */
    float nested_offset;      /* is added to a scale that was restored from its code */
    ct_dtype origin;          /* the float type that was quantized */
} ct_scales;

/* Checks shapes and types of the parts and takes references to them. CT_VALUE names what does not
 * fit. nested_absmax and nested_map go together. */
CT_MUST_CHECK ct_status ct_scales_new(ct_scales **out, const ct_scales *parts);
ct_scales *ct_scales_ref(ct_scales *scales);
void ct_scales_unref(ct_scales **scales);

int64_t ct_scales_count(const ct_scales *scales);
/* dst [n] f32 = the scales of blocks [first, first + n). */
void ct_scales_restore(float *dst, const ct_scales *scales, int64_t first, int64_t n);
/* Of all parts. */
size_t ct_scales_bytes(const ct_scales *scales);

#endif
