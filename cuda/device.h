/* What kernels are written with. The same source is compiled by nvcc for a GPU, and by the host's
 * C++ compiler for the tests without one, where each thread of a block is a fiber (host/fibers.h).
 *
 * So that both work: shared arrays by CT_SHARED and ct_dynamic_shared(), what a device keeps
 * between launches by CT_KEPT; barriers, shuffles and other warp operations by the functions below,
 * reached by all lanes of a warp (ct_barrier: by all threads of a block); launches by
 * CT_KERNEL_CALL. No inline PTX outside this file. */
#ifndef CT_CUDA_DEVICE_H
#define CT_CUDA_DEVICE_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#define CT_WARP 32

#ifdef __CUDACC__

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#define CT_KERNEL static __global__ void
#define CT_DEVICE static __device__ __forceinline__
#define CT_CONSTANT __host__ __device__ constexpr /* functions of template arguments */
#define CT_BOUNDS(threads, blocks) __launch_bounds__(threads, blocks)
#define CT_SHARED(type, name, n) __shared__ type name[n]
#define CT_KEPT(type, name, n) static __device__ type name[n] /* zeros at first, on each device */
#define CT_PRAGMA(text) _Pragma(#text)
#define CT_UNROLL CT_PRAGMA(unroll) /* the loop that follows; CT_UNROLL_BY(1): not */
#define CT_UNROLL_BY(n) CT_PRAGMA(unroll n)

CT_DEVICE void *ct_dynamic_shared()
{
    extern __shared__ __align__(16) unsigned char ct_shared_bytes[];
    return ct_shared_bytes;
}

CT_DEVICE void ct_barrier()
{
    __syncthreads();
}

CT_DEVICE void ct_warp_barrier()
{
    __syncwarp();
}

template <typename T> CT_DEVICE T ct_shuffle(T value, int lane)
{
    return __shfl_sync(0xffffffffu, value, lane);
}

template <typename T> CT_DEVICE T ct_shuffle_xor(T value, int mask)
{
    return __shfl_xor_sync(0xffffffffu, value, mask);
}

CT_DEVICE uint32_t ct_ballot(bool predicate)
{
    return __ballot_sync(0xffffffffu, predicate);
}

CT_DEVICE int ct_popcount(uint32_t bits)
{
    return __popc(bits);
}

template <typename T> CT_DEVICE T ct_atomic_add(T *place, T value)
{
    return atomicAdd(place, value);
}

/* What this thread wrote to global memory before is seen by whoever sees what it writes behind. */
CT_DEVICE void ct_fence()
{
    __threadfence();
}

/* In a kernel of CT_KERNEL_EARLY: from here on what the kernel before has written is there. Before,
 * a thread reads but what no kernel of the recording writes, and writes nothing outside its block.
 * Every thread comes here, once at least; then the next kernel may begin in turn, so that no more
 * than two are under way. */
CT_DEVICE void ct_wait_for_earlier()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}

/* Whether this call is the last of `n` that count at `counter`: zero before, and then again. */
CT_DEVICE bool ct_count_to(unsigned *counter, unsigned n)
{
    return atomicInc(counter, n - 1) == n - 1;
}

CT_DEVICE float ct_half_to_float(uint16_t bits)
{
    return __half2float(__ushort_as_half(bits));
}

CT_DEVICE uint16_t ct_float_to_half(float value)
{
    return __half_as_ushort(__float2half_rn(value));
}

CT_DEVICE float ct_float_of_bits(uint32_t bits)
{
    return __uint_as_float(bits);
}

CT_DEVICE uint32_t ct_bits_of_float(float value)
{
    return __float_as_uint(value);
}

/* Exact roundings, never fused or approximated: what has to have the CPU's bits. */
CT_DEVICE float ct_mul_exact(float a, float b)
{
    return __fmul_rn(a, b);
}
CT_DEVICE float ct_add_exact(float a, float b)
{
    return __fadd_rn(a, b);
}
CT_DEVICE float ct_div_exact(float a, float b)
{
    return __fdiv_rn(a, b);
}
CT_DEVICE int ct_round_to_int(float value)
{
    return __float2int_rn(value);
}

