/* Attention: which kernel computes which rows.
 *
 * decode   a row by itself, in f32; where all are, it rotates and appends them itself
 * prefill  tiles, in f32: with the same bits as decode; alone takes wide heads
 * tensor   tiles by the tensor cores, for models in 16 bits
 *
 * The choice between bits depends on the model and on how many rows the sequence has, never on
 * those beside it. */
#include "attention.h"

#include "rotary.h"

#define FEW_ROWS 16 /* which leave a GPU idle unless their keys are split */

static bool is_for_tensor_cores(const ct_attention_args *args)
{
    return args->compute != CT_F32 && (!args->cache || args->cache->dtype == args->compute);
}

/* Each row is its sequence's only one. */
static bool have_single_rows(const ct_attention_args *args)
{
    return args->max_rows == 1 || args->qkv.n_rows == 1;
}

/* Sequences of one row by themselves, the others in tiles. */
static ct_status attend_in_16_bits(const ct_attention_problem *problem, ct_arena *arena)
{
    const ct_attention_args *args = &problem->args;
    if (have_single_rows(args))
        return ct_cuda_attention_decode(problem, false, arena);
    if (args->n_sequences > 1)
        CT_TRY(ct_cuda_attention_decode(problem, true, arena));
    return ct_cuda_attention_tensor(problem, true);
}

static ct_status attend_in_f32(const ct_attention_problem *problem, ct_arena *arena)
{
    const ct_attention_args *args = &problem->args;
    if (args->qkv.n_rows <= FEW_ROWS || args->qkv.n_rows <= args->n_sequences)
        return ct_cuda_attention_decode(problem, false, arena);
    if (args->n_sequences > 1)
        CT_TRY(ct_cuda_attention_decode(problem, true, arena));
    return ct_cuda_attention_prefill(problem, true);
}

/* Leaves it to decode where that can do it, so that in a step of generation, where each text goes
 * on by one piece, there is one launch. */
static ct_status rotate_and_append(ct_attention_problem *problem, bool can_be_decode)
{
    const ct_attention_args *args = &problem->args;
    problem->appends = args->cache && can_be_decode && have_single_rows(args);
    if (problem->appends)
        return CT_OK;
    CT_TRY(ct_cuda_rotary_append(args));
    problem->args.rotary.width = 0;
    return CT_OK;
}

ct_status ct_cuda_attention(const ct_attention_args *args, ct_arena *arena)
{
    if (args->qkv.n_rows == 0)
        return CT_OK;
    ct_attention_problem problem = {*args, ct_kv_view(), args->cache != NULL, false,
                                    (int)(args->layout.n_heads / args->layout.n_kv_heads)};
    bool by_tensor_cores = is_for_tensor_cores(args);
    bool can_be_decode =
        args->layout.head_width <= CT_WHOLE_WIDTH && args->layout.n_heads <= CT_MOST_HEADS;
    if (args->cache)
        problem.cache = *args->cache;
    CT_TRY(rotate_and_append(&problem, can_be_decode));
    if (!can_be_decode)
        return ct_cuda_attention_prefill(&problem, false);
    if (!args->cache)
        return by_tensor_cores ? ct_cuda_attention_tensor(&problem, false)
                               : ct_cuda_attention_prefill(&problem, false);
    return by_tensor_cores ? attend_in_16_bits(&problem, arena) : attend_in_f32(&problem, arena);
}
