// Atomics: one fibre runs at a time, so reading, computing and writing without a switch is atomic.  The executor sees
// them as atomic accesses, which race with plain ones only.
#pragma once

template <class T> struct certiconv_same { typedef T type; };

// `new_value` is said in terms of `old` and `value`.
#define CERTICONV_ATOMIC(name, T, new_value)                                                  \
    inline T name(T *at, typename certiconv_same<T>::type value) {                            \
        T old;                                                                                \
        certiconv_atomic_read(at, &old, sizeof old, CERTICONV_IS_FLOATING(T));                \
        T result = (T)(new_value);                                                            \
        certiconv_atomic_write(at, &result, sizeof result);                                   \
        return old;                                                                           \
    }
template <class T> struct certiconv_floating { static constexpr int value = 0; };
template <> struct certiconv_floating<float> { static constexpr int value = 1; };
template <> struct certiconv_floating<double> { static constexpr int value = 1; };
template <> struct certiconv_floating<__half> { static constexpr int value = 1; };
template <> struct certiconv_floating<__nv_bfloat16> { static constexpr int value = 1; };
#define CERTICONV_IS_FLOATING(T) certiconv_floating<T>::value

#define CERTICONV_ATOMIC_SUM(T)                   \
    CERTICONV_ATOMIC(atomicAdd, T, old + value)   \
    CERTICONV_ATOMIC(atomicExch, T, value)
CERTICONV_ATOMIC(atomicAdd, int, (unsigned)old + (unsigned)value)
CERTICONV_ATOMIC(atomicExch, int, value)
CERTICONV_ATOMIC_SUM(unsigned)
CERTICONV_ATOMIC_SUM(unsigned long long)
CERTICONV_ATOMIC_SUM(float)
CERTICONV_ATOMIC_SUM(double)
CERTICONV_ATOMIC_SUM(certiconv_field)
CERTICONV_ATOMIC(atomicAdd, __half, old + value)
CERTICONV_ATOMIC(atomicAdd, __nv_bfloat16, old + value)
CERTICONV_ATOMIC(atomicSub, int, (unsigned)old - (unsigned)value)
CERTICONV_ATOMIC(atomicSub, unsigned, old - value)

#define CERTICONV_ATOMIC_INTEGER(T)                            \
    CERTICONV_ATOMIC(atomicMin, T, value < old ? value : old)  \
    CERTICONV_ATOMIC(atomicMax, T, old < value ? value : old)  \
    CERTICONV_ATOMIC(atomicAnd, T, old & value)                \
    CERTICONV_ATOMIC(atomicOr, T, old | value)                 \
    CERTICONV_ATOMIC(atomicXor, T, old ^ value)
CERTICONV_ATOMIC_INTEGER(int)
CERTICONV_ATOMIC_INTEGER(unsigned)
CERTICONV_ATOMIC_INTEGER(long long)
CERTICONV_ATOMIC_INTEGER(unsigned long long)
CERTICONV_ATOMIC(atomicInc, unsigned, old >= value ? 0u : old + 1u)
CERTICONV_ATOMIC(atomicDec, unsigned, old == 0u || old > value ? value : old - 1u)

#define CERTICONV_ATOMIC_SWAP(T)                                                                             \
    inline T atomicCAS(T *at, typename certiconv_same<T>::type compare, typename certiconv_same<T>::type value) { \
        T old;                                                                                               \
        certiconv_atomic_read(at, &old, sizeof old, 0);                                                      \
        T result = old == compare ? (T)value : old;                                                          \
        certiconv_atomic_write(at, &result, sizeof result);                                                  \
        return old;                                                                                          \
    }
CERTICONV_ATOMIC_SWAP(int)
CERTICONV_ATOMIC_SWAP(unsigned)
CERTICONV_ATOMIC_SWAP(unsigned long long)
CERTICONV_ATOMIC_SWAP(unsigned short)
