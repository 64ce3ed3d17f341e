// The executor: one process runs one launch.  It is compiled once and linked with each program.
//
// Python passes a file descriptor of shared memory that holds the launch, its arguments and its buffers (launch.h).  The
// grid runs once for each schedule, an order of blocks and threads; every time the buffers and the program's variables start
// from the same contents, and the buffers must end with the same.  The first result goes back.

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <ucontext.h>

#include "copies.h"
#include "numbers.h"
#include "entry.h"
#include "originals.h"

extern "C" const certiconv::Kernel certiconv_kernels[];
extern "C" const unsigned certiconv_kernel_count;
extern "C" thread_local char certiconv_dynamic_shared[];

static char *data;
static certiconv::Value *values;
static uint3 block_index, block_dim, grid_dim;

static u64 packed(const uint3 &v) { return v.x | (u64)v.y << 31 | (u64)v.z << 47; }

extern "C" {
u64 certiconv_thread_index() { return packed(now->index); }
u64 certiconv_block_index() { return packed(block_index); }
u64 certiconv_block_dim() { return packed(block_dim); }
u64 certiconv_grid_dim() { return packed(grid_dim); }
unsigned certiconv_lane() { return now->lane; }
}

static void fibre_main() {
    now->bottom = FRAME;
    certiconv_kernels[launch->kernel].call(values);
    if (bad_index.pc) report_index(0, 0, 0, NONE, 0);
    thread_ended();
    yield();
    __builtin_trap();
}

// --- Signals: a crash is reported like any other error --------------------------------------------------------------

