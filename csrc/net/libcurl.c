/* Loads libcurl once; a failure is remembered and told again, as a second attempt would fail alike.
 */
#include "net/libcurl.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static ct_curl curl;
static char failure[512];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void load(void);
static void *open_library(void);

ct_status ct_curl_get(const ct_curl **out)
{
    *out = NULL;
    pthread_once(&once, load);
    if (failure[0])
        return ct_fail(CT_IO, "%s", failure);
    *out = &curl;
    return CT_OK;
}

static void load(void)
{
#define SYMBOL(name, result, arguments) {"curl_" #name, offsetof(ct_curl, name)},
    static const struct {
        const char *name;
        size_t offset;
    } symbols[] = {CT_CURL_FUNCTIONS(SYMBOL)};
#undef SYMBOL
    void *library = open_library();
    if (!library)
        return;
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
        void *found = dlsym(library, symbols[i].name);
        if (!found) {
            snprintf(failure, sizeof failure, "the libcurl of this system has no %s; it is too old",
                     symbols[i].name);
            return;
        }
        memcpy((char *)&curl + symbols[i].offset, &found, sizeof found);
    }
    int code = curl.global_init(CT_CURL_GLOBAL_DEFAULT);
    if (code != 0)
        snprintf(failure, sizeof failure, "libcurl cannot be set up: %s", curl.easy_strerror(code));
}

static void *open_library(void)
{
    static const char *const names[] = {"libcurl.so.4", "libcurl-gnutls.so.4", "libcurl.4.dylib"};
    const char *own = getenv("CURATED_TRANSFORMERS_LIBCURL");
    void *library = NULL;
    if (own && *own) {
        library = dlopen(own, RTLD_NOW | RTLD_LOCAL);
        if (!library)
            snprintf(failure, sizeof failure, "CURATED_TRANSFORMERS_LIBCURL cannot be loaded: %s",
                     dlerror());
        return library;
    }
    for (size_t i = 0; !library && i < sizeof names / sizeof *names; i++)
        library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    if (!library)
        snprintf(failure, sizeof failure,
                 "downloads need libcurl (libcurl.so.4), which this system does not have; install "
                 "it, for instance with `apt-get install libcurl4` or `dnf install libcurl`");
    return library;
}
