/* Refuses what a model cannot do before anything is stored, so that steps need not look again. */
#include "generation/request.h"

#include <float.h>
#include <string.h>

#include "core/memory.h"

int64_t ct_longest_sequence(const ct_spec *spec)
{
    bool by_table = spec->n_positions > 0 &&
                    (spec->max_positions == 0 || spec->n_positions < spec->max_positions);
    return by_table ? spec->n_positions : spec->max_positions;
}

/* `what` names the ids, as "banned piece". */
static ct_status check_ids(const int32_t *ids, int64_t n, const ct_spec *spec, const char *what)
{
    for (int64_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= spec->n_pieces)
            return ct_fail(CT_INDEX, "%s id %d at [%lld] is outside the %lld pieces of the model",
                           what, ids[i], (long long)i, (long long)spec->n_pieces);
    return CT_OK;
}

static ct_status check_bad_words(const ct_sampling *sampling, const ct_spec *spec)
{
    for (int64_t at = 0; at < sampling->n_bad_words; at += 1 + sampling->bad_words[at]) {
        int64_t length = sampling->bad_words[at];
        if (length < 2 || length >= sampling->n_bad_words - at)
            return ct_fail(CT_VALUE,
                           "the list of bad words has the length %lld at [%lld] of %lld entries",
                           (long long)length, (long long)at, (long long)sampling->n_bad_words);
        CT_TRY(check_ids(sampling->bad_words + at + 1, length, spec, "bad word's piece"));
    }
    return CT_OK;
}

static ct_status check_sampling(const ct_sampling *sampling, const ct_spec *spec)
{
    const struct {
        const char *name;
        float value, least, most;
    } numbers[] = {
        {"temperature", sampling->temperature, 0, FLT_MAX},
        {"top_p", sampling->top_p, 0, 1},
        {"min_p", sampling->min_p, 0, 1},
        {"repetition_penalty", sampling->repetition_penalty, 0, FLT_MAX},
        {"presence_penalty", sampling->presence_penalty, -FLT_MAX, FLT_MAX},
        {"frequency_penalty", sampling->frequency_penalty, -FLT_MAX, FLT_MAX},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (!(numbers[i].value >= numbers[i].least && numbers[i].value <= numbers[i].most))
            return ct_fail(CT_VALUE, "%s must be between %g and %g, was: %g", numbers[i].name,
                           (double)numbers[i].least, (double)numbers[i].most,
                           (double)numbers[i].value);
    if (sampling->n_top < 0 || sampling->n_top > CT_MAX_TOP_LOGPROBS)
        return ct_fail(CT_VALUE, "logprobs of 0 to %d pieces can be told, asked for: %d",
                       CT_MAX_TOP_LOGPROBS, sampling->n_top);
    CT_TRY(check_ids(sampling->banned, sampling->n_banned, spec, "banned piece"));
    return check_bad_words(sampling, spec);
}

ct_status ct_request_check(const ct_request *request, const ct_spec *spec)
{
    int64_t longest = ct_longest_sequence(spec);
    if (request->n_prompt < 1)
        return ct_fail(CT_VALUE, "a prompt needs at least one piece");
    if (longest > 0 && request->n_prompt > longest)
        return ct_fail(CT_VALUE,
                       "a prompt of %lld pieces is longer than the %lld positions of the "
                       "model",
                       (long long)request->n_prompt, (long long)longest);
    CT_TRY(check_ids(request->prompt, request->n_prompt, spec, "piece"));
    return check_sampling(&request->sampling, spec);
}

/* *out becomes a copy of n ids, or NULL for none. */
static ct_status copy_ids(const int32_t *ids, int64_t n, const int32_t **out)
{
    void *copy;
    *out = NULL;
    if (n == 0)
        return CT_OK;
    CT_TRY(ct_alloc(&copy, sizeof *ids * (size_t)n));
    memcpy(copy, ids, sizeof *ids * (size_t)n);
    *out = copy;
    return CT_OK;
}

ct_status ct_request_copy(ct_request *out, const ct_request *request)
{
    ct_status status = CT_OK;
    const ct_sampling *sampling = &request->sampling;
    *out = *request;
    out->prompt = out->eos_ids = out->sampling.banned = out->sampling.bad_words = NULL;
    CT_TRY_TO(failed, copy_ids(request->eos_ids, request->n_eos, &out->eos_ids));
    CT_TRY_TO(failed, copy_ids(sampling->banned, sampling->n_banned, &out->sampling.banned));
    CT_TRY_TO(failed,
              copy_ids(sampling->bad_words, sampling->n_bad_words, &out->sampling.bad_words));
    return CT_OK;
failed:
    ct_request_clear(out);
    return status;
}

void ct_request_clear(ct_request *request)
{
    void *arrays[] = {(void *)request->eos_ids, (void *)request->sampling.banned,
                      (void *)request->sampling.bad_words};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        ct_free(&arrays[i]);
    *request = (ct_request){0};
}
