/* What the rows of a choice need, as the device gets it: in one piece of memory, uploaded once.
 * Bans and penalties are resolved to the pieces that they touch, each penalized piece once. */
#ifndef CT_CUDA_SAMPLE_JOB_H
#define CT_CUDA_SAMPLE_JOB_H

#include "csrc.h"

typedef struct ct_penalty {
    int32_t piece;
    float count; /* how often it was generated */
    float raw;   /* its logit as it came: the device's note */
} ct_penalty;

/* See ct_sampling. first_penalty and first_banned count bytes from the first job. */
typedef struct ct_sample_job {
    double uniform; /* of [0, 1): the draw */
    float factor;   /* 1 / temperature; 0: greedy */
    float top_p, min_p;
    int32_t top_k;
    float repetition, presence, frequency;
    int32_t n_penalties, n_banned, n_top;
    bool tells;
    ct_logprob *top; /* [n_top] of the device */
    int64_t first_penalty, first_banned;
} ct_sample_job;

/* In the host's memory. */
typedef struct ct_sample_jobs {
    ct_sample_job *jobs; /* owned: [n_rows], and behind them what they count bytes to */
    size_t size;
} ct_sample_jobs;

/* Only the largest logit is asked for. */
bool ct_sample_is_plain(const ct_sampling *params);

CT_MUST_CHECK ct_status ct_sample_jobs_new(ct_sample_jobs *out, const ct_sampling *params,
                                           int64_t n_rows, int64_t n_pieces);
void ct_sample_jobs_free(ct_sample_jobs *jobs);

#endif
