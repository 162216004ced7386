/* CUDA's programming model on the host, for tests: the threads of a block are fibers of one thread,
 * which run until they wait for each other. A barrier that not all threads reach, or a warp
 * operation that not all lanes reach, ends the program with a message. Blocks run one after the
 * other. Division into warps, indices, barriers and numerics are checked by this (up to fused
 * multiply-adds), and races by races.h. */
#ifndef CT_CUDA_HOST_FIBERS_H
#define CT_CUDA_HOST_FIBERS_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <functional>

#include "csrc.h"
#include "host/races.h"

struct ct_dim3 {
    unsigned x, y, z;
    ct_dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z)
    {
    }
};
typedef ct_dim3 dim3;

struct uint4 {
    uint32_t x, y, z, w;
};

typedef void *cudaStream_t;

#define __restrict__ __restrict

struct ct_fiber_place {
    dim3 thread, block, block_size, grid_size;
};

/* Of the fiber that runs. */
extern thread_local ct_fiber_place ct_here;
#define threadIdx ct_here.thread
#define blockIdx ct_here.block
#define blockDim ct_here.block_size
#define gridDim ct_here.grid_size

/* Runs body once for each thread of each block; `early`: a kernel of CT_KERNEL_EARLY. */
void ct_host_launch(dim3 grid, dim3 block, size_t shared, bool early,
                    const std::function<void()> &body);

/* A call of the kernel with the arguments as they are now. */
template <typename... P, typename... A>
std::function<void()> ct_host_bind(void (*kernel)(P...), A... arguments)
{
    return [=] { kernel(arguments...); };
}

/* A shared array: memory of the block that runs, the same for all its threads. `key` tells the
 * declarations of a kernel apart. */
void *ct_host_shared(const void *key, size_t size);
void *ct_dynamic_shared();

void ct_barrier();
void ct_warp_barrier();
/* What is copied is not there until the thread has waited, nor is what was there before. */
void ct_copy_async(void *to, const void *from, int n);
void ct_wait_copies();
void ct_wait_for_earlier();
/* Every lane of the warp hands in 8 bytes and gets those of all. */
const uint64_t *ct_warp_exchange(uint64_t mine);

/* Now, or as part of what is being recorded. */
void ct_host_do(const std::function<void()> &work);

#define CT_KERNEL static void
#define CT_DEVICE static inline
#define CT_CONSTANT constexpr
#define CT_BOUNDS(threads, blocks)
#define CT_UNROLL
#define CT_UNROLL_BY(n)
/* One for all devices: a launch is over before another begins, whichever thread asks for it, and
 * what is counted in between is zero then. */
