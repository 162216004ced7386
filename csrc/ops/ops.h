/* THE table of what a device can do. Models are programs over this table and know no device;
 * devices fill it and know no model.
 *
 * Activations are plain matrices (ct_rows) in memory of the device, as is every array that an
 * operation gets, but for what the parameters of sample read; weights are tensors. All lengths,
 * indices and shapes were checked by the caller: an operation fails only for want of memory or
 * because the device cannot do it. An operation that takes an arena, one of the device's memory,
 * uses it for scratch; the caller resets it afterwards. Operations may go on when they have
 * returned; `download` and `fetched` wait. Letters: t tokens (rows of the packed batch), d head
 * width. */
#ifndef CT_OPS_OPS_H
#define CT_OPS_OPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/arena.h"
#include "core/status.h"
#include "ops/activation.h"
#include "tensor/tensor.h"

#define CT_OPS_ABI 8

/* Rows of `width` values, each `stride` elements after the one before. */
typedef struct ct_rows {
    void *data;
    ct_dtype dtype; /* f32, or bf16/f16 where an operation allows it */
    int64_t n_rows;
    int64_t width;
    int64_t stride;
} ct_rows;

/* ---- linear ---- */

#define CT_LINEAR_MAX_PARTS 3 /* query, key, value */

/* How a weight will mostly be used, which decides whether packing it pays. */
typedef enum ct_linear_use {
    CT_LINEAR_STREAM, /* decoders: few rows at a time; weights are read as they lie */
    CT_LINEAR_BATCH   /* encoders: many rows at a time; weights are packed once */
} ct_linear_use;

/* A prepared linear layer: up to three matrices [n_i, k] that share their input, with outputs side
 * by side in one row of sum(n_i), or two that make a gated one. */
typedef struct ct_linear ct_linear;

typedef enum ct_norm_kind { CT_NORM_LAYER, CT_NORM_RMS } ct_norm_kind;

/* As `norm` below, of all k values. */
typedef struct ct_input_norm {
    ct_norm_kind kind;
    ct_tensor *weight, *bias; /* f32 [k]; weight NULL: no norm; bias NULL: none */
    float eps;
} ct_input_norm;

/* How products with quantized weights are computed. */
typedef struct ct_quantized_compute {
    /* LLM.int8: the magnitude from which on a value of x is multiplied in f32, not as a byte; 0:
     * none is. */
    float outlier_threshold;
    ct_dtype compute_dtype; /* of 4-bit codes' values */
    bool int8_activations;  /* few rows by 4-bit weights: x in bytes, faster and less exact */
    /* As users see hidden states. If it has 16 bits, x may be rounded before it meets blocks of
     * GGUF files, by less than this type rounds. */
    ct_dtype model_dtype;
} ct_quantized_compute;

typedef struct ct_linear_desc {
    int n_parts;
    ct_tensor *weight[CT_LINEAR_MAX_PARTS]; /* [n_i, k]; float or quantized, each its own type */
    ct_tensor *bias[CT_LINEAR_MAX_PARTS];   /* [n_i] f32, or NULL */
    ct_input_norm norm;                     /* of x, before all */
    /* Of two parts of n rows each, gate and up: rows of y have n values, activation(gate) * up. */
    bool gated;
    ct_linear_use use;
    ct_quantized_compute quantized;
} ct_linear_desc;

/* What happens to x W^T + bias before it is written; to gates only, of a gated layer, which has no
 * residual. */
typedef struct ct_epilogue {
    float clip;               /* first: values are clamped to [-clip, clip]; 0: not */
    ct_activation activation; /* then */
    const ct_rows *residual;  /* + this, f32; may be y itself; NULL: nothing */
} ct_epilogue;

/* ---- attention ---- */

/* Where the heads lie in a row that holds queries, keys and values. Head h of G = n_heads /
 * n_kv_heads per group: query at q_offset + (h / G) * q_group_stride + (h % G) * d, key and value
 * of group g at k_offset + g * kv_group_stride and v_offset + g * kv_group_stride. All in elements.
 */
typedef struct ct_head_layout {
    int64_t n_heads, n_kv_heads, head_width;
    int64_t q_offset, k_offset, v_offset;
    int64_t q_group_stride, kv_group_stride;
} ct_head_layout;

