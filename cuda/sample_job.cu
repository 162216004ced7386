/* The host walks over each sequence once, which copying it for the upload would take as well; the
 * device then touches a few pieces, and needs no counts as long as the vocabulary. */
#include "sample_job.h"

#include <float.h>
#include <math.h>
#include <string.h>

static bool penalizes(const ct_sampling *params)
{
    bool repetition = params->repetition_penalty != 0 && params->repetition_penalty != 1;
    return repetition || params->presence_penalty != 0 || params->frequency_penalty != 0;
}

bool ct_sample_is_plain(const ct_sampling *params)
{
    return params->temperature <= 0 && !params->logprobs && params->n_top == 0 &&
           params->n_banned == 0 && params->n_bad_words == 0 && !penalizes(params);
}

/* Writes the pieces that are not to be chosen, and returns their end. A bad word has a piece at
 * least besides its length, so that there are never more than `n_banned + n_bad_words`. */
static int32_t *list_banned(int32_t *out, const ct_sampling *params)
{
    for (int64_t i = 0; i < params->n_banned; i++)
        *out++ = params->banned[i];
    const int32_t *word = params->bad_words, *end = word + params->n_bad_words;
    for (; word < end; word += 1 + word[0]) {
        int64_t n_before = word[0] - 1;
        if (n_before <= params->n_ids && memcmp(params->ids + params->n_ids - n_before, word + 1,
                                                sizeof *word * (size_t)n_before) == 0)
            *out++ = word[1 + n_before];
    }
    return out;
}

/* The same for penalties, at most one for each piece of the sequence. Only its entries of counts
 * [n_pieces] are used, so that nothing as long as the vocabulary needs clearing. */
static ct_penalty *list_penalties(ct_penalty *out, const ct_sampling *params, int32_t *counts)
{
    enum { DONE = -1 };
    const int32_t *ids = params->ids, *end = ids + params->n_ids;
    for (const int32_t *id = ids; id < end; id++)
        counts[*id] = 0;
    for (const int32_t *id = ids + params->n_prompt; id < end; id++)
        counts[*id]++;
    for (const int32_t *id = ids; id < end; id++) {
        if (counts[*id] != DONE)
            *out++ = {*id, (float)counts[*id], 0};
        counts[*id] = DONE;
    }
    return out;
}

static ct_sample_job job_of(const ct_sampling *params)
{
    float repetition = params->repetition_penalty;
    ct_sample_job job = {};
    job.uniform = ct_philox_uniform(params->seed, params->row, params->step);
    job.factor = params->temperature > 0 ? fminf(1 / params->temperature, FLT_MAX) : 0;
    job.top_p = params->top_p;
    job.min_p = params->min_p;
    job.top_k = params->top_k;
    job.repetition = repetition == 0 ? 1 : repetition;
    job.presence = params->presence_penalty;
    job.frequency = params->frequency_penalty;
    job.n_top = params->n_top;
    job.tells = params->logprobs || params->n_top > 0;
    job.top = params->top;
    return job;
}

/* Bytes that the lists of a row take at most. */
static size_t room_for(const ct_sampling *params)
{
    size_t room = sizeof(int32_t) * (size_t)(params->n_banned + params->n_bad_words);
    return room + (penalizes(params) ? sizeof(ct_penalty) * (size_t)params->n_ids : 0);
}

ct_status ct_sample_jobs_new(ct_sample_jobs *out, const ct_sampling *params, int64_t n_rows,
                             int64_t n_pieces)
{
    ct_status status = CT_OK;
    size_t room = sizeof(ct_sample_job) * (size_t)n_rows;
    int32_t *counts = NULL;
    bool any_penalties = false;
    char *end;
    *out = {};
    for (int64_t i = 0; i < n_rows; i++) {
        room += room_for(&params[i]);
        any_penalties = any_penalties || penalizes(&params[i]);
    }
    CT_TRY(ct_alloc((void **)&out->jobs, room));
    if (any_penalties)
        CT_TRY_TO(failed, ct_alloc((void **)&counts, sizeof *counts * (size_t)n_pieces));
    end = (char *)(out->jobs + n_rows);
    for (int64_t i = 0; i < n_rows; i++) {
        ct_sample_job job = job_of(&params[i]);
        job.first_banned = end - (char *)out->jobs;
        end = (char *)list_banned((int32_t *)end, &params[i]);
        job.n_banned = (int32_t)((end - (char *)out->jobs - job.first_banned) / sizeof(int32_t));
        job.first_penalty = end - (char *)out->jobs;
        if (penalizes(&params[i]))
            end = (char *)list_penalties((ct_penalty *)end, &params[i], counts);
        job.n_penalties =
            (int32_t)((end - (char *)out->jobs - job.first_penalty) / sizeof(ct_penalty));
        out->jobs[i] = job;
    }
    out->size = (size_t)(end - (char *)out->jobs);
    ct_free(&counts);
    return CT_OK;
failed:
    ct_sample_jobs_free(out);
    return status;
}

void ct_sample_jobs_free(ct_sample_jobs *jobs)
{
    ct_free(&jobs->jobs);
    *jobs = {};
}
