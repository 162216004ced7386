/* Packing padded batches, and the way back. What is expected is written out by hand. */
#include "test.h"

#include "core/memory.h"
#include "cpu/device.h"
#include "tiny_model.h"

/* The tensors that a test hands in; NULL where it does not. */
typedef struct given {
    ct_tensor *ids, *mask, *positions, *types;
    ct_kv_cache *cache;
} given;

static void clear_given(given *g)
{
    ct_tensor_unref(&g->ids);
    ct_tensor_unref(&g->mask);
    ct_tensor_unref(&g->positions);
    ct_tensor_unref(&g->types);
    ct_kv_cache_unref(&g->cache);
}

static ct_status pack(ct_batch *batch, ct_spec spec, const given *g)
{
    CT_TRY(ct_spec_validate(&spec));
    ct_inputs inputs = {g->ids, g->mask, g->positions, g->types, g->cache};
    return ct_batch_pack(batch, &spec, &inputs);
}

/* [rows, columns] of 10, 11, 12 ... */
static ct_status counted_ids(given *g, int64_t rows, int64_t columns)
{
    int32_t values[64];
    for (int32_t i = 0; i < rows * columns; i++)
        values[i] = 10 + i;
    *g = (given){0};
    return integers_of(&g->ids, rows, columns, values);
}

/* A cache whose columns are the mask's; its sequences are as long as their marks, and empty. */
static ct_status cache_of(ct_kv_cache **out, const char *text)
{
    ct_status status = CT_OK;
    ct_tensor *columns;
    ct_kv_pool *pool = NULL;
    ct_kv_sequence sequences[4], *pointers[4];
    int64_t n = 0;
    CT_TRY(mask_of(&columns, text));
    const uint8_t *marks = ct_tensor_data(columns);
    CT_TRY_TO(done, ct_kv_pool_new(&pool, (ct_device_id){CT_DEVICE_CPU, 0}, 1, 1, 2, CT_F32));
    for (; n < columns->shape[0]; n++) {
        int64_t length = 0;
        for (int64_t c = 0; c < columns->shape[1]; c++)
            length += marks[n * columns->shape[1] + c];
        ct_kv_sequence_init(&sequences[n], pool);
        pointers[n] = &sequences[n];
        status = ct_kv_sequence_reserve(&sequences[n], length);
        if (status == CT_OK)
            ct_kv_sequence_advance(&sequences[n], length);
    }
    if (status == CT_OK)
        status = ct_kv_cache_new(out, pointers, n, columns);
done:
    for (int64_t i = 0; i < n; i++)
        ct_kv_sequence_clear(&sequences[i]);
    ct_kv_pool_unref(&pool);
    ct_tensor_unref(&columns);
    return status;
}

/* The packed batch as text: the sequences' rows as place:id@position, and the columns afterwards.
 */
static const char *batch_text(const ct_batch *batch)
{
    static char text[1000];
    size_t used = 0;
    text[0] = 0;
    for (int64_t q = 0; q < batch->n_sequences; q++) {
        used += (size_t)snprintf(text + used, sizeof text - used, "(");
        for (int64_t t = batch->offsets[q]; t < batch->offsets[q + 1]; t++)
            used += (size_t)snprintf(text + used, sizeof text - used, "%s%d:%d@%d",
                                     t > batch->offsets[q] ? " " : "", (int)batch->places[t],
                                     (int)batch->ids[t], (int)batch->positions[t]);
        used += (size_t)snprintf(text + used, sizeof text - used, ")");
    }
    const uint8_t *columns = ct_tensor_data(batch->columns);
    for (int64_t i = 0; i < ct_tensor_size(batch->columns); i++)
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%c",
                                 i % batch->columns->shape[1] ? "" : " ", columns[i] ? '1' : '.');
    return text;
}

/* ---- what is packed ---- */

