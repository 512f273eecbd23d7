/* A flow as a list of small operations, for few rows, where calling an operation takes longer than computing it
   (kernels/program.py).

   Every row has a workspace of registers, which are arrays at fixed offsets. An operation reads and writes registers. A
   panel of rows executes one operation after the other, so that weights stay in the cache, and matrix products take
   four rows at a time. The result for a row does not depend on the other rows.

   Weights of a linear layer are packed in blocks of outputs: for each input that any output of the block depends on,
   the weights of all outputs of the block are contiguous. So a masked layer whose units are sorted by degree skips most
   zeros. */

#include "activation.h"
#include "spline.h"
#include <stdlib.h>
#include <string.h>

#define GROUP 4                          /* rows of a product */
#define PANEL 32                         /* rows that execute an operation together */
#define LINE ((int)(64 / sizeof(REAL)))  /* widths of blocks are multiples of a line */
#define GROUP_WIDE (BYTES == 64 ? 4 : 2) /* vectors of sums that fit into the registers, for each row of a group */
#define SINGLE_WIDE 8                    /* and for a single row */

enum { GATHER, DIAGONAL, LINEAR, ACTIVATE, ADD, CLAMP, CONSTANT, SHIFT, AFFINE, SPLINE, NORMAL, LOGISTIC };

typedef struct {
  int64_t op, in, out, count, kind; /* in and out are registers; kind is an activation or the number of blocks */
  const REAL *a, *b, *c;
  const int64_t *index;
  const SplineLayout *spline;
  double p;
} Op;

typedef struct {
  int64_t ops, size, features, context; /* size: of the workspace of a row */
  const Op *op;
  double start; /* contributions that do not depend on the row */
} Program;

/* Outputs of ``rows`` rows, ``wide`` vectors of each, from the inputs low to high. */
static inline __attribute__((always_inline)) void multiply(const int rows, const int wide, const REAL *restrict w,
                                                           const int64_t step, const int64_t low, const int64_t high,
                                                           const REAL *restrict bias, const REAL *restrict in,
                                                           REAL *restrict out, const int64_t size) {
  vec sum[rows][wide];
  for (int r = 0; r < rows; r++)
    for (int v = 0; v < wide; v++) sum[r][v] = *(const vec *)(bias + v * LANES);
  for (int64_t i = low; i < high; i++, w += step)
    for (int v = 0; v < wide; v++)
      for (int r = 0; r < rows; r++) sum[r][v] += *(const vec *)(w + v * LANES) * in[r * size + i];
  for (int r = 0; r < rows; r++)
    for (int v = 0; v < wide; v++) *(vec *)(out + r * size + v * LANES) = sum[r][v];
}

/* A block of ``width`` outputs, as many vectors at a time as fit into the registers. */
static inline __attribute__((always_inline)) void multiply_block(const int rows, const int64_t width, const REAL *w,
                                                                 const int64_t low, const int64_t high,
                                                                 const REAL *bias, const REAL *in, REAL *out,
                                                                 const int64_t size) {
  const int64_t most = rows == GROUP ? GROUP_WIDE : SINGLE_WIDE;
  for (int64_t first = 0, wide; first < width; first += wide * LANES) { /* width is a power of 2 */
    wide = (width - first) / LANES < most ? (width - first) / LANES : most;
#define MULTIPLY(WIDE) multiply(rows, WIDE, w + first, width, low, high, bias + first, in, out + first, size)
    switch (wide) {
      case 8: if (rows == 1) MULTIPLY(8); break;
      case 4: MULTIPLY(4); break;
      case 2: MULTIPLY(2); break;
      default: MULTIPLY(1);
    }
#undef MULTIPLY
  }
}

/* Products for a panel: groups of four rows, and ``last`` rows (1 or 4) in the last group.
   index: for each block its width in lines (8, 4, 2 or 1), and the range of inputs that it depends on. */
static void linear(const Op *o, const int64_t groups, const int last, REAL *s, const int64_t size) {
  const REAL *w = o->a, *bias = o->b;
  int64_t column = 0;
  for (int64_t k = 0; k < o->kind; k++) {
    const int64_t width = o->index[3 * k] * LINE, low = o->index[3 * k + 1], high = o->index[3 * k + 2];
    for (int64_t g = 0; g < groups; g++) {
      const REAL *in = s + g * GROUP * size + o->in;
      REAL *out = s + g * GROUP * size + o->out + column;
      if (g + 1 < groups || last == GROUP || width == LINE) /* one row of a narrow block takes as long as four */
        multiply_block(GROUP, width, w, low, high, bias, in, out, size);
      else
        multiply_block(1, width, w, low, high, bias, in, out, size);
    }
    w += width * (high - low);
    bias += width;
    column += width;
  }
}

