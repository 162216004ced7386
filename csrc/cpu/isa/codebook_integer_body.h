/* Products of x in whole numbers with codes of a codebook, written once for every vector ISA.
 * Include after integer_row, which multiplies m rows of x, in elements of x_size bytes, by one row
 * of weights, and its types integer_table, integer_look_up and integer_sum. */

/* X(rows of x) */
#define INTEGER_ROWS(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8)
#define INTEGER_CASE(m)                                                                            \
    case m:                                                                                        \
        integer_row(y + j, ldy, x, ldx, x_size, x_scales, x_lds, row, row_scales, k, m, table,     \
                    look_up, sum_of);                                                              \
        break;

CODEBOOK_INLINE void integer_gemv(float *y, int64_t ldy, const char *x, int64_t ldx, int x_size,
                                  const float *x_scales, int64_t x_lds, int64_t m,
                                  const uint8_t *codes, const float *scales, int64_t n, int64_t k,
                                  const integer_table table[2], integer_look_up look_up,
                                  integer_sum sum_of)
{
    for (int64_t j = 0; j < n; j++) {
        const uint8_t *row = codes + j * (k / 2);
        const float *row_scales = scales + j * (k / CT_CODEBOOK_BLOCK);
        switch (m) {
            INTEGER_ROWS(INTEGER_CASE)
        default:
            break;
        }
    }
}
