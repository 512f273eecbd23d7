"""Flows fitted to log-densities whose evidence and moments are known."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch import distributions as td

import pushforward as pf
from pushforward import inference
from pushforward.errors import ConfigError, InputError, PushforwardWarning, TrainingError

QUIET = {"progress": "silent"}


def correlated(x):
    """Unnormalized normal with mean (3, -1), standard deviations (2, 0.5), correlation 0.9."""
    covariance = torch.tensor([[4.0, 0.9], [0.9, 0.25]], dtype=x.dtype)
    offset = x - torch.tensor([3.0, -1.0], dtype=x.dtype)
    return -0.5 * (offset @ torch.linalg.inv(covariance) * offset).sum(-1)


LOG_Z = math.log(2 * math.pi) + 0.5 * math.log(4 * 0.25 - 0.81)


def small(features=2):
    return pf.models.NSF(features, layers=2, hidden=(16,))


def test_a_normal_has_its_evidence_and_moments():
    fit = inference.fit_to_target(2, correlated, max_steps=20, **QUIET)
    assert fit.log_evidence == pytest.approx(LOG_Z, abs=5 * fit.log_evidence_error + 1e-4)
    assert fit.ess > 9_500
    torch.testing.assert_close(fit.mean(), torch.tensor([3.0, -1.0], dtype=torch.float64), atol=0.1, rtol=0)
    torch.testing.assert_close(fit.std(), torch.tensor([2.0, 0.5], dtype=torch.float64), atol=0, rtol=0.05)
    assert fit.dropped_modes == []


@pytest.mark.parametrize(
    ("objective", "gradient"),
    [
        ("reverse-kl", "path"),
        ("importance-weighted", "total"),
        pytest.param("reverse-kl", "total", marks=pytest.mark.slow),
        pytest.param("importance-weighted", "path", marks=pytest.mark.slow),
    ],
)
def test_training_improves_a_banana(objective, gradient):
    """exp(-x^2 / 2 - (y - x^2)^2 / 2) has log Z = log 2 pi."""

    def banana(x):
        return -0.5 * x[:, 0].square() - 0.5 * (x[:, 1] - x[:, 0].square()).square()

    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PushforwardWarning)  # a short run may have a large k-hat
        fit = inference.fit_to_target(
            small(),
            banana,
            objective=objective,
            gradient=gradient,
            max_steps=150,
            batch_size=256,
            learning_rate=5e-3,
            **QUIET,
        )
    history = fit.training.history
    assert history[-1]["validation"] > history[0]["validation"] + 0.05
    if objective == "reverse-kl":
        assert history[-1]["validation"] == pytest.approx(math.log(2 * math.pi), abs=0.1)
    # The weights of so short a run may have a long tail, which the stated error shows.
    assert fit.log_evidence == pytest.approx(math.log(2 * math.pi), abs=0.1 + 3 * fit.log_evidence_error)


def test_the_path_gradient_vanishes_where_q_is_p():
    """Sticking the landing: with p = q every sample's gradient is 0; the total gradient is not."""
    from pushforward.inference.reverse_kl import TargetLoss

    model = small().double()
    model.eval()
    norms = {}
    z = torch.randn(64, 2, dtype=torch.float64)
    frozen = small().double()
    frozen.load_state_dict(model.state_dict())
    target = inference.Target(frozen.eval().log_prob, 2)
    for gradient in ("path", "total"):
        model.zero_grad()
        TargetLoss(model, target, "reverse-kl", 1, gradient)(z, None, generator=torch.Generator()).backward()
        norms[gradient] = math.sqrt(sum(float(p.grad.square().sum()) for p in model.parameters() if p.grad is not None))
    assert norms["path"] < 1e-8
    assert norms["total"] > 1e-3


def test_path_and_total_gradient_have_the_same_mean():
    """The score term that the path gradient leaves out has mean zero."""
    from pushforward.inference.reverse_kl import TargetLoss

    model = small().double().eval()
    target = inference.Target(correlated, 2)
    z = torch.randn(100_000, 2, dtype=torch.float64)
    grads = {}
    for gradient in ("path", "total"):
        model.zero_grad()
        TargetLoss(model, target, "reverse-kl", 1, gradient)(z, None, generator=torch.Generator()).backward()
        grads[gradient] = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    error = (grads["path"] - grads["total"]).norm() / grads["total"].norm()
    assert error < 0.02


