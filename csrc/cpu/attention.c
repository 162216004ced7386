/* Tiled attention with an online softmax (Milakov and Gimelshein 2018; Dao et al. 2022): a task is
 * a tile of one sequence's query rows with all query heads of one KV head, so that keys and values
 * are read once for the group. Keys come in chunks of a page, transposed; no [seq, seq] matrix
 * exists.
 *
 * Keys come in spans of fixed length, which begin at the sequence's first key, and whose results
 * are merged in order; those of a single query row are tasks of their own. What a query gets
 * depends on its keys alone: not on the queries that are computed with it, on the number of threads
 * or on the other sequences of the batch.
 *
 * Before that, rows rotate and are appended to the cache (rowwise.c). */
#include "cpu/attention.h"

#include <math.h>
#include <string.h>

#include "cpu/kernels.h"
#include "cpu/parallel.h"
#include "cpu/rowwise.h"

#define CHUNK CT_PAGE_POSITIONS
#define TILE_ROWS 256 /* query rows times heads of the group: scores and sums stay in cache */
#define MIN_TILE_ROWS 32
#define TASKS_PER_THREAD 4 /* so that the last one to finish is not far behind */
#define SPAN (8 * CHUNK)

typedef struct task {
    int64_t sequence, kv_head;
    int64_t first_query, n_queries; /* rows of the sequence */
    int64_t first_key, end_key;
    int64_t partial; /* where an unfinished result goes, or -1 */
} task;

/* What a task accumulates: rows (head of the group, query), heads outermost. */
typedef struct sums {
    float *values; /* [rows, d] */
    float *max, *total;
} sums;

typedef struct workspace {
    float *scores;   /* [rows, CHUNK] */
    float *keys;     /* [d, CHUNK] */
    float *vals;     /* [CHUNK, d] */
    sums sums, span; /* of all spans so far, and of one */
} workspace;

typedef struct chunk {
    int64_t first, n; /* places of its keys */
    const float *keys, *vals;
    int64_t vals_stride;
} chunk;

typedef struct schedule {
    task *tasks;
    int64_t n_tasks, n_partials, tile_queries, group;
    int64_t n_products; /* of a query with a key, of all heads */
} schedule;

static ct_status plan(schedule *out, const ct_attention_args *args, ct_arena *arena);
static ct_status new_workspaces(workspace **out, int n, int64_t rows, int64_t d, ct_arena *arena);
static ct_status new_sums(sums *out, int64_t rows, int64_t d, ct_arena *arena);
static void run_task(const ct_attention_args *args, const schedule *plan, const task *job,
                     workspace *own, const sums *partials);
static void merge_partials(const ct_attention_args *args, const schedule *plan,
                           const sums *partials, int64_t first);

/* Positions that the sequence had before this call. */
static int64_t cached(const ct_attention_args *args, int64_t sequence)
{
    return args->cache ? args->cache->lengths[sequence] : 0;
}

ct_status ct_cpu_attention(const ct_attention_args *args, ct_arena *arena)
{
    schedule schedule;
    workspace *workspaces;
    sums *partials = NULL;
    int64_t d = args->layout.head_width;
    ct_cpu_rotary_append(args);
    CT_TRY(plan(&schedule, args, arena));
    int n_threads = ct_parallel_threads(schedule.n_products * d);
    CT_TRY(
        new_workspaces(&workspaces, n_threads, schedule.tile_queries * schedule.group, d, arena));
    CT_TRY(
        ct_arena_alloc(arena, (void **)&partials, sizeof *partials * (size_t)schedule.n_partials));
    for (int64_t i = 0; i < schedule.n_partials; i++)
        CT_TRY(new_sums(&partials[i], schedule.group, d, arena));
#pragma omp parallel for schedule(dynamic) num_threads(n_threads)
    for (int64_t i = 0; i < schedule.n_tasks; i++)
        run_task(args, &schedule, &schedule.tasks[i], &workspaces[ct_thread_id()], partials);
    for (int64_t i = 0; i < schedule.n_tasks; i++)
        if (schedule.tasks[i].partial >= 0 && schedule.tasks[i].first_key == 0)
            merge_partials(args, &schedule, partials, i);
    return CT_OK;
}

/* ---- who does what ---- */

