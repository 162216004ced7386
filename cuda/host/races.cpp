/* For every byte that a launch touches: who wrote it last, and two who have read it since. Whoever
 * comes next is compared with them, which finds a race whichever way the fibers happen to run.
 * Shuffles, votes and products of tensor cores order nothing, as in the PTX ISA. A write that
 * changes no value is no race: that is seen once it is done. */
#include "host/races.h"

#include "host/fibers.h"

#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#define LANES 32
#define WORD 4
#define PAGE 64      /* words */
#define MOST_HELD 64 /* bytes that are looked at again */

namespace
{

enum kind { NONE, READ, WRITE, ATOMIC };

struct touch {
    uint32_t block, phase, step; /* of the launch; barriers and warp barriers behind it */
    uint16_t thread;
    uint16_t kind;
    uintptr_t code;
};

struct cell {
    touch written, read[2];
};

/* Touched as a whole so far, which the first cell tells; or byte by byte. */
struct word {
    cell bytes[WORD];
    bool is_split;
};

struct page {
    word words[PAGE];
};

/* A thread of a block has counted, behind its own fences and those of others. */
struct counted {
    const void *counter;
    touch when;
    std::vector<uint32_t> fences;
};

bool watching; /* something was compiled for it */
bool running;  /* a kernel */
bool found;
std::unordered_map<uintptr_t, std::unique_ptr<page>> pages; /* by their number */
page *last_page;
uintptr_t last_number;
touch now;                    /* the thread that runs */
std::vector<uint32_t> steps;  /* of each warp */
std::vector<uint32_t> fences; /* of each thread: the phase of its last one, and 1; 0: none */
std::vector<counted> counts;  /* in their order */
bool early;                   /* the kernel that runs, and the one before may still do so */
std::vector<bool> waited;     /* of each thread: for that */
std::unordered_map<uintptr_t, touch> earlier; /* who wrote a word in that launch, by its number */
const char *stack, *stack_end;                /* the thread's own */
const char *here;                             /* and its place, which it reads */
std::set<std::pair<uintptr_t, size_t>> of_blocks; /* memory that blocks have had */
std::set<std::pair<uintptr_t, uintptr_t>> reported;

/* A write whose values are not there yet, and what it races with unless it changes none. */
struct held {
    const char *to;
    size_t size;
    char before[MOST_HELD];
    touch first, second;
} held;

bool is_before(const touch &one, const touch &other)
{
    return one.phase < other.phase || (one.thread == other.thread && one.phase == other.phase);
}

/* By a counter: one block's writes, fence and count, then the other's count, fence and look. */
bool is_counted_before(const touch &first, const touch &second)
{
    for (size_t i = 0; i < counts.size(); i++) {
        const counted &one = counts[i];
        if (one.when.block != first.block || !is_before(first, one.when) ||
            one.fences[first.thread] <= first.phase)
            continue;
        for (size_t j = i + 1; j < counts.size(); j++)
            if (counts[j].counter == one.counter && counts[j].when.block == second.block &&
                is_before(counts[j].when, second) &&
                fences[second.thread] > counts[j].when.phase + 1)
                return true;
    }
    return false;
}

bool is_ordered(const touch &first, const touch &second)
{
    if (first.block != second.block)
        return is_counted_before(first, second);
    if (first.thread == second.thread || first.phase < second.phase)
        return true;
    return first.thread / LANES == second.thread / LANES && first.step < second.step;
}

std::string line_of(uintptr_t code)
{
    char command[512], text[1024] = "";
    Dl_info file;
    if (!dladdr((void *)code, &file))
        return text;
    snprintf(command, sizeof command, "addr2line -s -p -i -e '%s' %#zx", file.dli_fname,
             (size_t)(code - 1 - (uintptr_t)file.dli_fbase));
    FILE *pipe = popen(command, "r");
    if (!pipe)
        return text;
    text[fread(text, 1, sizeof text - 1, pipe)] = 0;
    pclose(pipe);
    return text;
}

void tell(const touch &one)
{
    static const char *const names[] = {"", "reads", "writes", "counts"};
    fprintf(stderr, "    block %u, thread %u %s, behind %u barriers, %u of its warp: %s", one.block,
            one.thread, names[one.kind], one.phase, one.step, line_of(one.code).c_str());
}

void report(const touch &first, const touch &second)
{
    if (!reported.insert({first.code, second.code}).second)
        return;
    found = true;
    fprintf(stderr, "a race:\n");
    tell(first);
    tell(second);
}

void end_hold()
{
    if (held.size && memcmp(held.to, held.before, held.size) != 0)
        report(held.first, held.second);
    held.size = 0;
}

void hold(const char *to, size_t size, const touch &first)
{
    if (held.size)
        return;
    held.to = to;
    held.size = size;
    memcpy(held.before, to, size);
    held.first = first;
    held.second = now;
}

void compare(const touch &before, const char *place, size_t size)
{
    if (before.kind == NONE || is_ordered(before, now) ||
        (before.kind == ATOMIC && now.kind == ATOMIC))
        return;
    if (now.kind == WRITE && size <= MOST_HELD)
        hold(place, size, before);
    else
        report(before, now);
}

/* Whether whoever races with this reader does so with the one that comes now. */
bool is_replaced(const touch &old)
{
    return old.kind == NONE || is_ordered(old, now);
}

void remember_read(touch *read)
{
    if (is_replaced(read[0]))
        read[0] = now;
    else if (is_replaced(read[1]))
        read[1] = now;
    else if (read[0].block == read[1].block &&
             (now.block != read[0].block || read[0].thread / LANES == read[1].thread / LANES))
        read[1] = now; /* from further away */
}

word &word_of(uintptr_t address)
{
    uintptr_t number = address / (WORD * PAGE);
    if (!last_page || last_number != number) {
        std::unique_ptr<page> &place = pages[number];
        if (!place)
            place.reset(new page());
        last_number = number;
        last_page = place.get();
    }
    return last_page->words[address / WORD % PAGE];
}

void forget(uintptr_t memory, size_t size)
{
    for (size_t i = 0; i < size; i += WORD)
        word_of(memory + i) = {};
}

void touch_cell(cell &one, const char *place, size_t size)
{
    compare(one.written, place, size);
    if (now.kind == READ) {
        remember_read(one.read);
        return;
    }
    compare(one.read[0], place, size);
    compare(one.read[1], place, size);
    one = {now, {}};
}

void split(word &word)
{
    for (int i = 1; i < WORD && !word.is_split; i++)
        word.bytes[i] = word.bytes[0];
    word.is_split = true;
}

/* Before the kernel before has ended, nobody may touch what it writes. */
void compare_with_earlier(uintptr_t address, size_t size)
{
    if (!early || waited[now.thread])
        return;
    for (uintptr_t word = address / WORD; word <= (address + size - 1) / WORD; word++) {
        auto one = earlier.find(word);
        if (one != earlier.end())
            report(one->second, now);
    }
}

/* What the launch that is over has written. */
void keep_written()
{
    earlier.clear();
    for (const auto &one : pages)
        for (uintptr_t i = 0; i < PAGE; i++)
            for (const cell &byte : one.second->words[i].bytes)
                if (byte.written.kind != NONE)
                    earlier[one.first * PAGE + i] = byte.written;
}

void touch_memory(const void *memory, size_t size, kind kind, void *code)
{
    const char *place = (const char *)memory;
    if (!running || (place >= stack && place < stack_end) ||
        (size_t)(place - here) < sizeof ct_here)
        return;
    end_hold();
    now.kind = kind;
    now.code = (uintptr_t)code;
    compare_with_earlier((uintptr_t)place, size);
    for (size_t i = 0; i < size;) {
        uintptr_t address = (uintptr_t)place + i;
        word &word = word_of(address);
        if (address % WORD != 0 || size - i < WORD)
            split(word);
        size_t n = word.is_split ? 1 : WORD;
        touch_cell(word.bytes[address % WORD], place, size);
        i += n;
    }
}

void at_end()
{
    if (found)
        _exit(66);
}

} // namespace

