/* Arg max, or a draw from what temperature, top-k and top-p leave. The vocabulary is passed over a few
 * times; only the pieces that can still be chosen are ever sorted. */
#include "cpu/sample.h"

#include <math.h>
#include <stdlib.h>

#include "cpu/kernels.h"
#include "cpu/parallel.h"
#include "ops/philox.h"

typedef struct candidate {
    float weight; /* logit, later probability without its common factor */
    int32_t id;
} candidate;

static void ban(float *logits, const uint8_t *banned, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (banned[i])
            logits[i] = -INFINITY;
}

/* Largest first; of equal weights the lower id. */
static int by_weight(const void *a, const void *b)
{
    const candidate *x = a, *y = b;
    if (x->weight != y->weight)
        return x->weight < y->weight ? 1 : -1;
    return x->id < y->id ? -1 : 1;
}

/* The k-th largest value, by narrowing a pivot's two sides; values is reordered. NaN counts as lowest. */
static float kth_largest(float *values, int64_t n, int64_t k)
{
    int64_t low = 0, high = n - 1, wanted = k - 1;
    while (low < high) {
        float pivot = values[low + (high - low) / 2];
        int64_t i = low, j = high;
        while (i <= j) {
            while (values[i] > pivot)
                i++;
            while (values[j] < pivot)
                j--;
            if (i <= j) {
                float swapped = values[i];
                values[i++] = values[j];
                values[j--] = swapped;
            }
        }
        if (wanted <= j)
            high = j;
        else if (wanted >= i)
            low = i;
        else
            break;
    }
    return values[wanted];
}

/* The candidates that top-k leaves: all not below the k-th largest, ties included. */
static int64_t select_top(candidate *out, const float *logits, float *scratch, int64_t n, int64_t k)
{
    float cutoff = -INFINITY;
    int64_t n_finite = 0, kept = 0;
    for (int64_t i = 0; i < n; i++)
        if (logits[i] > -INFINITY)
            scratch[n_finite++] = logits[i];
    if (k > 0 && k < n_finite)
        cutoff = kth_largest(scratch, n_finite, k);
    for (int64_t i = 0; i < n; i++)
        if (logits[i] >= cutoff && logits[i] > -INFINITY)
            out[kept++] = (candidate){logits[i], (int32_t)i};
    return kept;
}

/* Logits -> weights exp((logit - largest) / temperature); returns their sum. */
static double weigh(candidate *candidates, int64_t n, float temperature)
{
    float top = -INFINITY;
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        top = candidates[i].weight > top ? candidates[i].weight : top;
    for (int64_t i = 0; i < n; i++) {
        candidates[i].weight = expf((candidates[i].weight - top) / temperature);
        sum += candidates[i].weight;
    }
    return sum;
}

/* Keeps a candidate while the probability before it is below p, the most probable ones first. */
static int64_t cut_top_p(candidate *candidates, int64_t n, double *sum, float p)
{
    qsort(candidates, (size_t)n, sizeof *candidates, by_weight);
    double before = candidates[0].weight, limit = (double)p * *sum;
    int64_t kept = 1;
    while (kept < n && before < limit)
        before += candidates[kept++].weight;
    *sum = before;
    return kept;
}

static int32_t draw(const candidate *candidates, int64_t n, double sum, double uniform)
{
    double left = uniform * sum;
    for (int64_t i = 0; i < n - 1; i++) {
        left -= candidates[i].weight;
        if (left < 0)
            return candidates[i].id;
    }
    return candidates[n - 1].id;
}

/* -1 when nothing can be chosen. */
static int32_t choose(float *logits, int64_t n, const ct_sampling *params, candidate *candidates,
                      float *scratch)
{
    if (params->banned)
        ban(logits, params->banned, n);
    if (params->temperature <= 0) {
        int64_t id = ct_cpu_kernels->argmax(logits, n);
        return logits[id] > -INFINITY ? (int32_t)id : -1;
    }
    int64_t kept = select_top(candidates, logits, scratch, n, params->top_k);
    if (kept == 0)
        return -1;
    double sum = weigh(candidates, kept, params->temperature);
    if (params->top_p < 1)
        kept = cut_top_p(candidates, kept, &sum, params->top_p);
    return draw(candidates, kept, sum,
                ct_philox_uniform(params->seed, params->row, params->step));
}

ct_status ct_cpu_sample(int32_t *ids, ct_rows logits, const ct_sampling *params, ct_arena *arena)
{
    int64_t n = logits.width, n_rows = logits.n_rows;
    bool draws = false;
    for (int64_t i = 0; i < n_rows; i++)
        draws = draws || params[i].temperature > 0;
    candidate *candidates = NULL;
    float *scratch = NULL;
    size_t each = draws ? (size_t)n : 0;
    CT_TRY(ct_arena_alloc(arena, (void **)&candidates,
                          sizeof *candidates * each * (size_t)n_rows));
    CT_TRY(ct_arena_alloc(arena, (void **)&scratch, sizeof *scratch * each * (size_t)n_rows));
#pragma omp parallel for schedule(static) num_threads(n_rows > 1 ? ct_threads_get() : 1)
    for (int64_t i = 0; i < n_rows; i++)
        ids[i] = choose((float *)logits.data + i * logits.stride, n, &params[i],
                        candidates + (size_t)i * each, scratch + (size_t)i * each);
    for (int64_t i = 0; i < n_rows; i++)
        if (ids[i] < 0)
            return ct_fail(CT_VALUE, "no piece can be chosen: every one is masked or has the "
                                     "logit NaN or minus infinity");
    return CT_OK;
}
