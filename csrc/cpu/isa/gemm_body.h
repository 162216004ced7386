/* Products of many rows by f32 weights, written once for every level. Include after that level's
 * vector.h, with GEMM_X and GEMM_W defined: the rows of x and of weights that a tile has.
 *
 * Each product has the bits that gemv gives it: one vector of sums along k, whose lanes are added
 * at the end. A tile therefore has a register for each product. Caches do not hold whole rows of a
 * tile, so k is cut into blocks, between which the vectors of sums wait in memory. Rows lie in
 * panels, a tile's vectors one after the other as it takes them; rows that the last tile lacks are
 * zeros there. */
#include <stdbool.h>

#include "cpu/isa/kernels.h"

#define GEMM_INLINE static inline __attribute__((always_inline))
#define GEMM_NEAR 12 /* rows of a block of x that stay in the first-level cache */
#define GEMM_LINE 16 /* values of a cache line */

_Static_assert(CT_GEMM_ROWS % GEMM_X == 0 && GEMM_NEAR % GEMM_X == 0 &&
                   CT_GEMM_BLOCK_W % GEMM_W == 0 && CT_GEMM_COLUMNS % V_WIDTH == 0 &&
                   CT_GEMM_BLOCK_K % CT_GEMM_COLUMNS == 0,
               "blocks are made of whole tiles and vectors");

/* Rows as they lie. */
typedef struct gemm_rows {
    const float *data;
    int64_t stride, n, k;
} gemm_rows;

/* A block's products: vectors of sums from one block of k to the next, y [m, n] after the last. */
typedef struct gemm_out {
    float *sums, *y;
    int64_t ldy, m, n;
    bool first, last;
} gemm_out;

static inline int64_t gemm_smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static inline int64_t gemm_round_up(int64_t n, int64_t unit)
{
    return (n + unit - 1) / unit * unit;
}

/* The length of the blocks when n is cut into few of about the same size. */
static inline int64_t gemm_block_length(int64_t n, int64_t most, int64_t unit)
{
    int64_t n_blocks = (n + most - 1) / most;
    return gemm_round_up((n + n_blocks - 1) / n_blocks, unit);
}

/* The tiles' panels lie tile * ld_panel apart. */
GEMM_INLINE void gemm_fill_panels(float *panels, int64_t ld_panel, gemm_rows rows, const int tile)
{
    for (int64_t first = 0; first < rows.n; first += tile) {
        float *to = panels + first * ld_panel;
        const float *from = rows.data + first * rows.stride;
        for (int64_t c = 0; c < rows.k; c += V_WIDTH)
            for (int r = 0; r < tile; r++, to += V_WIDTH) {
                vec piece = v_set1(0);
                if (first + r < rows.n)
                    piece = c + V_WIDTH <= rows.k
                                ? v_load(from + r * rows.stride + c)
                                : v_load_n(from + r * rows.stride + c, rows.k - c);
                v_store(to, piece);
            }
    }
}

static void gemm_pack(float *panels, const float *x, int64_t ldx, int64_t m, int64_t k)
{
    gemm_rows rows = {x, ldx, m, k};
    gemm_fill_panels(panels, gemm_round_up(k, CT_GEMM_COLUMNS), rows, GEMM_X);
}

