#include "ops.h"
#define LEFT { return ct_fail(CT_UNSUPPORTED, "not yet"); }
ct_status ct_cuda_linear_new(ct_linear **, const ct_linear_desc *) LEFT
void ct_cuda_linear_free(ct_linear **) {}
ct_dtype ct_cuda_linear_input(const ct_linear *, int64_t) { return CT_F32; }
ct_status ct_cuda_linear(const ct_linear *, ct_rows , const ct_epilogue *, ct_rows , ct_arena *) LEFT
ct_status ct_cuda_embed(ct_rows , const ct_tensor *, const int32_t *, float , bool ) LEFT
ct_status ct_cuda_scatter(ct_rows , ct_rows , const int64_t *) LEFT
ct_status ct_cuda_gather(ct_rows , ct_rows , const int64_t *) LEFT
ct_status ct_cuda_pool(ct_pool_kind , ct_rows , ct_rows , const int64_t *) LEFT
ct_status ct_cuda_sample(ct_logprob *, ct_rows , const ct_sampling *, ct_arena *) LEFT
