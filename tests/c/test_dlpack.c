/* Tensors that leave and come back as DLPack, and what foreign ones are refused for. */
#include "test.h"

#include "core/memory.h"
#include "tensor/dlpack.h"

#define CPU ((ct_device_id){CT_DEVICE_CPU, 0})
#define SHAPE(...) ((const int64_t[]){__VA_ARGS__})

static void an_export_holds_the_tensor(void)
{
    int64_t live = ct_memory_live_blocks();
    ct_tensor *tensor, *view;
    CHECK_OK(ct_tensor_new(&tensor, CT_BF16, 2, SHAPE(3, 4)));
    CHECK_OK(ct_tensor_slice(&view, tensor, 1, 3, 2, -2));
    ct_tensor_unref(&tensor);
    DLManagedTensor *managed;
    CHECK_OK(ct_dlpack_export(&managed, view));
    void *data = ct_tensor_data(view);
    ct_tensor_unref(&view);
    const DLTensor *out = &managed->dl_tensor;
    CHECK((char *)out->data + out->byte_offset == data);
    CHECK(out->device.device_type == kDLCPU && out->device.device_id == 0);
    CHECK(out->dtype.code == kDLBfloat && out->dtype.bits == 16 && out->dtype.lanes == 1);
    CHECK(out->ndim == 2 && out->shape[0] == 3 && out->shape[1] == 2);
    CHECK(out->strides[0] == 4 && out->strides[1] == -2);
    managed->deleter(managed);
    CHECK_INT(ct_memory_live_blocks(), live);
}

static void only_the_new_form_can_say_read_only(void)
{
    static float memory[4];
    ct_storage *storage;
    ct_tensor *tensor;
    DLManagedTensor *old;
    DLManagedTensorVersioned *managed;
    CHECK_OK(ct_storage_import(&storage, memory, sizeof memory, true,
                               (ct_device_id){CT_DEVICE_CPU, 0}, NULL, NULL));
    CHECK_OK(ct_tensor_view(&tensor, storage, 0, CT_F32, 1, SHAPE(4), NULL));
    ct_storage_unref(&storage);
    CHECK_FAILS(ct_dlpack_export(&old, tensor), CT_BUFFER, "read-only");
    CHECK(!old);
    CHECK_OK(ct_dlpack_export_versioned(&managed, tensor, false));
    CHECK_INT(managed->version.major, 1);
    CHECK_INT(managed->flags, DLPACK_FLAG_READ_ONLY);
    managed->deleter(managed);
    CHECK_OK(ct_dlpack_export_versioned(&managed, tensor, true));
    CHECK_INT(managed->flags, DLPACK_FLAG_READ_ONLY | DLPACK_FLAG_IS_COPIED);
    ct_tensor_unref(&tensor);
    CHECK_OK(ct_dlpack_import_versioned(&tensor, managed, CPU));
    CHECK(tensor->storage->read_only);
    ct_tensor_unref(&tensor);
}

static void quantized_tensors_do_not_leave(void)
{
    ct_tensor *tensor;
    DLManagedTensorVersioned *managed;
    CHECK_OK(ct_tensor_new(&tensor, CT_Q8_0, 1, SHAPE(32)));
    CHECK_FAILS(ct_dlpack_export_versioned(&managed, tensor, false), CT_BUFFER, "q8_0");
    CHECK(!managed);
    ct_tensor_unref(&tensor);
}

static void every_dtype_comes_back(void)
{
    for (ct_dtype dtype = CT_F32; dtype <= CT_BOOL; dtype++) {
        ct_tensor *tensor, *back;
        DLManagedTensor *managed;
        CHECK_OK(ct_tensor_new(&tensor, dtype, 2, SHAPE(2, 3)));
        CHECK_OK(ct_dlpack_export(&managed, tensor));
        CHECK_OK(ct_dlpack_import(&back, managed, CPU));
        CHECK_INT(back->dtype, dtype);
        CHECK(ct_tensor_data(back) == ct_tensor_data(tensor) && !back->storage->read_only);
        ct_tensor_unref(&tensor);
        ct_tensor_unref(&back);
    }
}

/* ---- somebody else's tensors ---- */

static float floats[12] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
static int n_deleted;

static void delete_foreign(DLManagedTensor *self)
{
    (void)self;
    n_deleted++;
}

typedef struct foreign {
    int64_t shape[9], strides[9];
    DLManagedTensor managed;
} foreign;

/* floats as [3, 4]; a test changes what it is about. */
static DLManagedTensor *foreign_floats(foreign *made)
{
    *made = (foreign){.shape = {3, 4}, .strides = {4, 1}};
    made->managed.dl_tensor = (DLTensor){
        .data = floats,
        .device = {kDLCPU, 0},
        .ndim = 2,
        .dtype = {kDLFloat, 32, 1},
        .shape = made->shape,
        .strides = made->strides,
    };
    made->managed.deleter = delete_foreign;
    n_deleted = 0;
    return &made->managed;
}