static void on_signal(int number, siginfo_t *info, void *context) {
    const uintptr_t code = (uintptr_t)((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
    const uintptr_t at = (uintptr_t)info->si_addr;
    const bool in_program = code >= (uintptr_t)&__executable_start && code < (uintptr_t)&_end;
    // An assertion says itself where it is; else, where the code is not the kernel's, its last access is a hint.
    const unsigned hint = now && number != SIGABRT ? now->last_pc : 0;
    const Site here = now ? site(NONE, in_program ? (unsigned)code : hint) : nowhere;
    launch->result.numbers[3] = hint;
    if (number == SIGALRM) fail(TIMEOUT, here, nowhere, "");
    if (number == SIGSEGV || number == SIGBUS) {
        const uintptr_t top = (uintptr_t)((ucontext_t *)context)->uc_mcontext.gregs[REG_RSP];
        if (now && !own_stack(top - 4096)) fail(CRASH, here, nowhere, FULL_STACK);
        const Region *r = find(at);
        if (r) locate(*r, at, 0);
        else launch->result.offset = at;
        fail(OUT_OF_BOUNDS, here, nowhere, r ? "" : "the address lies in no array");
    }
    fail(CRASH, here, nowhere, number == SIGFPE ? "division of an integer by zero" : number == SIGABRT ? "abort() or a failed assertion" : "an illegal instruction");
}

static void catch_signals() {
    static char stack[65536];
    const stack_t alternative = {stack, 0, sizeof stack};
    sigaltstack(&alternative, 0);
    struct sigaction action = {};
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    const int numbers[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGALRM};
    for (int number : numbers) sigaction(number, &action, 0);
    const itimerval limit = {{0, 0}, {(time_t)(launch->timeout_ms / 1000), (suseconds_t)(launch->timeout_ms % 1000 * 1000)}};
    setitimer(ITIMER_REAL, &limit, 0);
}

// --- Memory ---------------------------------------------------------------------------------------------------------

static Buffer *buffer_table;

static void make_buffers() {
    buffer_count = launch->buffers;
    buffers = new Region[buffer_count + 1]();
    buffer_table = (Buffer *)(data + launch->buffer_at);
    for (u64 b = 0; b < buffer_count; ++b) {
        const Buffer &given = buffer_table[b];
        const uintptr_t base = GLOBAL + (b << GLOBAL_STRIDE) + (1ull << (GLOBAL_STRIDE - 1));
        void *found = mmap((void *)base, given.bytes + 4096, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_NORESERVE, -1, 0);
        if (found != (void *)base) fail(CRASH, nowhere, nowhere, "the system gives no memory for a buffer");
        Region &r = buffers[b];
        r.base = base;
        r.bytes = given.bytes;
        r.log_cell = 4;
        r.poisoned = given.poisoned;
        r.space = 1;
        r.number = b;
        if (launch->check) r.cells = make_cells(given.bytes);
    }
}

static void poison(const Region &r) {
    for (u64 at = 0; at + 4 <= r.bytes; at += 4) *(uint32_t *)(r.base + at) = POISON;
    for (u64 at = r.bytes & ~3ull; at < r.bytes; ++at) *(char *)(r.base + at) = (char)0xfd;
}

static void make_shared() {
    SharedArray *table = (SharedArray *)(data + launch->shared_at);
    const uintptr_t segment = (uintptr_t)certiconv_dynamic_shared - launch->dynamic_offset;
    shared_arrays = new Region[launch->shared + 1]();
    flags = new uintptr_t[launch->shared + 1];
    uintptr_t low = ~0ull, high = 0;
    for (u64 s = 0; s < launch->shared; ++s) {
        if (!table[s].bytes) {
            flags[flag_count++] = segment + table[s].offset;
            continue;
        }
        Region &r = shared_arrays[shared_count++];
        r.base = segment + table[s].offset;
        r.bytes = r.base == (uintptr_t)certiconv_dynamic_shared ? launch->shared_bytes : table[s].bytes;
        r.log_cell = 4;
        r.shared = true;
        r.space = 2;
        r.number = s;
        if (launch->check) r.cells = make_cells(r.bytes);
        poison(r);
        low = r.base < low ? r.base : low;
        const uintptr_t end = r.base + table[s].bytes;
        high = end > high ? end : high;
    }
    shared_low = low - (1 << SLOT);
    const u64 count = ((high - shared_low) >> SLOT) + 1;
    shared_span = count << SLOT;
    slots = new Region *[count]();
    for (u64 s = 0; s < shared_count; ++s) {
        const u64 first = (shared_arrays[s].base - shared_low) >> SLOT, size = s ? shared_arrays[s].bytes : table[0].bytes;
        for (u64 k = 0; k <= (size - 1) >> SLOT; ++k) slots[first + k] = &shared_arrays[s];
    }
    for (u64 k = 0; k < count; ++k)  // what lies between arrays belongs to the one before, or to the lowest
        for (u64 s = 0; !slots[k] && s < shared_count; ++s)
            if (k ? slots[k - 1] == &shared_arrays[s] : shared_arrays[s].base == low) slots[k] = &shared_arrays[s];
}

// --- Running --------------------------------------------------------------------------------------------------------

static u64 random_state;
static u64 drawn(u64 below) {  // splitmix64 (Steele, Lea and Flood 2014)
    u64 z = random_state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return (z ^ z >> 31) % below;
}

// The order of `count` things under a schedule: 0 forward, 1 backward, else at random with that seed.
static void arrange(uint32_t *order, u64 count, u64 kind) {
    for (u64 i = 0; i < count; ++i) order[i] = (uint32_t)(kind == 1 ? count - 1 - i : i);
    for (u64 i = count; kind > 1 && i > 1; --i) {
        const u64 j = drawn(i);
        const uint32_t other = order[j];
        order[j] = order[i - 1];
        order[i - 1] = other;
    }
}

static void start_block(u64 number) {
    block = (unsigned)number;
    block_index = {(unsigned)(number % grid_dim.x), (unsigned)(number / grid_dim.x % grid_dim.y),
                   (unsigned)(number / grid_dim.x / grid_dim.y)};
    block_first = ++interval;
    block_starts[block_start_count++] = {interval, block};
    for (u64 s = 0; s < shared_count; ++s) {
        shared_arrays[s].floor = interval;
        if (shared_arrays[s].written || !launch->check) poison(shared_arrays[s]);
    }
    ended = 0;
    for (unsigned t = 0; t < threads; ++t) {
        Fibre &f = fibres[t];
        f.groups = f.copy_count = f.stored_bytes = 0;
        f.undefined_line = 0;
        memset(f.seen, 0, sizeof f.seen);
        f.seen[f.lane] = 1;
        start_fibre(f);
    }
}

static void run_block(u64 number, uint32_t *order, u64 kind) {
    start_block(number);
    for (bool progress = true; ended < threads;) {
        if (!progress) open_barrier();
        if (kind > 1) arrange(order, threads, kind);
        progress = false;
        for (unsigned i = 0; i < threads; ++i)
            if (Fibre &f = fibres[order[i]]; f.state == RUNNABLE) {
                progress = true;
                run(f);
            }
    }
    tell_unwritten();
}

static void run_grid(u64 kind, uint32_t *block_order, uint32_t *thread_order, u64 blocks) {
    random_state = kind;
    schedule_first = ++interval;
    block_start_count = 0;
    variables.floor = schedule_first;
    for (u64 b = 0; b < buffer_count; ++b) {
        buffers[b].floor = schedule_first;
        memcpy((void *)buffers[b].base, data + buffer_table[b].offset, buffers[b].bytes);
    }
    arrange(block_order, blocks, kind);
    arrange(thread_order, threads, kind);
    for (u64 i = 0; i < blocks; ++i) run_block(block_order[i], thread_order, kind);
    now = 0;
}

static bool may_change(u64 b) { return launch->check ? buffers[b].written : buffer_table[b].out; }

// The first schedule's results are kept; those of another have to be the same bits.
static void compare(u64 b, const char *first) {
    const char *again = (const char *)buffers[b].base;
    if (!memcmp(first, again, buffers[b].bytes)) return;
    u64 at = 0;
    while (first[at] == again[at]) ++at;
    const u64 item = buffer_table[b].item ? buffer_table[b].item : 1;
    at -= at % item;
    locate(buffers[b], buffers[b].base + at, (unsigned)item);
    launch->result.undefined_shuffles = undefined_shuffles;
    memcpy(&launch->result.numbers[2], first + at, item > 8 ? 8 : item);
    memcpy(&launch->result.numbers[3], again + at, item > 8 ? 8 : item);
    fail(ORDER_DEPENDENT, nowhere, nowhere, "");
}

static void run_all() {
    const u64 *schedules = (const u64 *)(data + launch->schedule_at);
    const u64 blocks = (u64)grid_dim.x * grid_dim.y * grid_dim.z;
    uint32_t *block_order = new uint32_t[blocks + 1], *thread_order = new uint32_t[threads];
    block_starts = new BlockStart[blocks + 1];
    char **first = new char *[buffer_count + 1]();
    if (launch->schedules > 1) keep_variables();
    for (schedule = 0; schedule < launch->schedules; ++schedule) {
        if (schedule) restore_variables();
        run_grid(schedules[schedule], block_order, thread_order, blocks);
        for (u64 b = 0; b < buffer_count; ++b) {
            if (!may_change(b)) continue;
            if (!schedule) first[b] = (char *)memcpy(malloc(buffers[b].bytes + 1), (void *)buffers[b].base, buffers[b].bytes);
            else if (!first[b]) first[b] = (char *)memcpy(malloc(buffers[b].bytes + 1), data + buffer_table[b].offset, buffers[b].bytes);
            const bool strict = launch->reproducible == 2 || (launch->reproducible == 1 && !floating_atomics);
            if (schedule && strict) compare(b, first[b]);
        }
        if (!schedule) {  // what a kernel prints, it prints once
            fflush(stdout);
            const int nothing = open("/dev/null", O_WRONLY);
            if (nothing >= 0) dup2(nothing, 1);
        }
    }
    for (u64 b = 0; b < buffer_count; ++b)
        if (first[b]) {
            memcpy(data + buffer_table[b].offset, first[b], buffers[b].bytes);
            buffer_table[b].written = 1;
        }
}

static void take_values() {
    const Argument *given = (const Argument *)(data + launch->argument_at);
    values = new certiconv::Value[launch->arguments + 1];
    for (u64 a = 0; a < launch->arguments; ++a) {
        if (given[a].buffer == VALUE) values[a] = {data + given[a].offset, 0};
        else if (given[a].buffer == NULL_POINTER) values[a] = {0, 0};
        else values[a] = {0, (void *)(buffers[given[a].buffer].base + given[a].offset)};
    }
}

static uint3 three(const u64 *v) { return {(unsigned)v[0], (unsigned)v[1], (unsigned)v[2]}; }

static void describe() {
    for (unsigned k = 0; k < certiconv_kernel_count; ++k) {
        printf("%s\n", certiconv_kernels[k].name);
        certiconv_kernels[k].describe();
        printf("\n");
    }
}

int main(int count, char **words) {
    if (count < 2) return describe(), 0;
    const int file = atoi(words[1]);
    struct stat found;
    if (fstat(file, &found)) return 2;
    data = (char *)mmap(0, (size_t)found.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (data == MAP_FAILED) return 2;
    launch = (Launch *)data;
    grid_dim = three(launch->grid);
    block_dim = three(launch->block);
    make_fibres(block_dim.x * block_dim.y * block_dim.z);
    for (unsigned t = 0; t < threads; ++t) {
        Fibre &f = fibres[t];
        f.thread = t;
        f.lane = t & 31;
        f.warp = t >> 5;
        f.index = {t % block_dim.x, t / block_dim.x % block_dim.y, t / block_dim.x / block_dim.y};
    }
    catch_signals();
    make_buffers();
    make_shared();
    variables.base = (uintptr_t)&__data_start;
    variables.bytes = (u64)(&_end - &__data_start);
    variables.log_cell = 4;
    variables.space = 3;
    if (launch->check) variables.cells = make_cells(variables.bytes);
    take_values();
    run_all();
    for (u64 s = 0; s < shared_count; ++s)
        ((SharedArray *)(data + launch->shared_at))[s].used = shared_arrays[s].written;
    launch->result.accesses = accesses;
    launch->result.floating_atomics = floating_atomics;
    launch->result.undefined_shuffles = undefined_shuffles;
    launch->result.finished = 1;
    fflush(stdout);
    _exit(0);
}
