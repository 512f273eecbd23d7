/* A stack of convolutions with zero padding, k x k -> 1 x 1 -> ... -> k x k with ReLU between them (kernels/conv.py).

   One image is computed at a time, in bands of rows, so that the hidden layers of a band stay in the cache. The
   backward pass computes them again instead of storing them. Pixels are rows of matrices and channels are columns, so
   that every layer is a matrix product (product.h):

   - the first convolution multiplies patches, each of which is k runs of k * channels numbers of a padded image;
   - a 1 x 1 convolution is a plain product;
   - the last convolution has few outputs: it computes the contributions of each pixel to its k * k neighbors, which are
     then summed.

   The backward pass uses the same three products. The result for an image does not depend on the other images. */

#include "product.h"

#define MOST_LAYERS 64 /* kernels/conv.py checks it */
#define BAND 256       /* pixels of a band, about */

typedef struct {
  int64_t images, height, width, kernel, inputs, hidden, outputs, threads;
  int64_t image, channel, row, column; /* strides of x */
  const int64_t *widths;               /* channels of the hidden layers */
  double bound;                        /* x is clamped to [-bound, bound]; negative for no bound */
} ConvStack;

/* Copies an image, (channels, height, width), into a padded one with channels last. */
static void load_image(const ConvStack *s, const int64_t channels, const REAL *from, const int64_t channel,
                       const int64_t row, const int64_t column, const REAL bound, REAL *to) {
  const int64_t r = s->kernel / 2, across = (s->width + 2 * r) * channels;
  for (int64_t c = 0; c < channels; c++)
    for (int64_t y = 0; y < s->height; y++) {
      const REAL *in = from + c * channel + y * row;
      REAL *out = to + (y + r) * across + r * channels + c;
      for (int64_t x = 0; x < s->width; x++) {
        const REAL v = in[x * column];
        out[x * channels] = bound >= 0 ? (v > bound ? bound : v < -bound ? -bound : v) : v;
      }
    }
}

static inline __attribute__((always_inline)) void add_pixels(const int64_t channels, const int64_t width,
                                                             const REAL *restrict t, const int64_t ld,
                                                             REAL *restrict to) {
  for (int64_t x = 0; x < width; x++)
    for (int64_t o = 0; o < channels; o++) to[x * channels + o] += t[x * ld + o];
}

/* Adds the contributions t of each pixel to its neighbors to a padded image with channels last. */
static void add_to_neighbors(const ConvStack *s, const int64_t channels, const int64_t top, const int64_t rows,
                             const REAL *t, const int64_t ld, REAL *to) {
  const int64_t k = s->kernel, across = (s->width + k - 1) * channels;
  for (int64_t y = 0; y < rows; y++)
    for (int64_t dy = 0; dy < k; dy++)
      for (int64_t dx = 0; dx < k; dx++) {
        const REAL *from = t + y * s->width * ld + (dy * k + dx) * channels;
        REAL *row = to + (top + y + dy) * across + dx * channels;
        switch (channels) {
          case 2: add_pixels(2, s->width, from, ld, row); break;
          case 4: add_pixels(4, s->width, from, ld, row); break;
          case 8: add_pixels(8, s->width, from, ld, row); break;
          case 16: add_pixels(16, s->width, from, ld, row); break;
          default: add_pixels(channels, s->width, from, ld, row);
        }
      }
}

/* Packed weights, and sizes derived from a stack. */
typedef struct {
  int64_t pixels, band, widest; /* pixels of an image, rows of a band, and the most columns of any matrix */
  int64_t patch, contributions; /* k * k * inputs and k * k * outputs */
  int64_t first_ld, last;       /* the same, padded */
  int64_t ld[MOST_LAYERS];      /* padded widths of the hidden layers */
  const REAL *bias[MOST_LAYERS];
  REAL *first, *middle[MOST_LAYERS], *final; /* for the forward pass */
  REAL *first_back, *middle_back[MOST_LAYERS], *final_back;
  REAL *memory;
} Packed;

