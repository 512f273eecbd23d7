"""Bits/dim against CPU time: training on a clock that resumes, comparisons of results, peers, and each paper's part of a long run."""

import json
import math
import types
from functools import partial

import pytest
import torch
from torch import nn

import pushforward as pf
from papers.claims import cef, funnels, glow, iresnet, nsf, nxn
from papers.claims.cef import NoisyPixels, flat_embedding, thick_bits
from papers.claims.iresnet import unbiased_bits
from papers.claims.nsf import affine_flow
from papers.experiment import Experiment, size
from papers.flows import against_time, timed_training
from papers.flows.against_time import (
    Found,
    draw,
    limit_of,
    pictures,
    report_ahead,
    report_peers,
    run_contenders,
)
from papers.flows.glow_setting import PEERS
from papers.flows.image_peers import PeerDensity, lipschitz_bound, peer_model
from papers.flows.timed_training import Contender, Limit, Pictures, train_for
from papers.headlines import HELD, PARTLY, Headline
from papers.report import Report
from papers.reproduction import Finding
from pushforward.errors import KindError, StorageError
from pushforward.models import Glow, ImageNSF, ImageResidualFlow, Model

SHAPE = (1, 4, 4)


class KilledError(Exception):
    """Stands for the death of the process."""


def quiet(out, budget="smoke", seeds=None) -> Experiment:
    return Experiment("toy", budget, out, seeds=seeds, say=lambda line: None)


def some(train: int = 40) -> Pictures:
    """Images whose pixels are nearly equal to each other, from 100 to 142."""
    draw = torch.Generator().manual_seed(0)

    def images(count: int) -> torch.Tensor:
        level = torch.randint(100, 140, (count, 1, 1, 1), generator=draw)
        return (level + torch.randint(3, (count, *SHAPE), generator=draw)).to(torch.uint8)

    return Pictures("noise", images(train), images(10), images(12), 8)


def small(**options) -> Model:
    return Glow(SHAPE, scales=1, layers=1, hidden=(4, 4), alpha=None, **options)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """CPU time that only training steps move, a second each."""
    now = [0.0]

    def step(*args, **options) -> bool:
        now[0] += 1.0
        return real(*args, **options)

    real = timed_training._step
    monkeypatch.setattr(timed_training, "_step", step)
    monkeypatch.setattr(
        timed_training, "time", types.SimpleNamespace(process_time=lambda: now[0], monotonic=lambda: 0.0)
    )
    return now


def test_training_stops_when_the_cpu_time_is_used_and_evaluations_take_none(tmp_path, clock):
    def slow(model: Model, rows: torch.Tensor) -> float:
        clock[0] += 100.0
        return timed_training.held_out_bits(model, rows)

    result = train_for(
        Contender("a", small, bits=slow), some(), Limit(20), rate=1e-2, seed=0, checkpoint=tmp_path / "c", fractions=(0.1, 0.5)
    )  # fmt: skip
    assert result["steps"] == 20
    assert result["seconds"] == 20
    assert [seconds for seconds, _ in result["curve"]] == [2, 10, 20]
    assert result["curve"][-1][1] < result["curve"][0][1]
    assert result["parameters"] == size(small())


def test_a_killed_training_goes_on_with_its_clock_and_ends_with_the_same_weights(tmp_path, clock, monkeypatch):
    monkeypatch.setattr(timed_training, "SAVED", -1.0)  # a checkpoint before each step
    run = partial(train_for, images=some(), limit=Limit(12), rate=1e-2, seed=3, fractions=(0.25, 0.5))
    whole = run(Contender("a", small), checkpoint=tmp_path / "whole")
    seen: list[int] = []

    def die(model: Model, rows: torch.Tensor) -> float:
        seen.append(len(rows))
        if len(seen) == 2:
            raise KilledError
        return timed_training.held_out_bits(model, rows)

    with pytest.raises(KilledError):
        run(Contender("a", small, bits=die), checkpoint=tmp_path / "killed")
    before = clock[0]
    resumed = run(Contender("a", small), checkpoint=tmp_path / "killed")
    assert clock[0] - before == 7  # of 12 steps, 6 were made and the last of them is not in the checkpoint
    assert resumed["steps"] == whole["steps"] == 12
    assert resumed["curve"] == whole["curve"]
    rows = some().test
    assert torch.equal(resumed["model"].evaluate(rows).value, whole["model"].evaluate(rows).value)
    with pytest.raises(StorageError, match="another run"):
        run(Contender("b", small), checkpoint=tmp_path / "killed")


