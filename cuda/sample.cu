/* Arg max, or a draw from what temperature, top-k, top-p and min-p leave, after bans and penalties:
 * the rules of cpu/sample.c. Rows of which only the largest logit is asked for are divided among
 * blocks; any other row is the work of one. */
#include "ops.h"

#include "fours.h"
#include "runtime.h"
#include "sample_job.h"
#include "sample_rest.h"

/* ---- probabilities of the model ---- */

CT_DEVICE float logprob_of(float logit, double log_sum)
{
    if (log_sum == INFINITY) /* all the probability is with those that are infinite */
        return logit == INFINITY ? 0 : -INFINITY;
    return (float)(logit - log_sum);
}

CT_DEVICE uint64_t units_of(const ct_rest &rest, int32_t place, float value)
{
    return ct_rest_units(ct_rest_weight(rest, place, value));
}

/* log(sum(exp(logits))); NaN if there is none. */
CT_DEVICE double log_sum_exp(ct_rest row)
{
    uint64_t best = ct_rest_largest(row, UINT64_MAX);
    if (best == 0)
        return NAN;
    row.top = row.values[ct_rest_place(best)];
    row.factor = 1;
    if (row.top == INFINITY)
        return INFINITY;
    uint64_t sum = ct_rest_sum(row, [&](int32_t place, float value) {
                       return units_of(row, place, value);
                   }).total;
    return row.top + log((double)sum / (double)CT_REST_UNITS);
}

/* Leaves the k largest, and what equals the k-th. Its first bits leave few enough for a list. */
CT_DEVICE void keep_top_k(ct_rest *row, int32_t k, ct_rest_list list)
{
    row->least = ct_rest_of_key(ct_rest_select<false>(*row, k, 1).key);
    *row = ct_rest_narrow(*row, list);
    row->least = ct_rest_of_key(ct_rest_select<false>(*row, k, CT_REST_STEPS).key);
}

/* The n_top largest, one after the other. */
CT_DEVICE void tell_top(ct_logprob *top, int32_t n_top, ct_rest row, double log_sum,
                        ct_rest_list list)
{
    if (n_top > 0 && log_sum == log_sum)
        keep_top_k(&row, n_top, list);
    uint64_t code = UINT64_MAX;
    for (int32_t i = 0; i < n_top; i++) {
        code = ct_rest_largest(row, code);
        int32_t place = ct_rest_place(code);
        if (threadIdx.x == 0 && code)
            top[i] = {ct_rest_piece(row, place), logprob_of(row.values[place], log_sum)};
        else if (threadIdx.x == 0)
            top[i] = {-1, -INFINITY};
    }
}

/* ---- bans and penalties ---- */

/* Notes the logits as they came. A ban is stronger than a penalty. */
CT_DEVICE void adjust(float *logits, const ct_sample_job *job, ct_penalty *penalties,
                      const int32_t *banned)
{
    for (int32_t i = threadIdx.x; i < job->n_penalties; i += blockDim.x) {
        ct_penalty *penalty = &penalties[i];
        float logit = penalty->raw = logits[penalty->piece];
        logit =
            logit < 0 ? ct_mul_exact(logit, job->repetition) : ct_div_exact(logit, job->repetition);
        float less = ct_add_exact(job->presence, ct_mul_exact(job->frequency, penalty->count));
        logits[penalty->piece] = penalty->count > 0 ? ct_add_exact(logit, -less) : logit;
    }
    ct_barrier();
    for (int32_t i = threadIdx.x; i < job->n_banned; i += blockDim.x)
        logits[banned[i]] = -INFINITY;
    ct_barrier();
}

/* The logit of a piece as it came. */
CT_DEVICE float raw_logit(const float *logits, const ct_sample_job *job,
                          const ct_penalty *penalties, int32_t piece)
{
    CT_SHARED(float, raw, 1);
    if (threadIdx.x == 0)
        raw[0] = logits[piece];
    ct_barrier();
    for (int32_t i = threadIdx.x; i < job->n_penalties; i += blockDim.x)
        if (penalties[i].piece == piece)
            raw[0] = penalties[i].raw;
    ct_barrier();
    return raw[0];
}

/* ---- the choice ---- */

/* Leaves out a piece when those before it have the share p of the weight or more: the larger ones,
 * and of equal ones those with lower ids. The first always stays. */