#define CT_PAGE_POSITIONS 64

/* The cached keys and values of the batch's sequences, in one layer. A page holds CT_PAGE_POSITIONS
 * positions of one sequence for all layers; at layer_offset (elements) in it lie
 * [n_kv_heads][d][CT_PAGE_POSITIONS] keys (transposed: a position is a column) and behind them
 * [n_kv_heads][CT_PAGE_POSITIONS][d] values. */
typedef struct ct_kv_view {
    ct_dtype dtype; /* f32, f16 or bf16 */
    int64_t layer_offset;
    void *const *const *pages; /* [n_sequences] -> page pointers of that sequence */
    const int64_t *lengths;    /* [n_sequences]: positions cached before this call */
} ct_kv_view;

/* Keys or values of a layer as users see them: contiguous [n_sequences, n_kv_heads, n_columns,
 * head_width] in the cache's dtype. places [n_sequences, n_columns]: the position that stands in a
 * column, or -1. */
typedef struct ct_kv_array {
    void *data;
    int64_t n_sequences, n_kv_heads, n_columns, head_width;
    const int64_t *places;
} ct_kv_array;

typedef struct ct_rotary {
    int64_t width;    /* features that rotate, the first of each head; 0: none */
    bool interleaved; /* pairs (2i, 2i+1) instead of (i, i + width/2) */
    const float *cos; /* [n_positions, width / 2] */
    const float *sin;
    const int32_t *positions; /* [t], each inside the table */
} ct_rotary;

typedef struct ct_attention_args {
    ct_head_layout layout;
    ct_rows qkv;      /* [t, ...] f32; may be changed */
    ct_rotary rotary; /* of queries and new keys, before all else */
    int64_t n_sequences;
    const int64_t *offsets; /* [n_sequences + 1]: rows of each sequence */
    int64_t max_places;     /* of any sequence: cached positions and rows */
    int64_t max_rows;       /* no sequence has more */
    /* f32; or the model's type of 16 bits, to which a device may round queries, keys, values and
     * the softmax's weights before it multiplies them. */
    ct_dtype compute;
    /* Keys and values; those of the rows are written behind the cached ones, where the pages have
     * room for them. NULL: those of qkv. */
    const ct_kv_view *cache;
    float scale;
    float logit_softcap;       /* 0: none; else scores become cap * tanh(score / cap) */
    bool causal;               /* row i of a sequence sees keys up to its own place */
    int64_t window;            /* 0: all; else only keys less than `window` places away */
    const float *alibi_slopes; /* [n_heads], or NULL: score += slope * (key place - query place),
                                  with the absolute distance, negated, when not causal */
    /* [n_heads, 2 * max_distance + 1], or NULL: score += bias of the head for key place - query
     * place, which counts as max_distance where it is more, and likewise when negative. */
    const float *distance_bias;
    int64_t max_distance;
    /* A general mask instead of plain rows: element [b][h][i][j] at mask + b * stride[0] + ...;
     * 0 blocks. NULL: none. A row with no key left gets zeros. */
    const uint8_t *mask;
    int64_t mask_strides[4];
    ct_rows out; /* [t, n_heads * d] f32, or what linear_input tells */
} ct_attention_args;

/* ---- sampling ---- */

#define CT_MAX_TOP_LOGPROBS 20

/* A piece, and the logarithm of the probability that the model gives it: softmax of the logits as
 * they came, before anything below. */
typedef struct ct_logprob {
    int32_t piece; /* -1: none */
    float logprob;
} ct_logprob;

/* How the piece of one row is chosen, in this order. All zeros, with top_p 1, is the largest
 * logit. */
