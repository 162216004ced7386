/* Arg max, or a draw from what temperature, top-k, top-p and min-p leave, after bans and penalties.
 *
 * The row of logits becomes the row of weights, in place; what is left out gets -inf or 0. Cuts are
 * found by selection in a copy, never by sorting the vocabulary, and the draw walks the row in the
 * pieces' order. Bans and penalties touch only the pieces that they name. */
#include "cpu/sample.h"

#include <math.h>
#include <string.h>

#include "cpu/kernels.h"
#include "cpu/parallel.h"
#include "ops/philox.h"

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

ct_status ct_cpu_sample(ct_logprob *chosen, ct_rows logits, const ct_sampling *params,
                        ct_arena *arena)
{
    int64_t n = logits.width, n_rows = logits.n_rows;
    size_t each = 0;
    for (int64_t i = 0; i < n_rows; i++) {
        size_t wanted = tells(&params[i]) ? 2 : params[i].temperature > 0 || penalizes(&params[i]);
        each = wanted > each ? wanted : each;
    }
    each *= (size_t)n;
    float *scratch = NULL;
    CT_TRY(ct_arena_alloc(arena, (void **)&scratch, sizeof *scratch * each * (size_t)n_rows));
#pragma omp parallel for schedule(static) num_threads(n_rows > 1 ? ct_threads_get() : 1)
    for (int64_t i = 0; i < n_rows; i++)
        chosen[i] = choose((float *)logits.data + i * logits.stride, n, &params[i],
                           scratch + (size_t)i * each);
    for (int64_t i = 0; i < n_rows; i++)
        if (chosen[i].piece < 0)
            return ct_fail(CT_VALUE,
                           "no piece can be chosen for row %lld: every one is masked or has the "
                           "logit NaN or minus infinity",
                           (long long)i);
    return CT_OK;
}

static double sum_of(const float *weights, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += weights[i];
    return sum;
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

/* The k-th largest of values [n], k <= n, by a heap of the k largest so far, the smallest in front.
 */
static float kth_largest(float *heap, const float *values, int64_t n, int64_t k)
{
    memcpy(heap, values, sizeof *heap * (size_t)k);
    for (int64_t i = k / 2 - 1; i >= 0; i--)
        sift_down(heap, i, k);
    for (int64_t i = k; i < n; i++) {
        if (values[i] > heap[0]) {
            heap[0] = values[i];
            sift_down(heap, 0, k);
        }
    }
    return heap[0];
}

/* Leaves out everything below the k-th largest; what equals it stays. */
static void cut_top_k(float *logits, int64_t n, int64_t k, float *scratch)
{
    if (k >= n)
        return;
    float cutoff = kth_largest(scratch, logits, n, k);
    for (int64_t i = 0; i < n; i++)
        if (logits[i] < cutoff)
            logits[i] = -INFINITY;
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
static void cut_top_p(float *weights, int64_t n, float p, float *scratch)
{
    double sum = sum_of(weights, n), limit = (double)p * sum;
    /* Pieces of less than this weigh less than 1 - p together, so that none of them stays. The
     * factor keeps rounding out of it. */
    float floor = (float)(0.999 * (sum - limit) / (double)n);
    int64_t n_possible = 0;
    for (int64_t i = 0; i < n; i++)
        if (weights[i] > 0 && weights[i] >= floor)
            scratch[n_possible++] = weights[i];
    cut found = find_cut(scratch, n_possible, limit);
    double before = found.larger;
    bool first = found.larger == 0;
    for (int64_t i = 0; i < n; i++) {
        if (weights[i] == found.smallest) {
            if (before >= limit && !first)
                weights[i] = 0;
            before += found.smallest;
            first = false;
        } else if (weights[i] < found.smallest) {
            weights[i] = 0;
        }
    }
}

/* ---- the draw ---- */

/* The piece in whose part of [0, sum) uniform * sum falls. */
static int32_t draw(const float *weights, int64_t n, double uniform)
{
    double left = uniform * sum_of(weights, n);
    int64_t last = 0;
    for (int64_t i = 0; i < n; i++) {
        if (weights[i] == 0)
            continue;
        left -= weights[i];
        last = i;
        if (left < 0)
            break;
    }
    return (int32_t)last; /* rounding may leave nothing behind the last one */
}

/* ---- probabilities of the model ---- */

/* log(sum(exp(logits))); NaN counts as minus infinity. */
static double log_sum_exp(const float *logits, int64_t n, float *scratch)
{
    float top = logits[ct_cpu_kernels->argmax(logits, n)];
    if (!(top > -INFINITY) || top == INFINITY)
        return top;
    for (int64_t i = 0; i < n; i++)
        scratch[i] = isnan(logits[i]) ? -INFINITY : logits[i];
    ct_cpu_kernels->exp_sum(scratch, top, n);
    return top + log(sum_of(scratch, n));
}

static float logprob_of(float logit, double log_sum)
{
    if (log_sum == INFINITY) /* all the probability is with those that are infinite */
        return logit == INFINITY ? 0 : -INFINITY;
    return (float)(logit - log_sum);
}

/* The n_top largest, by insertion: few of a row get into the list. */
static void tell_top(ct_logprob *top, int64_t n_top, const float *logits, int64_t n, double log_sum)
{
    for (int64_t i = 0; i < n_top; i++)
        top[i] = (ct_logprob){-1, -INFINITY};
    for (int64_t i = 0; n_top > 0 && i < n; i++) {
        if (!(logits[i] > top[n_top - 1].logprob))
            continue;
        int64_t at = n_top - 1;
        for (; at > 0 && logits[i] > top[at - 1].logprob; at--)
            top[at] = top[at - 1];
        top[at] = (ct_logprob){(int32_t)i, logits[i]};
    }
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

/* The row of logits becomes weights: softmax's numerators of what the cuts leave. The piece `best`
 * is the first of the largest, which all of them leave. */
static void weigh(float *logits, int64_t n, int64_t best, const ct_sampling *params, float *scratch)
{
    float top = logits[best];
    for (int64_t i = 0; i < n; i++)
        if (isnan(logits[i]))
            logits[i] = -INFINITY;
    if (params->top_k > 0)
        cut_top_k(logits, n, params->top_k, scratch);
    for (int64_t i = 0; i < n; i++)
        logits[i] = (logits[i] - top) / params->temperature;
    ct_cpu_kernels->exp_sum(logits, 0, n);
    if (params->top_p < 1)
        cut_top_p(logits, n, params->top_p, scratch);
    float least = params->min_p * logits[best];
    for (int64_t i = 0; least > 0 && i < n; i++)
        logits[i] = logits[i] < least ? 0 : logits[i];
}

/* -1 when nothing can be chosen. */
static int32_t choose_piece(float *logits, int64_t n, const ct_sampling *params, float *scratch)
{
    int64_t best = ct_cpu_kernels->argmax(logits, n);
    float top = logits[best];
    if (!(top > -INFINITY))
        return -1;
    if (params->temperature <= 0 || top == INFINITY) /* nothing competes with infinity */
        return (int32_t)best;
    weigh(logits, n, best, params, scratch);
    return draw(logits, n, ct_philox_uniform(params->seed, params->row, params->step));
}

/* scratch [n], and [2 n] where logprobs are told: the second half keeps the logits as they came. */
static ct_logprob choose(float *logits, int64_t n, const ct_sampling *params, float *scratch)
{
    double log_sum = NAN;
    float *raw = NULL;
    if (tells(params)) {
        raw = scratch + n;
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
