#include "ops.h"
#include "scaled.h"
#define LEFT { return ct_fail(CT_UNSUPPORTED, "not yet"); }
ct_status ct_cuda_embed(ct_rows , const ct_tensor *, const int32_t *, float , bool ) LEFT
ct_status ct_cuda_rotary_append(ct_rows , const ct_head_layout *, const ct_rotary *, int64_t , const int64_t *, const ct_kv_view *) LEFT
ct_status ct_cuda_attention(const ct_attention_args *, ct_arena *) LEFT
ct_status ct_cuda_scatter(ct_rows , ct_rows , const int64_t *) LEFT
ct_status ct_cuda_gather(ct_rows , ct_rows , const int64_t *) LEFT
ct_status ct_cuda_pool(ct_pool_kind , ct_rows , ct_rows , const int64_t *) LEFT
ct_status ct_cuda_sample(ct_logprob *, ct_rows , const ct_sampling *, ct_arena *) LEFT
ct_status ct_cuda_scaled_new(ct_cuda_scaled *, const ct_tensor *) LEFT
void ct_cuda_scaled_free(ct_cuda_scaled *) {}
ct_status ct_cuda_scaled_products(ct_rows , ct_rows , const ct_cuda_scaled *, const ct_quantized_compute *, ct_arena *) LEFT
