/* The operations of a CUDA device, as ops/ops.h describes them, each in the file of its name. */
#ifndef CT_CUDA_OPS_H
#define CT_CUDA_OPS_H

#include "csrc.h"

extern "C" {

/* linear.cu */
ct_status ct_cuda_linear_new(ct_linear **out, const ct_linear_desc *desc);
void ct_cuda_linear_free(ct_linear **linear);
ct_dtype ct_cuda_linear_input(const ct_linear *linear, int64_t n_rows);
ct_status ct_cuda_linear(const ct_linear *linear, ct_rows x, const ct_epilogue *epilogue, ct_rows y,
                         ct_arena *arena);

/* rowwise.cu */
ct_status ct_cuda_norm(ct_norm_kind kind, ct_rows y, ct_rows x, const float *weight,
                       const float *bias, float eps, int64_t groups);
ct_status ct_cuda_add(ct_rows y, ct_rows x, ct_rows z);
ct_status ct_cuda_scale(ct_rows x, float scale, float cap);

/* embedding.cu */
ct_status ct_cuda_embed(ct_rows y, const ct_tensor *table, const int32_t *ids, float scale,
                        bool accumulate);

/* attention.cu */
ct_status ct_cuda_attention(const ct_attention_args *args, ct_arena *arena);

/* pages.cu */
ct_status ct_cuda_move_pages(const ct_kv_view *cache, const ct_kv_array *array, bool values,
                             bool store);

/* move.cu */
ct_status ct_cuda_scatter(ct_rows dst, ct_rows x, const int64_t *map);
ct_status ct_cuda_gather(ct_rows dst, ct_rows x, const int64_t *map);
ct_status ct_cuda_pool(ct_pool_kind kind, ct_rows dst, ct_rows x, const int64_t *offsets);

/* sample.cu */
ct_status ct_cuda_sample(ct_logprob *chosen, int32_t *ids, ct_rows logits,
                         const ct_sampling *params, ct_arena *arena);

/* table.cu: all of them */
extern const ct_ops ct_cuda_table;
}

#endif
