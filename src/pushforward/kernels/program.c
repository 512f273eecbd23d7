/* A flow as a list of small operations, run row by row: for few rows, where calling an operation costs more than doing it.

   Every row has a workspace of registers (arrays at fixed places); an operation reads and writes registers. A panel of rows
   takes one operation after the other, so that weights stay near, and in products rows go four at a time. Each row's
   arithmetic is the same however many came with it.

   Weights of a linear layer are packed in blocks of outputs: for each input that any of the block's outputs sees, the
   weights of all of them lie together. A masked layer whose units are sorted by degree so skips most of its zeros. */

#include "activation.h"
#include "spline.h"
#include <stdlib.h>

#define GROUP 4
#define PANEL 32
#define PACKED ((int)(64 / sizeof(REAL)))
typedef REAL line __attribute__((vector_size(64)));

enum { GATHER, DIAGONAL, LINEAR, ROWS, ACTIVATE, ADD, CLAMP, CONSTANT, SHIFT, AFFINE, SPLINE, NORMAL, LOGISTIC };

typedef struct {
  int64_t op, in, out, count, kind; /* in and out are registers, kind an activation or the number of blocks */
  const REAL *a, *b, *c;
  const int64_t *index;
  const SplineLayout *spline;
  double p;
} Op;

typedef struct {
  int64_t ops, room, features, context;
  const Op *op;
  double start; /* contributions that do not depend on the row */
} Program;

static inline __attribute__((always_inline)) void block(const int rows, const int wide, const int step,
                                                        const line *restrict w, const int64_t low, const int64_t high,
                                                        const REAL *restrict bias, const REAL *restrict in,
                                                        REAL *restrict out, const int64_t room) {
  line sum[rows][wide];
  for (int r = 0; r < rows; r++)
    for (int v = 0; v < wide; v++) sum[r][v] = ((const line *)bias)[v];
  for (int64_t i = low; i < high; i++, w += step)
    for (int v = 0; v < wide; v++)
      for (int r = 0; r < rows; r++) sum[r][v] += w[v] * in[r * room + i];
  for (int r = 0; r < rows; r++)
    for (int v = 0; v < wide; v++) ((line *)(out + r * room))[v] = sum[r][v];
}

/* Products for a panel of rows: groups of four, and ``last`` rows (1 or 4) in the last of them.
   index: for each block its width in vectors (8, 4, 2 or 1) and the range of inputs that it sees. */
static void linear(const Op *o, const int64_t groups, const int last, REAL *s, const int64_t room) {
  const line *w = (const line *)o->a;
  const REAL *bias = o->b;
  int64_t column = 0;
  for (int64_t k = 0; k < o->kind; k++) {
    const int wide = (int)o->index[3 * k];
    const int64_t low = o->index[3 * k + 1], high = o->index[3 * k + 2];
    for (int64_t g = 0; g < groups; g++) {
      const int rows = g + 1 < groups ? GROUP : last;
      const REAL *in = s + g * GROUP * room + o->in;
      REAL *out = s + g * GROUP * room + o->out + column;
#define CASE(R, W) block(R, W, wide, w, low, high, bias, in, out, room)
      if (rows == GROUP || wide == 1) switch (wide) { /* narrow blocks cost the same for four, and round the same so */
        case 8: CASE(GROUP, 4); block(GROUP, 4, 8, w + 4, low, high, bias + 4 * PACKED, in, out + 4 * PACKED, room); break;
        case 4: CASE(GROUP, 4); break;
        case 2: CASE(GROUP, 2); break;
        default: CASE(GROUP, 1);
      } else switch (wide) {
        case 8: CASE(1, 8); break;
        case 4: CASE(1, 4); break;
        default: CASE(1, 2);
      }
    }
    w += wide * (high - low);
    bias += wide * PACKED;
    column += wide * PACKED;
  }
}

/* n <= LANES weights, and 0 behind them; reads no further than ``end``. */
static inline vec few(const REAL *w, const int64_t n, const REAL *end) {
  vec v = {0};
  if (w + LANES > end) {
    memcpy(&v, w, n * sizeof(REAL));
    return v;
  }
  bits lane;
  for (int e = 0; e < LANES; e++) lane[e] = e;
  return pick(lane < (bits){0} + (int)n, *(const vec *)w, v);
}

typedef REAL half __attribute__((vector_size(BYTES / 2), aligned(sizeof(REAL)), may_alias));
static inline REAL across(const vec v) {
  half sum[2];
  memcpy(sum, &v, sizeof v);
  sum[0] += sum[1];
  REAL part[LANES / 2];
  memcpy(part, sum, sizeof part);
  for (int n = LANES / 4; n; n /= 2)
    for (int e = 0; e < n; e++) part[e] += part[e + n];
  return part[0];
}

