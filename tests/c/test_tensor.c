/* Views and their bounds, conversions. */
#include "test.h"

#include <stdlib.h>

#include "core/memory.h"
#include "quant/format.h"
#include "tensor/tensor.h"

#define SHAPE(...) ((const int64_t[]){__VA_ARGS__})

/* ---- views ---- */

static ct_storage *storage_of(size_t size)
{
    ct_storage *storage = NULL;
    return ct_storage_new(&storage, size) == CT_OK ? storage : NULL;
}

static void new_tensors_are_contiguous(void)
{
    ct_tensor *tensor;
    CHECK_OK(ct_tensor_new(&tensor, CT_F32, 3, SHAPE(2, 3, 4)));
    CHECK_INT(ct_tensor_size(tensor), 24);
    CHECK_INT(tensor->storage->size, 96);
    CHECK(ct_tensor_is_contiguous(tensor));
    CHECK(tensor->strides[0] == 12 && tensor->strides[1] == 4 && tensor->strides[2] == 1);
    ct_tensor *same = ct_tensor_ref(tensor);
    ct_tensor_unref(&tensor);
    CHECK(!tensor && ct_tensor_data(same));
    ct_tensor_unref(&same);
    ct_tensor_unref(&same);
    CHECK_OK(ct_tensor_new(&tensor, CT_I64, 0, NULL));
    CHECK_INT(ct_tensor_size(tensor), 1);
    ct_tensor_unref(&tensor);
    CHECK_OK(ct_tensor_new(&tensor, CT_I64, 2, SHAPE(0, INT64_MAX / 64)));
    CHECK_INT(ct_tensor_size(tensor), 0);
    ct_tensor_unref(&tensor);
}

static void impossible_shapes_are_refused(void)
{
    ct_tensor *tensor;
    CHECK_FAILS(ct_tensor_new(&tensor, CT_F32, 2, SHAPE(3, -1)), CT_VALUE,
                "dimension 1 has the negative length -1");
    CHECK_FAILS(ct_tensor_new(&tensor, CT_F32, 2, SHAPE(INT64_MAX, 2)), CT_VALUE, "too many");
    CHECK_FAILS(ct_tensor_new(&tensor, CT_I8, 1, SHAPE(INT64_MAX)), CT_VALUE, "too many");
    CHECK_FAILS(ct_tensor_new(&tensor, CT_F32, 9, SHAPE(1, 1, 1, 1, 1, 1, 1, 1, 1)), CT_VALUE,
                "at most 8 dimensions, not 9");
    CHECK_FAILS(ct_tensor_new(&tensor, CT_F32, -1, NULL), CT_VALUE, "not -1");
    CHECK_FAILS(ct_tensor_new(&tensor, CT_Q4_0, 2, SHAPE(32, 16)), CT_VALUE,
                "multiples of 32 values");
    CHECK_FAILS(ct_tensor_new(&tensor, CT_Q8_0, 0, NULL), CT_VALUE, "block of 32");
    CHECK(!tensor);
}

