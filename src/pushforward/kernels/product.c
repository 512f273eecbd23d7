/* Products of small matrices in the cache, with what follows them in a layer: a bias, ReLU, or a mask; and weights packed for them. */

#include "vector.c"
#include <stdlib.h>
#include <string.h>

#define ROWS 6

/* The rows of a matrix: row r starts at ``at`` + r * ``row`` (or at + place[r]) and is ``parts`` stretches of ``length``. */
typedef struct {
  const REAL *at;
  int64_t row, parts, length, jump, step;
} Matrix;

/* What becomes of a product: it starts from ``bias``, or from what is there (``add``); then ReLU, or 0 where mask <= 0. */
typedef struct {
  const REAL *bias, *mask;
  int add, relu;
} Finish;

static inline __attribute__((always_inline)) void block(const int rows, const int wide, const REAL *const *restrict a,
                                                        const Matrix *m, const REAL *restrict b, const int64_t ldb,
                                                        REAL *restrict c, const int64_t ldc, const int64_t column,
                                                        const int64_t first, const Finish *f) {
  vec sum[ROWS][WIDE];
  const REAL *at[ROWS];
  for (int r = 0; r < rows; r++) {
    at[r] = a[r];
    for (int v = 0; v < wide; v++)
      sum[r][v] = f->add    ? *(const vec *)(c + r * ldc + v * LANES)
                  : f->bias ? *(const vec *)(f->bias + column + v * LANES)
                            : (vec){0};
  }
  for (int64_t part = 0; part < m->parts; part++) {
    const int64_t step = m->step, stop = m->length * step;
    for (int64_t i = 0; i < stop; i += step, b += ldb) {
      vec w[WIDE];
      for (int v = 0; v < wide; v++) w[v] = *(const vec *)(b + v * LANES);
      for (int r = 0; r < rows; r++) {
        const REAL x = at[r][i];
        for (int v = 0; v < wide; v++) sum[r][v] += w[v] * x;
      }
    }
    for (int r = 0; r < rows; r++) at[r] += m->jump;
  }
  for (int r = 0; r < rows; r++)
    for (int v = 0; v < wide; v++) {
      vec y = sum[r][v];
      if (f->mask) y = (vec)((bits)y & ~(*(const vec *)(f->mask + (first + r) * ldc + column + v * LANES) <= 0));
      if (f->relu) y = (vec)((bits)y & ~(y <= 0)); /* keeps NaN */
      *(vec *)(c + r * ldc + v * LANES) = y;
    }
}

static inline __attribute__((always_inline)) void some(const int rows, const int64_t wide, const REAL *const *a,
                                                       const Matrix *m, const REAL *b, const int64_t ldb, REAL *c,
                                                       const int64_t ldc, const int64_t column, const int64_t first,
                                                       const Finish *f) {
  switch (wide) {
    case 1: block(rows, 1, a, m, b, ldb, c, ldc, column, first, f); break;
#if WIDE == 4
    case 3: block(rows, 3, a, m, b, ldb, c, ldc, column, first, f); break;
    case 4: block(rows, 4, a, m, b, ldb, c, ldc, column, first, f); break;
#endif
    default: block(rows, 2, a, m, b, ldb, c, ldc, column, first, f);
  }
}

/* c = m b for ``count`` rows of m; b and c are as wide as ``columns``, a multiple of the lanes. ``place`` says where rows start. */
static void product(const Matrix *m, const int64_t count, const int64_t *place, const REAL *b, const int64_t columns,
                    REAL *c, const Finish *f) {
  int64_t left = columns / LANES, column = 0;
  while (left > 0) {
    const int64_t wide = left >= 2 * WIDE || left == WIDE ? WIDE : left > WIDE ? (left + 1) / 2 : left;
    for (int64_t r = 0; r < count;) {
      const int rows = count - r >= ROWS ? ROWS : 1;
      const REAL *a[ROWS];
      for (int k = 0; k < rows; k++) a[k] = m->at + (place ? place[r + k] : (r + k) * m->row);
      REAL *to = c + r * columns + column;
      if (rows == ROWS)
        some(ROWS, wide, a, m, b + column, columns, to, columns, column, r, f);
      else
        some(1, wide, a, m, b + column, columns, to, columns, column, r, f);
      r += rows;
    }
    left -= wide, column += wide * LANES;
  }
}

/* A k x k convolution's weights, (outs, ins, k, k), as rows (dy, dx, in) and columns out, or the other way round; with
   ``turn`` the kernel is turned by half a circle. ``back`` adds packed gradients to gradients of the weights. */
static void pack(const int64_t outs, const int64_t ins, const int64_t k, const int turn, const int taps_and_outs,
                 REAL *weight, REAL *packed, const int columns_are_taps, const int64_t ld, const int back) {
  for (int64_t o = 0; o < outs; o++)
    for (int64_t i = 0; i < ins; i++)
      for (int64_t tap = 0; tap < k * k; tap++) {
        const int64_t t = turn ? k * k - 1 - tap : tap;
        const int64_t joint = taps_and_outs ? t * outs + o : t * ins + i, other = taps_and_outs ? i : o;
        REAL *w = weight + (o * ins + i) * k * k + tap, *p = packed + (columns_are_taps ? other * ld + joint : joint * ld + other);
        if (back)
          *w += *p;
        else
          *p = *w;
      }
}

static void transpose(const int64_t outs, const int64_t ins, const REAL *weight, REAL *packed, const int64_t ld) {
  for (int64_t o = 0; o < outs; o++)
    for (int64_t i = 0; i < ins; i++) packed[i * ld + o] = weight[o * ins + i];
}
