/* Vectors as wide as the registers, and names of exported functions.

   Every source is compiled once for each floating type (REAL, SINGLE) and each level of the instruction set. The names
   of its exported functions end in both (VARIANT), as in spline_forward_float32_x86_64_v3: see setup.py. */

#pragma once

#include <stdint.h>

#define JOIN_NAMES(name, variant) name##_##variant
#define JOIN(name, variant) JOIN_NAMES(name, variant)
#define EXPORT(name) JOIN(name, VARIANT)

/* BYTES: size of a vector. WIDE: vectors of a row that are computed together. More would not fit into the registers,
   and fewer would leave arithmetic units idle. */
#if defined(__AVX512F__)
#define BYTES 64
#define WIDE 4
#elif defined(__AVX__)
#define BYTES 32
#define WIDE 2
#else
#define BYTES 16
#define WIDE 2
#endif
#define LANES ((int64_t)(BYTES / sizeof(REAL)))

typedef REAL vec __attribute__((vector_size(BYTES), aligned(sizeof(REAL)), may_alias));
#if SINGLE
typedef int32_t bits __attribute__((vector_size(BYTES), aligned(sizeof(REAL)), may_alias));
#else
typedef int64_t bits __attribute__((vector_size(BYTES), aligned(sizeof(REAL)), may_alias));
#endif

/* n rounded up to whole vectors. */
static inline int64_t padded(int64_t n) { return (n + LANES - 1) / LANES * LANES; }

/* ``yes`` in the lanes where ``which`` is set, else ``no``. */
static inline vec pick(const bits which, const vec yes, const vec no) {
  return (vec)(((bits)yes & which) | ((bits)no & ~which));
}

/* The same number in all lanes. */
static inline vec all(const REAL x) { return (vec){0} + x; }
