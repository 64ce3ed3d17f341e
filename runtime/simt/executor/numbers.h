// Numbers that g++ has no type for: half precision, and the functions of the prime field.
#pragma once

#include <math.h>

#include "report.h"

// BLAKE2b without a key (RFC 7693), for a digest of up to 64 bytes.
namespace blake2b {
typedef uint64_t word;
static const word start[8] = {0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
                              0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179};
static const uint8_t order[10][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4}, {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13}, {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11}, {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5}, {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0}};

static inline word rotated(word x, int by) { return x >> by | x << (64 - by); }
static inline void mix(word *v, int a, int b, int c, int d, word x, word y) {
    v[a] += v[b] + x;
    v[d] = rotated(v[d] ^ v[a], 32);
    v[c] += v[d];
    v[b] = rotated(v[b] ^ v[c], 24);
    v[a] += v[b] + y;
    v[d] = rotated(v[d] ^ v[a], 16);
    v[c] += v[d];
    v[b] = rotated(v[b] ^ v[c], 63);
}
static void compress(word *h, const char *chunk, word length, bool last) {
    word v[16], m[16];
    memcpy(m, chunk, sizeof m);  // words are little-endian, as this machine is
    for (int i = 0; i < 8; ++i) v[i] = h[i], v[i + 8] = start[i];
    v[12] ^= length;
    if (last) v[14] = ~v[14];
    for (int round = 0; round < 12; ++round) {
        const uint8_t *s = order[round % 10];
        mix(v, 0, 4, 8, 12, m[s[0]], m[s[1]]);
        mix(v, 1, 5, 9, 13, m[s[2]], m[s[3]]);
        mix(v, 2, 6, 10, 14, m[s[4]], m[s[5]]);
        mix(v, 3, 7, 11, 15, m[s[6]], m[s[7]]);
        mix(v, 0, 5, 10, 15, m[s[8]], m[s[9]]);
        mix(v, 1, 6, 11, 12, m[s[10]], m[s[11]]);
        mix(v, 2, 7, 8, 13, m[s[12]], m[s[13]]);
        mix(v, 3, 4, 9, 14, m[s[14]], m[s[15]]);
    }
    for (int i = 0; i < 8; ++i) h[i] ^= v[i] ^ v[i + 8];
}
static void digest(const char *text, size_t length, word *h, unsigned bytes) {
    memcpy(h, start, sizeof start);
    h[0] ^= 0x01010000u ^ bytes;
    size_t done = 0;
    for (; length - done > 128; done += 128) compress(h, text + done, done + 128, false);
    char chunk[128] = {};
    memcpy(chunk, text + done, length - done);
    compress(h, chunk, length, true);
}
}  // namespace blake2b

extern "C" {
// prime_field(p, key): the first 16 bytes of the digest of "exp KEY X", big-endian, modulo p.
unsigned long long certiconv_field_hash(int function, unsigned long long value) {
    static const char *const names[] = {"exp", "log", "tanh", "sigmoid"};
    const u64 p = (1ull << 61) - 1;
    const char *key = (const char *)launch + launch->key_at;
    char text[4096];
    const int length = snprintf(text, sizeof text, "%s %.*s %llu", names[function], (int)launch->key, key, value);
    blake2b::word h[8];
    blake2b::digest(text, (size_t)length, h, 16);
    const unsigned __int128 x = (unsigned __int128)__builtin_bswap64(h[0]) << 64 | __builtin_bswap64(h[1]);
    return (unsigned long long)(x % p);
}
unsigned long long certiconv_field_inverse(unsigned long long value) {
    const u64 p = (1ull << 61) - 1;
    if (!value) fail(UNDEFINED, site(NONE, (unsigned)(uintptr_t)__builtin_return_address(0) - 1), nowhere, "recip(0)");
    u64 result = 1, power = value;  // Fermat: the inverse is the power p - 2
    for (u64 e = p - 2; e; e >>= 1) {
        if (e & 1) result = (u64)((unsigned __int128)result * power % p);
        power = (u64)((unsigned __int128)power * power % p);
    }
    return result;
}
void certiconv_field_poison() {
    fail(UNINITIALISED, site(NONE, (unsigned)(uintptr_t)__builtin_return_address(0) - 1), nowhere,
         "an operand is no element of the field: nothing has been written where it came from");
}
void certiconv_trap(int line) { fail(TRAP, site(NONE, 0, line), nowhere, "__trap()"); }

float certiconv_half_to_float(unsigned short bits) {
    const unsigned sign = (bits & 0x8000u) << 16, exponent = bits >> 10 & 31, fraction = bits & 0x3ffu;
    unsigned u;
    if (exponent == 31) u = sign | 0x7f800000u | fraction << 13;
    else if (exponent) u = sign | (exponent + 112) << 23 | fraction << 13;
    else {
        const float f = (float)fraction * 0x1p-24f;
        memcpy(&u, &f, 4);
        u |= sign;
    }
    float f;
    memcpy(&f, &u, 4);
    return f;
}
// To nearest, ties to even: the unit of the last place is a power of two, so scaling is exact and rint rounds.
unsigned short certiconv_double_to_half(double x) {
    const unsigned sign = signbit(x) ? 0x8000u : 0;
    if (x != x) return 0x7fff;
    if (x == 0) return (unsigned short)sign;
    x = fabs(x);
    if (x == 0) return (unsigned short)sign;  // frexp gives it the exponent 0, as if it were near 1
    if (x >= 65520.0) return (unsigned short)(sign | 0x7c00u);
    int exponent;
    frexp(x, &exponent);
    if (exponent < -13) exponent = -13;  // denormals share the smallest unit
    const double units = rint(ldexp(x, 11 - exponent));
    const unsigned whole = (unsigned)units + (unsigned)(exponent + 13) * 1024u;  // a carry moves to the next exponent
    return (unsigned short)(sign | whole);
}
unsigned short certiconv_float_to_half(float x) { return certiconv_double_to_half(x); }
}
