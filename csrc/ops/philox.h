/* Philox 4x32-10, a counter-based random generator (Salmon et al. 2011): the same seed, row and
 * step give the same number on every device, whatever was drawn before. */
#ifndef CT_OPS_PHILOX_H
#define CT_OPS_PHILOX_H

#include <stdint.h>

/* A number in [0, 1) of 53 random bits. */
static inline double ct_philox_uniform(uint64_t seed, uint64_t row, uint64_t step)
{
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t counter[4] = {(uint32_t)step, (uint32_t)(step >> 32), (uint32_t)row,
                           (uint32_t)(row >> 32)};
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xD2511F53 * counter[0], b = (uint64_t)0xCD9E8D57 * counter[2];
        uint32_t next[4] = {(uint32_t)(b >> 32) ^ counter[1] ^ key[0], (uint32_t)b,
                            (uint32_t)(a >> 32) ^ counter[3] ^ key[1], (uint32_t)a};
        for (int i = 0; i < 4; i++)
            counter[i] = next[i];
        key[0] += 0x9E3779B9;
        key[1] += 0xBB67AE85;
    }
    uint64_t bits = ((uint64_t)counter[0] << 32 | counter[1]) >> 11;
    return (double)bits * 0x1p-53;
}

#endif
