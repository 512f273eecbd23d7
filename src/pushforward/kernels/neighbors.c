/* Nearest rows, and the Gaussian of a row's nearest rows (kernels/neighbors.py).

   A group of rows is compared with a block of reference rows at a time, so that the sums of products stay in the
   registers. The smallest distances of many parts of the reference rows give a limit that at least k distances do not
   exceed; only those few are compared with each other. A key is a squared distance whose lowest bits are the index of
   the reference row. Each row goes through the same operations, wherever it is in its group, so the result for a row
   does not depend on the other rows.

   Only the version for double is used. */

#include "vector.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#if defined(__AVX__)
#include <immintrin.h>
#endif

#define GROUP 4                    /* rows of a group */
#define BLOCK ((int)(WIDE * LANES)) /* reference rows of a block */
#define SLACK 64                   /* keys that are collected between two selections, at least */
#define INDEX (((int64_t)1 << 24) - 1)

typedef struct {
  int64_t rows, reference, padded, columns, k, dropped, threads; /* padded: reference, rounded up to whole blocks */
  const double *row;        /* (rows, columns) */
  const double *transposed; /* (columns, padded), times -2 */
  const double *squares;    /* (padded) squared lengths of the reference rows */
  const int64_t *drop;      /* (rows, dropped) */
  int64_t *key;             /* (rows, k), ascending */
} Nearest;

typedef struct {
  int64_t rows, columns, k, threads;
  const double *row, *reference; /* (rows, columns), (m, columns) */
  const int64_t *index;          /* (rows, k) */
  double ridge, least;
  double *square, *log_det; /* (rows) */
} Local;

#if SINGLE

int EXPORT(neighbors_nearest)(const Nearest *s) { return s->rows < 0; }
int EXPORT(neighbors_local)(const Local *s) { return s->rows < 0; }

#else

static inline void swap(int64_t *a, int64_t *b) {
  const int64_t c = *a;
  *a = *b;
  *b = c;
}

/* The k smallest of n keys come first (Hoare's selection). */
static void smallest(int64_t *key, int64_t n, int64_t k) {
  int64_t low = 0, high = n - 1;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (key[middle] < key[low]) swap(key + middle, key + low);
    if (key[high] < key[low]) swap(key + high, key + low);
    if (key[high] < key[middle]) swap(key + high, key + middle);
    const int64_t pivot = key[middle];
    int64_t i = low, j = high;
    while (i <= j) {
      while (key[i] < pivot) i++;
      while (key[j] > pivot) j--;
      if (i <= j) swap(key + i++, key + j--);
    }
    if (k - 1 <= j)
      high = j;
    else if (k - 1 >= i)
      low = i;
    else
      return;
  }
}

