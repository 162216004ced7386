/* A tensor is a view: storage, byte offset, element type, shape, strides. Tensors do not change
 * once made; a slice is a new tensor over the same storage. */
#ifndef CT_TENSOR_TENSOR_H
#define CT_TENSOR_TENSOR_H

#include <stdbool.h>
#include <stdint.h>

#include "core/refcount.h"
#include "core/status.h"
#include "tensor/dtype.h"
#include "tensor/scales.h"
#include "tensor/storage.h"

#define CT_MAX_DIMS 8

struct ct_tensor {
    ct_refcount refs;
    ct_storage *storage; /* owned */
    size_t offset;       /* bytes from the storage's start to element 0 */
    ct_dtype dtype;
    int n_dims;
    int64_t shape[CT_MAX_DIMS];
    int64_t strides[CT_MAX_DIMS]; /* in elements, may be 0 or negative; quantized: contiguous */
    ct_scales *scales;            /* owned; NULL unless ct_dtype_has_scales(dtype) */
    int64_t first_value;          /* element 0 as the scales count */
};

/* Contiguous, uninitialised, on the CPU. */
CT_MUST_CHECK ct_status ct_tensor_new(ct_tensor **out, ct_dtype dtype, int n_dims,
                                      const int64_t *shape);

/* A view of `storage` (a reference is taken). strides NULL: contiguous. CT_VALUE unless every
 * element lies inside the storage, shapes are not negative and products do not overflow. */
CT_MUST_CHECK ct_status ct_tensor_view(ct_tensor **out, ct_storage *storage, size_t offset,
                                       ct_dtype dtype, int n_dims, const int64_t *shape,
                                       const int64_t *strides);

/* The matrix [shape] in `dtype`, one that has scales, whose codes are the bytes of `codes` (int8
 * for CT_LLM_INT8, else uint8; contiguous). References to both are taken. CT_VALUE unless codes and
 * scales are as many as the shape asks for. */
CT_MUST_CHECK ct_status ct_tensor_scaled(ct_tensor **out, const ct_tensor *codes, ct_dtype dtype,
                                         int n_dims, const int64_t *shape, ct_scales *scales);

/* Contiguous, from the bytes of a file at `offset`: a view, or a copy where the element type cannot
 * be read at that address. CT_VALUE as above. */
CT_MUST_CHECK ct_status ct_tensor_from_bytes(ct_tensor **out, ct_storage *storage, size_t offset,
                                             ct_dtype dtype, int n_dims, const int64_t *shape);

ct_tensor *ct_tensor_ref(ct_tensor *tensor);
void ct_tensor_unref(ct_tensor **tensor);

void *ct_tensor_data(const ct_tensor *tensor);
int64_t ct_tensor_size(const ct_tensor *tensor); /* number of elements */
size_t ct_tensor_bytes(const ct_tensor *tensor); /* of its elements, without scales */
bool ct_tensor_is_contiguous(const ct_tensor *tensor);

/* A shape as messages write it, "[2, 3]", cut to `size`. */
void ct_shape_text(char *text, size_t size, int n_dims, const int64_t *shape);

/* Element `index` of dimension `dim`, that dimension dropped. CT_INDEX outside; negative from the
 * end. */
CT_MUST_CHECK ct_status ct_tensor_select(ct_tensor **out, const ct_tensor *tensor, int dim,
                                         int64_t index);
/* `length` elements of `dim` from `start` on, every `step`-th (step may be negative). */
CT_MUST_CHECK ct_status ct_tensor_slice(ct_tensor **out, const ct_tensor *tensor, int dim,
                                        int64_t start, int64_t length, int64_t step);
/* One of shape's entries may be -1. A view when the strides allow it, else CT_VALUE. */
CT_MUST_CHECK ct_status ct_tensor_reshape(ct_tensor **out, const ct_tensor *tensor, int n_dims,
                                          const int64_t *shape);
/* The tensor itself when it is contiguous already, else a contiguous copy. */
CT_MUST_CHECK ct_status ct_tensor_contiguous(ct_tensor **out, const ct_tensor *tensor);
/* A contiguous copy in another element type, any stride. Floats convert to floats, integers and
 * bool to integers, quantized formats to floats; other pairs are CT_TYPE. */
CT_MUST_CHECK ct_status ct_tensor_convert(ct_tensor **out, const ct_tensor *tensor, ct_dtype dtype);

#endif