static void views_stay_inside_their_storage(void)
{
    static const struct {
        size_t offset;
        int64_t shape[2], strides[2];
        bool fits;
    } cases[] = {
        {0, {4, 6}, {6, 1}, true},
        {4, {4, 6}, {6, 1}, false},
        {0, {4, 7}, {6, 1}, false},
        {92, {4, 6}, {-6, -1}, true},
        {88, {4, 6}, {-6, -1}, false},
        {72, {4, 6}, {-6, 1}, true},
        {0, {1 << 30, 1}, {0, INT64_MAX}, true}, /* a stride that is never taken */
        {96, {0, 6}, {6, 1}, true},
        {97, {0, 6}, {6, 1}, false},
        {SIZE_MAX, {0, 6}, {6, 1}, false},
        {SIZE_MAX - 3, {1, 1}, {1, 1}, false},
        {0, {2, 2}, {INT64_MAX, INT64_MAX}, false},
        {0, {2, 2}, {INT64_MAX, INT64_MIN}, false},
        {0, {2, 1}, {INT64_MAX, 1}, false},
        {0, {2, 1}, {INT64_MIN, 1}, false},
        {0, {5, 1}, {INT64_MAX / 4 + 1, 1}, false},
    };
    ct_storage *storage = storage_of(96);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ct_tensor *tensor;
        ct_status status = ct_tensor_view(&tensor, storage, cases[i].offset, CT_F32, 2,
                                          cases[i].shape, cases[i].strides);
        if ((status == CT_OK) != cases[i].fits)
            FAIL("case %zu gave %d", i, (int)status);
        CHECK(cases[i].fits == (tensor != NULL));
        ct_tensor_unref(&tensor);
    }
    ct_tensor *bytes; /* one byte each: the last place is the largest number there is */
    CHECK_FAILS(ct_tensor_view(&bytes, storage, 0, CT_U8, 1, SHAPE(2), SHAPE(INT64_MAX)), CT_VALUE,
                "outside its storage");
    ct_storage_unref(&storage);
}

static void tensors_at_odd_offsets_are_copies(void)
{
    ct_storage *storage = storage_of(9);
    ct_tensor *tensor;
    CHECK(storage);
    memcpy(storage->data, "\1\2\0\3\0\4\0\5\0", 9);
    CHECK_OK(ct_tensor_from_bytes(&tensor, storage, 1, CT_F16, 1, SHAPE(4)));
    CHECK(tensor->storage != storage);
    CHECK(memcmp(ct_tensor_data(tensor), "\2\0\3\0\4\0\5\0", 8) == 0);
    ct_tensor_unref(&tensor);
    CHECK_OK(ct_tensor_from_bytes(&tensor, storage, 1, CT_U8, 2, SHAPE(2, 4)));
    CHECK(tensor->storage == storage);
    ct_tensor_unref(&tensor);
    /* Bounds come before the memory for a copy. */
    CHECK_FAILS(ct_tensor_from_bytes(&tensor, storage, 1, CT_F16, 1, SHAPE(5)), CT_VALUE,
                "does not fit");
    CHECK_FAILS(ct_tensor_from_bytes(&tensor, storage, 1, CT_F16, 1, SHAPE(INT64_MAX / 32)),
                CT_VALUE, "does not fit");
    CHECK_FAILS(ct_tensor_from_bytes(&tensor, storage, SIZE_MAX, CT_F16, 1, SHAPE(1)), CT_VALUE,
                "outside");
    CHECK(!tensor);
    ct_storage_unref(&storage);
}

static void contiguity_ignores_strides_that_are_not_taken(void)
{
    static const struct {
        int64_t shape[2], strides[2];
        bool contiguous;
    } cases[] = {
        {{2, 3}, {3, 1}, true},  {{2, 3}, {4, 1}, false},  {{2, 3}, {3, 2}, false},
        {{1, 3}, {77, 1}, true}, {{3, 1}, {1, 77}, true},  {{0, 3}, {5, 5}, true},
        {{2, 3}, {0, 1}, false}, {{2, 3}, {-3, 1}, false},
    };
    ct_storage *storage = storage_of(4000);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ct_tensor *tensor;
        CHECK_OK(
            ct_tensor_view(&tensor, storage, 2000, CT_F32, 2, cases[i].shape, cases[i].strides));
        CHECK(ct_tensor_is_contiguous(tensor) == cases[i].contiguous);
        ct_tensor_unref(&tensor);
    }
    ct_storage_unref(&storage);
}

/* i32 with 0, 1, 2, ... */
static ct_tensor *counting(int n_dims, const int64_t *shape)
{
    ct_tensor *tensor = NULL;
    if (ct_tensor_new(&tensor, CT_I32, n_dims, shape) != CT_OK)
        return NULL;
    int32_t *data = ct_tensor_data(tensor);
    for (int64_t i = 0; i < ct_tensor_size(tensor); i++)
        data[i] = (int32_t)i;
    return tensor;
}