static void the_last_view_deletes_the_import(void)
{
    foreign source;
    ct_tensor *tensor, *view;
    CHECK_OK(ct_dlpack_import(&tensor, foreign_floats(&source), CPU));
    CHECK(ct_tensor_data(tensor) == floats);
    CHECK_OK(ct_tensor_select(&view, tensor, 0, 1));
    ct_tensor_unref(&tensor);
    CHECK_INT(n_deleted, 0);
    ct_tensor_unref(&view);
    CHECK_INT(n_deleted, 1);
    foreign_floats(&source)->deleter = NULL; /* static memory has none */
    CHECK_OK(ct_dlpack_import(&tensor, &source.managed, CPU));
    ct_tensor_unref(&tensor);
}

static void offsets_and_strides_are_kept(void)
{
    foreign source;
    ct_tensor *tensor;
    DLTensor *in = &foreign_floats(&source)->dl_tensor;
    in->strides = NULL;
    CHECK_OK(ct_dlpack_import(&tensor, &source.managed, CPU));
    CHECK(tensor->strides[0] == 4 && tensor->strides[1] == 1);
    ct_tensor_unref(&tensor);

    in->strides = source.strides;
    in->byte_offset = 11 * sizeof(float);
    source.strides[0] = -4;
    source.strides[1] = -1;
    CHECK_OK(ct_dlpack_import(&tensor, &source.managed, CPU));
    CHECK(ct_tensor_data(tensor) == floats + 11);
    CHECK(tensor->storage->data == floats && tensor->storage->size == sizeof floats);
    ct_tensor *last;
    CHECK_OK(ct_tensor_select(&last, tensor, 0, 2));
    CHECK_NEAR(*(float *)ct_tensor_data(last), 3, 0);
    ct_tensor_unref(&last);
    ct_tensor_unref(&tensor);

    in->byte_offset = 0;
    source.shape[0] = 0;
    in->data = NULL; /* allowed where there is nothing */
    CHECK_OK(ct_dlpack_import(&tensor, &source.managed, CPU));
    CHECK_INT(ct_tensor_size(tensor), 0);
    ct_tensor_unref(&tensor);

    foreign_floats(&source)->dl_tensor.device.device_type = kDLCUDAHost;
    CHECK_OK(ct_dlpack_import(&tensor, &source.managed, CPU)); /* pinned memory is memory */
    CHECK_INT(tensor->storage->device.kind, CT_DEVICE_CPU);
    ct_tensor_unref(&tensor);

    foreign_floats(&source)->dl_tensor.ndim = 0;
    source.managed.dl_tensor.shape = source.managed.dl_tensor.strides = NULL;
    CHECK_OK(ct_dlpack_import(&tensor, &source.managed, CPU));
    CHECK_INT(ct_tensor_size(tensor), 1);
    ct_tensor_unref(&tensor);
}

/* The producer keeps what was refused. */
#define CHECK_REFUSED(source, code, text)                                                          \
    do {                                                                                           \
        ct_tensor *ct_refused = NULL;                                                              \
        CHECK_FAILS(ct_dlpack_import(&ct_refused, &(source).managed, CPU), code, text);            \
        CHECK(!ct_refused);                                                                        \
        CHECK_INT(n_deleted, 0);                                                                   \
    } while (0)

static void other_element_types_are_refused_by_name(void)
{
    foreign source;
    DLDataType *type = &foreign_floats(&source)->dl_tensor.dtype;
    *type = (DLDataType){kDLFloat, 64, 1};
    CHECK_REFUSED(source, CT_TYPE, "float64");
    CHECK_REFUSED(source, CT_TYPE, "convert it to float32");
    *type = (DLDataType){kDLUInt, 16, 1};
    CHECK_REFUSED(source, CT_TYPE, "uint16");
    *type = (DLDataType){5, 64, 1};
    CHECK_REFUSED(source, CT_TYPE, "complex64");
    *type = (DLDataType){200, 8, 1};
    CHECK_REFUSED(source, CT_TYPE, "200");
    *type = (DLDataType){kDLFloat, 32, 4};
    CHECK_REFUSED(source, CT_TYPE, "4 lanes");
}

static void wrong_geometry_is_refused(void)
{
    foreign source;
    DLTensor *in = &foreign_floats(&source)->dl_tensor;
    in->ndim = 9;
    CHECK_REFUSED(source, CT_VALUE, "at most 8 dimensions, not 9");
    in->ndim = -1;
    CHECK_REFUSED(source, CT_VALUE, "not -1");
    in = &foreign_floats(&source)->dl_tensor;
    in->shape = NULL;
    CHECK_REFUSED(source, CT_VALUE, "shape");
    in = &foreign_floats(&source)->dl_tensor;
    source.shape[1] = -4;
    CHECK_REFUSED(source, CT_VALUE, "negative length");
    source.shape[0] = 0;
    CHECK_REFUSED(source, CT_VALUE, "negative length");
    in = &foreign_floats(&source)->dl_tensor;
    in->data = NULL;
    CHECK_REFUSED(source, CT_VALUE, "no data");
    in = &foreign_floats(&source)->dl_tensor;
    in->byte_offset = UINT64_MAX;
    CHECK_REFUSED(source, CT_VALUE, "too large");
    in->byte_offset = 2;
    CHECK_REFUSED(source, CT_BUFFER, "aligned");
    in = &foreign_floats(&source)->dl_tensor;
    in->device.device_type = kDLCUDA;
    CHECK_REFUSED(source, CT_BUFFER, "device type 2");
}

