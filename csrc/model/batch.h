/* Padded <-> packed. A [batch, columns] input with a mask becomes rows for its real tokens only;
 * outputs are scattered back when somebody reads them, zeros at masked places. */
#ifndef CT_MODEL_BATCH_H
#define CT_MODEL_BATCH_H

#include <stdint.h>

#include "core/arena.h"
#include "core/status.h"
#include "model/kv_cache.h"
#include "model/spec.h"
#include "ops/ops.h"
#include "tensor/tensor.h"

typedef struct ct_batch {
    int64_t n_sequences, n_columns; /* the padded shape */
    int64_t n_tokens;               /* rows that are computed */
    int64_t *offsets;               /* [n_sequences + 1] */
    /* The same of the rows that outputs show. Those at masked places of a mask with holes may be
     * computed without being shown. */
    int64_t n_shown;
    int64_t *shown_offsets;           /* [n_sequences + 1] */
    int64_t *places;                  /* [n_shown]: sequence * n_columns + column */
    int32_t *ids, *positions, *types; /* [n_tokens]; types NULL without a type table */
    ct_tensor *mask;    /* owned, bool [batch, 1 | heads, columns, keys]: a general mask;
                           then every token is a row. NULL: plain padding */
    ct_tensor *columns; /* owned, bool [n_sequences, cached + n_columns]: the columns that
                           hold a position after this call */
} ct_batch;

/* What a caller hands in; all borrowed. Integers are i32 or i64 of any stride. */
typedef struct ct_inputs {
    const ct_tensor *ids;       /* [batch, columns] */
    const ct_tensor *mask;      /* bool, true = attend: [batch, cached + columns], or 4-d
                                   [batch, 1 | heads, 1 | columns, cached + columns]; NULL: all */
    const ct_tensor *positions; /* [batch, columns], or NULL: by the spec's rule */
    const ct_tensor *types;     /* [batch, columns], or NULL: all 0 */
    const ct_kv_cache *cache;   /* or NULL */
} ct_inputs;

/* Packs the inputs. Checks every shape and dtype (CT_VALUE, CT_TYPE), every piece, position and
 * type id (CT_INDEX, with the place), and the sequences' lengths against max_positions (CT_VALUE).
 * A mask that says of cached columns something else than when they were computed is CT_VALUE. */
CT_MUST_CHECK ct_status ct_batch_pack(ct_batch *out, const ct_spec *spec, const ct_inputs *inputs);
void ct_batch_clear(ct_batch *batch);

/* Packed rows [n_tokens, width] f32 -> [n_sequences, n_columns, width] in `dtype` on the same
 * device, zeros at masked places. When nothing was masked and dtype is f32 the result is a view. */
CT_MUST_CHECK ct_status ct_batch_scatter(ct_tensor **out, const ct_batch *batch, ct_tensor *rows,
                                         ct_dtype dtype);

/* Packed rows [n_tokens, width] f32 -> f32 [n_sequences, width], one row for those of each
 * sequence: its real tokens', or all columns' behind a mask by query or head. */
CT_MUST_CHECK ct_status ct_batch_pool(ct_tensor **out, const ct_batch *batch, ct_tensor *rows,
                                      ct_pool_kind kind);

#endif
