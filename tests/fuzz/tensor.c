/* Tensors of a checkpoint: type, shape, strides and offset as a file may claim them, over a storage
 * of the bytes that are left; then parts of what was accepted.
 *
 * Whatever is accepted is read as a whole, so that AddressSanitizer sees a bound that is wrong. */
#include "fuzz.h"

#include "tensor/tensor.h"

#define READABLE (1 << 14) /* strides of 0 make tensors of any size from a byte */

static void read_all(ct_tensor *tensor)
{
    ct_tensor *dense, *converted;
    if (ct_tensor_size(tensor) > READABLE)
        return;
    MUST(ct_tensor_contiguous(&dense, tensor) == CT_OK);
    size_t size;
    MUST(ct_dtype_row_bytes(&size, tensor->dtype, ct_tensor_size(tensor)) == CT_OK);
    uint8_t sum = 0;
    for (size_t i = 0; i < size; i++)
        sum ^= ((const uint8_t *)ct_tensor_data(dense))[i];
    volatile uint8_t used = sum;
    (void)used;
    ct_tensor_unref(&dense);
    for (ct_dtype to = 0; to < CT_DTYPE_COUNT; to++)
        if (ct_tensor_convert(&converted, tensor, to) == CT_OK) {
            MUST(ct_tensor_size(converted) == ct_tensor_size(tensor));
            ct_tensor_unref(&converted);
        }
}

static int take_shape(fuzz_input *input, int64_t *shape)
{
    int n_dims = fuzz_byte(input) % (CT_MAX_DIMS + 2) - 1 + (input->size == 0);
    for (int i = 0; i < n_dims && i < CT_MAX_DIMS; i++)
        shape[i] = fuzz_length(input);
    return n_dims;
}

/* Takes the tensor. */
static void read_parts(ct_tensor *tensor, fuzz_input input)
{
    int64_t shape[CT_MAX_DIMS];
    for (int steps = 0; tensor && steps < 4; steps++) {
        ct_tensor *part = NULL;
        ct_status status;
        read_all(tensor);
        uint8_t way = fuzz_byte(&input);
        int dim = (int8_t)fuzz_byte(&input);
        if (way % 3 == 0) {
            status = ct_tensor_select(&part, tensor, dim, fuzz_length(&input));
        } else if (way % 3 == 1) {
            int64_t start = fuzz_length(&input), length = fuzz_length(&input);
            status = ct_tensor_slice(&part, tensor, dim, start, length, fuzz_length(&input));
        } else {
            int n_dims = take_shape(&input, shape);
            status = ct_tensor_reshape(&part, tensor, n_dims, shape);
        }
        MUST((status == CT_OK) == (part != NULL));
        ct_tensor_unref(&tensor);
        tensor = part;
    }
    ct_tensor_unref(&tensor);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_input input = {data, size}, parts;
    uint8_t steps[32];
    int64_t shape[CT_MAX_DIMS], strides[CT_MAX_DIMS];
    uint8_t way = fuzz_byte(&input);
    ct_dtype dtype = (ct_dtype)(fuzz_byte(&input) % CT_DTYPE_COUNT);
    size_t offset = (size_t)fuzz_length(&input);
    int n_dims = take_shape(&input, shape);
    for (int i = 0; way % 2 && i < n_dims && i < CT_MAX_DIMS; i++)
        strides[i] = fuzz_length(&input);
    fuzz_take(&input, steps, sizeof steps);
    parts = (fuzz_input){steps, sizeof steps};

    void *bytes = fuzz_rest(&input);
    ct_storage *storage;
    ct_tensor *tensor;
    MUST(ct_storage_import(&storage, bytes, input.size, true, (ct_device_id){CT_DEVICE_CPU, 0},
                           NULL, NULL) == CT_OK);
    ct_status status = way % 2
                           ? ct_tensor_view(&tensor, storage, offset, dtype, n_dims, shape, strides)
                           : ct_tensor_from_bytes(&tensor, storage, offset, dtype, n_dims, shape);
    MUST((status == CT_OK) == (tensor != NULL));
    read_parts(tensor, parts);
    ct_storage_unref(&storage);
    free(bytes);
    return 0;
}