static bool is_split(const ct_attention_args *args, int64_t sequence, int64_t n_queries)
{
    return n_queries == 1 && cached(args, sequence) + 1 > SPAN;
}

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* Adds the tasks of one sequence and KV head, or only counts them where tasks is NULL. */
static void add_tasks(schedule *out, const ct_attention_args *args, int64_t sequence,
                      int64_t kv_head)
{
    int64_t n = args->offsets[sequence + 1] - args->offsets[sequence];
    int64_t before = cached(args, sequence), n_keys = before + n;
    bool split = is_split(args, sequence, n);
    int64_t span = split ? SPAN : n_keys;
    /* The last queries of a causal sequence see most keys, and the longest tasks should start
     * first. */
    for (int64_t query = (ceil_div(n, out->tile_queries) - 1) * out->tile_queries; query >= 0;
         query -= out->tile_queries) {
        for (int64_t key = 0; key < n_keys; key += span) {
            if (out->tasks) {
                int64_t left = n - query;
                out->tasks[out->n_tasks] = (task){
                    .sequence = sequence,
                    .kv_head = kv_head,
                    .first_query = query,
                    .n_queries = left < out->tile_queries ? left : out->tile_queries,
                    .first_key = key,
                    .end_key = key + span < n_keys ? key + span : n_keys,
                    .partial = split ? out->n_partials : -1,
                };
            }
            out->n_tasks++;
            out->n_partials += split;
        }
    }
    out->n_products += n * n_keys * out->group;
}

/* Large tiles read keys and values less often; small ones keep all threads busy. */
static int64_t choose_tile(const ct_attention_args *args, int64_t group)
{
    int64_t tile = group < TILE_ROWS ? TILE_ROWS / group : 1, longest = 1, tasks;
    for (int64_t s = 0; s < args->n_sequences; s++) {
        int64_t n = args->offsets[s + 1] - args->offsets[s];
        longest = n > longest ? n : longest;
    }
    tile = tile < longest ? tile : longest;
    for (;; tile = ceil_div(tile, 2)) {
        tasks = 0;
        for (int64_t s = 0; s < args->n_sequences; s++)
            tasks +=
                args->layout.n_kv_heads * ceil_div(args->offsets[s + 1] - args->offsets[s], tile);
        if (tasks >= TASKS_PER_THREAD * ct_threads_get() || tile * group <= MIN_TILE_ROWS ||
            tile == 1)
            return tile;
    }
}

static ct_status plan(schedule *out, const ct_attention_args *args, ct_arena *arena)
{
    const ct_head_layout *layout = &args->layout;
    *out = (schedule){.group = layout->n_heads / layout->n_kv_heads};
    out->tile_queries = choose_tile(args, out->group);
    for (int pass = 0; pass < 2; pass++) {
        size_t n_tasks = (size_t)out->n_tasks;
        if (pass == 1)
            CT_TRY(ct_arena_alloc(arena, (void **)&out->tasks, sizeof *out->tasks * n_tasks));
        out->n_tasks = out->n_partials = out->n_products = 0;
        for (int64_t s = 0; s < args->n_sequences; s++)
            for (int64_t g = 0; g < layout->n_kv_heads; g++)
                add_tasks(out, args, s, g);
    }
    return CT_OK;
}

static ct_status alloc_floats(float **out, int64_t rows, int64_t width, ct_arena *arena)
{
    return ct_arena_alloc(arena, (void **)out, sizeof **out * (size_t)rows * (size_t)width);
}

static ct_status new_sums(sums *out, int64_t rows, int64_t d, ct_arena *arena)
{
    CT_TRY(alloc_floats(&out->values, rows, d, arena));
    CT_TRY(alloc_floats(&out->max, rows, 1, arena));
    return alloc_floats(&out->total, rows, 1, arena);
}

static ct_status new_workspaces(workspace **out, int n, int64_t rows, int64_t d, ct_arena *arena)
{
    CT_TRY(ct_arena_alloc(arena, (void **)out, sizeof **out * (size_t)n));
    for (int i = 0; i < n; i++) {
        CT_TRY(alloc_floats(&(*out)[i].scores, rows, CHUNK, arena));
        CT_TRY(alloc_floats(&(*out)[i].keys, d, CHUNK, arena));
        CT_TRY(alloc_floats(&(*out)[i].vals, CHUNK, d, arena));
        CT_TRY(new_sums(&(*out)[i].sums, rows, d, arena));
        CT_TRY(new_sums(&(*out)[i].span, rows, d, arena));
    }
    return CT_OK;
}

/* ---- one tile ---- */

static const float *query_row(const ct_attention_args *args, const task *job, int64_t head)
{
    const ct_head_layout *layout = &args->layout;
    int64_t row = args->offsets[job->sequence] + job->first_query;
    return (const float *)args->qkv.data + row * args->qkv.stride + layout->q_offset +
           job->kv_head * layout->q_group_stride + head * layout->head_width;
}

