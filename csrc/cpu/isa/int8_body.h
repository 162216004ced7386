/* Products of bytes by tiles, for every ISA that has a tile. Include after int8_tile, INT8_TILES
 * (X(weight rows, rows of x, rows of x that meet the tile afterwards)), and INT8_INLINE and
 * INT8_FUNCTION, which hold what the ISA's functions are declared with. */

/* All n weight rows, `rows` at a time, then one by one: `first` rows of x meet a tile, then
 * `second`, for which it is in cache. */
INT8_INLINE void int8_rows(int32_t *sums, int64_t ld_sums, const int8_t *x, int64_t ldx,
                           const int8_t *w, int64_t w_stride, int64_t n, int64_t k, const int rows,
                           const int first, const int second)
{
    const int8_t *x2 = x + first * ldx;
    int32_t *sums2 = sums + first * ld_sums;
    int64_t j = 0;
    for (; j + rows <= n; j += rows, w += rows * w_stride) {
        int8_tile(sums + j, ld_sums, x, ldx, w, w_stride, k, rows, first);
        if (second)
            int8_tile(sums2 + j, ld_sums, x2, ldx, w, w_stride, k, rows, second);
    }
    for (; j < n; j++, w += w_stride) {
        int8_tile(sums + j, ld_sums, x, ldx, w, w_stride, k, 1, first);
        if (second)
            int8_tile(sums2 + j, ld_sums, x2, ldx, w, w_stride, k, 1, second);
    }
}

#define INT8_CASE(rows, first, second)                                                             \
    case (first) + (second):                                                                       \
        int8_rows(sums, ld_sums, x, ldx, w, w_stride, n, k, rows, first, second);                  \
        break;

INT8_FUNCTION void gemv_int8(int32_t *sums, int64_t ld_sums, const int8_t *x, int64_t ldx,
                             int64_t m, const int8_t *w, int64_t w_stride, int64_t n, int64_t k)
{
    switch (m) {
        INT8_TILES(INT8_CASE)
    default:
        break;
    }
}
