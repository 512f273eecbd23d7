"""Numerical guards: bounds, stable functions, roots, Jacobians, noise of rows, seeds, long sums, checks of arguments and of tracing."""

from pushforward.numerics.checks import (
    check_choice,
    check_indices,
    check_integer,
    check_number,
    check_positive,
    check_seed,
    check_widths,
)
from pushforward.numerics.clamp import (
    bound_input,
    bound_square,
    cast_finite,
    soft_clamp,
    softsign_clamp,
    split_infinite,
)
from pushforward.numerics.functions import (
    inverse_softplus,
    log1mexp,
    log1p_square,
    log_sum,
    logmeanexp,
    minus_log_cosh,
    softplus_positive,
    sum_event,
    unsoftplus,
)
from pushforward.numerics.jacobian import batch_jacobian, log_abs_det, push_forward
from pushforward.numerics.noise import MiddleNoise, Noise, RowNoise, draw_category, normal_like, uniform_like
from pushforward.numerics.precision import full_precision
from pushforward.numerics.roots import contraction_root, monotone_root
from pushforward.numerics.running import RunningMean
from pushforward.numerics.seeding import seeded
from pushforward.numerics.tracing import (
    constant,
    is_capturing,
    is_compiling,
    is_eager,
    is_recording,
    is_transformed,
    keeps_distribution_checks,
    may_check_values,
)

__all__ = [
    "MiddleNoise",
    "Noise",
    "RowNoise",
    "RunningMean",
    "batch_jacobian",
    "bound_input",
    "bound_square",
    "cast_finite",
    "check_choice",
    "check_indices",
    "check_integer",
    "check_number",
    "check_positive",
    "check_seed",
    "check_widths",
    "constant",
    "contraction_root",
    "draw_category",
    "full_precision",
    "inverse_softplus",
    "is_capturing",
    "is_compiling",
    "is_eager",
    "is_recording",
    "is_transformed",
    "keeps_distribution_checks",
    "log1mexp",
    "log1p_square",
    "log_abs_det",
    "log_sum",
    "logmeanexp",
    "may_check_values",
    "minus_log_cosh",
    "monotone_root",
    "normal_like",
    "push_forward",
    "seeded",
    "soft_clamp",
    "softplus_positive",
    "softsign_clamp",
    "split_infinite",
    "sum_event",
    "uniform_like",
    "unsoftplus",
]
