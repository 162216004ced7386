/* The timing half of check_kernels: see bench() in check.h. */
#ifndef CT_BENCH_H
#define CT_BENCH_H

/* Prints the heading; from here on bench() takes what has `filter` in its label. */
void bench_begin(const char *filter);

#endif
