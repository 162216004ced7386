/* What stands for cuBLASLt in tests: the functions that gemm.cu uses, for the products that it asks
 * for. What the library documents as wrong, and what was not announced, ends the program. It has no
 * way for products of floats with one weight row, nor for a bias where these are odd in number, and
 * wants a workspace when rows of x are, so that all of it happens in tests. For bytes it has none
 * where the library documents none for tensor cores (sizes and strides that are no multiples of 4)
 * nor for up to 16 rows of x, as others found; four weight rows it takes, and refuses to multiply.
 */
#include "cublas.h"

#include "runtime.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vector>

#define HANDLE ((ct_cublas_handle)1)
#define WORKSPACE 1000 /* bytes */
#define REFUSED_ROWS 4 /* of weights in bytes */

struct ct_cublas_operation {
    int compute, transpose_a, epilogue;
    const float *bias;
};

struct ct_cublas_matrix {
    int type;
    uint64_t rows, columns;
    int64_t stride;
};

struct ct_cublas_wishes {
    uint64_t workspace;
    uint32_t alignment[4];
};

namespace
{

void require(bool good, const char *what)
{
    if (good)
        return;
    fprintf(stderr, "cuBLASLt's stand-in: %s\n", what);
    abort();
}

/* What an algorithm was chosen for; it fits into its 64 bytes. */
struct chosen_for {
    uint64_t m, n, k;
    int64_t a_stride, b_stride;
    uint32_t alignment[4];
    int32_t type, epilogue; /* the type of the first matrix, which decides all others */
};
static_assert(sizeof(chosen_for) <= sizeof(ct_cublas_algorithm), "an algorithm is this");

chosen_for purpose_of(ct_cublas_desc desc, ct_cublas_layout a, ct_cublas_layout b,
                      ct_cublas_layout c, ct_cublas_layout d)
{
    require(desc->transpose_a == CT_CUBLAS_TRANSPOSED, "the first matrix is not transposed");
    bool bytes = a->type == CT_CUBLAS_I8;
    int result = bytes ? CT_CUBLAS_I32 : CT_CUBLAS_F32;
    require(a->type == b->type, "matrices of two types");
    require(c->type == result && d->type == result, "the results' type");
    require((desc->compute == CT_CUBLAS_COMPUTE_I32) == bytes, "the sums' type");
    require(!bytes || desc->epilogue == CT_CUBLAS_EPILOGUE_NONE, "an epilogue of bytes");
    require(a->rows == b->rows && d->rows == a->columns && d->columns == b->columns, "sizes");
    require(c->rows == d->rows && c->columns == d->columns, "sizes of what is added");
    for (ct_cublas_layout one : {a, b, c, d})
        require(one->stride >= (int64_t)one->rows && one->rows > 0 && one->columns > 0, "a stride");
    chosen_for purpose = {};
    purpose.m = d->columns;
    purpose.n = d->rows;
    purpose.k = a->rows;
    purpose.a_stride = a->stride;
    purpose.b_stride = b->stride;
    purpose.type = a->type;
    purpose.epilogue = desc->epilogue;
    return purpose;
}

float value_of(const void *data, int type, int64_t i)
{
    if (type == CT_CUBLAS_F32)
        return ((const float *)data)[i];
    if (type == CT_CUBLAS_I8)
        return ((const int8_t *)data)[i];
    uint16_t bits = ((const uint16_t *)data)[i];
    return type == CT_CUBLAS_F16 ? ct_half_to_float(bits) : ct_bfloat_to_float(bits);
}

std::vector<float> values_of(const void *data, const ct_cublas_matrix &layout)
{
    std::vector<float> values(layout.rows * layout.columns);
    for (size_t i = 0; i < values.size(); i++)
        values[i] =
            value_of(data, layout.type,
                     (int64_t)(i / layout.rows) * layout.stride + (int64_t)(i % layout.rows));
    return values;
}

struct product {
    ct_cublas_operation desc;
    ct_cublas_matrix a_layout, b_layout, c_layout, d_layout;
    const void *a, *b;
    const float *c; /* NULL: nothing is added */
    void *d;
};

/* `workspace` NULL: it takes none. */
CT_KERNEL multiply_kernel(product p, void *workspace)
{
    if (workspace)
        memset(workspace, 0xff, WORKSPACE);
    std::vector<float> a = values_of(p.a, p.a_layout), b = values_of(p.b, p.b_layout);
    size_t k = p.a_layout.rows;
    for (size_t row = 0; row < p.d_layout.rows; row++)
        for (size_t column = 0; column < p.d_layout.columns; column++) {
            double sum = 0;
            for (size_t i = 0; i < k; i++)
                sum += (double)a[row * k + i] * b[column * k + i];
            if (p.c)
                sum += p.c[(int64_t)column * p.c_layout.stride + (int64_t)row];
            if (p.desc.epilogue == CT_CUBLAS_EPILOGUE_BIAS)
                sum += p.desc.bias[row];
            int64_t place = (int64_t)column * p.d_layout.stride + (int64_t)row;
            if (p.d_layout.type == CT_CUBLAS_I32)
                ((int32_t *)p.d)[place] = (int32_t)sum;
            else
                ((float *)p.d)[place] = (float)sum;
        }
}

/* ---- the functions ---- */

int create(ct_cublas_handle *out)
{
    *out = HANDLE;
    return 0;
}

int desc_create(ct_cublas_desc *out, int compute_type, int scale_type)
{
    require((compute_type == CT_CUBLAS_COMPUTE_F32 && scale_type == CT_CUBLAS_F32) ||
                (compute_type == CT_CUBLAS_COMPUTE_I32 && scale_type == CT_CUBLAS_I32),
            "sums' types");
    *out = new ct_cublas_operation{compute_type, 0, CT_CUBLAS_EPILOGUE_NONE, nullptr};
    return 0;
}

int desc_destroy(ct_cublas_desc desc)
{
    delete desc;
    return 0;
}

template <typename T> void set(T *to, const void *value, size_t size)
{
    require(size == sizeof *to, "an attribute's size");
    memcpy(to, value, size);
}

int desc_set(ct_cublas_desc desc, int attribute, const void *value, size_t size)
{
    if (attribute == CT_CUBLAS_DESC_TRANSPOSE_A)
        set(&desc->transpose_a, value, size);
    else if (attribute == CT_CUBLAS_DESC_EPILOGUE)
        set(&desc->epilogue, value, size);
    else if (attribute == CT_CUBLAS_DESC_BIAS)
        set(&desc->bias, value, size);
    else
        require(false, "an unknown attribute");
    return 0;
}

int layout_create(ct_cublas_layout *out, int type, uint64_t rows, uint64_t columns, int64_t stride)
{
    *out = new ct_cublas_matrix{type, rows, columns, stride};
    return 0;
}

int layout_destroy(ct_cublas_layout layout)
{
    delete layout;
    return 0;
}

int preference_create(ct_cublas_preference *out)
{
    *out = new ct_cublas_wishes{0, {256, 256, 256, 256}};
    return 0;
}

int preference_destroy(ct_cublas_preference preference)
{
    delete preference;
    return 0;
}

int preference_set(ct_cublas_preference preference, int attribute, const void *value, size_t size)
{
    int matrix = attribute - CT_CUBLAS_PREFERENCE_ALIGNMENT_A;
    if (attribute == CT_CUBLAS_PREFERENCE_WORKSPACE)
        set(&preference->workspace, value, size);
    else if (matrix >= 0 && matrix < 4)
        set(&preference->alignment[matrix], value, size);
    else
        require(false, "an unknown preference");
    return 0;
}

bool has_way(const chosen_for &purpose, int64_t d_stride)
{
    if (purpose.type != CT_CUBLAS_I8)
        return purpose.n > 1 && !(purpose.n % 2 && purpose.epilogue == CT_CUBLAS_EPILOGUE_BIAS);
    uint64_t all = purpose.n | purpose.k | (uint64_t)purpose.a_stride | (uint64_t)purpose.b_stride |
                   (uint64_t)d_stride;
    for (uint32_t alignment : purpose.alignment)
        all |= alignment;
    return all % 4 == 0 && purpose.m > 16;
}

/* Bytes that the product takes. */
size_t workspace_of(const chosen_for &purpose)
{
    return purpose.type != CT_CUBLAS_I8 && purpose.m % 2 ? WORKSPACE : 0;
}

int choose(ct_cublas_handle handle, ct_cublas_desc desc, ct_cublas_layout a, ct_cublas_layout b,
           ct_cublas_layout c, ct_cublas_layout d, ct_cublas_preference preference, int wanted,
           ct_cublas_choice choices[], int *found)
{
    require(handle == HANDLE && wanted >= 1, "a question");
    require((desc->epilogue == CT_CUBLAS_EPILOGUE_BIAS) == (desc->bias != nullptr), "a bias");
    chosen_for purpose = purpose_of(desc, a, b, c, d);
    memcpy(purpose.alignment, preference->alignment, sizeof purpose.alignment);
    *found = 0;
    if (!has_way(purpose, d->stride))
        return CT_CUBLAS_NOT_SUPPORTED;
    choices[0] = {};
    choices[0].workspace = workspace_of(purpose);
    require(choices[0].workspace <= preference->workspace, "little workspace");
    memcpy(&choices[0].algorithm, &purpose, sizeof purpose);
    *found = 1;
    return 0;
}

/* The algorithm is one that was chosen for such matrices. */
void check_algorithm(const ct_cublas_algorithm *algorithm, chosen_for purpose,
                     const void *const addresses[4])
{
    chosen_for chosen;
    memcpy(&chosen, algorithm, sizeof chosen);
    for (int i = 0; i < 4; i++) {
        require(chosen.alignment[i] > 0 && (uintptr_t)addresses[i] % chosen.alignment[i] == 0,
                "an address is less aligned than was announced");
        purpose.alignment[i] = chosen.alignment[i];
    }
    require(memcmp(&chosen, &purpose, sizeof chosen) == 0, "an algorithm for something else");
}

int multiply(ct_cublas_handle handle, ct_cublas_desc desc, const void *alpha, const void *a,
             ct_cublas_layout a_layout, const void *b, ct_cublas_layout b_layout, const void *beta,
             const void *c, ct_cublas_layout c_layout, void *d, ct_cublas_layout d_layout,
             const ct_cublas_algorithm *algorithm, void *workspace, size_t workspace_size,
             cudaStream_t stream)
{
    bool bytes = a_layout->type == CT_CUBLAS_I8;
    double one = bytes ? *(const int32_t *)alpha : *(const float *)alpha;
    double factor = bytes ? *(const int32_t *)beta : *(const float *)beta;
    const void *const addresses[4] = {a, b, c, d};
    chosen_for purpose = purpose_of(desc, a_layout, b_layout, c_layout, d_layout);
    require(handle == HANDLE && stream == ct_cuda_stream(), "where it runs");
    require(one == 1 && (factor == 0 || (factor == 1 && !bytes)), "factors");
    require(c != d || c_layout->stride == d_layout->stride, "a result beside what is added");
    require((uintptr_t)desc->bias % 16 == 0, "a bias that is not aligned");
    check_algorithm(algorithm, purpose, addresses);
    if (bytes && purpose.n == REFUSED_ROWS)
        return CT_CUBLAS_NOT_SUPPORTED;
    bool works = workspace_of(purpose) > 0;
    require(workspace_size >= workspace_of(purpose), "less workspace than it needs");
    require((uintptr_t)workspace % CT_CUBLAS_WORKSPACE_ALIGNMENT == 0, "workspace's alignment");
    product p = {*desc,     *a_layout, *b_layout, *c_layout,
                 *d_layout, a,         b,         factor != 0 ? (const float *)c : nullptr,
                 d};
    CT_KERNEL_CALL(multiply_kernel, 1, 1, 0, stream, p, works ? workspace : nullptr);
    return 0;
}

#define MEMBER(name, symbol, parameters) name,
const ct_cublas functions = {CT_CUBLAS_FUNCTIONS(MEMBER)};
#undef MEMBER

} // namespace

ct_status ct_cublas_open(const ct_cublas **out)
{
    const char *named = getenv("CURATED_TRANSFORMERS_CUBLAS");
    *out = named && strcmp(named, "0") == 0 ? NULL : &functions;
    return CT_OK;
}