/* ``count`` zeros, aligned to 64 bytes. */
static REAL *allocate(int64_t count) {
  REAL *p = aligned_alloc(64, (count * (int64_t)sizeof(REAL) + 63) / 64 * 64);
  if (p) memset(p, 0, count * sizeof(REAL));
  return p;
}

/* Packs the weights: those of all layers, then all biases. Not 0 if there is no memory. */
static int pack_weights(const ConvStack *s, REAL *const *weights, const int backward, Packed *p) {
  const int64_t k = s->kernel, n = s->hidden;
  p->patch = k * k * s->inputs, p->contributions = k * k * s->outputs;
  p->first_ld = padded(p->patch), p->last = padded(p->contributions);
  p->pixels = s->height * s->width;
  p->band = BAND / s->width > 0 ? BAND / s->width : 1;
  if (p->band > s->height) p->band = s->height;
  p->widest = p->last > p->first_ld ? p->last : p->first_ld;
  int64_t size = 0;
  for (int64_t i = 0; i < n; i++) {
    p->ld[i] = padded(s->widths[i]);
    if (p->ld[i] > p->widest) p->widest = p->ld[i];
    size += p->ld[i] + (i ? padded(s->widths[i - 1]) * p->ld[i] * 2 : 0);
  }
  size += p->patch * p->ld[0] + p->ld[n - 1] * p->last;
  if (backward) size += p->ld[0] * p->first_ld + p->contributions * p->ld[n - 1];
  REAL *m = p->memory = allocate(size);
  if (!m) return 1;
  for (int64_t i = 0; i < n; i++) {
    memcpy(m, weights[n + 1 + i], s->widths[i] * sizeof(REAL));
    p->bias[i] = m, m += p->ld[i];
  }
  p->first = m, m += p->patch * p->ld[0];
  pack(s->widths[0], s->inputs, k, 0, 0, weights[0], p->first, 0, p->ld[0], 0);
  for (int64_t i = 1; i < n; i++) {
    p->middle[i] = m, m += p->ld[i - 1] * p->ld[i];
    transpose(s->widths[i], s->widths[i - 1], weights[i], p->middle[i], p->ld[i]);
    if (backward) {
      p->middle_back[i] = m, m += p->ld[i] * p->ld[i - 1];
      for (int64_t o = 0; o < s->widths[i]; o++)
        memcpy(p->middle_back[i] + o * p->ld[i - 1], weights[i] + o * s->widths[i - 1],
               s->widths[i - 1] * sizeof(REAL));
    }
  }
  p->final = m, m += p->ld[n - 1] * p->last;
  pack(s->outputs, s->widths[n - 1], k, 1, 1, weights[n], p->final, 1, p->last, 0);
  if (backward) {
    p->final_back = m, m += p->contributions * p->ld[n - 1];
    pack(s->outputs, s->widths[n - 1], k, 1, 1, weights[n], p->final_back, 0, p->ld[n - 1], 0);
    p->first_back = m, m += p->ld[0] * p->first_ld;
    pack(s->widths[0], s->inputs, k, 0, 0, weights[0], p->first_back, 1, p->first_ld, 0);
  }
  return 0;
}

/* Offsets of the patches of a band in a padded image with channels last. */
static void patch_offsets(const ConvStack *s, const int64_t channels, const int64_t top, const int64_t rows,
                          int64_t *offset) {
  const int64_t across = (s->width + s->kernel - 1) * channels;
  for (int64_t y = 0; y < rows; y++)
    for (int64_t x = 0; x < s->width; x++) offset[y * s->width + x] = (top + y) * across + x * channels;
}

/* The hidden layers of a band. */
static void hidden_layers(const ConvStack *s, const Packed *p, const REAL *image, const int64_t *offset,
                          const int64_t count, REAL *const *h) {
  const int64_t k = s->kernel;
  const Matrix patch = {image, 0, k, k * s->inputs, (s->width + k - 1) * s->inputs, 1};
  product(&patch, count, offset, p->first, p->ld[0], h[0], &(Epilogue){.bias = p->bias[0], .relu = 1});
  for (int64_t i = 1; i < s->hidden; i++) {
    const Matrix before = {h[i - 1], p->ld[i - 1], 1, s->widths[i - 1], 0, 1};
    product(&before, count, NULL, p->middle[i], p->ld[i], h[i], &(Epilogue){.bias = p->bias[i], .relu = 1});
  }
}

