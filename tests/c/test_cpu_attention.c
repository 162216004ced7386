/* Rotation, the cache's layout, and attention over ragged rows and cache pages against the
 * textbook's formulas in double precision. */
#include "test.h"

#include "cpu_rows.h"

#define MAX_SEQUENCES 8
#define POSITIONS 200 /* in the table of rotations */

/* A batch and what its rows attend to. */
typedef struct attention_case {
    int64_t n_heads, n_kv_heads, d;
    int64_t n_sequences, n[MAX_SEQUENCES], before[MAX_SEQUENCES]; /* new and cached positions */
    ct_dtype cache, out, compute; /* the latter not f32: all inputs are of this type's values */
    bool cached, grouped, causal, alibi;
    int64_t window, max_distance; /* of a bias by distance; 0: none */
    float softcap;
    int mask;        /* 0: none; 1: one for all heads; 2: one for each */
    int64_t rotated; /* features of each head */
    bool interleaved;
    bool quarters; /* rotations by multiples of 90 degrees, which round nothing */
} attention_case;

/* Keys and values of all positions of all sequences, f32 [position, kv_head, d]. */
typedef struct history {
    float *keys[MAX_SEQUENCES], *vals[MAX_SEQUENCES];
} history;

typedef struct setup {
    attention_case c;
    ct_attention_args args;
    ct_kv_view view;
    history history;
    float *qkv;      /* as they are before attention */
    ct_rows rotated; /* of the same stride: the same with queries and keys rotated */
    float *cos, *sin;
    int32_t *positions;
    int64_t offsets[MAX_SEQUENCES + 1];
    void **pages[MAX_SEQUENCES];
    float *slopes, *bias;
    uint8_t *mask;
} setup;

static const attention_case plain = {.n_heads = 4,
                                     .n_kv_heads = 2,
                                     .d = 40,
                                     .n_sequences = 5,
                                     .n = {70, 1, 0, 133, 5},
                                     .cache = CT_F32,
                                     .out = CT_F32};

static ct_head_layout layout_of(const attention_case *c)
{
    int64_t group = c->n_heads / c->n_kv_heads, d = c->d;
    ct_head_layout out = {.n_heads = c->n_heads, .n_kv_heads = c->n_kv_heads, .head_width = d};
    if (c->grouped) {
        out.k_offset = group * d;
        out.v_offset = (group + 1) * d;
        out.q_group_stride = out.kv_group_stride = (group + 2) * d;
    } else {
        out.k_offset = c->n_heads * d;
        out.v_offset = (c->n_heads + c->n_kv_heads) * d;
        out.q_group_stride = group * d;
        out.kv_group_stride = d;
    }
    return out;
}

static int64_t places(const attention_case *c, int64_t sequence)
{
    return c->n[sequence] + (c->cached ? c->before[sequence] : 0);
}

static int64_t pages_of(const attention_case *c, int64_t sequence)
{
    return (places(c, sequence) + CT_PAGE_POSITIONS - 1) / CT_PAGE_POSITIONS;
}

/* The cache's rounding of a value, and the model's. */
static float cached_value(const attention_case *c, float value)
{
    return (float)rounded_to(c->compute, c->cached ? rounded_to(c->cache, value) : value);
}

/* Queries of the model's type, so that nothing is lost where they are rounded to it. */
static void round_queries(const attention_case *c, const ct_rows *qkv)
{
    for (int64_t i = 0; c->compute != CT_F32 && i < qkv->n_rows; i++)
        for (int64_t j = 0; j < qkv->width; j++) {
            float *value = (float *)qkv->data + i * qkv->stride + j;
            *value = (float)rounded_to(c->compute, *value);
        }
}

/* ---- rotation ---- */

static void new_rotary(setup *s, uint64_t *seed)
{
    const attention_case *c = &s->c;
    int64_t n = POSITIONS * c->rotated / 2, t = s->args.qkv.n_rows;
    s->cos = malloc(sizeof *s->cos * (size_t)n + 1);
    s->sin = malloc(sizeof *s->sin * (size_t)n + 1);
    s->positions = malloc(sizeof *s->positions * (size_t)t + 1);
    for (int64_t i = 0; i < n; i++) {
        int quarter = (int)(random_uniform(seed) * 4);
        s->cos[i] = c->quarters ? (float)((quarter == 0) - (quarter == 2)) : random_value(seed, 1);
        s->sin[i] = c->quarters ? (float)((quarter == 1) - (quarter == 3)) : random_value(seed, 1);
    }
    for (int64_t i = 0; i < t; i++)
        s->positions[i] = (int32_t)(random_uniform(seed) * POSITIONS);
    s->args.rotary = (ct_rotary){c->rotated, c->interleaved, s->cos, s->sin, s->positions};
}

/* Feature i of a head of a row of the batch after rotation. */
static double turned(const setup *s, int64_t row, const float *head, int64_t i)
{
    int64_t half = s->c.rotated / 2;
    if (i >= s->c.rotated)
        return head[i];
    bool interleaved = s->c.interleaved, second = interleaved ? i % 2 : i >= half;
    int64_t pair = interleaved ? i / 2 : i % half;
    double a = head[interleaved ? 2 * pair : pair];
    double b = head[interleaved ? 2 * pair + 1 : pair + half];
    double cos = s->cos[s->positions[row] * half + pair];
    double sin = s->sin[s->positions[row] * half + pair];
    return second ? b * cos + a * sin : a * cos - b * sin;
}

static int64_t query_at(const setup *s, int64_t head)
{
    const ct_head_layout *layout = &s->args.layout;
    int64_t group = layout->n_heads / layout->n_kv_heads;
    return layout->q_offset + head / group * layout->q_group_stride + head % group * s->c.d;
}

static int64_t key_at(const setup *s, int64_t kv_head)
{
    return s->args.layout.k_offset + kv_head * s->args.layout.kv_group_stride;
}

static int64_t value_at(const setup *s, int64_t kv_head)
{
    return s->args.layout.v_offset + kv_head * s->args.layout.kv_group_stride;
}

