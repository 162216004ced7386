/* Rotation of queries and keys, and the new ones' way into the cache. */
#ifndef CT_CUDA_ROTARY_H
#define CT_CUDA_ROTARY_H

#include "csrc.h"
#include "device.h"

/* What rotates a feature of a head: it, times cos, plus another feature times sin. */
typedef struct ct_turn {
    int other; /* -1: the feature stays as it is */
    float cos, sin;
} ct_turn;

CT_DEVICE ct_turn ct_turn_of(const ct_rotary &rotary, int64_t row, int feature)
{
    int width = (int)rotary.width, half = width / 2;
    if (feature >= width)
        return {-1, 1, 0};
    bool second = rotary.interleaved ? feature % 2 : feature >= half;
    int pair = rotary.interleaved ? feature / 2 : second ? feature - half : feature;
    int64_t angle = rotary.positions[row] * (int64_t)half + pair;
    int step = rotary.interleaved ? 1 : half;
    float sin = rotary.sin[angle];
    return {second ? feature - step : feature + step, rotary.cos[angle], second ? sin : -sin};
}

/* One rounding at a time: so who rotates a value makes no difference to its bits. */
CT_DEVICE float ct_turned(float value, float other, const ct_turn &turn)
{
    return fmaf(value, turn.cos, ct_mul_exact(other, turn.sin));
}

CT_DEVICE float ct_turned_feature(const float *head, int feature, const ct_turn &turn)
{
    return turn.other < 0 ? head[feature] : ct_turned(head[feature], head[turn.other], turn);
}

/* rotary.cu: rotates in place and appends, all rows, in a launch of its own. */
CT_MUST_CHECK ct_status ct_cuda_rotary_append(const ct_attention_args *args);

#endif