static int64_t workspace_size(const ConvStack *s, const Packed *p) {
  const int64_t most = s->inputs > s->outputs ? s->inputs : s->outputs, k = s->kernel;
  const int64_t image = padded((s->height + k - 1) * (s->width + k - 1) * most + LANES);
  int64_t size = 2 * image + 2 * p->band * s->width * p->widest;
  for (int64_t i = 0; i < s->hidden; i++) size += p->band * s->width * p->ld[i];
  return size;
}

/* The memory of one thread: two padded images, two matrices of a band, its hidden layers, and offsets. */
typedef struct {
  REAL *all, *image, *other, *t, *g, *h[MOST_LAYERS];
  int64_t *offset, size;
} Workspace;

/* Not 0 if there is no memory. */
static int allocate_workspace(const ConvStack *s, const Packed *p, Workspace *w) {
  const int64_t most = s->inputs > s->outputs ? s->inputs : s->outputs, k = s->kernel;
  const int64_t taps = p->patch > p->contributions ? p->patch : p->contributions, pixels = p->band * s->width;
  w->size = padded((s->height + k - 1) * (s->width + k - 1) * most + LANES);
  w->all = allocate(workspace_size(s, p));
  w->offset = malloc((pixels > taps ? pixels : taps) * sizeof(int64_t));
  if (!w->all || !w->offset) return 1;
  REAL *m = w->all;
  w->image = m, m += w->size;
  w->other = m, m += w->size;
  w->t = m, m += pixels * p->widest;
  w->g = m, m += pixels * p->widest;
  for (int64_t i = 0; i < s->hidden; i++) w->h[i] = m, m += pixels * p->ld[i];
  return 0;
}

/* out is (images, outputs, height, width). Returns 0, or 1 if there is no memory. */
int EXPORT(conv_forward)(const ConvStack *s, const REAL *x, REAL *const *weights, REAL *out) {
  Packed p;
  if (pack_weights(s, weights, 0, &p)) return 1;
  const int64_t n = s->hidden, r = s->kernel / 2;
  int failed = 0;
#pragma omp parallel num_threads(s->threads) if (s->threads > 1)
  {
    Workspace m = {0};
    if (allocate_workspace(s, &p, &m)) {
#pragma omp atomic write
      failed = 1;
    }
#pragma omp for
    for (int64_t image = 0; image < s->images; image++) {
      if (!m.all || !m.offset) continue;
      load_image(s, s->inputs, x + image * s->image, s->channel, s->row, s->column, (REAL)s->bound, m.image);
      memset(m.other, 0, m.size * sizeof(REAL));
      for (int64_t top = 0; top < s->height; top += p.band) {
        const int64_t rows = s->height - top < p.band ? s->height - top : p.band, count = rows * s->width;
        patch_offsets(s, s->inputs, top, rows, m.offset);
        hidden_layers(s, &p, m.image, m.offset, count, m.h);
        const Matrix h = {m.h[n - 1], p.ld[n - 1], 1, s->widths[n - 1], 0, 1};
        product(&h, count, NULL, p.final, p.last, m.t, &(Epilogue){0});
        add_to_neighbors(s, s->outputs, top, rows, m.t, p.last, m.other);
      }
      for (int64_t o = 0; o < s->outputs; o++)
        for (int64_t y = 0; y < s->height; y++) {
          const REAL *from = m.other + ((y + r) * (s->width + 2 * r) + r) * s->outputs + o;
          const REAL bias = weights[2 * n + 1][o];
          REAL *to = out + ((image * s->outputs + o) * s->height + y) * s->width;
          for (int64_t c = 0; c < s->width; c++) to[c] = from[c * s->outputs] + bias;
        }
    }
    free(m.all);
    free(m.offset);
  }
  free(p.memory);
  return failed;
}

/* Packed gradients of the weights, computed by one thread. */
typedef struct {
  REAL *first, *middle[MOST_LAYERS], *final, *bias[MOST_LAYERS], *last_bias;
} Gradients;