/* The elements in order, whatever the strides; drops the tensor. */
static void check_elements(ct_tensor *tensor, int64_t n, const int32_t *expected)
{
    ct_tensor *dense;
    CHECK_OK(ct_tensor_contiguous(&dense, tensor));
    CHECK_INT(ct_tensor_size(dense), n);
    const int32_t *data = ct_tensor_data(dense);
    for (int64_t i = 0; i < n; i++)
        CHECK_INT(data[i], expected[i]);
    ct_tensor_unref(&dense);
    ct_tensor_unref(&tensor);
}
#define CHECK_ELEMENTS(tensor, ...)                                                                \
    check_elements(tensor, sizeof((int32_t[]){__VA_ARGS__}) / 4, (const int32_t[]){__VA_ARGS__})

static void select_drops_a_dimension(void)
{
    ct_tensor *tensor = counting(2, SHAPE(3, 4)), *view;
    CHECK_OK(ct_tensor_select(&view, tensor, 0, 1));
    CHECK_INT(view->n_dims, 1);
    CHECK_ELEMENTS(view, 4, 5, 6, 7);
    CHECK_OK(ct_tensor_select(&view, tensor, 1, -1));
    CHECK_ELEMENTS(view, 3, 7, 11);
    CHECK_FAILS(ct_tensor_select(&view, tensor, 1, 4), CT_INDEX,
                "index 4 is out of bounds for dimension 1 of length 4");
    CHECK_FAILS(ct_tensor_select(&view, tensor, 0, -4), CT_INDEX, "index -4");
    CHECK_FAILS(ct_tensor_select(&view, tensor, 0, INT64_MIN), CT_INDEX, "out of bounds");
    CHECK_FAILS(ct_tensor_select(&view, tensor, 2, 0), CT_INDEX, "no dimension 2");
    CHECK(!view);
    ct_tensor_unref(&tensor);
}

static void slices_step_both_ways(void)
{
    ct_tensor *tensor = counting(2, SHAPE(3, 4)), *view;
    CHECK_OK(ct_tensor_slice(&view, tensor, 1, 3, 2, -2));
    CHECK_ELEMENTS(view, 3, 1, 7, 5, 11, 9);
    CHECK_OK(ct_tensor_slice(&view, tensor, 0, 2, 3, -1));
    CHECK_ELEMENTS(view, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);
    CHECK_OK(ct_tensor_slice(&view, tensor, 0, 1, 1, INT64_MAX));
    CHECK_ELEMENTS(view, 4, 5, 6, 7);
    CHECK_OK(ct_tensor_slice(&view, tensor, 0, 3, 0, 1));
    CHECK_INT(ct_tensor_size(view), 0);
    ct_tensor_unref(&view);
    CHECK_FAILS(ct_tensor_slice(&view, tensor, 0, 1, 3, 1), CT_INDEX, "leaves dimension 0 of 3");
    CHECK_FAILS(ct_tensor_slice(&view, tensor, 0, 1, 3, -1), CT_INDEX, "leaves");
    CHECK_FAILS(ct_tensor_slice(&view, tensor, 0, -1, 1, 1), CT_INDEX, "leaves");
    CHECK_FAILS(ct_tensor_slice(&view, tensor, 0, 0, -1, 1), CT_INDEX, "leaves");
    CHECK_FAILS(ct_tensor_slice(&view, tensor, 0, 0, 3, INT64_MAX), CT_INDEX, "leaves");
    CHECK_FAILS(ct_tensor_slice(&view, tensor, 0, 1, INT64_MAX, INT64_MIN), CT_INDEX, "leaves");
    CHECK_FAILS(ct_tensor_slice(&view, tensor, -1, 0, 1, 1), CT_INDEX, "no dimension -1");
    CHECK(!view);
    ct_tensor_unref(&tensor);
}

