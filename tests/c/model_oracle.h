/* The transformer program once more: one sequence in double precision, loop by loop from the
 * formulas, sharing nothing with the core but the meaning of the spec's fields and the tiny
 * models' weights. */
#ifndef CT_TEST_MODEL_ORACLE_H
#define CT_TEST_MODEL_ORACLE_H

#include "tiny_model.h"

/* One sequence of real pieces, from its first one on. */
typedef struct oracle_input {
    const ct_spec *spec; /* validated */
    int64_t n;
    const int32_t *ids, *positions, *types; /* [n]; types may be NULL: all 0 */
    const uint8_t *allowed; /* [n_heads, n, n] 1: query i may see key j; NULL: all */
} oracle_input;

/* hidden [1 + n_layers, n, hidden_width]; logits [n, n_pieces] when the spec has a head. */
void oracle_run(const oracle_input *in, double *hidden, double *logits);

/* |a - b| / |b| as Euclidean lengths: how far a row of results is from what it should be. */
double row_distance(const double *a, const double *b, int64_t n);
double float_row_distance(const float *a, const double *b, int64_t n);

/* The largest row distance of a result's hidden states and logits from the oracle's. Sequence q of
 * the batch was the end of sequences[q]: what came before stood in the cache. */
double distance_from_oracle(const tiny_result *result, const oracle_input *sequences);

#endif
