// CUDA's short vectors, with its alignment: a float4 must lie at a multiple of 16 bytes.
#pragma once

#define CERTICONV_VECTOR1(T, name, bytes) \
    struct alignas(bytes) name { T x; };  \
    inline name make_##name(T x) { return {x}; }
#define CERTICONV_VECTOR2(T, name, bytes) \
    struct alignas(bytes) name { T x, y; }; \
    inline name make_##name(T x, T y) { return {x, y}; }
#define CERTICONV_VECTOR3(T, name)      \
    struct name { T x, y, z; };         \
    inline name make_##name(T x, T y, T z) { return {x, y, z}; }
#define CERTICONV_VECTOR4(T, name, bytes)        \
    struct alignas(bytes) name { T x, y, z, w; }; \
    inline name make_##name(T x, T y, T z, T w) { return {x, y, z, w}; }
#define CERTICONV_VECTORS(T, name, one, two, four) \
    CERTICONV_VECTOR1(T, name##1, one)             \
    CERTICONV_VECTOR2(T, name##2, two)             \
    CERTICONV_VECTOR3(T, name##3)                  \
    CERTICONV_VECTOR4(T, name##4, four)

CERTICONV_VECTORS(signed char, char, 1, 2, 4)
CERTICONV_VECTORS(unsigned char, uchar, 1, 2, 4)
CERTICONV_VECTORS(short, short, 2, 4, 8)
CERTICONV_VECTORS(unsigned short, ushort, 2, 4, 8)
CERTICONV_VECTORS(int, int, 4, 8, 16)
CERTICONV_VECTORS(unsigned int, uint, 4, 8, 16)
CERTICONV_VECTORS(float, float, 4, 8, 16)
CERTICONV_VECTORS(double, double, 8, 16, 16)
CERTICONV_VECTORS(long long, longlong, 8, 16, 16)
CERTICONV_VECTORS(unsigned long long, ulonglong, 8, 16, 16)
CERTICONV_VECTORS(long, long, 8, 16, 16)
CERTICONV_VECTORS(unsigned long, ulong, 8, 16, 16)

struct dim3 {
    unsigned int x, y, z;
    constexpr dim3(unsigned int x = 1, unsigned int y = 1, unsigned int z = 1) : x(x), y(y), z(z) {}
    constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
    constexpr operator uint3() const { return {x, y, z}; }
};
