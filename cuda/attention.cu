/* Attention: which kernel computes which rows. What a row gets does not depend on it. */
#include "attention.h"

#define FEW_ROWS 16 /* which leave a GPU idle unless their keys are split */

ct_status ct_cuda_attention(const ct_attention_args *args, ct_arena *arena)
{
    int64_t n_rows = args->qkv.n_rows;
    if (n_rows == 0)
        return CT_OK;
    ct_attention_problem problem = {*args, ct_kv_view(), args->cache != NULL,
                                    (int)(args->layout.n_heads / args->layout.n_kv_heads)};
    if (!args->cache)
        return ct_cuda_attention_prefill(&problem, false);
    problem.cache = *args->cache;
    if (n_rows <= FEW_ROWS || n_rows <= args->n_sequences)
        return ct_cuda_attention_decode(&problem, false, arena);
    if (args->n_sequences > 1)
        CT_TRY(ct_cuda_attention_decode(&problem, true, arena));
    return ct_cuda_attention_prefill(&problem, true);
}