static void rotate_rows(setup *s)
{
    const ct_rows *qkv = &s->args.qkv;
    size_t size = sizeof(float) * (size_t)(qkv->n_rows * qkv->stride);
    s->rotated = new_rows(CT_F32, qkv->n_rows, qkv->width, qkv->stride - qkv->width);
    memcpy(s->rotated.data, qkv->data, size);
    for (int64_t r = 0; r < qkv->n_rows; r++)
        for (int64_t h = 0; h < s->c.n_heads + s->c.n_kv_heads; h++) {
            int64_t at = h < s->c.n_heads ? query_at(s, h) : key_at(s, h - s->c.n_heads);
            const float *head = (float *)qkv->data + r * qkv->stride + at;
            float *to = (float *)s->rotated.data + r * qkv->stride + at;
            for (int64_t i = 0; i < s->c.d; i++)
                to[i] = (float)turned(s, r, head, i);
        }
}

/* ---- the cache ---- */

/* Pages with one layer in front of ours; what no position fills is NaN. */
static void new_pages(setup *s)
{
    const attention_case *c = &s->c;
    int64_t layer = 2 * c->n_kv_heads * c->d * CT_PAGE_POSITIONS;
    s->view = (ct_kv_view){.dtype = c->cache,
                           .layer_offset = layer,
                           .pages = (void *const *const *)s->pages,
                           .lengths = s->c.before};
    for (int64_t q = 0; q < c->n_sequences; q++) {
        s->pages[q] = malloc(sizeof(void *) * (size_t)pages_of(c, q) + 1);
        for (int64_t p = 0; p < pages_of(c, q); p++) {
            s->pages[q][p] = malloc((size_t)(2 * layer * value_bytes(c->cache)));
            for (int64_t i = 0; i < 2 * layer; i++)
                set_value(s->pages[q][p], c->cache, i, NAN);
        }
    }
}

/* Writes a position's key and value into its page as ops.h describes it. */
static void write_position(setup *s, int64_t sequence, int64_t place)
{
    const attention_case *c = &s->c;
    void *page = s->pages[sequence][place / CT_PAGE_POSITIONS];
    int64_t column = place % CT_PAGE_POSITIONS, block = c->d * CT_PAGE_POSITIONS;
    for (int64_t g = 0; g < c->n_kv_heads; g++)
        for (int64_t i = 0; i < c->d; i++) {
            int64_t from = (place * c->n_kv_heads + g) * c->d + i;
            set_value(page, c->cache,
                      s->view.layer_offset + g * block + i * CT_PAGE_POSITIONS + column,
                      s->history.keys[sequence][from]);
            set_value(page, c->cache,
                      s->view.layer_offset + (c->n_kv_heads + g) * block + column * c->d + i,
                      s->history.vals[sequence][from]);
        }
}

/* Keys and values of one sequence, those cached before into its pages, the new ones into its rows.
 */
static void fill_sequence(setup *s, int64_t sequence, uint64_t *seed)
{
    const attention_case *c = &s->c;
    int64_t n = places(c, sequence), width = c->n_kv_heads * c->d;
    int64_t first_new = n - c->n[sequence];
    float *keys = malloc(sizeof *keys * (size_t)(n * width) + 1);
    float *vals = malloc(sizeof *vals * (size_t)(n * width) + 1);
    s->history.keys[sequence] = keys;
    s->history.vals[sequence] = vals;
    for (int64_t i = 0; i < n * width; i++) {
        keys[i] = cached_value(c, random_value(seed, 2));
        vals[i] = cached_value(c, random_value(seed, 1));
    }
    for (int64_t p = 0; p < first_new; p++)
        write_position(s, sequence, p);
    for (int64_t p = first_new; p < n; p++) {
        int64_t row = s->offsets[sequence] + p - first_new;
        float *to = (float *)s->args.qkv.data + row * s->args.qkv.stride;
        for (int64_t i = 0; i < width; i++) {
            to[key_at(s, i / c->d) + i % c->d] = keys[p * width + i];
            to[value_at(s, i / c->d) + i % c->d] = vals[p * width + i];
        }
        for (int64_t i = 0; i < width; i++)
            keys[p * width + i] =
                cached_value(c, (float)turned(s, row, to + key_at(s, i / c->d), i % c->d));
    }
}

/* Whether a page's value of a position is `wanted`, or close to it before it was rounded to the
 * cache's type. */
static bool is_cached(double kept, double wanted, double tolerance)
{
    return fabs(kept - wanted) <= tolerance * (1 + fabs(wanted));
}

/* Whether a page holds the key and value of a position of a KV head. What is attended to are the
 * keys of the page, which rotation may have rounded otherwise than here. */
static bool check_position(setup *s, int64_t sequence, int64_t place, int64_t g)
{
    const attention_case *c = &s->c;
    const void *page = s->pages[sequence][place / CT_PAGE_POSITIONS];
    int64_t column = place % CT_PAGE_POSITIONS, block = c->d * CT_PAGE_POSITIONS;
    int64_t row = s->offsets[sequence] + place - c->before[sequence];
    bool rounds = c->rotated > 0 && !c->quarters && place >= c->before[sequence];
    for (int64_t i = 0; i < c->d; i++) {
        int64_t from = (place * c->n_kv_heads + g) * c->d + i;
        float *key = &s->history.keys[sequence][from];
        double kept = get_value(page, c->cache,
                                s->view.layer_offset + g * block + i * CT_PAGE_POSITIONS + column);
        double wanted = rounds ? row_value(&s->rotated, row, key_at(s, g) + i) : *key;
        if (!is_cached(kept, wanted, rounds ? 1e-6 + rounding_of(c->cache) : 0))
            return false;
        *key = (float)kept;
        kept = get_value(page, c->cache,
                         s->view.layer_offset + (c->n_kv_heads + g) * block + column * c->d + i);
        if (!is_cached(kept, s->history.vals[sequence][from], 0))
            return false;
    }
    return true;
}

