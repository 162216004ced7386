/* Conversions of rows, written once for every vector ISA. Include after gemv_body.h, whose decoders
 * do the work for quantized formats. */

ALWAYS_INLINE void widen_row(float *dst, const void *src, int64_t n, gemv_decode decode,
                             gemv_decode_tail tail)
{
    int64_t step = 0;
    for (; (step + 1) * GEMV_STEP <= n; step++) {
        vec piece[GEMV_VECTORS];
        decode(piece, src, step);
#pragma GCC unroll 4
        for (int v = 0; v < GEMV_VECTORS; v++)
            v_store(dst + step * GEMV_STEP + v * V_WIDTH, piece[v]);
    }
    for (int64_t i = step * GEMV_STEP; tail && i < n; i += V_WIDTH)
        v_store_n(dst + i, tail(src, i, n - i), n - i);
}

#define TO_F32_KERNEL(name, decode, tail)                                                          \
    static void name(float *dst, const void *src, int64_t n)                                       \
    {                                                                                              \
        widen_row(dst, src, n, decode, tail);                                                      \
    }

ALWAYS_INLINE void narrow_row(uint16_t *dst, const float *src, int64_t n, vec_u16 (*narrow)(vec))
{
    int64_t i = 0;
    for (; i + V_WIDTH <= n; i += V_WIDTH)
        v_store_u16(dst + i, narrow(v_load(src + i)));
    if (i < n)
        v_store_u16_n(dst + i, narrow(v_load_n(src + i, n - i)), n - i);
}

static void f16_from_f32(void *dst, const float *src, int64_t n)
{
    narrow_row(dst, src, n, v_to_f16);
}
static void bf16_from_f32(void *dst, const float *src, int64_t n)
{
    narrow_row(dst, src, n, v_to_bf16);
}