static void parts_of_empty_tensors_are_empty(void)
{
    ct_tensor *tensor, *view;
    CHECK_OK(ct_tensor_new(&tensor, CT_F32, 2, SHAPE(3, 0)));
    CHECK_OK(ct_tensor_select(&view, tensor, 0, 2));
    CHECK_INT(ct_tensor_size(view), 0);
    ct_tensor_unref(&view);
    CHECK_OK(ct_tensor_slice(&view, tensor, 0, 1, 2, 1));
    CHECK_INT(ct_tensor_size(view), 0);
    ct_tensor_unref(&view);
    CHECK_OK(ct_tensor_view(&view, tensor->storage, 0, CT_F32, 2, SHAPE(3, 0),
                            SHAPE(INT64_MAX, INT64_MIN)));
    ct_tensor *reversed;
    CHECK_OK(ct_tensor_slice(&reversed, view, 0, 2, 3, -1));
    ct_tensor_unref(&reversed);
    ct_tensor_unref(&view);
    ct_tensor_unref(&tensor);
}

static void reshape_finds_the_open_length(void)
{
    ct_tensor *tensor = counting(2, SHAPE(3, 4)), *view;
    CHECK_OK(ct_tensor_reshape(&view, tensor, 3, SHAPE(2, -1, 3)));
    CHECK_INT(view->shape[1], 2);
    CHECK(view->storage == tensor->storage);
    ct_tensor_unref(&view);
    CHECK_FAILS(ct_tensor_reshape(&view, tensor, 2, SHAPE(5, -1)), CT_VALUE, "12 elements");
    CHECK_FAILS(ct_tensor_reshape(&view, tensor, 2, SHAPE(-1, -1)), CT_VALUE, "-1");
    CHECK_FAILS(ct_tensor_reshape(&view, tensor, 1, SHAPE(11)), CT_VALUE, "11");
    CHECK_FAILS(ct_tensor_reshape(&view, tensor, 2, SHAPE(0, -1)), CT_VALUE, "12 elements");
    CHECK_FAILS(ct_tensor_reshape(&view, tensor, 1, SHAPE(-12)), CT_VALUE, "-12");
    CHECK_FAILS(ct_tensor_reshape(&view, tensor, 2, SHAPE(INT64_MAX, 4)), CT_VALUE, "reshape");
    ct_tensor_unref(&tensor);
    tensor = counting(2, SHAPE(0, 4));
    CHECK_OK(ct_tensor_reshape(&view, tensor, 2, SHAPE(7, 0)));
    ct_tensor_unref(&view);
    ct_tensor_unref(&tensor);
}

static void reshape_is_a_view_where_the_strides_allow_it(void)
{
    ct_tensor *tensor = counting(3, SHAPE(4, 2, 3)), *rows, *view;
    CHECK_OK(ct_tensor_slice(&rows, tensor, 0, 3, 2, -2)); /* blocks 3 and 1 */
    CHECK_OK(ct_tensor_reshape(&view, rows, 2, SHAPE(2, 6)));
    CHECK(view->strides[0] == -12 && view->strides[1] == 1);
    CHECK_ELEMENTS(view, 18, 19, 20, 21, 22, 23, 6, 7, 8, 9, 10, 11);
    CHECK_OK(ct_tensor_reshape(&view, rows, 5, SHAPE(1, 2, 3, 1, 2)));
    CHECK_ELEMENTS(view, 18, 19, 20, 21, 22, 23, 6, 7, 8, 9, 10, 11);
    CHECK_FAILS(ct_tensor_reshape(&view, rows, 1, SHAPE(12)), CT_VALUE, "contiguous()");
    CHECK_FAILS(ct_tensor_reshape(&view, rows, 2, SHAPE(3, 4)), CT_VALUE, "contiguous()");
    ct_tensor_unref(&rows);
    CHECK_OK(ct_tensor_slice(&rows, tensor, 2, 0, 2, 1)); /* gaps in each row of 3 */
    CHECK_OK(ct_tensor_reshape(&view, rows, 3, SHAPE(8, 1, 2)));
    CHECK_ELEMENTS(view, 0, 1, 3, 4, 6, 7, 9, 10, 12, 13, 15, 16, 18, 19, 21, 22);
    CHECK_FAILS(ct_tensor_reshape(&view, rows, 2, SHAPE(4, 4)), CT_VALUE, "contiguous()");
    ct_tensor_unref(&rows);
    ct_tensor_unref(&tensor);
}

