// A CUDA thread as a fibre: a stack of its own and a switch that saves what the calling convention says must survive.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

#include "../include/certiconv/vectors.h"

enum State { RUNNABLE, AT_BARRIER, AT_WARP, ENDED };

struct AsyncCopy {
    char *to;
    const char *from;
    unsigned bytes, source_bytes, pc, group;
};

struct Fibre {
    void *stack_pointer;
    uint3 index;
    unsigned thread, lane, warp;
    State state;
    int line, predicate;
    void **frame, **bottom;  // of the call it waits in, and of the one that entered the kernel (calls.h)
    uint64_t path;
    unsigned last_pc;
    // What it waits for in its warp, and where its share lies.
    int kind, operand, width;
    unsigned mask, bytes, result;
    const void *in;
    void *out;
    // Which interval of each lane of its warp lies before what it does now; its own entry is its present interval.
    unsigned seen[32];
    // The line of the last shuffle whose undefined result may be in its registers, and its last write since (warps.h).
    int undefined_line;
    unsigned stored_bytes, stored_pc;
    uintptr_t stored;
    AsyncCopy *copies;
    unsigned copy_count, copy_room, groups;
};

const size_t STACK = 256 << 10;

extern "C" void certiconv_switch(void **save, void *load);
asm(R"(
.text
.globl certiconv_switch
.type certiconv_switch, @function
certiconv_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size certiconv_switch, .-certiconv_switch
)");

static Fibre *fibres, *now;
static char *stacks;
static unsigned threads;
static void *scheduler;

static void fibre_main();

// Stacks touch no memory until they are used.  A page between two of them that cannot be touched would cost more than a
// small launch takes; that a frame lies in its own stack is checked where a function starts (__tsan_func_entry).
static void make_fibres(unsigned count) {
    threads = count;
    fibres = (Fibre *)mmap(0, count * sizeof(Fibre), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    const size_t below = 64 << 20;  // out of bounds for the lowest stack
    char *all = (char *)mmap(0, below + count * STACK, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    stacks = all + below;
    mprotect(stacks, count * STACK, PROT_READ | PROT_WRITE);
}

static void start_fibre(Fibre &f) {
    void **top = (void **)(stacks + (f.thread + 1) * STACK - 64);
    *--top = 0;
    *--top = (void *)fibre_main;
    for (int i = 0; i < 6; ++i) *--top = 0;
    f.stack_pointer = top;
    f.state = RUNNABLE;
}

static inline void run(Fibre &f) {
    now = &f;
    certiconv_switch(&scheduler, f.stack_pointer);
}
static inline void yield() { certiconv_switch(&now->stack_pointer, scheduler); }
