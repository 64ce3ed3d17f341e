// What a GPU has only as inline PTX, as functions.  certiconv_ptx.cuh defines the same names for nvcc and NVRTC; a text
// that carries it between #ifdef __CUDACC__ and #endif runs on both.  Fragments are laid out as the PTX manual says
// (mma.m16n8k16, mma.m16n8k8, ldmatrix).
#pragma once

// One element of a fragment: a 16-bit one from its half of a register, a TF32 one from the whole of it.
inline float certiconv_element(unsigned pair, int which, __half) {
    return (float)__ushort_as_half((unsigned short)(pair >> 16 * which));
}
inline float certiconv_element(unsigned pair, int which, __nv_bfloat16) {
    return (float)__ushort_as_bfloat16((unsigned short)(pair >> 16 * which));
}

// D = A B + C for a warp, A being 16 x 16 and B 16 x 8: every lane sees all fragments and computes its four results.
// Products are exact, their sum is taken in double and rounded once; a GPU rounds in steps of its own.
template <class T>
inline void certiconv_mma_16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], const float (&c)[4], int line) {
    unsigned own[6] = {a[0], a[1], a[2], a[3], b[0], b[1]}, all[32][6];
    certiconv_gather(1, 0xffffffffu, own, sizeof own, all, line);
    const int group = certiconv_lane() >> 2, place = certiconv_lane() & 3;
    for (int i = 0; i < 4; ++i) {
        const int row = group + 8 * (i >> 1), column = 2 * place + (i & 1);
        double sum = c[i];
        for (int k = 0; k < 16; ++k) {
            const unsigned left = all[4 * (row & 7) + (k & 7) / 2][(row >> 3) + 2 * (k >> 3)];
            const unsigned right = all[4 * column + (k & 7) / 2][4 + (k >> 3)];
            sum += (double)certiconv_element(left, k & 1, T()) * (double)certiconv_element(right, k & 1, T());
        }
        d[i] = (float)sum;
    }
}
inline void certiconv_mma_m16n8k16_f16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], const float (&c)[4],
                                       int line = __builtin_LINE()) {
    certiconv_mma_16<__half>(d, a, b, c, line);
}
inline void certiconv_mma_m16n8k16_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], const float (&c)[4],
                                        int line = __builtin_LINE()) {
    certiconv_mma_16<__nv_bfloat16>(d, a, b, c, line);
}

// TF32: a float of which the tensor core reads the upper 19 bits; conversion rounds to nearest, ties away from zero.
inline unsigned certiconv_to_tf32(float x) {
    unsigned u = __float_as_uint(x);
    if ((u & 0x7f800000u) == 0x7f800000u) return u;
    return (u + 0x1000u) & 0xffffe000u;
}
inline void certiconv_mma_m16n8k8_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], const float (&c)[4],
                                       int line = __builtin_LINE()) {
    unsigned own[6] = {a[0], a[1], a[2], a[3], b[0], b[1]}, all[32][6];
    certiconv_gather(2, 0xffffffffu, own, sizeof own, all, line);
    const int group = certiconv_lane() >> 2, place = certiconv_lane() & 3;
    for (int i = 0; i < 4; ++i) {
        const int row = group + 8 * (i >> 1), column = 2 * place + (i & 1);
        double sum = c[i];
        for (int k = 0; k < 8; ++k) {
            const unsigned left = all[4 * (row & 7) + (k & 3)][(row >> 3) + 2 * (k >> 2)];
            const unsigned right = all[4 * column + (k & 3)][4 + (k >> 2)];
            sum += (double)__uint_as_float(left & 0xffffe000u) * (double)__uint_as_float(right & 0xffffe000u);
        }
        d[i] = (float)sum;
    }
}

// ldmatrix: lane i gives the address of row i % 8 of the 8 x 8 matrix i / 8, 16 bytes in shared memory.
template <int N, bool TRANSPOSED> inline void certiconv_ldmatrix(unsigned (&r)[N], const void *row, int line) {
    const unsigned lane = certiconv_lane();
    unsigned short own[8] = {}, all[32][8];
    if (lane < 8 * N) certiconv_row_load(row, own, 16);
    certiconv_gather(2 + N + 8 * TRANSPOSED, 0xffffffffu, own, sizeof own, all, line);
    for (int i = 0; i < N; ++i) {
        unsigned short low, high;
        if (TRANSPOSED) {
            low = all[8 * i + 2 * (lane & 3)][lane >> 2];
            high = all[8 * i + 2 * (lane & 3) + 1][lane >> 2];
        } else {
            low = all[8 * i + (lane >> 2)][2 * (lane & 3)];
            high = all[8 * i + (lane >> 2)][2 * (lane & 3) + 1];
        }
        r[i] = low | (unsigned)high << 16;
    }
}
inline void certiconv_ldmatrix_x1(unsigned (&r)[1], const void *row, int line = __builtin_LINE()) {
    certiconv_ldmatrix<1, false>(r, row, line);
}
inline void certiconv_ldmatrix_x2(unsigned (&r)[2], const void *row, int line = __builtin_LINE()) {
    certiconv_ldmatrix<2, false>(r, row, line);
}
inline void certiconv_ldmatrix_x4(unsigned (&r)[4], const void *row, int line = __builtin_LINE()) {
    certiconv_ldmatrix<4, false>(r, row, line);
}
inline void certiconv_ldmatrix_x1_trans(unsigned (&r)[1], const void *row, int line = __builtin_LINE()) {
    certiconv_ldmatrix<1, true>(r, row, line);
}
inline void certiconv_ldmatrix_x2_trans(unsigned (&r)[2], const void *row, int line = __builtin_LINE()) {
    certiconv_ldmatrix<2, true>(r, row, line);
}
inline void certiconv_ldmatrix_x4_trans(unsigned (&r)[4], const void *row, int line = __builtin_LINE()) {
    certiconv_ldmatrix<4, true>(r, row, line);
}

// cp.async: the bytes arrive when the copying thread waits for them, and not a moment earlier.  Of `source_bytes` fewer
// than the size, the rest is filled with zeros.
template <int BYTES> inline __attribute__((always_inline)) void certiconv_cp_async(void *to, const void *from) {
    static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16, "cp.async copies 4, 8 or 16 bytes");
    certiconv_async_copy(to, from, BYTES, BYTES);
}
template <int BYTES>
inline __attribute__((always_inline)) void certiconv_cp_async_zfill(void *to, const void *from, int source_bytes) {
    static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16, "cp.async copies 4, 8 or 16 bytes");
    certiconv_async_copy(to, from, BYTES, (unsigned)source_bytes);
}
inline void certiconv_cp_async_commit() { certiconv_async_commit(); }
template <int PENDING> inline void certiconv_cp_async_wait() { certiconv_async_wait(PENDING); }
inline void certiconv_cp_async_wait_all() { certiconv_async_wait_all(); }

// The primitives of CUDA's own <cuda_pipeline.h>.
inline __attribute__((always_inline)) void __pipeline_memcpy_async(void *to, const void *from, size_t bytes, size_t zfill = 0) {
    certiconv_async_copy(to, from, (unsigned)bytes, (unsigned)(bytes - zfill));
}
inline void __pipeline_commit() { certiconv_async_commit(); }
inline void __pipeline_wait_prior(unsigned pending) { certiconv_async_wait(pending); }
