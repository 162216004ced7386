/* The processor's features by the compiler's CPUID support (which also asks whether the system
 * saves the registers), and the cores of the affinity mask within the cgroup's quota. */
#include "core/cpuinfo.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <unistd.h>

#ifdef __x86_64__
#include <cpuid.h>
#endif
#ifdef __aarch64__
#include <sys/auxv.h>
#endif

#define AVX_VNNI (1u << 4) /* of EAX, where the extended features go on */

static ct_cpuinfo info;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* The number of whole cores that a quota of `quota` microseconds each `period` allows. */
static int cores_of_quota(long long quota, long long period)
{
    if (quota <= 0 || period <= 0)
        return 0;
    long long cores = (quota + period - 1) / period;
    return cores > 1 << 20 ? 0 : (int)cores;
}

static int cgroup_cores(void)
{
    long long quota = 0, period = 0;
    FILE *file = fopen("/sys/fs/cgroup/cpu.max", "re");
    if (file) {
        if (fscanf(file, "%lld %lld", &quota, &period) != 2)
            quota = 0; /* "max" */
        fclose(file);
        return cores_of_quota(quota, period);
    }
    FILE *quota_file = fopen("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "re");
    FILE *period_file = fopen("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "re");
    if (!quota_file || !period_file || fscanf(quota_file, "%lld", &quota) != 1 ||
        fscanf(period_file, "%lld", &period) != 1)
        quota = 0;
    if (quota_file)
        fclose(quota_file);
    if (period_file)
        fclose(period_file);
    return cores_of_quota(quota, period);
}

static void read_info(void)
{
#ifdef __x86_64__
    __builtin_cpu_init();
    unsigned a, b, c = 0, d; /* clang 14 knows no name for F16C; AVX2 vouches for the system */
    bool f16c = __get_cpuid(1, &a, &b, &c, &d) && c & bit_F16C;
    info.avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && f16c;
    info.avx_vnni = info.avx2 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && a & AVX_VNNI;
    info.avx512 = info.avx2 && __builtin_cpu_supports("avx512f") &&
                  __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                  __builtin_cpu_supports("avx512vl");
    info.avx512_bf16 = info.avx512 && __builtin_cpu_supports("avx512bf16");
    info.avx512_vnni = info.avx512 && __builtin_cpu_supports("avx512vnni");
#endif
#ifdef __aarch64__
    info.neon_dot = getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
#endif
    cpu_set_t mask;
    if (sched_getaffinity(0, sizeof mask, &mask) == 0)
        info.n_cores = CPU_COUNT(&mask);
    else /* more processors than a cpu_set_t has room for */
        info.n_cores = (int)sysconf(_SC_NPROCESSORS_ONLN);
    int limit = cgroup_cores();
    if (limit > 0 && limit < info.n_cores)
        info.n_cores = limit;
    if (info.n_cores < 1)
        info.n_cores = 1;
}

const ct_cpuinfo *ct_cpuinfo_get(void)
{
    pthread_once(&once, read_info);
    return &info;
}