CT_DEVICE void cut_top_p(ct_rest *row, float p, ct_rest_list list)
{
    auto units = [&](int32_t place, float value) { return units_of(*row, place, value); };
    auto is_equal = [&](int32_t place, float value) -> uint64_t {
        return ct_rest_weight(*row, place, value) == row->least_weight;
    };
    double sum = (double)ct_rest_sum(*row, units).total, before = (double)p * sum;
    uint64_t limit = before > 1 ? (uint64_t)ceil(before) : 1;
    if (!row->pieces) {
        /* Pieces of less than this weigh less than 1 - p together, so that none of them stays. The
         * factor keeps rounding out of it. */
        double floor = 0.999 * (sum - before) / ((double)CT_REST_UNITS * row->n);
        row->least_weight = fmaxf((float)floor, 1 / CT_REST_UNITS);
        *row = ct_rest_narrow(*row, list);
    }
    ct_rest_cut cut = ct_rest_select<true>(*row, limit, CT_REST_STEPS);
    row->least_weight = ct_float_of_bits(cut.key);
    uint64_t each = ct_rest_units(row->least_weight), n = (limit - cut.above + each - 1) / each;
    if (n * each < cut.equal) /* not all that are equal stay */
        row->last_equal = ct_rest_find(*row, ct_rest_sum(*row, is_equal), n - 1, is_equal);
}

CT_DEVICE int32_t draw(const ct_rest &row, double uniform)
{
    auto units = [&](int32_t place, float value) { return units_of(row, place, value); };
    ct_rest_share share = ct_rest_sum(row, units);
    uint64_t wanted = (uint64_t)(uniform * (double)share.total);
    wanted = wanted < share.total ? wanted : share.total - 1;
    return ct_rest_piece(row, ct_rest_find(row, share, wanted, units));
}

/* -1 when nothing can be chosen. */
CT_DEVICE int32_t choose_piece(ct_rest row, const ct_sample_job *job, ct_rest_list list)
{
    uint64_t best = ct_rest_largest(row, UINT64_MAX);
    if (best == 0)
        return -1;
    row.top = row.values[ct_rest_place(best)];
    row.factor = job->factor;
    if (job->factor == 0 || row.top == INFINITY) /* nothing competes with infinity */
        return ct_rest_place(best);
    if (job->top_k > 0 && job->top_k < row.n)
        keep_top_k(&row, job->top_k, list);
    if (job->top_p < 1)
        cut_top_p(&row, job->top_p, list);
    if (job->min_p > row.least_weight) {
        row.least_weight = job->min_p;
        row.last_equal = INT32_MAX;
    }
    return draw(row, job->uniform);
}

/* What is chosen for the block's row. */
CT_DEVICE void put(ct_logprob *chosen, int32_t *ids, ct_logprob one)
{
    chosen[blockIdx.x] = one;
    if (ids)
        ids[blockIdx.x] = one.piece < 0 ? 0 : one.piece;
}

typedef struct choice {
    ct_rows logits;
    const ct_sample_job *jobs;
    float *list_values; /* [n_rows, CT_REST_LIST] */
    int32_t *list_pieces;
    ct_logprob *chosen; /* [n_rows] */
    int32_t *ids;       /* [n_rows], or NULL */
    bool in_fours;
} choice;

CT_KERNEL CT_BOUNDS(CT_REST_THREADS, 1) choose_kernel(choice all)
{
    const ct_sample_job *job = &all.jobs[blockIdx.x];
    ct_penalty *penalties = (ct_penalty *)((char *)all.jobs + job->first_penalty);
    const int32_t *banned = (const int32_t *)((const char *)all.jobs + job->first_banned);
    float *logits = (float *)all.logits.data + blockIdx.x * all.logits.stride;
    ct_rest_list list = {all.list_values + (int64_t)blockIdx.x * CT_REST_LIST,
                         all.list_pieces + (int64_t)blockIdx.x * CT_REST_LIST};
    ct_rest row = ct_rest_all(logits, (int32_t)all.logits.width, all.in_fours);
    double log_sum = NAN;
    if (job->tells) {
        log_sum = log_sum_exp(row);
        tell_top(job->top, job->n_top, row, log_sum, list);
        ct_barrier(); /* before logits change */
    }
    adjust(logits, job, penalties, banned);
    ct_logprob chosen = {choose_piece(row, job, list), NAN};
    if (job->tells && chosen.piece >= 0)
        chosen.logprob = logprob_of(raw_logit(logits, job, penalties, chosen.piece), log_sum);
    if (threadIdx.x == 0)
        put(all.chosen, all.ids, chosen);
}

static unsigned threads_for(int64_t n)
{
    int64_t threads = (n + CT_REST_CHUNK - 1) / CT_REST_CHUNK * CT_WARP;
    return (unsigned)(threads < CT_REST_THREADS ? threads : CT_REST_THREADS);
}

