// The instructions that CUDA C++ has no function for, as wrappers.  Copy this text into a kernel's source: nvcc and NVRTC
// take the inline PTX, the SIMT executor has functions of the same names.  Needs compute capability 8.0.
//
//   certiconv_mma_m16n8k16_f16 / _bf16(d, a, b, c), certiconv_mma_m16n8k8_tf32(d, a, b, c)     D = A B + C for a warp
//   certiconv_to_tf32(x)                                                                      a float rounded to TF32
//   certiconv_ldmatrix_x1 / _x2 / _x4 [_trans](r, row)                                        8 x 8 tiles of 16-bit cells
//   certiconv_cp_async<BYTES>(shared, global), certiconv_cp_async_zfill<BYTES>(shared, global, source_bytes),
//   certiconv_cp_async_commit(), certiconv_cp_async_wait<PENDING>(), certiconv_cp_async_wait_all()
#ifdef __CUDACC__
#define CERTICONV_MMA_16(name, type)                                                                          \
    __device__ __forceinline__ void name(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2],       \
                                         const float (&c)[4]) {                                               \
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." type "." type ".f32 "                           \
                     "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%11,%12,%13};"                              \
                     : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])                                         \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c[0]), "f"(c[1]), \
                       "f"(c[2]), "f"(c[3]));                                                                 \
    }
CERTICONV_MMA_16(certiconv_mma_m16n8k16_f16, "f16")
CERTICONV_MMA_16(certiconv_mma_m16n8k16_bf16, "bf16")
__device__ __forceinline__ void certiconv_mma_m16n8k8_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2],
                                                           const float (&c)[4]) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%11,%12,%13};"
                 : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c[0]), "f"(c[1]), "f"(c[2]),
                   "f"(c[3]));
}
__device__ __forceinline__ unsigned certiconv_to_tf32(float x) {
    unsigned r;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(x));
    return r;
}
__device__ __forceinline__ unsigned certiconv_shared_address(const void *p) {
    return static_cast<unsigned>(__cvta_generic_to_shared(p));
}
#define CERTICONV_LDMATRIX(suffix, trans)                                                                               \
    __device__ __forceinline__ void certiconv_ldmatrix_x1##suffix(unsigned (&r)[1], const void *row) {                  \
        asm volatile("ldmatrix.sync.aligned.m8n8.x1" trans ".shared.b16 {%0}, [%1];"                                    \
                     : "=r"(r[0]) : "r"(certiconv_shared_address(row)) : "memory");                                     \
    }                                                                                                                   \
    __device__ __forceinline__ void certiconv_ldmatrix_x2##suffix(unsigned (&r)[2], const void *row) {                  \
        asm volatile("ldmatrix.sync.aligned.m8n8.x2" trans ".shared.b16 {%0,%1}, [%2];"                                 \
                     : "=r"(r[0]), "=r"(r[1]) : "r"(certiconv_shared_address(row)) : "memory");                         \
    }                                                                                                                   \
    __device__ __forceinline__ void certiconv_ldmatrix_x4##suffix(unsigned (&r)[4], const void *row) {                  \
        asm volatile("ldmatrix.sync.aligned.m8n8.x4" trans ".shared.b16 {%0,%1,%2,%3}, [%4];"                           \
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(certiconv_shared_address(row)) : "memory"); \
    }
CERTICONV_LDMATRIX(, "")
CERTICONV_LDMATRIX(_trans, ".trans")
template <int BYTES> __device__ __forceinline__ void certiconv_cp_async_zfill(void *to, const void *from, int source_bytes) {
    static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16, "cp.async copies 4, 8 or 16 bytes");
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(certiconv_shared_address(to)), "l"(from), "n"(BYTES),
                 "r"(source_bytes)
                 : "memory");
}
template <int BYTES> __device__ __forceinline__ void certiconv_cp_async(void *to, const void *from) {
    static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16, "cp.async copies 4, 8 or 16 bytes");
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(certiconv_shared_address(to)), "l"(from), "n"(BYTES)
                 : "memory");
}
__device__ __forceinline__ void certiconv_cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int PENDING> __device__ __forceinline__ void certiconv_cp_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}
__device__ __forceinline__ void certiconv_cp_async_wait_all() { asm volatile("cp.async.wait_all;" ::: "memory"); }
#endif
