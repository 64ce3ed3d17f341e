// Planted bugs.  Each kernel makes one mistake; "NAME: here" marks the line where the checker finds it, "NAME: there" the
// other side.  test_bugs.py expects exactly these lines.
#include <cuda_fp16.h>

__device__ void wait() {
    __syncthreads();  // barrier_in_a_helper: here, barrier_in_a_helper: there, barrier_two_calls_deep: here, barrier_two_calls_deep: there
}
__device__ void wait_deeper() { wait(); }
__device__ __forceinline__ void wait_inlined() {
    __syncthreads();  // barrier_in_an_inlined_helper: here, barrier_in_an_inlined_helper: there
}
__device__ float sum_of_warp(float v) {
    for (int far = 16; far > 0; far /= 2)
        v += __shfl_xor_sync(0xffffffffu, v, far);  // shuffle_in_a_helper: here, shuffle_in_a_helper: there
    return v;
}
template <int N> struct Stage {
    template <class Keep> static __device__ __forceinline__ void turn(float (&s)[2 * N], const Keep &keep) {
        keep(s);
        __syncthreads();  // barrier_in_a_template: here, barrier_in_a_template: there
    }
};

extern "C" {

__global__ void missing_syncthreads(const float *x, float *y) {
    __shared__ float s[128];
    const int t = threadIdx.x;
    s[t] = x[t];              // missing_syncthreads: there
    y[t] = s[127 - t];        // missing_syncthreads: here
}

__global__ void missing_second_barrier(const float *x, float *y, int rounds) {
    __shared__ float s[64];
    const int t = threadIdx.x;
    float sum = 0;
    for (int r = 0; r < rounds; ++r) {
        s[t] = x[64 * r + t];  // missing_second_barrier: here
        __syncthreads();
        sum += s[(t + 40) % 64];  // missing_second_barrier: there
    }
    y[t] = sum;
}

__global__ void missing_syncwarp(const float *x, float *y) {
    __shared__ float s[32];
    const int t = threadIdx.x;
    s[t] = x[t];                                      // missing_syncwarp: there
    const float v = __shfl_xor_sync(0xffffffffu, x[t], 1);  // a shuffle orders no memory
    y[t] = v + s[t ^ 16];                             // missing_syncwarp: here
}

__global__ void half_a_syncwarp(const float *x, float *y) {
    __shared__ float s[32];
    const int t = threadIdx.x;
    s[t] = x[t];  // half_a_syncwarp: there
    if (t < 16) __syncwarp(0x0000ffffu);
    else __syncwarp(0xffff0000u);
    y[t] = s[t ^ 16];  // half_a_syncwarp: here
}

__global__ void blocks_write_one_cell(float *y) {
    y[threadIdx.x] = blockIdx.x;  // blocks_write_one_cell: here, blocks_write_one_cell: there
}

__global__ void block_reads_another(const float *x, float *y) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    y[i] = x[i];  // block_reads_another: there
    __syncthreads();
    if (i >= 32) y[i] += y[i - 32];  // block_reads_another: here
}

__global__ void reads_one_too_far(const float *x, float *y, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = x[i + 1] - x[i];  // reads_one_too_far: here
}

__global__ void writes_one_too_far(float *y, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i <= n) y[i] = 1;  // writes_one_too_far: here
}

__global__ void reads_before_the_start(const float *x, float *y) {
    y[threadIdx.x] = x[(int)threadIdx.x - 1];  // reads_before_the_start: here
}

__global__ void static_shared_overflow(float *y) {
    __shared__ float before[16];
    __shared__ float tile[33];
    __shared__ float after[16];
    float *p = tile;
    const int t = threadIdx.x;
    if (t < 16) before[t] = after[t] = 0;
    p[t + 2] = 1;  // static_shared_overflow: here
    __syncthreads();
    y[t] = tile[t] + before[t & 15] + after[t & 15];
}

