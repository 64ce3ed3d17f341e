// CUDA's C++ for g++: what a kernel's text may say, mapped to the executor in ../executor.
//
// A kernel is compiled as it is.  Every CUDA thread becomes a fibre, so a barrier is a call that returns later, and the
// memory accesses are seen through the hooks that -fsanitize=thread inserts.  Shared arrays are thread_local: that alone
// makes "extern __shared__ T s[]" legal next to "__shared__ T s[N]", and it gathers them in one segment whose symbols
// tell names and sizes.  Each starts at a multiple of 64 KiB, more than the 48 KiB that static shared memory may have,
// so that an index beyond an array never meets the next one.
#pragma once

// Copies of whole ranges are accesses too: the executor's functions stand behind these names.
extern "C" {
void *memcpy(void *__restrict__, const void *__restrict__, __SIZE_TYPE__) noexcept __asm__("certiconv_memcpy");
void *memmove(void *, const void *, __SIZE_TYPE__) noexcept __asm__("certiconv_memmove");
void *memset(void *, int, __SIZE_TYPE__) noexcept __asm__("certiconv_memset");
}

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define CERTICONV_SIMT 1

#define __global__ __attribute__((noinline))
#define __device__
#define __host__
#define __shared__ thread_local __attribute__((used, aligned(65536)))
#define __constant__ __attribute__((used))
#define __managed__
#define __grid_constant__
#define __launch_bounds__(...)
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(n) __attribute__((aligned(n)))

// The keyword may not follow thread_local, as it may follow __shared__; the attribute takes a number, the keyword a type too.
template <class T> constexpr __SIZE_TYPE__ certiconv_alignment() { return alignof(T); }
template <__SIZE_TYPE__ N> constexpr __SIZE_TYPE__ certiconv_alignment() { return N; }
#define alignas(...) __attribute__((aligned(certiconv_alignment<__VA_ARGS__>())))

#include "certiconv/vectors.h"
#include "certiconv/runtime.h"
#include "certiconv/math.h"
#include "certiconv/half.h"
#include "certiconv/field.h"
#include "certiconv/threads.h"
#include "certiconv/atomics.h"
#include "certiconv/wrappers.h"
#include "certiconv/exact.h"