def test_parameters_and_conjugate_evidence():
    """Gamma-Poisson: the evidence of counts with a Gamma(2, 1) prior on the rate is known."""
    counts = torch.tensor([3.0, 1.0, 4.0, 2.0], dtype=torch.float64)

    def log_density(v):
        rate = v["rate"]
        return td.Gamma(2.0, 1.0).log_prob(rate) + td.Poisson(rate[:, None]).log_prob(counts.to(rate)).sum(-1)

    space = inference.Parameters(rate=inference.positive())
    fit = inference.fit_to_target(None, log_density, parameters=space, max_steps=200, **QUIET)
    total, n = float(counts.sum()), len(counts)
    truth = math.lgamma(2 + total) - (2 + total) * math.log(1 + n) - sum(math.lgamma(c + 1) for c in counts.tolist())
    assert fit.log_evidence == pytest.approx(truth, abs=0.01)
    assert float(fit.mean()) == pytest.approx((2 + total) / (1 + n), rel=0.03)
    assert (fit.sample(10)["rate"] > 0).all()
    assert fit.resample(10)["rate"].shape == (10,)


def test_training_that_only_lost_says_so():
    """The result was "reliable", with the normal approximation alone."""

    def log_density(v):
        return -0.5 * v.square().sum(-1) - 0.1 * v[:, 0] ** 4

    with pytest.warns(PushforwardWarning, match="training made the flow worse"):
        fit = inference.fit_to_target(
            2, log_density, max_steps=100, evaluate_every=50, learning_rate=0.3, draws=500, seed=0, **QUIET
        )
    assert fit.training.best_step == 0


@pytest.mark.filterwarnings("ignore:the flow lacks")  # after five steps
def test_the_model_is_a_density_of_the_constrained_values_and_is_saved(tmp_path):
    space = inference.Parameters(s=inference.positive(), p=inference.simplex(3), r=inference.correlation(2))
    fit = inference.fit_to_target(
        None,
        lambda v: -v["s"] + v["p"].log().sum(-1) + 0 * v["r"].sum((-1, -2)),
        parameters=space,
        max_steps=5,
        **QUIET,
    )
    pf.save(fit.model, tmp_path / "q.safetensors")
    again = pf.load(tmp_path / "q.safetensors")
    x = fit.draws[:5].float()
    assert torch.equal(again.log_prob(x), fit.model.log_prob(x))
    ratio = fit.target(fit.unconstrained[:5]) - fit.flow.log_prob(fit.unconstrained[:5].float())
    torch.testing.assert_close(ratio.detach(), fit.flow_weights.log_ratios[:5], atol=1e-3, rtol=1e-4)


def test_a_mode_far_away_is_found_and_reported():
    def two(x):
        near = td.MultivariateNormal(torch.zeros(2).to(x), torch.eye(2).to(x)).log_prob(x)
        far = td.MultivariateNormal(torch.full((2,), 12.0).to(x), torch.eye(2).to(x)).log_prob(x)
        return torch.logaddexp(near, far)

    with pytest.warns(PushforwardWarning, match="almost no mass at 1 of"):
        fit = inference.fit_to_target(
            small(), two, starts=torch.zeros(1, 2), restarts=32, spread=15.0, max_steps=20, **QUIET
        )
    assert not fit.reliable
    assert fit.dropped_modes[0].location.tolist() == pytest.approx([12, 12], abs=1e-3)
    assert fit.dropped_modes[0].mass == pytest.approx(0.5, abs=0.05)  # as large as the part that the flow covers


