/* Monotone rational-quadratic splines (Durkan et al. 2019, eq. 4-8): values, log-slopes and their gradients.

   Compiled once for each floating type (REAL). Elements are taken in tiles: the parameters of a tile are gathered into
   rows of TILE values, so that every loop below runs over a whole row and vectorises whatever the caller's strides.

   For an element with raw parameters r and share s_j = softmax(r)_j, the sizes of the bins are
   2 bound (smallest + (1 - K smallest) s_j) and the slopes exp(steepest tanh(r / steepest)). */

#include <math.h>
#include <stdint.h>
#include <string.h>

#define TILE 32
#define LOOP for (int e = 0; e < TILE; e++)

typedef struct {
  int64_t outer, inner;                /* elements are (outer, inner) */
  int64_t value_outer, value_inner;    /* strides of x and of all else with a value for each element */
  int64_t raw_first, raw_outer, raw_inner;
  int64_t grad_first, grad_outer, grad_inner;
  int64_t bins, periodic, inverse, threads;
  double bound, smallest, steepest;
} Layout;

typedef REAL row[TILE];

#if SINGLE
/* exp, log and tanh by polynomials fitted for relative error (1e-8, 1e-8 and 8e-8 before rounding): the functions of libm
   do not vectorise without options that break NaN and infinity. */
typedef union { REAL real; int32_t bits; } Bits;

static inline REAL exponential(REAL x) {
  x = x < -87.0f ? -87.0f : x;
  x = x > 88.0f ? 88.0f : x;
  REAL n = rintf(x * 1.44269504f);
  REAL r = (x - n * 0.693359375f) + n * 2.12194440e-4f; /* log 2 in two parts, the first exact */
  REAL p = 0.00139529701f;
  p = p * r + 0.00837032157f;
  p = p * r + 0.041666168f;
  p = p * r + 0.166665067f;
  p = p * r + 0.500000011f;
  Bits scale;
  scale.bits = ((int32_t)n + 127) << 23;
  return (1.0f + (r + r * r * p)) * scale.real;
}

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
  return m + (p * m * z - 0.5f * z - (REAL)n * 2.12194440e-4f) + (REAL)n * 0.693359375f;
}

static inline REAL hyperbolic(REAL x) {
  REAL far = 1.0f - 2.0f / (exponential(2.0f * x) + 1.0f), z = x * x;
  REAL near = ((0.0156404611f * z - 0.0522310928f) * z + 0.133135204f) * z - 0.333326216f;
  return z < 0.36f ? x + x * z * near : far;
}
#define ROOT sqrtf
#else
#define exponential exp
#define logarithm log
#define hyperbolic tanh
#define ROOT sqrt
#endif

/* What a tile needs of its bins: knots, shares and slopes of the piece that holds each element. */
typedef struct {
  row x, left, width, bottom, height, start, end, bent_start, bent_end;
  row share[2], before[2], norm[2];
  int32_t bin[TILE];
  int32_t inside[TILE];
} Piece;

/* Whether a whole tile lies in order, without gaps. Its ends alone do not say: (2, 16) with strides (1, 2) has the same. */
static inline int together(const int64_t *place, int64_t count) {
  int all = count == TILE;
  for (int64_t e = 0; e < count; e++) all &= place[e] == place[0] + e;
  return all;
}

static inline void gather(const REAL *from, const int64_t *place, int64_t count, int whole, REAL *to) {
  if (whole)
    memcpy(to, from + place[0], TILE * sizeof(REAL));
  else {
    for (int64_t e = 0; e < count; e++) to[e] = from[place[e]];
    for (int64_t e = count; e < TILE; e++) to[e] = 0;
  }
}

static inline void scatter(const REAL *from, const int64_t *place, int64_t count, int whole, REAL *to) {
  if (whole)
    memcpy(to + place[0], from, TILE * sizeof(REAL));
  else
    for (int64_t e = 0; e < count; e++) to[place[e]] = from[e];
}

/* Places of the elements of a tile, and how many there are. */
static inline int64_t places(const Layout *l, int64_t tile, int64_t outer, int64_t inner, int64_t *place) {
  const int64_t first = tile * TILE, total = l->outer * l->inner, count = total - first < TILE ? total - first : TILE;
  int64_t o = first / l->inner, i = first % l->inner;
  for (int64_t e = 0; e < count; e++) {
    place[e] = o * outer + i * inner;
    if (++i == l->inner) i = 0, o++;
  }
  return count;
}

