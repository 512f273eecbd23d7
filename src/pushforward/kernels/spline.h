/* Monotone rational-quadratic splines (Durkan et al. 2019, eq. 4-8): values and log-slopes, forward and inverse.

   Elements are processed in tiles of TILE. The parameters of a tile are gathered into vectors, whatever the strides of
   the caller's arrays, and all arithmetic is on whole vectors.

   With the raw parameters r of an element, the bin sizes are 2 bound (smallest + (1 - K smallest) softmax(r)_j), and
   the slopes at the knots exp(steepest tanh(r / steepest)). */

#pragma once

#include "elementary.h"
#include <string.h>

#define TILE (BYTES / (int)sizeof(REAL))

typedef struct {
  int64_t outer, inner;             /* elements are (outer, inner) */
  int64_t value_outer, value_inner; /* strides of x, and of every other array with one value for each element */
  int64_t raw_first, raw_outer, raw_inner;    /* strides of the raw parameters, (parameters, outer, inner) */
  int64_t grad_first, grad_outer, grad_inner; /* strides of their gradients */
  int64_t bins, periodic, inverse, threads;
  double bound, smallest, steepest;
} SplineLayout;

/* The bin of each element: the element clamped to the interval, left edges and sizes (index 0: x, 1: y), one over the
   sums of the softmax, slopes at both knots, and the tanh that gave them. */
typedef struct {
  vec x, low[2], size[2], norm[2], start, end, start_tanh, end_tanh;
  bits bin, inside;
} Bin;

static inline vec clamp(const vec x, const REAL low, const REAL high) {
  const vec above = pick(x < low, all(low), x);
  return pick(above > high, all(high), above);
}

#define DEFINE_ELEMENTWISE(name, function)                \
  static inline vec name(const vec x) {                   \
    vec y;                                                \
    for (int e = 0; e < TILE; e++) y[e] = function(x[e]); \
    return y;                                             \
  }
DEFINE_ELEMENTWISE(exponentials, bounded_exponential)
DEFINE_ELEMENTWISE(logarithms, logarithm)
DEFINE_ELEMENTWISE(hyperbolic_tangents, hyperbolic_tangent)
DEFINE_ELEMENTWISE(square_roots, square_root)

/* Memory offsets of a tile's elements, in runs: elements edge[r] to edge[r + 1] are at from[r] + e * step. */
typedef struct {
  int64_t count, runs, step, from[TILE];
  int32_t edge[TILE + 1];
} Offsets;

static inline void find_offsets(const SplineLayout *l, int64_t tile, int64_t outer, int64_t inner, Offsets *at) {
  const int64_t first = tile * TILE, total = l->outer * l->inner;
  at->count = total - first < TILE ? total - first : TILE;
  at->runs = 0, at->step = inner;
  int64_t o = first / l->inner, i = first % l->inner;
  for (int64_t e = 0; e < at->count; o++) {
    const int64_t from = o * outer + (i - e) * inner;
    if (!at->runs || inner != 1 || at->from[at->runs - 1] != from) { /* else it continues the run before */
      at->edge[at->runs] = (int32_t)e;
      at->from[at->runs++] = from;
    }
    e += l->inner - i;
    i = 0;
  }
  at->edge[at->runs] = (int32_t)at->count;
}

/* Copies n <= TILE values of each of ``rows`` rows, as two pieces of a fixed size that may overlap. */
static inline void copy(REAL *restrict to, const REAL *restrict from, int64_t n, int64_t rows, int64_t to_stride,
                        int64_t from_stride) {
#define COPY_PIECES(N)                                                        \
  for (; rows--; to += to_stride, from += from_stride) {                      \
    REAL head[N], tail[N];                                                    \
    memcpy(head, from, sizeof head), memcpy(tail, from + n - N, sizeof tail); \
    memcpy(to, head, sizeof head), memcpy(to + n - N, tail, sizeof tail);     \
  }
  if (n == TILE)
    COPY_PIECES(TILE)
  else if (n >= 8)
    COPY_PIECES(8)
  else if (n >= 4)
    COPY_PIECES(4)
  else if (n >= 2)
    COPY_PIECES(2)
  else
    COPY_PIECES(1)
#undef COPY_PIECES
}

/* A tile of ``rows`` rows that are ``stride`` apart, as vectors. */
static __attribute__((noinline)) void gather(const REAL *from, const Offsets *at, int64_t rows, int64_t stride,
                                             vec *to) {
  if (at->count < TILE) memset(to, 0, rows * sizeof(vec));
  for (int r = 0; r < at->runs; r++) {
    const int64_t first = at->edge[r], next = at->edge[r + 1];
    if (at->step == 1)
      copy((REAL *)to + first, from + at->from[r] + first, next - first, rows, TILE, stride);
    else if (!at->step && next - first == TILE) /* all elements share one value */
      for (int64_t j = 0; j < rows; j++) to[j] = all(from[at->from[r] + j * stride]);
    else
      for (int64_t e = first; e < next; e++)
        for (int64_t j = 0; j < rows; j++) ((REAL *)(to + j))[e] = from[at->from[r] + e * at->step + j * stride];
  }
}

static __attribute__((noinline)) void scatter(const vec *from, const Offsets *at, int64_t rows, int64_t stride,
                                              REAL *to) {
  for (int r = 0; r < at->runs; r++) {
    const int64_t first = at->edge[r], next = at->edge[r + 1];
    if (at->step == 1)
      copy(to + at->from[r] + first, (const REAL *)from + first, next - first, rows, stride, TILE);
    else
      for (int64_t e = first; e < next; e++)
        for (int64_t j = 0; j < rows; j++) to[at->from[r] + e * at->step + j * stride] = ((const REAL *)(from + j))[e];
  }
}