/* Values of a page that are NaN, as new_pages leaves them. */
static int64_t count_nan(const setup *s, const void *page)
{
    int64_t n = 0;
    for (int64_t i = 0; i < 2 * s->view.layer_offset; i++)
        n += isnan(get_value(page, s->c.cache, i));
    return n;
}

static bool check_pages(setup *s)
{
    const attention_case *c = &s->c;
    for (int64_t q = 0; c->cached && q < c->n_sequences; q++) {
        int64_t n_nan = 2 * s->view.layer_offset * pages_of(c, q);
        for (int64_t p = 0; p < places(c, q); p++)
            for (int64_t g = 0; g < c->n_kv_heads; g++)
                if (!check_position(s, q, p, g)) {
                    fprintf(stderr, "  sequence %lld place %lld KV head %lld: not what is cached\n",
                            (long long)q, (long long)p, (long long)g);
                    return false;
                }
        n_nan -= places(c, q) * 2 * c->n_kv_heads * c->d; /* nothing else was written */
        for (int64_t p = 0; p < pages_of(c, q); p++)
            n_nan -= count_nan(s, s->pages[q][p]);
        if (n_nan != 0) {
            fprintf(stderr, "  sequence %lld: %lld values beside the positions\n", (long long)q,
                    (long long)n_nan);
            return false;
        }
    }
    return true;
}

/* ---- a case ---- */

/* A mask of the uncached kind of batch: columns are the longest sequence's places. The third row of
 * every sequence sees nothing. */
static void new_mask(setup *s, uint64_t *seed)
{
    const attention_case *c = &s->c;
    int64_t longest = 0, heads = c->mask == 1 ? 1 : c->n_heads;
    for (int64_t q = 0; q < c->n_sequences; q++)
        longest = places(c, q) > longest ? places(c, q) : longest;
    int64_t size = c->n_sequences * heads * longest * longest;
    s->mask = malloc((size_t)size);
    for (int64_t i = 0; i < size; i++)
        s->mask[i] = random_uniform(seed) < 0.7 && i / longest % longest != 2;
    s->args.mask = s->mask;
    s->args.mask_strides[0] = heads * longest * longest;
    s->args.mask_strides[1] = c->mask == 1 ? 0 : longest * longest;
    s->args.mask_strides[2] = longest;
    s->args.mask_strides[3] = 1;
}

static void set_up(setup *s, const attention_case *c, uint64_t seed)
{
    memset(s, 0, sizeof *s);
    s->c = *c;
    for (int64_t q = 0; q < c->n_sequences; q++)
        s->offsets[q + 1] = s->offsets[q] + c->n[q];
    int64_t t = s->offsets[c->n_sequences];
    s->args = (ct_attention_args){
        .layout = layout_of(c),
        .qkv = random_rows(&seed, CT_F32, t, (c->n_heads + 2 * c->n_kv_heads) * c->d, 3, 2),
        .n_sequences = c->n_sequences,
        .offsets = s->offsets,
        .scale = 1 / sqrtf((float)c->d),
        .logit_softcap = c->softcap,
        .compute = c->compute,
        .causal = c->causal,
        .window = c->window,
        .out = new_rows(c->out, t, c->n_heads * c->d, 2),
    };
    round_queries(c, &s->args.qkv);
    if (c->cached) {
        new_pages(s);
        s->args.cache = &s->view;
    }
    if (c->alibi) {
        s->slopes = malloc(sizeof *s->slopes * (size_t)c->n_heads);
        for (int64_t h = 0; h < c->n_heads; h++)
            s->slopes[h] = 0.3f / (float)(1 + h);
        s->args.alibi_slopes = s->slopes;
    }
    if (c->max_distance) {
        int64_t n = c->n_heads * (2 * c->max_distance + 1);
        s->bias = malloc(sizeof *s->bias * (size_t)n);
        for (int64_t i = 0; i < n; i++)
            s->bias[i] = random_value(&seed, 2);
        s->args.distance_bias = s->bias;
        s->args.max_distance = c->max_distance;
    }
    if (c->mask)
        new_mask(s, &seed);
    if (c->rotated)
        new_rotary(s, &seed);
    for (int64_t q = 0; q < c->n_sequences; q++) {
        fill_sequence(s, q, &seed);
        s->args.max_places = places(c, q) > s->args.max_places ? places(c, q) : s->args.max_places;
        s->args.max_rows = c->n[q] > s->args.max_rows ? c->n[q] : s->args.max_rows;
    }
    size_t size = sizeof(float) * (size_t)(t * s->args.qkv.stride);
    s->qkv = malloc(size + 1);
    memcpy(s->qkv, s->args.qkv.data, size);
    rotate_rows(s);
}

static void tear_down(setup *s)
{
    for (int64_t q = 0; q < s->c.n_sequences; q++) {
        for (int64_t p = 0; s->c.cached && p < pages_of(&s->c, q); p++)
            free(s->pages[q][p]);
        free(s->pages[q]);
        free(s->history.keys[q]);
        free(s->history.vals[q]);
    }
    free(s->args.qkv.data);
    free(s->args.out.data);
    free(s->qkv);
    free(s->rotated.data);
    free(s->cos);
    free(s->sin);
    free(s->positions);
    free(s->slopes);
    free(s->bias);
    free(s->mask);
}

/* The score of a key, or -INFINITY where the query must not see it. */
static double score(const setup *s, int64_t sequence, int64_t row, int64_t head, int64_t key)
{
    const attention_case *c = &s->c;
    int64_t g = head / (c->n_heads / c->n_kv_heads);
    int64_t place = places(c, sequence) - c->n[sequence] + row, distance = key - place;
    if ((c->causal && distance > 0) || (c->window > 0 && llabs(distance) >= c->window))
        return -INFINITY;
    if (c->mask && !s->mask[sequence * s->args.mask_strides[0] + head * s->args.mask_strides[1] +
                            row * s->args.mask_strides[2] + key])
        return -INFINITY;
    const float *keys = s->history.keys[sequence] + (key * c->n_kv_heads + g) * c->d;
    double sum = 0;
    for (int64_t i = 0; i < c->d; i++)
        sum += row_value(&s->rotated, s->offsets[sequence] + row, query_at(s, head) + i) * keys[i];
    sum *= s->args.scale;
    if (c->alibi)
        sum += s->slopes[head] * (double)(c->causal ? distance : -llabs(distance));
    if (c->max_distance) {
        int64_t most = c->max_distance;
        int64_t counted = distance > most ? most : distance < -most ? -most : distance;
        sum += s->bias[head * (2 * most + 1) + most + counted];
    }
    return c->softcap > 0 ? c->softcap * tanh(sum / c->softcap) : sum;
}

