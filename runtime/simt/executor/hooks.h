// The hooks that g++ calls before every memory access (-fsanitize=thread) and after a failed check of an alignment, an
// index or a sum (-fsanitize=alignment,bounds,signed-integer-overflow).  Their names and arguments are g++'s.
#pragma once

#include "shadow.h"

extern char __data_start, _end, __executable_start;

static struct { unsigned pc; u64 index; const char *type; } bad_index;

static bool own_stack(uintptr_t at) {
    return at - (uintptr_t)(stacks + now->thread * STACK) < STACK;
}

static const char *const UNDEFINED_TEXT = "the value is what a shuffle gave that read a lane that ended or is not in the mask";
static const char *const FULL_STACK = "the stack of a thread is full: local arrays or recursion take more than 256 KiB";

// An index left the bounds that an array's type states.  The next access to a shared or local array should be the one:
// `there` is where it is made, and names the array if it is on the same line.
[[noreturn]] __attribute__((noinline, cold)) static void report_index(const Region *r, uintptr_t at, unsigned bytes,
                                                                      Access access, unsigned pc) {
    if (r) {
        if (at - r->base >= r->bytes || bytes > r->bytes - (at - r->base)) out_of_bounds(r, at, bytes, access, pc);
        locate(*r, at, bytes);
    }
    launch->result.numbers[1] = bad_index.index;
    launch->result.numbers[2] = 1;
    fail(OUT_OF_BOUNDS, site(access, bad_index.pc), site(access, pc), bad_index.type);
}

// Neither a buffer nor a shared array: the thread's own variables, those of the program, or nothing that may be touched.
__attribute__((noinline)) static Region *elsewhere(uintptr_t at, unsigned bytes, Access access, unsigned pc) {
    if (own_stack(at)) {
        if (bad_index.pc) report_index(0, at, bytes, access, pc);
        return 0;
    }
    if (at >= (uintptr_t)&__data_start && at < (uintptr_t)&_end) return &variables;
    if (access == READ && at >= (uintptr_t)&__executable_start && at < (uintptr_t)&__data_start) return 0;
    if (is_flag(at, bytes)) return 0;
    if (access == READ && at - (uintptr_t)launch < launch->bytes) return 0;  // the value of an argument
    if (at - (uintptr_t)stacks < threads * STACK) {
        launch->result.offset = at;
        fail(OUT_OF_BOUNDS, site(access, pc), nowhere, "it is a local variable of another thread");
    }
    out_of_bounds(0, at, bytes, access, pc);
}

// A thread that was given an undefined value by a shuffle may store it: a hook comes before its access, so the cell is
// looked at before the thread's next write, or where it stops.  Shorter cells than four bytes hold the value by chance.
__attribute__((noinline, cold)) static void check_stored() {
    Fibre &f = *now;
    const char *value = (const char *)&UNDEFINED_VALUES[schedule & 1], *cell = (const char *)f.stored;
    const unsigned bytes = f.stored_bytes;
    f.stored_bytes = 0;
    for (unsigned b = 0; b < bytes; ++b)
        if (cell[b] != value[b & 3]) return;
    if (!bytes) return;
    locate(*find(f.stored), f.stored, bytes);
    const Site there = {AT_WARP_LINE, 0, (u64)f.undefined_line, block, f.thread};
    fail(SHUFFLE_MASK, site(WRITE, f.stored_pc), there, UNDEFINED_TEXT);
}
__attribute__((noinline, cold)) static void note_stored(const Region &r, uintptr_t at, unsigned bytes, unsigned pc) {
    check_stored();
    now->stored = at;
    now->stored_bytes = r.space == 1 && bytes >= 4 && bytes <= 16 ? bytes : 0;
    now->stored_pc = pc;
}

static inline void on_read(uintptr_t at, unsigned bytes, unsigned pc) {
    Region *r = find(at);
    now->last_pc = pc;
    ++accesses;
    if (__builtin_expect(!r, 0) && !(r = elsewhere(at, bytes, READ, pc))) return;
    if (__builtin_expect(bad_index.pc != 0, 0) && r->shared) report_index(r, at, bytes, READ, pc);
    in_region(*r, at, bytes, READ, pc, [&](Cell &cell) { read_cell(*r, cell, at, bytes, pc); });
}
static inline void on_write(uintptr_t at, unsigned bytes, unsigned pc, unsigned flags = 0) {
    Region *r = find(at);
    now->last_pc = pc;
    ++accesses;
    const Access access = flags & IS_ASYNC ? ASYNC : WRITE;
    if (__builtin_expect(!r, 0) && !(r = elsewhere(at, bytes, access, pc))) return;
    if (__builtin_expect(bad_index.pc != 0, 0) && r->shared) report_index(r, at, bytes, access, pc);
    in_region(*r, at, bytes, access, pc, [&](Cell &cell) { write_cell(*r, cell, at, bytes, pc, flags); });
    if (__builtin_expect(now->undefined_line, 0)) note_stored(*r, at, bytes, pc);
}
static inline void on_atomic(uintptr_t at, unsigned bytes, unsigned pc) {
    Region *r = find(at);
    now->last_pc = pc;
    ++accesses;
    if (!r && !(r = elsewhere(at, bytes, ATOMIC, pc))) return;
    in_region(*r, at, bytes, ATOMIC, pc, [&](Cell &cell) { atomic_cell(*r, cell, at, bytes, pc); });
}

