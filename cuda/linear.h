/* Products of linear layers: what linear.cu chooses from, and what follows a product. */
#ifndef CT_CUDA_LINEAR_H
#define CT_CUDA_LINEAR_H

#include "csrc.h"
#include "device.h"
#include "fours.h"
#include "norm.h"
#include "rows.h"
#include "weights.h"

/* ct_epilogue by value, as kernels need it; rows without data: not. */
typedef struct ct_cuda_epilogue {
    float clip;
    ct_activation activation;
    ct_rows multiply, residual;
} ct_cuda_epilogue;

/* A part of a layer: columns of y from `column` on. */
typedef struct ct_cuda_part {
    ct_cuda_planes weight;
    const float *bias; /* or NULL */
    int64_t column;
} ct_cuda_part;

/* y = epilogue(x W^T + bias) of parts in one element type. x and y have a row at least, and so
 * has every part. The products of few rows also norm x, and gate: of two parts, both at column 0,
 * y = activation(first) * second. */
typedef struct ct_cuda_product {
    ct_dtype dtype;
    int n_parts;
    bool gated;
    ct_cuda_part part[CT_LINEAR_MAX_PARTS];
    ct_rows x, y;
    ct_cuda_input_norm norm;
    ct_cuda_epilogue epilogue;
} ct_cuda_product;

#define CT_FEW_ROWS 8

/* linear_few.cu: up to CT_FEW_ROWS rows, bound by the weights' way from memory. A row's sums do not
 * depend on the number of rows. */
CT_MUST_CHECK ct_status ct_cuda_product_few(const ct_cuda_product *product);
/* linear_many.cu: any number, any sizes. A row's sums do not depend on the number of rows. */
CT_MUST_CHECK ct_status ct_cuda_product_many(const ct_cuda_product *product);
/* linear_blas.cu: any number, by cuBLASLt; x in the type of float weights; blocks become x's. A
 * row's bits may depend on the number of rows. */
CT_MUST_CHECK ct_status ct_cuda_product_blas(const ct_cuda_product *product, ct_arena *arena);

/* Writes the rows [first, first + to.n_rows) of a matrix of codes to `to`, in its type. */
typedef ct_status (*ct_cuda_decode)(ct_rows to, const void *matrix, int64_t first);
/* The same for a part whose codes are `matrix`; of its weight only n and k count. */
CT_MUST_CHECK ct_status ct_cuda_product_decoded(const ct_cuda_product *product,
                                                const ct_cuda_part *part, ct_cuda_decode decode,
                                                const void *matrix, ct_arena *arena);

/* Bytes of scratch that a product takes at a time; what needs more goes in bands. */
#ifdef __CUDACC__
#define CT_MAX_SCRATCH ((int64_t)128 << 20)
#else /* so that tests have bands */
#define CT_MAX_SCRATCH ((int64_t)1 << 19)
#endif

/* How many of n rows, of so many bytes of scratch each, go at a time: bands are of the same size,
 * but the last. */
static inline int64_t ct_band_rows(int64_t n, int64_t row_bytes)
{
    int64_t n_bands = (n * row_bytes + CT_MAX_SCRATCH - 1) / CT_MAX_SCRATCH;
    return n_bands > 1 ? (n + n_bands - 1) / n_bands : n;
}

/* linear.cu: *out gets memory for rows in `dtype`. */
CT_MUST_CHECK ct_status ct_cuda_new_rows(ct_rows *out, ct_dtype dtype, int64_t n_rows,
                                         int64_t width, ct_arena *arena);
/* y = epilogue(products f32 + bias), all of the products' width; products may be y. */
CT_MUST_CHECK ct_status ct_cuda_finish(const ct_cuda_epilogue *epilogue, ct_rows y,
                                       ct_rows products, const float *bias);

/* The same for some of the rows, or of the columns. */
static inline ct_cuda_epilogue ct_epilogue_rows(ct_cuda_epilogue epilogue, int64_t first, int64_t n)
{
    epilogue.multiply = ct_rows_from(epilogue.multiply, first, n);
    epilogue.residual = ct_rows_from(epilogue.residual, first, n);
    return epilogue;
}