/* One operation for one row. Returns what it adds to the log-likelihood of the row. */
static __attribute__((noinline)) double each(const Op *o, REAL *s) {
  REAL *in = s + o->in, *out = s + o->out;
  const int64_t n = o->count;
  double total = 0;
  switch (o->op) {
    case GATHER: for (int64_t i = 0; i < n; i++) out[i] = in[o->index[i]]; break;
    case DIAGONAL: for (int64_t i = 0; i < n; i++) out[i] = (in[i] - o->b[i]) * o->a[i] + o->c[i]; break;
    case ACTIVATE: activate((int)o->kind, n, out); break;
    case ADD: for (int64_t i = 0; i < n; i++) out[i] += in[i]; break;
    case CLAMP: {
      const REAL most = (REAL)o->p;
      for (int64_t i = 0; i < n; i++) out[i] = in[i] > most ? most : in[i] < -most ? -most : in[i];
      break;
    }
    case CONSTANT: memcpy(out, o->a, n * sizeof(REAL)); break;
    /* Elementwise transforms: raw parameters in ``in``, coordinates index[] of ``out``. */
    case SHIFT: for (int64_t i = 0; i < n; i++) out[o->index[i]] += in[i]; break;
    case AFFINE: {
      const REAL bound = (REAL)o->p;
      for (int64_t i = 0; i < n; i++) {
        const REAL raw = in[n + i], scale = raw / (1 + (raw < 0 ? -raw : raw) / bound);
        out[o->index[i]] = out[o->index[i]] * exponential(scale) + in[i];
        total += scale;
      }
      break;
    }
    case NORMAL:
      for (int64_t i = 0; i < n; i++) total += (double)((REAL)-0.5 * in[i] * in[i]);
      total -= n * 0.91893853320467274;
      break;
    case LOGISTIC:
      for (int64_t i = 0; i < n; i++) {
        const double far = fabs((double)in[i]);
        total -= far + 2 * log1p(exp(-far));
      }
  }
  return total;
}

/* The spline for a panel of rows, as many rows at a time as fill some vectors. */
static __attribute__((noinline)) void splines(const Op *o, const int64_t count, REAL *s, const int64_t size,
                                              double *total) {
  const int64_t n = o->count, most = n < 128 ? 128 / n : 1; /* compiled/lowering.py limits n to 4,096 */
  REAL x[most * n], y[most * n], log_slope[most * n];
  SplineLayout l = *o->spline;
  l.inner = l.value_outer = l.raw_first = n;
  l.raw_outer = size;
  for (int64_t first = 0; first < count; first += most) {
    l.outer = count - first < most ? count - first : most;
    REAL *at = s + first * size, *out = at + o->out;
    for (int64_t r = 0; r < l.outer; r++)
      for (int64_t i = 0; i < n; i++) x[r * n + i] = out[r * size + o->index[i]];
    for (int64_t tile = 0; tile * TILE < l.outer * n; tile++) forward_tile(&l, tile, x, at + o->in, y, log_slope);
    for (int64_t r = 0; r < l.outer; r++)
      for (int64_t i = 0; i < n; i++) {
        out[r * size + o->index[i]] = y[r * n + i];
        total[first + r] += log_slope[r * n + i];
      }
  }
}

/* ``count`` rows of a panel. If the last group has two or three rows, copies of its first row fill it. */
static void run_panel(const Program *p, const int64_t count, const REAL *x, const REAL *context, REAL *s, REAL *out) {
  double total[PANEL];
  const int64_t groups = (count + GROUP - 1) / GROUP, first = (groups - 1) * GROUP;
  const int last = count - first == 1 ? 1 : GROUP;
  for (int64_t r = 0; r < first + last; r++) {
    const int64_t from = r < count ? r : first;
    total[r] = p->start;
    memcpy(s + r * p->size, x + from * p->features, p->features * sizeof(REAL));
    memcpy(s + r * p->size + p->features, context + from * p->context, p->context * sizeof(REAL));
  }
  for (const Op *o = p->op; o < p->op + p->ops; o++)
    if (o->op == LINEAR)
      linear(o, groups, last, s, p->size);
    else if (o->op == SPLINE)
      splines(o, count, s, p->size, total);
    else
      for (int64_t r = 0; r < count; r++) total[r] += each(o, s + r * p->size);
  for (int64_t r = 0; r < count; r++) out[r] = (REAL)total[r];
}

/* Log-likelihoods of rows. Returns 0; or 1 if a number of x or context is not finite, or 2 if there is no memory,
   without writing anything. */
int EXPORT(program_run)(const Program *p, int64_t rows, int64_t threads, const REAL *x, const REAL *context,
                        REAL *out) {
  for (int64_t i = 0; i < rows * p->features; i++)
    if (!isfinite(x[i])) return 1;
  for (int64_t i = 0; i < rows * p->context; i++)
    if (!isfinite(context[i])) return 1;
  int64_t panel = (rows / threads + GROUP - 1) / GROUP * GROUP; /* at least one panel for each thread */
  panel = panel < GROUP ? GROUP : panel > PANEL ? PANEL : panel;
  const int64_t panels = (rows + panel - 1) / panel;
  const int64_t bytes = (panel * p->size * (int64_t)sizeof(REAL) + 63) / 64 * 64;
  int failed = 0;
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    REAL *s = aligned_alloc(64, bytes);
    if (s == NULL) {
#pragma omp atomic write
      failed = 2;
    } else
      memset(s, 0, bytes);
#pragma omp for
    for (int64_t k = 0; k < panels; k++) {
      const int64_t first = k * panel, count = rows - first < panel ? rows - first : panel;
      if (s != NULL) run_panel(p, count, x + first * p->features, context + first * p->context, s, out + first);
    }
    free(s);
  }
  return failed;
}
