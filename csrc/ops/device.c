/* One table per kind of device. */
#include "ops/device.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/plugin.h"

static const char *const kind_names[] = {[CT_DEVICE_CPU] = "cpu", [CT_DEVICE_CUDA] = "cuda"};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of what follows, and of loading */
static const ct_ops *registered[sizeof kind_names / sizeof *kind_names];
static ct_memory memories[CT_DEVICE_LIMIT]; /* of the devices that are not the CPU */

static ct_status check_table(ct_device_kind kind, const ct_ops *ops);
static ct_status find_table(ct_device_kind kind, const ct_ops **out);
static ct_status not_available(ct_device_kind kind);

/* Of the CPU, memory is the heap's and has no row. */
static void set_table(ct_device_kind kind, const ct_ops *ops)
{
    for (int i = 0; kind != CT_DEVICE_CPU && i < CT_DEVICE_LIMIT; i++)
        memories[i] = (ct_memory){ops->alloc, ops->free, i};
    registered[kind] = ops;
}

ct_status ct_device_register(ct_device_kind kind, const ct_ops *ops)
{
    CT_TRY(check_table(kind, ops));
    pthread_mutex_lock(&lock);
    set_table(kind, ops);
    pthread_mutex_unlock(&lock);
    return CT_OK;
}

static ct_status check_table(ct_device_kind kind, const ct_ops *ops)
{
    if (ops->abi != CT_OPS_ABI || ops->size != sizeof *ops)
        return ct_fail(CT_VALUE,
                       "the operations of \"%s\" are of ABI %u and %u bytes; this core needs ABI "
                       "%u and %zu bytes: build both from one version",
                       kind_names[kind], ops->abi, ops->size, CT_OPS_ABI, sizeof *ops);
    return CT_OK;
}

ct_status ct_device_ops(ct_device_id device, const ct_ops **out)
{
    const ct_ops *ops;
    *out = NULL;
    pthread_mutex_lock(&lock);
    ct_status status = find_table(device.kind, &ops);
    pthread_mutex_unlock(&lock);
    if (status != CT_OK)
        return not_available(device.kind);
    status = ops->check(device.index);
    if (status == CT_UNSUPPORTED)
        return not_available(device.kind);
    if (status == CT_OK)
        *out = ops;
    return status;
}

static ct_status find_table(ct_device_kind kind, const ct_ops **out)
{
    *out = registered[kind];
    if (*out)
        return CT_OK;
    if (kind != CT_DEVICE_CUDA)
        return ct_fail(CT_UNSUPPORTED, "nobody registered its operations");
    CT_TRY(ct_plugin_load(out));
    CT_TRY(check_table(kind, *out));
    set_table(kind, *out);
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

/* The thread's message says why. */
static ct_status not_available(ct_device_kind kind)
{
    char reason[768];
    snprintf(reason, sizeof reason, "%s", ct_message());
    return ct_fail(CT_UNSUPPORTED, "device \"%s\" is not available: %s; use device=\"cpu\"",
                   kind_names[kind], reason);
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
