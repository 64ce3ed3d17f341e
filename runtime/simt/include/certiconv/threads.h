// Indices, barriers, votes and shuffles.  The line of the caller is a default argument, which is filled in where the
// call is written, and is what a report shows; one barrier is told from another by the calls that lead to it
// (executor/calls.h).
#pragma once

inline uint3 certiconv_unpacked(unsigned long v) {
    return {(unsigned)(v & 0x7fffffffu), (unsigned)(v >> 31 & 0xffffu), (unsigned)(v >> 47)};
}
#define threadIdx (certiconv_unpacked(certiconv_thread_index()))
#define blockIdx (certiconv_unpacked(certiconv_block_index()))
#define blockDim (dim3(certiconv_unpacked(certiconv_block_dim())))
#define gridDim (dim3(certiconv_unpacked(certiconv_grid_dim())))
#define warpSize 32

inline void __syncthreads(int line = __builtin_LINE()) { certiconv_barrier(0, line); }
inline int __syncthreads_count(int predicate, int line = __builtin_LINE()) {
    return certiconv_barrier(predicate != 0, line);
}
inline int __syncthreads_or(int predicate, int line = __builtin_LINE()) {
    return certiconv_barrier(predicate != 0, line) != 0;
}
inline int __syncthreads_and(int predicate, int line = __builtin_LINE()) {
    return certiconv_barrier(predicate == 0, line) == 0;
}
inline void __syncwarp(unsigned mask = 0xffffffffu, int line = __builtin_LINE()) { certiconv_warp_barrier(mask, line); }
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}
inline void __nanosleep(unsigned) {}
inline void __trap(int line = __builtin_LINE()) { certiconv_trap(line); }

inline unsigned __activemask() { return certiconv_active(); }
inline unsigned __ballot_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
    return certiconv_vote(0, mask, predicate, line);
}
inline int __any_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
    return certiconv_vote(1, mask, predicate, line) != 0;
}
inline int __all_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
    return certiconv_vote(2, mask, !predicate, line) == 0;
}
template <class T> inline unsigned __match_any_sync(unsigned mask, T value, int line = __builtin_LINE()) {
    unsigned equal;
    certiconv_match(mask, &value, sizeof value, &equal, line);
    return equal;
}

// A value that is undefined is one of its type all the same: lanes may compute with it whose results nobody reads.
template <class T> inline void certiconv_undefined(T &) {}
inline void certiconv_undefined(certiconv_field &result) { result.value %= certiconv_field::p; }

// The kinds of shuffles, and of everything else that waits for lanes, are numbered in executor/warps.h.
#define CERTICONV_SHUFFLE(name, kind, Operand)                                                             \
    template <class T>                                                                                     \
    inline T name(unsigned mask, T value, Operand operand, int width = 32, int line = __builtin_LINE()) {  \
        static_assert(sizeof(T) <= 16, "a shuffle moves at most 16 bytes");                                \
        T result;                                                                                          \
        if (!certiconv_shuffle(kind, mask, &value, &result, sizeof value, (int)operand, width, line))      \
            certiconv_undefined(result);                                                                   \
        return result;                                                                                     \
    }
CERTICONV_SHUFFLE(__shfl_sync, 0, int)
CERTICONV_SHUFFLE(__shfl_up_sync, 1, unsigned)
CERTICONV_SHUFFLE(__shfl_down_sync, 2, unsigned)
CERTICONV_SHUFFLE(__shfl_xor_sync, 3, int)

// Over the lanes that have not ended: CUDA asks no others to come.
#define CERTICONV_WARP_REDUCE(name, T, combine)                                      \
    inline T name(unsigned mask, T value, int line = __builtin_LINE()) {             \
        T all[32];                                                                   \
        const unsigned there = certiconv_gather(0, mask, &value, sizeof value, all, line); \
        T result = value;                                                            \
        bool first = true;                                                           \
        for (int lane = 0; lane < 32; ++lane)                                        \
            if (there >> lane & 1u) {                                                \
                T a = result, b = all[lane];                                         \
                result = first ? b : (T)(combine);                                   \
                first = false;                                                       \
            }                                                                        \
        return result;                                                               \
    }
CERTICONV_WARP_REDUCE(__reduce_add_sync, unsigned, a + b)
CERTICONV_WARP_REDUCE(__reduce_add_sync, int, (unsigned)a + (unsigned)b)
CERTICONV_WARP_REDUCE(__reduce_min_sync, unsigned, b < a ? b : a)
CERTICONV_WARP_REDUCE(__reduce_min_sync, int, b < a ? b : a)
CERTICONV_WARP_REDUCE(__reduce_max_sync, unsigned, a < b ? b : a)
CERTICONV_WARP_REDUCE(__reduce_max_sync, int, a < b ? b : a)
CERTICONV_WARP_REDUCE(__reduce_and_sync, unsigned, a & b)
CERTICONV_WARP_REDUCE(__reduce_or_sync, unsigned, a | b)
CERTICONV_WARP_REDUCE(__reduce_xor_sync, unsigned, a ^ b)

template <class T> inline T __ldg(const T *p) { return *p; }
template <class T> inline T __ldca(const T *p) { return *p; }
template <class T> inline T __ldcg(const T *p) { return *p; }
template <class T> inline T __ldcs(const T *p) { return *p; }
template <class T> inline void __stcg(T *p, T value) { *p = value; }
template <class T> inline void __stcs(T *p, T value) { *p = value; }
