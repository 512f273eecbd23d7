/* What this processor and this build can do (kernels/native.py). */

#include <string.h>

/* Whether the processor, and the operating system, support the code of a level. */
int kernels_support(const char *level) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  /* Compilers have no portable names for a few small features of the levels (lzcnt, movbe, f16c). All processors with
     the features below have them. */
  const int v2 = __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt");
  const int v3 =
      v2 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
  const int v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                 __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                 __builtin_cpu_supports("avx512vl");
  if (!strcmp(level, "x86-64-v2")) return v2;
  if (!strcmp(level, "x86-64-v3")) return v3;
  if (!strcmp(level, "x86-64-v4")) return v4;
#endif
  return !strcmp(level, "baseline"); /* all processors of the architecture */
}

/* Whether the kernels were built with OpenMP, so that they can use several threads. */
int kernels_use_openmp(void) {
#ifdef _OPENMP
  return 1;
#else
  return 0;
#endif
}