typedef struct ct_sampling {
    /* 1. Never chosen: single pieces, and the last piece of a sequence of pieces when the sequence
     * so far ends in the others. bad_words is a list of: length (>= 2), that many pieces. */
    const int32_t *banned;
    const int32_t *bad_words;
    int64_t n_banned, n_bad_words; /* entries of the arrays */
    /* 2. For each piece that the sequence holds: a positive logit is divided by the repetition
     * penalty, a negative one multiplied (Keskar et al. 2019, section 4.1). 0 or 1: off. */
    float repetition_penalty;
    /* 3. For each piece that was generated: logit - presence - frequency * how often. */
    float presence_penalty, frequency_penalty;
    /* 4. Logits are divided by it. 0: greedy, nothing below matters. */
    float temperature;
    /* 5. What is below the k-th largest is left out; what equals it stays. 0: off. */
    int32_t top_k;
    /* 6. Left out: pieces before which, in falling order, lies the share p or more. 1: off. */
    float top_p;
    /* 7. Left out: pieces of less than this part of the largest probability. 0: off. */
    float min_p;
    /* 8. The draw; these are the Philox counter. */
    uint64_t seed, row, step;

    /* The sequence so far: its prompt, then what was generated. Read by 1 to 3. */
    const int32_t *ids;
    int64_t n_ids, n_prompt;

    /* What is told: the chosen piece's logprob, and in `top` [n_top], of the device's memory, those
     * of the most probable pieces, falling, of equals the lower id first. */
    bool logprobs;
    int32_t n_top;
    ct_logprob *top;
} ct_sampling;

/* ---- results ---- */

/* A place for results on their way to the host. */
typedef struct ct_fetch ct_fetch;

/* ---- programs ---- */

/* Operations that are asked for again and again. `key` tells all that decides which ones they are
 * and what they get: two programs of equal keys ask for the same, with the same arguments. What
 * lies in the arrays among these may differ. */
typedef struct ct_program {
    const void *key; /* [key_size] */
    size_t key_size;
    /* Asks for the operations, possibly several times before they are done: only for operations,
     * and for memory from arenas that have it already. */
    ct_status (*run)(void *context);
    void *context;
} ct_program;

/* ---- the table ---- */

/* What becomes of a sequence's rows when one stands for all. */
typedef enum ct_pool_kind { CT_POOL_MEAN, CT_POOL_FIRST, CT_POOL_MAX } ct_pool_kind;