def test_phases_share_the_time_and_resume_in_the_right_one(tmp_path, clock, monkeypatch):
    monkeypatch.setattr(timed_training, "SAVED", -1.0)
    made: list[NoisyPixels] = []

    def make() -> NoisyPixels:
        made.append(NoisyPixels(SHAPE, 4, embedding=flat_embedding(SHAPE), layers=1, hidden=(4,)))
        return made[-1]

    phases: list[str] = []

    def look(model: Model, rows: torch.Tensor) -> float:
        phases.append(model.phase)  # pyright: ignore[reportArgumentType]
        if len(phases) == 3:
            raise KilledError
        return 0.0

    contender = Contender("a", make, phases=(("manifold", 0.5), ("density", 1.0)), bits=look)
    run = partial(train_for, contender, some(), Limit(20), rate=1e-2, seed=0, checkpoint=tmp_path / "c")
    with pytest.raises(KilledError):
        run(fractions=(0.2, 0.4, 0.8))
    kept = made[-1].embedding.state_dict()["transforms.3.vectors"].clone()
    run(fractions=(0.2, 0.4, 0.8))
    assert phases == ["manifold", "manifold", "density", "density", "density"]
    assert torch.equal(made[-1].embedding.state_dict()["transforms.3.vectors"], kept)  # frozen in the second phase


def test_the_learning_rate_falls_from_its_start_to_0_in_each_phase():
    state = timed_training._State(phase=0)
    assert timed_training._cosine(0.0, state, [0.5, 1.0]) == 1.0
    assert timed_training._cosine(0.25, state, [0.5, 1.0]) == pytest.approx(0.5)
    state.phase, state.phase_began = 1, 0.5
    assert timed_training._cosine(0.5, state, [0.5, 1.0]) == 1.0
    assert timed_training._cosine(1.0, state, [0.5, 1.0]) == pytest.approx(0.0)


