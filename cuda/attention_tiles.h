/* Which rows a block computes, where blocks have tiles of rows: those of one sequence and one KV
 * head, tokens with the heads of the group inside. */
#ifndef CT_CUDA_ATTENTION_TILES_H
#define CT_CUDA_ATTENTION_TILES_H

#include "attention.h"

/* Where a block works. */
typedef struct ct_tile_place {
    int64_t sequence, first_row; /* of the batch */
    int n, before;               /* rows of the sequence and positions before them */
    int first, end;              /* rows of the tile, counted by heads */
    int kv_head;
} ct_tile_place;

/* Sequence s has its tiles from here on: at least as many as its rows fill, so that nobody has to
 * add up the lengths of the sequences before. */
template <int ROWS>
CT_DEVICE int64_t ct_first_tile(const ct_attention_problem &problem, int64_t sequence)
{
    return problem.args.offsets[sequence] * problem.group / ROWS + sequence;
}

/* False where the block has nothing to do. Blocks that start late get early rows, which in a causal
 * model see few keys. */
template <int ROWS>
CT_DEVICE bool ct_find_tile(ct_tile_place *out, const ct_attention_problem &problem, bool long_only)
{
    const ct_attention_args &args = problem.args;
    int64_t wanted = (int64_t)gridDim.x - 1 - blockIdx.x, first = 0, end = args.n_sequences;
    while (end - first > 1) {
        int64_t middle = first + (end - first) / 2;
        if (ct_first_tile<ROWS>(problem, middle) <= wanted)
            first = middle;
        else
            end = middle;
    }
    out->sequence = first;
    out->first_row = args.offsets[first];
    out->n = (int)(args.offsets[first + 1] - args.offsets[first]);
    out->before = problem.is_cached ? (int)problem.cache.lengths[first] : 0;
    int64_t row = (wanted - ct_first_tile<ROWS>(problem, first)) * ROWS;
    int64_t n_rows = (int64_t)out->n * problem.group;
    out->first = (int)row;
    out->end = (int)(row + ROWS < n_rows ? row + ROWS : n_rows);
    out->kv_head = blockIdx.y;
    return row < n_rows && !(long_only && out->n == 1);
}

/* Blocks for tiles of so many rows, in the grid's x. */
static inline int64_t ct_count_tiles(const ct_attention_problem *problem, int rows)
{
    return problem->args.qkv.n_rows * problem->group / rows + problem->args.n_sequences;
}

/* A row of the tile, as a query. */
CT_DEVICE ct_query ct_query_of(const ct_attention_problem &problem, const ct_tile_place &place,
                               int row)
{
    int token = row / problem.group;
    return {place.sequence, token, place.before + token,
            place.kv_head * problem.group + row % problem.group};
}

/* The query's values in the batch. */
CT_DEVICE const float *ct_query_values(const ct_attention_problem &problem,
                                       const ct_tile_place &place, const ct_query &query)
{
    const ct_head_layout &layout = problem.args.layout;
    int in_group = query.head - place.kv_head * problem.group;
    return (const float *)problem.args.qkv.data +
           (place.first_row + query.row) * problem.args.qkv.stride + layout.q_offset +
           place.kv_head * layout.q_group_stride + in_group * layout.head_width;
}

#endif