static int64_t gradients_size(const ConvStack *s, const Packed *p) {
  const int64_t n = s->hidden;
  int64_t size = p->patch * p->ld[0] + p->contributions * p->ld[n - 1] + padded(s->outputs);
  for (int64_t i = 0; i < n; i++) size += p->ld[i] + (i ? p->ld[i] * p->ld[i - 1] : 0);
  return (size + 63) / 64 * 64;
}

/* Places them in one block of memory. */
static void place_gradients(const ConvStack *s, const Packed *p, REAL *m, Gradients *g) {
  const int64_t n = s->hidden;
  g->first = m, m += p->patch * p->ld[0];
  for (int64_t i = 1; i < n; i++) g->middle[i] = m, m += p->ld[i] * p->ld[i - 1];
  g->final = m, m += p->contributions * p->ld[n - 1];
  for (int64_t i = 0; i < n; i++) g->bias[i] = m, m += p->ld[i];
  g->last_bias = m;
}

/* Offsets of the numbers of a patch: the rows of the transposed matrix of patches. */
static void tap_offsets(const ConvStack *s, const int64_t channels, const int64_t top, int64_t *offset) {
  const int64_t k = s->kernel, across = (s->width + k - 1) * channels;
  for (int64_t dy = 0; dy < k; dy++)
    for (int64_t j = 0; j < k * channels; j++) offset[dy * k * channels + j] = (top + dy) * across + j;
}

static void sum_rows(const REAL *from, const int64_t count, const int64_t ld, REAL *restrict to) {
  for (int64_t r = 0; r < count; r++)
    for (int64_t c = 0; c < ld; c++) to[c] += from[r * ld + c];
}

static void backward_band(const ConvStack *s, const Packed *p, const Workspace *m, const REAL *grad, REAL *grad_x,
                          const int64_t top, const int64_t rows, const Gradients *g) {
  const int64_t n = s->hidden, k = s->kernel, count = rows * s->width, across = s->width + k - 1;
  patch_offsets(s, s->inputs, top, rows, m->offset);
  hidden_layers(s, p, m->image, m->offset, count, m->h);
  REAL *now = m->t, *next = m->g;
  const Epilogue plus = {.add = 1};
  patch_offsets(s, s->outputs, top, rows, m->offset);
  const Matrix out = {grad, 0, k, k * s->outputs, across * s->outputs, 1};
  product(&out, count, m->offset, p->final_back, p->ld[n - 1], now, &(Epilogue){.mask = m->h[n - 1]});
  tap_offsets(s, s->outputs, top, m->offset);
  const Matrix out_t = {grad, 0, rows, s->width, across * s->outputs, s->outputs};
  product(&out_t, p->contributions, m->offset, m->h[n - 1], p->ld[n - 1], g->final, &plus);
  for (int64_t i = n - 1; i > 0; i--) {
    sum_rows(now, count, p->ld[i], g->bias[i]);
    const Matrix now_t = {now, 1, 1, count, 0, p->ld[i]};
    product(&now_t, s->widths[i], NULL, m->h[i - 1], p->ld[i - 1], g->middle[i], &plus);
    const Matrix above = {now, p->ld[i], 1, s->widths[i], 0, 1};
    product(&above, count, NULL, p->middle_back[i], p->ld[i - 1], next, &(Epilogue){.mask = m->h[i - 1]});
    REAL *swap = now;
    now = next, next = swap;
  }
  sum_rows(now, count, p->ld[0], g->bias[0]);
  tap_offsets(s, s->inputs, top, m->offset);
  const Matrix patch_t = {m->image, 0, rows, s->width, across * s->inputs, s->inputs};
  product(&patch_t, p->patch, m->offset, now, p->ld[0], g->first, &plus);
  if (!grad_x) return;
  const Matrix above = {now, p->ld[0], 1, s->widths[0], 0, 1};
  product(&above, count, NULL, p->first_back, p->first_ld, next, &(Epilogue){0});
  add_to_neighbors(s, s->inputs, top, rows, next, p->first_ld, grad_x);
}

