// Correct kernels, which the checker must not blame; test_correct.py compares their results with NumPy's.
#include <cuda_fp16.h>
#include <cuda_bf16.h>

template <class T> __device__ __forceinline__ T warp_sum(T v) {
#pragma unroll
    for (int offset = 16; offset > 0; offset >>= 1) v += __shfl_down_sync(0xffffffffu, v, offset);
    return v;
}

extern "C" __global__ void __launch_bounds__(256) reduction(const float *__restrict__ x, float *__restrict__ y, int n) {
    __shared__ float partial[8];
    float sum = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) sum += x[i];
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x < 32) {
        sum = warp_sum(threadIdx.x < blockDim.x / 32 ? partial[threadIdx.x] : 0.0f);
        if (threadIdx.x == 0) *y = sum;
    }
}

template <class T, int TILE> __global__ void gemm(const T *a, const T *b, T *c, int m, int n, int k) {
    __shared__ T left[TILE][TILE], right[TILE][TILE + 1];
    const int row = blockIdx.y * TILE + threadIdx.y, column = blockIdx.x * TILE + threadIdx.x;
    T sum = 0;
    for (int start = 0; start < k; start += TILE) {
        const int i = start + threadIdx.x, j = start + threadIdx.y;
        left[threadIdx.y][threadIdx.x] = row < m && i < k ? a[row * k + i] : T(0);
        right[threadIdx.y][threadIdx.x] = j < k && column < n ? b[j * n + column] : T(0);
        __syncthreads();
#pragma unroll
        for (int e = 0; e < TILE; ++e) sum += left[threadIdx.y][e] * right[e][threadIdx.x];
        __syncthreads();
    }
    if (row < m && column < n) c[row * n + column] = sum;
}

extern "C" {

__global__ void stencil(const float *x, float *y, int n) {
    extern __shared__ float halo[];
    const int t = threadIdx.x, i = blockIdx.x * blockDim.x + t;
    halo[t + 1] = i < n ? x[i] : 0.0f;
    if (t == 0) halo[0] = i > 0 ? x[i - 1] : 0.0f;
    if (t == blockDim.x - 1) halo[t + 2] = i + 1 < n ? x[i + 1] : 0.0f;
    __syncthreads();
    if (i < n) y[i] = halo[t] + halo[t + 1] + halo[t + 2];
}

__global__ void histogram(const unsigned char *x, unsigned *count, int n) {
    __shared__ unsigned local[256];
    for (int b = threadIdx.x; b < 256; b += blockDim.x) local[b] = 0;
    __syncthreads();
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) atomicAdd(&local[x[i]], 1u);
    __syncthreads();
    for (int b = threadIdx.x; b < 256; b += blockDim.x)
        if (local[b]) atomicAdd(&count[b], local[b]);
}

__global__ void double_buffer(const float *x, float *y, int rounds) {
    __shared__ float s[2][64];
    const int t = threadIdx.x;
    s[0][t] = x[t];
    __syncthreads();
    float sum = 0;
    for (int r = 0; r < rounds; ++r) {
        if (r + 1 < rounds) s[(r + 1) % 2][t] = x[64 * (r + 1) + t];
        sum += s[r % 2][63 - t];
        __syncthreads();
    }
    y[t] = sum;
}

__global__ void transposition(const float *x, float *y, int rows, int columns) {
    __shared__ float tile[32][33];
    int c = blockIdx.x * 32 + threadIdx.x, r = blockIdx.y * 32 + threadIdx.y;
    for (int k = 0; k < 32; k += 8)
        if (r + k < rows && c < columns) tile[threadIdx.y + k][threadIdx.x] = x[(r + k) * columns + c];
    __syncthreads();
    c = blockIdx.y * 32 + threadIdx.x, r = blockIdx.x * 32 + threadIdx.y;
    for (int k = 0; k < 32; k += 8)
        if (r + k < columns && c < rows) y[(r + k) * rows + c] = tile[threadIdx.x][threadIdx.y + k];
}

__global__ void small_copies(const signed char *a, signed char *b, const __half *c, __half *d, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        b[i] = a[i];  // neighbours write to one word, each to a byte of its own
        d[i] = c[i];
    }
}

__global__ void vector_copy(const float4 *x, float4 *y, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        float4 v = __ldg(&x[i]);
        v.w = 2 * v.x;
        y[i] = v;
    }
}