__global__ void static_shared_underflow(float *y) {
    __shared__ float before[16];
    __shared__ float tile[32];
    float *p = tile;
    const int t = threadIdx.x;
    if (t < 16) before[t] = 0;
    p[t - 1] = 1;  // static_shared_underflow: here
    __syncthreads();
    y[t] = tile[t] + before[t & 15];
}

__global__ void dynamic_shared_overflow(float *y) {
    extern __shared__ float scratch[];
    const int t = threadIdx.x;
    scratch[2 * t] = 1;  // dynamic_shared_overflow: here
    __syncthreads();
    y[t] = scratch[0];
}

__global__ void row_overflow(float *y, int width) {
    __shared__ float tile[4][16];
    const int t = threadIdx.x;
    for (int r = 0; r < 4; ++r) tile[r][t] = r;  // row_overflow: here
    __syncthreads();
    y[t] = tile[3][t % width];
}

__global__ void local_overflow(const float *x, float *y, int n) {
    float window[4] = {};
    for (int k = 0; k < n; ++k) window[k] = x[k];  // local_overflow: here
    y[threadIdx.x] = window[threadIdx.x & 3];
}

__global__ void uninitialised_shared(const float *x, float *y, int n) {
    __shared__ float s[64];
    const int t = threadIdx.x;
    if (t < n) s[t] = x[t];
    __syncthreads();
    y[t] = s[t];  // uninitialised_shared: here
}

__global__ void accumulates_into_nothing(const float *x, float *y) {
    y[threadIdx.x] += x[threadIdx.x];  // accumulates_into_nothing: here
}

__global__ void misaligned_float4(const float *x, float4 *y, int shift) {
    y[threadIdx.x] = *(const float4 *)(x + 4 * threadIdx.x + shift);  // misaligned_float4: here
}

__global__ void misaligned_half2(const __half *x, float *y) {
    const __half2 v = *reinterpret_cast<const __half2 *>(x + 1 + threadIdx.x);  // misaligned_half2: here
    y[threadIdx.x] = __low2float(v);
}

__global__ void divergent_barrier(const float *x, float *y) {
    __shared__ float s[64];
    const int t = threadIdx.x;
    s[t] = x[t];
    if (t < 32) {
        __syncthreads();  // divergent_barrier: here
        y[t] = s[t + 32];
    } else {
        __syncthreads();  // divergent_barrier: there
        y[t] = s[t - 32];
    }
}

__global__ void barriers_on_one_line(const float *x, float *y) {
    const int t = threadIdx.x;
    y[t] = x[t];
    if (t < 40) __syncthreads(); else __syncthreads();  // barriers_on_one_line: here, barriers_on_one_line: there
}

__global__ void barrier_in_a_helper(const float *x, float *y) {
    const int t = threadIdx.x;
    y[t] = x[t];
    if (t < 40) wait();  // barrier_in_a_helper: one
    else wait();         // barrier_in_a_helper: other
}

__global__ void barrier_in_an_inlined_helper(const float *x, float *y) {
    const int t = threadIdx.x;
    y[t] = x[t];
    if (t < 40)
        wait_inlined();  // barrier_in_an_inlined_helper: one
    else
        wait_inlined();  // barrier_in_an_inlined_helper: other
}

__global__ void barrier_two_calls_deep(const float *x, float *y) {
    const int t = threadIdx.x;
    y[t] = x[t];
    if (t < 40) wait_deeper();  // barrier_two_calls_deep: one
    else wait();                // barrier_two_calls_deep: other
}

__global__ void barrier_in_a_template(const float *x, float *y) {
    __shared__ float s[128];
    const int t = threadIdx.x;
    const auto keep = [&](float (&to)[128]) { to[t] = x[t]; };
    if (t < 40) Stage<64>::turn(s, keep);  // barrier_in_a_template: one
    else Stage<64>::turn(s, keep);         // barrier_in_a_template: other
    y[t] = s[t];
}

