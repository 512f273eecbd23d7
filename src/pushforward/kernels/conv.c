/* A stack of convolutions, k x k -> 1 x 1 -> ... -> k x k with ReLU between them, on images with zeros around them.

   One pass for each image: what a band of its rows makes of the hidden layers stays in the cache, and a backward pass finds it
   again instead of keeping it. Inside, pixels are rows and channels lie together, so that every layer is a product of
   matrices done by one small kernel (``block``):

   - the first convolution reads patches, which are k stretches of k * channels numbers of a padded image;
   - a 1 x 1 convolution is a product;
   - the last one, which has few outputs, gives every pixel's part in all of its k * k neighbours, which are then added up.

   The backward pass is made of the same three. Each image's arithmetic is the same however many come with it. */

#include "product.c"

#define BAND 256 /* pixels, about */

typedef struct {
  int64_t images, height, width, kernel, inputs, hidden, outputs, threads;
  int64_t image, channel, row, column; /* strides of x, in numbers */
  const int64_t *widths;               /* of the hidden layers */
  double bound;                        /* x is clamped to [-bound, bound]; 0 for no bound */
} Stack;

/* A planar image into a padded one with channels last. */
static void enter(const Stack *s, const int64_t channels, const REAL *from, const int64_t channel, const int64_t row,
                  const int64_t column, const REAL bound, REAL *to) {
  const int64_t r = s->kernel / 2, across = (s->width + 2 * r) * channels;
  for (int64_t c = 0; c < channels; c++)
    for (int64_t y = 0; y < s->height; y++) {
      const REAL *in = from + c * channel + y * row;
      REAL *out = to + (y + r) * across + r * channels + c;
      for (int64_t x = 0; x < s->width; x++) {
        const REAL v = in[x * column];
        out[x * channels] = bound > 0 ? (v > bound ? bound : v < -bound ? -bound : v) : v;
      }
    }
}

static inline __attribute__((always_inline)) void add(const int64_t channels, const int64_t width, const REAL *restrict t,
                                                      const int64_t ld, REAL *restrict to) {
  for (int64_t x = 0; x < width; x++)
    for (int64_t o = 0; o < channels; o++) to[x * channels + o] += t[x * ld + o];
}

/* Every pixel's parts in its neighbours, added up in a padded image with channels last. */
static void spread(const Stack *s, const int64_t channels, const int64_t top, const int64_t rows, const REAL *t,
                   const int64_t ld, REAL *to) {
  const int64_t k = s->kernel, across = (s->width + k - 1) * channels;
  for (int64_t y = 0; y < rows; y++)
    for (int64_t dy = 0; dy < k; dy++)
      for (int64_t dx = 0; dx < k; dx++) {
        const REAL *from = t + y * s->width * ld + (dy * k + dx) * channels;
        REAL *row = to + (top + y + dy) * across + dx * channels;
        switch (channels) {
          case 2: add(2, s->width, from, ld, row); break;
          case 4: add(4, s->width, from, ld, row); break;
          case 8: add(8, s->width, from, ld, row); break;
          case 16: add(16, s->width, from, ld, row); break;
          default: add(channels, s->width, from, ld, row);
        }
      }
}

/* Packed weights and the sizes that follow from a stack. */
typedef struct {
  int64_t pixels, band, inner, outer, last, widest; /* last: padded width of the parts of the outputs */
  int64_t ld[64];                                   /* padded widths of the hidden layers */
  const REAL *bias[64];
  REAL *first, *middle[64], *final;            /* forward */
  REAL *first_back, *middle_back[64], *final_back;
  int64_t patch, parts;                        /* k * k * inputs, k * k * outputs */
  int64_t first_ld;                            /* padded k * k * inputs */
  REAL *memory;
} Packed;

static REAL *reals(int64_t count) {
  REAL *p = aligned_alloc(64, (count * (int64_t)sizeof(REAL) + 63) / 64 * 64);
  if (p) memset(p, 0, count * sizeof(REAL));
  return p;
}

