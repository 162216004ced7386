/* What a caller asks of a session for one prompt: how its pieces are chosen and when it ends. */
#ifndef CT_GENERATION_REQUEST_H
#define CT_GENERATION_REQUEST_H

#include "core/status.h"
#include "model/spec.h"
#include "ops/ops.h"

typedef struct ct_request {
    const int32_t *prompt; /* copied into the sequence */
    int64_t n_prompt;      /* >= 1 */
    ct_sampling sampling;  /* `banned` and `bad_words` are copied; `step`, the ids and `top` are the
                              session's */
    const int32_t *eos_ids; /* copied; the piece that ends a sequence is not emitted */
    int64_t n_eos;
    int64_t max_pieces; /* < 1: no limit but the model's positions */
} ct_request;

/* The most positions that a sequence of the model may have, 0: any number. */
int64_t ct_longest_sequence(const ct_spec *spec);

/* CT_INDEX for an id outside the vocabulary; CT_VALUE for an empty prompt, one longer than the
 * model's positions, or sampling that means nothing. */
CT_MUST_CHECK ct_status ct_request_check(const ct_request *request, const ct_spec *spec);

/* *out gets arrays of its own, but no prompt. */
CT_MUST_CHECK ct_status ct_request_copy(ct_request *out, const ct_request *request);
void ct_request_clear(ct_request *request);

#endif