static void check_packed(ct_spec spec, const char *cache, const char *mask, int64_t rows,
                         int64_t columns, const char *expected)
{
    given g;
    ct_batch batch;
    int64_t live = live_blocks();
    CHECK_OK(counted_ids(&g, rows, columns));
    if (mask)
        CHECK_OK(mask_of(&g.mask, mask));
    if (cache)
        CHECK_OK(cache_of(&g.cache, cache));
    CHECK_OK(pack(&batch, spec, &g));
    CHECK_TEXT(batch_text(&batch), expected);
    CHECK_INT(batch.n_tokens, batch.offsets[rows]);
    CHECK(!batch.mask);
    CHECK(!batch.types == (spec.n_types == 0));
    for (int64_t t = 0; batch.types && t < batch.n_tokens; t++)
        CHECK_INT(batch.types[t], 0);
    ct_batch_clear(&batch);
    clear_given(&g);
    CHECK_INT(live_blocks(), live);
}

static void masked_columns_are_left_out(void)
{
    ct_spec spec = tiny_encoder_spec();
    check_packed(spec, NULL, NULL, 2, 2, "(0:10@0 1:11@1)(2:12@0 3:13@1) 11 11");
    check_packed(spec, NULL, "111 11. 1..", 3, 3,
                 "(0:10@0 1:11@1 2:12@2)(3:13@0 4:14@1)(6:16@0) 111 11. 1..");
    check_packed(spec, NULL, "..1 .11", 2, 3, "(2:12@2)(4:14@1 5:15@2) ..1 .11");
    check_packed(spec, NULL, "1.1. .1.1", 2, 4, "(0:10@0 2:12@2)(5:15@1 7:17@3) 1.1. .1.1");
    check_packed(spec, NULL, "11 ..", 2, 2, "(0:10@0 1:11@1)() 11 ..");
    check_packed(spec, NULL, ".. ..", 2, 2, "()() .. ..");
    check_packed(spec, NULL, ".11", 2, 3, /* one row for all */
                 "(1:11@1 2:12@2)(4:14@1 5:15@2) .11 .11");
}

static void cached_columns_come_before_the_new_ones(void)
{
    ct_spec spec = tiny_decoder_spec();
    check_packed(spec, "111 111", NULL, 2, 2, "(0:10@3 1:11@4)(2:12@3 3:13@4) 11111 11111");
    check_packed(spec, "..1 111", "..11 1111", 2, 1, "(0:10@3)(1:11@3) ..11 1111");
    check_packed(spec, "11. 111", "11.1 111.", 2, 1, "(0:10@3)() 11.1 111.");
    check_packed(spec, "... 1..", "...11 1...1", 2, 2, "(0:10@3 1:11@4)(3:13@4) ...11 1...1");
}

static void positions_that_skip_padding_look_at_the_ids(void)
{
    static const int32_t ids[] = {5, 1, 7, 1, 1, 9};
    given g = {0};
    ct_batch batch;
    ct_spec spec = tiny_encoder_spec();
    spec.position_rule = CT_POSITIONS_SKIP_PADDING;
    spec.padding_id = 1;
    CHECK_OK(integers_of(&g.ids, 2, 3, ids));
    CHECK_OK(pack(&batch, spec, &g));
    CHECK_TEXT(batch_text(&batch), "(0:5@2 1:1@1 2:7@3)(3:1@1 4:1@1 5:9@2) 111 111");
    ct_batch_clear(&batch);
    CHECK_OK(mask_of(&g.mask, ".11 111")); /* the mask does not count */
    CHECK_OK(pack(&batch, spec, &g));
    CHECK_TEXT(batch_text(&batch), "(1:1@1 2:7@3)(3:1@1 4:1@1 5:9@2) .11 111");
    ct_batch_clear(&batch);
    clear_given(&g);
}

