// What goes over the border to Python: a launch, its arguments, and what became of it.  runtime/simt/wire.py writes and
// reads the same structures; every field has eight bytes, so there is no padding to agree on.
#pragma once

#include <stdint.h>

typedef uint64_t u64;

enum Kind : u64 {
    FINE, RACE, OUT_OF_BOUNDS, UNINITIALISED, MISALIGNED, DIVERGENT_BARRIER, SHUFFLE_MASK, OVERFLOW, CRASH, TIMEOUT,
    ORDER_DEPENDENT, UNDEFINED, TRAP
};
enum Access : u64 { NONE, READ, WRITE, ATOMIC, ASYNC, AT_BARRIER_LINE, AT_WARP_LINE, ENDED_THREAD };

struct Site {  // one side of an error; `line` is 0 where only the address of the code is known, and both may be 0
    u64 access, pc, line, block, thread;
};
struct Result {
    u64 finished, kind;
    Site here, there;
    u64 space;  // 0: no array; 1: a buffer of an argument; 2: a shared array; 3: variables of the program
    u64 array, offset, bytes;  // offset as a two's complement number: an access may lie before its array
    u64 schedule, accesses, floating_atomics, undefined_shuffles;
    u64 numbers[4];
    char text[256];
};
struct Buffer {
    u64 offset, bytes, out, poisoned, item, written;
};
struct Argument {
    u64 buffer, offset;  // a pointer into a buffer; buffer 2^64 - 1: a value that lies at `offset`, 2^64 - 2: null
};
struct SharedArray {
    u64 offset, bytes, used;  // in the thread-local segment; bytes 0: a flag of g++'s own, see is_flag in shadow.h
};
struct Launch {
    u64 bytes, kernel, grid[3], block[3], shared_bytes, dynamic_offset, check, timeout_ms, reproducible;
    u64 arguments, argument_at, buffers, buffer_at, shared, shared_at, schedules, schedule_at, key, key_at;
    Result result;
};

const u64 VALUE = ~0ull, NULL_POINTER = ~1ull;
const uint32_t POISON = 0x7ffd7ffdu;  // a NaN as float, double, half and bfloat16
// What a shuffle gives that reads no lane, in every other order: NaNs of both signs, so that what depends on one differs.
const uint32_t UNDEFINED_VALUES[] = {0x7ffd7ffdu, 0xfffcfffcu};