class Exploding(nn.Module):
    """A density whose loss is infinite from the third batch on."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.calls = 0

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.weight * z.flatten(1).sum(1) + (math.inf if self.calls > 3 else 0.0)


def test_a_diverged_training_has_no_figure_and_ends_early(tmp_path):
    def make() -> Model:
        flow = Exploding()
        return peer_model(SHAPE, (flow, flow))

    images = some()
    result = train_for(
        Contender("a", make), images, Limit(steps=10), rate=1e-2, seed=0, checkpoint=tmp_path / "c", fractions=()
    )
    assert result["model"] is None
    assert result["steps"] == 3


def test_bits_that_no_probability_can_have_do_not_count(tmp_path):
    assert [timed_training.possible(bits) for bits in (3.5, -4766.0, 0.0, math.inf, math.nan, None)] == [True] + 5 * [
        False
    ]
    contender = Contender("a", small, bits=lambda model, rows: -4766.0)
    result = train_for(contender, some(), Limit(steps=2), rate=1e-3, seed=0, checkpoint=tmp_path / "c")
    assert result["model"] is None


def test_a_held_out_figure_of_infinity_on_the_way_is_no_obstacle_to_checkpoints(tmp_path, monkeypatch):
    monkeypatch.setattr(timed_training, "SAVED", -1.0)  # a checkpoint before each step
    found = iter([math.inf, math.nan, 3.5])
    contender = Contender("a", small, bits=lambda model, rows: next(found))
    result = train_for(
        contender, some(), Limit(steps=4), rate=1e-3, seed=0, checkpoint=tmp_path / "c", fractions=(0.25, 0.5)
    )
    assert [bits for _, bits in result["curve"]] == [None, None, 3.5]
    assert result["model"] is not None


def test_a_peer_has_our_dequantization_and_our_bits():
    """A uniform density on (-1/2, 1/2) of each pixel has 8 bits/dim, and a narrower one that covers the pixels fewer."""
    flow = nn.Linear(1, 1)

    def density(width: float):
        return lambda z: torch.where(
            (z.flatten(1).abs() <= width / 2).all(1), -math.prod(SHAPE) * math.log(width), -math.inf
        )

    rows = some().test  # after the shift from -0.11 to 0.06
    assert timed_training.held_out_bits(peer_model(SHAPE, (flow, density(1.0))), rows) == pytest.approx(8.0, abs=1e-6)
    assert timed_training.held_out_bits(peer_model(SHAPE, (flow, density(0.25))), rows) == pytest.approx(6.0, abs=1e-6)
    with pytest.raises(KindError, match="its own library"):
        peer_model(SHAPE, (flow, density(1.0))).sample(2)


def test_actnorms_of_a_peer_are_initialized_in_training_mode():
    flow, modes = nn.Linear(1, 1).eval(), []
    peer = PeerDensity(SHAPE, flow, lambda z: modes.append(flow.training) or z.flatten(1).sum(1))
    peer.initialize(torch.zeros(2, *SHAPE))
    assert modes == [True]
    assert not flow.training


@pytest.mark.parametrize("case", ["Glow", "NSF", "affine NSF", "full width"])
def test_flows_of_nflows_have_the_log_determinant_of_autograd(case):
    pytest.importorskip("nflows")
    from papers.flows.image_peers import nflows_image

    name, options = ("NSF", {"factor_out": False}) if case == "full width" else (case, {})
    model = nflows_image(name, (1, 4, 4), 1, 2, 4, bins=4, blocks=1, **options)
    flow = model.base.flow.double()  # pyright: ignore[reportAttributeAccessIssue, reportCallIssue]
    x = 0.3 * torch.randn(1, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    model.base.initialize(x.expand(4, -1, -1, -1) + 0.1 * torch.randn(4, 1, 4, 4, dtype=torch.float64))
    flow.eval()
    jacobian = torch.autograd.functional.jacobian(lambda y: flow._transform(y)[0].flatten(), x).reshape(16, 16)
    base = flow._distribution.log_prob(flow._transform(x)[0])
    assert flow.log_prob(x).item() == pytest.approx((base + torch.linalg.slogdet(jacobian)[1]).item(), abs=1e-8)


def test_layers_of_normflows_keep_their_bound_while_they_train():
    """Its layers scale by estimates of norms that only its ``update_lipschitz`` refreshes; without it the bound below is above 10."""
    pytest.importorskip("normflows")
    from papers.flows.image_peers import normflows_residual

    torch.manual_seed(0)
    model = normflows_residual(SHAPE, 1, 1, 16, 0.9, 0.05)
    model.initialize(some().train.float())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(30):
        optimizer.zero_grad()
        model.loss(some().train[:8].float()).backward()
        optimizer.step()
    model.loss(some().train[:8].float())
    assert lipschitz_bound(model) < 1


def test_a_norm_above_its_bound_is_found():
    """Convolutions of one channel that multiply by 2, 1 and 1 have the norm 2, whatever the peer's estimate says."""
    normflows = pytest.importorskip("normflows")
    network = normflows.nets.LipschitzCNN([1, 1, 1, 1], [3, 1, 3], lipschitz_const=0.9)
    network(torch.zeros(1, 1, 4, 4))
    with torch.no_grad():
        for layer, factor in zip((network.net[1], network.net[3], network.net[5]), (2.0, 1.0, 1.0), strict=True):
            layer.weight.zero_()
            layer.weight[0, 0, layer.weight.shape[2] // 2, layer.weight.shape[3] // 2] = factor
            layer.u.zero_()  # an estimate of 0, so that nothing is scaled down
    assert lipschitz_bound(network) == pytest.approx(2.0, rel=1e-3)


def test_the_affine_flow_is_the_spline_flow_with_affine_couplings():
    """Per coupling, an affine transformer has 2 parameters for a coordinate, and one of 4 bins 11: only the last convolution differs."""
    options = {"scales": 1, "layers": 2, "hidden": (6,)}
    spline, affine = ImageNSF((2, 4, 4), bins=4, alpha=None, **options), affine_flow((2, 4, 4), **options)
    outputs = 4 * (11 - 2)  # half of 8 channels
    assert size(spline) - size(affine) == 2 * outputs * (6 * 9 + 1)
    x = torch.randint(256, (3, 2, 4, 4))
    assert torch.equal(affine.decode(affine.encode(x, float64=True), float64=True), x.double())


def test_thick_bits_are_those_of_a_normal_density_of_all_pixels():
    """With a flow that is only a scaling, the density is a normal one with a known mean and covariance."""
    model = NoisyPixels(SHAPE, 4, embedding=flat_embedding(SHAPE), layers=0).double()
    images = some()
    model.initialize(images.train.double())
    with torch.no_grad():
        rows = images.test
        noise = pf.transforms.UniformDequantize(SHAPE, 256)
        x, reference = (256 * noise.encode(part.float()).z.double() for part in (rows, images.train))
        variance = model.evaluate(reference).residual.mean() / 12  # pyright: ignore[reportOptionalMemberAccess]
        origin = model.decode(torch.zeros(1, 4, dtype=torch.float64)).flatten()
        columns = (
            model.decode(torch.eye(4, dtype=torch.float64)).flatten(1) - origin
        ).T  # x = origin + columns u, u standard normal
        axes = torch.linalg.qr(columns).Q
        covariance = columns @ columns.T + variance * (torch.eye(16, dtype=torch.float64) - axes @ axes.T)
        # The part of the mean that is off the manifold is the origin's, since the way to the manifold is measured from it.
        truth = torch.distributions.MultivariateNormal(origin, covariance).log_prob(x.flatten(1))
    expected = -truth.mean().item() / (16 * math.log(2))
    assert thick_bits(model, rows, images.train) == pytest.approx(expected, abs=1e-4)


def test_unbiased_bits_average_to_the_exact_ones():
    model = ImageResidualFlow(SHAPE, blocks=1, hidden=(4, 4), scales=1, alpha=0.05, terms=2)
    torch.manual_seed(0)
    for weight in model.parameters():
        weight.data.add_(0.3 * torch.randn_like(weight))
    rows = some().test
    estimates = torch.tensor([unbiased_bits(model, rows, first=k) for k in range(80)])
    assert model.log_det == "roulette"
    model.set_log_det("exact")
    with torch.no_grad():
        exact = -model.evaluate(rows, seed=0).value.double().mean().item() / (16 * math.log(2))
        drawn = torch.stack([model.evaluate(rows, seed=k).value.double().mean() for k in range(80)]).mean()
    assert abs(estimates.mean() - -drawn / (16 * math.log(2))) < 4 * estimates.std() / 80**0.5
    assert exact == pytest.approx((-drawn / (16 * math.log(2))).item(), abs=0.2)


def found(bits: dict[str, list[float | None]], missing: dict[str, str] | None = None) -> Found:
    runs = {
        name: [
            {"bits": value, "parameters": 7, "steps": 9, "rate": 1e-3, "curve": [[1.0, 5.0], [9.0, 4.0]]}
            for value in values
        ]
        for name, values in bits.items()
    }
    return Found(runs, missing or {}, Limit(120), some())


def test_a_model_is_ahead_by_a_paired_t_test_over_seeds():
    many = found(
        {"a": [3.0, 3.1, 3.2], "b": [3.1, 3.21, 3.3], "c": [3.3, 3.0, 3.2], "d": [3.2, None, 3.41], "e": [None] * 3}
    )
    assert many.below("a", "b") is True
    assert many.below("b", "a") is False
    assert many.below("a", "c") is False
    assert many.not_behind("a", "c") is True
    assert many.not_behind("b", "a") is False
    assert many.below("d", "a") is False
    assert many.not_behind("d", "a") is False
    assert many.below("a", "d") is True  # by 0.2 and 0.21
    assert many.below("a", "e") is None
    assert many.compare("b", "a") == "a is ahead of b by 0.103 ± 0.006 bits/dim"
    assert many.compare("a", "c").endswith(", which is not clear")
    assert many.text("d") == "3.305 ± 0.148 (1 of 3 diverged)"
    one = found({"a": [3.0], "b": [3.03], "d": [None]})
    assert one.below("a", "b") is None
    assert one.below("b", "a") is None
    assert one.not_behind("b", "a") is None
    assert one.compare("a", "b") == "a is ahead of b by 0.030 bits/dim with one seed"
    assert "trainings diverged" in one.compare("a", "d")
    assert one.text("d") == "– (1 of 1 diverged)"


def test_findings_confirm_what_the_figures_show(tmp_path):
    experiment = quiet(tmp_path, "long")
    two = found({"a": [3.0, 3.1], "b": [3.03, 3.131], "c": [3.01, 3.09]}, {"nflows c": "nflows"})
    report_ahead(experiment, "clear", two, "a", ["b"])
    report_ahead(experiment, "one is not clear", two, "a", ["b", "c"])
    report_ahead(experiment, "behind", two, "b", ["a"])
    report_ahead(experiment, "level", two, "a", ["c"], level=True)
    report_ahead(experiment, "not level", two, "b", ["a"], level=True)
    report_peers(experiment, "missing", two, "a", ["nflows c"])
    report_peers(experiment, "there", two, "a", ["b"])
    report_peers(experiment, "behind it", two, "b", ["a"])
    report_ahead(experiment, "one seed", found({"a": [3.0], "b": [4.0]}), "a", ["b"])
    assert [finding.confirmed for finding in experiment.findings] == [
        True, False, False, True, False, None, True, False, None
    ]  # fmt: skip
    assert experiment.findings[5].ours == "nflows is not installed, so nflows c was not trained"
    assert "3.050 ± 0.071, b 3.080 ± 0.071 bits/dim on 12 test images" in experiment.findings[0].ours
    assert "2 minutes of CPU time" in experiment.findings[0].note
    draw(experiment, two)
    assert experiment.pictures[0].stat().st_size > 1000


def test_pilots_choose_the_rate_and_a_repeated_run_trains_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(against_time, "pictures", lambda experiment: some())
    monkeypatch.setattr(against_time, "limit_of", lambda experiment: Limit(steps=300))
    monkeypatch.setattr(against_time, "RATES", (1e-5, 1e-2))
    monkeypatch.setattr(against_time, "BEYOND", 0)
    made: list[int] = []
    contenders = [Contender("a", lambda: made.append(1) or small()), Contender("b", small, library="no_such_library")]
    first = run_contenders(quiet(tmp_path, "long", seeds=2), contenders)
    assert len(made) == 4  # two pilots and two seeds
    assert [run["rate"] for run in first.runs["a"]] == [1e-2, 1e-2]
    assert first.missing == {"b": "no_such_library"}
    again = run_contenders(quiet(tmp_path, "long", seeds=2), contenders)
    assert len(made) == 4
    assert json.dumps(again.runs) == json.dumps(first.runs)
    assert not list(tmp_path.glob("*.checkpoint"))
    # When the time is over, the seeds that are there are returned, with a note that one is left out.
    late = quiet(tmp_path, "long", seeds=3)
    late.end = -1.0
    assert json.dumps(run_contenders(late, contenders).runs) == json.dumps(first.runs)
    assert late.left_out == "a seed 2"
    # Another paper that compares the same model finds its results.
    other = Experiment("other", "long", tmp_path, seeds=2, say=lambda line: None)
    run_contenders(other, contenders)
    assert len(made) == 4


def test_a_long_run_is_on_cifar_for_12_minutes(tmp_path, monkeypatch):
    asked: list[str] = []

    def load(name: str, *, train: bool, folder) -> torch.Tensor:
        asked.append(name)
        return torch.zeros(10_000 if train else 9_966, 3, 32, 32, dtype=torch.uint8)

    monkeypatch.setattr("papers.experiment.load_images", load)
    images = pictures(quiet(tmp_path, "long"))
    assert set(asked) == {"cifar10"}
    assert [len(images.train), len(images.held_out), len(images.test)] == [9500, 500, 9966]
    assert limit_of(quiet(tmp_path, "long")).seconds == 720


@pytest.mark.parametrize("paper", [cef, funnels, glow, iresnet, nsf, nxn], ids=lambda module: module.__name__)
def test_every_contender_of_a_long_run_can_be_made(paper, tmp_path, monkeypatch):
    """The models of a long run on images of CIFAR-10's shape, without training; peers only if they are installed."""
    kept: dict[str, Contender] = {}
    tiny = Pictures("cifar10", *(torch.zeros(30, 3, 32, 32, dtype=torch.uint8) for _ in range(3)), 32)

    class StopError(Exception):
        pass

    def keep(experiment: Experiment, contenders: list[Contender]) -> None:
        kept.update({contender.name: contender for contender in contenders})
        raise StopError

    monkeypatch.setattr(paper, "pictures", lambda experiment: tiny)
    monkeypatch.setattr(paper, "run_contenders", keep)
    monkeypatch.setattr(cef, "principal_residual", lambda *arguments: 1.0)
    with pytest.raises(StopError):
        paper._against_time(quiet(tmp_path, "long"))
    for contender in kept.values():
        if not contender.library:
            assert contender.make().shape == (3, 32, 32)
    assert any(contender.library for contender in kept.values())
    assert set(PEERS) <= set(kept) or paper in (iresnet, nsf, funnels)
    if paper is nxn:
        sizes = [size(kept[name].make()) for name in ("Glow 1x1", "Glow 3x3 causal", "Glow 3x3 emerging")]
        assert max(sizes) < 1.03 * min(sizes)


def test_evidence_of_long_runs_is_asked_of_long_runs_only():
    headline = Headline("toy", "", HELD, "", ("one",), later=("two",))

    def report(budget, *claims: tuple[str, bool]) -> Report:
        findings = tuple(Finding(claim, "", "", confirmed, 0.0) for claim, confirmed in claims)
        return Report("toy", "Toy", budget, findings, (), 0.0, "", "", "")

    assert headline.contradiction(report("quick", ("one", True))) == ""
    assert headline.contradiction(report("quick", ("one", True), ("two", False))) == ""
    assert "no claim that begins with 'two'" in headline.contradiction(report("long", ("one", True)))
    assert "1 of 2" in headline.contradiction(report("long", ("one", True), ("two", False)))
    assert headline.contradiction(report("long", ("one", True), ("two", True))) == ""


def test_a_shorter_run_can_be_evidence_too():
    headline = Headline("toy", "", PARTLY, "", ("one",), earlier=("one",))

    def report(budget, claim: str, confirmed: bool) -> Report:
        return Report("toy", "Toy", budget, (Finding(claim, "", "", confirmed, 0.0),), (), 0.0, "", "", "")

    long = report("long", "one", False)
    assert "0 of 1" in headline.contradiction(long)
    assert headline.contradiction(long, report("quick", "one", True)) == ""
    assert "0 of 2" in headline.contradiction(long, report("quick", "one", False))
    assert "0 of 1" in headline.contradiction(long, report("quick", "two", True))
    assert "0 of 1" in Headline("toy", "", PARTLY, "", ("one",)).contradiction(long, report("quick", "one", True))
