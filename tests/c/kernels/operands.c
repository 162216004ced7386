/* Operands between inaccessible pages, awkward inputs, comparisons of floats. */
#include "check.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define MARGIN 256 /* bytes on either side of an operand that are watched */

const int64_t check_widths[] = {1,  2,  3,  4,  5,  6,  7,  8,  9,  10,  11,  12,  13, 14,
                                15, 16, 17, 18, 19, 20, 21, 22, 23, 24,  25,  26,  27, 28,
                                29, 30, 31, 32, 33, 47, 63, 65, 95, 101, 257, 1023};
const int n_check_widths = sizeof check_widths / sizeof *check_widths;

/* Pages for `n_bytes` and margins, with an inaccessible page before and behind them. */
static void map_pages(operand *o, size_t n_bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t capacity = (n_bytes + 2 * MARGIN + page - 1) / page * page;
    char *pages = mmap(NULL, capacity + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED || mprotect(pages + page, capacity, PROT_READ | PROT_WRITE) != 0) {
        perror("pages for an operand");
        exit(2);
    }
    if (o->pages)
        munmap(o->pages - page, o->capacity + 2 * page);
    o->pages = pages + page;
    o->capacity = capacity;
}

static char *watched_begin(const operand *o)
{
    return o->data - o->pages < MARGIN ? o->pages : o->data - MARGIN;
}

static char *watched_end(const operand *o)
{
    char *end = o->data + o->n_bytes, *last = o->pages + o->capacity;
    return last - end < MARGIN ? last : end + MARGIN;
}

void *operand_place(operand *o, placement where, size_t n_bytes, size_t element)
{
    if (!o->pages || o->capacity < n_bytes + 2 * MARGIN)
        map_pages(o, n_bytes);
    o->n_bytes = n_bytes;
    if (where == AT_END)
        o->data = o->pages + o->capacity - n_bytes;
    else
        o->data = o->pages + (where == INSIDE ? MARGIN / 2 + element : 0);
    memset(watched_begin(o), FENCE, (size_t)(watched_end(o) - watched_begin(o)));
    return o->data;
}

float *operand_floats(operand *o, placement where, int64_t n)
{
    return operand_place(o, where, sizeof(float) * (size_t)n, sizeof(float));
}

static bool all_fence(const char *from, const char *to)
{
    for (; from < to; from++)
        if ((unsigned char)*from != FENCE)
            return false;
    return true;
}

bool operand_intact(const operand *o)
{
    return all_fence(watched_begin(o), o->data) && all_fence(o->data + o->n_bytes, watched_end(o));
}

bool gaps_intact(const operand *o, size_t row_bytes, size_t stride)
{
    bool intact = operand_intact(o);
    for (size_t row = 0; row + stride < o->n_bytes; row += stride)
        intact = intact && all_fence(o->data + row + row_bytes, o->data + row + stride);
    return intact;
}

/* ---- inputs ---- */

uint64_t random_bits(void)
{
    static uint64_t state = 0x9e3779b97f4a7c15; /* xorshift64* */
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * 2685821657736338717u;
}

int64_t random_below(int64_t n)
{
    return (int64_t)(random_bits() >> 11) % n;
}

float random_float(double scale)
{
    return (float)(((double)(random_bits() >> 11) * 0x1p-52 - 1) * scale);
}

void fill_random(float *x, int64_t n, double scale)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = random_float(scale);
}

void fill_whole(float *x, int64_t n, int limit)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)(random_below(2 * limit + 1) - limit);
}

float awkward_float(void)
{
    static const uint32_t bits[] = {
        0x00000000,                         /* 0 */
        0x00000001,                         /* the smallest subnormal */
        0x00012345, 0x007fffff,             /* more of them */
        0x00008000, 0x00018000,             /* ties of bf16 among them */
        0x00800000,                         /* the smallest normal */
        0x33000000, 0x33000001,             /* half of f16's smallest subnormal, and just above */
        0x33c00000, 0x387fe000, 0x38800000, /* a tie among f16's subnormals, their end */
        0x3f800000, 0x3f801000, 0x3f803000, /* 1, ties of f16 */
        0x3f808000, 0x3f818000,             /* ties of bf16 */
        0x42ae0000, 0x42b17217, 0x42b17218, 0x42d00000, /* about where exp overflows */
        0x477fe000, 0x477fefff, 0x477ff000,             /* about where f16 overflows */
        0x7f7f7fff, 0x7f7f8000, 0x7f7fffff,             /* about where bf16 overflows */
        0x7f800000,                                     /* infinity */
        0x7f800001, 0x7f8fffff, 0x7fc00000, 0x7fffffff, /* NaN, signaling and quiet */
    };
    uint32_t random = (uint32_t)(random_bits() >> 32);
    uint32_t word = random;
    if (random & 1)
        word = bits[random_below(sizeof bits / sizeof *bits)] | (random & 0x80000000);
    float value;
    memcpy(&value, &word, sizeof value);
    return value;
}

void fill_awkward(float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = awkward_float();
}

/* ---- comparisons ---- */

uint32_t float_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

bool same(float got, float wanted)
{
    return float_bits(got) == float_bits(wanted) || (isnan(got) && isnan(wanted));
}

bool close_to(float got, float wanted, double tolerance)
{
    if (isnan(wanted) || isinf(wanted))
        return same(got, wanted);
    return fabs((double)got - (double)wanted) <= tolerance;
}

int64_t first_difference(const float *got, const float *wanted, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (!same(got[i], wanted[i]))
            return i;
    return -1;
}