/* Keys [d, CHUNK] and values of up to CHUNK places from `first` on, as f32. */
static chunk load_chunk(const ct_attention_args *args, const task *job, int64_t first, int64_t end,
                        workspace *own)
{
    const ct_head_layout *layout = &args->layout;
    int64_t d = layout->head_width, n = end - first < CHUNK ? end - first : CHUNK;
    chunk out = {.first = first, .n = n};
    if (!args->cache) {
        int64_t offset = job->kv_head * layout->kv_group_stride;
        const float *row = (const float *)args->qkv.data +
                           (args->offsets[job->sequence] + first) * args->qkv.stride + offset;
        ct_cpu_kernels->transpose(own->keys, CHUNK, row + layout->k_offset, args->qkv.stride, n, d);
        out.keys = own->keys;
        out.vals = row + layout->v_offset;
        out.vals_stride = args->qkv.stride;
        return out;
    }
    const ct_kv_view *cache = args->cache;
    int64_t value = (int64_t)ct_dtype_block_bytes(cache->dtype), block = d * CHUNK;
    const char *page = cache->pages[job->sequence][first / CHUNK];
    const char *keys = page + (cache->layer_offset + job->kv_head * block) * value;
    const char *vals = keys + layout->n_kv_heads * block * value;
    out.vals_stride = d;
    if (cache->dtype == CT_F32) {
        out.keys = (const float *)keys;
        out.vals = (const float *)vals;
        return out;
    }
    for (int64_t i = 0; i < d; i++) /* only the columns that were written */
        ct_cpu_kernels->to_f32[cache->dtype](own->keys + i * CHUNK, keys + i * CHUNK * value, n);
    ct_cpu_kernels->to_f32[cache->dtype](own->vals, vals, n * d);
    out.keys = own->keys;
    out.vals = own->vals;
    return out;
}

static void block_range(float *scores, int64_t begin, int64_t end, int64_t n)
{
    for (int64_t j = begin > 0 ? begin : 0; j < end && j < n; j++)
        scores[j] = -INFINITY;
}

/* Neighbouring keys have neighbouring biases, up to where the distance no longer counts. */
static void add_distance_bias(const ct_attention_args *args, float *scores, const chunk *keys,
                              int64_t place, int64_t head)
{
    int64_t most = args->max_distance, n = keys->n;
    const float *bias = args->distance_bias + head * (2 * most + 1);
    int64_t near = place - most - keys->first, far = place + most + 1 - keys->first;
    near = near < 0 ? 0 : near < n ? near : n;
    far = far < near ? near : far < n ? far : n;
    for (int64_t j = 0; j < near; j++)
        scores[j] += bias[0];
    if (near < far)
        ct_cpu_kernels->add(scores + near, scores + near, bias + most + keys->first + near - place,
                            far - near);
    for (int64_t j = far; j < n; j++)
        scores[j] += bias[2 * most];
}

/* Scores of one query at `place` (head `head`, row `row` of its sequence): bias, cap, and what the
 * query may not see. */
static void adjust_scores(const ct_attention_args *args, float *scores, const chunk *keys,
                          int64_t place, int64_t head, int64_t sequence, int64_t row)
{
    if (args->alibi_slopes) {
        float slope = args->alibi_slopes[head];
        for (int64_t j = 0; j < keys->n; j++) {
            int64_t distance = keys->first + j - place;
            scores[j] += slope * (float)(args->causal || distance < 0 ? distance : -distance);
        }
    }
    if (args->distance_bias)
        add_distance_bias(args, scores, keys, place, head);
    if (args->logit_softcap > 0)
        for (int64_t j = 0; j < keys->n; j++)
            scores[j] = args->logit_softcap * tanhf(scores[j] / args->logit_softcap);
    if (args->mask) {
        const uint8_t *mask = args->mask + sequence * args->mask_strides[0] +
                              head * args->mask_strides[1] + row * args->mask_strides[2];
        for (int64_t j = 0; j < keys->n; j++)
            if (!mask[(keys->first + j) * args->mask_strides[3]])
                scores[j] = -INFINITY;
    }
    if (args->causal)
        block_range(scores, place + 1 - keys->first, keys->n, keys->n);
    if (args->window > 0) {
        block_range(scores, 0, place - args->window + 1 - keys->first, keys->n);
        if (!args->causal)
            block_range(scores, place + args->window - keys->first, keys->n, keys->n);
    }
}

static void attend_chunk(const ct_attention_args *args, const task *job, const chunk *keys,
                         int64_t group, const workspace *own, const sums *into)
{
    int64_t d = args->layout.head_width, n = job->n_queries;
    int64_t place = cached(args, job->sequence) + job->first_query;
    if (n == 1) /* the group's heads lie side by side */
        ct_cpu_kernels->gemm_tile(own->scores, CHUNK, query_row(args, job, 0), d, keys->keys, CHUNK,
                                  group, keys->n, d, args->scale, false);
    else
        for (int64_t h = 0; h < group; h++)
            ct_cpu_kernels->gemm_tile(own->scores + h * n * CHUNK, CHUNK, query_row(args, job, h),
                                      args->qkv.stride, keys->keys, CHUNK, n, keys->n, d,
                                      args->scale, false);
    for (int64_t r = 0; r < group * n; r++) {
        float *scores = own->scores + r * CHUNK;
        int64_t query = r % n;
        adjust_scores(args, scores, keys, place + query, job->kv_head * group + r / n,
                      job->sequence, job->first_query + query);
        float correction =
            ct_cpu_kernels->softmax_step(scores, keys->n, &into->max[r], &into->total[r]);
        if (correction != 1)
            ct_cpu_kernels->scale(into->values + r * d, correction, d);
    }
    ct_cpu_kernels->gemm_tile(into->values, d, own->scores, CHUNK, keys->vals, keys->vals_stride,
                              group * n, d, keys->n, 1, true);
}