/* Byte i of a word, by one instruction: the compiler would rather shift and mask it to where it is
 * needed next. */
CT_DEVICE uint32_t ct_byte(uint32_t word, int i)
{
    return __byte_perm(word, 0, 0x4440 + i);
}

/* a . b + c of four signed bytes each. */
CT_DEVICE int ct_dot4(uint32_t a, uint32_t b, int c)
{
    return __dp4a((int)a, (int)b, c);
}

/* 16 bytes at an address that is a multiple of 16, and are read once: they do not stay in L1. */
CT_DEVICE uint4 ct_load_stream(const void *address)
{
    return __ldcs((const uint4 *)address);
}

CT_DEVICE uint4 ct_load16(const void *address)
{
    return *(const uint4 *)address;
}

/* Brings the line of an address to the L2 cache. */
CT_DEVICE void ct_prefetch(const void *address)
{
    asm volatile("prefetch.global.L2 [%0];" ::"l"(address));
}

CT_DEVICE void ct_store16(void *address, uint4 value)
{
    *(uint4 *)address = value;
}

/* 16 bytes from global to shared memory, both at multiples of 16, which arrive when the thread has
 * waited; of the source `n` are read, the rest become zeros. Other threads see them behind a
 * barrier that follows. */
CT_DEVICE void ct_copy_async(void *to, const void *from, int n)
{
    uint32_t place = (uint32_t)__cvta_generic_to_shared(to);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(place), "l"(from), "r"(n)
                 : "memory");
}

/* For all copies of this thread. */
CT_DEVICE void ct_wait_copies()
{
    asm volatile("cp.async.wait_all;" ::: "memory");
}

/* Two to the power x, to 2 units in the last place; what is too small for a normal number is 0. */
CT_DEVICE float ct_exp2(float x)
{
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
    return power;
}

/* Two f16 in a word, the first in its low half. */
CT_DEVICE uint32_t ct_pack_halves(float first, float second)
{
    __half2 pair = __floats2half2_rn(first, second);
    return *(uint32_t *)&pair;
}

/* Two bf16 likewise. */
CT_DEVICE uint32_t ct_pack_bfloats(float first, float second)
{
    __nv_bfloat162 pair = __floats2bfloat162_rn(first, second);
    return *(uint32_t *)&pair;
}

/* d += a b, by the tensor cores, of a warp: a [16, 8 words] by rows, b [8 words, 8] by columns, d
 * [16, 8]; a word is two bf16, and sums are f32, or it is four signed bytes, and sums are exact.
 * Lane 4 g + t holds of a {row g word t, row g + 8 word t, row g word t + 4, row g + 8 word t + 4},
 * of b {column g word t, word t + 4}, of d {row g columns 2 t and 2 t + 1, row g + 8 the same}. */
CT_DEVICE void ct_mma(float *d, const uint32_t *a, const uint32_t *b)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* Of words of two f16. */
CT_DEVICE void ct_mma_halves(float *d, const uint32_t *a, const uint32_t *b)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

CT_DEVICE void ct_mma(int *d, const uint32_t *a, const uint32_t *b)
{
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* Four matrices of 8 rows of 4 words in shared memory: lane 8 i + r hands in where row r of matrix
 * i begins, a multiple of 16. Lane 4 g + t gets word t of row g of each. */
CT_DEVICE void ct_load_matrices(uint32_t (&words)[4], const void *row)
{
    uint32_t place = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(place)
                 : "memory");
}

/* The same of their transposes, as matrices of 8 by 8 halves of words: lane 4 g + t gets what
 * stands in column g in rows 2 t and, in the upper half, 2 t + 1. */
CT_DEVICE void ct_load_transposed(uint32_t (&words)[4], const void *row)
{
    uint32_t place = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(place)
                 : "memory");
}

