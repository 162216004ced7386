/* The registry of devices and the names it understands. */
#include "test.h"

#include "ops/device.h"

static void device_names_are_parsed(void)
{
    ct_device_id id;
    CHECK_OK(ct_device_parse(&id, "cpu"));
    CHECK(id.kind == CT_DEVICE_CPU && id.index == 0);
    CHECK_OK(ct_device_parse(&id, "cuda"));
    CHECK(id.kind == CT_DEVICE_CUDA && id.index == 0);
    CHECK_OK(ct_device_parse(&id, "cuda:12"));
    CHECK(id.kind == CT_DEVICE_CUDA && id.index == 12);
    static const char *const wrong[] = {"",
                                        "CPU",
                                        "cpu:1",
                                        "cuda:",
                                        "cuda:-1",
                                        "cuda: 1",
                                        "cuda:1x",
                                        "cuda0",
                                        "cudax",
                                        "tpu",
                                        "cuda:99999999999999999999"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        CHECK_FAILS(ct_device_parse(&id, wrong[i]), CT_VALUE, "\"cpu\", \"cuda\", \"cuda:N\"");
}

static void a_missing_device_says_what_to_do(void)
{
    const ct_ops *ops;
    ct_device_id cuda = {CT_DEVICE_CUDA, 0};
    CHECK_FAILS(ct_device_ops(cuda, &ops), CT_UNSUPPORTED,
                "device \"cuda\" is not available: this build has no CUDA support");
    CHECK_FAILS(ct_device_ops(cuda, &ops), CT_UNSUPPORTED, "use device=\"cpu\"");
    CHECK(!ops);
}

static void a_table_of_another_abi_is_refused(void)
{
    ct_ops ops = {.abi = CT_OPS_ABI + 1, .size = sizeof ops, .name = "cuda"};
    CHECK_FAILS(ct_device_register(CT_DEVICE_CUDA, &ops), CT_VALUE, "needs ABI");
    ops.abi = CT_OPS_ABI;
    ops.size = sizeof ops - 8;
    CHECK_FAILS(ct_device_register(CT_DEVICE_CUDA, &ops), CT_VALUE, "bytes");
}

static ct_status only_the_first(int index)
{
    return index == 0 ? CT_OK : ct_fail(CT_VALUE, "there is one");
}

static void a_registered_table_is_found(void)
{
    static const ct_ops fake = {
        .abi = CT_OPS_ABI, .size = sizeof fake, .name = "fake", .check = only_the_first};
    ct_device_id cpu = {CT_DEVICE_CPU, 0};
    const ct_ops *before, *ops;
    bool had_one = ct_device_ops(cpu, &before) == CT_OK;
    CHECK_OK(ct_device_register(CT_DEVICE_CPU, &fake));
    CHECK_OK(ct_device_ops(cpu, &ops));
    CHECK(ops == &fake);
    CHECK_FAILS(ct_device_ops((ct_device_id){CT_DEVICE_CPU, 1}, &ops), CT_VALUE, "there is one");
    CHECK(!ops);
    if (had_one)
        CHECK_OK(ct_device_register(CT_DEVICE_CPU, before));
}

const ct_test suite_device[] = {
    TEST(device_names_are_parsed),
    TEST(a_missing_device_says_what_to_do),
    TEST(a_table_of_another_abi_is_refused),
    TEST(a_registered_table_is_found),
    TESTS_END,
};
