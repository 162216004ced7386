/* Refcounted memory of one device, with the function that releases it: heap, a mapped file, memory
 * imported from another library. */
#ifndef CT_TENSOR_STORAGE_H
#define CT_TENSOR_STORAGE_H

#include <stdbool.h>
#include <stddef.h>

#include "core/refcount.h"
#include "core/status.h"

typedef enum ct_device_kind { CT_DEVICE_CPU, CT_DEVICE_CUDA } ct_device_kind;

typedef struct ct_device_id {
    ct_device_kind kind;
    int index; /* always 0 for the CPU */
} ct_device_id;

static inline bool ct_same_device(ct_device_id a, ct_device_id b)
{
    return a.kind == b.kind && a.index == b.index;
}

typedef struct ct_storage {
    ct_refcount refs;
    ct_device_id device;
    void *data;
    size_t size;
    bool read_only;
    void (*release)(void *data, size_t size,
                    void *context); /* on any thread, NULL: nothing to do */
    void *context;
} ct_storage;

/* `size` uninitialised bytes of heap. Large blocks that were released are reused, within a bound,
 * because the first touch of fresh pages costs more than most kernels. */
CT_MUST_CHECK ct_status ct_storage_new(ct_storage **out, size_t size);

/* Maps a whole file read-only and shared. CT_NOT_FOUND, CT_IO with the system's reason, CT_VALUE
 * for an empty file or something that is no regular file. When somebody truncates the file
 * afterwards, reading behind its new end raises SIGBUS: the one crash that a mapping cannot
 * prevent. */
CT_MUST_CHECK ct_status ct_storage_map_file(ct_storage **out, const char *path);

/* Takes the pages of a mapped file out of this process's memory; they are read again when they are
 * needed. For files whose contents were copied. */
void ct_storage_forget_pages(ct_storage *mapped);

/* Somebody else's memory; `release(data, size, context)` is called when the last reference goes.
 * On failure release has not been called. */
CT_MUST_CHECK ct_status ct_storage_import(ct_storage **out, void *data, size_t size, bool read_only,
                                          ct_device_id device,
                                          void (*release)(void *, size_t, void *), void *context);

ct_storage *ct_storage_ref(ct_storage *storage);
void ct_storage_unref(ct_storage **storage);

/* Gives back the blocks that are kept for reuse. */
void ct_storage_trim(void);

#endif