#define CT_KERNEL_CALL(kernel, grid, block, shared, stream, ...)                                   \
    kernel<<<grid, block, shared, stream>>>(__VA_ARGS__)

/* Where kernels may overlap (ct_cuda_overlaps) this one begins as soon as those before it leave
 * room, and its weights are on their way while they end; see ct_wait_for_earlier. */
#define CT_KERNEL_EARLY(kernel, grid, block, shared, stream, ...)                                  \
    ct_launch_early(kernel, grid, block, shared, stream, __VA_ARGS__)

bool ct_cuda_overlaps();

template <typename... P, typename... A>
static inline void ct_launch_early(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared,
                                   cudaStream_t stream, const A &...arguments)
{
    cudaLaunchAttribute early = {};
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t launch = {};
    launch.gridDim = grid;
    launch.blockDim = block;
    launch.dynamicSmemBytes = shared;
    launch.stream = stream;
    launch.attrs = &early;
    launch.numAttrs = ct_cuda_overlaps() ? 1 : 0;
    cudaLaunchKernelEx(&launch, kernel, arguments...); /* ct_cuda_launched tells a failure */
}

#else /* the host */

#include "host/fibers.h"

#endif

CT_DEVICE float ct_bfloat_to_float(uint16_t bits)
{
    return ct_float_of_bits((uint32_t)bits << 16);
}

/* To nearest, ties to even; NaN stays NaN. */
CT_DEVICE uint16_t ct_float_to_bfloat(float value)
{
    uint32_t bits = ct_bits_of_float(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(bits >> 16 | 0x40u);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

/* Four at an address that is a multiple of 16. */
CT_DEVICE void ct_load_floats(float values[4], const float *address)
{
    uint4 four = ct_load16(address);
    values[0] = ct_float_of_bits(four.x);
    values[1] = ct_float_of_bits(four.y);
    values[2] = ct_float_of_bits(four.z);
    values[3] = ct_float_of_bits(four.w);
}

/* ---- over a warp ---- */

CT_DEVICE float ct_warp_sum(float value)
{
    for (int mask = CT_WARP / 2; mask > 0; mask /= 2)
        value += ct_shuffle_xor(value, mask);
    return value;
}

CT_DEVICE float ct_warp_max(float value)
{
    for (int mask = CT_WARP / 2; mask > 0; mask /= 2)
        value = fmaxf(value, ct_shuffle_xor(value, mask));
    return value;
}

/* ---- over a block of up to 1024 threads in one dimension; all threads get the result ---- */

/* What each warp hands in, for all threads. */
CT_DEVICE const float *ct_block_parts(float value)
{
    CT_SHARED(float, parts, CT_WARP);
    ct_barrier(); /* a call before this one may still be reading */
    if (threadIdx.x % CT_WARP == 0)
        parts[threadIdx.x / CT_WARP] = value;
    ct_barrier();
    return parts;
}

CT_DEVICE int ct_block_warps()
{
    return (int)((blockDim.x + CT_WARP - 1) / CT_WARP);
}

CT_DEVICE float ct_block_sum(float value)
{
    const float *parts = ct_block_parts(ct_warp_sum(value));
    float sum = 0;
    for (int i = 0; i < ct_block_warps(); i++)
        sum += parts[i];
    return sum;
}

CT_DEVICE float ct_block_max(float value)
{
    const float *parts = ct_block_parts(ct_warp_max(value));
    float most = parts[0];
    for (int i = 1; i < ct_block_warps(); i++)
        most = fmaxf(most, parts[i]);
    return most;
}

/* Whether this block is the last of `n` that come here, each once, for which it then sees what all
 * of them wrote to global memory before. No block waits for another. `counter` (CT_KEPT) is zero
 * before, and then again. */
CT_DEVICE bool ct_block_is_last(unsigned *counter, unsigned n)
{
    CT_SHARED(bool, last, 1);
    ct_fence();
    ct_barrier();
    if (threadIdx.x == 0)
        last[0] = ct_count_to(counter, n);
    ct_barrier();
    ct_fence();
    return last[0];
}

#endif