/* Weights: of the first, of those between, of the last, then the biases in this order. */
static int prepare(const Stack *s, REAL *const *weights, const int backward, Packed *p) {
  const int64_t k = s->kernel, n = s->hidden;
  p->patch = k * k * s->inputs, p->parts = k * k * s->outputs;
  p->first_ld = padded(p->patch), p->last = padded(p->parts);
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
  if (backward) size += p->ld[0] * p->first_ld + p->parts * p->ld[n - 1];
  REAL *m = p->memory = reals(size);
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
        memcpy(p->middle_back[i] + o * p->ld[i - 1], weights[i] + o * s->widths[i - 1], s->widths[i - 1] * sizeof(REAL));
    }
  }
  p->final = m, m += p->ld[n - 1] * p->last;
  pack(s->outputs, s->widths[n - 1], k, 1, 1, weights[n], p->final, 1, p->last, 0);
  if (backward) {
    p->final_back = m, m += p->parts * p->ld[n - 1];
    pack(s->outputs, s->widths[n - 1], k, 1, 1, weights[n], p->final_back, 0, p->ld[n - 1], 0);
    p->first_back = m, m += p->ld[0] * p->first_ld;
    pack(s->widths[0], s->inputs, k, 0, 0, weights[0], p->first_back, 1, p->first_ld, 0);
  }
  return 0;
}

/* Where the patches of a band start in a padded image with channels last. */
static void patches(const Stack *s, const int64_t channels, const int64_t top, const int64_t rows, int64_t *place) {
  const int64_t across = (s->width + s->kernel - 1) * channels;
  for (int64_t y = 0; y < rows; y++)
    for (int64_t x = 0; x < s->width; x++) place[y * s->width + x] = (top + y) * across + x * channels;
}

/* The hidden layers of a band. */
static void hidden(const Stack *s, const Packed *p, const REAL *image, const int64_t *place, const int64_t count,
                   REAL *const *h) {
  const int64_t k = s->kernel;
  const Matrix patch = {image, 0, k, k * s->inputs, (s->width + k - 1) * s->inputs, 1};
  product(&patch, count, place, p->first, p->ld[0], h[0], &(Finish){.bias = p->bias[0], .relu = 1});
  for (int64_t i = 1; i < s->hidden; i++) {
    const Matrix before = {h[i - 1], p->ld[i - 1], 1, s->widths[i - 1], 0, 1};
    product(&before, count, NULL, p->middle[i], p->ld[i], h[i], &(Finish){.bias = p->bias[i], .relu = 1});
  }
}

static int64_t scratch(const Stack *s, const Packed *p) {
  const int64_t most = s->inputs > s->outputs ? s->inputs : s->outputs, k = s->kernel;
  const int64_t image = padded((s->height + k - 1) * (s->width + k - 1) * most + LANES);
  int64_t size = 2 * image + 2 * p->band * s->width * p->widest;
  for (int64_t i = 0; i < s->hidden; i++) size += p->band * s->width * p->ld[i];
  return size;
}

/* One thread's memory. */
typedef struct {
  REAL *all, *image, *other, *t, *g, *h[64];
  int64_t *place, size;
} Room;

static int enough(const Stack *s, const Packed *p, Room *room) {
  const int64_t most = s->inputs > s->outputs ? s->inputs : s->outputs, k = s->kernel;
  const int64_t taps = p->patch > p->parts ? p->patch : p->parts, places = p->band * s->width;
  room->size = padded((s->height + k - 1) * (s->width + k - 1) * most + LANES);
  room->all = reals(scratch(s, p));
  room->place = malloc((places > taps ? places : taps) * sizeof(int64_t));
  if (!room->all || !room->place) return 1;
  REAL *m = room->all;
  room->image = m, m += room->size;
  room->other = m, m += room->size;
  room->t = m, m += places * p->widest;
  room->g = m, m += places * p->widest;
  for (int64_t i = 0; i < s->hidden; i++) room->h[i] = m, m += places * p->ld[i];
  return 0;
}