static void given_positions_and_types_are_taken(void)
{
    static const int32_t positions[] = {4, -1, 39, 0}, types[] = {1, 99, 0, 1};
    given g;
    ct_batch batch;
    CHECK_OK(counted_ids(&g, 2, 2));
    CHECK_OK(integers_of(&g.positions, 2, 2, positions));
    CHECK_OK(integers_of(&g.types, 2, 2, types));
    CHECK_OK(mask_of(&g.mask, "1. 11")); /* what is masked may be anything */
    CHECK_OK(pack(&batch, tiny_encoder_spec(), &g));
    CHECK_TEXT(batch_text(&batch), "(0:10@4)(2:12@39 3:13@0) 1. 11");
    CHECK(batch.types[0] == 1 && batch.types[1] == 0 && batch.types[2] == 1);
    ct_batch_clear(&batch);
    clear_given(&g);
}

/* Every second column of every second row, from the end: int64 ids and a mask with negative steps.
 */
static void strides_are_followed(void)
{
    given g = {0};
    ct_batch batch;
    ct_tensor *wide, *rows, *wide_mask, *mask_rows;
    CHECK_OK(ct_tensor_new(&wide, CT_I64, 2, (int64_t[]){4, 6}));
    CHECK_OK(mask_of(&wide_mask, "1.1.1. ...... 1.1... ......"));
    for (int64_t i = 0; i < 24; i++)
        ((int64_t *)ct_tensor_data(wide))[i] = i;
    CHECK_OK(ct_tensor_slice(&rows, wide, 0, 2, 2, -2));
    CHECK_OK(ct_tensor_slice(&g.ids, rows, 1, 5, 3, -2));
    CHECK_OK(ct_tensor_slice(&mask_rows, wide_mask, 0, 2, 2, -2));
    CHECK_OK(ct_tensor_slice(&g.mask, mask_rows, 1, 4, 3, -2));
    CHECK_OK(pack(&batch, tiny_encoder_spec(), &g));
    CHECK_TEXT(batch_text(&batch), "(1:15@1 2:13@2)(3:5@0 4:3@1 5:1@2) .11 111");
    ct_batch_clear(&batch);
    clear_given(&g);
    ct_tensor *more[] = {wide, rows, wide_mask, mask_rows};
    for (int i = 0; i < 4; i++)
        ct_tensor_unref(&more[i]);
}

/* ---- general masks ---- */

static ct_status mask4(given *g, int64_t batch, int64_t heads, int64_t queries, int64_t keys)
{
    int64_t shape[4] = {batch, heads, queries, keys};
    CT_TRY(ct_tensor_new(&g->mask, CT_BOOL, 4, shape));
    memset(ct_tensor_data(g->mask), 1, (size_t)ct_tensor_size(g->mask));
    return CT_OK;
}

/* Strides of 0 stand for dimensions of length 1, which count for all. */
static void check_general(int64_t batch_rows, int64_t heads, int64_t queries,
                          const int64_t *strides)
{
    static const int64_t shape[4] = {2, 4, 3, 3};
    given g;
    ct_batch batch;
    CHECK_OK(counted_ids(&g, 2, 3));
    CHECK_OK(mask4(&g, batch_rows, heads, queries, 3));
    ((uint8_t *)ct_tensor_data(g.mask))[0] = 0;
    CHECK_OK(pack(&batch, tiny_encoder_spec(), &g));
    CHECK_INT(batch.n_tokens, 6); /* every column is a row */
    CHECK(batch.mask && batch.mask->storage == g.mask->storage);
    for (int i = 0; i < 4; i++) {
        CHECK_INT(batch.mask->shape[i], shape[i]);
        CHECK_INT(batch.mask->strides[i], strides[i]);
    }
    CHECK_TEXT(batch_text(&batch), "(0:10@0 1:11@1 2:12@2)(3:13@0 4:14@1 5:15@2) 111 111");
    ct_batch_clear(&batch);
    clear_given(&g);
}

