/* Arg max, or a draw from what temperature, top-k, top-p and min-p leave, after bans and penalties.
 *
 * Bans and penalties touch only the pieces that they name. A cut finds its threshold by selection,
 * never by sorting the vocabulary, and moves what it leaves to the front of the row, in the pieces'
 * order; all that follows looks at those alone. Passes over the whole vocabulary go through the
 * kernels, or skip blocks whose largest value is below the threshold. */
#include "cpu/sample.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "cpu/kernels.h"
#include "cpu/parallel.h"
#include "ops/philox.h"

#define BLOCK 256 /* values that are skipped at once */

/* What is left of a row: weights or logits [n] in rising order of their pieces. */
typedef struct rest {
    float *values;
    int32_t *pieces; /* NULL: all of the vocabulary */
    int64_t n;
} rest;

static ct_logprob choose(float *logits, int64_t n, const ct_sampling *params, float *scratch);

static bool penalizes(const ct_sampling *params)
{
    bool repetition = params->repetition_penalty != 0 && params->repetition_penalty != 1;
    return repetition || params->presence_penalty != 0 || params->frequency_penalty != 0;
}

static bool tells(const ct_sampling *params)
{
    return params->logprobs || params->n_top > 0;
}

ct_status ct_cpu_sample(ct_logprob *chosen, int32_t *ids, ct_rows logits, const ct_sampling *params,
                        ct_arena *arena)
{
    int64_t n = logits.width, n_rows = logits.n_rows;
    int n_threads = n_rows > 1 ? ct_threads_get() : 1;
    size_t each = 0; /* scratch of a thread, in rows */
    for (int64_t i = 0; i < n_rows; i++) {
        size_t wanted = tells(&params[i])           ? 3
                        : params[i].temperature > 0 ? 2
                        : penalizes(&params[i])     ? 1
                                                    : 0;
        each = wanted > each ? wanted : each;
    }
    each *= (size_t)n;
    float *scratch = NULL;
    CT_TRY(ct_arena_alloc(arena, (void **)&scratch, sizeof *scratch * each * (size_t)n_threads));
#pragma omp parallel for schedule(static) num_threads(n_threads)
    for (int64_t i = 0; i < n_rows; i++)
        chosen[i] = choose((float *)logits.data + i * logits.stride, n, &params[i],
                           scratch + (size_t)ct_thread_id() * each);
    for (int64_t i = 0; ids && i < n_rows; i++)
        ids[i] = chosen[i].piece < 0 ? 0 : chosen[i].piece;
    return CT_OK;
}

static double sum_of(const float *weights, int64_t n)
{
    double sums[4] = {0};
    int64_t i = 0;
    for (; i + 4 <= n; i += 4)
        for (int j = 0; j < 4; j++)
            sums[j] += weights[i + j];
    for (; i < n; i++)
        sums[0] += weights[i];
    return sums[0] + sums[1] + (sums[2] + sums[3]);
}

/* Whether a value of the block from i on reaches the threshold; *end is where the block ends. */
static bool block_reaches(const float *values, int64_t i, int64_t n, float threshold, int64_t *end)
{
    *end = i + BLOCK < n ? i + BLOCK : n;
    return values[i + ct_cpu_kernels->argmax(values + i, *end - i)] >= threshold;
}

/* Leaves values from the threshold on; `pieces` has room for all of them. NaN goes. */
static void keep_from(rest *row, float threshold, int32_t *pieces)
{
    int64_t kept = 0, end;
    for (int64_t i = 0; i < row->n; i = end) {
        if (!block_reaches(row->values, i, row->n, threshold, &end))
            continue;
        for (int64_t j = i; j < end; j++) {
            if (!(row->values[j] >= threshold))
                continue;
            row->values[kept] = row->values[j];
            pieces[kept++] = row->pieces ? row->pieces[j] : (int32_t)j;
        }
    }
    row->pieces = pieces;
    row->n = kept;
}

/* ---- top-k ---- */

