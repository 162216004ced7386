/* Tables for every level that this CPU has, built once. */
#include "cpu/isa/select.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "core/cpuinfo.h"

static const char *const names[CT_ISA_COUNT] = {"portable", "neon", "avx2", "avx512"};
static ct_kernels tables[CT_ISA_COUNT];
static ct_isa best;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void build(void)
{
    ct_kernels_portable(&tables[CT_ISA_PORTABLE]);
#ifdef __aarch64__
    best = CT_ISA_NEON;
    tables[best] = tables[CT_ISA_PORTABLE];
    ct_kernels_neon(&tables[best]);
#endif
#ifdef __x86_64__
    const ct_cpuinfo *cpu = ct_cpuinfo_get();
    if (cpu->avx2) {
        best = CT_ISA_AVX2;
        tables[best] = tables[CT_ISA_PORTABLE];
        ct_kernels_avx2(&tables[best]);
    }
    if (cpu->avx512) {
        best = CT_ISA_AVX512;
        tables[best] = tables[CT_ISA_AVX2];
        ct_kernels_avx512(&tables[best]);
    }
#endif
}

const char *ct_isa_name(ct_isa isa)
{
    return names[isa];
}

ct_status ct_kernels_for(ct_isa isa, const ct_kernels **out)
{
    pthread_once(&once, build);
    *out = NULL;
    if (!tables[isa].name)
        return ct_fail(CT_UNSUPPORTED, "this processor has no %s; its best level is %s", names[isa],
                       names[best]);
    *out = &tables[isa];
    return CT_OK;
}

ct_status ct_kernels_select(ct_isa *isa, const ct_kernels **out)
{
    pthread_once(&once, build);
    *isa = best;
    const char *wanted = getenv("CURATED_TRANSFORMERS_ISA");
    if (wanted && *wanted) {
        int i = 0;
        while (i < CT_ISA_COUNT && strcmp(names[i], wanted) != 0)
            i++;
        if (i == CT_ISA_COUNT)
            return ct_fail(CT_VALUE,
                           "CURATED_TRANSFORMERS_ISA is `%.40s`; known levels: portable, neon, "
                           "avx2, avx512",
                           wanted);
        *isa = (ct_isa)i;
    }
    return ct_kernels_for(*isa, out);
}
