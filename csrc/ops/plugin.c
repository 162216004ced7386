/* Finds a plugin and tells it the core's functions. A failure is not remembered: to look for a file
 * again costs nothing, and it may be there by then. */
#include "ops/plugin.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FILE_NAME "_cuda.so"

static char own_place[4096]; /* of the plugin that belongs to this core; "": not told */

static ct_status fail_with_text(ct_status code, const char *text);
static ct_status open_library(void **out, const char **name);
static ct_status check_plugin(const ct_plugin *plugin, const char *name);

#define ROW(result, name, parameters, names) .name = name,
static const ct_services services = {.fail = fail_with_text, CT_SERVICES(ROW)};
#undef ROW

ct_status ct_plugin_set_neighbour(const char *file)
{
    const char *slash = strrchr(file, '/');
    int folder = slash ? (int)(slash + 1 - file) : 0;
    int length = snprintf(own_place, sizeof own_place, "%.*s" FILE_NAME, folder, file);
    if (length >= (int)sizeof own_place) {
        own_place[0] = '\0';
        return ct_fail(CT_VALUE, "the name of the folder of %.100s... is too long", file);
    }
    return CT_OK;
}

ct_status ct_plugin_load(const ct_ops **out)
{
    const char *name;
    void *library;
    ct_plugin_entry_function *entry;
    *out = NULL;
    CT_TRY(open_library(&library, &name));
    void *symbol = dlsym(library, CT_PLUGIN_ENTRY);
    if (!symbol)
        return ct_fail(CT_UNSUPPORTED, "%s is no plugin of this package", name);
    memcpy(&entry, &symbol, sizeof entry);
    const ct_plugin *plugin = entry();
    CT_TRY(check_plugin(plugin, name));
    plugin->connect(&services);
    *out = plugin->ops;
    return CT_OK;
}

/* What was opened stays so: others have pointers into it, and it has registered itself with CUDA.
 */
static ct_status open_library(void **out, const char **name)
{
    *name = getenv("CURATED_TRANSFORMERS_CUDA_PLUGIN");
    if (!*name || !**name) {
        *name = own_place;
        if (!own_place[0] || access(own_place, F_OK) != 0)
            return ct_fail(CT_UNSUPPORTED, "this build has no CUDA support: install from source "
                                           "where nvcc is found, or from a wheel that has it");
    }
    *out = dlopen(*name, RTLD_NOW | RTLD_LOCAL);
    if (!*out)
        return ct_fail(CT_UNSUPPORTED, "the CUDA plugin cannot be loaded: %s", dlerror());
    return CT_OK;
}

static ct_status check_plugin(const ct_plugin *plugin, const char *name)
{
    if (plugin->abi == CT_PLUGIN_ABI && plugin->size == sizeof *plugin &&
        plugin->services_size == sizeof services)
        return CT_OK;
    return ct_fail(CT_UNSUPPORTED,
                   "%s is of plugin ABI %u (%u and %u bytes); this core needs ABI %u (%zu and %zu "
                   "bytes): build both from one version",
                   name, plugin->abi, plugin->size, plugin->services_size, CT_PLUGIN_ABI,
                   sizeof *plugin, sizeof services);
}

static ct_status fail_with_text(ct_status code, const char *text)
{
    return ct_fail(code, "%s", text);
}