static void general_masks_keep_every_row(void)
{
    check_general(2, 1, 3, (int64_t[]){9, 0, 3, 1});
    check_general(2, 4, 3, (int64_t[]){36, 9, 3, 1});
    check_general(1, 1, 3, (int64_t[]){0, 0, 3, 1});
    check_general(2, 4, 1, (int64_t[]){12, 3, 0, 1});
    check_general(1, 4, 3, (int64_t[]){0, 9, 3, 1});
}

static void a_mask_of_keys_alone_is_plain_padding(void)
{
    given g;
    ct_batch batch;
    CHECK_OK(counted_ids(&g, 2, 3));
    CHECK_OK(mask4(&g, 2, 1, 1, 3));
    ((uint8_t *)ct_tensor_data(g.mask))[2] = 0;
    CHECK_OK(pack(&batch, tiny_encoder_spec(), &g));
    CHECK_TEXT(batch_text(&batch), "(0:10@0 1:11@1)(3:13@0 4:14@1 5:15@2) 11. 111");
    CHECK(!batch.mask);
    ct_batch_clear(&batch);
    clear_given(&g);
}

/* Packing moves what is behind a hole nearer, so distances would change. */
static void holes_are_general_where_distances_count(void)
{
    for (int i = 0; i < 4; i++) {
        given g;
        ct_batch batch;
        ct_spec spec = tiny_encoder_spec();
        spec.alibi = i == 1;
        spec.window = i == 2 ? 2 : 0;
        spec.relative_buckets = i == 3 ? 8 : 0;
        CHECK_OK(counted_ids(&g, 2, 3));
        CHECK_OK(mask_of(&g.mask, "1.1 111"));
        CHECK_OK(pack(&batch, spec, &g));
        CHECK_INT(batch.n_tokens, i == 0 ? 5 : 6);
        CHECK(!batch.mask == (i == 0));
        ct_batch_clear(&batch);
        ct_tensor_unref(&g.mask);
        CHECK_OK(mask_of(&g.mask, ".11 11."));
        CHECK_OK(pack(&batch, spec, &g));
        CHECK_INT(batch.n_tokens, 4);
        CHECK(!batch.mask);
        ct_batch_clear(&batch);
        clear_given(&g);
    }
}

/* ---- refusals ---- */

/* Tries the inputs and takes them apart; nothing may stay behind. */
static void check_refused(ct_spec spec, given *g, ct_status code, const char *message)
{
    ct_batch batch;
    CHECK_FAILS(pack(&batch, spec, g), code, message);
    CHECK(!batch.ids && !batch.columns && !batch.mask && !batch.offsets);
    clear_given(g);
}

static void wrong_ids_are_refused(void)
{
    ct_spec spec = tiny_encoder_spec();
    given g = {0};
    int64_t live = live_blocks();
    CHECK_OK(ct_tensor_new(&g.ids, CT_I32, 1, (int64_t[]){3}));
    check_refused(spec, &g, CT_VALUE, "piece ids must have the shape [batch, seq]");
    CHECK_OK(ct_tensor_new(&g.ids, CT_I32, 2, (int64_t[]){0, 3}));
    check_refused(spec, &g, CT_VALUE, "at least one sequence of at least one piece");
    CHECK_OK(ct_tensor_new(&g.ids, CT_I32, 2, (int64_t[]){3, 0}));
    check_refused(spec, &g, CT_VALUE, "at least one sequence of at least one piece");
    CHECK_OK(ct_tensor_new(&g.ids, CT_F32, 2, (int64_t[]){1, 3}));
    check_refused(spec, &g, CT_TYPE, "piece ids must be int32 or int64, not float32");
    CHECK_OK(integers_of(&g.ids, 2, 2, (int32_t[]){0, 60, 61, 0}));
    check_refused(spec, &g, CT_INDEX, "piece id 61 at [1, 0] is outside the 61 pieces");
    CHECK_OK(integers_of(&g.ids, 1, 2, (int32_t[]){0, -1}));
    check_refused(spec, &g, CT_INDEX, "piece id -1 at [0, 1] is outside the 61 pieces");
    CHECK_OK(ct_tensor_new(&g.ids, CT_I64, 2, (int64_t[]){1, 1}));
    *(int64_t *)ct_tensor_data(g.ids) = (int64_t)1 << 32; /* 0 when it is cut */
    check_refused(spec, &g, CT_INDEX, "piece id 4294967296 at [0, 0]");
    CHECK_INT(live_blocks(), live);
}

