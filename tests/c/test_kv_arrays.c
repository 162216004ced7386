/* Pages from arrays, as users build, slice and join caches. */
#include "kv_author.h"

/* What `author` writes, as [1, HEADS, 4, WIDTH] in `dtype`, NaN in columns without a position. */
static ct_status make_array(ct_tensor **out, ct_dtype dtype, int64_t layer, bool value,
                            int64_t n_sequences)
{
    static const int positions[4] = {0, -1, 1, 2};
    CT_TRY(ct_tensor_new(out, dtype, 4, (int64_t[]){n_sequences, HEADS, 4, WIDTH}));
    for (int64_t i = 0; i < ct_tensor_size(*out); i++) {
        int position = positions[i / WIDTH % 4];
        store(ct_tensor_data(*out), dtype, i,
              position < 0 ? NAN
                           : written(1, layer, i / WIDTH / 4 % HEADS, value, position, i % WIDTH));
    }
    return CT_OK;
}

static ct_status make_arrays(ct_tensor *keys[LAYERS], ct_tensor *values[LAYERS], ct_dtype dtype,
                             int64_t n_sequences)
{
    for (int64_t layer = 0; layer < LAYERS; layer++) {
        CT_TRY(make_array(&keys[layer], dtype, layer, false, n_sequences));
        CT_TRY(make_array(&values[layer], dtype, layer, true, n_sequences));
    }
    return CT_OK;
}

static void drop_arrays(ct_tensor *keys[LAYERS], ct_tensor *values[LAYERS])
{
    for (int64_t layer = 0; layer < LAYERS; layer++) {
        ct_tensor_unref(&keys[layer]);
        ct_tensor_unref(&values[layer]);
    }
}

/* Any element type into any other: the values are exact in all of them. */
static void arrays_become_pages(void)
{
    static const ct_dtype dtypes[] = {CT_F32, CT_F16, CT_BF16};
    int64_t live = live_blocks();
    for (int d = 0; d < 9; d++) {
        ct_kv_pool *pool;
        ct_kv_cache *cache;
        ct_tensor *keys[LAYERS], *values[LAYERS], *mask;
        CHECK_OK(pool_of(&pool, dtypes[d / 3]));
        CHECK_OK(make_arrays(keys, values, dtypes[d % 3], 2));
        CHECK_OK(mask_of(&mask, "1.11 1.11"));
        CHECK_OK(ct_kv_cache_from_arrays(&cache, pool, keys, LAYERS, values, LAYERS, mask));
        drop_arrays(keys, values);
        ct_tensor_unref(&mask);
        ct_kv_pool_unref(&pool);
        check_reads(cache, dtypes[d / 3], (int[]){0, 0}, 2);
        for (int i = 0; i < 2; i++) {
            CHECK_INT(cache->sequences[i].length, 3);
            CHECK_OK(append(&cache->sequences[i], 4 + i, 80)); /* and they go on */
            CHECK(holds(&cache->sequences[i], dtypes[d / 3], 1, 0, 3));
            CHECK(holds(&cache->sequences[i], dtypes[d / 3], 4 + i, 3, 83));
        }
        ct_kv_cache_unref(&cache);
        CHECK_INT(live_blocks(), live);
    }
}

/* Views as users slice them, and a mask that says the same of all rows; without one every column
 * holds a position. */
static void arrays_and_masks_of_any_stride_become_pages(void)
{
    ct_kv_pool *pool;
    ct_kv_cache *cache;
    ct_tensor *keys[LAYERS], *values[LAYERS], *tails[2][LAYERS], *row, *mask, *read;
    CHECK_OK(pool_of(&pool, CT_F32));
    CHECK_OK(make_arrays(keys, values, CT_F32, 1));
    for (int64_t layer = 0; layer < LAYERS; layer++) {
        CHECK_OK(ct_tensor_slice(&tails[0][layer], keys[layer], 2, 2, 2, 1));
        CHECK_OK(ct_tensor_slice(&tails[1][layer], values[layer], 2, 2, 2, 1));
    }
    CHECK_OK(ct_kv_cache_from_arrays(&cache, pool, tails[0], LAYERS, tails[1], LAYERS, NULL));
    CHECK_INT(cache->sequences[0].length, 2);
    CHECK_OK(ct_kv_cache_read(&read, cache, 1, true));
    for (int64_t i = 0; i < HEADS * 2 * WIDTH; i++)
        CHECK_NEAR(((float *)ct_tensor_data(read))[i],
                   written(1, 1, i / WIDTH / 2, true, 1 + i / WIDTH % 2, i % WIDTH), 0);
    ct_tensor_unref(&read);
    ct_kv_cache_unref(&cache);

    CHECK_OK(mask_of(&row, "11.1")); /* from its end: 1.11 */
    CHECK_OK(ct_tensor_slice(&mask, row, 1, 3, 4, -1));
    CHECK_OK(ct_kv_cache_from_arrays(&cache, pool, keys, LAYERS, values, LAYERS, mask));
    check_reads(cache, CT_F32, (int[]){0}, 1);
    ct_kv_cache_unref(&cache);
    ct_tensor_unref(&mask);
    ct_tensor_unref(&row);
    drop_arrays(keys, values);
    drop_arrays(tails[0], tails[1]);
    ct_kv_pool_unref(&pool);
}