/* What has no extent has no distance either. */
static void reshape_passes_over_lengths_of_one(void)
{
    ct_tensor *tensor = counting(2, SHAPE(4, 6)), *rows, *wide, *view;
    CHECK_OK(ct_tensor_slice(&rows, tensor, 0, 1, 1, 1));
    CHECK_OK(ct_tensor_view(&wide, rows->storage, rows->offset, CT_I32, 4, SHAPE(1, 3, 1, 2),
                            SHAPE(77, 2, -5, 1)));
    CHECK_OK(ct_tensor_reshape(&view, wide, 2, SHAPE(2, 3)));
    CHECK_ELEMENTS(view, 6, 7, 8, 9, 10, 11);
    CHECK_OK(ct_tensor_reshape(&view, wide, 1, SHAPE(-1)));
    CHECK_ELEMENTS(view, 6, 7, 8, 9, 10, 11);
    CHECK_FAILS(ct_tensor_reshape(&view, wide, CT_MAX_DIMS + 1, wide->shape), CT_VALUE,
                "at most 8 dimensions, not 9");
    CHECK_FAILS(ct_tensor_reshape(&view, wide, -1, wide->shape), CT_VALUE, "not -1");
    ct_tensor_unref(&wide);
    ct_tensor_unref(&rows);
    ct_tensor_unref(&tensor);
}

static void contiguous_copies_only_what_is_not(void)
{
    ct_tensor *tensor = counting(1, SHAPE(3)), *same, *scalar;
    CHECK_OK(ct_tensor_contiguous(&same, tensor));
    CHECK(same == tensor);
    ct_tensor_unref(&same);
    CHECK_OK(ct_tensor_view(&same, tensor->storage, 4, CT_I32, 2, SHAPE(2, 2), SHAPE(0, 1)));
    CHECK_ELEMENTS(same, 1, 2, 1, 2);
    CHECK_OK(ct_tensor_select(&scalar, tensor, 0, 2));
    CHECK_ELEMENTS(scalar, 2);
    ct_tensor_unref(&tensor);
}

/* ---- quantized views ---- */

static void quantized_views_are_whole_rows(void)
{
    ct_tensor *tensor, *view;
    CHECK_OK(ct_tensor_new(&tensor, CT_Q4_1, 3, SHAPE(2, 3, 64)));
    CHECK_INT(tensor->storage->size, 2 * 3 * 2 * 20);
    CHECK_OK(ct_tensor_select(&view, tensor, 0, 1));
    CHECK_INT(view->offset, 3 * 2 * 20);
    ct_tensor_unref(&view);
    CHECK_OK(ct_tensor_slice(&view, tensor, 0, 1, 1, 1));
    CHECK_INT(view->offset, 3 * 2 * 20);
    ct_tensor_unref(&view);
    CHECK_OK(ct_tensor_reshape(&view, tensor, 2, SHAPE(6, 64)));
    ct_tensor_unref(&view);
    CHECK_FAILS(ct_tensor_select(&view, tensor, 2, 0), CT_VALUE, "inside its rows");
    CHECK_FAILS(ct_tensor_slice(&view, tensor, 2, 0, 32, 1), CT_VALUE, "inside its rows");
    CHECK_FAILS(ct_tensor_slice(&view, tensor, 2, 63, 64, -1), CT_VALUE, "contiguous");
    CHECK_FAILS(ct_tensor_slice(&view, tensor, 0, 1, 2, -1), CT_VALUE, "contiguous");
    CHECK_FAILS(ct_tensor_select(&view, tensor, 1, 0), CT_VALUE, "contiguous");
    CHECK_FAILS(ct_tensor_reshape(&view, tensor, 2, SHAPE(24, 16)), CT_VALUE, "multiples of 32");
    CHECK_FAILS(ct_tensor_view(&view, tensor->storage, 1, CT_Q4_1, 3, tensor->shape, NULL),
                CT_VALUE, "does not fit");
    CHECK(!view);
    ct_tensor_unref(&tensor);
}