static void wrong_positions_and_types_are_refused(void)
{
    ct_spec spec = tiny_encoder_spec(), bare = tiny_decoder_spec();
    given g;
    CHECK_OK(counted_ids(&g, 1, 2));
    CHECK_OK(integers_of(&g.positions, 1, 3, (int32_t[]){0, 1, 2}));
    check_refused(spec, &g, CT_VALUE, "positions must have the shape of the piece ids, [1, 2]");
    CHECK_OK(counted_ids(&g, 1, 2));
    CHECK_OK(integers_of(&g.positions, 1, 2, (int32_t[]){0, 40}));
    check_refused(spec, &g, CT_INDEX, "position 40 at [0, 1] is outside the 40 positions");
    CHECK_OK(counted_ids(&g, 1, 2));
    CHECK_OK(integers_of(&g.positions, 1, 2, (int32_t[]){-1, 0}));
    check_refused(bare, &g, CT_INDEX, "position -1 at [0, 0] is outside the 1048576 positions");
    CHECK_OK(counted_ids(&g, 1, 2));
    CHECK_OK(ct_tensor_new(&g.types, CT_BOOL, 2, (int64_t[]){1, 2}));
    check_refused(spec, &g, CT_TYPE, "type ids must be int32 or int64, not bool");
    CHECK_OK(counted_ids(&g, 1, 2));
    CHECK_OK(integers_of(&g.types, 1, 2, (int32_t[]){1, 2}));
    check_refused(spec, &g, CT_INDEX, "type id 2 at [0, 1] is outside the 2 types");
    CHECK_OK(counted_ids(&g, 1, 2));
    CHECK_OK(integers_of(&g.types, 1, 2, (int32_t[]){0, 0}));
    check_refused(bare, &g, CT_VALUE, "this model has no type embeddings, but type ids were given");
}

static void wrong_masks_are_refused(void)
{
    ct_spec spec = tiny_encoder_spec();
    given g;
    CHECK_OK(counted_ids(&g, 2, 3));
    CHECK_OK(ct_tensor_new(&g.mask, CT_I32, 2, (int64_t[]){2, 3}));
    check_refused(spec, &g, CT_VALUE, "expected attention mask to be of dtype bool, was: int32");
    CHECK_OK(counted_ids(&g, 2, 3));
    CHECK_OK(ct_tensor_new(&g.mask, CT_BOOL, 3, (int64_t[]){2, 1, 3}));
    check_refused(spec, &g, CT_VALUE, "must be a tensor of shape [batch, keys] or [batch, heads");
    CHECK_OK(counted_ids(&g, 2, 3));
    CHECK_OK(mask_of(&g.mask, "11 11"));
    check_refused(spec, &g, CT_VALUE,
                  "must cover 2 sequences of 3 pieces (0 cached and 3 new), but has the shape "
                  "[2, 2]");
    CHECK_OK(counted_ids(&g, 2, 3));
    CHECK_OK(mask_of(&g.mask, "111 111 111"));
    check_refused(spec, &g, CT_VALUE, "but has the shape [3, 3]");
    static const int64_t shapes[][4] = {{3, 1, 3, 3}, {2, 3, 3, 3}, {2, 1, 2, 3}, {2, 1, 3, 2}};
    static const int64_t wanted[] = {2, 4, 3, 3};
    for (int i = 0; i < 4; i++) {
        char message[80];
        snprintf(message, sizeof message,
                 "dimension %d of the attention mask must be 1 or %d, was:", i, (int)wanted[i]);
        CHECK_OK(counted_ids(&g, 2, 3));
        CHECK_OK(mask4(&g, shapes[i][0], shapes[i][1], shapes[i][2], shapes[i][3]));
        check_refused(spec, &g, CT_VALUE, message);
    }
}

