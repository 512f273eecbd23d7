/* Splines of all elements of an array, and their gradients (kernels/spline.py). */

#include "spline.h"

/* Gradients of a loss with respect to x and raw, from those with respect to y and the log-slope. For the inverse, x is
   what the inverse returned, grad_y the gradient with respect to it, and grad_x the gradient with respect to its
   argument. */
static void backward_tile(const SplineLayout *l, int64_t tile, const REAL *x, const REAL *raw, const REAL *grad_y,
                          const REAL *grad_log_slope, REAL *grad_x, REAL *grad_raw) {
  const int bins = (int)l->bins, rows = l->periodic ? 3 * bins : 3 * bins - 1;
  const REAL bound = (REAL)l->bound, smallest = (REAL)(2 * l->bound * l->smallest);
  const REAL spare = (REAL)(2 * l->bound * (1 - l->bins * l->smallest));
  Offsets value, parameter, target;
  Bin p;
  vec parameters[rows], at, gy, v;
  find_offsets(l, tile, l->value_outer, l->value_inner, &value);
  find_offsets(l, tile, l->raw_outer, l->raw_inner, &parameter);
  find_offsets(l, tile, l->grad_outer, l->grad_inner, &target);
  gather(x, &value, 1, 0, &at);
  gather(grad_y, &value, 1, 0, &gy);
  gather(grad_log_slope, &value, 1, 0, &v);
  gather(raw, &parameter, rows, l->raw_first, parameters);
  find_bin(parameters, l, 0, at, &p);
  const vec start = p.start, end = p.end, height = p.size[1], narrow = 1 / p.size[0], s = height * narrow;
  const vec bend = start + end - 2 * s;
  const vec q = clamp((p.x - p.low[0]) * narrow, 0, 1), t = 1 - q, qt = q * t, over = 1 / (s + bend * qt);
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
#define INSIDE(x) pick(p.inside, x, all(0))
  const vec g_low[2] = {INSIDE(-g_q), INSIDE(u)};
  const vec g_size[2] = {INSIDE(-(g_s * s * narrow + g_q * q)), INSIDE(u * rise + g_s * narrow)};
  const vec g_start = INSIDE(g_a * start * (1 - p.start_tanh * p.start_tanh));
  const vec g_end = INSIDE(g_b * end * (1 - p.end_tanh * p.end_tanh));
#undef INSIDE
  gy = pick(p.inside, l->inverse ? back : g_q, gy);
  scatter(&gy, &value, 1, 0, grad_x);
  for (int side = 0; side < 2; side++) {
    /* spare times the softmax: summed over the bins before this one, and of this one. */
    const vec before = p.low[side] + bound - smallest * __builtin_convertvector(p.bin, vec),
              own = p.size[side] - smallest;
    const vec mean = (g_low[side] * before + g_size[side] * own) / spare, scale = spare * p.norm[side];
    for (int j = 0; j < bins; j++) {
      const vec part = pick(p.bin == j, g_size[side], pick(p.bin > j, g_low[side], all(0)));
      parameters[side * bins + j] *= scale * (part - mean);
    }
  }
  for (int k = 0; k < rows - 2 * bins; k++)
    parameters[2 * bins + k] =
        pick(p.bin == bin_after(l, k), g_start, all(0)) + pick(p.bin == bin_before(l, k), g_end, all(0));
  scatter(parameters, &target, rows, l->grad_first, grad_raw);
}

void EXPORT(spline_forward)(const SplineLayout *l, const REAL *x, const REAL *raw, REAL *y, REAL *log_slope) {
  const int64_t tiles = (l->outer * l->inner + TILE - 1) / TILE;
#pragma omp parallel for num_threads(l->threads) if (l->threads > 1)
  for (int64_t tile = 0; tile < tiles; tile++) forward_tile(l, tile, x, raw, y, log_slope);
}

void EXPORT(spline_backward)(const SplineLayout *l, const REAL *x, const REAL *raw, const REAL *grad_y,
                             const REAL *grad_log_slope, REAL *grad_x, REAL *grad_raw) {
  const int64_t tiles = (l->outer * l->inner + TILE - 1) / TILE;
#pragma omp parallel for num_threads(l->threads) if (l->threads > 1)
  for (int64_t tile = 0; tile < tiles; tile++) backward_tile(l, tile, x, raw, grad_y, grad_log_slope, grad_x, grad_raw);
}