/* Of rows of any kind. */
static ct_status choose(ct_logprob *chosen, int32_t *ids, ct_rows logits, const ct_sampling *params,
                        ct_arena *arena)
{
    ct_status status = CT_OK;
    size_t n = (size_t)logits.n_rows;
    ct_sample_jobs jobs;
    void *uploaded;
    choice all = {};
    CT_TRY(ct_sample_jobs_new(&jobs, params, logits.n_rows, logits.width));
    all.logits = logits;
    all.chosen = chosen;
    all.ids = ids;
    all.in_fours = ct_in_fours(logits);
    CT_TRY_TO(done, ct_arena_alloc(arena, &uploaded, jobs.size));
    CT_TRY_TO(done, ct_arena_alloc(arena, (void **)&all.list_values,
                                   sizeof *all.list_values * n * CT_REST_LIST));
    CT_TRY_TO(done, ct_arena_alloc(arena, (void **)&all.list_pieces,
                                   sizeof *all.list_pieces * n * CT_REST_LIST));
    all.jobs = (const ct_sample_job *)uploaded;
    CT_TRY_TO(done, ct_cuda_upload(uploaded, jobs.jobs, jobs.size));
    CT_KERNEL_CALL(choose_kernel, (unsigned)n, threads_for(logits.width), 0, ct_cuda_stream(), all);
    status = ct_cuda_launched("sample");
done:
    ct_sample_jobs_free(&jobs);
    return status;
}

/* ---- only the largest ---- */

#define PART_THREADS 256
#define PART (PART_THREADS / CT_WARP * CT_REST_CHUNK) /* values of a block */

/* codes [n_rows, parts] */
CT_KERNEL CT_BOUNDS(PART_THREADS, 1)
    largest_of_parts_kernel(ct_rows logits, uint64_t *codes, bool in_fours)
{
    uint32_t first = blockIdx.y * PART;
    int64_t left = logits.width - first;
    const float *values = (const float *)logits.data + blockIdx.x * logits.stride + first;
    ct_rest part = ct_rest_all(values, (int32_t)(left < PART ? left : PART), in_fours);
    uint64_t code = ct_rest_largest(part, UINT64_MAX);
    if (threadIdx.x == 0) /* with the place in the row: places are complements */
        codes[(int64_t)blockIdx.x * gridDim.y + blockIdx.y] = code ? code - first : 0;
}

CT_KERNEL CT_BOUNDS(CT_WARP, 1)
    largest_kernel(ct_logprob *chosen, int32_t *ids, const uint64_t *codes, int32_t n_parts)
{
    uint64_t best = 0;
    for (int32_t i = threadIdx.x; i < n_parts; i += CT_WARP) {
        uint64_t code = codes[(int64_t)blockIdx.x * n_parts + i];
        best = code > best ? code : best;
    }
    best = ct_rest_block_max(best);
    if (threadIdx.x == 0)
        put(chosen, ids, {best ? ct_rest_place(best) : -1, NAN});
}

static ct_status choose_largest(ct_logprob *chosen, int32_t *ids, ct_rows logits, ct_arena *arena)
{
    size_t n = (size_t)logits.n_rows;
    dim3 grid((unsigned)n, (unsigned)((logits.width + PART - 1) / PART));
    uint64_t *codes;
    CT_TRY(ct_arena_alloc(arena, (void **)&codes, sizeof *codes * n * grid.y));
    CT_KERNEL_CALL(largest_of_parts_kernel, grid, PART_THREADS, 0, ct_cuda_stream(), logits, codes,
                   ct_in_fours(logits));
    CT_KERNEL_CALL(largest_kernel, (unsigned)n, CT_WARP, 0, ct_cuda_stream(), chosen, ids, codes,
                   (int32_t)grid.y);
    return ct_cuda_launched("sample");
}

/* ---- the operation ---- */

ct_status ct_cuda_sample(ct_logprob *chosen, int32_t *ids, ct_rows logits,
                         const ct_sampling *params, ct_arena *arena)
{
    bool plain = true;
    for (int64_t i = 0; i < logits.n_rows; i++)
        plain = plain && ct_sample_is_plain(&params[i]);
    if (logits.n_rows == 0)
        return CT_OK;
    if (logits.width >= CT_REST_MAX)
        return ct_fail(CT_UNSUPPORTED,
                       "a vocabulary of %lld pieces is too large for a CUDA device: less than %d "
                       "can be sampled from",
                       (long long)logits.width, CT_REST_MAX);
    return plain ? choose_largest(chosen, ids, logits, arena)
                 : choose(chosen, ids, logits, params, arena);
}
