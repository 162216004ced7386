/* What the kernels of attention share.
 *
 * A row is a query head of a token. Its keys come in chunks of a page; the sequence's first key
 * begins the first one. A chunk that a row sees no key of changes nothing. NaN among the scores
 * makes sums and values NaN, as kernels.h of the CPU has it.
 *
 * Without tensor cores the functions below are all that decides what a row gets. A chunk's weights
 * are relative to the largest score of the row's span so far (online softmax, Milakov and
 * Gimelshein 2018), its weighted values are summed from zero, key by key, and added to those of the
 * span; spans are merged in order. All of that is done one rounding at a time: so a row has the
 * same bits whichever rows, and however many, are computed with it. */
#ifndef CT_CUDA_ATTENTION_H
#define CT_CUDA_ATTENTION_H

#include "ops.h"

#include "rows.h"
#include "runtime.h"
#include "sequences.h"

#define CT_CHUNK CT_PAGE_POSITIONS
#define CT_WHOLE_WIDTH 256 /* of heads; wider ones are summed in parts */
#define CT_MOST_HEADS 2048 /* of decode */
#define CT_SPAN_CHUNKS 4
#define CT_SPAN (CT_SPAN_CHUNKS * CT_CHUNK)

/* The arguments, as kernels get them. */
typedef struct ct_attention_problem {
    ct_attention_args args; /* the struct behind its cache is the host's */
    ct_kv_view cache;       /* without one: not used */
    bool is_cached;
    /* The rows, each its sequence's only one, are still to be rotated and appended: by decode. If
     * not, args.rotary is of width 0. */
    bool appends;
    int group; /* query heads of a KV head */
} ct_attention_problem;

/* attention_prefill.cu: sequences of any number of rows; `long_only`: but for those of one row. */
CT_MUST_CHECK ct_status ct_cuda_attention_prefill(const ct_attention_problem *problem,
                                                  bool long_only);
/* attention_tensor.cu: the same by the tensor cores, in args.compute, which is the type of what is
 * cached, too; heads of at most CT_WHOLE_WIDTH values. */
CT_MUST_CHECK ct_status ct_cuda_attention_tensor(const ct_attention_problem *problem,
                                                 bool long_only);
/* attention_decode.cu: each of the batch's rows by itself, or (`single_only`) those that are their
 * sequence's only ones. There is a cache; at most CT_MOST_HEADS heads of at most CT_WHOLE_WIDTH
 * values. */
CT_MUST_CHECK ct_status ct_cuda_attention_decode(const ct_attention_problem *problem,
                                                 bool single_only, ct_arena *arena);

/* ---- 16 bytes of f32 ---- */

typedef struct ct_four {
    float value[4];
} ct_four;

/* From an address that is a multiple of 16. */
CT_DEVICE ct_four ct_load_four(const float *from)
{
    uint4 bits = ct_load16(from);
    return {{ct_float_of_bits(bits.x), ct_float_of_bits(bits.y), ct_float_of_bits(bits.z),
             ct_float_of_bits(bits.w)}};
}

CT_DEVICE void ct_store_four(float *to, const float (&values)[4])
{
    char *bytes = (char *)to;
    memcpy(__builtin_assume_aligned(bytes, 16), values, sizeof values);
}

/* What lies in the lower 16 bits. */
template <ct_dtype dtype> CT_DEVICE float ct_float_of_half_word(uint32_t word)
{
    return dtype == CT_F16 ? ct_half_to_float((uint16_t)word) : ct_bfloat_to_float((uint16_t)word);
}

/* ---- keys ---- */

typedef struct ct_keys {
    int begin, end;
} ct_keys;

/* The keys that a query at one of the places [first, last] may see, of a sequence of n. */
CT_DEVICE ct_keys ct_visible_keys(const ct_attention_args &args, int first, int last, int n)
{
    ct_keys keys = {0, n};
    if (args.window > 0 && first + 1 > args.window)
        keys.begin = first + 1 - (int)args.window;
    if (args.causal && last + 1 < n)
        keys.end = last + 1;
    else if (!args.causal && args.window > 0 && last + args.window < n)
        keys.end = last + (int)args.window;
    return keys;
}

/* A query head of a token, which is `row` of its sequence. */
typedef struct ct_query {
    int64_t sequence;
    int row, place, head;
} ct_query;

/* Whether it sees a key of its sequence. */
CT_DEVICE bool ct_sees(const ct_attention_args &args, const ct_query &query, int key)
{
    int distance = key - query.place, far = distance < 0 ? -distance : distance;
    if ((args.causal && distance > 0) || (args.window > 0 && far >= args.window))
        return false;
    const int64_t *strides = args.mask_strides;
    return !args.mask || args.mask[query.sequence * strides[0] + query.head * strides[1] +
                                   query.row * strides[2] + key * strides[3]];
}

/* The score of a key that it sees, whose product with the query is given. */
CT_DEVICE float ct_seen_score(const ct_attention_args &args, float product, const ct_query &query,
                              int key)
{
    int distance = key - query.place, far = distance < 0 ? -distance : distance;
    float score = ct_mul_exact(product, args.scale);
    if (args.alibi_slopes)
        score = fmaf(args.alibi_slopes[query.head], -(float)far, score);
    if (args.distance_bias) {
        int most = (int)args.max_distance;
        int counted = distance > most ? most : distance < -most ? -most : distance;
        score = ct_add_exact(
            score, args.distance_bias[query.head * (2 * args.max_distance + 1) + most + counted]);
    }
    float cap = args.logit_softcap;
    return cap > 0 ? cap * tanhf(score / cap) : score;
}

CT_DEVICE float ct_score(const ct_attention_args &args, float product, const ct_query &query,
                         int key)
{
    return ct_sees(args, query, key) ? ct_seen_score(args, product, query, key) : -INFINITY;
}

/* ---- the softmax of a chunk: a warp, of which each lane has two keys ---- */

/* The largest score; NaN never is. */
CT_DEVICE float ct_largest(const float (&scores)[2])
{
    return ct_warp_max(fmaxf(fmaxf(scores[0], -INFINITY), scores[1]));
}

/* What scores are relative to when `top` is the largest so far: nothing seen leaves them alone. */
CT_DEVICE float ct_relative_to(float top)
{
    return top == -INFINITY ? 0 : top;
}

/* What sums relative to `before` are worth when `top` is the largest. */
CT_DEVICE float ct_correction(float before, float top)
{
    return expf(before - ct_relative_to(top));
}

/* Scores become weights, whose sum is returned. */
CT_DEVICE float ct_weigh(float (&scores)[2], float top)
{
    for (int i = 0; i < 2; i++)
        scores[i] = expf(scores[i] - ct_relative_to(top));
    return ct_warp_sum(scores[0] + scores[1]);
}

/* ---- sums ---- */

/* Adds a chunk to its span, be it a sum of weights or a weighted value. */
CT_DEVICE float ct_add_chunk(float span, float correction, float chunk)
{
    return fmaf(span, correction, chunk);
}

/* Adds a later span. */
CT_DEVICE float ct_merge_span(float all, float keep, float span, float take)
{
    return fmaf(all, keep, ct_mul_exact(span, take));
}

/* By which values are multiplied in the end: a row without a key gets zeros. */
CT_DEVICE float ct_inverse(float total)
{
    return total > 0 ? 1 / total : 0;
}

#endif
