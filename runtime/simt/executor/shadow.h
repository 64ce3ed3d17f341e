// The checker: who read and wrote each cell last, and whether that is ordered before what happens now.
//
// An access is stamped with its *interval*, a number that grows at every barrier and at the start of every block, and with
// the clock of its thread, which grows at every __syncwarp.  Two accesses of one block are ordered if they are of one
// thread, or lie in different intervals, or if the later thread has met the earlier one's clock at a __syncwarp (each thread
// keeps a vector clock over the lanes of its warp).  Accesses of different blocks are never ordered.  Two accesses to one
// cell that are not ordered are a race if one of them writes, unless both are atomic.
//
// A cell remembers its last write and two readers since, chosen so that a later write conflicts with one of them if it
// conflicts with any: of readers in one interval, two of different warps; of different blocks, one of another block.
//
// Cells start at 16 bytes and are split when a smaller access comes: two halves of one word are then two cells.
#pragma once

#include "report.h"

struct Record {
    uint32_t interval, clock, pc;
    uint16_t thread, flags;
};
enum { IS_ATOMIC = 1, IS_ASYNC = 2 };

struct Cell {
    Record write, read[2];
};

struct Region {
    uintptr_t base;
    u64 bytes;
    unsigned log_cell;   // cells of 2^log_cell bytes
    uint32_t floor;      // records of earlier intervals are of an earlier block or schedule, and void
    bool shared, poisoned, written;
    u64 space, number;
    Cell *cells;
};

const uintptr_t GLOBAL = 1ull << 44;
const unsigned GLOBAL_STRIDE = 36;  // 64 GiB from one buffer to the next: an index of 32 bits hardly reaches another
const unsigned SLOT = 16;

static Region *buffers, *shared_arrays, variables;
static u64 buffer_count, shared_count;
static Region **slots;  // which shared array lies at each 64 KiB of the thread-local segment
static uintptr_t shared_low, shared_span;
static uint32_t interval, block_first, schedule_first;
static u64 accesses, floating_atomics, undefined_shuffles;

struct BlockStart { uint32_t interval, block; };
static BlockStart *block_starts;
static u64 block_start_count;

static unsigned block_of(uint32_t when) {
    u64 low = 0, high = block_start_count;
    while (high - low > 1) {
        u64 middle = (low + high) / 2;
        (block_starts[middle].interval <= when ? low : high) = middle;
    }
    return block_starts[low].block;
}