/* The piece of one side, by a search (side == search) or by its index; exponentials of the raw sizes in place of them.
   What only gradients need is kept with grad. */
static inline void sizes(row *restrict raw, const Layout *l, const int side, const int search, const int grad,
                         const REAL *restrict at, Piece *restrict p) {
  const int bins = (int)l->bins;
  const REAL bound = (REAL)l->bound, small = (REAL)(2 * l->bound * l->smallest);
  const REAL room = (REAL)(2 * l->bound * (1 - l->bins * l->smallest));
  row most, sum, run, ran, low, high;
  LOOP most[e] = raw[0][e];
  for (int j = 1; j < bins; j++) LOOP most[e] = raw[j][e] > most[e] ? raw[j][e] : most[e];
  LOOP sum[e] = 0;
  for (int j = 0; j < bins; j++) LOOP {
    raw[j][e] = exponential(raw[j][e] - most[e]);
    sum[e] += raw[j][e];
  }
  LOOP { sum[e] = 1 / sum[e]; run[e] = low[e] = -bound; ran[e] = 0; high[e] = bound; }
  if (grad) LOOP p->norm[side][e] = sum[e];
  for (int j = 0; j < bins; j++) {
    const REAL *restrict size = raw[j];
    int32_t *restrict bin = p->bin;
    if (side == search)
      LOOP { /* the last piece whose knot is not above */
        REAL next = run[e] + (small + room * size[e] * sum[e]);
        int32_t here = at[e] >= run[e];
        low[e] = here ? run[e] : low[e];
        high[e] = here ? next : high[e];
        bin[e] = here ? j : bin[e];
        run[e] = next;
      }
    else
      LOOP {
        REAL next = run[e] + (small + room * size[e] * sum[e]);
        int32_t here = bin[e] == j;
        low[e] = here ? run[e] : low[e];
        high[e] = here ? next : high[e];
        run[e] = next;
      }
  }
  LOOP high[e] = p->bin[e] == bins - 1 ? bound : high[e]; /* a running sum would miss the end */
  if (grad)
    for (int j = 0; j < bins; j++) LOOP {
      REAL share = raw[j][e] * sum[e];
      p->share[side][e] = p->bin[e] == j ? share : p->share[side][e];
      p->before[side][e] += j < p->bin[e] ? share : 0;
    }
  if (side == 0)
    LOOP { p->left[e] = low[e]; p->width[e] = high[e] - low[e]; }
  else
    LOOP { p->bottom[e] = low[e]; p->height[e] = high[e] - low[e]; }
}

/* Rows of raw slopes at the start and at the end of bin j; -1 for an end of slope 1. */
static inline int start_row(const Layout *l, int j) { return l->periodic ? j : j - 1; }
static inline int end_row(const Layout *l, int j) {
  if (l->periodic) return (j + 1) % (int)l->bins;
  return j == l->bins - 1 ? -1 : j;
}

static inline void locate(row *raw, const Layout *l, const int search, const int grad, const row at, Piece *p) {
  const int bins = (int)l->bins;
  const REAL bound = (REAL)l->bound, steep = (REAL)l->steepest;
  row safe, start, end;
  LOOP p->inside[e] = l->periodic || (at[e] > -bound && at[e] < bound);
  LOOP { safe[e] = at[e] < -bound ? -bound : at[e]; safe[e] = safe[e] > bound ? bound : safe[e]; }
  LOOP { p->bin[e] = 0; p->share[0][e] = p->share[1][e] = p->before[0][e] = p->before[1][e] = 0; }
  sizes(raw + search * bins, l, search, search, grad, safe, p);
  sizes(raw + (1 - search) * bins, l, 1 - search, search, grad, safe, p);
  LOOP { start[e] = end[e] = 0; p->x[e] = safe[e]; }
  for (int j = 0; j < bins; j++) {
    const int a = start_row(l, j), b = end_row(l, j);
    if (a >= 0) LOOP start[e] = p->bin[e] == j ? raw[2 * bins + a][e] : start[e];
    if (b >= 0) LOOP end[e] = p->bin[e] == j ? raw[2 * bins + b][e] : end[e];
  }
  LOOP { p->bent_start[e] = hyperbolic(start[e] / steep); p->bent_end[e] = hyperbolic(end[e] / steep); }
  LOOP { p->start[e] = exponential(steep * p->bent_start[e]); p->end[e] = exponential(steep * p->bent_end[e]); }
}

