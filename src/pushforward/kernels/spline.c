/* Monotone rational-quadratic splines (Durkan et al. 2019, eq. 4-8): values, log-slopes and their gradients.

   Compiled once for each floating type (REAL). Elements are taken in tiles: the parameters of a tile are gathered into
   vectors of TILE values, whatever the caller's strides, and all below is arithmetic of whole vectors.

   For an element with raw parameters r and share s_j = softmax(r)_j, the sizes of the bins are
   2 bound (smallest + (1 - K smallest) s_j) and the slopes exp(steepest tanh(r / steepest)). */

#include "vector.c"
#include <math.h>
#include <string.h>

#define TILE (BYTES / (int)sizeof(REAL))

typedef struct {
  int64_t outer, inner;                /* elements are (outer, inner) */
  int64_t value_outer, value_inner;    /* strides of x and of all else with a value for each element */
  int64_t raw_first, raw_outer, raw_inner;
  int64_t grad_first, grad_outer, grad_inner;
  int64_t bins, periodic, inverse, threads;
  double bound, smallest, steepest;
} Layout;

#if SINGLE
/* exp, log and tanh by polynomials fitted for relative error (1e-8, 1e-8 and 8e-8 before rounding): the functions of libm
   do not vectorise without options that break NaN and infinity. */
typedef union { REAL real; int32_t bits; } Bits;