GEMM_INLINE void gemm_one_tile(gemm_out out, const float *x, const float *w, int64_t n_vectors)
{
    vec sums[GEMM_W][GEMM_X];
#pragma GCC unroll 8
    for (int r = 0; r < GEMM_W; r++)
#pragma GCC unroll 8
        for (int i = 0; i < GEMM_X; i++)
            sums[r][i] = out.first ? v_set1(0) : v_load(out.sums + (r * GEMM_X + i) * V_WIDTH);
    for (int64_t v = 0; v < n_vectors; v++, x += GEMM_X * V_WIDTH, w += GEMM_W * V_WIDTH) {
        vec factors[GEMM_X];
#pragma GCC unroll 8
        for (int i = 0; i < GEMM_X; i++)
            factors[i] = v_load(x + i * V_WIDTH);
#pragma GCC unroll 8
        for (int r = 0; r < GEMM_W; r++) {
            vec piece = v_load(w + r * V_WIDTH);
#pragma GCC unroll 8
            for (int i = 0; i < GEMM_X; i++)
                sums[r][i] = v_fma(piece, factors[i], sums[r][i]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < GEMM_W; r++)
#pragma GCC unroll 8
        for (int i = 0; i < GEMM_X; i++) {
            if (!out.last)
                v_store(out.sums + (r * GEMM_X + i) * V_WIDTH, sums[r][i]);
            else if (r < out.n && i < out.m)
                out.y[i * out.ldy + r] = v_sum(sums[r][i]);
        }
}

/* Brings the part-th of n_parts of the columns of `rows` into the second-level cache. */
static inline void gemm_prefetch(gemm_rows rows, int64_t part, int64_t n_parts)
{
    int64_t lines = (rows.k + GEMM_LINE - 1) / GEMM_LINE;
    for (int64_t r = 0; r < rows.n; r++)
        for (int64_t line = lines * part / n_parts; line < lines * (part + 1) / n_parts; line++)
            __builtin_prefetch(rows.data + r * rows.stride + line * GEMM_LINE, 0, 2);
}

/* All tiles of a block; x at its first column of the panels. Meanwhile `next`, the block of weights
 * that follows, is fetched. */
static void gemm_block(gemm_out out, const float *x, int64_t ld_panel, const float *w,
                       int64_t n_vectors, gemm_rows next)
{
    int64_t n_parts = (out.m + GEMM_NEAR - 1) / GEMM_NEAR;
    gemm_out tile = out;
    for (int64_t near = 0; near < out.m; near += GEMM_NEAR)
        for (int64_t j = 0; j < out.n; j += GEMM_W) {
            gemm_rows fetched = {next.data + j * next.stride, next.stride,
                                 gemm_smaller(GEMM_W, next.n - j), next.k};
            gemm_prefetch(fetched, near / GEMM_NEAR, n_parts);
            for (int64_t i = near; i < gemm_smaller(out.m, near + GEMM_NEAR); i += GEMM_X) {
                tile.y = out.y + i * out.ldy + j;
                tile.m = out.m - i;
                tile.n = out.n - j;
                gemm_one_tile(tile, x + i * ld_panel, w + j * n_vectors * V_WIDTH, n_vectors);
                tile.sums += GEMM_X * GEMM_W * V_WIDTH;
            }
        }
}

/* The block of `all` from row j and column c on. */
static inline gemm_rows gemm_rows_from(gemm_rows all, int64_t j, int64_t c, int64_t block_k)
{
    if (j >= all.n)
        return (gemm_rows){all.data, 0, 0, 0};
    return (gemm_rows){all.data + j * all.stride + c, all.stride,
                       gemm_smaller(CT_GEMM_BLOCK_W, all.n - j), gemm_smaller(block_k, all.k - c)};
}

static void gemm(float *y, int64_t ldy, const float *panels, int64_t m, const float *w, int64_t ldw,
                 int64_t n, int64_t k, float *scratch)
{
    gemm_rows weights = {w, ldw, n, k};
    int64_t ld_panel = gemm_round_up(k, CT_GEMM_COLUMNS);
    int64_t block_x = gemm_block_length(m, CT_GEMM_BLOCK_X, GEMM_X);
    int64_t block_k = gemm_block_length(k, CT_GEMM_BLOCK_K, CT_GEMM_COLUMNS);
    float *w_panels = scratch, *sums = scratch + CT_GEMM_BLOCK_W * CT_GEMM_BLOCK_K;
    for (int64_t i = 0; i < m; i += block_x)
        for (int64_t j = 0; j < n; j += CT_GEMM_BLOCK_W)
            for (int64_t c = 0; c < k; c += block_k) {
                gemm_rows block = gemm_rows_from(weights, j, c, block_k);
                int64_t n_vectors = (block.k + V_WIDTH - 1) / V_WIDTH;
                gemm_out out = {.sums = sums,
                                .y = y + i * ldy + j,
                                .ldy = ldy,
                                .m = gemm_smaller(block_x, m - i),
                                .n = block.n,
                                .first = c == 0,
                                .last = c + block.k == k};
                gemm_fill_panels(w_panels, n_vectors * V_WIDTH, block, GEMM_W);
                gemm_block(out, panels + i * ld_panel + c * GEMM_X, ld_panel, w_panels, n_vectors,
                           out.last ? gemm_rows_from(weights, j + CT_GEMM_BLOCK_W, 0, block_k)
                                    : gemm_rows_from(weights, j, c + block_k, block_k));
            }
}

static inline void fill_gemm(ct_kernels *table)
{
    table->gemm_pack = gemm_pack;
    table->gemm = gemm;
}
