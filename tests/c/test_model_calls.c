/* What a call of the model gives back, what it leaves behind when it fails, and several callers at
 * once. The values themselves stand in test_model_forward.c; here one call is compared with
 * another, by 1e-5 of a row's length where they compute with other numbers of rows. */
#include "test.h"

#include <pthread.h>

#include "core/memory.h"
#include "model_oracle.h"

#define TOLERANCE 1e-5

static double distance_between(const float *a, const float *b, int64_t n)
{
    double wide[n];
    for (int64_t i = 0; i < n; i++)
        wide[i] = b[i];
    return float_row_distance(a, wide, n);
}

/* Three sequences of 5, 1 and 3 pieces, or the masked ones' rest. */
typedef struct fixture {
    ct_model *model;
    ct_tensor *ids, *mask;
    tiny_result whole; /* all hidden states, all logits */
} fixture;

static ct_status set_up(fixture *f, ct_spec spec, const char *mask)
{
    int32_t ids[15];
    *f = (fixture){0};
    tiny_pieces(ids, 15, 8);
    CT_TRY(tiny_model_new(&f->model, spec));
    CT_TRY(integers_of(&f->ids, 3, 5, ids));
    CT_TRY(mask_of(&f->mask, mask));
    return tiny_run(&f->whole, f->model, &(ct_inputs){.ids = f->ids, .mask = f->mask}, false);
}

static void tear_down(fixture *f)
{
    tiny_result_clear(&f->whole);
    ct_tensor_unref(&f->mask);
    ct_tensor_unref(&f->ids);
    ct_model_unref(&f->model);
}

/* ---- what comes back ---- */

static void check_hidden(const fixture *f, ct_keep keep, const ct_tensor *hidden)
{
    int64_t n = f->whole.batch.n_tokens, n_layers = f->model->weights.spec.n_layers;
    if (keep == CT_KEEP_NONE) {
        CHECK(!hidden);
        return;
    }
    CHECK_INT(hidden->shape[0], keep == CT_KEEP_ALL ? n_layers + 1 : 1);
    CHECK_INT(hidden->shape[1], n);
    CHECK_INT(hidden->shape[2], TINY_WIDTH);
    const float *last = (float *)ct_tensor_data(hidden) + (hidden->shape[0] - 1) * n * TINY_WIDTH;
    CHECK(memcmp(last, tiny_hidden(&f->whole, n_layers, 0),
                 sizeof *last * (size_t)(n * TINY_WIDTH)) == 0);
}

static void check_logits(const fixture *f, ct_logits_rows rows, const float *logits)
{
    const ct_batch *batch = &f->whole.batch;
    int64_t n = rows == CT_LOGITS_ALL ? batch->n_tokens : batch->n_sequences;
    for (int64_t i = 0; i < n; i++) {
        int64_t row = rows == CT_LOGITS_ALL ? i : batch->offsets[i + 1] - 1;
        CHECK(distance_between(logits + i * TINY_PIECES, tiny_logits(&f->whole, row),
                               TINY_PIECES) <= TOLERANCE);
    }
}

static void check_call(const fixture *f, ct_keep keep, ct_logits_rows rows, bool in_place)
{
    float place[9 * TINY_PIECES];
    ct_tensor *hidden, *logits;
    ct_forward_args args = {.batch = &f->whole.batch, .keep = keep, .logits = rows};
    args.logits_out = in_place ? place : NULL;
    CHECK_OK(ct_model_forward(f->model, &args, &hidden, &logits));
    check_hidden(f, keep, hidden);
    CHECK(!logits == (rows == CT_LOGITS_NONE || in_place));
    if (logits) {
        CHECK_INT(logits->shape[0], rows == CT_LOGITS_ALL ? 9 : 3);
        CHECK_INT(logits->shape[1], TINY_PIECES);
    }
    if (rows != CT_LOGITS_NONE)
        check_logits(f, rows, in_place ? place : ct_tensor_data(logits));
    ct_tensor_unref(&hidden);
    ct_tensor_unref(&logits);
}

static void a_call_gives_what_it_is_asked_for(void)
{
    static const ct_keep keeps[] = {CT_KEEP_NONE, CT_KEEP_LAST, CT_KEEP_ALL};
    static const ct_logits_rows rows[] = {CT_LOGITS_NONE, CT_LOGITS_LAST, CT_LOGITS_ALL};
    int64_t live = live_blocks();
    for (int64_t layers = 1; layers <= 2; layers++) { /* both of the buffers that take turns */
        fixture f;
        ct_spec spec = tiny_decoder_spec();
        spec.n_layers = layers;
        CHECK_OK(set_up(&f, spec, "11111 ....1 ..111"));
        for (int k = 0; k < 3; k++)
            for (int r = 0; r < 3; r++)
                for (int in_place = 0; in_place < 2; in_place++)
                    check_call(&f, keeps[k], rows[r], in_place != 0);
        tear_down(&f);
    }
    CHECK_INT(live_blocks(), live);
}