static bool check_head(const setup *s, int64_t sequence, int64_t row, int64_t head)
{
    const attention_case *c = &s->c;
    int64_t n = places(c, sequence), g = head / (c->n_heads / c->n_kv_heads);
    double *weights = malloc(sizeof *weights * (size_t)n), top = -INFINITY, total = 0;
    bool good = true;
    for (int64_t j = 0; j < n; j++) {
        weights[j] = score(s, sequence, row, head, j);
        top = fmax(top, weights[j]);
    }
    for (int64_t j = 0; j < n; j++) {
        weights[j] = top == -INFINITY ? 0 : exp(weights[j] - top);
        total += weights[j];
    }
    for (int64_t i = 0; good && i < c->d; i++) {
        double wanted = 0, size = 0;
        for (int64_t j = 0; total > 0 && j < n; j++) {
            double value = s->history.vals[sequence][(j * c->n_kv_heads + g) * c->d + i];
            wanted += weights[j] / total * value;
            size += weights[j] / total * fabs(value);
        }
        double got = row_value(&s->args.out, s->offsets[sequence] + row, head * c->d + i);
        /* scores of a few units, known to f32, and means of values below 1; rounded weights move
         * their terms by that rounding */
        double bound = 1e-5 + rounding_of(c->out) * fabs(wanted);
        if (c->compute != CT_F32)
            bound += rounding_of(c->compute) * size;
        good = fabs(got - wanted) <= bound;
        if (!good)
            fprintf(stderr, "  sequence %lld row %lld head %lld: %.9g instead of %.9g\n",
                    (long long)sequence, (long long)row, (long long)head, got, wanted);
    }
    free(weights);
    return good;
}

static bool check_all(setup *s)
{
    if (!gaps_untouched(&s->args.out) || !gaps_untouched(&s->args.qkv) || !check_pages(s))
        return false;
    for (int64_t q = 0; q < s->c.n_sequences; q++)
        for (int64_t i = 0; i < s->c.n[q]; i++)
            for (int64_t h = 0; h < s->c.n_heads; h++)
                if (!check_head(s, q, i, h))
                    return false;
    return true;
}

/* As before the first call, but for the pages, which get the same again. */
static void begin_again(setup *s)
{
    size_t size = sizeof(float) * (size_t)(s->args.qkv.n_rows * s->args.qkv.stride);
    memcpy(s->args.qkv.data, s->qkv, size);
    memset(s->args.out.data, GUARD,
           (size_t)(s->args.out.n_rows * s->args.out.stride * value_bytes(s->c.out)));
}

static void run_times(const ct_ops *ops, const char *level, const attention_case *c, uint64_t seed,
                      int times)
{
    setup s;
    ct_arena arena = {0};
    bool good = true;
    set_up(&s, c, seed);
    for (int i = 0; good && i < times; i++) {
        begin_again(&s);
        good = ops->attention(&s.args, &arena) == CT_OK && check_all(&s);
        ct_arena_reset(&arena);
    }
    ct_arena_clear(&arena);
    tear_down(&s);
    if (!good)
        FAIL("level %s, case %llu, heads %lld by %lld, width %lld, causal %d, window %lld, alibi "
             "%d, bias up to %lld, mask %d, cached %d (%s), computed in %s, rotated %lld (%d)",
             level, (unsigned long long)seed, (long long)c->n_heads, (long long)c->n_kv_heads,
             (long long)c->d, c->causal, (long long)c->window, c->alibi, (long long)c->max_distance,
             c->mask, c->cached, ct_dtype_name(c->cache), ct_dtype_name(c->compute),
             (long long)c->rotated, c->interleaved);
}

static void run_case(const ct_ops *ops, const char *level, const attention_case *c, uint64_t seed)
{
    run_times(ops, level, c, seed, 1);
}

/* ---- without a cache ---- */

static void features_at(const ct_ops *ops, const char *level)
{
    for (int causal = 0; causal < 2; causal++) {
        attention_case c = plain;
        c.causal = causal;
        run_case(ops, level, &c, 1);
        c.grouped = true;
        run_case(ops, level, &c, 2);
        c.out = CT_BF16;
        run_case(ops, level, &c, 3);
        c.out = CT_F32;
        c.alibi = true;
        run_case(ops, level, &c, 4);
        c.alibi = false;
        c.softcap = 1.5f;
        run_case(ops, level, &c, 5);
        c.softcap = 0;
        for (int64_t window = 1; window < 150; window = 3 * window + 4) {
            c.window = window;
            run_case(ops, level, &c, 6);
        }
    }
}

static void scores_are_biased_capped_and_blocked(void)
{
    at_every_level(features_at);
}

/* Lengths around a chunk's and a tile's border; distances that stop counting inside a chunk, on its
 * border, behind the sequence. */
static void distance_bias_at(const ct_ops *ops, const char *level)
{
    static const int64_t most[] = {1, 2, 63, 64, 65, 128, 300};
    for (size_t i = 0; i < sizeof most / sizeof *most; i++) {
        attention_case c = plain;
        c.max_distance = most[i];
        run_case(ops, level, &c, 22);
        c.window = most[i] % 2 ? 40 : 100;
        run_case(ops, level, &c, 23);
        c.window = 0;
        c.n_heads = c.n_kv_heads = 3;
        int64_t n[] = {65, 0, 129, 2, 257};
        memcpy(c.n, n, sizeof n);
        run_case(ops, level, &c, 24);
        c.mask = 1 + i % 2;
        run_case(ops, level, &c, 25);
        c.window = 33;
        c.alibi = true;
        c.softcap = 3;
        run_case(ops, level, &c, 26);
    }
    attention_case c = plain;
    c.cached = c.causal = true;
    c.max_distance = 70;
    int64_t before[] = {3, 700, 10, 100, 600};
    memcpy(c.before, before, sizeof before);
    run_case(ops, level, &c, 27);
}

