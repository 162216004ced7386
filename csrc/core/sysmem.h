/* How much memory this process may still take. */
#ifndef CT_CORE_SYSMEM_H
#define CT_CORE_SYSMEM_H

#include <stddef.h>

/* Bytes that the machine has to give, cut to what the cgroup's limit leaves; 1 GiB where the system
 * does not say. Asked anew each time. */
size_t ct_sysmem_available(void);

#endif