static void batches_without_pieces_are_empty(void)
{
    fixture f;
    ct_tensor *hidden, *logits;
    CHECK_OK(set_up(&f, tiny_decoder_spec(), "..... ..... ....."));
    CHECK_INT(f.whole.hidden->shape[0], TINY_LAYERS + 1);
    CHECK_INT(f.whole.hidden->shape[1], 0);
    CHECK_INT(f.whole.logits->shape[0], 0);
    ct_forward_args args = {.batch = &f.whole.batch, .logits = CT_LOGITS_LAST};
    CHECK_FAILS(ct_model_forward(f.model, &args, &hidden, &logits), CT_VALUE,
                "sequence 0 has no pieces to go on from");
    tear_down(&f);
    CHECK_OK(set_up(&f, tiny_decoder_spec(), "11111 ..... ..111"));
    CHECK_INT(f.whole.hidden->shape[1], 8);
    args.batch = &f.whole.batch;
    CHECK_FAILS(ct_model_forward(f.model, &args, &hidden, &logits), CT_VALUE,
                "sequence 1 has no pieces to go on from");
    CHECK(!hidden && !logits);
    tear_down(&f);
}

static void a_sequence_does_not_depend_on_its_company(void)
{
    ct_spec specs[] = {tiny_encoder_spec(), tiny_decoder_spec(), tiny_parallel_spec()};
    for (int s = 0; s < 3; s++) {
        fixture f;
        CHECK_OK(set_up(&f, specs[s], "11111 111.. 1111."));
        for (int q = 0; q < 3; q++) {
            tiny_result alone;
            int64_t first = f.whole.batch.offsets[q], n = f.whole.batch.offsets[q + 1] - first;
            const int32_t *ids = (int32_t *)ct_tensor_data(f.ids) + q * 5;
            CHECK_OK(tiny_run_pieces(&alone, f.model, ids, n, NULL, false));
            CHECK(distance_between(tiny_hidden(&alone, TINY_LAYERS, 0),
                                   tiny_hidden(&f.whole, TINY_LAYERS, first),
                                   n * TINY_WIDTH) <= TOLERANCE);
            tiny_result_clear(&alone);
        }
        tear_down(&f);
    }
}

static void pieces_that_only_the_device_knows_do_not_count_yet(void)
{
    fixture f;
    ct_tensor *hidden, *logits;
    float place[3 * TINY_PIECES];
    ct_kv_sequence sequences[3], *pointers[3];
    CHECK_OK(set_up(&f, tiny_decoder_spec(), "11111 ....1 ..111"));
    for (int i = 0; i < 3; i++) {
        ct_kv_sequence_init(&sequences[i], f.model->pool);
        pointers[i] = &sequences[i];
    }
    ct_batch batch = f.whole.batch;
    batch.ids = NULL;
    ct_forward_args args = {.batch = &batch,
                            .unknown_ids = f.whole.batch.ids,
                            .sequences = pointers,
                            .logits = CT_LOGITS_LAST,
                            .logits_out = place};
    for (int again = 0; again < 2; again++) { /* at the same places */
        memset(place, 0, sizeof place);
        CHECK_OK(ct_model_forward(f.model, &args, &hidden, &logits));
        check_logits(&f, CT_LOGITS_LAST, place);
        for (int i = 0; i < 3; i++)
            CHECK(sequences[i].length == 0 && sequences[i].n_pages == 1);
    }
    for (int i = 0; i < 3; i++)
        ct_kv_sequence_clear(&sequences[i]);
    tear_down(&f);
}

static void a_warm_call_allocates_only_its_results(void)
{
    fixture f;
    ct_tensor *hidden, *logits;
    float place[3 * TINY_PIECES];
    CHECK_OK(set_up(&f, tiny_decoder_spec(), "11111 ....1 ..111"));
    ct_forward_args args = {.batch = &f.whole.batch, .logits = CT_LOGITS_LAST, .logits_out = place};
    for (int i = 0; i < 3; i++) {
        int64_t made = ct_memory_allocations();
        CHECK_OK(ct_model_forward(f.model, &args, &hidden, &logits));
        if (i > 0)
            CHECK_INT(ct_memory_allocations() - made, 0);
    }
    tear_down(&f);
}

