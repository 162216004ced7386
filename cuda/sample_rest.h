/* What is left of a row of logits, and what a block of threads can ask about it: how much that
 * weighs, where a cut falls, which piece a place in the sum belongs to.
 *
 * Weights are summed as whole numbers, in units too small to matter: no order of adding gives
 * another sum, so that choices do not depend on how the work is divided. What weighs less than a
 * unit is never chosen. A place in the row is a piece, or an entry of a list of the few that are
 * left; both are in the pieces' order. */
#ifndef CT_CUDA_SAMPLE_REST_H
#define CT_CUDA_SAMPLE_REST_H

#include <float.h>

#include "csrc.h"
#include "device.h"
#include "fours.h"

#define CT_REST_UNITS 0x1p42f /* of the weight 1, that of the largest logit */
#define CT_REST_MAX (1 << 22) /* places: their sum has 64 bits */
#define CT_REST_LIST 4096     /* places that a list can have */
#define CT_REST_FOURS 4       /* loads of a thread that are under way at once */
#define CT_REST_CHUNK (CT_WARP * 4 * CT_REST_FOURS)
#define CT_REST_THREADS 512
#define CT_REST_BINS 2048 /* of a histogram over 11 bits */
#define CT_REST_STEPS 3   /* of them for 32 */

/* Weights are exp((logit - top) * factor). */
typedef struct ct_rest {
    const float *values;   /* logits */
    const int32_t *pieces; /* NULL: places are pieces */
    int32_t n;
    bool in_fours;
    float top, factor;  /* factor 0: not weighed yet */
    float least;        /* of logits; above minus infinity */
    float least_weight; /* what weighs just this is left up to the place last_equal */
    int32_t last_equal;
} ct_rest;

typedef struct ct_rest_list { /* [CT_REST_LIST] each */
    float *values;
    int32_t *pieces;
} ct_rest_list;

CT_DEVICE ct_rest ct_rest_all(const float *values, int32_t n, bool in_fours)
{
    return {values, nullptr, n, in_fours, 0, 0, -FLT_MAX, 0, INT32_MAX};
}

CT_DEVICE int32_t ct_rest_piece(const ct_rest &rest, int32_t place)
{
    return rest.pieces ? rest.pieces[place] : place;
}

/* ---- values ---- */

/* By its logit; NaN is never left. */
CT_DEVICE bool ct_rest_has(const ct_rest &rest, int32_t place, float value)
{
    return place < rest.n && value >= rest.least;
}

/* 0: not left. */
CT_DEVICE float ct_rest_weight(const ct_rest &rest, int32_t place, float value)
{
    if (!ct_rest_has(rest, place, value))
        return 0;
    float weight = expf(ct_mul_exact(value - rest.top, rest.factor));
    if (weight > rest.least_weight || (weight == rest.least_weight && place <= rest.last_equal))
        return weight;
    return 0;
}

CT_DEVICE uint64_t ct_rest_units(float weight)
{
    return (uint64_t)(weight * CT_REST_UNITS);
}

