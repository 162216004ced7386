/* Rotary tables, ALiBi slopes and relative position biases. */
#ifndef CT_MODEL_POSITIONS_H
#define CT_MODEL_POSITIONS_H

#include <pthread.h>
#include <stdint.h>

#include "core/status.h"
#include "ops/ops.h"
#include "tensor/storage.h"

/* cos and sin of position * frequency, in f32 whatever the model's dtype: the angle is the f32
 * product, as the models were trained with. Grows to the largest position asked for; old tables
 * stay valid until the model goes, because other threads may be reading them. */
typedef struct ct_rotary_table ct_rotary_table;

CT_MUST_CHECK ct_status ct_rotary_table_new(ct_rotary_table **out, ct_device_id device,
                                            const float *frequencies, int64_t n_frequencies,
                                            float factor);
void ct_rotary_table_free(ct_rotary_table **table);
/* cos and sin [>= n_positions, n_frequencies], in memory of the device. */
CT_MUST_CHECK ct_status ct_rotary_table_get(ct_rotary_table *table, int64_t n_positions,
                                            const float **cos, const float **sin);

/* slopes [n_heads]: with k the largest power of two <= n_heads, r^1 .. r^k for r = 2^(-max_bias /
 * k); further heads get s^1, s^3, s^5 ... for s = 2^(-max_bias / 2k) (Press et al. 2022). */
void ct_alibi_slopes(float *slopes, int64_t n_heads, double max_bias);

/* The bucket of a key `distance` places behind its query (before it: negative), as T5 has it for
 * encoders (Raffel et al. 2020): the first half is for keys up to the query, the second for those
 * after it. Of each half the first half is of one distance each, the rest grows logarithmically
 * and its last bucket takes all from max_distance on. In f32 like the models, so that distances on
 * a border fall to the same side. n_buckets >= 4, max_distance > n_buckets / 4. */
int64_t ct_relative_bucket(int64_t distance, int64_t n_buckets, int64_t max_distance);

/* bias [n_heads, 2 * max_distance + 1]: for distances -max_distance ... max_distance the row of
 * weight [n_buckets, n_heads] that is their bucket's. */
void ct_expand_relative_bias(float *bias, const float *weight, int64_t n_heads, int64_t n_buckets,
                             int64_t max_distance);

#endif