static void check_cache_refused(ct_spec spec, const char *cache, const char *mask, int64_t rows,
                                const char *message)
{
    given g;
    CHECK_OK(counted_ids(&g, rows, 1));
    CHECK_OK(cache_of(&g.cache, cache));
    if (mask)
        CHECK_OK(mask_of(&g.mask, mask));
    check_refused(spec, &g, CT_VALUE, message);
}

static void what_does_not_fit_the_cache_is_refused(void)
{
    ct_spec spec = tiny_decoder_spec(), alibi = spec;
    alibi.alibi = 1;
    check_cache_refused(spec, "11 11", NULL, 1, "the cache holds 2 sequences, the piece ids 1");
    check_cache_refused(spec, "11 .1", NULL, 2,
                        "the cache holds padding; pass the attention mask of cached and new");
    check_cache_refused(spec, "11", "1", 1, "(2 cached and 1 new), but has the shape [1, 1]");
    check_cache_refused(spec, "11", "1.1", 1,
                        "the attention mask is false at cached column [0, 1], which was computed "
                        "with true");
    check_cache_refused(spec, ".1", "111", 1,
                        "the attention mask is true at cached column [0, 0], which was computed "
                        "with false");
    check_cache_refused(alibi, "1.", "1.1", 1, "needs a cache without padding");
}

static void sequences_beyond_the_models_positions_are_refused(void)
{
    ct_spec spec = tiny_decoder_spec();
    ct_batch batch;
    given g;
    spec.max_positions = 3;
    CHECK_OK(counted_ids(&g, 1, 4));
    CHECK_OK(mask_of(&g.mask, ".111")); /* padding is no piece */
    CHECK_OK(pack(&batch, spec, &g));
    ct_batch_clear(&batch);
    clear_given(&g);
    CHECK_OK(counted_ids(&g, 1, 4));
    check_refused(spec, &g, CT_VALUE,
                  "a sequence of 4 pieces is longer than the 3 positions of the model");
    CHECK_OK(counted_ids(&g, 1, 2));
    CHECK_OK(cache_of(&g.cache, "11"));
    check_refused(spec, &g, CT_VALUE, "a sequence of 4 pieces is longer than the 3 positions");
}

/* ---- the way back ---- */

static void rows_return_to_their_places(void)
{
    given g;
    ct_batch batch;
    ct_tensor *rows, *scattered;
    CHECK_OK(counted_ids(&g, 3, 3));
    CHECK_OK(mask_of(&g.mask, "1.1 ... .1."));
    CHECK_OK(pack(&batch, tiny_encoder_spec(), &g));
    CHECK_OK(ct_tensor_new(&rows, CT_F32, 2, (int64_t[]){3, 2}));
    for (int i = 0; i < 6; i++)
        ((float *)ct_tensor_data(rows))[i] = (float)(i + 1);
    static const int expected[18] = {1, 2, 0, 0, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 5, 6, 0, 0};
    static const ct_dtype dtypes[] = {CT_F32, CT_BF16, CT_F16};
    for (int d = 0; d < 3; d++) {
        CHECK_OK(ct_batch_scatter(&scattered, &batch, rows, dtypes[d]));
        CHECK_INT(scattered->dtype, dtypes[d]);
        CHECK(scattered->n_dims == 3 && scattered->shape[0] == 3 && scattered->shape[1] == 3 &&
              scattered->shape[2] == 2);
        ct_tensor *wide;
        CHECK_OK(ct_tensor_convert(&wide, scattered, CT_F32));
        for (int i = 0; i < 18; i++)
            CHECK_NEAR(((float *)ct_tensor_data(wide))[i], expected[i], 0);
        ct_tensor_unref(&wide);
        ct_tensor_unref(&scattered);
    }
    ct_tensor_unref(&rows);
    ct_batch_clear(&batch);
    clear_given(&g);
}

