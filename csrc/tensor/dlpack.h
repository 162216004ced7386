/* Sharing tensors with other libraries: the structs of the DLPack ABI
 * (https://dmlc.github.io/dlpack, version 1) and conversions from and to them. */
#ifndef CT_TENSOR_DLPACK_H
#define CT_TENSOR_DLPACK_H

#include <stdbool.h>
#include <stdint.h>

#include "core/status.h"
#include "tensor/tensor.h"

#define DLPACK_MAJOR_VERSION 1
#define DLPACK_MINOR_VERSION 0
#define DLPACK_FLAG_READ_ONLY 1u
#define DLPACK_FLAG_IS_COPIED 2u

enum { kDLCPU = 1, kDLCUDA = 2, kDLCUDAHost = 3 };
enum { kDLInt = 0, kDLUInt = 1, kDLFloat = 2, kDLBfloat = 4, kDLBool = 6 };

typedef struct DLDevice {
    int32_t device_type, device_id;
} DLDevice;

typedef struct DLDataType {
    uint8_t code, bits;
    uint16_t lanes;
} DLDataType;

typedef struct DLTensor {
    void *data;
    DLDevice device;
    int32_t ndim;
    DLDataType dtype;
    int64_t *shape, *strides;
    uint64_t byte_offset;
} DLTensor;

typedef struct DLManagedTensor {
    DLTensor dl_tensor;
    void *manager_ctx;
    void (*deleter)(struct DLManagedTensor *self);
} DLManagedTensor;

typedef struct DLManagedTensorVersioned {
    struct {
        uint32_t major, minor;
    } version;
    void *manager_ctx;
    void (*deleter)(struct DLManagedTensorVersioned *self);
    uint64_t flags;
    DLTensor dl_tensor;
} DLManagedTensorVersioned;

/* *out holds a reference to the tensor until its deleter is called, on any thread, without the GIL.
 * Quantized formats are CT_BUFFER; so is, in the old form, memory that must not be written. */
CT_MUST_CHECK ct_status ct_dlpack_export(DLManagedTensor **out, ct_tensor *tensor);
CT_MUST_CHECK ct_status ct_dlpack_export_versioned(DLManagedTensorVersioned **out,
                                                   ct_tensor *tensor, bool copied);

/* *out shares the memory, which has to be that of `device`. `managed` is taken on success only; its
 * deleter is called when the last view of the memory goes, on whatever thread that is (producers
 * that need a lock there take it themselves). */
CT_MUST_CHECK ct_status ct_dlpack_import(ct_tensor **out, DLManagedTensor *managed,
                                         ct_device_id device);
CT_MUST_CHECK ct_status ct_dlpack_import_versioned(ct_tensor **out,
                                                   DLManagedTensorVersioned *managed,
                                                   ct_device_id device);

#endif
