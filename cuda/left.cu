#include "ops.h"
#define LEFT { return ct_fail(CT_UNSUPPORTED, "not yet"); }
ct_status ct_cuda_linear_new(ct_linear **, const ct_linear_desc *) LEFT
void ct_cuda_linear_free(ct_linear **) {}
ct_dtype ct_cuda_linear_input(const ct_linear *, int64_t) { return CT_F32; }
ct_status ct_cuda_linear(const ct_linear *, ct_rows , const ct_epilogue *, ct_rows , ct_arena *) LEFT
ct_status ct_cuda_rotary_append(ct_rows , const ct_head_layout *, const ct_rotary *, int64_t , const int64_t *, const ct_kv_view *) LEFT
ct_status ct_cuda_attention(const ct_attention_args *, ct_arena *) LEFT
