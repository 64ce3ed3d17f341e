// The 16-bit floating types: stored as bits, computed through float and rounded to nearest even after each operation,
// as a GPU does.  (A fused multiply-add goes through double, which may differ from a GPU by a double rounding.)
#pragma once

struct __half_raw { unsigned short x; };
struct __nv_bfloat16_raw { unsigned short x; };

struct __half {
    unsigned short bits;
    __half() = default;
    __half(float x) : bits(certiconv_float_to_half(x)) {}
    __half(double x) : bits(certiconv_double_to_half(x)) {}
    __half(int x) : bits(certiconv_double_to_half(x)) {}
    __half(unsigned x) : bits(certiconv_double_to_half(x)) {}
    __half(__half_raw raw) : bits(raw.x) {}
    operator float() const { return certiconv_half_to_float(bits); }
};

inline unsigned short certiconv_float_to_bfloat16(float x) {
    unsigned u = certiconv_bits<unsigned>(x);
    if ((u & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
    return (unsigned short)((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}
inline unsigned short certiconv_double_to_bfloat16(double x) {
    float f = (float)x;  // to odd, so that the second rounding sees what the first one lost
    if ((double)f != x && f == f) {
        unsigned u = certiconv_bits<unsigned>(f);
        if (fabs((double)f) > fabs(x)) --u;
        f = certiconv_bits<float>(u | 1u);
    }
    return certiconv_float_to_bfloat16(f);
}

struct __nv_bfloat16 {
    unsigned short bits;
    __nv_bfloat16() = default;
    __nv_bfloat16(float x) : bits(certiconv_float_to_bfloat16(x)) {}
    __nv_bfloat16(double x) : bits(certiconv_double_to_bfloat16(x)) {}
    __nv_bfloat16(int x) : bits(certiconv_double_to_bfloat16(x)) {}
    __nv_bfloat16(unsigned x) : bits(certiconv_double_to_bfloat16(x)) {}
    __nv_bfloat16(__nv_bfloat16_raw raw) : bits(raw.x) {}
    operator float() const { return certiconv_bits<float>((unsigned)bits << 16); }
};

struct alignas(4) __half2 {
    __half x, y;
    __half2() = default;
    __half2(__half x, __half y) : x(x), y(y) {}
};
struct alignas(4) __nv_bfloat162 {
    __nv_bfloat16 x, y;
    __nv_bfloat162() = default;
    __nv_bfloat162(__nv_bfloat16 x, __nv_bfloat16 y) : x(x), y(y) {}
};
typedef __half half;
typedef __half2 half2;
typedef __nv_bfloat16 nv_bfloat16;
typedef __nv_bfloat162 nv_bfloat162;

// Each operation is that of float, rounded; other arithmetic types would be ambiguous, so both sides are spelt out.
#define CERTICONV_SMALL_FLOAT(T, T2, fused)                                                                     \
    inline T operator+(T a, T b) { return T((float)a + (float)b); }                                             \
    inline T operator-(T a, T b) { return T((float)a - (float)b); }                                             \
    inline T operator*(T a, T b) { return T((float)a * (float)b); }                                             \
    inline T operator/(T a, T b) { return T((float)a / (float)b); }                                             \
    inline T operator-(T a) { T r; r.bits = a.bits ^ 0x8000u; return r; }                                       \
    inline T &operator+=(T &a, T b) { return a = a + b; }                                                       \
    inline T &operator-=(T &a, T b) { return a = a - b; }                                                       \
    inline T &operator*=(T &a, T b) { return a = a * b; }                                                       \
    inline T &operator/=(T &a, T b) { return a = a / b; }                                                       \
    inline bool operator==(T a, T b) { return (float)a == (float)b; }                                           \
    inline bool operator!=(T a, T b) { return (float)a != (float)b; }                                           \
    inline bool operator<(T a, T b) { return (float)a < (float)b; }                                             \
    inline bool operator>(T a, T b) { return (float)a > (float)b; }                                             \
    inline bool operator<=(T a, T b) { return (float)a <= (float)b; }                                           \
    inline bool operator>=(T a, T b) { return (float)a >= (float)b; }                                           \
    inline T __hadd(T a, T b) { return a + b; }                                                                 \
    inline T __hsub(T a, T b) { return a - b; }                                                                 \
    inline T __hmul(T a, T b) { return a * b; }                                                                 \
    inline T __hdiv(T a, T b) { return a / b; }                                                                 \
    inline T __hneg(T a) { return -a; }                                                                         \
    inline T __habs(T a) { T r; r.bits = a.bits & 0x7fffu; return r; }                                          \
    inline T __hfma(T a, T b, T c) { return T((double)(float)a * (double)(float)b + (double)(float)c); }        \
    inline T __hmax(T a, T b) { return T(fmaxf((float)a, (float)b)); }                                          \
    inline T __hmin(T a, T b) { return T(fminf((float)a, (float)b)); }                                          \
    inline bool __heq(T a, T b) { return a == b; }                                                              \
    inline bool __hlt(T a, T b) { return a < b; }                                                               \
    inline bool __hgt(T a, T b) { return a > b; }                                                               \
    inline T hexp(T a) { return T(expf((float)a)); }                                                            \
    inline T hlog(T a) { return T(logf((float)a)); }                                                            \
    inline T hrcp(T a) { return T(1.0f / (float)a); }                                                           \
    inline T hsqrt(T a) { return T(sqrtf((float)a)); }                                                          \
    inline T2 operator+(T2 a, T2 b) { return T2(a.x + b.x, a.y + b.y); }                                        \
    inline T2 operator-(T2 a, T2 b) { return T2(a.x - b.x, a.y - b.y); }                                        \
    inline T2 operator*(T2 a, T2 b) { return T2(a.x * b.x, a.y * b.y); }                                        \
    inline T2 __hadd2(T2 a, T2 b) { return a + b; }                                                             \
    inline T2 __hsub2(T2 a, T2 b) { return a - b; }                                                             \
    inline T2 __hmul2(T2 a, T2 b) { return a * b; }                                                             \
    inline T2 __hfma2(T2 a, T2 b, T2 c) { return T2(__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)); }            \
    inline T __low2##fused(T2 a) { return a.x; }                                                                \
    inline T __high2##fused(T2 a) { return a.y; }
CERTICONV_SMALL_FLOAT(__half, __half2, half)
CERTICONV_SMALL_FLOAT(__nv_bfloat16, __nv_bfloat162, bfloat16)

inline __half __float2half(float x) { return __half(x); }
inline __half __float2half_rn(float x) { return __half(x); }
inline __half __double2half(double x) { return __half(x); }
inline float __half2float(__half x) { return (float)x; }
inline __half __int2half_rn(int x) { return __half(x); }
inline __half __ushort_as_half(unsigned short x) { return __half(__half_raw{x}); }
inline unsigned short __half_as_ushort(__half x) { return x.bits; }
inline __half2 __halves2half2(__half x, __half y) { return __half2(x, y); }
inline __half2 make_half2(__half x, __half y) { return __half2(x, y); }
inline __half2 __half2half2(__half x) { return __half2(x, x); }
inline __half2 __float2half2_rn(float x) { return __half2(__half(x), __half(x)); }
inline __half2 __floats2half2_rn(float x, float y) { return __half2(__half(x), __half(y)); }
inline __half2 __float22half2_rn(float2 v) { return __floats2half2_rn(v.x, v.y); }
inline float2 __half22float2(__half2 v) { return make_float2((float)v.x, (float)v.y); }
inline float __low2float(__half2 v) { return (float)v.x; }
inline float __high2float(__half2 v) { return (float)v.y; }

inline __nv_bfloat16 __float2bfloat16(float x) { return __nv_bfloat16(x); }
inline __nv_bfloat16 __float2bfloat16_rn(float x) { return __nv_bfloat16(x); }
inline __nv_bfloat16 __double2bfloat16(double x) { return __nv_bfloat16(x); }
inline float __bfloat162float(__nv_bfloat16 x) { return (float)x; }
inline __nv_bfloat16 __int2bfloat16_rn(int x) { return __nv_bfloat16(x); }
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short x) { return __nv_bfloat16(__nv_bfloat16_raw{x}); }
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 x) { return x.bits; }
inline __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 x, __nv_bfloat16 y) { return __nv_bfloat162(x, y); }
inline __nv_bfloat162 make_bfloat162(__nv_bfloat16 x, __nv_bfloat16 y) { return __nv_bfloat162(x, y); }
inline __nv_bfloat162 __bfloat162bfloat162(__nv_bfloat16 x) { return __nv_bfloat162(x, x); }
inline __nv_bfloat162 __float2bfloat162_rn(float x) { return __nv_bfloat162(__nv_bfloat16(x), __nv_bfloat16(x)); }
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) { return __nv_bfloat162(__nv_bfloat16(x), __nv_bfloat16(y)); }
inline float2 __bfloat1622float2(__nv_bfloat162 v) { return make_float2((float)v.x, (float)v.y); }