/* ---- conversions ---- */

static void floats_convert_to_floats(void)
{
    static const ct_dtype floats[] = {CT_F32, CT_F16, CT_BF16};
    static const float values[] = {0, -1.5f, 1024, 0x1p-14f, INFINITY}; /* exact in each of them */
    ct_tensor *start, *from, *to, *back;
    CHECK_OK(ct_tensor_new(&start, CT_F32, 1, SHAPE(5)));
    memcpy(ct_tensor_data(start), values, sizeof values);
    for (int i = 0; i < 9; i++) {
        CHECK_OK(ct_tensor_convert(&from, start, floats[i / 3]));
        CHECK_OK(ct_tensor_convert(&to, from, floats[i % 3]));
        CHECK(to->dtype == floats[i % 3] && to->storage != from->storage);
        CHECK_OK(ct_tensor_convert(&back, to, CT_F32));
        CHECK(memcmp(ct_tensor_data(back), values, sizeof values) == 0);
        ct_tensor_unref(&from);
        ct_tensor_unref(&to);
        ct_tensor_unref(&back);
    }
    ct_tensor_unref(&start);
}

static void integers_convert_to_integers(void)
{
    static const ct_dtype integers[] = {CT_I64, CT_I32, CT_I8, CT_U8, CT_BOOL};
    ct_tensor *start = counting(1, SHAPE(3)), *from, *to, *back;
    for (int i = 0; i < 25; i++) {
        bool as_bool = integers[i / 5] == CT_BOOL || integers[i % 5] == CT_BOOL;
        CHECK_OK(ct_tensor_convert(&from, start, integers[i / 5]));
        CHECK_OK(ct_tensor_convert(&to, from, integers[i % 5]));
        CHECK_OK(ct_tensor_convert(&back, to, CT_I32));
        const int32_t *values = ct_tensor_data(back);
        CHECK(values[0] == 0 && values[1] == 1 && values[2] == (as_bool ? 1 : 2));
        ct_tensor_unref(&from);
        ct_tensor_unref(&to);
        ct_tensor_unref(&back);
    }
    ct_tensor_unref(&start);
}

static void strided_and_unaligned_tensors_convert(void)
{
    ct_tensor *tensor = counting(2, SHAPE(2, 3)), *view, *wide;
    CHECK_OK(ct_tensor_slice(&view, tensor, 1, 2, 2, -2));
    CHECK_OK(ct_tensor_convert(&wide, view, CT_I64));
    const int64_t *values = ct_tensor_data(wide);
    CHECK(values[0] == 2 && values[1] == 0 && values[2] == 5 && values[3] == 3);
    ct_tensor_unref(&wide);
    ct_tensor_unref(&view);
    ct_tensor_unref(&tensor);

    static const float value = 1.5f; /* as it may lie in a file behind a header of odd length */
    ct_storage *storage = storage_of(8);
    memcpy((char *)storage->data + 1, &value, sizeof value);
    CHECK_OK(ct_tensor_view(&view, storage, 1, CT_F32, 1, SHAPE(1), NULL));
    CHECK_OK(ct_tensor_convert(&wide, view, CT_BF16));
    CHECK_NEAR(ct_bf16_to_f32(*(uint16_t *)ct_tensor_data(wide)), 1.5, 0);
    ct_tensor_unref(&wide);
    ct_tensor_unref(&view);
    ct_storage_unref(&storage);
}