static inline ct_cuda_epilogue ct_epilogue_columns(ct_cuda_epilogue epilogue, int64_t first,
                                                   int64_t n)
{
    epilogue.multiply = ct_columns_from(epilogue.multiply, first, n);
    epilogue.residual = ct_columns_from(epilogue.residual, first, n);
    return epilogue;
}

CT_DEVICE float ct_clip_and_activate(const ct_cuda_epilogue &epilogue, float value)
{
    if (epilogue.clip > 0)
        value = value > epilogue.clip    ? epilogue.clip
                : value < -epilogue.clip ? -epilogue.clip
                                         : value;
    return ct_activate(epilogue.activation, value);
}

/* Of element (row, column) of y, whose product is `value`. A residual that lies in y is read by the
 * thread that writes its place. */
CT_DEVICE void ct_finish(const ct_cuda_epilogue &epilogue, const ct_rows &y, int64_t row,
                         int64_t column, float value)
{
    const ct_rows &factor = epilogue.multiply, &residual = epilogue.residual;
    value = ct_clip_and_activate(epilogue, value);
    if (factor.data)
        value *= ct_get_as(factor.dtype, factor.data, row * factor.stride + column);
    if (residual.data)
        value += ct_get_as(residual.dtype, residual.data, row * residual.stride + column);
    ct_put_as(y.dtype, y.data, row * y.stride + column, value);
}

/* The same for four neighbours, of which `left` exist. */
CT_DEVICE void ct_finish4(const ct_cuda_epilogue &epilogue, const ct_rows &y, int64_t row,
                          int64_t column, float values[4], int64_t left, bool in_fours)
{
    const ct_rows &factor = epilogue.multiply, &residual = epilogue.residual;
    float others[4];
    for (int i = 0; i < 4; i++)
        values[i] = ct_clip_and_activate(epilogue, values[i]);
    if (factor.data) {
        ct_get4(others, factor.dtype, factor.data, row * factor.stride + column, left, in_fours);
        for (int i = 0; i < 4; i++)
            values[i] *= others[i];
    }
    if (residual.data) {
        ct_get4(others, residual.dtype, residual.data, row * residual.stride + column, left,
                in_fours);
        for (int i = 0; i < 4; i++)
            values[i] += others[i];
    }
    ct_put4(y.dtype, y.data, row * y.stride + column, values, left, in_fours);
}

/* Whether they may be read and written at once; the host's. */
static inline bool ct_finish_in_fours(const ct_cuda_epilogue *epilogue, ct_rows y)
{
    ct_rows factor = epilogue->multiply, residual = epilogue->residual;
    return ct_in_fours(y) && (!factor.data || ct_in_fours(factor)) &&
           (!residual.data || ct_in_fours(residual));
}

/* The same where two products make one. */
CT_DEVICE void ct_finish_gated(const ct_cuda_epilogue &epilogue, const ct_rows &y, int64_t row,
                               int64_t column, float gate, float up)
{
    ct_put_as(y.dtype, y.data, row * y.stride + column, ct_clip_and_activate(epilogue, gate) * up);
}

/* Parts are cut into bands of `band` weight rows, which are counted through: those of a
 * ct_cuda_product, or of a ct_scaled_product. Those of a gated one are taken together. */
template <typename weight_type> CT_DEVICE int64_t ct_bands(const weight_type &weight, int64_t band)
{
    return (weight.n + band - 1) / band;
}

/* The part that band *index lies in; *index becomes the band's place there. */
template <typename product_type>
CT_DEVICE int ct_part_of(const product_type &product, int64_t band, int64_t *index)
{
    int p = 0;
    for (; p + 1 < product.n_parts && !product.gated; p++) {
        int64_t n = ct_bands(product.part[p].weight, band);
        if (*index < n)
            break;
        *index -= n;
    }
    return p;
}

/* All bands; the host's. */
template <typename product_type>
static inline int64_t ct_count_bands(const product_type *product, int64_t band)
{
    int64_t n = 0;
    for (int p = 0; p < (product->gated ? 1 : product->n_parts); p++)
        n += (product->part[p].weight.n + band - 1) / band;
    return n;
}

#endif
