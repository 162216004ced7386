/* Finds cuBLASLt and its functions: the library that this process has loaded already (torch's, for
 * instance), else where the loader looks, to which the wheel nvidia-cublas belongs, as its folder
 * is among the places of this plugin's own libraries (cuda_build.py), else in the toolkit. What was
 * opened stays so. That there was none is not remembered. */
#include "cublas.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static const char *const names[] = {"libcublasLt.so.13", "libcublasLt.so.12"};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of what follows */
static ct_cublas functions;
static bool is_open;

/* The first of our names that is there. */
static void *open_by_name(const char *folder, int flags)
{
    for (const char *name : names) {
        char path[4096];
        if (snprintf(path, sizeof path, "%s%s", folder, name) >= (int)sizeof path)
            continue;
        void *library = dlopen(path, flags | RTLD_NOW | RTLD_LOCAL);
        if (library)
            return library;
    }
    return NULL;
}

static void *open_in_toolkit()
{
    char folder[4096];
    const char *home = getenv("CUDA_HOME");
    int length =
        snprintf(folder, sizeof folder, "%s/lib64/", home && *home ? home : "/usr/local/cuda");
    return length < (int)sizeof folder ? open_by_name(folder, 0) : NULL;
}

static void *open_any()
{
    void *library = open_by_name("", RTLD_NOLOAD);
    library = library ? library : open_by_name("", 0);
    return library ? library : open_in_toolkit();
}

/* Whether it has all of them. */
static bool take_functions(void *library)
{
    ct_cublas found;
    void *symbol;
#define FIND(name, symbol_name, parameters)                                                        \
    symbol = dlsym(library, symbol_name);                                                          \
    if (!symbol)                                                                                   \
        return false;                                                                              \
    memcpy(&found.name, &symbol, sizeof symbol);
    CT_CUBLAS_FUNCTIONS(FIND)
#undef FIND
    functions = found;
    return true;
}

static ct_status open_named(const char *name)
{
    void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return ct_fail(CT_UNSUPPORTED, "CURATED_TRANSFORMERS_CUBLAS cannot be opened: %s",
                       dlerror());
    is_open = take_functions(library);
    if (!is_open)
        return ct_fail(CT_UNSUPPORTED, "CURATED_TRANSFORMERS_CUBLAS: %s is no cuBLASLt", name);
    return CT_OK;
}

ct_status ct_cublas_open(const ct_cublas **out)
{
    ct_status status = CT_OK;
    const char *named = getenv("CURATED_TRANSFORMERS_CUBLAS");
    *out = NULL;
    if (named && strcmp(named, "0") == 0)
        return CT_OK;
    pthread_mutex_lock(&lock);
    if (!is_open && named && *named) {
        status = open_named(named);
    } else if (!is_open) {
        void *library = open_any();
        is_open = library && take_functions(library);
    }
    if (is_open)
        *out = &functions;
    pthread_mutex_unlock(&lock);
    return status;
}
