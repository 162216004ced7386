/* Which programs are recorded, and which of them are kept. */
#include "programs.h"

#include "runtime.h"

#define MAX_ATTEMPTS 3

static bool has_key(const ct_cuda_program *one, const ct_program *program)
{
    return one->key && one->key_size == program->key_size &&
           memcmp(one->key, program->key, program->key_size) == 0;
}

static void forget(ct_cuda_program *one)
{
    if (one->recording)
        ct_cuda_forget(one->recording);
    ct_free(&one->key);
    *one = {};
}

/* The program's place, an unused one or that of the longest unasked. */
static ct_cuda_program *place_of(ct_cuda_programs *programs, const ct_program *program)
{
    ct_cuda_program *oldest = &programs->all[0];
    for (ct_cuda_program &one : programs->all) {
        if (has_key(&one, program))
            return &one;
        if (one.asked < oldest->asked)
            oldest = &one;
    }
    return oldest;
}

static ct_status take_place(ct_cuda_program *one, const ct_program *program)
{
    forget(one);
    CT_TRY(ct_alloc(&one->key, program->key_size));
    memcpy(one->key, program->key, program->key_size);
    one->key_size = program->key_size;
    return CT_OK;
}

/* A recording that failed has done nothing yet. What the device refuses to record it may do; if it
 * does not, the program fails again. */
static ct_status record(ct_cuda_program *one, const ct_program *program)
{
    one->attempts++;
    CT_TRY(ct_cuda_record());
    ct_status status = program->run(program->context);
    one->recording = ct_cuda_recorded(status == CT_OK);
    if (one->recording)
        return ct_cuda_play(one->recording);
    return status == CT_OK || status == CT_INTERNAL ? program->run(program->context) : status;
}

ct_status ct_cuda_repeat(const ct_program *program)
{
    ct_cuda_programs *programs = ct_cuda_known_programs();
    ct_cuda_program *one = place_of(programs, program);
    bool known = has_key(one, program);
    if (!known)
        CT_TRY(take_place(one, program));
    one->asked = ++programs->asked;
    if (one->recording)
        return ct_cuda_play(one->recording);
    return known && one->attempts < MAX_ATTEMPTS ? record(one, program)
                                                 : program->run(program->context);
}
