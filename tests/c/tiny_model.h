/* Models small enough to be stated again in a test: a specification of each kind, weights that are
 * a function of their place, inputs written as text, and one call from inputs to results. */
#ifndef CT_TEST_TINY_MODEL_H
#define CT_TEST_TINY_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "core/status.h"
#include "model/model.h"

#define TINY_PIECES 61
#define TINY_WIDTH 32
#define TINY_LAYERS 2

/* Blocks that live, without what is kept for reuse. */
int64_t live_blocks(void);

/* BERT's kind: post-norm, biases, learned positions (40), two token types. */
ct_spec tiny_encoder_spec(void);
/* Llama's kind: RMS norms before, rotary, two heads per KV head, gated, a head of its own. */
ct_spec tiny_decoder_spec(void);
/* NeoX's and Falcon's kind: parallel residual, half of each head rotates in pairs, one KV head in a
 * grouped projection with bias, a tied head. */
ct_spec tiny_parallel_spec(void);

/* The values of a weight, rounded to `dtype`. Vectors have columns 0. */
void tiny_values(float *out, ct_role role, int64_t layer, int64_t rows, int64_t columns,
                 ct_dtype dtype);

/* Whether the model's queries, keys and values come as one matrix: a grouped one, or MPT's, which
 * is also the one that clips them. Else as three. */
bool tiny_is_fused(const ct_spec *spec);
/* Whether the head is the piece embeddings: the parallel kind's. */
bool tiny_is_tied(const ct_spec *spec);

/* A model with all weights set but not finished. Matrices have the spec's dtype. */
CT_MUST_CHECK ct_status tiny_model_begin(ct_model **out, ct_spec spec);
/* One that is ready. */
CT_MUST_CHECK ct_status tiny_model_new(ct_model **out, ct_spec spec);
CT_MUST_CHECK ct_status tiny_model_new_on(ct_model **out, ct_spec spec, ct_device_id device);

/* n pieces of the vocabulary, other ones for each seed. */
void tiny_pieces(int32_t *out, int64_t n, uint64_t seed);

/* int32 [rows, columns]. */
CT_MUST_CHECK ct_status integers_of(ct_tensor **out, int64_t rows, int64_t columns,
                                    const int32_t *values);
/* bool [rows, columns] from rows of `1` and `.` with a space between them: "11. 1..". */
CT_MUST_CHECK ct_status mask_of(ct_tensor **out, const char *text);

/* What one call gives. */
typedef struct tiny_result {
    ct_batch batch;
    ct_tensor *hidden, *logits; /* all layers' outputs, all rows' logits (NULL without a head) */
    ct_kv_cache *cache;         /* NULL unless it was asked for */
} tiny_result;

/* Packs the inputs and runs the model behind inputs->cache. On failure there is nothing to clear.
 */
CT_MUST_CHECK ct_status tiny_run(tiny_result *out, ct_model *model, const ct_inputs *inputs,
                                 bool store);
/* The same for one sequence without padding. */
CT_MUST_CHECK ct_status tiny_run_pieces(tiny_result *out, ct_model *model, const int32_t *pieces,
                                        int64_t n, const ct_kv_cache *cache, bool store);
void tiny_result_clear(tiny_result *result);

/* Row `token` of the packed batch: output `index` (0: the embeddings), or logits. */
const float *tiny_hidden(const tiny_result *result, int64_t index, int64_t token);
const float *tiny_logits(const tiny_result *result, int64_t token);

#endif