/* Of two numbers the larger has the larger key; zeros have one key. */
CT_DEVICE uint32_t ct_rest_key(float value)
{
    uint32_t bits = value == 0 ? 0 : ct_bits_of_float(value);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

CT_DEVICE float ct_rest_of_key(uint32_t key)
{
    return ct_float_of_bits(key >> 31 ? key & 0x7fffffffu : ~key);
}

/* ---- passes: a warp goes through its own stretch of places ---- */

/* body(place, values) for each four of the warp's stretch, by all its lanes at once: first a four
 * of each lane, then the next ones. Values behind the end are zeros. */
template <typename Body> CT_DEVICE void ct_rest_each(const ct_rest &rest, Body body)
{
    int32_t warp = threadIdx.x / CT_WARP, lane = threadIdx.x % CT_WARP;
    int32_t n_warps = blockDim.x / CT_WARP, chunks = (rest.n + CT_REST_CHUNK - 1) / CT_REST_CHUNK;
    int32_t each = (chunks + n_warps - 1) / n_warps;
    int32_t end = (warp + 1) * each < chunks ? (warp + 1) * each : chunks;
    for (int32_t chunk = warp * each; chunk < end; chunk++) {
        int32_t first = chunk * CT_REST_CHUNK + 4 * lane;
        float values[CT_REST_FOURS][4];
        for (int f = 0; f < CT_REST_FOURS; f++) {
            int32_t place = first + f * 4 * CT_WARP;
            ct_get4(values[f], CT_F32, rest.values, place, rest.n - place, rest.in_fours);
        }
        for (int f = 0; f < CT_REST_FOURS; f++)
            body(first + f * 4 * CT_WARP, values[f]);
    }
}

CT_DEVICE uint64_t ct_rest_warp_sum(uint64_t value)
{
    for (int mask = CT_WARP / 2; mask > 0; mask /= 2)
        value += ct_shuffle_xor(value, mask);
    return value;
}

/* Of the lanes up to this one. */
CT_DEVICE uint64_t ct_rest_warp_prefix(uint64_t value)
{
    int lane = threadIdx.x % CT_WARP;
    for (int step = 1; step < CT_WARP; step *= 2) {
        uint64_t other = ct_shuffle(value, lane >= step ? lane - step : lane);
        value += lane >= step ? other : 0;
    }
    return value;
}

/* Sums over the warps before this one, over itself, and over the block. */
typedef struct ct_rest_share {
    uint64_t before, own, total;
} ct_rest_share;

CT_DEVICE ct_rest_share ct_rest_share_of(uint64_t value)
{
    CT_SHARED(uint64_t, parts, CT_WARP);
    int warp = threadIdx.x / CT_WARP, n_warps = blockDim.x / CT_WARP;
    ct_rest_share share = {0, ct_rest_warp_sum(value), 0};
    ct_barrier(); /* a call before this one may still be reading */
    if (threadIdx.x % CT_WARP == 0)
        parts[warp] = share.own;
    ct_barrier();
    for (int i = 0; i < n_warps; i++) {
        share.before += i < warp ? parts[i] : 0;
        share.total += parts[i];
    }
    return share;
}

CT_DEVICE uint64_t ct_rest_block_max(uint64_t value)
{
    CT_SHARED(uint64_t, parts, CT_WARP);
    int n_warps = blockDim.x / CT_WARP;
    for (int mask = CT_WARP / 2; mask > 0; mask /= 2) {
        uint64_t other = ct_shuffle_xor(value, mask);
        value = other > value ? other : value;
    }
    ct_barrier();
    if (threadIdx.x % CT_WARP == 0)
        parts[threadIdx.x / CT_WARP] = value;
    ct_barrier();
    for (int i = 0; i < n_warps; i++)
        value = parts[i] > value ? parts[i] : value;
    return value;
}

/* ---- the largest ---- */

/* A logit with its place, as a number: of equal ones the first place is the largest. 0: none. */
CT_DEVICE uint64_t ct_rest_code(float value, int32_t place)
{
    return (uint64_t)ct_rest_key(value) << 32 | ~(uint32_t)place;
}

CT_DEVICE int32_t ct_rest_place(uint64_t code)
{
    return (int32_t) ~(uint32_t)code;
}

/* The largest code below `bound`. */
CT_DEVICE uint64_t ct_rest_largest(const ct_rest &rest, uint64_t bound)
{
    uint64_t best = 0;
    ct_rest_each(rest, [&](int32_t place, const float *values) {
        for (int j = 0; j < 4; j++) {
            uint64_t code = ct_rest_code(values[j], place + j);
            if (ct_rest_has(rest, place + j, values[j]) && code > best && code < bound)
                best = code;
        }
    });
    return ct_rest_block_max(best);
}

/* ---- sums ---- */

/* amount(place, value) is a whole number. */
template <typename Amount> CT_DEVICE ct_rest_share ct_rest_sum(const ct_rest &rest, Amount amount)
{
    uint64_t sum = 0;
    ct_rest_each(rest, [&](int32_t place, const float *values) {
        for (int j = 0; j < 4; j++)
            sum += amount(place + j, values[j]);
    });
    return ct_rest_share_of(sum);
}

/* The first place up to which the amounts are more than `wanted`, which is less than all of them;
 * `share` is their sum. */
template <typename Amount>
CT_DEVICE int32_t ct_rest_find(const ct_rest &rest, ct_rest_share share, uint64_t wanted,
                               Amount amount)
{
    CT_SHARED(int32_t, found, 1);
    uint64_t before = share.before;
    ct_barrier();
    if (before <= wanted && wanted < before + share.own) { /* all of the warp, or none */
        ct_rest_each(rest, [&](int32_t place, const float *values) {
            uint64_t amounts[4], own = 0;
            for (int j = 0; j < 4; j++)
                own += amounts[j] = amount(place + j, values[j]);
            uint64_t upto = ct_rest_warp_prefix(own), at = before + upto - own;
            for (int j = 0; j < 4; j++) {
                if (at <= wanted && wanted < at + amounts[j])
                    found[0] = place + j;
                at += amounts[j];
            }
            before += ct_shuffle(upto, CT_WARP - 1);
        });
    }
    ct_barrier();
    return found[0];
}

/* ---- cuts ---- */

/* The smallest number that stays, by its key; what is above it, and what has just this key. */
typedef struct ct_rest_cut {
    uint32_t key;
    uint64_t above, equal;
} ct_rest_cut;

/* Adds to a sum in two words, by the atomic operations on words that there are. */
CT_DEVICE void ct_rest_add(uint32_t *low, uint32_t *high, uint64_t amount)
{
    uint32_t part = (uint32_t)amount, old = ct_atomic_add(low, part);
    uint32_t rest = (uint32_t)(amount >> 32) + (old + part < old);
    if (rest)
        ct_atomic_add(high, rest);
}

/* Of bins from the largest on, the one with which the sum reaches `limit`. */
CT_DEVICE ct_rest_cut ct_rest_find_bin(const uint32_t *low, const uint32_t *high, uint64_t above,
                                       uint64_t limit)
{
    CT_SHARED(ct_rest_cut, found, 1);
    uint32_t each = (CT_REST_BINS + blockDim.x - 1) / blockDim.x, first = threadIdx.x * each;
    uint64_t own = 0;
    for (uint32_t i = first; i < first + each && i < CT_REST_BINS; i++)
        own += (uint64_t)high[CT_REST_BINS - 1 - i] << 32 | low[CT_REST_BINS - 1 - i];
    ct_rest_share share = ct_rest_share_of(own);
    limit = limit < above + share.total ? limit : above + share.total;
    above += share.before + ct_rest_warp_prefix(own) - own;
    if (above < limit && limit <= above + own) { /* one thread */
        uint32_t bin = CT_REST_BINS - 1 - first;
        uint64_t amount;
        while (above + (amount = (uint64_t)high[bin] << 32 | low[bin]) < limit) {
            above += amount;
            bin--;
        }
        found[0] = {bin, above, amount};
    }
    ct_barrier();
    return found[0];
}

/* The smallest number of which less than `limit`, at least 1, is above: of logits, which count 1
 * each, or of weights, which count what they weigh. Up to three steps, each a histogram over the
 * next bits of keys that have begun like the number looked for; with fewer the remaining bits of
 * the key are 0. */
template <bool BY_WEIGHT>
CT_DEVICE ct_rest_cut ct_rest_select(const ct_rest &rest, uint64_t limit, int steps)
{
    CT_SHARED(uint32_t, low, CT_REST_BINS);
    CT_SHARED(uint32_t, high, CT_REST_BINS);
    ct_rest_cut cut = {0, 0, 0};
    uint32_t known = 0;
    for (int step = 0; step < steps; step++) {
        int shift = step == 0 ? 21 : step == 1 ? 10 : 0;
        ct_barrier();
        for (int i = threadIdx.x; i < CT_REST_BINS; i += blockDim.x)
            low[i] = high[i] = 0;
        ct_barrier();
        ct_rest_each(rest, [&](int32_t place, const float *values) {
            for (int j = 0; j < 4; j++) {
                float weight = BY_WEIGHT ? ct_rest_weight(rest, place + j, values[j]) : 0;
                uint32_t key = BY_WEIGHT ? ct_bits_of_float(weight) : ct_rest_key(values[j]);
                if ((key & known) != cut.key)
                    continue;
                uint32_t bin = (key & ~known) >> shift;
                if constexpr (BY_WEIGHT)
                    ct_rest_add(&low[bin], &high[bin], ct_rest_units(weight));
                else if (ct_rest_has(rest, place + j, values[j]))
                    ct_atomic_add(&low[bin], 1u);
            }
        });
        ct_barrier();
        ct_rest_cut bin = ct_rest_find_bin(low, high, cut.above, limit);
        cut = {cut.key | bin.key << shift, bin.above, bin.equal};
        known = ~0u << shift;
    }
    return cut;
}

/* ---- lists ---- */

/* The rest as a list, if it has room: else as it is. */
CT_DEVICE ct_rest ct_rest_narrow(const ct_rest &rest, ct_rest_list list)
{
    auto is_left = [&](int32_t place, float value) -> uint64_t {
        return rest.factor == 0 ? ct_rest_has(rest, place, value)
                                : ct_rest_weight(rest, place, value) > 0;
    };
    ct_rest_share share = ct_rest_sum(rest, is_left);
    if (share.total > CT_REST_LIST)
        return rest;
    uint32_t to = (uint32_t)share.before, below = (1u << threadIdx.x % CT_WARP) - 1;
    ct_rest_each(rest, [&](int32_t place, const float *values) {
        uint32_t at = to;
        bool left[4];
        for (int j = 0; j < 4; j++) {
            left[j] = is_left(place + j, values[j]);
            uint32_t lanes = ct_ballot(left[j]);
            at += ct_popcount(lanes & below);
            to += ct_popcount(lanes);
        }
        for (int j = 0; j < 4; j++) {
            if (!left[j])
                continue;
            list.values[at] = values[j];
            list.pieces[at++] = ct_rest_piece(rest, place + j);
        }
    });
    ct_barrier();
    ct_rest narrowed = rest;
    narrowed.values = list.values;
    narrowed.pieces = list.pieces;
    narrowed.n = (int32_t)share.total;
    narrowed.in_fours = true;
    return narrowed;
}

#endif
