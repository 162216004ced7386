/* When a sequence ends: an end piece, the number of pieces, the model's positions. */
#ifndef CT_GENERATION_STOP_H
#define CT_GENERATION_STOP_H

#include "generation/scheduler.h"

/* Whether the next piece is the last, whichever it is. */
bool ct_stop_is_certain(const ct_generated *sequence, int64_t max_positions);

/* What choosing `piece` means for a sequence that has generated n_generated pieces before it. An
 * end piece wins over the length: it is not emitted. */
ct_finish ct_stop_after(const ct_generated *sequence, int32_t piece, int64_t max_positions);

#endif