static inline REAL bounded_exponential(REAL x) { /* x < 88 */
  x = x < -87.0f ? -87.0f : x;
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
#define bounded_exponential exp
#define logarithm log
#define hyperbolic tanh
#define ROOT sqrt
#endif

/* What a tile needs of its bins: knots, shares and slopes of the piece that holds each element. */
typedef struct {
  vec x, low[2], size[2], norm[2], start, end, bent_start, bent_end; /* sides: x and y */
  bits bin, inside;
} Piece;

static inline vec pick(const bits which, const vec yes, const vec no) {
  return (vec)(((bits)yes & which) | ((bits)no & ~which));
}

static inline vec all(const REAL x) { return (vec){0} + x; }

static inline vec within(const vec x, const REAL low, const REAL high) {
  const vec above = pick(x < low, all(low), x);
  return pick(above > high, all(high), above);
}

#define EACH(name, function)                                    \
  static inline vec name(const vec x) {                         \
    vec y;                                                      \
    for (int e = 0; e < TILE; e++) y[e] = function(x[e]);       \
    return y;                                                   \
  }
EACH(exponentials, bounded_exponential)
EACH(logarithms, logarithm)
EACH(hyperbolics, hyperbolic)
EACH(roots, ROOT)

/* Where the elements of a tile lie: those from edge[r] to edge[r + 1] at from[r] + e * step. */
typedef struct {
  int64_t count, runs, step, from[TILE];
  int32_t edge[TILE + 1];
} Places;

static inline void places(const Layout *l, int64_t tile, int64_t outer, int64_t inner, Places *at) {
  const int64_t first = tile * TILE, total = l->outer * l->inner;
  at->count = total - first < TILE ? total - first : TILE;
  at->runs = 0, at->step = inner;
  int64_t o = first / l->inner, i = first % l->inner;
  for (int64_t e = 0; e < at->count; o++) {
    const int64_t from = o * outer + (i - e) * inner;
    if (!at->runs || inner != 1 || at->from[at->runs - 1] != from) { /* else it goes on without a gap */
      at->edge[at->runs] = (int32_t)e;
      at->from[at->runs++] = from;
    }
    e += l->inner - i;
    i = 0;
  }
  at->edge[at->runs] = (int32_t)at->count;
}

/* ``rows`` times n <= TILE values, rows apart by ``ahead`` and ``behind``: each in two pieces of fixed size that may overlap. */
static inline void copy(REAL *restrict to, const REAL *restrict from, int64_t n, int64_t rows, int64_t ahead, int64_t behind) {
#define PIECES(N)                                                             \
  for (; rows--; to += ahead, from += behind) {                               \
    REAL head[N], tail[N];                                                    \
    memcpy(head, from, sizeof head), memcpy(tail, from + n - N, sizeof tail); \
    memcpy(to, head, sizeof head), memcpy(to + n - N, tail, sizeof tail);     \
  }
  if (n == TILE)
    PIECES(TILE)
  else if (n >= 8)
    PIECES(8)
  else if (n >= 4)
    PIECES(4)
  else if (n >= 2)
    PIECES(2)
  else
    PIECES(1)
#undef PIECES
}

/* ``rows`` rows of values, ``apart`` from each other, as vectors. */
static __attribute__((noinline)) void gather(const REAL *from, const Places *at, int64_t rows, int64_t apart, vec *to) {
  if (at->count < TILE) memset(to, 0, rows * sizeof(vec));
  for (int r = 0; r < at->runs; r++) {
    const int64_t first = at->edge[r], next = at->edge[r + 1];
    if (at->step == 1)
      copy((REAL *)to + first, from + at->from[r] + first, next - first, rows, TILE, apart);
    else if (!at->step && next - first == TILE) /* the same for all */
      for (int64_t j = 0; j < rows; j++) to[j] = all(from[at->from[r] + j * apart]);
    else
      for (int64_t e = first; e < next; e++)
        for (int64_t j = 0; j < rows; j++) ((REAL *)(to + j))[e] = from[at->from[r] + e * at->step + j * apart];
  }
}

static __attribute__((noinline)) void scatter(const vec *from, const Places *at, int64_t rows, int64_t apart, REAL *to) {
  for (int r = 0; r < at->runs; r++) {
    const int64_t first = at->edge[r], next = at->edge[r + 1];
    if (at->step == 1)
      copy(to + at->from[r] + first, (const REAL *)from + first, next - first, rows, apart, TILE);
    else
      for (int64_t e = first; e < next; e++)
        for (int64_t j = 0; j < rows; j++) to[at->from[r] + e * at->step + j * apart] = ((const REAL *)(from + j))[e];
  }
}

/* The piece of one side, by a search or by its index; exponentials of the raw sizes in place of them. */
static inline void sizes(vec *raw, const Layout *l, const int side, const int search, Piece *p) {
  const int bins = (int)l->bins;
  const REAL bound = (REAL)l->bound, small = (REAL)(2 * l->bound * l->smallest);
  const REAL room = (REAL)(2 * l->bound * (1 - l->bins * l->smallest));
  raw += side * bins;
  vec most = raw[0], sum = {0};
  for (int j = 1; j < bins; j++) most = pick(raw[j] > most, raw[j], most);
  for (int j = 0; j < bins; j++) {
    raw[j] = exponentials(raw[j] - most);
    sum += raw[j];
  }
  sum = 1 / sum;
  vec run = all(-bound), low = run, high = all(bound);
  bits bin = p->bin;
  for (int j = 0; j < bins; j++) {
    bits here = bin == j;
    if (search) here = p->x >= run; /* in the end the last piece whose knot is not above */
    const vec next = run + (small + room * raw[j] * sum);
    low = pick(here, run, low);
    high = pick(here, next, high);
    if (search) bin = (bin & ~here) | (here & j);
    run = next;
  }
  p->bin = bin, p->norm[side] = sum, p->low[side] = low;
  p->size[side] = pick(bin == bins - 1, all(bound), high) - low; /* a running sum would miss the end */
}

/* The bins that start and end with the raw slope k; ends without one have slope 1. */
static inline int starts(const Layout *l, int k) { return l->periodic ? k : k + 1; }
static inline int ends(const Layout *l, int k) { return !l->periodic || k ? k - (int)l->periodic : (int)l->bins - 1; }

static inline void locate(vec *raw, const Layout *l, const int search, const vec at, Piece *p) {
  const int bins = (int)l->bins, slopes = (int)(l->periodic ? l->bins : l->bins - 1);
  const REAL bound = (REAL)l->bound, steep = (REAL)l->steepest;
  p->inside = (at > -bound) & (at < bound);
  if (l->periodic) p->inside = ~(bits){0};
  p->x = within(at, -bound, bound);
  p->bin = (bits){0};
  sizes(raw, l, search, 1, p);
  sizes(raw, l, 1 - search, 0, p);
  vec start = {0}, end = {0};
  for (int k = 0; k < slopes; k++) {
    start = pick(p->bin == starts(l, k), raw[2 * bins + k], start);
    end = pick(p->bin == ends(l, k), raw[2 * bins + k], end);
  }
  p->bent_start = hyperbolics(start * (1 / steep));
  p->bent_end = hyperbolics(end * (1 / steep));
  p->start = exponentials(steep * p->bent_start);
  p->end = exponentials(steep * p->bent_end);
}

static void forward_tile(const Layout *l, int64_t tile, const REAL *x, const REAL *raw, REAL *y, REAL *slope) {
  const int rows = (int)(l->periodic ? 3 * l->bins : 3 * l->bins - 1);
  Places value, place;
  Piece p;
  vec parameters[rows], at, q;
  places(l, tile, l->value_outer, l->value_inner, &value);
  places(l, tile, l->raw_outer, l->raw_inner, &place);
  gather(x, &value, 1, 0, &at);
  gather(raw, &place, rows, l->raw_first, parameters);
  locate(parameters, l, (int)l->inverse, at, &p);
  const vec height = p.size[1], s = height / p.size[0], bend = p.start + p.end - 2 * s;
  if (l->inverse) {
    const vec rise = p.x - p.low[1], a = height * (s - p.start) + rise * bend, b = height * p.start - rise * bend;
    const vec d = b * b + 4 * a * s * rise;
    q = within(2 * s * rise / (b + roots(pick(d < 0, all(0), d))), 0, 1);
    /* One step of Newton gives back the digits that the discriminant lost where slopes differ much. */
    const vec over = 1 / (s + bend * q * (1 - q)), up = (s * q * q + p.start * q * (1 - q)) * over;
    const vec speed = p.end * q * q + 2 * s * q * (1 - q) + p.start * (1 - q) * (1 - q);
    q -= (up - rise / height) / (s * speed * over * over);
  } else
    q = (p.x - p.low[0]) / p.size[0];
  q = within(q, 0, 1);
  const vec t = 1 - q, over = 1 / (s + bend * q * t), num = p.end * q * q + 2 * s * q * t + p.start * t * t;
  const vec moved = l->inverse ? p.low[0] + q * p.size[0] : p.low[1] + height * (s * q * q + p.start * q * t) * over;
  const vec ratio = s * over;
  const vec out = pick(p.inside, moved, at), logs = pick(p.inside, logarithms(ratio * ratio * num), all(0));
  scatter(&out, &value, 1, 0, y);
  scatter(&logs, &value, 1, 0, slope);
}

/* Gradients of a loss with respect to x and raw, given those with respect to y and the log-slope. For the inverse, x is
   what it returned, grad_y the gradient with respect to that, and what is written to grad_x belongs to its argument. */
static void backward_tile(const Layout *l, int64_t tile, const REAL *x, const REAL *raw, const REAL *grad_y,
                          const REAL *grad_slope, REAL *grad_x, REAL *grad_raw) {
  const int bins = (int)l->bins, rows = l->periodic ? 3 * bins : 3 * bins - 1;
  const REAL bound = (REAL)l->bound, small = (REAL)(2 * l->bound * l->smallest);
  const REAL room = (REAL)(2 * l->bound * (1 - l->bins * l->smallest));
  Places value, place, target;
  Piece p;
  vec parameters[rows], at, gy, v;
  places(l, tile, l->value_outer, l->value_inner, &value);
  places(l, tile, l->raw_outer, l->raw_inner, &place);
  places(l, tile, l->grad_outer, l->grad_inner, &target);
  gather(x, &value, 1, 0, &at);
  gather(grad_y, &value, 1, 0, &gy);
  gather(grad_slope, &value, 1, 0, &v);
  gather(raw, &place, rows, l->raw_first, parameters);
  locate(parameters, l, 0, at, &p);
  const vec start = p.start, end = p.end, height = p.size[1], narrow = 1 / p.size[0], s = height * narrow;
  const vec bend = start + end - 2 * s;
  const vec q = within((p.x - p.low[0]) * narrow, 0, 1), t = 1 - q, qt = q * t, over = 1 / (s + bend * qt);
  const vec num = end * q * q + 2 * s * qt + start * t * t, under = 1 / num;
  const vec rise = (s * q * q + start * qt) * over, speed = s * num * over * over; /* d rise / d q */
  const vec l_q = (2 * end * q + 2 * s * (1 - 2 * q) - 2 * start * t) * under - 2 * bend * (1 - 2 * q) * over;
  vec u = gy, back = {0};
  if (l->inverse) {
    back = (u + v * l_q * narrow) / (s * speed);
    u = -back;
  }
  const vec up = u * height;
  const vec g_s = up * (q * q - rise * (1 - 2 * qt)) * over + v * (2 / s + 2 * qt * under - 2 * (1 - 2 * qt) * over);
  const vec g_q = (up * speed + v * l_q) * narrow;
  const vec g_a = up * qt * (1 - rise) * over + v * (t * t * under - 2 * qt * over);
  const vec g_b = -up * rise * qt * over + v * (q * q * under - 2 * qt * over);
#define KEEP(x) pick(p.inside, x, all(0))
  const vec g_low[2] = {KEEP(-g_q), KEEP(u)};
  const vec g_size[2] = {KEEP(-(g_s * s * narrow + g_q * q)), KEEP(u * rise + g_s * narrow)};
  const vec g_start = KEEP(g_a * start * (1 - p.bent_start * p.bent_start));
  const vec g_end = KEEP(g_b * end * (1 - p.bent_end * p.bent_end));
#undef KEEP
  gy = pick(p.inside, l->inverse ? back : g_q, gy);
  scatter(&gy, &value, 1, 0, grad_x);
  for (int side = 0; side < 2; side++) {
    /* The shares before the bin and of the bin, times room. */
    const vec before = p.low[side] + bound - small * __builtin_convertvector(p.bin, vec), share = p.size[side] - small;
    const vec mean = (g_low[side] * before + g_size[side] * share) / room, scale = room * p.norm[side];
    for (int j = 0; j < bins; j++) {
      const vec part = pick(p.bin == j, g_size[side], pick(p.bin > j, g_low[side], all(0)));
      parameters[side * bins + j] *= scale * (part - mean);
    }
  }
  for (int k = 0; k < rows - 2 * bins; k++)
    parameters[2 * bins + k] =
        pick(p.bin == starts(l, k), g_start, all(0)) + pick(p.bin == ends(l, k), g_end, all(0));
  scatter(parameters, &target, rows, l->grad_first, grad_raw);
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