static void a_bias_by_distance_is_added_and_saturates(void)
{
    at_every_level(distance_bias_at);
}

/* Where all scores are equal and key j has the value j, the output is the mean of the places seen:
 * a causal query at i those of (i - window, i], another one those of (i - window, i + window). */
static void windows_in(const ct_ops *ops, const char *level, ct_dtype compute)
{
    enum { N = 150 }; /* of which all are values of bf16, and so are equal weights */
    for (int window = 1; window < 2 * N; window += window < 4 ? 1 : 37) {
        for (int causal = 0; causal < 2; causal++) {
            float row[N][3], seen[N];
            int64_t offsets[2] = {0, N};
            for (int j = 0; j < N; j++)
                row[j][0] = row[j][1] = 0, row[j][2] = (float)j;
            ct_attention_args args = {
                .layout = {.n_heads = 1,
                           .n_kv_heads = 1,
                           .head_width = 1,
                           .k_offset = 1,
                           .v_offset = 2,
                           .q_group_stride = 1,
                           .kv_group_stride = 1},
                .qkv = {row, CT_F32, N, 3, 3},
                .n_sequences = 1,
                .offsets = offsets,
                .max_places = N,
                .max_rows = N,
                .compute = compute,
                .scale = 1,
                .causal = causal,
                .window = window,
                .out = {seen, CT_F32, N, 1, 1},
            };
            ct_arena arena = {0};
            CHECK_OK(ops->attention(&args, &arena));
            ct_arena_clear(&arena);
            for (int i = 0; i < N; i++) {
                int first = i - window + 1 > 0 ? i - window + 1 : 0;
                int last = causal ? i : i + window - 1 < N - 1 ? i + window - 1 : N - 1;
                /* a mean of places below 150: a few roundings of 2^-24 * 150 */
                if (fabs(seen[i] - (first + last) / 2.0) > 1e-4)
                    FAIL("level %s, window %d, causal %d: query %d sees %g on average", level,
                         window, causal, i, (double)seen[i]);
            }
        }
    }
}

static void windows_at(const ct_ops *ops, const char *level)
{
    windows_in(ops, level, CT_F32);
    windows_in(ops, level, CT_F16);
    windows_in(ops, level, CT_BF16);
}

static void a_window_reaches_to_places_less_than_its_size_away(void)
{
    at_every_level(windows_at);
}

static void shapes_at(const ct_ops *ops, const char *level)
{
    static const int64_t heads[][3] = {{1, 1, 1}, {3, 1, 5}, {6, 6, 64}, {8, 2, 80}, {5, 1, 17}};
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        attention_case c = plain;
        c.n_heads = heads[i][0];
        c.n_kv_heads = heads[i][1];
        c.d = heads[i][2];
        run_case(ops, level, &c, 7);
        c.causal = true;
        run_case(ops, level, &c, 8);
    }
}

static void heads_of_any_number_and_width_agree(void)
{
    at_every_level(shapes_at);
}

/* Groups larger than what a kernel may take at a time; few rows, and more. */
static void wide_at(const ct_ops *ops, const char *level)
{
    static const int64_t shapes[][3] = {{12, 1, 96}, {2, 1, 128}, {9, 1, 136}, {3, 3, 256}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int more = 0; more < 2; more++) {
            attention_case c = plain;
            c.n_heads = shapes[i][0];
            c.n_kv_heads = shapes[i][1];
            c.d = shapes[i][2];
            int64_t n[] = {2, 1, 0, more ? 20 : 3, 1}, before[] = {0, 300, 10, 250, 3};
            memcpy(c.n, n, sizeof n);
            memcpy(c.before, before, sizeof before);
            run_case(ops, level, &c, 31);
            c.cached = true;
            c.cache = i % 2 ? CT_F16 : CT_BF16;
            run_case(ops, level, &c, 32);
            c.causal = true;
            run_case(ops, level, &c, 33);
        }
}

static void wide_heads_and_large_groups_agree(void)
{
    at_every_level(wide_at);
}

static void masks_at(const ct_ops *ops, const char *level)
{
    for (int mask = 1; mask <= 2; mask++) {
        attention_case c = plain;
        c.mask = mask;
        run_case(ops, level, &c, 9);
        c.causal = true;
        run_case(ops, level, &c, 10);
    }
}

static void a_general_mask_blocks_and_a_blocked_row_is_zero(void)
{
    at_every_level(masks_at);
}

/* ---- with a cache ---- */

static void pages_at(const ct_ops *ops, const char *level)
{
    static const ct_dtype dtypes[] = {CT_F32, CT_F16, CT_BF16};
    for (int t = 0; t < 3; t++) {
        attention_case c = plain;
        c.cached = c.causal = true;
        c.cache = dtypes[t];
        run_case(ops, level, &c, 11); /* nothing cached before */
        int64_t before[] = {3, 64, 10, 100, 0};
        memcpy(c.before, before, sizeof before);
        run_case(ops, level, &c, 12);
        c.window = 40;
        c.grouped = true;
        run_case(ops, level, &c, 13);
        c.window = 0;
        c.alibi = true;
        run_case(ops, level, &c, 14);
    }
}

static void cached_positions_are_attended_to(void)
{
    at_every_level(pages_at);
}

static attention_case decode_case(ct_dtype cache)
{
    attention_case c = plain;
    c.cached = c.causal = true;
    c.cache = cache;
    int64_t n[] = {1, 1, 1, 1, 2}, before[] = {0, 511, 512, 1300, 600};
    memcpy(c.n, n, sizeof n);
    memcpy(c.before, before, sizeof before);
    return c;
}