/* Outputs (images, outputs, height, width); not 0 if there is no memory. */
int forward(const Stack *s, const REAL *x, REAL *const *weights, REAL *out) {
  Packed p;
  if (prepare(s, weights, 0, &p)) return 1;
  const int64_t n = s->hidden, r = s->kernel / 2;
  int failed = 0;
#pragma omp parallel num_threads(s->threads) if (s->threads > 1)
  {
    Room m = {0};
    if (enough(s, &p, &m)) {
#pragma omp atomic write
      failed = 1;
    }
#pragma omp for
    for (int64_t image = 0; image < s->images; image++) {
      if (!m.all || !m.place) continue;
      enter(s, s->inputs, x + image * s->image, s->channel, s->row, s->column, (REAL)s->bound, m.image);
      memset(m.other, 0, m.size * sizeof(REAL));
      for (int64_t top = 0; top < s->height; top += p.band) {
        const int64_t rows = s->height - top < p.band ? s->height - top : p.band, count = rows * s->width;
        patches(s, s->inputs, top, rows, m.place);
        hidden(s, &p, m.image, m.place, count, m.h);
        const Matrix h = {m.h[n - 1], p.ld[n - 1], 1, s->widths[n - 1], 0, 1};
        product(&h, count, NULL, p.final, p.last, m.t, &(Finish){0});
        spread(s, s->outputs, top, rows, m.t, p.last, m.other);
      }
      for (int64_t o = 0; o < s->outputs; o++)
        for (int64_t y = 0; y < s->height; y++) {
          const REAL *from = m.other + ((y + r) * (s->width + 2 * r) + r) * s->outputs + o, bias = weights[2 * n + 1][o];
          REAL *to = out + ((image * s->outputs + o) * s->height + y) * s->width;
          for (int64_t c = 0; c < s->width; c++) to[c] = from[c * s->outputs] + bias;
        }
    }
    free(m.all);
    free(m.place);
  }
  free(p.memory);
  return failed;
}

/* Packed gradients of the weights, one thread's. */
typedef struct {
  REAL *first, *middle[64], *final, *bias[64], *last_bias;
} Grads;

static int64_t lay(const Stack *s, const Packed *p, REAL *m, Grads *g) {
  const REAL *start = m;
  const int64_t n = s->hidden;
  g->first = m, m += p->patch * p->ld[0];
  for (int64_t i = 1; i < n; i++) g->middle[i] = m, m += p->ld[i] * p->ld[i - 1];
  g->final = m, m += p->parts * p->ld[n - 1];
  for (int64_t i = 0; i < n; i++) g->bias[i] = m, m += p->ld[i];
  g->last_bias = m, m += padded(s->outputs);
  return m - start;
}

/* Where a patch's numbers lie in it: the rows of its transposed matrix. */
static void taps(const Stack *s, const int64_t channels, const int64_t top, int64_t *place) {
  const int64_t k = s->kernel, across = (s->width + k - 1) * channels;
  for (int64_t dy = 0; dy < k; dy++)
    for (int64_t j = 0; j < k * channels; j++) place[dy * k * channels + j] = (top + dy) * across + j;
}

static void sum_rows(const REAL *from, const int64_t count, const int64_t ld, REAL *restrict to) {
  for (int64_t r = 0; r < count; r++)
    for (int64_t c = 0; c < ld; c++) to[c] += from[r * ld + c];
}

static void band_back(const Stack *s, const Packed *p, const Room *m, const REAL *grad, REAL *grad_x, const int64_t top,
                      const int64_t rows, const Grads *g) {
  const int64_t n = s->hidden, k = s->kernel, count = rows * s->width, across = s->width + k - 1;
  patches(s, s->inputs, top, rows, m->place);
  hidden(s, p, m->image, m->place, count, m->h);
  REAL *now = m->t, *next = m->g;
  const Finish plus = {.add = 1};
  patches(s, s->outputs, top, rows, m->place);
  const Matrix out = {grad, 0, k, k * s->outputs, across * s->outputs, 1};
  product(&out, count, m->place, p->final_back, p->ld[n - 1], now, &(Finish){.mask = m->h[n - 1]});
  taps(s, s->outputs, top, m->place);
  const Matrix out_t = {grad, 0, rows, s->width, across * s->outputs, s->outputs};
  product(&out_t, p->parts, m->place, m->h[n - 1], p->ld[n - 1], g->final, &plus);
  for (int64_t i = n - 1; i > 0; i--) {
    sum_rows(now, count, p->ld[i], g->bias[i]);
    const Matrix now_t = {now, 1, 1, count, 0, p->ld[i]};
    product(&now_t, s->widths[i], NULL, m->h[i - 1], p->ld[i - 1], g->middle[i], &plus);
    const Matrix above = {now, p->ld[i], 1, s->widths[i], 0, 1};
    product(&above, count, NULL, p->middle_back[i], p->ld[i - 1], next, &(Finish){.mask = m->h[i - 1]});
    REAL *swap = now;
    now = next, next = swap;
  }
  sum_rows(now, count, p->ld[0], g->bias[0]);
  taps(s, s->inputs, top, m->place);
  const Matrix patch_t = {m->image, 0, rows, s->width, across * s->inputs, s->inputs};
  product(&patch_t, p->patch, m->place, now, p->ld[0], g->first, &plus);
  if (!grad_x) return;
  const Matrix above = {now, p->ld[0], 1, s->widths[0], 0, 1};
  product(&above, count, NULL, p->first_back, p->first_ld, next, &(Finish){0});
  spread(s, s->inputs, top, rows, next, p->first_ld, grad_x);
}