#define CT_KEPT(type, name, n) static type name[n]
#define CT_SHARED(type, name, n)                                                                   \
    static const char name##_key = 0;                                                              \
    type *const name = (type *)ct_host_shared(&name##_key, sizeof(type) * (size_t)(n))

template <typename T> CT_DEVICE T ct_shuffle(T value, int lane)
{
    uint64_t word = 0;
    static_assert(sizeof value <= sizeof word, "a lane hands in 8 bytes at most");
    memcpy(&word, &value, sizeof value);
    memcpy(&value, &ct_warp_exchange(word)[lane], sizeof value);
    return value;
}

CT_DEVICE int ct_lane()
{
    return (int)((threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % 32);
}

template <typename T> CT_DEVICE T ct_shuffle_xor(T value, int mask)
{
    return ct_shuffle(value, ct_lane() ^ mask);
}

CT_DEVICE uint32_t ct_ballot(bool predicate)
{
    const uint64_t *lanes = ct_warp_exchange(predicate);
    uint32_t bits = 0;
    for (int i = 0; i < 32; i++)
        bits |= (uint32_t)lanes[i] << i;
    return bits;
}

CT_DEVICE int ct_popcount(uint32_t bits)
{
    return __builtin_popcount(bits);
}

/* Atomic operations are told as what they are. */
#define CT_ATOMIC __attribute__((no_sanitize_thread))

template <typename T> CT_ATOMIC CT_DEVICE T ct_atomic_add(T *place, T value)
{
    ct_races_atomic(place, sizeof value);
    T old = *place;
    *place += value;
    return old;
}

CT_DEVICE void ct_fence()
{
    ct_races_fence();
}

CT_ATOMIC CT_DEVICE bool ct_count_to(unsigned *counter, unsigned n)
{
    ct_races_atomic(counter, sizeof *counter);
    ct_races_count(counter);
    unsigned before = *counter;
    *counter = before >= n - 1 ? 0 : before + 1;
    return before == n - 1;
}

CT_DEVICE float ct_half_to_float(uint16_t bits)
{
    return ct_f16_to_f32(bits);
}

CT_DEVICE uint16_t ct_float_to_half(float value)
{
    return ct_f16_from_f32(value);
}

CT_DEVICE float ct_float_of_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

CT_DEVICE uint32_t ct_bits_of_float(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* The file is compiled without contraction. */
CT_DEVICE float ct_mul_exact(float a, float b)
{
    return a * b;
}
CT_DEVICE float ct_add_exact(float a, float b)
{
    return a + b;
}
CT_DEVICE float ct_div_exact(float a, float b)
{
    return a / b;
}
CT_DEVICE int ct_round_to_int(float value)
{
    return (int)nearbyintf(value);
}

CT_DEVICE uint32_t ct_byte(uint32_t word, int i)
{
    return word >> 8 * i & 255u;
}

CT_DEVICE int ct_dot4(uint32_t a, uint32_t b, int c)
{
    for (int i = 0; i < 32; i += 8)
        c += (int8_t)(a >> i) * (int8_t)(b >> i);
    return c;
}

CT_DEVICE uint4 ct_load16(const void *address)
{
    uint4 value;
    memcpy(&value, __builtin_assume_aligned(address, 16), sizeof value);
    return value;
}

CT_DEVICE void ct_prefetch(const void *)
{
}

CT_DEVICE void ct_store16(void *address, uint4 value)
{
    memcpy(__builtin_assume_aligned(address, 16), &value, sizeof value);
}

CT_DEVICE uint4 ct_load_stream(const void *address)
{
    return ct_load16(address);
}

CT_DEVICE uint32_t ct_pack_bfloats(float first, float second)
{
    return ct_bf16_from_f32(first) | (uint32_t)ct_bf16_from_f32(second) << 16;
}

CT_DEVICE uint32_t ct_pack_halves(float first, float second)
{
    return ct_f16_from_f32(first) | (uint32_t)ct_f16_from_f32(second) << 16;
}

CT_DEVICE float ct_exp2(float x)
{
    float power = exp2f(x);
    return power < 0x1p-126f ? 0 : power;
}

/* Products of a word's parts, added one by one. */
CT_DEVICE float ct_mma_bfloats(uint32_t a, uint32_t b, float sum)
{
    sum += ct_float_of_bits(a << 16) * ct_float_of_bits(b << 16);
    return sum + ct_float_of_bits(a & 0xffff0000u) * ct_float_of_bits(b & 0xffff0000u);
}

CT_DEVICE float ct_mma_two_halves(uint32_t a, uint32_t b, float sum)
{
    sum += ct_half_to_float((uint16_t)a) * ct_half_to_float((uint16_t)b);
    return sum + ct_half_to_float((uint16_t)(a >> 16)) * ct_half_to_float((uint16_t)(b >> 16));
}

/* The layouts are those of the PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point
 * type" and "for mma.m16n8k32". */
template <typename T>
CT_DEVICE void ct_mma_by(T (*add_word)(uint32_t, uint32_t, T), T *d, const uint32_t *a,
                         const uint32_t *b)
{
    uint64_t words[3][32]; /* of all lanes: low and high row of a, first and second word; b */
    const uint64_t mine[3] = {a[0] | (uint64_t)a[2] << 32, a[1] | (uint64_t)a[3] << 32,
                              b[0] | (uint64_t)b[1] << 32};
    for (int i = 0; i < 3; i++)
        memcpy(words[i], ct_warp_exchange(mine[i]), sizeof words[i]);
    int group = ct_lane() / 4, first = ct_lane() % 4 * 2;
    for (int i = 0; i < 4; i++) {
        const uint64_t *row = words[i / 2] + group * 4, *column = words[2] + (first + i % 2) * 4;
        for (int t = 0; t < 8; t++)
            d[i] = add_word((uint32_t)(row[t % 4] >> t / 4 * 32),
                            (uint32_t)(column[t % 4] >> t / 4 * 32), d[i]);
    }
}

CT_DEVICE void ct_mma(float *d, const uint32_t *a, const uint32_t *b)
{
    ct_mma_by(ct_mma_bfloats, d, a, b);
}

CT_DEVICE void ct_mma(int *d, const uint32_t *a, const uint32_t *b)
{
    ct_mma_by(ct_dot4, d, a, b);
}

CT_DEVICE void ct_mma_halves(float *d, const uint32_t *a, const uint32_t *b)
{
    ct_mma_by(ct_mma_two_halves, d, a, b);
}

/* Element [row, column] of the matrix whose rows the lanes from `rows` on have handed in. */
CT_DEVICE uint32_t ct_matrix_element(const uint64_t *rows, int row, int column)
{
    const void *begin = __builtin_assume_aligned((const void *)rows[row], 16);
    return ((const uint16_t *)begin)[column];
}

/* By the text on ldmatrix in the PTX ISA: addresses of eight lanes are the rows of a matrix, four
 * lanes get a row, and .trans is the same of the matrix by columns. */
CT_DEVICE void ct_load_matrices_by(bool columns, uint32_t *words, const void *row)
{
    uint64_t rows[32];
    memcpy(rows, ct_warp_exchange((uint64_t)row), sizeof rows);
    int line = ct_lane() / 4, first = ct_lane() % 4 * 2;
    for (int i = 0; i < 4; i++) {
        words[i] = 0;
        for (int j = 0; j < 2; j++)
            words[i] |= (columns ? ct_matrix_element(rows + 8 * i, first + j, line)
                                 : ct_matrix_element(rows + 8 * i, line, first + j))
                        << 16 * j;
    }
}

CT_DEVICE void ct_load_matrices(uint32_t (&words)[4], const void *row)
{
    ct_load_matrices_by(false, words, row);
}

CT_DEVICE void ct_load_transposed(uint32_t (&words)[4], const void *row)
{
    ct_load_matrices_by(true, words, row);
}

#define CT_KERNEL_CALL(kernel, grid, block, shared, stream, ...)                                   \
    CT_HOST_LAUNCH(false, kernel, grid, block, shared, stream, __VA_ARGS__)
#define CT_KERNEL_EARLY(kernel, grid, block, shared, stream, ...)                                  \
    CT_HOST_LAUNCH(true, kernel, grid, block, shared, stream, __VA_ARGS__)
#define CT_HOST_LAUNCH(early, kernel, grid, block, shared, stream, ...)                            \
    ((void)(stream),                                                                               \
     ct_host_do([grid_ = dim3(grid), block_ = dim3(block), shared_ = (size_t)(shared),             \
                 body_ = ct_host_bind(kernel, __VA_ARGS__)] {                                      \
         ct_host_launch(grid_, block_, shared_, early, body_);                                     \
     }))

#endif
