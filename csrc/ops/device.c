/* One table per kind of device. */
#include "ops/device.h"

#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name, *support;
} kinds[] = {[CT_DEVICE_CPU] = {"cpu", "CPU"}, [CT_DEVICE_CUDA] = {"cuda", "CUDA"}};

static const ct_ops *registered[sizeof kinds / sizeof *kinds];
static ct_memory memories[CT_DEVICE_LIMIT]; /* of the devices that are not the CPU */

ct_status ct_device_register(ct_device_kind kind, const ct_ops *ops)
{
    if (ops->abi != CT_OPS_ABI || ops->size != sizeof *ops)
        return ct_fail(CT_VALUE,
                       "the operations of \"%s\" are of ABI %u and %u bytes; this core needs ABI "
                       "%u and %zu bytes: build both from one version",
                       kinds[kind].name, ops->abi, ops->size, CT_OPS_ABI, sizeof *ops);
    for (int i = 0; kind != CT_DEVICE_CPU && i < CT_DEVICE_LIMIT; i++)
        memories[i] = (ct_memory){ops->alloc, ops->free, i};
    registered[kind] = ops;
    return CT_OK;
}

ct_status ct_device_ops(ct_device_id device, const ct_ops **out)
{
    *out = registered[device.kind];
    if (!*out)
        return ct_fail(CT_UNSUPPORTED,
                       "device \"%s\" is not available: this build has no %s support; use "
                       "device=\"cpu\"",
                       kinds[device.kind].name, kinds[device.kind].support);
    return CT_OK;
}

ct_status ct_device_memory(ct_device_id device, const ct_memory **out)
{
    const ct_ops *ops;
    *out = NULL;
    if (device.kind == CT_DEVICE_CPU)
        return CT_OK;
    CT_TRY(ct_device_ops(device, &ops));
    *out = &memories[device.index];
    return CT_OK;
}

ct_status ct_device_parse(ct_device_id *out, const char *text)
{
    *out = (ct_device_id){CT_DEVICE_CPU, 0};
    if (strcmp(text, "cpu") == 0 || strcmp(text, "cpu:0") == 0)
        return CT_OK;
    if (strncmp(text, "cuda", 4) == 0 && (text[4] == '\0' || text[4] == ':')) {
        char *end = (char *)text + 4;
        long index = text[4] ? strtol(text + 5, &end, 10) : 0;
        bool digits = !text[4] || (text[5] >= '0' && text[5] <= '9');
        if (digits && *end == '\0' && index < CT_DEVICE_LIMIT) {
            *out = (ct_device_id){CT_DEVICE_CUDA, (int)index};
            return CT_OK;
        }
    }
    return ct_fail(CT_VALUE, "unknown device `%.40s`; known ones: \"cpu\", \"cuda\", \"cuda:N\"",
                   text);
}