static void quantized_tensors_convert_to_floats(void)
{
    float values[64];
    ct_tensor *tensor, *decoded;
    for (int i = 0; i < 64; i++)
        values[i] = (float)(i % 16) - 8;
    CHECK_OK(ct_tensor_new(&tensor, CT_Q4_0, 2, SHAPE(1, 64)));
    ct_format_get(CT_Q4_0)->quantize(ct_tensor_data(tensor), values, 64);
    CHECK_OK(ct_tensor_convert(&decoded, tensor, CT_F32));
    CHECK(memcmp(ct_tensor_data(decoded), values, sizeof values) == 0);
    ct_tensor_unref(&decoded);
    CHECK_OK(ct_tensor_convert(&decoded, tensor, CT_BF16));
    CHECK_NEAR(ct_bf16_to_f32(((uint16_t *)ct_tensor_data(decoded))[63]), 7, 0);
    ct_tensor_unref(&decoded);
    CHECK_FAILS(ct_tensor_convert(&decoded, tensor, CT_I8), CT_TYPE, "cannot convert q4_0 to int8");
    CHECK_FAILS(ct_tensor_convert(&decoded, tensor, CT_Q8_0), CT_TYPE, "q4_0 to q8_0");
    ct_tensor_unref(&tensor);
    CHECK_OK(ct_tensor_new(&tensor, CT_F32, 1, SHAPE(32)));
    CHECK_FAILS(ct_tensor_convert(&decoded, tensor, CT_I32), CT_TYPE, "float32 to int32");
    CHECK_FAILS(ct_tensor_convert(&decoded, tensor, CT_Q4_0), CT_TYPE, "float32 to q4_0");
    CHECK(!decoded);
    ct_tensor_unref(&tensor);
}

/* ---- a scenario for failing allocations ---- */

ct_status fault_tensor(void)
{
    ct_tensor *tensor = NULL, *slice = NULL, *dense = NULL, *floats = NULL;
    ct_status status;
    CT_TRY_TO(done, ct_tensor_new(&tensor, CT_I32, 2, SHAPE(1 << 10, 1 << 9)));
    memset(ct_tensor_data(tensor), 0, tensor->storage->size);
    CT_TRY_TO(done, ct_tensor_slice(&slice, tensor, 1, 0, 256, 2));
    CT_TRY_TO(done, ct_tensor_contiguous(&dense, slice));
    CT_TRY_TO(done, ct_tensor_convert(&floats, slice, CT_I64));
done:
    ct_tensor_unref(&tensor);
    ct_tensor_unref(&slice);
    ct_tensor_unref(&dense);
    ct_tensor_unref(&floats);
    return status;
}

const ct_test suite_tensor[] = {
    TEST(new_tensors_are_contiguous),
    TEST(impossible_shapes_are_refused),
    TEST(views_stay_inside_their_storage),
    TEST(tensors_at_odd_offsets_are_copies),
    TEST(contiguity_ignores_strides_that_are_not_taken),
    TEST(select_drops_a_dimension),
    TEST(slices_step_both_ways),
    TEST(parts_of_empty_tensors_are_empty),
    TEST(reshape_finds_the_open_length),
    TEST(reshape_is_a_view_where_the_strides_allow_it),
    TEST(reshape_passes_over_lengths_of_one),
    TEST(contiguous_copies_only_what_is_not),
    TEST(quantized_views_are_whole_rows),
    TEST(floats_convert_to_floats),
    TEST(integers_convert_to_integers),
    TEST(strided_and_unaligned_tensors_convert),
    TEST(quantized_tensors_convert_to_floats),
    TESTS_END,
};
