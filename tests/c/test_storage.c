/* Element types and the memory behind tensors: heap, mapped files, what others lend. */
#include "test.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/memory.h"
#include "tensor/tensor.h"

/* ---- element types ---- */

static void every_dtype_is_found_by_its_name(void)
{
    ct_dtype found;
    for (int dtype = 0; dtype < CT_DTYPE_COUNT; dtype++) {
        CHECK_OK(ct_dtype_from_name(&found, ct_dtype_name((ct_dtype)dtype)));
        CHECK_INT(found, dtype);
    }
    CHECK_FAILS(ct_dtype_from_name(&found, "float64"), CT_VALUE, "float64");
    CHECK_FAILS(ct_dtype_from_name(&found, "Float32"), CT_VALUE, "float32, float16, bfloat16");
    CHECK_FAILS(ct_dtype_from_name(&found, ""), CT_VALUE, "q4_1");
}

static void row_bytes_count_whole_blocks(void)
{
    size_t bytes;
    CHECK_OK(ct_dtype_row_bytes(&bytes, CT_BF16, 5));
    CHECK_INT(bytes, 10);
    CHECK_OK(ct_dtype_row_bytes(&bytes, CT_Q4_1, 96));
    CHECK_INT(bytes, 60);
    CHECK_FAILS(ct_dtype_row_bytes(&bytes, CT_Q4_0, 33), CT_VALUE, "q4_0's block of 32");
    CHECK_FAILS(ct_dtype_row_bytes(&bytes, CT_F32, -1), CT_VALUE, "-1");
    CHECK_FAILS(ct_dtype_row_bytes(&bytes, CT_I64, INT64_MAX), CT_VALUE, "does not fit");
}

static void every_f16_survives_a_round_trip(void)
{
    for (uint32_t bits = 0; bits < 0x10000; bits++) {
        float value = ct_f16_to_f32((uint16_t)bits);
        if (isnan(value))
            CHECK(isnan(ct_f16_to_f32(ct_f16_from_f32(value))));
        else
            CHECK_INT(ct_f16_from_f32(value), bits);
    }
    CHECK_NEAR(ct_f16_to_f32(0x0001), 0x1p-24, 0);
    CHECK_NEAR(ct_f16_to_f32(0xc000), -2, 0);
    CHECK(isinf(ct_f16_to_f32(0x7c00)));
}

static void f16_rounds_to_the_nearest_even(void)
{
    /* Between each two neighbours: the middle goes to the even one, the floats beside it to theirs.
     */
    for (uint16_t bits = 0; bits < 0x7bff; bits++) {
        float low = ct_f16_to_f32(bits), high = ct_f16_to_f32(bits + 1), middle = (low + high) / 2;
        CHECK_INT(ct_f16_from_f32(middle), bits + (bits & 1));
        CHECK_INT(ct_f16_from_f32(nextafterf(middle, low)), bits);
        CHECK_INT(ct_f16_from_f32(-nextafterf(middle, high)), (bits + 1) | 0x8000);
    }
    CHECK_INT(ct_f16_from_f32(65519.996f), 0x7bff);
    CHECK_INT(ct_f16_from_f32(65520), 0x7c00);
    CHECK_INT(ct_f16_from_f32(-INFINITY), 0xfc00);
    CHECK_INT(ct_f16_from_f32(1e-30f), 0);
}

static void bf16_rounds_to_the_nearest_even(void)
{
    for (uint32_t bits = 0; bits < 0x10000; bits++) {
        float value = ct_bf16_to_f32((uint16_t)bits);
        if (isnan(value))
            CHECK(isnan(ct_bf16_to_f32(ct_bf16_from_f32(value))));
        else
            CHECK_INT(ct_bf16_from_f32(value), bits);
    }
    CHECK_INT(ct_bf16_from_f32(1 + 0x1p-8f), 0x3f80);
    CHECK_INT(ct_bf16_from_f32(1 + 3 * 0x1p-8f), 0x3f82);
    CHECK_INT(ct_bf16_from_f32(1 + 0x1.01p-8f), 0x3f81);
    union {
        uint32_t bits;
        float value;
    } nan = {0x7f800001}; /* its payload lies only in what is cut off */
    CHECK(isnan(ct_bf16_to_f32(ct_bf16_from_f32(nan.value))));
}

/* ---- storages ---- */

static void count_release(void *data, size_t size, void *context)
{
    (void)data, (void)size;
    ++*(int *)context;
}

static void imported_memory_is_released_once(void)
{
    int released = 0;
    char memory[8];
    ct_device_id cpu = {CT_DEVICE_CPU, 0};
    ct_storage *storage, *second;
    CHECK_OK(
        ct_storage_import(&storage, memory, sizeof memory, true, cpu, count_release, &released));
    CHECK(storage->data == memory && storage->size == sizeof memory && storage->read_only);
    second = ct_storage_ref(storage);
    ct_storage_unref(&storage);
    CHECK(!storage);
    CHECK_INT(released, 0);
    ct_storage_unref(&second);
    ct_storage_unref(&second);
    CHECK_INT(released, 1);
    ct_memory_fail_after(0);
    CHECK_FAILS(ct_storage_import(&storage, memory, 8, true, cpu, count_release, &released),
                CT_MEMORY, "out of memory");
    CHECK(!storage);
    CHECK_INT(released, 1);
}