def test_masses_of_modes_are_parts_of_the_whole_target():
    """The flow starts at the mode of a tenth of the mass, so its evidence lacks the other nine tenths."""
    shares = torch.tensor([0.1, 0.9]).log()

    def two(x):
        each = [-0.5 * (x - 6).square().sum(-1), -0.5 * (x + 6).square().sum(-1)]
        return torch.logsumexp(torch.stack(each) + shares.to(x)[:, None], 0)

    with pytest.warns(PushforwardWarning, match=r"at \(-6, -6\) with about 90% of the mass"):
        fit = inference.fit_to_target(2, two, max_steps=50, seed=0, starts=[[6.0, 6.0]], **QUIET)
    found, missed = sorted(fit.modes, key=lambda mode: mode.dropped)
    assert (found.dropped, missed.dropped) == (False, True)
    assert found.mass == pytest.approx(0.1, abs=0.01)
    assert missed.mass == pytest.approx(0.9, abs=0.01)


@pytest.mark.filterwarnings("ignore:.*lower bound")
@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: pf.models.NSF(2, circular=True, hidden=(8,)), r"of this NSF lie in \(-3.14159, 3.14159\)"),
        (
            lambda: pf.models.Flow(
                pf.transforms.Chain(pf.transforms.Bounds(2, (0, 0), (None, None)), *small().chain), small().base
            ),
            r"of this Flow lie in \(0, inf\).*parameters=",
        ),
        (
            lambda: pf.models.Flow(pf.transforms.Bounds(2, (None, 0.0), (None, 1.0)), pf.distributions.Normal(2)),
            r"the reals or \(0, 1\), by coordinate",
        ),
        (
            lambda: pf.models.Flow(pf.transforms.Affine(2), pf.distributions.Uniform(2)),
            r"a part that its base on \(0, 1\) leaves",
        ),
        (lambda: pf.models.Flow(pf.transforms.Reverse(2), pf.distributions.Uniform(2)), r"lie in \(0, 1\)"),
        (lambda: pf.models.Flow(pf.transforms.Sigmoid(2), pf.distributions.Normal(2)), "exact density"),
    ],
    ids=["circular", "positive", "columns", "affine to a box", "box", "gap"],
)
def test_flows_that_are_not_on_the_reals_are_refused(model, message):
    with pytest.raises(ConfigError, match=message):
        inference.fit_to_target(model(), lambda v: -0.5 * v.square().sum(-1), max_steps=2, **QUIET)


def test_a_bad_fit_warns_with_its_k_hat():
    def heavy(x):  # the tails of Student-t with three degrees of freedom
        return -2.0 * torch.log1p(x.square()).sum(-1)

    with pytest.warns(PushforwardWarning, match="k-hat is"):
        fit = inference.fit_to_target(pf.models.NICE(4, layers=2, hidden=(8,)), heavy, max_steps=5, seed=0, **QUIET)
    assert not fit.reliable


def test_half_of_the_space_without_density_warns_and_weights_stay_right():
    """A half normal: mean sqrt(2 / pi), log Z = log sqrt(pi / 2)."""

    def half(x):
        return torch.where(x[:, 0] > 0, -0.5 * x[:, 0].square(), -math.inf)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit = inference.fit_to_target(1, half, starts=[[0.2]], restarts=0, max_steps=10, **QUIET)
    assert any("state the constraints" in str(warning.message) for warning in caught)
    assert fit.log_evidence == pytest.approx(0.5 * math.log(math.pi / 2), abs=0.05)


@pytest.mark.parametrize(
    ("log_density", "message"),
    [
        (lambda x: torch.full((len(x),), math.nan), "not finite at any"),
        (lambda x: torch.full((len(x),), -math.inf), "not finite at any"),
        (lambda x: x, "one number for each"),
        (lambda x: x.detach().sum(-1), "without a gradient"),
    ],
)
def test_bad_log_densities_have_a_sentence(log_density, message):
    with pytest.raises(InputError, match=message):
        inference.fit_to_target(2, log_density, max_steps=5, **QUIET)


def far_away(value):
    """A normal log-density that is something else beyond 4.5, where no draw is before training."""
    return lambda x: torch.where(x[:, 0].abs() < 4.5, -0.5 * x[:, 0].square() - 0.3 * x[:, 0].cos(), value(x))


