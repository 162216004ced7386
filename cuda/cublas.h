/* The part of cuBLASLt that gemm.cu uses, by our own names: no header of the library is needed to
 * build, and the library itself is opened at run time (gpu/cublas.cpp). In tests without a GPU
 * host/cublas.cpp stands for it. Matrices lie by columns there: what has rows here is a transposed
 * one to the library. */
#ifndef CT_CUDA_CUBLAS_H
#define CT_CUDA_CUBLAS_H

#include "csrc.h"
#include "device.h"

typedef struct ct_cublas_context *ct_cublas_handle;
typedef struct ct_cublas_operation *ct_cublas_desc;
typedef struct ct_cublas_matrix *ct_cublas_layout;
typedef struct ct_cublas_wishes *ct_cublas_preference;

/* What the library chose, in its own words. */
typedef struct ct_cublas_algorithm {
    uint64_t data[8];
} ct_cublas_algorithm;

typedef struct ct_cublas_choice {
    ct_cublas_algorithm algorithm;
    size_t workspace; /* bytes that it needs */
    int status;
    float waves;
    int reserved[4];
} ct_cublas_choice;

/* ---- its constants ---- */

#define CT_CUBLAS_NOT_SUPPORTED 15 /* a status */

enum {
    CT_CUBLAS_COMPUTE_F32 = 68, /* sums in f32; inputs in f32 are not rounded to TF32 */
    CT_CUBLAS_COMPUTE_I32 = 72
};

enum {
    CT_CUBLAS_F32 = 0,
    CT_CUBLAS_F16 = 2,
    CT_CUBLAS_I8 = 3,
    CT_CUBLAS_I32 = 10,
    CT_CUBLAS_BF16 = 14
};

enum { CT_CUBLAS_TRANSPOSED = 1 }; /* 0: as it lies */

enum { /* attributes of a desc; 32 bits each, but the pointer */
       CT_CUBLAS_DESC_TRANSPOSE_A = 3,
       CT_CUBLAS_DESC_EPILOGUE = 7,
       CT_CUBLAS_DESC_BIAS = 8
};

/* A value for each row of the result, in its type. */
enum { CT_CUBLAS_EPILOGUE_NONE = 1, CT_CUBLAS_EPILOGUE_BIAS = 4 };

enum { /* attributes of a preference: 64 bits, then 32 each */
       CT_CUBLAS_PREFERENCE_WORKSPACE = 1,
       CT_CUBLAS_PREFERENCE_ALIGNMENT_A = 5 /* of B, C and D: the next ones */
};

#define CT_CUBLAS_WORKSPACE_ALIGNMENT 256

/* ---- its functions ---- */

/* X(name, what the library calls it, parameters); 0: done. */
#define CT_CUBLAS_FUNCTIONS(X)                                                                     \
    X(create, "cublasLtCreate", (ct_cublas_handle * out))                                          \
    X(desc_create, "cublasLtMatmulDescCreate",                                                     \
      (ct_cublas_desc * out, int compute_type, int scale_type))                                    \
    X(desc_destroy, "cublasLtMatmulDescDestroy", (ct_cublas_desc desc))                            \
    X(desc_set, "cublasLtMatmulDescSetAttribute",                                                  \
      (ct_cublas_desc desc, int attribute, const void *value, size_t size))                        \
    X(layout_create, "cublasLtMatrixLayoutCreate",                                                 \
      (ct_cublas_layout * out, int type, uint64_t rows, uint64_t columns, int64_t stride))         \
    X(layout_destroy, "cublasLtMatrixLayoutDestroy", (ct_cublas_layout layout))                    \
    X(preference_create, "cublasLtMatmulPreferenceCreate", (ct_cublas_preference * out))           \
    X(preference_destroy, "cublasLtMatmulPreferenceDestroy", (ct_cublas_preference preference))    \
    X(preference_set, "cublasLtMatmulPreferenceSetAttribute",                                      \
      (ct_cublas_preference preference, int attribute, const void *value, size_t size))            \
    X(choose, "cublasLtMatmulAlgoGetHeuristic",                                                    \
      (ct_cublas_handle handle, ct_cublas_desc desc, ct_cublas_layout a, ct_cublas_layout b,       \
       ct_cublas_layout c, ct_cublas_layout d, ct_cublas_preference preference, int wanted,        \
       ct_cublas_choice choices[], int *found))                                                    \
    X(multiply, "cublasLtMatmul",                                                                  \
      (ct_cublas_handle handle, ct_cublas_desc desc, const void *alpha, const void *a,             \
       ct_cublas_layout a_layout, const void *b, ct_cublas_layout b_layout, const void *beta,      \
       const void *c, ct_cublas_layout c_layout, void *d, ct_cublas_layout d_layout,               \
       const ct_cublas_algorithm *algorithm, void *workspace, size_t workspace_size,               \
       cudaStream_t stream))

#define CT_CUBLAS_MEMBER(name, symbol, parameters) int(*name) parameters;
typedef struct ct_cublas {
    CT_CUBLAS_FUNCTIONS(CT_CUBLAS_MEMBER)
} ct_cublas;
#undef CT_CUBLAS_MEMBER

/* *out = the library, valid until the process ends, or NULL when there is none, or
 * CURATED_TRANSFORMERS_CUBLAS is "0". CT_UNSUPPORTED when that variable names a file which cannot
 * be opened. From any thread. */
CT_MUST_CHECK ct_status ct_cublas_open(const ct_cublas **out);

#endif