/* Moves heap[at] down to where its children are no smaller. */
static void sift_down(float *heap, int64_t at, int64_t n)
{
    float value = heap[at];
    int64_t child;
    while ((child = 2 * at + 1) < n) {
        if (child + 1 < n && heap[child + 1] < heap[child])
            child++;
        if (heap[child] >= value)
            break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = value;
}

/* The k-th largest of values [n], k < n, by a heap of the k largest so far, the smallest in front.
 */
static float kth_largest(float *heap, const float *values, int64_t n, int64_t k)
{
    int64_t end;
    for (int64_t i = 0; i < k; i++)
        heap[i] = isnan(values[i]) ? -INFINITY : values[i];
    for (int64_t i = k / 2 - 1; i >= 0; i--)
        sift_down(heap, i, k);
    for (int64_t i = k; i < n; i = end) {
        if (!block_reaches(values, i, n, heap[0], &end))
            continue;
        for (int64_t j = i; j < end; j++) {
            if (values[j] > heap[0]) {
                heap[0] = values[j];
                sift_down(heap, 0, k);
            }
        }
    }
    return heap[0];
}

/* ---- top-p ---- */

/* values[0, above) are larger than the pivot, values[above, below) equal to it. */
typedef struct split {
    int64_t above, below;
    float pivot;
} split;

/* Reorders values [n] into three parts (Dijkstra's Dutch national flag). The pivot is the median of
 * three, so that ordered rows are halved. */
static split partition(float *values, int64_t n)
{
    float a = values[0], b = values[n / 2], c = values[n - 1];
    float pivot = fmaxf(fminf(a, b), fminf(fmaxf(a, b), c));
    int64_t above = 0, below = n, i = 0;
    while (i < below) {
        float value = values[i];
        if (value > pivot) {
            values[i++] = values[above];
            values[above++] = value;
        } else if (value < pivot) {
            values[i] = values[--below];
            values[below] = value;
        } else {
            i++;
        }
    }
    return (split){above, below, pivot};
}

/* Where top-p cuts: the smallest weight that stays, and what all larger ones weigh. */
typedef struct cut {
    float smallest;
    double larger;
} cut;

/* The order is by weight, of which those before a piece have to weigh less than `limit`. values [n]
 * is reordered; what is searched always begins with a piece that stays. */
static cut find_cut(float *values, int64_t n, double limit)
{
    cut found = {0};
    double before = 0; /* the weight of all that are larger than values */
    while (n > 0) {
        split parts = partition(values, n);
        double larger = before + sum_of(values, parts.above);
        if (parts.above > 0 && larger >= limit) {
            n = parts.above;
            continue;
        }
        found = (cut){parts.pivot, larger};
        before = larger + (double)parts.pivot * (double)(parts.below - parts.above);
        if (before >= limit)
            break;
        values += parts.below;
        n -= parts.below;
    }
    return found;
}

/* Leaves out a piece when those before it have the share p of the weight or more: the larger ones,
 * and of equal ones those with lower ids. The first always stays. */
static void cut_top_p(rest *row, float p, int32_t *pieces, float *scratch)
{
    double sum = sum_of(row->values, row->n), limit = (double)p * sum;
    /* Pieces of less than this weigh less than 1 - p together, so that none of them stays. The
     * factor keeps rounding out of it. */
    float floor = (float)(0.999 * (sum - limit) / (double)row->n);
    keep_from(row, floor > FLT_TRUE_MIN ? floor : FLT_TRUE_MIN, pieces);
    memcpy(scratch, row->values, sizeof *scratch * (size_t)row->n);
    cut found = find_cut(scratch, row->n, limit);
    double before = found.larger;
    bool first = found.larger == 0;
    int64_t kept = 0;
    for (int64_t i = 0; i < row->n; i++) {
        if (row->values[i] < found.smallest)
            continue;
        if (row->values[i] == found.smallest) {
            bool stays = before < limit || first;
            before += found.smallest;
            first = false;
            if (!stays)
                continue;
        }
        row->values[kept] = row->values[i];
        row->pieces[kept++] = row->pieces[i];
    }
    row->n = kept;
}

/* ---- the draw ---- */

/* The piece in whose part of [0, sum) uniform * sum falls. */
static int32_t draw(const rest *row, double uniform)
{
    double left = uniform * sum_of(row->values, row->n), of_block;
    int64_t i = 0, last = 0;
    for (; i + BLOCK < row->n; i += BLOCK, left -= of_block)
        if ((of_block = sum_of(row->values + i, BLOCK)) > left)
            break;
    for (; i < row->n; i++) {
        if (row->values[i] == 0)
            continue;
        left -= row->values[i];
        last = i;
        if (left < 0)
            break;
    }
    return row->pieces ? row->pieces[last] : (int32_t)last;
}

/* ---- probabilities of the model ---- */

/* log(sum(exp(logits))); NaN counts as minus infinity. */
static double log_sum_exp(const float *logits, int64_t n, float *scratch)
{
    float top = logits[ct_cpu_kernels->argmax(logits, n)];
    if (!(top > -INFINITY) || top == INFINITY)
        return top;
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        scratch[i] = logits[i] > -INFINITY ? logits[i] : -INFINITY;
    ct_cpu_kernels->exp_sum(scratch, top, n);
    return top + log(sum_of(scratch, n));
}

static float logprob_of(float logit, double log_sum)
{
    if (log_sum == INFINITY) /* all the probability is with those that are infinite */
        return logit == INFINITY ? 0 : -INFINITY;
    return (float)(logit - log_sum);
}

/* Puts a piece into a falling list, behind equal ones, if it is larger than the last. */
static void insert(ct_logprob *top, int64_t n_top, ct_logprob added)
{
    int64_t at = n_top - 1;
    if (!(added.logprob > top[at].logprob))
        return;
    for (; at > 0 && added.logprob > top[at - 1].logprob; at--)
        top[at] = top[at - 1];
    top[at] = added;
}

/* The n_top largest, by insertion: few of a row get into the list. */
static void tell_top(ct_logprob *top, int64_t n_top, const float *logits, int64_t n, double log_sum)
{
    for (int64_t i = 0; i < n_top; i++)
        top[i] = (ct_logprob){-1, -INFINITY};
    for (int64_t i = 0, end; n_top > 0 && i < n; i = end)
        if (block_reaches(logits, i, n, top[n_top - 1].logprob, &end))
            for (int64_t j = i; j < end; j++)
                insert(top, n_top, (ct_logprob){(int32_t)j, logits[j]});
    for (int64_t i = 0; i < n_top; i++)
        top[i].logprob = logprob_of(top[i].logprob, log_sum);
}

/* ---- bans and penalties ---- */

static void forbid(float *logits, const ct_sampling *params)
{
    for (int64_t i = 0; i < params->n_banned; i++)
        logits[params->banned[i]] = -INFINITY;
    const int32_t *word = params->bad_words, *end = word + params->n_bad_words;
    for (; word < end; word += 1 + word[0]) {
        int64_t n_before = word[0] - 1;
        if (n_before <= params->n_ids && memcmp(params->ids + params->n_ids - n_before, word + 1,
                                                sizeof *word * (size_t)n_before) == 0)
            logits[word[1 + n_before]] = -INFINITY;
    }
}

/* Lowers each piece of the sequence once. Only its entries of counts [n] are used, so that nothing
 * as long as the vocabulary needs clearing. */
static void penalize(float *logits, const ct_sampling *params, int32_t *counts)
{
    enum { DONE = -1 };
    float repetition = params->repetition_penalty == 0 ? 1 : params->repetition_penalty;
    const int32_t *ids = params->ids, *end = ids + params->n_ids;
    const int32_t *generated = ids + params->n_prompt;
    for (const int32_t *id = ids; id < end; id++)
        counts[*id] = 0;
    for (const int32_t *id = generated; id < end; id++)
        counts[*id]++;
    for (const int32_t *id = ids; id < end; id++) {
        float count = (float)counts[*id], *logit = &logits[*id];
        if (counts[*id] == DONE)
            continue;
        *logit = *logit < 0 ? *logit * repetition : *logit / repetition;
        if (count > 0)
            *logit -= params->presence_penalty + params->frequency_penalty * count;
        counts[*id] = DONE;
    }
}

/* ---- the whole ---- */

/* Logits become softmax's numerators; `top` is the largest. NaN weighs nothing. */
static void weigh(rest *row, float top, float temperature)
{
    float *values = row->values, factor = fminf(1 / temperature, FLT_MAX);
#pragma omp simd
    for (int64_t i = 0; i < row->n; i++) {
        float value = (values[i] - top) * factor;
        values[i] = value > -INFINITY ? value : -INFINITY;
    }
    ct_cpu_kernels->exp_sum(values, 0, row->n);
}

/* -1 when nothing can be chosen. scratch [2 n]. */
static int32_t choose_piece(float *logits, int64_t n, const ct_sampling *params, float *scratch)
{
    int64_t best = ct_cpu_kernels->argmax(logits, n);
    float top = logits[best];
    if (!(top > -INFINITY))
        return -1;
    if (params->temperature <= 0 || top == INFINITY) /* nothing competes with infinity */
        return (int32_t)best;
    rest row = {logits, NULL, n};
    int32_t *pieces = (int32_t *)(scratch + n);
    if (params->top_k > 0 && params->top_k < n)
        keep_from(&row, kth_largest(scratch, logits, n, params->top_k), pieces);
    weigh(&row, top, params->temperature);
    if (params->top_p < 1)
        cut_top_p(&row, params->top_p, pieces, scratch);
    if (params->min_p > 0) /* the first of the largest weighs 1 and was left by all cuts */
        keep_from(&row, params->min_p, pieces);
    return draw(&row, ct_philox_uniform(params->seed, params->row, params->step));
}

/* scratch [2 n], and [3 n] where logprobs are told: the third part keeps the logits as they came.
 */
static ct_logprob choose(float *logits, int64_t n, const ct_sampling *params, float *scratch)
{
    double log_sum = NAN;
    float *raw = NULL;
    if (tells(params)) {
        raw = scratch + 2 * n;
        memcpy(raw, logits, sizeof *raw * (size_t)n);
        log_sum = log_sum_exp(raw, n, scratch);
        tell_top(params->top, params->n_top, raw, n, log_sum);
    }
    forbid(logits, params);
    if (penalizes(params))
        penalize(logits, params, (int32_t *)scratch);
    ct_logprob chosen = {choose_piece(logits, n, params, scratch), NAN};
    if (raw && chosen.piece >= 0)
        chosen.logprob = logprob_of(raw[chosen.piece], log_sum);
    return chosen;
}