static void forward_tile(const Layout *l, int64_t tile, const REAL *x, const REAL *raw, REAL *y, REAL *slope) {
  const int rows = (int)(l->periodic ? 3 * l->bins : 3 * l->bins - 1);
  int64_t value[TILE], place[TILE];
  row all[rows], at, out, logs;
  Piece p;
  int64_t count = places(l, tile, l->value_outer, l->value_inner, value);
  places(l, tile, l->raw_outer, l->raw_inner, place);
  const int values = together(value, count), raws = together(place, count);
  gather(x, value, count, values, at);
  for (int j = 0; j < rows; j++) gather(raw + j * l->raw_first, place, count, raws, all[j]);
  if (l->inverse)
    locate(all, l, 1, 0, at, &p);
  else
    locate(all, l, 0, 0, at, &p);
  LOOP {
    REAL s = p.height[e] / p.width[e], bend = p.start[e] + p.end[e] - 2 * s, q, moved;
    if (l->inverse) {
      REAL rise = p.x[e] - p.bottom[e];
      REAL a = p.height[e] * (s - p.start[e]) + rise * bend;
      REAL b = p.height[e] * p.start[e] - rise * bend;
      REAL d = b * b + 4 * a * s * rise;
      q = 2 * s * rise / (b + ROOT(d < 0 ? 0 : d));
      q = q < 0 ? 0 : q;
      q = q > 1 ? 1 : q;
      /* One step of Newton gives back the digits that the discriminant lost where slopes differ much. */
      REAL over = 1 / (s + bend * q * (1 - q)), up = (s * q * q + p.start[e] * q * (1 - q)) * over;
      REAL speed = p.end[e] * q * q + 2 * s * q * (1 - q) + p.start[e] * (1 - q) * (1 - q);
      q -= (up - rise / p.height[e]) / (s * speed * over * over);
    } else
      q = (p.x[e] - p.left[e]) / p.width[e];
    q = q < 0 ? 0 : q;
    q = q > 1 ? 1 : q;
    REAL t = 1 - q, den = s + bend * q * t;
    REAL num = p.end[e] * q * q + 2 * s * q * t + p.start[e] * t * t;
    if (l->inverse)
      moved = p.left[e] + q * p.width[e];
    else
      moved = p.bottom[e] + p.height[e] * (s * q * q + p.start[e] * q * t) / den;
    REAL ratio = s / den;
    out[e] = p.inside[e] ? moved : at[e];
    logs[e] = p.inside[e] ? logarithm(ratio * ratio * num) : 0;
  }
  scatter(out, value, count, values, y);
  scatter(logs, value, count, values, slope);
}

/* Gradients of a loss with respect to x and raw, given those with respect to y and the log-slope. For the inverse, x is
   what it returned, grad_y the gradient with respect to that, and what is written to grad_x belongs to its argument. */