static void decode_at(const ct_ops *ops, const char *level)
{
    attention_case c = decode_case(CT_F32);
    run_case(ops, level, &c, 15);
    c.window = 600; /* the first span falls outside, the second in part */
    run_case(ops, level, &c, 16);
    c.before[1] = 102;
    for (c.window = 38; c.window < 42; c.window++) /* around the last key of a page */
        run_case(ops, level, &c, 20);
    c.window = 0;
    c.cache = CT_BF16;
    c.n_heads = c.n_kv_heads = 3;
    run_case(ops, level, &c, 17);
}

static void one_row_over_many_pages_agrees(void)
{
    at_every_level(decode_at);
}

/* ---- rotation and the cache ---- */

/* Several rows of a sequence, one, none; no cache; all features of a head rotate, some, none. */
static void rotary_at(const ct_ops *ops, const char *level)
{
    static const ct_dtype dtypes[] = {CT_F32, CT_F16, CT_BF16};
    static const int64_t rotated[] = {0, 12, 20};
    for (int i = 0; i < 36; i++) {
        attention_case c = plain;
        c.d = 20;
        c.interleaved = i & 1;
        c.grouped = i & 2;
        c.rotated = rotated[i / 4 % 3];
        c.cache = dtypes[i / 12];
        c.causal = true;
        int64_t n[] = {66, 0, 1, 20, 5}, before[] = {60, 3, 127, 0, 59};
        memcpy(c.n, n, sizeof n);
        memcpy(c.before, before, sizeof before);
        run_case(ops, level, &c, 60);
        c.cached = true;
        run_case(ops, level, &c, 61);
        c.compute = c.cache;
        c.quarters = true;
        run_case(ops, level, &c, 62);
        c.cached = false;
        run_case(ops, level, &c, 63);
    }
}

static void heads_rotate_and_go_where_the_cache_wants_them(void)
{
    at_every_level(rotary_at);
}

/* A row of each sequence: at the first and last places of pages and spans, in several spans. Twice,
 * so that what a device counts with has to be as it was. */
static void steps_at(const ct_ops *ops, const char *level)
{
    static const int64_t heads[][4] = {/* and width, and how much of it rotates */
                                       {2, 2, 20, 12}, {4, 2, 17, 16}, {4, 1, 64, 64},
                                       {6, 2, 40, 0},  {16, 2, 8, 8},  {12, 1, 128, 32},
                                       {20, 1, 10, 4}};
    static const ct_dtype dtypes[] = {CT_F32, CT_F16, CT_BF16};
    static const int64_t windows[] = {0, 0, 100, 600};
    for (int i = 0; i < 7 * 4; i++) {
        attention_case c = plain;
        const int64_t *shape = heads[i % 7];
        c.n_heads = shape[0];
        c.n_kv_heads = shape[1];
        c.d = shape[2];
        c.rotated = shape[3];
        c.interleaved = i / 7 % 2;
        c.grouped = i % 3 == 1;
        c.cache = dtypes[i % 3];
        c.compute = i % 2 ? c.cache : CT_F32;
        c.window = windows[i % 4];
        c.cached = true;
        c.causal = i % 8 != 5;
        c.softcap = i % 5 == 2 ? 3 : 0;
        c.n_sequences = 8;
        int64_t n[] = {1, 1, 0, 1, 1, 1, 1, 1}, before[] = {0, 63, 70, 64, 511, 512, 513, 1300};
        memcpy(c.n, n, sizeof n);
        memcpy(c.before, before, sizeof before);
        run_times(ops, level, &c, 70, 2);
        c.n_sequences = 4; /* no row is in several spans */
        run_times(ops, level, &c, 71, 1);
    }
}

static void single_rows_rotate_are_cached_and_attend(void)
{
    at_every_level(steps_at);
}

/* More rows and heads than a device may have counters for; more heads than that alone. */
static void heads_at(const ct_ops *ops, const char *level)
{
    attention_case c = plain;
    c.cached = c.causal = true;
    c.n_heads = c.n_kv_heads = 270;
    c.d = 2;
    c.rotated = 2;
    c.cache = CT_F16;
    c.n_sequences = 8;
    int64_t n[] = {1, 1, 1, 1, 1, 1, 1, 1}, before[] = {300, 2, 3, 0, 1, 2, 2, 300};
    memcpy(c.n, n, sizeof n);
    memcpy(c.before, before, sizeof before);
    run_case(ops, level, &c, 75);
    c.n_heads = 2050;
    c.n_kv_heads = 1;
    c.n_sequences = 1;
    c.before[0] = 70;
    run_case(ops, level, &c, 76);
}

static void thousands_of_heads_agree(void)
{
    at_every_level(heads_at);
}

/* ---- models in 16 bits ---- */

/* One sequence of each length around borders of tiles, chunks and what a warp has; one of a single
 * row, an empty one. */
static attention_case short_case(ct_dtype compute, int64_t d)
{
    attention_case c = plain;
    c.cache = c.compute = compute;
    c.d = d;
    int64_t n[] = {65, 1, 0, 17, 64}, before[] = {0, 70, 3, 63, 1};
    memcpy(c.n, n, sizeof n);
    memcpy(c.before, before, sizeof before);
    return c;
}

/* With a cache and without. */
static void run_both(const ct_ops *ops, const char *level, attention_case c, uint64_t seed)
{
    c.cached = false;
    run_case(ops, level, &c, seed);
    if (c.mask) /* as long as the new rows only */
        return;
    c.cached = true;
    run_case(ops, level, &c, seed + 1);
}

static void widths_16_at(const ct_ops *ops, const char *level)
{
    static const int64_t widths[] = {1, 8, 20, 64, 80, 96, 100, 128, 160, 256};
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        attention_case c = short_case(i % 2 ? CT_F16 : CT_BF16, widths[i]);
        if (i > 4)
            c.n_heads = 2, c.n_kv_heads = 1;
        c.causal = i % 3 != 0;
        c.grouped = i % 4 == 1;
        c.out = i % 4 == 2 ? CT_BF16 : CT_F32;
        run_both(ops, level, c, 40);
        c.compute = c.cache = i % 2 ? CT_BF16 : CT_F16;
        c.n_sequences = 2;
        run_both(ops, level, c, 42);
    }
}

