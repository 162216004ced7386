/* What this machine's processor can do, read once: instruction sets and the cores we may use. */
#ifndef CT_CORE_CPUINFO_H
#define CT_CORE_CPUINFO_H

#include <stdbool.h>

typedef struct ct_cpuinfo {
    bool avx2;        /* AVX2, FMA and F16C, and the system saves their registers */
    bool avx_vnni;    /* vpdpbusd of 256 bits, which needs no AVX-512 */
    bool avx512;      /* F, BW, DQ and VL likewise */
    bool avx512_bf16; /* vdpbf16ps */
    bool avx512_vnni; /* vpdpbusd */
    bool neon_dot;    /* sdot, on ARM */
    int n_cores;      /* cores of the affinity mask, cut to the cgroup's CPU quota, at least 1 */
} ct_cpuinfo;

const ct_cpuinfo *ct_cpuinfo_get(void);

#endif
