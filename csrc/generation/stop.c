/* The stop conditions. */
#include "generation/stop.h"

bool ct_stop_is_certain(const ct_generated *sequence, int64_t max_positions)
{
    int64_t most = sequence->request.max_pieces;
    return (most > 0 && sequence->n_generated + 1 >= most) ||
           (max_positions > 0 && sequence->cache.length >= max_positions);
}

ct_finish ct_stop_after(const ct_generated *sequence, int32_t piece, int64_t max_positions)
{
    const ct_request *request = &sequence->request;
    for (int64_t i = 0; i < request->n_eos; i++)
        if (request->eos_ids[i] == piece)
            return CT_FINISH_EOS;
    return ct_stop_is_certain(sequence, max_positions) ? CT_FINISH_LENGTH : CT_FINISH_NONE;
}