__global__ void warp_exchange(const float *x, float *y) {
    __shared__ float s[128];
    const int t = threadIdx.x;
    s[t] = x[t];
    __syncwarp();
    const float other = s[t ^ 31];
    __syncwarp();
    s[t] = other + 1;
    __syncwarp(0xffffffffu);
    y[t] = s[t ^ 1];
}

__global__ void half_warps(const int *x, int *y) {
    const int t = threadIdx.x;
    const unsigned mask = t % 32 < 16 ? 0x0000ffffu : 0xffff0000u;
    int v = x[t];
    for (int offset = 8; offset > 0; offset /= 2) v += __shfl_xor_sync(mask, v, offset, 16);
    const unsigned odd = __ballot_sync(mask, x[t] & 1);
    y[t] = v + 1000 * __popc(odd);
}

__global__ void absent_lanes(const float *x, float *y) {
    const int t = threadIdx.x;
    if (t >= 16) return;
    const float other = __shfl_down_sync(0x0000ffffu, x[t], 8);  // what lanes 8 to 15 get is undefined
    if (t < 8) y[t] = other;
}

__global__ void in_place(float *x, const float *same, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) x[i] = same[i] * 2;
}

__global__ void copy_pipeline(const float *x, float *y, int stages) {
    __shared__ alignas(16) float s[3][128];
    const int t = threadIdx.x;
    for (int k = 0; k < 2; ++k) {
        if (k < stages) certiconv_cp_async<16>(&s[k][4 * t], &x[128 * k + 4 * t]);
        certiconv_cp_async_commit();
    }
    float sum[4] = {};
    for (int k = 0; k < stages; ++k) {
        certiconv_cp_async_wait<1>();
        __syncthreads();
        if (k + 2 < stages) certiconv_cp_async<16>(&s[(k + 2) % 3][4 * t], &x[128 * (k + 2) + 4 * t]);
        certiconv_cp_async_commit();
        for (int e = 0; e < 4; ++e) sum[e] += s[k % 3][127 - 4 * t - e];
    }
    for (int e = 0; e < 4; ++e) y[4 * t + e] = sum[e];
}

// C (16 m x 8 n) = A (row-major) B (row-major), one warp a tile; k is a multiple of 16.
__global__ void mma_gemm(const __half *a, const __half *b, float *c, int n, int k) {
    __shared__ alignas(16) __half left[16][24], right[16][8];
    const int t = threadIdx.x, group = t / 4, place = t % 4;
    const int row = 16 * blockIdx.y, column = 8 * blockIdx.x;
    float d[4] = {};
    for (int start = 0; start < k; start += 16) {
        for (int i = t; i < 256; i += 32) left[i / 16][i % 16] = a[(row + i / 16) * k + start + i % 16];
        for (int i = t; i < 128; i += 32) right[i / 8][i % 8] = b[(start + i / 8) * n + column + i % 8];
        __syncwarp();
        unsigned fa[4], fb[2];
        certiconv_ldmatrix_x4(fa, &left[t % 16][8 * (t / 16)]);
        certiconv_ldmatrix_x2_trans(fb, &right[t % 16][0]);
        certiconv_mma_m16n8k16_f16(d, fa, fb, d);
        __syncwarp();
    }
    for (int i = 0; i < 4; ++i) c[(row + group + 8 * (i / 2)) * n + column + 2 * place + i % 2] = d[i];
}

__device__ unsigned pair(const __nv_bfloat16 *p, int stride) {
    return __bfloat16_as_ushort(p[0]) | (unsigned)__bfloat16_as_ushort(p[stride]) << 16;
}

// One tile each, fragments read from global memory as the PTX manual lays them out.
__global__ void mma_bf16(const __nv_bfloat16 *a, const __nv_bfloat16 *b, const float *c, float *d) {
    const int g = threadIdx.x / 4, p = threadIdx.x % 4;
    unsigned fa[4], fb[2];
    for (int i = 0; i < 4; ++i) fa[i] = pair(a + 16 * (g + 8 * (i % 2)) + 2 * p + 8 * (i / 2), 1);
    for (int i = 0; i < 2; ++i) fb[i] = pair(b + 8 * (2 * p + 8 * i) + g, 8);
    float in[4], out[4];
    for (int i = 0; i < 4; ++i) in[i] = c[8 * (g + 8 * (i / 2)) + 2 * p + i % 2];
    certiconv_mma_m16n8k16_bf16(out, fa, fb, in);
    for (int i = 0; i < 4; ++i) d[8 * (g + 8 * (i / 2)) + 2 * p + i % 2] = out[i];
}

