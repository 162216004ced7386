/* Status codes and the calling thread's error message.
 *
 * A function that can fail returns ct_status. Whoever detects the failure calls ct_fail once, where
 * the offending values are known; everybody above hands the code up unchanged. */
#ifndef CT_CORE_STATUS_H
#define CT_CORE_STATUS_H

/* X(code, Python exception that it becomes) */
#define CT_STATUS_CODES(X)                                                                         \
    X(CT_OK, "")                                                                                   \
    X(CT_VALUE, "ValueError")                                                                      \
    X(CT_TYPE, "TypeError")                                                                        \
    X(CT_INDEX, "IndexError")                                                                      \
    X(CT_MEMORY, "MemoryError")                                                                    \
    X(CT_IO, "OSError")                                                                            \
    X(CT_NOT_FOUND, "FileNotFoundError")                                                           \
    X(CT_UNSUPPORTED, "NotImplementedError")                                                       \
    X(CT_BUFFER, "BufferError")                                                                    \
    X(CT_INTERRUPTED, "KeyboardInterrupt")                                                         \
    X(CT_INTERNAL, "RuntimeError")

#define CT_STATUS_ENUM(code, exception) code,
typedef enum ct_status_code { CT_STATUS_CODES(CT_STATUS_ENUM) } ct_status_code;
#undef CT_STATUS_ENUM

#define CT_MUST_CHECK __attribute__((warn_unused_result))
typedef ct_status_code ct_status;

/* Sets the thread's message (printf rules, cut at 1023 bytes) and returns `code`. */
CT_MUST_CHECK ct_status ct_fail(ct_status code, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The message of the last ct_fail on this thread; "" before the first. Valid until the next one. */
const char *ct_message(void);

/* Hands a failure up from a function that owns nothing yet. */
#define CT_TRY(call)                                                                               \
    do {                                                                                           \
        ct_status ct_try_status = (call);                                                          \
        if (ct_try_status != CT_OK)                                                                \
            return ct_try_status;                                                                  \
    } while (0)

/* The same from one that does: needs a `ct_status status` in scope and jumps to `label`. */
#define CT_TRY_TO(label, call)                                                                     \
    do {                                                                                           \
        status = (call);                                                                           \
        if (status != CT_OK)                                                                       \
            goto label;                                                                            \
    } while (0)

#endif
