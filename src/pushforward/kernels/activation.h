/* Activations of a network, applied to arrays in place. */

#pragma once

#include "elementary.h"

enum { RELU, TANH, ELU, SILU, GELU, SOFTPLUS, LEAKY_RELU }; /* ACTIVATIONS in structs.py has the same order */

static inline REAL softplus(REAL x) { return x > 20 ? x : (REAL)log1p(exp((double)x)); }

static void activate(const int kind, const int64_t count, REAL *h) {
  switch (kind) {
    case RELU: for (int64_t i = 0; i < count; i++) h[i] = h[i] <= 0 ? 0 : h[i]; break; /* keeps NaN */
    case LEAKY_RELU: for (int64_t i = 0; i < count; i++) h[i] = h[i] > 0 ? h[i] : (REAL)0.01 * h[i]; break;
    case TANH: for (int64_t i = 0; i < count; i++) h[i] = hyperbolic_tangent(h[i]); break;
    case ELU: for (int64_t i = 0; i < count; i++) h[i] = h[i] > 0 ? h[i] : (REAL)expm1((double)h[i]); break;
    case SILU: for (int64_t i = 0; i < count; i++) h[i] = h[i] / (1 + exponential(-h[i])); break;
    case GELU: for (int64_t i = 0; i < count; i++) h[i] *= (REAL)(0.5 * erfc(-0.70710678118654752 * h[i])); break;
    default: for (int64_t i = 0; i < count; i++) h[i] = softplus(h[i]);
  }
}
