"""Scalar laws beside the affine and the rational-quadratic ones, and maps and models made with them."""

from __future__ import annotations

from pushforward import bases, maps, models

from .kinds import SMALL, Case, H, MapCase, ModelCase, f, flow, m

CUBIC = maps.CubicSplineTransformer(bins=4, bound=3.0)

MIXTURE = maps.MixtureCDFTransformer(components=3)
SIGMOIDAL = maps.SigmoidalTransformer(layers=2, units=3)
UMNN = maps.UnconstrainedMonotoneTransformer(units=3, nodes=48)
SOS = maps.SumOfSquaresTransformer(polynomials=2, degree=3)
BERNSTEIN = maps.BernsteinTransformer(degree=6)

TRANSFORMERS: list[Case] = [
    Case("transformers.UnconstrainedMonotoneTransformer", "", maps.UnconstrainedMonotoneTransformer),
    Case("transformers.SumOfSquaresTransformer", "", maps.SumOfSquaresTransformer),
    Case("transformers.SumOfSquaresTransformer", "one line", lambda: maps.SumOfSquaresTransformer(1, 1)),
    Case("transformers.BernsteinTransformer", "", maps.BernsteinTransformer),
    Case("transformers.BernsteinTransformer", "quadratic", lambda: maps.BernsteinTransformer(2, 1.0)),
    Case("transformers.MixtureCDFTransformer", "", maps.MixtureCDFTransformer),
    Case("transformers.SigmoidalTransformer", "", maps.SigmoidalTransformer),
    Case("transformers.SigmoidalTransformer", "deep", lambda: SIGMOIDAL),
    Case("transformers.LinearSplineTransformer", "", maps.LinearSplineTransformer),
    Case("transformers.QuadraticSplineTransformer", "", maps.QuadraticSplineTransformer),
    Case("transformers.QuadraticSplineTransformer", "three bins", lambda: maps.QuadraticSplineTransformer(3, 1.0)),
    Case("transformers.CubicSplineTransformer", "", maps.CubicSplineTransformer),
    Case("transformers.CubicSplineTransformer", "two bins", lambda: maps.CubicSplineTransformer(2, 1.0)),
]

MAPS: list[MapCase] = [
    m("MaskedAutoregressive", "sum of squares", lambda: maps.MaskedAutoregressive(2, SOS, **H)),
    m("Monotone", "mixture CDF, context", lambda: maps.Monotone(2, MIXTURE, context=1, **H)),
    m("Coupling", "cubic spline", lambda: maps.Coupling(2, CUBIC, **H)),
    m(
        "MaskedAutoregressive",
        "quadratic spline",
        lambda: maps.MaskedAutoregressive(3, maps.QuadraticSplineTransformer(4, 3.0), **H),
    ),
]

MODELS: list[ModelCase] = [
    f("Flow", "integral of a network", flow(lambda: maps.Monotone(1, UMNN), lambda: bases.Normal(1))),
    f("Flow", "sum of squares", flow(lambda: maps.Coupling(2, SOS, **H), lambda: bases.Normal(2))),
    f("Flow", "Bernstein", flow(lambda: maps.Monotone(1, BERNSTEIN, context=1, **H), lambda: bases.Normal(1))),
    f("Flow", "mixture CDF", flow(lambda: maps.Coupling(2, MIXTURE, **H), lambda: bases.Normal(2))),
    f("Flow", "sigmoidal", flow(lambda: maps.Monotone(1, SIGMOIDAL), lambda: bases.Normal(1))),
    f(
        "Flow",
        "linear spline",
        flow(lambda: maps.Monotone(1, maps.LinearSplineTransformer(4)), lambda: bases.Normal(1)),
    ),
    f(
        "Flow",
        "quadratic spline",
        flow(lambda: maps.Coupling(2, maps.QuadraticSplineTransformer(4), **H), lambda: bases.Normal(2)),
    ),
    f("Flow", "cubic spline", flow(lambda: maps.Monotone(1, CUBIC, context=2, **H), lambda: bases.Normal(1))),
    f("NAF", "D=1", lambda: models.NAF(1, layers=1, units=3)),
    f("NAF", "context", lambda: models.NAF(3, context=2, layers=2, units=3, **SMALL), fast="log_prob"),
    f("UMNN", "D=1, context", lambda: models.UMNN(1, context=2, layers=1, units=2, nodes=48, **SMALL)),
    f("SOS", "D=3", lambda: models.SOS(3, layers=2, polynomials=2, degree=2, **SMALL), fast="log_prob"),
    f("BernsteinFlow", "D=3", lambda: models.BernsteinFlow(3, layers=2, degree=5, **SMALL), fast="log_prob"),
]