void ct_races_launch(unsigned n_threads, bool is_early)
{
    running = watching;
    early = is_early;
    if (running)
        keep_written();
    pages.clear();
    last_page = nullptr;
    counts.clear();
    steps.assign((n_threads + LANES - 1) / LANES, 0);
    fences.assign(n_threads, 0);
    now = {};
    now.block = (uint32_t)-1;
}

void ct_races_boundary()
{
    pages.clear();
    last_page = nullptr;
}

void ct_races_over()
{
    end_hold();
    for (const auto &one : of_blocks) /* something else may lie there by the next launch */
        forget(one.first, one.second);
    of_blocks.clear();
    running = false;
}

void ct_races_block()
{
    end_hold();
    now.block++;
    now.phase = 0;
    steps.assign(steps.size(), 0);
    fences.assign(fences.size(), 0);
    waited.assign(fences.size(), false);
}

void ct_races_thread(unsigned index, const void *begin, size_t size)
{
    end_hold();
    now.thread = (uint16_t)index;
    now.step = steps[index / LANES];
    stack = (const char *)begin;
    stack_end = stack + size;
    here = (const char *)&ct_here;
}

void ct_races_barrier()
{
    now.phase++;
}

void ct_races_warp_barrier(unsigned warp)
{
    steps[warp]++;
}

void ct_races_new(const void *memory, size_t size)
{
    if (!running)
        return;
    forget((uintptr_t)memory, size);
    of_blocks.insert({(uintptr_t)memory, size});
}

void ct_races_waited()
{
    waited[now.thread] = true;
}

void ct_races_fence()
{
    fences[now.thread] = now.phase + 1;
}

void ct_races_count(const void *counter)
{
    if (running)
        counts.push_back({counter, now, fences});
}

/* What the compiler calls before each access. */
extern "C" {

void __tsan_init()
{
    if (!watching)
        atexit(at_end);
    watching = true;
}

void __tsan_func_entry(void *)
{
}

void __tsan_func_exit()
{
}

#define ACCESS(name, size)                                                                         \
    void __tsan_##name##read##size(void *place)                                                    \
    {                                                                                              \
        touch_memory(place, size, READ, __builtin_return_address(0));                              \
    }                                                                                              \
    void __tsan_##name##write##size(void *place)                                                   \
    {                                                                                              \
        touch_memory(place, size, WRITE, __builtin_return_address(0));                             \
    }
ACCESS(, 1)
ACCESS(, 2)
ACCESS(, 4)
ACCESS(, 8)
ACCESS(, 16)
ACCESS(unaligned_, 2)
ACCESS(unaligned_, 4)
ACCESS(unaligned_, 8)
ACCESS(unaligned_, 16)

void __tsan_read_range(void *place, size_t size)
{
    touch_memory(place, size, READ, __builtin_return_address(0));
}

void __tsan_write_range(void *place, size_t size)
{
    touch_memory(place, size, WRITE, __builtin_return_address(0));
}
}

void ct_races_atomic(const void *place, size_t size)
{
    touch_memory(place, size, ATOMIC, __builtin_return_address(0));
}

void ct_races_copy(const void *to, size_t size, const void *from, size_t n_read, void *code)
{
    touch_memory(from, n_read, READ, code);
    touch_memory(to, size, WRITE, code);
}