/* ---- weights in other forms ---- */

/* Keys in 16 bits beside queries and values in 32 compute as all of them in 32, and one matrix as
 * its three parts. */
static ct_status with_parts(tiny_result *out, bool mixed, bool fused)
{
    enum { KEYS = 16, QUERIES = 32, ALL = QUERIES + 2 * KEYS };
    static const ct_role roles[] = {CT_ROLE_QUERY_WEIGHT, CT_ROLE_KEY_WEIGHT, CT_ROLE_VALUE_WEIGHT};
    static const int64_t rows[] = {QUERIES, KEYS, KEYS};
    ct_model *model;
    CT_TRY(tiny_model_begin(&model, tiny_decoder_spec()));
    ct_status status = CT_OK;
    ct_tensor *all = NULL, *keys = NULL, *halved = NULL;
    for (int64_t layer = 0; layer < TINY_LAYERS && status == CT_OK; layer++) {
        CT_TRY_TO(done, ct_tensor_new(&all, CT_F32, 2, (int64_t[]){ALL, TINY_WIDTH}));
        float *to = ct_tensor_data(all);
        for (int i = 0; i < 3; to += rows[i++] * TINY_WIDTH)
            tiny_values(to, roles[i], layer, rows[i], TINY_WIDTH, i == 1 ? CT_BF16 : CT_F32);
        CT_TRY_TO(done, ct_tensor_slice(&keys, all, 0, QUERIES, KEYS, 1));
        CT_TRY_TO(done, ct_tensor_convert(&halved, keys, CT_BF16));
        CT_TRY_TO(done, ct_weights_set(&model->weights, "key.weight", layer, mixed ? halved : keys,
                                       "key"));
        if (fused) {
            for (int i = 0; i < 3; i++)
                ct_weights_drop(&model->weights, roles[i], layer);
            CT_TRY_TO(done, ct_weights_set(&model->weights, "qkv.weight", layer, all, "qkv"));
        }
    done:
        ct_tensor_unref(&all);
        ct_tensor_unref(&keys);
        ct_tensor_unref(&halved);
    }
    if (status == CT_OK)
        status = ct_model_finish(model);
    if (status == CT_OK)
        status = tiny_run_pieces(out, model, (int32_t[]){3, 1, 4, 1, 5}, 5, NULL, false);
    ct_model_unref(&model);
    return status;
}

static void parts_may_come_mixed_or_fused(void)
{
    int64_t live = live_blocks();
    tiny_result plain, other;
    CHECK_OK(with_parts(&plain, false, false));
    for (int i = 0; i < 2; i++) {
        CHECK_OK(with_parts(&other, i == 0, i == 1));
        CHECK(distance_between(tiny_logits(&other, 0), tiny_logits(&plain, 0), 5 * TINY_PIECES) <=
              TOLERANCE);
        tiny_result_clear(&other);
    }
    tiny_result_clear(&plain);
    CHECK_INT(live_blocks(), live);
}

/* ---- failures ---- */

static void what_a_model_cannot_do_is_refused(void)
{
    ct_model *model;
    tiny_result result;
    ct_tensor *hidden, *logits;
    int32_t piece = 1;
    CHECK_OK(tiny_model_begin(&model, tiny_decoder_spec()));
    ct_batch empty = {0};
    ct_forward_args args = {.batch = &empty};
    CHECK_FAILS(ct_model_forward(model, &args, &hidden, &logits), CT_VALUE,
                "the model has no weights yet");
    CHECK_OK(ct_model_finish(model));
    CHECK_FAILS(ct_model_finish(model), CT_VALUE, "complete already");
    ct_model_unref(&model);

    CHECK_OK(tiny_model_new(&model, tiny_encoder_spec()));
    CHECK_OK(tiny_run_pieces(&result, model, &piece, 1, NULL, false));
    args = (ct_forward_args){.batch = &result.batch, .logits = CT_LOGITS_ALL};
    CHECK_FAILS(ct_model_forward(model, &args, &hidden, &logits), CT_VALUE,
                "this model has no output head");
    ct_kv_sequence *none[1] = {NULL};
    args = (ct_forward_args){.batch = &result.batch, .sequences = none};
    CHECK_FAILS(ct_model_forward(model, &args, &hidden, &logits), CT_VALUE,
                "an encoder has no cache");
    tiny_result_clear(&result);
    ct_model_unref(&model);

    ct_spec odd = tiny_decoder_spec();
    odd.rotary_width = 3;
    CHECK_FAILS(ct_model_new(&model, &odd, (ct_device_id){CT_DEVICE_CPU, 0}), CT_VALUE, "even");
    odd.rotary_width = 2;
    CHECK_FAILS(ct_model_new(&model, &odd, (ct_device_id){CT_DEVICE_CUDA, 0}), CT_UNSUPPORTED,
                "\"cuda\" is not available");
    CHECK(!model);
}

