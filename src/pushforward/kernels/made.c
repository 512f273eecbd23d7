/* The inverse of an autoregressive transform: z_i = f(x_i; MADE(x_<i)) solved for x, one place after the other
   (kernels/made.py).

   A hidden unit or an output of MADE of degree i depends on the first i places only. So place i computes the hidden
   units of its degree, its own outputs, and one inverse of the scalar function f, and nothing is computed twice: D
   places cost the arithmetic of one pass. Rows of the batch are the lanes of vectors. A panel of a few vectors is
   solved at a time, so that all its values stay in the cache and the weights are read once for each panel. */

#include "activation.h"
#include "spline.h"
#include <stdlib.h>

#define MOST_ROWS 6 /* rows of weights that are used together */

/* A masked product and what follows it (networks/incremental.py). The rows of the last stage are (parameter, place). */
typedef struct {
  int64_t rows, columns;
  const REAL *weight, *start;
  int64_t start_row, start_column; /* strides of the constant terms, which all rows share if start_column is 0 */
  const int64_t *known;            /* the number of rows that are known before each place */
  int64_t adds, keeps, acts;       /* adds the residual stream, replaces it, is followed by the activation */
} MadeStage;

typedef struct {
  int64_t places, batch, stages, parameters, activation, function, threads;
  const MadeStage *stage;
  const SplineLayout *spline;
  double input_bound, scale_bound; /* of the inputs of the network, and of log-scales */
} MadeProblem;

enum { SHIFT, AFFINE, SPLINE }; /* f */

/* c += w h for ``rows`` rows of w and a panel of ``wide`` vectors. Each sum is split into ``ways`` independent ones, as
   an addition would otherwise wait for the result of the one before it. */
static inline __attribute__((always_inline)) void multiply_strip(const int rows, const int wide, const int ways,
                                                                 const REAL *restrict w, const int64_t ld,
                                                                 const REAL *restrict h, const int64_t n,
                                                                 REAL *restrict c) {
  vec sum[MOST_ROWS][WIDE][4];
  for (int r = 0; r < rows; r++)
    for (int v = 0; v < wide; v++)
      for (int u = 0; u < ways; u++) sum[r][v][u] = u ? (vec){0} : *(const vec *)(c + (r * wide + v) * LANES);
  int64_t k = 0;
  for (; k + ways <= n; k += ways)
    for (int u = 0; u < ways; u++) {
      vec x[WIDE];
      for (int v = 0; v < wide; v++) x[v] = *(const vec *)(h + ((k + u) * wide + v) * LANES);
      for (int r = 0; r < rows; r++) {
        const REAL a = w[r * ld + k + u];
        for (int v = 0; v < wide; v++) sum[r][v][u] += x[v] * a;
      }
    }
  for (; k < n; k++)
    for (int r = 0; r < rows; r++)
      for (int v = 0; v < wide; v++) sum[r][v][0] += *(const vec *)(h + (k * wide + v) * LANES) * w[r * ld + k];
  for (int r = 0; r < rows; r++)
    for (int v = 0; v < wide; v++) {
      vec total = sum[r][v][0];
      for (int u = 1; u < ways; u++) total += sum[r][v][u];
      *(vec *)(c + (r * wide + v) * LANES) = total;
    }
}

static inline __attribute__((always_inline)) void multiply_strips(const int wide, const int64_t rows, const REAL *w,
                                                                  const int64_t ld, const REAL *h, const int64_t n,
                                                                  REAL *c) {
  for (int64_t r = 0; r < rows;) {
    const REAL *at = w + r * ld;
    REAL *to = c + r * wide * LANES;
#define CASE(R)                                                                          \
  case R:                                                                                \
    multiply_strip(R, wide, R * wide >= 8 ? 1 : R * wide >= 4 ? 2 : 4, at, ld, h, n, to); \
    r += R;                                                                              \
    break
    switch (rows - r) {
      CASE(1); CASE(2); CASE(3); CASE(4); CASE(5);
      case 7: multiply_strip(4, wide, wide == 1 ? 2 : 1, at, ld, h, n, to); r += 4; break;
      case 8: multiply_strip(4, wide, wide == 1 ? 2 : 1, at, ld, h, n, to); r += 4; break;
      default: multiply_strip(6, wide, wide == 1 ? 2 : 1, at, ld, h, n, to); r += 6;
    }
#undef CASE
  }
}

static void multiply(const int64_t wide, const int64_t rows, const REAL *w, const int64_t ld, const REAL *h,
                     const int64_t n, REAL *c) {
  switch (wide) {
    case 1: multiply_strips(1, rows, w, ld, h, n, c); break;
#if WIDE == 4
    case 3: multiply_strips(3, rows, w, ld, h, n, c); break;
    case 4: multiply_strips(4, rows, w, ld, h, n, c); break;
#endif
    default: multiply_strips(2, rows, w, ld, h, n, c);
  }
}