/* Gradients of a loss with respect to x, (images, inputs, height, width) or NULL, and to the weights, which must be 0
   at the start, from those with respect to the outputs. Returns 0, or 1 if there is no memory. */
int EXPORT(conv_backward)(const ConvStack *s, const REAL *x, REAL *const *weights, const REAL *grad, REAL *grad_x,
                          REAL *const *grads) {
  Packed p;
  if (pack_weights(s, weights, 1, &p)) return 1;
  const int64_t n = s->hidden, k = s->kernel, r = k / 2, pixels = p.pixels;
  const int64_t size = gradients_size(s, &p);
  REAL *memory = allocate(size * s->threads);
  int failed = memory == NULL;
#pragma omp parallel for num_threads(s->threads) if (s->threads > 1) schedule(static, 1)
  for (int64_t thread = 0; thread < s->threads; thread++) { /* fixed images for each, so that sums are reproducible */
    Workspace m = {0};
    const int64_t image_size = (s->height + k - 1) * (s->width + k - 1);
    REAL *padded_grad = grad_x ? allocate(image_size * s->inputs + LANES) : NULL;
    if (failed || allocate_workspace(s, &p, &m) || (grad_x && !padded_grad)) {
#pragma omp atomic write
      failed = 1;
    } else {
      Gradients g;
      place_gradients(s, &p, memory + thread * size, &g);
      const int64_t from = thread * s->images / s->threads, to = (thread + 1) * s->images / s->threads;
      for (int64_t image = from; image < to; image++) {
        const REAL *rows = grad + image * s->outputs * pixels, *in = x + image * s->image;
        load_image(s, s->inputs, in, s->channel, s->row, s->column, (REAL)s->bound, m.image);
        load_image(s, s->outputs, rows, pixels, s->width, 1, -1, m.other);
        for (int64_t o = 0; o < s->outputs; o++) {
          REAL sum = 0;
          for (int64_t i = 0; i < pixels; i++) sum += rows[o * pixels + i];
          g.last_bias[o] += sum;
        }
        if (padded_grad) memset(padded_grad, 0, image_size * s->inputs * sizeof(REAL));
        for (int64_t top = 0; top < s->height; top += p.band)
          backward_band(s, &p, &m, m.other, padded_grad, top, s->height - top < p.band ? s->height - top : p.band, &g);
        if (!padded_grad) continue;
        for (int64_t c = 0; c < s->inputs; c++)
          for (int64_t y = 0; y < s->height; y++) {
            const REAL *t = padded_grad + ((y + r) * (s->width + 2 * r) + r) * s->inputs + c;
            const REAL *value = in + c * s->channel + y * s->row, bound = (REAL)s->bound;
            REAL *w = grad_x + ((image * s->inputs + c) * s->height + y) * s->width;
            for (int64_t i = 0; i < s->width; i++) {
              const REAL v = value[i * s->column];
              w[i] = bound >= 0 && !(v >= -bound && v <= bound) ? 0 : t[i * s->inputs];
            }
          }
      }
    }
    free(padded_grad);
    free(m.all);
    free(m.offset);
  }
  if (!failed) {
    for (int64_t thread = 1; thread < s->threads; thread++)
      for (int64_t i = 0; i < size; i++) memory[i] += memory[thread * size + i];
    Gradients total;
    place_gradients(s, &p, memory, &total);
    pack(s->widths[0], s->inputs, k, 0, 0, grads[0], total.first, 0, p.ld[0], 1);
    for (int64_t i = 1; i < n; i++)
      for (int64_t o = 0; o < s->widths[i]; o++)
        memcpy(grads[i] + o * s->widths[i - 1], total.middle[i] + o * p.ld[i - 1], s->widths[i - 1] * sizeof(REAL));
    pack(s->outputs, s->widths[n - 1], k, 1, 1, grads[n], total.final, 0, p.ld[n - 1], 1);
    for (int64_t i = 0; i < n; i++) memcpy(grads[n + 1 + i], total.bias[i], s->widths[i] * sizeof(REAL));
    memcpy(grads[2 * n + 1], total.last_bias, s->outputs * sizeof(REAL));
  }
  free(memory);
  free(p.memory);
  return failed;
}
