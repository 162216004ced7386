/* The plugin's side of ops/plugin.h: functions of the core by their own names, each a jump through
 * the table that the core handed over, and the entry by which the core finds this plugin. Tests
 * that link the core itself do without this file. */
#include "ops.h"

#include <stdarg.h>
#include <stdio.h>

extern "C" {
#include "ops/plugin.h"
}

static const ct_services *core;

extern "C" {

/* Its arguments cannot be handed on, so the text is. */
ct_status ct_fail(ct_status code, const char *format, ...)
{
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return core->fail(code, text);
}

#define SERVICE(result, name, parameters, names)                                                   \
    result name parameters                                                                         \
    {                                                                                              \
        return core->name names;                                                                   \
    }
CT_SERVICES(SERVICE)
#undef SERVICE

static void connect(const ct_services *services)
{
    core = services;
}

__attribute__((visibility("default"))) const ct_plugin *ct_plugin_entry()
{
    static const ct_plugin plugin = {CT_PLUGIN_ABI, sizeof(ct_plugin), sizeof(ct_services),
                                     &ct_cuda_table, connect};
    return &plugin;
}
}
