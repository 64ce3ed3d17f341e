// CUDA's device functions on numbers, as far as the C library does not have them under the same name.
#pragma once

#define CERTICONV_ALIAS1(name, value)  inline float name(float x) { return value; }
CERTICONV_ALIAS1(__expf, expf(x))
CERTICONV_ALIAS1(__exp10f, expf(x * 2.302585092994045684f))
CERTICONV_ALIAS1(__logf, logf(x))
CERTICONV_ALIAS1(__log2f, log2f(x))
CERTICONV_ALIAS1(__sinf, sinf(x))
CERTICONV_ALIAS1(__cosf, cosf(x))
CERTICONV_ALIAS1(__tanf, tanf(x))
CERTICONV_ALIAS1(rsqrtf, (float)(1.0 / sqrt((double)x)))
CERTICONV_ALIAS1(rsqrt, (float)(1.0 / sqrt((double)x)))
CERTICONV_ALIAS1(__frsqrt_rn, (float)(1.0 / sqrt((double)x)))
CERTICONV_ALIAS1(__fsqrt_rn, sqrtf(x))
CERTICONV_ALIAS1(__frcp_rn, 1.0f / x)
CERTICONV_ALIAS1(__saturatef, x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f)
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline double __drcp_rn(double x) { return 1.0 / x; }
inline double __dsqrt_rn(double x) { return sqrt(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fsub_rn(float x, float y) { return x - y; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
inline double __dadd_rn(double x, double y) { return x + y; }
inline double __dmul_rn(double x, double y) { return x * y; }
inline double __fma_rn(double x, double y, double z) { return fma(x, y, z); }
inline float __powf(float x, float y) { return powf(x, y); }

// min and max of two numbers of one type, and of the mixtures of integers that CUDA has.
#define CERTICONV_MIN_MAX(T)                                        \
    inline constexpr T min(T a, T b) { return b < a ? b : a; }      \
    inline constexpr T max(T a, T b) { return a < b ? b : a; }
CERTICONV_MIN_MAX(int)
CERTICONV_MIN_MAX(unsigned int)
CERTICONV_MIN_MAX(long)
CERTICONV_MIN_MAX(unsigned long)
CERTICONV_MIN_MAX(long long)
CERTICONV_MIN_MAX(unsigned long long)
#define CERTICONV_MIN_MAX_MIXED(T, U)                                        \
    inline constexpr U min(T a, U b) { return min((U)a, b); }                \
    inline constexpr U min(U a, T b) { return min(a, (U)b); }                \
    inline constexpr U max(T a, U b) { return max((U)a, b); }                \
    inline constexpr U max(U a, T b) { return max(a, (U)b); }
CERTICONV_MIN_MAX_MIXED(int, unsigned int)
CERTICONV_MIN_MAX_MIXED(long, unsigned long)
CERTICONV_MIN_MAX_MIXED(long long, unsigned long long)
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }
inline double min(double a, float b) { return fmin(a, b); }
inline double min(float a, double b) { return fmin(a, b); }
inline double max(double a, float b) { return fmax(a, b); }
inline double max(float a, double b) { return fmax(a, b); }

// Bits.
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)x) : 64; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline unsigned __brev(unsigned x) {
    unsigned y = 0;
    for (int i = 0; i < 32; ++i) y |= (x >> i & 1u) << (31 - i);
    return y;
}
inline int __mul24(int a, int b) { return (int)((unsigned)(a << 8 >> 8) * (unsigned)(b << 8 >> 8)); }
inline int __mulhi(int a, int b) { return (int)((long long)a * b >> 32); }
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((unsigned long long)a * b >> 32); }

template <class To, class From> inline To certiconv_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "the same bits in another type");
    To to;
    __builtin_memcpy(&to, &from, sizeof to);
    return to;
}
inline int __float_as_int(float x) { return certiconv_bits<int>(x); }
inline unsigned __float_as_uint(float x) { return certiconv_bits<unsigned>(x); }
inline float __int_as_float(int x) { return certiconv_bits<float>(x); }
inline float __uint_as_float(unsigned x) { return certiconv_bits<float>(x); }
inline long long __double_as_longlong(double x) { return certiconv_bits<long long>(x); }
inline double __longlong_as_double(long long x) { return certiconv_bits<double>(x); }
inline float __int2float_rn(int x) { return (float)x; }
inline int __float2int_rn(float x) { return (int)rintf(x); }
inline int __float2int_rz(float x) { return (int)x; }
inline int __float2int_rd(float x) { return (int)floorf(x); }