static void write_row(const ct_attention_args *args, int64_t row, int64_t head, float *values,
                      float total)
{
    int64_t d = args->layout.head_width, value = (int64_t)ct_dtype_block_bytes(args->out.dtype);
    char *out = (char *)args->out.data + (row * args->out.stride + head * d) * value;
    ct_cpu_kernels->scale(values, total > 0 ? 1 / total : 0, d);
    ct_cpu_kernels->from_f32[args->out.dtype](out, values, d);
}

static void clear_sums(const sums *sums, int64_t rows, int64_t d)
{
    memset(sums->values, 0, sizeof(float) * (size_t)(rows * d));
    for (int64_t r = 0; r < rows; r++) {
        sums->max[r] = -INFINITY;
        sums->total[r] = 0;
    }
}

/* Adds what a later span gave; `from` is used up. */
static void merge_sums(const sums *into, const sums *from, int64_t rows, int64_t d)
{
    for (int64_t r = 0; r < rows; r++) {
        float top = fmaxf(into->max[r], from->max[r]);
        float shift = top == -INFINITY ? 0 : top; /* nothing seen so far, unless NaN */
        float keep = expf(into->max[r] - shift), take = expf(from->max[r] - shift);
        ct_cpu_kernels->scale(into->values + r * d, keep, d);
        ct_cpu_kernels->scale(from->values + r * d, take, d);
        ct_cpu_kernels->add(into->values + r * d, into->values + r * d, from->values + r * d, d);
        into->total[r] = into->total[r] * keep + from->total[r] * take;
        into->max[r] = top;
    }
}

/* The last key that any query of the tile may see, and one more. */
static int64_t last_key(const ct_attention_args *args, const task *job, int64_t place)
{
    int64_t end = job->end_key;
    if (args->causal && place + job->n_queries < end)
        return place + job->n_queries;
    if (!args->causal && args->window > 0 && place + job->n_queries - 1 + args->window < end)
        return place + job->n_queries - 1 + args->window;
    return end;
}

static void run_task(const ct_attention_args *args, const schedule *plan, const task *job,
                     workspace *own, const sums *partials)
{
    int64_t d = args->layout.head_width, rows = plan->group * job->n_queries;
    int64_t place = cached(args, job->sequence) + job->first_query;
    int64_t end = last_key(args, job, place);
    sums all = job->partial >= 0 ? partials[job->partial] : own->sums;
    clear_sums(&all, rows, d);
    for (int64_t span = job->first_key; span < end; span += SPAN) {
        sums *into = span == job->first_key ? &all : &own->span;
        int64_t last = span + SPAN < end ? span + SPAN : end;
        if (args->window > 0 && last <= place - args->window + 1)
            continue; /* too far back for every query of the tile */
        if (into != &all)
            clear_sums(into, rows, d);
        for (int64_t first = span; first < last; first += CHUNK) {
            if (args->window > 0 && first + CHUNK <= place - args->window + 1)
                continue;
            chunk keys = load_chunk(args, job, first, last, own);
            attend_chunk(args, job, &keys, plan->group, own, into);
        }
        if (into != &all)
            merge_sums(&all, into, rows, d);
    }
    if (job->partial < 0)
        for (int64_t r = 0; r < rows; r++)
            write_row(args, args->offsets[job->sequence] + job->first_query + r % job->n_queries,
                      job->kv_head * plan->group + r / job->n_queries, all.values + r * d,
                      all.total[r]);
}

/* Joins the spans of one query row, of which task `first` is the first, in the spans' order. */
static void merge_partials(const ct_attention_args *args, const schedule *plan,
                           const sums *partials, int64_t first)
{
    const task *job = &plan->tasks[first];
    int64_t d = args->layout.head_width, spans = ceil_div(cached(args, job->sequence) + 1, SPAN);
    const sums *into = &partials[job->partial];
    for (int64_t s = 1; s < spans; s++)
        merge_sums(into, &partials[job->partial + s], plan->group, d);
    for (int64_t r = 0; r < plan->group; r++)
        write_row(args, args->offsets[job->sequence], job->kv_head * plan->group + r,
                  into->values + r * d, into->total[r]);
}