/* Gradients of a loss by x, (images, inputs, height, width) or NULL, and by the weights, which start at 0, from those by the
   outputs, (images, outputs, height, width); not 0 if there is no memory. */
int backward(const Stack *s, const REAL *x, REAL *const *weights, const REAL *grad, REAL *grad_x, REAL *const *grads) {
  Packed p;
  if (prepare(s, weights, 1, &p)) return 1;
  const int64_t n = s->hidden, k = s->kernel, r = k / 2, pixels = p.pixels;
  Grads total;
  const int64_t size = (lay(s, &p, NULL, &total) + 63) / 64 * 64;
  REAL *memory = reals(size * s->threads);
  int failed = memory == NULL;
#pragma omp parallel for num_threads(s->threads) if (s->threads > 1) schedule(static, 1)
  for (int64_t thread = 0; thread < s->threads; thread++) { /* a fixed share each, so that sums are the same again */
    Room m = {0};
    const int64_t image_size = (s->height + k - 1) * (s->width + k - 1);
    REAL *turned = grad_x ? reals(image_size * s->inputs + LANES) : NULL;
    if (failed || enough(s, &p, &m) || (grad_x && !turned)) {
#pragma omp atomic write
      failed = 1;
    } else {
      Grads g;
      lay(s, &p, memory + thread * size, &g);
      const int64_t from = thread * s->images / s->threads, to = (thread + 1) * s->images / s->threads;
      for (int64_t image = from; image < to; image++) {
        const REAL *rows = grad + image * s->outputs * pixels, *in = x + image * s->image;
        enter(s, s->inputs, in, s->channel, s->row, s->column, (REAL)s->bound, m.image);
        enter(s, s->outputs, rows, pixels, s->width, 1, 0, m.other);
        for (int64_t o = 0; o < s->outputs; o++) {
          REAL sum = 0;
          for (int64_t i = 0; i < pixels; i++) sum += rows[o * pixels + i];
          g.last_bias[o] += sum;
        }
        if (turned) memset(turned, 0, image_size * s->inputs * sizeof(REAL));
        for (int64_t top = 0; top < s->height; top += p.band)
          band_back(s, &p, &m, m.other, turned, top, s->height - top < p.band ? s->height - top : p.band, &g);
        if (!turned) continue;
        for (int64_t c = 0; c < s->inputs; c++)
          for (int64_t y = 0; y < s->height; y++) {
            const REAL *t = turned + ((y + r) * (s->width + 2 * r) + r) * s->inputs + c;
            const REAL *value = in + c * s->channel + y * s->row, bound = (REAL)s->bound;
            REAL *w = grad_x + ((image * s->inputs + c) * s->height + y) * s->width;
            for (int64_t i = 0; i < s->width; i++) {
              const REAL v = value[i * s->column];
              w[i] = bound > 0 && !(v >= -bound && v <= bound) ? 0 : t[i * s->inputs];
            }
          }
      }
    }
    free(turned);
    free(m.all);
    free(m.place);
  }
  if (!failed) {
    for (int64_t thread = 1; thread < s->threads; thread++)
      for (int64_t i = 0; i < size; i++) memory[i] += memory[thread * size + i];
    lay(s, &p, memory, &total);
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