__global__ void shuffle_in_a_helper(const float *x, float *y) {
    const int t = threadIdx.x;
    if (t < 10) y[t] = sum_of_warp(x[t]);  // shuffle_in_a_helper: one
    else y[t] = 2 * sum_of_warp(x[t]);     // shuffle_in_a_helper: other
}

__global__ void votes_on_one_line(int *y) {
    const int t = threadIdx.x;
    y[t] = t < 10 ? __any_sync(0xffffffffu, t == 3) : __any_sync(0xffffffffu, t == 3);  // votes_on_one_line: here, votes_on_one_line: there
}

__global__ void barrier_after_return(const float *x, float *y, int n) {
    __shared__ float s[64];
    const int t = threadIdx.x;
    if (t >= n) return;
    s[t] = x[t];
    __syncthreads();  // barrier_after_return: here
    y[t] = s[n - 1 - t];
}

__global__ void mask_names_absent_lanes(float *y) {
    const int t = threadIdx.x;
    float v = t;
    if (t < 16) v += __shfl_down_sync(0xffffffffu, v, 8);  // mask_names_absent_lanes: here
    __syncthreads();                                       // mask_names_absent_lanes: there
    y[t] = v;
}

__global__ void mask_lacks_the_caller(float *y) {
    const int t = threadIdx.x;
    float v = t;
    v += __shfl_xor_sync(0x0000ffffu, v, 1);  // mask_lacks_the_caller: here
    y[t] = v;
}

__global__ void masks_disagree(int *y) {
    const int t = threadIdx.x;
    const unsigned mask = t < 16 ? 0xffffffffu : 0xffff00ffu;
    y[t] = __any_sync(mask, t == 3);  // masks_disagree: here, masks_disagree: there
}

__global__ void product_without_ended_lanes(const unsigned *x, float *y) {
    const int t = threadIdx.x;
    float sums[4] = {};
    const unsigned a[4] = {x[t], x[t], x[t], x[t]}, b[2] = {x[t], x[t]};
    if (t >= 30) return;
    certiconv_mma_m16n8k16_f16(sums, a, b, sums);  // product_without_ended_lanes: here
    y[t] = sums[0];
}

__global__ void product_of_half_a_warp(const unsigned *x, float *y) {
    const int t = threadIdx.x;
    float sums[4] = {};
    const unsigned a[4] = {x[t], 0, 0, 0}, b[2] = {x[t], 0};
    certiconv_mma_m16n8k8_tf32(sums, a, b, sums);  // product_of_half_a_warp: here
    y[t] = sums[0];
}

__global__ void product_in_a_branch(const unsigned *x, float *y) {
    const int t = threadIdx.x;
    float sums[4] = {};
    const unsigned a[4] = {x[t], x[t], x[t], x[t]}, b[2] = {x[t], x[t]};
    if (t != 3) certiconv_mma_m16n8k16_bf16(sums, a, b, sums);  // product_in_a_branch: here
    __syncthreads();                                            // product_in_a_branch: there
    y[t] = sums[0];
}

__global__ void tiles_loaded_by_some_lanes(const unsigned *x, unsigned *y) {
    __shared__ alignas(16) unsigned s[32];
    const int t = threadIdx.x;
    s[t] = x[t];
    __syncthreads();
    unsigned row[1];
    if (t % 16 < 8) {  // the rows of one tile, and as many lanes that only receive
        certiconv_ldmatrix_x1(row, &s[4 * (t % 8)]);  // tiles_loaded_by_some_lanes: here
        y[t] = row[0];
    }
}

__global__ void missing_copy_wait(const float *x, float *y) {
    __shared__ float s[64];
    const int t = threadIdx.x;
    certiconv_cp_async<4>(&s[t], &x[t]);  // missing_copy_wait: there
    certiconv_cp_async_commit();
    __syncthreads();
    y[t] = s[63 - t];  // missing_copy_wait: here
}