static void without_padding_the_rows_are_a_view(void)
{
    given g;
    ct_batch batch;
    ct_tensor *rows, *scattered;
    CHECK_OK(counted_ids(&g, 2, 3));
    CHECK_OK(pack(&batch, tiny_encoder_spec(), &g));
    CHECK_OK(ct_tensor_new(&rows, CT_F32, 2, (int64_t[]){6, 2}));
    for (int i = 0; i < 12; i++)
        ((float *)ct_tensor_data(rows))[i] = (float)i;
    CHECK_OK(ct_batch_scatter(&scattered, &batch, rows, CT_F32));
    CHECK(scattered->storage == rows->storage && scattered->shape[1] == 3);
    ct_tensor_unref(&scattered);
    CHECK_OK(ct_batch_scatter(&scattered, &batch, rows, CT_BF16));
    for (int i = 0; i < 12; i++)
        CHECK_INT(((uint16_t *)ct_tensor_data(scattered))[i], ct_bf16_from_f32((float)i));
    ct_tensor_unref(&scattered);
    ct_tensor_unref(&rows);
    ct_batch_clear(&batch);
    clear_given(&g);
}

/* A hole makes rows of all columns; outputs are zeros at masked ones all the same. */
static void what_holes_and_padding_hide_is_not_shown(void)
{
    static const float values[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
    static const float padded[12] = {1, 2, 0, 0, 5, 6, 7, 8, 9, 10, 0, 0};
    static const float means[4] = {3, 4, 8, 9};
    given g;
    ct_batch batch;
    ct_tensor *rows, *out;
    ct_spec spec = tiny_encoder_spec();
    spec.window = 2;
    CHECK_OK(counted_ids(&g, 2, 3));
    CHECK_OK(mask_of(&g.mask, "1.1 11."));
    CHECK_OK(pack(&batch, spec, &g));
    CHECK_INT(batch.n_tokens, 6);
    CHECK_OK(ct_tensor_new(&rows, CT_F32, 2, (int64_t[]){6, 2}));
    memcpy(ct_tensor_data(rows), values, sizeof values);
    CHECK_OK(ct_batch_scatter(&out, &batch, rows, CT_F32));
    CHECK(memcmp(ct_tensor_data(out), padded, sizeof padded) == 0);
    ct_tensor_unref(&out);
    CHECK_OK(ct_batch_pool(&out, &batch, rows, CT_POOL_MEAN));
    CHECK(memcmp(ct_tensor_data(out), means, sizeof means) == 0);
    ct_tensor_unref(&out);
    ct_tensor_unref(&rows);
    ct_batch_clear(&batch);
    clear_given(&g);
}

const ct_test suite_model_batch[] = {
    TEST(masked_columns_are_left_out),
    TEST(cached_columns_come_before_the_new_ones),
    TEST(positions_that_skip_padding_look_at_the_ids),
    TEST(given_positions_and_types_are_taken),
    TEST(strides_are_followed),
    TEST(general_masks_keep_every_row),
    TEST(a_mask_of_keys_alone_is_plain_padding),
    TEST(holes_are_general_where_distances_count),
    TEST(wrong_ids_are_refused),
    TEST(wrong_positions_and_types_are_refused),
    TEST(wrong_masks_are_refused),
    TEST(what_does_not_fit_the_cache_is_refused),
    TEST(sequences_beyond_the_models_positions_are_refused),
    TEST(rows_return_to_their_places),
    TEST(what_holes_and_padding_hide_is_not_shown),
    TEST(without_padding_the_rows_are_a_view),
    TESTS_END,
};