/* ``outputs`` rows of n weights, ``ahead`` of each other, times the inputs of each row of data. What lies behind the inputs meets
   no weight. The sums are the same, in the same order, for any number of rows and outputs. */
static inline __attribute__((always_inline)) void dots(const int outputs, const int rows, const REAL *w, const int64_t ahead,
                                                       const int64_t n, const REAL *end, const REAL *in,
                                                       const int64_t room, const REAL *bias, REAL *out) {
  vec even[outputs][rows], odd[outputs][rows];
  for (int k = 0; k < outputs; k++)
    for (int r = 0; r < rows; r++) even[k][r] = odd[k][r] = (vec){0};
  int64_t i = 0;
  for (; i + 2 * LANES <= n; i += 2 * LANES)
    for (int k = 0; k < outputs; k++)
      for (int r = 0; r < rows; r++) {
        even[k][r] += *(const vec *)(w + k * ahead + i) * *(const vec *)(in + r * room + i);
        odd[k][r] += *(const vec *)(w + k * ahead + i + LANES) * *(const vec *)(in + r * room + i + LANES);
      }
  for (; i < n; i += LANES) {
    const int64_t left = n - i < LANES ? n - i : LANES;
    for (int k = 0; k < outputs; k++) {
      const vec some = few(w + k * ahead + i, left, end);
      for (int r = 0; r < rows; r++) even[k][r] += some * few(in + r * room + i, left, in + r * room + i + LANES);
    }
  }
  for (int k = 0; k < outputs; k++)
    for (int r = 0; r < rows; r++) out[r * room + k] = (bias ? bias[k] : 0) + across(even[k][r] + odd[k][r]);
}

/* index: for each output the range of inputs that it sees; kind: inputs; p: whether outputs of one row may go four at a time,
   as one alone has too little to do while it waits. Weights and biases lie where their owner has them. */
static void matrix(const Op *o, const int64_t groups, const int last, REAL *s, const int64_t room) {
  const REAL *end = o->a + o->count * o->kind;
  const int four = o->p > 0 && groups == 1 && last == 1;
  for (int64_t k = 0, step; k < o->count; k += step) {
    const int64_t *seen = o->index + 2 * k, low = seen[0], n = seen[1] - low;
    step = four && k + 4 <= o->count ? 4 : 1;
    for (int64_t other = 1; other < step; other++) /* all four must see the same */
      if (seen[2 * other] != low || seen[2 * other + 1] != seen[1]) step = 1;
    const REAL *w = o->a + k * o->kind + low, *bias = o->b ? o->b + k : NULL;
    for (int64_t g = 0; g < groups; g++) {
      const REAL *in = s + g * GROUP * room + o->in + low;
      REAL *out = s + g * GROUP * room + o->out + k;
#define DOTS(K, R) dots(K, R, w, o->kind, n, end, in, room, bias, out)
      if (g + 1 < groups || last == GROUP)
        DOTS(1, GROUP);
      else if (step == 4)
        DOTS(4, 1);
      else
        DOTS(1, 1);
    }
  }
}

/* One operation for one row; what it adds to the row's log-likelihood. */
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
    /* Laws: raw parameters in ``in``, coordinates index[] of ``out``. */
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

/* The spline for a panel of rows, as many at a time as fill some vectors. */
static __attribute__((noinline)) void splines(const Op *o, const int64_t count, REAL *s, const int64_t room, double *total) {
  const int64_t n = o->count, most = n < 128 ? 128 / n : 1; /* n is no more than 4,096, which the program's writer sees to */
  REAL x[most * n], y[most * n], slope[most * n];
  SplineLayout law = *o->spline;
  law.inner = law.value_outer = law.raw_first = n;
  law.raw_outer = room;
  for (int64_t first = 0; first < count; first += most) {
    law.outer = count - first < most ? count - first : most;
    REAL *at = s + first * room, *out = at + o->out;
    for (int64_t r = 0; r < law.outer; r++)
      for (int64_t i = 0; i < n; i++) x[r * n + i] = out[r * room + o->index[i]];
    for (int64_t tile = 0; tile * TILE < law.outer * n; tile++) forward_tile(&law, tile, x, at + o->in, y, slope);
    for (int64_t r = 0; r < law.outer; r++)
      for (int64_t i = 0; i < n; i++) {
        out[r * room + o->index[i]] = y[r * n + i];
        total[first + r] += slope[r * n + i];
      }
  }
}

