"""Transformers other than the affine and the rational-quadratic ones, and transforms and models with them."""

from __future__ import annotations

from pushforward import distributions, models, transforms

from .kinds import SMALL, Case, H, ModelCase, TransformCase, f, flow, m

CUBIC = transforms.CubicSplineTransformer(bins=4, bound=3.0)

MIXTURE = transforms.MixtureCDFTransformer(components=3)
SIGMOIDAL = transforms.SigmoidalTransformer(layers=2, units=3)
UMNN = transforms.UnconstrainedMonotoneTransformer(units=3, nodes=48)
SOS = transforms.SumOfSquaresTransformer(polynomials=2, degree=3)
BERNSTEIN = transforms.BernsteinTransformer(degree=6)

TRANSFORMERS: list[Case] = [
    Case("transformers.UnconstrainedMonotoneTransformer", "", transforms.UnconstrainedMonotoneTransformer),
    Case("transformers.SumOfSquaresTransformer", "", transforms.SumOfSquaresTransformer),
    Case("transformers.SumOfSquaresTransformer", "one line", lambda: transforms.SumOfSquaresTransformer(1, 1)),
    Case("transformers.BernsteinTransformer", "", transforms.BernsteinTransformer),
    Case("transformers.BernsteinTransformer", "quadratic", lambda: transforms.BernsteinTransformer(2, 1.0)),
    Case("transformers.MixtureCDFTransformer", "", transforms.MixtureCDFTransformer),
    Case("transformers.SigmoidalTransformer", "", transforms.SigmoidalTransformer),
    Case("transformers.SigmoidalTransformer", "deep", lambda: SIGMOIDAL),
    Case("transformers.LinearSplineTransformer", "", transforms.LinearSplineTransformer),
    Case("transformers.QuadraticSplineTransformer", "", transforms.QuadraticSplineTransformer),
    Case(
        "transformers.QuadraticSplineTransformer", "three bins", lambda: transforms.QuadraticSplineTransformer(3, 1.0)
    ),
    Case("transformers.CubicSplineTransformer", "", transforms.CubicSplineTransformer),
    Case("transformers.CubicSplineTransformer", "two bins", lambda: transforms.CubicSplineTransformer(2, 1.0)),
]

TRANSFORMS: list[TransformCase] = [
    m("MaskedAutoregressive", "sum of squares", lambda: transforms.MaskedAutoregressive(2, SOS, **H)),
    m("Monotone", "mixture CDF, context", lambda: transforms.Monotone(2, MIXTURE, context=1, **H)),
    m("Coupling", "cubic spline", lambda: transforms.Coupling(2, CUBIC, **H)),
    m(
        "MaskedAutoregressive",
        "quadratic spline",
        lambda: transforms.MaskedAutoregressive(3, transforms.QuadraticSplineTransformer(4, 3.0), **H),
    ),
]

MODELS: list[ModelCase] = [
    f("Flow", "integral of a network", flow(lambda: transforms.Monotone(1, UMNN), lambda: distributions.Normal(1))),
    f("Flow", "sum of squares", flow(lambda: transforms.Coupling(2, SOS, **H), lambda: distributions.Normal(2))),
    f(
        "Flow",
        "Bernstein",
        flow(lambda: transforms.Monotone(1, BERNSTEIN, context=1, **H), lambda: distributions.Normal(1)),
    ),
    f("Flow", "mixture CDF", flow(lambda: transforms.Coupling(2, MIXTURE, **H), lambda: distributions.Normal(2))),
    f("Flow", "sigmoidal", flow(lambda: transforms.Monotone(1, SIGMOIDAL), lambda: distributions.Normal(1))),
    f(
        "Flow",
        "linear spline",
        flow(lambda: transforms.Monotone(1, transforms.LinearSplineTransformer(4)), lambda: distributions.Normal(1)),
    ),
    f(
        "Flow",
        "quadratic spline",
        flow(
            lambda: transforms.Coupling(2, transforms.QuadraticSplineTransformer(4), **H),
            lambda: distributions.Normal(2),
        ),
    ),
    f(
        "Flow",
        "cubic spline",
        flow(lambda: transforms.Monotone(1, CUBIC, context=2, **H), lambda: distributions.Normal(1)),
    ),
    f(
        "AutoregressiveFlow",
        "quadratic spline, context",
        lambda: models.AutoregressiveFlow(
            3, context=2, transformer=transforms.QuadraticSplineTransformer(4), layers=2, **SMALL
        ),
        fast="log_prob",
    ),
    f("NAF", "D=1", lambda: models.NAF(1, layers=1, units=3)),
    f("NAF", "context", lambda: models.NAF(3, context=2, layers=2, units=3, **SMALL), fast="log_prob"),
    f("UMNN", "D=1, context", lambda: models.UMNN(1, context=2, layers=1, units=2, nodes=48, **SMALL)),
    f("SOS", "D=3", lambda: models.SOS(3, layers=2, polynomials=2, degree=2, **SMALL), fast="log_prob"),
    f("BernsteinFlow", "D=3", lambda: models.BernsteinFlow(3, layers=2, degree=5, **SMALL), fast="log_prob"),
]
