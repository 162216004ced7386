/* What the fuzz targets share: how they cut values from the bytes that they are given, and MUST.
 *
 * A target is a file `<name>.c` with LLVMFuzzerTestOneInput; `make fuzz` builds and runs each. Its
 * first inputs come from seeds.py. Copies are made in blocks of exactly their size, so that
 * AddressSanitizer sees the first byte that is read behind them. */
#ifndef CT_FUZZ_H
#define CT_FUZZ_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Ends the run when what must hold for any input does not. */
#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition);          \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

typedef struct fuzz_input {
    const uint8_t *data;
    size_t size;
} fuzz_input;

/* The next `size` bytes; zeros where the input has ended. */
static inline void fuzz_take(fuzz_input *input, void *out, size_t size)
{
    size_t taken = size < input->size ? size : input->size;
    memset(out, 0, size);
    if (taken)
        memcpy(out, input->data, taken);
    input->data += taken;
    input->size -= taken;
}

static inline uint8_t fuzz_byte(fuzz_input *input)
{
    uint8_t byte;
    fuzz_take(input, &byte, 1);
    return byte;
}

/* A length or an offset: mostly a small one, else any. */
static inline int64_t fuzz_length(fuzz_input *input)
{
    int64_t value;
    uint8_t first = fuzz_byte(input);
    if (first < 0xf0)
        return (int8_t)first;
    fuzz_take(input, &value, sizeof value);
    return value;
}

/* A copy of what is left, in a block of its own, which the caller frees. */
static inline void *fuzz_rest(const fuzz_input *input)
{
    void *copy = malloc(input->size ? input->size : 1);
    MUST(copy);
    if (input->size)
        memcpy(copy, input->data, input->size);
    return copy;
}

#endif