/* Sets a row of a panel to its constant terms: ``count`` rows of the batch from ``first``, then zeros. */
static inline void set_constants(const MadeStage *s, const int64_t row, const int64_t first, const int64_t count,
                                 const int64_t panel, REAL *c) {
  const REAL *at = s->start + row * s->start_row + first * s->start_column;
  for (int64_t e = 0; e < count; e++) c[e] = at[e * s->start_column];
  for (int64_t e = count; e < panel; e++) c[e] = 0;
}

/* Solves f for x, which has the values of z at the start. */
static inline void invert(const MadeProblem *p, const int64_t panel, const REAL *raw, REAL *x, REAL *log_slope) {
  const REAL bound = (REAL)p->scale_bound, *scale = raw + panel;
  switch (p->function) {
    case SHIFT:
      for (int64_t e = 0; e < panel; e++) x[e] -= raw[e], log_slope[e] = 0;
      break;
    case AFFINE:
      for (int64_t e = 0; e < panel; e++) {
        const REAL s = scale[e] / (1 + (scale[e] < 0 ? -scale[e] : scale[e]) / bound);
        x[e] = (x[e] - raw[e]) / exponential(s);
        log_slope[e] = s;
      }
      break;
    default: {
      SplineLayout l = *p->spline;
      l.outer = 1, l.inner = l.value_outer = l.raw_first = l.raw_outer = panel;
      l.value_inner = l.raw_inner = l.inverse = 1;
      for (int64_t tile = 0; tile * TILE < panel; tile++) forward_tile(&l, tile, x, raw, x, log_slope);
    }
  }
}

/* Solves a panel of ``wide`` vectors: ``count`` rows of the batch from ``first``. ``memory`` is for all its values. */
static void solve(const MadeProblem *p, const int64_t first, const int64_t count, const int64_t wide, REAL *memory,
                  const REAL *z, REAL *x, REAL *log_slope) {
  const int64_t panel = wide * LANES, hidden = p->stages - 1;
  const MadeStage *last = p->stage + hidden;
  REAL *seen = memory, *value = seen + p->places * panel, *logs = value + panel, *raw = logs + panel;
  REAL *stream = raw + p->parameters * panel, *layers = stream + p->stage[0].rows * panel;
  for (int64_t place = 0; place < p->places; place++) {
    const REAL *below = seen;
    int64_t read = place;
    REAL *layer = layers;
    for (const MadeStage *s = p->stage; s < last; s++) {
      const int64_t from = s->known[place], rows = s->known[place + 1] - from;
      REAL *c = layer + from * panel;
      for (int64_t r = 0; r < rows; r++) set_constants(s, from + r, first, count, panel, c + r * panel);
      multiply(wide, rows, s->weight + from * s->columns, s->columns, below, read, c);
      if (s->adds)
        for (int64_t e = 0; e < rows * panel; e++) c[e] += stream[from * panel + e];
      if (s->keeps && rows) memcpy(stream + from * panel, c, rows * panel * sizeof(REAL));
      if (s->acts) activate((int)p->activation, rows * panel, c);
      below = layer, read = s->known[place + 1], layer += s->rows * panel;
    }
    for (int64_t j = 0; j < p->parameters; j++)
      set_constants(last, j * p->places + place, first, count, panel, raw + j * panel);
    multiply(wide, p->parameters, last->weight + place * last->columns, p->places * last->columns, below, read, raw);
    for (int64_t e = 0; e < panel; e++) value[e] = e < count ? z[place * p->batch + first + e] : 0;
    invert(p, panel, raw, value, logs);
    for (int64_t e = 0; e < panel; e++) {
      const REAL most = (REAL)p->input_bound, v = value[e];
      seen[place * panel + e] = v > most ? most : v < -most ? -most : v;
    }
    memcpy(x + place * p->batch + first, value, count * sizeof(REAL));
    memcpy(log_slope + place * p->batch + first, logs, count * sizeof(REAL));
  }
}

/* z, x and log f'(x) are (places, batch). Returns 0, or 1 if there is no memory. */
int EXPORT(made_invert)(const MadeProblem *p, const REAL *z, REAL *x, REAL *log_slope) {
  const int64_t each = (p->batch + p->threads - 1) / p->threads, vectors = (each + LANES - 1) / LANES;
  const int64_t wide = vectors < WIDE ? vectors : WIDE, panel = wide * LANES, panels = (p->batch + panel - 1) / panel;
  int64_t size = p->places + 2 + p->parameters + p->stage[0].rows;
  for (int64_t k = 0; k + 1 < p->stages; k++) size += p->stage[k].rows;
  int failed = 0;
#pragma omp parallel num_threads(p->threads) if (p->threads > 1)
  {
    REAL *memory = aligned_alloc(64, (size * panel * sizeof(REAL) + 63) / 64 * 64);
    if (memory == NULL) {
#pragma omp atomic write
      failed = 1;
    }
#pragma omp for schedule(dynamic)
    for (int64_t k = 0; k < panels; k++) {
      const int64_t first = k * panel, count = p->batch - first < panel ? p->batch - first : panel;
      if (memory != NULL) solve(p, first, count, wide, memory, z, x, log_slope);
    }
    free(memory);
  }
  return failed;
}
