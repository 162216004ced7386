/* The thread's message: a fixed buffer, so that reporting a failure cannot itself fail. */
#include "core/status.h"

#include <stdarg.h>
#include <stdio.h>

static _Thread_local char message[1024];

ct_status ct_fail(ct_status code, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    return code;
}

const char *ct_message(void)
{
    return message;
}