/* ``count`` rows of a panel; the rest of the last group, if it has more than one, repeats the first of it. */
static void some(const Program *p, const int64_t count, const REAL *x, const REAL *context, REAL *s, REAL *out) {
  double total[PANEL];
  const int64_t groups = (count + GROUP - 1) / GROUP, first = (groups - 1) * GROUP;
  const int last = count - first == 1 ? 1 : GROUP;
  for (int64_t r = 0; r < first + last; r++) {
    const int64_t from = r < count ? r : first;
    total[r] = p->start;
    memcpy(s + r * p->room, x + from * p->features, p->features * sizeof(REAL));
    memcpy(s + r * p->room + p->features, context + from * p->context, p->context * sizeof(REAL));
  }
  for (const Op *o = p->op; o < p->op + p->ops; o++)
    if (o->op == LINEAR)
      linear(o, groups, last, s, p->room);
    else if (o->op == ROWS)
      matrix(o, groups, last, s, p->room);
    else if (o->op == SPLINE)
      splines(o, count, s, p->room, total);
    else
      for (int64_t r = 0; r < count; r++) total[r] += each(o, s + r * p->room);
  for (int64_t r = 0; r < count; r++) out[r] = (REAL)total[r];
}

/* A matrix as it lies with its owner, and where it is to lie for ``linear``. */
typedef struct {
  const REAL *weight, *bias;
  int64_t rows, columns, blocks;
  const int64_t *seen, *block;
  REAL *packed, *biases;
} Pack;

static inline void put(const Pack *p, const int64_t row, const int64_t from, const int64_t to, REAL *at, const int64_t width) {
  for (int64_t i = from; i < to; i++) at[i * width] = p->weight[row * p->columns + i];
}

/* What no row sees was 0 from the start. As many rows together as a line has numbers: alone, each would touch as many lines. */
void EXPORT(program_pack)(const Pack *all, int64_t count) {
  for (const Pack *p = all; p < all + count; p++) {
    REAL *to = p->packed;
    int64_t row = 0;
    for (int64_t k = 0; k < p->blocks; k++) {
      const int64_t width = p->block[3 * k] * PACKED, low = p->block[3 * k + 1], high = p->block[3 * k + 2];
      for (int64_t slab = 0; slab < width && row < p->rows; slab += PACKED) {
        REAL *at = to + slab - low * width;
        const int64_t rows = p->rows - row < PACKED ? p->rows - row : PACKED;
        int64_t from = low, stop = rows < PACKED ? low : high; /* what all of them see */
        for (int64_t e = 0; e < rows; e++) {
          from = p->seen[2 * (row + e)] > from ? p->seen[2 * (row + e)] : from;
          stop = p->seen[2 * (row + e) + 1] < stop ? p->seen[2 * (row + e) + 1] : stop;
        }
        if (stop < from) stop = from;
        const REAL *w = p->weight + row * p->columns;
        for (int64_t i = from; i < stop; i++) {
          line v;
          for (int e = 0; e < PACKED; e++) v[e] = w[e * p->columns + i];
          memcpy(at + i * width, &v, sizeof v);
        }
        for (int64_t e = 0; e < rows; e++, row++) {
          const int64_t first = p->seen[2 * row], last = p->seen[2 * row + 1];
          put(p, row, first, last < from ? last : from, at + e, width);
          put(p, row, first > stop ? first : stop, last, at + e, width);
          p->biases[row] = p->bias ? p->bias[row] : 0;
        }
      }
      to += width * (high - low);
    }
  }
}

/* Whether memory holds what it did. */
int EXPORT(program_same)(int64_t count, const void *const *now, const void *const *then, const int64_t *bytes) {
  for (int64_t k = 0; k < count; k++)
    if (memcmp(now[k], then[k], bytes[k])) return 0;
  return 1;
}

/* Log-likelihoods of rows; 1 if a number of x or context is not finite, 2 if there is no memory, and then nothing is written. */
int EXPORT(program_run)(const Program *p, int64_t rows, int64_t threads, const REAL *x, const REAL *context, REAL *out) {
  for (int64_t i = 0; i < rows * p->features; i++)
    if (!isfinite(x[i])) return 1;
  for (int64_t i = 0; i < rows * p->context; i++)
    if (!isfinite(context[i])) return 1;
  int64_t panel = (rows / threads + GROUP - 1) / GROUP * GROUP; /* each thread has one at least */
  panel = panel < GROUP ? GROUP : panel > PANEL ? PANEL : panel;
  const int64_t panels = (rows + panel - 1) / panel;
  const int64_t size = panel * p->room * (int64_t)sizeof(REAL) + 64; /* products read past the end */
  int failed = 0;
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    REAL *s = aligned_alloc(64, size);
    if (s == NULL) {
#pragma omp atomic write
      failed = 2;
    } else
      memset(s, 0, size);
#pragma omp for
    for (int64_t k = 0; k < panels; k++) {
      const int64_t first = k * panel, count = rows - first < panel ? rows - first : panel;
      if (s != NULL) some(p, count, x + first * p->features, context + first * p->context, s, out + first);
    }
    free(s);
  }
  return failed;
}
