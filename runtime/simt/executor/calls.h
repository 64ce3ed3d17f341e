// The way by which a thread came to a barrier or a warp operation: the calls from the kernel's entry to it.
//
// A line does not tell one barrier from another: two may stand on it, and one in a helper is another for each call of the
// helper.  The addresses of code do: a checked text is compiled so that a call of the text is one call of the program, for
// each way on which functions were inlined around it (runtime/simt/toolchain.py).  They are found by the frame pointers, and
// a hash of them stands for the way.  Without checks there are no frame pointers, and the line has to do.
#pragma once

#include "report.h"

#define FRAME ((void **)__builtin_frame_address(0))

static bool is_above(const Fibre &f, void **frame, void **below) {
    return frame > below && frame <= f.bottom;
}

static void arrive(Fibre &f, int line, void **frame) {
    f.line = line;
    f.frame = frame;
    f.path = (u64)line;
    if (!launch->check) return;
    while (frame != f.bottom) {
        f.path = (f.path ^ (u64)frame[1]) * 0x9e3779b97f4a7c15;
        f.path ^= f.path >> 32;
        void **next = (void **)*frame;
        if (!is_above(f, next, frame)) fail(CRASH, site(NONE, 0, line), nowhere, "the calls of a thread cannot be followed");
        frame = next;
    }
}

static unsigned depth(const Fibre &f) {
    unsigned calls = 0;
    for (void **frame = f.frame; frame != f.bottom; frame = (void **)*frame) ++calls;
    return calls;
}
static u64 call_at(const Fibre &f, unsigned level) {  // 0: the kernel's own
    void **frame = f.frame;
    for (unsigned up = depth(f) - 1 - level; up; --up) frame = (void **)*frame;
    return (u64)frame[1] - 1;
}

// Notes the calls at which two ways part, for the report.
static void note_ways(const Fibre &a, const Fibre &b) {
    if (!launch->check) return;
    for (unsigned level = 0; level < depth(a) && level < depth(b); ++level)
        if (call_at(a, level) != call_at(b, level)) {
            launch->result.numbers[2] = call_at(a, level);
            launch->result.numbers[3] = call_at(b, level);
            return;
        }
}