static int compare(const void *a, const void *b) {
  const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

static void ascending(int64_t *key, const int64_t n) {
  if (n > 96) {
    qsort(key, n, sizeof(int64_t), compare);
    return;
  }
  for (int64_t i = 1; i < n; i++) {
    const int64_t x = key[i];
    int64_t j = i;
    for (; j > 0 && key[j - 1] > x; j--) key[j] = key[j - 1];
    key[j] = x;
  }
}

/* Whether any lane is set. */
static inline int any(const bits which) {
#if defined(__AVX512DQ__)
  return _mm512_movepi64_mask((__m512i)which) != 0;
#elif defined(__AVX__)
  return _mm256_movemask_pd((__m256d)which) != 0;
#endif
  int64_t found = 0;
  for (int i = 0; i < LANES; i++) found |= which[i];
  return found != 0;
}

static inline int64_t key_of(const double squared, const int64_t index) {
  int64_t key;
  memcpy(&key, &squared, sizeof key);
  return (key & ~INDEX) | index;
}

/* The largest squared distance whose key is not larger than this one. Blocks of padding alone have no finite distance. */
static inline double limit_of(const int64_t key) {
  const int64_t largest = key | INDEX;
  if (key >= key_of(INFINITY, 0)) return INFINITY; /* with the bits of an index it would be NaN */
  double limit;
  memcpy(&limit, &largest, sizeof limit);
  return limit;
}

/* Memory for a group. */
typedef struct {
  double *squared; /* (GROUP, padded) */
  double *least;   /* (GROUP, parts * BLOCK): the smallest of each lane, in each part of the reference rows */
  int64_t *key;    /* keys of one row */
  int64_t parts, capacity;
} Work;

/* Squared distances of a group; those that are dropped are infinite. */
static void distances(const Nearest *s, const int64_t first, const Work *w) {
  const int64_t d = s->columns, blocks = s->padded / BLOCK;
  const double *x[GROUP];
  double own[GROUP];
  for (int r = 0; r < GROUP; r++) { /* the last row stands in for those beyond it */
    x[r] = s->row + (first + r < s->rows ? first + r : s->rows - 1) * d;
    own[r] = 0;
    for (int64_t j = 0; j < d; j++) own[r] += x[r][j] * x[r][j];
  }
  for (int64_t i = 0; i < GROUP * w->parts * BLOCK; i++) w->least[i] = INFINITY;
  for (int64_t b = 0; b < blocks; b++) {
    vec sum[GROUP][WIDE];
    for (int r = 0; r < GROUP; r++)
      for (int v = 0; v < WIDE; v++) sum[r][v] = *(const vec *)(s->squares + b * BLOCK + v * LANES) + own[r];
    const double *at = s->transposed + b * BLOCK;
    for (int64_t j = 0; j < d; j++, at += s->padded)
      for (int v = 0; v < WIDE; v++)
        for (int r = 0; r < GROUP; r++) sum[r][v] += *(const vec *)(at + v * LANES) * x[r][j];
    for (int r = 0; r < GROUP; r++)
      for (int v = 0; v < WIDE; v++) {
        const vec squared = pick(sum[r][v] > all(0), sum[r][v], all(0));
        *(vec *)(w->squared + r * s->padded + b * BLOCK + v * LANES) = squared;
        vec *least = (vec *)(w->least + (r * w->parts + b * w->parts / blocks) * BLOCK + v * LANES);
        *least = pick(squared < *least, squared, *least);
      }
  }
}

/* The k smallest keys of one row of a group, ascending. */
static void row_keys(const Nearest *s, const int64_t row, const int r, const Work *w) {
  const int64_t k = s->k, lanes = w->parts * BLOCK;
  double *squared = w->squared + r * s->padded;
  double limit = INFINITY;
  int64_t count = 0;
  for (int64_t j = 0; j < s->dropped; j++) squared[s->drop[row * s->dropped + j]] = INFINITY;
  if (k + s->dropped < lanes) { /* of so many distances, k are not larger, also without those that are dropped */
    const double *least = w->least + r * lanes;
    for (int64_t i = 0; i < lanes; i++) w->key[i] = key_of(least[i], 0);
    smallest(w->key, lanes, k + s->dropped);
    int64_t largest = w->key[0];
    for (int64_t i = 1; i < k + s->dropped; i++) largest = w->key[i] > largest ? w->key[i] : largest;
    limit = limit_of(largest);
  }
  for (int64_t first = 0; first < s->padded; first += LANES) {
    const vec each = *(const vec *)(squared + first);
    if (!any(each <= all(limit))) continue;
    for (int i = 0; i < LANES && first + i < s->reference; i++) {
      if (!(each[i] <= limit)) continue;
      w->key[count++] = key_of(each[i], first + i);
      if (count < w->capacity) continue;
      smallest(w->key, count, k);
      count = k;
      int64_t largest = w->key[0];
      for (int64_t j = 1; j < k; j++) largest = w->key[j] > largest ? w->key[j] : largest;
      limit = limit_of(largest);
    }
  }
  if (count > k) smallest(w->key, count, k);
  ascending(w->key, k);
  memcpy(s->key + row * k, w->key, k * sizeof(int64_t));
}

/* The k smallest keys of each row. Returns 1 if there is no memory. There are at least k reference rows that are not
   dropped. */
int EXPORT(neighbors_nearest)(const Nearest *s) {
  const int64_t groups = (s->rows + GROUP - 1) / GROUP, most = s->padded / BLOCK;
  const int64_t wanted = 1 + 5 * (s->k + s->dropped) / (2 * BLOCK), parts = wanted < most ? wanted : most;
  const int64_t twice = 2 * s->k + SLACK, capacity = twice > parts * BLOCK ? twice : parts * BLOCK;
  int failed = 0;
#pragma omp parallel num_threads(s->threads) if (s->threads > 1)
  {
    Work w = {malloc(GROUP * s->padded * sizeof(double)), malloc(GROUP * parts * BLOCK * sizeof(double)),
              malloc(capacity * sizeof(int64_t)), parts, capacity};
    const int complete = w.squared && w.least && w.key;
    if (!complete) {
#pragma omp atomic write
      failed = 1;
    }
#pragma omp for schedule(dynamic, 8)
    for (int64_t g = 0; g < groups; g++) {
      if (!complete) continue;
      distances(s, g * GROUP, &w);
      for (int r = 0; r < GROUP && g * GROUP + r < s->rows; r++) row_keys(s, g * GROUP + r, r, &w);
    }
    free(w.squared);
    free(w.least);
    free(w.key);
  }
  return failed;
}

/* In place, the lower triangle of L with L L^T the symmetric matrix, whose lower triangle is given. */
static void cholesky(double *a, const int64_t n, const int64_t stride) {
  for (int64_t j = 0; j < n; j++) {
    double *row = a + j * stride;
    double rest = row[j];
    for (int64_t i = 0; i < j; i++) rest -= row[i] * row[i];
    row[j] = sqrt(rest > 1e-300 ? rest : 1e-300);
    for (int64_t b = j + 1; b < n; b++) {
      double *other = a + b * stride, sum = other[j];
      for (int64_t i = 0; i < j; i++) sum -= row[i] * other[i];
      other[j] = sum / row[j];
    }
  }
}

/* Squared distance, and log determinant, of a row under the Gaussian of its neighbors. */
static void gaussian(const Local *s, const int64_t r, double *work) {
  const int64_t d = s->columns, k = s->k, wide = padded(d), n = d <= k ? d : k, stride = padded(n);
  double *near = work, *offset = near + k * wide, *matrix = offset + wide, *z = matrix + n * stride;
  const int64_t *index = s->index + r * k;
  memset(offset, 0, wide * sizeof(double));
  for (int64_t i = 0; i < k; i++) {
    const double *from = s->reference + index[i] * d;
    for (int64_t j = 0; j < d; j++) offset[j] += from[j];
  }
  for (int64_t j = 0; j < d; j++) offset[j] /= k; /* the mean */
  double trace = 0;
  for (int64_t i = 0; i < k; i++) {
    const double *from = s->reference + index[i] * d;
    double *to = near + i * wide;
    for (int64_t j = 0; j < d; j++) {
      to[j] = from[j] - offset[j];
      trace += to[j] * to[j];
    }
    for (int64_t j = d; j < wide; j++) to[j] = 0;
  }
  for (int64_t j = 0; j < d; j++) offset[j] = s->row[r * d + j] - offset[j];
  const double ridge = s->ridge * trace / (k * d) + s->least;
  memset(matrix, 0, n * stride * sizeof(double));
  if (d <= k) { /* the covariance itself */
    for (int64_t i = 0; i < k; i++) {
      const double *row = near + i * wide;
      for (int64_t a = 0; a < d; a++)
        for (int64_t v = 0; v <= a; v += LANES)
          *(vec *)(matrix + a * stride + v) += *(const vec *)(row + v) * row[a];
    }
    memcpy(z, offset, d * sizeof(double));
  } else { /* Woodbury: the Gram matrix of the neighbors */
    for (int64_t a = 0; a < k; a++)
      for (int64_t b = 0; b <= a; b++) {
        vec sum = {0};
        for (int64_t v = 0; v < wide; v += LANES)
          sum += *(const vec *)(near + a * wide + v) * *(const vec *)(near + b * wide + v);
        for (int i = 0; i < LANES; i++) matrix[a * stride + b] += sum[i];
      }
    for (int64_t a = 0; a < k; a++) {
      z[a] = 0;
      for (int64_t j = 0; j < d; j++) z[a] += near[a * wide + j] * offset[j];
    }
  }
  for (int64_t a = 0; a < n; a++) {
    for (int64_t b = 0; b <= a; b++) matrix[a * stride + b] /= k;
    matrix[a * stride + a] += ridge;
  }
  cholesky(matrix, n, stride);
  double square = 0, log_det = 0;
  for (int64_t a = 0; a < n; a++) {
    const double *row = matrix + a * stride;
    for (int64_t b = 0; b < a; b++) z[a] -= row[b] * z[b];
    z[a] /= row[a];
    square += z[a] * z[a];
    log_det += 2 * log(row[a]);
  }
  if (d > k) {
    double own = 0;
    for (int64_t j = 0; j < d; j++) own += offset[j] * offset[j];
    square = (own - square / k) / ridge;
    log_det += (d - k) * log(ridge);
  }
  s->square[r] = square > 0 ? square : 0;
  s->log_det[r] = log_det;
}

/* Squared distance and log determinant of each row. Returns 1 if there is no memory. */
int EXPORT(neighbors_local)(const Local *s) {
  const int64_t d = s->columns, k = s->k, wide = padded(d), n = d <= k ? d : k;
  const int64_t size = (k + 1) * wide + n * padded(n) + padded(n);
  int failed = 0;
#pragma omp parallel num_threads(s->threads) if (s->threads > 1)
  {
    double *work = malloc(size * sizeof(double));
    if (!work) {
#pragma omp atomic write
      failed = 1;
    }
#pragma omp for schedule(dynamic, 32)
    for (int64_t r = 0; r < s->rows; r++)
      if (work) gaussian(s, r, work);
    free(work);
  }
  return failed;
}

#endif
