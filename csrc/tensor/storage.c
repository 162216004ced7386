/* The four kinds of storage differ only in their release function. Large heap blocks go to a
 * bounded free list instead of back to the system: hidden states of one call have the sizes of the
 * last. */
#include "tensor/storage.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/memory.h"

#define SPARE_MIN ((size_t)1 << 20)   /* smaller blocks the C library recycles well */
#define SPARE_TOTAL ((size_t)1 << 28) /* bytes kept at most */
#define SPARE_COUNT 16

typedef struct spare {
    void *block;
    size_t size;
} spare;

static spare spares[SPARE_COUNT];
static size_t spare_total;
static pthread_mutex_t spare_lock = PTHREAD_MUTEX_INITIALIZER;

static ct_status new_storage(ct_storage **out, void *data, size_t size,
                             void (*release)(void *, size_t, void *));
static void *take_spare(size_t *size);
static void release_heap(void *data, size_t size, void *context);
static void release_mapping(void *data, size_t size, void *context);

/* Blocks of these sizes are rounded up, so that similar sizes can serve each other. */
static size_t heap_size(size_t size)
{
    return size < SPARE_MIN ? size : (size + SPARE_MIN - 1) / SPARE_MIN * SPARE_MIN;
}

ct_status ct_storage_new(ct_storage **out, size_t size)
{
    *out = NULL;
    if (size > SIZE_MAX / 2)
        return ct_fail(CT_MEMORY, "out of memory: cannot allocate %zu bytes", size);
    size_t capacity = heap_size(size);
    void *data = size >= SPARE_MIN ? take_spare(&capacity) : NULL;
    if (!data)
        CT_TRY(ct_alloc(&data, capacity));
    ct_status status = new_storage(out, data, size, release_heap);
    if (status == CT_OK)
        (*out)->context = (void *)(uintptr_t)capacity;
    else
        ct_free(&data);
    return status;
}

ct_status ct_storage_map_file(ct_storage **out, const char *path)
{
    *out = NULL;
    ct_status status = CT_OK;
    struct stat info;
    void *data = MAP_FAILED;
    size_t size = 0;
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe must not make us wait */
    if (file < 0)
        return ct_fail(errno == ENOENT ? CT_NOT_FOUND : CT_IO, "cannot open `%s`: %s", path,
                       strerror(errno));
    if (fstat(file, &info) != 0)
        CT_TRY_TO(done, ct_fail(CT_IO, "cannot read `%s`: %s", path, strerror(errno)));
    if (!S_ISREG(info.st_mode))
        CT_TRY_TO(done, ct_fail(CT_VALUE, "`%s` is not a regular file", path));
    if (info.st_size == 0)
        CT_TRY_TO(done, ct_fail(CT_VALUE, "`%s` is empty", path));
    size = (size_t)info.st_size;
    data = mmap(NULL, size, PROT_READ, MAP_SHARED, file, 0);
    if (data == MAP_FAILED)
        CT_TRY_TO(done, ct_fail(CT_IO, "cannot map `%s`: %s", path, strerror(errno)));
    CT_TRY_TO(done, new_storage(out, data, size, release_mapping));
    (*out)->read_only = true;
    data = MAP_FAILED;
done:
    if (data != MAP_FAILED)
        munmap(data, size);
    close(file);
    return status;
}

void ct_storage_forget_pages(ct_storage *mapped)
{
    (void)madvise(mapped->data, mapped->size, MADV_DONTNEED); /* only advice: it may fail */
}

ct_status ct_storage_import(ct_storage **out, void *data, size_t size, bool read_only,
                            ct_device_id device, void (*release)(void *, size_t, void *),
                            void *context)
{
    CT_TRY(new_storage(out, data, size, release));
    (*out)->read_only = read_only;
    (*out)->device = device;
    (*out)->context = context;
    return CT_OK;
}

ct_storage *ct_storage_ref(ct_storage *storage)
{
    ct_refcount_take(&storage->refs);
    return storage;
}

void ct_storage_unref(ct_storage **storage)
{
    ct_storage *old = *storage;
    *storage = NULL;
    if (!old || !ct_refcount_drop(&old->refs))
        return;
    if (old->release)
        old->release(old->data, old->size, old->context);
    ct_free(&old);
}

void ct_storage_trim(void)
{
    pthread_mutex_lock(&spare_lock);
    for (int i = 0; i < SPARE_COUNT; i++) {
        ct_free(&spares[i].block);
        spares[i].size = 0;
    }
    spare_total = 0;
    pthread_mutex_unlock(&spare_lock);
}

static ct_status new_storage(ct_storage **out, void *data, size_t size,
                             void (*release)(void *, size_t, void *))
{
    *out = NULL;
    ct_storage *storage;
    CT_TRY(ct_alloc_zeroed((void **)&storage, 1, sizeof *storage));
    ct_refcount_init(&storage->refs);
    storage->data = data;
    storage->size = size;
    storage->release = release;
    *out = storage;
    return CT_OK;
}

/* The smallest spare block of *size to 2 * *size bytes, whose own size *size becomes; or NULL. */
static void *take_spare(size_t *size)
{
    void *block = NULL;
    spare *best = NULL;
    pthread_mutex_lock(&spare_lock);
    for (spare *s = spares; s < spares + SPARE_COUNT; s++)
        if (s->block && s->size >= *size && s->size / 2 <= *size && (!best || s->size < best->size))
            best = s;
    if (best) {
        block = best->block;
        *size = best->size;
        spare_total -= best->size;
        *best = (spare){0};
    }
    pthread_mutex_unlock(&spare_lock);
    return block;
}

/* `context` is the block's size, which a reused block may have more of than its storage. */
static void release_heap(void *data, size_t size, void *context)
{
    size_t capacity = (uintptr_t)context;
    if (size >= SPARE_MIN) {
        pthread_mutex_lock(&spare_lock);
        for (spare *s = spares; s < spares + SPARE_COUNT && data; s++) {
            if (!s->block && spare_total + capacity <= SPARE_TOTAL) {
                *s = (spare){data, capacity};
                spare_total += capacity;
                data = NULL;
            }
        }
        pthread_mutex_unlock(&spare_lock);
    }
    ct_free(&data);
}

static void release_mapping(void *data, size_t size, void *context)
{
    (void)context;
    munmap(data, size);
}