def test_a_draw_at_which_the_density_raises_does_not_end_the_fit():
    def log_density(x):
        scale = (x[:, 0].abs() < 4.5).to(x.dtype)  # as where a scale underflows
        return far_away(lambda x: 0.0)(x) + torch.distributions.Normal(0.0, scale, validate_args=True).log_prob(
            0 * x[:, 0]
        )

    with pytest.warns(
        PushforwardWarning, match=r"raised an error at \d+ of \d+ points, .*\(the first: ValueError: Exp"
    ) as caught:
        fit = inference.fit_to_target(1, log_density, starts=[[0.1]], spread=1.0, max_steps=20, draws=500, **QUIET)
    assert fit.reliable
    assert {warning.filename for warning in caught} == {__file__}


def test_an_improper_density_is_named_where_the_loss_is_not_finite():
    with pytest.raises(
        TrainingError, match=r"the loss is -inf at step \d+; the model .* The density may be improper"
    ) as caught:
        inference.fit_to_target(
            1, far_away(lambda x: 1e300), starts=[[0.1]], spread=1.0, restarts=0, max_steps=50, **QUIET
        )
    assert " rows" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"objective": "elbo"}, ConfigError, "objective must be"),
        ({"starts": torch.zeros(3, 5)}, ConfigError, r"shape \(k, 2\)"),
        ({"draws": 10}, ConfigError, "draws must be"),
        ({"microbatches": 2}, ConfigError, "leave microbatches out"),
        ({"epochs": 3}, ConfigError, "no rows"),
        ({"compile": True}, ConfigError, "without compilation"),
        ({"nonsense": 1}, TypeError, "no training option"),
    ],
)
def test_bad_options_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        inference.fit_to_target(2, correlated, **({"max_steps": 1} | QUIET | options))


@pytest.mark.parametrize(
    "model",
    [pf.models.NSF(2, context=1, hidden=(8,)), pf.models.ImageNICE((1, 2, 2), hidden=(8,)), "NSF", None],
    ids=["context", "image", "text", "none"],
)
def test_models_that_do_not_fit_are_refused(model):
    with pytest.raises(ConfigError, match="fit_to_target"):
        inference.fit_to_target(model, correlated, max_steps=1, **QUIET)


class Stop(Exception):
    pass


def test_a_killed_run_resumes_bit_by_bit(tmp_path):
    options = {"max_steps": 30, "evaluate_every": 10, "batch_size": 64, "checkpoint_every": 5, "draws": 200, **QUIET}

    def run(**more):
        torch.manual_seed(3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PushforwardWarning)
            return inference.fit_to_target(small(), correlated, **options, **more)

    whole = run()

    def stop_at_20(event):
        if event.step == 20:
            raise Stop

    with pytest.raises(Stop):
        run(checkpoint=tmp_path / "run.ckpt", callback=stop_at_20)
    resumed = run(checkpoint=tmp_path / "run.ckpt", resume=True)
    assert torch.equal(whole.draws, resumed.draws)
    with pytest.raises(TrainingError, match="belongs to another run"):
        torch.manual_seed(3)
        inference.fit_to_target(small(), lambda x: 2 * correlated(x), checkpoint=tmp_path / "run.ckpt", **options)