__global__ void mma_tf32(const float *a, const float *b, const float *c, float *d) {
    const int g = threadIdx.x / 4, p = threadIdx.x % 4;
    unsigned fa[4], fb[2];
    for (int i = 0; i < 4; ++i) fa[i] = certiconv_to_tf32(a[8 * (g + 8 * (i % 2)) + p + 4 * (i / 2)]);
    for (int i = 0; i < 2; ++i) fb[i] = certiconv_to_tf32(b[8 * (p + 4 * i) + g]);
    float in[4], out[4];
    for (int i = 0; i < 4; ++i) in[i] = c[8 * (g + 8 * (i / 2)) + 2 * p + i % 2];
    certiconv_mma_m16n8k8_tf32(out, fa, fb, in);
    for (int i = 0; i < 4; ++i) d[8 * (g + 8 * (i / 2)) + 2 * p + i % 2] = out[i];
}

__constant__ float weights[3] = {0.25f, 0.5f, 0.25f};

__global__ void constants(const float *x, float *y, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i > 0 && i + 1 < n) y[i] = weights[0] * x[i - 1] + weights[1] * x[i] + weights[2] * x[i + 1];
}

__global__ void float_atomics(const float *x, float *sum, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) atomicAdd(sum, x[i]);
}

__global__ void whole_axes(int *y) {
    const uint3 at = threadIdx;
    const dim3 size = blockDim;
    const int thread = (at.z * size.y + at.y) * size.x + at.x;
    const int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    y[block * size.x * size.y * size.z + thread] = 10000 * block + thread;
}
}

__device__ void wait() { __syncthreads(); }
__device__ void wait_twice() { wait(); wait(); }
__device__ float sum_of_warp(float v) {
    for (int far = 16; far > 0; far /= 2) v += __shfl_xor_sync(0xffffffffu, v, far);
    return v;
}
struct Rest { ~Rest() { wait(); } };
template <int N> struct Chain {
    template <class Each> static __device__ __forceinline__ float run(float (&s)[64], const Each &each, int rounds) {
        float sum = 0;
        for (int r = 0; r < rounds; ++r) {
            s[threadIdx.x] = each(r);
            wait();
            sum += s[(threadIdx.x + N) % 64];
            wait();
        }
        return sum + Chain<N - 1>::run(s, each, rounds);
    }
};
template <> struct Chain<0> {
    template <class Each> static __device__ float run(float (&)[64], const Each &, int) { return 0; }
};

// One helper for all barriers: called by all threads from one place, twice in sequence, in loops, in a lambda, by a
// destructor, in templates; by halves of a warp and by single warps with what is theirs.
extern "C" __global__ void helpers(const float *x, float *y, int rounds) {
    __shared__ float s[64];
    const int t = threadIdx.x;
    const auto each = [&](int r) { return x[64 * r + t]; };
    const auto meet = [] { wait_twice(); };
    wait(); wait();
    {
        const Rest rest;
        s[t] = x[t];
    }
    float v = s[63 - t];
    meet();
    v += Chain<3>::run(s, each, rounds);
    for (int r = 0; r < rounds; ++r) {
        const bool mine = t % 3 == r % 3;
        if (mine) s[t] = v;
        wait();
        if (mine) v += s[t]; else v += 1;
        wait();
    }
    if (t < 32) v += sum_of_warp(v);  // a warp of its own
    else v -= sum_of_warp(v);
    y[t] = v;
}

// What an optimiser likes to copy: a condition of the thread before a barrier, and again behind it.
extern "C" __global__ void conditions_around_barriers(const float *x, float *y, int n) {
    __shared__ float s[64];
    const int t = threadIdx.x;
    float v = 0;
    bool odd = false;
    if (t % 2) { v = x[t]; odd = true; }
    __syncthreads();
    if (odd) v *= 2;
    s[t] = v;
    wait();
    for (int k = 0, left = t < n ? 2 : 0; k < 2; ++k) {
        if (left) { v += s[(t + k) % 64]; --left; }
        __syncthreads();
        if (left) v += 1;
    }
    const int kind = t % 4;
    float w = 0;
    switch (kind) {
        case 0: w = 3; break;
        case 1: w = 5; break;
        default: w = 7;
    }
    const unsigned votes = __ballot_sync(0xffffffffu, kind == 0);
    switch (kind) {
        case 0: w += votes & 1; break;
        case 1: w -= 1; break;
        default: w += 2;
    }
    y[t] = v + w;
}