__global__ void copy_waits_for_too_few(const float *x, float *y, int stages) {
    __shared__ alignas(16) float s[2][128];
    const int t = threadIdx.x;
    certiconv_cp_async<16>(&s[0][4 * t], &x[4 * t]);  // copy_waits_for_too_few: there
    certiconv_cp_async_commit();
    float sum = 0;
    for (int k = 0; k < stages; ++k) {
        if (k + 1 < stages) certiconv_cp_async<16>(&s[(k + 1) % 2][4 * t], &x[128 * (k + 1) + 4 * t]);
        certiconv_cp_async_commit();
        certiconv_cp_async_wait<2>();
        __syncthreads();
        sum += s[k % 2][127 - t];  // copy_waits_for_too_few: here
        __syncthreads();
    }
    y[t] = sum;
}

__global__ void copy_without_a_barrier(const float *x, float *y) {
    __shared__ float s[64];
    const int t = threadIdx.x;
    certiconv_cp_async<4>(&s[t], &x[t]);  // copy_without_a_barrier: there
    certiconv_cp_async_commit();
    certiconv_cp_async_wait<0>();
    y[t] = s[63 - t];  // copy_without_a_barrier: here
}

__global__ void double_buffer_reads_ahead(const float *x, float *y, int rounds) {
    __shared__ float s[2][64];
    const int t = threadIdx.x;
    s[0][t] = x[t];
    __syncthreads();
    float sum = 0;
    for (int r = 0; r < rounds; ++r) {
        if (r + 1 < rounds) s[(r + 1) % 2][t] = x[64 * (r + 1) + t];  // double_buffer_reads_ahead: there
        sum += s[(r + 1) % 2][63 - t];                                // double_buffer_reads_ahead: here
        __syncthreads();
    }
    y[t] = sum;
}

__global__ void histogram_without_atomics(const int *x, int *count) {
    count[x[blockIdx.x * blockDim.x + threadIdx.x]] += 1;  // histogram_without_atomics: here, histogram_without_atomics: there
}

__global__ void reads_beside_an_atomic(int *count, int *y) {
    atomicAdd(&count[0], 1);    // reads_beside_an_atomic: there
    y[threadIdx.x] = count[0];  // reads_beside_an_atomic: here
}

__global__ void halves_of_one_cell(__half *y) {
    y[threadIdx.x / 2] = __float2half(threadIdx.x);  // halves_of_one_cell: here, halves_of_one_cell: there
}

__global__ void bytes_of_one_cell(signed char *y) {
    y[threadIdx.x & 6] = threadIdx.x;  // bytes_of_one_cell: here, bytes_of_one_cell: there
}

__global__ void copies_a_range_too_far(const int *x, int *y, int n) {
    memcpy(y, x, 4 * n);  // copies_a_range_too_far: here
}

__global__ void index_overflow(const float *x, float *y, int stride) {
    y[threadIdx.x] = x[(stride * (int)(threadIdx.x + 1)) & 1];  // index_overflow: here
}

__global__ void depends_on_the_order(int *next, int *y) {
    y[atomicAdd(next, 1)] = threadIdx.x;
}

__global__ void divides_by_zero(int *y, int zero) {
    y[threadIdx.x] = 7 / zero;  // divides_by_zero: here
}

__global__ void waits_forever(int *flag) {
    while (atomicAdd(flag, 0) == 0) {}  // waits_forever: here
}

__global__ void follows_null(const float *x, float *y) {
    y[threadIdx.x] = x[threadIdx.x];  // follows_null: here
}

__global__ void reads_another_stack(float *y) {
    __shared__ float *shared_pointer;
    float local[2] = {(float)threadIdx.x, 1};
    if (threadIdx.x == 0) shared_pointer = local;
    __syncthreads();
    y[threadIdx.x] = shared_pointer[threadIdx.x & 1];  // reads_another_stack: here
    __syncthreads();
    y[threadIdx.x] += local[0];
}

__global__ void traps(int *y) {
    if (threadIdx.x == 5) __trap();  // traps: here
    y[threadIdx.x] = 1;
}
}
