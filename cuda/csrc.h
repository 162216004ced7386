/* The core's headers for C++. Reference counts are atomic there by a type that C++ does not have;
 * what holds one is only looked into here, so an int of the same size stands for it. */
#ifndef CT_CUDA_CSRC_H
#define CT_CUDA_CSRC_H

#define CT_CORE_REFCOUNT_H
typedef struct ct_refcount {
    int count;
} ct_refcount;

#define _Static_assert static_assert
#define _Alignas alignas
extern "C" {
#include "core/arena.h"
#include "core/memory.h"
#include "core/status.h"
#include "ops/activation.h"
#include "ops/ops.h"
#include "ops/philox.h"
#include "quant/bnb.h"
#include "quant/gguf_blocks.h"
#include "quant/gguf_kquants.h"
#include "tensor/dtype.h"
#include "tensor/scales.h"
#include "tensor/tensor.h"
}

#endif