@pytest.mark.slow
def test_the_iaf_trains_with_the_total_gradient():
    """Its density takes one pass for each coordinate, its samples one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PushforwardWarning)  # a short run may have a large k-hat
        fit = inference.fit_to_target(pf.models.IAF(2, layers=2, hidden=(16,)), correlated, max_steps=300, **QUIET)
    assert fit.log_evidence == pytest.approx(LOG_Z, abs=0.05)


def test_evidence_in_one_dimension_against_quadrature():
    from scipy.integrate import quad

    def log_density(x):
        return -0.25 * x[:, 0] ** 4 + x[:, 0]

    truth = math.log(quad(lambda t: math.exp(-0.25 * t**4 + t), -10, 10)[0])
    fit = inference.fit_to_target(1, log_density, max_steps=100, **QUIET)
    assert fit.log_evidence == pytest.approx(truth, abs=max(5 * fit.log_evidence_error, 1e-3))
    assert fit.reliable


@pytest.mark.parametrize("center", [0.0, 5e6])
def test_a_target_in_large_units(center):
    """Gradients of a normal of width 1e6 are below the tolerance of L-BFGS, and its curvature below their rounding."""
    target = td.Normal(torch.tensor(center, dtype=torch.float64), 1e6)
    fit = inference.fit_to_target(1, lambda x: target.log_prob(x[:, 0].double()), max_steps=100, seed=0, **QUIET)
    assert fit.reliable
    assert fit.log_evidence == pytest.approx(0.0, abs=0.01)
    assert float(fit.mean()[0]) == pytest.approx(center, abs=5e4)
    assert float(fit.std()[0]) == pytest.approx(1e6, rel=0.05)


@pytest.mark.parametrize("small", [1.0, 1e-4])
def test_coordinates_in_units_that_differ(small):
    """Standard deviations of 0.3 and 3e-5 beside 300, and the evidence 1 in each case."""
    unit = torch.tensor([small, 1e3], dtype=torch.float64)
    target = td.Independent(td.Normal(torch.tensor([0.5, -0.5]).double() * unit, 0.3 * unit), 1)
    fit = inference.fit_to_target(2, lambda x: target.log_prob(x.double()), max_steps=20, seed=0, **QUIET)
    assert fit.reliable
    assert fit.log_evidence == pytest.approx(0.0, abs=0.01)
    torch.testing.assert_close(fit.mean().cpu() / unit, torch.tensor([0.5, -0.5]).double(), atol=0.02, rtol=0)
    torch.testing.assert_close(fit.std().cpu() / unit, torch.full((2,), 0.3).double(), atol=0, rtol=0.05)


def test_every_coordinate_has_a_unit_of_its_own():
    """Five correlated coordinates with widths from 1e-3 to 1e7, and means away from the starting points: one mode, evidence 1."""
    mean = torch.tensor([1e-3, 5.0, -1e3, 2e5, 3e7], dtype=torch.float64)
    width = torch.tensor([1e-3, 1.0, 1e2, 1e5, 1e7], dtype=torch.float64)
    correlation = torch.full((5, 5), 0.6, dtype=torch.float64).fill_diagonal_(1.0)
    target = td.MultivariateNormal(mean, correlation * width * width[:, None])
    fit = inference.fit_to_target(5, lambda x: target.log_prob(x.double()), max_steps=20, seed=0, **QUIET)
    assert fit.reliable
    assert fit.log_evidence == pytest.approx(0.0, abs=0.1)
    torch.testing.assert_close((fit.mean().cpu() - mean) / width, torch.zeros(5).double(), atol=0.1, rtol=0)
    torch.testing.assert_close(fit.std().cpu() / width, torch.ones(5).double(), atol=0, rtol=0.1)


@pytest.mark.parametrize("place", [0.0, 3e6])
def test_a_wide_coordinate_beside_a_narrow_one_has_one_mode(place):
    """Each starting point finds the same maximum, also where the gradient of the narrow coordinate hides that of the wide one."""
    width = torch.tensor([1e-4, 1e6], dtype=torch.float64)
    target = td.Independent(td.Normal(torch.tensor([0.3, place], dtype=torch.float64), width), 1)
    starts = 4 * torch.rand(8, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 2
    modes = inference.find_modes(inference.Target(target.log_prob, 2), starts)
    assert len(modes) == 1
    torch.testing.assert_close((modes[0].location - target.mean) / width, torch.zeros(2).double(), atol=0.01, rtol=0)
    assert modes[0].log_mass == pytest.approx(0.0, abs=0.01)


@pytest.mark.parametrize("slope", [1e-7, 1e-6, 1e-3, 1.0, 1e3])
@pytest.mark.parametrize("width", [1, 2])
def test_a_slope_without_end_has_no_mode(slope, width):
    """Also where L-BFGS goes so far that a small step rounds to none."""

    def log_density(x):
        return slope * x[:, -1] - 0.5 * x[:, :-1].square().sum(-1)

    with pytest.raises(InputError, match="grows without bound"):
        inference.find_modes(inference.Target(log_density, width), torch.zeros(3, width) + torch.arange(3.0)[:, None])


def test_a_fit_is_not_lost_where_the_search_for_further_modes_fails():
    """log p rises without end beyond 30, where only the wide starting points after training get."""

    def log_density(x):
        return torch.where(x[:, 0] < 30, -0.5 * x[:, 0].square(), x[:, 0] - 480)

    start = torch.zeros(1, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = inference.fit_to_target(
            1, log_density, starts=start, restarts=4, spread=100.0, max_steps=5, seed=0, **QUIET
        )
    assert float(fit.std()[0]) > 0.5


@pytest.mark.parametrize(("constraint", "start"), [(inference.interval(0.0, 1.0), 2.0), (inference.positive(), -1.0)])
def test_starting_points_outside_the_constraints_are_refused(constraint, start):
    with pytest.raises(ConfigError, match="does not satisfy the constraints"):
        inference.fit_to_target(
            None,
            lambda v: -v["a"],
            parameters=inference.Parameters(a=constraint),
            starts=[[start]],
            max_steps=1,
            **QUIET,
        )


@pytest.mark.filterwarnings("ignore:the flow lacks")  # after twenty steps
def test_a_parameter_that_float32_rounds_is_not_reliable():
    """Numbers near 2460000.5, a Julian date, are 0.25 apart in float32; in double precision the fit is right."""
    truth = td.Normal(torch.tensor(2460000.5, dtype=torch.float64), 0.1)

    def log_density(x):
        return truth.log_prob(x)[:, 0]

    options = {"starts": [[2460000.0]], "max_steps": 20, **QUIET}
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        fit = inference.fit_to_target(1, log_density, **options)
    messages = [str(each.message) for each in given]
    assert any("parameter 0 varies so little beside its mean" in text and ".double()" in text for text in messages)
    assert not any("column" in text for text in messages)
    assert not fit.reliable
    assert fit.unresolved == ["0"]
    named = pf.inference.Parameters(rate=inference.positive(), time=inference.real())
    with pytest.warns(PushforwardWarning, match="parameter time varies so little"):
        fit = inference.fit_to_target(
            None,
            lambda v: truth.log_prob(v["time"]) - v["rate"],
            parameters=named,
            **options | {"starts": [[1.0, 2460000.0]]},
        )
    double = inference.fit_to_target(inference.default_flow(1).double(), log_density, **options)
    assert double.reliable
    assert double.unresolved == []
    assert float(double.std()) == pytest.approx(0.1, rel=0.05)
    assert double.log_evidence == pytest.approx(0.0, abs=5 * double.log_evidence_error + 1e-3)


def test_a_very_narrow_target_gets_the_advice_to_change_its_unit():
    truth = td.Normal(torch.tensor([1e-14, 0.0], dtype=torch.float64), torch.tensor([1e-14, 1.0], dtype=torch.float64))
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        inference.fit_to_target(2, lambda x: truth.log_prob(x).sum(-1), max_steps=20, **QUIET)
    assert any(
        "Give parameter 0, which varies by less than 1e-08, a larger unit" in str(each.message) for each in given
    )


def test_draws_by_weights_differ_without_a_seed():
    fit = inference.fit_to_target(1, lambda x: -0.5 * x.square().sum(-1), max_steps=1, **QUIET)
    assert not torch.equal(fit.resample(20), fit.resample(20))
    assert torch.equal(fit.resample(20, seed=3), fit.resample(20, seed=3))


@pytest.mark.parametrize(
    ("starts", "error", "message"),
    [
        ([[math.nan, 0.0]], ConfigError, "a starting point contains NaN or infinity"),
        ("ab", InputError, "starts must be real numbers of one shape"),
        ([[1.0, 2.0], [1.0]], InputError, "starts must be real numbers of one shape"),
        ([], ConfigError, "at least one row"),
    ],
)
def test_starting_points_that_are_none_are_refused(starts, error, message):
    with pytest.raises(error, match=message):
        inference.fit_to_target(2, correlated, starts=starts, max_steps=2, **QUIET)