static void sizes_that_overflow_are_refused(void)
{
    static const struct {
        int64_t shape[2], strides[2];
    } cases[] = {
        {{INT64_MAX, 4}, {4, 1}},
        {{2, 2}, {INT64_MAX, 1}},
        {{2, 2}, {INT64_MIN, 1}},
        {{2, 2}, {INT64_MIN / 4, 1}},
        {{2, 2}, {INT64_MAX / 4, INT64_MIN / 4}},
        {{2, 2}, {INT64_MAX / 4, INT64_MAX / 4}},
        {{1LL << 62, 1}, {0, 1}}, /* no memory, but too many elements */
    };
    foreign source;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        foreign_floats(&source);
        memcpy(source.shape, cases[i].shape, sizeof cases[i].shape);
        memcpy(source.strides, cases[i].strides, sizeof cases[i].strides);
        CHECK_REFUSED(source, CT_VALUE, "too");
    }
    foreign_floats(&source)->dl_tensor.byte_offset = INT64_MAX / 64 * 64;
    source.strides[0] = (1LL << 60) - 4; /* to twice of this: 2^63 - 32 bytes */
    CHECK_REFUSED(source, CT_VALUE, "outside of memory");
    foreign_floats(&source);
    source.strides[0] = -(1LL << 58);
    CHECK_REFUSED(source, CT_VALUE, "outside of memory");
    foreign_floats(&source)->dl_tensor.strides = NULL;
    source.shape[0] = source.shape[1] = 1LL << 40;
    CHECK_REFUSED(source, CT_VALUE, "too large");
}

/* Only looked at: nothing here can read it. */
static void a_devices_tensor_is_the_devices(void)
{
    foreign source;
    ct_tensor *tensor;
    DLTensor *in = &foreign_floats(&source)->dl_tensor;
    in->device = (DLDevice){kDLCUDA, 1};
    CHECK_FAILS(ct_dlpack_import(&tensor, &source.managed, (ct_device_id){CT_DEVICE_CUDA, 0}),
                CT_BUFFER, "should be on \"cuda:0\" is number 1 of device type 2");
    CHECK(!tensor);
    CHECK_OK(ct_dlpack_import(&tensor, &source.managed, (ct_device_id){CT_DEVICE_CUDA, 1}));
    CHECK(tensor->storage->device.kind == CT_DEVICE_CUDA && tensor->storage->device.index == 1);
    ct_tensor_unref(&tensor);
    CHECK_INT(n_deleted, 1);
    foreign_floats(&source);
    CHECK_FAILS(ct_dlpack_import(&tensor, &source.managed, (ct_device_id){CT_DEVICE_CUDA, 0}),
                CT_BUFFER, "of device type 1");
}

static void another_major_version_is_refused(void)
{
    DLManagedTensorVersioned managed = {.version = {2, 0}};
    ct_tensor *tensor;
    CHECK_FAILS(ct_dlpack_import_versioned(&tensor, &managed, CPU), CT_BUFFER, "version 2.0");
    CHECK(!tensor);
}

ct_status fault_dlpack(void)
{
    ct_tensor *tensor = NULL, *back = NULL;
    DLManagedTensorVersioned *managed = NULL;
    ct_status status;
    CT_TRY_TO(done, ct_tensor_new(&tensor, CT_F32, 1, SHAPE(4)));
    CT_TRY_TO(done, ct_dlpack_export_versioned(&managed, tensor, false));
    CT_TRY_TO(done, ct_dlpack_import_versioned(&back, managed, CPU));
    managed = NULL;
done:
    if (managed)
        managed->deleter(managed);
    ct_tensor_unref(&tensor);
    ct_tensor_unref(&back);
    return status;
}

const ct_test suite_dlpack[] = {
    TEST(an_export_holds_the_tensor),
    TEST(only_the_new_form_can_say_read_only),
    TEST(quantized_tensors_do_not_leave),
    TEST(every_dtype_comes_back),
    TEST(the_last_view_deletes_the_import),
    TEST(offsets_and_strides_are_kept),
    TEST(other_element_types_are_refused_by_name),
    TEST(wrong_geometry_is_refused),
    TEST(sizes_that_overflow_are_refused),
    TEST(a_devices_tensor_is_the_devices),
    TEST(another_major_version_is_refused),
    TESTS_END,
};