static void a_tied_head_needs_the_hidden_width(void)
{
    ct_model *model;
    ct_spec spec = tiny_parallel_spec();
    spec.embedding_width = 16;
    spec.embedding_projection = 1;
    CHECK_FAILS(tiny_model_new(&model, spec), CT_VALUE,
                "replacement for `piece embeddings` to be [61, 32], but got [61, 16]");
    CHECK(!model);
}

/* Stops before the n-th question. */
static ct_status stop_at_zero(void *context)
{
    int *left = context;
    return (*left)-- == 0 ? ct_fail(CT_INTERRUPTED, "enough") : CT_OK;
}

static void a_stopped_call_leaves_its_sequences_as_they_were(void)
{
    static const int32_t ids[] = {7, 11, 13, 17, 19};
    int64_t live = live_blocks();
    ct_model *model;
    tiny_result first, expected, cached, after = {0};
    CHECK_OK(tiny_model_new(&model, tiny_decoder_spec()));
    CHECK_OK(tiny_run_pieces(&first, model, ids, 3, NULL, true));
    CHECK_OK(tiny_run_pieces(&expected, model, ids + 3, 2, first.cache, false));
    CHECK_OK(tiny_run_pieces(&cached, model, ids + 3, 2, first.cache, false)); /* for its batch */
    for (int n = 0; n <= TINY_LAYERS; n++) {
        ct_kv_sequence own, *pointer = &own;
        int left = n;
        CHECK_OK(ct_kv_sequence_share(&own, &first.cache->sequences[0]));
        ct_forward_args args = {.batch = &cached.batch,
                                .sequences = &pointer,
                                .keep = CT_KEEP_ALL,
                                .logits = CT_LOGITS_ALL,
                                .poll = {stop_at_zero, &left}};
        ct_status status = ct_model_forward(model, &args, &after.hidden, &after.logits);
        CHECK_INT(status, n < TINY_LAYERS ? CT_INTERRUPTED : CT_OK);
        CHECK_INT(own.length, n < TINY_LAYERS ? 3 : 5);
        if (n < TINY_LAYERS) {
            CHECK(!after.hidden && !after.logits);
            CHECK_TEXT(ct_message(), "enough");
            args.poll.check = NULL;
            CHECK_OK(ct_model_forward(model, &args, &after.hidden, &after.logits));
        }
        CHECK_INT(own.length, 5);
        CHECK(distance_between(tiny_logits(&after, 0), tiny_logits(&expected, 0),
                               2 * TINY_PIECES) <= TOLERANCE);
        ct_tensor_unref(&after.hidden);
        ct_tensor_unref(&after.logits);
        ct_kv_sequence_clear(&own);
    }
    tiny_result_clear(&first);
    tiny_result_clear(&expected);
    tiny_result_clear(&cached);
    ct_model_unref(&model);
    CHECK_INT(live_blocks(), live);
}

/* Some weights are with their linears by then, and an absent head would pass for a tied one. */
static void a_model_whose_preparation_failed_is_not_finished_again(void)
{
    int64_t live = live_blocks();
    for (int64_t n = 0;; n++) {
        ct_model *model;
        CHECK_OK(tiny_model_begin(&model, tiny_decoder_spec()));
        ct_memory_fail_after(n);
        ct_status status = ct_model_finish(model);
        ct_memory_fail_after(-1);
        if (status == CT_OK) {
            ct_model_unref(&model);
            break;
        }
        CHECK_INT(status, CT_MEMORY);
        CHECK_FAILS(ct_model_finish(model), CT_VALUE,
                    "preparing the model's weights has failed; make a new model");
        CHECK(!model->ready);
        ct_model_unref(&model);
        CHECK_INT(live_blocks(), live);
    }
}

/* ---- several callers ---- */

typedef struct caller {
    ct_model *model;
    const tiny_result *expected;
    uint64_t seed;
    ct_status status;
    double distance;
} caller;