/* The edges of the bins on one side (0: x, 1: y). With ``search`` it finds the bin of p->x, else it reads p->bin.
   Replaces the raw sizes by their exponentials. */
static inline void find_edges(vec *raw, const SplineLayout *l, const int side, const int search, Bin *p) {
  const int bins = (int)l->bins;
  const REAL bound = (REAL)l->bound, smallest = (REAL)(2 * l->bound * l->smallest);
  const REAL spare = (REAL)(2 * l->bound * (1 - l->bins * l->smallest)); /* what the softmax distributes */
  raw += side * bins;
  vec most = raw[0], sum = {0};
  for (int j = 1; j < bins; j++) most = pick(raw[j] > most, raw[j], most);
  for (int j = 0; j < bins; j++) {
    raw[j] = exponentials(raw[j] - most);
    sum += raw[j];
  }
  sum = 1 / sum;
  vec edge = all(-bound), low = edge, high = all(bound);
  bits bin = p->bin;
  for (int j = 0; j < bins; j++) {
    bits here = bin == j;
    if (search) here = p->x >= edge; /* after the loop: the last bin whose left edge is not above x */
    const vec next = edge + (smallest + spare * raw[j] * sum);
    low = pick(here, edge, low);
    high = pick(here, next, high);
    if (search) bin = (bin & ~here) | (here & j);
    edge = next;
  }
  p->bin = bin, p->norm[side] = sum, p->low[side] = low;
  p->size[side] = pick(bin == bins - 1, all(bound), high) - low; /* rounding keeps the running sum from the exact end */
}

/* The bins that start and end at the knot of raw slope k. Ends without a raw slope have slope 1. */
static inline int bin_after(const SplineLayout *l, int k) { return l->periodic ? k : k + 1; }
static inline int bin_before(const SplineLayout *l, int k) {
  return !l->periodic || k ? k - (int)l->periodic : (int)l->bins - 1;
}

static inline void find_bin(vec *raw, const SplineLayout *l, const int search, const vec at, Bin *p) {
  const int bins = (int)l->bins, slopes = (int)(l->periodic ? l->bins : l->bins - 1);
  const REAL bound = (REAL)l->bound, steepest = (REAL)l->steepest;
  p->inside = (at > -bound) & (at < bound);
  if (l->periodic) p->inside = ~(bits){0};
  p->x = clamp(at, -bound, bound);
  p->bin = (bits){0};
  find_edges(raw, l, search, 1, p);
  find_edges(raw, l, 1 - search, 0, p);
  vec start = {0}, end = {0};
  for (int k = 0; k < slopes; k++) {
    start = pick(p->bin == bin_after(l, k), raw[2 * bins + k], start);
    end = pick(p->bin == bin_before(l, k), raw[2 * bins + k], end);
  }
  p->start_tanh = hyperbolic_tangents(start * (1 / steepest));
  p->end_tanh = hyperbolic_tangents(end * (1 / steepest));
  p->start = exponentials(steepest * p->start_tanh);
  p->end = exponentials(steepest * p->end_tanh);
}

/* y and log f'(x) of a tile, or with l->inverse x and log f'(x). */
static void forward_tile(const SplineLayout *l, int64_t tile, const REAL *x, const REAL *raw, REAL *y,
                         REAL *log_slope) {
  const int rows = (int)(l->periodic ? 3 * l->bins : 3 * l->bins - 1);
  Offsets value, parameter;
  Bin p;
  vec parameters[rows], at, q;
  find_offsets(l, tile, l->value_outer, l->value_inner, &value);
  find_offsets(l, tile, l->raw_outer, l->raw_inner, &parameter);
  gather(x, &value, 1, 0, &at);
  gather(raw, &parameter, rows, l->raw_first, parameters);
  find_bin(parameters, l, (int)l->inverse, at, &p);
  const vec height = p.size[1], s = height / p.size[0], bend = p.start + p.end - 2 * s;
  if (l->inverse) {
    const vec rise = p.x - p.low[1], a = height * (s - p.start) + rise * bend, b = height * p.start - rise * bend;
    const vec d = b * b + 4 * a * s * rise;
    q = clamp(2 * s * rise / (b + square_roots(pick(d < 0, all(0), d))), 0, 1);
    /* One step of Newton's method: where slopes differ much, the discriminant has lost digits. */
    const vec over = 1 / (s + bend * q * (1 - q)), up = (s * q * q + p.start * q * (1 - q)) * over;
    const vec speed = p.end * q * q + 2 * s * q * (1 - q) + p.start * (1 - q) * (1 - q);
    q -= (up - rise / height) / (s * speed * over * over);
  } else
    q = (p.x - p.low[0]) / p.size[0];
  q = clamp(q, 0, 1);
  const vec t = 1 - q, over = 1 / (s + bend * q * t), num = p.end * q * q + 2 * s * q * t + p.start * t * t;
  const vec moved = l->inverse ? p.low[0] + q * p.size[0] : p.low[1] + height * (s * q * q + p.start * q * t) * over;
  const vec ratio = s * over;
  const vec out = pick(p.inside, moved, at), logs = pick(p.inside, logarithms(ratio * ratio * num), all(0));
  scatter(&out, &value, 1, 0, y);
  scatter(&logs, &value, 1, 0, log_slope);
}
