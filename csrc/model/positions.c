/* Rotary tables grow by doubling. A larger table replaces the old one, which stays until the model
 * goes, since a call in another thread may be reading it. */
#include "model/positions.h"

#include <math.h>
#include <string.h>

#include "core/memory.h"
#include "ops/memory.h"

#define FIRST_SIZE 512

typedef struct rows {
    struct rows *older;
    int64_t n_positions;
    ct_tensor *table; /* [2, n_positions, n_frequencies]: cos, then sin */
} rows;

struct ct_rotary_table {
    pthread_mutex_t lock;
    rows *newest;
    ct_device_id device;
    int64_t n_frequencies;
    float factor;
    float *frequencies;
};

static ct_status make_rows(rows **out, const ct_rotary_table *table, int64_t n_positions);
static void free_rows(rows **old);

ct_status ct_rotary_table_new(ct_rotary_table **out, ct_device_id device, const float *frequencies,
                              int64_t n_frequencies, float factor)
{
    *out = NULL;
    ct_status status = CT_OK;
    ct_rotary_table *table;
    size_t size = sizeof *frequencies * (size_t)n_frequencies;
    CT_TRY(ct_alloc_zeroed((void **)&table, 1, sizeof *table));
    pthread_mutex_init(&table->lock, NULL);
    table->device = device;
    table->n_frequencies = n_frequencies;
    table->factor = factor;
    CT_TRY_TO(done, ct_alloc((void **)&table->frequencies, size));
    memcpy(table->frequencies, frequencies, size);
    *out = table;
    table = NULL;
done:
    ct_rotary_table_free(&table);
    return status;
}

void ct_rotary_table_free(ct_rotary_table **table)
{
    if (!*table)
        return;
    while ((*table)->newest) {
        rows *old = (*table)->newest;
        (*table)->newest = old->older;
        free_rows(&old);
    }
    ct_free(&(*table)->frequencies);
    pthread_mutex_destroy(&(*table)->lock);
    ct_free(table);
}

ct_status ct_rotary_table_get(ct_rotary_table *table, int64_t n_positions, const float **cos,
                              const float **sin)
{
    ct_status status = CT_OK;
    pthread_mutex_lock(&table->lock);
    rows *current = table->newest;
    if (!current || current->n_positions < n_positions) {
        int64_t size = current ? 2 * current->n_positions : FIRST_SIZE;
        CT_TRY_TO(done, make_rows(&current, table, size > n_positions ? size : n_positions));
        current->older = table->newest;
        table->newest = current;
    }
    *cos = ct_tensor_data(current->table);
    *sin = *cos + current->n_positions * table->n_frequencies;
done:
    pthread_mutex_unlock(&table->lock);
    return status;
}

static void fill_rows(float *cosines, const ct_rotary_table *table, int64_t n_positions)
{
    int64_t n = table->n_frequencies;
    float *sines = cosines + n_positions * n;
    for (int64_t p = 0; p < n_positions; p++) {
        for (int64_t i = 0; i < n; i++) {
            float angle = (float)p * table->frequencies[i];
            cosines[p * n + i] = table->factor * (float)cos((double)angle);
            sines[p * n + i] = table->factor * (float)sin((double)angle);
        }
    }
}

static ct_status make_rows(rows **out, const ct_rotary_table *table, int64_t n_positions)
{
    *out = NULL;
    ct_status status = CT_OK;
    ct_tensor *host = NULL;
    rows *made;
    CT_TRY(ct_alloc_zeroed((void **)&made, 1, sizeof *made));
    made->n_positions = n_positions;
    CT_TRY_TO(done,
              ct_tensor_new(&host, CT_F32, 3, (int64_t[]){2, n_positions, table->n_frequencies}));
    fill_rows(ct_tensor_data(host), table, n_positions);
    CT_TRY_TO(done, ct_tensor_to_device(&made->table, host, table->device));
    *out = made;
    made = NULL;
done:
    ct_tensor_unref(&host);
    free_rows(&made);
    return status;
}

static void free_rows(rows **old)
{
    if (!*old)
        return;
    ct_tensor_unref(&(*old)->table);
    ct_free(old);
}

void ct_alibi_slopes(float *slopes, int64_t n_heads, double max_bias)
{
    int64_t power = 1;
    while (2 * power <= n_heads)
        power *= 2;
    for (int64_t i = 0; i < n_heads; i++) {
        double exponent = i < power ? (double)(i + 1) / (double)power
                                    : (double)(2 * (i - power) + 1) / (double)(2 * power);
        slopes[i] = (float)exp2(-max_bias * exponent);
    }
}

int64_t ct_relative_bucket(int64_t distance, int64_t n_buckets, int64_t max_distance)
{
    int64_t half = n_buckets / 2, exact = half / 2;
    int64_t first = distance > 0 ? half : 0, away = distance < 0 ? -distance : distance;
    if (away < exact)
        return first + away;
    float span = (float)log((double)max_distance / (double)exact);
    float part = (float)log((double)((float)away / (float)exact)) / span;
    int64_t bucket = exact + (int64_t)(part * (float)(half - exact));
    return first + (bucket < half ? bucket : half - 1);
}

void ct_expand_relative_bias(float *bias, const float *weight, int64_t n_heads, int64_t n_buckets,
                             int64_t max_distance)
{
    int64_t width = 2 * max_distance + 1;
    for (int64_t i = 0; i < width; i++) {
        int64_t bucket = ct_relative_bucket(i - max_distance, n_buckets, max_distance);
        for (int64_t h = 0; h < n_heads; h++)
            bias[h * width + i] = weight[bucket * n_heads + h];
    }
}