static void heads_of_any_width_agree_in_16_bits(void)
{
    at_every_level(widths_16_at);
}

/* Also of models in f32, or whose cache is. */
static void wider_at(const ct_ops *ops, const char *level)
{
    static const ct_dtype dtypes[] = {CT_F32, CT_F16, CT_BF16};
    for (int i = 0; i < 3; i++) {
        attention_case c = short_case(dtypes[i], i == 1 ? 300 : 520);
        int64_t n[] = {3, 1, 0, 20, 2};
        memcpy(c.n, n, sizeof n);
        c.causal = i != 1;
        run_both(ops, level, c, 44);
        c.compute = CT_F32;
        run_both(ops, level, c, 46);
    }
}

static void heads_of_more_than_256_values_agree(void)
{
    at_every_level(wider_at);
}

static void features_16_at(const ct_ops *ops, const char *level)
{
    for (int i = 0; i < 16; i++) {
        attention_case c = short_case(i / 8 ? CT_BF16 : CT_F16, i % 2 ? 64 : 72);
        c.causal = i & 1;
        c.alibi = i & 2;
        c.softcap = i & 4 ? 1.5f : 0;
        run_both(ops, level, c, 50);
        c.max_distance = i % 3 == 0 ? 40 : 0;
        c.window = 1 + i * 6;
        run_both(ops, level, c, 52);
        c.window = 0;
        c.mask = 1 + (i & 1);
        run_both(ops, level, c, 54);
    }
}

static void masks_and_biases_agree_in_16_bits(void)
{
    at_every_level(features_16_at);
}

/* Groups and lengths that fill several tiles; windows that leave out chunks of some warps. */
static void tiles_16_at(const ct_ops *ops, const char *level)
{
    static const int64_t groups[][2] = {{1, 1}, {3, 1}, {8, 1}, {6, 2}};
    for (int i = 0; i < 4; i++) {
        attention_case c = short_case(i % 2 ? CT_F16 : CT_BF16, 16);
        c.n_heads = groups[i][0];
        c.n_kv_heads = groups[i][1];
        int64_t n[] = {200, 1, 2, 63, 129}, before[] = {300, 400, 64, 1, 127};
        memcpy(c.n, n, sizeof n);
        memcpy(c.before, before, sizeof before);
        c.causal = i != 3;
        run_both(ops, level, c, 56);
        c.window = 100;
        run_both(ops, level, c, 58);
    }
}

static void rows_in_several_tiles_agree_in_16_bits(void)
{
    at_every_level(tiles_16_at);
}

/* ---- independence ---- */

/* Makes rows of the batch, as they were before any call, those of `args`. */
static void take_rows(ct_attention_args *args, const setup *all, int64_t first, int64_t n)
{
    size_t size = sizeof(float) * (size_t)(n * args->qkv.stride);
    args->qkv.data = malloc(size + 1);
    args->qkv.n_rows = n;
    memcpy(args->qkv.data, all->qkv + first * args->qkv.stride, size);
    if (args->rotary.width)
        args->rotary.positions += first;
}

/* Sequence q of the case, computed alone, has to be what it is among the others, bit by bit. */
static bool same_alone(const ct_ops *ops, const setup *all, int64_t q)
{
    ct_attention_args args = all->args;
    ct_kv_view view = all->view;
    int64_t first = all->offsets[q], n = all->c.n[q], offsets[2] = {0, n};
    args.n_sequences = 1;
    args.offsets = offsets;
    take_rows(&args, all, first, n);
    args.out = new_rows(CT_F32, n, args.out.width, 2);
    if (args.cache) {
        view.pages += q;
        view.lengths += q;
        args.cache = &view;
    }
    ct_arena arena = {0};
    ct_status status = ops->attention(&args, &arena);
    ct_arena_clear(&arena);
    free(args.qkv.data);
    bool same = status == CT_OK;
    for (int64_t i = 0; same && i < n; i++)
        same = memcmp((float *)args.out.data + i * args.out.stride,
                      (float *)all->args.out.data + (first + i) * all->args.out.stride,
                      sizeof(float) * (size_t)args.out.width) == 0;
    free(args.out.data);
    return same;
}

static void independence_at(const ct_ops *ops, const char *level)
{
    attention_case cases[6] = {
        plain, plain, decode_case(CT_F16), plain, short_case(CT_BF16, 40), short_case(CT_F16, 40)};
    cases[1].causal = true;
    cases[3].max_distance = 20;
    cases[4].cached = cases[4].causal = true;
    cases[2].rotated = cases[4].rotated = 40;
    int threads = ct_threads_get();
    for (int i = 0; i < 6; i++) {
        setup s;
        ct_arena arena = {0};
        set_up(&s, &cases[i], 18);
        CHECK_OK(ct_threads_set(1));
        CHECK_OK(ops->attention(&s.args, &arena));
        for (int n_threads = 1; n_threads <= 7; n_threads += 3) {
            CHECK_OK(ct_threads_set(n_threads));
            for (int64_t q = 0; q < cases[i].n_sequences; q++)
                if (!same_alone(ops, &s, q))
                    FAIL("level %s, case %d: sequence %d changes with %d threads", level, i, (int)q,
                         n_threads);
        }
        ct_arena_clear(&arena);
        tear_down(&s);
    }
    CHECK_OK(ct_threads_set(threads));
}

static void a_sequence_depends_neither_on_others_nor_on_threads(void)
{
    CHECK_OK(ct_threads_init());
    at_every_level(independence_at);
}

/* Row i of sequence q, computed in a call of its own behind the rows before it, has to have the
 * bits that it has among them, and so has what it caches. */
