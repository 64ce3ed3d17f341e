// T[b, n] for the label of image b: 1 at its class, else 0.  A label that is no class makes what it meets NaN.
#ifdef EXACT
#define NO_NUMBER ACC(0)
#else
#define NO_NUMBER ACC(nan(""))
#endif
__device__ __forceinline__ ACC hit(long long label, INDEX n, INDEX classes)
{
  return label < 0 || label >= classes ? NO_NUMBER : ACC(label == n ? 1 : 0);
}
