/* The stop conditions. */
#include "generation/stop.h"

ct_finish ct_stop_after(const ct_generated *sequence, int32_t piece, int64_t max_positions)
{
    const ct_request *request = &sequence->request;
    for (int64_t i = 0; i < request->n_eos; i++)
        if (request->eos_ids[i] == piece)
            return CT_FINISH_EOS;
    if (request->max_pieces > 0 && sequence->n_generated + 1 >= request->max_pieces)
        return CT_FINISH_LENGTH;
    if (max_positions > 0 && sequence->cache.length >= max_positions)
        return CT_FINISH_LENGTH;
    return CT_FINISH_NONE;
}