static bool same_row_alone(const ct_ops *ops, const setup *all, int64_t q, int64_t i)
{
    ct_attention_args args = all->args;
    size_t page_bytes = (size_t)(2 * all->view.layer_offset * value_bytes(all->c.cache));
    void *page = all->pages[q][(all->c.before[q] + i) / CT_PAGE_POSITIONS];
    void *kept = malloc(page_bytes);
    memcpy(kept, page, page_bytes);
    ct_kv_view view = all->view;
    int64_t row = all->offsets[q] + i, offsets[2] = {0, 1}, before = all->c.before[q] + i;
    ct_arena arena = {0};
    args.n_sequences = 1;
    args.offsets = offsets;
    take_rows(&args, all, row, 1);
    args.out = new_rows(CT_F32, 1, args.out.width, 2);
    view.pages += q;
    view.lengths = &before;
    args.cache = &view;
    bool same = ops->attention(&args, &arena) == CT_OK &&
                memcmp(args.out.data, (float *)all->args.out.data + row * all->args.out.stride,
                       sizeof(float) * (size_t)args.out.width) == 0 &&
                memcmp(page, kept, page_bytes) == 0;
    ct_arena_clear(&arena);
    free(args.qkv.data);
    free(args.out.data);
    free(kept);
    return same;
}

static void chunks_at(const ct_ops *ops, const char *level)
{
    attention_case cases[6];
    for (int i = 0; i < 6; i++) {
        cases[i] = plain;
        cases[i].cached = cases[i].causal = true;
        int64_t n[] = {70, 1, 0, 133, 5}, before[] = {0, 511, 512, 1000, 510};
        memcpy(cases[i].n, n, sizeof n);
        memcpy(cases[i].before, before, sizeof before);
    }
    cases[1].window = 100; /* spans fall outside for some rows of a tile */
    cases[2].window = 600;
    cases[2].alibi = true;
    cases[3].softcap = 2;
    cases[3].cache = CT_F16;
    cases[4].max_distance = 20;
    cases[4].rotated = 24;
    cases[5].n_heads = cases[5].n_kv_heads = 3;
    cases[5].d = 17;
    cases[5].rotated = 16;
    cases[5].interleaved = true;
    for (int c = 0; c < 6; c++) {
        setup s;
        ct_arena arena = {0};
        set_up(&s, &cases[c], 30);
        CHECK_OK(ops->attention(&s.args, &arena));
        for (int64_t q = 0; q < cases[c].n_sequences; q++)
            for (int64_t i = 0; i < cases[c].n[q]; i++)
                if (!same_row_alone(ops, &s, q, i))
                    FAIL("level %s, case %d: row %d of sequence %d changes", level, c, (int)i,
                         (int)q);
        ct_arena_clear(&arena);
        tear_down(&s);
    }
}

static void a_row_is_the_same_whichever_rows_are_computed_with_it(void)
{
    at_every_level(chunks_at);
}

/* ---- NaN ---- */

/* The output of a head whose query is NaN is NaN: no score may pass for one of a blocked key. Other
 * heads and rows stay as they are. */
static void nan_at(const ct_ops *ops, const char *level)
{
    attention_case cases[4] = {plain, decode_case(CT_F32), decode_case(CT_F32),
                               short_case(CT_BF16, 40)};
    cases[2].window = 600; /* the first span has no key for the query */
    for (int i = 0; i < 4; i++) {
        setup s;
        ct_arena arena = {0};
        set_up(&s, &cases[i], 21);
        int64_t last = s.offsets[4] - 1; /* of the longest sequence, in spans where it is cached */
        float *query = (float *)s.args.qkv.data + last * s.args.qkv.stride;
        for (int64_t j = 0; j < s.c.d; j++)
            query[j] = NAN;
        CHECK_OK(ops->attention(&s.args, &arena));
        bool passed_on = true;
        for (int64_t j = 0; j < s.c.d; j++)
            passed_on = passed_on && isnan(row_value(&s.args.out, last, j));
        bool others = check_head(&s, 0, 0, 0) && !isnan(row_value(&s.args.out, last, s.c.d));
        ct_arena_clear(&arena);
        tear_down(&s);
        if (!passed_on || !others)
            FAIL("level %s, case %d: NaN is %s", level, i, passed_on ? "everywhere" : "lost");
    }
}

static void a_query_of_nan_gives_nan_to_its_head_alone(void)
{
    at_every_level(nan_at);
}

ct_status fault_attention(void)
{
    const ct_ops *ops;
    CT_TRY(ct_cpu_ops(&ops));
    attention_case cases[2] = {plain, decode_case(CT_F16)};
    ct_status status = CT_OK;
    for (int i = 0; status == CT_OK && i < 2; i++) {
        setup s;
        ct_arena arena = {0};
        set_up(&s, &cases[i], 19);
        status = ops->attention(&s.args, &arena);
        ct_arena_clear(&arena);
        tear_down(&s);
    }
    return status;
}

const ct_test suite_cpu_attention[] = {
    TEST(scores_are_biased_capped_and_blocked),
    TEST(a_bias_by_distance_is_added_and_saturates),
    TEST(a_window_reaches_to_places_less_than_its_size_away),
    TEST(heads_of_any_number_and_width_agree),
    TEST(wide_heads_and_large_groups_agree),
    TEST(a_general_mask_blocks_and_a_blocked_row_is_zero),
    TEST(cached_positions_are_attended_to),
    TEST(one_row_over_many_pages_agrees),
    TEST(heads_rotate_and_go_where_the_cache_wants_them),
    TEST(single_rows_rotate_are_cached_and_attend),
    TEST(thousands_of_heads_agree),
    TEST(heads_of_any_width_agree_in_16_bits),
    TEST(heads_of_more_than_256_values_agree),
    TEST(masks_and_biases_agree_in_16_bits),
    TEST(rows_in_several_tiles_agree_in_16_bits),
    TEST(a_sequence_depends_neither_on_others_nor_on_threads),
    TEST(a_row_is_the_same_whichever_rows_are_computed_with_it),
    TEST(a_query_of_nan_gives_nan_to_its_head_alone),
    TESTS_END,
};