static void *call_often(void *argument)
{
    caller *c = argument;
    int32_t ids[20];
    c->status = CT_OK;
    c->distance = 0;
    tiny_pieces(ids, 20, c->seed);
    for (int i = 0; i < 10 && c->status == CT_OK; i++) {
        tiny_result result;
        c->status = tiny_run_pieces(&result, c->model, ids, 20, NULL, true);
        if (c->status != CT_OK)
            break;
        c->distance =
            fmax(c->distance, distance_between(tiny_logits(&result, 0), tiny_logits(c->expected, 0),
                                               20 * TINY_PIECES));
        tiny_result_clear(&result);
    }
    return NULL;
}

static void several_callers_share_a_model(void)
{
    int64_t live = live_blocks();
    ct_model *model;
    pthread_t threads[3];
    caller callers[3];
    tiny_result expected[3];
    CHECK_OK(tiny_model_new(&model, tiny_decoder_spec()));
    for (int i = 0; i < 3; i++) {
        int32_t ids[20];
        tiny_pieces(ids, 20, 30 + (uint64_t)i);
        CHECK_OK(tiny_run_pieces(&expected[i], model, ids, 20, NULL, true));
        callers[i] = (caller){.model = model, .expected = &expected[i], .seed = 30 + (uint64_t)i};
    }
    for (int i = 0; i < 3; i++)
        CHECK_INT(pthread_create(&threads[i], NULL, call_often, &callers[i]), 0);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < 3; i++) {
        CHECK_INT(callers[i].status, CT_OK);
        CHECK(callers[i].distance <= TOLERANCE);
        tiny_result_clear(&expected[i]);
    }
    ct_model_unref(&model);
    CHECK_INT(live_blocks(), live);
}

/* ---- failing allocations ---- */

ct_status fault_model(void)
{
    ct_model *model;
    ct_spec spec = tiny_encoder_spec();
    spec.n_layers = 1;
    spec.embedding_width = 16;
    spec.embedding_projection = spec.alibi = spec.head = 1;
    spec.rotary_width = spec.window = 4;
    spec.local_layers = spec.rotary_local = 1;
    spec.relative_buckets = 8;
    CT_TRY(tiny_model_new(&model, spec));
    tiny_result result;
    ct_status status = tiny_run_pieces(&result, model, (int32_t[]){2, 7, 1}, 3, NULL, false);
    if (status == CT_OK)
        tiny_result_clear(&result);
    ct_model_unref(&model);
    return status;
}

/* Twice behind one snapshot, so that a page is copied, and from one page to the next. After each
 * failure the same call has to succeed. */
ct_status fault_forward(void)
{
    int32_t ids[70];
    ct_model *model;
    ct_spec spec = tiny_decoder_spec();
    tiny_result first = {0}, next[2];
    spec.n_layers = 1;
    memset(next, 0, sizeof next);
    tiny_pieces(ids, 70, 9);
    CT_TRY(tiny_model_new(&model, spec));
    ct_status failed = CT_OK, status = tiny_run_pieces(&first, model, ids, 60, NULL, true);
    if (status != CT_OK) {
        failed = status;
        status = tiny_run_pieces(&first, model, ids, 60, NULL, true);
    }
    for (int i = 0; i < 2 && status == CT_OK; i++) {
        status = tiny_run_pieces(&next[i], model, ids + 60, 10, first.cache, true);
        if (status == CT_OK)
            continue;
        failed = status;
        status = tiny_run_pieces(&next[i], model, ids + 60, 10, first.cache, true);
    }
    tiny_result_clear(&first);
    tiny_result_clear(&next[0]);
    tiny_result_clear(&next[1]);
    ct_model_unref(&model);
    return status == CT_OK ? failed : ct_fail(CT_INTERNAL, "a call fails after one that failed");
}

const ct_test suite_model_calls[] = {
    TEST(a_call_gives_what_it_is_asked_for),
    TEST(batches_without_pieces_are_empty),
    TEST(a_sequence_does_not_depend_on_its_company),
    TEST(pieces_that_only_the_device_knows_do_not_count_yet),
    TEST(a_warm_call_allocates_only_its_results),
    TEST(parts_may_come_mixed_or_fused),
    TEST(what_a_model_cannot_do_is_refused),
    TEST(a_tied_head_needs_the_hidden_width),
    TEST(a_stopped_call_leaves_its_sequences_as_they_were),
    TEST(a_model_whose_preparation_failed_is_not_finished_again),
    TEST(several_callers_share_a_model),
    TESTS_END,
};