typedef struct ct_ops {
    uint32_t abi;  /* CT_OPS_ABI */
    uint32_t size; /* sizeof(ct_ops) */
    const char *name;

    /* ---- memory ---- */

    /* The device's memory is the host's, and its operations are over when they return. */
    bool host_memory;
    /* Whether `index` can be entered, found out without taking memory of it. CT_UNSUPPORTED with
     * what this machine lacks, CT_VALUE when it has such devices but fewer. */
    ct_status (*check)(int index);
    /* Makes `index` the device of this thread's operations, until `leave`; others wait. CT_VALUE
     * when there is no such device. */
    ct_status (*enter)(int index);
    void (*leave)(int index);
    /* Uninitialised, aligned to CT_ALIGNMENT at least, from any thread. CT_MEMORY says how much was
     * asked for and how much is there. */
    ct_status (*alloc)(int index, void **out, size_t size);
    void (*free)(int index, void *memory, size_t size);
    /* Between host and device, behind the operations so far. `from` of an upload may change when it
     * has returned; a download is complete. */
    ct_status (*upload)(void *to, const void *from, size_t size);
    ct_status (*download)(void *to, const void *from, size_t size);
    /* Within the device. */
    ct_status (*copy)(void *to, const void *from, size_t size);
    /* A download in two parts, for who has something else to ask of the device before it waits.
     * NULL where host_memory; making and freeing from any thread. */
    /* *out has room for `size` bytes, which one copy at a time may use. */
    ct_status (*fetch_new)(int index, ct_fetch **out, size_t size);
    /* Waits for a copy that is under way. */
    void (*fetch_free)(ct_fetch **fetch);
    /* Asks for a copy, behind the operations so far. */
    ct_status (*fetch)(ct_fetch *fetch, const void *from, size_t size);
    /* Waits for the copy, and for nothing that was asked for behind it: *data, which stays until
     * the next one. The device need not be entered, so that others may use it meanwhile. */
    ct_status (*fetched)(ct_fetch *fetch, const void **data);
    /* *bytes = what it has to give. */
    ct_status (*available)(int index, size_t *bytes);
    /* Memory that was freed and is kept for reuse goes back to the system. From any thread. */
    ct_status (*trim)(int index);

    /* ---- order with other libraries that use the device's memory ----
     *
     * From any thread; NULL where host_memory. Streams are called what DLPack calls them: 1 is the
     * default one, 2 that of the thread, -1 one that is not told, others are handles. */

    /* *stream = that of the operations. */
    ct_status (*stream)(int index, intptr_t *stream);
    /* What `stream` is asked for from now on waits for the operations so far; -1: nobody does. */
    ct_status (*let_wait)(int index, intptr_t stream);
    /* Operations from now on wait for what `stream` was asked for so far. Its handle may not be one
     * any more: then, and for -1, the caller waits for all work of the device. */
    void (*wait_for)(int index, intptr_t stream);
    /* The caller waits for the operations so far. */
    void (*finish)(int index);

    /* ---- operations ---- */

    /* What `run` of the program would do, without asking for each operation again where the device
     * remembers them. NULL where this saves nothing. */
    ct_status (*repeat)(const ct_program *program);

    /* Takes references to the tensors, or to copies in the device's memory or for its products. */
    ct_status (*linear_new)(ct_linear **out, const ct_linear_desc *desc);
    void (*linear_free)(ct_linear **linear);
    /* The element type in which `linear` wants `n_rows` of input: f32, where it has a norm, else
     * that, bf16 or f16. Others are converted, and so may blocks be, to a type of 16 bits. */
    ct_dtype (*linear_input)(const ct_linear *linear, int64_t n_rows);
    /* y [t, sum n_i] = epilogue(norm(x [t, k]) W^T + bias), or [t, n] of a gated layer. y f32, or
     * what the linear_input of another tells; scratch comes from the arena. */
    ct_status (*linear)(const ct_linear *linear, ct_rows x, const ct_epilogue *epilogue, ct_rows y,
                        ct_arena *arena);

    /* y [t, width] f32 = row ids[i] of table [n, width] (float or quantized), times `scale`;
     * `accumulate` adds to y instead. */
    ct_status (*embed)(ct_rows y, const ct_tensor *table, const int32_t *ids, float scale,
                       bool accumulate);

    /* y [t, width] (f32, or what linear_input tells) = norm(x f32) by weight and bias, f32 [width];
     * y may be x. Each row is `groups` norms of width / groups values that share the weight (norm
     * per head). */
    ct_status (*norm)(ct_norm_kind kind, ct_rows y, ct_rows x, const float *weight,
                      const float *bias, float eps, int64_t groups);

    /* y = x + z, f32; y may be either. */
    ct_status (*add)(ct_rows y, ct_rows x, ct_rows z);

    /* x = cap * tanh(scale * x / cap), f32; cap 0: x = scale * x. */
    ct_status (*scale)(ct_rows x, float scale, float cap);

    /* Rotates queries and keys, appends keys and values to the cache, and attends. */
    ct_status (*attention)(const ct_attention_args *args, ct_arena *arena);

    /* Cached keys, or values, to an array, or with `store` from one, which takes all pages to be
     * this caller's to write. Columns without a position read as zeros. NULL where host_memory. */
    ct_status (*move_pages)(const ct_kv_view *cache, const ct_kv_array *array, bool values,
                            bool store);

    /* dst row map[i] (map rises) = x row i, converted to dst's type; rows that no map entry names
     * are zeroed. map NULL: row i to row i. */
    ct_status (*scatter)(ct_rows dst, ct_rows x, const int64_t *map);
    /* dst row i = x row map[i], both f32. */
    ct_status (*gather)(ct_rows dst, ct_rows x, const int64_t *map);
    /* dst row s = the mean (known to f32's rounding), the first or, feature by feature, the largest
     * of x rows offsets[s] ... offsets[s + 1] - 1, both f32; zeros where there is none. */
    ct_status (*pool)(ct_pool_kind kind, ct_rows dst, ct_rows x, const int64_t *offsets);

    /* chosen [n_rows]: one choice from each row of logits [n_rows, vocabulary] f32, which it may
     * overwrite, by params[i], of which nothing but `top` is used after it has returned. The piece
     * is -1 when a row leaves no choice; logprob is NaN where it was not asked for. ids [n_rows],
     * or NULL: the same pieces, as a forward takes them, with 0 for none. */
    ct_status (*sample)(ct_logprob *chosen, int32_t *ids, ct_rows logits, const ct_sampling *params,
                        ct_arena *arena);
} ct_ops;

#endif
