/* exp, log, tanh and the square root.

   In float32 the first three are polynomials, fitted for relative error (1e-8, 1e-8 and 8e-8 before rounding):
   compilers do not vectorize the functions of libm without options that give wrong results for NaN and infinity. */

#pragma once

#include "vector.h"
#include <math.h>

#if SINGLE
typedef union { REAL real; int32_t bits; } Bits;

static inline REAL bounded_exponential(REAL x) { /* x < 88 */
  x = x < -87.0f ? -87.0f : x;
  REAL n = rintf(x * 1.44269504f);
  REAL r = (x - n * 0.693359375f) + n * 2.12194440e-4f; /* log 2 in two parts, the first of them exact */
  REAL p = 0.00139529701f;
  p = p * r + 0.00837032157f;
  p = p * r + 0.041666168f;
  p = p * r + 0.166665067f;
  p = p * r + 0.500000011f;
  Bits scale;
  scale.bits = ((int32_t)n + 127) << 23;
  return (1.0f + (r + r * r * p)) * scale.real;
}

static inline REAL exponential(REAL x) { return bounded_exponential(x > 88.0f ? 88.0f : x); }

static inline REAL logarithm(REAL x) {
  Bits mantissa;
  mantissa.real = x;
  const int32_t root = 0x3f3504f3; /* the square root of one half */
  int32_t n = (mantissa.bits - root) >> 23;
  mantissa.bits -= n * (1 << 23);
  REAL m = mantissa.real - 1.0f, z = m * m;
  REAL p = -0.0763351675f;
  p = p * m + 0.128003277f;
  p = p * m - 0.131785605f;
  p = p * m + 0.141978027f;
  p = p * m - 0.166211891f;
  p = p * m + 0.200013192f;
  p = p * m - 0.2500088f;
  p = p * m + 0.333333314f;
  return m + (p * m * z - 0.5f * z - (REAL)n * 2.12194440e-4f) + (REAL)n * 0.693359375f + (x - x); /* of NaN, NaN */
}

static inline REAL hyperbolic_tangent(REAL x) {
  REAL far = 1.0f - 2.0f / (exponential(2.0f * x) + 1.0f), z = x * x;
  REAL near = ((0.0156404611f * z - 0.0522310928f) * z + 0.133135204f) * z - 0.333326216f;
  return z < 0.36f ? x + x * z * near : far;
}
#define square_root sqrtf
#else
#define exponential exp
#define bounded_exponential exp
#define logarithm log
#define hyperbolic_tangent tanh
#define square_root sqrt
#endif
