/* The inverse of an autoregressive law: z_i = f(x_i; MADE(x_<i)) solved for x, place after place (kernels/made.py).

   A unit or an output of MADE reads the first so many values of the layer below, and none that a later place decides. So
   place i takes the hidden units of its degree, its own outputs and one inverse of the scalar law, and what is known is
   never computed again: D places cost the arithmetic of one pass. Rows of the batch are the lanes of vectors, a panel of
   some vectors at a time, so that all values of a panel stay in the cache and the weights are read once for a panel. */

#include "activate.c"
#include <stdlib.h>

#define MOST_ROWS 6

/* A masked product and what follows it; see networks/incremental.py. The last stage's rows are (parameter, place). */
typedef struct {
  int64_t rows, columns;
  const REAL *weight, *start;
  int64_t start_row, start_column; /* strides of the constant terms; those of a bias do not depend on the row of the batch */
  const int64_t *known;            /* how many rows are known before each place */
  int64_t adds, keeps, acts;
} Stage;

typedef struct {
  int64_t places, batch, stages, parameters, activation, law, threads;
  const Stage *stage;
  const Layout *spline;
  double seen, bound; /* bounds on what the network sees, and on log-scales */
} Solve;

enum { SHIFT, AFFINE, SPLINE };

/* c += w h for ``rows`` rows of w and a panel of ``wide`` vectors. Few sums at a time would wait for each other: ``ways`` for each. */
static inline __attribute__((always_inline)) void strip(const int rows, const int wide, const int ways, const REAL *restrict w,
                                                        const int64_t ld, const REAL *restrict h, const int64_t n,
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

static inline __attribute__((always_inline)) void strips(const int wide, const int64_t rows, const REAL *w, const int64_t ld,
                                                         const REAL *h, const int64_t n, REAL *c) {
  for (int64_t r = 0; r < rows;) {
    const REAL *at = w + r * ld;
    REAL *to = c + r * wide * LANES;
#define CASE(R) case R: strip(R, wide, R * wide >= 8 ? 1 : R * wide >= 4 ? 2 : 4, at, ld, h, n, to); r += R; break
    switch (rows - r) {
      CASE(1); CASE(2); CASE(3); CASE(4); CASE(5);
      case 7: strip(4, wide, wide == 1 ? 2 : 1, at, ld, h, n, to); r += 4; break;
      case 8: strip(4, wide, wide == 1 ? 2 : 1, at, ld, h, n, to); r += 4; break;
      default: strip(6, wide, wide == 1 ? 2 : 1, at, ld, h, n, to); r += 6;
    }
#undef CASE
  }
}

static void multiply(const int64_t wide, const int64_t rows, const REAL *w, const int64_t ld, const REAL *h, const int64_t n,
                     REAL *c) {
  switch (wide) {
    case 1: strips(1, rows, w, ld, h, n, c); break;
#if WIDE == 4
    case 3: strips(3, rows, w, ld, h, n, c); break;
    case 4: strips(4, rows, w, ld, h, n, c); break;
#endif
    default: strips(2, rows, w, ld, h, n, c);
  }
}

/* The constant terms of a row, for ``count`` rows of the batch from ``first``. */
static inline void begin(const Stage *s, const int64_t row, const int64_t first, const int64_t count, const int64_t panel, REAL *c) {
  const REAL *at = s->start + row * s->start_row + first * s->start_column;
  for (int64_t e = 0; e < count; e++) c[e] = at[e * s->start_column];
  for (int64_t e = count; e < panel; e++) c[e] = 0;
}

static inline void invert(const Solve *p, const int64_t panel, const REAL *raw, REAL *x, REAL *slope) {
  const REAL bound = (REAL)p->bound, *scale = raw + panel;
  switch (p->law) {
    case SHIFT:
      for (int64_t e = 0; e < panel; e++) x[e] -= raw[e], slope[e] = 0;
      break;
    case AFFINE:
      for (int64_t e = 0; e < panel; e++) {
        const REAL s = scale[e] / (1 + (scale[e] < 0 ? -scale[e] : scale[e]) / bound);
        x[e] = (x[e] - raw[e]) / exponential(s);
        slope[e] = s;
      }
      break;
    default: {
      Layout l = *p->spline;
      l.outer = 1, l.inner = l.value_outer = l.raw_first = l.raw_outer = panel;
      l.value_inner = l.raw_inner = l.inverse = 1;
      for (int64_t tile = 0; tile * TILE < panel; tile++) forward_tile(&l, tile, x, raw, x, slope);
    }
  }
}

/* ``count`` rows of the batch from ``first``, at ``wide`` vectors; ``room`` holds all values of the panel. */
static void solve(const Solve *p, const int64_t first, const int64_t count, const int64_t wide, REAL *room, const REAL *z, REAL *x,
                  REAL *slope) {
  const int64_t panel = wide * LANES, hidden = p->stages - 1;
  const Stage *last = p->stage + hidden;
  REAL *seen = room, *value = seen + p->places * panel, *logs = value + panel, *raw = logs + panel;
  REAL *stream = raw + p->parameters * panel, *layers = stream + p->stage[0].rows * panel;
  for (int64_t place = 0; place < p->places; place++) {
    const REAL *below = seen;
    int64_t read = place;
    REAL *layer = layers;
    for (const Stage *s = p->stage; s < last; s++) {
      const int64_t from = s->known[place], rows = s->known[place + 1] - from;
      REAL *c = layer + from * panel;
      for (int64_t r = 0; r < rows; r++) begin(s, from + r, first, count, panel, c + r * panel);
      multiply(wide, rows, s->weight + from * s->columns, s->columns, below, read, c);
      if (s->adds)
        for (int64_t e = 0; e < rows * panel; e++) c[e] += stream[from * panel + e];
      if (s->keeps && rows) memcpy(stream + from * panel, c, rows * panel * sizeof(REAL));
      if (s->acts) activate((int)p->activation, rows * panel, c);
      below = layer, read = s->known[place + 1], layer += s->rows * panel;
    }
    for (int64_t j = 0; j < p->parameters; j++) begin(last, j * p->places + place, first, count, panel, raw + j * panel);
    multiply(wide, p->parameters, last->weight + place * last->columns, p->places * last->columns, below, read, raw);
    for (int64_t e = 0; e < panel; e++) value[e] = e < count ? z[place * p->batch + first + e] : 0;
    invert(p, panel, raw, value, logs);
    for (int64_t e = 0; e < panel; e++) {
      const REAL most = (REAL)p->seen, v = value[e];
      seen[place * panel + e] = v > most ? most : v < -most ? -most : v;
    }
    memcpy(x + place * p->batch + first, value, count * sizeof(REAL));
    memcpy(slope + place * p->batch + first, logs, count * sizeof(REAL));
  }
}

/* z, x and log f' are (places, batch); 1 if there is no memory. */
int run(const Solve *p, const REAL *z, REAL *x, REAL *slope) {
  const int64_t each = (p->batch + p->threads - 1) / p->threads, vectors = (each + LANES - 1) / LANES;
  const int64_t wide = vectors < WIDE ? vectors : WIDE, panel = wide * LANES, panels = (p->batch + panel - 1) / panel;
  int64_t size = p->places + 2 + p->parameters + p->stage[0].rows;
  for (int64_t k = 0; k + 1 < p->stages; k++) size += p->stage[k].rows;
  int failed = 0;
#pragma omp parallel num_threads(p->threads) if (p->threads > 1)
  {
    REAL *room = aligned_alloc(64, (size * panel * sizeof(REAL) + 63) / 64 * 64);
    if (room == NULL) {
#pragma omp atomic write
      failed = 1;
    }
#pragma omp for schedule(dynamic)
    for (int64_t k = 0; k < panels; k++) {
      const int64_t first = k * panel, count = p->batch - first < panel ? p->batch - first : panel;
      if (room != NULL) solve(p, first, count, wide, room, z, x, slope);
    }
    free(room);
  }
  return failed;
}