#define CALLER ((unsigned)(uintptr_t)__builtin_return_address(0) - 1)

extern "C" {
void __tsan_init() {}
void __tsan_func_entry(void *) {  // its frame is there already: does it still lie in the thread's own stack?
    if (now && !own_stack((uintptr_t)__builtin_frame_address(0))) fail(CRASH, site(NONE, CALLER), nowhere, FULL_STACK);
}
void __tsan_func_exit() {}
#define CERTICONV_HOOKS(bytes)                                                                     \
    void __tsan_read##bytes(void *at) { on_read((uintptr_t)at, bytes, CALLER); }                   \
    void __tsan_write##bytes(void *at) { on_write((uintptr_t)at, bytes, CALLER); }                 \
    void __tsan_unaligned_read##bytes(void *at) { on_read((uintptr_t)at, bytes, CALLER); }         \
    void __tsan_unaligned_write##bytes(void *at) { on_write((uintptr_t)at, bytes, CALLER); }       \
    void __tsan_volatile_read##bytes(void *at) { on_read((uintptr_t)at, bytes, CALLER); }          \
    void __tsan_volatile_write##bytes(void *at) { on_write((uintptr_t)at, bytes, CALLER); }
CERTICONV_HOOKS(1)
CERTICONV_HOOKS(2)
CERTICONV_HOOKS(4)
CERTICONV_HOOKS(8)
CERTICONV_HOOKS(16)
void __tsan_read_range(void *at, unsigned long bytes) { if (bytes) on_read((uintptr_t)at, (unsigned)bytes, CALLER); }
void __tsan_write_range(void *at, unsigned long bytes) { if (bytes) on_write((uintptr_t)at, (unsigned)bytes, CALLER); }
void __tsan_vptr_update(void **, void *) {}
void __tsan_vptr_read(void **) {}

// A kernel's calls of memcpy and its kin come here: the header gives them these names.
static void range(const void *to, const void *from, size_t bytes, unsigned pc) {
    if (!bytes || !launch->check) return;
    if (from) on_read((uintptr_t)from, (unsigned)bytes, pc);
    on_write((uintptr_t)to, (unsigned)bytes, pc);
}
void *certiconv_memcpy(void *to, const void *from, size_t n) { range(to, from, n, CALLER); return memcpy(to, from, n); }
void *certiconv_memmove(void *to, const void *from, size_t n) { range(to, from, n, CALLER); return memmove(to, from, n); }
void *certiconv_memset(void *to, int value, size_t n) { range(to, 0, n, CALLER); return memset(to, value, n); }

struct SourceLocation { const char *file; uint32_t line, column; };
struct TypeDescriptor { uint16_t kind, info; char name[1]; };
struct TypeMismatch { SourceLocation at; const TypeDescriptor *type; unsigned char log_alignment, kind; };
struct OutOfBounds { SourceLocation at; const TypeDescriptor *array, *index; };
struct Overflow { SourceLocation at; const TypeDescriptor *type; };

static void misaligned(uintptr_t at, unsigned alignment, const char *type, Access access, unsigned pc) {
    if (Region *r = find(at)) locate(*r, at, 0);
    launch->result.numbers[1] = alignment;
    launch->result.numbers[3] = at;
    fail(MISALIGNED, site(access, pc), nowhere, type);
}
void __ubsan_handle_type_mismatch_v1(TypeMismatch *data, uintptr_t at) {
    misaligned(at, 1u << data->log_alignment, data->type->name, data->kind == 1 ? WRITE : READ, CALLER);
}
void __ubsan_handle_out_of_bounds(OutOfBounds *data, uintptr_t index) {
    // The access that follows tells which array it is, and whether the index leaves it altogether.
    if (!bad_index.pc) bad_index = {CALLER, index, data->array->name};
}
static void overflow(Overflow *data, const char *operation, u64 left, u64 right, unsigned pc) {
    if (now->undefined_line) return;  // a correct reduction adds what is undefined in lanes whose sums nobody reads
    char text[256];
    snprintf(text, sizeof text, "%s in type %s", operation, data->type->name);
    launch->result.numbers[0] = left;
    launch->result.numbers[1] = right;
    fail(OVERFLOW, site(NONE, pc), nowhere, text);
}
void __ubsan_handle_add_overflow(Overflow *d, uintptr_t a, uintptr_t b) { overflow(d, "+", a, b, CALLER); }
void __ubsan_handle_sub_overflow(Overflow *d, uintptr_t a, uintptr_t b) { overflow(d, "-", a, b, CALLER); }
void __ubsan_handle_mul_overflow(Overflow *d, uintptr_t a, uintptr_t b) { overflow(d, "*", a, b, CALLER); }
void __ubsan_handle_negate_overflow(Overflow *d, uintptr_t a) { overflow(d, "unary -", a, 0, CALLER); }
void __ubsan_handle_divrem_overflow(Overflow *d, uintptr_t a, uintptr_t b) { overflow(d, "/ or %", a, b, CALLER); }
}