static void arrays_that_do_not_fit_are_refused_by_layer(void)
{
    int64_t live = live_blocks();
    ct_kv_pool *pool;
    ct_kv_cache *cache = NULL;
    ct_tensor *keys[LAYERS], *values[LAYERS], *mask, *old, *other;
    CHECK_OK(pool_of(&pool, CT_F32));
    CHECK_OK(make_arrays(keys, values, CT_F32, 2));
    CHECK_OK(mask_of(&mask, "1.11"));
    CHECK_FAILS(ct_kv_cache_from_arrays(&cache, pool, keys, 1, values, LAYERS, NULL), CT_VALUE,
                "has 2 layers, but keys of 1 and values of 2");
    CHECK_FAILS(ct_kv_cache_from_arrays(&cache, pool, keys, LAYERS, values, LAYERS, mask), CT_VALUE,
                "cached columns must have the shape [2, 4]");
    CHECK_FAILS(ct_kv_cache_from_arrays(&cache, pool, keys, LAYERS, values, LAYERS, keys[0]),
                CT_VALUE, "cached columns must be of dtype bool, was: float32");
    const struct {
        int64_t shape[4];
        ct_dtype dtype;
        int n_dims;
        const char *message;
    } wrong[] = {
        {{1, 3, 4, 5}, CT_F32, 4, "values must have the shape [2, 3, 4, 5], but have [1, 3, 4, 5]"},
        {{2, 1, 4, 5}, CT_F32, 4, "but have [2, 1, 4, 5]"},
        {{2, 3, 9, 5}, CT_F32, 4, "but have [2, 3, 9, 5]"},
        {{2, 3, 4, 4}, CT_F32, 4, "but have [2, 3, 4, 4]"},
        {{2, 3, 4}, CT_F32, 3, "but have [2, 3, 4]"},
        {{2, 6, 4, 5}, CT_F32, 4, "not repeated for the query heads that share it (D20)"},
        {{2, 3, 4, 5}, CT_I64, 4, "must be float32, float16 or bfloat16, not int64"},
    };
    old = values[1];
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        CHECK_OK(ct_tensor_new(&other, wrong[i].dtype, wrong[i].n_dims, wrong[i].shape));
        values[1] = other;
        CHECK_FAILS(ct_kv_cache_from_arrays(&cache, pool, keys, LAYERS, values, LAYERS, NULL),
                    wrong[i].dtype == CT_I64 ? CT_TYPE : CT_VALUE, wrong[i].message);
        CHECK(strstr(ct_message(), "layer 1: the values") && !cache);
        values[1] = keys[0];
        keys[0] = other; /* the first one says what the others have to be */
        if (wrong[i].shape[0] == 2 && wrong[i].shape[2] == 4)
            CHECK_FAILS(ct_kv_cache_from_arrays(&cache, pool, keys, LAYERS, values, LAYERS, NULL),
                        wrong[i].dtype == CT_I64 ? CT_TYPE : CT_VALUE, "layer 0: the keys");
        keys[0] = values[1];
        ct_tensor_unref(&other);
    }
    values[1] = old;
    drop_arrays(keys, values);
    ct_tensor_unref(&mask);
    ct_kv_pool_unref(&pool);
    CHECK_INT(live_blocks(), live);
}

ct_status fault_kv_arrays(void)
{
    ct_status status = CT_OK;
    ct_kv_pool *pool = NULL;
    ct_kv_cache *cache = NULL;
    ct_tensor *keys[LAYERS] = {NULL}, *values[LAYERS] = {NULL};
    CT_TRY_TO(done, pool_of(&pool, CT_F32));
    CT_TRY_TO(done, make_arrays(keys, values, CT_F16, 2));
    CT_TRY_TO(done, ct_kv_cache_from_arrays(&cache, pool, keys, LAYERS, values, LAYERS, NULL));
done:
    ct_kv_cache_unref(&cache);
    drop_arrays(keys, values);
    ct_kv_pool_unref(&pool);
    return status;
}

const ct_test suite_kv_arrays[] = {
    TEST(arrays_become_pages),
    TEST(arrays_and_masks_of_any_stride_become_pages),
    TEST(arrays_that_do_not_fit_are_refused_by_layer),
    TESTS_END,
};