static Cell *make_cells(u64 bytes) {  // room for cells of one byte each; only what is used becomes memory
    return (Cell *)mmap(0, (bytes + 16) * sizeof(Cell), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

static bool is_used(const Cell &c) { return c.write.interval | c.read[0].interval; }

static void split_cells(Region &r, unsigned log_cell) {
    const u64 old = (r.bytes + (1ull << r.log_cell) - 1) >> r.log_cell;
    const u64 parts = 1ull << (r.log_cell - log_cell);
    for (u64 c = old; c-- > 0;) {
        const Cell cell = r.cells[c];
        for (u64 p = parts; p-- > 0;) {
            Cell &part = r.cells[c * parts + p];
            if (is_used(cell) || is_used(part)) part = cell;  // what was never used stays without memory
        }
    }
    r.log_cell = log_cell;
}

static inline bool ordered(const Record &r) {
    if (r.interval < block_first) return false;  // of another block
    if (r.thread == now->thread || r.interval < interval) return true;
    return r.thread >> 5 == now->warp && now->seen[r.thread & 31] >= r.clock;
}

static Access access_of(const Record &r, Access plain) {
    return r.flags & IS_ASYNC ? ASYNC : r.flags & IS_ATOMIC ? ATOMIC : plain;
}
static Site site_of(const Record &r, Access plain) {
    return {access_of(r, plain), r.pc, 0, block_of(r.interval), r.thread};
}

static void locate(const Region &r, uintptr_t at, unsigned bytes) {
    Result &result = launch->result;
    result.space = r.space;
    result.array = r.number;
    result.offset = (u64)((intptr_t)at - (intptr_t)r.base);
    result.bytes = bytes;
    result.numbers[0] = r.bytes;
}

// For a shared array of a class with constructors, g++ keeps a flag that tells whether it was constructed, although that
// needs no code.  The flag lies among the arrays, and the kernel reads and sets it.
static uintptr_t *flags;
static u64 flag_count;

__attribute__((noinline, cold)) static bool is_flag(uintptr_t at, unsigned bytes) {
    for (u64 f = 0; f < flag_count; ++f)
        if (flags[f] == at && bytes == 1) return true;
    return false;
}

[[noreturn]] __attribute__((noinline, cold)) static void race(const Region &r, uintptr_t at, unsigned bytes, Access access,
                                                              unsigned pc, const Record &other, Access plain) {
    locate(r, at, bytes);
    const char *text = other.flags & IS_ASYNC ? "the asynchronous copy has not been waited for"
                       : other.interval < block_first ? "nothing orders two blocks"
                       : other.thread >> 5 == now->warp ? "no __syncthreads() or __syncwarp() between them"
                                                        : "no __syncthreads() between them";
    fail(RACE, site(access, pc), site_of(other, plain), text);
}

[[noreturn]] __attribute__((noinline, cold)) static void out_of_bounds(const Region *r, uintptr_t at, unsigned bytes,
                                                                       Access access, unsigned pc) {
    if (r && r->shared && (intptr_t)(at - r->base) > (intptr_t)r->bytes) {
        // Between two arrays: blame the one that is nearer.
        for (u64 s = 0; s < shared_count; ++s) {
            Region &next = shared_arrays[s];
            if (next.base > at && next.base - at < at - r->base - r->bytes) r = &next;
        }
    }
    if (r) locate(*r, at, bytes);
    else launch->result.offset = at, launch->result.bytes = bytes;
    fail(OUT_OF_BOUNDS, site(access, pc), nowhere, r ? "" : "the address lies in no array");
}

// Whether a cell still holds what runtime/simt/poison.py fills an empty array with; of a small one, the word around it.
static bool is_poison(const Region &r, const Cell &cell) {
    const uintptr_t size = 1ull << r.log_cell, at = r.base + (uintptr_t)(&cell - r.cells) * size;
    for (uintptr_t a = at & ~3ull; a < at + size; a += 4)
        if (a + 4 > r.base + r.bytes || *(const uint32_t *)a != POISON) return false;
    return true;
}

__attribute__((noinline, cold)) static void note_unwritten(const Region &r, uintptr_t at, unsigned bytes, Access access, unsigned pc) {
    if (unwritten.kind) return;
    locate(r, at, bytes);
    unwritten = launch->result;
    unwritten.kind = UNINITIALISED;
    unwritten.here = site(access, pc);
    unwritten.schedule = schedule;
    strcpy(unwritten.text, r.shared ? "nothing has been written there in this block" : "nothing has been written there");
}

static inline Record stamp(unsigned pc, unsigned flags) {
    return {interval, now->seen[now->lane], pc, (uint16_t)now->thread, (uint16_t)flags};
}

static inline void note_reader(Cell &cell, const Record &mine, uint32_t floor) {
    Record &a = cell.read[0], &b = cell.read[1];
    if (a.interval < floor || (a.thread == mine.thread && a.interval >= block_first)) {
        a = mine;
        return;
    }
    if (b.interval < floor || (b.thread == mine.thread && b.interval >= block_first)) {
        b = a;
        a = mine;
        return;
    }
    // A third one.  What is ordered before it says nothing more; else keep what is farther from it.
    const bool drop_a = a.interval >= block_first &&
                        (a.interval < interval || b.interval < block_first || a.thread >> 5 == now->warp);
    if (!drop_a) b = a;
    a = mine;
}

static inline void read_cell(const Region &r, Cell &cell, uintptr_t at, unsigned bytes, unsigned pc) {
    const Record &w = cell.write;
    if (w.interval >= r.floor && w.interval) {
        if (w.flags & IS_ASYNC || !ordered(w)) race(r, at, bytes, READ, pc, w, WRITE);
    } else if (r.shared || (r.poisoned && is_poison(r, cell))) {
        note_unwritten(r, at, bytes, READ, pc);
    }
    for (const Record &a : cell.read)
        if (a.flags & IS_ATOMIC && a.interval >= r.floor && !ordered(a)) race(r, at, bytes, READ, pc, a, READ);
    note_reader(cell, stamp(pc, 0), r.floor);
}

static inline void write_cell(Region &r, Cell &cell, uintptr_t at, unsigned bytes, unsigned pc, unsigned flags) {
    const Access access = flags & IS_ASYNC ? ASYNC : WRITE;
    const Record &w = cell.write;
    if (w.interval >= r.floor && w.interval && (w.flags & IS_ASYNC || !ordered(w)))
        race(r, at, bytes, access, pc, w, WRITE);
    for (Record &a : cell.read) {
        if (a.interval >= r.floor && a.interval && !ordered(a)) race(r, at, bytes, access, pc, a, READ);
        a = Record();
    }
    cell.write = stamp(pc, flags);
}

static inline void atomic_cell(Region &r, Cell &cell, uintptr_t at, unsigned bytes, unsigned pc) {
    Record &w = cell.write;
    const bool valid = w.interval >= r.floor && w.interval;
    if (valid) {
        if (w.flags & IS_ASYNC || (!(w.flags & IS_ATOMIC) && !ordered(w))) race(r, at, bytes, ATOMIC, pc, w, WRITE);
    } else if (r.shared || (r.poisoned && is_poison(r, cell))) {
        note_unwritten(r, at, bytes, ATOMIC, pc);
    }
    for (const Record &a : cell.read)
        if (a.interval >= r.floor && a.interval && !(a.flags & IS_ATOMIC) && !ordered(a))
            race(r, at, bytes, ATOMIC, pc, a, READ);
    if (valid && w.flags & IS_ATOMIC && !ordered(w)) note_reader(cell, w, r.floor);
    w = stamp(pc, IS_ATOMIC);
}

// An access to a region: its bounds, then each of its cells.
template <class Each>
static inline void in_region(Region &r, uintptr_t at, unsigned bytes, Access access, unsigned pc, Each each) {
    const u64 offset = at - r.base;
    if (__builtin_expect(offset >= r.bytes || bytes > r.bytes - offset, 0)) {
        if (is_flag(at, bytes)) return;
        out_of_bounds(&r, at, bytes, access, pc);
    }
    const unsigned unit = __builtin_ctz((unsigned)offset | bytes | 16u);
    if (__builtin_expect(unit < r.log_cell, 0)) split_cells(r, unit);
    const u64 first = offset >> r.log_cell, last = (offset + bytes - 1) >> r.log_cell;
    if (access != READ) r.written = true;
    for (u64 c = first; c <= last; ++c) each(r.cells[c]);
}

static inline Region *find(uintptr_t at) {
    const uintptr_t number = (at - GLOBAL) >> GLOBAL_STRIDE;
    if (number < buffer_count) return &buffers[number];
    if (at - shared_low < shared_span) return slots[(at - shared_low) >> SLOT];
    return 0;
}
