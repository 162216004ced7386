/* Keys and values that a test can check wherever it meets them: an author writes, at each position
 * of each layer and head, values that only it writes there. They go through the view that
 * operations get, by the layout in ops.h. */
#ifndef CT_TEST_KV_AUTHOR_H
#define CT_TEST_KV_AUTHOR_H

#include "model/kv_cache.h"
#include "test.h"
#include "tiny_model.h"

enum { LAYERS = 2, HEADS = 3, WIDTH = 5 };

/* What `author` writes at a position; exact in every element type. */
static inline float written(int author, int64_t layer, int64_t head, bool value, int64_t position,
                            int64_t feature)
{
    return (float)((author * 7 + layer * 5 + head * 3 + value * 11 + position * 13 + feature) %
                   127);
}

static inline ct_status pool_of(ct_kv_pool **out, ct_dtype dtype)
{
    return ct_kv_pool_new(out, (ct_device_id){CT_DEVICE_CPU, 0}, LAYERS, HEADS, WIDTH, dtype);
}

/* Where ops.h says that it lies, from the page's start. */
static inline int64_t place_of(int64_t layer, int64_t head, bool value, int64_t position,
                               int64_t feature)
{
    int64_t block = WIDTH * CT_PAGE_POSITIONS, place = position % CT_PAGE_POSITIONS;
    int64_t start = (layer * 2 * HEADS + (value ? HEADS : 0) + head) * block;
    return start + (value ? place * WIDTH + feature : feature * CT_PAGE_POSITIONS + place);
}

static inline void store(void *page, ct_dtype dtype, int64_t place, float value)
{
    if (dtype == CT_F32)
        ((float *)page)[place] = value;
    else
        ((uint16_t *)page)[place] =
            dtype == CT_F16 ? ct_f16_from_f32(value) : ct_bf16_from_f32(value);
}

/* The next n positions, through the view that operations get. */
static inline ct_status append(ct_kv_sequence *sequence, int author, int64_t n)
{
    ct_arena arena = {0};
    ct_status status = CT_OK;
    CT_TRY(ct_kv_sequence_reserve(sequence, n));
    for (int64_t layer = 0; layer < LAYERS; layer++) {
        ct_kv_view view;
        CT_TRY_TO(done, ct_kv_view_make(&view, &sequence, 1, 0, &arena, &arena));
        ct_kv_view_layer(&view, sequence->pool, layer);
        for (int64_t i = 0; i < n * HEADS * WIDTH * 2; i++) {
            int64_t position = view.lengths[0] + i % n, head = i / n % HEADS;
            int64_t feature = i / n / HEADS % WIDTH;
            bool value = i / n / HEADS / WIDTH;
            store(view.pages[0][position / CT_PAGE_POSITIONS], view.dtype,
                  view.layer_offset + place_of(0, head, value, position, feature),
                  written(author, layer, head, value, position, feature));
        }
    }
    ct_kv_sequence_advance(sequence, n);
done:
    ct_arena_clear(&arena);
    return status;
}

static inline double load(const void *data, ct_dtype dtype, int64_t i)
{
    if (dtype == CT_F32)
        return ((const float *)data)[i];
    uint16_t bits = ((const uint16_t *)data)[i];
    return dtype == CT_F16 ? ct_f16_to_f32(bits) : ct_bf16_to_f32(bits);
}

/* Whether positions [first, end) are all `author`'s. */
static inline bool holds(const ct_kv_sequence *sequence, ct_dtype dtype, int author, int64_t first,
                         int64_t end)
{
    for (int64_t p = first; p < end; p++)
        for (int64_t i = 0; i < LAYERS * HEADS * 2 * WIDTH; i++) {
            int64_t layer = i % LAYERS, head = i / LAYERS % HEADS;
            int64_t feature = i / LAYERS / HEADS % WIDTH;
            bool value = i / LAYERS / HEADS / WIDTH;
            if (load(sequence->data[p / CT_PAGE_POSITIONS], dtype,
                     place_of(layer, head, value, p, feature)) !=
                (double)written(author, layer, head, value, p, feature))
                return false;
        }
    return true;
}

/* ---- a batch ---- */

typedef struct batch {
    ct_kv_pool *pool;
    ct_kv_sequence sequences[3], *pointers[3];
    ct_tensor *columns;
} batch;

/* Three sequences by three authors, 3 positions, 1 and none, in four columns. */
static inline ct_status make_batch(batch *b, ct_dtype dtype)
{
    CT_TRY(pool_of(&b->pool, dtype));
    CT_TRY(mask_of(&b->columns, "1.11 ..1. ...."));
    for (int i = 0; i < 3; i++) {
        ct_kv_sequence_init(&b->sequences[i], b->pool);
        b->pointers[i] = &b->sequences[i];
    }
    CT_TRY(append(&b->sequences[0], 1, 3));
    return append(&b->sequences[1], 2, 1);
}

static inline void clear_batch(batch *b)
{
    for (int i = 0; i < 3; i++)
        ct_kv_sequence_clear(&b->sequences[i]);
    ct_tensor_unref(&b->columns);
    ct_kv_pool_unref(&b->pool);
}

/* Row `row` of what was read against the batch's row `origin`: by column, zeros between. */
static inline bool reads_as(const ct_tensor *read, int64_t row, int origin, int64_t layer,
                            bool value)
{
    static const int positions[3][4] = {{0, -1, 1, 2}, {-1, -1, 0, -1}, {-1, -1, -1, -1}};
    for (int64_t i = 0; i < HEADS * 4 * WIDTH; i++) {
        int64_t feature = i % WIDTH, column = i / WIDTH % 4, head = i / WIDTH / 4;
        int position = positions[origin][column];
        double expected =
            position < 0 ? 0 : written(origin + 1, layer, head, value, position, feature);
        if (load(ct_tensor_data(read), read->dtype, row * HEADS * 4 * WIDTH + i) != expected)
            return false;
    }
    return true;
}

static inline void check_reads(const ct_kv_cache *cache, ct_dtype dtype, const int *origins,
                               int64_t n)
{
    for (int64_t layer = 0; layer < LAYERS; layer++) {
        for (int value = 0; value < 2; value++) {
            ct_tensor *read;
            CHECK_OK(ct_kv_cache_read(&read, cache, layer, value != 0));
            CHECK(read->dtype == dtype && read->n_dims == 4 && read->shape[0] == n &&
                  read->shape[1] == HEADS && read->shape[2] == 4 && read->shape[3] == WIDTH);
            for (int64_t i = 0; i < n; i++)
                CHECK(reads_as(read, i, origins[i], layer, value != 0));
            ct_tensor_unref(&read);
        }
    }
}

#endif
