/* Products of small matrices that are in the cache, each with what follows it in a layer (a bias, ReLU, or a mask), and
   functions that pack weights for them. */

#pragma once

#include "vector.h"
#include <stdlib.h>
#include <string.h>

#define ROWS 6 /* rows that are computed together */

/* The left factor. Row r starts at ``at`` + r * ``row`` (or at + offset[r]) and consists of ``parts`` runs, ``jump``
   apart, of ``length`` numbers, ``step`` apart. */
typedef struct {
  const REAL *at;
  int64_t row, parts, length, jump, step;
} Matrix;

/* What a product starts from, ``bias`` or the numbers that are there (``add``), and what follows: ReLU, or a mask that
   sets results to 0 where it is <= 0. */
typedef struct {
  const REAL *bias, *mask;
  int add, relu;
} Epilogue;

static inline __attribute__((always_inline)) void multiply_tile(const int rows, const int wide,
                                                                const REAL *const *restrict a, const Matrix *m,
                                                                const REAL *restrict b, const int64_t ldb,
                                                                REAL *restrict c, const int64_t ldc,
                                                                const int64_t column, const int64_t first,
                                                                const Epilogue *f) {
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

static inline __attribute__((always_inline)) void multiply_rows(const int rows, const int64_t wide,
                                                                const REAL *const *a, const Matrix *m, const REAL *b,
                                                                const int64_t ldb, REAL *c, const int64_t ldc,
                                                                const int64_t column, const int64_t first,
                                                                const Epilogue *f) {
  switch (wide) {
    case 1: multiply_tile(rows, 1, a, m, b, ldb, c, ldc, column, first, f); break;
#if WIDE == 4
    case 3: multiply_tile(rows, 3, a, m, b, ldb, c, ldc, column, first, f); break;
    case 4: multiply_tile(rows, 4, a, m, b, ldb, c, ldc, column, first, f); break;
#endif
    default: multiply_tile(rows, 2, a, m, b, ldb, c, ldc, column, first, f);
  }
}

/* c = m b for ``count`` rows of m. b and c have ``columns`` columns, a multiple of LANES. ``offset``: where rows start,
   or NULL. */
static void product(const Matrix *m, const int64_t count, const int64_t *offset, const REAL *b, const int64_t columns,
                    REAL *c, const Epilogue *f) {
  int64_t left = columns / LANES, column = 0;
  while (left > 0) {
    const int64_t wide = left >= 2 * WIDE || left == WIDE ? WIDE : left > WIDE ? (left + 1) / 2 : left;
    for (int64_t r = 0; r < count;) {
      const int rows = count - r >= ROWS ? ROWS : 1;
      const REAL *a[ROWS];
      for (int k = 0; k < rows; k++) a[k] = m->at + (offset ? offset[r + k] : (r + k) * m->row);
      REAL *to = c + r * columns + column;
      if (rows == ROWS)
        multiply_rows(ROWS, wide, a, m, b + column, columns, to, columns, column, r, f);
      else
        multiply_rows(1, wide, a, m, b + column, columns, to, columns, column, r, f);
      r += rows;
    }
    left -= wide, column += wide * LANES;
  }
}

/* The weights of a k x k convolution, (outputs, inputs, k, k), as a matrix with rows (dy, dx, input) and columns
   output, or with ``columns_are_taps`` transposed. ``rotate`` rotates the kernel by half a turn, and
   ``taps_and_outputs`` makes it rows (dy, dx, output) and columns input. ``add_back`` adds packed gradients to the
   gradients of the weights. */
static void pack(const int64_t outputs, const int64_t inputs, const int64_t k, const int rotate,
                 const int taps_and_outputs, REAL *weight, REAL *packed, const int columns_are_taps, const int64_t ld,
                 const int add_back) {
  for (int64_t o = 0; o < outputs; o++)
    for (int64_t i = 0; i < inputs; i++)
      for (int64_t tap = 0; tap < k * k; tap++) {
        const int64_t t = rotate ? k * k - 1 - tap : tap;
        const int64_t joint = taps_and_outputs ? t * outputs + o : t * inputs + i, other = taps_and_outputs ? i : o;
        REAL *w = weight + (o * inputs + i) * k * k + tap;
        REAL *p = packed + (columns_are_taps ? other * ld + joint : joint * ld + other);
        if (add_back)
          *w += *p;
        else
          *p = *w;
      }
}

static void transpose(const int64_t outputs, const int64_t inputs, const REAL *weight, REAL *packed, const int64_t ld) {
  for (int64_t o = 0; o < outputs; o++)
    for (int64_t i = 0; i < inputs; i++) packed[i * ld + o] = weight[o * inputs + i];
}
