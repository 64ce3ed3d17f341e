// What the executor offers to the header: the border between a kernel's text, which is instrumented, and the executor,
// which is not.  Everything here is plain C, so that the executor is compiled once for all programs.
#pragma once

extern "C" {
// Where this thread is: x in 31 bits, y and z in 16 each.  A fibre never changes its place, so the compiler may ask once;
// it does so for numbers, not for structures.
unsigned long certiconv_thread_index() __attribute__((const));
unsigned long certiconv_block_index() __attribute__((const));
unsigned long certiconv_block_dim() __attribute__((const));
unsigned long certiconv_grid_dim() __attribute__((const));
unsigned certiconv_lane() __attribute__((const));

// Barriers and warp operations; `line` is the line of the caller.
int certiconv_barrier(int predicate, int line);  // how many threads of the block had a true predicate
void certiconv_warp_barrier(unsigned mask, int line);
unsigned certiconv_vote(int kind, unsigned mask, int predicate, int line);  // a ballot
void certiconv_match(unsigned mask, const void *in, unsigned bytes, unsigned *equal, int line);
// 0 where it read no lane.
int certiconv_shuffle(int kind, unsigned mask, const void *in, void *out, unsigned bytes, int operand, int width, int line);
// The lanes that took part: those of the mask that have not ended.
unsigned certiconv_gather(int kind, unsigned mask, const void *in, unsigned bytes, void *all, int line);
unsigned certiconv_active();

// An atomic access: the first call checks it and takes the old value, the second one writes.
void certiconv_atomic_read(const void *at, void *old, unsigned bytes, int floating);
void certiconv_atomic_write(void *at, const void *value, unsigned bytes);

// Asynchronous copies from global to shared memory, and a load that another lane's registers receive.
void certiconv_async_copy(void *to, const void *from, unsigned bytes, unsigned source_bytes);
void certiconv_async_commit();
void certiconv_async_wait(unsigned pending);
void certiconv_async_wait_all();
void certiconv_row_load(const void *from, void *to, unsigned bytes);

// Numbers.
float certiconv_half_to_float(unsigned short bits) __attribute__((const));
unsigned short certiconv_float_to_half(float value) __attribute__((const));
unsigned short certiconv_double_to_half(double value) __attribute__((const));
unsigned long long certiconv_field_hash(int function, unsigned long long value);
unsigned long long certiconv_field_inverse(unsigned long long value);
void certiconv_field_poison() __attribute__((noreturn));
void certiconv_trap(int line) __attribute__((noreturn));
}
