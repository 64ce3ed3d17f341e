// Integers modulo p = 2^61 - 1 as a kernel's element type: exact, so that two texts can be compared for equality.
//
// exp, log, tanh and sigmoid are the pseudo-random functions of derive.evaluate.prime_field, the reciprocal is the inverse, and
// order is that of the representatives between -p/2 and p/2.  A number with a fraction has no place here: construction
// from a floating-point number does not compile.
#pragma once

struct alignas(8) certiconv_field {
    static constexpr unsigned long long p = (1ull << 61) - 1;
    unsigned long long value;  // 0 <= value < p; anything else is storage that nothing was written to

    certiconv_field() = default;
    constexpr certiconv_field(int x) : value(x < 0 ? p - (unsigned long long)-(long long)x : (unsigned long long)x) {}
    constexpr certiconv_field(unsigned x) : value(x) {}
    constexpr certiconv_field(long x) : value(reduced(x)) {}
    constexpr certiconv_field(long long x) : value(reduced(x)) {}
    constexpr certiconv_field(unsigned long x) : value(x % p) {}
    constexpr certiconv_field(unsigned long long x) : value(x % p) {}
    constexpr certiconv_field(bool x) : value(x) {}
    certiconv_field(float) = delete;
    certiconv_field(double) = delete;

    static constexpr unsigned long long reduced(long long x) { return (unsigned long long)((x % (long long)p + (long long)p) % (long long)p); }
    static certiconv_field raw(unsigned long long v) { certiconv_field r; r.value = v; return r; }
    unsigned long long known() const {
        if (__builtin_expect(value >= p, 0)) certiconv_field_poison();
        return value;
    }
    long long key() const { unsigned long long v = known(); return 2 * v < p ? (long long)v : (long long)v - (long long)p; }
    explicit operator bool() const { return known() != 0; }
};

// Friends in spirit: free functions, so that an integer on either side is converted.
inline certiconv_field operator+(certiconv_field a, certiconv_field b) {
    unsigned long long s = a.known() + b.known();
    return certiconv_field::raw(s >= certiconv_field::p ? s - certiconv_field::p : s);
}
inline certiconv_field operator-(certiconv_field a) {
    unsigned long long v = a.known();
    return certiconv_field::raw(v ? certiconv_field::p - v : 0);
}
inline certiconv_field operator+(certiconv_field a) { return a; }
inline certiconv_field operator-(certiconv_field a, certiconv_field b) { return a + -b; }
inline certiconv_field operator*(certiconv_field a, certiconv_field b) {
    unsigned __int128 m = (unsigned __int128)a.known() * b.known();
    unsigned long long s = (unsigned long long)(m & certiconv_field::p) + (unsigned long long)(m >> 61);
    return certiconv_field::raw(s >= certiconv_field::p ? s - certiconv_field::p : s);
}
inline certiconv_field certiconv_reciprocal(certiconv_field a) {
    return certiconv_field::raw(certiconv_field_inverse(a.known()));
}
inline certiconv_field operator/(certiconv_field a, certiconv_field b) { return a * certiconv_reciprocal(b); }
inline certiconv_field &operator+=(certiconv_field &a, certiconv_field b) { return a = a + b; }
inline certiconv_field &operator-=(certiconv_field &a, certiconv_field b) { return a = a - b; }
inline certiconv_field &operator*=(certiconv_field &a, certiconv_field b) { return a = a * b; }
inline certiconv_field &operator/=(certiconv_field &a, certiconv_field b) { return a = a / b; }
inline bool operator==(certiconv_field a, certiconv_field b) { return a.known() == b.known(); }
inline bool operator!=(certiconv_field a, certiconv_field b) { return a.known() != b.known(); }
inline bool operator<(certiconv_field a, certiconv_field b) { return a.key() < b.key(); }
inline bool operator>(certiconv_field a, certiconv_field b) { return a.key() > b.key(); }
inline bool operator<=(certiconv_field a, certiconv_field b) { return a.key() <= b.key(); }
inline bool operator>=(certiconv_field a, certiconv_field b) { return a.key() >= b.key(); }

#define CERTICONV_FIELD_FUNCTION(name, number) \
    inline certiconv_field name(certiconv_field a) { return certiconv_field::raw(certiconv_field_hash(number, a.known())); }
CERTICONV_FIELD_FUNCTION(exp, 0)
CERTICONV_FIELD_FUNCTION(expf, 0)
CERTICONV_FIELD_FUNCTION(__expf, 0)
CERTICONV_FIELD_FUNCTION(log, 1)
CERTICONV_FIELD_FUNCTION(logf, 1)
CERTICONV_FIELD_FUNCTION(__logf, 1)
CERTICONV_FIELD_FUNCTION(tanh, 2)
CERTICONV_FIELD_FUNCTION(tanhf, 2)
CERTICONV_FIELD_FUNCTION(sigmoid, 3)
inline certiconv_field recip(certiconv_field a) { return certiconv_reciprocal(a); }
inline certiconv_field __frcp_rn(certiconv_field a) { return certiconv_reciprocal(a); }
inline certiconv_field __fdividef(certiconv_field a, certiconv_field b) { return a / b; }
inline certiconv_field fma(certiconv_field a, certiconv_field b, certiconv_field c) { return a * b + c; }
inline certiconv_field fmaf(certiconv_field a, certiconv_field b, certiconv_field c) { return a * b + c; }
#define CERTICONV_FIELD_EXTREMES(low, high)                                                            \
    inline certiconv_field low(certiconv_field a, certiconv_field b) { return b < a ? b : a; }         \
    inline certiconv_field high(certiconv_field a, certiconv_field b) { return a < b ? b : a; }
CERTICONV_FIELD_EXTREMES(min, max)
CERTICONV_FIELD_EXTREMES(fmin, fmax)
CERTICONV_FIELD_EXTREMES(fminf, fmaxf)

struct alignas(16) certiconv_field2 { certiconv_field x, y; };
struct alignas(16) certiconv_field4 { certiconv_field x, y, z, w; };
inline certiconv_field2 make_certiconv_field2(certiconv_field x, certiconv_field y) { return {x, y}; }
inline certiconv_field4 make_certiconv_field4(certiconv_field x, certiconv_field y, certiconv_field z, certiconv_field w) {
    return {x, y, z, w};
}