static void backward_tile(const Layout *l, int64_t tile, const REAL *x, const REAL *raw, const REAL *grad_y,
                          const REAL *grad_slope, REAL *grad_x, REAL *grad_raw) {
  const int bins = (int)l->bins, rows = l->periodic ? 3 * bins : 3 * bins - 1;
  const REAL room = (REAL)(2 * l->bound * (1 - l->bins * l->smallest));
  int64_t value[TILE], place[TILE], target[TILE];
  row all[rows], at, gy, gl, gx, g_low[2], g_size[2], g_start, g_end, g;
  Piece p;
  int64_t count = places(l, tile, l->value_outer, l->value_inner, value);
  places(l, tile, l->raw_outer, l->raw_inner, place);
  places(l, tile, l->grad_outer, l->grad_inner, target);
  const int values = together(value, count), raws = together(place, count), targets = together(target, count);
  gather(x, value, count, values, at);
  gather(grad_y, value, count, values, gy);
  gather(grad_slope, value, count, values, gl);
  for (int j = 0; j < rows; j++) gather(raw + j * l->raw_first, place, count, raws, all[j]);
  locate(all, l, 0, 1, at, &p);
  LOOP {
    REAL s = p.height[e] / p.width[e], start = p.start[e], end = p.end[e], bend = start + end - 2 * s;
    REAL q = (p.x[e] - p.left[e]) / p.width[e];
    q = q < 0 ? 0 : q;
    q = q > 1 ? 1 : q;
    REAL t = 1 - q, qt = q * t, over = 1 / (s + bend * qt);
    REAL num = end * q * q + 2 * s * qt + start * t * t, under = 1 / num;
    REAL rise = (s * q * q + start * qt) * over, speed = s * num * over * over; /* d rise / d q */
    REAL l_q = (2 * end * q + 2 * s * (1 - 2 * q) - 2 * start * t) * under - 2 * bend * (1 - 2 * q) * over;
    REAL u = gy[e], v = gl[e], back = 0;
    if (l->inverse) {
      back = (u + v * l_q / p.width[e]) / (s * speed);
      u = -back;
    }
    REAL up = u * p.height[e];
    REAL g_s = up * (q * q - rise * (1 - 2 * qt)) * over + v * (2 / s + 2 * qt * under - 2 * (1 - 2 * qt) * over);
    REAL g_q = (up * speed + v * l_q) / p.width[e];
    REAL keep = p.inside[e] ? 1 : 0;
    gx[e] = p.inside[e] ? (l->inverse ? back : g_q) : gy[e];
    g_low[0][e] = -g_q * keep;
    g_size[0][e] = -(g_s * s / p.width[e] + g_q * q) * keep;
    g_low[1][e] = u * keep;
    g_size[1][e] = (u * rise + g_s / p.width[e]) * keep;
    REAL g_a = up * qt * (1 - rise) * over + v * (t * t * under - 2 * qt * over);
    REAL g_b = -up * rise * qt * over + v * (q * q * under - 2 * qt * over);
    g_start[e] = g_a * start * (1 - p.bent_start[e] * p.bent_start[e]) * keep;
    g_end[e] = g_b * end * (1 - p.bent_end[e] * p.bent_end[e]) * keep;
  }
  scatter(gx, value, count, values, grad_x);
  for (int side = 0; side < 2; side++) {
    row mean;
    LOOP mean[e] = g_low[side][e] * p.before[side][e] + g_size[side][e] * p.share[side][e];
    for (int j = 0; j < bins; j++) {
      LOOP {
        REAL part = j < p.bin[e] ? g_low[side][e] : 0;
        part = j == p.bin[e] ? g_size[side][e] : part;
        g[e] = room * all[side * bins + j][e] * p.norm[side][e] * (part - mean[e]);
      }
      scatter(g, target, count, targets, grad_raw + (side * bins + j) * l->grad_first);
    }
  }
  for (int k = 0; k < rows - 2 * bins; k++) {
    LOOP g[e] = 0;
    for (int j = 0; j < bins; j++) {
      if (start_row(l, j) == k) LOOP g[e] += p.bin[e] == j ? g_start[e] : 0;
      if (end_row(l, j) == k) LOOP g[e] += p.bin[e] == j ? g_end[e] : 0;
    }
    scatter(g, target, count, targets, grad_raw + (2 * bins + k) * l->grad_first);
  }
}

void forward(const Layout *l, const REAL *x, const REAL *raw, REAL *y, REAL *slope) {
  const int64_t tiles = (l->outer * l->inner + TILE - 1) / TILE;
#pragma omp parallel for num_threads(l->threads) if (l->threads > 1)
  for (int64_t tile = 0; tile < tiles; tile++) forward_tile(l, tile, x, raw, y, slope);
}

void backward(const Layout *l, const REAL *x, const REAL *raw, const REAL *grad_y, const REAL *grad_slope, REAL *grad_x,
              REAL *grad_raw) {
  const int64_t tiles = (l->outer * l->inner + TILE - 1) / TILE;
#pragma omp parallel for num_threads(l->threads) if (l->threads > 1)
  for (int64_t tile = 0; tile < tiles; tile++) backward_tile(l, tile, x, raw, grad_y, grad_slope, grad_x, grad_raw);
}