static void large_blocks_are_reused(void)
{
    enum { MIB = 1 << 20 };
    ct_storage *storage;
    ct_storage_trim();
    int64_t live = ct_memory_live_blocks();
    CHECK_OK(ct_storage_new(&storage, 6 * MIB + 5));
    memset(storage->data, 1, storage->size);
    void *block = storage->data;
    ct_storage_unref(&storage);

    CHECK_OK(ct_storage_new(&storage, 4 * MIB)); /* smaller, and more than half of the block */
    CHECK(storage->data == block);
    CHECK_INT(storage->size, 4 * MIB);
    ct_storage_unref(&storage);

    CHECK_OK(ct_storage_new(&storage, 6 * MIB + 5)); /* the block has not shrunk */
    CHECK(storage->data == block);
    memset(storage->data, 1, storage->size);
    ct_storage_unref(&storage);

    CHECK_OK(ct_storage_new(&storage, 2 * MIB)); /* would waste more than half */
    CHECK(storage->data != block);
    ct_storage_unref(&storage);
    CHECK_OK(ct_storage_new(&storage, 100)); /* small ones are left to the C library */
    ct_storage_unref(&storage);
    CHECK_INT(ct_memory_live_blocks(), live + 2);
    ct_storage_trim();
    CHECK_INT(ct_memory_live_blocks(), live);
}

static void what_is_kept_for_reuse_is_bounded(void)
{
    enum { N = 40 };
    ct_storage *storages[N];
    ct_storage_trim();
    int64_t live = ct_memory_live_blocks();
    for (int i = 0; i < N; i++)
        CHECK_OK(ct_storage_new(&storages[i], (size_t)30 << 20));
    for (int i = 0; i < N; i++)
        ct_storage_unref(&storages[i]);
    CHECK(ct_memory_live_blocks() - live <= 256 / 30);
    ct_storage_trim();
    CHECK_INT(ct_memory_live_blocks(), live);
    CHECK_FAILS(ct_storage_new(&storages[0], SIZE_MAX), CT_MEMORY, "out of memory");
    CHECK(!storages[0]);
}

static const char *temporary_file(const char *text)
{
    static char path[64];
    strcpy(path, "/tmp/ct_test_XXXXXX");
    int file = mkstemp(path);
    bool written = file >= 0 && write(file, text, strlen(text)) == (ssize_t)strlen(text);
    if (file >= 0)
        close(file);
    return written ? path : "";
}

static void a_file_is_mapped(void)
{
    ct_storage *storage;
    const char *path = temporary_file("weights");
    CHECK_OK(ct_storage_map_file(&storage, path));
    unlink(path);
    CHECK_INT(storage->size, 7);
    CHECK(storage->read_only && memcmp(storage->data, "weights", 7) == 0);
    ct_storage_unref(&storage);
}

static void what_cannot_be_mapped_is_refused(void)
{
    ct_storage *storage;
    CHECK_FAILS(ct_storage_map_file(&storage, "/nowhere/x"), CT_NOT_FOUND,
                "`/nowhere/x`: No such file or directory");
    CHECK_FAILS(ct_storage_map_file(&storage, "/dev/null/x"), CT_IO, "Not a directory");
    CHECK_FAILS(ct_storage_map_file(&storage, "/tmp"), CT_VALUE, "`/tmp` is not a regular file");
    CHECK_FAILS(ct_storage_map_file(&storage, "/dev/null"), CT_VALUE, "not a regular file");
    const char *path = temporary_file("");
    CHECK_FAILS(ct_storage_map_file(&storage, path), CT_VALUE, "is empty");
    unlink(path);
    CHECK_INT(mkfifo(path, 0600), 0);
    alarm(20); /* opening a pipe must not wait for its writer */
    CHECK_FAILS(ct_storage_map_file(&storage, path), CT_VALUE, "not a regular file");
    alarm(0);
    unlink(path);
    CHECK(!storage);
}

ct_status fault_map_file(void)
{
    ct_storage *storage = NULL;
    const char *path = temporary_file("weights");
    ct_status status = ct_storage_map_file(&storage, path);
    ct_storage_unref(&storage);
    unlink(path);
    return status;
}

const ct_test suite_storage[] = {
    TEST(every_dtype_is_found_by_its_name),
    TEST(row_bytes_count_whole_blocks),
    TEST(every_f16_survives_a_round_trip),
    TEST(f16_rounds_to_the_nearest_even),
    TEST(bf16_rounds_to_the_nearest_even),
    TEST(imported_memory_is_released_once),
    TEST(large_blocks_are_reused),
    TEST(what_is_kept_for_reuse_is_bounded),
    TEST(a_file_is_mapped),
    TEST(what_cannot_be_mapped_is_refused),
    TESTS_END,
};
